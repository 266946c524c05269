//! The real program as people use it: what it prints, what it writes, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use condlora::table::csv::read_rows;
use condlora::table::{SimilarityRow, SummaryRow};
use shared::program::{Run, analyze, data, files, program, real_base, run_in};
use snapbox::{assert_data_eq, file};

/// One real adapter on its base, with these further arguments, in an empty directory.
fn sample(root: &Path, more: &[&str]) -> Command {
    let mut command = analyze([data("adapters/trec-seed0")]);
    command.arg("--base").arg(real_base()).args(more).current_dir(root);
    command
}

fn run_sample(root: &Path, more: &[&str]) -> Run {
    Run::of(sample(root, more).output().unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A small good adapter and base.
fn small() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    shared::generate::good(folder.path());
    folder
}

const SMALL: [&str; 5] = ["adapter", "--base", "base", "--figures", "none"];

fn small_and(more: &[&'static str]) -> Vec<&'static str> {
    SMALL.iter().chain(more).copied().collect()
}

const SUMMARY: &str = "adapter,module,matrix,side,i,j,layers,phi_mean,phi_min,phi_max,gaussian_expected,gaussian_mean,gaussian_sd,w0_mean,w0_sd,w0_expected,w0_z,w0_p,init_mean,status";
const SIMILARITY: &str = "adapter,module,matrix,side,i,j,layer_a,layer_b,phi,phi_error_bound,gaussian_mean,gaussian_sd,w0_mean,w0_sd,w0_expected,init,status";
const CONVERSION: &str = "adapter,module,layer,adapter_key,tensor,out_features,in_features,rank,scaling,convention,method,w0_dtype,adapter_dtype,w0_rank,w0_condition,residual_a,residual_b,backward_error_a,backward_error_b,norm_a,norm_b,norm_delta,status";
const SPECTRUM: &str = "adapter,module,matrix,layer,k,sigma";

#[test]
fn help_is_as_reviewed() {
    let help = |arguments: &[&str]| {
        let run = Run::of(program().args(arguments).output().unwrap()).exits(0);
        assert_eq!(run.stderr, "");
        assert!(run.stdout.lines().all(|line| line.chars().count() <= 100));
        run.stdout
    };
    assert_data_eq!(help(&["--help"]), file!["snapshots/help.txt"].raw());
    assert_data_eq!(help(&["analyze", "--help"]), file!["snapshots/analyze-help.txt"].raw());
    assert_data_eq!(help(&["inspect", "--help"]), file!["snapshots/inspect-help.txt"].raw());
    assert_data_eq!(help(&["compare", "--help"]), file!["snapshots/compare-help.txt"].raw());
    assert_data_eq!(help(&["materialize", "--help"]), file!["snapshots/materialize-help.txt"].raw());
    assert_data_eq!(help(&["fit", "--help"]), file!["snapshots/fit-help.txt"].raw());
    assert_data_eq!(help(&["merge", "--help"]), file!["snapshots/merge-help.txt"].raw());
    assert_data_eq!(help(&["figures", "--help"]), file!["snapshots/figures-help.txt"].raw());
    assert_data_eq!(help(&["completions", "--help"]), file!["snapshots/completions-help.txt"].raw());
    assert_data_eq!(help(&["man", "--help"]), file!["snapshots/man-help.txt"].raw());
    assert_eq!(help(&["--version"]), format!("condlora {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_summary_is_as_reviewed() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_sample(folder.path(), &["--progress", "never", "--init", data("init/trec-seed0").to_str().unwrap()]).exits(0);
    assert_data_eq!(run.stdout, file!["snapshots/summary.txt"].raw());
    assert_eq!(
        run.stderr,
        "warning: trec-seed0: the adapter was trained on `all-MiniLM-L6-v2`, the base model given is `all-MiniLM-L6-v2-qv`\n\
         results in condlora-results\n\
         report: condlora-results/report.html\n"
    );
    assert_eq!(names(folder.path()), ["condlora-results"]);
}

#[test]
fn quiet_and_verbose_speak_on_stderr_alone() {
    let folder = tempfile::tempdir().unwrap();
    let usual = run_sample(folder.path(), &["-o", "a"]).exits(0);
    let quiet = run_sample(folder.path(), &["-o", "b", "--quiet"]).exits(0);
    let verbose = run_sample(folder.path(), &["-o", "c", "-v"]).exits(0).says("solve: ").says(" ms");
    assert_eq!((&usual.stdout, &usual.stdout), (&quiet.stdout, &verbose.stdout));
    assert_eq!(quiet.stderr, "");
    // What was not said on stderr is still in the manifest.
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(folder.path().join("b/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["warnings"].as_array().unwrap().len(), 1);
    run_sample(folder.path(), &["-o", "d", "-v", "-q"]).exits(2);
}

#[test]
fn json_has_the_tables_names_and_values_and_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_sample(folder.path(), &["--json", "-o", "out", "--figures", "none"]).exits(0);
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&run.stdout).unwrap();
    let table: Vec<SummaryRow> = read_rows(&folder.path().join("out/summary.csv")).unwrap();
    assert_eq!((rows.len(), table.len()), (6, 6));
    // From the text: serde_json reads a number faster than to its last bit.
    let phi = |line: &str| {
        line.trim().strip_prefix("\"phi_mean\": ").map(|number| number.trim_end_matches(',').parse::<f64>().unwrap())
    };
    let shown: Vec<Option<f64>> = run.stdout.lines().filter_map(phi).map(Some).collect();
    assert_eq!(shown, table.iter().map(|row| row.phi_mean).collect::<Vec<_>>());
    for (json, row) in rows.iter().zip(&table) {
        let verdict = ["chance_answer", "w0_answer", "shared_answer", "verdict", "run_verdict"];
        let mut wanted: Vec<&str> = SUMMARY.split(',').chain(verdict).collect();
        wanted.sort_unstable();
        let mut found: Vec<&str> = json.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
        // Read as the JSON was read: serde_json may miss the last bit of what is written in full.
        let as_json = row.phi_mean.map(|phi| serde_json::from_str::<f64>(&phi.to_string()).unwrap());
        assert_eq!(json["phi_mean"].as_f64(), as_json);
        assert_eq!((json["i"].as_u64(), json["status"].as_str()), (Some(8), Some("ok")));
        assert!(json["init_mean"].is_null());
    }
    // In the CSV's order, too.
    let first = run.stdout.split('}').next().unwrap();
    let at: Vec<usize> = SUMMARY.split(',').map(|name| first.find(&format!("\"{name}\"")).unwrap()).collect();
    assert!(at.is_sorted());
}

#[test]
fn out_holds_exactly_what_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    run_sample(folder.path(), &["-o", "deep/er/out", "--ij", "8,8", "--ij", "4,8", "--side", "both"]).exits(0);
    let out = folder.path().join("deep/er/out");
    let found = files(&out);
    let mut wanted: Vec<String> = [
        "alignment.csv",
        "conversion.csv",
        "cuts.csv",
        "manifest.json",
        "relation.csv",
        "report.html",
        "similarity.csv",
        "spectrum.csv",
        "summary.csv",
        "updates.csv",
    ]
    .map(str::to_owned)
    .to_vec();
    for module in ["query", "value"] {
        for matrix in ["A", "B", "BA"] {
            for side in ["left", "right"] {
                for ij in ["i8-j8", "i4-j8"] {
                    wanted.push(format!("matrices/trec-seed0/{module}.{matrix}.{side}.{ij}.csv"));
                    wanted.extend(["svg", "png"].map(|end| format!("figures/trec-seed0/{module}.{matrix}.{side}.{ij}.{end}")));
                }
            }
        }
    }
    for name in ["overview", "query.expected", "query.spectrum", "value.expected", "value.spectrum"] {
        wanted.extend(["svg", "png"].map(|end| format!("figures/trec-seed0/{name}.{end}")));
    }
    wanted.sort();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), wanted);
    assert_eq!(names(folder.path().join("deep/er").as_path()), ["out"]);

    for (table, header) in [("summary", SUMMARY), ("similarity", SIMILARITY), ("conversion", CONVERSION), ("spectrum", SPECTRUM)]
    {
        let text = String::from_utf8(found[&format!("{table}.csv")].clone()).unwrap();
        assert_eq!(text.lines().next().unwrap(), header);
        assert!(!text.contains('\r') && !text.contains("NaN") && !text.contains("inf") && text.ends_with('\n'));
    }
    // A φ matrix is its part of similarity.csv.
    let cells: BTreeMap<(u32, u32), f64> = read_rows::<SimilarityRow>(&out.join("similarity.csv"))
        .unwrap()
        .into_iter()
        .filter(|r| (r.module.as_str(), r.matrix.name(), r.side.name(), r.i, r.j) == ("value", "BA", "right", 4, 8))
        .map(|r| ((r.layer_a.index().unwrap(), r.layer_b.index().unwrap()), r.phi.unwrap()))
        .collect();
    let text = String::from_utf8(found["matrices/trec-seed0/value.BA.right.i4-j8.csv"].clone()).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("layer,0,1,2,3,4,5"));
    for (layer, line) in (0_u32..).zip(lines) {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!((fields[0], fields.len()), (layer.to_string().as_str(), 7));
        for (other, field) in (0..).zip(&fields[1..]) {
            assert_eq!(field.parse::<f64>().unwrap(), cells[&(layer, other)]);
        }
    }
    assert_eq!(cells.len(), 36);
}

#[test]
fn the_manifest_says_where_everything_came_from() {
    let folder = tempfile::tempdir().unwrap();
    run_sample(folder.path(), &["-o", "out", "--seed", "3", "--threads", "2", "--modules", "value", "--layers", "1..2"]).exits(0);
    let out = folder.path().join("out");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["program"], &manifest["version"]), (&"condlora".into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!((&manifest["seed"], &manifest["threads"]), (&3.into(), &2.into()));
    assert!(manifest["created"].as_str().unwrap().ends_with('Z'));
    let line = manifest["command_line"].as_array().unwrap();
    assert_eq!((line[1].as_str(), line.len()), (Some("analyze"), 15));
    let options = &manifest["options"];
    assert_eq!(
        (&options["null_draws"], &options["layers"], &options["convention"]),
        (&"auto".into(), &"1..2".into(), &"auto".into())
    );
    assert!(manifest["timings"]["solve"].as_f64().unwrap() >= 0.0);
    assert!(manifest["libraries"]["openblas"].as_str().unwrap().starts_with("OpenBLAS"));
    assert!(manifest["host"]["arch"].is_string() && manifest["warnings"].is_array());
    // Every other file, with its hash.
    let mut hashes: BTreeMap<String, String> =
        files(&out).into_iter().map(|(name, bytes)| (name, blake3::hash(&bytes).to_hex().to_string())).collect();
    hashes.remove("manifest.json");
    assert_eq!(manifest["outputs"], serde_json::to_value(hashes).unwrap());
    // Every tensor read, with the hash of its bytes: two layers of W0, A and B; and the headers and the configuration.
    let weights = fs::read(real_base().join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let read: Vec<&serde_json::Value> =
        manifest["inputs"].as_array().unwrap().iter().filter(|r| !r["tensor"].is_null()).collect();
    assert_eq!(read.len(), 6);
    for layer in [1, 2] {
        let name = format!("encoder.layer.{layer}.attention.self.value.weight");
        let record = read.iter().find(|r| r["tensor"] == name.as_str()).unwrap();
        assert_eq!(record["blake3"], blake3::hash(tensors.tensor(&name).unwrap().data()).to_hex().as_str());
        assert_eq!(record["dtype"], "F32");
    }
    assert!(manifest["inputs"].as_array().unwrap().len() > read.len());
}

#[test]
fn wrong_usage_is_2() {
    let folder = small();
    for (arguments, says) in [
        (&["--threads", "0"][..], "--threads"),
        (&["--threads", "many"], "--threads"),
        (&["--layers", "9..3"], "9..3: expected the smaller index first"),
        (&["--layers", "7"], "no module has such a layer"),
        (&["--layers", "x"], "x: no module has such a layer"),
        (&["--layers", "1..x"], "expected a layer index"),
        (&["--rcond", "NaN"], "--rcond"),
        (&["--rcond", "-1"], "--rcond -1: expected a number from 0 to below 1"),
        (&["--rcond", "1"], "--rcond 1: expected a number from 0 to below 1"),
        (&["--ij", "0,8"], "--ij 0,8"),
        (&["--ij", "8"], "--ij"),
        (&["--modules", "quary"], "the modules are query"),
        (&["--matrices", "C"], "A, B, BA, lora_A, lora_B"),
        (&["--side", "up"], "left, right, both"),
        (&["--figures", "gif"], "svg, png"),
        (&["--figures", "none,svg"], "--figures"),
        (&["--null-draws", "-1"], "invalid value '-1' for '--null-draws <N|auto>'"),
        (&["--convention", "mine"], "auto, paper, general"),
        (&["--nonsense"], "--nonsense"),
    ] {
        let mut all = vec!["adapter", "--base", "base", "-o", "out"];
        all.extend(arguments);
        let run = run_in(folder.path(), &all).exits(2).says(says).says("error: ");
        assert!(run.stdout.is_empty() && !run.stderr.contains("panicked"), "{arguments:?}: {run:?}");
        assert_eq!(names(folder.path()), ["adapter", "base"], "{arguments:?}");
    }
    run_in(folder.path(), &[]).exits(2).says("<PATH>...");
    Run::of(program().arg("study").output().unwrap()).exits(2);
    Run::of(program().output().unwrap()).exits(2);
}

#[test]
fn what_is_there_is_replaced_only_when_it_is_ours() {
    let folder = small();
    let root = folder.path();
    run_in(root, &small_and(&["-o", "out"])).exits(0);
    let old = files(&root.join("out"));
    run_in(root, &small_and(&["-o", "out"])).exits(7).says("out: exists already").says("--overwrite replaces it");
    assert_eq!(files(&root.join("out")), old);
    run_in(root, &small_and(&["-o", "out", "--overwrite", "--seed", "1"])).exits(0);
    assert_ne!(files(&root.join("out"))["summary.csv"], old["summary.csv"]);

    fs::create_dir(root.join("foreign")).unwrap();
    fs::write(root.join("foreign/thesis.tex"), "x").unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for flag in [&["-o", "foreign", "--overwrite"][..], &["-o", "foreign"]] {
        let mut arguments = SMALL.to_vec();
        arguments.extend(flag);
        run_in(root, &arguments).exits(7).says("foreign: exists and is not an output of condlora");
    }
    assert_eq!(names(&root.join("foreign")), ["thesis.tex"]);
    run_in(root, &small_and(&["-o", "empty"])).exits(0);
    run_in(root, &small_and(&["-o", "adapter", "--overwrite"])).exits(7).says("adapter: is an adapter or base model directory");
    run_in(root, &small_and(&["-o", "base", "--overwrite"])).exits(7).says("base: is an adapter or base model directory");
    fs::write(root.join("file"), "x").unwrap();
    run_in(root, &small_and(&["-o", "file"])).exits(7).says("file: exists and is not a directory");
    run_in(root, &small_and(&["-o", "file/out"])).exits(7).says("file/out: ");
    run_in(root, &small_and(&["-o", ""])).exits(2);
    assert_eq!(names(root), ["adapter", "base", "empty", "file", "foreign", "out"]);
}

#[test]
fn a_directory_with_its_own_results_can_be_searched_again() {
    let folder = small();
    let arguments = [".", "--base", "base", "-o", "results", "--figures", "none", "--overwrite"];
    let first = run_in(folder.path(), &arguments).exits(0);
    let old = files(&folder.path().join("results"));
    assert_eq!(run_in(folder.path(), &arguments).exits(0).stdout, first.stdout);
    assert_eq!(files(&folder.path().join("results"))["similarity.csv"], old["similarity.csv"]);
}

#[test]
fn figures_can_go_elsewhere() {
    let folder = small();
    fs::create_dir(folder.path().join("plots")).unwrap();
    fs::write(folder.path().join("plots/mine.txt"), "x").unwrap();
    let arguments = ["adapter", "--base", "base", "-o", "out", "--figures", "svg", "--figures-dir", "plots", "--matrices", "A"];
    run_in(folder.path(), &arguments).exits(0);
    assert!(!folder.path().join("out/figures").exists());
    assert_eq!(
        files(&folder.path().join("plots")).keys().collect::<Vec<_>>(),
        ["adapter/overview.svg", "adapter/query.A.left.i2-j2.svg", "adapter/query.spectrum.svg", "mine.txt"]
    );
}

#[test]
fn an_untrained_adapter_has_no_phi_and_strict_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let mut command = analyze([data("init/trec-seed0")]);
        command.arg("--base").arg(real_base()).args(["-o", "out", "--figures", "none"]).args(more).current_dir(folder.path());
        Run::of(command.output().unwrap())
    };
    let refused = run(&["--strict"]).exits(6).says("--strict").says("status ok in every row").says("found zero");
    assert!(refused.stdout.is_empty() && names(folder.path()).is_empty());

    run(&[]).exits(0);
    let rows: Vec<SimilarityRow> = read_rows(&folder.path().join("out/similarity.csv")).unwrap();
    for row in &rows {
        let zero = row.matrix.name() != "A";
        assert_eq!(
            (row.status.name(), row.phi.is_none(), row.phi_error_bound.is_none()),
            (if zero { "zero" } else { "ok" }, zero, zero)
        );
        // What other weights would give is known all the same.
        assert!(row.w0_mean.is_some());
    }
    assert_eq!(rows.len(), 2 * 3 * 36);
    for row in read_rows::<SummaryRow>(&folder.path().join("out/summary.csv")).unwrap() {
        let zero = row.matrix.name() != "A";
        assert_eq!(
            (row.status.name(), row.layers, row.phi_mean.is_none(), row.w0_z.is_none()),
            (if zero { "zero" } else { "ok" }, if zero { 0 } else { 6 }, zero, zero)
        );
    }
    let conversion = fs::read_to_string(folder.path().join("out/conversion.csv")).unwrap();
    assert!(conversion.lines().skip(1).all(|line| line.ends_with(",zero")));
    // A trained one is not refused.
    assert!(run_sample(folder.path(), &["--strict", "-o", "strict", "--figures", "none"]).exits(0).stdout.contains("trec-seed0"));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = small();
    // A pipe that nobody reads.
    let gone = || std::io::pipe().unwrap().1;
    for more in [&["-o", "a"][..], &["-o", "b", "--json"]] {
        let mut command = analyze(SMALL);
        Run::of(command.args(more).current_dir(folder.path()).stdout(gone()).output().unwrap()).exits(0).says("results in");
        assert!(folder.path().join(more[1]).join("summary.csv").exists());
    }
    assert_eq!(Run::of(program().args(["analyze", "--help"]).stdout(gone()).output().unwrap()).exits(0).stderr, "");
    // No stderr either: nothing to tell, and nobody to tell it to.
    assert_eq!(analyze(["nowhere"]).stderr(gone()).status().unwrap().code(), Some(3));
}

