//! The fit of the updates: Θ_A and Θ_B that minimise `Σ_l ‖W0_l·Θ_B·(W0_l·Θ_A)ᵀ − B_l·A_l‖_F²` (`W0_lᵀ·Θ_A` in the `general` convention).
//!
//! The update B·A does not depend on the basis in which each layer's A and B are stored (A → R·A, B → B·R⁻¹); the direct fit does. The method is alternating least
//! squares from several starts, of which the best is kept. No matrix of the size of an update is formed: with `W0_l = Q_l·R` all work is on matrices of r columns.

use ndarray::{Array2, ArrayView2, Axis, concatenate};

use super::half_step::half_step;
use super::layers::{Targets, target};
use super::score::Squares;
use crate::controls::Factor;
use crate::error::{Error, Result};
use crate::linalg::norms::frobenius_of;
use crate::linalg::subspace::ThinQr;

/// When a search stops.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// A sweep that lowers the residual by less than this, relative to it, is the last.
    progress: f64,
    /// The gradient, relative to the residual, at which a half step is done.
    gradient: f64,
}

/// Enough to tell the starts apart: they differ by 1e-3 where they lead to different ends.
const FIRST: Effort = Effort { progress: 1e-4, gradient: 1e-2 };
/// For the best of them: a hundredth of the variation of random targets, and all digits of an exact Θ.
const LAST: Effort = Effort { progress: 1e-7, gradient: 1e-3 };
/// A residual below this, relative to the targets, is rounding.
const EXACT: f64 = 1e-13;
const MOST_SWEEPS: usize = 300;

/// Where a search begins: one factor, in the coordinates of its stack.
pub(super) struct Start {
    pub(super) fixed: Factor,
    pub(super) y: Array2<f64>,
}

/// The weights of all layers in the coordinates of their stacks: Q_lᵀ (n, rows) for Θ_A and for Θ_B.
#[derive(Clone, Copy)]
pub(super) struct Bases<'a> {
    pub(super) a: &'a [Array2<f64>],
    pub(super) b: &'a [Array2<f64>],
}

/// The result of a search.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// Y_A and Y_B with `W0_l·Θ = Q_l·Y`.
    pub(super) y: [Array2<f64>; 2],
    pub(super) squares: Squares,
    /// The residual of all layers together, relative to the targets.
    pub(super) residual: f64,
    pub(super) sweeps: usize,
    /// Whether it ended because it no longer improved.
    pub(super) converged: bool,
}

/// The updates of all layers, to be fitted.
pub(super) struct Updates<'a> {
    bases: Bases<'a>,
    a_transposed: Vec<ArrayView2<'a, f64>>,
    b: Vec<ArrayView2<'a, f64>>,
    squared_norms: Vec<f64>,
}

impl<'a> Updates<'a> {
    /// `None` where all updates are zero.
    ///
    /// # Errors
    /// [`Error::Lapack`] if a QR fails.
    pub(super) fn new(bases: Bases<'a>, targets: &'a Targets) -> Result<Option<Self>> {
        let of = |factor| targets.iter().map(|pair| target(pair, factor)).collect::<Vec<_>>();
        let (a_transposed, b) = (of(Factor::A), of(Factor::B));
        let norms: Result<Vec<f64>> = b.iter().zip(&a_transposed).map(|(b, a)| norm_of_product(b.view(), a.view())).collect();
        let squared_norms: Vec<f64> = norms?.iter().map(|norm| norm * norm).collect();
        let nothing = squared_norms.iter().all(|norm| *norm == 0.0);
        Ok((!nothing).then_some(Self { bases, a_transposed, b, squared_norms }))
    }

    /// Searches briefly from each start, then continues from the best one to the end; of equal ones the first is taken.
    ///
    /// # Errors
    /// Those of [`Self::search`].
    pub(super) fn best(&self, starts: &[Start]) -> Result<Option<Search>> {
        let mut best: Option<Search> = None;
        for start in starts {
            let found = self.search(start, FIRST)?;
            if best.as_ref().is_none_or(|best| found.residual < best.residual) {
                best = Some(found);
            }
            if best.as_ref().is_some_and(|best| best.residual <= EXACT) {
                break;
            }
        }
        let Some(first) = best else { return Ok(None) };
        let last = self.alternate(first.y.clone(), Factor::A, LAST)?;
        let sweeps = first.sweeps + last.sweeps;
        Ok(Some(if last.residual < first.residual { Search { sweeps, ..last } } else { Search { converged: true, ..first } }))
    }

