//! Colours: the scales, and the ink that is legible on them.
//!
//! φ is shown in viridis by default: its lightness rises evenly, so that equal differences look equal, it is legible with the
//! common kinds of colour blindness, and in grey print. The tables of viridis and magma are those of matplotlib, by the crate
//! `colorous`.

use crate::figure::options::ColourMap;

/// An sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

pub(crate) const BLACK: Rgb = Rgb(0, 0, 0);
pub(crate) const WHITE: Rgb = Rgb(255, 255, 255);
/// Titles and labels.
pub(crate) const INK: Rgb = Rgb(0x1a, 0x1a, 0x1a);
/// Second lines and notes.
pub(crate) const SOFT_INK: Rgb = Rgb(0x50, 0x50, 0x50);
/// Frames and ticks.
pub(crate) const FRAME: Rgb = Rgb(0x30, 0x30, 0x30);
/// A diagonal that is excluded from the scale.
pub(crate) const DIAGONAL: Rgb = Rgb(0xe2, 0xe2, 0xe2);
/// A cell without a value, and its hatching.
pub(crate) const MISSING: Rgb = Rgb(0xf6, 0xf6, 0xf6);
pub(crate) const HATCH: Rgb = Rgb(0xb4, 0xb4, 0xb4);

/// The relative luminance L at which black and white text have the same contrast. WCAG 2 defines the contrast of white as
/// 1.05 / (L + 0.05) and that of black as (L + 0.05) / 0.05; they are equal, 4.58, for L = √(1.05 · 0.05) − 0.05. Below it white
/// is better, above it black, so that either has at least 4.58:1, more than the 4.5:1 that WCAG asks for.
const EVEN_CONTRAST: f64 = 0.179_128_784_747_792;

/// The colours of φ, for values from 0 to 1.
pub(crate) fn sequential(map: ColourMap) -> fn(f64) -> Rgb {
    match map {
        ColourMap::Viridis => viridis,
        ColourMap::Magma => magma,
        ColourMap::Greys => greys,
    }
}

fn viridis(at: f64) -> Rgb {
    from_scale(colorous::VIRIDIS, at)
}

fn magma(at: f64) -> Rgb {
    from_scale(colorous::MAGMA, at)
}

/// CIE lightness falls evenly from 97 to 8: small φ is nearly as light as paper, and both ends differ from pure white and black.
fn greys(at: f64) -> Rgb {
    const LIGHTEST: f64 = 97.0;
    const DARKEST: f64 = 8.0;
    let lightness = LIGHTEST + (DARKEST - LIGHTEST) * step(at) as f64 / 255.0;
    let root = (lightness + 16.0) / 116.0;
    let linear = if lightness > 8.0 { root.powi(3) } else { lightness * 27.0 / 24389.0 };
    let encoded = if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    let grey = (255.0 * encoded).round() as u8;
    Rgb(grey, grey, grey)
}

/// Blue below, white at 0.5, red above, for `at` from 0 to 1.
pub(crate) fn blue_to_red(at: f64) -> Rgb {
    from_scale(colorous::RED_BLUE, 1.0 - at)
}

fn from_scale(scale: colorous::Gradient, at: f64) -> Rgb {
    let colorous::Color { r, g, b } = scale.eval_rational(step(at), 256);
    Rgb(r, g, b)
}

/// The nearest of 256 steps. Cells and bar use the same steps, so that a value has exactly the same colour in both.
fn step(at: f64) -> usize {
    let at = if at.is_finite() { at.clamp(0.0, 1.0) } else { 0.0 };
    (at * 255.0).round() as usize
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
pub(crate) fn ink_on(background: Rgb) -> Rgb {
    if luminance(background) < EVEN_CONTRAST { WHITE } else { BLACK }
}

/// The contrast of two colours, WCAG 2: from 1 to 21.
#[cfg(test)]
pub(crate) fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_can_be_read_on_every_colour_of_every_scale() {
        for step in 0..=1000 {
            let at = f64::from(step) / 1000.0;
            for colour in [viridis(at), magma(at), greys(at), blue_to_red(at)] {
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

    /// CIE 1976 lightness.
    fn lightness(colour: Rgb) -> f64 {
        let y = luminance(colour);
        if y > 216.0 / 24389.0 { 116.0 * y.cbrt() - 16.0 } else { y * 24389.0 / 27.0 }
    }

    #[test]
    fn the_scales_are_smooth_and_their_lightness_is_even() {
        // The largest difference of lightness from a straight line in matplotlib's own tables, computed with NumPy. (They are
        // even in CAM02-UCS, not in CIE lightness.) Greys are even by construction. A change of one in a byte of green is up to
        // 0.5.
        for (map, departure) in [(ColourMap::Viridis, 1.700), (ColourMap::Magma, 5.574), (ColourMap::Greys, 0.0)] {
            let scale = sequential(map);
            let steps: Vec<Rgb> = (0..=255).map(|k| scale(f64::from(k) / 255.0)).collect();
            assert!(steps.windows(2).all(|p| p[0].0.abs_diff(p[1].0) < 7 && p[0].1.abs_diff(p[1].1) < 7));
            let lightness: Vec<f64> = steps.into_iter().map(lightness).collect();
            let (first, last) = (lightness[0], lightness[255]);
            assert!(lightness.windows(8).all(|p| (p[7] - p[0]) * (last - first) > 0.0), "{map}");
            let even = |k: usize| first + (last - first) * k as f64 / 255.0;
            let farthest = lightness.iter().enumerate().map(|(k, l)| (l - even(k)).abs()).fold(0.0, f64::max);
            assert!((farthest - departure).abs() < 0.5, "{map}: {farthest}");
        }
    }

    #[test]
    fn greys_are_their_formula() {
        // CIE L* = 97 and 8 in sRGB, computed with the standard's equations.
        assert_eq!((greys(0.0), greys(1.0)), (Rgb(246, 246, 246), Rgb(24, 24, 24)));
    }
}
