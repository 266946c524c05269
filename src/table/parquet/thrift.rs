//! Thrift's compact encoding, in which a Parquet file says what it holds: field by field, and nothing is built of what is passed over.
//!
//! Whatever is claimed (a length, a number of elements) must fit into the bytes that are there.

/// Nesting beyond this is no table: a column's statistics are the fifth level.
const DEEPEST: u32 = 16;

/// The type of a field, as far as Parquet uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whose value is part of a field's type; in a list, a byte.
    Bool,
    Byte,
    /// Of 16, 32 or 64 bits.
    Integer,
    Double,
    Binary,
    /// Or a set.
    List,
    Struct,
}

impl Kind {
    fn of(code: u8) -> Result<Self, String> {
        Ok(match code {
            1 | 2 => Self::Bool,
            3 => Self::Byte,
            4..=6 => Self::Integer,
            7 => Self::Double,
            8 => Self::Binary,
            9 | 10 => Self::List,
            12 => Self::Struct,
            _ => return Err(format!("a field of type {code}")),
        })
    }
}

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thrift<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Thrift<'a> {
    /// The next bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("its end where more is promised")?;
        self.rest = rest;
        Ok(taken)
    }

    /// So many next bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("its end where more is promised")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    /// A number without a sign, seven bits a byte.
    pub(super) fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".to_owned())
    }

    /// A number with a sign.
    pub(super) fn integer(&mut self) -> Result<i64, String> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// Bytes after their length.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], String> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The head of a list: the type of its elements, and how many there are.
    pub(super) fn list(&mut self) -> Result<(Kind, usize), String> {
        let head = self.byte()?;
        // Some write no type where there is no element.
        if head == 0 {
            return Ok((Kind::Byte, 0));
        }
        let kind = Kind::of(head & 0x0f)?;
        let count = if head >> 4 == 0x0f { self.varint()? } else { u64::from(head >> 4) };
        // Every element takes a byte at least.
        let count = usize::try_from(count).ok().filter(|count| *count <= self.rest.len());
        Ok((kind, count.ok_or("a list that is longer than the file")?))
    }

    /// Hands out the fields of a structure, each with its number and type, to be read or skipped.
    pub(super) fn structure(&mut self, mut field: impl FnMut(&mut Self, i64, Kind) -> Result<(), String>) -> Result<(), String> {
        let mut id = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            let kind = Kind::of(head & 0x0f)?;
            id = if head >> 4 == 0 { self.integer()? } else { id.saturating_add(i64::from(head >> 4)) };
            field(self, id, kind)?;
        }
    }

    /// Passes over a field.
    pub(super) fn skip(&mut self, kind: Kind) -> Result<(), String> {
        self.skip_within(kind, DEEPEST)
    }

    fn skip_within(&mut self, kind: Kind, levels: u32) -> Result<(), String> {
        let levels = levels.checked_sub(1).ok_or("fields that are nested deeply")?;
        match kind {
            Kind::Bool => {}
            Kind::Byte => drop(self.byte()?),
            Kind::Integer => drop(self.varint()?),
            Kind::Double => drop(self.take(8)?),
            Kind::Binary => drop(self.binary()?),
            Kind::List => {
                let (kind, count) = self.list()?;
                let kind = if kind == Kind::Bool { Kind::Byte } else { kind };
                for _ in 0..count {
                    self.skip_within(kind, levels)?;
                }
            }
            Kind::Struct => self.structure(|thrift, _, kind| thrift.skip_within(kind, levels))?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8], kind: Kind) -> Result<usize, String> {
        let mut thrift = Thrift { rest: bytes };
        thrift.skip(kind).map(|()| bytes.len() - thrift.rest.len())
    }

    #[test]
    fn numbers_are_those_of_the_format() {
        let integer = |bytes: &[u8]| Thrift { rest: bytes }.integer();
        assert_eq!((integer(&[0]), integer(&[1]), integer(&[2]), integer(&[0x80, 1])), (Ok(0), Ok(-1), Ok(1), Ok(64)));
        assert_eq!(integer(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(i64::MIN));
        assert!(integer(&[0x80; 11]).is_err() && integer(&[0x80]).is_err());
    }

    #[test]
    fn anything_can_be_passed_over() {
        // A structure of a truth, a list of two truths, a text and an empty structure.
        assert_eq!(skipped(&[0x11, 0x19, 0x21, 1, 2, 0x18, 2, b'a', b'b', 0x1c, 0, 0, 9], Kind::Struct), Ok(12));
        assert_eq!(skipped(&[0, 9], Kind::List), Ok(1));
    }

    #[test]
    fn what_is_not_there_is_not_believed() {
        // Two thousand million truths, which would take no bytes; structures in structures; a type of maps.
        assert!(skipped(&[0xf1, 0xff, 0xff, 0xff, 0xff, 7, 1], Kind::List).is_err());
        assert!(skipped(&[0x1c; 100_000], Kind::Struct).unwrap_err().contains("deeply"));
        assert!(skipped(&[0x19; 100_000], Kind::List).unwrap_err().contains("deeply"));
        assert!(skipped(&[0x1b, 0], Kind::Struct).is_err());
        assert!(skipped(&[0xff, 0xff, 3, 0], Kind::Binary).is_err());
    }
}
