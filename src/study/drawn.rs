//! The drawn controls of a group: φ of Gaussian matrices, and of Gaussian targets solved through the same weights.

use std::collections::BTreeMap;

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::context::Context;
use super::grouping::{Group, Member};
use super::layer::{DrawnVectors, SolvedLayer};
use super::matrices::drawn_vectors;
use super::schedule::Pass;
use crate::controls::{Control, Factor, draw};
use crate::error::Result;
use crate::linalg::subspace::SubspaceBasis;
use crate::similarity::AllPairs;
use crate::terms::{Convention, MatrixKind};

/// φ of all ordered pairs of layers, row by row.
pub(super) type Cells = Vec<Option<f64>>;

/// For each draw, the cells of one view and (i, j).
pub(super) type Draws = Vec<Cells>;

/// Draws of one control, by view and (i, j).
pub(super) type ControlDraws = Vec<Vec<Draws>>;

/// What a control depends on besides the base weights: the layers, the rank of each, and the (i, j) compared.
type Drawn = (Vec<usize>, Vec<usize>, Vec<(usize, usize)>);

/// What is drawn once for all members with the same layers and ranks.
#[derive(Default)]
pub(super) struct Controls {
    pub(super) gaussian: ControlDraws,
    pub(super) w0: ControlDraws,
}

/// The controls of a group, as far as its passes have come.
#[derive(Default)]
pub(super) struct GroupControls(BTreeMap<Drawn, Controls>);

impl GroupControls {
    fn key(context: &Context<'_>, member: &Member) -> Drawn {
        (member.at.clone(), member.ranks.clone(), context.pairs_for(member.ranks.iter().copied()))
    }

    /// The controls that a member is held against.
    pub(super) fn of(&self, context: &Context<'_>, member: &Member) -> Option<&Controls> {
        self.0.get(&Self::key(context, member))
    }

    /// Adds the draws of a pass.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(super) fn add(&mut self, context: &Context<'_>, group: &Group, pass: &Pass, layers: &[SolvedLayer]) -> Result<()> {
        if self.0.is_empty() {
            self.0 = group.members.iter().map(|member| (Self::key(context, member), Controls::default())).collect();
        }
        let with_w0 = context.w0_draws_of(group) > 0;
        for ((at, ranks, ij), controls) in &mut self.0 {
            let gaussian: Result<Vec<_>> = pass
                .draws
                .clone()
                .into_par_iter()
                .map(|number| {
                    let drawn: Result<Vec<_>> = at
                        .iter()
                        .zip(ranks)
                        .map(|(&index, &rank)| gaussian_vectors(context, group, index, number, rank))
                        .collect();
                    let drawn = drawn?;
                    let bases: Vec<Vec<_>> = drawn
                        .iter()
                        .map(|layer| layer.iter().map(|v| v.as_ref().map(|vectors| vectors.view())).collect())
                        .collect();
                    Ok(cells_of(&bases, context.views.len(), ij))
                })
                .collect();
            let w0: Vec<_> = (0..if with_w0 { pass.draws.len() } else { 0 })
                .into_par_iter()
                .map(|number| {
                    let bases: Vec<_> =
                        at.iter().zip(ranks).map(|(&index, &rank)| w0_vectors(context, &layers[index], rank, number)).collect();
                    cells_of(&bases, context.views.len(), ij)
                })
                .collect();
            add_by_view(&mut controls.gaussian, gaussian?, context.views.len(), ij.len());
            add_by_view(&mut controls.w0, w0, context.views.len(), ij.len());
        }
        Ok(())
    }
}

/// The vectors of one draw at one layer, for all views; the factors themselves have no W0 in them and stay empty.
fn w0_vectors<'l>(context: &Context<'_>, layer: &'l SolvedLayer, rank: usize, number: usize) -> Vec<Option<ArrayView2<'l, f64>>> {
    let vectors = layer.w0_draws.get(&rank).and_then(|draws| draws.get(number));
    let of = |view| {
        let at = context.drawn_views.iter().position(|drawn| drawn == view)?;
        vectors?.get(at)?.as_ref().map(|vectors| vectors.view())
    };
    context.views.iter().map(of).collect()
}

/// Adds draw × view × (i, j) to view × (i, j) × draw.
fn add_by_view(to: &mut ControlDraws, draws: Vec<Vec<Vec<Cells>>>, views: usize, pairs: usize) {
    to.resize_with(views, || vec![Vec::new(); pairs]);
    for draw in draws {
        for (of_view, cells) in to.iter_mut().zip(draw) {
            for (of_pair, cells) in of_view.iter_mut().zip(cells) {
                of_pair.push(cells);
            }
        }
    }
}

/// All cells of every view and (i, j) from the vectors of each layer.
fn cells_of(bases: &[Vec<Option<ArrayView2<'_, f64>>>], views: usize, ij: &[(usize, usize)]) -> Vec<Vec<Cells>> {
    (0..views)
        .map(|view| {
            let vectors: Vec<_> = bases.iter().map(|layer| layer.get(view).copied().flatten()).collect();
            let pairs = AllPairs::of(&vectors);
            ij.iter().map(|&(i, j)| all_cells(&pairs, bases.len(), i, j)).collect()
        })
        .collect()
}

fn all_cells(pairs: &AllPairs, layers: usize, i: usize, j: usize) -> Cells {
    (0..layers * layers).map(|cell| pairs.phi(cell / layers, cell % layers, i, j)).collect()
}

/// Gaussian matrices in place of every matrix of one layer.
fn gaussian_vectors(context: &Context<'_>, group: &Group, index: usize, number: usize, rank: usize) -> Result<DrawnVectors> {
    let layer = &group.layers[index];
    let gaussian = |factor, length| draw(context.seed(), Control::Gaussian, &layer.stream(), factor, number, length, rank);
    let length_a = if group.convention == Convention::Paper { layer.d_in } else { layer.d_out };
    let a_transposed = gaussian(Factor::A, layer.d_in);
    let theta_a = (length_a != layer.d_in).then(|| gaussian(Factor::A, length_a));
    let theta_a = theta_a.as_ref().unwrap_or(&a_transposed);
    let theta_b = gaussian(Factor::B, layer.d_in);
    let wanted = context.wanted();
    let mut vectors = drawn_vectors(&wanted, theta_a.view(), theta_b.view(), a_transposed.view())?;
    for (slot, view) in vectors.iter_mut().zip(&context.views) {
        let of = |matrix: ArrayView2<'_, f64>| -> Result<_> {
            let basis = SubspaceBasis::of(matrix)?;
            Ok(Some(basis.left().slice(s![.., ..wanted.most_of(rank)]).to_owned()))
        };
        match view.matrix {
            MatrixKind::LoraA => *slot = of(a_transposed.view())?,
            MatrixKind::LoraB => *slot = of(gaussian(Factor::B, layer.d_out).view())?,
            _ => {}
        }
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn cells_come_row_by_row_and_draws_by_view() {
        let e = Array2::<f64>::eye(3);
        let of = |column: usize| vec![Some(e.slice(s![.., column..=column])), None];
        let draw = cells_of(&[of(0), of(1)], 2, &[(1, 1)]);
        assert_eq!(draw[0][0], [Some(1.0), Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!(draw[1][0], [None; 4]);
        let mut turned = ControlDraws::new();
        add_by_view(&mut turned, vec![draw.clone(), draw.clone()], 2, 1);
        assert_eq!((turned.len(), turned[0].len(), turned[0][0].len()), (2, 1, 2));
        add_by_view(&mut turned, vec![draw], 2, 1);
        assert_eq!(turned[0][0].len(), 3);
    }
}
