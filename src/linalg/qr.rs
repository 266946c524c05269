//! QR by Householder reflections for matrices with at least as many rows as columns, as fast as the matrix product allows.
//!
//! LAPACK's `geqrf` spends half its time in matrix-vector products where the matrix is tall, and forming Q costs as much again. Here a block of columns is
//! factorised by recursion (Elmroth and Gustavson 2000) down to panels of 16 columns, whose reflections are made and applied in vector
//! registers; the reflections of a block are one product `I − V·T·Vᵀ` (Schreiber and Van Loan 1989), so that all that lies right of it, and every
//! right-hand side, is changed by matrix products. Q is never formed. The matrix is row-major, as in [`super::lu`].

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use pulp::{Arch, Simd, WithSimd};

use super::lapack::{multiply, multiply_into, use_one_blas_thread};
use super::lu::contiguous;
use super::storage::Aligned;
use super::stripes::in_stripes;
use super::strips::values_of;
use crate::error::{Error, Result};

/// Columns whose reflections are made one by one.
const PANEL: usize = 16;
/// How many columns' reflections are applied together: the more, the faster the product, but their T costs an eighth of what they change at most.
fn block_for(n: usize) -> usize {
    (n / 8).next_multiple_of(PANEL).clamp(4 * PANEL, 16 * PANEL)
}

/// The bytes that a factorisation of a matrix of this shape, or of its transpose, holds at most: W itself, a block of its columns, and all T.
#[must_use]
pub fn qr_bytes(d_out: usize, d_in: usize) -> u64 {
    let (m, n) = (d_out.max(d_in), d_out.min(d_in));
    (size_of::<f64>() * (m * n + (m + n) * (block_for(n).min(n) + PANEL))) as u64
}

/// `W = Q·R` of a W with m rows and n ≤ m columns, row-major in place: the reflectors below the diagonal, R on it and above.
#[derive(Debug, Clone)]
pub struct QrFactors {
    pub(super) packed: Array2<f64>,
    pub(super) blocks: Vec<Reflectors>,
}

/// The reflections of some columns, `I − V·T·Vᵀ`.
#[derive(Debug, Clone)]
pub(super) struct Reflectors {
    /// The first of the columns, and the first row that is changed.
    pub(super) first: usize,
    /// T (b, b), upper triangular.
    pub(super) t: Array2<f64>,
}

impl QrFactors {
    /// Factorises `w`, taking its storage.
    ///
    /// The squares of W's values have to be within the range of f64, or R is not finite.
    ///
    /// # Shapes
    /// `w` (m, n) with m ≥ n, in standard layout.
    /// # Errors
    /// [`Error::Shape`] if it has another.
    pub fn factorise(w: Array2<f64>) -> Result<Self> {
        use_one_blas_thread();
        let (m, n) = w.dim();
        if m < n || !w.is_standard_layout() {
            let found = format!("{:?}, strides {:?}", w.dim(), w.strides());
            let expected = "at least as many rows as columns, in standard layout".into();
            return Err(Error::Shape { what: "QrFactors::factorise", expected, found });
        }
        let mut packed = w;
        let (most, mut scratch) = (block_for(n), Scratch::new(m));
        let mut blocks = Vec::with_capacity(n.div_ceil(most));
        // One storage for all blocks, whose rows then follow one another.
        let mut room: Vec<f64> = Vec::new();
        for first in (0..n).step_by(most) {
            let columns = most.min(n - first);
            let (mut place, mut right) = packed.slice_mut(s![first.., first..]).split_at(Axis(1), columns);
            let mut t = Array2::zeros((columns, columns));
            if columns <= PANEL && right.is_empty() {
                scratch.factorise(place, t.view_mut());
                blocks.push(Reflectors { first, t });
                continue;
            }
            room.clear();
            place.rows().into_iter().for_each(|row| room.extend(row));
            let block = ArrayViewMut2::from_shape(place.dim(), &mut room[..]);
            let mut block = block.unwrap_or_else(|_| unreachable!("as many values as the shape has"));
            factorise_block(block.view_mut(), t.view_mut(), &mut scratch);
            let top = unit_lower(block.view());
            in_stripes(right.view_mut(), |stripe| reflect(block.view(), top.view(), t.view(), stripe));
            place.assign(&block);
            blocks.push(Reflectors { first, t });
        }
        Ok(Self { packed, blocks })
    }

