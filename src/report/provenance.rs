//! Where the numbers came from: options, adapters and base models with their hashes.
//!
//! What changes from run to run, or says nothing about the numbers, stays in `manifest.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::text;
use crate::output::Manifest;
use crate::record::InputRecord;

/// The largest number of adapters that are listed.
pub(super) const MOST_ADAPTERS: usize = 100;

/// Options that change no number of the page, or are shown elsewhere on it.
const LEFT_OUT: [&str; 14] = [
    "command",
    "out",
    "shard",
    "keep_going",
    "memory_limit",
    "formats",
    "figures",
    "figures_dir",
    "dpi",
    "scale",
    "colours",
    "order",
    "strict",
    "across",
];

/// The section on the run.
#[derive(Debug, Serialize)]
pub(super) struct Provenance {
    options: Vec<(String, String)>,
    adapters: Vec<Source>,
    bases: Vec<Source>,
    note: Option<String>,
}

/// A directory or file that was read.
#[derive(Debug, Serialize)]
struct Source {
    name: String,
    path: String,
    hash: Option<String>,
}

/// The options of the study itself: those of `analyze`, which `merge` keeps under that name.
pub(super) fn study_options(manifest: &Manifest) -> &Value {
    manifest.options.get("analyze").unwrap_or(&manifest.options)
}

impl Provenance {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let options = study_options(manifest).as_object();
        let shown = options.into_iter().flatten().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
        let by_folder = by_folder(&manifest.inputs);
        let adapters = manifest.adapters.iter().take(MOST_ADAPTERS).map(|adapter| Source {
            name: text::visible(&adapter.name),
            path: text::visible(&adapter.path),
            hash: digest(&by_folder, &adapter.path),
        });
        let bases: BTreeSet<(&str, &str)> =
            manifest.adapters.iter().map(|adapter| (adapter.base_name.as_str(), adapter.base.as_str())).collect();
        let given_base = study_options(manifest).get("base").and_then(Value::as_str).filter(|_| bases.len() == 1);
        let bases = bases.into_iter().take(MOST_ADAPTERS).map(|(name, path)| Source {
            name: text::visible(name),
            path: text::visible(path),
            // The base as it was given, or as it was found.
            hash: digest(&by_folder, path).or_else(|| digest(&by_folder, given_base?)),
        });
        let note = (manifest.adapters.len() > MOST_ADAPTERS).then(|| {
            let whole = text::thousands(manifest.adapters.len());
            format!("The first {MOST_ADAPTERS} of {whole} adapters; manifest.json lists them all.")
        });
        Self {
            options: shown.map(|(name, value)| (text::visible(name), option_text(name, value))).collect(),
            adapters: adapters.collect(),
            bases: bases.collect(),
            note,
        }
    }
}

fn option_text(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "default".to_owned(),
        Value::Array(values) if values.is_empty() => match name {
            "ij" => "r, r",
            "map" => "none",
            _ => "all",
        }
        .to_owned(),
        Value::Array(values) => values.iter().map(|value| option_text(name, value)).collect::<Vec<_>>().join(", "),
        // A folder is the same with and without a slash at its end.
        Value::String(text) if name == "paths" && text.len() > 1 => text::visible(text.strip_suffix('/').unwrap_or(text)),
        Value::String(text) => text::visible(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => text::visible(&other.to_string()),
    }
}

/// The inputs by their file's folder, and by their file.
fn by_folder(inputs: &[InputRecord]) -> BTreeMap<&Path, Vec<&InputRecord>> {
    let mut folders: BTreeMap<&Path, Vec<&InputRecord>> = BTreeMap::new();
    for input in inputs {
        let file = Path::new(&input.file);
        folders.entry(file).or_default().push(input);
        if let Some(folder) = file.parent() {
            folders.entry(folder).or_default().push(input);
        }
    }
    folders
}

/// BLAKE3 of the hashes of everything that was read there, sorted, each on a line.
fn digest(by_folder: &BTreeMap<&Path, Vec<&InputRecord>>, path: &str) -> Option<String> {
    let mut hashes: Vec<&str> = by_folder.get(Path::new(path))?.iter().map(|input| input.blake3.as_str()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let text: String = hashes.iter().flat_map(|hash| [*hash, "\n"]).collect();
    Some(blake3::hash(text.as_bytes()).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::AdapterRecord;

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new(vec!["condlora".into()]);
        let input =
            |file: &str, blake3: &str| InputRecord { file: file.into(), tensor: None, dtype: None, blake3: blake3.into() };
        manifest.inputs = vec![input("runs/a/x.safetensors", "22"), input("runs/a/c.json", "11"), input("base/w", "33")];
        let record = |name: &str, path: &str| AdapterRecord {
            name: name.into(),
            path: path.into(),
            base: "base".into(),
            base_name: "b".into(),
        };
        manifest.adapters = vec![record("a", "runs/a"), record("z", "runs/z")];
        manifest.options = json!({"out": "/secret", "seed": 7, "ij": [], "modules": [], "matrices": ["A", "B"], "map": ["x\u{1b}"], "init": null});
        manifest
    }

    #[test]
    fn options_are_those_of_the_numbers() {
        let found = Provenance::of(&manifest());
        let shown: Vec<(&str, &str)> = found.options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("ij", "r, r"), ("init", "default"), ("map", "x\\u{1b}"), ("matrices", "A, B"), ("modules", "all"), ("seed", "7")];
        assert_eq!(shown, expected);
        let mut merged = manifest();
        merged.options = json!({"command": "merge", "analyze": merged.options});
        assert_eq!(Provenance::of(&merged).options, found.options);
    }

    #[test]
    fn a_digest_is_of_the_sorted_hashes() {
        let found = Provenance::of(&manifest());
        assert_eq!(found.adapters[0].hash.as_deref(), Some(blake3::hash(b"11\n22\n").to_hex().as_str()));
        assert_eq!(found.adapters[1].hash, None);
        assert_eq!(found.bases.len(), 1);
        assert_eq!(found.bases[0].hash.as_deref(), Some(blake3::hash(b"33\n").to_hex().as_str()));
    }
}
