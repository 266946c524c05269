//! The same layer of different adapters: the rows of `across.csv`.

use ndarray::ArrayView2;

use super::super::context::Context;
use super::super::params::View;
use super::super::plan::{Group, equations, only_rank};
use super::solved::SolvedLayer;
use super::weight::KnownWeight;
use crate::error::Result;
use crate::layer_matrix::{LayerMatrix, PairValue, cell_status, has_phi};
use crate::relation::{BaseLayer, leverages};
use crate::similarity::{AllPairs, expected_by_chance};
use crate::table::AcrossRow;
use crate::terms::Side;

/// All ordered pairs of a group's members at layer `index`, diagonal included, with what φ is expected to be; `solved` has all of the group's members.
///
/// # Errors
/// [`crate::Error::Lapack`] if a QR fails.
pub(crate) fn across_rows(
    context: &Context<'_>,
    group: &Group,
    index: usize,
    solved: &SolvedLayer,
    known: Option<&KnownWeight>,
) -> Result<Vec<AcrossRow>> {
    let mut rows = rows(context, group, index, solved);
    if let Some(known) = known {
        expect(context, group, index, &known.base(), &mut rows)?;
    }
    Ok(rows)
}

/// Writes the expected φ of the left vectors of two adapters into their rows, where all have one rank here.
fn expect(context: &Context<'_>, group: &Group, index: usize, base: &BaseLayer<'_>, rows: &mut [AcrossRow]) -> Result<()> {
    let ranks: Vec<usize> = group.members.iter().filter_map(|member| Some(member.ranks[member.position(index)?])).collect();
    let Some(rank) = only_rank(&ranks).filter(|_| ranks.len() > 1) else { return Ok(()) };
    for (equation, matrices) in equations(group) {
        let Some(d) = leverages(base, equation, rank, context.seed())? else { continue };
        let expected = d.iter().map(|d| d * d).sum::<f64>() / rank as f64;
        let is_it = |row: &&mut AcrossRow| {
            let ends = (row.side, row.i, row.j) == (Side::Left, rank, rank) && row.adapter_a != row.adapter_b;
            ends && matrices.contains(&row.matrix)
        };
        for row in rows.iter_mut().filter(is_it) {
            row.w0_expected = row.phi.map(|_| expected);
        }
    }
    Ok(())
}

fn rows(context: &Context<'_>, group: &Group, index: usize, solved: &SolvedLayer) -> Vec<AcrossRow> {
    let ij = context.pairs_for(group.members.iter().flat_map(|member| member.ranks.iter().copied()));
    let mut rows = Vec::new();
    for &view in &context.views {
        let present: Vec<(&str, &LayerMatrix)> = group
            .members
            .iter()
            .zip(&solved.members)
            .filter_map(|(member, layer)| {
                let name = context.plan.adapters[member.adapter].adapter.name.as_str();
                Some((name, layer.as_ref()?.matrix(view.matrix)))
            })
            .collect();
        let untrained: Vec<Option<&LayerMatrix>> =
            solved.members.iter().flatten().map(|layer| layer.untrained.get(&view.matrix)).collect();
        let of_untrained = || untrained.iter().map(|matrix| matrix.and_then(|matrix| matrix.vectors(view.side)));
        let init = of_untrained().any(|vectors| vectors.is_some()).then(|| AllPairs::of(&of_untrained().collect::<Vec<_>>()));
        let vectors: Vec<Option<ArrayView2<'_, f64>>> = present.iter().map(|(_, matrix)| matrix.vectors(view.side)).collect();
        let pairs = AllPairs::of(&vectors);
        // Both Θ lie in what is kept of the one W0.
        let kept = group.equation(view.matrix).filter(|_| view.side == Side::Left).zip(solved.kept.as_ref());
        let space = kept.map(|(equation, kept)| kept.home(equation).ncols());
        let layer_view = LayerView {
            space,
            untrained: &untrained,
            init: init.as_ref(),
            group,
            index,
            view,
            present: &present,
            vectors: &vectors,
            pairs: &pairs,
        };
        for &(i, j) in &ij {
            for a in 0..present.len() {
                rows.extend((0..present.len()).map(|b| layer_view.row(i, j, a, b)));
            }
        }
    }
    rows
}

/// One view of one layer of all adapters.
struct LayerView<'a> {
    /// The dimension of the space that the vectors can lie in, where it is not their length.
    space: Option<usize>,
    /// The untrained adapters' matrices, and all inner products of their vectors; none without untrained adapters.
    untrained: &'a [Option<&'a LayerMatrix>],
    init: Option<&'a AllPairs>,
    group: &'a Group,
    index: usize,
    view: View,
    present: &'a [(&'a str, &'a LayerMatrix)],
    vectors: &'a [Option<ArrayView2<'a, f64>>],
    pairs: &'a AllPairs,
}

impl LayerView<'_> {
    /// φ of the untrained adapters; none without them, or where one has nothing to compare.
    fn init(&self, a: usize, b: usize, (i, j): (usize, usize)) -> Option<f64> {
        let has = |layer: usize, vectors: usize| self.untrained[layer].is_some_and(|matrix| has_phi(matrix.status(vectors)));
        self.init.filter(|_| has(a, i) && has(b, j))?.phi(a, b, i, j)
    }

    fn row(&self, i: usize, j: usize, a: usize, b: usize) -> AcrossRow {
        let ((adapter_a, x), (adapter_b, y)) = (self.present[a], self.present[b]);
        let phi = self.pairs.phi(a, b, i, j);
        let (status, _) =
            cell_status([x, y], self.view.side, (i, j), PairValue::of(phi, None), self.pairs.differ_in_length(a, b));
        let length = self.space.unwrap_or_else(|| self.vectors[a].map_or(0, |vectors| vectors.nrows()));
        AcrossRow {
            module: self.group.name.clone(),
            layer: self.group.layers[self.index].layer.clone(),
            matrix: self.view.matrix,
            side: self.view.side,
            i,
            j,
            adapter_a: adapter_a.to_owned(),
            adapter_b: adapter_b.to_owned(),
            phi: phi.filter(|_| has_phi(status)),
            gaussian_expected: if has_phi(status) { expected_by_chance(i, j, length) } else { None },
            w0_expected: None,
            init: self.init(a, b, (i, j)),
            status,
        }
    }
}
