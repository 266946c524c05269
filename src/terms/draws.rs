//! How much is asked of the controls.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::named;

/// How often controls are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NullDraws {
    /// [`NullDraws::AUTO`] times where draws are made together, and until a test is decided where they are made one after the other.
    #[default]
    Auto,
    /// So many times.
    Fixed(usize),
}

impl NullDraws {
    /// How often a control is drawn by default whose draws are made together.
    pub const AUTO: usize = 20;

    /// The number of draws that are made together.
    #[must_use]
    pub fn together(self) -> usize {
        match self {
            Self::Auto => Self::AUTO,
            Self::Fixed(draws) => draws,
        }
    }
}

impl fmt::Display for NullDraws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Fixed(draws) => draws.fmt(f),
        }
    }
}

impl FromStr for NullDraws {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Fixed).map_err(|_| "expected a number of draws, or auto".to_owned())
    }
}

/// A number, or the text `auto`.
impl Serialize for NullDraws {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.collect_str(self),
            Self::Fixed(draws) => draws.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NullDraws {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(draws) => Ok(Self::Fixed(draws)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Whether base weights are decomposed for the controls that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrictControl {
    /// Where they are small enough.
    #[default]
    Auto,
    /// All of them.
    Always,
    /// None.
    Never,
}

named!(StrictControl, "a choice of strict controls", { Auto = "auto", Always = "always", Never = "never" });

impl StrictControl {
    /// The largest min(out, in) of a base weight that is decomposed by default: at 1,024 this takes about 0.4 s on one core.
    pub const WIDEST: usize = 1024;

    /// Whether a weight of this shape is decomposed.
    #[must_use]
    pub fn decomposes(self, (d_out, d_in): (usize, usize)) -> bool {
        match self {
            Self::Auto => d_out.min(d_in) <= Self::WIDEST,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_a_number_or_auto() {
        assert_eq!(("auto".parse(), "7".parse()), (Ok(NullDraws::Auto), Ok(NullDraws::Fixed(7))));
        assert!("-1".parse::<NullDraws>().is_err() && "many".parse::<NullDraws>().is_err());
        assert_eq!((NullDraws::Auto.to_string(), NullDraws::Fixed(7).to_string()), ("auto".into(), "7".into()));
        assert_eq!((NullDraws::Auto.together(), NullDraws::Fixed(0).together()), (20, 0));
    }

    #[test]
    fn small_weights_are_decomposed_by_default() {
        let choices = [StrictControl::Auto, StrictControl::Always, StrictControl::Never];
        assert_eq!(choices.map(|choice| choice.decomposes((4096, 1024))), [true, true, false]);
        assert_eq!(choices.map(|choice| choice.decomposes((1025, 4096))), [false, true, false]);
    }
}
