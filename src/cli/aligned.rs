//! Tables as the terminal shows them: names at the left, numbers at the right, a colour for a row that stands out; as wide as there is room.

use std::ops::Range;

use anstyle::{AnsiColor, Style};

use super::terminal::Terminal;
use crate::terms::Status;
use crate::verdict::Answer;

pub(super) const HEADING: Style = Style::new().bold();
const MORE_THAN_BASE: Style = AnsiColor::Green.on_default();
const MORE_THAN_CHANCE: Style = AnsiColor::Cyan.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();

/// Between two columns.
const GAP: usize = 2;
/// A name is shortened to this before a column is left out, and to less only where none can be.
const SHORT_NAME: usize = 18;
const SHORTEST_NAME: usize = 8;

/// The colour of a row: of doubt, or of what it is more than. Words and numbers say the same.
pub(super) fn colour(status: Status, chance: Answer, base: Answer) -> Option<Style> {
    match (status, chance, base) {
        (status, ..) if status != Status::Ok => Some(DOUBTFUL),
        (_, _, Answer::More) => Some(MORE_THAN_BASE),
        (_, Answer::More, _) => Some(MORE_THAN_CHANCE),
        _ => None,
    }
}

/// A table that is being filled.
pub(super) struct Aligned {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    numbers: Range<usize>,
    styles: Vec<Option<Style>>,
    spare: &'static [&'static str],
}

impl Aligned {
    /// A table without rows, in which the columns `numbers` hold numbers.
    pub(super) fn new(header: Vec<&str>, numbers: Range<usize>) -> Self {
        let header = header.into_iter().map(str::to_owned).collect();
        Self { header, rows: Vec::new(), numbers, styles: vec![None], spare: &[] }
    }

    /// Columns that may be left out, the first one first, where the terminal has no room.
    pub(super) fn sparing(self, spare: &'static [&'static str]) -> Self {
        Self { spare, ..self }
    }

    /// Adds a row, in a style if it is to stand out.
    pub(super) fn row(&mut self, cells: Vec<String>, style: Option<Style>) {
        self.rows.push(cells);
        self.styles.push(style);
    }

    /// The lines, without spaces at their ends; where columns were left out, which.
    pub(super) fn text(self, terminal: &Terminal) -> String {
        let (shown, name_room) = self.fitted(terminal.width());
        let cell = |row: &[String], column: usize| match column {
            0 => shortened(&row[0], name_room),
            _ => row[column].clone(),
        };
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let width = |column: usize| lines().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = shown.iter().map(|&column| width(column)).collect();
        let mut out = String::new();
        for (row, style) in lines().zip(&self.styles) {
            let padded = shown.iter().zip(&widths).map(|(&column, &width)| {
                let text = cell(row, column);
                if self.numbers.contains(&column) { format!("{text:>width$}") } else { format!("{text:<width$}") }
            });
            let line = padded.collect::<Vec<_>>().join(&" ".repeat(GAP));
            let line = line.trim_end();
            out.push_str(&style.map_or_else(|| line.to_owned(), |style| terminal.paint(style, line)));
            out.push('\n');
        }
        let hidden: Vec<&str> = (0..self.header.len()).filter(|c| !shown.contains(c)).map(|c| self.header[c].as_str()).collect();
        if !hidden.is_empty() {
            out.push_str(&format!("  no room for: {}\n", hidden.join(", ")));
        }
        out
    }

    /// The columns that fit, and how long the names in the first may be.
    fn fitted(&self, room: Option<usize>) -> (Vec<usize>, usize) {
        let mut shown: Vec<usize> = (0..self.header.len()).collect();
        let Some(room) = room else { return (shown, usize::MAX) };
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.header]).filter_map(|row| row.get(column));
            cells.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let names = width(0);
        let mut spare = self.spare.iter();
        loop {
            let others: usize = shown.iter().skip(1).map(|&column| GAP + width(column)).sum();
            let left = room.saturating_sub(others);
            if left >= names.min(SHORT_NAME) {
                return (shown, left);
            }
            match spare.next() {
                Some(name) => shown.retain(|&column| self.header[column] != *name),
                None => return (shown, left.max(SHORTEST_NAME)),
            }
        }
    }
}

