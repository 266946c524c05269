//! `condlora fit`: one shared Θ per module of a trained LoRA, written as a CondLoRA checkpoint.

use std::path::{Path, PathBuf};
use std::{io, time::Instant};

use clap::Args;
use serde::Serialize;

use super::choice::{auto_or, one_of, strict_control};
use super::drawing::FormatArgs;
use super::fit_summary;
use super::session::{Outcome, Session};
use crate::checkpoint::{FloatType, NameMap, adapter::WEIGHTS_FILE, config::CONFIG_FILE};
use crate::error::{Result, escape};
use crate::figure::{Dpi, DrawnFigure, FigureContext, FigureFormat, draw_fit, draw_held_out};
use crate::json;
use crate::output::OutputDir;
use crate::results::write_table;
use crate::shared_theta::{FitParams, prepare_fit};
use crate::table::{FitRow, HeldOutRow};
use crate::terms::{Convention, NullDraws, path};
use crate::verdict::StrictVerdict;

/// The types that keep what was fitted.
const KEEPING: [FloatType; 2] = [FloatType::F64, FloatType::F32];

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The Θ that fit A and B best, as they are stored
  condlora fit adapters/sst2 --base models/roberta-base -o fitted
  # And whether one Θ predicts a layer that it has not seen
  condlora fit adapters/sst2 --base models/roberta-base --held-out -o tried
  # The Θ that fit the updates B·A best, whatever the basis of A and B
  condlora fit adapters/sst2 --base models/roberta-base --delta -o by-updates")]
pub(super) struct FitArgs {
    /// Adapter directory
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// Directory for the CondLoRA checkpoint, fit.csv and the figures
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Base model: a directory, a weight file or index, or a name in the Hugging Face cache [default: the one the adapter names]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// Replace FROM by TO in module paths when looking for the base weight; repeat to apply several, in order
    #[arg(long, value_name = "FROM=TO", help_heading = "Adapter and base")]
    map: Vec<NameMap>,

    /// Fit the updates B·A, which do not depend on the basis of A and B, instead of A and B as stored
    #[arg(long, help_heading = "What is fitted")]
    delta: bool,
    /// Also fit one Θ to all layers but one, for each in turn, and try it on the one left out: heldout.csv and its figures
    #[arg(long, help_heading = "What is fitted")]
    held_out: bool,
    /// Only these modules
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is fitted")]
    modules: Vec<String>,
    /// Only these layers: 0-based indices and inclusive ranges, as in 0..5,8, or paths of blocks, as in down_blocks.1
    #[arg(long, value_name = "LIST", help_heading = "What is fitted")]
    layers: Option<String>,
    /// Equations: the paper's need square weights; auto uses general where a weight is not square
    #[arg(long, value_name = "CONVENTION", default_value = "auto", value_parser = auto_or::<Convention>(), help_heading = "What is fitted")]
    // By its whole path: clap reads a plain `Option` as an option that need not be given, and this one is `auto` then.
    convention: std::option::Option<Convention>,

    /// Number of random draws for each control; auto makes 20 of the Gaussian targets, and of the strict control as many as it takes
    #[arg(long, value_name = "N|auto", default_value = "auto", allow_negative_numbers = true, help_heading = "Controls")]
    null_draws: NullDraws,
    /// Seed of the random draws and starts
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Controls")]
    seed: u64,
    /// Decompose base weights of any size for the strict control; without this only those with a side of up to 1,024
    #[arg(long, conflicts_with = "no_svd", help_heading = "Controls")]
    strict_control: bool,
    /// Decompose no base weight: quicker, and without the strict control
    #[arg(long, help_heading = "Controls")]
    no_svd: bool,

    /// Data type in which Θ is stored
    #[arg(long, value_name = "TYPE", default_value = "F64", value_parser = one_of(&KEEPING), ignore_case = true, help_heading = "Output")]
    dtype: FloatType,
    #[command(flatten)]
    drawing: FormatArgs,
    /// Replace OUT if condlora wrote it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
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
            convention: self.convention,
            null_draws: self.null_draws,
            seed: self.seed,
            strict_control: strict_control(self.strict_control, self.no_svd),
            held_out: self.held_out,
            dtype: self.dtype,
        }
    }
}

