//! Cuts of Θ and the strict control: compared with the float64 oracle on the real adapters, and with planted maps of which the answer is known.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::Path;

use condlora::controls::{DrawPlan, Factor};
use condlora::conversion::Equation;
use condlora::linalg::weight_basis::WeightBasis;
use condlora::relation::{BaseLayer, Cut, CutStudy, DrawnImages, ModuleName, RelatedLayer};
use condlora::table::csv::read_rows;
use condlora::table::{CutRow, EnergyRow, SubspaceRow};
use condlora::terms::{MatrixKind, Status};
use ndarray::Array2;
use serde_json::Value;
use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base, write_condlora};
use shared::program::{Run, analyze, data, real_base, run_in, tables};
use shared::tolerance::{conditioned, gaussian};

const ADAPTERS: [&str; 3] = ["sst2-seed0", "sst2-seed1", "trec-seed0"];

type OracleRow = BTreeMap<String, String>;

/// The rows of one of the oracle's tables.
fn oracle(adapter: &str, table: &str) -> Vec<OracleRow> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expected").join(adapter).join(table);
    csv::Reader::from_path(path).unwrap().deserialize().map(|row| row.unwrap()).collect()
}

#[track_caller]
fn close(found: Option<f64>, row: &OracleRow, column: &str) {
    let expected: f64 = row[column].parse().unwrap();
    let found = found.unwrap();
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{column}: {found} and not {expected} in {row:?}");
}

/// Insists that a control's mean is the oracle's, whose 200 draws are others.
#[track_caller]
fn same_control(mean: Option<f64>, draws: f64, row: &OracleRow, control: &str) {
    let number = |part: &str| -> f64 { row[&format!("{control}_{part}")].parse().unwrap() };
    let allowed = 4.0 * number("sd") * (1.0 / 200.0 + 1.0 / draws).sqrt();
    assert!((mean.unwrap() - number("mean")).abs() <= allowed, "{control}: {mean:?} in {row:?}");
}

#[test]
fn cuts_energies_and_subspaces_are_those_of_the_oracle() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut command = analyze([data("adapters")]);
    command.arg("--base").arg(real_base()).args(["--cuts", "--null-draws", "20", "--figures", "none", "-o"]).arg(&out);
    Run::of(command.output().unwrap()).exits(0);
    let cuts: Vec<CutRow> = read_rows(&out.join("cuts.csv")).unwrap();
    let energy: Vec<EnergyRow> = read_rows(&out.join("energy.csv")).unwrap();
    let mut compared = 0;
    for adapter in ADAPTERS {
        for expected in oracle(adapter, "cut.csv") {
            let cut = expected["rcond"].parse().map_or(expected["rcond"].clone(), |share: f64| share.to_string());
            let is_it = |row: &&CutRow| {
                (row.adapter.as_str(), &row.module, row.matrix.name(), &row.cut)
                    == (adapter, &expected["module"], &expected["matrix"], &cut)
            };
            let Some(row) = cuts.iter().find(is_it) else { continue };
            close(row.phi_mean, &expected, "phi");
            close(row.gaussian_kept, &expected, "gaussian_kept");
            close(row.shuffled_p, &expected, "shuffled_p");
            same_control(row.w0_mean, 20.0, &expected, "w0");
            same_control(row.flip_mean, 20.0, &expected, "flip");
            assert_eq!((row.status, row.flip_draws, row.layers), (Status::Ok, Some(20), 6));
            compared += 1;
        }
        for expected in oracle(adapter, "energy.csv") {
            let is_it = |row: &&EnergyRow| {
                (row.adapter.as_str(), &row.module, row.matrix.name()) == (adapter, &expected["module"], &expected["matrix"])
                    && (row.layer.as_ref().unwrap().to_string(), row.k.to_string())
                        == (expected["layer"].clone(), expected["k"].clone())
            };
            let Some(row) = energy.iter().find(is_it) else { continue };
            close(row.theta_share, &expected, "theta_share");
            close(row.gaussian_share, &expected, "gaussian_share");
            close(row.target_share, &expected, "target_share");
            close(row.participation, &expected, "participation");
            compared += 1;
        }
    }
    // 8 cuts and 8 numbers of directions in 6 layers, of A and B in two modules of each adapter.
    assert_eq!(compared, 3 * (8 * 4 + 8 * 6 * 4));
    let subspaces: Vec<SubspaceRow> = read_rows(&out.join("subspaces.csv")).unwrap();
    let expected = oracle("trec-seed0", "subspaces.csv");
    assert_eq!(subspaces.len(), expected.len());
    for (row, expected) in subspaces.iter().zip(&expected) {
        let place = [row.module.as_str(), row.side.name(), row.end.as_str(), &row.k.to_string()].map(str::to_owned);
        assert_eq!(place, ["module", "side", "end", "k"].map(|column| expected[column].clone()));
        close(row.phi_mean, expected, "phi_mean");
        close(row.chance, expected, "chance");
    }
    // All cuts as one: something of B is shared in both modules of every adapter, and nothing of A at the level that Holm asks for.
    let all = |matrix: MatrixKind| cuts.iter().filter(move |row| row.cut == CutRow::ALL && row.matrix == matrix);
    assert!(all(MatrixKind::B).all(|row| row.flip_p.unwrap() < 0.05) && all(MatrixKind::B).count() == 6);
}

