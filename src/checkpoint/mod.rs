//! From the bytes of a checkpoint to typed, checked tensors.
//!
//! Each folder imports only those before it in this list:
//!
//! - [`files`] opens files of tensors strictly (`.safetensors`, pickles of `torch.save`), [`keys`] makes modules and layers of
//!   tensor names, [`config`] reads `adapter_config.json`;
//! - [`base`] finds and opens the base model, in one file or in shards;
//! - [`adapter`] finds adapters and opens them as an [`Adapter`], whichever program wrote them (PEFT, mlx-lm, kohya's scripts,
//!   CondLoRA's authors);
//! - [`pairing`] finds the base weight of every layer.
//!
//! What leaves this folder has shapes that fit and values that are finite.
//!
//! It does no mathematics and prints nothing: warnings are collected for the caller.

pub mod adapter;
pub mod base;
pub mod config;
pub mod files;
pub mod keys;
pub mod pairing;

#[cfg(test)]
#[path = "../../tests/bad_inputs/cases.rs"]
mod cases;
#[cfg(test)]
#[path = "../../tests/bad_inputs/condlora_cases.rs"]
mod condlora_cases;
#[cfg(test)]
#[path = "../../tests/bad_inputs/foreign_cases.rs"]
mod foreign_cases;
#[cfg(test)]
#[path = "../../tests/bad_inputs/generate.rs"]
mod generate;
#[cfg(test)]
#[path = "../../tests/bad_inputs/pickle_cases.rs"]
mod pickle_cases;
#[cfg(test)]
#[path = "../../tests/bad_inputs/pickled.rs"]
mod pickled;

