//! Singular values, fit residuals, training curves and the paper's Figure 1: the pictures show what the tables contain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::fs;
use std::path::Path;

use condlora::Tables;
use condlora::figure::{FigureContext, FigureFormat, FigureKind, FigureOptions, draw_fit, draw_paper, draw_study};
use condlora::results::SavedResults;
use condlora::table::FitRow;
use condlora::table::SummaryRow;
use condlora::table::csv::read_rows;
use condlora::table::rows::{SpectrumRow, TrainingRow};
use condlora::terms::{MatrixKind, SpectrumMatrix, Status, UpdateMatrix};
use shared::checkpoint::{PLAIN, square_layers, write_adapter, write_base};
use shared::program::{Run, data, program, real_base};

fn svg() -> FigureOptions {
    FigureOptions { formats: vec![FigureFormat::Svg], ..FigureOptions::default() }
}

fn both() -> FigureOptions {
    FigureOptions { formats: vec![FigureFormat::Svg, FigureFormat::Png], ..FigureOptions::default() }
}

/// What an SVG holds: texts, lines of more than two points or in a colour, and dots, in its own units.
struct Picture {
    texts: Vec<String>,
    lines: Vec<(String, Vec<(f64, f64)>)>,
    dots: Vec<(String, f64, f64)>,
    width: f64,
    height: f64,
}

fn picture(bytes: &[u8]) -> Picture {
    let text = std::str::from_utf8(bytes).unwrap();
    let document = roxmltree::Document::parse(text).unwrap();
    let number = |node: roxmltree::Node<'_, '_>, name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
    let mut found = Picture { texts: Vec::new(), lines: Vec::new(), dots: Vec::new(), width: 0.0, height: 0.0 };
    let view: Vec<f64> =
        document.root_element().attribute("viewBox").unwrap().split(' ').map(|part| part.parse().unwrap()).collect();
    (found.width, found.height) = (view[2], view[3]);
    for node in document.descendants() {
        match node.tag_name().name() {
            "text" => found.texts.push(node.text().unwrap_or_default().trim().to_owned()),
            "polyline" => {
                let points = node.attribute("points").unwrap().split_whitespace().map(|point| {
                    let (x, y) = point.split_once(',').unwrap();
                    (x.parse().unwrap(), y.parse().unwrap())
                });
                found.lines.push((node.attribute("stroke").unwrap().to_owned(), points.collect()));
            }
            "circle" => {
                found.dots.push((node.attribute("fill").unwrap().to_owned(), number(node, "cx"), number(node, "cy")));
            }
            _ => {}
        }
    }
    found
}

impl Picture {
    fn says(&self, text: &str) -> bool {
        self.texts.iter().any(|found| found == text)
    }

    /// All that is drawn is on the page.
    fn is_inside(&self) {
        let points = self.lines.iter().flat_map(|(_, points)| points.iter().copied());
        for (x, y) in points.chain(self.dots.iter().map(|dot| (dot.1, dot.2))) {
            assert!((0.0..=self.width).contains(&x) && (0.0..=self.height).contains(&y), "{x}, {y}");
        }
    }
}

fn spectrum(layers: &[Option<u32>], rank: usize, sigma: impl Fn(Option<u32>, usize) -> f64) -> Tables {
    let mut tables = Tables::default();
    for matrix in [SpectrumMatrix::A, SpectrumMatrix::B, SpectrumMatrix::BA] {
        for &layer in layers {
            tables.spectrum.extend((1..=rank).map(|k| SpectrumRow {
                adapter: "run/a".into(),
                module: "query".into(),
                matrix,
                layer: layer.map(Into::into),
                k,
                sigma: sigma(layer, k),
            }));
        }
    }
    tables
}

fn only_svg(tables: &Tables) -> Picture {
    let figures = draw_study(tables, &FigureContext::default(), &svg()).unwrap();
    assert_eq!(figures.len(), 1);
    let picture = picture(&figures[0].bytes);
    picture.is_inside();
    picture
}

