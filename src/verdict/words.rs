//! The sentences of a verdict: a row's, and those of a run that terminal, JSON and report have in common.

use super::statistics::{SIGNIFICANT, draws_for_holm, smallest_p};
use super::{Answer, Comparisons, LEAST_DRAWS_FOR_CHANCE, RowVerdict, Tally};
use crate::error::field;
use crate::numerals::{count, itself, p, thousands};
use crate::terms::Status;

impl Comparisons {
    /// A row's answers in words, with the caveat of its status.
    pub(super) fn words_of(&self, row: &RowVerdict, without_base: Option<&str>, status: Status) -> String {
        let mut words = self.chance_words(row.chance);
        let base = without_base.map_or_else(|| self.base_words(row), str::to_owned);
        if !base.is_empty() {
            words.push_str(&format!("; {base}"));
        }
        match caveat(status) {
            "" => words,
            caveat => format!("{words} ({caveat})"),
        }
    }

    fn chance_words(&self, answer: Answer) -> String {
        match answer {
            Answer::More => "more than chance".to_owned(),
            Answer::MoreUncorrected => {
                format!("more than 3 sd above chance, but not after correction for {}", count(self.chance, "comparison"))
            }
            Answer::NotShown => "not shown to be more than chance".to_owned(),
            Answer::Less => "more than 3 sd below chance".to_owned(),
            Answer::HigherUntested => format!("higher than the value expected by chance, {}", self.why_untested()),
            Answer::NotHigherUntested => "not higher than the value expected by chance".to_owned(),
            Answer::TooFewDraws | Answer::None => "chance is not known".to_owned(),
        }
    }

    fn base_words(&self, row: &RowVerdict) -> String {
        match (row.base, row.p) {
            (Answer::More, _) => "more than base alone".to_owned(),
            (Answer::MoreUncorrected, Some(value)) => {
                let but = if self.can_be_corrected_for() {
                    format!("not after correction for {}", count(self.base, "comparison"))
                } else {
                    format!("{} are too few to correct for {}", count(self.draws, "draw"), count(self.base, "comparison"))
                };
                format!("above base alone taken by itself (p = {}), but {but}", p(value))
            }
            (Answer::TooFewDraws, _) => format!("{} cannot tell it from base alone", count(self.draws, "draw")),
            (Answer::None, _) if self.draws == 0 => "base alone was not drawn".to_owned(),
            (Answer::None, _) => "not tested against base alone".to_owned(),
            _ => "not shown to exceed base alone".to_owned(),
        }
    }

    fn why_untested(&self) -> String {
        match self.chance_draws {
            0 => "which was not drawn to test it".to_owned(),
            1 => "which 1 draw is too few to test".to_owned(),
            draws if draws < LEAST_DRAWS_FOR_CHANCE => format!("which {draws} draws are too few to test"),
            _ => "whose draws do not vary to test it".to_owned(),
        }
    }

    /// The answer in one sentence. `without_base` is said where the base model has no part in any of it.
    pub(super) fn headline(&self, all: &Tally, without_base: Option<&str>) -> String {
        if all.averages == 0 {
            return "No average could be judged.".to_owned();
        }
        let chance = headline_on_chance(all);
        match without_base {
            Some("") => format!("{chance}."),
            Some(sentence) => format!("{chance}. {sentence}"),
            None => {
                let base = self.headline_on_base(all);
                let joined = match chance.as_str() {
                    "More than chance" if all.more_than_base == all.averages => ", and ",
                    "More than chance" if all.significant() == 0 => ", but ",
                    _ => "; ",
                };
                format!("{chance}{joined}{base}.")
            }
        }
    }

    fn headline_on_base(&self, all: &Tally) -> String {
        let tested = all.base_tested;
        if tested == 0 {
            let what = if self.draws == 0 {
                "what the base model alone gives was not drawn"
            } else {
                "nothing was tested against the base model alone"
            };
            what.to_owned()
        } else if all.too_few_draws > 0 {
            format!("{} cannot tell it from the base model alone", count(self.draws, "draw"))
        } else if all.more_than_base == tested {
            "more than the base model alone gives".to_owned()
        } else if all.more_than_base > 0 {
            format!("more than the base model alone gives in {} of {} averages", thousands(all.more_than_base), thousands(tested))
        } else if all.significant() == 0 {
            "not shown to be more than the base model alone gives".to_owned()
        } else if self.can_be_corrected_for() {
            format!(
                "not shown to be more than the base model alone gives after correction for {}",
                count(self.base, "comparison")
            )
        } else {
            let comparisons = count(self.base, "comparison");
            if self.are_all_beyond_the_draws(all) {
                let draws = count(self.draws, "draw");
                return format!("above all {draws} of the base model alone, but these are too few to correct for {comparisons}");
            }
            let some = match all.significant() {
                some if some == tested => String::new(),
                some => format!(" in {} of {} averages", thousands(some), thousands(tested)),
            };
            let draws = count(self.draws, "draw");
            format!(
                "above the base model alone{some}, each taken by itself, but {draws} are too few to correct for {comparisons}"
            )
        }
    }

