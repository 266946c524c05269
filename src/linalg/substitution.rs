//! Substitution and residuals in vector registers: one column in each lane, the matrix broadcast value by value.
//!
//! The kernels of [`super::panel`], which knows how columns are stored. Columns come in strips as wide as a register; nothing is packed.

use pulp::{Simd, WithSimd};

/// Rows of the matrix handled together.
const ROWS: usize = 8;
/// Strips handled together: with [`ROWS`] rows their accumulators fill 24 of the 32 registers that AVX-512 and NEON have.
const STRIPS: usize = 3;
/// Rows of the matrix that go over all strips before the next: what is read of the strips serves all of them.
const BLOCK: usize = 8 * ROWS;
/// Columns of the matrix taken at a time: [`STRIPS`] strips of so many rows stay in the first-level cache.
const DEPTH: usize = 128;
/// Bytes of strips that stay in the second-level cache.
const STRIPS_BYTES: usize = 1 << 20;

/// How many columns one strip holds on this CPU.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F64_LANES
    }
}

/// Goes over the strips, three at a time; the last four as two and two.
macro_rules! for_strip_groups {
    ($strips:expr, $group:expr, |$x:ident, $v:ident| $body:block) => {
        let mut rest = &mut $strips[..];
        while !rest.is_empty() {
            let here = match rest.len() / $group {
                4 => 2,
                many => many.min(STRIPS),
            };
            let $x;
            ($x, rest) = rest.split_at_mut(here * $group);
            match here {
                3 => {
                    const $v: usize = 3;
                    $body
                }
                2 => {
                    const $v: usize = 2;
                    $body
                }
                _ => {
                    const $v: usize = 1;
                    $body
                }
            }
        }
    };
}

/// How many columns of the matrix to take at a time for so many strips: all where they are few.
fn depth(strips: usize) -> usize {
    if strips <= 2 * STRIPS { usize::MAX } else { DEPTH }
}

/// Goes over rows, [`ROWS`] at a time as long as there are so many.
macro_rules! for_row_groups {
    ($first:expr, $last:expr, |$i:ident, $r:ident| $body:block) => {
        let whole = $last - ($last - $first) % ROWS;
        for $i in ($first..whole).step_by(ROWS) {
            const $r: usize = ROWS;
            $body
        }
        for $i in whole..$last {
            const $r: usize = 1;
            $body
        }
    };
}

/// `acc − rows·x`, the rows and the columns of x taken over the same range.
#[inline(always)]
fn subtract_rows<S: Simd, const R: usize, const V: usize>(
    simd: S,
    rows: [&[f64]; R],
    x: [&[S::f64s]; V],
    mut acc: [[S::f64s; V]; R],
) -> [[S::f64s; V]; R] {
    let length = rows[0].len();
    for row in rows {
        assert_eq!(row.len(), length);
    }
    for column in x {
        assert_eq!(column.len(), length);
    }
    for k in 0..length {
        let mut here = [simd.splat_f64s(0.0); V];
        for v in 0..V {
            here[v] = x[v][k];
        }
        for r in 0..R {
            let a = simd.splat_f64s(rows[r][k]);
            for v in 0..V {
                acc[r][v] = simd.negate_mul_add_e_f64s(a, here[v], acc[r][v]);
            }
        }
    }
    acc
}

/// Reads R consecutive rows of V strips.
#[inline(always)]
fn load<S: Simd, const R: usize, const V: usize>(simd: S, x: &[S::f64s], n: usize, row: usize) -> [[S::f64s; V]; R] {
    let mut out = [[simd.splat_f64s(0.0); V]; R];
    for r in 0..R {
        for v in 0..V {
            out[r][v] = x[v * n + row + r];
        }
    }
    out
}

#[inline(always)]
fn store<S: Simd, const R: usize, const V: usize>(x: &mut [S::f64s], n: usize, row: usize, values: [[S::f64s; V]; R]) {
    for r in 0..R {
        for v in 0..V {
            x[v * n + row + r] = values[r][v];
        }
    }
}

#[inline(always)]
fn columns<S: Simd, const V: usize>(x: &[S::f64s], n: usize, from: usize, to: usize) -> [&[S::f64s]; V] {
    let mut out = [&x[..0]; V];
    for v in 0..V {
        out[v] = &x[v * n + from..v * n + to];
    }
    out
}

/// The factorised matrix: row-major, `stride` values from row to row.
#[derive(Clone, Copy)]
struct Packed<'a> {
    values: &'a [f64],
    stride: usize,
    n: usize,
}

