//! `condlora fit`: one shared Θ for a trained LoRA agrees with NumPy's joint fits, and a planted Θ is found again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use condlora::table::csv::read_rows;
use condlora::table::{FitRow, SimilarityRow};
use condlora::terms::{MatrixKind, Status, UpdateMatrix};
use ndarray::Array2;
use serde_json::{Value, json};
use shared::checkpoint::{Layer, PLAIN, read_matrix, square_layers, write_adapter, write_base};
use shared::program::{Run, analyze, data, files, program, real_base};
use shared::tolerance::{gaussian, orthonormal};

const LAYERS: u32 = 6;
const MODULES: [(&str, &str); 2] = [("query", "q"), ("value", "v")];

fn fit(adapter: impl AsRef<Path>, base: impl AsRef<Path>, out: &Path, more: &[&str]) -> Run {
    let mut command = program();
    command.arg("fit").arg(adapter.as_ref()).arg("--base").arg(base.as_ref()).arg("-o").arg(out).args(more);
    Run::of(command.output().unwrap())
}

fn rows(out: &Path) -> Vec<FitRow> {
    read_rows(&out.join("fit.csv")).unwrap()
}

fn row<'r>(rows: &'r [FitRow], module: &str, matrix: UpdateMatrix, layer: &str) -> &'r FitRow {
    let found: Vec<_> = rows.iter().filter(|r| r.module == module && r.matrix == matrix && r.layer == layer).collect();
    assert_eq!(found.len(), 1, "{module} {matrix} {layer}");
    found[0]
}

/// Θ (in, r) as the checkpoint has it.
fn theta(out: &Path, key: &str, letter: &str) -> Array2<f64> {
    read_matrix(&out.join("adapter_model.safetensors"), &format!("{key}.linear_for_lora_{letter}")).reversed_axes()
}

fn tensor_names(file: &Path) -> BTreeSet<String> {
    let bytes = fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    tensors.names().into_iter().map(str::to_owned).collect()
}

fn config(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("adapter_config.json")).unwrap()).unwrap()
}

