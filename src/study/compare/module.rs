//! One adapter's module: its layers, and the controls that they are compared with.

use super::super::context::Context;
use super::super::params::View;
use super::super::plan::{Group, Member, equation_of};
use super::super::solve::{KeptSpace, MemberLayer};
use super::controls::Controls;
use crate::conversion::Equation;
use crate::layer_matrix::LayerMatrix;
use crate::similarity::{AllPairs, expected_by_chance};
use crate::terms::{LayerId, Side};
use ndarray::Array2;

/// One adapter's module.
pub(crate) struct Module<'a> {
    pub(crate) adapter: &'a str,
    pub(crate) name: &'a str,
    pub(crate) layers: Vec<&'a MemberLayer>,
    /// How many vectors each layer can have.
    pub(crate) ranks: &'a [usize],
    /// The index of each layer. None outside any repeated container: that is one weight, which has no other to compare with.
    numbers: Option<Vec<LayerId>>,
    /// The (i, j) compared.
    pub(crate) ij: Vec<(usize, usize)>,
    pub(crate) controls: &'a Controls,
    /// The equations of its Θ_A; with `kept`, what chance depends on.
    equation_a: Equation,
    kept: Option<KeptShares>,
}

/// How much of one layer's kept singular vectors lies in another's: `‖V_aᵀ·V_b‖_F²/(k_a·k_b)` for all pairs of layers. Where all of them are kept
/// this is 1/D.
pub(crate) struct KeptShares {
    left: Array2<f64>,
    right: Array2<f64>,
}

impl KeptShares {
    /// None where not every layer has such a space.
    pub(crate) fn of<'k>(layers: impl Iterator<Item = Option<&'k KeptSpace>>) -> Option<Self> {
        let layers: Vec<&KeptSpace> = layers.collect::<Option<_>>()?;
        let shares = |side: fn(&KeptSpace) -> &Array2<f64>| {
            Array2::from_shape_fn((layers.len(), layers.len()), |(a, b)| {
                let (x, y) = (side(layers[a]), side(layers[b]));
                if x.nrows() != y.nrows() || x.is_empty() || y.is_empty() {
                    return f64::NAN;
                }
                let shared: f64 = x.t().dot(y).iter().map(|v| v * v).sum();
                shared / (x.ncols() * y.ncols()) as f64
            })
        };
        Some(Self { left: shares(|kept| &kept.left), right: shares(|kept| &kept.right) })
    }
}

impl<'a> Module<'a> {
    pub(crate) fn new(
        context: &'a Context<'_>,
        group: &Group,
        member: &'a Member,
        layers: Vec<&'a MemberLayer>,
        controls: &'a Controls,
        kept: Option<KeptShares>,
    ) -> Self {
        let planned = &context.plan.adapters[member.adapter];
        Self {
            adapter: &planned.adapter.name,
            name: &planned.modules[member.module].name,
            layers,
            ranks: &member.ranks,
            numbers: member.at.iter().map(|&at| group.layers[at].layer.clone()).collect(),
            ij: context.pairs_for(member.ranks.iter().copied()),
            controls,
            equation_a: group.equation_a(),
            kept,
        }
    }

    /// Whether its layers can be compared.
    pub(crate) fn is_comparable(&self) -> bool {
        self.numbers.is_some()
    }

    /// The index of layer `k` of a module whose layers can be compared.
    pub(crate) fn number(&self, k: usize) -> &LayerId {
        self.numbers.as_ref().map_or_else(|| unreachable!("layers without an index are not compared"), |numbers| &numbers[k])
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
    /// The expected φ of random subspaces where these layers' vectors can lie; none where one has none.
    pub(crate) fn chance(&self, (a, b): (usize, usize), (i, j): (usize, usize)) -> Option<f64> {
        let length = self.matrices[a].vectors(self.view.side)?.nrows();
        let equation = equation_of(self.view.matrix, self.module.equation_a);
        match equation.zip(self.module.kept.as_ref()).filter(|_| self.view.side == Side::Left) {
            Some((equation, kept)) => {
                let share = if equation == Equation::W0 { kept.right[(a, b)] } else { kept.left[(a, b)] };
                Some((i.max(j) as f64 * share).min(1.0)).filter(|chance| chance.is_finite())
            }
            None => expected_by_chance(i, j, length),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::layer_matrix::LayerMatrix;
    use crate::linalg::subspace::SubspaceBasis;
    use crate::table::ConversionRow;
    use crate::terms::{Convention, MatrixKind, Method, Status};
    use std::collections::BTreeMap;

    pub(crate) const VIEW: View = View { matrix: MatrixKind::B, side: Side::Left };

    /// A layer with these values as its only matrix.
    pub(crate) fn layer(values: &Array2<f64>) -> MemberLayer {
        let basis = values.iter().any(|v| *v != 0.0).then(|| SubspaceBasis::of(values.view()).unwrap());
        let conversion = ConversionRow {
            adapter: "adapter".into(),
            module: "query".into(),
            layer: Some(0.into()),
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
            norm_a: Some(1.0),
            norm_b: Some(1.0),
            norm_delta: Some(1.0),
            status: Status::Ok,
        };
        let matrices = BTreeMap::from([(MatrixKind::B, LayerMatrix::without_w0(basis, 1.0, values.nrows()))]);
        MemberLayer { conversion, matrices, untrained: BTreeMap::new(), images: None, made: None }
    }

    /// A module of such layers, compared by their first vectors.
    pub(crate) fn module<'a>(
        layers: &'a [MemberLayer],
        ranks: &'a [usize],
        numbers: Option<Vec<LayerId>>,
        controls: &'a Controls,
    ) -> Module<'a> {
        let layers = layers.iter().collect();
        let (ij, equation_a) = (vec![(1, 1)], Equation::W0);
        Module { adapter: "adapter", name: "query", layers, ranks, numbers, ij, controls, equation_a, kept: None }
    }
}
