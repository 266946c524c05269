//! The same layer of different adapters: the rows of `across.csv`.

use ndarray::ArrayView2;

use super::super::context::Context;
use super::super::params::View;
use super::super::plan::Group;
use super::solved::MemberLayer;
use crate::layer_matrix::{LayerMatrix, PairValue, cell_status, has_phi};
use crate::similarity::{AllPairs, expected_by_chance};
use crate::table::AcrossRow;

/// All ordered pairs of a group's members at layer `index`, diagonal included; `members` is parallel to the group's.
pub(crate) fn rows(context: &Context<'_>, group: &Group, index: usize, members: &[Option<MemberLayer>]) -> Vec<AcrossRow> {
    let ij = context.pairs_for(group.members.iter().flat_map(|member| member.ranks.iter().copied()));
    let mut rows = Vec::new();
    for &view in &context.views {
        let present: Vec<(&str, &LayerMatrix)> = group
            .members
            .iter()
            .zip(members)
            .filter_map(|(member, layer)| {
                let name = context.plan.adapters[member.adapter].adapter.name.as_str();
                Some((name, layer.as_ref()?.matrix(view.matrix)))
            })
            .collect();
        let vectors: Vec<Option<ArrayView2<'_, f64>>> = present.iter().map(|(_, matrix)| matrix.vectors(view.side)).collect();
        let pairs = AllPairs::of(&vectors);
        let layer_view = LayerView { group, index, view, present: &present, vectors: &vectors, pairs: &pairs };
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
    group: &'a Group,
    index: usize,
    view: View,
    present: &'a [(&'a str, &'a LayerMatrix)],
    vectors: &'a [Option<ArrayView2<'a, f64>>],
    pairs: &'a AllPairs,
}

impl LayerView<'_> {
    fn row(&self, i: usize, j: usize, a: usize, b: usize) -> AcrossRow {
        let ((adapter_a, x), (adapter_b, y)) = (self.present[a], self.present[b]);
        let phi = self.pairs.phi(a, b, i, j);
        let (status, _) =
            cell_status([x, y], self.view.side, (i, j), PairValue::of(phi, None), self.pairs.differ_in_length(a, b));
        let length = self.vectors[a].map_or(0, |vectors| vectors.nrows());
        AcrossRow {
            module: self.group.name.clone(),
            layer: self.group.layers[self.index].layer,
            matrix: self.view.matrix,
            side: self.view.side,
            i,
            j,
            adapter_a: adapter_a.to_owned(),
            adapter_b: adapter_b.to_owned(),
            phi: phi.filter(|_| has_phi(status)),
            gaussian_expected: if has_phi(status) { expected_by_chance(i, j, length) } else { None },
            status,
        }
    }
}
