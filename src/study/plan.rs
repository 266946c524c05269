//! Which weights are read and what is solved through each: adapters opened, paired and grouped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::by_number::refuse_missing_layers;
use super::grouping::{Group, choose_convention, group};
use super::params::{AnalyzeConfig, AnalyzeParams};
use super::shard::{Others, divide, record};
use super::training::{PlannedLog, read_logs};
use crate::checkpoint::{
    Adapter, AdapterLayer, BaseModel, FoundAdapter, InputRecord, PairedModule, base_name_warning, find_adapters, find_base,
    match_init, pair_with_base,
};
use crate::error::{Error, Result, escape};
use crate::record::ShardRecord;

/// Everything opened and matched, nothing read yet.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) bases: Vec<BaseModel>,
    pub(super) adapters: Vec<PlannedAdapter>,
    pub(super) groups: Vec<Group>,
    /// What the adapters' trainings logged.
    pub(super) logs: Vec<PlannedLog>,
    /// Adapter name and text.
    pub(super) warnings: Vec<(String, String)>,
    /// Adapters that were passed over, and why (`--keep-going`).
    pub(super) skipped: Vec<(String, Error)>,
    /// Which part this run's adapters are of all.
    pub(super) shard: Option<ShardRecord>,
}

/// An adapter with the modules that are wanted of it.
pub(super) struct PlannedAdapter {
    pub(super) adapter: Adapter,
    pub(super) base: usize,
    pub(super) modules: Vec<PairedModule>,
    /// The untrained adapter, if one was given.
    pub(super) init: Option<Adapter>,
}

