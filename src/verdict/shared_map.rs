//! The verdict on the question of the paper: do the layers of a module share one linear map from W0 to A, or to B?
//!
//! It is asked of T through W0, which is `W0ᵀ·T` and needs no inverse (`W0·T` where Θ is of W0ᵀ), against the strict control, which keeps all that each layer shows by itself. φ of Θ = W0⁻¹·T cannot answer
//! it: Θ lies in the few smallest singular directions of W0 whatever T is (docs/method.md). Each adapter is a study of its own, and its tests are corrected for
//! together; what other adapters a run has changes none of its answers.

use std::collections::BTreeMap;

use super::statistics::{SIGNIFICANT, draws_for_holm, holm};
use crate::error::field;
use crate::numerals::{count, itself, p, thousands};
use crate::table::CutRow;
use crate::terms::{MatrixKind, NullDraws};

/// So many tests are told one by one.
const MOST_TOLD: usize = 6;

/// Whether layers share a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapAnswer {
    /// More alike than the strict control, among all tests of the adapter.
    Shared,
    /// More alike than the strict control if this were the only test.
    SharedUncorrected,
    /// Not shown.
    NotShown,
    /// There are too few draws for any test.
    TooFewDraws,
    /// There is no strict control, and it is above the `w0` control.
    AboveBase,
    /// There is no strict control, and it is not shown to be above the `w0` control.
    NotAboveBase,
    /// There is nothing to ask.
    None,
}

impl MapAnswer {
    /// The name used in JSON; none where there is nothing to ask.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Shared => Some("shared"),
            Self::SharedUncorrected => Some("shared_uncorrected"),
            Self::NotShown => Some("not_shown_to_be_shared"),
            Self::TooFewDraws => Some("too_few_draws"),
            Self::AboveBase => Some("above_w0_control"),
            Self::NotAboveBase => Some("not_shown_above_w0_control"),
            Self::None => None,
        }
    }

    /// The answer in a few words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Shared => "Shared, at least in part",
            Self::SharedUncorrected => "Above its control if it were the only test",
            Self::NotShown => "Not shown to be shared",
            Self::TooFewDraws => "Too few draws to tell",
            Self::AboveBase => "Above the w0 control; the strict control is missing",
            Self::NotAboveBase => "Not above the w0 control; the strict control is missing",
            Self::None => "",
        }
    }

    /// Whether the strict control was drawn, and often enough.
    fn is_strict(self) -> bool {
        matches!(self, Self::Shared | Self::SharedUncorrected | Self::NotShown)
    }
}

/// One test: a factor of one module of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct MapVerdict {
    /// The row of `cuts.csv` that it is about.
    pub row: CutRow,
    /// The answer.
    pub answer: MapAnswer,
}

/// The tests of a study, in the order of its rows; of several (i, j) the first of each module counts.
pub(super) fn tests(cuts: &[CutRow], draws: NullDraws) -> Vec<MapVerdict> {
    let mut firsts: Vec<&CutRow> = Vec::new();
    for row in cuts.iter().filter(|row| row.cut == CutRow::ADJOINT) {
        let is_same = |other: &&CutRow| (&other.adapter, &other.module, other.matrix) == (&row.adapter, &row.module, row.matrix);
        if !firsts.last().is_some_and(is_same) {
            firsts.push(row);
        }
    }
    firsts.chunk_by(|a, b| a.adapter == b.adapter).flat_map(|rows| of_adapter(rows, draws)).collect()
}

fn of_adapter(rows: &[&CutRow], draws: NullDraws) -> Vec<MapVerdict> {
    let too_few = matches!(draws, NullDraws::Fixed(draws) if draws < draws_for_holm(1));
    let tested: Vec<f64> = rows.iter().filter_map(|row| row.flip_p).collect();
    let mut stays = holm(&tested).into_iter();
    let one = |row: &&CutRow| {
        let by_base = match row.w0_p {
            None => MapAnswer::None,
            Some(p) if p < SIGNIFICANT => MapAnswer::AboveBase,
            Some(_) => MapAnswer::NotAboveBase,
        };
        let answer = match (row.phi_mean, row.flip_p) {
            (None, _) => MapAnswer::None,
            (_, None) => by_base,
            (_, Some(p)) => {
                let stays = stays.next() == Some(true);
                match p {
                    _ if too_few => MapAnswer::TooFewDraws,
                    _ if stays => MapAnswer::Shared,
                    p if p < SIGNIFICANT => MapAnswer::SharedUncorrected,
                    _ => MapAnswer::NotShown,
                }
            }
        };
        MapVerdict { row: (*row).clone(), answer }
    };
    rows.iter().map(one).collect()
}

/// How many tests had which answer.
#[derive(Debug, Default, Clone, Copy)]
struct MapTally {
    tested: usize,
    shared: usize,
    uncorrected: usize,
}

