//! `condlora merge`: the shards of a study put together, as if one run had made them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::analyze::show;
use super::drawing::DrawingArgs;
use super::session::{Outcome, Session};
use crate::error::{Error, Result, escape};
use crate::figure::FigureOptions;
use crate::inputs::parse_bytes;
use crate::output::OutputDir;
use crate::record::{ShardRecord, only_base_name};
use crate::report::{REPORT_FILE, null_draws, report_html};
use crate::results::{MergedStudy, write_study};
use crate::study::{AnalyzeConfig, AnalyzeParams, Study, prepare_across};
use crate::terms::{path, path_if_any, paths};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Three machines, or one after the other
  for k in 1 2 3; do
      condlora analyze runs/ --base models/roberta-base \\
          --shard $k/3 -o parts/$k --figures none
  done
  condlora merge parts/* -o merged
  # Also compare across adapters, which are read again
  condlora merge parts/* --across -o across")]
pub(super) struct MergeArgs {
    /// Outputs of analyze --shard: all shards of one study, in any order
    #[arg(required = true, value_name = "SHARD")]
    shards: Vec<PathBuf>,
    /// Directory for the tables, figures and manifest
    #[arg(short, long, value_name = "OUT", default_value = "condlora-results")]
    out: PathBuf,
    /// Also compare each layer across adapters; reads the adapters and base models of the shards again
    #[arg(long, help_heading = "What is compared")]
    across: bool,
    /// Memory that --across may use, as in 8G [default: 80% of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Running")]
    memory_limit: Option<u64>,
    #[command(flatten)]
    drawing: DrawingArgs,
    /// Replace OUT if condlora wrote it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
}

/// The options as they were resolved, as the manifest keeps them.
#[derive(Serialize)]
struct Options<'a> {
    command: &'static str,
    #[serde(serialize_with = "paths")]
    shards: &'a [PathBuf],
    #[serde(serialize_with = "path")]
    out: &'a Path,
    across: bool,
    memory_limit: Option<u64>,
    #[serde(serialize_with = "path_if_any")]
    figures_dir: &'a Option<PathBuf>,
    #[serde(flatten)]
    drawing: &'a FigureOptions,
    /// Those of the shards.
    analyze: &'a Value,
}

/// Options in which the shards of one study may differ: they change no row.
const NO_BEARING: [&str; 11] =
    ["out", "shard", "keep_going", "memory_limit", "figures", "figures_dir", "dpi", "scale", "colours", "order", "strict"];

/// Runs the command.
pub(super) fn run(args: &MergeArgs, session: &Session) -> Result<Outcome> {
    let (pool, terminal) = (&session.pool, &session.terminal);
    let drawing = args.drawing.options()?;
    let started = std::time::Instant::now();
    let mut shards = MergedStudy::read(&args.shards, &NO_BEARING)?;
    terminal.warnings(&shards.warnings);
    let mut protected = args.shards.clone();
    protected.extend(shards.adapters.iter().flat_map(|adapter| [PathBuf::from(&adapter.path), PathBuf::from(&adapter.base)]));
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;
    if args.across {
        let study = compare_across(args, &shards, session)?;
        shards.tables.across = Some(study.tables.across.unwrap_or_default());
        session.terminal.warnings(&study.warnings);
        shards.warnings.extend(study.warnings);
        shards.inputs.extend(study.inputs);
        shards.inputs.sort();
        shards.inputs.dedup();
    }
    write_study(&mut out, &shards.tables, &shards.formats)?;
    let elsewhere = pool.install(|| args.drawing.draw(&shards.tables, only_base_name(&shards.adapters), &mut out))?;

    let options = Options {
        command: "merge",
        shards: &args.shards,
        out: &args.out,
        across: args.across,
        memory_limit: args.memory_limit,
        figures_dir: &args.drawing.figures_dir,
        drawing: &drawing,
        analyze: &shards.options,
    };
    let mut manifest = session.manifest(&options, shards.seed, shards.inputs, shards.warnings);
    manifest.adapters = shards.adapters;
    manifest.skipped = shards.skipped;
    manifest.merged_from = shards.sources;
    manifest.add_timing("merge", started.elapsed());
    let outcome = if manifest.skipped.is_empty() { Outcome::Done } else { Outcome::Skipped };
    out.write(REPORT_FILE, &report_html(&shards.tables, &manifest)?)?;
    elsewhere.write()?;
    let written = out.commit(&manifest)?;

    let text = show(&shards.tables, null_draws(&manifest), session);
    session.close(&text, &[("results in", &written), ("report:", &written.join(REPORT_FILE))])?;
    Ok(outcome)
}

/// The study that compares adapters only; what it read must be what the shards read.
fn compare_across(args: &MergeArgs, shards: &MergedStudy, session: &Session) -> Result<Study> {
    const HINT: &str =
        "merge --across reads the adapters and base models anew: run it where analyze ran, with the files as they were";
    let config = study_of(args, shards)?;
    let prepared = session.pool.install(|| prepare_across(config.clone())).map_err(|error| error.with_hint(HINT))?;
    let whole = |shard: &ShardRecord| (shard.names_blake3.clone(), shard.adapters);
    let expected = shards.sources.first().map(|source| whole(&source.shard)).unwrap_or_default();
    let found = prepared.shard().map(whole).unwrap_or_default();
    if expected != found {
        let expected = format!("the {} that the shards were made of", expected.1);
        let found = format!("{} of other names", found.1);
        let first = config.params().paths.first().cloned().unwrap_or_default();
        return Err(Error::mismatch(&first, "adapters to compare", expected, found).with_hint(HINT));
    }
    let study = session.compute("readings", |progress| prepared.run_with(progress)).map_err(|error| error.with_hint(HINT))?;
    let known: std::collections::BTreeMap<(&str, Option<&str>), &str> =
        shards.inputs.iter().map(|i| ((i.file.as_str(), i.tensor.as_deref()), i.blake3.as_str())).collect();
    for input in &study.inputs {
        if known.get(&(input.file.as_str(), input.tensor.as_deref())).is_some_and(|hash| *hash != input.blake3) {
            let what = input.tensor.as_deref().map_or_else(|| "header".to_owned(), |name| format!("tensor `{}`", escape(name)));
            let path = PathBuf::from(&input.file);
            return Err(Error::mismatch(&path, what, "the contents that the shards were made from", "others").with_hint(HINT));
        }
    }
    Ok(study)
}

/// The study that the shards are parts of, as far as its adapters are compared with one another.
fn study_of(args: &MergeArgs, shards: &MergedStudy) -> Result<AnalyzeConfig> {
    let first = shards.sources.first().map(|source| PathBuf::from(&source.path)).unwrap_or_default();
    let mut params = AnalyzeParams::deserialize(&shards.options).map_err(|error| {
        Error::malformed(&first.join("manifest.json"), "options", "those of analyze", escape(&error.to_string()))
    })?;
    params.across = true;
    params.measures = false;
    params.grid = Vec::new();
    params.shard = None;
    params.memory_limit = args.memory_limit;
    // What the shards skipped is skipped here.
    params.keep_going |= !shards.skipped.is_empty();
    params.check()
}
