//! How commands end, what they write and what they heed.

/// A term and what it means.
pub(super) type Entry = (&'static str, &'static str);

/// What the program heeds beside its arguments.
pub(super) const ENVIRONMENT: [Entry; 6] = [
    ("HF_HUB_CACHE", "the Hugging Face cache: base models by name"),
    ("HF_HOME", "its parent, where HF_HUB_CACHE is unset"),
    ("XDG_CACHE_HOME", "that one's parent, where HF_HOME is unset [~/.cache]"),
    ("NO_COLOR", "if not empty, no colour unless --color always"),
    ("TERM", "no colour if it is dumb"),
    ("RAYON_NUM_THREADS", "number of threads, where --threads is not given"),
];

const MANIFEST: Entry = ("manifest.json", "versions, options, seed, hashes, timings");
const DONE: Entry = ("0", "done");
const USAGE: Entry = ("2", "wrong usage");
const OUTPUT: Entry = ("7", "the output cannot be written, or exists without --overwrite");
const BUG: Entry = ("70", "a bug in condlora");

/// How a command can end (SPEC section 4); all there is for one that is not known here.
pub(super) fn exit_codes(command: &str) -> Vec<Entry> {
    let skipped = match command {
        "analyze" => Some("done, but adapters were passed over (--keep-going), each named"),
        "inspect" => Some("done, and analyze would refuse an adapter"),
        "fit" => Some("done, but modules were passed over, each named"),
        "merge" => Some("done, but the shards had passed adapters over, each named"),
        "compare" | "materialize" | "figures" => None,
        "completions" => return vec![DONE, USAGE],
        "man" => return vec![DONE, USAGE, ("7", "a page cannot be written")],
        _ => Some("done, with something passed over that is named"),
    };
    let numerical = match command {
        "analyze" | "condlora" => Some("refused on numerical grounds: NaN or Inf in a weight, or --strict"),
        "inspect" | "figures" => None,
        _ => Some("refused on numerical grounds: NaN or Inf in a weight"),
    };
    let writes = command != "inspect";
    [
        Some(DONE),
        skipped.map(|meaning| ("1", meaning)),
        Some(USAGE),
        Some(("3", "an input is missing or unreadable")),
        Some(("4", "an input file is malformed")),
        Some(("5", "inputs do not fit together, or use something unsupported")),
        numerical.map(|meaning| ("6", meaning)),
        writes.then_some(OUTPUT),
        Some(("8", "a resource limit would be exceeded")),
        Some(BUG),
        Some(("130, 143", "interrupted (SIGINT, SIGTERM): nothing half-written is left")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is in a command's output directory.
pub(super) fn files(command: &str) -> Vec<Entry> {
    match command {
        "analyze" => vec![
            ("report.html", "the study on one page: verdicts, tables, heatmaps"),
            ("summary.csv", "means over pairs of layers, with controls: as printed"),
            ("similarity.csv", "φ of every pair of layers, its bound, controls, status"),
            ("conversion.csv", "every layer: shapes, rank, condition of W0, residuals"),
            ("spectrum.csv", "singular values of the conversion matrices"),
            ("across.csv", "with --across: φ of the same layer of different adapters"),
            ("measures.csv", "with --measures: principal angles and CKA"),
            ("grid.csv", "with --grid: φ of two layers by every number of vectors"),
            ("training.csv", "the training log beside an adapter, where there is one"),
            ("matrices/", "φ as a matrix, one file each"),
            ("figures/", "heatmaps and an overview for each adapter"),
            MANIFEST,
        ],
        "merge" => vec![("all of analyze's", "byte for byte as one run gives them, but for manifest.json")],
        "compare" => vec![
            ("compare.csv", "φ of every layer, with its control"),
            ("figures/", "φ by layer, a picture for each module"),
            MANIFEST,
        ],
        "fit" => vec![
            ("adapter_model.safetensors", "Θ_A and Θ_B of each module"),
            ("adapter_config.json", "as the authors' code writes it for a CondLoRA"),
            ("fit.csv", "what Θ leaves of each layer and of all; by chance"),
            MANIFEST,
        ],
        "materialize" => {
            vec![("adapter_model.safetensors", "A and B of each layer"), ("adapter_config.json", "for PEFT"), MANIFEST]
        }
        _ => Vec::new(),
    }
}
