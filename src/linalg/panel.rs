//! Many right-hand sides at once: triangular solves and residuals in which the bits of a column do not depend on the other columns.
//!
//! A [`Panel`] holds columns in strips as wide as a vector register, one column in each lane. Every operation treats all lanes the same, so a column's
//! result depends on that column and the matrix alone: not on its position, on how many others are solved with it, or on the number of threads. BLAS
//! does not promise that. The kernels also need no packing, which makes them about twice as fast as `getrs` for 16 columns at n = 768.

use ndarray::{Array2, ArrayView2, ShapeBuilder, s};
use pulp::Arch;

use super::lu::LuFactors;
use super::norms::frobenius;
use super::qr::{QrFactors, Reflectors};
use super::residual::{Residual, TransposedResidual};
use super::storage::Aligned;
use super::strips::{Lanes, Rows, STRIPS, values_of};
use super::substitution::{Substitution, System};

/// Rows of reflectors that are applied to all columns before the next rows, so that they stay in the cache.
const TOGETHER: usize = 64;

/// Columns of length `n`, stored by strips.
#[derive(Debug, Clone)]
pub struct Panel {
    n: usize,
    columns: usize,
    lanes: usize,
    storage: Aligned,
}

impl Panel {
    /// A panel of zeros.
    #[must_use]
    pub fn zeros(n: usize, columns: usize) -> Self {
        let lanes = Arch::new().dispatch(Lanes);
        let storage = Aligned::zeros(columns.div_ceil(lanes) * n * lanes);
        Self { n, columns, lanes, storage }
    }

    /// A panel of all columns of `block`.
    #[must_use]
    pub fn of(block: ArrayView2<'_, f64>) -> Self {
        let mut panel = Self::zeros(block.nrows(), block.ncols());
        panel.set_columns(0, block);
        panel
    }

    /// All columns as a matrix.
    #[must_use]
    pub fn all(&self) -> Array2<f64> {
        self.block(0, self.columns)
    }

