//! The page's tables: the rows of the CSVs, of long ones only the first.

use std::convert::Infallible;

use serde::Serialize;

use super::text::{self, Number};
use crate::table::columns::{CellValue, Row, ValueKind};

/// Longer tables are cut here.
pub(super) const MOST_ROWS: usize = 1000;

/// One table.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    /// The CSV's name without its ending.
    table: &'static str,
    title: &'static str,
    about: &'static str,
    columns: Vec<Column>,
    rows: Vec<Vec<Field>>,
    /// A note that rows are missing, and where they are.
    note: Option<String>,
}

#[derive(Debug, Serialize)]
struct Column {
    name: &'static str,
    numeric: bool,
}

/// One field: a name, or a number as it is shown and exactly.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Field {
    Number(Number),
    Text(String),
}

impl Listing {
    /// The columns of some rows but for those `left_out`.
    pub(super) fn of<R: Row>(title: &'static str, about: &'static str, rows: &[R], left_out: &[&str]) -> Self {
        let columns = R::COLUMNS.iter().zip(R::TYPES).filter(|(name, _)| !left_out.contains(name));
        let field = |name: &str, value: CellValue<'_>| match value {
            CellValue::Empty => Field::Text(String::new()),
            CellValue::Text(text) => Field::Text(text::visible(text)),
            CellValue::Integer(value) => Field::Text(value.to_string()),
            CellValue::Float(value) => Number::new(value, writer_of(name)).map_or(Field::Text(String::new()), Field::Number),
        };
        let fields = |row: &R| {
            let mut fields = Vec::with_capacity(R::COLUMNS.len());
            let visited: Result<(), Infallible> = row.visit(|name, value| {
                if !left_out.contains(&name) {
                    fields.push(field(name, value));
                }
                Ok(())
            });
            let Ok(()) = visited;
            fields
        };
        let note = (rows.len() > MOST_ROWS)
            .then(|| format!("The first {} of {} rows.", text::thousands(MOST_ROWS), text::thousands(rows.len())));
        Self {
            table: R::TABLE,
            title,
            about,
            columns: columns.map(|(name, kind)| Column { name, numeric: kind.kind != ValueKind::Text }).collect(),
            rows: rows.iter().take(MOST_ROWS).map(fields).collect(),
            note,
        }
    }

    /// Whether there is anything to list.
    pub(super) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }
}

/// How the numbers of a column are written.
fn writer_of(column: &str) -> fn(f64) -> String {
    match column {
        "w0_z" => text::signed,
        "w0_p" | "flip_p" | "shuffled_p" | "p" | "p_more" | "p_fewer" => text::p,
        "phi" | "init" => text::phi,
        name if name.starts_with("phi_m") || name.starts_with("gaussian_") => text::phi,
        "w0_mean" | "w0_sd" | "init_mean" | "flip_mean" | "chance" => text::phi,
        _ => text::general,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::SpectrumRow;
    use crate::terms::SpectrumMatrix;

    #[test]
    fn long_tables_are_cut_with_a_word_about_it() {
        let row = |k| SpectrumRow {
            adapter: "a\u{1b}".into(),
            module: "q".into(),
            matrix: SpectrumMatrix::A,
            layer: None,
            k,
            sigma: 0.5,
        };
        let rows: Vec<SpectrumRow> = (0..MOST_ROWS + 234).map(row).collect();
        let listing = Listing::of("Spectrum", "", &rows, &["module", "matrix", "k"]);
        assert_eq!(listing.rows.len(), MOST_ROWS);
        assert_eq!(listing.note.as_deref(), Some("The first 1,000 of 1,234 rows."));
        let json = serde_json::to_string(&listing.rows[0]).unwrap();
        assert_eq!(json, r#"["a\\u{1b}","",{"shown":"0.5000","exact":"0.5"}]"#);
        assert!(Listing::of("Spectrum", "", &rows[..1], &[]).note.is_none());
    }
}
