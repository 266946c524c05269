//! The verdict on held-out layers: whether one Θ of the other layers predicts more of a layer's factor than where the layers share nothing.

use super::Answer;
use super::strict::{StrictVerdict, Test, without_control};
use crate::error::escape;
use crate::numerals::{count, p};
use crate::table::{HeldOutRow, gather};
use crate::terms::{Status, UpdateMatrix};

/// What the other layers' own factors predict is told where it is this many times what chance does.
const WORTH_TELLING: f64 = 1.5;

impl StrictVerdict {
    /// The verdict on the rows of `heldout.csv`, as that on a fit's. What is predicted without W0 comes first.
    ///
    /// The comparisons are the rows of all layers by subspace; those by energy are at best [`Answer::MoreUncorrected`], and single layers are not compared.
    #[must_use]
    pub fn of_held_out(rows: &[HeldOutRow], draws: usize, missing: Option<&str>) -> Self {
        let mut verdict = Self::of(rows, |row, flip| words_of(row, rows, flip, draws), draws, missing, "prediction");
        verdict.sentences.splice(..0, without_w0(rows));
        verdict
    }
}

impl From<&HeldOutRow> for Test {
    fn from(row: &HeldOutRow) -> Self {
        Self {
            is_comparison: row.layer == HeldOutRow::ALL && row.weighting == HeldOutRow::SUBSPACE,
            is_there: row.score.is_some() && row.status != Status::Unreliable,
            p: row.flip_p,
        }
    }
}

/// `all` are the rows among which those of the other layers are.
fn words_of(row: &HeldOutRow, all: &[HeldOutRow], flip: Answer, draws: usize) -> String {
    let module = escape(&row.module);
    let Some(score) = row.score else {
        return match row.status {
            Status::Zero => format!("{module}: no update, and so no {}", row.matrix),
            _ => format!("{module}: one layer alone, and no other to predict its {} from", row.matrix),
        };
    };
    let is_beside = |other: &&HeldOutRow| {
        (&other.module, other.matrix, &other.map, &other.weighting) == (&row.module, row.matrix, &row.map, &row.weighting)
            && other.layer != HeldOutRow::ALL
            && other.score.is_some()
    };
    let others = count(all.iter().filter(is_beside).count().saturating_sub(1), "layer");
    let what = if row.weighting == HeldOutRow::ENERGY { "energy" } else { "directions" };
    let whose = if row.layer == HeldOutRow::ALL { "a left-out layer's".to_owned() } else { format!("layer {}'s", row.layer) };
    let chance = row.chance.map_or_else(String::new, |chance| format!("; chance {}", percent(chance)));
    let predicts = format!(
        "{module}, {} by {}: one Θ from the other {others} predicts {} of {whose} {what}{chance}",
        row.matrix,
        row.map,
        percent(score)
    );
    if row.layer != HeldOutRow::ALL {
        return predicts;
    }
    let control = row.flip_mean.map_or_else(String::new, |mean| {
        let sd = row.flip_sd.map_or_else(String::new, |sd| format!(" ± {:.1}", 100.0 * sd));
        let p = row.flip_p.map_or_else(String::new, |value| format!(" (p = {})", p(value)));
        format!(", control {:.1}{sd} %{p}", 100.0 * mean)
    });
    let judged = match flip {
        Answer::More => how_much(score).to_owned(),
        Answer::MoreUncorrected => "more than its control taken by itself".to_owned(),
        Answer::TooFewDraws => format!("{} cannot tell", count(draws, "draw")),
        Answer::None => without_control(draws),
        _ => "no more than its control".to_owned(),
    };
    format!("{predicts}{control}: {judged}")
}