#[test]
fn singular_values_stand_at_their_logarithm() {
    let layers = [Some(0), Some(3), Some(7)];
    // Each layer has a scale of its own, which the picture does not show: σ_k/σ_1 = 10^(1-k).
    let tables = spectrum(&layers, 4, |layer, k| 10_f64.powi(layer.unwrap() as i32 - 5) * 10_f64.powi(1 - k as i32));
    let figures = draw_study(&tables, &FigureContext::default(), &svg()).unwrap();
    assert_eq!(figures[0].path(), "run%2Fa/query.spectrum.svg".replace("%2F", "/"));
    let picture = only_svg(&tables);
    for text in ["run/a: query · singular values", "Θ_A", "Θ_B", "Θ_BA", "k", "layer", "0", "3", "7", "0.001", "1"] {
        assert!(picture.says(text), "{text} in {:?}", picture.texts);
    }
    let lines: Vec<_> = picture.lines.iter().filter(|(_, points)| points.len() == 4).collect();
    assert_eq!((lines.len(), picture.dots.len()), (9, 36));
    for (_, points) in &lines {
        let falls: Vec<f64> = points.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
        assert!(falls.iter().all(|fall| (fall - falls[0]).abs() <= 1.0 && *fall > 20.0), "{falls:?}");
    }
    // Three layers have three colours, in every panel the same.
    let colours: std::collections::BTreeSet<&str> = lines.iter().map(|line| line.0.as_str()).collect();
    assert_eq!(colours.len(), 3);
}

#[test]
fn many_layers_zeros_and_modules_without_a_layer_have_their_singular_values() {
    let many: Vec<Option<u32>> = (0..80).map(Some).collect();
    let picture = only_svg(&spectrum(&many, 16, |layer, k| 1.0 / (k as f64 + f64::from(layer.unwrap()) / 80.0)));
    assert_eq!(picture.lines.iter().filter(|line| line.1.len() == 16).count(), 240);
    // Labels of layers and k are thinned, not laid over each other.
    assert!(picture.says("70") && !picture.says("71") && picture.texts.len() < 90, "{:?}", picture.texts);
    assert!(picture.says("σ of each k over the largest, a line for each of 80 layers"));
    let alone = only_svg(&spectrum(&[None], 1, |_, _| 2.0));
    assert!(!alone.says("layer") && alone.dots.len() == 3);
    let some_zero = only_svg(&spectrum(&[Some(0), Some(1)], 3, |_, k| if k == 3 { 0.0 } else { 1.0 / k as f64 }));
    assert!(some_zero.says("6 of them are zero and not shown"), "{:?}", some_zero.texts);
    let extreme = only_svg(&spectrum(&[Some(0)], 3, |_, k| [f64::MAX, 1.0, f64::MIN_POSITIVE][k - 1]));
    assert!(extreme.says("6 of them are zero and not shown"), "{:?}", extreme.texts);
    let all_zero = spectrum(&[Some(0)], 2, |_, _| 0.0);
    assert!(draw_study(&all_zero, &FigureContext::default(), &svg()).unwrap().is_empty());
}

fn fit_rows(layers: u32, delta: bool) -> Vec<FitRow> {
    let matrices: &[UpdateMatrix] = if delta { &[UpdateMatrix::Delta] } else { &[UpdateMatrix::A, UpdateMatrix::B] };
    let row = |matrix: UpdateMatrix, layer: String, residual: f64| FitRow {
        module: "value".into(),
        matrix,
        layer,
        residual: Some(residual),
        residual_expected: Some(0.9),
        residual_sd: Some(0.01),
        p: Some(0.5),
        flip_mean: None,
        flip_sd: None,
        flip_p: None,
        status: Status::Ok,
    };
    let of = |matrix: &UpdateMatrix| {
        let matrix = *matrix;
        let by_layer = (0..layers).map(move |layer| row(matrix, layer.to_string(), 0.8 + 0.02 * f64::from(layer % 7)));
        by_layer.chain([row(matrix, FitRow::ALL.to_owned(), 0.85)]).collect::<Vec<_>>()
    };
    matrices.iter().flat_map(of).collect()
}