    /// Gives the storage back, to be filled again.
    #[must_use]
    pub fn into_storage(self) -> Array2<f64> {
        self.packed
    }

    /// (m, n).
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        self.packed.dim()
    }

    /// R (n, n) in standard layout; below its diagonal are parts of the reflectors.
    #[must_use]
    pub fn triangle(&self) -> ArrayView2<'_, f64> {
        self.packed.slice(s![..self.packed.ncols(), ..])
    }

    /// The first rows of a block's V (b, b): unit lower triangular. The others are in the packed matrix as they are.
    pub(super) fn top(&self, of: &Reflectors) -> Array2<f64> {
        let (first, end) = (of.first, of.first + of.t.nrows());
        unit_lower(self.packed.slice(s![first..end, first..end]))
    }

    /// The packed reflectors and R, row by row.
    pub(super) fn values(&self) -> &[f64] {
        values_of(&self.packed)
    }
}

/// The square at the top of a block's reflectors, with its ones and zeros.
fn unit_lower(block: ArrayView2<'_, f64>) -> Array2<f64> {
    let b = block.ncols();
    Array2::from_shape_fn((b, b), |(row, column)| match row.cmp(&column) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 1.0,
        std::cmp::Ordering::Greater => block[(row, column)],
    })
}

/// One level of the recursion: the reflections of the columns of `w`, and their T.
fn factorise_block(mut w: ArrayViewMut2<'_, f64>, mut t: ArrayViewMut2<'_, f64>, scratch: &mut Scratch) {
    let columns = w.ncols();
    if columns <= PANEL {
        scratch.factorise(w, t);
        return;
    }
    let half = (columns / 2).next_multiple_of(PANEL);
    let (mut left, mut right) = w.view_mut().split_at(Axis(1), half);
    factorise_block(left.view_mut(), t.slice_mut(s![..half, ..half]), scratch);
    let top = unit_lower(left.view());
    reflect(left.view(), top.view(), t.slice(s![..half, ..half]), right.view_mut());
    let mut lower = right.slice_mut(s![half.., ..]);
    factorise_block(lower.view_mut(), t.slice_mut(s![half.., half..]), scratch);

    // T of both is [T₁, −T₁·(V₁ᵀ·V₂)·T₂; 0, T₂].
    let top = unit_lower(lower.view());
    let inner = transposed_product(lower.view(), top.view(), left.slice(s![half.., ..]));
    let right_part = multiply(inner.t(), t.slice(s![half.., half..]));
    let both = -multiply(t.slice(s![..half, ..half]), right_part.view());
    t.slice_mut(s![..half, half..]).assign(&both);
}

/// `c ← (I − V·Tᵀ·Vᵀ)·c`, the product of the reflections in the order in which they were made.
fn reflect(v: ArrayView2<'_, f64>, top: ArrayView2<'_, f64>, t: ArrayView2<'_, f64>, mut c: ArrayViewMut2<'_, f64>) {
    let by = multiply(t.t(), transposed_product(v, top, c.view()).view());
    let (mut upper, mut lower) = c.view_mut().split_at(Axis(0), top.nrows());
    multiply_into(upper.view_mut(), true, -1.0, top, by.view());
    multiply_into(lower.view_mut(), true, -1.0, v.slice(s![top.nrows().., ..]), by.view());
}

