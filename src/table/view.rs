//! What a φ compares: the key that rows of one module, matrix, side and (i, j) have in common.

use super::rows::{AcrossRow, SimilarityRow, SummaryRow};
use crate::terms::{MatrixKind, Side};

/// What is compared, independent of the adapter. With the adapter, the key is `(row.adapter, row.view())`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewKey<'r> {
    /// Module name.
    pub module: &'r str,
    /// The matrix compared.
    pub matrix: MatrixKind,
    /// Which singular vectors.
    pub side: Side,
    /// How many singular vectors of the first.
    pub i: usize,
    /// How many singular vectors of the second.
    pub j: usize,
}

macro_rules! views {
    ($($row:ty),+) => {$(
        impl $row {
            /// What its φ compares, independent of the adapter.
            #[must_use]
            pub fn view(&self) -> ViewKey<'_> {
                ViewKey { module: &self.module, matrix: self.matrix, side: self.side, i: self.i, j: self.j }
            }
        }
    )+};
}
views!(SummaryRow, SimilarityRow, AcrossRow);
