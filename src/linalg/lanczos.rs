//! The largest singular values of a matrix that is known by its products, and their vectors: block Lanczos bidiagonalisation with full
//! reorthogonalisation (Golub, Luk and Overton 1981, ACM Trans. Math. Softw. 7, 149).
//!
//! Two orthonormal bases grow by a block at a time, V by `Mᵀ·U` and U by `M·V`, and `B = Uᵀ·M·V` is a small matrix whose largest singular values soon are
//! those of M. Every new column is made orthogonal to all that are there, so that no singular value is found twice. Nothing is restarted: at worst V is the
//! whole space in the end and B has all singular values of M.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, ShapeBuilder, s};
use ndarray_linalg::{JobSvd, SVDDC};

use super::EPSILON;
use super::lapack::{multiply, multiply_into, use_one_blas_thread};
use super::norms::frobenius_of;
use super::panel::Panel;
use super::random::normal_stream;
use super::strips::values_of;
use crate::error::{Error, Result};

/// A matrix M (m, n) that is known by its products.
pub trait LinearMap: Sync {
    /// (m, n).
    fn shape(&self) -> (usize, usize);

    /// `M·x` for columns x (n, k).
    ///
    /// # Errors
    /// What the product meets.
    fn times(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>>;

    /// `Mᵀ·y` for columns y (m, k).
    ///
    /// # Errors
    /// What the product meets.
    fn transposed_times(&self, y: ArrayView2<'_, f64>) -> Result<Array2<f64>>;
}

impl LinearMap for Array2<f64> {
    fn shape(&self) -> (usize, usize) {
        self.dim()
    }

    fn times(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let matrix = self.as_standard_layout();
        let mut out = Panel::zeros(self.nrows(), x.ncols());
        // Few columns are multiplied as they lie in registers: a matrix product would pack the whole matrix for them.
        out.subtract_product(0, values_of(&matrix), &Panel::of(x));
        Ok(-out.all())
    }

    fn transposed_times(&self, y: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let (matrix, y) = (self.as_standard_layout(), Panel::of(y));
        let mut out = Panel::zeros(self.ncols(), y.columns());
        // Some rows at a time, which stay in the cache while they are multiplied with all columns.
        const ROWS: usize = 64;
        for (part, rows) in values_of(&matrix).chunks((ROWS * self.ncols()).max(1)).enumerate() {
            out.subtract_transposed_product(part * ROWS, rows, &y);
        }
        Ok(-out.all())
    }
}

/// The largest singular values of a matrix, and their vectors as columns.
#[derive(Debug, Clone)]
pub struct LeadingTriplets {
    /// Left singular vectors (m, k).
    pub left: Array2<f64>,
    /// Singular values, largest first.
    pub sigma: Vec<f64>,
    /// Right singular vectors (n, k).
    pub right: Array2<f64>,
}

/// What a residual `‖Mᵀu − σv‖` of a triplet may be of the largest singular value: rounding alone leaves about as much.
const RESIDUAL: f64 = 1e-15;
/// What values may change by, of the largest, while the bases grow by a fifth: the error that is left is far smaller than the last change.
const CHANGE: f64 = 1e-4;

/// The `count` largest singular values of M and their vectors, as exact as a dense decomposition gives them; all of them where M has fewer.
///
/// `block` columns are multiplied at a time. A value that M has more often than that can be found too few times.
///
/// # Errors
/// Those of the products, [`Error::NonFinite`] where one is not finite, [`Error::Lapack`] if a small SVD does not converge.
pub fn leading_triplets(map: &dyn LinearMap, count: usize, block: usize) -> Result<LeadingTriplets> {
    let (m, n) = map.shape();
    let count = count.min(m).min(n);
    if count == 0 {
        return Ok(LeadingTriplets { left: Array2::zeros((m, 0)), sigma: Vec::new(), right: Array2::zeros((n, 0)) });
    }
    Process::start(map, block).until(count, |process| {
        let (p, sigma, q) = svd(&process.small())?;
        if !process.is_complete() && process.largest_residual(&p, count) > RESIDUAL * sigma[0] {
            return Ok(None);
        }
        let left = multiply(process.u.view(), p.slice(s![.., ..count]));
        let right = multiply(process.v.first(p.nrows()), q.slice(s![.., ..count]));
        let (left, right) = if process.transposed { (right, left) } else { (left, right) };
        Ok(Some(LeadingTriplets { left, sigma: sigma.slice(s![..count]).to_vec(), right }))
    })
}

/// The `count` largest singular values of M, largest first, with errors of about 1e-6 of the largest; all of them where M has fewer.
///
/// All digits would take as long as to solve through M.
///
/// # Errors
/// Those of [`leading_triplets`].
pub fn leading_values(map: &dyn LinearMap, count: usize, block: usize) -> Result<Vec<f64>> {
    let (m, n) = map.shape();
    let count = count.min(m).min(n);
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut before: Vec<f64> = Vec::new();
    Process::start(map, block).until(count, |process| {
        let now = values(&process.small())?[..count].to_vec();
        let change = before.iter().zip(&now).fold(0.0_f64, |most, (before, now)| most.max((now - before).abs()));
        let settled = !before.is_empty() && change <= CHANGE * now[0];
        before.clone_from(&now);
        Ok((settled || process.is_complete()).then_some(now))
    })
}

/// The two bases and what is known of M in them.
struct Process<'a> {
    map: &'a dyn LinearMap,
    /// Whether M is taken as its transpose, so that V is on the shorter side: then V is the whole space when U cannot grow any more.
    transposed: bool,
    block: usize,
    u: Basis,
    /// As many columns as U, and the block that comes next.
    v: Basis,
    /// The columns of B, each down to its diagonal.
    b: Vec<Array1<f64>>,
    /// `V_nextᵀ·Mᵀ·U_last`: what the last block of U has outside of V.
    coupling: Array2<f64>,
}

impl<'a> Process<'a> {
    fn start(map: &'a dyn LinearMap, block: usize) -> Self {
        use_one_blas_thread();
        let ((m, n), block) = (map.shape(), block.max(1));
        let transposed = m < n;
        let (m, n) = if transposed { (n, m) } else { (m, n) };
        let mut v = Basis::new(n, b"right");
        for _ in 0..block.min(n) {
            v.push_random();
        }
        Self { map, transposed, block, u: Basis::new(m, b"left"), v, b: Vec::new(), coupling: Array2::zeros((0, 0)) }
    }

