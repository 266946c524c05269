//! Draws one strip of a scene's bitmap: some of its rows, in their full width.
//!
//! A pixel has the same value in whatever strip it is: all coordinates are computed for the whole picture, and the strip's first
//! row is subtracted last. Plotters draws the shapes and clips them. Lines and glyphs are drawn pixel by pixel here, because
//! plotters' lines have no smooth edges, and its glyphs are placed at whole pixels.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use plotters::prelude::{BitMapBackend, Color, DrawingBackend, RGBColor};

use super::scale::Scale;
use crate::error::Result;
use crate::figure::render::png::bug;
use crate::figure::scene::colour::Rgb;
use crate::figure::scene::font;
use crate::figure::scene::{Anchor, Cells, Element, Text};

/// Bytes of a pixel.
pub(super) const PIXEL: usize = 3;

/// Draws what is visible in the strip with these pixels: rows of `width`, starting at row `top` of the whole picture.
pub(super) fn draw(elements: &[Element], scale: Scale, pixels: &mut [u8], (width, top): (u32, u32)) -> Result<()> {
    let height = (pixels.len() / (width as usize * PIXEL)) as u32;
    let backend = BitMapBackend::with_buffer(pixels, (width, height));
    let mut strip = Strip { backend, scale, width: width as i32, top: top as i32, last: (top + height) as i32 - 1 };
    elements.iter().try_for_each(|element| strip.draw(element))?;
    strip.backend.present().map_err(|e| bug(&e))
}

/// A strip that is being drawn.
struct Strip<'a> {
    backend: BitMapBackend<'a>,
    scale: Scale,
    width: i32,
    /// The first and the last row.
    top: i32,
    last: i32,
}

