//! A square of φ with everything around it: titles, axes, colour bar, tree and notes. The figures of layers, of adapters and of
//! numbers of vectors are such squares.

use crate::figure::options::{CellOrder, ColourMap, ColourScale, FigureOptions};
use crate::figure::parts::bar::{Bar, Mark};
use crate::figure::parts::dendrogram::{self, Dendrogram};
use crate::figure::parts::linkage::Tree;
use crate::figure::parts::names::heading;
use crate::figure::parts::panel::{self, CellPanel, Labels, Paint, PanelFonts, names_line};
use crate::figure::parts::values::SquareValues;
use crate::figure::scene::colour;
use crate::figure::scene::font::{self, HALF_CAP, fit, wrap};
use crate::figure::scene::{Anchor, SCALE, Scene};

const MARGIN: f64 = 14.0;
const TITLE: f64 = 13.0;
const SUBTITLE: f64 = 11.0;
const NOTE: f64 = 9.5;
/// Distance between lines of the notes.
const NOTE_LINE: f64 = 1.6 * NOTE;
/// Width of all cells together if there are many layers.
const SIDE: f64 = 400.0;
/// Numbers are written in the cells up to this many layers.
pub(crate) const MOST_ANNOTATED: usize = 16;
/// Gap between the cells and the bar's tick labels, and the bar's width.
const BAR_GAP: f64 = 16.0;
const BAR_WIDTH: f64 = 16.0;
/// A figure is widened for a long title, up to this width.
const WIDEST_TITLE: f64 = 560.0;

/// Font size of names, and the smaller one that is used if the rows are too narrow for it.
const NAME: f64 = 10.0;
const SMALL_NAME: f64 = 7.5;
/// Width of all cells together if rows have names. It leaves room for a name at every row of up to a hundred.
const NAMED_SIDE: f64 = 900.0;

/// Width of a cell in CSS pixels, larger for few layers. It is a whole number of device pixels: otherwise some cells of a bitmap
/// would be wider than others.
pub(crate) fn cell_size(n: usize) -> f64 {
    let count = n.max(1) as f64;
    let wanted = (SIDE / count).min((110.0 - 7.5 * count).max(SIDE / 7.0));
    ((wanted * SCALE).floor() / SCALE).max(1.0)
}

/// The upper end of a scale from 0 to the largest value: 1 if that value is only rounding, or too large to be a similarity.
pub(crate) fn scale_end(largest: Option<f64>) -> f64 {
    largest.filter(|v| (1e-9..=2.0).contains(v)).unwrap_or(1.0)
}

/// `.05`, `1.00`.
pub(crate) fn two_decimals(value: f64) -> String {
    if value.abs() >= 99.5 {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.2}");
    text.strip_prefix('0').map_or(text.clone(), str::to_owned)
}

/// The same for rows with names, and the font size of the names.
pub(crate) fn named_cell_size(n: usize) -> (f64, f64) {
    let wide_enough = (NAMED_SIDE / n.max(1) as f64).min(names_line(NAME));
    let cell = cell_size(n).max((wide_enough * SCALE).floor() / SCALE).max(1.0 / SCALE);
    (cell, if cell >= names_line(NAME) { NAME } else { SMALL_NAME })
}

/// A square of φ with everything around it.
pub(crate) struct SquareFigure<'a> {
    pub(crate) values: SquareValues,
    pub(crate) labels: Labels<'a>,
    /// Width of a cell, and the font size of the labels.
    pub(crate) cell: f64,
    pub(crate) tick: f64,
    /// The names in the title, which can be shortened, and what follows them.
    pub(crate) adapter: String,
    pub(crate) module: String,
    pub(crate) what: String,
    /// The line below the title.
    pub(crate) second: String,
    pub(crate) marks: Vec<Mark>,
    /// Titles of the horizontal and of the vertical axis; an empty one is not drawn.
    pub(crate) axis_titles: (String, String),
    /// The table that says why a value is missing.
    pub(crate) table: &'static str,
    /// Whether the diagonal compares something with itself. Its φ is 1, and does not count for a scale of the data.
    pub(crate) of_itself: bool,
    /// The tree of the rows and columns, if they are in its order.
    pub(crate) tree: Option<Tree>,
}

