//! Adapters and base models as people have them: which way round weights are stored, ranks above W0's sides, tied layers, variants of files, and a module
//! that cannot be used beside others that can. Values are held against the pseudo-inverse.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, GridRow, SimilarityRow};
use condlora::terms::{Convention, LayerId, MatrixKind, Status};
use ndarray::Array2;
use serde_json::json;
use shared::checkpoint::{Layer, PLAIN, Storage, square_layers, stored, write_adapter, write_base, write_both};
use shared::direct::agrees_with_the_pseudo_inverse;
use shared::generate::{Tensor, file};
use shared::program::{Run, program, run_in};

const TOLERANCE: f64 = 1e-9;

fn analyse(root: &Path, more: &[&str]) -> Run {
    run_in(root, &[&["adapter", "--base", "base", "--figures", "none", "--overwrite", "-o", "out"], more].concat())
}

/// Layers 0 to 2 of a module.
fn layers(name: &str, (d_out, d_in): (usize, usize), rank: usize) -> Vec<Layer> {
    (0..3).map(|l| Layer::new(&format!("transformer.h.{l}.{name}"), d_out, d_in, rank)).collect()
}

fn similarity(root: &Path) -> Vec<SimilarityRow> {
    read_rows(&root.join("out/similarity.csv")).unwrap()
}

#[test]
fn a_weight_is_read_the_way_round_it_is_stored_whatever_fan_in_fan_out_says() {
    let turned = Storage { fan_in_fan_out: true, ..PLAIN };
    let (square, wide) = (layers("attn.c_proj", (20, 20), 3), layers("attn.c_attn", (60, 20), 3));
    let all = [&square[..], &wide[..]].concat();
    let config =
        |root: &Path, model: &str| fs::write(root.join("base/config.json"), json!({ "model_type": model }).to_string()).unwrap();
    let holds = |root: &Path| {
        agrees_with_the_pseudo_inverse(root, Some("c_proj"), &square, Convention::Paper, TOLERANCE);
        agrees_with_the_pseudo_inverse(root, Some("c_attn"), &wide, Convention::General, TOLERANCE);
    };
    for stored in [PLAIN, turned] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write_base(&root.join("base"), &all, stored);
        config(root, if stored.fan_in_fan_out { "gpt2" } else { "gpt_neo" });
        for said in [true, false] {
            write_adapter(&root.join("adapter"), &all, PLAIN, &[("fan_in_fan_out", json!(said))]);
            let run = analyse(root, &[]).exits(0);
            holds(root);
            assert_eq!(
                run.stderr.contains(&format!("fan_in_fan_out is {said}, but the base weights of")),
                said != stored.fan_in_fan_out
            );
        }
        // A fit says which way round they are, whatever the adapter said: it fits as well when it is read again.
        let fitted = ["fit", "adapter", "--base", "base", "--null-draws", "0", "--overwrite", "-o", "fitted"];
        let done = |words: &[&str]| Run::of(program().args(words).current_dir(root).output().unwrap()).exits(0);
        done(&fitted);
        let made = ["materialize", "fitted", "--base", "base", "--overwrite", "-o", "made"];
        done(&made);
        for folder in ["fitted", "made"] {
            let config: serde_json::Value =
                serde_json::from_slice(&fs::read(root.join(folder).join("adapter_config.json")).unwrap()).unwrap();
            assert_eq!(config["fan_in_fan_out"], json!(stored.fan_in_fan_out), "{folder}");
        }
        // Where the architecture is not known, shapes decide where they can.
        fs::remove_file(root.join("base/config.json")).unwrap();
        write_adapter(&root.join("adapter"), &all, PLAIN, &[("fan_in_fan_out", json!(!stored.fan_in_fan_out))]);
        analyse(root, &[]).exits(0).says("and 2 more are stored").says("by their shapes, and read so");
        agrees_with_the_pseudo_inverse(root, Some("c_attn"), &wide, Convention::General, TOLERANCE);
        write_adapter(&root.join("adapter"), &all, PLAIN, &[("fan_in_fan_out", json!(stored.fan_in_fan_out))]);
        analyse(root, &[]).exits(0);
        holds(root);
    }
}

