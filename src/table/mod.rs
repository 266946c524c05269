//! Rows and the files that hold them: CSV and Parquet tables, and φ matrices.
//!
//! Rows are plain data. Their meaning is in the docs of their fields; the pipeline computes them, and
//! [`crate::figure`] draws them.

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
