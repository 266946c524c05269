//! Scenes to PNG.

use std::collections::BTreeMap;
use std::io::Write;

use plotters::prelude::{BitMapBackend, Color, DrawingBackend, RGBColor};

use super::Dpi;
use super::colour::Rgb;
use super::font;
use super::scene::{Anchor, Cells, Item, PER_INCH, Scene, Text};
use crate::error::{Error, Result};

/// Larger bitmaps are refused (1.2 GB of pixels).
const LARGEST: u64 = 400_000_000;

/// Draws a scene and encodes it.
///
/// # Errors
/// [`Error::Resource`] if the bitmap would be too large.
pub(super) fn to_png(scene: &Scene, dpi: Dpi) -> Result<Vec<u8>> {
    let scale = Scale::new(dpi);
    let size = |units: u32| scale.edge(i32::try_from(units).unwrap_or(i32::MAX)).max(1) as u32;
    let (width, height) = (size(scene.width), size(scene.height));
    let pixels = u64::from(width) * u64::from(height);
    if pixels > LARGEST {
        return Err(Error::Resource {
            what: format!("the bitmap of \"{}\" is too large", crate::error::escape(&scene.title)),
            expected: format!("at most {LARGEST} pixels"),
            found: format!("{width} x {height}"),
            hint: Some("draw SVG only, at fewer dots to the inch, or fewer modules at a time".to_owned()),
        });
    }
    let mut buffer = vec![255; pixels as usize * 3];
    let mut backend = BitMapBackend::with_buffer(&mut buffer, (width, height));
    Bitmap { backend: &mut backend, scale }.draw(scene)?;
    drop(backend);
    encode(width, height, &buffer, Some(scale.pixels_per_metre))
}

/// About the bytes that a scene's bitmap takes: three a pixel, what the compressed one grows to, and what the allocator keeps of those before.
pub(super) fn bitmap_bytes(scene: &Scene, dpi: Dpi) -> u64 {
    const OF_A_PIXEL: f64 = 8.0;
    let factor = Scale::new(dpi).factor;
    (f64::from(scene.width) * factor * f64::from(scene.height) * factor * OF_A_PIXEL) as u64
}

/// From the scene's units to pixels.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Pixels in one unit.
    factor: f64,
    pixels_per_metre: u32,
}

impl Scale {
    fn new(dpi: Dpi) -> Self {
        let dpi = f64::from(dpi.get());
        // An inch is 0.0254 m.
        Self { factor: dpi / PER_INCH, pixels_per_metre: (dpi / 0.0254).round() as u32 }
    }

    /// The pixel where something begins or ends. Edges are rounded, not sizes: neighbours share theirs.
    fn edge(self, units: i32) -> i32 {
        (f64::from(units) * self.factor).round() as i32
    }

    fn point(self, (x, y): (i32, i32)) -> (f64, f64) {
        (f64::from(x) * self.factor, f64::from(y) * self.factor)
    }
}

/// Encodes RGB pixels, with their density where one is given.
pub(super) fn encode(width: u32, height: u32, rgb: &[u8], per_metre: Option<u32>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // Half the time of the default level for a fifth more bytes.
    encoder.set_deflate_compression(png::DeflateCompression::Level(1));
    let dimensions = per_metre.map(|density| png::PixelDimensions { xppu: density, yppu: density, unit: png::Unit::Meter });
    encoder.set_pixel_dims(dimensions);
    let mut writer = encoder.write_header().map_err(|e| bug(&e))?;
    // Piece by piece: the encoder would else hold all rows a second time.
    let mut rows = writer.stream_writer_with_size(64 << 10).map_err(|e| bug(&e))?;
    rows.write_all(rgb).map_err(|e| bug(&e))?;
    rows.finish().map_err(|e| bug(&e))?;
    writer.finish().map_err(|e| bug(&e))?;
    Ok(out)
}

/// Drawing into memory fails only if this module is wrong.
pub(super) fn bug(error: &dyn std::error::Error) -> Error {
    Error::Shape { what: "drawing a figure", expected: "success".to_owned(), found: error.to_string() }
}

/// A picture being drawn.
struct Bitmap<'a, 'b> {
    backend: &'a mut BitMapBackend<'b>,
    scale: Scale,
}

impl Bitmap<'_, '_> {
    fn draw(&mut self, scene: &Scene) -> Result<()> {
        let scale = self.scale;
        for item in &scene.items {
            match item {
                Item::Rect { x, y, width, height, fill } => self.rect((*x, *y), (x + width, y + height), *fill)?,
                Item::Line { from, to, colour } => self.line(*from, *to, *colour)?,
                Item::Text(text) => self.write(text)?,
                Item::Path { points, width, colour } => {
                    let points: Vec<(f64, f64)> = points.iter().map(|point| scale.point(*point)).collect();
                    self.stroke(&points, f64::from(*width) * scale.factor, *colour)?;
                }
                Item::Area { points, fill } => {
                    let corners = points.iter().map(|(x, y)| (scale.edge(*x), scale.edge(*y)));
                    self.backend.fill_polygon(corners, &rgb(*fill)).map_err(|e| bug(&e))?;
                }
                Item::Dot { at, radius, fill } => {
                    let at = scale.point(*at);
                    self.stroke(&[at, at], 2.0 * f64::from(*radius) * scale.factor, *fill)?;
                }
                Item::Cells(Cells { x, y, cell, n, fills }) => {
                    for (k, fill) in fills.iter().enumerate() {
                        let (row, column) = ((k / n) as i32, (k % n) as i32);
                        let (left, top) = (x + column * cell, y + row * cell);
                        self.rect((left, top), (left + cell, top + cell), *fill)?;
                    }
                }
            }
        }
        self.backend.present().map_err(|e| bug(&e))
    }

