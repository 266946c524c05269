//! The layers of one module that are to share a Θ: their weights, read as often as asked, and their factors, or Gaussian ones of the same norms.

use ndarray::{Array2, ArrayView2};

use crate::controls::{Control, Factor, draw};
use crate::conversion::Equation;
use crate::error::Result;
use crate::inputs::FactorPair;
use crate::linalg::norms::frobenius_of;
use crate::terms::Convention;

/// Aᵀ (in, r) and B (out, r) of every layer.
pub(super) type Targets = Vec<FactorPair>;

/// Which of the two factors; pairs are always in this order.
pub(super) const FACTORS: [Factor; 2] = [Factor::A, Factor::B];

/// The factor's target in one layer.
pub(super) fn target(pair: &FactorPair, factor: Factor) -> ArrayView2<'_, f64> {
    match factor {
        Factor::A => pair.a_transposed.view(),
        Factor::B => pair.b.view(),
    }
}

/// The layers of one module, all of one shape and rank.
pub(super) struct SharedLayers<'a> {
    pub(super) convention: Convention,
    pub(super) rank: usize,
    pub(super) d_out: usize,
    pub(super) d_in: usize,
    /// The factors as they are stored.
    pub(super) trained: Targets,
    /// The label of each layer's random streams.
    pub(super) streams: Vec<String>,
    /// Reads W0 (out, in) of a layer.
    pub(super) read: Box<dyn Fn(usize) -> Result<Array2<f64>> + Sync + 'a>,
}

impl SharedLayers<'_> {
    /// How many layers there are.
    pub(super) fn count(&self) -> usize {
        self.trained.len()
    }

    /// The equation of a factor: W0 or its transpose comes before Θ.
    pub(super) fn equation(&self, factor: Factor) -> Equation {
        if factor == Factor::A && self.convention == Convention::General { Equation::W0Transposed } else { Equation::W0 }
    }

    /// (rows, columns) of the matrix of an equation in one layer.
    pub(super) fn shape(&self, equation: Equation) -> (usize, usize) {
        if equation == Equation::W0 { (self.d_out, self.d_in) } else { (self.d_in, self.d_out) }
    }

    /// The equations, each with the factors that it is for: one for both, where both have the same.
    pub(super) fn equations(&self) -> Vec<(Equation, Vec<Factor>)> {
        match self.convention {
            Convention::Paper => vec![(Equation::W0, FACTORS.to_vec())],
            Convention::General => FACTORS.map(|factor| (self.equation(factor), vec![factor])).to_vec(),
        }
    }

    /// Gaussian targets of draw `number` in place of a layer's, of the norms of these.
    pub(super) fn drawn(&self, seed: u64, number: usize, layer: usize) -> FactorPair {
        let like = |factor: Factor| {
            let of = target(&self.trained[layer], factor);
            let mut gaussian = draw(seed, Control::Fit, &self.streams[layer], factor, number, of.nrows(), of.ncols());
            let (wanted, size) = (frobenius_of(&of), frobenius_of(&gaussian));
            gaussian.mapv_inplace(|v| v / size * wanted);
            gaussian
        };
        FactorPair { a_transposed: like(Factor::A), b: like(Factor::B) }
    }
}

/// The matrix of an equation: W0 or its transpose.
pub(super) fn rows_of(w0: &Array2<f64>, equation: Equation) -> ArrayView2<'_, f64> {
    if equation == Equation::W0 { w0.view() } else { w0.t() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::linalg::random::normal_stream;

    pub(in crate::shared_theta::fit) fn gaussian(label: &str, rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, columns), normal_stream(11, &[label.as_bytes()], rows * columns)).unwrap()
    }

    /// Gaussian weights with these factors.
    pub(in crate::shared_theta::fit) fn layers_of(
        convention: Convention,
        weights: &[Array2<f64>],
        trained: Targets,
    ) -> SharedLayers<'_> {
        let (d_out, d_in) = weights[0].dim();
        SharedLayers {
            convention,
            rank: trained[0].b.ncols(),
            d_out,
            d_in,
            streams: (0..weights.len()).map(|l| format!("layer {l}")).collect(),
            trained,
            read: Box::new(|layer| Ok(weights[layer].clone())),
        }
    }

    #[test]
    fn drawn_targets_have_the_norms_of_the_trained_ones() {
        let weights = [gaussian("w0", 6, 4), gaussian("w1", 6, 4)];
        let pair = |k: usize| FactorPair {
            a_transposed: gaussian(&format!("a{k}"), 4, 2) * (k + 1) as f64,
            b: gaussian(&format!("b{k}"), 6, 2) * 3.0,
        };
        let layers = layers_of(Convention::General, &weights, vec![pair(0), pair(1)]);
        for layer in 0..2 {
            let (drawn, other) = (layers.drawn(0, 0, layer), layers.drawn(0, 1, layer));
            for factor in FACTORS {
                let (found, wanted) = (target(&drawn, factor), target(&layers.trained[layer], factor));
                assert_eq!(found.dim(), wanted.dim());
                assert!((frobenius_of(&found) / frobenius_of(&wanted) - 1.0).abs() < 1e-14);
                assert_ne!(found, target(&other, factor));
            }
        }
    }
}