/// A name within `room`: its end tells more than its beginning, and its middle least.
fn shortened(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let kept = room.saturating_sub(1);
    let first = kept / 3;
    let head: String = name.chars().take(first).collect();
    let tail: String = name.chars().skip(length - (kept - first)).collect();
    format!("{head}…{tail}")
}

/// Four digits behind the point, or nothing.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |v| format!("{v:.4}"))
}

/// A mean with its standard deviation, where that is known.
pub(super) fn mean_and_sd(mean: Option<f64>, sd: Option<f64>) -> String {
    match (mean, sd) {
        (Some(mean), Some(sd)) => format!("{mean:.4} ± {sd:.4}"),
        (mean, _) => number(mean),
    }
}

/// A p, or nothing.
pub(super) fn p_value(p: Option<f64>) -> String {
    p.map_or_else(String::new, |p| format!("{p:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::ColorChoice;

    fn table(name: &str) -> Aligned {
        let mut table = Aligned::new(vec!["  module", "matrix", "mean φ", "z", "status"], 2..4).sparing(&["z", "matrix"]);
        let cells = [&format!("  {name}"), "BA", "0.0262", "-1.2", "low_confidence"].map(str::to_owned).to_vec();
        table.row(cells, None);
        table
    }

    #[test]
    fn long_names_lose_their_middle_and_narrow_terminals_columns() {
        let plain = |width| Terminal::new(ColorChoice::Never, false, false).of_width(width);
        let name = "encoder.layer.*.attention.self.query";
        let all = table(name).text(&plain(None));
        assert!(all.contains(name) && !all.contains("no room"), "{all}");
        for width in [44, 60, 80, 120] {
            let shown = table(name).text(&plain(Some(width)));
            assert!(shown.lines().all(|line| line.chars().count() <= width), "{width}: {shown}");
            assert!(shown.contains("query") && shown.contains("low_confidence"), "{shown}");
            assert_eq!(shown.contains("no room for: "), width < 57, "{width}: {shown}");
        }
        let least = table(name).text(&plain(Some(10)));
        assert!(least.contains("no room for: matrix, z") && least.contains("…query"), "{least}");
        assert_eq!(shortened("abcdefghij", 7), "ab…ghij");
        assert_eq!(shortened("abc", 3), "abc");
    }

    #[test]
    fn a_colour_claims_no_more_than_the_verdict() {
        use Answer::{HigherUntested, More, MoreUncorrected, None, NotShown};
        assert_eq!(colour(Status::Ok, More, More), Some(MORE_THAN_BASE));
        assert_eq!(colour(Status::Ok, More, MoreUncorrected), Some(MORE_THAN_CHANCE));
        assert_eq!(colour(Status::Ok, More, None), Some(MORE_THAN_CHANCE));
        for chance in [HigherUntested, MoreUncorrected, NotShown] {
            assert_eq!(colour(Status::Ok, chance, NotShown), Option::None);
        }
        assert_eq!(colour(Status::Rank, More, More), Some(DOUBTFUL));
    }

    #[test]
    fn names_are_at_the_left_and_numbers_at_the_right() {
        let mut table = Aligned::new(vec!["  name", "n", "x"], 1..2);
        table.row(["  a", "1", "p"].map(str::to_owned).to_vec(), Some(DOUBTFUL));
        table.row(["  größer", "10", ""].map(str::to_owned).to_vec(), None);
        let plain = Terminal::new(ColorChoice::Never, false, false).of_width(None);
        assert_eq!(table.text(&plain), "  name     n  x\n  a        1  p\n  größer  10\n");
    }
}
