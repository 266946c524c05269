//! The base model: weights in one file or in shards, read one by one.

pub(super) mod find;
mod hub_cache;
pub mod model_class;
pub mod model_config;
mod sharded;

use std::path::{Path, PathBuf};

use crate::checkpoint::files::disk::{listing, unreadable};
use crate::checkpoint::files::tensor::{RawTensor, TensorInfo};
use crate::checkpoint::files::weights::WeightsFile;
use crate::error::{Error, Result, escape, field};
use crate::record::InputRecord;
use sharded::ShardedModel;

/// The weights' file name in a model directory.
pub const MODEL_FILE: &str = "model.safetensors";
/// What else weights are called: in shards, by older versions, and by Diffusers. The first that is there is taken: in
/// the order of transformers, safetensors before pickles.
const LAYOUTS: [&str; 7] = [
    MODEL_FILE,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
];
/// Weights that are not read, and what they are.
const OTHER_LAYOUTS: [(&str, &str); 3] =
    [("tf_model.h5", "weights of TensorFlow"), ("flax_model.msgpack", "weights of Flax"), ("model.onnx", "an ONNX graph")];
/// What marks a directory of several models (Diffusers).
const PIPELINE_FILE: &str = "model_index.json";

/// A base model.
#[derive(Debug)]
pub struct BaseModel {
    path: PathBuf,
    display_name: String,
    files: ShardedModel,
}

impl BaseModel {
    /// Opens a model directory, or its weight file or index directly; no tensor is read.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is nothing, or a shard or one of its tensors is not there, [`Error::Malformed`] for a bad file,
    /// [`Error::Mismatch`] for a layout that is not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|err| unreadable(path, &err))?;
        let file = if metadata.is_dir() { weights_in(path)? } else { path.to_owned() };
        Ok(Self { path: path.to_owned(), display_name: display_name(&file), files: ShardedModel::open(&file)? })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the model's directory; in the Hugging Face cache, the model's name.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.display_name
    }

    /// The tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.names()
    }

    /// What the header says about a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.files.file_of(name).and_then(|file| file.info(name))
    }

    /// The file that holds the weights, or the index of the files that do.
    #[must_use]
    pub fn weights_file(&self) -> &Path {
        self.files.path()
    }

    /// The file that holds a tensor; the whole model's where none does.
    #[must_use]
    pub fn file_of(&self, name: &str) -> &Path {
        self.files.file_of(name).map_or(self.files.path(), WeightsFile::path)
    }

    /// Reads one tensor as it is stored.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub fn read(&self, name: &str) -> Result<RawTensor> {
        self.read_into(name, Vec::new())
    }

    /// Reads one tensor as it is stored, into storage of an earlier one.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub(crate) fn read_into(&self, name: &str, storage: Vec<u8>) -> Result<RawTensor> {
        self.holder(name)?.read_into(name, storage)
    }

    /// Reads one tensor into `out` as `f64`, row-major as stored.
    ///
    /// # Errors
    /// As [`WeightsFile::read_f64`].
    pub fn read_f64(&self, name: &str, out: &mut [f64]) -> Result<InputRecord> {
        self.holder(name)?.read_f64(name, out)
    }

    fn holder(&self, name: &str) -> Result<&WeightsFile> {
        let none = || Error::missing(self.weights_file(), format!("has no tensor `{}`", escape(name)));
        self.files.file_of(name).ok_or_else(none)
    }

    /// The records of every header that was read: the weight file's, or the index and those of all shards.
    #[must_use]
    pub fn header_records(&self) -> Vec<InputRecord> {
        self.files.header_records()
    }

    /// Bytes of headers and tensors read so far, and bytes in all files of weights.
    #[must_use]
    pub fn bytes_read(&self) -> (u64, u64) {
        let files = self.files.all();
        (files.iter().map(WeightsFile::bytes_read).sum(), files.iter().map(WeightsFile::file_size).sum())
    }

    /// How the weight of a module is packed, if it is: its tensors are then not named `PATH.weight`, or come with scales.
    pub(crate) fn packing(&self, path: &str) -> Option<&'static str> {
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

