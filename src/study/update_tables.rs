//! The rows on the updates of one adapter's module beside their base weights: how large they are, what they see of W0, and what intrudes.

use rayon::prelude::*;

use super::context::Context;
use super::plan::Member;
use crate::error::Result;
use crate::relation::{
    IntruderStudy, ModuleName, RelatedLayer, RelationStudy, Update, Yardstick, alignment_rows, delta_rows, update_rows,
};
use crate::table::Tables;

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
    yardsticks: &[&Yardstick],
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
