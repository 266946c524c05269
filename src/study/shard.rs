//! Which part of a study a run does.

use std::fmt;
use std::str::FromStr;

use crate::terms::serde_as_text;

/// Part `number` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
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
}
