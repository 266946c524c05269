//! Scenes to PDF: one page, text as text, and the font embedded as far as it is used.
//!
//! krilla writes no date and takes its identifiers from the contents, so equal scenes give equal bytes.

use krilla::Document;
use krilla::color::rgb;
use krilla::geom::{Path, PathBuilder, Point, Rect, Transform};
use krilla::metadata::Metadata;
use krilla::page::PageSettings;
use krilla::paint::{Fill, LineCap, LineJoin, Stroke};
use krilla::surface::Surface;
use krilla::text::{Font, GlyphId, KrillaGlyph};

use crate::error::{Error, Result};
use crate::figure::scene::colour::Rgb;
use crate::figure::scene::font;
use crate::figure::scene::{Anchor, Element, PER_INCH, Scene, Text};

/// Points in one of the scene's device pixels.
const POINTS: f32 = (72.0 / PER_INCH) as f32;

/// Distance of the control points from the ends of a quarter circle, in radii: 4/3 · (√2 − 1).
const ROUND: f32 = 0.552_284_8;

/// Writes a scene as a PDF document.
///
/// # Errors
/// Only where the library fails, which would be a bug.
pub(crate) fn to_pdf(scene: &Scene) -> Result<Vec<u8>> {
    let page = PageSettings::from_wh(scene.width as f32 * POINTS, scene.height as f32 * POINTS);
    let page = page.ok_or_else(|| bug("a page without a size"))?;
    let face = Font::new(font::FONT_FILE.into(), 0).ok_or_else(|| bug("the bundled font cannot be read"))?;
    let mut document = Document::new();
    document.set_metadata(Metadata::new().title(scene.title.clone()).creator("condlora".to_owned()).language("en".to_owned()));
    let mut page = document.start_page_with(page);
    let mut surface = page.surface();
    surface.push_transform(&Transform::from_scale(POINTS, POINTS));
    for item in &scene.elements {
        draw(&mut surface, item, &face);
    }
    surface.pop();
    surface.finish();
    page.finish();
    document.finish().map_err(|error| bug(&format!("{error:?}")))
}

fn bug(found: &str) -> Error {
    Error::internal("drawing a figure as PDF", found)
}

fn draw(surface: &mut Surface<'_>, item: &Element, face: &Font) {
    match item {
        Element::Rect { x, y, width, height, fill } => rect(surface, (*x, *y), (x + width, y + height), *fill),
        // As in the bitmap, a point is the unit to its right and below it, so a line runs through the middles of units.
        Element::Line { from, to, colour } => stroke(surface, &[middle(*from), middle(*to)], 1.0, *colour, LineCap::Square),
        Element::Path { points, width, colour } => {
            let points: Vec<(f32, f32)> = points.iter().map(|point| middle(*point)).collect();
            stroke(surface, &points, *width as f32, *colour, LineCap::Round);
        }
        Element::Area { points, fill } => {
            let corners: Vec<(f32, f32)> = points.iter().map(|(x, y)| (*x as f32, *y as f32)).collect();
            if let Some(path) = through(&corners, true) {
                filled(surface, &path, *fill);
            }
        }
        Element::Dot { at, radius, fill } => {
            if let Some(path) = circle(middle(*at), *radius as f32) {
                filled(surface, &path, *fill);
            }
        }
        Element::Text(text) => write(surface, text, face),
        Element::Cells(block) => block.runs(|from, to, fill| rect(surface, from, to, fill)),
    }
}

fn middle((x, y): (i32, i32)) -> (f32, f32) {
    (x as f32 + 0.5, y as f32 + 0.5)
}

fn filled(surface: &mut Surface<'_>, path: &Path, Rgb(r, g, b): Rgb) {
    surface.set_stroke(None);
    surface.set_fill(Some(Fill { paint: rgb::Color::new(r, g, b).into(), ..Fill::default() }));
    surface.draw_path(path);
}

fn rect(surface: &mut Surface<'_>, from: (i32, i32), to: (i32, i32), fill: Rgb) {
    let mut path = PathBuilder::new();
    // A rectangle without a size is not drawn.
    if let Some(rect) = Rect::from_ltrb(from.0 as f32, from.1 as f32, to.0 as f32, to.1 as f32) {
        path.push_rect(rect);
    }
    if let Some(path) = path.finish() {
        filled(surface, &path, fill);
    }
}

fn stroke(surface: &mut Surface<'_>, points: &[(f32, f32)], width: f32, Rgb(r, g, b): Rgb, line_cap: LineCap) {
    let Some(path) = through(points, false) else { return };
    surface.set_fill(None);
    let paint = rgb::Color::new(r, g, b).into();
    surface.set_stroke(Some(Stroke { paint, width, line_cap, line_join: LineJoin::Round, ..Stroke::default() }));
    surface.draw_path(&path);
}

