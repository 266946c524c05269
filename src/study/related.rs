//! The second half of a study: every base weight once more, decomposed where that is affordable, and what the adapters' factors have to do with it.
//!
//! It is apart from the solving because it keeps the weights of all layers of a module at once: its controls compare layers, draw by draw.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::context::Context;
use super::decompositions::{ALWAYS, Decompositions};
use super::initial;
use super::plan::{Group, Member};
use super::solve::run_jobs;
use super::update_tables::{counts_of, update_tables, yardsticks};
use crate::controls::{Factor, mean_and_sd};
use crate::conversion::Equation;
use crate::error::Result;
use crate::inputs::{FactorPair, StoredWeight};
use crate::linalg::weight_basis::WeightBasis;
use crate::relation::{BaseLayer, Cut, CutStudy, ModuleName, RelatedLayer, energy_rows, expected_phi, leverages, subspace_rows};
use crate::table::{AcrossRow, SubspaceRow, Tables, gather};
use crate::terms::{MatrixKind, Side};

/// A base weight, and its basis where it was decomposed.
struct Related {
    weight: StoredWeight,
    basis: Option<WeightBasis>,
    stream: String,
}

impl Related {
    fn base(&self) -> BaseLayer<'_> {
        BaseLayer { weight: &self.weight, basis: self.basis.as_ref(), stream: &self.stream }
    }
}

/// An expected φ at i = j = r, of the left vectors of a matrix: the matrix, r, and the values.
type Expected<T> = (MatrixKind, usize, T);

/// What the second half of a study adds to the first.
#[derive(Default)]
pub(super) struct RelatedRows {
    /// The rows of every adapter's modules, by adapter and module.
    pub(super) by_module: BTreeMap<(usize, usize), Tables>,
    /// What was noticed on the way.
    pub(super) warnings: Vec<String>,
    /// The rows of `subspaces.csv`.
    pub(super) subspaces: Vec<SubspaceRow>,
    /// The expected φ of the left vectors of a matrix, by adapter and module, with r: all pairs of its layers.
    expected: BTreeMap<(usize, usize), Vec<Expected<Array2<f64>>>>,
    /// The same for two adapters, by group and layer.
    expected_across: BTreeMap<(usize, usize), Vec<Expected<f64>>>,
}

impl RelatedRows {
    /// Writes the expectations into the rows of the first half.
    pub(super) fn add_expectations(&self, place: (usize, usize), tables: &mut Tables) {
        for (matrix, rank, phi) in self.expected.get(&place).into_iter().flatten() {
            let is_it = |of: MatrixKind, side: Side, ij: (usize, usize)| (of, side, ij) == (*matrix, Side::Left, (*rank, *rank));
            let rows = tables.similarity.iter_mut().filter(|row| is_it(row.matrix, row.side, (row.i, row.j)));
            for (row, expected) in rows.zip(phi) {
                row.w0_expected = row.phi.map(|_| *expected);
            }
            let above: Vec<f64> = phi.indexed_iter().filter(|((a, b), _)| a < b).map(|(_, expected)| *expected).collect();
            for row in tables.summary.iter_mut().filter(|row| is_it(row.matrix, row.side, (row.i, row.j))) {
                row.w0_expected = row.phi_mean.and(mean_and_sd(&above).0);
            }
        }
    }

    /// The same for the rows of `across.csv` of one group and layer.
    pub(super) fn add_across(&self, place: (usize, usize), rows: &mut [AcrossRow]) {
        for (matrix, rank, expected) in self.expected_across.get(&place).into_iter().flatten() {
            let is_it = |row: &&mut AcrossRow| {
                (row.matrix, row.side, row.i, row.j) == (*matrix, Side::Left, *rank, *rank) && row.adapter_a != row.adapter_b
            };
            for row in rows.iter_mut().filter(is_it) {
                row.w0_expected = row.phi.map(|_| *expected);
            }
        }
    }
}

/// The rows of every adapter's modules, by adapter and module, and those of the base weights. `step` is told of every base weight.
///
/// # Errors
/// What is wrong with a weight or a factor.
pub(super) fn related_rows(
    context: &Context<'_>,
    decompositions: &Decompositions,
    is_left: &(dyn Fn(usize) -> bool + Sync),
    step: &(dyn Fn() + Sync),
) -> Result<RelatedRows> {
    let mut found = RelatedRows::default();
    for (number, (group, &decomposed)) in context.plan.groups.iter().zip(&decompositions.decomposed).enumerate() {
        if !group.members.iter().any(|member| is_left(member.adapter)) {
            group.layers.iter().for_each(|_| step());
            continue;
        }
        let workers = decompositions.workers[number];
        let layers = open_layers(context, group, (decomposed, workers), is_left, step)?;
        let bases: Vec<Option<BaseLayer<'_>>> = layers.iter().map(|layer| layer.as_ref().map(Related::base)).collect();
        if context.across() {
            if let Some((index, layer)) = layers.iter().enumerate().find_map(|(index, layer)| Some((index, layer.as_ref()?))) {
                found.warnings.extend(initial::warning(context, group, index, &layer.weight)?);
            }
            add_expected_across(context, (number, group), &bases, &mut found)?;
        }
        if decompositions.across_only {
            continue;
        }
        if context.config.params().cuts.is_some() && group.is_grid() {
            found.subspaces.extend(subspace_rows(&group.name, &bases.iter().flatten().collect::<Vec<_>>()));
        }
        let mut alike: BTreeMap<(&[usize], &[usize]), Vec<&Member>> = BTreeMap::new();
        for member in group.members.iter().filter(|member| is_left(member.adapter)) {
            alike.entry((&member.at, &member.ranks)).or_default().push(member);
        }
        for members in alike.values() {
            if context.config.params().cuts.is_some() && group.is_grid() {
                add_expected(context, group, &bases, members, &mut found)?;
            }
            found.by_module.extend(rows_of(context, group, &layers, &bases, members, workers)?);
        }
    }
    Ok(found)
}