pub use adapter::Adapter;
pub use adapter::condlora::{CondLora, SharedModule};
pub use adapter::discover::{FoundAdapter, adapter_names, find_adapters, match_init};
pub use adapter::source::{
    AdapterLayer, AdapterModule, FactorSource, Factors, FoundLayers, RawLayer, Scaling, StoredFactor, StoredW0, UnusableLayer,
};
pub use adapter::trainer_state::{LoggedValue, TRAINER_STATE_FILE, TrainingLog, find_training_log, read_training_log};
pub use base::BaseModel;
pub use base::find::find_base;
pub use base::model_class::ModelClass;
pub use base::model_config::ModelConfig;
pub use config::{AdapterConfig, KeptFields};
pub use files::safetensors::writer::{SafetensorsWriter, TensorSpec};
pub use files::tensor::{Dtype, FloatType, RawTensor, TensorInfo};
pub use files::weights::WeightsFile;
pub use keys::ModuleKey;
pub use pairing::{
    Block, NameMap, PairedLayer, PairedModule, Pairing, PairingRules, Rows, Split, base_name_warning, pair_with_base,
};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Result;

    /// Opens, pairs and reads everything, as a run does.
    fn read_all(root: &Path) -> Result<usize> {
        let mut values = 0;
        for found in find_adapters(&[root.join("adapter")])? {
            let mut adapter = Adapter::open(&found.dir, found.name)?;
            let base = BaseModel::open(&find_base(Some(&root.join("base")), &adapter.dir, &adapter.config)?)?;
            adapter.lay_out(&base, false)?;
            for layer in
                pair_with_base(&adapter, &base, &PairingRules::default())?.modules.iter().flat_map(|module| &module.layers)
            {
                let factors = adapter.read_factors(&layer.adapter_layer)?;
                values += factors.a.len() + factors.b.len() + base.read(&layer.tensor)?.to_f64()?.len();
            }
        }
        Ok(values)
    }

    #[test]
    fn bad_inputs_are_refused_by_name() {
        let mut complaints = Vec::new();
        for case in cases::all() {
            let dir = tempfile::tempdir().unwrap();
            generate::good(dir.path());
            (case.spoil)(dir.path());
            if case.name == "unreadable file" && std::fs::read(dir.path().join(generate::ADAPTER_WEIGHTS)).is_ok() {
                continue;
            }
            match read_all(dir.path()) {
                Ok(_) => complaints.push(format!("{}: accepted", case.name)),
                Err(err) => {
                    let text = format!("{err}\nhint: {}", err.hint().unwrap_or_default());
                    let missing: Vec<_> = case.says.iter().filter(|part| !text.contains(**part)).collect();
                    let clean = text.len() < 4000 && text.chars().filter(|c| c.is_control()).count() == 1;
                    if err.exit_code() != case.exit || !missing.is_empty() || !clean {
                        complaints.push(format!("{}: exit {}, lacks {missing:?}\n  {text}", case.name, err.exit_code()));
                    }
                }
            }
        }
        assert!(complaints.is_empty(), "{} cases:\n{}", complaints.len(), complaints.join("\n"));
    }

    #[test]
    fn the_good_input_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        assert_eq!(read_all(dir.path()).unwrap(), 2 * (12 + 12 + 36));
    }

    #[test]
    fn the_real_checkpoints_are_read_whole() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks-data");
        let base = BaseModel::open(&data.join("base/all-MiniLM-L6-v2-qv")).unwrap();
        assert_eq!(base.display_name(), "all-MiniLM-L6-v2-qv");
        let found = find_adapters(&[data.join("adapters")]).unwrap();
        let names: Vec<String> = found.iter().map(|adapter| adapter.name.clone()).collect();
        assert_eq!(names, ["sst2-seed0", "sst2-seed1", "trec-seed0"]);
        for FoundAdapter { name, dir } in found {
            let adapter = Adapter::open(&dir, name).unwrap();
            assert!(adapter.warnings.is_empty(), "{:?}", adapter.warnings);
            assert_eq!(adapter.ignored_tensors, 2);
            assert!(base_name_warning(&adapter, &base).unwrap().contains("`all-MiniLM-L6-v2`"));
            let modules = pair_with_base(&adapter, &base, &PairingRules::default()).unwrap().modules;
            assert_eq!(modules.iter().map(|module| module.name.as_str()).collect::<Vec<_>>(), ["query", "value"]);
            for module in &modules {
                let layers: Vec<_> =
                    module.layers.iter().map(|layer| layer.adapter_layer.layer.as_ref().unwrap().index()).collect();
                assert_eq!(layers, (0..6).map(Some).collect::<Vec<_>>());
                let layer = &module.layers[3];
                assert_eq!(layer.tensor, format!("encoder.layer.3.attention.self.{}.weight", module.name));
                let of = &layer.adapter_layer;
                assert_eq!(of.adapter_key, format!("base_model.model.bert.encoder.layer.3.attention.self.{}", module.name));
                assert_eq!((of.rank, of.d_in, of.d_out, of.scaling, of.dtype.as_str()), (8, 384, 384, 1.0, "F32"));
                let mut w0 = vec![0.0; 384 * 384];
                let record = base.read_f64(&layer.tensor, &mut w0).unwrap();
                let raw = base.read(&layer.tensor).unwrap();
                assert_eq!((record.blake3.as_str(), raw.to_f64().unwrap()), (raw.hash.as_str(), w0));
                let factors = adapter.read_factors(of).unwrap();
                assert_eq!((factors.a.len(), factors.b.len(), factors.inputs.len()), (8 * 384, 8 * 384, 2));
                assert!(factors.b.iter().any(|value| *value != 0.0));
            }
        }
        for (name, dir) in match_init(&data.join("init"), &names).unwrap() {
            let adapter = Adapter::open(&dir, name).unwrap();
            assert!(adapter.read_factors(&adapter.modules[0].layers[0]).unwrap().b.iter().all(|value| *value == 0.0));
        }
        for name in ["trec-seed0", "sst2-seed0"] {
            let mut adapter = Adapter::open(&data.join("condlora").join(name), name.to_owned()).unwrap();
            adapter.lay_out(&base, false).unwrap();
            let modules = pair_with_base(&adapter, &base, &PairingRules::default()).unwrap().modules;
            assert_eq!(
                modules.iter().map(|m| (m.name.as_str(), m.layers.len())).collect::<Vec<_>>(),
                [("query", 6), ("value", 6)]
            );
            let layer = &modules[1].layers[5];
            assert_eq!(layer.tensor, "encoder.layer.5.attention.self.value.weight");
            assert_eq!((layer.adapter_layer.adapter_key.as_str(), layer.adapter_layer.scaling), ("value", 1.0));
            let thetas = adapter.read_factors(&layer.adapter_layer).unwrap();
            assert_eq!((thetas.a.len(), thetas.shared), (8 * 384, Some(crate::terms::CondloraConvention::Paper)));
            let parameters: usize = adapter.condlora.unwrap().modules.iter().map(SharedModule::parameters).sum();
            assert_eq!(parameters, 12_288);
        }
    }
}
