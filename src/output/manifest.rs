//! `manifest.json`: where a result came from. The only output that holds times and versions.
//!
//! It also marks a directory as written by this program, so that `--overwrite` may replace it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::json;
use crate::marker::PROGRAM;
pub use crate::marker::{MANIFEST_FILE, is_our_output};
use crate::record::{AdapterRecord, InputRecord, ShardRecord};

/// A shard's directory that a result was merged from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MergedFrom {
    /// The directory.
    pub path: String,
    /// BLAKE3 of its manifest, in hex.
    pub manifest_blake3: String,
    /// The part that it is.
    pub shard: ShardRecord,
}

/// The machine a run was made on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The processor's architecture (`x86_64`).
    pub arch: String,
    /// The operating system (`linux`).
    pub os: String,
}

/// Everything `manifest.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Always `condlora`.
    pub program: String,
    /// Our version.
    pub version: String,
    /// When the run was made: UTC, ISO 8601.
    pub created: String,
    /// The command line, program first.
    pub command_line: Vec<String>,
    /// The options as they were resolved, defaults included.
    pub options: serde_json::Value,
    /// The seed of the controls.
    pub seed: Option<u64>,
    /// How many threads computed.
    pub threads: usize,
    /// The part of the adapters that was analysed; none for all.
    pub shard: Option<ShardRecord>,
    /// The adapters analysed, by name.
    pub adapters: Vec<AdapterRecord>,
    /// Adapters that were skipped, and why.
    pub skipped: BTreeMap<String, String>,
    /// The shards that a merged result was made from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merged_from: Vec<MergedFrom>,
    /// Every header and tensor read.
    pub inputs: Vec<InputRecord>,
    /// Bytes of headers and tensors read from files of weights, a tensor that was read twice counted twice.
    pub bytes_read: Option<u64>,
    /// BLAKE3 of every other file in the directory, by its path; filled in when the directory is committed.
    pub outputs: BTreeMap<String, String>,
    /// The warnings that were printed.
    pub warnings: Vec<String>,
    /// Seconds by stage, in the order of the stages.
    #[serde(serialize_with = "pairs_as_map")]
    pub timings: Vec<(String, f64)>,
    /// Libraries that can change last digits, with their configuration (`openblas`).
    pub libraries: BTreeMap<String, String>,
    /// The machine.
    pub host: Host,
}

impl Manifest {
    /// A manifest of this version, time and machine, with nothing else in it yet.
    #[must_use]
    pub fn new(command_line: Vec<String>) -> Self {
        Self {
            program: PROGRAM.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created: utc(SystemTime::now()),
            command_line,
            options: serde_json::Value::Null,
            seed: None,
            threads: 1,
            shard: None,
            adapters: Vec::new(),
            skipped: BTreeMap::new(),
            merged_from: Vec::new(),
            inputs: Vec::new(),
            bytes_read: None,
            outputs: BTreeMap::new(),
            warnings: Vec::new(),
            timings: Vec::new(),
            libraries: BTreeMap::new(),
            host: Host { arch: std::env::consts::ARCH.to_owned(), os: std::env::consts::OS.to_owned() },
        }
    }

    /// Adds the time a stage took.
    pub fn add_timing(&mut self, stage: impl Into<String>, took: Duration) {
        self.timings.push((stage.into(), took.as_secs_f64()));
    }

    /// The file's bytes: indented, with a newline at the end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json::pretty(self).into_bytes()
    }
}

fn pairs_as_map<S: Serializer>(pairs: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// A time as `2024-02-29T23:59:59Z`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in the proleptic Gregorian calendar, with years that begin in March so that the leap day is the
    // last (H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn stages_keep_their_order_and_a_header_has_no_tensor() {
        let mut manifest = Manifest::new(vec!["condlora".into(), "analyze".into()]);
        manifest.add_timing("solve", Duration::from_millis(250));
        manifest.add_timing("compare", Duration::from_millis(500));
        manifest.inputs.push(InputRecord { file: "a".into(), tensor: None, dtype: None, blake3: "00".into() });
        let text = String::from_utf8(manifest.to_json()).unwrap();
        assert!(text.starts_with("{\n  \"program\": \"condlora\",\n") && text.ends_with("}\n"));
        assert!(text.find("\"solve\": 0.25").unwrap() < text.find("\"compare\": 0.5").unwrap());
        assert!(text.contains("\"tensor\": null"));
    }
}
