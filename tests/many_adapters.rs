//! Many adapters in one run: what they share is computed once, and no result depends on the other adapters or on memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use condlora::table::AcrossRow;
use condlora::table::csv::read_rows;
use condlora::terms::{MatrixKind, Side, Status};
use ndarray::{Array2, s};
use ndarray_linalg::{SVD, Solve};
use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base};
use shared::generate::{Tensor, file};
use shared::program::{Run, analyze, data, files, real_base, run_in, tables};

/// The first line of `-v`: base weights, readings, weights at a time, rounds.
fn division(stderr: &str) -> [usize; 4] {
    let line = stderr.lines().find(|line| line.contains(" base weights, ")).unwrap();
    let numbers: Vec<usize> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    numbers.try_into().unwrap()
}

#[track_caller]
fn same(what: &str, one: &BTreeMap<String, Vec<u8>>, two: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in one {
        let (x, y) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&two[name]));
        let at = x.lines().zip(y.lines()).find(|(a, b)| a != b);
        assert!(*bytes == two[name], "{what}: {name} differs: {at:?}");
    }
}

/// The rows of one adapter in all tables but `across.csv`.
fn rows_of(tables: &BTreeMap<String, Vec<u8>>, adapter: &str) -> BTreeMap<String, Vec<u8>> {
    let own = |(name, bytes): (&String, &Vec<u8>)| match name.strip_prefix("matrices/") {
        Some(rest) => rest.starts_with(&format!("{adapter}/")).then(|| (name.clone(), bytes.clone())),
        None if name == "across.csv" => None,
        None => {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{adapter},"))).collect();
            Some((name.clone(), lines.join("\n").into_bytes()))
        }
    };
    let rows: BTreeMap<_, _> = tables.iter().filter_map(own).collect();
    assert!(rows.values().all(|rows| !rows.is_empty()), "{adapter}");
    rows
}

#[test]
fn a_tight_memory_limit_costs_readings_and_changes_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, limit: &[&str]| {
        let out = folder.path().join(name);
        let mut command = analyze([data("adapters")]);
        command.arg("--base").arg(real_base()).arg("--init").arg(data("init")).arg("-o").arg(&out);
        command.args(["--matrices", "A,BA,lora_B", "--side", "both", "--across", "--figures", "none", "--threads", "2", "-v"]);
        let run = Run::of(command.args(limit).output().unwrap());
        (run, out)
    };
    let (free, out) = run("free", &["--no-svd"]);
    assert_eq!(division(&free.exits(0).stderr), [12, 12, 2, 1]);
    let all = tables(&out);
    let mut readings = vec![12];
    for limit in ["64M", "54M", "46M"] {
        let (bounded, out) = run(limit, &["--no-svd", "--memory-limit", limit]);
        let [weights, read, _, rounds] = division(&bounded.exits(0).stderr);
        assert!(weights == 12 && (rounds > 1 || limit == "64M"));
        readings.push(read);
        same(limit, &all, &tables(&out));
    }
    assert!(readings.is_sorted() && readings[3] > 12, "{readings:?}");

    let (refused, out) = run("refused", &["--no-svd", "--memory-limit", "25M"]);
    let refused = refused.exits(8).says("error: the study needs more memory than it may use; expected at most 25.0 MiB, found 3");
    refused.says("hint: raise --memory-limit");
    assert!(!out.exists() && fs::read_dir(folder.path()).unwrap().count() == 4);

    // The bases of all weights of a module are kept while it is compared: that takes more, and is not divided.
    let (free, out) = run("decomposed", &[]);
    let (bounded, bounded_out) = run("bounded", &["--memory-limit", "70M"]);
    free.exits(0);
    bounded.exits(0);
    same("decomposed", &tables(&out), &tables(&bounded_out));
    let (refused, _) = run("refused too", &["--memory-limit", "50M"]);
    refused.exits(8).says("what is kept of the weights").says("leave the strict control out");
}

/// Three adapters on one base of six layers, each with layers of its own.
fn overlapping(root: &Path) -> Vec<Layer> {
    let layers = square_layers(6, 24, 4);
    write_base(&root.join("base"), &layers, PLAIN);
    let part = |name: &str, wanted: &[usize], rank: usize, seed: f64| {
        let chosen: Vec<Layer> = wanted
            .iter()
            .map(|&l| {
                let layer = &layers[l];
                let (a, b) =
                    (layer.a.slice(s![..rank, ..]).mapv(|v| v + seed), layer.b.slice(s![.., ..rank]).mapv(|v| v * v - seed));
                Layer { a, b, ..layer.clone() }
            })
            .collect();
        write_adapter(&root.join("adapters").join(name), &chosen, PLAIN, &[]);
    };
    part("all", &[0, 1, 2, 3, 4, 5], 4, 0.1);
    part("even", &[0, 2, 4], 3, 0.2);
    part("late", &[3, 4, 5], 4, 0.3);
    layers
}

