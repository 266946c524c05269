//! From factors and conversion matrices to what is compared of one layer: singular vectors, spectrum, and what is known of their errors.

use ndarray::{Array2, ArrayView2, s};

use super::layer_matrix::{LayerMatrix, Trust, with_confidence};
use super::params::View;
use super::stored::FactorPair;
use crate::checkpoint::PairedLayer;
use crate::conversion::ConversionMatrix;
use crate::error::Result;
use crate::linalg::norms::frobenius_of;
use crate::linalg::perturbation::{Decomposed, SubspaceErrors};
use crate::linalg::subspace::{SubspaceBasis, ThinQr};
use crate::measures::{centred, product_for_cka};
use crate::table::ConversionRow;
use crate::terms::{Convention, MatrixKind, Side, Status};

/// What is wanted of every layer: which vectors, and how many.
pub(super) struct Wanted<'a> {
    pub(super) kinds: &'a [MatrixKind],
    pub(super) views: &'a [View],
    /// Matrices that are compared as a whole.
    pub(super) by_cka: &'a [MatrixKind],
    /// The largest i or j; none for all.
    pub(super) most: Option<usize>,
}

impl Wanted<'_> {
    fn side(&self, matrix: MatrixKind, side: Side) -> bool {
        self.views.contains(&View { matrix, side })
    }

    /// How many vectors of a matrix of this rank can be asked for.
    pub(super) fn most_of(&self, rank: usize) -> usize {
        self.most.map_or(rank, |most| most.min(rank))
    }
}

/// The two conversion matrices of one adapter's layer.
#[derive(Clone, Copy)]
pub(super) struct Solved<'a> {
    pub(super) factors: &'a FactorPair,
    pub(super) a: &'a ConversionMatrix,
    pub(super) b: &'a ConversionMatrix,
    /// Condition number of W0.
    pub(super) condition: f64,
    /// The larger side of W0.
    pub(super) n: usize,
}

/// What one adapter's layer gives.
pub(super) struct Compared {
    /// In the order of the study's matrices.
    pub(super) matrices: Vec<(MatrixKind, LayerMatrix)>,
    status: Status,
    norm_of_product: f64,
}

