//! The documents are correct: their transcripts are what the program prints, every link and every reference to the specification has
//! a target, and no line is longer than 100 columns.
//!
//! A transcript is a block that begins with ```` ```console ````. The blocks of one page run one after the other in one directory, which
//! has `notebooks-data/` and `tests/` in it; `<!-- setup: COMMAND -->` runs a command that readers need not see. After a change that is
//! meant, `SNAPSHOTS=overwrite cargo test --test documents` writes what the program prints into the pages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use regex::{Captures, Regex};

use shared::program::{Run, program};

const WIDEST_LINE: usize = 100;
const LONGEST_README: usize = 150;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// The files below a folder that have one of these extensions, as paths in the repository.
fn files_below(folder: &str, extensions: &[&str]) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known)) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Every page that people read, by its path in the repository.
fn pages() -> BTreeMap<String, String> {
    let mut paths = files_below("docs", &["md"]);
    paths.extend(["README.md", "CONTRIBUTING.md", "notebooks-data/README.md", "benches/compare/README.md"].map(str::to_owned));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap())).collect()
}

/// The lines of a page outside its code blocks, numbered from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_block = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            lines.push((number + 1, line));
        }
    }
    lines
}

/// The anchors that GitHub gives the headings of a page: letters and digits in lower case, spaces as hyphens, nothing else; a number
/// where one is there already.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let heading = regex(r"^#{1,6} (.*)$");
    let titles = prose(text).into_iter().filter_map(|(_, line)| heading.captures(line).map(|found| found[1].to_owned()));
    titles
        .map(|title| {
            let kept = title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
            let slug = kept.replace(' ', "-");
            let again = seen.entry(slug.clone()).and_modify(|n| *n += 1).or_insert(0);
            if *again == 0 { slug } else { format!("{slug}-{again}") }
        })
        .collect()
}

/// `..` and `.` taken out of a path, without asking the file system.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(out.pop(), "{} leaves the repository", path.display()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

/// What is wrong with a link of this page, if anything is.
fn broken(page: &str, text: &str, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let there = if path.is_empty() { PathBuf::from(page) } else { plain(&Path::new(page).parent().unwrap().join(path)) };
    if !root().join(&there).exists() {
        return Some(format!("{page}: {target}: there is no {}", there.display()));
    }
    let anchor = anchor?;
    let other = if path.is_empty() { text.to_owned() } else { fs::read_to_string(root().join(&there)).unwrap() };
    (!anchors(&other).contains(anchor)).then(|| format!("{page}: {target}: no such heading"))
}

#[test]
fn every_link_leads_somewhere() {
    // For an image inside a link, both targets are found.
    let link = regex(r"\]\(([^()\s]+)\)");
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        // Links may be broken across lines in their text, never in their target.
        let all: String = prose(&text).into_iter().map(|(_, line)| format!("{line}\n")).collect();
        wrong.extend(link.captures_iter(&all).filter_map(|found| broken(&page, &text, &found[1])));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_links_are_found() {
    let (page, text) = ("docs/method.md", "# Title: `a` & φ\n\n```\n# no heading\n```\n\n## Twice\n\n## Twice\n");
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["title-a--φ", "twice", "twice-1"]);
    for good in ["#twice-1", "spec.md", "../README.md", "guide/figures.md#options", "https://example.org/x#y"] {
        assert_eq!(broken(page, text, good), None);
    }
    for bad in ["#no-heading", "nowhere.md", "guide/figures.md#nowhere", "../docs/nowhere.png"] {
        assert!(broken(page, text, bad).is_some(), "{bad}");
    }
}

/// The numbers of the specification's sections.
fn sections() -> BTreeSet<String> {
    let spec = fs::read_to_string(root().join("docs/spec.md")).unwrap();
    let numbered = regex(r"^#{2,3} (\d+(?:\.\d+)?)\.? ");
    prose(&spec).into_iter().filter_map(|(_, line)| numbered.captures(line).map(|found| found[1].to_owned())).collect()
}