#[test]
fn adapters_with_different_layers_share_each_weight() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    overlapping(root);
    let options = ["--base", "base", "--figures", "none", "--null-draws", "3", "-v"];
    let run = |path: &str, out: &str| {
        let arguments: Vec<&str> = [path, "-o", out].into_iter().chain(options).collect();
        let run = run_in(root, &arguments).exits(0);
        (division(&run.stderr), tables(&root.join(out)))
    };
    let (work, together) = run("adapters", "together");
    assert_eq!(work[..2], [6, 6]);
    for (name, own) in [("all", 6), ("even", 3), ("late", 3)] {
        let (work, alone) = run(&format!("adapters/{name}"), name);
        assert_eq!(work[..2], [own, own]);
        same(name, &rows_of(&alone, name), &rows_of(&together, name));
    }
}

/// φ of the first `k` left singular vectors, by LAPACK from the definition.
fn phi(x: &Array2<f64>, y: &Array2<f64>, k: usize) -> f64 {
    let left = |m: &Array2<f64>| m.svd(true, false).unwrap().0.unwrap().slice(s![.., ..k]).to_owned();
    left(x).t().dot(&left(y)).iter().map(|v| v * v).sum::<f64>() / k as f64
}

#[test]
fn the_same_layer_of_different_adapters_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = overlapping(root);
    let options =
        ["adapters", "--base", "base", "--figures", "none", "--null-draws", "0", "--matrices", "A,B,lora_B", "--across"];
    run_in(root, &options).exits(0);
    let rows: Vec<AcrossRow> = read_rows(&root.join("condlora-results/across.csv")).unwrap();
    // Layers 0, 2 and 3, 5 have two adapters, 4 has three, 1 has one.
    assert_eq!(rows.len(), 3 * (4 * 4 + 9 + 1));
    let read = |name: &str, layer: usize, factor: &str| {
        let path = root.join("adapters").join(name).join("adapter_model.safetensors");
        shared::checkpoint::read_matrix(&path, &format!("base_model.model.{}.{factor}.weight", layers[layer].path))
    };
    let solve = |layer: usize, targets: Array2<f64>| {
        let mut out = Array2::zeros(targets.raw_dim());
        for (mut to, from) in out.columns_mut().into_iter().zip(targets.columns()) {
            to.assign(&layers[layer].w0.solve(&from.to_owned()).unwrap());
        }
        out
    };
    for row in &rows {
        let layer = row.layer.as_ref().unwrap().index().unwrap() as usize;
        let matrix = |name: &str| match row.matrix {
            MatrixKind::A => solve(layer, read(name, layer, "lora_A").reversed_axes()),
            MatrixKind::B => solve(layer, read(name, layer, "lora_B")),
            _ => read(name, layer, "lora_B"),
        };
        // The smallest rank of any adapter is the number of vectors.
        assert_eq!((row.i, row.j, row.side, row.status, row.module.as_str()), (3, 3, Side::Left, Status::Ok, "q_proj"));
        let expected = phi(&matrix(&row.adapter_a), &matrix(&row.adapter_b), 3);
        assert!((row.phi.unwrap() - expected).abs() < 1e-11, "{row:?}, expected {expected}");
        assert_eq!(row.gaussian_expected, Some(3.0 / 24.0));
    }
    let order: Vec<_> = rows
        .iter()
        .map(|r| (r.module.clone(), r.layer.clone(), r.matrix, r.side, r.adapter_a.clone(), r.adapter_b.clone()))
        .collect();
    assert!(order.is_sorted());
}

#[test]
fn modules_that_adapters_name_differently_are_compared_under_the_bases_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let named = |path: &str| (0..2).map(move |l| Layer::new(&path.replace('*', &l.to_string()), 12, 12, 2)).collect::<Vec<_>>();
    let (query, output, dense) = (
        named("encoder.layer.*.attention.query"),
        named("encoder.layer.*.attention.dense"),
        named("encoder.layer.*.output.dense"),
    );
    let base: Vec<Layer> = [&query, &output, &dense].into_iter().flatten().cloned().collect();
    write_base(&root.join("base"), &base, PLAIN);
    write_adapter(&root.join("adapters/a"), &[&query[..], &output].concat(), PLAIN, &[]);
    write_adapter(&root.join("adapters/b"), &[&output[..], &dense].concat(), PLAIN, &[]);
    run_in(root, &["adapters", "--base", "base", "--figures", "none", "--null-draws", "0", "--matrices", "A", "--across"])
        .exits(0);
    let rows: Vec<AcrossRow> = read_rows(&root.join("condlora-results/across.csv")).unwrap();
    let mut modules: Vec<(&str, usize)> = Vec::new();
    for row in &rows {
        match modules.iter_mut().find(|(name, _)| *name == row.module) {
            Some((_, count)) => *count += 1,
            None => modules.push((&row.module, 1)),
        }
    }
    // `a` calls its only dense module `dense`, `b` has two.
    assert_eq!(modules, [("attention.dense", 8), ("output.dense", 2), ("query", 2)]);
}

