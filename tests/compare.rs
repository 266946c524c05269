//! `condlora compare`: two adapters of one base, LoRA or CondLoRA on either side.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::controls::{Control, Factor, draw, mean_and_sd, p_value};
use condlora::linalg::subspace::SubspaceBasis;
use condlora::similarity::phi;
use condlora::table::CompareRow;
use condlora::table::csv::read_rows;
use condlora::terms::{Status, UpdateMatrix};
use ndarray::{Array2, s};
use serde_json::{Value, json};
use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base, write_condlora};
use shared::program::{Run, files, program};
use shared::tolerance::{gaussian, tolerance};

const N: usize = 14;
const RANK: usize = 3;
const LAYERS: usize = 4;

/// `base/`, the LoRA adapters `lora/` and `other/`, and the CondLoRA `condlora/`.
fn checkpoints(root: &Path) -> Vec<Layer> {
    let layers = square_layers(LAYERS, N, RANK);
    write_base(&root.join("base"), &layers, PLAIN);
    write_adapter(&root.join("lora"), &layers, PLAIN, &[]);
    let mut others = layers.clone();
    for (index, layer) in others.iter_mut().enumerate() {
        layer.a = gaussian(7, &format!("a{index}"), RANK, N);
        layer.b = gaussian(8, &format!("b{index}"), N, RANK);
    }
    write_adapter(&root.join("other"), &others, PLAIN, &[]);
    write_condlora(&root.join("condlora"), &[("q_proj", &theta('a'), &theta('b'))], "F64", &[]);
    layers
}

fn theta(factor: char) -> Array2<f64> {
    gaussian(4, &format!("theta {factor}"), N, RANK)
}

fn compare(root: &Path, arguments: &[&str]) -> Run {
    let mut command = program();
    command.arg("compare").args(arguments).args(["--base", "base", "-o", "out", "--overwrite", "--figures", "none"]);
    Run::of(command.current_dir(root).output().unwrap())
}

fn rows(root: &Path) -> Vec<CompareRow> {
    read_rows(&root.join("out/compare.csv")).unwrap()
}

/// φ between the row space of A, the column space of B or of B·A, from their definitions.
fn plain_phi(matrix: UpdateMatrix, [left, right]: [(&Array2<f64>, &Array2<f64>); 2], i: usize, j: usize) -> f64 {
    let basis = |(a_transposed, b): (&Array2<f64>, &Array2<f64>), columns: usize| {
        let of = |tall: &Array2<f64>| SubspaceBasis::of(tall.view()).unwrap().left().slice(s![.., ..columns]).to_owned();
        match matrix {
            UpdateMatrix::A => of(a_transposed),
            UpdateMatrix::B => of(b),
            UpdateMatrix::Delta => of(&b.dot(&a_transposed.t())),
        }
    };
    phi(basis(left, i).view(), basis(right, j).view())
}

#[test]
fn an_adapter_is_itself() {
    let dir = tempfile::tempdir().unwrap();
    checkpoints(dir.path());
    for adapter in ["lora", "condlora"] {
        compare(dir.path(), &[adapter, adapter, "--ij", "3,3", "--ij", "1,3"]).exits(0);
        let rows = rows(dir.path());
        assert_eq!(rows.len(), LAYERS * 3 * 2);
        for row in rows {
            assert!((row.phi.unwrap() - 1.0).abs() < 1e-12, "{row:?}");
            assert_eq!((row.left.as_str(), row.right.as_str(), row.status), (adapter, adapter, Status::Ok));
        }
    }
}

