//! `condlora analyze`: the study, its tables and its figures.

mod args;
mod options;

use std::path::Path;

use rayon::ThreadPool;

pub(super) use self::args::{AnalyzeArgs, ConventionChoice, parse_pair};
use self::options::options_json;
pub(super) use self::options::{NO_BEARING, params_of, plain};
use super::progress::Reporter;
use super::terminal::Terminal;
use super::{Global, Outcome, input_record, summary};
use crate::error::{Error, Result};
use crate::linalg::lapack::blas_description;
use crate::report::{REPORT_FILE, report_html};
use crate::study::{Analysed, Division, Prepared, Shard, Study, Whole, prepare};
use crate::table::{
    AdapterRecord, Manifest, OutputDir, ShardRecord, TableFormat, Tables, only_base_name, summary_json, write_study,
};
use crate::terms::Status;

/// Runs the command.
pub(super) fn run(
    args: &AnalyzeArgs,
    global: &Global,
    command_line: Vec<String>,
    pool: &ThreadPool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let config = args.params().check()?;
    let options = options_json(args, config.params())?;
    if let (Some(shard), [TableFormat::Npy]) = (config.params().shard, &args.table_formats()[..]) {
        return Err(Error::usage(format!("--shard {shard} with --formats npy alone: shards are merged from csv or parquet")));
    }
    let prepared = pool.install(|| prepare(&config))?;
    let mut warnings = prepared.warnings();
    for warning in &warnings {
        terminal.warning(warning);
    }
    let shard = config.params().shard.zip(prepared.whole()).map(|(shard, whole)| shard_record(shard, whole));
    let mut passed_over = prepared.skipped().to_vec();
    let mut skipped = say_skipped(prepared.skipped(), terminal);
    let Division { weights, readings, waves, workers } = prepared.division();
    terminal.detail(&format!("{weights} base weights, {readings} readings, {workers} at a time, in rounds: {waves}"));
    if args.strict {
        refuse_rewritten_bases(&prepared, &args.out)?;
    }
    let mut protected = prepared.input_dirs();
    protected.extend(args.paths.iter().cloned());
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;

    let reporter = Reporter::new(global.progress, global.quiet, "base weights");
    let study = pool.install(|| prepared.run(&reporter));
    reporter.finish();
    let study = study?;
    skipped.extend(say_skipped(&study.skipped, terminal));
    passed_over.extend(study.skipped.iter().cloned());
    if args.strict {
        refuse_doubt(&study.tables, &args.out)?;
    }

    let writing = std::time::Instant::now();
    write_study(&mut out, &study.tables, &args.table_formats())?;
    let adapters: Vec<AdapterRecord> = study.adapters.iter().map(adapter_record).collect();
    let elsewhere = pool.install(|| args.drawing.draw(&study.tables, only_base_name(&adapters), &mut out))?;
    let drawing = writing.elapsed();

    let mut manifest = Manifest::new(command_line);
    manifest.options = options;
    manifest.seed = Some(args.seed);
    manifest.threads = pool.current_num_threads();
    manifest.shard = shard;
    manifest.adapters = adapters;
    manifest.skipped = passed_over.iter().map(|(adapter, error)| (adapter.clone(), error.to_string())).collect();
    manifest.inputs = study.inputs.iter().map(input_record).collect();
    manifest.bytes_read = Some(study.bytes_read);
    let outcome = if skipped.is_empty() { Outcome::Done } else { Outcome::Skipped };
    warnings.append(&mut skipped);
    manifest.warnings = warnings;
    manifest.libraries.insert("openblas".into(), blas_description());
    for (stage, took) in &study.timings {
        manifest.add_timing(*stage, *took);
    }
    manifest.add_timing("tables and figures", drawing);
    let reporting = std::time::Instant::now();
    out.write(REPORT_FILE, &report_html(&study.tables, &manifest)?)?;
    manifest.add_timing("report", reporting.elapsed());
    elsewhere.write()?;
    let written = out.commit(&manifest)?;

    let shown = show(&study, global.json, terminal);
    for (stage, took) in &study.timings {
        let scope = if matches!(*stage, "analysis" | "open") { "" } else { " summed over threads" };
        terminal.detail(&format!("{stage}: {:.1} ms{scope}", took.as_secs_f64() * 1e3));
    }
    terminal.detail(&format!("tables and figures: {:.1} ms", drawing.as_secs_f64() * 1e3));
    terminal.detail(&format!("weight files: {} bytes read of {}", study.bytes_read, study.bytes_held));
    terminal.note(&format!("results in {}", crate::error::show_path(&written)));
    terminal.note(&format!("report: {}", crate::error::show_path(&written.join(REPORT_FILE))));
    shown?;
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

/// An adapter as the manifest keeps it.
pub(super) fn adapter_record(analysed: &Analysed) -> AdapterRecord {
    AdapterRecord {
        name: analysed.name.clone(),
        path: analysed.dir.to_string_lossy().into_owned(),
        base: analysed.base.to_string_lossy().into_owned(),
        base_name: analysed.base_name.clone(),
    }
}

fn shard_record(shard: Shard, whole: &Whole) -> ShardRecord {
    ShardRecord { number: shard.number, of: shard.of, adapters: whole.adapters, names_blake3: whole.names_hash.clone() }
}

fn show(study: &Study, json: bool, terminal: &Terminal) -> Result<()> {
    let rows = &study.tables.summary;
    terminal.data(&if json { summary_json(rows) } else { summary::text(rows, terminal) })
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
    let measures = tables.measures.iter().flatten().map(|r| (&r.adapter, &r.module, r.status));
    let grid = tables.grid.iter().flatten().map(|r| (&r.adapter, &r.module, r.status));
    let all: Vec<_> = conversion
        .chain(similarity)
        .chain(summary)
        .chain(measures)
        .chain(grid)
        .filter(|(_, _, status)| *status != Status::Ok)
        .collect();
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
