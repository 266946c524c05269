//! `adapter_config.json` as PEFT writes it.
//!
//! Only the fields that bear on what an adapter does to its base are read; the rest is ignored, so that files of every PEFT
//! version open. Ranks come from the tensors: the config's `r` is only checked against them.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::files::{listing, read_small};
use super::header::json_message;
use super::python_json::quote_non_finite;
use crate::error::{Error, Result, escape};
use crate::terms::CondloraConvention;

/// The file's name in an adapter directory.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// A config is a few kilobytes; this leaves room for every rank pattern imaginable.
const LARGEST: u64 = 16 << 20;
/// No rank is above this: it is far more than the width of any model.
const HIGHEST_RANK: u64 = 1_000_000;
/// The `peft_type` of CondLoRA in its authors' code.
pub const CONDITIONAL: &str = "ConditionalLORA";
/// The kinds of adapters that are read.
const KINDS: &str = "\"LORA\" or \"ConditionalLORA\"";
/// PEFT's default for `lora_alpha`.
const DEFAULT_ALPHA: f64 = 8.0;
/// Initialisations that subtract the initial update from W0 (PEFT's `LoraConfig`): the frozen weight is another one.
const REWRITES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What `adapter_config.json` says.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    /// The file.
    pub path: PathBuf,
    /// The kind of adapter, `LORA`.
    pub peft_type: String,
    /// `r`, if the file gives it.
    pub r: Option<usize>,
    /// `lora_alpha` (PEFT's default 8 if absent).
    pub lora_alpha: f64,
    /// Ranks by module, in file order.
    pub rank_pattern: Vec<(ModulePattern, usize)>,
    /// α by module, in file order.
    pub alpha_pattern: Vec<(ModulePattern, f64)>,
    /// Whether the scaling is α/√r in place of α/r.
    pub use_rslora: bool,
    /// Whether the base weight is stored `[in, out]` (GPT-2's Conv1D).
    pub fan_in_fan_out: bool,
    /// Whether the update is DoRA's, of which `s·B·A` is only a part.
    pub use_dora: bool,
    /// `init_lora_weights` where it is a name (`pissa`).
    pub init_lora_weights: Option<String>,
    /// The base model's path or name.
    pub base_model_name_or_path: Option<String>,
    /// Which equations a CondLoRA's Θ are for.
    pub condlora_convention: CondloraConvention,
    /// The only layers that a CondLoRA's Θ are for, if not all are.
    pub layers_to_transform: Option<Vec<u32>>,
    /// What an adapter made of this one takes over.
    pub kept: KeptFields,
    /// The branch, tag or commit of the base model on the Hugging Face Hub, if the file names one.
    pub revision: Option<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Fields that say nothing about B·A, as they stand in the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeptFields {
    /// What the model is for (`SEQ_CLS`).
    pub task_type: Option<Value>,
    /// Which biases were trained.
    pub bias: Option<Value>,
    /// Modules that were trained in full.
    pub modules_to_save: Option<Value>,
    /// Dropout before A.
    pub lora_dropout: Option<Value>,
    /// The base model's revision.
    pub revision: Option<Value>,
}

/// A key of `rank_pattern` or `alpha_pattern`: it matches the end of a module path, as PEFT matches it.
#[derive(Debug, Clone)]
pub struct ModulePattern {
    /// The key as written.
    pub key: String,
    regex: Regex,
}

impl ModulePattern {
    /// Whether the pattern matches a module path: Python's `re.match(r"(.*\.)?(KEY)$", path)`.
    #[must_use]
    pub fn matches(&self, module_path: &str) -> bool {
        self.regex.is_match(module_path)
    }
}

