//! The condition number of a factorised matrix in the 1-norm, estimated as LAPACK's `gecon` does.
//!
//! The algorithm is that of `lacn2` (Hager 1984; Higham 1988, Algorithm 674): a lower bound on `‖W⁻¹‖₁`, nearly always within a
//! factor of 3. Two of its right-hand sides are known in advance, so they are solved together with the real ones ([`starting_columns`]); that
//! leaves two or three passes over the factors where `gecon` makes five.

use super::lu::LuFactors;
use super::panel::Panel;
use super::qr::QrFactors;

/// Right-hand sides that the estimate adds to the first solve.
pub const STARTING_COLUMNS: usize = 2;

/// The two fixed vectors of the estimate: the mean, and the alternating one that catches what the iteration misses.
#[must_use]
pub fn starting_columns(n: usize) -> [Vec<f64>; STARTING_COLUMNS] {
    let mean = vec![1.0 / n as f64; n];
    let step = if n > 1 { 1.0 / (n - 1) as f64 } else { 0.0 };
    let alternating = (0..n).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } * (1.0 + i as f64 * step)).collect();
    [mean, alternating]
}

/// `1/(‖W‖₁·‖W⁻¹‖₁)`, from the solutions of the starting columns. 0 where W is singular to working precision.
#[must_use]
pub fn reciprocal_condition(w: &LuFactors, norm_1: f64, solved: [&[f64]; STARTING_COLUMNS]) -> f64 {
    let solve =
        |x: &[f64], transposed: bool| solve_one(x, |panel| if transposed { panel.solve_transposed(w) } else { panel.solve(w) });
    estimate(norm_1, w.zero_pivot().is_some(), solved, solve)
}

/// The same of the triangle of a QR factorisation. LAPACK's `trcon` gives other last digits where the matrix begins elsewhere in memory.
#[must_use]
pub(crate) fn triangle_rcond(w: &QrFactors) -> f64 {
    let n = w.shape().1;
    let (mut sums, mut singular) = (vec![0.0; n], false);
    for (k, row) in w.triangle().rows().into_iter().enumerate() {
        singular |= row[k] == 0.0;
        for (sum, value) in sums.iter_mut().zip(row).skip(k) {
            *sum += value.abs();
        }
    }
    let solve = |x: &[f64], transposed: bool| solve_one(x, |panel| panel.solve_triangle(w, transposed));
    let solved = starting_columns(n).map(|x| if singular { x } else { solve(&x, false) });
    estimate(sums.into_iter().fold(0.0, f64::max), singular, [&solved[0], &solved[1]], solve)
}

/// `1/(norm_1·‖W⁻¹‖₁)`, where `solve` gives `W⁻¹·x` or `W⁻ᵀ·x`.
fn estimate(norm_1: f64, singular: bool, solved: [&[f64]; STARTING_COLUMNS], solve: impl Fn(&[f64], bool) -> Vec<f64>) -> f64 {
    let [mean, alternating] = solved;
    let n = mean.len();
    if n == 0 {
        return 1.0;
    }
    if norm_1 == 0.0 || singular {
        return 0.0;
    }
    let mut estimate = sum_abs(mean);
    if n > 1 {
        let mut signs = sign(mean);
        let mut j = largest(&solve(&signs, true));
        for _ in 0..4 {
            let mut unit = vec![0.0; n];
            unit[j] = 1.0;
            let column = solve(&unit, false);
            let size = sum_abs(&column);
            let new_signs = sign(&column);
            let no_better = size <= estimate;
            estimate = estimate.max(size);
            // The opposite signs give the opposite gradient, with the same largest entry.
            let repeated = new_signs == signs || new_signs.iter().zip(&signs).all(|(a, b)| a != b);
            if no_better || repeated {
                break;
            }
            signs = new_signs;
            let gradient = solve(&signs, true);
            let last = j;
            j = largest(&gradient);
            if gradient[last].abs() == gradient[j].abs() {
                break;
            }
        }
        estimate = estimate.max(2.0 * sum_abs(alternating) / (3 * n) as f64);
    }
    let rcond = (1.0 / estimate) / norm_1;
    if rcond.is_finite() { rcond } else { 0.0 }
}

