//! The opposite direction: factors computed from W0 and a conversion matrix, `T = W0·Θ` (Kim et al. 2024, Eq. 5 to 7), as CondLoRA makes them.

use ndarray::{Array2, ArrayView2};

use super::batch::without_products;
use super::equation::{Equation, WeightRows};
use crate::error::{Error, Result};
use crate::terms::CondloraConvention;

/// The matrix that Θ_A is multiplied by to give Aᵀ, and the one for Θ_B to give B.
#[must_use]
pub fn shared_equations(convention: CondloraConvention) -> [Equation; 2] {
    match convention {
        CondloraConvention::Paper => [Equation::W0, Equation::W0],
        CondloraConvention::General => [Equation::W0Transposed, Equation::W0],
        CondloraConvention::Eq6 => [Equation::W0, Equation::W0Transposed],
    }
}

/// `T = W0·Θ`, or `W0ᵀ·Θ`: Aᵀ of Θ_A, or B of Θ_B.
///
/// Source: Kim et al. 2024, Eq. 5 to 7.
///
/// # Shapes
/// W0 (out, in); Θ (in, k) giving (out, k), or Θ (out, k) giving (in, k) for [`Equation::W0Transposed`].
/// # Numerics
/// Each element is summed in one order: a column's bits depend on W0 and that column of Θ alone.
/// # Errors
/// [`Error::Shape`] if Θ's rows do not fit, [`Error::NonFinite`] if W0 or Θ hold NaN or Inf, or the product overflows.
pub fn factor_of(w0: &(impl WeightRows + ?Sized), theta: ArrayView2<'_, f64>, equation: Equation) -> Result<Array2<f64>> {
    let (d_out, d_in) = w0.shape();
    let length = if equation == Equation::W0 { d_in } else { d_out };
    if theta.nrows() != length {
        return Err(Error::Shape {
            what: "theta of factor_of",
            expected: format!("{length} rows"),
            found: format!("{:?}", theta.dim()),
        });
    }
    finite(products(w0, &[(equation, theta)]).remove(0))
}

/// `W0·x`, or `W0ᵀ·x`, for each of some blocks, whose rows have to fit; W0 is converted to f64 once. What overflows is not finite.
///
/// # Numerics
/// Each element is summed in one order: a column's bits depend on W0 and that column alone.
pub(crate) fn products(w0: &(impl WeightRows + ?Sized), blocks: &[(Equation, ArrayView2<'_, f64>)]) -> Vec<Array2<f64>> {
    let (equations, x): (Vec<_>, Vec<_>) = blocks.iter().copied().unzip();
    // 0 − v, so that no zero is negative.
    without_products(w0, &equations, &x, None).into_iter().map(|product| product.mapv_into(|v| 0.0 - v)).collect()
}

/// A product, if it is within the range of f64.
///
/// # Errors
/// [`Error::NonFinite`].
pub(crate) fn finite(product: Array2<f64>) -> Result<Array2<f64>> {
    match product.iter().find(|v| !v.is_finite()) {
        None => Ok(product),
        Some(bad) => Err(Error::NonFinite { what: "a product with W0".into(), found: bad.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Target, Workspace, solve_theta};
    use super::*;
    use ndarray::{array, s};

    #[test]
    fn products_by_hand() {
        let w0 = array![[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]];
        let theta = array![[1.0, 4.0], [2.0, -2.0]];
        assert_eq!(factor_of(&w0, theta.view(), Equation::W0).unwrap(), array![[5.0, 0.0], [-2.0, 2.0], [4.0, 11.0]]);
        let theta = array![[1.0], [2.0], [-1.0]];
        assert_eq!(factor_of(&w0, theta.view(), Equation::W0Transposed).unwrap(), array![[-2.0], [-0.5]]);
        assert!(factor_of(&w0, theta.view(), Equation::W0).is_err());
        assert!(factor_of(&array![[f64::NAN]], array![[1.0]].view(), Equation::W0).is_err());
        assert!(factor_of(&array![[1e300]], array![[1e300]].view(), Equation::W0).is_err());
    }

    #[test]
    fn many_rows_agree_with_a_plain_product_and_columns_keep_their_bits() {
        let (d_out, d_in) = (150, 70);
        let w0 = Array2::from_shape_fn((d_out, d_in), |(a, b)| ((a * 13 + b * 7 + a * b) % 29) as f64 / 7.0 - 2.0);
        for (equation, rows) in [(Equation::W0, d_in), (Equation::W0Transposed, d_out)] {
            let theta = Array2::from_shape_fn((rows, 11), |(a, b)| ((a * 5 + b * 3) % 17) as f64 / 3.0 - 2.5);
            let found = factor_of(&w0, theta.view(), equation).unwrap();
            let plain = if equation == Equation::W0 { w0.dot(&theta) } else { w0.t().dot(&theta) };
            let off = (&found - &plain).iter().fold(0.0_f64, |most, v| most.max(v.abs()));
            // At most 150 products of at most 2.2·2.9 each.
            assert!(off <= 150.0 * 150.0 * 6.4 * f64::EPSILON, "{off:e}");
            let fewer = factor_of(&w0, theta.slice(s![.., 4..6]), equation).unwrap();
            assert_eq!(fewer, found.slice(s![.., 4..6]));
        }
    }

    #[test]
    fn solving_gives_back_what_made_the_factor() {
        let n = 30;
        let w0 = Array2::from_shape_fn((n, n), |(a, b)| ((a * 31 + b * 17) % 23) as f64 / 9.0 + if a == b { 9.0 } else { 0.0 });
        let theta = Array2::from_shape_fn((n, 2), |(a, b)| (a as f64 - 3.0 * b as f64) / 11.0);
        for convention in [CondloraConvention::Paper, CondloraConvention::General, CondloraConvention::Eq6] {
            for equation in shared_equations(convention) {
                let factor = factor_of(&w0, theta.view(), equation).unwrap();
                let solved = solve_theta(&w0, &[Target::new(&factor, equation)], None, &mut Workspace::default()).unwrap();
                let off = (&solved.matrices[0].theta - &theta).iter().fold(0.0_f64, |most, v| most.max(v.abs()));
                assert!(off <= 16.0 * f64::EPSILON * (n as f64).sqrt() * solved.condition, "{convention}: {off:e}");
            }
        }
    }
}
