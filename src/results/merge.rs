//! The shards of a study, checked before they are merged.
//!
//! What does not fit together is refused: other options, another version, an input that changed between two of them, a shard that
//! is missing or there twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::file::Outputs;
use super::manifest::read_manifest;
use crate::error::{Error, Result, escape};
use crate::marker::MANIFEST_FILE;
use crate::output::MergedFrom;
use crate::output::manifest::Host;
use crate::record::{InputRecord, ShardRecord};
use crate::table::TableFormat;

/// Shards that fit together.
#[derive(Debug)]
pub struct MergedShards {
    /// The files of all weights: directory, name within it, and hash.
    pub files: Vec<(PathBuf, String, String)>,
    /// The formats that the shards were asked for.
    pub formats: Vec<TableFormat>,
    /// Options of the study; where shards may differ, those of the first.
    pub options: Value,
    /// The seed of the controls.
    pub seed: Option<u64>,
    /// Whether adapters were skipped.
    pub skipped: bool,
    /// Warnings about the shards themselves.
    pub warnings: Vec<String>,
    /// Where they came from, by number.
    pub sources: Vec<MergedFrom>,
    /// Everything that was read, by file and tensor, with its hash.
    inputs: BTreeMap<(String, Option<String>), String>,
}

/// What is needed of a shard's manifest.
#[derive(Debug, Deserialize)]
struct ShardManifest {
    version: String,
    options: Value,
    seed: Option<u64>,
    shard: Option<ShardRecord>,
    skipped: BTreeMap<String, String>,
    inputs: Vec<InputRecord>,
    outputs: Outputs,
    libraries: BTreeMap<String, String>,
    host: Host,
}

/// A shard's directory and manifest.
#[derive(Debug)]
struct Part {
    dir: PathBuf,
    hash: String,
    shard: ShardRecord,
    manifest: ShardManifest,
}

impl MergedShards {
    /// Reads the manifests of the shards in these directories, in any order. `may_differ` are the options that change no row.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Malformed`] for a directory that cannot be read or is not as it was written,
    /// [`Error::Mismatch`] for shards that do not fit together.
    pub fn read(dirs: &[PathBuf], may_differ: &[&str]) -> Result<Self> {
        let mut parts: Vec<Part> = dirs.iter().map(|dir| Part::read(dir)).collect::<Result<_>>()?;
        parts.sort_by_key(|part| part.shard.number);
        check_complete(&parts)?;
        check_options(&parts, may_differ)?;
        let inputs = common_inputs(&parts)?;
        let Some(first) = parts.first() else {
            return Err(Error::usage("no shard given; expected the directories of all shards"));
        };
        let of_part = |part: &Part| -> Vec<_> {
            part.manifest.outputs.iter().map(|(name, hash)| (part.dir.clone(), name.clone(), hash.clone())).collect()
        };
        let files = parts.iter().flat_map(of_part).collect();
        Ok(Self {
            files,
            formats: first.formats()?,
            options: first.manifest.options.clone(),
            seed: first.manifest.seed,
            skipped: parts.iter().any(|part| !part.manifest.skipped.is_empty()),
            warnings: other_machine(&parts).into_iter().collect(),
            sources: parts.iter().map(Part::source).collect(),
            inputs,
        })
    }

    /// Checks that what is read now is what the shards read.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for the first file that changed.
    pub fn check_unchanged(&self, now: &[InputRecord]) -> Result<()> {
        let changed = now.iter().find(|input| {
            let known = self.inputs.get(&(input.file.clone(), input.tensor.clone()));
            known.is_some_and(|hash| *hash != input.blake3)
        });
        let Some(input) = changed else { return Ok(()) };
        let what = input.tensor.as_deref().map_or_else(|| "header".to_owned(), |name| format!("tensor `{}`", escape(name)));
        Err(Error::mismatch(Path::new(&input.file), what, "the contents that the shards were made from", "others"))
    }
}

/// Whether a directory has a finished shard, made by this version with these options of the inputs as they are.
#[must_use]
pub fn is_finished_shard(dir: &Path, shard: &ShardRecord, options: &Value, may_differ: &[&str], headers: &[InputRecord]) -> bool {
    let Ok(part) = Part::read(dir) else { return false };
    let of = |options: &Value| {
        let mut options = options.as_object().cloned().unwrap_or_default();
        options.retain(|name, _| !may_differ.contains(&name.as_str()));
        options
    };
    part.shard == *shard
        && part.manifest.version == env!("CARGO_PKG_VERSION")
        && of(&part.manifest.options) == of(options)
        && headers.iter().all(|header| part.manifest.inputs.contains(header))
        && part.manifest.outputs.keys().all(|name| dir.join(name).is_file())
}

impl Part {
    fn read(dir: &Path) -> Result<Self> {
        let (bytes, manifest) = read_manifest::<ShardManifest>(dir, "this version's analyze --shard")?;
        let Some(shard) = manifest.shard.clone() else {
            let what = "result of a whole study";
            return Err(Error::mismatch(&dir.join(MANIFEST_FILE), what, "one made by analyze --shard K/N", "no shard"));
        };
        Ok(Self { dir: dir.to_owned(), hash: blake3::hash(&bytes).to_hex().to_string(), shard, manifest })
    }