    /// Whether no draw reached any of the averages: then p is as small as the draws allow, and does not tell the distance.
    fn are_all_beyond_the_draws(&self, all: &Tally) -> bool {
        all.largest_p.is_some_and(|largest| largest < 1.5 * smallest_p(self.draws))
    }

    /// The reasons for the headline, for `rows` rows.
    pub(super) fn grounds(&self, all: &Tally, rows: usize) -> Vec<String> {
        let mut said = self.counted(all);
        let (tested, significant) = (all.base_tested, all.significant());
        if tested > 1 && all.too_few_draws == 0 && !self.can_be_corrected_for() {
            said.push(takes_more_draws(self.draws, tested));
        }
        // Where all are below the level, the number expected by chance alone is of no interest.
        if 0 < significant && significant < tested {
            let by_chance = SIGNIFICANT * tested as f64;
            said.push(format!(
                "Of {} about {by_chance:.1} fall below {SIGNIFICANT} by chance alone.",
                count(tested, "comparison")
            ));
        }
        if all.not_shown > 0 {
            said.push("An average that is not shown to be more is not shown to be the same either.".to_owned());
        }
        match rows - all.averages {
            0 => {}
            1 => said.push("1 row gives no answer.".to_owned()),
            silent => said.push(format!("{} give no answer.", count(silent, "row"))),
        }
        said
    }

    /// What is counted of some rows, against chance and against the base model alone.
    pub(super) fn counted(&self, tally: &Tally) -> Vec<String> {
        let mut said = Vec::new();
        if tally.chance_tested > 0 {
            said.push(format!("{} more than chance.", subject(tally.more_than_chance, tally.chance_tested)));
        }
        if tally.chance_uncorrected > 0 {
            said.push(format!(
                "{} more than 3 sd above it, but not after Holm's correction for {}.",
                subject(tally.chance_uncorrected, tally.chance_tested),
                count(self.chance, "comparison")
            ));
        }
        if tally.chance_untested > 0 {
            let subject = subject(tally.higher_untested, tally.chance_untested);
            said.push(format!("{subject} higher than the value expected by chance, {}.", self.why_untested()));
        }
        said.extend(self.counted_on_base(tally));
        said
    }

    fn counted_on_base(&self, tally: &Tally) -> Option<String> {
        let (tested, least) = (tally.base_tested, p(tally.least_p?));
        let draws = count(self.draws, "draw");
        Some(if tally.too_few_draws > 0 {
            cannot_tell(self.draws, "anything from the base model alone")
        } else if tally.significant() == 0 {
            let subject = subject(0, tested);
            format!("{subject} more than the base model alone at p < {SIGNIFICANT} (smallest p {least}).")
        } else if !self.can_be_corrected_for() {
            let subject = subject(tally.significant(), tested);
            if self.are_all_beyond_the_draws(tally) {
                let each = if tested > 1 { " each" } else { "" };
                format!("{subject} above all {draws} of the base model alone (p = {least}{each}).")
            } else {
                format!(
                    "{subject} above the base model alone at p < {SIGNIFICANT} taken by {} (smallest p {least}).",
                    itself(tally.significant())
                )
            }
        } else {
            let after = if self.base > 1 {
                format!(" after Holm's correction for {}", count(self.base, "comparison"))
            } else {
                String::new()
            };
            let subject = subject(tally.more_than_base, tested);
            let mut sentence =
                format!("{subject} more than the base model alone at p < {SIGNIFICANT}{after} (smallest p {least})");
            if tally.base_uncorrected > 0 {
                sentence.push_str(&format!(
                    ", {} more if taken by {}",
                    thousands(tally.base_uncorrected),
                    itself(tally.base_uncorrected)
                ));
            }
            sentence + "."
        })
    }
}

