//! A part of a study: every N-th of its adapters, for as many machines as there are parts.
//!
//! The adapters, their names and the validity of the options are decided from the whole study; so the parts together
//! give the same as one run.

use std::fmt;
use std::str::FromStr;

use crate::checkpoint::FoundAdapter;
use crate::record::ShardRecord;
use crate::terms::serde_as_text;

/// Part `number` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// Whether the adapter at this position among all, sorted by name, is in this part.
    fn has(self, index: usize) -> bool {
        index % self.of == self.number - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let shard = parsed.map(|(number, of)| Self { number, of }).filter(|shard| (1..=shard.of).contains(&shard.number));
        shard.ok_or_else(|| "expected K/N with K from 1 to N, as in 2/8".to_owned())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

serde_as_text!(Shard);

/// The part of these adapters that a run analyses.
pub(super) fn record(shard: Option<Shard>, names: &[String]) -> ShardRecord {
    let Shard { number, of } = shard.unwrap_or(Shard { number: 1, of: 1 });
    let mut hash = blake3::Hasher::new();
    for name in names {
        // No path contains a NUL.
        hash.update(name.as_bytes()).update(b"\0");
    }
    ShardRecord { number, of, adapters: names.len(), names_blake3: hash.finalize().to_hex().to_string() }
}

/// Divides what was found, sorted by name, into this run's adapters and the others.
pub(super) fn divide(found: Vec<FoundAdapter>, shard: Option<Shard>) -> (Vec<FoundAdapter>, Vec<FoundAdapter>) {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for (index, adapter) in found.into_iter().enumerate() {
        if shard.is_none_or(|shard| shard.has(index)) { own.push(adapter) } else { others.push(adapter) }
    }
    (own, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_k_of_n() {
        assert_eq!("2/8".parse(), Ok(Shard { number: 2, of: 8 }));
        assert_eq!(Shard { number: 1, of: 1 }.to_string(), "1/1");
        for wrong in ["0/3", "4/3", "1", "1/0", "1/", "/2", "a/b", "-1/3", "1/2/3", " 1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shards_share_all_adapters_among_them() {
        let names: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        let found = || names.iter().map(|name| FoundAdapter { name: name.clone(), dir: name.into() }).collect::<Vec<_>>();
        let of = |number, of| -> Vec<String> {
            let (own, others) = divide(found(), Some(Shard { number, of }));
            assert_eq!(own.len() + others.len(), 7);
            own.into_iter().map(|adapter| adapter.name).collect()
        };
        assert_eq!([of(1, 3), of(2, 3), of(3, 3)], [vec!["0", "3", "6"], vec!["1", "4"], vec!["2", "5"]]);
        assert!(of(9, 9).is_empty());
        assert_eq!(divide(found(), None).0.len(), 7);
    }

    #[test]
    fn names_that_run_together_are_told_apart() {
        let of = |names: &[&str]| record(None, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_ne!(of(&["a", "bc"]), of(&["ab", "c"]));
        let one = of(&["a"]);
        assert_eq!((one.number, one.of, one.adapters), (1, 1, 1));
    }
}
