//! The base model: one `model.safetensors` whose weights are read one by one.

use std::path::{Path, PathBuf};

use super::adapter::InputRecord;
use super::files::{listing, unreadable};
use super::tensor::{RawTensor, TensorInfo};
use super::weights::WeightsFile;
use crate::error::{Error, Result};

/// The weights' file name in a model directory.
pub const MODEL_FILE: &str = "model.safetensors";
/// The pickle that older versions write instead.
const MODEL_PICKLE: &str = "pytorch_model.bin";
/// What other ways of storing a model look like, and what they are called.
const OTHER_LAYOUTS: [(&str, &str); 3] = [
    ("model.safetensors.index.json", "weights in shards"),
    ("pytorch_model.bin.index.json", "weights in pickled shards"),
    ("tf_model.h5", "weights of TensorFlow"),
];

/// A base model.
#[derive(Debug)]
pub struct BaseModel {
    path: PathBuf,
    display_name: String,
    weights: WeightsFile,
}

impl BaseModel {
    /// Opens a model directory, or its weight file directly; no tensor is read.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is nothing, [`Error::Malformed`] for a bad file, [`Error::Mismatch`] for a layout that is
    /// not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|err| unreadable(path, &err))?;
        let file = if metadata.is_dir() { weights_in(path)? } else { path.to_owned() };
        if let Some(found) = index(&file) {
            return Err(unsupported(&file, found));
        }
        let weights = WeightsFile::open(&file)?;
        Ok(Self { path: path.to_owned(), display_name: display_name(&file), weights })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the model's directory.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.display_name
    }

    /// The tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.names()
    }

    /// What the header says about a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.weights.info(name)
    }

    /// The file that holds the weights.
    #[must_use]
    pub fn weights_file(&self) -> &Path {
        self.weights.path()
    }

    /// Reads one tensor as it is stored.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub fn read(&self, name: &str) -> Result<RawTensor> {
        self.weights.read(name)
    }

    /// Reads one tensor into `out` as `f64`, row-major as stored.
    ///
    /// # Errors
    /// As [`WeightsFile::read_f64`].
    pub fn read_f64(&self, name: &str, out: &mut [f64]) -> Result<InputRecord> {
        InputRecord::read_f64(&self.weights, name, out)
    }

    /// The record of the weight file's header.
    #[must_use]
    pub fn header_record(&self) -> InputRecord {
        InputRecord::header(&self.weights)
    }

    /// How the weight of a module is packed, if it is: its tensors are then not named `PATH.weight`, or come with scales.
    pub(super) fn packing(&self, path: &str) -> Option<&'static str> {
        let has = |suffix: &str| self.info(&format!("{path}.{suffix}")).is_some();
        if has("qweight") {
            Some(if has("g_idx") { "GPTQ (qweight, g_idx)" } else { "GPTQ or AWQ (qweight)" })
        } else if has("weight.absmax") || has("weight.quant_map") || has("weight.quant_state.bitsandbytes__nf4") {
            Some("bitsandbytes 4-bit (weight.absmax)")
        } else if has("SCB") || has("weight.SCB") {
            Some("bitsandbytes 8-bit (SCB)")
        } else if has("weight_packed") {
            Some("compressed-tensors (weight_packed)")
        } else if has("W_q") {
            Some("HQQ (W_q)")
        } else if has("scales") {
            Some("quantised weights (scales)")
        } else if has("weight_scale") || has("weight_scale_inv") {
            Some("8-bit floats (weight_scale)")
        } else {
            None
        }
    }
}

fn weights_in(dir: &Path) -> Result<PathBuf> {
    for name in [MODEL_FILE, MODEL_PICKLE] {
        let file = dir.join(name);
        if file.symlink_metadata().is_ok() {
            return Ok(file);
        }
    }
    if let Some((name, found)) = OTHER_LAYOUTS.iter().find(|(name, _)| dir.join(name).symlink_metadata().is_ok()) {
        return Err(unsupported(&dir.join(name), found));
    }
    Err(Error::missing(dir, format!("has no model weights; expected {MODEL_FILE}, found {}", listing(dir))))
}

fn index(file: &Path) -> Option<&'static str> {
    let name = file.file_name()?.to_string_lossy().to_ascii_lowercase();
    name.ends_with(".index.json").then_some("weights in shards")
}

fn unsupported(file: &Path, found: &str) -> Error {
    Error::mismatch(file, "base model layout is not supported", format!("one {MODEL_FILE}"), found)
        .with_hint("load the model with transformers and save it again as one safetensors file")
}

/// The name of the directory that holds the file, links resolved.
fn display_name(file: &Path) -> String {
    let directory = std::path::absolute(file).ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let named = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let resolved = || directory.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
    named.or_else(resolved).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;

    #[test]
    fn a_directory_or_its_file_is_the_same_model() {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        for path in [dir.path().join("base"), dir.path().join("base/..").join("base"), dir.path().join(generate::BASE_WEIGHTS)] {
            let base = BaseModel::open(&path).unwrap();
            assert_eq!((base.display_name(), base.names().count(), base.path()), ("base", 2, path.as_path()));
        }
    }

    #[test]
    fn other_layouts_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, found) in [("model.safetensors.index.json", "shards"), ("pytorch_model.bin.index.json", "shards")] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
            let error = BaseModel::open(&dir.path().join(name)).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().contains(found)), (5, true), "{error}");
        }
    }
}
