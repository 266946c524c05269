//! φ(i, j) of two layers for every pair of numbers of vectors (Hu et al. 2022, Figure 3): i from top to bottom, j from left to
//! right.

use super::kind::FigureKind;
use super::options::FigureOptions;
use super::parts::bar::Mark;
use super::parts::names::{doubt, matrix_name};
use super::parts::panel::Labels;
use super::parts::square::{SquareFigure, cell_size};
use super::parts::values::SquareValues;
use super::scene::Scene;
use super::scene::font::printable;
use crate::table::gather;
use crate::table::rows::GridRow;
use crate::terms::{LayerId, MatrixKind, Side};

/// All rows of one adapter × module × matrix × side × pair of layers.
pub(super) struct VectorGrid<'a> {
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    pub(super) matrix: MatrixKind,
    pub(super) side: Side,
    pub(super) layer_a: LayerId,
    pub(super) layer_b: LayerId,
    rows: Vec<&'a GridRow>,
}

/// Gathers the rows of `grid.csv`, in the order in which each group first appears.
pub(super) fn groups(rows: &[GridRow]) -> Vec<VectorGrid<'_>> {
    gather(rows, |row| (row.adapter.as_str(), row.module.as_str(), row.matrix, row.side, &row.layer_a, &row.layer_b))
        .into_iter()
        .map(|((adapter, module, matrix, side, layer_a, layer_b), rows)| VectorGrid {
            adapter,
            module,
            matrix,
            side,
            layer_a: layer_a.clone(),
            layer_b: layer_b.clone(),
            rows,
        })
        .collect()
}

impl VectorGrid<'_> {
    /// What the figure shows.
    pub(super) fn kind(&self) -> FigureKind {
        let (matrix, side, layer_a, layer_b) = (self.matrix, self.side, self.layer_a.clone(), self.layer_b.clone());
        FigureKind::Grid { module: self.module.to_owned(), matrix, side, layer_a, layer_b }
    }

    /// The figure.
    pub(super) fn scene(&self, options: &FigureOptions) -> Scene {
        let (values, most) = self.values();
        let numbers: Vec<u32> = (1..=u32::try_from(most).unwrap_or(u32::MAX)).collect();
        let mark = |value: f64| Mark { value, label: "chance at i = j = r".to_owned() };
        let picture = SquareFigure {
            labels: Labels::Layers(&numbers),
            cell: cell_size(most),
            tick: 10.0,
            adapter: printable(self.adapter),
            module: printable(self.module),
            what: format!(
                " · {}, {}, φ(i, j) of layers {} and {}",
                matrix_name(self.matrix),
                self.side,
                self.layer_a,
                self.layer_b
            ),
            second: self.second_line(),
            marks: self.last().and_then(|row| row.gaussian_expected).filter(|v| v.is_finite()).map(mark).into_iter().collect(),
            axis_titles: (format!("j, vectors of layer {}", self.layer_b), format!("i, vectors of layer {}", self.layer_a)),
            table: "grid.csv",
            // i = j compares two different layers, like every other cell.
            of_itself: false,
            tree: None,
            values,
        };
        picture.scene(options)
    }

    /// φ of every (i, j), in a square of the larger of the two ranks, and that rank.
    fn values(&self) -> (SquareValues, usize) {
        let most = self.rows.iter().map(|row| row.i.max(row.j)).max().unwrap_or(0);
        let mut cells = vec![None; most * most];
        for row in &self.rows {
            if let (Some(i), Some(j)) = (row.i.checked_sub(1), row.j.checked_sub(1)) {
                cells[i * most + j] = row.phi.filter(|phi| phi.is_finite());
            }
        }
        (SquareValues { n: most, cells }, most)
    }

    /// The row with all vectors of both layers.
    fn last(&self) -> Option<&GridRow> {
        self.rows.iter().copied().max_by_key(|row| (row.i, row.j))
    }

    /// `φ(1,1) 0.0312 · φ(8,8) 0.0522 · largest 0.0711 at (1,3)`, and the status if it is not ok.
    fn second_line(&self) -> String {
        let first = self.rows.iter().copied().find(|row| (row.i, row.j) == (1, 1));
        let named = |row: &GridRow| row.phi.map(|phi| format!("φ({},{}) {phi:.4}", row.i, row.j));
        let mut parts: Vec<String> = first.into_iter().chain(self.last()).filter_map(named).collect();
        parts.dedup();
        let with_phi = self.rows.iter().filter(|row| row.phi.is_some_and(f64::is_finite));
        if let Some(row) = with_phi.max_by(|x, y| x.phi.unwrap_or(0.0).total_cmp(&y.phi.unwrap_or(0.0))) {
            parts.push(format!("largest {:.4} at ({},{})", row.phi.unwrap_or(0.0), row.i, row.j));
        }
        parts.extend(doubt(self.rows.iter().map(|row| row.status)));
        parts.join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::ColourScale;
    use super::*;
    use crate::terms::Status;

    fn row(i: usize, j: usize, phi: Option<f64>) -> GridRow {
        GridRow {
            adapter: "a".into(),
            module: "query".into(),
            matrix: MatrixKind::A,
            side: Side::Left,
            layer_a: 0.into(),
            layer_b: 4.into(),
            i,
            j,
            phi,
            gaussian_expected: Some(0.1),
            status: if phi.is_some() { Status::Ok } else { Status::Rank },
        }
    }

    #[test]
    fn rows_fill_a_square_up_to_the_larger_rank() {
        // Layer 0 has two vectors, layer 4 three, the last of which is beyond its numerical rank.
        let rows = [
            row(1, 1, Some(0.5)),
            row(1, 2, Some(0.25)),
            row(1, 3, None),
            row(2, 1, Some(0.75)),
            row(2, 2, Some(0.625)),
            row(2, 3, None),
        ];
        let groups = groups(&rows);
        assert_eq!(groups.len(), 1);
        let (values, most) = groups[0].values();
        let none = None;
        assert_eq!((most, values.cells), (3, vec![Some(0.5), Some(0.25), none, Some(0.75), Some(0.625), none, none, none, none]));
        assert_eq!(groups[0].second_line(), "φ(1,1) 0.5000 · largest 0.7500 at (2,1) · status rank");
    }

    #[test]
    fn large_ranks_fit_and_are_labelled() {
        for most in [1, 8, 64, 256] {
            let rows: Vec<GridRow> = (0..most * most).map(|k| row(k / most + 1, k % most + 1, Some(0.3))).collect();
            let options = FigureOptions { scale: ColourScale::Data, ..FigureOptions::default() };
            let scene = groups(&rows)[0].scene(&options);
            // Device pixels are half a CSS pixel.
            assert!(scene.width < 1500 && scene.height < 1500, "{most}: {} x {}", scene.width, scene.height);
            let labels = scene.elements.iter().filter(|item| matches!(item, super::super::scene::Element::Text(_))).count();
            assert!(labels > 6, "{most}");
        }
    }
}
