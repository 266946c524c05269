//! LU with partial pivoting for square matrices, as fast as the matrix product allows.
//!
//! LAPACK's own `getrf` spends half its time in triangular solves at the sizes that matter here (n = 384 to 4096). This one recurses on
//! columns (Toledo 1997), so that nearly all work is matrix products: LAPACK factorises narrow panels, and triangles are applied as products with
//! the explicit inverses of their small unit diagonal blocks. Every solve is checked afterwards ([`crate::conversion`]), so the mild loss in
//! the worst-case bound that such inverses bring is never taken on trust.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

use super::lapack::{factorise_panel, multiply_into, use_one_blas_thread};
use crate::error::{Error, Result};

/// Columns factorised by LAPACK at a time.
const PANEL: usize = 16;
/// Side of the unit triangular blocks that are inverted.
const TRIANGLE: usize = 16;

/// `W = L̃·Ũ·P` of a square W, stored row-major in place: L̃ lower with its diagonal, Ũ unit upper, P a column permutation.
///
/// This is LAPACK's `Wᵀ = P·L·U` read without moving a value: a row-major W is a column-major Wᵀ.
#[derive(Debug)]
pub struct LuFactors {
    pub(super) packed: Array2<f64>,
    pub(super) pivots: Vec<i32>,
    zero_pivot: Option<usize>,
}

impl LuFactors {
    /// Factorises `w`, taking its storage.
    ///
    /// # Shapes
    /// `w` (n, n), rows contiguous (row stride may exceed n).
    /// # Errors
    /// [`Error::Shape`] if `w` is not square.
    pub fn factorise(w: Array2<f64>) -> Result<Self> {
        use_one_blas_thread();
        let n = w.nrows();
        if w.ncols() != n {
            return Err(Error::Shape { what: "LuFactors::factorise", expected: "a square matrix".into(), found: format!("{:?}", w.dim()) });
        }
        let mut packed = w;
        let mut pivots = vec![0; n];
        let mut scratch = vec![0.0; n * TRIANGLE];
        let zero_pivot = factorise_rows(packed.view_mut(), &mut pivots, &mut scratch)?;
        Ok(Self { packed, pivots, zero_pivot })
    }

    /// The first column with an exactly zero pivot: W is singular and no solve is possible.
    #[must_use]
    pub fn zero_pivot(&self) -> Option<usize> {
        self.zero_pivot
    }

    /// Gives the storage back, to be filled again.
    #[must_use]
    pub fn into_storage(self) -> Array2<f64> {
        self.packed
    }
}

/// One level of the recursion on the rows of `w` (columns of the matrix LAPACK sees); pivots are 0-based column numbers within `w`.
fn factorise_rows(mut w: ArrayViewMut2<'_, f64>, pivots: &mut [i32], scratch: &mut [f64]) -> Result<Option<usize>> {
    let rows = w.nrows();
    if rows <= PANEL {
        return factorise_panel(w, pivots);
    }
    let half = (rows / 2).next_multiple_of(PANEL).min(rows - 1);
    let (mut top, mut bottom) = w.view_mut().split_at(Axis(0), half);
    let (top_pivots, bottom_pivots) = pivots.split_at_mut(half);

    let zero_top = factorise_rows(top.view_mut(), top_pivots, scratch)?;
    swap_columns(&mut bottom, top_pivots);
    let (mut solved, mut trailing) = bottom.view_mut().split_at(Axis(1), half);
    let (triangle, right) = top.view_mut().split_at(Axis(1), half);
    divide_by_unit_upper(solved.view_mut(), triangle.view(), scratch);
    multiply_into(trailing.view_mut(), true, -1.0, solved.view(), right.view());
    let zero_bottom = factorise_rows(trailing, bottom_pivots, scratch)?;
    swap_columns(&mut top.slice_mut(s![.., half..]), bottom_pivots);

    let offset = half as i32;
    for pivot in bottom_pivots {
        *pivot += offset;
    }
    Ok(zero_top.or(zero_bottom.map(|k| k + half)))
}

/// Applies the column exchanges (k ↔ pivots[k], in order) to every row.
fn swap_columns(w: &mut ArrayViewMut2<'_, f64>, pivots: &[i32]) {
    for mut row in w.rows_mut() {
        if let Some(values) = row.as_slice_mut() {
            for (k, &pivot) in pivots.iter().enumerate() {
                values.swap(k, pivot as usize);
            }
        }
    }
}

/// `x ← x·Ũ⁻¹` for the unit upper triangle Ũ of `triangle`.
fn divide_by_unit_upper(mut x: ArrayViewMut2<'_, f64>, triangle: ArrayView2<'_, f64>, scratch: &mut [f64]) {
    let size = triangle.nrows();
    if size <= TRIANGLE {
        let mut inverse = [0.0; TRIANGLE * TRIANGLE];
        invert_unit_upper(triangle, &mut inverse);
        let rows = x.nrows();
        let (Ok(inverse), Ok(mut copy)) = (
            ArrayView2::from_shape((size, size), &inverse[..size * size]),
            ArrayViewMut2::from_shape((rows, size), &mut scratch[..rows * size]),
        ) else {
            return;
        };
        copy.assign(&x);
        multiply_into(x, false, 1.0, copy.view(), inverse);
        return;
    }
    let half = (size / 2).next_multiple_of(TRIANGLE).min(size - 1);
    let (mut left, mut right) = x.view_mut().split_at(Axis(1), half);
    divide_by_unit_upper(left.view_mut(), triangle.slice(s![..half, ..half]), scratch);
    multiply_into(right.view_mut(), true, -1.0, left.view(), triangle.slice(s![..half, half..]));
    divide_by_unit_upper(right, triangle.slice(s![half.., half..]), scratch);
}

/// The inverse of a unit upper triangle, row-major.
fn invert_unit_upper(triangle: ArrayView2<'_, f64>, inverse: &mut [f64; TRIANGLE * TRIANGLE]) {
    let size = triangle.nrows();
    // Row by row from the bottom: inv[i] = e_i − Σ_{k>i} u[i,k]·inv[k].
    for i in (0..size).rev() {
        let (above, below) = inverse.split_at_mut((i + 1) * size);
        let row = &mut above[i * size..];
        row.fill(0.0);
        row[i] = 1.0;
        for k in i + 1..size {
            let u = triangle[(i, k)];
            for (value, &done) in row.iter_mut().zip(&below[(k - i - 1) * size..(k - i) * size]) {
                *value -= u * done;
            }
        }
    }
}
