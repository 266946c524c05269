//! What a column can hold, and a row as columns: one list for a row type, which every format uses.
//!
//! A format sees a row as names and [`CellValue`]s, so that a new format needs no list of its own, and the CSV and the JSON
//! of a row cannot come to differ.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::terms::{Convention, LayerId, MatrixKind, Measure, Method, Side, SpectrumMatrix, Status, UpdateMatrix};

/// The content of one field.
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
    /// Layers: integers, or names where one of the column's layers is a path.
    Layer,
    /// Finite numbers.
    Float,
}

/// The type of a column, independent of its values: a typed format needs to know it before the first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnType {
    /// The kind of its values.
    pub kind: ValueKind,
    /// Whether a field may be without a value.
    pub nullable: bool,
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

/// A field's text that is not a value of its column.
#[derive(Debug)]
pub struct BadField<'f> {
    /// The column.
    pub column: &'static str,
    /// What was expected.
    pub expected: Cow<'static, str>,
    /// The text.
    pub found: &'f str,
}

/// A type that a column can hold.
pub trait Cell: Sized {
    /// What such a column holds.
    const TYPE: ColumnType;
    /// The value to write.
    fn value(&self) -> CellValue<'_>;
    /// The value of a field's text, or what was expected.
    fn parse(text: &str) -> Result<Self, Cow<'static, str>>;
}

impl Cell for String {
    const TYPE: ColumnType = ColumnType { kind: ValueKind::Text, nullable: false };
    fn value(&self) -> CellValue<'_> {
        CellValue::Text(self)
    }
    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        Ok(text.to_owned())
    }
}

impl Cell for f64 {
    /// Nullable, because what is not finite is written as no value.
    const TYPE: ColumnType = ColumnType { kind: ValueKind::Float, nullable: true };
    fn value(&self) -> CellValue<'_> {
        CellValue::finite(*self)
    }
    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        // `f64::from_str` also takes "nan" and "inf", which no table of ours holds.
        text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(Cow::Borrowed("a finite number"))
    }
}

macro_rules! integer_cells {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            const TYPE: ColumnType = ColumnType { kind: ValueKind::Integer, nullable: false };
            fn value(&self) -> CellValue<'_> {
                CellValue::Integer(u64::try_from(*self).unwrap_or(u64::MAX))
            }
            fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
                text.parse().map_err(|_| Cow::Borrowed("a whole number from 0"))
            }
        }
    )+};
}
integer_cells!(u32, usize);

impl Cell for LayerId {
    const TYPE: ColumnType = ColumnType { kind: ValueKind::Layer, nullable: false };
    fn value(&self) -> CellValue<'_> {
        match self {
            Self::Index(index) => CellValue::Integer((*index).into()),
            Self::Path(path) => CellValue::Text(path),
        }
    }
    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        text.parse().map_err(Cow::Borrowed)
    }
}

macro_rules! named_cells {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            const TYPE: ColumnType = ColumnType { kind: ValueKind::Text, nullable: false };
            fn value(&self) -> CellValue<'_> {
                CellValue::Text(self.name())
            }
            fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
                // The message is "a matrix must be one of A, B": the error's own frame says the first half.
                text.parse().map_err(|message: String| {
                    Cow::Owned(message.split_once("must be ").map_or(message.clone(), |(_, names)| names.to_owned()))
                })
            }
        }
    )+};
}
named_cells!(MatrixKind, Side, Convention, Method, Status, Measure, UpdateMatrix, SpectrumMatrix);

/// An optional number, or an optional name from a fixed list. (In free text, no name could not be told from an empty one.)
macro_rules! optional_cells {
    ($($type:ty),+) => {$(
        impl Cell for Option<$type> {
            const TYPE: ColumnType = ColumnType { kind: <$type>::TYPE.kind, nullable: true };
            fn value(&self) -> CellValue<'_> {
                self.as_ref().map_or(CellValue::Empty, Cell::value)
            }
            fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
                if text.is_empty() { Ok(None) } else { Cell::parse(text).map(Some) }
            }
        }
    )+};
}
optional_cells!(f64, LayerId, usize, Side);

/// A table's row: its file, its columns, and how to go through them.
pub trait Row: Sized {
    /// The table's name, which is its file's without the ending.
    const TABLE: &'static str;
    /// The column names, in the order they are written.
    const COLUMNS: &'static [&'static str];
    /// What each column can hold, in the same order.
    const TYPES: &'static [ColumnType];

    /// Hands every column's value to `visit`, in order; stops at the first error.
    fn visit<'r, E>(&'r self, visit: impl FnMut(&'static str, CellValue<'r>) -> Result<(), E>) -> Result<(), E>;

    /// Builds a row from the text of its fields, one for each column, in order.
    ///
    /// This is the only way to read a row, because CSV is the only format that is read back: it is always written, people can check and
    /// edit it, and a second reader (of Parquet, for example) would be a second way for a table to be wrong.
    fn from_fields<'f>(fields: impl Iterator<Item = &'f str>) -> Result<Self, BadField<'f>>;

    /// The name in a column; none where the table has no such column, or it holds numbers.
    fn name_in(&self, column: &str) -> Option<&str> {
        let mut found = None;
        let _ = self.visit(|name, value| match value {
            CellValue::Text(text) if name == column => {
                found = Some(text);
                // Ends the visit.
                Err(())
            }
            _ => Ok(()),
        });
        found
    }
}

/// The next field as a column's value.
pub(super) fn next_cell<'f, C: Cell>(
    fields: &mut impl Iterator<Item = &'f str>,
    column: &'static str,
) -> Result<C, BadField<'f>> {
    let Some(found) = fields.next() else { unreachable!("whoever reads a row has a field for each of its columns") };
    C::parse(found).map_err(|expected| BadField { column, expected, found })
}

/// Defines a row type and its columns, which are its fields in their order: `pub struct NAME in "TABLE" { fields }`.
macro_rules! row {
    (
        $(#[$about:meta])*
        pub struct $row:ident in $table:literal { $($(#[$doc:meta])* pub $column:ident: $type:ty,)+ }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $row { $($(#[$doc])* pub $column: $type,)+ }

        impl Row for $row {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$(stringify!($column)),+];
            const TYPES: &'static [ColumnType] = &[$(<$type as Cell>::TYPE),+];

            fn visit<'r, E>(
                &'r self,
                mut visit: impl FnMut(&'static str, CellValue<'r>) -> Result<(), E>,
            ) -> Result<(), E> {
                $(visit(stringify!($column), self.$column.value())?;)+
                Ok(())
            }

            fn from_fields<'f>(mut fields: impl Iterator<Item = &'f str>) -> Result<Self, BadField<'f>> {
                // The fields of a struct expression are evaluated in the order they are written.
                Ok(Self { $($column: next_cell(&mut fields, stringify!($column))?),+ })
            }
        }
    };
}
pub(super) use row;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_no_value() {
        assert_eq!(Some(f64::NAN).value(), CellValue::Empty);
        assert_eq!(f64::INFINITY.value(), CellValue::Empty);
        for text in ["nan", "inf", "-Infinity", "", " 1"] {
            assert!(<f64 as Cell>::parse(text).is_err(), "{text}");
        }
    }
}
