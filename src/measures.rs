//! Measures of similarity beyond the paper's φ: the principal angles between two subspaces, and linear CKA of two matrices.
//!
//! | measure | definition | source |
//! |---|---|---|
//! | `cos_max`, `cos_mean`, `cos_min` | cosines of the principal angles between the subspaces that φ compares; φ is the mean of their squares | Björck & Golub 1973 |
//! | `cka` | linear centred kernel alignment of two conversion matrices, with their rows as samples | Kornblith et al. 2019, Eq. 3 with a linear kernel |
//!
//! The angles, like φ, see subspaces alone. CKA sees the matrices: singular values count, and it changes where A becomes R·A and B becomes B·R⁻¹ with
//! an R that is not orthogonal, although the update B·A stays the same. CKA of Θ_BA does not have this dependence.

use ndarray::{Array2, ArrayView2, Axis};

use crate::error::Result;
use crate::linalg::EPSILON;
use crate::linalg::norms::frobenius_of;
use crate::linalg::subspace::singular_values;
use crate::similarity::AllPairs;
use crate::stored::stored;

/// Cosines of the principal angles between two subspaces: the largest, the mean of all min(i, j), and the smallest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrincipalCosines {
    /// The cosine of the smallest angle: 1 where the subspaces share a direction.
    pub max: f64,
    /// The mean cosine over all angles.
    pub mean: f64,
    /// The cosine of the largest angle: 1 where one subspace holds the other, 0 where a direction of one is orthogonal to the other.
    pub min: f64,
}

impl PrincipalCosines {
    /// Computes them from the inner products XᵀY (i, j) of two orthonormal bases.
    ///
    /// Source: Björck & Golub 1973, "Numerical methods for computing angles between linear subspaces", Theorem 1: the cosines are the singular values.
    ///
    /// `None` for an empty block.
    /// # Errors
    /// [`crate::Error::NonFinite`] for NaN or Inf, [`crate::Error::Lapack`] if the small SVD does not converge.
    pub fn of(inner_products: ArrayView2<'_, f64>) -> Result<Option<Self>> {
        let mut cosines = singular_values(inner_products)?;
        // Rounding cannot take a cosine past 1.
        cosines.iter_mut().for_each(|c| *c = c.clamp(0.0, 1.0));
        let (Some(&max), Some(&min)) = (cosines.first(), cosines.last()) else { return Ok(None) };
        Ok(Some(Self { max, mean: cosines.iter().sum::<f64>() / cosines.len() as f64, min }))
    }
}

/// A matrix as CKA compares it.
#[derive(Debug, Clone, PartialEq)]
pub struct Centred {
    /// The matrix with centred columns, scaled to Frobenius norm 1, which does not change CKA and keeps fourth powers in range.
    pub values: Array2<f64>,
    /// The share of its norm that is left after centring; a relative error of the matrix grows by its inverse.
    pub share: f64,
}

stored!(Centred { values, share });

/// Centres the columns of a matrix.
///
/// `None` where nothing is left, because the matrix is zero or has constant columns, or where it is not finite.
///
/// # Shapes
/// Θ (n, r), rows as samples.
#[must_use]
pub fn centred(matrix: ArrayView2<'_, f64>) -> Option<Centred> {
    // The order of summation does not depend on the memory layout.
    let matrix = matrix.as_standard_layout().into_owned();
    let before = frobenius_of(&matrix);
    if !(before > 0.0 && before.is_finite()) {
        return None;
    }
    let scaled = &matrix / before;
    let means = scaled.mean_axis(Axis(0))?;
    let mut values = scaled - means;
    let share = frobenius_of(&values);
    // What is left of constant columns is rounding.
    if share <= matrix.nrows() as f64 * EPSILON {
        return None;
    }
    values.mapv_inplace(|v| v / share);
    Some(Centred { values, share })
}

/// A substitute for Θ_BA = Θ_B·A in CKA: Θ_B·Rᵀ (n, r) with Aᵀ = Q·R, which has the same inner products with any other such matrix made of Θ_B and A.
///
/// ‖(Θ_B'·A')ᵀ·H·Θ_B·A‖_F = ‖R'·Θ_B'ᵀ·H·Θ_B·Rᵀ‖_F, as Q' and Q have orthonormal columns; H centres both in the same way.
#[must_use]
pub fn product_for_cka(theta_b: ArrayView2<'_, f64>, r_of_a_transposed: ArrayView2<'_, f64>) -> Array2<f64> {
    // Row by row in one order: a BLAS product's bits depend on how its operands lie in memory.
    let (n, r) = (theta_b.nrows(), r_of_a_transposed.nrows());
    Array2::from_shape_fn((n, r), |(row, k)| theta_b.row(row).iter().zip(r_of_a_transposed.row(k)).map(|(x, y)| x * y).sum())
}

