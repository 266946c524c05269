//! Residuals of fitting one Θ to all layers: by layer and for all layers together, with those of the strict control and of Gaussian targets.

use std::collections::HashMap;

use rayon::prelude::*;

use super::context::FigureContext;
use super::kind::{DrawnFigure, FigureKind, in_each_format};
use super::options::FigureOptions;
use super::parts::chart::{self, Axis, BELOW, LABEL, MARGIN, OBSERVED, Plot, Points, SUBTITLE, Sample, TITLE, key};
use super::parts::layers::{axis_name, layer_numbers};
use super::parts::names::{doubt, update_name};
use super::parts::ticks::labelled_layers;
use super::scene::colour;
use super::scene::font::{self, fit, printable};
use super::scene::{Anchor, Scene};
use crate::error::Result;
use crate::table::{FitRow, gather};
use crate::terms::{LayerId, UpdateMatrix};

const HEIGHT: f64 = 190.0;
const GAP: f64 = 26.0;
const WIDEST: f64 = 420.0;
const NARROWEST: f64 = 200.0;
const CELL: f64 = 30.0;
/// Width of the part for all layers together, and the gap before it.
const ALL_WIDTH: f64 = 44.0;
const ALL_GAP: f64 = 8.0;
const TICKS: usize = 6;

/// Draws the residuals of every module, in table order.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_fit(rows: &[FitRow], context: &FigureContext<'_>, options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let modules = gather(rows, |row| row.module.as_str());
    let modules: Vec<Residuals<'_>> = modules.into_iter().map(|(module, rows)| Residuals { module, rows }).collect();
    let draw = |residuals: &Residuals<'_>| match residuals.scene(context.adapter) {
        Some(scene) => in_each_format(&scene, "", &FigureKind::Fit { module: residuals.module.to_owned() }, options),
        None => Ok(Vec::new()),
    };
    let drawn: Vec<Result<Vec<DrawnFigure>>> = modules.par_iter().map(draw).collect();
    Ok(drawn.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The rows of one module.
struct Residuals<'a> {
    module: &'a str,
    rows: Vec<&'a FitRow>,
}