    /// Length of the columns.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    fn strips(&self) -> &[f64] {
        &self.storage
    }

    fn strips_mut(&mut self) -> &mut [f64] {
        &mut self.storage
    }

    /// The places of a column's values within [`Self::strips`], top to bottom.
    fn places(&self, column: usize) -> impl Iterator<Item = usize> + use<> {
        let (lanes, n) = (self.lanes, self.n);
        let first = column / lanes * n * lanes + column % lanes;
        (0..n).map(move |row| first + row * lanes)
    }

    /// Sets column `column`; missing values at the end stay as they are.
    pub fn set_column(&mut self, column: usize, values: impl IntoIterator<Item = f64>) {
        assert!(column < self.columns, "the panel has no such column");
        let places = self.places(column);
        let strips = self.strips_mut();
        for (place, value) in places.zip(values) {
            strips[place] = value;
        }
    }

    /// Copies the columns of `block` (n, k) to the panel's columns from `first` on.
    pub fn set_columns(&mut self, first: usize, block: ArrayView2<'_, f64>) {
        assert!(first + block.ncols() <= self.columns && block.nrows() == self.n, "a block that does not fit its panel");
        let (n, lanes) = (self.n, self.lanes);
        let strips = self.strips_mut();
        for (columns, place) in runs(first, block.ncols(), n, lanes) {
            let part = block.slice(s![.., columns]);
            for (row, to) in part.rows().into_iter().zip(strips[place..].chunks_mut(lanes)) {
                match row.as_slice() {
                    Some(row) => copy_few(row, &mut to[..row.len()]),
                    None => to.iter_mut().zip(row).for_each(|(to, &from)| *to = from),
                }
            }
        }
    }

    /// One column.
    #[must_use]
    pub fn column(&self, column: usize) -> Vec<f64> {
        let strips = self.strips();
        self.places(column).map(|place| strips[place]).collect()
    }

    /// Columns `first..first + count` as a matrix (n, count).
    #[must_use]
    pub fn block(&self, first: usize, count: usize) -> Array2<f64> {
        assert!(first + count <= self.columns, "the panel has no such columns");
        let strips = self.strips();
        let mut out = vec![0.0; self.n * count];
        for (columns, place) in runs(first, count, self.n, self.lanes) {
            for (row, from) in out.chunks_exact_mut(count).zip(strips[place..].chunks(self.lanes)) {
                copy_few(&from[..columns.len()], &mut row[columns.clone()]);
            }
        }
        Array2::from_shape_vec((self.n, count), out).unwrap_or_else(|_| unreachable!("as many values as the shape has"))
    }

    /// Replaces the columns T by `W⁻¹·T`.
    pub fn solve(&mut self, w: &LuFactors) {
        let n = self.n;
        assert_eq!(n, w.size(), "right-hand sides of another length than W's columns");
        self.exchange(w.exchanges.iter().copied().enumerate());
        Arch::new().dispatch(Substitution { packed: w.values(), n, strips: self.strips_mut(), system: System::Lu });
    }

    /// Replaces the columns T by `W⁻ᵀ·T`.
    pub fn solve_transposed(&mut self, w: &LuFactors) {
        let n = self.n;
        assert_eq!(n, w.size(), "right-hand sides of another length than W's rows");
        Arch::new().dispatch(Substitution { packed: w.values(), n, strips: self.strips_mut(), system: System::LuTransposed });
        self.exchange(w.exchanges.iter().copied().enumerate().rev());
    }

    /// Subtracts `rows·x` from the panel's rows from `first` on.
    ///
    /// # Shapes
    /// `rows` holds whole rows of W of `x.rows()` values each, one after the other.
    pub fn subtract_product(&mut self, first: usize, rows: &[f64], x: &Self) {
        assert_eq!((self.columns, self.lanes), (x.columns, x.lanes), "panels of different widths");
        self.subtract_rows(first, Rows::whole(rows, x.n), x);
    }

    /// Subtracts `rowsᵀ·x[first..]` from the whole panel: some rows of W taken as columns of Wᵀ.
    ///
    /// # Shapes
    /// `rows` holds whole rows of W of `self.rows()` values each; they are multiplied with the rows of `x` from `first` on.
    pub fn subtract_transposed_product(&mut self, first: usize, rows: &[f64], x: &Self) {
        assert_eq!((self.columns, self.lanes), (x.columns, x.lanes), "panels of different widths");
        self.subtract_transposed_rows(first, Rows::whole(rows, self.n), x);
    }

    fn subtract_rows(&mut self, first: usize, rows: Rows<'_>, x: &Self) {
        let (n_out, n_in) = (self.n, x.n);
        Arch::new().dispatch(Residual { rows, first, n_out, n_in, x: x.strips(), out: self.strips_mut() });
    }

    fn subtract_transposed_rows(&mut self, first: usize, rows: Rows<'_>, x: &Self) {
        let (n_out, n_in) = (self.n, x.n);
        Arch::new().dispatch(TransposedResidual { rows, first, n_out, n_in, x: x.strips(), out: self.strips_mut() });
    }

    /// Replaces the columns T by `Qᵀ·T`, or by `Q·T`.
    pub fn reflect(&mut self, w: &QrFactors, transposed: bool) {
        let (m, n) = w.shape();
        assert_eq!(self.n, m, "right-hand sides of another length than W's columns");
        let values = w.values();
        let mut one = |of: &Reflectors| {
            let b = of.t.nrows();
            let below =
                Rows { values: values.get((of.first + b) * n + of.first..).unwrap_or(&[]), stride: n, count: m - of.first - b };
            let top = w.top(of);
            let top = Rows::whole(values_of(&top), b);
            // −Vᵀ·T, then T·Vᵀ·T with the small triangle, transposed for Qᵀ.
            let mut inner = Self::zeros(b, self.columns);
            for (first, rows) in top.parts(TOGETHER) {
                inner.subtract_transposed_rows(of.first + first, rows, self);
            }
            for (first, rows) in below.parts(TOGETHER) {
                inner.subtract_transposed_rows(of.first + b + first, rows, self);
            }
            let (mut by, t) = (Self::zeros(b, self.columns), Rows::whole(values_of(&of.t), b));
            if transposed {
                by.subtract_transposed_rows(0, t, &inner);
            } else {
                by.subtract_rows(0, t, &inner);
            }
            for (first, rows) in top.parts(TOGETHER) {
                self.subtract_rows(of.first + first, rows, &by);
            }
            for (first, rows) in below.parts(TOGETHER) {
                self.subtract_rows(of.first + b + first, rows, &by);
            }
        };
        if transposed {
            w.blocks.iter().for_each(&mut one);
        } else {
            w.blocks.iter().rev().for_each(&mut one);
        }
    }

    /// Replaces the columns T by `R⁻¹·T`, or by `R⁻ᵀ·T`.
    pub fn solve_triangle(&mut self, w: &QrFactors, transposed: bool) {
        let n = self.n;
        assert_eq!(n, w.shape().1, "right-hand sides of another length than the triangle's side");
        let system = if transposed { System::UpperTransposed } else { System::Upper };
        Arch::new().dispatch(Substitution { packed: w.values(), n, strips: self.strips_mut(), system });
    }

    /// The same columns with more rows, which are zero, or fewer.
    #[must_use]
    pub fn resized(&self, rows: usize) -> Self {
        let mut out = Self::zeros(rows, self.columns);
        let (from, to) = ((self.n * self.lanes).max(1), (rows * self.lanes).max(1));
        let kept = self.n.min(rows) * self.lanes;
        for (to, from) in out.strips_mut().chunks_exact_mut(to).zip(self.strips().chunks_exact(from)) {
            to[..kept].copy_from_slice(&from[..kept]);
        }
        out
    }

    /// The norm of each column's values from row `first` on.
    #[must_use]
    pub fn norms_from(&self, first: usize) -> Vec<f64> {
        (0..self.columns).map(|column| frobenius(&self.column(column)[first..])).collect()
    }

    /// Changes each row k of all columns by `change(value, factors[k])`.
    pub fn change_rows(&mut self, factors: &[f64], change: impl Fn(f64, f64) -> f64) {
        assert_eq!(self.n, factors.len(), "one factor for each row");
        let (n, lanes) = (self.n, self.lanes);
        for strip in self.strips_mut().chunks_exact_mut((n * lanes).max(1)) {
            for (row, &factor) in strip.chunks_exact_mut(lanes).zip(factors) {
                row.iter_mut().for_each(|value| *value = change(*value, factor));
            }
        }
    }

    /// Exchanges pairs of rows, one after the other.
    fn exchange(&mut self, pairs: impl Iterator<Item = (usize, usize)> + Clone) {
        let (n, lanes) = (self.n, self.lanes);
        // Strip by strip, so that a strip stays in the cache while all its rows are exchanged.
        for strip in self.strips_mut().chunks_exact_mut((n * lanes).max(1)) {
            for (a, b) in pairs.clone().filter(|(a, b)| a != b) {
                let (low, high) = strip.split_at_mut(a.max(b) * lanes);
                low[a.min(b) * lanes..][..lanes].swap_with_slice(&mut high[..lanes]);
            }
        }
    }
}

