//! One layer of an adapter beside its base weight.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2};

use crate::controls::{Control, Factor, draw};
use crate::conversion::{Equation, WeightRows, finite, products};
use crate::linalg::weight_basis::{WeightBasis, unit_of};
use crate::stored::stored;
use crate::terms::{LayerId, Status};

/// Whose rows are made.
#[derive(Debug, Clone, Copy)]
pub struct ModuleName<'a> {
    /// Adapter name.
    pub adapter: &'a str,
    /// Module name.
    pub module: &'a str,
}

/// A base weight: what is left of it once everything has been multiplied with it.
pub struct BaseLayer<'a> {
    /// (out, in).
    pub shape: (usize, usize),
    /// Its singular vectors and values; none where it was not decomposed.
    pub basis: Option<&'a WeightBasis>,
    /// What it makes of Gaussian targets, where it was not decomposed.
    pub drawn: &'a DrawnImages,
    /// The label of its random streams.
    pub stream: &'a str,
}

/// One layer of an adapter's module.
pub struct RelatedLayer<'a> {
    /// Its index in the tensor names; none outside any repeated container.
    pub number: Option<LayerId>,
    /// Its base weight.
    pub base: &'a BaseLayer<'a>,
    /// Aᵀ (in, r).
    pub a_transposed: ArrayView2<'a, f64>,
    /// B (out, r).
    pub b: ArrayView2<'a, f64>,
    /// s of ΔW = s·B·A.
    pub scaling: f64,
    /// The equation of Θ_A; that of Θ_B is always [`Equation::W0`].
    pub equation_a: Equation,
    /// What W0 makes of the factors, where it was not decomposed.
    pub images: Option<&'a Images>,
}

/// What W0 itself makes of an adapter's factors: with its singular basis all of it follows from that.
#[derive(Debug, Clone)]
pub struct Images {
    /// What the equations of Θ_A and Θ_B send Aᵀ and B back to.
    pub(super) adjoint: [Array2<f64>; 2],
    /// `Uᵀ·W0·V` of the update (r, r).
    pub(super) seen: Array2<f64>,
}

stored!(Images { adjoint, seen });

/// What W0 itself makes of Gaussian targets, by factor and rank, a matrix for each draw.
#[derive(Debug, Clone, Default)]
pub struct DrawnImages {
    targets: BTreeMap<(Factor, usize), Vec<Array2<f64>>>,
}

stored!(DrawnImages { targets });

impl Images {
    pub(super) fn adjoint(&self, factor: Factor) -> &Array2<f64> {
        &self.adjoint[usize::from(factor == Factor::B)]
    }
}

impl DrawnImages {
    /// Of the first `draws` Gaussian targets of the `w0` control of each of these factors, with their equations, and ranks, through a weight and its
    /// square core, or the weight again where it has none. Of targets with more rows than W0 has singular values the core sees the coordinates in W0's range.
    #[must_use]
    pub fn of(
        (weight, core): (&dyn WeightRows, &dyn WeightRows),
        stream: &str,
        seed: u64,
        factors: &[(Factor, Equation)],
        ranks: &[usize],
        draws: usize,
    ) -> Self {
        let (d_out, d_in) = weight.shape();
        let mut targets = BTreeMap::new();
        for &(factor, equation) in factors {
            let long = if equation == Equation::W0 { d_out > d_in } else { d_in > d_out };
            let through = if long { core } else { weight };
            let (rows, columns) = through.shape();
            let rows = if equation == Equation::W0 { rows } else { columns };
            for &rank in ranks {
                let gaussian = |number| draw(seed, Control::W0, stream, factor, number, rows, rank);
                let drawn: Vec<Array2<f64>> = (0..draws).map(gaussian).collect();
                let views: Vec<_> = drawn.iter().map(|draw| (equation.turned(), draw.view())).collect();
                targets.insert((factor, rank), products(through, &views).into_iter().map(within_range).collect());
            }
        }
        Self { targets }
    }

    /// The image of one draw.
    pub(super) fn image(&self, factor: Factor, rank: usize, number: usize) -> &Array2<f64> {
        let image = self.targets.get(&(factor, rank)).and_then(|draws| draws.get(number));
        image.unwrap_or_else(|| unreachable!("a weight that was not decomposed has the images of all that is drawn"))
    }
}

/// Scaled by a power of two, which changes no digit of a singular vector.
pub(super) fn scaled(target: ArrayView2<'_, f64>) -> Array2<f64> {
    let unit = unit_of(target);
    target.mapv(|v| v / unit)
}

/// NaN in place of an image that overflows: beyond the range of f64 there is nothing to compare.
pub(super) fn within_range(image: Array2<f64>) -> Array2<f64> {
    let dim = image.dim();
    finite(image).unwrap_or_else(|_| Array2::from_elem(dim, f64::NAN))
}

impl BaseLayer<'_> {
    /// The singular vectors on the side where targets of an equation are read (`face`), and those where its Θ lives (`home`).
    #[must_use]
    pub fn sides(&self, equation: Equation) -> Option<Sides<'_>> {
        let basis = self.basis?;
        let (left, right) = (basis.left.view(), basis.right.view());
        let (face, home) = if equation == Equation::W0 { (left, right) } else { (right, left) };
        Some(Sides { face, home, sigma: &basis.sigma, rank: basis.rank() })
    }
}

/// A base weight's singular basis as one equation sees it: `W·Θ = T` with `W = face·diag(σ)·homeᵀ`.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// Where T is read (rows of T, k).
    pub face: ArrayView2<'a, f64>,
    /// Where Θ lives (rows of Θ, k).
    pub home: ArrayView2<'a, f64>,
    /// Singular values, largest first.
    pub sigma: &'a [f64],
    /// How many of them are above rounding level.
    pub rank: usize,
}

impl RelatedLayer<'_> {
    /// The equation of a factor's Θ.
    #[must_use]
    pub fn equation(&self, factor: Factor) -> Equation {
        if factor == Factor::A { self.equation_a } else { Equation::W0 }
    }

    /// Aᵀ or B.
    #[must_use]
    pub fn target(&self, factor: Factor) -> ArrayView2<'_, f64> {
        if factor == Factor::A { self.a_transposed } else { self.b }
    }

    /// Whether the layer has an update at all.
    #[must_use]
    pub fn status(&self) -> Status {
        let zero = |values: ArrayView2<'_, f64>| values.iter().all(|&v| v == 0.0);
        if self.scaling == 0.0 || zero(self.a_transposed) || zero(self.b) { Status::Zero } else { Status::Ok }
    }
}
