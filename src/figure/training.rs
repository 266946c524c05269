//! How an adapter was trained: losses, metrics of evaluation, learning rate and gradient norm by step.

use std::collections::HashMap;

use super::parts::chart::{self, Axis, BELOW, LABEL, MARGIN, Plot, Points, SUBTITLE, Sample, TITLE, key};
use super::scene::colour::{self, Rgb};
use super::scene::font::{fit, printable};
use super::scene::{Anchor, SCALE, Scene};
use crate::table::gather;
use crate::table::rows::TrainingRow;

const HEIGHT: f64 = 170.0;
const WIDTH: f64 = 230.0;
/// Gap between two panels, which have their own vertical axes.
const GAP: f64 = 20.0;
const TICKS: usize = 6;
const STEP_TICKS: usize = 4;
/// Height of a line of a panel's key, and the maximum number of curves in a panel.
const KEY_LINE: f64 = 15.0;
const MOST_CURVES: usize = 5;
/// Evaluations are rare: up to this many points are drawn with dots.
const MOST_DOTS: usize = 60;
/// The colours of a panel's curves. Each has a contrast of at least 3:1 with white.
const CURVES: [Rgb; MOST_CURVES] =
    [chart::OBSERVED, chart::CONTROL, Rgb(0x2e, 0x7d, 0x32), Rgb(0x7b, 0x3f, 0xa0), Rgb(0x5c, 0x5c, 0x5c)];

/// The quantity that a panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Theme {
    Loss,
    Metrics,
    LearningRate,
    GradientNorm,
}

impl Theme {
    const ALL: [Self; 4] = [Self::Loss, Self::Metrics, Self::LearningRate, Self::GradientNorm];

    fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Metrics => "metrics of evaluation",
            Self::LearningRate => "learning rate",
            Self::GradientNorm => "norm of the gradient",
        }
    }

    /// The panel for a name in the log; `None` for times, totals at the end, and names that only their program knows.
    fn of(name: &str) -> Option<Self> {
        let is_time = ["_runtime", "_per_second", "_preparation_time"].iter().any(|end| name.ends_with(end));
        match name {
            "learning_rate" => Some(Self::LearningRate),
            "grad_norm" => Some(Self::GradientNorm),
            "loss" => Some(Self::Loss),
            _ if is_time || !name.starts_with("eval_") => None,
            _ if name.ends_with("loss") => Some(Self::Loss),
            _ => Some(Self::Metrics),
        }
    }
}

/// The training log of one adapter.
pub(super) struct Training<'a> {
    pub(super) adapter: &'a str,
    rows: Vec<&'a TrainingRow>,
}

/// Gathers the rows of `training.csv`, in the order in which each adapter first appears.
pub(super) fn trainings(rows: &[TrainingRow]) -> Vec<Training<'_>> {
    gather(rows, |row| row.adapter.as_str()).into_iter().map(|(adapter, rows)| Training { adapter, rows }).collect()
}

/// One panel: its curves by name, in the order of the log, each by rising step.
struct Curves<'a> {
    theme: Theme,
    curves: Vec<(&'a str, Points)>,
    y: Axis,
}

impl<'a> Training<'a> {
    fn panels(&self) -> Vec<Curves<'a>> {
        let mut panels = Vec::new();
        for theme in Theme::ALL {
            let mut places: HashMap<&str, usize> = HashMap::new();
            let mut curves: Vec<(&str, Points)> = Vec::new();
            for row in self.rows.iter().filter(|row| Theme::of(&row.name) == Some(theme)) {
                let place = *places.entry(&row.name).or_insert(curves.len());
                if place == curves.len() {
                    curves.push((&row.name, Vec::new()));
                }
                curves[place].1.push((row.step as f64, row.value.filter(|value| value.is_finite())));
            }
            curves.iter_mut().for_each(|(_, points)| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
            let values = || curves.iter().flat_map(|(_, points)| points).filter_map(|point| point.1);
            if let (Some(lo), Some(hi)) = (values().reduce(f64::min), values().reduce(f64::max)) {
                let room = 0.05 * (hi - lo);
                // The axis of a quantity that is never negative starts at zero if its values come near it.
                let lo = if lo >= 0.0 && lo < 0.5 * hi { 0.0 } else { lo - room };
                panels.push(Curves { theme, curves, y: Axis::linear(lo, hi + room, TICKS) });
            }
        }
        panels
    }

