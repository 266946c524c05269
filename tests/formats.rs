//! The formats of the tables: each holds the same rows; CSV is always written, the others on request.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use shared::program::{Run, analyze, data, files, real_base};

fn run(root: &Path, out: &str, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let mut command = analyze([data("adapters")]);
    command.arg("--base").arg(real_base()).args(["-o", out, "--figures", "none", "--null-draws", "2"]).args(more);
    Run::of(command.current_dir(root).output().unwrap()).exits(0);
    let mut written = files(&root.join(out));
    assert!(written.remove("manifest.json").is_some() && written.remove("report.html").is_some());
    written
}

/// A CSV, line by line.
fn lines(csv: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    reader.records().map(|line| line.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// A Parquet table as the CSV says it, read by the crate's own reader.
fn lines_of_parquet(path: &Path) -> Vec<Vec<String>> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let mut lines = vec![columns.iter().map(|column| column.name().to_owned()).collect()];
    let text = |field: &Field| match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Long(number) => number.to_string(),
        Field::Double(number) => format!("{number:?}"),
        other => panic!("{other:?}"),
    };
    lines.extend(reader.get_row_iter(None).unwrap().map(|row| row.unwrap().get_column_iter().map(|(_, f)| text(f)).collect()));
    lines
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
    let tables: Vec<&String> = written.keys().filter(|name| name.ends_with(".parquet")).collect();
    assert_eq!(
        tables,
        [
            "across.parquet",
            "alignment.parquet",
            "conversion.parquet",
            "cuts.parquet",
            "relation.parquet",
            "similarity.parquet",
            "spectrum.parquet",
            "summary.parquet",
            "updates.parquet"
        ]
    );
    for table in tables {
        let csv = lines(&written[&table.replace(".parquet", ".csv")]);
        assert!(csv.len() > 1 && csv == lines_of_parquet(&out.join(table)), "{table}");
    }

    let index: Vec<serde_json::Value> = serde_json::from_slice(&written["npy/index.json"]).unwrap();
    assert_eq!(index.len(), written.keys().filter(|name| name.starts_with("matrices/")).count());
    assert_eq!(index.len() + 1, written.keys().filter(|name| name.starts_with("npy/")).count());
    let mut missing = 0;
    for entry in &index {
        let file = entry["file"].as_str().unwrap();
        let (n, values) = npy(&written[&format!("npy/{file}")]);
        let matrix = lines(&written[&format!("matrices/{}", file.replace(".npy", ".csv"))]);
        let layers: Vec<u32> = matrix[0][1..].iter().map(|layer| layer.parse().unwrap()).collect();
        assert_eq!(entry["layers"], serde_json::to_value(&layers).unwrap());
        let expected = matrix[1..].iter().flat_map(|row| &row[1..]).map(|phi| phi.parse::<f64>().ok());
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
fn csv_is_always_written_and_the_rest_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let endings = |written: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let mut endings: Vec<String> = written.keys().map(|name| name.rsplit('.').next().unwrap().to_owned()).collect();
        endings.sort();
        endings.dedup();
        endings
    };
    let usual = run(root, "usual", &[]);
    assert_eq!(endings(&usual), ["csv"]);
    let mut arrow = run(root, "arrow", &["--formats", "parquet,parquet"]);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(root.join("arrow/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["options"]["formats"], serde_json::json!(["csv", "parquet"]));
    assert_eq!(manifest["outputs"].as_object().unwrap().len(), arrow.len() + 1);
    for table in [
        "alignment.parquet",
        "conversion.parquet",
        "cuts.parquet",
        "relation.parquet",
        "similarity.parquet",
        "spectrum.parquet",
        "summary.parquet",
        "updates.parquet",
    ] {
        assert!(arrow.remove(table).is_some(), "{table}");
    }
    assert!(arrow == usual);
    let mut numpy = run(root, "numpy", &["--formats", "npy"]);
    assert_eq!(endings(&numpy), ["csv", "json", "npy"]);
    numpy.retain(|name, _| !name.starts_with("npy/"));
    assert!(numpy == usual);
    let refused = Run::of(analyze(["x", "--formats", "arrow"]).output().unwrap()).exits(2);
    assert!(refused.stderr.contains("possible values: csv, parquet, npy"), "{}", refused.stderr);
}
