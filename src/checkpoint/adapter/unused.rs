//! Tensors that look like the factors of an update and are none that is known: a file may call them in a way that no reader here reads.

use std::collections::{BTreeMap, HashSet};

use super::source::{FactorSource, FoundLayers};
use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::weights::WeightsFile;

/// So many names are shown in a warning; all of them are in [`super::Adapter::unused_factors`].
const MOST_SHOWN: usize = 6;

/// The names of pairs of tensors with the shapes of A and B that are factors of none of the layers.
pub(super) fn unused_factors(weights: &WeightsFile, found: &FoundLayers) -> Vec<String> {
    let mut used: HashSet<&str> = found.named_elsewhere.iter().map(String::as_str).collect();
    for layer in &found.layers {
        match &layer.source {
            FactorSource::Stored { a, b, e } => {
                used.extend([a.tensor.as_str(), b.tensor.as_str()]);
                used.extend(e.as_deref());
            }
            FactorSource::Shared { theta_a, theta_b, .. } => used.extend([theta_a.as_str(), theta_b.as_str()]),
        }
    }
    // By what is before the names of the two: `PATH.up.weight`, `PATH.lora_B`.
    let mut by_stem: BTreeMap<&str, Vec<(&str, [usize; 2])>> = BTreeMap::new();
    for name in weights.names().filter(|name| !used.contains(name)) {
        let Some([rows, columns]) = weights.info(name).and_then(|info| <[usize; 2]>::try_from(info.shape.as_slice()).ok()) else {
            continue;
        };
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        by_stem.entry(stem.rsplit_once(['.', '_']).map_or("", |(before, _)| before)).or_default().push((name, [rows, columns]));
    }
    let mut unused: Vec<String> = Vec::new();
    for tensors in by_stem.values() {
        let shapes = || tensors.iter().map(|(_, shape)| *shape);
        let of_a: HashSet<usize> = shapes().filter(|[rank, d_in]| (1..*d_in).contains(rank)).map(|[rank, _]| rank).collect();
        let of_b: HashSet<usize> = shapes().filter(|[d_out, rank]| (1..*d_out).contains(rank)).map(|[_, rank]| rank).collect();
        let is_factor =
            |[rows, columns]: [usize; 2]| (rows < columns && of_b.contains(&rows)) || (columns < rows && of_a.contains(&columns));
        unused.extend(tensors.iter().filter(|(_, shape)| is_factor(*shape)).map(|(name, _)| (*name).to_owned()));
    }
    unused.sort();
    unused
}

/// The warning that names them.
pub(super) fn unused_warning(unused: &[String]) -> Option<String> {
    let shown = || sample(unused.to_vec(), MOST_SHOWN);
    (!unused.is_empty()).then(|| {
        format!(
            "{} tensors have the shapes of LoRA factors and names that are not known, and are not used: {}",
            unused.len(),
            shown()
        )
    })
}
