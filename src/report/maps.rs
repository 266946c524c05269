//! The heatmaps of the page: φ of each pair of layers, with what is known about it for hover and focus.
//!
//! Few layers make a table whose cells are numbers; more make a picture. The script reads both from the same numbers. How much
//! of a large study is drawn is bounded by [`ADAPTERS_DRAWN`], [`MOST_CELLS_READ`] and [`MOST_CELLS_DRAWN`].

use serde::Serialize;

use super::text::{self, MatrixLabel};
use crate::error::Result;
use crate::figure::FigureContext;
use crate::figure::embedded::{cells_picture, colour_step, data_uri, end_of_scale, layer_names, layer_numbers, overview_svg};
use crate::table::gather;
use crate::table::{SimilarityRow, SummaryRow, Tables};
use crate::terms::{LayerId, Status};

/// Only the first adapters of a study are drawn.
pub(super) const ADAPTERS_DRAWN: usize = 8;
/// The largest number of cells, over all maps, with readable numbers; a map that would exceed it is only a picture.
pub(super) const MOST_CELLS_READ: usize = 150_000;
/// The largest number of cells that are drawn, over all maps.
pub(super) const MOST_CELLS_DRAWN: usize = 600_000;
/// Overviews stop when they hold more bytes than this.
const MOST_OVERVIEW_BYTES: usize = 1 << 20;
/// Up to this many layers a map is a table of numbers.
const MOST_LAYERS_AS_TABLE: usize = 24;

/// The maps of the adapters that are drawn.
#[derive(Debug, Serialize)]
pub(super) struct MapsView {
    adapters: Vec<AdapterMaps>,
    /// What was left out, and where it is.
    note: Option<String>,
    #[serde(skip)]
    pub(super) data: Vec<MapData>,
}

#[derive(Debug, Serialize)]
struct AdapterMaps {
    name: String,
    /// The overview figure's address.
    overview: Option<String>,
    overview_alt: String,
    end: String,
    chance: Option<String>,
    maps: Vec<MapView>,
}

#[derive(Debug, Serialize)]
struct MapView {
    /// Its place in the numbers for the script; none for a map that is only a picture.
    index: Option<usize>,
    module: String,
    matrix: MatrixLabel,
    side: &'static str,
    i: usize,
    j: usize,
    mean: Option<String>,
    layers: Vec<LayerId>,
    /// The layers as columns are headed: their indices, or their places where they are paths of blocks.
    columns: Vec<u32>,
    /// Empty where the map is a picture.
    rows: Vec<MapRow>,
    picture: Option<String>,
    alt: String,
}

#[derive(Debug, Serialize)]
struct MapRow {
    layer: String,
    cells: Vec<MapCell>,
}

#[derive(Debug, Serialize)]
struct MapCell {
    /// The style's name: a step of the scale, the diagonal or a missing value.
    class: String,
    text: String,
}

/// The numbers of one map, row after row; a column without any value is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct MapData {
    layers: Vec<LayerId>,
    /// Whether only cells with layer_a ≤ layer_b are listed: the others are the same.
    half: bool,
    phi: Vec<Option<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<Vec<Option<f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gaussian: Option<Vec<Option<f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gaussian_sd: Option<Vec<Option<f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    w0: Option<Vec<Option<f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    w0_sd: Option<Vec<Option<f64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<Vec<Option<f64>>>,
    /// Left out where every cell is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Vec<&'static str>>,
}

/// All rows of one map, in a square.
struct Square<'r> {
    first: &'r SimilarityRow,
    layers: Vec<LayerId>,
    cells: Vec<Option<&'r SimilarityRow>>,
}

