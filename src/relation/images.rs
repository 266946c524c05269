//! What W0 itself makes of adapters' factors, where it is not decomposed.

use ndarray::Array2;

use super::layer::{Images, RelatedLayer, scaled, within_range};
use super::update::directions_of;
use crate::controls::Factor;
use crate::conversion::{Equation, WeightRows, finite, products};
use crate::error::Result;
use crate::linalg::lapack::multiply;

/// The images of some adapters' layers, all of one base weight.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails, [`crate::Error::NonFinite`] if W0 holds NaN or Inf.
pub fn images_of(weight: &dyn WeightRows, layers: &[RelatedLayer<'_>]) -> Result<Vec<Images>> {
    // One product with W0 for all of them.
    let mut blocks: Vec<(Equation, Array2<f64>)> = Vec::with_capacity(3 * layers.len());
    let mut lefts = Vec::with_capacity(layers.len());
    for layer in layers {
        for factor in [Factor::A, Factor::B] {
            blocks.push((layer.equation(factor).turned(), scaled(layer.target(factor))));
        }
        let (left, right) = match directions_of(layer)? {
            Ok(directions) => (Some(directions.left), directions.right),
            Err(_) => (None, Array2::zeros((weight.shape().1, 0))),
        };
        lefts.push(left);
        blocks.push((Equation::W0, right));
    }
    let views: Vec<_> = blocks.iter().map(|(equation, block)| (*equation, block.view())).collect();
    let mut images = products(weight, &views).into_iter();
    let mut next = || images.next().unwrap_or_else(|| unreachable!("every block has an image"));
    let of_layer = |left: Option<Array2<f64>>| {
        let (adjoint, image) = ([within_range(next()), within_range(next())], next());
        let seen = match left {
            Some(left) => multiply(left.t(), finite(image)?.view()),
            None => Array2::zeros((0, 0)),
        };
        Ok(Images { adjoint, seen })
    };
    lefts.into_iter().map(of_layer).collect()
}
