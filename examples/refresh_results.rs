//! Puts a study's tables and figures in the place of older ones, unless they say the same: `make demo` runs it.
//!
//! Another CPU, or another OpenBLAS, changes last digits. What is kept in the repository is replaced only where a number moved by more
//! than that, so that running the demo leaves no changed files behind. Figures go with the tables they were drawn from:
//!
//! | tables | figures |
//! |---|---|
//! | the same bytes | written where they differ: the drawing changed |
//! | the same numbers but for noise | left alone, unless one is missing |
//! | other numbers, or a file missing | all replaced, tables and figures |
//!
//! usage: `refresh_results NEW_RESULTS NEW_FIGURES RESULTS FIGURES [--always]`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program, not the library")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use condlora::output::write_files_atomically;
use condlora::table::columns::{CellValue, Row};
use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow, SpectrumRow, SummaryRow};

/// By how much a number may move: absolute below 1, relative above.
const NOISE: f64 = 1e-9;
/// The same for numbers that magnify noise. They follow from others that are compared at [`NOISE`].
const LOOSE: f64 = 1e-4;

/// What two sets of tables have to do with each other.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    SameBytes,
    SameNumbers,
    Different(String),
}

type Failure = Box<dyn std::error::Error>;
/// Contents by path below a folder.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let always = arguments.iter().any(|a| a == "--always");
    arguments.retain(|a| a != "--always");
    let [new_results, new_figures, results, figures] = arguments.as_slice() else {
        eprintln!("usage: refresh_results NEW_RESULTS NEW_FIGURES RESULTS FIGURES [--always]");
        return ExitCode::from(2);
    };
    match refresh([new_results, new_figures].map(Path::new), [results, figures].map(Path::new), always) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Compares and replaces; says what it did.
fn refresh(new: [&Path; 2], old: [&Path; 2], always: bool) -> Result<String, Failure> {
    let [new_tables, new_figures] = [files_below(new[0], &["csv"])?, files_below(new[1], &["svg", "png"])?];
    let [old_tables, old_figures] = [files_below(old[0], &["csv"])?, files_below(old[1], &["svg", "png"])?];
    if new_tables.is_empty() {
        return Err(format!("{}: no tables", new[0].display()).into());
    }
    let [tables, figures] = old.map(|dir| dir.display().to_string());
    let mut verdict = compare([new[0], old[0]], [&new_tables, &old_tables])?;
    if let (Verdict::SameNumbers, Some(name)) = (&verdict, new_figures.keys().find(|name| !old_figures.contains_key(*name))) {
        verdict = Verdict::Different(format!("{} is missing from {figures}", name.display()));
    }
    if let (Verdict::SameNumbers, false) = (&verdict, always) {
        return Ok(format!("{tables}: the same numbers but for rounding; left as they are, and so is {figures}"));
    }
    for stale in old_tables.keys().filter(|name| !new_tables.contains_key(*name)) {
        std::fs::remove_file(old[0].join(stale))?;
    }
    let changed = write(old[0], &new_tables)? + write(old[1], &new_figures)?;
    Ok(match verdict {
        _ if changed == 0 => format!("{tables} and {figures}: unchanged"),
        Verdict::Different(why) => format!("{tables} and {figures}: {changed} files replaced ({why})"),
        _ => format!("{tables} and {figures}: {changed} files replaced"),
    })
}

fn write(dir: &Path, files: &Files) -> Result<usize, Failure> {
    let files: Vec<(PathBuf, &[u8])> = files.iter().map(|(name, bytes)| (dir.join(name), bytes.as_slice())).collect();
    Ok(write_files_atomically(&files)?.into_iter().filter(|changed| *changed).count())
}

/// All files below a folder with one of these endings; none where there is no folder.
fn files_below(dir: &Path, endings: &[&str]) -> Result<Files, Failure> {
    let mut found = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder == dir => return Ok(found),
            entries => entries.map_err(|error| format!("{}: {error}", folder.display()))?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
                let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                found.insert(path.strip_prefix(dir)?.to_owned(), bytes);
            }
        }
    }
    Ok(found)
}

