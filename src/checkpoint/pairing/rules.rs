//! What the user says about pairing, where the names of adapter and base do not tell.

use std::str::FromStr;

use crate::error::{Error, Result, escape, field};
use crate::terms::{named, serde_as_text};

/// How adapters are paired with their base, as far as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PairingRules {
    /// Renamings, each applied to the result of the one before it.
    #[serde(rename = "map")]
    pub maps: Vec<NameMap>,
    /// Which fused projections are split.
    pub split: Option<Split>,
}

/// Which fused projections are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Those of queries, keys and values.
    Qkv,
}

named!(Split, "what is split", { Qkv = "qkv" });

/// A renaming of module paths: the first occurrence of the dotted segments `from` becomes `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMap {
    from: Vec<String>,
    to: Vec<String>,
}

impl FromStr for NameMap {
    type Err = String;

    /// Reads `FROM=TO`, both dotted paths; an empty TO removes FROM.
    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('=').ok_or("expected FROM=TO, two parts of dotted names")?;
        let segments = |text: &str| -> Vec<String> { text.split('.').map(str::to_owned).collect() };
        let to = if to.is_empty() { Vec::new() } else { segments(to) };
        let from = segments(from);
        if from.iter().chain(&to).any(|segment| segment.is_empty() || segment.contains('=')) {
            return Err("expected FROM=TO, two parts of dotted names without empty segments".to_owned());
        }
        Ok(Self { from, to })
    }
}

impl std::fmt::Display for NameMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.from.join("."), self.to.join("."))
    }
}

serde_as_text!(NameMap);

impl NameMap {
    /// The path renamed, if `from` occurs in it.
    pub(super) fn apply(&self, path: &str) -> Option<String> {
        let segments: Vec<&str> = path.split('.').collect();
        let at = segments.windows(self.from.len()).position(|window| window == self.from)?;
        let (before, after) = (&segments[..at], &segments[at + self.from.len()..]);
        let to = self.to.iter().map(String::as_str);
        Some(before.iter().copied().chain(to).chain(after.iter().copied()).collect::<Vec<_>>().join("."))
    }
}

impl PairingRules {
    /// The path that the renamings make of a module's, if one of them applies.
    #[must_use]
    pub fn renamed(&self, path: &str) -> Option<String> {
        self.maps.iter().fold(None, |done, map| {
            let renamed = map.apply(done.as_deref().unwrap_or(path));
            renamed.or(done)
        })
    }

    /// Whether every renaming applies to one of the paths at least.
    ///
    /// # Errors
    /// [`Error::Usage`] for the first that does not.
    pub fn refuse_unused<'p>(&self, paths: impl Iterator<Item = &'p str> + Clone) -> Result<()> {
        for (number, map) in self.maps.iter().enumerate() {
            let before = Self { maps: self.maps[..number].to_vec(), split: None };
            let applies = |path: &str| map.apply(before.renamed(path).as_deref().unwrap_or(path)).is_some();
            if !paths.clone().any(applies) {
                let some = paths.clone().next().map(|path| format!("the first module of the adapters is `{}`", escape(path)));
                return Err(Error::Usage {
                    what: format!(
                        "{} {}: no module path has `{}` in it",
                        field("map"),
                        escape(&map.to_string()),
                        escape(&map.from.join("."))
                    ),
                    hint: some,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(maps: &[&str]) -> PairingRules {
        PairingRules { maps: maps.iter().map(|map| map.parse().unwrap()).collect(), split: None }
    }

    #[test]
    fn whole_segments_are_replaced_once_and_in_order() {
        for (maps, path, renamed) in [
            (&["a.b=x"][..], "a.b.c", Some("x.c")),
            (&["b=x.y"], "a.b.b", Some("a.x.y.b")),
            (&["b.c="], "a.b.c.d", Some("a.d")),
            (&["a=x", "x.b=y"], "a.b.c", Some("y.c")),
            (&["x=y", "c=z"], "a.b.c", Some("a.b.z")),
            (&["c=z", "x=y"], "a.b.c", Some("a.b.z")),
            (&["b"][..0], "a.b", None),
            (&["ab=x"], "a.b.abc", None),
        ] {
            assert_eq!(rules(maps).renamed(path).as_deref(), renamed, "{maps:?} {path}");
        }
    }

    #[test]
    fn a_renaming_that_says_nothing_sensible_is_refused() {
        for text in ["", "a", "=", "=a", "a.=b", ".a=b", "a..b=c", "a=b..c", "a=.b", "a=b=c"] {
            assert!(text.parse::<NameMap>().is_err(), "{text}");
        }
        assert_eq!("a.b=c".parse::<NameMap>().unwrap().to_string(), "a.b=c");
    }

    #[test]
    fn every_renaming_has_to_apply() {
        let paths = ["a.b", "c.d"];
        assert!(rules(&["a=x", "x.b=y", "d=e"]).refuse_unused(paths.into_iter()).is_ok());
        let error = rules(&["a=x", "a.b=y"]).refuse_unused(paths.into_iter()).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, "`map` a.b=y: no module path has `a.b` in it"));
    }
}
