//! One half of an alternation: with the left factor's partner fixed, the best left factor of `Σ_l ‖Q_l·Y·M_lᵀ − B_l·A_l‖_F²`.
//!
//! With `M_l = U_l·R_l` the part of the target outside U_l remains for any Y, and what is left to minimise is `Σ_l ‖Q_l·Y·R_lᵀ − B_l·(A_l·U_l)‖_F²`: matrices of r columns
//! only. Its normal equations couple all layers, so it is solved by conjugate gradients on the residual (CGLS), in coordinates where `Σ_l Q_lᵀQ_l = I` and
//! `Σ_l R_lᵀR_l = I`: if all layers had equal shares, one iteration would do.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use crate::error::{Error, Result};
use crate::linalg::norms::frobenius_of;
use crate::linalg::subspace::ThinQr;

/// The residual, relative to the target, below which there is only rounding.
const ROUNDING: f64 = 1e-15;
const MOST_ITERATIONS: usize = 400;

/// The best Y (n, r) given `partner` M_l (in, r), from `start` on; the sum of squares never grows.
///
/// Done when the gradient is at most `gradient_enough` of the residual. The next half step begins where this one ended and takes up what it missed.
///
/// # Shapes
/// `bases` Q_lᵀ (n, out); `left` B_l (out, r) and `right` A_lᵀ (in, r).
/// # Errors
/// [`Error::Lapack`] if a QR fails; [`Error::NonFinite`] after an overflow.
pub(super) fn half_step(
    bases: &[Array2<f64>],
    partner: &[Array2<f64>],
    left: &[ArrayView2<'_, f64>],
    right: &[ArrayView2<'_, f64>],
    start: &Array2<f64>,
    gradient_enough: f64,
) -> Result<Array2<f64>> {
    let (mut targets, mut triangles) = (Vec::with_capacity(bases.len()), Vec::with_capacity(bases.len()));
    for ((m, b), a_transposed) in partner.iter().zip(left).zip(right) {
        let ThinQr { q, r } = ThinQr::of(m.view())?;
        targets.push(b.dot(&a_transposed.t().dot(&q)));
        triangles.push(r);
    }
    let gauge = gauge(&triangles)?;
    let triangles: Vec<Array2<f64>> = triangles.iter().map(|r| over(r, &gauge)).collect();
    let problem = Problem { bases, triangles: &triangles };

    let mut z = start.dot(&gauge.t());
    let mut rest: Vec<Array2<f64>> = problem.apply(&z).into_iter().zip(&targets).map(|(product, t)| t - &product).collect();
    let size = norm(&targets);
    let mut gradient = problem.adjoint(&rest);
    let mut direction = gradient.clone();
    let mut square = dot(&gradient, &gradient);
    for _ in 0..MOST_ITERATIONS {
        let left_over = norm(&rest);
        if square.sqrt() <= gradient_enough * left_over || left_over <= ROUNDING * size {
            break;
        }
        let moved = problem.apply(&direction);
        let length: f64 = moved.iter().map(|m| dot(m, m)).sum();
        if length == 0.0 || !length.is_finite() {
            break;
        }
        let step = square / length;
        z.scaled_add(step, &direction);
        rest.iter_mut().zip(&moved).for_each(|(rest, moved)| rest.scaled_add(-step, moved));
        gradient = problem.adjoint(&rest);
        let next = dot(&gradient, &gradient);
        direction = &gradient + &(direction * (next / square));
        square = next;
    }
    match z.iter().find(|v| !v.is_finite()) {
        None => Ok(over_transposed(&z, &gauge)),
        Some(bad) => Err(Error::NonFinite { what: "a shared Θ".into(), found: bad.to_string() }),
    }
}

/// `Z ↦ (Q_l·Z·R_lᵀ)_l` and its adjoint.
struct Problem<'a> {
    /// Q_lᵀ.
    bases: &'a [Array2<f64>],
    triangles: &'a [Array2<f64>],
}

impl Problem<'_> {
    fn apply(&self, z: &Array2<f64>) -> Vec<Array2<f64>> {
        self.bases.iter().zip(self.triangles).map(|(q, r)| q.t().dot(&z.dot(&r.t()))).collect()
    }

    fn adjoint(&self, rest: &[Array2<f64>]) -> Array2<f64> {
        let parts = self.bases.iter().zip(self.triangles).zip(rest).map(|((q, r), rest)| q.dot(&rest.dot(r)));
        parts.reduce(|sum, part| sum + &part).unwrap_or_else(|| unreachable!("a module has layers"))
    }
}