#[test]
fn the_answer_leads_with_the_question_of_a_shared_map() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let mut command = analyze([data("adapters/trec-seed0")]);
        command.arg("--base").arg(real_base()).args(["--figures", "none", "--overwrite", "--json", "-q", "-o"]);
        let out = command.arg(folder.path().join("out")).args(more).output().unwrap();
        let rows: Vec<Value> = serde_json::from_str(&Run::of(out).exits(0).stdout).unwrap();
        rows
    };
    let rows = run(&[]);
    let answers = |rows: &[Value]| -> Vec<Value> { rows.iter().map(|row| row["shared_answer"].clone()).collect() };
    let (not, shared) = ("not_shown_to_be_shared", "shared");
    assert_eq!(answers(&rows), [not.into(), shared.into(), Value::Null, not.into(), shared.into(), Value::Null]);
    let text = rows[0]["run_verdict"].as_str().unwrap();
    assert!(
        text.starts_with("The layers share something of a linear map from W0 to B (in 2 of 2); for A none is shown."),
        "{text}"
    );
    assert!(text.contains("query: φ of B through W0 is 0.069, with signs turned at random 0.04"), "{text}");
    // Without the strict control nothing is said of it.
    let rows = run(&["--no-svd"]);
    let text = rows[0]["run_verdict"].as_str().unwrap();
    assert!(text.contains("the strict control is missing") && !text.contains("share something"), "{text}");
    assert_eq!(answers(&rows)[1], "above_w0_control");
    let rows = run(&["--null-draws", "5"]);
    assert!(rows[0]["run_verdict"].as_str().unwrap().starts_with("5 draws cannot tell whether the layers share a linear map"));
}

#[test]
fn similarity_alone_is_the_same_similarity() {
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str, more: &[&str]| {
        let mut command = analyze([data("adapters/trec-seed0")]);
        command.arg("--base").arg(real_base()).arg("-o").arg(folder.path().join(out));
        Run::of(command.args(more).args(["--figures", "none"]).output().unwrap())
    };
    let missing = |run: Run| run.exits(0).stdout.contains("strict control is missing");
    assert!(missing(run("all", &["--no-svd"])) && !missing(run("alone", &["--similarity-only"])));
    let (all, alone) = (tables(&folder.path().join("all")), tables(&folder.path().join("alone")));
    let of_updates = ["alignment.csv", "cuts.csv", "relation.csv", "updates.csv"];
    assert!(alone.keys().eq(all.keys().filter(|name| !of_updates.contains(&name.as_str()))));
    for (name, bytes) in &alone {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let without_updates: Vec<String> =
            text(&all[name]).lines().filter(|line| !line.contains(",delta,")).map(str::to_owned).collect();
        assert_eq!(text(bytes).lines().collect::<Vec<_>>(), without_updates, "{name}");
    }
    for (option, named) in [("--cuts", "--cuts"), ("--intruders", "--intruders"), ("--strict-control", "--strict-control")] {
        run("refused", &["--similarity-only", option]).exits(2).says(named);
    }
    assert!(!folder.path().join("refused").exists());
}

