//! Tables as Parquet: a typed column for each of the CSV's, null for "no value", readable by pandas, polars and DuckDB.
//!
//! The same rows give the same bytes: nothing in a file says when or with which version it was made.
//!
//! They are for other programs. This one reads only the CSV, which is always written too.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type, TypePtr};

use super::columns::{CellValue, ColumnType, Row, ValueKind};

/// Rows in a row group, which is what is in memory at a time while a table is written.
const ROWS_TOGETHER: usize = 1 << 16;
/// The writer's name in a file. It has no version, which would change the bytes of the same rows.
const CREATED_BY: &str = "condlora";

/// Writes a table.
///
/// # Errors
/// Only those of `out`.
pub fn write_rows<R: Row>(out: impl Write + Send, rows: &[R]) -> io::Result<()> {
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROWS_TOGETHER));
    for (name, column) in R::COLUMNS.iter().zip(R::TYPES) {
        // The dictionary of a column without any value is an empty page, which fastparquet cannot read.
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(*name), !column.nullable);
    }
    let properties = properties.build();
    let types = column_types(rows);
    let schema = schema::<R>(&types).map_err(as_io)?;
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(as_io)?;
    for rows in rows.chunks(ROWS_TOGETHER) {
        let mut columns: Vec<Written> = types.iter().map(|column| Written::new(*column, rows.len())).collect();
        for row in rows {
            let mut into = columns.iter_mut();
            row.visit(|_, value| into.next().map_or(Ok(()), |column| column.push(value)))?;
        }
        let mut group = writer.next_row_group().map_err(as_io)?;
        for column in columns {
            if let Some(mut open) = group.next_column().map_err(as_io)? {
                column.write(open.untyped()).map_err(as_io)?;
                open.close().map_err(as_io)?;
            }
        }
        group.close().map_err(as_io)?;
    }
    writer.close().map_err(as_io)?;
    Ok(())
}

fn as_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(cause) => io::Error::other(cause),
        },
        other => io::Error::other(other),
    }
}

/// The types of the columns: layers are integers unless one of the column's is a path.
fn column_types<R: Row>(rows: &[R]) -> Vec<ColumnType> {
    let mut types = R::TYPES.to_vec();
    for (column, name) in types.iter_mut().zip(R::COLUMNS) {
        if column.kind == ValueKind::Layer {
            let has_path = rows.iter().any(|row| row.name_in(name).is_some());
            column.kind = if has_path { ValueKind::Text } else { ValueKind::Integer };
        }
    }
    types
}

fn schema<R: Row>(types: &[ColumnType]) -> Result<TypePtr, ParquetError> {
    let fields: Result<Vec<TypePtr>, ParquetError> =
        R::COLUMNS.iter().zip(types).map(|(name, column)| field(name, *column).map(Arc::new)).collect();
    Ok(Arc::new(Type::group_type_builder(R::TABLE).with_fields(fields?).build()?))
}

fn field(name: &str, column: ColumnType) -> Result<Type, ParquetError> {
    let (physical, logical) = types(column.kind);
    let repetition = if column.nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    Type::primitive_type_builder(name, physical).with_logical_type(logical).with_repetition(repetition).build()
}

/// Parquet's name for the type of a column.
fn types(kind: ValueKind) -> (Physical, Option<LogicalType>) {
    match kind {
        ValueKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        ValueKind::Integer | ValueKind::Layer => (Physical::INT64, None),
        ValueKind::Float => (Physical::DOUBLE, None),
    }
}

/// One column of a row group: its values, and for a nullable one which rows have one.
struct Written {
    values: Values,
    present: Option<Vec<i16>>,
}

enum Values {
    Text(Vec<ByteArray>),
    Integer(Vec<i64>),
    Float(Vec<f64>),
}

impl Written {
    fn new(column: ColumnType, rows: usize) -> Self {
        let values = match column.kind {
            ValueKind::Text => Values::Text(Vec::with_capacity(rows)),
            ValueKind::Integer | ValueKind::Layer => Values::Integer(Vec::with_capacity(rows)),
            ValueKind::Float => Values::Float(Vec::with_capacity(rows)),
        };
        Self { values, present: column.nullable.then(|| Vec::with_capacity(rows)) }
    }

    fn push(&mut self, value: CellValue<'_>) -> io::Result<()> {
        if let Some(present) = &mut self.present {
            present.push(i16::from(value != CellValue::Empty));
        }
        match (&mut self.values, value) {
            (_, CellValue::Empty) if self.present.is_some() => {}
            (Values::Text(values), CellValue::Text(text)) => values.push(text.into()),
            // An index in a column of layers that has paths.
            (Values::Text(values), CellValue::Integer(number)) => values.push(number.to_string().as_str().into()),
            (Values::Integer(values), CellValue::Integer(number)) => {
                values.push(i64::try_from(number).map_err(|_| io::Error::other(format!("{number} is too large")))?);
            }
            (Values::Float(values), CellValue::Float(number)) => values.push(number),
            (_, other) => return Err(io::Error::other(format!("{other:?} in a column of another type"))),
        }
        Ok(())
    }

