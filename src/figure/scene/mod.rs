//! A figure before it is written in a format: rectangles, lines, text and blocks of cells, at whole coordinates.
//!
//! Layout code works in CSS pixels. [`Scene`] rounds them to device pixels, [`SCALE`] to one CSS pixel, and every format is
//! written from these whole numbers. So SVG, PNG and PDF are the same picture, and tests can compare scenes instead of bytes. A
//! bitmap of another resolution scales the whole numbers.
//!
//! Text is laid out by us and not by plotters' charts. These reserve label areas of a fixed size and draw over them what does not
//! fit. Here the width of every text in the bundled font is known before anything is drawn, so titles are shortened, ticks
//! thinned and captions wrapped to the room that there is.

pub(super) mod colour;
pub(super) mod font;

use self::colour::Rgb;
use self::font::HALF_CAP;

/// Device pixels in one CSS pixel. A device pixel is the scene's unit of length, half of 1/96 inch, whatever a bitmap's
/// resolution is.
pub(crate) const SCALE: f64 = 2.0;

/// Device pixels in one inch.
pub(crate) const PER_INCH: f64 = 96.0 * SCALE;

/// Which part of a text is at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// One line of text. `x`, `y` are on its baseline, in device pixels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) size: i32,
    pub(crate) anchor: Anchor,
    /// Reads from bottom to top.
    pub(crate) upwards: bool,
    pub(crate) colour: Rgb,
    pub(crate) text: String,
}

/// A square block of `n × n` cells, row by row, each `cell` device pixels wide.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cells {
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) cell: i32,
    pub(crate) n: usize,
    pub(crate) fills: Vec<Rgb>,
}

impl Cells {
    /// Calls `rect(from, to, fill)` for each run of equal cells in a row, row by row.
    ///
    /// Each rectangle extends by one device pixel under its right and lower neighbours, which are drawn later. Viewers smooth the
    /// edges of rectangles that only touch, and the white page would show between them as a fine grid.
    pub(crate) fn runs(&self, mut rect: impl FnMut((i32, i32), (i32, i32), Rgb)) {
        let Self { x, y, cell, n, fills } = self;
        let end = |k: usize| k as i32 * cell + i32::from(k < *n);
        for (row, colours) in fills.chunks((*n).max(1)).enumerate() {
            let mut first = 0;
            for run in colours.chunk_by(|a, b| a == b) {
                let last = first + run.len();
                if let Some(fill) = run.first() {
                    rect((x + first as i32 * cell, y + row as i32 * cell), (x + end(last), y + end(row + 1)), *fill);
                }
                first = last;
            }
        }
    }
}

/// One thing to draw, in device pixels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Element {
    Rect {
        x: i32,
        y: i32,
        width: i32,
        height: i32,
        fill: Rgb,
    },
    Line {
        from: (i32, i32),
        to: (i32, i32),
        colour: Rgb,
    },
    Text(Text),
    Cells(Cells),
    /// A line through points, `width` device pixels wide.
    Path {
        points: Vec<(i32, i32)>,
        width: u32,
        colour: Rgb,
    },
    /// A filled polygon.
    Area {
        points: Vec<(i32, i32)>,
        fill: Rgb,
    },
    /// A filled circle.
    Dot {
        at: (i32, i32),
        radius: u32,
        fill: Rgb,
    },
}

/// A whole figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    /// Size in device pixels.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// What the figure shows, in one line, for screen readers.
    pub(crate) title: String,
    pub(crate) elements: Vec<Element>,
}

/// CSS pixels to device pixels.
pub(crate) fn device(css: f64) -> i32 {
    (css * SCALE).round() as i32
}

impl Scene {
    /// An empty figure of a size in CSS pixels.
    pub(crate) fn new(width: f64, height: f64, title: String) -> Self {
        let pixels = |css: f64| (css * SCALE).ceil().max(1.0) as u32;
        Self { width: pixels(width), height: pixels(height), title, elements: Vec::new() }
    }

    /// Number of cells in all blocks.
    pub(crate) fn cells(&self) -> usize {
        self.elements.iter().map(|item| if let Element::Cells(block) = item { block.fills.len() } else { 0 }).sum()
    }

    /// Adds a filled rectangle. Its corners are rounded and not its size, so that neighbours share an edge.
    pub(crate) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: Rgb) {
        let (left, top) = (device(x), device(y));
        let item = Element::Rect { x: left, y: top, width: device(x + width) - left, height: device(y + height) - top, fill };
        self.elements.push(item);
    }

    /// Adds the outline of a rectangle, half a CSS pixel wide, just outside it.
    pub(crate) fn frame(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Rgb) {
        const PEN: f64 = 0.5;
        self.rect(x - PEN, y - PEN, width + 2.0 * PEN, PEN, colour);
        self.rect(x - PEN, y + height, width + 2.0 * PEN, PEN, colour);
        self.rect(x - PEN, y, PEN, height, colour);
        self.rect(x + width, y, PEN, height, colour);
    }

    /// Adds a straight line, one device pixel wide.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: Rgb) {
        self.elements.push(Element::Line { from: (device(from.0), device(from.1)), to: (device(to.0), device(to.1)), colour });
    }

    /// Adds a line through points, `width` CSS pixels wide.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], width: f64, colour: Rgb) {
        let width = (width * SCALE).round().max(1.0) as u32;
        self.elements.push(Element::Path { points: points.iter().map(|p| (device(p.0), device(p.1))).collect(), width, colour });
    }

    /// Adds a filled polygon.
    pub(crate) fn area(&mut self, points: &[(f64, f64)], fill: Rgb) {
        self.elements.push(Element::Area { points: points.iter().map(|p| (device(p.0), device(p.1))).collect(), fill });
    }

    /// Adds a filled circle.
    pub(crate) fn dot(&mut self, x: f64, y: f64, radius: f64, fill: Rgb) {
        let radius = (radius * SCALE).round().max(1.0) as u32;
        self.elements.push(Element::Dot { at: (device(x), device(y)), radius, fill });
    }

    /// Adds text whose baseline passes through `(x, y)`.
    pub(crate) fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, colour: Rgb, text: impl Into<String>) {
        let item = Text { x: device(x), y: device(y), size: device(size), anchor, upwards: false, colour, text: text.into() };
        self.elements.push(Element::Text(item));
    }

    /// Adds text whose digits and capitals are vertically centred on `y`.
    pub(crate) fn text_centred(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, colour: Rgb, text: impl Into<String>) {
        self.text(x, y + HALF_CAP * size, size, anchor, colour, text);
    }

    /// Adds text that reads upwards and is centred on `x`. `anchor` says which part of it is at `y`.
    pub(crate) fn text_upwards(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, colour: Rgb, text: impl Into<String>) {
        let x = device(x + HALF_CAP * size);
        let item = Text { x, y: device(y), size: device(size), anchor, upwards: true, colour, text: text.into() };
        self.elements.push(Element::Text(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::scene::colour::BLACK;

    #[test]
    fn neighbouring_rectangles_share_their_edge() {
        let mut scene = Scene::new(10.0, 10.0, String::new());
        scene.rect(0.3, 0.0, 1.3, 1.0, BLACK);
        scene.rect(1.6, 0.0, 1.3, 1.0, BLACK);
        let edges: Vec<_> = scene
            .elements
            .iter()
            .map(|item| match item {
                Element::Rect { x, width, .. } => (*x, x + width),
                _ => unreachable!(),
            })
            .collect();
        assert_eq!(edges[0].1, edges[1].0);
    }
}
