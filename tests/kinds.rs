//! Adapters of every kind, and bases with other names for their weights, through the real program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow, SpectrumRow, SummaryRow};
use condlora::terms::{Convention, MatrixKind, Method, Status};
use ndarray::{Array2, Axis, s};
use shared::checkpoint::{Layer, PLAIN, Storage, square_layers, stored, write_adapter, write_base, write_both};
use shared::direct::{agrees_with_the_pseudo_inverse, direct, thin_svd};
use shared::generate::{self, Tensor, file};
#[cfg(debug_assertions)]
use shared::held::Held;
use shared::program::{Run, analyze, run_in, tables};
use shared::tolerance::gaussian;

const TOLERANCE: f64 = 1e-9;

/// Analyses `adapter/` on `base/` into `out/`.
fn analyse(root: &Path, more: &[&str]) -> Run {
    let mut arguments = vec!["adapter", "--base", "base", "-o", "out", "--overwrite", "--figures", "none", "--side", "both"];
    arguments.extend(more);
    run_in(root, &arguments)
}

fn similarity(root: &Path) -> Vec<SimilarityRow> {
    read_rows(&root.join("out/similarity.csv")).unwrap()
}

fn conversion(root: &Path) -> Vec<ConversionRow> {
    read_rows(&root.join("out/conversion.csv")).unwrap()
}

/// The modules in the summary, in its order.
fn modules(root: &Path) -> Vec<String> {
    let rows: Vec<SummaryRow> = read_rows(&root.join("out/summary.csv")).unwrap();
    let mut names: Vec<String> = rows.into_iter().map(|row| row.module).collect();
    names.dedup();
    names
}

fn frobenius(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// All tables but those that name the adapter's and the base's tensors.
fn numbers(root: &Path) -> Vec<(String, Vec<u8>)> {
    tables(&root.join("out")).into_iter().filter(|(name, _)| name != "conversion.csv").collect()
}

fn write(root: &Path, name: &str, tensors: &[Tensor]) {
    fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
    fs::write(root.join(name), file(tensors)).unwrap();
}

/// The base's tensors under other names.
fn write_base_named(root: &Path, layers: &[Layer], name: impl Fn(&str) -> String) {
    let tensors: Vec<Tensor> = layers.iter().map(|layer| stored(&name(&layer.path), &layer.w0, "F64")).collect();
    write(root, "base/model.safetensors", &tensors);
}

#[test]
fn a_base_with_other_names_is_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 24, 3);
    write_both(root, &layers, PLAIN);
    analyse(root, &["--seed", "3"]).exits(0);
    let plain: Vec<_> = similarity(root).into_iter().map(|row| row.phi).collect();

    write_base_named(root, &layers, |path| path.replace("self_attn.q_proj", "attn.query") + ".weight");
    let refused = analyse(root, &[]).exits(5).says("is not there");
    refused.says("hint: `model.layers.0.attn.query.weight` has its shape: try --map self_attn.q_proj=attn.query");
    analyse(root, &["--map", "self_attn.q_proj=attn.query"]).exits(0);
    assert_eq!(similarity(root).into_iter().map(|row| row.phi).collect::<Vec<_>>(), plain);
    for (index, row) in conversion(root).iter().enumerate() {
        assert_eq!(row.adapter_key, format!("base_model.model.model.layers.{index}.self_attn.q_proj"));
        assert_eq!((row.tensor.as_str(), row.module.as_str()), (&*format!("model.layers.{index}.attn.query.weight"), "q_proj"));
    }
    let manifest = fs::read_to_string(root.join("out/manifest.json")).unwrap();
    assert!(manifest.contains("\"self_attn.q_proj=attn.query\""), "{manifest}");

    // One after the other, the second on what the first gave; and a base whose tensors have no `.weight`.
    write_base_named(root, &layers, |path| path.replace("model.layers", "net").replace("self_attn.q_proj", "w"));
    analyse(root, &["--map", "model.layers=net", "--map", "self_attn.q_proj=w"]).exits(0);
    assert_eq!(similarity(root).into_iter().map(|row| row.phi).collect::<Vec<_>>(), plain);
    assert!(conversion(root).iter().all(|row| row.tensor.starts_with("net.") && row.tensor.ends_with(".w")));
}

