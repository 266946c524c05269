//! A part of a study: some of its base weights with everything that is solved through them, for as many machines as there are parts.
//!
//! What is planned is the whole study; so the parts together give the same as one run. A part stores what the comparison needs of each weight.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::context::Context;
use super::plan::{Group, Pass, Plan};
use super::shard::Shard;
use super::solve::{KnownWeight, LayerJob, SolvedLayer, solve_layer};
use crate::conversion::Workspace;
use crate::error::{Error, Result, escape, field, in_words};
use crate::inputs::{BaseWeight, FactorPair, StoredWeight};
use crate::marker::MANIFEST_FILE;
use crate::record::{InputRecord, ShardRecord};
use crate::stored::{Reader, Writer, stored};

/// The part of a plan's work that a run does.
pub(super) fn record(shard: Option<Shard>, plan: &Plan) -> ShardRecord {
    let Shard { number, of } = shard.unwrap_or(Shard { number: 1, of: 1 });
    let mut hash = blake3::Hasher::new();
    for name in &plan.found {
        // No path contains a NUL.
        hash.update(name.as_bytes()).update(b"\0");
    }
    let names_blake3 = hash.finalize().to_hex().to_string();
    ShardRecord { number, of, adapters: plan.found.len(), names_blake3, weights: all_weights(&plan.groups).count() }
}

/// Every base weight as its group and its layer there.
pub(super) fn all_weights(groups: &[Group]) -> impl Iterator<Item = (usize, usize)> {
    groups.iter().enumerate().flat_map(|(number, group)| (0..group.layers.len()).map(move |index| (number, index)))
}

/// The base weights of a part: the largest first, each to the part that has least to do.
pub(super) fn weights_of(shard: Shard, groups: &[Group]) -> Vec<(usize, usize)> {
    let size = |&(group, index): &(usize, usize)| {
        let BaseWeight { d_out, d_in, .. } = groups[group].layers[index];
        // What its factorisation takes.
        d_out as u128 * d_in as u128 * d_out.min(d_in) as u128
    };
    let mut weights: Vec<(usize, usize)> = all_weights(groups).collect();
    weights.sort_by_key(|weight| std::cmp::Reverse(size(weight)));
    let mut parts: Vec<(u128, usize)> = (0..shard.of).map(|part| (0, part)).collect();
    let mut own = Vec::new();
    for weight in weights {
        let Some(least) = parts.iter_mut().min() else { break };
        if least.1 + 1 == shard.number {
            own.push(weight);
        }
        least.0 += size(&weight);
    }
    own.sort_unstable();
    own
}

/// Reads the smallest base weight of each base, and its adapters' factors, whichever shard has it: inputs that are others from one shard to the next are
/// found by what all of them have read.
///
/// # Errors
/// What is wrong with the weight or a factor.
pub(super) fn read_in_common(context: &Context<'_>) -> Result<Vec<InputRecord>> {
    let plan = context.plan;
    let size =
        |(group, index): &(usize, usize)| plan.groups[*group].layers[*index].d_out * plan.groups[*group].layers[*index].d_in;
    let mut inputs = Vec::new();
    for (number, base) in plan.bases.iter().enumerate() {
        let of_base = all_weights(&plan.groups).filter(|(group, _)| plan.groups[*group].base == number);
        let Some((group, index)) = of_base.min_by_key(size) else { continue };
        let group = &plan.groups[group];
        let w0 = StoredWeight::read(base, &group.layers[index], &mut inputs)?;
        for member in &group.members {
            let planned = &plan.adapters[member.adapter];
            let Some(paired) = member.layer(&plan.adapters, index) else { continue };
            match FactorPair::read(&planned.adapter, &paired.adapter_layer, &w0, &mut inputs) {
                // The shard that has the weight says what is wrong with the adapter.
                Err(error) if !context.keep_going() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(inputs)
}

/// The file of a solved weight within its shard's directory.
pub(super) fn file_of((group, index): (usize, usize)) -> String {
    format!("weights/{group}.{index}.safetensors")
}

/// A base weight after everything was solved through it: what a shard stores.
pub(super) struct SolvedWeight {
    solved: SolvedLayer,
    known: Option<KnownWeight>,
}

stored!(SolvedWeight { solved, known });

impl SolvedWeight {
    /// Reads and solves; what was read and which adapters failed is within.
    ///
    /// # Errors
    /// Those of [`solve_layer`].
    pub(super) fn solve(
        context: &Context<'_>,
        (pass, index, decomposed): (&Pass, usize, bool),
        workspace: &mut Workspace,
    ) -> Result<Self> {
        let known = OnceLock::new();
        let job = LayerJob { pass, index, decomposed, known: &known, for_later: true };
        let solved = solve_layer(context, &job, workspace)?;
        Ok(Self { solved, known: known.into_inner() })
    }

    /// The file.
    ///
    /// # Errors
    /// [`Error::Internal`] if it cannot be put together.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        Writer::bytes_of(self)
    }

    /// What was read, and the adapters that failed.
    pub(super) fn into_records(self) -> (Vec<InputRecord>, Vec<(usize, Error)>) {
        (self.solved.inputs, self.solved.failed)
    }
}

/// The files of all shards of a study, by name, each with its hash.
#[derive(Debug, Clone, Default)]
pub struct SolvedFiles(BTreeMap<String, (PathBuf, String)>);

impl SolvedFiles {
    /// Adds a file of a shard's directory, as its manifest lists it.
    pub fn add(&mut self, dir: &Path, name: &str, blake3: &str) {
        self.0.insert(name.to_owned(), (dir.join(name), blake3.to_owned()));
    }

    /// Checks that all weights of a plan are there.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for the first that is not.
    pub(super) fn check(&self, groups: &[Group]) -> Result<()> {
        let absent = all_weights(groups).find(|weight| !self.0.contains_key(&file_of(*weight)));
        let Some((group, index)) = absent else { return Ok(()) };
        let tensor = &groups[group].layers[index].tensor;
        let place = self.0.values().next().map(|(path, _)| path.clone()).unwrap_or_default();
        Err(Error::mismatch(&place, "weights of the shards", format!("that of `{}`", escape(tensor)), "others"))
    }

    /// What the shard that has a weight found, as far as this pass needs it.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Malformed`] for a file that is not as the shard wrote it.
    pub(super) fn load(
        &self,
        context: &Context<'_>,
        (pass, index): (&Pass, usize),
        known: &OnceLock<KnownWeight>,
    ) -> Result<SolvedLayer> {
        let Some((path, hash)) = self.0.get(&file_of((pass.group, index))) else {
            unreachable!("all weights are looked for before any is read")
        };
        let again = |error: Error| error.with_hint(format!("make this shard again with {}", field("overwrite")));
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::missing(path, format!("does not exist, but {MANIFEST_FILE} lists it")),
            _ => Error::missing(path, in_words(&error)),
        });
        let bytes = bytes.map_err(again)?;
        let found = blake3::hash(&bytes).to_hex();
        if found.as_str() != hash {
            let expected = format!("BLAKE3 {} as in {MANIFEST_FILE}", escape(hash));
            return Err(again(Error::malformed(path, "contents", expected, found.to_string())));
        }
        let SolvedWeight { mut solved, known: of_weight } = Reader::value_of(path, &bytes).map_err(again)?;
        if let Some(of_weight) = of_weight {
            known.get_or_init(|| of_weight);
        }
        if solved.members.len() < pass.members.end {
            return Err(again(Error::malformed(path, "adapters", "those of the study", solved.members.len().to_string())));
        }
        solved.members = solved.members.drain(pass.members.clone()).collect();
        check_configurations(context, (pass, index), &solved)?;
        for draws in solved.w0_draws.values_mut() {
            let end = pass.draws.end.min(draws.len());
            *draws = draws.drain(pass.draws.start.min(end)..end).collect();
        }
        Ok(solved)
    }
}

