//! Which base weight each adapted layer belongs to.
//!
//! The class a model was trained in and the class it was published from differ in the prefixes of their tensor names. The
//! name is resolved in this order: exactly; with known prefixes added or stripped; by the longest dotted suffix that only one
//! base tensor has, or only one of its shape. The last never drops the layer index: a suffix that holds in every layer says nothing.

mod fused;
mod gaps;
mod halves;
mod orientation;
mod paired;
mod renames;
mod resolve;
mod rules;

use std::collections::HashMap;
use std::path::Path;

use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::adapter::source::{AdapterLayer, UnusableLayer};
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::base::model_config::ModelConfig;
use crate::checkpoint::files::tensor::{FloatType, TensorInfo, matrix_shape, not_full_precision, show_shape};
use crate::error::{Error, Result, escape, field, show_path};
use halves::{HALVES, halves};
use orientation::Orientation;
pub use paired::Pairing;
pub use paired::{Block, PairedLayer, PairedModule, Rows};
use resolve::BaseIndex;
pub use rules::{NameMap, PairingRules, Split};

/// Finds the base weight of every layer of an adapter, checks the shapes, and splits fused projections where that is asked for.
///
/// # Errors
/// [`Error::Mismatch`] if a weight is not found, is ambiguous, is packed, has another shape, or is fused in a way that is not known.
pub fn pair_with_base(adapter: &Adapter, base: &BaseModel, rules: &PairingRules) -> Result<Pairing> {
    let index = BaseIndex::new(base);
    let mut taken: HashMap<String, &str> = HashMap::new();
    // A configuration that cannot be read decides nothing.
    let config = ModelConfig::beside(base.weights_file()).ok().flatten();
    let mut found = Pairing { modules: Vec::new(), warnings: Vec::new(), unusable: adapter.unusable.clone() };
    let mut orientation = Orientation::of(config.as_ref());
    for module in &adapter.modules {
        let mut layers = Vec::with_capacity(module.layers.len());
        let mut parts = HALVES.map(|(name, _)| PairedModule { name: format!("{}.{name}", module.name), layers: Vec::new() });
        let unusable = found.unusable.len();
        for layer in &module.layers {
            let mut tied = None;
            let named = |layer: &AdapterLayer| {
                let renamed = || config.as_ref().and_then(|config| index.renamed(layer, config));
                index.resolve(layer, rules).or_else(|error| renamed().ok_or(error))
            };
            let own = base.own_weight(&adapter.name, &layer.adapter_key);
            let tensor = match &own {
                Some(own) => Ok(own.as_str()),
                None => named(layer).or_else(|error| {
                    tied = config.as_ref().and_then(|config| index.tied(layer, config));
                    tied.ok_or(error)
                }),
            };
            let paired = match tensor {
                Ok(tensor) => check_pair(adapter, layer, base, tensor, &mut orientation).map(|paired| vec![paired]),
                Err(error) => {
                    let pair = |half: &AdapterLayer| check_pair(adapter, half, base, named(half)?, &mut orientation);
                    halves(layer, pair).map(Vec::from).ok_or(error)
                }
            };
            let paired = match paired {
                Ok(paired) => paired,
                Err(error) => {
                    found.unusable.push(UnusableLayer { module: module.name.clone(), layer: layer.layer.clone(), error });
                    continue;
                }
            };
            if let Some(tied) = tied {
                found.warnings.push(format!(
                    "`{}` has no weight of its own in the base model: its W0 is `{}`, to which it is tied",
                    escape(&layer.key.path),
                    escape(tied)
                ));
            }
            if own.is_some() {
                found.warnings.push(format!(
                    "W0 of `{}` is the adapter's own, saved with it because it is not the base model's (as after added tokens)",
                    escape(&layer.key.path)
                ));
            }
            for paired in paired {
                if tied.is_none()
                    && let Some(other) = taken.insert(paired.tensor.clone(), &layer.adapter_key)
                {
                    let what = format!("base tensor `{}` of {}", escape(&paired.tensor), show_path(base.path()));
                    let found = format!("`{}` and `{}`", escape(other), escape(&layer.adapter_key));
                    return Err(Error::mismatch(adapter.weights_file(), what, "one layer for it", found));
                }
                let part = HALVES.iter().position(|(name, _)| paired.block.as_ref().is_some_and(|block| block.name == *name));
                match part {
                    Some(part) => parts[part].layers.push(paired),
                    None => layers.push(paired),
                }
            }
        }
        // A module of which a part is damaged is another module.
        if found.unusable.len() == unusable {
            let whole = PairedModule { name: module.name.clone(), layers };
            found.modules.extend(std::iter::once(whole).chain(parts).filter(|module| !module.layers.is_empty()));
        }
    }
    // The file itself may name layers of it that cannot be used.
    let unusable = &found.unusable;
    found.modules.retain(|module| unusable.iter().all(|layer| layer.module != module.name));
    if let Some(first) = found.unusable.first().filter(|_| found.modules.is_empty()) {
        return Err(first.error.clone());
    }
    found.warnings.extend(orientation.warning(adapter));
    found.warnings.extend(gaps::gap_warnings(&adapter.config, base, &found.modules));
    if let Some(Split::Qkv) = rules.split {
        found.modules = fused::split_qkv(adapter, base, found.modules)?;
    }
    Ok(found)
}

