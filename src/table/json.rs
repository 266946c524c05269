//! Rows as JSON: an array of objects under the CSV's names, `null` for "no value".

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::columns::Row;
use crate::json;

/// A row, and fields that its table does not have.
struct JsonRow<'a, R, const N: usize>(&'a R, [(&'static str, Value); N]);

impl<R: Row, const N: usize> Serialize for JsonRow<'_, R, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(R::COLUMNS.len() + N))?;
        self.0.visit(|column, value| map.serialize_entry(column, &value))?;
        for (name, value) in &self.1 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

struct JsonRows<'a, R, F>(&'a [R], F);

impl<R: Row, F: Fn(usize) -> [(&'static str, Value); N], const N: usize> Serialize for JsonRows<'_, R, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (index, row) in self.0.iter().enumerate() {
            list.serialize_element(&JsonRow(row, self.1(index)))?;
        }
        list.end()
    }
}

/// Any table's rows, to be written as a JSON array. `more` gives additional fields, which follow the row's own.
pub fn rows_as_json<'a, R: Row, const N: usize>(
    rows: &'a [R],
    more: impl Fn(usize) -> [(&'static str, Value); N] + 'a,
) -> impl Serialize + 'a {
    JsonRows(rows, more)
}

/// [`rows_as_json`] as text, indented, with a newline at the end.
#[must_use]
pub fn rows_json_with<R: Row, const N: usize>(rows: &[R], more: impl Fn(usize) -> [(&'static str, Value); N]) -> String {
    json::pretty(&JsonRows(rows, more))
}

#[cfg(test)]
mod tests {
    use super::super::rows::SpectrumRow;
    use super::*;
    use crate::terms::SpectrumMatrix;

    #[test]
    fn objects_keep_the_columns_order_and_say_null() {
        let row = SpectrumRow {
            adapter: "a\"\n\u{1b}".into(),
            module: "query".into(),
            matrix: SpectrumMatrix::Delta,
            layer: None,
            k: 1,
            sigma: f64::NAN,
        };
        let text = rows_json_with(&[row], |_| [("answer", Value::Null), ("words", "none".into())]);
        assert_eq!(
            text.split_whitespace().collect::<String>(),
            r#"[{"adapter":"a\"\n\u001b","module":"query","matrix":"delta","layer":null,"k":1,"sigma":null,"answer":null,"words":"none"}]"#
        );
        assert_eq!(rows_json_with::<SpectrumRow, 0>(&[], |_| []), "[]\n");
    }
}
