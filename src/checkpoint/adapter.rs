//! A LoRA adapter as PEFT saves it: its modules, their layers, and the factors A and B of each.
//!
//! Opening reads headers only; the factors are read layer by layer when they are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::config::AdapterConfig;
use super::files::{listing, sample, unreadable};
use super::keys::{Factor, ModuleKey, TensorKey, name_modules, parse_tensor_name};
use super::tensor::{FloatType, TensorInfo, not_full_precision, show_shape};
use super::weights::WeightsFile;
use crate::error::{Error, Result, escape};

/// The weights' file name in an adapter directory.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The pickle that older versions write instead.
pub const PICKLE_FILE: &str = "adapter_model.bin";

/// An adapter whose names and shapes have been checked.
#[derive(Debug)]
pub struct Adapter {
    /// The name it goes by in the results.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its configuration.
    pub config: AdapterConfig,
    /// Its modules, sorted by name.
    pub modules: Vec<AdapterModule>,
    /// Tensors that are no LoRA factor (`modules_to_save`, biases, DoRA's magnitudes) and were left out.
    pub ignored_tensors: usize,
    /// What the user should know, the configuration's warnings included.
    pub warnings: Vec<String>,
    weights: WeightsFile,
}

/// The layers of one module type.
#[derive(Debug, Clone)]
pub struct AdapterModule {
    /// The module's name: the shortest that no other type of the adapter has.
    pub name: String,
    /// The module's path with the layer index as `*`.
    pub module_type: String,
    /// Its layers, sorted by index.
    pub layers: Vec<AdapterLayer>,
}

/// One adapted weight: the pair A and B.
#[derive(Debug, Clone)]
pub struct AdapterLayer {
    /// Where in the model it is.
    pub key: ModuleKey,
    /// The tensor name as stored up to `.lora_A`.
    pub adapter_key: String,
    /// The layer index, if it has one.
    pub layer: Option<u32>,
    /// The rank: rows of A, columns of B.
    pub rank: usize,
    /// Columns of A.
    pub d_in: usize,
    /// Rows of B.
    pub d_out: usize,
    /// `s` in `ΔW = s·B·A`.
    pub scaling: f64,
    /// The stored type: `F32`, or `BF16/F32` where A and B differ.
    pub dtype: String,
    /// The name of A's tensor.
    pub tensor_a: String,
    /// The name of B's tensor.
    pub tensor_b: String,
}

/// The factors of one layer.
#[derive(Debug, Clone)]
pub struct Factors {
    /// A, row-major `[rank, d_in]`.
    pub a: Vec<f64>,
    /// B, row-major `[d_out, rank]`.
    pub b: Vec<f64>,
    /// What was read: A, then B.
    pub inputs: Vec<InputRecord>,
}

/// Something that was read and its hash, for the manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputRecord {
    /// The file.
    pub file: PathBuf,
    /// The tensor; `None` for the file's header.
    pub tensor: Option<String>,
    /// The tensor's stored type.
    pub dtype: Option<String>,
    /// BLAKE3 in hexadecimal.
    pub blake3: String,
}

/// The names of a layer's factors while they are collected.
#[derive(Default)]
struct Pair {
    a: Option<(String, String)>,
    b: Option<(String, String)>,
}

impl Adapter {
    /// Opens an adapter directory; no tensor is read.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Malformed`] for its files, [`Error::Mismatch`] if they hold no LoRA that can be used.
    pub fn open(dir: &Path, name: String) -> Result<Self> {
        std::fs::metadata(dir).map_err(|err| unreadable(dir, &err))?;
        let config = AdapterConfig::read(dir)?;
        let weights = WeightsFile::open(&weights_path(dir)?)?;
        let (pairs, ignored, magnitudes) = collect(&weights)?;
        let mut warnings = config.warnings.clone();
        if magnitudes > 0 && !config.use_dora {
            warnings.push(format!(
                "{magnitudes} lora_magnitude_vector tensors (DoRA): the conversion of A and B is defined and done, that of the update is not"
            ));
        }
        let mut layers = Vec::with_capacity(pairs.len());
        for (path, pair) in pairs {
            layers.push(check_layer(&weights, &config, path, pair)?);
        }
        check_ranks(&config, &layers, &mut warnings)?;
        let modules = group(&weights, layers, &mut warnings)?;
        Ok(Self { name, dir: dir.to_owned(), config, modules, ignored_tensors: ignored, warnings, weights })
    }

