//! The conversion matrices of one layer: Θ with `W0·Θ = T` (Kim et al. 2024, Eq. 3 and 4).
//!
//! One factorisation of W0 serves every target: the adapters' Aᵀ and B, their initial values, and the Gaussian targets of the `w0` control.
//! Every solution is checked by the residual of combinations of its columns, or of all of them. This module does not know what the targets are for.

mod batch;
mod by_lu;
mod equation;
mod forward;
mod minimum_norm;

use ndarray::Array2;

use crate::error::{Error, Result};
use by_lu::ByLu;
pub(crate) use equation::Core;
pub use equation::{Conversion, ConversionMatrix, Equation, Target, WeightRows, Workspace};
pub use forward::{factor_of, shared_equations};
pub(crate) use forward::{finite, products};
use minimum_norm::MinimumNorm;

/// Solves `W0·Θ = T` (or `W0ᵀ·Θ = T`) for all targets of one layer at once.
///
/// # Errors
/// Those of [`Solver::solve`].
pub fn solve_theta(
    w0: &impl WeightRows,
    targets: &[Target<'_>],
    rcond: Option<f64>,
    workspace: &mut Workspace,
) -> Result<Conversion> {
    let mut solver = Solver::new(w0, rcond, workspace)?;
    let matrices = solver.solve(targets)?;
    Ok(Conversion { matrices, condition: solver.condition()? })
}

/// One factorised W0, through which any number of targets is solved.
///
/// Source: Kim et al. 2024, Eq. 3 and 4. Differs: minimum-norm least squares where W0 is singular or not square, every solve is checked, and W0 is
/// never inverted.
///
/// # Numerics
/// Square W0: LU with partial pivoting where the 1-norm condition estimate allows, backward error at most `max(n, 16)·u`, refined once, then least squares.
/// With `rcond`, SVD is always used. A result's bits depend on W0, the target and `rcond` alone, not on the other targets nor on how they are divided into calls.
#[derive(Debug)]
pub struct Solver<'a, W: WeightRows> {
    w0: &'a W,
    rcond: Option<f64>,
    workspace: &'a mut Workspace,
    by_lu: Option<ByLu>,
    by_least_squares: Option<MinimumNorm>,
}

impl<'a, W: WeightRows> Solver<'a, W> {
    /// Factorises W0 (out, in), by LU where it is square and `rcond` is not given.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if W0 holds NaN or Inf; [`Error::Lapack`] if LAPACK fails on finite input.
    pub fn new(w0: &'a W, rcond: Option<f64>, workspace: &'a mut Workspace) -> Result<Self> {
        let (d_out, d_in) = w0.shape();
        let by_lu = if d_out == d_in && rcond.is_none() { ByLu::factorise(w0, workspace)? } else { None };
        Ok(Self { w0, rcond, workspace, by_lu, by_least_squares: None })
    }

    /// Solves for some targets.
    ///
    /// # Shapes
    /// Targets (out, k) or (in, k), or (min(out, in), k) in range, returning (in, k) or (out, k).
    /// # Errors
    /// [`Error::Shape`] if a target's rows do not fit; otherwise those of [`Self::new`].
    pub fn solve(&mut self, targets: &[Target<'_>]) -> Result<Vec<ConversionMatrix>> {
        for target in targets {
            let rows = target.rows(self.w0.shape());
            if rows != Some(target.values.nrows()) {
                return Err(Error::Shape {
                    what: "a target of Solver::solve",
                    expected: rows.map_or("a matrix with more rows than columns".into(), |rows| format!("{rows} rows")),
                    found: format!("{:?}", target.values.dim()),
                });
            }
        }
        let w0 = self.w0;
        if let Some(by_lu) = &mut self.by_lu {
            match by_lu.solve(w0, targets) {
                Some(found) => {
                    let checked = |(found, target): (Option<ConversionMatrix>, &Target<'_>)| match found {
                        Some(found) => Ok(found),
                        None => Ok(self.least_squares()?.solve(w0, &[*target]).remove(0)),
                    };
                    return found.into_iter().zip(targets).map(checked).collect();
                }
                None => self.give_up_lu(),
            }
        }
        Ok(self.least_squares()?.solve(w0, targets))
    }

    /// Condition number of W0: 1-norm estimate, or σ₁/σ_min over the singular values kept where an SVD was made.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn condition(&mut self) -> Result<f64> {
        if let Some(by_lu) = &mut self.by_lu {
            match by_lu.condition() {
                Some(condition) => return Ok(condition),
                None => self.give_up_lu(),
            }
        }
        Ok(self.least_squares()?.condition())
    }

