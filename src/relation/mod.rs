//! What an adapter's factors and updates have to do with their base weights, layer by layer and across layers: the rows of `updates.csv`, `relation.csv`,
//! `alignment.csv`, `cuts.csv`, `energy.csv`, `subspaces.csv` and of the intruders.
//!
//! Everything here is read off in the singular basis of W0, where a control can keep all that a single layer shows and destroy only what layers share: `flip`
//! turns the signs of a target in that basis, `T' = U·D·Uᵀ·T`. It keeps `TᵀT` and the energy of T in every singular direction.

mod alignment;
mod coordinates;
pub mod cut;
mod cuts;
mod energy;
#[cfg(test)]
mod example;
mod expected;
mod haar;
mod images;
mod intruders;
mod layer;
mod seen;
mod update;
mod updates;
mod yardstick;

pub use alignment::alignment_rows;
pub use cut::Cut;
pub use cuts::{CutStudy, Statistics, TOGETHER};
pub use energy::{energy_rows, subspace_rows};
pub use expected::{expected_phi, leverages};
pub use images::images_of;
pub use intruders::{IntruderStudy, Intruders};
pub use layer::{BaseLayer, DrawnImages, Images, ModuleName, RelatedLayer};
pub use seen::RelationStudy;
pub use update::Update;
pub use updates::{delta_rows, update_rows};
pub use yardstick::{Yardstick, YardstickStudy};
