//! Updates beside their base weights: `updates.csv`, `relation.csv`, `alignment.csv` and the intruders, compared with the float64 oracle of the real
//! checkpoints, and on small ones with direct computations.
//!
//! The oracle (NumPy and SciPy) and its results for each adapter in `notebooks-data/` are beside the repository, in `../shared/data/science/NAME/`; where
//! they are not, the tests that need them say so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use condlora::table::csv::read_rows;
use condlora::table::{AlignmentRow, ConversionRow, IntruderCountRow, IntruderRow, RelationRow, SpectrumRow, UpdateRow};
use condlora::terms::{Side, SpectrumMatrix, Status};
use ndarray::{Array2, s};
use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base, write_both};
use shared::program::{Run, analyze, data, files, program, real_base, run_in, tables};

const ADAPTERS: [&str; 3] = ["trec-seed0", "sst2-seed0", "sst2-seed1"];
/// Draws of the oracle's controls and of ours, but for those of intruders, which take the most time.
const DRAWS: f64 = 200.0;
const DRAWS_OF_INTRUDERS: f64 = 20.0;
/// Relative, of everything that is not drawn.
const TOLERANCE: f64 = 1e-9;

/// The oracle's results for an adapter; none where they are not beside the repository.
fn oracle(adapter: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/science").join(adapter);
    if !path.is_dir() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// A row of the oracle's tables by column.
type Expected = BTreeMap<String, String>;

fn expected_rows(folder: &Path, file: &str) -> Vec<Expected> {
    let mut reader = csv::Reader::from_path(folder.join(file)).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

fn number(row: &Expected, column: &str) -> f64 {
    row[column].parse().unwrap()
}

/// Compares columns that are not drawn, and keeps the worst relative difference.
struct Comparison(&'static str, f64);

impl Comparison {
    #[track_caller]
    fn equal(&mut self, row: &Expected, columns: &[(&str, Option<f64>)]) {
        for &(column, found) in columns {
            let expected = number(row, column);
            let off = (found.unwrap() - expected).abs() / expected.abs();
            assert!(off <= TOLERANCE, "{} of {row:?}: {found:?}, {off:e} off", column);
            self.1 = self.1.max(off);
        }
    }

    fn done(self) {
        eprintln!("{}: at most {:.1e} off", self.0, self.1);
    }
}

/// The mean of draws agrees with the oracle's to four standard errors of both.
#[track_caller]
fn means_agree(row: &Expected, columns: [&str; 2], found: [Option<f64>; 2]) {
    let ([mean, sd], [ours, our_sd]) = (columns.map(|column| number(row, column)), found.map(Option::unwrap));
    let allowed = 4.0 * sd.max(our_sd) * (1.0 / DRAWS + 1.0 / DRAWS_OF_INTRUDERS).sqrt();
    assert!((mean - ours).abs() <= allowed, "{} of {row:?}: {ours}, {allowed} allowed", columns[0]);
}

/// Two standard deviations agree to four of their standard errors, which are `√((kurtosis − 1)/4/draws)` of each.
#[track_caller]
fn deviations_agree(row: &Expected, column: &str, found: Option<f64>, kurtosis: f64) {
    let (expected, found) = (number(row, column), found.unwrap());
    let error = ((kurtosis - 1.0) / 4.0 * 2.0 / DRAWS).sqrt();
    assert!((found / expected).ln().abs() < 4.0 * error, "{column} of {row:?}: {found}");
}

/// Shares of draws agree to four standard errors of both.
#[track_caller]
fn shares_agree(row: &Expected, column: &str, found: Option<f64>, draws: f64) {
    let (expected, found) = (number(row, column), found.unwrap());
    // The least variance is that of one draw in as many.
    let middle = 0.5 * (expected + found);
    let error = (middle * (1.0 - middle)).max(1.0 / draws).sqrt() * (1.0 / DRAWS + 1.0 / draws).sqrt();
    assert!((expected - found).abs() <= 4.0 * error, "{column} of {row:?}: {found}");
}

/// The tables of a run on all adapters.
struct Results {
    updates: Vec<UpdateRow>,
    spectrum: Vec<SpectrumRow>,
    relation: Vec<RelationRow>,
    alignment: Vec<AlignmentRow>,
    intruders: Vec<IntruderRow>,
    counts: Vec<IntruderCountRow>,
}

impl Results {
    /// Of a run with `--intruders`.
    fn of(out: &Path) -> Self {
        Self {
            intruders: read_rows(&out.join("intruders.csv")).unwrap(),
            counts: read_rows(&out.join("intruder_counts.csv")).unwrap(),
            ..Self::without_intruders(out)
        }
    }

    fn without_intruders(out: &Path) -> Self {
        Self {
            updates: read_rows(&out.join("updates.csv")).unwrap(),
            spectrum: read_rows(&out.join("spectrum.csv")).unwrap(),
            relation: read_rows(&out.join("relation.csv")).unwrap(),
            alignment: read_rows(&out.join("alignment.csv")).unwrap(),
            intruders: Vec::new(),
            counts: Vec::new(),
        }
    }
}

fn run(out: &Path, more: &[&str]) -> Run {
    let mut command = analyze([data("adapters")]);
    command.arg("--base").arg(real_base()).arg("-o").arg(out).args(["--figures", "none", "-q", "--matrices", "A"]).args(more);
    Run::of(command.output().unwrap()).exits(0)
}

fn results() -> &'static Results {
    static RESULTS: OnceLock<Results> = OnceLock::new();
    RESULTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        run(&out, &["--null-draws", "200"]);
        Results::without_intruders(&out)
    })
}

