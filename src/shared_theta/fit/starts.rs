//! Where the search for a shared Θ begins: the direct fit, what all layers' own conversion matrices have in common, the best answer if all layers had equal shares,
//! and random ones.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use super::delta::{Bases, Start};
use super::direct::DirectFit;
use super::layers::{FACTORS, SharedLayers, Targets, target};
use crate::controls::{Control, Factor, draw};
use crate::conversion::{Solver, Target, Workspace};
use crate::error::Result;
use crate::linalg::lapack::multiply;
use crate::linalg::subspace::{SubspaceBasis, ThinQr};

/// Random starts of each search.
pub(super) const RANDOM_STARTS: usize = 3;

/// The leading left vectors of all layers' conversion matrices side by side, each as an orthonormal basis: one for Θ_A and one for Θ_B.
///
/// If the updates come from one Θ, they span it, in whatever basis each layer stores its factors.
pub(super) struct Leading([Option<Array2<f64>>; 2]);

impl Leading {
    /// Computes them for several sets of targets; every weight is factorised once for all of them.
    ///
    /// # Errors
    /// What is wrong with a weight; [`crate::Error::Lapack`] if a factorisation fails.
    pub(super) fn of(layers: &SharedLayers<'_>, sets: &[&Targets]) -> Result<Vec<Self>> {
        let mut bases: Vec<[Vec<Array2<f64>>; 2]> = sets.iter().map(|_| Default::default()).collect();
        let mut workspace = Workspace::default();
        for layer in 0..layers.count() {
            let w0 = (layers.read)(layer)?;
            let targets: Vec<Target<'_>> = sets
                .iter()
                .flat_map(|set| {
                    FACTORS.map(|factor| Target {
                        values: target(&set[layer], factor),
                        equation: layers.equation(factor),
                        in_range: false,
                    })
                })
                .collect();
            let solved = Solver::new(&w0, None, &mut workspace)?.solve(&targets)?;
            for (pair, bases) in solved.chunks_exact(FACTORS.len()).zip(&mut bases) {
                for (matrix, of_factor) in pair.iter().zip(bases) {
                    let usable = matrix.theta.iter().all(|v| v.is_finite()) && matrix.theta.iter().any(|v| *v != 0.0);
                    if usable {
                        let basis = SubspaceBasis::of(matrix.theta.view())?;
                        of_factor.push(basis.left().slice(s![.., ..basis.spectrum().rank()]).to_owned());
                    }
                }
            }
        }
        bases.into_iter().map(|[a, b]| Ok(Self([leading(&a, layers.rank)?, leading(&b, layers.rank)?]))).collect()
    }
}

/// The first `rank` left singular vectors of the bases side by side; none where they have fewer.
fn leading(bases: &[Array2<f64>], rank: usize) -> Result<Option<Array2<f64>>> {
    let views: Vec<_> = bases.iter().map(|basis| basis.view()).collect();
    if views.iter().map(|view| view.ncols()).sum::<usize>() < rank {
        return Ok(None);
    }
    let all = side_by_side(&views);
    let basis =
        if all.nrows() >= all.ncols() { SubspaceBasis::of(all.view())? } else { SubspaceBasis::of(all.t())?.transposed() };
    Ok(Some(basis.left().slice(s![.., ..rank]).to_owned()))
}

fn side_by_side(views: &[ArrayView2<'_, f64>]) -> Array2<f64> {
    concatenate(Axis(1), views).unwrap_or_else(|_| unreachable!("the layers have one shape"))
}

/// All starts for one set of targets, the likeliest first.
///
/// # Errors
/// [`crate::Error::Lapack`] if a QR or SVD fails.
pub(super) fn starts(
    layers: &SharedLayers<'_>,
    direct: &DirectFit,
    bases: Bases<'_>,
    targets: &Targets,
    leading: &Leading,
    seed: u64,
) -> Result<Vec<Start>> {
    let mut starts = Vec::new();
    for (factor, vectors) in FACTORS.into_iter().zip(&leading.0) {
        if let Some(vectors) = vectors {
            starts.push(Start { fixed: factor, y: direct.stack(factor).triangle.dot(vectors) });
        }
    }
    starts.push(Start { fixed: Factor::A, y: equal_shares(bases, targets, layers.rank)? });
    starts.push(Start { fixed: Factor::A, y: sum_of(bases.a, targets, Factor::A) });
    let (length, stream) = (bases.a[0].nrows(), &layers.streams[0]);
    for number in 0..RANDOM_STARTS {
        starts.push(Start { fixed: Factor::A, y: draw(seed, Control::Start, stream, Factor::A, number, length, layers.rank) });
    }
    Ok(starts)
}

/// `Σ_l Q_lᵀ·T_l`: the direct fit of a factor.
fn sum_of(bases: &[Array2<f64>], targets: &Targets, factor: Factor) -> Array2<f64> {
    let parts = bases.iter().zip(targets).map(|(q, pair)| multiply(q.view(), target(pair, factor)));
    parts.reduce(|sum, part| sum + &part).unwrap_or_else(|| unreachable!("a module has layers"))
}

/// The best Y_A if every layer had the same share of each direction, `Q_lᵀQ_l = I/N`: the leading right vectors of `Σ_l Q_lᵀ·B_l·A_l·Q'_l`, in factors.
fn equal_shares(bases: Bases<'_>, targets: &Targets, rank: usize) -> Result<Array2<f64>> {
    let beside = |bases: &[Array2<f64>], factor| {
        let parts: Vec<_> = bases.iter().zip(targets).map(|(q, pair)| multiply(q.view(), target(pair, factor))).collect();
        side_by_side(&parts.iter().map(|part| part.view()).collect::<Vec<_>>())
    };
    let (left, right) = (beside(bases.b, Factor::B), beside(bases.a, Factor::A));
    let tall = |m: &Array2<f64>| m.nrows() >= m.ncols();
    let basis = if tall(&left) && tall(&right) {
        ThinQr::of(right.view())?.basis_of_product(&ThinQr::of(left.view())?)?
    } else {
        // With more columns than rows, the product itself is the smaller matrix.
        let product = right.dot(&left.t());
        if tall(&product) { SubspaceBasis::of(product.view())? } else { SubspaceBasis::of(product.t())?.transposed() }
    };
    let vectors = basis.left().slice(s![.., ..rank.min(basis.left().ncols())]).to_owned();
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::super::layers::tests::{gaussian, layers_of};
    use super::*;
    use crate::inputs::FactorPair;
    use crate::terms::Convention;

    #[test]
    fn what_layers_have_in_common_leads() {
        let weights: Vec<_> = (0..3).map(|l| gaussian(&format!("w{l}"), 12, 12)).collect();
        let shared = gaussian("theta", 12, 2);
        let targets: Targets = weights
            .iter()
            .enumerate()
            .map(|(l, w)| {
                let turn = gaussian(&format!("turn{l}"), 2, 2);
                FactorPair { a_transposed: w.dot(&shared).dot(&turn), b: w.dot(&gaussian(&format!("own{l}"), 12, 2)) }
            })
            .collect();
        let layers = layers_of(Convention::Paper, &weights, targets);
        let found = Leading::of(&layers, &[&layers.trained]).unwrap();
        let basis = SubspaceBasis::of(shared.view()).unwrap();
        let common = crate::similarity::phi(found[0].0[0].as_ref().unwrap().view(), basis.left());
        assert!((common - 1.0).abs() < 1e-12, "{common}");
        let other = crate::similarity::phi(found[0].0[1].as_ref().unwrap().view(), basis.left());
        assert!(other < 0.9, "{other}");
    }
}