fn headline_on_chance(all: &Tally) -> String {
    let in_some = |some: usize, of: usize| format!("in {} of {} averages", thousands(some), thousands(of));
    let Tally { chance_tested, more_than_chance, chance_untested, higher_untested, .. } = *all;
    if chance_tested + chance_untested == 0 {
        return "Chance is not known".to_owned();
    }
    if chance_tested == 0 {
        return match higher_untested {
            0 => "Not higher than the value expected by chance".to_owned(),
            all if all == chance_untested => "Higher than the value expected by chance, but not tested".to_owned(),
            some => format!("Higher than the value expected by chance {}, but not tested", in_some(some, chance_untested)),
        };
    }
    match more_than_chance {
        0 => "Not shown to be more than chance".to_owned(),
        all if all == chance_tested => "More than chance".to_owned(),
        some => format!("More than chance {}", in_some(some, chance_tested)),
    }
}

/// Who a sentence is about: `None of 6 averages is`, `Both averages are`.
fn subject(part: usize, whole: usize) -> String {
    subject_of(part, whole, "average")
}

/// The same for another noun.
pub(super) fn subject_of(part: usize, whole: usize, one: &str) -> String {
    let of = count(whole, one);
    match (part, whole) {
        (0, 1) => format!("The only {one} is not"),
        (1, 1) => format!("The only {one} is"),
        (0, _) => format!("None of {of} is"),
        (2, 2) => format!("Both {one}s are"),
        (1, _) => format!("1 of {of} is"),
        (part, whole) if part == whole => format!("All {of} are"),
        (part, _) => format!("{} of {of} are", thousands(part)),
    }
}

/// The sentence for draws that can give no p below the level: what they cannot tell.
pub(super) fn cannot_tell(draws: usize, what: &str) -> String {
    let least = p(smallest_p(draws));
    format!(
        "{} cannot give a p below {least}, too few to tell {what}: that takes {} {} or more.",
        count(draws, "draw"),
        field("null_draws"),
        draws_for_holm(1)
    )
}

/// The sentence for draws that are too few for this many comparisons: how many would be enough.
pub(super) fn takes_more_draws(draws: usize, comparisons: usize) -> String {
    format!(
        "{} give no p below {}; to correct for {} (Holm) takes {} {} or more.",
        count(draws, "draw"),
        p(smallest_p(draws)),
        count(comparisons, "comparison"),
        field("null_draws"),
        draws_for_holm(comparisons)
    )
}

/// The caveat that a status adds to the words.
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