#[test]
fn sizes_and_ranks_of_updates_are_the_oracles() {
    let mut off = Comparison("updates.csv", 0.0);
    for adapter in ADAPTERS {
        let Some(folder) = oracle(adapter) else { return };
        let expected = expected_rows(&folder, "update.csv");
        let ours: Vec<&UpdateRow> = results().updates.iter().filter(|row| row.adapter == adapter).collect();
        assert_eq!((ours.len(), expected.len()), (12, 12));
        for (row, expected) in ours.into_iter().zip(&expected) {
            assert_eq!((&row.module, row.layer.as_ref().unwrap().to_string()), (&expected["module"], expected["layer"].clone()));
            off.equal(
                expected,
                &[
                    ("norm_w0", Some(row.norm_w0)),
                    ("sigma1_w0", row.sigma1_w0),
                    ("norm_delta", row.norm_delta),
                    ("sigma1_delta", row.sigma1_delta),
                    ("sigma1_ratio", row.sigma1_ratio),
                    ("norm_ratio", row.norm_ratio),
                    ("stable_rank", row.stable_rank),
                    ("entropy_rank", row.entropy_rank),
                    ("energy_first", row.energy_first),
                    ("cosine", row.cosine),
                    ("cosine_z", row.cosine_z),
                ],
            );
            assert_eq!(row.rank_90.unwrap().to_string(), expected["rank_90"]);
            assert_eq!(row.rank_99.unwrap().to_string(), expected["rank_99"]);
            assert_eq!(row.status, Status::Ok);
        }
    }
    off.done();
}

#[test]
fn singular_values_of_updates_are_the_oracles() {
    let mut off = Comparison("spectrum.csv", 0.0);
    for adapter in ADAPTERS {
        let Some(folder) = oracle(adapter) else { return };
        let expected = expected_rows(&folder, "update_spectrum.csv");
        let ours: Vec<&SpectrumRow> =
            results().spectrum.iter().filter(|row| row.adapter == adapter && row.matrix == SpectrumMatrix::Delta).collect();
        assert_eq!(ours.len(), expected.len());
        for (row, expected) in ours.into_iter().zip(&expected) {
            let key = (row.module.clone(), row.layer.as_ref().unwrap().to_string(), row.k.to_string());
            assert_eq!(key, (expected["module"].clone(), expected["layer"].clone(), expected["k"].clone()));
            off.equal(expected, &[("sigma", Some(row.sigma))]);
        }
    }
    off.done();
}

