//! The positions of everything in an overview.

use super::contents::{Column, Overview, PanelRow, Title};
use crate::figure::parts::layers::axis_name;
use crate::figure::parts::panel::{self, CellPanel, Labels, PanelFonts};
use crate::figure::parts::ticks::widest;
use crate::figure::scene::colour;
use crate::figure::scene::font::{self, HALF_CAP, fit, wrap};
use crate::figure::scene::{Anchor, SCALE, Scene};

const MARGIN: f64 = 14.0;
const TITLE: f64 = 14.0;
const PANEL_TITLE: f64 = 10.5;
const CAPTION: f64 = 9.5;
/// Distance between the caption's lines, in em.
const CAPTION_LINE: f64 = 1.45;
const ROW_LABEL: f64 = 11.0;
const TICK: f64 = 9.0;
const AXIS: f64 = 10.0;
/// Height of one line of a panel's titles, and the space between the last line and the panel.
const TITLE_LINE: f64 = 13.5;
const TITLE_SPACE: f64 = 5.0;
const COLUMN_GAP: f64 = 15.0;
const ROW_GAP: f64 = 11.0;
const BAR_WIDTH: f64 = 14.0;
const BAR_GAP: f64 = 16.0;
/// A panel's titles are shortened to this width, or to the panel's if that is larger.
const WIDEST_PANEL_TITLE: f64 = 190.0;
/// The page has at least the first width, so that its caption is readable, and grows up to the second for a long title.
const NARROWEST: f64 = 480.0;
const WIDEST_TITLE: f64 = 720.0;
/// Numbers are written in the cells of up to this many layers, if the cells are at least this wide.
const MOST_ANNOTATED: usize = 12;
const NARROWEST_ANNOTATED: f64 = 22.0;

/// Width of a cell and the size of its numbers.
fn cell_size(layers: usize, columns: usize) -> (f64, Option<f64>) {
    let side = match columns {
        ..=4 => 212.0,
        5..=8 => 170.0,
        _ => 132.0,
    };
    let count = layers.max(1) as f64;
    let mut cell = ((side / count).min(62.0) * SCALE).floor() / SCALE;
    if layers <= MOST_ANNOTATED && columns <= 8 {
        cell = cell.max(NARROWEST_ANNOTATED);
    }
    let annotated = layers <= MOST_ANNOTATED && cell >= NARROWEST_ANNOTATED;
    (cell.max(1.0), annotated.then(|| (0.28 * cell).clamp(8.0, 10.0)))
}

/// The position of one column.
struct ColumnPlace {
    /// Left edge of the panel.
    x: f64,
    side: f64,
}

/// The position of one row of panels.
struct RowPlace {
    row: PanelRow,
    /// Upper edge of the panels.
    y: f64,
    title_lines: usize,
}

