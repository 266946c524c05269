//! The summary on stdout: one table, and the verdict on it.

use super::aligned::{Aligned, HEADING, colour, mean_and_sd, number, p_value};
use super::terminal::Terminal;
use crate::error::escape;
use crate::table::{SummaryRow, gather};
use crate::terms::Status;
use crate::verdict::{Answer, MapAnswer, MapVerdict, RowVerdict, RunVerdict, Tally};

/// A terminal shows so many adapters one by one; a file or pipe gets them all.
const MOST_ON_A_TERMINAL: usize = 10;
/// So many rows are named in words.
const MOST_NAMED: usize = 6;

/// One block for each adapter, then the verdict. On a terminal the first few of many adapters, and one table over all of them.
pub(super) fn text(rows: &[SummaryRow], verdict: &RunVerdict, terminal: &Terminal) -> String {
    let mut out = String::new();
    let mut judged = verdict.rows.as_slice();
    let adapters = rows.chunk_by(|a, b| a.adapter == b.adapter).count();
    let most = if terminal.width().is_some() && adapters > MOST_ON_A_TERMINAL { MOST_ON_A_TERMINAL } else { adapters };
    for block in rows.chunk_by(|a, b| a.adapter == b.adapter).take(most) {
        let (of_block, rest) = judged.split_at(block.len());
        judged = rest;
        let first = &block[0];
        out.push_str(&terminal.paint(HEADING, &escape(&first.adapter)));
        if same_side(block) {
            out.push_str(&format!(", {} singular vectors", first.side));
        }
        if same_pair(block) {
            out.push_str(&format!(", i = {}, j = {}", first.i, first.j));
        }
        out.push('\n');
        let maps: Vec<&MapVerdict> = verdict.maps.iter().filter(|map| map.row.adapter == first.adapter).collect();
        if maps.iter().any(|map| map.answer != MapAnswer::None) {
            out.push_str(&maps_text(&maps, terminal));
            out.push('\n');
        }
        out.push_str(&block_text(block, of_block, terminal));
        out.push('\n');
    }
    if most < adapters {
        out.push_str(&terminal.prose(&format!("{} more adapters, in the file summary.csv and with --json.", adapters - most)));
        out.push_str(&format!("\n{}\n", terminal.paint(HEADING, &format!("all {adapters} adapters"))));
        out.push_str(&digest(rows, &verdict.rows, terminal));
        out.push('\n');
    }
    out.push_str(&terminal.prose(&words(rows, verdict)));
    out
}

fn same_side(rows: &[SummaryRow]) -> bool {
    rows.windows(2).all(|pair| pair[0].side == pair[1].side)
}

fn same_pair(rows: &[SummaryRow]) -> bool {
    rows.windows(2).all(|pair| (pair[0].i, pair[0].j) == (pair[1].i, pair[1].j))
}

/// The rows of one adapter. What is the same in all of them stands in the heading, so that 80 columns are enough.
fn block_text(rows: &[SummaryRow], verdicts: &[RowVerdict], terminal: &Terminal) -> String {
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
    for (row, verdict) in rows.iter().zip(verdicts) {
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
        table.row(cells, colour(row.status, verdict.chance, verdict.base));
    }
    table.text(terminal)
}

/// The tests of the question whether layers share a linear map.
fn maps_text(maps: &[&MapVerdict], terminal: &Terminal) -> String {
    let strict = maps.iter().any(|map| map.row.flip_mean.is_some());
    let mut header = vec!["  module", "through W0", "φ", "w0 control"];
    header.extend(if strict { vec!["flip control", "p", "draws"] } else { vec!["p"] });
    let last = header.len();
    let mut table = Aligned::new(header, 2..last).sparing(&["draws", "w0 control"]);
    for map in maps {
        let row = &map.row;
        let mut cells = vec![format!("  {}", escape(&row.module)), row.matrix.to_string(), number(row.phi_mean)];
        cells.push(mean_and_sd(row.w0_mean, row.w0_sd));
        if strict {
            let draws = row.flip_draws.map_or_else(String::new, |draws| draws.to_string());
            cells.extend([mean_and_sd(row.flip_mean, row.flip_sd), p_value(row.flip_p), draws]);
        } else {
            cells.push(p_value(row.w0_p));
        }
        let base = if map.answer == MapAnswer::Shared { Answer::More } else { Answer::None };
        table.row(cells, colour(row.status, Answer::None, base));
    }
    table.text(terminal)
}

