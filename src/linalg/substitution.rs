//! Substitution in vector registers, with the packed factors of an LU or the triangle of a QR.
//!
//! The kernels of [`super::panel`], which defines how columns are stored; they are built on [`super::strips`].

use pulp::{Simd, WithSimd};

use super::strips::{
    Packed, ROWS, STRIPS, columns, depth, eliminate_rows, for_row_groups, for_strip_groups, load, store, subtract_rows,
};

/// Rows of the matrix that are applied to all strips before the next rows, so that each value read from the strips serves all of them.
const BLOCK: usize = 8 * ROWS;
/// Bytes of strips that stay in the second-level cache.
const STRIPS_BYTES: usize = 1 << 20;

/// R rows of `L·y = t` (unit lower) from row `i` on, where those above are solved, and those above `from` are already subtracted.
#[inline(always)]
fn forward<S: Simd, const R: usize, const V: usize>(simd: S, w: Packed<'_>, x: &mut [S::f64s], i: usize, from: usize) {
    let acc = load::<S, R, V>(simd, x, w.n, i);
    let mut acc = subtract_rows(simd, w.rows::<R>(i, from, i), columns::<S, V>(x, w.n, from, i), acc);
    for r in 0..R {
        for q in 0..r {
            let a = simd.splat_f64s(w.at(i + r, i + q));
            for v in 0..V {
                acc[r][v] = simd.negate_mul_add_e_f64s(a, acc[q][v], acc[r][v]);
            }
        }
    }
    store::<S, R, V>(x, w.n, i, acc);
}

/// R rows of `U·x = y` from row `i` on, where those below are solved, and those from `to` on are already subtracted.
#[inline(always)]
fn backward<S: Simd, const R: usize, const V: usize>(simd: S, w: Packed<'_>, x: &mut [S::f64s], i: usize, to: usize) {
    let acc = load::<S, R, V>(simd, x, w.n, i);
    let mut acc = subtract_rows(simd, w.rows::<R>(i, i + R, to), columns::<S, V>(x, w.n, i + R, to), acc);
    for r in (0..R).rev() {
        for q in r + 1..R {
            let a = simd.splat_f64s(w.at(i + r, i + q));
            for v in 0..V {
                acc[r][v] = simd.negate_mul_add_e_f64s(a, acc[q][v], acc[r][v]);
            }
        }
        let diagonal = simd.splat_f64s(w.at(i + r, i + r));
        for v in 0..V {
            acc[r][v] = simd.div_f64s(acc[r][v], diagonal);
        }
    }
    store::<S, R, V>(x, w.n, i, acc);
}

/// Subtracts the solved rows `from..to` from the rows `first..last`: a matrix product, in blocks that stay in the cache.
#[inline(always)]
fn take_out<S: Simd>(simd: S, w: Packed<'_>, strips: &mut [S::f64s], first: usize, last: usize, from: usize, to: usize) {
    let depth = depth(strips.len() / w.n);
    for from in (from..to).step_by(depth) {
        let to = to.min(from.saturating_add(depth));
        for_strip_groups!(strips, w.n, |x, V| {
            for_row_groups!(first, last, |i, R| {
                let acc = load::<S, R, V>(simd, x, w.n, i);
                let acc = subtract_rows(simd, w.rows::<R>(i, from, to), columns::<S, V>(x, w.n, from, to), acc);
                store::<S, R, V>(x, w.n, i, acc);
            });
        });
    }
}

/// `x ← L⁻¹·x` (unit lower).
#[inline(always)]
fn solve_lower<S: Simd>(simd: S, w: Packed<'_>, strips: &mut [S::f64s]) {
    let n = w.n;
    for first in (0..n).step_by(BLOCK) {
        let last = n.min(first + BLOCK);
        take_out(simd, w, strips, first, last, 0, first);
        for_strip_groups!(strips, n, |x, V| {
            for_row_groups!(first, last, |i, R| { forward::<S, R, V>(simd, w, x, i, first) });
        });
    }
}

/// `x ← U⁻¹·x`.
#[inline(always)]
fn solve_upper<S: Simd>(simd: S, w: Packed<'_>, strips: &mut [S::f64s]) {
    let n = w.n;
    for first in (0..n).step_by(BLOCK).rev() {
        let last = n.min(first + BLOCK);
        take_out(simd, w, strips, first, last, last, n);
        for_strip_groups!(strips, n, |x, V| {
            let whole = last - (last - first) % ROWS;
            for i in (whole..last).rev() {
                backward::<S, 1, V>(simd, w, x, i, last);
            }
            for i in (first..whole).step_by(ROWS).rev() {
                backward::<S, ROWS, V>(simd, w, x, i, last);
            }
        });
    }
}

