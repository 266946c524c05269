//! Layers to modules: grouped by type, named, sorted, and checked against the ranks that the configuration gives.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{AdapterLayer, AdapterModule, UnusableLayer};
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::{ModuleKey, name_modules};
use crate::error::{Error, Result, escape};
use crate::terms::LayerId;

/// Compares the ranks that the configuration gives with those of the tensors.
pub(super) fn check_ranks(config: &AdapterConfig, layers: &[AdapterLayer], warnings: &mut Vec<String>) -> Result<()> {
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
    if config.has_unread_ranks {
        return Ok(());
    }
    let mut by_default = layers.iter().filter(|layer| config.pattern_rank(&layer.key.path).is_none()).peekable();
    if let Some(r) = config.r
        && by_default.peek().is_some()
        && !by_default.any(|layer| layer.rank == r)
    {
        let ranks: BTreeSet<String> = layers.iter().map(|layer| layer.rank.to_string()).collect();
        let found = format!("tensors of rank {}", sample(ranks.into_iter().collect(), 5));
        let turned = layers.iter().all(|layer| (layer.d_in, layer.d_out) == (r, r));
        let hint = if turned {
            "A and B look transposed: A is [r, in], B is [out, r]"
        } else {
            "the config and the weights may be of different adapters"
        };
        return Err(Error::mismatch(&config.path, format!("r is {r}"), "the rank of a tensor", found).with_hint(hint));
    }
    let differs = |layer: &&AdapterLayer| config.pattern_rank(&layer.key.path).or(config.r).is_some_and(|r| r != layer.rank);
    let mut wrong = layers.iter().filter(differs);
    if let Some(layer) = wrong.next() {
        warnings.push(format!(
            "the config and the tensors disagree about the rank of {} layers (`{}` has {}); the tensors' rank is used",
            1 + wrong.count(),
            escape(&layer.key.path),
            layer.rank
        ));
    }
    Ok(())
}

/// Groups the layers by module type, names the modules and sorts everything.
///
/// Those that cannot be used are named with the others, so that a name does not depend on what is wrong with its neighbours.
///
/// # Errors
/// [`Error::Mismatch`] for two layers that are one.
pub(super) fn group(
    weights: &WeightsFile,
    layers: Vec<AdapterLayer>,
    unusable: Vec<(String, Error)>,
) -> Result<(Vec<AdapterModule>, Vec<UnusableLayer>)> {
    let mut by_type: BTreeMap<String, Vec<AdapterLayer>> = BTreeMap::new();
    for layer in layers {
        by_type.entry(layer.key.module_type.clone()).or_default().push(layer);
    }
    // A path that names no layer is a module of its own.
    let of_unusable = |path: &str| match ModuleKey::from_path(path.to_owned()) {
        Ok(key) => (key.module_type, key.layer),
        Err(_) => (path.to_owned(), None),
    };
    let unusable: Vec<_> = unusable.into_iter().map(|(path, error)| (of_unusable(&path), error)).collect();
    let types: BTreeSet<&str> =
        by_type.keys().map(String::as_str).chain(unusable.iter().map(|((of, _), _)| of.as_str())).collect();
    let types: Vec<&str> = types.into_iter().collect();
    let names: BTreeMap<String, String> = types.iter().map(|of| (*of).to_owned()).zip(name_modules(&types)).collect();
    let mut modules = Vec::with_capacity(by_type.len());
    for (module_type, mut layers) in by_type {
        let name = names[&module_type].clone();
        layers.sort_by(|one, other| one.layer.cmp(&other.layer));
        for pair in layers.windows(2) {
            if pair[0].layer == pair[1].layer {
                let found = format!("`{}` and `{}`", escape(&pair[0].adapter_key), escape(&pair[1].adapter_key));
                return Err(Error::mismatch(weights.path(), "two names for one layer", "one", found));
            }
        }
        modules.push(AdapterModule { name, module_type, layers });
    }
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    let named =
        |((of, layer), error): ((String, Option<LayerId>), Error)| UnusableLayer { module: names[&of].clone(), layer, error };
    Ok((modules, unusable.into_iter().map(named).collect()))
}
