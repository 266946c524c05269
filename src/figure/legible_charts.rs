//! Charts are legible too: spectra, grids, training curves, cuts, energies, expectations, and layers left out.

use super::groups::layer_similarities;
use super::legible::{check, study, ways};
use super::scene::Element;
use super::{cuts, energy, expected, grid, held_out, spectrum, training};
use crate::table::rows::{GridRow, SpectrumRow, TrainingRow};
use crate::table::{CutRow, EnergyRow, HeldOutRow};
use crate::terms::{MatrixKind, Side, SpectrumMatrix, Status, UpdateMatrix};

#[test]
fn predictions_of_layers_left_out_are_legible() {
    for (layers, maps, module, score) in [
        (
            6,
            &[(UpdateMatrix::A, HeldOutRow::W0), (UpdateMatrix::A, HeldOutRow::W0_TRANSPOSED), (UpdateMatrix::B, HeldOutRow::W0)]
                [..],
            "query",
            0.03,
        ),
        (
            80,
            &[(UpdateMatrix::A, HeldOutRow::W0_TRANSPOSED), (UpdateMatrix::B, HeldOutRow::W0)],
            "encoder.a/rather/long.name",
            1.0,
        ),
        (2, &[(UpdateMatrix::B, HeldOutRow::W0)], "q", 0.0),
    ] {
        let row = |(matrix, map): (UpdateMatrix, &str), weighting: &str, layer: String| HeldOutRow {
            module: module.repeat(3),
            matrix,
            map: map.into(),
            weighting: weighting.into(),
            score: Some(score),
            chance: Some(0.0208),
            without_w0: Some(0.2),
            flip_mean: (layer == HeldOutRow::ALL).then_some(0.03),
            flip_sd: Some(0.01),
            flip_p: None,
            shuffled_mean: None,
            shuffled_p: None,
            status: Status::Singular,
            layer,
        };
        let layers = || (0..layers).map(|layer: u32| layer.to_string()).chain([HeldOutRow::ALL.to_owned()]);
        let rows: Vec<HeldOutRow> = maps
            .iter()
            .flat_map(|map| [HeldOutRow::SUBSPACE, HeldOutRow::ENERGY].map(|weighting| (map, weighting)))
            .flat_map(|(map, weighting)| layers().map(move |layer| row(*map, weighting, layer)))
            .collect();
        let predictions = held_out::Predictions { module: &rows[0].module, rows: rows.iter().collect() };
        let scene = predictions.scene(Some("an-adapter")).unwrap();
        check(&scene, &format!("{} maps", maps.len()));
        let dots = scene.elements.iter().filter(|item| matches!(item, Element::Dot { .. })).count();
        // One in the key; for each map and weighting one a layer and one for all.
        assert_eq!(dots, 1 + 2 * maps.len() * layers().count());
        let none: Vec<HeldOutRow> = rows.iter().map(|row| HeldOutRow { score: None, chance: None, ..row.clone() }).collect();
        assert!(held_out::Predictions { module: "m", rows: none.iter().collect() }.scene(None).is_none());
    }
}

#[test]
fn spectra_grids_and_training_curves_are_legible() {
    let adapter = || "an-adapter".to_owned();
    for (layers, r) in [(1, 1), (6, 8), (80, 16), (200, 64)] {
        let sigma = |layer: u32, k: usize| 3.0 / (k * k) as f64 / f64::from(layer + 1);
        let row = |matrix, layer: u32, k| SpectrumRow {
            adapter: adapter(),
            module: "q_proj".into(),
            matrix,
            layer: Some(layer.into()),
            k,
            sigma: sigma(layer, k),
        };
        // The update has no panel.
        let rows: Vec<SpectrumRow> = SpectrumMatrix::ALL
            .into_iter()
            .flat_map(|matrix| (0..layers).flat_map(move |layer| (1..=r).map(move |k| row(matrix, layer, k))))
            .collect();
        let conversion: Vec<SpectrumRow> = rows.iter().filter(|row| row.matrix.conversion().is_some()).cloned().collect();
        for (spectra, without) in spectrum::spectra(&rows).iter().zip(spectrum::spectra(&conversion)) {
            let scene = spectra.scene().unwrap();
            check(&scene, &format!("singular values of {layers} layers"));
            assert_eq!(scene, without.scene().unwrap());
        }
    }
    for r in [1, 8, 16, 17, 64] {
        let row = |i: usize, j: usize| GridRow {
            adapter: adapter(),
            module: "q_proj".into(),
            matrix: MatrixKind::A,
            side: Side::Left,
            layer_a: 3.into(),
            layer_b: 117.into(),
            i,
            j,
            phi: (!(i + j).is_multiple_of(11)).then_some((i * j) as f64 / (r * r) as f64),
            gaussian_expected: Some(i.max(j) as f64 / 768.0),
            status: Status::Ok,
        };
        let rows: Vec<GridRow> = (1..=r).flat_map(|i| (1..=r).map(move |j| row(i, j))).collect();
        for options in ways() {
            for grid in grid::groups(&rows) {
                check(&grid.scene(&options), &format!("{r} x {r} numbers of vectors"));
            }
        }
    }
    for steps in [2, 40, 5000] {
        let row = |name: &str, step: usize, value: f64| TrainingRow {
            adapter: adapter(),
            step,
            epoch: Some(step as f64 / 10.0),
            name: name.to_owned(),
            value: Some(value),
        };
        let at = |step: usize| {
            let share = step as f64 / steps as f64;
            [row("loss", step, 2.0 - share), row("eval_accuracy", step, share), row("learning_rate", step, 1e-3 * (1.0 - share))]
        };
        let rows: Vec<TrainingRow> = (1..=steps).flat_map(at).collect();
        for training in training::trainings(&rows) {
            check(&training.scene().unwrap(), &format!("training of {steps} steps"));
        }
    }
}