/// The answer to the question in one sentence and the reasons for it; none where nothing was tested.
pub(super) fn sentences(tests: &[MapVerdict]) -> Option<(String, Vec<String>)> {
    let mut tallies: BTreeMap<MatrixKind, MapTally> = BTreeMap::new();
    for test in tests.iter().filter(|test| test.answer.is_strict()) {
        let tally = tallies.entry(test.row.matrix).or_default();
        tally.tested += 1;
        tally.shared += usize::from(test.answer == MapAnswer::Shared);
        tally.uncorrected += usize::from(test.answer == MapAnswer::SharedUncorrected);
    }
    if tallies.is_empty() {
        return without_strict_control(tests);
    }
    let mut grounds = told(tests);
    let uncorrected: usize = tallies.values().map(|tally| tally.uncorrected).sum();
    if uncorrected > 0 {
        grounds.push(format!(
            "{} below p = {SIGNIFICANT} if taken by {}, but not after Holm's correction for the tests of the adapter.",
            if uncorrected == 1 { "1 test is".to_owned() } else { format!("{} tests are", thousands(uncorrected)) },
            itself(uncorrected)
        ));
    }
    if tests.iter().any(|test| !test.answer.is_strict() && test.answer != MapAnswer::None) {
        grounds.push("Where the strict control is missing, nothing is said of a shared map.".to_owned());
    }
    Some((headline(&tallies), grounds))
}

fn headline(tallies: &BTreeMap<MatrixKind, MapTally>) -> String {
    let in_all = |tally: &MapTally| match (tally.shared, tally.tested) {
        (_, 1) => String::new(),
        (shared, tested) => format!(" (in {} of {})", thousands(shared), thousands(tested)),
    };
    let shared: Vec<String> = tallies
        .iter()
        .filter(|(_, tally)| tally.shared > 0)
        .map(|(matrix, tally)| format!("{matrix}{}", in_all(tally)))
        .collect();
    let not: Vec<String> = tallies.iter().filter(|(_, tally)| tally.shared == 0).map(|(matrix, _)| matrix.to_string()).collect();
    match (shared.is_empty(), not.is_empty()) {
        (false, true) => format!("The layers share something of a linear map from W0 to {}.", shared.join(" and to ")),
        (false, false) => format!(
            "The layers share something of a linear map from W0 to {}; for {} none is shown.",
            shared.join(" and to "),
            not.join(" and ")
        ),
        _ => format!("No linear map from W0 to {} that the layers share is shown.", not.join(" or ")),
    }
}

/// What was compared with what, test by test, or counted where they are many.
fn told(tests: &[MapVerdict]) -> Vec<String> {
    let strict: Vec<&MapVerdict> = tests.iter().filter(|test| test.answer.is_strict()).collect();
    if strict.len() <= MOST_TOLD {
        return strict
            .iter()
            .map(|test| one_told(&test.row, strict[0].row.adapter != strict[strict.len() - 1].row.adapter))
            .collect();
    }
    let mut said = Vec::new();
    for matrix in [MatrixKind::A, MatrixKind::B] {
        let of: Vec<&&MapVerdict> = strict.iter().filter(|test| test.row.matrix == matrix).collect();
        if of.is_empty() {
            continue;
        }
        let shared = of.iter().filter(|test| test.answer == MapAnswer::Shared).count();
        let median = |value: fn(&CutRow) -> Option<f64>| {
            let mut values: Vec<f64> = of.iter().filter_map(|test| value(&test.row)).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).map_or_else(String::new, |value| format!("{value:.3}"))
        };
        said.push(format!(
            "φ of {matrix} through W0 is above its strict control in {} of {}, corrected for the tests of each adapter (median φ {}, control {}).",
            thousands(shared),
            count(of.len(), "test"),
            median(|row| row.phi_mean),
            median(|row| row.flip_mean)
        ));
    }
    said
}

fn one_told(row: &CutRow, with_adapter: bool) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3}"));
    let sd = row.flip_sd.map_or_else(String::new, |sd| format!(" ± {sd:.3}"));
    let adapter = if with_adapter { format!("{}, ", row.adapter) } else { String::new() };
    format!(
        "{adapter}{}: φ of {} through W0 is {}, with signs turned at random {}{sd} (p = {}).",
        row.module,
        row.matrix,
        number(row.phi_mean),
        number(row.flip_mean),
        p(row.flip_p.unwrap_or(1.0))
    )
}

/// Without the strict control nothing is said of a shared map.
fn without_strict_control(tests: &[MapVerdict]) -> Option<(String, Vec<String>)> {
    let with = |answer: MapAnswer| tests.iter().filter(|test| test.answer == answer).count();
    let (few, above, not) = (with(MapAnswer::TooFewDraws), with(MapAnswer::AboveBase), with(MapAnswer::NotAboveBase));
    if few > 0 {
        let draws = tests.iter().filter_map(|test| test.row.flip_draws).max().unwrap_or(0);
        let sentence = format!("{} cannot tell whether the layers share a linear map from W0.", count(draws, "draw"));
        let more = format!("That takes {} {} or more.", field("null_draws"), draws_for_holm(1));
        return Some((sentence, vec![more]));
    }
    (above + not > 0).then(|| {
        let headline = "Whether the layers share a linear map from W0 was not tested: the strict control is missing.".to_owned();
        let told = format!(
            "φ of the factors through W0 is above the w0 control in {} of {}, which factors that share nothing can be too.",
            thousands(above),
            count(above + not, "test")
        );
        (headline, vec![told])
    })
}