#[test]
fn what_updates_see_of_their_weights_is_the_oracles() {
    let mut off = Comparison("relation.csv", 0.0);
    for adapter in ADAPTERS {
        let Some(folder) = oracle(adapter) else { return };
        let expected = expected_rows(&folder, "relation.csv");
        let ours: Vec<&RelationRow> = results().relation.iter().filter(|row| row.adapter == adapter).collect();
        assert_eq!((ours.len(), expected.len()), (28, 28));
        for (row, expected) in ours.into_iter().zip(&expected) {
            let key = (&row.module, &row.layer, row.k.to_string());
            assert_eq!(key, (&expected["module"], &expected["layer"], expected["k"].clone()));
            off.equal(expected, &[("pairing", row.pairing)]);
            // One direction's pairing is the square of a nearly normal number, eight directions' the sum of many.
            deviations_agree(expected, "flip_sd", row.flip_sd, if row.k == 1 { 15.0 } else { 5.0 });
            shares_agree(expected, "flip_p", row.flip_p, DRAWS);
            if row.layer == RelationRow::ALL {
                assert!(row.projected_delta.is_none() && row.projected_profile.is_none() && row.random_sd.is_none());
                continue;
            }
            off.equal(
                expected,
                &[
                    ("projected_delta", row.projected_delta),
                    ("projected_w0", row.projected_w0),
                    ("projected_random", row.projected_random),
                    ("times_random", row.times_random),
                    ("amplification", row.amplification),
                    ("amplification_random", row.amplification_random),
                    ("projected_profile", row.projected_profile),
                ],
            );
            deviations_agree(expected, "random_sd", row.random_sd, 4.0);
            shares_agree(expected, "p", row.p, DRAWS);
        }
    }
    off.done();
}

#[test]
fn where_updates_lie_is_the_oracles() {
    let mut off = Comparison("alignment.csv", 0.0);
    for adapter in ADAPTERS {
        let Some(folder) = oracle(adapter) else { return };
        let expected = expected_rows(&folder, "alignment.csv");
        let ours: Vec<&AlignmentRow> = results().alignment.iter().filter(|row| row.adapter == adapter).collect();
        assert_eq!((ours.len(), expected.len()), (48, 48));
        for (row, expected) in ours.into_iter().zip(&expected) {
            let key = (row.module.clone(), row.layer.as_ref().unwrap().to_string(), row.side.to_string(), row.k.to_string());
            assert_eq!(
                key,
                (expected["module"].clone(), expected["layer"].clone(), expected["side"].clone(), expected["k"].clone())
            );
            off.equal(
                expected,
                &[
                    ("gain", row.gain),
                    ("eighth_1", row.eighth_1),
                    ("eighth_2", row.eighth_2),
                    ("eighth_3", row.eighth_3),
                    ("eighth_4", row.eighth_4),
                    ("eighth_5", row.eighth_5),
                    ("eighth_6", row.eighth_6),
                    ("eighth_7", row.eighth_7),
                    ("eighth_8", row.eighth_8),
                ],
            );
            deviations_agree(expected, "gain_sd", row.gain_sd, 4.0);
            shares_agree(expected, "p", row.p, DRAWS);
        }
    }
    off.done();
}

