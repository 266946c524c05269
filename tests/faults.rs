//! Faults during a run: every system call that can fail is made to fail, the run is killed at every moment, and others work on
//! the same files. Each time the output is the complete old one or the complete new one.
//!
//! Calls are made to fail by `strace`; where it is not installed, or may not trace, those tests are skipped and say so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by them, or says what it counted")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use condlora::output::manifest::is_our_output;
use shared::checkpoint::{PLAIN, square_layers, write_adapter, write_base};
#[cfg(debug_assertions)]
use shared::held::Held;
use shared::program::{analyze, files};

/// A base and an adapter small enough that a run is mostly files.
fn inputs(root: &Path) {
    let layers = square_layers(2, 12, 2);
    write_base(&root.join("base"), &layers, PLAIN);
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[]);
}

/// The study of the inputs; the seed tells one output from another.
fn study(root: &Path, seed: u64, more: &[&str]) -> Command {
    let mut command = analyze(["adapter", "--base", "base", "-o", "out", "--threads", "1", "--modules", "q_proj"]);
    command.args(["--matrices", "A", "--seed", &seed.to_string()]).args(more);
    command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything in an output but the manifest, after checking it against the manifest's hashes.
#[track_caller]
fn whole(out: &Path) -> BTreeMap<String, Vec<u8>> {
    assert!(is_our_output(out), "{}: no manifest of ours", out.display());
    let mut found = files(out);
    let manifest: serde_json::Value = serde_json::from_slice(&found.remove("manifest.json").unwrap()).unwrap();
    let hashes = |name: &String| manifest["outputs"][name].as_str().map(str::to_owned);
    assert_eq!(manifest["outputs"].as_object().unwrap().len(), found.len());
    for (name, bytes) in &found {
        assert_eq!(hashes(name), Some(blake3::hash(bytes).to_hex().to_string()), "{name}");
    }
    found
}

/// Few draws, one format, and what is there replaced.
const PLAINLY: [&str; 5] = ["--null-draws", "2", "--figures", "svg", "--overwrite"];

/// Runs to the end, and gives what is in the output then.
#[track_caller]
fn done(root: &Path, seed: u64, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let output = study(root, seed, more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    whole(&root.join("out"))
}

/// Runs a study under strace with one injection.
fn traced(root: &Path, seed: u64, injection: &str) -> (Output, bool) {
    let plain = study(root, seed, &PLAINLY);
    let mut command = Command::new("strace");
    let log = tempfile::NamedTempFile::new().unwrap();
    let call = injection.split(':').next().unwrap();
    command.args(["-f", "-qq", "-e", &format!("trace={call}"), "-e", &format!("inject={injection}"), "-o"]).arg(log.path());
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(root).stdin(Stdio::null());
    // OpenBLAS ends the process when it cannot start its threads, before our first line.
    command.env("OPENBLAS_NUM_THREADS", "1");
    let output = command.output().unwrap();
    let log = fs::read(log.path()).unwrap();
    let hit = String::from_utf8_lossy(&log).contains("(INJECTED)");
    (output, hit)
}

fn strace_works() -> bool {
    let works =
        Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success());
    if !works {
        println!("skipped: strace is not installed, or may not trace");
    }
    works
}

/// Calls that can fail while a study reads and writes, and how.
const FAILURES: [(&str, &str); 17] = [
    ("write", "ENOSPC"),
    ("write", "EIO"),
    ("openat", "EACCES"),
    ("mkdir", "ENOSPC"),
    ("mkdir", "EACCES"),
    ("fsync", "EIO"),
    ("renameat2", "EIO"),
    ("renameat2", "EINVAL"),
    ("rename", "EACCES"),
    ("unlinkat", "EACCES"),
    ("unlink", "EPERM"),
    ("rmdir", "EACCES"),
    ("statx", "EIO"),
    ("newfstatat", "EACCES"),
    ("getdents64", "EIO"),
    ("read", "EIO"),
    ("clone3", "EAGAIN"),
];

/// What must hold after a run that something was done to; gives the output's seed.
#[track_caller]
fn old_or_new(root: &Path, versions: &[BTreeMap<String, Vec<u8>>; 2], what: &str) -> usize {
    let found = whole(&root.join("out"));
    let at = versions.iter().position(|version| *version == found);
    at.unwrap_or_else(|| panic!("{what}: the output is neither the old one nor the new one"))
}

#[test]
fn whatever_call_fails_the_output_is_whole_and_the_reason_is_one_line() {
    if !strace_works() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let versions = [done(root, 0, &PLAINLY), done(root, 1, &PLAINLY)];
    let mut present = 1;
    let (mut failed, mut passed) = (0, 0);
    for (call, error) in FAILURES {
        for number in 1..2000 {
            let what = format!("{call} {number}: {error}");
            let seed = 1 - present;
            let (output, hit) = traced(root, seed as u64, &format!("{call}:error={error}:when={number}"));
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let now = old_or_new(root, &versions, &what);
            match output.status.code() {
                Some(0) => {
                    assert!(now == seed, "{what}: done, and the output is the old one");
                    passed += 1;
                }
                // The system's loader could not start the program.
                Some(127) => assert!(now == present && text.contains("error while loading shared libraries"), "{what}: {text}"),
                Some(3 | 5 | 7 | 8) => {
                    assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{what}: {text}");
                    assert!(!text.contains("panicked") && !text.contains("os error"), "{what}: {text}");
                    failed += 1;
                }
                code => panic!("{what}: {code:?} {:?}\n{text}", output.status.signal()),
            }
            let left: Vec<String> =
                names(root).into_iter().filter(|name| !["adapter", "base", "out"].contains(&&**name)).collect();
            // What cannot be removed stays, and is told; an error before any output is one of the old output's.
            let may_stay = matches!(call, "unlinkat" | "unlink" | "rmdir" | "getdents64" | "openat" | "statx" | "newfstatat");
            assert!(left.is_empty() || may_stay, "{what}: left {left:?}\n{text}");
            for name in left {
                let path = root.join(name);
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
            present = now;
            if !hit {
                break;
            }
            assert!(number < 1999, "{call} has no end");
        }
    }
    println!("{failed} runs failed by an injected error, {passed} went on");
    assert!(failed > 100, "{failed}");
}

#[test]
fn killed_at_any_call_that_writes_the_output_is_whole_and_the_next_run_clears_up() {
    if !strace_works() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let versions = [done(root, 0, &PLAINLY), done(root, 1, &PLAINLY)];
    let (mut present, mut counts) = (1, [0, 0]);
    for call in ["write", "mkdir", "fsync", "renameat2", "unlinkat", "unlink", "rmdir"] {
        for number in 1..1000 {
            let seed = 1 - present;
            let (output, _) = traced(root, seed as u64, &format!("{call}:signal=SIGKILL:when={number}"));
            let now = old_or_new(root, &versions, &format!("killed at {call} {number}"));
            if output.status.success() {
                present = now;
                break;
            }
            assert_eq!(output.status.signal(), Some(9), "{call} {number}");
            counts[usize::from(now == seed)] += 1;
            present = now;
        }
    }
    println!("killed at calls that write: {} times the old output, {} times the new one", counts[0], counts[1]);
    assert!(counts[0] > 10 && counts[1] > 0, "{counts:?}");
    done(root, 0, &PLAINLY);
    assert_eq!(names(root), ["adapter", "base", "out"]);
}

/// A sequence of numbers without a pattern, the same each time.
fn scattered(number: u64) -> f64 {
    let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((mixed ^ (mixed >> 27)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn killed_at_a_hundred_moments_the_output_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let figures = ["--null-draws", "2", "--figures", "svg,png", "--overwrite"];
    let versions = [done(root, 0, &figures), done(root, 1, &figures)];
    let started = Instant::now();
    done(root, 1, &figures);
    let takes = started.elapsed();
    let (mut present, mut old, mut new, mut ended) = (1, 0, 0, 0);
    // Where a kill falls is left to chance, and nothing is asserted about it: the next test has every point.
    for number in 0..100 {
        let seed = 1 - present;
        let mut run = study(root, seed as u64, &figures).spawn().unwrap();
        std::thread::sleep(takes.mul_f64(scattered(number)));
        run.kill().unwrap();
        let status = run.wait().unwrap();
        let now = old_or_new(root, &versions, &format!("kill {number}"));
        match status.code() {
            Some(code) => {
                assert!(code == 0 && now == seed);
                ended += 1;
            }
            None if now == seed => new += 1,
            None => old += 1,
        }
        present = now;
    }
    println!("runs of {takes:?}: killed before the exchange {old}, after it {new}; ended before the kill {ended}");
    done(root, 0, &figures);
    assert_eq!(names(root), ["adapter", "base", "out"]);
}

/// Starts a run and holds it at this point.
#[cfg(debug_assertions)]
fn held(root: &Path, seed: u64, point: &str) -> Held {
    Held::at(point, &mut study(root, seed, &PLAINLY))
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), usize::from(![0, 143].contains(&code)), "{text}");
    text
}

#[test]
#[cfg(debug_assertions)]
fn killed_at_any_point_the_output_is_the_old_one_until_it_is_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let versions = [done(root, 1, &PLAINLY), done(root, 0, &PLAINLY)];
    let files: Vec<String> = versions[0].keys().cloned().collect();
    assert!(files.len() > 4);
    for point in ["begun"].into_iter().chain(files.iter().map(String::as_str)).chain(["manifest.json"]) {
        assert_eq!(held(root, 1, point).signal("-KILL").status.signal(), Some(9));
        assert_eq!(old_or_new(root, &versions, point), 1, "killed at {point}");
        // What the last run left, and nothing of those before it.
        assert_eq!(names(root).len(), 4, "{point}");
    }
    assert_eq!(held(root, 1, "exchanged").signal("-KILL").status.signal(), Some(9));
    assert_eq!(old_or_new(root, &versions, "exchanged"), 0);
    done(root, 0, &PLAINLY);
    assert_eq!(names(root), ["adapter", "base", "out"]);
}

#[test]
#[cfg(debug_assertions)]
fn killed_between_two_renames_the_old_output_comes_back() {
    if !strace_works() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let old = done(root, 0, &PLAINLY);
    // A file system that cannot exchange: the old output is moved out of its place, and then the new one there.
    let plain = study(root, 1, &PLAINLY);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=renameat2:error=EINVAL"]);
    command.args(["-e", "inject=rename,renameat:signal=SIGKILL:when=2"]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(root).stdin(Stdio::null());
    command.output().unwrap();
    assert!(!root.join("out").exists(), "it was not killed between the two");
    // The next run puts it back when it begins, even if it then fails itself.
    ends(&held(root, 1, "begun").signal("-TERM"), 143);
    assert_eq!(whole(&root.join("out")), old);
    assert_eq!(names(root), ["adapter", "base", "out"]);
}

#[cfg(debug_assertions)]
fn temporary(root: &Path) -> std::path::PathBuf {
    root.join(names(root).into_iter().find(|name| name.contains("condlora-tmp")).unwrap())
}

#[test]
#[cfg(debug_assertions)]
fn a_directory_that_is_taken_away_while_it_computes_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let old = done(root, 0, &PLAINLY);
    let take_away = |what: &dyn Fn()| {
        let run = held(root, 1, "begun");
        what();
        run.go_on()
    };
    // The directory in which the new output will be made, which is still empty.
    ends(&take_away(&|| fs::remove_dir_all(temporary(root)).unwrap()), 0);
    let new = whole(&root.join("out"));
    assert_ne!(new, old);
    // The old output.
    ends(&take_away(&|| fs::remove_dir_all(root.join("out")).unwrap()), 0);
    assert_eq!(whole(&root.join("out")), new);
    assert_eq!(names(root), ["adapter", "base", "out"]);
    // The old output, and something else in its place: that is not ours to replace.
    let run = take_away(&|| {
        fs::remove_dir_all(root.join("out")).unwrap();
        fs::create_dir(root.join("out")).unwrap();
        fs::write(root.join("out/thesis.tex"), "years of work").unwrap();
    });
    let text = ends(&run, 7);
    assert!(text.contains("out: "), "{text}");
    assert_eq!(names(&root.join("out")), ["thesis.tex"]);
    assert_eq!(names(root), ["adapter", "base", "out"]);
}

#[test]
#[cfg(debug_assertions)]
fn a_directory_that_is_taken_away_while_it_is_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let old = done(root, 0, &PLAINLY);
    for last in ["summary.csv", "manifest.json"] {
        let run = held(root, 1, last);
        fs::remove_dir_all(temporary(root)).unwrap();
        let text = ends(&run.go_on(), 7);
        assert!(text.contains("error: out/") && text.contains("cannot be written: No such file or directory"), "{text}");
        assert!(!text.contains("condlora-tmp"), "{text}");
        assert_eq!(whole(&root.join("out")), old);
        assert_eq!(names(root), ["adapter", "base", "out"]);
    }
}

