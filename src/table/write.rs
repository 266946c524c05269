//! The tables of a study, written to an output directory.

use std::io::{self, Write};

use super::columns::Row;
use super::csv::write_rows;
use super::file_name::matrix_path;
use super::output::OutputDir;
use super::phi_matrix::phi_matrices;
use super::rows::Tables;
use crate::error::Result;

/// Writes `summary.csv`, `similarity.csv`, `conversion.csv`, `spectrum.csv`, `across.csv` (where it was asked for) and the φ matrices in `matrices/`.
///
/// # Errors
/// [`crate::Error::Output`] if a file cannot be written.
pub fn write_study(out: &mut OutputDir, tables: &Tables) -> Result<()> {
    write_table(out, &tables.summary)?;
    write_table(out, &tables.similarity)?;
    write_table(out, &tables.conversion)?;
    write_table(out, &tables.spectrum)?;
    if let Some(rows) = &tables.across {
        write_table(out, rows)?;
    }
    for phi in phi_matrices(&tables.similarity) {
        let path = matrix_path("matrices", &phi.adapter, &phi.module, phi.matrix, phi.side, phi.i, phi.j, "csv");
        out.stream(&path, |file: &mut dyn Write| -> io::Result<()> { phi.write_csv(file) })?;
    }
    Ok(())
}

/// Writes one table as `TABLE.csv`.
///
/// # Errors
/// [`crate::Error::Output`] if the file cannot be written.
pub fn write_table<R: Row>(out: &mut OutputDir, rows: &[R]) -> Result<()> {
    out.stream(&format!("{}.csv", R::TABLE), |file| write_rows(file, rows))
}
