//! From the factors and conversion matrices of one layer to what is compared: singular vectors, spectrum, and what is known about their errors.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, s};

use super::super::context::Wanted;
use super::super::params::View;
use super::solved::DrawnMatrices;
use crate::checkpoint::PairedLayer;
use crate::conversion::ConversionMatrix;
use crate::error::Result;
use crate::inputs::FactorPair;
use crate::layer_matrix::{LayerMatrix, Trust, with_confidence};
use crate::linalg::norms::{column_norms, frobenius_of};
use crate::linalg::perturbation::{Decomposed, SubspaceErrors};
use crate::linalg::subspace::{SubspaceBasis, ThinQr};
use crate::measures::{Centred, centred, product_for_cka};
use crate::table::ConversionRow;
use crate::terms::{Convention, MatrixKind, Side, Status};

/// The two conversion matrices of one adapter's layer, and the factors that they give.
#[derive(Clone, Copy)]
pub(crate) struct LayerThetas<'a> {
    pub(crate) factors: &'a FactorPair,
    /// Aᵀ before training; none where it is not asked for or not known.
    pub(crate) initial_a: Option<&'a Array2<f64>>,
    pub(crate) a: &'a ConversionMatrix,
    pub(crate) b: &'a ConversionMatrix,
    /// Condition number of W0.
    pub(crate) condition: f64,
    /// The larger side of W0.
    pub(crate) n: usize,
}

/// The result for one adapter's layer.
pub(crate) struct LayerMatrices {
    /// The matrices that are compared.
    pub(crate) by_kind: BTreeMap<MatrixKind, LayerMatrix>,
    /// The worse status of Θ_A and Θ_B.
    status: Status,
    norm_of_product: f64,
}

/// Θ_Bᵀ times the left singular vectors of Θ_BA, and A times the right ones.
type Through = [Array2<f64>; 2];

/// Decompositions that several of a layer's matrices use.
struct Decompositions {
    zero_a: bool,
    zero_b: bool,
    /// `Aᵀ − A_initᵀ`; none where it is zero or not asked for.
    learned_a: Option<Array2<f64>>,
    /// `Aᵀ = Q·R`; none where A is zero or its norm overflows.
    qr_a: Option<ThinQr>,
    /// The QR decomposition of Θ_B; none where B is zero or the norm of Θ_B overflows.
    qr_theta_b: Option<ThinQr>,
}