/// Builds the scene.
pub(super) fn lay_out(overview: &Overview<'_>) -> Scene {
    let columns = &overview.columns;
    let layers = columns.iter().map(|c| c.observed.n).max().unwrap_or(1);
    let (cell, cell_font) = cell_size(layers, columns.len());
    let fonts = PanelFonts { cell: cell_font, tick: TICK, title: AXIS };

    // From left to right: row labels, columns, colour bars.
    let labels_width = ROW_LABEL + 8.0;
    let (column_places, columns_width) = place_columns(overview, cell, fonts);
    let tallest = layers as f64 * cell;
    let bands_space = |lines: usize| lines as f64 * TITLE_LINE + TITLE_SPACE;
    let below = panel::bottom_space(Labels::Layers(&[]), fonts, false) + ROW_GAP;

    // From top to bottom, starting at 0: the rows. They are moved below the title at the end.
    let mut row_places: Vec<RowPlace> = Vec::new();
    let mut y = 0.0;
    for &row in &overview.rows {
        let title_lines = columns.iter().map(|c| c.titles(row, overview.phi_differs).len()).max().unwrap_or(0);
        y += bands_space(title_lines);
        row_places.push(RowPlace { row, y, title_lines });
        y += tallest + below;
    }
    let bands_height = y - ROW_GAP + 5.0 + AXIS;

    let sequential: Vec<&RowPlace> = row_places.iter().filter(|row_place| row_place.row != PanelRow::Deviation).collect();
    let (from, to) = (sequential.first().map_or(0.0, |b| b.y), sequential.last().map_or(0.0, |b| b.y) + tallest);
    let mut bars = vec![(overview.sequential_bar(to - from, TICK + 0.5, BAR_WIDTH), from)];
    if let Some(last) = row_places.iter().find(|row_place| row_place.row == PanelRow::Deviation) {
        bars.push((overview.diverging_bar(tallest, TICK + 0.5, BAR_WIDTH), last.y));
    }
    let bar_left = bars.iter().map(|(bar, _)| bar.left_space()).fold(0.0, f64::max);
    let bar_right = bars.iter().map(|(bar, _)| bar.right_space()).fold(0.0, f64::max);
    let content = labels_width + columns_width + BAR_GAP + bar_left + BAR_WIDTH + bar_right;
    let room = content.max(NARROWEST).max(overview.title.width().min(WIDEST_TITLE));
    let caption = wrap(&overview.caption(), CAPTION, room);

    let top = MARGIN + 2.0 * HALF_CAP * TITLE + 14.0;
    let caption_top = top + bands_height + 12.0;
    let height = caption_top + (caption.len() as f64 * CAPTION_LINE - 0.4) * CAPTION + MARGIN;
    let title = overview.title.within(room);
    let mut scene = Scene::new(room + 2.0 * MARGIN, height, title.clone());
    scene.text(MARGIN + room / 2.0, MARGIN + 2.0 * HALF_CAP * TITLE, TITLE, Anchor::Middle, colour::INK, title);

    let left = MARGIN + (room - content) / 2.0;
    for row_place in &row_places {
        let y = top + row_place.y;
        let (label_size, middle) = row_label(row_place, tallest, below);
        scene.text_upwards(left + ROW_LABEL / 2.0, y + middle, label_size, Anchor::Middle, colour::INK, row_place.row.label());
        for (column, place) in columns.iter().zip(&column_places) {
            let x = left + labels_width + place.x;
            titles(&mut scene, overview, column, row_place, (x + place.side / 2.0, y), place.side);
            let panel = CellPanel {
                x,
                y,
                cell,
                labels: Labels::Layers(&column.group.numbers),
                paints: overview.paints(column, row_place.row, cell_font.is_some()),
                fonts,
                x_title: (Some(&row_place.row) == overview.rows.last()).then_some(axis_name(&column.group.layers)),
                y_title: std::ptr::eq(column, &columns[0]).then_some(axis_name(&column.group.layers)),
            };
            panel.draw(&mut scene);
            if overview.struck && row_place.row != PanelRow::Deviation {
                panel::strike_diagonal(&mut scene, (x, y), place.side);
            }
        }
    }
    for (mut bar, y) in bars {
        bar.x = left + labels_width + columns_width + BAR_GAP + bar_left;
        bar.y = top + y;
        bar.draw(&mut scene);
    }
    for (k, line) in caption.into_iter().enumerate() {
        let baseline = caption_top + (k as f64 * CAPTION_LINE + 2.0 * HALF_CAP) * CAPTION;
        scene.text(MARGIN, baseline, CAPTION, Anchor::Start, colour::SOFT_INK, line);
    }
    scene
}

/// The positions of the columns' panels, starting at 0, and the width of all together.
fn place_columns(overview: &Overview<'_>, cell: f64, fonts: PanelFonts) -> (Vec<ColumnPlace>, f64) {
    let mut column_places = Vec::new();
    let mut x = 0.0;
    // The right end of the titles and cells so far.
    let mut reached = f64::NEG_INFINITY;
    for (k, column) in overview.columns.iter().enumerate() {
        let side = cell * column.observed.n as f64;
        let titles = overview.rows.iter().flat_map(|row| column.titles(*row, overview.phi_differs)).collect::<Vec<_>>();
        let title = widest(titles.iter().map(String::as_str), PANEL_TITLE).min(title_room(side));
        let overhang = ((title - side) / 2.0).max(0.0);
        let axis = panel::left_space(Labels::Layers(&column.group.numbers), fonts, k == 0);
        x = if k == 0 { axis.max(overhang) } else { (x + COLUMN_GAP + axis).max(reached + COLUMN_GAP + overhang) };
        column_places.push(ColumnPlace { x, side });
        x += side;
        reached = x + overhang;
    }
    (column_places, x.max(reached))
}

