//! Where Θ lies in the spectrum of W0: the share of its energy in the smallest singular directions, beside what Gaussian targets would
//! have there and what the target itself has. A panel for Θ_A and one for Θ_B; means over the layers and how far these are apart.

use std::collections::BTreeMap;

use super::parts::chart::{self, Axis, LABEL, OBSERVED, Plot, Points, Sample, Spread, Tone};
use super::parts::names::matrix_name;
use super::parts::side_by_side::SideBySide;
use super::parts::ticks::with_room;
use super::scene::Scene;
use super::scene::colour::Rgb;
use crate::table::{EnergyRow, gather};
use crate::terms::MatrixKind;

const HEIGHT: f64 = 200.0;
const WIDTH: f64 = 300.0;
const TICKS: usize = 7;
/// The share that is named above a panel is that of so many directions.
const NAMED: usize = 8;
const THETA: Tone = Tone { ink: OBSERVED, fill: Rgb(0xba, 0xce, 0xec) };
const TARGET: Tone = Tone { ink: Rgb(0x5c, 0x5c, 0x5c), fill: Rgb(0xe4, 0xe4, 0xe4) };

/// All rows of one adapter's module.
pub(super) struct Energy<'a> {
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    rows: Vec<&'a EnergyRow>,
}

/// Gathers the rows of `energy.csv`, in the order in which each module first appears.
pub(super) fn energies(rows: &[EnergyRow]) -> Vec<Energy<'_>> {
    gather(rows, |row| (row.adapter.as_str(), row.module.as_str()))
        .into_iter()
        .map(|((adapter, module), rows)| Energy { adapter, module, rows })
        .collect()
}

/// The rows of one matrix by number of directions: one for each layer.
type ByCount<'a> = BTreeMap<usize, Vec<&'a EnergyRow>>;

impl Energy<'_> {
    fn matrices(&self) -> Vec<(MatrixKind, ByCount<'_>)> {
        let with_share = self.rows.iter().filter(|row| row.theta_share.is_some_and(f64::is_finite));
        let mut matrices: Vec<(MatrixKind, ByCount<'_>)> = gather(with_share, |row| row.matrix)
            .into_iter()
            .map(|(matrix, rows)| {
                let mut by_count = ByCount::new();
                rows.into_iter().for_each(|row| by_count.entry(row.k).or_default().push(row));
                (matrix, by_count)
            })
            .collect();
        matrices.sort_by_key(|(matrix, _)| *matrix);
        matrices
    }

    /// The figure; `None` if no layer has a share.
    pub(super) fn scene(&self) -> Option<Scene> {
        let matrices = self.matrices();
        let most = matrices.iter().filter_map(|(_, by_count)| by_count.keys().next_back()).max()?;
        // With room for a dot at all ends.
        let x = Axis::log(0.85, 1.18 * *most as f64, TICKS);
        let y = Axis::linear(-0.03, 1.03, TICKS);
        let layers = matrices.iter().flat_map(|(_, by_count)| by_count.values()).map(Vec::len).max()?;
        let sample = |tone: Tone| if layers > 1 { Sample::Spread(tone) } else { Sample::Line(tone.ink) };
        let second = if layers > 1 {
            format!("share of ‖Θ‖² in the k smallest: mean, least and most of {layers} layers")
        } else {
            "share of ‖Θ‖² in the k smallest".to_owned()
        };
        let (mut scene, plots) = SideBySide {
            adapter: self.adapter,
            module: self.module,
            what: " · Θ in the singular directions of W0",
            second,
            key: vec![
                (sample(THETA), "Θ"),
                (sample(chart::W0), "Θ of Gaussian targets, expected"),
                (sample(TARGET), "the target itself, A or B"),
            ],
            y: &y,
            y_name: "share of the squared norm",
            panels: matrices.iter().map(|(matrix, by_count)| panel_name(*matrix, by_count)).collect(),
            width: WIDTH,
            height: HEIGHT,
            caption: "Solving for Θ divides by the singular values of W0. Where nearly all of Θ lies in the few smallest \
                      directions, as with Gaussian targets, the similarity of layers shows these directions of W0, and little \
                      of the training."
                .to_owned(),
        }
        .open();
        for ((_, by_count), plot) in matrices.iter().zip(&plots) {
            let spreads: [Spread; 3] = [
                spread(plot, &x, by_count, TARGET, |row| row.target_share),
                spread(plot, &x, by_count, chart::W0, |row| row.gaussian_share),
                spread(plot, &x, by_count, THETA, |row| row.theta_share),
            ];
            plot.spreads(&mut scene, &spreads, 0.0);
            spreads.iter().for_each(|spread| plot.dots(&mut scene, &spread.mean, spread.tone.ink));
            let ticks = by_count.keys().map(|k| (plot.x(&x, *k as f64), k.to_string())).collect();
            plot.close_with(&mut scene, with_room(ticks, LABEL), "k, number of the smallest singular directions of W0");
        }
        Some(scene)
    }
}

/// `Θ_A: 96 % in the 8 smallest of 384`.
fn panel_name(matrix: MatrixKind, by_count: &ByCount<'_>) -> String {
    let name = matrix_name(matrix);
    let all = by_count.keys().next_back().copied().unwrap_or_default();
    let named = by_count.range(..=NAMED).next_back().filter(|(k, _)| **k < all);
    let mean = named.and_then(|(k, rows)| Some((k, Ends::of(rows, |row| row.theta_share)?.mean)));
    mean.map_or_else(|| name.clone(), |(k, mean)| format!("{name}: {:.0} % in the {k} smallest of {all}", 100.0 * mean))
}

