//! Minimum-norm least squares for matrices that LU cannot serve: singular ones and those that are not square.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use ndarray_linalg::{Diag, JobSvd, QR, SVDDC, SolveTriangular, UPLO};

use super::EPSILON;
use super::lapack::{triangle_rcond, use_one_blas_thread};
use super::norms::frobenius_of;
use crate::error::{Error, Result};

/// A factorisation that applies `W⁺` and `(Wᵀ)⁺`.
#[derive(Debug)]
pub struct LeastSquares {
    factors: Factors,
    rank: usize,
    condition: f64,
    sensitivity: f64,
    norm_2: f64,
}

#[derive(Debug)]
enum Factors {
    /// `Q·R` of W where it is tall, of Wᵀ where it is wide.
    Qr { q: Array2<f64>, r: Array2<f64>, wide: bool },
    /// The singular triplets kept: U (out, rank), σ, V (in, rank).
    Svd { u: Array2<f64>, sigma: Array1<f64>, v: Array2<f64> },
}

impl LeastSquares {
    /// Factorises `w`: by QR where its triangle is well enough conditioned, else by SVD, where singular values up to `max(out, in)·ε·σ₁`
    /// count as zero. With `rcond` always by SVD, where those below `rcond·σ₁` count as zero.
    ///
    /// # Shapes
    /// `w` (out, in).
    /// # Errors
    /// [`Error::Lapack`] if a factorisation fails.
    pub fn factorise(w: ArrayView2<'_, f64>, rcond: Option<f64>) -> Result<Self> {
        Self::with_cutoff(w, rcond, w.nrows().max(w.ncols()) as f64)
    }

    /// Like [`Self::factorise`], for the triangle of a larger matrix, whose longer side sets the threshold.
    ///
    /// # Errors
    /// [`Error::Lapack`] if a factorisation fails.
    pub fn factorise_for(triangle: ArrayView2<'_, f64>, longest: usize) -> Result<Self> {
        Self::with_cutoff(triangle, None, longest as f64)
    }

    fn with_cutoff(w: ArrayView2<'_, f64>, rcond: Option<f64>, longest: f64) -> Result<Self> {
        use_one_blas_thread();
        if rcond.is_none() {
            let wide = w.ncols() > w.nrows();
            let tall = if wide { w.t() } else { w };
            let (q, r) = tall.qr().map_err(|e| lapack("geqrf", &e))?;
            let r = r.as_standard_layout().into_owned();
            let triangle = triangle_rcond(r.view())?;
            if triangle > longest * EPSILON {
                let norm_2 = norm_2_from_below(&r);
                let condition = 1.0 / triangle;
                return Ok(Self {
                    rank: r.nrows(),
                    condition,
                    sensitivity: condition,
                    norm_2,
                    factors: Factors::Qr { q, r, wide },
                });
            }
        }
        let (Some(u), sigma, Some(vt)) = w.svddc(JobSvd::Some).map_err(|e| lapack("gesdd", &e))? else {
            return Err(Error::Lapack { routine: "gesdd", detail: "singular vectors are missing".into() });
        };
        let largest = sigma.first().copied().unwrap_or(0.0);
        let cutoff = rcond.unwrap_or(longest * EPSILON) * largest;
        // `--rcond X` drops what is below X·σ₁; the default also drops what is exactly at the threshold, so that zero is never kept.
        let kept = sigma.iter().take_while(|&&s| s > 0.0 && if rcond.is_some() { s >= cutoff } else { s > cutoff }).count();
        let condition = if kept > 0 { largest / sigma[kept - 1] } else { f64::INFINITY };
        let sensitivity = if kept > 0 && kept < sigma.len() { largest / (sigma[kept - 1] - sigma[kept]) } else { condition };
        let first = |m: &Array2<f64>, axis| m.select(axis, &(0..kept).collect::<Vec<_>>());
        let factors = Factors::Svd {
            u: first(&u, Axis(1)),
            sigma: sigma.iter().take(kept).copied().collect(),
            v: first(&vt, Axis(0)).reversed_axes(),
        };
        Ok(Self { rank: kept, condition, sensitivity, norm_2: largest, factors })
    }

    /// Numerical rank of W.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The singular vectors kept, left (out, rank) and right (in, rank), where an SVD was made.
    #[must_use]
    pub fn kept(&self) -> Option<[ArrayView2<'_, f64>; 2]> {
        match &self.factors {
            Factors::Svd { u, v, .. } => Some([u.view(), v.view()]),
            Factors::Qr { .. } => None,
        }
    }

