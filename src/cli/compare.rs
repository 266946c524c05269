//! `condlora compare`: two adapters of one base, layer by layer.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::analyze::parse_pair;
use super::analyze::say_skipped;
use super::averages;
use super::drawing::FormatArgs;
use super::session::{Outcome, Session};
use crate::checkpoint::NameMap;
use crate::error::Result;
use crate::figure::{Dpi, FigureFormat, draw_comparison};
use crate::output::OutputDir;
use crate::results::write_table;
use crate::shared_theta::{CompareParams, prepare_comparison};
use crate::terms::path;
use crate::verdict::RunVerdict;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # A LoRA and the CondLoRA trained on the same task (the paper's Table 3)
  condlora compare adapters/sst2 condlora/sst2 -o table3
  # Two seeds, with all vectors and with the first alone
  condlora compare runs/seed0 runs/seed1 --base models/roberta-base \\
      --modules value --ij 8,8 --ij 1,1 -o seeds")]
pub(super) struct CompareArgs {
    /// Adapter directory, LoRA or CondLoRA
    #[arg(value_name = "LEFT")]
    left: PathBuf,
    /// Directory of another adapter of the same base model
    #[arg(value_name = "RIGHT")]
    right: PathBuf,
    /// Base model: a directory, a weight file or index, or a name in the Hugging Face cache [default: the one that both adapters name]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// Replace FROM by TO in module paths when looking for the base weight; repeat to apply several, in order
    #[arg(long, value_name = "FROM=TO", help_heading = "Adapter and base")]
    map: Vec<NameMap>,
    /// Directory for compare.csv, the figures and the manifest
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,

    /// Only these modules
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is compared")]
    modules: Vec<String>,
    /// Only these layers: 0-based indices and inclusive ranges, as in 0..5,8, or paths of blocks, as in down_blocks.1
    #[arg(long, value_name = "LIST", help_heading = "What is compared")]
    layers: Option<String>,
    /// Numbers of singular vectors of LEFT and RIGHT to compare; repeatable [default: the smaller rank]
    #[arg(long, value_name = "I,J", value_parser = parse_pair, help_heading = "What is compared")]
    ij: Vec<(usize, usize)>,
    /// Read CondLoRA checkpoints by Eq. 6 as printed: B = W0ᵀ·Θ_B
    #[arg(long, help_heading = "Adapter and base")]
    eq6: bool,

    /// Number of Gaussian Θ drawn as the control where a side is a CondLoRA
    #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, help_heading = "Controls")]
    null_draws: usize,
    /// Seed of the random draws
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Controls")]
    seed: u64,

    #[command(flatten)]
    drawing: FormatArgs,
    /// Replace OUT if condlora wrote it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
}

impl CompareArgs {
    fn params(&self) -> CompareParams {
        CompareParams {
            left: self.left.clone(),
            right: self.right.clone(),
            base: self.base.clone(),
            maps: self.map.clone(),
            modules: self.modules.clone(),
            layers: self.layers.clone(),
            ij: self.ij.clone(),
            null_draws: self.null_draws,
            seed: self.seed,
            eq6: self.eq6,
        }
    }
}

/// The options as they were resolved, as the manifest keeps them.
#[derive(Serialize)]
struct Options<'a> {
    command: &'static str,
    #[serde(flatten)]
    params: &'a CompareParams,
    #[serde(serialize_with = "path")]
    out: &'a Path,
    figures: &'a [FigureFormat],
    dpi: Dpi,
}

/// Runs the command.
pub(super) fn run(args: &CompareArgs, session: &Session) -> Result<Outcome> {
    let (pool, terminal) = (&session.pool, &session.terminal);
    let config = args.params().check()?;
    let drawing = args.drawing.options()?;
    let prepared = prepare_comparison(config.clone())?;
    let mut warnings = prepared.warnings().to_vec();
    terminal.warnings(&warnings);
    let skipped = say_skipped(prepared.skipped(), terminal);
    let outcome = if skipped.is_empty() { Outcome::Done } else { Outcome::Skipped };
    warnings.extend(skipped);
    let mut protected = prepared.input_dirs();
    protected.extend([args.left.clone(), args.right.clone()]);
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;

    let started = Instant::now();
    let comparison = session.compute("layers", |progress| prepared.run_with(progress))?;
    let analysis = started.elapsed();

    let writing = Instant::now();
    write_table(&mut out, &comparison.rows)?;
    for figure in pool.install(|| draw_comparison(&comparison.rows, &drawing))? {
        out.write(&format!("figures/{}", figure.path()), &figure.bytes)?;
    }
    let writing = writing.elapsed();

    let options =
        Options { command: "compare", params: config.params(), out: &args.out, figures: &drawing.formats, dpi: drawing.dpi };
    let mut manifest = session.manifest(&options, Some(args.seed), comparison.inputs.clone(), warnings);
    session.took(&mut manifest, "analysis", analysis, "");
    session.took(&mut manifest, "tables and figures", writing, "");
    let written = out.commit(&manifest)?;

    let rows = &comparison.averages;
    let verdict = RunVerdict::of_comparison(rows, args.null_draws);
    let text = if session.json() { verdict.json(rows) } else { averages::text(rows, &verdict, terminal) };
    session.close(&text, &[("results in", &written)])?;
    Ok(outcome)
}
