//! One table's file with the places of its rows, so that whatever is wrong with a row can be told where it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, in_words};
use crate::table::columns::Row;
use crate::table::format::TableFormat;
use crate::table::{csv, parquet};

/// A table as it was read.
#[derive(Debug)]
pub(super) struct TableFile<R> {
    pub(super) path: PathBuf,
    /// Its name in the directory.
    pub(super) name: String,
    /// BLAKE3 of its bytes, in hex.
    pub(super) hash: String,
    pub(super) rows: Vec<R>,
    /// Of each row: the line of a CSV that it begins in; nothing for Parquet, whose rows count from 1.
    lines: Vec<u64>,
}

impl<R: Row> TableFile<R> {
    /// Reads `TABLE.csv`, or else `TABLE.parquet`; none where neither is there.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        for format in [TableFormat::Csv, TableFormat::Parquet] {
            let name = format!("{}.{format}", R::TABLE);
            let path = dir.join(&name);
            match std::fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => continue,
                Err(error) => return Err(Error::missing(&path, in_words(&error))),
                // A FIFO would block, and a device need not end.
                Ok(found) if !found.is_file() => return Err(Error::missing(&path, "is no regular file")),
                Ok(_) => return Self::open(path, name, format).map(Some),
            }
        }
        Ok(None)
    }

    fn open(path: PathBuf, name: String, format: TableFormat) -> Result<Self> {
        let hash = File::open(&path).and_then(|mut file| {
            let mut hash = blake3::Hasher::new();
            io::copy(&mut file, &mut hash)?;
            Ok(hash.finalize().to_hex().to_string())
        });
        let hash = hash.map_err(|error| Error::missing(&path, in_words(&error)))?;
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        if format == TableFormat::Csv {
            let file = File::open(&path).map_err(|error| Error::missing(&path, in_words(&error)))?;
            csv::each_row(&path, file, |line, row| {
                rows.push(row);
                lines.push(line);
            })?;
        } else {
            rows = parquet::read_rows(&path)?;
        }
        Ok(Self { path, name, hash, rows, lines })
    }

    /// Where a row stands: `line 7`, or `row 6` of a Parquet file.
    pub(super) fn place(&self, index: usize) -> String {
        self.lines.get(index).map_or_else(|| format!("row {}", index + 1), |line| format!("line {line}"))
    }

    /// Something is wrong with a row.
    pub(super) fn error(&self, index: usize, what: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::malformed(&self.path, format!("{}{what}", self.place(index)), expected, found)
    }
}

#[cfg(test)]
impl<R: Row> TableFile<R> {
    /// A table that is in no file.
    pub(super) fn of(text: &str) -> Result<Self> {
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        let name = format!("{}.csv", R::TABLE);
        csv::each_row(Path::new(&name), text.as_bytes(), |line, row| {
            rows.push(row);
            lines.push(line);
        })?;
        Ok(Self { path: PathBuf::from(&name), name, hash: String::new(), rows, lines })
    }
}