/// `aᵀ·b`.
///
/// # Shapes
/// `a` (n, k) in standard layout and `b` (n, j), returning (k, j).
/// # Numerics
/// Each element is summed from the first row to the last.
#[must_use]
pub(super) fn transposed_product(a: &Array2<f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut out = Panel::zeros(a.ncols(), b.ncols());
    out.subtract_transposed_product(0, values_of(a), &Panel::of(b));
    -out.all()
}

/// The columns of several matrices one after the other, to be multiplied with one another and with others.
///
/// # Numerics
/// Each product is summed from the first row to the last: the bits of two columns' product depend on these two columns alone.
#[derive(Debug, Clone)]
pub struct Columns {
    n: usize,
    count: usize,
    values: Aligned,
}

impl Columns {
    /// The columns of blocks (n, k) that all have the same n.
    #[must_use]
    pub fn of(blocks: &[ArrayView2<'_, f64>]) -> Self {
        let n = blocks.first().map_or(0, |block| block.nrows());
        let count = blocks.iter().map(|block| block.ncols()).sum();
        let (mut values, mut next) = (Aligned::zeros(count * n), 0);
        for block in blocks {
            let first = next;
            next += block.len();
            for (at, row) in block.rows().into_iter().enumerate() {
                row.iter().zip(values[first + at..].iter_mut().step_by(n)).for_each(|(from, to)| *to = *from);
            }
        }
        Self { n, count, values }
    }

    /// Length of the columns.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.n
    }

