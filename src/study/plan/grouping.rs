//! Which adapters share base weights: each W0 is read and factorised once for all of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::plan::PlannedAdapter;
use crate::checkpoint::keys::name_modules;
use crate::checkpoint::{Block, ModuleKey, PairedLayer, PairedModule};
use crate::error::{Error, Result, escape};
use crate::terms::Convention;

/// One type of module of one base, and the adapters that have it.
pub(super) struct Group {
    pub(super) base: usize,
    pub(super) convention: Convention,
    /// What its adapters call the module; where they do not agree, its name by the base's tensors.
    pub(super) name: String,
    /// The base weights of all members, sorted by layer.
    pub(super) layers: Vec<GroupLayer>,
    /// Sorted by adapter, and so by adapter name.
    pub(super) members: Vec<Member>,
}

/// One adapter's module within its group.
pub(super) struct Member {
    /// Index into the plan's adapters.
    pub(super) adapter: usize,
    /// Index into the adapter's modules.
    pub(super) module: usize,
    /// For each of its layers the group's.
    pub(super) at: Vec<usize>,
    /// Rank of each of its layers.
    pub(super) ranks: Vec<usize>,
}

impl Member {
    /// Which of the module's layers the group's layer `index` is.
    pub(super) fn position(&self, index: usize) -> Option<usize> {
        self.at.iter().position(|&at| at == index)
    }

    /// The paired layer that the group's layer `index` is.
    pub(super) fn layer<'p>(&self, adapters: &'p [PlannedAdapter], index: usize) -> Option<&'p PairedLayer> {
        adapters[self.adapter].modules[self.module].layers.get(self.position(index)?)
    }
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

    pub(super) fn of(layer: &PairedLayer) -> Self {
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

impl Group {
    /// Whether the layers can be compared: a module outside any repeated container is one weight without an index.
    pub(super) fn is_grid(&self) -> bool {
        self.layers.iter().all(|l| l.layer.is_some())
    }
}

/// What the members of a group share: base, type of the base tensor, block of a fused weight, convention.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shared {
    base: usize,
    module_type: String,
    block: Option<String>,
    convention: Convention,
}

/// Puts modules that use the same type of base weight together.
///
/// # Errors
/// [`Error::Mismatch`] for a module that is not square where the paper's convention is asked for.
pub(super) fn group(adapters: &[PlannedAdapter], convention: Option<Convention>) -> Result<Vec<Group>> {
    let mut groups: BTreeMap<Shared, Vec<(usize, usize)>> = BTreeMap::new();
    for (a, planned) in adapters.iter().enumerate() {
        for (m, module) in planned.modules.iter().enumerate() {
            let Some(first) = module.layers.first() else { continue };
            let shared = Shared {
                base: planned.base,
                module_type: tensor_type(&first.tensor),
                block: first.block.as_ref().map(|block| block.name.to_string()),
                convention: choose_convention(planned, module, convention)?,
            };
            groups.entry(shared).or_default().push((a, m));
        }
    }
    let types: BTreeSet<&str> = groups.keys().map(|shared| shared.module_type.as_str()).collect();
    let types: Vec<&str> = types.into_iter().collect();
    let names: BTreeMap<&str, String> = types.iter().copied().zip(name_modules(&types)).collect();
    let mut groups: Vec<Group> = groups
        .iter()
        .map(|(shared, members)| {
            let own = names.get(shared.module_type.as_str()).cloned().unwrap_or_default();
            let own = shared.block.as_ref().map_or(own.clone(), |block| format!("{own}.{block}"));
            assemble(adapters, shared, own, members)
        })
        .collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(groups)
}

fn assemble(adapters: &[PlannedAdapter], shared: &Shared, own_name: String, members: &[(usize, usize)]) -> Group {
    let modules = || members.iter().map(|&(a, m)| &adapters[a].modules[m]);
    let layers: BTreeSet<GroupLayer> = modules().flat_map(|module| module.layers.iter().map(GroupLayer::of)).collect();
    let layers: Vec<GroupLayer> = layers.into_iter().collect();
    let mut names = modules().map(|module| &module.name);
    let name = match names.next() {
        Some(first) if names.all(|name| name == first) => first.clone(),
        _ => own_name,
    };
    let members = members
        .iter()
        .map(|&(adapter, module)| {
            let own = &adapters[adapter].modules[module].layers;
            Member {
                adapter,
                module,
                at: own.iter().filter_map(|layer| layers.binary_search(&GroupLayer::of(layer)).ok()).collect(),
                ranks: own.iter().map(|layer| layer.adapter_layer.rank).collect(),
            }
        })
        .collect();
    Group { base: shared.base, convention: shared.convention, name, layers, members }
}

/// The type of a base tensor: its path with the layer index as `*`.
fn tensor_type(tensor: &str) -> String {
    let path = tensor.strip_suffix(".weight").unwrap_or(tensor);
    ModuleKey::from_path(path.to_owned()).map_or_else(|_| tensor.to_owned(), |key| key.module_type)
}

/// `paper` only where every layer is square.
///
/// # Errors
/// [`Error::Mismatch`] for a module that is not square where the paper's convention is asked for.
pub(super) fn choose_convention(
    planned: &PlannedAdapter,
    module: &PairedModule,
    wanted: Option<Convention>,
) -> Result<Convention> {
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
