//! How far rounding can turn singular subspaces: first-order perturbation theory, applied to the measured effect of rounding errors on a solve.
//!
//! A norm-wise bound, condition number times norm over gap, assumes that every error lies in the direction that W⁻¹ stretches most and that this
//! direction is the one that matters. Mostly it is neither: the directions that W⁻¹ stretches most are already in the leading singular vectors, where an error along
//! them does no harm. So a few random vectors, as large in each row as the rounding errors there, are solved with the same factors (small-sample
//! statistical condition estimation: Kenney and Laub 1994; Gudmundsson, Kenney and Laub 1995), and the solutions are expanded in the singular vectors.
//!
//! # What is summed
//!
//! Let Θ = U·Σ·Vᵀ have the error E, a random matrix whose components `E_lk = u_lᵀ·E·v_k` are independent. To first order (Stewart and Sun 1990, chapter V)
//! the left singular vector u_k moves towards u_l by `(σ_k·E_lk + σ_l·E_kl)/(σ_k² − σ_l²)`, and out of the span of all of them by `(I − UUᵀ)·E·v_k/σ_k`.
//! A turn of u_k towards u_l with l ≤ i leaves the span of the first i vectors as it is. So the expected squared size of the error of that subspace is
//!
//! ```text
//! E‖sin ∠(U_i, Ũ_i)‖_F² = Σ_{k ≤ i} [ Σ_{l > i} (σ_k²·E|E_lk|² + σ_l²·E|E_kl|²)/(σ_k² − σ_l²)² + E‖(I − UUᵀ)·E·v_k‖²/σ_k² ]
//! ```
//!
//! and the right one has l and k exchanged in the first term. [`SubspaceErrors::of`] takes the expectations from three sources of error that do not
//! depend on one another: the solve (the response of the random vectors), the QR of the columns, and the decomposition of the small core.

use std::sync::Arc;

use ndarray::{Array2, ArrayView1, ArrayView2, s};

use super::UNIT_ROUNDOFF;
use super::norms::{frobenius_of, power_near};
use super::panel::transposed_product;
use super::random::normal_stream;
use crate::stored::stored;

/// Random vectors that are solved for together with the targets. Fourteen is what fits at no cost: with the two columns of the condition estimate and
/// the 16 right-hand sides of an adapter of rank 8 they fill four AVX-512 registers. With clearly fewer it happens too often that all of them are
/// small in the same direction, and the bound is then too small; with more, the estimate improves only as the root of their number.
pub const SAMPLES: usize = 14;

/// Below this share of its square, what is left of a response is not taken from the difference of squares.
const NEARLY_NOTHING: f64 = 1e-6;

/// What the QR and the singular value decompositions after a solve add, in units of the last place of a column.
const OWN: f64 = 2.0;

/// Standard normal numbers times `sizes`: (n, [`SAMPLES`]).
#[must_use]
pub fn noise(sizes: &[f64]) -> Array2<f64> {
    let n = sizes.len();
    let mut values = Array2::zeros((n, SAMPLES));
    let numbers = normal_stream(0, &[b"rounding errors"], n * SAMPLES);
    for ((row, size), numbers) in values.rows_mut().into_iter().zip(sizes).zip(numbers.chunks_exact(SAMPLES)) {
        row.into_iter().zip(numbers).for_each(|(to, number)| *to = size * number);
    }
    values
}

/// The rounding errors of one matrix that was solved for, as a random matrix: column j is off by `amplitudes[j]` times a column like those of each response.
#[derive(Debug, Clone)]
pub struct Rounding {
    /// The solutions for the random vectors (n, [`SAMPLES`]).
    pub response: Arc<Array2<f64>>,
    /// One amplitude for each column.
    pub amplitudes: Vec<f64>,
}

