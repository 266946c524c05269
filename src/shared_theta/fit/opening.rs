//! What is fitted: an adapter, its base model, and the modules whose layers can share a Θ. The others are skipped, each with the reason.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::params::FitConfig;
use crate::checkpoint::{Adapter, BaseModel, PairedLayer, PairedModule, PairingRules};
use crate::error::{Error, Result, escape};
use crate::inputs::{Opener, by_module, choose_convention, module_paths, type_of_tensor};
use crate::terms::Convention;

/// An adapter with the modules that are fitted.
pub(super) struct Opened {
    /// Shared with the fit, which outlives the rest: its other tensors are copied when the fit is written.
    pub(super) adapter: Arc<Adapter>,
    pub(super) base: BaseModel,
    pub(super) modules: Vec<Fittable>,
    /// Name of a module that was skipped, and why.
    pub(super) skipped: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

/// A module whose layers have one shape, rank and scaling.
#[derive(Debug, Clone)]
pub(super) struct Fittable {
    pub(super) name: String,
    /// Its name in the checkpoint, which matches the base weights of this module and no others.
    pub(super) key: String,
    pub(super) convention: Convention,
    pub(super) layers: Vec<PairedLayer>,
    /// Whether these are all layers that the base model has of it.
    pub(super) whole: bool,
}

impl Fittable {
    /// One layer, which has the shape, rank and scaling of all layers.
    pub(super) fn first(&self) -> &PairedLayer {
        &self.layers[0]
    }

    /// (out, in) of the weight of each layer.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.first().d_out, self.first().d_in)
    }
}

impl Opened {
    /// Opens and pairs, reading headers only.
    ///
    /// # Errors
    /// What is wrong with the inputs; [`Error::Usage`] for a module or layer that is not there; [`Error::Mismatch`] where no module can be fitted.
    pub(super) fn open(config: &FitConfig) -> Result<Self> {
        let params = &config.given;
        let adapter = Adapter::open(&params.adapter, name_of(&params.adapter))?;
        let rules = PairingRules { maps: params.maps.clone(), split: None };
        let mut opener = Opener::new(params.base.as_deref(), rules, false);
        let laid_out = opener.lay_out(adapter)?;
        opener.refuse_unused_maps(module_paths(&laid_out.adapter))?;
        let mut opened = opener.pair(laid_out)?;
        let names = opened.modules.iter().map(|module| &module.name).chain(opened.unusable.iter().map(|layer| &layer.module));
        config.selection.refuse_unknown_modules(names.map(String::as_str))?;
        config.selection.keep(&mut opened.modules);
        opened.unusable.retain(|layer| config.selection.wants(&layer.module, layer.layer.as_ref()));
        if opened.modules.is_empty() {
            match opened.unusable.first() {
                Some(first) => return Err(first.error.clone()),
                None => config.selection.refuse_missing_layers()?,
            }
        }
        let (warnings, base) = (opened.named_warnings().collect(), opener.into_only_base());
        let adapter = opened.adapter;
        let mut modules = Vec::new();
        // A Θ is for all layers of a module.
        let mut skipped: Vec<(String, String)> =
            by_module(&opened.unusable).into_iter().map(|(_, module, error)| (module, error.to_string())).collect();
        opened.modules.retain(|module| skipped.iter().all(|(name, _)| *name != module.name));
        for module in opened.modules {
            if let Some(why) = obstacle(&module.layers) {
                skipped.push((module.name, why));
                continue;
            }
            let convention = choose_convention(adapter.weights_file(), &module, params.convention)?;
            // A checkpoint names weights by the ends of their names, and layers by their indices.
            if module.layers.iter().any(|layer| !base.has_tensor(&layer.tensor)) {
                skipped.push((
                    module.name,
                    "its W0 is a part of a tensor, or the adapter's own, for which a CondLoRA has no place".into(),
                ));
                continue;
            }
            let has_paths =
                module.layers.iter().any(|layer| layer.adapter_layer.layer.as_ref().is_some_and(|layer| layer.index().is_none()));
            match key_of(&base, &module) {
                Some((_, false)) if has_paths => {
                    skipped.push((module.name, "a CondLoRA of some of its blocks cannot say which: they have no indices".into()));
                }
                Some((key, whole)) => {
                    modules.push(Fittable { name: module.name, key, convention, layers: module.layers, whole });
                }
                None => skipped.push((module.name, "every name for it fits other weights of the base model too".into())),
            }
        }
        // A checkpoint has one convention.
        if modules.iter().any(|module: &Fittable| module.convention == Convention::General) {
            modules.iter_mut().for_each(|module| module.convention = Convention::General);
        }
        if modules.is_empty() {
            let found = skipped.iter().map(|(name, why)| format!("`{}`: {why}", escape(name))).collect::<Vec<_>>().join("; ");
            let what = "no module can be fitted";
            return Err(Error::mismatch(adapter.weights_file(), what, "layers of one shape, rank and scaling", found));
        }
        Ok(Self { adapter: Arc::new(adapter), base, modules, skipped, warnings })
    }
}