fn frobenius(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn relative(found: &Array2<f64>, wanted: &Array2<f64>) -> f64 {
    frobenius(&(found - wanted)) / frobenius(wanted)
}

fn expected(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expected").join(file)
}

fn real_w0(module: &str, layer: u32) -> Array2<f64> {
    let name = format!("encoder.layer.{layer}.attention.self.{module}.weight");
    read_matrix(&real_base().join("model.safetensors"), &name)
}

#[test]
fn residuals_and_thetas_are_numpys() {
    let folder = tempfile::tempdir().unwrap();
    for adapter in ["sst2-seed0", "sst2-seed1", "trec-seed0"] {
        let out = folder.path().join(adapter);
        fit(data("adapters").join(adapter), real_base(), &out, &["--null-draws", "0"]).exits(0);
        let found = rows(&out);
        assert_eq!(found.len(), 2 * 2 * (LAYERS as usize + 1));
        let oracle: Value = serde_json::from_slice(&fs::read(expected(&format!("{adapter}/summary.json"))).unwrap()).unwrap();
        for (module, letter) in MODULES {
            for matrix in [UpdateMatrix::A, UpdateMatrix::B] {
                for layer in (0..LAYERS).map(|l| l.to_string()).chain([FitRow::ALL.to_owned()]) {
                    let ending = if layer == FitRow::ALL { String::new() } else { format!("_layer{layer}") };
                    let theirs = oracle[letter][format!("joint_relres_{matrix}{ending}")].as_f64().unwrap();
                    let ours = row(&found, module, matrix, &layer);
                    let off = (ours.residual.unwrap() - theirs).abs();
                    assert!(off <= 1e-9, "{adapter} {module} {matrix} {layer} is off by {off:e}");
                    assert_eq!((ours.residual_sd, ours.p, ours.status), (None, None, Status::Ok));
                    assert_eq!((ours.flip_mean, ours.flip_p), (None, None));
                }
                if adapter == "trec-seed0" {
                    let joint = read_matrix(&expected("trec-seed0/theta_f64.safetensors"), &format!("{letter}.{matrix}.joint"));
                    let off = relative(&theta(&out, module, matrix.name()), &joint);
                    assert!(off < 1e-11, "{module} {matrix}: {off:e}");
                }
            }
        }
    }
}

#[test]
fn what_chance_gives_stands_beside() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let shown = fit(data("adapters/trec-seed0"), real_base(), &out, &["--modules", "value", "--null-draws", "40"]).exits(0);
    let found = rows(&out);
    let a = row(&found, "value", UpdateMatrix::A, FitRow::ALL);
    // Expected: 0.906 ± 0.002 for an observed 0.904. NumPy: 0.9064, and a deviation of 0.0021 in 40 draws.
    assert!((a.residual.unwrap() - 0.904_339).abs() < 1e-6 && (a.residual_expected.unwrap() - 0.9064).abs() < 1e-4);
    assert!((0.0014..0.0030).contains(&a.residual_sd.unwrap()), "{a:?}");
    // Layers whose norms differ from 2.4 to 4.1: NumPy's mean of 40 draws, within five standard errors of 0.008/√40.
    for (layer, mean) in [0.9779, 0.9676, 0.9229, 0.9089, 0.9030, 0.8508].into_iter().enumerate() {
        let of_layer = row(&found, "value", UpdateMatrix::A, &layer.to_string());
        assert!((of_layer.residual_expected.unwrap() - mean).abs() < 0.006, "{of_layer:?}");
        assert!((0.003..0.015).contains(&of_layer.residual_sd.unwrap()) && of_layer.p.unwrap() >= 1.0 / 41.0);
    }
    assert!(shown.stdout.contains("value: one Θ explains 18.2 % of A"), "{}", shown.stdout);
    assert!(shown.stdout.contains("shown to be more than its control") && !shown.stdout.contains("better than chance"));
    let json = fit(
        data("adapters/trec-seed0"),
        real_base(),
        &out,
        &["--modules", "value", "--null-draws", "40", "--overwrite", "--json"],
    );
    let printed: Value = serde_json::from_str(&json.exits(0).stdout).unwrap();
    assert_eq!(printed.as_array().unwrap().len(), found.len());
    assert_eq!(printed[6]["layer"], json!("all"));
    assert_eq!(printed[6]["residual"].as_f64(), a.residual);
    // Another seed moves the draws and nothing else.
    fit(data("adapters/trec-seed0"), real_base(), &out, &["--modules", "value", "--overwrite", "--seed", "9"]).exits(0);
    let other = rows(&out);
    let other = row(&other, "value", UpdateMatrix::A, FitRow::ALL);
    assert_eq!((other.residual, other.residual_expected), (a.residual, a.residual_expected));
    assert_ne!(other.residual_sd, a.residual_sd);
}

/// A LoRA made in f64 of the real CondLoRA, each layer's factors in a basis of its own where `scrambled`.
fn derived(root: &Path, scrambled: bool) -> Vec<Layer> {
    let source = data("condlora/trec-seed0/adapter_model.safetensors");
    let mut layers = Vec::new();
    for (module, _) in MODULES {
        let shared = |letter: &str| read_matrix(&source, &format!("{module}.linear_for_lora_{letter}")).reversed_axes();
        let (theta_a, theta_b) = (shared("A"), shared("B"));
        for layer in 0..LAYERS {
            let w0 = real_w0(module, layer);
            let (mut a, mut b) = (w0.dot(&theta_a).reversed_axes(), w0.dot(&theta_b));
            if scrambled {
                // R = U·S·Vᵀ, of a condition of 30.
                let name = |part: &str| format!("{module}{layer}{part}");
                let (u, v) = (orthonormal(6, &name("u"), 8, 8), orthonormal(6, &name("v"), 8, 8));
                let scale = |power: f64| {
                    Array2::from_diag(&ndarray::Array1::from_shape_fn(8, |k| (0.2 * 30.0_f64.powf(k as f64 / 7.0)).powf(power)))
                };
                a = u.dot(&scale(1.0)).dot(&v.t()).dot(&a);
                b = b.dot(&v.dot(&scale(-1.0)).dot(&u.t()));
            }
            layers.push(Layer { path: format!("bert.encoder.layer.{layer}.attention.self.{module}"), w0, a, b });
        }
    }
    write_adapter(&root.join("derived"), &layers, PLAIN, &[]);
    layers
}

