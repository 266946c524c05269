//! The rows on the updates of one adapter's module beside their base weights: how large they are, what they see of W0, and what intrudes.

use rayon::prelude::*;

use super::context::Context;
use super::plan::Member;
use super::solve::run_jobs;
use crate::error::Result;
use crate::relation::{
    IntruderStudy, ModuleName, RelatedLayer, RelationStudy, Update, Yardstick, alignment_rows, delta_rows, update_rows,
};
use crate::table::Tables;

/// How many leading directions of updates are looked at: as many as the layer of the smallest rank has, and one.
pub(super) fn counts_of(member: &Member) -> Vec<usize> {
    let smallest = member.ranks.iter().copied().min().unwrap_or(1);
    if smallest > 1 { vec![smallest, 1] } else { vec![1] }
}

/// What the base weights of some layers give by themselves; of at most `workers` of them there is a copy in f64 at a time.
///
/// # Errors
/// Those of [`Yardstick::of`].
pub(super) fn yardsticks(
    context: &Context<'_>,
    layers: &[RelatedLayer<'_>],
    counts: &[usize],
    workers: usize,
) -> Result<Vec<Yardstick>> {
    let (seed, draws) = (context.seed(), context.draws());
    run_jobs(layers, workers, |layer, _| Yardstick::of(layer.base, counts, seed, draws))
}

/// The rows of one adapter's module.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails, [`crate::Error::NonFinite`] if a product overflows.
pub(super) fn update_tables(
    context: &Context<'_>,
    member: &Member,
    name: ModuleName<'_>,
    layers: &[RelatedLayer<'_>],
    counts: &[usize],
    yardsticks: &[Yardstick],
) -> Result<Tables> {
    let updates: Vec<Update<'_, '_>> = layers.par_iter().map(Update::of).collect::<Result<_>>()?;
    let relation = RelationStudy { counts, seed: context.seed(), plan: context.plan_of_pairings(member) };
    let decomposed = layers.iter().any(|layer| layer.base.basis.is_some());
    let mut tables = Tables {
        spectrum: delta_rows(name, &updates),
        updates: Some(update_rows(name, &updates, yardsticks)),
        relation: Some(relation.rows(name, &updates, yardsticks)),
        alignment: decomposed.then(|| alignment_rows(name, counts, &updates, yardsticks)),
        ..Tables::default()
    };
    if let Some(intruders) = context.config.params().intruders {
        let study = IntruderStudy { intruders, seed: context.seed(), draws: context.draws() };
        let (rows, row_counts) = study.rows(name, &updates)?;
        tables.intruders = Some(rows);
        tables.intruder_counts = Some(row_counts);
    }
    Ok(tables)
}
