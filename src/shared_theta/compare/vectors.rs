//! The subspaces of one side's layer: of A, of B and of their product.

use crate::error::Result;
use crate::inputs::FactorPair;
use crate::layer_matrix::LayerMatrix;
use crate::linalg::subspace::{SubspaceBasis, ThinQr};
use crate::terms::UpdateMatrix;

/// The right singular vectors of A, and the left ones of B and of B·A.
pub(super) struct UpdateVectors([LayerMatrix; 3]);

impl UpdateVectors {
    /// Computes them from A and B; B·A is never formed.
    ///
    /// # Numerics
    /// Rounding in B·A is of the size of ‖B‖₂‖A‖₂, which can be more than ‖B·A‖₂: its error factor is their ratio.
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(super) fn of(factors: &FactorPair) -> Result<Self> {
        let n = factors.a_transposed.nrows().max(factors.b.nrows());
        let qr = |matrix: &ndarray::Array2<f64>| {
            matrix.iter().any(|value| *value != 0.0).then(|| ThinQr::of(matrix.view())).transpose()
        };
        // Right vectors of A are the left ones of Aᵀ.
        let (qr_a, qr_b) = (qr(&factors.a_transposed)?, qr(&factors.b)?);
        let basis = |qr: &Option<ThinQr>| qr.as_ref().map(ThinQr::basis).transpose();
        let (a, b) = (basis(&qr_a)?, basis(&qr_b)?);
        let delta = qr_b.as_ref().zip(qr_a.as_ref()).map(|(b, a)| b.basis_of_product(a)).transpose()?;
        let largest = |basis: &Option<SubspaceBasis>| basis.as_ref().and_then(|b| b.spectrum().sigma().first().copied());
        let growth = match (largest(&a), largest(&b), largest(&delta)) {
            (Some(a), Some(b), Some(product)) => (a * b / product).max(1.0),
            _ => 1.0,
        };
        Ok(Self([
            LayerMatrix::without_w0(a, 1.0, n),
            LayerMatrix::without_w0(b, 1.0, n),
            LayerMatrix::without_w0(delta, growth, n),
        ]))
    }

    pub(super) fn get(&self, matrix: UpdateMatrix) -> &LayerMatrix {
        let [a, b, delta] = &self.0;
        match matrix {
            UpdateMatrix::A => a,
            UpdateMatrix::B => b,
            UpdateMatrix::Delta => delta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{Side, Status};
    use ndarray::{Array2, array};

    #[test]
    fn a_scaled_permutation_has_known_subspaces() {
        // Aᵀ = [3e₁, e₃], B = [e₂, 2e₁]: B·A = 3·e₂e₁ᵀ + 2·e₁e₃ᵀ.
        let factors = FactorPair {
            a_transposed: array![[3.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
            b: array![[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]],
        };
        let vectors = UpdateVectors::of(&factors).unwrap();
        let first = |matrix, row: usize| vectors.get(matrix).vectors(Side::Left).unwrap()[(row, 0)].abs();
        for (matrix, row) in [(UpdateMatrix::A, 0), (UpdateMatrix::B, 0), (UpdateMatrix::Delta, 1)] {
            assert!((first(matrix, row) - 1.0).abs() < 1e-15, "{matrix}");
            assert_eq!(vectors.get(matrix).status(2), Status::Ok);
            assert_eq!(vectors.get(matrix).status(3), Status::Rank);
        }
        assert_eq!(vectors.get(UpdateMatrix::Delta).vectors(Side::Left).unwrap().nrows(), 3);
    }

    #[test]
    fn zero_factors_have_no_subspace() {
        let factors = FactorPair { a_transposed: array![[1.0], [2.0]], b: Array2::zeros((3, 1)) };
        let vectors = UpdateVectors::of(&factors).unwrap();
        assert_eq!(
            [UpdateMatrix::A, UpdateMatrix::B, UpdateMatrix::Delta].map(|m| vectors.get(m).status(1)),
            [Status::Ok, Status::Zero, Status::Zero]
        );
    }
}
