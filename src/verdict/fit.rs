//! The verdict on a fit: whether one Θ for all layers explains more of a module's matrix than it does where the layers share nothing.
//!
//! It goes by the strict control, which turns the signs of the layer's own targets. Gaussian targets do not keep where the energy of a factor lies in the
//! spectrum of its W0, and factors that share nothing can be easier to fit than these for that reason alone.

use super::Answer;
use super::strict::{StrictVerdict, Test, without_control};
use crate::error::escape;
use crate::numerals::{count, p};
use crate::table::FitRow;
use crate::terms::{Status, UpdateMatrix};

impl StrictVerdict {
    /// The verdict on a fit's rows, where a test has at most `draws` draws of the strict control. `missing` says for which modules it is missing that could
    /// have it, and how to get it. Rows of single layers are not among the comparisons.
    #[must_use]
    pub fn of_fit(rows: &[FitRow], draws: usize, missing: Option<&str>) -> Self {
        Self::of(rows, |row, flip| words_of(row, flip, draws), draws, missing, "fit")
    }
}

impl From<&FitRow> for Test {
    fn from(row: &FitRow) -> Self {
        Self {
            is_comparison: row.layer == FitRow::ALL,
            is_there: row.residual.is_some() && row.status != Status::Unreliable,
            p: row.flip_p,
        }
    }
}

fn words_of(row: &FitRow, flip: Answer, draws: usize) -> String {
    let what = match row.matrix {
        UpdateMatrix::A => "A",
        UpdateMatrix::B => "B",
        UpdateMatrix::Delta => "the updates B·A",
    };
    let module = escape(&row.module);
    let Some(residual) = row.residual else { return format!("{module}: {what} is zero") };
    let explained = 100.0 * (1.0 - residual * residual);
    let shown = row.flip_p.map_or_else(String::new, |value| format!(" (p = {})", p(value)));
    let verdict = match flip {
        _ if row.status == Status::Unreliable => "unreliable: the solution failed its check".to_owned(),
        Answer::None => without_control(draws),
        Answer::TooFewDraws => format!("{} cannot tell whether that is more than its control", count(draws, "draw")),
        Answer::More => format!("more than its control{shown}"),
        Answer::MoreUncorrected => format!("more than its control taken by itself{shown}"),
        _ => format!("not shown to be more than its control{shown}"),
    };
    format!("{module}: one Θ explains {explained:.1} % of {what} (squared norm), {verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(residual: Option<f64>, flip_p: Option<f64>) -> FitRow {
        FitRow {
            module: "value".into(),
            matrix: UpdateMatrix::Delta,
            layer: FitRow::ALL.into(),
            residual,
            residual_expected: Some(0.9064),
            residual_sd: Some(0.0021),
            // However small this is, nothing is claimed of it.
            p: Some(0.001),
            flip_mean: flip_p.map(|_| 0.9),
            flip_sd: flip_p.map(|_| 0.002),
            flip_p,
            status: Status::Ok,
        }
    }

    fn of(rows: &[FitRow], draws: usize) -> StrictVerdict {
        StrictVerdict::of_fit(rows, draws, None)
    }

    #[test]
    fn a_row_says_what_was_tested() {
        let words = |residual, p, draws| of(&[row(residual, p)], draws).rows.remove(0).words;
        let explains = "value: one Θ explains 36.0 % of the updates B·A (squared norm), ";
        for (p, draws, verdict) in [
            (Some(1.0 / 21.0), 20, "more than its control (p = 0.048)"),
            (Some(0.05), 99, "not shown to be more than its control (p = 0.050)"),
            (Some(1.0 / 6.0), 5, "5 draws cannot tell whether that is more than its control"),
            (None, 0, "not compared with a control (`null_draws`)"),
            (None, 199, "not compared with its control: the strict control is missing"),
        ] {
            assert_eq!(words(Some(0.8), p, draws), format!("{explains}{verdict}"));
        }
        assert_eq!(words(None, None, 20), "value: the updates B·A is zero");
        let unreliable = FitRow { status: Status::Unreliable, ..row(Some(0.8), Some(0.01)) };
        let verdict = of(&[unreliable], 100);
        assert_eq!(verdict.rows[0].flip, Answer::None);
        assert!(verdict.rows[0].words.ends_with("unreliable: the solution failed its check") && verdict.sentences.is_empty());
    }

    #[test]
    fn several_fits_are_corrected_for_and_layers_are_none_of_them() {
        let layer = FitRow { layer: "0".into(), ..row(Some(0.8), Some(1.0 / 21.0)) };
        let few = [layer, row(Some(0.8), Some(1.0 / 21.0)), row(Some(0.9), Some(0.5))];
        let verdict = of(&few, 20);
        let answers: Vec<Answer> = verdict.rows.iter().map(|row| row.flip).collect();
        assert_eq!(answers, [Answer::MoreUncorrected, Answer::MoreUncorrected, Answer::NotShown]);
        assert_eq!(
            verdict.sentences,
            [
                "1 of 2 fits is more than the control at p < 0.05, taken by itself.",
                "20 draws give no p below 0.048; to correct for 2 comparisons (Holm) takes `null_draws` 40 or more.",
            ]
        );
        let enough = [row(Some(0.8), Some(1.0 / 101.0)), row(Some(0.9), Some(0.03))];
        let verdict = of(&enough, 100);
        assert_eq!(
            verdict.sentences,
            ["Both fits are more than the control at p < 0.05 after Holm's correction for 2 comparisons."]
        );
        assert!(verdict.rows[1].words.ends_with("more than its control (p = 0.030)"));
        let none = of(&[row(Some(0.9), Some(0.6))], 20);
        assert_eq!(none.sentences, ["The only fit is not more than the control at p < 0.05."]);
        assert_eq!(of(&[row(Some(0.9), Some(0.2))], 4).sentences.len(), 1);
    }

    #[test]
    fn without_the_strict_control_nothing_is_claimed_of_gaussian_targets() {
        let missing = [row(Some(0.8), None), row(Some(0.9), None)];
        let verdict = of(&missing, 199);
        assert!(verdict.rows.iter().all(|row| row.flip == Answer::None));
        assert_eq!(verdict.sentences, ["The strict control is missing: nothing is said of whether layers share a Θ."]);
        let told = StrictVerdict::of_fit(&missing, 199, Some("the strict control is missing for `q`: ask"));
        assert_eq!(
            told.sentences,
            ["The strict control is missing for `q`: ask; without it nothing is said of whether layers share a Θ."]
        );
        let one = of(&[row(Some(0.8), Some(0.5)), row(Some(0.9), None)], 199);
        assert_eq!(
            one.sentences[1],
            "The strict control is missing for 1 fit: nothing is said of whether layers share a Θ there."
        );
        assert!(of(&missing, 0).sentences.is_empty());
    }
}
