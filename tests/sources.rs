//! Where weights come from: the same weights give the same bytes in every table, in any format, number of files and location.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use shared::checkpoint::{Layer, PLAIN, square_layers, stored, write_adapter, write_base, write_both};
use shared::generate::{Tensor, f32_tensor, file};
use shared::pickled;
use shared::program::{Run, analyze, tables};

const ADAPTER: &str = "adapter_model.safetensors";
const BASE: &str = "model.safetensors";

/// Analyses `adapter` below a directory that has its own cache and nothing else of the Hub's.
fn run(root: &Path, adapter: &str, more: &[&str]) -> Run {
    let mut command = analyze([adapter, "-o", "out", "--overwrite", "--figures", "none", "--null-draws", "2"]);
    command.args(more).current_dir(root).env("HOME", root).env_remove("XDG_CACHE_HOME");
    Run::of(command.output().unwrap())
}

/// Every table of an analysis that must succeed.
#[track_caller]
fn analysed(root: &Path, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    run(root, "adapter", more).exits(0);
    let tables = tables(&root.join("out"));
    assert!(tables.len() > 4 && tables["similarity.csv"].len() > 300);
    tables
}

fn manifest(root: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(root.join("out/manifest.json")).unwrap()).unwrap()
}

/// The tensors of a base with more in it than the layers that are adapted.
fn base_tensors(layers: &[Layer], more: usize) -> Vec<Tensor> {
    let adapted = layers.iter().map(|layer| stored(&format!("{}.weight", layer.path), &layer.w0, "F64"));
    adapted.chain((0..more).map(|at| f32_tensor(&format!("model.extra.{at}.bias"), &[64, 64]))).collect()
}

/// Writes tensors into shards, dealt out in turn, and the index of these.
fn write_shards(dir: &Path, tensors: &[Tensor], count: usize, pickle: bool) {
    fs::create_dir_all(dir).unwrap();
    let (stem, end) = if pickle { ("pytorch_model", "bin") } else { ("model", "safetensors") };
    let mut map = serde_json::Map::new();
    for number in 0..count {
        let name = format!("{stem}-{:05}-of-{count:05}.{end}", number + 1);
        let mine: Vec<Tensor> = tensors.iter().skip(number).step_by(count).cloned().collect();
        map.extend(mine.iter().map(|tensor| (tensor.name.clone(), name.clone().into())));
        fs::write(dir.join(&name), if pickle { pickled::file(&mine) } else { file(&mine) }).unwrap();
    }
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(dir.join(format!("{stem}.{end}.index.json")), index.to_string()).unwrap();
}

#[test]
fn adapters_in_pickles_give_the_same_tables_and_safetensors_wins() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 24, 4);
    write_both(root, &layers, PLAIN);
    let expected = analysed(root, &["--base", "base"]);
    let plain = root.join("adapter").join(ADAPTER);
    let tensors: Vec<Tensor> = layers
        .iter()
        .flat_map(|layer| {
            let stem = format!("base_model.model.{}", layer.path);
            [stored(&format!("{stem}.lora_A.weight"), &layer.a, "F64"), stored(&format!("{stem}.lora_B.weight"), &layer.b, "F64")]
        })
        .collect();
    fs::write(root.join("adapter/adapter_model.bin"), b"not looked at").unwrap();
    assert_eq!(analysed(root, &["--base", "base"]), expected);
    fs::remove_file(plain).unwrap();
    fs::write(root.join("adapter/adapter_model.bin"), pickled::file(&tensors)).unwrap();
    assert_eq!(analysed(root, &["--base", "base"]), expected);
    assert!(manifest(root)["inputs"].to_string().contains("adapter_model.bin"));
}

#[test]
fn bases_in_shards_and_pickles_give_the_same_tables() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 24, 4);
    write_both(root, &layers, PLAIN);
    let expected = analysed(root, &["--base", "base"]);
    let tensors = base_tensors(&layers, 5);
    let at = |name: &str| root.join(name);
    write_shards(&at("sharded"), &tensors, 3, false);
    write_shards(&at("pickled-shards"), &tensors, 2, true);
    for (name, bytes) in
        [("pickle/pytorch_model.bin", pickled::file(&tensors)), ("diffusion/diffusion_pytorch_model.safetensors", file(&tensors))]
    {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), bytes).unwrap();
    }
    for base in [
        "sharded",
        "sharded/model.safetensors.index.json",
        "pickled-shards",
        "pickled-shards/pytorch_model.bin.index.json",
        "pickle",
        "pickle/pytorch_model.bin",
        "diffusion",
        "diffusion/diffusion_pytorch_model.safetensors",
    ] {
        assert_eq!(analysed(root, &["--base", base]), expected, "{base}");
    }
    analysed(root, &["--base", "sharded"]);
    let inputs = manifest(root)["inputs"].as_array().unwrap().clone();
    let headers = inputs.iter().filter(|input| input["tensor"].is_null() && input["file"].to_string().contains("sharded/model"));
    // The index and three shards.
    assert_eq!(headers.count(), 4);
}

