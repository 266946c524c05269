//! The values of one column in one group of rows, one after the other: pages, levels, dictionaries.
//!
//! Read is what tables are written with: pages of the first version, plain or by a dictionary. A value is taken from the bytes that are
//! there, so that what a page says of itself cannot make it larger.

use super::super::columns::{CellValue, ColumnType, ValueKind};
use super::thrift::{Kind, Thrift};

/// Types of pages.
const DATA_PAGE: i64 = 0;
const INDEX_PAGE: i64 = 1;
const DICTIONARY_PAGE: i64 = 2;
/// Encodings.
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RUNS: i64 = 3;
const DICTIONARY: i64 = 8;

/// A column's values that are still to be read.
pub(super) struct Column<'a> {
    column: ColumnType,
    pages: Thrift<'a>,
    dictionary: Option<Dictionary<'a>>,
    /// Rows of this page.
    left: u64,
    present: Runs<'a>,
    values: Values<'a>,
}

enum Values<'a> {
    Plain(Thrift<'a>),
    Indices(Runs<'a>),
}

impl<'a> Column<'a> {
    pub(super) fn new(column: ColumnType, pages: &'a [u8]) -> Self {
        let none = Thrift { rest: &[] };
        Self {
            column,
            pages: Thrift { rest: pages },
            dictionary: None,
            left: 0,
            present: Runs::new(none, 1),
            values: Values::Plain(none),
        }
    }

    /// Whether its values are names.
    pub(super) fn is_text(&self) -> bool {
        self.column.kind == ValueKind::Text
    }

    /// The value of the next row.
    pub(super) fn next(&mut self) -> Result<CellValue<'a>, String> {
        while self.left == 0 {
            self.open_page()?;
        }
        self.left -= 1;
        if self.column.nullable && self.present.next()? == 0 {
            return Ok(CellValue::Empty);
        }
        match &mut self.values {
            Values::Plain(bytes) => plain(self.column.kind, bytes),
            Values::Indices(indices) => {
                let index = indices.next()?;
                self.dictionary.as_ref().ok_or("no dictionary where one is used")?.get(index)
            }
        }
    }

    /// Goes on to the next page that has values, and past a dictionary before it.
    fn open_page(&mut self) -> Result<(), String> {
        let (mut page, mut size, mut head) = (None, None, PageHead::default());
        self.pages.structure(|thrift, id, kind| {
            match (id, kind) {
                (1, Kind::Integer) => page = Some(thrift.integer()?),
                (3, Kind::Integer) => size = usize::try_from(thrift.integer()?).ok(),
                (5 | 7, Kind::Struct) => head = PageHead::read(thrift)?,
                (_, kind) => thrift.skip(kind)?,
            }
            Ok(())
        })?;
        let bytes = Thrift { rest: self.pages.take(size.ok_or("a page without a size")?)? };
        match page {
            Some(DATA_PAGE) => self.start_values(&head, bytes),
            Some(DICTIONARY_PAGE) if self.dictionary.is_some() => Err("a second dictionary".to_owned()),
            Some(DICTIONARY_PAGE) if matches!(head.encoding, Some(PLAIN | PLAIN_DICTIONARY)) => {
                self.dictionary = Some(Dictionary::new(self.column.kind, head.count, bytes)?);
                Ok(())
            }
            Some(INDEX_PAGE) => Ok(()),
            other => Err(format!("a page of type {other:?}, encoding {:?}", head.encoding)),
        }
    }

    fn start_values(&mut self, head: &PageHead, mut bytes: Thrift<'a>) -> Result<(), String> {
        self.left = head.count;
        if self.column.nullable {
            if head.levels != Some(RUNS) {
                return Err(format!("levels in encoding {:?}", head.levels));
            }
            self.present = Runs::new(Thrift { rest: block(&mut bytes)? }, 1);
        }
        self.values = match head.encoding {
            Some(PLAIN) => Values::Plain(bytes),
            Some(PLAIN_DICTIONARY | DICTIONARY) => {
                let [width] = bytes.array()?;
                if u32::from(width) > u32::BITS {
                    return Err(format!("indices of {width} bits"));
                }
                Values::Indices(Runs::new(bytes, width.into()))
            }
            other => return Err(format!("values in encoding {other:?}")),
        };
        Ok(())
    }
}

/// What the header of a page says of its values.
#[derive(Debug, Default)]
struct PageHead {
    count: u64,
    encoding: Option<i64>,
    levels: Option<i64>,
}

impl PageHead {
    fn read(thrift: &mut Thrift<'_>) -> Result<Self, String> {
        let mut head = Self::default();
        thrift.structure(|thrift, id, kind| {
            match (id, kind) {
                (1, Kind::Integer) => head.count = u64::try_from(thrift.integer()?).map_err(|_| "a negative number of values")?,
                (2, Kind::Integer) => head.encoding = Some(thrift.integer()?),
                (3, Kind::Integer) => head.levels = Some(thrift.integer()?),
                (_, kind) => thrift.skip(kind)?,
            }
            Ok(())
        })?;
        Ok(head)
    }
}

/// Bytes after their length in four.
fn block<'a>(bytes: &mut Thrift<'a>) -> Result<&'a [u8], String> {
    let length = bytes.array().map(u32::from_le_bytes)?;
    bytes.take(usize::try_from(length).unwrap_or(usize::MAX))
}

