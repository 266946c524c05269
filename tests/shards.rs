//! Shards of a study on several machines, merged: the same bytes as one run, or a refusal that says why not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use ndarray::s;
use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base};
use shared::program::{Run, data, files, program, real_base, run_in};

/// Every output but the manifest, which says where it came from, and the report's warnings: one line for several adapters is one for
/// each shard's.
fn outputs(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(root);
    assert!(all.remove("manifest.json").is_some());
    let report = String::from_utf8(all.remove("report.html").unwrap()).unwrap();
    all.insert("report.html".into(), without_warnings(&report).into_bytes());
    all
}

/// A report without its warnings, and without the nonce that hangs on everything in it.
fn without_warnings(report: &str) -> String {
    let nonce = report.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    let report = report.replace(nonce, "");
    match report.split_once("<section id=\"warnings\"") {
        Some((before, after)) => format!("{before}{}", after.split_once("</section>").unwrap().1),
        None => report,
    }
}

#[track_caller]
fn same(what: &str, one: &Path, two: &Path) {
    let (one, two) = (outputs(one), outputs(two));
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in &one {
        let (x, y) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&two[name]));
        let at = x.lines().zip(y.lines()).find(|(a, b)| a != b);
        assert!(*bytes == two[name], "{what}: {name} differs: {at:?}");
    }
}

fn merge_in(root: &Path, arguments: &[&str]) -> Run {
    Run::of(program().arg("merge").args(arguments).current_dir(root).output().unwrap())
}

/// Runs all shards into `NAME/K` and merges them into `NAME-merged`; `options` are of analyze, `more` of merge.
fn in_shards(root: &Path, name: &str, of: usize, options: &[&str], more: &[&str]) -> Run {
    let mut dirs: Vec<String> = Vec::new();
    for number in 1..=of {
        dirs.push(format!("{name}/{number}"));
        let (shard, dir) = (format!("{number}/{of}"), &dirs[number - 1]);
        run_in(root, &[options, &["--shard", &shard, "-o", dir, "--threads", "1"]].concat()).exits(0);
    }
    // Their order is nobody's business.
    dirs.reverse();
    let merged = format!("{name}-merged");
    let arguments: Vec<&str> = dirs.iter().map(String::as_str).chain(["-o", &merged]).chain(more.iter().copied()).collect();
    merge_in(root, &arguments)
}

/// Adapters of several ranks, modules and layers on one base.
fn several(root: &Path) -> Vec<Layer> {
    let mut layers = square_layers(4, 16, 4);
    layers.extend((0..4).map(|l| Layer::new(&format!("model.layers.{l}.mlp.down_proj"), 16, 24, 4)));
    write_base(&root.join("base"), &layers, PLAIN);
    let part = |name: &str, wanted: &[usize], rank: usize, shift: f64| {
        let chosen: Vec<Layer> = wanted
            .iter()
            .map(|&l| Layer {
                a: layers[l].a.slice(s![..rank, ..]).mapv(|v| v + shift),
                b: layers[l].b.slice(s![.., ..rank]).mapv(|v| v * v - shift),
                ..layers[l].clone()
            })
            .collect();
        write_adapter(&root.join("runs").join(name), &chosen, PLAIN, &[]);
    };
    part("a/step-1", &[0, 1, 2, 3], 1, 0.1);
    part("a/step-2", &[0, 1, 2, 3], 1, 0.2);
    part("b", &[0, 2, 3], 3, 0.3);
    part("c", &[4, 5, 6, 7], 1, 0.4);
    part("d", &[0, 1, 4, 5], 4, 0.5);
    layers
}

const STUDY: [&str; 5] = ["runs", "--base", "base", "--null-draws", "3"];

#[test]
fn merged_shards_are_the_whole_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    let options =
        [&STUDY[..], &["--formats", "csv,parquet,npy", "--side", "both", "--matrices", "A,BA,lora_B", "--measures"]].concat();
    run_in(root, &[&options[..], &["-o", "whole"]].concat()).exits(0);
    // One shard, some, and one more than there are weights.
    for of in [1, 2, 3, 5, 7, 9] {
        in_shards(root, &of.to_string(), of, &options, &[]).exits(0);
        same(&format!("{of} shards"), &root.join("whole"), &root.join(format!("{of}-merged")));
    }
    // Each weight is in one of them, and the largest are not together.
    let weights = |dir: &str| files(&root.join(dir)).into_keys().filter(|name| name != "manifest.json").collect::<Vec<_>>();
    assert_eq!(weights("9/9"), [""; 0]);
    let mut all: Vec<String> = (1..=5).flat_map(|number| weights(&format!("5/{number}"))).collect();
    all.sort();
    assert_eq!(all, weights("1/1"));
    assert_eq!((all.len(), all[0].as_str()), (8, "weights/0.0.safetensors"));
    assert!((1..=4).all(|number| weights(&format!("5/{number}")).len() <= 2));
}