    /// The file that holds the factors.
    #[must_use]
    pub fn weights_file(&self) -> &Path {
        self.weights.path()
    }

    /// The record of the weight file's header.
    #[must_use]
    pub fn header_record(&self) -> InputRecord {
        InputRecord::header(&self.weights)
    }

    /// Reads A and B of one layer.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf, [`Error::Missing`] if the file has changed.
    pub fn read_factors(&self, layer: &AdapterLayer) -> Result<Factors> {
        let mut a = vec![0.0; layer.rank * layer.d_in];
        let mut b = vec![0.0; layer.d_out * layer.rank];
        let inputs = vec![
            InputRecord::read_f64(&self.weights, &layer.tensor_a, &mut a)?,
            InputRecord::read_f64(&self.weights, &layer.tensor_b, &mut b)?,
        ];
        Ok(Factors { a, b, inputs })
    }
}

impl InputRecord {
    /// The record of a file's header.
    pub(super) fn header(file: &WeightsFile) -> Self {
        Self { file: file.path().to_owned(), tensor: None, dtype: None, blake3: file.header_hash().to_owned() }
    }

    /// Reads a tensor into `out` and records that.
    pub(super) fn read_f64(file: &WeightsFile, name: &str, out: &mut [f64]) -> Result<Self> {
        let blake3 = file.read_f64(name, out)?;
        let dtype = file.info(name).map(|info| info.dtype.to_string());
        Ok(Self { file: file.path().to_owned(), tensor: Some(name.to_owned()), dtype, blake3 })
    }
}

/// Finds the weight file of an adapter directory: the safetensors file where both are there.
fn weights_path(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(WEIGHTS_FILE);
    if path.symlink_metadata().is_ok() {
        return Ok(path);
    }
    let pickle = dir.join(PICKLE_FILE);
    if pickle.symlink_metadata().is_ok() {
        return Ok(pickle);
    }
    Err(Error::missing(dir, format!("has no weights; expected {WEIGHTS_FILE} or {PICKLE_FILE}, found {}", listing(dir))))
}

/// Sorts the tensor names by module path; also the number of tensors left out, and of DoRA magnitudes among them.
fn collect(weights: &WeightsFile) -> Result<(BTreeMap<String, Pair>, usize, usize)> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let (mut ignored, mut magnitudes) = (0, 0);
    for name in weights.names() {
        match parse_tensor_name(name) {
            TensorKey::Lora { path, stem, factor } => {
                let pair = pairs.entry(path).or_default();
                let slot = if factor == Factor::A { &mut pair.a } else { &mut pair.b };
                if let Some((other, _)) = slot {
                    let found = format!("`{}` and `{}`", escape(other), escape(name));
                    let what = format!("two names for {} of one layer", factor.name());
                    return Err(Error::mismatch(weights.path(), what, "one", found));
                }
                *slot = Some((name.to_owned(), stem));
            }
            TensorKey::Embedding => {
                let what = format!("tensor `{}` adapts an embedding, which is not supported", escape(name));
                return Err(Error::mismatch(weights.path(), what, "lora_A and lora_B of linear modules", "lora_embedding"));
            }
            TensorKey::Magnitude => {
                ignored += 1;
                magnitudes += 1;
            }
            TensorKey::Other => ignored += 1,
        }
    }
    if pairs.is_empty() {
        let names: Vec<String> = weights.names().map(str::to_owned).collect();
        let found = if names.is_empty() { "no tensor at all".to_owned() } else { sample(names, 5) };
        return Err(Error::mismatch(weights.path(), "no LoRA tensor in the file", "names like `PATH.lora_A.weight`", found));
    }
    Ok((pairs, ignored, magnitudes))
}

