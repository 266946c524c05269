//! Experts: factors of several in one tensor, as PEFT and mlx-lm store them, over weights of several in one tensor, over one weight for each, and over gate and
//! up projections apart. Values are held against the pseudo-inverse of each expert's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::table::ConversionRow;
use condlora::table::csv::read_rows;
use condlora::terms::Convention;
use ndarray::{Array2, s};
use serde_json::json;
use shared::checkpoint::{Layer, PLAIN, stored, write_adapter};
use shared::direct::agrees_with_the_pseudo_inverse;
use shared::generate::{Tensor, file};
use shared::program::{Run, program, run_in};

const TOLERANCE: f64 = 1e-9;
const EXPERTS: usize = 3;
const LAYERS: usize = 3;
const RANK: usize = 2;
/// Width of the model, and of the experts.
const WIDTH: usize = 12;
const INNER: usize = 8;

fn analyse(root: &Path) -> Run {
    let more = ["--figures", "none", "--null-draws", "3", "--overwrite", "-o", "out"];
    run_in(root, &[&["adapter", "--base", "base"][..], &more].concat())
}

/// The layers of one expert's projection.
fn expert(module: &str, expert: usize, d_out: usize, d_in: usize) -> Vec<Layer> {
    let path = |layer: usize| format!("model.layers.{layer}.mlp.experts.{expert}.{module}");
    (0..LAYERS).map(|layer| Layer::new(&path(layer), d_out, d_in, RANK)).collect()
}

/// Those of all experts.
fn experts(module: &str, d_out: usize, d_in: usize) -> Vec<Vec<Layer>> {
    (0..EXPERTS).map(|k| expert(module, k, d_out, d_in)).collect()
}

/// A parameter `[experts, rows, columns]` of each layer.
fn stacked_weights(module: &str, experts: &[Vec<Layer>], turned: bool) -> Vec<Tensor> {
    let of_layer = |layer: usize| {
        let weights = experts.iter().map(|layers| {
            let w0 = &layers[layer].w0;
            if turned { w0.t().to_owned() } else { w0.clone() }
        });
        let tensors: Vec<Tensor> = weights.map(|w0| stored("", &w0, "F64")).collect();
        let shape = [&[EXPERTS as u64][..], &tensors[0].shape].concat();
        let bytes = tensors.into_iter().flat_map(|tensor| tensor.bytes).collect();
        Tensor { name: format!("model.layers.{layer}.mlp.experts.{module}"), dtype: "F64", shape, bytes }
    };
    (0..LAYERS).map(of_layer).collect()
}

/// PEFT's two factors of a parameter: rows of A expert by expert, columns of B in turns.
fn stacked_factors(wrapped: &str, experts: &[Vec<Layer>]) -> Vec<Tensor> {
    let of_layer = |layer: usize| {
        let (d_out, d_in) = (experts[0][0].b.nrows(), experts[0][0].a.ncols());
        let (mut a, mut b) = (Array2::zeros((RANK * EXPERTS, d_in)), Array2::zeros((d_out, RANK * EXPERTS)));
        for (k, layers) in experts.iter().enumerate() {
            a.slice_mut(s![k * RANK..(k + 1) * RANK, ..]).assign(&layers[layer].a);
            b.slice_mut(s![.., k..;EXPERTS]).assign(&layers[layer].b);
        }
        let stem = format!("base_model.model.model.layers.{layer}.mlp.experts{wrapped}");
        [stored(&format!("{stem}.lora_A.weight"), &a, "F64"), stored(&format!("{stem}.lora_B.weight"), &b, "F64")]
    };
    (0..LAYERS).flat_map(of_layer).collect()
}

fn write(root: &Path, adapter: &[Tensor], base: &[Tensor], config: &[(&str, serde_json::Value)], model: &str) {
    write_adapter(&root.join("adapter"), &[], PLAIN, config);
    fs::write(root.join("adapter/adapter_model.safetensors"), file(adapter)).unwrap();
    fs::create_dir_all(root.join("base")).unwrap();
    fs::write(root.join("base/model.safetensors"), file(base)).unwrap();
    fs::write(root.join("base/config.json"), json!({ "model_type": model }).to_string()).unwrap();
}

fn single(layers: &[Layer]) -> Vec<Tensor> {
    layers.iter().map(|layer| stored(&format!("{}.weight", layer.path), &layer.w0, "F64")).collect()
}