#[test]
fn a_rank_above_a_side_of_w0_is_a_shape_like_others() {
    for ((d_out, d_in), rank) in [((8, 24), 12), ((24, 8), 12), ((5, 5), 9), ((1, 16), 4)] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (router, square) = (layers("mlp.gate", (d_out, d_in), rank), layers("attn.q_proj", (16, 16), 4));
        write_both(root, &[&router[..], &square[..]].concat(), PLAIN);
        analyse(root, &["--cuts", "--null-draws", "5", "--measures", "--matrices", "A,B,BA"]).exits(0);
        let convention = if d_out == d_in { Convention::Paper } else { Convention::General };
        let effective = d_out.min(d_in);
        agrees_with_the_pseudo_inverse(root, Some("q_proj"), &square, Convention::Paper, TOLERANCE);
        let rows: Vec<SimilarityRow> = similarity(root).into_iter().filter(|row| row.module == "gate").collect();
        assert!(rows.iter().all(|row| (row.i, row.j) == (effective, effective)));
        agrees_with_the_pseudo_inverse(root, Some("gate"), &router, convention, TOLERANCE);
        for row in &rows {
            assert!(row.phi.is_some() && row.status == Status::Ok, "{row:?}");
        }
        // As many vectors as the factors have columns do not exist.
        let asked = format!("{rank},{rank}");
        analyse(root, &["--ij", &asked, "--modules", "gate", "--no-svd"]).exits(0);
        assert!(similarity(root).iter().all(|row| row.phi.is_none() && row.status == Status::Rank));
        let unlike = run_in(
            root,
            &["adapter", "--base", "base", "--rcond", "0.01", "--null-draws", "3", "--figures", "none", "-o", "cut"],
        );
        unlike.exits(0);
    }
}

#[test]
fn an_output_layer_without_a_weight_of_its_own_is_the_embedding_it_is_tied_to() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let inner = square_layers(3, 16, 2);
    let [head, embedding] =
        ["lm_head", "model.embed_tokens"].map(|path| Layer { path: path.to_owned(), ..Layer::new("lm_head", 40, 16, 2) });
    write_base(&root.join("base"), &[&inner[..], &[embedding]].concat(), PLAIN);
    write_adapter(&root.join("adapter"), &[&inner[..], &[head]].concat(), PLAIN, &[]);
    let config = |text: &str| fs::write(root.join("base/config.json"), text).unwrap();
    for tied in [r#"{"model_type": "gemma2"}"#, r#"{"model_type": "llama", "tie_word_embeddings": true}"#] {
        config(tied);
        let run = analyse(root, &["--matrices", "A,B", "--null-draws", "0"]).exits(0);
        run.says(
            "`lm_head` has no weight of its own in the base model: its W0 is `model.embed_tokens.weight`, to which it is tied",
        );
        let conversion = fs::read_to_string(root.join("out/conversion.csv")).unwrap();
        assert!(conversion.contains(",model.embed_tokens.weight,40,16,2,"), "{conversion}");
    }
    config(r#"{"model_type": "llama", "tie_word_embeddings": false}"#);
    analyse(root, &[]).exits(1).says("module `lm_head` skipped").says("base weight of `lm_head` is not there");
}

