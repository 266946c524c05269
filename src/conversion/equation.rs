//! The input of a solve, W0 and its targets, and its result.

use ndarray::{Array2, ArrayView2, s};

use crate::error::{Error, Result};
use crate::linalg::UNIT_ROUNDOFF;
use crate::linalg::norms::{MatrixNorms, fill_with_norms, frobenius_of};
use crate::linalg::perturbation::Rounding;
use crate::terms::Method;

/// A base weight W0 that gives its rows in f64, as often as asked.
///
/// The factorisation overwrites its copy, so the residuals need the values again; a source that keeps the stored bytes gives them
/// without a second f64 copy.
pub trait WeightRows: Sync {
    /// (out, in).
    fn shape(&self) -> (usize, usize);
    /// Writes consecutive whole rows from `first` on; `out` holds a multiple of `in` values.
    fn copy_rows(&self, first: usize, out: &mut [f64]);
}

impl WeightRows for Array2<f64> {
    fn shape(&self) -> (usize, usize) {
        self.dim()
    }

    fn copy_rows(&self, first: usize, out: &mut [f64]) {
        let columns = self.ncols().max(1);
        for (row, values) in self.rows().into_iter().skip(first).zip(out.chunks_exact_mut(columns)) {
            for (to, from) in values.iter_mut().zip(row) {
                *to = *from;
            }
        }
    }
}

/// The square core M of a W0 that is not square: `W0 = Q·M`, or `W0 = M·Qᵀ` where it is wide, with orthonormal columns Q of its longer side. Whatever does
/// not depend on which basis that side is seen in is M's as well, for a part of the work.
#[derive(Debug)]
pub(crate) struct Core<'a> {
    /// R (n, n), upper triangular times `unit`: M, or its transpose where W0 is wide. Below its diagonal lies something else.
    pub(super) triangle: ArrayView2<'a, f64>,
    pub(super) unit: f64,
    pub(super) wide: bool,
}

impl WeightRows for Core<'_> {
    fn shape(&self) -> (usize, usize) {
        self.triangle.dim()
    }

    fn copy_rows(&self, first: usize, out: &mut [f64]) {
        let n = self.triangle.ncols().max(1);
        let m = if self.wide { self.triangle.t() } else { self.triangle };
        for (row, to) in (first..).zip(out.chunks_exact_mut(n)) {
            let inside = if self.wide { 0..row + 1 } else { row..n };
            to.fill(0.0);
            let values = to[inside.clone()].iter_mut().zip(m.slice(s![row, inside]));
            values.for_each(|(to, from)| *to = from * self.unit);
        }
    }
}

/// Which matrix Θ is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Equation {
    /// `W0·Θ = T`.
    W0,
    /// `W0ᵀ·Θ = T` (Θ_A in the `general` convention).
    W0Transposed,
}

impl Equation {
    /// The equation with the transpose of its matrix.
    #[must_use]
    pub fn turned(self) -> Self {
        match self {
            Self::W0 => Self::W0Transposed,
            Self::W0Transposed => Self::W0,
        }
    }
}

/// Right-hand sides that belong together: all columns of one Aᵀ or one B.
#[derive(Debug, Clone, Copy)]
pub struct Target<'t> {
    /// T (out, k), or (in, k) for [`Equation::W0Transposed`].
    pub values: ArrayView2<'t, f64>,
    /// The equation to solve.
    pub equation: Equation,
    /// Whether `values` are the coordinates of T in an orthonormal basis of the range of a matrix with more rows than columns: (min(out, in), k).
    pub in_range: bool,
}

impl<'t> Target<'t> {
    /// All columns of `values` for one equation.
    #[must_use]
    pub fn new(values: &'t Array2<f64>, equation: Equation) -> Self {
        Self { values: values.view(), equation, in_range: false }
    }

    /// The target that has all columns of `values` as coordinates in some orthonormal basis of the range of the equation's matrix.
    ///
    /// Which basis is not said: it is for Gaussian targets, whose coordinates are Gaussian in any of them. Only this part of a target is seen by least
    /// squares, and to draw it saves half of the work.
    #[must_use]
    pub fn in_range(values: &'t Array2<f64>, equation: Equation) -> Self {
        Self { in_range: true, ..Self::new(values, equation) }
    }

    /// How many rows it has to have for a W0 of this shape; none where W0 has no range smaller than the space.
    pub(super) fn rows(&self, (d_out, d_in): (usize, usize)) -> Option<usize> {
        let (rows, columns) = if self.equation == Equation::W0 { (d_out, d_in) } else { (d_in, d_out) };
        if !self.in_range { Some(rows) } else { (rows > columns).then_some(columns) }
    }
}