    /// `Sᵀ·block` for all these columns S.
    ///
    /// # Shapes
    /// `block` (n, k), returning (columns, k).
    #[must_use]
    pub fn products(&self, block: ArrayView2<'_, f64>) -> Array2<f64> {
        assert_eq!(block.nrows(), self.n, "a block of columns of another length");
        let (x, mut out) = (Panel::of(block), Panel::zeros(self.count, block.ncols()));
        out.subtract_product(0, &self.values, &x);
        -out.block(0, block.ncols())
    }

    /// The upper triangle of `SᵀS`, zeros below it: a square matrix over all columns.
    #[must_use]
    pub fn inner_products(&self) -> Array2<f64> {
        let Self { n, count, ref values } = *self;
        let columns = ArrayView2::from_shape((n, count).f(), &values[..]);
        let panel = Panel::of(columns.unwrap_or_else(|_| unreachable!("as many values as the shape has")));
        let mut out = Array2::zeros((count, count));
        let together = STRIPS * panel.lanes;
        for first in (0..count).step_by(together) {
            let last = count.min(first + together);
            let mut products = Panel::zeros(last - first, count - first);
            let (n_out, rows) = (last - first, &values[first * n..last * n]);
            let x = &panel.strips()[first * n..];
            Arch::new().dispatch(Residual {
                rows: Rows::whole(rows, n),
                first: 0,
                n_out,
                n_in: n,
                x,
                out: products.strips_mut(),
            });
            out.slice_mut(s![first..last, first..]).assign(&-products.block(0, count - first));
        }
        out
    }
}

