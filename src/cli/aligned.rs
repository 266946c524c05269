//! Tables as the terminal shows them: names at the left, numbers at the right, a colour for a row that stands out.

use std::ops::Range;

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, Table};

use super::terminal::Terminal;
use crate::terms::Status;

/// A smaller p stands out from its control.
pub(super) const SIGNIFICANT: f64 = 0.05;

pub(super) const HEADING: Style = Style::new().bold();
const EXCEEDS: Style = AnsiColor::Green.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();

/// A table that is being filled.
pub(super) struct Aligned {
    table: Table,
    numbers: Range<usize>,
    styles: Vec<Option<Style>>,
}

impl Aligned {
    /// A table without rows, in which the columns `numbers` hold numbers.
    pub(super) fn new(header: Vec<&str>, numbers: Range<usize>) -> Self {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(header);
        Self { table, numbers, styles: vec![None] }
    }

    /// Adds a row; one that is not `ok` or exceeds its control is coloured.
    pub(super) fn row(&mut self, cells: Vec<String>, status: Status, exceeds: bool) {
        self.table.add_row(cells.into_iter().map(Cell::new).collect::<Vec<_>>());
        let exceeding = exceeds.then_some(EXCEEDS);
        self.styles.push(if status == Status::Ok { exceeding } else { Some(DOUBTFUL) });
    }

    /// The lines, without spaces at their ends.
    pub(super) fn text(mut self, terminal: &Terminal) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
            if self.numbers.contains(&column.index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut out = String::new();
        for (line, style) in self.table.lines().zip(self.styles) {
            let line = line.trim_end();
            out.push_str(&style.map_or_else(|| line.to_owned(), |style| terminal.paint(style, line)));
            out.push('\n');
        }
        out
    }
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

/// Whether a p is small enough to stand out.
pub(super) fn is_significant(p: Option<f64>) -> bool {
    p.is_some_and(|p| p < SIGNIFICANT)
}