#[test]
fn a_condlora_is_given_back_by_the_lora_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    derived(folder.path(), false);
    let shown = fit(folder.path().join("derived"), real_base(), &out, &[]).exits(0);
    let source = data("condlora/trec-seed0/adapter_model.safetensors");
    for (module, _) in MODULES {
        for letter in ["A", "B"] {
            let planted = read_matrix(&source, &format!("{module}.linear_for_lora_{letter}")).reversed_axes();
            let off = relative(&theta(&out, module, letter), &planted);
            assert!(off <= 1e-10, "{module} {letter}: {off:e}");
        }
    }
    for row in rows(&out).iter().filter(|r| r.layer == FitRow::ALL) {
        // None of twenty Gaussian draws comes near, and none of 199 with their signs turned.
        assert!(row.residual.unwrap() < 1e-12 && row.p == Some(1.0 / 21.0) && row.flip_p == Some(0.005), "{row:?}");
    }
    assert_eq!(shown.stdout.matches(", more than its control (p = 0.005)").count(), 4, "{}", shown.stdout);
    assert!(
        shown.stdout.contains("All 4 fits are more than the control at p < 0.05 after Holm's correction"),
        "{}",
        shown.stdout
    );
    // In a basis of its own in each layer it is lost to the direct fit.
    derived(folder.path(), true);
    fit(folder.path().join("derived"), real_base(), &out, &["--overwrite", "--null-draws", "0"]).exits(0);
    assert!(rows(&out).iter().all(|row| row.residual.unwrap() > 0.05));
}

#[test]
fn updates_give_back_a_theta_that_no_basis_can_hide() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let layers = derived(folder.path(), true);
    fit(folder.path().join("derived"), real_base(), &out, &["--delta", "--null-draws", "1"]).exits(0);
    let found = rows(&out);
    for (module, _) in MODULES {
        let (theta_a, theta_b) = (theta(&out, module, "A"), theta(&out, module, "B"));
        for layer in layers.iter().filter(|l| l.path.ends_with(module)) {
            let update = layer.b.dot(&layer.a);
            let off = relative(&layer.w0.dot(&theta_b).dot(&layer.w0.dot(&theta_a).t()), &update);
            assert!(off <= 1e-8, "{}: {off:e}", layer.path);
        }
        let all = row(&found, module, UpdateMatrix::Delta, FitRow::ALL);
        assert!(all.residual.unwrap() <= 1e-8 && all.residual_expected.unwrap() > 0.8, "{all:?}");
        assert!(row(&found, module, UpdateMatrix::A, FitRow::ALL).residual.unwrap() > 0.05);
    }
    // What was written is a CondLoRA: all layers have the same conversion matrices.
    let phi = analysed(&out, &folder.path().join("analysed"));
    assert_eq!(phi.len(), 2 * 2 * 36);
    for cell in phi {
        assert!((cell.phi.unwrap() - 1.0).abs() < 1e-10, "{cell:?}");
    }
}

