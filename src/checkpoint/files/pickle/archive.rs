//! The zip archive around a pickle: where its parts are in the file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::directory::{Directory, Part, read_directory};
use super::refusal::HINT;
use crate::checkpoint::files::disk::unreadable;
use crate::checkpoint::files::safetensors::reader::recognise;
use crate::error::{Error, Result, escape};

/// More than any dictionary of tensors needs: some 250 bytes a tensor.
const LONGEST_PICKLE: u64 = 16 << 20;

/// An archive as `torch.save` writes it.
pub(super) struct Archive<'a> {
    path: &'a Path,
    file: &'a File,
    len: u64,
    parts: Directory,
    /// The folder that everything is in, with its slash.
    folder: String,
}

impl<'a> Archive<'a> {
    pub(super) fn open(path: &'a Path, file: &'a File, len: u64) -> Result<Self> {
        check_start(path, file, len)?;
        let parts = read_directory(path, file, len)?;
        let folders: Vec<&[u8]> = parts
            .keys()
            .filter_map(|name| name.strip_suffix(b"data.pkl"))
            .filter(|folder| folder.is_empty() || folder.ends_with(b"/"))
            .collect();
        let folder = match folders[..] {
            [folder] => String::from_utf8(folder.to_owned()).map_err(|_| not_torch(path))?,
            _ => return Err(not_torch(path)),
        };
        let archive = Self { path, file, len, parts, folder };
        archive.check_byte_order()?;
        Ok(archive)
    }

    /// The bytes of `data.pkl`.
    pub(super) fn pickle(&self) -> Result<Vec<u8>> {
        self.contents("data.pkl", LONGEST_PICKLE)?.ok_or_else(|| not_torch(self.path))
    }

    /// Where a storage begins in the file, and how many bytes it has.
    pub(super) fn storage(&self, key: &str, tensor: &str) -> Result<(u64, u64)> {
        let name = format!("data/{key}");
        let part = self.part(&name)?.ok_or_else(|| {
            let what = format!("tensor `{}`", escape(tensor));
            Error::malformed(self.path, what, format!("its values in {}", escape(&name)), "no such part of the archive")
        })?;
        Ok((part.begin(self.path, &name, self.file, self.len)?, part.size))
    }

    /// An uncompressed part, if it is there.
    fn part(&self, name: &str) -> Result<Option<&Part>> {
        let Some(part) = self.parts.get(format!("{}{name}", self.folder).as_bytes()) else { return Ok(None) };
        let found = match part.method {
            _ if part.encrypted => "an encrypted one".to_owned(),
            0 if part.stored == part.size => return Ok(Some(part)),
            0 => {
                let found = format!("{} bytes for {}", part.stored, part.size);
                let what = format!("part `{}` of the archive", escape(name));
                return Err(Error::malformed(self.path, what, "one that is whole", found));
            }
            8 => "one compressed by deflate".to_owned(),
            method => format!("one compressed by method {method}"),
        };
        let what = format!("part `{}` of the archive", escape(name));
        Err(Error::mismatch(self.path, what, "uncompressed values, as torch.save writes them", found).with_hint(HINT))
    }

    /// The bytes of a small part, checked against their checksum.
    fn contents(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.part(name)? else { return Ok(None) };
        if part.size > most {
            let what = format!("size of {name}");
            return Err(Error::malformed(self.path, what, format!("at most {most} bytes"), part.size.to_string()));
        }
        let begin = part.begin(self.path, name, self.file, self.len)?;
        let mut bytes = vec![0; usize::try_from(part.size).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, begin).map_err(|err| unreadable(self.path, &err))?;
        let found = crc32fast::hash(&bytes);
        if found != part.crc {
            let what = format!("part `{name}` of the archive");
            let (expected, found) = (format!("the checksum {:08x}", part.crc), format!("{found:08x}"));
            return Err(Error::malformed(self.path, what, expected, found).with_hint("copy or download it again"));
        }
        Ok(Some(bytes))
    }

    fn check_byte_order(&self) -> Result<()> {
        match self.contents("byteorder", 16)? {
            None => Ok(()),
            Some(text) if text == b"little" => Ok(()),
            Some(text) => {
                let found = escape(&String::from_utf8_lossy(&text));
                Err(Error::mismatch(self.path, "byte order of the values", "little", found).with_hint(HINT))
            }
        }
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
    if start.starts_with(b"\x80\x02") || start.starts_with(b"\x80\x04") || tar {
        let found = if tar { "the tar file of very old versions" } else { "the older format without an archive" };
        return Err(Error::mismatch(path, "pickle cannot be read", EXPECTED, found).with_hint(HINT));
    }
    Err(recognise(path, start, EXPECTED).unwrap_or_else(|| Error::malformed(path, "cannot be read", EXPECTED, "something else")))
}