#[test]
fn a_map_that_says_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_both(root, &square_layers(2, 16, 2), PLAIN);
    let unused = analyse(root, &["--map", "attention=x"]).exits(2);
    unused.says("error: --map attention=x: no module path has `attention` in it").says("hint: the first module");
    // A part of a segment is no segment.
    analyse(root, &["--map", "q_pro=x"]).exits(2).says("no module path has `q_pro`");
    for text in ["q_proj", "=x", "a..b=c", "a=b=c", ""] {
        analyse(root, &["--map", text]).exits(2).says("expected FROM=TO");
    }
    let nowhere = analyse(root, &["--map", "q_proj=x_proj"]).exits(5);
    nowhere.says("`model.layers.0.self_attn.x_proj.weight`, `model.layers.0.self_attn.x_proj`").says("hint: --map names it so");
    assert!(!root.join("out").exists());
}

#[test]
fn the_only_candidate_of_the_right_shape_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(2, 24, 3);
    write_both(root, &layers, PLAIN);
    let mut tensors = Vec::new();
    for layer in &layers {
        let path = layer.path.strip_prefix("model.").unwrap();
        tensors.push(stored(&format!("net.left.{path}.weight"), &layer.w0, "F64"));
        tensors.push(stored(&format!("net.right.{path}.weight"), &gaussian(1, path, 32, 32), "F64"));
    }
    write(root, "base/model.safetensors", &tensors);
    analyse(root, &[]).exits(0);
    agrees_with_the_pseudo_inverse(root, None, &layers, Convention::Paper, TOLERANCE);
    assert!(conversion(root).iter().all(|row| row.tensor.starts_with("net.left.")));
    // Two of one shape: it takes a word from the user.
    for tensor in tensors.iter_mut().filter(|t| t.name.contains("right")) {
        *tensor = stored(&tensor.name, &gaussian(1, &tensor.name, 24, 24), "F64");
    }
    write(root, "base/model.safetensors", &tensors);
    let refused = analyse(root, &[]).exits(5).says("ambiguous").says("net.left.layers.0.").says("net.right.layers.0.");
    refused.says("hint: say which with --map FROM=TO");
    analyse(root, &["--map", "model=net.left"]).exits(0);
    agrees_with_the_pseudo_inverse(root, None, &layers, Convention::Paper, TOLERANCE);
}

/// The attention of a T5: encoder and decoder, self-attention and cross-attention.
fn t5() -> Vec<(&'static str, Vec<Layer>)> {
    [
        ("encoder.block.*.layer.0.SelfAttention.q", "encoder.block.*.layer.0.SelfAttention.q"),
        ("decoder.block.*.layer.0.SelfAttention.q", "decoder.block.*.layer.0.SelfAttention.q"),
        ("EncDecAttention.q", "decoder.block.*.layer.1.EncDecAttention.q"),
    ]
    .map(|(name, path)| (name, (0..3).map(|l| Layer::new(&path.replace('*', &l.to_string()), 24, 24, 3)).collect()))
    .into()
}

#[test]
fn encoder_and_decoder_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let all: Vec<Layer> = t5().into_iter().flat_map(|(_, layers)| layers).collect();
    write_both(root, &all, PLAIN);
    write_base_named(root, &all, |path| format!("transformer.{path}.weight"));
    analyse(root, &[]).exits(0);
    for (name, layers) in t5() {
        agrees_with_the_pseudo_inverse(root, Some(name), &layers, Convention::Paper, TOLERANCE);
    }
    let mut names: Vec<_> = t5().into_iter().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    assert_eq!(modules(root), names);
    // A decoder's layer is not in a base that is an encoder alone, though the rest of its name is.
    write_base_named(root, &all[..3], |path| format!("{path}.weight"));
    let decoder: Vec<Layer> = all[3..6].to_vec();
    write_adapter(&root.join("adapter"), &decoder, PLAIN, &[]);
    analyse(root, &[]).exits(5).says("base weight of `decoder.block.0.layer.0.SelfAttention.q` is not there");
}

