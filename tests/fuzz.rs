//! Every reader of untrusted files on many thousands of damaged ones: no panic, no more memory than twice the input and 64 MB, less than
//! one second of processor time for less than a megabyte, and one clean line for every refusal.
//!
//! The inputs are those of `fuzz/corpus/`, as they are and then changed at random, the same in every run. `FUZZ_INPUTS` says how many
//! (100,000 for each reader), `FUZZ_SEED` which. A failure leaves its input in `target/tmp/fuzz/`; once it is repaired, that goes into the corpus.
//! The same entry points are driven by cargo-fuzz in `fuzz/`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot set itself up should stop")]
#![allow(clippy::result_large_err, reason = "the library's error is what it is")]

#[path = "bad_inputs/cases.rs"]
#[allow(dead_code, reason = "what a case is answered with is not asked here")]
mod cases;
#[path = "bad_inputs/condlora_cases.rs"]
mod condlora_cases;
#[path = "shared/cpu.rs"]
mod cpu;
#[path = "bad_inputs/foreign_cases.rs"]
mod foreign_cases;
#[path = "bad_inputs/generate.rs"]
#[allow(dead_code, reason = "pickles are written of its tensors")]
mod generate;
#[path = "bad_inputs/pickle_cases.rs"]
mod pickle_cases;
#[path = "bad_inputs/pickled.rs"]
#[allow(dead_code, reason = "only archives are written")]
mod pickled;

mod fuzzed {
    pub(crate) mod campaign;
    pub(crate) mod entry;
    pub(crate) mod grammar;
    pub(crate) mod json_grammar;
    pub(crate) mod memory;
    pub(crate) mod mutation;
}

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use fuzzed::campaign::{Campaign, corpus, most_memory};
use fuzzed::entry::Place;
use fuzzed::{entry, grammar, json_grammar, memory};

#[global_allocator]
static COUNTING: memory::Counting = memory::Counting;

const EVERY: usize = 1;

#[test]
fn safetensors_files() {
    Campaign {
        entry: &entry::SAFETENSORS,
        write: grammar::safetensors,
        tokens: grammar::HEADER,
        mend: grammar::mend_length,
        share: EVERY,
    }
    .run();
}

#[test]
fn archives_of_pickles() {
    Campaign { entry: &entry::ARCHIVE, write: grammar::archive, tokens: grammar::ZIP, mend: grammar::as_it_is, share: EVERY }
        .run();
}

#[test]
fn pickles() {
    Campaign { entry: &entry::PICKLE, write: grammar::pickle, tokens: grammar::OPCODES, mend: grammar::as_it_is, share: EVERY }
        .run();
}

#[test]
fn adapter_configs() {
    Campaign { entry: &entry::CONFIG, write: grammar::config, tokens: grammar::FIELDS, mend: grammar::as_it_is, share: EVERY }
        .run();
}

#[test]
fn indexes_of_shards() {
    Campaign {
        entry: &entry::INDEX,
        write: json_grammar::index,
        tokens: json_grammar::INDEX,
        mend: grammar::as_it_is,
        share: EVERY,
    }
    .run();
}

#[test]
fn training_logs() {
    Campaign {
        entry: &entry::TRAINING,
        write: json_grammar::log,
        tokens: json_grammar::LOG,
        mend: grammar::as_it_is,
        share: EVERY,
    }
    .run();
}

#[test]
fn tensor_names() {
    Campaign { entry: &entry::NAMES, write: grammar::names, tokens: grammar::SEGMENTS, mend: grammar::as_it_is, share: EVERY }
        .run();
}

#[test]
fn pairs_of_adapter_and_base() {
    Campaign {
        entry: &entry::PAIRING,
        write: grammar::pairing,
        tokens: grammar::SEGMENTS,
        mend: grammar::as_it_is,
        share: EVERY,
    }
    .run();
}

#[test]
fn rows_of_every_table() {
    Campaign { entry: &entry::ROWS, write: grammar::rows, tokens: grammar::CELLS, mend: grammar::as_it_is, share: EVERY }.run();
}

#[test]
fn saved_results() {
    Campaign { entry: &entry::TABLES, write: grammar::tables, tokens: grammar::CELLS, mend: grammar::as_it_is, share: EVERY }
        .run();
}

/// A figure takes a hundred times as long as its table, so there are fewer.
#[test]
fn figures_of_whatever_was_read() {
    Campaign { entry: &entry::FIGURES, write: grammar::tables, tokens: grammar::CELLS, mend: grammar::as_it_is, share: 50 }.run();
}

/// Small pieces that take many times their bytes once they are read: the limits of each reader lie below what that may come to.
#[test]
fn large_inputs_take_no_more_memory_than_small_ones() {
    let number = |at: usize| format!("\"{at:x}\":1,");
    let nested = |_| "\"x\":[{\"\":0},{\"\":0},{\"\":0},{\"\":0}],".to_owned();
    let inputs: [(&entry::Entry, Vec<u8>, &str); 5] = [
        (&entry::INDEX, json_grammar::large_index(400_000), "name of a shard"),
        (&entry::INDEX, json_grammar::large_index(5_000_000), "more than 500000 tensors"),
        (&entry::TRAINING, json_grammar::large_log(number, 490_000), ""),
        (&entry::TRAINING, json_grammar::large_log(number, 1_500_000), "more than 500000 values"),
        (&entry::TRAINING, json_grammar::large_log(nested, 400_000), ""),
    ];
    let mut place = Place::new();
    for (entry, bytes, says) in inputs {
        let (result, memory) = memory::most_during(|| (entry.run)(&mut place, &bytes));
        let answer = result.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(answer.contains(says) && answer.is_empty() == says.is_empty(), "{}: {answer}", entry.name);
        assert!(memory <= most_memory(bytes.len()), "{}: {memory} bytes for {} ({answer})", entry.name, bytes.len());
    }
}

#[test]
fn the_corpus_is_small_and_there_for_every_entry() {
    let inputs: Vec<Vec<u8>> = entry::ALL.iter().flat_map(|entry| corpus(entry.corpus)).collect();
    let bytes: usize = inputs.iter().map(Vec::len).sum();
    assert!(bytes < 200_000, "{} inputs of {bytes} bytes", inputs.len());
    assert!(entry::ALL.iter().all(|entry| !corpus(entry.corpus).is_empty()));
}

/// Writes what `tests/bad_inputs/` spoils into the corpus, as `bad-NUMBER`; files that are the same once more, and large ones, are left out.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn bad_inputs_as_corpus() {
    const LARGEST: u64 = 4000;
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut known = HashSet::new();
    for (number, case) in cases::all().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        (case.spoil)(dir.path());
        for (name, folder) in [
            ("adapter/adapter_model.safetensors", "safetensors"),
            ("adapter/adapter_model.bin", "archive"),
            ("adapter/adapter_config.json", "config"),
            ("base/model.safetensors.index.json", "index"),
        ] {
            let path = dir.path().join(name);
            let small = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
            if let Some(bytes) = small.then(|| fs::read(&path).ok()).flatten()
                && known.insert(bytes.clone())
            {
                fs::write(corpus.join(folder).join(format!("bad-{number:03}")), bytes).unwrap();
            }
        }
    }
}