impl<'a> Packed<'a> {
    #[inline(always)]
    fn rows<const R: usize>(self, first: usize, from: usize, to: usize) -> [&'a [f64]; R] {
        let mut out = [&self.values[..0]; R];
        for r in 0..R {
            out[r] = &self.values[(first + r) * self.stride + from..(first + r) * self.stride + to];
        }
        out
    }

    #[inline(always)]
    fn at(self, row: usize, column: usize) -> f64 {
        self.values[row * self.stride + column]
    }
}

/// R rows of `L·y = t` (unit lower) from row `i` on, those above being solved and those above `from` taken out already.
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

/// R rows of `U·x = y` from row `i` on, those below being solved and those from `to` on taken out already.
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

/// Takes the solved rows `from..to` out of the rows `first..last`: a product, in blocks that stay in the cache.
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

/// `x ← (L·U)⁻¹·x`.
pub(super) struct Solve<'a> {
    pub(super) packed: &'a [f64],
    pub(super) stride: usize,
    pub(super) n: usize,
    pub(super) strips: &'a mut [f64],
}

impl WithSimd for Solve<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { packed, stride, n, strips } = self;
        if n == 0 {
            return;
        }
        let w = Packed { values: packed, stride, n };
        let (strips, _) = S::as_mut_simd_f64s(strips);
        for first in (0..n).step_by(BLOCK) {
            let last = n.min(first + BLOCK);
            take_out(simd, w, strips, first, last, 0, first);
            for_strip_groups!(strips, n, |x, V| {
                for_row_groups!(first, last, |i, R| { forward::<S, R, V>(simd, w, x, i, first) });
            });
        }
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
}

/// Takes the part of R solved rows out of rows `from..to`: `x[i] −= Σ_r w[k+r][i]·x[k+r]`.
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

/// `x ← (L·U)⁻ᵀ·x`.
pub(super) struct SolveTransposed<'a> {
    pub(super) packed: &'a [f64],
    pub(super) stride: usize,
    pub(super) n: usize,
    pub(super) strips: &'a mut [f64],
}

impl WithSimd for SolveTransposed<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { packed, stride, n, strips } = self;
        if n == 0 {
            return;
        }
        let w = Packed { values: packed, stride, n };
        let (strips, _) = S::as_mut_simd_f64s(strips);
        let whole = n - n % ROWS;
        // Few strips at a time, so that they stay in the second-level cache while the matrix goes by.
        let few = n * STRIPS * (STRIPS_BYTES / (n * STRIPS * size_of::<S::f64s>())).max(1);
        for strips in strips.chunks_mut(few) {
            for i in (0..whole).step_by(ROWS) {
                for_strip_groups!(strips, n, |x, V| { forward_transposed::<S, ROWS, V>(simd, w, x, i) });
            }
            for i in whole..n {
                for_strip_groups!(strips, n, |x, V| { forward_transposed::<S, 1, V>(simd, w, x, i) });
            }
            for i in (whole..n).rev() {
                for_strip_groups!(strips, n, |x, V| { backward_transposed::<S, 1, V>(simd, w, x, i) });
            }
            for i in (0..whole).step_by(ROWS).rev() {
                for_strip_groups!(strips, n, |x, V| { backward_transposed::<S, ROWS, V>(simd, w, x, i) });
            }
        }
    }
}

/// Some rows of W against all columns.
pub(super) struct Residual<'a> {
    pub(super) rows: &'a [f64],
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
        let count = rows.len() / n_in;
        let w = Packed { values: rows, stride: n_in, n: n_out };
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

/// Some rows of W, taken as columns, against the matching rows of x.
pub(super) struct TransposedResidual<'a> {
    pub(super) rows: &'a [f64],
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
        let count = rows.len() / n_out;
        let w = Packed { values: rows, stride: n_out, n: n_out };
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

/// `target[i] −= Σ_r rows[r][i]·solved[r]` for one strip.
#[inline(always)]
fn eliminate_rows<S: Simd, const R: usize>(simd: S, rows: [&[f64]; R], solved: &[S::f64s], target: &mut [S::f64s]) {
    for row in rows {
        assert_eq!(row.len(), target.len());
    }
    let mut known = [simd.splat_f64s(0.0); R];
    known.copy_from_slice(&solved[..R]);
    for (i, value) in target.iter_mut().enumerate() {
        let mut acc = *value;
        for r in 0..R {
            acc = simd.negate_mul_add_e_f64s(simd.splat_f64s(rows[r][i]), known[r], acc);
        }
        *value = acc;
    }
}
