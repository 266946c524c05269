//! From the tensor names of a PEFT adapter to its layers.

use std::collections::BTreeMap;
use std::path::Path;

use super::experts::{Stack, layers_of_experts};
use super::foreign::two_adapters;
use super::source::{FactorSource, FoundLayers, RawLayer, Scaling, StoredFactor, StoredW0, without_partner};
use crate::checkpoint::config::{AdapterConfig, dora_warning};
use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::{FactorName, TensorKey, parse_tensor_name};
use crate::error::{Error, Result, escape};

/// The weights' file name in an adapter directory.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The pickle that older versions write instead.
pub const PICKLE_FILE: &str = "adapter_model.bin";

/// The tensors of a layer while they are collected: the name of each, and the part of it before the factor's name.
#[derive(Default)]
struct LayerTensors {
    a: Option<(String, String)>,
    b: Option<(String, String)>,
    e: Option<(String, String)>,
    embedding: bool,
}

/// Sorts the tensor names by module path.
///
/// # Errors
/// [`Error::Mismatch`] if there is no LoRA tensor, if two are the same factor of a layer, or if one has no partner.
pub(super) fn collect(weights: &mut WeightsFile, config: &AdapterConfig) -> Result<FoundLayers> {
    let mut by_path: BTreeMap<String, LayerTensors> = BTreeMap::new();
    let (mut found, mut magnitudes) = (FoundLayers::default(), 0);
    for name in weights.names() {
        match parse_tensor_name(name) {
            TensorKey::Lora { path, stem, factor, embedding } => {
                let named = by_path.entry(path).or_default();
                named.embedding |= embedding;
                let slot = match factor {
                    FactorName::A => &mut named.a,
                    FactorName::B => &mut named.b,
                    FactorName::E => &mut named.e,
                };
                if let Some((other, _)) = slot {
                    let found = format!("`{}` and `{}`", escape(other), escape(name));
                    let what = format!("two names for {} of one layer", factor.name());
                    let error = Error::mismatch(weights.path(), what, "one", found);
                    return Err(match two_adapters(other, name) {
                        Some(hint) => error.with_hint(hint),
                        None => error,
                    });
                }
                *slot = Some((name.to_owned(), stem));
            }
            TensorKey::Magnitude => {
                found.ignored_tensors += 1;
                magnitudes += 1;
            }
            TensorKey::Other => found.ignored_tensors += 1,
        }
    }
    if by_path.is_empty() {
        let names: Vec<String> = weights.names().map(str::to_owned).collect();
        let found = if names.is_empty() { "no tensor at all".to_owned() } else { sample(names, 5) };
        return Err(Error::mismatch(weights.path(), "no LoRA tensor in the file", "names like `PATH.lora_A.weight`", found));
    }
    if magnitudes > 0 && !config.use_dora {
        found.warnings.push(dora_warning(Some(magnitudes)));
    }
    let stacks =
        if config.target_parameters.is_empty() { Vec::new() } else { by_path.iter().filter_map(LayerTensors::stack).collect() };
    let mut of_experts = layers_of_experts(weights, config, stacks);
    by_path.retain(|path, named| match of_experts.remove(path) {
        Some(layers) => {
            // The tensor itself is used, by parts.
            found.named_elsewhere.extend([&named.a, &named.b].into_iter().flatten().map(|(name, _)| name.clone()));
            found.layers.extend(layers);
            false
        }
        None => true,
    });
    let (all, before) = (by_path.len(), found.layers.len());
    for (path, named) in by_path {
        if config.is_adalora() && named.is_pruned(weights) {
            continue;
        }
        found.layers.push(named.into_layer(weights.path(), config, path)?);
    }
    match all + before - found.layers.len() {
        0 => {}
        pruned if pruned == all && before == 0 => {
            return Err(Error::mismatch(weights.path(), "AdaLoRA", "a module of rank 1 at least", "rank 0 in all of them"));
        }
        pruned => found.warnings.push(format!("AdaLoRA has pruned {pruned} of {all} modules to rank 0: they are skipped")),
    }
    Ok(found)
}

impl LayerTensors {
    /// Whether AdaLoRA has pruned the layer to rank 0.
    fn is_pruned(&self, weights: &WeightsFile) -> bool {
        let shape = |factor: &Option<(String, String)>| weights.info(&factor.as_ref()?.0).map(|info| info.shape.as_slice());
        matches!((shape(&self.a), shape(&self.b)), (Some([0, _]), Some([_, 0])))
    }

    /// The tensors as those of several experts.
    fn stack((path, named): (&String, &Self)) -> Option<Stack> {
        let ((a, stem), (b, _)) = (named.a.as_ref()?, named.b.as_ref()?);
        Some(Stack { path: path.clone(), stem: stem.clone(), tensors: [a.clone(), b.clone()] })
    }

    fn into_layer(self, file: &Path, config: &AdapterConfig, path: String) -> Result<RawLayer> {
        let e = self.e.map(|(name, _)| name);
        let ((tensor_a, adapter_key), (tensor_b, _)) = match (self.a, self.b) {
            (Some(a), Some(b)) => (a, b),
            (Some((name, _)), None) => return Err(without_partner(file, &name, "lora_B")),
            (None, Some((name, _))) => return Err(without_partner(file, &name, "lora_A")),
            (None, None) => match e {
                Some(name) => return Err(without_partner(file, &name, "lora_A and lora_B")),
                None => unreachable!("a layer is made for one of its tensors"),
            },
        };
        match &e {
            None if config.is_adalora() => return Err(without_partner(file, &tensor_a, "lora_E")),
            Some(name) if !config.is_adalora() => {
                let what = format!("tensor `{}` is AdaLoRA's", escape(name));
                return Err(Error::mismatch(file, what, "peft_type \"ADALORA\"", format!("\"{}\"", escape(&config.peft_type))));
            }
            _ => {}
        }
        Ok(RawLayer {
            path,
            adapter_key,
            source: FactorSource::Stored { a: StoredFactor::plain(tensor_a), b: StoredFactor::plain(tensor_b), e },
            scaling: Scaling::Configured,
            // An embedding looks up rows: its weight is [vocabulary, width], its update A's columns times B.
            w0_stored: if self.embedding { StoredW0::Transposed } else { StoredW0::Configured(config.fan_in_fan_out) },
        })
    }
}
