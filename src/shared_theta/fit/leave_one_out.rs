//! One Θ of all layers but one, tried on the layer that is left out.
//!
//! A factor is taken as a subspace: the column space of B or of Aᵀ, in the basis of the singular vectors of the update. With maps M_m (W0, or W0ᵀ) and
//! orthonormal T_m (rows, r), the Θ of r columns that is best for the other layers maximises `Σ_{m≠l} ‖T_mᵀ·M_m·θ‖² / Σ_{m≠l} ‖M_m·θ‖²`. It depends on no
//! basis and no norm of the factors and has no local optimum: the r leading solutions are an eigenproblem of as many unknowns as the T_m have columns.
//! Everything is compared where the factors live, so that the small singular directions of W0 magnify nothing.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::inputs::FactorPair;
use crate::linalg::EPSILON;
use crate::linalg::lapack::{multiply, symmetric_eigen};
use crate::linalg::subspace::{SubspaceBasis, ThinQr};
use crate::table::HeldOutRow;

/// How much each direction of a factor counts, in the fit and in the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weighting {
    /// All alike.
    Subspace,
    /// By the squares of the singular values of the update.
    Energy,
}

impl Weighting {
    pub(super) const ALL: [Self; 2] = [Self::Subspace, Self::Energy];

    /// Its name in `heldout.csv`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subspace => HeldOutRow::SUBSPACE,
            Self::Energy => HeldOutRow::ENERGY,
        }
    }
}

/// A factor of one layer: the directions that its update uses of it.
#[derive(Debug, Clone)]
pub(super) struct Subspace {
    /// Orthonormal columns (rows, k), those of the largest singular values of the update first.
    pub(super) vectors: Array2<f64>,
    /// The singular values.
    pub(super) sigma: Vec<f64>,
}

impl Subspace {
    /// Those of Aᵀ and of B; none where the update is zero.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the product overflows, [`Error::Lapack`] if an SVD fails.
    pub(super) fn of_update(pair: &FactorPair) -> Result<Option<[Self; 2]>> {
        let (a, b) = (pair.a_transposed.view(), pair.b.view());
        let tall = |m: ArrayView2<'_, f64>| m.nrows() >= m.ncols();
        let basis = if tall(a) && tall(b) {
            ThinQr::of(b)?.basis_of_product(&ThinQr::of(a)?)?
        } else {
            // With more columns than rows, the product itself is the smaller matrix.
            let product = b.dot(&a.t());
            if tall(product.view()) { SubspaceBasis::of(product.view())? } else { SubspaceBasis::of(product.t())?.transposed() }
        };
        let rank = basis.spectrum().rank();
        let side = |vectors: ArrayView2<'_, f64>| Self {
            vectors: vectors.slice(s![.., ..rank]).to_owned(),
            sigma: basis.spectrum().sigma()[..rank].to_vec(),
        };
        Ok((rank > 0).then(|| [side(basis.right()), side(basis.left())]))
    }

    /// What the columns are multiplied by: their squares add up to 1.
    fn weights(&self, weighting: Weighting) -> Vec<f64> {
        let weights = match weighting {
            Weighting::Subspace => vec![1.0; self.sigma.len()],
            Weighting::Energy => self.sigma.clone(),
        };
        let norm = weights.iter().fold(0.0_f64, |norm, weight| norm.hypot(*weight));
        weights.into_iter().map(|weight| weight / norm).collect()
    }

    /// The share of it that lies in a subspace given by orthonormal columns.
    fn share_within(&self, predicted: ArrayView2<'_, f64>, weighting: Weighting) -> f64 {
        let within = self.vectors.t().dot(&predicted);
        within.rows().into_iter().zip(self.weights(weighting)).map(|(row, weight)| weight * weight * row.dot(&row)).sum()
    }
}

/// The scores of every layer, left out in turn, for each weighting; none where nothing is left to predict it from.
pub(super) type LayerScores = [Vec<Option<f64>>; 2];

