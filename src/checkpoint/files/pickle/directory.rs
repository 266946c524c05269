//! The directory of a zip archive: which parts it has, and where they are.
//!
//! Source: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3. Read by hand, because so little is needed (parts that are stored as they are) and
//! every count can be checked against the file before memory is taken for it. Nothing is unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::checkpoint::files::disk::unreadable;
use crate::error::{Error, Result, escape};

/// A directory of 50,000 tensors has some 5 MB.
const LONGEST_DIRECTORY: u64 = 16 << 20;
/// The end record with the longest comment.
const LONGEST_END: u64 = 22 + 0xffff;

/// One part of an archive, as the directory describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Where its own header is.
    header: u64,
    /// Bytes, as stored and when unpacked.
    pub(super) stored: u64,
    pub(super) size: u64,
    /// How it is compressed: 0 for not at all.
    pub(super) method: u16,
    pub(super) encrypted: bool,
    pub(super) crc: u32,
}

/// The parts by their full names.
pub(super) type Directory = BTreeMap<Vec<u8>, Part>;

fn broken(path: &Path, found: impl Into<String>) -> Error {
    Error::malformed(path, "zip archive", "one that is whole", found).with_hint("copy or download it again")
}

/// Little-endian numbers at known places.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// Bytes of the file, which must have them.
fn read(path: &Path, file: &File, begin: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, begin).map_err(|err| unreadable(path, &err))?;
    Ok(bytes)
}

/// Reads the directory of an archive of `len` bytes.
///
/// # Errors
/// [`Error::Malformed`] if it is not whole, or names a part twice.
pub(super) fn read_directory(path: &Path, file: &File, len: u64) -> Result<Directory> {
    let (count, size, begin) = find(path, file, len)?;
    if size > LONGEST_DIRECTORY {
        return Err(broken(path, format!("a directory of {size} bytes, where {LONGEST_DIRECTORY} are the most")));
    }
    if begin.checked_add(size).is_none_or(|end| end > len) {
        return Err(broken(path, format!("a directory of {size} bytes from {begin} on in a file of {len}")));
    }
    let bytes = read(path, file, begin, size)?;
    let (mut rest, mut parts) = (&bytes[..], Directory::new());
    for _ in 0..count {
        let (name, part, after) = entry(rest).ok_or_else(|| broken(path, "a directory that is cut short or damaged"))?;
        if parts.insert(name.to_owned(), part).is_some() {
            return Err(broken(path, format!("the part `{}` twice", escape(&String::from_utf8_lossy(name)))));
        }
        rest = after;
    }
    Ok(parts)
}

/// How many parts there are, and size and place of the directory, from the records at the file's end.
fn find(path: &Path, file: &File, len: u64) -> Result<(u64, u64, u64)> {
    let tail_len = len.min(LONGEST_END);
    let tail = read(path, file, len - tail_len, tail_len)?;
    let whole = |at: &usize| {
        tail[*at..].starts_with(b"PK\x05\x06")
            && u16_at(&tail, at + 20).is_some_and(|comment| at + 22 + usize::from(comment) == tail.len())
    };
    let at = (0..tail.len()).rev().find(whole).ok_or_else(|| broken(path, "no directory at its end (it may be truncated)"))?;
    let plain = || Some((u16_at(&tail, at + 10)?, u32_at(&tail, at + 12)?, u32_at(&tail, at + 16)?));
    let (count, size, begin) = plain().ok_or_else(|| broken(path, "a damaged end"))?;
    if count != u16::MAX && size != u32::MAX && begin != u32::MAX {
        return Ok((count.into(), size.into(), begin.into()));
    }
    // Large archives have the numbers in a longer record, whose place is given before this one.
    let locator = at.checked_sub(20).filter(|at| tail[*at..].starts_with(b"PK\x06\x07"));
    let begin = locator.and_then(|at| u64_at(&tail, at + 8)).filter(|begin| begin.checked_add(56).is_some_and(|end| end <= len));
    let begin = begin.ok_or_else(|| broken(path, "a zip64 archive without its end record"))?;
    let record = read(path, file, begin, 56)?;
    let numbers = || Some((u64_at(&record, 32)?, u64_at(&record, 40)?, u64_at(&record, 48)?));
    numbers().filter(|_| record.starts_with(b"PK\x06\x06")).ok_or_else(|| broken(path, "a damaged zip64 end record"))
}

/// The first entry of what is left of a directory, and what comes after it.
fn entry(bytes: &[u8]) -> Option<(&[u8], Part, &[u8])> {
    bytes.starts_with(b"PK\x01\x02").then_some(())?;
    let length = |at| Some(usize::from(u16_at(bytes, at)?));
    let (name_len, extra_len, comment_len) = (length(28)?, length(30)?, length(32)?);
    let name = bytes.get(46..46 + name_len)?;
    let extra = bytes.get(46 + name_len..46 + name_len + extra_len)?;
    let after = bytes.get(46 + name_len + extra_len + comment_len..)?;
    let mut long = zip64(extra);
    let mut number = |at| match u32_at(bytes, at)? {
        u32::MAX => {
            let value = u64_at(long, 0)?;
            long = long.get(8..)?;
            Some(value)
        }
        value => Some(value.into()),
    };
    // In this order: the longer forms are in the order of the fields, unpacked size first.
    let (size, stored, header) = (number(24)?, number(20)?, number(42)?);
    let encrypted = u16_at(bytes, 8)? & 1 != 0;
    Some((name, Part { header, stored, size, method: u16_at(bytes, 10)?, encrypted, crc: u32_at(bytes, 16)? }, after))
}

/// The field with the longer numbers, if there is one.
fn zip64(mut extra: &[u8]) -> &[u8] {
    while let (Some(kind), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let end = 4 + usize::from(len);
        match extra.get(4..end) {
            Some(field) if kind == 1 => return field,
            Some(_) => extra = &extra[end..],
            None => break,
        }
    }
    &[]
}

impl Part {
    /// Where the part's bytes begin, behind its own header; all of them are in the file.
    pub(super) fn begin(&self, path: &Path, name: &str, file: &File, len: u64) -> Result<u64> {
        let damaged = |found: String| {
            let what = format!("part `{}` of the archive", escape(name));
            Error::malformed(path, what, "one that is whole", found)
        };
        let outside = || damaged(format!("{} bytes from {} on in a file of {len}", self.stored, self.header));
        let room = self.header.checked_add(30).filter(|end| *end <= len);
        room.ok_or_else(outside)?;
        let header = read(path, file, self.header, 30)?;
        let lengths = || Some(30 + u64::from(u16_at(&header, 26)?) + u64::from(u16_at(&header, 28)?));
        let head = lengths().filter(|_| header.starts_with(b"PK\x03\x04"));
        let head = head.ok_or_else(|| damaged(format!("no header at byte {}", self.header)))?;
        let begin = self.header.checked_add(head).ok_or_else(outside)?;
        begin.checked_add(self.stored).filter(|end| *end <= len).ok_or_else(outside)?;
        Ok(begin)
    }
}