/// The options as they were resolved, as the manifest keeps them.
#[derive(Serialize)]
struct Options<'a> {
    command: &'static str,
    #[serde(flatten)]
    params: &'a FitParams,
    #[serde(serialize_with = "path")]
    out: &'a Path,
    figures: &'a [FigureFormat],
    dpi: Dpi,
}

/// Runs the command.
pub(super) fn run(args: &FitArgs, session: &Session) -> Result<Outcome> {
    let (pool, terminal) = (&session.pool, &session.terminal);
    let params = args.params();
    let drawing = args.drawing.options()?;
    let config = params.clone().check()?;
    let prepared = pool.install(|| prepare_fit(config))?;
    let mut warnings = prepared.warnings();
    terminal.warnings(&warnings);
    for (module, why) in prepared.skipped() {
        let line = format!("module `{}` skipped: {why}", escape(module));
        terminal.skipped(&line, None);
        warnings.push(line);
    }
    let mut protected = prepared.input_dirs();
    protected.push(args.adapter.clone());
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;

    let fit = session.compute("fits", |progress| prepared.run_with(progress))?;
    terminal.warnings(&fit.warnings);
    warnings.extend(fit.warnings.iter().cloned());

    let writing = Instant::now();
    out.require_room(fit.bytes())?;
    write_table(&mut out, &fit.rows)?;
    let held_out = fit.held_out.as_deref();
    if let Some(rows) = held_out {
        write_table(&mut out, rows)?;
    }
    let context = FigureContext { base_name: None, adapter: Some(prepared.adapter_name()) };
    let draw = || -> Result<Vec<DrawnFigure>> {
        let mut figures = draw_fit(&fit.rows, &context, &drawing)?;
        figures.extend(draw_held_out(held_out.unwrap_or_default(), &context, &drawing)?);
        Ok(figures)
    };
    for figure in pool.install(draw)? {
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

    let options = Options { command: "fit", params: &params, out: &args.out, figures: &drawing.formats, dpi: drawing.dpi };
    let mut manifest = session.manifest(&options, Some(args.seed), inputs, warnings);
    manifest.adapters = vec![prepared.analysed()];
    session.took(&mut manifest, "fit", fit.took, "");
    session.took(&mut manifest, "writing", writing.elapsed(), "");
    let written = out.commit(&manifest)?;

    for (module, sweeps) in fit.modules.iter().filter_map(|module| Some((&module.name, module.sweeps?))) {
        terminal.detail(&format!("module `{}`: {sweeps} sweeps", escape(module)));
    }
    let (draws, missing) = (prepared.most_draws(), prepared.without_strict_control());
    let verdict = StrictVerdict::of_fit(&fit.rows, draws, missing.as_deref());
    let tried = held_out.map(|rows| (rows, StrictVerdict::of_held_out(rows, draws, missing.as_deref())));
    let text = if session.json() {
        fit_json(&fit.rows, &verdict, tried.as_ref())
    } else {
        fit_summary::text(prepared.adapter_name(), &fit, &verdict, tried.as_ref(), terminal)
    };
    session.close(&text, &[("CondLoRA checkpoint and fit.csv in", &written)])?;
    Ok(if prepared.skipped().is_empty() { Outcome::Done } else { Outcome::Skipped })
}

/// The rows of `heldout.csv`, and the verdict on them.
pub(super) type Tried<'a> = (&'a [HeldOutRow], StrictVerdict);

/// Both tables, where there are two.
#[derive(Serialize)]
struct BothTables<F, H> {
    fit: F,
    heldout: H,
}

/// An array of rows, or where layers were held out an object with one for each table.
fn fit_json(rows: &[FitRow], verdict: &StrictVerdict, tried: Option<&Tried<'_>>) -> String {
    let fit = verdict.json_rows(rows);
    match tried {
        None => json::pretty(&fit),
        Some((rows, verdict)) => json::pretty(&BothTables { fit, heldout: verdict.json_rows(rows) }),
    }
}