/// A matrix X·Yᵀ with its singular value decomposition, or X alone (Y the identity).
#[derive(Debug, Clone, Copy)]
pub struct Decomposed<'a> {
    /// Left singular vectors (m, r).
    pub left: ArrayView2<'a, f64>,
    /// Largest first.
    pub sigma: &'a [f64],
    /// Yᵀ times the right singular vectors (k, r): with the identity the right singular vectors themselves.
    pub right: ArrayView2<'a, f64>,
    /// Norms of the columns of X.
    pub norms: &'a [f64],
    /// For a product: Xᵀ times the left singular vectors (k, r), and the norms of the columns of Y.
    pub product: Option<(ArrayView2<'a, f64>, &'a [f64])>,
}

/// What rounding is expected to do to singular vectors, to first order.
#[derive(Debug, Clone)]
pub struct SubspaceErrors {
    left: Vec<f64>,
    right: Vec<f64>,
    turns: Option<Turns>,
}

/// How each left singular vector is expected to turn.
#[derive(Debug, Clone)]
struct Turns {
    response: Arc<Array2<f64>>,
    /// Left singular vectors times the response (r, [`SAMPLES`]).
    along: Array2<f64>,
    /// Size of the error of vector k in units of the response.
    solve: Vec<f64>,
    /// Square of its error from the decompositions, the same in every direction.
    own: Vec<f64>,
    /// Squares of its error along each later vector l: `[k][l − k − 1]`.
    between: Vec<Vec<f64>>,
}

stored!(SubspaceErrors { left, right, turns });
stored!(Turns { response, along, solve, own, between });

impl SubspaceErrors {
    /// The errors of a matrix's singular vectors, including those of the solve that gave the matrix, if there was one.
    #[must_use]
    pub fn of(matrix: Decomposed<'_>, solve: Option<&Rounding>) -> Self {
        let r = matrix.sigma.len();
        let Decomposed { right, norms, .. } = matrix;
        // Everything is in units of a power of two near σ₁, so that no square leaves the range of f64 and no unit changes a bit.
        let unit = power_near(matrix.sigma.first().copied().unwrap_or(1.0));
        let sigma: Vec<f64> = matrix.sigma.iter().map(|sigma| sigma / unit).collect();
        // The columns of X have independent errors: this is the square of what they add up to along the right singular vector k.
        let along = |amplitudes: &[f64], k: usize| -> f64 {
            amplitudes.iter().zip(right.column(k)).map(|(amplitude, share)| (amplitude * share / unit).powi(2)).sum()
        };
        let qr: Vec<f64> = norms.iter().map(|norm| OWN * UNIT_ROUNDOFF * norm).collect();
        let x_errors: Vec<f64> = (0..r).map(|k| along(&qr, k)).collect();
        // The errors of the factors of W are the same for all columns: in vector k they are multiplied by σ_k.
        let shared_error = solve.map_or(0.0, |solve| {
            let relative = solve.amplitudes.iter().zip(norms).filter(|(_, norm)| **norm > 0.0).map(|(a, norm)| a / norm);
            relative.fold(0.0, f64::max)
        });
        let solve_errors: Vec<f64> =
            (0..r).map(|k| solve.map_or(0.0, |solve| along(&solve.amplitudes, k) + (shared_error * sigma[k]).powi(2))).collect();
        // In a product the columns of Y have errors of their own.
        let y_error = |(left, norms): (ArrayView2<'_, f64>, &[f64]), k: usize| -> f64 {
            norms.iter().zip(left.column(k)).map(|(norm, share)| (OWN * UNIT_ROUNDOFF * norm * share / unit).powi(2)).sum()
        };
        let y_errors: Vec<f64> = (0..r).map(|k| matrix.product.map_or(0.0, |product| y_error(product, k))).collect();
        // The core is decomposed with errors of the size of its norm; that of a product also has errors of the size of the terms that are summed in it.
        let summed: f64 = matrix.product.map_or(0.0, |(_, other)| norms.iter().zip(other).map(|(x, y)| x * y / unit).sum());
        let core_error = (UNIT_ROUNDOFF * (sigma.first().copied().unwrap_or(0.0) + summed)).powi(2);
        let u_response =
            solve.map(|solve| transposed_product(&solve.response, matrix.left).t().as_standard_layout().into_owned());
        let (response_along, response_beyond) = match (solve, &u_response) {
            (Some(solve), Some(u_response)) => directions(matrix.left, &solve.response, u_response),
            _ => (vec![0.0; r], 0.0),
        };

        // E|E_lk|².
        let e_squared = |l: usize, k: usize| response_along[l] * solve_errors[k] + x_errors[k] + y_errors[l] + core_error;
        let turn_of = |k: usize, l: usize| {
            let difference = (sigma[k] - sigma[l]) * (sigma[k] + sigma[l]);
            let (e_lk, e_kl) = (e_squared(l, k), e_squared(k, l));
            let turned = |lk: f64, kl: f64| (sigma[k].powi(2) * lk + sigma[l].powi(2) * kl) / difference.powi(2);
            [turned(e_lk, e_kl), turned(e_kl, e_lk)]
        };
        let turns_of: Vec<Vec<[f64; 2]>> = (0..r).map(|k| (k + 1..r).map(|l| turn_of(k, l)).collect()).collect();
        let out_of_span =
            |k: usize| [(response_beyond * solve_errors[k] + x_errors[k]) / sigma[k].powi(2), y_errors[k] / sigma[k].powi(2)];
        let subspace_error = |i: usize, side: usize| -> f64 {
            let inside: f64 = (0..i).flat_map(|k| &turns_of[k][i - 1 - k..]).map(|pair| pair[side]).sum();
            let size = (inside + (0..i).map(|k| out_of_span(k)[side]).sum::<f64>()).sqrt();
            if size.is_nan() { f64::INFINITY } else { size }
        };
        let all = |side: usize| (1..=r).map(|i| subspace_error(i, side)).collect();
        let (left, right) = (all(0), all(1));
        let turns = solve.zip(u_response).map(|(solve, along)| Turns {
            response: Arc::clone(&solve.response),
            along,
            solve: (0..r).map(|k| solve_errors[k].sqrt() / sigma[k]).collect(),
            own: (0..r).map(|k| x_errors[k] / sigma[k].powi(2)).collect(),
            between: turns_of.iter().map(|row| row.iter().map(|pair| pair[0]).collect()).collect(),
        });
        Self { left, right, turns }
    }

