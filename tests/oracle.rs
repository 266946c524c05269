//! The real checkpoints compared with a float64 oracle that uses only NumPy and SciPy.
//!
//! `tests/data/expected/NAME/` holds its results for each adapter in `notebooks-data/`: every φ, the singular values of
//! every conversion matrix, condition numbers, residuals, and the averages of its own controls (20 draws each).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use condlora::conversion::{Equation, Target, Workspace, solve_theta};
use condlora::linalg::UNIT_ROUNDOFF;
use condlora::table::csv::read_rows;
use condlora::table::{CompareRow, ConversionRow, SimilarityRow, SpectrumRow, SummaryRow};
use condlora::terms::{MatrixKind, Method, Side, Status, UpdateMatrix};
use ndarray::{Array2, Axis};
use ndarray_linalg::Inverse;
use shared::checkpoint::read_matrix;
use shared::direct::thin_svd;
use shared::program::{Run, analyze, data, program, real_base};

const ADAPTERS: [&str; 3] = ["sst2-seed0", "sst2-seed1", "trec-seed0"];
const MODULES: [(&str, &str); 2] = [("query", "q"), ("value", "v")];
const LAYERS: u32 = 6;
const N: usize = 384;
const DRAWS: f64 = 20.0;

fn expected(adapter: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expected").join(adapter).join(file)
}

/// The rows of one of the oracle's tables, by column.
fn expected_rows(adapter: &str, file: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(expected(adapter, file)).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

/// A number of the oracle's `summary.json`.
fn expected_summary(adapter: &str) -> impl Fn(&str, &str) -> f64 + use<> {
    let text = std::fs::read(expected(adapter, "summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&text).unwrap();
    move |module, name| summary[module][name].as_f64().unwrap_or_else(|| panic!("{module} {name} is missing"))
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap()
}

/// One run of the program on all adapters, for all tests.
struct Results {
    similarity: Vec<SimilarityRow>,
    summary: Vec<SummaryRow>,
    spectrum: Vec<SpectrumRow>,
    conversion: Vec<ConversionRow>,
}

fn results() -> &'static Results {
    static RESULTS: OnceLock<Results> = OnceLock::new();
    RESULTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut command = analyze([data("adapters")]);
        command.arg("--base").arg(real_base()).arg("--init").arg(data("init")).arg("-o").arg(&out);
        command.args(["--matrices", "A,B,BA,lora_A,lora_B", "--side", "both", "--figures", "none"]);
        for ij in ["8,8", "4,8", "4,4", "2,2", "1,1"] {
            command.args(["--ij", ij]);
        }
        Run::of(command.output().unwrap()).exits(0);
        Results {
            similarity: read_rows(&out.join("similarity.csv")).unwrap(),
            summary: read_rows(&out.join("summary.csv")).unwrap(),
            spectrum: read_rows(&out.join("spectrum.csv")).unwrap(),
            conversion: read_rows(&out.join("conversion.csv")).unwrap(),
        }
    })
}

fn summary_of(adapter: &str, module: &str, matrix: MatrixKind, side: Side, (i, j): (usize, usize)) -> &'static SummaryRow {
    let wanted = |r: &&SummaryRow| {
        r.adapter == adapter && r.module == module && r.matrix == matrix && r.side == side && (r.i, r.j) == (i, j)
    };
    let found: Vec<_> = results().summary.iter().filter(wanted).collect();
    assert_eq!(found.len(), 1, "{adapter} {module} {matrix} {side} {i},{j}");
    found[0]
}

