//! From the vectors of all layers to the rows of the tables: φ of every pair, what the controls give, and how far to trust it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::Context;
use super::layer::{LayerMatrix, SolvedLayer, drawn_vectors, with_confidence};
use super::params::View;
use super::plan::Group;
use crate::controls::{Control, Factor, draw, mean_and_sd, p_value, z_score};
use crate::error::Result;
use crate::linalg::subspace::SubspaceBasis;
use crate::similarity::{AllPairs, expected_by_chance};
use crate::table::{SimilarityRow, SpectrumRow, SummaryRow, Tables};
use crate::terms::{Convention, MatrixKind, Status};

/// φ of all ordered pairs of layers, row by row.
type Cells = Vec<Option<f64>>;

/// For each draw, the cells of one view and (i, j).
type Draws = Vec<Cells>;

/// Draws of one control, by view and (i, j).
type ControlDraws = Vec<Vec<Draws>>;

/// What a control depends on besides the base weights: the rank of each layer and the (i, j) compared.
type Drawn = (Vec<usize>, Vec<(usize, usize)>);

/// What is drawn once for all members with the same ranks.
struct Controls {
    gaussian: ControlDraws,
    w0: ControlDraws,
}

/// The rows of every member of a group, in the group's order.
pub(super) fn compare_group(context: &Context<'_>, group: &Group, layers: &[SolvedLayer]) -> Result<Vec<Tables>> {
    context.clock.similarity.time(|| {
        let mut known: BTreeMap<Drawn, Controls> = BTreeMap::new();
        let mut out = Vec::with_capacity(group.members.len());
        for (member, &(adapter, module)) in group.members.iter().enumerate() {
            let ranks: Vec<usize> = layers.iter().map(|l| l.members[member].rank).collect();
            let ij = context.pairs_for(&ranks);
            let controls = match known.entry((ranks, ij.clone())) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let drawn = Controls::draw(context, group, layers, &entry.key().0, &ij)?;
                    entry.insert(drawn)
                }
            };
            let planned = &context.plan.adapters[adapter];
            let grid = Grid {
                context,
                group,
                layers,
                member,
                adapter: &planned.adapter.name,
                module: &planned.modules[module].name,
                ij: &ij,
                controls,
            };
            out.push(grid.rows());
        }
        Ok(out)
    })
}

impl Controls {
    fn draw(
        context: &Context<'_>,
        group: &Group,
        layers: &[SolvedLayer],
        ranks: &[usize],
        ij: &[(usize, usize)],
    ) -> Result<Self> {
        let draws = if group.is_grid() { context.draws() } else { 0 };
        let views = context.config.views();
        let gaussian: Result<Vec<_>> = (0..draws)
            .into_par_iter()
            .map(|number| {
                let bases: Result<Vec<_>> = (0..layers.len())
                    .map(|index| gaussian_vectors(context, group, index, number, ranks[index], &views))
                    .collect();
                Ok(cells_of(&bases?, views.len(), ij))
            })
            .collect();
        let drawn = context.drawn_views();
        let w0: Vec<_> = (0..if drawn.is_empty() { 0 } else { draws })
            .into_par_iter()
            .map(|number| {
                let bases: Vec<_> = layers
                    .iter()
                    .zip(ranks)
                    .map(|(layer, rank)| {
                        let vectors = layer.w0_draws.get(rank).and_then(|draws| draws.get(number));
                        // The factors themselves have no W0 in them: their views stay empty.
                        views.iter().map(|view| vectors?.get(drawn.iter().position(|d| d == view)?)?.clone()).collect()
                    })
                    .collect();
                cells_of(&bases, views.len(), ij)
            })
            .collect();
        Ok(Self { gaussian: by_view(gaussian?, views.len(), ij.len()), w0: by_view(w0, views.len(), ij.len()) })
    }
}

