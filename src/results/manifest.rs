//! The manifest of existing results: reading it, and updating it for figures that are drawn again.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::file::Outputs;
use crate::error::{Error, Result, escape, in_words};
use crate::json;
use crate::marker::{MANIFEST_FILE, is_ours};
use crate::output::Manifest;
use crate::record::AdapterRecord;

/// A manifest that was read back.
#[derive(Debug, Clone)]
pub struct SavedManifest {
    /// The file.
    pub path: PathBuf,
    /// The adapters analysed.
    pub adapters: Vec<AdapterRecord>,
    bytes: Vec<u8>,
    outputs: Outputs,
    redrawn: Vec<Value>,
}

/// The fields that are needed.
#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    adapters: Vec<AdapterRecord>,
    outputs: Outputs,
    #[serde(default)]
    redrawn: Vec<Value>,
}

/// The bytes of a directory's manifest, and the fields wanted from it; `by` names the commands that may have written it.
///
/// # Errors
/// [`Error::Missing`] if there is none or it cannot be read, [`Error::Malformed`] if this program did not write it.
pub(super) fn read_manifest<T: DeserializeOwned>(dir: &Path, by: &str) -> Result<(Vec<u8>, T)> {
    if !dir.is_dir() {
        return Err(Error::missing(dir, format!("is no directory; expected what {by} wrote")));
    }
    let path = dir.join(MANIFEST_FILE);
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::missing(dir, format!("has no {MANIFEST_FILE} of condlora; expected what {by} wrote")));
        }
        Err(error) => return Err(Error::missing(&path, in_words(&error))),
        Ok(found) if !found.is_file() => return Err(Error::missing(&path, "is no regular file")),
        Ok(_) => {}
    }
    let bytes = std::fs::read(&path).map_err(|error| Error::missing(&path, in_words(&error)))?;
    let bad = |found: String| Error::malformed(&path, "manifest", format!("what {by} wrote"), found);
    let wanted = serde_json::from_slice(&bytes).map_err(|error| bad(escape(&error.to_string())))?;
    if !is_ours(&bytes) {
        return Err(bad("that of something else".to_owned()));
    }
    Ok((bytes, wanted))
}

impl SavedManifest {
    /// The manifest in a directory.
    ///
    /// # Errors
    /// Those of [`read_manifest`].
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let (bytes, Wanted { adapters, outputs, redrawn }) = read_manifest(dir, "analyze, merge, compare or fit")?;
        Ok(Self { path: dir.join(MANIFEST_FILE), adapters, bytes, outputs, redrawn })
    }

    /// The files that were written, with their hashes.
    pub(super) fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Whether the file is still the one that was read.
    #[must_use]
    pub fn is_current(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|bytes| bytes == self.bytes)
    }

    /// The file's new bytes after `run` has drawn these figures again, given by path in the directory and contents; the rest is
    /// unchanged.
    #[must_use]
    pub fn with_figures<'a>(&self, figures: impl IntoIterator<Item = (String, &'a [u8])>, run: &Manifest) -> Vec<u8> {
        let mut outputs = self.outputs.clone();
        outputs.extend(figures.into_iter().map(|(path, bytes)| (path, blake3::hash(bytes).to_hex().to_string())));
        let mut redrawn = self.redrawn.clone();
        redrawn.push(serde_json::json!({
            "version": run.version,
            "created": run.created,
            "command_line": run.command_line,
            "options": run.options,
        }));
        let mut values = vec![("outputs", indented(&outputs)), ("redrawn", indented(&redrawn))];
        // From the end, so that the positions before a change stay valid.
        let mut text = self.bytes.clone();
        let mut places = fields(&self.bytes);
        places.sort_by_key(|(_, place)| std::cmp::Reverse(place.start));
        for (name, place) in places {
            if let Some(at) = values.iter().position(|value| value.0 == name) {
                text.splice(place, values.swap_remove(at).1);
            }
        }
        for (name, value) in values {
            let Some(end) = text.iter().rposition(|byte| *byte == b'}') else { continue };
            let start = text[..end].iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(end, |last| last + 1);
            let field = [format!(",\n  \"{name}\": ").as_bytes(), &value, b"\n"].concat();
            text.splice(start..end, field);
        }
        text
    }
}

/// A value as it is written in the manifest, indented by one level.
fn indented(value: &impl serde::Serialize) -> Vec<u8> {
    // Strings in JSON contain no line break.
    json::pretty(value).trim_end().replace('\n', "\n  ").into_bytes()
}

