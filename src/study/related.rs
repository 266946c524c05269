//! What the adapters' factors have to do with their base weights, once those have been read: the rows of one pass, and of a group when its last pass is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use ndarray::Array2;

use super::context::Context;
use super::decompositions::ALWAYS;
use super::plan::{Group, Member, Pass, equations, only_rank};
use super::solve::{KnownWeight, MemberLayer, SolvedLayer, compared_factors, counts_of, drawn_factors, run_jobs};
use super::update_tables::update_tables;
use crate::controls::{Factor, mean_and_sd};
use crate::error::Result;
use crate::inputs::FactorPair;
use crate::relation::{BaseLayer, Cut, CutStudy, ModuleName, RelatedLayer, Statistics, energy_rows, expected_phi, subspace_rows};
use crate::table::{SubspaceRow, Tables};
use crate::terms::{MatrixKind, Side};

/// The draws of the `w0` control by factor, the same for all members with the same layers and ranks.
type W0Draws = BTreeMap<Factor, Vec<Statistics>>;

/// Which of a group's layers a member has, and the rank of each.
type LayersAndRanks = (Vec<usize>, Vec<usize>);

/// An expected φ of the left vectors of a matrix at i = j = r: the matrix, r, and all pairs of layers.
type Expected = (MatrixKind, usize, Array2<f64>);

/// What is known of a group's weights, and what is drawn once for its members.
pub(super) struct GroupWeights {
    pub(super) known: Vec<OnceLock<KnownWeight>>,
    draws: Mutex<BTreeMap<LayersAndRanks, Arc<W0Draws>>>,
}

impl GroupWeights {
    /// Before any of them is read.
    pub(super) fn unread(group: &Group) -> Self {
        Self { known: group.layers.iter().map(|_| OnceLock::new()).collect(), draws: Mutex::default() }
    }

    fn bases(&self) -> Vec<Option<BaseLayer<'_>>> {
        self.known.iter().map(|known| known.get().map(KnownWeight::base)).collect()
    }
}

/// Expected values of φ, which are written into rows when all passes are done.
#[derive(Default)]
pub(super) struct Expectations {
    /// By adapter and module.
    by_module: BTreeMap<(usize, usize), Vec<Expected>>,
}

impl Expectations {
    /// Writes the expectations into the rows of one adapter's module.
    pub(super) fn write(&self, place: (usize, usize), tables: &mut Tables) {
        for (matrix, rank, phi) in self.by_module.get(&place).into_iter().flatten() {
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

    /// Adds those of members that have the same layers and ranks.
    fn add(&mut self, context: &Context<'_>, group: &Group, bases: &[Option<BaseLayer<'_>>], members: &[&Member]) -> Result<()> {
        let Some(first) = members.first() else { return Ok(()) };
        let Some(rank) = only_rank(&first.ranks) else { return Ok(()) };
        let layers: Vec<&BaseLayer<'_>> = first.at.iter().map(|&at| read(bases, at)).collect();
        for (equation, matrices) in equations(group) {
            let Some(phi) = expected_phi(&layers, equation, rank, context.seed())? else { continue };
            for member in members {
                let of_member = self.by_module.entry((member.adapter, member.module)).or_default();
                of_member.extend(matrices.iter().map(|&matrix| (matrix, rank, phi.clone())));
            }
        }
        Ok(())
    }
}

/// What a group's weights give by themselves, when all of its passes are done: the rows of `subspaces.csv`, and what φ is expected to be.
///
/// # Errors
/// [`crate::Error::Lapack`] if a QR fails.
pub(super) fn finish_group(
    context: &Context<'_>,
    group: &Group,
    weights: &GroupWeights,
    is_left: impl Fn(usize) -> bool,
    expectations: &mut Expectations,
) -> Result<Vec<SubspaceRow>> {
    if context.config.params().cuts.is_none() || !group.is_grid() {
        return Ok(Vec::new());
    }
    let members: Vec<&Member> = group.members.iter().filter(|member| is_left(member.adapter)).collect();
    let bases = weights.bases();
    for alike in alike(members.iter().copied()).values() {
        expectations.add(context, group, &bases, alike)?;
    }
    let used = bases.iter().enumerate().filter(|(index, _)| members.iter().any(|member| member.position(*index).is_some()));
    Ok(subspace_rows(&group.name, &used.filter_map(|(_, base)| base.as_ref()).collect::<Vec<_>>()))
}

/// Members by the layers and ranks that they have.
fn alike<'m>(members: impl Iterator<Item = &'m Member>) -> BTreeMap<(&'m [usize], &'m [usize]), Vec<&'m Member>> {
    let mut alike: BTreeMap<(&[usize], &[usize]), Vec<&Member>> = BTreeMap::new();
    for member in members {
        alike.entry((&member.at, &member.ranks)).or_default().push(member);
    }
    alike
}

/// One of the weights of a member whose layers were all solved.
fn read<T>(all: &[Option<T>], at: usize) -> &T {
    all[at].as_ref().unwrap_or_else(|| unreachable!("what is solved through a weight is solved after it was read"))
}

