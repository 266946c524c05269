//! Weights of every kind through the real program: shapes, stored types and layouts, and weights that have no complete answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow, SpectrumRow, SummaryRow};
use condlora::terms::{Convention, MatrixKind, Method, Side, Status};
use ndarray::{Array1, s};
use shared::checkpoint::{Layer, PLAIN, Storage, square_layers, write_adapter, write_base, write_both};
use shared::direct::{agrees_with_the_pseudo_inverse, thin_svd};
use shared::program::{Run, run_in, tables};
use shared::tolerance::{gaussian, orthonormal};

/// Analyses `adapter/` on `base/` into `out/`.
fn analyse(root: &Path, more: &[&str]) -> Run {
    let mut arguments = vec!["adapter", "--base", "base", "-o", "out", "--overwrite", "--figures", "none", "--side", "both"];
    arguments.extend(more);
    run_in(root, &arguments).exits(0)
}

fn similarity(root: &Path) -> Vec<SimilarityRow> {
    read_rows(&root.join("out/similarity.csv")).unwrap()
}

fn conversion(root: &Path) -> Vec<ConversionRow> {
    read_rows(&root.join("out/conversion.csv")).unwrap()
}

fn summary(root: &Path) -> Vec<SummaryRow> {
    read_rows(&root.join("out/summary.csv")).unwrap()
}

#[test]
fn weights_that_are_not_square_follow_the_general_convention() {
    for (d_out, d_in) in [(64, 128), (128, 64)] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let layers: Vec<Layer> =
            (0..3).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.k_proj"), d_out, d_in, 4)).collect();
        write_both(root, &layers, PLAIN);
        analyse(root, &["--ij", "4,4", "--ij", "2,3"]);
        agrees_with_the_pseudo_inverse(root, None, &layers, Convention::General, 1e-9);
        for row in conversion(root) {
            assert_eq!((row.convention, row.method, row.status), (Convention::General, Method::LeastSquares, Status::Ok));
            assert_eq!((row.out_features, row.in_features, row.w0_rank, row.rank), (d_out, d_in, 64, 4));
            // One of the two equations has a solution, the other only a nearest one.
            let (small, large) = if d_out < d_in { (row.residual_b, row.residual_a) } else { (row.residual_a, row.residual_b) };
            assert!(small.unwrap() < 1e-12 && large.unwrap() > 0.1);
        }
        for row in summary(root) {
            let length = match (row.matrix, row.side) {
                (MatrixKind::A, Side::Left) => d_out,
                (MatrixKind::B, Side::Left) | (MatrixKind::BA, _) => d_in,
                _ => 4,
            };
            assert_eq!(row.gaussian_expected, Some(row.i.max(row.j) as f64 / length as f64), "{row:?}");
        }
        run_in(root, &["adapter", "--base", "base", "-o", "no", "--convention", "paper"]).exits(5).says("square base weights");
    }
}

#[test]
fn the_general_convention_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let layers = square_layers(3, 24, 3);
    write_both(folder.path(), &layers, PLAIN);
    analyse(folder.path(), &[]);
    agrees_with_the_pseudo_inverse(folder.path(), None, &layers, Convention::Paper, 1e-9);
    analyse(folder.path(), &["--convention", "general"]);
    agrees_with_the_pseudo_inverse(folder.path(), None, &layers, Convention::General, 1e-9);
    assert!(conversion(folder.path()).iter().all(|r| (r.convention, r.method) == (Convention::General, Method::Lu)));
    // A threshold for singular values asks for the SVD.
    analyse(folder.path(), &["--rcond", "0"]);
    agrees_with_the_pseudo_inverse(folder.path(), None, &layers, Convention::Paper, 1e-9);
    assert!(conversion(folder.path()).iter().all(|r| (r.method, r.w0_rank) == (Method::LeastSquares, 24)));
}

