//! The pipeline: open and pair the checkpoints, factorise each W0 once, solve, compare, and give the rows of all tables.
//!
//! It joins `checkpoint` and the mathematics, which do not know each other. It writes nothing and prints nothing.

mod across;
mod by_number;
mod context;
mod drawn;
mod grid;
mod grouping;
mod inspect;
mod layer;
mod layer_matrix;
mod matrices;
mod measured;
mod memory;
mod params;
mod plan;
mod schedule;
mod shard;
mod stopwatch;
mod stored;
mod training;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rayon::prelude::*;

pub use inspect::{InspectedAdapter, InspectedBase, InspectedLayer, InspectedModule, Inspection, Parameters, Refusal, inspect};
pub use memory::parse_bytes;
pub use params::{AnalyzeConfig, AnalyzeParams};
pub use shard::{Shard, Whole};
// What the commands on CondLoRA share with the analysis.
pub(crate) use layer::columns_together;
pub(crate) use layer_matrix::{LayerMatrix, Seen, cell_status, has_phi};
pub(crate) use memory::{blas_cannot_start, check_address_space, default_limit, show as show_bytes};
pub(crate) use params::{LayerSet, check_ij};
pub(crate) use stored::{FactorPair, StoredWeight};

use crate::checkpoint::InputRecord;
use crate::error::{Error, Result, escape};
use crate::table::{AcrossRow, Tables};
use context::Context;
use drawn::GroupControls;
use grid::compare_pass;
use layer::{SolvedLayer, solve_layer};
use plan::Plan;
use schedule::{Pass, Schedule};
use stopwatch::Clock;
use workers::run_jobs;

/// What a study found.
#[derive(Debug)]
pub struct Study {
    /// All rows, in table order.
    pub tables: Tables,
    /// Every header and tensor that was read, with its hash.
    pub inputs: Vec<InputRecord>,
    /// Seconds by stage: `analysis` on the clock, the others summed over threads.
    pub timings: Vec<(&'static str, Duration)>,
    /// Bytes of headers and tensors read from weight files.
    pub bytes_read: u64,
    /// Bytes in those files.
    pub bytes_held: u64,
    /// The adapters analysed, by name, and what each was held against.
    pub adapters: Vec<Analysed>,
    /// Adapters that were passed over while they were read, by name, and why (`--keep-going`).
    pub skipped: Vec<(String, Error)>,
}

/// An adapter of a study, and its base model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysed {
    /// The adapter's name in the tables.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The base model's directory or file, links resolved.
    pub base: PathBuf,
    /// What the base model is called.
    pub base_name: String,
}

/// Opened and checked inputs: everything that can be refused without computing has been.
pub struct Prepared<'a> {
    config: &'a AnalyzeConfig,
    plan: Plan,
    schedule: Schedule,
    started: Instant,
    opening: Duration,
}

/// How the work of a study was divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// Base weights.
    pub weights: usize,
    /// How often one is read and factorised: as many times as there are weights, if memory suffices.
    pub readings: usize,
    /// Rounds, one after the other; what a round gave is dropped, but for rows, before the next.
    pub waves: usize,
    /// Weights in memory at a time.
    pub workers: usize,
}

/// Hears how far a study has come.
pub trait Progress: Sync {
    /// The number of base weights to solve through.
    fn begin(&self, total: usize);
    /// One more is done.
    fn step(&self);
}

/// Nobody listens.
impl Progress for () {
    fn begin(&self, _: usize) {}
    fn step(&self) {}
}

/// Opens the checkpoints and pairs them, reading headers only, and divides the work so that it fits into memory, for the rayon pool it is called in.
///
/// # Errors
/// Whatever is wrong with the inputs (SPEC section 4: exit codes 2 to 5); [`Error::Resource`] if memory cannot suffice.
pub fn prepare(config: &AnalyzeConfig) -> Result<Prepared<'_>> {
    prepare_with(config, Schedule::make)
}

/// As [`prepare`] for a study that only compares adapters with one another: its tables have no rows but those of `across.csv`.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_across(config: &AnalyzeConfig) -> Result<Prepared<'_>> {
    prepare_with(config, Schedule::across_only)
}

