//! Numbers compared with the strict control, and corrected for together: what the verdicts on `fit.csv` and on `heldout.csv` have in common.

use serde::Serialize;
use serde_json::Value;

use super::Answer;
use super::statistics::{SIGNIFICANT, draws_for_holm, holm};
use super::words::{cannot_tell, capital, subject_of, takes_more_draws};
use crate::error::field;
use crate::numerals::{count, itself};
use crate::table::columns::Row;
use crate::table::rows_as_json;

/// What one row of `fit.csv` or `heldout.csv` says.
#[derive(Debug, Clone, PartialEq)]
pub struct StrictAnswer {
    /// Whether it is more than the strict control. Rows that are not among the run's comparisons are at best [`Answer::MoreUncorrected`].
    pub flip: Answer,
    /// The answer in words.
    pub words: String,
}

/// The verdict on the rows of `fit.csv` or `heldout.csv`, one by one and together. `--json` adds `flip_answer`, `verdict` and `run_verdict` to their columns,
/// as [`super::RunVerdict`] does to those of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct StrictVerdict {
    /// One for each row, in their order.
    pub rows: Vec<StrictAnswer>,
    /// The combined answer of the comparisons, in sentences; empty where no control was asked for.
    pub sentences: Vec<String>,
}

impl StrictVerdict {
    pub(super) fn of<R>(rows: &[R], words: impl Fn(&R, Answer) -> String, draws: usize, missing: Option<&str>, one: &str) -> Self
    where
        for<'r> Test: From<&'r R>,
    {
        let tests: Vec<Test> = rows.iter().map(Test::from).collect();
        let answers = answers(&tests, draws);
        let sentences = sentences(&tests, &answers, draws, missing, one);
        let of_row = |(row, flip): (&R, Answer)| StrictAnswer { flip, words: words(row, flip) };
        Self { rows: rows.iter().zip(answers).map(of_row).collect(), sentences }
    }

    /// The rows as `--json` prints them.
    ///
    /// # Panics
    /// If these are not the rows that were judged.
    pub fn json_rows<'a, R: Row>(&'a self, rows: &'a [R]) -> impl Serialize + 'a {
        assert_eq!(rows.len(), self.rows.len(), "a verdict is on the rows it was made of");
        let text = self.sentences.join(" ");
        rows_as_json(rows, move |index| {
            let row = &self.rows[index];
            [
                ("flip_answer", row.flip.name().map_or(Value::Null, Value::from)),
                ("verdict", Value::from(row.words.as_str())),
                ("run_verdict", Value::from(text.as_str())),
            ]
        })
    }
}

/// A number that is compared with the strict control.
pub(super) struct Test {
    /// Whether it is one of the run's comparisons; others are looked at by themselves.
    pub(super) is_comparison: bool,
    /// Whether there is a number that can be relied on.
    pub(super) is_there: bool,
    pub(super) p: Option<f64>,
}

impl Test {
    /// The p, if it counts among those that are corrected for.
    fn corrected_for(&self) -> Option<f64> {
        self.p.filter(|_| self.is_comparison && self.is_there)
    }
}

/// The answer of each test, corrected for all comparisons.
fn answers(tests: &[Test], draws: usize) -> Vec<Answer> {
    let compared: Vec<f64> = tests.iter().filter_map(Test::corrected_for).collect();
    let mut stays = holm(&compared).into_iter();
    let answer = |test: &Test| {
        let stays = test.corrected_for().is_some() && stays.next() == Some(true);
        match test.p {
            None => Answer::None,
            Some(_) if !test.is_there => Answer::None,
            Some(_) if draws < draws_for_holm(1) => Answer::TooFewDraws,
            Some(p) if p < SIGNIFICANT && stays => Answer::More,
            Some(p) if p < SIGNIFICANT => Answer::MoreUncorrected,
            Some(_) => Answer::NotShown,
        }
    };
    tests.iter().map(answer).collect()
}

/// Why nothing was compared.
pub(super) fn without_control(draws: usize) -> String {
    match draws {
        0 => format!("not compared with a control ({})", field("null_draws")),
        _ => "not compared with its control: the strict control is missing".to_owned(),
    }
}

/// The combined answer of the comparisons, of which each is called `one`.
fn sentences(tests: &[Test], answers: &[Answer], draws: usize, missing: Option<&str>, one: &str) -> Vec<String> {
    let mut said = Vec::new();
    let tested = tests.iter().filter_map(Test::corrected_for).count();
    if tested > 0 {
        said.extend(counted(tests, answers, draws, one));
    }
    let is_missing = |test: &&Test| test.is_comparison && test.is_there && test.p.is_none();
    let without = tests.iter().filter(is_missing).count();
    if draws > 0 && without > 0 {
        let nothing = "nothing is said of whether layers share a Θ";
        said.push(match missing {
            Some(missing) => format!("{}; without it {nothing}.", capital(missing)),
            None if tested == 0 => format!("The strict control is missing: {nothing}."),
            None => format!("The strict control is missing for {}: {nothing} there.", count(without, one)),
        });
    }
    said
}

fn counted(tests: &[Test], answers: &[Answer], draws: usize, one: &str) -> Vec<String> {
    if draws < draws_for_holm(1) {
        return vec![cannot_tell(draws, &format!("a {one} from its control"))];
    }
    let tested = tests.iter().filter_map(Test::corrected_for).count();
    let among = || tests.iter().zip(answers).filter(|(test, _)| test.corrected_for().is_some());
    let number = |wanted: Answer| among().filter(|(_, answer)| **answer == wanted).count();
    let (more, uncorrected) = (number(Answer::More), number(Answer::MoreUncorrected));
    let subject = |part| subject_of(part, tested, one);
    let mut said = Vec::new();
    if more + uncorrected == 0 {
        said.push(format!("{} more than the control at p < {SIGNIFICANT}.", subject(0)));
    } else if draws >= draws_for_holm(tested) {
        let after =
            if tested > 1 { format!(" after Holm's correction for {}", count(tested, "comparison")) } else { String::new() };
        said.push(format!("{} more than the control at p < {SIGNIFICANT}{after}.", subject(more)));
    } else {
        said.push(format!(
            "{} more than the control at p < {SIGNIFICANT}, taken by {}.",
            subject(uncorrected),
            itself(uncorrected)
        ));
    }
    if draws < draws_for_holm(tested) {
        said.push(takes_more_draws(draws, tested));
    }
    said
}
