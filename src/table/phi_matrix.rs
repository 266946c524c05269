//! φ as a square matrix over the layers: the shape people plot, taken from the rows of `similarity.csv`.

use std::io::{self, Write};

use super::csv::write_grid;
use super::file_name::matrix_path;
use super::gather::gather;
use super::rows::SimilarityRow;
use super::view::ViewKey;
use crate::terms::LayerId;

/// The φ matrix of one view of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct PhiMatrix<'r> {
    /// Adapter name.
    pub adapter: &'r str,
    /// What is compared.
    pub view: ViewKey<'r>,
    /// Layer indices, ascending: rows and columns.
    pub layers: Vec<LayerId>,
    /// φ, row after row (`layers.len()` squared).
    pub values: Vec<Option<f64>>,
}

impl PhiMatrix<'_> {
    /// Writes the matrix as CSV: first column `layer`, then one column a layer.
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn write_csv(&self, out: impl Write) -> io::Result<()> {
        write_grid(out, "layer", &self.layers, &self.values)
    }

    /// The path of a file for this matrix: `FOLDER/ADAPTER/MODULE.MATRIX.SIDE.iI-jJ.ENDING`.
    #[must_use]
    pub fn path(&self, folder: &str, ending: &str) -> String {
        matrix_path(folder, self.adapter, &self.view, ending)
    }
}

/// Gathers rows into matrices, in the order in which each first appears. Cells without a row are empty.
#[must_use]
pub fn phi_matrices(rows: &[SimilarityRow]) -> Vec<PhiMatrix<'_>> {
    let groups = gather(rows, |row| (row.adapter.as_str(), row.view()));
    groups.into_iter().map(|((adapter, view), rows)| phi_matrix(adapter, view, &rows)).collect()
}

fn phi_matrix<'r>(adapter: &'r str, view: ViewKey<'r>, rows: &[&SimilarityRow]) -> PhiMatrix<'r> {
    let mut layers: Vec<LayerId> = rows.iter().flat_map(|row| [row.layer_a.clone(), row.layer_b.clone()]).collect();
    layers.sort_unstable();
    layers.dedup();
    let mut values = vec![None; layers.len() * layers.len()];
    for row in rows {
        if let (Ok(a), Ok(b)) = (layers.binary_search(&row.layer_a), layers.binary_search(&row.layer_b)) {
            values[a * layers.len() + b] = row.phi.filter(|phi| phi.is_finite());
        }
    }
    PhiMatrix { adapter, view, layers, values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{MatrixKind, Side, Status};

    fn cell(module: &str, layer_a: u32, layer_b: u32, phi: Option<f64>) -> SimilarityRow {
        SimilarityRow {
            adapter: "a".into(),
            module: module.into(),
            matrix: MatrixKind::A,
            side: Side::Left,
            i: 8,
            j: 8,
            layer_a: layer_a.into(),
            layer_b: layer_b.into(),
            phi,
            phi_error_bound: None,
            gaussian_mean: None,
            gaussian_sd: None,
            w0_mean: None,
            w0_sd: None,
            w0_expected: None,
            init: None,
            status: Status::Ok,
        }
    }

    #[test]
    fn rows_become_a_matrix_that_keeps_the_layers_numbers() {
        let rows = [
            cell("query", 0, 0, Some(1.0)),
            cell("query", 0, 10, Some(0.25)),
            cell("value", 3, 3, None),
            cell("query", 10, 0, None),
            cell("query", 10, 10, Some(1.0)),
        ];
        let matrices = phi_matrices(&rows);
        assert_eq!(matrices.len(), 2);
        assert_eq!(matrices[0].layers, [0, 10]);
        assert_eq!(matrices[0].values, [Some(1.0), Some(0.25), None, Some(1.0)]);
        let text = |matrix: &PhiMatrix<'_>| {
            let mut text = Vec::new();
            matrix.write_csv(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(text(&matrices[0]), "layer,0,10\n0,1.0,0.25\n10,,1.0\n");
        assert_eq!(text(&matrices[1]), "layer,3\n3,\n");
    }
}
