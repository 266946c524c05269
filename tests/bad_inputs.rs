//! Every bad input gets its exit code and a message that says what is wrong, and leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test that cannot set itself up should stop, and its messages are there to be read"
)]

#[path = "bad_inputs/cases.rs"]
mod cases;
#[path = "bad_inputs/condlora_cases.rs"]
mod condlora_cases;
#[path = "shared/cpu.rs"]
mod cpu;
#[path = "bad_inputs/foreign_cases.rs"]
mod foreign_cases;
#[path = "bad_inputs/generate.rs"]
mod generate;
#[path = "bad_inputs/pickle_cases.rs"]
mod pickle_cases;
#[path = "bad_inputs/pickled.rs"]
mod pickled;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};

use snapbox::{assert_data_eq, file};

fn analysis(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_condlora"));
    command.args(["analyze", "adapter", "--base", "base", "-o", "out", "--color", "never"]).current_dir(root);
    for name in ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    // A message names it.
    command.env("HOME", "/nowhere");
    command
}

fn analyze(root: &Path) -> Output {
    analysis(root).output().unwrap()
}

fn names_in(root: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// How the program took a case.
struct Taken {
    /// The case, the exit code and what stderr said: empty where the case could not be made.
    transcript: String,
    /// What is wrong with that, if anything is.
    complaint: Option<String>,
}

fn take(case: &cases::Case) -> Taken {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    generate::good(root);
    (case.spoil)(root);
    if case.name == "unreadable file" && std::fs::read(root.join(generate::ADAPTER_WEIGHTS)).is_ok() {
        return Taken { transcript: String::new(), complaint: None }; // whoever runs this may read everything
    }
    let before = names_in(root);
    let output = analyze(root);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string());
    let place = root.display().to_string();
    let text_anywhere = text.replace(&format!("{place}/"), "").replace(&place, "ROOT");
    let transcript = format!("# {}\nexit {code}\n{text_anywhere}\n", case.name);
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
    let complaint = (!wrong.is_empty()).then(|| format!("{}: {}\n  {text}", case.name, wrong.join("; ")));
    // A file that root may read is no case for root: its message is left out of what was reviewed.
    Taken { transcript: if case.name == "unreadable file" { String::new() } else { transcript }, complaint }
}

#[test]
fn bad_inputs_are_refused_by_name_in_the_words_that_were_reviewed() {
    let taken: Vec<Taken> = cases::all().map(take).collect();
    let complaints: Vec<&str> = taken.iter().filter_map(|taken| taken.complaint.as_deref()).collect();
    assert!(complaints.is_empty(), "{} cases:\n{}", complaints.len(), complaints.join("\n"));
    println!("{} cases", taken.len());
    let transcript: String = taken.into_iter().map(|taken| taken.transcript).collect();
    assert_data_eq!(transcript, file!["snapshots/bad-inputs.txt"].raw());
}

