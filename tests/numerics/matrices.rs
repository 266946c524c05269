//! Weights that are hard in a known way, after LAPACK's test matrices (`xLATMS`: prescribed singular values between random orthogonal matrices).

use condlora::linalg::lapack::use_one_blas_thread;
use ndarray::{Array2, Axis, s};
use ndarray_linalg::QR;

use super::shared::checkpoint::Layer;
use super::shared::tolerance::gaussian;

/// How singular values lie between 1 and 1/κ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Spread {
    /// Evenly on a logarithmic scale.
    Geometric,
    /// All 1 but the last.
    OneSmall,
    /// All 1/κ but the first.
    OneLarge,
    /// At random on a logarithmic scale, the ends included.
    Random,
}

pub(crate) const SPREADS: [Spread; 4] = [Spread::Geometric, Spread::OneSmall, Spread::OneLarge, Spread::Random];

impl Spread {
    /// `count` singular values of condition κ.
    pub(crate) fn values(self, seed: u64, count: usize, condition: f64) -> Vec<f64> {
        let last = (count - 1).max(1) as f64;
        // The normal distribution function by a logistic curve gives numbers that are even enough.
        let even = gaussian(seed, "spread", count, 1).mapv(|x| 1.0 / (1.0 + (-1.7 * x).exp()));
        let share = |k: usize| match self {
            Self::Geometric => k as f64 / last,
            Self::OneSmall => {
                if k + 1 == count {
                    1.0
                } else {
                    0.0
                }
            }
            Self::OneLarge => {
                if k == 0 {
                    0.0
                } else {
                    1.0
                }
            }
            Self::Random if k == 0 => 0.0,
            Self::Random if k + 1 == count => 1.0,
            Self::Random => even[(k, 0)],
        };
        (0..count).map(|k| condition.powf(-share(k))).collect()
    }
}

/// An (n, k) matrix with orthonormal columns.
pub(crate) fn orthogonal(seed: u64, name: &str, n: usize, k: usize) -> Array2<f64> {
    use_one_blas_thread();
    gaussian(seed, name, n, k).qr().unwrap().0.slice(s![.., ..k]).to_owned()
}

/// An (m, n) matrix with these singular values, up to rounding.
pub(crate) fn with_singular_values(seed: u64, m: usize, n: usize, sigma: &[f64]) -> Array2<f64> {
    let mut left = orthogonal(seed, "left", m, sigma.len());
    for (mut column, &sigma) in left.columns_mut().into_iter().zip(sigma) {
        column *= sigma;
    }
    left.dot(&orthogonal(seed, "right", n, sigma.len()).t())
}

/// An (m, n) matrix of condition κ, up to rounding.
pub(crate) fn spread(seed: u64, (m, n): (usize, usize), spread: Spread, condition: f64) -> Array2<f64> {
    with_singular_values(seed, m, n, &spread.values(seed, m.min(n), condition))
}

/// Scales the rows (axis 0) or columns (axis 1) from 1 down to `smallest`, evenly on a logarithmic scale.
pub(crate) fn graded(mut matrix: Array2<f64>, axis: Axis, smallest: f64) -> Array2<f64> {
    let last = (matrix.len_of(axis) - 1).max(1) as f64;
    for (k, mut line) in matrix.axis_iter_mut(axis).enumerate() {
        line *= smallest.powf(k as f64 / last);
    }
    matrix
}

/// A layer of module `q` with Gaussian factors.
pub(crate) fn layer(number: usize, seed: u64, w0: Array2<f64>, rank: usize) -> Layer {
    let (d_out, d_in) = w0.dim();
    Layer {
        path: format!("model.layers.{number}.q"),
        w0,
        a: gaussian(seed, "a", rank, d_in),
        b: gaussian(seed, "b", d_out, rank),
    }
}

/// Matrices with names: each strains elimination in its own way.
pub(crate) fn gallery(n: usize) -> Vec<Array2<f64>> {
    let of = |entry: &dyn Fn(usize, usize) -> f64| Array2::from_shape_fn((n, n), |(a, b)| entry(a, b));
    let small = n.min(9);
    // Where the famous part has to stay small to be regular in f64, the rest is the identity.
    let padded = |entry: &dyn Fn(usize, usize) -> f64| {
        of(&|a, b| if a < small && b < small { entry(a, b) } else { f64::from(u8::from(a == b)) })
    };
    let sine = 0.6_f64;
    let mut pascal = Array2::<f64>::ones((n, n));
    for a in 1..n {
        for b in 1..n {
            pascal[(a, b)] = if a < small && b < small { pascal[(a - 1, b)] + pascal[(a, b - 1)] } else { 0.0 };
        }
    }
    for k in small..n {
        pascal.row_mut(k).fill(0.0);
        pascal.column_mut(k).fill(0.0);
        pascal[(k, k)] = 1.0;
    }
    vec![
        // Hilbert, condition 5e11 at 9; Pascal, integers.
        padded(&|a, b| 1.0 / (a + b + 1) as f64),
        pascal,
        // Kahan: a triangle whose pivots hide its condition.
        of(&|a, b| if a > b { 0.0 } else { sine.powi(a as i32) * if a == b { 1.0 } else { -0.8 } }),
        // Wilkinson: pivots double from column to column.
        of(&|a, b| {
            if a == b || b + 1 == n {
                1.0
            } else if a > b {
                -1.0
            } else {
                0.0
            }
        }),
        // The same, transposed: nothing grows.
        of(&|a, b| {
            if a == b || a + 1 == n {
                1.0
            } else if b > a {
                -1.0
            } else {
                0.0
            }
        }),
        // Second differences.
        of(&|a, b| {
            if a == b {
                2.0
            } else if a.abs_diff(b) == 1 {
                -1.0
            } else {
                0.0
            }
        }),
        // Vandermonde at Chebyshev points.
        of(&|a, b| {
            (std::f64::consts::PI * (a as f64 + 0.5) / n as f64).cos().powi((b % 20) as i32)
                + f64::from(u8::from(a == b && b >= 20))
        }),
        // A permutation, a diagonal from 1 to 1e-12.
        of(&|a, b| f64::from(u8::from(b == (a + 3) % n))),
        of(&|a, b| if a == b { 1e-12_f64.powf(a as f64 / (n - 1) as f64) } else { 0.0 }),
    ]
}
