//! Rows and the files that hold them: CSV and Parquet tables, and φ matrices.
//!
//! Rows are plain data. What they mean is in their fields' docs; how they come about is the pipeline's business,
//! and how they look is [`crate::figure`]'s.

pub mod columns;
pub mod csv;
pub mod file_name;
pub mod format;
mod gather;
pub mod json;
mod npy;
pub mod parquet;
pub mod phi_matrix;
pub mod rows;
pub mod saved;
pub mod shards;
pub mod write;

pub use format::TableFormat;
pub(crate) use gather::gather;
pub use json::{rows_json, summary_json};
pub use phi_matrix::{PhiMatrix, phi_matrices};
pub use rows::{
    AcrossRow, CompareAverageRow, CompareRow, ConversionRow, FitRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow,
    Tables, TrainingRow,
};
pub use saved::SavedResults;
pub use shards::Shards;
pub use write::{write_study, write_table};

use crate::error::in_words;