    /// Alternating least squares from one start.
    ///
    /// # Errors
    /// [`Error::Lapack`] if a QR fails, [`Error::NonFinite`] after an overflow.
    pub(super) fn search(&self, start: &Start, effort: Effort) -> Result<Search> {
        let zeros = |bases: &[Array2<f64>]| Array2::zeros((bases.first().map_or(0, |q| q.nrows()), start.y.ncols()));
        let mut y = [zeros(self.bases.a), zeros(self.bases.b)];
        y[usize::from(start.fixed == Factor::B)] = start.y.clone();
        self.alternate(y, start.fixed, effort)
    }

    /// The residual never grows from sweep to sweep: a sweep that would raise it ends the search before it.
    fn alternate(&self, mut y: [Array2<f64>; 2], fixed: Factor, effort: Effort) -> Result<Search> {
        let mut found: Option<Search> = None;
        for sweep in 1..=MOST_SWEEPS {
            y = if fixed == Factor::A {
                let b = self.best_b(&y[0], &y[1], effort)?;
                [self.best_a(&b, &y[0], effort)?, b]
            } else {
                let a = self.best_a(&y[1], &y[0], effort)?;
                let b = self.best_b(&a, &y[1], effort)?;
                [a, b]
            };
            let squares = self.squares(&y)?;
            let residual = (squares.residual.iter().sum::<f64>() / squares.target.iter().sum::<f64>()).sqrt();
            let before = found.as_ref().map(|found| found.residual);
            let converged = residual <= EXACT || before.is_some_and(|before| before - residual <= effort.progress * before);
            if let Some(best) = found.as_mut().filter(|best| residual >= best.residual) {
                best.converged = true;
                break;
            }
            found = Some(Search { y: y.clone(), squares, residual, sweeps: sweep, converged });
            if converged {
                break;
            }
        }
        found.ok_or_else(|| Error::NonFinite { what: "the residual of a shared Θ".into(), found: "NaN".into() })
    }

    fn best_b(&self, y_a: &Array2<f64>, from: &Array2<f64>, effort: Effort) -> Result<Array2<f64>> {
        let partner = products(self.bases.a, y_a);
        half_step(self.bases.b, &partner, &self.b, &self.a_transposed, from, effort.gradient)
    }

    fn best_a(&self, y_b: &Array2<f64>, from: &Array2<f64>, effort: Effort) -> Result<Array2<f64>> {
        let partner = products(self.bases.b, y_b);
        half_step(self.bases.a, &partner, &self.a_transposed, &self.b, from, effort.gradient)
    }

    /// The squared residual of each layer, from `[M_B, −B]·[M_A, Aᵀ]ᵀ`, so that no digit is lost where the two are close.
    fn squares(&self, y: &[Array2<f64>; 2]) -> Result<Squares> {
        let (of_a, of_b) = (products(self.bases.a, &y[0]), products(self.bases.b, &y[1]));
        let mut residual = Vec::with_capacity(of_a.len());
        for (l, (m_a, m_b)) in of_a.iter().zip(&of_b).enumerate() {
            let negative = self.b[l].mapv(|v| -v);
            let beside = |x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>| {
                concatenate(Axis(1), &[x, y]).map_err(|_| Error::Shape {
                    what: "residual of an update",
                    expected: format!("{} rows", x.nrows()),
                    found: y.nrows().to_string(),
                })
            };
            let left = beside(m_b.view(), negative.view())?;
            let right = beside(m_a.view(), self.a_transposed[l])?;
            residual.push(norm_of_product(left.view(), right.view())?.powi(2));
        }
        Ok(Squares { residual, target: self.squared_norms.clone() })
    }
}

/// `Q_l·Y` of every layer.
fn products(bases: &[Array2<f64>], y: &Array2<f64>) -> Vec<Array2<f64>> {
    bases.iter().map(|q| q.t().dot(y)).collect()
}

/// ‖X·Yᵀ‖_F through the triangles of both.
pub(super) fn norm_of_product(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    let triangle = |m: ArrayView2<'_, f64>| -> Result<Array2<f64>> {
        // A wide matrix is its own small factor.
        if m.nrows() < m.ncols() { Ok(m.to_owned()) } else { Ok(ThinQr::of(m)?.r) }
    };
    Ok(frobenius_of(&triangle(x)?.dot(&triangle(y)?.t())))
}

#[cfg(test)]
mod tests {
    use super::super::direct::fit_direct;
    use super::super::layers::tests::{gaussian, layers_of};
    use super::super::starts::{Leading, starts};
    use super::*;
    use crate::inputs::FactorPair;
    use crate::terms::Convention;

    /// Weights of very different scales, one of them badly conditioned.
    fn weights(count: usize, d_out: usize, d_in: usize) -> Vec<Array2<f64>> {
        let mut all: Vec<_> = (0..count).map(|l| gaussian(&format!("w{l}"), d_out, d_in) * (1.0 + l as f64)).collect();
        for mut column in all[0].columns_mut().into_iter().skip(d_in / 2) {
            column.mapv_inplace(|v| v * 1e-4);
        }
        all
    }

