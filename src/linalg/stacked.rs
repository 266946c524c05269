//! Least squares with a tall matrix that is given as blocks of rows and never held as a whole.
//!
//! Each block updates the triangle by Householder reflections ("tall-skinny QR"), so that the accuracy is that of a QR of the whole: no Gram
//! matrix, which would square the condition number.

use ndarray::{Array2, ArrayView2, ShapeBuilder};

use super::lapack::{reflect, update_triangle, use_one_blas_thread};
use super::least_squares::LeastSquares;
use crate::error::{Error, Result};

/// The triangle of all blocks so far.
#[derive(Debug, Clone)]
pub struct StackedQr {
    n: usize,
    rows: usize,
    /// Column by column.
    r: Vec<f64>,
}

/// Right-hand sides as the reflections have left them so far: the first n rows of `Qᵀ·T`.
#[derive(Debug, Clone)]
pub struct Reflected {
    k: usize,
    /// Column by column.
    top: Vec<f64>,
}

impl Reflected {
    /// For `k` right-hand sides of a stack with `n` columns, before its first block.
    #[must_use]
    pub fn new(n: usize, k: usize) -> Self {
        Self { k, top: vec![0.0; n * k] }
    }

    /// `Qᵀ·T` (n, k).
    #[must_use]
    pub fn values(&self) -> Array2<f64> {
        let n = self.top.len() / self.k.max(1);
        match Array2::from_shape_vec((n, self.k).f(), self.top.clone()) {
            Ok(by_columns) => by_columns.as_standard_layout().into_owned(),
            Err(error) => unreachable!("k columns of n values were stored: {error}"),
        }
    }
}

