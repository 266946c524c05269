//! The pipeline: open and pair the checkpoints, factorise each W0 once, solve, compare, and give the rows of all tables.
//!
//! It joins `checkpoint` and the mathematics, which do not know each other. It writes nothing and prints nothing.

mod compare;
mod context;
mod decompositions;
mod found;
mod initial;
mod inspect;
mod params;
mod plan;
mod related;
mod schedule;
mod shard;
mod solve;
mod solved_weights;
mod stopwatch;
mod update_tables;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::error::{Error, Result, escape};
use crate::inputs::{Progress, by_module};
use crate::numerals::few;
use crate::record::{AdapterRecord, InputRecord, ShardRecord};
use crate::table::{AcrossRow, SubspaceRow, Tables};
use crate::terms::StrictControl;
use compare::{GroupControls, compare_pass};
use context::Context;
use decompositions::Decompositions;
pub use found::{Division, ShardStudy, Study};
pub use inspect::{
    InspectParams, InspectedAdapter, InspectedBase, InspectedLayer, InspectedModule, Inspection, Parameters, Refusal,
    SkippedModule, inspect,
};
pub use params::{AnalyzeConfig, AnalyzeParams};
use plan::{Pass, Plan, PlannedAdapter};
use related::{Expectations, GroupWeights, finish_group, related_rows};
use schedule::Schedule;
pub use shard::Shard;
use solve::{LayerJob, SolvedLayer, across_rows, run_jobs, solve_layer};
pub use solved_weights::SolvedFiles;
use solved_weights::{SolvedWeight, all_weights, file_of, read_in_common, record, weights_of};
use stopwatch::Clock;

/// Opened and checked inputs: everything that can be refused without computing has been checked.
pub struct Prepared {
    config: AnalyzeConfig,
    plan: Plan,
    schedule: Schedule,
    decompositions: Decompositions,
    /// What shards have solved.
    solved: Option<SolvedFiles>,
    started: Instant,
    opening: Duration,
}

/// Opens the checkpoints and pairs them, reading headers only, and divides the work so that it fits into memory, for the rayon pool it is called in.
///
/// # Errors
/// Whatever is wrong with the inputs (docs/spec.md, section 4: exit codes 2 to 5); [`Error::Resource`] if memory cannot suffice.
pub fn prepare(config: AnalyzeConfig) -> Result<Prepared> {
    prepare_with(config, None)
}

/// Like [`prepare`], for a study whose weights were solved through by its shards: no weight is read.
///
/// # Errors
/// Those of [`prepare`]; [`Error::Mismatch`] if a weight is missing.
pub fn prepare_merged(config: AnalyzeConfig, solved: SolvedFiles) -> Result<Prepared> {
    prepare_with(config, Some(solved))
}

fn prepare_with(config: AnalyzeConfig, solved: Option<SolvedFiles>) -> Result<Prepared> {
    let started = Instant::now();
    let plan = Plan::make(&config)?;
    if let Some(solved) = &solved {
        solved.check(&plan.groups)?;
    }
    let threads = rayon::current_num_threads();
    let limit = config.memory_limit(threads);
    let clock = Clock::default();
    let context = Context::new(&config, &plan, &clock);
    let decompositions = Decompositions::plan(&context);
    let schedule = match (config.params().shard, &solved) {
        (Some(_), _) => Schedule::shard(&context, &decompositions, threads, limit)?,
        (None, solved) => Schedule::make(&context, &decompositions, solved.is_some(), threads, limit)?,
    };
    Ok(Prepared { config, plan, schedule, decompositions, solved, started, opening: started.elapsed() })
}

impl Prepared {
    /// The directories that the study reads from: nothing may be written over them.
    #[must_use]
    pub fn input_dirs(&self) -> Vec<PathBuf> {
        let adapters = self.plan.adapters.iter().flat_map(PlannedAdapter::checkpoints).map(|adapter| adapter.dir.clone());
        self.plan.bases.iter().map(|b| b.path().to_owned()).chain(adapters).collect()
    }

