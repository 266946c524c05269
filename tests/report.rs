//! `report.html`: one page that shows the content of the tables, needs no other file, and treats every name from a file as text.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;
use std::time::Duration;

use condlora::AdapterRecord;
use condlora::output::Manifest;
use condlora::report_html;
use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow, SummaryRow, Tables};
use condlora::{Convention, MatrixKind, Method, Side, Status};
use regex::Regex;
use serde_json::json;
use shared::checkpoint::{PLAIN, square_layers, write_adapter, write_base, write_both};
use shared::cpu;
use shared::program::{Run, analyze, data, real_base, run_in};

fn report(root: &Path, out: &str) -> String {
    fs::read_to_string(root.join(out).join("report.html")).unwrap()
}

/// The study of the three samples.
fn samples(root: &Path, out: &str, threads: &str) -> String {
    let mut command = analyze([data("adapters")]);
    command.arg("--base").arg(real_base()).arg("--init").arg(data("init"));
    command.args(["-o", out, "--figures", "none", "-q", "--threads", threads]).current_dir(root);
    Run::of(command.output().unwrap()).exits(0);
    report(root, out)
}

/// Insists that every element is closed where it must be, that attributes are quoted, named once and none that runs or styles, and
/// that no `id` is there twice.
#[track_caller]
fn is_well_formed(html: &str) {
    const VOID: [&str; 4] = ["meta", "br", "img", "input"];
    let html = html.strip_prefix("<!doctype html>\n").unwrap();
    let tag = Regex::new(r#"^<(/?)([a-z][a-z0-9]*)((?:\s+[a-zA-Z][a-zA-Z0-9-]*(?:="[^"<>]*")?)*)\s*(/?)>"#).unwrap();
    let attribute = Regex::new(r#"([a-zA-Z][a-zA-Z0-9-]*)(?:="([^"]*)")?"#).unwrap();
    let reference = Regex::new(r"^&(?:[a-z]+|#[0-9]+|#x[0-9a-fA-F]+);").unwrap();
    let (mut open, mut ids, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(next) = html[at..].find(['<', '&']) {
        at += next;
        let here: String = html[at..].chars().take(60).collect();
        if html[at..].starts_with('&') {
            at += reference.find(&html[at..]).unwrap_or_else(|| panic!("a bare & at {here:?}")).end();
            continue;
        }
        let found = tag.captures(&html[at..]).unwrap_or_else(|| panic!("no tag at {here:?}"));
        at += found[0].len();
        let name = found[2].to_owned();
        let mut names = Vec::new();
        for pair in attribute.captures_iter(&found[3]) {
            assert!(!names.contains(&pair[1].to_owned()), "{here:?} names {} twice", &pair[1]);
            assert!(!pair[1].starts_with("on") && !["style", "autofocus"].contains(&&pair[1]), "{here:?} has {}", &pair[1]);
            names.push(pair[1].to_owned());
            if &pair[1] == "id" {
                assert!(!ids.contains(&pair[2].to_owned()), "id {} twice", &pair[2]);
                ids.push(pair[2].to_owned());
            }
        }
        if &found[1] == "/" {
            assert_eq!(open.pop().as_ref(), Some(&name), "at {here:?}");
        } else if !VOID.contains(&name.as_str()) && found[4].is_empty() {
            if matches!(name.as_str(), "script" | "style") {
                at += html[at..].find(&format!("</{name}>")).unwrap();
            }
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} left open");
    for target in Regex::new(r##"(?:href="#|aria-labelledby="|for=")([^"]+)""##).unwrap().captures_iter(html) {
        assert!(ids.contains(&target[1].to_owned()), "nothing is called {}", &target[1]);
    }
}

/// Insists that the page asks for nothing outside itself.
#[track_caller]
fn is_self_contained(html: &str) {
    for resource in Regex::new(r#"\s(?:src|href|action|srcset|poster|data)="([^"]*)""#).unwrap().captures_iter(html) {
        assert!(resource[1].starts_with("data:") || resource[1].starts_with('#'), "{:.80}", &resource[0]);
    }
    for word in ["http:", "https:", "url(", "@import", "<link", "<iframe", "<object", "<base", " style=\"", "fetch(", "XMLHttp"] {
        assert!(!html.contains(word), "{word}");
    }
    let policy = Regex::new(r#"<meta http-equiv="Content-Security-Policy" content="([^"]*)">"#).unwrap();
    let policy = policy.captures(html).unwrap()[1].to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-") && !policy.contains("unsafe"), "{policy}");
    // Nothing that could load or run comes before the policy.
    assert!(html.find("Content-Security-Policy").unwrap() < html.find("<style").unwrap());
}

#[test]
fn the_samples_page_holds_every_number_of_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let html = samples(folder.path(), "out", "2");
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    is_well_formed(&html);
    is_self_contained(&html);
    let rows: Vec<SummaryRow> = read_rows(&folder.path().join("out/summary.csv")).unwrap();
    assert_eq!(rows.len(), 18);
    for row in &rows {
        assert!(html.contains(&format!("<bdi class=\"name\">{}</bdi>", row.adapter)));
        let numbers = [row.phi_mean, row.phi_min, row.phi_max, row.gaussian_expected, row.gaussian_mean, row.gaussian_sd];
        for value in numbers.into_iter().chain([row.w0_mean, row.w0_sd, row.w0_z, row.w0_p, row.init_mean]).flatten() {
            assert!(html.contains(&format!("<data value=\"{value:?}\">")), "{value}");
        }
        let shown = format!("{:.4} ± {:.4}", row.w0_mean.unwrap(), row.w0_sd.unwrap());
        assert!(html.contains(&shown), "{shown}");
    }
    assert!(html.contains("φ of Θ: more than chance, but not shown to be more than the base model alone gives."));
    // 18 comparisons, 1/21 is the smallest p, and Holm's first step takes 0.05/18 > 1/(m + 1).
    assert!(html.contains("None of 18 averages is more than the base model alone at p &lt; 0.05"));
    assert!(
        html.contains("20 draws give no p below 0.048; to correct for 18 comparisons (Holm) takes --null-draws 360 or more.")
    );
    // All maps with all their cells, and an overview of each adapter.
    assert_eq!(html.matches("<table data-map=").count(), 18);
    assert_eq!(Regex::new(r#"<td class="(?:v\d+|d)">"#).unwrap().find_iter(&html).count(), 18 * 36);
    assert_eq!(html.matches("src=\"data:image/svg+xml;base64,").count(), 3);
    // The CSVs are inside, byte for byte.
    let encoded = Regex::new(r#"<a download="([a-z]+\.csv)" href="data:text/csv;charset=utf-8;base64,([^"]*)">"#).unwrap();
    let found: Vec<(String, Vec<u8>)> = encoded.captures_iter(&html).map(|c| (c[1].to_owned(), from_base64(&c[2]))).collect();
    assert_eq!(found.len(), 8);
    for (name, bytes) in found {
        assert!(bytes == fs::read(folder.path().join("out").join(&name)).unwrap(), "{name}");
    }
}

/// Base64 by its definition: six bits a letter.
fn from_base64(text: &str) -> Vec<u8> {
    let letters: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*b"+/").collect();
    let mut bits = Vec::new();
    for letter in text.bytes().filter(|b| *b != b'=') {
        let value = letters.iter().position(|l| *l == letter).unwrap();
        bits.extend((0..6).rev().map(|k| value >> k & 1));
    }
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum * 2 + *bit as u8)).collect()
}

#[test]
fn neither_threads_nor_place_nor_time_change_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let first = samples(folder.path(), "one", "1");
    assert!(first == samples(folder.path(), "another-place", "2"));
    assert!(!first.contains("another-place") && !first.contains(folder.path().to_str().unwrap()));
}

/// One hand-made row.
fn row(adapter: &str, module: &str) -> SummaryRow {
    SummaryRow {
        adapter: adapter.into(),
        module: module.into(),
        matrix: MatrixKind::A,
        side: Side::Left,
        i: 8,
        j: 8,
        layers: 2,
        phi_mean: Some(0.06),
        phi_min: Some(0.05),
        phi_max: Some(0.07),
        gaussian_expected: Some(0.02),
        gaussian_mean: Some(0.02),
        gaussian_sd: Some(0.001),
        w0_mean: Some(0.05),
        w0_sd: Some(0.01),
        w0_expected: None,
        w0_z: Some(1.0),
        w0_p: Some(0.3),
        init_mean: None,
        status: Status::Ok,
    }
}

fn cell(adapter: &str, module: &str, layer_a: u32, layer_b: u32) -> SimilarityRow {
    SimilarityRow {
        adapter: adapter.into(),
        module: module.into(),
        matrix: MatrixKind::A,
        side: Side::Left,
        i: 8,
        j: 8,
        layer_a: layer_a.into(),
        layer_b: layer_b.into(),
        phi: Some(if layer_a == layer_b { 1.0 } else { 0.06 }),
        phi_error_bound: Some(1e-9),
        gaussian_mean: Some(0.02),
        gaussian_sd: Some(0.001),
        w0_mean: Some(0.05 + 1e-5 * f64::from(layer_a + layer_b)),
        w0_sd: Some(0.01),
        w0_expected: None,
        init: None,
        status: Status::Ok,
    }
}

fn conversion(adapter: &str, module: &str) -> ConversionRow {
    ConversionRow {
        adapter: adapter.into(),
        module: module.into(),
        layer: Some(0.into()),
        adapter_key: module.into(),
        tensor: module.into(),
        out_features: 8,
        in_features: 8,
        rank: 2,
        scaling: 1.0,
        convention: Convention::Paper,
        method: Method::Lu,
        w0_dtype: "F32".into(),
        adapter_dtype: "F32".into(),
        w0_rank: 8,
        w0_condition: Some(1e4),
        residual_a: Some(1e-13),
        residual_b: None,
        backward_error_a: Some(1e-16),
        backward_error_b: None,
        norm_a: Some(1.0),
        norm_b: Some(1.0),
        norm_delta: Some(1.0),
        status: Status::Ok,
    }
}

fn manifest(adapters: &[&str]) -> Manifest {
    let mut manifest = Manifest::new(vec!["condlora".into()]);
    manifest.options = json!({"null_draws": 20, "seed": 0});
    let record = |name: &&str| AdapterRecord {
        name: (*name).to_owned(),
        path: format!("runs/{name}"),
        base: format!("base/{name}"),
        base_name: (*name).to_owned(),
    };
    manifest.adapters = adapters.iter().map(record).collect();
    manifest
}

fn page(tables: &Tables, manifest: &Manifest) -> String {
    String::from_utf8(report_html(tables, manifest).unwrap()).unwrap()
}

#[test]
fn names_from_files_stay_names() {
    let hostile = [
        "</script><img src=x onerror=alert(1)>",
        "\"><script>alert(1)</script>",
        "' onfocus='alert(1)' autofocus='",
        "<!--<script>",
        "{{ page }}{% raw %}",
        "]]>&lt;b&gt;",
        "a\u{202e}gnp.exe\u{2066}",
        "\u{0}\u{1b}[31m\n\r\u{85}",
        "javascript:alert(1)",
        "</style><style>*{display:none}",
        "</bdi></th></table></title>",
    ];
    let tag = Regex::new(r"<[a-z/][a-z0-9]*").unwrap();
    for name in hostile {
        let tables = Tables {
            summary: vec![row(name, name)],
            similarity: (0..2).flat_map(|a| (0..2).map(move |b| cell(name, name, a, b))).collect(),
            conversion: vec![conversion(name, name)],
            ..Tables::default()
        };
        let mut manifest = manifest(&[name]);
        manifest.warnings = vec![format!("{name}: odd")];
        manifest.options = json!({"null_draws": 20, "base": name, "modules": [name], name: name});
        let html = page(&tables, &manifest);
        is_well_formed(&html);
        is_self_contained(&html);
        // No element that the page does not have anyway, and no attribute that does something.
        let plain = page(
            &Tables {
                summary: vec![row("a", "a")],
                similarity: (0..2).flat_map(|a| (0..2).map(move |b| cell("a", "a", a, b))).collect(),
                conversion: vec![conversion("a", "a")],
                ..Tables::default()
            },
            &{
                let mut plain = self::manifest(&["a"]);
                plain.warnings = vec!["odd".into()];
                plain.options = json!({"null_draws": 20, "base": "a", "modules": ["a"], "a": "a"});
                plain
            },
        );
        let tags = |html: &str| tag.find_iter(html).count();
        assert_eq!(tags(&html), tags(&plain), "{name:?}");
        for raw in ['\u{0}', '\u{1b}', '\u{202e}', '\u{2066}', '\u{85}', '\r'] {
            assert!(!html.contains(raw), "{name:?} brings {raw:?}");
        }
    }
}

#[test]
fn what_is_missing_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 16, 2);
    write_both(root, &layers, PLAIN);
    let study = |out: &str, more: &[&str]| {
        run_in(root, &[&["adapter", "--base", "base", "-o", out, "--figures", "none", "-q"], more].concat()).exits(0);
        let html = report(root, out);
        is_well_formed(&html);
        is_self_contained(&html);
        html
    };
    let none = study("none", &["--null-draws", "0"]);
    assert!(none.contains("base alone was not drawn") && none.contains("what the base model alone gives was not drawn."));
    assert!(!none.contains("more than base alone") && !none.contains("smallest p"));
    let one = study("one", &["--null-draws", "1"]);
    assert!(one.contains("1 draw cannot tell it from base alone") && one.contains(": that takes --null-draws 20 or more."));
    let factors = study("factors", &["--matrices", "lora_A,lora_B"]);
    assert!(factors.contains("W0 has no part in it") && !factors.contains("<th scope=\"col\" class=\"num\">Base alone</th>"));
    let single = study("single", &["--layers", "1"]);
    assert!(single.contains("No answer: a single layer has no other to be compared with"));
    assert!(single.contains("No average could be judged."));
    let beyond = study("rank", &["--ij", "3,3"]);
    assert!(beyond.contains("No answer: fewer directions than i or j (rank)"));

    let untrained: Vec<_> = layers
        .into_iter()
        .map(|mut layer| {
            layer.b.fill(0.0);
            layer
        })
        .collect();
    write_base(&root.join("base"), &untrained, PLAIN);
    write_adapter(&root.join("adapter"), &untrained, PLAIN, &[]);
    let zero = study("zero", &[]);
    assert!(zero.contains("No answer: B (or A) is zero, as before training, and has no subspace"));
    assert!(zero.contains("<td class=\"m\">–</td>"));
}

#[test]
fn a_large_study_has_a_small_page() {
    // 10,000 adapters of 3 layers, and one of 80 layers and 7 modules.
    let names: Vec<String> = (0..10_000).map(|k| format!("run/{k:05}")).collect();
    let mut tables = Tables::default();
    for name in &names {
        tables.summary.push(row(name, "query"));
        tables.conversion.push(conversion(name, "query"));
        tables.similarity.extend((0..3).flat_map(|a| (0..3).map(move |b| cell(name, "query", a, b))));
    }
    let before = cpu::of_this_thread();
    let many = page(&tables, &manifest(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let took = cpu::of_this_thread() - before;
    is_well_formed(&many);
    assert!(many.len() < 6_000_000, "{} bytes", many.len());
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(many.contains("Drawn here are the first 8 of 10,000 adapters."));
    assert!(many.contains("The first 1,000 of 10,000 rows."));
    assert!(many.contains("The first 100 of 10,000 adapters; manifest.json lists them all."));
    assert!(many.contains("similarity.csv</span>, 90,000 rows: too large to be inside"));
    // One row for all, with what is counted in it.
    assert!(many.contains("<td class=\"num\">10,000 of 10,000</td>") && many.contains("<td class=\"num\">0 of 10,000</td>"));

    let modules = ["q", "k", "v", "o", "gate", "up", "down"];
    let mut tables = Tables::default();
    for module in modules {
        for matrix in [MatrixKind::A, MatrixKind::B, MatrixKind::BA] {
            tables.summary.push(SummaryRow { matrix, layers: 80, ..row("deep", module) });
            let cells = (0..80).flat_map(|a| (0..80).map(move |b| (a, b)));
            tables.similarity.extend(cells.map(|(a, b)| SimilarityRow { matrix, ..cell("deep", module, a, b) }));
        }
    }
    let before = cpu::of_this_thread();
    let deep = page(&tables, &manifest(&["deep"]));
    let took = cpu::of_this_thread() - before;
    is_well_formed(&deep);
    assert!(deep.len() < 8_000_000, "{} bytes", deep.len());
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(deep.matches("<div class=\"picture\" data-map=").count(), 21);
    assert!(!deep.contains("pictures alone"));

    // 200 layers of one module and three matrices: 120,000 cells can be read; with a fourth they could not.
    let mut tables = Tables::default();
    for module in modules {
        tables.summary.push(SummaryRow { layers: 200, ..row("deeper", module) });
        tables.similarity.extend((0..200).flat_map(|a| (0..200).map(move |b| cell("deeper", module, a, b))));
    }
    let deeper = page(&tables, &manifest(&["deeper"]));
    assert!(deeper.len() < 8_000_000, "{} bytes", deeper.len());
    assert_eq!(deeper.matches("<div class=\"picture\" data-map=").count(), 3);
    assert!(deeper.contains("4 maps are pictures alone, without numbers to read."));
}
