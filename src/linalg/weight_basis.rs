//! The singular vectors and values of a base weight: the basis in which what an adapter does to W0 can be read off.

use ndarray::{Array2, ArrayView2, Axis, ShapeBuilder, s};
use ndarray_linalg::{JobSvd, SVDDC};

use super::lapack::{multiply, symmetric_eigen, use_one_blas_thread};
use super::norms::power_near;
use crate::error::{Error, Result};
use crate::stored::stored;

/// Above this ratio of singular values the eigenvalues of `W0·W0ᵀ`, which are their squares, keep too few digits of the small ones.
const LARGEST_CONDITION: f64 = 1e6;

/// `W0 = U·diag(σ)·Vᵀ` with k = min(out, in) singular values, largest first.
///
/// The vectors are stored column by column: products with a few columns then read them as they lie, where row by row they would be packed anew for each.
#[derive(Debug, Clone)]
pub struct WeightBasis {
    /// Left singular vectors U (out, k).
    pub left: Array2<f64>,
    /// Singular values.
    pub sigma: Vec<f64>,
    /// Right singular vectors V (in, k).
    pub right: Array2<f64>,
}

stored!(WeightBasis { left, sigma, right });

impl WeightBasis {
    /// By the singular value decomposition (`gesdd`): all digits of every singular value that rounding leaves.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if W0 holds NaN or Inf, [`Error::Lapack`] if it does not converge.
    pub fn by_svd(w0: ArrayView2<'_, f64>) -> Result<Self> {
        use_one_blas_thread();
        check_finite(w0)?;
        let failed = |detail: String| Error::Lapack { routine: "gesdd", detail };
        // LAPACK scales small and large matrices by factors that are not powers of two, which would change digits.
        let unit = unit_of(w0);
        match w0.mapv(|v| v / unit).svddc(JobSvd::Some).map_err(|e| failed(e.to_string()))? {
            (Some(left), sigma, Some(right)) => {
                let sigma = sigma.iter().map(|sigma| sigma * unit).collect();
                Ok(Self { left: by_columns(left), sigma, right: by_columns(right.reversed_axes()) })
            }
            _ => Err(failed("singular vectors are missing".into())),
        }
    }

    /// By the symmetric eigenproblem of the smaller of `W0·W0ᵀ` and `W0ᵀ·W0`, at half the price; by [`Self::by_svd`] where W0 is too close to
    /// singular for it.
    ///
    /// The basis of the smaller side is orthogonal to rounding whatever the condition of W0 is, which is all that a control needs that turns
    /// signs in it. The other side's vectors are W0's images of these, divided by σ.
    ///
    /// # Errors
    /// Those of [`Self::by_svd`].
    pub fn by_eigenvectors(w0: ArrayView2<'_, f64>) -> Result<Self> {
        use_one_blas_thread();
        check_finite(w0)?;
        let tall = w0.nrows() > w0.ncols();
        // The smaller side comes first: G = M·Mᵀ.
        let m = if tall { w0.t() } else { w0 };
        let unit = unit_of(m);
        let scaled = m.mapv(|v| v / unit);
        let mut own = multiply(scaled.view(), scaled.t());
        let values = symmetric_eigen(&mut own)?;
        let (smallest, largest) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
        if largest >= smallest * LARGEST_CONDITION * LARGEST_CONDITION {
            return Self::by_svd(w0);
        }
        // Eigenvalues come smallest first.
        let own = own.slice(s![.., ..;-1]).to_owned();
        let mut images = multiply(scaled.t(), own.view());
        let mut sigma = Vec::with_capacity(own.ncols());
        for mut image in images.columns_mut() {
            // The norm of the image has more digits than the root of the eigenvalue.
            let norm = image.dot(&image).sqrt();
            image.mapv_inplace(|v| v / norm);
            sigma.push(norm * unit);
        }
        let (left, right) = if tall { (images, own) } else { (own, images) };
        Ok(Self { left: by_columns(left), sigma, right: by_columns(right) })
    }

    /// About how long [`Self::by_eigenvectors`] takes on one core, in seconds: measured from 384 to 2,048, where it grows with the cube.
    #[must_use]
    pub fn seconds_for(d_out: usize, d_in: usize) -> f64 {
        let (short, long) = (d_out.min(d_in) as f64, d_out.max(d_in) as f64);
        2e-10 * short * short * (short + 0.2 * (long - short))
    }

