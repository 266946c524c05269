//! Minimum-norm least squares for matrices that LU cannot serve: singular ones and those that are not square.

use ndarray::{Array2, ArrayView2, s};
use ndarray_linalg::{JobSvd, SVDDC};

use super::EPSILON;
use super::condition::triangle_rcond;
use super::lapack::use_one_blas_thread;
use super::norms::{dot, frobenius, frobenius_of, power_near};
use super::panel::Panel;
use super::qr::QrFactors;
use super::strips::values_of;
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
    /// Of W/unit where W is tall, of its transpose where it is wide.
    Qr { factors: QrFactors, unit: f64, wide: bool },
    /// The singular triplets kept: U (out, rank), σ, V (in, rank).
    Svd { u: Array2<f64>, sigma: Vec<f64>, v: Array2<f64> },
}

/// Norms of matrices whose squares neither leave the range of f64 nor lose digits.
const PLAIN: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

impl LeastSquares {
    /// Factorises `w`: by QR where its triangle is well enough conditioned, else by SVD, where singular values up to `max(out, in)·ε·σ₁`
    /// count as zero. With `rcond` always by SVD, where those below `rcond·σ₁` count as zero.
    ///
    /// # Shapes
    /// `w` (out, in).
    /// # Errors
    /// [`Error::Lapack`] if a factorisation fails.
    pub fn factorise(w: ArrayView2<'_, f64>, rcond: Option<f64>) -> Result<Self> {
        Self::with_cutoff(w, rcond, w.nrows().max(w.ncols()))
    }

    /// Like [`Self::factorise`], for the triangle of a larger matrix, whose longer side sets the threshold.
    ///
    /// # Errors
    /// [`Error::Lapack`] if a factorisation fails.
    pub fn factorise_for(triangle: ArrayView2<'_, f64>, longest: usize) -> Result<Self> {
        Self::with_cutoff(triangle, None, longest)
    }

    fn with_cutoff(w: ArrayView2<'_, f64>, rcond: Option<f64>, longest: usize) -> Result<Self> {
        if rcond.is_none() {
            let wide = w.ncols() > w.nrows();
            let tall = if wide { w.t() } else { w };
            if let Some(by_qr) = Self::by_qr(tall.as_standard_layout().into_owned(), frobenius_of(&tall), wide, longest)? {
                return Ok(by_qr);
            }
        }
        Self::by_svd(w, rcond, longest)
    }

    /// By QR of a matrix with at least as many rows as columns and this Frobenius norm: W, or its transpose where W is `wide`. None where the triangle is
    /// too close to singular.
    ///
    /// # Errors
    /// [`Error::Shape`] for a matrix in another layout.
    pub(crate) fn by_qr(mut tall: Array2<f64>, norm: f64, wide: bool, longest: usize) -> Result<Option<Self>> {
        let unit = if PLAIN.contains(&norm) { 1.0 } else { power_near(norm) };
        if unit != 1.0 {
            tall.mapv_inplace(|v| v / unit);
        }
        let factors = QrFactors::factorise(tall)?;
        let triangle = triangle_rcond(&factors);
        let well_conditioned = triangle > longest as f64 * EPSILON;
        Ok(well_conditioned.then(|| {
            let condition = 1.0 / triangle;
            let norm_2 = unit * norm_2_from_below(factors.triangle());
            let rank = factors.shape().1;
            Self { rank, condition, sensitivity: condition, norm_2, factors: Factors::Qr { factors, unit, wide } }
        }))
    }

    /// By SVD.
    ///
    /// # Shapes
    /// `w` (out, in).
    /// # Errors
    /// [`Error::Lapack`] if it does not converge.
    pub(crate) fn by_svd(w: ArrayView2<'_, f64>, rcond: Option<f64>, longest: usize) -> Result<Self> {
        use_one_blas_thread();
        let failed = |detail: String| Error::Lapack { routine: "gesdd", detail };
        let (Some(u), sigma, Some(vt)) = w.svddc(JobSvd::Some).map_err(|e| failed(e.to_string()))? else {
            return Err(failed("singular vectors are missing".into()));
        };
        let largest = sigma.first().copied().unwrap_or(0.0);
        let cutoff = rcond.unwrap_or(longest as f64 * EPSILON) * largest;
        // `--rcond X` drops what is below X·σ₁; the default also drops what is exactly at the threshold, so that zero is never kept.
        let kept = sigma.iter().take_while(|&&s| s > 0.0 && if rcond.is_some() { s >= cutoff } else { s > cutoff }).count();
        let condition = if kept > 0 { largest / sigma[kept - 1] } else { f64::INFINITY };
        let sensitivity = if kept > 0 && kept < sigma.len() { largest / (sigma[kept - 1] - sigma[kept]) } else { condition };
        let first = |m: ArrayView2<'_, f64>| m.slice(s![.., ..kept]).as_standard_layout().into_owned();
        let factors = Factors::Svd { u: first(u.view()), sigma: sigma.iter().take(kept).copied().collect(), v: first(vt.t()) };
        Ok(Self { rank: kept, condition, sensitivity, norm_2: largest, factors })
    }

