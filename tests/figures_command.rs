//! `condlora figures`: redrawn figures equal the first ones, a table that was changed is refused by name, and no table makes the
//! command crash.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]
#![allow(clippy::result_large_err, reason = "the library's error is what it is")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use condlora::figure::{
    ColourScale, FigureContext, FigureFormat, FigureOptions, draw_comparison, draw_fit, draw_held_out, draw_study,
};
use condlora::results::SavedResults;
use proptest::prelude::*;
use shared::checkpoint::{PLAIN, square_layers, write_adapter, write_base};
use shared::program::{Run, files, program, run_in};

/// `condlora` with these arguments, in a directory.
fn condlora(root: &Path, arguments: &[&str]) -> Run {
    Run::of(program().args(arguments).current_dir(root).output().unwrap())
}

/// `base/`, and `runs/one` and `runs/two` on it.
fn checkpoints(root: &Path) {
    let layers = square_layers(3, 12, 2);
    write_base(&root.join("base"), &layers, PLAIN);
    for name in ["one", "two"] {
        let mut layers = layers.clone();
        layers.iter_mut().for_each(|layer| layer.a.mapv_inplace(|v| v + name.len() as f64 * v * v));
        write_adapter(&root.join("runs").join(name), &layers, PLAIN, &[]);
    }
    let log = r#"{"log_history": [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 1.0}]}"#;
    fs::write(root.join("runs/one/trainer_state.json"), log).unwrap();
}

/// Results of `analyze` in `study/` and of `compare` in `compared/`, without figures.
fn results() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    checkpoints(root);
    let quiet = ["--base", "base", "--figures", "none", "--null-draws", "3"];
    condlora(root, &[&["analyze", "runs", "-o", "study", "--across", "--cuts"], &quiet[..]].concat()).exits(0);
    condlora(root, &[&["compare", "runs/one", "runs/two", "-o", "compared"], &quiet[..]].concat()).exits(0);
    condlora(root, &[&["fit", "runs/one", "--held-out", "-o", "fitted"], &quiet[..]].concat()).exits(0);
    folder
}

fn manifest(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap()
}

/// Every file of a result has the hash that its manifest says, and none is left out.
fn is_true_to_its_manifest(out: &Path) {
    let mut there = files(out);
    there.remove("manifest.json").unwrap();
    let hashes: BTreeMap<String, String> =
        there.into_iter().map(|(name, bytes)| (name, blake3::hash(&bytes).to_hex().to_string())).collect();
    let said: BTreeMap<String, String> = serde_json::from_value(manifest(out)["outputs"].clone()).unwrap();
    assert_eq!(hashes, said);
}

fn figures_of(out: &Path) -> BTreeMap<String, Vec<u8>> {
    files(&out.join("figures"))
}

#[test]
fn figures_are_drawn_again_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    checkpoints(root);
    let base = ["--base", "base", "--null-draws", "3"];
    let analyze = |more: &[&str]| run_in(root, &[&["runs"], &base[..], more].concat()).exits(0);
    let many = ["--across", "--cuts", "--side", "both", "--ij", "2,2", "--ij", "1,2", "--matrices", "A,BA,lora_B"];
    analyze(&[&many[..], &["-o", "plain"]].concat());
    analyze(&[&many[..], &["-o", "typed", "--formats", "parquet", "--scale", "data", "--figures", "svg"]].concat());
    condlora(root, &[&["compare", "runs/one", "runs/two", "-o", "compared"], &base[..]].concat()).exits(0);
    condlora(root, &[&["fit", "runs/two", "--held-out", "-o", "fitted"], &base[..]].concat()).exits(0);
    for shard in ["1/2", "2/2"] {
        analyze(&["-o", &format!("parts/{shard}"), "--shard", shard, "--figures", "none"]);
    }
    condlora(root, &["merge", "parts/1/2", "parts/2/2", "-o", "merged"]).exits(0);
    for (out, options) in [
        ("plain", &[][..]),
        ("typed", &["--scale", "data", "--figures", "svg"]),
        ("compared", &["--figures", "png,svg"]),
        ("merged", &["--threads", "1"]),
        ("fitted", &[]),
    ] {
        let out_dir = root.join(out);
        let before = figures_of(&out_dir);
        assert!(before.len() > 1);
        fs::remove_dir_all(out_dir.join("figures")).unwrap();
        let run = condlora(root, &[&["figures", out], options].concat()).exits(0);
        assert_eq!(run.stderr, "");
        let after = figures_of(&out_dir);
        assert!(before == after, "{out}: {:?} and {:?}", before.keys(), after.keys());
        is_true_to_its_manifest(&out_dir);
        // stdout says each of them.
        let mut said: Vec<String> =
            run.stdout.lines().map(|line| line.strip_prefix(&format!("{out}/figures/")).unwrap().to_owned()).collect();
        said.sort();
        assert_eq!(said, after.into_keys().collect::<Vec<_>>());
        assert!(!fs::read_dir(&out_dir).unwrap().any(|e| e.unwrap().file_name().to_str().unwrap().starts_with('.')));
    }
}