    /// The triangle's 1-norm estimate, or σ₁ over the smallest singular value kept.
    #[must_use]
    pub fn condition(&self) -> f64 {
        self.condition
    }

    /// How much errors in W are magnified at most: the condition, or σ₁ over the gap between the singular values kept and dropped, behind which the
    /// subspace that is kept is no better determined (Wedin 1972).
    #[must_use]
    pub fn sensitivity(&self) -> f64 {
        self.sensitivity
    }

    /// ‖W‖₂: exact by SVD, a lower bound by QR.
    #[must_use]
    pub fn norm_2(&self) -> f64 {
        self.norm_2
    }

    /// The minimum-norm X with least ‖W·X − T‖, or ‖Wᵀ·X − T‖ when `transposed`.
    ///
    /// # Shapes
    /// `targets` (out, k), or (in, k) when `transposed`; returns (in, k), or (out, k).
    /// # Errors
    /// [`Error::Lapack`] if a triangular solve fails.
    pub fn solve(&self, targets: ArrayView2<'_, f64>, transposed: bool) -> Result<Array2<f64>> {
        match &self.factors {
            Factors::Qr { q, r, wide } if *wide == transposed => {
                // The factorised matrix is the one of the equation: X = R⁻¹·Qᵀ·T.
                let right = q.t().dot(&targets);
                r.solve_triangular(UPLO::Upper, Diag::NonUnit, &right).map_err(|e| lapack("trtrs", &e))
            }
            Factors::Qr { q, r, .. } => {
                // The factorised matrix is the transpose: X = Q·R⁻ᵀ·T has least norm among the exact solutions.
                let lower = r.t().as_standard_layout().into_owned();
                let inner =
                    lower.solve_triangular(UPLO::Lower, Diag::NonUnit, &targets.to_owned()).map_err(|e| lapack("trtrs", &e))?;
                Ok(q.dot(&inner))
            }
            Factors::Svd { u, sigma, v } => {
                let (from, to) = if transposed { (v, u) } else { (u, v) };
                let mut inner = from.t().dot(&targets);
                for (mut row, s) in inner.rows_mut().into_iter().zip(sigma) {
                    row.mapv_inplace(|x| x / s);
                }
                Ok(to.dot(&inner))
            }
        }
    }

    /// ‖Wᵀ·residual‖_F (‖W·residual‖_F when `transposed`) for the W whose negligible singular values are zero: at the least-squares solution it vanishes.
    #[must_use]
    pub fn gradient_norm(&self, w: ArrayView2<'_, f64>, residual: ArrayView2<'_, f64>, transposed: bool) -> f64 {
        let gradient = match &self.factors {
            Factors::Qr { .. } if transposed => w.dot(&residual),
            Factors::Qr { .. } => w.t().dot(&residual),
            Factors::Svd { u, sigma, v } => {
                let from = if transposed { v } else { u };
                let mut inner = from.t().dot(&residual);
                for (mut row, s) in inner.rows_mut().into_iter().zip(sigma) {
                    row.mapv_inplace(|x| x * s);
                }
                inner
            }
        };
        frobenius_of(&gradient)
    }
}

fn lapack(routine: &'static str, error: &impl ToString) -> Error {
    Error::Lapack { routine, detail: error.to_string() }
}

