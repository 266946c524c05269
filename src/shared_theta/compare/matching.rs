//! Which layers two adapters share: those that adapt the same base weight.

use std::collections::BTreeMap;

use super::super::opening::OpenedAdapter;
use super::CompareConfig;
use crate::checkpoint::keys::ModuleKey;
use crate::checkpoint::{Block, PairedLayer};
use crate::error::{Error, Result, escape, show_path};

/// A module that both adapters have, by the name that the left one gives it.
pub(super) struct ModulePair {
    pub(super) name: String,
    /// Sorted by layer.
    pub(super) layers: Vec<LayerPair>,
    /// The (i, j) compared.
    pub(super) ij: Vec<(usize, usize)>,
    /// What the control's random streams are derived from: the type of the base tensors, as one Θ serves them all.
    pub(super) stream: String,
}

/// Both adapters' layers of one base weight.
pub(super) struct LayerPair {
    pub(super) left: PairedLayer,
    pub(super) right: PairedLayer,
}

impl LayerPair {
    pub(super) fn side(&self, side: usize) -> &PairedLayer {
        if side == 0 { &self.left } else { &self.right }
    }
}

/// A base weight, or a part of one.
type Place<'a> = (&'a str, Option<&'a Block>);

fn place(layer: &PairedLayer) -> Place<'_> {
    (&layer.tensor, layer.block.as_ref())
}

/// Matches the layers of two adapters that were asked for; what only one of them has is named in a warning.
///
/// # Errors
/// [`Error::Usage`] for a module that neither has, [`Error::Mismatch`] if there is nothing that both have.
pub(super) fn match_modules(
    config: &CompareConfig,
    sides: &[OpenedAdapter; 2],
    warnings: &mut Vec<String>,
) -> Result<Vec<ModulePair>> {
    let [left, right] = sides;
    refuse_unknown(config, sides)?;
    let wanted = |name: &str| config.given.modules.is_empty() || config.given.modules.iter().any(|module| module == name);
    let wanted_layer = |layer: &&PairedLayer| {
        config.layers.as_ref().is_none_or(|layers| layer.adapter_layer.layer.is_some_and(|layer| layers.holds(layer)))
    };
    let names_left: BTreeMap<Place<'_>, &str> =
        left.modules.iter().flat_map(|m| m.layers.iter().map(|layer| (place(layer), m.name.as_str()))).collect();
    let by_place: BTreeMap<Place<'_>, &PairedLayer> =
        right.modules.iter().flat_map(|module| &module.layers).map(|layer| (place(layer), layer)).collect();
    let mut modules = Vec::new();
    let (mut only_left, mut only_right) = (0, 0);
    for module in left.modules.iter().filter(|module| wanted(&module.name)) {
        let mut layers = Vec::new();
        for layer in module.layers.iter().filter(wanted_layer) {
            match by_place.get(&place(layer)) {
                Some(other) => layers.push(LayerPair { left: layer.clone(), right: (*other).clone() }),
                None => only_left += 1,
            }
        }
        let Some(first) = layers.first() else { continue };
        let ij = match config.given.ij.as_slice() {
            [] => {
                let ranks = layers.iter().flat_map(|pair| [pair.left.adapter_layer.rank, pair.right.adapter_layer.rank]);
                let smallest = ranks.min().unwrap_or_default();
                vec![(smallest, smallest)]
            }
            given => given.to_vec(),
        };
        let stream = stream_of(&first.left);
        modules.push(ModulePair { name: module.name.clone(), layers, ij, stream });
    }
    for module in &right.modules {
        for layer in module.layers.iter().filter(wanted_layer) {
            let named = names_left.get(&place(layer));
            only_right += usize::from(named.is_none() && wanted(&module.name));
        }
    }
    if modules.is_empty() {
        let weight = |side: &OpenedAdapter| {
            let first = side.modules.iter().flat_map(|module| &module.layers).find(wanted_layer);
            first.map_or_else(|| "no such layer".to_owned(), |layer| format!("`{}`", escape(&layer.tensor)))
        };
        let what = format!("no layer is adapted by {} too", show_path(&left.adapter.dir));
        return Err(Error::mismatch(
            right.adapter.weights_file(),
            what,
            format!("layers of {} among them", weight(left)),
            weight(right),
        )
        .with_hint("two adapters can be compared where they adapt the same weights of one base model"));
    }
    for (count, side) in [(only_left, left), (only_right, right)] {
        if count > 0 {
            warnings
                .push(format!("{}: {count} layers are not in the other adapter and are left out", escape(&side.adapter.name)));
        }
    }
    Ok(modules)
}

fn refuse_unknown(config: &CompareConfig, sides: &[OpenedAdapter; 2]) -> Result<()> {
    let mut names: Vec<&str> = sides.iter().flat_map(|side| side.modules.iter().map(|module| module.name.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    match config.given.modules.iter().find(|wanted| !names.contains(&wanted.as_str())) {
        None => Ok(()),
        Some(unknown) => Err(Error::Usage {
            what: format!("--modules {}: neither adapter has a module of that name", escape(unknown)),
            hint: Some(format!("the modules are {}", escape(&names.join(", ")))),
        }),
    }
}

/// The type of a layer's base tensor, and the part of it.
fn stream_of(layer: &PairedLayer) -> String {
    let path = layer.tensor.strip_suffix(".weight").unwrap_or(&layer.tensor);
    let tensor_type = ModuleKey::from_path(path.to_owned()).map_or_else(|_| path.to_owned(), |key| key.module_type);
    match &layer.block {
        None => tensor_type,
        Some(block) => format!("{tensor_type}#{}", block.name),
    }
}
