//! `condlora materialize`: LoRA adapters made of CondLoRA, as PEFT reads them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow};
use condlora::terms::MatrixKind;
use ndarray::Array2;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use shared::checkpoint::{Layer, PLAIN, Storage, read_matrix, square_layers, write_base, write_condlora};
use shared::program::{Run, data, files, program, real_base, run_in};
use shared::tolerance::{distance, gaussian, tolerance};

const N: usize = 12;
const RANK: usize = 3;

fn theta(name: &str, rank: usize) -> Array2<f64> {
    gaussian(4, name, N, rank)
}

fn materialize(root: &Path, more: &[&str]) -> Run {
    let mut command = program();
    command.args(["materialize", "condlora", "--base", "base", "-o", "made"]).args(more);
    Run::of(command.current_dir(root).output().unwrap())
}

fn config(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("adapter_config.json")).unwrap()).unwrap()
}

fn square(root: &Path, storage: Storage, more: &[(&str, Value)]) -> Vec<Layer> {
    let layers = square_layers(3, N, RANK);
    write_base(&root.join("base"), &layers, storage);
    write_condlora(&root.join("condlora"), &[("q_proj", &theta("a", RANK), &theta("b", RANK))], storage.adapter, more);
    layers
}

#[test]
fn factors_are_w0_theta_and_the_rest_is_kept() {
    for (storage, eq6, dtype, unit) in [
        (PLAIN, false, "F64", 0.0),
        (PLAIN, true, "F64", 0.0),
        (Storage { fan_in_fan_out: true, ..PLAIN }, false, "F32", 2.0_f64.powi(-24)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let layers = square(dir.path(), storage, &[("fan_in_fan_out", storage.fan_in_fan_out.into())]);
        let option: &[&str] = if eq6 { &["--eq6"] } else { &[] };
        let run = materialize(dir.path(), &[&["--dtype", dtype], option].concat()).exits(0);
        assert_eq!(
            run.stdout,
            format!("condlora: 3 layers (q_proj) in {dtype}, 216 parameters made of 72; 1 tensors kept as they are\n")
        );
        let weights = dir.path().join("made/adapter_model.safetensors");
        for layer in &layers {
            let stem = format!("base_model.model.{}", layer.path);
            let a = layer.w0.dot(&theta("a", RANK)).reversed_axes();
            let b = if eq6 { layer.w0.t().dot(&theta("b", RANK)) } else { layer.w0.dot(&theta("b", RANK)) };
            for (name, expected) in [("lora_A", a), ("lora_B", b)] {
                let found = read_matrix(&weights, &format!("{stem}.{name}.weight"));
                // Sums of N products of Gaussian numbers, none above 10; then one rounding.
                assert!(distance(&found, &expected.as_standard_layout().to_owned()) <= 10.0 * (tolerance(N, N, 1.0) + unit));
            }
        }
        let bytes = fs::read(&weights).unwrap();
        let original = fs::read(dir.path().join("condlora/adapter_model.safetensors")).unwrap();
        let name = "base_model.model.classifier.weight";
        let kept = |bytes: &[u8]| SafeTensors::deserialize(bytes).unwrap().tensor(name).unwrap().data().to_vec();
        assert_eq!(kept(&bytes), kept(&original));
        assert_eq!(SafeTensors::deserialize(&bytes).unwrap().len(), 7);
    }
}

#[test]
fn the_configuration_is_one_that_every_peft_knows() {
    let dir = tempfile::tempdir().unwrap();
    square(dir.path(), PLAIN, &[("lora_dropout", json!(0.1)), ("unknown", json!(1))]);
    let run = materialize(dir.path(), &[]).exits(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert_eq!(
        config(&dir.path().join("made")),
        json!({
            "base_model_name_or_path": "base",
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": 6,
            "lora_dropout": 0.1,
            "modules_to_save": ["classifier"],
            "peft_type": "LORA",
            "r": 3,
            "revision": null,
            "target_modules": ["q_proj"],
            "task_type": "SEQ_CLS",
            "use_rslora": false,
        })
    );
}

#[test]
fn each_layer_keeps_its_rank_and_scaling() {
    let dir = tempfile::tempdir().unwrap();
    let mut layers = square_layers(2, N, RANK);
    layers.extend(layers.clone().into_iter().map(|layer| Layer::new(&layer.path.replace("q_proj", "v_proj"), N, N, 2)));
    write_base(&dir.path().join("base"), &layers, PLAIN);
    let modules = [("q_proj", &theta("a", RANK), &theta("b", RANK)), ("v_proj", &theta("c", 2), &theta("d", 2))];
    let fields = [("use_rslora", json!(true)), ("alpha_pattern", json!({"layers.1.self_attn.q_proj": 5}))];
    write_condlora(&dir.path().join("condlora"), &modules, "F64", &fields);
    materialize(dir.path(), &["--dtype", "F64"]).exits(0);
    let made = config(&dir.path().join("made"));
    let path = |layer: usize, module: &str| format!("model.layers.{layer}.self_attn.{module}");
    assert_eq!(made["rank_pattern"], json!({path(0, "v_proj"): 2, path(1, "v_proj"): 2}));
    assert_eq!(made["alpha_pattern"], json!({path(1, "q_proj"): 5}));
    let mut tables: Vec<Vec<ConversionRow>> = Vec::new();
    for adapter in ["condlora", "made"] {
        let fixed = ["--base", "base", "-o", "out", "--overwrite", "--figures", "none", "--null-draws", "0"];
        run_in(dir.path(), &[&[adapter][..], &fixed].concat()).exits(0);
        tables.push(read_rows(&dir.path().join("out/conversion.csv")).unwrap());
    }
    assert_eq!(tables[0].len(), 4);
    for (ours, theirs) in tables[0].iter().zip(&tables[1]) {
        assert_eq!((&ours.tensor, ours.rank, ours.scaling), (&theirs.tensor, theirs.rank, theirs.scaling));
        assert_eq!((ours.norm_a, ours.norm_b, ours.norm_delta), (theirs.norm_a, theirs.norm_b, theirs.norm_delta));
    }
}

#[test]
fn the_real_one_is_named_as_its_class_is_and_analysed_like_any_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program();
    command.arg("materialize").arg(data("condlora/trec-seed0")).arg("--base").arg(real_base());
    command.args(["-o", "all/made", "--json"]).current_dir(dir.path());
    let run = Run::of(command.output().unwrap()).exits(0);
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&printed["lora_parameters"], &printed["condlora_parameters"]), (&json!(73_728), &json!(12_288)));
    let made = dir.path().join("all/made");
    let bytes = fs::read(made.join("adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 2 * 12 + 2);
    assert!(tensors.tensor("base_model.model.bert.encoder.layer.5.attention.self.value.lora_B.weight").is_ok());
    assert_eq!(config(&made)["modules_to_save"], json!(["classifier"]));
    // The search skips results, but not adapters that this program made.
    let mut command = program();
    command.arg("analyze").arg("all").arg("--base").arg(real_base()).args([
        "-o",
        "out",
        "--figures",
        "none",
        "--null-draws",
        "0",
    ]);
    Run::of(command.current_dir(dir.path()).output().unwrap()).exits(0);
    let rows: Vec<SimilarityRow> = read_rows(&dir.path().join("out/similarity.csv")).unwrap();
    assert_eq!(rows.len(), 2 * 3 * 36);
    for row in rows.iter().filter(|r| r.matrix != MatrixKind::BA) {
        // Rounded to F32 and solved through W0 of condition up to 3.4e5: what is left of one Θ is 1 to some 1e-4.
        assert!(row.adapter == "made" && (row.phi.unwrap() - 1.0).abs() < 1e-3, "{row:?}");
    }
}

#[test]
fn nothing_is_left_of_what_cannot_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let layers = square(root, PLAIN, &[]);
    let before = files(root);
    let large = theta("a", RANK) * 1e5;
    write_condlora(&root.join("large"), &[("q_proj", &large, &theta("b", RANK))], "F64", &[]);
    let run = |arguments: &[&str]| {
        Run::of(program().arg("materialize").args(arguments).args(["--base", "base"]).current_dir(root).output().unwrap())
    };
    run(&["large", "-o", "made", "--dtype", "F16"])
        .exits(6)
        .says("lora_A of `model.layers.0.self_attn.q_proj` in F16")
        .says("hint: take");
    run(&["large", "-o", "made", "--dtype", "int8"]).exits(2);
    run(&["condlora", "-o", "condlora", "--overwrite"]).exits(7);
    run(&["condlora", "-o", "base/inside/../../base"]).exits(7);
    run(&["nothing", "-o", "made"]).exits(3);
    shared::checkpoint::write_adapter(&root.join("lora"), &layers, PLAIN, &[]);
    run(&["lora", "-o", "made"]).exits(5).says("expected \"ConditionalLORA\", found \"LORA\"").says("there is nothing to make");
    fs::remove_dir_all(root.join("large")).unwrap();
    fs::remove_dir_all(root.join("lora")).unwrap();
    assert_eq!(files(root), before);
    run(&["condlora", "-o", "made"]).exits(0);
    run(&["condlora", "-o", "made"]).exits(7).says("--overwrite");
    run(&["condlora", "-o", "made", "--overwrite", "--dtype", "BF16"]).exits(0);
    let bytes = fs::read(root.join("made/adapter_model.safetensors")).unwrap();
    let name = format!("base_model.model.{}.lora_A.weight", layers[0].path);
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().tensor(&name).unwrap().dtype(), safetensors::Dtype::BF16);
}
