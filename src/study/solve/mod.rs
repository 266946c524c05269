//! From stored weights to what will be compared: every base weight is read and factorised once a pass, and all targets are solved through it.

mod across;
mod layer;
mod matrices;
mod solved;
mod weight;
mod workers;

pub(crate) use across::across_rows;
pub(crate) use layer::DRAWS_TOGETHER;
pub(crate) use layer::{LayerJob, solve_layer};
pub(crate) use matrices::drawn_matrices;
pub(crate) use solved::{DrawnMatrices, KeptSpace, MemberLayer, SolvedLayer};
pub(crate) use weight::{KnownWeight, compared_factors, counts_of, drawn_factors};
pub(crate) use workers::run_jobs;