/// The part of B and of W0 that one projection has of a fused one.
fn half(layers: &[Layer], up: bool) -> Vec<Layer> {
    let rows = if up { INNER..2 * INNER } else { 0..INNER };
    let part = |values: &Array2<f64>| values.slice(s![rows.clone(), ..]).to_owned();
    layers.iter().map(|layer| Layer { w0: part(&layer.w0), b: part(&layer.b), ..layer.clone() }).collect()
}

const PARAMETERS: [&str; 2] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"];

#[test]
fn parameters_of_several_experts_are_a_module_for_each() {
    let (gate_up, down) = (experts("gate_up_proj", 2 * INNER, WIDTH), experts("down_proj", WIDTH, INNER));
    let adapter = [stacked_factors(".base_layer", &gate_up), stacked_factors("", &down)].concat();
    let config = [("r", json!(RANK)), ("lora_alpha", json!(6)), ("target_parameters", json!(PARAMETERS))];
    for turned in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let base = [stacked_weights("gate_up_proj", &gate_up, turned), stacked_weights("down_proj", &down, turned)].concat();
        write(root, &adapter, &base, &config, "qwen3_moe");
        analyse(root).exits(0);
        for k in 0..EXPERTS {
            let name = |module: &str| format!("experts.{k}.{module}");
            agrees_with_the_pseudo_inverse(root, Some(&name("gate_up_proj")), &gate_up[k], Convention::General, TOLERANCE);
            agrees_with_the_pseudo_inverse(root, Some(&name("down_proj")), &down[k], Convention::General, TOLERANCE);
        }
        let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
        assert_eq!(conversion.len(), 2 * EXPERTS * LAYERS);
        assert!(conversion.iter().all(|row| (row.rank, row.scaling) == (RANK, 3.0)));
        assert!(conversion.iter().any(|row| row.tensor == "model.layers.1.mlp.experts.down_proj[2]"));
        // Only the experts' own values are read.
        let shown = Run::of(program().args(["inspect", "adapter", "--base", "base"]).current_dir(root).output().unwrap());
        assert!(shown.exits(0).stdout.contains("experts.2.gate_up_proj"));
    }
}

#[test]
fn square_parameters_are_read_as_the_model_has_them() {
    let down = experts("down_proj", WIDTH, WIDTH);
    let config = [("r", json!(RANK)), ("target_parameters", json!(["mlp.experts.down_proj"]))];
    for (model, turned) in [("gpt_oss", true), ("qwen3_moe", false)] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, &stacked_factors("", &down), &stacked_weights("down_proj", &down, turned), &config, model);
        let run = analyse(root).exits(0);
        assert!(!run.stderr.contains("fan_in_fan_out"), "{}", run.stderr);
        for (k, layers) in down.iter().enumerate() {
            agrees_with_the_pseudo_inverse(root, Some(&format!("experts.{k}.down_proj")), layers, Convention::Paper, TOLERANCE);
        }
    }
}

#[test]
fn a_fused_parameter_over_weights_apart_is_split_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (gate_up, down) = (experts("gate_up_proj", 2 * INNER, WIDTH), experts("down_proj", WIDTH, INNER));
    let adapter = [stacked_factors(".base_layer", &gate_up), stacked_factors("", &down)].concat();
    for (model, block, [gate, up, last]) in
        [("qwen3_moe", "mlp", ["gate_proj", "up_proj", "down_proj"]), ("mixtral", "block_sparse_moe", ["w1", "w3", "w2"])]
    {
        let renamed = |layers: &[Layer], from: &str, to: &str| -> Vec<Tensor> {
            let path = |layer: &Layer| layer.path.replace(".mlp.", &format!(".{block}.")).replace(from, to);
            single(&layers.iter().map(|layer| Layer { path: path(layer), ..layer.clone() }).collect::<Vec<_>>())
        };
        let mut base = Vec::new();
        for k in 0..EXPERTS {
            base.extend(renamed(&half(&gate_up[k], false), "gate_up_proj", gate));
            base.extend(renamed(&half(&gate_up[k], true), "gate_up_proj", up));
            base.extend(renamed(&down[k], "down_proj", last));
        }
        // A rank and an α of its own for one of the parameters are found by its name.
        let config = [
            ("r", json!(1)),
            ("lora_alpha", json!(1)),
            ("rank_pattern", json!({r".*\.gate_up_proj": RANK, r".*\.down_proj": RANK})),
            ("alpha_pattern", json!({r".*\.gate_up_proj": 8})),
            // As PEFT writes them where all linear layers were asked for too.
            (
                "target_parameters",
                json!(["experts.down_proj", "gate.weight", "experts.gate_up_proj", "down_proj", "gate_up_proj"]),
            ),
        ];
        write(root, &adapter, &base, &config, model);
        analyse(root).exits(0);
        for k in 0..EXPERTS {
            let name = |module: &str| format!("experts.{k}.{module}");
            for (part, up) in [("gate_up_proj.gate", false), ("gate_up_proj.up", true)] {
                agrees_with_the_pseudo_inverse(root, Some(&name(part)), &half(&gate_up[k], up), Convention::General, TOLERANCE);
            }
            agrees_with_the_pseudo_inverse(root, Some(&name("down_proj")), &down[k], Convention::General, TOLERANCE);
        }
        let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
        let scaling = |row: &ConversionRow| if row.module.contains("gate_up") { 4.0 } else { 0.5 };
        assert!(
            conversion.len() == 3 * EXPERTS * LAYERS && conversion.iter().all(|row| row.scaling == scaling(row)),
            "{conversion:?}"
        );
    }
}

