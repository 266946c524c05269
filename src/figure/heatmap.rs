//! The paper's figure: one matrix of φ over all pairs of layers.

use super::across;
use super::groups::{Grid, Group, matrix_name, phi_name};
use super::options::{CellOrder, ColourMap, ColourScale, FigureOptions};
use super::parts::bar::{Bar, Mark};
use super::parts::dendrogram::{self, Dendrogram};
use super::parts::linkage::Tree;
use super::parts::panel::{self, Labels, Paint, Panel, PanelFonts};
use super::scene::colour;
use super::scene::font::{self, HALF_CAP, fit, printable, wrap};
use super::scene::{Anchor, SCALE, Scene};
use crate::terms::Status;

const MARGIN: f64 = 14.0;
const TITLE: f64 = 13.0;
const SUBTITLE: f64 = 11.0;
const NOTE: f64 = 9.5;
/// Distance of the notes' lines.
const NOTE_LINE: f64 = 1.6 * NOTE;
/// The cells' side where there are many layers.
const SIDE: f64 = 400.0;
/// Numbers are written in the cells up to this many layers.
const MOST_ANNOTATED: usize = 16;
/// Between the cells and the bar's tick labels, and the bar's width.
const BAR_GAP: f64 = 16.0;
const BAR_WIDTH: f64 = 16.0;
/// A figure is widened for its title up to this.
const WIDEST_TITLE: f64 = 560.0;

/// Width of a cell in CSS pixels: whole device pixels, larger for few layers.
pub(super) fn cell_size(n: usize) -> f64 {
    let count = n.max(1) as f64;
    let wanted = (SIDE / count).min((110.0 - 7.5 * count).max(SIDE / 7.0));
    ((wanted * SCALE).floor() / SCALE).max(1.0)
}

/// The end of a scale from 0 to the largest value: 1 where that is nothing but rounding, or no similarity at all.
pub(super) fn scale_end(largest: Option<f64>) -> f64 {
    largest.filter(|v| (1e-9..=2.0).contains(v)).unwrap_or(1.0)
}

/// `.05`, `1.00`.
pub(super) fn two_decimals(value: f64) -> String {
    if value.abs() >= 99.5 {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.2}");
    text.strip_prefix('0').map_or(text.clone(), str::to_owned)
}

/// A square of φ with everything that is written around it.
pub(super) struct Picture<'a> {
    pub(super) grid: Grid,
    pub(super) labels: Labels<'a>,
    /// Width of a cell, and the font size of the labels.
    pub(super) cell: f64,
    pub(super) tick: f64,
    /// The names in the title, which may be shortened, and what follows them.
    pub(super) adapter: String,
    pub(super) module: String,
    pub(super) what: String,
    /// The line below the title.
    pub(super) second: String,
    pub(super) marks: Vec<Mark>,
    /// Of the columns and of the rows; none where empty.
    pub(super) axis_titles: (String, String),
    /// Where the reason for a missing value stands.
    pub(super) table: &'static str,
    /// Whether the diagonal compares something with itself: then no scale is drawn for it.
    pub(super) of_itself: bool,
    /// Of the rows and columns, where they are in its order.
    pub(super) tree: Option<Tree>,
}

/// A grid in the order asked for, and its tree where that is by similarity.
pub(super) fn in_order(grid: Grid, order: CellOrder) -> (Grid, Option<Tree>) {
    match order {
        CellOrder::Layer => (grid, None),
        CellOrder::Similarity => {
            let tree = Tree::of(&grid);
            (tree.ordered(&grid), Some(tree))
        }
    }
}

/// The scene of one heatmap.
pub(super) fn scene(group: &Group<'_>, options: &FigureOptions) -> Scene {
    let (grid, tree) = in_order(group.grid(|row| row.phi), options.order);
    let layers: Vec<u32> =
        tree.as_ref().map_or_else(|| group.layers.clone(), |tree| tree.order.iter().map(|k| group.layers[*k]).collect());
    // Round numbers tell all layers where they rise. Where they do not, each needs its own.
    let names: Vec<String> = layers.iter().map(u32::to_string).collect();
    let (labels, cell, tick) = if tree.is_some() && grid.n > MOST_ANNOTATED {
        let (cell, tick) = across::sizes(grid.n);
        (Labels::Names(&names), cell, tick)
    } else {
        (Labels::Layers(&layers), cell_size(grid.n), 10.0)
    };
    let picture = Picture {
        labels,
        cell,
        tick,
        adapter: printable(group.adapter),
        module: printable(group.module),
        what: format!(" · {}, {}, {}", matrix_name(group.matrix), group.side, phi_name(group.i, group.j)),
        second: second_line(group),
        marks: marks(group),
        axis_titles: axis_titles(group),
        table: "similarity.csv",
        of_itself: true,
        grid,
        tree,
    };
    picture.scene(options)
}

