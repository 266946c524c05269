//! `condlora analyze`: the study, its tables and its figures.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rayon::ThreadPool;

use super::progress::Reporter;
use super::terminal::Terminal;
use super::{Global, Outcome, summary};
use crate::error::{Error, Result};
use crate::figure::{ColourScale, DrawnFigure, FigureContext, FigureFormat, FigureOptions, draw_study};
use crate::linalg::lapack::blas_description;
use crate::study::{AnalyzeConfig, AnalyzeParams, Division, Prepared, Study, parse_bytes, prepare};
use crate::table::{InputRecord, Manifest, OutputDir, Tables, file_name, summary_json, write_files_atomically, write_study};
use crate::terms::{Convention, MatrixKind, Side, Status};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  condlora analyze adapters/sst2 --base models/roberta-base
  condlora analyze runs/ --base models/roberta-base --init runs-step0/ -o results
  condlora analyze adapters/sst2 --base models/roberta-base --modules value --ij 8,8 --ij 4,8 --side both")]
pub(super) struct AnalyzeArgs {
    /// Adapter directories, or directories to search for adapters
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Base model: a directory with model.safetensors, or that file [default: the one the adapter names]
    #[arg(long, value_name = "DIR|FILE")]
    base: Option<PathBuf>,
    /// Where the tables, figures and manifest go
    #[arg(short, long, value_name = "OUT", default_value = "condlora-results")]
    out: PathBuf,

    /// Only these modules, by name
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is compared")]
    modules: Vec<String>,
    /// Only these layers: 0-based indices and inclusive ranges (0..5,8)
    #[arg(long, value_name = "LIST", help_heading = "What is compared")]
    layers: Option<String>,
    /// Conversion matrices A, B and BA, or the factors lora_A and lora_B themselves
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "A,B,BA", help_heading = "What is compared")]
    matrices: Vec<MatrixKind>,
    /// Numbers of singular vectors; repeatable [default: r,r with the module's smallest rank]
    #[arg(long, value_name = "I,J", value_parser = parse_pair, help_heading = "What is compared")]
    ij: Vec<(usize, usize)>,
    /// Which singular vectors
    #[arg(long, default_value = "left", help_heading = "What is compared")]
    side: Sides,
    /// The equations: the paper's need square weights; auto uses `general` where one is not
    #[arg(long, default_value = "auto", help_heading = "What is compared")]
    convention: ConventionChoice,

    /// Also compare the same layer of different adapters: across.csv and its heatmaps
    #[arg(long, help_heading = "What is compared")]
    across: bool,

    /// How often each control is drawn
    #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, help_heading = "Controls and numerics")]
    null_draws: usize,
    /// Seed of the controls
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Controls and numerics")]
    seed: u64,
    /// An untrained adapter for the init control, or a directory with one for each adapter's name
    #[arg(long, value_name = "DIR", help_heading = "Controls and numerics")]
    init: Option<PathBuf>,
    /// Solve by SVD and take singular values of W0 below X times the largest for zero
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Controls and numerics")]
    rcond: Option<f64>,

    /// Memory that may be used, as in 8G; more adapters at a time are quicker [default: 80% of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Running")]
    memory_limit: Option<u64>,
    /// Pass over adapters that cannot be analysed, name each, and exit with 1
    #[arg(long, help_heading = "Running")]
    keep_going: bool,

    /// Figure formats: svg, png, or none
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', default_value = "svg,png", value_parser = parse_format, help_heading = "Output")]
    figures: Vec<Option<FigureFormat>>,
    /// Where the figures go [default: OUT/figures]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    figures_dir: Option<PathBuf>,
    /// Heatmap colours: 0 to 1 as in the paper, or to the largest value beside the diagonal
    #[arg(long, value_name = "paper|data", default_value = "paper", help_heading = "Output")]
    scale: ColourScale,
    /// Replace OUT if condlora made it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
    /// Write nothing and exit with 6 unless every status is ok
    #[arg(long, help_heading = "Output")]
    strict: bool,
}

/// Which sides to compare.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sides {
    Left,
    Right,
    Both,
}

/// Which equations to use.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ConventionChoice {
    Auto,
    Paper,
    General,
}

fn parse_pair(text: &str) -> Result<(usize, usize), String> {
    let wrong = || "expected two numbers, as in 8,8".to_owned();
    let (i, j) = text.split_once(',').ok_or_else(wrong)?;
    Ok((i.trim().parse().map_err(|_| wrong())?, j.trim().parse().map_err(|_| wrong())?))
}