fn prepare_with(
    config: &AnalyzeConfig,
    divide: impl FnOnce(&Context<'_>, usize, Option<u64>) -> Result<Schedule>,
) -> Result<Prepared<'_>> {
    let started = Instant::now();
    let plan = Plan::make(config)?;
    let limit = config.params().memory_limit.or_else(|| memory::default_limit(rayon::current_num_threads()));
    let clock = Clock::default();
    let schedule = divide(&Context::new(config, &plan, &clock), rayon::current_num_threads(), limit)?;
    Ok(Prepared { config, plan, schedule, started, opening: started.elapsed() })
}

impl Prepared<'_> {
    /// The directories that the study reads from: nothing may be written over them.
    #[must_use]
    pub fn input_dirs(&self) -> Vec<PathBuf> {
        let adapters = self.plan.adapters.iter().flat_map(|a| std::iter::once(&a.adapter).chain(&a.init)).map(|a| a.dir.clone());
        self.plan.bases.iter().map(|b| b.path().to_owned()).chain(adapters).collect()
    }

    /// What the user should know, known before the computation; adapters with the same warning share a line.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut lines: Vec<(&str, Vec<&str>)> = Vec::new();
        for (adapter, text) in &self.plan.warnings {
            match lines.iter_mut().find(|(known, _)| known == text) {
                Some((_, adapters)) => adapters.push(adapter),
                None => lines.push((text, vec![adapter])),
            }
        }
        lines.into_iter().map(|(text, adapters)| format!("{}: {text}", escape(&list(&adapters)))).collect()
    }

    /// Adapters whose initialisation rewrote W0, with its name: the base weights given are not those that were frozen.
    #[must_use]
    pub fn rewritten_bases(&self) -> Vec<(&str, &str)> {
        self.plan.adapters.iter().filter_map(|a| Some((a.adapter.name.as_str(), a.adapter.config.rewritten_base()?))).collect()
    }

    /// All adapters, of which those of a shard are a part.
    #[must_use]
    pub fn whole(&self) -> Option<&Whole> {
        self.plan.whole.as_ref()
    }

    fn analysed(&self, adapter: usize) -> Analysed {
        let planned = &self.plan.adapters[adapter];
        let base = &self.plan.bases[planned.base];
        Analysed {
            name: planned.adapter.name.clone(),
            dir: planned.adapter.dir.clone(),
            base: base.path().canonicalize().unwrap_or_else(|_| base.path().to_owned()),
            base_name: base.display_name().to_owned(),
        }
    }

    /// How the work was divided so that it fits into memory.
    #[must_use]
    pub fn division(&self) -> Division {
        Division {
            weights: self.plan.groups.iter().map(|group| group.layers.len()).sum(),
            readings: self.schedule.jobs(&self.plan.groups),
            waves: self.schedule.waves.len(),
            workers: self.schedule.workers,
        }
    }

    /// Adapters that were passed over, by name, and why (`--keep-going`).
    #[must_use]
    pub fn skipped(&self) -> &[(String, Error)] {
        &self.plan.skipped
    }

    /// Reads, solves and compares, on the rayon pool it is called in.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf in a weight, [`Error::Missing`] if an input changes meanwhile.
    pub fn run(self, progress: &dyn Progress) -> Result<Study> {
        let clock = Clock::default();
        let context = Context::new(self.config, &self.plan, &clock);
        progress.begin(self.schedule.jobs(&self.plan.groups));
        let mut found = Found { inputs: self.plan.header_records(), ..Default::default() };
        let controls: Vec<Mutex<GroupControls>> = self.plan.groups.iter().map(|_| Mutex::default()).collect();
        for wave in &self.schedule.waves {
            run_wave(&context, wave, self.schedule.workers, &controls, progress, &mut found)?;
        }
        let Found { members, across, mut inputs, failed } = found;
        let skipped: Vec<(String, Error)> =
            failed.iter().map(|(adapter, error)| (self.plan.adapters[*adapter].adapter.name.clone(), error.clone())).collect();
        let none_left = failed.len() == self.plan.adapters.len() && self.config.params().shard.is_none();
        if let Some((_, error)) = skipped.first().filter(|_| none_left) {
            return Err(error.clone());
        }
        let mut tables = Tables::default();
        tables.similarity.reserve_exact(members.values().map(|member| member.similarity.len()).sum());
        tables.conversion.reserve_exact(members.values().map(|member| member.conversion.len()).sum());
        if context.measures() {
            let rows = members.values().map(|member| member.measures.as_ref().map_or(0, Vec::len)).sum();
            tables.measures = Some(Vec::with_capacity(rows));
        }
        if !self.config.params().grid.is_empty() {
            tables.grid = Some(Vec::new());
        }
        // Adapters are in the order of their names and modules within each, whatever the grouping was.
        for ((adapter, _), member) in members {
            if !failed.contains_key(&adapter) {
                tables.summary.extend(member.summary);
                tables.similarity.extend(member.similarity);
                tables.conversion.extend(member.conversion);
                tables.spectrum.extend(member.spectrum);
                if let (Some(all), Some(rows)) = (&mut tables.measures, member.measures) {
                    all.extend(rows);
                }
                if let (Some(all), Some(rows)) = (&mut tables.grid, member.grid) {
                    all.extend(rows);
                }
            }
        }
        if context.across() {
            let gone = |name: &String| skipped.iter().any(|(skipped, _)| skipped == name);
            let rows = across.into_values().flatten();
            tables.across = Some(rows.filter(|row| !gone(&row.adapter_a) && !gone(&row.adapter_b)).collect());
        }
        let logs = self.plan.logs.iter().filter(|log| !failed.contains_key(&log.adapter));
        for log in logs {
            inputs.push(log.record.clone());
            tables.training.get_or_insert_default().extend(log.rows.iter().cloned());
        }
        inputs.sort();
        inputs.dedup();
        let mut timings = vec![("analysis", self.started.elapsed()), ("open", self.opening)];
        timings.extend(clock.readings());
        let left = (0..self.plan.adapters.len()).filter(|adapter| !failed.contains_key(adapter));
        let adapters = left.map(|adapter| self.analysed(adapter)).collect();
        let (bytes_read, bytes_held) = self.plan.bytes_read();
        Ok(Study { tables, inputs, timings, bytes_read, bytes_held, adapters, skipped })
    }
}

