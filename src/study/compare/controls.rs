//! The drawn controls of a group: φ of Gaussian matrices, and of Gaussian targets solved through the same weights.

use std::collections::BTreeMap;

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::context::Context;
use super::grouping::{Group, Member};
use super::layer::{DrawnVectors, SolvedLayer};
use super::matrices::drawn_vectors;
use super::measured::PairMeasures;
use super::schedule::Pass;
use crate::controls::{Control, Factor, draw};
use crate::error::Result;
use crate::linalg::subspace::SubspaceBasis;
use crate::measures::{AllCka, centred};
use crate::similarity::AllPairs;
use crate::terms::{Convention, MatrixKind};

/// One measure of all ordered pairs of layers, row by row.
pub(super) type Cells = Vec<Option<f64>>;

/// For each draw, the cells of one measure.
pub(super) type Draws = Vec<Cells>;

/// Draws of one control: by view the measures of [`PairMeasures`] for each (i, j), then for each matrix that CKA compares that one.
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
        let slots = Slots::of(context);
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
                    slots.cells(&bases, ij)
                })
                .collect();
            let w0: Result<Vec<_>> = (0..if with_w0 { pass.draws.len() } else { 0 })
                .into_par_iter()
                .map(|number| {
                    let bases: Vec<_> =
                        at.iter().zip(ranks).map(|(&index, &rank)| w0_vectors(context, &layers[index], rank, number)).collect();
                    slots.cells(&bases, ij)
                })
                .collect();
            let shape = slots.shape(ij.len());
            add_by_slot(&mut controls.gaussian, gaussian?, &shape);
            add_by_slot(&mut controls.w0, w0?, &shape);
        }
        Ok(())
    }
}

/// What of a layer is compared: each view's vectors, then each matrix that CKA takes whole.
#[derive(Clone, Copy)]
struct Slots {
    views: usize,
    whole: usize,
    with_cosines: bool,
}

impl Slots {
    fn of(context: &Context<'_>) -> Self {
        Self { views: context.views.len(), whole: context.by_cka.len(), with_cosines: context.measures() }
    }

    /// How many measures each slot has.
    fn shape(self, pairs: usize) -> Vec<usize> {
        let mut shape = vec![pairs * PairMeasures::count(self.with_cosines); self.views];
        shape.resize(self.views + self.whole, 1);
        shape
    }

    /// All cells of every slot and measure from what there is of each layer.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    fn cells(self, layers: &[Vec<Option<ArrayView2<'_, f64>>>], ij: &[(usize, usize)]) -> Result<Vec<Vec<Cells>>> {
        let slot = |slot: usize| -> Vec<_> { layers.iter().map(|layer| layer.get(slot).copied().flatten()).collect() };
        let count = layers.len();
        let mut out = Vec::with_capacity(self.views + self.whole);
        for view in 0..self.views {
            let pairs = AllPairs::of(&slot(view));
            let mut cells = Vec::new();
            for &pair in ij {
                cells.extend(PairMeasures::of(&pairs, count, pair, self.with_cosines)?.into_cells());
            }
            out.push(cells);
        }
        for whole in self.views..self.views + self.whole {
            let all = AllCka::of(&slot(whole));
            out.push(vec![(0..count * count).map(|cell| all.cka(cell / count, cell % count)).collect()]);
        }
        Ok(out)
    }
}

/// The vectors of one draw at one layer, for all views, then what CKA compares; the factors themselves have no W0 in them and stay empty.
fn w0_vectors<'l>(context: &Context<'_>, layer: &'l SolvedLayer, rank: usize, number: usize) -> Vec<Option<ArrayView2<'l, f64>>> {
    let vectors = layer.w0_draws.get(&rank).and_then(|draws| draws.get(number));
    let at = |slot: Option<usize>| vectors?.get(slot?)?.as_ref().map(|vectors| vectors.view());
    let of_view = |view| at(context.drawn_views.iter().position(|drawn| drawn == view));
    let first = context.drawn_views.len();
    let of_whole = |matrix| at(context.drawn_by_cka.iter().position(|drawn| drawn == matrix).map(|k| first + k));
    context.views.iter().map(of_view).chain(context.by_cka.iter().map(of_whole)).collect()
}

/// Adds draw × slot × measure to slot × measure × draw.
fn add_by_slot(to: &mut ControlDraws, draws: Vec<Vec<Vec<Cells>>>, shape: &[usize]) {
    to.resize_with(shape.len(), Vec::new);
    for (of_slot, measures) in to.iter_mut().zip(shape) {
        of_slot.resize_with(*measures, Vec::new);
    }
    for draw in draws {
        for (of_slot, cells) in to.iter_mut().zip(draw) {
            for (of_measure, cells) in of_slot.iter_mut().zip(cells) {
                of_measure.push(cells);
            }
        }
    }
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
    for (slot, matrix) in vectors[context.views.len()..].iter_mut().zip(&context.by_cka) {
        match matrix {
            MatrixKind::LoraA => *slot = centred(a_transposed.view()).map(|whole| whole.values),
            MatrixKind::LoraB => *slot = centred(gaussian(Factor::B, layer.d_out).view()).map(|whole| whole.values),
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
        let slots = Slots { views: 2, whole: 0, with_cosines: false };
        let draw = slots.cells(&[of(0), of(1)], &[(1, 1)]).unwrap();
        assert_eq!(draw[0][0], [Some(1.0), Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!(draw[1][0], [None; 4]);
        let mut turned = ControlDraws::new();
        add_by_slot(&mut turned, vec![draw.clone(), draw.clone()], &slots.shape(1));
        assert_eq!((turned.len(), turned[0].len(), turned[0][0].len()), (2, 1, 2));
        add_by_slot(&mut turned, vec![draw], &slots.shape(1));
        assert_eq!(turned[0][0].len(), 3);
        let slots = Slots { views: 1, whole: 1, with_cosines: true };
        let x = ndarray::array![[1.0], [-1.0], [0.0]] * 0.5_f64.sqrt();
        let layer = |column: usize| vec![Some(e.slice(s![.., column..=column])), Some(x.view())];
        let draw = slots.cells(&[layer(0), layer(1)], &[(1, 1), (1, 1)]).unwrap();
        assert_eq!(draw.iter().map(Vec::len).collect::<Vec<_>>(), slots.shape(2));
        // CKA of a matrix with itself.
        assert!(draw[1][0].iter().all(|cell| (cell.unwrap() - 1.0).abs() < 1e-15));
    }
}