    /// ‖W0‖_F.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub(crate) fn norm(&mut self) -> Result<f64> {
        match &self.by_lu {
            Some(by_lu) => Ok(by_lu.norm()),
            None => Ok(self.least_squares()?.norm()),
        }
    }

    /// The square core of W0, where that is not square and was factorised by QR.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub(crate) fn core(&mut self) -> Result<Option<Core<'_>>> {
        let (d_out, d_in) = self.w0.shape();
        if d_out == d_in { Ok(None) } else { Ok(self.least_squares()?.core()) }
    }

    /// With `rcond` the singular vectors of W0 that every Θ is made of: left (out, k) and right (in, k).
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub(crate) fn kept(&mut self) -> Result<Option<[Array2<f64>; 2]>> {
        if self.rcond.is_none() {
            return Ok(None);
        }
        Ok(self.least_squares()?.kept().map(|sides| sides.map(|side| side.to_owned())))
    }

    /// W0 is too close to singular for LU.
    fn give_up_lu(&mut self) {
        if let Some(by_lu) = self.by_lu.take() {
            self.workspace.give_back(by_lu.into_storage());
        }
    }

    fn least_squares(&mut self) -> Result<&MinimumNorm> {
        match self.by_least_squares {
            Some(ref solver) => Ok(solver),
            None => Ok(self.by_least_squares.insert(MinimumNorm::new(self.w0, self.rcond, self.workspace)?)),
        }
    }
}

impl<W: WeightRows> Drop for Solver<'_, W> {
    fn drop(&mut self) {
        self.give_up_lu();
        if let Some(storage) = self.by_least_squares.take().and_then(MinimumNorm::into_storage) {
            self.workspace.give_back(storage);
        }
    }
}

/// Bytes of right-hand sides that are solved together: enough to keep the kernels busy, few enough to stay in the caches.
const BYTES_TOGETHER: usize = 5 << 20;
/// At least this many columns are solved together, however long they are.
const FEWEST_TOGETHER: usize = 128;

/// How many columns of this length are best solved together.
pub(crate) fn columns_together(length: usize) -> usize {
    (BYTES_TOGETHER / (size_of::<f64>() * length.max(1))).max(FEWEST_TOGETHER)
}

#[cfg(test)]
mod tests {
    use super::equation::is_reliable;
    use super::*;
    use crate::linalg::condition::{reciprocal_condition, starting_columns};
    use crate::linalg::lu::LuFactors;
    use crate::linalg::norms::{column_norms, frobenius_of};
    use crate::linalg::panel::Panel;
    use crate::linalg::perturbation::noise;
    use crate::linalg::random::normal_stream;
    use crate::linalg::{EPSILON, UNIT_ROUNDOFF};
    use crate::terms::Method;
    use ndarray::array;

    fn solve(w0: &Array2<f64>, t: &Array2<f64>, equation: Equation) -> (ConversionMatrix, Conversion) {
        let target = Target::new(t, equation);
        let all = solve_theta(w0, &[target], None, &mut Workspace::default()).unwrap();
        (all.matrices[0].clone(), all)
    }

    fn error(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
        (a - b).iter().fold(0.0_f64, |m, v| m.max(v.abs()))
    }

    #[test]
    fn identity_diagonal_permuted_and_orthogonal_w0() {
        let t = array![[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]];
        assert_eq!(solve(&Array2::eye(3), &t, Equation::W0).0.theta, t);
        let diagonal = Array2::from_diag(&array![2.0, 4.0, 8.0]);
        assert_eq!(solve(&diagonal, &t, Equation::W0).0.theta, array![[0.5, 1.0], [0.75, 1.25], [0.875, 1.375]]);
        let permutation = array![[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]];
        assert_eq!(solve(&permutation, &t, Equation::W0).0.theta, array![[7.0, 11.0], [1.0, 2.0], [3.0, 5.0]]);
        assert_eq!(solve(&permutation, &t, Equation::W0Transposed).0.theta, array![[3.0, 5.0], [7.0, 11.0], [1.0, 2.0]]);
        let (c, s) = (0.6, 0.8);
        let rotation = array![[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]];
        assert!(error(&solve(&rotation, &t, Equation::W0).0.theta, &rotation.t().dot(&t)) < 1e-15);
    }