#[test]
fn no_more_of_a_base_is_read_than_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(2, 32, 2);
    write_both(root, &layers, PLAIN);
    let tensors = base_tensors(&layers, 200);
    let index = |base: &str| root.join(base).join("model.safetensors.index.json");
    write_shards(&root.join("sharded"), &tensors, 4, false);
    assert!(index("sharded").exists());
    let said = run(root, "adapter", &["--base", "sharded", "-v"]).exits(0);
    let header = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        (8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()), bytes.len() as u64)
    };
    let shards = (1..=4).map(|number| root.join(format!("sharded/model-{number:05}-of-00004.safetensors")));
    let files: Vec<(u64, u64)> = shards.chain([root.join("adapter").join(ADAPTER)]).map(|path| header(&path)).collect();
    let headers: u64 = files.iter().map(|(header, _)| header).sum();
    let (weights, factors) = (2 * 32 * 32 * 8, 2 * 2 * (2 * 32) * 8);
    // The factors once to solve for them, and once to compare them with their weights.
    let needed = headers + weights + 2 * factors;
    assert_eq!(manifest(root)["bytes_read"], needed);
    let held: u64 = files.iter().map(|(_, len)| len).sum();
    assert!(held > 20 * needed, "{held} {needed}");
    said.says(&format!("weight files: {needed} bytes read of {held}"));
}

#[test]
fn many_shards_need_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(2, 24, 2);
    write_both(root, &layers, PLAIN);
    write_shards(&root.join("sharded"), &base_tensors(&layers, 300), 150, false);
    let script = format!(
        "ulimit -n 40 && exec {} analyze adapter --base sharded -o out --figures none --threads 2",
        env!("CARGO_BIN_EXE_condlora")
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(root).output().unwrap();
    Run::of(output).exits(0);
}

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// Writes a base into a cache as `huggingface_hub` does: the files are links into `blobs`.
fn cache(hub: &Path, folder: &str, reference: Option<&str>, hash: &str, layers: &[Layer]) {
    let model = hub.join(folder);
    let snapshot = model.join("snapshots").join(hash);
    fs::create_dir_all(&snapshot).unwrap();
    write_base(&model.join("blobs"), layers, PLAIN);
    fs::rename(model.join("blobs").join(BASE), model.join("blobs").join(hash)).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{hash}"), snapshot.join(BASE)).unwrap();
    if let Some(reference) = reference {
        fs::create_dir_all(model.join("refs")).unwrap();
        fs::write(model.join("refs").join(reference), format!("{hash}\n")).unwrap();
    }
}

#[test]
fn a_base_is_found_in_the_cache_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(2, 24, 2);
    write_both(root, &layers, PLAIN);
    let expected = analysed(root, &["--base", "base"]);
    fs::remove_dir_all(root.join("base")).unwrap();
    let named = |name: &str, revision: Option<&str>| {
        let more = [("base_model_name_or_path", name.into()), ("revision", revision.map_or(serde_json::Value::Null, Into::into))];
        write_adapter(&root.join("adapter"), &layers, PLAIN, &more);
    };
    let other = square_layers(2, 24, 3);
    let changed: Vec<Layer> = other.iter().map(|layer| Layer { w0: layer.w0.clone() * 2.0 + 1.0, ..layer.clone() }).collect();
    let hub = root.join(".cache/huggingface/hub");
    cache(&hub, "models--org--tiny-model", Some("main"), HASH, &layers);
    cache(&hub, "models--org--tiny-model", Some("v1"), &HASH.replace('0', "f"), &changed);
    cache(&hub, "models--gpt2", Some("main"), HASH, &layers);

    for name in ["org/tiny-model", "gpt2"] {
        named(name, None);
        assert_eq!(analysed(root, &[]), expected, "{name}");
        // No warning that another base was given: the snapshot goes by the model's name.
        assert!(!run(root, "adapter", &[]).exits(0).stderr.contains("warning"));
        named("elsewhere", None);
        assert_eq!(analysed(root, &["--base", name]), expected, "{name}");
    }
    named("org/tiny-model", Some("v1"));
    assert_ne!(analysed(root, &[]), expected);
    named("org/tiny-model", Some(HASH));
    assert_eq!(analysed(root, &[]), expected);
    named("org/tiny-model", Some("v2"));
    run(root, "adapter", &[]).exits(3).says("models--org--tiny-model/refs/v2");

    // Each variable moves the cache.
    fs::create_dir_all(root.join("moved/huggingface")).unwrap();
    fs::rename(&hub, root.join("moved/huggingface/hub")).unwrap();
    named("org/tiny-model", None);
    run(root, "adapter", &[]).exits(3).says(".cache/huggingface/hub/models--org--tiny-model");
    for (variable, place) in
        [("XDG_CACHE_HOME", "moved"), ("HF_HOME", "moved/huggingface"), ("HF_HUB_CACHE", "moved/huggingface/hub")]
    {
        let mut command = analyze(["adapter", "-o", "out", "--overwrite", "--figures", "none", "--null-draws", "2"]);
        command.current_dir(root).env("HOME", root).env_remove("XDG_CACHE_HOME").env(variable, root.join(place));
        Run::of(command.output().unwrap()).exits(0);
        assert_eq!(tables(&root.join("out")), expected, "{variable}");
    }
}

