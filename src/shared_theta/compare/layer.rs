//! One layer of both adapters: φ of A, B and ΔW, and what a Gaussian Θ would give.

use std::ops::Range;

use ndarray::{Array2, s};

use super::matching::{LayerPair, ModulePair};
use super::params::CompareConfig;
use super::vectors::UpdateVectors;
use crate::checkpoint::{BaseModel, FactorSource};
use crate::controls::{Control, Factor, draw};
use crate::conversion::{Equation, WeightRows, columns_together, factor_of, shared_equations};
use crate::error::Result;
use crate::inputs::{BaseWeight, FactorPair, OpenedAdapter, StoredWeight};
use crate::layer_matrix::{PairValue, cell_status, has_phi};
use crate::record::InputRecord;
use crate::similarity::{AllPairs, expected_by_chance};
use crate::terms::{CondloraConvention, LayerId, Side, Status, UpdateMatrix};

/// φ of one matrix and (i, j) in one layer.
pub(super) struct Cell {
    pub(super) matrix: UpdateMatrix,
    pub(super) i: usize,
    pub(super) j: usize,
    pub(super) phi: Option<f64>,
    /// The cosine of the two updates; none of a single factor.
    pub(super) cosine: Option<f64>,
    pub(super) gaussian_expected: Option<f64>,
    /// One value for each draw; empty where no side is a CondLoRA.
    pub(super) draws: Vec<Option<f64>>,
    pub(super) status: Status,
}

/// All cells of one layer, by matrix and (i, j).
pub(super) struct ComparedLayer {
    pub(super) layer: Option<LayerId>,
    pub(super) cells: Vec<Cell>,
    pub(super) inputs: Vec<InputRecord>,
}

/// Reads and compares one layer.
///
/// # Errors
/// What is wrong with the base weight or a factor.
pub(super) fn compare_layer(
    config: &CompareConfig,
    base: &BaseModel,
    sides: &[OpenedAdapter; 2],
    module: &ModulePair,
    pair: &LayerPair,
) -> Result<ComparedLayer> {
    let mut inputs = Vec::new();
    let conventions = [0, 1].map(|side| convention_of(pair, side));
    let needed = conventions.iter().any(Option::is_some);
    let w0 = if needed { Some(StoredWeight::read(base, &BaseWeight::of(&pair.left), &mut inputs)?) } else { None };
    let mut read = |side: usize| match &w0 {
        None => FactorPair::read_stored(&sides[side].adapter, pair.side(side), &mut inputs),
        Some(w0) => FactorPair::read(&sides[side].adapter, &pair.side(side).adapter_layer, w0, &mut inputs)
            .map_err(|error| w0.explain(error)),
    };
    let factors = [read(0)?, read(1)?];
    let observed = [UpdateVectors::of(&factors[0])?, UpdateVectors::of(&factors[1])?];
    let scalings = [0, 1].map(|side| pair.side(side).adapter_layer.scaling);
    let mut cells = observed_cells(module, &observed, cosine_of_updates([&factors[0], &factors[1]], scalings));
    if let Some(w0) = &w0 {
        let drawn = [0, 1].map(|side| {
            // Each side has its own stream, because two Gaussian Θ of one stream would be equal.
            let stream =
                if side == 1 && conventions[0].is_some() { format!("{}#right", module.stream) } else { module.stream.clone() };
            conventions[side].map(|convention| DrawnSide {
                seed: config.given.seed,
                stream,
                convention,
                rank: pair.side(side).adapter_layer.rank,
            })
        });
        add_draws(&mut cells, module, &observed, &drawn, w0, config.given.null_draws)?;
    }
    Ok(ComparedLayer { layer: pair.left.adapter_layer.layer.clone(), cells, inputs })
}

fn convention_of(pair: &LayerPair, side: usize) -> Option<CondloraConvention> {
    match &pair.side(side).adapter_layer.source {
        FactorSource::Shared { convention, .. } => Some(*convention),
        _ => None,
    }
}

/// Every matrix with every (i, j), in the order of the rows.
fn places(module: &ModulePair) -> impl Iterator<Item = (UpdateMatrix, (usize, usize))> {
    UpdateMatrix::ALL.into_iter().flat_map(|matrix| module.ij.iter().map(move |&ij| (matrix, ij)))
}

fn observed_cells(module: &ModulePair, [left, right]: &[UpdateVectors; 2], cosine: Option<f64>) -> Vec<Cell> {
    let cell = |(matrix, (i, j)): (UpdateMatrix, (usize, usize))| {
        let (x, y) = (left.get(matrix), right.get(matrix));
        let phi = phi([left, right], matrix, (i, j));
        let (status, _) = cell_status([x, y], Side::Left, (i, j), PairValue::of(phi, None), false);
        let length = x.vectors(Side::Left).map(|vectors| vectors.nrows());
        let gaussian_expected = length.and_then(|length| expected_by_chance(i, j, length));
        let cosine = cosine.filter(|_| matrix == UpdateMatrix::Delta);
        Cell { matrix, i, j, phi, cosine, gaussian_expected, draws: Vec::new(), status }
    };
    places(module).map(cell).collect()
}