/// References to the specification in a text that lead nowhere.
fn dangling(text: &str, sections: &BTreeSet<String>) -> Vec<String> {
    let name = regex(r"\bSPEC\b|\bspec\.md\b|(?i:\bthe specification\b)");
    let number = regex(r"^\S?,? sections? (\d+(?:\.\d+)?)");
    let before = regex(r"(?i)section (\d+(?:\.\d+)?) of $");
    let document = regex(r"\bdocs/[\w./-]+\.md\b");
    let mut wrong = Vec::new();
    for line in text.lines() {
        for found in name.find_iter(line) {
            let cited = number.captures(&line[found.end()..]).or_else(|| before.captures(&line[..found.start()]));
            match cited {
                Some(cited) if !sections.contains(&cited[1]) => wrong.push(format!("no section {}: {}", &cited[1], line.trim())),
                None if found.as_str() == "SPEC" => wrong.push(format!("which section?: {}", line.trim())),
                _ => {}
            }
        }
        for found in document.find_iter(line).filter(|found| !root().join(found.as_str()).is_file()) {
            wrong.push(format!("no {}: {}", found.as_str(), line.trim()));
        }
    }
    wrong
}

#[test]
fn every_reference_to_the_specification_leads_somewhere() {
    let sections = sections();
    for top in ["1", "2", "3", "4", "5", "1.5", "3.7"] {
        assert!(sections.contains(top), "{sections:?}");
    }
    let mut paths: Vec<String> = ["src", "tests", "benches", "examples", "scripts"]
        .into_iter()
        .flat_map(|folder| files_below(folder, &["rs", "py", "sh"]))
        .filter(|path| path != "tests/documents.rs")
        .collect();
    paths.extend(files_below("fuzz/fuzz_targets", &["rs"]));
    paths.extend(pages().into_keys().filter(|path| path != "CONTRIBUTING.md"));
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        wrong.extend(dangling(&text, &sections).into_iter().map(|what| format!("{path}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn references_that_lead_nowhere_are_found() {
    let sections = sections();
    for good in [
        "(SPEC section 4)",
        "`docs/spec.md`, section 1.5",
        "see docs/spec.md section 3.",
        "a spec of its own",
        "[Section 5 of the specification]",
    ] {
        assert_eq!(dangling(good, &sections), Vec::<String>::new());
    }
    for bad in
        ["(SPEC section 9)", "docs/spec.md, section 1.99", "as in SPEC.", "docs/nowhere.md", "[section 8 of the specification]"]
    {
        assert_eq!(dangling(bad, &sections).len(), 1, "{bad}");
    }
}

/// The lines of a page that are too wide. A row of a table cannot be broken, nor can a picture or what a program prints.
fn too_wide(text: &str) -> Vec<usize> {
    let mut block: Option<&str> = None;
    let mut wide = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language) };
        }
        let output = match block {
            Some("console") => !line.starts_with("$ "),
            Some("text") => true,
            _ => false,
        };
        let whole = line.starts_with('|') || line.starts_with("![") || line.starts_with("<!--");
        if line.chars().count() > WIDEST_LINE && !output && !whole {
            wide.push(number + 1);
        }
    }
    wide
}

#[test]
fn lines_fit_a_page() {
    let wide: Vec<(String, Vec<usize>)> =
        pages().into_iter().map(|(page, text)| (page, too_wide(&text))).filter(|(_, lines)| !lines.is_empty()).collect();
    assert!(wide.is_empty(), "lines of more than {WIDEST_LINE} columns: {wide:?}");
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(
        readme.lines().count() <= LONGEST_README,
        "README.md has {} lines; the details are for docs/",
        readme.lines().count()
    );
    let long = "x".repeat(WIDEST_LINE + 1);
    assert_eq!(too_wide(&format!("{long}\n| {long} |\n```console\n$ {long}\n{long}\n```\n")), [1, 4]);
}

