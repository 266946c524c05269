//! CondLoRA checkpoints: read wherever an adapter is accepted, turned into LoRA adapters, and compared with others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow};
use condlora::terms::{MatrixKind, Status};
use ndarray::Array2;
use serde_json::json;
use shared::checkpoint::{Layer, PLAIN, Storage, square_layers, write_base, write_condlora};
use shared::program::{Run, data, real_base, run_in, tables};
use shared::tolerance::{gaussian, tolerance};

const N: usize = 12;
const RANK: usize = 3;
const LAYERS: usize = 4;
const MODULE: &str = "q_proj";

fn theta(name: &str, rows: usize) -> Array2<f64> {
    gaussian(4, name, rows, RANK)
}

/// A base of square layers and a CondLoRA of it, with further fields of its configuration.
fn square(root: &Path, more: &[(&str, serde_json::Value)], storage: Storage) -> Vec<Layer> {
    let layers = square_layers(LAYERS, N, RANK);
    write_base(&root.join("base"), &layers, storage);
    write_condlora(&root.join("condlora"), &[(MODULE, &theta("a", N), &theta("b", N))], storage.adapter, more);
    layers
}

fn analyze_condlora(root: &Path, more: &[&str]) -> Run {
    let fixed = ["condlora", "--base", "base", "-o", "out", "--overwrite", "--figures", "none", "--null-draws", "2"];
    run_in(root, &[&fixed[..], more].concat())
}

fn frobenius(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Holds the norms in conversion.csv against A and B made here.
fn assert_factors(root: &Path, factors: impl Fn(usize) -> (Array2<f64>, Array2<f64>)) {
    let rows: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
    assert_eq!(rows.len(), LAYERS);
    for (index, row) in rows.iter().enumerate() {
        let (a_transposed, b) = factors(index);
        let s = 2.0;
        for (ours, theirs) in [
            (row.norm_a, frobenius(&a_transposed)),
            (row.norm_b, frobenius(&b)),
            (row.norm_delta, s * frobenius(&b.dot(&a_transposed.t()))),
        ] {
            let ours = ours.unwrap();
            assert!((ours - theirs).abs() <= tolerance(N, N, 1.0) * theirs, "layer {index}: {ours} and {theirs}");
        }
        assert_eq!((row.adapter_key.as_str(), row.scaling, row.status), (MODULE, s, Status::Ok));
    }
}

/// The largest distance of an off-diagonal φ from 1.
fn far_from_one(root: &Path, matrix: MatrixKind) -> f64 {
    let rows: Vec<SimilarityRow> = read_rows(&root.join("out/similarity.csv")).unwrap();
    let off = rows.iter().filter(|r| r.matrix == matrix && r.layer_a != r.layer_b).map(|r| (r.phi.unwrap() - 1.0).abs());
    off.fold(0.0, f64::max)
}

#[test]
fn factors_are_made_of_w0_and_theta() {
    let (theta_a, theta_b) = (theta("a", N), theta("b", N));
    for storage in [PLAIN, Storage { fan_in_fan_out: true, ..PLAIN }] {
        let dir = tempfile::tempdir().unwrap();
        let layers = square(dir.path(), &[("fan_in_fan_out", storage.fan_in_fan_out.into())], storage);
        analyze_condlora(dir.path(), &[]).exits(0);
        assert_factors(dir.path(), |l| (layers[l].w0.dot(&theta_a), layers[l].w0.dot(&theta_b)));
        assert!(far_from_one(dir.path(), MatrixKind::A) < 1e-10 && far_from_one(dir.path(), MatrixKind::B) < 1e-10);
    }
}

#[test]
fn eq6_as_printed_is_a_field_or_an_option() {
    let (theta_a, theta_b) = (theta("a", N), theta("b", N));
    for (fields, option) in [(&[("condlora_convention", json!("eq6"))][..], &[][..]), (&[], &["--eq6"])] {
        let dir = tempfile::tempdir().unwrap();
        let layers = square(dir.path(), fields, PLAIN);
        analyze_condlora(dir.path(), option).exits(0);
        assert_factors(dir.path(), |l| (layers[l].w0.dot(&theta_a), layers[l].w0.t().dot(&theta_b)));
        assert!(far_from_one(dir.path(), MatrixKind::A) < 1e-10 && far_from_one(dir.path(), MatrixKind::B) > 0.01);
    }
}

#[test]
fn weights_that_are_not_square_need_the_general_convention() {
    let (d_out, d_in) = (9, 14);
    let (theta_a, theta_b) = (theta("a", d_out), theta("b", d_in));
    let layers: Vec<Layer> =
        (0..LAYERS).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.q_proj"), d_out, d_in, RANK)).collect();
    let dir = tempfile::tempdir().unwrap();
    write_base(&dir.path().join("base"), &layers, PLAIN);
    let write = |convention: &str| {
        let fields = [("condlora_convention", json!(convention))];
        write_condlora(&dir.path().join("condlora"), &[(MODULE, &theta_a, &theta_b)], "F64", &fields);
    };
    write("general");
    analyze_condlora(dir.path(), &[]).exits(0);
    assert_factors(dir.path(), |l| (layers[l].w0.t().dot(&theta_a), layers[l].w0.dot(&theta_b)));
    analyze_condlora(dir.path(), &["--eq6"]).exits(5).says("Θ_A and Θ_B of one length, found [9, 14]");
    write("paper");
    analyze_condlora(dir.path(), &[]).exits(5).says("condlora_convention `general`");
}

#[test]
fn the_authors_pickle_gives_the_same_as_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    for (name, weights) in [("pickled", "adapter_model.bin"), ("safe", "adapter_model.safetensors")] {
        let adapter = dir.path().join(name).join("condlora");
        std::fs::create_dir_all(&adapter).unwrap();
        for file in ["adapter_config.json", weights] {
            std::fs::copy(data("condlora/trec-seed0").join(file), adapter.join(file)).unwrap();
        }
        let (base, root) = (real_base(), dir.path().join(name));
        let fixed = ["condlora", "-o", "out", "--figures", "none", "--null-draws", "1", "--base"];
        run_in(&root, &[&fixed[..], &[base.to_str().unwrap()]].concat()).exits(0);
    }
    assert_eq!(tables(&dir.path().join("pickled/out")), tables(&dir.path().join("safe/out")));
}

#[test]
fn an_untrained_condlora_is_a_control_too_and_what_depends_on_x_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    square(dir.path(), &[], PLAIN);
    analyze_condlora(dir.path(), &["--init", "condlora"]).exits(0);
    let rows: Vec<SimilarityRow> = read_rows(&dir.path().join("out/similarity.csv")).unwrap();
    assert!(rows.iter().all(|r| r.init == r.phi && r.init.is_some()));
    square(dir.path(), &[("use_x", json!("concat"))], PLAIN);
    analyze_condlora(dir.path(), &[]).exits(5).says("use_x; expected \"none\", found \"concat\"").says("hint: with use_x");
}
