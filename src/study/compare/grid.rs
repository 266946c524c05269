//! φ of two chosen layers by every number of their vectors (`--grid`): the rows of `grid.csv`.

use super::module::ModuleView;
use crate::layer_matrix::{PairValue, cell_status, has_phi, summed_errors};
use crate::table::GridRow;
use crate::terms::LayerId;

/// The rows of one view, for each pair of layers asked for that this module has: all i up to the first layer's rank, all j up to the
/// second's. The view has the inner products of all vectors, and each φ is a partial sum of their squares.
pub(crate) fn grid_rows(of: &ModuleView<'_>, asked: &[(LayerId, LayerId)]) -> Vec<GridRow> {
    let ModuleView { module, view, matrices, pairs } = of;
    let place = |layer: &LayerId| (0..matrices.len()).find(|&k| module.number(k) == layer);
    let mut rows = Vec::new();
    for (layer_a, layer_b) in asked {
        // Another module of the study has both, since the plan refuses a pair that no module has.
        let (Some(a), Some(b)) = (place(layer_a), place(layer_b)) else { continue };
        let values = pairs.phi_up_to(a, b);
        let differ = pairs.differ_in_length(a, b);
        let numbers: Vec<_> = (1..=module.ranks[a]).flat_map(|i| (1..=module.ranks[b]).map(move |j| (i, j))).collect();
        let summed = summed_errors(matrices, view.side, pairs, &[a, b], &numbers);
        for (&(i, j), summed) in numbers.iter().zip(&summed) {
            let phi = values.as_ref().and_then(|values| values.get((i - 1, j - 1)).copied());
            let value = PairValue::of(phi, summed[(0, 1)]);
            let (status, _) = cell_status([matrices[a], matrices[b]], view.side, (i, j), value, differ);
            let phi = phi.filter(|_| has_phi(status));
            rows.push(GridRow {
                adapter: module.adapter.to_owned(),
                module: module.name.to_owned(),
                matrix: view.matrix,
                side: view.side,
                layer_a: layer_a.clone(),
                layer_b: layer_b.clone(),
                i,
                j,
                phi,
                gaussian_expected: phi.and_then(|_| of.chance((a, b), (i, j))),
                status,
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::controls::tests::no_controls;
    use super::super::module::tests::{VIEW, layer, module};
    use super::*;
    use crate::terms::Status;
    use ndarray::array;

    #[test]
    fn chosen_layers_are_compared_by_every_number_of_vectors() {
        // The singular vectors are e₁, e₂ and e₁, e₃.
        let first = array![[3.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]];
        let second = array![[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        let (layers, controls, ranks) = ([layer(&first), layer(&second)], no_controls(), [2, 2]);
        let module = module(&layers, &ranks, Some(vec![3.into(), 9.into()]), &controls);
        // There is no layer 4 here; the plan refuses a pair that no module has.
        let rows = grid_rows(&module.view(VIEW), &[(3.into(), 9.into()), (3.into(), 4.into())]);
        let numbers: Vec<_> =
            rows.iter().map(|row| (row.layer_a.index().unwrap(), row.layer_b.index().unwrap(), row.i, row.j)).collect();
        assert_eq!(numbers, [(3, 9, 1, 1), (3, 9, 1, 2), (3, 9, 2, 1), (3, 9, 2, 2)]);
        for (row, phi) in rows.iter().zip([1.0, 1.0, 1.0, 0.5]) {
            assert!((row.phi.unwrap() - phi).abs() < 1e-15 && row.status == Status::Ok);
        }
        assert_eq!(rows[3].gaussian_expected, Some(0.5));
    }

    #[test]
    fn vectors_beyond_the_rank_leave_an_empty_cell() {
        let flat = array![[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]];
        let full = array![[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        let (layers, controls, ranks) = ([layer(&flat), layer(&full)], no_controls(), [2, 2]);
        let module = module(&layers, &ranks, Some(vec![0.into(), 1.into()]), &controls);
        let rows = grid_rows(&module.view(VIEW), &[(0.into(), 1.into())]);
        assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [Status::Ok, Status::Ok, Status::Rank, Status::Rank]);
        assert_eq!((rows[2].phi, rows[2].gaussian_expected), (None, None));
    }
}
