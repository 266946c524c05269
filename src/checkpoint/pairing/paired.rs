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

/// Part of a fused projection: some of its rows, and the same rows of B; A belongs to all parts. W0 may hold the rows of all parts, or of this one alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Its name (`q`, `k`, `v`, `gate` or `up`), the last part of the module's name.
    pub name: &'static str,
    /// The first of its rows in B.
    pub first: usize,
    /// All rows of W0 as it is stored: those of the fused weight, or of the part.
    pub rows_of_w0: usize,
    /// The first of this part's rows there.
    pub first_of_w0: usize,
}