    /// R of W/unit where W is tall, of its transpose where it is wide, with that unit and whether it is; none where an SVD was made.
    pub(crate) fn triangle(&self) -> Option<(ArrayView2<'_, f64>, f64, bool)> {
        match &self.factors {
            Factors::Qr { factors, unit, wide } => Some((factors.triangle(), *unit, *wide)),
            Factors::Svd { .. } => None,
        }
    }

    /// The storage of the factorised matrix, to be filled again; none where an SVD was made.
    pub(crate) fn into_storage(self) -> Option<Array2<f64>> {
        match self.factors {
            Factors::Qr { factors, .. } => Some(factors.into_storage()),
            Factors::Svd { .. } => None,
        }
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
    #[must_use]
    pub fn solve(&self, targets: ArrayView2<'_, f64>, transposed: bool) -> Array2<f64> {
        self.solve_panel(Panel::of(targets), transposed).theta.all()
    }

    /// [`Self::solve`] for columns in a panel: a column's bits do not depend on the others.
    pub(crate) fn solve_panel(&self, mut targets: Panel, transposed: bool) -> SolvedPanel {
        match &self.factors {
            Factors::Qr { factors, unit, wide } => {
                let (m, n) = factors.shape();
                let mut residuals = None;
                let solved = if *wide == transposed {
                    // The factorised matrix is the one of the equation: X = R⁻¹·Qᵀ·T.
                    targets.reflect(factors, true);
                    residuals = Some(targets.norms_from(n));
                    let mut inner = targets.resized(n);
                    inner.solve_triangle(factors, false);
                    inner
                } else {
                    // The factorised matrix is the transpose: X = Q·R⁻ᵀ·T has least norm among the exact solutions.
                    targets.solve_triangle(factors, true);
                    let mut whole = targets.resized(m);
                    whole.reflect(factors, false);
                    whole
                };
                SolvedPanel { theta: in_units(solved, *unit), residuals }
            }
            Factors::Svd { u, sigma, v } => {
                let (from, to) = if transposed { (v, u) } else { (u, v) };
                SolvedPanel { theta: across(sigma, to, along(from, &targets)), residuals: None }
            }
        }
    }

    /// [`Self::solve_panel`] for targets given as coordinates in the basis of the range that the factorisation has made.
    ///
    /// # Shapes
    /// `coordinates` (min(out, in), k), of which those of singular values that were dropped are not read.
    pub(crate) fn solve_in_range(&self, coordinates: Panel, transposed: bool) -> SolvedPanel {
        let theta = match &self.factors {
            Factors::Qr { factors, unit, .. } => {
                let mut theta = coordinates;
                theta.solve_triangle(factors, false);
                in_units(theta, *unit)
            }
            Factors::Svd { u, sigma, v } => across(sigma, if transposed { u } else { v }, coordinates.resized(sigma.len())),
        };
        SolvedPanel { theta, residuals: None }
    }

    /// The targets with these coordinates in the basis of the range of the longer side.
    ///
    /// # Shapes
    /// (min(out, in), k), returning (max(out, in), k).
    pub(crate) fn out_of_range(&self, coordinates: ArrayView2<'_, f64>) -> Array2<f64> {
        match &self.factors {
            Factors::Qr { factors, .. } => {
                let mut whole = Panel::of(coordinates).resized(factors.shape().0);
                whole.reflect(factors, false);
                whole.all()
            }
            Factors::Svd { u, sigma, v } => {
                let longer = if u.nrows() > v.nrows() { u } else { v };
                longer.dot(&coordinates.slice(s![..sigma.len(), ..]))
            }
        }
    }

    /// `Σ·Vᵀ·residual`, of which the norm is that of `Wᵀ·residual` (`W·residual` when `transposed`) for the W whose negligible singular values are zero.
    ///
    /// # Panics
    /// Where no SVD was made: the product is the one with W itself then.
    pub(crate) fn gradient_of_kept(&self, residual: ArrayView2<'_, f64>, transposed: bool) -> Array2<f64> {
        let Factors::Svd { u, sigma, v } = &self.factors else { unreachable!("only an SVD drops singular values") };
        let mut inner = along(if transposed { v } else { u }, &Panel::of(residual));
        inner.change_rows(sigma, |value, sigma| value * sigma);
        inner.all()
    }
}

/// Solutions, and what the factorisation says of their residuals.
pub(crate) struct SolvedPanel {
    pub(crate) theta: Panel,
    /// The norm of each column's residual, where the equations have no exact solution in general.
    pub(crate) residuals: Option<Vec<f64>>,
}

/// The solution for W of that for W/unit.
fn in_units(mut solved: Panel, unit: f64) -> Panel {
    if unit != 1.0 {
        solved.change_rows(&vec![unit; solved.rows()], |value, unit| value / unit);
    }
    solved
}

/// `Vᵀ·x` for the columns of V.
fn along(vectors: &Array2<f64>, x: &Panel) -> Panel {
    let mut inner = Panel::zeros(vectors.ncols(), x.columns());
    inner.subtract_transposed_product(0, values_of(vectors), x);
    inner.change_rows(&vec![-1.0; vectors.ncols()], |value, sign| value * sign);
    inner
}

/// `U·Σ⁻¹·x` for the columns of U.
fn across(sigma: &[f64], vectors: &Array2<f64>, mut x: Panel) -> Panel {
    x.change_rows(sigma, |value, sigma| value / -sigma);
    let mut out = Panel::zeros(vectors.nrows(), x.columns());
    out.subtract_product(0, values_of(vectors), &x);
    out
}

/// A lower bound on ‖R‖₂, by power iteration from the column of largest norm. Below its diagonal R is not read.
fn norm_2_from_below(r: ArrayView2<'_, f64>) -> f64 {
    let n = r.ncols();
    let r = r.as_standard_layout();
    // The part of each row that is R's.
    let rows = || values_of(&r).chunks_exact(n.max(1)).enumerate().map(|(k, row)| &row[k..]);
    let times = |x: &[f64]| -> Vec<f64> { rows().enumerate().map(|(k, row)| dot(row, &x[k..])).collect() };
    let transposed_times = |y: &[f64]| -> Vec<f64> {
        let mut x = vec![0.0; n];
        for (k, (row, y)) in rows().zip(y).enumerate() {
            row.iter().zip(&mut x[k..]).for_each(|(r, x)| *x += r * y);
        }
        x
    };
    let mut squares = vec![0.0; n];
    for (k, row) in rows().enumerate() {
        row.iter().zip(&mut squares[k..]).for_each(|(r, square)| *square += r * r);
    }
    let norms = squares.iter().map(|square: &f64| square.sqrt());
    let heaviest = norms.enumerate().fold((0, 0.0), |best, (k, norm)| if norm > best.1 { (k, norm) } else { best });
    let mut estimate = heaviest.1;
    let mut x = vec![0.0; n];
    if let Some(entry) = x.get_mut(heaviest.0) {
        *entry = 1.0;
    }
    for _ in 0..8 {
        let mut y = times(&x);
        let size = frobenius(&y);
        if size == 0.0 || !size.is_finite() {
            break;
        }
        estimate = estimate.max(size);
        y.iter_mut().for_each(|v| *v /= size);
        x = transposed_times(&y);
        let length = frobenius(&x);
        if length == 0.0 {
            break;
        }
        x.iter_mut().for_each(|v| *v /= length);
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
                close(&ls.solve(Array2::eye(w.nrows()).view(), false), &p);
                close(&ls.solve(Array2::eye(w.ncols()).view(), true), &p.t().to_owned());
            }
        }
        let singular = array![[1.0, 1.0], [1.0, 1.0]];
        let ls = LeastSquares::factorise(singular.view(), None).unwrap();
        assert_eq!(ls.rank(), 1);
        close(&ls.solve(Array2::eye(2).view(), false), &(singular / 4.0));
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