/// What the reader has to know to take φ of Θ for what it is.
pub(super) const BLIND: &str = "φ of Θ itself shows the small singular directions of W0, whatever was learned: that it is not above the base model alone \
is no sign that training left nothing.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{Side, Status};

    fn row(module: &str, matrix: MatrixKind, flip_p: Option<f64>, draws: usize) -> CutRow {
        CutRow {
            adapter: "a".into(),
            module: module.into(),
            matrix,
            side: Side::Left,
            i: 8,
            j: 8,
            cut: CutRow::ADJOINT.into(),
            kept_min: Some(384),
            kept_max: Some(384),
            layers: 6,
            phi_mean: Some(0.069),
            gaussian_kept: Some(0.0208),
            w0_mean: Some(0.034),
            w0_sd: Some(0.0018),
            w0_p: Some(0.048),
            flip_mean: flip_p.map(|_| 0.0447),
            flip_sd: flip_p.map(|_| 0.0019),
            flip_p,
            flip_draws: flip_p.map(|_| draws),
            shuffled_p: None,
            status: Status::Ok,
        }
    }

    fn study(p_a: f64, p_b: f64, draws: usize) -> Vec<CutRow> {
        let one = |module, matrix, p| row(module, matrix, Some(p), draws);
        vec![
            one("query", MatrixKind::A, p_a),
            one("query", MatrixKind::B, p_b),
            one("value", MatrixKind::A, p_a),
            one("value", MatrixKind::B, p_b),
        ]
    }

    fn said(rows: &[CutRow]) -> (String, Vec<String>) {
        sentences(&tests(rows, NullDraws::Auto)).unwrap()
    }

    #[test]
    fn b_shares_a_map_and_a_does_not() {
        let (headline, grounds) = said(&study(0.4, 0.005, 199));
        assert_eq!(headline, "The layers share something of a linear map from W0 to B (in 2 of 2); for A none is shown.");
        assert_eq!(grounds[1], "query: φ of B through W0 is 0.069, with signs turned at random 0.045 ± 0.002 (p = 0.005).");
        assert_eq!(grounds.len(), 4);
        let (headline, _) = said(&study(0.4, 0.6, 199));
        assert_eq!(headline, "No linear map from W0 to A or B that the layers share is shown.");
        let (headline, _) = said(&study(0.005, 0.005, 199));
        assert_eq!(headline, "The layers share something of a linear map from W0 to A (in 2 of 2) and to B (in 2 of 2).");
    }

    #[test]
    fn what_does_not_pass_the_correction_is_not_claimed() {
        let (headline, grounds) = said(&study(0.4, 0.03, 199));
        assert!(headline.starts_with("No linear map"), "{headline}");
        assert!(grounds.last().unwrap().starts_with("2 tests are below p = 0.05 if taken by themselves"), "{grounds:?}");
    }

    #[test]
    fn without_the_strict_control_nothing_is_said_of_a_shared_map() {
        let (headline, grounds) = said(&[row("query", MatrixKind::B, None, 0)]);
        assert!(headline.ends_with("the strict control is missing."), "{headline}");
        assert!(grounds[0].contains("above the w0 control in 1 of 1 test,"), "{grounds:?}");
        let few = row("query", MatrixKind::B, Some(1.0 / 6.0), 5);
        assert!(sentences(&tests(&[few], NullDraws::Fixed(5))).unwrap().0.starts_with("5 draws cannot tell"));
        assert!(sentences(&[]).is_none());
        let empty = CutRow { phi_mean: None, ..row("query", MatrixKind::B, None, 0) };
        assert!(sentences(&tests(&[empty], NullDraws::Auto)).is_none());
    }

    #[test]
    fn each_adapter_is_a_study_of_its_own() {
        // 0.02 passes among two tests, not among four.
        let of = |adapter: &str, p| CutRow { adapter: adapter.into(), ..row("query", MatrixKind::B, Some(p), 199) };
        let other = |adapter: &str| CutRow { adapter: adapter.into(), ..row("query", MatrixKind::A, Some(0.5), 199) };
        let answers: Vec<MapAnswer> =
            tests(&[other("a"), of("a", 0.02), other("b"), of("b", 0.02)], NullDraws::Auto).iter().map(|t| t.answer).collect();
        assert_eq!(answers, [MapAnswer::NotShown, MapAnswer::Shared, MapAnswer::NotShown, MapAnswer::Shared]);
    }

    #[test]
    fn many_tests_are_counted() {
        let rows: Vec<CutRow> =
            (0..10).map(|k| CutRow { adapter: format!("a{k}"), ..row("query", MatrixKind::B, Some(0.005), 199) }).collect();
        let (headline, grounds) = said(&rows);
        assert_eq!(headline, "The layers share something of a linear map from W0 to B (in 10 of 10).");
        assert_eq!(
            grounds,
            [
                "φ of B through W0 is above its strict control in 10 of 10 tests, corrected for the tests of each adapter (median φ 0.069, control 0.045)."
            ]
        );
    }
}
