//! Records of a run, as the pipeline makes them, the manifest keeps them and a merge reads them back: what was read, which adapters were
//! analysed, and which part of a study a run is.

use std::cmp::Ordering;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::stored::stored_as_json;

/// A header, tensor or configuration file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The file, as it was found.
    pub file: String,
    /// The tensor's name; none for the file's header or a configuration file.
    pub tensor: Option<String>,
    /// The tensor's stored type; none for a header.
    pub dtype: Option<String>,
    /// BLAKE3 of the bytes, in hexadecimal.
    pub blake3: String,
}

stored_as_json!(InputRecord);

impl InputRecord {
    /// The record of a file's header, or of a whole file that holds no tensors.
    #[must_use]
    pub fn of_file(file: &Path, blake3: String) -> Self {
        Self { file: file.to_string_lossy().into_owned(), tensor: None, dtype: None, blake3 }
    }

    fn fields(&self) -> [Option<&str>; 4] {
        [Some(&self.file), self.tensor.as_deref(), self.dtype.as_deref(), Some(&self.blake3)]
    }

    /// The record of a tensor.
    #[must_use]
    pub fn of_tensor(file: &Path, tensor: &str, dtype: impl std::fmt::Display, blake3: String) -> Self {
        let file = file.to_string_lossy().into_owned();
        Self { file, tensor: Some(tensor.to_owned()), dtype: Some(dtype.to_string()), blake3 }
    }
}

/// Compares the parts of the path and not its text: `a/x` comes before `a-b/x`, so that a folder's files stay together.
impl Ord for InputRecord {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_path = Path::new(&self.file).cmp(Path::new(&other.file));
        by_path.then_with(|| self.fields().cmp(&other.fields()))
    }
}

impl PartialOrd for InputRecord {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

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

/// Which part of the base weights a run solved through (`--shard`). All of them are part 1 of 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The part's number, from 1.
    pub number: usize,
    /// How many parts there are.
    pub of: usize,
    /// How many adapters there are.
    pub adapters: usize,
    /// BLAKE3 of the names of all of them, in hex: parts of the same whole have the same.
    pub names_blake3: String,
    /// How many base weights all parts have together.
    pub weights: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_sorted_by_folder_then_tensor() {
        let record = |file: &str, tensor: Option<&str>| match tensor {
            None => InputRecord::of_file(Path::new(file), "00".to_owned()),
            Some(name) => InputRecord::of_tensor(Path::new(file), name, "F32", "00".to_owned()),
        };
        let sorted = [record("a/x", None), record("a/x", Some("b")), record("a/y", None), record("a-b/x", None)];
        let mut records = sorted.clone();
        records.reverse();
        records.sort();
        assert_eq!(records, sorted);
    }
}
