//! The adapters of the other shards, for the options that are refused only if no adapter of any shard fits them.

use crate::checkpoint::{Adapter, FoundAdapter};
use crate::inputs::{OpenedAdapter, Opener};

/// The adapters of the other shards. They are opened only to know whether one of them has what no adapter here has.
pub(crate) struct OtherShards {
    found: Vec<FoundAdapter>,
    /// The opener is separate from the study's, because these adapters are not its inputs.
    opener: Opener,
    opened: Option<Vec<OpenedAdapter>>,
}

impl OtherShards {
    pub(crate) fn new(found: Vec<FoundAdapter>, opener: Opener) -> Self {
        Self { found, opener, opened: None }
    }

    /// Those that can be opened and paired; what is wrong with the rest is reported by their own shard.
    pub(crate) fn adapters(&mut self) -> &[OpenedAdapter] {
        let (found, opener) = (std::mem::take(&mut self.found), &mut self.opener);
        self.opened.get_or_insert_with(|| {
            let mut open = |found: FoundAdapter| {
                let laid_out = opener.lay_out(Adapter::open(&found.dir, found.name)?)?;
                opener.pair(laid_out)
            };
            found.into_iter().filter_map(|found| open(found).ok()).collect()
        })
    }
}