#[test]
fn what_is_not_in_the_cache_is_told_with_the_way_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_both(root, &square_layers(2, 24, 2), PLAIN);
    let said = run(root, "adapter", &["--base", "org/none"]).exits(3);
    said.says("error: org/none: does not exist, and neither does")
        .says(".cache/huggingface/hub/models--org--none")
        .says("hint: download it with `hf download org/none`");
    run(root, "adapter", &["--base", "bsae"]).exits(3).says("hint: did you mean base?");
    run(root, "adapter", &["--base", "../org/none"]).exits(3).says("error: ../org/none: does not exist\n");
    write_adapter(&root.join("adapter"), &square_layers(2, 24, 2), PLAIN, &[("base_model_name_or_path", "org/none".into())]);
    let said = run(root, "adapter", &[]).exits(3);
    said.says("adapter_config.json: names the base model `org/none`").says("models--org--none").says("hf download org/none");
}

/// The tables without the names that tensors have in the adapter's file, which is all that may differ between formats.
fn without_keys(mut tables: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let text = String::from_utf8(tables.remove("conversion.csv").unwrap()).unwrap();
    let at = text.lines().next().unwrap().split(',').position(|column| column == "adapter_key").unwrap();
    let lines = text.lines().map(|line| {
        let fields: Vec<&str> = line.split(',').enumerate().filter(|(index, _)| *index != at).map(|(_, field)| field).collect();
        fields.join(",")
    });
    let text: Vec<String> = lines.collect();
    tables.insert("conversion.csv".to_owned(), text.join("\n").into_bytes());
    tables
}

/// A config with this α makes `s` of a PEFT adapter of rank 4; its tables are what the same weights must give in any format.
fn as_peft(root: &Path, layers: &[Layer], alpha: f64) -> BTreeMap<String, Vec<u8>> {
    let _ = fs::remove_dir_all(root.join("adapter"));
    write_adapter(&root.join("adapter"), layers, PLAIN, &[("lora_alpha", alpha.into())]);
    let tables = without_keys(analysed(root, &["--base", "base"]));
    fs::remove_dir_all(root.join("adapter")).unwrap();
    tables
}

