//! LoRA files of image models by whoever wrote them, over one model, over another's names, and over a pipeline of several models. Values are held against the
//! pseudo-inverse.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::table::ConversionRow;
use condlora::table::csv::read_rows;
use condlora::terms::Convention;
use serde_json::{Value, json};
use shared::checkpoint::{Layer, PLAIN, stored, write_base};
use shared::direct::agrees_with_the_pseudo_inverse;
use shared::generate::{Tensor, file};
use shared::program::{Run, program, run_in};

const TOLERANCE: f64 = 1e-9;

fn analyse(root: &Path, base: &str) -> Run {
    let more = ["--figures", "none", "--no-svd", "--null-draws", "0", "--overwrite", "-o", "out"];
    run_in(root, &[&["adapter", "--base", base][..], &more].concat())
}

fn inspect(root: &Path, arguments: &[&str]) -> Value {
    let words = [&["inspect", "adapter", "--json"][..], arguments].concat();
    let run = Run::of(program().args(words).current_dir(root).output().unwrap()).exits(0);
    serde_json::from_str(&run.stdout).unwrap()
}

fn conversion(root: &Path) -> Vec<ConversionRow> {
    read_rows(&root.join("out/conversion.csv")).unwrap()
}

/// Blocks of a UNet, by Diffusers' names.
fn unet() -> Vec<Layer> {
    let blocks =
        ["down_blocks.1.attentions.0", "down_blocks.2.attentions.1", "mid_block.attentions.0", "up_blocks.0.attentions.2"];
    blocks.iter().map(|block| Layer::new(&format!("{block}.transformer_blocks.0.attn1.to_q"), 16, 16, 2)).collect()
}

/// Writes the factors of layers, each by the name that its path gets, with an α or without.
fn write_file(path: &Path, layers: &[Layer], names: [&dyn Fn(&str) -> String; 2], alpha: Option<&dyn Fn(&str) -> String>) {
    let tensors = tensors_of(layers, names, alpha);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, file(&tensors)).unwrap();
}

fn tensors_of(layers: &[Layer], names: [&dyn Fn(&str) -> String; 2], alpha: Option<&dyn Fn(&str) -> String>) -> Vec<Tensor> {
    let of_layer = |layer: &Layer| {
        let alpha = alpha.map(|name| Tensor {
            name: name(&layer.path),
            dtype: "F32",
            shape: vec![],
            bytes: 8_f32.to_le_bytes().to_vec(),
        });
        let [down, up] = names.map(|name| name(&layer.path));
        [Some(stored(&down, &layer.a, "F64")), Some(stored(&up, &layer.b, "F64")), alpha]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    layers.iter().flat_map(of_layer).collect()
}

/// A file with notes in its header.
fn with_metadata(bytes: &[u8], metadata: &Value) -> Vec<u8> {
    let len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + len]).unwrap();
    let header = format!("{{\"__metadata__\":{metadata},{}", &header[1..]);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + len..]].concat()
}

type Name = fn(&str) -> String;
/// How the factors of a path are called.
type Names<'a> = [&'a dyn Fn(&str) -> String; 2];

/// Who writes: names of A and B, and of α where there is one.
const FORMATS: [(&str, Name, Name, Option<Name>); 9] = [
    (
        "sd-scripts",
        |p| format!("lora_unet_{}.lora_down.weight", flat(p)),
        |p| format!("lora_unet_{}.lora_up.weight", flat(p)),
        Some(|p| format!("lora_unet_{}.alpha", flat(p))),
    ),
    ("bare parameters", |p| format!("lora_unet_{}.lora_A", flat(p)), |p| format!("lora_unet_{}.lora_B", flat(p)), None),
    (
        "the original code's blocks",
        |p| format!("lora_unet_{}.lora_down.weight", flat(&original(p))),
        |p| format!("lora_unet_{}.lora_up.weight", flat(&original(p))),
        None,
    ),
    ("Diffusers to 0.21", |p| processor(p, "down"), |p| processor(p, "up"), None),
    ("Diffusers to 0.25", |p| format!("unet.{p}.lora.down.weight"), |p| format!("unet.{p}.lora.up.weight"), None),
    ("Diffusers since", |p| format!("unet.{p}.lora_A.weight"), |p| format!("unet.{p}.lora_B.weight"), None),
    (
        "PEFT without a configuration",
        |p| format!("base_model.model.{p}.lora_A.weight"),
        |p| format!("base_model.model.{p}.lora_B.weight"),
        None,
    ),
    ("PEFT's state", |p| format!("{p}.lora_A.default.weight"), |p| format!("{p}.lora_B.default.weight"), None),
    (
        "ComfyUI",
        |p| format!("diffusion_model.{}.lora_down.weight", original(p)),
        |p| format!("diffusion_model.{}.lora_up.weight", original(p)),
        Some(|p| format!("diffusion_model.{}.alpha", original(p))),
    ),
];

