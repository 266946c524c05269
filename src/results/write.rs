//! The tables of a study, written to an output directory: always as CSV, and also in the other formats requested.

use super::npy;
use crate::error::Result;
use crate::output::OutputDir;
use crate::table::columns::Row;
use crate::table::{TableFormat, Tables, csv, phi_matrices};

/// Writes every table of the study as CSV, and the φ matrices in `matrices/`; the same as Parquet and in `npy/`, where `formats` has these.
///
/// # Errors
/// [`crate::Error::Output`] if a file cannot be written.
pub fn write_study(out: &mut OutputDir, tables: &Tables, formats: &[TableFormat]) -> Result<()> {
    for table in tables.each() {
        out.stream(&format!("{}.csv", table.name()), |mut file| table.write_csv(&mut file))?;
        #[cfg(feature = "parquet")]
        if formats.contains(&TableFormat::Parquet) {
            out.stream(&format!("{}.parquet", table.name()), |file| table.write_parquet(file))?;
        }
    }
    let matrices = phi_matrices(&tables.similarity);
    for phi in &matrices {
        out.stream(&phi.path("matrices", "csv"), |file| phi.write_csv(file))?;
    }
    if formats.contains(&TableFormat::Npy) {
        npy::write_all(out, &matrices)?;
    }
    Ok(())
}

/// Writes one table as `TABLE.csv`.
///
/// # Errors
/// [`crate::Error::Output`] if it cannot be written.
pub fn write_table<R: Row>(out: &mut OutputDir, rows: &[R]) -> Result<()> {
    out.stream(&format!("{}.csv", R::TABLE), |file| csv::write_rows(file, rows))
}