#[test]
fn a_base_of_which_there_is_only_a_variant_is_read() {
    let inner = square_layers(3, 16, 2);
    for name in ["model.fp16.safetensors", "diffusion_pytorch_model.fp16.safetensors"] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write_both(root, &inner, PLAIN);
        fs::rename(root.join("base/model.safetensors"), root.join("base").join(name)).unwrap();
        analyse(root, &[]).exits(0);
        agrees_with_the_pseudo_inverse(root, None, &inner, Convention::Paper, TOLERANCE);
        let other = name.replace("fp16", "bf16");
        fs::copy(root.join("base").join(name), root.join("base").join(&other)).unwrap();
        analyse(root, &[]).exits(5).says("several variants of the model's weights").says(&other);
        // A name that is known as it is comes first.
        fs::copy(root.join("base").join(name), root.join("base/model.safetensors")).unwrap();
        analyse(root, &[]).exits(0);
    }
    // An index of shards of a variant.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_both(root, &inner, PLAIN);
    fs::rename(root.join("base/model.safetensors"), root.join("base/model.bf16-00001-of-00001.safetensors")).unwrap();
    let map: serde_json::Map<String, serde_json::Value> =
        inner.iter().map(|layer| (format!("{}.weight", layer.path), json!("model.bf16-00001-of-00001.safetensors"))).collect();
    for name in ["model.safetensors.index.bf16.json", "model.bf16.safetensors.index.json"] {
        fs::write(root.join("base").join(name), json!({ "weight_map": map }).to_string()).unwrap();
        analyse(root, &[]).exits(0);
        agrees_with_the_pseudo_inverse(root, None, &inner, Convention::Paper, TOLERANCE);
        fs::remove_file(root.join("base").join(name)).unwrap();
    }
}

#[test]
fn a_frozen_weight_that_the_adapter_brings_along_is_its_w0() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_base(&root.join("base"), &square_layers(3, 16, 2), PLAIN);
    // Of two adapters on one base each has weights of its own, one of them of another shape.
    let own = |width: usize| -> Vec<Layer> {
        let widened =
            |layer: &Layer| Layer { path: layer.path.clone(), ..Layer::new(&format!("{} {width}", layer.path), width, 16, 2) };
        square_layers(3, 16, 2).iter().map(widened).collect()
    };
    for (name, width) in [("one", 16), ("two", 20)] {
        let layers = own(width);
        write_adapter(&root.join("adapters").join(name), &layers, PLAIN, &[]);
        let key = |layer: &Layer, end: &str| format!("base_model.model.{}.{end}", layer.path);
        let of = |layer: &Layer| {
            [
                stored(&key(layer, "lora_A.weight"), &layer.a, "F64"),
                stored(&key(layer, "lora_B.weight"), &layer.b, "F64"),
                stored(&key(layer, "base_layer.weight"), &layer.w0, "F64"),
            ]
        };
        let tensors: Vec<Tensor> = layers.iter().flat_map(of).collect();
        fs::write(root.join("adapters").join(name).join("adapter_model.safetensors"), file(&tensors)).unwrap();
    }
    let words = ["adapters", "--base", "base", "--figures", "none", "--null-draws", "3", "-o", "out"];
    run_in(root, &words).exits(0).says("is the adapter's own, saved with it because it is not the base model's");
    let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
    assert!(conversion.iter().any(|row| row.tensor.starts_with("two:base_model.model.") && row.out_features == 20));
    for (name, width, convention) in [("one", 16, Convention::Paper), ("two", 20, Convention::General)] {
        let words = [&format!("adapters/{name}"), "--base", "base", "--figures", "none", "--overwrite", "-o", "out"];
        run_in(root, &words).exits(0);
        agrees_with_the_pseudo_inverse(root, None, &own(width), convention, TOLERANCE);
        let given = format!("adapters/{name}");
        let done = |words: &[&str]| Run::of(program().args(words).current_dir(root).output().unwrap());
        done(&["inspect", &given, "--base", "base"]).exits(0);
        // A CondLoRA would be made of the base model's weight.
        let fit = done(&["fit", &given, "--base", "base", "--null-draws", "0", "-o", "fitted"]).exits(5);
        fit.says("its W0 is a part of a tensor, or the adapter's own");
    }
}

