//! The base model: weights in one file or in shards, read one by one.

pub(super) mod find;
mod hub_cache;
mod layout;
pub mod model_class;
pub mod model_config;
mod pipeline;
mod sharded;

use std::path::{Path, PathBuf};

use crate::checkpoint::files::disk::unreadable;
use crate::checkpoint::files::tensor::{RawTensor, TensorInfo};
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::{path_of_expert, tensor_of_view};
use crate::error::{Error, Result, escape};
use crate::record::InputRecord;
pub use layout::MODEL_FILE;
use layout::weights_in;
use pipeline::PIPELINE_FILE;
use sharded::ShardedModel;

/// What follows a layer's name in that of a weight that an adapter brings along.
const OWN_WEIGHT: &str = ".base_layer.weight";

/// A base model.
#[derive(Debug)]
pub struct BaseModel {
    path: PathBuf,
    display_name: String,
    parts: Vec<Part>,
    own: Vec<OwnWeights>,
}

/// Frozen weights that an adapter brings along: PEFT saves those of a layer that was changed before training, as an output layer is for added tokens.
#[derive(Debug)]
struct OwnWeights {
    /// What is put before the names: the adapter's own.
    prefix: String,
    file: WeightsFile,
}

/// A model's files; those of one of a pipeline's models, with its folder's name.
#[derive(Debug)]
struct Part {
    /// What is put before the names of its tensors; empty where it is the only one.
    prefix: String,
    files: ShardedModel,
    /// The names with the prefix, sorted; empty without one.
    names: Vec<String>,
    /// Weights of single experts in tensors of several: the path of each, and its view's name.
    experts: Vec<(String, String)>,
}

impl Part {
    fn open(file: &Path, folder: Option<&str>) -> Result<Self> {
        let files = ShardedModel::open(file)?;
        let prefix = folder.map_or_else(String::new, |folder| format!("{folder}."));
        let names = if prefix.is_empty() { Vec::new() } else { files.names().map(|name| format!("{prefix}{name}")).collect() };
        let expert = |view: &str| {
            let (tensor, expert) = tensor_of_view(view)?;
            let path = path_of_expert(tensor.strip_suffix(".weight").unwrap_or(tensor), expert);
            Some((format!("{prefix}{path}"), format!("{prefix}{view}")))
        };
        let experts = files.all().iter().flat_map(WeightsFile::views).filter_map(expert).collect();
        Ok(Self { prefix, files, names, experts })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let own = if self.prefix.is_empty() { Some(self.files.names()) } else { None };
        own.into_iter().flatten().chain(self.names.iter().map(String::as_str))
    }

    /// The file that holds a tensor, and the tensor's name there.
    fn holder<'n>(&self, name: &'n str) -> Option<(&WeightsFile, &'n str)> {
        let own = name.strip_prefix(self.prefix.as_str())?;
        let of_view = || tensor_of_view(own).and_then(|(tensor, _)| self.files.file_of(tensor));
        self.files.file_of(own).or_else(of_view).map(|file| (file, own))
    }
}