impl MapsView {
    /// Draws what the bounds allow, in table order.
    pub(super) fn of(tables: &Tables, context: &FigureContext<'_>) -> Result<Self> {
        let mut names: Vec<&str> = tables.similarity.iter().map(|row| row.adapter.as_str()).collect();
        names.dedup();
        let mut left =
            Left { read: MOST_CELLS_READ, drawn: MOST_CELLS_DRAWN, overview: MOST_OVERVIEW_BYTES, skipped: 0, unread: 0 };
        let mut data = Vec::new();
        let mut adapters = Vec::new();
        for name in names.iter().take(ADAPTERS_DRAWN) {
            adapters.push(AdapterMaps::of(name, tables, context, &mut left, &mut data)?);
        }
        let mut notes = Vec::new();
        if names.len() > ADAPTERS_DRAWN {
            notes.push(format!("Drawn here are the first {ADAPTERS_DRAWN} of {} adapters.", text::thousands(names.len())));
        }
        if left.unread > 0 {
            notes.push(format!("{} are pictures alone, without numbers to read.", text::count(left.unread, "map")));
        }
        if left.skipped > 0 {
            notes.push(format!("{} are not drawn here.", text::count(left.skipped, "map")));
        }
        let note = (!notes.is_empty()).then(|| format!("{} All numbers are in the table similarity.", notes.join(" ")));
        Ok(Self { adapters, note, data })
    }
}

/// What is left of the bounds, and how many maps exceeded them.
struct Left {
    read: usize,
    drawn: usize,
    overview: usize,
    skipped: usize,
    unread: usize,
}

impl AdapterMaps {
    fn of(adapter: &str, tables: &Tables, context: &FigureContext<'_>, left: &mut Left, data: &mut Vec<MapData>) -> Result<Self> {
        let summary: Vec<&SummaryRow> = tables.summary.iter().filter(|row| row.adapter == adapter).collect();
        let squares = squares(tables.similarity.iter().filter(|row| row.adapter == adapter));
        let drawn_squares: Vec<&Square<'_>> = squares
            .iter()
            .filter(|square| {
                let fits = square.cells.len() <= left.drawn;
                if fits {
                    left.drawn -= square.cells.len();
                } else {
                    left.skipped += 1;
                }
                fits
            })
            .collect();
        let end = end_of_scale(squares.iter().filter_map(Square::largest).reduce(f64::max));
        let mut maps = Vec::with_capacity(drawn_squares.len());
        for square in drawn_squares {
            let index = (square.cells.len() <= left.read).then_some(data.len());
            if index.is_some() {
                left.read -= square.cells.len();
                data.push(square.data());
            } else {
                left.unread += 1;
            }
            maps.push(MapView::of(square, &summary, index, end)?);
        }
        let overview = if left.overview == 0 { None } else { overview_svg(tables, context, adapter)? };
        left.overview = left.overview.saturating_sub(overview.as_ref().map_or(0, Vec::len));
        let chance = summary.iter().find_map(|row| row.gaussian_expected.filter(|chance| *chance < end));
        Ok(Self {
            name: text::visible(adapter),
            overview: overview.map(|svg| data_uri("image/svg+xml", &svg)),
            overview_alt: "Heatmaps of all modules: observed φ, the w0 control, the gaussian control, and their difference in \
                           standard deviations. The numbers are in the tables below."
                .to_owned(),
            end: text::phi(end),
            chance: chance.map(text::phi),
            maps,
        })
    }
}

/// Gathers an adapter's rows, in table order.
fn squares<'r>(rows: impl IntoIterator<Item = &'r SimilarityRow>) -> Vec<Square<'r>> {
    let groups = gather(rows, |row| row.view());
    groups.into_iter().filter_map(|(_, rows)| Square::of(rows)).collect()
}

impl<'r> Square<'r> {
    fn of(rows: Vec<&'r SimilarityRow>) -> Option<Self> {
        let first = *rows.first()?;
        let mut layers: Vec<LayerId> = rows.iter().flat_map(|row| [row.layer_a.clone(), row.layer_b.clone()]).collect();
        layers.sort_unstable();
        layers.dedup();
        let mut cells = vec![None; layers.len() * layers.len()];
        for row in rows {
            if let (Ok(a), Ok(b)) = (layers.binary_search(&row.layer_a), layers.binary_search(&row.layer_b)) {
                cells[a * layers.len() + b] = Some(row);
            }
        }
        Some(Self { first, layers, cells })
    }

