//! `analyze --measures`: principal angles and CKA of the real adapters, compared with direct computations from the oracle's conversion matrices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use condlora::table::csv::read_rows;
use condlora::table::{MeasureRow, SimilarityRow};
use condlora::terms::{MatrixKind, Measure, Side, Status};
use ndarray::{Array2, s};
use ndarray_linalg::SVD;
use shared::checkpoint::{PLAIN, read_matrix, square_layers, write_adapter, write_base};
use shared::program::{Run, analyze, data, real_base};

const N: usize = 384;
const LAYERS: usize = 6;

fn run(out: &Path, more: &[&str]) -> Vec<MeasureRow> {
    let mut command = analyze([data("adapters/trec-seed0")]);
    command.arg("--base").arg(real_base()).arg("-o").arg(out).args(["--measures", "--figures", "none"]).args(more);
    Run::of(command.output().unwrap()).exits(0);
    read_rows(&out.join("measures.csv")).unwrap()
}

/// The oracle's Θ_A and Θ_B, and A, of one layer.
fn oracle(module: &str, layer: usize) -> [Array2<f64>; 3] {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expected/trec-seed0/theta_f64.safetensors");
    let letter = &module[..1];
    let adapter: PathBuf = data("adapters/trec-seed0/adapter_model.safetensors");
    let key = format!("base_model.model.bert.encoder.layer.{layer}.attention.self.{module}.lora_A.weight");
    [
        read_matrix(&file, &format!("{letter}.A.{layer}")),
        read_matrix(&file, &format!("{letter}.B.{layer}")),
        read_matrix(&adapter, &key),
    ]
}

fn squares(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|v| v * v).sum()
}

/// Kornblith et al. 2019, Eq. 3 with a linear kernel and columns centred by `H = I − 11ᵀ/n`, on whole matrices.
fn plain_cka(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    let h = Array2::<f64>::eye(x.nrows()) - Array2::from_elem((x.nrows(), x.nrows()), 1.0 / x.nrows() as f64);
    let (x, y) = (h.dot(x), h.dot(y));
    squares(&y.t().dot(&x)) / (squares(&x.t().dot(&x)) * squares(&y.t().dot(&y))).sqrt()
}

fn left_vectors(matrix: &Array2<f64>) -> Array2<f64> {
    matrix.svd(true, false).unwrap().0.unwrap()
}

#[test]
fn values_are_those_of_plain_computations() {
    let folder = tempfile::tempdir().unwrap();
    let rows =
        run(&folder.path().join("out"), &["--ij", "8,8", "--ij", "3,5", "--null-draws", "0", "--matrices", "A,B,BA,lora_A"]);
    // Two modules; four matrices with two (i, j) of three cosines each, and CKA.
    assert_eq!(rows.len(), 2 * 4 * LAYERS * LAYERS * (2 * 3 + 1));
    let mut compared = BTreeMap::new();
    for module in ["query", "value"] {
        let layers: Vec<_> = (0..LAYERS).map(|layer| oracle(module, layer)).collect();
        let whole = |matrix: MatrixKind, layer: usize| -> Array2<f64> {
            let [theta_a, theta_b, a] = &layers[layer];
            match matrix {
                MatrixKind::A => theta_a.clone(),
                MatrixKind::B => theta_b.clone(),
                MatrixKind::BA => theta_b.dot(a),
                _ => a.t().to_owned(),
            }
        };
        // An n x n SVD for each: only a few layers of BA.
        let mut vectors = BTreeMap::new();
        for row in rows.iter().filter(|row| row.module == module) {
            let (a, b) = (row.layer_a.index().unwrap() as usize, row.layer_b.index().unwrap() as usize);
            if row.matrix == MatrixKind::BA && (a > 1 || b > 1) {
                continue;
            }
            let expected = if row.measure == Measure::Cka {
                assert_eq!((row.side, row.i, row.j), (None, None, None));
                plain_cka(&whole(row.matrix, a), &whole(row.matrix, b))
            } else {
                let mut basis = |layer: usize, count: Option<usize>| {
                    let all = vectors.entry((row.matrix, layer)).or_insert_with(|| left_vectors(&whole(row.matrix, layer)));
                    all.slice(s![.., ..count.unwrap()]).to_owned()
                };
                let cosines = basis(a, row.i).t().dot(&basis(b, row.j)).svd(false, false).unwrap().1;
                match row.measure {
                    Measure::CosMax => cosines[0],
                    Measure::CosMin => cosines[cosines.len() - 1],
                    _ => cosines.sum() / cosines.len() as f64,
                }
            };
            let off = (row.value.unwrap() - expected).abs();
            assert!(off <= 1e-10, "{row:?} is off by {off:e}");
            assert_eq!(row.status, Status::Ok);
            *compared.entry(row.measure).or_insert(0) += 1;
        }
    }
    let pairs = 2 * (3 * LAYERS * LAYERS + 4);
    assert_eq!(compared[&Measure::Cka], pairs);
    assert_eq!(compared[&Measure::CosMin], 2 * pairs);
}

