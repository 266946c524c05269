//! `condlora inspect`: shows from headers alone what a study would find, and what would be refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use ndarray::Array2;
use shared::checkpoint::{Layer, PLAIN, Storage, write_adapter, write_base};
use shared::cpu;
use shared::program::{Run, data, program, real_base, run_in};

fn inspect(root: &Path, arguments: &[&str]) -> Run {
    Run::of(program().arg("inspect").args(arguments).current_dir(root).output().unwrap())
}

fn json(run: &Run) -> serde_json::Value {
    serde_json::from_str(&run.stdout).unwrap()
}

/// Query and value of a model like RoBERTa-base, r = 8.
fn roberta() -> Vec<Layer> {
    let at = |layer: usize, name: &str| Layer {
        path: format!("roberta.encoder.layer.{layer}.attention.self.{name}"),
        w0: Array2::from_elem((768, 768), 0.5),
        a: Array2::from_elem((8, 768), 0.25),
        b: Array2::from_elem((768, 8), 0.25),
    };
    (0..12).flat_map(|layer| [at(layer, "query"), at(layer, "value")]).collect()
}

#[test]
fn a_roberta_base_has_the_papers_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_adapter(&root.join("adapter"), &roberta(), Storage { adapter: "F16", ..PLAIN }, &[]);
    let run = inspect(root, &["adapter", "--json"]).exits(0);
    assert_eq!(run.stderr, "");
    let found = json(&run);
    let adapter = &found["adapters"][0];
    assert_eq!(adapter["parameters"], serde_json::json!({"lora": 294_912, "condlora": 24_576}));
    assert_eq!(adapter["modules"][1]["parameters"], serde_json::json!({"lora": 147_456, "condlora": 12_288}));
    // There is no base here: that is said, and no reason to refuse.
    assert!(adapter["base"].is_null() && adapter["modules"][0]["layers"][0]["tensor"].is_null());
    assert!(adapter["unpaired"].as_str().unwrap().contains("base"));
    assert_eq!((&found["refused"], &adapter["refused"]), (&0.into(), &serde_json::Value::Null));
    let text = inspect(root, &["adapter"]).exits(0).stdout;
    assert!(text.contains("adapter, LORA, without a base model\n"), "{text}");
    assert!(text.contains("parameters: LoRA 294,912, CondLoRA would need 24,576"), "{text}");
    assert!(text.contains("1 adapter, 0 would be refused."), "{text}");
}

#[test]
fn layers_say_what_they_are_paired_with() {
    let folder = tempfile::tempdir().unwrap();
    let (adapter, base) = (data("adapters/trec-seed0"), real_base());
    let run = inspect(folder.path(), &[adapter.to_str().unwrap(), "--base", base.to_str().unwrap(), "--json"]).exits(0);
    let found = json(&run);
    let adapter = &found["adapters"][0];
    assert_eq!((&adapter["name"], &adapter["kind"]), (&"trec-seed0".into(), &"LORA".into()));
    assert_eq!(adapter["base"]["name"], "all-MiniLM-L6-v2-qv");
    assert!(adapter["warnings"][0].as_str().unwrap().contains("was trained on `all-MiniLM-L6-v2`"));
    assert_eq!(adapter["parameters"], serde_json::json!({"lora": 73_728, "condlora": 12_288}));
    let value = &adapter["modules"][1];
    assert_eq!((&value["name"], &value["convention"]), (&"value".into(), &"paper".into()));
    let layer = &value["layers"][5];
    let key = layer["adapter_key"].as_str().unwrap();
    assert!(key.starts_with("base_model.model.") && key.ends_with("encoder.layer.5.attention.self.value"), "{key}");
    assert_eq!(
        (&layer["layer"], &layer["tensor"], &layer["w0_dtype"], &layer["adapter_dtype"]),
        (&5.into(), &"encoder.layer.5.attention.self.value.weight".into(), &"F32".into(), &"F32".into())
    );
    assert_eq!(
        (&layer["out_features"], &layer["in_features"], &layer["rank"], &layer["scaling"]),
        (&384.into(), &384.into(), &8.into(), &1.0.into())
    );
}

