//! What a fit means, in a table and in words.

use super::aligned::{Aligned, HEADING, colour, mean_and_sd, number, p_value};
use super::terminal::Terminal;
use crate::error::escape;
use crate::shared_theta::Fit;
use crate::table::FitRow;
use crate::terms::UpdateMatrix;
use crate::verdict::{Answer, FitAnswer, FitVerdict};

/// The rows of all layers together, and what they say.
pub(super) fn text(adapter: &str, fit: &Fit, verdict: &FitVerdict, terminal: &Terminal) -> String {
    let together: Vec<(&FitRow, &FitAnswer)> =
        fit.rows.iter().zip(&verdict.rows).filter(|(row, _)| row.layer == FitRow::ALL).collect();
    let mut out = terminal.paint(HEADING, &escape(adapter));
    out.push_str(", one Θ for all layers of a module\n");
    out.push_str(&table(&together, terminal));
    out.push('\n');
    let mut words = String::new();
    for sentence in together.iter().map(|(_, answer)| answer.words.clone() + ".").chain(verdict.sentences.iter().cloned()) {
        words.push_str(&sentence);
        words.push('\n');
    }
    let parameters = fit.parameters();
    words.push_str(&format!(
        "Residual: the share ‖T − fitted‖/‖T‖ that Θ leaves. Chance: Gaussian targets with the same norms.\n\
         The checkpoint has {parameters} parameters.\n"
    ));
    if together.iter().any(|(row, _)| row.matrix == UpdateMatrix::Delta) {
        // Of the sample's value modules the largest singular value is ten times the second: random updates with these values are fitted
        // better (0.915) than the trained ones (0.925), and Gaussian ones worse (0.954).
        words.push_str(
            "Updates led by a few singular values are easier to fit than Gaussian ones, whose values are alike, trained or not.\n",
        );
    }
    out.push_str(&terminal.prose(&words));
    out
}

fn table(rows: &[(&FitRow, &FitAnswer)], terminal: &Terminal) -> String {
    let mut table =
        Aligned::new(vec!["  module", "matrix", "residual", "by chance", "p", "status"], 2..5).sparing(&["p", "by chance"]);
    for (row, answer) in rows {
        let cells = vec![
            format!("  {}", escape(&row.module)),
            row.matrix.to_string(),
            number(row.residual),
            mean_and_sd(row.residual_expected, row.residual_sd),
            p_value(row.p),
            row.status.to_string(),
        ];
        table.row(cells, colour(row.status, answer.chance, Answer::None));
    }
    table.text(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::ColorChoice;
    use crate::terms::Status;

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
    fn the_table_fits_80_columns() {
        let rows = [row(Some(0.9043), Some(0.143)), row(None, None)];
        let verdict = FitVerdict::of(&rows, 20);
        let rows: Vec<_> = rows.iter().zip(&verdict.rows).collect();
        let shown = table(&rows, &Terminal::new(ColorChoice::Never, false, false).of_width(None));
        assert!(shown.contains("0.9043") && shown.contains("0.9064 ± 0.0021") && shown.lines().all(|l| l.chars().count() <= 80));
    }
}