/// Turns draw × view × (i, j) into view × (i, j) × draw.
fn by_view(draws: Vec<Vec<Vec<Cells>>>, views: usize, pairs: usize) -> ControlDraws {
    let mut out = vec![vec![Vec::with_capacity(draws.len()); pairs]; views];
    for draw in draws {
        for (view, cells) in draw.into_iter().enumerate() {
            for (pair, cells) in cells.into_iter().enumerate() {
                out[view][pair].push(cells);
            }
        }
    }
    out
}

/// All cells of every view and (i, j) from the vectors of each layer.
fn cells_of(bases: &[Vec<Option<Array2<f64>>>], views: usize, ij: &[(usize, usize)]) -> Vec<Vec<Cells>> {
    (0..views)
        .map(|view| {
            let vectors: Vec<_> = bases.iter().map(|layer| layer.get(view).and_then(|v| v.as_ref().map(|m| m.view()))).collect();
            let pairs = AllPairs::of(&vectors);
            ij.iter().map(|&(i, j)| all_cells(&pairs, bases.len(), i, j)).collect()
        })
        .collect()
}

fn all_cells(pairs: &AllPairs, layers: usize, i: usize, j: usize) -> Cells {
    (0..layers * layers).map(|cell| pairs.phi(cell / layers, cell % layers, i, j)).collect()
}

/// Gaussian matrices in place of every matrix of one layer.
fn gaussian_vectors(
    context: &Context<'_>,
    group: &Group,
    index: usize,
    number: usize,
    rank: usize,
    views: &[View],
) -> Result<Vec<Option<Array2<f64>>>> {
    let layer = &group.layers[index];
    let gaussian = |factor, length| draw(context.seed(), Control::Gaussian, &layer.stream(), factor, number, length, rank);
    let length_a = if group.convention == Convention::Paper { layer.d_in } else { layer.d_out };
    let a_transposed = gaussian(Factor::A, layer.d_in);
    let theta_a = if length_a == layer.d_in { a_transposed.clone() } else { gaussian(Factor::A, length_a) };
    let theta_b = gaussian(Factor::B, layer.d_in);
    let most = context.most_vectors(rank);
    let mut vectors = drawn_vectors(views, &theta_a, &theta_b, &a_transposed, most)?;
    for (slot, view) in vectors.iter_mut().zip(views) {
        let of = |matrix: ArrayView2<'_, f64>| -> Result<_> {
            let basis = SubspaceBasis::of(matrix)?;
            Ok(Some(basis.left().slice(ndarray::s![.., ..most]).to_owned()))
        };
        match view.matrix {
            MatrixKind::LoraA => *slot = of(a_transposed.view())?,
            MatrixKind::LoraB => *slot = of(gaussian(Factor::B, layer.d_out).view())?,
            _ => {}
        }
    }
    Ok(vectors)
}

/// One member's module: its layers against one another.
struct Grid<'a> {
    context: &'a Context<'a>,
    group: &'a Group,
    layers: &'a [SolvedLayer],
    member: usize,
    adapter: &'a str,
    module: &'a str,
    ij: &'a [(usize, usize)],
    controls: &'a Controls,
}

