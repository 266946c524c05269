//! Tables as CSV: UTF-8, comma, `\n`, a header, an empty field for "no value", names quoted by RFC 4180.
//!
//! Names are written as they are. A name that a spreadsheet would take for a formula stays what it was in the
//! checkpoint: changing it would break joins with other tables.

use std::io::{self, Write};
use std::path::Path;

use super::columns::{CellValue, Row};
use crate::error::{Error, Result, escape, in_words};
use crate::terms::LayerId;

/// Bytes read at a time.
const BUFFER: usize = 64 << 10;

/// A float in the shortest form that reads back as the same bits, with an exponent (`1e-9`) where Python's `repr` has one
/// (below 1e-4 and from 1e16): `0.0262`, `1.0`, `1e-17`. That is what Rust's `Debug` form does.
struct ShortestFloat {
    text: [u8; 32],
    used: usize,
}

impl ShortestFloat {
    fn new() -> Self {
        Self { text: [0; 32], used: 0 }
    }

    fn format(&mut self, value: f64) -> io::Result<&[u8]> {
        let mut rest = &mut self.text[..];
        write!(rest, "{value:?}")?;
        let unused = rest.len();
        self.used = self.text.len() - unused;
        Ok(&self.text[..self.used])
    }
}

fn table_writer<W: Write>(out: W) -> csv::Writer<W> {
    csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(out)
}

/// Ends a table explicitly, because dropping a `csv::Writer` loses the error of its last write.
fn finish<W: Write>(mut writer: csv::Writer<W>) -> io::Result<()> {
    writer.flush()
}

fn write_cell<W: Write>(writer: &mut csv::Writer<W>, float: &mut ShortestFloat, value: CellValue<'_>) -> io::Result<()> {
    match value {
        CellValue::Empty => writer.write_field([]),
        CellValue::Text(text) => writer.write_field(text),
        CellValue::Integer(value) => writer.write_field(value.to_string()),
        CellValue::Float(value) => writer.write_field(float.format(value)?),
    }
    .map_err(io::Error::from)
}

fn end_row<W: Write>(writer: &mut csv::Writer<W>) -> io::Result<()> {
    writer.write_record(None::<&[u8]>).map_err(io::Error::from)
}

/// Writes a table with its header.
///
/// # Errors
/// Only those of `out`.
pub fn write_rows<R: Row>(out: impl Write, rows: &[R]) -> io::Result<()> {
    let mut writer = table_writer(out);
    let mut float = ShortestFloat::new();
    writer.write_record(R::COLUMNS)?;
    for row in rows {
        row.visit(|_, value| write_cell(&mut writer, &mut float, value))?;
        end_row(&mut writer)?;
    }
    finish(writer)
}

/// Writes a grid with names of its rows and columns, as the files in `matrices/` hold it.
///
/// # Errors
/// Only those of `out`.
pub(super) fn write_grid(out: impl Write, corner: &str, layers: &[LayerId], values: &[Option<f64>]) -> io::Result<()> {
    let mut writer = table_writer(out);
    let mut float = ShortestFloat::new();
    writer.write_field(corner)?;
    for layer in layers {
        writer.write_field(layer.to_string())?;
    }
    end_row(&mut writer)?;
    for (layer, row) in layers.iter().zip(values.chunks(layers.len().max(1))) {
        writer.write_field(layer.to_string())?;
        for value in row {
            write_cell(&mut writer, &mut float, value.map_or(CellValue::Empty, CellValue::Float))?;
        }
        end_row(&mut writer)?;
    }
    finish(writer)
}

/// Reads a table back. Columns may be in any order, and there may be more; each of ours must be there once.
///
/// # Errors
/// [`Error::Missing`] if the file cannot be read, [`Error::Malformed`] with line and column if it is not such a table.
pub fn read_rows<R: Row>(path: &Path) -> Result<Vec<R>> {
    let file = std::fs::File::open(path).map_err(|error| Error::missing(path, in_words(&error)))?;
    read_rows_from(path, file)
}

/// [`read_rows`] from anything that can be read; `path` is for messages.
///
/// # Errors
/// Those of [`read_rows`].
pub fn read_rows_from<R: Row>(path: &Path, input: impl io::Read) -> Result<Vec<R>> {
    let mut reader = csv::ReaderBuilder::new().buffer_capacity(BUFFER).from_reader(input);
    let header = reader.headers().map_err(|error| bad_csv(path, error))?.clone();
    let mut positions = Vec::with_capacity(R::COLUMNS.len());
    for &column in R::COLUMNS {
        let mut found = header.iter().enumerate().filter(|(_, name)| *name == column).map(|(index, _)| index);
        match (found.next(), found.next()) {
            (Some(index), None) => positions.push(index),
            (Some(_), Some(_)) => {
                return Err(Error::malformed(path, format!("line 1: column `{column}`"), "it once", "it more than once"));
            }
            (None, _) => {
                let found = escape(&header.iter().collect::<Vec<_>>().join(","));
                return Err(Error::malformed(path, "line 1: header", format!("a column `{column}`"), format!("`{found}`")));
            }
        }
    }
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| bad_csv(path, error))? {
        // The reader has checked that the record is as long as the header.
        let row = R::from_fields(positions.iter().map(|&at| &record[at])).map_err(|bad| {
            let line = record.position().map_or(0, csv::Position::line);
            let what = format!("line {line}, column `{}`", bad.column);
            Error::malformed(path, what, bad.expected, format!("`{}`", escape(bad.found)))
        })?;
        rows.push(row);
    }
    Ok(rows)
}

