//! `adapter_config.json` as PEFT writes it.
//!
//! Only the fields that affect what an adapter does to its base are read; what else it may say is in `variants`, so that files of every PEFT
//! version open. Ranks come from the tensors: the config's `r` is only checked against them.

mod fields;
mod pattern;
mod text;
mod variants;

use std::path::{Path, PathBuf};

pub use self::pattern::ModulePattern;
use serde_json::Value;

use crate::terms::CondloraConvention;

/// The file's name in an adapter directory.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The `peft_type` of CondLoRA in its authors' code.
pub const CONDITIONAL: &str = "ConditionalLORA";
/// The `peft_type` of LoRA.
const LORA: &str = "LORA";
/// PEFT's default for `lora_alpha`.
const DEFAULT_ALPHA: f64 = 8.0;
/// PEFT's default for AdaLoRA's `init_r`.
const DEFAULT_INIT_R: usize = 12;
/// What PEFT adds to the rank that it divides AdaLoRA's α by (`SVDLinear`).
const ADALORA_SHIFT: f64 = 1e-5;
/// AdaLoRA's `peft_type`.
const ADALORA: &str = "ADALORA";
/// Initialisations that subtract the initial update from W0 (PEFT's `LoraConfig`), so that the frozen weight differs from the published one.
const REWRITES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What `adapter_config.json` says.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    /// The file.
    pub path: PathBuf,
    /// The kind of adapter: `LORA`, `ADALORA` or `ConditionalLORA`.
    pub peft_type: String,
    /// `r`, if the file gives it; none for AdaLoRA, which does not use it.
    pub r: Option<usize>,
    /// AdaLoRA's rank before any pruning: its scaling is computed from it.
    pub init_r: usize,
    /// `lora_alpha` (PEFT's default 8 if absent).
    pub lora_alpha: f64,
    /// Ranks by module, in file order.
    pub rank_pattern: Vec<(ModulePattern, usize)>,
    /// Whether there are more in expressions that are not read.
    pub has_unread_ranks: bool,
    /// α by module, in file order.
    pub alpha_pattern: Vec<(ModulePattern, f64)>,
    /// Whether the scaling is α/√r instead of α/r.
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
    /// Parameters that were adapted by name, such as the weights of several experts in one tensor.
    pub target_parameters: Vec<String>,
    /// The only layers that a CondLoRA's Θ are for, if not all are.
    pub layers_to_transform: Option<Vec<u32>>,
    /// Fields that are copied to an adapter made of this one.
    pub kept: KeptFields,
    /// The branch, tag or commit of the base model on the Hugging Face Hub, if the file names one.
    pub revision: Option<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Fields that do not affect B·A, as they are in the file.
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

impl AdapterConfig {
    /// The configuration of an adapter that has none in PEFT's form: all defaults. `path` is what messages about it name.
    pub(crate) fn of_another_format(path: &Path, base_model: Option<String>) -> Self {
        Self {
            path: path.to_owned(),
            peft_type: LORA.to_owned(),
            r: None,
            init_r: DEFAULT_INIT_R,
            lora_alpha: DEFAULT_ALPHA,
            rank_pattern: Vec::new(),
            has_unread_ranks: false,
            alpha_pattern: Vec::new(),
            use_rslora: false,
            fan_in_fan_out: false,
            use_dora: false,
            init_lora_weights: None,
            base_model_name_or_path: base_model,
            revision: None,
            condlora_convention: CondloraConvention::default(),
            target_parameters: Vec::new(),
            layers_to_transform: None,
            kept: KeptFields::default(),
            warnings: Vec::new(),
        }
    }

    /// The rank that `rank_pattern` gives a module, if one of its patterns matches.
    #[must_use]
    pub fn pattern_rank(&self, module_path: &str) -> Option<usize> {
        first_match(&self.rank_pattern, module_path)
    }

    /// Whether it is AdaLoRA: A is stored in two parts, and ranks were pruned in training.
    #[must_use]
    pub fn is_adalora(&self) -> bool {
        self.peft_type == ADALORA
    }