impl Picture<'_> {
    /// The picture laid out.
    pub(super) fn scene(self, options: &FigureOptions) -> Scene {
        let Self { grid, labels, cell, .. } = &self;
        let hi = match options.scale {
            ColourScale::Paper => 1.0,
            ColourScale::Data if self.of_itself => scale_end(grid.largest()),
            ColourScale::Data => scale_end(grid.values.iter().flatten().copied().reduce(f64::max)),
        };
        let side = cell * grid.n as f64;
        let annotated = (grid.n <= MOST_ANNOTATED).then(|| (0.34 * cell).clamp(8.0, 13.0));
        let fonts = PanelFonts { cell: annotated, tick: self.tick, title: 11.0 };
        let paints = paint(grid, options, hi, self.of_itself);

        let mut bar = Bar {
            x: 0.0,
            y: 0.0,
            width: BAR_WIDTH,
            height: side,
            lo: 0.0,
            hi,
            scale: colour::sequential(options.colours),
            marks: self.marks.clone(),
            size: 10.0,
            title: None,
            clipped: false,
        };
        let title = |text: &'_ str| -> Option<String> { (!text.is_empty()).then(|| text.to_owned()) };
        let (x_title, y_title) = (title(&self.axis_titles.0), title(&self.axis_titles.1));
        let tree_space = if self.tree.is_some() { dendrogram::SPACE } else { 0.0 };
        let axis_left = panel::left_space(*labels, fonts, y_title.is_some());
        let axis_left = self.tree.as_ref().map_or(axis_left, |tree| axis_left.max(dendrogram::left_space(tree)));
        let content = axis_left + side + tree_space + BAR_GAP + bar.left_space() + BAR_WIDTH + bar.right_space();
        // Kerning makes a line a little narrower or wider than its parts.
        let lines = self.first_line_width().max(font::width(&self.second, SUBTITLE)) + 2.0;
        let room = content.max(lines.min(WIDEST_TITLE));
        let (first, second) = (self.first_line(room), fit(&self.second, SUBTITLE, room));

        let width = room + 2.0 * MARGIN;
        let middle = width / 2.0;
        let first_at = MARGIN + 2.0 * HALF_CAP * TITLE;
        let second_at = first_at + if second.is_empty() { 0.0 } else { 1.7 * SUBTITLE };
        // The bar's name stands above it.
        let top = second_at + 12.0 + 14.0 + tree_space;
        let bottom = top + side + panel::bottom_space(*labels, fonts, x_title.is_some());
        let notes: Vec<String> = self.notes(&paints).iter().flat_map(|note| wrap(note, NOTE, room)).collect();
        let height = bottom + notes.len() as f64 * NOTE_LINE + MARGIN;

        let left = (width - content) / 2.0 + axis_left;
        let mut scene = Scene::new(width, height, format!("{first}. {second}"));
        scene.text(middle, first_at, TITLE, Anchor::Middle, colour::INK, first);
        if !second.is_empty() {
            scene.text(middle, second_at, SUBTITLE, Anchor::Middle, colour::SOFT_INK, second);
        }
        let (x_title, y_title) = (x_title.as_deref(), y_title.as_deref());
        let panel = Panel { x: left, y: top, cell: *cell, labels: *labels, paints, fonts, x_title, y_title };
        panel.draw(&mut scene);
        if self.of_itself && options.scale == ColourScale::Data && options.colours == ColourMap::Greys {
            panel::strike_diagonal(&mut scene, (left, top), side);
        }
        if let Some(tree) = &self.tree {
            Dendrogram { tree, x: left, y: top, cell: *cell }.draw(&mut scene);
        }
        (bar.x, bar.y) = (left + side + tree_space + BAR_GAP + bar.left_space(), top);
        scene.text(bar.x + BAR_WIDTH / 2.0, top - 7.0, 11.0, Anchor::Middle, colour::INK, "φ");
        bar.draw(&mut scene);
        for (k, note) in notes.into_iter().enumerate() {
            let baseline = bottom + (k + 1) as f64 * NOTE_LINE;
            scene.text(MARGIN, baseline, NOTE, Anchor::Start, colour::SOFT_INK, note);
        }
        scene
    }

    /// What the picture needs to be read, below it.
    fn notes(&self, paints: &[Paint]) -> Vec<String> {
        let missing = || format!("Hatched: no value (the reason is the status in {}).", self.table);
        let missing = paints.contains(&Paint::Missing).then(missing);
        self.tree.as_ref().map(|_| dendrogram::NOTE.to_owned()).into_iter().chain(missing).collect()
    }

    fn first_line_width(&self) -> f64 {
        font::width(&format!("{}: {}{}", self.adapter, self.module, self.what), TITLE)
    }

    /// `ADAPTER: query · Θ_A, left, φ(8,8)` within `room`: the names are shortened, the rest never is.
    fn first_line(&self, room: f64) -> String {
        let names = room - font::width(&self.what, TITLE) - font::width(": ", TITLE);
        // Either name may take what the other leaves, and at least half.
        let module_room = (names - font::width(&self.adapter, TITLE)).max(names / 2.0);
        let module = fit(&self.module, TITLE, module_room);
        let adapter = fit(&self.adapter, TITLE, names - font::width(&module, TITLE));
        format!("{adapter}: {module}{}", self.what)
    }
}

