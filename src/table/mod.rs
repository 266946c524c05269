//! Rows and the files that hold them: CSV and Parquet tables and φ matrices; and the output directory with its manifest.
//!
//! Rows are plain data. What they mean is in their fields' docs; how they come about is the pipeline's business,
//! and how they look is [`crate::figure`]'s.

pub mod any_table;
pub mod atomic_file;
pub mod columns;
pub mod csv;
mod destination;
pub mod file_name;
pub mod format;
mod gather;
pub mod json;
pub mod manifest;
pub mod output;
pub mod parquet;
pub mod phi_matrix;
pub mod rows;
mod sync;
mod temporaries;
mod view;

pub use atomic_file::{write_file_atomically, write_files_atomically};
pub use format::TableFormat;
pub(crate) use gather::gather;
pub use json::{rows_json, summary_json};
pub use manifest::{InputRecord, Manifest, MergedFrom};
pub use output::OutputDir;
pub use phi_matrix::{PhiMatrix, phi_matrices};
pub use rows::{
    AcrossRow, CompareAverageRow, CompareRow, ConversionRow, FitRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow,
    Tables, TrainingRow,
};
pub use temporaries::remove_temporaries;
pub use view::ViewKey;

use crate::error::in_words;
