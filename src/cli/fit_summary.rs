//! What a fit means, in tables and in words.

use super::aligned::{Aligned, HEADING, colour, mean_and_sd, number, p_value};
use super::terminal::Terminal;
use crate::error::escape;
use crate::shared_theta::Fit;
use crate::table::{FitRow, HeldOutRow};
use crate::verdict::{Answer, StrictAnswer, StrictVerdict};

/// The rows of all layers together, and what they say.
pub(super) fn text(
    adapter: &str,
    fit: &Fit,
    verdict: &StrictVerdict,
    tried: Option<&(&[HeldOutRow], StrictVerdict)>,
    terminal: &Terminal,
) -> String {
    let together: Vec<(&FitRow, &StrictAnswer)> =
        fit.rows.iter().zip(&verdict.rows).filter(|(row, _)| row.layer == FitRow::ALL).collect();
    let mut out = terminal.paint(HEADING, &escape(adapter));
    out.push_str(", one Θ for all layers of a module\n");
    out.push_str(&table(&together, terminal));
    out.push('\n');
    let of_rows = together.iter().map(|(_, answer)| answer.words.clone() + ".");
    let mut words = lines(of_rows.chain(verdict.sentences.iter().cloned()));
    words.push_str("Residual: the share ‖T − fitted‖/‖T‖ that Θ leaves. By chance: Gaussian targets with the same norms, which say nothing of a shared Θ.\n");
    if together.iter().any(|(row, _)| row.flip_mean.is_some()) {
        words.push_str(FLIP);
    }
    words.push_str(&format!("The checkpoint has {} parameters.\n", fit.parameters()));
    out.push_str(&terminal.prose(&words));
    if let Some((rows, verdict)) = tried {
        out.push('\n');
        out.push_str(&held_out_text(rows, verdict, terminal));
    }
    out
}

const FLIP: &str = "Flip control: these targets with signs turned at random in the singular basis of each W0, which layers do not share; p is of being better than it.\n";

/// One Θ of the other layers tried on each.
fn held_out_text(rows: &[HeldOutRow], verdict: &StrictVerdict, terminal: &Terminal) -> String {
    let together: Vec<(&HeldOutRow, &StrictAnswer)> =
        rows.iter().zip(&verdict.rows).filter(|(row, _)| row.layer == HeldOutRow::ALL).collect();
    let mut out = terminal.paint(HEADING, "each layer left out");
    out.push_str(", the share of it that one Θ of the others predicts\n");
    out.push_str(&held_out_table(&together, terminal));
    out.push('\n');
    let by_subspace = together.iter().filter(|(row, _)| row.weighting == HeldOutRow::SUBSPACE);
    let mut words = lines(by_subspace.map(|(_, answer)| answer.words.clone() + ".").chain(verdict.sentences.iter().cloned()));
    words.push_str("No W0: what the other layers' own factors predict. Subspace: all directions of a factor count alike; energy: by the singular values of the update.\n");
    out.push_str(&terminal.prose(&words));
    out
}

fn lines(sentences: impl Iterator<Item = String>) -> String {
    sentences.map(|sentence| sentence + "\n").collect()
}

fn table(rows: &[(&FitRow, &StrictAnswer)], terminal: &Terminal) -> String {
    let mut table = Aligned::new(vec!["  module", "matrix", "residual", "by chance", "flip control", "p", "status"], 2..6)
        .sparing(&["by chance", "p", "flip control"]);
    for (row, answer) in rows {
        let cells = vec![
            format!("  {}", escape(&row.module)),
            row.matrix.to_string(),
            number(row.residual),
            mean_and_sd(row.residual_expected, row.residual_sd),
            mean_and_sd(row.flip_mean, row.flip_sd),
            p_value(row.flip_p),
            row.status.to_string(),
        ];
        table.row(cells, colour(row.status, Answer::None, answer.flip));
    }
    table.text(terminal)
}

fn held_out_table(rows: &[(&HeldOutRow, &StrictAnswer)], terminal: &Terminal) -> String {
    let header = vec!["  module", "matrix", "map", "of", "score", "flip control", "p", "no W0", "status"];
    let mut table = Aligned::new(header, 4..8).sparing(&["no W0", "status", "p"]);
    for (row, answer) in rows {
        let cells = vec![
            format!("  {}", escape(&row.module)),
            row.matrix.to_string(),
            row.map.clone(),
            row.weighting.clone(),
            number(row.score),
            mean_and_sd(row.flip_mean, row.flip_sd),
            p_value(row.flip_p),
            number(row.without_w0),
            row.status.to_string(),
        ];
        table.row(cells, colour(row.status, Answer::None, answer.flip));
    }
    table.text(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::ColorChoice;
    use crate::terms::{Status, UpdateMatrix};

    fn plain() -> Terminal {
        Terminal::new(ColorChoice::Never, false, false).of_width(None)
    }

    fn row(residual: Option<f64>, flip_p: Option<f64>) -> FitRow {
        FitRow {
            module: "value".into(),
            matrix: UpdateMatrix::Delta,
            layer: FitRow::ALL.into(),
            residual,
            residual_expected: Some(0.9064),
            residual_sd: Some(0.0021),
            p: Some(0.5),
            flip_mean: Some(0.9069),
            flip_sd: Some(0.0022),
            flip_p,
            status: Status::Ok,
        }
    }

    #[test]
    fn the_tables_fit_80_columns() {
        let rows = [row(Some(0.9043), Some(0.143)), row(None, None)];
        let verdict = StrictVerdict::of_fit(&rows, 199, None);
        let rows: Vec<_> = rows.iter().zip(&verdict.rows).collect();
        let shown = table(&rows, &plain());
        assert!(shown.contains("0.9043  0.9064 ± 0.0021  0.9069 ± 0.0022  0.143"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        let tried = [HeldOutRow {
            module: "value".into(),
            matrix: UpdateMatrix::A,
            map: HeldOutRow::W0_TRANSPOSED.into(),
            weighting: HeldOutRow::SUBSPACE.into(),
            layer: HeldOutRow::ALL.into(),
            score: Some(0.0204),
            chance: Some(0.0208),
            without_w0: Some(0.0755),
            flip_mean: Some(0.0217),
            flip_sd: Some(0.0019),
            flip_p: Some(0.736),
            shuffled_mean: Some(0.0219),
            shuffled_p: Some(0.811),
            status: Status::Ok,
        }];
        let verdict = StrictVerdict::of_held_out(&tried, 199, None);
        let tried: Vec<_> = tried.iter().zip(&verdict.rows).collect();
        let shown = held_out_table(&tried, &plain());
        assert!(
            shown.contains("0.0204  0.0217 ± 0.0019  0.736  0.0755") && shown.lines().all(|l| l.chars().count() <= 80),
            "{shown}"
        );
    }
}
