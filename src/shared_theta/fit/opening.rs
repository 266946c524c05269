//! What is fitted: an adapter, its base model, and the modules whose layers can share a Θ. The others are passed over, each with the reason.

use std::collections::BTreeSet;
use std::path::Path;

use super::FitParams;
use crate::checkpoint::{
    Adapter, BaseModel, ModuleKey, PairedLayer, PairedModule, PairingRules, base_name_warning, find_base, pair_with_base,
};
use crate::error::{Error, Result, escape};
use crate::study::LayerSet;
use crate::terms::Convention;

/// An adapter with the modules that are fitted.
pub(super) struct Opened {
    pub(super) adapter: Adapter,
    pub(super) base: BaseModel,
    pub(super) modules: Vec<Fittable>,
    /// Name of a module that was passed over, and why.
    pub(super) skipped: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

/// A module whose layers have one shape, rank and scaling.
#[derive(Debug, Clone)]
pub(super) struct Fittable {
    pub(super) name: String,
    /// What its tensors are called in the checkpoint: a name that fits the base weights of this module alone.
    pub(super) key: String,
    pub(super) convention: Convention,
    pub(super) layers: Vec<PairedLayer>,
    /// Whether these are all layers that the base model has of it.
    pub(super) whole: bool,
}

impl Fittable {
    /// A layer that stands for all.
    pub(super) fn first(&self) -> Option<&PairedLayer> {
        self.layers.first()
    }
}

impl Opened {
    /// Opens and pairs, reading headers only.
    ///
    /// # Errors
    /// What is wrong with the inputs; [`Error::Usage`] for a module or layer that is not there; [`Error::Mismatch`] where no module can be fitted.
    pub(super) fn open(params: &FitParams, layers: Option<&LayerSet>) -> Result<Self> {
        let mut adapter = Adapter::open(&params.adapter, name_of(&params.adapter))?;
        let base = BaseModel::open(&find_base(params.base.as_deref(), &adapter.dir, &adapter.config)?)?;
        adapter.lay_out(&base, false)?;
        let rules = PairingRules { maps: params.maps.clone(), split: None };
        rules.refuse_unused(adapter.modules.iter().flat_map(|module| &module.layers).map(|layer| layer.key.path.as_str()))?;
        let paired = wanted(pair_with_base(&adapter, &base, &rules)?, params, layers)?;
        let named = base_name_warning(&adapter, &base);
        let warnings = adapter.warnings.iter().chain(&named).map(|text| format!("{}: {text}", escape(&adapter.name))).collect();
        let (mut modules, mut skipped) = (Vec::new(), Vec::new());
        for module in paired {
            match choose(&adapter, &base, module, params.convention)? {
                Ok(module) => modules.push(module),
                Err((name, why)) => skipped.push((name, why)),
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
        Ok(Self { adapter, base, modules, skipped, warnings })
    }
}

/// The folder's name, links not resolved.
fn name_of(dir: &Path) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    named(dir).or_else(|| named(&dir.canonicalize().ok()?)).unwrap_or_default()
}

/// Keeps the modules and layers that were asked for.
fn wanted(mut modules: Vec<PairedModule>, params: &FitParams, layers: Option<&LayerSet>) -> Result<Vec<PairedModule>> {
    for name in &params.modules {
        if !modules.iter().any(|module| module.name == *name) {
            let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
            return Err(Error::Usage {
                what: format!("--modules {}: the adapter has no module of that name", escape(name)),
                hint: Some(format!("the modules are {}", escape(&names.join(", ")))),
            });
        }
    }
    modules.retain(|module| params.modules.is_empty() || params.modules.contains(&module.name));
    if let Some(layers) = layers {
        for module in &mut modules {
            module.layers.retain(|layer| layer.adapter_layer.layer.is_some_and(|number| layers.holds(number)));
        }
        modules.retain(|module| !module.layers.is_empty());
        if modules.is_empty() {
            let given = params.layers.as_deref().unwrap_or_default();
            return Err(Error::usage(format!("--layers {}: no module has such a layer", escape(given))));
        }
    }
    Ok(modules)
}

/// A module that can be fitted, or its name and why it cannot.
///
/// # Errors
/// [`Error::Mismatch`] for a module that is not square where the paper's convention is asked for.
fn choose(
    adapter: &Adapter,
    base: &BaseModel,
    module: PairedModule,
    convention: Option<Convention>,
) -> Result<Result<Fittable, (String, String)>> {
    let name = module.name.clone();
    if let Some(why) = difference(&module.layers) {
        return Ok(Err((name, why)));
    }
    let Some(first) = module.layers.first() else { return Ok(Err((name, "it has no layer".into()))) };
    if let Some(block) = &first.block {
        let why = format!("it is the part `{}` of a fused weight, for which a CondLoRA has no place", block.name);
        return Ok(Err((name, why)));
    }
    let square = first.d_out == first.d_in;
    let convention = match convention {
        Some(Convention::Paper) if !square => {
            return Err(Error::mismatch(
                adapter.weights_file(),
                format!("module `{}` in the paper's convention", escape(&name)),
                "square base weights",
                format!("`{}` with shape [{}, {}]", escape(&first.tensor), first.d_out, first.d_in),
            )
            .with_hint("use --convention general or auto, or leave the module out with --modules"));
        }
        Some(given) => given,
        None if square => Convention::Paper,
        None => Convention::General,
    };
    Ok(match key_of(base, &module) {
        Some((key, whole)) => Ok(Fittable { name, key, convention, layers: module.layers, whole }),
        None => Err((name, "every name for it fits other weights of the base model too".into())),
    })
}

/// In what the layers differ that must share a Θ.
fn difference(layers: &[PairedLayer]) -> Option<String> {
    let first = layers.first()?;
    let number = |layer: &PairedLayer| layer.adapter_layer.layer.map_or_else(|| "-".to_owned(), |number| number.to_string());
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

/// The shortest name that ends the paths of this module's base weights and of no others, and whether its layers are all that it fits.
fn key_of(base: &BaseModel, module: &PairedModule) -> Option<(String, bool)> {
    let path = |tensor: &str| tensor.strip_suffix(".weight").map(str::to_owned);
    let own: BTreeSet<String> = module.layers.iter().filter_map(|layer| path(&layer.tensor)).collect();
    let kind = |path: &str| ModuleKey::from_path(path.to_owned()).map(|key| key.module_type).unwrap_or_default();
    let first = own.first()?;
    let own_kind = kind(first);
    let tail = own_kind.split_once("*.").map_or(own_kind.as_str(), |(_, tail)| tail);
    let parts: Vec<&str> = tail.split('.').collect();
    let start = module.name.split('.').count().min(parts.len());
    for count in start..=parts.len() {
        let key = parts[parts.len() - count..].join(".");
        let fits = |path: &str| path.strip_suffix(&key).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        let matrices = base.names().filter(|tensor| base.info(tensor).is_some_and(|info| info.shape.len() > 1));
        let all: Vec<String> = matrices.filter_map(path).filter(|path| fits(path)).collect();
        if all.iter().all(|path| kind(path) == own_kind) {
            return Some((key, all.len() == own.len()));
        }
    }
    None
}
