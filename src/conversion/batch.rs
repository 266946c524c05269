//! The columns of many targets together, and the check of their solutions.
//!
//! Multiplying W0 with every solution costs as much as solving for it. What is multiplied are a few random combinations of a target's columns instead
//! (after Freivalds 1979): Θ·z is checked as a solution for T·z, for Gaussian weights z. An error in Θ is hardly ever hidden in all of them.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};
use pulp::Arch;

use super::equation::{Equation, Target, WeightRows};
use crate::linalg::norms::frobenius_of;
use crate::linalg::panel::Panel;
use crate::linalg::random::normal_stream;

/// How many rows of W0 are converted to f64 at a time: the more there are, the less often many columns are read again.
fn rows_for(columns: usize) -> usize {
    if columns > 64 { 64 } else { 16 }
}

/// How many random combinations of a target's columns are checked.
const PROBES: usize = 2;

/// How far below its limit the error of the combinations has to be; otherwise every column is checked. An error δ times as large as allowed, in a direction
/// that knows nothing of the weights, then passes with a probability of at most `1 − exp(−1/(32·δ)²)` (two combinations, an error of rank one): one in a
/// thousand at the limit, one in a hundred thousand at ten times the limit.
const MARGIN: f64 = 32.0;

/// Columns of some targets one after the other.
pub(super) struct PanelColumns {
    pub(super) panel: Panel,
    /// Which columns are each target's; none for one that is not among them.
    pub(super) places: Vec<Option<Range<usize>>>,
    /// How many columns the targets have together; the panel's other columns come after them.
    pub(super) used: usize,
}

impl PanelColumns {
    /// Zeros for the targets that have a width, n long, with room for `extra` columns after them.
    fn zeros(n: usize, widths: impl Iterator<Item = Option<usize>>, extra: usize) -> Self {
        let mut used = 0;
        let place = |width: Option<usize>| {
            width.map(|width| {
                used += width;
                used - width..used
            })
        };
        let places = widths.map(place).collect();
        Self { panel: Panel::zeros(n, used + extra), places, used }
    }

    /// The columns of those targets that are given.
    pub(super) fn of(n: usize, blocks: &[Option<ArrayView2<'_, f64>>], extra: usize) -> Self {
        let mut own = Self::zeros(n, blocks.iter().map(|block| block.map(|block| block.ncols())), extra);
        for (block, place) in blocks.iter().zip(&own.places) {
            if let (Some(block), Some(place)) = (block, place) {
                own.panel.set_columns(place.start, *block);
            }
        }
        own
    }

    /// The targets for which `chosen` holds.
    pub(super) fn of_targets(n: usize, targets: &[Target<'_>], chosen: impl Fn(&Target<'_>) -> bool, extra: usize) -> Self {
        let values: Vec<_> = targets.iter().map(|target| chosen(target).then_some(target.values)).collect();
        Self::of(n, &values, extra)
    }
}

/// The block of each target, from the panel that has its columns.
pub(super) fn blocks(panels: &[(&PanelColumns, &Panel)]) -> Vec<Array2<f64>> {
    let block = |index: usize| {
        let found = panels.iter().find_map(|(columns, panel)| Some((columns.places[index].as_ref()?, panel)));
        let Some((place, panel)) = found else { unreachable!("each target is in one of the panels") };
        panel.block(place.start, place.len())
    };
    (0..panels.first().map_or(0, |(columns, _)| columns.places.len())).map(block).collect()
}

/// What is left of the right-hand sides of some columns, or of random combinations of them.
pub(super) struct Rest {
    /// One column for each that was checked.
    pub(super) values: Array2<f64>,
    /// The norms of what was checked and of its right-hand side: one of each combination, or those of all columns together.
    pub(super) norms: Vec<[f64; 2]>,
    /// Whether every column was.
    pub(super) of_all: bool,
}

impl Rest {
    /// The Frobenius norm of what is left of all columns, or what the combinations say of it: their mean square is its square in the mean.
    pub(super) fn size(&self) -> f64 {
        let size = frobenius_of(&self.values);
        if self.of_all { size } else { size / (PROBES as f64).sqrt() }
    }

    /// `‖rest‖/(‖W‖·‖Θ‖ + ‖T‖)`, of the combination for which it is largest.
    pub(super) fn relative_size(&self, w_norm: f64) -> f64 {
        self.relative(&self.values, w_norm)
    }

