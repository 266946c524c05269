//! LU with partial pivoting for square matrices, as fast as the matrix product allows.
//!
//! LAPACK's own `getrf` spends half its time in triangular solves at the sizes that matter here (n = 384 to 4096). This one recurses on
//! columns (Toledo 1997), so that nearly all work is matrix products: LAPACK factorises narrow panels, and the triangles between are solved in
//! vector registers. The matrix is row-major, unlike LAPACK's: an exchange of rows then moves whole cache lines, W0 needs no transposition after it
//! is read, and the kernels of `substitution` broadcast consecutive values. Only the narrow panels are copied to columns for LAPACK.

use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};
use pulp::{Arch, Simd, WithSimd};

use super::lapack::{factorise_panel, multiply_into, use_one_blas_thread};
use super::stripes::in_stripes;
use super::strips::values_of;
use crate::error::{Error, Result};

/// Columns factorised by LAPACK at a time, and rows of a triangle solved in registers.
const PANEL: usize = 16;

/// `W = P·L·U` of a square W, row-major in place: L unit lower, U upper, P a row permutation.
#[derive(Debug)]
pub struct LuFactors {
    pub(super) packed: Array2<f64>,
    /// Row k was exchanged with row `exchanges[k]`, in order.
    pub(super) exchanges: Vec<usize>,
    zero_pivot: Option<usize>,
}

impl LuFactors {
    /// Factorises `w`, taking its storage.
    ///
    /// # Shapes
    /// `w` (n, n) in standard layout.
    /// # Errors
    /// [`Error::Shape`] if `w` is not square.
    pub fn factorise(w: Array2<f64>) -> Result<Self> {
        use_one_blas_thread();
        let n = w.nrows();
        if w.ncols() != n || !w.is_standard_layout() {
            let found = format!("{:?}, strides {:?}", w.dim(), w.strides());
            return Err(Error::Shape {
                what: "LuFactors::factorise",
                expected: "a square matrix in standard layout".into(),
                found,
            });
        }
        let mut packed = w;
        let mut exchanges = vec![0; n];
        let mut scratch = vec![0.0; column_stride(n) * PANEL];
        let zero_pivot = factorise_columns(packed.view_mut(), &mut exchanges, &mut scratch)?;
        Ok(Self { packed, exchanges, zero_pivot })
    }

    /// The packed factors L and U, row by row.
    pub(super) fn values(&self) -> &[f64] {
        values_of(&self.packed)
    }

