//! `condlora fit --held-out` and the strict control of `fit`: compared with the float64 oracle on the real adapters, and with planted Θ of which the answer is
//! known.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{FitRow, HeldOutRow};
use condlora::terms::{NullDraws, Status, UpdateMatrix};
use condlora::verdict::{Answer, StrictVerdict};
use condlora::{FitParams, prepare_fit};
use ndarray::{Array2, s};
use serde_json::Value;
use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base, write_both};
use shared::program::{Run, data, files, program, real_base};
use shared::tolerance::{conditioned, gaussian};

const ADAPTERS: [&str; 3] = ["sst2-seed0", "sst2-seed1", "trec-seed0"];

type OracleRow = BTreeMap<String, String>;

/// The rows of one of the oracle's tables.
fn oracle(adapter: &str, table: &str) -> Vec<OracleRow> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expected").join(adapter).join(table);
    csv::Reader::from_path(path).unwrap().deserialize().map(|row| row.unwrap()).collect()
}

fn number(row: &OracleRow, column: &str) -> f64 {
    row[column].parse().unwrap()
}

#[track_caller]
fn close(found: Option<f64>, row: &OracleRow, column: &str) {
    let (found, expected) = (found.unwrap(), number(row, column));
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{column}: {found} and not {expected} in {row:?}");
}

/// Insists that a control's mean is the oracle's, whose 200 draws are others.
#[track_caller]
fn same_control(mean: Option<f64>, draws: f64, row: &OracleRow, control: &str) {
    let allowed = 4.0 * number(row, &format!("{control}_sd")) * (1.0 / 200.0 + 1.0 / draws).sqrt();
    let expected = number(row, &format!("{control}_mean"));
    assert!((mean.unwrap() - expected).abs() <= allowed, "{control}: {mean:?} in {row:?}");
}

fn fit(adapter: impl AsRef<Path>, base: impl AsRef<Path>, out: &Path, more: &[&str]) -> Run {
    let mut command = program();
    command.arg("fit").arg(adapter.as_ref()).arg("--base").arg(base.as_ref()).arg("-o").arg(out);
    Run::of(command.args(["--figures", "none"]).args(more).output().unwrap())
}

fn predictions(out: &Path) -> Vec<HeldOutRow> {
    read_rows(&out.join("heldout.csv")).unwrap()
}

fn all<'r>(rows: &'r [HeldOutRow], module: &str, matrix: UpdateMatrix, map: &str) -> &'r HeldOutRow {
    let is_it = |row: &&HeldOutRow| {
        (row.module.as_str(), row.matrix, row.map.as_str(), row.weighting.as_str(), row.layer.as_str())
            == (module, matrix, map, HeldOutRow::SUBSPACE, HeldOutRow::ALL)
    };
    rows.iter().find(is_it).unwrap()
}

#[test]
fn predictions_and_controls_are_those_of_the_oracle() {
    let folder = tempfile::tempdir().unwrap();
    let draws = 20.0;
    for adapter in ADAPTERS {
        let out = folder.path().join(adapter);
        fit(data("adapters").join(adapter), real_base(), &out, &["--held-out", "--null-draws", "20"]).exits(0);
        let (found, expected) = (predictions(&out), oracle(adapter, "heldout.csv"));
        assert_eq!(found.len(), expected.len());
        for theirs in &expected {
            let is_it = |row: &&HeldOutRow| {
                [&row.module, &row.map, &row.weighting, &row.layer].map(String::as_str)
                    == ["module", "map", "weighting", "layer"].map(|column| theirs[column].as_str())
                    && row.matrix.name() == theirs["matrix"]
            };
            let ours = found.iter().find(is_it).unwrap();
            close(ours.score, theirs, "score");
            close(ours.chance, theirs, "chance");
            close(ours.without_w0, theirs, "without_w0");
            assert_eq!(ours.status, Status::Ok);
            if ours.layer == HeldOutRow::ALL {
                same_control(ours.flip_mean, draws, theirs, "flip");
                same_control(ours.shuffled_mean, draws, theirs, "permuted");
                assert!(ours.flip_p.is_some() && ours.flip_sd.is_some() && ours.shuffled_p.is_some());
            } else {
                assert_eq!((ours.flip_mean, ours.flip_p, ours.shuffled_mean), (None, None, None));
            }
        }
        let fitted: Vec<FitRow> = read_rows(&out.join("fit.csv")).unwrap();
        for theirs in oracle(adapter, "fit.csv") {
            let is_it = |row: &&FitRow| {
                (row.module.as_str(), row.matrix.name(), row.layer.as_str())
                    == (theirs["module"].as_str(), theirs["matrix"].as_str(), FitRow::ALL)
            };
            let ours = fitted.iter().find(is_it).unwrap();
            close(ours.residual, &theirs, "residual");
            close(ours.residual_expected, &theirs, "gaussian_expected");
            same_control(ours.flip_mean, draws, &theirs, "flip");
        }
        assert!(fitted.iter().all(|row| row.flip_p.is_some() && row.flip_sd.is_some()));
    }
}