#[test]
fn two_runs_into_one_output_leave_one_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let versions = [done(root, 0, &PLAINLY), done(root, 1, &PLAINLY)];
    let mut winners = [0, 0];
    for _ in 0..10 {
        let runs = [0, 1].map(|seed| study(root, seed, &PLAINLY).spawn().unwrap());
        for run in runs {
            ends(&run.wait_with_output().unwrap(), 0);
        }
        winners[old_or_new(root, &versions, "two runs")] += 1;
        assert_eq!(names(root), ["adapter", "base", "out"]);
    }
    println!("of two runs with --overwrite the first was there in the end {} times, the second {}", winners[0], winners[1]);
    for _ in 0..10 {
        fs::remove_dir_all(root.join("out")).unwrap();
        let spawn = |seed: u64| study(root, seed, &PLAINLY[..4]).spawn().unwrap();
        let runs = [0, 1].map(spawn).map(|run| run.wait_with_output().unwrap());
        let codes = runs.each_ref().map(|output| output.status.code().unwrap());
        let winner = codes.iter().position(|code| *code == 0).unwrap();
        assert_eq!(codes[1 - winner], 7);
        let text = String::from_utf8_lossy(&runs[1 - winner].stderr);
        assert!(text.contains("error: out: ") && text.contains("hint: "), "{text}");
        assert_eq!(old_or_new(root, &versions, "two runs"), winner);
        assert_eq!(names(root), ["adapter", "base", "out"]);
    }
}

