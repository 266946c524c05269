//! Checks the house rules that the compiler does not check: imports point down only and never in a circle, each outside crate has one owner,
//! `unsafe` is in one file, and no file grows too long.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// Each module and what it may import. Data flows from the checkpoint to the rows and from there to tables and figures;
/// `checkpoint` and the mathematics do not know each other, and figures see rows only.
const MAY_IMPORT: [(&str, &str); 26] = [
    ("main", "cli"),
    (
        "cli",
        "shared_theta study inputs relation report results output figure verdict table checkpoint linalg numerals json record terms error",
    ),
    ("report", "figure verdict output table numerals json record terms error"),
    ("results", "output table json record marker terms error"),
    ("figure", "table terms error"),
    ("verdict", "table numerals terms error"),
    ("output", "marker json record terms error"),
    (
        "shared_theta",
        "inputs relation layer_matrix table checkpoint controls conversion similarity linalg json record terms error",
    ),
    (
        "study",
        "inputs relation layer_matrix table checkpoint controls conversion measures similarity linalg numerals record marker stored terms error",
    ),
    ("relation", "table controls conversion similarity linalg stored terms error"),
    ("inputs", "checkpoint conversion linalg record stored terms error"),
    ("layer_matrix", "measures similarity linalg stored terms error"),
    ("table", "json record terms error"),
    ("checkpoint", "marker record terms error"),
    ("controls", "linalg stored terms"),
    ("conversion", "linalg terms error"),
    ("measures", "similarity linalg stored error"),
    ("similarity", "linalg error"),
    ("linalg", "stored error"),
    ("record", "stored error"),
    ("marker", "error"),
    ("numerals", ""),
    ("json", ""),
    ("terms", "stored error"),
    ("stored", "error"),
    ("error", ""),
];

/// Outside crates that belong to one or two modules.
const OWNERS: [(&str, &[&str]); 7] = [
    ("cli", &["clap", "clap_complete", "clap_mangen", "indicatif", "anstyle", "signal_hook", "terminal_size"]),
    ("checkpoint", &["half", "regex"]),
    ("checkpoint stored", &["safetensors"]),
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
        // Who may see an item is no import.
        let code = Regex::new(r"pub\(in [^)]*\)").unwrap().replace_all(&code_of(&text), "pub").into_owned();
        let product = before_tests(&code).to_owned();
        Self { path: path.to_owned(), modules, text, code, product }
    }

    /// The module below the crate's root that this file is part of.
    fn layer(&self) -> &str {
        layer_of(&self.path)
    }
}