#[test]
fn b_is_predicted_a_little_and_a_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = fit(data("adapters/trec-seed0"), real_base(), &out, &["--held-out", "--modules", "query", "--json"]).exits(0);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    let (fit_rows, tried) = (json["fit"].as_array().unwrap(), json["heldout"].as_array().unwrap());
    // Better than Gaussian targets, and no better than its own with their signs turned.
    let b = &fit_rows[13];
    assert_eq!((b["matrix"].as_str(), b["layer"].as_str()), (Some("B"), Some("all")));
    assert!(b["p"].as_f64().unwrap() < 0.05 && b["flip_p"].as_f64().unwrap() > 0.5, "{b}");
    assert_eq!(b["flip_answer"], "not_shown_to_be_more");
    assert!(b["verdict"].as_str().unwrap().contains("not shown to be more than its control (p = "), "{b}");
    let row = |matrix: &str, map: &str| {
        let is_it = |row: &&Value| {
            [&row["matrix"], &row["map"], &row["weighting"], &row["layer"]].map(|value| value.as_str().unwrap())
                == [matrix, map, "subspace", "all"]
        };
        tried.iter().find(is_it).unwrap()
    };
    let b = row("B", "W0");
    assert_eq!((b["flip_answer"].as_str(), b["flip_p"].as_f64()), (Some("more"), Some(0.005)), "{b}");
    let words = b["verdict"].as_str().unwrap();
    assert!(words.starts_with(
        "query, B by W0: one Θ from the other 5 layers predicts 4.9 % of a left-out layer's directions; chance 2.1 %"
    ));
    assert!(words.ends_with("(p = 0.005): a little"), "{words}");
    for map in ["W0", "W0^T"] {
        assert_eq!(row("A", map)["flip_answer"], "not_shown_to_be_more");
    }
    let together = b["run_verdict"].as_str().unwrap();
    let without = "query: the other layers' own A, without W0, predict 6.4 % of the directions and 20.1 % of the energy.";
    assert!(
        together.contains(without) && together.contains("1 of 3 predictions is more than the control at p < 0.05"),
        "{together}"
    );
    // The terminal says the same.
    let shown =
        fit(data("adapters/trec-seed0"), real_base(), &out, &["--held-out", "--modules", "query", "--overwrite"]).exits(0);
    for said in [words, without, "query   B       W0    subspace  0.0490"] {
        assert!(shown.stdout.contains(said), "{said:?} in {}", shown.stdout);
    }
}

#[test]
fn a_condlora_is_predicted_in_full() {
    let folder = tempfile::tempdir().unwrap();
    for adapter in ["trec-seed0", "sst2-seed0"] {
        let out = folder.path().join(adapter);
        let run = fit(data("condlora").join(adapter), real_base(), &out, &["--held-out", "--null-draws", "60"]).exits(0);
        let found = predictions(&out);
        let by_its_map = |row: &&HeldOutRow| row.map == HeldOutRow::W0;
        for row in found.iter().filter(by_its_map) {
            let score = row.score.unwrap();
            match row.weighting.as_str() {
                HeldOutRow::SUBSPACE => assert!((score - 1.0).abs() < 1e-10, "{row:?}"),
                _ => assert!((0.8..1.0).contains(&score), "{row:?}"),
            }
        }
        for (module, matrix) in ["query", "value"].into_iter().flat_map(|m| [(m, UpdateMatrix::A), (m, UpdateMatrix::B)]) {
            let row = all(&found, module, matrix, HeldOutRow::W0);
            assert!(row.flip_mean.unwrap() < 0.3 && row.flip_p == Some(1.0 / 61.0) && row.shuffled_p.unwrap() < 0.05, "{row:?}");
            let words = format!("{module}, {matrix} by W0: one Θ from the other 5 layers predicts 100.0 % of");
            assert!(run.stdout.contains(&words), "{}", run.stdout);
        }
        assert_eq!(run.stdout.matches(": more than its control taken by itself").count(), 4, "{}", run.stdout);
    }
}

