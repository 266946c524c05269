//! The same input and seed give the same bytes with any number of threads and any other adapters in the same run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::BTreeMap;
use std::path::Path;

use shared::checkpoint::{Layer, PLAIN, square_layers, write_adapter, write_base};
use shared::program::{Run, analyze, data, files, real_base, tables};

/// Every output but the manifest, which holds times.
fn outputs(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(root);
    assert!(all.remove("manifest.json").is_some());
    all
}

/// The lines of the tables that speak of one adapter, headers left out.
fn lines_of(tables: &BTreeMap<String, Vec<u8>>, adapter: &str) -> BTreeMap<String, Vec<String>> {
    tables
        .iter()
        .filter_map(|(name, bytes)| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let lines: Vec<String> = match name.strip_prefix("matrices/") {
                Some(rest) if rest.starts_with(&format!("{adapter}/")) => text.lines().map(str::to_owned).collect(),
                Some(_) => return None,
                None => text.lines().filter(|line| line.starts_with(&format!("{adapter},"))).map(str::to_owned).collect(),
            };
            Some((name.clone(), lines))
        })
        .collect()
}

/// Names the first file and line that differ: a diff of whole tables says nothing.
#[track_caller]
fn same(what: &str, one: &BTreeMap<String, Vec<u8>>, two: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in one {
        if *bytes != two[name] {
            let (x, y) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&two[name]));
            let at = x.lines().zip(y.lines()).find(|(a, b)| a != b);
            panic!("{what}: {name} differs: {at:?}");
        }
    }
}

/// The rows of one adapter in two runs.
#[track_caller]
fn same_rows(adapter: &str, one: &BTreeMap<String, Vec<u8>>, two: &BTreeMap<String, Vec<u8>>) {
    let joined = |tables: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        let lines = lines_of(tables, adapter);
        assert!(lines.values().all(|lines| !lines.is_empty()), "{adapter} has no rows");
        lines.into_iter().map(|(name, lines)| (name, lines.join("\n").into_bytes())).collect()
    };
    same(adapter, &joined(one), &joined(two));
}

#[test]
fn neither_threads_nor_repetition_change_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let run = |number: usize, threads: &str| {
        let out = folder.path().join(format!("out{number}"));
        let mut command = analyze([data("adapters")]);
        command.arg("--base").arg(real_base()).arg("--init").arg(data("init")).arg("-o").arg(&out);
        command.args(["--matrices", "A,B,BA,lora_A,lora_B", "--side", "both", "--ij", "8,8", "--ij", "2,4", "--figures", "svg"]);
        command.arg("--measures");
        let shown = Run::of(command.args(["--threads", threads, "--json"]).output().unwrap()).exits(0).stdout;
        (outputs(&out), shown)
    };
    let first = run(0, "1");
    assert_eq!(first.0.keys().filter(|name| name.ends_with(".csv") && !name.contains('/')).count(), 9);
    for (number, threads) in [(1, "1"), (2, "2"), (3, "2"), (4, "5")] {
        let again = run(number, threads);
        same(&format!("--threads {threads}"), &first.0, &again.0);
        assert_eq!(first.1, again.1, "--threads {threads}");
    }
}

#[test]
fn companions_do_not_change_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str, paths: &[&str]| {
        let out = folder.path().join(out);
        let mut command = analyze(paths.iter().map(|p| data(p)));
        command.arg("--base").arg(real_base()).arg("-o").arg(&out).args(["--figures", "none", "--side", "both", "--measures"]);
        Run::of(command.output().unwrap()).exits(0);
        tables(&out)
    };
    let all = run("all", &["adapters"]);
    for adapter in ["sst2-seed0", "sst2-seed1", "trec-seed0"] {
        let alone = run(adapter, &[&format!("adapters/{adapter}")]);
        same_rows(adapter, &alone, &all);
    }
}

#[test]
fn fewer_modules_and_layers_do_not_change_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let mut command = analyze([data("adapters/trec-seed0")]);
        command.arg("--base").arg(real_base()).arg("-o").arg(&out).args(["--figures", "none"]).args(more);
        Run::of(command.output().unwrap()).exits(0);
        lines_of(&tables(&out), "trec-seed0")
    };
    let (all, some) = (run("all", &[]), run("some", &["--modules", "value", "--layers", "1..2,5"]));
    for table in ["similarity.csv", "conversion.csv", "spectrum.csv"] {
        assert!(!some[table].is_empty());
        for line in &some[table] {
            assert!(all[table].contains(line), "{table}: {line}");
        }
    }
}

