//! The one tolerance of the tests, and random matrices of known condition to check it with.

use condlora::linalg::random::normal_stream;
use condlora::linalg::subspace::SubspaceBasis;
use ndarray::{Array2, s};

/// How many roundings of the usual size an error may be made of.
const FACTOR: f64 = 16.0;

/// `c·ε·√max(m,n)·κ`: what rounding may do to a result of norm 1 that passes through an (m, n) matrix of condition κ.
pub(crate) fn tolerance(m: usize, n: usize, condition: f64) -> f64 {
    FACTOR * f64::EPSILON * (m.max(n) as f64).sqrt() * condition
}

/// Largest absolute difference.
pub(crate) fn distance(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    assert_eq!(x.dim(), y.dim());
    x.iter().zip(y).fold(0.0, |most, (a, b)| if (a - b).abs() > most || (a - b).is_nan() { (a - b).abs() } else { most })
}

/// An (m, n) Gaussian matrix; the same for the same seed and name.
pub(crate) fn gaussian(seed: u64, name: &str, m: usize, n: usize) -> Array2<f64> {
    Array2::from_shape_vec((m, n), normal_stream(seed, &[name.as_bytes()], m * n)).unwrap()
}

/// An (n, k) matrix with orthonormal columns.
pub(crate) fn orthonormal(seed: u64, name: &str, n: usize, k: usize) -> Array2<f64> {
    SubspaceBasis::of(gaussian(seed, name, n, k).view()).unwrap().left().to_owned()
}

/// An (m, n) matrix with singular values falling evenly on a logarithmic scale from 1 to 1/κ.
pub(crate) fn conditioned(seed: u64, name: &str, m: usize, n: usize, condition: f64) -> Array2<f64> {
    let k = m.min(n);
    let mut left = orthonormal(seed, &format!("{name} left"), m, k);
    for (index, mut column) in left.columns_mut().into_iter().enumerate() {
        let share = if k > 1 { index as f64 / (k - 1) as f64 } else { 0.0 };
        column *= condition.powf(-share);
    }
    left.dot(&orthonormal(seed, &format!("{name} right"), n, k).t())
}

/// The first `k` columns.
pub(crate) fn first(matrix: &Array2<f64>, k: usize) -> Array2<f64> {
    matrix.slice(s![.., ..k]).to_owned()
}