/// What the layers have at one number of directions.
#[derive(Clone, Copy)]
struct Ends {
    least: f64,
    mean: f64,
    most: f64,
}

impl Ends {
    /// Of the layers that have a value; `None` if none has.
    fn of(rows: &[&EnergyRow], value: fn(&EnergyRow) -> Option<f64>) -> Option<Self> {
        let values: Vec<f64> = rows.iter().filter_map(|row| value(row)).filter(|value| value.is_finite()).collect();
        let (least, most) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
        Some(Self { least, mean: values.iter().map(|value| value / values.len() as f64).sum(), most })
    }
}

fn spread(plot: &Plot<'_>, x: &Axis, by_count: &ByCount<'_>, tone: Tone, value: fn(&EnergyRow) -> Option<f64>) -> Spread {
    let ends: Vec<(f64, Option<Ends>)> = by_count.iter().map(|(k, rows)| (plot.x(x, *k as f64), Ends::of(rows, value))).collect();
    let points = |part: fn(Ends) -> f64| -> Points { ends.iter().map(|(x, ends)| (*x, ends.map(part))).collect() };
    Spread { low: points(|ends| ends.least), mean: points(|ends| ends.mean), high: points(|ends| ends.most), tone }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Element;
    use super::*;

    /// Two layers with `theta` ± 0.1 in the k smallest of 64 directions.
    fn rows(theta: impl Fn(usize) -> f64) -> Vec<EnergyRow> {
        let row = |layer: u32, k: usize| {
            let all = k == 64;
            EnergyRow {
                adapter: "a".into(),
                module: "query".into(),
                matrix: MatrixKind::A,
                layer: Some(layer.into()),
                k,
                theta_share: Some(if all { 1.0 } else { theta(k) + if layer == 0 { 0.1 } else { -0.1 } }),
                gaussian_share: Some(if all { 1.0 } else { 0.9 }),
                target_share: Some(k as f64 / 64.0),
                participation: Some(2.0),
            }
        };
        [1, 2, 4, 8, 16, 32, 64].into_iter().flat_map(|k| [row(0, k), row(1, k)]).collect()
    }

    fn paths(scene: &Scene, ink: Rgb) -> Vec<&Vec<(i32, i32)>> {
        let path = |item: &'_ Element| matches!(item, Element::Path { colour, points, .. } if *colour == ink && points.len() > 2);
        let lines = scene.elements.iter().filter(|item| path(item));
        lines.filter_map(|item| if let Element::Path { points, .. } = item { Some(points) } else { None }).collect()
    }

    fn says(scene: &Scene, wanted: &str) -> bool {
        scene.elements.iter().any(|item| matches!(item, Element::Text(text) if text.text == wanted))
    }

    #[test]
    fn shares_stand_at_the_logarithm_of_their_number_of_directions() {
        let rows = rows(|k| 0.2 + 0.05 * (k as f64).log2());
        let scene = energies(&rows)[0].scene().unwrap();
        // Least, most, mean.
        let [low, high, mean] = paths(&scene, OBSERVED)[..] else { unreachable!() };
        assert_eq!((low.len(), high.len(), mean.len()), (7, 7, 7));
        let steps: Vec<i32> = mean.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(steps.iter().all(|step| (step - steps[0]).abs() <= 1 && *step > 80), "{steps:?}");
        // 200 pixels of 2 units each are from −0.03 to 1.03.
        let up = |from: (i32, i32), to: (i32, i32)| f64::from(from.1 - to.1) / 400.0 * 1.06;
        assert!((up(low[0], high[0]) - 0.2).abs() < 0.006 && (up(low[0], mean[0]) - 0.1).abs() < 0.006);
        assert!((up(mean[0], mean[4]) - 0.2).abs() < 0.006 && (up(mean[0], mean[6]) - 0.8).abs() < 0.006);
        let target = paths(&scene, TARGET.ink)[2];
        assert!((up(target[0], target[5]) - 31.0 / 64.0).abs() < 0.006);
        for text in [
            "Θ_A: 35 % in the 8 smallest of 64",
            "1",
            "2",
            "64",
            "share of ‖Θ‖² in the k smallest: mean, least and most of 2 layers",
        ] {
            assert!(says(&scene, text), "{text}");
        }
    }

    #[test]
    fn one_layer_has_no_spread_and_no_share_no_figure() {
        let mut alone: Vec<EnergyRow> = rows(|_| 0.5).into_iter().filter(|row| row.layer == Some(0.into())).collect();
        alone.iter_mut().for_each(|row| row.layer = None);
        let scene = energies(&alone)[0].scene().unwrap();
        assert!(says(&scene, "share of ‖Θ‖² in the k smallest"));
        alone.iter_mut().for_each(|row| row.theta_share = None);
        assert!(energies(&alone)[0].scene().is_none() && energies(&[]).is_empty());
    }

    #[test]
    fn extreme_tables_are_drawn() {
        for k in [0, 1, usize::MAX] {
            let some = rows(|_| 0.5).into_iter().take(1).map(|row| EnergyRow { k, theta_share: Some(-f64::MAX), ..row });
            let rows: Vec<EnergyRow> = some.collect();
            assert!(energies(&rows)[0].scene().unwrap().width < 2_000);
        }
        let uneven: Vec<EnergyRow> = rows(|_| 0.5)
            .into_iter()
            .map(|row| EnergyRow { k: row.k - usize::from(row.layer == Some(1.into()) && row.k == 64), ..row })
            .collect();
        let scene = energies(&uneven)[0].scene().unwrap();
        assert!(says(&scene, "64") && !says(&scene, "63"));
    }
}
