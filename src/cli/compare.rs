//! `condlora compare`: two adapters of one base, layer by layer.

use std::path::PathBuf;

use clap::Args;
use rayon::ThreadPool;

use super::analyze::{parse_pair, plain};
use super::drawing::{FormatArgs, add_to_manifest};
use super::progress::Reporter;
use super::terminal::Terminal;
use super::{Global, Outcome, averages, input_record};
use crate::checkpoint::NameMap;
use crate::error::{Result, show_path};
use crate::figure::{FigureOptions, draw_comparison};
use crate::linalg::lapack::blas_description;
use crate::shared_theta::{CompareConfig, CompareParams, prepare_comparison};
use crate::table::{Manifest, OutputDir, TableFormat, write_table};
use crate::verdict::RunVerdict;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # A LoRA and the CondLoRA trained on the same task (the paper's Table 3)
  condlora compare adapters/sst2 condlora/sst2 -o table3
  # Two seeds, by all vectors and by the first alone
  condlora compare runs/seed0 runs/seed1 --base models/roberta-base \\
      --modules value --ij 8,8 --ij 1,1 -o seeds")]
pub(super) struct CompareArgs {
    /// An adapter's directory, LoRA or CondLoRA
    #[arg(value_name = "LEFT")]
    left: PathBuf,
    /// The directory of another adapter of the same base model
    #[arg(value_name = "RIGHT")]
    right: PathBuf,
    /// Base model: its directory, its weight file or index, or its name in the Hugging Face cache [default: the one that both adapters name]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// Where a module's dotted path has FROM, the base has TO; repeatable, one after the other
    #[arg(long, value_name = "FROM=TO", help_heading = "Adapter and base")]
    map: Vec<NameMap>,
    /// Where compare.csv, the figures and the manifest go
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,

    /// Only these modules, by name
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is compared")]
    modules: Vec<String>,
    /// Only these layers: 0-based indices and inclusive ranges (0..5,8)
    #[arg(long, value_name = "LIST", help_heading = "What is compared")]
    layers: Option<String>,
    /// Numbers of singular vectors, of LEFT and of RIGHT; repeatable [default: the smaller rank]
    #[arg(long, value_name = "I,J", value_parser = parse_pair, help_heading = "What is compared")]
    ij: Vec<(usize, usize)>,
    /// Read CondLoRA checkpoints by Eq. 6 as printed: B = W0ᵀ·Θ_B
    #[arg(long, help_heading = "Adapter and base")]
    eq6: bool,

    /// How often a Gaussian Θ is drawn where a side is a CondLoRA
    #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, help_heading = "Controls")]
    null_draws: usize,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Controls")]
    seed: u64,

    #[command(flatten)]
    drawing: FormatArgs,
    /// Replace OUT if condlora made it
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

/// Runs the command.
pub(super) fn run(
    args: &CompareArgs,
    global: &Global,
    command_line: Vec<String>,
    pool: &ThreadPool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let config = args.params().check()?;
    let drawing = args.drawing.options()?;
    let prepared = prepare_comparison(&config)?;
    let warnings = prepared.warnings().to_vec();
    for warning in &warnings {
        terminal.warning(warning);
    }
    let mut protected = prepared.input_dirs();
    protected.extend([args.left.clone(), args.right.clone()]);
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;

    let started = std::time::Instant::now();
    let reporter = Reporter::new(global.progress, global.quiet, "layers");
    let comparison = pool.install(|| prepared.run(&reporter));
    reporter.finish();
    let comparison = comparison?;
    let analysis = started.elapsed();

    let writing = std::time::Instant::now();
    write_table(&mut out, &comparison.rows, &[TableFormat::Csv])?;
    for figure in pool.install(|| draw_comparison(&comparison.rows, &drawing))? {
        out.write(&format!("figures/{}", figure.path()), &figure.bytes)?;
    }
    let writing = writing.elapsed();

    let mut manifest = Manifest::new(command_line);
    manifest.options = options_json(args, &config, &drawing);
    manifest.seed = Some(args.seed);
    manifest.threads = pool.current_num_threads();
    manifest.inputs = comparison.inputs.iter().map(input_record).collect();
    manifest.warnings = warnings;
    manifest.libraries.insert("openblas".into(), blas_description());
    for (stage, took) in [("analysis", analysis), ("tables and figures", writing)] {
        manifest.add_timing(stage, took);
        terminal.detail(&format!("{stage}: {:.1} ms", took.as_secs_f64() * 1e3));
    }
    let written = out.commit(&manifest)?;

    let rows = &comparison.averages;
    let verdict = RunVerdict::of_comparison(rows, args.null_draws);
    let shown = terminal.data(&if global.json { verdict.json(rows) } else { averages::text(rows, &verdict, terminal) });
    terminal.note(&format!("results in {}", show_path(&written)));
    shown?;
    Ok(Outcome::Done)
}

/// The options as they were resolved, for the manifest.
fn options_json(args: &CompareArgs, config: &CompareConfig, drawing: &FigureOptions) -> serde_json::Value {
    let given = config.params();
    let mut options = serde_json::json!({
        "command": "compare",
        "left": plain(&given.left),
        "right": plain(&given.right),
        "base": given.base.as_deref().map(plain),
        "out": plain(&args.out),
        "map": given.maps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "modules": given.modules,
        "layers": given.layers,
        "ij": given.ij,
        "null_draws": given.null_draws,
        "seed": given.seed,
        "eq6": given.eq6,
    });
    add_to_manifest(&mut options, drawing, false);
    options
}
