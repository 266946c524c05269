//! Rows and the files that hold them: CSV and Parquet tables, and φ matrices.
//!
//! Rows are plain data. Their meaning is in the docs of their fields; the pipeline computes them, and
//! [`crate::figure`] draws them.

pub mod any_table;
pub mod columns;
pub mod csv;
pub mod file_name;
pub mod fit_rows;
pub mod format;
mod gather;
pub mod json;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod phi_matrix;
pub mod relation_rows;
pub mod rows;
pub mod tables;
mod view;

pub use fit_rows::{FitRow, HeldOutRow};
pub use format::TableFormat;
pub(crate) use gather::gather;
pub use json::{rows_as_json, rows_json_with};
pub use phi_matrix::{PhiMatrix, phi_matrices};
pub use relation_rows::{AlignmentRow, CutRow, EnergyRow, IntruderCountRow, IntruderRow, RelationRow, SubspaceRow, UpdateRow};
pub use rows::{
    AcrossRow, CompareAverageRow, CompareRow, ConversionRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow,
    TrainingRow,
};
pub use tables::Tables;
pub use view::ViewKey;
