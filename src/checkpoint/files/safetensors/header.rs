//! The header of a `.safetensors` file, checked against everything the format promises.
//!
//! The `safetensors` crate has a parser, but one for files that are as they should be: it takes a repeated tensor name (the last one
//! wins, and the other's bytes are silently unused), and its errors name neither the tensor nor the place. A damaged download is what a
//! user of this program meets first. So the entries are read into a list, repeated ones included, and checked one by one.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, IntoDeserializer, MapAccess, Visitor};

use crate::checkpoint::files::json::json_message;
use crate::checkpoint::files::tensor::{Dtype, TensorInfo, show_shape};
use crate::error::{Error, Result, escape};

/// Nesting beyond this is no header: a tensor's shape is the third level.
const DEEPEST: usize = 16;
/// Longest tensor name accepted, in bytes. The longest in use are a tenth of it.
pub(crate) const LONGEST_NAME: usize = 4096;

/// What a header says: the tensors, sorted by name, and notes of whoever wrote the file.
pub(crate) struct Header {
    pub(crate) tensors: Vec<(String, TensorInfo)>,
    pub(crate) metadata: HashMap<String, String>,
}

/// Reads and checks the header; `data_len` is the number of bytes after it.
pub(crate) fn parse(path: &Path, header: &[u8], data_len: u64) -> Result<Header> {
    check_start(path, header)?;
    if let Err(err) = std::str::from_utf8(header) {
        let found = format!("an invalid byte at column {}", err.valid_up_to() + 1);
        return Err(Error::malformed(path, "header encoding", "UTF-8", found));
    }
    check_depth(path, header)?;
    let RawHeader { mut tensors, metadata } = serde_json::from_slice(header).map_err(|err| header_error(path, header, &err))?;
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in tensors.windows(2) {
        if pair[0].0 == pair[1].0 {
            let what = format!("tensor `{}`", escape(&pair[0].0));
            return Err(Error::malformed(path, what, "one entry of that name", "it twice in the header (a duplicate)"));
        }
    }
    let mut checked = Vec::with_capacity(tensors.len());
    for (name, raw) in tensors {
        let info = check_tensor(path, &name, raw)?;
        checked.push((name, info));
    }
    check_layout(path, &checked, 8 + header.len() as u64, data_len)?;
    Ok(Header { tensors: checked, metadata })
}

fn check_start(path: &Path, header: &[u8]) -> Result<()> {
    let found = match header.first() {
        Some(b'{') => return Ok(()),
        Some(0xef) if header.starts_with(b"\xef\xbb\xbf") => "a byte-order mark".to_owned(),
        Some(b' ' | b'\t' | b'\r' | b'\n') => "white space".to_owned(),
        Some(byte) => format!("`{}`", byte.escape_ascii()),
        None => "nothing".to_owned(),
    };
    Err(Error::malformed(path, "first byte of the header", "`{`", found))
}

/// Refuses deep nesting before a recursive parser sees it.
fn check_depth(path: &Path, header: &[u8]) -> Result<()> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in header.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    let found = format!("more at column {}", at + 1);
                    return Err(Error::malformed(path, "nesting of the header", format!("at most {DEEPEST} levels"), found));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn header_error(path: &Path, header: &[u8], err: &serde_json::Error) -> Error {
    let (what, expected) = if err.is_data() && serde_json::from_slice::<IgnoredAny>(header).is_ok() {
        ("header", "tensors that have dtype, shape and data_offsets, each once and of its type")
    } else {
        ("header is not valid JSON", "one JSON object")
    };
    Error::malformed(path, what, expected, json_message(err))
}

