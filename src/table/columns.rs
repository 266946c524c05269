//! The columns of each table: one list for a row type, from which every format writes and reads.
//!
//! A format sees a row as names and [`CellValue`]s, so that a new one needs no list of its own, and
//! the CSV and the JSON of a row cannot drift apart.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::rows::{
    AcrossRow, CompareAverageRow, CompareRow, ConversionRow, FitRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow,
    TrainingRow,
};
use crate::terms::{Convention, MatrixKind, Measure, Method, Side, Status, UpdateMatrix};

/// What stands in one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CellValue<'a> {
    /// No value: an empty field, or `null`.
    Empty,
    /// A name.
    Text(&'a str),
    /// A count or an index.
    Integer(u64),
    /// A finite number.
    Float(f64),
}

impl CellValue<'_> {
    /// A float, or no value where it is not finite: no table ever holds NaN or an infinity.
    fn finite(value: f64) -> Self {
        if value.is_finite() { Self::Float(value) } else { Self::Empty }
    }
}

/// The kind of value that a column holds, where it holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Names.
    Text,
    /// Counts and indices.
    Integer,
    /// Finite numbers.
    Float,
}

/// What a column can hold, whatever is in it: a typed format needs to know before the first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnType {
    /// The kind of its values.
    pub kind: ValueKind,
    /// Whether a field may be without a value.
    pub nullable: bool,
}

/// The type of the column that a row's field is.
const fn column_type<R, C: Cell>(_: fn(&R) -> &C) -> ColumnType {
    C::TYPE
}

impl Serialize for CellValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Empty => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Integer(value) => serializer.serialize_u64(value),
            Self::Float(value) => serializer.serialize_f64(value),
        }
    }
}

/// Why a field's text is no value of its column: what would be one.
#[derive(Debug)]
pub struct BadCell {
    /// The kind of value the column holds.
    pub expected: Cow<'static, str>,
}

impl BadCell {
    fn expected(what: &'static str) -> Self {
        Self { expected: Cow::Borrowed(what) }
    }
}

/// A type that a column can hold.
pub trait Cell: Sized {
    /// What such a column holds.
    const TYPE: ColumnType;
    /// The value to write.
    fn value(&self) -> CellValue<'_>;
    /// The value that a field's text stands for.
    fn parse(text: &str) -> Result<Self, BadCell>;
}

impl Cell for String {
    const TYPE: ColumnType = ColumnType { kind: ValueKind::Text, nullable: false };
    fn value(&self) -> CellValue<'_> {
        CellValue::Text(self)
    }
    fn parse(text: &str) -> Result<Self, BadCell> {
        Ok(text.to_owned())
    }
}

impl Cell for f64 {
    /// Nullable, because what is not finite is written as no value.
    const TYPE: ColumnType = ColumnType { kind: ValueKind::Float, nullable: true };
    fn value(&self) -> CellValue<'_> {
        CellValue::finite(*self)
    }
    fn parse(text: &str) -> Result<Self, BadCell> {
        // `f64::from_str` also takes "nan" and "inf", which no table of ours holds.
        text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| BadCell::expected("a finite number"))
    }
}

macro_rules! integer_cells {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            const TYPE: ColumnType = ColumnType { kind: ValueKind::Integer, nullable: false };
            fn value(&self) -> CellValue<'_> {
                CellValue::Integer(u64::try_from(*self).unwrap_or(u64::MAX))
            }
            fn parse(text: &str) -> Result<Self, BadCell> {
                text.parse().map_err(|_| BadCell::expected("a whole number from 0"))
            }
        }
    )+};
}
integer_cells!(u32, usize);

macro_rules! named_cells {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            const TYPE: ColumnType = ColumnType { kind: ValueKind::Text, nullable: false };
            fn value(&self) -> CellValue<'_> {
                CellValue::Text(self.name())
            }
            fn parse(text: &str) -> Result<Self, BadCell> {
                // The message is "a matrix must be one of A, B": the error's own frame says the first half.
                text.parse().map_err(|message: String| BadCell {
                    expected: Cow::Owned(message.split_once("must be ").map_or(message.clone(), |(_, names)| names.to_owned())),
                })
            }
        }
    )+};
}
named_cells!(MatrixKind, Side, Convention, Method, Status, Measure, UpdateMatrix);

