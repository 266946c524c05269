//! Arguments that say how adapters belong to their base, where their names do not.

use clap::Args;

use super::choice::any;
use crate::checkpoint::{NameMap, PairingRules, Split};

#[derive(Debug, Args)]
pub(super) struct PairingArgs {
    /// Replace FROM by TO in module paths when looking for the base weight; repeat to apply several, in order
    #[arg(long, value_name = "FROM=TO", help_heading = "Adapter and base")]
    map: Vec<NameMap>,
    /// Split fused projections: c_attn into c_attn.q, c_attn.k and c_attn.v
    #[arg(long, value_name = "PARTS", value_parser = any::<Split>(), help_heading = "Adapter and base")]
    split: Option<Split>,
}

impl PairingArgs {
    /// What the library is asked for.
    pub(super) fn rules(&self) -> PairingRules {
        PairingRules { maps: self.map.clone(), split: self.split }
    }
}
