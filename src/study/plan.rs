//! Which weights are read and what is solved through each: adapters opened, paired and grouped.
//!
//! Adapters that use the same base weights for a module form one group, so that each W0 is read and factorised once for all of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::params::{AnalyzeConfig, AnalyzeParams};
use crate::checkpoint::{
    Adapter, AdapterLayer, BaseModel, Block, FoundAdapter, InputRecord, PairedLayer, PairedModule, base_name_warning,
    find_adapters, find_base, match_init, pair_with_base,
};
use crate::error::{Error, Result, escape};
use crate::terms::Convention;

/// Everything opened and matched, nothing read yet.
pub(super) struct Plan {
    pub(super) bases: Vec<BaseModel>,
    pub(super) adapters: Vec<PlannedAdapter>,
    pub(super) groups: Vec<Group>,
    /// Adapter name and text.
    pub(super) warnings: Vec<(String, String)>,
}

/// An adapter with the modules that are wanted of it.
pub(super) struct PlannedAdapter {
    pub(super) adapter: Adapter,
    pub(super) base: usize,
    pub(super) modules: Vec<PairedModule>,
    /// The untrained adapter, if one was given.
    pub(super) init: Option<Adapter>,
}

/// A module of one base, and the adapters that have it with the same layers.
pub(super) struct Group {
    pub(super) base: usize,
    pub(super) convention: Convention,
    pub(super) layers: Vec<GroupLayer>,
    /// (adapter, module) indices into [`Plan::adapters`].
    pub(super) members: Vec<(usize, usize)>,
}

/// A base weight of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupLayer {
    pub(super) layer: Option<u32>,
    pub(super) tensor: String,
    pub(super) transposed: bool,
    pub(super) block: Option<Block>,
    pub(super) d_out: usize,
    pub(super) d_in: usize,
}

impl GroupLayer {
    /// What the random streams of the controls are derived from: the base tensor, and the part of it.
    pub(super) fn stream(&self) -> Cow<'_, str> {
        match &self.block {
            None => Cow::Borrowed(&self.tensor),
            Some(block) => Cow::Owned(format!("{}#{}", self.tensor, block.name)),
        }
    }

    fn of(layer: &PairedLayer) -> Self {
        Self {
            layer: layer.adapter_layer.layer,
            tensor: layer.tensor.clone(),
            transposed: layer.transposed,
            block: layer.block.clone(),
            d_out: layer.d_out,
            d_in: layer.d_in,
        }
    }
}

impl Plan {
    pub(super) fn make(config: &AnalyzeConfig) -> Result<Self> {
        let given = config.params();
        let found = find_adapters(&given.paths)?;
        let names: Vec<String> = found.iter().map(|f| f.name.clone()).collect();
        let init_dirs = given.init.as_deref().map(|root| match_init(root, &names)).transpose()?;

        let mut plan = Self { bases: Vec::new(), adapters: Vec::new(), groups: Vec::new(), warnings: Vec::new() };
        let mut known_bases: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for found in found {
            let init = init_dirs.as_ref().and_then(|dirs| dirs.get(&found.name));
            let planned = plan.open(found, given, init.map(PathBuf::as_path), &mut known_bases)?;
            plan.adapters.push(planned);
        }
        plan.keep_wanted(config)?;
        plan.check_init()?;
        plan.group(given.convention)?;
        Ok(plan)
    }

    /// Opens one adapter and its base, and pairs them.
    fn open(
        &mut self,
        found: FoundAdapter,
        given: &AnalyzeParams,
        init: Option<&Path>,
        known_bases: &mut BTreeMap<PathBuf, usize>,
    ) -> Result<PlannedAdapter> {
        let adapter = Adapter::open(&found.dir, found.name)?;
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
        let modules = pair_with_base(&adapter, &self.bases[base])?;
        let named = base_name_warning(&adapter, &self.bases[base]);
        for warning in adapter.warnings.iter().chain(&named) {
            self.warnings.push((adapter.name.clone(), warning.clone()));
        }
        let init = init.map(|dir| Adapter::open(dir, adapter.name.clone())).transpose()?;
        Ok(PlannedAdapter { adapter, base, modules, init })
    }

