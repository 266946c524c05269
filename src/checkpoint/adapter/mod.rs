//! A LoRA adapter, whichever program saved it: its modules, their layers, and the factors A and B of each.
//!
//! Opening reads headers only; the factors are read layer by layer when they are needed.

pub mod condlora;
pub mod discover;
mod experts;
mod foreign;
mod group;
mod image;
mod mlx;
pub(super) mod peft;
mod shapes;
pub(super) mod source;
pub(super) mod trainer_state;
mod unused;

use std::path::{Path, PathBuf};

use crate::checkpoint::base::BaseModel;
use crate::checkpoint::config::{AdapterConfig, CONDITIONAL};
use crate::checkpoint::files::disk::{listing, unreadable};
use crate::checkpoint::files::weights::WeightsFile;
use crate::error::{Error, Result};
use crate::record::InputRecord;
use crate::terms::CondloraConvention;
use condlora::CondLora;
use image::{ImageLora, has_flat_names, is_image_lora};
use mlx::{MLX_FILE, is_mlx};
pub use peft::{PICKLE_FILE, WEIGHTS_FILE};
use source::{AdapterLayer, AdapterModule, Factors, FoundLayers, UnusableLayer};

/// An adapter whose names and shapes have been checked.
#[derive(Debug)]
pub struct Adapter {
    /// Its name in the results.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its configuration.
    pub config: AdapterConfig,
    /// Its modules, sorted by name.
    pub modules: Vec<AdapterModule>,
    /// Tensors that are no LoRA factor (`modules_to_save`, biases, DoRA's magnitudes) and were left out.
    pub ignored_tensors: usize,
    /// Those of them that come in pairs with the shapes of factors: names that no reader knows.
    pub unused_factors: Vec<String>,
    /// What the user should know, the configuration's warnings included.
    pub warnings: Vec<String>,
    /// Layers whose factors cannot be used.
    pub unusable: Vec<UnusableLayer>,
    /// What its checkpoint holds, if it is a CondLoRA: its modules are known once it is laid out over its base model.
    pub condlora: Option<CondLora>,
    /// What its file holds, if it is one of an image model's: likewise.
    image: Option<ImageLora>,
    weights: WeightsFile,
}

impl Adapter {
    /// Opens an adapter directory, or a file that is an adapter by itself; of the tensors only α are read.
    ///
    /// The kind is known by the tensors' names and, among PEFT's, by the configuration.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Malformed`] for its files, [`Error::Mismatch`] if they hold no LoRA that can be used.
    pub fn open(dir: &Path, name: String) -> Result<Self> {
        let metadata = std::fs::metadata(dir).map_err(|err| unreadable(dir, &err))?;
        let path = if metadata.is_dir() { weights_path(dir)? } else { dir.to_owned() };
        let mut weights = WeightsFile::open(&path)?;
        // By the tensors' names first: mlx-lm's adapter_config.json has the name of PEFT's and another content, image models' files have none.
        if is_mlx(&weights) {
            let (config, found) = mlx::collect(path.parent().unwrap_or(dir), &weights)?;
            return Self::from_layers(dir, name, config, weights, found);
        }
        if has_flat_names(&weights) || (!metadata.is_dir() && is_image_lora(&weights)) {
            let (image, config) = (ImageLora::find(&weights)?, AdapterConfig::of_another_format(&path, None));
            return Ok(Self { image: Some(image), ..Self::without_layers(dir, name, config, weights) });
        }
        if let Some(refusal) = foreign::refusal(&weights) {
            return Err(refusal);
        }
        let config = AdapterConfig::read(dir)?;
        if config.peft_type == CONDITIONAL {
            let found = CondLora::find(&weights)?;
            let ignored_tensors = found.others.len();
            return Ok(Self { ignored_tensors, condlora: Some(found), ..Self::without_layers(dir, name, config, weights) });
        }
        let found = peft::collect(&mut weights, &config)?;
        Self::from_layers(dir, name, config, weights, found)
    }

    /// Makes an adapter of layers that were found in a weight file, by whatever key scheme: checks their shapes and ranks, groups and
    /// names them.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if names or shapes do not fit, or two layers are one.
    pub fn from_layers(
        dir: &Path,
        name: String,
        config: AdapterConfig,
        weights: WeightsFile,
        found: FoundLayers,
    ) -> Result<Self> {
        let mut adapter = Self::without_layers(dir, name, config, weights);
        adapter.set_layers(found)?;
        Ok(adapter)
    }

