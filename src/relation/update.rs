//! The update ΔW = s·B·A of one layer by its singular vectors, and where these lie in the singular basis of W0.

use ndarray::{Array2, ArrayView2};

use super::layer::RelatedLayer;
use crate::error::Result;
use crate::linalg::lapack::multiply;
use crate::linalg::norms::{frobenius, frobenius_of};
use crate::linalg::subspace::ThinQr;
use crate::linalg::weight_basis::{WeightBasis, scale_rows};
use crate::terms::Status;

/// `ΔW = U·diag(σ)·Vᵀ` of one layer, from its factors.
pub struct Update<'l, 'a> {
    /// Whose update it is.
    pub layer: &'l RelatedLayer<'a>,
    /// Singular values, largest first; as many as the rank of the factors, and none where there is no update.
    pub sigma: Vec<f64>,
    /// How many of them are above rounding level.
    pub rank: usize,
    /// `zero` where there is no update, `unreliable` where it or its factors overflow.
    pub status: Status,
    /// U (out, r).
    pub(super) left: Array2<f64>,
    /// V (in, r).
    pub(super) right: Array2<f64>,
    /// U and V in W0's singular basis; none where W0 was not decomposed.
    pub(super) along: Option<Along>,
    /// `Uᵀ·W0·V` (r, r).
    pub(super) seen: Array2<f64>,
}

/// Singular vectors of an update in the singular basis `W0 = P·diag(σ)·Qᵀ`, a row for each of its directions.
pub(super) struct Along {
    /// `Pᵀ·U`: the outputs.
    pub(super) left: Array2<f64>,
    /// `Qᵀ·V`: the inputs.
    pub(super) right: Array2<f64>,
}

impl<'l, 'a> Update<'l, 'a> {
    /// Decomposes a layer's update, without ever forming it.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub fn of(layer: &'l RelatedLayer<'a>) -> Result<Self> {
        let Directions { left, right, sigma, rank } = match directions_of(layer)? {
            Ok(directions) => directions,
            Err(status) => return Ok(Self::none(layer, status)),
        };
        let along = layer.base.basis.map(|of_w0| Along::of(of_w0, &left, &right));
        let seen = match (&along, layer.base.basis, layer.images) {
            (Some(along), Some(of_w0), _) => multiply(along.left.t(), scale_rows(along.right.view(), &of_w0.sigma).view()),
            (_, _, Some(images)) => images.seen.clone(),
            _ => unreachable!("a layer has its weight's basis or the images of its factors"),
        };
        Ok(Self { layer, sigma, rank, status: Status::Ok, left, right, along, seen })
    }

    fn none(layer: &'l RelatedLayer<'a>, status: Status) -> Self {
        let (d_out, d_in) = layer.base.shape;
        let [left, right, seen] = [d_out, d_in, 0].map(|length| Array2::zeros((length, 0)));
        Self { layer, sigma: Vec::new(), rank: 0, status, left, right, along: None, seen }
    }

    /// ‖ΔW‖_F; infinite where it overflows.
    #[must_use]
    pub fn norm(&self) -> f64 {
        if self.status == Status::Unreliable { f64::INFINITY } else { frobenius(&self.sigma) }
    }

    /// The status of its first `k` directions.
    pub(super) fn status_of(&self, k: usize) -> Status {
        if self.status == Status::Ok && self.rank < k { Status::Rank } else { self.status }
    }
}

/// Singular vectors and values of an update.
pub(super) struct Directions {
    pub(super) left: Array2<f64>,
    pub(super) right: Array2<f64>,
    sigma: Vec<f64>,
    rank: usize,
}

/// Those of a layer's update, without ever forming it, or why it has none.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
pub(super) fn directions_of(layer: &RelatedLayer<'_>) -> Result<std::result::Result<Directions, Status>> {
    let fits = |factor: ArrayView2<'_, f64>| frobenius_of(&factor).is_finite();
    match layer.status() {
        Status::Ok if fits(layer.b) && fits(layer.a_transposed) => {}
        Status::Ok => return Ok(Err(Status::Unreliable)),
        status => return Ok(Err(status)),
    }
    let basis = ThinQr::of(layer.b)?.basis_of_product(&ThinQr::of(layer.a_transposed)?)?;
    let (mut left, right, spectrum) = basis.into_parts();
    let sigma: Vec<f64> = spectrum.sigma().iter().map(|sigma| sigma * layer.scaling.abs()).collect();
    match sigma.first() {
        // B·A can be zero where neither factor is.
        None | Some(0.0) => return Ok(Err(Status::Zero)),
        Some(largest) if !largest.is_finite() => return Ok(Err(Status::Unreliable)),
        Some(_) => {}
    }
    if layer.scaling < 0.0 {
        left.mapv_inplace(|v| -v);
    }
    Ok(Ok(Directions { left, right, sigma, rank: spectrum.rank() }))
}

impl Along {
    fn of(of_w0: &WeightBasis, left: &Array2<f64>, right: &Array2<f64>) -> Self {
        Self { left: multiply(of_w0.left.t(), left.view()), right: multiply(of_w0.right.t(), right.view()) }
    }
}

/// `a/b` where b is above zero.
pub(super) fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}
