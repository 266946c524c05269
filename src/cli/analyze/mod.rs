//! `condlora analyze`: the study, its tables and its figures.

mod args;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

pub(super) use self::args::{AnalyzeArgs, parse_pair};
use super::session::{Outcome, Session};
use super::summary;
use super::terminal::Terminal;
use crate::error::{Error, Result};
use crate::figure::FigureOptions;
use crate::output::{Manifest, OutputDir};
use crate::record::{ShardRecord, only_base_name};
use crate::report::{REPORT_FILE, null_draws, report_html};
use crate::results::{is_finished_shard, write_study};
use crate::study::{AnalyzeParams, Division, Prepared, Study, prepare};
use crate::table::any_table::AnyTable;
use crate::table::{TableFormat, Tables};
use crate::terms::{NullDraws, path, path_if_any};
use crate::verdict::RunVerdict;

/// The options as they were resolved, as the manifest keeps them. `merge` reads those of the study again.
#[derive(Serialize)]
struct Options<'a> {
    command: &'static str,
    #[serde(flatten)]
    params: &'a AnalyzeParams,
    #[serde(serialize_with = "path")]
    out: &'a Path,
    formats: Vec<TableFormat>,
    #[serde(serialize_with = "path_if_any")]
    figures_dir: &'a Option<PathBuf>,
    #[serde(flatten)]
    drawing: &'a FigureOptions,
    strict: bool,
}

impl<'a> Options<'a> {
    fn new(args: &'a AnalyzeArgs, params: &'a AnalyzeParams, drawing: &'a FigureOptions) -> Self {
        let (formats, figures_dir) = (args.table_formats(), &args.drawing.figures_dir);
        Self { command: "analyze", params, out: &args.out, formats, figures_dir, drawing, strict: args.strict }
    }
}

/// Runs the command.
pub(super) fn run(args: &AnalyzeArgs, session: &Session) -> Result<Outcome> {
    let (pool, terminal) = (&session.pool, &session.terminal);
    let drawing = args.drawing.options()?;
    let config = args.params().check()?;
    let prepared = pool.install(|| prepare(config.clone()))?;
    let mut warnings = prepared.warnings();
    terminal.warnings(&warnings);
    let mut refused = prepared.skipped().to_vec();
    let mut skipped = say_skipped(prepared.skipped(), terminal);
    skipped.extend(say_unusable(&prepared, args.strict, terminal)?);
    let Division { weights, readings, rounds, workers } = prepared.division();
    terminal.detail(&format!("{weights} base weights, {readings} readings, {workers} at a time, in rounds: {rounds}"));
    if args.strict {
        refuse_rewritten_bases(&prepared, &args.out)?;
    }
    let mut protected = prepared.input_dirs();
    protected.extend(args.paths.iter().cloned());
    if config.params().shard.is_some() {
        let options = Options::new(args, config.params(), &drawing);
        warnings.append(&mut skipped);
        return run_shard(args, session, prepared, (&options, &protected, warnings));
    }
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;

    let study = session.compute("readings", |progress| prepared.run_with(progress))?;
    say_found(&study, terminal, &mut warnings, &mut skipped, &mut refused);
    if args.strict {
        refuse_doubt(&study.tables, &args.out)?;
    }

    let writing = Instant::now();
    write_study(&mut out, &study.tables, &args.table_formats())?;
    let elsewhere = pool.install(|| args.drawing.draw(&study.tables, only_base_name(&study.adapters), &mut out))?;
    let writing = writing.elapsed();

    let outcome = if skipped.is_empty() { Outcome::Done } else { Outcome::Skipped };
    warnings.append(&mut skipped);
    let options = Options::new(args, config.params(), &drawing);
    let mut manifest = session.manifest(&options, Some(args.seed), study.inputs.clone(), warnings);
    manifest.adapters = study.adapters.clone();
    manifest.skipped = by_name(&refused);
    manifest.bytes_read = Some(study.bytes_read);
    took(&mut manifest, &study.timings, session);
    session.took(&mut manifest, "tables and figures", writing, "");
    let reporting = Instant::now();
    out.write(REPORT_FILE, &report_html(&study.tables, &manifest)?)?;
    session.took(&mut manifest, "report", reporting.elapsed(), "");
    elsewhere.write()?;
    let written = out.commit(&manifest)?;

    terminal.detail(&format!("weight files: {} bytes read of {}", study.bytes_read, study.bytes_held));
    let text = show(&study.tables, null_draws(&manifest), session);
    session.close(&text, &[("results in", &written), ("report:", &written.join(REPORT_FILE))])?;
    Ok(outcome)
}