    fn without_layers(dir: &Path, name: String, config: AdapterConfig, weights: WeightsFile) -> Self {
        let (dir, warnings) = (dir.to_owned(), config.warnings.clone());
        Self {
            name,
            dir,
            config,
            modules: Vec::new(),
            ignored_tensors: 0,
            unused_factors: Vec::new(),
            warnings,
            unusable: Vec::new(),
            condlora: None,
            image: None,
            weights,
        }
    }

    /// Finds the layers that the adapter's own files do not name: of a CondLoRA all base weights of its modules, of an image model's file those
    /// whose names are the file's. Any other adapter has its layers since it was opened, and stays as it is.
    ///
    /// `eq6` takes Θ_B for the one of Eq. 6 as printed, whatever the configuration says.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a module that the base does not have, or whose Θ do not fit.
    pub fn lay_out(&mut self, base: &BaseModel, eq6: bool) -> Result<()> {
        if let Some(image) = &self.image {
            let found = image.layers(&self.weights, base)?;
            return self.set_layers(found);
        }
        let Some(condlora) = &self.condlora else { return Ok(()) };
        let convention = if eq6 { CondloraConvention::Eq6 } else { self.config.condlora_convention };
        let layers = condlora.layers(&self.weights, &self.config, base, convention)?;
        self.set_layers(FoundLayers { layers, ignored_tensors: condlora.others.len(), ..FoundLayers::default() })
    }

    /// Names the layers by the file alone, where there is no base that could: for a look at what there is.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if no layer can be used.
    pub fn lay_out_by_name(&mut self) -> Result<()> {
        match &self.image {
            Some(image) => {
                let found = image.layers_by_name();
                self.set_layers(found)
            }
            None => Ok(()),
        }
    }

    /// Checks, groups and names the layers that were found.
    fn set_layers(&mut self, found: FoundLayers) -> Result<()> {
        self.ignored_tensors = found.ignored_tensors;
        self.unused_factors = unused::unused_factors(&self.weights, &found);
        self.warnings.extend(found.warnings);
        self.warnings.extend(unused::unused_warning(&self.unused_factors));
        let (mut layers, mut unusable) = (Vec::with_capacity(found.layers.len()), found.unusable);
        for raw in found.layers {
            let path = raw.path.clone();
            match shapes::check_layer(&self.weights, &self.config, raw) {
                Ok(layer) => layers.push(layer),
                Err(error) => unusable.push((path, error)),
            }
        }
        if let Some((_, error)) = unusable.first().filter(|_| layers.is_empty()) {
            return Err(error.clone());
        }
        group::check_ranks(&self.config, &layers, &mut self.warnings)?;
        (self.modules, self.unusable) = group::group(&self.weights, layers, unusable)?;
        Ok(())
    }

    /// The file that holds the factors.
    #[must_use]
    pub fn weights_file(&self) -> &Path {
        self.weights.path()
    }

    /// The record of the weight file's header.
    #[must_use]
    pub fn header_record(&self) -> InputRecord {
        self.weights.header_record()
    }

    /// The records of everything that was read when it was opened: the header, and α of image models' files.
    #[must_use]
    pub fn opening_records(&self) -> Vec<InputRecord> {
        let scalars = self.image.as_ref().map_or(&[][..], ImageLora::inputs);
        std::iter::once(self.header_record()).chain(scalars.iter().cloned()).collect()
    }

    /// The weight file: all of its tensors, those that are no factor included.
    #[must_use]
    pub fn weights(&self) -> &WeightsFile {
        &self.weights
    }

    /// Bytes of headers and tensors read so far, and bytes in the weight file.
    #[must_use]
    pub fn bytes_read(&self) -> (u64, u64) {
        (self.weights.bytes_read(), self.weights.file_size())
    }

    /// Reads A and B of one layer, or what they are made of.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf, [`Error::Missing`] if the file has changed.
    pub fn read_factors(&self, layer: &AdapterLayer) -> Result<Factors> {
        layer.source.read(&self.weights, layer)
    }
}

