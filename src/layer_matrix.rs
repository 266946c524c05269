//! A matrix of one layer in the form in which it is compared, and the status and error bound of a comparison.

use ndarray::{Array2, ArrayView2};

use crate::error::Result;
use crate::linalg::UNIT_ROUNDOFF;
use crate::linalg::perturbation::SubspaceErrors;
use crate::linalg::subspace::{Spectrum, SubspaceBasis};
use crate::measures::Centred;
use crate::similarity::{AllPairs, change_of_phi, vector_error};
use crate::stored::{Reader, Stored, Writer, stored};
use crate::terms::{Side, Status};

/// A bound on φ above this makes its status `low_confidence`.
const CONFIDENT: f64 = 1e-3;

/// The bound on an error is the expected error times this. The bound is statistical: rounding errors are drawn at random, and the effect that a
/// few samples have on φ is multiplied by this. On the matrices of `tests/numerics.rs` no error is larger than the expected one.
const SAFETY: f64 = 4.0;

/// The status, once the error bound is taken into account.
pub(crate) fn with_confidence(status: Status, bound: f64) -> Status {
    if status == Status::Ok && bound > CONFIDENT { Status::LowConfidence } else { status }
}

/// A matrix of one layer, ready to be compared: its singular vectors that are needed, and its spectrum.
pub(crate) struct LayerMatrix {
    pub(crate) left: Option<Array2<f64>>,
    pub(crate) right: Option<Array2<f64>>,
    /// The centred matrix for CKA; none without CKA, or where the matrix has nothing to compare.
    pub(crate) centred: Option<Centred>,
    /// None where the matrix is zero, or where its solve overflowed.
    pub(crate) spectrum: Option<Spectrum>,
    pub(crate) zero: bool,
    pub(crate) reliable: bool,
    pub(crate) singular: bool,
    pub(crate) error_factor: f64,
    pub(crate) trust: Trust,
    pub(crate) n: usize,
}

stored!(LayerMatrix { left, right, centred, spectrum, zero, reliable, singular, error_factor, trust, n });

/// What is known about the rounding errors of a matrix's singular vectors.
pub(crate) enum Trust {
    /// Their expected size, from the errors of its solve.
    Expected(SubspaceErrors),
    /// A bound from norms alone, to be multiplied by `‖Θ‖₂/gap`.
    NormWise(f64),
}

