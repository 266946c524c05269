//! Singular values of a module's conversion matrices: a panel for each matrix, a line for each layer. The colour says which
//! layer it is.

use std::collections::BTreeMap;

use super::options::ColourMap;
use super::parts::chart::{self, Axis, BELOW, LABEL, MARGIN, Plot, Points, SUBTITLE, TITLE};
use super::parts::layers::{layer_names, layer_numbers};
use super::parts::names::matrix_name;
use super::parts::ticks::{labelled_layers, widest};
use super::scene::colour::{self, Rgb};
use super::scene::font::{self, fit, printable};
use super::scene::{Anchor, Scene};
use crate::table::gather;
use crate::table::rows::SpectrumRow;
use crate::terms::{LayerId, MatrixKind};

const NOTE: f64 = 9.5;
/// A panel's height; its width for few and for many singular values; the width for each of them if there are few; the gap between
/// panels.
const HEIGHT: f64 = 200.0;
const NARROWEST: f64 = 170.0;
const WIDEST: f64 = 300.0;
const CELL: f64 = 22.0;
const GAP: f64 = 20.0;
/// The bar with the layers' colours, to the right of the panels.
const BAR_GAP: f64 = 18.0;
const BAR_WIDTH: f64 = 12.0;
/// Singular values below this share of the largest are only rounding, and are not drawn.
const FLOOR: f64 = 1e-20;
/// Only this part of viridis is used: lines in its lightest colours could not be seen on white.
const LIGHTEST: f64 = 0.86;
const TICKS: usize = 7;

/// The conversion matrices of one adapter's module.
pub(super) struct Spectra<'a> {
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    rows: Vec<(MatrixKind, &'a SpectrumRow)>,
}

/// Gathers the rows of `spectrum.csv` that are of conversion matrices, in the order in which each module first appears.
pub(super) fn spectra(rows: &[SpectrumRow]) -> Vec<Spectra<'_>> {
    let of_conversion = rows.iter().filter_map(|row| Some((row.matrix.conversion()?, row)));
    gather(of_conversion, |(_, row)| (row.adapter.as_str(), row.module.as_str()))
        .into_iter()
        .map(|((adapter, module), rows)| Spectra { adapter, module, rows })
        .collect()
}

/// One layer's singular values over the largest, by k from 1.
type Line = BTreeMap<usize, f64>;

impl Spectra<'_> {
    /// The layers, in rising order; empty for a module that is not in a repeated container.
    fn layers(&self) -> Vec<LayerId> {
        let mut layers: Vec<LayerId> = self.rows.iter().filter_map(|(_, row)| row.layer.clone()).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    /// Each matrix with a line for each layer.
    fn matrices(&self) -> Vec<(MatrixKind, BTreeMap<Option<LayerId>, Line>)> {
        let mut matrices: Vec<(MatrixKind, BTreeMap<Option<LayerId>, Line>)> = Vec::new();
        for &(kind, row) in &self.rows {
            let place = matrices.iter().position(|(matrix, _)| *matrix == kind).unwrap_or_else(|| {
                matrices.push((kind, BTreeMap::new()));
                matrices.len() - 1
            });
            matrices[place].1.entry(row.layer.clone()).or_default().insert(row.k, row.sigma);
        }
        for line in matrices.iter_mut().flat_map(|(_, lines)| lines.values_mut()) {
            let first = line.values().copied().fold(0.0, f64::max);
            line.values_mut().for_each(|sigma| *sigma = if first > 0.0 { *sigma / first } else { 0.0 });
        }
        matrices
    }

    /// The figure; `None` if no singular value is above zero.
    pub(super) fn scene(&self) -> Option<Scene> {
        let (layers, matrices) = (self.layers(), self.matrices());
        let ratios = || matrices.iter().flat_map(|(_, lines)| lines.values()).flat_map(BTreeMap::values).copied();
        let lowest = ratios().filter(|ratio| *ratio >= FLOOR).reduce(f64::min)?;
        let dropped = ratios().filter(|ratio| *ratio < FLOOR).count();
        // A table that was edited by hand could name any k; without gaps in k there are at least as many rows.
        let most = self.rows.iter().map(|(_, row)| row.k).max().unwrap_or(1).clamp(1, self.rows.len());
        // With room for a dot at both ends.
        let y = Axis::log(0.8 * lowest.min(0.5), 1.25, TICKS);
        let panel_width = (CELL * most as f64).clamp(NARROWEST, WIDEST);
        let axis = LABEL + 8.0 + y.width();
        let panels = matrices.len() as f64;
        let plots = axis + panels * panel_width + (panels - 1.0) * GAP;
        let key = if layers.len() > 1 { BAR_GAP + layers_width(&layers) } else { 0.0 };
        let content = plots + key;

        let title = format!("{}: {} · singular values", printable(self.adapter), printable(self.module));
        let second = match layers.len() {
            0 => "σ of each k over the largest".to_owned(),
            1 => format!("σ of each k over the largest, layer {}", layers[0]),
            count => format!("σ of each k over the largest, a line for each of {count} layers"),
        };
        let (title, second) = (fit(&title, TITLE, content), fit(&second, SUBTITLE, content));
        let top = chart::SECOND_AT + 30.0;
        let bottom = top + HEIGHT + BELOW;
        let note = (dropped > 0).then(|| format!("{dropped} of them are zero and not shown"));
        let height = bottom + note.as_ref().map_or(0.0, |_| 1.9 * NOTE) + MARGIN;

        let mut scene = Scene::new(content + 2.0 * MARGIN, height, format!("{title}. {second}"));
        chart::titles(&mut scene, title, second);
        let middle = top + HEIGHT / 2.0;
        scene.text_upwards(MARGIN + LABEL / 2.0, middle, LABEL, Anchor::Middle, colour::INK, "σ / largest σ");
        for (index, (matrix, lines)) in matrices.iter().enumerate() {
            let left = MARGIN + axis + index as f64 * (panel_width + GAP);
            scene.text(left, top - 7.0, SUBTITLE, Anchor::Start, colour::INK, matrix_name(*matrix));
            let plot = Plot { left, top, width: panel_width, height: HEIGHT, y: &y };
            plot.grid(&mut scene, index == 0);
            draw_lines(&mut scene, &plot, lines, &layers, most);
            plot.close_with(&mut scene, k_ticks(&plot, most), "k");
        }
        if layers.len() > 1 {
            layers_key(&mut scene, MARGIN + plots + BAR_GAP, top, &layers);
        }
        if let Some(note) = note {
            scene.text(MARGIN, bottom + 1.9 * NOTE, NOTE, Anchor::Start, colour::SOFT_INK, note);
        }
        Some(scene)
    }
}

