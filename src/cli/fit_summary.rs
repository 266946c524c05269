//! What a fit means, in a table and in words.

use super::aligned::{Above, Aligned, HEADING, is_significant, mean_and_sd, number, p_value};
use super::terminal::Terminal;
use crate::error::escape;
use crate::shared_theta::Fit;
use crate::table::FitRow;
use crate::terms::UpdateMatrix;

/// The rows of all layers together, and what they say.
pub(super) fn text(adapter: &str, fit: &Fit, terminal: &Terminal) -> String {
    let together: Vec<&FitRow> = fit.rows.iter().filter(|row| row.layer == FitRow::ALL).collect();
    let mut out = terminal.paint(HEADING, &escape(adapter));
    out.push_str(", one Θ for all layers of a module\n");
    out.push_str(&table(&together, terminal));
    out.push('\n');
    let mut words = String::new();
    for row in &together {
        words.push_str(&verdict(row));
    }
    let parameters = fit.parameters();
    words.push_str(&format!(
        "Residual: the share ‖T − fitted‖/‖T‖ that Θ leaves. Chance: Gaussian targets with the same norms.\n\
         The checkpoint has {parameters} parameters.\n"
    ));
    if together.iter().any(|row| row.matrix == UpdateMatrix::Delta) {
        // Of the sample's value modules the largest singular value is ten times the second: random updates with these values are fitted
        // better (0.915) than the trained ones (0.925), and Gaussian ones worse (0.954).
        words.push_str(
            "Updates led by a few singular values are easier to fit than Gaussian ones, whose values are alike, trained or not.\n",
        );
    }
    out.push_str(&terminal.prose(&words));
    out
}

fn table(rows: &[&FitRow], terminal: &Terminal) -> String {
    let mut table =
        Aligned::new(vec!["  module", "matrix", "residual", "by chance", "p", "status"], 2..5).sparing(&["p", "by chance"]);
    for row in rows {
        let cells = vec![
            format!("  {}", escape(&row.module)),
            row.matrix.to_string(),
            number(row.residual),
            mean_and_sd(row.residual_expected, row.residual_sd),
            p_value(row.p),
            row.status.to_string(),
        ];
        table.row(cells, row.status, if is_significant(row.p) { Above::Control } else { Above::Nothing });
    }
    table.text(terminal)
}

/// One sentence a row: whether a shared Θ explains more than it would of random factors.
fn verdict(row: &FitRow) -> String {
    let what = match row.matrix {
        UpdateMatrix::A => "A",
        UpdateMatrix::B => "B",
        UpdateMatrix::Delta => "the updates B·A",
    };
    let module = escape(&row.module);
    let (Some(residual), Some(p)) = (row.residual, row.p) else {
        let why = if row.residual.is_none() { "is zero" } else { "was not held against random targets (--null-draws)" };
        return format!("{module}: {what} {why}.\n");
    };
    let explained = 100.0 * (1.0 - residual * residual);
    let verdict = if is_significant(Some(p)) { "better than chance" } else { "no better than chance" };
    format!("{module}: one Θ explains {explained:.1} % of {what} (squared norm), {verdict} (p = {p:.3}).\n")
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
    fn it_is_said_in_words() {
        let better = verdict(&row(Some(0.8), Some(1.0 / 21.0)));
        assert_eq!(better, "value: one Θ explains 36.0 % of the updates B·A (squared norm), better than chance (p = 0.048).\n");
        assert!(verdict(&row(Some(0.9), Some(0.05))).contains("no better than chance"));
        assert!(verdict(&row(Some(0.9), None)).contains("--null-draws"));
        assert!(verdict(&row(None, None)).contains("is zero"));
        let (one, zero) = (row(Some(0.9043), Some(0.143)), row(None, None));
        let shown = table(&[&one, &zero], &Terminal::new(ColorChoice::Never, false, false));
        assert!(shown.contains("0.9043") && shown.contains("0.9064 ± 0.0021") && shown.lines().all(|l| l.chars().count() <= 80));
    }
}