/// An optional number, or a name of which none is empty. (An optional free name would not be told from an empty one.)
macro_rules! optional_cells {
    ($($type:ty),+) => {$(
        impl Cell for Option<$type> {
            const TYPE: ColumnType = ColumnType { kind: <$type>::TYPE.kind, nullable: true };
            fn value(&self) -> CellValue<'_> {
                self.as_ref().map_or(CellValue::Empty, Cell::value)
            }
            fn parse(text: &str) -> Result<Self, BadCell> {
                if text.is_empty() { Ok(None) } else { Cell::parse(text).map(Some) }
            }
        }
    )+};
}
optional_cells!(f64, u32, usize, Side);

/// A table's row: its file, its columns, and how to go through them.
pub trait Row: Sized {
    /// The table's name, which is its file's without the ending.
    const TABLE: &'static str;
    /// The column names, in the order they are written.
    const COLUMNS: &'static [&'static str];
    /// What each column can hold, in the same order.
    const TYPES: &'static [ColumnType];

    /// Hands every column's value to `visit`, in order; stops at the first error.
    fn visit<E>(&self, visit: impl FnMut(&'static str, CellValue<'_>) -> Result<(), E>) -> Result<(), E>;

    /// Builds a row from the text of its fields.
    ///
    /// `field` gives the text of the column with that index. An error carries the index of the column that is wrong.
    fn from_fields<'f>(field: impl Fn(usize) -> &'f str) -> Result<Self, (usize, BadCell)>;
}

/// Lists a row type's columns. A field that is missing here, or out of place, does not compile or fails the test below.
macro_rules! columns {
    ($row:ty, $table:literal, [$($column:ident),+ $(,)?]) => {
        impl Row for $row {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$(stringify!($column)),+];
            const TYPES: &'static [ColumnType] = &[$(column_type(|row: &$row| &row.$column)),+];

            fn visit<E>(
                &self,
                mut visit: impl FnMut(&'static str, CellValue<'_>) -> Result<(), E>,
            ) -> Result<(), E> {
                $(visit(stringify!($column), self.$column.value())?;)+
                Ok(())
            }

            fn from_fields<'f>(field: impl Fn(usize) -> &'f str) -> Result<Self, (usize, BadCell)> {
                let mut next = 0..;
                // Fields of a struct expression are evaluated in the order they are written.
                Ok(Self {
                    $($column: {
                        let index = next.next().unwrap_or(0);
                        Cell::parse(field(index)).map_err(|bad| (index, bad))?
                    }),+
                })
            }
        }
    };
}