#[test]
fn other_options_draw_other_figures_and_the_manifest_follows() {
    let folder = results();
    let (root, study) = (folder.path(), folder.path().join("study"));
    let before = files(&study);
    condlora(root, &["figures", "study", "--figures", "svg", "--adapters", "two"]).exits(0);
    is_true_to_its_manifest(&study);
    let paper = figures_of(&study);
    assert!(paper.contains_key("two/q_proj.A.left.i2-j2.svg") && paper.contains_key("two/overview.svg"));
    assert!(!paper.keys().any(|name| name.starts_with("one/") || name.ends_with(".png")));
    condlora(root, &["figures", "study", "--figures", "svg", "--adapters", "two", "--scale", "data"]).exits(0);
    assert_ne!(figures_of(&study)["two/q_proj.A.left.i2-j2.svg"], paper["two/q_proj.A.left.i2-j2.svg"]);
    is_true_to_its_manifest(&study);
    let redrawn = manifest(&study)["redrawn"].clone();
    assert_eq!((redrawn.as_array().unwrap().len(), redrawn[1]["options"]["scale"].as_str()), (2, Some("data")));
    // Everything else is as it was.
    for (name, bytes) in &before {
        assert!(name == "manifest.json" || fs::read(study.join(name)).unwrap() == *bytes, "{name}");
    }
}

#[test]
fn another_folder_leaves_the_results_alone() {
    let folder = results();
    let (root, study) = (folder.path(), folder.path().join("study"));
    let before = files(&study);
    fs::create_dir(root.join("elsewhere")).unwrap();
    fs::write(root.join("elsewhere/mine.txt"), "mine").unwrap();
    condlora(root, &["figures", "study", "--figures-dir", "elsewhere/new", "--modules", "q_proj"]).exits(0);
    assert!(root.join("elsewhere/new/one/overview.png").is_file() && root.join("elsewhere/mine.txt").is_file());
    assert!(files(&study) == before);
    // A folder belongs to the results if the manifest lists its files; its name does not matter.
    condlora(root, &["figures", "study", "--figures", "svg", "--figures-dir", "study/../study/pictures/deep"]).exits(0);
    assert!(study.join("pictures/deep/one/overview.svg").is_file());
    is_true_to_its_manifest(&study);
    // Without a manifest nothing vouches for the tables.
    fs::remove_file(study.join("manifest.json")).unwrap();
    let refused = condlora(root, &["figures", "study", "--figures", "svg"]).exits(3);
    refused.says("study: has no manifest.json of condlora; expected what analyze, merge, compare or fit wrote");
    assert!(!study.join("figures").exists() && !study.join("manifest.json").exists());
}

#[test]
fn json_says_what_was_drawn_where() {
    let folder = results();
    let run = condlora(folder.path(), &["figures", "study", "--figures", "svg", "--json", "--adapters", "one"]).exits(0);
    let all: Vec<serde_json::Value> = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(all.len(), 3 + 1 + 5 + 3);
    let first = serde_json::json!({
        "file": "study/figures/one/q_proj.A.left.i2-j2.svg", "figure": "heatmap", "adapter": "one", "module": "q_proj", "format": "svg", "caption": null,
    });
    assert_eq!(all[0], first);
    let kinds: Vec<&str> = all.iter().map(|figure| figure["figure"].as_str().unwrap()).collect();
    let of_one = ["heatmap", "heatmap", "heatmap", "overview", "expected", "spectrum", "cuts", "energy", "training"];
    assert_eq!(kinds, [&of_one[..], &["across"; 3]].concat());
    assert!(all[11]["adapter"].is_null() && all[3]["module"].is_null() && all[6]["module"] == "q_proj");
}

