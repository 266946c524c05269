//! The end of a Parquet file, which says what columns there are and where each piece of them lies.

use parquet::basic::Type as Physical;

use super::thrift::{Kind, Thrift};

/// What a file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";
/// A table of a hundred million rows has less.
const LARGEST_FOOTER: usize = 8 << 20;
/// The types of values, in the order of their codes.
const PHYSICAL: [Physical; 8] = [
    Physical::BOOLEAN,
    Physical::INT32,
    Physical::INT64,
    Physical::INT96,
    Physical::FLOAT,
    Physical::DOUBLE,
    Physical::BYTE_ARRAY,
    Physical::FIXED_LEN_BYTE_ARRAY,
];

/// What a file says of itself, held against its length.
#[derive(Debug)]
pub(super) struct Footer<'a> {
    pub(super) columns: Vec<Field<'a>>,
    pub(super) groups: Vec<Group<'a>>,
}

/// A column, whatever is in it.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) physical: Physical,
    pub(super) nullable: bool,
}

/// Some rows of all columns.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) rows: usize,
    /// The pages of each column.
    pub(super) chunks: Vec<&'a [u8]>,
}

impl<'a> Footer<'a> {
    /// Reads the footer of a whole file. Pieces that share bytes are refused: what is read is never more than the file.
    pub(super) fn of(file: &'a [u8]) -> Result<Self, String> {
        let mut thrift = Thrift { rest: bytes_of(file)? };
        let (mut columns, mut groups, mut unclaimed) = (None, Vec::new(), file.len());
        thrift.structure(|thrift, id, kind| {
            match (id, kind) {
                (2, Kind::List) => columns = Some(fields(thrift)?),
                (4, Kind::List) => {
                    let columns = columns.as_ref().map_or(0, Vec::len);
                    each_struct(thrift, |thrift| {
                        groups.push(group(thrift, file, columns, &mut unclaimed)?);
                        Ok(())
                    })?;
                }
                (_, kind) => thrift.skip(kind)?,
            }
            Ok(())
        })?;
        Ok(Self { columns: columns.ok_or("no columns")?, groups })
    }
}

fn bytes_of(file: &[u8]) -> Result<&[u8], String> {
    let inner = file.strip_prefix(MAGIC).and_then(|file| file.strip_suffix(MAGIC)).ok_or("no PAR1 at both ends")?;
    let (inner, length) = inner.split_last_chunk().ok_or("no footer")?;
    let length = u32::from_le_bytes(*length) as usize;
    let begin = inner.len().checked_sub(length).ok_or_else(|| format!("a footer of {length} bytes in one of {}", file.len()))?;
    if length > LARGEST_FOOTER {
        return Err(format!("a footer of {length} bytes"));
    }
    Ok(inner.get(begin..).unwrap_or_default())
}

fn each_struct<'a>(thrift: &mut Thrift<'a>, mut take: impl FnMut(&mut Thrift<'a>) -> Result<(), String>) -> Result<(), String> {
    match thrift.list()? {
        (Kind::Struct, count) => (0..count).try_for_each(|_| take(thrift)),
        (_, 0) => Ok(()),
        (kind, _) => Err(format!("a list of {kind:?} for one of structures")),
    }
}

/// The columns, which follow a root that counts them.
fn fields<'a>(thrift: &mut Thrift<'a>) -> Result<Vec<Field<'a>>, String> {
    let (mut columns, mut root) = (Vec::new(), true);
    each_struct(thrift, |thrift| {
        let (mut physical, mut repetition, mut name, mut children) = (None, None, None, 0);
        thrift.structure(|thrift, id, kind| {
            match (id, kind) {
                (1, Kind::Integer) => physical = Some(thrift.integer()?),
                (3, Kind::Integer) => repetition = Some(thrift.integer()?),
                (4, Kind::Binary) => name = Some(thrift.binary()?),
                (5, Kind::Integer) => children = thrift.integer()?,
                (_, kind) => thrift.skip(kind)?,
            }
            Ok(())
        })?;
        if std::mem::take(&mut root) {
            return Ok(());
        }
        let name = name.and_then(|name| std::str::from_utf8(name).ok()).ok_or("a column without a name")?;
        let nullable = match repetition {
            Some(0) => false,
            Some(1) => true,
            _ => return Err("a column of lists".to_owned()),
        };
        let physical = physical.and_then(|code| PHYSICAL.get(usize::try_from(code).ok()?).copied());
        let physical = physical.filter(|_| children == 0).ok_or("a column of columns")?;
        columns.push(Field { name, physical, nullable });
        Ok(())
    })?;
    Ok(columns)
}

fn group<'a>(thrift: &mut Thrift<'a>, file: &'a [u8], columns: usize, unclaimed: &mut usize) -> Result<Group<'a>, String> {
    let (mut rows, mut chunks) = (None, Vec::new());
    thrift.structure(|thrift, id, kind| {
        match (id, kind) {
            (1, Kind::List) => each_struct(thrift, |thrift| {
                let chunk = chunk(thrift, file)?;
                *unclaimed = unclaimed.checked_sub(chunk.len()).ok_or("columns that share bytes")?;
                chunks.push(chunk);
                Ok(())
            })?,
            (3, Kind::Integer) => rows = usize::try_from(thrift.integer()?).ok(),
            (_, kind) => thrift.skip(kind)?,
        }
        Ok(())
    })?;
    if chunks.len() != columns || columns == 0 {
        return Err(format!("{} columns in a group of rows where there are {columns}", chunks.len()));
    }
    Ok(Group { rows: rows.ok_or("a group without a number of rows")?, chunks })
}

/// The bytes of a column's pages.
fn chunk<'a>(thrift: &mut Thrift<'a>, file: &'a [u8]) -> Result<&'a [u8], String> {
    let (mut codec, mut length, mut data, mut dictionary) = (None, None, None, None);
    thrift.structure(|thrift, id, kind| match (id, kind) {
        (3, Kind::Struct) => thrift.structure(|thrift, id, kind| {
            match (id, kind) {
                (4, Kind::Integer) => codec = Some(thrift.integer()?),
                (7, Kind::Integer) => length = Some(thrift.integer()?),
                (9, Kind::Integer) => data = Some(thrift.integer()?),
                (11, Kind::Integer) => dictionary = Some(thrift.integer()?),
                (_, kind) => thrift.skip(kind)?,
            }
            Ok(())
        }),
        (_, kind) => thrift.skip(kind),
    })?;
    if codec != Some(0) {
        return Err("a compressed column".to_owned());
    }
    let start = usize::try_from(dictionary.or(data).unwrap_or(-1)).ok();
    let length = usize::try_from(length.unwrap_or(-1)).ok();
    let bytes = start.zip(length).and_then(|(start, length)| file.get(start..start.checked_add(length)?));
    bytes.ok_or_else(|| "a column that is not in the file".to_owned())
}
