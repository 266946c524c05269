//! The first steps of every command: opening adapters over their base models and pairing them, selecting modules and layers,
//! reading weights as they are stored, and finding out how much memory may be used.
//!
//! `study` and `shared_theta` both use this module and do not depend on each other. Nothing here computes more than a product of weights.

mod memory;
mod opening;
mod pairing;
mod progress;
mod selection;
mod stored;

pub(crate) use memory::{blas_cannot_start, check_address_space, default_limit, parse_bytes, show as show_bytes};
pub(crate) use opening::{LaidOut, OpenedAdapter, Opener, by_module, module_paths};
pub(crate) use pairing::{BaseWeight, choose_convention, type_of_tensor};
pub use progress::Progress;
pub(crate) use selection::{Selection, check_ij};
pub(crate) use stored::{FactorPair, StoredWeight};