    /// The same for the product of a matrix with the rest. NaN and infinity stay.
    pub(super) fn relative(&self, product: &Array2<f64>, w_norm: f64) -> f64 {
        let against = |size: f64, [theta, target]: [f64; 2]| if size == 0.0 { 0.0 } else { size / (w_norm * theta + target) };
        if self.of_all {
            return against(frobenius_of(product), self.norms[0]);
        }
        let each = product.columns().into_iter().zip(&self.norms).map(|(column, norms)| against(frobenius_of(&column), *norms));
        each.fold(0.0, |most, size| if size > most || size.is_nan() { size } else { most })
    }

    /// Which part of the limit an error may reach for it to be known that it is below.
    pub(super) fn share_of_limit(&self) -> f64 {
        if self.of_all { 1.0 } else { 1.0 / MARGIN }
    }
}

/// What solutions leave of their right-hand sides: of random combinations of the columns where there are more columns than combinations, unless all are
/// asked for. `whole` makes a right-hand side of one that is given in range.
pub(super) fn rests(
    w0: &impl WeightRows,
    targets: &[Target<'_>],
    thetas: &[Array2<f64>],
    all: bool,
    whole: impl Fn(Array2<f64>) -> Array2<f64>,
) -> Vec<Rest> {
    let weights = weights(targets.iter().map(|target| target.values.ncols()).max().unwrap_or(0));
    let is_whole = |target: &Target<'_>| all || target.values.ncols() <= PROBES;
    let combine = |target: &Target<'_>, values: ArrayView2<'_, f64>| {
        if is_whole(target) { values.to_owned() } else { combined(values, &weights) }
    };
    let right = |target: &Target<'_>| {
        let values = combine(target, target.values);
        if target.in_range { whole(values) } else { values }
    };
    let right: Vec<_> = targets.iter().map(right).collect();
    let x: Vec<_> = targets.iter().zip(thetas).map(|(target, theta)| combine(target, theta.view())).collect();
    let equations: Vec<_> = targets.iter().map(|target| target.equation).collect();
    let values = without_products(w0, &equations, &views(&x), Some(&views(&right)));
    let rest = |(index, values): (usize, Array2<f64>)| {
        let (x, right, of_all) = (&x[index], &right[index], is_whole(&targets[index]));
        let norms = if of_all {
            vec![[frobenius_of(x), frobenius_of(right)]]
        } else {
            x.columns().into_iter().zip(right.columns()).map(|(x, right)| [frobenius_of(&x), frobenius_of(&right)]).collect()
        };
        Rest { values, norms, of_all }
    };
    values.into_iter().enumerate().map(rest).collect()
}

/// `rest − W·x`, or `rest − Wᵀ·x`, for each equation, converting W to f64 once; without `rest` it is zero.
///
/// # Numerics
/// Each element is summed in one order: a column's bits depend on W and that column alone.
pub(super) fn without_products(
    w0: &(impl WeightRows + ?Sized),
    equations: &[Equation],
    x: &[ArrayView2<'_, f64>],
    rest: Option<&[ArrayView2<'_, f64>]>,
) -> Vec<Array2<f64>> {
    let (d_out, d_in) = w0.shape();
    let columns = |equation: Equation, n: usize, blocks: &[ArrayView2<'_, f64>]| {
        let chosen = equations.iter().zip(blocks).map(|(own, block)| (*own == equation).then_some(*block));
        PanelColumns::of(n, &chosen.collect::<Vec<_>>(), 0)
    };
    let sides = |equation: Equation, (rows, length): (usize, usize)| {
        let x = columns(equation, length, x);
        let rest = match rest {
            Some(rest) => columns(equation, rows, rest),
            None => PanelColumns::zeros(rows, x.places.iter().map(|place| place.as_ref().map(Range::len)), 0),
        };
        (x, rest)
    };
    let (straight_x, mut straight) = sides(Equation::W0, (d_out, d_in));
    let (turned_x, mut turned) = sides(Equation::W0Transposed, (d_in, d_out));
    let columns = straight.used + turned.used;
    let together = rows_for(columns);
    let mut buffer = vec![0.0; together.min(d_out) * d_in];
    for first in (0..d_out).step_by(together).take_while(|_| columns > 0) {
        let part = &mut buffer[..together.min(d_out - first) * d_in];
        w0.copy_rows(first, part);
        if straight.used > 0 {
            straight.panel.subtract_product(first, part, &straight_x.panel);
        }
        if turned.used > 0 {
            turned.panel.subtract_transposed_product(first, part, &turned_x.panel);
        }
    }
    blocks(&[(&straight, &straight.panel), (&turned, &turned.panel)])
}

/// All of each block.
pub(super) fn views<'b>(blocks: impl IntoIterator<Item = &'b Array2<f64>>) -> Vec<ArrayView2<'b, f64>> {
    blocks.into_iter().map(|block| block.view()).collect()
}

/// The weights of the combinations of up to `k` columns.
fn weights(k: usize) -> [Vec<f64>; PROBES] {
    std::array::from_fn(|probe| normal_stream(0, &[b"combinations that are checked", &[probe as u8]], k))
}

/// Random combinations of the columns (n, k): (n, [`PROBES`]). Those of fewer columns have the first of the weights.
fn combined(values: ArrayView2<'_, f64>, weights: &[Vec<f64>; PROBES]) -> Array2<f64> {
    /// Partial sums of a row.
    const PARTS: usize = 8;
    let (n, k) = values.dim();
    let mut out = Vec::with_capacity(n * PROBES);
    let values = values.as_standard_layout();
    let values = values.as_slice().unwrap_or_else(|| unreachable!("it is in standard layout"));
    Arch::new().dispatch(|| {
        for row in values.chunks_exact(k.max(1)) {
            let (whole, rest) = row.as_chunks::<PARTS>();
            for weights in weights {
                let (of_whole, of_rest) = weights[..k].as_chunks::<PARTS>();
                let mut parts = [0.0; PARTS];
                for (values, weights) in whole.iter().zip(of_whole) {
                    for ((part, value), weight) in parts.iter_mut().zip(values).zip(weights) {
                        *part += value * weight;
                    }
                }
                for ((part, value), weight) in parts.iter_mut().zip(rest).zip(of_rest) {
                    *part += value * weight;
                }
                let [a, b, c, d, e, f, g, h] = parts;
                out.push(((a + e) + (c + g)) + ((b + f) + (d + h)));
            }
        }
    });
    out.resize(n * PROBES, 0.0);
    Array2::from_shape_vec((n, PROBES), out).unwrap_or_else(|_| unreachable!("as many values as the shape has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_every_size_pass_no_more_often_than_is_stated() {
        // Errors of rank one in random directions, δ times as large as the limit: the worst case. Θ has all directions, or but one.
        let (k, trials) = (16, 20_000);
        let directions = normal_stream(1, &[b"errors"], k * trials);
        let one = Array2::from_shape_vec((1, k), normal_stream(2, &[b"theta"], k)).unwrap();
        for theta in [Array2::eye(k), one] {
            let norms: Vec<_> =
                combined(theta.view(), &weights(k)).columns().into_iter().map(|x| [frobenius_of(&x), 0.0]).collect();
            let relative = |direction: &[f64]| {
                let norm = direction.iter().map(|v| v * v).sum::<f64>().sqrt() / frobenius_of(&theta);
                let error = Array2::from_shape_fn((1, k), |(_, column)| direction[column] / norm);
                Rest { values: combined(error.view(), &weights(k)), norms: norms.clone(), of_all: false }.relative_size(1.0)
            };
            let sizes: Vec<f64> = directions.chunks_exact(k).map(relative).collect();
            for delta in [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0] {
                let passed = sizes.iter().filter(|size| *size * delta <= 1.0 / MARGIN).count() as f64;
                let expected = trials as f64 * (1.0 - (-(1.0 / (MARGIN * delta)).powi(2)).exp());
                println!("{delta}: {passed} of {trials}, at most {expected:.1}");
                assert!(passed <= expected + 4.0 * expected.sqrt() + 1.0, "{delta}: {passed} of {trials}, {expected:.1} stated");
            }
            assert!(sizes.iter().filter(|size| **size * 0.01 <= 1.0 / MARGIN).count() > trials / 2, "what is correct passes");
        }
    }

    #[test]
    fn the_largest_of_the_combinations_counts() {
        let rest = |values, norms, of_all| Rest { values, norms, of_all };
        let values = ndarray::array![[3.0, 0.0], [4.0, 2.0]];
        let probed = rest(values.clone(), vec![[1.0, 8.0], [0.5, 0.0]], false);
        assert_eq!((probed.relative_size(2.0), probed.share_of_limit()), (2.0, 1.0 / 32.0));
        assert!((probed.size() - (29.0_f64 / 2.0).sqrt()).abs() < 1e-15);
        let all = rest(values, vec![[1.0, 8.0]], true);
        assert_eq!((all.relative_size(2.0), all.share_of_limit()), (29.0_f64.sqrt() / 10.0, 1.0));
        assert_eq!(all.size(), 29.0_f64.sqrt());
        let hidden = rest(ndarray::array![[1.0, 0.0]], vec![[0.0, 0.0], [1.0, 1.0]], false);
        assert_eq!(hidden.relative_size(2.0), f64::INFINITY);
        assert!(rest(ndarray::array![[f64::NAN, 5.0]], vec![[1.0, 1.0]; 2], false).relative_size(1.0).is_nan());
    }
}
