//! Scenes to PNG, in bands: of a picture's pixels a few rows are in memory at a time.

mod strip;

use std::io::Write;

use self::strip::{Placed, draw};
use crate::error::{Error, Result};
use crate::figure::options::Dpi;
use crate::figure::scene::{Item, PER_INCH, Scene};

/// Larger bitmaps are refused: programs that open them count pixels in 31 bits. An overview of a dozen modules at 2400 dpi has as many.
const LARGEST: u64 = i32::MAX as u64;

/// Bytes of the rows that are drawn at a time, or of one row where that has more.
const BAND: usize = 2 << 20;

/// Bytes that drawing takes whatever the bitmap's size: a band, and what the encoder has in hand.
pub(crate) const WHILE_DRAWN: u64 = BAND as u64 + (1 << 20);

/// Bytes of a pixel while it is drawn.
const OF_A_PIXEL: usize = 3;

/// Draws a scene and encodes it.
///
/// # Errors
/// [`Error::Resource`] if the bitmap would be too large.
pub(crate) fn to_png(scene: &Scene, dpi: Dpi) -> Result<Vec<u8>> {
    let scale = Scale::new(dpi);
    let (width, height) = scale.size(scene);
    let pixels = u64::from(width) * u64::from(height);
    if pixels > LARGEST {
        return Err(Error::Resource {
            what: format!("the bitmap of \"{}\" is too large", crate::error::escape(&scene.title)),
            expected: format!("at most {LARGEST} pixels"),
            found: format!("{width} x {height}"),
            hint: Some("draw SVG only, at fewer dots to the inch, or fewer modules at a time".to_owned()),
        });
    }
    in_bands(scene, scale, BAND)
}

/// Draws as many rows at a time as have `most` bytes, but always one.
fn in_bands(scene: &Scene, scale: Scale, most: usize) -> Result<Vec<u8>> {
    let (width, height) = scale.size(scene);
    let row = width as usize * OF_A_PIXEL;
    let rows = (most / row).clamp(1, height as usize);
    let items: Vec<Placed<'_>> = scene.items.iter().map(|item| Placed::new(item, scale)).collect();
    let mut pixels = vec![0; rows * row];
    encode(width, height, Some(scale.pixels_per_metre), |out| {
        for top in (0..height).step_by(rows) {
            let rows = rows.min((height - top) as usize);
            let band = &mut pixels[..rows * row];
            band.fill(255);
            draw(&items, scale, band, (width, top))?;
            out.write_all(band).map_err(|e| bug(&e))?;
        }
        Ok(())
    })
}

/// About the bytes that drawing a scene takes, with those that come of it.
pub(crate) fn bytes_while_drawn(scene: &Scene, dpi: Dpi) -> u64 {
    let scale = Scale::new(dpi);
    let (width, height) = scale.size(scene);
    // The encoder has three rows beside the band's.
    let wide = 4 * u64::from(width) * OF_A_PIXEL as u64;
    let unlike: f64 = scene.items.iter().map(|item| scale.unlike_neighbours(item)).sum();
    WHILE_DRAWN.max(wide) + compressed(f64::from(width) * f64::from(height), dpi) + (4.0 * unlike) as u64
}

/// About the bytes that so many pixels are compressed to: the finer they are, the less each says. Overviews of few layers have 0.24, 0.10,
/// 0.054 and 0.033 bytes a pixel at 72, 192, 600 and 1200 dpi.
pub(crate) fn compressed(pixels: f64, dpi: Dpi) -> u64 {
    const AT_192: f64 = 0.18;
    const POWER: f64 = 0.75;
    (pixels * AT_192 * (192.0 / f64::from(dpi.get())).powf(POWER)) as u64
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

    /// Width and height of a scene's bitmap.
    fn size(self, scene: &Scene) -> (u32, u32) {
        let size = |units: u32| self.edge(i32::try_from(units).unwrap_or(i32::MAX)).max(1) as u32;
        (size(scene.width), size(scene.height))
    }

    /// The pixel where something begins or ends. Edges are rounded, not sizes: neighbours share theirs.
    fn edge(self, units: i32) -> i32 {
        (f64::from(units) * self.factor).round() as i32
    }

    fn point(self, (x, y): (i32, i32)) -> (f64, f64) {
        (f64::from(x) * self.factor, f64::from(y) * self.factor)
    }

    /// How many pixels of an item are unlike those left of them and above, where it has many: a cell's corner, every pixel along a line.
    fn unlike_neighbours(self, item: &Item) -> f64 {
        let length = |ends: &[(i32, i32)]| match ends {
            [from, to] => f64::from(to.0 - from.0).hypot(f64::from(to.1 - from.1)) * self.factor,
            _ => 0.0,
        };
        match item {
            Item::Cells(block) => block.fills.len() as f64,
            Item::Path { points, .. } => points.windows(2).map(length).sum(),
            _ => 0.0,
        }
    }
}

