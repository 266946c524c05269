//! What marks a directory as written by this program: a `manifest.json` that says so.
//!
//! `--overwrite` replaces only such a directory, and the search for adapters skips it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The manifest's name in an output directory.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The value of the field `program` in every manifest of ours.
pub(crate) const PROGRAM: &str = "condlora";

/// What is needed of a manifest to recognise it, and to know which files it answers for.
#[derive(Debug)]
pub(crate) struct FoundManifest {
    program: String,
    outputs: BTreeMap<String, IgnoredAny>,
}

impl<'de> Deserialize<'de> for FoundManifest {
    // Written by hand, because a derived one accepts an array (`["condlora"]`) as an object, and to keep only these two fields
    // of a manifest that may list the inputs of ten thousand adapters.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = FoundManifest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FoundManifest, A::Error> {
                let mut found = FoundManifest { program: String::new(), outputs: BTreeMap::new() };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "program" => found.program = map.next_value()?,
                        "outputs" => found.outputs = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl FoundManifest {
    /// The manifest in a directory, if there is one and it is ours.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        let path = dir.join(MANIFEST_FILE);
        // A FIFO would block, and a link could lead to another directory's manifest, so neither is read.
        if !std::fs::symlink_metadata(&path).ok()?.is_file() {
            return None;
        }
        let found: Self = serde_json::from_reader(BufReader::new(File::open(path).ok()?)).ok()?;
        (found.program == PROGRAM).then_some(found)
    }

    /// Whether the run wrote this file.
    pub(crate) fn lists(&self, file: &str) -> bool {
        self.outputs.contains_key(file)
    }
}

/// Whether these are the bytes of a manifest of ours.
pub(crate) fn is_ours(manifest: &[u8]) -> bool {
    serde_json::from_slice::<FoundManifest>(manifest).is_ok_and(|found| found.program == PROGRAM)
}

/// Whether a directory holds a manifest of ours.
#[must_use]
pub fn is_our_output(dir: &Path) -> bool {
    FoundManifest::of(dir).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_manifest_of_ours_marks_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert!(!is_our_output(dir));
        for (text, ours) in [
            ("{\"program\": \"condlora\"}", true),
            ("{\"program\": \"condlora\", \"outputs\": {\"a\": \"b\"}, \"x\": [1]}", true),
            ("{\"program\": \"other\"}", false),
            ("{\"name\": \"a browser extension\", \"manifest_version\": 3}", false),
            ("[\"condlora\"]", false),
            ("\"condlora\"", false),
            ("", false),
            ("{\"program\": \"condlora\"", false),
        ] {
            std::fs::write(dir.join(MANIFEST_FILE), text).unwrap();
            assert_eq!(is_our_output(dir), ours, "{text}");
        }
        std::fs::remove_file(dir.join(MANIFEST_FILE)).unwrap();
        std::fs::create_dir(dir.join(MANIFEST_FILE)).unwrap();
        assert!(!is_our_output(dir));
    }
}
