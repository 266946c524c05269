//! The zip archive around a pickle: where its parts stand in the file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::super::files::unreadable;
use super::super::safetensors_file::recognise;
use super::HINT;
use crate::error::{Error, Result, escape};

/// More than any dictionary of tensors needs: some 100 bytes a tensor.
const LONGEST_PICKLE: u64 = 32 << 20;

/// An archive as `torch.save` writes it.
pub(super) struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<BufReader<&'a File>>,
    /// The folder that everything is in, with its slash.
    folder: String,
    len: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn open(path: &'a Path, file: &'a File, len: u64) -> Result<Self> {
        check_start(path, file, len)?;
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|err| Error::malformed(path, "zip archive", "one that is whole", escape(&err.to_string())))?;
        let folders: Vec<String> =
            zip.file_names().flatten().filter_map(|name| name.strip_suffix("data.pkl").map(str::to_owned)).collect();
        let [folder] = &folders[..] else { return Err(not_torch(path)) };
        if !folder.is_empty() && !folder.ends_with('/') {
            return Err(not_torch(path));
        }
        let folder = folder.clone();
        let mut archive = Self { path, zip, folder, len };
        archive.check_byte_order()?;
        Ok(archive)
    }

    /// The bytes of `data.pkl`.
    pub(super) fn pickle(&mut self) -> Result<Vec<u8>> {
        let (_, size) = self.entry("data.pkl")?.unwrap_or_default();
        if size > LONGEST_PICKLE {
            return Err(Error::malformed(
                self.path,
                "size of data.pkl",
                format!("at most {LONGEST_PICKLE} bytes"),
                size.to_string(),
            ));
        }
        self.contents("data.pkl", size)
    }

    /// Where a storage begins in the file, and how many bytes it has.
    pub(super) fn storage(&mut self, key: &str, tensor: &str) -> Result<(u64, u64)> {
        self.entry(&format!("data/{key}"))?.ok_or_else(|| {
            let what = format!("tensor `{}`", escape(tensor));
            Error::malformed(self.path, what, format!("its values in data/{}", escape(key)), "no such part of the archive")
        })
    }

    /// Start and size of an uncompressed part, if it is there.
    fn entry(&mut self, name: &str) -> Result<Option<(u64, u64)>> {
        let full = format!("{}{name}", self.folder);
        let Some(index) = self.zip.index_for_name(&full) else { return Ok(None) };
        let broken = |found: String| {
            Error::malformed(self.path, format!("part `{}` of the archive", escape(name)), "one that is whole", found)
        };
        let entry = self.zip.by_index_raw(index).map_err(|err| broken(escape(&err.to_string())))?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            let found = if entry.encrypted() { "an encrypted one".to_owned() } else { entry.compression().to_string() };
            let what = format!("part `{}` of the archive", escape(name));
            return Err(Error::mismatch(self.path, what, "uncompressed values, as torch.save writes them", found).with_hint(HINT));
        }
        let (start, size) = (entry.data_start().unwrap_or(u64::MAX), entry.size());
        match start.checked_add(size) {
            Some(end) if end <= self.len => Ok(Some((start, size))),
            _ => Err(broken(format!("{size} bytes from {start} on in a file of {}", self.len))),
        }
    }

    fn contents(&mut self, name: &str, size: u64) -> Result<Vec<u8>> {
        let full = format!("{}{name}", self.folder);
        let mut bytes = Vec::new();
        let path = self.path;
        let broken = |found: String| Error::malformed(path, format!("part `{name}` of the archive"), "one that is whole", found);
        let entry = self.zip.by_name(&full).map_err(|err| broken(escape(&err.to_string())))?;
        entry.take(size).read_to_end(&mut bytes).map_err(|err| broken(escape(&err.to_string())))?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(broken(format!("{} of {size} bytes", bytes.len()))) }
    }

    fn check_byte_order(&mut self) -> Result<()> {
        let Some((_, size)) = self.entry("byteorder")? else { return Ok(()) };
        let text = self.contents("byteorder", size.min(16))?;
        if text == b"little" {
            return Ok(());
        }
        let found = escape(&String::from_utf8_lossy(&text));
        Err(Error::mismatch(self.path, "byte order of the values", "little", found).with_hint(HINT))
    }
}

fn not_torch(path: &Path) -> Error {
    Error::mismatch(path, "not a file of torch.save", "a zip archive with one data.pkl", "another zip archive").with_hint(HINT)
}

/// Says what the file is where it is no zip archive.
fn check_start(path: &Path, file: &File, len: u64) -> Result<()> {
    let mut start = [0_u8; 512];
    let known = usize::try_from(len).unwrap_or(usize::MAX).min(start.len());
    file.read_exact_at(&mut start[..known], 0).map_err(|err| unreadable(path, &err))?;
    let start = &start[..known];
    if start.starts_with(b"PK\x03\x04") {
        return Ok(());
    }
    const EXPECTED: &str = "a zip archive, as torch.save writes since version 1.6";
    if start.is_empty() {
        return Err(Error::malformed(path, "file is empty", EXPECTED, "0 bytes"));
    }
    // A tar file has its mark behind the first header's names.
    let tar = start.get(257..262) == Some(b"ustar");
    if start.starts_with(b"\x80") || tar {
        let found = if tar { "the tar file of very old versions" } else { "the older format without an archive" };
        return Err(Error::mismatch(path, "pickle cannot be read", EXPECTED, found).with_hint(HINT));
    }
    Err(recognise(path, start).unwrap_or_else(|| Error::malformed(path, "cannot be read", EXPECTED, "something else")))
}