/// The mean over layers.
pub(super) fn mean(scores: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = scores.iter().copied().flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

/// The maps from one Θ to a factor of each layer, prepared for every layer that may be left out.
pub(super) struct LeaveOneOut<'a> {
    /// Q_mᵀ (n, rows), in an orthonormal basis of the column space of all maps: only directions that one layer alone sees are left to be badly scaled.
    bases: Vec<&'a Array2<f64>>,
    /// For each l a root E (k, n) with `EᵀE = (Σ_{m≠l} Q_mᵀ·Q_m)⁺`.
    roots: Vec<Array2<f64>>,
    /// Q_l·Eᵀ (rows, k): what a direction in the coordinates of E makes of the layer left out.
    predictors: Vec<Array2<f64>>,
    /// r: how many directions are predicted.
    rank: usize,
}

impl<'a> LeaveOneOut<'a> {
    /// Prepares the prediction of `rank` directions.
    ///
    /// # Shapes
    /// `bases`: Q_mᵀ (n, rows) of the layers that take part.
    /// # Errors
    /// [`Error::Lapack`] if an eigenproblem does not converge.
    pub(super) fn new(bases: Vec<&'a Array2<f64>>, rank: usize) -> Result<Self> {
        let grams: Vec<Array2<f64>> = bases.par_iter().map(|q| multiply(q.view(), q.t())).collect();
        let root = |left_out: usize| -> Result<Array2<f64>> {
            let mut others = Array2::zeros(grams[left_out].dim());
            for (_, gram) in grams.iter().enumerate().filter(|(m, _)| *m != left_out) {
                others += gram;
            }
            inverse_root(others)
        };
        let roots = (0..grams.len()).into_par_iter().map(root).collect::<Result<Vec<_>>>()?;
        let predictors = bases.par_iter().zip(&roots).map(|(q, root)| multiply(q.t(), root.t())).collect();
        Ok(Self { bases, roots, predictors, rank })
    }

    /// Whether there is only one layer, which nothing can predict.
    pub(super) fn is_alone(&self) -> bool {
        self.bases.len() < 2
    }

    /// Whether the other layers leave some direction of Θ open when this one is left out.
    pub(super) fn is_singular(&self, left_out: usize) -> bool {
        let (k, n) = self.roots[left_out].dim();
        k < n
    }

    /// How much of each layer's subspace the others predict.
    ///
    /// # Errors
    /// [`Error::Lapack`] if an eigenproblem or SVD does not converge.
    pub(super) fn scores(&self, subspaces: &[&Subspace]) -> Result<LayerScores> {
        // What each layer asks of Θ, Q_mᵀ·T_m, whoever is left out.
        let asked: Vec<Array2<f64>> =
            self.bases.iter().zip(subspaces).map(|(q, t)| multiply(q.view(), t.vectors.view())).collect();
        let mut scores: LayerScores = [Vec::new(), Vec::new()];
        for left_out in 0..subspaces.len() {
            let others: Vec<usize> = (0..subspaces.len()).filter(|m| *m != left_out).collect();
            if others.is_empty() {
                scores.iter_mut().for_each(|scores| scores.push(None));
                continue;
            }
            let there = side_by_side(others.iter().map(|m| asked[*m].view()))?;
            let whitened = multiply(self.roots[left_out].view(), there.view());
            let of =
                |weighting| leading(weighted(&whitened, others.iter().flat_map(|m| subspaces[*m].weights(weighting))), self.rank);
            let best = Weighting::ALL.into_iter().map(of).collect::<Result<Vec<_>>>()?;
            // One product for both: the matrix is large and they are thin.
            let predicted =
                multiply(self.predictors[left_out].view(), side_by_side(best.iter().map(|theta| theta.view()))?.view());
            let mut first = 0;
            for ((scores, weighting), theta) in scores.iter_mut().zip(Weighting::ALL).zip(&best) {
                let columns = first..first + theta.ncols();
                first = columns.end;
                let predicted = column_space(predicted.slice(s![.., columns]))?;
                scores.push(Some(subspaces[left_out].share_within(predicted.view(), weighting)));
            }
        }
        Ok(scores)
    }
}

