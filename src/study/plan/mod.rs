//! The plan of a study: which weights are read and what is solved through each, after adapters are opened, paired and grouped.

mod adapter;
mod asked;
mod grouping;
mod pass;
mod training;

use std::path::{Path, PathBuf};

use super::params::{AnalyzeConfig, AnalyzeParams};
use crate::checkpoint::{Adapter, BaseModel, FoundAdapter, find_adapters, match_init};
use crate::error::{Error, Result};
use crate::inputs::{LaidOut, Opener};
use crate::record::InputRecord;
pub(crate) use adapter::{PlannedAdapter, untrained_layer};
use asked::{keep_wanted, refuse_idle_split, refuse_missing_pairs, refuse_unused_maps};
use grouping::group;
pub(crate) use grouping::{Group, Member, equation_of, equations, only_rank};
pub(crate) use pass::Pass;
use training::{PlannedLog, read_logs};

/// Everything opened and matched, nothing read yet.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) bases: Vec<BaseModel>,
    pub(crate) adapters: Vec<PlannedAdapter>,
    pub(crate) groups: Vec<Group>,
    /// The training logs of the adapters.
    pub(crate) logs: Vec<PlannedLog>,
    /// Warnings, as adapter name and text.
    pub(crate) warnings: Vec<(String, String)>,
    /// Adapters that were skipped, and why (`--keep-going`).
    pub(crate) skipped: Vec<(String, Error)>,
    /// The names of all adapters that were found.
    pub(crate) found: Vec<String>,
}

impl Plan {
    /// Opens, pairs and groups, in steps over all adapters: mistakes in the options are reported before those in an adapter's
    /// layers. With `--keep-going` an adapter that fails a step is skipped.
    ///
    /// # Errors
    /// What is wrong with the inputs, or with the options for these inputs.
    pub(crate) fn make(config: &AnalyzeConfig) -> Result<Self> {
        let given = config.params();
        let found = find_adapters(&given.paths)?;
        let names: Vec<String> = found.iter().map(|f| f.name.clone()).collect();
        let init_dirs = given.init.as_deref().map(|root| match_init(root, &names)).transpose()?;
        let init_of = |name: &str| init_dirs.as_ref().and_then(|dirs| dirs.get(name)).map(PathBuf::as_path);

        let mut plan = Self { found: names.clone(), ..Self::default() };
        let mut opener = Opener::new(given.base.as_deref(), given.pairing.clone(), given.eq6);
        let mut laid_out = Vec::with_capacity(found.len());
        for FoundAdapter { name, dir } in found {
            let opened = Adapter::open(&dir, name.clone()).and_then(|adapter| opener.lay_out(adapter));
            laid_out.extend(plan.unless_skipped(opened, &name, given)?);
        }
        plan.refuse_if_empty(laid_out.len())?;
        refuse_unused_maps(&opener, &laid_out)?;
        for laid_out in laid_out {
            let name = laid_out.adapter.name.clone();
            let paired = plan.pair(&opener, laid_out, init_of(&name));
            let paired = plan.unless_skipped(paired, &name, given)?;
            plan.adapters.extend(paired);
        }
        plan.refuse_if_empty(plan.adapters.len())?;
        refuse_idle_split(&given.pairing, &plan.adapters)?;
        keep_wanted(&config.selection, &mut plan.adapters)?;
        refuse_missing_pairs(&given.grid, &plan.adapters)?;
        for planned in std::mem::take(&mut plan.adapters) {
            let (name, checked) = (planned.adapter.name.clone(), planned.check(given.convention));
            let checked = plan.unless_skipped(checked.map(|()| planned), &name, given)?;
            plan.adapters.extend(checked);
        }
        plan.refuse_if_empty(plan.adapters.len())?;
        plan.bases = opener.into_bases();
        let (logs, warnings) = read_logs(&plan.adapters);
        plan.logs = logs;
        plan.warnings.extend(warnings);
        plan.groups = group(&plan.adapters, given.convention)?;
        Ok(plan)
    }

    /// The result of a step for an adapter; none where the step failed and the failure was recorded (`--keep-going`).
    fn unless_skipped<T>(&mut self, step: Result<T>, adapter: &str, given: &AnalyzeParams) -> Result<Option<T>> {
        match step {
            Ok(done) => Ok(Some(done)),
            Err(error) if given.keep_going => {
                self.skipped.push((adapter.to_owned(), error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// If no adapter is left, the error of the first is the study's error.
    fn refuse_if_empty(&self, left: usize) -> Result<()> {
        let first = self.skipped.iter().min_by(|a, b| a.0.cmp(&b.0)).filter(|_| left == 0);
        first.map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// Finds the base weight of each of an adapter's layers, and opens its untrained adapter.
    fn pair(&mut self, opener: &Opener, laid_out: LaidOut, init: Option<&Path>) -> Result<PlannedAdapter> {
        let mut opened = opener.pair(laid_out)?;
        let name = &opened.adapter.name;
        self.warnings.extend(std::mem::take(&mut opened.warnings).into_iter().map(|warning| (name.clone(), warning)));
        let init = init.map(|dir| opener.open_untrained(dir, &opened)).transpose()?;
        Ok(PlannedAdapter {
            adapter: opened.adapter,
            base: opened.base,
            modules: opened.modules,
            unusable: opened.unusable,
            init,
        })
    }

    /// Bytes read so far from the files of weights, and bytes in those files.
    pub(crate) fn bytes_read(&self) -> (u64, u64) {
        let adapters = self.adapters.iter().flat_map(PlannedAdapter::checkpoints).map(Adapter::bytes_read);
        let all = self.bases.iter().map(BaseModel::bytes_read).chain(adapters);
        all.fold((0, 0), |sum, (read, held)| (sum.0 + read, sum.1 + held))
    }

    /// The headers and configurations that were read.
    pub(crate) fn header_records(&self) -> Vec<InputRecord> {
        let adapters = self.adapters.iter().flat_map(PlannedAdapter::checkpoints).flat_map(Adapter::opening_records);
        self.bases.iter().flat_map(BaseModel::header_records).chain(adapters).collect()
    }
}