    #[test]
    fn an_exact_rational_system() {
        // W0 = [[2,1,1],[4,-6,0],[-2,7,2]] has determinant -16; Θ = W0⁻¹·(5,-2,9)ᵀ = (1,1,2)ᵀ.
        let w0 = array![[2.0, 1.0, 1.0], [4.0, -6.0, 0.0], [-2.0, 7.0, 2.0]];
        let (found, all) = solve(&w0, &array![[5.0], [-2.0], [9.0]], Equation::W0);
        assert!(error(&found.theta, &array![[1.0], [1.0], [2.0]]) < 1e-15);
        assert_eq!(found.method, Method::Lu);
        // ‖W0‖₁ = 14, and W0⁻¹ = [[12,-5,-6],[8,-6,-4],[-16,16,16]]/16 has 1-norm 36/16.
        assert!((all.condition - 14.0 * 36.0 / 16.0).abs() < 1e-12, "{}", all.condition);
    }

    #[test]
    fn a_singular_square_w0_gets_the_minimum_norm_solution() {
        let w0 = array![[1.0, 1.0], [1.0, 1.0]];
        let (found, _) = solve(&w0, &array![[2.0], [2.0]], Equation::W0);
        assert!(error(&found.theta, &array![[1.0], [1.0]]) < 1e-15);
        assert_eq!((found.method, found.w0_rank, found.singular), (Method::LeastSquares, 1, true));
        let zero = solve(&Array2::zeros((2, 2)), &array![[2.0], [2.0]], Equation::W0);
        assert_eq!((zero.0.w0_rank, zero.0.theta), (0, array![[0.0], [0.0]]));
    }

    #[test]
    fn a_wide_w0_is_solved_exactly_and_a_tall_one_in_least_squares() {
        let wide = array![[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]];
        let (found, all) = solve(&wide, &array![[2.0], [4.0]], Equation::W0);
        assert!(error(&found.theta, &array![[1.0], [2.0], [1.0]]) < 1e-15);
        assert!(!found.singular && found.reliable);
        let (turned, _) = solve(&wide, &array![[2.0], [4.0], [4.0]], Equation::W0Transposed);
        // Householder QR and a product, κ = √2 and ‖Θ‖ = √13: a few units in the last place.
        assert!(error(&turned.theta, &array![[3.0], [2.0]]) < 4.0 * EPSILON * (2.0_f64 * 13.0).sqrt());
        assert!(turned.reliable && turned.residual.unwrap() > 0.1);
        assert!(turned.error_factor > all.condition);
    }

    #[test]
    fn company_does_not_change_a_bit() {
        let n = 40;
        let w0 = Array2::from_shape_fn((n, n), |(a, b)| {
            ((a * 31 + b * 17 + a * b) % 23) as f64 - 11.0 + if a == b { 40.0 } else { 0.0 }
        });
        let t = Array2::from_shape_fn((n, 3), |(a, b)| (a + 7 * b) as f64 / 9.0 - 1.0);
        let other = Array2::from_shape_fn((n, 30), |(a, b)| (a * b % 7) as f64);
        for equation in [Equation::W0, Equation::W0Transposed] {
            let alone = solve(&w0, &t, equation).0;
            let many = solve_theta(
                &w0,
                &[Target::new(&other, Equation::W0), Target::new(&other, Equation::W0Transposed), Target::new(&t, equation)],
                None,
                &mut Workspace::default(),
            )
            .unwrap();
            assert_eq!(alone.theta, many.matrices[2].theta);
            assert_eq!(alone.backward_error, many.matrices[2].backward_error);
            let (mut workspace, turned) = (Workspace::default(), Target::new(&other, Equation::W0Transposed));
            let mut solver = Solver::new(&w0, None, &mut workspace).unwrap();
            solver.solve(&[turned]).unwrap();
            let later = &solver.solve(&[Target::new(&t, equation)]).unwrap()[0];
            assert_eq!((&alone.theta, alone.error_factor), (&later.theta, later.error_factor));
            assert_eq!(alone.backward_error, later.backward_error);
        }
    }