impl Residuals<'_> {
    fn layers(&self) -> Vec<LayerId> {
        let mut layers: Vec<LayerId> =
            self.rows.iter().filter(|row| row.layer != FitRow::ALL).filter_map(|row| row.layer.parse().ok()).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    /// Whether the strict control was drawn: the verdict goes by it, and so its band is shown, and of Gaussian targets only the mean.
    fn is_strict(&self) -> bool {
        self.rows.iter().any(|row| row.flip_mean.is_some())
    }

    /// From a little below the smallest residual to a little above the largest, including the spread of the controls.
    fn axis(&self) -> Option<Axis> {
        let strict = self.is_strict();
        let spread = |row: &&FitRow| {
            let edge = |sign: f64| control(row, strict).map(|(mean, sd)| mean + sign * sd);
            [row.residual, row.residual_expected, edge(-1.0), edge(1.0)]
        };
        let values = || self.rows.iter().flat_map(spread).flatten().filter(|value| value.is_finite());
        let (lo, hi) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
        let room = 0.08 * (hi - lo).max(1e-3);
        Some(Axis::linear((lo - room).max(0.0), hi + room, TICKS))
    }

    fn scene(&self, adapter: Option<&str>) -> Option<Scene> {
        let (layers, y) = (self.layers(), self.axis()?);
        let matrices: Vec<UpdateMatrix> =
            UpdateMatrix::ALL.into_iter().filter(|matrix| self.rows.iter().any(|row| row.matrix == *matrix)).collect();
        let layers_width = if layers.is_empty() { 0.0 } else { (CELL * layers.len() as f64).clamp(NARROWEST, WIDEST) };
        let panel = layers_width + if layers.is_empty() { 0.0 } else { ALL_GAP } + ALL_WIDTH;
        let axis = LABEL + 8.0 + y.width();
        let entries: &[_] = if self.is_strict() {
            &[
                (Sample::Dotted(OBSERVED), "observed"),
                (Sample::Control, "flip control: mean ± sd"),
                (Sample::Dashed, "Gaussian targets: mean"),
            ]
        } else {
            &[(Sample::Dotted(OBSERVED), "observed"), (Sample::Control, "Gaussian targets: mean ± sd")]
        };
        let content = (axis + matrices.len() as f64 * (panel + GAP) - GAP).max(chart::key_width(entries));

        let of = adapter.map_or_else(String::new, |name| format!("{}: ", printable(name)));
        let title = format!("{of}{} · one Θ for all layers", printable(self.module));
        let status = doubt(self.rows.iter().map(|row| row.status)).map_or_else(String::new, |status| format!(" · {status}"));
        let second = format!("what it leaves of each factor, as a share of its norm{status}");
        let (title, second) = (fit(&title, TITLE, content), fit(&second, SUBTITLE, content));
        let key_at = chart::SECOND_AT + 20.0;
        let top = key_at + 30.0;
        let mut scene = Scene::new(content + 2.0 * MARGIN, top + HEIGHT + BELOW + MARGIN, format!("{title}. {second}"));
        chart::titles(&mut scene, title, second);
        key(&mut scene, MARGIN, key_at, entries);
        scene.text_upwards(MARGIN + LABEL / 2.0, top + HEIGHT / 2.0, LABEL, Anchor::Middle, colour::INK, "residual");
        for (index, matrix) in matrices.into_iter().enumerate() {
            let left = MARGIN + axis + index as f64 * (panel + GAP);
            let plot = Plot { left, top, width: panel, height: HEIGHT, y: &y };
            self.panel(&mut scene, &plot, layers_width, matrix, &layers, index == 0);
        }
        Some(scene)
    }

    fn panel(
        &self,
        scene: &mut Scene,
        plot: &Plot<'_>,
        layers_width: f64,
        matrix: UpdateMatrix,
        layers: &[LayerId],
        labelled: bool,
    ) {
        let by_layer: HashMap<&str, &FitRow> =
            self.rows.iter().filter(|row| row.matrix == matrix).map(|row| (row.layer.as_str(), *row)).collect();
        let part = Plot { left: plot.left, top: plot.top, width: layers_width, height: plot.height, y: plot.y };
        scene.text(plot.left, plot.top - 7.0, LABEL + 1.0, Anchor::Start, colour::INK, update_name(matrix));
        plot.grid(scene, labelled);
        let at = |index: usize| part.part(index, layers.len());
        let of = |layer: &LayerId| by_layer.get(layer.to_string().as_str()).copied();
        let places = layers.iter().enumerate().map(|(index, layer)| (at(index), of(layer))).collect();
        let strict = self.is_strict();
        series(scene, plot, places, strict, (0.35 * layers_width / layers.len().max(1) as f64).min(8.0));
        // A module that is not in a repeated container has one row, without a layer number.
        let whole = by_layer.get(FitRow::ALL).or(by_layer.get("")).copied();
        let middle = plot.left + plot.width - ALL_WIDTH / 2.0;
        series(scene, plot, vec![(middle, whole)], strict, 9.0);
        let numbers = layer_numbers(layers);
        let cell = layers_width / layers.len().max(1) as f64;
        let shown = labelled_layers(&numbers, cell, 4.0, |label| font::width(label, LABEL));
        let mut ticks: Vec<(f64, String)> = shown.into_iter().map(|index| (at(index), numbers[index].to_string())).collect();
        ticks.push((middle, FitRow::ALL.to_owned()));
        if !layers.is_empty() {
            let x = plot.left + layers_width + ALL_GAP / 2.0;
            scene.line((x, plot.top), (x, plot.top + plot.height), colour::FRAME);
        }
        plot.close_with(scene, ticks, axis_name(layers));
    }
}

/// Mean and spread of the control whose band is shown.
fn control(row: &FitRow, strict: bool) -> Option<(f64, f64)> {
    let (mean, sd) = if strict { (row.flip_mean, row.flip_sd) } else { (row.residual_expected, row.residual_sd) };
    Some((mean?, sd.unwrap_or(0.0)))
}

/// Draws the control's band and mean and the observed residuals at these positions.
fn series(scene: &mut Scene, plot: &Plot<'_>, places: Vec<(f64, Option<&FitRow>)>, strict: bool, alone: f64) {
    let points = |value: &dyn Fn(&FitRow) -> Option<f64>| -> Points {
        places.iter().map(|(x, row)| (*x, row.and_then(value).filter(|value| value.is_finite()))).collect()
    };
    let edge = |sign: f64| points(&|row: &FitRow| control(row, strict).map(|(mean, sd)| mean + sign * sd));
    plot.band(scene, &edge(-1.0), &edge(1.0), alone);
    plot.line(scene, &points(&|row: &FitRow| control(row, strict).map(|(mean, _)| mean)), 1.0, alone, chart::CONTROL);
    if strict {
        plot.dashed(scene, &points(&|row: &FitRow| row.residual_expected), alone);
    }
    let observed = points(&|row: &FitRow| row.residual);
    if observed.len() > 1 {
        plot.line(scene, &observed, 1.5, 0.0, OBSERVED);
    }
    plot.dots(scene, &observed, OBSERVED);
}
