//! From the vectors of all layers to the rows of the tables: φ of every pair, what the controls give, and how far to trust it.

use ndarray::Array2;

use super::context::Context;
use super::drawn::{Controls, Draws, GroupControls};
use super::grouping::{Group, Member};
use super::layer::{MemberLayer, SolvedLayer};
use super::layer_matrix::{LayerMatrix, Seen, cell_status, has_phi, summed_errors};
use super::measured::PairMeasures;
use super::params::View;
use super::schedule::Pass;
use crate::controls::{mean_and_sd, p_value, z_score};
use crate::error::Result;
use crate::linalg::subspace::Spectrum;
use crate::similarity::{AllPairs, expected_by_chance};
use crate::table::{SimilarityRow, SpectrumRow, SummaryRow, Tables};
use crate::terms::Status;

/// Adds a pass's draws to the controls, then gives the rows of its members; members that fell out have none.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
pub(super) fn compare_pass(
    context: &Context<'_>,
    pass: &Pass,
    layers: &[SolvedLayer],
    controls: &mut GroupControls,
) -> Result<Vec<((usize, usize), Tables)>> {
    let group = &context.plan.groups[pass.group];
    context.clock.similarity.time(|| {
        controls.add(context, group, pass, layers)?;
        let mut out = Vec::with_capacity(pass.members.len());
        for (k, member) in group.members[pass.members.clone()].iter().enumerate() {
            let own: Option<Vec<&MemberLayer>> = member.at.iter().map(|&index| layers[index].members.get(k)?.as_ref()).collect();
            let (Some(layers), Some(controls)) = (own, controls.of(context, member)) else { continue };
            let planned = &context.plan.adapters[member.adapter];
            let grid = Grid {
                context,
                group,
                member,
                layers,
                adapter: &planned.adapter.name,
                module: &planned.modules[member.module].name,
                ij: &context.pairs_for(member.ranks.iter().copied()),
                controls,
            };
            out.push(((member.adapter, member.module), grid.rows()?));
        }
        Ok(out)
    })
}

/// One member's module: its layers against one another.
pub(super) struct Grid<'a> {
    context: &'a Context<'a>,
    group: &'a Group,
    member: &'a Member,
    pub(super) layers: Vec<&'a MemberLayer>,
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    ij: &'a [(usize, usize)],
    controls: &'a Controls,
}