#[test]
fn a_singular_w0_gets_the_least_norm_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 32, 3);
    let row = layers[1].w0.row(4).to_owned();
    layers[1].w0.row_mut(20).assign(&row);
    write_both(root, &layers, PLAIN);
    analyse(root, &[]);
    agrees_with_the_pseudo_inverse(root, None, &layers, Convention::Paper, 1e-9);
    for row in conversion(root) {
        let (status, method, rank) =
            if row.layer == Some(1.into()) { (Status::Singular, Method::LeastSquares, 31) } else { (Status::Ok, Method::Lu, 32) };
        assert_eq!((row.status, row.method, row.w0_rank), (status, method, rank));
        if row.layer == Some(1.into()) {
            let sigma = thin_svd(&layers[1].w0).1;
            assert!((row.w0_condition.unwrap() / (sigma[0] / sigma[30]) - 1.0).abs() < 1e-9);
        }
    }
    for row in similarity(root) {
        assert_eq!(row.status, if row.layer_a == 1 || row.layer_b == 1 { Status::Singular } else { Status::Ok });
        assert!(row.phi.is_some());
    }
    assert!(summary(root).iter().all(|r| (r.status, r.layers) == (Status::Singular, 3)));
    run_in(root, &["adapter", "--base", "base", "-o", "no", "--strict"]).exits(6).says("found singular");
    assert!(!root.join("no").exists());
}

#[test]
fn vectors_beyond_the_rank_are_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 32, 4);
    let row = layers[2].a.row(0).to_owned();
    layers[2].a.row_mut(3).assign(&row);
    write_both(root, &layers, PLAIN);
    analyse(root, &["--ij", "4,4", "--ij", "3,3", "--ij", "3,4", "--ij", "5,5"]);
    agrees_with_the_pseudo_inverse(root, None, &layers, Convention::Paper, 1e-9);
    for row in similarity(root) {
        // Layer 2 has three vectors in A and, through it, in BA; no layer has five.
        let deficient = |layer: u32, size: usize| size > 4 || (layer == 2 && size > 3 && row.matrix != MatrixKind::B);
        let expected = if deficient(row.layer_a.index().unwrap(), row.i) || deficient(row.layer_b.index().unwrap(), row.j) {
            Status::Rank
        } else {
            Status::Ok
        };
        assert_eq!((row.status, row.phi.is_some()), (expected, expected == Status::Ok), "{row:?}");
    }
    let found = conversion(root);
    assert_eq!(found.iter().map(|r| r.status).collect::<Vec<_>>(), [Status::Ok, Status::Ok, Status::Rank]);
    for row in summary(root) {
        let layers = match (row.matrix, row.i.max(row.j)) {
            (_, 5) => 0,
            (MatrixKind::B, _) | (_, 3) => 3,
            // The diagonal cell of layer 2 is empty, so it has no value with itself.
            _ => 2,
        };
        assert_eq!(row.layers, layers, "{row:?}");
    }
}

#[test]
fn a_condition_beyond_trust_is_low_confidence() {
    let folder = tempfile::tempdir().unwrap();
    let mut layers = square_layers(2, 24, 2);
    // One small singular value, met by both rows of A: it determines the first vector of Θ, and rounding leaves little of the second.
    let (left, right) = (orthonormal(5, "left", 24, 24), orthonormal(5, "right", 24, 24));
    let mut sigma = Array1::ones(24);
    sigma[23] = 1e-13;
    layers[0].w0 = (&left * &sigma).dot(&right.t());
    layers[0].a += &(&left.column(23) * 10.0);
    write_both(folder.path(), &layers, PLAIN);
    analyse(folder.path(), &[]);
    for row in similarity(folder.path()).iter().filter(|r| r.matrix == MatrixKind::A && r.side == Side::Left) {
        let doubtful = row.layer_a == 0 || row.layer_b == 0;
        assert_eq!(row.status, if doubtful { Status::LowConfidence } else { Status::Ok });
        assert!(row.phi.is_some() && (row.phi_error_bound.unwrap() > 1e-3) == doubtful);
    }
    let found = conversion(folder.path());
    assert_eq!((found[0].status, found[1].status), (Status::LowConfidence, Status::Ok));
}