impl Grid<'_> {
    fn rows(&self) -> Tables {
        let mut tables = Tables::default();
        tables.conversion.extend(self.layers.iter().map(|l| l.members[self.member].conversion.clone()));
        for (v, view) in self.context.config.views().into_iter().enumerate() {
            let observed: Vec<&LayerMatrix> =
                self.layers.iter().filter_map(|l| find(&l.members[self.member].matrices, view.matrix)).collect();
            let initial: Vec<Option<&LayerMatrix>> =
                self.layers.iter().map(|l| find(&l.members[self.member].init, view.matrix)).collect();
            let pairs = AllPairs::of(&observed.iter().map(|m| m.vectors(view.side)).collect::<Vec<_>>());
            let init_pairs = AllPairs::of(&initial.iter().map(|m| m.and_then(|m| m.vectors(view.side))).collect::<Vec<_>>());
            for (p, &(i, j)) in self.ij.iter().enumerate() {
                let draws = (&self.controls.gaussian[v][p], &self.controls.w0[v][p]);
                let cells = ViewCells {
                    grid: self,
                    view,
                    i,
                    j,
                    observed: &observed,
                    pairs: &pairs,
                    initial: &initial,
                    init_pairs: &init_pairs,
                    draws,
                };
                cells.add_rows(&mut tables);
            }
        }
        for &matrix in &self.context.config.params().matrices {
            for (layer, solved) in self.group.layers.iter().zip(self.layers) {
                let basis = find(&solved.members[self.member].matrices, matrix).and_then(|m| m.basis.as_ref());
                for (k, &sigma) in basis.filter(|_| !matrix.is_factor()).map_or(&[][..], SubspaceBasis::sigma).iter().enumerate()
                {
                    tables.spectrum.push(SpectrumRow {
                        adapter: self.adapter.to_owned(),
                        module: self.module.to_owned(),
                        matrix,
                        layer: layer.layer,
                        k: k + 1,
                        sigma,
                    });
                }
            }
        }
        tables
    }
}

fn find(matrices: &[(MatrixKind, LayerMatrix)], kind: MatrixKind) -> Option<&LayerMatrix> {
    matrices.iter().find(|(k, _)| *k == kind).map(|(_, m)| m)
}

/// One view and (i, j) of a grid.
struct ViewCells<'a> {
    grid: &'a Grid<'a>,
    view: View,
    i: usize,
    j: usize,
    observed: &'a [&'a LayerMatrix],
    pairs: &'a AllPairs,
    initial: &'a [Option<&'a LayerMatrix>],
    init_pairs: &'a AllPairs,
    draws: (&'a Draws, &'a Draws),
}

