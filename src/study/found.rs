//! What comes of a study.

use std::time::Duration;

use crate::error::Error;
use crate::record::{AdapterRecord, InputRecord};
use crate::table::Tables;

/// What a study found.
#[derive(Debug)]
pub struct Study {
    /// All rows, in table order.
    pub tables: Tables,
    /// Every header and tensor that was read, with its hash.
    pub inputs: Vec<InputRecord>,
    /// Time by stage: wall-clock time for `analysis` and `open`, summed over threads for the others.
    pub timings: Vec<(&'static str, Duration)>,
    /// Bytes of headers and tensors read from weight files.
    pub bytes_read: u64,
    /// Bytes in those files.
    pub bytes_held: u64,
    /// The adapters analysed, by name, each with its base model.
    pub adapters: Vec<AdapterRecord>,
    /// What was noticed during the computation.
    pub warnings: Vec<String>,
    /// Adapters that were skipped while they were read, by name, and why (`--keep-going`).
    pub skipped: Vec<(String, Error)>,
}

/// What a run of a shard found: its weights are in the files that it gave away.
#[derive(Debug)]
pub struct ShardStudy {
    /// Every header and tensor that was read, with its hash.
    pub inputs: Vec<InputRecord>,
    /// Time by stage, as in [`Study`].
    pub timings: Vec<(&'static str, Duration)>,
    /// Bytes of headers and tensors read from weight files.
    pub bytes_read: u64,
    /// Bytes in those files.
    pub bytes_held: u64,
    /// The adapters of the study, by name, each with its base model.
    pub adapters: Vec<AdapterRecord>,
    /// Adapters that were skipped while they were read, by name, and why (`--keep-going`).
    pub skipped: Vec<(String, Error)>,
}

/// How the work of a study was divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// Base weights.
    pub weights: usize,
    /// How often one is read and factorised: as many times as there are weights, if memory suffices.
    pub readings: usize,
    /// The number of rounds, which run one after the other; only a round's rows are kept when the next begins.
    pub rounds: usize,
    /// Weights in memory at a time.
    pub workers: usize,
}