fn flat(path: &str) -> String {
    path.replace('.', "_")
}

fn processor(path: &str, which: &str) -> String {
    let (head, module) = path.rsplit_once('.').unwrap();
    format!("{head}.processor.{module}_lora.{which}.weight")
}

/// The names of the original code for the blocks of [`unet`].
fn original(path: &str) -> String {
    let names = [
        ("down_blocks.1.attentions.0", "input_blocks.4.1"),
        ("down_blocks.2.attentions.1", "input_blocks.8.1"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("up_blocks.0.attentions.2", "output_blocks.2.1"),
    ];
    let (from, to) = names.iter().find(|(from, _)| path.starts_with(from)).unwrap();
    path.replacen(from, to, 1)
}

#[test]
fn a_file_is_read_whoever_wrote_it_and_whatever_the_base_calls_its_blocks() {
    let layers = unet();
    for (who, down, up, alpha) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let alpha = alpha.as_ref().map(|name| name as &dyn Fn(&str) -> String);
        write_file(&root.join("adapter/any name.safetensors"), &layers, [&down, &up], alpha);
        let renamed = |name: &dyn Fn(&str) -> String| -> Vec<Layer> {
            layers.iter().map(|layer| Layer { path: name(&layer.path), ..layer.clone() }).collect()
        };
        let bases = [
            ("diffusers", layers.clone()),
            ("original", renamed(&|path| format!("model.diffusion_model.{}", original(path)))),
            ("wrapped", renamed(&|path| format!("unet.{path}"))),
        ];
        for (base, inner) in bases {
            write_base(&root.join(base), &inner, PLAIN);
            analyse(root, base).exits(0);
            agrees_with_the_pseudo_inverse(root, None, &inner, Convention::Paper, TOLERANCE);
            let rows = conversion(root);
            assert_eq!(rows.len(), layers.len(), "{who} on {base}");
            let scaling = if alpha.is_some() { 4.0 } else { 1.0 };
            assert!(rows.iter().all(|row| row.scaling == scaling && row.adapter == "any name"), "{who} on {base}: {rows:?}");
        }
        // Without a base there are its modules, shapes and ranks.
        let shown = inspect(root, &[]);
        let module = &shown["adapters"][0]["modules"][0];
        assert_eq!(
            (&module["layers"][3]["rank"], &module["layers"][3]["in_features"]),
            (&json!(2), &json!(16)),
            "{who}: {shown}"
        );
        assert_eq!((shown["adapters"][0]["modules"].as_array().unwrap().len(), &shown["refused"]), (1, &json!(0)), "{who}");
    }
}

#[test]
fn attention_processors_of_flux_are_the_projections_of_its_two_streams() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let inner = |stream: &str| -> Vec<Layer> {
        (0..3).map(|l| Layer::new(&format!("double_blocks.{l}.{stream}_attn.qkv"), 48, 16, 2)).collect()
    };
    let (image, text) = (inner("img"), inner("txt"));
    fs::create_dir_all(root.join("base")).unwrap();
    write_base(&root.join("made"), &[&image[..], &text[..]].concat(), PLAIN);
    // The only file of a folder is the model, whatever its name.
    fs::rename(root.join("made/model.safetensors"), root.join("base/flux1-dev.safetensors")).unwrap();
    let name = |path: &str, which: &str| {
        let block = path.split(".img_attn").next().unwrap().split(".txt_attn").next().unwrap();
        format!("{block}.processor.qkv_lora{}.{which}.weight", if path.contains("img") { 1 } else { 2 })
    };
    let all = [&image[..], &text[..]].concat();
    write_file(&root.join("adapter/lora.safetensors"), &all, [&|path| name(path, "down"), &|path| name(path, "up")], None);
    analyse(root, "base").exits(0);
    agrees_with_the_pseudo_inverse(root, Some("img_attn.qkv"), &image, Convention::General, TOLERANCE);
    agrees_with_the_pseudo_inverse(root, Some("txt_attn.qkv"), &text, Convention::General, TOLERANCE);
    fs::write(root.join("base/second.safetensors"), file(&[])).unwrap();
    analyse(root, "base").exits(3).says("has no model weights");
}

/// Text encoders of a pipeline: modules of the same names, and of other sizes or not.
fn text_encoder(which: &str, width: usize) -> Vec<Layer> {
    let path = |l: usize| format!("{which}.text_model.encoder.layers.{l}.self_attn.q_proj");
    (0..3).map(|l| Layer::new(&path(l), width, width, 2)).collect()
}