/// Subtracts the part of R solved rows from rows `from..to`: `x[i] −= Σ_r w[k+r][i]·x[k+r]`.
#[inline(always)]
fn eliminate<S: Simd, const R: usize, const V: usize>(
    simd: S,
    w: Packed<'_>,
    x: &mut [S::f64s],
    k: usize,
    from: usize,
    to: usize,
) {
    for v in 0..V {
        let mut solved = [simd.splat_f64s(0.0); R];
        solved.copy_from_slice(&x[v * w.n + k..][..R]);
        eliminate_rows::<S, R>(simd, w.rows::<R>(k, from, to), &solved, &mut x[v * w.n + from..v * w.n + to]);
    }
}

/// R rows of `Uᵀ·y = t` (lower with diagonal), then their elimination below.
#[inline(always)]
fn forward_transposed<S: Simd, const R: usize, const V: usize>(simd: S, w: Packed<'_>, x: &mut [S::f64s], k: usize) {
    let mut acc = load::<S, R, V>(simd, x, w.n, k);
    for r in 0..R {
        for q in 0..r {
            let a = simd.splat_f64s(w.at(k + q, k + r));
            for v in 0..V {
                acc[r][v] = simd.negate_mul_add_e_f64s(a, acc[q][v], acc[r][v]);
            }
        }
        let diagonal = simd.splat_f64s(w.at(k + r, k + r));
        for v in 0..V {
            acc[r][v] = simd.div_f64s(acc[r][v], diagonal);
        }
    }
    store::<S, R, V>(x, w.n, k, acc);
    eliminate::<S, R, V>(simd, w, x, k, k + R, w.n);
}

/// R rows of `Lᵀ·x = y` (unit upper), then their elimination above.
#[inline(always)]
fn backward_transposed<S: Simd, const R: usize, const V: usize>(simd: S, w: Packed<'_>, x: &mut [S::f64s], k: usize) {
    let mut acc = load::<S, R, V>(simd, x, w.n, k);
    for r in (0..R).rev() {
        for q in r + 1..R {
            let a = simd.splat_f64s(w.at(k + q, k + r));
            for v in 0..V {
                acc[r][v] = simd.negate_mul_add_e_f64s(a, acc[q][v], acc[r][v]);
            }
        }
    }
    store::<S, R, V>(x, w.n, k, acc);
    eliminate::<S, R, V>(simd, w, x, k, 0, k);
}

/// `x ← U⁻ᵀ·x`.
#[inline(always)]
fn solve_upper_transposed<S: Simd>(simd: S, w: Packed<'_>, strips: &mut [S::f64s]) {
    let n = w.n;
    let whole = n - n % ROWS;
    for i in (0..whole).step_by(ROWS) {
        for_strip_groups!(strips, n, |x, V| { forward_transposed::<S, ROWS, V>(simd, w, x, i) });
    }
    for i in whole..n {
        for_strip_groups!(strips, n, |x, V| { forward_transposed::<S, 1, V>(simd, w, x, i) });
    }
}

/// `x ← L⁻ᵀ·x` (unit lower).
#[inline(always)]
fn solve_lower_transposed<S: Simd>(simd: S, w: Packed<'_>, strips: &mut [S::f64s]) {
    let n = w.n;
    let whole = n - n % ROWS;
    for i in (whole..n).rev() {
        for_strip_groups!(strips, n, |x, V| { backward_transposed::<S, 1, V>(simd, w, x, i) });
    }
    for i in (0..whole).step_by(ROWS).rev() {
        for_strip_groups!(strips, n, |x, V| { backward_transposed::<S, ROWS, V>(simd, w, x, i) });
    }
}

/// What is solved for with the packed triangles: L below the diagonal, with ones on it, U on the diagonal and above.
#[derive(Clone, Copy)]
pub(super) enum System {
    /// `x ← (L·U)⁻¹·x`.
    Lu,
    /// `x ← (L·U)⁻ᵀ·x`.
    LuTransposed,
    /// `x ← U⁻¹·x`.
    Upper,
    /// `x ← U⁻ᵀ·x`.
    UpperTransposed,
}

/// A system solved for all strips, which are n long.
pub(super) struct Substitution<'a> {
    /// At least n rows of n values.
    pub(super) packed: &'a [f64],
    pub(super) n: usize,
    pub(super) strips: &'a mut [f64],
    pub(super) system: System,
}

impl WithSimd for Substitution<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { packed, n, strips, system } = self;
        if n == 0 {
            return;
        }
        let w = Packed { values: packed, stride: n, n };
        let (strips, _) = S::as_mut_simd_f64s(strips);
        match system {
            System::Lu => {
                solve_lower(simd, w, strips);
                solve_upper(simd, w, strips);
            }
            System::Upper => solve_upper(simd, w, strips),
            System::LuTransposed | System::UpperTransposed => {
                // Few strips at a time, so that they stay in the second-level cache while the matrix is read.
                let few = n * STRIPS * (STRIPS_BYTES / (n * STRIPS * size_of::<S::f64s>())).max(1);
                for strips in strips.chunks_mut(few) {
                    solve_upper_transposed(simd, w, strips);
                    if matches!(system, System::LuTransposed) {
                        solve_lower_transposed(simd, w, strips);
                    }
                }
            }
        }
    }
}