impl Plan {
    pub(super) fn make(config: &AnalyzeConfig) -> Result<Self> {
        let given = config.params();
        let found = find_adapters(&given.paths)?;
        let names: Vec<String> = found.iter().map(|f| f.name.clone()).collect();
        let init_dirs = given.init.as_deref().map(|root| match_init(root, &names)).transpose()?;

        let mut plan = Self { shard: Some(record(given.shard, &names)), ..Self::default() };
        let mut known_bases: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let (own, others) = divide(found, given.shard);
        let mut others = Others::new(others, given);
        let mut opened = Vec::with_capacity(own.len());
        for found in own {
            let name = found.name.clone();
            match plan.open(found, given, &mut known_bases) {
                Ok(found) => opened.push(found),
                Err(error) if given.keep_going => plan.skipped.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        plan.refuse_if_empty(opened.len(), given)?;
        refuse_unused_maps(given, &opened, &mut others)?;
        for (adapter, base) in opened {
            let name = adapter.name.clone();
            let init = init_dirs.as_ref().and_then(|dirs| dirs.get(&name));
            match plan.pair(adapter, base, given, init.map(PathBuf::as_path)) {
                Ok(planned) => plan.adapters.push(planned),
                Err(error) if given.keep_going => plan.skipped.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        plan.refuse_if_empty(plan.adapters.len(), given)?;
        plan.refuse_idle_split(given, &mut others)?;
        plan.keep_wanted(config, &mut others)?;
        refuse_missing_layers(&given.grid, &plan.adapters, &mut others)?;
        for planned in std::mem::take(&mut plan.adapters) {
            match planned.check(given) {
                Ok(()) => plan.adapters.push(planned),
                Err(error) if given.keep_going => plan.skipped.push((planned.adapter.name, error)),
                Err(error) => return Err(error),
            }
        }
        plan.refuse_if_empty(plan.adapters.len(), given)?;
        let (logs, warnings) = read_logs(&plan.adapters);
        plan.logs = logs;
        plan.warnings.extend(warnings);
        plan.groups = group(&plan.adapters, given.convention)?;
        Ok(plan)
    }

    /// Where no adapter is left, the error of the first is the study's; of a shard, others may be left.
    fn refuse_if_empty(&self, left: usize, given: &AnalyzeParams) -> Result<()> {
        let none_left = left == 0 && given.shard.is_none();
        let first = self.skipped.iter().min_by(|a, b| a.0.cmp(&b.0)).filter(|_| none_left);
        first.map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// `--split` where nothing is fused.
    fn refuse_idle_split(&self, given: &AnalyzeParams, others: &mut Others<'_>) -> Result<()> {
        let Some(split) = given.pairing.split else { return Ok(()) };
        let is_split =
            |planned: &PlannedAdapter| planned.modules.iter().flat_map(|m| &m.layers).any(|layer| layer.block.is_some());
        if self.adapters.iter().any(is_split) || others.opened().iter().any(is_split) {
            return Ok(());
        }
        let mut modules = self.adapters.iter().chain(others.opened()).flat_map(|adapter| &adapter.modules);
        let name = modules.next().map_or("", |module| module.name.as_str());
        Err(Error::Usage {
            what: format!("--split {}: no module is a fused projection", split.name()),
            hint: Some(format!("fused are c_attn, qkv, Wqkv, W_pack and qkv_proj; the first module here is `{}`", escape(name))),
        })
    }

    /// Opens an adapter and its base, the latter once.
    pub(super) fn open(
        &mut self,
        found: FoundAdapter,
        given: &AnalyzeParams,
        known_bases: &mut BTreeMap<PathBuf, usize>,
    ) -> Result<(Adapter, usize)> {
        let mut adapter = Adapter::open(&found.dir, found.name)?;
        let path = find_base(given.base.as_deref(), &adapter.dir, &adapter.config)?;
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let base = match known_bases.get(&real) {
            Some(&base) => base,
            None => {
                self.bases.push(BaseModel::open(&path)?);
                known_bases.insert(real, self.bases.len() - 1);
                self.bases.len() - 1
            }
        };
        adapter.lay_out(&self.bases[base], given.eq6)?;
        Ok((adapter, base))
    }

    /// Finds the base weight of each of an adapter's layers.
    pub(super) fn pair(
        &mut self,
        adapter: Adapter,
        base: usize,
        given: &AnalyzeParams,
        init: Option<&Path>,
    ) -> Result<PlannedAdapter> {
        let modules = pair_with_base(&adapter, &self.bases[base], &given.pairing)?;
        let named = base_name_warning(&adapter, &self.bases[base]);
        for warning in adapter.warnings.iter().chain(&named) {
            self.warnings.push((adapter.name.clone(), warning.clone()));
        }
        let mut init = init.map(|dir| Adapter::open(dir, adapter.name.clone())).transpose()?;
        if let Some(init) = &mut init {
            init.lay_out(&self.bases[base], given.eq6)?;
        }
        Ok(PlannedAdapter { adapter, base, modules, init })
    }

    /// Drops the modules and layers that were not asked for; what no adapter of any shard has is refused.
    fn keep_wanted(&mut self, config: &AnalyzeConfig, others: &mut Others<'_>) -> Result<()> {
        let has = |adapters: &[PlannedAdapter], name: &str| adapters.iter().any(|a| a.modules.iter().any(|m| m.name == name));
        for name in &config.params().modules {
            if !has(&self.adapters, name) && !has(others.opened(), name) {
                let all = self.adapters.iter().chain(others.opened());
                let mut names: Vec<&str> = all.flat_map(|a| a.modules.iter().map(|m| m.name.as_str())).collect();
                names.sort_unstable();
                names.dedup();
                return Err(Error::Usage {
                    what: format!("--modules {}: no adapter has a module of that name", escape(name)),
                    hint: Some(format!("the modules are {}", escape(&names.join(", ")))),
                });
            }
        }
        for planned in &mut self.adapters {
            for module in &mut planned.modules {
                module.layers.retain(|layer| config.wants(&module.name, layer.adapter_layer.layer));
            }
            planned.modules.retain(|m| !m.layers.is_empty());
        }
        let wants_any = |planned: &PlannedAdapter| {
            let mut layers = planned.modules.iter().flat_map(|m| m.layers.iter().map(move |l| (m, l)));
            layers.any(|(module, layer)| config.wants(&module.name, layer.adapter_layer.layer))
        };
        if self.adapters.iter().all(|a| a.modules.is_empty()) && config.layers.is_some() && !others.opened().iter().any(wants_any)
        {
            return Err(Error::usage(format!(
                "--layers {}: no module has such a layer",
                escape(config.params().layers.as_deref().unwrap_or_default())
            )));
        }
        Ok(())
    }

    /// Bytes read so far from the files of weights, and bytes in those files.
    pub(super) fn bytes_read(&self) -> (u64, u64) {
        let adapters = self.adapters.iter().flat_map(|a| std::iter::once(&a.adapter).chain(&a.init)).map(Adapter::bytes_read);
        let all = self.bases.iter().map(BaseModel::bytes_read).chain(adapters);
        all.fold((0, 0), |sum, (read, held)| (sum.0 + read, sum.1 + held))
    }

    /// The headers and configurations that were read.
    pub(super) fn header_records(&self) -> Vec<InputRecord> {
        let adapters =
            self.adapters.iter().flat_map(|a| std::iter::once(&a.adapter).chain(&a.init)).flat_map(Adapter::opening_records);
        self.bases.iter().flat_map(BaseModel::header_records).chain(adapters).collect()
    }
}

/// `--map` where no adapter of any shard has such a path.
fn refuse_unused_maps(given: &AnalyzeParams, opened: &[(Adapter, usize)], others: &mut Others<'_>) -> Result<()> {
    fn paths(adapter: &Adapter) -> impl Iterator<Item = &str> + Clone {
        adapter.modules.iter().flat_map(|module| &module.layers).map(|layer| layer.key.path.as_str())
    }
    let own = opened.iter().flat_map(|(adapter, _)| paths(adapter));
    match given.pairing.refuse_unused(own.clone()) {
        Err(_) if given.shard.is_some() => {
            let elsewhere = others.opened().iter().flat_map(|planned| paths(&planned.adapter));
            given.pairing.refuse_unused(own.chain(elsewhere))
        }
        done => done,
    }
}

impl PlannedAdapter {
    /// Whether it can be analysed as asked: conventions fit, and every layer has its untrained counterpart of the same shape.
    fn check(&self, given: &AnalyzeParams) -> Result<()> {
        for module in &self.modules {
            choose_convention(self, module, given.convention)?;
        }
        let Some(init) = &self.init else { return Ok(()) };
        for layer in self.modules.iter().flat_map(|m| &m.layers) {
            let wanted = &layer.adapter_layer;
            let what = format!("the untrained adapter's `{}`", escape(&wanted.key.path));
            let shape = |l: &AdapterLayer| format!("{} in, {} out", l.d_in, l.d_out);
            match init_layer(init, wanted) {
                None => return Err(Error::mismatch(init.weights_file(), what, shape(wanted), "none")),
                Some(l) if (l.d_in, l.d_out) != (wanted.d_in, wanted.d_out) => {
                    return Err(Error::mismatch(init.weights_file(), what, shape(wanted), shape(l)));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// The untrained counterpart of a layer.
pub(super) fn init_layer<'a>(init: &'a Adapter, wanted: &AdapterLayer) -> Option<&'a AdapterLayer> {
    init.modules.iter().flat_map(|m| &m.layers).find(|l| l.key.path == wanted.key.path)
}
