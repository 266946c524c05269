//! The selection of modules by name, of layers by index, and of numbers of singular vectors.

use crate::checkpoint::PairedModule;
use crate::error::{Error, Result, escape, field};
use crate::terms::LayerId;

/// The modules and layers that are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// The names of the modules; empty for all.
    modules: Vec<String>,
    layers: Option<LayerSet>,
}

impl Selection {
    /// The selection of these names (none for all modules) and of a list of layers (`0..5,8`).
    ///
    /// # Errors
    /// [`Error::Usage`] for layers that are no list of indices and ranges.
    pub(crate) fn of(modules: &[String], layers: Option<&str>) -> Result<Self> {
        Ok(Self { modules: modules.to_vec(), layers: layers.map(LayerSet::parse).transpose()? })
    }

    /// Whether this layer of a module is wanted.
    pub(crate) fn wants(&self, module: &str, layer: Option<&LayerId>) -> bool {
        (self.modules.is_empty() || self.modules.iter().any(|name| name == module)) && self.wants_layer(layer)
    }

    /// Whether this layer is wanted in the wanted modules.
    pub(crate) fn wants_layer(&self, layer: Option<&LayerId>) -> bool {
        self.layers.as_ref().is_none_or(|layers| layer.is_some_and(|layer| layers.holds(layer)))
    }

    /// Drops what is not wanted.
    pub(crate) fn keep(&self, modules: &mut Vec<PairedModule>) {
        for module in &mut *modules {
            module.layers.retain(|layer| self.wants(&module.name, layer.adapter_layer.layer.as_ref()));
        }
        modules.retain(|module| !module.layers.is_empty());
    }

    /// Refuses a module that is not among those there are.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names there are.
    pub(crate) fn refuse_unknown_modules<'n>(&self, there: impl IntoIterator<Item = &'n str>) -> Result<()> {
        let there: std::collections::BTreeSet<&str> = there.into_iter().collect();
        match self.modules.iter().find(|name| !there.contains(name.as_str())) {
            None => Ok(()),
            Some(unknown) => Err(Error::Usage {
                what: format!("{} {}: no adapter has a module of that name", field("modules"), escape(unknown)),
                hint: Some(format!("the modules are {}", escape(&there.into_iter().collect::<Vec<_>>().join(", ")))),
            }),
        }
    }

    /// The error of a selection that left nothing because of its layers.
    ///
    /// # Errors
    /// [`Error::Usage`] if layers were given.
    pub(crate) fn refuse_missing_layers(&self) -> Result<()> {
        self.layers.as_ref().map_or(Ok(()), |layers| {
            Err(Error::usage(format!("{} {}: no module has such a layer", field("layers"), escape(&layers.given))))
        })
    }
}

/// Layer indices and inclusive ranges, and paths of blocks.
#[derive(Debug, Clone)]
struct LayerSet {
    given: String,
    ranges: Vec<(u32, u32)>,
    /// Layers that are paths, or what such paths start with.
    paths: Vec<String>,
}

impl LayerSet {
    fn parse(text: &str) -> Result<Self> {
        let wrong = |part: &str, why: &str| Error::Usage {
            what: format!("{} {}: {why}", field("layers"), escape(part)),
            hint: Some(format!(
                "give 0-based indices and inclusive ranges, as in {0} 0..5,8, or paths of blocks, as in {0} down_blocks.1",
                field("layers")
            )),
        };
        let number = |part: &str| part.trim().parse::<u32>().map_err(|_| wrong(part, "expected a layer index"));
        let (mut ranges, mut paths) = (Vec::new(), Vec::new());
        for part in text.split(',') {
            if !part.contains("..") && part.trim().starts_with(|letter: char| letter.is_alphabetic() || letter == '_') {
                paths.push(part.trim().to_owned());
                continue;
            }
            let range = match part.split_once("..") {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if range.0 > range.1 {
                return Err(wrong(part, "expected the smaller index first"));
            }
            ranges.push(range);
        }
        Ok(Self { given: text.to_owned(), ranges, paths })
    }

    fn holds(&self, layer: &LayerId) -> bool {
        match layer {
            LayerId::Index(index) => self.ranges.iter().any(|(first, last)| (first..=last).contains(&index)),
            LayerId::Path(path) => {
                let starts_with = |start: &String| {
                    path.strip_prefix(start.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                };
                self.paths.iter().any(starts_with)
            }
        }
    }
}

/// Checks numbers of singular vectors, and keeps each pair once, in the order given.
///
/// # Errors
/// [`Error::Usage`] for a 0.
pub(crate) fn check_ij(ij: &mut Vec<(usize, usize)>) -> Result<()> {
    if let Some((i, j)) = ij.iter().find(|(i, j)| *i == 0 || *j == 0) {
        return Err(Error::usage(format!("{} {i},{j}: expected numbers of singular vectors from 1 on, found 0", field("ij"))));
    }
    let mut seen = std::collections::BTreeSet::new();
    ij.retain(|pair| seen.insert(*pair));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_ranges_are_inclusive() {
        let set = LayerSet::parse("0..2,8").unwrap();
        assert_eq!((0..10).filter(|&l| set.holds(&l.into())).collect::<Vec<_>>(), [0, 1, 2, 8]);
        for bad in ["9..3", "", "a..b", "1..", "-1", "1.5"] {
            assert_eq!(LayerSet::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn paths_of_blocks_are_wanted_whole_or_by_their_start() {
        let set = LayerSet::parse("down_blocks.1, mid_block,3").unwrap();
        for (layer, held) in [
            ("down_blocks.1.attentions.0", true),
            ("down_blocks.1", true),
            ("down_blocks.10.attentions.0", false),
            ("mid_block.attentions.0", true),
            ("up_blocks.1", false),
            ("3", true),
            ("1", false),
        ] {
            assert_eq!(set.holds(&layer.parse().unwrap()), held, "{layer}");
        }
    }

    #[test]
    fn a_layer_is_wanted_by_module_and_index() {
        let selection = Selection::of(&["value".to_owned()], Some("1..2")).unwrap();
        assert!(
            selection.wants("value", Some(&2.into()))
                && !selection.wants("query", Some(&2.into()))
                && !selection.wants("value", Some(&3.into()))
        );
        // A module outside any repeated container has no index that a list could hold.
        assert!(!selection.wants("value", None));
        let everything = Selection::of(&[], None).unwrap();
        assert!(everything.wants("value", None) && everything.refuse_missing_layers().is_ok());
    }

    #[test]
    fn unknown_modules_are_refused_with_those_there_are() {
        let selection = Selection::of(&["value".to_owned(), "keys".to_owned()], Some("7")).unwrap();
        let error = selection.refuse_unknown_modules(["value", "query", "value"]).unwrap_err();
        assert_eq!(error.to_string(), "`modules` keys: no adapter has a module of that name");
        assert_eq!(error.hint(), Some("the modules are query, value"));
        assert!(selection.refuse_unknown_modules(["keys", "value"]).is_ok());
        let error = selection.refuse_missing_layers().unwrap_err();
        assert_eq!(error.to_string(), "`layers` 7: no module has such a layer");
    }

    #[test]
    fn each_pair_of_numbers_is_kept_once() {
        let mut ij = vec![(8, 8), (1, 2), (8, 8), (2, 1)];
        check_ij(&mut ij).unwrap();
        assert_eq!(ij, [(8, 8), (1, 2), (2, 1)]);
        assert!(check_ij(&mut vec![(1, 0)]).is_err());
    }
}