#[test]
fn a_condlora_shares_its_map() {
    let (root, layers) = (tempfile::tempdir().unwrap(), square_layers(5, 48, 3));
    write_base(&root.path().join("base"), &layers, PLAIN);
    let (theta_a, theta_b) = (gaussian(4, "theta a", 48, 3), gaussian(4, "theta b", 48, 3));
    write_condlora(&root.path().join("adapter"), &[("q_proj", &theta_a, &theta_b)], "F64", &[]);
    run_in(root.path(), &["adapter", "--base", "base", "--cuts=0", "--figures", "none", "-o", "out"]).exits(0);
    let cuts: Vec<CutRow> = read_rows(&root.path().join("out/cuts.csv")).unwrap();
    for row in &cuts {
        if row.cut == "0" {
            assert!((row.phi_mean.unwrap() - 1.0).abs() < 1e-10, "{row:?}");
        }
        assert!(row.flip_p.unwrap() < 0.01 && row.flip_draws == Some(199), "{row:?}");
    }
    assert_eq!(cuts.len(), 6);
}

/// Five weights of this condition with unlike singular vectors, and their bases.
fn weights_of(condition: f64) -> (Vec<Array2<f64>>, Vec<WeightBasis>) {
    let weights: Vec<Array2<f64>> = (0..5).map(|l| conditioned(5, &format!("w{l}"), 64, 64, condition)).collect();
    let bases = weights.iter().map(|w0| WeightBasis::by_eigenvectors(w0.view()).unwrap()).collect();
    (weights, bases)
}

/// p of the adjoint of targets through these weights.
fn p_of_adjoint(weights: &[Array2<f64>], decomposed: &[WeightBasis], targets: &[Array2<f64>], seed: u64) -> f64 {
    let streams: Vec<String> = (0..weights.len()).map(|l| format!("layer {l}")).collect();
    let drawn = DrawnImages::default();
    let base = |l: usize| BaseLayer { shape: weights[l].dim(), basis: Some(&decomposed[l]), drawn: &drawn, stream: &streams[l] };
    let bases: Vec<BaseLayer<'_>> = (0..weights.len()).map(base).collect();
    let layer = |l: usize| RelatedLayer {
        number: Some((l as u32).into()),
        base: &bases[l],
        a_transposed: targets[l].view(),
        b: targets[l].view(),
        scaling: 1.0,
        equation_a: Equation::W0,
        images: None,
    };
    let layers: Vec<RelatedLayer<'_>> = (0..weights.len()).map(layer).collect();
    let rank = targets[0].ncols();
    let study = CutStudy {
        cuts: &[Cut::Adjoint],
        ij: &[(rank, rank)],
        seed,
        plan: DrawPlan::sequential(2),
        together: 0,
        shuffled: false,
    };
    let rows = study.rows(ModuleName { adapter: "a", module: "m" }, Factor::B, &layers, &[]).unwrap();
    rows[0].flip_p.unwrap()
}

/// Targets of which a Θ makes the stated share of the norm, and noise the rest.
fn planted(weights: &[Array2<f64>], share: f64, seed: u64, theta: impl Fn(usize) -> Array2<f64>) -> Vec<Array2<f64>> {
    let unit = |matrix: Array2<f64>| {
        let norm = matrix.iter().map(|v| v * v).sum::<f64>().sqrt();
        matrix / norm
    };
    let one = |(l, w0): (usize, &Array2<f64>)| {
        let theta = theta(l);
        let (n, rank) = theta.dim();
        // LoRA's basis is arbitrary, and so is each layer's here.
        let turned = w0.dot(&theta).dot(&gaussian(seed, &format!("turn {l}"), rank, rank));
        unit(turned) * share.sqrt() + unit(gaussian(seed, &format!("noise {l}"), n, rank)) * (1.0 - share).sqrt()
    };
    weights.iter().enumerate().map(one).collect()
}

#[test]
fn a_map_of_each_layers_own_is_not_taken_for_a_shared_one() {
    // Signs are exchangeable here, so that p has exactly its level: of 120 tests 3 are expected below it, and 9 or more in 1 of 250 such samples.
    let mut wrong = 0;
    for (condition, share) in [3.0, 1e3].into_iter().flat_map(|condition| [0.1, 0.5, 1.0].map(|share| (condition, share))) {
        let (weights, decomposed) = weights_of(condition);
        let shared = |seed: &u64| {
            let own = |l: usize| gaussian(*seed, &format!("theta {l}"), 64, 4);
            // As one of two tests of an adapter.
            p_of_adjoint(&weights, &decomposed, &planted(&weights, share, *seed, own), *seed) < 0.025
        };
        wrong += (0..20).filter(shared).count();
    }
    assert!(wrong <= 8, "{wrong} of 120");
}

