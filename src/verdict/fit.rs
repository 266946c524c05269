//! The verdict on a fit: whether one Θ for all layers explains more of a module's matrix than it would of random targets.

use serde_json::Value;

use super::Answer;
use super::statistics::{SIGNIFICANT, draws_for_holm, holm};
use super::words::{cannot_tell, itself, subject_of, takes_more_draws};
use crate::error::{escape, field};
use crate::numerals::{count, p};
use crate::table::{FitRow, rows_json_with};
use crate::terms::{Status, UpdateMatrix};

/// What one row of `fit.csv` says.
#[derive(Debug, Clone, PartialEq)]
pub struct FitAnswer {
    /// Whether it is better than chance. Rows of single layers are not among the run's comparisons: at best [`Answer::MoreUncorrected`].
    pub chance: Answer,
    /// The answer in words.
    pub words: String,
}

/// The verdict on a fit's rows, one by one and together. `--json` adds `chance_answer`, `verdict` and `run_verdict` to the columns of
/// `fit.csv`, as [`super::RunVerdict`] does to those of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct FitVerdict {
    /// One for each row, in their order.
    pub rows: Vec<FitAnswer>,
    /// The combined answer of the rows of all layers together, in sentences; empty where they were not compared with draws.
    pub sentences: Vec<String>,
}

impl FitVerdict {
    /// The verdict on a fit's rows, compared with `draws` fits of random targets.
    #[must_use]
    pub fn of(rows: &[FitRow], draws: usize) -> Self {
        let is_compared = |row: &FitRow| row.layer == FitRow::ALL && row.residual.is_some() && row.status != Status::Unreliable;
        let compared: Vec<f64> = rows.iter().filter(|row| is_compared(row)).filter_map(|row| row.p).collect();
        let mut stays = holm(&compared).into_iter();
        let answer = |row: &FitRow| {
            let stays = is_compared(row) && row.p.is_some() && stays.next() == Some(true);
            let chance = match row.p {
                None => Answer::None,
                Some(_) if row.status == Status::Unreliable || row.residual.is_none() => Answer::None,
                Some(_) if draws < draws_for_holm(1) => Answer::TooFewDraws,
                Some(p) if p < SIGNIFICANT && stays => Answer::More,
                Some(p) if p < SIGNIFICANT => Answer::MoreUncorrected,
                Some(_) => Answer::NotShown,
            };
            FitAnswer { chance, words: words_of(row, chance, draws) }
        };
        let answers: Vec<FitAnswer> = rows.iter().map(answer).collect();
        let joint = rows.iter().zip(&answers).filter(|(row, _)| row.layer == FitRow::ALL).map(|(_, answer)| answer.chance);
        let sentences = sentences(&joint.collect::<Vec<_>>(), &compared, draws);
        Self { rows: answers, sentences }
    }

    /// The rows as `--json` prints them.
    ///
    /// # Panics
    /// If these are not the rows that were judged.
    #[must_use]
    pub fn json(&self, rows: &[FitRow]) -> String {
        assert_eq!(rows.len(), self.rows.len(), "a verdict is on the rows it was made of");
        let text = self.sentences.join(" ");
        rows_json_with(rows, |index| {
            let row = &self.rows[index];
            [
                ("chance_answer", row.chance.name().map_or(Value::Null, Value::from)),
                ("verdict", Value::from(row.words.as_str())),
                ("run_verdict", Value::from(text.as_str())),
            ]
        })
    }
}

fn words_of(row: &FitRow, chance: Answer, draws: usize) -> String {
    let what = match row.matrix {
        UpdateMatrix::A => "A",
        UpdateMatrix::B => "B",
        UpdateMatrix::Delta => "the updates B·A",
    };
    let module = escape(&row.module);
    let Some(residual) = row.residual else { return format!("{module}: {what} is zero") };
    let explained = 100.0 * (1.0 - residual * residual);
    let shown = row.p.map_or_else(String::new, |value| format!(" (p = {})", p(value)));
    let verdict = match chance {
        _ if row.status == Status::Unreliable => "unreliable: the solution failed its check".to_owned(),
        Answer::None => format!("not compared with random targets ({})", field("null_draws")),
        Answer::TooFewDraws => format!("{} cannot tell whether that is better than chance", count(draws, "draw")),
        Answer::More => format!("better than chance{shown}"),
        Answer::MoreUncorrected => format!("better than chance taken by itself{shown}"),
        _ => format!("not shown to be better than chance{shown}"),
    };
    format!("{module}: one Θ explains {explained:.1} % of {what} (squared norm), {verdict}")
}