    fn phi(&self) -> impl Iterator<Item = Option<f64>> {
        self.cells.iter().map(|cell| cell.and_then(|row| row.phi).filter(|phi| phi.is_finite()))
    }

    /// The largest off-diagonal φ.
    fn largest(&self) -> Option<f64> {
        self.off_diagonal().reduce(f64::max)
    }

    fn off_diagonal(&self) -> impl Iterator<Item = f64> {
        let n = self.layers.len();
        self.phi().enumerate().filter(move |(k, _)| k / n != k % n).filter_map(|(_, phi)| phi)
    }

    /// The numbers for the script.
    fn data(&self) -> MapData {
        let n = self.layers.len();
        let half = (0..n * n).all(|k| same(self.cells[k], self.cells[k % n * n + k / n]));
        let cells: Vec<Option<&SimilarityRow>> =
            self.cells.iter().enumerate().filter(|(k, _)| !half || k / n <= k % n).map(|(_, cell)| *cell).collect();
        let column = |field: fn(&SimilarityRow) -> Option<f64>, digits: usize| -> Vec<Option<f64>> {
            cells.iter().map(|cell| cell.and_then(field).and_then(|value| rounded(value, digits))).collect()
        };
        let some = |field: fn(&SimilarityRow) -> Option<f64>, digits: usize| {
            Some(column(field, digits)).filter(|values| values.iter().any(Option::is_some))
        };
        let status: Vec<&'static str> = cells.iter().map(|cell| cell.map_or("", |row| row.status.name())).collect();
        MapData {
            layers: self.layers.clone(),
            half,
            phi: column(|row| row.phi, 6),
            bound: some(|row| row.phi_error_bound, 2),
            gaussian: some(|row| row.gaussian_mean, 5),
            gaussian_sd: some(|row| row.gaussian_sd, 3),
            w0: some(|row| row.w0_mean, 5),
            w0_sd: some(|row| row.w0_sd, 3),
            init: some(|row| row.init, 5),
            status: Some(status).filter(|all| all.iter().any(|status| *status != Status::Ok.name())),
        }
    }
}

/// Whether two cells say the same in the digits that are shown.
fn same(one: Option<&SimilarityRow>, other: Option<&SimilarityRow>) -> bool {
    let numbers = |row: &SimilarityRow| {
        [
            (row.phi, 6),
            (row.phi_error_bound, 2),
            (row.gaussian_mean, 5),
            (row.gaussian_sd, 3),
            (row.w0_mean, 5),
            (row.w0_sd, 3),
            (row.init, 5),
        ]
        .map(|(value, digits)| value.and_then(|value| rounded(value, digits)))
    };
    match (one, other) {
        (Some(one), Some(other)) => one.status == other.status && numbers(one) == numbers(other),
        (None, None) => true,
        _ => false,
    }
}

/// A value rounded to this many significant digits.
fn rounded(value: f64, digits: usize) -> Option<f64> {
    format!("{value:.*e}", digits.saturating_sub(1)).parse().ok().filter(|value: &f64| value.is_finite())
}

