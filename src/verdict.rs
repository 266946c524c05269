//! The verdict on a run's averages, against chance and against what the base model alone gives. It is decided here, once, for terminal, JSON and report.
//!
//! An answer claims only what was tested. A control that was not drawn, or not often enough, gives none; an average that does not exceed
//! its control was not shown to be more, which is not the same as being no more; and what is called more has passed Holm's
//! correction for all comparisons of the run, because among hundreds of averages some exceed any control by chance alone.

mod emptiness;
mod fit;
mod held_out;
mod shared_map;
mod statistics;
mod strict;
mod words;

use std::collections::HashMap;

use serde_json::Value;

pub use self::shared_map::{MapAnswer, MapVerdict};
pub(crate) use self::statistics::SIGNIFICANT;
use self::statistics::{draws_for_holm, holm, upper_tail};
pub use self::strict::{StrictAnswer, StrictVerdict};
pub(crate) use self::words::capital;
use crate::numerals::lower;
use crate::table::columns::Row;
use crate::table::rows::{CompareAverageRow, SummaryRow};
use crate::table::{Tables, rows_json_with};
use crate::terms::{NullDraws, Status};

/// An average is called more (or less) than chance if it lies this many standard deviations of the Gaussian draws from their mean.
const CHANCE_SDS: f64 = 3.0;
/// Fewer draws do not determine how far chance varies.
const LEAST_DRAWS_FOR_CHANCE: usize = 10;

/// How an average compares with one of its controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// More than it, among all comparisons of the run.
    More,
    /// More than it if this were the only comparison, but not after correction for all of the run.
    MoreUncorrected,
    /// Not shown to be more.
    NotShown,
    /// Less than it. Chance alone is asked about in this direction.
    Less,
    /// Higher than the expected value, but it is not known how far chance varies around it.
    HigherUntested,
    /// Not higher than the expected value, and it is not known how far chance varies around it.
    NotHigherUntested,
    /// There are too few draws for any average to be tested.
    TooFewDraws,
    /// There is nothing to ask.
    None,
}

impl Answer {
    /// The name used in JSON; none where there is nothing to ask.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::More => Some("more"),
            Self::MoreUncorrected => Some("more_uncorrected"),
            Self::NotShown => Some("not_shown_to_be_more"),
            Self::Less => Some("less"),
            Self::HigherUntested => Some("higher_untested"),
            Self::NotHigherUntested => Some("not_higher_untested"),
            Self::TooFewDraws => Some("too_few_draws"),
            Self::None => None,
        }
    }
}

/// The verdict on one average.
#[derive(Debug, Clone, PartialEq)]
pub struct RowVerdict {
    /// The answer against chance: Gaussian matrices in place of those compared.
    pub chance: Answer,
    /// The answer against the base model alone, which is the `w0` control.
    pub base: Answer,
    /// Both answers in words.
    pub words: String,
    /// The p against the base model alone, where it counts as a comparison.
    p: Option<f64>,
}

impl RowVerdict {
    /// Whether there was anything to judge.
    fn is_silent(&self) -> bool {
        self.chance == Answer::None && self.base == Answer::None
    }
}

/// The verdict on a run's averages, one by one and together.
///
/// # JSON
/// `--json` prints the rows of the table under their names, followed by five more fields. `chance_answer` and `w0_answer` are an
/// [`Answer`] by its name, or null where there is nothing to ask; `shared_answer` is the [`MapAnswer`] of the row's matrix; `verdict` is
/// the row's answer in words; `run_verdict` is [`RunVerdict::text`], the same in every row, so that the array stays one of rows. `more` has passed Holm's correction for the
/// run, so that counting it gives the numbers of the sentences.
#[derive(Debug, Clone, PartialEq)]
pub struct RunVerdict {
    /// One for each row, in their order.
    pub rows: Vec<RowVerdict>,
    /// The answer in one sentence.
    pub headline: String,
    /// The reasons for it, one sentence each.
    pub grounds: Vec<String>,
    /// The tests of the question whether layers share a linear map, which a study's headline answers first.
    pub maps: Vec<MapVerdict>,
    comparisons: Comparisons,
}

/// The comparisons that are corrected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Comparisons {
    /// How often the base model's control was drawn.
    draws: usize,
    /// How often chance was drawn.
    chance_draws: usize,
    /// Averages tested against drawn chance.
    chance: usize,
    /// Averages tested against the base model alone.
    base: usize,
}

impl Comparisons {
    /// Whether a single p could stay below the level after Holm's correction for this many comparisons.
    fn can_be_corrected_for(&self) -> bool {
        self.draws >= draws_for_holm(self.base)
    }
}