fn through(points: &[(f32, f32)], closed: bool) -> Option<Path> {
    let (first, rest) = points.split_first()?;
    let mut path = PathBuilder::new();
    path.move_to(first.0, first.1);
    rest.iter().for_each(|(x, y)| path.line_to(*x, *y));
    if closed {
        path.close();
    }
    path.finish()
}

fn circle((x, y): (f32, f32), r: f32) -> Option<Path> {
    let c = ROUND * r;
    let mut path = PathBuilder::new();
    path.move_to(x + r, y);
    path.cubic_to(x + r, y + c, x + c, y + r, x, y + r);
    path.cubic_to(x - c, y + r, x - r, y + c, x - r, y);
    path.cubic_to(x - r, y - c, x - c, y - r, x, y - r);
    path.cubic_to(x + c, y - r, x + r, y - c, x + r, y);
    path.close();
    path.finish()
}

fn write(surface: &mut Surface<'_>, text: &Text, face: &Font) {
    let (placed, width) = font::glyphs(&text.text);
    let size = text.size as f32;
    let ends = placed.iter().skip(1).map(|glyph| glyph.at).chain([width]);
    let glyphs: Vec<KrillaGlyph> = placed
        .iter()
        .zip(ends)
        .map(|(glyph, end)| KrillaGlyph {
            glyph_id: GlyphId::new(u32::from(glyph.id.0)),
            text_range: glyph.bytes.clone(),
            x_advance: (end - glyph.at) as f32,
            x_offset: 0.0,
            y_offset: 0.0,
            y_advance: 0.0,
            location: None,
        })
        .collect();
    let start = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width as f32 * size / 2.0,
        Anchor::End => -width as f32 * size,
    };
    let Rgb(r, g, b) = text.colour;
    surface.set_stroke(None);
    surface.set_fill(Some(Fill { paint: rgb::Color::new(r, g, b).into(), ..Fill::default() }));
    let (x, y) = (text.x as f32, text.y as f32);
    if text.upwards {
        surface.push_transform(&Transform::from_row(0.0, -1.0, 1.0, 0.0, x, y));
        surface.draw_glyphs(Point::from_xy(start, 0.0), &glyphs, face.clone(), &text.text, size, false);
        surface.pop();
    } else {
        surface.draw_glyphs(Point::from_xy(x + start, y), &glyphs, face.clone(), &text.text, size, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::scene::Cells;

    fn scene() -> Scene {
        let mut scene = Scene::new(100.0, 50.0, "a title".to_owned());
        scene.text(50.0, 20.0, 10.0, Anchor::Middle, Rgb(0, 0, 0), "Θ_A φ(8,8) 層 fi");
        scene.text_upwards(10.0, 25.0, 10.0, Anchor::Middle, Rgb(0, 0, 0), "layer");
        scene.line((0.0, 0.0), (10.0, 10.0), Rgb(1, 2, 3));
        scene.path(&[(0.0, 0.0), (10.0, 10.0), (20.0, 0.0)], 1.5, Rgb(1, 2, 3));
        scene.area(&[(0.0, 0.0), (10.0, 10.0), (20.0, 0.0)], Rgb(1, 2, 3));
        scene.dot(30.0, 30.0, 2.0, Rgb(1, 2, 3));
        scene.elements.push(Element::Cells(Cells { x: 0, y: 0, cell: 4, n: 2, fills: vec![Rgb(9, 9, 9); 4] }));
        scene
    }

    #[test]
    fn equal_scenes_give_equal_bytes_and_no_date() {
        let (one, other) = (to_pdf(&scene()).unwrap(), to_pdf(&scene()).unwrap());
        assert!(one.starts_with(b"%PDF-1.") && one == other);
        let text = String::from_utf8_lossy(&one);
        assert!(!text.contains("/CreationDate") && !text.contains("xmp:CreateDate"));
        assert!(text.contains("/MediaBox [0 0 75 37.5]") || text.contains("/MediaBox[0 0 75 37.5]"), "{text}");
        // The name of a subset begins with six letters.
        assert!(text.contains("+CondloraSans") && text.contains("/ToUnicode"));
    }

    #[test]
    fn what_has_no_size_is_no_error() {
        let mut scene = Scene::new(0.0, 0.0, String::new());
        scene.rect(0.0, 0.0, 0.0, 3.0, Rgb(0, 0, 0));
        scene.text(0.0, 0.0, 10.0, Anchor::Start, Rgb(0, 0, 0), "");
        scene.path(&[], 1.0, Rgb(0, 0, 0));
        scene.area(&[(1.0, 1.0)], Rgb(0, 0, 0));
        scene.dot(1.0, 1.0, 0.0, Rgb(0, 0, 0));
        assert!(to_pdf(&scene).is_ok());
    }
}
