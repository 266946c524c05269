//! One layer of an adapter beside its base weight.

use ndarray::ArrayView2;

use crate::controls::Factor;
use crate::conversion::{Equation, WeightRows};
use crate::linalg::weight_basis::WeightBasis;
use crate::terms::Status;

/// Whose rows are made.
#[derive(Debug, Clone, Copy)]
pub struct ModuleName<'a> {
    /// Adapter name.
    pub adapter: &'a str,
    /// Module name.
    pub module: &'a str,
}

/// A base weight, and its singular basis where it was decomposed.
pub struct BaseLayer<'a> {
    /// W0 (out, in).
    pub weight: &'a dyn WeightRows,
    /// Its singular vectors and values.
    pub basis: Option<&'a WeightBasis>,
    /// The label of its random streams.
    pub stream: &'a str,
}

/// One layer of an adapter's module.
pub struct RelatedLayer<'a> {
    /// Its index in the tensor names; none outside any repeated container.
    pub number: Option<u32>,
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
