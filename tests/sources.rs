//! Where weights come from: the same weights in any format, any number of files and any place give the same bytes in every table.
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
    let needed = headers + weights + factors;
    assert_eq!(manifest(root)["bytes_read"], needed);
    let held: u64 = files.iter().map(|(_, len)| len).sum();
    assert!(held > 40 * needed, "{held} {needed}");
    said.says(&format!("weight files: {needed} bytes read of {held}"));
}

#[test]
fn many_shards_need_few_descriptors_and_little_time() {
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