#[test]
fn residuals_stand_beside_those_of_gaussian_targets() {
    let context = FigureContext { base_name: None, adapter: Some("trec") };
    let figures = draw_fit(&fit_rows(6, false), &context, &svg()).unwrap();
    assert_eq!((figures.len(), figures[0].path().as_str()), (1, "value.fit.svg"));
    let drawn = picture(&figures[0].bytes);
    drawn.is_inside();
    for text in
        ["trec: value · one Θ for all layers", "A", "B", "observed", "Gaussian targets: mean ± sd", "all", "residual", "5"]
    {
        assert!(drawn.says(text), "{text}");
    }
    // One dot in the key; then by panel six layers and all of them, with y linear in the residual.
    assert_eq!(drawn.dots.len(), 1 + 2 * 7);
    for panel in drawn.dots[1..].chunks(7) {
        let (first, last, all) = (panel[0].2, panel[5].2, panel[6].2);
        let share = (first - all) / (first - last);
        assert!((share - 0.5).abs() < 0.02, "{share}");
        assert!(panel.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }
    // With the strict control its band is shown, and of Gaussian targets the mean.
    let strict: Vec<FitRow> = fit_rows(6, false)
        .into_iter()
        .map(|row| FitRow { flip_mean: Some(0.95), flip_sd: Some(0.02), flip_p: Some(0.5), ..row })
        .collect();
    let drawn = picture(&draw_fit(&strict, &context, &svg()).unwrap()[0].bytes);
    drawn.is_inside();
    assert!(drawn.says("flip control: mean ± sd") && drawn.says("Gaussian targets: mean"));
    // The updates alone, one layer, many layers, no layer number, no value at all.
    for rows in [fit_rows(6, true), fit_rows(1, false), fit_rows(80, false), fit_rows(0, false)] {
        let figures = draw_fit(&rows, &FigureContext::default(), &both()).unwrap();
        picture(&figures[0].bytes).is_inside();
        assert_eq!(figures.len(), 2);
    }
    let mut none = fit_rows(3, false);
    none.iter_mut().for_each(|row| (row.residual, row.residual_expected, row.status) = (None, None, Status::Zero));
    assert!(draw_fit(&none, &FigureContext::default(), &svg()).unwrap().is_empty());
    none[0].residual = Some(0.5);
    let doubtful = picture(&draw_fit(&none, &FigureContext::default(), &svg()).unwrap()[0].bytes);
    assert!(doubtful.texts.iter().any(|text| text.ends_with("status zero")));
}

fn logged(step: usize, name: &str, value: Option<f64>) -> TrainingRow {
    TrainingRow { adapter: "a".into(), step, epoch: Some(step as f64 / 100.0), name: name.into(), value }
}

#[test]
fn curves_of_training_are_its_log() {
    let mut rows: Vec<TrainingRow> = Vec::new();
    for k in 1..=10_usize {
        rows.push(logged(10 * k, "loss", (k != 5).then_some(2.0 / k as f64)));
        rows.push(logged(10 * k, "learning_rate", Some(1e-3 * (1.0 - k as f64 / 10.0))));
    }
    rows.extend([
        logged(50, "eval_loss", Some(0.7)),
        logged(100, "eval_loss", Some(0.5)),
        logged(100, "eval_accuracy", Some(0.9)),
    ]);
    rows.push(logged(100, "train_runtime", Some(1e5)));
    let tables = Tables { training: Some(rows), ..Tables::default() };
    let figures = draw_study(&tables, &FigureContext::default(), &both()).unwrap();
    assert!(figures.iter().all(|figure| figure.kind == FigureKind::Training) && figures[0].path() == "a/training.svg");
    let picture = picture(&figures[0].bytes);
    picture.is_inside();
    for text in ["a: training", "loss", "eval_loss", "eval_accuracy", "metrics of evaluation", "learning rate", "step"] {
        assert!(picture.says(text), "{text}");
    }
    assert!(!picture.says("train_runtime") && picture.says("100 steps, 1 epoch, as its trainer_state.json has them"));
    // NaN at step 50 breaks the loss in two.
    let lengths: Vec<usize> = picture.lines.iter().map(|line| line.1.len()).filter(|length| *length > 2).collect();
    assert_eq!(lengths, [4, 5, 10]);
}

/// `trained/` with a log, `other/` without and `spoilt/` with something else, on `base/`.
fn trained(root: &Path) {
    let layers = square_layers(2, 8, 2);
    write_base(&root.join("base"), &layers, PLAIN);
    for name in ["trained", "other", "spoilt"] {
        write_adapter(&root.join("runs").join(name), &layers, PLAIN, &[]);
    }
    let log = r#"{"log_history": [{"epoch": 0.5, "loss": 1.5, "learning_rate": 0.001, "step": 5},
        {"epoch": 1.0, "loss": NaN, "step": 10}, {"epoch": 1.0, "eval_loss": 1.25, "step": 10}]}"#;
    fs::create_dir_all(root.join("runs/trained/checkpoint-10")).unwrap();
    fs::write(root.join("runs/trained/checkpoint-10/trainer_state.json"), log).unwrap();
    fs::write(root.join("runs/spoilt/trainer_state.json"), "{\"log_history\": 7}").unwrap();
}