#[test]
fn what_would_be_refused_is_shown_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers: Vec<Layer> = (0..3).map(|l| Layer::new(&format!("model.layers.{l}.mlp.up_proj"), 12, 8, 2)).collect();
    write_base(&root.join("base"), &layers, PLAIN);
    write_adapter(&root.join("runs/good"), &layers, PLAIN, &[]);
    write_adapter(&root.join("runs/wide"), &[Layer { a: Array2::ones((2, 9)), ..layers[0].clone() }], PLAIN, &[]);
    write_adapter(&root.join("runs/broken"), &layers, PLAIN, &[]);
    fs::write(root.join("runs/broken/adapter_model.safetensors"), b"<html>not found</html>").unwrap();
    let run = inspect(root, &["runs", "--base", "base", "--json"]).exits(1);
    let found = json(&run);
    assert_eq!(found["refused"], 2);
    let [broken, good, wide] = [0, 1, 2].map(|at| &found["adapters"][at]);
    assert_eq!((&broken["name"], &broken["refused"]["exit_code"]), (&"broken".into(), &4.into()));
    assert!(broken["kind"].is_null() && broken["modules"].as_array().unwrap().is_empty());
    assert!(good["refused"].is_null() && good["modules"][0]["convention"] == "general");
    assert_eq!(good["modules"][0]["layers"].as_array().unwrap().len(), 3);
    assert_eq!((&wide["refused"]["exit_code"], wide["modules"][0]["layers"].as_array().unwrap().len()), (&5.into(), 1));
    // The error is that of analyze, word for word.
    for (name, shown) in [("broken", broken), ("wide", wide)] {
        let code = shown["refused"]["exit_code"].as_i64().unwrap();
        let run = run_in(root, &[&format!("runs/{name}"), "--base", "base", "-o", "out"]).exits(i32::try_from(code).unwrap());
        run.says(&format!("error: {}\n", shown["refused"]["error"].as_str().unwrap()));
    }
    let text = inspect(root, &["runs", "--base", "base"]).exits(1).stdout;
    assert!(text.contains("  refused, exit code 4: runs/broken/adapter_model.safetensors: "), "{text}");
    assert!(text.contains("3 adapters, 2 would be refused."), "{text}");
    // A base that was asked for and is not there is the adapters' error too; no adapter at all is the run's.
    let run = inspect(root, &["runs/good", "--base", "nowhere", "--json"]).exits(1);
    assert_eq!(json(&run)["adapters"][0]["refused"]["exit_code"], 3);
    inspect(root, &["base"]).exits(3).says("has no adapter in it");
    inspect(root, &["runs", "--map", "x"]).exits(2);
}

#[test]
fn headers_are_enough() {
    // The weights are a hole of 30 GB in the file: reading them would take minutes.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("base")).unwrap();
    let (rows, columns) = (3_840_000_u64, 2048_u64);
    let bytes = 4 * rows * columns;
    let name = "model.layers.0.self_attn.q_proj.weight";
    let header = format!("{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{rows},{columns}],\"data_offsets\":[0,{bytes}]}}}}");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    let path = root.join("base/model.safetensors");
    fs::write(&path, &file).unwrap();
    let whole = file.len() as u64 + bytes;
    if fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole).is_err() {
        return; // a file system without holes
    }
    let layer =
        Layer { a: Array2::ones((1, 8)), b: Array2::ones((8, 1)), ..Layer::new("model.layers.0.self_attn.q_proj", 8, 8, 1) };
    write_adapter(&root.join("adapter"), &[layer], PLAIN, &[]);
    // Reading 30 GB would take longer than this.
    let mut command = program();
    command.args(["inspect", "adapter", "--base", "base"]).current_dir(root);
    Run::of(cpu::at_most(2, &command).output().unwrap()).exits(1);
}
