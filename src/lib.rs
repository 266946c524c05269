//! Conversion matrices of LoRA adapters: how similar they are across layers, and how much of that is chance or the base model.
//!
//! Answers the questions of Kim et al. 2024, "A Single Linear Layer Yields Task-Adapted Low-Rank Matrices" (arXiv 2403.14946), for LoRA checkpoints
//! as PEFT writes them. The program `condlora` is a thin layer over this library: [`cli`] makes [`AnalyzeParams`] of the arguments and calls [`prepare`].
//!
//! # Notation
//!
//! | symbol | in the code | is |
//! |---|---|---|
//! | W0 (out, in) | `w0` | a frozen base weight |
//! | A (r, in), B (out, r) | `lora_a`, `lora_b` | the trained factors: the update is ΔW = s·B·A with s = α/r, or α/√r for rsLoRA |
//! | Θ | `theta` | a conversion matrix: what W0 has to be multiplied by to give a factor |
//! | φ | `phi` | the similarity of two subspaces, 0 to 1 |
//!
//! The conversion matrices solve, in f64 and with every solution checked by its own residual ([`conversion`]),
//!
//! | convention | Θ_A | Θ_B | Θ_BA |
//! |---|---|---|---|
//! | [`Convention::Paper`] (square W0) | W0·Θ_A = Aᵀ | W0·Θ_B = B | Θ_B·A |
//! | [`Convention::General`] (any W0) | W0ᵀ·Θ_A = Aᵀ | W0·Θ_B = B | Θ_B·A |
//!
//! and two layers are compared by φ(X, Y, i, j) = ‖U_Xⁱᵀ·U_Yʲ‖_F² / min(i, j), with the top i and j singular vectors of their matrices ([`similarity`]).
//! The [`controls`] say what φ would be without training.
//!
//! # The way of the data
//!
//! [`checkpoint`] (bytes to checked tensors) → [`study`] (pairs adapters with their base, factorises each W0 once) → [`conversion`], [`controls`] and
//! [`similarity`] (on [`linalg`], which knows no LoRA) → rows ([`table`]) → files, [`figure`]s and the [`report`]. Beside the study stands [`shared_theta`]: CondLoRA, whose
//! layers share their Θ.
//! Results depend on the inputs and the seed alone: threads, batching and the other adapters of a run change no bit.
//!
//! # Example
//!
//! ```
//! use condlora::verdict::RunVerdict;
//! use condlora::{AnalyzeParams, prepare};
//!
//! # fn main() -> condlora::Result<()> {
//! let config = AnalyzeParams {
//!     paths: vec!["notebooks-data/adapters/trec-seed0".into()],
//!     base: Some("notebooks-data/base/all-MiniLM-L6-v2-qv".into()),
//!     modules: vec!["value".into()],
//!     ..Default::default()
//! }
//! .check()?;
//! let study = prepare(config)?.run()?;
//!
//! assert_eq!(study.tables.similarity.len(), 3 * 6 * 6); // A, B and BA, all ordered pairs of 6 layers
//! let verdict = RunVerdict::of_study(&study.tables.summary, config.params().null_draws);
//! assert_eq!(verdict.headline, "More than chance, but not shown to be more than the base model alone gives.");
//! # Ok(())
//! # }
//! ```
//!
//! BLAS is kept at one thread; the work is spread over the rayon pool that [`study::Prepared::run`] is called in.

pub mod checkpoint;
pub mod cli;
pub mod controls;
pub mod conversion;
pub mod error;
pub mod figure;
mod inputs;
mod json;
mod layer_matrix;
pub mod linalg;
mod marker;
pub mod measures;
mod numerals;
pub mod output;
pub mod record;
pub mod report;
pub mod results;
pub mod shared_theta;
pub mod similarity;
pub mod study;
pub mod table;
pub mod terms;
pub mod verdict;

pub use error::{Error, Result};
pub use inputs::Progress;
pub use shared_theta::{CompareParams, FitParams, MaterializeParams, prepare_comparison, prepare_fit, prepare_materialization};
pub use study::{AnalyzeConfig, AnalyzeParams, InspectParams, Inspection, Prepared, Shard, Study, inspect, prepare};
pub use table::{
    AcrossRow, CompareRow, ConversionRow, FitRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow, Tables,
    TrainingRow,
};
pub use terms::{Convention, MatrixKind, Measure, Method, Side, Status, UpdateMatrix};

/// The guide's Rust examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/library.md")]
struct LibraryGuide;