/// A lower bound on ‖R‖₂, by power iteration from the column of largest norm.
fn norm_2_from_below(r: &Array2<f64>) -> f64 {
    let heaviest = r
        .columns()
        .into_iter()
        .map(|c| frobenius_of(&c))
        .enumerate()
        .fold((0, 0.0), |best, (k, norm)| if norm > best.1 { (k, norm) } else { best });
    let mut estimate = heaviest.1;
    let mut x = Array1::zeros(r.ncols());
    if let Some(entry) = x.get_mut(heaviest.0) {
        *entry = 1.0;
    }
    for _ in 0..8 {
        let y = r.dot(&x);
        let size = frobenius_of(&y);
        if size == 0.0 || !size.is_finite() {
            break;
        }
        estimate = estimate.max(size);
        let z = r.t().dot(&(y / size));
        let length = frobenius_of(&z);
        if length == 0.0 {
            break;
        }
        x = z / length;
    }
    estimate
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn close(a: &Array2<f64>, b: &Array2<f64>) {
        let error = (a - b).iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(error < 1e-13, "{a} against {b}");
    }

    #[test]
    fn tall_wide_and_singular_match_the_pseudoinverse() {
        // Pseudoinverses computed by hand.
        let tall = array![[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]];
        let pinv = array![[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]];
        for (w, p) in [(tall.clone(), pinv.clone()), (tall.t().to_owned(), pinv.t().to_owned())] {
            for rcond in [None, Some(1e-12)] {
                let ls = LeastSquares::factorise(w.view(), rcond).unwrap();
                assert_eq!(ls.rank(), 2);
                close(&ls.solve(Array2::eye(w.nrows()).view(), false).unwrap(), &p);
                close(&ls.solve(Array2::eye(w.ncols()).view(), true).unwrap(), &p.t().to_owned());
            }
        }
        let singular = array![[1.0, 1.0], [1.0, 1.0]];
        let ls = LeastSquares::factorise(singular.view(), None).unwrap();
        assert_eq!(ls.rank(), 1);
        close(&ls.solve(Array2::eye(2).view(), false).unwrap(), &(singular / 4.0));
    }

    #[test]
    fn rcond_drops_small_singular_values() {
        let w = array![[1.0, 0.0], [0.0, 1e-3]];
        assert_eq!(LeastSquares::factorise(w.view(), Some(1e-2)).unwrap().rank(), 1);
        assert_eq!(LeastSquares::factorise(w.view(), Some(1e-4)).unwrap().rank(), 2);
        let close = Array2::from_diag(&array![1.0, 0.25, 0.125]);
        let ls = LeastSquares::factorise(close.view(), Some(0.2)).unwrap();
        assert_eq!((ls.rank(), ls.condition(), ls.sensitivity()), (2, 4.0, 8.0));
        let ls = LeastSquares::factorise(close.view(), Some(0.1)).unwrap();
        assert_eq!((ls.rank(), ls.condition(), ls.sensitivity()), (3, 8.0, 8.0));
    }

    #[test]
    fn the_gradient_vanishes_at_the_solution() {
        let w = array![[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]];
        let t = array![[1.0], [0.0], [2.0]];
        let ls = LeastSquares::factorise(w.view(), None).unwrap();
        let x = ls.solve(t.view(), false).unwrap();
        assert!(ls.gradient_norm(w.view(), (&t - &w.dot(&x)).view(), false) < 1e-13);
        assert!(ls.norm_2() <= 10.2 && ls.norm_2() > 10.1);
    }

    #[test]
    fn a_zero_matrix_has_rank_zero_and_zero_solutions() {
        let ls = LeastSquares::factorise(Array2::zeros((3, 2)).view(), None).unwrap();
        assert_eq!(ls.rank(), 0);
        close(&ls.solve(Array2::ones((3, 1)).view(), false).unwrap(), &Array2::zeros((2, 1)));
    }

    #[test]
    fn the_condition_is_that_of_the_factorisation() {
        // QR estimates the condition in the 1-norm, at most 2·2; SVD gives the one in the 2-norm, (3 + √5)/2 = 2.6.
        let w = array![[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]];
        let by = |rcond| LeastSquares::factorise(w.view(), rcond).unwrap();
        assert!((3.0..=4.0).contains(&by(None).condition()) && by(None).sensitivity() == by(None).condition());
        let exact = (3.0 + 5.0_f64.sqrt()) / 2.0;
        assert!((by(Some(1e-9)).condition() - exact).abs() < 1e-14 && (by(Some(1e-9)).sensitivity() - exact).abs() < 1e-14);
    }

    #[test]
    fn what_lies_at_the_threshold() {
        // `rcond` keeps this singular value; the default threshold drops it.
        let at = |sigma: f64| Array2::from_diag(&array![1.0, sigma]);
        assert_eq!(LeastSquares::factorise(at(0.25).view(), Some(0.25)).unwrap().rank(), 2);
        assert_eq!(LeastSquares::factorise(at(2.0 * EPSILON).view(), None).unwrap().rank(), 1);
        assert_eq!(LeastSquares::factorise(at(0.0).view(), Some(0.0)).unwrap().rank(), 1);
    }

    #[test]
    fn the_gradient_of_what_is_no_solution_by_hand() {
        let w = array![[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]];
        let by = |rcond| LeastSquares::factorise(w.view(), rcond).unwrap();
        for (rcond, straight, turned) in [(None, 25.0_f64, 265.0_f64), (Some(1e-3), 25.0, 265.0), (Some(0.9), 16.0, 256.0)] {
            let found = by(rcond).gradient_norm(w.view(), array![[1.0], [1.0], [7.0]].view(), false);
            assert!((found - straight.sqrt()).abs() < 1e-14, "{rcond:?}: {found}");
            let found = by(rcond).gradient_norm(w.view(), array![[1.0], [4.0]].view(), true);
            assert!((found - turned.sqrt()).abs() < 1e-13, "{rcond:?}: {found}");
        }
    }
}
