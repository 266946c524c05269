//! The averages of a comparison on stdout: one table, and the verdict on it.

use super::aligned::{Aligned, HEADING, colour, mean_and_sd, number, p_value};
use super::terminal::Terminal;
use crate::error::escape;
use crate::table::CompareAverageRow;
use crate::verdict::RunVerdict;

/// The pair, its averages over layers, and the verdict.
pub(super) fn text(rows: &[CompareAverageRow], verdict: &RunVerdict, terminal: &Terminal) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let same_pair = rows.iter().all(|row| (row.i, row.j) == (first.i, first.j));
    let mut out = terminal.paint(HEADING, &format!("{} and {}", escape(&first.left), escape(&first.right)));
    if same_pair {
        out.push_str(&format!(", i = {}, j = {}", first.i, first.j));
    }
    out.push('\n');
    out.push_str(&table_text(rows, verdict, same_pair, terminal));
    out.push('\n');
    let mut words: Vec<&str> = std::iter::once(&verdict.headline).chain(&verdict.grounds).map(String::as_str).collect();
    if rows.iter().any(|row| row.w0_mean.is_some()) {
        words.push("w0 control: a Gaussian Θ in place of the CondLoRA's, what the base model gives by itself.");
    }
    out.push_str(&terminal.prose(&(words.join("\n") + "\n")));
    out
}

fn table_text(rows: &[CompareAverageRow], verdict: &RunVerdict, same_pair: bool, terminal: &Terminal) -> String {
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
    for (row, verdict) in rows.iter().zip(&verdict.rows) {
        let mut cells = vec![format!("  {}", escape(&row.module)), row.matrix.to_string(), row.side.to_string()];
        if !same_pair {
            cells.push(format!("{},{}", row.i, row.j));
        }
        cells.extend([row.layers.to_string(), number(row.phi_mean), number(row.gaussian_expected)]);
        if with_control {
            cells.extend([mean_and_sd(row.w0_mean, row.w0_sd), p_value(row.w0_p)]);
        }
        cells.push(row.status.to_string());
        table.row(cells, colour(row.status, verdict.chance, verdict.base));
    }
    table.text(terminal)
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

    fn shown(rows: &[CompareAverageRow], draws: usize) -> String {
        let plain = Terminal::new(ColorChoice::Never, false, false).of_width(None);
        text(rows, &RunVerdict::of_comparison(rows, draws), &plain)
    }

    #[test]
    fn a_table_within_80_columns_and_a_verdict() {
        let shown = shown(&[row(Some(0.5)), row(Some(0.02))], 49);
        assert!(shown.starts_with("adapters/a and condlora/a, i = 8, j = 8\n"), "{shown}");
        assert!(shown.contains("; more than the base model alone gives in 1 of 2 averages.\n"), "{shown}");
        assert!(
            shown.ends_with("w0 control: a Gaussian Θ in place of the CondLoRA's, what the base model gives by itself.\n"),
            "{shown}"
        );
        assert!(shown.lines().filter(|line| line.starts_with("  ")).all(|line| line.chars().count() <= 80), "{shown}");
    }

    #[test]
    fn two_lora_have_no_control() {
        let other = CompareAverageRow { i: 4, ..row(None) };
        let two = shown(&[row(None), other], 20);
        assert!(!two.contains("w0") && !two.contains("base") && two.contains("4,8"), "{two}");
        assert!(
            two.contains("Both averages are higher than the value expected by chance, which was not drawn to test it.\n"),
            "{two}"
        );
        assert_eq!(shown(&[], 20), "");
    }
}
