//! Reads `adapter_config.json` and checks its fields, each against what an adapter can have.

use std::cell::Cell;
use std::path::Path;

use serde_json::Value;

use super::pattern::{BadPattern, MOST, ModulePattern};
use super::text::{Pairs, RawConfig, parse};
use super::variants;
use super::{ADALORA, AdapterConfig, CONDITIONAL, CONFIG_FILE, DEFAULT_ALPHA, DEFAULT_INIT_R, KeptFields, LORA, dora_warning};
use crate::checkpoint::files::disk::{listing, read_small};
use crate::error::{Error, Result, escape, show_path};
use crate::terms::CondloraConvention;

/// No rank is above this: it is far more than the width of any model.
const HIGHEST_RANK: u64 = 1_000_000;
/// The kinds of adapters that are read.
const KINDS: &str = "\"LORA\", \"ADALORA\" or \"ConditionalLORA\"";
/// The initialisation of Minor Component Adaptation (arXiv 2604.01694).
const MICA: &str = "mica";
/// A config is a few kilobytes; this leaves room for every rank pattern imaginable.
const LARGEST: u64 = 16 << 20;

impl AdapterConfig {
    /// Reads and checks `adapter_config.json` in an adapter directory.
    ///
    /// # Errors
    /// [`Error::Missing`] without the file, [`Error::Malformed`] if it is not JSON, [`Error::Mismatch`] for a value that no
    /// LoRA can have.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        if path.symlink_metadata().is_err_and(|err| err.kind() == std::io::ErrorKind::NotFound) {
            let what = format!("has no {CONFIG_FILE}, which PEFT saves with the weights; it contains {}", listing(dir));
            return Err(Error::missing(dir, what).with_hint("copy it from where the adapter was trained"));
        }
        let bytes = read_small(&path, LARGEST)?;
        let raw = parse(&path, &bytes)?;
        Fields::new(&path).check(raw)
    }
}

/// The checks of the fields, all of which name the same file.
pub(super) struct Fields<'a> {
    path: &'a Path,
    /// How many patterns so far are more than names.
    expressions: Cell<usize>,
}

