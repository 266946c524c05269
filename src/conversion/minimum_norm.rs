//! The solves that LU cannot serve: minimum-norm least squares, checked by the gradient of the residual.

use ndarray::{Array2, ArrayView2, s};

use super::equation::{ConversionMatrix, Equation, Target, WeightRows, fill, is_reliable};
use crate::error::Result;
use crate::linalg::least_squares::LeastSquares;
use crate::linalg::norms::frobenius_of;
use crate::terms::Method;

/// Right-hand sides solved together in least squares.
const LEAST_SQUARES_COLUMNS: usize = 8;

/// Minimum-norm least squares with its check.
#[derive(Debug)]
pub(super) struct MinimumNorm {
    w: Array2<f64>,
    norm: f64,
    factors: LeastSquares,
}

impl MinimumNorm {
    pub(super) fn new(w0: &impl WeightRows, rcond: Option<f64>) -> Result<Self> {
        let mut w = Array2::zeros(w0.shape());
        let norm = fill(w0, &mut w)?.frobenius;
        let factors = LeastSquares::factorise(w.view(), rcond)?;
        Ok(Self { norm, w, factors })
    }

    pub(super) fn condition(&self) -> f64 {
        self.factors.condition()
    }

    /// The singular vectors of W0 that Θ is made of, where an SVD was made.
    pub(super) fn kept(&self) -> Option<[ArrayView2<'_, f64>; 2]> {
        self.factors.kept()
    }

    fn singular(&self) -> bool {
        self.factors.rank() < self.w.nrows().min(self.w.ncols())
    }

    /// All products have the same shapes for any number of columns, so that BLAS runs the same code and rank r gets the first
    /// r columns of a larger rank to the bit.
    fn solve_in_blocks(&self, targets: ArrayView2<'_, f64>, transposed: bool) -> Result<Array2<f64>> {
        let (rows, columns) = targets.dim();
        let length = if transposed { self.w.nrows() } else { self.w.ncols() };
        let mut theta = Array2::zeros((length, columns));
        let mut block = Array2::zeros((rows, LEAST_SQUARES_COLUMNS));
        for first in (0..columns).step_by(LEAST_SQUARES_COLUMNS) {
            let last = (first + LEAST_SQUARES_COLUMNS).min(columns);
            block.fill(0.0);
            block.slice_mut(s![.., ..last - first]).assign(&targets.slice(s![.., first..last]));
            let solved = self.factors.solve(block.view(), transposed)?;
            theta.slice_mut(s![.., first..last]).assign(&solved.slice(s![.., ..last - first]));
        }
        Ok(theta)
    }

    pub(super) fn solve(&self, target: &Target<'_>) -> Result<ConversionMatrix> {
        let transposed = target.equation == Equation::W0Transposed;
        let theta = self.solve_in_blocks(target.values, transposed)?;
        let product = if transposed { self.w.t().dot(&theta) } else { self.w.dot(&theta) };
        let rest = &target.values - &product;
        let (size, target_size, theta_size) = (frobenius_of(&rest), frobenius_of(&target.values), frobenius_of(&theta));
        let kappa = self.factors.sensitivity();
        if target_size == 0.0 {
            return Ok(ConversionMatrix {
                theta,
                method: Method::LeastSquares,
                residual: None,
                backward_error: None,
                reliable: true,
                error_factor: kappa,
                rounding: None,
                w0_rank: self.factors.rank(),
                singular: self.singular(),
            });
        }
        let gradient = self.factors.gradient_norm(self.w.view(), rest.view(), transposed);
        // W = 0 has the solution 0, which is the best there is.
        let backward_error = if self.norm == 0.0 { 0.0 } else { gradient / self.norm / (self.norm * theta_size + target_size) };
        let longest = self.w.nrows().max(self.w.ncols()) as f64;
        let reliable = is_reliable(&theta, backward_error, 16.0 * longest);
        let growth = size / (self.factors.norm_2() * theta_size);
        let error_factor = if growth > 0.0 { kappa + kappa * kappa * growth } else { kappa };
        Ok(ConversionMatrix {
            theta,
            method: Method::LeastSquares,
            residual: Some(size / target_size),
            backward_error: Some(backward_error),
            reliable,
            error_factor,
            rounding: None,
            w0_rank: self.factors.rank(),
            singular: self.singular(),
        })
    }
}