    #[test]
    fn a_zero_target_has_a_zero_solution_and_no_residual() {
        let found = solve(&Array2::eye(3), &Array2::zeros((3, 2)), Equation::W0).0;
        assert_eq!(found.theta, Array2::<f64>::zeros((3, 2)));
        assert!(found.residual.is_none() && found.reliable);
    }

    #[test]
    fn extreme_scales_are_solved_all_the_same() {
        for exponent in [-90, 90] {
            let scale = 2.0_f64.powi(exponent);
            let w0 = array![[2.0, 1.0], [1.0, 3.0]] * scale;
            let (found, _) = solve(&w0, &array![[3.0], [4.0]], Equation::W0);
            assert_eq!(found.method, Method::Lu);
            assert!(error(&(found.theta * scale), &array![[1.0], [1.0]]) < 1e-15);
        }
    }

    #[test]
    fn what_lu_magnifies_is_refined() {
        // Wilkinson's matrix lets the last column grow to 2^29 under partial pivoting, though its condition number is only about n. Noise keeps
        // the elimination from being exact.
        let n = 30;
        let noise = |a: usize, b: usize| ((a * 37 + b * 61) % 101) as f64 / 1e3;
        let w0 = Array2::from_shape_fn((n, n), |(a, b)| match (a, b) {
            _ if a == b || b == n - 1 => 1.0,
            _ if a > b => -0.999 + noise(a, b),
            _ => 0.0,
        });
        let x = Array2::from_shape_fn((n, 3), |(a, b)| (a + b) as f64 - 9.0);
        for (equation, t) in [(Equation::W0, w0.dot(&x)), (Equation::W0Transposed, w0.t().dot(&x))] {
            let (found, all) = solve(&w0, &t, equation);
            assert_eq!(found.method, Method::LuRefined, "{equation:?}: {:?}", found.backward_error);
            assert!(found.reliable && found.rounding.is_some());
            let allowed = all.condition * EPSILON * 30.0;
            assert!(error(&found.theta, &x) < allowed, "{equation:?}: {:e}, {allowed:e}", error(&found.theta, &x));
        }
    }

    #[test]
    fn a_solution_is_reliable_that_is_finite_and_near_enough() {
        let (finite, infinite) = (array![[1.0, -2.0]], array![[1.0, f64::INFINITY]]);
        assert!(is_reliable(&finite, 16.0 * UNIT_ROUNDOFF, 16.0) && is_reliable(&finite, 0.0, 16.0));
        assert!(!is_reliable(&finite, 16.1 * UNIT_ROUNDOFF, 16.0) && !is_reliable(&finite, f64::NAN, 16.0));
        assert!(!is_reliable(&infinite, 0.0, 16.0));
    }

    #[test]
    fn storage_is_used_again() {
        let mut workspace = Workspace::default();
        for w0 in [Array2::eye(4), Array2::from_elem((4, 4), 1.0), array![[1.0, 1.0], [1.0, 1.0 + 1e-16]]] {
            let t = Array2::ones((w0.nrows(), 1));
            solve_theta(&w0, &[Target::new(&t, Equation::W0)], None, &mut workspace).unwrap();
            let n = w0.nrows();
            assert_eq!(workspace.take((n, n)).dim(), w0.dim());
        }
    }

    #[test]
    fn what_least_squares_says_of_itself_by_hand() {
        // W = diag(3, 4) over zeros, T = (3, 4, 12): Θ = (1, 1), and 12 of 13 is left.
        let w0 = array![[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]];
        let (found, all) = solve(&w0, &array![[3.0], [4.0], [12.0]], Equation::W0);
        assert!((all.condition - 4.0 / 3.0).abs() < 1e-15 && (found.residual.unwrap() - 12.0 / 13.0).abs() < 1e-15);
        let (kappa, growth) = (4.0 / 3.0, 12.0 / (4.0 * 2.0_f64.sqrt()));
        let factor = kappa + kappa * kappa * growth;
        assert!((found.error_factor / factor - 1.0).abs() < 1e-2, "{}, {factor}", found.error_factor);
        assert!(found.reliable && found.rounding.is_none() && !found.singular);
        let zero = solve(&Array2::zeros((3, 2)), &array![[3.0], [4.0], [12.0]], Equation::W0).0;
        assert_eq!((zero.backward_error, zero.residual, zero.reliable, zero.singular), (Some(0.0), Some(1.0), true, true));
        let none = solve(&w0, &Array2::zeros((3, 1)), Equation::W0).0;
        assert_eq!((none.backward_error, none.residual, none.reliable, none.error_factor), (None, None, true, all.condition));
    }

