//! The first bytes of a `.safetensors` file: its header, or what the file really is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::checkpoint::files::disk::unreadable;
use crate::error::{Error, Result};

/// What such a file is called in messages.
const EXPECTED: &str = "a safetensors file";
/// Longest header accepted, as in the `safetensors` crate.
const LONGEST_HEADER: u64 = 100_000_000;

/// Reads the header's bytes after checking its length; says what the file is where it is something else.
pub(crate) fn read_header(path: &Path, file: &File, len: u64) -> Result<Vec<u8>> {
    let mut start = [0_u8; 512];
    let known = usize::try_from(len).unwrap_or(usize::MAX).min(start.len());
    let read = |bytes: &mut [u8], offset| file.read_exact_at(bytes, offset).map_err(|err| unreadable(path, &err));
    read(&mut start[..known], 0)?;
    let start = &start[..known];
    let Some((length, rest)) = start.split_first_chunk::<8>() else {
        if let Some(error) = recognise(path, start, EXPECTED) {
            return Err(error);
        }
        let what = if len == 0 { "file is empty" } else { "file is too short" };
        return Err(Error::malformed(path, what, "a safetensors file of at least 10 bytes", format!("{len} bytes")));
    };
    let header_len = u64::from_le_bytes(*length);
    if rest.first() != Some(&b'{')
        && let Some(error) = recognise(path, start, EXPECTED)
    {
        return Err(error);
    }
    let most = LONGEST_HEADER.min(len - 8);
    if header_len == 0 || header_len > most {
        let expected = format!("1 to {most} bytes (the file has {len}; no header is longer than {LONGEST_HEADER})");
        return Err(Error::malformed(path, "header length", expected, header_len.to_string()));
    }
    let Ok(header_len) = usize::try_from(header_len) else { unreachable!("no header is longer than {LONGEST_HEADER}") };
    let mut header = vec![0; header_len];
    read(&mut header, 8)?;
    Ok(header)
}

/// The error for a file that is known to be something else, from its first bytes.
pub(crate) fn recognise(path: &Path, start: &[u8], expected: &str) -> Option<Error> {
    let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    let is = |magic: &[u8]| start.starts_with(magic);
    let (found, hint) = if text.starts_with("version https://git-lfs") {
        ("a Git-LFS pointer", "run git lfs pull")
    } else if ["<!doctype html", "<html", "<head", "<?xml"].iter().any(|tag| text.starts_with(tag)) {
        ("an HTML page", "the download was answered by a web page: download the file itself")
    } else if is(b"\x1f\x8b") {
        ("a gzip archive", "unpack it first")
    } else if is(b"GGUF") {
        ("a GGUF file", "only safetensors files and pickles of PyTorch are read")
    } else if is(b"PK\x03\x04") {
        ("a zip archive (as torch.save writes)", "name it .bin if it is a pickle of PyTorch")
    } else if is(b"\x80\x02") || is(b"\x80\x04") {
        ("a Python pickle without an archive", "load it with PyTorch and save its tensors as safetensors")
    } else if is(b"\x89HDF") {
        ("an HDF5 file", "only safetensors files and pickles of PyTorch are read")
    } else if is(b"{") {
        ("JSON text without the 8-byte header length", "is this an index or a config file?")
    } else {
        return None;
    };
    Some(Error::malformed(path, "cannot be read", expected, found).with_hint(hint))
}