#[test]
fn an_attention_of_torch_has_its_projections_under_names_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = |name: &str, d_out: usize| -> Vec<Layer> {
        (0..3).map(|l| Layer::new(&format!("visual.transformer.resblocks.{l}.attn{name}"), d_out, 16, 2)).collect()
    };
    let (fused, out) = (layers("", 48), layers(".out_proj", 16));
    let weight = |layer: &Layer, end: &str| stored(&format!("{}{end}", layer.path), &layer.w0, "F64");
    let base: Vec<Tensor> = fused
        .iter()
        .map(|layer| weight(layer, ".in_proj_weight"))
        .chain(out.iter().map(|layer| weight(layer, ".weight")))
        .collect();
    fs::create_dir_all(root.join("base")).unwrap();
    fs::write(root.join("base/model.safetensors"), file(&base)).unwrap();
    // PEFT wraps the attention, and within it the output projection.
    let wrapped: Vec<Layer> = out
        .iter()
        .map(|layer| Layer { path: layer.path.replace(".out_proj", ".base_layer.out_proj"), ..layer.clone() })
        .collect();
    write_adapter(&root.join("adapter"), &[&fused[..], &wrapped[..]].concat(), PLAIN, &[]);
    analyse(root, &[]).exits(0);
    agrees_with_the_pseudo_inverse(root, Some("attn"), &fused, Convention::General, TOLERANCE);
    agrees_with_the_pseudo_inverse(root, Some("out_proj"), &out, Convention::Paper, TOLERANCE);
}

#[test]
fn weights_below_peft_s_base_layer_are_those_of_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let (root, inner) = (folder.path(), square_layers(3, 16, 2));
    let below: Vec<Layer> =
        inner.iter().map(|layer| Layer { path: format!("{}.base_layer", layer.path), ..layer.clone() }).collect();
    write_adapter(&root.join("adapter"), &inner, PLAIN, &[]);
    write_base(&root.join("base"), &below, PLAIN);
    analyse(root, &[]).exits(0);
    agrees_with_the_pseudo_inverse(root, None, &inner, Convention::Paper, TOLERANCE);
}

#[test]
fn names_of_transformers_5_are_found_in_published_checkpoints_and_the_other_way_round() {
    let inner = |name: &str| (0..3).map(|l| Layer::new(&name.replace('N', &l.to_string()), 16, 16, 2)).collect::<Vec<_>>();
    for (model_type, new, old) in [
        ("vit", "vit.layers.N.attention.q_proj", "vit.encoder.layer.N.attention.attention.query"),
        ("vit", "vit.layers.N.attention.o_proj", "vit.encoder.layer.N.attention.output.dense"),
        ("mixtral", "model.layers.N.mlp.gate", "model.layers.N.block_sparse_moe.gate"),
    ] {
        for (adapted, published) in [(new, old), (old, new)] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            let (layers, others) = (inner(adapted), inner("model.layers.N.output.dense"));
            let named = |name: &str| -> Vec<Layer> {
                let path = |l: usize| name.replace('N', &l.to_string());
                layers.iter().enumerate().map(|(l, layer)| Layer { path: path(l), ..layer.clone() }).collect()
            };
            write_adapter(&root.join("adapter"), &layers, PLAIN, &[]);
            write_base(&root.join("base"), &[named(published), others].concat(), PLAIN);
            analyse(root, &["--null-draws", "0"]).exits(5).says("is not there");
            fs::write(root.join("base/config.json"), json!({ "model_type": model_type }).to_string()).unwrap();
            analyse(root, &["--null-draws", "0"]).exits(0);
            agrees_with_the_pseudo_inverse(root, None, &layers, Convention::Paper, TOLERANCE);
        }
    }
}

#[test]
fn kohya_s_files_may_have_a_third_text_encoder_names_of_peft_s_factors_and_alphas_of_integers() {
    for (family, down, up) in [("lora_te3_", "lora_down", "lora_up"), ("lora_unet_", "lora_A", "lora_B")] {
        let folder = tempfile::tempdir().unwrap();
        let (root, inner) = (folder.path(), square_layers(3, 16, 2));
        write_base(&root.join("base"), &inner, PLAIN);
        let tensors: Vec<Tensor> = inner
            .iter()
            .flat_map(|layer| {
                let stem = format!("{family}{}", layer.path.replace('.', "_"));
                let alpha =
                    Tensor { name: format!("{stem}.alpha"), dtype: "I64", shape: vec![], bytes: 8_i64.to_le_bytes().to_vec() };
                let factor = |name: &str, values| stored(&format!("{stem}.{name}.weight"), values, "F64");
                [factor(down, &layer.a), factor(up, &layer.b), alpha]
            })
            .collect();
        fs::create_dir(root.join("adapter")).unwrap();
        fs::write(root.join("adapter/style.safetensors"), file(&tensors)).unwrap();
        analyse(root, &[]).exits(0);
        agrees_with_the_pseudo_inverse(root, None, &inner, Convention::Paper, TOLERANCE);
        let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
        assert!(conversion.iter().all(|row| row.scaling == 4.0));
    }
}