#[test]
fn cosines_are_phis_and_controls_are_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let rows = run(&out, &["--ij", "2,2", "--ij", "1,1", "--side", "both", "--matrices", "A,B,BA,lora_A,lora_B"]);
    let phi: Vec<SimilarityRow> = read_rows(&out.join("similarity.csv")).unwrap();
    type Cell = (String, MatrixKind, Option<Side>, Option<usize>, u32, u32, Measure);
    let key = |r: &MeasureRow| -> Cell {
        (r.module.clone(), r.matrix, r.side, r.i, r.layer_a.index().unwrap(), r.layer_b.index().unwrap(), r.measure)
    };
    let by_cell: BTreeMap<Cell, &MeasureRow> = rows.iter().map(|row| (key(row), row)).collect();
    assert_eq!(by_cell.len(), rows.len(), "a cell is there twice");
    for row in &phi {
        let at = |measure| {
            let cell = (
                row.module.clone(),
                row.matrix,
                Some(row.side),
                Some(row.i),
                row.layer_a.index().unwrap(),
                row.layer_b.index().unwrap(),
                measure,
            );
            by_cell[&cell]
        };
        let [max, mean, min] = Measure::COSINES.map(at);
        let values = [max, mean, min].map(|r| r.value.unwrap());
        // φ is the mean of the squared cosines: of one angle, or of two.
        let expected = if row.i == 1 { values[0].powi(2) } else { (values[0].powi(2) + values[2].powi(2)) / 2.0 };
        assert!((row.phi.unwrap() - expected).abs() < 1e-13, "{row:?}");
        assert!((values[1] - (values[0] + values[2]) / 2.0).abs() < 1e-13);
        assert_eq!([max, mean, min].map(|r| r.status), [row.status; 3]);
        if row.i == 1 {
            // For one angle the control's mean of cos² is at least the square of the mean cosine.
            let (cosine, squared) = (max.gaussian_mean.unwrap(), row.gaussian_mean.unwrap());
            let sd = max.gaussian_sd.unwrap();
            // Var = E[x²] − E[x]², with the sample's 20/19.
            assert!((squared - cosine * cosine - sd * sd * 19.0 / 20.0).abs() < 1e-12, "{row:?}");
        }
    }
    for row in &rows {
        assert!(row.gaussian_mean.is_some() && row.gaussian_sd.is_some(), "{row:?}");
        assert_eq!(row.w0_mean.is_some(), !row.matrix.is_factor(), "{row:?}");
        let turned = Cell::from((
            row.module.clone(),
            row.matrix,
            row.side,
            row.i,
            row.layer_b.index().unwrap(),
            row.layer_a.index().unwrap(),
            row.measure,
        ));
        assert_eq!(by_cell[&turned].value, row.value, "{row:?}");
        if row.layer_a == row.layer_b {
            assert!((row.value.unwrap() - 1.0).abs() < 1e-12, "{row:?}");
        }
    }
    // Gaussian Θ of n rows have CKA of about r/n: both norms in the denominator are near √r (n − 1), the one above near r·√(n−1).
    let cka: Vec<f64> = rows
        .iter()
        .filter(|r| r.measure == Measure::Cka && r.layer_a != r.layer_b)
        .filter(|r| matches!(r.matrix, MatrixKind::A | MatrixKind::B))
        .map(|r| r.gaussian_mean.unwrap())
        .collect();
    let mean = cka.iter().sum::<f64>() / cka.len() as f64;
    assert!((mean / (8.0 / N as f64) - 1.0).abs() < 0.05, "{mean}");
}

#[test]
fn untrained_layers_have_no_measure_and_without_the_flag_there_is_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 24, 2);
    layers[1].b.fill(0.0);
    write_base(&root.join("base"), &layers, PLAIN);
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[]);
    let run = |out: &str, more: &[&str]| {
        let command = &mut analyze(["adapter", "--base", "base", "-o", out, "--figures", "none"]);
        Run::of(command.args(more).current_dir(root).output().unwrap())
    };
    run("with", &["--measures"]).exits(0);
    run("without", &[]).exits(0);
    assert!(!root.join("without/measures.csv").exists());
    let rows: Vec<MeasureRow> = read_rows(&root.join("with/measures.csv")).unwrap();
    for row in &rows {
        let zero = row.matrix != MatrixKind::A && (row.layer_a == 1 || row.layer_b == 1);
        let expected = if zero { (Status::Zero, false) } else { (Status::Ok, true) };
        assert_eq!((row.status, row.value.is_some()), expected, "{row:?}");
    }
    // The statuses of measures count too.
    run("strict", &["--measures", "--strict"]).exits(6);
}