fn title_room(side: f64) -> f64 {
    side.max(WIDEST_PANEL_TITLE)
}

/// Font size and middle (from the panel's upper edge) of a row's label. It is centred on the panel, or on the whole row with its
/// titles if the panel is too short for it.
fn row_label(row_place: &RowPlace, panel: f64, below: f64) -> (f64, f64) {
    let length = font::width(row_place.row.label(), ROW_LABEL);
    if length <= panel {
        return (ROW_LABEL, panel / 2.0);
    }
    let above = row_place.title_lines as f64 * TITLE_LINE + TITLE_SPACE;
    let whole = panel + above + below - 4.0;
    (ROW_LABEL * (whole / length).min(1.0), (panel + below - above) / 2.0)
}

fn titles(scene: &mut Scene, overview: &Overview<'_>, column: &Column<'_>, row_place: &RowPlace, at: (f64, f64), side: f64) {
    let lines = column.titles(row_place.row, overview.phi_differs);
    let count = lines.len();
    for (k, line) in lines.into_iter().enumerate() {
        let baseline = at.1 - TITLE_SPACE - 1.5 - (count - 1 - k) as f64 * TITLE_LINE;
        scene.text(at.0, baseline, PANEL_TITLE, Anchor::Middle, colour::INK, fit(&line, PANEL_TITLE, title_room(side)));
    }
}

impl Title {
    fn width(&self) -> f64 {
        let names = font::width(&self.adapter, TITLE) + self.base.as_ref().map_or(0.0, |b| font::width(b, TITLE));
        names + font::width(" on ", TITLE) + font::width(&self.rest, TITLE)
    }

    /// `ADAPTER on BASE (r = 8): cross-layer ...` within `room`: the names are shortened first, and the end only if there is
    /// no room for any name.
    fn within(&self, room: f64) -> String {
        let base = self.base.as_ref();
        let fixed = font::width(&self.rest, TITLE) + base.map_or(0.0, |_| font::width(" on ", TITLE));
        let names = (room - fixed).max(100.0);
        let base_width = base.map_or(0.0, |name| font::width(name, TITLE));
        let adapter_room = if base.is_some() { (names - base_width).max(names / 2.0) } else { names };
        let adapter = fit(&self.adapter, TITLE, adapter_room);
        let base = base.map(|name| format!(" on {}", fit(name, TITLE, names - font::width(&adapter, TITLE))));
        fit(&format!("{adapter}{}{}", base.unwrap_or_default(), self.rest), TITLE, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_shrink_with_layers_and_columns() {
        assert_eq!(cell_size(6, 4), (35.0, Some(9.8)));
        assert_eq!(cell_size(12, 4), (22.0, Some(8.0)));
        assert_eq!(cell_size(80, 14), (1.5, None));
        assert!(cell_size(1, 2).0 <= 62.0);
        for layers in 1..200 {
            for columns in 1..20 {
                let (cell, font) = cell_size(layers, columns);
                assert!((cell * SCALE).fract() == 0.0 && cell >= 1.0);
                // The widest text of a cell is `+1.1`, 2.43 em.
                assert!(font.is_none_or(|size| 2.43 * size < cell), "{layers} layers: {cell}, {font:?}");
            }
        }
    }

    #[test]
    fn a_long_title_fits() {
        let long = "x/".repeat(200);
        let title = Title { adapter: long.clone(), base: Some(long), rest: " (r = 8): what it is".to_owned() };
        for room in [300.0, 480.0, 900.0] {
            let text = title.within(room);
            assert!(font::width(&text, TITLE) <= room);
            assert!(text.ends_with("(r = 8): what it is"), "{text}");
        }
    }
}