/// Linear CKA of all pairs of matrices that [`centred`] has prepared.
///
/// Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited": ‖YᵀX‖_F²/(‖XᵀX‖_F·‖YᵀY‖_F) for centred columns.
/// Bits of a pair's value depend on that pair alone.
#[derive(Debug)]
pub struct AllCka {
    pairs: AllPairs,
    /// ‖XᵀX‖_F of each matrix.
    own: Vec<f64>,
    columns: Vec<usize>,
}

impl AllCka {
    /// Multiplies all matrices with one another.
    ///
    /// # Shapes
    /// Each (n, r), of any r; those of different n have no CKA with one another, nor has a missing matrix with any.
    #[must_use]
    pub fn of(centred: &[Option<ArrayView2<'_, f64>>]) -> Self {
        let pairs = AllPairs::of(centred);
        let columns: Vec<usize> = centred.iter().map(|m| m.map_or(0, |m| m.ncols())).collect();
        let own = columns.iter().enumerate().map(|(k, &r)| pairs.products(k, k, r, r).map_or(0.0, |own| frobenius_of(&own)));
        Self { own: own.collect(), columns, pairs }
    }

    /// CKA of matrices `a` and `b`: 0 where all their columns are uncorrelated, 1 where they agree up to rotation and scale.
    #[must_use]
    pub fn cka(&self, a: usize, b: usize) -> Option<f64> {
        // One order of each pair, so that both have the same bits.
        let (a, b) = (a.min(b), a.max(b));
        let shared = frobenius_of(&self.pairs.products(a, b, *self.columns.get(a)?, *self.columns.get(b)?)?);
        Some(((shared / self.own[a]) * (shared / self.own[b])).min(1.0))
    }

    /// Whether both matrices are there but have different numbers of rows.
    #[must_use]
    pub fn differ_in_length(&self, a: usize, b: usize) -> bool {
        self.pairs.differ_in_length(a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::subspace::{SubspaceBasis, ThinQr};
    use ndarray::{array, s};

    /// Deterministic values in (-0.5, 0.5).
    fn sample(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        Array2::from_shape_fn((rows, columns), |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        })
    }

    fn cka(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
        let [x, y] = [x, y].map(|m| centred(m.view()).unwrap().values);
        let all = AllCka::of(&[Some(x.view()), Some(y.view())]);
        assert_eq!(all.cka(0, 1), all.cka(1, 0));
        all.cka(0, 1).unwrap()
    }

    /// The definition, with centring as a matrix product.
    fn plain_cka(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
        let n = x.nrows();
        let h = Array2::<f64>::eye(n) - Array2::from_elem((n, n), 1.0 / n as f64);
        let (x, y) = (h.dot(x), h.dot(y));
        let squares = |m: Array2<f64>| m.iter().map(|v| v * v).sum::<f64>();
        squares(y.t().dot(&x)) / (squares(x.t().dot(&x)).sqrt() * squares(y.t().dot(&y)).sqrt())
    }

    #[test]
    fn rotations_by_known_angles_have_their_cosines() {
        let e = Array2::<f64>::eye(7);
        // Each direction of X turned by its own angle into a direction of its own.
        let angles = [0.3_f64, 1.1, 0.7];
        let mut y = Array2::zeros((7, 3));
        for (k, angle) in angles.iter().enumerate() {
            y[(k, k)] = angle.cos();
            y[(k + 3, k)] = angle.sin();
        }
        // A rotation within each subspace changes nothing.
        let within = SubspaceBasis::of(sample(3, 3, 1).view()).unwrap();
        let y = y.dot(&within.left());
        let found = PrincipalCosines::of(e.slice(s![.., ..3]).t().dot(&y).view()).unwrap().unwrap();
        let [a, b, c] = angles.map(f64::cos);
        assert!((found.max - a).abs() < 1e-14 && (found.min - b).abs() < 1e-14, "{found:?}");
        assert!((found.mean - (a + b + c) / 3.0).abs() < 1e-14);
        // Equal subspaces, one within another, and orthogonal ones.
        for (x, y, cosine) in [(0..3, 0..3, 1.0), (0..2, 0..3, 1.0), (0..3, 3..7, 0.0)] {
            let block = e.slice(s![.., x]).t().dot(&e.slice(s![.., y]));
            let found = PrincipalCosines::of(block.view()).unwrap().unwrap();
            assert_eq!((found.max, found.mean, found.min), (cosine, cosine, cosine));
        }
        assert_eq!(PrincipalCosines::of(Array2::zeros((0, 3)).view()).unwrap(), None);
    }

    #[test]
    fn cka_of_identical_scaled_shifted_and_rotated_matrices_is_one() {
        let x = sample(9, 3, 2);
        let rotation = SubspaceBasis::of(sample(3, 3, 5).view()).unwrap();
        for same in [x.clone(), &x * -3.0, &x * 2.0_f64.powi(180), &x * 2.0_f64.powi(-180), &x + 7.0, x.dot(&rotation.left())] {
            assert!((cka(&x, &same) - 1.0).abs() < 1e-13, "{}", cka(&x, &same));
        }
    }

    #[test]
    fn cka_of_uncorrelated_columns_is_zero_and_known_between() {
        // Centred and orthogonal to each other.
        let (x, y) = (array![[1.0], [-1.0], [1.0], [-1.0]], array![[1.0], [1.0], [-1.0], [-1.0]]);
        assert!(cka(&x, &y) < 1e-30);
        // For single columns CKA is the squared correlation.
        assert!((cka(&x, &(&x + &y)) - 0.5).abs() < 1e-15);
        // X of singular values 2 and 1 in the plane where Y has 1 and 1: (4 + 1)/(√(16 + 1)·√2).
        let both = |a: f64, b: f64| ndarray::concatenate![Axis(1), &x * a, &y * b];
        assert!((cka(&both(2.0, 1.0), &both(1.0, 1.0)) - 5.0 / 34.0_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn centring_counts_and_constant_columns_leave_nothing() {
        let (x, y) = (sample(20, 4, 3) + 0.3, sample(20, 2, 4) - 1.0);
        assert!((cka(&x, &y) - plain_cka(&x, &y)).abs() < 1e-14);
        let uncentred = {
            let squares = |m: Array2<f64>| m.iter().map(|v| v * v).sum::<f64>();
            squares(y.t().dot(&x)) / (squares(x.t().dot(&x)) * squares(y.t().dot(&y))).sqrt()
        };
        assert!((cka(&x, &y) - uncentred).abs() > 0.1);
        // Centring turns 3 and 5, of norm √34, into -1 and 1.
        let half = centred(array![[3.0], [5.0]].view()).unwrap();
        assert!((half.share - (2.0_f64 / 34.0).sqrt()).abs() < 1e-15 && (half.values[(1, 0)] - 0.5_f64.sqrt()).abs() < 1e-15);
        assert!(centred(Array2::from_elem((5, 2), 0.1).view()).is_none());
        assert!(centred(Array2::zeros((5, 2)).view()).is_none());
        assert!(centred(array![[f64::NAN], [1.0]].view()).is_none());
    }

    #[test]
    fn a_product_is_compared_through_its_factors() {
        let (theta, a) = (sample(12, 3, 6), sample(3, 9, 7));
        let (other_theta, other_a) = (sample(12, 2, 8), sample(2, 9, 9));
        let through = |theta: &Array2<f64>, a: &Array2<f64>| product_for_cka(theta.view(), ThinQr::of(a.t()).unwrap().r.view());
        let found = cka(&through(&theta, &a), &through(&other_theta, &other_a));
        assert!((found - plain_cka(&theta.dot(&a), &other_theta.dot(&other_a))).abs() < 1e-14);
        // Another basis of the factors changes Θ_B's value, and nothing for the product.
        let basis = array![[2.0, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 3.0]];
        let turned = theta.dot(&basis);
        // a = basis·turned_a.
        let turned_a = ndarray_solve(&basis, &a);
        assert!((cka(&through(&turned, &turned_a), &through(&other_theta, &other_a)) - found).abs() < 1e-13);
        assert!((cka(&turned, &other_theta) - cka(&theta, &other_theta)).abs() > 1e-3);
    }

    /// `basis⁻¹·a` by Gauss and Jordan.
    fn ndarray_solve(basis: &Array2<f64>, a: &Array2<f64>) -> Array2<f64> {
        let (mut left, mut right) = (basis.clone(), a.clone());
        for k in 0..left.nrows() {
            let pivot = left[(k, k)];
            left.row_mut(k).mapv_inplace(|v| v / pivot);
            right.row_mut(k).mapv_inplace(|v| v / pivot);
            for other in (0..left.nrows()).filter(|&other| other != k) {
                let factor = left[(other, k)];
                let (l, r) = (left.row(k).to_owned(), right.row(k).to_owned());
                left.row_mut(other).scaled_add(-factor, &l);
                right.row_mut(other).scaled_add(-factor, &r);
            }
        }
        right
    }
}