impl AdapterConfig {
    /// Reads and checks `adapter_config.json` in an adapter directory.
    ///
    /// # Errors
    /// [`Error::Missing`] without the file, [`Error::Malformed`] if it is not JSON, [`Error::Mismatch`] for a value that no
    /// LoRA can have.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        if path.symlink_metadata().is_err_and(|err| err.kind() == std::io::ErrorKind::NotFound) {
            let what = format!("has no {CONFIG_FILE}, which PEFT writes beside the weights; it holds {}", listing(dir));
            return Err(Error::missing(dir, what).with_hint("copy it from where the adapter was trained"));
        }
        let bytes = read_small(&path, LARGEST)?;
        let raw = parse(&path, &bytes)?;
        Fields { path: &path }.check(raw)
    }

    /// The rank that `rank_pattern` gives a module, if one of its patterns matches.
    #[must_use]
    pub fn pattern_rank(&self, module_path: &str) -> Option<usize> {
        first_match(&self.rank_pattern, module_path)
    }

    /// The factor `s` in `ΔW = s·B·A` of a module whose tensors have rank `rank`.
    #[must_use]
    pub fn scaling(&self, module_path: &str, rank: usize) -> f64 {
        let alpha = first_match(&self.alpha_pattern, module_path).unwrap_or(self.lora_alpha);
        let rank = rank as f64;
        if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank }
    }

    /// The initialisation that rewrote W0, if one did: then a base model as published is not the frozen one.
    #[must_use]
    pub fn rewritten_base(&self) -> Option<&str> {
        let init = self.init_lora_weights.as_deref()?;
        REWRITES_BASE.iter().any(|name| init.to_ascii_lowercase().starts_with(name)).then_some(init)
    }
}

fn first_match<T: Copy>(patterns: &[(ModulePattern, T)], module_path: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.matches(module_path)).map(|(_, value)| *value)
}

/// The fields read, each as whatever stands there: the checks come after.
#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConfig {
    peft_type: Option<Value>,
    #[serde(deserialize_with = "present")]
    r: Option<Value>,
    #[serde(deserialize_with = "present")]
    lora_alpha: Option<Value>,
    rank_pattern: Option<Pairs<Value>>,
    alpha_pattern: Option<Pairs<Value>>,
    use_rslora: Option<Value>,
    fan_in_fan_out: Option<Value>,
    use_dora: Option<Value>,
    init_lora_weights: Option<Value>,
    base_model_name_or_path: Option<Value>,
    use_x: Option<Value>,
    condlora_convention: Option<Value>,
    layers_to_transform: Option<Value>,
    task_type: Option<Value>,
    bias: Option<Value>,
    modules_to_save: Option<Value>,
    lora_dropout: Option<Value>,
    revision: Option<Value>,
}

/// Keeps `null` apart from an absent field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// An object's entries in file order, which decides which pattern wins.
struct Pairs<T>(Vec<(String, T)>);

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

