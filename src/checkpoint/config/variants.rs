//! Fields of `adapter_config.json` that make another method of LoRA: those that make another update than `s·B·A` of the given W0 are refused by name, the
//! others said.
//!
//! What is done about each field of PEFT's `LoraConfig` stands in docs/reference/peft-fields.md.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result, escape};

/// Fields with which `s·B·A` is no update of the given W0, and why.
const REFUSED: [(&str, &str); 4] = [
    (
        "enable_lora",
        "PEFT 0.2 stored queries and values of a fused projection in one A and one B (MergedLinear): load it with PEFT 0.2 and save ΔW",
    ),
    ("use_qalora", "QALoRA's A works on inputs that were averaged in groups, so that B·A is no update of W0"),
    ("use_bdlora", "BD-LoRA stores the blocks of a block-diagonal A or B, which are no factors of an update by themselves"),
    ("kasa_config", "KaSA takes the smallest singular components from W0 before training, and puts a diagonal between A and B"),
];
/// Fields that say when an update is used, and what that is.
const NOTED: [(&str, &str); 3] = [
    ("alora_invocation_tokens", "the update acts only from its invocation tokens on (aLoRA)"),
    ("arrow_config", "the update is one of several that a router weighs for each token (Arrow)"),
    ("monteclora_config", "A is the mean of a distribution that training drew from (MonteCLoRA)"),
];
/// Fields that look like those of a variant and change nothing that is read here.
const HARMLESS: [&str; 9] = [
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "runtime_config",
    "use_cache",
    "use_reentrant",
    "velora_config",
];

/// The warnings for variants.
///
/// # Errors
/// [`Error::Mismatch`] for a field that makes the adapter another kind.
pub(super) fn read(path: &Path, fields: &BTreeMap<String, Value>) -> Result<Vec<String>> {
    for (field, why) in REFUSED {
        if let Some(value) = fields.get(field).filter(|value| is_active(value)) {
            let expected = if value.is_boolean() { "false" } else { "null" };
            return Err(Error::mismatch(path, field, expected, escape(&value.to_string())).with_hint(why));
        }
    }
    let active = |field: &str| fields.get(field).is_some_and(is_active);
    let noted = NOTED.iter().filter(|(field, _)| active(field)).map(|(field, what)| format!("{field} is set: {what}"));
    let is_variant = |field: &str| field.starts_with("use_") || field.ends_with("_config");
    let is_known = |field: &str| HARMLESS.contains(&field) || NOTED.iter().chain(&REFUSED).any(|(known, _)| *known == field);
    let unknown = fields.keys().filter(|field| is_variant(field) && active(field) && !is_known(field));
    let unknown =
        unknown.map(|field| format!("{} is set, and not known here: A and B are read as those of a plain LoRA", escape(field)));
    Ok(noted.chain(unknown).collect())
}

/// Whether a field says anything: PEFT writes all of its fields, most of them empty.
fn is_active(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Array(all) => !all.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(fields: Value) -> Result<Vec<String>> {
        read(Path::new("adapter_config.json"), &serde_json::from_value(fields).unwrap())
    }

    #[test]
    fn variants_are_refused_said_or_not_known() {
        for (field, value) in
            [("use_qalora", json!(true)), ("use_bdlora", json!({"nblocks": 2})), ("kasa_config", json!({"beta": 1}))]
        {
            let error = said(json!({ field: value })).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().contains(field), error.hint().is_some()), (5, true, true));
        }
        for field in ["alora_invocation_tokens", "arrow_config", "monteclora_config", "use_new", "new_config"] {
            let warnings = said(json!({ field: {"x": 1} })).unwrap();
            assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("{field} is set")), "{warnings:?}");
        }
        let silent = json!({"use_qalora": false, "kasa_config": null, "loftq_config": {"bits": 4}, "use_new": false, "new_config": {}, "note": 1});
        assert!(said(silent).unwrap().is_empty());
    }
}