/// Many adapters in one table: each module and matrix over all of them, with how many are more than chance, have p < 0.05 taken by
/// themselves, and are more than the `w0` control. In the order in which modules and matrices first appear.
fn digest(rows: &[SummaryRow], verdicts: &[RowVerdict], terminal: &Terminal) -> String {
    let header = vec!["  module", "matrix", "side", "i,j", "adapters", "mean φ", "min", "max", "> chance", "p < .05", "> w0"];
    let mut table = Aligned::new(header, 4..11).sparing(&["side", "i,j", "min", "max", "p < .05"]);
    let groups = gather(rows.iter().zip(verdicts), |(row, _)| (row.module.as_str(), row.matrix, row.side, row.i, row.j));
    for ((module, matrix, side, i, j), group) in groups {
        let means: Vec<f64> = group.iter().filter_map(|(row, _)| row.phi_mean).collect();
        let mean = (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64);
        let tally = Tally::of(group.iter().map(|(_, verdict)| *verdict));
        let counted = |tested: usize, found: usize| if tested == 0 { String::new() } else { found.to_string() };
        // Where no p can be small enough, a 0 would be an answer.
        let tested = if tally.too_few_draws > 0 { 0 } else { tally.base_tested };
        let cells = vec![
            format!("  {}", escape(module)),
            matrix.to_string(),
            side.to_string(),
            format!("{i},{j}"),
            group.len().to_string(),
            number(mean),
            number(means.iter().copied().reduce(f64::min)),
            number(means.iter().copied().reduce(f64::max)),
            counted(tally.chance_tested, tally.more_than_chance),
            counted(tested, tally.significant()),
            counted(tested, tally.more_than_base),
        ];
        table.row(cells, None);
    }
    table.text(terminal)
}

/// The verdict, and what should be known of it.
fn words(rows: &[SummaryRow], verdict: &RunVerdict) -> String {
    let mut out = String::new();
    for sentence in std::iter::once(&verdict.headline).chain(&verdict.grounds) {
        out.push_str(sentence);
        out.push('\n');
    }
    out.push_str(&singled_out(rows, verdict));
    if rows.iter().any(|row| row.w0_mean.is_some()) {
        out.push_str("w0 control: Gaussian targets solved through the same W0, what the base model gives by itself.\n");
    }
    out + &doubts(rows)
}