    /// Warnings that are known before the computation; adapters with the same warning share a line.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut lines: Vec<(&str, Vec<&str>)> = Vec::new();
        for (adapter, text) in &self.plan.warnings {
            match lines.iter_mut().find(|(known, _)| known == text) {
                Some((_, adapters)) => adapters.push(adapter),
                None => lines.push((text, vec![adapter])),
            }
        }
        let of_adapters = lines.into_iter().map(|(text, adapters)| format!("{}: {text}", escape(&few(&adapters))));
        // Where none was wanted, nothing is missing.
        let wanted = self.config.params().strict_control != StrictControl::Never;
        let missing = if wanted { self.decompositions.warning(&self.plan.groups) } else { None };
        of_adapters.chain(missing).collect()
    }

    /// Modules of adapters that are skipped because they cannot be used, and why.
    #[must_use]
    pub fn unusable(&self) -> Vec<(String, Error)> {
        let of_adapter = |planned: &PlannedAdapter| {
            let name = planned.adapter.name.clone();
            by_module(&planned.unusable).into_iter().map(move |(count, module, error)| {
                let layers = if count > 1 { format!(" in {count} layers") } else { String::new() };
                (format!("{name}: module `{module}`{layers}"), error)
            })
        };
        self.plan.adapters.iter().flat_map(of_adapter).collect()
    }

    /// Adapters whose initialisation rewrote W0, with its name: the base weights given are not those that were frozen.
    #[must_use]
    pub fn rewritten_bases(&self) -> Vec<(&str, &str)> {
        self.plan.adapters.iter().filter_map(|a| Some((a.adapter.name.as_str(), a.adapter.config.rewritten_base()?))).collect()
    }

    /// Which part of the study this run does.
    #[must_use]
    pub fn shard(&self) -> ShardRecord {
        record(self.config.params().shard, &self.plan)
    }

    /// The headers and configurations that were read.
    #[must_use]
    pub fn header_records(&self) -> Vec<InputRecord> {
        self.plan.header_records()
    }

    fn analysed(&self, adapter: usize) -> AdapterRecord {
        let planned = &self.plan.adapters[adapter];
        let base = &self.plan.bases[planned.base];
        AdapterRecord::new(&planned.adapter.name, &planned.adapter.dir, base.path(), base.display_name())
    }

    /// How the work was divided so that it fits into memory.
    #[must_use]
    pub fn division(&self) -> Division {
        let own = self.config.params().shard.map(|shard| weights_of(shard, &self.plan.groups).len());
        Division {
            weights: own.unwrap_or_else(|| all_weights(&self.plan.groups).count()),
            readings: own.unwrap_or_else(|| self.schedule.readings(&self.plan.groups)),
            rounds: self.schedule.rounds.len(),
            workers: self.schedule.workers,
        }
    }

    /// Adapters that were skipped, by name, and why (`--keep-going`).
    #[must_use]
    pub fn skipped(&self) -> &[(String, Error)] {
        &self.plan.skipped
    }

    /// Reads, solves and compares, on the rayon pool it is called in.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf in a weight, [`Error::Missing`] if an input changes during the run.
    pub fn run(self) -> Result<Study> {
        self.run_with(&())
    }

    /// Like [`Self::run`]; `progress` is told of every base weight that is done.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub fn run_with(self, progress: &dyn Progress) -> Result<Study> {
        let clock = Clock::default();
        let context = Context::new(&self.config, &self.plan, &clock);
        progress.begin(self.schedule.readings(&self.plan.groups));
        let mut results = PassResults::default();
        // Both outlive the rounds, because draws of one pass are compared with the members of a later one.
        let controls: Vec<Mutex<GroupControls>> = self.plan.groups.iter().map(|_| Mutex::default()).collect();
        let mut weights: Vec<GroupWeights> = self.plan.groups.iter().map(GroupWeights::unread).collect();
        let mut rounds = self.schedule.rounds.iter().peekable();
        while let Some(round) = rounds.next() {
            self.run_round(&context, round, (&controls, &weights), progress, &mut results)?;
            for number in round.iter().map(|pass| pass.group) {
                // A group's passes are in consecutive rounds.
                let goes_on = rounds.peek().is_some_and(|next| next.iter().any(|pass| pass.group == number));
                if !goes_on {
                    let group = &self.plan.groups[number];
                    let known = std::mem::replace(&mut weights[number], GroupWeights::unread(group));
                    let PassResults { failed, expectations, subspaces, .. } = &mut results;
                    subspaces.extend(finish_group(
                        &context,
                        group,
                        &known,
                        |adapter| !failed.contains_key(&adapter),
                        expectations,
                    )?);
                }
            }
        }
        let failed = std::mem::take(&mut results.failed);
        let skipped: Vec<(String, Error)> =
            failed.iter().map(|(adapter, error)| (self.plan.adapters[*adapter].adapter.name.clone(), error.clone())).collect();
        let none_left = failed.len() == self.plan.adapters.len();
        if let Some((_, error)) = skipped.first().filter(|_| none_left) {
            return Err(error.clone());
        }
        let expectations = std::mem::take(&mut results.expectations);
        results.modules.iter_mut().for_each(|(place, tables)| expectations.write(*place, tables));
        let warnings = std::mem::take(&mut results.warnings);
        let subspaces = std::mem::take(&mut results.subspaces);
        let subspaces = self.config.params().cuts.is_some().then_some(subspaces);
        let logs: Vec<_> = self.plan.logs.iter().filter(|log| !failed.contains_key(&log.adapter)).collect();
        let mut inputs = self.plan.header_records();
        inputs.append(&mut results.inputs);
        inputs.extend(logs.iter().map(|log| log.record.clone()));
        inputs.sort();
        inputs.dedup();
        let mut tables = results.into_tables(&context, &failed, &skipped);
        tables.subspaces = subspaces;
        for log in logs {
            tables.training.get_or_insert_default().extend(log.rows.iter().cloned());
        }
        let mut timings = vec![("analysis", self.started.elapsed()), ("open", self.opening)];
        timings.extend(clock.readings());
        let left = (0..self.plan.adapters.len()).filter(|adapter| !failed.contains_key(adapter));
        let adapters = left.map(|adapter| self.analysed(adapter)).collect();
        let (bytes_read, bytes_held) = self.plan.bytes_read();
        Ok(Study { tables, inputs, timings, bytes_read, bytes_held, adapters, warnings, skipped })
    }

    /// Reads and solves through the base weights of the study's shard, and gives each to `keep` as the name and bytes of a file; nothing is compared.
    ///
    /// # Errors
    /// Those of [`Self::run`] and of `keep`.
    pub fn run_shard(self, progress: &dyn Progress, keep: &(dyn Fn(&str, &[u8]) -> Result<()> + Sync)) -> Result<ShardStudy> {
        let clock = Clock::default();
        let context = Context::new(&self.config, &self.plan, &clock);
        let groups = &self.plan.groups;
        let own = self.config.params().shard.map_or_else(|| all_weights(groups).collect(), |shard| weights_of(shard, groups));
        progress.begin(own.len());
        let solved = run_jobs(&own, self.schedule.workers, |&(number, index), workspace| {
            let everything = Pass {
                group: number,
                members: 0..groups[number].members.len(),
                draws: 0..context.draws_of(&groups[number]),
                across: false,
                within: true,
            };
            let solved = SolvedWeight::solve(&context, (&everything, index, self.decompositions.of(number)), workspace)?;
            keep(&file_of((number, index)), &solved.bytes()?)?;
            progress.step();
            Ok(solved.into_records())
        })?;
        let mut inputs = self.plan.header_records();
        inputs.extend(read_in_common(&context)?);
        let mut failed: BTreeMap<usize, Error> = BTreeMap::new();
        for (of_weight, errors) in solved {
            inputs.extend(of_weight);
            for (adapter, error) in errors {
                failed.entry(adapter).or_insert(error);
            }
        }
        inputs.sort();
        inputs.dedup();
        let mut timings = vec![("analysis", self.started.elapsed()), ("open", self.opening)];
        timings.extend(clock.readings());
        let skipped = failed.into_iter().map(|(adapter, error)| (self.plan.adapters[adapter].adapter.name.clone(), error));
        let adapters = (0..self.plan.adapters.len()).map(|adapter| self.analysed(adapter)).collect();
        let (bytes_read, bytes_held) = self.plan.bytes_read();
        Ok(ShardStudy { inputs, timings, bytes_read, bytes_held, adapters, skipped: skipped.collect() })
    }

    /// Solves through the weights of a round's passes, then compares each pass's layers.
    fn run_round(
        &self,
        context: &Context<'_>,
        round: &[Pass],
        (controls, weights): (&[Mutex<GroupControls>], &[GroupWeights]),
        progress: &dyn Progress,
        results: &mut PassResults,
    ) -> Result<()> {
        let groups = &context.plan.groups;
        let job = |pass, index| {
            let &Pass { group, .. } = pass;
            let known = &weights[group].known[index];
            LayerJob { pass, index, decomposed: self.decompositions.of(group), known, for_later: false }
        };
        let jobs: Vec<LayerJob<'_>> =
            round.iter().flat_map(|pass| (0..groups[pass.group].layers.len()).map(move |index| job(pass, index))).collect();
        let solved = run_jobs(&jobs, self.schedule.workers, |of, workspace| {
            let solved = match &self.solved {
                Some(solved) => solved.load(context, (of.pass, of.index), of.known)?,
                None => solve_layer(context, of, workspace)?,
            };
            let group = &groups[of.pass.group];
            let across =
                if of.pass.across { across_rows(context, group, of.index, &solved, of.known.get())? } else { Vec::new() };
            progress.step();
            Ok((solved, across))
        })?;
        let mut solved = solved.into_iter();
        let mut passes: Vec<(&Pass, Vec<SolvedLayer>)> = Vec::with_capacity(round.len());
        for pass in round {
            let mut layers = Vec::with_capacity(groups[pass.group].layers.len());
            for (index, (mut layer, across)) in solved.by_ref().take(layers.capacity()).enumerate() {
                results.inputs.append(&mut layer.inputs);
                for (adapter, error) in layer.failed.drain(..) {
                    results.failed.entry(adapter).or_insert(error);
                }
                if pass.across {
                    results.warnings.extend(layer.warning.take());
                    results.across.insert((pass.group, index), across);
                }
                layers.push(layer);
            }
            passes.push((pass, layers));
        }
        passes.retain(|(pass, _)| pass.within);
        let compared: Result<Vec<_>> = passes
            .par_iter()
            .map(|(pass, layers)| {
                let mut controls = controls[pass.group].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                compare_pass(context, pass, layers, &mut controls)
            })
            .collect();
        results.modules.extend(compared?.into_iter().flatten());
        for (pass, layers) in passes.iter().filter(|_| context.relates()) {
            for (place, tables) in related_rows(context, pass, layers, &weights[pass.group])? {
                results.modules.entry(place).or_default().append(vec![tables]);
            }
        }
        Ok(())
    }
}

