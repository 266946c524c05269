//! From the tensor names of a PEFT adapter to its layers.

use std::collections::BTreeMap;
use std::path::Path;

use super::source::{FactorSource, FoundLayers, RawLayer, Scaling, StoredFactor};
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::files::sample;
use crate::checkpoint::keys::{Factor, TensorKey, parse_tensor_name};
use crate::checkpoint::weights::WeightsFile;
use crate::error::{Error, Result, escape};

/// The names of a layer's factors while they are collected, each with what comes before the factor's.
#[derive(Default)]
struct Pair {
    a: Option<(String, String)>,
    b: Option<(String, String)>,
}

/// Sorts the tensor names by module path.
///
/// # Errors
/// [`Error::Mismatch`] if there is no LoRA tensor, if two are the same factor of a layer, or if one has no partner.
pub(super) fn collect(weights: &WeightsFile, config: &AdapterConfig) -> Result<FoundLayers> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let (mut ignored_tensors, mut magnitudes) = (0, 0);
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
                ignored_tensors += 1;
                magnitudes += 1;
            }
            TensorKey::Other => ignored_tensors += 1,
        }
    }
    if pairs.is_empty() {
        let names: Vec<String> = weights.names().map(str::to_owned).collect();
        let found = if names.is_empty() { "no tensor at all".to_owned() } else { sample(names, 5) };
        return Err(Error::mismatch(weights.path(), "no LoRA tensor in the file", "names like `PATH.lora_A.weight`", found));
    }
    let mut found = FoundLayers { ignored_tensors, ..Default::default() };
    if magnitudes > 0 && !config.use_dora {
        found.warnings.push(format!(
            "{magnitudes} lora_magnitude_vector tensors (DoRA): the conversion of A and B is defined and done, that of the update is not"
        ));
    }
    for (path, pair) in pairs {
        found.layers.push(pair.into_layer(weights.path(), config, path)?);
    }
    Ok(found)
}

impl Pair {
    fn into_layer(self, file: &Path, config: &AdapterConfig, path: String) -> Result<RawLayer> {
        let ((tensor_a, adapter_key), (tensor_b, _)) = match (self.a, self.b) {
            (Some(a), Some(b)) => (a, b),
            (Some((name, _)), None) => return Err(alone(file, &name, "lora_B")),
            (None, Some((name, _))) => return Err(alone(file, &name, "lora_A")),
            (None, None) => return Err(alone(file, &path, "lora_A and lora_B")),
        };
        Ok(RawLayer {
            path,
            adapter_key,
            source: FactorSource::Stored { a: StoredFactor::plain(tensor_a), b: StoredFactor::plain(tensor_b), e: None },
            scaling: Scaling::Configured,
            w0_transposed: config.fan_in_fan_out,
        })
    }
}

fn alone(file: &Path, name: &str, partner: &str) -> Error {
    let what = format!("tensor `{}` has no partner", escape(name));
    Error::mismatch(file, what, format!("a {partner} of the same module"), "none")
}
