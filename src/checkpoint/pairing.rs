//! Which base weight each adapted layer belongs to.
//!
//! The class a model was trained in and the class it was published from differ in the prefixes of their tensor names. The
//! name is resolved in this order: exactly; with known prefixes added or stripped; by the longest dotted suffix that only one
//! base tensor has. The last never drops the layer index: a suffix that holds in every layer says nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::adapter::{Adapter, AdapterLayer, matrix_shape};
use super::base::BaseModel;
use super::files::sample;
use super::keys::dotted_suffixes;
use super::tensor::{FloatType, TensorInfo, not_full_precision, show_shape};
use crate::error::{Error, Result, escape, show_path};

/// Prefixes that a model's class adds to the names of its tensors.
const PREFIXES: [&str; 22] = [
    "albert",
    "base_model",
    "bert",
    "bloom",
    "deberta",
    "distilbert",
    "electra",
    "encoder_model",
    "esm",
    "gpt_neox",
    "language_model",
    "llm",
    "longformer",
    "mobilebert",
    "model",
    "mpnet",
    "rembert",
    "roberta",
    "text_model",
    "transformer",
    "vit",
    "xlm",
];

/// A module all of whose layers have their base weight, with shapes that fit.
#[derive(Debug, Clone)]
pub struct PairedModule {
    /// The module's name.
    pub name: String,
    /// Its layers, sorted by index.
    pub layers: Vec<PairedLayer>,
}

/// An adapted layer and its base weight W0 `[d_out, d_in]`.
#[derive(Debug, Clone)]
pub struct PairedLayer {
    /// The adapter's side.
    pub adapter_layer: AdapterLayer,
    /// The base tensor's name.
    pub tensor: String,
    /// Whether W0 is stored `[d_in, d_out]` (`fan_in_fan_out`).
    pub transposed: bool,
    /// The rows of a fused weight that this layer is, if it is only a part of one.
    pub block: Option<Block>,
    /// Rows of W0 (of the block).
    pub d_out: usize,
    /// Columns of W0.
    pub d_in: usize,
    /// The stored type of W0.
    pub w0_dtype: String,
}

/// Part of a fused weight: some of its rows, and the same rows of B; A belongs to all parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Its name (`q`, `k` or `v`), the last part of the module's name.
    pub name: &'static str,
    /// The first row.
    pub first: usize,
    /// All rows of the fused weight.
    pub rows_of_whole: usize,
}

/// Finds the base weight of every layer of an adapter and checks the shapes.
///
/// # Errors
/// [`Error::Mismatch`] if a weight is not found, is ambiguous, is packed, or has another shape.
pub fn pair_with_base(adapter: &Adapter, base: &BaseModel) -> Result<Vec<PairedModule>> {
    let index = BaseIndex::new(base);
    let mut taken: HashMap<String, &str> = HashMap::new();
    let mut modules = Vec::with_capacity(adapter.modules.len());
    for module in &adapter.modules {
        let mut layers = Vec::with_capacity(module.layers.len());
        for layer in &module.layers {
            let tensor = index.resolve(layer)?;
            if let Some(other) = taken.insert(tensor.to_owned(), &layer.adapter_key) {
                let what = format!("base tensor `{}` of {}", escape(tensor), show_path(base.path()));
                let found = format!("`{}` and `{}`", escape(other), escape(&layer.adapter_key));
                return Err(Error::mismatch(adapter.weights_file(), what, "one layer for it", found));
            }
            layers.push(check_pair(adapter, layer, base, tensor)?);
        }
        modules.push(PairedModule { name: module.name.clone(), layers });
    }
    Ok(modules)
}

/// The warning where an adapter names another base model than the one given.
#[must_use]
pub fn base_name_warning(adapter: &Adapter, base: &BaseModel) -> Option<String> {
    let named = adapter.config.base_model_name_or_path.as_deref()?;
    let last = Path::new(named).file_name()?.to_string_lossy();
    (last != base.display_name()).then(|| {
        format!("the adapter was trained on `{}`, the base model given is `{}`", escape(named), escape(base.display_name()))
    })
}

