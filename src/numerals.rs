//! Numbers and lists as they are written for people: `12,345`, `2 adapters`, a p, a few names and how many more.

use std::fmt::Display;

/// A whole number as `12,345`.
pub(crate) fn thousands(number: impl Display) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 adapter`, `2 adapters`, `10,000 adapters`.
pub(crate) fn count(number: usize, one: &str) -> String {
    format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// What so many things are taken by.
pub(crate) fn itself(number: usize) -> &'static str {
    if number == 1 { "itself" } else { "themselves" }
}

/// A share of draws.
pub(crate) fn p(value: f64) -> String {
    if value < 0.001 { format!("{value:.1e}") } else { format!("{value:.3}") }
}

/// A sentence as it goes on after a colon.
pub(crate) fn lower(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_lowercase().chain(rest).collect())
}

/// A few names, and how many more there are.
pub(crate) fn few(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_counted() {
        let numbers = [0_u64, 12, 999, 1000, 24_576, 294_912, 1_234_567];
        assert_eq!(numbers.map(thousands), ["0", "12", "999", "1,000", "24,576", "294,912", "1,234,567"]);
        assert_eq!([0, 1, 2, 10_000].map(|n| count(n, "row")), ["0 rows", "1 row", "2 rows", "10,000 rows"]);
        assert_eq!((p(0.047_619), p(0.000_25)), ("0.048".to_owned(), "2.5e-4".to_owned()));
    }
}
