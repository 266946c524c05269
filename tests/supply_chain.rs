//! What the program is made of: every package has a licence that `deny.toml` allows, comes from crates.io, is there once, or twice on
//! purpose, and builds with our Rust; `Cargo.lock` is up to date. `make deny` asks cargo-deny the same, and for advisories too.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

/// What `cargo metadata` calls crates.io.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn packages() -> Vec<Value> {
    let metadata = |offline: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--locked", "--format-version", "1"]).args(offline).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.output().unwrap()
    };
    // Crates of other platforms are not there before somebody asks for them.
    let offline = metadata(&["--offline"]);
    let output = if offline.status.success() { offline } else { metadata(&[]) };
    assert!(output.status.success(), "Cargo.lock: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> String {
    format!("{}@{}", text(package, "name"), text(package, "version"))
}

fn text<'p>(package: &'p Value, field: &str) -> &'p str {
    package[field].as_str().unwrap_or_default()
}

/// The strings of a list in `deny.toml` that follow a pattern.
fn listed(list: &str, item: &str) -> Vec<String> {
    let toml = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    let list = Regex::new(&format!(r"(?ms)^{list} = \[\n(.*?)^\]")).unwrap().captures(&toml).unwrap()[1].to_owned();
    let items: Vec<String> = Regex::new(item).unwrap().captures_iter(&list).map(|found| found[1].to_owned()).collect();
    assert_eq!(items.len(), list.lines().count(), "a line of `{list}` is none of its items");
    items
}

/// Whether an SPDX expression can be met with the allowed licences; `used` gets those that it needs.
fn is_met(expression: &str, allowed: &BTreeSet<String>, used: &mut BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any_of(&words, &mut at, allowed, used);
    assert_eq!(at, words.len(), "no SPDX expression: {expression}");
    met
}

fn any_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>, used: &mut BTreeSet<String>) -> bool {
    let mut met = all_of(words, at, allowed, used);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, allowed, used);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>, used: &mut BTreeSet<String>) -> bool {
    let mut met = one(words, at, allowed, used);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed, used);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>, used: &mut BTreeSet<String>) -> bool {
    let word = words[*at];
    *at += 1;
    if word == "(" {
        let met = any_of(words, at, allowed, used);
        assert_eq!(words[*at], ")");
        *at += 1;
        return met;
    }
    // A licence with an exception is another one, which nothing here needs.
    let with = words.get(*at) == Some(&"WITH");
    *at += if with { 2 } else { 0 };
    if with || !allowed.contains(word) {
        return false;
    }
    used.insert(word.to_owned());
    true
}

#[test]
fn every_licence_is_allowed_and_every_allowed_one_is_there() {
    let allowed: BTreeSet<String> = listed("allow", r#"(?m)^    "([^"]+)",$"#).into_iter().collect();
    let mut used = BTreeSet::new();
    let refused: Vec<String> = packages()
        .iter()
        .filter(|package| !is_met(text(package, "license"), &allowed, &mut used))
        .map(|package| format!("{}: {}", name(package), text(package, "license")))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(used, allowed);
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    let allowed: BTreeSet<String> = ["MIT", "ISC"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC", true),
        ("MIT AND GPL-3.0 OR ISC", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("MIT WITH some-exception", false),
    ] {
        assert_eq!(is_met(expression, &allowed, &mut BTreeSet::new()), expected, "{expression}");
    }
}

#[test]
fn everything_comes_from_crates_io() {
    for package in packages() {
        let (source, ours) = (text(&package, "source"), text(&package, "name") == "condlora");
        assert!(source == CRATES_IO || ours && source.is_empty(), "{}: {source}", name(&package));
    }
}

#[test]
fn duplicates_are_those_that_were_reviewed() {
    let mut versions: BTreeMap<String, Vec<(Vec<u64>, String)>> = BTreeMap::new();
    for package in packages() {
        let order = numbers(text(&package, "version"));
        versions.entry(text(&package, "name").to_owned()).or_default().push((order, name(&package)));
    }
    let mut older = BTreeSet::new();
    for mut all in versions.into_values() {
        all.sort();
        all.pop();
        older.extend(all.into_iter().map(|(_, name)| name));
    }
    let reviewed = listed("skip", r#"(?m)^    \{ crate = "([^"]+)", reason = "[^"]{8,}" \},$"#);
    assert_eq!(older, reviewed.into_iter().collect(), "left: in Cargo.lock, right: in deny.toml");
}

#[test]
fn nothing_needs_a_newer_rust_than_we_say() {
    let packages = packages();
    let ours = packages.iter().find(|package| text(package, "name") == "condlora").unwrap();
    let ours = numbers(text(ours, "rust_version"));
    assert!(ours.starts_with(&[1]));
    for package in &packages {
        assert!(numbers(text(package, "rust_version")) <= ours, "{}: {}", name(package), package["rust_version"]);
    }
}

/// The numbers of a version, without what follows them.
fn numbers(version: &str) -> Vec<u64> {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    version[..end].split('.').filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
}