#[test]
fn cuts_energies_and_expectations_are_legible() {
    let long = "encoder.a/rather/long.name".repeat(5);
    let kinds = |count: usize| [MatrixKind::A, MatrixKind::B].into_iter().take(count);
    for (count, module, of_each) in [(1, "query", 3), (2, &long, 7), (2, "query", 11), (1, &long, 40), (2, "query", 200)] {
        let row = |matrix, cut: String, phi: Option<f64>| CutRow {
            adapter: "an-adapter".to_owned(),
            module: module.to_owned(),
            matrix,
            side: Side::Left,
            i: 8,
            j: 8,
            kept_min: Some(120),
            kept_max: Some(16_384),
            layers: 80,
            phi_mean: phi,
            gaussian_kept: phi.map(|phi| 0.5 * phi),
            w0_mean: phi.map(|phi| 0.9 * phi),
            w0_sd: Some(0.05),
            w0_p: Some(0.5),
            flip_mean: phi.map(|phi| 0.7 * phi),
            flip_sd: Some(0.03),
            flip_p: Some(0.001),
            flip_draws: Some(1000),
            shuffled_p: None,
            status: Status::LowConfidence,
            cut,
        };
        let of = |matrix| {
            let cuts =
                (0..of_each).map(move |k| (f64::from(k) / f64::from(of_each)).to_string()).chain([CutRow::ADJOINT.to_owned()]);
            let rows = cuts.enumerate().map(move |(k, cut)| row(matrix, cut, (k % 9 != 3).then_some(0.1 + k as f64 / 300.0)));
            rows.chain([row(matrix, CutRow::ALL.to_owned(), None)])
        };
        let rows: Vec<CutRow> = kinds(count).flat_map(of).collect();
        check(&cuts::cuts(&rows)[0].scene().unwrap(), &format!("{of_each} cuts of {count}"));
    }
    for (count, layers, most) in [(1, 1, 7), (2, 6, 384), (2, 80, 16_384)] {
        let row = |matrix, layer: u32, k: usize| EnergyRow {
            adapter: "an-adapter".to_owned(),
            module: "q_proj".to_owned(),
            matrix,
            layer: Some(layer.into()),
            k,
            theta_share: Some((k as f64 / most as f64).powf(1.0 / f64::from(layer + 2))),
            gaussian_share: Some(0.8),
            target_share: Some(k as f64 / most as f64),
            participation: Some(3.0),
        };
        // Ranks differ a little.
        let of_layer = |layer: u32| (0..7).map(|k| 1 << k).filter(move |k| *k < most).chain([most - layer as usize]);
        let rows: Vec<EnergyRow> = kinds(count)
            .flat_map(|matrix| (0..layers).flat_map(move |layer| of_layer(layer).map(move |k| row(matrix, layer, k))))
            .collect();
        check(&energy::energies(&rows)[0].scene().unwrap(), &format!("energies of {layers} layers"));
    }
    for (count, layers, module) in [(1, 4, &long[..]), (2, 6, "query"), (2, 80, &long)] {
        let similarities = study(&[module], &kinds(count).collect::<Vec<_>>(), layers);
        for one in expected::expectations(&layer_similarities(&similarities)) {
            check(&one.scene().unwrap(), &format!("expectations of {layers} layers"));
        }
    }
}
