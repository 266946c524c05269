//! A file of named tensors, whatever its format.

use std::path::Path;

use super::reader::SafetensorsFile;
use super::tensor::{RawTensor, TensorInfo};
use crate::error::Result;

/// An open file of tensors: its names, types and shapes are known and checked, its values not yet read.
#[derive(Debug)]
pub enum WeightsFile {
    /// `.safetensors`.
    Safetensors(SafetensorsFile),
}

impl WeightsFile {
    /// Opens a file; no tensor is read.
    ///
    /// # Errors
    /// As [`SafetensorsFile::open`].
    pub fn open(path: &Path) -> Result<Self> {
        SafetensorsFile::open(path).map(Self::Safetensors)
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
        }
    }

    /// BLAKE3 of what describes the tensors, in hexadecimal.
    #[must_use]
    pub fn header_hash(&self) -> &str {
        match self {
            Self::Safetensors(file) => file.header_hash(),
        }
    }

    /// The tensors, sorted by name.
    #[must_use]
    pub fn tensors(&self) -> &[(String, TensorInfo)] {
        match self {
            Self::Safetensors(file) => file.tensors(),
        }
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors().iter().map(|(name, _)| name.as_str())
    }

    /// What is known about a tensor, if it is there.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        let at = self.tensors().binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
        self.tensors().get(at).map(|(_, info)| info)
    }

    /// Reads one tensor as it is stored, row-major.
    ///
    /// # Errors
    /// As [`SafetensorsFile::read`].
    pub fn read(&self, name: &str) -> Result<RawTensor> {
        match self {
            Self::Safetensors(file) => file.read(name),
        }
    }

    /// Reads one tensor into `out` as `f64`, row-major, and returns the BLAKE3 of its bytes.
    ///
    /// # Errors
    /// As [`SafetensorsFile::read_f64`].
    pub fn read_f64(&self, name: &str, out: &mut [f64]) -> Result<String> {
        match self {
            Self::Safetensors(file) => file.read_f64(name, out),
        }
    }
}
