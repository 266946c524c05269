//! Which layer of a module a weight is of.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a layer is written as.
const EXPECTED: &str = "a layer index from 0, or a path of blocks";

/// Which layer of a module a weight is of: its index, or, where blocks lie in several containers within each other (UNet, Swin,
/// ConvNeXt), their path.
///
/// Indices come before paths; the parts of paths that are numbers are ordered as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LayerId {
    /// The index in the one container of layers.
    Index(u32),
    /// The path of the block: `down_blocks.1.attentions.0.transformer_blocks.0`.
    Path(Arc<str>),
}

impl LayerId {
    /// The index, where the module has one container of layers.
    #[must_use]
    pub fn index(&self) -> Option<u32> {
        match self {
            Self::Index(index) => Some(*index),
            Self::Path(_) => None,
        }
    }
}

impl From<u32> for LayerId {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl PartialEq<u32> for LayerId {
    fn eq(&self, other: &u32) -> bool {
        self.index() == Some(*other)
    }
}

impl FromStr for LayerId {
    type Err = &'static str;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Index).map_err(|_| EXPECTED);
        }
        let is_path = text.contains('.') && text.contains(|letter: char| letter.is_alphabetic());
        if is_path { Ok(Self::Path(text.into())) } else { Err(EXPECTED) }
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl Ord for LayerId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Index(one), Self::Index(other)) => one.cmp(other),
            (Self::Index(_), Self::Path(_)) => Ordering::Less,
            (Self::Path(_), Self::Index(_)) => Ordering::Greater,
            (Self::Path(one), Self::Path(other)) => one.split('.').map(part_key).cmp(other.split('.').map(part_key)),
        }
    }
}

impl PartialOrd for LayerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A part of a path as it is ordered: `encoder_layer_9` before `encoder_layer_10`.
fn part_key(part: &str) -> (&str, Option<u64>, &str) {
    let word = part.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (word, part[word.len()..].parse().ok(), part)
}

impl Serialize for LayerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Index(index) => serializer.serialize_u32(*index),
            Self::Path(path) => serializer.serialize_str(path),
        }
    }
}

impl<'de> Deserialize<'de> for LayerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Stored {
            Index(u32),
            Path(String),
        }
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Index(index) => Self::Index(index),
            Stored::Path(path) => Self::Path(path.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_written_read_and_ordered() {
        let written = ["0", "2", "10", "down_blocks.0.attentions.1", "down_blocks.2.attentions.0", "down_blocks.10.attentions.0"];
        let more = ["layers.encoder_layer_9.x.0", "layers.encoder_layer_10.x.0", "mid_block.attentions.0", "up_blocks.1"];
        let layers: Vec<LayerId> = written.iter().chain(&more).map(|text| text.parse().unwrap()).collect();
        assert!(layers.is_sorted() && layers.windows(2).all(|pair| pair[0] != pair[1]), "{layers:?}");
        for (layer, text) in layers.iter().zip(written.iter().chain(&more)) {
            assert_eq!(layer.to_string(), *text);
            let json = serde_json::to_string(layer).unwrap();
            assert_eq!(serde_json::from_str::<LayerId>(&json).unwrap(), *layer);
        }
        assert_eq!((layers[1].index(), layers[3].index()), (Some(2), None));
        assert!(layers[2] == 10 && "".parse::<LayerId>().is_err() && "99999999999".parse::<LayerId>().is_err());
        assert!(["-1", "1.5", "x", "1e3"].iter().all(|text| text.parse::<LayerId>().is_err()));
    }
}