    /// The expected size (root mean square) of the error of the first `i` left singular vectors: the Frobenius norm of the sines of the angles between
    /// the computed subspace and the true one.
    #[must_use]
    pub fn left(&self, i: usize) -> f64 {
        i.checked_sub(1).and_then(|at| self.left.get(at)).copied().unwrap_or(f64::INFINITY)
    }

    /// The same for the first `i` right singular vectors.
    #[must_use]
    pub fn right(&self, i: usize) -> f64 {
        i.checked_sub(1).and_then(|at| self.right.get(at)).copied().unwrap_or(f64::INFINITY)
    }

    /// The solutions for the random vectors (m, [`SAMPLES`]); none where only norms are known.
    #[must_use]
    pub fn response(&self) -> Option<ArrayView2<'_, f64>> {
        self.turns.as_ref().map(|turns| turns.response.view())
    }

    /// The expected error of `‖UᵀY‖_F²` for the first left singular vectors U, where Y is exact; none where there is no [`Self::response`].
    ///
    /// # Shapes
    /// Y (m, j) with orthonormal columns, given by `along` = Yᵀ·response (j, [`SAMPLES`]) and `cosines` = UᵀY (i, j).
    #[must_use]
    pub fn of_overlap(&self, along: ArrayView2<'_, f64>, cosines: ArrayView2<'_, f64>) -> Option<f64> {
        let turns = self.turns.as_ref()?;
        let i = cosines.nrows();
        // A turn changes the product by its component in Y outside of U: for each sample first the component along Y, then less Y's part in u_k.
        let seen = &along - &cosines.t().dot(&turns.along.slice(s![..i, ..]));
        let seen = cosines.dot(&seen);
        let gram = cosines.dot(&cosines.t());
        let samples = seen.ncols().max(1) as f64;
        let square = |values: ArrayView1<'_, f64>| values.iter().map(|v| v * v).sum::<f64>();
        let of_vector = |k: usize| {
            let most = turns.between[k][i - 1 - k..].iter().fold(turns.own[k], |most, size| most.max(*size));
            let reachable = (gram[(k, k)] - square(gram.row(k))).max(0.0);
            turns.solve[k].powi(2) * square(seen.row(k)) / samples + (turns.own[k] + most) * reachable
        };
        let variance: f64 = (0..i).map(of_vector).sum();
        let size = 2.0 * variance.sqrt();
        Some(if size.is_nan() { f64::INFINITY } else { size })
    }
}

