//! What a study would find, from headers alone: adapters, their modules and layers, what each is paired with, and what would be refused.
//!
//! No tensor is read, and only counts are computed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::{
    Adapter, AdapterLayer, AdapterModule, FoundAdapter, PairedModule, Pairing, PairingRules, UnusableLayer, base_name_warning,
    find_adapters,
};
use crate::error::{Error, Result};
use crate::inputs::{Opener, choose_convention};
use crate::table::gather;
use crate::terms::LayerId;

/// The options of an inspection.
#[derive(Debug, Clone)]
pub struct InspectParams {
    /// Adapter directories, or directories to search.
    pub paths: Vec<PathBuf>,
    /// The base model, if given.
    pub base: Option<PathBuf>,
    /// How adapters and base are paired, where their names do not determine it.
    pub pairing: PairingRules,
    /// Take the Θ_B of CondLoRA checkpoints for the one of Eq. 6 as printed: B = W0ᵀ·Θ_B.
    pub eq6: bool,
}

/// What was found below the paths given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The adapters, sorted by name.
    pub adapters: Vec<InspectedAdapter>,
    /// How many of them would be refused.
    pub refused: usize,
}

/// One adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectedAdapter {
    /// Its name in the tables.
    pub name: String,
    /// Its directory or file.
    pub path: String,
    /// `peft_type` of its configuration; none where it could not be opened.
    pub kind: Option<String>,
    /// The base model that it would be analysed with.
    pub base: Option<InspectedBase>,
    /// Why there is no base model, where none was given and none was found.
    pub unpaired: Option<String>,
    /// Its modules, sorted by name; none where it could not be opened, or where only its base determines them.
    pub modules: Vec<InspectedModule>,
    /// Parameters of all modules.
    pub parameters: Parameters,
    /// Tensors that are no factor and are left out.
    pub ignored_tensors: usize,
    /// Those of them that have the shapes of factors, and names that are not known.
    pub unused_factors: Vec<String>,
    /// What `analyze` would warn of.
    pub warnings: Vec<String>,
    /// Modules that `analyze` would skip, and why.
    pub skipped: Vec<SkippedModule>,
    /// Why `analyze` would refuse it.
    pub refused: Option<Refusal>,
}

/// A module that cannot be used, or some of its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedModule {
    /// Its name.
    pub module: String,
    /// The indices of the layers; none outside any repeated container.
    pub layers: Vec<Option<LayerId>>,
    /// What is wrong with the first.
    #[serde(flatten)]
    pub why: Refusal,
}

/// A base model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectedBase {
    /// Its directory or file.
    pub path: String,
    /// What it is called.
    pub name: String,
}

/// The layers of one module type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectedModule {
    /// Its name in the tables.
    pub name: String,
    /// The equations that `auto` takes; none without a base model.
    pub convention: Option<&'static str>,
    /// Parameters of its layers.
    pub parameters: Parameters,
    /// Its layers, sorted by index.
    pub layers: Vec<InspectedLayer>,
}

/// One adapted weight.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectedLayer {
    /// The layer's index; none outside any repeated container.
    pub layer: Option<LayerId>,
    /// The adapter's key, without `.lora_A.weight`.
    pub adapter_key: String,
    /// The base tensor; none without a base model.
    pub tensor: Option<String>,
    /// Rows of W0 and of B.
    pub out_features: usize,
    /// Columns of W0 and of A.
    pub in_features: usize,
    /// The rank.
    pub rank: usize,
    /// `s` in `ΔW = s·B·A`.
    pub scaling: f64,
    /// Stored type of A and B (`BF16/F32` where they differ).
    pub adapter_dtype: String,
    /// Stored type of W0; none without a base model.
    pub w0_dtype: Option<String>,
}

/// Numbers of trained parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The number for A and B of every layer: (in + out)·r, summed.
    pub lora: u64,
    /// The number for one Θ_A and Θ_B for each module type, as in CondLoRA: (in + out)·r, summed over types. None where the layers of a type
    /// differ in shape or rank, so that they cannot share.
    pub condlora: Option<u64>,
}