#[test]
fn mlx_stacks_the_experts_of_a_switch() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let up = experts("up_proj", INNER, WIDTH);
    let stack = |values: Vec<&Array2<f64>>, name: String| {
        let tensors: Vec<Tensor> = values.into_iter().map(|values| stored("", values, "F64")).collect();
        let shape = [&[EXPERTS as u64][..], &tensors[0].shape].concat();
        Tensor { name, dtype: "F64", shape, bytes: tensors.into_iter().flat_map(|tensor| tensor.bytes).collect() }
    };
    let of_layer = |layer: usize| {
        let stem = format!("model.layers.{layer}.mlp.switch_mlp.up_proj");
        let each = |factor: fn(&Layer) -> &Array2<f64>| up.iter().map(|layers| factor(&layers[layer])).collect::<Vec<_>>();
        [stack(each(|layer| &layer.a), format!("{stem}.lora_a")), stack(each(|layer| &layer.b), format!("{stem}.lora_b"))]
    };
    let adapter: Vec<Tensor> = (0..LAYERS).flat_map(of_layer).collect();
    fs::create_dir_all(root.join("adapter")).unwrap();
    fs::write(root.join("adapter/adapters.safetensors"), file(&adapter)).unwrap();
    fs::create_dir_all(root.join("base")).unwrap();
    let stacked = |layer: usize| {
        stack(up.iter().map(|layers| &layers[layer].w0).collect(), format!("model.layers.{layer}.mlp.switch_mlp.up_proj.weight"))
    };
    let apart = up.iter().flat_map(|layers| single(layers)).collect();
    for base in [apart, (0..LAYERS).map(stacked).collect::<Vec<_>>()] {
        fs::write(root.join("base/model.safetensors"), file(&base)).unwrap();
        analyse(root).exits(0);
        for (k, layers) in up.iter().enumerate() {
            agrees_with_the_pseudo_inverse(root, Some(&format!("experts.{k}.up_proj")), layers, Convention::General, TOLERANCE);
        }
    }
}

#[test]
fn a_stack_that_is_not_divided_by_the_rank_is_skipped_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let down = experts("down_proj", WIDTH, INNER);
    let router: Vec<Layer> = (0..LAYERS).map(|l| Layer::new(&format!("model.layers.{l}.mlp.gate"), WIDTH, WIDTH, RANK)).collect();
    let factors: Vec<Tensor> = router
        .iter()
        .flat_map(|layer| {
            let name = |factor: &str| format!("base_model.model.{}.lora_{factor}.weight", layer.path);
            [stored(&name("A"), &layer.a, "F64"), stored(&name("B"), &layer.b, "F64")]
        })
        .collect();
    let base = [stacked_weights("down_proj", &down, false), single(&router)].concat();
    let adapter = [stacked_factors("", &down), factors].concat();
    let config = [
        ("r", json!(RANK)),
        ("rank_pattern", json!({"mlp.experts.down_proj": 4})),
        ("target_parameters", json!(["mlp.experts.down_proj"])),
    ];
    write(root, &adapter, &base, &config, "qwen3_moe");
    analyse(root).exits(1).says("module `experts` in 3 layers skipped");
    agrees_with_the_pseudo_inverse(root, Some("gate"), &router, Convention::Paper, TOLERANCE);
}
