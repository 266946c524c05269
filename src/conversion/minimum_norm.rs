//! The solves that LU cannot serve: minimum-norm least squares, checked by the gradient of the residual.

use ndarray::{Array2, ArrayView2};

use super::batch::{PanelColumns, Rest, blocks, rests, views, without_products};
use super::equation::{ConversionMatrix, Core, Equation, Target, WeightRows, Workspace, fill_tall, is_reliable};
use crate::error::Result;
use crate::linalg::least_squares::LeastSquares;
use crate::linalg::norms::{frobenius, frobenius_of};
use crate::linalg::panel::Panel;
use crate::terms::Method;

/// Minimum-norm least squares with its check.
#[derive(Debug)]
pub(super) struct MinimumNorm {
    shape: (usize, usize),
    norm: f64,
    factors: LeastSquares,
}

impl MinimumNorm {
    pub(super) fn new(w0: &impl WeightRows, rcond: Option<f64>, workspace: &mut Workspace) -> Result<Self> {
        let shape = w0.shape();
        let (longest, wide) = (shape.0.max(shape.1), shape.1 > shape.0);
        let (mut tall, norm) = fill_tall(w0, workspace)?;
        if rcond.is_none() {
            if let Some(factors) = LeastSquares::by_qr(tall, norm, wide, longest)? {
                return Ok(Self { shape, norm, factors });
            }
            // W was overwritten.
            (tall, _) = fill_tall(w0, workspace)?;
        }
        let w = if wide { tall.t() } else { tall.view() };
        Ok(Self { shape, norm, factors: LeastSquares::by_svd(w, rcond, longest)? })
    }