/// Paths of the repository that a page names, as `src/figure/` or `tests/fit.rs`.
#[test]
fn files_that_pages_name_are_there() {
    let named = regex(r"`((?:src|tests|benches|examples|scripts|fuzz|docs|notebooks-data|\.ci)/[\w./-]*)`");
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let found = named.captures_iter(&text).map(|found| found[1].to_owned());
        wrong.extend(found.filter(|path| !root().join(path).exists()).map(|path| format!("{page}: {path}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rust_in_the_pages_is_compiled() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for (page, _) in pages().into_iter().filter(|(_, text)| text.contains("```rust")) {
        assert!(lib.contains(&format!("include_str!(\"../{page}\")")), "src/lib.rs has no doctest of {page}");
    }
}

/// A part of a page: as it is, or a command of a transcript with what it prints.
#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    /// To be run unseen.
    Setup(String),
    /// The lines of the command as they are in the page, and its output.
    Command(String, String),
}

/// The parts of a page, which together are the page again.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut in_console = false;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            in_console = line.trim_end() == "```console";
        } else if in_console {
            assert!(line.starts_with("$ "), "a transcript begins with a command: {line}");
            let mut command = line.to_owned();
            while command.ends_with("\\\n") {
                command.push_str(lines.next().unwrap());
            }
            let mut output = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ") && !line.starts_with("```")) {
                output.push_str(line);
            }
            parts.push(Part::Command(command, output));
            continue;
        } else if let Some(setup) = line.trim_end().strip_prefix("<!-- setup: ").and_then(|rest| rest.strip_suffix(" -->")) {
            parts.push(Part::Setup(setup.to_owned()));
        }
        parts.push(Part::Text(line.to_owned()));
    }
    parts
}

/// A shell that finds the program, in `world`; stderr comes with stdout, in the order of writing.
fn shell(world: &Path, script: &str) -> (bool, String) {
    let ours = Path::new(env!("CARGO_BIN_EXE_condlora")).parent().unwrap().to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(ours).chain(std::env::split_paths(&others))).unwrap();
    let mut command = Command::new("sh");
    // On a slow machine there is progress to tell, which no page shows.
    let quiet =
        regex(r"\bcondlora (analyze|compare|fit|materialize|merge) ").replace_all(script, "condlora $1 --progress never ");
    // A home that nobody has, so that a message about the Hugging Face cache is the same everywhere.
    command.args(["-c", &format!("exec 2>&1\n{quiet}")]).current_dir(world).env("PATH", path).env("HOME", "/home/me");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "COLUMNS"] {
        command.env_remove(name);
    }
    let run = Run::of(command.stdin(Stdio::null()).output().unwrap());
    (run.code == Some(0), run.stdout)
}

/// Whether two outputs are equal except for the last digits of long numbers, which depend on the processor.
fn same(expected: &str, found: &str) -> bool {
    let long = regex(r"\d+\.\d{9,}(?:e-?\d+)?");
    let text = |output: &str| long.replace_all(output, |_: &Captures<'_>| "#").into_owned();
    let numbers = |output: &str| -> Vec<f64> { long.find_iter(output).map(|number| number.as_str().parse().unwrap()).collect() };
    let close = |(x, y): (&f64, &f64)| (x - y).abs() <= 1e-8 * x.abs().max(y.abs());
    text(expected) == text(found) && numbers(expected).iter().zip(&numbers(found)).all(close)
}

/// Runs the transcripts of a page; the page as it should be, and what differs.
fn run_page(page: &str, text: &str) -> (String, Vec<String>) {
    let world = tempfile::tempdir().unwrap();
    for folder in ["notebooks-data", "tests"] {
        std::os::unix::fs::symlink(root().join(folder), world.path().join(folder)).unwrap();
    }
    let (mut out, mut wrong) = (String::new(), Vec::new());
    for part in parts(text) {
        match part {
            Part::Text(line) => out.push_str(&line),
            Part::Setup(command) => {
                let (done, said) = shell(world.path(), &command);
                assert!(done, "{page}: {command}\n{said}");
            }
            Part::Command(command, expected) => {
                let (done, mut found) = shell(world.path(), command.strip_prefix("$ ").unwrap());
                if !found.is_empty() && !found.ends_with('\n') {
                    found.push('\n');
                }
                if done == found.starts_with("error:") {
                    wrong.push(format!("{page}: {command}ended {}:\n{found}", if done { "well" } else { "badly" }));
                }
                let kept = same(&expected, &found);
                if !kept {
                    wrong.push(format!("{page}: {command}--- in the page\n{expected}--- printed\n{found}"));
                }
                out.push_str(&command);
                out.push_str(if kept { &expected } else { &found });
            }
        }
    }
    (out, wrong)
}

#[test]
fn transcripts_are_what_the_program_prints() {
    let pages: Vec<(String, String)> = pages().into_iter().filter(|(_, text)| text.contains("```console\n")).collect();
    assert!(pages.len() >= 5, "{:?}", pages.iter().map(|(page, _)| page).collect::<Vec<_>>());
    let overwrite = std::env::var("SNAPSHOTS").is_ok_and(|how| how == "overwrite");
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = pages.iter().map(|(page, text)| (page, scope.spawn(move || run_page(page, text)))).collect();
        let results = runs.into_iter().map(|(page, run)| (page, run.join().unwrap()));
        results
            .flat_map(|(page, (out, wrong))| {
                if overwrite {
                    fs::write(root().join(page), out).unwrap();
                }
                wrong
            })
            .collect()
    });
    let accept = "if this is meant: SNAPSHOTS=overwrite cargo test --test documents, and read the diff";
    assert!(overwrite || wrong.is_empty(), "{}\n{accept}", wrong.join("\n"));
}

#[test]
fn a_page_is_taken_apart_and_differences_are_seen() {
    let text = "a\n<!-- setup: x -->\n```console\n$ y \\\n    z\nout\n\nput\n$ w\n```\n```sh\n$ no\n```\n";
    let taken = parts(text);
    assert!(taken.contains(&Part::Setup("x".into())) && taken.contains(&Part::Command("$ w\n".into(), String::new())));
    assert!(taken.contains(&Part::Command("$ y \\\n    z\n".into(), "out\n\nput\n".into())));
    let whole: String = taken
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => text,
            Part::Setup(_) => String::new(),
            Part::Command(command, output) => command + &output,
        })
        .collect();
    assert_eq!(whole, text);
    assert!(same("p 0.0262\n1.00000000001,x", "p 0.0262\n1.000000000012,x"));
    assert!(!same("p 0.0262", "p 0.0263") && !same("1.00000000001", "1.00000100001") && !same("a", "a b"));
}

/// What a page tells people to type: shell that parses, commands and options that are there.
#[test]
fn commands_in_the_pages_exist() {
    let (fence, option) = (regex(r"(?s)```(sh|console)\n(.*?)```"), regex(r"(?:^|\s)(--[a-z][a-z0-9-]*)"));
    let call = regex(r"(?m)^(?:\$ )?(?:parallel )?condlora ([a-z]+)([^\n;|&]*)");
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for (page, text) in pages() {
        for block in fence.captures_iter(&text) {
            if &block[1] == "sh" {
                let parses = Command::new("sh").args(["-n", "-c", &block[2]]).status().unwrap();
                assert!(parses.success(), "{page}:\n{}", &block[2]);
            }
            let typed = block[2].replace("\\\n", " ");
            for found in call.captures_iter(&typed) {
                let help = helps
                    .entry(found[1].to_owned())
                    .or_insert_with(|| Run::of(program().args([&found[1], "--help"]).output().unwrap()).exits(0).stdout);
                for option in option.captures_iter(&found[2]) {
                    let known = regex(&format!(r"(?m)^ +(?:-\w, )?{}\b", &option[1])).is_match(help);
                    assert!(known, "{page}: condlora {} has no {}", &found[1], &option[1]);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 40, "{seen}");
}