/// K (r, r), upper triangular, with `KᵀK = Σ R_lᵀR_l`; a multiple of the identity where that is singular.
fn gauge(triangles: &[Array2<f64>]) -> Result<Array2<f64>> {
    let views: Vec<_> = triangles.iter().map(|r| r.view()).collect();
    let stacked = concatenate(Axis(0), &views).unwrap_or_else(|_| unreachable!("the layers have one rank"));
    let k = ThinQr::of(stacked.view())?.r;
    let sizes = k.diag().mapv(f64::abs);
    let (most, least) = (sizes.iter().fold(0.0, |m: f64, v| m.max(*v)), sizes.iter().fold(f64::INFINITY, |m: f64, v| m.min(*v)));
    if least > 1e-13 * most { Ok(k) } else { Ok(Array2::eye(k.nrows()) * if most > 0.0 { most } else { 1.0 }) }
}

/// `X·K⁻¹` for an upper triangular K.
fn over(x: &Array2<f64>, k: &Array2<f64>) -> Array2<f64> {
    let mut out = x.clone();
    for j in 0..k.ncols() {
        for i in 0..j {
            let (before, mut column) = out.multi_slice_mut((s![.., i], s![.., j]));
            column.scaled_add(-k[(i, j)], &before);
        }
        out.column_mut(j).mapv_inplace(|v| v / k[(j, j)]);
    }
    out
}

/// `X·K⁻ᵀ` for an upper triangular K.
fn over_transposed(x: &Array2<f64>, k: &Array2<f64>) -> Array2<f64> {
    let mut out = x.clone();
    for j in (0..k.ncols()).rev() {
        for i in j + 1..k.ncols() {
            let (after, mut column) = out.multi_slice_mut((s![.., i], s![.., j]));
            column.scaled_add(-k[(j, i)], &after);
        }
        out.column_mut(j).mapv_inplace(|v| v / k[(j, j)]);
    }
    out
}

fn dot(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn norm(parts: &[Array2<f64>]) -> f64 {
    parts.iter().fold(0.0, |norm: f64, part| norm.hypot(frobenius_of(part)))
}

#[cfg(test)]
mod tests {
    use super::super::layers::tests::gaussian;
    use super::*;
    use crate::linalg::least_squares::LeastSquares;

    #[test]
    fn triangles_are_divided_by_on_both_sides() {
        let k = ThinQr::of(gaussian("k", 9, 4).view()).unwrap().r;
        let x = gaussian("x", 5, 4);
        assert!(frobenius_of(&(over(&x, &k).dot(&k) - &x)) < 1e-13);
        assert!(frobenius_of(&(over_transposed(&x, &k).dot(&k.t()) - &x)) < 1e-13);
    }

    #[test]
    fn a_half_step_is_the_least_squares_solution_of_the_whole_system() {
        // Σ_l ‖Q_l·Y·M_lᵀ − B_l·A_l‖² as one least-squares problem in the n·r entries of Y, row by row.
        let (layers, n, out, d_in, r) = (3, 6, 6, 7, 2);
        let stack = ThinQr::of(gaussian("q", layers * out, n).view()).unwrap().q;
        let bases: Vec<_> = (0..layers).map(|l| stack.slice(s![l * out..(l + 1) * out, ..]).t().to_owned()).collect();
        let of = |name: &str, rows: usize| -> Vec<_> { (0..layers).map(|l| gaussian(&format!("{name}{l}"), rows, r)).collect() };
        let (partner, left, right) = (of("m", d_in), of("b", out), of("a", d_in));
        let mut matrix = Array2::zeros((layers * out * d_in, n * r));
        let mut target = Array2::zeros((layers * out * d_in, 1));
        for l in 0..layers {
            let product = left[l].dot(&right[l].t());
            for i in 0..out {
                for j in 0..d_in {
                    let row = (l * out + i) * d_in + j;
                    target[(row, 0)] = product[(i, j)];
                    for a in 0..n {
                        for c in 0..r {
                            matrix[(row, a * r + c)] = bases[l][(a, i)] * partner[l][(j, c)];
                        }
                    }
                }
            }
        }
        let exact = LeastSquares::factorise(matrix.view(), None).unwrap().solve(target.view(), false).unwrap();
        let exact = Array2::from_shape_vec((n, r), exact.into_iter().collect()).unwrap();
        let (of_left, of_right): (Vec<_>, Vec<_>) =
            (left.iter().map(|m| m.view()).collect(), right.iter().map(|m| m.view()).collect());
        let mut y = Array2::zeros((n, r));
        // One half step stops at its tolerance; a repeated one continues from there.
        for _ in 0..8 {
            y = half_step(&bases, &partner, &of_left, &of_right, &y, 1e-4).unwrap();
        }
        let value = |y: &Array2<f64>| -> f64 {
            (0..layers)
                .map(|l| frobenius_of(&(bases[l].t().dot(y).dot(&partner[l].t()) - left[l].dot(&right[l].t()))).powi(2))
                .sum()
        };
        assert!(value(&y) <= value(&exact) * (1.0 + 1e-7), "{} and {}", value(&y), value(&exact));
        assert!(frobenius_of(&(&y - &exact)) < 1e-3 * frobenius_of(&exact));
    }
}