    /// What is left of a W0 that was factorised without its orthonormal part.
    pub(super) fn core(&self) -> Option<Core<'_>> {
        let (triangle, unit, wide) = self.factors.triangle()?;
        Some(Core { triangle, unit, wide })
    }

    /// The storage that W0 was factorised in, if it was.
    pub(super) fn into_storage(self) -> Option<Array2<f64>> {
        self.factors.into_storage()
    }

    /// ‖W0‖_F.
    pub(super) fn norm(&self) -> f64 {
        self.norm
    }

    pub(super) fn condition(&self) -> f64 {
        self.factors.condition()
    }

    /// The singular vectors of W0 that Θ is made of, where an SVD was made.
    pub(super) fn kept(&self) -> Option<[ArrayView2<'_, f64>; 2]> {
        self.factors.kept()
    }

    fn singular(&self) -> bool {
        self.factors.rank() < self.shape.0.min(self.shape.1)
    }

    /// Solves for all targets. The bits of one do not depend on the others.
    pub(super) fn solve(&self, w0: &impl WeightRows, targets: &[Target<'_>]) -> Vec<ConversionMatrix> {
        let (d_out, d_in) = self.shape;
        let columns = |n: usize, equation: Equation, in_range: bool| {
            PanelColumns::of_targets(n, targets, |target| target.equation == equation && target.in_range == in_range, 0)
        };
        let longer = if d_out > d_in { Equation::W0 } else { Equation::W0Transposed };
        let mut of = [
            columns(d_out, Equation::W0, false),
            columns(d_in, Equation::W0Transposed, false),
            columns(d_out.min(d_in), longer, true),
        ];
        let [straight, turned, in_range] = of.each_mut().map(|columns| std::mem::replace(&mut columns.panel, Panel::zeros(0, 0)));
        let solved = [
            self.factors.solve_panel(straight, false),
            self.factors.solve_panel(turned, true),
            self.factors.solve_in_range(in_range, longer == Equation::W0Transposed),
        ];
        let panels: Vec<_> = of.iter().zip(solved.iter().map(|solved| &solved.theta)).collect();
        let thetas = blocks(&panels);
        // Of W cut by an SVD the residual is not known from the factors, and combinations would only estimate it.
        let checks = self.checks(w0, targets, &thetas, self.factors.kept().is_some());
        let found = thetas.into_iter().zip(checks).zip(targets).enumerate().map(|(index, ((theta, check), target))| {
            let known = panels
                .iter()
                .zip(&solved)
                .find_map(|((columns, _), solved)| Some(frobenius(&solved.residuals.as_ref()?[columns.places[index].clone()?])));
            match self.checked(target, theta, &check, known) {
                found if found.reliable || check.rest.of_all => found,
                found => {
                    let check = self.checks(w0, &[*target], std::slice::from_ref(&found.theta), true).remove(0);
                    self.checked(target, found.theta, &check, known)
                }
            }
        });
        found.collect()
    }

    /// What is left of the right-hand sides, and its gradient.
    fn checks(&self, w0: &impl WeightRows, targets: &[Target<'_>], thetas: &[Array2<f64>], all: bool) -> Vec<Check> {
        let rests = rests(w0, targets, thetas, all, |coordinates| self.factors.out_of_range(coordinates.view()));
        let equations: Vec<_> = targets.iter().map(|target| target.equation).collect();
        let gradients = match self.factors.kept() {
            Some(_) => {
                let of_kept = |(rest, equation): (&Rest, &Equation)| {
                    self.factors.gradient_of_kept(rest.values.view(), *equation == Equation::W0Transposed)
                };
                rests.iter().zip(&equations).map(of_kept).collect()
            }
            None => {
                let turned: Vec<_> = equations.iter().map(|equation| equation.turned()).collect();
                without_products(w0, &turned, &views(rests.iter().map(|rest| &rest.values)), None)
            }
        };
        let check = |(rest, gradient): (Rest, Array2<f64>)| Check { gradient: rest.relative(&gradient, self.norm), rest };
        rests.into_iter().zip(gradients).map(check).collect()
    }

    /// A solution with its residual, whose norm may be `known` from the factors, and the gradient of that.
    fn checked(&self, target: &Target<'_>, theta: Array2<f64>, check: &Check, known: Option<f64>) -> ConversionMatrix {
        let (target_size, theta_size) = (frobenius_of(&target.values), frobenius_of(&theta));
        let size = known.unwrap_or_else(|| check.rest.size());
        let kappa = self.factors.sensitivity();
        let mut found = ConversionMatrix {
            theta,
            method: Method::LeastSquares,
            residual: None,
            backward_error: None,
            reliable: true,
            error_factor: kappa,
            rounding: None,
            w0_rank: self.factors.rank(),
            singular: self.singular(),
        };
        if target_size == 0.0 {
            return found;
        }
        // W = 0 has the solution 0, which is the best there is.
        let backward_error = if self.norm == 0.0 { 0.0 } else { check.gradient / self.norm };
        let longest = self.shape.0.max(self.shape.1) as f64;
        let growth = size / (self.factors.norm_2() * theta_size);
        found.residual = Some(size / target_size);
        found.backward_error = Some(backward_error);
        found.reliable = is_reliable(&found.theta, backward_error, 16.0 * longest * check.rest.share_of_limit());
        found.error_factor = if growth > 0.0 { kappa + kappa * kappa * growth } else { kappa };
        found
    }
}

/// What a solution leaves of its right-hand sides, and the norm of its gradient relative to `‖W‖·‖Θ‖ + ‖T‖`.
struct Check {
    rest: Rest,
    gradient: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::{Workspace, solve_theta};
    use ndarray::array;

    #[test]
    fn the_backward_error_is_the_gradients() {
        // ‖W‖_F = 5, ‖Θ‖ = √2, ‖T‖ = 13.
        let w0 = array![[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]];
        let (theta, target) = (array![[1.0], [1.0]], array![[3.0], [4.0], [12.0]]);
        let solver = MinimumNorm::new(&w0, None, &mut Workspace::default()).unwrap();
        let target = Target::new(&target, Equation::W0);
        let scale = 5.0 * 2.0_f64.sqrt() + 13.0;
        let rest = Rest { values: array![[0.0], [0.0], [12.0]], norms: Vec::new(), of_all: true };
        let check = Check { rest, gradient: 0.5 / scale };
        let found = solver.checked(&target, theta, &check, None);
        let expected = 0.5 / 5.0 / scale;
        assert!((found.backward_error.unwrap() / expected - 1.0).abs() < 1e-15 && !found.reliable);
        assert!((found.residual.unwrap() - 12.0 / 13.0).abs() < 1e-15);
    }

    #[test]
    fn company_and_place_do_not_change_a_bit() {
        let entry = |a: usize, b: usize| ((a * 31 + b * 17 + a * b * 5) % 23) as f64 / 7.0 - 1.5;
        for (d_out, d_in) in [(90, 40), (40, 90)] {
            let w0 = Array2::from_shape_fn((d_out, d_in), |(a, b)| entry(a, b));
            let [straight, turned] = [d_out, d_in].map(|n| Array2::from_shape_fn((n, 37), |(a, b)| entry(b + 3, a)));
            for rcond in [None, Some(0.05)] {
                let solver = MinimumNorm::new(&w0, rcond, &mut Workspace::default()).unwrap();
                let targets = [Target::new(&straight, Equation::W0), Target::new(&turned, Equation::W0Transposed)];
                let together = solver.solve(&w0, &targets);
                for (all, target) in together.iter().zip(&targets) {
                    for columns in [0..1, 3..7, 30..37] {
                        let part = target.values.slice(ndarray::s![.., columns.clone()]).to_owned();
                        let alone = &solver.solve(&w0, &[Target::new(&part, target.equation)])[0];
                        assert_eq!(alone.theta, all.theta.slice(ndarray::s![.., columns]));
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_in_range_is_the_one_with_these_coordinates() {
        let entry = |a: usize, b: usize| ((a * 31 + b * 17 + a * b * 5) % 23) as f64 / 7.0 - 1.5;
        for (d_out, d_in, equation) in [(60, 20, Equation::W0), (20, 60, Equation::W0Transposed)] {
            let w0 = Array2::from_shape_fn((d_out, d_in), |(a, b)| entry(a, b));
            let coordinates = Array2::from_shape_fn((20, 5), |(a, b)| entry(b + 3, a));
            for rcond in [None, Some(0.2)] {
                let solver = MinimumNorm::new(&w0, rcond, &mut Workspace::default()).unwrap();
                let whole = solver.factors.out_of_range(coordinates.view());
                let targets = [Target::in_range(&coordinates, equation), Target::new(&whole, equation)];
                let [found, expected] = <[ConversionMatrix; 2]>::try_from(solver.solve(&w0, &targets)).unwrap();
                let off = frobenius_of(&(&found.theta - &expected.theta)) / frobenius_of(&expected.theta);
                assert!(off < 1e-13 && found.reliable && expected.reliable, "{off:e}");
                assert!(solver.factors.rank() < 20 || expected.residual.unwrap() < 1e-13);
                // It is orthonormal coordinates that the numbers are.
                assert!(rcond.is_some() || (frobenius_of(&whole) / frobenius_of(&coordinates) - 1.0).abs() < 1e-14);
            }
        }
        let values = Array2::ones((3, 1));
        for (w0, equation) in [(Array2::eye(3), Equation::W0), (Array2::ones((4, 3)), Equation::W0Transposed)] {
            assert!(solve_theta(&w0, &[Target::in_range(&values, equation)], None, &mut Workspace::default()).is_err());
        }
    }

    #[test]
    fn the_core_is_w0_but_for_a_basis_of_its_longer_side() {
        let entry = |a: usize, b: usize| ((a * 31 + b * 17 + a * b * 5) % 23) as f64 / 7.0 - 1.5;
        for ((d_out, d_in), scale) in
            [((50, 18), 1.0), ((18, 50), 1.0), ((50, 18), 2.0_f64.powi(450)), ((18, 50), 2.0_f64.powi(-450))]
        {
            let w0 = Array2::from_shape_fn((d_out, d_in), |(a, b)| entry(a, b) * scale);
            let solver = MinimumNorm::new(&w0, None, &mut Workspace::default()).unwrap();
            let core = solver.core().unwrap();
            assert_eq!(core.shape(), (18, 18));
            let mut m = Array2::from_elem((18, 18), f64::NAN);
            for first in [0, 5] {
                let rows = if first == 0 { 5 } else { 13 };
                core.copy_rows(first, &mut m.as_slice_mut().unwrap()[first * 18..(first + rows) * 18]);
            }
            let gram = |x: &Array2<f64>| if d_out > d_in { x.t().dot(x) } else { x.dot(&x.t()) };
            let (found, expected) = (gram(&(m / scale)), gram(&(w0 / scale)));
            assert!(frobenius_of(&(&found - &expected)) < 1e-13 * frobenius_of(&expected), "{d_out} x {d_in}");
        }
        let singular = Array2::ones((9, 4));
        assert!(MinimumNorm::new(&singular, None, &mut Workspace::default()).unwrap().core().is_none());
    }

    #[test]
    fn scales_at_the_ends_of_the_range_change_no_digit() {
        let entry = |a: usize, b: usize| ((a * 31 + b * 17 + a * b * 5) % 23) as f64 / 7.0 - 1.5;
        let plain = Array2::from_shape_fn((30, 12), |(a, b)| entry(a, b));
        let values = Array2::from_shape_fn((30, 4), |(a, b)| entry(b + 3, a));
        let target = [Target::new(&values, Equation::W0)];
        let theta = MinimumNorm::new(&plain, None, &mut Workspace::default()).unwrap().solve(&plain, &target).remove(0).theta;
        for exponent in [-900, 900] {
            let scale = 2.0_f64.powi(exponent);
            let w0 = &plain * scale;
            let found = MinimumNorm::new(&w0, None, &mut Workspace::default()).unwrap().solve(&w0, &target).remove(0);
            assert_eq!(found.theta * scale, theta);
        }
    }
}
