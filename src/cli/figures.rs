//! `condlora figures`: draws figures again from the tables of results, without reading a weight.

use std::path::{Component, Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::drawing::DrawingArgs;
use super::session::{Outcome, Session};
use crate::error::{Error, Result, escape, show_path};
use crate::figure::{
    DrawnFigure, FigureContext, FigureOptions, draw_comparison, draw_fit, draw_held_out, draw_paper, draw_study,
};
use crate::json;
use crate::output::{Manifest, write_files_atomically};
use crate::results::SavedResults;
use crate::terms::{path, path_if_any};

/// Where figures go if nothing else is said.
const FOLDER: &str = "figures";

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Colours that span the off-diagonal values
  condlora figures results --scale data
  # The paper's Figure 1 of one module, and what compare wrote
  condlora figures results --paper --modules value --figures-dir paper/
  condlora figures compared --figures svg")]
pub(super) struct FiguresArgs {
    /// Output of analyze, merge, compare or fit
    #[arg(value_name = "OUT")]
    results: PathBuf,
    /// Only these modules, in overviews too
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is drawn")]
    modules: Vec<String>,
    /// Only these adapters
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is drawn")]
    adapters: Vec<String>,
    /// Only the paper's Figure 1: Θ_A and Θ_B of each module on one colour scale, with a caption on stdout
    #[arg(long, help_heading = "What is drawn")]
    paper: bool,
    #[command(flatten)]
    drawing: DrawingArgs,
}

/// The options as they were resolved, as the manifest keeps them.
#[derive(Serialize)]
struct Options<'a> {
    command: &'static str,
    #[serde(serialize_with = "path")]
    results: &'a Path,
    modules: &'a [String],
    adapters: &'a [String],
    paper: bool,
    #[serde(serialize_with = "path_if_any")]
    figures_dir: &'a Option<PathBuf>,
    #[serde(flatten)]
    drawing: &'a FigureOptions,
}

/// Runs the command.
pub(super) fn run(args: &FiguresArgs, session: &Session) -> Result<Outcome> {
    let terminal = &session.terminal;
    let options = args.drawing.options()?;
    if options.formats.is_empty() {
        return Err(Error::usage("--figures none: nothing to draw"));
    }
    let results = read(args)?;
    let started = std::time::Instant::now();
    let drawn =
        session.pool.install(|| if args.paper { draw_captioned(&results, &options) } else { draw(&results, &options) })?;
    let Drawn { figures, captions } = drawn;
    if figures.is_empty() {
        let what = if args.paper { "pairs of layers for Θ_A or Θ_B" } else { "anything that a figure shows" };
        return Err(Error::missing(&args.results, format!("has no table with {what}")));
    }
    terminal.detail(&format!("{} figures: {:.1} ms", figures.len(), started.elapsed().as_secs_f64() * 1e3));
    let recorded = Options {
        command: "figures",
        results: &args.results,
        modules: &args.modules,
        adapters: &args.adapters,
        paper: args.paper,
        figures_dir: &args.drawing.figures_dir,
        drawing: &options,
    };
    let paths = write(args, &results, &figures, &session.record(&recorded))?;
    terminal.data(&if session.json() { json(&figures, &captions, &paths) } else { lines(&captions, &paths) })?;
    Ok(Outcome::Done)
}

