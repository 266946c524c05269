//! Choices that have names: one list of variants and names gives parsing, printing, serialisation and the list in `--help`.
//!
//! The list is written once, with [`named!`], below the enum. The compiler refuses one that leaves a variant out, so a new variant
//! cannot be known to the tables and unknown to the command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer};

/// An enum made by [`named!`].
pub(crate) trait Named: FromStr<Err = String> + Copy + Send + Sync + 'static {
    /// All that this build has, in their order.
    const VALUES: &'static [Self];
    /// Names that only a build with another feature knows. Parsing one gives an error that tells so.
    const NOT_BUILT: &'static [&'static str];

    /// The name in options, tables and file names.
    fn text(self) -> &'static str;
}

/// `named!(Side, "a side", { Left = "left", Right = "right" })`: `ALL`, `name`, `Display`, `FromStr`, [`Named`] and serde's form.
///
/// `Pdf = "pdf" if "pdf"` is a variant that exists with the feature `pdf` alone.
macro_rules! named {
    ($type:ident, $what:literal, { $($variant:ident = $name:literal $(if $feature:literal)?),+ $(,)? }) => {
        #[allow(unreachable_pub, reason = "some of the enums are private")]
        impl $type {
            /// All that this build has, in their order.
            pub const ALL: [Self; [$($(#[cfg(feature = $feature)])? $name),+].len()] =
                [$($(#[cfg(feature = $feature)])? Self::$variant),+];

            /// The name used in options, tables and file names.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $($(#[cfg(feature = $feature)])? Self::$variant => $name),+
                }
            }
        }

        impl $crate::terms::Named for $type {
            const VALUES: &'static [Self] = &Self::ALL;
            const NOT_BUILT: &'static [&'static str] = &[$($(#[cfg(not(feature = $feature))] $name,)?)+];

            fn text(self) -> &'static str {
                self.name()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                $($(if text == $name && cfg!(not(feature = $feature)) {
                    return Err(concat!("this condlora was built without the feature `", $feature, "`").to_owned());
                })?)+
                Self::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|one| one.name()).collect();
                    format!("{} must be one of {}", $what, names.join(", "))
                })
            }
        }

        $crate::terms::serde_as_text!($type);
    };
}

/// Serde's form of a type that is printed and read as text.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {named, serde_as_text};

/// An optional choice, which is `auto` in a manifest if the program decides.
pub(crate) mod or_auto {
    use super::{Deserialize, Deserializer, Named, Serializer};

    /// The name for no choice.
    pub(crate) const AUTO: &str = "auto";

    pub(crate) fn serialize<T: Named, S: Serializer>(choice: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(choice.map_or(AUTO, Named::text))
    }

    pub(crate) fn deserialize<'de, T: Named, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == AUTO { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
    }
}

/// A path as JSON can hold it: whole, and with U+FFFD for what is not Unicode, where serde itself gives an error.
pub(crate) fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// [`path`] for an optional path.
pub(crate) fn path_if_any<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.serialize_some(&path.to_string_lossy()),
        None => serializer.serialize_none(),
    }
}

/// [`path`] for a list of paths.
pub(crate) fn paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}
