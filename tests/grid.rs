//! `analyze --grid`: φ of two layers by every number of vectors, compared with the float64 oracle and with direct computations.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{GridRow, SimilarityRow};
use condlora::terms::{MatrixKind, Side, Status};
use ndarray::{Array2, s};
use ndarray_linalg::SVD;
use shared::checkpoint::{PLAIN, read_matrix, square_layers, write_adapter, write_base};
use shared::program::{Run, analyze, data, files, program, real_base, run_in, tables};

const N: usize = 384;
const RANK: usize = 8;

fn expected(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/expected/trec-seed0").join(file)
}

fn run(out: &Path, more: &[&str]) -> Run {
    let mut command = analyze([data("adapters/trec-seed0")]);
    command.arg("--base").arg(real_base()).arg("-o").arg(out).args(["--null-draws", "0", "-q"]).args(more);
    Run::of(command.output().unwrap()).exits(0)
}

fn grid_of(out: &Path) -> Vec<GridRow> {
    read_rows(&out.join("grid.csv")).unwrap()
}

/// Left vectors of the oracle's Θ.
fn left_vectors(module: &str, matrix: &str, layer: u32) -> Array2<f64> {
    let theta = read_matrix(&expected("theta_f64.safetensors"), &format!("{}.{matrix}.{layer}", &module[..1]));
    theta.svd(true, false).unwrap().0.unwrap().slice(s![.., ..RANK]).to_owned()
}

#[test]
fn every_cell_is_phi_from_its_definition() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    run(&out, &["--matrices", "A,B", "--grid", "1,4", "--grid", "4,1", "--figures", "none"]);
    let rows = grid_of(&out);
    assert_eq!(rows.len(), 2 * 2 * 2 * RANK * RANK);
    let mut vectors = BTreeMap::new();
    for row in &rows {
        let mut first = |layer: u32, count: usize| {
            let key = (row.module.clone(), row.matrix, layer);
            let all = vectors.entry(key).or_insert_with(|| left_vectors(&row.module, row.matrix.name(), layer));
            all.slice(s![.., ..count]).to_owned()
        };
        let cosines = first(row.layer_a.index().unwrap(), row.i).t().dot(&first(row.layer_b.index().unwrap(), row.j));
        let phi = cosines.iter().map(|c| c * c).sum::<f64>() / row.i.min(row.j) as f64;
        assert!((row.phi.unwrap() - phi).abs() <= 1e-10, "{row:?}: {phi}");
        assert_eq!(row.gaussian_expected, Some(row.i.max(row.j) as f64 / N as f64));
        assert_eq!(row.status, Status::Ok);
    }
    // The two orders are each other's transpose.
    let cell = |r: &GridRow| (r.module.clone(), r.matrix, r.layer_a.clone(), r.layer_b.clone(), r.i, r.j);
    let by_cell: BTreeMap<_, _> = rows.iter().map(|row| (cell(row), row.phi)).collect();
    for row in &rows {
        assert_eq!(by_cell[&(row.module.clone(), row.matrix, row.layer_b.clone(), row.layer_a.clone(), row.j, row.i)], row.phi);
    }
}

#[test]
fn cells_are_the_oracles_and_those_of_similarity() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let pairs = [(0, 1), (3, 5), (2, 2)];
    let asked: Vec<String> = pairs.iter().map(|(a, b)| format!("--grid={a},{b}")).collect();
    let mut more = vec!["--side", "both", "--figures", "none", "--ij", "8,8", "--ij", "4,8", "--ij", "1,1"];
    more.extend(asked.iter().map(String::as_str));
    run(&out, &more);
    let rows = grid_of(&out);
    // A and B have right vectors of their own; of BA both sides have r.
    assert_eq!(rows.len(), 2 * 3 * 2 * 3 * RANK * RANK);
    let cell = |r: &GridRow| (r.module.clone(), r.matrix, r.side, r.layer_a.clone(), r.layer_b.clone(), r.i, r.j);
    let by_cell: BTreeMap<_, _> = rows.iter().map(|row| (cell(row), row)).collect();

    let oracle = fs::read_to_string(expected("phi.csv")).unwrap();
    let mut compared = 0;
    for line in oracle.lines().skip(1) {
        let f: Vec<&str> = line.split(',').collect();
        let (matrix, side): (MatrixKind, Side) = (f[1].parse().unwrap(), f[2].parse().unwrap());
        let (i, j): (usize, usize) = (f[3].parse().unwrap(), f[4].parse().unwrap());
        let (a, b): (u32, u32) = (f[5].parse().unwrap(), f[6].parse().unwrap());
        if let Some(row) = by_cell.get(&(f[0].to_owned(), matrix, side, a.into(), b.into(), i, j)) {
            let value: f64 = f[7].parse().unwrap();
            assert!((row.phi.unwrap() - value).abs() <= 1e-10, "{line}: {:?}", row.phi);
            compared += 1;
        }
    }
    assert!(compared >= 2 * 2 * 2 * 5 * 3, "{compared}");
    // Bit for bit what similarity.csv has, and that is what it has without --grid.
    let similarity: Vec<SimilarityRow> = read_rows(&out.join("similarity.csv")).unwrap();
    let mut same = 0;
    for row in &similarity {
        if let Some(grid) =
            by_cell.get(&(row.module.clone(), row.matrix, row.side, row.layer_a.clone(), row.layer_b.clone(), row.i, row.j))
        {
            assert_eq!((grid.phi, grid.status), (row.phi, row.status), "{row:?}");
            same += 1;
        }
    }
    assert_eq!(same, 2 * 3 * 2 * 3 * 3);
    let without = folder.path().join("without");
    run(&without, &more[..more.len() - 3]);
    assert_eq!(fs::read(out.join("similarity.csv")).unwrap(), fs::read(without.join("similarity.csv")).unwrap());
    assert!(!without.join("grid.csv").exists());
    // What the two subspaces share grows with either, and a layer is all of itself.
    for row in &rows {
        let shared = |row: &GridRow| row.phi.unwrap() * row.i.min(row.j) as f64;
        for smaller in [(row.i - 1, row.j), (row.i, row.j - 1)] {
            let before =
                (row.module.clone(), row.matrix, row.side, row.layer_a.clone(), row.layer_b.clone(), smaller.0, smaller.1);
            assert!(by_cell.get(&before).is_none_or(|before| shared(before) <= shared(row) + 1e-13), "{row:?}");
        }
        if row.layer_a == row.layer_b {
            assert!((row.phi.unwrap() - 1.0).abs() < 1e-12, "{row:?}");
        }
    }
}