    /// ‖Wᵀ·residual‖_F, or ‖W·residual‖_F, as it is taken for the check.
    fn gradient_norm(ls: &LeastSquares, w: &Array2<f64>, residual: &Array2<f64>, transposed: bool) -> f64 {
        frobenius_of(&match ls.kept() {
            Some(_) => ls.gradient_of_kept(residual.view(), transposed),
            None if transposed => w.dot(residual),
            None => w.t().dot(residual),
        })
    }

    #[test]
    fn the_gradient_vanishes_at_the_solution() {
        let w = array![[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]];
        let t = array![[1.0], [0.0], [2.0]];
        let ls = LeastSquares::factorise(w.view(), None).unwrap();
        let x = ls.solve(t.view(), false);
        assert!(gradient_norm(&ls, &w, &(&t - &w.dot(&x)), false) < 1e-13);
        assert!(ls.norm_2() <= 10.2 && ls.norm_2() > 10.1);
    }

    #[test]
    fn a_zero_matrix_has_rank_zero_and_zero_solutions() {
        let ls = LeastSquares::factorise(Array2::zeros((3, 2)).view(), None).unwrap();
        assert_eq!(ls.rank(), 0);
        close(&ls.solve(Array2::ones((3, 1)).view(), false), &Array2::zeros((2, 1)));
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
            let found = gradient_norm(&by(rcond), &w, &array![[1.0], [1.0], [7.0]], false);
            assert!((found - straight.sqrt()).abs() < 1e-14, "{rcond:?}: {found}");
            let found = gradient_norm(&by(rcond), &w, &array![[1.0], [4.0]], true);
            assert!((found - turned.sqrt()).abs() < 1e-13, "{rcond:?}: {found}");
        }
    }
}
