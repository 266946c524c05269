//! Scenes to PNG, in strips of a few rows.
//!
//! The overview of an adapter with 80 layers and 7 modules has 14550 x 4697 pixels at 600 dpi. These are 205 MB, in each thread
//! that draws such a figure, but only 4 MB as a PNG. So one strip is in memory at a time: it is drawn, given to the encoder, and
//! used again for the next rows. All elements are drawn for every strip, and clipped to it, which costs little. A bitmap of any
//! size then needs about 3 MB in addition to its PNG, and a study does not have to plan its memory for its figures.

mod scale;
mod strip;

use self::scale::Scale;
use self::strip::{PIXEL, draw};
use super::png::{bug, encode};
use crate::error::{Error, Result};
use crate::figure::options::Dpi;
use crate::figure::scene::Scene;

/// Larger bitmaps are refused: programs that open them count pixels in 31 bits.
const LARGEST: u64 = i32::MAX as u64;

/// Bytes of a strip; one row can have more.
const STRIP: usize = 2 << 20;

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
    in_strips(scene, scale, STRIP)
}

/// Draws as many rows at a time as fit into `most` bytes, but at least one.
fn in_strips(scene: &Scene, scale: Scale, most: usize) -> Result<Vec<u8>> {
    let (width, height) = scale.size(scene);
    let row = width as usize * PIXEL;
    let rows = (most / row).clamp(1, height as usize);
    let mut pixels = vec![0; rows * row];
    encode(width, height, Some(scale.pixels_per_metre), |out| {
        for top in (0..height).step_by(rows) {
            let rows = rows.min((height - top) as usize);
            let strip = &mut pixels[..rows * row];
            strip.fill(255);
            draw(&scene.elements, scale, strip, (width, top))?;
            out.write_all(strip).map_err(|e| bug(&e))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::scene::colour::{INK, Rgb};
    use crate::figure::scene::{Anchor, Cells, Element};

    /// A scene with every kind of element, in every direction and beyond every edge of the picture.
    fn everything() -> Scene {
        let mut scene = Scene::new(90.0, 120.0, String::new());
        scene.rect(3.3, 4.0, 30.0, 90.5, Rgb(200, 10, 20));
        scene.rect(-5.0, 100.2, 200.0, 40.0, Rgb(20, 200, 10));
        scene.rect(50.0, 10.0, 0.5, 100.0, Rgb(1, 2, 3));
        scene.rect(40.0, 61.0, 30.0, 0.5, Rgb(3, 2, 1));
        scene.frame(12.0, 12.0, 60.0, 80.0, INK);
        let fills = (0..400).map(|k| Rgb((k % 256) as u8, (k / 2) as u8, 99)).collect();
        scene.elements.push(Element::Cells(Cells { x: 30, y: 33, cell: 7, n: 20, fills }));
        scene.line((0.0, 77.5), (90.0, 77.5), INK);
        scene.line((80.0, -4.0), (80.0, 130.0), INK);
        scene.line((5.0, 118.0), (85.0, 2.0), Rgb(0, 0, 255));
        scene.path(&[(-3.0, 20.0), (20.0, 110.0), (30.0, 10.0), (60.0, 140.0), (95.0, 50.0)], 1.5, Rgb(90, 0, 90));
        // Wider than high, higher than wide, with corners outside, and with no height.
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
        let refused = to_png(&Scene::new(16_000.0, 16_000.0, "wide".to_owned()), Dpi::new(600).unwrap()).unwrap_err().to_string();
        assert!(refused.ends_with("expected at most 2147483647 pixels, found 100000 x 100000"), "{refused}");
    }

    #[test]
    fn a_picture_has_the_same_pixels_in_whatever_strips_it_is_drawn() {
        let scene = everything();
        for dpi in [72, 97, 192, 333, 600] {
            let scale = Scale::new(Dpi::new(dpi).unwrap());
            let row = scale.size(&scene).0 as usize * PIXEL;
            let whole = in_strips(&scene, scale, usize::MAX).unwrap();
            for rows in [0, 2, 7, 64] {
                assert!(in_strips(&scene, scale, rows * row).unwrap() == whole, "strips of {rows} rows at {dpi} dpi");
            }
            // Each alone, so that nothing is hidden below something else.
            let empty = in_strips(&Scene { elements: Vec::new(), ..scene.clone() }, scale, usize::MAX).unwrap();
            for element in &scene.elements {
                let alone = Scene { elements: vec![element.clone()], ..scene.clone() };
                let whole = in_strips(&alone, scale, usize::MAX).unwrap();
                assert!(whole != empty && in_strips(&alone, scale, 5 * row).unwrap() == whole, "{element:?} at {dpi} dpi");
            }
        }
    }
}