/// An embedding as LoRA sees it: W0 [width, vocabulary].
fn embedding(vocabulary: usize, width: usize, rank: usize) -> Layer {
    Layer::new("model.embed_tokens", width, vocabulary, rank)
}

/// Writes an adapter of an embedding, and its base as a model stores it, `[vocabulary, width]`.
fn write_embedding(root: &Path, layer: &Layer, end: &str, dtype: &'static str) {
    write_adapter(&root.join("adapter"), std::slice::from_ref(layer), PLAIN, &[]);
    let name = |factor: &str| format!("base_model.model.{}.lora_embedding_{factor}{end}", layer.path);
    write(root, "adapter/adapter_model.safetensors", &[stored(&name("A"), &layer.a, dtype), stored(&name("B"), &layer.b, dtype)]);
    let w0 = layer.w0.t().as_standard_layout().into_owned();
    write(root, "base/model.safetensors", &[stored("embed_tokens.weight", &w0, dtype)]);
}

#[test]
fn embeddings_are_converted_in_the_orientation_of_the_factors() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (end, vocabulary, width) in [("", 60, 16), (".default", 16, 40)] {
        let layer = embedding(vocabulary, width, 4);
        write_embedding(root, &layer, end, "F64");
        let said = analyse(root, &[]).exits(0);
        assert!(!said.stderr.contains("warning: adapter: `"), "{}", said.stderr);
        let rows = conversion(root);
        let row = &rows[0];
        assert_eq!((rows.len(), row.layer.clone(), row.module.as_str(), row.status), (1, None, "embed_tokens", Status::Ok));
        assert_eq!((row.out_features, row.in_features, row.rank, row.scaling), (width, vocabulary, 4, 2.0));
        assert_eq!((row.convention, row.method), (Convention::General, Method::LeastSquares));
        assert_eq!(row.tensor, "embed_tokens.weight");
        assert!((row.norm_delta.unwrap() / (2.0 * frobenius(&layer.b.dot(&layer.a))) - 1.0).abs() < TOLERANCE);
        // One weight has no other layer to be compared with, but it has its conversion matrices.
        assert!(similarity(root).is_empty());
        let spectrum: Vec<SpectrumRow> = read_rows(&root.join("out/spectrum.csv")).unwrap();
        for (kind, theta) in direct(&layer, Convention::General) {
            let expected = thin_svd(&theta).1;
            let found: Vec<f64> =
                spectrum.iter().filter(|row| row.matrix.conversion() == Some(kind)).map(|row| row.sigma).collect();
            assert_eq!(found.len(), 4);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found / expected - 1.0).abs() < TOLERANCE, "{kind}: {found} against {expected}");
            }
            let (residual, product, target) = match kind {
                MatrixKind::A => (row.residual_a, layer.w0.t().dot(&theta), layer.a.t().to_owned()),
                MatrixKind::B => (row.residual_b, layer.w0.dot(&theta), layer.b.clone()),
                _ => continue,
            };
            assert!((residual.unwrap() - frobenius(&(product - &target)) / frobenius(&target)).abs() < TOLERANCE);
        }
    }
}