impl<'a> Fields<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, expressions: Cell::new(0) }
    }

    fn check(&self, raw: RawConfig) -> Result<AdapterConfig> {
        let peft_type = self.peft_type(raw.peft_type.as_ref())?;
        if peft_type == CONDITIONAL {
            self.without_x(raw.use_x.as_ref())?;
        }
        self.without_replication(raw.layer_replication.as_ref())?;
        let of_variants = variants::read(self.path, &raw.others)?;
        let adalora = peft_type == ADALORA;
        let r = raw.r.as_ref().map(|value| self.rank("r", value)).transpose()?;
        let mut warnings = Vec::new();
        let mut config = AdapterConfig {
            path: self.path.to_owned(),
            peft_type,
            r: r.filter(|_| !adalora),
            init_r: raw.init_r.as_ref().filter(|_| adalora).map_or(Ok(DEFAULT_INIT_R), |value| self.rank("init_r", value))?,
            lora_alpha: raw.lora_alpha.as_ref().map_or(Ok(DEFAULT_ALPHA), |value| self.alpha("lora_alpha", value))?,
            rank_pattern: if adalora {
                self.kept_ranks(raw.rank_pattern)?
            } else {
                self.patterns("rank_pattern", raw.rank_pattern, |field, value| self.rank(field, value), Some(&mut warnings))?
            },
            has_unread_ranks: false,
            alpha_pattern: self.patterns("alpha_pattern", raw.alpha_pattern, |field, value| self.alpha(field, value), None)?,
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
            target_parameters: self.names("target_parameters", raw.target_parameters)?,
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
        config.has_unread_ranks = !warnings.is_empty();
        config.warnings.extend(of_variants);
        config.warnings.append(&mut warnings);
        if config.use_dora {
            config.warnings.push(dora_warning(None));
        }
        if config.init_lora_weights.as_deref().is_some_and(|init| init.eq_ignore_ascii_case(MICA)) {
            let text = "init_lora_weights is mica: B is W0's own, the left singular vectors of its smallest singular values, and was not trained";
            config.warnings.push(text.to_owned());
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
            Some(Value::String(name)) if [LORA, ADALORA, CONDITIONAL].contains(&name.as_str()) => Ok(name.clone()),
            Some(other) => Err(self.wrong("peft_type", KINDS, other)),
            None => Err(Error::mismatch(self.path, "peft_type", KINDS, "no such field")),
        }
    }

    /// With `use_x` the factors of a CondLoRA depend on the layer's input too, so W0 does not determine them.
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

    /// `layer_replication` stacks layers of the base model anew, some of them more than once: layer 5 of the adapter is not layer 5 of the base.
    fn without_replication(&self, value: Option<&Value>) -> Result<()> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(()) };
        let range = |range: &Value| Some((range.get(0)?.as_u64()?, range.get(1)?.as_u64()?));
        let ranges: Option<Vec<(u64, u64)>> = value.as_array().and_then(|all| all.iter().map(range).collect());
        let mut next = 0;
        let as_they_are = |ranges: Vec<(u64, u64)>| {
            ranges.into_iter().all(|(first, end)| {
                let follows = first == next && end >= first;
                next = end;
                follows
            })
        };
        if ranges.is_some_and(as_they_are) {
            return Ok(());
        }
        let hint =
            "the adapter's layers are not those of the base model: make the stacked model and give its weights as the base";
        Err(self.wrong("layer_replication", "null, or layers in their order", value).with_hint(hint))
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
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        let layers = match value {
            Value::Array(all) => all.iter().map(layer).collect::<Option<Vec<_>>>(),
            one => layer(one).map(|layer| vec![layer]),
        };
        let layers = layers.ok_or_else(|| self.wrong("layers_to_transform", "layer indices", value))?;
        Ok(Some(layers).filter(|layers| !layers.is_empty()))
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

    fn names(&self, field: &str, value: Option<Value>) -> Result<Vec<String>> {
        match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(name)) => Ok(vec![name]),
            Some(Value::Array(all)) if all.iter().all(Value::is_string) => {
                Ok(all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            Some(other) => Err(self.wrong(field, "names", &other)),
        }
    }

    /// AdaLoRA's `rank_pattern`: for `PATH.lora_E` which of the ranks at the start are left.
    fn kept_ranks(&self, pairs: Option<Pairs<Value>>) -> Result<Vec<(ModulePattern, usize)>> {
        let entries = pairs.map_or_else(Vec::new, |pairs| pairs.0);
        let mut kept = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let flags: Option<Vec<bool>> = value.as_array().and_then(|flags| flags.iter().map(Value::as_bool).collect());
            let field = format!("rank_pattern of `{key}`");
            let flags = flags.ok_or_else(|| self.wrong(&field, "a list of true and false (AdaLoRA)", &value))?;
            let rank = flags.iter().filter(|left| **left).count();
            let path = key.split(".lora_E").next().unwrap_or(&key);
            if rank > 0 {
                kept.push((ModulePattern::of_path(key.clone(), path), rank));
            }
        }
        Ok(kept)
    }

    fn patterns<T>(
        &self,
        field: &str,
        pairs: Option<Pairs<Value>>,
        read: impl Fn(&str, &Value) -> Result<T>,
        mut unread: Option<&mut Vec<String>>,
    ) -> Result<Vec<(ModulePattern, T)>> {
        let pairs = pairs.map_or_else(Vec::new, |pairs| pairs.0);
        let mut patterns = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let value = read(&format!("{field} of `{key}`"), &value)?;
            let name = escape(&key);
            match (self.pattern(field, key)?, &mut unread) {
                (Some(pattern), _) => patterns.push((pattern, value)),
                (None, Some(warnings)) => warnings.push(format!(
                    "{field}: `{name}` has look-around or back-references, which are not read; the tensors' own rank is used"
                )),
                (None, None) => {
                    let expected = "a regular expression without look-around and back-references";
                    return Err(Error::mismatch(self.path, format!("a key of {field}"), expected, format!("`{name}`")));
                }
            }
        }
        Ok(patterns)
    }

    /// The pattern of a key; none for what is no regular expression here.
    fn pattern(&self, field: &str, key: String) -> Result<Option<ModulePattern>> {
        let shown = format!("`{}`", escape(&key));
        let pattern = match ModulePattern::new(key) {
            Ok(pattern) => pattern,
            Err(BadPattern::Syntax) => return Ok(None),
            Err(BadPattern::TooLarge) => return Err(self.too_much(field, "a regular expression of moderate size", shown)),
        };
        let count = self.expressions.get() + usize::from(pattern.is_expression());
        self.expressions.set(count);
        if count > MOST {
            let expected = format!("at most {MOST} regular expressions that are more than names");
            return Err(self.too_much(field, &expected, format!("number {count}, `{}`", escape(&pattern.key))));
        }
        Ok(Some(pattern))
    }

    fn too_much(&self, field: &str, expected: &str, found: String) -> Error {
        let what = format!("{}: a key of {field}", show_path(self.path));
        Error::Resource { what, expected: expected.to_owned(), found, hint: None }
    }
}
