//! What a φ is of: the key by which rows of one module, matrix, side and (i, j) belong together.

use super::rows::{AcrossRow, SimilarityRow, SummaryRow};
use crate::terms::{MatrixKind, Side};

/// What is compared, whoever the adapter is. Of one adapter, the key is `(row.adapter, row.view())`.
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
            /// What it is a φ of, whoever the adapter is.
            #[must_use]
            pub fn view(&self) -> ViewKey<'_> {
                ViewKey { module: &self.module, matrix: self.matrix, side: self.side, i: self.i, j: self.j }
            }
        }
    )+};
}
views!(SummaryRow, SimilarityRow, AcrossRow);