#[test]
fn embeddings_stand_beside_other_modules() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(2, 24, 4);
    let embedding = embedding(50, 24, 4);
    let mut tensors = Vec::new();
    for layer in &layers {
        tensors.push(stored(&format!("base_model.model.{}.lora_A.weight", layer.path), &layer.a, "F64"));
        tensors.push(stored(&format!("base_model.model.{}.lora_B.weight", layer.path), &layer.b, "F64"));
    }
    tensors.push(stored("base_model.model.model.embed_tokens.lora_embedding_A", &embedding.a, "F64"));
    tensors.push(stored("base_model.model.model.embed_tokens.lora_embedding_B", &embedding.b, "F64"));
    let base = |transposed: bool| {
        let turned = |w0: &Array2<f64>| if transposed { w0.t().as_standard_layout().into_owned() } else { w0.clone() };
        let mut base: Vec<Tensor> =
            layers.iter().map(|layer| stored(&format!("{}.weight", layer.path), &turned(&layer.w0), "F64")).collect();
        // A model of Conv1D stores its embeddings as all models do.
        base.push(stored("model.embed_tokens.weight", &embedding.w0.t().as_standard_layout().into_owned(), "F64"));
        base
    };
    let mut seen = Vec::new();
    for transposed in [false, true] {
        write_adapter(&root.join("adapter"), &layers, Storage { fan_in_fan_out: transposed, ..PLAIN }, &[]);
        write(root, "adapter/adapter_model.safetensors", &tensors);
        write(root, "base/model.safetensors", &base(transposed));
        analyse(root, &[]).exits(0);
        agrees_with_the_pseudo_inverse(root, Some("q_proj"), &layers, Convention::Paper, TOLERANCE);
        assert_eq!(conversion(root).iter().filter(|row| row.module == "embed_tokens").count(), 1);
        seen.push(numbers(root));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn convolutions_of_one_pixel_are_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers: Vec<Layer> = (0..3).map(|l| Layer::new(&format!("blocks.{l}.conv"), 20, 12, 3)).collect();
    write_both(root, &layers, PLAIN);
    analyse(root, &[]).exits(0);
    let plain = numbers(root);
    let kernel = |mut tensor: Tensor| {
        tensor.shape.extend([1, 1]);
        tensor
    };
    let base: Vec<Tensor> = layers.iter().map(|l| kernel(stored(&format!("{}.weight", l.path), &l.w0, "F64"))).collect();
    write(root, "base/model.safetensors", &base);
    let stem = |layer: &Layer| format!("base_model.model.{}", layer.path);
    let adapter: Vec<Tensor> = layers
        .iter()
        .flat_map(|l| {
            [
                kernel(stored(&format!("{}.lora_A.weight", stem(l)), &l.a, "F64")),
                kernel(stored(&format!("{}.lora_B.weight", stem(l)), &l.b, "F64")),
            ]
        })
        .collect();
    write(root, "adapter/adapter_model.safetensors", &adapter);
    analyse(root, &[]).exits(0);
    assert_eq!(numbers(root), plain);
    agrees_with_the_pseudo_inverse(root, None, &layers, Convention::General, TOLERANCE);
}

#[test]
fn dora_is_done_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 16, 3);
    write_both(root, &layers, PLAIN);
    analyse(root, &[]).exits(0);
    let plain = numbers(root);
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[("use_dora", true.into())]);
    let mut tensors = Vec::new();
    for layer in &layers {
        let stem = format!("base_model.model.{}", layer.path);
        tensors.push(stored(&format!("{stem}.lora_A.weight"), &layer.a, "F64"));
        tensors.push(stored(&format!("{stem}.lora_B.weight"), &layer.b, "F64"));
        let mut magnitude = stored(&format!("{stem}.lora_magnitude_vector"), &gaussian(4, &stem, 1, 16), "F64");
        magnitude.shape = vec![16];
        tensors.push(magnitude);
    }
    write(root, "adapter/adapter_model.safetensors", &tensors);
    let said = analyse(root, &[]).exits(0);
    said.says("warning: adapter: DoRA adapter: A and B are analysed, the magnitude vectors are ignored (so the update is more than B·A)");
    assert_eq!(numbers(root), plain);
}

/// Writes an AdaLoRA adapter: E of every layer, bare names as PEFT writes them.
fn write_adalora(root: &Path, layers: &[Layer], e: &[Array2<f64>], more: &[(&str, serde_json::Value)]) {
    let mut fields: Vec<(&str, serde_json::Value)> =
        vec![("peft_type", "ADALORA".into()), ("init_r", 6.into()), ("lora_alpha", 12.into()), ("r", 8.into())];
    fields.extend(more.iter().cloned());
    write_adapter(&root.join("adapter"), layers, PLAIN, &fields);
    let mut tensors = Vec::new();
    for (layer, e) in layers.iter().zip(e) {
        let stem = format!("base_model.model.{}", layer.path);
        tensors.push(stored(&format!("{stem}.lora_A"), &layer.a, "F64"));
        tensors.push(stored(&format!("{stem}.lora_B"), &layer.b, "F64"));
        tensors.push(stored(&format!("{stem}.lora_E"), e, "F64"));
    }
    write(root, "adapter/adapter_model.safetensors", &tensors);
}