fn condlora(root: &Path, arguments: &[&str]) -> Run {
    Run::of(program().args(arguments).current_dir(root).output().unwrap())
}

#[test]
fn a_training_log_beside_an_adapter_is_read_and_a_spoilt_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    trained(root);
    let study = ["runs", "--base", "base", "--null-draws", "2"];
    let run = condlora(root, &[&["analyze"], &study[..], &["-o", "out"]].concat()).exits(0);
    let warning =
        "warning: spoilt: its training log is left out: runs/spoilt/trainer_state.json: training log; expected an object";
    run.says(warning);
    let expected = "adapter,step,epoch,name,value\ntrained,5,0.5,learning_rate,0.001\ntrained,5,0.5,loss,1.5\n\
        trained,10,1.0,loss,\ntrained,10,1.0,eval_loss,1.25\n";
    assert_eq!(fs::read_to_string(root.join("out/training.csv")).unwrap(), expected);
    assert!(root.join("out/figures/trained/training.svg").is_file() && !root.join("out/figures/other/training.svg").exists());
    let manifest = fs::read_to_string(root.join("out/manifest.json")).unwrap();
    let hash = blake3::hash(&fs::read(root.join("runs/trained/checkpoint-10/trainer_state.json")).unwrap()).to_hex();
    assert!(manifest.contains(hash.as_str()) && manifest.contains("its training log is left out"));
    // Shards have it too, and drawn again it is the same.
    for shard in ["1/2", "2/2"] {
        let out = format!("parts/{}", &shard[..1]);
        condlora(root, &[&["analyze"], &study[..], &["-o", &out, "--shard", shard, "--figures", "none"]].concat()).exits(0);
    }
    condlora(root, &["merge", "parts/1", "parts/2", "-o", "merged"]).exits(0);
    assert_eq!(fs::read_to_string(root.join("merged/training.csv")).unwrap(), expected);
    let curves = fs::read(root.join("out/figures/trained/training.svg")).unwrap();
    condlora(root, &["figures", "merged", "--figures", "svg", "--figures-dir", "again"]).exits(0);
    assert!(fs::read(root.join("again/trained/training.svg")).unwrap() == curves);
    // Nothing else depends on it.
    fs::remove_dir_all(root.join("runs/trained/checkpoint-10")).unwrap();
    condlora(root, &[&["analyze"], &study[..], &["-o", "without", "--figures", "none"]].concat()).exits(0);
    assert!(!root.join("without/training.csv").exists());
    for table in ["summary", "similarity", "conversion", "spectrum"] {
        let read = |out: &str| fs::read(root.join(out).join(format!("{table}.csv"))).unwrap();
        assert!(read("out") == read("without"), "{table}");
    }
}

