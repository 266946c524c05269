//! The tree of average linkage above a heatmap and to its right, with a scale of its heights.

use crate::figure::parts::linkage::Tree;
use crate::figure::parts::ticks::{number, widest};
use crate::figure::scene::colour;
use crate::figure::scene::{Anchor, Scene};

/// Height of the lowest merge above the cells, and of the highest above the lowest.
const STEM: f64 = 8.0;
const RISE: f64 = 40.0;
/// Gap between the cells and the tree.
const GAP: f64 = 4.0;
const TICK: f64 = 3.0;
const TICK_GAP: f64 = 2.5;
/// Font size of the scale's labels.
const LABEL: f64 = 8.0;

/// Space that a tree needs above the cells, and to their right.
pub(crate) const SPACE: f64 = GAP + STEM + RISE;

/// Explains the tree, in the figure's note.
pub(crate) const NOTE: &str = "Tree: average linkage of 1 − φ; a branch point stands at the mean φ between its two groups.";

/// A tree at a square of cells (CSS pixels; `x`, `y` is the cells' upper left corner).
pub(crate) struct Dendrogram<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) cell: f64,
}

impl Dendrogram<'_> {
    /// Draws the tree above the columns, with its scale, and once more to the right of the rows.
    pub(crate) fn draw(&self, scene: &mut Scene) {
        let right = self.x + self.cell * self.tree.order.len() as f64;
        let along = |place: f64| (place + 0.5) * self.cell;
        for merge in &self.tree.merges {
            let top = self.rise(merge.height);
            let feet = [self.foot(merge.from[0]), self.foot(merge.from[1])];
            let [a, b] = merge.at.map(along);
            let above = |place: f64, rise: f64| (self.x + place, self.y - rise);
            let beside = |place: f64, rise: f64| (right + rise, self.y + place);
            let corners = [(a, feet[0]), (a, top), (b, top), (b, feet[1])];
            for ends in corners.windows(2) {
                let &[from, to] = ends else { continue };
                scene.line(above(from.0, from.1), above(to.0, to.1), colour::FRAME);
                scene.line(beside(from.0, from.1), beside(to.0, to.1), colour::FRAME);
            }
        }
        self.scale(scene);
    }

    /// Distance of a merge from the cells.
    fn rise(&self, height: f64) -> f64 {
        let (low, high) = self.tree.span().unwrap_or_default();
        let share = if high > low { (height - low) / (high - low) } else { 1.0 };
        GAP + STEM + RISE * share
    }

    /// Distance of the end of a branch from the cells. Leaves begin at the cells.
    fn foot(&self, height: Option<f64>) -> f64 {
        height.map_or(GAP, |height| self.rise(height))
    }

    /// Draws the scale to the left of the tree: the mean φ of the highest and of the lowest merge.
    fn scale(&self, scene: &mut Scene) {
        let Some((low, high)) = self.tree.span() else { return };
        let x = self.x - TICK;
        let ends = if high > low { vec![low, high] } else { vec![high] };
        scene.line((x, self.y - self.rise(low)), (x, self.y - self.rise(high)), colour::FRAME);
        for (height, label) in ends.iter().zip(labels(self.tree)) {
            let y = self.y - self.rise(*height);
            scene.line((x - TICK, y), (x, y), colour::FRAME);
            scene.text_centred(x - TICK - TICK_GAP, y, LABEL, Anchor::End, colour::INK, label);
        }
    }
}

/// The scale's labels, from the lowest merge up.
fn labels(tree: &Tree) -> Vec<String> {
    let Some((low, high)) = tree.span() else { return Vec::new() };
    let ends = if high > low { vec![low, high] } else { vec![high] };
    ends.into_iter().map(|height| number(1.0 - height, 2)).collect()
}

/// Space that the scale needs to the left of the cells.
pub(crate) fn left_space(tree: &Tree) -> f64 {
    2.0 * TICK + TICK_GAP + widest(labels(tree).iter().map(String::as_str), LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::parts::values::SquareValues;
    use crate::figure::scene::{Element, device};

    #[test]
    fn branch_points_stand_at_their_heights_and_leaves_begin_at_the_cells() {
        // φ 0.9 between 0 and 1, 0.5 between them and 2.
        let cells = [1.0, 0.9, 0.5, 0.9, 1.0, 0.5, 0.5, 0.5, 1.0].map(Some).to_vec();
        let tree = Tree::of(&SquareValues { n: 3, cells });
        let mut scene = Scene::new(200.0, 200.0, String::new());
        let dendrogram = Dendrogram { tree: &tree, x: 50.0, y: 100.0, cell: 20.0 };
        dendrogram.draw(&mut scene);
        let lines: Vec<((i32, i32), (i32, i32))> = scene
            .elements
            .iter()
            .filter_map(|item| if let Element::Line { from, to, .. } = item { Some((*from, *to)) } else { None })
            .collect();
        let at = |x: f64, y: f64| (device(x), device(y));
        // Above the columns, then the same turned by 90 degrees, for each of the three strokes of a merge.
        assert!(lines.contains(&(at(60.0, 100.0 - GAP), at(60.0, 100.0 - GAP - STEM))));
        assert!(lines.contains(&(at(60.0, 100.0 - GAP - STEM), at(80.0, 100.0 - GAP - STEM))));
        assert!(lines.contains(&(at(70.0, 100.0 - GAP - STEM), at(70.0, 100.0 - SPACE))));
        assert!(lines.contains(&(at(110.0 + SPACE, 120.0), at(110.0 + SPACE, 150.0))));
        assert_eq!(labels(&tree), ["0.90", "0.50"]);
    }
}