#[test]
fn intruders_are_the_oracles() {
    if oracle(ADAPTERS[0]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    run(&out, &["--null-draws", "20", "--intruders=10,0.8"]);
    let results = Results::of(&out);
    let mut off = Comparison("intruders.csv", 0.0);
    for adapter in ADAPTERS {
        let Some(folder) = oracle(adapter) else { return };
        let expected = expected_rows(&folder, "intruders.csv");
        let ours: Vec<&IntruderRow> = results.intruders.iter().filter(|row| row.adapter == adapter).collect();
        assert_eq!((ours.len(), expected.len()), (120, 120));
        for (row, expected) in ours.iter().zip(&expected) {
            let key = (row.module.clone(), row.layer.as_ref().unwrap().to_string(), row.j.to_string());
            assert_eq!(key, (expected["module"].clone(), expected["layer"].clone(), expected["j"].clone()));
            off.equal(
                expected,
                &[("sigma", Some(row.sigma)), ("cos_left", Some(row.cos_left)), ("cos_right", Some(row.cos_right))],
            );
            let indices = (row.index_left.to_string(), row.index_right.to_string());
            assert_eq!(indices, (expected["index_left"].clone(), expected["index_right"].clone()));
        }
        let expected = expected_rows(&folder, "intruder_counts.csv");
        // The other thresholds are counts of the same cosines.
        for row in &expected {
            let epsilon = number(row, "epsilon");
            let of_layer =
                |one: &&&IntruderRow| one.module == row["module"] && one.layer.as_ref().unwrap().to_string() == row["layer"];
            let below = ours.iter().filter(of_layer).filter(|one| one.cos_left < epsilon).count();
            assert_eq!(below.to_string(), row["intruders"], "{row:?}");
        }
        let of_one = expected.iter().filter(|row| number(row, "epsilon") == 0.8);
        let counts = results.counts.iter().filter(|row| row.adapter == adapter);
        let mut compared = 0;
        for (row, expected) in counts.zip(of_one) {
            let key = (row.module.clone(), row.layer.as_ref().unwrap().to_string(), row.intruders.to_string());
            assert_eq!(key, (expected["module"].clone(), expected["layer"].clone(), expected["intruders"].clone()));
            assert_eq!((row.top, row.epsilon), (10, 0.8));
            means_agree(expected, ["random_mean", "random_sd"], [row.random_mean, row.random_sd]);
            shares_agree(expected, "p_more", row.p_more, DRAWS_OF_INTRUDERS);
            shares_agree(expected, "p_fewer", row.p_fewer, DRAWS_OF_INTRUDERS);
            compared += 1;
        }
        assert_eq!(compared, 12);
    }
    off.done();
}

#[test]
fn without_decompositions_the_numbers_that_need_none_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    run(&out, &["--no-svd", "--null-draws", "40", "--modules", "value"]);
    assert!(!out.join("alignment.csv").exists() && !out.join("intruders.csv").exists());
    let of_value = |module: &str| module == "value";
    let updates: Vec<UpdateRow> = read_rows(&out.join("updates.csv")).unwrap();
    let with: Vec<&UpdateRow> = results().updates.iter().filter(|row| of_value(&row.module)).collect();
    assert_eq!((updates.len(), with.len()), (18, 18));
    let same = |one: Option<f64>, other: Option<f64>| {
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!((one / other - 1.0).abs() <= TOLERANCE, "{one} {other}");
    };
    for (row, with) in updates.iter().zip(with) {
        assert_eq!((&row.adapter, &row.layer, row.rank_90, row.cosine_z), (&with.adapter, &with.layer, with.rank_90, None));
        same(Some(row.norm_w0), Some(with.norm_w0));
        same(row.cosine, with.cosine);
        // Singular values of W0 are left out with everything else that takes its decomposition.
        assert_eq!((row.sigma1_w0, row.sigma1_ratio), (None, None));
    }
    let relation: Vec<RelationRow> = read_rows(&out.join("relation.csv")).unwrap();
    let with: Vec<&RelationRow> = results().relation.iter().filter(|row| of_value(&row.module)).collect();
    assert_eq!((relation.len(), with.len()), (42, 42));
    for (row, with) in relation.iter().zip(with) {
        assert_eq!((&row.adapter, &row.layer, row.k, row.status), (&with.adapter, &with.layer, with.k, with.status));
        assert!([row.projected_w0, row.projected_profile, row.pairing, row.flip_sd, row.flip_p].iter().all(Option::is_none));
        if row.layer != RelationRow::ALL {
            same(row.projected_delta, with.projected_delta);
            same(row.projected_random, with.projected_random);
            assert!((row.random_sd.unwrap() / with.random_sd.unwrap()).ln().abs() < 0.8, "{row:?}");
        }
    }
    let refused = run_in(folder.path(), &["x", "--base", "y", "--no-svd", "--intruders"]).exits(2);
    assert!(refused.stderr.contains("--no-svd") && refused.stderr.contains("--intruders"), "{}", refused.stderr);
}

