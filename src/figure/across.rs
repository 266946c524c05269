//! The same layers of different adapters: a square of φ for all pairs of adapters. Each cell is the mean over the layers that
//! both have.

use std::collections::{BTreeMap, BTreeSet};

use super::kind::FigureKind;
use super::options::FigureOptions;
use super::parts::bar::Mark;
use super::parts::names::{doubt, matrix_name, phi_name};
use super::parts::panel::Labels;
use super::parts::square::{SquareFigure, in_order, named_cell_size};
use super::parts::values::SquareValues;
use super::scene::Scene;
use super::scene::font::{fit, printable};
use crate::table::gather;
use crate::table::rows::AcrossRow;
use crate::terms::{LayerId, MatrixKind, Side};

/// Names are shortened to this width.
const WIDEST_NAME: f64 = 150.0;

/// φ of all pairs of adapters: the rows of one module × matrix × side × (i, j).
pub(super) struct AdapterSimilarity<'a> {
    pub(super) module: &'a str,
    pub(super) matrix: MatrixKind,
    pub(super) side: Side,
    pub(super) i: usize,
    pub(super) j: usize,
    rows: Vec<&'a AcrossRow>,
}

/// Gathers the rows of `across.csv`, in the order in which each group first appears.
pub(super) fn groups(rows: &[AcrossRow]) -> Vec<AdapterSimilarity<'_>> {
    gather(rows, |row| (row.module.as_str(), row.matrix, row.side, row.i, row.j))
        .into_iter()
        .map(|((module, matrix, side, i, j), rows)| AdapterSimilarity { module, matrix, side, i, j, rows })
        .collect()
}