impl Solved<'_> {
    /// The matrices wanted, and what `conversion.csv` says of Θ_A and Θ_B.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(super) fn compare(&self, wanted: &Wanted<'_>) -> Result<Compared> {
        let factors = self.factors;
        let (zero_a, zero_b) = (is_zero(&factors.a_transposed), is_zero(&factors.b));
        // A matrix whose norm overflows has no singular values in f64.
        let usable = |zero: bool, matrix: &ConversionMatrix| !zero && fits(matrix.theta.view());
        let qr_a = (!zero_a && fits(factors.a_transposed.view())).then(|| ThinQr::of(factors.a_transposed.view())).transpose()?;
        let qr_theta_b = usable(zero_b, self.b).then(|| ThinQr::of(self.b.theta.view())).transpose()?;
        let theta_a = usable(zero_a, self.a).then(|| SubspaceBasis::of(self.a.theta.view())).transpose()?;
        let theta_b = qr_theta_b.as_ref().map(ThinQr::basis).transpose()?;

        // The matrix as CKA compares it; of one that overflowed nothing is left.
        let whole = |kind: MatrixKind| {
            let by_cka = wanted.by_cka.contains(&kind);
            let matrix = || match kind {
                MatrixKind::A => centred(self.a.theta.view()),
                MatrixKind::B => centred(self.b.theta.view()),
                MatrixKind::BA => qr_a.as_ref().and_then(|qr| centred(product_for_cka(self.b.theta.view(), qr.r.view()).view())),
                MatrixKind::LoraA => centred(factors.a_transposed.view()),
                MatrixKind::LoraB => centred(factors.b.view()),
            };
            by_cka.then(matrix).flatten()
        };
        let keep = |kind: MatrixKind, basis: Option<SubspaceBasis>, zero: bool, solved: Option<&ConversionMatrix>| {
            let trust = match (&basis, solved) {
                (Some(basis), Some(matrix)) => self.trust(kind, basis, matrix),
                _ => Trust::NormWise(1.0),
            };
            let (mut left, mut right, spectrum) = match basis {
                Some(basis) => {
                    let (left, right, spectrum) = basis.into_parts();
                    (Some(left), Some(right), Some(spectrum))
                }
                None => (None, None, None),
            };
            for (vectors, side) in [(&mut left, Side::Left), (&mut right, Side::Right)] {
                *vectors = vectors.take().filter(|_| wanted.side(kind, side)).map(|all| first_columns(all, wanted));
            }
            LayerMatrix {
                left,
                right,
                centred: whole(kind),
                zero,
                reliable: (zero || spectrum.is_some()) && solved.is_none_or(|matrix| matrix.reliable),
                spectrum,
                singular: solved.is_some_and(|matrix| matrix.singular),
                error_factor: solved.map_or(1.0, |matrix| matrix.error_factor),
                trust,
                n: self.n,
            }
        };
        let theta_a = keep(MatrixKind::A, theta_a, zero_a, Some(self.a));
        let theta_b = keep(MatrixKind::B, theta_b, zero_b, Some(self.b));
        let rank = factors.rank();
        let status = [&theta_a, &theta_b].map(|m| with_confidence(m.status(rank), m.angle(Side::Left, rank, rank)));
        // ‖B·A‖_F = ‖B·Rᵀ‖_F with Aᵀ = Q·R.
        let norm_of_product = qr_a.as_ref().map_or(0.0, |qr| frobenius_of(&factors.b.dot(&qr.r.t())));

        let (mut theta_a, mut theta_b) = (Some(theta_a), Some(theta_b));
        let mut matrices = Vec::with_capacity(wanted.kinds.len());
        for &kind in wanted.kinds {
            let matrix = match kind {
                MatrixKind::A => theta_a.take(),
                MatrixKind::B => theta_b.take(),
                MatrixKind::BA => {
                    let both = qr_theta_b.as_ref().zip(qr_a.as_ref());
                    let basis = both.map(|(b, a)| b.basis_of_product(a)).transpose()?;
                    let basis = basis.filter(|basis| basis.spectrum().sigma().iter().all(|sigma| sigma.is_finite()));
                    Some(keep(kind, basis, zero_a || zero_b, Some(self.b)))
                }
                // Right vectors of A are the left ones of Aᵀ.
                MatrixKind::LoraA => {
                    let basis = qr_a.as_ref().map(ThinQr::basis).transpose()?.map(SubspaceBasis::transposed);
                    Some(keep(kind, basis, zero_a, None))
                }
                MatrixKind::LoraB => {
                    let basis = (!zero_b && fits(factors.b.view())).then(|| SubspaceBasis::of(factors.b.view())).transpose()?;
                    Some(keep(kind, basis, zero_b, None))
                }
            };
            matrices.extend(matrix.map(|m| (kind, m)));
        }
        Ok(Compared { matrices, status: status[0].worse(status[1]), norm_of_product })
    }

    /// What is known of the rounding errors of the singular vectors of Θ_A, Θ_B or Θ_BA.
    fn trust(&self, kind: MatrixKind, basis: &SubspaceBasis, solved: &ConversionMatrix) -> Trust {
        let Some(rounding) = &solved.rounding else { return Trust::NormWise(solved.error_factor) };
        let norms = |matrix: &Array2<f64>| matrix.columns().into_iter().map(|column| frobenius_of(&column)).collect::<Vec<_>>();
        let (sigma, theta_norms) = (basis.spectrum().sigma(), norms(&solved.theta));
        let (left, right) = (basis.left(), basis.right());
        let errors = if kind == MatrixKind::BA {
            let a_transposed = &self.factors.a_transposed;
            let (through_a, from_theta, a_norms) =
                (a_transposed.t().dot(&right), solved.theta.t().dot(&left), norms(a_transposed));
            let product = Some((from_theta.view(), &a_norms[..]));
            SubspaceErrors::of(Decomposed { left, sigma, right: through_a.view(), norms: &theta_norms, product }, Some(rounding))
        } else {
            SubspaceErrors::of(Decomposed { left, sigma, right, norms: &theta_norms, product: None }, Some(rounding))
        };
        Trust::Expected(errors)
    }

    /// The row of `conversion.csv`.
    pub(super) fn row(
        &self,
        adapter: &str,
        module: &str,
        paired: &PairedLayer,
        convention: Convention,
        of: &Compared,
    ) -> ConversionRow {
        let layer = &paired.adapter_layer;
        ConversionRow {
            adapter: adapter.to_owned(),
            module: module.to_owned(),
            layer: layer.layer,
            adapter_key: layer.adapter_key.clone(),
            tensor: paired.tensor.clone(),
            out_features: paired.d_out,
            in_features: paired.d_in,
            rank: layer.rank,
            scaling: layer.scaling,
            convention,
            method: self.a.method.max(self.b.method),
            w0_dtype: paired.w0_dtype.clone(),
            adapter_dtype: layer.dtype.clone(),
            w0_rank: self.a.w0_rank.min(self.b.w0_rank),
            w0_condition: Some(self.condition).filter(|c| c.is_finite()),
            residual_a: self.a.residual,
            residual_b: self.b.residual,
            backward_error_a: self.a.backward_error,
            backward_error_b: self.b.backward_error,
            norm_a: frobenius_of(&self.factors.a_transposed),
            norm_b: frobenius_of(&self.factors.b),
            norm_delta: layer.scaling.abs() * of.norm_of_product,
            status: of.status,
        }
    }
}