/// Layers of a module that is not square, the fourth of which has a factor of lower rank, and the sixth none at all.
fn wide_layers(d_out: usize, d_in: usize) -> Vec<Layer> {
    let mut layers: Vec<Layer> = (0..6).map(|l| Layer::new(&format!("model.layers.{l}.mlp.up_proj"), d_out, d_in, 3)).collect();
    let row = layers[3].a.row(0).to_owned();
    layers[3].a.row_mut(1).assign(&row);
    layers[5].b.fill(0.0);
    layers
}

#[test]
fn any_shape_and_any_update_has_its_rows() {
    for (d_out, d_in) in [(24, 15), (15, 24)] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut all = wide_layers(d_out, d_in);
        write_base(&root.join("base"), &all, PLAIN);
        // The adapter leaves a layer out.
        all.remove(1);
        write_adapter(&root.join("adapter"), &all, PLAIN, &[]);
        run_in(root, &["adapter", "--base", "base", "-o", "out", "--intruders=4,0.9", "--figures", "none"]).exits(0);
        let results = Results::of(&root.join("out"));
        let layers = [0, 2, 3, 4, 5];
        assert_eq!(results.updates.iter().map(|row| row.layer.as_ref().unwrap().index().unwrap()).collect::<Vec<_>>(), layers);
        let zero = results.updates.last().unwrap();
        assert_eq!((zero.status, zero.norm_delta, zero.sigma1_delta, zero.cosine), (Status::Zero, Some(0.0), None, None));
        assert!(results.updates[..4].iter().all(|row| row.status == Status::Ok && row.cosine_z.is_some()));

        let statuses: Vec<(String, usize, Status)> =
            results.relation.iter().map(|row| (row.layer.clone(), row.k, row.status)).collect();
        let of = |k: usize, deficient| {
            let by_layer = [Status::Ok, Status::Ok, deficient, Status::Ok, Status::Zero, Status::Zero];
            let names = layers.map(|layer| layer.to_string()).into_iter().chain([RelationRow::ALL.to_owned()]);
            names.zip(by_layer).map(move |(layer, status)| (layer, k, status)).collect::<Vec<_>>()
        };
        assert_eq!(statuses, [of(3, Status::Rank), of(1, Status::Ok)].concat());
        for row in &results.relation {
            let counts = row.status == Status::Ok || row.layer == RelationRow::ALL;
            assert_eq!((row.pairing.is_some(), row.flip_p.is_some()), (counts, counts), "{row:?}");
        }

        assert_eq!(results.alignment.len(), 5 * 2 * 2);
        for row in results.alignment.iter().filter(|row| row.status == Status::Ok) {
            let eighths =
                [row.eighth_1, row.eighth_2, row.eighth_3, row.eighth_4, row.eighth_5, row.eighth_6, row.eighth_7, row.eighth_8];
            let sum: f64 = eighths.iter().map(|share| share.unwrap()).sum();
            // What lies outside of W0's range, on the longer side, is in no eighth.
            let whole = (row.side == Side::Left) == (d_out < d_in);
            assert!(if whole { (sum - 1.0).abs() < 1e-12 } else { sum < 1.0 }, "{row:?}: {sum}");
        }

        assert_eq!((results.intruders.len(), results.counts.len()), (5 * 4, 5));
        let none = results.counts.last().unwrap();
        assert_eq!((none.intruders, none.random_mean, none.p_more, none.p_fewer), (0, Some(0.0), Some(1.0), Some(1.0)));
        assert!(results.intruders[16..].iter().all(|row| (row.cos_left, row.index_left) == (1.0, row.j)));
        // Updates as large as these turn everything.
        assert!(
            results.counts[..4].iter().all(|row| row.intruders > 0 && row.random_mean.unwrap() > 0.0),
            "{:?}",
            results.counts
        );
        assert!(results.spectrum.iter().filter(|row| row.matrix == SpectrumMatrix::Delta).count() == 4 * 3);
    }
}

