//! Many adapters in one table: each module and matrix over all of them, with how many stand above chance and above the control.

use super::aligned::{Above, Aligned, is_significant, number};
use super::terminal::Terminal;
use crate::error::escape;
use crate::table::{SummaryRow, gather};
use crate::terms::Status;

/// The table, in the order in which modules and matrices first appear.
pub(super) fn text(rows: &[SummaryRow], terminal: &Terminal) -> String {
    let groups = gather(rows, |row| (row.module.as_str(), row.matrix, row.side, row.i, row.j));
    let header = vec!["  module", "matrix", "side", "i,j", "adapters", "mean φ", "min", "max", "> chance", "> w0"];
    let mut table = Aligned::new(header, 4..10).sparing(&["side", "i,j", "min", "max"]);
    for (_, group) in &groups {
        let Some(first) = group.first() else { continue };
        let means: Vec<f64> = group.iter().filter_map(|row| row.phi_mean).collect();
        let mean = (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64);
        let count = |of: &dyn Fn(&SummaryRow) -> bool| group.iter().filter(|row| of(row)).count();
        let tested = count(&|row| row.w0_p.is_some());
        let cells = vec![
            format!("  {}", escape(&first.module)),
            first.matrix.to_string(),
            first.side.to_string(),
            format!("{},{}", first.i, first.j),
            group.len().to_string(),
            number(mean),
            number(means.iter().copied().reduce(f64::min)),
            number(means.iter().copied().reduce(f64::max)),
            count(&|row| row.phi_mean.is_some() && row.phi_mean > row.gaussian_expected).to_string(),
            if tested == 0 { String::new() } else { count(&|row| is_significant(row.w0_p)).to_string() },
        ];
        table.row(cells, Status::Ok, Above::Nothing);
    }
    table.text(terminal)
}
