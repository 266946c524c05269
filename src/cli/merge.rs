//! `condlora merge`: the shards of a study put together, as if one run had made them.

use std::path::PathBuf;

use clap::Args;
use rayon::ThreadPool;

use super::analyze::{NO_BEARING, params_of};
use super::drawing::{DrawingArgs, add_to_manifest};
use super::progress::Reporter;
use super::terminal::Terminal;
use super::{Global, Outcome, input_record, summary};
use crate::error::{Error, Result, escape};
use crate::linalg::lapack::blas_description;
use crate::report::{REPORT_FILE, report_html};
use crate::study::{AnalyzeConfig, parse_bytes, prepare_across};
use crate::table::{AcrossRow, InputRecord, Manifest, OutputDir, Shards, only_base_name, summary_json, write_study};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Three machines, or one after the other
  for k in 1 2 3; do
      condlora analyze runs/ --base models/roberta-base \\
          --shard $k/3 -o parts/$k --figures none
  done
  condlora merge parts/* -o merged
  # Also adapter by adapter: reads the adapters again
  condlora merge parts/* --across -o across")]
pub(super) struct MergeArgs {
    /// What analyze --shard wrote: all shards of one study, in any order
    #[arg(required = true, value_name = "SHARD")]
    shards: Vec<PathBuf>,
    /// Where the tables, figures and manifest go
    #[arg(short, long, value_name = "OUT", default_value = "condlora-results")]
    out: PathBuf,
    /// Also compare the same layer of different adapters, from the adapters and base models that the shards were made from
    #[arg(long, help_heading = "What is compared")]
    across: bool,
    /// Memory that --across may use, as in 8G [default: 80% of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Running")]
    memory_limit: Option<u64>,
    #[command(flatten)]
    drawing: DrawingArgs,
    /// Replace OUT if condlora made it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
}

/// Runs the command.
pub(super) fn run(
    args: &MergeArgs,
    global: &Global,
    command_line: Vec<String>,
    pool: &ThreadPool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let drawing = args.drawing.options()?;
    let started = std::time::Instant::now();
    let mut shards = Shards::read(&args.shards, &NO_BEARING)?;
    for warning in &shards.warnings {
        terminal.warning(warning);
    }
    let mut protected = args.shards.clone();
    protected.extend(shards.adapters.iter().flat_map(|adapter| [PathBuf::from(&adapter.path), PathBuf::from(&adapter.base)]));
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;
    if args.across {
        let (rows, read) = compare_across(args, &shards, global, pool)?;
        shards.tables.across = Some(rows);
        shards.inputs.extend(read);
        shards.inputs.sort();
        shards.inputs.dedup();
    }
    write_study(&mut out, &shards.tables, &shards.formats)?;
    let elsewhere = pool.install(|| args.drawing.draw(&shards.tables, only_base_name(&shards.adapters), &mut out))?;

    let mut manifest = Manifest::new(command_line);
    manifest.options = serde_json::json!({
        "command": "merge",
        "shards": args.shards.iter().map(|dir| dir.to_string_lossy()).collect::<Vec<_>>(),
        "out": args.out.to_string_lossy(),
        "across": args.across,
        "memory_limit": args.memory_limit,
        "figures_dir": args.drawing.figures_dir.as_deref().map(|dir| dir.to_string_lossy()),
        "analyze": shards.options,
    });
    add_to_manifest(&mut manifest.options, &drawing, true);
    manifest.seed = shards.seed;
    manifest.threads = pool.current_num_threads();
    manifest.inputs = shards.inputs;
    manifest.adapters = shards.adapters;
    manifest.skipped = shards.skipped;
    manifest.merged_from = shards.sources;
    manifest.warnings = shards.warnings;
    manifest.libraries.insert("openblas".into(), blas_description());
    manifest.add_timing("merge", started.elapsed());
    let outcome = if manifest.skipped.is_empty() { Outcome::Done } else { Outcome::Skipped };
    out.write(REPORT_FILE, &report_html(&shards.tables, &manifest)?)?;
    elsewhere.write()?;
    let written = out.commit(&manifest)?;

    let rows = &shards.tables.summary;
    let shown = terminal.data(&if global.json { summary_json(rows) } else { summary::text(rows, terminal) });
    terminal.note(&format!("results in {}", crate::error::show_path(&written)));
    terminal.note(&format!("report: {}", crate::error::show_path(&written.join(REPORT_FILE))));
    shown?;
    Ok(outcome)
}

/// The rows of `across.csv` and what was read for them, which must be what the shards read.
fn compare_across(
    args: &MergeArgs,
    shards: &Shards,
    global: &Global,
    pool: &ThreadPool,
) -> Result<(Vec<AcrossRow>, Vec<InputRecord>)> {
    const HINT: &str =
        "merge --across reads the adapters and base models anew: run it where analyze ran, with the files as they were";
    let config = study_of(args, shards)?;
    let prepared = pool.install(|| prepare_across(&config)).map_err(|error| error.with_hint(HINT))?;
    let whole = shards.sources.first().map(|source| (source.shard.adapters, source.shard.names_blake3.as_str()));
    if whole != prepared.whole().map(|whole| (whole.adapters, whole.names_hash.as_str())) {
        let found = prepared.whole().map_or(0, |whole| whole.adapters);
        let expected = format!("the {} that the shards were made of", whole.map_or(0, |whole| whole.0));
        let first = config.params().paths.first().cloned().unwrap_or_default();
        return Err(Error::mismatch(&first, "adapters to compare", expected, format!("{found} of other names")).with_hint(HINT));
    }
    let reporter = Reporter::new(global.progress, global.quiet, "base weights");
    let study = pool.install(|| prepared.run(&reporter));
    reporter.finish();
    let study = study.map_err(|error| error.with_hint(HINT))?;
    let read: Vec<InputRecord> = study.inputs.iter().map(input_record).collect();
    let known: std::collections::BTreeMap<(&str, Option<&str>), &str> =
        shards.inputs.iter().map(|i| ((i.file.as_str(), i.tensor.as_deref()), i.blake3.as_str())).collect();
    for input in &read {
        if known.get(&(input.file.as_str(), input.tensor.as_deref())).is_some_and(|hash| *hash != input.blake3) {
            let what = input.tensor.as_deref().map_or_else(|| "header".to_owned(), |name| format!("tensor `{}`", escape(name)));
            let path = PathBuf::from(&input.file);
            return Err(Error::mismatch(&path, what, "the contents that the shards were made from", "others").with_hint(HINT));
        }
    }
    Ok((study.tables.across.unwrap_or_default(), read))
}

/// The study that the shards are parts of, as far as its adapters are compared with one another.
fn study_of(args: &MergeArgs, shards: &Shards) -> Result<AnalyzeConfig> {
    let first = shards.sources.first().map(|source| PathBuf::from(&source.path)).unwrap_or_default();
    let mut params = params_of(&shards.options)
        .ok_or_else(|| Error::malformed(&first.join("manifest.json"), "options", "those of analyze", "others"))?;
    params.across = true;
    params.measures = false;
    params.grid = Vec::new();
    params.shard = None;
    params.memory_limit = args.memory_limit;
    // What the shards passed over is passed over here.
    params.keep_going |= !shards.skipped.is_empty();
    params.check()
}
