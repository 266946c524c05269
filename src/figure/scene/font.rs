//! The bundled font: widths for the layout, glyphs for bitmaps and PDF.
//!
//! Plotters' own `ab_glyph` text drops each glyph's side bearing and truncates its position, which looks uneven, so bitmaps take
//! their glyphs from here. SVG text is drawn by the viewer, with the same font or one of nearly the same widths.

use std::ops::Range;
use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, Glyph, GlyphId, PxScale, point};

/// A subset of DejaVu Sans, renamed as its licence asks; see `assets/font/README.md`.
pub(crate) static FONT_FILE: &[u8] = include_bytes!("../../../assets/font/CondloraSans-Regular.ttf");

/// Half the height of digits and capitals, in em: a baseline this far below a line centres them on it.
pub(crate) const HALF_CAP: f64 = 0.3645;

/// Widths of characters that the font does not have, in em: East Asian ones are square, all others get the width of the empty
/// box.
const WIDE: f64 = 1.0;
const UNKNOWN: f64 = 0.6;

fn font() -> &'static FontRef<'static> {
    static FONT: OnceLock<FontRef<'static>> = OnceLock::new();
    FONT.get_or_init(|| FontRef::try_from_slice(FONT_FILE).unwrap_or_else(|_| unreachable!("the bundled font is one")))
}

/// The glyph of one character, and its distance from the start of the text, in em.
pub(crate) struct PlacedGlyph {
    pub(crate) id: GlyphId,
    pub(crate) at: f64,
    /// The character's bytes in the text.
    #[cfg_attr(not(feature = "pdf"), expect(dead_code, reason = "PDF alone has text to select"))]
    pub(crate) bytes: Range<usize>,
}

/// Places every character of `text`; returns the glyphs and the whole width in em.
fn place(text: &str) -> (Vec<PlacedGlyph>, f64) {
    let font = font();
    let em = f64::from(font.units_per_em().unwrap_or(2048.0));
    let mut placed = Vec::with_capacity(text.len());
    let mut at = 0.0;
    let mut before: Option<GlyphId> = None;
    for (start, c) in text.char_indices() {
        let id = font.glyph_id(c);
        let known = id.0 != 0;
        if let (Some(before), true) = (before, known) {
            at += f64::from(font.kern_unscaled(before, id)) / em;
        }
        placed.push(PlacedGlyph { id, at, bytes: start..start + c.len_utf8() });
        at += match (known, c) {
            (true, _) => f64::from(font.h_advance_unscaled(id)) / em,
            (false, '\u{1100}'..) => WIDE,
            (false, _) => UNKNOWN,
        };
        before = known.then_some(id);
    }
    (placed, at)
}

/// Whether the font has a glyph for this character.
#[cfg(test)]
pub(crate) fn has(c: char) -> bool {
    font().glyph_id(c).0 != 0
}

/// Width of `text` at a font size, in the unit of `size`.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    place(text).1 * size
}

/// The glyphs of `text` and its width, in em.
#[cfg(feature = "pdf")]
pub(crate) fn glyphs(text: &str) -> (Vec<PlacedGlyph>, f64) {
    place(text)
}

/// Calls `ink(x, y, coverage)` for every pixel that the text touches. Its baseline begins at `start`; y grows downwards.
pub(crate) fn rasterise(text: &str, size: f64, start: (f64, f64), mut ink: impl FnMut(i32, i32, f32)) {
    let font = font();
    let em = f64::from(font.units_per_em().unwrap_or(2048.0));
    // The scale of ab_glyph is the height of a line, not an em.
    let scale = PxScale::from((size * f64::from(font.height_unscaled()) / em) as f32);
    for PlacedGlyph { id, at, .. } in place(text).0 {
        let glyph = Glyph { id, scale, position: point((start.0 + at * size) as f32, start.1 as f32) };
        if let Some(outline) = font.outline_glyph(glyph) {
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, coverage| ink(corner.x as i32 + x as i32, corner.y as i32 + y as i32, coverage));
        }
    }
}

/// Shortens `text` to `room` with an ellipsis in its middle: names that are paths often differ only at their ends.
pub(crate) fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    let shortened = |kept: usize| -> String {
        let tail = kept / 2;
        let head = kept - tail;
        chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
    };
    // Text gets wider with every character that is kept, so the longest that fits is found by bisection.
    let (mut fits, mut too_many) = (0, chars.len());
    while too_many - fits > 1 {
        let middle = (fits + too_many) / 2;
        if width(&shortened(middle), size) <= room { fits = middle } else { too_many = middle }
    }
    shortened(fits)
}

/// Breaks `text` at spaces into lines of at most `room`. A wider word gets its own line.
pub(crate) fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A name as it is written in figures: without control characters and what XML forbids.
pub(crate) fn printable(name: &str) -> String {
    crate::error::escape(name).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_dejavu_sans() {
        // 1303 of 2048 units a digit, 651 for the full stop.
        assert!((width(".05", 10.0) - 10.0 * (651.0 + 2.0 * 1303.0) / 2048.0).abs() < 1e-6);
        assert_eq!(width("", 10.0), 0.0);
        assert!((width("層", 10.0) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn the_figures_own_signs_are_in_the_font() {
        let font = font();
        for c in "Θφ·±−–→≥≤₀ᵀσ×…‖²⁻¹".chars() {
            assert_ne!(font.glyph_id(c).0, 0, "{c}");
        }
    }

    #[test]
    fn shortened_text_fits_and_keeps_both_ends() {
        let name = "a/very/long/path/to/some/checkpoint-500";
        let short = fit(name, 12.0, 120.0);
        assert!(width(&short, 12.0) <= 120.0 && short.contains('…'));
        assert!(short.starts_with("a/v") && short.ends_with("500"), "{short}");
        assert_eq!(fit("query", 12.0, 120.0), "query");
        assert_eq!(fit("query", 12.0, 0.0), "…");
        assert!(width(&fit(&"層".repeat(500), 12.0, 100.0), 12.0) <= 100.0);
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        let lines = wrap("one two three four", 10.0, width("three four", 10.0) + 0.1);
        assert_eq!(lines, ["one two", "three four"]);
        assert!(wrap("", 10.0, 50.0).is_empty());
    }

    #[test]
    fn a_glyph_keeps_its_side_bearing() {
        // `l` is a thin bar that begins 0.09 em after its origin.
        let mut left = i32::MAX;
        rasterise("l", 100.0, (0.0, 0.0), |x, _, coverage| {
            if coverage > 0.5 {
                left = left.min(x);
            }
        });
        assert!((8..=11).contains(&left), "{left}");
    }
}
