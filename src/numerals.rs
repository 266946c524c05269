//! Numbers as they are written for people: `12,345`, `2 adapters`, a p.

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

/// A share of draws.
pub(crate) fn p(value: f64) -> String {
    if value < 0.001 { format!("{value:.1e}") } else { format!("{value:.3}") }
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