#[test]
fn what_cannot_be_drawn_is_said_in_one_line() {
    let folder = results();
    let root = folder.path();
    let refused = |arguments: &[&str], code: i32, says: &str| {
        let run = condlora(root, &[&["figures"], arguments].concat()).exits(code).says(says);
        assert_eq!((run.stdout.as_str(), run.stderr.lines().filter(|line| line.starts_with("error: ")).count()), ("", 1));
        assert!(!root.join("study/figures").exists());
    };
    refused(&["nowhere"], 3, "nowhere: is no directory");
    refused(&["base"], 3, "base: has no manifest.json of condlora");
    refused(&["study", "--figures", "none"], 2, "--figures none: nothing to draw");
    refused(&["study", "--modules", "k_proj"], 2, "--modules k_proj: not in the tables of study\nhint: there are q_proj");
    refused(&["study", "--adapters", "three"], 2, "hint: there are one, two");
    refused(&["compared", "--adapters", "one"], 2, "--adapters one: not in the tables of compared");
    let edit = |name: &str, change: &dyn Fn(&str) -> String| {
        let path = root.join("study").join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(&text)).unwrap();
        text
    };
    let whole = edit("similarity.csv", &|text| with_field(text, 2, 8, "7.0"));
    refused(&["study"], 4, "study/similarity.csv: contents; expected BLAKE3 ");
    edit("similarity.csv", &|_| whole.clone());
    let whole = edit("manifest.json", &|text| text[..text.len() / 2].to_owned());
    refused(&["study"], 4, "study/manifest.json: manifest; expected what analyze, merge, compare or fit wrote");
    edit("manifest.json", &|_| whole.clone());
    let table = root.join("study/spectrum.csv");
    fs::remove_file(&table).unwrap();
    refused(
        &["study"],
        3,
        "study/spectrum.csv: does not exist, but manifest.json lists it\nhint: run the command that wrote it again",
    );
    assert!(std::process::Command::new("mkfifo").arg(&table).status().unwrap().success());
    refused(&["study"], 3, "study/spectrum.csv: is no regular file");
    fs::remove_file(&table).unwrap();
    fs::copy(root.join("fitted/fit.csv"), root.join("compared/fit.csv")).unwrap();
    refused(&["compared"], 4, "compared/fit.csv: table; expected one that manifest.json lists, found one that it does not");
    fs::remove_file(root.join("compared/fit.csv")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    refused(&["compared", "--figures-dir", "file/x"], 7, "file/x");
}

#[test]
fn a_table_that_was_changed_is_refused_with_both_hashes() {
    let folder = results();
    let table = folder.path().join("study/summary.csv");
    let text = fs::read_to_string(&table).unwrap();
    let changed = text.replace(",ok\n", ",unreliable\n");
    fs::write(&table, &changed).unwrap();
    let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    let run = condlora(folder.path(), &["figures", "study", "--figures", "svg"]).exits(4);
    let expected = format!(
        "error: study/summary.csv: contents; expected BLAKE3 {} as in manifest.json, found {}\nhint: run the command that wrote it \
         again; to leave something out of figures, use --modules or --adapters\n",
        hash(&text),
        hash(&changed)
    );
    assert_eq!(run.stderr, expected);
    assert!(!folder.path().join("study/figures").exists());
}

const TABLES: [&str; 11] = [
    "study/summary.csv",
    "study/similarity.csv",
    "study/conversion.csv",
    "study/spectrum.csv",
    "study/across.csv",
    "study/cuts.csv",
    "study/energy.csv",
    "study/training.csv",
    "compared/compare.csv",
    "fitted/fit.csv",
    "fitted/heldout.csv",
];