/// Encodes the RGB pixels that `draw` writes row by row, with their density where one is given.
pub(crate) fn encode(
    width: u32,
    height: u32,
    per_metre: Option<u32>,
    draw: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // Half the time of the default level for a fifth more bytes.
    encoder.set_deflate_compression(png::DeflateCompression::Level(1));
    let dimensions = per_metre.map(|density| png::PixelDimensions { xppu: density, yppu: density, unit: png::Unit::Meter });
    encoder.set_pixel_dims(dimensions);
    let mut writer = encoder.write_header().map_err(|e| bug(&e))?;
    let mut rows = writer.stream_writer_with_size(64 << 10).map_err(|e| bug(&e))?;
    draw(&mut rows)?;
    rows.finish().map_err(|e| bug(&e))?;
    writer.finish().map_err(|e| bug(&e))?;
    Ok(out)
}

/// Drawing into memory fails only if this module is wrong.
pub(crate) fn bug(error: &dyn std::error::Error) -> Error {
    Error::Shape { what: "drawing a figure", expected: "success".to_owned(), found: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::scene::colour::{INK, Rgb};
    use crate::figure::scene::{Anchor, Cells};

    /// A scene with every kind of item, in every direction and out of every side of the picture.
    fn everything() -> Scene {
        let mut scene = Scene::new(90.0, 120.0, String::new());
        scene.rect(3.3, 4.0, 30.0, 90.5, Rgb(200, 10, 20));
        scene.rect(-5.0, 100.2, 200.0, 40.0, Rgb(20, 200, 10));
        scene.rect(50.0, 10.0, 0.5, 100.0, Rgb(1, 2, 3));
        scene.rect(40.0, 61.0, 30.0, 0.5, Rgb(3, 2, 1));
        scene.frame(12.0, 12.0, 60.0, 80.0, INK);
        let fills = (0..400).map(|k| Rgb((k % 256) as u8, (k / 2) as u8, 99)).collect();
        scene.items.push(Item::Cells(Cells { x: 30, y: 33, cell: 7, n: 20, fills }));
        scene.line((0.0, 77.5), (90.0, 77.5), INK);
        scene.line((80.0, -4.0), (80.0, 130.0), INK);
        scene.line((5.0, 118.0), (85.0, 2.0), Rgb(0, 0, 255));
        scene.path(&[(-3.0, 20.0), (20.0, 110.0), (30.0, 10.0), (60.0, 140.0), (95.0, 50.0)], 1.5, Rgb(90, 0, 90));
        // Wider than high, higher than wide, with corners outside, and without any height.
        scene.area(&[(2.0, 30.0), (40.0, 25.5), (95.0, 41.0), (60.0, 52.0), (-4.0, 38.0)], Rgb(250, 200, 0));
        scene.area(&[(60.0, -10.0), (70.5, 55.0), (64.0, 131.0), (51.0, 60.0)], Rgb(0, 200, 250));
        scene.area(&[(10.0, 70.0), (30.0, 70.0)], Rgb(7, 8, 9));
        for (x, y, radius) in [(20.0, 60.0, 9.0), (88.0, 118.0, 5.0), (45.0, 0.0, 2.5)] {
            scene.dot(x, y, radius, Rgb(0, 120, 0));
        }
        for (k, anchor) in [Anchor::Start, Anchor::Middle, Anchor::End].into_iter().enumerate() {
            let at = 30.0 + 25.0 * k as f64;
            scene.text(45.0, at, 11.0, anchor, INK, "Åφ(8,8)|gj");
            scene.text_upwards(at, 60.0, 9.5, anchor, INK, "upwards, g|j");
        }
        scene.text(-4.0, 122.0, 14.0, Anchor::Start, INK, "cut off");
        scene
    }

    #[test]
    fn a_bitmap_that_few_programs_could_open_is_refused() {
        let refused = to_png(&Scene::new(4000.0, 4000.0, "wide".to_owned()), Dpi::new(2400).unwrap()).unwrap_err().to_string();
        assert!(refused.ends_with("expected at most 2147483647 pixels, found 100000 x 100000"), "{refused}");
    }

    #[test]
    fn a_picture_has_the_same_pixels_in_whatever_bands_it_is_drawn() {
        let scene = everything();
        for dpi in [72, 97, 192, 333, 600] {
            let scale = Scale::new(Dpi::new(dpi).unwrap());
            let row = scale.size(&scene).0 as usize * OF_A_PIXEL;
            let whole = in_bands(&scene, scale, usize::MAX).unwrap();
            for rows in [0, 2, 7, 64] {
                assert!(in_bands(&scene, scale, rows * row).unwrap() == whole, "bands of {rows} rows at {dpi} dpi");
            }
            // Alone, so that nothing hides beneath another thing.
            let empty = in_bands(&Scene { items: Vec::new(), ..scene.clone() }, scale, usize::MAX).unwrap();
            for item in &scene.items {
                let alone = Scene { items: vec![item.clone()], ..scene.clone() };
                let whole = in_bands(&alone, scale, usize::MAX).unwrap();
                assert!(whole != empty && in_bands(&alone, scale, 5 * row).unwrap() == whole, "{item:?} at {dpi} dpi");
            }
        }
    }
}