#[test]
fn layers_of_unequal_width_are_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let mut layers = square_layers(3, 24, 2);
    layers[1] = Layer::new(&layers[1].path, 32, 32, 2);
    write_both(folder.path(), &layers, PLAIN);
    analyse(folder.path(), &[]);
    for row in similarity(folder.path()) {
        // Right vectors of Θ_A and Θ_B have length r everywhere.
        let unequal = (row.layer_a == 1) != (row.layer_b == 1) && (row.side == Side::Left || row.matrix == MatrixKind::BA);
        assert_eq!((row.status, row.phi.is_none()), (if unequal { Status::Skipped } else { Status::Ok }, unequal), "{row:?}");
    }
}

#[test]
fn a_transposed_store_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 24, 3);
    layers.extend((0..3).map(|l| Layer::new(&format!("model.layers.{l}.mlp.fc"), 36, 24, 3)));
    write_both(root, &layers, PLAIN);
    analyse(root, &[]);
    let plain = tables(&root.join("out"));
    write_both(root, &layers, Storage { fan_in_fan_out: true, ..PLAIN });
    analyse(root, &[]);
    let transposed = tables(&root.join("out"));
    for (name, bytes) in &plain {
        assert_eq!(String::from_utf8_lossy(bytes), String::from_utf8_lossy(&transposed[name]), "{name}");
    }
}

#[test]
fn every_stored_type_gives_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Values that all four types hold exactly.
    let layers: Vec<Layer> = square_layers(3, 24, 3).into_iter().map(Layer::coarse).collect();
    let mut seen = Vec::new();
    for (base, adapter) in [("F64", "F64"), ("F32", "F32"), ("F16", "F32"), ("BF16", "F16"), ("F32", "BF16")] {
        write_both(root, &layers, Storage { base, adapter, fan_in_fan_out: false });
        analyse(root, &[]);
        let found = conversion(root);
        assert!(found.iter().all(|r| (r.w0_dtype.as_str(), r.adapter_dtype.as_str()) == (base, adapter)));
        let mut all = tables(&root.join("out"));
        all.remove("conversion.csv");
        seen.push(all);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_and_b_may_be_stored_in_two_types() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers: Vec<Layer> = square_layers(2, 24, 3).into_iter().map(Layer::coarse).collect();
    write_both(root, &layers, PLAIN);
    analyse(root, &[]);
    let plain = similarity(root);
    let tensors: Vec<_> = layers
        .iter()
        .flat_map(|layer| {
            let stem = format!("base_model.model.{}", layer.path);
            [
                shared::checkpoint::stored(&format!("{stem}.lora_A.weight"), &layer.a, "BF16"),
                shared::checkpoint::stored(&format!("{stem}.lora_B.weight"), &layer.b, "F32"),
            ]
        })
        .collect();
    shared::generate::adapter(root, &tensors);
    analyse(root, &[]);
    assert_eq!(similarity(root), plain);
    assert!(conversion(root).iter().all(|r| r.adapter_dtype == "BF16/F32"));
}

#[test]
fn scales_at_the_ends_of_the_stored_type_leave_phi_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers: Vec<Layer> = square_layers(3, 24, 3).into_iter().map(Layer::coarse).collect();
    let phis = |scale_w0: f64, scale_adapter: f64| {
        let scaled: Vec<Layer> = layers
            .iter()
            .map(|l| Layer { path: l.path.clone(), w0: &l.w0 * scale_w0, a: &l.a * scale_adapter, b: &l.b * scale_adapter })
            .collect();
        write_both(root, &scaled, Storage { base: "F32", adapter: "F32", fan_in_fan_out: false });
        analyse(root, &["--null-draws", "2"]);
        similarity(root).into_iter().map(|r| (r.phi, r.phi_error_bound, r.w0_mean, r.status)).collect::<Vec<_>>()
    };
    let (large, small) = (2.0_f64.powi(90), 2.0_f64.powi(-90));
    let plain = phis(1.0, 1.0);
    assert!(plain.iter().all(|p| p.3 == Status::Ok));
    for (w0, adapter) in [(large, 1.0), (small, 1.0), (1.0, large), (1.0, small), (large, small), (small, large)] {
        assert_eq!(phis(w0, adapter), plain, "{w0:e} {adapter:e}");
    }
}