/// An error that `analyze` would end with, or name with `--keep-going`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The error's line.
    pub error: String,
    /// What may help.
    pub hint: Option<String>,
    /// The exit code.
    pub exit_code: u8,
}

impl InspectParams {
    /// Adapters, or directories to search for them, with the base models that they name.
    #[must_use]
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        Self { paths, base: None, pairing: PairingRules::default(), eq6: false }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self { error: error.to_string(), hint: error.hint().map(str::to_owned), exit_code: error.exit_code() }
    }
}

/// Looks at all adapters below the paths.
///
/// # Errors
/// [`Error::Missing`] for a path without adapters; what is wrong with one adapter is in its own entry.
pub fn inspect(params: &InspectParams) -> Result<Inspection> {
    if params.paths.is_empty() {
        return Err(Error::usage("no adapter given; expected at least one PATH"));
    }
    let mut opener = Opener::new(params.base.as_deref(), params.pairing.clone(), params.eq6);
    let found = find_adapters(&params.paths)?;
    let adapters: Vec<InspectedAdapter> =
        found.into_iter().map(|found| inspect_adapter(found, params.base.is_some(), &mut opener)).collect();
    let refused = adapters.iter().filter(|adapter| adapter.refused.is_some()).count();
    Ok(Inspection { adapters, refused })
}

fn inspect_adapter(found: FoundAdapter, base_is_given: bool, opener: &mut Opener) -> InspectedAdapter {
    let mut shown = InspectedAdapter {
        name: found.name.clone(),
        path: found.dir.to_string_lossy().into_owned(),
        kind: None,
        base: None,
        unpaired: None,
        modules: Vec::new(),
        parameters: Parameters::default(),
        ignored_tensors: 0,
        unused_factors: Vec::new(),
        warnings: Vec::new(),
        skipped: Vec::new(),
        refused: None,
    };
    match Adapter::open(&found.dir, found.name) {
        Ok(mut adapter) => {
            if let Err(error) = pair(&mut adapter, base_is_given, opener, &mut shown) {
                shown.refused = Some(Refusal::from(&error));
            }
            if shown.base.is_none()
                && let Err(error) = adapter.lay_out_by_name()
            {
                shown.refused = Some(Refusal::from(&error));
            }
            shown.kind = Some(adapter.config.peft_type.clone());
            shown.ignored_tensors = adapter.ignored_tensors;
            shown.unused_factors.clone_from(&adapter.unused_factors);
            shown.warnings.splice(0..0, adapter.warnings.iter().cloned());
            if shown.base.is_none() {
                shown.skipped = skipped(&adapter.unusable);
            }
            if shown.modules.is_empty() {
                shown.modules = adapter.modules.iter().map(unpaired_module).collect();
            }
            // Counted from the adapter itself: where fused projections are split, their parts share A.
            shown.parameters = all_parameters(adapter.modules.iter().map(|module| parameters(module.layers.iter())));
        }
        Err(error) => shown.refused = Some(Refusal::from(&error)),
    }
    shown
}