fn parse(path: &Path, bytes: &[u8]) -> Result<RawConfig> {
    if let Some(first) = bytes.trim_ascii_start().first().filter(|first| **first != b'{') {
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

/// The checks of the fields, all of which name the same file.
struct Fields<'a> {
    path: &'a Path,
}

impl Fields<'_> {
    fn check(&self, raw: RawConfig) -> Result<AdapterConfig> {
        let peft_type = self.peft_type(raw.peft_type.as_ref())?;
        if peft_type == CONDITIONAL {
            self.without_x(raw.use_x.as_ref())?;
        }
        let mut config = AdapterConfig {
            path: self.path.to_owned(),
            peft_type,
            r: raw.r.as_ref().map(|value| self.rank("r", value)).transpose()?,
            lora_alpha: raw.lora_alpha.as_ref().map_or(Ok(DEFAULT_ALPHA), |value| self.alpha("lora_alpha", value))?,
            rank_pattern: self.patterns("rank_pattern", raw.rank_pattern, |field, value| self.rank(field, value))?,
            alpha_pattern: self.patterns("alpha_pattern", raw.alpha_pattern, |field, value| self.alpha(field, value))?,
            use_rslora: self.flag("use_rslora", raw.use_rslora.as_ref())?,
            fan_in_fan_out: self.flag("fan_in_fan_out", raw.fan_in_fan_out.as_ref())?,
            use_dora: self.flag("use_dora", raw.use_dora.as_ref())?,
            init_lora_weights: match raw.init_lora_weights {
                None | Some(Value::Null | Value::Bool(_)) => None,
                Some(Value::String(name)) => Some(name),
                Some(other) => return Err(self.wrong("init_lora_weights", "true, false or a name", &other)),
            },
            base_model_name_or_path: self.name("base_model_name_or_path", raw.base_model_name_or_path)?,
            revision: self.name("revision", raw.revision.clone())?,
            condlora_convention: self.convention(raw.condlora_convention.as_ref())?,
            layers_to_transform: self.layer_list(raw.layers_to_transform.as_ref())?,
            kept: KeptFields {
                task_type: raw.task_type,
                bias: raw.bias,
                modules_to_save: raw.modules_to_save,
                lora_dropout: raw.lora_dropout,
                revision: raw.revision,
            },
            warnings: Vec::new(),
        };
        if config.use_dora {
            config.warnings.push("use_dora: the conversion of A and B is defined and done, that of the update is not".to_owned());
        }
        if let Some(init) = config.rewritten_base() {
            let text = format!(
                "init_lora_weights is {}: training started from a rewritten W0, so the base model as published is not the frozen one",
                escape(init)
            );
            config.warnings.push(text);
        }
        Ok(config)
    }

    fn peft_type(&self, value: Option<&Value>) -> Result<String> {
        match value {
            Some(Value::String(name)) if name == "LORA" || name == CONDITIONAL => Ok(name.clone()),
            Some(Value::String(name)) if name == "ADALORA" => {
                let hint = "this version reads LoRA and CondLoRA adapters only";
                Err(Error::mismatch(self.path, "peft_type is not supported", KINDS, format!("\"{name}\"")).with_hint(hint))
            }
            Some(other) => Err(self.wrong("peft_type", KINDS, other)),
            None => Err(Error::mismatch(self.path, "peft_type", KINDS, "no such field")),
        }
    }

    /// CondLoRA with `use_x` makes its factors of the layer's input too: no W0 gives them.
    fn without_x(&self, value: Option<&Value>) -> Result<()> {
        match value {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(name)) if name == "none" => Ok(()),
            Some(other) => {
                let hint = "with use_x the factors depend on the input of the layer and not on W0 and Θ alone";
                Err(self.wrong("use_x", "\"none\"", other).with_hint(hint))
            }
        }
    }

    fn convention(&self, value: Option<&Value>) -> Result<CondloraConvention> {
        match value {
            None | Some(Value::Null) => Ok(CondloraConvention::default()),
            Some(other) => other
                .as_str()
                .and_then(|name| name.parse().ok())
                .ok_or_else(|| self.wrong("condlora_convention", "\"paper\", \"general\" or \"eq6\"", other)),
        }
    }

    /// `layers_to_transform`: one layer, or a list; PEFT takes an empty list for all.
    fn layer_list(&self, value: Option<&Value>) -> Result<Option<Vec<u32>>> {
        let layer = |value: &Value| value.as_u64().and_then(|layer| u32::try_from(layer).ok());
        let layers = match value {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(all)) => all.iter().map(layer).collect::<Option<Vec<_>>>(),
            Some(one) => layer(one).map(|layer| vec![layer]),
        };
        let wrong = || self.wrong("layers_to_transform", "layer indices", value.unwrap_or(&Value::Null));
        layers.ok_or_else(wrong).map(|layers| Some(layers).filter(|layers| !layers.is_empty()))
    }

    fn wrong(&self, field: &str, expected: &str, found: &Value) -> Error {
        Error::mismatch(self.path, escape(field), expected, escape(&found.to_string()))
    }

    fn rank(&self, field: &str, value: &Value) -> Result<usize> {
        value
            .as_u64()
            .filter(|rank| (1..=HIGHEST_RANK).contains(rank))
            .and_then(|rank| usize::try_from(rank).ok())
            .ok_or_else(|| self.wrong(field, &format!("an integer from 1 to {HIGHEST_RANK}"), value))
    }

    fn alpha(&self, field: &str, value: &Value) -> Result<f64> {
        value
            .as_f64()
            .filter(|alpha| alpha.is_finite() && *alpha != 0.0)
            .ok_or_else(|| self.wrong(field, "a finite number other than 0", value))
    }

    fn flag(&self, field: &str, value: Option<&Value>) -> Result<bool> {
        match value {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(field, "true or false", other)),
        }
    }

    fn name(&self, field: &str, value: Option<Value>) -> Result<Option<String>> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => Ok(Some(name)),
            Some(other) => Err(self.wrong(field, "a path or name", &other)),
        }
    }

    fn patterns<T>(
        &self,
        field: &str,
        pairs: Option<Pairs<Value>>,
        read: impl Fn(&str, &Value) -> Result<T>,
    ) -> Result<Vec<(ModulePattern, T)>> {
        let pairs = pairs.map_or_else(Vec::new, |pairs| pairs.0);
        let mut patterns = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let value = read(&format!("{field} of `{key}`"), &value)?;
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$")).map_err(|_| {
                let expected = "a regular expression without look-around and back-references";
                Error::mismatch(self.path, format!("a key of {field}"), expected, format!("`{}`", escape(&key)))
            })?;
            patterns.push((ModulePattern { key, regex }, value));
        }
        Ok(patterns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<AdapterConfig> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), json).unwrap();
        AdapterConfig::read(dir.path())
    }

    fn refused(json: &str, code: u8, fragment: &str) {
        let error = read(json).unwrap_err();
        assert_eq!(error.exit_code(), code, "{json}: {error}");
        assert!(error.to_string().contains(fragment), "{json}: {error}");
    }

    #[test]
    fn defaults_are_pefts() {
        let config = read(r#"{"peft_type": "LORA"}"#).unwrap();
        assert_eq!((config.r, config.lora_alpha, config.use_rslora, config.fan_in_fan_out), (None, 8.0, false, false));
        assert_eq!(config.scaling("a.b", 16), 0.5);
    }

    #[test]
    fn the_first_pattern_in_file_order_wins() {
        let config = read(
            r#"{"peft_type": "LORA", "lora_alpha": 8,
                "alpha_pattern": {"z.query": 32, "query": 16, "layer\\.[12]\\.value": 4, "^top": 2}}"#,
        )
        .unwrap();
        for (path, scaling) in [
            ("x.z.query", 8.0),
            ("x.query", 4.0),
            ("xquery", 2.0),
            ("query.x", 2.0),
            ("layer.2.value", 1.0),
            ("layer.3.value", 2.0),
            ("top", 0.5),
            ("x.top", 2.0),
        ] {
            assert_eq!(config.scaling(path, 4), scaling, "{path}");
        }
    }

    #[test]
    fn rslora_divides_by_the_root() {
        assert_eq!(read(r#"{"peft_type":"LORA","lora_alpha":16,"use_rslora":true}"#).unwrap().scaling("q", 16), 4.0);
    }

    #[test]
    fn bad_values_are_named() {
        for value in ["0", "-1", "\"8\"", "1e9", "1000000000", "null", "true", "8.5"] {
            refused(&format!(r#"{{"peft_type":"LORA","r":{value}}}"#), 5, "r; expected an integer from 1");
        }
        for value in ["0", "0.0", "NaN", "null", "-Infinity", "1e999", "\"8\""] {
            let code = if value == "1e999" { 4 } else { 5 };
            refused(&format!(r#"{{"peft_type":"LORA","lora_alpha":{value}}}"#), code, "found");
        }
        refused(r#"{"peft_type":"LORA","use_rslora":1}"#, 5, "use_rslora; expected true or false, found 1");
        refused(r#"{"peft_type":"LORA","rank_pattern":{"q":0}}"#, 5, "rank_pattern of `q`");
        refused(r#"{"peft_type":"LORA","rank_pattern":{"(?=q)":4}}"#, 5, "`(?=q)`");
        refused(r#"{"peft_type":"LORA","rank_pattern":[1]}"#, 4, "expected an object");
        refused(r#"{"peft_type":"LORA","r":8,"r":4}"#, 4, "duplicate field `r`");
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        assert!(read(r#"{"peft_type":"ConditionalLORA","use_x":"none"}"#).is_ok());
        refused(r#"{"peft_type":"ConditionalLORA","use_x":"w"}"#, 5, "use_x; expected \"none\", found \"w\"");
        refused(r#"{"peft_type":"LORA","layers_to_transform":[-1]}"#, 5, "layers_to_transform; expected layer indices");
        refused(r#"{"peft_type":"LORA","condlora_convention":"x"}"#, 5, "condlora_convention");
        refused(r#"{"peft_type":"ADALORA"}"#, 5, "found \"ADALORA\"");
        refused(r#"{"peft_type":"IA3"}"#, 5, "found \"IA3\"");
        refused("{}", 5, "peft_type");
        refused("{", 4, "line 1 column 1");
        refused("[]", 4, "found `[`");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(AdapterConfig::read(empty.path()).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn python_only_numbers_are_ignored_where_they_do_not_matter() {
        let config = read(r#"{"peft_type":"LORA","r":8,"x":[NaN, -Infinity, "a \" NaN"],"init_lora_weights":"pissa_niter_16"}"#);
        let config = config.unwrap();
        assert_eq!(config.rewritten_base(), Some("pissa_niter_16"));
        assert_eq!(config.warnings.len(), 1);
    }
}