/// One average and its controls, from any table.
struct Average {
    phi: Option<f64>,
    /// Why there is no answer.
    without: &'static str,
    status: Status,
    expected: Option<f64>,
    /// Mean and standard deviation of the drawn averages.
    gaussian: Option<(f64, f64)>,
    p: Option<f64>,
    /// The words about the base model where what is compared does not depend on it.
    without_base: Option<&'static str>,
}

impl From<&SummaryRow> for Average {
    fn from(row: &SummaryRow) -> Self {
        Self {
            phi: row.phi_mean,
            without: emptiness::why_no_phi(row),
            status: row.status,
            expected: row.gaussian_expected,
            gaussian: row.gaussian_mean.zip(row.gaussian_sd),
            p: row.w0_p,
            without_base: row.matrix.is_factor().then_some("W0 has no part in it"),
        }
    }
}

impl From<&CompareAverageRow> for Average {
    fn from(row: &CompareAverageRow) -> Self {
        let without = match row.status {
            Status::Zero => "B (or A) is zero, as before training, and has no subspace",
            Status::Rank => "fewer directions than i or j (rank)",
            _ => "no layer has a φ",
        };
        Self {
            phi: row.phi_mean,
            without,
            status: row.status,
            expected: row.gaussian_expected,
            gaussian: None,
            p: row.w0_p,
            // Two LoRA do not depend on W0, and without draws nothing can be said about a CondLoRA.
            without_base: row.w0_mean.is_none().then_some(""),
        }
    }
}

impl RunVerdict {
    /// The verdict on a study: whether its layers share a linear map, and what its averages of φ are more than. Its controls were drawn `draws` times.
    #[must_use]
    pub fn of_study(tables: &Tables, draws: NullDraws) -> Self {
        let mut verdict = Self::of_averages(&tables.summary, draws.together());
        verdict.maps = shared_map::tests(tables.cuts.as_deref().unwrap_or_default(), draws);
        if let Some((headline, grounds)) = shared_map::sentences(&verdict.maps) {
            let of_averages = std::mem::replace(&mut verdict.headline, headline);
            let after = std::mem::take(&mut verdict.grounds);
            verdict.grounds = grounds;
            verdict.grounds.push(format!("φ of Θ: {}", lower(&of_averages)));
            verdict.grounds.extend(after);
            if verdict.rows.iter().any(|row| row.p.is_some()) {
                verdict.grounds.push(shared_map::BLIND.to_owned());
            }
        }
        verdict.grounds.extend(emptiness::sentences(tables));
        verdict
    }

    /// The verdict on a study's averages alone.
    fn of_averages(summary: &[SummaryRow], draws: usize) -> Self {
        const FACTORS: &str = "The factors were compared without W0, so the base model has no part in it.";
        Self::of(summary.iter().map(Average::from).collect(), [draws, draws], FACTORS)
    }

    /// The verdict on the averages of two adapters' comparison, in which a Gaussian Θ was drawn `draws` times. Chance is not drawn there.
    #[must_use]
    pub fn of_comparison(averages: &[CompareAverageRow], draws: usize) -> Self {
        Self::of(averages.iter().map(Average::from).collect(), [0, draws], "")
    }

    /// `without_base` is said where W0 has no part in any average.
    fn of(averages: Vec<Average>, [chance_draws, draws]: [usize; 2], without_base: &str) -> Self {
        let mut rows: Vec<RowVerdict> = averages.iter().map(|average| alone(average, [chance_draws, draws])).collect();
        // Each control is a question of its own, and its comparisons are corrected for together.
        let tails = averages.iter().zip(&rows).map(|(average, row)| match row.chance {
            Answer::More | Answer::NotShown | Answer::Less => average.z_to_chance().map(|z| upper_tail(z, chance_draws)),
            _ => None,
        });
        let (chance, stays) = corrected(tails.collect());
        for (row, stays) in rows.iter_mut().zip(stays) {
            if row.chance == Answer::More && !stays {
                row.chance = Answer::MoreUncorrected;
            }
        }
        let (base, stays) = corrected(rows.iter().map(|row| row.p).collect());
        for (row, stays) in rows.iter_mut().zip(stays) {
            if row.base == Answer::More && !stays {
                row.base = Answer::MoreUncorrected;
            }
        }
        let comparisons = Comparisons { draws, chance_draws, chance, base };
        for (row, average) in rows.iter_mut().zip(&averages).filter(|(row, _)| row.words.is_empty()) {
            row.words = comparisons.words_of(row, average.without_base, average.status);
        }
        let all = Tally::of(&rows);
        let without_base = averages.iter().all(|average| average.without_base.is_some()).then_some(without_base);
        let (headline, grounds) = (comparisons.headline(&all, without_base), comparisons.grounds(&all, rows.len()));
        Self { rows, headline, grounds, maps: Vec::new(), comparisons }
    }