#[test]
fn subnormal_factors_have_a_phi() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers: Vec<Layer> = square_layers(2, 24, 3).into_iter().map(Layer::coarse).collect();
    write_both(root, &layers, Storage { base: "F32", adapter: "F32", fan_in_fan_out: false });
    analyse(root, &["--null-draws", "0"]);
    let plain: Vec<_> = similarity(root).into_iter().map(|r| r.phi).collect();
    // 2⁻¹⁴⁰ times k/16 with k up to 64: below the smallest normal F32, and exact.
    let scale = 2.0_f64.powi(-140);
    let tiny: Vec<Layer> = layers.iter().map(|l| Layer { a: &l.a * scale, b: &l.b * scale, ..l.clone() }).collect();
    write_both(root, &tiny, Storage { base: "F32", adapter: "F32", fan_in_fan_out: false });
    analyse(root, &["--null-draws", "0"]);
    let found = similarity(root);
    assert_eq!(found.iter().map(|r| r.phi).collect::<Vec<_>>(), plain);
    assert!(found.iter().all(|r| r.status == Status::Ok));
}

#[test]
fn a_module_without_layers_is_converted_but_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let mut layers = square_layers(2, 24, 3);
    layers.push(Layer::new("classifier.dense", 24, 24, 3));
    write_both(folder.path(), &layers, PLAIN);
    analyse(folder.path(), &[]);
    let found = conversion(folder.path());
    let alone: Vec<_> = found.iter().filter(|r| r.module == "dense").collect();
    assert_eq!((alone.len(), found.len(), alone[0].layer.clone(), alone[0].status), (1, 3, None, Status::Ok));
    assert!(similarity(folder.path()).iter().all(|r| r.module == "q_proj"));
    let text = fs::read_to_string(folder.path().join("out/conversion.csv")).unwrap();
    assert!(text.contains("\nadapter,dense,,base_model.model.classifier.dense,"), "{text}");
    let of_it: Vec<_> = summary(folder.path()).into_iter().filter(|r| r.module == "dense").collect();
    assert!(of_it.iter().all(|r| (r.layers, r.phi_mean, r.status) == (0, None, Status::Skipped)));
    let spectrum: Vec<SpectrumRow> = read_rows(&folder.path().join("out/spectrum.csv")).unwrap();
    // Three values each of Θ_A, Θ_B, Θ_BA and ΔW.
    assert_eq!(spectrum.iter().filter(|r| r.layer.is_none()).count(), 12);
    assert!(
        fs::read_dir(folder.path().join("out/matrices/adapter")).unwrap().all(|f| !f
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("dense"))
    );
}

#[test]
fn a_gap_between_layers_is_told_and_keeps_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let mut layers = square_layers(4, 24, 2);
    write_base(&folder.path().join("base"), &layers, PLAIN);
    layers.remove(2);
    write_adapter(&folder.path().join("adapter"), &layers, PLAIN, &[]);
    analyse(folder.path(), &[]).says("warning: adapter: module `q_proj`: layers 0..3 without 2");
    let mut numbers: Vec<u32> = similarity(folder.path()).iter().map(|r| r.layer_a.index().unwrap()).collect();
    numbers.dedup();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, [0, 1, 3]);
    let grid = fs::read_to_string(folder.path().join("out/matrices/adapter/q_proj.A.left.i2-j2.csv")).unwrap();
    assert_eq!(grid.lines().next(), Some("layer,0,1,3"));
    assert!(grid.lines().nth(3).unwrap().starts_with("3,"));
}