/// Tables by name and number; `dirs` are the new folder and the old one, from which `files` were read.
fn compare(dirs: [&Path; 2], [new, old]: [&Files; 2]) -> Result<Verdict, Failure> {
    if new == old {
        return Ok(Verdict::SameBytes);
    }
    let alone = |these: &Files, those: &Files| these.keys().find(|name| !those.contains_key(*name)).cloned();
    if let Some(name) = alone(new, old).or_else(|| alone(old, new)) {
        return Ok(Verdict::Different(format!("{} is not in both", name.display())));
    }
    for name in new.keys() {
        let paths = dirs.map(|dir| dir.join(name));
        let difference = match name.to_str() {
            Some("summary.csv") => rows_difference::<SummaryRow>(&paths)?,
            Some("similarity.csv") => rows_difference::<SimilarityRow>(&paths)?,
            Some("conversion.csv") => rows_difference::<ConversionRow>(&paths)?,
            Some("spectrum.csv") => rows_difference::<SpectrumRow>(&paths)?,
            _ => matrix_difference(&paths)?,
        };
        if let Some(what) = difference {
            return Ok(Verdict::Different(format!("{}: {what}", name.display())));
        }
    }
    Ok(Verdict::SameNumbers)
}

/// The first field that differs by more than noise. An old file that cannot be read differs.
fn rows_difference<R: Row>([new, old]: &[PathBuf; 2]) -> Result<Option<String>, Failure> {
    let new: Vec<R> = read_rows(new)?;
    let old: Vec<R> = match read_rows(old) {
        Ok(rows) => rows,
        Err(error) => return Ok(Some(error.to_string())),
    };
    if new.len() != old.len() {
        return Ok(Some(format!("{} rows, before {}", new.len(), old.len())));
    }
    for (at, (new, old)) in new.iter().zip(&old).enumerate() {
        let mut before = Vec::with_capacity(R::COLUMNS.len());
        let Ok(()) = old.visit(|_, value| -> Result<(), Infallible> {
            before.push(value_of(value));
            Ok(())
        });
        let mut before = before.iter();
        let compared = new.visit(|column, value| match before.next() {
            Some(old) if same(column, &value_of(value), old) => Ok(()),
            old => Err(format!("row {}, {column}: {:?}, before {old:?}", at + 1, value_of(value))),
        });
        if let Err(what) = compared {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// φ matrices as the CSV holds them: an empty field is no value.
fn matrix_difference([new, old]: &[PathBuf; 2]) -> Result<Option<String>, Failure> {
    let fields = |path: &Path| -> Result<Vec<Vec<String>>, Failure> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(path)?;
        reader.records().map(|line| Ok(line?.iter().map(str::to_owned).collect())).collect()
    };
    let new = fields(new)?;
    let old = match fields(old) {
        Ok(fields) => fields,
        Err(error) => return Ok(Some(error.to_string())),
    };
    if new.len() != old.len() || new.first() != old.first() {
        return Ok(Some("other layers".into()));
    }
    let near = |(new, old): (&String, &String)| match (new.parse(), old.parse()) {
        (Ok(new), Ok(old)) => close("phi", new, old),
        _ => new == old,
    };
    let same = |(new, old): (&Vec<String>, &Vec<String>)| new.len() == old.len() && new.iter().zip(old).all(near);
    Ok((!new.iter().zip(&old).all(same)).then(|| "another phi".into()))
}

/// A field without the row it was borrowed from.
#[derive(Debug, PartialEq)]
enum Value {
    Number(f64),
    Other(String),
}

fn value_of(value: CellValue<'_>) -> Value {
    match value {
        CellValue::Float(number) => Value::Number(number),
        CellValue::Empty => Value::Other(String::new()),
        CellValue::Text(text) => Value::Other(text.to_owned()),
        CellValue::Integer(number) => Value::Other(number.to_string()),
    }
}

fn same(column: &str, new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Number(new), Value::Number(old)) => close(column, *new, *old),
        _ => new == old,
    }
}

