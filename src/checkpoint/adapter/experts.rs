//! Factors of several experts in one tensor, as PEFT stores those of parameters (`target_parameters`): a weight `[experts, out, in]` has A `[experts·r, in]`,
//! whose rows are those of one expert after those of another, and B `[out, r·experts]`, whose columns take turns between the experts.
//!
//! Each parameter of a module wraps what is there already, so that the names tell only how deep a parameter lies: `experts.base_layer.lora_A` is of the first,
//! `experts.lora_A` of the last.
//!
//! Source: PEFT's `ParamWrapper.get_delta_weight` (`einsum("o r e, e r i -> e o i")`) and `BaseTuner._inject_parameters`.

use std::collections::BTreeMap;

use super::source::{FactorSource, RawLayer, Scaling, StoredFactor, StoredW0};
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::{last_segment, path_of_expert, view_of_expert};

/// What PEFT puts into a path for each parameter that wraps another.
const WRAPPED: &str = ".base_layer";
/// Parameters of transformers' experts, in the order of their modules; others follow in the order of the configuration.
const IN_ORDER: [&str; 4] = ["gate_up_proj", "gate_proj", "up_proj", "down_proj"];

/// The tensors of one path: A, B, and the name in front of them.
pub(super) struct Stack {
    pub(super) path: String,
    pub(super) stem: String,
    pub(super) tensors: [String; 2],
}

/// The layers of those stacks that are of parameters with several experts, by path; the others are modules like any.
pub(super) fn layers_of_experts(
    weights: &mut WeightsFile,
    config: &AdapterConfig,
    stacks: Vec<Stack>,
) -> BTreeMap<String, Vec<RawLayer>> {
    let mut by_module: BTreeMap<String, Vec<Stack>> = BTreeMap::new();
    for stack in stacks {
        let module = stack.path.replace(WRAPPED, "");
        by_module.entry(module).or_default().push(stack);
    }
    let mut found = BTreeMap::new();
    for (module, mut stacks) in by_module {
        let parameters = parameters_of(config, &module);
        if parameters.len() != stacks.len() {
            continue;
        }
        // The deepest first.
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.path.len()));
        for (stack, parameter) in stacks.into_iter().zip(parameters) {
            if let Some(layers) = layers_of(weights, config, &stack, &format!("{module}.{parameter}")) {
                found.insert(stack.path, layers);
            }
        }
    }
    found
}

/// The parameters of a module that were adapted, in the order in which they wrap each other.
fn parameters_of<'c>(config: &'c AdapterConfig, module: &str) -> Vec<&'c str> {
    let is_of = |target: &&str| {
        let path = format!("{module}.{}", last_segment(target));
        path == **target || path.strip_suffix(*target).is_some_and(|before| before.ends_with('.'))
    };
    // PEFT adds names of its own to those that were given, so that a parameter may have two.
    let mut parameters: Vec<&str> = Vec::new();
    for parameter in config.target_parameters.iter().map(String::as_str).filter(is_of).map(last_segment) {
        if !parameters.contains(&parameter) {
            parameters.push(parameter);
        }
    }
    parameters.sort_by_key(|parameter| IN_ORDER.iter().position(|known| known == parameter).unwrap_or(IN_ORDER.len()));
    parameters
}

/// A layer for each expert; none where there is only one, or where the shapes are others.
fn layers_of(weights: &mut WeightsFile, config: &AdapterConfig, stack: &Stack, parameter: &str) -> Option<Vec<RawLayer>> {
    let rows = *weights.info(&stack.tensors[0])?.shape.first()?;
    let rank = config.pattern_rank(parameter).or(config.r)?;
    let experts = rows.checked_div(rank).filter(|experts| *experts > 1 && experts * rank == rows)?;
    let scaling = config.scaling(parameter, rank);
    let layer = |expert| {
        let [a, b] = weights.view_expert([&stack.tensors[0], &stack.tensors[1]], experts, expert)?;
        Some(RawLayer {
            path: path_of_expert(parameter, expert),
            adapter_key: view_of_expert(&stack.stem, expert),
            source: FactorSource::Stored { a: StoredFactor::plain(a), b: StoredFactor::plain(b), e: None },
            scaling: Scaling::Given(scaling),
            w0_stored: StoredW0::OfExperts,
        })
    };
    (0..experts).map(layer).collect()
}
