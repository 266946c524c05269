//! From the matrices of all layers to the rows of the tables: φ of every pair, the values of the controls, and the status of each.

mod controls;
mod grid;
mod measures;
mod module;
mod pairs;
mod similarity;

use super::context::Context;
use super::plan::Pass;
use super::solve::{MemberLayer, SolvedLayer};
use crate::error::Result;
use crate::layer_matrix::summed_errors;
use crate::linalg::subspace::Spectrum;
use crate::table::{SpectrumRow, Tables};
use crate::terms::SpectrumMatrix;
pub(crate) use controls::GroupControls;
use grid::grid_rows;
use measures::{MeasureDraws, cka_rows, cosine_rows};
use module::{KeptShares, Module};
use similarity::{SimilarityCells, UntrainedView};

/// Adds a pass's draws to the controls, then gives the rows of its members; members that failed have none.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
pub(crate) fn compare_pass(
    context: &Context<'_>,
    pass: &Pass,
    layers: &[SolvedLayer],
    controls: &mut GroupControls,
) -> Result<Vec<((usize, usize), Tables)>> {
    let group = &context.plan.groups[pass.group];
    context.clock.similarity.time(|| {
        controls.add(context, group, pass, layers)?;
        let mut out = Vec::with_capacity(pass.members.len());
        for (k, member) in group.members[pass.members.clone()].iter().enumerate() {
            // One layer that could not be read is enough: an adapter is compared as a whole or not at all.
            let own: Option<Vec<&MemberLayer>> = member.at.iter().map(|&index| layers[index].members[k].as_ref()).collect();
            let Some(own) = own else { continue };
            let kept = KeptShares::of(member.at.iter().map(|&index| layers[index].kept.as_ref()));
            let module = Module::new(context, group, member, own, controls.of(context, member), kept);
            out.push(((member.adapter, member.module), rows(context, &module)?));
        }
        Ok(out)
    })
}

/// The rows of one module.
fn rows(context: &Context<'_>, module: &Module<'_>) -> Result<Tables> {
    let mut tables = Tables::default();
    let cells = context.views.len() * module.ij.len();
    let layers = module.layers.len();
    tables.similarity.reserve_exact(if module.is_comparable() { layers.pow(2) * cells } else { 0 });
    tables.summary.reserve_exact(cells);
    tables.conversion = module.layers.iter().map(|layer| layer.conversion.clone()).collect();
    add_views(context, module, &mut tables)?;
    if module.is_comparable() {
        for (k, &matrix) in context.by_cka.iter().enumerate() {
            let draws = MeasureDraws { gaussian: &module.controls.gaussian.by_cka[k], w0: &module.controls.w0.by_cka[k] };
            tables.measures.get_or_insert_default().extend(cka_rows(module, matrix, draws));
        }
    }
    tables.spectrum = spectrum_rows(context, module);
    Ok(tables)
}

/// The rows of each view: all pairs of layers, their averages, cosines and grids.
fn add_views(context: &Context<'_>, module: &Module<'_>, tables: &mut Tables) -> Result<()> {
    let asked = &context.config.params().grid;
    let compared: Vec<usize> = if module.is_comparable() { (0..module.layers.len()).collect() } else { Vec::new() };
    for (v, &view) in context.views.iter().enumerate() {
        let of = module.view(view);
        let untrained = UntrainedView::of(&of);
        if !asked.is_empty() && module.is_comparable() {
            tables.grid.get_or_insert_default().extend(grid_rows(&of, asked));
        }
        let summed = summed_errors(&of.matrices, view.side, &of.pairs, &compared, &module.ij);
        let draws = module.controls.gaussian.by_view[v].iter().zip(&module.controls.w0.by_view[v]);
        for ((&(i, j), summed), (gaussian, w0)) in module.ij.iter().zip(&summed).zip(draws) {
            let cells = SimilarityCells { of: &of, i, j, summed, untrained: &untrained, gaussian: &gaussian.phi, w0: &w0.phi };
            let rows = cells.rows();
            tables.summary.push(cells.summary(&rows));
            tables.similarity.extend(rows);
            if context.measures() && module.is_comparable() {
                let draws = std::array::from_fn(|k| MeasureDraws { gaussian: &gaussian.cosines[k], w0: &w0.cosines[k] });
                tables.measures.get_or_insert_default().extend(cosine_rows(&of, (i, j), draws)?);
            }
        }
    }
    Ok(())
}

/// The singular values of the module's conversion matrices.
fn spectrum_rows(context: &Context<'_>, module: &Module<'_>) -> Vec<SpectrumRow> {
    let mut rows = Vec::new();
    for &kind in &context.config.params().matrices {
        let Some(matrix) = SpectrumMatrix::of_conversion(kind) else { continue };
        for layer in &module.layers {
            let spectrum = layer.matrix(kind).spectrum.as_ref();
            for (number, &sigma) in spectrum.map_or(&[][..], Spectrum::sigma).iter().enumerate() {
                rows.push(SpectrumRow {
                    adapter: module.adapter.to_owned(),
                    module: module.name.to_owned(),
                    matrix,
                    layer: layer.conversion.layer.clone(),
                    k: number + 1,
                    sigma,
                });
            }
        }
    }
    rows
}