/// The fields of an object that is known to be valid JSON, each with the place of its value.
fn fields(text: &[u8]) -> Vec<(String, Range<usize>)> {
    let (mut found, mut depth, mut at) = (Vec::new(), 0_usize, 0);
    let mut name: Option<String> = None;
    let mut value: Option<usize> = None;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                let end = string_end(text, at);
                if depth == 1 && name.is_none() {
                    name = serde_json::from_slice(&text[at..end]).ok();
                } else {
                    value = value.or(Some(at));
                }
                at = end;
                continue;
            }
            b'{' | b'[' => {
                if depth > 0 {
                    value = value.or(Some(at));
                }
                depth += 1;
            }
            b'}' | b']' | b',' => {
                if depth == 1
                    && let (Some(name), Some(start)) = (name.take(), value.take())
                {
                    let end = text[..at].iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(at, |last| last + 1);
                    found.push((name, start..end));
                }
                depth -= usize::from(*byte != b',' && depth > 0);
            }
            b':' | b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => value = value.or(Some(at)),
        }
        at += 1;
    }
    found
}

/// The position after the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(byte) = text.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(text: &str) -> (tempfile::TempDir, Result<SavedManifest>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
        let read = SavedManifest::read(folder.path());
        (folder, read)
    }

    #[test]
    fn fields_are_found_in_any_layout() {
        let text = r#" {"a":1,"b" : [1,{"a":"}"}] , "c\"": "x,\"y" ,"d": {"e":{}}, "f":-1.5e3} "#;
        let found: Vec<(String, &str)> = fields(text.as_bytes()).into_iter().map(|(name, place)| (name, &text[place])).collect();
        let expected = [("a", "1"), ("b", r#"[1,{"a":"}"}]"#), ("c\"", r#""x,\"y""#), ("d", r#"{"e":{}}"#), ("f", "-1.5e3")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
        assert!(fields(b"{}").is_empty());
    }

    #[test]
    fn everything_but_hashes_stays_and_the_run_is_told() {
        let mut before = Manifest::new(vec!["condlora".into(), "analyze".into()]);
        before.outputs =
            Outputs::from([("figures/a.svg".to_owned(), "old".to_owned()), ("summary.csv".to_owned(), "s".to_owned())]);
        before.add_timing("analysis", std::time::Duration::from_nanos(1_234_567_891));
        let text = String::from_utf8(before.to_json()).unwrap();
        let (folder, read) = saved(&text);
        let manifest = read.unwrap();
        assert!(manifest.is_current() && manifest.outputs() == &before.outputs);
        let run = Manifest::new(vec!["condlora".into(), "figures".into()]);
        let draw = |manifest: &SavedManifest, path: &str| {
            String::from_utf8(manifest.with_figures([(path.to_owned(), &b"new"[..])], &run)).unwrap()
        };
        let hash = blake3::hash(b"new").to_hex();
        let once = draw(&manifest, "figures/a.svg");
        // Lines are changed or added, none is lost or moved.
        let mut lines = once.lines();
        for line in text.lines().filter(|line| !line.contains("\"old\"") && *line != "}" && *line != "  }") {
            assert!(lines.any(|new| new.trim_end_matches(',') == line.trim_end_matches(',')), "{line} in {once}");
        }
        let value: Value = serde_json::from_str(&once).unwrap();
        assert_eq!(value["outputs"]["figures/a.svg"], hash.as_str());
        assert_eq!((value["outputs"]["summary.csv"].as_str(), &value["timings"]["analysis"]), (Some("s"), &1.234567891.into()));
        assert_eq!(value["redrawn"][0]["command_line"][1], "figures");
        std::fs::write(folder.path().join(MANIFEST_FILE), &once).unwrap();
        assert!(!manifest.is_current());
        let again = draw(&SavedManifest::read(folder.path()).unwrap(), "figures/b.svg");
        let value: Value = serde_json::from_str(&again).unwrap();
        assert_eq!((value["redrawn"].as_array().unwrap().len(), value["outputs"].as_object().unwrap().len()), (2, 3));
    }

    #[test]
    fn what_is_no_manifest_of_ours_is_refused() {
        for text in
            ["", "{", "[]", "{\"program\": \"other\", \"outputs\": {}}", "{\"program\": \"condlora\"}", "[\"condlora\", {}]"]
        {
            let (_folder, read) = saved(text);
            assert_eq!(read.unwrap_err().exit_code(), 4, "{text}");
        }
        let none = tempfile::tempdir().unwrap();
        assert_eq!(SavedManifest::read(none.path()).unwrap_err().exit_code(), 3);
    }
}
