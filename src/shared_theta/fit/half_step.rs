//! One half of an alternation: with the left factor's partner fixed, the best left factor of `Σ_l ‖Q_l·Y·M_lᵀ − B_l·A_l‖_F²`.
//!
//! With `M_l = U_l·R_l` the part of the target outside U_l remains for any Y, and what is left to minimise is `Σ_l ‖Q_l·Y·R_lᵀ − B_l·(A_l·U_l)‖_F²`: matrices of r columns
//! only. Its normal equations couple all layers, so it is solved by conjugate gradients on the residual (CGLS), in coordinates where `Σ_l Q_lᵀQ_l = I` and
//! `Σ_l R_lᵀR_l = I`: if all layers had equal shares, one iteration would do.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use crate::error::{Error, Result};
use crate::linalg::lapack::{multiply, multiply_into};
use crate::linalg::norms::frobenius_of;
use crate::linalg::subspace::ThinQr;

/// The residual, relative to the target, below which there is only rounding.
const ROUNDING: f64 = 1e-15;
const MOST_ITERATIONS: usize = 400;

/// One of several half steps that are made side by side, on the same updates.
pub(super) struct Half<'a> {
    /// Y (n, r) to begin with.
    pub(super) y: &'a Array2<f64>,
    /// `Q_l·Y` (out, r) of every layer.
    pub(super) products: &'a [Array2<f64>],
    /// M_l (in, r).
    pub(super) partner: &'a [Array2<f64>],
}

