//! One page for an adapter: φ of every module's Θ_A and Θ_B, and below each the same cells of the W0 and Gaussian controls.
//!
//! `contents` collects what is shown, `layout` decides where.

mod contents;
mod layout;

use std::collections::HashMap;

use self::contents::{Column, Overview, PanelRow, Title};
use crate::figure::context::FigureContext;
use crate::figure::groups::LayerSimilarity;
use crate::figure::options::{ColourMap, FigureOptions};
use crate::figure::parts::names::phi_name;
use crate::figure::parts::square::scale_end;
use crate::figure::parts::values::SquareValues;
use crate::figure::scene::Scene;
use crate::figure::scene::colour;
use crate::figure::scene::font::printable;
use crate::table::Tables;
use crate::terms::{MatrixKind, Side};

/// The diverging scale ends between these, in standard deviations of the control: a fixed lower limit keeps noise pale.
const LEAST_LIMIT: f64 = 4.0;
const MOST_LIMIT: f64 = 10.0;
/// The scene of an adapter's overview; `None` without Θ_A or Θ_B on the left side.
///
/// `groups` are those of the adapter, `ranks` its smallest and its largest rank.
pub(crate) fn scene(
    adapter: &str,
    groups: &[&LayerSimilarity<'_>],
    ranks: Option<(usize, usize)>,
    context: &FigureContext<'_>,
    options: &FigureOptions,
) -> Option<Scene> {
    let columns = columns(groups);
    let first = columns.first()?.group;
    let phi_differs = columns.iter().any(|c| (c.group.i, c.group.j) != (first.i, first.j));
    let present = |row: &PanelRow| *row == PanelRow::Observed || columns.iter().any(|column| !column.values(*row).is_empty());
    let rows: Vec<PanelRow> =
        [PanelRow::Observed, PanelRow::W0, PanelRow::Gaussian, PanelRow::Deviation].into_iter().filter(present).collect();
    let largest = columns.iter().flat_map(|c| [&c.observed, &c.w0, &c.gaussian]).filter_map(SquareValues::largest);
    let farthest = columns.iter().flat_map(|c| c.deviation.off_diagonal()).map(f64::abs).fold(0.0, f64::max);
    let overview = Overview {
        title: Title {
            adapter: printable(adapter),
            base: context.base_name.map(printable),
            rest: format!("{}: cross-layer similarity of conversion matrices", rank_range(ranks)),
        },
        phi: if phi_differs { "φ".to_owned() } else { phi_name(first.i, first.j) },
        phi_differs,
        hi: scale_end(largest.reduce(f64::max)),
        limit: farthest.ceil().clamp(LEAST_LIMIT, MOST_LIMIT),
        clipped: farthest > MOST_LIMIT,
        sequential: colour::sequential(options.colours),
        struck: options.colours == ColourMap::Greys,
        columns,
        rows,
    };
    Some(layout::lay_out(&overview))
}

/// The first (i, j) of each module and matrix, module by module.
fn columns<'a>(groups: &[&'a LayerSimilarity<'a>]) -> Vec<Column<'a>> {
    let mut modules: Vec<&str> = Vec::new();
    for group in groups {
        if !modules.contains(&group.module) {
            modules.push(group.module);
        }
    }
    let first = |module: &str, matrix: MatrixKind| {
        groups.iter().copied().find(|g| g.module == module && g.matrix == matrix && g.side == Side::Left)
    };
    modules
        .into_iter()
        .flat_map(|module| [first(module, MatrixKind::A), first(module, MatrixKind::B)])
        .flatten()
        .map(Column::new)
        .collect()
}

/// ` (r = 8)`, ` (r = 4–16)`, or nothing.
fn rank_range(ranks: Option<(usize, usize)>) -> String {
    match ranks {
        Some((least, most)) if least == most => format!(" (r = {least})"),
        Some((least, most)) => format!(" (r = {least}–{most})"),
        None => String::new(),
    }
}

/// The smallest and the largest rank of each adapter.
pub(crate) fn ranks_by_adapter(tables: &Tables) -> HashMap<&str, (usize, usize)> {
    let mut ranks: HashMap<&str, (usize, usize)> = HashMap::new();
    for row in &tables.conversion {
        let (least, most) = ranks.entry(&row.adapter).or_insert((row.rank, row.rank));
        (*least, *most) = ((*least).min(row.rank), (*most).max(row.rank));
    }
    ranks
}
