//! φ between two adapters, layer by layer (Kim et al. 2024, Table 3): a panel for each of A, B and B·A, with the `w0` control and chance.
//!
//! Three panels on one scale and not three lines in one: at i = j = r the lines of B and B·A are the same.

use std::collections::HashMap;

use super::colour::{self, Rgb};
use super::font::{self, HALF_CAP, fit, printable};
use super::scene::{Anchor, Scene};
use super::ticks::{labelled_layers, round_ticks, widest};
use crate::table::CompareRow;
use crate::terms::UpdateMatrix;

const MARGIN: f64 = 14.0;
const TITLE: f64 = 13.0;
const SUBTITLE: f64 = 11.0;
const LABEL: f64 = 10.0;
/// Height of a panel, and what stands between two.
const HEIGHT: f64 = 170.0;
const GAP: f64 = 22.0;
/// Width of a panel for very many and very few layers.
const WIDEST: f64 = 420.0;
const NARROWEST: f64 = 170.0;
/// A layer's share of the width where there are few.
const CELL: f64 = 30.0;
const TICK: f64 = 3.0;
/// Most tick labels on the axis of φ.
const TICKS: usize = 6;
/// Length of a sample in the key, and space around it.
const SAMPLE: f64 = 22.0;
const DOT: f64 = 2.6;
const DASH: f64 = 4.0;

const OBSERVED: Rgb = Rgb(0x1b, 0x4f, 0x9c);
const CONTROL: Rgb = Rgb(0xb8, 0x62, 0x0e);
const BAND: Rgb = Rgb(0xf6, 0xdf, 0xc0);
const GRID: Rgb = Rgb(0xe8, 0xe8, 0xe8);

/// One module and (i, j) of `compare.csv`.
pub(super) struct LayerLines<'a> {
    rows: Vec<&'a CompareRow>,
    /// In rising order.
    layers: Vec<u32>,
    places: HashMap<(UpdateMatrix, u32), usize>,
}

impl<'a> LayerLines<'a> {
    /// Takes the rows of one module and (i, j); none where they have no layer numbers.
    pub(super) fn of(rows: Vec<&'a CompareRow>) -> Option<Self> {
        let mut layers: Vec<u32> = rows.iter().filter_map(|row| row.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let mut places = HashMap::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            if let Some(layer) = row.layer {
                places.entry((row.matrix, layer)).or_insert(index);
            }
        }
        (!layers.is_empty()).then_some(Self { rows, layers, places })
    }

    fn value(&self, matrix: UpdateMatrix, layer: u32, value: impl Fn(&CompareRow) -> Option<f64>) -> Option<f64> {
        let row = self.rows.get(*self.places.get(&(matrix, layer))?)?;
        value(row).filter(|value| value.is_finite())
    }

    /// One value for each layer.
    fn values(&self, matrix: UpdateMatrix, value: impl Fn(&CompareRow) -> Option<f64> + Copy) -> Vec<Option<f64>> {
        self.layers.iter().map(|layer| self.value(matrix, *layer, value)).collect()
    }

    fn has_control(&self) -> bool {
        self.rows.iter().any(|row| row.w0_mean.is_some())
    }

