//! One square of cells, with the layers or names along its axes.

use crate::figure::parts::ticks::{every, labelled_layers, widest};
use crate::figure::scene::colour::{self, Rgb};
use crate::figure::scene::font::HALF_CAP;
use crate::figure::scene::{Anchor, Cells, Element, Scene, device};

/// Length of a tick, and the space between it and its label.
const TICK: f64 = 3.0;
const TICK_GAP: f64 = 2.5;
/// Gap between the tick labels and the axis title.
const TITLE_GAP: f64 = 5.0;
/// Minimum space between two tick labels.
const LABEL_GAP: f64 = 4.0;
/// Distance between two lines of hatching, in device pixels.
const HATCH_STEP: i32 = 8;

/// How one cell is painted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Paint {
    Value { fill: Rgb, label: String },
    Diagonal,
    Missing,
}

/// Font sizes of a panel, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PanelFonts {
    /// The numbers in the cells; `None` if they are not written.
    pub(crate) cell: Option<f64>,
    pub(crate) tick: f64,
    pub(crate) title: f64,
}

/// The labels of the rows, which are also those of the columns.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Labels<'a> {
    /// Layer numbers.
    Layers(&'a [u32]),
    /// Names. Those of the columns are written upwards.
    Names(&'a [String]),
}

/// The height that a row with a name needs.
pub(crate) fn names_line(size: f64) -> f64 {
    1.2 * size
}

impl Labels<'_> {
    fn len(self) -> usize {
        match self {
            Self::Layers(layers) => layers.len(),
            Self::Names(names) => names.len(),
        }
    }

    fn text(self, k: usize) -> String {
        match self {
            Self::Layers(layers) => layers.get(k).map_or_else(String::new, u32::to_string),
            Self::Names(names) => names.get(k).cloned().unwrap_or_default(),
        }
    }

    /// The indices of those that have room.
    fn shown(self, cell: f64, size: f64) -> Vec<usize> {
        match self {
            Self::Layers(layers) => {
                // Both axes have the same layers, so the larger extent of a label decides for both.
                labelled_layers(layers, cell, LABEL_GAP, |label| widest([label], size).max(2.0 * HALF_CAP * size))
            }
            Self::Names(names) => every(names.len(), cell, names_line(size)),
        }
    }

    fn widest(self, size: f64) -> f64 {
        let labels: Vec<String> = (0..self.len()).map(|k| self.text(k)).collect();
        widest(labels.iter().map(String::as_str), size)
    }

    /// How far they extend below the axis.
    fn depth(self, size: f64) -> f64 {
        match self {
            Self::Layers(_) => 2.0 * HALF_CAP * size,
            Self::Names(_) => self.widest(size),
        }
    }
}

/// A panel and its position (CSS pixels; `x`, `y` is the cells' upper left corner).
pub(crate) struct CellPanel<'a> {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) cell: f64,
    pub(crate) labels: Labels<'a>,
    pub(crate) paints: Vec<Paint>,
    pub(crate) fonts: PanelFonts,
    pub(crate) x_title: Option<&'a str>,
    pub(crate) y_title: Option<&'a str>,
}

/// Space that the vertical axis needs to the left of the cells.
pub(crate) fn left_space(labels: Labels<'_>, fonts: PanelFonts, with_title: bool) -> f64 {
    let title = if with_title { TITLE_GAP + fonts.title } else { 0.0 };
    TICK + TICK_GAP + labels.widest(fonts.tick) + title
}

/// Space that the horizontal axis needs below the cells.
pub(crate) fn bottom_space(labels: Labels<'_>, fonts: PanelFonts, with_title: bool) -> f64 {
    let title = if with_title { TITLE_GAP + fonts.title } else { 0.0 };
    TICK + TICK_GAP + labels.depth(fonts.tick) + title
}

