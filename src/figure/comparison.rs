//! φ between two adapters, layer by layer (Kim et al. 2024, Table 3): one panel for each of A, B and B·A, with the `w0` control
//! and chance.
//!
//! There are three panels on one scale, not three lines in one panel: for i = j = r the lines of B and B·A coincide.

use std::collections::HashMap;

use rayon::prelude::*;

use super::kind::{DrawnFigure, FigureKind, in_each_format};
use super::options::FigureOptions;
use super::parts::chart::{self, Axis, BELOW, LABEL, MARGIN, OBSERVED, Plot, Points, SUBTITLE, Sample, TITLE, key};
use super::parts::layers::{axis_name, layer_numbers};
use super::parts::names::update_name;
use super::scene::colour;
use super::scene::font::{fit, printable};
use super::scene::{Anchor, Scene};
use crate::error::Result;
use crate::table::gather;
use crate::table::rows::CompareRow;
use crate::terms::{LayerId, UpdateMatrix};

/// Height of a panel, and the gap between two panels.
const HEIGHT: f64 = 170.0;
const GAP: f64 = 22.0;
/// Width of a panel with very many and with very few layers.
const WIDEST: f64 = 420.0;
const NARROWEST: f64 = 170.0;
/// Width for each layer if there are few.
const CELL: f64 = 30.0;
/// Maximum number of tick labels on the axis of φ.
const TICKS: usize = 6;

/// Draws φ of a comparison layer by layer, for every module that has layers and every (i, j), in table order.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_comparison(rows: &[CompareRow], options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let groups = gather(rows, |row| (row.module.as_str(), row.i, row.j));
    let draw = |((module, i, j), rows): ((&str, usize, usize), Vec<&CompareRow>)| match LayerLines::of(rows) {
        Some(lines) => {
            let kind = FigureKind::Comparison { module: module.to_owned(), i, j };
            in_each_format(&scene(&lines), "", &kind, options)
        }
        None => Ok(Vec::new()),
    };
    let drawn: Vec<Vec<DrawnFigure>> = groups.into_par_iter().map(draw).collect::<Result<_>>()?;
    Ok(drawn.into_iter().flatten().collect())
}

/// One module and (i, j) of `compare.csv`.
pub(super) struct LayerLines<'a> {
    rows: Vec<&'a CompareRow>,
    /// In rising order.
    layers: Vec<LayerId>,
    places: HashMap<(UpdateMatrix, LayerId), usize>,
}

impl<'a> LayerLines<'a> {
    /// Takes the rows of one module and (i, j); `None` if they have no layer numbers.
    pub(super) fn of(rows: Vec<&'a CompareRow>) -> Option<Self> {
        let mut layers: Vec<LayerId> = rows.iter().filter_map(|row| row.layer.clone()).collect();
        layers.sort_unstable();
        layers.dedup();
        let mut places = HashMap::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            if let Some(layer) = row.layer.clone() {
                places.entry((row.matrix, layer)).or_insert(index);
            }
        }
        (!layers.is_empty()).then_some(Self { rows, layers, places })
    }

    fn value(&self, matrix: UpdateMatrix, layer: &LayerId, value: impl Fn(&CompareRow) -> Option<f64>) -> Option<f64> {
        let row = self.rows.get(*self.places.get(&(matrix, layer.clone()))?)?;
        value(row).filter(|value| value.is_finite())
    }

    fn has_control(&self) -> bool {
        self.rows.iter().any(|row| row.w0_mean.is_some())
    }

    /// The upper end of the axis: a little above the largest value.
    fn end(&self) -> f64 {
        let highest = |row: &&CompareRow| {
            let band = row.w0_mean.map(|mean| mean + row.w0_sd.unwrap_or(0.0));
            [row.phi, row.gaussian_expected, band].into_iter().flatten().filter(|v| v.is_finite()).fold(0.0, f64::max)
        };
        let most = self.rows.iter().map(highest).fold(0.0, f64::max);
        if most > 0.0 { 1.08 * most } else { 1.0 }
    }
}

