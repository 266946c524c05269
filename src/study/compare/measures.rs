//! The measures beyond φ: every pair's cosines of principal angles and CKA, with the values of the controls: the rows of `measures.csv`.

use super::module::{Module, ModuleView};
use super::pairs::{Draws, cosines_of};
use crate::error::Result;
use crate::layer_matrix::{LayerMatrix, PairValue, cell_status, cka_status, has_phi};
use crate::measures::AllCka;
use crate::table::MeasureRow;
use crate::terms::{MatrixKind, Measure, Status};

/// The values of both controls for one measure.
#[derive(Clone, Copy)]
pub(crate) struct MeasureDraws<'a> {
    pub(crate) gaussian: &'a Draws,
    pub(crate) w0: &'a Draws,
}

/// The rows of one view and (i, j): for each ordered pair of layers its three cosines.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
pub(crate) fn cosine_rows(of: &ModuleView<'_>, (i, j): (usize, usize), draws: [MeasureDraws<'_>; 3]) -> Result<Vec<MeasureRow>> {
    let ModuleView { module, view, matrices, pairs } = of;
    let layers = matrices.len();
    let cosines = cosines_of(pairs, layers, (i, j))?;
    let mut rows = Vec::with_capacity(layers * layers * cosines.len());
    for cell in 0..layers * layers {
        let (a, b) = (cell / layers, cell % layers);
        let differ = pairs.differ_in_length(a, b);
        let (status, _) = cell_status([matrices[a], matrices[b]], view.side, (i, j), PairValue::Cosine, differ);
        for ((measure, cells), draws) in Measure::COSINES.into_iter().zip(&cosines).zip(draws) {
            let value = if has_phi(status) { cells[cell] } else { None };
            let row = measure_row(module, view.matrix, (a, b), measure, value, status, draws);
            rows.push(MeasureRow { side: Some(view.side), i: Some(i), j: Some(j), ..row });
        }
    }
    Ok(rows)
}

/// The rows of one matrix by CKA.
pub(crate) fn cka_rows(module: &Module<'_>, matrix: MatrixKind, draws: MeasureDraws<'_>) -> Vec<MeasureRow> {
    let matrices: Vec<&LayerMatrix> = module.layers.iter().map(|layer| layer.matrix(matrix)).collect();
    let layers = matrices.len();
    let views: Vec<_> = matrices.iter().map(|m| m.centred.as_ref().map(|centred| centred.values.view())).collect();
    let all = AllCka::of(&views);
    let row = |cell: usize| {
        let (a, b) = (cell / layers, cell % layers);
        let status = cka_status(matrices[a], matrices[b], all.differ_in_length(a, b));
        measure_row(module, matrix, (a, b), Measure::Cka, all.cka(a, b), status, draws)
    };
    (0..layers * layers).map(row).collect()
}

fn measure_row(
    module: &Module<'_>,
    matrix: MatrixKind,
    (a, b): (usize, usize),
    measure: Measure,
    value: Option<f64>,
    status: Status,
    draws: MeasureDraws<'_>,
) -> MeasureRow {
    let cell = a * module.layers.len() + b;
    let ((gaussian_mean, gaussian_sd), (w0_mean, w0_sd)) = (draws.gaussian.moments(cell), draws.w0.moments(cell));
    MeasureRow {
        adapter: module.adapter.to_owned(),
        module: module.name.to_owned(),
        matrix,
        side: None,
        i: None,
        j: None,
        layer_a: module.number(a).clone(),
        layer_b: module.number(b).clone(),
        measure,
        value,
        gaussian_mean,
        gaussian_sd,
        w0_mean,
        w0_sd,
        status,
    }
}
