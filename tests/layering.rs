//! Holds the house rules that the compiler does not: imports point down only, each outside crate has one owner, `unsafe` has one
//! file, and no file outgrows its idea.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// Each module and what it may import. Data flows from the checkpoint to the rows and from there to tables and figures;
/// `checkpoint` and the mathematics do not know each other, and figures see rows only.
const MAY_IMPORT: [(&str, &[&str]); 17] = [
    ("main", &["cli"]),
    (
        "cli",
        &[
            "shared_theta",
            "study",
            "report",
            "verdict",
            "figure",
            "table",
            "checkpoint",
            "controls",
            "conversion",
            "similarity",
            "linalg",
            "numerals",
            "terms",
            "error",
        ],
    ),
    ("shared_theta", &["study", "table", "checkpoint", "controls", "conversion", "similarity", "linalg", "terms", "error"]),
    ("study", &["table", "checkpoint", "controls", "conversion", "measures", "similarity", "linalg", "terms", "error"]),
    ("report", &["verdict", "figure", "table", "numerals", "terms", "error"]),
    ("verdict", &["table", "numerals", "terms", "error"]),
    ("figure", &["table", "terms", "error"]),
    ("table", &["terms", "error"]),
    ("checkpoint", &["terms", "error"]),
    ("controls", &["conversion", "similarity", "linalg", "terms", "error"]),
    ("conversion", &["linalg", "terms", "error"]),
    ("measures", &["similarity", "linalg", "terms", "error"]),
    ("similarity", &["linalg", "terms", "error"]),
    ("linalg", &["terms", "error"]),
    ("numerals", &[]),
    ("terms", &[]),
    ("error", &[]),
];

/// Outside crates with one owner.
const OWNERS: [(&str, &[&str]); 6] = [
    ("cli", &["clap", "clap_complete", "clap_mangen", "indicatif", "anstyle", "signal_hook", "terminal_size"]),
    ("checkpoint", &["safetensors", "half", "regex"]),
    ("linalg", &["ndarray_linalg", "lapack_sys", "gemm", "rand", "rand_chacha", "rand_distr"]),
    ("table", &["parquet"]),
    ("report", &["minijinja"]),
    ("figure", &["plotters", "colorous", "png", "ab_glyph", "krilla", "kodama"]),
];

const LONGEST_FILE: usize = 400;

/// A source file, with what is no code taken out of it.
struct Source {
    path: String,
    /// Path of modules from the crate's root: `["cli", "analyze"]`.
    modules: Vec<String>,
    text: String,
    /// Without comments and the contents of strings.
    code: String,
    /// The same before its unit tests.
    product: String,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let mut modules: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if modules.last().is_some_and(|last| last == "mod") {
            modules.pop();
        }
        let code = code_of(&text);
        let product = before_tests(&code).to_owned();
        Self { path: path.to_owned(), modules, text, code, product }
    }

    /// The module below the crate's root that this file is part of.
    fn layer(&self) -> &str {
        &self.modules[0]
    }
}

/// Everything before the unit tests.
fn before_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at])
}

/// Blanks comments and the contents of string and character literals.
fn code_of(text: &str) -> String {
    let literal =
        Regex::new(r##"(?s)//[^\n]*|/\*.*?\*/|b?c?r#+".*?"#+|\br"[^"]*"|"(?:\\.|[^"\\])*"|'(?:\\[^']+|[^'\\])'"##).unwrap();
    literal
        .replace_all(
            text,
            |found: &regex::Captures<'_>| if found[0].starts_with('/') { String::new() } else { "\"\"".to_owned() },
        )
        .into_owned()
}

/// The modules below the crate's root that some code names, in `use` lines or in paths.
fn imports(code: &str, depth: usize) -> BTreeSet<String> {
    let root = Regex::new(r"\b(?:crate|condlora)\s*::\s*(\{|\w+)").unwrap();
    let up = Regex::new(r"\b((?:super\s*::\s*)+)(\{|\w+)").unwrap();
    let mut found = BTreeSet::new();
    let mut add = |name: regex::Match<'_>| {
        if name.as_str() == "{" {
            found.extend(first_names(&code[name.end()..]));
        } else {
            found.insert(name.as_str().to_owned());
        }
    };
    for path in root.captures_iter(code) {
        add(path.get(1).unwrap());
    }
    for path in up.captures_iter(code).filter(|path| path[1].matches("super").count() >= depth) {
        add(path.get(2).unwrap());
    }
    // An item of the crate's root itself (`crate::Result`) is of the layer that it is re-exported from.
    found.into_iter().map(|name| if name.starts_with(char::is_uppercase) { "error".to_owned() } else { name }).collect()
}

