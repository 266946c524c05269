//! Layers that an adapter leaves out although the base model has the weight there: where layers differ in kind, as in hybrids of attention and state
//! spaces, a gap in the numbers is no gap.

use super::paired::PairedModule;
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::keys::{ModuleKey, layer_ranges};
use crate::error::escape;

/// The warnings for modules that have layers before and after one that they lack.
pub(super) fn gap_warnings(config: &AdapterConfig, base: &BaseModel, modules: &[PairedModule]) -> Vec<String> {
    let has_gap = |module: &&PairedModule| numbers(module).windows(2).any(|pair| pair[1] - pair[0] > 1);
    let with_gaps: Vec<&PairedModule> = modules.iter().filter(has_gap).collect();
    if with_gaps.is_empty() {
        return Vec::new();
    }
    // Beyond the last layer that the base has of anything nothing can be missing.
    let layer = |name: &str| ModuleKey::from_path(name.to_owned()).ok()?.layer?.index();
    let last = base.names().filter_map(layer).max().unwrap_or(0);
    with_gaps.into_iter().filter_map(|module| gap_warning(config, base, last, module)).collect()
}

fn numbers(module: &PairedModule) -> Vec<u32> {
    module.layers.iter().filter_map(|layer| layer.adapter_layer.layer.as_ref()?.index()).collect()
}

/// The warning for one of them, where the base has the layer; its own last is `last`.
fn gap_warning(config: &AdapterConfig, base: &BaseModel, last: u32, module: &PairedModule) -> Option<String> {
    let numbers = numbers(module);
    let (first, end) = (*numbers.first()?, *numbers.last()?);
    let tensor = &module.layers.first()?.tensor;
    let (path, suffix) = match tensor.strip_suffix(".weight") {
        Some(path) => (path, ".weight"),
        None => (tensor.as_str(), ""),
    };
    let of_all = ModuleKey::from_path(path.to_owned()).ok()?.module_type;
    let chosen = |layer: u32| config.layers_to_transform.as_ref().is_none_or(|layers| layers.contains(&layer));
    let is_there = |layer: u32| base.info(&format!("{}{suffix}", of_all.replacen('*', &layer.to_string(), 1))).is_some();
    let between = numbers.windows(2).flat_map(|pair| pair[0] + 1..pair[1].min(last + 1));
    let missing = layer_ranges(between.filter(|layer| chosen(*layer) && is_there(*layer)));
    let more = if missing.len() > 8 { ", ..." } else { "" };
    let shown: Vec<&str> = missing.iter().take(8).map(String::as_str).collect();
    let text = || format!("module `{}`: layers {first}..{end} without {}{more}", escape(&module.name), shown.join(", "));
    (!shown.is_empty()).then(text)
}
