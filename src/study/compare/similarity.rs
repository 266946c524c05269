//! φ of every pair of a module's layers with the values of the controls, and the averages: the rows of `similarity.csv` and `summary.csv`.

use ndarray::Array2;

use super::module::ModuleView;
use super::pairs::Draws;
use crate::controls::{mean_and_sd, p_value, z_score};
use crate::layer_matrix::{LayerMatrix, PairValue, cell_status, has_phi};
use crate::similarity::AllPairs;
use crate::table::{SimilarityRow, SummaryRow};
use crate::terms::Status;

/// The untrained adapter's matrices of one view.
pub(crate) struct UntrainedView<'a> {
    matrices: Vec<Option<&'a LayerMatrix>>,
    pairs: AllPairs,
}

impl<'a> UntrainedView<'a> {
    pub(crate) fn of(view: &ModuleView<'a>) -> Self {
        let matrices: Vec<_> = view.module.layers.iter().map(|layer| layer.untrained.get(&view.view.matrix)).collect();
        let vectors = matrices.iter().map(|matrix| matrix.and_then(|matrix| matrix.vectors(view.view.side)));
        let pairs = AllPairs::of(&vectors.collect::<Vec<_>>());
        Self { matrices, pairs }
    }

    fn phi(&self, (a, b): (usize, usize), (i, j): (usize, usize)) -> Option<f64> {
        let has = |layer: usize, vectors: usize| self.matrices[layer].is_some_and(|matrix| has_phi(matrix.status(vectors)));
        if has(a, i) && has(b, j) { self.pairs.phi(a, b, i, j) } else { None }
    }
}

/// One view and (i, j) of a module, with everything that its rows are computed from.
pub(crate) struct SimilarityCells<'a> {
    pub(crate) of: &'a ModuleView<'a>,
    pub(crate) i: usize,
    pub(crate) j: usize,
    /// The result of [`crate::layer_matrix::summed_errors`].
    pub(crate) summed: &'a Array2<Option<f64>>,
    pub(crate) untrained: &'a UntrainedView<'a>,
    pub(crate) gaussian: &'a Draws,
    pub(crate) w0: &'a Draws,
}

