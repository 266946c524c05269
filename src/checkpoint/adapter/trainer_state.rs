//! What the Hugging Face Trainer logged while an adapter was trained: `log_history` in `trainer_state.json`.
//!
//! No result depends on it: a log that cannot be read is left out with a warning.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::checkpoint::files::disk::read_small;
use crate::checkpoint::files::json::quote_non_finite;
use crate::error::{Error, Result, escape};
use crate::record::InputRecord;

/// The Trainer's name for it.
pub const TRAINER_STATE_FILE: &str = "trainer_state.json";
/// A log of a hundred thousand entries fits.
const MOST_BYTES: u64 = 16 << 20;
/// So do its numbers, each of which takes more memory than in the file.
const MOST_VALUES: usize = 500_000;
/// Folders of checkpoints.
const CHECKPOINT: &str = "checkpoint-";
/// Counters, which are not drawn as curves.
const NO_CURVE: [&str; 3] = ["step", "epoch", "total_flos"];

/// One number of one entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedValue {
    /// Optimiser steps done.
    pub step: usize,
    /// Epochs done.
    pub epoch: Option<f64>,
    /// What was logged (`loss`, `eval_accuracy`).
    pub name: String,
    /// Its value; none where it was NaN or infinite.
    pub value: Option<f64>,
}

/// The log of one training run.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingLog {
    /// Everything logged, in its order.
    pub values: Vec<LoggedValue>,
    /// The file and its hash.
    pub record: InputRecord,
}

/// The log that belongs to an adapter: in its folder, in the checkpoint's that it is a named adapter of, or in its last checkpoint's.
#[must_use]
pub fn find_training_log(adapter_dir: &Path) -> Option<PathBuf> {
    let own = adapter_dir.join(TRAINER_STATE_FILE);
    if own.is_file() {
        return Some(own);
    }
    let parent = adapter_dir.parent().filter(|parent| checkpoint_number(parent).is_some());
    if let Some(log) = parent.map(|parent| parent.join(TRAINER_STATE_FILE)).filter(|log| log.is_file()) {
        return Some(log);
    }
    let folders = std::fs::read_dir(adapter_dir).ok()?.flatten().map(|entry| entry.path());
    let logs = folders.filter_map(|folder| Some((checkpoint_number(&folder)?, folder.join(TRAINER_STATE_FILE))));
    logs.filter(|(_, log)| log.is_file()).max().map(|(_, log)| log)
}

/// The N of `checkpoint-N`.
fn checkpoint_number(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.strip_prefix(CHECKPOINT)?.parse().ok()
}

/// Reads a log.
///
/// # Errors
/// [`Error::Missing`] if it cannot be read, [`Error::Malformed`] if it is no `trainer_state.json`.
pub fn read_training_log(path: &Path) -> Result<TrainingLog> {
    let bytes = read_small(path, MOST_BYTES)?;
    let blake3 = blake3::hash(&bytes).to_hex().to_string();
    let quoted = quote_non_finite(&bytes);
    drop(bytes);
    let state: TrainerState = serde_json::from_slice(&quoted).map_err(|error| {
        Error::malformed(
            path,
            "training log",
            "an object with a list `log_history` of entries with `step`",
            escape(&error.to_string()),
        )
    })?;
    let record = InputRecord::of_file(path, blake3);
    Ok(TrainingLog { values: state.log_history.0, record })
}

#[derive(Debug, Deserialize)]
struct TrainerState {
    log_history: LoggedValues,
}

/// The numbers of all entries. The values of an entry are counted as soon as it is read: as a tree of JSON values a log would take
/// many times its size.
#[derive(Debug)]
struct LoggedValues(Vec<LoggedValue>);

impl<'de> Deserialize<'de> for LoggedValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = LoggedValues;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of entries")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<LoggedValues, A::Error> {
                let mut values = Vec::new();
                while let Some(LogEntry(fields)) = list.next_element()? {
                    add_entry(fields, &mut values).map_err(A::Error::custom)?;
                }
                Ok(LoggedValues(values))
            }
        }
        deserializer.deserialize_seq(Entries)
    }
}

/// The numbers of an entry by name; of a name that is there twice, the last. What is no number is skipped unread.
struct LogEntry(BTreeMap<String, f64>);

