//! Checks of the options against the adapters: an option that fits no adapter is refused before anything is read.

use std::collections::BTreeSet;

use super::adapter::PlannedAdapter;
use crate::checkpoint::keys::listed_layers;
use crate::checkpoint::{PairedModule, PairingRules};
use crate::error::{Error, Result, escape, field};
use crate::inputs::{LaidOut, Opener, Selection, module_paths};
use crate::terms::LayerId;

/// Refuses `--map` where no adapter has such a path.
pub(crate) fn refuse_unused_maps(opener: &Opener, laid_out: &[LaidOut]) -> Result<()> {
    opener.refuse_unused_maps(laid_out.iter().flat_map(|laid_out| module_paths(&laid_out.adapter)))
}

/// Refuses `--split` where nothing is fused.
pub(crate) fn refuse_idle_split(rules: &PairingRules, adapters: &[PlannedAdapter]) -> Result<()> {
    let Some(split) = rules.split else { return Ok(()) };
    let is_split = |module: &PairedModule| module.layers.iter().any(|layer| layer.block.is_some());
    if all_modules(adapters).any(is_split) {
        return Ok(());
    }
    let name = all_modules(adapters).next().map_or("", |module| module.name.as_str());
    Err(Error::Usage {
        what: format!("{} {}: no module is a fused projection", field("split"), split.name()),
        hint: Some(format!("fused are c_attn, qkv, Wqkv, W_pack and qkv_proj; the first module here is `{}`", escape(name))),
    })
}

/// Drops the modules and layers that were not asked for; what no adapter has is refused.
pub(crate) fn keep_wanted(selection: &Selection, adapters: &mut [PlannedAdapter]) -> Result<()> {
    let unusable = || adapters.iter().flat_map(|planned| &planned.unusable);
    let names = all_modules(adapters).map(|module| &module.name).chain(unusable().map(|layer| &layer.module));
    selection.refuse_unknown_modules(names.map(String::as_str))?;
    for planned in &mut *adapters {
        selection.keep(&mut planned.modules);
        planned.unusable.retain(|layer| selection.wants(&layer.module, layer.layer.as_ref()));
    }
    let nothing = adapters.iter().all(|planned| planned.modules.is_empty() && planned.unusable.is_empty());
    if nothing { selection.refuse_missing_layers() } else { Ok(()) }
}

/// Refuses `--grid` with two layers that no module has both of.
pub(crate) fn refuse_missing_pairs(asked: &[(LayerId, LayerId)], adapters: &[PlannedAdapter]) -> Result<()> {
    for (a, b) in asked {
        let has = |module: &PairedModule| [a, b].into_iter().all(|wanted| layers_of(module).any(|layer| layer == wanted));
        if !all_modules(adapters).any(has) {
            let layers: BTreeSet<&LayerId> = all_modules(adapters).flat_map(layers_of).collect();
            let there = if layers.is_empty() {
                "there are no numbered layers".to_owned()
            } else {
                format!("the layers are {}", escape(&listed_layers(layers).join(", ")))
            };
            return Err(Error::Usage {
                what: format!("{} {a},{b}: no module has both layers", field("grid")),
                hint: Some(there),
            });
        }
    }
    Ok(())
}

fn layers_of(module: &PairedModule) -> impl Iterator<Item = &LayerId> {
    module.layers.iter().filter_map(|layer| layer.adapter_layer.layer.as_ref())
}

fn all_modules(adapters: &[PlannedAdapter]) -> impl Iterator<Item = &PairedModule> {
    adapters.iter().flat_map(|planned| &planned.modules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Adapter;

    const ADAPTER: &str = "notebooks-data/adapters/trec-seed0";
    const BASE: &str = "notebooks-data/base/all-MiniLM-L6-v2-qv";

    fn opener() -> Opener {
        Opener::new(Some(BASE.as_ref()), PairingRules::default(), false)
    }

    /// An adapter with the modules query and value in layers 0 to 5.
    fn planned() -> PlannedAdapter {
        let mut opener = opener();
        let laid_out = opener.lay_out(Adapter::open(ADAPTER.as_ref(), "own".into()).unwrap()).unwrap();
        let opened = opener.pair(laid_out).unwrap();
        PlannedAdapter { adapter: opened.adapter, base: opened.base, modules: opened.modules, unusable: Vec::new(), init: None }
    }

    #[test]
    fn only_the_modules_and_layers_that_are_wanted_are_kept() {
        let mut adapters = [planned()];
        keep_wanted(&Selection::of(&["value".into()], Some("1..2,5")).unwrap(), &mut adapters).unwrap();
        let modules = &adapters[0].modules;
        assert_eq!(modules.iter().map(|module| module.name.as_str()).collect::<Vec<_>>(), ["value"]);
        let layers: Vec<_> = modules[0].layers.iter().filter_map(|layer| layer.adapter_layer.layer.as_ref()).collect();
        assert!(layers.iter().map(|layer| layer.index()).eq([1, 2, 5].map(Some)));
    }

    #[test]
    fn what_no_adapter_has_is_refused() {
        let refused = |modules: &[String], layers| {
            let selection = Selection::of(modules, layers).unwrap();
            keep_wanted(&selection, &mut [planned()]).err().map(|error| error.to_string())
        };
        let message = Some("`modules` keys: no adapter has a module of that name".to_owned());
        assert_eq!(refused(&["keys".into()], None), message);
        assert_eq!(refused(&[], Some("6")), Some("`layers` 6: no module has such a layer".to_owned()));
        assert_eq!(refused(&["value".into()], Some("5")), None);
    }

    #[test]
    fn pairs_of_layers_are_refused_with_the_layers_there_are() {
        let refused = |pair, adapters: &[PlannedAdapter]| {
            let error = refuse_missing_pairs(&[pair], adapters).err();
            error.map(|error| (error.to_string(), error.hint().unwrap_or_default().to_owned()))
        };
        assert_eq!(refused((0.into(), 5.into()), &[planned()]), None);
        let message = |hint: &str| Some(("`grid` 0,6: no module has both layers".to_owned(), hint.to_owned()));
        assert_eq!(refused((0.into(), 6.into()), &[planned()]), message("the layers are 0..5"));
        assert_eq!(refused((0.into(), 6.into()), &[]), message("there are no numbered layers"));
    }
}
