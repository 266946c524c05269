//! The formats that tables are written in: CSV always, the others for whoever wants them.

use std::fmt;
use std::str::FromStr;

/// How tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFormat {
    /// Every table as `TABLE.csv`, and the φ matrices in `matrices/`: what we read ourselves, and so always written.
    Csv,
    /// Every table as `TABLE.parquet`.
    Parquet,
    /// The φ matrices in `npy/`, with an index.
    Npy,
}

impl TableFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Csv, Self::Parquet, Self::Npy];

    /// The name used in options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Npy => "npy",
        }
    }
}

impl fmt::Display for TableFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TableFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| "expected csv, parquet or npy".to_owned())
    }
}
