//! Norms that neither overflow nor underflow.

/// Frobenius norm, summed in the order given.
///
/// Squares that leave the range of f64 are summed again, scaled by the largest value.
#[must_use]
pub fn frobenius<'a>(values: impl IntoIterator<Item = &'a f64> + Clone) -> f64 {
    let plain: f64 = values.clone().into_iter().map(|v| v * v).sum();
    // Below this, squares may have lost digits to underflow.
    const SMALLEST: f64 = 1e-280;
    if plain.is_finite() && plain > SMALLEST {
        return plain.sqrt();
    }
    let largest = values.clone().into_iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    if largest == 0.0 || !largest.is_finite() {
        // NaN compares false with everything, so it has to be carried on by the sum.
        return if plain.is_nan() { f64::NAN } else { largest };
    }
    largest * values.into_iter().map(|v| (v / largest) * (v / largest)).sum::<f64>().sqrt()
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
    }
}
