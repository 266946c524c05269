//! Where Θ lies in the spectrum of W0, and how alike the singular subspaces of different W0 are: the rows of `energy.csv` and `subspaces.csv`.

use ndarray::{Array2, s};

use super::layer::{BaseLayer, ModuleName, RelatedLayer};
use crate::controls::Factor;
use crate::linalg::lapack::multiply;
use crate::similarity::{AllPairs, expected_by_chance};
use crate::table::{EnergyRow, SubspaceRow};
use crate::terms::{MatrixKind, Side};

/// Numbers of smallest singular directions in `energy.csv` and `subspaces.csv`.
const DIRECTIONS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The rows of `energy.csv` for one factor; none for layers whose weight was not decomposed.
#[must_use]
pub fn energy_rows(name: ModuleName<'_>, factor: Factor, layers: &[RelatedLayer<'_>]) -> Vec<EnergyRow> {
    let mut rows = Vec::new();
    for layer in layers {
        let Some(sides) = layer.base.sides(layer.equation(factor)) else { continue };
        let coordinates = multiply(sides.face.t(), layer.target(factor));
        let of_target: Vec<f64> = coordinates.rows().into_iter().take(sides.rank).map(|row| row.dot(&row)).collect();
        let lambda = || sides.sigma[..sides.rank].iter().map(|sigma| 1.0 / (sigma * sigma));
        let of_theta: Vec<f64> = of_target.iter().zip(lambda()).map(|(energy, lambda)| energy * lambda).collect();
        let of_gaussian: Vec<f64> = lambda().collect();
        let share = |energies: &[f64], k: usize| {
            let total: f64 = energies.iter().sum();
            (total > 0.0).then(|| energies[energies.len() - k..].iter().sum::<f64>() / total)
        };
        let squares: f64 = of_theta.iter().map(|energy| energy * energy).sum();
        let total: f64 = of_theta.iter().sum();
        for k in DIRECTIONS.into_iter().filter(|&k| k < sides.rank).chain([sides.rank]) {
            rows.push(EnergyRow {
                adapter: name.adapter.to_owned(),
                module: name.module.to_owned(),
                matrix: if factor == Factor::A { MatrixKind::A } else { MatrixKind::B },
                layer: layer.number.clone(),
                k,
                theta_share: share(&of_theta, k),
                gaussian_share: share(&of_gaussian, k),
                target_share: share(&of_target, k),
                participation: (squares > 0.0).then(|| total * total / squares),
            });
        }
    }
    rows
}

/// The rows of `subspaces.csv` for one type of base weight; none where one was not decomposed.
#[must_use]
pub fn subspace_rows(module: &str, layers: &[&BaseLayer<'_>]) -> Vec<SubspaceRow> {
    let Some(bases) = layers.iter().map(|layer| layer.basis).collect::<Option<Vec<_>>>() else { return Vec::new() };
    let mut rows = Vec::new();
    for side in [Side::Right, Side::Left] {
        let vectors: Vec<_> = bases.iter().map(|basis| if side == Side::Right { &basis.right } else { &basis.left }).collect();
        for (end, smallest) in [("smallest", true), ("largest", false)] {
            let most = vectors.iter().map(|v| v.ncols()).min().unwrap_or(0);
            let widest = DIRECTIONS.iter().copied().filter(|&k| k <= most).max().unwrap_or(0);
            let ends: Vec<Array2<f64>> = vectors
                .iter()
                .map(|v| {
                    let of = v.ncols();
                    // The outermost direction first.
                    if smallest { v.slice(s![.., of - widest..;-1]).to_owned() } else { v.slice(s![.., ..widest]).to_owned() }
                })
                .collect();
            let pairs = AllPairs::of(&ends.iter().map(|v| Some(v.view())).collect::<Vec<_>>());
            let layers: Vec<usize> = (0..ends.len()).collect();
            for k in DIRECTIONS.into_iter().filter(|&k| k <= widest) {
                let phi_mean = pairs.mean_phi(&layers, k, k);
                rows.push(SubspaceRow {
                    module: module.to_owned(),
                    side,
                    end: end.to_owned(),
                    k,
                    phi_mean,
                    chance: expected_by_chance(k, k, ends.first().map_or(0, |v| v.nrows())).filter(|_| phi_mean.is_some()),
                });
            }
        }
    }
    rows
}