/// Layers whose targets are made by a Θ each, or all by one, in a share of their squared norm; the rest is Gaussian.
struct Planted {
    shape: (usize, usize),
    layers: usize,
    rank: usize,
    share: f64,
    one_theta: bool,
}

impl Planted {
    fn layers(&self, seed: u64) -> Vec<Layer> {
        let (d_out, d_in) = self.shape;
        let target = |w: &Array2<f64>, name: &str, l: usize| {
            let theta = if self.one_theta { format!("{name} theta") } else { format!("{name} theta {l}") };
            let made = w.dot(&gaussian(seed, &theta, w.ncols(), self.rank));
            let noise = gaussian(seed, &format!("{name} noise {l}"), w.nrows(), self.rank);
            let of_norm = |m: &Array2<f64>, share: f64| m * (share.sqrt() / m.iter().map(|v| v * v).sum::<f64>().sqrt());
            // LoRA's basis is arbitrary.
            let turn = gaussian(seed, &format!("{name} turn {l}"), self.rank, self.rank);
            (of_norm(&made, self.share) + of_norm(&noise, 1.0 - self.share)).dot(&turn)
        };
        (0..self.layers)
            .map(|l| {
                let w0 = conditioned(seed, &format!("w0 {l}"), d_out, d_in, 30.0);
                let of_a = if d_out == d_in { target(&w0, "a", l) } else { target(&w0.t().to_owned(), "a", l) };
                let (a, b) = (of_a.reversed_axes().as_standard_layout().to_owned(), target(&w0, "b", l));
                Layer { path: format!("model.layers.{l}.self_attn.q_proj"), w0, a, b }
            })
            .collect()
    }

    /// What `fit --delta --held-out` says.
    fn answers(&self, seed: u64) -> Answers {
        let folder = tempfile::tempdir().unwrap();
        write_both(folder.path(), &self.layers(seed), PLAIN);
        let mut params = FitParams::new(folder.path().join("adapter"));
        params.base = Some(folder.path().join("base"));
        (params.delta, params.held_out, params.null_draws, params.seed) = (true, true, NullDraws::Auto, seed);
        let prepared = prepare_fit(params.check().unwrap()).unwrap();
        let fit = prepared.run().unwrap();
        let of_fit = StrictVerdict::of_fit(&fit.rows, prepared.most_draws(), None);
        let fitted = fit.rows.iter().zip(&of_fit.rows).filter(|(_, answer)| answer.flip == Answer::More);
        let rows = fit.held_out.unwrap();
        let of_rows = StrictVerdict::of_held_out(&rows, prepared.most_draws(), None);
        let predicted = rows.iter().zip(&of_rows.rows).filter(|(_, answer)| answer.flip == Answer::More);
        let is_beyond_gaussian = |row: &&FitRow| row.layer == FitRow::ALL && row.p.unwrap() < 0.05;
        Answers {
            fitted: fitted.map(|(row, _)| row.matrix.to_string()).collect(),
            predicted: predicted.map(|(row, _)| format!("{} by {}", row.matrix, row.map)).collect(),
            beyond_gaussian: fit.rows.iter().filter(is_beyond_gaussian).count(),
        }
    }
}

/// What is said to be more than its control.
struct Answers {
    /// In `fit.csv`.
    fitted: Vec<String>,
    /// In `heldout.csv`.
    predicted: Vec<String>,
    /// How many fits Gaussian targets would have called better than chance.
    beyond_gaussian: usize,
}

