//! An adapter's modules and layers with the base weight of each.

use crate::checkpoint::adapter::source::{AdapterLayer, UnusableLayer};

/// A module all of whose layers have their base weight, with shapes that fit.
#[derive(Debug, Clone)]
pub struct PairedModule {
    /// The module's name.
    pub name: String,
    /// Its layers, sorted by index.
    pub layers: Vec<PairedLayer>,
}

/// An adapter's modules with their base weights, and what the user should know of them.
#[derive(Debug, Clone)]
pub struct Pairing {
    /// The modules.
    pub modules: Vec<PairedModule>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Layers that cannot be used, those of the adapter's own files included. Their modules are left out; some module always is left.
    pub unusable: Vec<UnusableLayer>,
}

/// An adapted layer and its base weight W0 `[d_out, d_in]`.
#[derive(Debug, Clone)]
pub struct PairedLayer {
    /// The adapter's side.
    pub adapter_layer: AdapterLayer,
    /// The base tensor's name.
    pub tensor: String,
    /// Whether W0 is stored `[d_in, d_out]` (`fan_in_fan_out`, embeddings).
    pub transposed: bool,
    /// The rows of a fused weight that this layer is, if it is only a part of one.
    pub block: Option<Block>,
    /// Rows of W0 (of the block).
    pub d_out: usize,
    /// Columns of W0.
    pub d_in: usize,
    /// The stored type of W0.
    pub w0_dtype: String,
}

/// Part of a fused projection: some rows of W0, and the rows of B that belong to them; A belongs to all parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Its name (`q`, `k`, `v`, `gate` or `up`), the last part of the module's name.
    pub name: &'static str,
    /// Its rows in B.
    pub of_b: Rows,
    /// Its rows in W0 as that is stored: in the weight of all parts, or in one of its own.
    pub of_w0: Rows,
    /// All rows of W0 as it is stored.
    pub rows_of_w0: usize,
}

/// Some rows of a matrix: runs of `run` rows that begin every `period` rows, the first at `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rows {
    /// The first row.
    pub first: usize,
    /// Rows that follow each other.
    pub run: usize,
    /// From the beginning of a run to that of the next.
    pub period: usize,
}

impl Rows {
    /// Rows that all follow each other.
    #[must_use]
    pub fn together(first: usize, count: usize) -> Self {
        Self { first, run: count.max(1), period: count.max(1) }
    }

    /// The row of the matrix that is this part's number `row`.
    #[must_use]
    pub fn at(self, row: usize) -> usize {
        self.first + row / self.run * self.period + row % self.run
    }

    /// How many rows follow each other from this part's number `row` on.
    #[must_use]
    pub fn follow(self, row: usize) -> usize {
        self.run - row % self.run
    }
}
