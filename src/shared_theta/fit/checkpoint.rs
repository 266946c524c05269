//! The fitted Θ as a CondLoRA checkpoint in the layout of the authors' code, with the weights that were trained in full.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::fitted::{Fit, FittedModule};
use crate::checkpoint::config::CONDITIONAL;
use crate::checkpoint::keys::{TensorKey, parse_tensor_name};
use crate::checkpoint::{SafetensorsWriter, TensorSpec};
use crate::error::Result;
use crate::json;
use crate::record::InputRecord;
use crate::terms::Convention;

/// A part of the name of every tensor that belongs to an update, in every kind of adapter.
const OF_UPDATES: [&str; 2] = ["lora_", "ranknum"];

impl Fit {
    /// `adapter_config.json`: the authors' fields, and `condlora_convention`.
    #[must_use]
    pub fn config_json(&self) -> Vec<u8> {
        json::pretty(&self.config()).into_bytes()
    }

    fn config(&self) -> Value {
        let config = &self.adapter.config;
        let kept = &config.kept;
        let (rank, alpha) = self.modules.first().map_or((0, 0.0), |module| (module.theta_b.ncols(), alpha_of(module)));
        let mut out = json!({
            "auto_mapping": null,
            "base_model_name_or_path": config.base_model_name_or_path,
            "bias": kept.bias.clone().unwrap_or_else(|| json!("none")),
            "condlora_convention": self.convention().name(),
            "fan_in_fan_out": self.modules.iter().any(|module| module.transposed),
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": self.layers(),
            "lora_alpha": whole(alpha),
            "lora_dropout": 0.0,
            "lora_x_scaling": 0.0,
            "modules_to_save": kept.modules_to_save,
            "peft_type": CONDITIONAL,
            "r": rank,
            "revision": kept.revision,
            "target_modules": self.modules.iter().map(|module| module.key.as_str()).collect::<Vec<_>>(),
            "task_type": kept.task_type,
            "use_x": "none",
        });
        let pattern = |differs: &dyn Fn(&FittedModule) -> Option<Value>| -> Map<String, Value> {
            self.modules.iter().filter_map(|module| Some((module.key.clone(), differs(module)?))).collect()
        };
        let ranks = pattern(&|module| (module.theta_b.ncols() != rank).then(|| json!(module.theta_b.ncols())));
        let alphas = pattern(&|module| (alpha_of(module) != alpha).then(|| whole(alpha_of(module))));
        if let Some(fields) = out.as_object_mut() {
            for (field, pattern) in [("rank_pattern", ranks), ("alpha_pattern", alphas)] {
                if !pattern.is_empty() {
                    fields.insert(field.to_owned(), Value::Object(pattern));
                }
            }
        }
        out
    }

    /// One for the whole checkpoint: square modules are fitted in `general` where another is not square.
    fn convention(&self) -> Convention {
        self.modules.iter().map(|module| module.convention).max().unwrap_or(Convention::Paper)
    }

    /// The layers that the Θ are for, where the base model has more layers of some module.
    fn layers(&self) -> Option<BTreeSet<u32>> {
        let all = || self.modules.iter().flat_map(|module| &module.layers).filter_map(|layer| layer.as_ref()?.index()).collect();
        self.modules.iter().any(|module| !module.whole).then(all)
    }

    /// How many bytes the weights will take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.specs().iter().map(|spec| (spec.shape.iter().product::<usize>() * 8) as u64).sum()
    }

    /// Numbers in all Θ.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(|module| module.theta_a.len() + module.theta_b.len()).sum()
    }

    /// Writes `adapter_model.safetensors`, and gives the records of what was read for it. The inner error is the output's.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] if an input has changed.
    pub fn write_weights(&self, out: &mut dyn Write) -> Result<io::Result<Vec<InputRecord>>> {
        let mut inputs = Vec::new();
        let mut writer = match SafetensorsWriter::begin(out, self.specs()) {
            Ok(writer) => writer,
            Err(error) => return Ok(Err(error)),
        };
        for module in &self.modules {
            for theta in [&module.theta_a, &module.theta_b] {
                // [r, in]: the weight of a linear layer from in to r.
                if let Err(error) = writer.write_values(theta.t().iter()) {
                    return Ok(Err(error));
                }
            }
        }
        for name in self.others() {
            let tensor = self.adapter.weights().read(name)?;
            inputs.push(tensor.record());
            if let Err(error) = writer.write_stored(&tensor) {
                return Ok(Err(error));
            }
        }
        Ok(writer.finish().map(|()| inputs))
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        for module in &self.modules {
            for (letter, theta) in [("A", &module.theta_a), ("B", &module.theta_b)] {
                let name = format!("{}.linear_for_lora_{letter}", module.key);
                specs.push(TensorSpec::floats(name, self.dtype, &[theta.ncols(), theta.nrows()]));
            }
        }
        let weights = self.adapter.weights();
        specs.extend(self.others().into_iter().filter_map(|name| {
            let info = weights.info(name)?;
            Some(TensorSpec { name: name.to_owned(), dtype: info.dtype, shape: info.shape.clone() })
        }));
        specs
    }

    /// The tensors of the adapter that are no part of an update: the classifier and other weights that were trained in full.
    fn others(&self) -> Vec<&str> {
        let adapter = &self.adapter;
        match &adapter.condlora {
            Some(condlora) => condlora.others.iter().map(String::as_str).collect(),
            None => adapter
                .weights()
                .names()
                .filter(|name| parse_tensor_name(name) == TensorKey::Other && !OF_UPDATES.iter().any(|part| name.contains(part)))
                .collect(),
        }
    }
}

/// The α with which α/r is the layers' scaling.
fn alpha_of(module: &FittedModule) -> f64 {
    let alpha = module.scaling * module.theta_b.ncols() as f64;
    // s was α/r with a whole α, from which s·r can differ only by rounding.
    if (alpha - alpha.round()).abs() <= 4.0 * crate::linalg::EPSILON * alpha.abs() { alpha.round() } else { alpha }
}

/// A number without a fraction where it has none.
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