    /// Headline and grounds as one text.
    #[must_use]
    pub fn text(&self) -> String {
        let sentences: Vec<&str> = std::iter::once(&self.headline).chain(&self.grounds).map(String::as_str).collect();
        sentences.join(" ")
    }

    /// The combined answer of some rows, among all of the run.
    pub(crate) fn text_of(&self, rows: &[RowVerdict]) -> String {
        self.comparisons.counted(&Tally::of(rows)).join(" ")
    }

    /// The rows as `--json` prints them.
    ///
    /// # Panics
    /// If these are not the rows that were judged.
    #[must_use]
    pub fn json<R: Row>(&self, rows: &[R]) -> String {
        assert_eq!(rows.len(), self.rows.len(), "a verdict is on the rows it was made of");
        let text = self.text();
        let about = |map: &'_ MapVerdict| [map.row.adapter.clone(), map.row.module.clone(), map.row.matrix.name().to_owned()];
        let maps: HashMap<[String; 3], MapAnswer> = self.maps.iter().map(|map| (about(map), map.answer)).collect();
        rows_json_with(rows, |index| {
            let row = &self.rows[index];
            let names = ["adapter", "module", "matrix"].map(|column| rows[index].name_in(column).unwrap_or_default().to_owned());
            let shared = maps.get(&names).and_then(|answer| answer.name());
            [
                ("chance_answer", row.chance.name().map_or(Value::Null, Value::from)),
                ("w0_answer", row.base.name().map_or(Value::Null, Value::from)),
                ("shared_answer", shared.map_or(Value::Null, Value::from)),
                ("verdict", Value::from(row.words.as_str())),
                ("run_verdict", Value::from(text.as_str())),
            ]
        })
    }
}

/// The verdict on an average as if it were the only one. Words are given where it says nothing.
fn alone(average: &Average, [chance_draws, draws]: [usize; 2]) -> RowVerdict {
    let silent = |words: &str| RowVerdict { chance: Answer::None, base: Answer::None, words: words.to_owned(), p: None };
    let Some(phi) = average.phi else { return silent(&format!("no answer: {}", average.without)) };
    if average.status == Status::Unreliable {
        return silent("unreliable: a solution failed its check; draw nothing from this number");
    }
    // The compared vectors span their whole space, so that φ is 1 in any case.
    if average.expected.is_some_and(|expected| expected >= 1.0) {
        return silent("1 by construction: as many vectors as they have entries span everything; nothing to test");
    }
    let chance = match (average.z_to_chance().filter(|_| chance_draws >= LEAST_DRAWS_FOR_CHANCE), average.chance()) {
        (Some(z), _) if z > CHANCE_SDS => Answer::More,
        (Some(z), _) if z < -CHANCE_SDS => Answer::Less,
        (Some(_), _) => Answer::NotShown,
        (None, Some(chance)) if phi > chance => Answer::HigherUntested,
        (None, Some(_)) => Answer::NotHigherUntested,
        (None, None) => Answer::None,
    };
    let p = average.p.filter(|_| average.without_base.is_none());
    let base = match p {
        None => Answer::None,
        Some(_) if draws < draws_for_holm(1) => Answer::TooFewDraws,
        Some(p) if p < SIGNIFICANT => Answer::More,
        Some(_) => Answer::NotShown,
    };
    RowVerdict { chance, base, words: String::new(), p }
}

impl Average {
    /// The φ of chance: exact, or from the draws.
    fn chance(&self) -> Option<f64> {
        self.expected.or(self.gaussian.map(|(mean, _)| mean))
    }

    /// How far it lies above the draws of chance, in their standard deviations.
    fn z_to_chance(&self) -> Option<f64> {
        let (mean, sd) = self.gaussian.filter(|(_, sd)| *sd > 0.0)?;
        Some((self.phi? - mean) / sd)
    }
}

/// How many comparisons there are, and for each row whether it stays after the correction for these.
fn corrected(p_values: Vec<Option<f64>>) -> (usize, Vec<bool>) {
    let tested: Vec<f64> = p_values.iter().copied().flatten().collect();
    let mut stays = holm(&tested).into_iter();
    let by_row = p_values.iter().map(|p| p.is_some() && stays.next() == Some(true)).collect();
    (tested.len(), by_row)
}