/// Which averages are more than a control, where they are few and not all.
fn singled_out(rows: &[SummaryRow], verdict: &RunVerdict) -> String {
    let which = |what: &str, tested: usize, is_it: &dyn Fn(&RowVerdict) -> bool| {
        let found: Vec<&SummaryRow> =
            rows.iter().zip(&verdict.rows).filter(|(_, verdict)| is_it(verdict)).map(|(row, _)| row).collect();
        let is_few = (1..=MOST_NAMED.min(tested.saturating_sub(1))).contains(&found.len());
        if is_few { format!("{what}: {}.\n", names(&found, rows)) } else { String::new() }
    };
    let all = Tally::of(&verdict.rows);
    which("More than chance", all.chance_tested, &|verdict| verdict.chance == Answer::More)
        + &which("More than the w0 control", all.base_tested, &|verdict| verdict.base == Answer::More)
        + &which("Above the w0 control, each taken by itself", all.base_tested, &|verdict| {
            verdict.base == Answer::MoreUncorrected
        })
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
    use crate::table::Tables;
    use crate::terms::{MatrixKind, NullDraws};

    fn row(adapter: &str, w0_p: Option<f64>) -> SummaryRow {
        let control = w0_p.map(|_| 0.0274);
        SummaryRow { adapter: adapter.into(), w0_mean: control, w0_sd: control, w0_z: control, w0_p, ..SummaryRow::example() }
    }

    fn shown(rows: &[SummaryRow], draws: usize, width: Option<usize>) -> String {
        let plain = Terminal::new(ColorChoice::Never, false, false).of_width(width);
        let tables = Tables { summary: rows.to_vec(), ..Tables::default() };
        text(rows, &RunVerdict::of_study(&tables, NullDraws::Fixed(draws)), &plain)
    }

    #[test]
    fn a_block_for_each_adapter_within_80_columns() {
        let shown = shown(&[row("a/b", Some(0.5)), row("c", Some(0.02))], 99, None);
        assert!(shown.starts_with("a/b, left singular vectors, i = 8, j = 8\n") && shown.contains("\nc, left"));
        for line in shown.lines().filter(|l| l.starts_with("  ")) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn what_colour_shows_is_said_in_words() {
        let doubtful = SummaryRow { status: Status::Rank, matrix: MatrixKind::BA, phi_mean: None, ..row("a", None) };
        let below = SummaryRow { matrix: MatrixKind::B, phi_mean: Some(0.02), ..row("a", Some(0.5)) };
        let some = shown(&[row("a", Some(0.02)), below, doubtful], 99, None);
        assert!(some.contains("\nMore than chance: query A.\nMore than the w0 control: query A.\nw0 control: "), "{some}");
        assert!(some.ends_with("Status of 1 of 3 rows is not ok: rank 1.\n"), "{some}");
        let two = shown(&[row("a", Some(1.0 / 21.0)), row("b", Some(0.5))], 20, None);
        assert!(two.contains("\nAbove the w0 control, each taken by itself: a query A.\n"), "{two}");
        assert!(!two.contains("More than chance:") && two.contains("\nBoth averages are more than chance.\n"), "{two}");
    }

    #[test]
    fn a_terminal_shows_a_few_of_many_adapters_and_a_table_of_all() {
        // The first seven are beyond all draws.
        let rows = |draws: usize| -> Vec<SummaryRow> {
            (0..300).map(|k| row(&format!("run-{k:03}"), Some(if k < 7 { 1.0 / (draws as f64 + 1.0) } else { 0.5 }))).collect()
        };
        let piped = shown(&rows(9999), 9999, None);
        assert!(piped.contains("\nrun-299, left") && !piped.contains("more adapters"));
        for width in [40, 80] {
            let shown = shown(&rows(9999), 9999, Some(width));
            assert!(shown.contains("\nrun-009, left") && !shown.contains("run-010"), "{shown}");
            assert!(shown.contains("290 more adapters") && shown.contains("all 300 adapters\n"), "{shown}");
            assert!(shown.lines().count() < 80 && shown.lines().all(|line| line.chars().count() <= width.max(52)), "{shown}");
            let digest = shown.split("all 300 adapters\n").nth(1).unwrap();
            let line: Vec<&str> = digest.lines().nth(1).unwrap().split_whitespace().collect();
            assert_eq!((line[0], line[line.len() - 1]), ("query", "7"), "{digest}");
            assert!(line.contains(&"300"), "{digest}");
        }
        // With 99 draws no p is small enough for 300 comparisons, and with 5 none for one.
        let last = |draws| {
            let shown = shown(&rows(draws), draws, Some(80));
            shown.split("all 300 adapters\n").nth(1).unwrap().lines().nth(1).unwrap().to_owned()
        };
        assert!(last(99).ends_with("300        7     0"), "{}", last(99));
        assert!(last(5).ends_with("0.0600"), "{}", last(5));
    }

    #[test]
    fn columns_without_a_value_are_left_out() {
        let shown = shown(&[row("a", None)], 0, None);
        assert!(!shown.contains("w0") && !shown.contains("init"), "{shown}");
    }
}
