//! The averages of a comparison on stdout: one table, and in words what it comes to.

use super::aligned::{Aligned, HEADING, above, is_significant, mean_and_sd, number, p_value};
use super::terminal::Terminal;
use crate::error::escape;
use crate::report::SIGNIFICANT;
use crate::table::CompareAverageRow;

/// The pair, its averages over layers, and the verdict.
pub(super) fn text(rows: &[CompareAverageRow], terminal: &Terminal) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let same_pair = rows.iter().all(|row| (row.i, row.j) == (first.i, first.j));
    let mut out = terminal.paint(HEADING, &format!("{} and {}", escape(&first.left), escape(&first.right)));
    if same_pair {
        out.push_str(&format!(", i = {}, j = {}", first.i, first.j));
    }
    out.push('\n');
    out.push_str(&table_text(rows, same_pair, terminal));
    out.push('\n');
    out.push_str(&terminal.prose(&verdict(rows)));
    out
}

fn table_text(rows: &[CompareAverageRow], same_pair: bool, terminal: &Terminal) -> String {
    let with_control = rows.iter().any(|row| row.w0_mean.is_some());
    let mut header = vec!["  module", "matrix", "side"];
    if !same_pair {
        header.push("i,j");
    }
    let names = header.len();
    header.extend(["layers", "mean φ", "chance"]);
    if with_control {
        header.extend(["w0 control", "p"]);
    }
    let numbers = names..header.len();
    header.push("status");
    let mut table = Aligned::new(header, numbers).sparing(&["layers", "side", "p", "w0 control"]);
    for row in rows {
        let mut cells = vec![format!("  {}", escape(&row.module)), row.matrix.to_string(), row.side.to_string()];
        if !same_pair {
            cells.push(format!("{},{}", row.i, row.j));
        }
        cells.extend([row.layers.to_string(), number(row.phi_mean), number(row.gaussian_expected)]);
        if with_control {
            cells.extend([mean_and_sd(row.w0_mean, row.w0_sd), p_value(row.w0_p)]);
        }
        cells.push(row.status.to_string());
        table.row(cells, row.status, above(row.phi_mean, row.gaussian_expected, row.w0_p));
    }
    table.text(terminal)
}

/// What the table comes to, in words.
fn verdict(rows: &[CompareAverageRow]) -> String {
    let above = |row: &&CompareAverageRow| row.phi_mean > row.gaussian_expected;
    let tested: Vec<&CompareAverageRow> = rows.iter().filter(|row| row.w0_p.is_some()).collect();
    if tested.is_empty() {
        let with_phi = rows.iter().filter(|row| row.phi_mean.is_some() && row.gaussian_expected.is_some_and(|e| e < 1.0));
        let with_phi: Vec<&CompareAverageRow> = with_phi.collect();
        let count = with_phi.iter().copied().filter(above).count();
        return format!("{count} of {} averages lie above chance.\n", with_phi.len());
    }
    format!(
        "{} of {} averages lie above chance, {} above the w0 control (p < {SIGNIFICANT}).\n\
         w0 control: a Gaussian Θ in place of the CondLoRA's, what the base weights give by themselves.\n",
        tested.iter().copied().filter(above).count(),
        tested.len(),
        tested.iter().filter(|row| is_significant(row.w0_p)).count(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::ColorChoice;
    use crate::terms::{Side, Status, UpdateMatrix};

    fn row(w0_p: Option<f64>) -> CompareAverageRow {
        CompareAverageRow {
            left: "adapters/a".into(),
            right: "condlora/a".into(),
            module: "query".into(),
            matrix: UpdateMatrix::Delta,
            side: Side::Left,
            i: 8,
            j: 8,
            layers: 6,
            phi_mean: Some(0.0262),
            gaussian_expected: Some(8.0 / 384.0),
            w0_mean: w0_p.map(|_| 0.0274),
            w0_sd: w0_p.map(|_| 0.0009),
            w0_p,
            status: Status::Ok,
        }
    }

    #[test]
    fn a_table_within_80_columns_and_a_verdict() {
        let plain = Terminal::new(ColorChoice::Never, false, false);
        let shown = text(&[row(Some(0.5)), row(Some(0.04))], &plain);
        assert!(shown.starts_with("adapters/a and condlora/a, i = 8, j = 8\n"), "{shown}");
        assert!(shown.contains("2 of 2 averages lie above chance, 1 above the w0 control"), "{shown}");
        assert!(shown.lines().filter(|line| line.starts_with("  ")).all(|line| line.chars().count() <= 80), "{shown}");
    }

    #[test]
    fn two_lora_have_no_control() {
        let plain = Terminal::new(ColorChoice::Never, false, false);
        let other = CompareAverageRow { i: 4, ..row(None) };
        let shown = text(&[row(None), other], &plain);
        assert!(!shown.contains("w0") && shown.contains("2 of 2 averages lie above chance.") && shown.contains("4,8"), "{shown}");
        assert_eq!(text(&[], &plain), "");
    }
}
