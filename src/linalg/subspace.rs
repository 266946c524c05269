//! Singular vectors of tall matrices and of products of thin factors, without forming anything square.

use ndarray::{Array2, ArrayView2, s};
use ndarray_linalg::SVD;

use super::EPSILON;
use super::lapack::use_one_blas_thread;
use super::norms::{frobenius_of, power_near};
use super::panel::Panel;
use super::qr::QrFactors;
use crate::error::{Error, Result};
use crate::stored::stored;

/// `Q·R` of a matrix (m, k): Q (m, k) with orthonormal columns, R (k, k) upper triangular. Of one with fewer rows than columns Q is the identity, and R
/// the matrix itself.
#[derive(Debug, Clone)]
pub struct ThinQr {
    /// None where Q is the identity.
    factors: Option<QrFactors>,
    rows: usize,
    /// R (min(m, k), k).
    pub r: Array2<f64>,
}

impl ThinQr {
    /// Householder QR, scaled by a power of two, which changes no digit.
    ///
    /// # Shapes
    /// `matrix` (m, k).
    /// # Errors
    /// [`Error::NonFinite`] if it holds NaN or Inf.
    pub fn of(matrix: ArrayView2<'_, f64>) -> Result<Self> {
        let (m, k) = matrix.dim();
        let size = frobenius_of(&matrix);
        if !size.is_finite() {
            check_finite(matrix)?;
        }
        if m < k {
            return Ok(Self { factors: None, rows: m, r: matrix.to_owned() });
        }
        let unit = power_near(size);
        let mut scaled = Array2::zeros((m, k));
        let inverse = unit.recip();
        scaled.zip_mut_with(&matrix, |to, from| *to = from * inverse);
        let factors = QrFactors::factorise(scaled)?;
        let triangle = factors.triangle();
        let r = Array2::from_shape_fn((k, k), |(row, column)| if row <= column { triangle[(row, column)] * unit } else { 0.0 });
        Ok(Self { factors: Some(factors), rows: m, r })
    }

    /// Q (m, min(m, k)).
    #[must_use]
    pub fn q(&self) -> Array2<f64> {
        self.times(Array2::eye(self.r.nrows()).view())
    }

    /// Q·x.
    fn times(&self, x: ArrayView2<'_, f64>) -> Array2<f64> {
        let Some(factors) = &self.factors else { return x.to_owned() };
        let mut panel = Panel::of(x).resized(self.rows);
        panel.reflect(factors, false);
        panel.all()
    }

    /// Singular vectors of `Q·R`.
    ///
    /// # Errors
    /// [`Error::Lapack`] if the small SVD does not converge.
    pub fn basis(&self) -> Result<SubspaceBasis> {
        let (u, sigma, right) = small_svd(&self.r)?;
        let cutoff = self.rows.max(self.r.ncols()) as f64 * EPSILON;
        Ok(SubspaceBasis::new(self.times(u.view()), right, sigma, cutoff))
    }

    /// Singular vectors of `self·otherᵀ`, from the core `R₁·R₂ᵀ`. Where the product overflows, its singular values do too.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two have different numbers of columns.
    pub fn basis_of_product(&self, other: &Self) -> Result<SubspaceBasis> {
        Ok(self.product(other, true)?.0)
    }

    /// The same for X·Yᵀ, without the right vectors V unless they are wanted, and `Xᵀ·U` and `Yᵀ·V` (k, k).
    ///
    /// # Errors
    /// Those of [`Self::basis_of_product`].
    pub(crate) fn product(&self, other: &Self, with_right: bool) -> Result<(SubspaceBasis, [Array2<f64>; 2])> {
        if self.r.ncols() != other.r.ncols() {
            return Err(Error::Shape {
                what: "ThinQr::basis_of_product",
                expected: format!("{} columns", self.r.ncols()),
                found: other.r.ncols().to_string(),
            });
        }
        // Powers of two keep the core from overflow and underflow and change no digit.
        let units = [&self.r, &other.r].map(|r| power_near(frobenius_of(r)));
        let (u, sigma, v) = small_svd(&(&self.r / units[0]).dot(&(&other.r.t() / units[1])))?;
        let cutoff = self.r.ncols() as f64 * EPSILON;
        let right = if with_right { other.times(v.view()) } else { Array2::zeros((other.rows, 0)) };
        let mut basis = SubspaceBasis::new(self.times(u.view()), right, sigma, cutoff);
        basis.spectrum.sigma.iter_mut().for_each(|sigma| *sigma = *sigma * units[0] * units[1]);
        Ok((basis, [self.r.t().dot(&u), other.r.t().dot(&v)]))
    }
}