/// `Vᵀ·c`.
fn transposed_product(v: ArrayView2<'_, f64>, top: ArrayView2<'_, f64>, c: ArrayView2<'_, f64>) -> Array2<f64> {
    let (upper, lower) = c.split_at(Axis(0), top.nrows());
    let mut out = multiply(top.t(), upper);
    multiply_into(out.view_mut(), true, 1.0, v.slice(s![top.nrows().., ..]).t(), lower);
    out
}

/// Room for a panel, in rows of [`PANEL`] values that each begin at a cache line.
struct Scratch(Aligned);

impl Scratch {
    fn new(rows: usize) -> Self {
        Self(Aligned::zeros(rows * PANEL))
    }

    /// The reflections of at most [`PANEL`] columns and their T, which is zero when this is called.
    fn factorise(&mut self, mut w: ArrayViewMut2<'_, f64>, mut t: ArrayViewMut2<'_, f64>) {
        let (m, columns) = w.dim();
        let rows = &mut self.0[..m * PANEL];
        for (to, from) in rows.chunks_exact_mut(PANEL).zip(w.rows()) {
            let (to, beyond) = to.split_at_mut(columns);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            beyond.fill(0.0);
        }
        let mut own = [[0.0; PANEL]; PANEL];
        Arch::new().dispatch(Panel { rows, columns, t: &mut own });
        for (to, from) in w.rows_mut().into_iter().zip(rows.chunks_exact(PANEL)) {
            contiguous(to).copy_from_slice(&from[..columns]);
        }
        for (mut to, from) in t.rows_mut().into_iter().zip(&own) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Reflections one by one: each is applied to a row while the row's products for the next reflection are summed.
struct Panel<'a> {
    rows: &'a mut [f64],
    columns: usize,
    t: &'a mut [[f64; PANEL]; PANEL],
}

impl WithSimd for Panel<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Registers a row, and rows whose sums are kept apart: as many as there are registers for.
        match S::F64_LANES {
            8 => self.reflect::<S, 2, 4>(simd),
            4 => self.reflect::<S, 4, 2>(simd),
            2 => self.reflect::<S, 8, 1>(simd),
            _ => self.reflect::<S, PANEL, 1>(simd),
        }
    }
}

impl Panel<'_> {
    #[inline(always)]
    fn reflect<S: Simd, const V: usize, const APART: usize>(self, simd: S) {
        let Self { rows, columns, t } = self;
        let mut sums = pass::<S, V, APART>(simd, rows, None, 0);
        for j in 0..columns {
            let (above, below) = rows.split_at_mut((j + 1) * PANEL);
            let row = &mut above[j * PANEL..];
            let alpha = row[j];
            // H = I − τ·v·vᵀ with v = (1, scale·x) takes the column (alpha, x) to (beta, 0).
            let (beta, tau, scale) = if sums[j] == 0.0 {
                (alpha, 0.0, 0.0)
            } else {
                let beta = -(alpha * alpha + sums[j]).sqrt().copysign(alpha);
                (beta, (beta - alpha) / beta, 1.0 / (alpha - beta))
            };
            // vᵀ times the columns: to the right they are what is changed, to the left the reflectors before, for T.
            let mut products = [0.0; PANEL];
            for (c, product) in products.iter_mut().enumerate() {
                *product = row[c] + scale * sums[c];
            }
            for k in 0..j {
                t[k][j] = -tau * (k..j).map(|l| t[k][l] * products[l]).sum::<f64>();
            }
            t[j][j] = tau;
            let mut change = [0.0; PANEL];
            for c in j + 1..PANEL {
                change[c] = tau * products[c];
                row[c] -= change[c];
            }
            row[j] = beta;
            sums = pass::<S, V, APART>(simd, below, Some((j, scale, &change)), j + 1);
        }
    }
}

/// A reflection in registers, V of them a row, and the column whose products are summed after it.
struct Registers<S: Simd, const V: usize> {
    column: usize,
    scale: f64,
    /// What each column loses for one unit of the reflector.
    changes: [S::f64s; V],
    /// Where the reflector itself is kept.
    is_column: [S::m64s; V],
    next: usize,
    change_of_next: S::f64s,
}