#[test]
fn a_resolution_out_of_range_is_refused_with_the_range() {
    for (dpi, refused) in [("71", true), ("601", true), ("2400", true), ("600", false)] {
        // 600 gets as far as the results, which are missing.
        let run = condlora(Path::new("."), &["figures", "no-such-results", "--dpi", dpi]);
        if refused {
            run.exits(2).says("a resolution must be from 72 to 600 pixels to an inch");
        } else {
            assert!(!run.stderr.contains("resolution"), "{}", run.stderr);
        }
    }
}

#[test]
fn figure_1_has_both_matrices_on_one_scale_and_the_captions_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut analyze = program();
    analyze
        .args(["analyze", "-q", "--figures", "none", "-o", "out"])
        .arg(data("adapters/trec-seed0"))
        .arg("--base")
        .arg(real_base());
    Run::of(analyze.current_dir(root).output().unwrap()).exits(0);
    let run = condlora(root, &["figures", "out", "--paper", "--modules", "value"]).exits(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let path = "out/figures/trec-seed0/value.figure1.left.i8-j8";
    assert_eq!((lines[0], lines[1], lines.len()), (&*format!("{path}.svg"), &*format!("{path}.png"), 3));
    let summary: Vec<SummaryRow> = read_rows(&root.join("out/summary.csv")).unwrap();
    let caption = lines[2].trim();
    for matrix in [MatrixKind::A, MatrixKind::B] {
        let row = summary.iter().find(|row| row.module == "value" && row.matrix == matrix).unwrap();
        let part = format!(
            "Θ_{matrix} {:.4} (random Gaussian matrices {:.4} ± {:.4}, Gaussian targets through W0 {:.4} ± {:.4})",
            row.phi_mean.unwrap(),
            row.gaussian_mean.unwrap(),
            row.gaussian_sd.unwrap(),
            row.w0_mean.unwrap(),
            row.w0_sd.unwrap()
        );
        assert!(caption.contains(&part), "{part} in {caption}");
    }
    assert!(caption.starts_with("Similarities φ (i = j = 8, left singular vectors) between the conversion matrices Θ_A and Θ_B"));
    assert!(caption.contains("value modules of trec-seed0 on all-MiniLM-L6-v2-qv."));
    let bytes = fs::read(root.join(format!("{path}.svg"))).unwrap();
    let drawn = picture(&bytes);
    drawn.is_inside();
    assert!(drawn.says("(a) Θ_A, mean 0.0522") && drawn.says("(b) Θ_B, mean 0.0553") && drawn.says("W0 control, A"));
    // The whole caption is below, broken into lines, and all 72 cells have their values.
    let below = drawn.texts.join(" ");
    assert!(below.contains(caption), "{below}");
    let cells = drawn.texts.iter().filter(|text| text.starts_with('.') || *text == "1.00").count();
    assert_eq!(cells, 72);
    let json = condlora(root, &["figures", "out", "--paper", "--modules", "value", "--json", "--figures", "svg"]).exits(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json[0]["caption"].as_str().unwrap(), json[0]["figure"].as_str()), (caption, Some("paper")));
    // On the scale of the data both panels have one: the end of the bar is the largest of both.
    let results = SavedResults::read(&root.join("out")).unwrap();
    let options = FigureOptions { scale: condlora::figure::ColourScale::Data, ..svg() };
    let tables = results.study.unwrap();
    let scaled = draw_paper(&tables, &FigureContext::default(), &options).unwrap();
    assert_eq!(scaled.len(), 2);
    let value = picture(&scaled[1].1[0].bytes);
    assert!(value.says("0.08") && !value.says("0.2") && !value.says("1.00"), "{:?}", value.texts);
    // One matrix, one layer: what is there is drawn.
    let mut less = tables.clone();
    less.similarity.retain(|row| row.matrix == MatrixKind::B && row.layer_a == 2 && row.layer_b == 2);
    less.summary.clear();
    let alone = draw_paper(&less, &FigureContext::default(), &both()).unwrap();
    assert!(picture(&alone[0].1[0].bytes).says("(a) Θ_B") && alone.len() == 2);
    let none = condlora(root, &["figures", "out", "--paper", "--modules", "value", "--adapters", "nobody"]);
    none.exits(2);
}
