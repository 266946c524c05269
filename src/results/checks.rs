//! What a table must be, beyond its columns' types, so that it can be drawn: each row once, every pair of layers, φ from 0 to 1.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use super::file::TableFile;
use crate::error::{Error, Result, escape};
use crate::table::columns::Row;
use crate::table::rows::{AcrossRow, CompareRow, ConversionRow, FitRow, GridRow, SimilarityRow, SpectrumRow, SummaryRow};

/// Rounding may carry φ this far beyond its ends.
const SLACK: f64 = 1e-9;
/// A grid of adapters has this many cells at most for each row, and a small one any number.
const CELLS_A_ROW: usize = 64;
const SMALL_GRID: usize = 1 << 20;

/// A column's name, and its value.
type Column<R> = (&'static str, fn(&R) -> Option<f64>);

pub(super) fn summary(table: &TableFile<SummaryRow>) -> Result<()> {
    once(table, |r| (&r.adapter, &r.module, r.matrix, r.side, r.i, r.j))?;
    let columns: [Column<SummaryRow>; 8] = [
        ("phi_mean", |r| r.phi_mean),
        ("phi_min", |r| r.phi_min),
        ("phi_max", |r| r.phi_max),
        ("gaussian_expected", |r| r.gaussian_expected),
        ("gaussian_mean", |r| r.gaussian_mean),
        ("w0_mean", |r| r.w0_mean),
        ("w0_sd", |r| r.w0_sd),
        ("init_mean", |r| r.init_mean),
    ];
    from_0_to_1(table, &columns)
}

/// Every grid has its average, and every average a grid with as many layers as it counts.
pub(super) fn belong_together(summary: &TableFile<SummaryRow>, similarity: &TableFile<SimilarityRow>) -> Result<()> {
    let averages: HashSet<_> = summary.rows.iter().map(|r| (&r.adapter, &r.module, r.matrix, r.side, r.i, r.j)).collect();
    // How many layers have a φ with themselves.
    let mut grids: HashMap<_, usize> = HashMap::new();
    for (index, r) in similarity.rows.iter().enumerate() {
        let key = (&r.adapter, &r.module, r.matrix, r.side, r.i, r.j);
        if !averages.contains(&key) {
            let what = format!(": {}", grid_name(r));
            return Err(similarity.error(index, &what, format!("its average in {}", summary.name), "none"));
        }
        *grids.entry(key).or_default() += usize::from(r.layer_a == r.layer_b && r.phi.is_some());
    }
    for (index, r) in summary.rows.iter().enumerate() {
        let found = grids.get(&(&r.adapter, &r.module, r.matrix, r.side, r.i, r.j)).copied().unwrap_or(0);
        if found != r.layers {
            let expected = format!("the {found} that have a φ in {}", similarity.name);
            return Err(summary.error(index, ", column `layers`", expected, format!("`{}`", r.layers)));
        }
    }
    Ok(())
}

pub(super) fn similarity(table: &TableFile<SimilarityRow>) -> Result<()> {
    once(table, |r| (&r.adapter, &r.module, r.matrix, r.side, r.i, r.j, r.layer_a, r.layer_b))?;
    let columns: [Column<SimilarityRow>; 6] = [
        ("phi", |r| r.phi),
        ("gaussian_mean", |r| r.gaussian_mean),
        ("gaussian_sd", |r| r.gaussian_sd),
        ("w0_mean", |r| r.w0_mean),
        ("w0_sd", |r| r.w0_sd),
        ("init", |r| r.init),
    ];
    from_0_to_1(table, &columns)?;
    // Each pair is there once, so as many rows as pairs are all pairs.
    let mut grids: HashMap<_, (usize, usize, BTreeSet<u32>)> = HashMap::new();
    for (index, r) in table.rows.iter().enumerate() {
        let grid = grids.entry((&r.adapter, &r.module, r.matrix, r.side, r.i, r.j)).or_insert((index, 0, BTreeSet::new()));
        grid.1 += 1;
        grid.2.extend([r.layer_a, r.layer_b]);
    }
    let incomplete = grids.into_values().filter(|(_, count, layers)| layers.len().saturating_mul(layers.len()) != *count);
    let Some((index, count, layers)) = incomplete.min_by_key(|grid| grid.0) else { return Ok(()) };
    let r = &table.rows[index];
    let what = format!(" on: {}", grid_name(r));
    let pairs = layers.len().saturating_mul(layers.len());
    let expected = format!("all {pairs} ordered pairs of its {} layers", layers.len());
    Err(table.error(index, &what, expected, format!("{count} rows")))
}

fn grid_name(r: &SimilarityRow) -> String {
    let (module, adapter) = (escape(&r.module), escape(&r.adapter));
    format!("module `{module}`, {}, {}, i = {}, j = {} of adapter `{adapter}`", r.matrix, r.side, r.i, r.j)
}

pub(super) fn conversion(table: &TableFile<ConversionRow>) -> Result<()> {
    once(table, |r| (&r.adapter, &r.module, r.layer))
}

pub(super) fn spectrum(table: &TableFile<SpectrumRow>) -> Result<()> {
    once(table, |r| (&r.adapter, &r.module, r.matrix, r.layer, r.k))?;
    let mut spectra: HashMap<_, usize> = HashMap::new();
    for (index, r) in table.rows.iter().enumerate() {
        if r.sigma < 0.0 {
            return Err(table.error(index, ", column `sigma`", "a number from 0", format!("`{:?}`", r.sigma)));
        }
        *spectra.entry((&r.adapter, &r.module, r.matrix, r.layer)).or_default() += 1;
    }
    for (index, r) in table.rows.iter().enumerate() {
        // Each k is there once, so none above their number leaves no gap.
        let count = spectra.get(&(&r.adapter, &r.module, r.matrix, r.layer)).copied().unwrap_or(0);
        if r.k == 0 || r.k > count {
            let expected = format!("the numbers 1 to {count} of this matrix's {count} values");
            return Err(table.error(index, ", column `k`", expected, format!("`{}`", r.k)));
        }
    }
    Ok(())
}

pub(super) fn across(table: &TableFile<AcrossRow>) -> Result<()> {
    let group = |r: &AcrossRow| (r.layer, r.matrix, r.side, r.i, r.j);
    once(table, |r| (&r.module, group(r), &r.adapter_a, &r.adapter_b))?;
    from_0_to_1(table, &[("phi", |r| r.phi), ("gaussian_expected", |r| r.gaussian_expected)])?;
    let there: HashSet<_> = table.rows.iter().map(|r| (&r.module, group(r), &r.adapter_a, &r.adapter_b)).collect();
    let mut grids: HashMap<_, (usize, BTreeSet<&str>)> = HashMap::new();
    for (index, r) in table.rows.iter().enumerate() {
        for (a, b) in [(&r.adapter_b, &r.adapter_a), (&r.adapter_a, &r.adapter_a)] {
            if !there.contains(&(&r.module, group(r), a, b)) {
                let expected = format!("a row of `{}` and `{}` beside it", escape(a), escape(b));
                return Err(table.error(index, ": pair of adapters", expected, "none"));
            }
        }
        let grid = grids.entry((&r.module, r.matrix, r.side, r.i, r.j)).or_default();
        grid.0 += 1;
        grid.1.extend([r.adapter_a.as_str(), r.adapter_b.as_str()]);
    }
    let cells = |adapters: &BTreeSet<&str>| adapters.len().saturating_mul(adapters.len());
    let too_large =
        |(rows, adapters): &&(usize, BTreeSet<&str>)| cells(adapters) > SMALL_GRID && cells(adapters) / CELLS_A_ROW > *rows;
    match grids.values().find(too_large) {
        None => Ok(()),
        Some((rows, adapters)) => Err(Error::Resource {
            what: format!("{}: a grid of {} adapters", crate::error::show_path(&table.path), adapters.len()),
            expected: format!("at most {CELLS_A_ROW} cells for each row"),
            found: format!("{} cells for {rows} rows", cells(adapters)),
            hint: Some("choose adapters with --adapters".into()),
        }),
    }
}

/// Every number of vectors of one layer with every number of the other.
pub(super) fn grid(table: &TableFile<GridRow>) -> Result<()> {
    once(table, |r| (&r.adapter, &r.module, r.matrix, r.side, r.layer_a, r.layer_b, r.i, r.j))?;
    from_0_to_1(table, &[("phi", |r| r.phi), ("gaussian_expected", |r| r.gaussian_expected)])?;
    let mut grids: HashMap<_, (usize, usize, usize)> = HashMap::new();
    for r in &table.rows {
        let (rows, most_i, most_j) = grids.entry((&r.adapter, &r.module, r.matrix, r.side, r.layer_a, r.layer_b)).or_default();
        (*rows, *most_i, *most_j) = (*rows + 1, r.i.max(*most_i), r.j.max(*most_j));
    }
    for (index, r) in table.rows.iter().enumerate() {
        let key = (&r.adapter, &r.module, r.matrix, r.side, r.layer_a, r.layer_b);
        let (rows, most_i, most_j) = grids.get(&key).copied().unwrap_or_default();
        // Each is there once, so as many rows as cells are all cells; and a strip is no square.
        let (cells, square) = (most_i.saturating_mul(most_j), most_i.max(most_j).saturating_mul(most_i.max(most_j)));
        let too_large = square > SMALL_GRID && square / CELLS_A_ROW > rows;
        if r.i == 0 || r.j == 0 || cells != rows || too_large {
            let expected = format!("i from 1 to {most_i} with j from 1 to {most_j}, each once");
            return Err(table.error(
                index,
                ", columns `i` and `j`",
                expected,
                format!("`{}` and `{}` in one of {rows} rows", r.i, r.j),
            ));
        }
    }
    Ok(())
}

pub(super) fn compare(table: &TableFile<CompareRow>) -> Result<()> {
    once(table, |r| (&r.module, r.layer, r.matrix, r.side, r.i, r.j))?;
    let columns: [Column<CompareRow>; 4] =
        [("phi", |r| r.phi), ("gaussian_expected", |r| r.gaussian_expected), ("w0_mean", |r| r.w0_mean), ("w0_sd", |r| r.w0_sd)];
    from_0_to_1(table, &columns)?;
    let Some(first) = table.rows.first() else { return Ok(()) };
    match table.rows.iter().position(|r| (&r.left, &r.right) != (&first.left, &first.right)) {
        None => Ok(()),
        Some(index) => {
            let pair = |r: &CompareRow| format!("`{}` and `{}`", escape(&r.left), escape(&r.right));
            Err(table.error(index, ": adapters", format!("{}, as in the first row", pair(first)), pair(&table.rows[index])))
        }
    }
}

pub(super) fn fit(table: &TableFile<FitRow>) -> Result<()> {
    once(table, |r| (&r.module, r.matrix, &r.layer))?;
    let columns: [Column<FitRow>; 3] =
        [("residual", |r| r.residual), ("residual_expected", |r| r.residual_expected), ("residual_sd", |r| r.residual_sd)];
    // One layer's may be above 1 where that spares the others more.
    within(table, &columns, f64::MAX, "a number from 0")?;
    let is_layer = |layer: &str| layer.is_empty() || layer == FitRow::ALL || layer.parse::<u32>().is_ok();
    match table.rows.iter().position(|r| !is_layer(&r.layer)) {
        None => Ok(()),
        Some(index) => {
            let found = format!("`{}`", escape(&table.rows[index].layer));
            Err(table.error(index, ", column `layer`", format!("a whole number from 0, or `{}`", FitRow::ALL), found))
        }
    }
}

/// No two rows are about the same thing.
fn once<'t, R: Row, K: Eq + Hash>(table: &'t TableFile<R>, key: impl Fn(&'t R) -> K) -> Result<()> {
    let mut seen: HashMap<K, usize> = HashMap::with_capacity(table.rows.len());
    for (index, row) in table.rows.iter().enumerate() {
        match seen.entry(key(row)) {
            Entry::Vacant(free) => drop(free.insert(index)),
            Entry::Occupied(before) => {
                return Err(table.error(index, "", "each row once", format!("what {} has already", table.place(*before.get()))));
            }
        }
    }
    Ok(())
}

fn from_0_to_1<R: Row>(table: &TableFile<R>, columns: &[Column<R>]) -> Result<()> {
    within(table, columns, 1.0 + SLACK, "a number from 0 to 1")
}

fn within<R: Row>(table: &TableFile<R>, columns: &[Column<R>], most: f64, expected: &str) -> Result<()> {
    for (index, row) in table.rows.iter().enumerate() {
        for (name, value) in columns {
            if let Some(value) = value(row).filter(|value| !(-SLACK..=most).contains(value)) {
                return Err(table.error(index, &format!(", column `{name}`"), expected, format!("`{value:?}`")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<R: Row>(text: &str, check: impl Fn(&TableFile<R>) -> Result<()>) -> String {
        let error = check(&TableFile::of(text).unwrap()).unwrap_err();
        assert!([4, 8].contains(&error.exit_code()));
        error.to_string()
    }

    const SIMILARITY: &str = "adapter,module,matrix,side,i,j,layer_a,layer_b,phi,phi_error_bound,gaussian_mean,gaussian_sd,w0_mean,\
        w0_sd,init,status\n";

    fn pairs(layers: &[u32], leave_out: usize) -> String {
        let all = layers.iter().flat_map(|a| layers.iter().map(move |b| (a, b)));
        let rows = all.skip(leave_out).map(|(a, b)| format!("x,q,A,left,8,8,{a},{b},0.5,,,,,,,ok\n"));
        SIMILARITY.to_owned() + &rows.collect::<String>()
    }

    #[test]
    fn a_grid_needs_all_its_pairs() {
        let whole = TableFile::of(&pairs(&[0, 7, 4_000_000_000], 0)).unwrap();
        similarity(&whole).unwrap();
        assert_eq!(
            refused(&pairs(&[0, 7, 4_000_000_000], 1), similarity),
            "similarity.csv: line 2 on: module `q`, A, left, i = 8, j = 8 of adapter `x`; expected all 9 ordered pairs of its 3 \
             layers, found 8 rows"
        );
        let two = SIMILARITY.to_owned() + "x,q,A,left,8,8,0,1,0.5,,,,,,,ok\nx,q,A,left,8,8,4000000000,2,0.5,,,,,,,ok\n";
        assert!(refused(&two, similarity).contains("all 16 ordered pairs of its 4 layers, found 2 rows"));
    }

    #[test]
    fn a_grid_has_an_average_and_an_average_a_grid() {
        let head = "adapter,module,matrix,side,i,j,layers,phi_mean,phi_min,phi_max,gaussian_expected,gaussian_mean,gaussian_sd,\
            w0_mean,w0_sd,w0_z,w0_p,init_mean,status\n";
        let average = |module: &str, layers: usize| format!("x,{module},A,left,8,8,{layers},,,,,,,,,,,,ok\n");
        let together = |averages: &str, grid: &str| {
            let summary = TableFile::of(&format!("{head}{averages}")).unwrap();
            belong_together(&summary, &TableFile::of(grid).unwrap()).map_err(|error| error.to_string())
        };
        let grid = pairs(&[0, 1], 0);
        together(&(average("q", 2) + &average("pooler", 0)), &grid).unwrap();
        let missing = "similarity.csv: line 2: module `q`, A, left, i = 8, j = 8 of adapter `x`; expected its average in summary.csv, found none";
        assert_eq!(together(&average("pooler", 0), &grid).unwrap_err(), missing);
        let missing = "summary.csv: line 3, column `layers`; expected the 0 that have a φ in similarity.csv, found `6`";
        assert_eq!(together(&(average("q", 2) + &average("v", 6)), &grid).unwrap_err(), missing);
    }

    #[test]
    fn rows_are_there_once_and_phi_is_none_but_a_share() {
        let one = pairs(&[3], 0);
        let twice = one.clone() + "x,q,A,left,8,8,3,3,0.25,,,,,,,ok\n";
        assert_eq!(refused(&twice, similarity), "similarity.csv: line 3; expected each row once, found what line 2 has already");
        let large = one.replace("0.5", "1e300");
        assert_eq!(
            refused(&large, similarity),
            "similarity.csv: line 2, column `phi`; expected a number from 0 to 1, found `1e300`"
        );
        similarity(&TableFile::of(&one.replace("0.5", "1.0000000001")).unwrap()).unwrap();
    }

    #[test]
    fn singular_values_are_counted_from_1_without_a_gap() {
        let table = |rows: &str| format!("adapter,module,matrix,layer,k,sigma\n{rows}");
        spectrum(&TableFile::of(&table("x,q,A,0,2,0.5\nx,q,A,0,1,2.0\nx,q,A,,1,0.0\n")).unwrap()).unwrap();
        let gap = refused(&table("x,q,A,0,1,2.0\nx,q,A,0,9000000000,0.5\n"), spectrum);
        assert!(
            gap.ends_with("line 3, column `k`; expected the numbers 1 to 2 of this matrix's 2 values, found `9000000000`"),
            "{gap}"
        );
        assert!(refused(&table("x,q,A,0,0,2.0\n"), spectrum).contains("`0`"));
        assert!(refused(&table("x,q,A,0,1,-2.0\n"), spectrum).contains("column `sigma`; expected a number from 0, found `-2.0`"));
    }

    #[test]
    fn a_grid_of_adapters_is_bounded_by_its_rows() {
        let table = |rows: &str| format!("module,layer,matrix,side,i,j,adapter_a,adapter_b,phi,gaussian_expected,status\n{rows}");
        let alone = |n: usize| (0..n).map(|k| format!("q,{k},A,left,8,8,a{k},a{k},1.0,,ok\n")).collect::<String>();
        across(&TableFile::of(&table(&alone(1024))).unwrap()).unwrap();
        let error = across(&TableFile::of(&table(&alone(1025))).unwrap()).unwrap_err();
        assert_eq!(error.exit_code(), 8, "{error}");
        let half = refused(&table("q,0,A,left,8,8,a,a,1.0,,ok\nq,0,A,left,8,8,a,b,0.5,,ok\n"), across);
        assert!(half.contains("line 3: pair of adapters; expected a row of `b` and `a` beside it, found none"), "{half}");
    }

    #[test]
    fn a_fit_is_of_layers_and_a_comparison_of_one_pair() {
        let table = |layer: &str| {
            format!("module,matrix,layer,residual,residual_expected,residual_sd,p,status\nq,A,{layer},0.5,0.5,0.1,0.5,ok\n")
        };
        for good in ["0", "all", "", "4294967295"] {
            fit(&TableFile::of(&table(good)).unwrap()).unwrap();
        }
        for bad in ["-1", "All", "4294967296", "1.0"] {
            assert!(refused(&table(bad), fit).contains("line 2, column `layer`; expected a whole number from 0, or `all`"));
        }
        let head = "left,right,module,layer,matrix,side,i,j,phi,gaussian_expected,w0_mean,w0_sd,w0_p,status\n";
        let rows = "a,b,q,0,A,right,8,8,0.5,,,,,ok\na,c,q,1,A,right,8,8,0.5,,,,,ok\n";
        assert!(
            refused(&format!("{head}{rows}"), compare).contains("line 3: adapters; expected `a` and `b`, as in the first row")
        );
    }
}
