//! Terminal, `--json` and `report.html` give one answer to the study's question, and the answer claims only what was tested.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{FitRow, SummaryRow};
use ndarray::Array2;
use regex::Regex;
use serde_json::{Map, Value};
use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base};
use shared::program::{Run, data, program, real_base};
use shared::tolerance::gaussian;

/// A row as `--json` prints it.
type JsonRow = Map<String, Value>;

/// What one run says in all the places where it says something.
struct Faces {
    /// With its colours.
    coloured: String,
    json: Vec<JsonRow>,
    /// Headline and grounds of `report.html`; none of a command that writes none.
    report: Option<String>,
    /// All of the page.
    page: String,
    summary: Vec<SummaryRow>,
}

/// Runs a command twice into `out`, for its table and for its JSON.
fn faces(root: &Path, arguments: &[&str]) -> Faces {
    let run = |more: &[&str]| {
        let command = [arguments, &["-o", "out", "--figures", "none", "--overwrite", "-q"], more].concat();
        Run::of(program().args(command).current_dir(root).output().unwrap()).exits(0).stdout
    };
    let coloured = run(&["--color", "always"]);
    let page = || fs::read_to_string(root.join("out/report.html")).unwrap_or_default();
    let shown = page();
    let json: Vec<JsonRow> = serde_json::from_str(&run(&["--json"])).unwrap();
    let said = |html: &str| {
        let part = |class: &str| {
            let found = Regex::new(&format!(r#"class="{class}">([^<]*)<"#)).unwrap().captures(html)?[1].to_owned();
            Some(found.replace("&#x27;", "'").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        };
        Some(part("headline")? + " " + &part("grounds")?)
    };
    let report = said(&shown);
    assert_eq!(report, said(&page()));
    let summary = read_rows(&root.join("out/summary.csv")).unwrap_or_default();
    Faces { coloured, json, report, page: shown, summary }
}

impl Faces {
    /// What the terminal shows, colours apart.
    fn terminal(&self) -> String {
        Regex::new("\x1b\\[[0-9;]*m").unwrap().replace_all(&self.coloured, "").into_owned()
    }

    /// The lines of the table's rows, with their colours.
    fn rows(&self) -> Vec<&str> {
        let row = Regex::new("^(?:\x1b\\[[0-9;]*m)?  ").unwrap();
        // The table of factors through W0 comes before, and ends with an empty line.
        let mut through_w0 = false;
        let is_row = |line: &&str| {
            through_w0 = !line.trim().is_empty() && (through_w0 || line.contains("through W0  "));
            !through_w0 && row.is_match(line) && !line.contains("module")
        };
        self.coloured.lines().filter(is_row).collect()
    }

    fn text(&self) -> &str {
        self.json[0]["run_verdict"].as_str().unwrap()
    }

    fn count(&self, field: &str, answers: &[&str]) -> usize {
        self.json.iter().filter(|row| row[field].as_str().is_some_and(|answer| answers.contains(&answer))).count()
    }

    /// Insists that a sentence is there, in all places by [`agree`].
    #[track_caller]
    fn says(&self, sentence: &str) -> &Self {
        assert!(self.text().contains(sentence), "{sentence:?} is missing in {:?}", self.text());
        self
    }
}

/// How a sentence begins that counts averages.
fn counted(part: usize, whole: usize) -> String {
    match (part, whole) {
        (0, 1) => "The only average is not".to_owned(),
        (1, 1) => "The only average is".to_owned(),
        (0, _) => format!("None of {whole} averages is"),
        (2, 2) => "Both averages are".to_owned(),
        (1, _) => format!("1 of {whole} averages is"),
        (part, whole) if part == whole => format!("All {whole} averages are"),
        _ => format!("{part} of {whole} averages are"),
    }
}

/// Insists that the places agree: sentences word by word, rows in answer, words and colour, and counts in sentences with rows.
#[track_caller]
fn agree(faces: &Faces) {
    let text = faces.text();
    assert!(faces.json.iter().all(|row| row["run_verdict"] == text));
    let terminal = faces.terminal();
    assert!(terminal.replace('\n', " ").contains(text), "{terminal}\nhas not\n{text}");
    if let Some(report) = &faces.report {
        assert_eq!(report, text);
    }
    assert_eq!(faces.rows().len(), faces.json.len(), "{terminal}");
    for (line, row) in faces.rows().iter().zip(&faces.json) {
        let answer = |field: &str| row.get(field).and_then(Value::as_str);
        let colour = match (row["status"].as_str().unwrap(), answer("chance_answer"), answer("w0_answer")) {
            (status, ..) if status != "ok" => "\x1b[33m",
            (_, _, Some("more")) => "\x1b[32m",
            (_, Some("more"), _) => "\x1b[36m",
            _ => "  ",
        };
        assert!(line.starts_with(colour), "{line:?} of {row:?}");
    }
    let tested = faces.count("chance_answer", &["more", "more_uncorrected", "not_shown_to_be_more", "less"]);
    if tested > 0 {
        faces.says(&format!("{} more than chance.", counted(faces.count("chance_answer", &["more"]), tested)));
    }
    let untested = faces.count("chance_answer", &["higher_untested", "not_higher_untested"]);
    if untested > 0 {
        let higher = counted(faces.count("chance_answer", &["higher_untested"]), untested);
        faces.says(&format!("{higher} higher than the value expected by chance"));
    }
}

/// Insists that the answers are those of the tests, by their definitions, and that the report has each row's words.
#[track_caller]
fn is_what_was_tested(faces: &Faces, draws: usize) {
    assert_eq!(faces.json.len(), faces.summary.len());
    let p_values: Vec<f64> = faces.summary.iter().filter(|row| row.phi_mean.is_some()).filter_map(|row| row.w0_p).collect();
    for (json, row) in faces.json.iter().zip(&faces.summary) {
        // The rows belong together; that the numbers are the same to the last bit is tested elsewhere.
        for (shown, kept) in [(&json["phi_mean"], row.phi_mean), (&json["w0_p"], row.w0_p)] {
            assert!(
                shown.as_f64().zip(kept).is_none_or(|(shown, kept)| (shown - kept).abs() < 1e-14 && json["module"] == row.module)
            );
        }
        let (Some(phi), Some(expected)) = (row.phi_mean, row.gaussian_expected) else { continue };
        let chance = json["chance_answer"].as_str().unwrap();
        match row.gaussian_mean.zip(row.gaussian_sd).filter(|_| draws >= 10) {
            Some((mean, sd)) if phi > mean + 3.0 * sd => assert!(chance.starts_with("more"), "{json:?}"),
            Some((mean, sd)) => assert_eq!(chance, if phi < mean - 3.0 * sd { "less" } else { "not_shown_to_be_more" }),
            None => assert_eq!(chance, if phi > expected { "higher_untested" } else { "not_higher_untested" }),
        }
        // Holm by its definition: p stays if it and every smaller one is below the level divided by how many are no smaller.
        let stays = |p: f64| {
            let no_smaller = |than: f64| p_values.iter().filter(|other| **other >= than).count() as f64;
            p_values.iter().filter(|smaller| **smaller <= p).all(|smaller| smaller * no_smaller(*smaller) < 0.05 - 1e-12)
        };
        let base = match row.w0_p {
            None => None,
            Some(_) if draws < 20 => Some("too_few_draws"),
            Some(p) if p >= 0.05 => Some("not_shown_to_be_more"),
            Some(p) => Some(if stays(p) { "more" } else { "more_uncorrected" }),
        };
        assert_eq!(json["w0_answer"].as_str(), base, "{json:?}");
        let words = json["verdict"].as_str().unwrap();
        let written: String = words.chars().take(1).flat_map(char::to_uppercase).chain(words.chars().skip(1)).collect();
        assert!(faces.page.contains("After Holm") || faces.page.contains(&format!("\">{written}</td>")), "{written}");
    }
}

/// `analyze` of a sample, checked in every place.
#[track_caller]
fn sample(root: &Path, path: &str, draws: usize, more: &[&str]) -> Faces {
    let (path, base, number) = (data(path), real_base(), draws.to_string());
    let arguments = ["analyze", path.to_str().unwrap(), "--base", base.to_str().unwrap(), "--null-draws", &number];
    let faces = faces(root, &[&arguments, more].concat());
    agree(&faces);
    is_what_was_tested(&faces, draws);
    faces
}

#[test]
fn averages_a_little_above_the_expected_value_are_not_called_more() {
    let folder = tempfile::tempdir().unwrap();
    let gpt2 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints/gpt2/adapter");
    let options = ["--split", "qkv", "--modules", "c_attn.q,c_attn.v", "--matrices", "A,B"];
    let faces = faces(folder.path(), &[&["analyze", gpt2.to_str().unwrap()][..], &options].concat());
    // Each is above what Gaussian matrices are expected to have.
    assert!(faces.summary.iter().all(|row| row.phi_mean > row.gaussian_expected) && faces.summary.len() == 4);
    agree(&faces);
    is_what_was_tested(&faces, 20);
    faces
        .says("None of 4 averages is more than chance.")
        .says("φ of Θ: not shown to be more than chance; not shown to be more than the base");
}

#[test]
fn draws_say_what_so_many_can() {
    let folder = tempfile::tempdir().unwrap();
    let of = |draws| sample(folder.path(), "adapters/trec-seed0", draws, &[]);
    of(0).says("Higher than the value expected by chance, but not tested; what the base model alone gives was not drawn.");
    let five = of(5);
    five.says("5 draws cannot tell it from the base model alone.").says("that takes --null-draws 20 or more.");
    assert_eq!(five.count("w0_answer", &["too_few_draws"]), 6);
    of(20)
        .says("φ of Θ: more than chance, but not shown to be more than the base model alone gives.")
        .says("to correct for 6 comparisons (Holm) takes --null-draws 120 or more.");
}

#[test]
fn what_a_condlora_shares_is_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let of = |draws| sample(folder.path(), "condlora/trec-seed0", draws, &["--modules", "value", "--matrices", "A,B"]);
    of(20)
        .says("Both averages are above all 20 draws of the base model alone (p = 0.048 each).")
        .says("20 draws give no p below 0.048; to correct for 2 comparisons (Holm) takes --null-draws 40 or more.");
    of(40).says("φ of Θ: more than chance, and more than the base model alone gives.");
}

#[test]
fn the_samples_are_answered_for_together() {
    let folder = tempfile::tempdir().unwrap();
    let faces = sample(folder.path(), "adapters", 20, &[]);
    faces.says("All 18 averages are more than chance.").says("None of 18 averages is more than the base model alone");
}

/// Adapters of noise on a base of four layers, and one whose layers have the same conversion matrix.
fn hundreds(root: &Path, count: usize) {
    let layers = square_layers(4, 16, 2);
    write_base(&root.join("base"), &layers, PLAIN);
    let shared = gaussian(5, "theta", 16, 2);
    for number in 0..count {
        let own = |layer: &Layer| match number {
            7 => Layer { a: layer.w0.dot(&shared).reversed_axes().as_standard_layout().to_owned(), ..layer.clone() },
            _ => Layer { a: gaussian(6, &format!("{} {number}", layer.path), 2, 16), ..layer.clone() },
        };
        write_adapter(&root.join(format!("runs/{number:03}")), &layers.iter().map(own).collect::<Vec<_>>(), PLAIN, &[]);
    }
}

#[test]
fn of_hundreds_only_what_is_more_is_called_more() {
    let folder = tempfile::tempdir().unwrap();
    hundreds(folder.path(), 150);
    let of = |draws: usize| {
        let number = draws.to_string();
        let arguments = ["analyze", "runs", "--base", "base", "--matrices", "A", "--null-draws", &number];
        let faces = faces(folder.path(), &arguments);
        agree(&faces);
        is_what_was_tested(&faces, draws);
        assert_eq!(faces.json[7]["chance_answer"], "more");
        // Little of the noise is: its Θ are not Gaussian, because they depend on W0.
        let above = faces.count("chance_answer", &["more"]);
        assert!(above < 5, "{}", faces.text());
        // The report counts the same in its one row for all.
        let cell = |count: usize| format!("<td class=\"num\">{count} of 150</td>");
        let more = faces.count("w0_answer", &["more"]);
        let taken_alone = more + faces.count("w0_answer", &["more_uncorrected"]);
        assert!(faces.page.contains(&cell(above)) && faces.page.contains(&format!("{}\n{}", cell(taken_alone), cell(more))));
        (faces, [more, taken_alone])
    };
    let (faces, [more, taken_alone]) = of(20);
    assert!(more == 0 && taken_alone > 0);
    faces.says("to correct for 150 comparisons (Holm) takes --null-draws 3000 or more.");
    faces.says("Of 150 comparisons about 7.5 fall below 0.05 by chance alone.");
    let (faces, [more, taken_alone]) = of(3000);
    // By chance alone some of the noise is below 0.05.
    assert!(more == 1 && taken_alone > 1, "{taken_alone}");
    faces.says("; more than the base model alone gives in 1 of 150 averages.");
}

#[test]
fn a_comparison_speaks_of_what_it_draws() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let base = real_base();
    let (lora, other, condlora) = (data("adapters/trec-seed0"), data("adapters/sst2-seed0"), data("condlora/trec-seed0"));
    let of = |right: &Path, draws: &str| {
        let paths = [&lora, right, &base].map(|path| path.to_str().unwrap());
        let faces = faces(root, &["compare", paths[0], paths[1], "--base", paths[2], "--null-draws", draws]);
        agree(&faces);
        assert_eq!(faces.count("chance_answer", &["higher_untested"]), 6);
        faces
    };
    let few = of(&condlora, "20");
    few.says("All 6 averages are above all 20 draws of the base model alone (p = 0.048 each")
        .says("takes --null-draws 120 or more.");
    assert_eq!(few.count("w0_answer", &["more_uncorrected"]), 6);
    let enough = of(&condlora, "120");
    enough.says("; more than the base model alone gives.");
    assert_eq!(enough.count("w0_answer", &["more"]), 6);
    assert_eq!(of(&condlora, "5").count("w0_answer", &["too_few_draws"]), 6);
    let two_lora = of(&other, "20");
    assert!(two_lora.json.iter().all(|row| row["w0_answer"].is_null()) && !two_lora.text().contains("base"));
}

#[test]
fn a_fit_is_corrected_for_its_modules() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 16, 2);
    write_base(&root.join("base"), &layers, PLAIN);
    let shared = |name: &str| gaussian(5, name, 16, 2);
    let derived = |layer: &Layer| {
        let a: Array2<f64> = layer.w0.dot(&shared("a")).reversed_axes().as_standard_layout().to_owned();
        Layer { a, ..layer.clone() }
    };
    write_adapter(&root.join("adapter"), &layers.iter().map(derived).collect::<Vec<_>>(), PLAIN, &[]);
    let of = |more: &[&str]| {
        let run = |last: &[&str]| {
            let command = ["fit", "adapter", "--base", "base", "-o", "out", "--overwrite", "-q", "--figures", "none"];
            Run::of(program().args(command).args(more).args(last).current_dir(root).output().unwrap()).exits(0).stdout
        };
        let (terminal, json): (String, Vec<JsonRow>) = (run(&[]), serde_json::from_str(&run(&["--json"])).unwrap());
        let text = json[0]["run_verdict"].as_str().unwrap().to_owned();
        assert!(terminal.replace('\n', " ").contains(&text), "{terminal}");
        let joint: Vec<JsonRow> = json.into_iter().filter(|row| row["layer"] == FitRow::ALL).collect();
        for row in &joint {
            assert!(terminal.contains(&format!("\n{}.\n", row["verdict"].as_str().unwrap())), "{terminal}");
        }
        (joint.into_iter().map(|row| row["flip_answer"].as_str().map(str::to_owned)).collect::<Vec<_>>(), text)
    };
    let some = |answers: [&str; 2]| answers.map(|answer| Some(answer.to_owned())).to_vec();
    let (answers, text) = of(&["--null-draws", "20"]);
    assert_eq!(answers, some(["more_uncorrected", "not_shown_to_be_more"]));
    assert!(text.contains("1 of 2 fits is more than the control at p < 0.05, taken by itself."), "{text}");
    assert!(text.contains("to correct for 2 comparisons (Holm) takes --null-draws 40 or more."), "{text}");
    assert_eq!(of(&["--null-draws", "40"]).0, some(["more", "not_shown_to_be_more"]));
    assert_eq!(of(&[]).0, some(["more", "not_shown_to_be_more"]));
    assert_eq!(of(&["--null-draws", "5"]).0, some(["too_few_draws"; 2]));
    assert_eq!(of(&["--null-draws", "0"]), (vec![None, None], String::new()));
    // However far Gaussian targets are, nothing is claimed without the strict control.
    let (answers, text) = of(&["--no-svd"]);
    assert_eq!(
        (answers, text.as_str()),
        (vec![None, None], "The strict control is missing: nothing is said of whether layers share a Θ.")
    );
}

#[test]
fn merged_shards_say_what_the_whole_says() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    hundreds(root, 9);
    let study = ["analyze", "runs", "--base", "base", "--null-draws", "20"];
    for shard in ["1/3", "2/3", "3/3"] {
        let command = [&study[..], &["--shard", shard, "-o", &shard[..1], "--figures", "none"]].concat();
        Run::of(program().args(command).current_dir(root).output().unwrap()).exits(0);
    }
    let whole = faces(root, &study);
    fs::remove_dir_all(root.join("out")).unwrap();
    let merged = faces(root, &["merge", "3", "1", "2"]);
    for faces in [&whole, &merged] {
        agree(faces);
        is_what_was_tested(faces, 20);
    }
    assert_eq!(whole.coloured, merged.coloured);
    assert!(whole.json == merged.json && whole.report == merged.report);
    // A shard speaks of its own adapters: its comparisons are fewer.
    merged.says("27 comparisons");
}