/// Checks names and shapes of one layer's factors.
fn check_layer(weights: &WeightsFile, config: &AdapterConfig, path: String, pair: Pair) -> Result<AdapterLayer> {
    let file = weights.path();
    let ((tensor_a, stem), (tensor_b, _)) = match (pair.a, pair.b) {
        (Some(a), Some(b)) => (a, b),
        (Some((name, _)), None) => return Err(alone(file, &name, "lora_B")),
        (None, Some((name, _))) => return Err(alone(file, &name, "lora_A")),
        (None, None) => return Err(alone(file, &path, "lora_A and lora_B")),
    };
    let key = ModuleKey::from_path(path).map_err(|err| {
        let what = format!("tensor name `{}`", escape(&tensor_a));
        Error::mismatch(file, what, err.expected, escape(&err.found))
    })?;
    let (a, dtype_a) = factor_shape(weights, &tensor_a)?;
    let (b, dtype_b) = factor_shape(weights, &tensor_b)?;
    let (rank, d_in, d_out) = (a[0], a[1], b[0]);
    if rank != b[1] {
        let what = format!("ranks of `{}` and `{}`", escape(&tensor_a), escape(&tensor_b));
        let error =
            Error::mismatch(file, what, "A [r, in] and B [out, r]", format!("A {} and B {}", show_shape(&a), show_shape(&b)));
        let fits = |rank: usize, d_in: usize, d_out: usize| rank <= d_in.min(d_out);
        return Err(if a[1] == b[1] && fits(a[1], a[0], b[0]) {
            error.with_hint("A looks transposed")
        } else if a[0] == b[0] && fits(a[0], a[1], b[1]) {
            error.with_hint("B looks transposed")
        } else {
            error
        });
    }
    if rank > d_in.min(d_out) {
        let what = format!("rank of `{}`", escape(&stem));
        let found = format!("{rank} (A {}, B {})", show_shape(&a), show_shape(&b));
        let expected = format!("at most min(out, in) = {}", d_in.min(d_out));
        return Err(Error::mismatch(file, what, expected, found)
            .with_hint("A or B may be stored transposed: A is [r, in], B is [out, r]"));
    }
    let dtype = if dtype_a == dtype_b { dtype_a.name().to_owned() } else { format!("{}/{}", dtype_a.name(), dtype_b.name()) };
    let scaling = config.scaling(&key.path, rank);
    Ok(AdapterLayer { layer: key.layer, key, adapter_key: stem, rank, d_in, d_out, scaling, dtype, tensor_a, tensor_b })
}

fn alone(file: &Path, name: &str, partner: &str) -> Error {
    let what = format!("tensor `{}` has no partner", escape(name));
    Error::mismatch(file, what, format!("a {partner} of the same module"), "none")
}

/// The two sizes of a factor, a 1x1 kernel removed.
fn factor_shape(weights: &WeightsFile, name: &str) -> Result<([usize; 2], FloatType)> {
    let file = weights.path();
    let info = weights.info(name).ok_or_else(|| Error::missing(file, format!("has no tensor `{}`", escape(name))))?;
    let float = FloatType::of(info.dtype).ok_or_else(|| not_full_precision(file, name, info.dtype))?;
    Ok((matrix_shape(file, name, info)?, float))
}

/// The two sizes of a matrix, a 1x1 kernel removed; anything else is refused.
pub(super) fn matrix_shape(file: &Path, name: &str, info: &TensorInfo) -> Result<[usize; 2]> {
    let what = || format!("shape of tensor `{}`", escape(name));
    let shape = match info.shape[..] {
        [rows, columns] | [rows, columns, 1, 1] => [rows, columns],
        [_, _, height, width] => {
            let found = format!("{} (a {height}x{width} kernel)", show_shape(&info.shape));
            return Err(Error::mismatch(file, what(), "a matrix or a 1x1 convolution", found));
        }
        _ => return Err(Error::mismatch(file, what(), "a matrix or a 1x1 convolution", show_shape(&info.shape))),
    };
    if shape.contains(&0) {
        return Err(Error::mismatch(file, what(), "sizes above 0", show_shape(&info.shape)));
    }
    Ok(shape)
}