/// For each half the best Y (n, r) given its partner, from its own on; the sum of squares never grows.
///
/// Done when the gradient is at most `gradient_enough` of the residual. The next half step begins where this one ended and takes up what it missed. All
/// halves are multiplied with a basis together, because a product of few columns takes as long as it takes to read the basis.
///
/// # Shapes
/// `bases` Q_lᵀ (n, out); `left` B_l (out, r) and `right` A_lᵀ (in, r).
/// # Errors
/// [`Error::Lapack`] if a QR fails; [`Error::NonFinite`] after an overflow.
pub(super) fn half_steps(
    bases: &[Array2<f64>],
    halves: &[Half<'_>],
    left: &[ArrayView2<'_, f64>],
    right: &[ArrayView2<'_, f64>],
    gradient_enough: f64,
) -> Result<Vec<Array2<f64>>> {
    let mut descents = halves.iter().map(|half| Descent::begin(half, left, right)).collect::<Result<Vec<_>>>()?;
    let mut open: Vec<&mut Descent> = descents.iter_mut().collect();
    let gradients = adjoint(bases, &open);
    for (descent, gradient) in open.iter_mut().zip(gradients) {
        descent.square = dot(&gradient, &gradient);
        descent.direction = gradient;
    }
    for _ in 0..MOST_ITERATIONS {
        open.retain(|descent| !descent.is_done(gradient_enough));
        if open.is_empty() {
            break;
        }
        let moved = apply(bases, &open);
        let mut goes_on = open.iter_mut().zip(&moved).map(|(descent, moved)| descent.step(moved)).collect::<Vec<_>>().into_iter();
        open.retain(|_| goes_on.next() == Some(true));
        let gradients = adjoint(bases, &open);
        for (descent, gradient) in open.iter_mut().zip(gradients) {
            descent.turn(&gradient);
        }
    }
    descents.into_iter().map(Descent::end).collect()
}

/// Conjugate gradients on one half.
struct Descent {
    /// R_l, in coordinates where `Σ R_lᵀR_l = I`.
    triangles: Vec<Array2<f64>>,
    gauge: Array2<f64>,
    z: Array2<f64>,
    rest: Vec<Array2<f64>>,
    /// Norm of the target.
    size: f64,
    direction: Array2<f64>,
    /// ‖gradient‖².
    square: f64,
}

impl Descent {
    fn begin(half: &Half<'_>, left: &[ArrayView2<'_, f64>], right: &[ArrayView2<'_, f64>]) -> Result<Self> {
        let (mut rest, mut triangles, mut size) = (Vec::with_capacity(left.len()), Vec::with_capacity(left.len()), 0.0_f64);
        for (((m, product), b), a_transposed) in half.partner.iter().zip(half.products).zip(left).zip(right) {
            let qr = ThinQr::of(m.view())?;
            let (q, r) = (qr.q(), qr.r);
            let target = b.dot(&a_transposed.t().dot(&q));
            size = size.hypot(frobenius_of(&target));
            rest.push(target - &product.dot(&r.t()));
            triangles.push(r);
        }
        let gauge = gauge(&triangles)?;
        let triangles = triangles.iter().map(|r| over(r, &gauge)).collect();
        let z = half.y.dot(&gauge.t());
        Ok(Self { triangles, gauge, z, rest, size, direction: Array2::zeros((0, 0)), square: 0.0 })
    }

    fn is_done(&self, gradient_enough: f64) -> bool {
        let left_over = norm(&self.rest);
        self.square.sqrt() <= gradient_enough * left_over || left_over <= ROUNDING * self.size
    }

    /// Goes along the direction, whose image is `moved`; false where there is no way to go.
    fn step(&mut self, moved: &[Array2<f64>]) -> bool {
        let length: f64 = moved.iter().map(|m| dot(m, m)).sum();
        if length == 0.0 || !length.is_finite() {
            return false;
        }
        let step = self.square / length;
        self.z.scaled_add(step, &self.direction);
        self.rest.iter_mut().zip(moved).for_each(|(rest, moved)| rest.scaled_add(-step, moved));
        true
    }

    /// Takes the next direction.
    fn turn(&mut self, gradient: &Array2<f64>) {
        let next = dot(gradient, gradient);
        let kept = next / self.square;
        self.direction.zip_mut_with(gradient, |direction, gradient| *direction = gradient + *direction * kept);
        self.square = next;
    }

    fn end(self) -> Result<Array2<f64>> {
        match self.z.iter().find(|v| !v.is_finite()) {
            None => Ok(over_transposed(&self.z, &self.gauge)),
            Some(bad) => Err(Error::NonFinite { what: "a shared Θ".into(), found: bad.to_string() }),
        }
    }
}

/// `Z ↦ (Q_l·Z·R_lᵀ)_l` of every descent's direction.
fn apply(bases: &[Array2<f64>], descents: &[&mut Descent]) -> Vec<Vec<Array2<f64>>> {
    let mut images: Vec<Vec<Array2<f64>>> = descents.iter().map(|_| Vec::with_capacity(bases.len())).collect();
    for (l, q) in bases.iter().enumerate() {
        let parts = descents.iter().map(|descent| descent.direction.dot(&descent.triangles[l].t()));
        for (images, image) in images.iter_mut().zip(times(q.t(), parts)) {
            images.push(image);
        }
    }
    images
}

/// The adjoint, of every descent's rest: the gradients.
fn adjoint(bases: &[Array2<f64>], descents: &[&mut Descent]) -> Vec<Array2<f64>> {
    let mut sum: Option<Array2<f64>> = None;
    for (l, q) in bases.iter().enumerate() {
        let Some(wide) = side_by_side(descents.iter().map(|descent| descent.rest[l].dot(&descent.triangles[l]))) else { break };
        match &mut sum {
            None => sum = Some(multiply(q.view(), wide.view())),
            Some(sum) => multiply_into(sum.view_mut(), true, 1.0, q.view(), wide.view()),
        }
    }
    sum.map_or_else(Vec::new, |sum| apart(&sum, descents.len()))
}

/// The product of a matrix with each of several matrices of one width, all at once.
pub(super) fn times(matrix: ArrayView2<'_, f64>, parts: impl Iterator<Item = Array2<f64>>) -> Vec<Array2<f64>> {
    let parts: Vec<Array2<f64>> = parts.collect();
    let count = parts.len();
    side_by_side(parts.into_iter()).map_or_else(Vec::new, |wide| apart(&multiply(matrix, wide.view()), count))
}

fn side_by_side(parts: impl Iterator<Item = Array2<f64>>) -> Option<Array2<f64>> {
    let parts: Vec<Array2<f64>> = parts.collect();
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let joined = || concatenate(Axis(1), &views).unwrap_or_else(|_| unreachable!("the halves have one length"));
    (!views.is_empty()).then(joined)
}

fn apart(wide: &Array2<f64>, count: usize) -> Vec<Array2<f64>> {
    let width = wide.ncols() / count.max(1);
    (0..count).map(|k| wide.slice(s![.., k * width..(k + 1) * width]).to_owned()).collect()
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
        let stack = ThinQr::of(gaussian("q", layers * out, n).view()).unwrap().q();
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
        let exact = LeastSquares::factorise(matrix.view(), None).unwrap().solve(target.view(), false);
        let exact = Array2::from_shape_vec((n, r), exact.into_iter().collect()).unwrap();
        let (of_left, of_right): (Vec<_>, Vec<_>) =
            (left.iter().map(|m| m.view()).collect(), right.iter().map(|m| m.view()).collect());
        let mut y = Array2::zeros((n, r));
        // One half step stops at its tolerance; a repeated one continues from there.
        for _ in 0..8 {
            let products: Vec<_> = bases.iter().map(|q| q.t().dot(&y)).collect();
            let half = || Half { y: &y, products: &products, partner: &partner };
            let zeros = Array2::zeros((n, r));
            let nothing: Vec<_> = (0..layers).map(|_| Array2::zeros((out, r))).collect();
            let beside = Half { y: &zeros, products: &nothing, partner: &partner };
            let alone = half_steps(&bases, &[half()], &of_left, &of_right, 1e-4).unwrap();
            let both = half_steps(&bases, &[half(), beside], &of_left, &of_right, 1e-4).unwrap();
            assert!(frobenius_of(&(&alone[0] - &both[0])) < 1e-13 * frobenius_of(&alone[0]), "company changed a half step");
            y.clone_from(&alone[0]);
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