impl<S: Simd, const V: usize> Registers<S, V> {
    #[inline(always)]
    fn new(simd: S, reflection: Option<(usize, f64, &[f64; PANEL])>, next: usize) -> Self {
        let mut numbers = [0.0; PANEL];
        for (c, number) in numbers.iter_mut().enumerate() {
            *number = c as f64;
        }
        let next = next.min(PANEL - 1);
        let nothing = (0, 0.0, &[0.0; PANEL]);
        let (column, scale, changes) = reflection.unwrap_or(nothing);
        let kept = if reflection.is_some() { column as f64 } else { -1.0 };
        let (numbers, vectors) = (S::as_simd_f64s(&numbers).0, S::as_simd_f64s(changes).0);
        let zero = simd.splat_f64s(0.0);
        let mut own = Self {
            column,
            scale,
            changes: [zero; V],
            is_column: [simd.equal_f64s(zero, zero); V],
            next,
            change_of_next: simd.splat_f64s(changes[next]),
        };
        for v in 0..V {
            own.changes[v] = vectors[v];
            own.is_column[v] = simd.equal_f64s(numbers[v], simd.splat_f64s(kept));
        }
        own
    }

    /// Changes a row; returns it and, in all lanes, its value in the next column.
    #[inline(always)]
    fn apply(&self, simd: S, row: &mut [f64]) -> ([S::f64s; V], S::f64s) {
        let along = simd.splat_f64s(row[self.column] * self.scale);
        let pivot = simd.negate_mul_add_e_f64s(along, self.change_of_next, simd.splat_f64s(row[self.next]));
        let (row, _) = S::as_mut_simd_f64s(row);
        let mut values = [along; V];
        for v in 0..V {
            let changed = simd.negate_mul_add_e_f64s(along, self.changes[v], row[v]);
            values[v] = simd.select_f64s(self.is_column[v], along, changed);
            row[v] = values[v];
        }
        (values, pivot)
    }
}