/// A with its rows multiplied by E.
fn with_e(layers: &[Layer], e: &[Array2<f64>]) -> Vec<Layer> {
    layers.iter().zip(e).map(|(layer, e)| Layer { a: &layer.a * e, ..layer.clone() }).collect()
}

#[test]
fn adalora_has_its_rows_multiplied() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 24, 4);
    write_base(&root.join("base"), &layers, PLAIN);
    let mut e: Vec<Array2<f64>> = layers.iter().map(|layer| gaussian(6, &layer.path, 4, 1)).collect();
    let pattern = |layer: &Layer| (format!("{}.lora_E", layer.path), serde_json::json!([true, true, false, true, false, true]));
    let kept: serde_json::Value = layers.iter().map(pattern).collect::<serde_json::Map<_, _>>().into();
    write_adalora(root, &layers, &e, &[("rank_pattern", kept)]);
    let said = analyse(root, &[]).exits(0);
    assert_eq!(said.stderr.matches("warning: ").count(), 0, "{}", said.stderr);
    let whole = with_e(&layers, &e);
    agrees_with_the_pseudo_inverse(root, None, &whole, Convention::Paper, TOLERANCE);
    for (row, layer) in conversion(root).iter().zip(&whole) {
        assert_eq!((row.rank, row.status), (4, Status::Ok));
        // PEFT scales by α / (init_r + 1e-5), independent of the rank that is left.
        assert!((row.scaling - 12.0 / (6.0 + 1e-5)).abs() < 1e-15);
        assert!((row.norm_delta.unwrap() / (row.scaling * frobenius(&layer.b.dot(&layer.a))) - 1.0).abs() < TOLERANCE);
        assert!((row.norm_a.unwrap() / frobenius(&layer.a) - 1.0).abs() < TOLERANCE);
    }

    // A singular value of 0 leaves three rows: the fourth vector does not exist.
    e[1][[2, 0]] = 0.0;
    write_adalora(root, &layers, &e, &[]);
    analyse(root, &["--ij", "4,4", "--ij", "3,3"]).exits(0);
    agrees_with_the_pseudo_inverse(root, None, &with_e(&layers, &e), Convention::Paper, TOLERANCE);
    assert_eq!(conversion(root).iter().map(|row| row.status).collect::<Vec<_>>(), [Status::Ok, Status::Rank, Status::Ok]);
    for row in similarity(root) {
        let lacking = row.i == 4 && row.matrix != MatrixKind::B && (row.layer_a == 1 || row.layer_b == 1);
        assert_eq!((row.status == Status::Rank, row.phi.is_none()), (lacking, lacking), "{row:?}");
    }

    // Before training every E is 0.
    e.iter_mut().for_each(|e| e.fill(0.0));
    write_adalora(root, &layers, &e, &[]);
    analyse(root, &[]).exits(0);
    assert!(similarity(root).iter().filter(|row| row.matrix == MatrixKind::A).all(|row| row.status == Status::Zero));
}

#[test]
fn modules_that_adalora_has_pruned_away_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 24, 4);
    write_base(&root.join("base"), &layers, PLAIN);
    let mut e: Vec<Array2<f64>> = layers.iter().map(|layer| gaussian(6, &layer.path, 4, 1)).collect();
    (layers[1].a, layers[1].b, e[1]) = (Array2::zeros((0, 24)), Array2::zeros((24, 0)), Array2::zeros((0, 1)));
    write_adalora(root, &layers, &e, &[]);
    let said = analyse(root, &[]).exits(0).says("AdaLoRA has pruned 1 of 3 modules to rank 0: they are skipped");
    said.says("layers 0..2 without 1");
    assert_eq!(conversion(root).iter().map(|row| row.layer.as_ref()?.index()).collect::<Vec<_>>(), [Some(0), Some(2)]);
}

/// The layers that a block of rows of fused ones is.
fn block(layers: &[Layer], rows: std::ops::Range<usize>) -> Vec<Layer> {
    let cut = |matrix: &Array2<f64>| matrix.slice(s![rows.clone(), ..]).to_owned();
    layers.iter().map(|layer| Layer { w0: cut(&layer.w0), b: cut(&layer.b), ..layer.clone() }).collect()
}