/// A Θ of its own in every layer is no shared one, however much of the targets it makes. Each table is wrong about one adapter in twenty at most: that is
/// the level of its tests together.
#[test]
fn layers_with_a_theta_each_are_not_said_to_share_one() {
    let (mut runs, mut wrong, mut beyond_gaussian) = (0_u32, [0_u32; 2], 0);
    for (shape, shares) in [((14, 14), &[0.1, 0.5, 1.0][..]), ((12, 18), &[1.0])] {
        for &share in shares {
            let planted = Planted { shape, layers: 4, rank: 2, share, one_theta: false };
            let answers: Vec<Answers> = (0..20).map(|seed| planted.answers(seed)).collect();
            let claimed =
                |of: fn(&Answers) -> &Vec<String>| answers.iter().map(of).filter(|claims| !claims.is_empty()).count() as u32;
            let here = [claimed(|answers| &answers.fitted), claimed(|answers| &answers.predicted)];
            println!("{shape:?}, share {share}: {here:?} of 20 adapters");
            runs += 20;
            wrong = [wrong[0] + here[0], wrong[1] + here[1]];
            beyond_gaussian += answers.iter().filter(|answers| answers.beyond_gaussian > 0).count();
        }
    }
    // Three standard errors above the level.
    let expected = 0.05 * f64::from(runs);
    let most = expected + 3.0 * (0.95 * expected).sqrt();
    assert!(wrong.into_iter().all(|wrong| f64::from(wrong) <= most), "{wrong:?} of {runs}");
    // Of Gaussian targets the same is said in most runs.
    assert!(beyond_gaussian as u32 > runs / 2, "{beyond_gaussian} of {runs}");
}

/// One Θ for all layers is found, also where it makes only a part of the targets.
#[test]
fn a_shared_theta_is_said_to_be_shared() {
    for (shape, share) in [((24, 24), 1.0), ((24, 24), 0.6), ((12, 18), 1.0)] {
        let planted = Planted { shape, layers: 5, rank: 2, share, one_theta: true };
        for seed in 0..3 {
            let Answers { predicted, .. } = planted.answers(seed);
            let map = if shape.0 == shape.1 { "A by W0" } else { "A by W0^T" };
            for wanted in [map, "B by W0"] {
                assert!(predicted.iter().any(|claim| claim == wanted), "{shape:?}, share {share}, seed {seed}: {predicted:?}");
            }
        }
    }
}

#[test]
fn one_layer_and_layers_without_an_update_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(4, 12, 1);
    layers[2].b.fill(0.0);
    write_both(root, &layers, PLAIN);
    let out = root.join("out");
    // A rank of 1, a layer that was not trained, and layers of the base that have no adapter.
    fit(root.join("adapter"), root.join("base"), &out, &["--held-out", "--layers", "0,2..3"]).exits(0);
    let found = predictions(&out);
    assert_eq!(found.len(), 3 * 2 * 4);
    for rows in found.chunks(4) {
        let layers: Vec<&str> = rows.iter().map(|row| row.layer.as_str()).collect();
        assert_eq!(layers, ["0", "2", "3", "all"]);
        let statuses: Vec<Status> = rows.iter().map(|row| row.status).collect();
        assert_eq!(statuses, [Status::Ok, Status::Zero, Status::Ok, Status::Zero]);
        assert!(rows[1].score.is_none() && rows[3].score.is_some() && rows[3].flip_p.is_some());
        assert_eq!(rows[0].chance, Some(1.0 / 12.0));
    }
    let alone = fit(root.join("adapter"), root.join("base"), &out, &["--held-out", "--layers", "1", "--overwrite"]).exits(0);
    for row in predictions(&out) {
        assert_eq!(
            (row.score, row.without_w0, row.flip_p, row.shuffled_p, row.status),
            (None, None, None, None, Status::Skipped)
        );
    }
    assert!(alone.stdout.contains("q_proj: one layer alone, and no other to predict its A from."), "{}", alone.stdout);
    let untrained =
        fit(data("init/trec-seed0"), real_base(), &out, &["--held-out", "--modules", "query", "--overwrite"]).exits(0);
    assert!(predictions(&out).iter().all(|row| row.score.is_none() && row.status == Status::Zero));
    assert!(untrained.stdout.contains("query: no update, and so no B."), "{}", untrained.stdout);
}