fn parse_format(text: &str) -> Result<Option<FigureFormat>, String> {
    if text == "none" { Ok(None) } else { text.parse().map(Some).map_err(|_| "expected svg, png or none".to_owned()) }
}

impl AnalyzeArgs {
    fn params(&self) -> AnalyzeParams {
        AnalyzeParams {
            paths: self.paths.clone(),
            base: self.base.clone(),
            modules: self.modules.clone(),
            layers: self.layers.clone(),
            matrices: self.matrices.clone(),
            ij: self.ij.clone(),
            sides: match self.side {
                Sides::Left => vec![Side::Left],
                Sides::Right => vec![Side::Right],
                Sides::Both => vec![Side::Left, Side::Right],
            },
            convention: match self.convention {
                ConventionChoice::Auto => None,
                ConventionChoice::Paper => Some(Convention::Paper),
                ConventionChoice::General => Some(Convention::General),
            },
            null_draws: self.null_draws,
            seed: self.seed,
            init: self.init.clone(),
            rcond: self.rcond,
            across: self.across,
            keep_going: self.keep_going,
            memory_limit: self.memory_limit,
        }
    }

    fn formats(&self) -> Result<Vec<FigureFormat>> {
        let mut formats: Vec<FigureFormat> = self.figures.iter().flatten().copied().collect();
        if !formats.is_empty() && self.figures.contains(&None) {
            return Err(Error::usage("--figures: none stands alone"));
        }
        formats.sort();
        formats.dedup();
        Ok(formats)
    }
}

/// Runs the command.
pub(super) fn run(
    args: &AnalyzeArgs,
    global: &Global,
    command_line: Vec<String>,
    pool: &ThreadPool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let config = args.params().check()?;
    let formats = args.formats()?;
    let prepared = pool.install(|| prepare(&config))?;
    let mut warnings = prepared.warnings();
    for warning in &warnings {
        terminal.warning(warning);
    }
    let mut skipped = say_skipped(prepared.skipped(), terminal);
    let Division { weights, readings, waves, workers } = prepared.division();
    terminal.detail(&format!("{weights} base weights, {readings} readings, {workers} at a time, in rounds: {waves}"));
    if args.strict {
        refuse_rewritten_bases(&prepared, &args.out)?;
    }
    let mut protected = prepared.input_dirs();
    protected.extend(args.paths.iter().cloned());
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;

    let reporter = Reporter::new(global.progress, global.quiet);
    let study = pool.install(|| prepared.run(&reporter));
    reporter.finish();
    let study = study?;
    skipped.extend(say_skipped(&study.skipped, terminal));
    if args.strict {
        refuse_doubt(&study.tables, &args.out)?;
    }

    let writing = std::time::Instant::now();
    write_study(&mut out, &study.tables)?;
    let context = FigureContext { base_name: study.base_name.as_deref() };
    let options = FigureOptions { formats: formats.clone(), scale: args.scale };
    let figures = pool.install(|| draw_study(&study.tables, &context, &options))?;
    let drawing = writing.elapsed();
    for figure in figures.iter().filter(|_| args.figures_dir.is_none()) {
        out.write(&format!("figures/{}", figure_path(figure)), &figure.bytes)?;
    }

    let mut manifest = Manifest::new(command_line);
    manifest.options = options_json(args, &config, &formats);
    manifest.seed = Some(args.seed);
    manifest.threads = pool.current_num_threads();
    manifest.inputs = study.inputs.iter().map(input_record).collect();
    let outcome = if skipped.is_empty() { Outcome::Done } else { Outcome::Skipped };
    warnings.append(&mut skipped);
    manifest.warnings = warnings;
    manifest.libraries.insert("openblas".into(), blas_description());
    for (stage, took) in &study.timings {
        manifest.add_timing(*stage, *took);
    }
    manifest.add_timing("tables and figures", drawing);
    if let Some(dir) = &args.figures_dir {
        let files: Vec<(PathBuf, &[u8])> = figures.iter().map(|f| (dir.join(figure_path(f)), f.bytes.as_slice())).collect();
        write_files_atomically(&files)?;
    }
    let written = out.commit(&manifest)?;

    show(&study, global.json, terminal);
    for (stage, took) in &study.timings {
        let scope = if matches!(*stage, "analysis" | "open") { "" } else { " summed over threads" };
        terminal.detail(&format!("{stage}: {:.1} ms{scope}", took.as_secs_f64() * 1e3));
    }
    terminal.detail(&format!("tables and figures: {:.1} ms", drawing.as_secs_f64() * 1e3));
    terminal.note(&format!("results in {}", crate::error::show_path(&written)));
    Ok(outcome)
}