    /// The end of the axis: a little above the largest value.
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
pub(super) fn scene(lines: &LayerLines<'_>) -> Option<Scene> {
    let first = *lines.rows.first()?;
    let end = lines.end();
    let count = lines.layers.len() as f64;
    let panel_width = (CELL * count).clamp(NARROWEST, WIDEST);
    let ticks = round_ticks(0.0, end, TICKS);
    let axis = LABEL + 8.0 + widest(ticks.iter().map(|(_, label)| label.as_str()), LABEL) + TICK + 3.0;
    let panels = UpdateMatrix::ALL.len() as f64;
    let content = axis + panels * panel_width + (panels - 1.0) * GAP;

    let title = format!("{} · φ(i = {}, j = {}) by layer", printable(&first.module), first.i, first.j);
    let pair = format!("{} and {}", printable(&first.left), printable(&first.right));
    let (title, pair) = (fit(&title, TITLE, content), fit(&pair, SUBTITLE, content));
    let title_at = MARGIN + 2.0 * HALF_CAP * TITLE;
    let pair_at = title_at + 1.7 * SUBTITLE;
    let key_at = pair_at + 20.0;
    let top = key_at + 30.0;
    let bottom = top + HEIGHT;
    let height = bottom + TICK + 2.0 + LABEL + 6.0 + LABEL + MARGIN;

    let mut scene = Scene::new(content + 2.0 * MARGIN, height, format!("{title}. {pair}"));
    scene.text(MARGIN, title_at, TITLE, Anchor::Start, colour::INK, title);
    scene.text(MARGIN, pair_at, SUBTITLE, Anchor::Start, colour::SOFT_INK, pair);
    key(&mut scene, MARGIN, key_at, lines.has_control());
    scene.text_upwards(MARGIN + LABEL / 2.0, top + HEIGHT / 2.0, LABEL, Anchor::Middle, colour::INK, "φ");
    for (index, matrix) in UpdateMatrix::ALL.into_iter().enumerate() {
        let left = MARGIN + axis + index as f64 * (panel_width + GAP);
        let panel = Panel { lines, matrix, left, top, width: panel_width, end };
        panel.draw(&mut scene, &ticks, index == 0);
    }
    Some(scene)
}

/// What the lines are.
fn key(scene: &mut Scene, left: f64, y: f64, with_control: bool) {
    let mut x = left;
    let mut entry = |scene: &mut Scene, draw: &dyn Fn(&mut Scene, f64), text: &str| {
        draw(scene, x);
        scene.text_centred(x + SAMPLE + 6.0, y, LABEL, Anchor::Start, colour::INK, text);
        x += SAMPLE + 6.0 + font::width(text, LABEL) + 18.0;
    };
    entry(
        scene,
        &|scene, x| {
            scene.path(&[(x, y), (x + SAMPLE, y)], 1.5, OBSERVED);
            scene.dot(x + SAMPLE / 2.0, y, DOT, OBSERVED);
        },
        "observed",
    );
    if with_control {
        entry(
            scene,
            &|scene, x| {
                scene.area(&[(x, y - 5.0), (x + SAMPLE, y - 5.0), (x + SAMPLE, y + 5.0), (x, y + 5.0)], BAND);
                scene.path(&[(x, y), (x + SAMPLE, y)], 1.0, CONTROL);
            },
            "w0 control: mean ± sd",
        );
    }
    entry(scene, &|scene, x| dashed(scene, (x, y), (x + SAMPLE, y)), "chance");
}

/// One matrix.
struct Panel<'a> {
    lines: &'a LayerLines<'a>,
    matrix: UpdateMatrix,
    left: f64,
    top: f64,
    width: f64,
    end: f64,
}

impl Panel<'_> {
    fn draw(&self, scene: &mut Scene, ticks: &[(f64, String)], labelled: bool) {
        let (left, top, bottom) = (self.left, self.top, self.top + HEIGHT);
        let name = match self.matrix {
            UpdateMatrix::A => "A",
            UpdateMatrix::B => "B",
            UpdateMatrix::Delta => "B·A",
        };
        let title = format!("{name}, {} vectors", self.matrix.side());
        scene.text(left, top - 7.0, SUBTITLE, Anchor::Start, colour::INK, title);
        for (value, label) in ticks {
            let y = self.y(*value);
            if *value > 0.0 {
                scene.line((left, y), (left + self.width, y), GRID);
            }
            scene.line((left - TICK, y), (left, y), colour::FRAME);
            if labelled {
                scene.text_centred(left - TICK - 3.0, y, LABEL, Anchor::End, colour::INK, label.as_str());
            }
        }
        self.control(scene);
        self.chance(scene);
        self.observed(scene);
        scene.frame(left, top, self.width, HEIGHT, colour::FRAME);
        let cell = self.width / self.lines.layers.len() as f64;
        for index in labelled_layers(&self.lines.layers, cell, 4.0, |label| font::width(label, LABEL)) {
            let x = self.x(index);
            scene.line((x, bottom), (x, bottom + TICK), colour::FRAME);
            let label = self.lines.layers[index].to_string();
            scene.text(x, bottom + TICK + 2.0 + LABEL, LABEL, Anchor::Middle, colour::INK, label);
        }
        let below = bottom + TICK + 2.0 + LABEL + 6.0 + LABEL;
        scene.text(left + self.width / 2.0, below, LABEL, Anchor::Middle, colour::INK, "layer");
    }

    fn x(&self, index: usize) -> f64 {
        self.left + (index as f64 + 0.5) * self.width / self.lines.layers.len() as f64
    }

    fn y(&self, value: f64) -> f64 {
        self.top + HEIGHT * (1.0 - value / self.end)
    }

    /// Stretches of layers that have a value; a single one is given some width.
    fn stretches(&self, values: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
        let half = (0.35 * self.width / values.len().max(1) as f64).min(8.0);
        let mut stretches: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        for (index, value) in values.iter().enumerate() {
            match (value, stretches.last_mut()) {
                (Some(value), Some(open)) => open.push((self.x(index), *value)),
                _ => stretches.push(Vec::new()),
            }
        }
        stretches.retain(|stretch| !stretch.is_empty());
        for stretch in &mut stretches {
            if let [(x, value)] = stretch[..] {
                *stretch = vec![(x - half, value), (x + half, value)];
            }
        }
        stretches
    }

    fn control(&self, scene: &mut Scene) {
        let mean = self.lines.values(self.matrix, |row| row.w0_mean);
        let edge = |sign: f64| move |row: &CompareRow| row.w0_mean.map(|mean| (mean + sign * row.w0_sd.unwrap_or(0.0)).max(0.0));
        let low = self.stretches(&self.lines.values(self.matrix, edge(-1.0)));
        let high = self.stretches(&self.lines.values(self.matrix, edge(1.0)));
        for (low, high) in low.iter().zip(&high) {
            let around: Vec<(f64, f64)> = low.iter().chain(high.iter().rev()).map(|&(x, value)| (x, self.y(value))).collect();
            scene.area(&around, BAND);
        }
        for stretch in self.stretches(&mean) {
            let points: Vec<(f64, f64)> = stretch.iter().map(|&(x, value)| (x, self.y(value))).collect();
            scene.path(&points, 1.0, CONTROL);
        }
    }

    fn chance(&self, scene: &mut Scene) {
        for stretch in self.stretches(&self.lines.values(self.matrix, |row| row.gaussian_expected)) {
            for ends in stretch.windows(2) {
                dashed(scene, (ends[0].0, self.y(ends[0].1)), (ends[1].0, self.y(ends[1].1)));
            }
        }
    }

    fn observed(&self, scene: &mut Scene) {
        let values = self.lines.values(self.matrix, |row| row.phi);
        for stretch in self.stretches(&values) {
            let points: Vec<(f64, f64)> = stretch.iter().map(|&(x, value)| (x, self.y(value))).collect();
            if values.iter().flatten().count() > 1 {
                scene.path(&points, 1.5, OBSERVED);
            }
        }
        let dot = DOT.min(0.3 * self.width / values.len().max(1) as f64).max(1.0);
        for (index, value) in values.iter().enumerate() {
            if let Some(value) = value {
                scene.dot(self.x(index), self.y(*value), dot, OBSERVED);
            }
        }
    }
}