columns!(
    SummaryRow,
    "summary",
    [
        adapter,
        module,
        matrix,
        side,
        i,
        j,
        layers,
        phi_mean,
        phi_min,
        phi_max,
        gaussian_expected,
        gaussian_mean,
        gaussian_sd,
        w0_mean,
        w0_sd,
        w0_z,
        w0_p,
        init_mean,
        status,
    ]
);
columns!(
    SimilarityRow,
    "similarity",
    [
        adapter,
        module,
        matrix,
        side,
        i,
        j,
        layer_a,
        layer_b,
        phi,
        phi_error_bound,
        gaussian_mean,
        gaussian_sd,
        w0_mean,
        w0_sd,
        init,
        status,
    ]
);
columns!(
    ConversionRow,
    "conversion",
    [
        adapter,
        module,
        layer,
        adapter_key,
        tensor,
        out_features,
        in_features,
        rank,
        scaling,
        convention,
        method,
        w0_dtype,
        adapter_dtype,
        w0_rank,
        w0_condition,
        residual_a,
        residual_b,
        backward_error_a,
        backward_error_b,
        norm_a,
        norm_b,
        norm_delta,
        status,
    ]
);
columns!(SpectrumRow, "spectrum", [adapter, module, matrix, layer, k, sigma]);
columns!(AcrossRow, "across", [module, layer, matrix, side, i, j, adapter_a, adapter_b, phi, gaussian_expected, status]);
columns!(GridRow, "grid", [adapter, module, matrix, side, layer_a, layer_b, i, j, phi, gaussian_expected, status]);
columns!(FitRow, "fit", [module, matrix, layer, residual, residual_expected, residual_sd, p, status]);
columns!(TrainingRow, "training", [adapter, step, epoch, name, value]);
columns!(
    MeasureRow,
    "measures",
    [adapter, module, matrix, side, i, j, layer_a, layer_b, measure, value, gaussian_mean, gaussian_sd, w0_mean, w0_sd, status,]
);
columns!(
    CompareRow,
    "compare",
    [left, right, module, layer, matrix, side, i, j, phi, gaussian_expected, w0_mean, w0_sd, w0_p, status]
);
columns!(
    CompareAverageRow,
    "compare_averages",
    [left, right, module, matrix, side, i, j, layers, phi_mean, gaussian_expected, w0_mean, w0_sd, w0_p, status]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_that_are_promised() {
        assert_eq!(
            SummaryRow::COLUMNS.join(","),
            "adapter,module,matrix,side,i,j,layers,phi_mean,phi_min,phi_max,gaussian_expected,gaussian_mean,gaussian_sd,\
             w0_mean,w0_sd,w0_z,w0_p,init_mean,status"
        );
        assert_eq!(
            SimilarityRow::COLUMNS.join(","),
            "adapter,module,matrix,side,i,j,layer_a,layer_b,phi,phi_error_bound,gaussian_mean,gaussian_sd,w0_mean,w0_sd,\
             init,status"
        );
        assert_eq!(
            ConversionRow::COLUMNS.join(","),
            "adapter,module,layer,adapter_key,tensor,out_features,in_features,rank,scaling,convention,method,w0_dtype,\
             adapter_dtype,w0_rank,w0_condition,residual_a,residual_b,backward_error_a,backward_error_b,norm_a,norm_b,\
             norm_delta,status"
        );
        assert_eq!(SpectrumRow::COLUMNS.join(","), "adapter,module,matrix,layer,k,sigma");
        assert_eq!(
            CompareRow::COLUMNS.join(","),
            "left,right,module,layer,matrix,side,i,j,phi,gaussian_expected,w0_mean,w0_sd,w0_p,status"
        );
        assert_eq!(AcrossRow::COLUMNS.join(","), "module,layer,matrix,side,i,j,adapter_a,adapter_b,phi,gaussian_expected,status");
        assert_eq!(GridRow::COLUMNS.join(","), "adapter,module,matrix,side,layer_a,layer_b,i,j,phi,gaussian_expected,status");
        assert_eq!(TrainingRow::COLUMNS.join(","), "adapter,step,epoch,name,value");
        assert_eq!(FitRow::COLUMNS.join(","), "module,matrix,layer,residual,residual_expected,residual_sd,p,status");
        assert_eq!(
            MeasureRow::COLUMNS.join(","),
            "adapter,module,matrix,side,i,j,layer_a,layer_b,measure,value,gaussian_mean,gaussian_sd,w0_mean,w0_sd,status"
        );
    }

    #[test]
    fn types_are_those_of_the_fields() {
        let of = |name| SpectrumRow::TYPES[SpectrumRow::COLUMNS.iter().position(|column| *column == name).unwrap()];
        assert_eq!(of("matrix"), ColumnType { kind: ValueKind::Text, nullable: false });
        assert_eq!(of("layer"), ColumnType { kind: ValueKind::Integer, nullable: true });
        assert_eq!(of("k"), ColumnType { kind: ValueKind::Integer, nullable: false });
        assert_eq!(of("sigma"), ColumnType { kind: ValueKind::Float, nullable: true });
    }

    #[test]
    fn what_is_not_finite_is_no_value() {
        assert_eq!(Some(f64::NAN).value(), CellValue::Empty);
        assert_eq!(f64::INFINITY.value(), CellValue::Empty);
        for text in ["nan", "inf", "-Infinity", "", " 1"] {
            assert!(<f64 as Cell>::parse(text).is_err(), "{text}");
        }
    }
}