fn pipeline(root: &Path, models: &[(&str, &[Layer])]) {
    fs::create_dir_all(root.join("pipeline/scheduler")).unwrap();
    fs::write(root.join("pipeline/model_index.json"), r#"{"_class_name": "StableDiffusionXLPipeline"}"#).unwrap();
    for (folder, layers) in models {
        let own =
            |layer: &Layer| Layer { path: layer.path.strip_prefix(&format!("{folder}.")).unwrap().to_owned(), ..layer.clone() };
        write_base(&root.join("pipeline").join(folder), &layers.iter().map(own).collect::<Vec<_>>(), PLAIN);
    }
}

#[test]
fn a_file_of_several_models_is_read_over_each_of_them_and_over_their_pipeline() {
    for (first, second) in [(12, 20), (12, 12)] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let unet: Vec<Layer> = unet().into_iter().map(|layer| Layer { path: format!("unet.{}", layer.path), ..layer }).collect();
        let (one, two) = (text_encoder("text_encoder", first), text_encoder("text_encoder_2", second));
        pipeline(root, &[("text_encoder", &one), ("text_encoder_2", &two), ("unet", &unet)]);
        let all = [&unet[..], &one[..], &two[..]].concat();
        let kohya = |path: &str| {
            let (model, rest) = path.split_once('.').unwrap();
            let family = match model {
                "unet" => "unet",
                "text_encoder" => "te1",
                _ => "te2",
            };
            format!("lora_{family}_{}", flat(rest))
        };
        let formats: [Names<'_>; 2] = [
            [&|path| format!("{path}.lora_A.weight"), &|path| format!("{path}.lora_B.weight")],
            [&|path| format!("{}.lora_down.weight", kohya(path)), &|path| format!("{}.lora_up.weight", kohya(path))],
        ];
        for (names, family) in formats.into_iter().zip(["text_encoder_2", "lora_te2_"]) {
            write_file(&root.join("adapter/pytorch_lora_weights.safetensors"), &all, names, None);
            let run = analyse(root, "pipeline").exits(0);
            assert!(!run.stderr.contains("skipped"), "{}", run.stderr);
            agrees_with_the_pseudo_inverse(root, Some("to_q"), &unet, Convention::Paper, TOLERANCE);
            let [of_one, of_two] =
                ["text_encoder", "text_encoder_2"].map(|m| format!("{m}.text_model.encoder.layers.*.self_attn.q_proj"));
            agrees_with_the_pseudo_inverse(root, Some(&of_one), &one, Convention::Paper, TOLERANCE);
            agrees_with_the_pseudo_inverse(root, Some(&of_two), &two, Convention::Paper, TOLERANCE);
            assert_eq!(conversion(root).len(), 10);
            // One of its models: the others are skipped by name. Encoders of one size cannot be told apart, but by the file's own names.
            let run = analyse(root, "pipeline/unet").exits(0).says("3 modules `").says("*` are skipped");
            assert!(run.stderr.contains(&format!("`{family}*`")), "{}", run.stderr);
            assert_eq!(conversion(root).len(), 4);
            if first != second {
                analyse(root, "pipeline/text_encoder").exits(0).says(&format!("3 modules `{family}*` are skipped"));
                agrees_with_the_pseudo_inverse(root, None, &one, Convention::Paper, TOLERANCE);
            }
        }
        fs::remove_dir_all(root.join("pipeline/unet")).unwrap();
        analyse(root, "pipeline").exits(0).says("4 modules `lora_unet_*` are skipped");
        for encoder in ["text_encoder", "text_encoder_2"] {
            fs::remove_dir_all(root.join("pipeline").join(encoder)).unwrap();
        }
        analyse(root, "pipeline").exits(3).says("none of its models is there");
    }
}