/// The same without W0: the `rank` leading directions of the other layers' own subspaces.
///
/// # Errors
/// [`Error::Lapack`] if an eigenproblem or SVD does not converge.
pub(super) fn scores_without_w0(subspaces: &[&Subspace], rank: usize) -> Result<LayerScores> {
    let mut scores: LayerScores = [Vec::new(), Vec::new()];
    for left_out in 0..subspaces.len() {
        let others: Vec<&Subspace> = subspaces.iter().enumerate().filter(|(m, _)| *m != left_out).map(|(_, t)| *t).collect();
        for (scores, weighting) in scores.iter_mut().zip(Weighting::ALL) {
            if others.is_empty() {
                scores.push(None);
                continue;
            }
            let all = side_by_side(others.iter().map(|t| t.vectors.view()))?;
            let predicted = leading(weighted(&all, others.iter().flat_map(|t| t.weights(weighting))), rank)?;
            let predicted = column_space(predicted.view())?;
            scores.push(Some(subspaces[left_out].share_within(predicted.view(), weighting)));
        }
    }
    Ok(scores)
}

/// `E` (k, n) with `EᵀE = K⁺` for a symmetric K of rank k.
fn inverse_root(mut gram: Array2<f64>) -> Result<Array2<f64>> {
    let n = gram.nrows();
    let values = symmetric_eigen(&mut gram)?;
    let cutoff = n as f64 * EPSILON * values.last().copied().unwrap_or(0.0);
    let first = values.iter().take_while(|value| **value <= cutoff).count();
    let mut root = gram.slice(s![.., first..]).t().to_owned();
    for (mut row, value) in root.rows_mut().into_iter().zip(&values[first..]) {
        row.mapv_inplace(|v| v / value.sqrt());
    }
    Ok(root)
}

/// The columns, each multiplied by its weight.
fn weighted(columns: &Array2<f64>, weights: impl Iterator<Item = f64>) -> Array2<f64> {
    let mut out = columns.clone();
    for (mut column, weight) in out.columns_mut().into_iter().zip(weights) {
        column.mapv_inplace(|v| v * weight);
    }
    out
}

/// The directions of the `rank` largest singular values of Z, each as long as its singular value: from the eigenvectors of ZᵀZ, which is small.
fn leading(z: Array2<f64>, rank: usize) -> Result<Array2<f64>> {
    let mut gram = multiply(z.t(), z.view());
    symmetric_eigen(&mut gram)?;
    let first = gram.ncols().saturating_sub(rank);
    // Eigenvalues come smallest first.
    Ok(z.dot(&gram.slice(s![.., first..])))
}

/// An orthonormal basis of what the columns span.
fn column_space(matrix: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    let basis =
        if matrix.nrows() >= matrix.ncols() { SubspaceBasis::of(matrix)? } else { SubspaceBasis::of(matrix.t())?.transposed() };
    Ok(basis.left().slice(s![.., ..basis.spectrum().rank()]).to_owned())
}