#[test]
fn phi_and_the_control_are_those_of_their_definitions() {
    let dir = tempfile::tempdir().unwrap();
    let layers = checkpoints(dir.path());
    compare(dir.path(), &["lora", "condlora", "--ij", "2,3", "--null-draws", "5", "--seed", "11"]).exits(0);
    let rows = rows(dir.path());
    let (theta_a, theta_b) = (theta('a'), theta('b'));
    for (index, layer) in layers.iter().enumerate() {
        let lora_a = layer.a.t().to_owned();
        let lora = (&lora_a, &layer.b);
        let of_theta = |theta_a: &Array2<f64>, theta_b: &Array2<f64>| (layer.w0.dot(theta_a), layer.w0.dot(theta_b));
        let (a, b) = of_theta(&theta_a, &theta_b);
        // One Gaussian Θ for all layers: its stream is that of the tensors' type.
        let drawn: Vec<_> = (0..5)
            .map(|number| {
                let gaussian = |factor| draw(11, Control::W0, "model.layers.*.self_attn.q_proj", factor, number, N, RANK);
                of_theta(&gaussian(Factor::A), &gaussian(Factor::B))
            })
            .collect();
        for matrix in UpdateMatrix::ALL {
            let row = rows.iter().find(|r| r.layer == Some((index as u32).into()) && r.matrix == matrix).unwrap();
            assert_eq!((row.module.as_str(), row.i, row.j, row.side), ("q_proj", 2, 3, matrix.side()));
            assert!((row.gaussian_expected.unwrap() - 3.0 / N as f64).abs() < 1e-15);
            let close = |ours: Option<f64>, theirs: f64| {
                let off = (ours.unwrap() - theirs).abs();
                // The factors of these small Gaussian matrices have condition numbers below 100.
                assert!(off <= tolerance(N, N, 100.0), "{matrix} of layer {index}: off by {off:e}");
            };
            let expected = plain_phi(matrix, [lora, (&a, &b)], 2, 3);
            close(row.phi, expected);
            let draws: Vec<f64> = drawn.iter().map(|(a, b)| plain_phi(matrix, [lora, (a, b)], 2, 3)).collect();
            let (mean, sd) = mean_and_sd(&draws);
            close(row.w0_mean, mean.unwrap());
            close(row.w0_sd, sd.unwrap());
            assert_eq!(row.w0_p, p_value(expected, &draws));
        }
    }
}

#[test]
fn sides_can_change_places_and_threads_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    checkpoints(dir.path());
    compare(dir.path(), &["lora", "condlora", "--threads", "1"]).exits(0);
    let (forth, bytes) = (rows(dir.path()), fs::read(dir.path().join("out/compare.csv")).unwrap());
    compare(dir.path(), &["lora", "condlora", "--threads", "4"]).exits(0);
    assert_eq!(fs::read(dir.path().join("out/compare.csv")).unwrap(), bytes);
    compare(dir.path(), &["condlora", "lora"]).exits(0);
    let back = rows(dir.path());
    assert_eq!(forth.len(), back.len());
    for (x, y) in forth.iter().zip(&back) {
        assert_eq!((&x.layer, x.matrix, x.w0_p), (&y.layer, y.matrix, y.w0_p));
        for (x, y) in [(x.phi, y.phi), (x.w0_mean, y.w0_mean), (x.w0_sd, y.w0_sd)] {
            assert!((x.unwrap() - y.unwrap()).abs() < 1e-14);
        }
    }
}

#[test]
fn two_condlora_are_drawn_apart() {
    let dir = tempfile::tempdir().unwrap();
    checkpoints(dir.path());
    compare(dir.path(), &["condlora", "condlora", "--null-draws", "50"]).exits(0);
    for row in rows(dir.path()) {
        // Independent Gaussian Θ on both sides, not the same twice.
        assert!(row.w0_mean.unwrap() < 0.6, "{row:?}");
        assert!((row.w0_p.unwrap() - 1.0 / 51.0).abs() < 1e-15);
    }
}

#[test]
fn two_lora_need_no_base_values_and_have_no_control() {
    let dir = tempfile::tempdir().unwrap();
    let mut layers = checkpoints(dir.path());
    layers[1].w0[(0, 0)] = f64::NAN;
    write_base(&dir.path().join("base"), &layers, PLAIN);
    compare(dir.path(), &["lora", "other"]).exits(0);
    let rows = rows(dir.path());
    assert!(rows.iter().all(|r| r.phi.is_some() && (r.w0_mean, r.w0_sd, r.w0_p) == (None, None, None)));
    compare(dir.path(), &["lora", "condlora"]).exits(6).says("model.layers.1.self_attn.q_proj.weight");
}

#[test]
fn what_has_no_subspace_has_no_phi() {
    let dir = tempfile::tempdir().unwrap();
    let mut layers = checkpoints(dir.path());
    for layer in &mut layers {
        layer.b.fill(0.0);
    }
    write_adapter(&dir.path().join("untrained"), &layers, PLAIN, &[]);
    compare(dir.path(), &["untrained", "condlora", "--ij", "3,3", "--ij", "4,1"]).exits(0);
    for row in rows(dir.path()) {
        let expected = match (row.matrix, row.i) {
            (UpdateMatrix::A, 3) => Status::Ok,
            (UpdateMatrix::A, _) => Status::Rank,
            _ => Status::Zero,
        };
        assert_eq!(row.status, expected, "{row:?}");
        assert_eq!(row.phi.is_some(), expected == Status::Ok);
        assert_eq!(row.w0_mean.is_some(), expected == Status::Ok);
    }
}

