//! The strict control: each target with its signs turned at random in the singular basis of its base weight, `T' = U·D·Uᵀ·T`.
//!
//! It keeps TᵀT and the energy of T in every singular direction of W0, which decide by themselves how well targets can be fitted, and takes away whatever
//! two layers share. U are the singular vectors on the side where the target's equation reads it: the left ones of `W0·Θ = T`, the right ones of
//! `W0ᵀ·Θ = T`. Turned on another side, targets that were made by a Θ of their own in every layer would lose where their energy lies.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::layers::{FACTORS, SharedLayers, Targets, target};
use super::score::{Scores, Squares};
use crate::controls::{DrawPlan, Factor, draw_while_open, signs};
use crate::conversion::Equation;
use crate::error::Result;
use crate::inputs::FactorPair;
use crate::linalg::lapack::multiply;
use crate::linalg::norms::frobenius_of;
use crate::linalg::weight_basis::{WeightBasis, scale_rows};

/// Draws of the direct fit that are made at a time.
const AT_ONCE: usize = 16;

/// The singular vectors of every layer's weight on the sides that are asked for.
pub(super) struct SingularBases {
    seed: u64,
    sides: Vec<Sides>,
}

/// Of one weight: U (out, k) and V (in, k).
struct Sides {
    left: Option<Array2<f64>>,
    right: Option<Array2<f64>>,
}

impl SingularBases {
    /// Decomposes every weight, and keeps the sides where these equations read their targets.
    ///
    /// # Errors
    /// What is wrong with a weight; [`crate::Error::Lapack`] if a decomposition does not converge.
    pub(super) fn of(layers: &SharedLayers<'_>, equations: &[Equation], seed: u64) -> Result<Self> {
        let decompose = |layer: usize| -> Result<Sides> {
            let WeightBasis { left, right, .. } = WeightBasis::by_eigenvectors((layers.read)(layer)?.view())?;
            Ok(Sides {
                left: equations.contains(&Equation::W0).then_some(left),
                right: equations.contains(&Equation::W0Transposed).then_some(right),
            })
        };
        let sides = (0..layers.count()).into_par_iter().map(decompose).collect::<Result<_>>()?;
        Ok(Self { seed, sides })
    }

    /// Columns that the equation reads as a target of a layer, with their signs to be turned.
    pub(super) fn flippable<'a>(
        &'a self,
        layers: &'a SharedLayers<'_>,
        layer: usize,
        (factor, equation): (Factor, Equation),
        values: ArrayView2<'a, f64>,
    ) -> Flippable<'a> {
        let sides = &self.sides[layer];
        let side = if equation == Equation::W0 { &sides.left } else { &sides.right };
        let face =
            side.as_ref().unwrap_or_else(|| unreachable!("the sides of all equations that are asked about were kept")).view();
        let coordinates = multiply(face.t(), values);
        Flippable { values, face, coordinates, stream: &layers.streams[layer], factor, seed: self.seed }
    }

    /// The targets of one factor in all layers.
    fn all<'a>(&'a self, layers: &'a SharedLayers<'_>, factor: Factor) -> Vec<Flippable<'a>> {
        let one = |layer: usize| {
            self.flippable(layers, layer, (factor, layers.equation(factor)), target(&layers.trained[layer], factor))
        };
        (0..layers.count()).map(one).collect()
    }

    /// The updates of all layers, to be turned on both sides.
    pub(super) fn updates<'a>(&'a self, layers: &'a SharedLayers<'_>) -> FlippableUpdates<'a> {
        FlippableUpdates(FACTORS.map(|factor| self.all(layers, factor)))
    }

    /// Draws of the direct fit of a factor, until its residual of all layers is decided. `bases` are its stack's.
    ///
    /// Only the right-hand sides change: with `W0_l = Q_l·R` the fitted target is `Q_l·Σ_k Q_kᵀ·T_k`. The residual is computed as a difference of matrices,
    /// so that none is lost to cancellation.
    ///
    /// # Errors
    /// None of its own.
    pub(super) fn of_direct_fit(
        &self,
        layers: &SharedLayers<'_>,
        bases: &[Array2<f64>],
        factor: Factor,
        observed: &Scores,
        plan: DrawPlan,
    ) -> Result<Vec<Squares>> {
        let targets = self.all(layers, factor);
        let draw = |number: usize| {
            let turned: Vec<Array2<f64>> = targets.iter().map(|target| target.flipped(number)).collect();
            Ok(squares_of(bases, &turned))
        };
        draw_while_open(plan, AT_ONCE, draw, |draws| observed.is_open(plan, draws))
    }
}

/// What one Θ leaves of these targets.
fn squares_of(bases: &[Array2<f64>], targets: &[Array2<f64>]) -> Squares {
    let parts = bases.iter().zip(targets).map(|(q, target)| multiply(q.view(), target.view()));
    let together = parts.reduce(|sum, part| sum + &part).unwrap_or_else(|| unreachable!("a module has layers"));
    let mut squares = Squares::default();
    for (q, target) in bases.iter().zip(targets) {
        squares.residual.push(frobenius_of(&(target - &multiply(q.t(), together.view()))).powi(2));
        squares.target.push(frobenius_of(target).powi(2));
    }
    squares
}