/// How much a share is that is more than its control.
fn how_much(score: f64) -> &'static str {
    match score {
        0.995.. => "all of it",
        0.75.. => "most of it",
        0.25.. => "a part of it",
        _ => "a little",
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// What the other layers' own factors predict, for each module and factor of which they predict more than chance does and than any Θ.
fn without_w0(rows: &[HeldOutRow]) -> Vec<String> {
    let joint = rows.iter().filter(|row| row.layer == HeldOutRow::ALL);
    let mut said = Vec::new();
    for ((module, matrix), rows) in gather(joint, |row| (row.module.as_str(), row.matrix)) {
        let of = |weighting: &str| rows.iter().find(|row| row.weighting == weighting).and_then(|row| row.without_w0);
        let best =
            rows.iter().filter(|row| row.weighting == HeldOutRow::SUBSPACE).filter_map(|row| row.score).fold(0.0, f64::max);
        let Some((directions, chance)) = of(HeldOutRow::SUBSPACE).zip(rows.iter().find_map(|row| row.chance)) else { continue };
        if directions <= best || directions < WORTH_TELLING * chance || matrix == UpdateMatrix::Delta {
            continue;
        }
        let energy = of(HeldOutRow::ENERGY).map_or_else(String::new, |energy| format!(" and {} of the energy", percent(energy)));
        said.push(format!(
            "{}: the other layers' own {matrix}, without W0, predict {} of the directions{energy}.",
            escape(module),
            percent(directions)
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(matrix: UpdateMatrix, weighting: &str, layer: &str, score: f64, flip_p: Option<f64>) -> HeldOutRow {
        HeldOutRow {
            module: "query".into(),
            matrix,
            map: HeldOutRow::W0.into(),
            weighting: weighting.into(),
            layer: layer.into(),
            score: Some(score),
            chance: Some(8.0 / 384.0),
            without_w0: Some(if weighting == HeldOutRow::ENERGY { 0.2009 } else { 0.0643 }),
            flip_mean: flip_p.map(|_| 0.0289),
            flip_sd: flip_p.map(|_| 0.0028),
            flip_p,
            shuffled_mean: None,
            shuffled_p: None,
            status: Status::Ok,
        }
    }

    fn module(matrix: UpdateMatrix, score: f64, flip_p: Option<f64>) -> Vec<HeldOutRow> {
        let of = |weighting: &'static str| {
            let layers = (0..6).map(move |layer: usize| row(matrix, weighting, &layer.to_string(), score, None));
            layers.chain([row(matrix, weighting, HeldOutRow::ALL, score, flip_p)])
        };
        of(HeldOutRow::SUBSPACE).chain(of(HeldOutRow::ENERGY)).collect()
    }

    #[test]
    fn the_words_are_those_of_the_numbers() {
        let rows = [module(UpdateMatrix::A, 0.018, Some(0.955)), module(UpdateMatrix::B, 0.049, Some(0.005))].concat();
        let rows: Vec<HeldOutRow> = rows
            .into_iter()
            .map(|row| if row.matrix == UpdateMatrix::B { HeldOutRow { without_w0: Some(0.0175), ..row } } else { row })
            .collect();
        let verdict = StrictVerdict::of_held_out(&rows, 199, None);
        let answers = |at: usize| (verdict.rows[at].flip, verdict.rows[at].words.as_str());
        assert_eq!(
            answers(6),
            (
                Answer::NotShown,
                "query, A by W0: one Θ from the other 5 layers predicts 1.8 % of a left-out layer's directions; chance 2.1 %, \
                 control 2.9 ± 0.3 % (p = 0.955): no more than its control"
            )
        );
        assert_eq!(
            answers(20),
            (
                Answer::More,
                "query, B by W0: one Θ from the other 5 layers predicts 4.9 % of a left-out layer's directions; chance 2.1 %, \
                 control 2.9 ± 0.3 % (p = 0.005): a little"
            )
        );
        // The energy is looked at by itself, and a layer is not compared.
        assert_eq!(answers(27).0, Answer::MoreUncorrected);
        assert_eq!(
            answers(2),
            (Answer::None, "query, A by W0: one Θ from the other 5 layers predicts 1.8 % of layer 2's directions; chance 2.1 %")
        );
        assert_eq!(
            verdict.sentences,
            [
                "query: the other layers' own A, without W0, predict 6.4 % of the directions and 20.1 % of the energy.",
                "1 of 2 predictions is more than the control at p < 0.05 after Holm's correction for 2 comparisons.",
            ]
        );
    }

    #[test]
    fn what_cannot_be_said_is_not() {
        let of = |p: Option<f64>, draws| StrictVerdict::of_held_out(&module(UpdateMatrix::B, 0.9, p), draws, None);
        let words = |verdict: StrictVerdict| verdict.rows[6].words.rsplit(": ").next().unwrap().to_owned();
        assert_eq!(words(of(Some(0.005), 199)), "most of it");
        assert_eq!(words(of(Some(0.2), 5)), "5 draws cannot tell");
        assert_eq!(words(of(None, 199)), "the strict control is missing");
        assert!(of(None, 199).sentences[0].starts_with("The strict control is missing: nothing is said of whether"));
        assert!(words(of(None, 0)).ends_with("(`null_draws`)"));
        assert_eq!([1.0, 0.8, 0.3, 0.1].map(how_much), ["all of it", "most of it", "a part of it", "a little"]);
        let alone =
            HeldOutRow { score: None, status: Status::Skipped, ..row(UpdateMatrix::B, HeldOutRow::SUBSPACE, "0", 0.0, None) };
        let verdict = StrictVerdict::of_held_out(&[alone], 199, None);
        assert_eq!(verdict.rows[0].words, "query: one layer alone, and no other to predict its B from");
        assert!(verdict.sentences.is_empty());
    }
}
