//! Which adapters share base weights: each W0 is read and factorised once for all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::adapter::PlannedAdapter;
use crate::checkpoint::PairedLayer;
use crate::checkpoint::keys::name_modules;
use crate::conversion::Equation;
use crate::error::Result;
use crate::inputs::{BaseWeight, choose_convention, type_of_tensor};
use crate::table::gather;
use crate::terms::{Convention, MatrixKind};

/// One type of module of one base, and the adapters that have it.
pub(crate) struct Group {
    pub(crate) base: usize,
    pub(crate) convention: Convention,
    /// The name that its adapters use for the module; where they differ, its name in the base's tensors.
    pub(crate) name: String,
    /// The base weights of all members, sorted by layer.
    pub(crate) layers: Vec<BaseWeight>,
    /// Sorted by adapter, and so by adapter name.
    pub(crate) members: Vec<Member>,
}

/// One adapter's module within its group.
pub(crate) struct Member {
    /// Index into the plan's adapters.
    pub(crate) adapter: usize,
    /// Index into the adapter's modules.
    pub(crate) module: usize,
    /// For each of its layers, the index of the group's layer.
    pub(crate) at: Vec<usize>,
    /// Rank that the update of each of its layers can have: that of its factors, or W0's shorter side where that is less.
    pub(crate) ranks: Vec<usize>,
}

impl Member {
    /// Which of the module's layers the group's layer `index` is.
    pub(crate) fn position(&self, index: usize) -> Option<usize> {
        self.at.iter().position(|&at| at == index)
    }

    /// How many adapters it is: the trained one, and the untrained one if it is given.
    pub(crate) fn copies(&self, adapters: &[PlannedAdapter]) -> usize {
        if adapters[self.adapter].init.is_some() { 2 } else { 1 }
    }

    /// The paired layer that the group's layer `index` is.
    pub(crate) fn layer<'p>(&self, adapters: &'p [PlannedAdapter], index: usize) -> Option<&'p PairedLayer> {
        adapters[self.adapter].modules[self.module].layers.get(self.position(index)?)
    }
}

impl Group {
    /// The equation of Θ_A; that of Θ_B is always [`Equation::W0`].
    pub(crate) fn equation_a(&self) -> Equation {
        if self.convention == Convention::Paper { Equation::W0 } else { Equation::W0Transposed }
    }

    /// The equation of a conversion matrix; none for a factor itself.
    pub(crate) fn equation(&self, matrix: MatrixKind) -> Option<Equation> {
        equation_of(matrix, self.equation_a())
    }

    /// Whether the layers can be compared: a module outside any repeated container is one weight without an index.
    pub(crate) fn is_grid(&self) -> bool {
        self.layers.iter().all(|l| l.layer.is_some())
    }
}

/// The equations of a group's conversion matrices, each once with the matrices whose left vectors it makes.
pub(crate) fn equations(group: &Group) -> Vec<(Equation, Vec<MatrixKind>)> {
    let by_equation = gather(MatrixKind::ALL, |matrix| group.equation(*matrix));
    by_equation.into_iter().filter_map(|(equation, matrices)| Some((equation?, matrices))).collect()
}

/// The rank, where all have one.
pub(crate) fn only_rank(ranks: &[usize]) -> Option<usize> {
    let first = *ranks.first()?;
    ranks.iter().all(|rank| *rank == first).then_some(first)
}

/// The equation of a conversion matrix where that of Θ_A is `equation_a`; none for a factor itself.
pub(crate) fn equation_of(matrix: MatrixKind, equation_a: Equation) -> Option<Equation> {
    match matrix {
        MatrixKind::A => Some(equation_a),
        MatrixKind::B | MatrixKind::BA => Some(Equation::W0),
        MatrixKind::LoraA | MatrixKind::LoraB | MatrixKind::LearnedA => None,
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

/// Groups modules that use the same type of base weight.
///
/// # Errors
/// [`Error::Mismatch`] for a module that is not square where the paper's convention is asked for.
pub(crate) fn group(adapters: &[PlannedAdapter], convention: Option<Convention>) -> Result<Vec<Group>> {
    let mut groups: BTreeMap<Shared, Vec<(usize, usize)>> = BTreeMap::new();
    for (a, planned) in adapters.iter().enumerate() {
        for (m, module) in planned.modules.iter().enumerate() {
            let Some(first) = module.layers.first() else { unreachable!("a module without a wanted layer is dropped") };
            let shared = Shared {
                base: planned.base,
                module_type: type_of_tensor(&first.tensor),
                block: first.block.as_ref().map(|block| block.name.to_string()),
                convention: choose_convention(planned.adapter.weights_file(), module, convention)?,
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
            let own = &names[shared.module_type.as_str()];
            let own = shared.block.as_ref().map_or_else(|| own.clone(), |block| format!("{own}.{block}"));
            assemble(adapters, shared, own, members)
        })
        .collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(groups)
}

fn assemble(adapters: &[PlannedAdapter], shared: &Shared, own_name: String, members: &[(usize, usize)]) -> Group {
    let modules = || members.iter().map(|&(a, m)| &adapters[a].modules[m]);
    let layers: BTreeSet<BaseWeight> = modules().flat_map(|module| module.layers.iter().map(BaseWeight::of)).collect();
    let layers: Vec<BaseWeight> = layers.into_iter().collect();
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
                at: own.iter().map(|layer| index_of(&layers, &BaseWeight::of(layer))).collect(),
                ranks: own.iter().map(|layer| layer.adapter_layer.rank.min(layer.d_out).min(layer.d_in)).collect(),
            }
        })
        .collect();
    Group { base: shared.base, convention: shared.convention, name, layers, members }
}

/// The position of a member's weight among those of its group.
fn index_of(weights: &[BaseWeight], weight: &BaseWeight) -> usize {
    weights.binary_search(weight).unwrap_or_else(|_| unreachable!("a group has the weights of all its members"))
}