/// The base's weights by their names without known prefixes.
struct BaseIndex<'a> {
    base: &'a BaseModel,
    by_core: BTreeMap<&'a str, Vec<Weight<'a>>>,
}

/// A base tensor that ends in `.weight`.
#[derive(Clone, Copy)]
struct Weight<'a> {
    path: &'a str,
    name: &'a str,
}

impl<'a> BaseIndex<'a> {
    fn new(base: &'a BaseModel) -> Self {
        let mut by_core: BTreeMap<&str, Vec<Weight<'_>>> = BTreeMap::new();
        for name in base.names() {
            if let Some(path) = name.strip_suffix(".weight") {
                by_core.entry(core_of(path)).or_default().push(Weight { path, name });
            }
        }
        Self { base, by_core }
    }

    /// The name of the base tensor of a layer.
    fn resolve(&self, layer: &AdapterLayer) -> Result<&'a str> {
        let path = layer.key.path.as_str();
        let core = core_of(path);
        let same_core = self.by_core.get(core).map_or(&[][..], Vec::as_slice);
        if let Some(exact) = same_core.iter().find(|weight| weight.path == path) {
            return Ok(exact.name);
        }
        if let Some(found) = self.closest(path, core, same_core)? {
            return Ok(found);
        }
        for packed in [path, core] {
            if let Some(kind) = self.base.packing(packed) {
                return Err(self.packed(&format!("{packed}.weight"), kind));
            }
        }
        let mut tried = vec![format!("`{}.weight`", escape(path))];
        if core != path {
            tried.push(format!("`{}.weight`", escape(core)));
        }
        for suffix in suffixes_with_layer(layer) {
            let ending = format!(".{suffix}.weight");
            let hits: Vec<&str> = self.base.names().filter(|name| name.ends_with(&ending) || *name == &ending[1..]).collect();
            match hits[..] {
                [] => {
                    let packed = format!(".{suffix}.qweight");
                    if self.base.names().any(|name| name.ends_with(&packed)) {
                        return Err(self.packed(&format!("*.{suffix}.weight"), "GPTQ or AWQ (qweight)"));
                    }
                    tried.push(format!("`*.{}.weight`", escape(suffix)));
                }
                [name] => return Ok(name),
                _ => return Err(self.ambiguous(path, &hits)),
            }
        }
        Err(self.not_found(path, &tried))
    }

    /// The base tensor whose path differs from `path` in the fewest prefixes.
    fn closest(&self, path: &str, core: &str, same_core: &[Weight<'a>]) -> Result<Option<&'a str>> {
        let prefix = |full: &str| full[..full.len() - core.len()].to_owned();
        let distance = |weight: &Weight<'_>| prefix_distance(&prefix(path), &prefix(weight.path));
        let Some(least) = same_core.iter().map(distance).min() else { return Ok(None) };
        let nearest: Vec<&str> = same_core.iter().filter(|weight| distance(weight) == least).map(|weight| weight.name).collect();
        match nearest[..] {
            [one] => Ok(Some(one)),
            _ => Err(self.ambiguous(path, &nearest)),
        }
    }

    fn packed(&self, name: &str, kind: &str) -> Error {
        let what = format!("base weight `{}` needs full precision", escape(name));
        Error::mismatch(self.base.weights_file(), what, "F32, F16, BF16 or F64", kind)
            .with_hint("give the unquantised base model with --base")
    }

    fn ambiguous(&self, path: &str, candidates: &[&str]) -> Error {
        let names = candidates.iter().map(|name| (*name).to_owned()).collect();
        let what = format!("base weight of `{}` is ambiguous", escape(path));
        Error::mismatch(self.base.weights_file(), what, "one candidate", sample(names, 20))
    }

    fn not_found(&self, path: &str, tried: &[String]) -> Error {
        let last = dotted_suffixes(path).next().unwrap_or(path);
        let ending = format!("{last}.weight");
        let mut alike: Vec<String> = self.base.names().filter(|name| name.ends_with(&ending)).map(str::to_owned).collect();
        if alike.is_empty() {
            alike = self.base.names().map(str::to_owned).collect();
        }
        let found = if alike.is_empty() { "no tensor at all".to_owned() } else { format!("only {}", sample(alike, 5)) };
        let what = format!("base weight of `{}` is not there", escape(path));
        let shown: Vec<&str> = tried.iter().take(12).map(String::as_str).collect();
        Error::mismatch(self.base.weights_file(), what, format!("one of {}", shown.join(", ")), found)
            .with_hint("is this the base model the adapter was trained on?")
    }
}

/// A path without the known prefixes it starts with; the last part always stays.
fn core_of(path: &str) -> &str {
    let mut rest = path;
    while let Some((first, inner)) = rest.split_once('.') {
        if !PREFIXES.contains(&first) {
            break;
        }
        rest = inner;
    }
    rest
}

/// How many prefixes must be stripped and added to come from one to the other: all but those they share at the end or start.
fn prefix_distance(from: &str, to: &str) -> usize {
    let parts = |text: &str| text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (from, to) = (parts(from), parts(to));
    let at_end = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let at_start = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    from.len() + to.len() - 2 * at_end.max(at_start)
}

/// The suffixes of a layer's path that may identify it, longest first: with the layer index and its container, or, without an
/// index, with two parts.
fn suffixes_with_layer(layer: &AdapterLayer) -> Vec<&str> {
    let path = layer.key.path.as_str();
    let shortest = match layer.key.module_type.split('.').position(|part| part == "*") {
        Some(at) => path.split('.').count() - at + 1,
        None => path.split('.').count().min(2),
    };
    let mut suffixes: Vec<&str> = dotted_suffixes(path).skip(shortest.saturating_sub(1)).collect();
    suffixes.reverse();
    suffixes
}

/// Checks type and shape of a base weight against the factors.
fn check_pair(adapter: &Adapter, layer: &AdapterLayer, base: &BaseModel, tensor: &str) -> Result<PairedLayer> {
    let file = base.file_of(tensor);
    let info = base.info(tensor).ok_or_else(|| Error::missing(file, format!("has no tensor `{}`", escape(tensor))))?;
    let float = check_dtype(base, tensor, info)?;
    let [rows, columns] = matrix_shape(file, tensor, info)?;
    let transposed = layer.w0_transposed;
    let (d_out, d_in) = if transposed { (columns, rows) } else { (rows, columns) };
    let (a, b) = ([layer.rank, layer.d_in], [layer.d_out, layer.rank]);
    let stored = if transposed { format!(" (stored {}, fan_in_fan_out)", show_shape(&info.shape)) } else { String::new() };
    let w0 = format!("W0 `{}` {}{stored} of {}", escape(tensor), show_shape(&[d_out, d_in]), show_path(file));
    let wrong = |name: &str, expected: String, found: &[usize]| {
        let what = format!("tensor `{}` does not fit {w0}", escape(name));
        let error = Error::mismatch(adapter.weights_file(), what, expected, show_shape(found));
        if layer.d_in == d_out && layer.d_out == d_in {
            error.with_hint("the shapes fit the transpose of W0: is fan_in_fan_out right?")
        } else {
            error
        }
    };
    if layer.d_in != d_in {
        return Err(wrong(layer.source.tensor_a(), format!("[r, {d_in}] as W0 has {d_in} columns"), &a));
    }
    if layer.d_out != d_out {
        return Err(wrong(layer.source.tensor_b(), format!("[{d_out}, r] as W0 has {d_out} rows"), &b));
    }
    Ok(PairedLayer {
        adapter_layer: layer.clone(),
        tensor: tensor.to_owned(),
        transposed,
        block: None,
        d_out,
        d_in,
        w0_dtype: float.name().to_owned(),
    })
}

fn check_dtype(base: &BaseModel, tensor: &str, info: &TensorInfo) -> Result<FloatType> {
    let packing = tensor.strip_suffix(".weight").and_then(|path| base.packing(path));
    match (FloatType::of(info.dtype), packing) {
        (Some(float), None) => Ok(float),
        (_, Some(kind)) => {
            let what = format!("base weight `{}` needs full precision", escape(tensor));
            Err(Error::mismatch(base.file_of(tensor), what, "F32, F16, BF16 or F64", format!("{} of {kind}", info.dtype))
                .with_hint("give the unquantised base model with --base"))
        }
        (None, None) => Err(not_full_precision(base.file_of(tensor), tensor, info.dtype)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate::{self, Tensor, f32_tensor};
    use super::*;

    /// Pairs an adapter of one path with a base of some weights, all of W0's shape.
    fn pair(path: &str, w0: [u64; 2], fan_in_fan_out: &str, weights: &[&str]) -> Result<Vec<PairedModule>> {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        generate::config(dir.path(), &[("fan_in_fan_out", fan_in_fan_out)]);
        let (d_out, d_in) = if fan_in_fan_out == "true" { (w0[1], w0[0]) } else { (w0[0], w0[1]) };
        let name = |factor| format!("base_model.model.{path}.lora_{factor}.weight");
        generate::adapter(dir.path(), &[f32_tensor(&name("A"), &[2, d_in]), f32_tensor(&name("B"), &[d_out, 2])]);
        let tensors: Vec<Tensor> = weights.iter().map(|name| f32_tensor(&format!("{name}.weight"), &w0)).collect();
        generate::base(dir.path(), &tensors);
        let adapter = Adapter::open(&dir.path().join("adapter"), "adapter".to_owned())?;
        pair_with_base(&adapter, &BaseModel::open(&dir.path().join("base"))?)
    }

    fn tensor_for(path: &str, weights: &[&str]) -> String {
        pair(path, [6, 6], "false", weights).unwrap()[0].layers[0].tensor.clone()
    }

    #[test]
    fn names_are_resolved_in_order() {
        for (path, weights, expected) in [
            ("bert.layer.0.q", &["bert.layer.0.q", "layer.0.q"][..], "bert.layer.0.q"),
            ("bert.layer.0.q", &["roberta.layer.0.q", "layer.0.q"], "layer.0.q"),
            ("layer.0.q", &["bert.layer.0.q", "bert.layer.1.q"], "bert.layer.0.q"),
            ("roberta.layer.0.q", &["model.bert.layer.0.q", "x.layer.0.q"], "model.bert.layer.0.q"),
            (
                "model.layers.0.q",
                &["model.language_model.layers.0.q", "model.vision.layers.0.q"],
                "model.language_model.layers.0.q",
            ),
            ("transformer.h.11.attn.c", &["h.1.attn.c", "h.11.attn.c"], "h.11.attn.c"),
            ("deep.text.layers.3.q", &["text.layers.3.q", "vision.layers.3.q"], "text.layers.3.q"),
            ("lm_head", &["x.lm_head", "x.y"], "x.lm_head"),
        ] {
            assert_eq!(tensor_for(path, weights), format!("{expected}.weight"), "{path}");
        }
    }

    #[test]
    fn a_suffix_without_the_layer_says_nothing() {
        let error = pair("x.layer.5.attention.q", [6, 6], "false", &["y.layer.0.attention.q"]).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("`*.layer.5.attention.q.weight`"), "{error}");
        let error = pair("x.pooler.q", [6, 6], "false", &["y.decoder.q"]).unwrap_err();
        assert_eq!(error.exit_code(), 5);
    }

    #[test]
    fn weights_stored_the_other_way_are_told() {
        let modules = pair("h.0.c_attn", [4, 9], "true", &["h.0.c_attn"]).unwrap();
        let layer = &modules[0].layers[0];
        assert_eq!((layer.transposed, layer.d_out, layer.d_in, layer.w0_dtype.as_str()), (true, 9, 4, "F32"));
        let plain = pair("h.0.c_attn", [4, 9], "false", &["h.0.c_attn"]).unwrap();
        assert_eq!((plain[0].layers[0].transposed, plain[0].layers[0].d_out), (false, 4));
    }

    #[test]
    fn prefixes_are_counted_where_they_differ() {
        for (from, to, distance) in [
            ("", "", 0),
            ("bert.", "", 1),
            ("bert.", "roberta.", 2),
            ("model.", "model.language_model.", 1),
            ("model.", "base_model.model.", 1),
        ] {
            assert_eq!(prefix_distance(from, to), distance, "{from} {to}");
        }
        assert_eq!(core_of("model.language_model.layers.0"), "layers.0");
        assert_eq!(core_of("model"), "model");
    }
}