/// Blocks of models with several containers within each other, their widths, and the number of blocks that is theirs in the tables.
fn nested() -> [(&'static str, Vec<(&'static str, usize)>); 4] {
    [
        (
            "attn1.to_q",
            vec![
                ("down_blocks.0.attentions.1.transformer_blocks.0", 12),
                ("down_blocks.1.attentions.0.transformer_blocks.0", 20),
                ("down_blocks.1.attentions.0.transformer_blocks.1", 20),
                ("mid_block.attentions.0.transformer_blocks.0", 20),
                ("up_blocks.3.attentions.2.transformer_blocks.0", 12),
            ],
        ),
        ("attention.self.query", vec![("layers.0.blocks.0", 12), ("layers.0.blocks.1", 12), ("layers.1.blocks.0", 20)]),
        ("attention.self.query", vec![("block.0.0", 12), ("block.0.1", 12), ("block.1.0", 12)]),
        ("pwconv1", vec![("stages.2.layers.9", 12), ("stages.2.layers.10", 12), ("stages.3.layers.0", 20)]),
    ]
}

#[test]
fn blocks_in_several_containers_are_compared_across_all_of_them() {
    for (module, blocks) in nested() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let inner: Vec<Layer> =
            blocks.iter().map(|(block, width)| Layer::new(&format!("model.{block}.{module}"), *width, *width, 3)).collect();
        write_both(root, &inner, PLAIN);
        analyse(root, &["--null-draws", "3", "--measures", "--formats", "npy,parquet", "--cuts"]).exits(0);
        agrees_with_the_pseudo_inverse(root, None, &inner, Convention::Paper, TOLERANCE);
        let rows = similarity(root);
        let names: Vec<&str> = blocks.iter().map(|(block, _)| *block).collect();
        let width_of = |layer: &LayerId| blocks.iter().find(|(block, _)| *block == layer.to_string()).unwrap().1;
        let views = rows.iter().map(|row| (row.matrix, row.side)).collect::<BTreeSet<_>>().len();
        assert_eq!(rows.len(), views * blocks.len() * blocks.len());
        for row in &rows {
            let alike = width_of(&row.layer_a) == width_of(&row.layer_b);
            let expected = if alike { Status::Ok } else { Status::Skipped };
            assert_eq!((row.phi.is_some(), row.status), (alike, expected), "{row:?}");
        }
        // In the order of their numbers, in every file that has layers.
        let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
        assert_eq!(conversion.iter().map(|row| row.layer.clone().unwrap().to_string()).collect::<Vec<_>>(), names);
        let matrix = fs::read_to_string(fs::read_dir(root.join("out/matrices/adapter")).unwrap().next().unwrap().unwrap().path());
        assert_eq!(matrix.unwrap().lines().next(), Some(format!("layer,{}", names.join(",")).as_str()));
        let index: serde_json::Value = serde_json::from_slice(&fs::read(root.join("out/npy/index.json")).unwrap()).unwrap();
        assert_eq!(index[0]["layers"], json!(names));
        // Read back, and drawn.
        let drawn = ["figures", "out", "--figures", "svg"];
        Run::of(program().args(drawn).current_dir(root).output().unwrap()).exits(0);
        let shown = ["inspect", "adapter", "--base", "base", "--json"];
        let shown = Run::of(program().args(shown).current_dir(root).output().unwrap()).exits(0);
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(shown["adapters"][0]["modules"][0]["layers"][1]["layer"], json!(names[1]));
        // Chosen by name, or by what names start with.
        let start = names[1].rsplit_once('.').unwrap().0;
        let chosen = names.iter().filter(|name| name.starts_with(&format!("{start}."))).count();
        analyse(root, &["--layers", start, "--no-svd"]).exits(0);
        let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
        assert_eq!(conversion.len(), chosen);
        let pair = format!("{},{}", names[0], names[1]);
        analyse(root, &["--grid", &pair, "--no-svd"]).exits(0);
        let grid: Vec<GridRow> = read_rows(&root.join("out/grid.csv")).unwrap();
        assert!(!grid.is_empty() && grid.iter().all(|row| row.layer_a.to_string() == names[0]));
        analyse(root, &["--grid", "0,1", "--no-svd"]).exits(2).says(names[0]);
        // One Θ for all blocks where they are of one width; which of them it is for a checkpoint cannot say.
        let fit = ["fit", "adapter", "--base", "base", "--null-draws", "0", "--overwrite", "-o", "fitted"];
        let of_one_width = blocks.iter().all(|(_, width)| *width == blocks[0].1);
        let done = |more: &[&str]| Run::of(program().args([&fit, more].concat()).current_dir(root).output().unwrap());
        done(&[]).exits(if of_one_width { 0 } else { 5 });
        if of_one_width {
            done(&["--layers", names[0]]).exits(5).says("a CondLoRA of some of its blocks cannot say which");
        }
    }
}

