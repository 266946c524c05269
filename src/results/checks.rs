//! How large a picture may be compared with its table. The hash in a manifest does not protect from this, because the writer of a table can
//! also write its manifest.
//!
//! A heatmap has a cell for each pair of its layers, adapters or numbers of vectors, so a few rows with far-apart numbers would make an
//! image too large for memory. Tables that we wrote have a row for each cell.

use std::path::Path;

use crate::error::{Error, Result, show_path};
use crate::table::columns::Row;
use crate::table::{AcrossRow, GridRow, SimilarityRow, Tables, gather};

/// A square has this many cells at most for each row: adapters of different bases have none in common. A small one, which takes some 40 MB
/// to draw, has any number.
const CELLS_A_ROW: usize = 64;
const SMALL: usize = 1 << 17;

/// Refuses tables whose heatmaps would be far larger than they are.
///
/// # Errors
/// [`Error::Resource`] with the table's file.
pub(super) fn refuse_huge_squares(dir: &Path, tables: &Tables) -> Result<()> {
    for (_, rows) in gather(&tables.similarity, |row| (row.adapter.as_str(), row.view())) {
        let layers = distinct(rows.iter().flat_map(|row| [&row.layer_a, &row.layer_b]));
        check::<SimilarityRow>(dir, rows.len(), layers, "layers")?;
    }
    for (_, rows) in gather(tables.across.iter().flatten(), |row| row.view()) {
        let adapters = distinct(rows.iter().flat_map(|row| [&row.adapter_a, &row.adapter_b]));
        check::<AcrossRow>(dir, rows.len(), adapters, "adapters")?;
    }
    for (_, rows) in gather(tables.grid.iter().flatten(), |row| {
        (&row.adapter, &row.module, (row.matrix, row.side), (&row.layer_a, &row.layer_b))
    }) {
        let most = rows.iter().map(|row| row.i.max(row.j)).max().unwrap_or(0);
        check::<GridRow>(dir, rows.len(), most, "numbers of vectors")?;
    }
    Ok(())
}

fn distinct<T: Ord>(all: impl Iterator<Item = T>) -> usize {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}

fn check<R: Row>(dir: &Path, rows: usize, side: usize, what: &str) -> Result<()> {
    let cells = side.saturating_mul(side);
    if cells <= SMALL || cells / CELLS_A_ROW <= rows {
        return Ok(());
    }
    Err(Error::Resource {
        what: format!("{}: a heatmap of {side} {what}", show_path(&dir.join(format!("{}.csv", R::TABLE)))),
        expected: format!("at most {CELLS_A_ROW} cells for each row"),
        found: format!("{cells} cells for {rows} rows"),
        hint: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{MatrixKind, Side, Status};

    fn refused(tables: &Tables) -> String {
        let error = refuse_huge_squares(Path::new("out"), tables).unwrap_err();
        assert_eq!(error.exit_code(), 8);
        error.to_string()
    }

    #[test]
    fn a_square_is_bounded_by_its_rows() {
        let across = |n: usize| {
            let row = |k: usize| AcrossRow {
                module: "q".into(),
                layer: Some((k as u32).into()),
                matrix: MatrixKind::A,
                side: Side::Left,
                i: 8,
                j: 8,
                adapter_a: format!("a{k}"),
                adapter_b: format!("a{k}"),
                phi: Some(1.0),
                gaussian_expected: None,
                w0_expected: None,
                init: None,
                status: Status::Ok,
            };
            Tables { across: Some((0..n).map(row).collect()), ..Tables::default() }
        };
        refuse_huge_squares(Path::new("out"), &across(362)).unwrap();
        let expected =
            "out/across.csv: a heatmap of 363 adapters; expected at most 64 cells for each row, found 131769 cells for 363 rows";
        assert_eq!(refused(&across(363)), expected);
    }

    #[test]
    fn a_number_of_vectors_is_bounded_too() {
        let grid = |i: usize| {
            let row = GridRow {
                adapter: "a".into(),
                module: "q".into(),
                matrix: MatrixKind::A,
                side: Side::Left,
                layer_a: 0.into(),
                layer_b: 1.into(),
                i,
                j: 1,
                phi: None,
                gaussian_expected: None,
                status: Status::Ok,
            };
            Tables { grid: Some(vec![row]), ..Tables::default() }
        };
        refuse_huge_squares(Path::new("out"), &grid(362)).unwrap();
        assert!(refused(&grid(usize::MAX)).starts_with("out/grid.csv: a heatmap of 18446744073709551615 numbers of vectors; "));
    }
}