/// The results of the passes so far.
#[derive(Default)]
struct PassResults {
    /// The rows by adapter and module.
    modules: BTreeMap<(usize, usize), Tables>,
    /// The rows of `across.csv` by group and layer.
    across: BTreeMap<(usize, usize), Vec<AcrossRow>>,
    inputs: Vec<InputRecord>,
    /// Adapters that failed, each with the first error in the order of the work.
    failed: BTreeMap<usize, Error>,
    /// The rows of `subspaces.csv`.
    subspaces: Vec<SubspaceRow>,
    expectations: Expectations,
    /// What was noticed on the way.
    warnings: Vec<String>,
}

impl PassResults {
    /// All rows of the adapters that are left, by adapter name and by module within each: the order does not depend on the grouping.
    fn into_tables(self, context: &Context<'_>, failed: &BTreeMap<usize, Error>, skipped: &[(String, Error)]) -> Tables {
        let grid = (!context.config.params().grid.is_empty()).then(Vec::new);
        let mut tables = Tables { measures: context.measures().then(Vec::new), grid, ..Tables::default() };
        let left = self.modules.into_iter().filter(|((adapter, _), _)| !failed.contains_key(adapter));
        tables.append(left.map(|(_, module)| module).collect());
        if context.across() {
            let gone = |name: &String| skipped.iter().any(|(skipped, _)| skipped == name);
            let rows = self.across.into_values().flatten();
            tables.across = Some(rows.filter(|row| !gone(&row.adapter_a) && !gone(&row.adapter_b)).collect());
        }
        tables
    }
}