impl Strip<'_> {
    fn draw(&mut self, element: &Element) -> Result<()> {
        let scale = self.scale;
        match element {
            Element::Rect { x, y, width, height, fill } => self.rect((*x, *y), (x + width, y + height), *fill),
            Element::Line { from, to, colour } => self.line(*from, *to, *colour),
            Element::Text(text) => self.write(text),
            Element::Path { points, width, colour } => {
                let points: Vec<(f64, f64)> = points.iter().map(|point| scale.point(*point)).collect();
                self.stroke(&points, f64::from(*width) * scale.factor, *colour)
            }
            Element::Area { points, fill } => {
                // Plotters adds corners and quotients of whole numbers. In another strip these sums are rounded differently, but
                // by far less than what would change a pixel or one of the 256 steps of its coverage.
                let corners = points.iter().map(|(x, y)| (scale.edge(*x), scale.edge(*y) - self.top));
                self.backend.fill_polygon(corners, &rgb(*fill)).map_err(|e| bug(&e))
            }
            Element::Dot { at, radius, fill } => {
                let at = scale.point(*at);
                self.stroke(&[at, at], 2.0 * f64::from(*radius) * scale.factor, *fill)
            }
            Element::Cells(cells) => self.cells(cells),
        }
    }

    fn cells(&mut self, Cells { x, y, cell, n, fills }: &Cells) -> Result<()> {
        for (row, fills) in fills.chunks((*n).max(1)).enumerate() {
            let top = y + row as i32 * cell;
            let outside = self.scale.edge(top) > self.last || self.scale.edge(top + cell) < self.top;
            for (column, fill) in fills.iter().enumerate().filter(|_| !outside) {
                let left = x + column as i32 * cell;
                self.rect((left, top), (left + cell, top + cell), *fill)?;
            }
        }
        Ok(())
    }

    /// A filled rectangle. If it has a size in the scene, it has at least one pixel, so that thin lines do not vanish at 72 dpi.
    /// As in SVG, the second corner is excluded.
    fn rect(&mut self, from: (i32, i32), to: (i32, i32), fill: Rgb) -> Result<()> {
        let end = |start: i32, from: i32, to: i32| self.scale.edge(to).max(if to > from { start + 1 } else { start });
        let (left, top) = (self.scale.edge(from.0), self.scale.edge(from.1));
        let (right, bottom) = (end(left, from.0, to.0), end(top, from.1, to.1));
        self.backend.draw_rect((left, top - self.top), (right, bottom - self.top), &rgb(fill), true).map_err(|e| bug(&e))
    }

    /// A line, one unit wide. Horizontal and vertical ones cover whole pixels.
    fn line(&mut self, from: (i32, i32), to: (i32, i32), colour: Rgb) -> Result<()> {
        if from.0 == to.0 || from.1 == to.1 {
            let corner = |pick: fn(i32, i32) -> i32| (pick(from.0, to.0), pick(from.1, to.1));
            let (first, last) = (corner(i32::min), corner(i32::max));
            return self.rect(first, (last.0 + 1, last.1 + 1), colour);
        }
        self.stroke(&[self.scale.point(from), self.scale.point(to)], self.scale.factor.max(1.0), colour)
    }

    /// A line with round ends and smooth edges: a pixel is covered by the part of it that lies within the line's width.
    fn stroke(&mut self, points: &[(f64, f64)], width: f64, colour: Rgb) -> Result<()> {
        let reach = width / 2.0 + 0.5;
        let (first, last, limit_x) = (f64::from(self.top), f64::from(self.last), f64::from(self.width) - 1.0);
        // At a bend two segments cover the same pixels. Only the larger coverage counts: drawn twice, a bend would be darker.
        let mut covered: BTreeMap<(i32, i32), f64> = BTreeMap::new();
        for ends in points.windows(2) {
            let &[from, to] = ends else { continue };
            let (top, bottom) = ((from.1.min(to.1) - reach).max(first), (from.1.max(to.1) + reach).min(last));
            for y in top.ceil() as i32..=bottom.floor() as i32 {
                let (left, right) = row_of(f64::from(y), from, to, reach);
                for x in left.max(0.0).ceil() as i32..=right.min(limit_x).floor() as i32 {
                    let coverage = (reach - distance((f64::from(x), f64::from(y)), from, to)).min(1.0);
                    if coverage > 0.0 {
                        let known = covered.entry((x, y)).or_default();
                        *known = known.max(coverage);
                    }
                }
            }
        }
        covered.into_iter().try_for_each(|(pixel, coverage)| self.cover(pixel, coverage, colour))
    }

    /// A pixel of the strip; nothing where it is outside.
    fn cover(&mut self, (x, y): (i32, i32), coverage: f64, colour: Rgb) -> Result<()> {
        self.backend.draw_pixel((x, y - self.top), rgb(colour).mix(coverage).to_backend_color()).map_err(|e| bug(&e))
    }

    fn write(&mut self, text: &Text) -> Result<()> {
        let rows = rows_of(text, self.scale);
        // Rasterising glyphs is the slowest part of drawing, so text outside the strip is skipped as a whole.
        if *rows.start() > f64::from(self.last) || *rows.end() < f64::from(self.top) {
            return Ok(());
        }
        let size = f64::from(text.size) * self.scale.factor;
        let start = start_of(text, size);
        let (x, y) = self.scale.point((text.x, text.y));
        // Whole pixels, and the remaining fractions in the direction of reading and across it.
        let (column, row) = (x.floor() as i32, if text.upwards { y.ceil() } else { y.floor() } as i32);
        let (across_x, across_y) = (x - f64::from(column), (y - f64::from(row)).abs());
        let origin = if text.upwards { (start + across_y, across_x) } else { (start + across_x, across_y) };
        let mut result = Ok(());
        font::rasterise(&text.text, size, origin, |dx, dy, coverage| {
            // Turned by 90 degrees to the left: right becomes up, down becomes right.
            let pixel = if text.upwards { (column + dy, row - 1 - dx) } else { (column + dx, row + dy) };
            if coverage > 0.0 && result.is_ok() {
                result = self.cover(pixel, f64::from(coverage.min(1.0)), text.colour);
            }
        });
        result
    }
}

/// Where a text starts relative to its anchor, in the direction of reading, at a font size.
fn start_of(text: &Text, size: f64) -> f64 {
    match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -font::width(&text.text, size) / 2.0,
        Anchor::End => -font::width(&text.text, size),
    }
}

/// The rows of the whole picture that a text can touch.
fn rows_of(text: &Text, scale: Scale) -> RangeInclusive<f64> {
    let (size, (_, y)) = (f64::from(text.size) * scale.factor, scale.point((text.x, text.y)));
    let (first, last) = if text.upwards {
        let start = y - start_of(text, size);
        (start - font::width(&text.text, size), start)
    } else {
        (y, y)
    };
    // No glyph of the font is higher or deeper than this, or extends farther beyond its width. One pixel is for rounding.
    first - 1.5 * size - 1.0..=last + size + 1.0
}

/// The part of a row of pixels that a segment can cover.
fn row_of(y: f64, from: (f64, f64), to: (f64, f64), reach: f64) -> (f64, f64) {
    let (left, right) = (from.0.min(to.0) - reach, from.0.max(to.0) + reach);
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    if dy.abs() < 1e-9 {
        return (left, right);
    }
    let middle = from.0 + (y - from.1) * dx / dy;
    let half = reach * dx.hypot(dy) / dy.abs();
    (left.max(middle - half), right.min(middle + half))
}

