//! Records of a run, as the pipeline makes them, the manifest keeps them and a merge reads them back.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// An adapter that was analysed, and its base model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AdapterRecord {
    /// Its name in the tables.
    pub name: String,
    /// Its directory.
    pub path: String,
    /// The base model's directory or file, links resolved.
    pub base: String,
    /// What the base model is called in figures.
    pub base_name: String,
}

impl AdapterRecord {
    /// An adapter in the directory `path` on the base model in `base`.
    #[must_use]
    pub fn new(name: &str, path: &Path, base: &Path, base_name: &str) -> Self {
        let plain = |path: &Path| path.to_string_lossy().into_owned();
        Self {
            name: name.to_owned(),
            path: plain(path),
            base: plain(&base.canonicalize().unwrap_or_else(|_| base.to_owned())),
            base_name: base_name.to_owned(),
        }
    }
}

/// The base model's name, where all adapters have the same.
#[must_use]
pub fn only_base_name(adapters: &[AdapterRecord]) -> Option<&str> {
    let first = adapters.first()?;
    adapters.iter().all(|adapter| adapter.base == first.base).then_some(first.base_name.as_str())
}

/// Which part of the adapters a run analysed (`--shard`). All of them are part 1 of 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The part's number, from 1.
    pub number: usize,
    /// How many parts there are.
    pub of: usize,
    /// How many adapters all parts have together.
    pub adapters: usize,
    /// BLAKE3 of the names of all of them, in hex: parts of the same whole have the same.
    pub names_blake3: String,
}
