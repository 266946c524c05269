//! What one average says, in words: against chance, and against what the base model alone gives.
//!
//! The words keep to what was tested. A control that was not drawn, or too seldom, gives no answer; and an average that does not
//! exceed its control was not shown to be more, which is not the same as being no more.

use crate::table::rows::SummaryRow;
use crate::terms::Status;

/// An average is called more (or less) than chance if it lies this many standard deviations of the Gaussian draws beside their mean.
pub(super) const CHANCE_SDS: f64 = 3.0;
/// Fewer draws do not say how far chance strays.
pub(super) const LEAST_DRAWS_FOR_CHANCE: u64 = 10;
/// A p below this is an answer, here and on the terminal.
pub(crate) const SIGNIFICANT: f64 = 0.05;

/// How an average stands to one of its controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// More than it.
    More,
    /// Not shown to be more.
    NotMore,
    /// Less than it.
    Less,
    /// Higher than it, but nothing says by how much it strays.
    HigherUntested,
    /// Not higher than it, and nothing says by how much it strays.
    LowerUntested,
    /// Too few draws for any average to be an answer.
    TooFewDraws,
    /// There is nothing to ask.
    None,
}

/// What one row of the summary says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) chance: Answer,
    pub(super) base: Answer,
    /// The whole in words.
    pub(super) words: String,
}

impl Verdict {
    /// `draws` is how often the controls were drawn.
    pub(super) fn of(row: &SummaryRow, draws: u64) -> Self {
        let silent = |words: &str| Self { chance: Answer::None, base: Answer::None, words: words.to_owned() };
        let Some(phi) = row.phi_mean else { return silent(no_average(row)) };
        if row.status == Status::Unreliable {
            return silent("unreliable: a solution failed its check; draw nothing from this number");
        }
        if by_construction(row) {
            return silent("1 by construction: as many vectors as they have entries span everything; nothing to test");
        }
        let (chance, base) = (against_chance(row, phi, draws), against_base(row, draws));
        let words = match base_words(row, base, draws) {
            Some(base) => format!("{}; {base}", chance_words(chance, draws)),
            None => chance_words(chance, draws).to_owned(),
        };
        let caveat = caveat(row.status);
        Self { chance, base, words: if caveat.is_empty() { words } else { format!("{words} ({caveat})") } }
    }
}

/// Whether the compared vectors span their whole space, so that φ is 1 whatever they are.
fn by_construction(row: &SummaryRow) -> bool {
    row.gaussian_expected.is_some_and(|expected| expected >= 1.0)
}

/// Why there is no average.
fn no_average(row: &SummaryRow) -> &'static str {
    match row.status {
        Status::Zero => "no answer: B (or A) is zero, as before training, and has no subspace",
        Status::Rank => "no answer: fewer directions than i or j (rank)",
        Status::Skipped => "no answer: the layers' vectors differ in length",
        _ if row.layers < 2 => "no answer: a single layer has no other to be compared with",
        _ => "no answer: no pair of layers has a φ",
    }
}

fn against_chance(row: &SummaryRow, phi: f64, draws: u64) -> Answer {
    let untested = |chance: f64| if phi > chance { Answer::HigherUntested } else { Answer::LowerUntested };
    match (row.gaussian_mean, row.gaussian_sd, row.gaussian_expected) {
        (Some(mean), Some(sd), _) if draws >= LEAST_DRAWS_FOR_CHANCE && sd > 0.0 => match (phi - mean) / sd {
            z if z > CHANCE_SDS => Answer::More,
            z if z < -CHANCE_SDS => Answer::Less,
            _ => Answer::NotMore,
        },
        (_, _, Some(expected)) => untested(expected),
        (Some(mean), _, None) => untested(mean),
        (None, _, None) => Answer::None,
    }
}

fn against_base(row: &SummaryRow, draws: u64) -> Answer {
    match row.w0_p {
        _ if row.matrix.is_factor() => Answer::None,
        None => Answer::None,
        Some(_) if smallest_p(draws) >= SIGNIFICANT => Answer::TooFewDraws,
        Some(p) if p < SIGNIFICANT => Answer::More,
        Some(_) => Answer::NotMore,
    }
}

/// The smallest p that this many draws can give.
pub(super) fn smallest_p(draws: u64) -> f64 {
    1.0 / (draws as f64 + 1.0)
}

fn chance_words(answer: Answer, draws: u64) -> &'static str {
    match answer {
        Answer::More => "more than chance",
        Answer::NotMore | Answer::TooFewDraws => "not shown to be more than chance",
        Answer::Less => "less than chance",
        Answer::HigherUntested if draws == 0 => "higher than the expected chance value (no draws, so not tested)",
        Answer::HigherUntested => "higher than the expected chance value (too few draws to test it)",
        Answer::LowerUntested => "not higher than the expected chance value",
        Answer::None => "chance is not known",
    }
}

/// None where the question does not arise: a factor is compared without W0.
fn base_words(row: &SummaryRow, answer: Answer, draws: u64) -> Option<String> {
    if row.matrix.is_factor() {
        return Some("W0 has no part in it".to_owned());
    }
    Some(match answer {
        Answer::More => "more than base alone".to_owned(),
        Answer::TooFewDraws => {
            format!("{draws} draw{} cannot tell it from base alone", if draws == 1 { "" } else { "s" })
        }
        Answer::None if draws == 0 => "base alone was not drawn".to_owned(),
        Answer::None => "not tested against base alone".to_owned(),
        _ => "not shown to exceed base alone".to_owned(),
    })
}