    fn write(&self, to: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let present = self.present.as_deref();
        match (&self.values, to) {
            (Values::Text(values), ColumnWriter::ByteArrayColumnWriter(to)) => to.write_batch(values, present, None)?,
            (Values::Integer(values), ColumnWriter::Int64ColumnWriter(to)) => to.write_batch(values, present, None)?,
            (Values::Float(values), ColumnWriter::DoubleColumnWriter(to)) => to.write_batch(values, present, None)?,
            _ => return Err(ParquetError::General("a column of another type than its values".to_owned())),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;
    use crate::table::rows::{AcrossRow, SpectrumRow};
    use crate::terms::{MatrixKind, Side, SpectrumMatrix, Status};

    fn spectrum(count: usize) -> Vec<SpectrumRow> {
        (0..count)
            .map(|k| SpectrumRow {
                adapter: format!("a/\"{}\",ü", k % 3),
                module: "query".into(),
                matrix: SpectrumMatrix::BA,
                layer: (k % 5 > 0).then_some((k as u32).into()),
                k,
                sigma: 1.0 / (k as f64 + 0.3),
            })
            .collect()
    }

    fn written<R: Row>(rows: &[R]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write_rows(&mut file, rows).unwrap();
        file
    }

    /// The rows of a file, by the crate's own reader.
    fn back(path: &Path) -> Vec<SpectrumRow> {
        let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
        let row = |row: parquet::record::Row| SpectrumRow {
            adapter: row.get_string(0).unwrap().clone(),
            module: row.get_string(1).unwrap().clone(),
            matrix: row.get_string(2).unwrap().parse().unwrap(),
            layer: row.get_long(3).ok().map(|layer| (layer as u32).into()),
            k: row.get_long(4).unwrap() as usize,
            sigma: row.get_double(5).unwrap(),
        };
        reader.get_row_iter(None).unwrap().map(|found| row(found.unwrap())).collect()
    }

    #[test]
    fn rows_come_back_with_every_bit_and_bytes_do_not_change() {
        let rows = spectrum(ROWS_TOGETHER + 17);
        let (one, two) = (written(&rows), written(&rows));
        assert_eq!(back(one.path()), rows);
        assert_eq!(std::fs::read(one.path()).unwrap(), std::fs::read(two.path()).unwrap());
        let reader = SerializedFileReader::new(std::fs::File::open(one.path()).unwrap()).unwrap();
        assert_eq!((reader.num_row_groups(), reader.metadata().file_metadata().created_by()), (2, Some("condlora")));
        assert!(back(written::<SpectrumRow>(&[]).path()).is_empty());
    }

    #[test]
    fn layers_are_integers_unless_one_is_a_path() {
        let mut rows = spectrum(8);
        let kind = |rows: &[SpectrumRow]| column_types(rows)[3].kind;
        assert_eq!(kind(&rows), ValueKind::Integer);
        rows[7].layer = Some("layers.1.blocks.0".parse().unwrap());
        assert_eq!(kind(&rows), ValueKind::Text);
        let reader = SerializedFileReader::new(written(&rows).reopen().unwrap()).unwrap();
        let layers = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().get_string(3).ok().cloned());
        assert!(layers.eq(rows.iter().map(|row| row.layer.as_ref().map(ToString::to_string))));
    }

    /// The dictionary of a column that is all null would be an empty page.
    #[test]
    fn columns_that_may_be_empty_have_no_dictionary() {
        let rows: Vec<SpectrumRow> = spectrum(10).into_iter().map(|row| SpectrumRow { layer: None, ..row }).collect();
        let reader = SerializedFileReader::new(written(&rows).reopen().unwrap()).unwrap();
        let pages = |column: usize| reader.metadata().row_group(0).column(column).dictionary_page_offset();
        let of = |name: &str| pages(SpectrumRow::COLUMNS.iter().position(|column| *column == name).unwrap());
        assert_eq!((of("layer"), of("adapter").is_some()), (None, true));
    }

    #[test]
    fn columns_have_types_and_no_value_is_null() {
        let row = AcrossRow {
            module: "value".into(),
            layer: None,
            matrix: MatrixKind::LoraA,
            side: Side::Right,
            i: 1,
            j: 8,
            adapter_a: "a".into(),
            adapter_b: "b".into(),
            phi: None,
            gaussian_expected: Some(f64::NAN),
            w0_expected: None,
            init: None,
            status: Status::Rank,
        };
        let file = written(&[row]);
        let reader = SerializedFileReader::new(std::fs::File::open(file.path()).unwrap()).unwrap();
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(
            rows,
            ["{module: \"value\", layer: null, matrix: \"lora_A\", side: \"right\", i: 1, j: 8, adapter_a: \"a\", \
              adapter_b: \"b\", phi: null, gaussian_expected: null, w0_expected: null, init: null, status: \"rank\"}"]
        );
        let types: Vec<(String, Physical, i16)> = reader
            .metadata()
            .file_metadata()
            .schema_descr()
            .columns()
            .iter()
            .map(|column| (column.name().to_owned(), column.physical_type(), column.max_def_level()))
            .collect();
        assert_eq!(types[1], ("layer".to_owned(), Physical::INT64, 1));
        assert_eq!(types[4], ("i".to_owned(), Physical::INT64, 0));
        assert_eq!(types[8], ("phi".to_owned(), Physical::DOUBLE, 1));
        assert_eq!(types[12], ("status".to_owned(), Physical::BYTE_ARRAY, 0));
    }

    /// The writer makes pages of 20,000 rows, and goes on without a dictionary that becomes a megabyte.
    #[test]
    fn columns_of_many_pages_with_and_without_a_dictionary() {
        let rows: Vec<SpectrumRow> =
            spectrum(60_000).into_iter().map(|row| SpectrumRow { adapter: format!("{:0>40}", row.k), ..row }).collect();
        assert_eq!(back(written(&rows).path()), rows);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = write_rows(full, &spectrum(100_000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error:?}");
    }
}