#[test]
fn only_what_both_adapt_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let layers = checkpoints(root);
    write_adapter(&root.join("few"), &layers[1..3], PLAIN, &[]);
    compare(root, &["lora", "few"]).exits(0).says("lora: 2 layers are not in the other adapter and are left out");
    assert_eq!(rows(root).iter().filter_map(|r| r.layer.clone()).collect::<std::collections::BTreeSet<_>>().len(), 2);
    compare(root, &["lora", "other", "--layers", "1..2,3"]).exits(0);
    assert_eq!(rows(root).len(), 3 * 3);
    write_adapter(&root.join("last"), &layers[3..], PLAIN, &[]);
    compare(root, &["few", "last"]).exits(5).says("no layer is adapted by");
    compare(root, &["lora", "other", "--modules", "v_proj"]).exits(2).says("the modules are q_proj");
    compare(root, &["lora", "other", "--ij", "0,1"]).exits(2);
    compare(root, &["lora", "nothing"]).exits(3);
    let run = Run::of(program().args(["compare", "lora", "other"]).current_dir(root).output().unwrap());
    run.exits(2).says("--out");
}

#[test]
fn adapters_of_different_bases_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let layers = checkpoints(root);
    write_base(&root.join("base2"), &layers, PLAIN);
    write_adapter(&root.join("one"), &layers, PLAIN, &[("base_model_name_or_path", json!("../base"))]);
    write_adapter(&root.join("two"), &layers, PLAIN, &[("base_model_name_or_path", json!("../base2"))]);
    let run = |arguments: &[&str]| {
        Run::of(
            program().arg("compare").args(arguments).args(["-o", "o", "--figures", "none"]).current_dir(root).output().unwrap(),
        )
    };
    run(&["one", "two"]).exits(5).says("base model; expected").says("--base");
    run(&["one", "one"]).exits(0);
    // A name is a folder's; equal ones get their parents.
    fs::create_dir(root.join("deep")).unwrap();
    write_adapter(&root.join("deep/one"), &layers, PLAIN, &[]);
    compare(root, &["one", "deep/one"]).exits(0);
    let row = &rows(root)[0];
    assert!(row.left.ends_with("/one") && row.right == "deep/one", "{row:?}");
}

#[test]
fn averages_figures_and_manifest() {
    let dir = tempfile::tempdir().unwrap();
    checkpoints(dir.path());
    let run = |more: &[&str]| {
        let mut command = program();
        command
            .args(["compare", "lora", "condlora", "--base", "base", "-o", "out", "--overwrite", "--null-draws", "4"])
            .args(more);
        Run::of(command.current_dir(dir.path()).output().unwrap()).exits(0)
    };
    let table = run(&[]).stdout;
    assert!(table.starts_with("lora and condlora, i = 3, j = 3\n"), "{table}");
    assert!(table.contains("w0 control: a Gaussian Θ"), "{table}");
    let printed: Value = serde_json::from_str(&run(&["--json"]).stdout).unwrap();
    let rows = rows(dir.path());
    for average in printed.as_array().unwrap() {
        let of: Vec<f64> = rows.iter().filter(|r| r.matrix.name() == average["matrix"]).map(|r| r.phi.unwrap()).collect();
        assert_eq!((average["layers"].as_u64(), of.len()), (Some(4), 4));
        assert!((average["phi_mean"].as_f64().unwrap() - of.iter().sum::<f64>() / 4.0).abs() < 1e-15);
    }
    let written: Vec<String> = files(&dir.path().join("out")).into_keys().collect();
    assert_eq!(written, ["compare.csv", "figures/q_proj.i3-j3.png", "figures/q_proj.i3-j3.svg", "manifest.json"]);
    let manifest: Value = serde_json::from_slice(&fs::read(dir.path().join("out/manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["options"]["command"], &manifest["seed"]), (&json!("compare"), &json!(0)));
    // Three headers, four base weights, eight factors, two Θ.
    assert_eq!(manifest["inputs"].as_array().unwrap().len(), 3 + 4 + 8 + 2);
    let svg = fs::read_to_string(dir.path().join("out/figures/q_proj.i3-j3.svg")).unwrap();
    for text in ["A, right vectors", "B, left vectors", "B·A, left vectors", "w0 control: mean ± sd", "chance", "observed"] {
        assert!(svg.contains(text), "{text}");
    }
    // A dot for each layer and matrix, and one in the key.
    assert_eq!(svg.matches("<circle").count(), 4 * 3 + 1);
}