#[test]
fn the_good_input_is_good() {
    let dir = tempfile::tempdir().unwrap();
    generate::good(dir.path());
    let output = analyze(dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(dir.path().join("out").is_dir());
}

/// What is unusual but fine, and the warning it gets, if any.
type Unusual = (&'static str, &'static [&'static str], fn(&Path));

static UNUSUAL: [Unusual; 14] = [
    ("unknown fields", &[], |root| generate::config(root, &[("exclude_modules", "[]"), ("corda_config", "{\"x\": null}")])),
    ("no r, no lora_alpha", &[], |root| generate::config(root, &[("r", ""), ("lora_alpha", "")])),
    ("rslora", &[], |root| generate::config(root, &[("use_rslora", "true")])),
    ("dora", &["DoRA adapter", "the update is more than B·A"], |root| generate::config(root, &[("use_dora", "true")])),
    ("a pattern that matches nothing", &["rank_pattern: `key` matches no module"], |root| {
        generate::config(root, &[("rank_pattern", "{\"key\": 2}")]);
    }),
    ("W0 rewritten by pissa", &["init_lora_weights", "pissa_niter_4"], |root| {
        generate::config(root, &[("init_lora_weights", "\"pissa_niter_4\"")]);
    }),
    ("another base model", &["trained on `someone/base-2`, the base model given is `base`"], |root| {
        generate::config(root, &[("base_model_name_or_path", "\"someone/base-2\"")]);
    }),
    ("a raw dump's names", &[], |root| {
        renamed(root, |name| name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."))
    }),
    ("a compiled model's names", &[], |root| renamed(root, |name| name.replace(".bert.", ".bert._orig_mod."))),
    ("no prefix", &[], |root| renamed(root, |name| name.replace("base_model.model.", ""))),
    ("tensors that are no LoRA", &[], |root| {
        let mut tensors = generate::adapter_tensors();
        tensors.push(generate::f32_tensor("base_model.model.classifier.weight", &[3, 6]));
        generate::adapter(root, &tensors);
    }),
    ("a base name that drives the terminal", &[], |root| {
        let mut tensors = generate::base_tensors();
        tensors.push(generate::f32_tensor("x\u{1b}[2J\n\0", &[2]));
        generate::base(root, &tensors);
    }),
    (
        "W0 transposed",
        &["the base weights of `bert.encoder.layer.0.attention.self.query` and 1 more are stored [in, out] by their shapes"],
        |root| {
            let tensor = |layer| {
                let [a, b] = generate::lora(layer);
                [generate::f32_tensor(&a.name, &[2, 5]), generate::f32_tensor(&b.name, &[6, 2])]
            };
            generate::adapter(root, &["0", "1"].into_iter().flat_map(tensor).collect::<Vec<_>>());
            generate::base(
                root,
                &["0", "1"].map(|layer| generate::f32_tensor(&format!("{}.weight", generate::query(layer)), &[5, 6])),
            );
        },
    ),
    ("a gap between layers", &["module `query`: layers 0..3 without 1..2"], |root| {
        generate::adapter(root, &["0", "3"].into_iter().flat_map(generate::lora).collect::<Vec<_>>());
        let layers = ["0", "1", "2", "3"];
        let weight = |layer| generate::f32_tensor(&format!("{}.weight", generate::query(layer)), &[6, 6]);
        generate::base(root, &layers.map(weight));
    }),
];

fn renamed(root: &Path, change: fn(&str) -> String) {
    let mut tensors = generate::adapter_tensors();
    for tensor in &mut tensors {
        tensor.name = change(&tensor.name);
    }
    generate::adapter(root, &tensors);
}

#[test]
fn what_is_unusual_but_fine_is_done() {
    for (name, says, change) in &UNUSUAL {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        change(dir.path());
        let output = analyze(dir.path());
        let text = String::from_utf8_lossy(&output.stderr);
        println!("{name}\n{text}");
        assert_eq!(output.status.code(), Some(0), "{name}: {text}");
        assert_eq!(
            text.lines().filter(|line| line.starts_with("warning: adapter: ")).count(),
            usize::from(!says.is_empty()),
            "{name}: {text}"
        );
        for part in *says {
            assert!(text.contains(part), "{name}: does not say {part:?}\n{text}");
        }
        // And the two lines that say where the results and the report are.
        assert_eq!(text.lines().count(), 2 + usize::from(!says.is_empty()), "{name}: {text}");
        assert!(dir.path().join("out/similarity.csv").exists());
    }
}

#[test]
fn a_rewritten_base_is_refused_when_strict() {
    let dir = tempfile::tempdir().unwrap();
    generate::good(dir.path());
    generate::config(dir.path(), &[("init_lora_weights", "\"olora\"")]);
    let before = names_in(dir.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_condlora"));
    let output =
        command.args(["analyze", "adapter", "--base", "base", "-o", "out", "--strict"]).current_dir(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("init_lora_weights olora"), "{text}");
    assert_eq!(names_in(dir.path()), before);
}

#[test]
fn many_empty_tensors_are_read_in_time() {
    let dir = tempfile::tempdir().unwrap();
    generate::good(dir.path());
    let mut tensors = generate::base_tensors();
    let end = tensors.iter().map(|tensor| tensor.bytes.len()).sum::<usize>();
    tensors.extend((0..200_000).map(|number| generate::zero_tensor(&format!("t{number}"), "F32", &[0], 0)));
    assert!(end > 0);
    generate::base(dir.path(), &tensors);
    let output = cpu::at_most(5, &analysis(dir.path())).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_base_is_looked_up_where_the_adapter_names_it() {
    let dir = tempfile::tempdir().unwrap();
    generate::good(dir.path());
    let run = |home: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_condlora"));
        command.args(["analyze", "adapter", "-o", "out", "--overwrite", "--figures", "none"]).current_dir(dir.path());
        for name in ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("HOME", home).output().unwrap()
    };
    // `base`, from the working directory.
    let output = run(dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(dir.path().join("base"), dir.path().join("elsewhere")).unwrap();
    let output = run(dir.path());
    let text = String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("hint: ") && text.contains("--base"), "{text}");
}
