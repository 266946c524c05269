//! Products in vector registers: one column in each lane, the matrix broadcast value by value.
//!
//! [`super::substitution`] and [`super::residual`] are built on these. Columns come in strips as wide as a register; nothing is packed.
//! Each element adds its products in the order of the row, so its bits do not depend on the other columns.

use ndarray::{ArrayBase, Data, Ix2};
use pulp::{Simd, WithSimd};

/// Rows of the matrix handled together.
pub(super) const ROWS: usize = 8;
/// Strips handled together: with [`ROWS`] rows their accumulators fill 24 of the 32 registers that AVX-512 and NEON have.
pub(super) const STRIPS: usize = 3;
/// Columns of the matrix taken at a time: [`STRIPS`] strips of this many rows stay in the first-level cache.
const DEPTH: usize = 128;

/// How many columns one strip holds on this CPU.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F64_LANES
    }
}

/// The values of a matrix that was made in standard layout, row by row.
pub(super) fn values_of<S: Data<Elem = f64>>(matrix: &ArrayBase<S, Ix2>) -> &[f64] {
    matrix.as_slice().unwrap_or_else(|| unreachable!("it was made in standard layout"))
}

/// Goes over the strips, three at a time; the last four as two and two, since three and one would leave registers idle in the last group.
///
/// A macro and not a function, because the number of strips in a group has to be a constant: the accumulators are arrays of that size, and only then
/// does the compiler keep them in registers. `for_strip_groups!(strips, n, |x, V| { ... })` with seven strips of n registers runs the block three
/// times, as if you had written `{ const V: usize = 3; let x = &mut strips[..3 * n]; ... }`, the same with `V = 2` for the next two strips, and
/// again for the last two.
macro_rules! for_strip_groups {
    ($strips:expr, $group:expr, |$x:ident, $v:ident| $body:block) => {
        let mut rest = &mut $strips[..];
        while !rest.is_empty() {
            let here = match rest.len() / $group {
                4 => 2,
                many => many.min($crate::linalg::strips::STRIPS),
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

/// How many columns of the matrix to take at a time for this number of strips: all of them if the strips are few.
pub(super) fn depth(strips: usize) -> usize {
    if strips <= 2 * STRIPS { usize::MAX } else { DEPTH }
}

/// Goes over rows, [`ROWS`] at a time as long as that many are left, then one by one.
///
/// `for_row_groups!(0, 19, |i, R| { ... })` runs the block with `R = 8` for i = 0 and 8, then with `R = 1` for i = 16, 17 and 18.
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
pub(super) fn subtract_rows<S: Simd, const R: usize, const V: usize>(
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
pub(super) fn load<S: Simd, const R: usize, const V: usize>(simd: S, x: &[S::f64s], n: usize, row: usize) -> [[S::f64s; V]; R] {
    let mut out = [[simd.splat_f64s(0.0); V]; R];
    for r in 0..R {
        for v in 0..V {
            out[r][v] = x[v * n + row + r];
        }
    }
    out
}

#[inline(always)]
pub(super) fn store<S: Simd, const R: usize, const V: usize>(x: &mut [S::f64s], n: usize, row: usize, values: [[S::f64s; V]; R]) {
    for r in 0..R {
        for v in 0..V {
            x[v * n + row + r] = values[r][v];
        }
    }
}

#[inline(always)]
pub(super) fn columns<S: Simd, const V: usize>(x: &[S::f64s], n: usize, from: usize, to: usize) -> [&[S::f64s]; V] {
    let mut out = [&x[..0]; V];
    for v in 0..V {
        out[v] = &x[v * n + from..v * n + to];
    }
    out
}

/// The factorised matrix: row-major, `stride` values from row to row.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) values: &'a [f64],
    pub(super) stride: usize,
    pub(super) n: usize,
}

impl<'a> Packed<'a> {
    #[inline(always)]
    pub(super) fn rows<const R: usize>(self, first: usize, from: usize, to: usize) -> [&'a [f64]; R] {
        let mut out = [&self.values[..0]; R];
        for r in 0..R {
            out[r] = &self.values[(first + r) * self.stride + from..(first + r) * self.stride + to];
        }
        out
    }

    #[inline(always)]
    pub(super) fn at(self, row: usize, column: usize) -> f64 {
        self.values[row * self.stride + column]
    }
}

/// Some rows of a row-major matrix, `stride` values from one to the next.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f64],
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl<'a> Rows<'a> {
    /// Rows that follow one another without a gap.
    pub(super) fn whole(values: &'a [f64], width: usize) -> Self {
        Self { values, stride: width, count: values.len().checked_div(width).unwrap_or(0) }
    }

    /// At most `most` rows at a time, with the number of the first.
    pub(super) fn parts(self, most: usize) -> impl Iterator<Item = (usize, Self)> {
        (0..self.count).step_by(most).map(move |first| {
            let count = most.min(self.count - first);
            (first, Self { values: &self.values[first * self.stride..], count, ..self })
        })
    }
}

/// `target[i] −= Σ_r rows[r][i]·solved[r]` for one strip.
#[inline(always)]
pub(super) fn eliminate_rows<S: Simd, const R: usize>(simd: S, rows: [&[f64]; R], solved: &[S::f64s], target: &mut [S::f64s]) {
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

pub(super) use for_row_groups;
pub(super) use for_strip_groups;
