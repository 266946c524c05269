//! The tables of a study, written to an output directory in the formats asked for.

use super::npy;
use crate::error::Result;
use crate::table::columns::Row;
use crate::table::file_name::matrix_path;
use crate::table::format::TableFormat;
use crate::table::output::OutputDir;
use crate::table::phi_matrix::phi_matrices;
use crate::table::rows::Tables;
use crate::table::{csv, parquet};

/// Writes `summary`, `similarity`, `conversion`, `spectrum`, and `across`, `measures`, `grid` and `training` (where they are there) in each of the
/// formats that hold tables, and the φ matrices in `matrices/` (CSV) and `npy/`.
///
/// # Errors
/// [`crate::Error::Output`] if a file cannot be written.
pub fn write_study(out: &mut OutputDir, tables: &Tables, formats: &[TableFormat]) -> Result<()> {
    write_table(out, &tables.summary, formats)?;
    write_table(out, &tables.similarity, formats)?;
    write_table(out, &tables.conversion, formats)?;
    write_table(out, &tables.spectrum, formats)?;
    if let Some(rows) = &tables.across {
        write_table(out, rows, formats)?;
    }
    if let Some(rows) = &tables.measures {
        write_table(out, rows, formats)?;
    }
    if let Some(rows) = &tables.grid {
        write_table(out, rows, formats)?;
    }
    if let Some(rows) = &tables.training {
        write_table(out, rows, formats)?;
    }
    let matrices = phi_matrices(&tables.similarity);
    if formats.contains(&TableFormat::Csv) {
        for phi in &matrices {
            let path = matrix_path("matrices", &phi.adapter, &phi.module, phi.matrix, phi.side, phi.i, phi.j, "csv");
            out.stream(&path, |file| phi.write_csv(file))?;
        }
    }
    if formats.contains(&TableFormat::Npy) {
        npy::write_all(out, &matrices)?;
    }
    Ok(())
}

/// Writes one table as `TABLE.csv` and `TABLE.parquet`, whichever are among the formats.
///
/// # Errors
/// [`crate::Error::Output`] if a file cannot be written.
pub fn write_table<R: Row>(out: &mut OutputDir, rows: &[R], formats: &[TableFormat]) -> Result<()> {
    for format in formats {
        let name = format!("{}.{format}", R::TABLE);
        match format {
            TableFormat::Csv => out.stream(&name, |file| csv::write_rows(file, rows))?,
            TableFormat::Parquet => out.stream(&name, |file| parquet::write_rows(file, rows))?,
            TableFormat::Npy => {}
        }
    }
    Ok(())
}