/// The distance of a point from the segment between two others.
fn distance(point: (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (px, py) = (point.0 - from.0, point.1 - from.1);
    let square = dx * dx + dy * dy;
    let along = if square > 0.0 { ((px * dx + py * dy) / square).clamp(0.0, 1.0) } else { 0.0 };
    (px - along * dx).hypot(py - along * dy)
}

fn rgb(Rgb(r, g, b): Rgb) -> RGBColor {
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::options::Dpi;

    #[test]
    fn distances_are_to_the_nearest_point_of_the_stretch() {
        assert_eq!(distance((3.0, 4.0), (0.0, 0.0), (0.0, 0.0)), 5.0);
        assert_eq!(distance((5.0, 2.0), (0.0, 0.0), (10.0, 0.0)), 2.0);
        assert_eq!(distance((13.0, 4.0), (0.0, 0.0), (10.0, 0.0)), 5.0);
        assert!((distance((1.0, 0.0), (0.0, 0.0), (2.0, 2.0)) - 0.5_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn no_pixel_that_a_stretch_covers_is_left_out() {
        let reach = 2.5;
        for (from, to) in
            [((3.0, 4.0), (40.0, 11.0)), ((30.0, 2.0), (20.0, 45.0)), ((5.0, 9.0), (5.0, 9.0)), ((1.0, 7.0), (30.0, 7.0))]
        {
            for y in 0..50 {
                let (left, right) = row_of(f64::from(y), from, to, reach);
                for x in 0..50 {
                    let near = distance((f64::from(x), f64::from(y)), from, to) < reach;
                    assert!(!near || (left..=right).contains(&f64::from(x)), "{from:?} {to:?}: {x}, {y}");
                }
            }
        }
    }

    /// The pixels of a bitmap of `width × height` in one strip.
    fn whole(elements: &[Element], scale: Scale, (width, height): (u32, u32)) -> Vec<u8> {
        let mut pixels = vec![255; width as usize * height as usize * PIXEL];
        draw(elements, scale, &mut pixels, (width, 0)).unwrap();
        pixels
    }

    #[test]
    fn a_line_is_as_wide_as_it_is_said_to_be_and_stays_inside() {
        let line = Element::Path { points: vec![(-5, 5), (30, 5)], width: 3, colour: Rgb(0, 0, 0) };
        let pixels = whole(&[line], Scale::new(Dpi::default()), (20, 10));
        let column: Vec<u8> = (0..10).map(|y| pixels[(y * 20 + 7) * 3]).collect();
        assert_eq!(column, [255, 255, 255, 255, 0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn cells_fill_whole_pixels_at_every_resolution() {
        for dpi in [72, 97, 150, 192, 300, 599] {
            let scale = Scale::new(Dpi::new(dpi).unwrap());
            let size = scale.edge(60) as u32;
            let fills: Vec<Rgb> = (0..100).map(|k| Rgb(k, 0, 0)).collect();
            let pixels = whole(&[Element::Cells(Cells { x: 3, y: 7, cell: 5, n: 10, fills })], scale, (size, size));
            let (mut counts, mut others) = ([0_u32; 100], 0);
            for pixel in pixels.chunks(3) {
                match pixel {
                    [k, 0, 0] if *k < 100 => counts[usize::from(*k)] += 1,
                    [255, 255, 255] => {}
                    _ => others += 1,
                }
            }
            let exact = (5.0 * scale.factor).powi(2);
            let (least, most) = ((5.0 * scale.factor).floor().powi(2), (5.0 * scale.factor).ceil().powi(2));
            assert_eq!(others, 0, "{dpi}");
            assert!(counts.iter().all(|count| (least..=most).contains(&f64::from(*count))), "{dpi}: {exact}, {counts:?}");
            let (left, right) = (scale.edge(3), scale.edge(53));
            let (top, bottom) = (scale.edge(7), scale.edge(57));
            assert_eq!(counts.iter().sum::<u32>(), ((right - left) * (bottom - top)) as u32, "{dpi}");
        }
    }

    #[test]
    fn no_text_has_ink_outside_its_rows() {
        // Every glyph that the font has, and one that it does not have.
        let signs: Vec<char> = ('!'..='\u{ffff}').filter(|c| font::has(*c)).chain(['層']).collect();
        assert!(signs.len() > 200, "{}", signs.len());
        let scale = Scale::new(Dpi::default());
        for (upwards, anchor) in [(false, Anchor::Start), (true, Anchor::Start), (true, Anchor::Middle), (true, Anchor::End)] {
            for sign in &signs {
                let text = Text { x: 60, y: 60, size: 20, anchor, upwards, colour: Rgb(0, 0, 0), text: sign.to_string() };
                let rows = rows_of(&text, scale);
                let pixels = whole(&[Element::Text(text)], scale, (120, 120));
                let inked = pixels.chunks(120 * PIXEL).map(|row| row.iter().any(|byte| *byte != 255));
                for (y, _) in inked.enumerate().filter(|(_, inked)| *inked) {
                    assert!(rows.contains(&(y as f64)), "{sign}: {y} is not in {rows:?}");
                }
            }
        }
    }
}
