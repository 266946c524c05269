//! The measures beyond φ: every pair's cosines of principal angles and CKA, with what the controls give: the rows of `measures.csv`.

use super::drawn::{Cells, Draws};
use super::grid::Grid;
use super::layer_matrix::{LayerMatrix, Seen, cell_status, cka_status, has_phi};
use super::params::View;
use crate::controls::mean_and_sd;
use crate::error::Result;
use crate::measures::{AllCka, PrincipalCosines};
use crate::similarity::AllPairs;
use crate::table::MeasureRow;
use crate::terms::{MatrixKind, Measure, Status};

/// The measures of one view and (i, j), for all ordered pairs of layers.
pub(super) struct PairMeasures {
    phi: Cells,
    /// Of [`Measure::COSINES`], in that order.
    cosines: Option<[Cells; 3]>,
}

impl PairMeasures {
    /// How many there are for one (i, j).
    pub(super) fn count(with_cosines: bool) -> usize {
        if with_cosines { 1 + Measure::COSINES.len() } else { 1 }
    }

    /// φ, and with it the cosines where they are wanted.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(super) fn of(pairs: &AllPairs, layers: usize, (i, j): (usize, usize), with_cosines: bool) -> Result<Self> {
        let cells = 0..layers * layers;
        let phi = cells.clone().map(|cell| pairs.phi(cell / layers, cell % layers, i, j)).collect();
        let cosines = if with_cosines { Some(cosines_of(pairs, layers, (i, j))?) } else { None };
        Ok(Self { phi, cosines })
    }

    /// φ, then the cosines.
    pub(super) fn into_cells(self) -> impl Iterator<Item = Cells> {
        std::iter::once(self.phi).chain(self.cosines.into_iter().flatten())
    }
}

fn cosines_of(pairs: &AllPairs, layers: usize, (i, j): (usize, usize)) -> Result<[Cells; 3]> {
    let mut found: [Cells; 3] = std::array::from_fn(|_| vec![None; layers * layers]);
    for a in 0..layers {
        for b in 0..layers {
            // The angles between two subspaces have no order.
            let from = if i == j && b < a { Some(b * layers + a) } else { None };
            let cosines = match from {
                Some(_) => None,
                None => pairs.products(a, b, i, j).map(|block| PrincipalCosines::of(block.view())).transpose()?.flatten(),
            };
            let values = cosines.map(|c| [c.max, c.mean, c.min]);
            for (k, cells) in found.iter_mut().enumerate() {
                cells[a * layers + b] = from.map_or(values.map(|values| values[k]), |from| cells[from]);
            }
        }
    }
    Ok(found)
}

impl Grid<'_> {
    /// The rows of one view and (i, j): for each ordered pair of layers its three cosines. `draws` are those of the cosines.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(super) fn cosine_rows(
        &self,
        view: View,
        (i, j): (usize, usize),
        observed: &[&LayerMatrix],
        pairs: &AllPairs,
        draws: (&[Draws], &[Draws]),
    ) -> Result<Vec<MeasureRow>> {
        let layers = observed.len();
        let found = cosines_of(pairs, layers, (i, j))?;
        let mut rows = Vec::with_capacity(layers * layers * found.len());
        for cell in 0..layers * layers {
            let (a, b) = (cell / layers, cell % layers);
            let (status, _) =
                cell_status([observed[a], observed[b]], view.side, (i, j), Seen::Cosine, pairs.differ_in_length(a, b));
            for (k, &measure) in Measure::COSINES.iter().enumerate() {
                let value = if has_phi(status) { found[k][cell] } else { None };
                rows.push(MeasureRow {
                    side: Some(view.side),
                    i: Some(i),
                    j: Some(j),
                    ..self.measure_row(view.matrix, (a, b), measure, value, status, (&draws.0[k], &draws.1[k]))
                });
            }
        }
        Ok(rows)
    }

    /// The rows of one matrix by CKA.
    pub(super) fn cka_rows(&self, matrix: MatrixKind, observed: &[&LayerMatrix], draws: (&Draws, &Draws)) -> Vec<MeasureRow> {
        let layers = observed.len();
        let views: Vec<_> = observed.iter().map(|m| m.centred.as_ref().map(|centred| centred.values.view())).collect();
        let all = AllCka::of(&views);
        let row = |cell: usize| {
            let (a, b) = (cell / layers, cell % layers);
            let status = cka_status(observed[a], observed[b], all.differ_in_length(a, b));
            self.measure_row(matrix, (a, b), Measure::Cka, all.cka(a, b), status, draws)
        };
        (0..layers * layers).map(row).collect()
    }

    fn measure_row(
        &self,
        matrix: MatrixKind,
        (a, b): (usize, usize),
        measure: Measure,
        value: Option<f64>,
        status: Status,
        draws: (&Draws, &Draws),
    ) -> MeasureRow {
        let cell = a * self.layers.len() + b;
        let moments = |draws: &Draws| mean_and_sd(&draws.iter().filter_map(|cells| cells[cell]).collect::<Vec<_>>());
        let ((gaussian_mean, gaussian_sd), (w0_mean, w0_sd)) = (moments(draws.0), moments(draws.1));
        MeasureRow {
            adapter: self.adapter.to_owned(),
            module: self.module.to_owned(),
            matrix,
            side: None,
            i: None,
            j: None,
            layer_a: self.layer_number(a),
            layer_b: self.layer_number(b),
            measure,
            value,
            gaussian_mean,
            gaussian_sd,
            w0_mean,
            w0_sd,
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};

    #[test]
    fn cosines_of_layers_come_row_by_row_and_in_both_orders() {
        let e = Array2::<f64>::eye(4);
        let mut tilted = e.slice(s![.., ..2]).to_owned();
        let angle = 0.4_f64;
        tilted[(0, 0)] = angle.cos();
        tilted[(2, 0)] = angle.sin();
        let pairs = AllPairs::of(&[Some(e.slice(s![.., ..2])), Some(tilted.view()), None]);
        let [max, mean, min] = cosines_of(&pairs, 3, (2, 2)).unwrap();
        for at in [1, 3] {
            assert!((max[at].unwrap() - 1.0).abs() < 1e-15 && (min[at].unwrap() - angle.cos()).abs() < 1e-15);
            assert!((mean[at].unwrap() - (1.0 + angle.cos()) / 2.0).abs() < 1e-15);
        }
        assert!((min[4].unwrap() - 1.0).abs() < 1e-15);
        assert_eq!((max[2], max[8], max[1]), (None, None, max[3]));
        // With i ≠ j the two orders compare different vectors.
        let [max, _, _] = cosines_of(&pairs, 3, (1, 2)).unwrap();
        assert!((max[1].unwrap() - angle.cos()).abs() < 1e-15 && (max[3].unwrap() - angle.cos()).abs() < 1e-15);
        let all = PairMeasures::of(&pairs, 3, (2, 2), true).unwrap().into_cells().count();
        assert_eq!((all, PairMeasures::count(true), PairMeasures::count(false)), (4, 4, 1));
    }
}