#[test]
fn fused_projections_are_taken_apart_in_thirds() {
    for (path, name, fan_in_fan_out) in [
        ("transformer.h.*.attn.c_attn", "c_attn", true),
        ("blocks.*.attn.qkv", "qkv", false),
        ("layers.*.W_pack", "W_pack", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let fused: Vec<Layer> = (0..3).map(|l| Layer::new(&path.replace('*', &l.to_string()), 60, 20, 3)).collect();
        let other: Vec<Layer> =
            (0..3).map(|l| Layer::new(&path.replace('*', &l.to_string()).replace(name, "c_proj"), 20, 20, 3)).collect();
        let all = [&fused[..], &other[..]].concat();
        write_both(root, &all, Storage { fan_in_fan_out, ..PLAIN });
        analyse(root, &["--split", "qkv"]).exits(0);
        let mut expected = vec!["c_proj".to_owned()];
        for (part, rows) in [("q", 0..20), ("k", 20..40), ("v", 40..60)] {
            let part = format!("{name}.{part}");
            let layers = block(&fused, rows);
            agrees_with_the_pseudo_inverse(root, Some(&part), &layers, Convention::Paper, TOLERANCE);
            for (row, layer) in conversion(root).iter().filter(|row| row.module == part).zip(&layers) {
                assert_eq!((row.out_features, row.in_features, row.method), (20, 20, Method::Lu));
                assert_eq!(
                    (row.tensor.as_str(), &row.adapter_key),
                    (&*format!("{}.weight", layer.path), &format!("base_model.model.{}", layer.path))
                );
                assert!((row.norm_b.unwrap() / frobenius(&layer.b) - 1.0).abs() < TOLERANCE);
            }
            expected.push(part);
        }
        agrees_with_the_pseudo_inverse(root, Some("c_proj"), &other, Convention::Paper, TOLERANCE);
        expected.sort();
        assert_eq!(modules(root), expected);
        // What is not fused gives the same whether others are taken apart or not, and blocks go by their names.
        let apart = tables(&root.join("out"));
        analyse(root, &["--split", "qkv", "--modules", &format!("{name}.k")]).exits(0);
        assert_eq!(modules(root), [format!("{name}.k")]);
        let file = format!("matrices/adapter/{name}.k.B.left.i3-j3.csv");
        assert_eq!(tables(&root.join("out"))[&file], apart[&file]);
        analyse(root, &["--split", "qkv", "--modules", name]).exits(2).says(&format!("{name}.k"));
        analyse(root, &[]).exits(0);
        let file = "matrices/adapter/c_proj.A.left.i3-j3.csv";
        assert_eq!(tables(&root.join("out"))[file], apart[file]);
        agrees_with_the_pseudo_inverse(root, Some(name), &fused, Convention::General, TOLERANCE);
    }
}

#[test]
fn fused_projections_of_grouped_queries_go_by_the_models_heads() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // 4 heads of queries, 2 of keys and values, 6 rows each, on a width of 24.
    let fused: Vec<Layer> = (0..3).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.qkv_proj"), 48, 24, 4)).collect();
    write_both(root, &fused, PLAIN);
    let config = |text: &str| fs::write(root.join("base/config.json"), text).unwrap();
    let split = || analyse(root, &["--split", "qkv"]);
    config(r#"{"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 24}"#);
    split().exits(0);
    agrees_with_the_pseudo_inverse(root, Some("qkv_proj.q"), &block(&fused, 0..24), Convention::Paper, TOLERANCE);
    agrees_with_the_pseudo_inverse(root, Some("qkv_proj.k"), &block(&fused, 24..36), Convention::General, TOLERANCE);
    agrees_with_the_pseudo_inverse(root, Some("qkv_proj.v"), &block(&fused, 36..48), Convention::General, TOLERANCE);
    let plain = numbers(root);
    config(r#"{"text_config": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}}"#);
    split().exits(0);
    assert_eq!(numbers(root), plain);

    config(r#"{"num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 24}"#);
    split()
        .exits(5)
        .says("`model.layers.0.self_attn.qkv_proj`; expected 72 rows, for 4 heads of q and 4 of k and v, 6 each, found 48 rows");
    config(r#"{"n_head": 4}"#);
    split().exits(5).says("expected num_attention_heads and hidden_size").says("hint: the file is base/config.json");
    config("{");
    split().exits(4).says("config.json");
    fs::remove_file(root.join("base/config.json")).unwrap();
    split().exits(5).says("and no config.json");
}

/// A module, a configuration, its rows, and which of them are queries, keys and values; heads have 3 rows.
type Fused = (&'static str, &'static str, usize, [Vec<usize>; 3]);

/// Rows of heads, by their numbers among all heads of the fused weight.
fn of_heads(heads: &[usize]) -> Vec<usize> {
    heads.iter().flat_map(|head| 3 * head..3 * head + 3).collect()
}

fn layouts() -> Vec<Fused> {
    let parts = |q: &[usize], k: &[usize], v: &[usize]| [q, k, v].map(of_heads);
    let one_of_all = || parts(&[0, 1, 2, 3], &[4], &[5]);
    let head_by_head = || parts(&[0, 3, 6, 9], &[1, 4, 7, 10], &[2, 5, 8, 11]);
    let grouped = || parts(&[0, 1, 4, 5], &[2, 6], &[3, 7]);
    let pairs = || parts(&[0, 1, 2, 3], &[4, 5], &[6, 7]);
    let qkv = "query_key_value";
    vec![
        (qkv, r#"{"model_type": "falcon", "multi_query": true, "num_attention_heads": 4, "hidden_size": 12}"#, 18, one_of_all()),
        (qkv, r#"{"model_type": "RefinedWebModel", "multi_query": true, "n_head": 4, "hidden_size": 12}"#, 18, one_of_all()),
        (
            qkv,
            r#"{"model_type": "falcon", "new_decoder_architecture": true, "multi_query": true, "num_kv_heads": 2, "num_attention_heads": 4,
                "hidden_size": 12}"#,
            24,
            grouped(),
        ),
        (
            qkv,
            r#"{"model_type": "falcon", "multi_query": false, "num_attention_heads": 4, "hidden_size": 12}"#,
            36,
            head_by_head(),
        ),
        (qkv, r#"{"model_type": "gpt_neox", "num_attention_heads": 4, "hidden_size": 12}"#, 36, head_by_head()),
        (qkv, r#"{"model_type": "bloom", "n_head": 4, "hidden_size": 12}"#, 36, head_by_head()),
        (
            qkv,
            r#"{"model_type": "chatglm", "multi_query_attention": true, "multi_query_group_num": 2, "num_attention_heads": 4,
                "kv_channels": 3, "hidden_size": 12}"#,
            24,
            pairs(),
        ),
        (qkv, r#"{"model_type": "chatglm", "num_attention_heads": 4, "hidden_size": 12}"#, 36, head_by_head()),
        ("c_attn", r#"{"model_type": "gpt_bigcode", "multi_query": true, "n_head": 4, "n_embd": 12}"#, 18, one_of_all()),
        ("c_attn", r#"{"model_type": "gpt_bigcode", "multi_query": false, "n_head": 4, "n_embd": 12}"#, 36, head_by_head()),
        (
            "wqkv",
            r#"{"model_type": "internlm2", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 12}"#,
            24,
            grouped(),
        ),
        ("Wqkv", r#"{"model_type": "mpt", "n_heads": 4, "d_model": 12, "attn_config": {"kv_n_heads": 2}}"#, 24, pairs()),
    ]
}

#[test]
fn fused_projections_are_taken_apart_as_the_model_lays_them_out() {
    for (module, config, rows, parts) in layouts() {
        for stored in [PLAIN, Storage { fan_in_fan_out: true, ..PLAIN }] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            let fused: Vec<Layer> = (0..3).map(|l| Layer::new(&format!("model.layers.{l}.attn.{module}"), rows, 12, 2)).collect();
            write_both(root, &fused, stored);
            fs::write(root.join("base/config.json"), config).unwrap();
            analyse(root, &["--split", "qkv"]).exits(0);
            for (name, rows) in ["q", "k", "v"].into_iter().zip(&parts) {
                let part = |values: &Array2<f64>| values.select(Axis(0), rows);
                let own: Vec<Layer> =
                    fused.iter().map(|layer| Layer { w0: part(&layer.w0), b: part(&layer.b), ..layer.clone() }).collect();
                let convention = if rows.len() == 12 { Convention::Paper } else { Convention::General };
                agrees_with_the_pseudo_inverse(root, Some(&format!("{module}.{name}")), &own, convention, TOLERANCE);
            }
        }
    }
}

#[test]
fn layouts_that_cannot_be_taken_apart_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let split = |path: &str, rows: usize, config: &str| {
        let layers = [Layer::new(path, rows, 12, 2)];
        write_both(root, &layers, PLAIN);
        fs::write(root.join("base/config.json"), config).unwrap();
        analyse(root, &["--split", "qkv"])
    };
    let falcon = split("transformer.h.0.self_attention.query_key_value", 36, "{}").exits(5);
    falcon
        .says("--split qkv: layout of `transformer.h.0.self_attention.query_key_value`")
        .says("expected a model whose layout is known (bloom, chatglm, falcon, gpt_neox, internlm2), found no model_type");
    split("model.layers.0.attention.wqkv", 36, r#"{"model_type": "x"}"#).exits(5).says("found the model_type x");
    let codegen = r#"{"model_type": "codegen", "n_head": 2, "n_embd": 12}"#;
    split("transformer.h.0.attn.qkv_proj", 36, codegen).exits(5).says("CodeGen");
    let heads = split("transformer.h.0.attn.c_attn", 36, r#"{"model_type": "gpt_bigcode"}"#).exits(5);
    heads.says("expected the heads in the model's config.json");
    let starcoder = r#"{"model_type": "gpt_bigcode", "n_head": 2, "n_embd": 12}"#;
    split("transformer.h.0.attn.c_attn", 36, starcoder).exits(5).says("expected 24 rows, for 2 heads of q").says("found 36 rows");
    split("transformer.h.0.crossattention.c_attn", 24, "{}").exits(5).says("cross-attention");
    split("transformer.h.0.attn.c_attn", 30, "{}").exits(5).says("30 rows and 12 columns");
    let nothing = split("model.layers.0.self_attn.q_proj", 12, "{}").exits(2);
    nothing.says("error: --split qkv: no module is a fused projection").says("the first module here is `q_proj`");
    analyse(root, &["--split", "gate_up"]).exits(2).says("possible values: qkv");
    // Without --split they are weights like any other.
    split("transformer.h.0.self_attention.query_key_value", 36, "{}");
    analyse(root, &[]).exits(0);
}

#[test]
#[cfg(all(debug_assertions, target_os = "linux"))]
fn a_large_embedding_stays_within_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Like the embeddings of BERT and T5: 30,000 rows, with the width of the smaller models.
    let layer = embedding(30_000, 384, 4);
    write_embedding(root, &layer, "", "F32");
    let refused = analyse(root, &["--memory-limit", "100M"]).exits(8);
    let needed = refused.stderr.split("found ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    // What is asked for suffices: the estimate and the peak are of one size, and the estimate is the larger.
    let limit: f64 = needed.parse::<f64>().unwrap().ceil() + 1.0;
    let limit_of = format!("{limit}M");
    let mut command = analyze(["adapter", "--base", "base", "-o", "out", "--figures", "none", "--memory-limit", &limit_of]);
    // When all is written, so much of it has been needed.
    let held = Held::at("exchanged", command.current_dir(root));
    let peak = held.peak() as f64 / 1048576.0;
    assert!(held.go_on().status.success());
    println!("estimate {needed} MiB, peak {peak:.0} MiB");
    assert!(peak <= limit && peak > 0.3 * limit, "peak {peak:.0} MiB under a limit of {limit} MiB");
    assert_eq!(conversion(root)[0].status, Status::Ok);
    assert!(generate::ADAPTER_WEIGHTS.starts_with("adapter/"));
}