    /// Fits `targets`: the search from each start, and the best.
    fn fits(convention: Convention, weights: &[Array2<f64>], targets: Targets) -> (Vec<Search>, Search) {
        let layers = layers_of(convention, weights, targets);
        let direct = fit_direct(&layers, 0, 0).unwrap();
        let of = |factor| -> Vec<_> { (0..layers.count()).map(|l| direct.stack(factor).basis_of(&layers, l).unwrap()).collect() };
        let (a, b) = (of(Factor::A), of(Factor::B));
        let bases = Bases { a: &a, b: &b };
        let leading = Leading::of(&layers, &[&layers.trained]).unwrap();
        let starts = starts(&layers, &direct, bases, &layers.trained, &leading[0], 3).unwrap();
        let updates = Updates::new(bases, &layers.trained).unwrap().unwrap();
        let each = starts.iter().map(|start| updates.search(start, LAST).unwrap()).collect();
        (each, updates.best(&starts).unwrap().unwrap())
    }

    #[test]
    fn a_planted_theta_is_found_in_scrambled_factors() {
        for (convention, d_out, d_in) in
            [(Convention::Paper, 24, 24), (Convention::General, 26, 18), (Convention::General, 15, 22)]
        {
            let (weights, r) = (weights(4, d_out, d_in), 3);
            let length_a = if convention == Convention::Paper { d_in } else { d_out };
            let (theta_a, theta_b) = (gaussian("ta", length_a, r), gaussian("tb", d_in, r));
            let targets: Targets = weights
                .iter()
                .enumerate()
                .map(|(l, w)| {
                    // A → R·A and B → B·R⁻¹, with R = Q·S·Qᵀ of known inverse.
                    let q = ThinQr::of(gaussian(&format!("r{l}"), r, r).view()).unwrap().q;
                    let scale =
                        |power: f64| Array2::from_diag(&ndarray::Array1::from_shape_fn(r, |k| (0.3 + k as f64).powf(power)));
                    let (turn, back) = (q.dot(&scale(1.0)).dot(&q.t()), q.dot(&scale(-1.0)).dot(&q.t()));
                    let a_transposed = if convention == Convention::Paper { w.dot(&theta_a) } else { w.t().dot(&theta_a) };
                    FactorPair { a_transposed: a_transposed.dot(&turn.t()), b: w.dot(&theta_b).dot(&back) }
                })
                .collect();
            let (each, best) = fits(convention, &weights, targets);
            assert!(best.residual < 1e-11, "{convention}: {:e}", best.residual);
            // The start from the leading vectors is already the solution, up to the tolerance of conjugate gradients.
            assert!(each.iter().any(|found| found.residual < 1e-11 && found.sweeps <= 4));
        }
    }

    #[test]
    fn every_search_goes_down_to_a_point_where_neither_half_gains() {
        let weights = weights(3, 16, 16);
        let targets = || -> Targets {
            (0..3)
                .map(|l| FactorPair { a_transposed: gaussian(&format!("a{l}"), 16, 2), b: gaussian(&format!("b{l}"), 16, 2) })
                .collect()
        };
        let (each, best) = fits(Convention::Paper, &weights, targets());
        assert!(each.len() >= 6 && each.iter().all(|found| found.converged && best.residual <= found.residual * (1.0 + 1e-4)));
        // The residual computed from factors equals that of the formed updates.
        let layers = layers_of(Convention::Paper, &weights, targets());
        let direct = fit_direct(&layers, 0, 0).unwrap();
        let stack = &direct.stacks[0];
        let thetas = best.y.each_ref().map(|y| stack.solver.solve(y.view(), false).unwrap());
        let (mut rest, mut size) = (0.0, 0.0);
        for (w, pair) in weights.iter().zip(&layers.trained) {
            let update = pair.b.dot(&pair.a_transposed.t());
            rest += frobenius_of(&(w.dot(&thetas[1]).dot(&w.dot(&thetas[0]).t()) - &update)).powi(2);
            size += frobenius_of(&update).powi(2);
        }
        assert!(((rest / size).sqrt() - best.residual).abs() < 1e-12);
        // The direct fit is one of the starts, so the search is at least as good.
        let of_direct: f64 = weights
            .iter()
            .zip(&layers.trained)
            .map(|(w, pair)| {
                let fitted = w.dot(&direct.thetas[1]).dot(&w.dot(&direct.thetas[0]).t());
                frobenius_of(&(fitted - pair.b.dot(&pair.a_transposed.t()))).powi(2)
            })
            .sum();
        assert!(best.residual < (of_direct / size).sqrt());
    }
}
