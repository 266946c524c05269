//! Scenes to SVG.
//!
//! Plotters writes the shapes and the text. The opening tag is ours (size in CSS pixels, a title), and so are the images that are
//! used for very many cells, which would be tens of megabytes as rectangles.

use std::fmt::Write;

use plotters::prelude::{Color, DrawingBackend, RGBColor, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontFamily, FontTransform, IntoFont, TextStyle};

use crate::error::Result;
use crate::figure::render::png::{bug, encode};
use crate::figure::scene::colour::Rgb;
use crate::figure::scene::{Anchor, Cells, Element, SCALE, Scene, Text};

/// The fonts that a viewer should use. Widths were measured in the first.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// If there are more cells than this, blocks of cells are embedded images.
const MOST_RECTANGLES: usize = 4096;

/// Plotters places text by its box and not by its baseline. For a box anchored at its top it writes a baseline 0.76 em below, and
/// it divides font sizes by 1.24. Both are undone, so that baselines and sizes are those of the scene.
const TOP_TO_BASELINE: f64 = 0.76;
const SIZE_DIVISOR: f64 = 1.24;

/// Writes a scene as an SVG document.
///
/// # Errors
/// Only where the encoding of an embedded picture fails, which would be a bug.
pub(crate) fn to_svg(scene: &Scene) -> Result<Vec<u8>> {
    let mut drawn = String::new();
    let as_pictures = scene.cells() > MOST_RECTANGLES;
    draw(scene, as_pictures, &mut drawn)?;

    let mut out = String::with_capacity(drawn.len() + 1024);
    let (width, height) = (scene.width, scene.height);
    // Writing to a String never fails.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{}\" height=\"{}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{FAMILY}\">",
        f64::from(width) / SCALE,
        f64::from(height) / SCALE,
    );
    let _ = writeln!(out, "<title>{}</title>", escape(&scene.title));
    let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#FFFFFF\"/>");
    if as_pictures {
        for item in &scene.elements {
            if let Element::Cells(block) = item {
                picture(&mut out, block)?;
            }
        }
    }
    // Without plotters' own opening tag, which is replaced by the one above.
    out.push_str(&tidy(drawn.split_once('\n').map_or("", |(_, shapes)| shapes)));
    Ok(out.into_bytes())
}

fn draw(scene: &Scene, without_cells: bool, out: &mut String) -> Result<()> {
    let mut backend = SVGBackend::with_string(out, (scene.width, scene.height));
    for item in &scene.elements {
        match item {
            Element::Rect { x, y, width, height, fill } => {
                backend.draw_rect((*x, *y), (x + width, y + height), &rgb(*fill), true).map_err(|e| bug(&e))?;
            }
            Element::Line { from, to, colour } => backend.draw_line(*from, *to, &rgb(*colour)).map_err(|e| bug(&e))?,
            Element::Text(text) => write_text(&mut backend, text)?,
            Element::Path { points, width, colour } => {
                backend.draw_path(points.iter().copied(), &rgb(*colour).stroke_width(*width)).map_err(|e| bug(&e))?;
            }
            Element::Area { points, fill } => {
                backend.fill_polygon(points.iter().copied(), &rgb(*fill)).map_err(|e| bug(&e))?;
            }
            Element::Dot { at, radius, fill } => backend.draw_circle(*at, *radius, &rgb(*fill), true).map_err(|e| bug(&e))?,
            Element::Cells(_) if without_cells => {}
            Element::Cells(block) => rectangles(&mut backend, block)?,
        }
    }
    backend.present().map_err(|e| bug(&e))
}

fn rectangles(backend: &mut SVGBackend<'_>, block: &Cells) -> Result<()> {
    let mut result = Ok(());
    block.runs(|from, to, fill| {
        if result.is_ok() {
            result = backend.draw_rect(from, to, &rgb(fill), true).map_err(|e| bug(&e));
        }
    });
    result
}

fn write_text(backend: &mut SVGBackend<'_>, text: &Text) -> Result<()> {
    let h = match text.anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    let size = f64::from(text.size);
    let rise = (TOP_TO_BASELINE * size).round() as i32;
    let (position, turn) = if text.upwards {
        ((text.x - rise, text.y), FontTransform::Rotate270)
    } else {
        ((text.x, text.y - rise), FontTransform::None)
    };
    let font = (FontFamily::Name(FAMILY), size * SIZE_DIVISOR).into_font().transform(turn);
    backend
        .draw_text(&text.text, &TextStyle::from(font).color(&rgb(text.colour)).pos(Pos::new(h, VPos::Top)), position)
        .map_err(|e| bug(&e))
}

/// Plotters' output without attributes that the opening tag already has or that are SVG's defaults, and with whole font sizes
/// (the division leaves 26.000000000000004). Names cannot be changed by this, because quotation marks are escaped in them.
fn tidy(shapes: &str) -> String {
    const SIZE: &str = " font-size=\"";
    let family = format!(" font-family=\"{FAMILY}\"");
    let plain = shapes.replace(&family, "").replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "");
    let mut out = String::with_capacity(plain.len());
    for (k, part) in plain.split(SIZE).enumerate() {
        match part.split_once('"') {
            Some((size, rest)) if k > 0 => {
                let size = size.parse::<f64>().map_or(size.to_owned(), |s| s.round().to_string());
                out.extend([SIZE, &size, "\"", rest]);
            }
            _ => out.push_str(part),
        }
    }
    out
}

/// Writes a block of cells as an embedded PNG, with as many pixels as it has in the scene. Cells must not be smoothed: the
/// attribute says so to viewers of SVG 1.1, the style to browsers.
fn picture(out: &mut String, block: &Cells) -> Result<()> {
    let Cells { x, y, cell, n, fills } = block;
    let repeat = *cell as usize;
    let side = n * repeat;
    let png = encode(side as u32, side as u32, None, |rows| {
        for row in fills.chunks(*n) {
            let line: Vec<u8> = row.iter().flat_map(|Rgb(r, g, b)| [*r, *g, *b].repeat(repeat)).collect();
            (0..repeat).try_for_each(|_| rows.write_all(&line)).map_err(|e| bug(&e))?;
        }
        Ok(())
    })?;
    let _ = writeln!(
        out,
        "<image x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" image-rendering=\"optimizeSpeed\" \
         style=\"image-rendering:pixelated\" xlink:href=\"data:image/png;base64,{}\"/>",
        base64(&png)
    );
    Ok(())
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, k| (bits << 8) | u32::from(chunk.get(k).copied().unwrap_or(0)));
        for k in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * k)) as usize & 63];
            out.push(if k <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn rgb(Rgb(r, g, b): Rgb) -> RGBColor {
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_rfc_4648() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn font_sizes_are_whole_and_names_are_left_alone() {
        let tidied = tidy(
            "<text x=\"1\" font-size=\"26.000000000000004\" opacity=\"1\" fill=\"#000000\">\n font-size=&quot;9.7&quot;\n</text>",
        );
        assert_eq!(tidied, "<text x=\"1\" font-size=\"26\" fill=\"#000000\">\n font-size=&quot;9.7&quot;\n</text>");
    }
}