#[test]
fn adapters_of_other_ranks_do_not_change_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut layers = square_layers(3, 40, 8);
    layers.extend((0..3).map(|l| Layer::new(&format!("model.layers.{l}.mlp.down_proj"), 40, 64, 8)));
    write_base(&root.join("base"), &layers, PLAIN);
    let of_rank = |rank: usize| -> Vec<Layer> {
        layers
            .iter()
            .map(|layer| Layer { w0: layer.w0.clone(), ..Layer::new(&layer.path, layer.w0.nrows(), layer.w0.ncols(), rank) })
            .collect()
    };
    for rank in [1, 3, 8] {
        write_adapter(&root.join(format!("adapters/rank{rank}")), &of_rank(rank), PLAIN, &[]);
    }
    let run = |out: &str, path: &str| {
        Run::of(
            analyze([path, "--base", "base", "-o", out, "--figures", "none", "--side", "both", "--measures"])
                .current_dir(root)
                .output()
                .unwrap(),
        )
        .exits(0);
        tables(&root.join(out))
    };
    let all = run("all", "adapters");
    for adapter in ["rank1", "rank3", "rank8"] {
        let alone = run(adapter, &format!("adapters/{adapter}"));
        same_rows(adapter, &alone, &all);
    }
}

#[test]
fn draws_do_not_change_phi() {
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let mut command = analyze([data("adapters/trec-seed0")]);
        command
            .arg("--base")
            .arg(real_base())
            .arg("-o")
            .arg(&out)
            .args(["--figures", "none", "--ij", "8,8", "--ij", "1,1"])
            .args(more);
        Run::of(command.output().unwrap()).exits(0);
        tables(&out)
    };
    let (none, twenty, other_seed) = (run("0", &["--null-draws", "0"]), run("20", &[]), run("s", &["--seed", "7"]));
    // Columns of similarity.csv up to phi_error_bound; the other tables but the summary know no draws.
    let phis = |tables: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let text = String::from_utf8(tables["similarity.csv"].clone()).unwrap();
        text.lines().map(|line| line.split(',').take(10).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(phis(&none), phis(&twenty));
    assert_eq!(phis(&none), phis(&other_seed));
    // In cuts.csv φ is followed by the controls.
    let of_cuts = |tables: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        let text = String::from_utf8(tables["cuts.csv"].clone()).unwrap();
        text.lines().map(|line| line.split(',').take(12).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(of_cuts(&none), of_cuts(&twenty));
    assert_eq!(of_cuts(&none), of_cuts(&other_seed));
    let with_draws = ["alignment.csv", "cuts.csv", "relation.csv", "similarity.csv", "summary.csv"];
    for name in twenty.keys().filter(|name| !with_draws.contains(&name.as_str())) {
        assert_eq!(none[name], twenty[name], "{name}");
        assert_eq!(other_seed[name], twenty[name], "{name}");
    }
    assert_ne!(other_seed["summary.csv"], twenty["summary.csv"]);
    let without = String::from_utf8(none["summary.csv"].clone()).unwrap();
    let fields: Vec<&str> = without.lines().nth(1).unwrap().split(',').collect();
    // gaussian_expected is no draw; gaussian_mean to w0_p are.
    assert!(!fields[10].is_empty() && fields[11..17].iter().all(|f| f.is_empty()), "{fields:?}");
}

#[test]
fn the_first_draw_is_the_first_of_two() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |out: &str, draws: &str| -> Vec<condlora::table::SummaryRow> {
        let out = folder.path().join(out);
        let mut command = analyze([data("adapters/trec-seed0")]);
        command.arg("--base").arg(real_base()).arg("-o").arg(&out).args(["--figures", "none", "--null-draws", draws]);
        Run::of(command.output().unwrap()).exits(0);
        condlora::table::csv::read_rows(&out.join("summary.csv")).unwrap()
    };
    for (one, two) in rows("1", "1").iter().zip(&rows("2", "2")) {
        // One draw has no deviation, and so no z.
        assert!(one.w0_sd.is_none() && one.gaussian_sd.is_none() && one.w0_z.is_none() && two.w0_z.is_some());
        for (first, mean, sd) in [(one.w0_mean, two.w0_mean, two.w0_sd), (one.gaussian_mean, two.gaussian_mean, two.gaussian_sd)]
        {
            // Two values lie sd/√2 to both sides of their mean.
            let (off, expected) = ((first.unwrap() - mean.unwrap()).abs(), sd.unwrap() / 2.0_f64.sqrt());
            assert!((off - expected).abs() < 1e-15, "{off:e} and {expected:e}");
        }
    }
}
