//! From stored weights to what will be compared: every base weight is read and factorised once a pass, and all targets are solved through it.

mod across;
mod layer;
mod matrices;
mod solved;
mod workers;

pub(crate) use layer::solve_layer;
pub(crate) use matrices::drawn_matrices;
pub(crate) use solved::{DrawnMatrices, KeptSpace, MemberLayer, SolvedLayer};
pub(crate) use workers::run_jobs;
