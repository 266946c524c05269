//! Table rows gathered into the layer × layer grids that are drawn.

use std::collections::{BTreeSet, HashMap};

use crate::table::gather;
use crate::table::rows::{SimilarityRow, SummaryRow, Tables};
use crate::terms::{MatrixKind, Side};

/// What the rows of one grid have in common.
type Key<'a> = (&'a str, &'a str, MatrixKind, Side, usize, usize);

/// All rows of one adapter × module × matrix × side × (i, j).
pub(super) struct Group<'a> {
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    pub(super) matrix: MatrixKind,
    pub(super) side: Side,
    pub(super) i: usize,
    pub(super) j: usize,
    /// The layers, in rising order.
    pub(super) layers: Vec<u32>,
    pub(super) summary: Option<&'a SummaryRow>,
    rows: Vec<&'a SimilarityRow>,
}

/// Values of `n × n` cells, row by row. Never NaN.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    pub(super) n: usize,
    pub(super) values: Vec<Option<f64>>,
}

/// Gathers the similarity rows, in table order.
pub(super) fn groups(tables: &Tables) -> Vec<Group<'_>> {
    groups_of(tables, |_| true)
}

/// As [`groups`], of the adapters that are wanted.
pub(super) fn groups_of(tables: &Tables, wanted: impl Fn(&str) -> bool) -> Vec<Group<'_>> {
    let mut summaries: HashMap<Key<'_>, &SummaryRow> = HashMap::new();
    for row in tables.summary.iter().filter(|row| wanted(&row.adapter)) {
        summaries.entry((&row.adapter, &row.module, row.matrix, row.side, row.i, row.j)).or_insert(row);
    }
    let similarity = tables.similarity.iter().filter(|row| wanted(&row.adapter));
    gather(similarity, |row| -> Key<'_> { (&row.adapter, &row.module, row.matrix, row.side, row.i, row.j) })
        .into_iter()
        .map(|(key, rows)| {
            let (adapter, module, matrix, side, i, j) = key;
            let layers: BTreeSet<u32> = rows.iter().flat_map(|row| [row.layer_a, row.layer_b]).collect();
            let (layers, summary) = (layers.into_iter().collect(), summaries.get(&key).copied());
            Group { adapter, module, matrix, side, i, j, layers, summary, rows }
        })
        .collect()
}

impl Group<'_> {
    /// The grid of one column of the table. A pair of layers without a row has no value; nor has one with NaN.
    pub(super) fn grid(&self, value: impl Fn(&SimilarityRow) -> Option<f64>) -> Grid {
        let n = self.layers.len();
        let place: HashMap<u32, usize> = self.layers.iter().enumerate().map(|(k, layer)| (*layer, k)).collect();
        let mut values = vec![None; n * n];
        for row in &self.rows {
            if let (Some(a), Some(b)) = (place.get(&row.layer_a), place.get(&row.layer_b)) {
                values[a * n + b] = value(row).filter(|v| v.is_finite());
            }
        }
        Grid { n, values }
    }
}

/// `Θ_A`, or `lora_A` for a factor.
pub(super) fn matrix_name(matrix: MatrixKind) -> String {
    if matrix.is_factor() { matrix.name().to_owned() } else { format!("Θ_{}", matrix.name()) }
}

/// `φ(8,8)`.
pub(super) fn phi_name(i: usize, j: usize) -> String {
    format!("φ({i},{j})")
}

impl Grid {
    /// The values beside the diagonal.
    pub(super) fn off_diagonal(&self) -> impl Iterator<Item = f64> {
        let n = self.n;
        self.values.iter().enumerate().filter(move |(k, _)| k / n != k % n).filter_map(|(_, value)| *value)
    }

    /// The largest value beside the diagonal.
    pub(super) fn largest(&self) -> Option<f64> {
        self.off_diagonal().reduce(f64::max)
    }

    /// Whether a cell beside the diagonal has no value.
    pub(super) fn has_gaps(&self) -> bool {
        self.values.iter().enumerate().any(|(k, value)| value.is_none() && k / self.n != k % self.n)
    }

    /// Whether no cell beside the diagonal has a value.
    pub(super) fn is_empty(&self) -> bool {
        self.off_diagonal().next().is_none()
    }

    /// Pearson's correlation with another grid over the cells beside the diagonal that both have.
    /// None for fewer than three layers, or where one of them does not vary.
    pub(super) fn correlation(&self, other: &Self) -> Option<f64> {
        let pairs: Vec<(f64, f64)> = (0..self.values.len().min(other.values.len()))
            .filter(|k| k / self.n != k % self.n)
            .filter_map(|k| Some((self.values[k]?, other.values[k]?)))
            .collect();
        let count = pairs.len() as f64;
        if pairs.len() < 6 {
            return None;
        }
        let (mean_x, mean_y) = pairs.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / count, y + p.1 / count));
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for (x, y) in pairs {
            let (x, y) = (x - mean_x, y - mean_y);
            (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
        }
        // Rounding alone spreads equal values by about 1e-16 of their size.
        let varies = |sum: f64, mean: f64| (sum / count).sqrt() > 1e-9 * mean.abs();
        (varies(xx, mean_x) && varies(yy, mean_y)).then(|| (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(values: [f64; 9]) -> Grid {
        Grid { n: 3, values: values.map(|v| v.is_finite().then_some(v)).to_vec() }
    }

    #[test]
    fn the_diagonal_counts_for_nothing() {
        let g = grid([1.0, 0.1, 0.2, 0.1, 1.0, 0.3, 0.2, 0.3, 1.0]);
        assert_eq!(g.largest(), Some(0.3));
        assert_eq!(g.off_diagonal().count(), 6);
        let alone = Grid { n: 1, values: vec![Some(1.0)] };
        assert!(alone.is_empty() && alone.largest().is_none());
        let hollow = |at: usize| Grid { n: 2, values: (0..4).map(|k| (k != at).then_some(0.5)).collect() }.has_gaps();
        assert_eq!([0, 1, 2, 3, 4].map(hollow), [false, true, true, false, false]);
    }

    #[test]
    fn correlation_is_pearsons() {
        let g = grid([1.0, 0.1, 0.2, 0.1, 1.0, 0.3, 0.2, 0.3, 1.0]);
        let twice = Grid { n: 3, values: g.values.iter().map(|v| v.map(|v| 2.0 * v + 0.5)).collect() };
        let minus = Grid { n: 3, values: g.values.iter().map(|v| v.map(|v| -v)).collect() };
        assert!((g.correlation(&twice).unwrap() - 1.0).abs() < 1e-12);
        assert!((g.correlation(&minus).unwrap() + 1.0).abs() < 1e-12);
        let flat = grid([1.0; 9]);
        assert_eq!(g.correlation(&flat), None);
        let holes = grid([1.0, f64::NAN, 0.2, 0.1, 1.0, 0.3, 0.2, 0.3, 1.0]);
        assert_eq!(g.correlation(&holes), None);
    }
}