#[test]
fn real_adapters_in_shards_with_little_memory_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (adapters, base, init) = (data("adapters"), real_base(), data("init"));
    let [adapters, base, init] = [&adapters, &base, &init].map(|path| path.to_str().unwrap());
    let options = [adapters, "--base", base, "--init", init, "-q", "--formats", "parquet,npy", "--across"];
    for (name, more) in [
        ("decomposed", &["--memory-limit", "90M"][..]),
        ("bounded", &["--no-svd", "--memory-limit", "50M"]),
        ("all", &["--cuts", "--intruders", "--measures", "--grid", "0,1"]),
        ("similarity", &["--similarity-only", "--memory-limit", "50M"]),
        ("kept", &["--rcond", "0.1", "--side", "both"]),
    ] {
        let whole = format!("{name}-whole");
        let unbounded: Vec<&str> = more.iter().copied().filter(|word| !word.contains("memory") && !word.ends_with('M')).collect();
        run_in(root, &[&options[..], &unbounded, &["-o", &whole]].concat()).exits(0);
        let limit = more.iter().position(|word| *word == "--memory-limit").map_or(&[][..], |at| &more[at..at + 2]);
        in_shards(root, name, 2, &[&options[..], more].concat(), &[limit, &["-q"]].concat()).exits(0);
        same(name, &root.join(&whole), &root.join(format!("{name}-merged")));
        assert!(outputs(&root.join(format!("{name}-merged"))).contains_key("across.parquet"));
    }
}

#[test]
fn companions_and_memory_change_no_bit_at_rank_1() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    let of_c = |out: &str| -> Vec<String> {
        let text = String::from_utf8(fs::read(root.join(out).join("similarity.csv")).unwrap()).unwrap();
        text.lines().filter(|line| line.starts_with("c,")).map(str::to_owned).collect()
    };
    let options = ["--base", "base", "--figures", "none", "--null-draws", "3", "--side", "both"];
    let run = |more: &[&str]| run_in(root, &[more, &options[..]].concat()).exits(0);
    run(&["runs/c", "-o", "alone"]);
    run(&["runs", "-o", "together"]);
    // The least memory that is enough, taken from the message that refuses less.
    let mut limit = "1M".to_owned();
    let mut refusals = 0;
    loop {
        let tight = ["runs", "-o", "tight", "--memory-limit", &limit, "--threads", "1"];
        let run = run_in(root, &[&tight[..], &options[..]].concat());
        if run.code == Some(0) {
            break;
        }
        refusals += 1;
        let refused = run.exits(8);
        let least: f64 = refused.stderr.split("found ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        limit = format!("{:.1}M", least + 0.1);
    }
    assert_eq!(refusals, 1);
    assert_eq!(of_c("alone").len(), 4 * 4 * 6);
    for other in ["together", "tight"] {
        assert_eq!(of_c("alone"), of_c(other), "{other}");
    }
}