impl CellPanel<'_> {
    fn side(&self) -> f64 {
        self.cell * self.labels.len() as f64
    }

    /// Adds the panel to a scene.
    pub(crate) fn draw(self, scene: &mut Scene) {
        let n = self.labels.len();
        let fills = self.paints.iter().map(|paint| match paint {
            Paint::Value { fill, .. } => *fill,
            Paint::Diagonal => colour::DIAGONAL,
            Paint::Missing => colour::MISSING,
        });
        let block = Cells { x: device(self.x), y: device(self.y), cell: device(self.cell), n, fills: fills.collect() };
        self.hatch(scene, &block);
        self.write_cells(scene);
        scene.frame(self.x, self.y, self.side(), self.side(), colour::FRAME);
        self.axes(scene);
    }

    /// Draws the cells, and hatching over those without a value. A colour alone would not do: every grey is a value on some
    /// scale.
    fn hatch(&self, scene: &mut Scene, block: &Cells) {
        scene.elements.push(Element::Cells(block.clone()));
        let n = block.n;
        // Runs of missing cells in a row, joined with an equal run in the row above, so that a missing layer is one area and not
        // n.
        let mut open: Vec<(usize, usize, usize)> = Vec::new();
        for row in 0..=n {
            let missing = |k: usize| row < n && matches!(self.paints.get(row * n + k), Some(Paint::Missing));
            let mut runs = Vec::new();
            let mut k = 0;
            while k < n {
                let start = k;
                while k < n && missing(k) {
                    k += 1;
                }
                if k > start {
                    runs.push((start, k));
                }
                k += 1;
            }
            open.retain(|&(start, end, since)| {
                let goes_on = runs.contains(&(start, end));
                if !goes_on {
                    hatch_area(scene, block, (start, end), (since, row));
                }
                goes_on
            });
            for (start, end) in runs {
                if !open.iter().any(|run| (run.0, run.1) == (start, end)) {
                    open.push((start, end, row));
                }
            }
        }
    }

    fn write_cells(&self, scene: &mut Scene) {
        let Some(size) = self.fonts.cell else { return };
        let n = self.labels.len();
        for (k, paint) in self.paints.iter().enumerate() {
            let Paint::Value { label, fill } = paint else { continue };
            let x = self.x + ((k % n) as f64 + 0.5) * self.cell;
            let y = self.y + ((k / n) as f64 + 0.5) * self.cell;
            scene.text_centred(x, y, size, Anchor::Middle, colour::ink_on(*fill), label.as_str());
        }
    }

    fn axes(&self, scene: &mut Scene) {
        let (side, tick_size) = (self.side(), self.fonts.tick);
        let bottom = self.y + side;
        let middle = |k: usize| (k as f64 + 0.5) * self.cell;
        for k in self.labels.shown(self.cell, tick_size) {
            let (x, y, label) = (self.x + middle(k), self.y + middle(k), self.labels.text(k));
            let below = bottom + TICK + TICK_GAP;
            scene.rect(x - 0.25, bottom, 0.5, TICK, colour::FRAME);
            match self.labels {
                Labels::Layers(_) => {
                    let baseline = below + 2.0 * HALF_CAP * tick_size;
                    scene.text(x, baseline, tick_size, Anchor::Middle, colour::INK, label.as_str());
                }
                Labels::Names(_) => scene.text_upwards(x, below, tick_size, Anchor::End, colour::INK, label.as_str()),
            }
            scene.rect(self.x - TICK, y - 0.25, TICK, 0.5, colour::FRAME);
            scene.text_centred(self.x - TICK - TICK_GAP, y, tick_size, Anchor::End, colour::INK, label);
        }
        if let Some(title) = self.x_title {
            let baseline = bottom + bottom_space(self.labels, self.fonts, false) + TITLE_GAP + 2.0 * HALF_CAP * self.fonts.title;
            scene.text(self.x + side / 2.0, baseline, self.fonts.title, Anchor::Middle, colour::INK, title);
        }
        if let Some(title) = self.y_title {
            let x = self.x - left_space(self.labels, self.fonts, true) + self.fonts.title / 2.0;
            scene.text_upwards(x, self.y + side / 2.0, self.fonts.title, Anchor::Middle, colour::INK, title);
        }
    }
}

/// Draws a line along the diagonal of a square. On a grey scale the grey of an excluded diagonal could be taken for a value.
pub(crate) fn strike_diagonal(scene: &mut Scene, (x, y): (f64, f64), side: f64) {
    scene.line((x, y), (x + side, y + side), colour::FRAME);
}

/// Lines `x + y = const` across the cells `columns × rows` of a block.
fn hatch_area(scene: &mut Scene, block: &Cells, columns: (usize, usize), rows: (usize, usize)) {
    let (left, right) = (block.x + columns.0 as i32 * block.cell, block.x + columns.1 as i32 * block.cell - 1);
    let (top, bottom) = (block.y + rows.0 as i32 * block.cell, block.y + rows.1 as i32 * block.cell - 1);
    // The constants are multiples of the step, so that lines continue from one area to the next.
    let mut sum = left + top + (-(left + top)).rem_euclid(HATCH_STEP);
    while sum <= right + bottom {
        let from = (left.max(sum - bottom), bottom.min(sum - left));
        let to = (right.min(sum - top), top.max(sum - right));
        scene.elements.push(Element::Line { from, to, colour: colour::HATCH });
        sum += HATCH_STEP;
    }
}
