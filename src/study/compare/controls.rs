//! The drawn controls of a group: φ of Gaussian matrices, and of Gaussian targets solved through the same weights.

use std::collections::BTreeMap;

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::super::context::Context;
use super::super::plan::{Group, Member, Pass};
use super::super::solve::{DrawnMatrices, KeptSpace, SolvedLayer, drawn_matrices};
use super::pairs::{Cells, Draws, PairDraws, PairMeasures};
use crate::controls::{Control, Factor, draw};
use crate::conversion::Equation;
use crate::error::Result;
use crate::linalg::subspace::SubspaceBasis;
use crate::measures::{AllCka, centred};
use crate::similarity::AllPairs;
use crate::terms::MatrixKind;

/// What a control depends on besides the base weights.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ControlKey {
    /// Which of the group's layers.
    layers: Vec<usize>,
    /// The rank of each.
    ranks: Vec<usize>,
    ij: Vec<(usize, usize)>,
}

/// What is drawn once for all members with the same layers and ranks.
pub(crate) struct Controls {
    pub(crate) gaussian: ControlDraws,
    pub(crate) w0: ControlDraws,
}

/// The draws of one control.
pub(crate) struct ControlDraws {
    /// The draws by view and (i, j).
    pub(crate) by_view: Vec<Vec<PairDraws>>,
    /// The draws by matrix that CKA compares.
    pub(crate) by_cka: Vec<Draws>,
}

/// The measures of one draw, indexed like [`ControlDraws`].
struct MeasuredDraw {
    by_view: Vec<Vec<PairMeasures>>,
    by_cka: Vec<Cells>,
}

impl ControlDraws {
    /// Without any draw yet.
    fn new(context: &Context<'_>, ij: usize) -> Self {
        let of_view = || std::iter::repeat_with(PairDraws::default).take(ij).collect();
        Self {
            by_view: context.views.iter().map(|_| of_view()).collect(),
            by_cka: context.by_cka.iter().map(|_| Draws::default()).collect(),
        }
    }

    fn add(&mut self, draw: MeasuredDraw) {
        for (draws, measures) in self.by_view.iter_mut().flatten().zip(draw.by_view.into_iter().flatten()) {
            draws.add(measures);
        }
        for (draws, cells) in self.by_cka.iter_mut().zip(draw.by_cka) {
            draws.add(cells);
        }
    }
}

/// The controls of a group, as far as its passes have come.
#[derive(Default)]
pub(crate) struct GroupControls(BTreeMap<ControlKey, Controls>);

impl ControlKey {
    fn of(context: &Context<'_>, member: &Member) -> Self {
        let ij = context.pairs_for(member.ranks.iter().copied());
        Self { layers: member.at.clone(), ranks: member.ranks.clone(), ij }
    }
}

impl GroupControls {
    /// The controls that a member is compared with.
    pub(crate) fn of(&self, context: &Context<'_>, member: &Member) -> &Controls {
        let controls = self.0.get(&ControlKey::of(context, member));
        controls.unwrap_or_else(|| unreachable!("the first pass of a group makes the controls of all its members"))
    }