#[test]
fn figures_formats_threads_and_shards() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 24, 4);
    write_base(&root.join("base"), &layers, PLAIN);
    for (name, shift) in [("a", 0.1), ("b", 0.2), ("c", 0.3)] {
        let changed: Vec<_> = layers
            .iter()
            .map(|l| shared::checkpoint::Layer { a: l.a.mapv(|v| v * v + shift), b: l.b.mapv(|v| v - shift), ..l.clone() })
            .collect();
        write_adapter(&root.join("runs").join(name), &changed, PLAIN, &[]);
    }
    let study = [
        "runs",
        "--base",
        "base",
        "--grid",
        "0,2",
        "--grid",
        "2,1",
        "--grid",
        "0,2",
        "--formats",
        "csv,parquet",
        "--null-draws",
        "2",
    ];
    let with = |more: &[&str]| run_in(root, &[&study[..], more].concat()).exits(0);
    with(&["-o", "whole", "--figures", "svg", "--threads", "2"]);
    let all = files(&root.join("whole"));
    assert!(all.contains_key("grid.parquet"));
    // A pair given twice counts once.
    assert_eq!(grid_of(&root.join("whole")).len(), 3 * 3 * 2 * 16);
    for name in ["q_proj.A.left.grid-l0-l2.svg", "q_proj.BA.left.grid-l2-l1.svg"] {
        let svg = String::from_utf8(all[&format!("figures/b/{name}")].clone()).unwrap();
        assert!(svg.contains("i, vectors of layer") && svg.contains("φ(1,1)") && svg.contains("φ(4,4)"), "{svg}");
        roxmltree::Document::parse(&svg).unwrap();
    }
    with(&["-o", "one", "--figures", "svg", "--threads", "1"]);
    let tables_of = |out: &str| tables(&root.join(out));
    assert_eq!(tables_of("whole"), tables_of("one"));
    for (k, out) in ["s1", "s2"].iter().enumerate() {
        with(&["-o", out, "--figures", "none", "--shard", &format!("{}/2", k + 1)]);
    }
    Run::of(program().args(["merge", "s2", "s1", "-o", "merged", "--figures", "svg"]).current_dir(root).output().unwrap())
        .exits(0);
    let merged = files(&root.join("merged"));
    for (name, bytes) in all.iter().filter(|(name, _)| !name.ends_with(".json") && !name.ends_with(".html")) {
        assert!(merged.get(name) == Some(bytes), "{name}");
    }
    // Drawn again from the table.
    Run::of(
        program().args(["figures", "whole", "--figures", "svg", "--figures-dir", "again"]).current_dir(root).output().unwrap(),
    )
    .exits(0);
    let name = "figures/c/q_proj.B.left.grid-l0-l2.svg";
    assert_eq!(fs::read(root.join("again/c/q_proj.B.left.grid-l0-l2.svg")).unwrap(), all[name]);

    let refused = |grid: &str, says: &str| {
        let run = run_in(root, &["runs", "--base", "base", "-o", "no", "--grid", grid]).exits(2);
        run.says(says);
        assert!(!root.join("no").exists());
    };
    refused("0,3", "--grid 0,3: no module has both layers");
    refused("0,3", "hint: the layers are 0..2");
    refused("0", "expected two layers, as in 0,5");
    run_in(root, &["runs", "--base", "base", "-o", "no", "--grid", "0,2", "--layers", "0..1"])
        .exits(2)
        .says("the layers are 0..1");
}

#[test]
fn an_untrained_layer_has_no_phi_by_any_number() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(2, 24, 3);
    layers[1].b.fill(0.0);
    // Twice the same row: rank 2 of 3.
    let row = layers[0].a.row(0).to_owned();
    layers[0].a.row_mut(2).assign(&row);
    write_base(&root.join("base"), &layers, PLAIN);
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[]);
    run_in(root, &["adapter", "--base", "base", "-o", "out", "--grid", "0,1", "--figures", "svg,png"]).exits(0);
    let rows = grid_of(&root.join("out"));
    assert_eq!(rows.len(), 3 * 9);
    for row in rows {
        let status = match row.matrix {
            MatrixKind::A if row.i > 2 => Status::Rank,
            MatrixKind::A => Status::Ok,
            _ => Status::Zero,
        };
        assert_eq!(
            (row.status, row.phi.is_some(), row.gaussian_expected.is_some()),
            (status, status == Status::Ok, status == Status::Ok),
            "{row:?}"
        );
    }
    run_in(root, &["adapter", "--base", "base", "-o", "strict", "--grid", "0,1", "--matrices", "A", "--strict"]).exits(6);
}