#[derive(Deserialize)]
struct RawTensorInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// One tensor's entry, which must be an object: a derived struct would also take an array of its fields.
struct RawEntry(RawTensorInfo);

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = RawEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<RawEntry, M::Error> {
                RawTensorInfo::deserialize(MapAccessDeserializer::new(map)).map(RawEntry)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The entries in file order, repeated ones included.
struct RawHeader {
    tensors: Vec<(String, RawTensorInfo)>,
    metadata: HashMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawHeader, M::Error> {
                let (mut tensors, mut metadata) = (Vec::new(), None);
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if metadata.is_some() {
                            return Err(M::Error::custom("duplicate `__metadata__`"));
                        }
                        let notes = map.next_value::<Option<HashMap<String, String>>>();
                        metadata = Some(notes.map_err(|err| M::Error::custom(format!("__metadata__: {err}")))?);
                    } else {
                        let RawEntry(info) =
                            map.next_value().map_err(|err| M::Error::custom(format!("tensor `{}`: {err}", escape(&name))))?;
                        tensors.push((name, info));
                    }
                }
                Ok(RawHeader { tensors, metadata: metadata.flatten().unwrap_or_default() })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Checks one entry by itself: name, dtype, order of the offsets, and that they hold what shape and dtype need.
fn check_tensor(path: &Path, name: &str, raw: RawTensorInfo) -> Result<TensorInfo> {
    let label = || format!("tensor `{}`", escape(name));
    if name.len() > LONGEST_NAME {
        let found = format!("{} bytes", name.len());
        return Err(Error::malformed(path, "a tensor name", format!("at most {LONGEST_NAME} bytes"), found));
    }
    let dtype: Result<Dtype, serde::de::value::Error> = Dtype::deserialize(raw.dtype.as_str().into_deserializer());
    let Ok(dtype) = dtype else {
        let found = format!("`{}`", escape(&raw.dtype));
        return Err(Error::malformed(
            path,
            format!("dtype of {}", label()),
            "a dtype of the format (F32, F16, BF16, ...)",
            found,
        ));
    };
    let (begin, end) = raw.data_offsets;
    if begin > end || i64::try_from(end).is_err() {
        let expected = "a begin not after the end, both below 2^63";
        return Err(Error::malformed(path, format!("data_offsets of {}", label()), expected, format!("[{begin}, {end}]")));
    }
    let elements = raw.shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
    let bits = elements.and_then(|elements| elements.checked_mul(dtype.bitsize() as u64));
    let shape: Option<Vec<usize>> = raw.shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let (Some(bits), Some(shape)) = (bits, shape) else {
        let sizes: Vec<usize> = raw.shape.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX)).collect();
        let found = format!("{} of {dtype}, which overflows", show_shape(&sizes));
        return Err(Error::malformed(path, format!("shape of {}", label()), "a size below 2^64 bits", found));
    };
    if bits % 8 != 0 || bits / 8 != end - begin {
        let expected = format!("{} bytes for {dtype} {}", bits.div_ceil(8), show_shape(&shape));
        let found = format!("[{begin}, {end}], which is {} bytes", end - begin);
        return Err(Error::malformed(path, format!("data_offsets of {}", label()), expected, found));
    }
    Ok(TensorInfo { dtype, shape, begin, end })
}

/// Checks that the tensors fill the data exactly: no overlap, no hole, nothing missing, nothing left over.
fn check_layout(path: &Path, tensors: &[(String, TensorInfo)], data_start: u64, data_len: u64) -> Result<()> {
    let mut order: Vec<&(String, TensorInfo)> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| (info.begin, info.end));
    let (mut filled, mut last) = (0_u64, "");
    for (name, info) in order {
        if info.begin < filled {
            let found = format!("an overlap at bytes {} to {}", info.begin, filled.min(info.end));
            let what = format!("tensors `{}` and `{}`", escape(last), escape(name));
            return Err(Error::malformed(path, what, "data_offsets that do not overlap", found));
        }
        if info.begin > filled {
            let found = format!("a hole at bytes {filled} to {} before tensor `{}`", info.begin, escape(name));
            return Err(Error::malformed(path, "data_offsets", "tensors that fill the data without a hole", found));
        }
        (filled, last) = (info.end, name.as_str());
    }
    if filled == data_len {
        return Ok(());
    }
    let (needs, has) = (u128::from(data_start) + u128::from(filled), u128::from(data_start) + u128::from(data_len));
    let (what, hint) = if has < needs {
        ("file is truncated", "copy or download it again")
    } else {
        ("file has trailing bytes that belong to no tensor", "it may be damaged, or two files in one")
    };
    Err(Error::malformed(path, what, format!("{needs} bytes"), format!("{has} bytes")).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::generate::{adapter_tensors, file};

    #[test]
    fn no_damaged_byte_gets_through_or_panics() {
        let bytes = file(&adapter_tensors());
        let len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let (good, data_len) = (&bytes[8..8 + len], (bytes.len() - 8 - len) as u64);
        assert_eq!(parse(Path::new("x"), good, data_len).unwrap().tensors.len(), 4);
        for at in 0..good.len() {
            for byte in [0, b' ', b'"', b'-', b'.', b'0', b'9', b'[', b'{', b'}', b'\\', b'e', 0xff] {
                let mut header = good.to_vec();
                header[at] = byte;
                if let Ok(Header { tensors, .. }) = parse(Path::new("x"), &header, data_len) {
                    let total: u64 = tensors.iter().map(|(_, info)| info.end - info.begin).sum();
                    assert_eq!(total, data_len);
                }
            }
            assert!(parse(Path::new("x"), &good[..at], data_len).is_err());
        }
    }
}