/// Everything before the unit tests.
fn before_tests(text: &str) -> &str {
    let tests = Regex::new(r"#\[cfg\(test\)\]\n(?:pub\(\w+\) )?mod tests").unwrap();
    tests.find(text).map_or(text, |found| &text[..found.start()])
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

/// One leaf of a `use` declaration: its path, the name it gets here, and whether it is handed on (`pub use`, `pub(crate) use`).
#[derive(Debug, PartialEq)]
struct Import {
    path: Vec<String>,
    name: String,
    handed_on: bool,
}

/// The `use` declarations of some code, each leaf on its own, and the code without them.
fn imports_of(code: &str) -> (Vec<Import>, String) {
    let declaration = Regex::new(r"(?s)\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);").unwrap();
    let mut found = Vec::new();
    for declared in declaration.captures_iter(code) {
        leaves(&declared[2], &[], declared.get(1).is_some(), &mut found);
    }
    (found, declaration.replace_all(code, "").into_owned())
}

/// Adds the leaves of one tree, `a::{b, c::d as e, self}`, below `stem`.
fn leaves(tree: &str, stem: &[String], handed_on: bool, found: &mut Vec<Import>) {
    let tree = tree.trim().trim_start_matches("::");
    if let Some(open) = tree.find('{') {
        let stem: Vec<String> = stem.iter().cloned().chain(segments(&tree[..open])).collect();
        let inside = tree[open + 1..].strip_suffix('}').unwrap();
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !inside[start..at].trim().is_empty() {
                        leaves(&inside[start..at], &stem, handed_on, found);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
    let mut path: Vec<String> = stem.iter().cloned().chain(segments(path)).collect();
    path.pop_if(|last| last == "self" && !stem.is_empty());
    let name = alias.map_or_else(|| path.last().cloned().unwrap(), str::to_owned);
    found.push(Import { path, name, handed_on });
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The files of a crate by their modules, with what each hands on under its own name.
struct Crate<'a> {
    files: BTreeMap<Vec<String>, &'a Source>,
    handed_on: BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>,
}

impl<'a> Crate<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let handed_on = |source: &Source| {
            let (imports, _) = imports_of(&source.product);
            imports.into_iter().filter(|import| import.handed_on).map(|import| (import.name, import.path)).collect()
        };
        let module = |source: &Source| if source.modules == ["lib"] { Vec::new() } else { source.modules.clone() };
        Self {
            files: sources.iter().map(|source| (module(source), source)).collect(),
            handed_on: sources.iter().map(|source| (module(source), handed_on(source))).collect(),
        }
    }

    /// The module whose file defines what a path names, seen from a file's module; `None` for what is not of this crate.
    fn definition(&self, from: &[String], path: &[String]) -> Option<Vec<String>> {
        let (first, mut rest) = path.split_first()?;
        let own = [from, std::slice::from_ref(first)].concat();
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_owned(),
            "super" => from[..from.len() - 1].to_owned(),
            _ if self.files.contains_key(&own) => own,
            // The name under which the program imports its library.
            "condlora" => Vec::new(),
            _ => return None,
        };
        while let Some((next, after)) = rest.split_first() {
            rest = after;
            if next == "super" {
                at.pop();
                continue;
            }
            let below = [&at[..], std::slice::from_ref(next)].concat();
            if self.files.contains_key(&below) {
                at = below;
            } else if let Some(path) = self.handed_on.get(&at).and_then(|names| names.get(next)) {
                // A name that is handed on is looked for where it comes from, with what follows it.
                let origin = self.definition(&at, path)?;
                let is_module = path.last().is_some_and(|last| origin.last() == Some(last));
                match is_module {
                    true => at = origin,
                    false => return Some(origin),
                }
            } else {
                break;
            }
        }
        Some(at)
    }

    /// The files that each file needs: those that define what its code before its tests names. Handing a name on is no need of it.
    fn needs(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let path = Regex::new(r"(?:^|[^:\w])((?:crate|super|self|[a-z_0-9]+)(?:\s*::\s*\w+)+)").unwrap();
        let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, source) in &self.files {
            let (imports, code) = imports_of(&source.product);
            let used = |name: &str| Regex::new(&format!(r"\b{name}\b")).unwrap().is_match(&code);
            let by_use = imports.into_iter().filter(|import| !import.handed_on || used(&import.name)).map(|import| import.path);
            let in_place = path.captures_iter(&code).map(|found| segments(&found[1]));
            let of: BTreeSet<&str> = by_use
                .chain(in_place)
                .filter_map(|path| self.definition(module, &path))
                .filter_map(|module| self.files.get(&module).map(|source| source.path.as_str()))
                .filter(|needed| *needed != source.path)
                .collect();
            needs.insert(&source.path, of);
        }
        needs
    }
}

/// The circles: sets of files each of which needs, through others, every other one (Tarjan 1972).
fn circles<'a>(needs: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    struct Walk<'a, 'n> {
        needs: &'n BTreeMap<&'a str, BTreeSet<&'a str>>,
        number: BTreeMap<&'a str, usize>,
        lowest: BTreeMap<&'a str, usize>,
        open: Vec<&'a str>,
        circles: Vec<Vec<&'a str>>,
    }
    impl<'a> Walk<'a, '_> {
        fn visit(&mut self, file: &'a str) {
            let number = self.number.len();
            self.number.insert(file, number);
            self.lowest.insert(file, number);
            self.open.push(file);
            for &next in self.needs.get(file).into_iter().flatten() {
                if !self.number.contains_key(next) {
                    self.visit(next);
                    let lowest = self.lowest[next].min(self.lowest[file]);
                    self.lowest.insert(file, lowest);
                } else if self.open.contains(&next) {
                    let lowest = self.number[next].min(self.lowest[file]);
                    self.lowest.insert(file, lowest);
                }
            }
            if self.lowest[file] == number {
                let first = self.open.iter().position(|open| *open == file).unwrap();
                let circle = self.open.split_off(first);
                if circle.len() > 1 {
                    self.circles.push(circle);
                }
            }
        }
    }
    let mut walk = Walk { needs, number: BTreeMap::new(), lowest: BTreeMap::new(), open: Vec::new(), circles: Vec::new() };
    for file in needs.keys() {
        if !walk.number.contains_key(file) {
            walk.visit(file);
        }
    }
    walk.circles
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

