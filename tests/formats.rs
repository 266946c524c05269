//! The formats of the tables: each holds the same rows, and only those asked for are written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use condlora::table::columns::Row;
use condlora::table::phi_matrix::read_phi_matrix;
use condlora::table::{AcrossRow, ConversionRow, SimilarityRow, SpectrumRow, SummaryRow, csv, parquet};
use shared::program::{Run, analyze, data, files, real_base};

fn run(root: &Path, out: &str, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let mut command = analyze([data("adapters")]);
    command.arg("--base").arg(real_base()).args(["-o", out, "--figures", "none", "--null-draws", "2"]).args(more);
    Run::of(command.current_dir(root).output().unwrap()).exits(0);
    let mut written = files(&root.join(out));
    assert!(written.remove("manifest.json").is_some() && written.remove("report.html").is_some());
    written
}

#[track_caller]
fn same_rows<R: Row + PartialEq + std::fmt::Debug>(out: &Path) {
    let from_csv: Vec<R> = csv::read_rows(&out.join(format!("{}.csv", R::TABLE))).unwrap();
    let from_parquet: Vec<R> = parquet::read_rows(&out.join(format!("{}.parquet", R::TABLE))).unwrap();
    assert!(!from_csv.is_empty() && from_csv == from_parquet, "{}", R::TABLE);
}

/// An `.npy` file by its specification: its size and values.
fn npy(bytes: &[u8]) -> (usize, Vec<f64>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(start % 64, 0);
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.starts_with("{'descr': '<f8', 'fortran_order': False, 'shape': (") && header.ends_with('\n'), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let sizes: Vec<usize> = shape.split(',').map(|size| size.trim().parse().unwrap()).collect();
    let values: Vec<f64> = bytes[start..].chunks_exact(8).map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap())).collect();
    assert_eq!((sizes[0], sizes[0] * sizes[1]), (sizes[1], values.len()));
    (sizes[0], values)
}

#[test]
fn every_format_holds_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Nine vectors are more than the rank 8: those matrices have no value.
    let options =
        ["--formats", "parquet,csv,npy", "--across", "--matrices", "A,BA", "--side", "both", "--ij", "8,8", "--ij", "2,9"];
    let written = run(root, "all", &options);
    let out = root.join("all");
    same_rows::<SummaryRow>(&out);
    same_rows::<SimilarityRow>(&out);
    same_rows::<ConversionRow>(&out);
    same_rows::<SpectrumRow>(&out);
    same_rows::<AcrossRow>(&out);

    let index: Vec<serde_json::Value> = serde_json::from_slice(&written["npy/index.json"]).unwrap();
    assert_eq!(index.len(), written.keys().filter(|name| name.starts_with("matrices/")).count());
    assert_eq!(index.len() + 1, written.keys().filter(|name| name.starts_with("npy/")).count());
    let mut missing = 0;
    for entry in &index {
        let file = entry["file"].as_str().unwrap();
        let (n, values) = npy(&written[&format!("npy/{file}")]);
        let (layers, expected) = read_phi_matrix(&out.join("matrices").join(file.replace(".npy", ".csv"))).unwrap();
        assert_eq!(entry["layers"], serde_json::to_value(&layers).unwrap());
        let name = format!(
            "{}/{}.{}.{}.i{}-j{}.npy",
            entry["adapter"].as_str().unwrap(),
            entry["module"].as_str().unwrap(),
            entry["matrix"].as_str().unwrap(),
            entry["side"].as_str().unwrap(),
            entry["i"],
            entry["j"]
        );
        assert_eq!((n, name.as_str()), (layers.len(), file));
        for (value, expected) in values.iter().zip(expected) {
            assert_eq!(expected.is_none(), value.is_nan());
            assert!(expected.is_none_or(|expected| expected.to_bits() == value.to_bits()));
            missing += usize::from(value.is_nan());
        }
    }
    assert!(missing > 0);

    // Threads change no byte of these either.
    let again = run(root, "again", &[&options[..], &["--threads", "1"]].concat());
    for (name, bytes) in &written {
        assert!(*bytes == again[name], "{name}");
    }
}

#[test]
fn only_what_is_asked_for_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let endings = |written: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let mut endings: Vec<String> = written.keys().map(|name| name.rsplit('.').next().unwrap().to_owned()).collect();
        endings.sort();
        endings.dedup();
        endings
    };
    let arrow = run(root, "arrow", &["--formats", "parquet,parquet"]);
    let tables = ["conversion.parquet", "similarity.parquet", "spectrum.parquet", "summary.parquet"];
    assert_eq!(arrow.keys().map(String::as_str).collect::<Vec<_>>(), tables);
    assert_eq!(endings(&run(root, "numpy", &["--formats", "npy"])), ["json", "npy"]);
    assert_eq!(endings(&run(root, "usual", &[])), ["csv"]);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(root.join("arrow/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["options"]["formats"], serde_json::json!(["parquet"]));
    assert_eq!(manifest["outputs"].as_object().unwrap().len(), 5);
    let refused = Run::of(analyze(["x", "--formats", "arrow"]).output().unwrap()).exits(2);
    assert!(refused.stderr.contains("possible values: csv, parquet, npy"), "{}", refused.stderr);
}