/// Values in the order that was asked for, and their tree if that is by similarity.
pub(crate) fn in_order(values: SquareValues, order: CellOrder) -> (SquareValues, Option<Tree>) {
    match order {
        CellOrder::Layer => (values, None),
        CellOrder::Similarity => {
            let tree = Tree::of(&values);
            (tree.ordered(&values), Some(tree))
        }
    }
}

impl SquareFigure<'_> {
    /// Lays the figure out.
    pub(crate) fn scene(self, options: &FigureOptions) -> Scene {
        let Self { values, labels, cell, .. } = &self;
        let hi = match options.scale {
            ColourScale::Paper => 1.0,
            ColourScale::Data if self.of_itself => scale_end(values.largest()),
            ColourScale::Data => scale_end(values.cells.iter().flatten().copied().reduce(f64::max)),
        };
        let side = cell * values.n as f64;
        let annotated = (values.n <= MOST_ANNOTATED).then(|| (0.34 * cell).clamp(8.0, 13.0));
        let fonts = PanelFonts { cell: annotated, tick: self.tick, title: 11.0 };
        let paints = paint(values, options, hi, self.of_itself);

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
        // Two pixels to spare, because kerning makes a line a little narrower or wider than its parts.
        let lines = self.first_line_width().max(font::width(&self.second, SUBTITLE)) + 2.0;
        let room = content.max(lines.min(WIDEST_TITLE));
        let (first, second) =
            (heading((&self.adapter, &self.module), &self.what, TITLE, room), fit(&self.second, SUBTITLE, room));

        let width = room + 2.0 * MARGIN;
        let middle = width / 2.0;
        let first_at = MARGIN + 2.0 * HALF_CAP * TITLE;
        let second_at = first_at + if second.is_empty() { 0.0 } else { 1.7 * SUBTITLE };
        // With room for the bar's name above it.
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
        let panel = CellPanel { x: left, y: top, cell: *cell, labels: *labels, paints, fonts, x_title, y_title };
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

    /// The notes below the figure that explain it.
    fn notes(&self, paints: &[Paint]) -> Vec<String> {
        let missing = || format!("Hatched: no value (the reason is the status in {}).", self.table);
        let missing = paints.contains(&Paint::Missing).then(missing);
        self.tree.as_ref().map(|_| dendrogram::NOTE.to_owned()).into_iter().chain(missing).collect()
    }

    fn first_line_width(&self) -> f64 {
        font::width(&format!("{}: {}{}", self.adapter, self.module, self.what), TITLE)
    }
}

pub(crate) fn paint(values: &SquareValues, options: &FigureOptions, hi: f64, of_itself: bool) -> Vec<Paint> {
    let fill = colour::sequential(options.colours);
    let paint = |(k, value): (usize, &Option<f64>)| match value {
        _ if of_itself && options.scale == ColourScale::Data && k / values.n == k % values.n => Paint::Diagonal,
        Some(value) => Paint::Value { fill: fill(value / hi), label: two_decimals(*value) },
        None => Paint::Missing,
    };
    values.cells.iter().enumerate().map(paint).collect()
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

    #[test]
    fn up_to_a_hundred_adapters_have_a_line_each() {
        let mut last = f64::INFINITY;
        for n in 1..=3000 {
            let (cell, tick) = named_cell_size(n);
            assert!((cell * SCALE).fract() == 0.0 && cell > 0.0 && cell <= last);
            assert!(n > 100 || names_line(tick) <= cell, "{n} adapters: {cell}, {tick}");
            last = cell;
        }
    }
}
