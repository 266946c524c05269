//! Rows as JSON: an array of objects under the CSV's names, `null` for "no value".

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::columns::Row;
use super::rows::SummaryRow;

struct JsonRow<'a, R>(&'a R);

impl<R: Row> Serialize for JsonRow<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(R::COLUMNS.len()))?;
        self.0.visit(|column, value| map.serialize_entry(column, &value))?;
        map.end()
    }
}

struct JsonRows<'a, R>(&'a [R]);

impl<R: Row> Serialize for JsonRows<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for row in self.0 {
            list.serialize_element(&JsonRow(row))?;
        }
        list.end()
    }
}

/// Any table's rows as a JSON array, indented, with a newline at the end.
#[must_use]
pub fn rows_json<R: Row>(rows: &[R]) -> String {
    json::pretty(&JsonRows(rows))
}

/// The summary as `--json` prints it.
#[must_use]
pub fn summary_json(rows: &[SummaryRow]) -> String {
    rows_json(rows)
}

#[cfg(test)]
mod tests {
    use super::super::rows::SpectrumRow;
    use super::*;
    use crate::json;
use crate::terms::MatrixKind;

    #[test]
    fn objects_keep_the_columns_order_and_say_null() {
        let row = SpectrumRow {
            adapter: "a\"\n\u{1b}".into(),
            module: "query".into(),
            matrix: MatrixKind::LoraA,
            layer: None,
            k: 1,
            sigma: f64::NAN,
        };
        let text = rows_json(&[row]);
        assert_eq!(
            text.split_whitespace().collect::<String>(),
            r#"[{"adapter":"a\"\n\u001b","module":"query","matrix":"lora_A","layer":null,"k":1,"sigma":null}]"#
        );
        assert_eq!(summary_json(&[]), "[]\n");
    }
}