impl BaseModel {
    /// Opens a model directory, its weight file or index directly, or the directory of a pipeline of Diffusers, whose models' tensors then have the
    /// name of their folder in front (`unet.`); no tensor is read.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is nothing, or a shard or one of its tensors is not there, [`Error::Malformed`] for a bad file,
    /// [`Error::Mismatch`] for a layout that is not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|err| unreadable(path, &err))?;
        let file = if !metadata.is_dir() {
            path.to_owned()
        } else if let Some(folders) = pipeline::folders(path)? {
            let part = |(folder, file): (String, PathBuf)| Part::open(&file, Some(&folder));
            let parts = folders.into_iter().map(part).collect::<Result<_>>()?;
            let display_name = display_name(&path.join(PIPELINE_FILE));
            return Ok(Self { path: path.to_owned(), display_name, parts, own: Vec::new() });
        } else {
            weights_in(path)?
        };
        Ok(Self {
            path: path.to_owned(),
            display_name: display_name(&file),
            parts: vec![Part::open(&file, None)?],
            own: Vec::new(),
        })
    }

    /// Adds the weights `PATH.base_layer.weight` of an adapter's file, if it has some.
    ///
    /// # Errors
    /// As [`WeightsFile::open`].
    pub(crate) fn add_own_weights(&mut self, adapter: &str, weights: &WeightsFile) -> Result<()> {
        let prefix = format!("{adapter}:");
        let is_known = self.own.iter().any(|own| own.prefix == prefix);
        if !is_known && weights.names().any(|name| name.ends_with(OWN_WEIGHT)) {
            self.own.push(OwnWeights { prefix, file: WeightsFile::open(weights.path())? });
        }
        Ok(())
    }

    /// The weight that an adapter brings along for a layer, by the layer's name in the adapter's file.
    pub(crate) fn own_weight(&self, adapter: &str, adapter_key: &str) -> Option<String> {
        let name = format!("{adapter}:{adapter_key}{OWN_WEIGHT}");
        self.info(&name).is_some().then_some(name)
    }

    /// Whether it is a pipeline: each tensor's name then begins with the folder of its model.
    #[must_use]
    pub fn is_pipeline(&self) -> bool {
        self.parts.iter().any(|part| !part.prefix.is_empty())
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
        self.parts.iter().flat_map(Part::names)
    }

    /// The weights of single experts in tensors that hold those of several: the path that each has, and the name that it is read by.
    pub(crate) fn experts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().flat_map(|part| &part.experts).map(|(path, name)| (path.as_str(), name.as_str()))
    }

    /// Whether a name is that of a tensor of the model, whole.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        let holds = |part: &Part| name.strip_prefix(part.prefix.as_str()).is_some_and(|own| part.files.file_of(own).is_some());
        self.parts.iter().any(holds)
    }

    /// What the header says about a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.held(name).and_then(|(file, own)| file.info(own))
    }

    /// The file that holds the weights, or the index of the files that do; the directory of a pipeline.
    #[must_use]
    pub fn weights_file(&self) -> &Path {
        match &self.parts[..] {
            [only] if only.prefix.is_empty() => only.files.path(),
            _ => &self.path,
        }
    }

    /// The file that holds a tensor; the whole model's where none does.
    #[must_use]
    pub fn file_of(&self, name: &str) -> &Path {
        self.held(name).map_or(self.weights_file(), |(file, _)| file.path())
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
        let (file, own) = self.holder(name)?;
        file.read_into(own, storage)
    }

    /// Reads one tensor into `out` as `f64`, row-major as stored.
    ///
    /// # Errors
    /// As [`WeightsFile::read_f64`].
    pub fn read_f64(&self, name: &str, out: &mut [f64]) -> Result<InputRecord> {
        let (file, own) = self.holder(name)?;
        file.read_f64(own, out)
    }

    fn holder<'n>(&self, name: &'n str) -> Result<(&WeightsFile, &'n str)> {
        self.held(name).ok_or_else(|| Error::missing(self.weights_file(), format!("has no tensor `{}`", escape(name))))
    }

    fn held<'n>(&self, name: &'n str) -> Option<(&WeightsFile, &'n str)> {
        let own = || self.own.iter().find_map(|own| Some((&own.file, name.strip_prefix(own.prefix.as_str())?)));
        self.parts.iter().find_map(|part| part.holder(name)).or_else(own)
    }

    /// The records of every header that was read: the weight file's, or the index and those of all shards.
    #[must_use]
    pub fn header_records(&self) -> Vec<InputRecord> {
        self.parts.iter().flat_map(|part| part.files.header_records()).collect()
    }

    /// Bytes of headers and tensors read so far, and bytes in all files of weights.
    #[must_use]
    pub fn bytes_read(&self) -> (u64, u64) {
        let files = || self.parts.iter().flat_map(|part| part.files.all()).chain(self.own.iter().map(|own| &own.file));
        (files().map(WeightsFile::bytes_read).sum(), files().map(WeightsFile::file_size).sum())
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
    use super::layout::LAYOUTS;
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
        std::fs::write(dir.path().join("tf_model.h5"), "").unwrap();
        let error = BaseModel::open(dir.path()).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().contains("weights of TensorFlow")), (5, true), "{error}");
    }
}