impl AdapterSimilarity<'_> {
    /// What the figure shows.
    pub(super) fn kind(&self) -> FigureKind {
        let (matrix, side, i, j) = (self.matrix, self.side, self.i, self.j);
        FigureKind::Across { module: self.module.to_owned(), matrix, side, i, j }
    }

    /// The figure.
    pub(super) fn scene(&self, options: &FigureOptions) -> Scene {
        let names: BTreeSet<&str> = self.rows.iter().flat_map(|row| [row.adapter_a.as_str(), row.adapter_b.as_str()]).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let (values, layers_of_cells) = self.values(&names);
        let (values, tree) = in_order(values, options.order);
        let names: Vec<&str> = tree.as_ref().map_or_else(|| names.clone(), |tree| tree.order.iter().map(|k| names[*k]).collect());
        let (cell, tick) = named_cell_size(names.len());
        let shown: Vec<String> = names.iter().map(|name| fit(&printable(name), tick, WIDEST_NAME)).collect();
        let labels = Labels::Names(&shown);
        let chance = self.chance();
        let marks = chance.map(|value| Mark { value, label: "chance".to_owned() }).into_iter().collect();
        let count = if names.len() == 1 { "1 adapter".to_owned() } else { format!("{} adapters", names.len()) };
        let axis = |which: char, number: usize| {
            if self.i == self.j { String::new() } else { format!("adapter ({which} = {number})") }
        };
        let picture = SquareFigure {
            second: self.second_line(&values, &layers_of_cells, chance),
            values,
            labels,
            cell,
            tick,
            adapter: count,
            module: printable(self.module),
            what: format!(" · {}, {}, {}", matrix_name(self.matrix), self.side, phi_name(self.i, self.j)),
            marks,
            axis_titles: (axis('j', self.j), axis('i', self.i)),
            table: "across.csv",
            tree,
            of_itself: true,
        };
        picture.scene(options)
    }

    /// The mean of each cell over its layers, and over how many layers the cells are means.
    fn values(&self, names: &[&str]) -> (SquareValues, BTreeSet<usize>) {
        let n = names.len();
        let place: BTreeMap<&str, usize> = names.iter().enumerate().map(|(k, name)| (*name, k)).collect();
        let mut sums = vec![(0.0, 0_usize); n * n];
        for row in &self.rows {
            let at = place.get(row.adapter_a.as_str()).zip(place.get(row.adapter_b.as_str()));
            if let (Some((a, b)), Some(phi)) = (at, row.phi.filter(|phi| phi.is_finite())) {
                let (sum, count) = &mut sums[a * n + b];
                *sum += phi;
                *count += 1;
            }
        }
        let counts = sums.iter().map(|(_, count)| *count).filter(|count| *count > 0).collect();
        let cells = sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / count as f64)).collect();
        (SquareValues { n, cells }, counts)
    }

    /// The expected φ of different adapters by chance.
    fn chance(&self) -> Option<f64> {
        let beside = self.rows.iter().filter(|row| row.adapter_a != row.adapter_b);
        let values: Vec<f64> = beside.filter_map(|row| row.gaussian_expected).filter(|value| value.is_finite()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// `mean over 6 layers · mean of pairs 0.5445 · chance 0.0208`, and the status if it is not ok.
    fn second_line(&self, values: &SquareValues, layers_of_cells: &BTreeSet<usize>, chance: Option<f64>) -> String {
        let layers: BTreeSet<Option<&LayerId>> = self.rows.iter().map(|row| row.layer.as_ref()).collect();
        let mut parts = Vec::new();
        match (layers.first(), layers.len()) {
            (Some(Some(layer)), 1) => parts.push(format!("layer {layer}")),
            (Some(Some(_)), count) if layers_of_cells.len() > 1 => {
                parts.push(format!("cells are means over up to {count} layers"))
            }
            (Some(Some(_)), count) => parts.push(format!("cells are means over {count} layers")),
            _ => {}
        }
        let pairs: Vec<f64> =
            (0..values.cells.len()).filter(|k| k / values.n < k % values.n).filter_map(|k| values.cells[k]).collect();
        if !pairs.is_empty() {
            parts.push(format!("mean of pairs {:.4}", pairs.iter().sum::<f64>() / pairs.len() as f64));
        }
        parts.extend(chance.map(|value| format!("chance {value:.4}")));
        parts.extend(doubt(self.rows.iter().map(|row| row.status)));
        parts.join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Status;

    fn row(layer: Option<LayerId>, a: &str, b: &str, phi: Option<f64>) -> AcrossRow {
        AcrossRow {
            module: "query".into(),
            layer,
            matrix: MatrixKind::A,
            side: Side::Left,
            i: 4,
            j: 4,
            adapter_a: a.into(),
            adapter_b: b.into(),
            phi,
            gaussian_expected: Some(0.25),
            w0_expected: None,
            init: None,
            status: if phi.is_some() { Status::Ok } else { Status::Rank },
        }
    }

    #[test]
    fn cells_are_means_over_the_layers_that_both_have() {
        let rows = [
            row(Some(0.into()), "b", "b", Some(1.0)),
            row(Some(1.into()), "a", "a", Some(1.0)),
            row(Some(1.into()), "a", "b", Some(0.5)),
            row(Some(1.into()), "b", "a", Some(0.5)),
            row(Some(1.into()), "b", "b", Some(1.0)),
            row(Some(2.into()), "a", "b", Some(0.25)),
            row(Some(2.into()), "b", "a", None),
        ];
        let groups = groups(&rows);
        let (values, counts) = groups[0].values(&["a", "b"]);
        assert_eq!(values.cells, [Some(1.0), Some(0.375), Some(0.5), Some(1.0)]);
        assert_eq!(counts, BTreeSet::from([1, 2]));
        let line = groups[0].second_line(&values, &counts, groups[0].chance());
        assert_eq!(line, "cells are means over up to 3 layers · mean of pairs 0.3750 · chance 0.2500 · status rank");
        let alone = [row(None, "a", "a", Some(1.0))];
        let groups = super::groups(&alone);
        assert_eq!((groups.len(), groups[0].chance()), (1, None));
        assert_eq!(groups[0].second_line(&SquareValues { n: 1, cells: vec![Some(1.0)] }, &BTreeSet::from([1]), None), "");
    }
}
