//! φ matrices as NumPy's `.npy`: float64, NaN for "no value", and one JSON index that says what each file is.
//!
//! The format is NEP 1's version 1.0: magic, length, a header of Python literals padded to 64 bytes, then the values row by row.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::Result;
use crate::json;
use crate::output::OutputDir;
use crate::table::{PhiMatrix, ViewKey};
use crate::terms::LayerId;

/// The folder of all files of this kind.
const FOLDER: &str = "npy";
/// The index's name in it.
const INDEX_FILE: &str = "index.json";
/// The offset of the values is a multiple of this.
const ALIGNMENT: usize = 64;

/// One file, as the index describes it.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    /// Its path from the index's own folder.
    file: String,
    adapter: &'a str,
    module: &'a str,
    matrix: &'a str,
    side: &'a str,
    i: usize,
    j: usize,
    /// The layers of its rows, and of its columns.
    layers: &'a [LayerId],
}

/// Writes every matrix as `npy/ADAPTER/MODULE.MATRIX.SIDE.iI-jJ.npy`, and `npy/index.json`.
///
/// # Errors
/// [`crate::Error::Output`] if a file cannot be written.
pub(super) fn write_all(out: &mut OutputDir, matrices: &[PhiMatrix<'_>]) -> Result<()> {
    let mut entries = Vec::with_capacity(matrices.len());
    for phi in matrices {
        let file = file_of(phi);
        out.stream(&format!("{FOLDER}/{file}"), |to| write_matrix(to, phi.layers.len(), &phi.values))?;
        let ViewKey { module, matrix, side, i, j } = phi.view;
        let (matrix, side) = (matrix.name(), side.name());
        entries.push(Entry { file, adapter: phi.adapter, module, matrix, side, i, j, layers: &phi.layers });
    }
    out.write(&format!("{FOLDER}/{INDEX_FILE}"), json::pretty(&entries).as_bytes())
}

/// A file's path below the folder. An adapter with the index's name gets another name.
fn file_of(phi: &PhiMatrix<'_>) -> String {
    let path = phi.path("", "npy");
    let path = path.strip_prefix('/').unwrap_or(&path);
    let taken = path.strip_prefix(INDEX_FILE).filter(|rest| rest.starts_with('/'));
    taken.map_or_else(|| path.to_owned(), |rest| format!("index%2Ejson{rest}"))
}

/// Writes a square matrix of `n` rows.
///
/// # Errors
/// Only those of `out`.
fn write_matrix(out: &mut dyn Write, n: usize, values: &[Option<f64>]) -> io::Result<()> {
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({n}, {n}), }}");
    const BEFORE: usize = 10; // magic, version, length
    let padded = (BEFORE + header.len() + 1).next_multiple_of(ALIGNMENT) - BEFORE;
    header.extend(std::iter::repeat_n(' ', padded - 1 - header.len()));
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    let length = u16::try_from(header.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    values.iter().try_for_each(|value| out.write_all(&value.unwrap_or(f64::NAN).to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{MatrixKind, Side};

    #[test]
    fn the_bytes_are_numpys() {
        let mut bytes = Vec::new();
        write_matrix(&mut bytes, 2, &[Some(1.0), None, Some(-0.5), Some(0.1)]).unwrap();
        // What `numpy.save` writes for this array (numpy 2.1), except for its NaN.
        let header = "\u{1}\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }";
        assert_eq!(&bytes[..6], b"\x93NUMPY");
        assert_eq!(&bytes[6..6 + header.len()], header.as_bytes());
        assert!(bytes[6 + header.len()..127].iter().all(|byte| *byte == b' ') && bytes[127] == b'\n');
        let values: Vec<f64> = bytes[128..].as_chunks::<8>().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect();
        assert_eq!((values.len(), values[0], values[2], values[3]), (4, 1.0, -0.5, 0.1));
        assert!(values[1].is_nan());
    }

    #[test]
    fn no_adapter_takes_the_indexs_place() {
        let view = ViewKey { module: "q", matrix: MatrixKind::A, side: Side::Left, i: 8, j: 8 };
        let of = |adapter: &str| file_of(&PhiMatrix { adapter, view, layers: Vec::new(), values: Vec::new() });
        assert_eq!(of("run/step 1"), "run/step%201/q.A.left.i8-j8.npy");
        assert_eq!(of("index.json"), "index%2Ejson/q.A.left.i8-j8.npy");
        assert_eq!(of("index.json/x"), "index%2Ejson/x/q.A.left.i8-j8.npy");
        assert_eq!(of("index.jsons"), "index.jsons/q.A.left.i8-j8.npy");
        assert_eq!(of("/abs"), "%/abs/q.A.left.i8-j8.npy");
    }
}
