//! The text of `adapter_config.json`: JSON as Python writes it, every field with whatever value it has.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use crate::checkpoint::files::json::json_message;
use crate::checkpoint::files::json::quote_non_finite;
use crate::checkpoint::files::safetensors::reader::recognise;
use crate::error::{Error, Result};

/// The fields read, each with whatever value it has: the checks come after.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RawConfig {
    pub(super) peft_type: Option<Value>,
    #[serde(deserialize_with = "present")]
    pub(super) r: Option<Value>,
    #[serde(deserialize_with = "present")]
    pub(super) init_r: Option<Value>,
    #[serde(deserialize_with = "present")]
    pub(super) lora_alpha: Option<Value>,
    pub(super) rank_pattern: Option<Pairs<Value>>,
    pub(super) alpha_pattern: Option<Pairs<Value>>,
    pub(super) use_rslora: Option<Value>,
    pub(super) fan_in_fan_out: Option<Value>,
    pub(super) use_dora: Option<Value>,
    pub(super) init_lora_weights: Option<Value>,
    pub(super) base_model_name_or_path: Option<Value>,
    pub(super) use_x: Option<Value>,
    pub(super) layer_replication: Option<Value>,
    pub(super) condlora_convention: Option<Value>,
    pub(super) layers_to_transform: Option<Value>,
    pub(super) target_parameters: Option<Value>,
    pub(super) task_type: Option<Value>,
    pub(super) bias: Option<Value>,
    pub(super) modules_to_save: Option<Value>,
    pub(super) lora_dropout: Option<Value>,
    pub(super) revision: Option<Value>,
    /// All other fields.
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

/// Keeps `null` apart from an absent field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// An object's entries in file order, which decides which pattern wins.
pub(super) struct Pairs<T>(pub(super) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Pairs<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs<T>, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Pairs(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<RawConfig> {
    if let Some(first) = bytes.trim_ascii_start().first().filter(|first| **first != b'{') {
        if let Some(error) = recognise(path, bytes, "one JSON object") {
            return Err(error);
        }
        let found = format!("`{}`", first.escape_ascii());
        return Err(Error::malformed(path, "adapter config is not valid JSON of an object", "`{` at column 1", found));
    }
    let first = match serde_json::from_slice(bytes) {
        Ok(raw) => return Ok(raw),
        Err(err) => err,
    };
    // Python writes NaN and Infinity, which JSON does not have. As text they reach the field they belong to.
    if let Ok(raw) = serde_json::from_slice(&quote_non_finite(bytes)) {
        return Ok(raw);
    }
    if first.is_data() {
        let expected = "an object with PEFT's fields, each once and of its type";
        return Err(Error::malformed(path, "adapter config", expected, json_message(&first)));
    }
    Err(Error::malformed(path, "adapter config is not valid JSON", "one JSON object", json_message(&first)))
}
