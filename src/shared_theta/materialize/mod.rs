//! A LoRA adapter made of a CondLoRA and its base model, as PEFT loads it.
//!
//! For every layer `A = (W0·Θ_A)ᵀ` and `B = W0·Θ_B` are computed in f64 and rounded once; one base weight is in memory at a time. Weights
//! that were trained in full, such as a classifier, are kept as they are.

mod params;
mod peft_config;

use std::io::{self, Write};
use std::path::PathBuf;

use crate::checkpoint::{
    Adapter, BaseModel, FloatType, ModelClass, PairedLayer, PairingRules, SafetensorsWriter, TensorSpec, adapter_names,
};
use crate::error::{Error, Result, escape, field};
use crate::inputs::{BaseWeight, FactorPair, Opener, Progress, StoredWeight};
use crate::json;
use crate::record::InputRecord;
pub use params::{MaterializeConfig, MaterializeParams};
use peft_config::{PEFT_PREFIX, peft_config};

/// An opened CondLoRA: everything that can be refused without computing has been checked.
#[derive(Debug)]
pub struct PreparedMaterialization {
    base: BaseModel,
    adapter: Adapter,
    layers: Vec<NamedLayer>,
    dtype: FloatType,
    warnings: Vec<String>,
}

/// A layer, and its path in the class that the adapter is for.
#[derive(Debug)]
struct NamedLayer {
    paired: PairedLayer,
    path: String,
}

/// How large the adapter that was made is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterializedSize {
    /// The adapter's name.
    pub name: String,
    /// Names of its modules.
    pub modules: Vec<String>,
    /// Its layers, summed over all modules.
    pub layers: usize,
    /// Numbers in all A and B.
    pub lora_parameters: usize,
    /// Numbers in all Θ.
    pub condlora_parameters: usize,
    /// Tensors that were kept as they are.
    pub kept_tensors: usize,
}

/// Opens a CondLoRA and its base model; no tensor is read.
///
/// # Errors
/// Whatever is wrong with the inputs (exit codes 3 to 5); [`Error::Mismatch`] for an adapter that is no CondLoRA.
pub fn prepare_materialization(config: MaterializeConfig) -> Result<PreparedMaterialization> {
    let MaterializeParams { condlora, base, dtype, eq6 } = config.given;
    let name = adapter_names(std::slice::from_ref(&condlora))?.pop();
    let adapter = Adapter::open(&condlora, name.unwrap_or_else(|| unreachable!("one directory has one name")))?;
    if adapter.condlora.is_none() {
        let error = Error::mismatch(
            &adapter.config.path,
            "peft_type",
            "\"ConditionalLORA\"",
            format!("\"{}\"", adapter.config.peft_type),
        );
        return Err(error.with_hint("A and B are stored in it already: there is nothing to make"));
    }
    let mut opener = Opener::new(base.as_deref(), PairingRules::default(), eq6);
    let laid_out = opener.lay_out(adapter)?;
    let opened = opener.pair(laid_out)?;
    // A part of an adapter is another adapter.
    if let Some(first) = opened.unusable.first() {
        return Err(first.error.clone());
    }
    let mut warnings: Vec<String> = opened.named_warnings().collect();
    let (adapter, modules, base) = (opened.adapter, opened.modules, opener.into_only_base());
    let task = adapter.config.kept.task_type.as_ref().and_then(|task| task.as_str());
    let class = ModelClass::of(&base, task);
    let mut layers = Vec::new();
    for paired in modules.into_iter().flat_map(|module| module.layers) {
        let path = class.path(&paired.adapter_layer.key.path);
        layers.push(NamedLayer { paired, path });
    }
    if let Some(layer) = layers.iter().find(|layer| class.is_uncertain(task, &layer.paired.adapter_layer.key.path)) {
        warnings.push(format!(
            "{}: modules are named as in the base model's file (`{}`); no config.json there says what the class for {} calls them",
            escape(&adapter.name),
            escape(&layer.path),
            task.unwrap_or_default(),
        ));
    }
    Ok(PreparedMaterialization { base, adapter, layers, dtype, warnings })
}

impl PreparedMaterialization {
    /// The directories that it reads from: nothing may be written over them.
    #[must_use]
    pub fn input_dirs(&self) -> Vec<PathBuf> {
        vec![self.base.path().to_owned(), self.adapter.dir.clone()]
    }