#[test]
fn a_shared_map_is_found_once_it_makes_a_part_of_every_target() {
    // The energy of a target that W0 makes lies in W0's large directions, the more so the larger its condition is: signs keep it there, and the test sees less.
    let (weights, decomposed) = weights_of(3.0);
    for (share, least) in [(0.3, 15), (0.5, 20), (1.0, 20)] {
        let found = |seed: &u64| {
            let shared = |_| gaussian(*seed, "theta", 64, 4);
            p_of_adjoint(&weights, &decomposed, &planted(&weights, share, *seed, shared), *seed) < 0.025
        };
        let found = (0..20).filter(found).count();
        assert!(found >= least, "{share}: {found} of 20");
    }
}

#[test]
fn whatever_cannot_be_compared_says_so() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let mut layers: Vec<Layer> = (0..3).map(|l| Layer::new(&format!("model.layers.{l}.mlp.up_proj"), 30, 20, 3)).collect();
    layers.extend((0..3).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.q_proj"), 20, 20, 3)));
    layers.push(Layer::new("model.layers.1.self_attn.o_proj", 20, 20, 1));
    layers.push(Layer::new("lm_head", 24, 20, 2));
    // No B in one layer of q_proj, and fewer directions in another.
    layers[3].b.fill(0.0);
    let copy = layers[4].b.column(0).to_owned();
    layers[4].b.column_mut(1).assign(&copy);
    write_base(&path.join("base"), &layers, PLAIN);
    write_adapter(&path.join("adapter"), &layers, PLAIN, &[]);
    let cuts_with = |more: &[&str]| -> Vec<CutRow> {
        let arguments = ["adapter", "--base", "base", "--figures", "none", "-o", "out", "--overwrite"];
        run_in(path, &[&arguments[..], more].concat()).exits(0);
        read_rows(&path.join("out/cuts.csv")).unwrap()
    };
    let cuts = cuts_with(&["--cuts=0,0.5,0.99,adjoint"]);
    let of = |module: &str, matrix: MatrixKind, cut: &str| {
        cuts.iter().find(|row| (row.module.as_str(), row.matrix, row.cut.as_str()) == (module, matrix, cut)).unwrap().clone()
    };
    for matrix in [MatrixKind::A, MatrixKind::B] {
        for cut in ["0", "0.5", "adjoint"] {
            let row = of("up_proj", matrix, cut);
            assert!(
                row.status == Status::Ok && row.phi_mean.is_some() && row.flip_p.is_some() && row.shuffled_p.is_some(),
                "{row:?}"
            );
        }
        // Fewer directions are left than there are to compare.
        let row = of("up_proj", matrix, "0.99");
        assert_eq!((row.status, row.phi_mean, row.flip_p), (Status::Rank, None, None));
        let row = of("o_proj", matrix, "adjoint");
        assert_eq!((row.phi_mean, row.flip_p, row.layers), (None, None, 1));
        assert_eq!(of("lm_head", matrix, "adjoint").status, Status::Skipped);
    }
    let row = of("q_proj", MatrixKind::B, "adjoint");
    assert_eq!((row.status, row.phi_mean, row.layers), (Status::Zero, None, 1));
    assert_eq!(of("q_proj", MatrixKind::A, "adjoint").status, Status::Ok);
    // Without a decomposition there is the adjoint, with the same φ.
    let without = cuts_with(&["--no-svd"]);
    assert!(without.iter().all(|row| row.flip_p.is_none() && row.cut == "adjoint"), "{without:?}");
    for row in without.iter().filter(|row| row.phi_mean.is_some()) {
        let with = of(&row.module, row.matrix, "adjoint");
        assert!((row.phi_mean.unwrap() - with.phi_mean.unwrap()).abs() < 1e-12, "{row:?}");
        assert!(row.w0_p.is_some() && row.shuffled_p.is_none() && with.shuffled_p.is_some());
    }
}
