//! Inputs that are JSON: indexes of shards, and what the Trainer logged.

use std::fmt::Write;

use super::entry::SHARDS;
use super::mutation::SplitMix;
use crate::generate::query;

pub(crate) const INDEX: &[&[u8]] = &[
    b"weight_map",
    b"metadata",
    b"total_size",
    b"encoder.layer.0.attention.self.query.weight",
    b"encoder.layer.1.attention.self.query.weight",
    b"\"encoder.layer.2.attention.self.query.weight\":\"c.bin\",",
    b"a.safetensors",
    b"b.safetensors",
    b"c.bin",
    b"d.bin",
    b"model.safetensors.index.json",
    b"..",
    b".",
    b"../",
    b"/dev/zero",
    b"\\u0000",
    b"\\ud800",
    b"\\u001b[2J",
    b"\xe2\x80\xae",
    b"\"\":\"\",",
    b"{",
    b"}",
    b"[[[[",
    b",",
    b"null",
    b"1e999",
    b"\xff",
    b"\xef\xbb\xbf",
];
pub(crate) const LOG: &[&[u8]] = &[
    b"log_history",
    b"step",
    b"epoch",
    b"total_flos",
    b"loss",
    b"eval_loss",
    b"\"step\":7,",
    b"\"step\":-1,",
    b"\"epoch\":1e999,",
    b"\"grad_norm\":NaN,",
    b"{\"step\":1,\"loss\":0.5},",
    b"\"x\":[{\"\":0},{\"\":0}],",
    b"\"x\":\"Infinity\",",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[",
    b",",
    b"null",
    b"true",
    b"1e15",
    b"1.0",
    b"18446744073709551615",
    b"1e400",
    b"\\ud800",
    b"\xff",
    b"\xef\xbb\xbf",
];

/// An index of the shards that there are, or nearly.
pub(crate) fn index(rng: &mut SplitMix) -> Vec<u8> {
    let mut entries: Vec<String> = Vec::new();
    for layer in 0..SHARDS.len() {
        if !rng.one_in(4) {
            let shard = if rng.one_in(8) { rng.pick(&SHARDS) } else { SHARDS[layer] };
            entries.push(format!("\"{}.weight\":\"{shard}\"", query(&layer.to_string())));
        }
    }
    let mut fields = vec![format!("\"weight_map\":{{{}}}", entries.join(","))];
    if rng.one_in(2) {
        let size = rng.pick(&["0", "48", "1e9", "null", "\"48\""]);
        fields.insert(rng.below(2), format!("\"metadata\":{{\"total_size\":{size}}}"));
    }
    format!("{{{}}}", fields.join(",")).into_bytes()
}

/// A log of some steps, with numbers of every kind.
pub(crate) fn log(rng: &mut SplitMix) -> Vec<u8> {
    let mut entries: Vec<String> = Vec::new();
    let by = [1, 10, usize::MAX / 8][rng.below(3)];
    for at in 0..rng.below(6) {
        let mut entry = format!("{{\"step\":{}{}", at * by, if rng.one_in(4) { ".0" } else { "" });
        for _ in 0..rng.below(4) {
            let name =
                rng.pick(&["loss", "eval_loss", "epoch", "learning_rate", "grad_norm", "total_flos", "\u{202e}", "a,b\\n"]);
            let value = rng.pick(&["0.5", "NaN", "-Infinity", "5e-324", "1e308", "3", "null", "\"x\"", "[1,{\"y\":2}]", "true"]);
            let _ = write!(entry, ",\"{name}\":{value}");
        }
        entries.push(entry + "}");
    }
    let rest = rng.pick(&["", "\"global_step\":3,", "\"best_metric\":null,\"trial_params\":{\"a\":[NaN]},"]);
    format!("{{{rest}\"log_history\":[{}]}}", entries.join(",")).into_bytes()
}

/// An index of very many tensors with short names.
pub(crate) fn large_index(tensors: usize) -> Vec<u8> {
    let entries: Vec<String> = (0..tensors).map(|at| format!("\"{at:x}\":\"\"")).collect();
    format!("{{\"weight_map\":{{{}}}}}", entries.join(",")).into_bytes()
}

/// A log of one entry, with this so often.
pub(crate) fn large_log(of: impl Fn(usize) -> String, count: usize) -> Vec<u8> {
    let fields: String = (0..count).map(of).collect();
    format!("{{\"log_history\":[{{{fields}\"step\":1}}]}}").into_bytes()
}
