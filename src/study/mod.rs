//! The pipeline: open and pair the checkpoints, factorise each W0 once, solve, compare, and give the rows of all tables.
//!
//! It joins `checkpoint` and the mathematics, which do not know each other. It writes nothing and prints nothing.

mod grid;
mod layer;
mod params;
mod plan;
mod stopwatch;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rayon::prelude::*;

pub use params::{AnalyzeConfig, AnalyzeParams};

use crate::checkpoint::InputRecord;
use crate::conversion::Workspace;
use crate::error::{Error, Result, escape};
use crate::table::Tables;
use layer::{SolvedLayer, solve_layer};
use params::View;
use plan::{Group, Plan};
use stopwatch::Clock;

/// What a study found.
#[derive(Debug)]
pub struct Study {
    /// All rows, in table order.
    pub tables: Tables,
    /// Every header and tensor that was read, with its hash.
    pub inputs: Vec<InputRecord>,
    /// Seconds by stage: `analysis` on the clock, the others summed over threads.
    pub timings: Vec<(&'static str, Duration)>,
    /// The base model's name, where there is only one.
    pub base_name: Option<String>,
}

/// Opened and checked inputs: everything that can be refused without computing has been.
pub struct Prepared<'a> {
    config: &'a AnalyzeConfig,
    plan: Plan,
    started: Instant,
    opening: Duration,
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

/// Opens the checkpoints and pairs them; reads headers only.
///
/// # Errors
/// Whatever is wrong with the inputs (SPEC section 4: exit codes 2 to 5).
pub fn prepare(config: &AnalyzeConfig) -> Result<Prepared<'_>> {
    let started = Instant::now();
    let plan = Plan::make(config)?;
    Ok(Prepared { config, plan, started, opening: started.elapsed() })
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

    /// Reads, solves and compares, on the rayon pool it is called in.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf in a weight, [`Error::Missing`] if an input changes meanwhile.
    pub fn run(self, progress: &dyn Progress) -> Result<Study> {
        let clock = Clock::default();
        let context = Context { config: self.config, plan: &self.plan, clock: &clock, workspaces: Mutex::default() };
        progress.begin(self.plan.groups.iter().map(|g| g.layers.len()).sum());

        let groups: Result<Vec<_>> = self
            .plan
            .groups
            .par_iter()
            .map(|group| {
                let layers: Result<Vec<SolvedLayer>> = (0..group.layers.len())
                    .into_par_iter()
                    .map(|index| {
                        let solved = context.with_workspace(|workspace| solve_layer(&context, group, index, workspace));
                        progress.step();
                        solved
                    })
                    .collect();
                let mut layers = layers?;
                let inputs: Vec<InputRecord> = layers.iter_mut().flat_map(|l| std::mem::take(&mut l.inputs)).collect();
                Ok((grid::compare_group(&context, group, &layers)?, inputs))
            })
            .collect();

        let mut inputs = self.plan.header_records();
        let mut members = Vec::new();
        for (group, (tables, read)) in self.plan.groups.iter().zip(groups?) {
            inputs.extend(read);
            members.extend(group.members.iter().copied().zip(tables));
        }
        // Adapters are in the order of their names and modules within each, whatever the grouping was.
        members.sort_by_key(|(at, _)| *at);
        let mut tables = Tables::default();
        for (_, member) in members {
            tables.summary.extend(member.summary);
            tables.similarity.extend(member.similarity);
            tables.conversion.extend(member.conversion);
            tables.spectrum.extend(member.spectrum);
        }
        inputs.sort();
        inputs.dedup();
        let mut timings = vec![("analysis", self.started.elapsed()), ("open", self.opening)];
        timings.extend(clock.readings());
        let base_name = match self.plan.bases.as_slice() {
            [base] => Some(base.display_name().to_owned()),
            _ => None,
        };
        Ok(Study { tables, inputs, timings, base_name })
    }
}

/// A few names, and how many more there are.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// What every stage of one run shares.
struct Context<'a> {
    config: &'a AnalyzeConfig,
    plan: &'a Plan,
    clock: &'a Clock,
    workspaces: Mutex<Vec<Workspace>>,
}

impl Context<'_> {
    fn seed(&self) -> u64 {
        self.config.params().seed
    }

    fn draws(&self) -> usize {
        self.config.params().null_draws
    }

    /// The (i, j) compared in a module with these ranks.
    fn pairs_for(&self, ranks: &[usize]) -> Vec<(usize, usize)> {
        let given = &self.config.params().ij;
        if given.is_empty() {
            let smallest = ranks.iter().copied().min().unwrap_or_default();
            return vec![(smallest, smallest)];
        }
        given.clone()
    }

    /// How many vectors of a matrix of this rank can be asked for.
    fn most_vectors(&self, rank: usize) -> usize {
        self.config.params().ij.iter().map(|&(i, j)| i.max(j)).max().map_or(rank, |most| most.min(rank))
    }

    /// The views that the `w0` control has.
    fn drawn_views(&self) -> Vec<View> {
        self.config.views().into_iter().filter(|v| !v.matrix.is_factor()).collect()
    }

    /// The distinct ranks of a group's members at one layer, for which the `w0` control is drawn.
    fn drawn_ranks(&self, group: &Group, index: usize) -> Vec<usize> {
        if self.draws() == 0 || !group.is_grid() || group.layers.len() < 2 || self.drawn_views().is_empty() {
            return Vec::new();
        }
        let mut ranks: Vec<usize> =
            group.members.iter().map(|&(a, m)| self.plan.adapters[a].modules[m].layers[index].adapter_layer.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    /// Runs with a workspace that no other thread has, made or reused.
    fn with_workspace<T>(&self, work: impl FnOnce(&mut Workspace) -> Result<T>) -> Result<T> {
        let poisoned = || Error::Lapack { routine: "workspace", detail: "a worker thread panicked".into() };
        let mut workspace = self.workspaces.lock().map_err(|_| poisoned())?.pop().unwrap_or_default();
        let done = work(&mut workspace);
        self.workspaces.lock().map_err(|_| poisoned())?.push(workspace);
        done
    }
}

impl Group {
    /// Whether the layers can be compared: a module outside any repeated container is one weight without an index.
    fn is_grid(&self) -> bool {
        self.layers.iter().all(|l| l.layer.is_some())
    }
}
