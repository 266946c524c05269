//! How commands end, what they write and which environment variables they read.

/// A term and what it means.
pub(super) type Entry = (&'static str, &'static str);

/// The environment variables that the program reads.
pub(super) const ENVIRONMENT: [Entry; 6] = [
    ("HF_HUB_CACHE", "the Hugging Face cache, where a base model is looked up"),
    ("HF_HOME", "its parent directory, used if HF_HUB_CACHE is not set"),
    ("XDG_CACHE_HOME", "its parent, used if HF_HOME is not set [~/.cache]"),
    ("NO_COLOR", "no colour if set and not empty, unless --color always"),
    ("TERM", "no colour if it is dumb"),
    ("RAYON_NUM_THREADS", "number of threads, if --threads is not given"),
];

const MANIFEST: Entry = ("manifest.json", "versions, options, seed, hashes, timings");
const FINISHED: Entry = ("0", "finished");
const USAGE: Entry = ("2", "the command line is wrong");
const OUTPUT: Entry = ("7", "the output cannot be written, or exists without --overwrite");
const BUG: Entry = ("70", "a bug in condlora");

/// How a command can end (docs/spec.md, section 4); for the program itself, all that there is.
pub(super) fn exit_codes(command: &str) -> Vec<Entry> {
    let skipped = match command {
        "analyze" => Some("finished, but adapters were skipped (--keep-going; each is named)"),
        "inspect" => Some("finished, and analyze would refuse an adapter"),
        "fit" => Some("finished, but modules were skipped (each is named)"),
        "merge" => Some("finished, but the shards had skipped adapters (each is named)"),
        "compare" | "materialize" | "figures" => None,
        "completions" => return vec![FINISHED, USAGE],
        "man" => return vec![FINISHED, USAGE, ("7", "a page cannot be written")],
        _ => Some("finished, but adapters or modules were skipped (each is named)"),
    };
    let numerical = match command {
        "analyze" | "condlora" => Some("refused on numerical grounds: NaN or Inf in a weight, or --strict"),
        "inspect" | "figures" => None,
        _ => Some("refused on numerical grounds: NaN or Inf in a weight"),
    };
    let writes = command != "inspect";
    [
        Some(FINISHED),
        skipped.map(|meaning| ("1", meaning)),
        Some(USAGE),
        Some(("3", "an input is missing or cannot be read")),
        Some(("4", "an input file is malformed")),
        Some(("5", "inputs do not fit together, or use something unsupported")),
        numerical.map(|meaning| ("6", meaning)),
        writes.then_some(OUTPUT),
        Some(("8", "a resource limit would be exceeded")),
        Some(BUG),
        Some(("130, 143", "interrupted (SIGINT, SIGTERM); no partial output is left")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is in a command's output directory. `tests/manual.rs` checks each list against what the command writes.
pub(super) fn files(command: &str) -> Vec<Entry> {
    match command {
        "analyze" => vec![
            ("report.html", "the study on one page: verdicts, tables, heatmaps"),
            ("summary.csv", "mean φ over pairs of layers, with controls, as printed"),
            ("similarity.csv", "φ of every pair of layers, its bound, controls, status"),
            ("conversion.csv", "every layer: shapes, rank, condition of W0, residuals"),
            ("spectrum.csv", "singular values of the conversion matrices and updates"),
            ("cuts.csv", "A and B through W0, with the strict control"),
            ("energy.csv", "with --cuts: where Θ lies in the spectrum of W0"),
            ("subspaces.csv", "with --cuts: φ of W0's own singular subspaces"),
            ("across.csv", "with --across: φ of each layer across adapters"),
            ("measures.csv", "with --measures: principal angles and CKA"),
            ("grid.csv", "with --grid: φ of two layers for all numbers of vectors"),
            ("updates.csv", "every update ΔW: its size beside W0, ranks, cosine"),
            ("relation.csv", "what each update sees of W0, beside random directions"),
            ("alignment.csv", "where each update lies in the spectrum of W0"),
            ("intruders.csv", "with --intruders: leading vectors of W0 + ΔW"),
            ("intruder_counts.csv", "with --intruders: how many are like none of W0's"),
            ("training.csv", "the training logs in the adapters' folders"),
            ("matrices/", "φ as a matrix, one file for each module and matrix"),
            ("*.parquet", "with --formats parquet: the tables"),
            ("npy/", "with --formats npy: the φ matrices, for NumPy"),
            ("figures/", "heatmaps and an overview for each adapter"),
            MANIFEST,
        ],
        "merge" => vec![("as analyze", "the same bytes as from one run, except manifest.json")],
        "compare" => {
            vec![("compare.csv", "φ of every layer, with its control"), ("figures/", "φ by layer, one for each module"), MANIFEST]
        }
        "fit" => vec![
            ("adapter_model.safetensors", "Θ_A and Θ_B of each module"),
            ("adapter_config.json", "as the authors' code writes it for a CondLoRA"),
            ("fit.csv", "residuals by layer and in all, with their controls"),
            ("heldout.csv", "with --held-out: each layer left out, predicted"),
            ("figures/", "residuals and predictions, one each for each module"),
            MANIFEST,
        ],
        "materialize" => {
            vec![("adapter_model.safetensors", "A and B of each layer"), ("adapter_config.json", "for PEFT"), MANIFEST]
        }
        "figures" => vec![
            ("figures/", "the figures, if --figures-dir does not name another place"),
            ("manifest.json", "of the results, with the new figures' hashes"),
        ],
        _ => Vec::new(),
    }
}
