//! The committed results are what the program gives today: every table of `notebooks-data/results/` to 1e-9, residuals and backward errors
//! only within their bounds, because another CPU does not promise more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::Path;

use shared::program::{Run, analyze, data, real_base};

/// Size of the square base weights.
const N: f64 = 384.0;
const TABLES: [&str; 4] = ["summary.csv", "similarity.csv", "conversion.csv", "spectrum.csv"];

/// Header and rows of a table.
fn table(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
    (header, rows)
}

/// Whether a value of today's run is what the committed one says.
fn agrees(column: &str, new: &str, old: &str, row: &BTreeMap<&str, &str>) -> bool {
    let (Ok(x), Ok(y)) = (new.parse::<f64>(), old.parse::<f64>()) else { return new == old };
    if column.starts_with("backward_error_") {
        return x <= N * f64::EPSILON / 2.0;
    }
    if column.starts_with("residual_") {
        let condition: f64 = row["w0_condition"].parse().unwrap();
        return x <= condition * N * f64::EPSILON;
    }
    (x - y).abs() <= 1e-9 * y.abs().max(1.0)
}

#[test]
fn the_committed_results_are_those_of_today() {
    let folder = tempfile::tempdir().unwrap();
    let (adapters, base, init) = (data("adapters"), real_base(), data("init"));
    let arguments =
        [adapters.as_path(), Path::new("--base"), &base, Path::new("--init"), &init, Path::new("--figures"), Path::new("none")];
    Run::of(analyze(arguments).current_dir(folder.path()).output().unwrap()).exits(0);
    let (new, old) = (folder.path().join("condlora-results"), data("results"));
    let mut names: Vec<String> = TABLES.iter().map(|&name| name.to_owned()).collect();
    for adapter in std::fs::read_dir(old.join("matrices")).unwrap() {
        for file in std::fs::read_dir(adapter.unwrap().path()).unwrap() {
            names.push(file.unwrap().path().strip_prefix(&old).unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(names.len(), TABLES.len() + 18);
    let mut compared = 0;
    for name in names {
        let ((header, new_rows), (old_header, old_rows)) = (table(&new.join(&name)), table(&old.join(&name)));
        assert_eq!((&header, new_rows.len()), (&old_header, old_rows.len()), "{name}");
        for (line, (new_row, old_row)) in new_rows.iter().zip(&old_rows).enumerate() {
            let row: BTreeMap<&str, &str> = header.iter().map(String::as_str).zip(new_row.iter().map(String::as_str)).collect();
            for ((column, x), y) in header.iter().zip(new_row).zip(old_row) {
                assert!(agrees(column, x, y, &row), "{name}, row {}, {column}: {x} today, {y} committed", line + 1);
                compared += 1;
            }
        }
    }
    assert!(compared > 10_000, "{compared}");
}