#[test]
fn merge_reads_no_weight_again_and_compares_across() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    run_in(root, &[&STUDY[..], &["-o", "whole", "--across"]].concat()).exits(0);
    for number in 1..=3 {
        let (shard, dir) = (format!("{number}/3"), format!("parts/{number}"));
        run_in(root, &[&STUDY[..], &["--shard", &shard, "-o", &dir]].concat()).exits(0);
    }
    // The numbers of adapters and base are gone; their headers are all that is read.
    let shorten = |file: &str| {
        let path = root.join(file);
        let bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        fs::write(&path, [&bytes[..header], &vec![0; bytes.len() - header][..]].concat()).unwrap();
    };
    shorten("base/model.safetensors");
    shorten("runs/b/adapter_model.safetensors");
    merge_in(root, &["parts/1", "parts/2", "parts/3", "-o", "parts-merged", "--across"]).exits(0);
    same("across", &root.join("whole"), &root.join("parts-merged"));
    // Figures only where asked for, and nothing is replaced by accident.
    merge_in(root, &["parts/1", "parts/2", "parts/3", "-o", "parts-merged"]).exits(7).says("exists already");
    let plain = ["parts/1", "parts/2", "parts/3", "-o", "parts-merged", "--overwrite", "--figures", "none"];
    merge_in(root, &plain).exits(0);
    assert!(
        outputs(&root.join("parts-merged"))
            .keys()
            .all(|name| name == "report.html" || name.ends_with(".csv") && name != "across.csv")
    );

    // The adapters must be those that the shards were made from.
    let config = root.join("runs/b/adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"lora_alpha\":", "\"lora_alpha\": 100, \"was\":")).unwrap();
    let across = ["parts/1", "parts/2", "parts/3", "-o", "new", "--across"];
    merge_in(root, &across).exits(5).says("as when the shards were made, found rank 3 and scaling 33.3");
    fs::write(&config, text).unwrap();
    let file = root.join("runs/b/adapter_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    // A header of other bytes that says the same.
    fs::write(
        &file,
        [&(length + 8).to_le_bytes()[..], &bytes[8..8 + length as usize], &[b' '; 8], &bytes[8 + length as usize..]].concat(),
    )
    .unwrap();
    merge_in(root, &across).exits(5).says("the contents that the shards were made from").says("hint: merge reads the headers");
    fs::rename(root.join("runs/b"), root.join("runs/e")).unwrap();
    merge_in(root, &across).exits(5).says("adapters to compare; expected the 5 that the shards were made of");
    fs::rename(root.join("runs"), root.join("gone")).unwrap();
    merge_in(root, &across).exits(3).says("hint: merge reads the headers");
    assert!(!root.join("new").exists());
}

#[test]
fn chosen_modules_and_layers_are_divided_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    for (name, options) in [("modules", ["--modules", "down_proj"]), ("layers", ["--layers", "2..3"])] {
        let options = [&STUDY[..], &options].concat();
        run_in(root, &[&options[..], &["-o", name]].concat()).exits(0);
        let shards = format!("{name}-shards");
        in_shards(root, &shards, 5, &options, &[]).exits(0);
        same(name, &root.join(name), &root.join(format!("{shards}-merged")));
    }
    let refused = |more: [&'static str; 2]| run_in(root, &[&STUDY[..], &more, &["--shard", "1/5", "-o", "no"]].concat()).exits(2);
    refused(["--modules", "up_proj"])
        .says("no adapter has a module of that name")
        .says("hint: the modules are down_proj, q_proj");
    refused(["--layers", "9"]).says("--layers 9: no module has such a layer");
    assert!(!root.join("no").exists());
}