    /// The α of a module.
    #[must_use]
    pub fn alpha_of(&self, module_path: &str) -> f64 {
        first_match(&self.alpha_pattern, module_path).unwrap_or(self.lora_alpha)
    }

    /// The factor `s` in `ΔW = s·B·A` of a module whose tensors have rank `rank`.
    #[must_use]
    pub fn scaling(&self, module_path: &str, rank: usize) -> f64 {
        if self.is_adalora() {
            // As PEFT does it: by the rank at the start, whatever is left, and without patterns.
            let start = self.init_r as f64;
            return if self.lora_alpha > 0.0 { self.lora_alpha } else { start } / (start + ADALORA_SHIFT);
        }
        let alpha = self.alpha_of(module_path);
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

/// The warning for DoRA, whose weight is m·(W0 + s·B·A)/‖W0 + s·B·A‖ by columns: of that only A and B are looked at. `magnitudes` is
/// how many vectors m there are, where they were counted.
pub(crate) fn dora_warning(magnitudes: Option<usize>) -> String {
    let ignored = match magnitudes {
        None => "the magnitude vectors are".to_owned(),
        Some(1) => "the magnitude vector is".to_owned(),
        Some(count) => format!("the {count} magnitude vectors are"),
    };
    format!("DoRA adapter: A and B are analysed, {ignored} ignored (so the update is more than B·A)")
}

fn first_match<T: Copy>(patterns: &[(ModulePattern, T)], module_path: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.matches(module_path)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

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
    fn adalora_scales_by_the_rank_at_the_start() {
        let config = read(
            r#"{"peft_type":"ADALORA","r":8,"lora_alpha":32,"init_r":6,"alpha_pattern":{"q":1},
                "rank_pattern":{"a.q.lora_E":[true,false,true],"a.k.lora_E":[false,false,false]}}"#,
        );
        let config = config.unwrap();
        assert_eq!((config.r, config.scaling("a.q", 2)), (None, 32.0 / (6.0 + 1e-5)));
        assert_eq!((config.pattern_rank("a.q"), config.pattern_rank("a.k")), (Some(2), None));
        assert_eq!(read(r#"{"peft_type":"ADALORA"}"#).unwrap().scaling("q", 8), 8.0 / (12.0 + 1e-5));
        refused(r#"{"peft_type":"ADALORA","rank_pattern":{"a.q.lora_E":3}}"#, 5, "rank_pattern of `a.q.lora_E`; expected a list");
        refused(r#"{"peft_type":"ADALORA","init_r":0}"#, 5, "init_r");
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
        refused(r#"{"peft_type":"LORA","alpha_pattern":{"(?=q)":4}}"#, 5, "`(?=q)`");
        let unread = read(r#"{"peft_type":"LORA","rank_pattern":{"(?=q)":4,"k":8}}"#).unwrap();
        assert_eq!((unread.rank_pattern.len(), unread.has_unread_ranks, unread.warnings.len()), (1, true, 1));
        refused(r#"{"peft_type":"LORA","rank_pattern":[1]}"#, 4, "expected an object");
        let many: Vec<String> = (0..=pattern::MOST).map(|at| format!("\"[q]{at}\":2")).collect();
        let patterns = |pairs: &[String]| format!(r#"{{"peft_type":"LORA","rank_pattern":{{{}}}}}"#, pairs.join(","));
        refused(&patterns(&many), 8, "at most 100 regular expressions that are more than names, found number 101, `[q]100`");
        refused(r#"{"peft_type":"LORA","rank_pattern":{"(?:\\w{90}){90}":4}}"#, 8, "of moderate size");
        refused(r#"{"peft_type":"LORA","r":8,"r":4}"#, 4, "duplicate field `r`");
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        assert!(read(r#"{"peft_type":"ConditionalLORA","use_x":"none"}"#).is_ok());
        refused(r#"{"peft_type":"ConditionalLORA","use_x":"w"}"#, 5, "use_x; expected \"none\", found \"w\"");
        refused(r#"{"peft_type":"LORA","layers_to_transform":[-1]}"#, 5, "layers_to_transform; expected layer indices");
        refused(r#"{"peft_type":"LORA","condlora_convention":"x"}"#, 5, "condlora_convention");
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