/// Finds the base model and its weights, as far as possible.
fn pair(adapter: &mut Adapter, base_is_given: bool, opener: &mut Opener, shown: &mut InspectedAdapter) -> Result<()> {
    let path = match opener.find_base(adapter) {
        Ok(path) => path,
        // Without a base there is still much to show; `analyze` would refuse.
        Err(error) if !base_is_given => {
            shown.unpaired = Some(error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let number = opener.open_base(&path)?;
    opener.add_own_weights(adapter, number)?;
    let base = opener.base(number);
    shown.base = Some(InspectedBase { path: path.to_string_lossy().into_owned(), name: base.display_name().to_owned() });
    shown.warnings.extend(base_name_warning(adapter, base));
    opener.lay_out_over(adapter, number)?;
    let weights_file = adapter.weights_file();
    let Pairing { modules, warnings, unusable } = opener.paired_modules(adapter, number)?;
    shown.skipped = skipped(&unusable);
    shown.warnings.extend(warnings);
    shown.modules = modules.iter().map(|module| paired_module(weights_file, module)).collect::<Result<_>>()?;
    Ok(())
}

fn skipped(unusable: &[UnusableLayer]) -> Vec<SkippedModule> {
    let by_name = gather(unusable, |layer| &layer.module);
    let of_module = |(module, layers): (&String, Vec<&UnusableLayer>)| SkippedModule {
        module: module.clone(),
        layers: layers.iter().map(|layer| layer.layer.clone()).collect(),
        why: Refusal::from(&layers[0].error),
    };
    by_name.into_iter().map(of_module).collect()
}

fn unpaired_module(module: &AdapterModule) -> InspectedModule {
    InspectedModule {
        name: module.name.clone(),
        convention: None,
        parameters: parameters(module.layers.iter()),
        layers: module.layers.iter().map(inspected_layer).collect(),
    }
}

fn paired_module(weights_file: &Path, module: &PairedModule) -> Result<InspectedModule> {
    let layers = module.layers.iter().map(|paired| InspectedLayer {
        tensor: Some(paired.tensor.clone()),
        out_features: paired.d_out,
        in_features: paired.d_in,
        w0_dtype: Some(paired.w0_dtype.clone()),
        ..inspected_layer(&paired.adapter_layer)
    });
    let sizes = module.layers.iter().map(|paired| (paired.d_in, paired.d_out, paired.adapter_layer.rank));
    Ok(InspectedModule {
        name: module.name.clone(),
        convention: Some(choose_convention(weights_file, module, None)?.name()),
        parameters: parameters_of(sizes),
        layers: layers.collect(),
    })
}

fn inspected_layer(layer: &AdapterLayer) -> InspectedLayer {
    InspectedLayer {
        layer: layer.layer.clone(),
        adapter_key: layer.adapter_key.clone(),
        tensor: None,
        out_features: layer.d_out,
        in_features: layer.d_in,
        rank: layer.rank,
        scaling: layer.scaling,
        adapter_dtype: layer.dtype.clone(),
        w0_dtype: None,
    }
}

fn parameters<'l>(layers: impl Iterator<Item = &'l AdapterLayer>) -> Parameters {
    parameters_of(layers.map(|layer| (layer.d_in, layer.d_out, layer.rank)))
}

/// The shared parameters of one module type, from the (in, out, r) of its layers.
fn parameters_of(sizes: impl Iterator<Item = (usize, usize, usize)>) -> Parameters {
    let (mut lora, mut distinct) = (0, BTreeSet::new());
    for (d_in, d_out, rank) in sizes {
        let count = (d_in as u64 + d_out as u64) * rank as u64;
        lora += count;
        distinct.insert((d_in, d_out, rank, count));
    }
    let shared = distinct.first().filter(|_| distinct.len() == 1);
    Parameters { lora, condlora: shared.map(|(_, _, _, count)| *count) }
}

fn all_parameters(modules: impl Iterator<Item = Parameters>) -> Parameters {
    let mut all = Parameters { lora: 0, condlora: Some(0) };
    for module in modules {
        all.lora += module.lora;
        all.condlora = all.condlora.zip(module.condlora).map(|(sum, count)| sum + count);
    }
    if all.lora == 0 { Parameters::default() } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_paper() {
        // RoBERTa-base, r = 8, query and value (Kim et al. 2024, Table 4).
        let module = || parameters_of((0..12).map(|_| (768, 768, 8)));
        let all = all_parameters([module(), module()].into_iter());
        assert_eq!(all, Parameters { lora: 294_912, condlora: Some(24_576) });
        let uneven = parameters_of([(4, 6, 2), (4, 6, 1)].into_iter());
        assert_eq!(uneven, Parameters { lora: 30, condlora: None });
        assert_eq!(all_parameters([module(), uneven].into_iter()).condlora, None);
        assert_eq!(all_parameters(std::iter::empty()), Parameters::default());
    }
}