#[test]
fn a_bad_adapter_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    fs::write(root.join("runs/c/adapter_model.safetensors"), b"<html>not found</html>").unwrap();
    let options = [&STUDY[..], &["--keep-going"]].concat();
    run_in(root, &[&options[..], &["-o", "whole", "--across"]].concat()).exits(1);
    for number in 1..=2 {
        let (shard, dir) = (format!("{number}/2"), format!("parts/{number}"));
        run_in(root, &[&options[..], &["--shard", &shard, "-o", &dir]].concat()).exits(1).says("warning: c skipped: ");
    }
    let merged = merge_in(root, &["parts/1", "parts/2", "-o", "merged", "--across"]).exits(1);
    merged.says("warning: c skipped: ");
    same("keep going", &root.join("whole"), &root.join("merged"));
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(root.join("merged/manifest.json")).unwrap()).unwrap();
    assert!(manifest["skipped"]["c"].as_str().unwrap().contains("adapter_model.safetensors"));
    assert_eq!(manifest["merged_from"].as_array().unwrap().len(), 2);
    assert_eq!(manifest["adapters"].as_array().unwrap().len(), 4);
    assert_eq!(manifest["options"]["analyze"]["paths"], serde_json::json!(["runs"]));

    // NaN in a base weight costs the adapters that use it, in whichever shard that is found.
    let bytes = fs::read(root.join("base/model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let is_it = |name: &str| name.contains("layers.3") && name.contains("q_proj");
    let (_, info) = header.as_object().unwrap().iter().find(|(name, _)| is_it(name)).unwrap();
    let end = 8 + length + info["data_offsets"][1].as_u64().unwrap() as usize;
    // The last bytes of a number are those that make it NaN.
    let spoilt = [&bytes[..end - 2], &[0xff; 2], &bytes[end..]].concat();
    fs::write(root.join("base/model.safetensors"), spoilt).unwrap();
    run_in(root, &[&options[..], &["-o", "whole", "--overwrite"]].concat()).exits(1);
    in_keep_going(root, &options);
    same("NaN", &root.join("whole"), &root.join("spoilt-merged"));
}

/// Three shards of which one or more skip an adapter, merged into `spoilt-merged`.
fn in_keep_going(root: &Path, options: &[&str]) {
    let mut skipped = Vec::new();
    for number in 1..=3 {
        let (shard, dir) = (format!("{number}/3"), format!("spoilt/{number}"));
        let run = run_in(root, &[options, &["--shard", &shard, "-o", &dir]].concat());
        skipped.push(run.stderr.matches(" skipped: ").count());
    }
    // The adapter that cannot be opened is skipped by all of them, and those with the weight by the one that has it.
    skipped.sort_unstable();
    assert!(skipped[..2] == [1, 1] && skipped[2] > 1, "{skipped:?}");
    let merged = merge_in(root, &["spoilt/1", "spoilt/2", "spoilt/3", "-o", "spoilt-merged"]).exits(1);
    merged.says("expected finite values");
}

#[test]
fn a_shard_that_is_there_is_left_and_one_that_died_is_made_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    let shard =
        |number: &str, more: &[&str]| run_in(root, &[&STUDY[..], &["--shard", number, "-o", &number[..1]], more].concat());
    let said = shard("1/2", &[]).exits(0).stdout;
    assert!(said.starts_with("shard 1 of 2: 4 of 8 base weights are solved; condlora merge compares them"), "{said}");
    let first = files(&root.join("1"));
    // Nothing is read or written again.
    let again = shard("1/2", &[]).exits(0).stdout;
    assert!(again.starts_with("shard 1 of 2: 4 of 8 base weights are solved already"), "{again}");
    assert!(files(&root.join("1")) == first);
    let again = Run::of(
        program().args(["--json", "analyze"]).args(STUDY).args(["--shard", "1/2", "-o", "1"]).current_dir(root).output().unwrap(),
    );
    let found: serde_json::Value = serde_json::from_str(&again.exits(0).stdout).unwrap();
    assert_eq!(found, serde_json::json!({"shard": 1, "of": 2, "weights": 4, "all_weights": 8}));
    // Another study, or a part that is gone, is no finished shard.
    shard("1/2", &["--seed", "3"]).exits(7).says("exists already");
    let file = first.keys().find(|name| name.starts_with("weights/")).unwrap();
    fs::remove_file(root.join("1").join(file)).unwrap();
    shard("1/2", &[]).exits(7).says("exists already");
    shard("1/2", &["--overwrite"]).exits(0);
    assert!(files(&root.join("1")).iter().all(|(name, bytes)| name == "manifest.json" || *bytes == first[name]));
    // The other one died before its end, and left nothing; it alone is run again.
    merge_in(root, &["1", "-o", "merged"]).exits(5).says("without 2/2");
    shard("2/2", &[]).exits(0);
    merge_in(root, &["1", "2", "-o", "merged"]).exits(0);
    run_in(root, &[&STUDY[..], &["-o", "whole"]].concat()).exits(0);
    same("again", &root.join("whole"), &root.join("merged"));
}