fn draw_lines(scene: &mut Scene, plot: &Plot<'_>, lines: &BTreeMap<Option<LayerId>, Line>, layers: &[LayerId], most: usize) {
    // Thin lines if there are many, so that a single one can be followed.
    let width = if lines.len() > 24 { 0.5 } else { 1.0 };
    for (layer, line) in lines {
        let place = layer.as_ref().and_then(|layer| layers.binary_search(layer).ok()).unwrap_or(0);
        let stroke = layer_colour(place, layers.len());
        let point =
            |(k, ratio): (&usize, &f64)| (plot.part(k.saturating_sub(1), most), Some(*ratio).filter(|ratio| *ratio >= FLOOR));
        let points: Points = line.iter().filter(|(k, _)| **k <= most).map(point).collect();
        if points.len() > 1 {
            plot.line(scene, &points, width, 0.0, stroke);
        }
        if points.len() <= 1 || (most <= 16 && lines.len() <= 12) {
            plot.dots(scene, &points, stroke);
        }
    }
}

/// Ticks at those k whose labels have room.
fn k_ticks(plot: &Plot<'_>, most: usize) -> Vec<(f64, String)> {
    let all: Vec<u32> = (1..=u32::try_from(most).unwrap_or(u32::MAX)).collect();
    let shown = labelled_layers(&all, plot.width / most as f64, 4.0, |label| font::width(label, LABEL));
    shown.into_iter().map(|index| (plot.part(index, most), all[index].to_string())).collect()
}

/// The colour of the layer at position `place` of `count`.
fn layer_colour(place: usize, count: usize) -> Rgb {
    colour::sequential(ColourMap::Viridis)(LIGHTEST * place as f64 / count.saturating_sub(1).max(1) as f64)
}

fn layers_width(layers: &[LayerId]) -> f64 {
    let labels: Vec<String> = layer_names(layers).unwrap_or_else(|| layers.iter().map(LayerId::to_string).collect());
    BAR_WIDTH + 6.0 + widest(labels.iter().map(String::as_str), LABEL).max(font::width("layer", LABEL) - BAR_WIDTH - 6.0)
}

/// A bar of the layers' colours, the first at the top, with the layer numbers that have room.
fn layers_key(scene: &mut Scene, left: f64, top: f64, layers: &[LayerId]) {
    let cell = HEIGHT / layers.len() as f64;
    scene.text(left, top - 7.0, LABEL, Anchor::Start, colour::INK, "layer");
    for place in 0..layers.len() {
        scene.rect(left, top + place as f64 * cell, BAR_WIDTH, cell, layer_colour(place, layers.len()));
    }
    scene.frame(left, top, BAR_WIDTH, HEIGHT, colour::FRAME);
    let (numbers, names) = (layer_numbers(layers), layer_names(layers));
    for place in labelled_layers(&numbers, cell, 2.0, |_| LABEL) {
        let y = top + (place as f64 + 0.5) * cell;
        let name = names.as_ref().map_or_else(|| numbers[place].to_string(), |names| names[place].clone());
        scene.text_centred(left + BAR_WIDTH + 6.0, y, LABEL, Anchor::Start, colour::INK, name);
    }
}