/// The mean square of a response along each left singular vector, and of the part orthogonal to all of them.
fn directions(left: ArrayView2<'_, f64>, response: &Array2<f64>, parts: &Array2<f64>) -> (Vec<f64>, f64) {
    let samples = response.ncols().max(1) as f64;
    let within = parts.rows().into_iter().map(|row| row.iter().map(|v| v * v).sum::<f64>() / samples).collect();
    let (whole, inside) = (frobenius_of(response), frobenius_of(parts));
    // By Pythagoras, but where nearly all lies along the vectors and the difference would have few digits.
    let beyond = (whole - inside) * (whole + inside);
    let beyond =
        if beyond > NEARLY_NOTHING * whole * whole { beyond } else { frobenius_of(&(response - &left.dot(parts))).powi(2) };
    (within, beyond / samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::random::normal_stream;
    use crate::linalg::subspace::SubspaceBasis;

    fn gaussian(label: &str, rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, columns), normal_stream(8, &[label.as_bytes()], rows * columns)).unwrap()
    }

    fn norms(matrix: &Array2<f64>) -> Vec<f64> {
        matrix.columns().into_iter().map(|c| frobenius_of(&c)).collect()
    }

    /// Norm of the sines between the first i columns of two bases.
    fn sines(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>, i: usize) -> f64 {
        let (x, y) = (x.slice(s![.., ..i]), y.slice(s![.., ..i]));
        frobenius_of(&(&y - &x.dot(&x.t().dot(&y))))
    }

    #[test]
    fn errors_of_random_perturbations_are_foreseen() {
        // Errors of a known size and shape in place of rounding: random vectors stretched by S, 1e-6 of the size of each column.
        let (n, r, size) = (30, 4, 1e-6);
        let theta = gaussian("theta", n, r) * &ndarray::array![[3.0, 1.0, 0.3, 0.1]];
        let stretch = Array2::from_diag(&Array2::from_shape_fn((n, 1), |(k, _)| 1.0 / (1.0 + k as f64)).column(0).to_owned());
        let basis = SubspaceBasis::of(theta.view()).unwrap();
        let amplitudes: Vec<f64> = norms(&theta).iter().map(|norm| size * norm).collect();
        let rounding = Rounding { response: Arc::new(stretch.dot(&noise(&vec![1.0; n]))), amplitudes: amplitudes.clone() };
        let norms = norms(&theta);
        let whole = Decomposed {
            left: basis.left(),
            sigma: basis.spectrum().sigma(),
            right: basis.right(),
            norms: &norms,
            product: None,
        };
        let expected = SubspaceErrors::of(whole, Some(&rounding));
        let other = SubspaceBasis::of(gaussian("other", n, r).view()).unwrap();
        for i in 1..=r {
            let cosines = basis.left().slice(s![.., ..i]).t().dot(&other.left());
            let overlap = frobenius_of(&cosines).powi(2);
            let (mut left, mut right, mut change, draws) = (0.0, 0.0, 0.0, 200);
            for draw in 0..draws {
                let mut error = stretch.dot(&gaussian(&format!("error {draw}"), n, r));
                error.columns_mut().into_iter().zip(&amplitudes).for_each(|(mut c, a)| c *= *a);
                let off = SubspaceBasis::of((&theta + &error).view()).unwrap();
                left += sines(basis.left(), off.left(), i).powi(2);
                right += sines(basis.right(), off.right(), i).powi(2);
                change += (frobenius_of(&off.left().slice(s![.., ..i]).t().dot(&other.left())).powi(2) - overlap).powi(2);
            }
            let mean = |sum: f64| (sum / f64::from(draws)).sqrt();
            // The expectation includes errors that columns share, which are not drawn here: up to √2 more. Fourteen samples are off by a fifth.
            for (what, found, foreseen) in [("left", mean(left), expected.left(i)), ("right", mean(right), expected.right(i))] {
                let close = if what == "right" && i == r { foreseen < 1e-12 } else { (0.7..2.0).contains(&(foreseen / found)) };
                assert!(close, "{what} {i}: {found:e}, foreseen {foreseen:e}");
            }
            let foreseen = expected.of_overlap(other.left().t().dot(&*rounding.response).view(), cosines.view()).unwrap();
            assert!((0.7..5.0).contains(&(foreseen / mean(change))), "overlap {i}: {:e}, foreseen {foreseen:e}", mean(change));
        }
    }

    #[test]
    fn a_product_is_off_by_what_its_factors_are() {
        // X·Yᵀ with columns of opposite sizes: its errors come from each pair of columns, not from the largest of each factor.
        let (n, r) = (20, 2);
        let (x, y) = (gaussian("x", n, r) * &ndarray::array![[1e6, 1.0]], gaussian("y", n, r) * &ndarray::array![[1e-6, 1.0]]);
        let qr = |m: &Array2<f64>| crate::linalg::subspace::ThinQr::of(m.view()).unwrap();
        let basis = qr(&x).basis_of_product(&qr(&y)).unwrap();
        let (x_norms, y_norms) = (norms(&x), norms(&y));
        let (through, from) = (y.t().dot(&basis.right()), x.t().dot(&basis.left()));
        let product = Decomposed {
            left: basis.left(),
            sigma: basis.spectrum().sigma(),
            right: through.view(),
            norms: &x_norms,
            product: Some((from.view(), &y_norms)),
        };
        let expected = SubspaceErrors::of(product, None);
        for i in 1..=r {
            assert!(expected.left(i) < 1e-13 && expected.right(i) < 1e-13, "{:e} {:e}", expected.left(i), expected.right(i));
            assert!(expected.left(i) > 1e-17 && expected.right(i) > 1e-17);
        }
    }

    #[test]
    fn no_gap_leaves_nothing_known_and_no_vector_has_no_error() {
        let (left, norms) = (Array2::eye(3), [1.0; 3]);
        let sigma = [1.0, 1.0, 0.5];
        let matrix = Decomposed { left: left.view(), sigma: &sigma, right: left.view(), norms: &norms, product: None };
        let expected = SubspaceErrors::of(matrix, None);
        assert_eq!(expected.left(1), f64::INFINITY);
        assert!(expected.left(2) < 1e-15 && expected.left(3) < 1e-15);
        assert_eq!((expected.left(0), expected.left(4)), (f64::INFINITY, f64::INFINITY));
        assert!(expected.response().is_none() && expected.of_overlap(left.view(), left.view()).is_none());
    }

    /// Equal up to a few units of rounding.
    fn is(found: f64, units_squared: f64) {
        let expected = units_squared.sqrt() * UNIT_ROUNDOFF;
        assert!((found - expected).abs() <= 1e-14 * expected, "{found:e}, expected {expected:e}");
    }

    #[test]
    fn diagonal_matrices_by_hand() {
        // σ = 2, 1 with only the errors of the decompositions: per column (2u·norm)², everywhere (u·σ₁)².
        let (left, right) = (Array2::eye(3), Array2::eye(2));
        let left = left.slice(s![.., ..2]);
        let whole = Decomposed { left, sigma: &[2.0, 1.0], right: right.view(), norms: &[2.0, 1.0], product: None };
        let expected = SubspaceErrors::of(whole, None);
        is(expected.left(1), (4.0 * 20.0 + 8.0) / 9.0 + 4.0);
        is(expected.right(1), (4.0 * 8.0 + 20.0) / 9.0);
        is(expected.left(2), 8.0);
        is(expected.right(2), 0.0);
        // As a product diag(2, 1)·I the other factor has errors too, and those of the core are (u·(σ₁ + 2·1 + 1·1))².
        let (from, norms) = (Array2::from_diag(&ndarray::array![2.0, 1.0]), [1.0, 1.0]);
        let expected = SubspaceErrors::of(Decomposed { product: Some((from.view(), &norms)), ..whole }, None);
        for side in [SubspaceErrors::left, SubspaceErrors::right] {
            is(side(&expected, 1), 25.0 + 4.0);
            is(side(&expected, 2), 8.0);
        }
        // Errors without those of a solve: their effect in Y is the larger of the vector's own and of its turn into the second vector.
        let rounding = Rounding { response: Arc::new(Array2::ones((3, 4))), amplitudes: vec![0.0; 2] };
        let expected = SubspaceErrors::of(whole, Some(&rounding));
        let overlap = expected.of_overlap(ndarray::array![[0.0, 0.0, 0.0, 0.0]].view(), ndarray::array![[0.6]].view()).unwrap();
        is(overlap, 4.0 * (4.0 + 88.0 / 9.0) * (0.36 - 0.36 * 0.36));
    }

    #[test]
    fn a_vector_by_hand() {
        // σ = 3, an amplitude of 9u once for its column and once for all: 2·(9/3)² = 18 times the part of the response that is orthogonal to the vector, (9 + 16 + 0 + 1)/2.
        let response = Arc::new(ndarray::array![[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]);
        let rounding = Rounding { response: Arc::clone(&response), amplitudes: vec![9.0 * UNIT_ROUNDOFF] };
        let (left, right) = (ndarray::array![[1.0], [0.0], [0.0]], ndarray::array![[1.0]]);
        let vector = Decomposed { left: left.view(), sigma: &[3.0], right: right.view(), norms: &[3.0], product: None };
        let expected = SubspaceErrors::of(vector, Some(&rounding));
        is(expected.left(1), 18.0 * 13.0 + 4.0);
        assert_eq!(expected.response(), Some(response.view()));
        // With Y = (0.6, 0.8, 0) the response has 0.6·0.8·(3, 4) outside the vector; the vector's own errors may have any direction.
        let y = ndarray::array![[0.6], [0.8], [0.0]];
        let overlap = expected.of_overlap(y.t().dot(&*response).view(), left.t().dot(&y).view()).unwrap();
        is(overlap, 4.0 * (18.0 * 0.48 * 0.48 * 25.0 / 2.0 + 8.0 * (0.36 - 0.36 * 0.36)));
    }

    #[test]
    fn a_column_of_zeros_says_nothing_of_the_others() {
        let (left, right) = (Array2::eye(3), Array2::eye(2));
        let matrix = Decomposed {
            left: left.slice(s![.., ..2]),
            sigma: &[2.0, 0.0],
            right: right.view(),
            norms: &[2.0, 0.0],
            product: None,
        };
        let rounding = Rounding { response: Arc::new(Array2::ones((3, 4))), amplitudes: vec![1e-16, 1e-16] };
        assert!(SubspaceErrors::of(matrix, Some(&rounding)).left(1) < 1e-15);
    }

    #[test]
    fn noise_has_the_sizes_asked_for() {
        let (sizes, plain) = ([3.0, 0.0, 0.5, 1e-3], noise(&[1.0; 4]));
        assert!(plain.iter().all(|v| *v != 0.0));
        assert_eq!(noise(&sizes), &plain * &ndarray::array![[3.0], [0.0], [0.5], [1e-3]]);
    }
}