#[test]
fn shapes_have_their_maps_and_threads_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let of =
        |name: &'static str, d_out, d_in| (0..3).map(move |l| Layer::new(&format!("model.layers.{l}.{name}"), d_out, d_in, 2));
    let layers: Vec<Layer> =
        of("self_attn.q_proj", 14, 14).chain(of("mlp.up_proj", 20, 14)).chain(of("mlp.down_proj", 14, 20)).collect();
    write_both(root, &layers, PLAIN);
    let run = |threads: &str| {
        let out = root.join(threads);
        fit(root.join("adapter"), root.join("base"), &out, &["--held-out", "--delta", "--threads", threads]).exits(0);
        let mut all = files(&out);
        all.remove("manifest.json");
        (all, predictions(&out))
    };
    let ((one, found), (four, _)) = (run("1"), run("4"));
    assert!(one == four, "threads changed a byte");
    let maps = |module: &str| {
        let rows = found
            .iter()
            .filter(|row| row.module == module && row.layer == HeldOutRow::ALL && row.weighting == HeldOutRow::SUBSPACE);
        rows.map(|row| (format!("{} by {}", row.matrix, row.map), row.chance.unwrap())).collect::<Vec<_>>()
    };
    let named = |all: &[(&str, f64)]| all.iter().map(|(name, length)| ((*name).to_owned(), 2.0 / length)).collect::<Vec<_>>();
    assert_eq!(maps("q_proj"), named(&[("A by W0", 14.0), ("A by W0^T", 14.0), ("B by W0", 14.0)]));
    assert_eq!(maps("up_proj"), named(&[("A by W0^T", 14.0), ("B by W0", 20.0)]));
    assert_eq!(maps("down_proj"), named(&[("A by W0^T", 20.0), ("B by W0", 14.0)]));
    // The draws of one module do not depend on which others there are.
    let out = root.join("alone");
    fit(root.join("adapter"), root.join("base"), &out, &["--held-out", "--modules", "up_proj", "--null-draws", "30"]).exits(0);
    let both = root.join("both");
    fit(root.join("adapter"), root.join("base"), &both, &["--held-out", "--modules", "up_proj,q_proj", "--null-draws", "30"])
        .exits(0);
    let of_up = |out: &Path| predictions(out).into_iter().filter(|row| row.module == "up_proj").collect::<Vec<_>>();
    assert_eq!(of_up(&out), of_up(&both));
}

#[test]
fn without_the_strict_control_it_is_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_both(root, &square_layers(3, 12, 2), PLAIN);
    let out = root.join("out");
    let run = fit(root.join("adapter"), root.join("base"), &out, &["--held-out", "--no-svd"]).exits(0);
    assert!(run.stdout.contains("The strict control is missing: nothing is said of whether layers share a Θ."), "{}", run.stdout);
    assert!(!run.stderr.contains("--strict-control"), "{}", run.stderr);
    let found = predictions(&out);
    assert!(found.iter().all(|row| row.flip_p.is_none() && row.flip_mean.is_none()));
    assert!(found.iter().filter(|row| row.layer == HeldOutRow::ALL).all(|row| row.shuffled_p.is_some() && row.score.is_some()));
    // A wider weight is not decomposed unless it is asked for.
    let wide = root.join("wide");
    let layers: Vec<Layer> = (0..2)
        .map(|l| {
            let small = Layer::new(&format!("model.layers.{l}.self_attn.q_proj"), 32, 32, 2);
            let mut w0 = Array2::eye(1040);
            w0.slice_mut(s![..32, ..32]).assign(&small.w0);
            let (mut a, mut b) = (gaussian(4, &format!("a{l}"), 2, 1040), gaussian(5, &format!("b{l}"), 1040, 2));
            a.slice_mut(s![.., ..32]).assign(&small.a);
            b.slice_mut(s![..32, ..]).assign(&small.b);
            Layer { w0, a, b, ..small }
        })
        .collect();
    write_base(&wide.join("base"), &layers, PLAIN);
    write_adapter(&wide.join("adapter"), &layers, PLAIN, &[]);
    let missing = "the strict control is missing for `q_proj`: W0 was not decomposed; --strict-control asks for it, which takes about 1 min on one core";
    let run = fit(wide.join("adapter"), wide.join("base"), &out, &["--json", "--overwrite", "--null-draws", "2"])
        .exits(0)
        .says(missing);
    let json: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let said = json[0]["run_verdict"].as_str().unwrap();
    assert!(said.contains(&missing[1..]) && said.ends_with("without it nothing is said of whether layers share a Θ."), "{said}");
    assert!(json.iter().all(|row| row["flip_answer"].is_null() && row["flip_p"].is_null()));
    let both = fit(wide.join("adapter"), wide.join("base"), &out, &["--no-svd", "--strict-control"]).exits(2);
    both.says("cannot be used with");
}
