//! The CSVs inside the page, if they are small.

use std::io::{self, Write};

use serde::Serialize;

use super::text;
use crate::figure::embedded::data_uri;
use crate::table::Tables;
use crate::table::any_table::AnyTable;

/// All tables together take at most this many bytes of CSV in the page. Larger ones are only in the page's directory.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// One CSV.
#[derive(Debug, Serialize)]
pub(super) struct Download {
    file: String,
    rows: String,
    /// Its address in the page; none for one that is too large.
    address: Option<String>,
    size: Option<String>,
}

/// The tables of a study, the shorter ones first: those are the ones people open.
pub(super) fn downloads(tables: &Tables) -> Vec<Download> {
    let mut left = MOST_BYTES;
    let mut all: Vec<&dyn AnyTable> = tables.each().collect();
    all.sort_by_key(|table| table.len());
    all.into_iter().map(|table| download(table, &mut left)).collect()
}

fn download(rows: &dyn AnyTable, left: &mut usize) -> Download {
    let mut bytes = Bounded { bytes: Vec::new(), most: *left };
    let whole = rows.write_csv(&mut bytes).is_ok();
    let bytes = bytes.bytes;
    if whole {
        *left -= bytes.len();
    }
    Download {
        file: format!("{}.csv", rows.name()),
        rows: text::count(rows.len(), "row"),
        address: whole.then(|| data_uri("text/csv;charset=utf-8", &bytes)),
        size: whole.then(|| format!("{} kB", text::thousands(bytes.len().div_ceil(1000)))),
    }
}

/// A writer that fails after this many bytes, so that a long table costs no time.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::SpectrumRow;
    use crate::terms::SpectrumMatrix;

    #[test]
    fn what_does_not_fit_is_named_alone() {
        let row =
            SpectrumRow { adapter: "a".into(), module: "q".into(), matrix: SpectrumMatrix::A, layer: None, k: 1, sigma: 0.5 };
        let mut left = 100;
        let small = download(&vec![row.clone()], &mut left);
        // "adapter,module,matrix,layer,k,sigma\na,q,A,,1,0.5\n" is 49 bytes long.
        assert_eq!(left, 51);
        assert!(small.address.unwrap().starts_with("data:text/csv;charset=utf-8;base64,YWRhcHRlc"));
        let large = download(&vec![row; 100_000], &mut left);
        assert_eq!((left, large.address, large.rows.as_str()), (51, None, "100,000 rows"));
    }
}