/// One of the weights of a member that is left: all of them are opened.
fn opened<T>(all: &[Option<T>], at: usize) -> &T {
    all[at].as_ref().unwrap_or_else(|| unreachable!("the weights of all members that are left are opened"))
}

/// The expectations of members that have the same layers and ranks.
fn add_expected(
    context: &Context<'_>,
    group: &Group,
    bases: &[Option<BaseLayer<'_>>],
    members: &[&Member],
    found: &mut RelatedRows,
) -> Result<()> {
    let Some(first) = members.first() else { return Ok(()) };
    let Some(rank) = only_rank(&first.ranks) else { return Ok(()) };
    let layers: Vec<&BaseLayer<'_>> = first.at.iter().map(|&at| opened(bases, at)).collect();
    for (equation, matrices) in equations(group) {
        let Some(phi) = expected_phi(&layers, equation, rank, context.seed())? else { continue };
        for member in members {
            let of_member = found.expected.entry((member.adapter, member.module)).or_default();
            of_member.extend(matrices.iter().map(|&matrix| (matrix, rank, phi.clone())));
        }
    }
    Ok(())
}

/// The expected φ of two adapters at each layer of a group, where all have one rank there.
fn add_expected_across(
    context: &Context<'_>,
    (number, group): (usize, &Group),
    bases: &[Option<BaseLayer<'_>>],
    found: &mut RelatedRows,
) -> Result<()> {
    for (index, base) in bases.iter().enumerate().filter_map(|(index, base)| Some((index, base.as_ref()?))) {
        let ranks: Vec<usize> = group.members.iter().filter_map(|member| Some(member.ranks[member.position(index)?])).collect();
        let Some(rank) = only_rank(&ranks).filter(|_| ranks.len() > 1) else { continue };
        for (equation, matrices) in equations(group) {
            let Some(d) = leverages(base, equation, rank, context.seed())? else { continue };
            let phi = d.iter().map(|d| d * d).sum::<f64>() / rank as f64;
            let of_layer = found.expected_across.entry((number, index)).or_default();
            of_layer.extend(matrices.iter().map(|&matrix| (matrix, rank, phi)));
        }
    }
    Ok(())
}

/// The rank, where all have one.
fn only_rank(ranks: &[usize]) -> Option<usize> {
    let first = *ranks.first()?;
    ranks.iter().all(|rank| *rank == first).then_some(first)
}

/// The equations of a group's conversion matrices, each once with the matrices whose left vectors it makes.
fn equations(group: &Group) -> Vec<(Equation, Vec<MatrixKind>)> {
    let by_equation = gather(MatrixKind::ALL, |matrix| group.equation(*matrix));
    by_equation.into_iter().filter_map(|(equation, matrices)| Some((equation?, matrices))).collect()
}

/// The weights of a group that an adapter uses which is left; the others may be why theirs are not (`--keep-going`).
fn open_layers(
    context: &Context<'_>,
    group: &Group,
    (decomposed, workers): (bool, usize),
    is_left: &(dyn Fn(usize) -> bool + Sync),
    step: &(dyn Fn() + Sync),
) -> Result<Vec<Option<Related>>> {
    let base = &context.plan.bases[group.base];
    let users = |index: usize| group.members.iter().filter(move |member| member.position(index).is_some());
    let indices: Vec<usize> = (0..group.layers.len()).collect();
    run_jobs(&indices, workers, |&index, _| {
        if !users(index).any(|member| is_left(member.adapter)) {
            step();
            return Ok(None);
        }
        let layer = &group.layers[index];
        // What is read again has already been recorded.
        let weight = context.clock.read.time(|| StoredWeight::read(base, layer, &mut Vec::new()))?;
        let decompose = || -> Result<WeightBasis> {
            let w0 = weight.to_f64()?;
            if context.needs_svd() { WeightBasis::by_svd(w0.view()) } else { WeightBasis::by_eigenvectors(w0.view()) }
        };
        let basis = if decomposed { Some(context.clock.decompose.time(decompose)?) } else { None };
        // Singular values beyond the range of f64 are of no use.
        let basis = basis.filter(|basis| basis.sigma.iter().all(|sigma| sigma.is_finite()));
        step();
        Ok(Some(Related { weight, basis, stream: layer.stream().into_owned() }))
    })
}

/// The rows of members that have the same layers and ranks, and so the same `w0` control.
fn rows_of(
    context: &Context<'_>,
    group: &Group,
    weights: &[Option<Related>],
    bases: &[Option<BaseLayer<'_>>],
    members: &[&Member],
    workers: usize,
) -> Result<Vec<((usize, usize), Tables)>> {
    let given = context.config.params();
    let factors: Vec<Factor> = [(Factor::A, MatrixKind::A), (Factor::B, MatrixKind::B)]
        .into_iter()
        .filter(|(_, matrix)| given.matrices.contains(matrix))
        .map(|(factor, _)| factor)
        .collect();
    let Some(first) = members.first() else { return Ok(Vec::new()) };
    let ij = context.pairs_for(first.ranks.iter().copied());
    let read = |member: &Member| -> Result<Vec<FactorPair>> {
        let planned = &context.plan.adapters[member.adapter];
        let layers = &planned.modules[member.module].layers;
        let of = |(layer, &at): (&crate::checkpoint::PairedLayer, &usize)| {
            FactorPair::read(&planned.adapter, &layer.adapter_layer, &opened(weights, at).weight, &mut Vec::new())
        };
        layers.iter().zip(&member.at).map(of).collect()
    };
    let decomposed = bases.iter().flatten().all(|base| base.basis.is_some());
    let wanted = given.cuts.as_deref().unwrap_or(&ALWAYS);
    let cuts: Vec<Cut> = wanted.iter().copied().filter(|cut| decomposed || !cut.needs_basis()).collect();
    let study = |member: &Member| CutStudy {
        cuts: &cuts,
        ij: &ij,
        seed: given.seed,
        plan: context.plan_of_tests(member),
        together: given.null_draws.together(),
        shuffled: given.cuts.is_some(),
    };
    // What is drawn has their shapes alone.
    let shapes: Vec<FactorPair> = first
        .at
        .iter()
        .zip(&first.ranks)
        .map(|(&at, &rank)| {
            let layer = &group.layers[at];
            FactorPair { a_transposed: Array2::zeros((layer.d_in, rank)), b: Array2::zeros((layer.d_out, rank)) }
        })
        .collect();
    let first_layers = related(context, group, bases, first, &shapes);
    let draws = |factor| if group.is_grid() { study(first).w0_draws(factor, &first_layers) } else { Ok(Vec::new()) };
    let w0: Vec<_> = context.clock.controls.time(|| match group.equation_a() {
        // Aᵀ and B go through the same map, and Gaussian ones in their place are the same.
        Equation::W0 if !factors.is_empty() => draws(Factor::B).map(|of_b| vec![of_b; factors.len()]),
        _ => factors.iter().map(|&factor| draws(factor)).collect::<Result<_>>(),
    })?;
    let counts = counts_of(first);
    let yardsticks = context.clock.controls.time(|| yardsticks(context, &first_layers, &counts, workers))?;
    // Not over the pool itself: a thread that waits for its draws would begin another member, and hold the factors of both.
    run_jobs(members, rayon::current_num_threads(), |member, _| {
        let pairs = context.clock.read.time(|| read(member))?;
        let layers = related(context, group, bases, member, &pairs);
        let planned = &context.plan.adapters[member.adapter];
        let name = ModuleName { adapter: &planned.adapter.name, module: &planned.modules[member.module].name };
        let mut tables = Tables::default();
        for (&factor, w0) in factors.iter().zip(&w0) {
            let rows = context.clock.controls.time(|| study(member).rows(name, factor, &layers, w0))?;
            tables.cuts.get_or_insert_default().extend(rows);
            if given.cuts.is_some() {
                tables.energy.get_or_insert_default().extend(energy_rows(name, factor, &layers));
            }
        }
        tables.append(vec![context.clock.controls.time(|| update_tables(context, member, name, &layers, &counts, &yardsticks))?]);
        Ok(((member.adapter, member.module), tables))
    })
}

/// A member's layers beside their base weights.
fn related<'a>(
    context: &'a Context<'_>,
    group: &Group,
    bases: &'a [Option<BaseLayer<'a>>],
    member: &Member,
    pairs: &'a [FactorPair],
) -> Vec<RelatedLayer<'a>> {
    let paired = &context.plan.adapters[member.adapter].modules[member.module].layers;
    let layers = paired.iter().zip(&member.at).zip(pairs);
    let of = |((paired, &at), pair): ((&crate::checkpoint::PairedLayer, &usize), &'a FactorPair)| RelatedLayer {
        number: group.layers[at].layer,
        base: opened(bases, at),
        a_transposed: pair.a_transposed.view(),
        b: pair.b.view(),
        scaling: paired.adapter_layer.scaling,
        equation_a: group.equation_a(),
    };
    layers.map(of).collect()
}