fn side_by_side<'v>(parts: impl Iterator<Item = ArrayView2<'v, f64>>) -> Result<Array2<f64>> {
    let views: Vec<_> = parts.collect();
    concatenate(Axis(1), &views).map_err(|_| Error::Shape {
        what: "directions of several layers",
        expected: "one length".into(),
        found: format!("{:?}", views.iter().map(|view| view.nrows()).collect::<Vec<_>>()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::layers::tests::gaussian;
    use super::*;
    use crate::linalg::least_squares::LeastSquares;
    use crate::linalg::norms::frobenius_of;
    use crate::linalg::stacked::StackedQr;

    /// Maps (rows, n), and Q_mᵀ with `M_m = Q_m·R`.
    fn maps(count: usize, rows: usize, n: usize) -> (Vec<Array2<f64>>, Vec<Array2<f64>>) {
        let maps: Vec<_> = (0..count).map(|m| gaussian(&format!("map{m}"), rows, n) * (1.0 + m as f64)).collect();
        let mut stack = StackedQr::new(n);
        maps.iter().for_each(|map| stack.add(map.view(), Vec::new()).unwrap());
        let solver = stack.least_squares().unwrap();
        let bases = maps.iter().map(|map| solver.solve(map.t(), true)).collect();
        (maps, bases)
    }

    fn subspace(columns: &Array2<f64>, sigma: &[f64]) -> Subspace {
        Subspace { vectors: ThinQr::of(columns.view()).unwrap().q(), sigma: sigma.to_vec() }
    }

    fn scores(bases: &[Array2<f64>], subspaces: &[Subspace], rank: usize) -> LayerScores {
        let study = LeaveOneOut::new(bases.iter().collect(), rank).unwrap();
        study.scores(&subspaces.iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_shared_theta_is_predicted_in_full_and_one_of_its_own_is_not() {
        for (rows, n) in [(16, 16), (20, 11), (9, 16)] {
            let (maps, bases) = maps(5, rows, n);
            let theta = gaussian("theta", n, 2);
            let turned = |l: usize| maps[l].dot(&theta).dot(&gaussian(&format!("turn{l}"), 2, 2));
            let shared: Vec<Subspace> = (0..5).map(|l| subspace(&turned(l), &[3.0, 1.0])).collect();
            let [by_subspace, by_energy] = scores(&bases, &shared, 2);
            assert!(by_subspace.iter().all(|score| (score.unwrap() - 1.0).abs() < 1e-12), "{by_subspace:?}");
            // In turned bases the energies belong to other directions, which costs something.
            assert!(by_energy.iter().all(|score| (0.0..1.0 + 1e-12).contains(&score.unwrap())), "{by_energy:?}");
            assert!(mean(&by_energy).unwrap() > 2.0 / rows as f64, "{by_energy:?}");
            let own: Vec<Subspace> =
                (0..5).map(|l| subspace(&maps[l].dot(&gaussian(&format!("own{l}"), n, 2)), &[3.0, 1.0])).collect();
            let [by_subspace, _] = scores(&bases, &own, 2);
            assert!(mean(&by_subspace).unwrap() < 0.6, "{by_subspace:?}");
        }
    }

    #[test]
    fn the_prediction_is_the_optimum_of_its_quotient() {
        let (maps, bases) = maps(4, 12, 12);
        let targets: Vec<Subspace> = (0..4).map(|l| subspace(&gaussian(&format!("t{l}"), 12, 2), &[2.0, 0.5])).collect();
        let [found, _] = scores(&bases, &targets, 1);
        // The leading direction of the other layers, by power iteration on the quotient itself.
        for left_out in 0..4 {
            let others = || (0..4).filter(move |m| *m != left_out);
            let sum = |of: &dyn Fn(usize) -> Array2<f64>| others().map(of).reduce(|a, b| a + b).unwrap();
            let gram = sum(&|m| maps[m].t().dot(&maps[m]));
            let asked = sum(&|m| {
                let x = maps[m].t().dot(&targets[m].vectors);
                x.dot(&x.t())
            });
            let solver = LeastSquares::factorise(gram.view(), None).unwrap();
            let mut theta = gaussian("start", 12, 1);
            for _ in 0..4000 {
                theta = solver.solve(asked.dot(&theta).view(), false);
                let size = frobenius_of(&theta);
                theta.mapv_inplace(|v| v / size);
            }
            let predicted = column_space(maps[left_out].dot(&theta).view()).unwrap();
            let expected = targets[left_out].share_within(predicted.view(), Weighting::Subspace);
            assert!((found[left_out].unwrap() - expected).abs() < 1e-8, "{left_out}: {found:?} and {expected}");
        }
    }

    #[test]
    fn neither_the_basis_nor_the_size_of_a_factor_counts() {
        let (_, bases) = maps(4, 12, 12);
        let pair = |l: usize, scale: f64, turned: bool| {
            let (a, b) = (gaussian(&format!("a{l}"), 12, 3), gaussian(&format!("b{l}"), 12, 3) * scale);
            if !turned {
                return FactorPair { a_transposed: a, b };
            }
            // A → R·A and B → B·R⁻¹ with an orthogonal R times 5.
            let r = ThinQr::of(gaussian(&format!("r{l}"), 3, 3).view()).unwrap().q();
            FactorPair { a_transposed: a.dot(&r.t()) * 5.0, b: b.dot(&r.t()) / 5.0 }
        };
        let of = |scale: f64, turned: bool| {
            let sides = (0..4).map(|l| Subspace::of_update(&pair(l, scale * (1.0 + l as f64), turned)).unwrap().unwrap());
            let b: Vec<Subspace> = sides.map(|[_, b]| b).collect();
            (scores(&bases, &b, 3), scores_without_w0(&b.iter().collect::<Vec<_>>(), 3).unwrap())
        };
        let (one, other) = (of(1.0, false), of(1e3, true));
        let all = |(with, without): &(LayerScores, LayerScores)| -> Vec<f64> {
            with.iter().chain(without).flatten().map(|score| score.unwrap()).collect()
        };
        for (a, b) in all(&one).iter().zip(all(&other)) {
            assert!((a - b).abs() < 1e-11, "{a} and {b}");
        }
    }

    #[test]
    fn factors_that_are_alike_predict_one_another_without_w0() {
        let common = gaussian("common", 15, 2);
        let alike: Vec<Subspace> = (0..3).map(|l| subspace(&(&common * (1.0 + l as f64)), &[2.0, 1.0])).collect();
        for scores in scores_without_w0(&alike.iter().collect::<Vec<_>>(), 2).unwrap() {
            assert!(scores.iter().all(|score| (score.unwrap() - 1.0).abs() < 1e-13));
        }
        // Orthogonal ones predict nothing.
        let basis = ThinQr::of(gaussian("all", 15, 6).view()).unwrap().q();
        let apart: Vec<Subspace> = (0..3)
            .map(|l| Subspace { vectors: basis.slice(s![.., 2 * l..2 * l + 2]).to_owned(), sigma: vec![2.0, 1.0] })
            .collect();
        for scores in scores_without_w0(&apart.iter().collect::<Vec<_>>(), 2).unwrap() {
            assert!(scores.iter().all(|score| score.unwrap() < 1e-28));
        }
    }

    #[test]
    fn random_factors_score_r_over_n() {
        let (_, bases) = maps(4, 24, 24);
        let study = LeaveOneOut::new(bases.iter().collect(), 3).unwrap();
        let mut all = Vec::new();
        for draw in 0..60 {
            let drawn: Vec<Subspace> =
                (0..4).map(|l| subspace(&gaussian(&format!("draw{draw} {l}"), 24, 3), &[4.0, 2.0, 1.0])).collect();
            let [by_subspace, by_energy] = study.scores(&drawn.iter().collect::<Vec<_>>()).unwrap();
            all.push([mean(&by_subspace).unwrap(), mean(&by_energy).unwrap()]);
        }
        for k in 0..2 {
            let values: Vec<f64> = all.iter().map(|scores| scores[k]).collect();
            let (mean, sd) = crate::controls::mean_and_sd(&values);
            let error = sd.unwrap() / (values.len() as f64).sqrt();
            assert!((mean.unwrap() - 3.0 / 24.0).abs() < 4.5 * error, "{mean:?} ± {error}");
        }
    }

    #[test]
    fn what_no_other_layer_sees_is_left_out() {
        // Two layers of wide maps: the one that is left sees 5 of 12 directions.
        let (_, bases) = maps(2, 5, 12);
        let study = LeaveOneOut::new(bases.iter().collect(), 2).unwrap();
        assert!(study.is_singular(0) && study.is_singular(1));
        let targets: Vec<Subspace> = (0..2).map(|l| subspace(&gaussian(&format!("t{l}"), 5, 2), &[1.0, 1.0])).collect();
        let [scores, _] = study.scores(&targets.iter().collect::<Vec<_>>()).unwrap();
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(&score.unwrap())));
        let zero = FactorPair { a_transposed: gaussian("a", 5, 2), b: Array2::zeros((6, 2)) };
        assert!(Subspace::of_update(&zero).unwrap().is_none());
        let [alone, _] = LeaveOneOut::new(vec![&bases[0]], 2).unwrap().scores(&[&targets[0]]).unwrap();
        assert_eq!(alone, [None]);
    }
}
