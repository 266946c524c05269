//! Dense kernels in f64. Knows no LoRA.
//!
//! Everything here runs on the calling thread: BLAS is kept at one thread, and parallelism belongs to the callers.
//! Results depend on the arguments alone, never on how many threads run or what else they compute.

pub mod condition;
pub mod lanczos;
pub mod lapack;
pub mod least_squares;
pub mod lu;
pub mod norms;
pub mod panel;
pub mod perturbation;
pub mod qr;
pub mod random;
mod residual;
pub mod stacked;
mod storage;
mod stripes;
mod strips;
pub mod subspace;
mod substitution;
pub mod weight_basis;

/// 2⁻⁵², the spacing of f64 at 1: `ε` in docs/spec.md, section 1.
pub const EPSILON: f64 = f64::EPSILON;
/// 2⁻⁵³, the unit roundoff: `u` in docs/spec.md, section 1.
pub const UNIT_ROUNDOFF: f64 = f64::EPSILON / 2.0;
