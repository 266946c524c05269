//! Conversion matrices of LoRA adapters: how similar they are across layers, and how much of that is chance or the base model.
//!
//! Answers the questions of Kim et al. 2024, "A Single Linear Layer Yields Task-Adapted Low-Rank Matrices" (arXiv 2403.14946), for LoRA checkpoints
//! as PEFT writes them. The program `condlora` is a thin layer over this library: it makes [`AnalyzeParams`] of its arguments and calls [`prepare`].
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
//! The conversion matrices solve, in f64 and with every solution checked by its own residual ([`solve_theta`]),
//!
//! | convention | Θ_A | Θ_B | Θ_BA |
//! |---|---|---|---|
//! | [`Convention::Paper`] (square W0) | W0·Θ_A = Aᵀ | W0·Θ_B = B | Θ_B·A |
//! | [`Convention::General`] (any W0) | W0ᵀ·Θ_A = Aᵀ | W0·Θ_B = B | Θ_B·A |
//!
//! and two layers are compared by φ(X, Y, i, j) = ‖U_Xⁱᵀ·U_Yʲ‖_F² / min(i, j), with the top i and j singular vectors of their matrices ([`phi`]).
//! Controls say what φ would be without training, and [`RunVerdict`] compares a study's averages with them.
//!
//! # The path of the data
//!
//! Checkpoints (bytes to checked tensors) → the study (pairs adapters with their base, factorises each W0 once) → conversion matrices, controls and
//! similarity (dense kernels that know no LoRA) → rows → tables, figures and the report. [`prepare`] opens and checks everything that can be refused
//! without computing, [`Prepared::run`] computes, and the rows are in [`Study::tables`]. [`prepare_comparison`], [`prepare_fit`] and
//! [`prepare_materialization`] are the same for CondLoRA, whose layers share their Θ. Those who have matrices and no checkpoints begin with
//! [`solve_theta`] and [`phi`].
//! Results depend on the inputs and the seed alone: threads, batching and the other adapters of a run change no bit.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `cli` (default) | the program `condlora`, with `figures` and `report` |
//! | `figures` (default) | figures as SVG and PNG |
//! | `pdf` (default) | figures as PDF too |
//! | `report` (default) | `report.html` |
//! | `parquet` (default) | tables as Parquet in addition to CSV |
//! | `openblas-system` (default) or `openblas-static` | the OpenBLAS of the system, or one that is compiled here: one of the two is needed |
//!
//! `default-features = false` with one of the last two gives the mathematics, the readers of checkpoints and the CSV tables.
//!
//! # Example
//!
//! ```
//! use condlora::{AnalyzeParams, RunVerdict, prepare};
//!
//! # fn main() -> condlora::Result<()> {
//! let config = AnalyzeParams {
//!     paths: vec!["notebooks-data/adapters/trec-seed0".into()],
//!     base: Some("notebooks-data/base/all-MiniLM-L6-v2-qv".into()),
//!     modules: vec!["value".into()],
//!     ..Default::default()
//! }
//! .check()?;
//! let draws = config.params().null_draws;
//! let study = prepare(config)?.run()?;
//!
//! assert_eq!(study.tables.similarity.len(), 3 * 6 * 6); // A, B and BA, all ordered pairs of 6 layers
//! let verdict = RunVerdict::of_study(&study.tables, draws);
//! assert_eq!(verdict.headline, "The layers share something of a linear map from W0 to B; for A none is shown.");
//! # Ok(())
//! # }
//! ```
//!
//! BLAS is kept at one thread; the work is spread over the rayon pool that [`Prepared::run`] is called in. Types of `ndarray` in signatures
//! are part of the promise: a new major version of it is one of this crate.

// What the program, the report and the figures need of the library is not all used without them.
#![cfg_attr(not(all(feature = "cli", feature = "parquet", feature = "pdf")), allow(dead_code, unused_imports))]

// The modules are internal; the public interface is re-exported below. They are public for tests, benches and the
// fuzzer alone, which reach into them.
#[doc(hidden)]
pub mod checkpoint;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod controls;
#[doc(hidden)]
pub mod conversion;
#[doc(hidden)]
pub mod error;
#[cfg(feature = "figures")]
#[doc(hidden)]
pub mod figure;
mod inputs;
mod json;
mod layer_matrix;
#[doc(hidden)]
pub mod linalg;
mod marker;
#[doc(hidden)]
pub mod measures;
mod numerals;
#[doc(hidden)]
pub mod output;
#[doc(hidden)]
pub mod record;
#[doc(hidden)]
pub mod relation;
#[cfg(feature = "report")]
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod results;
#[doc(hidden)]
pub mod shared_theta;
#[doc(hidden)]
pub mod similarity;
mod stored;
#[doc(hidden)]
pub mod study;
#[doc(hidden)]
pub mod table;
#[doc(hidden)]
pub mod terms;
#[doc(hidden)]
pub mod verdict;

pub use error::{Error, Result};

// A study, and the inspection before one.
pub use inputs::Progress;
pub use study::{
    AnalyzeConfig, AnalyzeParams, Division, InspectParams, InspectedAdapter, InspectedBase, InspectedLayer, InspectedModule,
    Inspection, Parameters, Prepared, Refusal, Shard, ShardStudy, SolvedFiles, Study, inspect, prepare, prepare_merged,
};
// What counts as an intruder in one.
pub use relation::Intruders;
// CondLoRA.
pub use shared_theta::{
    CompareConfig, CompareParams, Comparison, Fit, FitConfig, FitParams, FittedModule, MaterializeConfig, MaterializeParams,
    MaterializedSize, PreparedComparison, PreparedFit, PreparedMaterialization, prepare_comparison, prepare_fit,
    prepare_materialization,
};
// How adapters and bases are paired, and types that weights are stored in.
pub use checkpoint::{FloatType, NameMap, PairingRules, Split};
// Rows and their verdicts.
pub use relation::Cut;
pub use table::csv::{read_rows, write_rows};
pub use table::{
    AcrossRow, AlignmentRow, CompareAverageRow, CompareRow, ConversionRow, CutRow, EnergyRow, FitRow, GridRow, HeldOutRow,
    IntruderCountRow, IntruderRow, MeasureRow, RelationRow, SimilarityRow, SpectrumRow, SubspaceRow, SummaryRow, TableFormat,
    Tables, TrainingRow, UpdateRow, ViewKey,
};
pub use terms::{
    CondloraConvention, Convention, MatrixKind, Measure, Method, NullDraws, Side, SpectrumMatrix, Status, StrictControl,
    UpdateMatrix,
};
pub use verdict::{Answer, MapAnswer, MapVerdict, RowVerdict, RunVerdict, StrictAnswer, StrictVerdict};
// A directory of results.
pub use output::{Manifest, OutputDir};
pub use record::{AdapterRecord, InputRecord, ShardRecord};
pub use results::{MergedShards, SavedResults, write_study};
// The mathematics alone.
pub use conversion::{Conversion, ConversionMatrix, Equation, Solver, Target, WeightRows, Workspace, solve_theta};
pub use linalg::subspace::{Spectrum, SubspaceBasis, ThinQr};
pub use similarity::{expected_by_chance, phi};

#[cfg(feature = "figures")]
pub use figure::{
    CellOrder, ColourMap, ColourScale, Dpi, DrawnFigure, FigureContext, FigureFormat, FigureKind, FigureOptions, draw_comparison,
    draw_fit, draw_held_out, draw_paper, draw_study,
};
#[cfg(feature = "report")]
pub use report::{REPORT_FILE, report_html};

/// The guide's Rust examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/library.md")]
struct LibraryGuide;
