//! The residuals `T − W·X` and `T − Wᵀ·X` in vector registers: a kernel of [`super::panel`], built on [`super::strips`].

use pulp::{Simd, WithSimd};

use super::strips::{
    Packed, ROWS, Rows, columns, depth, eliminate_rows, for_row_groups, for_strip_groups, load, store, subtract_rows,
};

/// Subtracts the product of some rows of W with all columns.
pub(super) struct Residual<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) first: usize,
    pub(super) n_out: usize,
    pub(super) n_in: usize,
    pub(super) x: &'a [f64],
    pub(super) out: &'a mut [f64],
}

impl WithSimd for Residual<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, first, n_out, n_in, x, out } = self;
        if n_out == 0 || n_in == 0 {
            return;
        }
        let Rows { values, stride, count } = rows;
        let w = Packed { values, stride, n: n_out };
        let (x, _) = S::as_simd_f64s(x);
        let (out, _) = S::as_mut_simd_f64s(out);
        let depth = depth(out.len() / n_out);
        for from in (0..n_in).step_by(depth) {
            let to = n_in.min(from.saturating_add(depth));
            let mut strip = 0;
            for_strip_groups!(out, n_out, |group, V| {
                let x = columns::<S, V>(&x[strip * n_in..(strip + V) * n_in], n_in, from, to);
                strip += V;
                for_row_groups!(0, count, |i, R| {
                    let acc = load::<S, R, V>(simd, group, n_out, first + i);
                    let acc = subtract_rows(simd, w.rows::<R>(i, from, to), x, acc);
                    store::<S, R, V>(group, n_out, first + i, acc);
                });
            });
        }
    }
}

/// Subtracts the product of some rows of W, taken as columns of Wᵀ, with the matching rows of x.
pub(super) struct TransposedResidual<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) first: usize,
    pub(super) n_out: usize,
    pub(super) n_in: usize,
    pub(super) x: &'a [f64],
    pub(super) out: &'a mut [f64],
}

impl WithSimd for TransposedResidual<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, first, n_out, n_in, x, out } = self;
        if n_out == 0 || n_in == 0 {
            return;
        }
        let Rows { values, stride, count } = rows;
        let w = Packed { values, stride, n: n_out };
        let (x, _) = S::as_simd_f64s(x);
        let (out, _) = S::as_mut_simd_f64s(out);
        let whole = count - count % ROWS;
        for (strip, target) in out.chunks_exact_mut(n_out).enumerate() {
            let x = &x[strip * n_in..(strip + 1) * n_in];
            for k in (0..whole).step_by(ROWS) {
                eliminate_rows::<S, ROWS>(simd, w.rows::<ROWS>(k, 0, n_out), &x[first + k..], target);
            }
            for k in whole..count {
                eliminate_rows::<S, 1>(simd, w.rows::<1>(k, 0, n_out), &x[first + k..], target);
            }
        }
    }
}