/// Residuals, backward errors and the standard deviations on the diagonal are rounding errors themselves: small is all they have to be.
fn close(column: &str, new: f64, old: f64) -> bool {
    let size = new.abs().max(old.abs());
    let allowed = match column {
        // Made of residuals: of the same order is all it can be.
        "phi_error_bound" => 0.9 * size,
        "w0_condition" => LOOSE * size,
        "w0_z" => LOOSE * size.max(1.0),
        _ => NOISE * size.max(1.0),
    };
    (new - old).abs() <= allowed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]
    use super::*;

    const SPECTRUM: &str = "adapter,module,matrix,layer,k,sigma\na,query,A,0,1,2.5\na,query,A,0,2,0.5\n";
    const MATRIX: &str = "layer,0,1\n0,1.0,0.25\n1,0.25,1.0\n";

    /// Folders of a new and an old study that are the same; `spoil` changes the old one.
    fn after(spoil: impl FnOnce(&Path, &Path), always: bool) -> (String, BTreeMap<&'static str, String>) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for side in ["new", "old"] {
            for (name, text) in
                [("results/spectrum.csv", SPECTRUM), ("results/matrices/a/q.csv", MATRIX), ("figures/a/q.svg", "<svg/>")]
            {
                let path = at(side).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
        }
        spoil(&at("old/results"), &at("old/figures"));
        let folders = ["new/results", "new/figures", "old/results", "old/figures"].map(at);
        let said = refresh([&folders[0], &folders[1]], [&folders[2], &folders[3]], always).unwrap();
        let read = |name| (name, std::fs::read_to_string(at("old").join(name)).unwrap());
        (said, ["results/spectrum.csv", "results/matrices/a/q.csv", "figures/a/q.svg"].map(read).into())
    }

    fn write(path: PathBuf, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    fn is_new(files: &BTreeMap<&'static str, String>) -> bool {
        files.values().map(String::as_str).eq(["<svg/>", MATRIX, SPECTRUM])
    }

    #[test]
    fn the_same_bytes_leave_everything_but_write_a_new_drawing() {
        let (said, _) = after(|_, _| (), false);
        assert!(said.ends_with("unchanged"), "{said}");
        let (said, files) = after(|_, figures| write(figures.join("a/q.svg"), "<svg>old</svg>"), false);
        assert!(said.contains("1 files replaced") && is_new(&files), "{said}");
    }

    #[test]
    fn noise_leaves_tables_and_figures() {
        let noisy = SPECTRUM.replace("2.5", "2.5000000004");
        let spoil = |results: &Path, figures: &Path| {
            write(results.join("spectrum.csv"), &noisy);
            write(results.join("matrices/a/q.csv"), &MATRIX.replace("0.25", "0.2500000002"));
            write(figures.join("a/q.svg"), "<svg>old</svg>");
        };
        let (said, files) = after(spoil, false);
        assert!(said.contains("left as they are"), "{said}");
        assert_eq!(
            (files["results/spectrum.csv"].as_str(), files["figures/a/q.svg"].as_str()),
            (noisy.as_str(), "<svg>old</svg>")
        );
        let (said, files) = after(spoil, true);
        assert!(said.contains("3 files replaced") && is_new(&files), "{said}");
    }

    #[test]
    fn another_number_or_file_replaces_everything() {
        let spoils: [fn(&Path, &Path); 6] = [
            |results, _| write(results.join("spectrum.csv"), &SPECTRUM.replace("2.5", "2.50000001")),
            |results, _| write(results.join("spectrum.csv"), &SPECTRUM.replace("query", "value")),
            |results, _| write(results.join("spectrum.csv"), "<<<<<<<\n"),
            |results, _| write(results.join("matrices/a/q.csv"), &MATRIX.replace("0.25", "0.26")),
            |results, _| write(results.join("matrices/a/old.csv"), MATRIX),
            |results, _| std::fs::remove_file(results.join("spectrum.csv")).unwrap(),
        ];
        for spoil in spoils {
            let (said, files) = after(
                |results, figures| {
                    spoil(results, figures);
                    write(figures.join("a/q.svg"), "<svg>old</svg>");
                },
                false,
            );
            assert!(said.contains("replaced (") && is_new(&files), "{said}");
        }
    }

    #[test]
    fn a_figure_that_is_missing_comes_back() {
        let spoil = |results: &Path, figures: &Path| {
            write(results.join("spectrum.csv"), &SPECTRUM.replace("2.5", "2.5000000004"));
            std::fs::remove_file(figures.join("a/q.svg")).unwrap();
        };
        let (said, files) = after(spoil, false);
        assert!(said.contains("2 files replaced") && is_new(&files), "{said}");
    }

    #[test]
    fn some_columns_are_noisier_than_others() {
        assert!(close("residual_a", 1e-13, 3e-13) && close("phi", 0.05, 0.05 + 5e-10) && close("sigma", 1e3, 1e3 + 5e-7));
        assert!(!close("phi", 0.05, 0.05 + 5e-9) && !close("residual_a", 1e-13, 1e-8));
        assert!(close("w0_condition", 1e5, 1e5 + 1.0) && !close("w0_condition", 1e5, 1.01e5));
        assert!(close("phi_error_bound", 1e-9, 8e-9) && !close("phi_error_bound", 1e-9, 1.1e-8));
        assert!(close("w0_z", 0.9, 0.90001) && !close("w0_z", 0.9, 0.901));
    }
}
