//! What a fit means, in a table and in words.

use comfy_table::{Cell, CellAlignment, Table};

use super::terminal::Terminal;
use crate::error::escape;
use crate::shared_theta::Fit;
use crate::table::FitRow;
use crate::terms::UpdateMatrix;

/// A shared Θ with a smaller p does better than chance.
const SIGNIFICANT: f64 = 0.05;

const HEADING: anstyle::Style = anstyle::Style::new().bold();

/// The rows of all layers together, and what they say.
pub(super) fn text(adapter: &str, fit: &Fit<'_>, terminal: &Terminal) -> String {
    let together: Vec<&FitRow> = fit.rows.iter().filter(|row| row.layer == FitRow::ALL).collect();
    let mut out = terminal.paint(HEADING, &escape(adapter));
    out.push_str(", one Θ for all layers of a module\n");
    out.push_str(&table(&together));
    out.push('\n');
    for row in &together {
        out.push_str(&verdict(row));
    }
    let parameters = fit.parameters();
    out.push_str(&format!(
        "Residual: the share ‖T − fitted‖/‖T‖ that Θ leaves. Chance: Gaussian targets with the same norms.\n\
         The checkpoint has {parameters} parameters.\n"
    ));
    if together.iter().any(|row| row.matrix == UpdateMatrix::Delta) {
        // Of the sample's value modules the largest singular value is ten times the second: random updates with these values are fitted
        // better (0.915) than the trained ones (0.925), and Gaussian ones worse (0.954).
        out.push_str(
            "Updates led by a few singular values are easier to fit than Gaussian ones, whose values are alike, trained or not.\n",
        );
    }
    out
}

fn table(rows: &[&FitRow]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["  module", "matrix", "residual", "by chance", "p", "status"]);
    let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
    for row in rows {
        let chance = match (row.residual_expected, row.residual_sd) {
            (Some(expected), Some(sd)) => format!("{expected:.4} ± {sd:.4}"),
            (expected, _) => number(expected),
        };
        table.add_row(
            vec![
                format!("  {}", escape(&row.module)),
                row.matrix.to_string(),
                number(row.residual),
                chance,
                row.p.map_or_else(String::new, |p| format!("{p:.3}")),
                row.status.to_string(),
            ]
            .into_iter()
            .map(Cell::new)
            .collect::<Vec<_>>(),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if (2..=4).contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
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
    let verdict = if p < SIGNIFICANT { "better than chance" } else { "no better than chance" };
    format!("{module}: one Θ explains {explained:.1} % of {what} (squared norm), {verdict} (p = {p:.3}).\n")
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let shown = table(&[&one, &zero]);
        assert!(shown.contains("0.9043") && shown.contains("0.9064 ± 0.0021") && shown.lines().all(|l| l.chars().count() <= 80));
    }
}
