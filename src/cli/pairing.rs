//! Arguments that say how adapters belong to their base, where their names do not.

use clap::Args;

use crate::checkpoint::{NameMap, PairingRules, Split};

#[derive(Debug, Args)]
pub(super) struct PairingArgs {
    /// Where a module's dotted path has FROM, the base has TO; repeatable, one after the other
    #[arg(long, value_name = "FROM=TO", help_heading = "Adapter and base")]
    map: Vec<NameMap>,
    /// Take fused projections apart: c_attn becomes c_attn.q, c_attn.k and c_attn.v
    #[arg(long, value_name = "qkv", help_heading = "Adapter and base")]
    split: Option<Split>,
}

impl PairingArgs {
    /// What the library is asked for.
    pub(super) fn rules(&self) -> PairingRules {
        PairingRules { maps: self.map.clone(), split: self.split }
    }
}