/// The results, without what was not asked for.
fn read(args: &FiguresArgs) -> Result<SavedResults> {
    let mut results = SavedResults::read(&args.results)?;
    for (option, asked, there) in
        [("--modules", &args.modules, results.modules()), ("--adapters", &args.adapters, results.adapters())]
    {
        if let Some(unknown) = asked.iter().find(|name| !there.contains(name.as_str())) {
            let known: Vec<String> = there.iter().take(8).map(|name| escape(name)).collect();
            let more = there.len().saturating_sub(known.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let error = Error::Usage {
                what: format!("{option} {}: not in the tables of {}", escape(unknown), show_path(&args.results)),
                hint: (!known.is_empty()).then(|| format!("there are {}{more}", known.join(", "))),
            };
            return Err(error);
        }
    }
    if !args.modules.is_empty() {
        results.keep_modules(&args.modules);
    }
    if !args.adapters.is_empty() {
        results.keep_adapters(&args.adapters);
    }
    Ok(results)
}

/// Figures, and the caption of each where it has one.
#[derive(Default)]
struct Drawn {
    figures: Vec<DrawnFigure>,
    captions: Vec<Option<String>>,
}

fn draw(results: &SavedResults, options: &FigureOptions) -> Result<Drawn> {
    let context = FigureContext { base_name: results.base_name(), adapter: results.adapter() };
    let mut figures = Vec::new();
    if let Some(tables) = &results.study {
        figures.extend(draw_study(tables, &context, options)?);
    }
    if let Some(rows) = &results.compare {
        figures.extend(draw_comparison(rows, options)?);
    }
    if let Some(rows) = &results.fit {
        figures.extend(draw_fit(rows, &context, options)?);
    }
    if let Some(rows) = &results.held_out {
        figures.extend(draw_held_out(rows, &context, options)?);
    }
    Ok(Drawn { captions: vec![None; figures.len()], figures })
}

fn draw_captioned(results: &SavedResults, options: &FigureOptions) -> Result<Drawn> {
    let context = FigureContext { base_name: results.base_name(), adapter: results.adapter() };
    let mut drawn = Drawn::default();
    if let Some(tables) = &results.study {
        for (caption, figures) in draw_paper(tables, &context, options)? {
            drawn.captions.extend(figures.iter().map(|_| Some(caption.clone())));
            drawn.figures.extend(figures);
        }
    }
    Ok(drawn)
}

/// Writes the figures, and last the manifest if it answers for the folder that they are in; returns their paths.
fn write(args: &FiguresArgs, results: &SavedResults, figures: &[DrawnFigure], run: &Manifest) -> Result<Vec<PathBuf>> {
    let dir = args.drawing.figures_dir.clone().unwrap_or_else(|| args.results.join(FOLDER));
    let paths: Vec<PathBuf> = figures.iter().map(|figure| dir.join(figure.path())).collect();
    let mut files: Vec<(PathBuf, &[u8])> =
        paths.iter().cloned().zip(figures.iter().map(|figure| figure.bytes.as_slice())).collect();
    let manifest = &results.manifest;
    let bytes = below(&args.results, &dir).map(|folder| {
        let name = |figure: &DrawnFigure| if folder.is_empty() { figure.path() } else { format!("{folder}/{}", figure.path()) };
        let figures = figures.iter().map(|figure| (name(figure), figure.bytes.as_slice()));
        manifest.with_figures(figures, run)
    });
    if let Some(bytes) = &bytes {
        if !manifest.is_current() {
            return Err(Error::output(&manifest.path, "was changed by something else meanwhile"));
        }
        files.push((manifest.path.clone(), bytes));
    }
    write_files_atomically(&files)?;
    Ok(paths)
}

/// The path of `dir` in `results`, with `/`, if it is there; `dir` need not exist.
fn below(results: &Path, dir: &Path) -> Option<String> {
    let results = results.canonicalize().ok()?;
    let dir = std::path::absolute(dir).ok()?;
    let there = dir.ancestors().find(|ancestor| ancestor.exists())?;
    let real = there.canonicalize().ok()?.join(dir.strip_prefix(there).ok()?);
    let parts = real.strip_prefix(results).ok()?.components().map(|part| match part {
        Component::Normal(part) => part.to_str().map(str::to_owned),
        _ => None,
    });
    parts.collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
}

/// One path a line, after the last of a figure with a caption that.
fn lines(captions: &[Option<String>], paths: &[PathBuf]) -> String {
    let mut text = String::new();
    for (index, path) in paths.iter().enumerate() {
        text.push_str(&show_path(path));
        text.push('\n');
        if let Some(Some(caption)) = captions.get(index).filter(|caption| captions.get(index + 1) != Some(caption)) {
            text.push_str(&format!("  {caption}\n"));
        }
    }
    text
}

fn json(figures: &[DrawnFigure], captions: &[Option<String>], paths: &[PathBuf]) -> String {
    let one = |((figure, caption), path): ((&DrawnFigure, &Option<String>), &PathBuf)| {
        serde_json::json!({
            "file": path.to_string_lossy(),
            "figure": figure.kind.name(),
            "adapter": (!figure.adapter.is_empty()).then_some(&figure.adapter),
            "module": figure.kind.module(),
            "format": figure.format.name(),
            "caption": caption,
        })
    };
    let all: Vec<serde_json::Value> = figures.iter().zip(captions).zip(paths).map(one).collect();
    json::pretty(&all)
}