/// Names the modules that cannot be used, as warnings that the manifest keeps; with `--strict` the first of them is an error.
pub(super) fn say_unusable(prepared: &Prepared, strict: bool, terminal: &Terminal) -> Result<Vec<String>> {
    let unusable = prepared.unusable();
    match unusable.first().filter(|_| strict) {
        Some((_, error)) => Err(error.clone()),
        None => Ok(say_skipped(&unusable, terminal)),
    }
}

/// Solves through the base weights of a shard. One that is there already, made of the same, is left as it is.
fn run_shard(
    args: &AnalyzeArgs,
    session: &Session,
    prepared: Prepared,
    (options, protected, mut warnings): (&Options<'_>, &[PathBuf], Vec<String>),
) -> Result<Outcome> {
    let (record, Division { weights, .. }) = (prepared.shard(), prepared.division());
    let ShardRecord { number, of, weights: all, .. } = record;
    let text = |said: &str| {
        if session.json() {
            json!({ "shard": number, "of": of, "weights": weights, "all_weights": all }).to_string() + "\n"
        } else {
            format!("shard {number} of {of}: {weights} of {all} base weights {said}\n")
        }
    };
    let recorded = session.record(options).options;
    if !args.overwrite && is_finished_shard(&args.out, &record, &recorded, &NO_BEARING, &prepared.header_records()) {
        session.close(&text("are solved already"), &[("found in", &args.out)])?;
        return Ok(Outcome::Done);
    }
    let mut refused = prepared.skipped().to_vec();
    let whole = prepared.unusable().is_empty();
    let out = Mutex::new(OutputDir::begin(&args.out, args.overwrite, protected)?);
    let keep = |name: &str, bytes: &[u8]| out.lock().unwrap_or_else(PoisonError::into_inner).write(name, bytes);
    let study = session.compute("base weights", |progress| prepared.run_shard(progress, &keep))?;
    let out = out.into_inner().unwrap_or_else(PoisonError::into_inner);
    refused.extend(study.skipped.iter().cloned());
    warnings.extend(say_skipped(&study.skipped, &session.terminal));
    let mut manifest = session.manifest(options, Some(args.seed), study.inputs, warnings);
    manifest.shard = Some(record);
    manifest.adapters = study.adapters;
    manifest.skipped = by_name(&refused);
    manifest.bytes_read = Some(study.bytes_read);
    took(&mut manifest, &study.timings, session);
    let written = out.commit(&manifest)?;
    session.terminal.detail(&format!("weight files: {} bytes read of {}", study.bytes_read, study.bytes_held));
    session.close(&text("are solved; condlora merge compares them"), &[("written to", &written)])?;
    Ok(if refused.is_empty() && whole { Outcome::Done } else { Outcome::Skipped })
}

/// Options in which the shards of one study may differ: they change no row.
pub(super) const NO_BEARING: [&str; 11] =
    ["out", "shard", "keep_going", "memory_limit", "figures", "figures_dir", "dpi", "scale", "colours", "order", "strict"];

/// What was said of each adapter that was refused.
pub(super) fn by_name(refused: &[(String, Error)]) -> BTreeMap<String, String> {
    refused.iter().map(|(adapter, error)| (adapter.clone(), error.to_string())).collect()
}

fn took(manifest: &mut Manifest, timings: &[(&'static str, Duration)], session: &Session) {
    for (stage, took) in timings {
        let scope = if matches!(*stage, "analysis" | "open") { "" } else { " summed over threads" };
        session.took(manifest, stage, *took, scope);
    }
}

/// Says what a study noticed and which adapters it skipped, and notes it for the manifest.
pub(super) fn say_found(
    study: &Study,
    terminal: &Terminal,
    warnings: &mut Vec<String>,
    skipped: &mut Vec<String>,
    refused: &mut Vec<(String, Error)>,
) {
    terminal.warnings(&study.warnings);
    warnings.extend(study.warnings.iter().cloned());
    skipped.extend(say_skipped(&study.skipped, terminal));
    refused.extend(study.skipped.iter().cloned());
}

/// Names the adapters that were skipped, as warnings that the manifest keeps.
pub(super) fn say_skipped(skipped: &[(String, Error)], terminal: &Terminal) -> Vec<String> {
    let line = |(adapter, error): &(String, Error)| format!("{} skipped: {error}", crate::error::escape(adapter));
    let lines: Vec<String> = skipped.iter().map(line).collect();
    for (line, (_, error)) in lines.iter().zip(skipped) {
        terminal.skipped(line, error.hint());
    }
    lines
}

/// The summary and the verdict on it, whose controls were drawn `draws` times.
pub(super) fn show(tables: &Tables, draws: NullDraws, session: &Session) -> String {
    let verdict = RunVerdict::of_study(tables, draws);
    let rows = &tables.summary;
    if session.json() { verdict.json(rows) } else { summary::text(rows, &verdict, &session.terminal) }
}

/// `--strict`: a base weight that the adapter's initialisation rewrote is not the one that was trained on.
fn refuse_rewritten_bases(prepared: &Prepared, out: &Path) -> Result<()> {
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
pub(super) fn refuse_doubt(tables: &Tables, out: &Path) -> Result<()> {
    let all: Vec<[&str; 3]> = tables.each().flat_map(AnyTable::doubts).collect();
    match all.first() {
        None => Ok(()),
        Some([adapter, module, status]) => Err(Error::numerical(
            out,
            format!("--strict: module `{}` of adapter `{}`", crate::error::escape(module), crate::error::escape(adapter)),
            "status ok in every row",
            format!("{status} ({} rows are not ok)", all.len()),
        )
        .with_hint("nothing was written; run without --strict to see the rows")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        analyze: AnalyzeArgs,
    }

    #[test]
    fn options_come_back_from_the_manifest() {
        let every = "analyze a b/c --base base --map a.b=c --map d= --split qkv -o out --modules query,value --layers 0..5,8 --matrices BA,lora_A --ij 8,8 --ij 1,2 \
                     --side both --convention general --null-draws 3 --seed 18446744073709551615 --init i --rcond 1e-9 --eq6 --measures --grid 0,5 --grid 3,3 --keep-going \
                     --memory-limit 8G --shard 2/3 --cuts=0,0.4,adjoint --strict-control";
        for line in ["analyze x", "analyze x --across", "analyze x --cuts --null-draws auto", "analyze x --no-svd", every] {
            let args = Line::parse_from(line.split_whitespace()).analyze;
            let given = args.params().check().unwrap().params().clone();
            let text = serde_json::to_string(&Options::new(&args, &given, &FigureOptions::default())).unwrap();
            let back: AnalyzeParams = serde_json::from_str(&text).unwrap();
            assert_eq!(format!("{back:?}"), format!("{given:?}"));
        }
        assert!(serde_json::from_str::<AnalyzeParams>("null").is_err());
        assert!(serde_json::from_str::<AnalyzeParams>(r#"{"paths": ["x"], "matrices": ["C"]}"#).is_err());
    }
}