impl LayerThetas<'_> {
    /// The matrices to compare, and the values of Θ_A and Θ_B for `conversion.csv`.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(crate) fn matrices(&self, wanted: &Wanted<'_>) -> Result<LayerMatrices> {
        let parts = Decompositions::of(self)?;
        // Θ_A and Θ_B are judged whether or not they are compared.
        let mut by_kind = BTreeMap::new();
        let also_wanted = wanted.kinds.iter().copied().filter(|kind| !matches!(kind, MatrixKind::A | MatrixKind::B));
        for kind in [MatrixKind::A, MatrixKind::B].into_iter().chain(also_wanted) {
            by_kind.insert(kind, self.matrix(kind, &parts, wanted)?);
        }
        let rank = self.factors.rank();
        let judged = |kind: MatrixKind| {
            let matrix = &by_kind[&kind];
            with_confidence(matrix.status(rank), matrix.angle(Side::Left, rank, rank))
        };
        let status = judged(MatrixKind::A).worse(judged(MatrixKind::B));
        by_kind.retain(|kind, _| wanted.kinds.contains(kind));
        // ‖B·A‖_F = ‖B·Rᵀ‖_F with Aᵀ = Q·R.
        let norm_of_product = parts.qr_a.as_ref().map_or(0.0, |qr| frobenius_of(&self.factors.b.dot(&qr.r.t())));
        Ok(LayerMatrices { by_kind, status, norm_of_product })
    }

    fn matrix(&self, kind: MatrixKind, parts: &Decompositions, wanted: &Wanted<'_>) -> Result<LayerMatrix> {
        let (zero, solution) = (parts.is_zero(kind), self.solution(kind));
        let (basis, through) = self.basis(kind, parts, wanted)?;
        let trust = match (&basis, solution) {
            (Some(basis), Some(theta)) => self.trust(basis, through.as_ref(), theta),
            _ => Trust::NormWise(1.0),
        };
        let kept = |vectors: Array2<f64>, side| wanted.side(kind, side).then(|| first_columns(vectors, wanted));
        let (left, right, spectrum) = match basis.map(SubspaceBasis::into_parts) {
            Some((left, right, spectrum)) => (kept(left, Side::Left), kept(right, Side::Right), Some(spectrum)),
            None => (None, None, None),
        };
        Ok(LayerMatrix {
            left,
            right,
            centred: if wanted.by_cka.contains(&kind) { self.centred(kind, parts) } else { None },
            zero,
            reliable: (zero || spectrum.is_some()) && solution.is_none_or(|theta| theta.reliable),
            spectrum,
            singular: solution.is_some_and(|theta| theta.singular),
            error_factor: solution.map_or(1.0, |theta| theta.error_factor),
            trust,
            n: self.n,
        })
    }

    /// The singular vectors and values of a matrix, none where it is zero or overflowed; of Θ_BA with what they give through its factors.
    fn basis(
        &self,
        kind: MatrixKind,
        parts: &Decompositions,
        wanted: &Wanted<'_>,
    ) -> Result<(Option<SubspaceBasis>, Option<Through>)> {
        let of = |zero: bool, matrix: ArrayView2<'_, f64>| (!zero && fits(matrix)).then(|| SubspaceBasis::of(matrix)).transpose();
        let basis = match kind {
            MatrixKind::A => of(parts.zero_a, self.a.theta.view())?,
            MatrixKind::B => parts.qr_theta_b.as_ref().map(ThinQr::basis).transpose()?,
            MatrixKind::BA => {
                let both = parts.qr_theta_b.as_ref().zip(parts.qr_a.as_ref());
                let product = both.map(|(theta_b, a)| theta_b.product(a, wanted.side(kind, Side::Right))).transpose()?;
                let is_finite = |basis: &SubspaceBasis| basis.spectrum().sigma().iter().all(|sigma| sigma.is_finite());
                return Ok(product.filter(|(basis, _)| is_finite(basis)).unzip());
            }
            // Right vectors of A are the left ones of Aᵀ.
            MatrixKind::LoraA => parts.qr_a.as_ref().map(ThinQr::basis).transpose()?.map(SubspaceBasis::transposed),
            MatrixKind::LoraB => of(parts.zero_b, self.factors.b.view())?,
            MatrixKind::LearnedA => {
                let learned = parts.learned_a.as_ref().map(|learned| of(false, learned.view())).transpose()?;
                learned.flatten().map(SubspaceBasis::transposed)
            }
        };
        Ok((basis, None))
    }

    /// The solve that a matrix comes from; none for a factor itself.
    fn solution(&self, kind: MatrixKind) -> Option<&ConversionMatrix> {
        match kind {
            MatrixKind::A => Some(self.a),
            MatrixKind::B | MatrixKind::BA => Some(self.b),
            MatrixKind::LoraA | MatrixKind::LoraB | MatrixKind::LearnedA => None,
        }
    }

    /// The centred matrix for CKA; none for a matrix that overflowed.
    fn centred(&self, kind: MatrixKind, parts: &Decompositions) -> Option<Centred> {
        match kind {
            MatrixKind::A => centred(self.a.theta.view()),
            MatrixKind::B => centred(self.b.theta.view()),
            MatrixKind::BA => centred(product_for_cka(self.b.theta.view(), parts.qr_a.as_ref()?.r.view()).view()),
            MatrixKind::LoraA => centred(self.factors.a_transposed.view()),
            MatrixKind::LoraB => centred(self.factors.b.view()),
            MatrixKind::LearnedA => centred(parts.learned_a.as_ref()?.view()),
        }
    }

    /// What is known about the rounding errors of the singular vectors of Θ_A, Θ_B or Θ_BA.
    fn trust(&self, basis: &SubspaceBasis, through: Option<&Through>, theta: &ConversionMatrix) -> Trust {
        let Some(rounding) = &theta.rounding else { return Trust::NormWise(theta.error_factor) };
        let (sigma, theta_norms) = (basis.spectrum().sigma(), column_norms(theta.theta.view()));
        let (left, right) = (basis.left(), basis.right());
        let errors = if let Some([from_theta, through_a]) = through {
            let a_norms = column_norms(self.factors.a_transposed.view());
            let product = Some((from_theta.view(), &a_norms[..]));
            SubspaceErrors::of(Decomposed { left, sigma, right: through_a.view(), norms: &theta_norms, product }, Some(rounding))
        } else {
            SubspaceErrors::of(Decomposed { left, sigma, right, norms: &theta_norms, product: None }, Some(rounding))
        };
        Trust::Expected(errors)
    }

    /// The row of `conversion.csv`.
    pub(crate) fn row(
        &self,
        adapter: &str,
        module: &str,
        paired: &PairedLayer,
        convention: Convention,
        of: &LayerMatrices,
    ) -> ConversionRow {
        let layer = &paired.adapter_layer;
        ConversionRow {
            adapter: adapter.to_owned(),
            module: module.to_owned(),
            layer: layer.layer.clone(),
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
            w0_condition: in_range(self.condition),
            residual_a: self.a.residual,
            residual_b: self.b.residual,
            backward_error_a: self.a.backward_error,
            backward_error_b: self.b.backward_error,
            norm_a: in_range(frobenius_of(&self.factors.a_transposed)),
            norm_b: in_range(frobenius_of(&self.factors.b)),
            norm_delta: in_range(layer.scaling.abs() * of.norm_of_product),
            status: of.status,
        }
    }
}