/// The scene of one module and (i, j).
pub(super) fn scene(lines: &LayerLines<'_>) -> Scene {
    let first = lines.rows[0];
    let count = lines.layers.len() as f64;
    let panel_width = (CELL * count).clamp(NARROWEST, WIDEST);
    let y = Axis::linear(0.0, lines.end(), TICKS);
    let axis = LABEL + 8.0 + y.width();
    let panels = UpdateMatrix::ALL.len() as f64;
    let content = axis + panels * panel_width + (panels - 1.0) * GAP;

    let title = format!("{} · φ(i = {}, j = {}) by layer", printable(&first.module), first.i, first.j);
    let pair = format!("{} and {}", printable(&first.left), printable(&first.right));
    let (title, pair) = (fit(&title, TITLE, content), fit(&pair, SUBTITLE, content));
    let key_at = chart::SECOND_AT + 20.0;
    let top = key_at + 30.0;

    let mut scene = Scene::new(content + 2.0 * MARGIN, top + HEIGHT + BELOW + MARGIN, format!("{title}. {pair}"));
    chart::titles(&mut scene, title, pair);
    let control = lines.has_control().then_some((Sample::Control, "w0 control: mean ± sd"));
    let entries = [Some((Sample::Dotted(OBSERVED), "observed")), control, Some((Sample::Dashed, "chance"))];
    key(&mut scene, MARGIN, key_at, &entries.into_iter().flatten().collect::<Vec<_>>());
    scene.text_upwards(MARGIN + LABEL / 2.0, top + HEIGHT / 2.0, LABEL, Anchor::Middle, colour::INK, "φ");
    for (index, matrix) in UpdateMatrix::ALL.into_iter().enumerate() {
        let left = MARGIN + axis + index as f64 * (panel_width + GAP);
        let panel = MatrixPlot { lines, matrix, plot: Plot { left, top, width: panel_width, height: HEIGHT, y: &y } };
        panel.draw(&mut scene, index == 0);
    }
    scene
}

/// The panel of one matrix.
struct MatrixPlot<'a> {
    lines: &'a LayerLines<'a>,
    matrix: UpdateMatrix,
    plot: Plot<'a>,
}