    /// Adds the draws of a pass.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(crate) fn add(&mut self, context: &Context<'_>, group: &Group, pass: &Pass, layers: &[SolvedLayer]) -> Result<()> {
        if self.0.is_empty() {
            let new = |ij: usize| ControlDraws::new(context, ij);
            self.0 = group
                .members
                .iter()
                .map(|member| ControlKey::of(context, member))
                .map(|key| (key.ij.len(), key))
                .map(|(ij, key)| (key, Controls { gaussian: new(ij), w0: new(ij) }))
                .collect();
        }
        let w0_draws = if context.w0_draws_of(group) > 0 { pass.draws.len() } else { 0 };
        for (key, controls) in &mut self.0 {
            let layers_and_ranks = || key.layers.iter().copied().zip(key.ranks.iter().copied());
            // Collected in the order of the draws, so that sums over them do not depend on threads.
            let gaussian: Result<Vec<_>> = pass
                .draws
                .clone()
                .into_par_iter()
                .map(|number| {
                    let drawn = layers_and_ranks().map(|(index, rank)| {
                        gaussian_matrices(context, group, (index, layers[index].kept.as_ref()), number, rank)
                    });
                    let drawn: Vec<DrawnMatrices> = drawn.collect::<Result<_>>()?;
                    measure(context, &drawn.iter().map(ViewedLayer::of).collect::<Vec<_>>(), &key.ij)
                })
                .collect();
            let w0: Result<Vec<_>> = (0..w0_draws)
                .into_par_iter()
                .map(|number| {
                    let drawn = layers_and_ranks().map(|(index, rank)| ViewedLayer::of_w0(context, &layers[index], rank, number));
                    measure(context, &drawn.collect::<Vec<_>>(), &key.ij)
                })
                .collect();
            gaussian?.into_iter().for_each(|draw| controls.gaussian.add(draw));
            w0?.into_iter().for_each(|draw| controls.w0.add(draw));
        }
        Ok(())
    }
}

/// The part of a layer that is compared in one draw, indexed like [`DrawnMatrices`].
struct ViewedLayer<'l> {
    by_view: Vec<Option<ArrayView2<'l, f64>>>,
    by_cka: Vec<Option<ArrayView2<'l, f64>>>,
}

impl<'l> ViewedLayer<'l> {
    fn of(drawn: &'l DrawnMatrices) -> Self {
        let views =
            |matrices: &'l [Option<ndarray::Array2<f64>>]| matrices.iter().map(|m| m.as_ref().map(|m| m.view())).collect();
        Self { by_view: views(&drawn.by_view), by_cka: views(&drawn.by_cka) }
    }

    /// A draw of the `w0` control at one layer; the factors themselves do not depend on W0 and stay empty. So does a whole layer whose weight
    /// could not be read (`--keep-going`).
    fn of_w0(context: &Context<'_>, layer: &'l SolvedLayer, rank: usize, number: usize) -> Self {
        let drawn = layer.w0_draws.get(&rank).and_then(|draws| draws.get(number));
        let of_view = |view| {
            let at = context.drawn_views.iter().position(|drawn| drawn == view)?;
            drawn?.by_view[at].as_ref().map(|vectors| vectors.view())
        };
        let of_cka = |matrix| {
            let at = context.drawn_by_cka.iter().position(|drawn| drawn == matrix)?;
            drawn?.by_cka[at].as_ref().map(|matrix| matrix.view())
        };
        Self { by_view: context.views.iter().map(of_view).collect(), by_cka: context.by_cka.iter().map(of_cka).collect() }
    }
}

/// All measures of all pairs of layers of one draw.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
fn measure(context: &Context<'_>, layers: &[ViewedLayer<'_>], ij: &[(usize, usize)]) -> Result<MeasuredDraw> {
    let count = layers.len();
    let of_view = |view: usize| -> Result<Vec<PairMeasures>> {
        let pairs = AllPairs::of(&layers.iter().map(|layer| layer.by_view[view]).collect::<Vec<_>>());
        ij.iter().map(|&ij| PairMeasures::of(&pairs, count, ij, context.measures())).collect()
    };
    let of_cka = |matrix: usize| -> Cells {
        let all = AllCka::of(&layers.iter().map(|layer| layer.by_cka[matrix]).collect::<Vec<_>>());
        (0..count * count).map(|cell| all.cka(cell / count, cell % count)).collect()
    };
    Ok(MeasuredDraw {
        by_view: (0..context.views.len()).map(of_view).collect::<Result<_>>()?,
        by_cka: (0..context.by_cka.len()).map(of_cka).collect(),
    })
}