/// The vectors of each view, then each matrix that CKA compares, for matrices drawn in place of Θ_A, Θ_B and (for BA) Aᵀ; none for a matrix that is
/// zero or too small in rank. Of the factors themselves there is nothing here.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
pub(super) fn drawn_vectors(
    wanted: &Wanted<'_>,
    theta_a: ArrayView2<'_, f64>,
    theta_b: ArrayView2<'_, f64>,
    a_transposed: ArrayView2<'_, f64>,
) -> Result<Vec<Option<Array2<f64>>>> {
    let has = |matrix| wanted.views.iter().any(|v: &View| v.matrix == matrix);
    // A W0 near the end of the range of f64 lets a solution overflow: that draw has no vectors then.
    let finite = |theta: ArrayView2<'_, f64>| fits(theta);
    let with_b = (has(MatrixKind::B) || has(MatrixKind::BA)) && finite(theta_b);
    let basis_a = (has(MatrixKind::A) && finite(theta_a)).then(|| SubspaceBasis::of(theta_a)).transpose()?;
    let qr_b = with_b.then(|| ThinQr::of(theta_b)).transpose()?;
    let basis_b = qr_b.as_ref().filter(|_| has(MatrixKind::B)).map(ThinQr::basis).transpose()?;
    let basis_ba = match &qr_b {
        Some(qr_b) if has(MatrixKind::BA) => Some(qr_b.basis_of_product(&ThinQr::of(a_transposed)?)?),
        _ => None,
    };
    let mut parts = [basis_a, basis_b, basis_ba].map(|basis| {
        basis.map(|basis| {
            let (left, right, spectrum) = basis.into_parts();
            ([Some(left), Some(right)], spectrum.rank())
        })
    });
    let take = |view: &View| {
        let at = match view.matrix {
            MatrixKind::A => 0,
            MatrixKind::B => 1,
            MatrixKind::BA => 2,
            MatrixKind::LoraA | MatrixKind::LoraB => return None,
        };
        let (sides, rank) = parts[at].as_mut()?;
        let vectors = sides[usize::from(view.side == Side::Right)].take()?;
        let most = wanted.most_of(vectors.ncols()).min(*rank);
        (most > 0).then(|| if most == vectors.ncols() { vectors } else { vectors.slice(s![.., ..most]).to_owned() })
    };
    let vectors: Vec<_> = wanted.views.iter().map(take).collect();
    let of = |matrix: ArrayView2<'_, f64>| centred(matrix).map(|whole| whole.values);
    let whole = |kind: &MatrixKind| -> Result<Option<Array2<f64>>> {
        Ok(match kind {
            MatrixKind::A => of(theta_a),
            MatrixKind::B => of(theta_b),
            MatrixKind::BA if finite(theta_b) => of(product_for_cka(theta_b, ThinQr::of(a_transposed)?.r.view()).view()),
            _ => None,
        })
    };
    vectors.into_iter().map(Ok).chain(wanted.by_cka.iter().map(whole)).collect()
}

/// Only the columns that can be asked for.
fn first_columns(vectors: Array2<f64>, wanted: &Wanted<'_>) -> Array2<f64> {
    let most = wanted.most_of(vectors.ncols());
    if most == vectors.ncols() { vectors } else { vectors.slice(s![.., ..most]).to_owned() }
}

/// Whether the norm of a matrix is within the range of f64, and with it its triangle and its singular values.
fn fits(matrix: ArrayView2<'_, f64>) -> bool {
    frobenius_of(&matrix).is_finite()
}

fn is_zero(values: &Array2<f64>) -> bool {
    values.iter().all(|&v| v == 0.0)
}