impl SimilarityCells<'_> {
    /// The rows of all ordered pairs, row by row; none for a module whose layers cannot be compared.
    pub(crate) fn rows(&self) -> Vec<SimilarityRow> {
        let count = if self.of.module.is_comparable() { self.of.matrices.len() } else { 0 };
        (0..count).flat_map(|a| (0..count).map(move |b| self.row(a, b))).collect()
    }

    fn row(&self, a: usize, b: usize) -> SimilarityRow {
        let ModuleView { module, view, matrices, pairs } = self.of;
        let ij = (self.i, self.j);
        let phi = pairs.phi(a, b, self.i, self.j);
        let value = PairValue::of(phi, self.summed[(a, b)]);
        let differ = pairs.differ_in_length(a, b);
        let (status, bound) = cell_status([matrices[a], matrices[b]], view.side, ij, value, differ);
        let phi = phi.filter(|_| has_phi(status));
        let cell = a * matrices.len() + b;
        let (gaussian_mean, gaussian_sd) = self.gaussian.moments(cell);
        let (w0_mean, w0_sd) = self.w0.moments(cell);
        SimilarityRow {
            adapter: module.adapter.to_owned(),
            module: module.name.to_owned(),
            matrix: view.matrix,
            side: view.side,
            i: self.i,
            j: self.j,
            layer_a: module.number(a).clone(),
            layer_b: module.number(b).clone(),
            phi,
            phi_error_bound: phi.map(|_| bound),
            gaussian_mean,
            gaussian_sd,
            w0_mean,
            w0_sd,
            w0_expected: None,
            init: self.untrained.phi((a, b), ij),
            status,
        }
    }

    /// The averages of [`Self::rows`].
    pub(crate) fn summary(&self, cells: &[SimilarityRow]) -> SummaryRow {
        let ModuleView { module, view, matrices, .. } = self.of;
        let count = matrices.len();
        // Cells are in row order: cell n is (n / count, n % count); averages run over layer_a < layer_b.
        let upper: Vec<usize> = (0..cells.len()).filter(|n| n / count < n % count && cells[*n].phi.is_some()).collect();
        let values: Vec<f64> = upper.iter().filter_map(|&n| cells[n].phi).collect();
        let phi_mean = mean_and_sd(&values).0;
        let (gaussian, w0) = (self.gaussian.averages(&upper), self.w0.averages(&upper));
        let (gaussian_mean, gaussian_sd) = mean_and_sd(&gaussian);
        let (w0_mean, w0_sd) = mean_and_sd(&w0);
        let expected = |cell: &usize| self.of.chance((cell / count, cell % count), (self.i, self.j));
        let expected: Vec<f64> = upper.iter().filter_map(expected).collect();
        // Where the vectors span their whole space in every pair, φ is 1 by construction and there is nothing to test.
        let by_construction = !expected.is_empty() && expected.iter().all(|&e| e == 1.0);
        let has_phi = |index: usize| cells.get(index * count + index).is_some_and(|c| c.phi.is_some());
        let init: Vec<f64> = (0..cells.len()).filter(|n| n / count < n % count).filter_map(|n| cells[n].init).collect();
        let status = cells.iter().map(|c| c.status).fold(Status::Ok, Status::worse);
        SummaryRow {
            adapter: module.adapter.to_owned(),
            module: module.name.to_owned(),
            matrix: view.matrix,
            side: view.side,
            i: self.i,
            j: self.j,
            layers: (0..count).filter(|&n| has_phi(n)).count(),
            phi_mean,
            phi_min: values.iter().copied().reduce(f64::min),
            phi_max: values.iter().copied().reduce(f64::max),
            gaussian_expected: mean_and_sd(&expected).0,
            gaussian_mean,
            gaussian_sd,
            w0_mean,
            w0_sd,
            w0_expected: None,
            w0_z: phi_mean.filter(|_| !by_construction).and_then(|phi| z_score(phi, w0_mean, w0_sd)),
            w0_p: phi_mean.filter(|_| !by_construction).and_then(|phi| p_value(phi, &w0)),
            init_mean: mean_and_sd(&init).0,
            // A module outside any repeated container has no other layer to compare with.
            status: if module.is_comparable() { status } else { Status::Skipped },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::controls::tests::no_controls;
    use super::super::module::tests::{VIEW, layer, module};
    use super::*;
    use crate::layer_matrix::summed_errors;
    use ndarray::array;

    fn draws(of: &[[Option<f64>; 9]]) -> Draws {
        let mut draws = Draws::default();
        of.iter().for_each(|draw| draws.add(draw.to_vec()));
        draws
    }

    /// Rows and average of three layers: e₁, a vector at an angle to it with cosine 0.6, and nothing.
    fn compared(numbers: Option<Vec<u32>>, gaussian: &Draws, w0: &Draws) -> (Vec<SimilarityRow>, SummaryRow) {
        let layers = [array![[1.0], [0.0]], array![[0.6], [0.8]], array![[0.0], [0.0]]].map(|values| layer(&values));
        let (controls, ranks) = (no_controls(), [1, 1, 1]);
        let numbers = numbers.map(|numbers| numbers.into_iter().map(Into::into).collect());
        let module = module(&layers, &ranks, numbers, &controls);
        let of = module.view(VIEW);
        let untrained = UntrainedView::of(&of);
        let among: Vec<usize> = if module.is_comparable() { (0..3).collect() } else { Vec::new() };
        let summed = &summed_errors(&of.matrices, VIEW.side, &of.pairs, &among, &[(1, 1)])[0];
        let cells = SimilarityCells { of: &of, i: 1, j: 1, summed, untrained: &untrained, gaussian, w0 };
        let rows = cells.rows();
        let summary = cells.summary(&rows);
        (rows, summary)
    }

    #[test]
    fn every_ordered_pair_has_a_row_and_pairs_above_the_diagonal_are_averaged() {
        let half = [Some(0.5); 9];
        let (rows, summary) = compared(Some(vec![2, 4, 7]), &draws(&[]), &draws(&[half, [Some(0.1); 9]]));
        let places: Vec<_> = rows.iter().map(|row| (row.layer_a.index().unwrap(), row.layer_b.index().unwrap())).collect();
        assert_eq!(places, [(2, 2), (2, 4), (2, 7), (4, 2), (4, 4), (4, 7), (7, 2), (7, 4), (7, 7)]);
        assert!((rows[1].phi.unwrap() - 0.36).abs() < 1e-15 && rows[1].phi == rows[3].phi);
        assert_eq!(rows[1].status, Status::Ok);
        // The third layer has no vectors: an empty cell, not a zero.
        assert_eq!((rows[2].phi, rows[2].phi_error_bound, rows[2].status), (None, None, Status::Zero));
        assert_eq!((rows[1].gaussian_mean, rows[1].init), (None, None));
        assert!((rows[1].w0_mean.unwrap() - 0.3).abs() < 1e-15);
        assert_eq!((summary.layers, summary.phi_mean, summary.status), (2, rows[1].phi, Status::Zero));
        // One of two draws is above 0.36, and the observed value counts among them.
        assert_eq!((summary.w0_p, summary.gaussian_expected), (Some(2.0 / 3.0), Some(0.5)));
    }

    #[test]
    fn a_draw_counts_in_the_pairs_that_it_has() {
        let mut cells = [None; 9];
        let (_, without) = compared(Some(vec![0, 1, 2]), &draws(&[]), &draws(&[cells]));
        assert_eq!((without.w0_mean, without.w0_p), (None, None));
        cells[1] = Some(0.25);
        let (_, with) = compared(Some(vec![0, 1, 2]), &draws(&[cells]), &draws(&[cells]));
        assert_eq!((with.gaussian_mean, with.w0_mean, with.w0_p), (Some(0.25), Some(0.25), Some(0.5)));
    }

    #[test]
    fn layers_without_an_index_are_not_compared() {
        let (rows, summary) = compared(None, &draws(&[]), &draws(&[]));
        assert!(rows.is_empty());
        assert_eq!((summary.layers, summary.phi_mean, summary.status), (0, None, Status::Skipped));
    }
}
