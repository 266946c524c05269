//! `condlora merge`: the shards of a study put together, as if one run had made them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::analyze::{NO_BEARING, by_name, refuse_doubt, say_found, say_skipped, say_unusable, show};
use super::drawing::DrawingArgs;
use super::session::{Outcome, Session};
use crate::error::{Error, Result, escape};
use crate::figure::FigureOptions;
use crate::inputs::parse_bytes;
use crate::output::OutputDir;
use crate::record::{ShardRecord, only_base_name};
use crate::report::{REPORT_FILE, null_draws, report_html};
use crate::results::{MergedShards, write_study};
use crate::study::{AnalyzeConfig, AnalyzeParams, SolvedFiles, prepare_merged};
use crate::terms::{path, path_if_any, paths};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Three machines, or one after the other
  for k in 1 2 3; do
      condlora analyze runs/ --base models/roberta-base \\
          --shard $k/3 -o parts/$k
  done
  condlora merge parts/* -o merged
  # Also compare across adapters
  condlora merge parts/* --across -o across")]
pub(super) struct MergeArgs {
    /// Outputs of analyze --shard: all shards of one study, in any order
    #[arg(required = true, value_name = "SHARD")]
    shards: Vec<PathBuf>,
    /// Directory for the tables, figures and manifest
    #[arg(short, long, value_name = "OUT", default_value = "condlora-results")]
    out: PathBuf,
    /// Also compare each layer across adapters
    #[arg(long, help_heading = "What is compared")]
    across: bool,
    /// Memory to use at most, as in 8G [default: 80% of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Running")]
    memory_limit: Option<u64>,
    #[command(flatten)]
    drawing: DrawingArgs,
    /// Replace OUT if condlora wrote it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
    /// Fail unless every status is ok
    #[arg(long, help_heading = "Running")]
    strict: bool,
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
    strict: bool,
    /// Those of the shards.
    analyze: &'a Value,
}

/// Runs the command.
pub(super) fn run(args: &MergeArgs, session: &Session) -> Result<Outcome> {
    const HINT: &str =
        "merge reads the headers of the adapters and base models again: run it where analyze ran, with the files as they were";
    let (pool, terminal) = (&session.pool, &session.terminal);
    let drawing = args.drawing.options()?;
    let started = std::time::Instant::now();
    let shards = MergedShards::read(&args.shards, &NO_BEARING)?;
    let config = study_of(args, &shards)?;
    let mut files = SolvedFiles::default();
    shards.files.iter().for_each(|(dir, name, hash)| files.add(dir, name, hash));
    let prepared = pool.install(|| prepare_merged(config.clone(), files)).map_err(|error| error.with_hint(HINT))?;
    check_adapters(&shards, &prepared.shard(), config.params()).map_err(|error| error.with_hint(HINT))?;
    shards.check_unchanged(&prepared.header_records()).map_err(|error| error.with_hint(HINT))?;
    let mut warnings = prepared.warnings();
    warnings.extend(shards.warnings.iter().cloned());
    terminal.warnings(&warnings);
    let mut refused = prepared.skipped().to_vec();
    let mut skipped = say_skipped(prepared.skipped(), terminal);
    skipped.extend(say_unusable(&prepared, args.strict, terminal)?);
    let mut protected = args.shards.clone();
    protected.extend(prepared.input_dirs());
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;
    let study = session.compute("base weights", |progress| prepared.run_with(progress))?;
    say_found(&study, terminal, &mut warnings, &mut skipped, &mut refused);
    if args.strict {
        refuse_doubt(&study.tables, &args.out)?;
    }
    write_study(&mut out, &study.tables, &shards.formats)?;
    let elsewhere = pool.install(|| args.drawing.draw(&study.tables, only_base_name(&study.adapters), &mut out))?;

    let options = Options {
        command: "merge",
        shards: &args.shards,
        out: &args.out,
        across: args.across,
        memory_limit: args.memory_limit,
        figures_dir: &args.drawing.figures_dir,
        drawing: &drawing,
        strict: args.strict,
        analyze: &shards.options,
    };
    let outcome = if skipped.is_empty() { Outcome::Done } else { Outcome::Skipped };
    warnings.append(&mut skipped);
    let mut manifest = session.manifest(&options, shards.seed, study.inputs, warnings);
    manifest.adapters = study.adapters;
    manifest.skipped = by_name(&refused);
    manifest.merged_from = shards.sources;
    manifest.add_timing("merge", started.elapsed());
    out.write(REPORT_FILE, &report_html(&study.tables, &manifest)?)?;
    elsewhere.write()?;
    let written = out.commit(&manifest)?;

    let text = show(&study.tables, null_draws(&manifest), session);
    session.close(&text, &[("results in", &written), ("report:", &written.join(REPORT_FILE))])?;
    Ok(outcome)
}

/// Refuses to merge where other adapters are found now than by the shards.
fn check_adapters(shards: &MergedShards, found: &ShardRecord, params: &AnalyzeParams) -> Result<()> {
    let whole = |shard: &ShardRecord| (shard.names_blake3.clone(), shard.adapters);
    let expected = shards.sources.first().map(|source| whole(&source.shard)).unwrap_or_default();
    if expected == whole(found) {
        return Ok(());
    }
    let first = params.paths.first().cloned().unwrap_or_default();
    let expected = format!("the {} that the shards were made of", expected.1);
    Err(Error::mismatch(&first, "adapters to compare", expected, format!("{} of other names", found.adapters)))
}

/// The study that the shards are parts of.
fn study_of(args: &MergeArgs, shards: &MergedShards) -> Result<AnalyzeConfig> {
    let first = shards.sources.first().map(|source| PathBuf::from(&source.path)).unwrap_or_default();
    let mut params = AnalyzeParams::deserialize(&shards.options).map_err(|error| {
        Error::malformed(&first.join("manifest.json"), "options", "those of analyze", escape(&error.to_string()))
    })?;
    params.across |= args.across;
    params.shard = None;
    params.memory_limit = args.memory_limit;
    // What the shards skipped is skipped here.
    params.keep_going |= shards.skipped;
    params.check()
}
