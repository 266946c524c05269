//! A study's directory: its tables written, read back to be drawn again, and the parts of one study merged.
//!
//! The tables themselves are [`crate::table`]'s; this module handles all of them together in a directory.

mod checks;
mod file;
mod manifest;
mod merge;
mod npy;
mod read;
mod write;

pub use manifest::SavedManifest;
pub use merge::MergedStudy;
pub use read::SavedResults;
pub use write::{write_study, write_table};
