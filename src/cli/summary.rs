//! The summary on stdout: one table, and in words what it comes to.

use super::aligned::{Aligned, HEADING, SIGNIFICANT, is_significant, mean_and_sd, number, p_value};
use super::terminal::Terminal;
use crate::error::escape;
use crate::table::SummaryRow;

/// One block for each adapter, then the verdict.
pub(super) fn text(rows: &[SummaryRow], terminal: &Terminal) -> String {
    let mut out = String::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|r| r.adapter == first.adapter).count();
        let (block, after) = rest.split_at(count);
        out.push_str(&terminal.paint(HEADING, &escape(&first.adapter)));
        if same_side(block) {
            out.push_str(&format!(", {} singular vectors", first.side));
        }
        if same_pair(block) {
            out.push_str(&format!(", i = {}, j = {}", first.i, first.j));
        }
        out.push('\n');
        out.push_str(&block_text(block, terminal));
        out.push('\n');
        rest = after;
    }
    out.push_str(&verdict(rows));
    out
}

fn same_side(rows: &[SummaryRow]) -> bool {
    rows.windows(2).all(|pair| pair[0].side == pair[1].side)
}

fn same_pair(rows: &[SummaryRow]) -> bool {
    rows.windows(2).all(|pair| (pair[0].i, pair[0].j) == (pair[1].i, pair[1].j))
}

/// The rows of one adapter. What is the same in all of them stands in the heading, so that 80 columns are enough.
fn block_text(rows: &[SummaryRow], terminal: &Terminal) -> String {
    let has = |field: fn(&SummaryRow) -> Option<f64>| rows.iter().any(|r| field(r).is_some());
    let (with_w0, with_init) = (has(|r| r.w0_mean), has(|r| r.init_mean));
    let (with_side, with_pair) = (!same_side(rows), !same_pair(rows));
    let mut header = vec!["  module", "matrix"];
    if with_side {
        header.push("side");
    }
    if with_pair {
        header.push("i,j");
    }
    let names = header.len();
    header.extend(["mean φ", "chance"]);
    if with_w0 {
        header.extend(["w0 control", "z", "p"]);
    }
    if with_init {
        header.push("init");
    }
    let numbers = names..header.len();
    header.push("status");
    let mut table = Aligned::new(header, numbers);
    for row in rows {
        let mut cells = vec![format!("  {}", escape(&row.module)), row.matrix.to_string()];
        if with_side {
            cells.push(row.side.to_string());
        }
        if with_pair {
            cells.push(format!("{},{}", row.i, row.j));
        }
        cells.extend([number(row.phi_mean), number(row.gaussian_expected)]);
        if with_w0 {
            cells.extend([
                mean_and_sd(row.w0_mean, row.w0_sd),
                row.w0_z.map_or_else(String::new, |z| format!("{z:+.1}")),
                p_value(row.w0_p),
            ]);
        }
        if with_init {
            cells.push(number(row.init_mean));
        }
        cells.push(row.status.to_string());
        table.row(cells, row.status, is_significant(row.w0_p));
    }
    table.text(terminal)
}

/// What the table comes to, in words.
fn verdict(rows: &[SummaryRow]) -> String {
    let tested = rows.iter().filter(|r| r.w0_p.is_some()).count();
    if tested == 0 {
        return String::new();
    }
    let above_chance = rows.iter().filter(|r| r.w0_p.is_some() && r.phi_mean > r.gaussian_expected).count();
    let above_w0 = rows.iter().filter(|r| is_significant(r.w0_p)).count();
    format!(
        "{above_chance} of {tested} averages lie above chance, {above_w0} above the w0 control (p < {SIGNIFICANT}).\n\
         w0 control: Gaussian targets solved through the same W0, what the base weights give by themselves.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::ColorChoice;
    use crate::terms::{MatrixKind, Side, Status};

    fn row(adapter: &str, w0_p: Option<f64>) -> SummaryRow {
        SummaryRow {
            adapter: adapter.into(),
            module: "query".into(),
            matrix: MatrixKind::A,
            side: Side::Left,
            i: 8,
            j: 8,
            layers: 6,
            phi_mean: Some(0.0262),
            phi_min: Some(0.0),
            phi_max: Some(1.0),
            gaussian_expected: Some(8.0 / 384.0),
            gaussian_mean: None,
            gaussian_sd: None,
            w0_mean: w0_p.map(|_| 0.0274),
            w0_sd: w0_p.map(|_| 0.0009),
            w0_z: w0_p.map(|_| -1.3),
            w0_p,
            init_mean: None,
            status: Status::Ok,
        }
    }

    #[test]
    fn a_block_for_each_adapter_within_80_columns() {
        let plain = Terminal::new(ColorChoice::Never, false, false);
        let shown = text(&[row("a/b", Some(0.5)), row("c", Some(0.04))], &plain);
        assert!(shown.starts_with("a/b, left singular vectors, i = 8, j = 8\n") && shown.contains("\nc, left"));
        assert!(shown.contains("2 of 2 averages lie above chance, 1 above the w0 control"));
        for line in shown.lines().filter(|l| l.starts_with("  ")) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn columns_without_a_value_are_left_out() {
        let plain = Terminal::new(ColorChoice::Never, false, false);
        let shown = text(&[row("a", None)], &plain);
        assert!(!shown.contains("w0") && !shown.contains("init"), "{shown}");
    }
}