    /// Lets the bases grow until `found` finds what is sought in them; it has to where they are complete.
    fn until<T>(mut self, count: usize, mut found: impl FnMut(&Self) -> Result<Option<T>>) -> Result<T> {
        let mut next_look = 3 * count + 10;
        loop {
            self.step()?;
            let columns = self.u.count();
            if columns < next_look && !self.is_complete() {
                continue;
            }
            if let Some(found) = found(&self)? {
                return Ok(found);
            }
            next_look = columns + (columns / 5).max(1);
        }
    }

    /// Whether V is the whole space.
    fn is_complete(&self) -> bool {
        self.u.count() == self.v.rows
    }

    fn product(&self, x: ArrayView2<'_, f64>, transposed: bool) -> Result<Array2<f64>> {
        let product = if transposed == self.transposed { self.map.times(x)? } else { self.map.transposed_times(x)? };
        match product.iter().find(|v| !v.is_finite()) {
            None => Ok(product),
            Some(bad) => {
                Err(Error::NonFinite { what: "a product with a matrix of singular values sought".into(), found: bad.to_string() })
            }
        }
    }

    /// Adds a block to U, and the next one to V.
    fn step(&mut self) -> Result<()> {
        let before = self.u.count();
        let coefficients = self.u.extend(self.product(self.v.from(before), false)?);
        for (column, values) in coefficients.columns().into_iter().enumerate() {
            self.b.push(values.slice(s![..before + column + 1]).to_owned());
        }
        let after = self.v.count();
        let room = (self.v.rows - after).min(self.block);
        if room == 0 {
            self.coupling = Array2::zeros((0, after - before));
            return Ok(());
        }
        let mut image = self.product(self.u.from(before), true)?;
        if room < image.ncols() {
            // The last block has fewer columns, which span what the image has outside of V.
            self.v.remove_from(image.view_mut());
            let (columns, ..) = svd(&image)?;
            self.v.extend(columns.slice(s![.., ..room]).to_owned());
            self.coupling = multiply(self.v.from(after).t(), image.view());
        } else {
            self.coupling = self.v.extend(image).slice(s![after.., ..]).to_owned();
        }
        Ok(())
    }