fn bad_csv(path: &Path, error: csv::Error) -> Error {
    let line = error.position().map(csv::Position::line);
    let at = line.map_or_else(|| "table".to_owned(), |line| format!("line {line}"));
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::missing(path, in_words(&error)),
        csv::ErrorKind::Utf8 { err, .. } => {
            Error::malformed(path, at, "UTF-8", format!("other bytes in field {}", err.field() + 1))
        }
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Error::malformed(path, at, format!("{expected_len} fields, as in the header"), format!("{len}"))
        }
        _ => Error::malformed(path, at, "a CSV table", "something else"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rows::{ConversionRow, SimilarityRow, SpectrumRow, SummaryRow};
    use super::*;
    use crate::terms::{Convention, MatrixKind, Method, Side, SpectrumMatrix, Status};

    fn text<R: Row>(rows: &[R]) -> String {
        let mut bytes = Vec::new();
        write_rows(&mut bytes, rows).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn back<R: Row>(text: &str) -> Result<Vec<R>> {
        read_rows_from(Path::new("t.csv"), text.as_bytes())
    }

    fn spectrum(adapter: &str, sigma: f64) -> SpectrumRow {
        SpectrumRow {
            adapter: adapter.into(),
            module: "query".into(),
            matrix: SpectrumMatrix::BA,
            layer: Some(3.into()),
            k: 1,
            sigma,
        }
    }

    #[test]
    fn floats_are_short_and_come_back() {
        let mut float = ShortestFloat::new();
        for (value, expected) in [
            (0.0262, "0.0262"),
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1e-17, "1e-17"),
            (0.0001, "0.0001"),
            (123_456.75, "123456.75"),
            (1e22, "1e22"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (-f64::MAX, "-1.7976931348623157e308"),
        ] {
            assert_eq!(std::str::from_utf8(float.format(value).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn names_are_quoted_and_numbers_never_nan() {
        let rows = [spectrum("a,\"b\"\nc", 0.5), spectrum("=1+1", f64::NAN)];
        assert_eq!(text(&rows), "adapter,module,matrix,layer,k,sigma\n\"a,\"\"b\"\"\nc\",query,BA,3,1,0.5\n=1+1,query,BA,3,1,\n");
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        let head = "adapter,module,matrix,layer,k,sigma\n";
        let message = |body: &str| {
            let error = back::<SpectrumRow>(&format!("{head}{body}")).unwrap_err();
            assert_eq!(error.exit_code(), 4);
            error.to_string()
        };
        assert_eq!(
            message("\"a\nb\",q,A,0,1,2\na,q,A,0,1,nan\n"),
            "t.csv: line 4, column `sigma`; expected a finite number, found `nan`"
        );
        assert_eq!(
            message("a,q,A,-1,1,2\n"),
            "t.csv: line 2, column `layer`; expected a layer index from 0, or a path of blocks, found `-1`"
        );
        assert_eq!(
            message("a,q,C\x1b,0,1,2\n"),
            "t.csv: line 2, column `matrix`; expected one of A, B, BA, delta, found `C\\u{1b}`"
        );
        assert_eq!(message("a,q\n"), "t.csv: line 2; expected 6 fields, as in the header, found 2");
        let error = back::<SpectrumRow>("adapter,module\n").unwrap_err();
        assert_eq!(error.to_string(), "t.csv: line 1: header; expected a column `matrix`, found `adapter,module`");
        let error = read_rows_from::<SpectrumRow>(Path::new("t.csv"), &b"\xff\xfe,b\n"[..]).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert_eq!(read_rows::<SpectrumRow>(Path::new("/nonexistent/t.csv")).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn columns_may_be_moved_and_added() {
        let text = "note,sigma,k,layer,matrix,module,adapter\nx,0.5,1,3,BA,query,a\n";
        assert_eq!(back::<SpectrumRow>(text).unwrap(), [spectrum("a", 0.5)]);
    }

    #[test]
    fn a_full_disk_is_noticed() {
        let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
        assert!(write_rows(full, &[spectrum("a", 1.0)]).is_err());
    }

    fn any_layer() -> impl Strategy<Value = Option<LayerId>> {
        prop_oneof![
            Just(None),
            any::<u32>().prop_map(|index| Some(index.into())),
            "[a-z,\"_]{1,9}\\.[0-9]{1,2}".prop_map(|path| path.parse().ok())
        ]
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), Just(String::new()), "[a-z,\"\r\n \t;'=+@-]{0,9}", Just("модуль/名前".to_owned())]
    }

    fn finite() -> impl Strategy<Value = f64> {
        any::<f64>().prop_filter("finite", |value| value.is_finite())
    }

    fn some() -> impl Strategy<Value = Option<f64>> {
        proptest::option::of(finite())
    }

    fn matrix() -> impl Strategy<Value = MatrixKind> {
        proptest::sample::select(vec![
            MatrixKind::A,
            MatrixKind::B,
            MatrixKind::BA,
            MatrixKind::LoraA,
            MatrixKind::LoraB,
            MatrixKind::LearnedA,
        ])
    }

    fn status() -> impl Strategy<Value = Status> {
        proptest::sample::select(vec![Status::Skipped, Status::Zero, Status::Unreliable, Status::LowConfidence, Status::Ok])
    }

    prop_compose! {
        fn summary_row()(
            names in [any_name(), any_name()], matrix in matrix(), side in proptest::sample::select(vec![Side::Left, Side::Right]),
            counts in any::<[usize; 3]>(), f in proptest::array::uniform12(some()), status in status(),
        ) -> SummaryRow {
            let [adapter, module] = names;
            SummaryRow {
                adapter, module, matrix, side, i: counts[0], j: counts[1], layers: counts[2],
                phi_mean: f[0], phi_min: f[1], phi_max: f[2], gaussian_expected: f[3], gaussian_mean: f[4], gaussian_sd: f[5],
                w0_mean: f[6], w0_sd: f[7], w0_expected: f[11], w0_z: f[8], w0_p: f[9], init_mean: f[10], status,
            }
        }
    }

    prop_compose! {
        fn similarity_row()(
            names in [any_name(), any_name()], matrix in matrix(), ij in any::<[usize; 2]>(), layers in any::<[u32; 2]>(),
            f in proptest::array::uniform8(some()), status in status(),
        ) -> SimilarityRow {
            let [adapter, module] = names;
            SimilarityRow {
                adapter, module, matrix, side: Side::Right, i: ij[0], j: ij[1], layer_a: (layers[0]).into(), layer_b: (layers[1]).into(),
                phi: f[0], phi_error_bound: f[1], gaussian_mean: f[2], gaussian_sd: f[3], w0_mean: f[4], w0_sd: f[5], w0_expected: f[7],
                init: f[6], status,
            }
        }
    }

    prop_compose! {
        fn conversion_row()(
            names in proptest::array::uniform6(any_name()), layer in any_layer(), sizes in any::<[usize; 4]>(),
            g in finite(), f in proptest::array::uniform8(some()), status in status(),
            method in proptest::sample::select(vec![Method::Lu, Method::LuRefined, Method::LeastSquares]),
        ) -> ConversionRow {
            let [adapter, module, adapter_key, tensor, w0_dtype, adapter_dtype] = names;
            ConversionRow {
                adapter, module, layer, adapter_key, tensor, out_features: sizes[0], in_features: sizes[1], rank: sizes[2],
                scaling: g, convention: Convention::General, method, w0_dtype, adapter_dtype, w0_rank: sizes[3],
                w0_condition: f[0], residual_a: f[1], residual_b: f[2], backward_error_a: f[3], backward_error_b: f[4],
                norm_a: f[5], norm_b: f[6], norm_delta: f[7], status,
            }
        }
    }

    proptest! {
        #[test]
        fn summary_comes_back(rows in proptest::collection::vec(summary_row(), 0..4)) {
            prop_assert_eq!(back::<SummaryRow>(&text(&rows)).unwrap(), rows);
        }

        #[test]
        fn similarity_comes_back(rows in proptest::collection::vec(similarity_row(), 0..4)) {
            prop_assert_eq!(back::<SimilarityRow>(&text(&rows)).unwrap(), rows);
        }

        #[test]
        fn conversion_comes_back(rows in proptest::collection::vec(conversion_row(), 0..4)) {
            prop_assert_eq!(back::<ConversionRow>(&text(&rows)).unwrap(), rows);
        }

        #[test]
        fn spectrum_comes_back(name in any_name(), sigma in finite()) {
            let rows = [spectrum(&name, sigma)];
            prop_assert_eq!(back::<SpectrumRow>(&text(&rows)).unwrap(), rows);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let mut table = b"adapter,module,matrix,layer,k,sigma\n".to_vec();
            table.extend(bytes);
            let _ = read_rows_from::<SpectrumRow>(Path::new("t.csv"), &table[..]);
        }
    }
}
