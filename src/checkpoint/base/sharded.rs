//! The weights of a model: one file, or shards that an index names (`model.safetensors.index.json`, `pytorch_model.bin.index.json`).
//!
//! The headers of all shards are read and checked against the index when it is opened; no file stays open.
//! A shard that is missing or of another download is thus found before anything is computed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::checkpoint::files::disk::read_small;
use crate::checkpoint::files::json::json_message;
use crate::checkpoint::files::weights::WeightsFile;
use crate::error::{Error, Result, escape, show_path};
use crate::record::InputRecord;

/// How the name of an index ends; in that of a variant (`fp16`) there is one more part.
pub(super) const INDEX_END: &str = ".json";
/// An index has some 100 bytes a tensor; the largest in use are 20 MB.
const LARGEST_INDEX: u64 = 64 << 20;
/// Models have at most some hundreds.
const MOST_SHARDS: usize = 10_000;
/// Those of mixtures of hundreds of experts have a hundred thousand.
const MOST_TENSORS: usize = 500_000;

/// Files of tensors that are one model.
#[derive(Debug)]
pub(super) struct ShardedModel {
    /// The file, or the index of several.
    path: PathBuf,
    /// BLAKE3 of the index, in hexadecimal.
    index_hash: Option<String>,
    files: Vec<WeightsFile>,
    /// The tensors and the number of the file each is in, sorted by name.
    places: Vec<(String, usize)>,
}

impl ShardedModel {
    /// Opens a file of weights, or an index and all its shards.
    ///
    /// # Errors
    /// As [`WeightsFile::open`]; [`Error::Missing`] if a shard is not there or lacks a tensor, [`Error::Malformed`] for a bad index.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let is_index = path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().ends_with(INDEX_END));
        if is_index {
            return Self::open_index(path);
        }
        let file = WeightsFile::open(path)?;
        let places = file.names().map(|name| (name.to_owned(), 0)).collect();
        Ok(Self { path: path.to_owned(), index_hash: None, files: vec![file], places })
    }

    fn open_index(path: &Path) -> Result<Self> {
        let bytes = read_small(path, LARGEST_INDEX)?;
        let Index { shards, entries } = serde_json::from_slice(&bytes).map_err(|err| {
            let (what, expected) = match err.is_data() {
                true => ("index", "an object whose `weight_map` has the file of every tensor"),
                false => ("index is not valid JSON", "one JSON object"),
            };
            Error::malformed(path, what, expected, json_message(&err))
        })?;
        let index_hash = blake3::hash(&bytes).to_hex().to_string();
        drop(bytes);
        // By the number in the index: the name, and the file's number.
        let mut files = Vec::with_capacity(shards.len());
        let mut opened: Vec<(&str, usize)> = vec![("", 0); shards.len()];
        for (name, number) in &shards {
            opened[*number] = (name, files.len());
            files.push(open_shard(path, name)?);
        }
        let mut places = Vec::with_capacity(entries.len());
        for (name, number) in entries {
            let (shard, number) = opened[number];
            if files[number].info(&name).is_none() {
                let what = format!("says that tensor `{}` is in {}, which has none of that name", escape(&name), escape(shard));
                return Err(Error::missing(path, what).with_hint("the index and the shards may be of different downloads"));
            }
            places.push((name, number));
        }
        check_once(path, &files)?;
        Ok(Self { path: path.to_owned(), index_hash: Some(index_hash), files, places })
    }

    /// The file, or the index of several.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor names, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|(name, _)| name.as_str())
    }

    /// The file that a tensor is in.
    pub(super) fn file_of(&self, name: &str) -> Option<&WeightsFile> {
        let at = self.places.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
        self.places.get(at).and_then(|(_, number)| self.files.get(*number))
    }

    /// All files of weights.
    pub(super) fn all(&self) -> &[WeightsFile] {
        &self.files
    }

    /// The records of the index and of every header.
    pub(super) fn header_records(&self) -> Vec<InputRecord> {
        let index = self.index_hash.iter().map(|hash| InputRecord::of_file(&self.path, hash.clone()));
        index.chain(self.files.iter().map(WeightsFile::header_record)).collect()
    }
}

/// Opens a shard in the folder of its index; a name that leads elsewhere is refused.
fn open_shard(index: &Path, name: &str) -> Result<WeightsFile> {
    let leads_elsewhere = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']);
    if leads_elsewhere {
        let found = format!("`{}`", escape(name));
        return Err(Error::malformed(index, "name of a shard", "a file in the folder of the index, without a path", found));
    }
    let path = index.with_file_name(name);
    if path.symlink_metadata().is_err_and(|err| err.kind() == std::io::ErrorKind::NotFound) {
        let what = format!("does not exist, but {} names it as a shard", show_path(index));
        return Err(Error::missing(&path, what).with_hint("download the missing shard"));
    }
    WeightsFile::open(&path)
}

