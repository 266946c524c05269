//! The table of cases: the change to a good adapter on a good base, the exit code, and what the message must contain.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::condlora_cases::CONDLORA;
use super::foreign_cases::FOREIGN;
use super::generate::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_WEIGHTS, Tensor, WIDTH, adapter, adapter_header, adapter_tensors, base, base_tensors,
    changed, config, f32_tensor, file, lora, put, query, raw, zero_tensor,
};
use super::pickle_cases::PICKLES;

/// One bad input.
pub(crate) struct Case {
    /// What is wrong.
    pub(crate) name: &'static str,
    /// The exit code it gets.
    pub(crate) exit: u8,
    /// What the message must hold, hint included.
    pub(crate) says: &'static [&'static str],
    /// Spoils the good `adapter/` and `base/` below a directory.
    pub(crate) spoil: fn(&Path),
}

pub(crate) const fn case(name: &'static str, exit: u8, says: &'static [&'static str], spoil: fn(&Path)) -> Case {
    Case { name, exit, says, spoil }
}

/// Every case.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    let kinds = CONFIG.iter().chain(&KINDS).chain(&KEYS);
    FILES
        .iter()
        .chain(&SHARDS)
        .chain(&HEADER)
        .chain(kinds)
        .chain(&SHAPES)
        .chain(&VALUES)
        .chain(&PICKLES)
        .chain(&FOREIGN)
        .chain(&CONDLORA)
}

fn weights(root: &Path, bytes: &[u8]) {
    put(root, ADAPTER_WEIGHTS, bytes);
}

fn remove(root: &Path, name: &str) {
    fs::remove_file(root.join(name)).unwrap();
}

