//! A fused gate and up projection over a base that has the two apart, as experts are published: each is a part of B beside a W0 of its own.

use super::paired::{Block, PairedLayer, Rows};
use crate::checkpoint::adapter::source::AdapterLayer;
use crate::checkpoint::keys::ModuleKey;
use crate::error::Result;

/// The last part of the fused module's path.
const FUSED: &str = ".gate_up_proj";
/// The parts in the order of B's rows, and the modules that they are in the base.
pub(super) const HALVES: [(&str, &str); 2] = [("gate", ".gate_proj"), ("up", ".up_proj")];

/// The two halves of a fused layer, each paired by `pair`; none where the layer is no such, or the base has no such weights.
pub(super) fn halves(
    layer: &AdapterLayer,
    mut pair: impl FnMut(&AdapterLayer) -> Result<PairedLayer>,
) -> Option<[PairedLayer; 2]> {
    let before = layer.key.path.strip_suffix(FUSED)?;
    let d_out = layer.d_out / 2;
    if 2 * d_out != layer.d_out {
        return None;
    }
    let mut half = |which: usize| {
        let (name, module) = HALVES[which];
        let key = ModuleKey::from_path(format!("{before}{module}")).ok()?;
        let paired = pair(&AdapterLayer { layer: key.layer.clone(), key, d_out, ..layer.clone() }).ok()?;
        let (of_b, of_w0) = (Rows::together(which * d_out, d_out), Rows::together(0, d_out));
        let block = Block { name, of_b, of_w0, rows_of_w0: d_out };
        Some(PairedLayer { adapter_layer: layer.clone(), block: Some(block), ..paired })
    };
    Some([half(0)?, half(1)?])
}
