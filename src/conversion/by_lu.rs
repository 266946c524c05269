//! The solves that LU serves: all columns of a call at once, each checked by its own backward error.

use std::sync::Arc;

use ndarray::{Array2, ArrayView1};

use super::batch::{PanelColumns, Rest, blocks, rests};
use super::equation::{ConversionMatrix, Equation, Target, WeightRows, Workspace, fill, is_reliable};
use crate::error::Result;
use crate::linalg::condition::{STARTING_COLUMNS, reciprocal_condition, starting_columns};
use crate::linalg::lu::LuFactors;
use crate::linalg::norms::{MatrixNorms, column_norms, frobenius_of};
use crate::linalg::panel::Panel;
use crate::linalg::perturbation::{Rounding, SAMPLES, noise};
use crate::linalg::{EPSILON, UNIT_ROUNDOFF};
use crate::terms::Method;

/// The LU factorisation of a square W0.
#[derive(Debug)]
pub(super) struct ByLu {
    lu: LuFactors,
    norms: MatrixNorms,
    /// Norms of W0's rows and columns, because the rounding errors of an equation have the size of its coefficients.
    lines: [Vec<f64>; 2],
    /// The estimate, once the first solve has made it.
    rcond: Option<f64>,
    /// Random errors of that size multiplied by W0⁻¹ and W0⁻ᵀ, once the first solve of each kind has computed them.
    responses: [Option<Arc<Array2<f64>>>; 2],
}

impl ByLu {
    /// Factorises W0; `None` where it has a zero pivot.
    pub(super) fn factorise(w0: &impl WeightRows, workspace: &mut Workspace) -> Result<Option<Self>> {
        let mut w = workspace.take(w0.shape());
        let (norms, lines) = fill(w0, &mut w)?;
        let lu = LuFactors::factorise(w)?;
        if lu.zero_pivot().is_some() {
            workspace.give_back(lu.into_storage());
            return Ok(None);
        }
        Ok(Some(Self { lu, norms, lines, rcond: None, responses: [None, None] }))
    }

    /// ‖W0‖_F.
    pub(super) fn norm(&self) -> f64 {
        self.norms.frobenius
    }

    pub(super) fn into_storage(self) -> Array2<f64> {
        self.lu.into_storage()
    }

    /// The condition number; `None` where W0 is too close to singular for LU.
    pub(super) fn condition(&mut self) -> Option<f64> {
        let n = self.lu.size();
        let rcond = match self.rcond {
            Some(rcond) => rcond,
            None => {
                let mut panel = Panel::zeros(n, STARTING_COLUMNS);
                set_starting_columns(&mut panel, 0);
                panel.solve(&self.lu);
                self.estimate(&panel, 0)
            }
        };
        (rcond >= n as f64 * EPSILON).then_some(1.0 / rcond)
    }

    /// The estimate from a panel whose columns from `first` on are the starting columns solved.
    fn estimate(&mut self, solved: &Panel, first: usize) -> f64 {
        let started: [Vec<f64>; STARTING_COLUMNS] = [solved.column(first), solved.column(first + 1)];
        *self.rcond.insert(reciprocal_condition(&self.lu, self.norms.one, [&started[0], &started[1]]))
    }

