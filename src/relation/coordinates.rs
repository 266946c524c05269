//! A target in the singular basis of its W0, where Θ is cut and signs are turned.

use ndarray::{Array2, ArrayView2, s};

use super::cut::Cut;
use super::layer::{BaseLayer, RelatedLayer, Sides, scaled};
use crate::controls::{Factor, mean_and_sd};
use crate::conversion::Equation;
use crate::error::Result;
use crate::linalg::lapack::multiply;
use crate::linalg::subspace::SubspaceBasis;
use crate::linalg::weight_basis::scale_rows;
use crate::similarity::expected_by_chance;

/// One layer's target in the coordinates in which it is cut.
pub(super) struct Coordinates<'a> {
    /// W0's own, or those of `W0ᵀ·T` where W0 was not decomposed.
    pub(super) values: Array2<f64>,
    pub(super) base: &'a BaseLayer<'a>,
    pub(super) equation: Equation,
}

impl<'a> Coordinates<'a> {
    /// Of a layer's own target.
    pub(super) fn of(layer: &RelatedLayer<'a>, factor: Factor) -> Self {
        let equation = layer.equation(factor);
        match (layer.base.sides(equation), layer.images) {
            (Some(sides), _) => Self::in_basis(layer.base, equation, sides, layer.target(factor)),
            (None, Some(images)) => Self { values: images.adjoint(factor).clone(), base: layer.base, equation },
            (None, None) => unreachable!("a layer has its weight's basis or the images of its factors"),
        }
    }

    /// Of any target through a weight with these singular vectors.
    pub(super) fn in_basis(base: &'a BaseLayer<'a>, equation: Equation, sides: Sides<'_>, target: ArrayView2<'_, f64>) -> Self {
        Self { values: multiply(sides.face.t(), scaled(target).view()), base, equation }
    }

    pub(super) fn kept(&self, cut: Cut) -> usize {
        self.base.sides(self.equation).map_or(self.values.nrows(), |sides| cut.kept(sides.sigma, sides.rank))
    }

    /// The left singular vectors of Θ in these coordinates, as many as it has above rounding level; none where there is nothing.
    pub(super) fn vectors(&self, cut: Cut) -> Result<Option<Array2<f64>>> {
        let kept = self.kept(cut);
        let values = self.values.slice(s![..kept, ..]);
        // What overflowed has no vectors either.
        if kept < values.ncols() || values.iter().all(|&v| v == 0.0) || values.iter().any(|v| !v.is_finite()) {
            return Ok(None);
        }
        let basis = match self.base.sides(self.equation) {
            Some(sides) => SubspaceBasis::of(scale_rows(values, &cut.weights(&sides.sigma[..kept])).view())?,
            None => SubspaceBasis::of(values)?,
        };
        let rank = basis.spectrum().rank();
        Ok((rank > 0).then(|| basis.left().slice(s![.., ..rank]).to_owned()))
    }

    /// Vectors of several cuts, brought to the side where Θ lives by one product.
    pub(super) fn at_home(&self, vectors: &[Option<Array2<f64>>]) -> Vec<Option<Array2<f64>>> {
        let Some(sides) = self.base.sides(self.equation) else { return vectors.to_vec() };
        let count: usize = vectors.iter().flatten().map(|v| v.ncols()).sum();
        let most = vectors.iter().flatten().map(|v| v.nrows()).max().unwrap_or(0);
        // Vectors are rows here, so that each lies in one piece where they are multiplied with one another.
        let mut stacked = Array2::zeros((count, most));
        let mut first = 0;
        for own in vectors.iter().flatten() {
            stacked.slice_mut(s![first..first + own.ncols(), ..own.nrows()]).assign(&own.t());
            first += own.ncols();
        }
        let product = multiply(stacked.view(), sides.home.slice(s![.., ..most]).reversed_axes());
        let mut first = 0;
        let mut next = |own: &Array2<f64>| {
            let there = product.slice(s![first..first + own.ncols(), ..]).to_owned().reversed_axes();
            first += own.ncols();
            there
        };
        vectors.iter().map(|own| own.as_ref().map(&mut next)).collect()
    }
}

/// The expectation of mean φ for random subspaces within the directions that are kept: `max(i, j)·‖V_aᵀ·V_b‖_F²/(k_a·k_b)`, the mean over pairs.
pub(super) fn gaussian_kept(layers: &[Coordinates<'_>], cut: Cut, (i, j): (usize, usize)) -> Option<f64> {
    let mut values = Vec::new();
    for (a, x) in layers.iter().enumerate() {
        for y in &layers[a + 1..] {
            let (Some(of_x), Some(of_y)) = (x.base.sides(x.equation), y.base.sides(y.equation)) else {
                values.push(expected_by_chance(i, j, x.values.nrows())?);
                continue;
            };
            let (k_x, k_y, length) = (x.kept(cut), y.kept(cut), of_x.home.nrows());
            if length != of_y.home.nrows() || k_x == 0 || k_y == 0 {
                continue;
            }
            // A basis of the whole space holds every other.
            let shared = if k_x == length || k_y == length || cut == Cut::Adjoint && of_x.sigma.len() == length {
                k_x.min(k_y) as f64
            } else {
                let product = multiply(of_x.home.slice(s![.., ..k_x]).reversed_axes(), of_y.home.slice(s![.., ..k_y]));
                product.iter().map(|v| v * v).sum()
            };
            values.push((i.max(j) as f64 * shared / (k_x as f64 * k_y as f64)).min(1.0));
        }
    }
    mean_and_sd(&values).0
}