#[test]
fn what_makes_another_w0_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (root, inner) = (folder.path(), square_layers(4, 16, 2));
    write_both(root, &inner, PLAIN);
    for (field, value, says) in [
        ("layer_replication", json!([[0, 3], [1, 4]]), Some("layer_replication; expected null, or layers in their order")),
        ("layer_replication", json!([[0, 2], [2, 4]]), None),
        ("layer_replication", json!(null), None),
        ("use_qalora", json!(true), Some("use_qalora; expected false, found true")),
    ] {
        write_adapter(&root.join("adapter"), &inner, PLAIN, &[(field, value)]);
        match says {
            Some(says) => drop(analyse(root, &[]).exits(5).says(says)),
            None => drop(analyse(root, &[]).exits(0)),
        }
    }
    // What ranks there are is in the tensors.
    write_adapter(&root.join("adapter"), &inner, PLAIN, &[("rank_pattern", json!({ "(?!.*vision).*q_proj": 8 }))]);
    let run = analyse(root, &["-q"]).exits(0);
    assert!(run.stderr.is_empty(), "{}", run.stderr);
    analyse(root, &[]).exits(0).says("has look-around or back-references, which are not read; the tensors' own rank is used");
}

#[test]
fn a_layer_is_missing_only_where_the_base_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let (root, all) = (folder.path(), square_layers(6, 12, 2));
    let chosen = |numbers: &[usize]| numbers.iter().map(|number| all[*number].clone()).collect::<Vec<_>>();
    write_adapter(&root.join("adapter"), &chosen(&[1, 3, 5]), PLAIN, &[]);
    let warned = || analyse(root, &["--null-draws", "0"]).exits(0).stderr.contains("without");
    write_base(&root.join("base"), &chosen(&[1, 3, 5]), PLAIN);
    assert!(!warned());
    write_base(&root.join("base"), &all, PLAIN);
    analyse(root, &[]).exits(0).says("warning: adapter: module `q_proj`: layers 1..5 without 2, 4");
    write_adapter(&root.join("adapter"), &chosen(&[1, 3, 5]), PLAIN, &[("layers_to_transform", json!([1, 3, 5]))]);
    assert!(!warned());
}

