//! Adapters that start from the same A: that makes their A alike, whatever they learned.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::plan::{Group, untrained_layer};
use crate::error::Result;
use crate::inputs::{FactorPair, StoredWeight};
use crate::numerals::few;

/// A warning for a group whose members' untrained adapters have rows of A in common, bit for bit, in one layer; none without untrained adapters.
///
/// One layer is enough: initialisations come from one random stream, so that they agree from the start or not at all.
///
/// # Errors
/// What is wrong with an untrained factor.
pub(super) fn warning(context: &Context<'_>, group: &Group, index: usize, w0: &StoredWeight) -> Result<Option<String>> {
    let mut by_row: BTreeMap<[u8; 32], BTreeSet<usize>> = BTreeMap::new();
    let mut rows = 0;
    for (k, member) in group.members.iter().enumerate() {
        let planned = &context.plan.adapters[member.adapter];
        let (Some(init), Some(paired)) = (&planned.init, member.layer(&context.plan.adapters, index)) else { continue };
        let Some(layer) = untrained_layer(init, &paired.adapter_layer) else { continue };
        let factors = FactorPair::read(init, layer, w0, &mut Vec::new())?;
        rows = rows.max(factors.rank());
        for row in factors.a_transposed.columns() {
            let mut hash = blake3::Hasher::new();
            row.iter().for_each(|value| {
                hash.update(&value.to_le_bytes());
            });
            by_row.entry(*hash.finalize().as_bytes()).or_default().insert(k);
        }
    }
    let shared: Vec<&BTreeSet<usize>> = by_row.values().filter(|members| members.len() > 1).collect();
    let alike: BTreeSet<usize> = shared.iter().flat_map(|members| members.iter().copied()).collect();
    let name = |k: &usize| context.plan.adapters[group.members[*k].adapter].adapter.name.as_str();
    let names: Vec<&str> = alike.iter().map(name).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "{}: their A of {} start from the same numbers ({} of {rows} rows in one layer), which makes them alike whatever they learned",
            crate::error::escape(&few(&names)),
            crate::error::escape(&group.name),
            shared.len().min(rows)
        )
    }))
}