/// Reads and draws the results that a table belongs to, as the command does.
fn redraw(root: &Path, table: &str) -> condlora::Result<usize> {
    let results = SavedResults::read(root.join(table).parent().unwrap())?;
    let options = FigureOptions { formats: vec![FigureFormat::Svg], scale: ColourScale::Data, ..FigureOptions::default() };
    let context = FigureContext { base_name: results.base_name(), adapter: results.adapter() };
    let mut drawn = 0;
    if let Some(tables) = &results.study {
        drawn += draw_study(tables, &context, &options)?.len();
    }
    if let Some(rows) = &results.compare {
        drawn += draw_comparison(rows, &options)?.len();
    }
    if let Some(rows) = &results.fit {
        drawn += draw_fit(rows, &context, &options)?.len();
    }
    if let Some(rows) = &results.held_out {
        drawn += draw_held_out(rows, &context, &options)?.len();
    }
    Ok(drawn)
}

/// Writes a table, which is refused by name for its hash; then writes its new hash into the manifest, and draws what is there.
#[track_caller]
fn redraw_spoilt(root: &Path, table: &str, bytes: &[u8]) -> condlora::Result<usize> {
    fs::write(root.join(table), bytes).unwrap();
    let (dir, name) = table.split_once('/').unwrap();
    let mut manifest = manifest(&root.join(dir));
    let hash = blake3::hash(bytes).to_hex().to_string();
    if manifest["outputs"][name] != hash {
        let error = redraw(root, table).unwrap_err();
        let message = error.to_string();
        let is_refused = message.contains(&format!("{table}: contents; expected BLAKE3 ")) && message.ends_with(&hash);
        assert!(error.exit_code() == 4 && is_refused && !message.contains('\n'), "{message}");
        manifest["outputs"][name] = hash.into();
        fs::write(root.join(dir).join("manifest.json"), manifest.to_string()).unwrap();
    }
    redraw(root, table)
}

/// A table's text with one field of one row (the header is row 0) replaced.
fn with_field(text: &str, row: usize, column: usize, value: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut fields: Vec<&str> = lines[row].split(',').collect();
    fields[column] = value;
    lines[row] = fields.join(",");
    lines.join("\n") + "\n"
}

#[test]
fn every_column_of_every_table_is_checked() {
    let folder = results();
    let root = folder.path();
    let (mut refused, mut drawn) = (0, 0);
    for table in TABLES {
        let text = fs::read_to_string(root.join(table)).unwrap();
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let mut check = |changed: &str, says: &[&str]| match redraw_spoilt(root, table, changed.as_bytes()) {
            Ok(_) => {
                drawn += 1;
                assert!(says.is_empty(), "{table}, {says:?}: drawn");
            }
            Err(error) => {
                refused += 1;
                let message = error.to_string();
                assert_eq!(error.exit_code(), 4, "{message}");
                assert!(message.contains(".csv: line ") && !message.contains('\n'), "{message}");
                assert!(says.iter().all(|part| message.contains(part)), "{table}, {says:?}: {message}");
            }
        };
        for (at, column) in header.iter().enumerate() {
            check(&with_field(&text, 0, at, "other"), &["line 1", &format!("a column `{column}`")]);
            check(&with_field(&text, 0, at, header[(at + 1) % header.len()]), &["line 1"]);
            let number_or_name = !matches!(
                *column,
                "adapter"
                    | "module"
                    | "adapter_key"
                    | "tensor"
                    | "w0_dtype"
                    | "adapter_dtype"
                    | "left"
                    | "right"
                    | "adapter_a"
                    | "adapter_b"
                    | "name"
                    | "cut"
                    | "map"
                    | "weighting"
            );
            // The layer of `fit.csv` and `heldout.csv` may also be `all`, and so is a text.
            let number_or_name = number_or_name && (*column != "layer" || !table.starts_with("fitted/"));
            let line_and_column = format!("{table}: line 3, column `{column}`; expected ");
            let says = [line_and_column.as_str()];
            for bad in ["nan", "inf", "x", "1e999", "-1", "18446744073709551616", "\u{7}"] {
                // `-1` is a number, and some columns may be negative.
                let is_bad = number_or_name && bad != "-1" && bad != "18446744073709551616";
                check(&with_field(&text, 2, at, bad), if is_bad { &says } else { &[] });
            }
        }
        let last = text.lines().last().unwrap();
        check(&format!("{text}{last},1\n"), &["fields, as in the header"]);
        check(&text.replacen('\n', "\nx,", 1), &["line 2"]);
        check("", &["line 1"]);
        let (before, row) = text.trim_end().rsplit_once('\n').unwrap();
        let not_utf8 = redraw_spoilt(root, table, &[before.as_bytes(), b"\n\xff\xfe", row.as_bytes()].concat()).unwrap_err();
        assert!(not_utf8.to_string().contains("expected UTF-8"), "{table}: {not_utf8}");
        // The header alone is a table without rows, and a row may be there twice.
        redraw_spoilt(root, table, text.lines().next().unwrap().as_bytes()).unwrap();
        redraw_spoilt(root, table, format!("{text}{last}\n").as_bytes()).unwrap();
        redraw_spoilt(root, table, text.as_bytes()).unwrap();
    }
    assert!(refused > 500 && drawn > 20, "{refused} refused, {drawn} drawn");
}