/// A dashed straight line.
fn dashed(scene: &mut Scene, from: (f64, f64), to: (f64, f64)) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy);
    let at = |along: f64| (from.0 + dx * along / length, from.1 + dy * along / length);
    let mut start = 0.0;
    while start < length {
        scene.path(&[at(start), at((start + DASH).min(length))], 1.0, colour::SOFT_INK);
        start += 2.0 * DASH;
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Item, SCALE, Text};
    use super::*;
    use crate::terms::Status;

    fn rows(count: u32, names: [&str; 3], control: bool, phi: impl Fn(u32) -> Option<f64>) -> Vec<CompareRow> {
        let row = |layer: u32, matrix: UpdateMatrix| CompareRow {
            left: names[0].into(),
            right: names[1].into(),
            module: names[2].into(),
            layer: Some(layer),
            matrix,
            side: matrix.side(),
            i: 8,
            j: 8,
            phi: phi(layer),
            gaussian_expected: Some(8.0 / 384.0),
            w0_mean: control.then_some(0.03),
            w0_sd: control.then_some(0.004),
            w0_p: None,
            status: Status::Ok,
        };
        (0..count).flat_map(|layer| UpdateMatrix::ALL.map(|matrix| row(layer, matrix))).collect()
    }

    fn drawn(rows: &[CompareRow]) -> Scene {
        scene(&LayerLines::of(rows.iter().collect()).unwrap()).unwrap()
    }

    fn texts(scene: &Scene) -> Vec<&Text> {
        scene.items.iter().filter_map(|item| if let Item::Text(text) = item { Some(text) } else { None }).collect()
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
                |item: &&Item| matches!(item, Item::Path { colour, points, .. } if *colour == OBSERVED && points.len() > 1);
            // One is in the key.
            scene.items.iter().filter(is_line).count() - 1
        };
        assert_eq!((lines(&drawn(&whole)), lines(&drawn(&broken))), (3, 6));
        let dots = |scene: &Scene| scene.items.iter().filter(|item| matches!(item, Item::Dot { .. })).count() - 1;
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
            scene.items.iter().filter_map(|item| if let Item::Dot { at, .. } = item { Some(at.1) } else { None }).collect();
        // After the key's, two for each panel: φ = 0 on the axis, and the largest at 1/1.08 of the height.
        assert_eq!(dots.len(), 1 + 2 * panel);
        for pair in dots[1..].chunks(2) {
            let rise = f64::from(pair[0] - pair[1]) / SCALE;
            assert!((rise - HEIGHT / 1.08).abs() <= 1.0 / SCALE, "{rise}");
        }
        let bands: Vec<&Vec<(i32, i32)>> = scene
            .items
            .iter()
            .filter_map(|item| if let Item::Area { points, .. } = item { Some(points) } else { None })
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
