//! Orders rows and columns so that similar ones are neighbours: the tree of average linkage, and its leaves in a fixed order.

use kodama::{Method, linkage};

use crate::figure::parts::values::SquareValues;

/// Two branches that are joined, and where a dendrogram draws them: `at` are positions along the leaves (0 is the middle of the
/// first one), `from` the dissimilarities at which the branches begin (`None` for a leaf).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merge {
    pub(crate) at: [f64; 2],
    pub(crate) from: [Option<f64>; 2],
    /// Mean dissimilarity of the pairs that have one end in each branch.
    pub(crate) height: f64,
}

/// The tree over the rows of a square.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tree {
    /// The row at each position.
    pub(crate) order: Vec<usize>,
    /// In rising order of height.
    pub(crate) merges: Vec<Merge>,
}

/// A branch of the tree while it is built.
struct Branch {
    leaves: Vec<usize>,
    /// Sum of the row numbers in it. Divided by their count it is their mean.
    sum: usize,
}

impl Tree {
    /// Average linkage (UPGMA) of the dissimilarity `1 − φ`, averaged over both directions. A pair without a value counts as 1.
    ///
    /// A tree does not say which of two branches comes first. Here it is the one with the smaller mean row number, so that the
    /// order differs from the given one no more than the tree requires (like R's `reorder.dendrogram` with the row numbers as
    /// weights).
    pub(crate) fn of(values: &SquareValues) -> Self {
        let n = values.n;
        let mut dissimilarities = Vec::with_capacity(n * n.saturating_sub(1) / 2);
        let one = |a: usize, b: usize| 1.0 - values.cells[a * n + b].unwrap_or(0.0).clamp(0.0, 1.0);
        for a in 0..n {
            dissimilarities.extend((a + 1..n).map(|b| 0.5 * (one(a, b) + one(b, a))));
        }
        let dendrogram = linkage(&mut dissimilarities, n, Method::Average);

        let mut branches: Vec<Option<Branch>> = (0..n).map(|row| Some(Branch { leaves: vec![row], sum: row })).collect();
        let mut joined: Vec<(usize, usize)> = Vec::with_capacity(n);
        for step in dendrogram.steps() {
            let (mut first, mut second) = (step.cluster1, step.cluster2);
            let mut take = |label: usize| branches.get_mut(label).and_then(Option::take);
            let (Some(mut a), Some(mut b)) = (take(first), take(second)) else { unreachable!("every branch is joined once") };
            // sum_b / n_b < sum_a / n_a without division, so that equal means are found equal; then the lower first row decides.
            if (b.sum * a.leaves.len(), b.leaves[0]) < (a.sum * b.leaves.len(), a.leaves[0]) {
                (a, b, first, second) = (b, a, second, first);
            }
            joined.push((first, second));
            a.leaves.append(&mut b.leaves);
            branches.push(Some(Branch { leaves: a.leaves, sum: a.sum + b.sum }));
        }
        let order = branches.last_mut().and_then(Option::take).map_or_else(Vec::new, |root| root.leaves);

        let mut place: Vec<(f64, Option<f64>)> = vec![(0.0, None); n];
        for (k, row) in order.iter().enumerate() {
            place[*row] = (k as f64, None);
        }
        let mut merges = Vec::with_capacity(joined.len());
        for ((first, second), step) in joined.into_iter().zip(dendrogram.steps()) {
            let (a, b) = (place[first], place[second]);
            merges.push(Merge { at: [a.0, b.0], from: [a.1, b.1], height: step.dissimilarity });
            place.push((0.5 * (a.0 + b.0), Some(step.dissimilarity)));
        }
        Self { order, merges }
    }

    /// The values with their rows and columns in the tree's order.
    pub(crate) fn ordered(&self, values: &SquareValues) -> SquareValues {
        let n = values.n;
        let cells = self.order.iter().flat_map(|a| self.order.iter().map(move |b| values.cells[a * n + b])).collect();
        SquareValues { n, cells }
    }