/// Finds the weight file of an adapter directory: the first that is there.
fn weights_path(dir: &Path) -> Result<PathBuf> {
    let paths = [WEIGHTS_FILE, PICKLE_FILE, MLX_FILE].map(|name| dir.join(name));
    if let Some(path) = paths.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Ok(path);
    }
    let error = Error::missing(dir, format!("has no weights; expected {WEIGHTS_FILE} or {PICKLE_FILE}, found {}", listing(dir)));
    let of_adapter_hub = dir.join(foreign::ADAPTER_HUB_FILE).symlink_metadata().is_ok();
    Err(if of_adapter_hub { error.with_hint(foreign::ADAPTER_HUB) } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::generate::{self, Tensor, f32_tensor, lora};

    fn open(tensors: &[Tensor], config: &[(&str, &str)]) -> Result<Adapter> {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        generate::config(dir.path(), config);
        generate::adapter(dir.path(), tensors);
        Adapter::open(&dir.path().join("adapter"), "adapter".to_owned())
    }

    fn layers(numbers: &[&str]) -> Vec<Tensor> {
        numbers.iter().flat_map(|number| lora(number)).collect()
    }

    #[test]
    fn layers_are_sorted_by_number() {
        let adapter = open(&layers(&["10", "0", "3", "1", "4294"]), &[]).unwrap();
        let numbers: Vec<_> = adapter.modules[0].layers.iter().map(|layer| layer.layer.as_ref()?.index()).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(3), Some(10), Some(4294)]);
        assert!(adapter.warnings.is_empty());
    }

    #[test]
    fn wrapped_names_are_one_module() {
        let mut tensors = layers(&["0", "1"]);
        for tensor in &mut tensors[..2] {
            tensor.name = format!("_orig_mod.{}", tensor.name.replace(".weight", ".default.weight"));
        }
        for tensor in &mut tensors[2..] {
            tensor.name = tensor.name.replace("base_model.model.", "");
        }
        let adapter = open(&tensors, &[]).unwrap();
        assert_eq!(adapter.modules.len(), 1);
        assert_eq!(adapter.modules[0].module_type, "bert.encoder.layer.*.attention.self.query");
        assert_eq!(
            adapter.modules[0].layers[0].adapter_key,
            "_orig_mod.base_model.model.bert.encoder.layer.0.attention.self.query"
        );
    }

    #[test]
    fn types_may_differ_and_kernels_of_one_are_squeezed() {
        let mut tensors = layers(&["0"]);
        tensors[0].dtype = "BF16";
        tensors[0].bytes.truncate(24);
        tensors[1].shape = vec![6, 2, 1, 1];
        let adapter = open(&tensors, &[]).unwrap();
        let layer = &adapter.modules[0].layers[0];
        assert_eq!((layer.dtype.as_str(), layer.d_out, layer.rank), ("BF16/F32", 6, 2));
    }

    #[test]
    fn what_is_left_out_is_counted_and_dora_is_told() {
        let mut tensors = layers(&["0"]);
        tensors.push(f32_tensor("base_model.model.classifier.weight", &[2, 6]));
        tensors.push(f32_tensor("base_model.model.bert.encoder.layer.0.attention.self.query.lora_magnitude_vector", &[6]));
        let adapter = open(&tensors, &[]).unwrap();
        assert_eq!((adapter.ignored_tensors, adapter.warnings.len()), (2, 1));
        assert!(adapter.warnings[0].contains("DoRA"));
        let adapter = open(&tensors, &[("use_dora", "true"), ("init_lora_weights", "\"olora\"")]).unwrap();
        assert_eq!(adapter.warnings.len(), 2, "{:?}", adapter.warnings);
    }

    #[test]
    fn ranks_and_patterns_are_held_against_the_tensors() {
        let mut tensors = layers(&["0", "1"]);
        tensors[2] = f32_tensor(&tensors[2].name, &[3, 6]);
        tensors[3] = f32_tensor(&tensors[3].name, &[6, 3]);
        let patterned = open(&tensors, &[("rank_pattern", r#"{"layer.1.attention.self.query": 3, "key": 4}"#)]).unwrap();
        assert_eq!(patterned.warnings, ["rank_pattern: `key` matches no module"]);
        let scalings: Vec<f64> = patterned.modules[0].layers.iter().map(|layer| layer.scaling).collect();
        assert_eq!(scalings, [2.0, 4.0 / 3.0]);
        let unpatterned = open(&tensors, &[("alpha_pattern", r#"{"none": 1}"#)]).unwrap();
        assert_eq!(unpatterned.warnings.len(), 2, "{:?}", unpatterned.warnings);
        assert!(open(&layers(&["0"]), &[("r", "8"), ("rank_pattern", r#"{"query": 2}"#)]).unwrap().warnings.is_empty());
        assert_eq!(open(&layers(&["0"]), &[("r", "")]).unwrap().config.r, None);
    }
}