    /// Warnings.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How large the adapter will be.
    #[must_use]
    pub fn size(&self) -> MaterializedSize {
        let condlora = self.adapter.condlora.as_ref();
        MaterializedSize {
            name: self.adapter.name.clone(),
            modules: self.adapter.modules.iter().map(|module| module.name.clone()).collect(),
            layers: self.layers.len(),
            lora_parameters: self
                .layers
                .iter()
                .map(|layer| (layer.paired.d_in + layer.paired.d_out) * layer.paired.adapter_layer.rank)
                .sum(),
            condlora_parameters: condlora.map_or(0, |found| found.modules.iter().map(|module| module.parameters()).sum()),
            kept_tensors: self.others().len(),
        }
    }

    /// How many bytes the weights will take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.specs().iter().map(|spec| spec.bytes() as u64).sum()
    }

    /// `adapter_config.json`, with fields that PEFT has had since its version 0.10.
    #[must_use]
    pub fn config_json(&self) -> Vec<u8> {
        let layers: Vec<_> = self.layers.iter().map(|layer| (layer.path.as_str(), &layer.paired.adapter_layer)).collect();
        let value = peft_config(&self.adapter, &layers, &self.others());
        json::pretty(&value).into_bytes()
    }

    /// Writes `adapter_model.safetensors`, layer by layer, and records what was read for it. The inner error is the output's.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf in a weight and for a factor beyond the range of the type; [`Error::Missing`] if an input
    /// changes during the run.
    pub fn write_weights(
        &self,
        out: &mut dyn Write,
        inputs: &mut Vec<InputRecord>,
        progress: &dyn Progress,
    ) -> Result<io::Result<()>> {
        progress.begin(self.layers.len());
        inputs.extend(self.base.header_records());
        inputs.push(self.adapter.header_record());
        let mut writer = match SafetensorsWriter::begin(out, self.specs()) {
            Ok(writer) => writer,
            Err(error) => return Ok(Err(error)),
        };
        for layer in &self.layers {
            let factors = self.factors(layer, inputs)?;
            let rows_of_a = factors.a_transposed.t();
            if let Err(error) = writer.write_values(rows_of_a.iter()).and_then(|()| writer.write_values(factors.b.iter())) {
                return Ok(Err(error));
            }
            progress.step();
        }
        for name in self.others() {
            let tensor = self.adapter.weights().read(name)?;
            inputs.push(tensor.record());
            if let Err(error) = writer.write_stored(&tensor) {
                return Ok(Err(error));
            }
        }
        inputs.sort();
        inputs.dedup();
        Ok(writer.finish())
    }

    /// A and B of one layer.
    fn factors(&self, layer: &NamedLayer, inputs: &mut Vec<InputRecord>) -> Result<FactorPair> {
        let w0 = StoredWeight::read(&self.base, &BaseWeight::of(&layer.paired), inputs)?;
        let factors =
            FactorPair::read(&self.adapter, &layer.paired.adapter_layer, &w0, inputs).map_err(|error| w0.explain(error))?;
        for (factor, values) in [("lora_A", &factors.a_transposed), ("lora_B", &factors.b)] {
            if let Some(value) = values.iter().find(|value| !self.dtype.holds(**value)) {
                let what = format!("{factor} of `{}` in {}", escape(&layer.path), self.dtype.name());
                let error = Error::numerical(
                    self.adapter.weights_file(),
                    what,
                    "values within the range of the type",
                    format!("{value:e}"),
                );
                return Err(error.with_hint(format!("take {} F32 or F64", field("dtype"))));
            }
        }
        Ok(factors)
    }

    fn specs(&self) -> Vec<TensorSpec> {
        let mut specs = Vec::with_capacity(2 * self.layers.len());
        for NamedLayer { paired, path } in &self.layers {
            let rank = paired.adapter_layer.rank;
            specs.push(TensorSpec::floats(format!("{PEFT_PREFIX}{path}.lora_A.weight"), self.dtype, &[rank, paired.d_in]));
            specs.push(TensorSpec::floats(format!("{PEFT_PREFIX}{path}.lora_B.weight"), self.dtype, &[paired.d_out, rank]));
        }
        let weights = self.adapter.weights();
        specs.extend(self.others().into_iter().filter_map(|stored| {
            let info = weights.info(stored)?;
            let name = if stored.starts_with(PEFT_PREFIX) { stored.to_owned() } else { format!("{PEFT_PREFIX}{stored}") };
            Some(TensorSpec { name, dtype: info.dtype, shape: info.shape.clone() })
        }));
        specs
    }

    /// The tensors that were trained in full.
    fn others(&self) -> Vec<&str> {
        let condlora = self.adapter.condlora.as_ref();
        condlora.map_or_else(Vec::new, |found| found.others.iter().map(String::as_str).collect())
    }
}