/// A text as it begins a sentence.
pub(crate) fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::super::RunVerdict;
    use super::*;
    use crate::table::SummaryRow;
    use crate::terms::MatrixKind;

    fn with_p(p: f64) -> SummaryRow {
        SummaryRow { w0_p: Some(p), ..SummaryRow::example() }
    }

    fn beside_chance(p: f64) -> SummaryRow {
        SummaryRow { phi_mean: Some(0.0205), ..with_p(p) }
    }

    fn undrawn() -> SummaryRow {
        SummaryRow {
            gaussian_mean: None,
            gaussian_sd: None,
            w0_mean: None,
            w0_sd: None,
            w0_z: None,
            w0_p: None,
            ..SummaryRow::example()
        }
    }

    fn words(row: SummaryRow, draws: usize) -> String {
        RunVerdict::of_averages(&[row], draws).rows.remove(0).words
    }

    fn run(rows: &[SummaryRow], draws: usize) -> Vec<String> {
        let verdict = RunVerdict::of_averages(rows, draws);
        std::iter::once(verdict.headline).chain(verdict.grounds).collect()
    }

    const NOT_THE_SAME: &str = "An average that is not shown to be more is not shown to be the same either.";

    #[test]
    fn a_row_in_the_plain_cases() {
        assert_eq!(words(with_p(0.3), 20), "more than chance; not shown to exceed base alone");
        assert_eq!(words(with_p(1.0 / 21.0), 20), "more than chance; more than base alone");
        assert_eq!(words(beside_chance(0.3), 20), "not shown to be more than chance; not shown to exceed base alone");
        let low = SummaryRow { phi_mean: Some(0.01), ..with_p(0.3) };
        assert!(words(low, 20).starts_with("more than 3 sd below chance; "));
    }

    #[test]
    fn a_row_with_few_or_no_draws() {
        assert_eq!(words(with_p(0.05), 19), "more than chance; 19 draws cannot tell it from base alone");
        assert_eq!(
            words(with_p(0.5), 1),
            "higher than the value expected by chance, which 1 draw is too few to test; 1 draw cannot tell it from base alone"
        );
        assert_eq!(
            words(undrawn(), 0),
            "higher than the value expected by chance, which was not drawn to test it; base alone was not drawn"
        );
        let below = SummaryRow { phi_mean: Some(0.01), ..undrawn() };
        assert_eq!(words(below, 0), "not higher than the value expected by chance; base alone was not drawn");
        assert!(words(SummaryRow { w0_p: None, ..SummaryRow::example() }, 20).ends_with("; not tested against base alone"));
    }

    #[test]
    fn a_row_that_is_more_taken_by_itself() {
        let of = |rows: &[SummaryRow], draws| RunVerdict::of_averages(rows, draws).rows.remove(0).words;
        assert_eq!(
            of(&[with_p(1.0 / 21.0), with_p(0.5)], 20),
            "more than chance; above base alone taken by itself (p = 0.048), but 20 draws are too few to correct for 2 comparisons"
        );
        assert_eq!(
            of(&[with_p(0.03), with_p(0.5)], 99),
            "more than chance; above base alone taken by itself (p = 0.030), but not after correction for 2 comparisons"
        );
        let mut many = vec![beside_chance(0.5); 100];
        many[0].phi_mean = Some(0.0231);
        assert!(of(&many, 20).starts_with("more than 3 sd above chance, but not after correction for 100 comparisons; "));
    }

    #[test]
    fn factors_are_not_asked_about_the_base_model() {
        let factor = SummaryRow { matrix: MatrixKind::LoraB, ..undrawn() };
        assert!(words(factor.clone(), 0).ends_with("; W0 has no part in it"));
        let drawn = SummaryRow { matrix: MatrixKind::LoraB, w0_p: None, ..SummaryRow::example() };
        assert_eq!(words(drawn.clone(), 20), "more than chance; W0 has no part in it");
        assert_eq!(
            run(&[drawn.clone(), drawn], 20),
            [
                "More than chance. The factors were compared without W0, so the base model has no part in it.",
                "Both averages are more than chance."
            ]
        );
    }

    #[test]
    fn a_row_without_an_average_says_why() {
        let without = |status, layers| words(SummaryRow { phi_mean: None, status, layers, ..SummaryRow::example() }, 20);
        assert!(without(Status::Zero, 0).contains("zero, as before training"));
        assert!(without(Status::Rank, 0).contains("fewer directions than i or j"));
        assert!(without(Status::Skipped, 2).contains("differ in length"));
        assert!(without(Status::Ok, 1).contains("a single layer"));
        assert!(without(Status::Ok, 2).contains("no pair of layers"));
        let whole = SummaryRow { phi_mean: Some(1.0), gaussian_expected: Some(1.0), ..SummaryRow::example() };
        assert!(words(whole.clone(), 20).starts_with("1 by construction"));
        assert_eq!(run(&[whole], 20), ["No average could be judged.", "1 row gives no answer."]);
        assert_eq!(run(&[], 20), ["No average could be judged."]);
    }

    #[test]
    fn doubt_is_said_beside_the_answer_or_in_its_place() {
        let with = |status| words(SummaryRow { status, ..SummaryRow::example() }, 20);
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
    fn a_run_of_which_nothing_is_shown() {
        assert_eq!(
            run(&[beside_chance(0.3), beside_chance(0.6), beside_chance(0.9), beside_chance(0.9)], 20),
            [
                "Not shown to be more than chance; not shown to be more than the base model alone gives.",
                "None of 4 averages is more than chance.",
                "None of 4 averages is more than the base model alone at p < 0.05 (smallest p 0.300).",
                "20 draws give no p below 0.048; to correct for 4 comparisons (Holm) takes `null_draws` 80 or more.",
                NOT_THE_SAME,
            ]
        );
        let one = run(&[with_p(0.3)], 20);
        assert_eq!(one[0], "More than chance, but not shown to be more than the base model alone gives.");
        assert_eq!(
            one[1..3],
            [
                "The only average is more than chance.",
                "The only average is not more than the base model alone at p < 0.05 (smallest p 0.300)."
            ]
        );
        assert_eq!(one[3..], [NOT_THE_SAME]);
    }

    #[test]
    fn a_run_beyond_all_draws_that_are_too_few_to_correct() {
        assert_eq!(
            run(&[with_p(1.0 / 21.0), with_p(1.0 / 21.0)], 20),
            [
                "More than chance; above all 20 draws of the base model alone, but these are too few to correct for 2 comparisons.",
                "Both averages are more than chance.",
                "Both averages are above all 20 draws of the base model alone (p = 0.048 each).",
                "20 draws give no p below 0.048; to correct for 2 comparisons (Holm) takes `null_draws` 40 or more.",
            ]
        );
        assert_eq!(
            run(&[with_p(1.0 / 21.0), with_p(0.5), with_p(0.9)], 20),
            [
                "More than chance; above the base model alone in 1 of 3 averages, each taken by itself, but 20 draws are too few to correct for 3 comparisons.",
                "All 3 averages are more than chance.",
                "1 of 3 averages is above the base model alone at p < 0.05 taken by itself (smallest p 0.048).",
                "20 draws give no p below 0.048; to correct for 3 comparisons (Holm) takes `null_draws` 60 or more.",
                "Of 3 comparisons about 0.2 fall below 0.05 by chance alone.",
                NOT_THE_SAME,
            ]
        );
    }

    #[test]
    fn a_run_with_draws_enough_to_correct() {
        assert_eq!(
            run(&[with_p(0.01), with_p(0.01)], 99),
            [
                "More than chance, and more than the base model alone gives.",
                "Both averages are more than chance.",
                "Both averages are more than the base model alone at p < 0.05 after Holm's correction for 2 comparisons (smallest p 0.010).",
            ]
        );
        let some = run(&[with_p(0.01), with_p(0.03), with_p(0.5)], 99);
        assert_eq!(some[0], "More than chance; more than the base model alone gives in 1 of 3 averages.");
        assert_eq!(
            some[2],
            "1 of 3 averages is more than the base model alone at p < 0.05 after Holm's correction for 3 comparisons (smallest p 0.010), 1 more if taken by itself."
        );
        let none = run(&[with_p(0.03), with_p(0.04), with_p(0.5)], 99);
        assert_eq!(
            none[0],
            "More than chance; not shown to be more than the base model alone gives after correction for 3 comparisons."
        );
        assert!(
            none[2].starts_with("None of 3 averages is more") && none[2].ends_with("2 more if taken by themselves."),
            "{}",
            none[2]
        );
        let alone = run(&[with_p(0.01)], 99);
        assert_eq!(alone[2], "The only average is more than the base model alone at p < 0.05 (smallest p 0.010).");
    }

    #[test]
    fn a_run_with_few_or_no_draws() {
        assert_eq!(
            run(&[with_p(1.0 / 6.0), with_p(0.5)], 5),
            [
                "Higher than the value expected by chance, but not tested; 5 draws cannot tell it from the base model alone.",
                "Both averages are higher than the value expected by chance, which 5 draws are too few to test.",
                "5 draws cannot give a p below 0.167, too few to tell anything from the base model alone: that takes `null_draws` 20 or more.",
            ]
        );
        let below = SummaryRow { phi_mean: Some(0.01), ..undrawn() };
        assert_eq!(
            run(&[undrawn(), below.clone(), below], 0),
            [
                "Higher than the value expected by chance in 1 of 3 averages, but not tested; what the base model alone gives was not drawn.",
                "1 of 3 averages is higher than the value expected by chance, which was not drawn to test it.",
            ]
        );
    }

    #[test]
    fn a_run_of_hundreds_expects_some_by_chance() {
        let mut rows = vec![beside_chance(0.5); 300];
        rows[0].phi_mean = Some(0.0231);
        assert_eq!(
            run(&rows, 20)[..3],
            [
                "Not shown to be more than chance; not shown to be more than the base model alone gives.",
                "None of 300 averages is more than chance.",
                "1 of 300 averages is more than 3 sd above it, but not after Holm's correction for 300 comparisons.",
            ]
        );
        rows[1].phi_mean = Some(0.06);
        assert!(run(&rows, 20)[0].starts_with("More than chance in 1 of 300 averages; "));
    }

    #[test]
    fn subjects_agree_with_their_numbers() {
        let of = |part, whole| subject_of(part, whole, "fit");
        assert_eq!(
            [of(0, 1), of(1, 1), of(0, 2), of(2, 2)],
            ["The only fit is not", "The only fit is", "None of 2 fits is", "Both fits are"]
        );
        assert_eq!([of(1, 3), of(2, 3), of(3, 3)], ["1 of 3 fits is", "2 of 3 fits are", "All 3 fits are"]);
        assert_eq!(of(1200, 1300), "1,200 of 1,300 fits are");
        assert_eq!((capital("more"), capital("φ"), capital("")), ("More".into(), "Φ".into(), String::new()));
    }
}