/// Names the adapters that were passed over, as warnings that the manifest keeps.
fn say_skipped(skipped: &[(String, Error)], terminal: &Terminal) -> Vec<String> {
    let line = |(adapter, error): &(String, Error)| format!("{} skipped: {error}", crate::error::escape(adapter));
    let lines: Vec<String> = skipped.iter().map(line).collect();
    for (line, (_, error)) in lines.iter().zip(skipped) {
        terminal.skipped(line, error.hint());
    }
    lines
}

fn figure_path(figure: &DrawnFigure) -> String {
    format!("{}/{}", file_name::adapter_path(&figure.adapter), figure.file_name(file_name::encode))
}

fn input_record(read: &crate::checkpoint::InputRecord) -> InputRecord {
    InputRecord {
        file: crate::error::show_path(&read.file),
        tensor: read.tensor.clone(),
        dtype: read.dtype.clone(),
        blake3: read.blake3.clone(),
    }
}

fn show(study: &Study, json: bool, terminal: &Terminal) {
    let rows = &study.tables.summary;
    terminal.data(&if json { summary_json(rows) } else { summary::text(rows, terminal) });
}

/// `--strict`: a base weight that the adapter's initialisation rewrote is not the one that was trained on.
fn refuse_rewritten_bases(prepared: &Prepared<'_>, out: &Path) -> Result<()> {
    match prepared.rewritten_bases().first() {
        None => Ok(()),
        Some((adapter, method)) => Err(Error::numerical(
            out,
            format!("--strict: adapter `{}`", crate::error::escape(adapter)),
            "an initialisation that leaves W0 as it is",
            format!("init_lora_weights {}", crate::error::escape(method)),
        )),
    }
}

/// `--strict`: any status but `ok`.
fn refuse_doubt(tables: &Tables, out: &Path) -> Result<()> {
    let conversion = tables.conversion.iter().map(|r| (&r.adapter, &r.module, r.status));
    let similarity = tables.similarity.iter().map(|r| (&r.adapter, &r.module, r.status));
    let summary = tables.summary.iter().map(|r| (&r.adapter, &r.module, r.status));
    let all: Vec<_> = conversion.chain(similarity).chain(summary).filter(|(_, _, status)| *status != Status::Ok).collect();
    match all.first() {
        None => Ok(()),
        Some((adapter, module, status)) => Err(Error::numerical(
            out,
            format!("--strict: module `{}` of adapter `{}`", crate::error::escape(module), crate::error::escape(adapter)),
            "status ok in every row",
            format!("{status} ({} rows are not ok)", all.len()),
        )
        .with_hint("nothing was written; run without --strict to see the rows")),
    }
}

/// The options as they were resolved, for the manifest.
fn options_json(args: &AnalyzeArgs, config: &AnalyzeConfig, formats: &[FigureFormat]) -> serde_json::Value {
    let given = config.params();
    let names = |paths: &[PathBuf]| paths.iter().map(|p| crate::error::show_path(p)).collect::<Vec<_>>();
    serde_json::json!({
        "command": "analyze",
        "paths": names(&given.paths),
        "base": given.base.as_deref().map(crate::error::show_path),
        "out": crate::error::show_path(&args.out),
        "modules": given.modules,
        "layers": given.layers,
        "matrices": given.matrices.iter().map(|m| m.name()).collect::<Vec<_>>(),
        "ij": given.ij,
        "sides": given.sides.iter().map(|s| s.name()).collect::<Vec<_>>(),
        "convention": given.convention.map_or("auto", Convention::name),
        "null_draws": given.null_draws,
        "seed": given.seed,
        "init": given.init.as_deref().map(crate::error::show_path),
        "rcond": given.rcond,
        "across": given.across,
        "keep_going": given.keep_going,
        "memory_limit": given.memory_limit,
        "figures": formats.iter().map(|f| f.name()).collect::<Vec<_>>(),
        "figures_dir": args.figures_dir.as_deref().map(crate::error::show_path),
        "scale": args.scale.name(),
        "strict": args.strict,
    })
}