/// A conversion matrix and how well it solves its equation.
#[derive(Debug, Clone)]
pub struct ConversionMatrix {
    /// Θ (in, k), or (out, k) for [`Equation::W0Transposed`].
    pub theta: Array2<f64>,
    /// How it was found.
    pub method: Method,
    /// ‖WΘ − T‖_F/‖T‖_F, or what the combinations that were checked say of it; none where T = 0.
    pub residual: Option<f64>,
    /// The checked ratio of docs/spec.md, section 1; none where T = 0.
    pub backward_error: Option<f64>,
    /// Whether that ratio passed.
    pub reliable: bool,
    /// What the norm-wise error bound multiplies by `‖Θ‖₂/gap`: κ for LU, `κ + κ²·‖WΘ−T‖_F/(‖W‖₂‖Θ‖_F)` for least squares, where κ is at least σ₁ over
    /// the gap between singular values of W kept and dropped.
    pub error_factor: f64,
    /// What rounding does to Θ; none where only the norm-wise bound is known (least squares).
    pub rounding: Option<Rounding>,
    /// Numerical rank of W0 as this solve saw it: by SVD where one was made, else min(out, in).
    pub w0_rank: usize,
    /// Whether that rank is below min(out, in).
    pub singular: bool,
}

/// All conversion matrices through one W0, and what the solve found out about W0.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// One solution for each target, in order.
    pub matrices: Vec<ConversionMatrix>,
    /// Condition number of W0: 1-norm estimate, or σ₁/σ_min over the singular values kept where an SVD was made.
    pub condition: f64,
}

/// Reusable storage for one thread's factorisations.
#[derive(Debug, Default)]
pub struct Workspace {
    w: Vec<f64>,
    stored: Vec<u8>,
}

impl Workspace {
    /// The storage that a weight was read into, for the next one; empty where there was none.
    pub(crate) fn take_stored(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stored)
    }

    /// Keeps the storage that a weight was read into.
    pub(crate) fn keep_stored(&mut self, stored: Vec<u8>) {
        self.stored = stored;
    }

    /// An array with arbitrary contents.
    pub(super) fn take(&mut self, shape: (usize, usize)) -> Array2<f64> {
        let (mut kept, length) = (std::mem::take(&mut self.w), shape.0 * shape.1);
        if kept.capacity() < length {
            kept = vec![0.0; length];
        }
        kept.resize(length, 0.0);
        Array2::from_shape_vec(shape, kept).unwrap_or_else(|_| unreachable!("as many values as the shape has"))
    }

    /// Keeps the storage of a factorisation for the next one.
    pub(super) fn give_back(&mut self, w: Array2<f64>) {
        self.w = w.into_raw_vec_and_offset().0;
    }
}

/// Copies W0 into `w` and takes its norms on the way.
///
/// # Errors
/// [`Error::NonFinite`] if a value is NaN or Inf.
pub(super) fn fill(w0: &impl WeightRows, w: &mut Array2<f64>) -> Result<(MatrixNorms, [Vec<f64>; 2])> {
    let columns = w.ncols();
    let Some(values) = w.as_slice_mut() else { unreachable!("a matrix made by `zeros` is in standard layout") };
    let (norms, lines) = fill_with_norms(values, columns, |first, rows| w0.copy_rows(first, rows));
    if norms.frobenius.is_finite() {
        Ok((norms, lines))
    } else {
        Err(Error::NonFinite { what: "W0".into(), found: norms.frobenius.to_string() })
    }
}

/// W0 in f64, or its transpose where W0 is wide, and its Frobenius norm.
///
/// # Errors
/// [`Error::NonFinite`] if a value is NaN or Inf.
pub(super) fn fill_tall(w0: &impl WeightRows, workspace: &mut Workspace) -> Result<(Array2<f64>, f64)> {
    /// Rows that are turned together, so that each line of the cache is written once.
    const TOGETHER: usize = 16;
    let (d_out, d_in) = w0.shape();
    let wide = d_in > d_out;
    let mut tall = workspace.take(if wide { (d_in, d_out) } else { (d_out, d_in) });
    let mut buffer = vec![0.0; TOGETHER.min(d_out) * d_in];
    for first in (0..d_out).step_by(TOGETHER) {
        let rows = TOGETHER.min(d_out - first);
        let part = &mut buffer[..rows * d_in];
        w0.copy_rows(first, part);
        let Ok(part) = ArrayView2::from_shape((rows, d_in), &*part) else { unreachable!("the buffer was cut to these rows") };
        if wide {
            tall.slice_mut(s![.., first..first + rows]).assign(&part.t());
        } else {
            tall.slice_mut(s![first..first + rows, ..]).assign(&part);
        }
    }
    let norm = frobenius_of(&tall);
    if norm.is_finite() { Ok((tall, norm)) } else { Err(Error::NonFinite { what: "W0".into(), found: norm.to_string() }) }
}

/// Whether a solution is finite and its backward error at most this many units of rounding. NaN, which an overflow gives, fails the comparison, as it should.
pub(super) fn is_reliable(theta: &Array2<f64>, backward_error: f64, units: f64) -> bool {
    backward_error <= units * UNIT_ROUNDOFF && theta.iter().all(|v| v.is_finite())
}
