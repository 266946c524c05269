//! Norms that neither overflow nor underflow.

use ndarray::{ArrayBase, Data, Dimension};
use pulp::Arch;

/// How many partial sums are kept, so that the compiler can use vector registers; the order of summation is the same on every CPU.
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

/// The inner product of two vectors of one length.
pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut parts = [0.0; PARTS];
    Arch::new().dispatch(|| {
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<PARTS>(), y.as_chunks::<PARTS>());
        for (x, y) in x.iter().zip(y) {
            for ((part, x), y) in parts.iter_mut().zip(x).zip(y) {
                *part += x * y;
            }
        }
        for ((part, x), y) in parts.iter_mut().zip(x_rest).zip(y_rest) {
            *part += x * y;
        }
    });
    parts.iter().sum()
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
    // The scale is a power of two and the order is the same, so that scaling the values by a power of two changes no digit of their norm.
    let unit = power_near(largest);
    let mut parts = [0.0; PARTS];
    for chunk in values.chunks(PARTS) {
        for (part, v) in parts.iter_mut().zip(chunk) {
            *part += (v / unit) * (v / unit);
        }
    }
    parts.iter().sum::<f64>().sqrt() * unit
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

/// Euclidean norms of the rows and of the columns of a row-major matrix whose Frobenius norm is `size`.
///
/// Squares are taken of values scaled by a power of two, so that none overflows and scaling the matrix by one changes no bit.
#[must_use]
pub fn line_norms(values: &[f64], columns: usize, size: f64) -> [Vec<f64>; 2] {
    let scale = power_near(size);
    // A power of two: what it is multiplied by has the same digits as what is divided by the other, and takes a quarter of the time.
    let inverse = scale.recip();
    let mut of_columns = vec![0.0; columns];
    let mut of_rows = Vec::with_capacity(values.len() / columns.max(1));
    Arch::new().dispatch(|| {
        for row in values.chunks_exact(columns.max(1)) {
            let mut parts = [0.0; PARTS];
            let (whole, rest) = row.as_chunks::<PARTS>();
            for chunk in whole {
                for (part, v) in parts.iter_mut().zip(chunk) {
                    *part += (v * inverse) * (v * inverse);
                }
            }
            for (part, v) in parts.iter_mut().zip(rest) {
                *part += (v * inverse) * (v * inverse);
            }
            of_rows.push(parts.iter().sum::<f64>().sqrt() * scale);
            for (sum, v) in of_columns.iter_mut().zip(row) {
                *sum += (v * inverse) * (v * inverse);
            }
        }
    });
    for sum in &mut of_columns {
        *sum = sum.sqrt() * scale;
    }
    [of_rows, of_columns]
}

/// The largest power of two that is not above a positive number and whose inverse is finite; 1 for a number that is not positive and finite.
pub(super) fn power_near(size: f64) -> f64 {
    if size > 0.0 && size.is_finite() {
        f64::from_bits(size.to_bits() & 0x7ff0_0000_0000_0000).max(f64::MIN_POSITIVE)
    } else {
        1.0
    }
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
    fn a_power_of_two_changes_no_digit() {
        let values: Vec<f64> = (0..37).map(|k| 1.0 / f64::from(k + 3)).collect();
        let plain = frobenius(&values);
        for exponent in [-900, -600, 500, 900] {
            let scale = 2.0_f64.powi(exponent);
            let scaled: Vec<f64> = values.iter().map(|v| v * scale).collect();
            assert_eq!(frobenius(&scaled), plain * scale, "2^{exponent}");
            assert_eq!(
                line_norms(&scaled[..36], 9, frobenius(&scaled)),
                line_norms(&values[..36], 9, plain).map(|l| l.into_iter().map(|v| v * scale).collect::<Vec<_>>())
            );
        }
        assert_eq!(frobenius(&[3.0 * 5e-324, 4.0 * 5e-324]), 5.0 * 5e-324);
        assert_eq!([4.0, 5.9, 0.3, 0.0, f64::INFINITY].map(power_near), [4.0, 4.0, 0.25, 1.0, 1.0]);
    }

    #[test]
    fn rows_and_columns_have_their_norms() {
        let [rows, columns] = line_norms(&[3.0, 4.0, 0.0, 0.0, 12.0, 5.0], 2, 13.0);
        assert_eq!(rows, [5.0, 0.0, 13.0]);
        assert_eq!(columns, [153.0_f64.sqrt(), 41.0_f64.sqrt()]);
        // Longer than the number of partial sums: 1² + … + 40² = 22140.
        let long: Vec<f64> = (1..=40).map(f64::from).collect();
        assert_eq!(line_norms(&long, 40, 100.0), [vec![22140.0_f64.sqrt()], long]);
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
