//! The formats that tables are written in: CSV always, the others on request.

use crate::terms::named;

/// How tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFormat {
    /// Every table as `TABLE.csv`, and the φ matrices in `matrices/`: what this program reads, so they are always written.
    Csv,
    /// Every table as `TABLE.parquet`.
    #[cfg(feature = "parquet")]
    Parquet,
    /// The φ matrices in `npy/`, with an index.
    Npy,
}

named!(TableFormat, "a table format", { Csv = "csv", Parquet = "parquet" if "parquet", Npy = "npy" });
