//! Adapters that PEFT made for tiny models of five architectures, compared with φ computed by NumPy.
//!
//! `tests/data/checkpoints/NAME/` holds `base`, `adapter`, the options of the study and `phi.csv`, all written by
//! `tests/interop/make_checkpoints.py`, which computes them from the weights of the loaded model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use condlora::table::SimilarityRow;
use condlora::table::csv::read_rows;
use condlora::terms::Status;
use shared::program::{Run, analyze};

const TOLERANCE: f64 = 1e-9;

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints").join(name)
}

/// Module, matrix, side, i, j, layer_a, layer_b.
type Cell = [String; 7];

/// NumPy's φ of every cell; none where the vectors of the two layers differ in length.
fn expected(name: &str) -> BTreeMap<Cell, Option<f64>> {
    let mut reader = csv::Reader::from_path(checkpoint(name).join("phi.csv")).unwrap();
    let rows = reader.records().map(|row| {
        let row: Vec<String> = row.unwrap().iter().map(str::to_owned).collect();
        let [cell @ .., phi] = &row[..] else { panic!("an empty row") };
        (cell.to_vec().try_into().unwrap(), (!phi.is_empty()).then(|| phi.parse().unwrap()))
    });
    rows.collect()
}

fn cell(row: &SimilarityRow) -> Cell {
    [
        row.module.clone(),
        row.matrix.to_string(),
        row.side.to_string(),
        row.i.to_string(),
        row.j.to_string(),
        row.layer_a.to_string(),
        row.layer_b.to_string(),
    ]
}

/// Analyses a checkpoint in its place, with the base that the adapter names, and compares every cell.
#[track_caller]
fn agrees_with_numpy(name: &str, modules: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let results = out.path().join("results");
    let options = std::fs::read_to_string(checkpoint(name).join("options.txt")).unwrap();
    let always = ["--side", "both", "--ij", "4,4", "--ij", "1,2", "--null-draws", "0", "--figures", "none", "-q", "-o"];
    let mut command = analyze(always);
    Run::of(command.arg(&results).arg(checkpoint(name).join("adapter")).args(options.lines()).output().unwrap()).exits(0);

    let expected = expected(name);
    let found: Vec<SimilarityRow> = read_rows(&results.join("similarity.csv")).unwrap();
    assert_eq!(found.len(), expected.len());
    let mut names: Vec<&str> = found.iter().map(|row| row.module.as_str()).collect();
    names.dedup();
    assert_eq!(names, modules);
    for row in &found {
        let key = cell(row);
        match expected[&key] {
            None => assert_eq!((row.phi, row.status), (None, Status::Skipped), "{key:?}"),
            Some(phi) => {
                let error = (row.phi.unwrap_or_else(|| panic!("{key:?} has no value: {}", row.status)) - phi).abs();
                assert!(error <= TOLERANCE, "{key:?}: {error:e}");
            }
        }
    }
}

/// An encoder and a decoder, the latter with two attentions in each block.
#[test]
fn t5() {
    let own = ["encoder.block.*.layer.0.SelfAttention", "decoder.block.*.layer.0.SelfAttention", "EncDecAttention"];
    let mut modules: Vec<String> = own.iter().flat_map(|path| ["q", "v"].map(|end| format!("{path}.{end}"))).collect();
    modules.sort();
    agrees_with_numpy("t5", &modules.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Rank-stabilised scaling, and a classifier that was trained along.
#[test]
fn vit() {
    agrees_with_numpy("vit", &["query", "value"]);
}

/// BF16 in three shards; grouped-query attention, so `v_proj` is not square, and neither is `down_proj`.
#[test]
fn llama() {
    agrees_with_numpy("llama", &["down_proj", "q_proj", "v_proj"]);
}

/// Weights stored `[in, out]`, three projections fused.
#[test]
fn gpt2() {
    agrees_with_numpy("gpt2", &["c_attn.k", "c_attn.q", "c_attn.v"]);
}

/// Fused projections with fewer keys and values than queries.
#[test]
fn phi() {
    agrees_with_numpy("phi", &["qkv_proj.k", "qkv_proj.q", "qkv_proj.v"]);
}