/// Copies a run of columns of one row: mostly a whole register, for which a call of `memcpy` takes longer than the copy.
#[inline(always)]
fn copy_few(from: &[f64], to: &mut [f64]) {
    match (<&[f64; 8]>::try_from(from), <&mut [f64; 8]>::try_from(&mut *to)) {
        (Ok(from), Ok(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// Runs of columns from `first` on that share a strip: which of the `count` they are, and the position of the first value of each run.
fn runs(first: usize, count: usize, n: usize, lanes: usize) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let column = first + next;
        let run = (lanes - column % lanes).min(count - next);
        let columns = next..next + run;
        next += run;
        (run > 0).then_some((columns, column / lanes * n * lanes + column % lanes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    /// Deterministic values in (-0.5, 0.5).
    fn sample(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        Array2::from_shape_fn((rows, columns), |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        })
    }

    #[test]
    fn both_solves_undo_the_product() {
        for n in [1, 2, 7, 8, 9, 16, 31, 33, 64, 100] {
            let w = sample(n, n, n as u64) + Array2::<f64>::eye(n) * 3.0;
            let x = sample(n, 19, 5);
            let lu = LuFactors::factorise(w.clone()).unwrap();
            for transposed in [false, true] {
                let t = if transposed { w.t().dot(&x) } else { w.dot(&x) };
                let mut panel = Panel::of(t.view());
                if transposed {
                    panel.solve_transposed(&lu)
                } else {
                    panel.solve(&lu)
                }
                let error = (&panel.block(0, 19) - &x).iter().fold(0.0_f64, |m, v| m.max(v.abs()));
                assert!(error < 1e-12, "n = {n}, transposed {transposed}: {error:e}");
            }
        }
    }

    #[test]
    fn a_columns_bits_do_not_depend_on_its_company() {
        let n = 77;
        let w = sample(n, n, 3);
        let t = sample(n, 40, 4);
        let lu = LuFactors::factorise(w.clone()).unwrap();
        let mut all = Panel::of(t.view());
        let mut residual = all.clone();
        all.solve(&lu);
        residual.subtract_product(0, w.as_slice().unwrap(), &all);
        for column in [0, 7, 8, 23, 39] {
            for place in 0..3 {
                let mut alone = Panel::zeros(n, place + 1);
                alone.set_column(place, t.column(column).iter().copied());
                let mut rest = alone.clone();
                alone.solve(&lu);
                rest.subtract_product(0, w.as_slice().unwrap(), &alone);
                assert_eq!(alone.column(place), all.column(column));
                assert_eq!(rest.column(place), residual.column(column));
            }
        }
    }

    #[test]
    fn residual_by_parts_is_the_residual() {
        let (n_out, n_in) = (21, 13);
        let (w, x, t) = (sample(n_out, n_in, 1), sample(n_in, 5, 2), sample(n_out, 5, 3));
        let xs = Panel::of(x.view());
        let mut out = Panel::of(t.view());
        let flat = w.as_slice().unwrap();
        out.subtract_product(0, &flat[..10 * n_in], &xs);
        out.subtract_product(10, &flat[10 * n_in..], &xs);
        let error = (&out.block(0, 5) - &(&t - &w.dot(&x))).iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(error < 1e-14, "{error:e}");

        let (x, t) = (sample(n_out, 5, 4), sample(n_in, 5, 5));
        let xs = Panel::of(x.view());
        let mut out = Panel::of(t.view());
        out.subtract_transposed_product(0, &flat[..10 * n_in], &xs);
        out.subtract_transposed_product(10, &flat[10 * n_in..], &xs);
        let error = (&out.block(0, 5) - &(&t - &w.t().dot(&x))).iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(error < 1e-14, "{error:e}");
    }

    #[test]
    fn inner_products_do_not_depend_on_the_company() {
        let (n, all) = (301, sample(301, 61, 9));
        let gram = Columns::of(&[all.slice(s![.., ..7]), all.slice(s![.., 7..61])]).inner_products();
        let error =
            (&gram - &all.t().dot(&all)).indexed_iter().filter(|((a, b), _)| a <= b).fold(0.0_f64, |m, (_, v)| m.max(v.abs()));
        assert!(error < n as f64 * f64::EPSILON, "{error:e}");
        for (a, b) in [(0, 0), (3, 60), (24, 31), (8, 9)] {
            let pair = Columns::of(&[all.slice(s![.., a..=a]), all.slice(s![.., b..=b])]).inner_products();
            assert_eq!(pair[(0, 1)], gram[(a, b)]);
        }
    }

    #[test]
    fn columns_are_multiplied_with_a_block() {
        let (n, all) = (50, sample(50, 12, 5));
        let columns = Columns::of(&[all.slice(s![.., ..3]), all.slice(s![.., 3..5])]);
        let found = columns.products(all.slice(s![.., 5..]));
        assert_eq!((columns.count, found.dim()), (5, (5, 7)));
        let error =
            (&found - &all.slice(s![.., ..5]).t().dot(&all.slice(s![.., 5..]))).iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(error < n as f64 * f64::EPSILON, "{error:e}");
        assert_eq!(Columns::of(&[]).count, 0);
    }

    #[test]
    fn rows_are_added_taken_away_and_changed() {
        let t = sample(9, 21, 6);
        let mut panel = Panel::of(t.view());
        assert_eq!(panel.resized(4).block(0, 21), t.slice(s![..4, ..]));
        let longer = panel.resized(12).block(0, 21);
        assert_eq!(longer.slice(s![..9, ..]), t);
        assert!(longer.slice(s![9.., ..]).iter().all(|v| *v == 0.0));
        for (column, norm) in panel.norms_from(6).into_iter().enumerate() {
            let expected = t.slice(s![6.., column]).iter().map(|v| v * v).sum::<f64>().sqrt();
            assert!((norm - expected).abs() < 1e-14);
        }
        let factors: Vec<f64> = (1..=9).map(f64::from).collect();
        panel.change_rows(&factors, |value, factor| value * factor);
        assert_eq!(panel.block(0, 21).row(8), &t.row(8) * 9.0);
    }

    #[test]
    fn no_rows_or_columns_leave_the_rest_as_it_is() {
        let t = sample(5, 3, 7);
        let mut panel = Panel::of(t.view());
        panel.subtract_product(0, &[], &Panel::zeros(0, 3));
        panel.subtract_transposed_product(0, &[], &Panel::zeros(0, 3));
        assert_eq!(panel.block(0, 3), t);
        let mut none = Panel::zeros(0, 3);
        none.subtract_product(0, &[], &panel);
        none.subtract_transposed_product(0, &[], &panel);
        assert_eq!((none.rows(), none.columns()), (0, 3));
    }
}
