//! A table's file, checked against its hash in the manifest: a table is drawn or merged as it was written, or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result, escape, in_words};
use crate::marker::MANIFEST_FILE;
use crate::table::Tables;
use crate::table::any_table::Slot;

/// BLAKE3 of each file that a run wrote, in hex, by its name: as a manifest lists them.
pub(super) type Outputs = BTreeMap<String, String>;

/// Adds the rows of a study's tables to `tables`. Returns whether there are any.
///
/// # Errors
/// Those of [`read_table`], and [`Error::Missing`] for a table that is always written together with those that exist.
pub(super) fn read_tables(dir: &Path, outputs: &Outputs, tables: &mut Tables) -> Result<bool> {
    let (mut found, mut absent) = (false, None);
    for slot in tables.each_mut() {
        if read_table(dir, outputs, slot)? {
            found = true;
        } else if slot.is_required() {
            absent = absent.or(Some(slot.name()));
        }
    }
    match absent.filter(|_| found) {
        Some(name) => Err(Error::missing(&dir.join(format!("{name}.csv")), "does not exist, though other tables of a study do")),
        None => Ok(found),
    }
}

/// Adds the rows of `TABLE.csv` to a table, if the manifest lists it. Returns whether it does.
///
/// # Errors
/// [`Error::Missing`] if it cannot be read; [`Error::Malformed`] if its hash is another than the manifest's, if it is there though the
/// manifest does not list it, or if it is no such table.
pub(super) fn read_table(dir: &Path, outputs: &Outputs, table: &mut dyn Slot) -> Result<bool> {
    let name = format!("{}.csv", table.name());
    let path = dir.join(&name);
    let Some(expected) = outputs.get(&name) else {
        return match path.symlink_metadata() {
            Err(_) => Ok(false),
            Ok(_) => Err(Error::malformed(&path, "table", format!("one that {MANIFEST_FILE} lists"), "one that it does not")),
        };
    };
    let file = match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::missing(&path, format!("does not exist, but {MANIFEST_FILE} lists it")));
        }
        // A FIFO would block, and a device need not end.
        Ok(found) if !found.is_file() => return Err(Error::missing(&path, "is no regular file")),
        Ok(_) => File::open(&path),
        Err(error) => Err(error),
    };
    let unreadable = |error: io::Error| Error::missing(&path, in_words(&error));
    let mut file = Hashing { file: file.map_err(unreadable)?, hash: blake3::Hasher::new() };
    let parsed = table.fill().read_csv(&path, &mut file);
    // A refused table is not read to its end. A changed file is the better reason to give.
    io::copy(&mut file, &mut io::sink()).map_err(unreadable)?;
    let found = file.hash.finalize().to_hex();
    if found.as_str() != expected {
        let expected = format!("BLAKE3 {} as in {MANIFEST_FILE}", escape(expected));
        return Err(Error::malformed(&path, "contents", expected, found.to_string()));
    }
    parsed.map(|()| true)
}

/// A file, and the hash of the bytes read from it.
struct Hashing {
    file: File,
    hash: blake3::Hasher,
}

impl Read for Hashing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}