/// φ of Θ_A and Θ_B in an analysis of an adapter on the real base.
fn analysed(adapter: &Path, out: &Path) -> Vec<SimilarityRow> {
    let mut command = analyze([adapter]);
    command.arg("--base").arg(real_base()).arg("-o").arg(out).args(["--figures", "none", "--null-draws", "0"]);
    Run::of(command.output().unwrap()).exits(0);
    let phi: Vec<SimilarityRow> = read_rows(&out.join("similarity.csv")).unwrap();
    phi.into_iter().filter(|row| row.matrix != MatrixKind::BA).collect()
}

#[test]
fn a_trained_lora_goes_through_fit_materialize_and_analyze() {
    let folder = tempfile::tempdir().unwrap();
    for adapter in ["sst2-seed0", "sst2-seed1", "trec-seed0"] {
        let at = |name: &str| folder.path().join(format!("{adapter}-{name}"));
        let (fitted, lora) = (at("fitted"), at("lora"));
        fit(data("adapters").join(adapter), real_base(), &fitted, &["--null-draws", "0"]).exits(0);
        let mut command = program();
        command.arg("materialize").arg(&fitted).arg("--base").arg(real_base()).arg("-o").arg(&lora).args(["--dtype", "F64"]);
        Run::of(command.output().unwrap()).exits(0);
        // The factors are W0·Θ, in PEFT's names and shapes.
        for (module, _) in MODULES {
            let (theta_a, theta_b) = (theta(&fitted, module, "A"), theta(&fitted, module, "B"));
            for layer in 0..LAYERS {
                let w0 = real_w0(module, layer);
                let factor = |letter: &str| {
                    let name = format!("encoder.layer.{layer}.attention.self.{module}.lora_{letter}.weight");
                    let file = lora.join("adapter_model.safetensors");
                    let stem = ["base_model.model.", "base_model.model.bert."].into_iter();
                    let names = tensor_names(&file);
                    let found = stem.map(|stem| format!("{stem}{name}")).find(|name| names.contains(name)).unwrap();
                    read_matrix(&file, &found)
                };
                assert!(relative(&factor("A"), &w0.dot(&theta_a).reversed_axes()) < 1e-13);
                assert!(relative(&factor("B"), &w0.dot(&theta_b)) < 1e-13);
            }
        }
        // Both the checkpoint and the adapter made of it have one conversion matrix for all layers.
        for (made, out) in [(&fitted, at("of-fitted")), (&lora, at("of-lora"))] {
            let phi = analysed(made, &out);
            assert_eq!(phi.len(), 2 * 2 * 36);
            for cell in phi {
                assert!((cell.phi.unwrap() - 1.0).abs() < 1e-10, "{adapter}: {cell:?}");
            }
        }
    }
}

#[test]
fn an_adapter_with_other_names_is_mapped_to_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 12, 2);
    let renamed: Vec<Layer> =
        layers.iter().map(|l| Layer { path: l.path.replace("self_attn.q_proj", "attention.query"), ..l.clone() }).collect();
    write_base(&root.join("base"), &layers, PLAIN);
    write_base(&root.join("renamed"), &renamed, PLAIN);
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[]);
    let draws = ["--null-draws", "0"];
    fit(root.join("adapter"), root.join("base"), &root.join("plain"), &draws).exits(0);
    fit(root.join("adapter"), root.join("renamed"), &root.join("none"), &draws).exits(5);
    let map = ["--map", "self_attn.q_proj=attention.query", "--null-draws", "0"];
    fit(root.join("adapter"), root.join("renamed"), &root.join("mapped"), &map).exits(0);
    for letter in ["A", "B"] {
        assert_eq!(theta(&root.join("plain"), "q_proj", letter), theta(&root.join("mapped"), "query", letter));
    }
    let unused = ["--map", "mlp.up=x", "--null-draws", "0"];
    fit(root.join("adapter"), root.join("base"), &root.join("none"), &unused).exits(2).says("no module path has `mlp.up` in it");
    assert!(!root.join("none").exists());
}