fn paint(grid: &Grid, options: &FigureOptions, hi: f64, of_itself: bool) -> Vec<Paint> {
    let fill = colour::sequential(options.colours);
    let paint = |(k, value): (usize, &Option<f64>)| match value {
        _ if of_itself && options.scale == ColourScale::Data && k / grid.n == k % grid.n => Paint::Diagonal,
        Some(value) => Paint::Value { fill: fill(value / hi), label: two_decimals(*value) },
        None => Paint::Missing,
    };
    grid.values.iter().enumerate().map(paint).collect()
}

/// The controls' means, where there are any.
fn marks(group: &Group<'_>) -> Vec<Mark> {
    let Some(summary) = group.summary else { return Vec::new() };
    [(summary.w0_mean, "W0 control"), (summary.gaussian_mean, "gaussian")]
        .into_iter()
        .filter_map(|(value, label)| Some(Mark { value: value.filter(|v| v.is_finite())?, label: label.to_owned() }))
        .collect()
}

/// Rows are `layer_a` with i vectors, columns `layer_b` with j.
fn axis_titles(group: &Group<'_>) -> (String, String) {
    if group.i == group.j {
        ("layer".to_owned(), "layer".to_owned())
    } else {
        (format!("layer (j = {})", group.j), format!("layer (i = {})", group.i))
    }
}

/// `mean 0.0262 · gaussian 0.0208 · W0 control 0.0275 ± 0.0010`, without what is not there; a status other than ok is told.
fn second_line(group: &Group<'_>) -> String {
    let Some(summary) = group.summary else { return String::new() };
    let mut parts = Vec::new();
    let mut part = |name: &str, mean: Option<f64>, sd: Option<f64>| {
        if let Some(mean) = mean.filter(|v| v.is_finite()) {
            let sd = sd.filter(|v| v.is_finite()).map_or(String::new(), |sd| format!(" ± {sd:.4}"));
            parts.push(format!("{name} {mean:.4}{sd}"));
        }
    };
    part("mean", summary.phi_mean, None);
    part("gaussian", summary.gaussian_mean, None);
    part("W0 control", summary.w0_mean, summary.w0_sd);
    if summary.status != Status::Ok {
        parts.push(format!("status {}", summary.status));
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_whole_device_pixels_and_shrink() {
        let mut last = f64::INFINITY;
        for n in 1..=400 {
            let cell = cell_size(n);
            assert!((cell * SCALE).fract() == 0.0 && cell <= last && cell >= 1.0);
            assert!(n < 7 || cell * n as f64 <= SIDE);
            last = cell;
        }
        assert_eq!((cell_size(6), cell_size(16)), (65.0, 25.0));
    }

    #[test]
    fn cells_are_written_without_the_leading_zero() {
        assert_eq!(two_decimals(0.0512), ".05");
        assert_eq!(two_decimals(0.0), ".00");
        assert_eq!(two_decimals(0.996), "1.00");
        assert_eq!(two_decimals(1e300), "1e300");
    }

    #[test]
    fn a_scale_needs_something_to_span() {
        assert_eq!(scale_end(Some(0.104)), 0.104);
        for nothing in [None, Some(0.0), Some(1e-300), Some(1e300)] {
            assert_eq!(scale_end(nothing), 1.0);
        }
    }
}