    /// The lowest and the highest merge.
    pub(crate) fn span(&self) -> Option<(f64, f64)> {
        let heights = || self.merges.iter().map(|merge| merge.height);
        Some((heights().reduce(f64::min)?, heights().reduce(f64::max)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// φ of eight layers in hundredths, neither symmetric nor whole.
    fn values() -> SquareValues {
        let value = |a: usize, b: usize| match (a, b) {
            (a, b) if a == b => Some(1.0),
            (2, 6) => None,
            (a, b) => Some(((a * 7 + b * 13 + (a * b) % 5 * 29) % 97) as f64 / 100.0),
        };
        SquareValues { n: 8, cells: (0..64).map(|k| value(k / 8, k % 8)).collect() }
    }

    #[test]
    fn order_and_heights_are_those_of_scipy() {
        let tree = Tree::of(&values());
        assert_eq!(tree.order, SCIPY_ORDER);
        assert_eq!(tree.merges.len(), 7);
        for (merge, height) in tree.merges.iter().zip(SCIPY_HEIGHTS) {
            assert!((merge.height - height).abs() < 1e-14, "{} and {height}", merge.height);
        }
        let middle = |merge: &Merge| 0.5 * (merge.at[0] + merge.at[1]);
        for (merge, at) in tree.merges.iter().zip(SCIPY_MIDDLES) {
            assert_eq!(middle(merge), at);
        }
    }

    // scipy.cluster.hierarchy.linkage(d, "average") of SciPy 1.11.4 for d = 1 - (φ + φᵀ)/2 of the values above; its branches
    // turned by the mean of their rows, and the middle of each merge in that order, in Python.
    const SCIPY_ORDER: [usize; 8] = [1, 2, 4, 5, 3, 0, 6, 7];
    const SCIPY_HEIGHTS: [f64; 7] = [
        0.09000000000000008,
        0.09999999999999998,
        0.12,
        0.35000000000000003,
        0.37750000000000006,
        0.44999999999999996,
        0.6413333333333332,
    ];
    const SCIPY_MIDDLES: [f64; 7] = [6.5, 2.5, 0.5, 5.75, 1.5, 2.75, 4.25];

    #[test]
    fn branches_keep_the_order_of_the_rows_where_they_can() {
        // 0 and 3 are alike, and so are 1 and 2: means 1.5 and 1.5, so the branch with row 0 comes first.
        let value = |a: usize, b: usize| {
            if a == b {
                1.0
            } else if a + b == 3 {
                0.9
            } else {
                0.1
            }
        };
        let tree = Tree::of(&SquareValues { n: 4, cells: (0..16).map(|k| Some(value(k / 4, k % 4))).collect() });
        assert_eq!(tree.order, [0, 3, 1, 2]);
        assert_eq!(tree.merges[2].at, [0.5, 2.5]);
        assert_eq!(
            tree.ordered(&SquareValues { n: 4, cells: (0..16).map(|k| Some(f64::from(k))).collect() }).cells[1],
            Some(3.0)
        );
        // If all are equally similar any tree is right, but it has to be the same every time.
        let flat = SquareValues { n: 5, cells: vec![Some(0.5); 25] };
        assert_eq!(Tree::of(&flat), Tree::of(&flat));
    }

    #[test]
    fn one_row_and_none_have_a_tree_without_merges() {
        assert_eq!(Tree::of(&SquareValues { n: 1, cells: vec![None] }), Tree { order: vec![0], merges: Vec::new() });
        assert_eq!(Tree::of(&SquareValues { n: 0, cells: Vec::new() }).order, Vec::<usize>::new());
        let empty = Tree::of(&SquareValues { n: 3, cells: vec![None; 9] });
        assert_eq!((empty.order.len(), empty.span()), (3, Some((1.0, 1.0))));
    }
}