/// Singular values, largest first, and how many of them are above rounding level.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    sigma: Vec<f64>,
    rank: usize,
}

stored!(Spectrum { sigma, rank });

impl Spectrum {
    fn new(sigma: Vec<f64>, cutoff: f64) -> Self {
        let largest = sigma.first().copied().unwrap_or(0.0);
        let rank = sigma.iter().take_while(|&&s| s > cutoff * largest).count();
        Self { sigma, rank }
    }

    /// Singular values, largest first.
    #[must_use]
    pub fn sigma(&self) -> &[f64] {
        &self.sigma
    }

    /// How many singular values are above rounding level. 0 for a zero matrix.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// σ_i − σ_{i+1}, with σ_{r+1} = 0: how well the first `i` vectors are determined.
    #[must_use]
    pub fn gap(&self, i: usize) -> f64 {
        let at = |k: usize| self.sigma.get(k).copied().unwrap_or(0.0);
        if i == 0 { 0.0 } else { at(i - 1) - at(i) }
    }
}

/// Singular vectors of a matrix with its singular values, largest first.
///
/// Invariant: values are finite and the columns of each side orthonormal; those beyond the spectrum's rank are arbitrary and must not be compared.
#[derive(Debug, Clone)]
pub struct SubspaceBasis {
    left: Array2<f64>,
    right: Array2<f64>,
    spectrum: Spectrum,
}

impl SubspaceBasis {
    fn new(left: Array2<f64>, right: Array2<f64>, sigma: Vec<f64>, cutoff: f64) -> Self {
        Self { left, right, spectrum: Spectrum::new(sigma, cutoff) }
    }

    /// Singular vectors of a matrix (m, k), as many as its shorter side is long.
    ///
    /// # Errors
    /// Those of [`ThinQr::of`].
    pub fn of(matrix: ArrayView2<'_, f64>) -> Result<Self> {
        ThinQr::of(matrix)?.basis()
    }

    /// The singular vectors of the transposed matrix: left and right are exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { left: self.right, right: self.left, ..self }
    }

    /// Left singular vectors (m, k).
    #[must_use]
    pub fn left(&self) -> ArrayView2<'_, f64> {
        self.left.view()
    }

    /// Right singular vectors as columns.
    #[must_use]
    pub fn right(&self) -> ArrayView2<'_, f64> {
        self.right.view()
    }

    /// Left vectors, right vectors and spectrum.
    #[must_use]
    pub fn into_parts(self) -> (Array2<f64>, Array2<f64>, Spectrum) {
        (self.left, self.right, self.spectrum)
    }

    /// Singular values and numerical rank.
    #[must_use]
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }
}

/// Singular values of a small matrix, largest first; an empty matrix has none.
///
/// # Errors
/// [`Error::NonFinite`] if it holds NaN or Inf, [`Error::Lapack`] if the SVD does not converge.
pub fn singular_values(matrix: ArrayView2<'_, f64>) -> Result<Vec<f64>> {
    use_one_blas_thread();
    if matrix.is_empty() {
        return Ok(Vec::new());
    }
    check_finite(matrix)?;
    let (_, sigma, _) = matrix.svd(false, false).map_err(|e| Error::Lapack { routine: "gesvd", detail: e.to_string() })?;
    Ok(sigma.to_vec())
}