impl StackedQr {
    /// A stack of no rows and `n` columns.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { n, rows: 0, r: vec![0.0; n * n] }
    }

    /// Adds rows, and for each of `sides` its right-hand sides in these rows.
    ///
    /// The bits of one side do not depend on the others.
    ///
    /// # Shapes
    /// `block` (m, n); each right-hand side (m, k) with the k of its `Reflected`.
    /// # Errors
    /// [`Error::Shape`] if they do not fit, [`Error::NonFinite`] for NaN or Inf.
    pub fn add(&mut self, block: ArrayView2<'_, f64>, sides: Vec<(&mut Reflected, ArrayView2<'_, f64>)>) -> Result<()> {
        use_one_blas_thread();
        let (m, n) = (block.nrows(), self.n);
        let mut reflectors = by_columns(block);
        if let Some(bad) = reflectors.iter().find(|v| !v.is_finite()) {
            return Err(Error::NonFinite { what: "a block of rows".into(), found: bad.to_string() });
        }
        let reflections = update_triangle(&mut self.r, &mut reflectors, m, n)?;
        for (side, values) in sides {
            let mut below = by_columns(values);
            reflect(&reflections, &reflectors, &mut side.top, &mut below, (m, n, side.k))?;
        }
        self.rows += m;
        Ok(())
    }

    /// The upper triangle R (n, n), with Rᵀ·R the Gram matrix of all rows.
    #[must_use]
    pub fn triangle(&self) -> Array2<f64> {
        Array2::from_shape_fn((self.n, self.n), |(row, column)| if row <= column { self.r[column * self.n + row] } else { 0.0 })
    }

    /// A solver with R, in which singular values below `max(rows, n)·ε·σ₁` count as zero.
    ///
    /// # Errors
    /// [`Error::Lapack`] if a factorisation fails.
    pub fn least_squares(&self) -> Result<LeastSquares> {
        LeastSquares::factorise_for(self.triangle().view(), self.rows.max(self.n))
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// The values column by column.
fn by_columns(matrix: ArrayView2<'_, f64>) -> Vec<f64> {
    matrix.t().iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::random::normal_stream;
    use ndarray::{Axis, concatenate};

    fn gaussian(label: &str, rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, columns), normal_stream(5, &[label.as_bytes()], rows * columns)).unwrap()
    }

    fn largest(matrix: &Array2<f64>) -> f64 {
        matrix.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
    }

    #[test]
    fn a_stack_in_blocks_is_the_whole() {
        // More rows than columns, fewer, one, and more columns than are treated together.
        for (n, heights) in [(5, vec![7, 3, 1]), (40, vec![9, 40, 11]), (1, vec![1, 2])] {
            let blocks: Vec<_> = heights.iter().enumerate().map(|(k, &m)| gaussian(&format!("w{n}{k}"), m, n)).collect();
            let targets: Vec<_> = heights.iter().enumerate().map(|(k, &m)| gaussian(&format!("t{n}{k}"), m, 3)).collect();
            let (mut stack, mut side, mut alone) = (StackedQr::new(n), Reflected::new(n, 3), Reflected::new(n, 3));
            let mut other = Reflected::new(n, 2);
            let mut single = stack.clone();
            for (block, target) in blocks.iter().zip(&targets) {
                let more = target.slice(ndarray::s![.., ..2]);
                stack.add(block.view(), vec![(&mut other, more), (&mut side, target.view())]).unwrap();
                single.add(block.view(), vec![(&mut alone, target.view())]).unwrap();
            }
            assert_eq!(side.values(), alone.values(), "company changed bits");
            let whole = concatenate(Axis(0), &blocks.iter().map(|b| b.view()).collect::<Vec<_>>()).unwrap();
            let target = concatenate(Axis(0), &targets.iter().map(|b| b.view()).collect::<Vec<_>>()).unwrap();
            let r = stack.triangle();
            assert!(largest(&(r.t().dot(&r) - whole.t().dot(&whole))) < 1e-12 * n as f64);
            let theta = stack.least_squares().unwrap().solve(side.values().view(), false);
            let direct = LeastSquares::factorise(whole.view(), None).unwrap().solve(target.view(), false);
            let gradient = whole.t().dot(&(&target - &whole.dot(&theta)));
            assert!(largest(&gradient) < 1e-11, "{:e}", largest(&gradient));
            assert!(largest(&(theta - direct)) < 1e-10);
            assert_eq!(stack.rows(), whole.nrows());
        }
    }

    #[test]
    fn a_condition_of_a_million_is_not_squared() {
        // The columns of a Gaussian stack scaled from 1 to 1e-6 and mixed by a rotation.
        let n = 12;
        let rotation = super::super::subspace::SubspaceBasis::of(gaussian("rotation", n, n).view()).unwrap();
        let scale = |column: usize| 10.0_f64.powf(-6.0 * column as f64 / (n - 1) as f64);
        let theta = gaussian("theta", n, 2);
        let (mut stack, mut side) = (StackedQr::new(n), Reflected::new(n, 2));
        for k in 0..4 {
            let mut block = gaussian(&format!("block{k}"), 30, n);
            for (column, mut values) in block.columns_mut().into_iter().enumerate() {
                values.mapv_inplace(|v| v * scale(column));
            }
            let block = block.dot(&rotation.left().t());
            stack.add(block.view(), vec![(&mut side, block.dot(&theta).view())]).unwrap();
        }
        let found = stack.least_squares().unwrap().solve(side.values().view(), false);
        // With normal equations the error would be 1e12·ε = 2e-4.
        assert!(largest(&(found - theta)) < 1e-8);
    }

    #[test]
    fn a_deficient_stack_has_the_least_norm_and_its_rank() {
        let (x, mut stack, mut side) = (gaussian("thin", 6, 2), StackedQr::new(4), Reflected::new(4, 1));
        let blocks: Vec<_> = (0..3).map(|k| gaussian(&format!("d{k}"), 5, 2).dot(&x.t().slice(ndarray::s![.., ..4]))).collect();
        for block in &blocks {
            stack.add(block.view(), vec![(&mut side, block.slice(ndarray::s![.., ..1]))]).unwrap();
        }
        let solver = stack.least_squares().unwrap();
        assert_eq!(solver.rank(), 2);
        let theta = solver.solve(side.values().view(), false);
        for block in &blocks {
            assert!(largest(&(block.dot(&theta) - block.slice(ndarray::s![.., ..1]))) < 1e-12);
        }
        assert!(StackedQr::new(2).add(ndarray::array![[f64::NAN, 1.0]].view(), Vec::new()).is_err());
        assert!(StackedQr::new(2).add(ndarray::array![[1.0]].view(), Vec::new()).is_err());
    }
}
