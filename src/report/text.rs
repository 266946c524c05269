//! Numbers and names as the page shows them.

use serde::Serialize;

use crate::error::escape;
pub(super) use crate::numerals::{count, p, thousands};
use crate::terms::MatrixKind;

/// Names are shown in pieces of this many characters at most: the escaping shortens longer ones.
const PIECE: usize = 200;

/// A text from a file or the command line, whole, with control and direction characters escaped so that it cannot rearrange the
/// page. (The template escapes `<` and `&`.)
pub(super) fn visible(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(PIECE).map(|piece| escape(&piece.iter().collect::<String>())).collect()
}

/// A number: the digits shown, and the exact value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Number {
    pub(super) shown: String,
    pub(super) exact: String,
}

impl Number {
    /// A finite value as `write` shows it.
    pub(super) fn new(value: f64, write: impl Fn(f64) -> String) -> Option<Self> {
        value.is_finite().then(|| Self { shown: minus(write(value)), exact: format!("{value:?}") })
    }
}

/// Four digits behind the point: a φ, or the mean of some.
pub(super) fn phi(value: f64) -> String {
    format!("{value:.4}")
}

/// `4.2e-9` for what is very small or large, else four significant digits.
pub(super) fn general(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if (1e-3..1e4).contains(&size) {
        let whole = if size < 1.0 { 0 } else { size.log10().floor() as usize };
        format!("{value:.*}", 4 - whole.min(4))
    } else {
        format!("{value:.1e}")
    }
}

/// A z.
pub(super) fn signed(value: f64) -> String {
    if value.abs() < 1e4 { format!("{value:+.1}") } else { format!("{value:+.0e}") }
}

/// A mean with its standard deviation, where it has one.
pub(super) fn mean_and_sd(mean: Option<f64>, sd: Option<f64>) -> Option<String> {
    let mean = mean?;
    Some(sd.map_or_else(|| phi(mean), |sd| format!("{} ± {}", phi(mean), phi(sd))))
}

/// A hyphen before a number is a minus sign: it is as wide as a plus.
fn minus(text: String) -> String {
    text.strip_prefix('-').map_or(text.clone(), |rest| format!("\u{2212}{rest}"))
}

/// A matrix's letter and index: Θ with A, or a factor by its name alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct MatrixLabel {
    pub(super) letter: &'static str,
    pub(super) index: &'static str,
}

impl MatrixLabel {
    pub(super) fn of(matrix: MatrixKind) -> Self {
        let (letter, index) = if matrix.is_factor() { (matrix.name(), "") } else { ("Θ", matrix.name()) };
        Self { letter, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_whole() {
        let number = Number::new(-0.026_031_677, signed).unwrap();
        assert_eq!((number.shown.as_str(), number.exact.as_str()), ("\u{2212}0.0", "-0.026031677"));
        assert_eq!(Number::new(f64::NAN, phi), None);
        for (value, shown) in [
            (0.0, "0"),
            (50_706.158, "5.1e4"),
            (1234.5678, "1234.6"),
            (2.18492, "2.1849"),
            (0.123_456, "0.1235"),
            (5.4e-9, "5.4e-9"),
        ] {
            assert_eq!(general(value), shown);
        }
        assert_eq!(mean_and_sd(Some(0.5), None).unwrap(), "0.5000");
        assert_eq!(mean_and_sd(None, Some(1.0)), None);
    }

    #[test]
    fn a_long_text_stays_whole() {
        let long = "a\u{202e}".repeat(300);
        let shown = visible(&long);
        assert!(!shown.contains('\u{202e}') && shown.matches("\\u{202e}").count() == 300 && !shown.contains("bytes"));
    }
}