    /// Solves for all targets; `None` in place of a solution that failed its check, and in place of all where W0 is too close to singular.
    pub(super) fn solve(&mut self, w0: &impl WeightRows, targets: &[Target<'_>]) -> Option<Vec<Option<ConversionMatrix>>> {
        let n = self.lu.size();
        // The columns of the estimate and of the error bound are solved with the first targets and come after them, because their residuals are
        // not needed.
        let wanted = |equation, index: usize| self.responses[index].is_none() && targets.iter().any(|t| t.equation == equation);
        let (sample_straight, sample_turned) = (wanted(Equation::W0, 0), wanted(Equation::W0Transposed, 1));
        let starting = if self.rcond.is_none() { STARTING_COLUMNS } else { 0 };
        let samples = |wanted: bool| if wanted { SAMPLES } else { 0 };
        let mut straight =
            PanelColumns::of_targets(n, targets, |t| t.equation == Equation::W0, starting + samples(sample_straight));
        let mut turned = PanelColumns::of_targets(n, targets, |t| t.equation == Equation::W0Transposed, samples(sample_turned));
        let first_sample = straight.used + starting;
        if starting > 0 {
            set_starting_columns(&mut straight.panel, straight.used);
        }
        if sample_straight {
            straight.panel.set_columns(first_sample, noise(&self.lines[0]).view());
        }
        if sample_turned {
            turned.panel.set_columns(turned.used, noise(&self.lines[1]).view());
        }
        straight.panel.solve(&self.lu);
        turned.panel.solve_transposed(&self.lu);
        if starting > 0 {
            self.estimate(&straight.panel, straight.used);
        }
        if sample_straight {
            self.responses[0] = Some(Arc::new(straight.panel.block(first_sample, SAMPLES)));
        }
        if sample_turned {
            self.responses[1] = Some(Arc::new(turned.panel.block(turned.used, SAMPLES)));
        }
        let condition = self.condition()?;
        let thetas = blocks(&[(&straight, &straight.panel), (&turned, &turned.panel)]);
        let rests = rests(w0, targets, &thetas, false, of_square);
        let found = thetas.into_iter().zip(rests).zip(targets).map(|((theta, rest), target)| {
            let (found, method) = match Checked::new(theta, rest, target, self.norms) {
                found if found.reliable => (found, Method::Lu),
                probed => match probed.with_all(w0, target, self.norms) {
                    found if found.reliable => (found, Method::Lu),
                    found => (self.refine(w0, target, &found), Method::LuRefined),
                },
            };
            found.reliable.then(|| {
                let rounding = self.rounding(target.equation, &found);
                found.into_matrix(method, condition, rounding, n)
            })
        });
        Some(found.collect())
    }

    /// One step of iterative refinement: Θ + W⁻¹(T − WΘ).
    fn refine(&self, w0: &impl WeightRows, target: &Target<'_>, found: &Checked) -> Checked {
        let mut better = Panel::of(found.rest.values.view());
        match target.equation {
            Equation::W0 => better.solve(&self.lu),
            Equation::W0Transposed => better.solve_transposed(&self.lu),
        }
        Checked::of_all(better.all() + &found.theta, w0, target, self.norms)
    }

    /// How large the errors in the equations are: at least one unit in the last place of the terms summed in each, and more where the residual shows more.
    ///
    /// Where only combinations of the columns were checked, the errors of a column are taken to be as large for its norm as those of the combinations.
    fn rounding(&self, equation: Equation, found: &Checked) -> Option<Rounding> {
        let index = usize::from(equation == Equation::W0Transposed);
        let most = |rest: ArrayView1<'_, f64>| {
            rest.iter().zip(&self.lines[index]).fold(0.0_f64, |most, (rest, line)| most.max(rest.abs() / line))
        };
        let (rest, norms) = (&found.rest, column_norms(found.theta.view()).into_iter());
        let amplitudes = if rest.of_all {
            norms.zip(rest.values.columns()).map(|(norm, rest)| (UNIT_ROUNDOFF * norm).max(most(rest))).collect()
        } else {
            let checked = rest.values.columns().into_iter().zip(&rest.norms).filter(|(_, [theta, _])| *theta > 0.0);
            let share = checked.fold(UNIT_ROUNDOFF, |share, (rest, [theta, _])| share.max(most(rest) / theta));
            norms.map(|norm| norm * share).collect()
        };
        self.responses[index].as_ref().map(|response| Rounding { response: Arc::clone(response), amplitudes })
    }
}

/// Square matrices have no targets in range.
fn of_square(_: Array2<f64>) -> Array2<f64> {
    unreachable!("a square matrix has no range that is smaller than the space")
}

/// Writes the starting vectors of the condition estimate into the panel's columns from `first` on.
fn set_starting_columns(panel: &mut Panel, first: usize) {
    for (k, column) in starting_columns(panel.rows()).into_iter().enumerate() {
        panel.set_column(first + k, column);
    }
}

/// A solution, what it leaves of its right-hand sides, and its backward error.
struct Checked {
    theta: Array2<f64>,
    rest: Rest,
    residual: Option<f64>,
    backward_error: Option<f64>,
    reliable: bool,
}

