//! Norms that neither overflow nor underflow.

use ndarray::{ArrayBase, Data, Dimension};
use pulp::Arch;

/// Partial sums kept apart, so that the compiler can use vector registers; the order of summation is the same on every CPU.
const PARTS: usize = 16;

/// Sum of squares of consecutive values, added to what `parts` holds.
#[inline(always)]
fn add_squares(parts: &mut [f64; PARTS], values: &[f64]) {
    let (whole, rest) = values.as_chunks::<PARTS>();
    for chunk in whole {
        for (part, v) in parts.iter_mut().zip(chunk) {
            *part += v * v;
        }
    }
    for (part, v) in parts.iter_mut().zip(rest) {
        *part += v * v;
    }
}

/// Frobenius norm.
///
/// Squares that leave the range of f64 are summed again, scaled by the largest value. NaN where a value is NaN.
#[must_use]
pub fn frobenius(values: &[f64]) -> f64 {
    let mut parts = [0.0; PARTS];
    add_squares(&mut parts, values);
    from_parts(&parts, values)
}

/// Frobenius norm of an array in any layout.
#[must_use]
pub fn frobenius_of<S: Data<Elem = f64>, D: Dimension>(array: &ArrayBase<S, D>) -> f64 {
    match array.as_slice_memory_order() {
        Some(values) => frobenius(values),
        None => frobenius(&array.iter().copied().collect::<Vec<_>>()),
    }
}

fn from_parts(parts: &[f64; PARTS], values: &[f64]) -> f64 {
    // Below this, squares may have lost digits to underflow.
    const SMALLEST: f64 = 1e-280;
    let plain: f64 = parts.iter().sum();
    if plain.is_finite() && plain > SMALLEST {
        return plain.sqrt();
    }
    let largest = values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    largest * values.iter().map(|v| (v / largest) * (v / largest)).sum::<f64>().sqrt()
}

/// The norms of a matrix that is written row block by row block.
#[derive(Debug, Clone, Copy)]
pub struct MatrixNorms {
    /// The largest column sum of magnitudes.
    pub one: f64,
    /// The Frobenius norm: finite only where every value is.
    pub frobenius: f64,
}

/// Fills a row-major matrix by `write(first_row, rows)` and takes its norms while each block of rows is in the cache.
pub fn fill_with_norms(values: &mut [f64], columns: usize, mut write: impl FnMut(usize, &mut [f64])) -> MatrixNorms {
    /// Rows written at a time.
    const BLOCK: usize = 16;
    let mut parts = [0.0; PARTS];
    let mut sums = vec![0.0; columns];
    for (block, rows) in values.chunks_mut((BLOCK * columns).max(1)).enumerate() {
        write(block * BLOCK, rows);
        Arch::new().dispatch(|| {
            add_squares(&mut parts, rows);
            for row in rows.chunks_exact(columns) {
                for (sum, v) in sums.iter_mut().zip(row) {
                    *sum += v.abs();
                }
            }
        });
    }
    MatrixNorms { one: sums.into_iter().fold(0.0, f64::max), frobenius: from_parts(&parts, values) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_keep_their_digits() {
        assert_eq!(frobenius(&[3.0, 4.0]), 5.0);
        assert!((frobenius(&[3e200, 4e200]) / 5e200 - 1.0).abs() < 1e-15);
        assert!((frobenius(&[3e-300, 4e-300]) / 5e-300 - 1.0).abs() < 1e-15);
        assert_eq!(frobenius(&[0.0; 3]), 0.0);
        assert!(frobenius(&[f64::NAN, 1.0]).is_nan());
        assert_eq!(frobenius(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(frobenius(&[1.0; 100]), 10.0);
    }

    #[test]
    fn norms_are_taken_while_filling() {
        let (rows, columns) = (37, 5);
        let mut values = vec![0.0; rows * columns];
        let norms = fill_with_norms(&mut values, columns, |first, out| {
            for (k, v) in out.iter_mut().enumerate() {
                *v = if k % columns == 2 { -2.0 } else { (first + k / columns) as f64 / 37.0 };
            }
        });
        assert_eq!(norms.one, 74.0);
        assert_eq!(norms.frobenius, frobenius(&values));
        assert_eq!(values[36 * columns], 36.0 / 37.0);
    }
}