/// The rows of the members of a pass, by adapter and module; members that failed have none.
///
/// # Errors
/// What is wrong with a factor; [`crate::Error::Lapack`] if a small SVD fails.
pub(super) fn related_rows(
    context: &Context<'_>,
    pass: &Pass,
    layers: &[SolvedLayer],
    weights: &GroupWeights,
) -> Result<Vec<((usize, usize), Tables)>> {
    let group = &context.plan.groups[pass.group];
    // A member's own layers, if all of them were solved.
    let own = |number: usize| -> Option<Vec<&MemberLayer>> {
        let member = &group.members[number];
        member.at.iter().map(|&index| layers[index].members[number - pass.members.start].as_ref()).collect()
    };
    let solved: BTreeMap<(usize, usize), Vec<&MemberLayer>> = pass
        .members
        .clone()
        .filter_map(|number| {
            let member = &group.members[number];
            Some(((member.adapter, member.module), own(number)?))
        })
        .collect();
    let left = group.members[pass.members.clone()].iter().filter(|member| solved.contains_key(&(member.adapter, member.module)));
    let mut rows = Vec::with_capacity(solved.len());
    for members in alike(left).values() {
        rows.extend(rows_of(context, group, weights, members, &solved)?);
    }
    Ok(rows)
}

/// The rows of members that have the same layers and ranks, and so the same `w0` control.
fn rows_of(
    context: &Context<'_>,
    group: &Group,
    weights: &GroupWeights,
    members: &[&Member],
    solved: &BTreeMap<(usize, usize), Vec<&MemberLayer>>,
) -> Result<Vec<((usize, usize), Tables)>> {
    let given = context.config.params();
    let bases = weights.bases();
    let factors = compared_factors(context);
    let Some(first) = members.first() else { return Ok(Vec::new()) };
    let ij = context.pairs_for(first.ranks.iter().copied());
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
    let draw = || -> Result<W0Draws> {
        // What is drawn has their shapes alone.
        let zero = |(&at, &rank): (&usize, &usize)| {
            let layer = &group.layers[at];
            FactorPair { a_transposed: Array2::zeros((layer.d_in, rank)), b: Array2::zeros((layer.d_out, rank)) }
        };
        let shapes: Vec<FactorPair> = first.at.iter().zip(&first.ranks).map(zero).collect();
        let layers = related(context, group, &bases, first, &shapes, None);
        let wanted = drawn_factors(context, group).into_iter().filter(|_| group.is_grid());
        wanted.map(|(factor, _)| Ok((factor, study(first).w0_draws(factor, &layers)?))).collect()
    };
    let key = (first.at.clone(), first.ranks.clone());
    let known = weights.draws.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key).cloned();
    let w0 = match known {
        Some(w0) => w0,
        None => {
            let w0 = Arc::new(context.clock.controls.time(draw)?);
            weights.draws.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, Arc::clone(&w0));
            w0
        }
    };
    let counts = counts_of(first);
    let known: Vec<Option<&KnownWeight>> = weights.known.iter().map(OnceLock::get).collect();
    let yardsticks = first.at.iter().map(|&at| read(&known, at).yardstick(&counts)).collect::<Vec<_>>();
    // Not over the pool itself: a thread that waits for its draws would begin another member, and hold the factors of both.
    run_jobs(members, rayon::current_num_threads(), |member, _| {
        let place = (member.adapter, member.module);
        let own = &solved[&place];
        let pairs = context.clock.read.time(|| factors_of(context, member, own))?;
        let layers = related(context, group, &bases, member, &pairs, Some(own));
        let planned = &context.plan.adapters[member.adapter];
        let name = ModuleName { adapter: &planned.adapter.name, module: &planned.modules[member.module].name };
        let mut tables = Tables::default();
        for &factor in &factors {
            // Where only one of two factors is drawn, it stands for both.
            let w0 = w0.get(&factor).or_else(|| w0.values().next()).map_or(&[][..], Vec::as_slice);
            let rows = context.clock.controls.time(|| study(member).rows(name, factor, &layers, w0))?;
            tables.cuts.get_or_insert_default().extend(rows);
            if given.cuts.is_some() {
                tables.energy.get_or_insert_default().extend(energy_rows(name, factor, &layers));
            }
        }
        tables.append(vec![context.clock.controls.time(|| update_tables(context, member, name, &layers, &counts, &yardsticks))?]);
        Ok((place, tables))
    })
}

/// The factors of a member's layers: read again, but those that are made of W0.
fn factors_of(context: &Context<'_>, member: &Member, own: &[&MemberLayer]) -> Result<Vec<FactorPair>> {
    let planned = &context.plan.adapters[member.adapter];
    let layers = planned.modules[member.module].layers.iter().zip(own);
    // What is read again has already been recorded.
    let of = |(layer, own): (&crate::checkpoint::PairedLayer, &&MemberLayer)| match &own.made {
        Some(made) => Ok(made.clone()),
        None => FactorPair::read_stored(&planned.adapter, layer, &mut Vec::new()),
    };
    layers.map(of).collect()
}

/// A member's layers beside their base weights.
fn related<'a>(
    context: &'a Context<'_>,
    group: &Group,
    bases: &'a [Option<BaseLayer<'a>>],
    member: &Member,
    pairs: &'a [FactorPair],
    own: Option<&[&'a MemberLayer]>,
) -> Vec<RelatedLayer<'a>> {
    let paired = &context.plan.adapters[member.adapter].modules[member.module].layers;
    let layers = paired.iter().zip(&member.at).zip(pairs).enumerate();
    let of = |(k, ((paired, &at), pair)): (usize, ((&crate::checkpoint::PairedLayer, &usize), &'a FactorPair))| RelatedLayer {
        number: group.layers[at].layer.clone(),
        base: read(bases, at),
        a_transposed: pair.a_transposed.view(),
        b: pair.b.view(),
        scaling: paired.adapter_layer.scaling,
        equation_a: group.equation_a(),
        images: own.and_then(|own| own[k].images.as_ref()),
    };
    layers.map(of).collect()
}