/// What is done to a file: its name, and the doing, with the file's contents before.
#[cfg(debug_assertions)]
type Change = (&'static str, fn(&Path, &[u8]));

#[test]
#[cfg(debug_assertions)]
fn an_input_that_changes_under_the_run_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let weights = root.join("base/model.safetensors");
    let good = fs::read(&weights).unwrap();
    let changes: [Change; 3] = [
        ("written over", |path, good| fs::write(path, good).unwrap()),
        ("grown", |path, good| fs::write(path, [good, b"more"].concat()).unwrap()),
        ("truncated", |path, good| fs::write(path, &good[..good.len() / 2]).unwrap()),
    ];
    for (name, change) in changes {
        fs::write(&weights, &good).unwrap();
        // Its header has been read, and none of its tensors.
        let run = held(root, 0, "begun");
        change(&weights, &good);
        let text = ends(&run.go_on(), 3);
        println!("{name}: {text}");
        assert!(text.contains("base/model.safetensors: changed while it was being read"), "{name}: {text}");
        assert_eq!(names(root), ["adapter", "base"], "{name}");
    }
}

#[test]
fn a_full_disk_behind_stdout_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    inputs(root);
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for arguments in [&["inspect", "adapter", "--base", "base"][..], &["--help"], &["--version"], &["analyze", "-h"]] {
        let mut command = shared::program::program();
        let output = command.args(arguments).current_dir(root).stdout(full()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{arguments:?}: {text}");
        assert_eq!(text, "error: standard output: cannot be written: No space left on device\n", "{arguments:?}");
    }
    // The tables are there all the same.
    let output = study(root, 0, &PLAINLY).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("results in out\nreport: out/report.html\nerror: standard output")
    );
    whole(&root.join("out"));
}