#[test]
fn mlx_adapters_give_the_tables_of_the_same_weights_as_peft_stores_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 24, 4);
    write_base(&root.join("base"), &layers, PLAIN);
    let transposed = |matrix: &ndarray::Array2<f64>| matrix.t().as_standard_layout().into_owned();
    let mut tensors: Vec<Tensor> = layers
        .iter()
        .flat_map(|layer| {
            let name = |factor: &str| format!("{}.lora_{factor}", layer.path);
            [stored(&name("a"), &transposed(&layer.a), "F64"), stored(&name("b"), &transposed(&layer.b), "F64")]
        })
        .collect();
    let write = |config: Option<serde_json::Value>, tensors: &[Tensor]| {
        let _ = fs::remove_dir_all(root.join("adapter"));
        fs::create_dir(root.join("adapter")).unwrap();
        fs::write(root.join("adapter/adapters.safetensors"), file(tensors)).unwrap();
        if let Some(config) = config {
            fs::write(root.join("adapter/adapter_config.json"), config.to_string()).unwrap();
        }
    };
    let new = serde_json::json!({"model": "base", "num_layers": 3, "lora_parameters": {"rank": 4, "scale": 3.5, "dropout": 0.0}});
    let old = serde_json::json!({"lora_layers": 3, "lora_parameters": {"rank": 4, "alpha": 16, "scale": 10.0}});
    for (config, s, warning) in [
        (Some(new.clone()), 3.5, None),
        (Some(old), 40.0, None),
        (None, 20.0, Some("adapter: has no adapter_config.json: the scale 20 is taken, mlx-lm's default")),
        (Some(serde_json::json!({"fine_tune_type": "lora"})), 20.0, Some("adapter: names no scale (lora_parameters)")),
    ] {
        let expected = as_peft(root, &layers, s * 4.0);
        write(config, &tensors);
        assert_eq!(without_keys(analysed(root, &["--base", "base"])), expected);
        let said = run(root, "adapter", &["--base", "base"]).exits(0).stderr;
        assert_eq!(said.matches("warning: ").count(), usize::from(warning.is_some()), "{said}");
        assert!(warning.is_none_or(|text| said.contains(text)), "{said}");
    }
    // `model` names the base, as `base_model_name_or_path` does; a file of a training step is no adapter of its own.
    write(Some(new.clone()), &tensors);
    fs::write(root.join("adapter/0000100_adapters.safetensors"), file(&tensors)).unwrap();
    let expected = analysed(root, &[]);
    // The file itself is the same adapter under another name.
    let by_file = run(root, "adapter/adapters.safetensors", &[]).exits(0);
    assert!(by_file.stdout.starts_with("adapters, left"), "{}", by_file.stdout);
    tensors.push(f32_tensor("model.layers.0.self_attn.q_proj.m", &[24]));
    write(Some(new), &tensors);
    run(root, "adapter", &[]).exits(0).says("DoRA adapter: A and B are analysed, the magnitude vector is ignored");
    assert_eq!(tables(&root.join("out")), expected);
}

/// The module of a UNet in block `l`, and how kohya's scripts call it.
fn unet(l: usize) -> (String, String) {
    let path = format!("down_blocks.{l}.attentions.0.transformer_blocks.0.attn1.to_q");
    let flat = path.replace('.', "_");
    (path, flat)
}

/// Layers as kohya's scripts store them, with or without α, the factors as matrices or as 1x1 kernels.
fn as_kohya(layers: &[Layer], family: &str, alpha: Option<f32>, kernels: bool) -> Vec<Tensor> {
    let tensor = |name: String, matrix: &ndarray::Array2<f64>| {
        let mut tensor = stored(&name, matrix, "F64");
        tensor.shape.extend(if kernels { vec![1, 1] } else { vec![] });
        tensor
    };
    layers
        .iter()
        .flat_map(|layer| {
            let key = format!("{family}{}", layer.path.replace('.', "_"));
            let alpha =
                alpha.map(|alpha| Tensor { bytes: alpha.to_le_bytes().to_vec(), ..f32_tensor(&format!("{key}.alpha"), &[]) });
            [tensor(format!("{key}.lora_down.weight"), &layer.a), tensor(format!("{key}.lora_up.weight"), &layer.b)]
                .into_iter()
                .chain(alpha)
        })
        .collect()
}