/// Applies a reflection (its column, the scale of its vector, and what each column loses of that) to rows, and sums for all columns the products with
/// column `next` over all rows but the first.
#[inline(always)]
fn pass<S: Simd, const V: usize, const APART: usize>(
    simd: S,
    rows: &mut [f64],
    reflection: Option<(usize, f64, &[f64; PANEL])>,
    next: usize,
) -> [f64; PANEL] {
    let registers = Registers::<S, V>::new(simd, reflection, next);
    let mut sums = [[simd.splat_f64s(0.0); V]; APART];
    let (first, rest) = rows.split_at_mut(PANEL.min(rows.len()));
    if !first.is_empty() {
        registers.apply(simd, first);
    }
    let whole = rest.len() - rest.len() % (PANEL * APART);
    let (groups, last) = rest.split_at_mut(whole);
    for group in groups.chunks_exact_mut(PANEL * APART) {
        for apart in 0..APART {
            let (values, pivot) = registers.apply(simd, &mut group[apart * PANEL..(apart + 1) * PANEL]);
            for v in 0..V {
                sums[apart][v] = simd.mul_add_e_f64s(pivot, values[v], sums[apart][v]);
            }
        }
    }
    for row in last.chunks_exact_mut(PANEL) {
        let (values, pivot) = registers.apply(simd, row);
        for v in 0..V {
            sums[0][v] = simd.mul_add_e_f64s(pivot, values[v], sums[0][v]);
        }
    }
    let mut out = [0.0; PANEL];
    let (totals, _) = S::as_mut_simd_f64s(&mut out);
    for sum in sums {
        for v in 0..V {
            totals[v] = simd.add_f64s(totals[v], sum[v]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::norms::frobenius_of;
    use super::super::panel::Panel as Columns;
    use super::super::random::normal_stream;
    use super::*;

    fn gaussian(rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, columns), normal_stream(3, &[b"qr"], rows * columns)).unwrap()
    }

    /// Q·x, or Qᵀ·x.
    fn turned(qr: &QrFactors, x: &Array2<f64>, transposed: bool) -> Array2<f64> {
        let mut columns = Columns::of(x.view());
        columns.reflect(qr, transposed);
        columns.all()
    }

    fn upper(qr: &QrFactors) -> Array2<f64> {
        let n = qr.shape().1;
        Array2::from_shape_fn((n, n), |(a, b)| if a <= b { qr.triangle()[(a, b)] } else { 0.0 })
    }

    #[test]
    fn a_column_by_hand() {
        // (3, 4) is reflected to (−5, 0): τ = 8/5, v = (1, 1/2).
        let qr = QrFactors::factorise(ndarray::array![[3.0], [4.0]]).unwrap();
        assert_eq!(qr.packed, ndarray::array![[-5.0], [0.5]]);
        assert_eq!(qr.blocks[0].t, ndarray::array![[1.6]]);
        // Nothing below: nothing to reflect.
        let qr = QrFactors::factorise(ndarray::array![[3.0, 1.0], [0.0, -2.0], [0.0, 0.0]]).unwrap();
        assert_eq!(upper(&qr), ndarray::array![[3.0, 1.0], [0.0, -2.0]]);
    }

    #[test]
    fn q_is_orthogonal_and_q_times_r_is_w() {
        // Panels and blocks that are whole, cut, and one more than whole; a column; a square.
        for (m, n) in [(1, 1), (9, 1), (40, 16), (33, 17), (64, 64), (200, 65), (300, 129), (700, 260)] {
            let w = gaussian(m, n);
            let qr = QrFactors::factorise(w.clone()).unwrap();
            let mut r = Array2::zeros((m, n));
            r.slice_mut(s![..n, ..]).assign(&upper(&qr));
            // The errors of n reflections, made and applied, add up like a random walk of steps of about a unit.
            let allowed = 4.0 * (n as f64).sqrt() * f64::EPSILON * frobenius_of(&w);
            assert!(frobenius_of(&(turned(&qr, &r, false) - &w)) < allowed, "{m} {n}");
            assert!(frobenius_of(&(turned(&qr, &w, true) - &r)) < allowed, "{m} {n}");
            let x = gaussian(m, 3);
            assert!(
                frobenius_of(&(turned(&qr, &turned(&qr, &x, true), false) - &x)) < allowed / frobenius_of(&w) * frobenius_of(&x)
            );
        }
    }

    #[test]
    fn columns_that_depend_on_others_leave_zeros_on_the_diagonal() {
        let x = gaussian(60, 30);
        let mut w = Array2::zeros((60, 40));
        w.slice_mut(s![.., ..30]).assign(&x);
        w.slice_mut(s![.., 30..]).assign(&x.slice(s![.., ..10]));
        let qr = QrFactors::factorise(w).unwrap();
        let diagonal = upper(&qr).diag().mapv(f64::abs);
        assert!(diagonal.iter().take(30).all(|d| *d > 1.0) && diagonal.iter().skip(30).all(|d| *d < 1e-13));
        let zero = QrFactors::factorise(Array2::zeros((5, 3))).unwrap();
        assert_eq!(upper(&zero), Array2::<f64>::zeros((3, 3)));
    }

    #[test]
    fn a_power_of_two_changes_no_digit() {
        let (w, unit) = (gaussian(70, 20), 2.0_f64.powi(200));
        let [plain, scaled] = [w.clone(), w * unit].map(|w| QrFactors::factorise(w).unwrap());
        assert_eq!(upper(&plain) * unit, upper(&scaled));
    }

    #[test]
    fn only_what_is_not_wide_is_factorised() {
        assert!(QrFactors::factorise(Array2::zeros((2, 3))).is_err());
        assert!(QrFactors::factorise(Array2::zeros((2, 3)).reversed_axes()).is_err());
        assert_eq!(QrFactors::factorise(Array2::zeros((3, 0))).unwrap().shape(), (3, 0));
    }
}