static FILES: [Case; 22] = [
    case("missing path", 3, &["adapter: does not exist", "did you mean", "adaptor"], |root| {
        fs::rename(root.join("adapter"), root.join("adaptor")).unwrap();
    }),
    case("directory without adapter", 3, &["adapter:", "no adapter in it", "adapter_config.json", "notes.txt"], |root| {
        remove(root, ADAPTER_WEIGHTS);
        fs::rename(root.join(ADAPTER_CONFIG), root.join("adapter/notes.txt")).unwrap();
    }),
    case("config without weights", 3, &["adapter:", "expected adapter_model.safetensors", "found adapter_config.json"], |root| {
        remove(root, ADAPTER_WEIGHTS);
    }),
    case("base is missing", 3, &["base: does not exist"], |root| fs::remove_dir_all(root.join("base")).unwrap()),
    case("base without weights", 3, &["base:", "expected model.safetensors", "found config.json"], |root| {
        fs::rename(root.join(BASE_WEIGHTS), root.join("base/config.json")).unwrap();
    }),
    case("empty file", 4, &["adapter_model.safetensors: file is empty", "at least 10 bytes", "found 0 bytes"], |root| {
        weights(root, b"")
    }),
    case("7 bytes", 4, &["too short", "at least 10 bytes", "found 7 bytes"], |root| weights(root, b"1234567")),
    case("HTML page", 4, &["expected a safetensors file, found an HTML page"], |root| {
        weights(root, b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>");
    }),
    case("short HTML page", 4, &["found an HTML page"], |root| weights(root, b"<html>")),
    case("gzip", 4, &["found a gzip archive"], |root| weights(root, b"\x1f\x8b\x08\0\0\0\0\0\x02\xff0123456789")),
    case("GGUF", 4, &["found a GGUF file"], |root| weights(root, b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0")),
    case("zip", 4, &["found a zip archive"], |root| weights(root, b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl")),
    case("Git-LFS pointer", 4, &["found a Git-LFS pointer", "run git lfs pull"], |root| {
        weights(root, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 301520\n");
    }),
    case("Git-LFS pointer for the base", 4, &["model.safetensors", "run git lfs pull"], |root| {
        put(root, BASE_WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 301520\n");
    }),
    case("truncated by 6 bytes", 4, &["truncated", "bytes, found"], |root| {
        let bytes = file(&adapter_tensors());
        weights(root, &bytes[..bytes.len() - 6]);
    }),
    case("trailing bytes", 4, &["model.safetensors", "trailing bytes"], |root| {
        let mut bytes = file(&base_tensors());
        bytes.extend_from_slice(&[0; 3]);
        put(root, BASE_WEIGHTS, &bytes);
    }),
    case("FIFO", 3, &["expected a regular file, found a FIFO"], |root| {
        remove(root, ADAPTER_WEIGHTS);
        assert!(std::process::Command::new("mkfifo").arg(root.join(ADAPTER_WEIGHTS)).status().unwrap().success());
    }),
    case("/dev/zero", 3, &["expected a regular file, found a device"], |root| {
        remove(root, ADAPTER_WEIGHTS);
        symlink("/dev/zero", root.join(ADAPTER_WEIGHTS)).unwrap();
    }),
    case("socket", 3, &["expected a regular file, found a socket"], |root| {
        remove(root, BASE_WEIGHTS);
        drop(UnixListener::bind(root.join(BASE_WEIGHTS)).unwrap());
    }),
    case("directory for a file", 3, &["adapter_config.json", "expected a regular file, found a directory"], |root| {
        remove(root, ADAPTER_CONFIG);
        fs::create_dir(root.join(ADAPTER_CONFIG)).unwrap();
    }),
    case("unreadable file", 3, &["adapter_model.safetensors", "cannot be read", "ermission denied"], |root| {
        fs::set_permissions(root.join(ADAPTER_WEIGHTS), fs::Permissions::from_mode(0o000)).unwrap();
    }),
    case("loop of links", 3, &["adapter", "symbolic links"], |root| {
        fs::remove_dir_all(root.join("adapter")).unwrap();
        fs::create_dir(root.join("adapter")).unwrap();
        symlink("..", root.join("adapter/back")).unwrap();
    }),
];

/// The base's two tensors in a shard each, with an index of this text.
fn index(root: &Path, text: &str) {
    let tensors = base_tensors();
    for (shard, tensor) in ["base/a.safetensors", "base/b.safetensors"].into_iter().zip(tensors) {
        put(root, shard, &file(&[tensor]));
    }
    remove(root, BASE_WEIGHTS);
    put(root, "base/model.safetensors.index.json", text.as_bytes());
}

/// The same with this file for layer 0 and this one for layer 1.
fn shards(root: &Path, first: &str, second: &str) {
    let (zero, one) = (query("0"), query("1"));
    index(root, &format!("{{\"weight_map\": {{\"{zero}.weight\": \"{first}\", \"{one}.weight\": \"{second}\"}}}}"));
}

static SHARDS: [Case; 15] = [
    case("missing shard", 3, &["c.safetensors: does not exist", "model.safetensors.index.json names it", "download"], |root| {
        shards(root, "a.safetensors", "c.safetensors");
    }),
    case("shard without its tensor", 3, &["index.json: says", "layer.1.", "in a.safetensors, which has none"], |root| {
        shards(root, "a.safetensors", "a.safetensors");
    }),
    case(
        "tensor in two shards",
        4,
        &["index.json: tensor `encoder.layer.0.", "expected it in one shard", "b.safetensors"],
        |root| {
            shards(root, "a.safetensors", "b.safetensors");
            put(root, "base/b.safetensors", &file(&base_tensors()));
        },
    ),
    case("tensor twice in the index", 4, &["index.json: index", "duplicate", "column"], |root| {
        let name = query("0");
        index(root, &format!("{{\"weight_map\": {{\"{name}\": \"a.safetensors\", \"{name}\": \"b.safetensors\"}}}}"));
    }),
    case("shard above its folder", 4, &["name of a shard", "found `../base/b.safetensors`"], |root| {
        shards(root, "a.safetensors", "../base/b.safetensors");
    }),
    case("shard by an absolute path", 4, &["name of a shard", "found `/dev/zero`"], |root| {
        shards(root, "/dev/zero", "b.safetensors")
    }),
    case("shard is the folder", 4, &["name of a shard", "found `..`"], |root| shards(root, "..", "b.safetensors")),
    case("shard without a name", 4, &["name of a shard", "found ``"], |root| shards(root, "", "b.safetensors")),
    case("index is bad JSON", 4, &["index.json: index is not valid JSON", "column 17"], |root| {
        index(root, "{\"weight_map\": {]}")
    }),
    case("index is empty", 4, &["index.json: index is not valid JSON"], |root| index(root, "")),
    case("index is an array", 4, &["index.json: index", "expected an object", "column"], |root| index(root, "[1]")),
    case("index without its map", 4, &["missing field `weight_map`"], |root| index(root, "{\"metadata\": {\"total_size\": 1}}")),
    case("index with two maps", 4, &["duplicate `weight_map`"], |root| index(root, "{\"weight_map\": {}, \"weight_map\": {}}")),
    case("index of numbers", 4, &["index.json: index", "expected a string", "column"], |root| {
        index(root, "{\"weight_map\": {\"a\": 1}}")
    }),
    case("damaged shard", 4, &["b.safetensors: file is truncated"], |root| {
        shards(root, "a.safetensors", "b.safetensors");
        let bytes = file(&base_tensors()[1..]);
        put(root, "base/b.safetensors", &bytes[..bytes.len() - 1]);
    }),
];

/// The entry of one tensor in a header.
fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

fn one(root: &Path, dtype: &str, shape: &str, offsets: &str) {
    adapter_header(root, &format!("{{{}}}", entry("w", dtype, shape, offsets)), 8);
}

fn two(root: &Path, first: (&str, &str), second: (&str, &str), data_len: usize) {
    let header = format!("{{{},{}}}", entry(first.0, "U8", "[4]", first.1), entry(second.0, "U8", "[4]", second.1));
    adapter_header(root, &header, data_len);
}

fn length(root: &Path, length: u64) {
    let mut bytes = file(&adapter_tensors());
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    weights(root, &bytes);
}

static HEADER: [Case; 33] = [
    case("header length 0", 4, &["header length", "found 0"], |root| length(root, 0)),
    case("header beyond the file", 4, &["header length", "found 99999"], |root| length(root, 99_999)),
    case("header of 2^64-1", 4, &["header length", "found 18446744073709551615"], |root| length(root, u64::MAX)),
    case("header above 100,000,000", 4, &["header length", "100000000", "found 100000001"], |root| length(root, 100_000_001)),
    case("bad UTF-8", 4, &["UTF-8", "column 5"], |root| weights(root, &raw(b"{\"ab\xff\":1}", b""))),
    case("bad JSON", 4, &["not valid JSON", "column 6"], |root| adapter_header(root, "{\"a\" 1}", 0)),
    case("header cut short", 4, &["not valid JSON", "column"], |root| adapter_header(root, "{\"a\":{", 0)),
    case("array", 4, &["expected `{`, found `[`"], |root| adapter_header(root, "[1, 2, 3]", 0)),
    case("byte-order mark", 4, &["expected `{`, found a byte-order mark"], |root| adapter_header(root, "\u{feff}{}", 0)),
    case("space before the brace", 4, &["expected `{`, found white space"], |root| adapter_header(root, "  {}", 0)),
    case("garbage after", 4, &["not valid JSON", "trailing characters", "column 4"], |root| adapter_header(root, "{} x", 0)),
    case("200,000 levels", 4, &["nesting", "column"], |root| {
        adapter_header(root, &format!("{{\"a\":{}", "[".repeat(200_000)), 0)
    }),
    case("duplicate name", 4, &["tensor `a`", "duplicate"], |root| two(root, ("a", "[0,4]"), ("a", "[4,8]"), 8)),
    case("duplicate name, same offsets", 4, &["tensor `a`", "duplicate"], |root| two(root, ("a", "[0,4]"), ("a", "[0,4]"), 4)),
    case("duplicate field", 4, &["tensor `w`", "duplicate field `dtype`", "column"], |root| {
        adapter_header(root, r#"{"w":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#, 8);
    }),
    case("duplicate __metadata__", 4, &["duplicate `__metadata__`"], |root| {
        adapter_header(root, r#"{"__metadata__":{"format":"pt"},"__metadata__":{"format":"pt"}}"#, 0);
    }),
    case("metadata that is no text", 4, &["__metadata__", "expected a string"], |root| {
        adapter_header(root, r#"{"__metadata__":{"format":1}}"#, 0);
    }),
    case("missing field", 4, &["tensor `w`", "missing field `shape`"], |root| {
        adapter_header(root, r#"{"w":{"dtype":"U8","data_offsets":[0,8]}}"#, 8);
    }),
    case("an array for an entry", 4, &["tensor `w`", "expected an object with dtype", "column"], |root| {
        adapter_header(root, r#"{"w":["U8",[8],[0,8]]}"#, 8);
    }),
    case("unknown dtype", 4, &["tensor `w`", "found `F31`"], |root| one(root, "F31", "[2]", "[0,8]")),
    case("begin after end", 4, &["tensor `w`", "found [8, 0]"], |root| one(root, "U8", "[8]", "[8,0]")),
    case("negative offset", 4, &["tensor `w`", "-8"], |root| one(root, "U8", "[8]", "[-8,0]")),
    case("fractional offset", 4, &["tensor `w`", "0.5"], |root| one(root, "U8", "[8]", "[0.5,8]")),
    case("offset of 2^63", 4, &["tensor `w`", "2^63", "9223372036854775808"], |root| {
        one(root, "U8", "[8]", "[0,9223372036854775808]")
    }),
    case("three offsets", 4, &["column"], |root| one(root, "U8", "[8]", "[0,8,8]")),
    case("overlap", 4, &["`a` and `b`", "overlap at bytes 2 to 4"], |root| two(root, ("b", "[2,6]"), ("a", "[0,4]"), 6)),
    case("hole", 4, &["hole at bytes 4 to 6", "`b`"], |root| two(root, ("a", "[0,4]"), ("b", "[6,10]"), 10)),
    case("hole at the start", 4, &["hole at bytes 0 to 4"], |root| two(root, ("a", "[4,8]"), ("b", "[8,12]"), 12)),
    case("shape is not the byte count", 4, &["tensor `w`", "expected 12 bytes for F32 [3]", "8 bytes"], |root| {
        one(root, "F32", "[3]", "[0,8]")
    }),
    case("half a byte", 4, &["tensor `w`", "F4 [3]"], |root| one(root, "F4", "[3]", "[0,1]")),
    case("product overflows", 4, &["tensor `w`", "[8589934592, 8589934592]", "overflows"], |root| {
        one(root, "U8", "[8589934592,8589934592]", "[0,0]");
    }),
    case("sizes overflow together", 4, &["adapter_model.safetensors"], |root| {
        let size = (1_u128 << 61) - 1;
        let entries: Vec<String> = (0..8_u128)
            .map(|at| entry(&format!("t{at}"), "U8", &format!("[{size}]"), &format!("[{},{}]", at * size, (at + 1) * size)))
            .collect();
        adapter_header(root, &format!("{{{}}}", entries.join(",")), 8);
    }),
    case("a name of 1 MB", 4, &["a tensor name", "found 1000000 bytes"], |root| {
        adapter_header(root, &format!("{{{}}}", entry(&"n".repeat(1_000_000), "U8", "[8]", "[0,8]")), 8);
    }),
];

static CONFIG: [Case; 16] = [
    case("no config", 3, &["adapter:", "adapter_config.json"], |root| remove(root, ADAPTER_CONFIG)),
    case("config is bad JSON", 4, &["adapter_config.json", "not valid JSON", "column"], |root| {
        put(root, ADAPTER_CONFIG, b"{\"r\": 2,}")
    }),
    case("config is empty", 4, &["adapter_config.json", "not valid JSON"], |root| put(root, ADAPTER_CONFIG, b"")),
    case("other peft_type", 5, &["peft_type", "\"LORA\", \"ADALORA\" or \"ConditionalLORA\"", "found \"IA3\""], |root| {
        config(root, &[("peft_type", "\"IA3\"")])
    }),
    case("no peft_type", 5, &["peft_type", "no such field"], |root| config(root, &[("peft_type", "")])),
    case("r is 0", 5, &["adapter_config.json: r;", "found 0"], |root| config(root, &[("r", "0")])),
    case("r is -1", 5, &["adapter_config.json: r;", "found -1"], |root| config(root, &[("r", "-1")])),
    case("r is text", 5, &["adapter_config.json: r;", "found \"8\""], |root| config(root, &[("r", "\"8\"")])),
    case("r is 1e9", 5, &["adapter_config.json: r;", "found 1000000000"], |root| config(root, &[("r", "1e9")])),
    case("r of no tensor", 5, &["adapter_config.json: r is 4", "tensors of rank 2"], |root| config(root, &[("r", "4")])),
    case("alpha is 0", 5, &["lora_alpha", "found 0"], |root| config(root, &[("lora_alpha", "0")])),
    case("alpha is NaN", 5, &["lora_alpha", "found \"NaN\""], |root| config(root, &[("lora_alpha", "NaN")])),
    case("alpha is null", 5, &["lora_alpha", "found null"], |root| config(root, &[("lora_alpha", "null")])),
    case("rank of a pattern is 0", 5, &["rank_pattern of `query`", "found 0"], |root| {
        config(root, &[("rank_pattern", "{\"query\": 0}")])
    }),
    case("pattern Rust has not", 5, &["alpha_pattern", "look-around", "`(?<!x)query`"], |root| {
        config(root, &[("alpha_pattern", "{\"(?<!x)query\": 4}")]);
    }),
    case("flag is a number", 5, &["use_rslora", "found 1"], |root| config(root, &[("use_rslora", "1")])),
];

/// Makes an AdaLoRA adapter of the good one; then some tensors of layer 0 are changed, by their names' ends.
fn adalora(root: &Path, fields: &[(&str, &str)], change: fn(&mut Vec<Tensor>)) {
    config(root, &[&[("peft_type", "\"ADALORA\"")], fields].concat());
    let mut tensors = Vec::new();
    for layer in ["0", "1"] {
        let stem = format!("base_model.model.bert.{}", query(layer));
        tensors.push(f32_tensor(&format!("{stem}.lora_A"), &[2, WIDTH]));
        tensors.push(f32_tensor(&format!("{stem}.lora_B"), &[WIDTH, 2]));
        tensors.push(f32_tensor(&format!("{stem}.lora_E"), &[2, 1]));
    }
    change(&mut tensors);
    adapter(root, &tensors);
}

static KINDS: [Case; 8] = [
    case(
        "AdaLoRA without E",
        5,
        &["layer.0.attention.self.query.lora_A` has no matching lora_E", "expected every factor of the module"],
        |root| {
            adalora(root, &[], |tensors| drop(tensors.remove(2)));
        },
    ),
    case(
        "E alone",
        5,
        &["layer.0.attention.self.query.lora_E` has no matching lora_A and lora_B", "expected every factor of the module"],
        |root| {
            adalora(root, &[], |tensors| drop(tensors.drain(..2)));
        },
    ),
    case("E of another rank", 5, &["shape of tensor", "lora_E`; expected [2, 1]", "found [3, 1]"], |root| {
        adalora(root, &[], |tensors| tensors[2] = f32_tensor(&tensors[2].name, &[3, 1]));
    }),
    case("E in a LoRA", 5, &["lora_E` is AdaLoRA's", "expected peft_type \"ADALORA\", found \"LORA\""], |root| {
        adalora(root, &[("peft_type", "\"LORA\"")], |_| {});
    }),
    case("NaN in E", 6, &["layer.1.attention.self.query.lora_E", "the first (NaN) at index [1, 0]"], |root| {
        adalora(root, &[], |tensors| poison(&mut tensors[5], 1, f32::NAN));
    }),
    case("AdaLoRA of no rank", 5, &["AdaLoRA; expected a module of rank 1 at least", "found rank 0 in all of them"], |root| {
        adalora(root, &[], |tensors| {
            for tensor in tensors {
                tensor.shape.iter_mut().filter(|size| **size == 2).for_each(|size| *size = 0);
                tensor.bytes.clear();
            }
        });
    }),
    case(
        "ranks of AdaLoRA that are numbers",
        5,
        &["rank_pattern of `x.lora_E`", "a list of true and false", "found 2"],
        |root| {
            adalora(root, &[("rank_pattern", "{\"x.lora_E\": 2}")], |_| {});
        },
    ),
    case(
        "embedding against W0",
        5,
        &["lora_embedding_A` does not fit W0", "expected [r, 9] as W0 has 9 columns", "found [2, 8]"],
        |root| {
            let stem = "base_model.model.bert.embeddings.word_embeddings.lora_embedding_";
            adapter(root, &[f32_tensor(&format!("{stem}A"), &[2, 8]), f32_tensor(&format!("{stem}B"), &[WIDTH, 2])]);
            base(root, &[f32_tensor("embeddings.word_embeddings.weight", &[9, WIDTH])]);
        },
    ),
];

static KEYS: [Case; 14] = [
    case("A without B", 5, &["lora_A.weight` has no matching lora_B", "found no such tensor"], |root| {
        adapter(root, &adapter_tensors()[..3])
    }),
    case("B without A", 5, &["lora_B.weight` has no matching lora_A", "found no such tensor"], |root| {
        adapter(root, &adapter_tensors()[1..])
    }),
    case("no LoRA tensor", 5, &["no LoRA tensor", "t0, t1, t2, t3, t4, and 2 more"], |root| {
        let tensors: Vec<Tensor> = (0..7).map(|at| f32_tensor(&format!("t{at}"), &[2])).collect();
        adapter(root, &tensors);
    }),
    case("no tensor", 5, &["no LoRA tensor", "found no tensor at all"], |root| adapter(root, &[])),
    case("embedding without B", 5, &["lora_embedding_A` has no matching lora_B", "found no such tensor"], |root| {
        adapter(root, &[f32_tensor("base_model.model.e.lora_embedding_A", &[2, WIDTH])]);
    }),
    case("two names for one layer", 5, &["two names for lora_A", "lora_A.default.weight"], |root| {
        let mut tensors = adapter_tensors();
        tensors.push(f32_tensor(&format!("base_model.model.bert.{}.lora_A.default.weight", query("0")), &[2, 6]));
        adapter(root, &tensors);
    }),
    case("two layers for one base tensor", 5, &["expected one layer for it", "roberta"], |root| {
        let mut tensors = adapter_tensors();
        let stem = format!("base_model.model.roberta.{}", query("0"));
        tensors.push(f32_tensor(&format!("{stem}.lora_A.weight"), &[2, 6]));
        tensors.push(f32_tensor(&format!("{stem}.lora_B.weight"), &[6, 2]));
        adapter(root, &tensors);
    }),
    case(
        "W0 not found",
        5,
        &["model.safetensors", "`bert.encoder.layer.1.", "`*.layer.1.attention.self.query.weight`", "query.weight"],
        |root| {
            base(root, &base_tensors()[..1]);
        },
    ),
    case("more than one candidate", 5, &["ambiguous", "left.encoder.layer.0", "right.encoder.layer.0"], |root| {
        let name = format!("{}.weight", query("0"));
        base(root, &[f32_tensor(&format!("left.{name}"), &[6, 6]), f32_tensor(&format!("right.{name}"), &[6, 6])]);
    }),
    case("layer 007", 5, &["layer.007.", "found `007`"], |root| adapter(root, &lora("007"))),
    case("layer -1", 5, &["layer.-1.", "found `-1`"], |root| adapter(root, &lora("-1"))),
    case("layer 10^12", 5, &["found `1000000000000`"], |root| adapter(root, &lora("1000000000000"))),
    case("a name that drives the terminal", 5, &["\\u{1b}[2J\\n\\u{0}"], |root| {
        adapter(root, &[f32_tensor("x\u{1b}[2J\n\0.lora_A.weight", &[2, 6])]);
    }),
    case("an empty module path", 5, &["empty parts, found none"], |root| {
        adapter(
            root,
            &[f32_tensor("base_model.model..lora_A.weight", &[2, 6]), f32_tensor("base_model.model..lora_B.weight", &[6, 2])],
        );
    }),
];

fn reshaped(root: &Path, index: usize, shape: &[u64]) {
    adapter(root, &changed(index, |tensor| *tensor = f32_tensor(&tensor.name.clone(), shape)));
}

fn pair(root: &Path, a: &[u64], b: &[u64]) {
    let [mut left, mut right] = lora("0");
    (left, right) = (f32_tensor(&left.name, a), f32_tensor(&right.name, b));
    adapter(root, &[left, right]);
}

fn packed_base(root: &Path, tensors: &[(&str, &'static str, &[u64], usize)]) {
    let tensors: Vec<Tensor> = tensors
        .iter()
        .map(|(end, dtype, shape, bytes)| zero_tensor(&format!("{}.{end}", query("0")), dtype, shape, *bytes))
        .collect();
    base(root, &tensors);
}

static SHAPES: [Case; 21] = [
    case("A transposed", 5, &["lora_A", "A [6, 2] and B [6, 2]", "A looks transposed"], |root| reshaped(root, 0, &[6, 2])),
    case("B transposed", 5, &["A [2, 6] and B [2, 6]", "B looks transposed"], |root| reshaped(root, 1, &[2, 6])),
    case("both transposed", 5, &["r is 2", "found tensors of rank 6", "A and B look transposed"], |root| {
        pair(root, &[6, 2], &[2, 6])
    }),
    case("ranks differ", 5, &["ranks of", "A [3, 6] and B [6, 2]"], |root| reshaped(root, 0, &[3, 6])),
    case("A against W0 columns", 5, &["lora_A.weight` does not fit W0", "expected [r, 6]", "found [2, 5]"], |root| {
        reshaped(root, 0, &[2, 5])
    }),
    case("B against W0 rows", 5, &["lora_B.weight` does not fit W0", "expected [7, r]", "found [6, 2]"], |root| {
        base(
            root,
            &[f32_tensor(&format!("{}.weight", query("0")), &[7, 6]), f32_tensor(&format!("{}.weight", query("1")), &[7, 6])],
        );
    }),
    case("1-D", 5, &["shape of tensor", "found [12]"], |root| reshaped(root, 0, &[12])),
    case("3-D", 5, &["shape of tensor", "found [2, 6, 1]"], |root| reshaped(root, 0, &[2, 6, 1])),
    case("3x3 convolution", 5, &["does not fit W0", "found [2, 6, 3, 3]"], |root| reshaped(root, 0, &[2, 6, 3, 3])),
    case("zero-size", 5, &["expected sizes above 0", "[0, 6]"], |root| pair(root, &[0, 6], &[6, 0])),
    case("another r than in the config", 5, &["r is 2", "found tensors of rank 7"], |root| pair(root, &[7, 6], &[6, 7])),
    case("A in F8", 5, &["lora_A.weight` needs full precision", "found F8_E4M3"], |root| {
        adapter(root, &changed(0, |tensor| *tensor = zero_tensor(&tensor.name.clone(), "F8_E4M3", &[2, 6], 12)));
    }),
    case("A in F4", 5, &["needs full precision", "found F4"], |root| {
        adapter(root, &changed(0, |tensor| *tensor = zero_tensor(&tensor.name.clone(), "F4", &[2, 6], 6)));
    }),
    case("B in integers", 5, &["lora_B.weight` needs full precision", "found I32"], |root| {
        adapter(root, &changed(1, |tensor| *tensor = zero_tensor(&tensor.name.clone(), "I32", &[6, 2], 48)));
    }),
    case("4-bit base", 5, &["model.safetensors", "query.weight` needs full precision", "bitsandbytes 4-bit"], |root| {
        packed_base(root, &[("weight", "U8", &[18, 1], 18), ("weight.absmax", "F32", &[1], 4)]);
    }),
    case("8-bit base", 5, &["needs full precision", "bitsandbytes 8-bit"], |root| {
        packed_base(root, &[("weight", "I8", &[6, 6], 36), ("SCB", "F32", &[6], 24)]);
    }),
    case("GPTQ base", 5, &["needs full precision", "GPTQ"], |root| {
        packed_base(root, &[("qweight", "I32", &[1, 6], 24), ("scales", "F16", &[1, 6], 12), ("g_idx", "I32", &[6], 24)]);
    }),
    case("AWQ base", 5, &["needs full precision", "AWQ"], |root| {
        packed_base(root, &[("qweight", "I32", &[6, 1], 24), ("qzeros", "I32", &[1, 1], 4), ("scales", "F16", &[1, 6], 12)]);
    }),
    case("packed words", 5, &["needs full precision", "U32"], |root| {
        packed_base(root, &[("weight", "U32", &[6, 1], 24), ("scales", "F16", &[6, 1], 12), ("biases", "F16", &[6, 1], 12)]);
    }),
    case("base in F8", 5, &["needs full precision", "F8_E4M3"], |root| packed_base(root, &[("weight", "F8_E4M3", &[6, 6], 36)])),
    case("base is no matrix", 5, &["shape of tensor", "found [36]"], |root| packed_base(root, &[("weight", "F32", &[36], 144)])),
];

fn poison(tensor: &mut Tensor, at: usize, value: f32) {
    tensor.bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
}

static VALUES: [Case; 3] = [
    case(
        "NaN in A",
        6,
        &["adapter_model.safetensors", "layer.0.attention.self.query.lora_A", "2 of NaN or Inf", "[1, 1]"],
        |root| {
            adapter(
                root,
                &changed(0, |tensor| {
                    poison(tensor, 7, f32::NAN);
                    poison(tensor, 9, f32::INFINITY);
                }),
            );
        },
    ),
    case("Inf in B", 6, &["lora_B", "1 of NaN or Inf, the first (-inf) at index [5, 1]"], |root| {
        adapter(root, &changed(3, |tensor| poison(tensor, 11, f32::NEG_INFINITY)));
    }),
    case(
        "NaN in W0",
        6,
        &["model.safetensors", "layer.1.attention.self.query.weight", "1 of NaN or Inf, the first (NaN) at index [0, 3]"],
        |root| {
            let mut tensors = base_tensors();
            poison(&mut tensors[1], 3, f32::NAN);
            base(root, &tensors);
        },
    ),
];