/// `⟨ΔW, ΔW'⟩/(‖ΔW‖·‖ΔW'‖)`, as traces of products of r columns: `⟨B·A, B'·A'⟩ = Σ (BᵀB')∘(A·A'ᵀ)`. None where an update is zero.
fn cosine_of_updates([x, y]: [&FactorPair; 2], scalings: [f64; 2]) -> Option<f64> {
    let product = |x: &FactorPair, y: &FactorPair| -> f64 {
        let (of_b, of_a) = (x.b.t().dot(&y.b), x.a_transposed.t().dot(&y.a_transposed));
        of_b.iter().zip(&of_a).map(|(b, a)| b * a).sum()
    };
    let norms = (product(x, x) * product(y, y)).sqrt();
    let sign = (scalings[0] * scalings[1]).signum();
    (norms > 0.0 && norms.is_finite()).then(|| sign * product(x, y) / norms)
}

/// φ between the first i vectors of the left matrix and the first j of the right one; none where one of them has fewer.
fn phi([left, right]: [&UpdateVectors; 2], matrix: UpdateMatrix, (i, j): (usize, usize)) -> Option<f64> {
    let (x, y) = (left.get(matrix), right.get(matrix));
    let there = has_phi(x.status(i)) && has_phi(y.status(j));
    there.then(|| AllPairs::of(&[x.vectors(Side::Left), y.vectors(Side::Left)]).phi(0, 1, i, j)).flatten()
}

/// A CondLoRA side whose Θ is drawn.
struct DrawnSide {
    seed: u64,
    stream: String,
    convention: CondloraConvention,
    rank: usize,
}

impl DrawnSide {
    /// The factors that Gaussian Θ make of W0, for some draws at once: a column's bits do not depend on the other columns.
    fn factors(&self, w0: &StoredWeight, numbers: Range<usize>) -> Result<Vec<FactorPair>> {
        let (rank, (d_out, d_in)) = (self.rank, w0.shape());
        let made = |factor: Factor, equation: Equation| {
            let length = if equation == Equation::W0 { d_in } else { d_out };
            let mut thetas = Array2::zeros((length, rank * numbers.len()));
            for (at, number) in numbers.clone().enumerate() {
                let theta = draw(self.seed, Control::W0, &self.stream, factor, number, length, rank);
                thetas.slice_mut(s![.., at * rank..(at + 1) * rank]).assign(&theta);
            }
            factor_of(w0, thetas.view(), equation)
        };
        let [equation_a, equation_b] = shared_equations(self.convention);
        let (a, b) = (made(Factor::A, equation_a)?, made(Factor::B, equation_b)?);
        let part = |all: &Array2<f64>, at: usize| all.slice(s![.., at * rank..(at + 1) * rank]).to_owned();
        Ok((0..numbers.len()).map(|at| FactorPair { a_transposed: part(&a, at), b: part(&b, at) }).collect())
    }
}

/// Adds φ of every draw to the cells: Gaussian Θ on the sides that are CondLoRA, the adapter itself on the other.
fn add_draws(
    cells: &mut [Cell],
    module: &ModulePair,
    observed: &[UpdateVectors; 2],
    drawn: &[Option<DrawnSide>; 2],
    w0: &StoredWeight,
    draws: usize,
) -> Result<()> {
    let (d_out, d_in) = w0.shape();
    let widest = drawn.iter().flatten().map(|side| side.rank).max().unwrap_or(1);
    let together = (columns_together(d_out.max(d_in)) / widest).max(1);
    for first in (0..draws).step_by(together) {
        let numbers = first..draws.min(first + together);
        let factors = |side: &Option<DrawnSide>| side.as_ref().map(|side| side.factors(w0, numbers.clone())).transpose();
        let factors = [factors(&drawn[0])?, factors(&drawn[1])?];
        for at in 0..numbers.len() {
            let vectors = |side: usize| factors[side].as_ref().and_then(|all| all.get(at)).map(UpdateVectors::of).transpose();
            let of_draw = [vectors(0)?, vectors(1)?];
            let sides = [0, 1].map(|side| of_draw[side].as_ref().unwrap_or(&observed[side]));
            for (cell, (matrix, ij)) in cells.iter_mut().zip(places(module)) {
                cell.draws.push(phi(sides, matrix, ij));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_cosine_of_updates_by_hand() {
        // 3·e₁e₁ᵀ and e₁(e₁ + e₂)ᵀ.
        let x = FactorPair { a_transposed: array![[1.0], [0.0]], b: array![[3.0], [0.0]] };
        let y = FactorPair { a_transposed: array![[1.0], [1.0]], b: array![[1.0], [0.0]] };
        let cosine = cosine_of_updates([&x, &y], [1.0, 2.0]).unwrap();
        assert!((cosine - 0.5_f64.sqrt()).abs() < 1e-15);
        assert_eq!(cosine_of_updates([&x, &y], [1.0, -2.0]), Some(-cosine));
        let zero = FactorPair { b: array![[0.0], [0.0]], ..y };
        assert_eq!(cosine_of_updates([&x, &zero], [1.0, 1.0]), None);
    }
}
