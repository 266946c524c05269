//! Whether what was asked for is there: options that no adapter of any shard fits are refused, before anything is read.
//!
//! Each first looks at this shard's adapters; those of the others are opened only if that is not enough.

use super::adapter::PlannedAdapter;
use super::others::OtherShards;
use crate::checkpoint::{PairedModule, PairingRules};
use crate::error::{Error, Result, escape};
use crate::inputs::{LaidOut, Opener, Selection, module_paths};

/// `--map` where no adapter has such a path.
pub(crate) fn refuse_unused_maps(opener: &Opener, laid_out: &[LaidOut], others: &mut OtherShards) -> Result<()> {
    let own = laid_out.iter().flat_map(|laid_out| module_paths(&laid_out.adapter));
    opener.refuse_unused_maps(own.clone()).or_else(|_| {
        let elsewhere = others.adapters().iter().flat_map(|opened| module_paths(&opened.adapter));
        opener.refuse_unused_maps(own.chain(elsewhere))
    })
}

/// `--split` where nothing is fused.
pub(crate) fn refuse_idle_split(rules: &PairingRules, adapters: &[PlannedAdapter], others: &mut OtherShards) -> Result<()> {
    let Some(split) = rules.split else { return Ok(()) };
    let is_split = |module: &PairedModule| module.layers.iter().any(|layer| layer.block.is_some());
    if own_modules(adapters).any(is_split) || other_modules(others).any(is_split) {
        return Ok(());
    }
    let name = own_modules(adapters).chain(other_modules(others)).next().map_or("", |module| module.name.as_str());
    Err(Error::Usage {
        what: format!("--split {}: no module is a fused projection", split.name()),
        hint: Some(format!("fused are c_attn, qkv, Wqkv, W_pack and qkv_proj; the first module here is `{}`", escape(name))),
    })
}

/// Drops the modules and layers that were not asked for; what no adapter has is refused.
pub(crate) fn keep_wanted(selection: &Selection, adapters: &mut [PlannedAdapter], others: &mut OtherShards) -> Result<()> {
    selection.refuse_unknown_modules(own_modules(adapters).map(|module| module.name.as_str())).or_else(|_| {
        let all = own_modules(adapters).chain(other_modules(others));
        selection.refuse_unknown_modules(all.map(|module| module.name.as_str()))
    })?;
    for planned in &mut *adapters {
        selection.keep(&mut planned.modules);
    }
    let is_wanted =
        |module: &PairedModule| module.layers.iter().any(|layer| selection.wants(&module.name, layer.adapter_layer.layer));
    if own_modules(adapters).next().is_some() {
        return Ok(());
    }
    selection.refuse_missing_layers().or_else(|error| if other_modules(others).any(is_wanted) { Ok(()) } else { Err(error) })
}

/// `--grid` with layers that no module has both of.
pub(crate) fn refuse_missing_pairs(asked: &[(u32, u32)], adapters: &[PlannedAdapter], others: &mut OtherShards) -> Result<()> {
    let numbers = |module: &PairedModule| module.layers.iter().filter_map(|layer| layer.adapter_layer.layer).collect::<Vec<_>>();
    for &(a, b) in asked {
        let has = |module: &PairedModule| [a, b].iter().all(|wanted| numbers(module).contains(wanted));
        if !own_modules(adapters).any(has) && !other_modules(others).any(has) {
            let mut layers: Vec<u32> = own_modules(adapters).chain(other_modules(others)).flat_map(numbers).collect();
            layers.sort_unstable();
            layers.dedup();
            let there = if layers.is_empty() {
                "there are no numbered layers".to_owned()
            } else {
                format!("the layers are {}", ranges(&layers))
            };
            return Err(Error::Usage { what: format!("--grid {a},{b}: no module has both layers"), hint: Some(there) });
        }
    }
    Ok(())
}

fn own_modules(adapters: &[PlannedAdapter]) -> impl Iterator<Item = &PairedModule> {
    adapters.iter().flat_map(|planned| &planned.modules)
}

fn other_modules(others: &mut OtherShards) -> impl Iterator<Item = &PairedModule> {
    others.adapters().iter().flat_map(|opened| &opened.modules)
}

/// `0..5, 8`.
fn ranges(rising: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &layer in rising {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(layer) => *last = layer,
            _ => runs.push((layer, layer)),
        }
    }
    let show = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}..{last}") };
    runs.iter().map(show).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 8, 10, 11]), "0..2, 8, 10..11");
        assert_eq!(ranges(&[u32::MAX]), u32::MAX.to_string());
    }
}