#[test]
fn trained_updates_are_fitted_and_compared_the_same_on_any_threads() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, threads: &str| {
        let out = folder.path().join(name);
        let more = ["--delta", "--null-draws", "3", "--modules", "value", "--layers", "0..2", "--threads", threads];
        let shown = fit(data("adapters/trec-seed0"), real_base(), &out, &more).exits(0);
        let mut all: BTreeMap<_, _> = files(&out);
        all.remove("manifest.json");
        (all, shown.stdout, rows(&out))
    };
    let (one, two) = (run("one", "1"), run("two", "2"));
    assert!(one.0 == two.0 && one.1 == two.1, "threads changed a byte");
    assert_eq!(config(&folder.path().join("one"))["layers_to_transform"], json!([0, 1, 2]));
    let delta = row(&one.2, "value", UpdateMatrix::Delta, FitRow::ALL);
    let direct = row(&one.2, "value", UpdateMatrix::A, FitRow::ALL);
    assert!(delta.residual.unwrap() > 0.5 && delta.residual.unwrap() < 1.0 && delta.p.is_some() && delta.residual_sd.is_some());
    assert!(delta.flip_p.is_some() && (delta.flip_mean.unwrap() - delta.residual.unwrap()).abs() < 0.05, "{delta:?}");
    assert!(direct.residual_expected.is_some());
    assert!(one.1.contains("value: one Θ explains ") && one.1.contains(" of the updates B·A"));
}

#[test]
fn the_checkpoint_is_the_authors_layout() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fit(data("adapters/trec-seed0"), real_base(), &out, &["--null-draws", "0", "--dtype", "f32"]).exits(0);
    let bytes = fs::read(out.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let theirs = fs::read(data("condlora/trec-seed0/adapter_model.safetensors")).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&theirs).unwrap();
    for (name, tensor) in theirs.iter() {
        let ours = tensors.tensor(name).unwrap();
        assert_eq!((ours.shape(), ours.dtype()), (tensor.shape(), tensor.dtype()), "{name}");
    }
    assert_eq!(tensors.len(), theirs.len());
    let (ours, theirs) = (
        config(&out),
        serde_json::from_slice::<Value>(&fs::read(data("condlora/trec-seed0/adapter_config.json")).unwrap()).unwrap(),
    );
    for (field, value) in theirs.as_object().unwrap() {
        let kept_by_lora = ["modules_to_save", "inference_mode"].contains(&field.as_str());
        assert!(kept_by_lora || ours[field] == *value, "{field}: {} and {value}", ours[field]);
    }
    assert_eq!(ours["condlora_convention"], json!("paper"));
    assert!(out.join("manifest.json").is_file());
    // Nothing of somebody else's is replaced, nor the adapter itself.
    fit(data("adapters/trec-seed0"), real_base(), &out, &[]).exits(7).says("exists");
    let adapter = data("adapters/trec-seed0");
    fit(&adapter, real_base(), &adapter, &["--overwrite"]).exits(7);
}