    /// A filled rectangle; what has some size in the scene has a pixel at least.
    /// Plotters' bitmap fills up to the second corner and not with it, as SVG does.
    fn rect(&mut self, from: (i32, i32), to: (i32, i32), fill: Rgb) -> Result<()> {
        let end = |start: i32, from: i32, to: i32| self.scale.edge(to).max(if to > from { start + 1 } else { start });
        let (left, top) = (self.scale.edge(from.0), self.scale.edge(from.1));
        let (right, bottom) = (end(left, from.0, to.0), end(top, from.1, to.1));
        self.backend.draw_rect((left, top), (right, bottom), &rgb(fill), true).map_err(|e| bug(&e))
    }

    /// A line of one unit: level and upright ones on whole pixels.
    fn line(&mut self, from: (i32, i32), to: (i32, i32), colour: Rgb) -> Result<()> {
        if from.0 == to.0 || from.1 == to.1 {
            let corner = |pick: fn(i32, i32) -> i32| (pick(from.0, to.0), pick(from.1, to.1));
            let (first, last) = (corner(i32::min), corner(i32::max));
            return self.rect(first, (last.0 + 1, last.1 + 1), colour);
        }
        self.stroke(&[self.scale.point(from), self.scale.point(to)], self.scale.factor.max(1.0), colour)
    }

    /// A line with round ends and smooth edges, which plotters' has not: a pixel is covered as far as it is within the width.
    fn stroke(&mut self, points: &[(f64, f64)], width: f64, colour: Rgb) -> Result<()> {
        let reach = width / 2.0 + 0.5;
        let (limit_x, limit_y) = self.backend.get_size();
        let (limit_x, limit_y) = (f64::from(limit_x) - 1.0, f64::from(limit_y) - 1.0);
        // Where a line bends, its stretches cover the same pixels.
        let mut covered: BTreeMap<(i32, i32), f64> = BTreeMap::new();
        for ends in points.windows(2) {
            let &[from, to] = ends else { continue };
            let (top, bottom) = ((from.1.min(to.1) - reach).max(0.0), (from.1.max(to.1) + reach).min(limit_y));
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
        for (pixel, coverage) in covered {
            self.backend.draw_pixel(pixel, rgb(colour).mix(coverage).to_backend_color()).map_err(|e| bug(&e))?;
        }
        Ok(())
    }

    fn write(&mut self, text: &Text) -> Result<()> {
        let size = f64::from(text.size) * self.scale.factor;
        let start = match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -font::width(&text.text, size) / 2.0,
            Anchor::End => -font::width(&text.text, size),
        };
        let (x, y) = self.scale.point((text.x, text.y));
        // Whole pixels, and what of one is left in the direction of reading and across it.
        let (column, row) = (x.floor() as i32, if text.upwards { y.ceil() } else { y.floor() } as i32);
        let (across_x, across_y) = (x - f64::from(column), (y - f64::from(row)).abs());
        let origin = if text.upwards { (start + across_y, across_x) } else { (start + across_x, across_y) };
        let (limit_x, limit_y) = self.backend.get_size();
        let mut result = Ok(());
        font::rasterise(&text.text, size, origin, |dx, dy, coverage| {
            // Turned a quarter to the left: right becomes up, down becomes right.
            let (x, y) = if text.upwards { (column + dy, row - 1 - dx) } else { (column + dx, row + dy) };
            let inside = x >= 0 && y >= 0 && (x as u32) < limit_x && (y as u32) < limit_y;
            if inside && coverage > 0.0 && result.is_ok() {
                let colour = rgb(text.colour).mix(f64::from(coverage.min(1.0))).to_backend_color();
                result = self.backend.draw_pixel((x, y), colour).map_err(|e| bug(&e));
            }
        });
        result
    }
}

/// The part of a row of pixels that a stretch can cover.
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

/// How far a point is from the stretch between two others.
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

    #[test]
    fn a_line_is_as_wide_as_it_is_said_to_be_and_stays_inside() {
        let mut buffer = vec![255; 20 * 10 * 3];
        let mut backend = BitMapBackend::with_buffer(&mut buffer, (20, 10));
        let mut bitmap = Bitmap { backend: &mut backend, scale: Scale::new(Dpi::default()) };
        bitmap.stroke(&[(-5.0, 5.0), (30.0, 5.0)], 3.0, Rgb(0, 0, 0)).unwrap();
        drop(backend);
        let column: Vec<u8> = (0..10).map(|y| buffer[(y * 20 + 7) * 3]).collect();
        assert_eq!(column, [255, 255, 255, 255, 0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn cells_fill_whole_pixels_at_every_resolution() {
        for dpi in [72, 97, 150, 192, 300, 601] {
            let scale = Scale::new(Dpi::new(dpi).unwrap());
            let size = scale.edge(60) as u32;
            let mut buffer = vec![255; (size * size * 3) as usize];
            let mut backend = BitMapBackend::with_buffer(&mut buffer, (size, size));
            let fills: Vec<Rgb> = (0..100).map(|k| Rgb(k, 0, 0)).collect();
            let mut scene = Scene::new(30.0, 30.0, String::new());
            scene.items.push(Item::Cells(Cells { x: 3, y: 7, cell: 5, n: 10, fills }));
            Bitmap { backend: &mut backend, scale }.draw(&scene).unwrap();
            drop(backend);
            let (mut counts, mut others) = ([0_u32; 100], 0);
            for pixel in buffer.chunks(3) {
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
}