impl MapView {
    fn of(square: &Square<'_>, summary: &[&SummaryRow], index: Option<usize>, end: f64) -> Result<Self> {
        let Square { first, layers, .. } = square;
        let n = layers.len();
        let phi: Vec<Option<f64>> = square.phi().collect();
        let mean = summary.iter().find(|row| row.view() == first.view()).and_then(|row| row.phi_mean);
        let as_table = n <= MOST_LAYERS_AS_TABLE && index.is_some();
        let cell = |k: usize| match phi[k] {
            None => MapCell { class: "m".to_owned(), text: "\u{2013}".to_owned() },
            Some(value) if k / n == k % n => MapCell { class: "d".to_owned(), text: two_decimals(value) },
            Some(value) => MapCell { class: format!("v{}", colour_step(value, end)), text: two_decimals(value) },
        };
        let (columns, names) = (layer_numbers(layers), layer_names(layers));
        let name = |a: usize| match &names {
            Some(names) => format!("{} {}", columns[a], text::visible(&names[a])),
            None => columns[a].to_string(),
        };
        let row = |a: usize| MapRow { layer: name(a), cells: (0..n).map(|b| cell(a * n + b)).collect() };
        let range = square.off_diagonal().fold(None, |range: Option<(f64, f64)>, value| {
            Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let alt = match range {
            Some((low, high)) => format!("Heatmap of {n} by {n} layers: off-diagonal φ from {low:.4} to {high:.4}."),
            None => format!("Heatmap of {n} by {n} layers without an off-diagonal value."),
        };
        Ok(Self {
            index,
            module: text::visible(&first.module),
            matrix: MatrixLabel::of(first.matrix),
            side: first.side.name(),
            i: first.i,
            j: first.j,
            mean: mean.map(text::phi),
            rows: if as_table { (0..n).map(row).collect() } else { Vec::new() },
            picture: if as_table { None } else { Some(data_uri("image/png", &cells_picture(&phi, n, end)?)) },
            columns: layer_numbers(layers),
            layers: layers.clone(),
            alt,
        })
    }
}

/// `.05`, `1.0`: as wide as the others.
fn two_decimals(value: f64) -> String {
    let text = format!("{value:.2}");
    match text.strip_prefix('0') {
        Some(rest) => rest.to_owned(),
        None => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{MatrixKind, Side};

    fn cell(layer_a: u32, layer_b: u32, phi: Option<f64>) -> SimilarityRow {
        SimilarityRow {
            adapter: "a".into(),
            module: "query".into(),
            matrix: MatrixKind::A,
            side: Side::Left,
            i: 2,
            j: 2,
            layer_a: layer_a.into(),
            layer_b: layer_b.into(),
            phi,
            phi_error_bound: Some(1.234_5e-9),
            gaussian_mean: None,
            gaussian_sd: None,
            w0_mean: Some(0.123_456_789),
            w0_sd: None,
            w0_expected: None,
            init: None,
            status: if phi.is_some() { Status::Ok } else { Status::Zero },
        }
    }

    #[test]
    fn a_symmetric_map_is_listed_by_half() {
        let rows = [cell(3, 3, Some(1.0)), cell(3, 9, Some(0.25)), cell(9, 3, Some(0.25)), cell(9, 9, None)];
        let data = squares(&rows)[0].data();
        assert!(data.half && data.layers == [3, 9]);
        assert_eq!(data.phi, [Some(1.0), Some(0.25), None]);
        assert_eq!((data.bound.unwrap()[0], data.w0.unwrap()[0]), (Some(1.2e-9), Some(0.12346)));
        assert!(data.init.is_none());
        assert_eq!(data.status.unwrap(), ["ok", "ok", "zero"]);
        let other = [cell(3, 3, Some(1.0)), cell(3, 9, Some(0.25)), cell(9, 3, Some(0.5)), cell(9, 9, Some(1.0))];
        let data = squares(&other)[0].data();
        assert!(!data.half && data.phi.len() == 4 && data.status.is_none());
    }

    #[test]
    fn many_layers_are_a_picture() {
        let rows: Vec<SimilarityRow> =
            (0..30).flat_map(|a| (0..30).map(move |b| cell(a, b, Some(if a == b { 1.0 } else { 0.1 })))).collect();
        let squares = squares(&rows);
        let map = MapView::of(&squares[0], &[], Some(0), 0.1).unwrap();
        assert!(map.rows.is_empty() && map.picture.unwrap().starts_with("data:image/png;base64,"));
        let map = MapView::of(&super::squares(&rows[..2])[0], &[], Some(0), 0.1).unwrap();
        assert_eq!(map.rows[0].cells.iter().map(|cell| cell.class.as_str()).collect::<Vec<_>>(), ["d", "v255"]);
    }
}
