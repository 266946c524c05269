//! `adapter_config.json` of the adapter that is made: fields that every PEFT since 0.10 knows, with values that keep each layer's s and
//! the weights that were trained in full.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::checkpoint::{Adapter, AdapterLayer};

/// The prefix that PEFT adds to every name.
pub(super) const PEFT_PREFIX: &str = "base_model.model.";

/// The configuration; `layers` with their paths in the model's class, `others` the tensors that are no Θ.
pub(super) fn peft_config(adapter: &Adapter, layers: &[(&str, &AdapterLayer)], others: &[&str]) -> Value {
    let config = &adapter.config;
    let kept = &config.kept;
    let text = |value: &Option<Value>| value.clone().filter(Value::is_string);
    let bias = text(&kept.bias).unwrap_or_else(|| json!("none"));
    let mut out = json!({
        "base_model_name_or_path": config.base_model_name_or_path,
        "bias": bias,
        "fan_in_fan_out": config.fan_in_fan_out,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": whole(config.lora_alpha),
        "lora_dropout": kept.lora_dropout.clone().filter(Value::is_number).unwrap_or_else(|| json!(0.0)),
        "modules_to_save": modules_to_save(kept.modules_to_save.as_ref(), layers, others, bias != "none"),
        "peft_type": "LORA",
        "r": common_rank(adapter, layers),
        "revision": text(&kept.revision),
        "target_modules": target_modules(adapter, layers),
        "task_type": text(&kept.task_type),
        "use_rslora": config.use_rslora,
    });
    if let Some(fields) = out.as_object_mut() {
        add_patterns(fields, adapter, layers);
    }
    out
}

/// A number without a fraction where it has none: PEFT expects `lora_alpha` to be an int.
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// The value of `r`: the configured one where some layer has it.
fn common_rank(adapter: &Adapter, layers: &[(&str, &AdapterLayer)]) -> usize {
    let configured = adapter.config.r.filter(|r| layers.iter().any(|(_, layer)| layer.rank == *r));
    configured.or_else(|| layers.first().map(|(_, layer)| layer.rank)).unwrap_or(1)
}

/// The CondLoRA's own module names, which PEFT matches in the same way; whole paths where not all of their layers are meant.
fn target_modules(adapter: &Adapter, layers: &[(&str, &AdapterLayer)]) -> Vec<String> {
    if adapter.config.layers_to_transform.is_some() {
        return layers.iter().map(|(path, _)| (*path).to_owned()).collect();
    }
    let names: BTreeSet<&str> = layers.iter().map(|(_, layer)| layer.adapter_key.as_str()).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Layers whose rank or α differs from the one in `r` and `lora_alpha`, each by its whole path.
fn add_patterns(fields: &mut Map<String, Value>, adapter: &Adapter, layers: &[(&str, &AdapterLayer)]) {
    let config = &adapter.config;
    let r = common_rank(adapter, layers);
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (path, layer) in layers {
        if layer.rank != r {
            ranks.insert((*path).to_owned(), json!(layer.rank));
        }
        let alpha = config.alpha_of(&layer.key.path);
        if alpha != config.lora_alpha {
            alphas.insert((*path).to_owned(), whole(alpha));
        }
    }
    for (field, pattern) in [("rank_pattern", ranks), ("alpha_pattern", alphas)] {
        if !pattern.is_empty() {
            fields.insert(field.to_owned(), Value::Object(pattern));
        }
    }
}

/// Modules that were trained in full: those the configuration names, or else those that the tensors belong to.
///
/// A tensor outside the adapted model (`classifier.dense.weight`) means the whole part it is in, as PEFT wraps heads; one inside it
/// means its own module. Biases that were trained in addition to B·A are not modules.
fn modules_to_save(
    given: Option<&Value>,
    layers: &[(&str, &AdapterLayer)],
    others: &[&str],
    biases: bool,
) -> Option<Vec<String>> {
    if let Some(Value::Array(given)) = given.filter(|given| given.as_array().is_some_and(|all| !all.is_empty())) {
        return Some(given.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect());
    }
    let adapted: BTreeSet<&str> = layers.iter().filter_map(|(path, _)| path.split('.').next()).collect();
    let mut modules = BTreeSet::new();
    for name in others {
        let name = name.strip_prefix(PEFT_PREFIX).unwrap_or(name);
        let Some((module, parameter)) = name.rsplit_once('.') else { continue };
        let first = module.split('.').next().unwrap_or(module);
        if !adapted.contains(first) {
            modules.insert(first.to_owned());
        } else if !(biases && parameter == "bias") {
            modules.insert(module.to_owned());
        }
    }
    (!modules.is_empty()).then(|| modules.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::ModuleKey;
    use crate::checkpoint::{FactorSource, StoredFactor, StoredW0};

    fn layer(path: &str) -> AdapterLayer {
        let key = ModuleKey::from_path(path.to_owned()).unwrap();
        AdapterLayer {
            layer: key.layer.clone(),
            key,
            adapter_key: "query".into(),
            rank: 2,
            d_in: 4,
            d_out: 4,
            scaling: 1.0,
            dtype: "F32".into(),
            source: FactorSource::Stored { a: StoredFactor::plain("a"), b: StoredFactor::plain("b"), e: None },
            w0_stored: StoredW0::Straight,
        }
    }

    #[test]
    fn saved_modules_are_those_named_or_those_of_the_tensors() {
        let one = layer("bert.encoder.layer.0.query");
        let layers = [("bert.encoder.layer.0.query", &one)];
        let of = |given: Value, others: &[&str], biases| modules_to_save(Some(&given), &layers, others, biases);
        let head = ["base_model.model.classifier.dense.weight", "base_model.model.classifier.out_proj.bias", "score.weight"];
        assert_eq!(of(Value::Null, &head, false).unwrap(), ["classifier", "score"]);
        assert_eq!(of(json!(["pooler"]), &head, false).unwrap(), ["pooler"]);
        assert_eq!(of(json!([]), &[], false), None);
        let inside = ["base_model.model.bert.pooler.dense.weight", "base_model.model.bert.encoder.layer.0.query.bias"];
        assert_eq!(of(Value::Null, &inside, true).unwrap(), ["bert.pooler.dense"]);
        assert_eq!(of(Value::Null, &inside, false).unwrap(), ["bert.encoder.layer.0.query", "bert.pooler.dense"]);
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        assert_eq!((whole(8.0).to_string(), whole(0.5).to_string()), ("8".to_owned(), "0.5".to_owned()));
    }
}