    fn manifest_path(&self) -> PathBuf {
        self.dir.join(MANIFEST_FILE)
    }

    fn source(&self) -> MergedFrom {
        let path = self.dir.to_string_lossy().into_owned();
        MergedFrom { path, manifest_blake3: self.hash.clone(), shard: self.shard.clone() }
    }

    /// The formats that its options name.
    fn formats(&self) -> Result<Vec<TableFormat>> {
        let named = self.manifest.options.get("formats").and_then(Value::as_array);
        let formats = named.and_then(|names| names.iter().map(|name| name.as_str()?.parse().ok()).collect());
        formats.ok_or_else(|| Error::malformed(&self.manifest_path(), "option formats", "formats of tables", "something else"))
    }
}

/// Checks that every shard of one study is there exactly once.
fn check_complete(parts: &[Part]) -> Result<()> {
    let Some(first) = parts.first() else { return Ok(()) };
    for pair in parts.windows(2) {
        let [one, two] = pair else { continue };
        let whole = |part: &Part| format!("a part of {} of {} adapters", part.shard.of, part.shard.adapters);
        if one.shard.of != two.shard.of || one.shard.adapters != two.shard.adapters {
            return Err(Error::mismatch(
                &two.manifest_path(),
                "shard",
                format!("{}, as in {}", whole(one), show(one)),
                whole(two),
            ));
        }
        if one.shard.names_blake3 != two.shard.names_blake3 {
            let expected = format!("the adapters that {} was made among", show(one));
            let error = Error::mismatch(&two.manifest_path(), "adapters of the whole", expected, "others");
            return Err(error.with_hint("adapters came or went between the two runs: make the shards again"));
        }
        if one.shard.number == two.shard.number {
            let what = format!("shard {}/{}", two.shard.number, two.shard.of);
            return Err(Error::mismatch(&two.manifest_path(), what, "it once", format!("it in {} too", show(one))));
        }
    }
    let is_there = |number: &usize| parts.iter().any(|part| part.shard.number == *number);
    let missing: Vec<String> = (1..=first.shard.of)
        .filter(|number| !is_there(number))
        .take(8)
        .map(|number| format!("{number}/{}", first.shard.of))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let found = format!("{} of them, without {}", parts.len(), missing.join(", "));
    Err(Error::mismatch(&first.dir, "shards", format!("all {}", first.shard.of), found))
}

/// Checks that all shards come from the same program with the same options and seed.
fn check_options(parts: &[Part], may_differ: &[&str]) -> Result<()> {
    let Some(first) = parts.first() else { return Ok(()) };
    let ours = env!("CARGO_PKG_VERSION");
    if let Some(other) = parts.iter().find(|part| part.manifest.version != ours) {
        let error = Error::mismatch(&other.manifest_path(), "version", ours, escape(&other.manifest.version));
        return Err(error.with_hint("the version that makes the shards must merge them"));
    }
    let empty = serde_json::Map::new();
    let options = |part: &'_ Part| part.manifest.options.as_object().cloned().unwrap_or_default();
    let known = first.manifest.options.as_object().unwrap_or(&empty);
    for part in parts {
        let found = options(part);
        let names = known.keys().chain(found.keys()).filter(|name| !may_differ.contains(&name.as_str()));
        for name in names {
            let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), |value| escape(&value.to_string()));
            if known.get(name) != found.get(name) {
                let expected = format!("{}, as in {}", shown(known.get(name)), show(first));
                let what = format!("option {}", escape(name));
                return Err(Error::mismatch(&part.manifest_path(), what, expected, shown(found.get(name))));
            }
        }
        if part.manifest.seed != first.manifest.seed {
            return Err(Error::mismatch(&part.manifest_path(), "seed", format!("that of {}", show(first)), "another"));
        }
    }
    Ok(())
}

/// The hashes of all inputs; one that two shards read differently is refused.
fn common_inputs(parts: &[Part]) -> Result<BTreeMap<(String, Option<String>), String>> {
    let mut known: BTreeMap<(&str, Option<&str>), (&InputRecord, &Part)> = BTreeMap::new();
    for part in parts {
        for input in &part.manifest.inputs {
            let (first, by) = *known.entry((&input.file, input.tensor.as_deref())).or_insert((input, part));
            if first.blake3 != input.blake3 {
                let what =
                    input.tensor.as_deref().map_or_else(|| "header".to_owned(), |name| format!("tensor `{}`", escape(name)));
                let what = format!("{what} of {}", escape(&input.file));
                let expected = format!("the contents that {} read", show(by));
                return Err(Error::mismatch(&part.manifest_path(), what, expected, "others"));
            }
        }
    }
    Ok(known.into_values().map(|(input, _)| ((input.file.clone(), input.tensor.clone()), input.blake3.clone())).collect())
}

/// A warning if they were computed with different libraries or on different machines.
fn other_machine(parts: &[Part]) -> Option<String> {
    let first = parts.first()?;
    let alike = |part: &&Part| part.manifest.libraries == first.manifest.libraries && part.manifest.host == first.manifest.host;
    let other = parts.iter().find(|part| !alike(part))?;
    Some(format!("{} was made on another kind of machine than the first shard: last digits may differ", show(other)))
}

fn show(part: &Part) -> String {
    crate::error::show_path(&part.dir)
}
