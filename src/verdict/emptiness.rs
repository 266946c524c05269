//! What a study has no answer to: modules in which nothing was compared, and tables without a row.

use crate::error::escape;
use crate::numerals::count;
use crate::table::columns::Row;
use crate::table::rows::{SpectrumRow, SummaryRow};
use crate::table::{Tables, gather};
use crate::terms::Status;

/// So many modules are named.
const MOST_NAMED: usize = 4;

/// Why an average has no φ.
pub(super) fn why_no_phi(row: &SummaryRow) -> &'static str {
    match row.status {
        Status::Zero => "B (or A) is zero, as before training, and has no subspace",
        Status::Rank => "fewer directions than i or j (rank)",
        Status::Skipped if row.layers == 0 => "it is outside any container of layers",
        Status::Skipped => "the layers' vectors differ in length",
        _ if row.layers < 2 => "a single layer has no other to be compared with",
        _ => "no pair of layers has a φ",
    }
}

/// A sentence for each reason why modules have no φ, and one for tables without a row; none where there is nothing of the kind.
pub(super) fn sentences(tables: &Tables) -> Vec<String> {
    let modules = gather(&tables.summary, |row| (row.adapter.as_str(), row.module.as_str()));
    let several = modules.windows(2).any(|pair| pair[0].0.0 != pair[1].0.0);
    let silent = modules.into_iter().filter(|(_, rows)| rows.iter().all(|row| row.phi_mean.is_none()));
    let mut said: Vec<String> = gather(silent, |(_, rows)| why_no_phi(rows[0]))
        .into_iter()
        .map(|(why, modules)| {
            let mut names: Vec<String> = modules.iter().take(MOST_NAMED).map(|(name, _)| named(*name, several)).collect();
            if modules.len() > MOST_NAMED {
                names.push("...".to_owned());
            }
            let of = if modules.len() == 1 { String::new() } else { format!("{}: ", count(modules.len(), "module")) };
            format!("Nothing was compared in {of}{} ({}).", names.join(", "), why)
        })
        .collect();
    // Without conversion matrices there are no singular values to list: nobody asked for them.
    let asked_for = tables.each().filter(|table| table.name() != SpectrumRow::TABLE);
    let empty: Vec<String> = asked_for.filter(|table| table.is_empty()).map(|table| format!("{}.csv", table.name())).collect();
    if !empty.is_empty() {
        said.push(format!("Without a row: {}.", empty.join(", ")));
    }
    said
}

fn named((adapter, module): (&str, &str), several: bool) -> String {
    let adapter = if several { format!("{}: ", escape(adapter)) } else { String::new() };
    format!("{adapter}{}", escape(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_without_a_comparison_and_empty_tables_are_named() {
        let compared = SummaryRow::example();
        let alone = |module: &str, layers: usize, status: Status| SummaryRow {
            module: module.into(),
            phi_mean: None,
            layers,
            status,
            ..SummaryRow::example()
        };
        let mut tables = Tables { summary: vec![compared, alone("lm_head", 0, Status::Skipped)], ..Tables::default() };
        let of_tables =
            |tables: &Tables| sentences(tables).into_iter().filter(|said| !said.starts_with("Without")).collect::<Vec<_>>();
        assert_eq!(of_tables(&tables), ["Nothing was compared in lm_head (it is outside any container of layers)."]);
        tables.summary.extend((0..6).map(|k| alone(&format!("m{k}"), 1, Status::Ok)));
        tables.summary.push(SummaryRow { adapter: "b".into(), ..alone("v", 4, Status::Skipped) });
        let said = of_tables(&tables);
        assert!(
            said[1].starts_with("Nothing was compared in 6 modules: ")
                && said[1].ends_with("m3, ... (a single layer has no other to be compared with)."),
            "{said:?}"
        );
        assert_eq!(said[2], "Nothing was compared in b: v (the layers' vectors differ in length).");
        tables.measures = Some(Vec::new());
        let said = sentences(&tables);
        assert_eq!(said.last().unwrap(), "Without a row: similarity.csv, conversion.csv, measures.csv.");
    }
}