#[test]
fn keep_going_passes_over_what_cannot_be_analysed_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = overlapping(root);
    layers.extend((0..2).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.v_proj"), 24, 24, 4)));
    write_base(&root.join("base"), &layers, PLAIN);
    let options = ["adapters", "--base", "base", "--figures", "none", "--null-draws", "3", "--across"];
    let with = |more: &[&'static str]| -> Vec<&str> { options.iter().chain(more).copied().collect() };
    run_in(root, &with(&["-o", "good"])).exits(0);

    let broken = root.join("adapters/broken");
    write_adapter(&broken, &layers[..1], PLAIN, &[]);
    fs::write(broken.join("adapter_model.safetensors"), b"<html>not found</html>").unwrap();
    // One bad value in one of two modules costs the whole adapter.
    let mut nan = layers.clone();
    nan[2].b[(5, 1)] = f64::NAN;
    write_adapter(&root.join("adapters/nan"), &nan, PLAIN, &[]);
    let wide = [Layer { a: Array2::ones((4, 25)), ..layers[1].clone() }];
    write_adapter(&root.join("adapters/wide"), &wide, PLAIN, &[]);

    let first = run_in(root, &with(&[])).exits(4).says("broken");
    assert_eq!(first.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1);
    let run = run_in(root, &with(&["--keep-going", "-o", "kept", "-q"])).exits(1);
    let named: Vec<&str> =
        run.stderr.lines().filter_map(|l| l.strip_prefix("warning: ")?.split_once(" skipped: ").map(|p| p.0)).collect();
    assert_eq!(named, ["broken", "wide", "nan"]);
    assert!(run.stderr.contains("layers.2.self_attn.q_proj.lora_B.weight") && run.stderr.contains("NaN"), "{}", run.stderr);
    same("what is left", &tables(&root.join("good")), &tables(&root.join("kept")));
    let manifest = String::from_utf8(files(&root.join("kept")).remove("manifest.json").unwrap()).unwrap();
    assert!(manifest.contains("wide skipped: "));

    // Where every adapter fails, the run fails as the first does.
    fs::remove_dir_all(root.join("adapters")).unwrap();
    write_adapter(&root.join("adapters/nan"), &nan, PLAIN, &[]);
    write_adapter(&root.join("adapters/wide"), &wide, PLAIN, &[]);
    run_in(root, &with(&["--keep-going", "-o", "none"])).exits(6).says("error: adapters/nan/adapter_model.safetensors: ");
    assert!(!root.join("none").exists());
}

#[test]
fn keep_going_loses_only_the_adapters_that_use_a_bad_base_weight() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = overlapping(root);
    layers[1].w0[(3, 4)] = f64::INFINITY;
    write_base(&root.join("base"), &layers, PLAIN);
    let options = ["--base", "base", "--figures", "none", "--null-draws", "3"];
    let with = |more: &[&'static str]| -> Vec<&str> { options.iter().chain(more).copied().collect() };
    run_in(root, &with(&["adapters"])).exits(6).says("layers.1.self_attn.q_proj.weight");
    let run = run_in(root, &with(&["adapters", "--keep-going", "-o", "kept"])).exits(1);
    assert_eq!(run.stderr.matches(" skipped: ").count(), 1);
    assert!(run.stderr.contains("warning: all skipped: base/model.safetensors: "), "{}", run.stderr);
    for name in ["even", "late"] {
        run_in(root, &with(&[&*format!("adapters/{name}").leak(), "-o", name])).exits(0);
        same(name, &rows_of(&tables(&root.join(name)), name), &rows_of(&tables(&root.join("kept")), name));
    }
}

#[test]
fn an_unreadable_size_is_refused() {
    for text in ["lots", "0", "-1G", "80%"] {
        let run = Run::of(analyze(["x", &format!("--memory-limit={text}")]).output().unwrap()).exits(2);
        assert!(run.stderr.contains("expected a number of bytes, as in 8G or 512M"), "{}", run.stderr);
    }
}

#[test]
fn a_file_of_tensors_in_another_order_is_read_the_same() {
    // Tensors of one layer far apart in the file, and layers backwards: nothing depends on their order.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = overlapping(root);
    let tensors: Vec<Tensor> = layers
        .iter()
        .rev()
        .map(|layer| shared::checkpoint::stored(&format!("{}.weight", layer.path), &layer.w0, "F64"))
        .collect();
    let options = ["adapters", "--base", "base", "--figures", "none", "--null-draws", "2", "--across"];
    run_in(root, &options).exits(0);
    let before = tables(&root.join("condlora-results"));
    fs::write(root.join("base/model.safetensors"), file(&tensors)).unwrap();
    run_in(root, &[&options[..], &["--overwrite"]].concat()).exits(0);
    same("backwards", &before, &tables(&root.join("condlora-results")));
}