/// Counts over several verdicts.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Tally {
    /// Averages with an answer.
    pub(crate) averages: usize,
    /// Averages tested against draws of chance, and the results.
    pub(crate) chance_tested: usize,
    pub(crate) more_than_chance: usize,
    chance_uncorrected: usize,
    /// Averages that have only an expected value to compare with, and those that are higher.
    chance_untested: usize,
    pub(crate) higher_untested: usize,
    /// Averages with a p against the base model alone, and the results.
    pub(crate) base_tested: usize,
    pub(crate) more_than_base: usize,
    /// More only where nothing is corrected for; [`Tally::significant`] counts these too.
    base_uncorrected: usize,
    pub(crate) too_few_draws: usize,
    /// Averages that one of the controls was drawn for and that were not shown to be more than it.
    not_shown: usize,
    least_p: Option<f64>,
    largest_p: Option<f64>,
}

impl Tally {
    pub(crate) fn of<'r>(rows: impl IntoIterator<Item = &'r RowVerdict>) -> Self {
        let mut tally = Self::default();
        for row in rows.into_iter().filter(|row| !row.is_silent()) {
            tally.averages += 1;
            match row.chance {
                Answer::More => tally.more_than_chance += 1,
                Answer::MoreUncorrected => tally.chance_uncorrected += 1,
                Answer::HigherUntested => tally.higher_untested += 1,
                _ => {}
            }
            tally.not_shown += usize::from(row.chance == Answer::NotShown || row.base == Answer::NotShown);
            match row.chance {
                Answer::HigherUntested | Answer::NotHigherUntested => tally.chance_untested += 1,
                Answer::None => {}
                _ => tally.chance_tested += 1,
            }
            match row.base {
                Answer::More => tally.more_than_base += 1,
                Answer::MoreUncorrected => tally.base_uncorrected += 1,
                Answer::TooFewDraws => tally.too_few_draws += 1,
                _ => {}
            }
            if let Some(p) = row.p {
                tally.base_tested += 1;
                tally.least_p = Some(tally.least_p.map_or(p, |least| least.min(p)));
                tally.largest_p = Some(tally.largest_p.map_or(p, |largest| largest.max(p)));
            }
        }
        tally
    }

    /// How many p are below the level, taken one by one.
    pub(crate) fn significant(&self) -> usize {
        self.more_than_base + self.base_uncorrected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::MatrixKind;

    fn answers(rows: &[SummaryRow], draws: usize) -> Vec<(Answer, Answer)> {
        RunVerdict::of_averages(rows, draws).rows.iter().map(|row| (row.chance, row.base)).collect()
    }

    fn one(row: SummaryRow, draws: usize) -> (Answer, Answer) {
        answers(&[row], draws)[0]
    }

    #[test]
    fn chance_is_what_was_drawn_and_not_the_expected_value() {
        use Answer::{HigherUntested, Less, More, NotHigherUntested, NotShown};
        let at = |phi, draws| one(SummaryRow { phi_mean: Some(phi), ..SummaryRow::example() }, draws).0;
        // Drawn: 0.02 ± 0.001. Only just above is no answer.
        assert_eq!([0.0201, 0.0229, 0.0231, 0.0169].map(|phi| at(phi, 20)), [NotShown, NotShown, More, Less]);
        assert_eq!([0.0201, 0.0231, 0.02].map(|phi| at(phi, 9)), [HigherUntested, HigherUntested, NotHigherUntested]);
        assert_eq!([0.0201, 0.0231].map(|phi| at(phi, 10)), [NotShown, More]);
        // Draws decide where they and the expected value differ.
        let drawn_higher = SummaryRow { gaussian_mean: Some(0.05), gaussian_sd: Some(0.01), ..SummaryRow::example() };
        assert_eq!(one(drawn_higher, 20).0, NotShown);
        let constant = SummaryRow { gaussian_sd: Some(0.0), ..SummaryRow::example() };
        assert_eq!(one(constant, 20).0, HigherUntested);
    }

    #[test]
    fn the_base_model_takes_enough_draws() {
        use Answer::{More, None, NotShown, TooFewDraws};
        let at = |p: Option<f64>, draws| one(SummaryRow { w0_p: p, ..SummaryRow::example() }, draws).1;
        assert_eq!([at(Some(1.0 / 21.0), 20), at(Some(2.0 / 21.0), 20)], [More, NotShown]);
        // 19 draws: 1/20 is not below 0.05, so that nothing could be said.
        assert_eq!([at(Some(0.05), 19), at(Some(0.6), 19), at(Option::None, 0)], [TooFewDraws, TooFewDraws, None]);
        let factor = SummaryRow { matrix: MatrixKind::LoraA, w0_p: Some(0.01), ..SummaryRow::example() };
        assert_eq!(one(factor, 99).1, None);
    }

    #[test]
    fn what_is_called_more_has_passed_the_correction_for_the_run() {
        use Answer::{More, MoreUncorrected, NotShown};
        let with_p = |p: f64| SummaryRow { w0_p: Some(p), ..SummaryRow::example() };
        let base = |rows: &[SummaryRow], draws| answers(rows, draws).into_iter().map(|(_, base)| base).collect::<Vec<_>>();
        assert_eq!(base(&[with_p(0.01), with_p(0.03), with_p(0.5)], 99), [More, MoreUncorrected, NotShown]);
        // Two with the least p that 20 draws can give: it takes 40 draws for either to be an answer.
        assert_eq!(base(&[with_p(1.0 / 21.0), with_p(1.0 / 21.0)], 20), [MoreUncorrected; 2]);
        assert_eq!(base(&[with_p(1.0 / 41.0), with_p(1.0 / 41.0)], 40), [More; 2]);
        // Rows without an answer do not count as comparisons.
        let unreliable = SummaryRow { status: Status::Unreliable, ..with_p(0.9) };
        let whole = SummaryRow { gaussian_expected: Some(1.0), ..with_p(0.9) };
        assert_eq!(base(&[with_p(1.0 / 21.0), unreliable, whole], 20), [More, Answer::None, Answer::None]);

        // 3.1 sd above 20 draws is 1 in 280: an answer for one average, none for one of 100.
        let above = SummaryRow { phi_mean: Some(0.0231), ..SummaryRow::example() };
        let beside = SummaryRow { phi_mean: Some(0.0205), ..SummaryRow::example() };
        let mut rows = vec![beside; 100];
        assert_eq!(one(above.clone(), 20).0, More);
        rows[7] = above;
        let chance: Vec<Answer> = answers(&rows, 20).into_iter().map(|(chance, _)| chance).collect();
        assert_eq!((chance[7], chance.iter().filter(|answer| **answer == NotShown).count()), (MoreUncorrected, 99));
        rows[7].phi_mean = Some(0.06);
        assert_eq!(answers(&rows, 20)[7].0, More);
    }

    #[test]
    fn a_comparison_draws_no_chance() {
        let average = |w0_p: Option<f64>| CompareAverageRow {
            left: "a".into(),
            right: "b".into(),
            module: "query".into(),
            matrix: crate::terms::UpdateMatrix::A,
            side: crate::terms::Side::Right,
            i: 8,
            j: 8,
            layers: 6,
            phi_mean: Some(0.05),
            gaussian_expected: Some(0.02),
            w0_mean: w0_p.map(|_| 0.02),
            w0_sd: None,
            w0_p,
            status: Status::Ok,
        };
        let verdict = RunVerdict::of_comparison(&[average(Some(1.0 / 41.0)), average(Some(0.5))], 40);
        assert_eq!((verdict.rows[0].chance, verdict.rows[0].base), (Answer::HigherUntested, Answer::More));
        assert_eq!(
            verdict.headline,
            "Higher than the value expected by chance, but not tested; more than the base model alone gives in 1 of 2 averages."
        );
        assert_eq!(
            verdict.rows[1].words,
            "higher than the value expected by chance, which was not drawn to test it; not shown to exceed base alone"
        );
        let two_lora = RunVerdict::of_comparison(&[average(None)], 40);
        assert_eq!(two_lora.headline, "Higher than the value expected by chance, but not tested.");
        assert_eq!(two_lora.rows[0].words, "higher than the value expected by chance, which was not drawn to test it");
    }

    #[test]
    fn json_has_the_rows_and_their_verdicts() {
        let rows = [SummaryRow::example(), SummaryRow { matrix: MatrixKind::LoraB, ..SummaryRow::example() }];
        let verdict = RunVerdict::of_averages(&rows, 20);
        let json: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&verdict.json(&rows)).unwrap();
        assert_eq!(json[0].len(), SummaryRow::COLUMNS.len() + 5);
        assert_eq!((&json[0]["phi_mean"], &json[0]["chance_answer"]), (&Value::from(0.06), &Value::from("more")));
        assert_eq!((&json[0]["w0_answer"], &json[1]["w0_answer"]), (&Value::from("not_shown_to_be_more"), &Value::Null));
        assert_eq!(json[1]["verdict"], "more than chance; W0 has no part in it");
        assert_eq!(json[1]["run_verdict"], Value::from(verdict.text()));
    }
}
