//! Adapters of a newer PEFT and transformers on the linear layers of 22 architectures, experts included, as `tests/interop/make_newest.py` made them: every
//! weight is found, read the right way round and compared as NumPy finds it from the live model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow};
use condlora::terms::{LayerId, MatrixKind, Side};
use serde_json::Value;
use shared::program::run_in;

/// φ of weights in half precision, by two ways through the inverse.
const TOLERANCE: f64 = 1e-9;

/// A module and a layer of it.
type Place = (String, Option<LayerId>);

#[test]
fn every_weight_of_every_architecture_is_found_and_compared() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/newest");
    let mut folders: Vec<_> = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert_eq!(folders.len(), 22);
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
        let out = tempfile::tempdir().unwrap();
        let [adapter, base] = ["adapter", "base"].map(|part| folder.join(part).to_string_lossy().into_owned());
        let words = [&adapter, "--base", &base, "--null-draws", "0", "--no-svd", "--figures", "none", "-o", "out"];
        let run = run_in(out.path(), &words).exits(0);
        assert!(!run.stderr.contains("warning"), "{name}: {}", run.stderr);

        let conversion: Vec<ConversionRow> = read_rows(&out.path().join("out/conversion.csv")).unwrap();
        let mut norms: BTreeMap<&str, f64> = BTreeMap::new();
        let mut places: BTreeMap<&str, Place> = BTreeMap::new();
        for row in &conversion {
            // Of a fused projection over weights apart there are two parts.
            *norms.entry(&row.adapter_key).or_default() += row.norm_delta.unwrap().powi(2);
            places.insert(&row.adapter_key, (row.module.clone(), row.layer.clone()));
        }
        let wanted = expected["norms"].as_object().unwrap();
        assert_eq!(norms.keys().copied().collect::<BTreeSet<_>>(), wanted.keys().map(String::as_str).collect(), "{name}");
        for (key, norm) in wanted {
            let (found, norm) = (norms[key.as_str()].sqrt(), norm.as_f64().unwrap());
            assert!((found - norm).abs() < 1e-12 * norm, "{name} {key}: {found} against {norm}");
        }

        let similarity: Vec<SimilarityRow> = read_rows(&out.path().join("out/similarity.csv")).unwrap();
        let mut compared = 0;
        for pair in expected["phi"].as_array().unwrap() {
            let [one, other] = [0, 1].map(|k| &places[pair[k].as_str().unwrap()]);
            if one.0.ends_with(".up") {
                continue;
            }
            assert_eq!(one.0, other.0, "{name}: {pair}");
            for (letter, matrix) in [("A", MatrixKind::A), ("B", MatrixKind::B)] {
                let is_it = |row: &&SimilarityRow| {
                    let layers = (Some(&row.layer_a), Some(&row.layer_b)) == (one.1.as_ref(), other.1.as_ref());
                    layers && row.module == one.0 && (row.matrix, row.side) == (matrix, Side::Left)
                };
                let (found, phi) = (similarity.iter().find(is_it).unwrap().phi.unwrap(), pair[2][letter].as_f64().unwrap());
                assert!((found - phi).abs() < TOLERANCE, "{name} {pair} {letter}: {found} against {phi}");
                compared += 1;
            }
        }
        assert!(compared >= 4, "{name}: {compared}");
    }
}