    /// How many singular values are above rounding level: `max(out, in)·ε·σ₁`.
    #[must_use]
    pub fn rank(&self) -> usize {
        let longest = self.left.nrows().max(self.right.nrows()) as f64;
        let cutoff = longest * super::EPSILON * self.sigma.first().copied().unwrap_or(0.0);
        self.sigma.iter().take_while(|&&sigma| sigma > cutoff).count()
    }

    /// ‖W0‖_F.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.sigma.iter().map(|sigma| sigma * sigma).sum::<f64>().sqrt()
    }
}

fn by_columns(vectors: Array2<f64>) -> Array2<f64> {
    if vectors.t().is_standard_layout() {
        return vectors;
    }
    let mut columns = Array2::zeros(vectors.dim().f());
    columns.assign(&vectors);
    columns
}

/// `values` with row k multiplied by `by[k]`.
#[must_use]
pub fn scale_rows(values: ArrayView2<'_, f64>, by: &[f64]) -> Array2<f64> {
    let mut out = values.to_owned();
    for (mut row, factor) in out.axis_iter_mut(Axis(0)).zip(by) {
        row.mapv_inplace(|v| v * factor);
    }
    out
}

/// A power of two near the largest value.
pub fn unit_of(matrix: ArrayView2<'_, f64>) -> f64 {
    power_near(matrix.iter().fold(0.0_f64, |most, v| most.max(v.abs())))
}

fn check_finite(matrix: ArrayView2<'_, f64>) -> Result<()> {
    match matrix.iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(Error::NonFinite { what: "W0".into(), found: bad.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::random::normal_stream;

    fn gaussian(rows: usize, columns: usize) -> Array2<f64> {
        let values = normal_stream(7, &[b"weight"], rows * columns);
        Array2::from_shape_vec((rows, columns), values).unwrap()
    }

    fn largest(matrix: &Array2<f64>) -> f64 {
        matrix.iter().fold(0.0, |most, v| most.max(v.abs()))
    }

    #[test]
    fn both_ways_give_the_weight_back_in_orthonormal_bases() {
        for (rows, columns) in [(20, 20), (30, 12), (12, 30)] {
            let w0 = gaussian(rows, columns) * 1e-3;
            let (svd, eigen) = (WeightBasis::by_svd(w0.view()).unwrap(), WeightBasis::by_eigenvectors(w0.view()).unwrap());
            for basis in [&svd, &eigen] {
                assert_eq!((basis.left.ncols(), basis.right.ncols()), (rows.min(columns), rows.min(columns)));
                assert!(basis.sigma.windows(2).all(|pair| pair[0] >= pair[1]) && basis.rank() == rows.min(columns));
                let back = basis.left.dot(&scale_rows(basis.right.t(), &basis.sigma));
                assert!(largest(&(&back - &w0)) < 1e-15, "{rows} x {columns}");
                for side in [&basis.left, &basis.right] {
                    assert!(largest(&(side.t().dot(side) - Array2::<f64>::eye(side.ncols()))) < 1e-11);
                }
                assert!((basis.norm() / w0.iter().map(|v| v * v).sum::<f64>().sqrt() - 1.0).abs() < 1e-14);
            }
            for (one, other) in svd.sigma.iter().zip(&eigen.sigma) {
                assert!((one / other - 1.0).abs() < 1e-12, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_weight_close_to_singular_is_decomposed_by_svd() {
        let mut w0 = gaussian(10, 10);
        let copy = w0.row(0).to_owned();
        w0.row_mut(1).assign(&copy);
        let basis = WeightBasis::by_eigenvectors(w0.view()).unwrap();
        assert_eq!(basis.rank(), 9);
        assert_eq!(basis.sigma, WeightBasis::by_svd(w0.view()).unwrap().sigma);
        assert_eq!(WeightBasis::by_eigenvectors(Array2::zeros((4, 3)).view()).unwrap().rank(), 0);
        assert!(WeightBasis::by_eigenvectors(Array2::from_elem((2, 2), f64::NAN).view()).is_err());
    }
}