#[test]
fn a_table_cut_anywhere_is_refused_or_a_table() {
    let folder = results();
    let root = folder.path();
    for table in TABLES {
        let text = fs::read(root.join(table)).unwrap();
        let mut refused = 0;
        for end in (0..text.len() - 2).step_by(37).chain(text.len() - 9..text.len() - 2) {
            if let Err(error) = redraw_spoilt(root, table, &text[..end]) {
                assert_eq!(error.exit_code(), 4, "{table}, {end}: {error}");
                refused += 1;
            }
        }
        assert!(refused > 4, "{table}: {refused} refused");
        redraw_spoilt(root, table, &text).unwrap();
    }
}

#[test]
fn huge_numbers_make_no_huge_picture() {
    let folder = results();
    let root = folder.path();
    for table in TABLES {
        let text = fs::read_to_string(root.join(table)).unwrap();
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        for (at, column) in header.iter().enumerate() {
            let largest = match *column {
                "layer" | "layer_a" | "layer_b" => "4294967295",
                "i" | "j" | "k" | "step" | "layers" | "rank" | "w0_rank" | "out_features" | "in_features" => {
                    "18446744073709551615"
                }
                "sigma" | "w0_z" | "w0_condition" | "norm_a" | "norm_b" | "norm_delta" | "scaling" | "residual_a" | "value"
                | "epoch" | "residual" | "residual_sd" => "1.7976931348623157e308",
                _ => continue,
            };
            // In one row, and in all of them.
            let all =
                text.lines().skip(1).enumerate().fold(text.clone(), |text, (row, _)| with_field(&text, row + 1, at, largest));
            for changed in [with_field(&text, 1, at, largest), all] {
                if let Err(error) = redraw_spoilt(root, table, changed.as_bytes()) {
                    assert!([4, 8].contains(&error.exit_code()), "{table}, {column}: {error}");
                }
            }
        }
        redraw_spoilt(root, table, text.as_bytes()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Bytes changed, taken out or put in anywhere.
    #[test]
    fn a_spoilt_table_is_refused_or_drawn(
        which in 0..TABLES.len(),
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, "[0-9,.\"\ne-]{0,6}|\\PC{0,3}"), 1..6),
    ) {
        thread_local! {
            static RESULTS: tempfile::TempDir = results();
        }
        RESULTS.with(|folder| {
            let whole = fs::read(folder.path().join(TABLES[which])).unwrap();
            let mut text = whole.clone();
            for (at, how, piece) in &spoils {
                // Also behind the last byte: there may be none left.
                let at = at.index(text.len() + 1);
                let end = match how {
                    0 => at,
                    1 => (at + piece.len()).min(text.len()),
                    _ => (at + 40).min(text.len()),
                };
                text.splice(at..end, piece.bytes());
            }
            let done = redraw_spoilt(folder.path(), TABLES[which], &text);
            redraw_spoilt(folder.path(), TABLES[which], &whole).unwrap();
            if let Err(error) = done {
                assert!([4, 8].contains(&error.exit_code()), "{error}");
            }
        });
    }
}