/// The file of weights in a model directory, or the index of several.
fn weights_in(dir: &Path) -> Result<PathBuf> {
    let there = |name: &str| dir.join(name).symlink_metadata().is_ok();
    if let Some(name) = LAYOUTS.iter().find(|name| there(name)) {
        return Ok(dir.join(name));
    }
    if let Some(name) = variant_in(dir)? {
        return Ok(dir.join(name));
    }
    if let Some((name, found)) = OTHER_LAYOUTS.iter().find(|(name, _)| there(name)) {
        return Err(Error::mismatch(&dir.join(name), "base model layout is not supported", format!("one {MODEL_FILE}"), *found)
            .with_hint("load the model with transformers and save it again as safetensors"));
    }
    let error = Error::missing(dir, format!("has no model weights; expected {MODEL_FILE}, found {}", listing(dir)));
    Err(if there(PIPELINE_FILE) {
        error.with_hint("give the folder of one model in it: unet, transformer or text_encoder")
    } else {
        error
    })
}

/// Weights of which only a variant was downloaded: one of the known names with one more part, as in `model.fp16.safetensors`.
fn variant_in(dir: &Path) -> Result<Option<String>> {
    let entries = std::fs::read_dir(dir).map_err(|err| unreadable(dir, &err))?;
    let mut variants: Vec<(usize, String)> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some((layout_of_variant(&name)?, name)))
        .collect();
    variants.sort();
    let first = variants.first().map(|(layout, _)| *layout);
    variants.retain(|(layout, _)| Some(*layout) == first);
    match &variants[..] {
        [] | [_] => Ok(variants.pop().map(|(_, name)| name)),
        several => {
            let names: Vec<String> = several.iter().map(|(_, name)| name.clone()).collect();
            Err(Error::mismatch(dir, "several variants of the model's weights", "one of them", names.join(", "))
                .with_hint(format!("give one of the files with {}", field("base"))))
        }
    }
}

/// The layout that a file name is a variant of, by its place among the known ones.
fn layout_of_variant(name: &str) -> Option<usize> {
    let parts: Vec<&str> = name.split('.').collect();
    let without = |at: usize| [&parts[..at], &parts[at + 1..]].concat().join(".");
    (1..parts.len().saturating_sub(1)).find_map(|at| LAYOUTS.iter().position(|layout| *layout == without(at)))
}

/// The name of the directory that holds the file, links resolved; in the Hugging Face cache (`models--ORG--NAME/snapshots/HASH`), NAME.
fn display_name(file: &Path) -> String {
    let directory = std::path::absolute(file).ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    if let Some(name) = hub_cache::cached_name(&directory) {
        return name;
    }
    let named = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let resolved = || directory.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
    named.or_else(resolved).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{generate, pickled};

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
    fn the_first_layout_that_is_there_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        let at = |name: &str| dir.path().join("base").join(name);
        let file = generate::file(&generate::base_tensors());
        let pickle = pickled::file(&generate::base_tensors());
        let index = |name: &str| {
            let entries: Vec<String> =
                generate::base_tensors().iter().map(|tensor| format!("{:?}: {name:?}", tensor.name)).collect();
            format!("{{\"weight_map\": {{{}}}}}", entries.join(", ")).into_bytes()
        };
        std::fs::remove_file(at(MODEL_FILE)).unwrap();
        std::fs::write(at("part.safetensors"), &file).unwrap();
        std::fs::write(at("part.bin"), &pickle).unwrap();
        for name in LAYOUTS.iter().rev() {
            let bytes = match (name.ends_with(".json"), name.contains(".bin")) {
                (true, true) => index("part.bin"),
                (true, false) => index("part.safetensors"),
                (false, true) => pickle.clone(),
                (false, false) => file.clone(),
            };
            std::fs::write(at(name), bytes).unwrap();
            let base = BaseModel::open(&dir.path().join("base")).unwrap();
            assert_eq!((base.weights_file(), base.names().count()), (at(name).as_path(), 2), "{name}");
            for tensor in generate::base_tensors() {
                assert_eq!(base.read(&tensor.name).unwrap().bytes(), tensor.bytes);
            }
            assert_eq!(BaseModel::open(&at(name)).unwrap().names().count(), 2);
        }
    }

    #[test]
    fn other_layouts_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model_index.json"), "{}").unwrap();
        let error = BaseModel::open(dir.path()).unwrap_err();
        assert_eq!((error.exit_code(), error.hint().unwrap().contains("unet")), (3, true), "{error}");
        std::fs::write(dir.path().join("tf_model.h5"), "").unwrap();
        let error = BaseModel::open(dir.path()).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().contains("weights of TensorFlow")), (5, true), "{error}");
    }
}
