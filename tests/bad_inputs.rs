//! Every bad input gets its exit code and a message that says what is wrong, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot set itself up should stop, and its messages are there to be read")]

#[path = "bad_inputs/cases.rs"]
mod cases;
#[path = "bad_inputs/generate.rs"]
mod generate;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};

fn analyze(root: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_condlora"))
        .args(["analyze", "adapter", "--base", "base", "-o", "out", "--color", "never"])
        .current_dir(root)
        .output()
        .unwrap()
}

fn names_in(root: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// What is wrong with how the program took a case, if anything is.
fn complaint(case: &cases::Case) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    generate::good(root);
    (case.spoil)(root);
    if case.name == "unreadable file" && std::fs::read(root.join(generate::ADAPTER_WEIGHTS)).is_ok() {
        return None; // whoever runs this may read everything
    }
    let before = names_in(root);
    let output = analyze(root);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{} (exit {})\n{}", case.name, case.exit, text.replace(&format!("{}/", root.display()), ""));
    let mut wrong: Vec<String> =
        case.says.iter().filter(|part| !text.contains(**part)).map(|part| format!("does not say {part:?}")).collect();
    if output.status.code() != Some(i32::from(case.exit)) {
        wrong.push(format!("{:?}, expected exit {}", output.status, case.exit));
    }
    if text.lines().filter(|line| line.starts_with("error: ")).count() != 1 || text.contains("panicked") {
        wrong.push("expected one line that starts with `error: `".to_owned());
    }
    if text.len() > 4000 || text.chars().any(|c| c.is_control() && c != '\n') {
        wrong.push("the message is too long or has control characters".to_owned());
    }
    if !output.stdout.is_empty() {
        wrong.push("something on stdout".to_owned());
    }
    if names_in(root) != before {
        wrong.push("something was left behind".to_owned());
    }
    (!wrong.is_empty()).then(|| format!("{}: {}\n  {text}", case.name, wrong.join("; ")))
}

#[test]
fn bad_inputs_are_refused_by_name() {
    let complaints: Vec<String> = cases::all().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "{} cases:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn the_good_input_is_good() {
    let dir = tempfile::tempdir().unwrap();
    generate::good(dir.path());
    let output = analyze(dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(dir.path().join("out").is_dir());
}
