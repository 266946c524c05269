//! What a manifest says was read: one record type, filled in where the bytes are read and written as it is.

use std::cmp::Ordering;
use std::path::Path;

use serde::{Deserialize, Serialize};

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

impl InputRecord {
    /// The record of a file's header, or of a whole file that is no file of tensors.
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

/// By the parts of the path and not by its text: `a/x` comes before `a-b/x`, so that a folder's files stay together.
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
