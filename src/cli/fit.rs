//! `condlora fit`: one shared Θ per module of a trained LoRA, written as a CondLoRA checkpoint.

use std::path::PathBuf;
use std::{io, time::Instant};

use clap::{Args, ValueEnum};
use rayon::ThreadPool;

use super::analyze::{ConventionChoice, adapter_record, plain};
use super::drawing::{FormatArgs, add_to_manifest};
use super::progress::Reporter;
use super::terminal::Terminal;
use super::{Global, Outcome, fit_summary, input_record};
use crate::checkpoint::{FloatType, NameMap, adapter::WEIGHTS_FILE, config::CONFIG_FILE};
use crate::error::{Result, escape, show_path};
use crate::figure::{FigureContext, FigureOptions, draw_fit};
use crate::linalg::lapack::blas_description;
use crate::shared_theta::{FitParams, prepare_fit};
use crate::table::{Manifest, OutputDir, TableFormat, write_table};
use crate::terms::Convention;
use crate::verdict::FitVerdict;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The Θ that come nearest to A and B as they are stored
  condlora fit adapters/sst2 --base models/roberta-base -o fitted
  # Those that come nearest to the updates B·A, whatever the basis of A and B
  condlora fit adapters/sst2 --base models/roberta-base --delta -o by-updates")]
pub(super) struct FitArgs {
    /// The adapter's directory
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// The directory of the CondLoRA checkpoint and fit.csv
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Base model: its directory, its weight file or index, or its name in the Hugging Face cache [default: the one the adapter names]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// Where a module's dotted path has FROM, the base has TO; repeatable, one after the other
    #[arg(long, value_name = "FROM=TO", help_heading = "Adapter and base")]
    map: Vec<NameMap>,

    /// Fit the updates B·A, which do not know the basis of A and B, in place of A and B as stored
    #[arg(long, help_heading = "What is fitted")]
    delta: bool,
    /// Only these modules, by name
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is fitted")]
    modules: Vec<String>,
    /// Only these layers: 0-based indices and inclusive ranges (0..5,8)
    #[arg(long, value_name = "LIST", help_heading = "What is fitted")]
    layers: Option<String>,
    /// The equations: the paper's need square weights; auto uses `general` where one is not
    #[arg(long, default_value = "auto", help_heading = "What is fitted")]
    convention: ConventionChoice,

    /// How many times Gaussian targets of the same norms are fitted too
    #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, help_heading = "Controls")]
    null_draws: usize,
    /// Seed of these and of random starts
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Controls")]
    seed: u64,

    /// The type that Θ is stored in
    #[arg(long, value_name = "TYPE", default_value = "F64", ignore_case = true, help_heading = "Output")]
    dtype: Stored,
    #[command(flatten)]
    drawing: FormatArgs,
    /// Replace OUT if condlora made it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
}

/// A stored type that keeps what was fitted.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stored {
    #[value(name = "F64")]
    F64,
    #[value(name = "F32")]
    F32,
}

impl FitArgs {
    fn params(&self) -> FitParams {
        FitParams {
            adapter: self.adapter.clone(),
            base: self.base.clone(),
            maps: self.map.clone(),
            delta: self.delta,
            modules: self.modules.clone(),
            layers: self.layers.clone(),
            convention: self.convention.wanted(),
            null_draws: self.null_draws,
            seed: self.seed,
            dtype: match self.dtype {
                Stored::F64 => FloatType::F64,
                Stored::F32 => FloatType::F32,
            },
        }
    }

    fn options_json(&self, params: &FitParams, drawing: &FigureOptions) -> serde_json::Value {
        let mut options = serde_json::json!({
            "command": "fit",
            "adapter": plain(&params.adapter),
            "base": params.base.as_deref().map(plain),
            "out": plain(&self.out),
            "map": params.maps.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "delta": params.delta,
            "modules": params.modules,
            "layers": params.layers,
            "convention": params.convention.map_or("auto", Convention::name),
            "null_draws": params.null_draws,
            "seed": params.seed,
            "dtype": params.dtype.name(),
        });
        add_to_manifest(&mut options, drawing, false);
        options
    }
}

/// Runs the command.
pub(super) fn run(
    args: &FitArgs,
    global: &Global,
    command_line: Vec<String>,
    pool: &ThreadPool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let params = args.params();
    let drawing = args.drawing.options()?;
    let options = args.options_json(&params, &drawing);
    let config = params.check()?;
    let prepared = pool.install(|| prepare_fit(&config))?;
    let mut warnings = prepared.warnings().to_vec();
    for warning in &warnings {
        terminal.warning(warning);
    }
    for (module, why) in prepared.skipped() {
        let line = format!("module `{}` skipped: {why}", escape(module));
        terminal.skipped(&line, None);
        warnings.push(line);
    }
    let mut protected = prepared.input_dirs();
    protected.push(args.adapter.clone());
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;

    let reporter = Reporter::new(global.progress, global.quiet, "fits");
    let fit = pool.install(|| prepared.run(&reporter));
    reporter.finish();
    let fit = fit?;
    for warning in &fit.warnings {
        terminal.warning(warning);
    }
    warnings.extend(fit.warnings.iter().cloned());

    let writing = Instant::now();
    out.require_room(fit.bytes())?;
    write_table(&mut out, &fit.rows, &[TableFormat::Csv])?;
    let context = FigureContext { base_name: None, adapter: Some(prepared.adapter_name()) };
    for figure in pool.install(|| draw_fit(&fit.rows, &context, &drawing))? {
        out.write(&format!("figures/{}", figure.path()), &figure.bytes)?;
    }
    out.write(CONFIG_FILE, &fit.config_json())?;
    let mut inputs = fit.inputs.clone();
    let mut refused = None;
    out.stream(WEIGHTS_FILE, |file| match fit.write_weights(file) {
        Ok(written) => written.map(|read| inputs.extend(read)),
        Err(error) => {
            refused = Some(error);
            Err(io::Error::other("an input has changed"))
        }
    })
    .map_err(|error| refused.unwrap_or(error))?;

    let mut manifest = Manifest::new(command_line);
    manifest.options = options;
    manifest.seed = Some(args.seed);
    manifest.threads = pool.current_num_threads();
    manifest.adapters = vec![adapter_record(&prepared.analysed())];
    manifest.inputs = inputs.iter().map(input_record).collect();
    manifest.warnings = warnings;
    manifest.libraries.insert("openblas".into(), blas_description());
    manifest.add_timing("fit", fit.took);
    manifest.add_timing("writing", writing.elapsed());
    let written = out.commit(&manifest)?;

    for (module, sweeps) in fit.modules.iter().filter_map(|module| Some((&module.name, module.sweeps?))) {
        terminal.detail(&format!("module `{}`: {sweeps} sweeps", escape(module)));
    }
    terminal.detail(&format!("fit: {:.1} ms", fit.took.as_secs_f64() * 1e3));
    let verdict = FitVerdict::of(&fit.rows, args.null_draws);
    let text =
        if global.json { verdict.json(&fit.rows) } else { fit_summary::text(prepared.adapter_name(), &fit, &verdict, terminal) };
    let shown = terminal.data(&text);
    terminal.note(&format!("CondLoRA checkpoint and fit.csv in {}", show_path(&written)));
    shown?;
    Ok(if prepared.skipped().is_empty() { Outcome::Done } else { Outcome::Skipped })
}
