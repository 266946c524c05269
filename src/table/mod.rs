//! Rows and the files that hold them: CSV and Parquet tables, φ matrices, the manifest, and the directory they are written to.
//!
//! Rows are plain data. What they mean is in their fields' docs; how they come about is the pipeline's business,
//! and how they look is [`crate::figure`]'s.

pub mod atomic_file;
pub mod columns;
pub mod csv;
mod destination;
pub mod file_name;
pub mod format;
mod gather;
pub mod json;
pub mod manifest;
mod npy;
pub mod output;
pub mod parquet;
pub mod phi_matrix;
pub mod rows;
pub mod saved;
pub mod shards;
mod sync;
mod temporaries;
pub mod write;

pub use atomic_file::{write_file_atomically, write_files_atomically};
pub use format::TableFormat;
pub(crate) use gather::gather;
pub use json::rows_json_with;
pub use manifest::{AdapterRecord, InputRecord, Manifest, MergedFrom, ShardRecord, only_base_name};
pub use output::OutputDir;
pub use phi_matrix::{PhiMatrix, phi_matrices};
pub use rows::{
    AcrossRow, CompareAverageRow, CompareRow, ConversionRow, FitRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow,
    Tables, TrainingRow,
};
pub use saved::SavedResults;
pub use shards::Shards;
pub use temporaries::remove_temporaries;
pub use write::{write_study, write_table};

use crate::error::in_words;