impl Decompositions {
    fn of(layer: &LayerThetas<'_>) -> Result<Self> {
        let is_zero = |values: &Array2<f64>| values.iter().all(|&v| v == 0.0);
        let (a_transposed, theta_b) = (&layer.factors.a_transposed, &layer.b.theta);
        let (zero_a, zero_b) = (is_zero(a_transposed), is_zero(&layer.factors.b));
        let qr = |zero: bool, matrix: ArrayView2<'_, f64>| (!zero && fits(matrix)).then(|| ThinQr::of(matrix)).transpose();
        let learned_a = layer.initial_a.map(|initial| a_transposed - initial).filter(|learned| !is_zero(learned));
        Ok(Self { zero_a, zero_b, learned_a, qr_a: qr(zero_a, a_transposed.view())?, qr_theta_b: qr(zero_b, theta_b.view())? })
    }

    /// Whether a matrix is zero because a factor is.
    fn is_zero(&self, kind: MatrixKind) -> bool {
        match kind {
            MatrixKind::A | MatrixKind::LoraA => self.zero_a,
            MatrixKind::B | MatrixKind::LoraB => self.zero_b,
            MatrixKind::BA => self.zero_a || self.zero_b,
            MatrixKind::LearnedA => self.learned_a.is_none(),
        }
    }
}

/// The vectors to compare of matrices drawn in place of Θ_A, Θ_B and (for BA) Aᵀ; none for a matrix that is zero or has too small a rank.
/// The factors themselves are not covered.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
pub(crate) fn drawn_matrices(
    wanted: &Wanted<'_>,
    theta_a: ArrayView2<'_, f64>,
    theta_b: ArrayView2<'_, f64>,
    a_transposed: ArrayView2<'_, f64>,
) -> Result<DrawnMatrices> {
    let has = |matrix| wanted.views.iter().any(|v: &View| v.matrix == matrix);
    // A W0 near the end of the range of f64 lets a solution overflow: that draw has no vectors then.
    let with_b = (has(MatrixKind::B) || has(MatrixKind::BA)) && fits(theta_b);
    let basis_a = (has(MatrixKind::A) && fits(theta_a)).then(|| SubspaceBasis::of(theta_a)).transpose()?;
    let qr_b = with_b.then(|| ThinQr::of(theta_b)).transpose()?;
    let basis_b = qr_b.as_ref().filter(|_| has(MatrixKind::B)).map(ThinQr::basis).transpose()?;
    let basis_ba = match &qr_b {
        Some(qr_b) if has(MatrixKind::BA) => {
            let with_right = wanted.side(MatrixKind::BA, Side::Right);
            Some(qr_b.product(&ThinQr::of(a_transposed)?, with_right)?.0)
        }
        _ => None,
    };
    let vectors_of = |view: &View| {
        let basis = match view.matrix {
            MatrixKind::A => &basis_a,
            MatrixKind::B => &basis_b,
            MatrixKind::BA => &basis_ba,
            MatrixKind::LoraA | MatrixKind::LoraB | MatrixKind::LearnedA => return None,
        };
        let basis = basis.as_ref()?;
        let vectors = if view.side == Side::Left { basis.left() } else { basis.right() };
        let most = wanted.most_of(vectors.ncols()).min(basis.spectrum().rank());
        (most > 0).then(|| vectors.slice(s![.., ..most]).to_owned())
    };
    let centred_of = |kind: &MatrixKind| -> Result<Option<Array2<f64>>> {
        let of = |matrix: ArrayView2<'_, f64>| centred(matrix).map(|centred| centred.values);
        Ok(match kind {
            MatrixKind::A => of(theta_a),
            MatrixKind::B => of(theta_b),
            MatrixKind::BA if fits(theta_b) => of(product_for_cka(theta_b, ThinQr::of(a_transposed)?.r.view()).view()),
            MatrixKind::BA | MatrixKind::LoraA | MatrixKind::LoraB | MatrixKind::LearnedA => None,
        })
    };
    Ok(DrawnMatrices {
        by_view: wanted.views.iter().map(vectors_of).collect(),
        by_cka: wanted.by_cka.iter().map(centred_of).collect::<Result<_>>()?,
    })
}

/// Only the columns that can be asked for.
fn first_columns(vectors: Array2<f64>, wanted: &Wanted<'_>) -> Array2<f64> {
    let most = wanted.most_of(vectors.ncols());
    if most == vectors.ncols() { vectors } else { vectors.slice(s![.., ..most]).to_owned() }
}

/// A number in the range of f64: the others cannot be written.
fn in_range(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}

/// Whether the norm of a matrix is within the range of f64, and with it its triangle and its singular values.
fn fits(matrix: ArrayView2<'_, f64>) -> bool {
    frobenius_of(&matrix).is_finite()
}