    /// The figure; `None` if the log has nothing that can be drawn as a curve.
    pub(super) fn scene(&self) -> Option<Scene> {
        let panels = self.panels();
        let steps = || panels.iter().flat_map(|panel| &panel.curves).flat_map(|(_, points)| points).map(|point| point.0);
        let (first, last) = (steps().reduce(f64::min)?, steps().reduce(f64::max)?);
        // With room for a dot at both ends.
        let room = 0.02 * (last - first);
        let x = Axis::linear((first - room).max(0.0), last + room, STEP_TICKS);
        let content: f64 = panels.iter().map(|panel| panel.y.width() + WIDTH).sum::<f64>() + (panels.len() - 1) as f64 * GAP;
        let title = fit(&format!("{}: training", printable(self.adapter)), TITLE, content);
        let epochs = self.rows.iter().filter_map(|row| row.epoch).filter(|epoch| epoch.is_finite()).reduce(f64::max);
        let epochs = epochs.map_or_else(String::new, |epochs| match (100.0 * epochs).round() / 100.0 {
            1.0 => ", 1 epoch".to_owned(),
            rounded => format!(", {rounded} epochs"),
        });
        let second = fit(&format!("{last:.0} steps{epochs}, as its trainer_state.json has them"), SUBTITLE, content);
        let lines = panels.iter().map(|panel| panel.lines()).max().unwrap_or(0);
        let keys = chart::SECOND_AT + 30.0;
        let top = keys + lines as f64 * KEY_LINE + if lines > 0 { 4.0 } else { 0.0 };

        // The last step's number may reach beyond its panel.
        let mut scene =
            Scene::new(content + 2.0 * MARGIN + 0.5 * GAP, top + HEIGHT + BELOW + MARGIN, format!("{title}. {second}"));
        chart::titles(&mut scene, title, second);
        let mut left = MARGIN;
        for panel in &panels {
            left += panel.y.width();
            let plot = Plot { left, top, width: WIDTH, height: HEIGHT, y: &panel.y };
            panel.draw(&mut scene, &plot, &x, keys);
            left += WIDTH + GAP;
        }
        Some(scene)
    }
}

impl Curves<'_> {
    /// Number of lines in its key: none if the panel's title already names the curve.
    fn lines(&self) -> usize {
        match (self.theme, self.curves.len()) {
            (Theme::LearningRate | Theme::GradientNorm, _) => 0,
            (_, count) => count.min(MOST_CURVES) + usize::from(count > MOST_CURVES),
        }
    }

    fn draw(&self, scene: &mut Scene, plot: &Plot<'_>, x: &Axis, keys: f64) {
        scene.text(plot.left, keys - 7.0, SUBTITLE, Anchor::Start, colour::INK, self.theme.name());
        plot.grid(scene, true);
        for ((name, points), (index, stroke)) in self.curves.iter().zip(CURVES.into_iter().enumerate()) {
            let placed: Points = points.iter().map(|(step, value)| (plot.x(x, *step), *value)).collect();
            let dotted = placed.len() <= MOST_DOTS;
            plot.line(scene, &thinned(&placed), 1.2, 0.0, stroke);
            if dotted {
                plot.dots(scene, &placed, stroke);
            }
            if self.lines() > 0 {
                let sample = if dotted { Sample::Dotted(stroke) } else { Sample::Line(stroke) };
                let name = fit(&printable(name), LABEL, plot.width - 30.0);
                key(scene, plot.left, keys + (index as f64 + 0.5) * KEY_LINE, &[(sample, &name)]);
            }
        }
        if let Some(more) = self.curves.len().checked_sub(MOST_CURVES).filter(|more| *more > 0) {
            let at = keys + (MOST_CURVES as f64 + 0.5) * KEY_LINE;
            scene.text_centred(plot.left, at, LABEL, Anchor::Start, colour::SOFT_INK, format!("{more} more in training.csv"));
        }
        plot.close_axis(scene, x, "step");
    }
}