/// The warning for an adapter that names another base model than the given one.
#[must_use]
pub fn base_name_warning(adapter: &Adapter, base: &BaseModel) -> Option<String> {
    let named = adapter.config.base_model_name_or_path.as_deref()?;
    let last = Path::new(named).file_name()?.to_string_lossy();
    (last != base.display_name()).then(|| {
        format!("the adapter was trained on `{}`, the base model given is `{}`", escape(named), escape(base.display_name()))
    })
}

/// Checks type and shape of a base weight against the factors.
fn check_pair(
    adapter: &Adapter,
    layer: &AdapterLayer,
    base: &BaseModel,
    tensor: &str,
    orientation: &mut Orientation,
) -> Result<PairedLayer> {
    let file = base.file_of(tensor);
    let info = base.info(tensor).ok_or_else(|| Error::missing(file, format!("has no tensor `{}`", escape(tensor))))?;
    let float = check_dtype(base, tensor, info)?;
    let [rows, columns] = matrix_shape(file, tensor, info)?;
    let transposed = orientation.is_transposed(layer, [rows, columns]);
    let (d_out, d_in) = if transposed { (columns, rows) } else { (rows, columns) };
    let (a, b) = ([layer.rank, layer.d_in], [layer.d_out, layer.rank]);
    let stored = if transposed { format!(" (stored transposed, as {})", show_shape(&info.shape)) } else { String::new() };
    let w0 = format!("W0 `{}` {}{stored} of {}", escape(tensor), show_shape(&[d_out, d_in]), show_path(file));
    let wrong = |name: &str, expected: String, found: &[usize]| {
        let what = format!("tensor `{}` does not fit {w0}", escape(name));
        // As it is stored where that is a kernel.
        let kernel = adapter.weights().info(name).map(|info| &info.shape[..]).filter(|shape| shape.len() > 2);
        let error = Error::mismatch(adapter.weights_file(), what, expected, show_shape(kernel.unwrap_or(found)));
        let looks_turned = (layer.rank, layer.rank, layer.d_in) == (d_in, d_out, layer.d_out);
        let is_grouped = info.shape.len() == 4 && layer.d_in > d_in && layer.d_in.is_multiple_of(d_in);
        if is_grouped {
            error.with_hint("W0 is a grouped convolution, each group of which has its own inputs: these are not analysed")
        } else if looks_turned {
            error.with_hint("A and B look transposed: A is [r, in], B is [out, r]")
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
                .with_hint(format!("give the unquantised base model with {}", field("base"))))
        }
        (None, None) => Err(not_full_precision(base.file_of(tensor), tensor, info.dtype)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::generate::{self, Tensor, f32_tensor};

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
        pair_with_base(&adapter, &BaseModel::open(&dir.path().join("base"))?, &PairingRules::default())
            .map(|pairing| pairing.modules)
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
    fn a_near_miss_proposes_the_renaming_that_works() {
        for (path, weights, map) in [
            (
                "layer.1.attention.self.query",
                &["layer.1.attn.query", "layer.1.attn.key", "layer.0.attn.query"][..],
                Some("attention.self=attn"),
            ),
            ("layer.1.attn.q", &["layer.1.attn.wq", "layer.2.attn.wq"], Some("q=wq")),
            ("layer.1.q", &["layer.1.attn.q", "layer.1.attn.deep.r"], Some("q=attn.q")),
            ("layer.1.attn.q", &["layer.1.attn.a", "layer.1.attn.b"], None),
            ("layer.1.attn.q", &["layer.2.attn.wq"], None),
        ] {
            let error = pair(path, [6, 6], "false", weights).unwrap_err();
            let hint = error.hint().unwrap();
            assert_eq!(hint.split_once("try `map` ").map(|(_, proposed)| proposed), map, "{path}: {hint}");
        }
    }

    #[test]
    fn weights_stored_the_other_way_are_told() {
        let modules = pair("h.0.c_attn", [4, 9], "true", &["h.0.c_attn"]).unwrap();
        let layer = &modules[0].layers[0];
        assert_eq!((layer.transposed, layer.d_out, layer.d_in, layer.w0_dtype.as_str()), (true, 9, 4, "F32"));
        let plain = pair("h.0.c_attn", [4, 9], "false", &["h.0.c_attn"]).unwrap();
        assert_eq!((plain[0].layers[0].transposed, plain[0].layers[0].d_out), (false, 4));
    }
}
