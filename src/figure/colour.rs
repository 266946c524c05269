//! Colours: the two scales, and the ink that can be read on them.

/// An sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rgb(pub(super) u8, pub(super) u8, pub(super) u8);

pub(super) const BLACK: Rgb = Rgb(0, 0, 0);
pub(super) const WHITE: Rgb = Rgb(255, 255, 255);
/// Titles and labels.
pub(super) const INK: Rgb = Rgb(0x1a, 0x1a, 0x1a);
/// Second lines and notes.
pub(super) const SOFT_INK: Rgb = Rgb(0x50, 0x50, 0x50);
/// Frames and ticks.
pub(super) const FRAME: Rgb = Rgb(0x30, 0x30, 0x30);
/// A diagonal that is left out of the scale.
pub(super) const DIAGONAL: Rgb = Rgb(0xe2, 0xe2, 0xe2);
/// A cell without a value, and its hatching.
pub(super) const MISSING: Rgb = Rgb(0xf6, 0xf6, 0xf6);
pub(super) const HATCH: Rgb = Rgb(0xb4, 0xb4, 0xb4);

/// Relative luminance at which black and white have the same contrast: √(1.05 · 0.05) − 0.05.
const EVEN_CONTRAST: f64 = 0.179_128_784_747_792;

/// Viridis, for `at` from 0 to 1.
pub(super) fn viridis(at: f64) -> Rgb {
    from_scale(colorous::VIRIDIS, at)
}

/// Blue below, white at 0.5, red above, for `at` from 0 to 1.
pub(super) fn blue_to_red(at: f64) -> Rgb {
    from_scale(colorous::RED_BLUE, 1.0 - at)
}

fn from_scale(scale: colorous::Gradient, at: f64) -> Rgb {
    let at = if at.is_finite() { at.clamp(0.0, 1.0) } else { 0.0 };
    // 256 steps: the same value has the same colour in a cell and on the bar.
    let colorous::Color { r, g, b } = scale.eval_rational((at * 255.0).round() as usize, 256);
    Rgb(r, g, b)
}

/// Relative luminance, WCAG 2.
fn luminance(Rgb(r, g, b): Rgb) -> f64 {
    let linear = |channel: u8| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// Black or white, whichever has the better contrast on `background`.
pub(super) fn ink_on(background: Rgb) -> Rgb {
    if luminance(background) < EVEN_CONTRAST { WHITE } else { BLACK }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contrast(a: Rgb, b: Rgb) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn ink_can_be_read_on_every_colour_of_both_scales() {
        for step in 0..=1000 {
            let at = f64::from(step) / 1000.0;
            for colour in [viridis(at), blue_to_red(at)] {
                assert!(contrast(colour, ink_on(colour)) >= 4.5, "{colour:?}");
            }
        }
        for ground in [WHITE, DIAGONAL, MISSING] {
            assert!(contrast(ground, ink_on(ground)) >= 4.5);
            assert!(contrast(ground, SOFT_INK) >= 4.5);
        }
    }

    #[test]
    fn the_scales_have_their_known_ends() {
        assert_eq!(viridis(0.0), Rgb(68, 1, 84));
        assert_eq!(viridis(1.0), Rgb(253, 231, 37));
        assert_eq!(viridis(-3.0), viridis(0.0));
        assert_eq!(viridis(f64::NAN), viridis(0.0));
        let (cold, warm) = (blue_to_red(0.0), blue_to_red(1.0));
        assert!(cold.2 > cold.0 && warm.0 > warm.2);
    }

    #[test]
    fn viridis_is_smooth() {
        for step in 0..255 {
            let (a, b) = (viridis(f64::from(step) / 255.0), viridis(f64::from(step + 1) / 255.0));
            assert!(a.0.abs_diff(b.0) < 6 && a.1.abs_diff(b.1) < 6 && a.2.abs_diff(b.2) < 6);
        }
    }
}