/// Drops points that would not be visible: of those in one column of pixels it keeps the first, the smallest, the largest and the
/// last.
fn thinned(points: &Points) -> Points {
    let column = |x: f64| (x * SCALE).round();
    let mut kept: Points = Vec::new();
    for run in points.chunk_by(|a, b| column(a.0) == column(b.0)) {
        if run.len() <= 4 || run.iter().any(|point| point.1.is_none()) {
            // A run of missing values is kept as one, so that the line is still interrupted.
            let gap = run.len() > 4;
            kept.extend(
                run.iter()
                    .enumerate()
                    .filter(|(k, point)| !gap || *k == 0 || *k + 1 == run.len() || (point.1.is_none() && run[k - 1].1.is_some()))
                    .map(|(_, point)| *point),
            );
            continue;
        }
        let by_value = |a: &&(f64, Option<f64>), b: &&(f64, Option<f64>)| a.1.unwrap_or(0.0).total_cmp(&b.1.unwrap_or(0.0));
        kept.extend([run.first(), run.iter().min_by(by_value), run.iter().max_by(by_value), run.last()].into_iter().flatten());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: usize, name: &str, value: f64) -> TrainingRow {
        TrainingRow { adapter: "a".into(), step, epoch: Some(step as f64 / 10.0), name: name.into(), value: Some(value) }
    }

    #[test]
    fn names_find_their_panel() {
        for (name, theme) in [
            ("loss", Some(Theme::Loss)),
            ("eval_loss", Some(Theme::Loss)),
            ("eval_mnli_mm_loss", Some(Theme::Loss)),
            ("eval_accuracy", Some(Theme::Metrics)),
            ("eval_runtime", None),
            ("eval_samples_per_second", None),
            ("train_loss", None),
            ("num_tokens", None),
            ("learning_rate", Some(Theme::LearningRate)),
            ("grad_norm", Some(Theme::GradientNorm)),
        ] {
            assert_eq!(Theme::of(name), theme, "{name}");
        }
    }

    #[test]
    fn a_long_log_is_thinned_and_keeps_its_peaks() {
        let points: Points = (0..100_000).map(|k| (k as f64 / 500.0, Some(if k == 77_777 { 9.0 } else { 1.0 }))).collect();
        let kept = thinned(&points);
        assert!(kept.len() < 2_000 && kept.iter().any(|point| point.1 == Some(9.0)), "{}", kept.len());
        assert!(kept.windows(2).all(|pair| (pair[0].0 * SCALE).round() <= (pair[1].0 * SCALE).round()));
        let few: Points = vec![(0.0, Some(1.0)), (0.0, None), (0.1, Some(2.0))];
        assert_eq!(thinned(&few), few);
    }

    #[test]
    fn extreme_logs_are_drawn() {
        for rows in [
            vec![row(0, "loss", 1.0)],
            vec![row(usize::MAX, "loss", f64::MAX), row(0, "loss", -f64::MAX)],
            (0..20).map(|k| row(k, &format!("eval_{k}"), 1e-300)).collect(),
        ] {
            let scene = trainings(&rows)[0].scene().unwrap();
            assert!(scene.width < 3_000 && scene.height < 1_000);
        }
        assert!(trainings(&[row(1, "train_runtime", 3.0)])[0].scene().is_none());
        assert!(trainings(&[]).is_empty());
    }
}
