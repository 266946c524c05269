//! Scenes to PNG.

use std::collections::BTreeMap;

use plotters::prelude::{BitMapBackend, Color, DrawingBackend, RGBColor};

use super::colour::Rgb;
use super::font;
use super::scene::{Anchor, Cells, Item, SCALE, Scene, Text};
use crate::error::{Error, Result};

/// A CSS pixel is 1/96 inch and an inch 0.0254 m: the PNG prints at the size of the SVG.
const PIXELS_PER_METRE: u32 = (96.0 * SCALE / 0.0254 + 0.5) as u32;

/// Larger bitmaps are refused (1.2 GB of pixels).
const LARGEST: u64 = 400_000_000;

/// Draws a scene and encodes it.
///
/// # Errors
/// [`Error::Resource`] if the bitmap would be too large.
pub(super) fn to_png(scene: &Scene) -> Result<Vec<u8>> {
    let pixels = u64::from(scene.width) * u64::from(scene.height);
    if pixels > LARGEST {
        return Err(Error::Resource {
            what: format!("the bitmap of \"{}\" is too large", crate::error::escape(&scene.title)),
            expected: format!("at most {LARGEST} pixels"),
            found: format!("{} x {}", scene.width, scene.height),
            hint: Some("draw SVG only, or fewer modules at a time".to_owned()),
        });
    }
    let mut buffer = vec![255; pixels as usize * 3];
    draw(scene, &mut buffer)?;
    encode(scene.width, scene.height, &buffer, Some(PIXELS_PER_METRE))
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
    writer.write_image_data(rgb).map_err(|e| bug(&e))?;
    writer.finish().map_err(|e| bug(&e))?;
    Ok(out)
}

/// Drawing into memory fails only if this module is wrong.
pub(super) fn bug(error: &dyn std::error::Error) -> Error {
    Error::Shape { what: "drawing a figure", expected: "success".to_owned(), found: error.to_string() }
}

fn draw(scene: &Scene, buffer: &mut [u8]) -> Result<()> {
    let mut backend = BitMapBackend::with_buffer(buffer, (scene.width, scene.height));
    for item in &scene.items {
        match item {
            Item::Rect { x, y, width, height, fill } => rect(&mut backend, *x, *y, *width, *height, *fill)?,
            Item::Line { from, to, colour } => backend.draw_line(*from, *to, &rgb(*colour)).map_err(|e| bug(&e))?,
            Item::Text(text) => write(&mut backend, text)?,
            Item::Path { points, width, colour } => stroke(&mut backend, points, f64::from(*width), *colour)?,
            Item::Area { points, fill } => {
                backend.fill_polygon(points.iter().copied(), &rgb(*fill)).map_err(|e| bug(&e))?;
            }
            Item::Dot { at, radius, fill } => stroke(&mut backend, &[*at, *at], 2.0 * f64::from(*radius), *fill)?,
            Item::Cells(Cells { x, y, cell, n, fills }) => {
                for (k, fill) in fills.iter().enumerate() {
                    let (row, column) = ((k / n) as i32, (k % n) as i32);
                    rect(&mut backend, x + column * cell, y + row * cell, *cell, *cell, *fill)?;
                }
            }
        }
    }
    backend.present().map_err(|e| bug(&e))
}

/// Plotters' bitmap fills up to the second corner and not with it, as SVG does.
fn rect(backend: &mut BitMapBackend<'_>, x: i32, y: i32, width: i32, height: i32, fill: Rgb) -> Result<()> {
    backend.draw_rect((x, y), (x + width, y + height), &rgb(fill), true).map_err(|e| bug(&e))
}

/// A line with round ends and smooth edges, which plotters' has not: a pixel is covered as far as its middle is from the line.
fn stroke(backend: &mut BitMapBackend<'_>, points: &[(i32, i32)], width: f64, colour: Rgb) -> Result<()> {
    let reach = width / 2.0 + 0.5;
    let margin = reach.ceil() as i32;
    let mut covered: BTreeMap<(i32, i32), f64> = BTreeMap::new();
    for ends in points.windows(2) {
        let &[from, to] = ends else { continue };
        for y in from.1.min(to.1) - margin..=from.1.max(to.1) + margin {
            for x in from.0.min(to.0) - margin..=from.0.max(to.0) + margin {
                let coverage = (reach - distance((x, y), from, to)).min(1.0);
                if coverage > 0.0 {
                    let known = covered.entry((x, y)).or_default();
                    *known = known.max(coverage);
                }
            }
        }
    }
    let (limit_x, limit_y) = backend.get_size();
    for ((x, y), coverage) in covered {
        if x >= 0 && y >= 0 && (x as u32) < limit_x && (y as u32) < limit_y {
            backend.draw_pixel((x, y), rgb(colour).mix(coverage).to_backend_color()).map_err(|e| bug(&e))?;
        }
    }
    Ok(())
}

/// How far a pixel is from the stretch between two others.
fn distance(pixel: (i32, i32), from: (i32, i32), to: (i32, i32)) -> f64 {
    let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
    let (px, py) = (f64::from(pixel.0 - from.0), f64::from(pixel.1 - from.1));
    let square = dx * dx + dy * dy;
    let along = if square > 0.0 { ((px * dx + py * dy) / square).clamp(0.0, 1.0) } else { 0.0 };
    (px - along * dx).hypot(py - along * dy)
}

fn write(backend: &mut BitMapBackend<'_>, text: &Text) -> Result<()> {
    let size = f64::from(text.size);
    let start = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -font::width(&text.text, size) / 2.0,
        Anchor::End => -font::width(&text.text, size),
    };
    let (limit_x, limit_y) = backend.get_size();
    let mut result = Ok(());
    font::rasterise(&text.text, size, start, |dx, dy, coverage| {
        // Turned a quarter to the left: right becomes up, down becomes right.
        let (x, y) = if text.upwards { (text.x + dy, text.y - dx) } else { (text.x + dx, text.y + dy) };
        let inside = x >= 0 && y >= 0 && (x as u32) < limit_x && (y as u32) < limit_y;
        if inside && coverage > 0.0 && result.is_ok() {
            let colour = rgb(text.colour).mix(f64::from(coverage.min(1.0))).to_backend_color();
            result = backend.draw_pixel((x, y), colour).map_err(|e| bug(&e));
        }
    });
    result
}

fn rgb(Rgb(r, g, b): Rgb) -> RGBColor {
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_to_the_nearest_point_of_the_stretch() {
        assert_eq!(distance((3, 4), (0, 0), (0, 0)), 5.0);
        assert_eq!(distance((5, 2), (0, 0), (10, 0)), 2.0);
        assert_eq!(distance((13, 4), (0, 0), (10, 0)), 5.0);
        assert!((distance((1, 0), (0, 0), (2, 2)) - 0.5_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn a_line_is_as_wide_as_it_is_said_to_be_and_stays_inside() {
        let mut buffer = vec![255; 20 * 10 * 3];
        let mut backend = BitMapBackend::with_buffer(&mut buffer, (20, 10));
        stroke(&mut backend, &[(-5, 5), (30, 5)], 3.0, Rgb(0, 0, 0)).unwrap();
        drop(backend);
        let column: Vec<u8> = (0..10).map(|y| buffer[(y * 20 + 7) * 3]).collect();
        assert_eq!(column, [255, 255, 255, 255, 0, 0, 0, 255, 255, 255]);
    }
}