/// U, σ and V (as columns) of a small matrix, as many of each as its shorter side is long.
fn small_svd(core: &Array2<f64>) -> Result<(Array2<f64>, Vec<f64>, Array2<f64>)> {
    check_finite(core.view())?;
    if core.is_empty() {
        return Ok((Array2::zeros((core.nrows(), 0)), Vec::new(), Array2::zeros((core.ncols(), 0))));
    }
    let failed = |detail: String| Error::Lapack { routine: "gesvd", detail };
    // LAPACK scales small and large matrices by factors that are not powers of two, which would change digits.
    let unit = power_near(frobenius_of(core));
    match (core / unit).svd(true, true).map_err(|e| failed(e.to_string()))? {
        (Some(u), sigma, Some(vt)) => {
            let first = |vectors: Array2<f64>| {
                if vectors.ncols() == sigma.len() { vectors } else { vectors.slice(s![.., ..sigma.len()]).to_owned() }
            };
            let (u, v) = (first(u), first(vt.reversed_axes()));
            Ok((u, sigma.iter().map(|sigma| sigma * unit).collect(), v))
        }
        _ => Err(failed("singular vectors are missing".into())),
    }
}

fn check_finite(matrix: ArrayView2<'_, f64>) -> Result<()> {
    match matrix.iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(Error::NonFinite { what: "a matrix of singular vectors sought".into(), found: bad.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_scaled_permutation_has_its_own_singular_vectors() {
        let basis = SubspaceBasis::of(array![[0.0, 3.0], [2.0, 0.0], [0.0, 0.0]].view()).unwrap();
        assert!((basis.spectrum().sigma()[0] - 3.0).abs() < 1e-15 && (basis.spectrum().sigma()[1] - 2.0).abs() < 1e-15);
        assert!((basis.left()[(0, 0)].abs() - 1.0).abs() < 1e-15);
        assert!((basis.right()[(1, 0)].abs() - 1.0).abs() < 1e-15);
        assert_eq!(basis.spectrum().rank(), 2);
        assert!((basis.spectrum().gap(1) - 1.0).abs() < 1e-15 && (basis.spectrum().gap(2) - 2.0).abs() < 1e-15);
    }

    #[test]
    fn rank_counts_what_is_above_rounding() {
        assert_eq!(SubspaceBasis::of(Array2::zeros((4, 2)).view()).unwrap().spectrum().rank(), 0);
        let dependent = array![[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]];
        assert_eq!(SubspaceBasis::of(dependent.view()).unwrap().spectrum().rank(), 1);
    }

    #[test]
    fn a_product_is_decomposed_through_its_factors() {
        let x = array![[1.0, 0.5], [-2.0, 1.0], [0.0, 3.0], [1.5, 1.0]];
        let y = array![[2.0, 0.0], [1.0, -1.0], [0.5, 4.0]];
        let basis = ThinQr::of(x.view()).unwrap().basis_of_product(&ThinQr::of(y.view()).unwrap()).unwrap();
        let mut back = Array2::<f64>::zeros((4, 3));
        for k in 0..2 {
            for a in 0..4 {
                for b in 0..3 {
                    back[(a, b)] += basis.left()[(a, k)] * basis.spectrum().sigma()[k] * basis.right()[(b, k)];
                }
            }
        }
        let error = (&back - &x.dot(&y.t())).iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(error < 1e-14, "{error:e}");
        assert_eq!(basis.spectrum().rank(), 2);
        let dependent = array![[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]];
        let basis = ThinQr::of(x.view()).unwrap().basis_of_product(&ThinQr::of(dependent.view()).unwrap()).unwrap();
        assert_eq!(basis.spectrum().rank(), 1);
    }

    #[test]
    fn no_columns_are_no_vectors() {
        let qr = ThinQr::of(Array2::zeros((4, 0)).view()).unwrap();
        assert_eq!((qr.q().dim(), qr.r.dim()), ((4, 0), (0, 0)));
        assert!(SubspaceBasis::of(qr.q().view()).unwrap().spectrum().sigma().is_empty());
    }

    #[test]
    fn nan_is_refused() {
        assert!(SubspaceBasis::of(array![[f64::NAN], [1.0]].view()).is_err());
    }
}