/// A module that cannot be used: its layers in the adapter and in the base, and what is said of it.
fn unusable() -> [(&'static str, Vec<Layer>, Vec<Layer>, &'static str); 4] {
    let plain = |path: &str, rows: usize| Layer::new(path, rows, 16, 2);
    let key = |l: usize| plain(&format!("model.layers.{l}.self_attn.k_proj"), 16);
    let mut damaged = key(1);
    damaged.a = Array2::ones((3, 16));
    [
        ("score", vec![plain("score", 2)], vec![], "base weight of `score` is not there"),
        ("lm_head", vec![plain("lm_head", 48)], vec![plain("lm_head", 40)], "expected [40, r] as W0 has 40 rows"),
        ("k_proj", vec![key(0), damaged], vec![key(0), key(1)], "ranks of"),
        ("k_proj", vec![key(0), key(1)], vec![key(1)], "base weight of `model.layers.0.self_attn.k_proj` is not there"),
    ]
}

#[test]
fn a_module_that_cannot_be_used_is_skipped_by_name_and_the_rest_is_done() {
    for (module, adapted, weights, says) in unusable() {
        let folder = tempfile::tempdir().unwrap();
        let (root, inner) = (folder.path(), square_layers(3, 16, 2));
        write_adapter(&root.join("adapter"), &[&inner[..], &adapted].concat(), PLAIN, &[("r", json!(2))]);
        write_base(&root.join("base"), &[&inner[..], &weights].concat(), PLAIN);
        let run = |command: &str, out: &str, more: &[&str]| {
            let mut program = program();
            program.args([command, "adapter", "--base", "base"]).args(more).current_dir(root);
            Run::of(if out.is_empty() { program.output() } else { program.args(["-o", out]).output() }.unwrap())
        };
        let rows = |out: &str| fs::read_to_string(root.join(out).join("similarity.csv")).unwrap();
        run("analyze", "out", &[]).exits(1).says(&format!("warning: adapter: module `{module}`")).says(says);
        agrees_with_the_pseudo_inverse(root, None, &inner, Convention::Paper, TOLERANCE);
        assert!(fs::read_to_string(root.join("out/report.html")).unwrap().contains(says.split('`').next().unwrap()));
        // Where it is not asked for it does no harm.
        let chosen = run("analyze", "chosen", &["--modules", "q_proj", "-q"]).exits(0);
        assert!(chosen.stderr.is_empty() && rows("chosen") == rows("out"), "{}", chosen.stderr);
        run("analyze", "none", &["--modules", module]).exits(5).says(says);
        run("analyze", "strict", &["--strict"]).exits(5).says(says);
        assert!(!root.join("none").exists() && !root.join("strict").exists());
        run("fit", "fitted", &["--null-draws", "0"]).exits(1).says(&format!("module `{module}` skipped: ")).says(says);
        let inspected = run("inspect", "", &[]).exits(1).stdout;
        assert!(inspected.contains(&format!("skipped: module `{module}`")) && inspected.contains(says), "{inspected}");
        let found: serde_json::Value = serde_json::from_str(&run("inspect", "", &["--json"]).exits(1).stdout).unwrap();
        assert_eq!(found["adapters"][0]["skipped"][0]["module"], module);
        // Shards skip it, and what is merged too.
        run("analyze", "parts/1", &["--shard", "1/2"]).exits(1);
        run("analyze", "parts/2", &["--shard", "2/2"]).exits(1);
        let merged = program().args(["merge", "parts/1", "parts/2", "-o", "merged"]).current_dir(root).output().unwrap();
        Run::of(merged).exits(1).says(says);
        assert_eq!(rows("merged"), rows("out"));
        let mut compare = program();
        compare.args(["compare", "adapter", "adapter", "--base", "base", "-o", "compared"]).current_dir(root);
        Run::of(compare.output().unwrap()).exits(1).says(says);
    }
}

#[test]
fn a_matrix_kind_is_there_for_each_module() {
    // Θ_A of a module that is wider than its rank and one that is not, in one run.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_both(root, &[layers("mlp.gate", (2, 16), 4), layers("attn.q_proj", (16, 16), 4)].concat(), PLAIN);
    analyse(root, &["--matrices", "A", "--null-draws", "0"]).exits(0);
    assert!(similarity(root).iter().all(|row| row.matrix == MatrixKind::A && row.phi.is_some()));
}