/// The next value as it is.
fn plain<'a>(kind: ValueKind, bytes: &mut Thrift<'a>) -> Result<CellValue<'a>, String> {
    Ok(match kind {
        ValueKind::Text => CellValue::Text(std::str::from_utf8(block(bytes)?).map_err(|_| "a text that is not UTF-8")?),
        ValueKind::Integer => {
            let number = bytes.array().map(i64::from_le_bytes)?;
            CellValue::Integer(u64::try_from(number).map_err(|_| format!("the number {number}"))?)
        }
        ValueKind::Float => CellValue::Float(bytes.array().map(f64::from_le_bytes)?),
    })
}

/// The values that a column's indices are of.
struct Dictionary<'a> {
    kind: ValueKind,
    bytes: &'a [u8],
    /// Where each value begins.
    starts: Vec<u32>,
}

impl<'a> Dictionary<'a> {
    fn new(kind: ValueKind, count: u64, mut bytes: Thrift<'a>) -> Result<Self, String> {
        let least = if kind == ValueKind::Text { 4 } else { 8 };
        let whole = bytes.rest;
        let count = usize::try_from(count).ok().filter(|count| *count <= whole.len() / least);
        let count = count.ok_or("a dictionary of more values than it has bytes for")?;
        let mut starts = Vec::with_capacity(count);
        for _ in 0..count {
            starts.push(u32::try_from(whole.len() - bytes.rest.len()).map_err(|_| "a dictionary of gigabytes")?);
            plain(kind, &mut bytes)?;
        }
        Ok(Self { kind, bytes: whole, starts })
    }

    fn get(&self, index: u32) -> Result<CellValue<'a>, String> {
        let start = self.starts.get(index as usize).ok_or_else(|| format!("value {index} of {}", self.starts.len()))?;
        plain(self.kind, &mut Thrift { rest: self.bytes.get(*start as usize..).unwrap_or_default() })
    }
}

/// Small numbers of one width, some repeated and some packed bit by bit.
struct Runs<'a> {
    rest: Thrift<'a>,
    /// Bits of a number, 32 at most.
    width: u32,
    /// Numbers of this run that are still to be read.
    left: u64,
    run: Run<'a>,
}

enum Run<'a> {
    Repeated(u32),
    Packed {
        bytes: &'a [u8],
        /// Bits that were read.
        read: usize,
    },
}

impl<'a> Runs<'a> {
    fn new(rest: Thrift<'a>, width: u32) -> Self {
        Self { rest, width, left: 0, run: Run::Repeated(0) }
    }

    fn next(&mut self) -> Result<u32, String> {
        while self.left == 0 {
            self.open_run()?;
        }
        self.left -= 1;
        match &mut self.run {
            Run::Repeated(number) => Ok(*number),
            Run::Packed { bytes, read } => {
                let (first, shift) = (*read / 8, *read % 8);
                *read += self.width as usize;
                let there = bytes.get(first..read.div_ceil(8)).ok_or("fewer packed numbers than are promised")?;
                let bits = there.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
                Ok((bits >> shift & ((1 << self.width) - 1)) as u32)
            }
        }
    }

    fn open_run(&mut self) -> Result<(), String> {
        let head = self.rest.varint()?;
        if head & 1 == 0 {
            let bytes = self.rest.take(self.width.div_ceil(8) as usize)?;
            let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
            if u64::from(number) >> self.width != 0 {
                return Err(format!("{number} in {} bits", self.width));
            }
            (self.left, self.run) = (head >> 1, Run::Repeated(number));
        } else {
            // Eight numbers have as many bytes as one has bits. The last run may be cut short.
            let promised = (head >> 1).saturating_mul(self.width.into());
            let length = usize::try_from(promised).unwrap_or(usize::MAX).min(self.rest.rest.len());
            (self.left, self.run) = ((head >> 1).saturating_mul(8), Run::Packed { bytes: self.rest.take(length)?, read: 0 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bytes: &[u8], width: u32, count: usize) -> Result<Vec<u32>, String> {
        let mut runs = Runs::new(Thrift { rest: bytes }, width);
        (0..count).map(|_| runs.next()).collect()
    }

    #[test]
    fn runs_are_those_of_the_format() {
        // The format's own example: 0 to 7 in three bits each.
        assert_eq!(numbers(&[3, 0b1000_1000, 0b1100_0110, 0b1111_1010], 3, 8), Ok((0..8).collect()));
        assert_eq!(numbers(&[6, 5, 2, 4], 3, 4), Ok(vec![5, 5, 5, 4]));
        // Indices of a dictionary of one value have no bits.
        assert_eq!(numbers(&[3], 0, 8), Ok(vec![0; 8]));
        assert_eq!(numbers(&[4, 0xff, 0xff, 0xff, 0xff], 32, 2), Ok(vec![u32::MAX; 2]));
        // Three of eight packed numbers are there.
        assert_eq!(numbers(&[3, 1, 2, 3], 8, 3), Ok(vec![1, 2, 3]));
        assert!(numbers(&[3, 1, 2, 3], 8, 4).is_err() && numbers(&[2, 8], 3, 1).is_err() && numbers(&[0, 0], 0, 1).is_err());
    }

    #[test]
    fn a_dictionary_is_as_long_as_its_bytes() {
        let texts = |count, bytes| Dictionary::new(ValueKind::Text, count, Thrift { rest: bytes });
        let two = texts(2, b"\x01\0\0\0a\0\0\0\0").unwrap();
        assert_eq!((two.get(0), two.get(1)), (Ok(CellValue::Text("a")), Ok(CellValue::Text(""))));
        assert!(two.get(2).is_err());
        assert!(
            texts(u64::MAX, b"\0\0\0\0").is_err() && texts(1, b"\x01\0\0\0").is_err() && texts(1, b"\x01\0\0\0\xff").is_err()
        );
    }
}