#[test]
fn every_phi_is_the_oracles() {
    type Cell = (String, String, MatrixKind, Side, usize, usize, u32, u32);
    let ours: BTreeMap<Cell, &SimilarityRow> = results()
        .similarity
        .iter()
        .map(|r| {
            (
                (
                    r.adapter.clone(),
                    r.module.clone(),
                    r.matrix,
                    r.side,
                    r.i,
                    r.j,
                    r.layer_a.index().unwrap(),
                    r.layer_b.index().unwrap(),
                ),
                r,
            )
        })
        .collect();
    assert_eq!(ours.len(), results().similarity.len(), "a cell is there twice");
    let mut compared = 0;
    for adapter in ADAPTERS {
        for row in expected_rows(adapter, "phi.csv") {
            let cell = (
                adapter.to_owned(),
                row["module"].clone(),
                row["matrix"].parse().unwrap(),
                row["side"].parse().unwrap(),
                row["i"].parse().unwrap(),
                row["j"].parse().unwrap(),
                row["layer_a"].parse().unwrap(),
                row["layer_b"].parse().unwrap(),
            );
            let found = ours.get(&cell).unwrap_or_else(|| panic!("{cell:?} is missing"));
            let difference = (found.phi.unwrap() - number(&row, "phi")).abs();
            assert!(difference <= 1e-10, "{cell:?} is off by {difference:e}");
            assert!(difference <= found.phi_error_bound.unwrap(), "{cell:?} is off by {difference:e}, more than its bound");
            assert_eq!(found.status, Status::Ok, "{cell:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 6480);
    assert_eq!(results().similarity.iter().filter(|r| !r.matrix.is_factor()).count(), compared);
}

#[test]
fn condlora_is_the_oracles_and_its_theta_is_found_in_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut command = analyze([data("condlora")]);
    command.arg("--base").arg(real_base()).arg("-o").arg(&out);
    command.args(["--side", "both", "--figures", "none", "--null-draws", "0"]);
    for ij in ["8,8", "4,8", "4,4", "2,2", "1,1"] {
        command.args(["--ij", ij]);
    }
    Run::of(command.output().unwrap()).exits(0);
    let rows: Vec<SimilarityRow> = read_rows(&out.join("similarity.csv")).unwrap();
    let mut compared = 0;
    for adapter in ["sst2-seed0", "trec-seed0"] {
        for expected in expected_rows(&format!("condlora-{adapter}"), "phi.csv") {
            let text = |column: &str| expected[column].clone();
            let is_cell = |r: &&SimilarityRow| {
                (r.adapter.as_str(), &r.module, r.matrix.name(), r.side.name())
                    == (adapter, &text("module"), &text("matrix"), &text("side"))
                    && [r.i, r.j, r.layer_a.index().unwrap() as usize, r.layer_b.index().unwrap() as usize]
                        == ["i", "j", "layer_a", "layer_b"].map(|column| text(column).parse::<usize>().unwrap())
            };
            let found = rows.iter().find(is_cell).unwrap_or_else(|| panic!("{expected:?} is missing"));
            let difference = (found.phi.unwrap() - number(&expected, "phi")).abs();
            assert!(difference <= 1e-10 && difference <= found.phi_error_bound.unwrap(), "{expected:?} is off by {difference:e}");
            compared += 1;
        }
    }
    assert_eq!((compared, rows.len()), (4320, 4320));
    // All layers share one Θ, and solving through each W0 gives it back.
    let of_theta: Vec<&SimilarityRow> =
        rows.iter().filter(|r| matches!(r.matrix, MatrixKind::A | MatrixKind::B) && r.i == r.j).collect();
    assert_eq!(of_theta.len(), 2 * 2 * 2 * 2 * 4 * 36);
    for row in of_theta {
        assert!((row.phi.unwrap() - 1.0).abs() <= 1e-10, "{row:?}");
    }
    let conversion: Vec<ConversionRow> = read_rows(&out.join("conversion.csv")).unwrap();
    assert_eq!(conversion.len(), 2 * 2 * 6);
    for row in conversion {
        assert_eq!((row.adapter_key, row.rank, row.scaling), (row.module, 8, 1.0));
        assert_eq!((row.adapter_dtype.as_str(), row.status), ("F32", Status::Ok));
    }
}

#[test]
fn lora_against_condlora_is_the_oracles() {
    let mut compared = 0;
    for (adapter, condlora) in [("trec-seed0", "trec-seed0"), ("sst2-seed0", "sst2-seed0"), ("sst2-seed1", "sst2-seed0")] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut command = program();
        command.arg("compare").arg(data("adapters").join(adapter)).arg(data("condlora").join(condlora));
        command.arg("--base").arg(real_base()).arg("-o").arg(&out);
        command.args(["--figures", "none", "--null-draws", "0", "--ij", "8,8", "--ij", "4,4", "--ij", "1,1"]);
        Run::of(command.output().unwrap()).exits(0);
        let rows: Vec<CompareRow> = read_rows(&out.join("compare.csv")).unwrap();
        assert_eq!(rows.len(), 2 * 6 * 3 * 3);
        for expected in expected_rows(adapter, "lora_vs_condlora.csv") {
            let (layer, size): (u32, usize) = (expected["layer"].parse().unwrap(), expected["i=j"].parse().unwrap());
            for (matrix, column) in
                [(UpdateMatrix::A, "phi_A_right"), (UpdateMatrix::B, "phi_B_left"), (UpdateMatrix::Delta, "phi_delta_left")]
            {
                let is_cell = |r: &&CompareRow| {
                    (r.layer.clone(), r.matrix, &r.module, r.i, r.j)
                        == (Some(layer.into()), matrix, &expected["module"], size, size)
                };
                let found = rows.iter().find(is_cell).unwrap_or_else(|| panic!("{expected:?} is missing"));
                let difference = (found.phi.unwrap() - number(&expected, column)).abs();
                assert!(difference <= 1e-10, "{adapter} {expected:?} {matrix} is off by {difference:e}");
                let chance = found.gaussian_expected.unwrap() - number(&expected, "random_expected");
                assert!(chance.abs() < 1e-15 && found.status == Status::Ok);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 3 * 36 * 3);
}

#[test]
fn averages_are_those_of_the_oracles_cells() {
    let mut compared = 0;
    for adapter in ADAPTERS {
        let mut grids: BTreeMap<(String, MatrixKind, Side, usize, usize), Vec<f64>> = BTreeMap::new();
        for row in expected_rows(adapter, "phi.csv").iter().filter(|r| number(r, "layer_a") < number(r, "layer_b")) {
            let (matrix, side) = (row["matrix"].parse().unwrap(), row["side"].parse().unwrap());
            let key = (row["module"].clone(), matrix, side, row["i"].parse().unwrap(), row["j"].parse().unwrap());
            grids.entry(key).or_default().push(number(row, "phi"));
        }
        for ((module, matrix, side, i, j), cells) in grids {
            let row = summary_of(adapter, &module, matrix, side, (i, j));
            assert_eq!((row.layers, row.status), (6, Status::Ok));
            let close = |ours: Option<f64>, theirs: f64| {
                assert!((ours.unwrap() - theirs).abs() <= 1e-10, "{module} {matrix} {side} {i},{j}")
            };
            close(row.phi_mean, cells.iter().sum::<f64>() / cells.len() as f64);
            close(row.phi_min, cells.iter().copied().fold(f64::INFINITY, f64::min));
            close(row.phi_max, cells.iter().copied().fold(0.0, f64::max));
            let length = if side == Side::Left || matrix == MatrixKind::BA { N } else { 8 };
            close(row.gaussian_expected, i.max(j) as f64 / length as f64);
            compared += 1;
        }
    }
    assert_eq!(compared, 180);
}

#[test]
fn singular_values_are_the_oracles() {
    let mut compared = 0;
    for adapter in ADAPTERS {
        for row in expected_rows(adapter, "theta_singular_values.csv") {
            let layer: u32 = row["layer"].parse().unwrap();
            let mut ours: Vec<&SpectrumRow> = results()
                .spectrum
                .iter()
                .filter(|r| {
                    r.adapter == adapter
                        && r.module == row["module"]
                        && r.matrix.name() == row["matrix"]
                        && r.layer == Some(layer.into())
                })
                .collect();
            ours.sort_by_key(|r| r.k);
            assert_eq!(ours.iter().map(|r| r.k).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
            for r in ours {
                let theirs = number(&row, &format!("s{}", r.k));
                assert!((r.sigma / theirs - 1.0).abs() <= 1e-9, "{adapter} {} {} layer {layer}: σ_{}", r.module, r.matrix, r.k);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 3 * 2 * 3 * 6 * 8);
    assert_eq!(results().spectrum.iter().filter(|row| row.matrix.conversion().is_some()).count(), compared);
}

fn frobenius(m: &Array2<f64>) -> f64 {
    m.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn theta_is_the_oracles_and_solves_its_equation() {
    let (base, adapter) = (real_base().join("model.safetensors"), data("adapters/trec-seed0/adapter_model.safetensors"));
    let thetas = expected("trec-seed0", "theta_f64.safetensors");
    let conditions = expected_rows("trec-seed0", "w0_condition_and_residuals.csv");
    for (module, letter) in MODULES {
        for layer in 0..LAYERS {
            let path = format!("encoder.layer.{layer}.attention.self.{module}");
            let w0 = read_matrix(&base, &format!("{path}.weight"));
            let factor = |name: &str| read_matrix(&adapter, &format!("base_model.model.bert.{path}.{name}.weight"));
            let (a_transposed, b) = (factor("lora_A").reversed_axes().as_standard_layout().into_owned(), factor("lora_B"));
            let found = solve_theta(
                &w0,
                &[Target::new(&a_transposed, Equation::W0), Target::new(&b, Equation::W0)],
                None,
                &mut Workspace::default(),
            )
            .unwrap();
            assert!(found.matrices.iter().all(|m| !m.singular && m.w0_rank == N));
            let row = conditions.iter().find(|r| r["module"] == module && r["layer"] == layer.to_string()).unwrap();
            for ((matrix, values), ours) in [("A", &a_transposed), ("B", &b)].into_iter().zip(&found.matrices) {
                let place = format!("{module} {matrix} layer {layer}");
                let theirs = read_matrix(&thetas, &format!("{letter}.{matrix}.{layer}"));
                for (k, (x, y)) in ours.theta.columns().into_iter().zip(theirs.columns()).enumerate() {
                    let (x, y) = (x.to_owned().insert_axis(Axis(1)), y.to_owned().insert_axis(Axis(1)));
                    assert!(frobenius(&(&x - &y)) <= 1e-9 * frobenius(&y), "{place}, column {k}");
                }
                assert_eq!(ours.method, Method::Lu);
                // The check of every solve, made again with another matrix product.
                let rest = frobenius(&(values - &w0.dot(&ours.theta)));
                let scale = frobenius(&w0) * frobenius(&ours.theta) + frobenius(values);
                assert!(rest <= N as f64 * UNIT_ROUNDOFF * scale, "{place}: backward error {:e}", rest / scale);
                assert!(ours.reliable && ours.backward_error.unwrap() <= N as f64 * UNIT_ROUNDOFF);
                // LAPACK's residual, give or take how roundings fall.
                assert!(ours.residual.unwrap() <= 4.0 * number(row, &format!("relres_{matrix}")), "{place}");
            }
        }
    }
}

#[test]
fn condition_estimates_agree_with_the_oracle_and_with_the_inverse() {
    // The estimate depends on W0 alone, so every adapter gets the same.
    let _ = condlora::linalg::subspace::SubspaceBasis::of(Array2::eye(1).view()).unwrap();
    let norm_1 = |m: &Array2<f64>| m.map(|v| v.abs()).sum_axis(Axis(0)).iter().fold(0.0_f64, |most, v| most.max(*v));
    let mut exact: BTreeMap<&str, f64> = BTreeMap::new();
    for adapter in ADAPTERS {
        let rows: Vec<_> = results().conversion.iter().filter(|r| r.adapter == adapter).collect();
        assert_eq!(rows.len(), 12);
        for row in rows {
            let oracle = expected_rows(adapter, "w0_condition_and_residuals.csv")
                .into_iter()
                .find(|r| r["module"] == row.module && r["layer"] == row.layer.as_ref().unwrap().to_string())
                .unwrap();
            let (ours, two_norm) = (row.w0_condition.unwrap(), number(&oracle, "cond"));
            assert!(two_norm / N as f64 <= ours && ours <= N as f64 * two_norm, "{}: {ours:e} against {two_norm:e}", row.tensor);
            let true_one = *exact.entry(&row.tensor).or_insert_with(|| {
                let w0 = read_matrix(&real_base().join("model.safetensors"), &row.tensor);
                norm_1(&w0) * norm_1(&w0.inv().unwrap())
            });
            // Rounding moves the last digits of either: κ·ε of their size.
            assert!(
                ours <= true_one * (1.0 + true_one * f64::EPSILON) && ours >= true_one / 3.0,
                "{}: {ours:e} against {true_one:e}",
                row.tensor
            );
            for (residual, name) in [(row.residual_a, "relres_A"), (row.residual_b, "relres_B")] {
                assert!(residual.unwrap() <= 4.0 * number(&oracle, name), "{} {name}", row.tensor);
            }
            for error in [row.backward_error_a, row.backward_error_b] {
                assert!(error.unwrap() <= N as f64 * UNIT_ROUNDOFF);
            }
            for (norm, name) in [(row.norm_a, "norm_A"), (row.norm_b, "norm_B"), (row.norm_delta, "norm_BA")] {
                // α/r is 1 for these adapters, so that ΔW is B·A.
                assert!((norm.unwrap() / number(&oracle, name) - 1.0).abs() < 1e-12, "{} {name}", row.tensor);
            }
            assert_eq!((row.w0_rank, row.method, row.status), (N, Method::Lu, Status::Ok));
        }
    }
    assert_eq!(exact.len(), 12);
}

#[test]
fn drawn_controls_agree_with_the_oracles_draws() {
    let within = |what: &str, (mean, sd): (Option<f64>, Option<f64>), (their_mean, their_sd): (f64, f64)| {
        let (mean, sd) = (mean.unwrap(), sd.unwrap());
        let error = ((sd * sd + their_sd * their_sd) / DRAWS).sqrt();
        assert!((mean - their_mean).abs() <= 4.0 * error, "{what}: {mean} against {their_mean}, standard error {error:e}");
        // The ratio of two variances of 20 draws leaves 1/8 to 8 once in 100,000 times.
        assert!((sd * sd / (their_sd * their_sd)).ln().abs() <= 8.0_f64.ln(), "{what}: deviation {sd:e} against {their_sd:e}");
    };
    for adapter in ADAPTERS {
        let oracle = expected_summary(adapter);
        for (module, letter) in MODULES {
            let theirs = |name: &str| (oracle(letter, &format!("{name}_mean")), oracle(letter, &format!("{name}_sd")));
            for (matrix, side) in [
                (MatrixKind::A, Side::Left),
                (MatrixKind::B, Side::Left),
                (MatrixKind::BA, Side::Left),
                (MatrixKind::BA, Side::Right),
                (MatrixKind::LoraA, Side::Right),
                (MatrixKind::LoraB, Side::Left),
            ] {
                let row = summary_of(adapter, module, matrix, side, (8, 8));
                within(&format!("{module} {matrix} gaussian"), (row.gaussian_mean, row.gaussian_sd), theirs("gauss_plain"));
            }
            for matrix in [MatrixKind::A, MatrixKind::B] {
                for (i, j) in [(8, 8), (4, 8), (4, 4), (2, 2), (1, 1)] {
                    let row = summary_of(adapter, module, matrix, Side::Left, (i, j));
                    let what = format!("{module} {matrix} {i},{j} w0");
                    within(&what, (row.w0_mean, row.w0_sd), theirs(&format!("gauss_through_W0inv_i{i}_j{j}")));
                    if (i, j) == (8, 8) {
                        within(&what, (row.w0_mean, row.w0_sd), theirs("gauss_through_W0inv"));
                    }
                }
            }
            // At i = j = r, Θ_B·A spans what Θ_B spans, drawn or not.
            let row = summary_of(adapter, module, MatrixKind::BA, Side::Left, (8, 8));
            within(&format!("{module} BA w0"), (row.w0_mean, row.w0_sd), theirs("gauss_through_W0inv"));
        }
    }
}

#[test]
fn factors_and_untrained_adapters_are_the_oracles() {
    for adapter in ADAPTERS {
        let oracle = expected_summary(adapter);
        for (module, letter) in MODULES {
            let close = |what: &str, ours: Option<f64>| {
                let theirs = oracle(letter, what);
                assert!((ours.unwrap() - theirs).abs() <= 1e-10, "{adapter} {module} {what}: {ours:?} against {theirs}");
            };
            close("raw_A_right", summary_of(adapter, module, MatrixKind::LoraA, Side::Right, (8, 8)).phi_mean);
            close("raw_B_left", summary_of(adapter, module, MatrixKind::LoraB, Side::Left, (8, 8)).phi_mean);
            close("untrained_init_Theta_A", summary_of(adapter, module, MatrixKind::A, Side::Left, (8, 8)).init_mean);
            // Its B is zero and has no subspace.
            for matrix in [MatrixKind::B, MatrixKind::BA, MatrixKind::LoraB] {
                assert_eq!(summary_of(adapter, module, matrix, Side::Left, (8, 8)).init_mean, None);
            }
        }
    }
}

#[test]
fn only_drawn_matrices_have_a_w0_control() {
    for row in &results().similarity {
        let by_w0 = [row.w0_mean, row.w0_sd].iter().all(Option::is_some);
        assert_eq!(by_w0, !row.matrix.is_factor());
        assert!(row.gaussian_mean.is_some() && row.gaussian_sd.is_some());
    }
    for row in &results().summary {
        // Where the vectors span their space, φ is 1 by construction and there is nothing to test.
        let tested = !row.matrix.is_factor() && (row.side == Side::Left || row.matrix == MatrixKind::BA || row.i.max(row.j) < 8);
        assert_eq!((row.w0_z.is_some(), row.w0_p.is_some()), (tested, tested), "{row:?}");
    }
}

/// A less the untrained A, by its row space: the SVDs of the differences, made here. The two averages are those of the independent study.
#[test]
fn what_was_learned_of_a_is_compared_by_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let init = data("init/trec-seed0");
    let options = ["--matrices", "learned_A", "--null-draws", "20", "--no-svd", "--figures", "none", "-o", "out"];
    let mut command = analyze([data("adapters/trec-seed0").to_str().unwrap(), "--base", real_base().to_str().unwrap()]);
    command.args(options).arg("--init").arg(&init).current_dir(folder.path());
    Run::of(command.output().unwrap()).exits(0);
    let rows: Vec<SimilarityRow> = read_rows(&folder.path().join("out/similarity.csv")).unwrap();
    let summary: Vec<SummaryRow> = read_rows(&folder.path().join("out/summary.csv")).unwrap();
    for ((module, _), range) in MODULES.into_iter().zip([0.072..0.090, 0.118..0.134]) {
        let of = |path: &Path, layer: u32| {
            let name = format!("base_model.model.bert.encoder.layer.{layer}.attention.self.{module}.lora_A.weight");
            read_matrix(&path.join("adapter_model.safetensors"), &name)
        };
        let learned = |layer| thin_svd(&(of(&data("adapters/trec-seed0"), layer) - of(&init, layer))).2;
        let vectors: Vec<Array2<f64>> = (0..LAYERS).map(learned).collect();
        for row in rows.iter().filter(|row| row.module == module) {
            let product = vectors[row.layer_a.index().unwrap() as usize].t().dot(&vectors[row.layer_b.index().unwrap() as usize]);
            let phi = product.iter().map(|v| v * v).sum::<f64>() / 8.0;
            assert!((row.phi.unwrap() - phi).abs() < 1e-12, "{row:?} {phi}");
            assert_eq!((row.matrix, row.side, row.init, row.w0_mean), (MatrixKind::LearnedA, Side::Right, None, None));
        }
        let mean = summary.iter().find(|row| row.module == module).unwrap().phi_mean.unwrap();
        assert!(range.contains(&mean), "{module}: {mean}");
    }
    assert_eq!(rows.len(), 2 * 36);
}
