//! Norms that neither overflow nor underflow.

use ndarray::{ArrayBase, ArrayView2, Data, Dimension};
use pulp::Arch;

/// How many partial sums are kept, so that the compiler can use vector registers; the order of summation is the same on every CPU.
const PARTS: usize = 16;

/// Below this, squares may have lost digits to underflow.
const SMALLEST: f64 = 1e-280;

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
    Arch::new().dispatch(|| add_squares(&mut parts, values));
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

/// The norms of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct MatrixNorms {
    /// The largest column sum of magnitudes.
    pub one: f64,
    /// The Frobenius norm: finite only where every value is.
    pub frobenius: f64,
}

/// Fills a row-major matrix by `write(first_row, rows)` and takes its norms while each block of rows is in the cache; the Euclidean norms of its rows and
/// of its columns, too.
///
/// # Numerics
/// Scaling the matrix by a power of two changes no digit of any norm.
pub fn fill_with_norms(
    values: &mut [f64],
    columns: usize,
    mut write: impl FnMut(usize, &mut [f64]),
) -> (MatrixNorms, [Vec<f64>; 2]) {
    /// Rows written at a time.
    const BLOCK: usize = 16;
    let mut all = [0.0; PARTS];
    let (mut sums, mut squares) = (vec![0.0; columns], vec![0.0; columns]);
    let mut of_rows = Vec::with_capacity(values.len() / columns.max(1));
    for (block, rows) in values.chunks_mut((BLOCK * columns).max(1)).enumerate() {
        write(block * BLOCK, rows);
        Arch::new().dispatch(|| {
            for row in rows.chunks_exact(columns.max(1)) {
                let mut parts = [0.0; PARTS];
                add_squares(&mut parts, row);
                for (all, part) in all.iter_mut().zip(parts) {
                    *all += part;
                }
                of_rows.push(from_parts(&parts, row));
                for ((sum, square), v) in sums.iter_mut().zip(&mut squares).zip(row) {
                    *sum += v.abs();
                    *square += v * v;
                }
            }
        });
    }
    let column = |k: usize| values.iter().skip(k).step_by(columns);
    let of_columns = squares.into_iter().enumerate().map(|(k, square)| from_squares(square, || column(k))).collect();
    let norms = MatrixNorms { one: sums.into_iter().fold(0.0, f64::max), frobenius: from_parts(&all, values) };
    (norms, [of_rows, of_columns])
}

/// The Euclidean norms of a matrix's columns.
#[must_use]
pub fn column_norms(matrix: ArrayView2<'_, f64>) -> Vec<f64> {
    let mut squares = vec![0.0; matrix.ncols()];
    for row in matrix.rows() {
        for (square, v) in squares.iter_mut().zip(row) {
            *square += v * v;
        }
    }
    squares.into_iter().zip(matrix.columns()).map(|(square, column)| from_squares(square, || column.into_iter())).collect()
}

/// The norm of some values from the sum of their squares one after the other: summed again, scaled, where it left the range of f64.
fn from_squares<'v, V: Iterator<Item = &'v f64>>(plain: f64, values: impl Fn() -> V) -> f64 {
    if plain.is_finite() && plain > SMALLEST {
        return plain.sqrt();
    }
    let unit = power_near(values().fold(0.0_f64, |m, v| m.max(v.abs())));
    values().map(|v| (v / unit) * (v / unit)).sum::<f64>().sqrt() * unit
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

    fn lines_of(values: &[f64], columns: usize) -> [Vec<f64>; 2] {
        fill_with_norms(&mut vec![0.0; values.len()], columns, |first, rows| {
            rows.copy_from_slice(&values[first * columns..][..rows.len()]);
        })
        .1
    }

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
            let lines = |values: &[f64]| lines_of(&values[..36], 9);
            assert_eq!(lines(&scaled), lines(&values).map(|l| l.into_iter().map(|v| v * scale).collect::<Vec<_>>()));
            let columns = |values: &[f64]| column_norms(ArrayView2::from_shape((4, 9), &values[..36]).unwrap());
            assert_eq!(columns(&scaled), lines(&scaled)[1]);
        }
        assert_eq!(frobenius(&[3.0 * 5e-324, 4.0 * 5e-324]), 5.0 * 5e-324);
        assert_eq!([4.0, 5.9, 0.3, 0.0, f64::INFINITY].map(power_near), [4.0, 4.0, 0.25, 1.0, 1.0]);
    }

    #[test]
    fn rows_and_columns_have_their_norms() {
        let [rows, columns] = lines_of(&[3.0, 4.0, 0.0, 0.0, 12.0, 5.0], 2);
        assert_eq!(rows, [5.0, 0.0, 13.0]);
        assert_eq!(columns, [153.0_f64.sqrt(), 41.0_f64.sqrt()]);
        // Longer than the number of partial sums: 1² + … + 40² = 22140.
        let long: Vec<f64> = (1..=40).map(f64::from).collect();
        assert_eq!(lines_of(&long, 40), [vec![22140.0_f64.sqrt()], long]);
        let [_, tiny] = lines_of(&[0.0, 3e-300, 0.0, 4e-300], 2);
        assert!(tiny[0] == 0.0 && (tiny[1] / 5e-300 - 1.0).abs() < 1e-15);
        assert!(column_norms(ndarray::array![[f64::NAN, 2e200]].view())[0].is_nan());
    }

    #[test]
    fn norms_are_taken_while_filling() {
        let (rows, columns) = (37, 5);
        let mut values = vec![0.0; rows * columns];
        let (norms, _) = fill_with_norms(&mut values, columns, |first, out| {
            for (k, v) in out.iter_mut().enumerate() {
                *v = if k % columns == 2 { -2.0 } else { (first + k / columns) as f64 / 37.0 };
            }
        });
        assert_eq!(norms.one, 74.0);
        assert!((norms.frobenius / frobenius(&values) - 1.0).abs() < 1e-15);
        assert_eq!(values[36 * columns], 36.0 / 37.0);
    }
}