    fn sample(rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, columns), normal_stream(1, &[b"conversion"], rows * columns)).unwrap()
    }

    #[test]
    fn rounding_is_what_the_equations_say() {
        // Powers of two are solved exactly: the error is a unit in the last place of Θ. Noise as large as the coefficients comes back unchanged.
        let w0 = array![[0.0, 2.0], [8.0, 0.0]];
        let plain = noise(&[1.0, 1.0]);
        let exchanged = plain.select(ndarray::Axis(0), &[1, 0]);
        for (equation, theta) in
            [(Equation::W0, array![[1.0, 4.0], [1.0, 3.0]]), (Equation::W0Transposed, array![[4.0, 16.0], [0.25, 0.75]])]
        {
            let found = solve(&w0, &array![[2.0, 6.0], [8.0, 32.0]], equation).0;
            let rounding = found.rounding.unwrap();
            assert_eq!((&found.theta, &*rounding.response), (&theta, &exchanged));
            let sizes: Vec<f64> = theta.columns().into_iter().map(|c| UNIT_ROUNDOFF * frobenius_of(&c)).collect();
            assert_eq!(rounding.amplitudes, sizes);
        }
    }

    #[test]
    fn a_power_of_two_in_w0_is_in_its_rounding() {
        let (w0, t, scale) = (sample(20, 20), sample(20, 6), 2.0_f64.powi(40));
        for equation in [Equation::W0, Equation::W0Transposed] {
            let [plain, scaled] = [w0.clone(), &w0 * scale].map(|w0| solve(&w0, &t, equation).0);
            let [of_plain, of_scaled] = [&plain, &scaled].map(|found| found.rounding.as_ref().unwrap());
            assert_eq!(of_plain.response, of_scaled.response);
            assert_eq!(of_plain.amplitudes, of_scaled.amplitudes.iter().map(|a| a * scale).collect::<Vec<_>>());
            let sizes = column_norms(plain.theta.view());
            assert!(of_plain.amplitudes.iter().zip(sizes).all(|(amplitude, size)| *amplitude >= UNIT_ROUNDOFF * size));
        }
    }

    #[test]
    fn both_equations_at_once_at_any_size() {
        for n in [1, 2, 3, 5, 8, 13, 21, 34, 70] {
            let (w0, t) = (sample(n, n), sample(n, 3));
            let targets = [Target::new(&t, Equation::W0), Target::new(&t, Equation::W0Transposed)];
            let all = solve_theta(&w0, &targets, None, &mut Workspace::default()).unwrap();
            for (found, w) in all.matrices.iter().zip([w0.view(), w0.t()]) {
                assert_eq!(found.method, Method::Lu, "{n}: {:?}", found.backward_error);
                assert!(error(&w.dot(&found.theta), &t) < 1e-15 * all.condition, "{n}");
            }
            // The condition number is that of its own estimate.
            let lu = LuFactors::factorise(w0.clone()).unwrap();
            let started = starting_columns(n).map(|column| {
                let mut panel = Panel::zeros(n, 1);
                panel.set_column(0, column);
                panel.solve(&lu);
                panel.column(0)
            });
            let norm = w0.columns().into_iter().map(|c| c.iter().map(|v| v.abs()).sum()).fold(0.0, f64::max);
            let estimate = 1.0 / reciprocal_condition(&lu, norm, [&started[0], &started[1]]);
            assert!((all.condition / estimate - 1.0).abs() < 1e-12, "{n}: {}, {estimate}", all.condition);
            let without_targets = Solver::new(&w0, None, &mut Workspace::default()).unwrap().condition().unwrap();
            assert_eq!(without_targets, all.condition);
        }
    }
}
