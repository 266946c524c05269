//! Which layers two adapters share: those that adapt the same base weight.

use std::collections::{BTreeMap, BTreeSet};

use super::params::CompareConfig;
use crate::checkpoint::{Block, PairedLayer};
use crate::error::{Error, Result, escape, show_path};
use crate::inputs::{OpenedAdapter, type_of_tensor};

/// A module that both adapters have, by the name that the left one gives it.
pub(super) struct ModulePair {
    pub(super) name: String,
    /// Sorted by layer.
    pub(super) layers: Vec<LayerPair>,
    /// The (i, j) compared.
    pub(super) ij: Vec<(usize, usize)>,
    /// The label of the control's random streams: the type of the base tensors, because one Θ serves them all.
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

/// Matches the selected layers of two adapters; what only one of them has is named in a warning.
///
/// # Errors
/// [`Error::Usage`] for a module that neither has, [`Error::Mismatch`] if they have nothing in common.
pub(super) fn match_modules(
    config: &CompareConfig,
    sides: &[OpenedAdapter; 2],
    warnings: &mut Vec<String>,
) -> Result<Vec<ModulePair>> {
    let [left, right] = sides;
    let selection = &config.selection;
    selection.refuse_unknown_modules(sides.iter().flat_map(|side| side.modules.iter().map(|module| module.name.as_str())))?;
    let wanted = |module: &str, layer: &PairedLayer| selection.wants(module, layer.adapter_layer.layer.as_ref());
    let on_the_left: BTreeSet<Place<'_>> = left.modules.iter().flat_map(|module| &module.layers).map(place).collect();
    let by_place: BTreeMap<Place<'_>, &PairedLayer> =
        right.modules.iter().flat_map(|module| &module.layers).map(|layer| (place(layer), layer)).collect();
    let mut modules = Vec::new();
    let (mut only_left, mut only_right) = (0, 0);
    for module in &left.modules {
        let mut layers = Vec::new();
        for layer in module.layers.iter().filter(|layer| wanted(&module.name, layer)) {
            match by_place.get(&place(layer)) {
                Some(other) => layers.push(LayerPair { left: layer.clone(), right: (*other).clone() }),
                None => only_left += 1,
            }
        }
        let Some(first) = layers.first() else { continue };
        let ij = match config.given.ij.as_slice() {
            [] => {
                let ranks = layers.iter().flat_map(|pair| [pair.left.adapter_layer.rank, pair.right.adapter_layer.rank]);
                let smallest = ranks.min().unwrap_or_else(|| unreachable!("a module that both have has a layer that both have"));
                vec![(smallest, smallest)]
            }
            given => given.to_vec(),
        };
        let stream = stream_of(&first.left);
        modules.push(ModulePair { name: module.name.clone(), layers, ij, stream });
    }
    for module in &right.modules {
        for layer in module.layers.iter().filter(|layer| wanted(&module.name, layer)) {
            only_right += usize::from(!on_the_left.contains(&place(layer)));
        }
    }
    if modules.is_empty() {
        let weight = |side: &OpenedAdapter| {
            let mut layers = side.modules.iter().flat_map(|module| &module.layers);
            let first = layers.find(|layer| selection.wants_layer(layer.adapter_layer.layer.as_ref()));
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

/// The type of a layer's base tensor, and the part of it.
fn stream_of(layer: &PairedLayer) -> String {
    let tensor_type = type_of_tensor(&layer.tensor);
    match &layer.block {
        None => tensor_type,
        Some(block) => format!("{tensor_type}#{}", block.name),
    }
}