/// The first name of each branch of `{a::b, c::{d, e}}`, from behind the opening brace.
fn first_names(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut at_start) = (Vec::new(), 1, true);
    let mut name = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && at_start && (c.is_alphanumeric() || c == '_') {
            name.push(c);
            continue;
        }
        if !name.is_empty() {
            names.push(std::mem::take(&mut name));
            at_start = false;
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && c == ',' {
            at_start = true;
        }
    }
    names
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, out);
            } else if path.extension().is_some_and(|end| end == "rs") {
                out.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &root, &mut paths);
    paths.sort();
    assert!(paths.len() > 30, "the sources are not where they were");
    paths.iter().map(|path| Source::new(path.to_str().unwrap(), std::fs::read_to_string(root.join(path)).unwrap())).collect()
}

/// All complaints at once: whoever moves code wants the whole list.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn imports_point_down_only() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources().iter().filter(|s| s.layer() != "lib") {
        let Some(below) = allowed.get(source.layer()) else {
            complaints.push(format!("src/{}: `{}` has no place in the order", source.path, source.layer()));
            continue;
        };
        for name in imports(&source.product, source.modules.len()) {
            if name != source.layer() && !below.contains(&name.as_str()) {
                complaints.push(format!("src/{}: `{}` may not import `{name}`", source.path, source.layer()));
            }
            seen.insert((source.layer().to_owned(), name));
        }
    }
    none(&complaints);
    // The eyes are open: these are there.
    for (from, to) in [
        ("main", "cli"),
        ("cli", "study"),
        ("study", "checkpoint"),
        ("study", "conversion"),
        ("figure", "table"),
        ("conversion", "linalg"),
    ] {
        assert!(seen.contains(&(from.to_owned(), to.to_owned())), "{from} → {to} was not seen");
    }
}

#[test]
fn each_outside_crate_has_one_owner() {
    let mut complaints = Vec::new();
    for (owner, crates) in OWNERS {
        for name in crates {
            let used = Regex::new(&format!(r"(?:^|[^:\w.])(?:::)?{name}\s*::|\buse\s+{name}\b")).unwrap();
            let mut by_owner = false;
            for source in sources() {
                if used.is_match(&source.code) {
                    by_owner |= source.layer() == owner;
                    if source.layer() != owner {
                        complaints.push(format!("src/{}: {name} belongs to `{owner}`", source.path));
                    }
                }
            }
            if !by_owner {
                complaints.push(format!("`{owner}` does not use {name} at all: the list or the pattern is wrong"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn unsafe_code_is_in_one_file() {
    let word = Regex::new(r"\bunsafe\b|\bunsafe_code\b").unwrap();
    let files: Vec<String> = sources().into_iter().filter(|s| word.is_match(&s.code)).map(|s| s.path).collect();
    assert_eq!(files, ["linalg/lapack.rs"]);
}

#[test]
fn files_hold_one_idea_and_say_which() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines = before_tests(&source.text).lines().count();
        if lines > LONGEST_FILE {
            complaints.push(format!("src/{}: {lines} lines before its tests, {LONGEST_FILE} at most", source.path));
        }
        if !source.text.starts_with("//! ") {
            complaints.push(format!("src/{}: does not open with what it is for", source.path));
        }
        if source.modules.iter().any(|m| ["util", "utils", "helpers", "common", "manager", "misc"].contains(&m.as_str())) {
            complaints.push(format!("src/{}: the name does not say what it holds", source.path));
        }
    }
    none(&complaints);
}

#[test]
fn imports_are_found_in_every_form() {
    let of = |code: &str, depth| imports(&code_of(code), depth).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(of("use crate::error::{Error, Result};\nuse crate::terms::Side;", 1), "error terms");
    assert_eq!(of("use crate::{error::Error, linalg::{lu, panel}, terms};", 1), "error linalg terms");
    assert_eq!(of("use crate::{\n    table::rows::{A, B},\n    Result,\n};", 1), "error table");
    assert_eq!(of("fn f() -> crate::study::Study { crate :: cli::run() }", 1), "cli study");
    assert_eq!(of("use super::x; use super::super::figure::Y;", 2), "figure");
    assert_eq!(of("use super::table::Z;", 1), "table");
    assert_eq!(of("// use crate::cli;\n/// [`crate::cli`]\nlet s = \"crate::cli\"; let c = '\"'; use crate::error;", 1), "error");
    assert_eq!(of("let s = r#\"crate::cli \" \"#; use condlora::terms;", 1), "terms");
    assert_eq!(before_tests("a\n#[cfg(test)]\nmod tests {\n"), "a\n");
}