/// Checks that no tensor is in two shards: which of them counts would be anybody's guess.
fn check_once(index: &Path, files: &[WeightsFile]) -> Result<()> {
    let mut seen: Vec<(&str, &WeightsFile)> = files.iter().flat_map(|file| file.names().map(move |name| (name, file))).collect();
    seen.sort_by_key(|(name, _)| *name);
    let Some(pair) = seen.windows(2).find(|pair| pair[0].0 == pair[1].0) else { return Ok(()) };
    let what = format!("tensor `{}`", escape(pair[0].0));
    let found = format!("it in {} and in {}", show_path(pair[0].1.path()), show_path(pair[1].1.path()));
    Err(Error::malformed(index, what, "it in one shard", found))
}

/// What `weight_map` says.
#[derive(Default)]
struct Index {
    /// The shards with a number each, by name.
    shards: BTreeMap<String, usize>,
    /// The tensors, each with the number of its shard.
    entries: BTreeMap<String, usize>,
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Index;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a `weight_map`")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Index, M::Error> {
                let mut found = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "weight_map" {
                        map.next_value::<IgnoredAny>()?;
                    } else if found.replace(map.next_value::<WeightMap>()?).is_some() {
                        return Err(M::Error::custom("duplicate `weight_map`"));
                    }
                }
                found.map(|WeightMap(index)| index).ok_or_else(|| M::Error::missing_field("weight_map"))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

struct WeightMap(Index);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and files")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<WeightMap, M::Error> {
                let mut index = Index::default();
                while let Some((name, shard)) = map.next_entry::<String, String>()? {
                    index.add(name, shard).map_err(M::Error::custom)?;
                }
                Ok(WeightMap(index))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Index {
    /// Adds a tensor and its shard. A shard's name is kept once, however many tensors are in it.
    fn add(&mut self, name: String, shard: String) -> Result<(), String> {
        let next = self.shards.len();
        let number = *self.shards.entry(shard).or_insert(next);
        match self.entries.entry(name) {
            Entry::Vacant(place) => place.insert(number),
            Entry::Occupied(other) => {
                let shard = self.shards.iter().find(|(_, number)| *number == other.get()).map_or("", |(shard, _)| shard);
                return Err(format!("tensor `{}` twice, in `{}` too (a duplicate)", escape(other.key()), escape(shard)));
            }
        };
        if self.shards.len() > MOST_SHARDS {
            return Err(format!("more than {MOST_SHARDS} shards"));
        }
        if self.entries.len() > MOST_TENSORS {
            return Err(format!("more than {MOST_TENSORS} tensors"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn of_thirty_gigabytes_the_headers_are_read() {
        // 15 sparse shards of 2 GB, each with the 30 tensors of two layers of a large model and as many small ones.
        let dir = tempfile::tempdir().unwrap();
        let (mut map, size) = (serde_json::Map::new(), 2_u64 << 30);
        for shard in 0..15 {
            let file_name = format!("model-{:05}-of-00015.safetensors", shard + 1);
            let (mut header, each) = (serde_json::Map::new(), size / 32);
            for at in 0..32 {
                let name = format!("model.layers.{shard}.part.{at}.weight");
                let entry = serde_json::json!({"dtype": "BF16", "shape": [each / 2 / 4096, 4096], "data_offsets": [at * each, (at + 1) * each]});
                header.insert(name.clone(), entry);
                map.insert(name, file_name.clone().into());
            }
            let text = serde_json::Value::from(header).to_string();
            let path = dir.path().join(&file_name);
            std::fs::write(&path, [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(8 + text.len() as u64 + size).unwrap();
        }
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, serde_json::json!({"weight_map": map}).to_string()).unwrap();
        let shards = ShardedModel::open(&index).unwrap();
        assert_eq!((shards.names().count(), shards.all().len(), shards.header_records().len()), (480, 15, 16));
        let held: u64 = shards.all().iter().map(WeightsFile::file_size).sum();
        let read: u64 = shards.all().iter().map(WeightsFile::bytes_read).sum();
        assert!(held > 30 << 30 && read < 100_000, "{read} of {held}");
        let name = "model.layers.7.part.3.weight";
        assert!(shards.file_of(name).unwrap().path().ends_with("model-00008-of-00015.safetensors"));
    }
}