    /// Drops the modules and layers that were not asked for.
    fn keep_wanted(&mut self, config: &AnalyzeConfig) -> Result<()> {
        let wanted = &config.params().modules;
        for name in wanted {
            if !self.adapters.iter().any(|a| a.modules.iter().any(|m| m.name == *name)) {
                let mut names: Vec<&str> = self.adapters.iter().flat_map(|a| a.modules.iter().map(|m| m.name.as_str())).collect();
                names.sort_unstable();
                names.dedup();
                return Err(Error::Usage {
                    what: format!("--modules {}: no adapter has a module of that name", escape(name)),
                    hint: Some(format!("the modules are {}", escape(&names.join(", ")))),
                });
            }
        }
        for planned in &mut self.adapters {
            planned.modules.retain(|m| wanted.is_empty() || wanted.contains(&m.name));
            if let Some(layers) = &config.layers {
                for module in &mut planned.modules {
                    module.layers.retain(|l| l.adapter_layer.layer.is_some_and(|l| layers.holds(l)));
                }
                planned.modules.retain(|m| !m.layers.is_empty());
            }
        }
        if self.adapters.iter().all(|a| a.modules.is_empty()) {
            return Err(Error::usage(format!(
                "--layers {}: no module has such a layer",
                escape(config.params().layers.as_deref().unwrap_or_default())
            )));
        }
        Ok(())
    }

    /// Every layer must have its untrained counterpart, of the same shape.
    fn check_init(&self) -> Result<()> {
        for planned in &self.adapters {
            let Some(init) = &planned.init else { continue };
            for layer in planned.modules.iter().flat_map(|m| &m.layers) {
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
        }
        Ok(())
    }

    fn group(&mut self, convention: Option<Convention>) -> Result<()> {
        // Base, convention and layers: what members of a group share.
        type Shared = (usize, Convention, Vec<GroupLayer>);
        let mut groups: BTreeMap<Shared, Vec<(usize, usize)>> = BTreeMap::new();
        for (a, planned) in self.adapters.iter().enumerate() {
            for (m, module) in planned.modules.iter().enumerate() {
                let layers: Vec<_> = module.layers.iter().map(GroupLayer::of).collect();
                let chosen = choose_convention(planned, module, convention)?;
                groups.entry((planned.base, chosen, layers)).or_default().push((a, m));
            }
        }
        self.groups =
            groups.into_iter().map(|((base, convention, layers), members)| Group { base, convention, layers, members }).collect();
        Ok(())
    }

    /// The headers and configurations that were read.
    pub(super) fn header_records(&self) -> Vec<InputRecord> {
        let adapters = self
            .adapters
            .iter()
            .flat_map(|a| std::iter::once(a.adapter.header_record()).chain(a.init.iter().map(Adapter::header_record)));
        self.bases.iter().map(BaseModel::header_record).chain(adapters).collect()
    }
}

/// `paper` only where every layer is square.
fn choose_convention(planned: &PlannedAdapter, module: &PairedModule, wanted: Option<Convention>) -> Result<Convention> {
    let oblong = module.layers.iter().find(|l| l.d_out != l.d_in);
    match (wanted, oblong) {
        (Some(Convention::Paper), Some(layer)) => Err(Error::mismatch(
            planned.adapter.weights_file(),
            format!("module `{}` in the paper's convention", escape(&module.name)),
            "square base weights",
            format!("`{}` with shape [{}, {}]", escape(&layer.tensor), layer.d_out, layer.d_in),
        )
        .with_hint("use --convention general or auto, or leave the module out with --modules")),
        (Some(convention), _) => Ok(convention),
        (None, Some(_)) => Ok(Convention::General),
        (None, None) => Ok(Convention::Paper),
    }
}

/// The untrained counterpart of a layer.
pub(super) fn init_layer<'a>(init: &'a Adapter, wanted: &AdapterLayer) -> Option<&'a AdapterLayer> {
    init.modules.iter().flat_map(|m| &m.layers).find(|l| l.key.path == wanted.key.path)
}