/// The folder's name, links not resolved.
fn name_of(dir: &Path) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    named(dir).or_else(|| named(&dir.canonicalize().ok()?)).unwrap_or_default()
}

/// Why these layers cannot share a Θ of a CondLoRA.
fn obstacle(layers: &[PairedLayer]) -> Option<String> {
    difference(layers).or_else(|| {
        let block = layers.first()?.block.as_ref()?;
        Some(format!("it is the part `{}` of a fused weight, for which a CondLoRA has no place", block.name))
    })
}

/// How layers that must share a Θ differ.
fn difference(layers: &[PairedLayer]) -> Option<String> {
    let first = layers.first()?;
    let number =
        |layer: &PairedLayer| layer.adapter_layer.layer.as_ref().map_or_else(|| "-".to_owned(), |number| number.to_string());
    for layer in &layers[1..] {
        let differs = |what: &str, of_first: String, of_other: String| {
            Some(format!(
                "its layers differ in {what} ({of_first} in layer {}, {of_other} in layer {})",
                number(first),
                number(layer)
            ))
        };
        let (one, other) = (&first.adapter_layer, &layer.adapter_layer);
        if one.rank != other.rank {
            return differs("rank", one.rank.to_string(), other.rank.to_string());
        }
        if (first.d_out, first.d_in) != (layer.d_out, layer.d_in) {
            let shape = |layer: &PairedLayer| format!("[{}, {}]", layer.d_out, layer.d_in);
            return differs("shape", shape(first), shape(layer));
        }
        // One Θ has one scaling.
        if one.scaling != other.scaling {
            return differs("scaling", one.scaling.to_string(), other.scaling.to_string());
        }
    }
    None
}

/// The shortest suffix of the paths of this module's base weights that matches no other type of weight, and whether it matches the weights of these layers alone.
fn key_of(base: &BaseModel, module: &PairedModule) -> Option<(String, bool)> {
    let path = |tensor: &str| tensor.strip_suffix(".weight").map(str::to_owned);
    let own: BTreeSet<String> = module.layers.iter().filter_map(|layer| path(&layer.tensor)).collect();
    let own_type = type_of_tensor(own.first()?);
    let tail = own_type.split_once("*.").map_or(own_type.as_str(), |(_, tail)| tail);
    let parts: Vec<&str> = tail.split('.').collect();
    let start = module.name.split('.').count().min(parts.len());
    for count in start..=parts.len() {
        let key = parts[parts.len() - count..].join(".");
        let fits = |path: &str| path.strip_suffix(&key).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        let matrices = base.names().filter(|tensor| base.info(tensor).is_some_and(|info| info.shape.len() > 1));
        let all: Vec<String> = matrices.filter_map(path).filter(|path| fits(path)).collect();
        if all.iter().all(|path| type_of_tensor(path) == own_type) {
            return Some((key, all.len() == own.len()));
        }
    }
    None
}
