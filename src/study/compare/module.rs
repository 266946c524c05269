//! One adapter's module: its layers, and the controls that they are compared with.

use super::super::context::Context;
use super::super::params::View;
use super::super::plan::{Group, Member};
use super::super::solve::MemberLayer;
use super::controls::Controls;
use crate::layer_matrix::LayerMatrix;
use crate::similarity::AllPairs;

/// One adapter's module.
pub(crate) struct Module<'a> {
    pub(crate) adapter: &'a str,
    pub(crate) name: &'a str,
    pub(crate) layers: Vec<&'a MemberLayer>,
    /// How many vectors each layer can have.
    pub(crate) ranks: &'a [usize],
    /// The index of each layer. None outside any repeated container: that is one weight, which has no other to compare with.
    numbers: Option<Vec<u32>>,
    /// The (i, j) compared.
    pub(crate) ij: Vec<(usize, usize)>,
    pub(crate) controls: &'a Controls,
}

impl<'a> Module<'a> {
    pub(crate) fn new(
        context: &'a Context<'_>,
        group: &Group,
        member: &'a Member,
        layers: Vec<&'a MemberLayer>,
        controls: &'a Controls,
    ) -> Self {
        let planned = &context.plan.adapters[member.adapter];
        Self {
            adapter: &planned.adapter.name,
            name: &planned.modules[member.module].name,
            layers,
            ranks: &member.ranks,
            numbers: member.at.iter().map(|&at| group.layers[at].layer).collect(),
            ij: context.pairs_for(member.ranks.iter().copied()),
            controls,
        }
    }

    /// Whether its layers can be compared.
    pub(crate) fn is_comparable(&self) -> bool {
        self.numbers.is_some()
    }

    /// The index of layer `k` of a module whose layers can be compared.
    pub(crate) fn number(&self, k: usize) -> u32 {
        self.numbers.as_ref().map_or_else(|| unreachable!("layers without an index are not compared"), |numbers| numbers[k])
    }

    /// Its layers as seen in one view.
    pub(crate) fn view(&self, view: View) -> ModuleView<'_> {
        let matrices: Vec<&LayerMatrix> = self.layers.iter().map(|layer| layer.matrix(view.matrix)).collect();
        let pairs = AllPairs::of(&matrices.iter().map(|matrix| matrix.vectors(view.side)).collect::<Vec<_>>());
        ModuleView { module: self, view, matrices, pairs }
    }
}

/// One view of a module.
pub(crate) struct ModuleView<'a> {
    pub(crate) module: &'a Module<'a>,
    pub(crate) view: View,
    /// The matrices, by layer.
    pub(crate) matrices: Vec<&'a LayerMatrix>,
    /// The inner products of all their vectors.
    pub(crate) pairs: AllPairs,
}

impl ModuleView<'_> {
    /// The length of a layer's vectors; none where it has none.
    pub(crate) fn length(&self, k: usize) -> Option<usize> {
        self.matrices[k].vectors(self.view.side).map(|vectors| vectors.nrows())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::layer_matrix::LayerMatrix;
    use crate::linalg::subspace::SubspaceBasis;
    use crate::table::ConversionRow;
    use crate::terms::{Convention, MatrixKind, Method, Side, Status};
    use ndarray::Array2;
    use std::collections::BTreeMap;

    pub(crate) const VIEW: View = View { matrix: MatrixKind::B, side: Side::Left };

    /// A layer with these values as its only matrix.
    pub(crate) fn layer(values: &Array2<f64>) -> MemberLayer {
        let basis = values.iter().any(|v| *v != 0.0).then(|| SubspaceBasis::of(values.view()).unwrap());
        let conversion = ConversionRow {
            adapter: "adapter".into(),
            module: "query".into(),
            layer: Some(0),
            adapter_key: "query".into(),
            tensor: "query.weight".into(),
            out_features: values.nrows(),
            in_features: values.nrows(),
            rank: values.ncols(),
            scaling: 1.0,
            convention: Convention::Paper,
            method: Method::Lu,
            w0_dtype: "F32".into(),
            adapter_dtype: "F32".into(),
            w0_rank: values.nrows(),
            w0_condition: None,
            residual_a: None,
            residual_b: None,
            backward_error_a: None,
            backward_error_b: None,
            norm_a: 1.0,
            norm_b: 1.0,
            norm_delta: 1.0,
            status: Status::Ok,
        };
        let matrices = BTreeMap::from([(MatrixKind::B, LayerMatrix::without_w0(basis, 1.0, values.nrows()))]);
        MemberLayer { conversion, matrices, untrained: BTreeMap::new() }
    }

    /// A module of such layers, compared by their first vectors.
    pub(crate) fn module<'a>(
        layers: &'a [MemberLayer],
        ranks: &'a [usize],
        numbers: Option<Vec<u32>>,
        controls: &'a Controls,
    ) -> Module<'a> {
        let layers = layers.iter().collect();
        Module { adapter: "adapter", name: "query", layers, ranks, numbers, ij: vec![(1, 1)], controls }
    }
}