#[test]
fn one_layer_alone_has_itself() {
    let folder = tempfile::tempdir().unwrap();
    write_both(folder.path(), &square_layers(1, 24, 2), PLAIN);
    analyse(folder.path(), &[]);
    for row in similarity(folder.path()) {
        assert!((row.phi.unwrap() - 1.0).abs() < 1e-14 && row.status == Status::Ok);
    }
    for row in summary(folder.path()) {
        // There is no pair to average over.
        assert_eq!((row.layers, row.phi_mean, row.w0_mean, row.status), (1, None, None, Status::Ok));
    }
}

#[test]
fn shared_conversion_matrices_have_phi_1_everywhere() {
    // What a CondLoRA is when it is written out as a LoRA.
    let folder = tempfile::tempdir().unwrap();
    let mut layers = square_layers(4, 32, 4);
    let (theta_a, theta_b) = (gaussian(8, "theta a", 32, 4), gaussian(8, "theta b", 32, 4));
    for layer in &mut layers {
        layer.a = layer.w0.dot(&theta_a).reversed_axes().as_standard_layout().into_owned();
        layer.b = layer.w0.dot(&theta_b);
    }
    write_both(folder.path(), &layers, PLAIN);
    analyse(folder.path(), &["--matrices", "A,B", "--ij", "4,4", "--ij", "2,2", "--ij", "1,4"]);
    for row in similarity(folder.path()) {
        assert!((row.phi.unwrap() - 1.0).abs() <= 1e-10, "{row:?}");
    }
    for row in summary(folder.path()).iter().filter(|r| r.side == Side::Left) {
        assert!(row.w0_z.unwrap() > 5.0 && row.w0_p == Some(1.0 / 21.0), "{row:?}");
    }
}

#[test]
fn ranks_may_differ_between_layers() {
    let folder = tempfile::tempdir().unwrap();
    let mut layers = square_layers(3, 24, 4);
    layers[1].a = layers[1].a.slice(s![..2, ..]).to_owned();
    layers[1].b = layers[1].b.slice(s![.., ..2]).to_owned();
    write_base(&folder.path().join("base"), &layers, PLAIN);
    write_adapter(
        &folder.path().join("adapter"),
        &layers,
        PLAIN,
        &[("rank_pattern", serde_json::json!({"layers.1.self_attn.q_proj": 2}))],
    );
    analyse(folder.path(), &["--matrices", "A,B"]);
    // The smallest rank of the module is compared by default.
    let rows = similarity(folder.path());
    assert!(rows.iter().all(|r| (r.i, r.j) == (2, 2) && (r.phi.is_some() || r.side == Side::Right)));
    assert_eq!(conversion(folder.path()).iter().map(|r| (r.rank, r.scaling)).collect::<Vec<_>>(), [(4, 2.0), (2, 4.0), (4, 2.0)]);
    // Right vectors of Θ have length r: those of unequal ranks cannot be compared.
    for row in rows.iter().filter(|r| r.side == Side::Right) {
        let unequal = (row.layer_a == 1) != (row.layer_b == 1);
        assert_eq!(row.status == Status::Skipped, unequal, "{row:?}");
    }
}

#[test]
fn the_update_is_scaled_as_peft_scales_it() {
    let folder = tempfile::tempdir().unwrap();
    let layers = square_layers(2, 24, 4);
    write_base(&folder.path().join("base"), &layers, PLAIN);
    for (more, scaling) in [
        (vec![("lora_alpha", 12.into())], 3.0),
        (vec![("lora_alpha", 12.into()), ("use_rslora", true.into())], 6.0),
        (vec![("alpha_pattern", serde_json::json!({"q_proj": 2}))], 0.5),
    ] {
        write_adapter(&folder.path().join("adapter"), &layers, PLAIN, &more);
        analyse(folder.path(), &["--null-draws", "0"]);
        for (row, layer) in conversion(folder.path()).iter().zip(&layers) {
            assert_eq!(row.scaling, scaling);
            let update = layer.b.dot(&layer.a) * scaling;
            let norm = update.iter().map(|v| v * v).sum::<f64>().sqrt();
            assert!((row.norm_delta.unwrap() / norm - 1.0).abs() < 1e-13);
        }
    }
}