/// The module below the crate's root that a file is part of.
fn layer_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn imports_point_down_only() {
    let allowed: BTreeMap<&str, &str> = MAY_IMPORT.into_iter().collect();
    let sources = sources();
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for (file, needed) in Crate::of(&sources).needs().into_iter().filter(|(file, _)| *file != "lib.rs") {
        let layer = layer_of(file);
        let Some(below) = allowed.get(layer) else {
            complaints.push(format!("src/{file}: `{layer}` has no place in the order"));
            continue;
        };
        for needed in needed {
            let other = layer_of(needed);
            if other != layer && !below.split(' ').any(|allowed| allowed == other) {
                complaints.push(format!("src/{file}: `{layer}` may not import `{other}` (src/{needed})"));
            }
            seen.insert((layer, other));
        }
    }
    none(&complaints);
    // The eyes are open: these are there.
    for pair in [
        ("main", "cli"),
        ("cli", "study"),
        ("study", "checkpoint"),
        ("study", "conversion"),
        ("figure", "table"),
        ("conversion", "linalg"),
    ] {
        assert!(seen.contains(&pair), "{pair:?} was not seen");
    }
}

#[test]
fn no_file_needs_itself_through_others() {
    let sources = sources();
    let needs = Crate::of(&sources).needs();
    let arrows: usize = needs.values().map(BTreeSet::len).sum();
    println!("{} files, {arrows} imports between them", needs.len());
    assert!(arrows > 2 * needs.len(), "imports are no longer recognised");
    let complaints: Vec<String> = circles(&needs)
        .iter()
        .map(|circle| {
            let inside =
                |file: &&str| needs[file].iter().filter(|other| circle.contains(other)).copied().collect::<Vec<_>>().join(", ");
            let lines: Vec<String> = circle.iter().map(|file| format!("    src/{file} needs {}", inside(file))).collect();
            format!("{} files in a circle:\n{}", circle.len(), lines.join("\n"))
        })
        .collect();
    none(&complaints);
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
                    let is_owner = owner.split(' ').any(|owner| source.layer() == owner);
                    by_owner |= is_owner;
                    if !is_owner {
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
    let paths = |code: &str| {
        let (imports, rest) = imports_of(&code_of(code));
        let shown =
            |import: &Import| format!("{}{}={}", if import.handed_on { "+" } else { "" }, import.name, import.path.join("::"));
        (imports.iter().map(shown).collect::<Vec<_>>().join(" "), rest.trim().to_owned())
    };
    assert_eq!(paths("use crate::error::{Error, Result};").0, "Error=crate::error::Error Result=crate::error::Result");
    assert_eq!(paths("pub use a::{b, c::{self, d as e},\n f::{g, h}};\nx").0, "+b=a::b +c=a::c +e=a::c::d +g=a::f::g +h=a::f::h");
    assert_eq!(paths("pub(crate) use super::x; fn f() {}"), ("+x=super::x".to_owned(), "fn f() {}".to_owned()));
    assert_eq!(paths("// use crate::cli;\n/// [`crate::cli`]\nlet s = \"use crate::cli;\"; let c = '\"'; use b::c;").0, "c=b::c");
    assert_eq!(before_tests("a\n#[cfg(test)]\nmod tests {\n"), "a\n");
}

/// A crate of three modules, in which `a/mod.rs` re-exports what its child has.
fn example(child: &str, other: &str) -> Vec<Source> {
    let parent = "//! a\nmod child;\npub use child::{Thing, tools};\npub(crate) fn parent() { child::f() }";
    [("lib.rs", "mod a; mod b;"), ("a/mod.rs", parent), ("a/child.rs", child), ("b.rs", other)]
        .map(|(path, text)| Source::new(path, text.to_owned()))
        .into()
}

#[test]
fn names_are_followed_to_the_file_that_defines_them() {
    let sources = example("pub struct Thing;", "use crate::a::Thing; fn f() { crate::a::parent(); std::fs::read(); a::b() }");
    let needs = Crate::of(&sources).needs();
    assert_eq!(needs["b.rs"], BTreeSet::from(["a/child.rs", "a/mod.rs"]));
    assert_eq!((&needs["a/mod.rs"], needs["a/child.rs"].len()), (&BTreeSet::from(["a/child.rs"]), 0));
    assert!(circles(&needs).is_empty());
}

#[test]
fn circles_are_found() {
    // A child that uses what its parent defines, while the parent calls the child.
    let own = example("pub struct Thing; fn f() { super::parent() }", "");
    assert_eq!(circles(&Crate::of(&own).needs()), [["a/child.rs", "a/mod.rs"]]);
    // Through another module, and through a name that is handed on.
    let through = example("pub struct Thing; use crate::b::f;", "use crate::a::Thing; fn f() {}");
    assert_eq!(circles(&Crate::of(&through).needs()).concat().len(), 2);
    let tests_only = example("pub struct Thing;\n#[cfg(test)]\nmod tests { use super::super::parent; }", "");
    assert!(circles(&Crate::of(&tests_only).needs()).is_empty());
}