impl Grid<'_> {
    fn rows(&self) -> Result<Tables> {
        let mut tables = Tables::default();
        let grids = self.context.views.len() * self.ij.len();
        tables.similarity.reserve_exact(if self.is_grid() { self.layers.len().pow(2) * grids } else { 0 });
        tables.summary.reserve_exact(grids);
        tables.conversion.reserve_exact(self.layers.len());
        tables.conversion.extend(self.layers.iter().map(|l| l.conversion.clone()));
        for (v, &view) in self.context.views.iter().enumerate() {
            let observed: Vec<&LayerMatrix> = self.layers.iter().filter_map(|l| l.matrix(view.matrix)).collect();
            let initial: Vec<Option<&LayerMatrix>> = self.layers.iter().map(|l| l.init(view.matrix)).collect();
            let pairs = AllPairs::of(&observed.iter().map(|m| m.vectors(view.side)).collect::<Vec<_>>());
            let init_pairs = AllPairs::of(&initial.iter().map(|m| m.and_then(|m| m.vectors(view.side))).collect::<Vec<_>>());
            let asked = &self.context.config.params().grid;
            if !asked.is_empty() && self.is_grid() {
                tables.grid.get_or_insert_default().extend(self.by_number(view, asked, &observed, &pairs));
            }
            let measures = PairMeasures::count(self.context.measures());
            let drawn = self.controls.gaussian[v].chunks_exact(measures).zip(self.controls.w0[v].chunks_exact(measures));
            let compared: Vec<usize> = if self.is_grid() { (0..observed.len()).collect() } else { Vec::new() };
            let summed = summed_errors(&observed, view.side, &pairs, &compared, self.ij);
            for ((&(i, j), summed), (gaussian, w0)) in self.ij.iter().zip(&summed).zip(drawn) {
                let draws = (&gaussian[0], &w0[0]);
                let cells = ViewCells {
                    grid: self,
                    view,
                    i,
                    j,
                    observed: &observed,
                    pairs: &pairs,
                    summed,
                    initial: &initial,
                    init_pairs: &init_pairs,
                    draws,
                };
                cells.add_rows(&mut tables);
                if self.context.measures() && self.is_grid() {
                    let rows = self.cosine_rows(view, (i, j), &observed, &pairs, (&gaussian[1..], &w0[1..]))?;
                    tables.measures.get_or_insert_default().extend(rows);
                }
            }
        }
        if self.is_grid() {
            for (k, &matrix) in self.context.by_cka.iter().enumerate() {
                let slot = self.context.views.len() + k;
                let observed: Vec<&LayerMatrix> = self.layers.iter().filter_map(|l| l.matrix(matrix)).collect();
                let draws = (&self.controls.gaussian[slot][0], &self.controls.w0[slot][0]);
                tables.measures.get_or_insert_default().extend(self.cka_rows(matrix, &observed, draws));
            }
        }
        for &matrix in self.context.config.params().matrices.iter().filter(|matrix| !matrix.is_factor()) {
            for (k, layer) in self.layers.iter().enumerate() {
                let spectrum = layer.matrix(matrix).and_then(|m| m.spectrum.as_ref());
                for (number, &sigma) in spectrum.map_or(&[][..], Spectrum::sigma).iter().enumerate() {
                    tables.spectrum.push(SpectrumRow {
                        adapter: self.adapter.to_owned(),
                        module: self.module.to_owned(),
                        matrix,
                        layer: self.group.layers[self.member.at[k]].layer,
                        k: number + 1,
                        sigma,
                    });
                }
            }
        }
        Ok(tables)
    }

    /// Whether the layers can be compared.
    fn is_grid(&self) -> bool {
        self.member.at.iter().all(|&at| self.group.layers[at].layer.is_some())
    }

    /// How many vectors layer `k` can have.
    pub(super) fn rank(&self, k: usize) -> usize {
        self.member.ranks[k]
    }

    pub(super) fn layer_number(&self, k: usize) -> u32 {
        self.group.layers[self.member.at[k]].layer.unwrap_or_default()
    }
}

/// One view and (i, j) of a grid.
struct ViewCells<'a> {
    grid: &'a Grid<'a>,
    view: View,
    i: usize,
    j: usize,
    observed: &'a [&'a LayerMatrix],
    pairs: &'a AllPairs,
    /// As [`summed_errors`] gives them.
    summed: &'a Array2<Option<f64>>,
    initial: &'a [Option<&'a LayerMatrix>],
    init_pairs: &'a AllPairs,
    draws: (&'a Draws, &'a Draws),
}

impl ViewCells<'_> {
    fn add_rows(&self, tables: &mut Tables) {
        let count = self.observed.len();
        let first = tables.similarity.len();
        if self.grid.is_grid() {
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
        let ij = (self.i, self.j);
        let phi = self.pairs.phi(a, b, self.i, self.j);
        let seen = Seen::of(phi, self.summed[(a, b)]);
        let (status, bound) = cell_status([x, y], self.view.side, ij, seen, self.pairs.differ_in_length(a, b));
        let phi = phi.filter(|_| has_phi(status));
        let cell = a * self.observed.len() + b;
        let moments = |draws: &Draws| mean_and_sd(&draws.iter().filter_map(|cells| cells[cell]).collect::<Vec<_>>());
        let (gaussian_mean, gaussian_sd) = moments(self.draws.0);
        let (w0_mean, w0_sd) = moments(self.draws.1);
        SimilarityRow {
            adapter: self.grid.adapter.to_owned(),
            module: self.grid.module.to_owned(),
            matrix: self.view.matrix,
            side: self.view.side,
            i: self.i,
            j: self.j,
            layer_a: self.grid.layer_number(a),
            layer_b: self.grid.layer_number(b),
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
        let usable = |index: usize, size: usize| self.initial[index].is_some_and(|m| has_phi(m.status(size)));
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
            status: if self.grid.is_grid() { status } else { Status::Skipped },
        }
    }
}