#[test]
fn weights_that_are_not_square_share_a_theta_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (theta_a, theta_b) = (gaussian(8, "theta a", 30, 3), gaussian(8, "theta b", 20, 3));
    let layers: Vec<Layer> = (0..4)
        .map(|l| {
            let plain = Layer::new(&format!("model.layers.{l}.mlp.up_proj"), 30, 20, 3);
            Layer { a: plain.w0.t().dot(&theta_a).reversed_axes(), b: plain.w0.dot(&theta_b), ..plain }
        })
        .collect();
    write_base(&root.join("base"), &layers, PLAIN);
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[]);
    for delta in [false, true] {
        let out = root.join(format!("out{delta}"));
        fit(root.join("adapter"), root.join("base"), &out, if delta { &["--delta"] } else { &[] }).exits(0);
        assert_eq!(
            (config(&out)["condlora_convention"].clone(), config(&out)["lora_alpha"].clone()),
            (json!("general"), json!(6))
        );
        let found = [theta(&out, "up_proj", "A"), theta(&out, "up_proj", "B")];
        for layer in &layers {
            let made = layer.w0.dot(&found[1]).dot(&layer.w0.t().dot(&found[0]).t());
            assert!(relative(&made, &layer.b.dot(&layer.a)) < 1e-10);
        }
        if !delta {
            assert!(relative(&found[0], &theta_a) < 1e-10 && relative(&found[1], &theta_b) < 1e-10);
        }
        let analysed = root.join("analysed");
        let mut command = analyze([&out]);
        command.arg("--base").arg(root.join("base")).arg("-o").arg(&analysed).args(["--figures", "none", "--overwrite"]);
        Run::of(command.output().unwrap()).exits(0);
        let phi: Vec<SimilarityRow> = read_rows(&analysed.join("similarity.csv")).unwrap();
        // W0ᵀ·Θ_A = Aᵀ has many solutions here, and each layer has its own of least norm; W0·Θ_B = B has one.
        assert!(phi.iter().filter(|r| r.matrix == MatrixKind::B).all(|r| (r.phi.unwrap() - 1.0).abs() < 1e-10));
    }
    fit(root.join("adapter"), root.join("base"), &root.join("p"), &["--convention", "paper"])
        .exits(5)
        .says("square base weights");
}

#[test]
fn modules_that_cannot_share_are_passed_over_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 12, 2);
    layers.extend((0..3).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.k_proj"), 12, 12, 2 + l % 2)));
    layers.extend((0..3).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.v_proj"), 12 - 2 * (l % 2), 12, 2)));
    layers.extend((0..3).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.o_proj"), 12, 12, 2)));
    write_base(&root.join("base"), &layers, PLAIN);
    let pattern = json!({"layers.1.self_attn.o_proj": 100.0});
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[("alpha_pattern", pattern), ("r", json!(2))]);
    let out = root.join("out");
    let run = fit(root.join("adapter"), root.join("base"), &out, &["--null-draws", "1", "-q"]).exits(1);
    let run = run.says("module `k_proj` skipped: its layers differ in rank (2 in layer 0, 3 in layer 1)");
    let run = run.says("module `v_proj` skipped: its layers differ in shape ([12, 12] in layer 0, [10, 12] in layer 1)");
    run.says("module `o_proj` skipped: its layers differ in scaling");
    assert!(rows(&out).iter().all(|row| row.module == "q_proj") && rows(&out).len() == 8);
    assert_eq!(config(&out)["target_modules"], json!(["q_proj"]));
    let refused = fit(root.join("adapter"), root.join("base"), &root.join("none"), &["--modules", "k_proj"]).exits(5);
    refused.says("no module can be fitted").says("differ in rank");
    assert!(!root.join("none").exists());
    fit(root.join("adapter"), root.join("base"), &root.join("none"), &["--modules", "x"]).exits(2).says("the modules are");
    fit(root.join("adapter"), root.join("base"), &root.join("none"), &["--layers", "7"]).exits(2);
}

#[test]
fn an_untrained_adapter_has_nothing_to_fit_in_b() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = fit(data("init/trec-seed0"), real_base(), &out, &["--delta", "--modules", "query", "--null-draws", "1"]).exits(0);
    let found = rows(&out);
    for matrix in [UpdateMatrix::B, UpdateMatrix::Delta] {
        let all = row(&found, "query", matrix, FitRow::ALL);
        assert_eq!((all.residual, all.residual_expected, all.p, all.status), (None, None, None, Status::Zero));
    }
    assert!(row(&found, "query", UpdateMatrix::A, FitRow::ALL).residual.unwrap() > 0.8);
    assert!(run.stdout.contains("query: B is zero."), "{}", run.stdout);
    assert!(theta(&out, "query", "B").iter().all(|v| *v == 0.0));
}