/// Compares the ranks that the configuration gives with those of the tensors.
fn check_ranks(config: &AdapterConfig, layers: &[AdapterLayer], warnings: &mut Vec<String>) -> Result<()> {
    let matching = [
        ("rank_pattern", config.rank_pattern.iter().map(|(pattern, _)| pattern).collect::<Vec<_>>()),
        ("alpha_pattern", config.alpha_pattern.iter().map(|(pattern, _)| pattern).collect()),
    ];
    for (field, patterns) in matching {
        for pattern in patterns {
            if !layers.iter().any(|layer| pattern.matches(&layer.key.path)) {
                warnings.push(format!("{field}: `{}` matches no module", escape(&pattern.key)));
            }
        }
    }
    let mut by_default = layers.iter().filter(|layer| config.pattern_rank(&layer.key.path).is_none()).peekable();
    if let Some(r) = config.r
        && by_default.peek().is_some()
        && !by_default.any(|layer| layer.rank == r)
    {
        let ranks: BTreeSet<String> = layers.iter().map(|layer| layer.rank.to_string()).collect();
        let found = format!("tensors of rank {}", sample(ranks.into_iter().collect(), 5));
        return Err(Error::mismatch(&config.path, format!("r is {r}"), "the rank of a tensor", found)
            .with_hint("the config and the weights may be of different adapters"));
    }
    let differs = |layer: &&AdapterLayer| config.pattern_rank(&layer.key.path).or(config.r).is_some_and(|r| r != layer.rank);
    let mut wrong = layers.iter().filter(differs);
    if let Some(layer) = wrong.next() {
        warnings.push(format!(
            "the config gives another rank than the tensors have for {} layers (`{}` has {}); the tensors' is used",
            1 + wrong.count(),
            escape(&layer.key.path),
            layer.rank
        ));
    }
    Ok(())
}

/// Groups the layers by module type, names the modules and sorts everything.
fn group(weights: &WeightsFile, layers: Vec<AdapterLayer>, warnings: &mut Vec<String>) -> Result<Vec<AdapterModule>> {
    let mut by_type: BTreeMap<String, Vec<AdapterLayer>> = BTreeMap::new();
    for layer in layers {
        by_type.entry(layer.key.module_type.clone()).or_default().push(layer);
    }
    let names = name_modules(&by_type.keys().map(String::as_str).collect::<Vec<_>>());
    let mut modules = Vec::with_capacity(by_type.len());
    for (name, (module_type, mut layers)) in names.into_iter().zip(by_type) {
        layers.sort_by_key(|layer| layer.layer);
        for pair in layers.windows(2) {
            if pair[0].layer == pair[1].layer {
                let found = format!("`{}` and `{}`", escape(&pair[0].adapter_key), escape(&pair[1].adapter_key));
                return Err(Error::mismatch(weights.path(), "two names for one layer", "one", found));
            }
        }
        warnings.extend(gap_warning(&name, &layers));
        modules.push(AdapterModule { name, module_type, layers });
    }
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(modules)
}

/// The warning for a module whose layer numbers have gaps.
fn gap_warning(name: &str, layers: &[AdapterLayer]) -> Option<String> {
    let numbers: Vec<u32> = layers.iter().filter_map(|layer| layer.layer).collect();
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    let missing: Vec<String> = numbers
        .windows(2)
        .filter(|pair| pair[1] - pair[0] > 1)
        .map(|pair| if pair[1] - pair[0] == 2 { (pair[0] + 1).to_string() } else { format!("{}..{}", pair[0] + 1, pair[1] - 1) })
        .collect();
    if missing.is_empty() {
        return None;
    }
    let more = if missing.len() > 8 { ", ..." } else { "" };
    let shown: Vec<&str> = missing.iter().take(8).map(String::as_str).collect();
    Some(format!("module `{}`: layers {first}..{last} without {}{more}", escape(name), shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::generate::{self, Tensor, f32_tensor, lora};
    use super::*;

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
    fn layers_are_sorted_by_number_and_gaps_are_named() {
        let adapter = open(&layers(&["10", "0", "3", "1", "4294"]), &[]).unwrap();
        let numbers: Vec<_> = adapter.modules[0].layers.iter().map(|layer| layer.layer).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(3), Some(10), Some(4294)]);
        assert_eq!(adapter.warnings, ["module `query`: layers 0..4294 without 2, 4..9, 11..4293"]);
        assert!(open(&layers(&["8", "9"]), &[]).unwrap().warnings.is_empty());
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