#[test]
fn kohya_files_give_the_tables_of_the_same_weights_as_peft_stores_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers: Vec<Layer> = (0..3).map(|l| Layer::new(&unet(l).0, 24, 24, 4)).collect();
    assert_eq!(unet(1).1, "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q");
    write_base(&root.join("base"), &layers, PLAIN);
    for (alpha, kernels, s) in [(Some(6.0), false, 1.5), (None, false, 1.0), (Some(1.0), true, 0.25)] {
        let expected = as_peft(root, &layers, s * 4.0);
        fs::write(root.join("adapter.safetensors"), file(&as_kohya(&layers, "lora_unet_", alpha, kernels))).unwrap();
        run(root, "adapter.safetensors", &["--base", "base"]).exits(0);
        assert_eq!(without_keys(tables(&root.join("out"))), expected);
    }
    // The α are inputs like any other.
    let inputs = manifest(root)["inputs"].as_array().unwrap().clone();
    assert_eq!(inputs.iter().filter(|input| input["tensor"].to_string().contains(".alpha")).count(), 3);

    // A folder is searched to any depth; the base next to it is not an adapter.
    let expected = as_peft(root, &layers, 4.0);
    fs::create_dir_all(root.join("loras/base")).unwrap();
    fs::rename(root.join("adapter.safetensors"), root.join("loras/adapter.safetensors")).unwrap();
    fs::copy(root.join("base/model.safetensors"), root.join("loras/base/model.safetensors")).unwrap();
    fs::write(root.join("loras/broken.safetensors"), b"{}").unwrap();
    fs::write(root.join("loras/adapter.safetensors"), file(&as_kohya(&layers, "lora_unet_", None, false))).unwrap();
    run(root, "loras", &["--base", "base"]).exits(0);
    assert_eq!(without_keys(tables(&root.join("out"))), expected);
    run(root, "loras/base/model.safetensors", &["--base", "base"]).exits(5).says("file is no adapter by itself");

    // Whole checkpoints put a prefix before the UNet's names.
    let prefixed: Vec<Layer> =
        layers.iter().map(|layer| Layer { path: format!("model.diffusion_model.{}", layer.path), ..layer.clone() }).collect();
    write_base(&root.join("whole"), &prefixed, PLAIN);
    run(root, "loras", &["--base", "whole"]).exits(0);
    // The w0 control is drawn by the base tensor's name, which is another one; φ is the same.
    let phi = |tables: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let text = String::from_utf8(tables["similarity.csv"].clone()).unwrap();
        let columns = |line: &str| line.split(',').skip(2).take(8).collect::<Vec<_>>().join(",");
        assert!(columns(&text).ends_with("phi,phi_error_bound"));
        text.lines().map(columns).collect()
    };
    assert_eq!(phi(&tables(&root.join("out"))), phi(&expected));
}

#[test]
fn of_a_kohya_file_the_families_that_the_base_has_are_analysed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let encoder = |n: usize| -> Vec<Layer> {
        (0..2).map(|l| Layer::new(&format!("text_model.encoder.layers.{l}.self_attn.q_proj"), n, n, 4)).collect()
    };
    let (first, second) = (encoder(24), encoder(32));
    let blocks: Vec<Layer> = (0..2).map(|l| Layer::new(&unet(l).0, 40, 40, 4)).collect();
    let mut tensors = as_kohya(&first, "lora_te1_", None, false);
    tensors.extend(as_kohya(&second, "lora_te2_", None, false));
    tensors.extend(as_kohya(&blocks, "lora_unet_", None, false));
    for (base, layers, others) in [
        ("first", &first, ["lora_te2_", "lora_unet_"]),
        ("second", &second, ["lora_te1_", "lora_unet_"]),
        ("unet", &blocks, ["lora_te1_", "lora_te2_"]),
    ] {
        write_base(&root.join("base"), layers, PLAIN);
        let expected = as_peft(root, layers, 4.0);
        fs::write(root.join("adapter.safetensors"), file(&tensors)).unwrap();
        let said = run(root, "adapter.safetensors", &["--base", "base"]).exits(0);
        assert_eq!(without_keys(tables(&root.join("out"))), expected, "{base}");
        assert_eq!(said.stderr.matches("warning: ").count(), 2, "{}", said.stderr);
        for family in others {
            let skipped = format!("2 modules `{family}*` are skipped: this base model does not have them");
            assert!(said.stderr.contains(&skipped), "{}", said.stderr);
        }
    }
}

#[test]
fn a_kohya_file_may_be_the_untrained_adapter_and_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers: Vec<Layer> = (0..2).map(|l| Layer::new(&unet(l).0, 24, 24, 4)).collect();
    write_base(&root.join("base"), &layers, PLAIN);
    let bytes = file(&as_kohya(&layers, "lora_unet_", None, false));
    fs::create_dir(root.join("loras")).unwrap();
    fs::write(root.join("loras/a.safetensors"), &bytes).unwrap();
    run(root, "loras", &["--base", "base", "--init", "loras/a.safetensors"]).exits(0);
    let rows: Vec<condlora::table::SimilarityRow> = condlora::table::csv::read_rows(&root.join("out/similarity.csv")).unwrap();
    assert!(rows.iter().all(|row| row.init.is_some() && row.init == row.phi));
    for out in ["loras/a.safetensors", "loras"] {
        let mut command = analyze(["loras/a.safetensors", "--base", "base", "-o", out, "--overwrite", "--figures", "none"]);
        Run::of(command.current_dir(root).output().unwrap()).exits(7);
    }
    assert_eq!(fs::read(root.join("loras/a.safetensors")).unwrap(), bytes);
}