#[test]
fn colour_is_for_terminals_and_for_those_who_insist() {
    let folder = small();
    let run = |more: &[&str], no_color: bool| {
        let mut command = analyze(SMALL);
        command.args(["-o", "out", "--overwrite"]).args(more).current_dir(folder.path());
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let run = Run::of(command.output().unwrap()).exits(0);
        (run.stdout.contains('\x1b'), run.stderr.contains('\x1b'))
    };
    assert_eq!(run(&[], false), (false, false));
    assert_eq!(run(&[], true), (false, false));
    assert_eq!(run(&["--color", "always"], false), (true, false));
    assert_eq!(run(&["--color", "always"], true), (true, false));
    assert_eq!(run(&["--color", "never"], false), (false, false));
    let error = Run::of(analyze(["nowhere", "--color", "always"]).output().unwrap()).exits(3);
    assert!(error.stderr.starts_with("\x1b[1m\x1b[31merror:\x1b[0m nowhere: does not exist"), "{:?}", error.stderr);
}

/// Runs the program on a terminal of its own, 80 columns wide, and gives what it shows.
#[cfg(target_os = "linux")]
fn on_a_terminal(root: &Path, more: &str, no_color: bool) -> String {
    let line = format!(
        "stty cols 80; {} analyze adapter --base base -o out --overwrite --figures none {more}",
        env!("CARGO_BIN_EXE_condlora")
    );
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR").current_dir(root).stdin(Stdio::null());
    if no_color {
        command.env("NO_COLOR", "1");
    }
    Run::of(command.output().unwrap()).exits(0).stdout
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_gets_colour_and_a_bar() {
    let folder = small();
    let plain = run_in(folder.path(), &small_and(&["-o", "out"])).exits(0);
    let shown = on_a_terminal(folder.path(), "--progress never", false);
    assert!(shown.contains("\x1b[1madapter"), "{shown:?}");
    let uncoloured = on_a_terminal(folder.path(), "--progress never", true).replace("\r\n", "\n");
    // The same words, in lines that fit the terminal.
    let piped = format!("{}{}", plain.stdout, plain.stderr);
    assert_eq!(uncoloured.split_whitespace().collect::<Vec<_>>(), piped.split_whitespace().collect::<Vec<_>>());
    assert!(on_a_terminal(folder.path(), "--null-draws 2000", false).contains("readings, "));
    assert!(!on_a_terminal(folder.path(), "--null-draws 2000 -q", true).contains("readings, "));
}

#[test]
fn progress_is_drawn_only_when_asked_for_where_there_is_no_terminal() {
    let folder = small();
    let run = |style: &str| {
        run_in(folder.path(), &["adapter", "--base", "base", "-o", "out", "--overwrite", "-q", "--progress", style])
            .exits(0)
            .stderr
    };
    assert_eq!(run("auto"), "");
    assert_eq!(run("never"), "");
    // On a slow machine there are lines before the last.
    let plain = run("plain");
    assert!(plain.lines().last().unwrap().starts_with("2/2 readings, ") && plain.ends_with(" s\n"), "{plain}");
}

/// Sends a signal to a run that has made its temporary directory, or has written so much of its output.
#[cfg(debug_assertions)]
fn interrupt(root: &Path, point: &str, signal: &str) -> Run {
    let before = names(root);
    let mut command = sample(root, &["-o", "out", "--overwrite", "--figures", "none"]);
    let held = shared::held::Held::at(point, command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_ne!(names(root), before);
    Run::of(held.signal(signal))
}

#[test]
#[cfg(debug_assertions)]
fn a_signal_leaves_nothing_new_and_the_old_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        for point in ["begun", "summary.csv", "manifest.json"] {
            let run = interrupt(folder.path(), point, signal).exits(code);
            assert!(run.stdout.is_empty() && !run.stderr.contains("results in"));
            assert!(names(folder.path()).is_empty(), "{signal} at {point}");
        }
    }
    run_sample(folder.path(), &["-o", "out", "--figures", "none"]).exits(0);
    let old = files(&folder.path().join("out"));
    for point in ["begun", "manifest.json"] {
        interrupt(folder.path(), point, "-TERM").exits(143);
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(files(&folder.path().join("out")), old, "{point}");
    }
}

/// What the tests hold a run by is not in what people get.
#[test]
#[cfg(not(debug_assertions))]
fn a_release_build_waits_for_nothing() {
    let folder = small();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut command = analyze(SMALL);
    command.env("CONDLORA_WAIT_AT", format!("begun:{}", fifo.display())).current_dir(folder.path());
    Run::of(command.output().unwrap()).exits(0);
    let program = fs::read(env!("CARGO_BIN_EXE_condlora")).unwrap();
    assert!(!program.windows(16).any(|part| part == b"CONDLORA_WAIT_AT"));
}
