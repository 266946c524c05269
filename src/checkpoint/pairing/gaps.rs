//! Layers that an adapter leaves out although the base model has the weight there: where layers differ in kind, as in hybrids of attention and state
//! spaces, a gap in the numbers is no gap.

use super::paired::PairedModule;
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::keys::ModuleKey;
use crate::error::escape;

/// The last layer that the base has of anything: beyond it nothing can be missing.
pub(super) fn last_layer(base: &BaseModel) -> u32 {
    let layer = |name: &str| ModuleKey::from_path(name.to_owned()).ok()?.layer;
    base.names().filter_map(layer).max().unwrap_or(0)
}

/// The warning for a module that has layers before and after one that it lacks; `last` is [`last_layer`].
pub(super) fn gap_warning(config: &AdapterConfig, base: &BaseModel, last: u32, module: &PairedModule) -> Option<String> {
    let numbers: Vec<u32> = module.layers.iter().filter_map(|layer| layer.adapter_layer.layer).collect();
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
    let missing = ranges(between.filter(|layer| chosen(*layer) && is_there(*layer)));
    let more = if missing.len() > 8 { ", ..." } else { "" };
    let shown: Vec<&str> = missing.iter().take(8).map(String::as_str).collect();
    let text = || format!("module `{}`: layers {first}..{end} without {}{more}", escape(&module.name), shown.join(", "));
    (!shown.is_empty()).then(text)
}

/// Rising numbers as ranges: `2`, `4..9`.
fn ranges(numbers: impl Iterator<Item = u32>) -> Vec<String> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs.into_iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}..{last}") }).collect()
}