/// Gaussian matrices in place of every matrix of one layer: those of Θ within what is kept of W0, where that is not all of it.
fn gaussian_matrices(
    context: &Context<'_>,
    group: &Group,
    (index, kept): (usize, Option<&KeptSpace>),
    number: usize,
    rank: usize,
) -> Result<DrawnMatrices> {
    let layer = &group.layers[index];
    let gaussian = |factor, length| draw(context.seed(), Control::Gaussian, &layer.stream(), factor, number, length, rank);
    let theta = |factor, equation, length| match kept.map(|kept| kept.home(equation)) {
        Some(home) => home.dot(&gaussian(factor, home.ncols())),
        None => gaussian(factor, length),
    };
    let equation_a = group.equation_a();
    let length_a = if equation_a == Equation::W0 { layer.d_in } else { layer.d_out };
    let a_transposed = gaussian(Factor::A, layer.d_in);
    let theta_a = (kept.is_some() || length_a != layer.d_in).then(|| theta(Factor::A, equation_a, length_a));
    let theta_a = theta_a.as_ref().unwrap_or(&a_transposed);
    let theta_b = theta(Factor::B, Equation::W0, layer.d_in);
    let wanted = context.wanted();
    let mut drawn = drawn_matrices(&wanted, theta_a.view(), theta_b.view(), a_transposed.view())?;
    for (vectors, view) in drawn.by_view.iter_mut().zip(&context.views) {
        let of = |matrix: ArrayView2<'_, f64>| -> Result<_> {
            let basis = SubspaceBasis::of(matrix)?;
            Ok(Some(basis.left().slice(s![.., ..wanted.most_of(rank)]).to_owned()))
        };
        match view.matrix {
            MatrixKind::LoraA | MatrixKind::LearnedA => *vectors = of(a_transposed.view())?,
            MatrixKind::LoraB => *vectors = of(gaussian(Factor::B, layer.d_out).view())?,
            MatrixKind::A | MatrixKind::B | MatrixKind::BA => {}
        }
    }
    for (whole, kind) in drawn.by_cka.iter_mut().zip(&context.by_cka) {
        match kind {
            MatrixKind::LoraA | MatrixKind::LearnedA => *whole = centred(a_transposed.view()).map(|centred| centred.values),
            MatrixKind::LoraB => *whole = centred(gaussian(Factor::B, layer.d_out).view()).map(|centred| centred.values),
            MatrixKind::A | MatrixKind::B | MatrixKind::BA => {}
        }
    }
    Ok(drawn)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ndarray::{Array2, array};

    /// Controls without any draw.
    pub(crate) fn no_controls() -> Controls {
        let none = || ControlDraws { by_view: Vec::new(), by_cka: Vec::new() };
        Controls { gaussian: none(), w0: none() }
    }

    #[test]
    fn draws_are_kept_by_view_and_numbers() {
        let measures = |value: f64| PairMeasures { phi: vec![Some(value)], cosines: Some([0, 1, 2].map(|_| vec![Some(value)])) };
        let mut draws =
            ControlDraws { by_view: vec![vec![PairDraws::default(), PairDraws::default()]], by_cka: vec![Draws::default()] };
        for value in [0.2, 0.4] {
            draws
                .add(MeasuredDraw { by_view: vec![vec![measures(value), measures(1.0)]], by_cka: vec![vec![Some(0.5 * value)]] });
        }
        assert!((draws.by_view[0][0].phi.moments(0).0.unwrap() - 0.3).abs() < 1e-15);
        assert!((draws.by_view[0][0].cosines[2].moments(0).0.unwrap() - 0.3).abs() < 1e-15);
        assert_eq!(draws.by_view[0][1].phi.moments(0), (Some(1.0), Some(0.0)));
        assert!((draws.by_cka[0].moments(0).0.unwrap() - 0.15).abs() < 1e-15);
    }

    #[test]
    fn a_layer_is_seen_as_it_was_drawn() {
        let e = Array2::<f64>::eye(3);
        let drawn = DrawnMatrices { by_view: vec![Some(e), None], by_cka: vec![Some(array![[1.0], [-1.0]])] };
        let viewed = ViewedLayer::of(&drawn);
        assert_eq!(viewed.by_view.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        assert_eq!(viewed.by_cka[0].unwrap().nrows(), 2);
    }
}
