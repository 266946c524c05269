//! Rows of `similarity.csv` gathered into squares of layers × layers: what heatmaps, overviews and the paper's figure are drawn
//! from.

use std::collections::{BTreeSet, HashMap};

use super::parts::layers::layer_numbers;
use super::parts::values::SquareValues;
use crate::table::Tables;
use crate::table::gather;
use crate::table::rows::{SimilarityRow, SummaryRow};
use crate::terms::{LayerId, MatrixKind, Side};

/// What all rows of one square have in common.
type Key<'a> = (&'a str, &'a str, MatrixKind, Side, usize, usize);

/// φ of all pairs of layers: the rows of one adapter × module × matrix × side × (i, j).
pub(super) struct LayerSimilarity<'a> {
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    pub(super) matrix: MatrixKind,
    pub(super) side: Side,
    pub(super) i: usize,
    pub(super) j: usize,
    /// The layers, in rising order.
    pub(super) layers: Vec<LayerId>,
    /// Their numbers along an axis.
    pub(super) numbers: Vec<u32>,
    pub(super) summary: Option<&'a SummaryRow>,
    rows: Vec<&'a SimilarityRow>,
}

/// Gathers the similarity rows, in table order.
pub(super) fn layer_similarities(tables: &Tables) -> Vec<LayerSimilarity<'_>> {
    layer_similarities_of(tables, |_| true)
}

/// The same for the adapters that are wanted.
pub(super) fn layer_similarities_of(tables: &Tables, wanted: impl Fn(&str) -> bool) -> Vec<LayerSimilarity<'_>> {
    let mut summaries: HashMap<Key<'_>, &SummaryRow> = HashMap::new();
    for row in tables.summary.iter().filter(|row| wanted(&row.adapter)) {
        summaries.entry((&row.adapter, &row.module, row.matrix, row.side, row.i, row.j)).or_insert(row);
    }
    let similarity = tables.similarity.iter().filter(|row| wanted(&row.adapter));
    gather(similarity, |row| -> Key<'_> { (&row.adapter, &row.module, row.matrix, row.side, row.i, row.j) })
        .into_iter()
        .map(|(key, rows)| {
            let (adapter, module, matrix, side, i, j) = key;
            let layers: BTreeSet<&LayerId> = rows.iter().flat_map(|row| [&row.layer_a, &row.layer_b]).collect();
            let layers: Vec<LayerId> = layers.into_iter().cloned().collect();
            let (numbers, summary) = (layer_numbers(&layers), summaries.get(&key).copied());
            LayerSimilarity { adapter, module, matrix, side, i, j, layers, numbers, summary, rows }
        })
        .collect()
}

impl LayerSimilarity<'_> {
    /// The values of one column of the table. A pair of layers without a row, or with NaN, has no value.
    pub(super) fn values(&self, value: impl Fn(&SimilarityRow) -> Option<f64>) -> SquareValues {
        let n = self.layers.len();
        let mut cells = vec![None; n * n];
        for row in &self.rows {
            if let (Ok(a), Ok(b)) = (self.layers.binary_search(&row.layer_a), self.layers.binary_search(&row.layer_b)) {
                cells[a * n + b] = value(row).filter(|v| v.is_finite());
            }
        }
        SquareValues { n, cells }
    }
}