/// What the passes have given so far.
#[derive(Default)]
struct Found {
    /// By adapter and module.
    members: BTreeMap<(usize, usize), Tables>,
    /// By group and layer.
    across: BTreeMap<(usize, usize), Vec<AcrossRow>>,
    inputs: Vec<InputRecord>,
    /// Adapters that fell out, with the first reason in the order of the work.
    failed: BTreeMap<usize, Error>,
}

/// Solves through the weights of a wave's passes, then compares each pass's layers.
fn run_wave(
    context: &Context<'_>,
    wave: &[Pass],
    workers: usize,
    controls: &[Mutex<GroupControls>],
    progress: &dyn Progress,
    found: &mut Found,
) -> Result<()> {
    let groups = &context.plan.groups;
    let jobs: Vec<(&Pass, usize)> =
        wave.iter().flat_map(|pass| (0..groups[pass.group].layers.len()).map(move |index| (pass, index))).collect();
    let solved = run_jobs(&jobs, workers, |(pass, index), workspace| {
        let solved = solve_layer(context, pass, *index, workspace);
        progress.step();
        solved
    })?;
    let mut solved = solved.into_iter();
    let mut passes: Vec<(&Pass, Vec<SolvedLayer>)> =
        wave.iter().map(|pass| (pass, solved.by_ref().take(groups[pass.group].layers.len()).collect())).collect();
    for (pass, layers) in &mut passes {
        for (index, layer) in layers.iter_mut().enumerate() {
            found.inputs.append(&mut layer.inputs);
            for (adapter, error) in layer.failed.drain(..) {
                found.failed.entry(adapter).or_insert(error);
            }
            if pass.across {
                found.across.insert((pass.group, index), std::mem::take(&mut layer.across));
            }
        }
    }
    let compared: Result<Vec<_>> = passes
        .into_par_iter()
        .filter(|(pass, _)| pass.within)
        .map(|(pass, layers)| {
            let mut controls = controls[pass.group].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            compare_pass(context, pass, &layers, &mut controls)
        })
        .collect();
    found.members.extend(compared?.into_iter().flatten());
    Ok(())
}

/// A few names, and how many more there are.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}
