//! CondLoRA: one Θ_A and one Θ_B for all layers of a module (Kim et al. 2024, Eq. 5 to 7).
//!
//! [`compare`] compares two adapters of one base, layer by layer; [`materialize`] makes a LoRA adapter of a CondLoRA;
//! [`fit`] makes a CondLoRA of a LoRA, and tells how much of it one Θ explains.
//! Like [`crate::study`], on which it does not depend, it joins [`crate::checkpoint`] and the mathematics, and prints nothing.

pub mod compare;
pub mod fit;
pub mod materialize;

pub use compare::{CompareConfig, CompareParams, Comparison, PreparedComparison, prepare_comparison};
pub use fit::{Fit, FitConfig, FitParams, FittedModule, PreparedFit, prepare_fit};
pub use materialize::{MaterializeConfig, MaterializeParams, MaterializedSize, PreparedMaterialization, prepare_materialization};
