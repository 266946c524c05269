//! φ as a square matrix over the layers: the shape people plot, taken from the rows of `similarity.csv`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use super::csv::write_grid;
use super::rows::SimilarityRow;
use crate::error::{Error, Result, escape};
use crate::terms::{MatrixKind, Side};

/// The φ matrix of one adapter × module × matrix × side × (i, j).
#[derive(Debug, Clone, PartialEq)]
pub struct PhiMatrix {
    /// Adapter name.
    pub adapter: String,
    /// Module name.
    pub module: String,
    /// The matrix compared.
    pub matrix: MatrixKind,
    /// Which singular vectors.
    pub side: Side,
    /// How many singular vectors of the row's layer.
    pub i: usize,
    /// How many singular vectors of the column's layer.
    pub j: usize,
    /// Layer indices, ascending: rows and columns.
    pub layers: Vec<u32>,
    /// φ, row after row (`layers.len()` squared).
    pub values: Vec<Option<f64>>,
}

impl PhiMatrix {
    /// Writes the matrix as CSV: first column `layer`, then one column a layer.
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn write_csv(&self, out: impl Write) -> io::Result<()> {
        write_grid(out, "layer", &self.layers, &self.values)
    }
}

/// Gathers rows into matrices, in the order in which each first appears. Cells without a row are empty.
#[must_use]
pub fn phi_matrices(rows: &[SimilarityRow]) -> Vec<PhiMatrix> {
    let mut groups: Vec<Vec<&SimilarityRow>> = Vec::new();
    let mut index = HashMap::new();
    for row in rows {
        let key = (row.adapter.as_str(), row.module.as_str(), row.matrix, row.side, row.i, row.j);
        let group = *index.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(group) {
            group.push(row);
        }
    }
    groups.iter().filter_map(|rows| rows.first().map(|first| gather(first, rows))).collect()
}

fn gather(first: &SimilarityRow, rows: &[&SimilarityRow]) -> PhiMatrix {
    let mut layers: Vec<u32> = rows.iter().flat_map(|row| [row.layer_a, row.layer_b]).collect();
    layers.sort_unstable();
    layers.dedup();
    let mut values = vec![None; layers.len() * layers.len()];
    for row in rows {
        if let (Ok(a), Ok(b)) = (layers.binary_search(&row.layer_a), layers.binary_search(&row.layer_b)) {
            values[a * layers.len() + b] = row.phi.filter(|phi| phi.is_finite());
        }
    }
    PhiMatrix {
        adapter: first.adapter.clone(),
        module: first.module.clone(),
        matrix: first.matrix,
        side: first.side,
        i: first.i,
        j: first.j,
        layers,
        values,
    }
}

/// Reads a file of `matrices/`: its layers, and φ row after row.
///
/// # Errors
/// [`Error::Missing`] if the file cannot be read, [`Error::Malformed`] with the line if it is not such a matrix.
pub fn read_phi_matrix(path: &Path) -> Result<(Vec<u32>, Vec<Option<f64>>)> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::missing(path, super::in_words(&error)))?;
    let bad = |line: usize, expected: &str, found: &str| {
        Error::malformed(path, format!("line {line}"), expected, format!("`{}`", escape(found)))
    };
    let mut lines = text.lines();
    let header = lines.next().unwrap_or("");
    let mut layers = Vec::new();
    for name in header.strip_prefix("layer").ok_or_else(|| bad(1, "first column `layer`", header))?.split(',').skip(1) {
        layers.push(name.parse::<u32>().map_err(|_| bad(1, "a layer index", name))?);
    }
    let mut values = Vec::with_capacity(layers.len() * layers.len());
    let mut rows = 0;
    for (number, line) in lines.enumerate() {
        let mut fields = line.split(',');
        let layer = fields.next().unwrap_or("");
        if layers.get(number).map(u32::to_string).as_deref() != Some(layer) {
            return Err(bad(number + 2, "the layers of the header, in order", layer));
        }
        let before = values.len();
        for field in fields {
            values.push(match field {
                "" => None,
                text => {
                    let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                    Some(value.ok_or_else(|| bad(number + 2, "a finite number", text))?)
                }
            });
        }
        if values.len() - before != layers.len() {
            return Err(bad(number + 2, "as many fields as the header has", line));
        }
        rows += 1;
    }
    if rows != layers.len() {
        return Err(bad(rows + 2, "a row for each layer", "the end of the file"));
    }
    Ok((layers, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Status;

    fn cell(module: &str, layer_a: u32, layer_b: u32, phi: Option<f64>) -> SimilarityRow {
        SimilarityRow {
            adapter: "a".into(),
            module: module.into(),
            matrix: MatrixKind::A,
            side: Side::Left,
            i: 8,
            j: 8,
            layer_a,
            layer_b,
            phi,
            phi_error_bound: None,
            gaussian_mean: None,
            gaussian_sd: None,
            w0_mean: None,
            w0_sd: None,
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.csv");
        matrices[0].write_csv(std::fs::File::create(&path).unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "layer,0,10\n0,1.0,0.25\n10,,1.0\n");
        assert_eq!(read_phi_matrix(&path).unwrap(), (vec![0, 10], vec![Some(1.0), Some(0.25), None, Some(1.0)]));
        let mut single = Vec::new();
        matrices[1].write_csv(&mut single).unwrap();
        assert_eq!(single, b"layer,3\n3,\n");
    }

    #[test]
    fn what_is_no_matrix_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.csv");
        for (text, line) in [
            ("", "line 1;"),
            ("layer,x\n", "line 1;"),
            ("layer,0\n", "line 2;"),
            ("layer,0\n1,1.0\n", "line 2;"),
            ("layer,0\n0,inf\n", "line 2;"),
            ("layer,0\n0,1.0\n0,1.0\n", "line 3;"),
            ("layer,0,1\n0,1.0\n", "line 2;"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_phi_matrix(&path).unwrap_err();
            assert_eq!(error.exit_code(), 4);
            assert!(error.to_string().contains(line), "{error}");
        }
    }
}