    /// B.
    fn small(&self) -> Array2<f64> {
        let size = self.b.len();
        let mut b = Array2::zeros((size, size));
        for (column, values) in self.b.iter().enumerate() {
            b.slice_mut(s![..values.len(), column]).assign(values);
        }
        b
    }

    /// The largest `‖Mᵀu − σv‖` of the first `count` triplets.
    fn largest_residual(&self, p: &Array2<f64>, count: usize) -> f64 {
        let last = p.nrows() - self.coupling.ncols();
        let outside = multiply(self.coupling.view(), p.slice(s![last.., ..count]));
        outside.columns().into_iter().map(|column| frobenius_of(&column)).fold(0.0, f64::max)
    }
}

fn svd(matrix: &Array2<f64>) -> Result<(Array2<f64>, Array1<f64>, Array2<f64>)> {
    match matrix.svddc(JobSvd::Some).map_err(|e| failed(e.to_string()))? {
        (Some(p), sigma, Some(qt)) => Ok((p, sigma, qt.reversed_axes())),
        _ => Err(failed("singular vectors are missing".into())),
    }
}

fn values(matrix: &Array2<f64>) -> Result<Vec<f64>> {
    Ok(matrix.svddc(JobSvd::None).map_err(|e| failed(e.to_string()))?.1.to_vec())
}

fn failed(detail: String) -> Error {
    Error::Lapack { routine: "gesdd", detail }
}

/// Orthonormal columns that only grow in number.
struct Basis {
    rows: usize,
    /// Column after column.
    values: Vec<f64>,
    /// The label of the random columns, and how many there have been.
    label: &'static [u8],
    random: u64,
}

impl Basis {
    fn new(rows: usize, label: &'static [u8]) -> Self {
        Self { rows, values: Vec::new(), label, random: 0 }
    }

    fn count(&self) -> usize {
        self.values.len() / self.rows
    }

    fn view(&self) -> ArrayView2<'_, f64> {
        self.first(self.count())
    }