#[test]
fn one_layer_of_rank_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layer = Layer::new("embed.proj", 9, 9, 1);
    write_both(root, std::slice::from_ref(&layer), PLAIN);
    run_in(root, &["adapter", "--base", "base", "-o", "out", "--intruders", "--figures", "none"]).exits(0);
    let results = Results::of(&root.join("out"));
    let relation: Vec<(String, usize)> = results.relation.iter().map(|row| (row.layer.clone(), row.k)).collect();
    assert_eq!(relation, [(String::new(), 1), (RelationRow::ALL.to_owned(), 1)]);
    assert_eq!(results.relation[0].pairing, results.relation[1].pairing);
    assert_eq!((results.updates.len(), results.updates[0].layer.clone(), results.updates[0].rank_99), (1, None, Some(1)));
    assert_eq!((results.alignment.len(), results.counts[0].top), (2, 9));
    let delta = layer.b.dot(&layer.a) * 2.0;
    let norm = |matrix: &Array2<f64>| matrix.iter().map(|v| v * v).sum::<f64>().sqrt();
    let cosine = (&delta * &layer.w0).sum() / (norm(&delta) * norm(&layer.w0));
    assert!((results.updates[0].cosine.unwrap() / cosine - 1.0).abs() < 1e-12);
}

#[test]
fn draws_depend_on_nothing_but_their_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(3, 24, 4);
    write_base(&root.join("base"), &layers, PLAIN);
    for (name, rank) in [("a", 4), ("b", 2), ("c", 4)] {
        let turned = if name == "c" { -0.5 } else { 1.0 };
        let changed: Vec<Layer> = layers
            .iter()
            .map(|l| Layer {
                a: l.a.slice(s![..rank, ..]).mapv(|v| v * v - turned),
                b: l.b.slice(s![.., ..rank]).to_owned(),
                ..l.clone()
            })
            .collect();
        write_adapter(&root.join("runs").join(name), &changed, PLAIN, &[]);
    }
    for strict in [&["--intruders=5,0.7"][..], &["--no-svd"]] {
        let all = |out: &str, more: &[&str]| {
            let options = ["runs", "--base", "base", "--figures", "none", "--overwrite", "--null-draws", "25", "-o", out];
            run_in(root, &[&options[..], strict, more].concat()).exits(0);
            tables(&root.join(out))
        };
        let whole = all("whole", &["--threads", "2"]);
        assert_eq!(whole, all("one", &["--threads", "1"]));
        for k in 1..=3 {
            all(&format!("s{k}"), &["--shard", &format!("{k}/3")]);
        }
        let merge = ["merge", "s2", "s1", "s3", "-o", "merged", "--overwrite", "--figures", "none"];
        Run::of(program().args(merge).current_dir(root).output().unwrap()).exits(0);
        let merged = files(&root.join("merged"));
        for (name, bytes) in &whole {
            assert!(merged.get(name) == Some(bytes), "{name} of {strict:?}");
        }
        for table in ["updates.csv", "relation.csv"] {
            assert!(whole.contains_key(table), "{table}");
        }
        let svd = strict[0] != "--no-svd";
        for table in ["alignment.csv", "intruders.csv", "intruder_counts.csv"] {
            assert_eq!(whole.contains_key(table), svd, "{table}");
        }
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for value in ["0,0.5", "10", "10,0", "10,1.1", "ten,0.5"] {
        run_in(folder.path(), &["x", &format!("--intruders={value}")]).exits(2).says("as in 10,0.5");
    }
}

/// An update beyond the range of f64 has no norm, and the tables that say so are read like any other.
#[test]
fn an_update_beyond_the_range_of_f64_has_no_norm() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 16, 4);
    write_base(&root.join("base"), &layers, PLAIN);
    for layer in &mut layers {
        layer.a *= 1e200;
        layer.b *= 1e200;
    }
    write_adapter(&root.join("adapter"), &layers, PLAIN, &[]);
    run_in(root, &["adapter", "--base", "base", "-o", "out", "--null-draws", "2", "--figures", "none"]).exits(0);
    let updates: Vec<UpdateRow> = read_rows(&root.join("out/updates.csv")).unwrap();
    assert!(updates.iter().all(|row| (row.norm_delta, row.status) == (None, Status::Unreliable)) && updates.len() == 3);
    let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
    assert!(conversion.iter().all(|row| row.norm_delta.is_none() && row.norm_a.is_some() && row.norm_b.is_some()));
    Run::of(program().args(["figures", "out", "--figures-dir", "drawn"]).current_dir(root).output().unwrap()).exits(0);
}