impl ViewCells<'_> {
    fn add_rows(&self, tables: &mut Tables) {
        let count = self.observed.len();
        let first = tables.similarity.len();
        if self.grid.group.is_grid() {
            for a in 0..count {
                for b in 0..count {
                    let row = self.cell(a, b);
                    tables.similarity.push(row);
                }
            }
        }
        let summary = self.summary(&tables.similarity[first..]);
        tables.summary.push(summary);
    }

    fn cell(&self, a: usize, b: usize) -> SimilarityRow {
        let (x, y) = (self.observed[a], self.observed[b]);
        let (status_a, status_b) = (x.status(self.i), y.status(self.j));
        let bound = (x.error(self.i) + y.error(self.j)).min(1.0);
        let status = if self.pairs.differ_in_length(a, b) {
            Status::Skipped
        } else if let Some(without) = [status_a, status_b].into_iter().filter(|s| matches!(s, Status::Zero | Status::Rank)).min()
        {
            // One of the two has no vectors to compare: that is what the empty cell has to say.
            without
        } else {
            with_confidence(status_a.worse(status_b), bound)
        };
        let phi = match status {
            Status::Skipped | Status::Zero | Status::Rank => None,
            _ => self.pairs.phi(a, b, self.i, self.j),
        };
        let cell = a * self.observed.len() + b;
        let moments = |draws: &Draws| mean_and_sd(&draws.iter().filter_map(|cells| cells[cell]).collect::<Vec<_>>());
        let (gaussian_mean, gaussian_sd) = moments(self.draws.0);
        let (w0_mean, w0_sd) = moments(self.draws.1);
        let layer = |index: usize| self.grid.group.layers[index].layer.unwrap_or_default();
        SimilarityRow {
            adapter: self.grid.adapter.to_owned(),
            module: self.grid.module.to_owned(),
            matrix: self.view.matrix,
            side: self.view.side,
            i: self.i,
            j: self.j,
            layer_a: layer(a),
            layer_b: layer(b),
            phi,
            phi_error_bound: phi.map(|_| bound),
            gaussian_mean,
            gaussian_sd,
            w0_mean,
            w0_sd,
            init: self.init_cell(a, b),
            status,
        }
    }

    fn init_cell(&self, a: usize, b: usize) -> Option<f64> {
        let usable = |index: usize, size: usize| {
            self.initial[index].is_some_and(|m| !matches!(m.status(size), Status::Zero | Status::Rank))
        };
        if usable(a, self.i) && usable(b, self.j) { self.init_pairs.phi(a, b, self.i, self.j) } else { None }
    }

    fn summary(&self, cells: &[SimilarityRow]) -> SummaryRow {
        let count = self.observed.len();
        // Cells are in row order: cell n is (n / count, n % count); averages run over layer_a < layer_b.
        let upper: Vec<usize> = (0..cells.len()).filter(|n| n / count < n % count && cells[*n].phi.is_some()).collect();
        let values: Vec<f64> = upper.iter().filter_map(|&n| cells[n].phi).collect();
        let phi_mean = mean_and_sd(&values).0;
        let averages = |draws: &Draws| -> Vec<f64> {
            draws.iter().filter_map(|cells| mean_and_sd(&upper.iter().filter_map(|&n| cells[n]).collect::<Vec<_>>()).0).collect()
        };
        let (gaussian, w0) = (averages(self.draws.0), averages(self.draws.1));
        let (gaussian_mean, gaussian_sd) = mean_and_sd(&gaussian);
        let (w0_mean, w0_sd) = mean_and_sd(&w0);
        let length = |index: usize| self.observed[index].vectors(self.view.side).map(|v| v.nrows());
        let expected: Vec<f64> = upper.iter().filter_map(|n| expected_by_chance(self.i, self.j, length(n / count)?)).collect();
        // Where the vectors span their whole space in every pair, φ is 1 by construction and there is nothing to test.
        let by_construction = !expected.is_empty() && expected.iter().all(|&e| e == 1.0);
        let has_phi = |index: usize| cells.get(index * count + index).is_some_and(|c| c.phi.is_some());
        let init: Vec<f64> = (0..cells.len()).filter(|n| n / count < n % count).filter_map(|n| cells[n].init).collect();
        let status = cells.iter().map(|c| c.status).fold(Status::Ok, Status::worse);
        SummaryRow {
            adapter: self.grid.adapter.to_owned(),
            module: self.grid.module.to_owned(),
            matrix: self.view.matrix,
            side: self.view.side,
            i: self.i,
            j: self.j,
            layers: (0..count).filter(|&n| has_phi(n)).count(),
            phi_mean,
            phi_min: values.iter().copied().reduce(f64::min),
            phi_max: values.iter().copied().reduce(f64::max),
            gaussian_expected: mean_and_sd(&expected).0,
            gaussian_mean,
            gaussian_sd,
            w0_mean,
            w0_sd,
            w0_z: phi_mean.filter(|_| !by_construction).and_then(|phi| z_score(phi, w0_mean, w0_sd)),
            w0_p: phi_mean.filter(|_| !by_construction).and_then(|phi| p_value(phi, &w0)),
            init_mean: mean_and_sd(&init).0,
            // A module outside any repeated container has nothing to be compared with.
            status: if self.grid.group.is_grid() { status } else { Status::Skipped },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_row_by_row_and_draws_by_view() {
        let e = Array2::<f64>::eye(3);
        let of = |column: usize| vec![Some(e.slice(ndarray::s![.., column..=column]).to_owned()), None];
        let draw = cells_of(&[of(0), of(1)], 2, &[(1, 1)]);
        assert_eq!(draw[0][0], [Some(1.0), Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!(draw[1][0], [None; 4]);
        let turned = by_view(vec![draw.clone(), draw], 2, 1);
        assert_eq!((turned.len(), turned[0].len(), turned[0][0].len()), (2, 1, 2));
    }
}