/// What the status takes from the words.
fn caveat(status: Status) -> &'static str {
    match status {
        Status::Ok | Status::Unreliable => "",
        Status::Singular => "W0 is rank-deficient: of all solutions the one of smallest norm was taken",
        Status::LowConfidence => "low confidence: the error bound of some pair is above 0.001",
        Status::Rank => "without the layers that have fewer directions than i or j",
        Status::Zero => "without the layers whose factor is zero",
        Status::Skipped => "without the pairs whose vectors differ in length",
    }
}

/// How many of these p stay below the level by Holm's procedure, which holds for dependent tests too.
///
/// Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
pub(super) fn after_holm(p_values: &[f64]) -> usize {
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    sorted.iter().enumerate().take_while(|(k, p)| **p * ((count - k) as f64) < SIGNIFICANT).count()
}

/// How many draws it takes for one of so many comparisons to pass Holm's procedure at all.
pub(super) fn draws_for_holm(comparisons: usize) -> u64 {
    // The smallest m with comparisons/(m + 1) < 1/20.
    20 * comparisons as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{MatrixKind, Side};

    fn row() -> SummaryRow {
        SummaryRow {
            adapter: "a".into(),
            module: "query".into(),
            matrix: MatrixKind::A,
            side: Side::Left,
            i: 8,
            j: 8,
            layers: 6,
            phi_mean: Some(0.06),
            phi_min: Some(0.05),
            phi_max: Some(0.07),
            gaussian_expected: Some(0.02),
            gaussian_mean: Some(0.02),
            gaussian_sd: Some(0.001),
            w0_mean: Some(0.05),
            w0_sd: Some(0.01),
            w0_z: Some(1.0),
            w0_p: Some(0.3),
            init_mean: None,
            status: Status::Ok,
        }
    }

    fn words(change: impl Fn(&mut SummaryRow), draws: u64) -> String {
        let mut row = row();
        change(&mut row);
        Verdict::of(&row, draws).words
    }

    #[test]
    fn the_plain_cases() {
        assert_eq!(words(|_| {}, 20), "more than chance; not shown to exceed base alone");
        assert_eq!(words(|r| r.w0_p = Some(1.0 / 21.0), 20), "more than chance; more than base alone");
        assert_eq!(words(|r| r.phi_mean = Some(0.022), 20), "not shown to be more than chance; not shown to exceed base alone");
        assert!(words(|r| r.phi_mean = Some(0.01), 20).starts_with("less than chance; "));
    }

    #[test]
    fn few_or_no_draws_answer_nothing() {
        // 19 draws: 1/20 is not below 0.05.
        let few = words(|r| r.w0_p = Some(0.05), 19);
        assert_eq!(few, "more than chance; 19 draws cannot tell it from base alone");
        let one = words(|r| (r.gaussian_sd, r.w0_sd, r.w0_z, r.w0_p) = (None, None, None, Some(0.5)), 1);
        assert_eq!(
            one,
            "higher than the expected chance value (too few draws to test it); 1 draw cannot tell it from base alone"
        );
        let none = words(
            |r| {
                (r.gaussian_mean, r.gaussian_sd) = (None, None);
                (r.w0_mean, r.w0_sd, r.w0_z, r.w0_p) = (None, None, None, None);
            },
            0,
        );
        assert_eq!(none, "higher than the expected chance value (no draws, so not tested); base alone was not drawn");
    }

    #[test]
    fn factors_are_not_asked_about_the_base_model() {
        let factor = |r: &mut SummaryRow| {
            r.matrix = MatrixKind::LoraB;
            (r.w0_mean, r.w0_sd, r.w0_z, r.w0_p) = (None, None, None, None);
        };
        assert_eq!(words(factor, 20), "more than chance; W0 has no part in it");
        assert!(words(factor, 0).ends_with("; W0 has no part in it"));
    }

    #[test]
    fn what_has_no_average_says_why() {
        let without = |status, layers| words(|r| (r.phi_mean, r.status, r.layers) = (None, status, layers), 20);
        assert!(without(Status::Zero, 0).contains("zero, as before training"));
        assert!(without(Status::Rank, 0).contains("fewer directions than i or j"));
        assert!(without(Status::Skipped, 2).contains("differ in length"));
        assert!(without(Status::Ok, 1).contains("a single layer"));
        let whole = words(|r| (r.phi_mean, r.gaussian_expected) = (Some(1.0), Some(1.0)), 20);
        assert!(whole.starts_with("1 by construction"));
    }

    #[test]
    fn doubt_is_said_beside_the_answer_or_in_its_place() {
        let with = |status| words(|r| r.status = status, 20);
        assert!(with(Status::Unreliable).starts_with("unreliable"));
        for (status, part) in [
            (Status::Singular, "rank-deficient"),
            (Status::LowConfidence, "above 0.001"),
            (Status::Rank, "without the layers that have fewer directions"),
            (Status::Zero, "without the layers whose factor is zero"),
            (Status::Skipped, "without the pairs"),
        ] {
            let words = with(status);
            assert!(words.starts_with("more than chance; not shown") && words.contains(part), "{words}");
        }
    }

    #[test]
    fn holm_by_hand() {
        // 4 tests: 0.01 < 0.05/4, 0.015 < 0.05/3, 0.03 > 0.05/2; 0.04 is not looked at any more.
        assert_eq!(after_holm(&[0.03, 0.01, 0.04, 0.015]), 2);
        assert_eq!(after_holm(&[0.0125]), 1);
        assert_eq!(after_holm(&[0.05]), 0);
        assert_eq!(after_holm(&[]), 0);
        for comparisons in [1, 2, 18] {
            let draws = draws_for_holm(comparisons);
            assert!(smallest_p(draws) * comparisons as f64 <= SIGNIFICANT * 0.9999999);
            assert!(smallest_p(draws - 1) * comparisons as f64 >= SIGNIFICANT * 0.9999999);
        }
    }
}
