//! Rows and the files that hold them: CSV tables, φ matrices and the manifest.
//!
//! Rows are plain data. What they mean is in their fields' docs; how they come about is [`crate::study`]'s business,
//! and how they look is `figure`'s.

pub mod rows;

pub use rows::{ConversionRow, SimilarityRow, SpectrumRow, SummaryRow, Tables};