    /// n.
    #[must_use]
    pub fn size(&self) -> usize {
        self.packed.nrows()
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

/// One level of the recursion on the columns of `w`; exchanges are row numbers within `w`.
fn factorise_columns(mut w: ArrayViewMut2<'_, f64>, exchanges: &mut [usize], scratch: &mut [f64]) -> Result<Option<usize>> {
    let columns = w.ncols();
    if columns <= PANEL {
        return factorise_narrow(w, exchanges, scratch);
    }
    let half = (columns / 2).next_multiple_of(PANEL);
    let (mut left, mut right) = w.view_mut().split_at(Axis(1), half);
    let (first, second) = exchanges.split_at_mut(half);

    let zero_left = factorise_columns(left.view_mut(), first, scratch)?;
    let (triangle, below) = left.view().split_at(Axis(0), half);
    in_stripes(right.view_mut(), |mut stripe| {
        exchange_rows(stripe.view_mut(), first);
        let (mut solved, trailing) = stripe.split_at(Axis(0), half);
        divide_by_unit_lower(triangle, solved.view_mut());
        multiply_into(trailing, true, -1.0, below, solved.view());
    });
    let zero_right = factorise_columns(right.slice_mut(s![half.., ..]), second, scratch)?;
    exchange_rows(left.slice_mut(s![half.., ..]), second);

    for row in second {
        *row += half;
    }
    Ok(zero_left.or(zero_right.map(|k| k + half)))
}

/// The distance between columns of a panel: an odd number of cache lines, so that a row does not fall into one set of the cache.
fn column_stride(rows: usize) -> usize {
    const LINE: usize = 64 / size_of::<f64>();
    (rows.div_ceil(LINE) | 1) * LINE
}

/// Factorises a narrow block of columns through a copy in LAPACK's layout.
fn factorise_narrow(mut w: ArrayViewMut2<'_, f64>, exchanges: &mut [usize], scratch: &mut [f64]) -> Result<Option<usize>> {
    let (rows, columns) = w.dim();
    let stride = column_stride(rows);
    let columns_first = &mut scratch[..stride * columns];
    for (r, row) in w.rows().into_iter().enumerate() {
        for (c, &value) in row.iter().enumerate() {
            columns_first[c * stride + r] = value;
        }
    }
    let mut pivots = [0; PANEL];
    let zero_pivot = factorise_panel(columns_first, rows, stride, &mut pivots[..columns])?;
    for (r, mut row) in w.rows_mut().into_iter().enumerate() {
        for (c, value) in row.iter_mut().enumerate() {
            *value = columns_first[c * stride + r];
        }
    }
    for (exchange, pivot) in exchanges.iter_mut().zip(pivots) {
        *exchange = pivot as usize;
    }
    Ok(zero_pivot)
}

/// Applies the exchanges (row k with row `exchanges[k]`, in order).
fn exchange_rows(mut w: ArrayViewMut2<'_, f64>, exchanges: &[usize]) {
    for (k, &other) in exchanges.iter().enumerate() {
        if other != k {
            let (mut upper, mut lower) = w.view_mut().split_at(Axis(0), other);
            contiguous(upper.row_mut(k)).swap_with_slice(contiguous(lower.row_mut(0)));
        }
    }
}

/// A row of a part of W, which lies in one piece: W is in standard layout and its parts are made of whole runs of columns.
pub(super) fn contiguous(row: ArrayViewMut1<'_, f64>) -> &mut [f64] {
    row.into_slice().unwrap_or_else(|| unreachable!("rows of a matrix in standard layout are contiguous"))
}

/// `x ← L⁻¹·x` for the unit lower triangle L of `triangle`, whose size is a multiple of [`PANEL`]: the left half of a block of columns always is.
fn divide_by_unit_lower(triangle: ArrayView2<'_, f64>, mut x: ArrayViewMut2<'_, f64>) {
    let size = triangle.nrows();
    if size <= PANEL {
        solve_small_triangle(triangle, x);
        return;
    }
    let half = (size / 2).next_multiple_of(PANEL);
    let (mut upper, mut lower) = x.view_mut().split_at(Axis(0), half);
    divide_by_unit_lower(triangle.slice(s![..half, ..half]), upper.view_mut());
    multiply_into(lower.view_mut(), true, -1.0, triangle.slice(s![half.., ..half]), upper.view());
    divide_by_unit_lower(triangle.slice(s![half.., half..]), lower);
}

/// [`divide_by_unit_lower`] for [`PANEL`] rows: substitution, the rows of a few columns held in registers.
fn solve_small_triangle(triangle: ArrayView2<'_, f64>, mut x: ArrayViewMut2<'_, f64>) {
    let mut l = [[0.0; PANEL]; PANEL];
    for (to, from) in l.iter_mut().zip(triangle.rows()) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    }
    let mut rows: Vec<&mut [f64]> = x.rows_mut().into_iter().map(contiguous).collect();
    let Ok(rows) = <&mut [&mut [f64]; PANEL]>::try_from(rows.as_mut_slice()) else {
        unreachable!("triangles are halved at multiples of {PANEL} rows, down to {PANEL}");
    };
    Arch::new().dispatch(SmallTriangle { l: &l, rows });
}

struct SmallTriangle<'a, 'b> {
    l: &'a [[f64; PANEL]; PANEL],
    rows: &'a mut [&'b mut [f64]; PANEL],
}

impl WithSimd for SmallTriangle<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { l, rows } = self;
        let width = rows[0].len();
        let whole = width - width % S::F64_LANES;
        for at in (0..whole).step_by(S::F64_LANES) {
            let mut x = [simd.splat_f64s(0.0); PANEL];
            for r in 0..PANEL {
                x[r] = simd.partial_load_f64s(&rows[r][at..at + S::F64_LANES]);
            }
            for r in 1..PANEL {
                for q in 0..r {
                    x[r] = simd.negate_mul_add_e_f64s(simd.splat_f64s(l[r][q]), x[q], x[r]);
                }
            }
            for r in 0..PANEL {
                simd.partial_store_f64s(&mut rows[r][at..at + S::F64_LANES], x[r]);
            }
        }
        for at in whole..width {
            for r in 1..PANEL {
                let mut value = rows[r][at];
                for q in 0..r {
                    value -= l[r][q] * rows[q][at];
                }
                rows[r][at] = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_zero_pivot_is_found_in_every_part() {
        for (zeros, first) in [(&[3][..], Some(3)), (&[20], Some(20)), (&[39], Some(39)), (&[21, 5, 30], Some(5)), (&[], None)] {
            let mut w = Array2::<f64>::eye(40);
            zeros.iter().for_each(|&k| w[(k, k)] = 0.0);
            assert_eq!(LuFactors::factorise(w).unwrap().zero_pivot(), first);
        }
    }

    #[test]
    fn only_squares_are_factorised() {
        assert!(LuFactors::factorise(Array2::zeros((2, 3))).is_err());
        assert!(LuFactors::factorise(Array2::eye(3).reversed_axes()).is_err());
        assert_eq!(LuFactors::factorise(Array2::eye(3)).unwrap().size(), 3);
    }
}