impl<'de> Deserialize<'de> for LogEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = LogEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entry of names and values")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<LogEntry, M::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    match number(value) {
                        Some(number) => drop(fields.insert(name, number)),
                        None => drop(fields.remove(&name)),
                    }
                    check_count(fields.len()).map_err(M::Error::custom)?;
                }
                Ok(LogEntry(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The number that a value is, NaN and the infinities of Python's JSON included (they are in quotes by now).
fn number(value: &RawValue) -> Option<f64> {
    match value.get() {
        r#""NaN""# | r#""Infinity""# | r#""-Infinity""# => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

/// Some programs write whole numbers as floats.
fn whole(number: f64) -> Option<usize> {
    (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then_some(number as usize)
}

fn check_count(values: usize) -> Result<(), String> {
    if values > MOST_VALUES { Err(format!("more than {MOST_VALUES} values")) } else { Ok(()) }
}

fn add_entry(fields: BTreeMap<String, f64>, values: &mut Vec<LoggedValue>) -> Result<(), String> {
    let step = fields.get("step").ok_or("an entry without a number `step`")?;
    let step = whole(*step).ok_or("a `step` that is no whole number from 0")?;
    let finite = |number: f64| number.is_finite().then_some(number);
    let epoch = fields.get("epoch").copied().and_then(finite);
    let curves = fields.into_iter().filter(|(name, _)| !NO_CURVE.contains(&name.as_str()));
    values.extend(curves.map(|(name, value)| LoggedValue { step, epoch, name, value: finite(value) }));
    check_count(values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrainingLog> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TRAINER_STATE_FILE);
        std::fs::write(&path, text).unwrap();
        read_training_log(&path)
    }

    #[test]
    fn numbers_are_taken_from_a_log_as_the_trainer_writes_it() {
        let text = r#"{"best_metric": null, "epoch": 1.0, "log_history": [
            {"epoch": 0.5, "grad_norm": NaN, "learning_rate": 5e-4, "loss": 0.75, "step": 10},
            {"epoch": 1.0, "eval_accuracy": 0.5, "eval_loss": 0.625, "step": 20, "note": "x", "list": [1]},
            {"step": 20.0, "total_flos": 1e15, "train_loss": 0.7}], "max_steps": 20}"#;
        let log = read(text).unwrap();
        let values: Vec<(usize, Option<f64>, &str, Option<f64>)> =
            log.values.iter().map(|v| (v.step, v.epoch, v.name.as_str(), v.value)).collect();
        assert_eq!(
            values,
            [
                (10, Some(0.5), "grad_norm", None),
                (10, Some(0.5), "learning_rate", Some(5e-4)),
                (10, Some(0.5), "loss", Some(0.75)),
                (20, Some(1.0), "eval_accuracy", Some(0.5)),
                (20, Some(1.0), "eval_loss", Some(0.625)),
                (20, None, "train_loss", Some(0.7)),
            ]
        );
        assert_eq!(log.record.blake3, blake3::hash(text.as_bytes()).to_hex().to_string());
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let deep = format!("{{\"log_history\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for text in
            ["", "{", "[]", "{}", "{\"log_history\": 3}", "{\"log_history\": [3]}", "{\"log_history\": [{\"loss\": 1}]}", &deep]
        {
            let error = read(text).unwrap_err();
            assert_eq!(error.exit_code(), 4, "{text}");
            assert!(error.to_string().lines().count() == 1);
        }
        for step in ["-1", "1.5", "\"1\"", "null", "1e400", "1e16"] {
            assert_eq!(read(&format!("{{\"log_history\": [{{\"step\": {step}}}]}}")).unwrap_err().exit_code(), 4, "{step}");
        }
        assert!(read("{\"log_history\": []}").unwrap().values.is_empty());
    }

    #[test]
    fn it_is_looked_for_where_the_trainer_puts_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let put = |name: &str| {
            std::fs::create_dir_all(at(name)).unwrap();
            std::fs::write(at(name).join(TRAINER_STATE_FILE), "{}").unwrap();
        };
        put("run/checkpoint-90");
        put("run/checkpoint-100");
        put("run/other-200");
        std::fs::create_dir_all(at("run/checkpoint-300")).unwrap();
        std::fs::create_dir_all(at("run/checkpoint-90/named/deep")).unwrap();
        let found = |name: &str| find_training_log(&at(name)).map(|path| path.strip_prefix(folder.path()).unwrap().to_owned());
        assert_eq!(found("run"), Some("run/checkpoint-100/trainer_state.json".into()));
        assert_eq!(found("run/checkpoint-90"), Some("run/checkpoint-90/trainer_state.json".into()));
        assert_eq!(found("run/checkpoint-90/named"), Some("run/checkpoint-90/trainer_state.json".into()));
        assert_eq!((found("run/checkpoint-90/named/deep"), found("nowhere")), (None, None));
        put("run");
        assert_eq!(found("run"), Some("run/trainer_state.json".into()));
    }
}