/// The combined answer of the joint rows.
fn sentences(joint: &[Answer], compared: &[f64], draws: usize) -> Vec<String> {
    let tested = compared.len();
    if tested == 0 {
        return Vec::new();
    }
    if draws < draws_for_holm(1) {
        return vec![cannot_tell(draws, "a fit from chance")];
    }
    let number = |answer: Answer| joint.iter().filter(|found| **found == answer).count();
    let (better, uncorrected) = (number(Answer::More), number(Answer::MoreUncorrected));
    let comparisons = count(tested, "comparison");
    let subject = |part| subject_of(part, tested, "fit");
    let mut said = Vec::new();
    if better + uncorrected == 0 {
        said.push(format!("{} better than chance at p < {SIGNIFICANT}.", subject(0)));
    } else if draws >= draws_for_holm(tested) {
        let after = if tested > 1 { format!(" after Holm's correction for {comparisons}") } else { String::new() };
        said.push(format!("{} better than chance at p < {SIGNIFICANT}{after}.", subject(better)));
    } else {
        said.push(format!("{} better than chance at p < {SIGNIFICANT}, taken by {}.", subject(uncorrected), itself(uncorrected)));
    }
    if draws < draws_for_holm(tested) {
        said.push(takes_more_draws(draws, tested));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(residual: Option<f64>, p: Option<f64>) -> FitRow {
        FitRow {
            module: "value".into(),
            matrix: UpdateMatrix::Delta,
            layer: FitRow::ALL.into(),
            residual,
            residual_expected: Some(0.9064),
            residual_sd: Some(0.0021),
            p,
            status: Status::Ok,
        }
    }

    #[test]
    fn a_row_says_what_was_tested() {
        let words = |residual, p, draws| FitVerdict::of(&[row(residual, p)], draws).rows.remove(0).words;
        let explains = "value: one Θ explains 36.0 % of the updates B·A (squared norm), ";
        for (p, draws, verdict) in [
            (Some(1.0 / 21.0), 20, "better than chance (p = 0.048)"),
            (Some(0.05), 99, "not shown to be better than chance (p = 0.050)"),
            (Some(1.0 / 6.0), 5, "5 draws cannot tell whether that is better than chance"),
            (None, 0, "not compared with random targets (`null_draws`)"),
        ] {
            assert_eq!(words(Some(0.8), p, draws), format!("{explains}{verdict}"));
        }
        assert_eq!(words(None, None, 20), "value: the updates B·A is zero");
        let unreliable = FitRow { status: Status::Unreliable, ..row(Some(0.8), Some(0.01)) };
        let verdict = FitVerdict::of(&[unreliable], 100);
        assert_eq!(verdict.rows[0].chance, Answer::None);
        assert!(verdict.rows[0].words.ends_with("unreliable: the solution failed its check") && verdict.sentences.is_empty());
    }

    #[test]
    fn several_fits_are_corrected_for_and_layers_are_none_of_them() {
        let layer = FitRow { layer: "0".into(), ..row(Some(0.8), Some(1.0 / 21.0)) };
        let few = [layer, row(Some(0.8), Some(1.0 / 21.0)), row(Some(0.9), Some(0.5))];
        let verdict = FitVerdict::of(&few, 20);
        let answers: Vec<Answer> = verdict.rows.iter().map(|row| row.chance).collect();
        assert_eq!(answers, [Answer::MoreUncorrected, Answer::MoreUncorrected, Answer::NotShown]);
        assert_eq!(
            verdict.sentences,
            [
                "1 of 2 fits is better than chance at p < 0.05, taken by itself.",
                "20 draws give no p below 0.048; to correct for 2 comparisons (Holm) takes `null_draws` 40 or more.",
            ]
        );
        let enough = [row(Some(0.8), Some(1.0 / 101.0)), row(Some(0.9), Some(0.03))];
        let verdict = FitVerdict::of(&enough, 100);
        assert_eq!(
            verdict.sentences,
            ["Both fits are better than chance at p < 0.05 after Holm's correction for 2 comparisons."]
        );
        assert!(verdict.rows[1].words.ends_with("better than chance (p = 0.030)"));
        let none = FitVerdict::of(&[row(Some(0.9), Some(0.6))], 20);
        assert_eq!(none.sentences, ["The only fit is not better than chance at p < 0.05."]);
        assert_eq!(FitVerdict::of(&[row(Some(0.9), Some(0.2))], 4).sentences.len(), 1);
    }
}
