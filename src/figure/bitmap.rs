//! Scenes to PNG.

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