impl Checked {
    fn new(theta: Array2<f64>, rest: Rest, target: &Target<'_>, norms: MatrixNorms) -> Self {
        let target_size = frobenius_of(&target.values);
        if target_size == 0.0 {
            return Self { theta, rest, residual: None, backward_error: None, reliable: true };
        }
        let backward_error = rest.relative_size(norms.frobenius);
        let residual = rest.size() / target_size;
        let limit = theta.nrows().max(16) as f64 * rest.share_of_limit();
        let reliable = is_reliable(&theta, backward_error, limit);
        Self { theta, rest, residual: Some(residual), backward_error: Some(backward_error), reliable }
    }

    /// With every column checked.
    fn of_all(theta: Array2<f64>, w0: &impl WeightRows, target: &Target<'_>, norms: MatrixNorms) -> Self {
        let rest = rests(w0, &[*target], std::slice::from_ref(&theta), true, of_square).remove(0);
        Self::new(theta, rest, target, norms)
    }

    /// The same with every column checked, if some were not.
    fn with_all(self, w0: &impl WeightRows, target: &Target<'_>, norms: MatrixNorms) -> Self {
        if self.rest.of_all { self } else { Self::of_all(self.theta, w0, target, norms) }
    }

    fn into_matrix(self, method: Method, error_factor: f64, rounding: Option<Rounding>, n: usize) -> ConversionMatrix {
        let Self { theta, residual, backward_error, reliable, .. } = self;
        ConversionMatrix {
            theta,
            method,
            residual,
            backward_error,
            reliable,
            error_factor,
            rounding,
            w0_rank: n,
            singular: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::random::normal_stream;

    fn gaussian(label: &str, rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, columns), normal_stream(6, &[label.as_bytes()], rows * columns)).unwrap()
    }

    /// A check of Θ by all columns or by combinations.
    type Check<'c> = &'c dyn Fn(Array2<f64>, bool) -> Checked;

    /// A solved system (n, n) with k right-hand sides: its solver, its solution, and how that is checked.
    fn with_solved((n, k): (usize, usize), test: impl Fn(&ByLu, Array2<f64>, Check<'_>)) {
        let (w0, right) = (gaussian("w", n, n), gaussian("t", n, k));
        let mut solver = ByLu::factorise(&w0, &mut Workspace::default()).unwrap().unwrap();
        let target = Target::new(&right, Equation::W0);
        let theta = solver.solve(&w0, &[target]).unwrap().remove(0).unwrap().theta;
        let check = |theta: Array2<f64>, all: bool| {
            let rest = rests(&w0, &[target], std::slice::from_ref(&theta), all, of_square).remove(0);
            Checked::new(theta, rest, &target, solver.norms)
        };
        test(&solver, theta, &check);
    }

    #[test]
    fn an_error_in_one_number_is_seen_by_the_combinations() {
        let (n, k) = (120, 8);
        with_solved((n, k), |_, theta, check| {
            assert!(check(theta.clone(), false).reliable);
            let (mut wrong, mut seen) = (0, 0);
            for exponent in -60..10 {
                for place in 0..n * k / 7 {
                    let mut off = theta.clone();
                    off[(place * 7 / k, place * 7 % k)] += 2.0_f64.powi(exponent);
                    let by_combinations = check(off.clone(), false).reliable;
                    if !check(off, true).reliable {
                        wrong += 1;
                        seen += usize::from(!by_combinations);
                    }
                }
            }
            assert!(wrong > 5000, "{wrong}");
            assert_eq!(seen, wrong);
        });
    }

    #[test]
    fn amplitudes_from_combinations_are_those_of_the_columns_but_for_a_factor() {
        with_solved((90, 16), |solver, theta, check| {
            let amplitudes = |all: bool| {
                let found = check(theta.clone(), all);
                (found.backward_error.unwrap(), solver.rounding(Equation::W0, &found).unwrap().amplitudes)
            };
            let ((by_columns, of_columns), (by_combinations, of_combinations)) = (amplitudes(true), amplitudes(false));
            assert!((0.5..2.0).contains(&(by_combinations / by_columns)), "{by_combinations:e}, {by_columns:e}");
            for (column, combination) in of_columns.iter().zip(&of_combinations) {
                assert!((0.3..6.0).contains(&(combination / column)), "{combination:e}, {column:e}");
            }
        });
    }
}