#[test]
fn alpha_is_a_tensor_or_in_the_header_s_notes_or_the_rank() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = unet();
    write_base(&root.join("base"), &layers, PLAIN);
    let dotted: [&dyn Fn(&str) -> String; 2] = [&|p| format!("unet.{p}.lora_A.weight"), &|p| format!("unet.{p}.lora_B.weight")];
    let kohya: [&dyn Fn(&str) -> String; 2] =
        [&|p| format!("lora_unet_{}.lora_down.weight", flat(p)), &|p| format!("lora_unet_{}.lora_up.weight", flat(p))];
    let noted = |fields: Value| json!({ "lora_adapter_metadata": fields.to_string() });
    let pattern = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    fs::create_dir_all(root.join("adapter")).unwrap();
    for (names, metadata, expected) in [
        (dotted, json!({}), [1.0, 1.0]),
        (dotted, noted(json!({"unet.lora_alpha": 16, "unet.r": 2})), [8.0, 8.0]),
        (dotted, noted(json!({"lora_alpha": 4.0})), [2.0, 2.0]),
        (dotted, noted(json!({"unet.lora_alpha": 16, "unet.use_rslora": true})), [16.0 / 2_f64.sqrt(); 2]),
        (dotted, noted(json!({"unet.lora_alpha": 16, "unet.alpha_pattern": {pattern: 6}})), [3.0, 8.0]),
        (dotted, json!({"lora_adapter_metadata": "no json"}), [1.0, 1.0]),
        (kohya, json!({"ss_network_alpha": "1.0", "ss_network_dim": "2"}), [0.5, 0.5]),
        (kohya, json!({"ss_network_alpha": "None"}), [1.0, 1.0]),
    ] {
        let bytes = with_metadata(&file(&tensors_of(&layers, names, None)), &metadata);
        fs::write(root.join("adapter/style.safetensors"), bytes).unwrap();
        analyse(root, "base").exits(0);
        let scaling: Vec<f64> = conversion(root).iter().map(|row| row.scaling).collect();
        assert_eq!(scaling, [expected[0], expected[1], expected[1], expected[1]], "{metadata}");
    }
}

#[test]
fn a_convolution_is_the_matrix_that_it_applies_to_each_patch() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Kernels of 3x3 on 4 channels: 36 columns.
    let layers: Vec<Layer> = (0..3).map(|b| Layer::new(&format!("down_blocks.{b}.resnets.0.conv1"), 8, 36, 2)).collect();
    let kernel = |name: String, matrix: &ndarray::Array2<f64>, shape: [u64; 4]| Tensor {
        shape: shape.to_vec(),
        ..stored(&name, matrix, "F64")
    };
    let base: Vec<Tensor> =
        layers.iter().map(|layer| kernel(format!("{}.weight", layer.path), &layer.w0, [8, 4, 3, 3])).collect();
    fs::create_dir_all(root.join("base")).unwrap();
    fs::write(root.join("base/diffusion_pytorch_model.safetensors"), file(&base)).unwrap();
    let adapter = |channels: u64| -> Vec<Tensor> {
        let of = |layer: &Layer| {
            let stem = format!("lora_unet_{}", flat(&layer.path));
            let a = layer.a.slice(ndarray::s![.., ..9 * channels as usize]).to_owned();
            let down = kernel(format!("{stem}.lora_down.weight"), &a, [2, channels, 3, 3]);
            [down, kernel(format!("{stem}.lora_up.weight"), &layer.b, [8, 2, 1, 1])]
        };
        layers.iter().flat_map(of).collect()
    };
    fs::create_dir_all(root.join("adapter")).unwrap();
    fs::write(root.join("adapter/locon.safetensors"), file(&adapter(4))).unwrap();
    analyse(root, "base").exits(0);
    agrees_with_the_pseudo_inverse(root, Some("conv1"), &layers, Convention::General, TOLERANCE);
    // Of a grouped convolution each group has its own inputs: W0 has fewer columns than A.
    let grouped: Vec<Tensor> = layers
        .iter()
        .map(|layer| kernel(format!("{}.weight", layer.path), &layer.w0.slice(ndarray::s![.., ..18]).to_owned(), [8, 2, 3, 3]))
        .collect();
    fs::write(root.join("base/diffusion_pytorch_model.safetensors"), file(&grouped)).unwrap();
    analyse(root, "base").exits(5).says("grouped convolution");
}

#[test]
fn pairs_of_tensors_with_unknown_names_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = unet();
    write_base(&root.join("base"), &layers, PLAIN);
    let mut tensors = tensors_of(&layers, [&|p| format!("unet.{p}.lora_A.weight"), &|p| format!("unet.{p}.lora_B.weight")], None);
    let odd = Layer::new("odd", 16, 16, 2);
    tensors.extend([stored("unet.mystery.first.weight", &odd.a, "F64"), stored("unet.mystery.second.weight", &odd.b, "F64")]);
    // A head that was trained in full is none.
    tensors.extend([stored("head.dense.weight", &odd.w0, "F64"), stored("head.out.weight", &odd.a, "F64")]);
    fs::create_dir_all(root.join("adapter")).unwrap();
    fs::write(root.join("adapter/style.safetensors"), file(&tensors)).unwrap();
    let warning = "2 tensors have the shapes of LoRA factors and names that are not known, and are not used: \
                   unet.mystery.first.weight, unet.mystery.second.weight";
    analyse(root, "base").exits(0).says(warning);
    let shown = inspect(root, &["--base", "base"]);
    assert_eq!(shown["adapters"][0]["unused_factors"], json!(["unet.mystery.first.weight", "unet.mystery.second.weight"]));
    assert_eq!(shown["adapters"][0]["ignored_tensors"], json!(4));
}