/// Checks that adapters are configured as they were when their shard was made.
///
/// # Errors
/// [`Error::Mismatch`].
fn check_configurations(context: &Context<'_>, (pass, index): (&Pass, usize), solved: &SolvedLayer) -> Result<()> {
    let adapters = &context.plan.adapters;
    for (member, then) in context.plan.groups[pass.group].members[pass.members.clone()].iter().zip(&solved.members) {
        let (Some(then), Some(now)) = (then, member.layer(adapters, index)) else { continue };
        let (then, now) = (&then.conversion, &now.adapter_layer);
        if (then.rank, then.scaling.to_bits()) != (now.rank, now.scaling.to_bits()) {
            let shown = |rank: usize, scaling: f64| format!("rank {rank} and scaling {scaling}");
            let what = format!("configuration of `{}`", escape(&now.key.path));
            let expected = format!("{}, as when the shards were made", shown(then.rank, then.scaling));
            let dir = &adapters[member.adapter].adapter.dir;
            return Err(Error::mismatch(dir, what, expected, shown(now.rank, now.scaling)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(shapes: &[&[(usize, usize)]]) -> Vec<Group> {
        let weight = |(layer, &(d_out, d_in)): (usize, &(usize, usize))| BaseWeight {
            layer: Some((layer as u32).into()),
            tensor: format!("layers.{layer}.weight"),
            block: None,
            d_out,
            d_in,
            transposed: false,
        };
        let group = |shapes: &&[(usize, usize)]| Group {
            base: 0,
            convention: crate::terms::Convention::General,
            name: "module".into(),
            layers: shapes.iter().enumerate().map(weight).collect(),
            members: Vec::new(),
        };
        shapes.iter().map(group).collect()
    }

    #[test]
    fn shards_share_all_weights_among_them_by_what_they_take() {
        let groups = groups(&[&[(4, 4), (4, 4), (4, 4)], &[(40, 4), (8, 8)]]);
        for of in 1..8 {
            let mut all: Vec<_> = (1..=of).flat_map(|number| weights_of(Shard { number, of }, &groups)).collect();
            all.sort_unstable();
            assert_eq!(all, all_weights(&groups).collect::<Vec<_>>(), "{of}");
        }
        // 640 and 512 alone, and three of 64 with the smaller.
        let of = |number| weights_of(Shard { number, of: 2 }, &groups);
        assert_eq!([of(1), of(2)], [vec![(0, 2), (1, 0)], vec![(0, 0), (0, 1), (1, 1)]]);
        assert!(weights_of(Shard { number: 7, of: 7 }, &groups).is_empty());
    }
}