#[test]
fn shards_that_do_not_fit_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    let shard = |shard: &str, out: &str, more: &[&str]| {
        run_in(root, &[&STUDY[..], &["--shard", shard, "-o", out], more].concat()).exits(0);
    };
    shard("1/2", "1", &[]);
    shard("2/2", "2", &[]);
    let refused = |dirs: &[&str], code: i32| -> Run {
        let run = merge_in(root, &[dirs, &["-o", "merged"]].concat()).exits(code);
        assert!(!root.join("merged").exists() && run.stderr.lines().filter(|line| line.starts_with("error: ")).count() == 1);
        run
    };
    refused(&["1"], 5).says("shards; expected all 2, found 1 of them, without 2/2");
    refused(&["1", "2", "1"], 5).says("shard 1/2; expected it once, found it in 1 too");
    refused(&["1", "nowhere"], 3).says("nowhere: is no directory");
    refused(&["1", "base"], 3).says("has no manifest.json of condlora");

    shard("2/3", "2of3", &[]);
    refused(&["1", "2of3"], 5).says("expected a part of 2 of 5 adapters, as in 1, found a part of 3 of 5 adapters");
    shard("2/2", "seed", &["--seed", "7"]);
    refused(&["1", "seed"], 5).says("option seed; expected 0, as in 1, found 7");
    shard("2/2", "matrices", &["--matrices", "A"]);
    refused(&["1", "matrices"], 5).says("option matrices; expected [\"A\",\"B\",\"BA\"], as in 1, found [\"A\"]");
    shard("2/2", "formats", &["--formats", "parquet"]);
    refused(&["1", "formats"], 5).says("option formats");
    // What changes no row may differ.
    shard("2/2", "free", &["--keep-going", "--memory-limit", "1G", "--threads", "1"]);
    merge_in(root, &["1", "free", "-o", "fits"]).exits(0);
    run_in(root, &[&STUDY[..], &["-o", "whole", "--figures", "none"]].concat()).exits(0);
    refused(&["whole", "2"], 5).says("expected one made by analyze --shard K/N, found no shard");

    let edit = |dir: &str, from: &str, to: &str| {
        let path = root.join(dir).join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    shard("2/2", "version", &[]);
    let version = env!("CARGO_PKG_VERSION");
    edit("version", &format!("\"version\": \"{version}\""), "\"version\": \"0.0.1\"");
    refused(&["1", "version"], 5).says(&format!("version; expected {version}, found 0.0.1"));
    edit("version", "\"program\": \"condlora\",", "\"program\": \"condlora\", \"inputs\": 7,");
    refused(&["1", "version"], 4).says("manifest; expected what this version's analyze --shard wrote");
    let name = files(&root.join("2")).into_keys().find(|name| name.starts_with("weights/")).unwrap();
    let table = root.join("2").join(&name);
    let good = fs::read(&table).unwrap();
    fs::write(&table, &good[..good.len() / 2]).unwrap();
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    refused(&["1", "2"], 4)
        .says(&format!("2/{name}: contents; expected BLAKE3 {} as in manifest.json", hash(&good)))
        .says(&format!("found {}", hash(&good[..good.len() / 2])))
        .says("hint: make this shard again with --overwrite");
    fs::remove_file(&table).unwrap();
    refused(&["1", "2"], 3).says(&format!("2/{name}: does not exist, but manifest.json lists it"));
    fs::write(&table, good).unwrap();
    merge_in(root, &["1", "2", "-o", "good"]).exits(0);

    // The base changed between the two, and an adapter came.
    let base = root.join("base/model.safetensors");
    let mut bytes = fs::read(&base).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].iter_mut().step_by(4).for_each(|byte| *byte ^= 1);
    fs::write(&base, bytes).unwrap();
    shard("2/2", "base2", &[]);
    refused(&["1", "base2"], 5).says("of base/model.safetensors; expected the contents that 1 read, found others");
    write_adapter(&root.join("runs/aa"), &several(root)[..2], PLAIN, &[]);
    fs::remove_dir_all(root.join("runs/d")).unwrap();
    shard("2/2", "names", &[]);
    refused(&["1", "names"], 5).says("expected the adapters that 1 was made among, found others");
}

#[test]
fn a_shard_is_asked_for_sensibly() {
    let usage = |more: &[&str], says: &str| {
        let run = Run::of(program().args(["analyze", "x"]).args(more).output().unwrap()).exits(2);
        run.says(says);
    };
    for wrong in ["0/3", "4/3", "3", "1/0", "x/y"] {
        usage(&["--shard", wrong], "expected K/N with K from 1 to N, as in 2/8");
    }
}

/// The guide's example for GNU parallel.
#[test]
fn gnu_parallel_runs_the_shards() {
    let is_gnu = Command::new("parallel").arg("--version").output().is_ok_and(|out| out.stdout.starts_with(b"GNU parallel"));
    if !is_gnu {
        #[allow(clippy::print_stderr, reason = "whoever runs the tests should know that this one did nothing")]
        {
            eprintln!("SKIPPED gnu_parallel_runs_the_shards: GNU parallel is not installed (`make test` installs it)");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    several(root);
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/many-adapters.md")).unwrap();
    let script = guide.split("```sh\n").find(|block| block.starts_with("parallel ")).unwrap().split("```").next().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_condlora")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let script = format!("set -e\n{script}");
    Run::of(Command::new("sh").args(["-c", &script]).env("PATH", &path).env("HOME", root).current_dir(root).output().unwrap())
        .exits(0);
    run_in(root, &["runs", "--base", "base", "-o", "whole"]).exits(0);
    same("GNU parallel", &root.join("whole"), &root.join("results"));
    assert_eq!(fs::read_dir(root.join("parts")).unwrap().count(), 4);
}
