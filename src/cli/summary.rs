//! The summary on stdout: one table, and in words what it comes to.

use super::aligned::{Aligned, HEADING, above, is_significant, mean_and_sd, number, p_value};
use super::digest;
use super::terminal::Terminal;
use crate::error::escape;
use crate::report::SIGNIFICANT;
use crate::table::SummaryRow;
use crate::terms::Status;

/// A terminal shows so many adapters one by one; a file or pipe gets them all.
const MOST_ON_A_TERMINAL: usize = 10;
/// So many rows are named in words.
const MOST_NAMED: usize = 6;

/// One block for each adapter, then the verdict. On a terminal the first few of many adapters, and one table over all of them.
pub(super) fn text(rows: &[SummaryRow], terminal: &Terminal) -> String {
    let mut out = String::new();
    let mut rest = rows;
    let adapters = rows.chunk_by(|a, b| a.adapter == b.adapter).count();
    let most = if terminal.width().is_some() && adapters > MOST_ON_A_TERMINAL { MOST_ON_A_TERMINAL } else { adapters };
    for _ in 0..most {
        let Some(first) = rest.first() else { break };
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
    if most < adapters {
        out.push_str(&terminal.prose(&format!("{} more adapters, in the file summary.csv and with --json.", adapters - most)));
        out.push_str(&format!("\n{}\n", terminal.paint(HEADING, &format!("all {adapters} adapters"))));
        out.push_str(&digest::text(rows, terminal));
        out.push('\n');
    }
    out.push_str(&terminal.prose(&verdict(rows)));
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
    let mut table = Aligned::new(header, numbers).sparing(&["init", "z", "p", "w0 control"]);
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
        table.row(cells, row.status, above(row.phi_mean, row.gaussian_expected, row.w0_p));
    }
    table.text(terminal)
}

/// What the table comes to, in words.
fn verdict(rows: &[SummaryRow]) -> String {
    format!("{}{}", above_controls(rows), doubts(rows))
}

/// How many averages lie above chance and above the control, and which, if they are few.
fn above_controls(rows: &[SummaryRow]) -> String {
    let tested = rows.iter().filter(|r| r.w0_p.is_some()).count();
    if tested == 0 {
        return String::new();
    }
    let above_chance = rows.iter().filter(|r| r.w0_p.is_some() && r.phi_mean > r.gaussian_expected).count();
    let above_w0: Vec<&SummaryRow> = rows.iter().filter(|r| is_significant(r.w0_p)).collect();
    let which = if (1..=MOST_NAMED).contains(&above_w0.len()) { format!(": {}", names(&above_w0, rows)) } else { String::new() };
    let above_w0 = above_w0.len();
    format!(
        "{above_chance} of {tested} averages lie above chance, {above_w0} above the w0 control (p < {SIGNIFICANT}){which}.\n\
         w0 control: Gaussian targets solved through the same W0, what the base weights give by themselves.\n"
    )
}

/// `value A, value B`, with what tells rows apart that have these in common.
fn names(of: &[&SummaryRow], among: &[SummaryRow]) -> String {
    let many = among.windows(2).any(|pair| pair[0].adapter != pair[1].adapter);
    let name = |row: &&SummaryRow| {
        let adapter = if many { format!("{} ", escape(&row.adapter)) } else { String::new() };
        let side = if same_side(among) { String::new() } else { format!(" {}", row.side) };
        let pair = if same_pair(among) { String::new() } else { format!(" ({},{})", row.i, row.j) };
        format!("{adapter}{} {}{side}{pair}", escape(&row.module), row.matrix)
    };
    of.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// How many rows are not `ok`, and why.
fn doubts(rows: &[SummaryRow]) -> String {
    let mut kinds: Vec<(Status, usize)> = Vec::new();
    for status in rows.iter().map(|row| row.status).filter(|status| *status != Status::Ok) {
        match kinds.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => kinds.push((status, 1)),
        }
    }
    if kinds.is_empty() {
        return String::new();
    }
    let count: usize = kinds.iter().map(|(_, count)| count).sum();
    let why: Vec<String> = kinds.iter().map(|(status, count)| format!("{status} {count}")).collect();
    format!("Status of {count} of {} rows is not ok: {}.\n", rows.len(), why.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::ColorChoice;
    use crate::terms::{MatrixKind, Side};

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
    fn what_colour_shows_is_said_in_words() {
        let plain = Terminal::new(ColorChoice::Never, false, false).of_width(None);
        let doubtful = SummaryRow { status: Status::Rank, matrix: MatrixKind::BA, phi_mean: None, ..row("a", None) };
        let shown = text(&[row("a", Some(0.04)), row("a", Some(0.5)), doubtful], &plain);
        assert!(shown.contains("2 of 2 averages lie above chance, 1 above the w0 control (p < 0.05): query A.\n"), "{shown}");
        assert!(shown.contains("Status of 1 of 3 rows is not ok: rank 1.\n"), "{shown}");
        let two = text(&[row("a", Some(0.04)), row("b", Some(0.5))], &plain);
        assert!(two.contains("(p < 0.05): a query A.\n"), "{two}");
    }

    #[test]
    fn a_terminal_shows_a_few_of_many_adapters_and_a_table_of_all() {
        let rows: Vec<SummaryRow> = (0..300).map(|k| row(&format!("run-{k:03}"), Some(if k < 7 { 0.04 } else { 0.5 }))).collect();
        let piped = text(&rows, &Terminal::new(ColorChoice::Never, false, false).of_width(None));
        assert!(piped.contains("\nrun-299, left") && !piped.contains("more adapters"));
        for width in [40, 80] {
            let shown = text(&rows, &Terminal::new(ColorChoice::Never, false, false).of_width(Some(width)));
            assert!(shown.contains("\nrun-009, left") && !shown.contains("run-010"), "{shown}");
            assert!(shown.contains("290 more adapters") && shown.contains("all 300 adapters\n"), "{shown}");
            assert!(shown.lines().count() < 70 && shown.lines().all(|line| line.chars().count() <= width.max(52)), "{shown}");
            let digest = shown.split("all 300 adapters\n").nth(1).unwrap();
            let line: Vec<&str> = digest.lines().nth(1).unwrap().split_whitespace().collect();
            assert_eq!((line[0], line[line.len() - 2], line[line.len() - 1]), ("query", "300", "7"), "{digest}");
        }
    }

    #[test]
    fn columns_without_a_value_are_left_out() {
        let plain = Terminal::new(ColorChoice::Never, false, false);
        let shown = text(&[row("a", None)], &plain);
        assert!(!shown.contains("w0") && !shown.contains("init"), "{shown}");
    }
}
