//! Rows and the files that hold them: CSV and Parquet tables, and φ matrices.
//!
//! Rows are plain data. What they mean is in their fields' docs; how they come about is the pipeline's business,
//! and how they look is [`crate::figure`]'s.

pub mod any_table;
pub mod columns;
pub mod csv;
pub mod file_name;
pub mod format;
mod gather;
pub mod json;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod phi_matrix;
pub mod rows;
mod view;

pub use format::TableFormat;
pub(crate) use gather::gather;
pub use json::rows_json_with;
pub use phi_matrix::{PhiMatrix, phi_matrices};
pub use rows::{
    AcrossRow, CompareAverageRow, CompareRow, ConversionRow, FitRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow,
    Tables, TrainingRow,
};
pub use view::ViewKey;