impl Stored for Trust {
    fn put(&self, to: &mut Writer) {
        match self {
            Self::Expected(errors) => {
                to.text(&true);
                errors.put(to);
            }
            Self::NormWise(factor) => {
                to.text(&false);
                factor.put(to);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        Ok(if from.text()? { Self::Expected(SubspaceErrors::take(from)?) } else { Self::NormWise(f64::take(from)?) })
    }
}

impl LayerMatrix {
    /// A factor, or a product of factors, that is compared without W0: by the left vectors of `basis`, which is none where the
    /// matrix is zero.
    pub(crate) fn without_w0(basis: Option<SubspaceBasis>, error_factor: f64, n: usize) -> Self {
        let (left, spectrum) = match basis.map(SubspaceBasis::into_parts) {
            Some((left, _, spectrum)) => (Some(left), Some(spectrum)),
            None => (None, None),
        };
        let zero = spectrum.is_none();
        let trust = Trust::NormWise(error_factor);
        Self { left, right: None, spectrum, zero, reliable: true, singular: false, error_factor, trust, n, centred: None }
    }

    /// The singular vectors of one side.
    pub(crate) fn vectors(&self, side: Side) -> Option<ArrayView2<'_, f64>> {
        let vectors = if side == Side::Left { &self.left } else { &self.right };
        vectors.as_ref().map(|vectors| vectors.view())
    }

    /// The status of its first `i` vectors, which does not depend on what they are compared with.
    ///
    /// One exception to the order of [`Status`]: `rank` comes before `unreliable` and `singular`. There are no such vectors, which is what
    /// the empty cell has to tell; the quality of the solve matters only for vectors that exist.
    pub(crate) fn status(&self, i: usize) -> Status {
        match &self.spectrum {
            None if self.zero => Status::Zero,
            Some(spectrum) if i > spectrum.rank() => Status::Rank,
            _ if !self.reliable => Status::Unreliable,
            _ if self.singular => Status::Singular,
            _ => Status::Ok,
        }
    }

    /// The rounding errors of its vectors on one side, where more than norms is known.
    fn errors(&self, side: Side) -> Option<&SubspaceErrors> {
        match (&self.trust, side) {
            (Trust::Expected(errors), Side::Left) => Some(errors),
            _ => None,
        }
    }

    /// How far its first `i` vectors can be turned, as [`change_of_phi`] takes it, where the smaller of the two subspaces has `smaller` dimensions.
    pub(crate) fn angle(&self, side: Side, i: usize, smaller: usize) -> f64 {
        match (&self.trust, &self.spectrum) {
            (_, None) => f64::INFINITY,
            (Trust::Expected(errors), _) => {
                let expected = if side == Side::Left { errors.left(i) } else { errors.right(i) };
                SAFETY * expected / (smaller.max(1) as f64).sqrt()
            }
            (Trust::NormWise(factor), Some(spectrum)) => vector_error(self.n, *factor, spectrum, i),
        }
    }
}

/// The expected error of `min(i, j)·φ` that rounding makes in the vectors of both matrices, for each (i, j): a matrix over all pairs (a, b) of those
/// `among` the observed, of the first `i` vectors of a and the first `j` of b; none where only norms are known.
pub(crate) fn summed_errors(
    observed: &[&LayerMatrix],
    side: Side,
    pairs: &AllPairs,
    among: &[usize],
    numbers: &[(usize, usize)],
) -> Vec<Array2<Option<f64>>> {
    // For each pair, the effect of the errors of a's vectors plus that of the errors of b's.
    let mut parts = vec![Array2::from_elem((among.len(), among.len()), [None; 2]); numbers.len()];
    for (row, &x) in among.iter().enumerate() {
        let Some(errors) = observed[x].errors(side) else { continue };
        // One product for all matrices that it is compared with: many small products take several times as long.
        let Some(along) = errors.response().and_then(|response| pairs.times(x, response)) else { continue };
        for (column, &y) in among.iter().enumerate() {
            // For its first `own` vectors, compared with the first `others` of y.
            let error = |own: usize, others: usize| {
                let (along, cosines) = along.of(y, others).zip(pairs.products(x, y, own, others))?;
                errors.of_overlap(along, cosines.view())
            };
            for (parts, &(i, j)) in parts.iter_mut().zip(numbers) {
                let forward = error(i, j);
                parts[(row, column)][0] = forward;
                parts[(column, row)][1] = if i == j { forward } else { error(j, i) };
            }
        }
    }
    parts.into_iter().map(|parts| parts.mapv(|[of_a, of_b]| of_a.zip(of_b).map(|(a, b)| a + b))).collect()
}

/// The value whose status and bound are wanted: a bound on φ depends on φ itself.
#[derive(Clone, Copy)]
pub(crate) enum PairValue {
    /// A cosine between the subspaces, or a φ that does not exist.
    Cosine,
    /// φ.
    Phi(f64),
    /// φ, and its entry of [`summed_errors`].
    PhiWithErrors(f64, f64),
}

impl PairValue {
    pub(crate) fn of(phi: Option<f64>, summed: Option<f64>) -> Self {
        match (phi, summed) {
            (Some(phi), Some(summed)) => Self::PhiWithErrors(phi, summed),
            (Some(phi), None) => Self::Phi(phi),
            (None, _) => Self::Cosine,
        }
    }
}

/// The status of φ between the first `i` vectors of `x` and the first `j` of `y`, and the bound on its error.
///
/// For square weights the bound is four times the expected effect of rounding errors that are drawn at random; it is statistical. Where only
/// norms of the errors are known, it is a first-order bound from these.
pub(crate) fn cell_status(
    [x, y]: [&LayerMatrix; 2],
    side: Side,
    (i, j): (usize, usize),
    value: PairValue,
    differ_in_length: bool,
) -> (Status, f64) {
    let (status_x, status_y) = (x.status(i), y.status(j));
    let bound = (error_bound([x, y], side, (i, j), value) + evaluation_error(x.n.max(y.n))).min(1.0);
    let status = if differ_in_length {
        Status::Skipped
    } else if let Some(without) = [status_x, status_y].into_iter().filter(|s| matches!(s, Status::Zero | Status::Rank)).min() {
        // One of the two has no vectors to compare: that is what the empty cell has to tell.
        without
    } else {
        with_confidence(status_x.worse(status_y), bound)
    };
    (status, bound)
}

/// The bound on the effect that errors of the vectors have on φ, or on a cosine.
fn error_bound([x, y]: [&LayerMatrix; 2], side: Side, (i, j): (usize, usize), value: PairValue) -> f64 {
    let angle = |smaller: usize| x.angle(side, i, smaller) + y.angle(side, j, smaller);
    let smaller = i.min(j);
    match value {
        PairValue::Cosine => angle(1),
        PairValue::Phi(phi) => change_of_phi(phi, angle(smaller)),
        PairValue::PhiWithErrors(phi, summed) => {
            let angle = angle(smaller);
            // To first order the error of φ is a sum of many terms, which mostly cancel; the neglected part has the size of the squared angle.
            change_of_phi(phi, angle).min(SAFETY * summed / smaller as f64 + angle * angle)
        }
    }
}

/// The effect of rounding on φ of given vectors of length up to n, and on their orthonormality.
fn evaluation_error(n: usize) -> f64 {
    20.0 * UNIT_ROUNDOFF * (1.0 + (n as f64).sqrt())
}

/// The status of the CKA of two matrices: as for φ, without ranks and gaps.
pub(crate) fn cka_status(x: &LayerMatrix, y: &LayerMatrix, differ_in_length: bool) -> Status {
    if differ_in_length {
        return Status::Skipped;
    }
    let (Some(centred_x), Some(centred_y)) = (&x.centred, &y.centred) else {
        let overflowed = [x, y].into_iter().any(|m| !m.zero && !m.reliable);
        return if overflowed { Status::Unreliable } else { Status::Zero };
    };
    let status = |m: &LayerMatrix| {
        if !m.reliable {
            Status::Unreliable
        } else if m.singular {
            Status::Singular
        } else {
            Status::Ok
        }
    };
    let error = |m: &LayerMatrix, centred: &Centred| 10.0 * UNIT_ROUNDOFF * (m.n as f64 + m.error_factor) / centred.share;
    with_confidence(status(x).worse(status(y)), error(x, centred_x) + error(y, centred_y))
}

/// Whether a cell of this status has a φ.
pub(crate) fn has_phi(status: Status) -> bool {
    !matches!(status, Status::Skipped | Status::Zero | Status::Rank)
}
