//! A study's directory: its tables written, read back to be drawn again, and the parts of one study checked before they are merged.
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
pub use merge::{MergedShards, is_finished_shard};
pub use read::SavedResults;
pub use write::{write_study, write_table};