/// Columns whose signs can be turned.
pub(super) struct Flippable<'a> {
    values: ArrayView2<'a, f64>,
    face: ArrayView2<'a, f64>,
    coordinates: Array2<f64>,
    stream: &'a str,
    factor: Factor,
    seed: u64,
}

impl Flippable<'_> {
    /// Draw number `number`. What lies outside the range of a tall W0 stays, as no equation sees it.
    pub(super) fn flipped(&self, number: usize) -> Array2<f64> {
        let signs = signs(self.seed, self.stream, self.factor, number, self.coordinates.nrows());
        let change: Vec<f64> = signs.into_iter().map(|sign| sign - 1.0).collect();
        &self.values + &multiply(self.face, scale_rows(self.coordinates.view(), &change).view())
    }
}

/// The updates of all layers: the sides of B and of A have signs of their own.
pub(super) struct FlippableUpdates<'a>([Vec<Flippable<'a>>; 2]);

impl FlippableUpdates<'_> {
    /// Draw number `number`.
    pub(super) fn flipped(&self, number: usize) -> Targets {
        let [of_a, of_b] = &self.0;
        let pair =
            |(a, b): (&Flippable<'_>, &Flippable<'_>)| FactorPair { a_transposed: a.flipped(number), b: b.flipped(number) };
        of_a.iter().zip(of_b).map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::direct::fit_direct;
    use super::super::layers::tests::{gaussian, layers_of};
    use super::*;
    use crate::terms::Convention;

    fn random(count: usize, d_out: usize, d_in: usize, rank: usize) -> (Vec<Array2<f64>>, Targets) {
        let weights = (0..count).map(|l| gaussian(&format!("w{l}"), d_out, d_in) * (1.0 + l as f64)).collect();
        let pair = |l: usize| FactorPair {
            a_transposed: gaussian(&format!("a{l}"), d_in, rank) * (2.0 + l as f64),
            b: gaussian(&format!("b{l}"), d_out, rank),
        };
        (weights, (0..count).map(pair).collect())
    }

    #[test]
    fn turned_targets_keep_their_products_and_their_energies() {
        for (convention, d_out, d_in) in [(Convention::Paper, 12, 12), (Convention::General, 15, 9), (Convention::General, 8, 13)]
        {
            let (weights, targets) = random(2, d_out, d_in, 3);
            let layers = layers_of(convention, &weights, targets);
            let equations = [Equation::W0, Equation::W0Transposed];
            let bases = SingularBases::of(&layers, &equations, 4).unwrap();
            for (layer, pair) in bases.updates(&layers).flipped(7).iter().enumerate() {
                let svd = WeightBasis::by_svd(weights[layer].view()).unwrap();
                for factor in FACTORS {
                    let (turned, own) = (target(pair, factor), target(&layers.trained[layer], factor));
                    assert!(frobenius_of(&(turned.t().dot(&turned) - own.t().dot(&own))) < 1e-12 * frobenius_of(&own).powi(2));
                    assert!(frobenius_of(&(&turned - &own)) > 0.1 * frobenius_of(&own));
                    let face = if layers.equation(factor) == Equation::W0 { &svd.left } else { &svd.right };
                    let (there, before) = (face.t().dot(&turned), face.t().dot(&own));
                    for (row, other) in there.rows().into_iter().zip(before.rows()) {
                        let off = (&row - &other).mapv(f64::abs).sum().min((&row + &other).mapv(f64::abs).sum());
                        assert!(off < 1e-11, "{convention} {d_out} x {d_in}: neither kept nor turned");
                    }
                }
            }
        }
    }

    #[test]
    fn a_draw_is_what_the_fit_of_the_turned_targets_leaves() {
        for (convention, d_out, d_in) in [(Convention::Paper, 10, 10), (Convention::General, 14, 6)] {
            let (weights, targets) = random(3, d_out, d_in, 2);
            let layers = layers_of(convention, &weights, targets);
            let fit = fit_direct(&layers, 0, 0).unwrap();
            let bases = SingularBases::of(&layers, &[Equation::W0, Equation::W0Transposed], 4).unwrap();
            let turned = fit_direct(&layers_of(convention, &weights, bases.updates(&layers).flipped(1)), 0, 0).unwrap();
            for (k, factor) in FACTORS.into_iter().enumerate() {
                let stack: Vec<_> = (0..3).map(|l| fit.stack(factor).basis_of(&layers, l).unwrap()).collect();
                let plan = DrawPlan::fixed(2);
                let draws = bases.of_direct_fit(&layers, &stack, factor, &fit.scores[k], plan).unwrap();
                let mut scores = fit.scores[k].clone();
                scores.compare_with_flips(plan, &draws[1..]);
                let found = scores.all.flip.mean.unwrap();
                assert!((found - turned.scores[k].all.residual.unwrap()).abs() < 1e-12, "{convention}");
                assert!((scores.layers[2].flip.mean.unwrap() - turned.scores[k].layers[2].residual.unwrap()).abs() < 1e-12);
            }
        }
    }
}
