//! The help and the man pages: every example of the help runs, shells complete, man pages are well-formed, and the files that the help lists are
//! those that are written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use shared::checkpoint::{Layer, PLAIN, write_adapter, write_base};
use shared::program::{Run, program};

const N: usize = 24;
const RANK: usize = 8;

/// All commands that the help lists, `help` itself left out.
fn commands() -> Vec<String> {
    let help = Run::of(program().arg("-h").output().unwrap()).exits(0).stdout;
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let name = |line: &str| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
    let names = listed.lines().filter_map(name).map(|line| line.split(' ').next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

/// Whether a program is there; who runs the tests should know what was left out. Nobody reads that in CI, so there it has to be.
fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed (scripts/install-test-programs.sh installs it)");
        #[allow(clippy::print_stderr, reason = "a part of a test that did nothing")]
        {
            eprintln!("SKIPPED what needs {program}: it is not installed");
        }
    }
    found
}

/// A shell in `root`, which is its home too, with the program on its path.
fn shell(name: &str, root: &Path, script: &str) -> Command {
    let ours = Path::new(env!("CARGO_BIN_EXE_condlora")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(ours.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut command = Command::new(name);
    command.args(["-c", script]).current_dir(root).env("PATH", path.unwrap()).env("HOME", root).stdin(Stdio::null());
    for name in ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command
}

/// The files that the examples speak of.
fn examples_world(root: &Path) {
    let layers: Vec<Layer> = ["query", "value"]
        .iter()
        .flat_map(|module| (0..3).map(move |l| Layer::new(&format!("encoder.layer.{l}.attention.self.{module}"), N, N, RANK)))
        .collect();
    write_base(&root.join("models/roberta-base"), &layers, PLAIN);
    let named = [("base_model_name_or_path", serde_json::json!("models/roberta-base"))];
    let adapter = |name: &str, shift: f64, init: bool| {
        let changed = |layer: &Layer| Layer {
            a: layer.a.mapv(|v| v * v + shift),
            b: layer.b.mapv(|v| if init { 0.0 } else { v * v - shift }),
            ..layer.clone()
        };
        write_adapter(&root.join(name), &layers.iter().map(changed).collect::<Vec<_>>(), PLAIN, &named);
    };
    adapter("adapters/sst2", 0.1, false);
    for (seed, shift) in [("seed0", 0.2), ("seed1", 0.3)] {
        adapter(&format!("runs/{seed}"), shift, false);
        adapter(&format!("init/{seed}"), shift, true);
    }
    let fitted = ["fit", "adapters/sst2", "-o", "condlora/sst2", "-q"];
    Run::of(program().args(fitted).current_dir(root).output().unwrap()).exits(0);
    for dir in [".local/share/bash-completion/completions", ".local/share/man", ".zfunc", ".config/fish/completions"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
}

/// What is below `Examples:` in a command's long help.
fn examples_of(arguments: &[&str]) -> String {
    let help = Run::of(program().args(arguments).arg("--help").output().unwrap()).exits(0).stdout;
    let lines = help.split("Examples:\n").nth(1).unwrap_or_else(|| panic!("{arguments:?} has no examples"));
    lines.split("\n\n").next().unwrap().to_owned()
}

#[test]
fn every_example_of_the_help_runs() {
    if !is_there("bash") {
        return;
    }
    let mut all: Vec<(String, String)> = vec![("condlora".to_owned(), examples_of(&[]))];
    all.extend(commands().into_iter().map(|name| (name.clone(), examples_of(&[&name]))));
    assert!(all.len() >= 9, "{all:?}");
    for (name, examples) in all {
        let folder = tempfile::tempdir().unwrap();
        examples_world(folder.path());
        if name == "figures" {
            let made = "condlora analyze runs -o results --figures none -q && condlora compare adapters/sst2 runs/seed0 -o compared --figures none";
            Run::of(shell("bash", folder.path(), made).output().unwrap()).exits(0);
        }
        if [("jq", examples.contains("| jq")), ("man", examples.contains("| man"))]
            .iter()
            .any(|(tool, used)| *used && !is_there(tool))
        {
            continue;
        }
        // Stops at the first that fails, and where a pipe's first command does.
        let run = Run::of(shell("bash", folder.path(), &format!("set -e -o pipefail\n{examples}")).output().unwrap());
        assert_eq!(run.code, Some(0), "{name}:\n{examples}\n{}", run.stderr);
        assert!(examples.lines().all(|line| line.chars().count() <= 80), "{name}:\n{examples}");
    }
}

/// What bash offers for the last of these words.
fn bash_offers(words: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    // The arguments that readline gives: the command, the word that is completed, the word before it.
    let script = format!(
        "source <(condlora completions bash)\n\
         compopt() {{ :; }}  # which bash has only while a key is pressed\n\
         COMP_WORDS=({})\n\
         COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         $(complete -p condlora | sed 's/.*-F \\([^ ]*\\) .*/\\1/') condlora \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        quoted.join(" ")
    );
    let run = Run::of(shell("bash", folder.path(), &script).output().unwrap()).exits(0);
    assert_eq!(run.stderr, "");
    run.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    if !is_there("bash") {
        return;
    }
    let offered = bash_offers(&["condlora", ""]);
    for name in commands() {
        assert!(offered.contains(&name), "{name} in {offered:?}");
    }
    assert_eq!(bash_offers(&["condlora", "an"]), ["analyze"]);
    assert_eq!(bash_offers(&["condlora", "analyze", "--null"]), ["--null-draws"]);
    assert_eq!(bash_offers(&["condlora", "analyze", "--side", ""]), ["left", "right", "both"]);
    assert_eq!(bash_offers(&["condlora", "analyze", "x", "--matrices", "lora"]), ["lora_A", "lora_B"]);
    assert_eq!(bash_offers(&["condlora", "fit", "--progress", "p"]), ["plain"]);
    assert_eq!(bash_offers(&["condlora", "completions", "z"]), ["zsh"]);
    // A path is the shell's to complete; a number has nothing to offer, no file either.
    assert!(bash_offers(&["condlora", "analyze", "adapters/x"]).is_empty());
    assert!(bash_offers(&["condlora", "analyze", "--seed", ""]).is_empty());
}

#[test]
fn other_shells_can_read_their_scripts() {
    let folder = tempfile::tempdir().unwrap();
    for (name, no_run) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let text = Run::of(program().args(["completions", name]).output().unwrap()).exits(0).stdout;
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        if is_there(name) {
            let run = Run::of(Command::new(name).arg(no_run).arg(&file).output().unwrap()).exits(0);
            assert_eq!(run.stderr, "", "{name}");
        }
    }
    for (name, part) in [("elvish", "edit:completion"), ("powershell", "Register-ArgumentCompleter")] {
        assert!(Run::of(program().args(["completions", name]).output().unwrap()).exits(0).stdout.contains(part));
    }
    Run::of(program().args(["completions", "tcsh"]).output().unwrap()).exits(2).says("bash, elvish, fish, powershell, zsh");
    Run::of(program().arg("completions").output().unwrap()).exits(2).says("<SHELL>");
}

/// The terms below `Files written:` in a command's long help.
fn files_written(command: &str) -> Vec<String> {
    let help = Run::of(program().args([command, "--help"]).output().unwrap()).exits(0).stdout;
    let lines = help.split("Files written:\n").nth(1).unwrap_or_else(|| panic!("{command} lists no files"));
    let terms = lines.split("\n\n").next().unwrap().lines().map(|line| line.trim_start().split("  ").next().unwrap().to_owned());
    terms.collect()
}

/// Whether a term of the help means this file: `report.html`, everything in `figures/`, every `*.parquet`.
fn means(term: &str, file: &str) -> bool {
    match term.strip_prefix('*') {
        Some(end) => file.ends_with(end),
        None if term.ends_with('/') => file.starts_with(term),
        None => file == term,
    }
}

#[test]
fn help_lists_the_files_that_are_written() {
    let folder = tempfile::tempdir().unwrap();
    examples_world(folder.path());
    let log = r#"{"log_history": [{"step": 1, "epoch": 1.0, "loss": 0.5}, {"step": 2, "epoch": 2.0, "loss": 0.25}]}"#;
    fs::write(folder.path().join("runs/seed0/trainer_state.json"), log).unwrap();
    // Each with every option that adds a file.
    let analyze = "analyze runs --across --measures --cuts --intruders --grid 0,1 --formats csv,parquet,npy";
    let shards: Vec<String> = [1, 2]
        .iter()
        .map(|k| format!("analyze runs --measures --cuts --intruders --grid 0,1 --formats csv,parquet,npy --shard {k}/2"))
        .collect();
    let runs = [
        ("analyze", analyze, "analyzed", "analyze"),
        ("", &shards[0], "part1", ""),
        ("", &shards[1], "part2", ""),
        ("merge", "merge part1 part2 --across", "merged", "analyze"),
        ("compare", "compare adapters/sst2 runs/seed0", "compared", "compare"),
        ("fit", "fit adapters/sst2 --held-out", "fitted", "fit"),
        ("materialize", "materialize condlora/sst2", "materialized", "materialize"),
    ];
    for (command, line, out, listed) in runs {
        let arguments = line.split(' ').chain(["-o", out, "-q"]);
        Run::of(program().args(arguments).current_dir(folder.path()).output().unwrap()).exits(0);
        if command.is_empty() {
            continue;
        }
        let written = shared::program::files(&folder.path().join(out));
        let terms = files_written(listed);
        for file in written.keys() {
            assert!(terms.iter().any(|term| means(term, file)), "{command} writes {file}; its help lists {terms:?}");
        }
        for term in &terms {
            assert!(written.keys().any(|file| means(term, file)), "{command} does not write {term}, only {:?}", written.keys());
        }
    }
    assert_eq!(files_written("merge"), ["as analyze"]);
    // `figures` changes the files that it lists and no others.
    let results = folder.path().join("compared");
    let before = shared::program::files(&results);
    let again = ["figures", "compared", "--dpi", "96", "-q"];
    Run::of(program().args(again).current_dir(folder.path()).output().unwrap()).exits(0);
    let terms = files_written("figures");
    let after = shared::program::files(&results);
    let changed: Vec<&String> =
        after.iter().filter(|(name, bytes)| before.get(*name) != Some(bytes)).map(|(name, _)| name).collect();
    for file in &changed {
        assert!(terms.iter().any(|term| means(term, file)), "figures writes {file}; its help lists {terms:?}");
    }
    assert!(terms.iter().all(|term| changed.iter().any(|file| means(term, file))), "{changed:?}");
}

#[test]
fn man_pages_are_well_formed_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("share/man1");
    let run = Run::of(program().arg("man").arg(&dir).output().unwrap()).exits(0);
    let mut names: Vec<String> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut wanted: Vec<String> = commands().iter().map(|name| format!("condlora-{name}.1")).collect();
    wanted.push("condlora.1".to_owned());
    wanted.sort();
    assert_eq!(names, wanted);
    assert_eq!((run.stdout.as_str(), run.stderr.contains("man pages in ")), ("", true));
    // The program's page is what stdout gets without a directory.
    let main = Run::of(program().arg("man").output().unwrap()).exits(0);
    assert_eq!((main.stdout.as_bytes(), main.stderr.as_str()), (&fs::read(dir.join("condlora.1")).unwrap()[..], ""));
    // Again over the old ones, which are the same; not over what is no file.
    Run::of(program().arg("man").arg(&dir).output().unwrap()).exits(0);
    fs::write(folder.path().join("file"), "x").unwrap();
    Run::of(program().arg("man").arg(folder.path().join("file")).output().unwrap()).exits(7).says("file");

    for name in &names {
        let path = dir.join(name);
        let plain = fs::read_to_string(&path).unwrap();
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXTRA"] {
            assert_eq!(plain.lines().filter(|line| *line == format!(".SH {heading}")).count(), 1, "{name}: {heading}");
        }
        if is_there("man") {
            let mut man = Command::new("man");
            man.args(["--warnings", "-E", "UTF-8", "-l"])
                .arg(&path)
                .env("MANWIDTH", "80")
                .env("MANPAGER", "cat")
                .env("LC_ALL", "C.UTF-8");
            let run = Run::of(man.output().unwrap()).exits(0);
            assert_eq!(run.stderr, "", "{name}");
            let text = run.stdout.replace('\u{8}', "");
            for part in ["Examples:", "Exit codes:", "0  ", "Environment:", "HF_HOME"] {
                assert!(text.contains(part), "{name}: {part} in {text}");
            }
            // An example is shown as it is typed.
            assert!(!plain.contains("\\\\\n") || text.contains(" \\\n"), "{text}");
        }
    }
}
