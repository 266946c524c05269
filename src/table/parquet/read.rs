//! Rows out of a file: its columns found, its values put together.

use std::fmt::Write;
use std::path::Path;

use parquet::basic::Type as Physical;

use super::super::columns::{CellValue, ColumnType, Row};
use super::super::in_words;
use super::column::Column;
use super::footer::Footer;
use super::types;
use crate::error::{Error, Result, escape};

/// Reads a table back. Columns may stand in any order, and more may be there; each of ours must be there with its type.
///
/// # Errors
/// [`Error::Missing`] if the file cannot be read, [`Error::Malformed`] with row and column if it is not such a table.
pub fn read_rows<R: Row>(path: &Path) -> Result<Vec<R>> {
    let file = std::fs::read(path).map_err(|error| Error::missing(path, in_words(&error)))?;
    let footer = Footer::of(&file).map_err(|found| Error::malformed(path, "table", "a Parquet file", found))?;
    let places = places::<R>(path, &footer)?;
    let count = footer.groups.iter().fold(0, |sum: usize, group| sum.saturating_add(group.rows));
    let mut room = Room::new(path, file.len());
    room.take(count.saturating_mul(size_of::<R>()))?;
    let mut rows = Vec::with_capacity(count);
    let mut texts = vec![String::new(); places.len()];
    for group in &footer.groups {
        let pages = places.iter().map(|&at| group.chunks.get(at).copied().unwrap_or_default());
        let mut columns: Vec<Column<'_>> = pages.zip(R::TYPES).map(|(pages, column)| Column::new(*column, pages)).collect();
        for _ in 0..group.rows {
            let at = |column: usize| format!("row {}, column `{}`", rows.len() + 1, R::COLUMNS.get(column).unwrap_or(&""));
            for (number, (column, text)) in columns.iter_mut().zip(&mut texts).enumerate() {
                let value = column.next().map_err(|found| Error::malformed(path, at(number), "a value of Parquet", found))?;
                write_text(value, text);
                // A row keeps its names.
                room.take(if column.is_text() { text.len() } else { 0 })?;
            }
            let field = |column: usize| texts.get(column).map_or("", String::as_str);
            let row = R::from_fields(field).map_err(|(column, bad)| {
                Error::malformed(path, at(column), bad.expected, format!("`{}`", escape(field(column))))
            })?;
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Where each column of a row is among those of a file.
fn places<R: Row>(path: &Path, footer: &Footer<'_>) -> Result<Vec<usize>> {
    let place = |(&name, &column): (&&str, &ColumnType)| {
        let found = footer.columns.iter().enumerate().find(|(_, found)| found.name == name);
        let Some((at, found)) = found else {
            let found = footer.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(",");
            return Err(Error::malformed(path, "columns", format!("a column `{name}`"), format!("`{}`", escape(&found))));
        };
        let (physical, _) = types(column.kind);
        if (found.physical, found.nullable) != (physical, column.nullable) {
            let described = |physical: Physical, nullable: bool| format!("{physical}{}", if nullable { " or null" } else { "" });
            let (expected, found) = (described(physical, column.nullable), described(found.physical, found.nullable));
            return Err(Error::malformed(path, format!("column `{name}`"), expected, found));
        }
        Ok(at)
    };
    R::COLUMNS.iter().zip(R::TYPES).map(place).collect()
}

/// A value as the CSV's field: rows are built from text in one place only. (A float's text gives back its bits.)
fn write_text(value: CellValue<'_>, text: &mut String) {
    text.clear();
    // Writing to a string does not fail.
    let _ = match value {
        CellValue::Empty => Ok(()),
        CellValue::Text(name) => text.write_str(name),
        CellValue::Integer(number) => write!(text, "{number}"),
        CellValue::Float(number) => write!(text, "{number:?}"),
    };
}

/// How much memory rows may still take. A few bytes can stand for any number of equal rows; those of a real table differ, and are
/// some twenty times as large as in the file.
struct Room<'a> {
    path: &'a Path,
    most: usize,
    left: usize,
}

impl<'a> Room<'a> {
    /// For any file.
    const LEAST: usize = 16 << 20;
    /// For each byte of a file.
    const TIMES: usize = 48;

    fn new(path: &'a Path, file: usize) -> Self {
        let most = Self::LEAST.saturating_add(file.saturating_mul(Self::TIMES));
        Self { path, most, left: most }
    }

    fn take(&mut self, bytes: usize) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            let expected = format!("at most {} bytes of them in so small a file", self.most);
            Error::malformed(self.path, "number of rows and length of names", expected, "more")
        })?;
        Ok(())
    }
}
