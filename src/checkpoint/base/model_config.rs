//! `config.json` of a base model, as far as the layout of its fused projections needs it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::files::disk::read_small;
use crate::checkpoint::files::json::json_message;
use crate::checkpoint::files::json::quote_non_finite;
use crate::error::{Error, Result};

/// The file's name in a model directory.
const CONFIG_FILE: &str = "config.json";
/// A config is a few kilobytes.
const LARGEST: u64 = 16 << 20;
/// More heads, and wider ones, than any model has.
const MOST: u64 = 1 << 24;

/// What `config.json` says about attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// The file.
    pub path: PathBuf,
    /// `model_type`, as in `phi3`.
    pub model_type: Option<String>,
    /// Whether the output layer has the weight of the input embedding; transformers writes the field only where it is not the class's default.
    pub ties_embeddings: Option<bool>,
    /// How queries, keys and values are divided, if the file says so.
    pub heads: Option<AttentionHeads>,
    /// The same in models that call their fields otherwise, or say in others whether keys and values are shared.
    pub(crate) fused: FusedHeads,
}

/// What models with fused projections say about their heads, each by the names that it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FusedHeads {
    /// Heads of the queries.
    pub(crate) queries: Option<usize>,
    /// Heads of the keys, and of the values, where they are fewer.
    pub(crate) keys: Option<usize>,
    /// Rows of a head.
    pub(crate) size: Option<usize>,
    /// Whether all queries share one head of keys and values, or groups of them do.
    pub(crate) multi_query: Option<bool>,
    /// Whether keys and values follow the queries of their group (Falcon-40B).
    pub(crate) grouped: bool,
}

/// The heads of an attention block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionHeads {
    /// Heads of the queries.
    pub queries: usize,
    /// Heads of the keys, and of the values.
    pub keys: usize,
    /// Rows of a head.
    pub size: usize,
}

impl ModelConfig {
    /// Reads the configuration in the folder of a model's weights; none where there is no such file.
    ///
    /// # Errors
    /// [`Error::Missing`] if it cannot be read, [`Error::Malformed`] if it is no JSON object.
    pub fn beside(weights: &Path) -> Result<Option<Self>> {
        let path = weights.parent().unwrap_or(Path::new("")).join(CONFIG_FILE);
        if path.symlink_metadata().is_err_and(|err| err.kind() == std::io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let bytes = read_small(&path, LARGEST)?;
        let fields: Value = serde_json::from_slice(&quote_non_finite(&bytes))
            .map_err(|err| Error::malformed(&path, "model config is not valid JSON", "one JSON object", json_message(&err)))?;
        if !fields.is_object() {
            return Err(Error::malformed(&path, "model config", "a JSON object", "something else"));
        }
        // Models of text and something else keep the text model's fields one level down.
        let nested = fields.get("text_config").and_then(heads);
        let tied = |fields: &Value| fields.get("tie_word_embeddings").and_then(Value::as_bool);
        let ties_embeddings = tied(&fields).or_else(|| fields.get("text_config").and_then(tied));
        let model_type = fields.get("model_type").and_then(Value::as_str).map(str::to_owned);
        Ok(Some(Self { heads: heads(&fields).or(nested), fused: fused_heads(&fields), model_type, ties_embeddings, path }))
    }
}

/// The first of some fields that is a number of heads or rows.
fn number(fields: &Value, names: &[&str]) -> Option<usize> {
    let value = |name: &&str| fields.get(*name)?.as_u64().filter(|value| (1..=MOST).contains(value));
    names.iter().find_map(value).and_then(|value| usize::try_from(value).ok())
}

fn fused_heads(fields: &Value) -> FusedHeads {
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
    let queries = number(fields, &["num_attention_heads", "n_head", "n_heads"]);
    let width = number(fields, &["hidden_size", "n_embd", "d_model"]);
    FusedHeads {
        queries,
        keys: number(fields, &["num_kv_heads", "multi_query_group_num", "num_key_value_heads"])
            .or_else(|| number(fields.get("attn_config")?, &["kv_n_heads"])),
        size: number(fields, &["head_dim", "kv_channels"]).or_else(|| Some(width? / queries?)),
        multi_query: flag("multi_query").or_else(|| flag("multi_query_attention")),
        grouped: flag("new_decoder_architecture") == Some(true),
    }
}

/// The heads in a configuration's fields; transformers' defaults are `num_attention_heads` for the keys and
/// `hidden_size / num_attention_heads` for the size.
fn heads(fields: &Value) -> Option<AttentionHeads> {
    let queries = number(fields, &["num_attention_heads"])?;
    let keys = number(fields, &["num_key_value_heads"]).unwrap_or(queries);
    let size = number(fields, &["head_dim"]).or_else(|| Some(number(fields, &["hidden_size"])? / queries))?;
    Some(AttentionHeads { queries, keys, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<ModelConfig>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), json).unwrap();
        ModelConfig::beside(&dir.path().join("model.safetensors"))
    }

    #[test]
    fn heads_are_those_that_transformers_takes() {
        for (json, expected) in [
            (r#"{"num_attention_heads": 8, "hidden_size": 64}"#, Some((8, 8, 8))),
            (r#"{"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}"#, Some((8, 2, 8))),
            (r#"{"num_attention_heads": 8, "num_key_value_heads": null, "head_dim": 16, "hidden_size": 64}"#, Some((8, 8, 16))),
            (r#"{"text_config": {"num_attention_heads": 4, "hidden_size": 64}}"#, Some((4, 4, 16))),
            (r#"{"n_head": 12, "n_embd": 768}"#, None),
            (r#"{"num_attention_heads": 0, "hidden_size": 64}"#, None),
            (r#"{"num_attention_heads": -3, "hidden_size": 64}"#, None),
        ] {
            let found = read(json).unwrap().unwrap().heads.map(|h| (h.queries, h.keys, h.size));
            assert_eq!(found, expected, "{json}");
        }
        assert_eq!(read(r#"{"model_type": "phi3"}"#).unwrap().unwrap().model_type.as_deref(), Some("phi3"));
    }

    #[test]
    fn a_config_that_is_none_is_refused() {
        assert_eq!(read("[]").unwrap_err().exit_code(), 4);
        assert_eq!(read("{").unwrap_err().exit_code(), 4);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ModelConfig::beside(&dir.path().join("model.safetensors")).unwrap(), None);
    }
}