    fn first(&self, count: usize) -> ArrayView2<'_, f64> {
        self.part(0, count)
    }

    fn from(&self, first: usize) -> ArrayView2<'_, f64> {
        self.part(first, self.count())
    }

    fn part(&self, first: usize, end: usize) -> ArrayView2<'_, f64> {
        let values = &self.values[first * self.rows..end * self.rows];
        let shaped = ArrayView2::from_shape((self.rows, end - first).f(), values);
        shaped.unwrap_or_else(|_| unreachable!("a basis holds whole columns"))
    }

    /// Takes the part in the basis out of some columns, and returns what it was of each basis column.
    fn remove_from(&self, mut columns: ArrayViewMut2<'_, f64>) -> Array2<f64> {
        let mut removed = Array2::zeros((self.count(), columns.ncols()));
        // Once leaves rounding errors in the basis as large as what was removed; twice is enough (Giraud et al. 2005, Numer. Math. 101, 87).
        for _ in 0..2 {
            let along = multiply(self.view().t(), columns.view());
            multiply_into(columns.view_mut(), true, -1.0, self.view(), along.view());
            removed += &along;
        }
        removed
    }

    /// Adds columns C, made orthonormal: returns R with `C = basis·R`, in which a column that depends on those before has a zero on the diagonal and a
    /// random one in its place.
    fn extend(&mut self, mut columns: Array2<f64>) -> Array2<f64> {
        let (before, count) = (self.count(), columns.ncols());
        let mut r = Array2::zeros((before + count, count));
        let sizes: Vec<f64> = columns.columns().into_iter().map(|column| frobenius_of(&column)).collect();
        r.slice_mut(s![..before, ..]).assign(&self.remove_from(columns.view_mut()));
        for (c, size) in sizes.into_iter().enumerate() {
            let mut column = columns.slice(s![.., c..=c]).to_owned();
            let left = frobenius_of(&column);
            let own = self.part(before, before + c);
            for _ in 0..2 {
                let along = multiply(own.t(), column.view());
                multiply_into(column.view_mut(), true, -1.0, own, along.view());
                let mut kept = r.slice_mut(s![before..before + c, c..=c]);
                kept += &along;
            }
            let mut norm = frobenius_of(&column);
            // What little is left of it has rounding errors along the whole basis.
            if norm < 0.1 * left {
                let along = self.remove_from(column.view_mut());
                let mut kept = r.slice_mut(s![..before + c, c..=c]);
                kept += &along;
                norm = frobenius_of(&column);
            }
            if norm <= 2.0 * EPSILON * size {
                self.push_random();
            } else {
                r[(before + c, c)] = norm;
                self.values.extend(column.iter().map(|v| v / norm));
            }
        }
        r
    }

    /// Adds a column in a random direction.
    fn push_random(&mut self) {
        loop {
            let label = [&b"lanczos"[..], self.label, &self.random.to_le_bytes()];
            self.random += 1;
            let drawn = Array2::from_shape_vec((self.rows, 1), normal_stream(0, &label, self.rows));
            let mut column = drawn.unwrap_or_else(|_| unreachable!("a stream gives as many numbers as asked for"));
            let size = frobenius_of(&column);
            self.remove_from(column.view_mut());
            self.remove_from(column.view_mut());
            let norm = frobenius_of(&column);
            // With nearly the whole space in the basis little is left, but never nothing: there is room for it.
            if norm > 1e-8 * size {
                self.values.extend(column.iter().map(|v| v / norm));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::subspace::SubspaceBasis;

    fn gaussian(label: &[u8], rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, columns), normal_stream(7, &[label], rows * columns)).unwrap()
    }

    /// A matrix (m, n) with these singular values.
    fn with_values(m: usize, n: usize, sigma: &[f64]) -> Array2<f64> {
        let side = |label: &[u8], rows| SubspaceBasis::of(gaussian(label, rows, sigma.len()).view()).unwrap().left().to_owned();
        (side(b"left", m) * Array1::from_vec(sigma.to_vec())).dot(&side(b"right", n).t())
    }

    fn largest(matrix: &Array2<f64>) -> f64 {
        matrix.iter().fold(0.0, |most, v| most.max(v.abs()))
    }

    /// Values and vectors are those of the dense decomposition, up to the signs of pairs.
    fn agrees(matrix: &Array2<f64>, count: usize, block: usize, tolerance: f64) {
        let found = leading_triplets(matrix, count, block).unwrap();
        let (left, sigma, right) = svd(matrix).unwrap();
        assert_eq!((found.left.dim(), found.right.dim()), ((matrix.nrows(), count), (matrix.ncols(), count)));
        let scale = sigma[0].max(f64::MIN_POSITIVE);
        for k in 0..count {
            assert!((found.sigma[k] - sigma[k]).abs() <= 1e-14 * scale * 10.0, "σ_{k}: {} and {}", found.sigma[k], sigma[k]);
            let sign = found.left.column(k).dot(&left.column(k)).signum();
            for (one, other) in [(&found.left, &left), (&found.right, &right)] {
                let off = (&one.column(k) - &(&other.column(k) * sign)).iter().fold(0.0_f64, |most, v| most.max(v.abs()));
                assert!(off <= tolerance, "vector {k} of {:?}: {off:e}", matrix.dim());
            }
        }
        let values = leading_values(matrix, count, block).unwrap();
        assert!(values.iter().zip(&sigma).all(|(one, other)| (one - other).abs() <= 1e-6 * scale), "{values:?}");
    }

    #[test]
    fn a_gaussian_matrix_of_any_shape_gives_its_dense_decomposition() {
        for (m, n, count) in [(1, 1, 1), (5, 3, 3), (3, 5, 2), (60, 60, 10), (150, 40, 6), (40, 150, 40), (200, 200, 10)] {
            for block in [1, 2, 4, 7] {
                agrees(&gaussian(b"matrix", m, n), count, block, 1e-12);
            }
        }
    }

    #[test]
    fn values_that_fall_fast_take_few_products_and_small_ones_are_there() {
        struct Counted(Array2<f64>, std::sync::atomic::AtomicUsize);
        impl LinearMap for Counted {
            fn shape(&self) -> (usize, usize) {
                self.0.dim()
            }
            fn times(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
                self.1.fetch_add(x.ncols(), std::sync::atomic::Ordering::Relaxed);
                self.0.times(x)
            }
            fn transposed_times(&self, y: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
                self.0.transposed_times(y)
            }
        }
        let sigma: Vec<f64> = (0..100).map(|k| 0.7_f64.powi(k)).collect();
        let map = Counted(with_values(120, 100, &sigma), 0.into());
        let found = leading_triplets(&map, 10, 2).unwrap();
        for (one, other) in found.sigma.iter().zip(&sigma) {
            assert!((one - other).abs() < 1e-14);
        }
        assert!(map.1.into_inner() < 60, "far fewer than 100");
    }

    #[test]
    fn repeated_values_and_too_few_of_them_are_found() {
        // Twice the same value, and a block of two.
        agrees_in_values(&with_values(80, 80, &[3.0, 3.0, 2.0, 1.5, 1.0, 0.5]), &[3.0, 3.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0], 2);
        // Everything the same: each product is a multiple of what is there already.
        agrees_in_values(&Array2::eye(50), &[1.0; 12], 1);
        agrees_in_values(&Array2::zeros((30, 20)), &[0.0; 5], 2);
        let mut planted = Array2::eye(90) * 2.0;
        planted[(7, 3)] = 5.0;
        // σ² of the two planted directions: 4 + 25/2 ± √((25/2)² + 4·25).
        let root = (12.5_f64.powi(2) + 100.0).sqrt();
        agrees_in_values(&planted, &[(16.5 + root).sqrt(), 2.0, 2.0, 2.0], 1);
    }

    fn agrees_in_values(matrix: &Array2<f64>, expected: &[f64], block: usize) {
        let found = leading_triplets(matrix, expected.len(), block).unwrap();
        assert_eq!(found.sigma.len(), expected.len());
        for (one, other) in found.sigma.iter().zip(expected) {
            assert!((one - other).abs() < 1e-13, "{:?}", found.sigma);
        }
        for side in [&found.left, &found.right] {
            assert!(largest(&(side.t().dot(side) - Array2::<f64>::eye(expected.len()))) < 1e-13);
        }
    }

    #[test]
    fn more_than_there_are_is_all_and_nan_is_refused() {
        assert_eq!(leading_values(&gaussian(b"matrix", 6, 4), 9, 2).unwrap().len(), 4);
        assert!(leading_values(&Array2::zeros((0, 4)), 3, 2).unwrap().is_empty());
        assert!(leading_values(&Array2::from_elem((4, 4), f64::NAN), 2, 1).is_err());
    }

    #[test]
    fn six_digits_are_six_digits() {
        // Slowly falling values, as those of large weights: the worst case.
        let scale = |k: usize| (k as f64 + 1.0).powf(-0.8);
        for (m, n) in [(300, 200), (200, 300), (250, 250)] {
            let mut matrix = gaussian(b"falling", m, n) * (0.02 / (n as f64).sqrt());
            for k in 0..60 {
                matrix[(k, k)] += scale(k);
            }
            let (full, six) = (leading_triplets(&matrix, 12, 4).unwrap().sigma, leading_values(&matrix, 12, 4).unwrap());
            let off = full.iter().zip(&six).fold(0.0_f64, |most, (full, six)| most.max((full - six).abs() / full));
            assert!(off < 1e-6, "{m} x {n}: {off:e}");
        }
    }

    #[test]
    fn sizes_far_from_one_change_no_digit() {
        let matrix = gaussian(b"matrix", 60, 50);
        let plain = leading_triplets(&matrix, 5, 2).unwrap();
        for exponent in [-400, 400] {
            let unit = 2.0_f64.powi(exponent);
            let scaled = leading_triplets(&(&matrix * unit), 5, 2).unwrap();
            for (one, other) in scaled.sigma.iter().zip(&plain.sigma) {
                assert!((one / unit / other - 1.0).abs() < 1e-14);
            }
            assert!(largest(&(&scaled.left - &plain.left)) < 1e-12);
        }
    }
}