fn solve_one(x: &[f64], solve: impl FnOnce(&mut Panel)) -> Vec<f64> {
    let mut panel = Panel::zeros(x.len(), 1);
    panel.set_column(0, x.iter().copied());
    solve(&mut panel);
    panel.column(0)
}

fn sum_abs(x: &[f64]) -> f64 {
    x.iter().map(|v| v.abs()).sum()
}

fn sign(x: &[f64]) -> Vec<f64> {
    x.iter().map(|v| if *v >= 0.0 { 1.0 } else { -1.0 }).collect()
}

/// Index of the first value of largest magnitude.
fn largest(x: &[f64]) -> usize {
    let mut at = 0;
    for (i, v) in x.iter().enumerate() {
        if v.abs() > x[at].abs() {
            at = i;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, Axis};
    use ndarray_linalg::Inverse;

    fn estimate(w: &Array2<f64>) -> f64 {
        let n = w.nrows();
        let norm_1 = w.map(|v| v.abs()).sum_axis(Axis(0)).iter().fold(0.0_f64, |m, v| m.max(*v));
        let lu = LuFactors::factorise(w.clone()).unwrap();
        let mut panel = Panel::zeros(n, 2);
        for (k, column) in starting_columns(n).into_iter().enumerate() {
            panel.set_column(k, column);
        }
        panel.solve(&lu);
        reciprocal_condition(&lu, norm_1, [&panel.column(0), &panel.column(1)])
    }

    #[test]
    fn the_estimate_is_a_close_lower_bound() {
        let mut state = 7u64;
        for n in [1, 2, 5, 20, 60] {
            for decades in [0, 4, 8] {
                let w = Array2::from_shape_fn((n, n), |(i, _)| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let graded = 10.0_f64.powf(-(decades as f64) * i as f64 / n as f64);
                    ((state >> 11) as f64 / (1u64 << 53) as f64 - 0.5) * graded
                });
                let one = |m: &Array2<f64>| m.map(|v| v.abs()).sum_axis(Axis(0)).iter().fold(0.0_f64, |a, v| a.max(*v));
                let exact = 1.0 / (one(&w) * one(&w.inv().unwrap()));
                let found = estimate(&w);
                assert!(found >= exact * (1.0 - 1e-6) && found <= exact * 1.5, "n = {n}: {found:e} against {exact:e}");
            }
        }
    }

    #[test]
    fn identity_and_singular_matrices() {
        assert_eq!(estimate(&Array2::eye(6)), 1.0);
        assert_eq!(estimate(&Array2::zeros((3, 3))), 0.0);
        assert_eq!(estimate(&ndarray::array![[1.0, 2.0], [2.0, 4.0]]), 0.0);
    }

    #[test]
    fn what_it_starts_from_by_hand() {
        assert_eq!(starting_columns(1), [vec![1.0], vec![1.0]]);
        assert_eq!(starting_columns(3), [vec![1.0 / 3.0; 3], vec![1.0, -1.5, 2.0]]);
    }

    #[test]
    fn conditions_of_triangles_by_hand() {
        let of = |w: Array2<f64>| triangle_rcond(&QrFactors::factorise(w).unwrap());
        let about = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-15, "{found}");
        about(of(ndarray::array![[1.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), 0.25);
        // The exact value is 1/4; the estimate is slightly above it.
        assert!((0.25..0.34).contains(&of(ndarray::array![[1.0, 1.0], [0.0, 1.0]])));
        assert_eq!(of(ndarray::array![[1.0, 0.0], [0.0, 0.0]]), 0.0);
        assert_eq!(of(Array2::zeros((3, 0))), 1.0);
    }
}