impl MatrixPlot<'_> {
    fn draw(&self, scene: &mut Scene, labelled: bool) {
        let (plot, layers) = (&self.plot, &self.lines.layers);
        let title = format!("{}, {} vectors", update_name(self.matrix), self.matrix.side());
        scene.text(plot.left, plot.top - 7.0, SUBTITLE, Anchor::Start, colour::INK, title);
        plot.grid(scene, labelled);
        let alone = (0.35 * plot.width / layers.len() as f64).min(8.0);
        let edge = |sign: f64| move |row: &CompareRow| row.w0_mean.map(|mean| (mean + sign * row.w0_sd.unwrap_or(0.0)).max(0.0));
        plot.band(scene, &self.points(edge(-1.0)), &self.points(edge(1.0)), alone);
        plot.line(scene, &self.points(|row| row.w0_mean), 1.0, alone, chart::CONTROL);
        plot.dashed(scene, &self.points(|row| row.gaussian_expected), alone);
        let observed = self.points(|row| row.phi);
        if observed.iter().filter(|(_, value)| value.is_some()).count() > 1 {
            plot.line(scene, &observed, 1.5, alone, OBSERVED);
        }
        plot.dots(scene, &observed, OBSERVED);
        plot.close(scene, &layer_numbers(layers), layers.len(), axis_name(layers));
    }

    /// One value for each layer.
    fn points(&self, value: impl Fn(&CompareRow) -> Option<f64> + Copy) -> Points {
        let (layers, plot) = (&self.lines.layers, &self.plot);
        let point =
            |(index, layer): (usize, &LayerId)| (plot.part(index, layers.len()), self.lines.value(self.matrix, layer, value));
        layers.iter().enumerate().map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::font::{self, HALF_CAP};
    use super::super::scene::{Element, SCALE, Text};
    use super::*;
    use crate::terms::Status;

    fn rows(count: u32, names: [&str; 3], control: bool, phi: impl Fn(u32) -> Option<f64>) -> Vec<CompareRow> {
        let row = |layer: u32, matrix: UpdateMatrix| CompareRow {
            left: names[0].into(),
            right: names[1].into(),
            module: names[2].into(),
            layer: Some(layer.into()),
            matrix,
            side: matrix.side(),
            i: 8,
            j: 8,
            phi: phi(layer),
            cosine: None,
            gaussian_expected: Some(8.0 / 384.0),
            w0_mean: control.then_some(0.03),
            w0_sd: control.then_some(0.004),
            w0_p: None,
            status: Status::Ok,
        };
        (0..count).flat_map(|layer| UpdateMatrix::ALL.map(|matrix| row(layer, matrix))).collect()
    }

    fn drawn(rows: &[CompareRow]) -> Scene {
        scene(&LayerLines::of(rows.iter().collect()).unwrap())
    }

    fn texts(scene: &Scene) -> Vec<&Text> {
        scene.elements.iter().filter_map(|item| if let Element::Text(text) = item { Some(text) } else { None }).collect()
    }

    /// Left, top, right and bottom of a text, in CSS pixels.
    fn bounds(text: &Text) -> [f64; 4] {
        let (x, y, size) = (f64::from(text.x) / SCALE, f64::from(text.y) / SCALE, f64::from(text.size) / SCALE);
        let width = font::width(&text.text, size);
        if text.upwards {
            return [x - 2.0 * HALF_CAP * size, y - width / 2.0, x, y + width / 2.0];
        }
        let left = match text.anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        [left, y - 2.0 * HALF_CAP * size, left + width, y]
    }

    #[test]
    fn no_text_covers_another_or_leaves_the_picture() {
        let long = "a/very/long/path/to/an/adapter/checkpoint-500/of/some/run/with/a/long/name/indeed";
        for count in [1, 2, 6, 12, 33, 80, 200] {
            for names in [["l", "r", "query"], [long, long, long]] {
                let rows = rows(count, names, true, |layer| Some(0.02 + f64::from(layer % 7) / 900.0));
                let scene = drawn(&rows);
                let all: Vec<[f64; 4]> = texts(&scene).into_iter().map(bounds).collect();
                for (k, a) in all.iter().enumerate() {
                    assert!(a[0] >= 0.0 && a[1] >= 0.0, "{count}: {a:?}");
                    assert!(a[2] <= f64::from(scene.width) / SCALE && a[3] <= f64::from(scene.height) / SCALE, "{count}: {a:?}");
                    for b in &all[k + 1..] {
                        let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
                        assert!(apart, "{count}: {a:?} and {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_layer_without_a_value_breaks_the_line() {
        let whole = rows(6, ["l", "r", "m"], false, |_| Some(0.1));
        let broken = rows(6, ["l", "r", "m"], false, |layer| (layer != 2).then_some(0.1));
        let lines = |scene: &Scene| {
            let is_line =
                |item: &&Element| matches!(item, Element::Path { colour, points, .. } if *colour == OBSERVED && points.len() > 1);
            // One is in the key.
            scene.elements.iter().filter(is_line).count() - 1
        };
        assert_eq!((lines(&drawn(&whole)), lines(&drawn(&broken))), (3, 6));
        let dots = |scene: &Scene| scene.elements.iter().filter(|item| matches!(item, Element::Dot { .. })).count() - 1;
        assert_eq!((dots(&drawn(&whole)), dots(&drawn(&broken))), (18, 15));
        let nothing = rows(3, ["l", "r", "m"], false, |_| None);
        assert_eq!(dots(&drawn(&nothing)), 0);
    }

    #[test]
    fn values_stand_at_their_height_and_the_control_around_its_mean() {
        let rows = rows(2, ["l", "r", "m"], true, |layer| Some(if layer == 0 { 0.0 } else { 0.1 }));
        let scene = drawn(&rows);
        let panel = UpdateMatrix::ALL.len();
        let dots: Vec<i32> =
            scene.elements.iter().filter_map(|item| if let Element::Dot { at, .. } = item { Some(at.1) } else { None }).collect();
        // After the key's, two for each panel: φ = 0 on the axis, and the largest at 1/1.08 of the height.
        assert_eq!(dots.len(), 1 + 2 * panel);
        for pair in dots[1..].chunks(2) {
            let rise = f64::from(pair[0] - pair[1]) / SCALE;
            assert!((rise - HEIGHT / 1.08).abs() <= 1.0 / SCALE, "{rise}");
        }
        let bands: Vec<&Vec<(i32, i32)>> = scene
            .elements
            .iter()
            .filter_map(|item| if let Element::Area { points, .. } = item { Some(points) } else { None })
            .collect();
        assert_eq!(bands.len(), 1 + panel);
        let tall = bands[1].iter().map(|p| p.1).max().unwrap() - bands[1].iter().map(|p| p.1).min().unwrap();
        assert!((f64::from(tall) / SCALE - HEIGHT * 0.008 / 0.108).abs() <= 2.0 / SCALE, "{tall}");
        assert!(texts(&scene).iter().any(|text| text.text == "w0 control: mean ± sd"));
    }

    #[test]
    fn modules_without_layer_numbers_have_no_figure() {
        let mut rows = rows(1, ["l", "r", "m"], false, |_| Some(0.1));
        rows.iter_mut().for_each(|row| row.layer = None);
        assert!(LayerLines::of(rows.iter().collect()).is_none());
    }
}
