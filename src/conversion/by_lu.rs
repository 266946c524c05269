//! The solves that LU serves: all columns of a call at once, each checked by its own backward error.

use std::sync::Arc;

use ndarray::{Array2, ArrayView1, ArrayView2};

use super::equation::{ConversionMatrix, Equation, Target, WeightRows, Workspace, fill, is_reliable};
use crate::error::Result;
use crate::linalg::condition::{STARTING_COLUMNS, reciprocal_condition, starting_columns};
use crate::linalg::lu::LuFactors;
use crate::linalg::norms::{MatrixNorms, frobenius_of, line_norms};
use crate::linalg::panel::Panel;
use crate::linalg::perturbation::{Rounding, SAMPLES, noise};
use crate::linalg::{EPSILON, UNIT_ROUNDOFF};
use crate::terms::Method;

/// How many rows of W0 are converted to f64 at a time for the residuals.
const RESIDUAL_ROWS: usize = 64;

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
        let mut w = workspace.take(w0.shape().0);
        let norms = fill(w0, &mut w)?;
        let Some(values) = w.as_slice() else { unreachable!("the workspace gives matrices in standard layout") };
        let lines = line_norms(values, w.ncols(), norms.frobenius);
        let lu = LuFactors::factorise(w)?;
        if lu.zero_pivot().is_some() {
            workspace.give_back(lu.into_storage());
            return Ok(None);
        }
        Ok(Some(Self { lu, norms, lines, rcond: None, responses: [None, None] }))
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
        let mut straight = PanelColumns::new(n, targets, Equation::W0, starting + samples(sample_straight));
        let mut turned = PanelColumns::new(n, targets, Equation::W0Transposed, samples(sample_turned));
        // The right-hand sides are needed again for the residuals.
        let (mut straight_rest, mut turned_rest) = (straight.panel.truncated(straight.used), turned.panel.truncated(turned.used));
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
        straight.panel.truncate(straight.used);
        turned.panel.truncate(turned.used);
        let condition = self.condition()?;
        subtract_products(w0, &straight.panel, &mut straight_rest, &turned.panel, &mut turned_rest);

        let found = targets.iter().enumerate().map(|(index, target)| {
            let k = target.values.ncols();
            let (theta, rest) = match (straight.first[index], turned.first[index]) {
                (Some(first), _) => (straight.panel.block(first, k), straight_rest.block(first, k)),
                (_, first) => (turned.panel.block(first?, k), turned_rest.block(first?, k)),
            };
            let (found, rest, method) = match Checked::new(theta, &rest, target, self.norms, n) {
                found if found.reliable => (found, rest, Method::Lu),
                found => {
                    let (found, rest) = self.refine(w0, target, &found.theta, &rest);
                    (found, rest, Method::LuRefined)
                }
            };
            found.reliable.then(|| {
                let rounding = self.rounding(target.equation, &found.theta, &rest);
                found.into_matrix(method, condition, rounding, n)
            })
        });
        Some(found.collect())
    }

    /// One step of iterative refinement: Θ + W⁻¹(T − WΘ).
    fn refine(
        &self,
        w0: &impl WeightRows,
        target: &Target<'_>,
        theta: &Array2<f64>,
        rest: &Array2<f64>,
    ) -> (Checked, Array2<f64>) {
        let (n, k) = target.values.dim();
        let panel_of = |block: ArrayView2<'_, f64>| {
            let mut panel = Panel::zeros(n, k);
            panel.set_columns(0, block);
            panel
        };
        let mut better = panel_of(rest.view());
        let empty = Panel::zeros(n, 0);
        let mut new_rest = panel_of(target.values);
        match target.equation {
            Equation::W0 => {
                better.solve(&self.lu);
                better.add(&panel_of(theta.view()));
                subtract_products(w0, &better, &mut new_rest, &empty, &mut empty.clone());
            }
            Equation::W0Transposed => {
                better.solve_transposed(&self.lu);
                better.add(&panel_of(theta.view()));
                subtract_products(w0, &empty, &mut empty.clone(), &better, &mut new_rest);
            }
        }
        let new_rest = new_rest.block(0, k);
        (Checked::new(better.block(0, k), &new_rest, target, self.norms, n), new_rest)
    }

    /// How large the errors in the equations are: at least one unit in the last place of the terms summed in each, and more where the residual shows more.
    fn rounding(&self, equation: Equation, theta: &Array2<f64>, rest: &Array2<f64>) -> Option<Rounding> {
        let index = usize::from(equation == Equation::W0Transposed);
        let lines = &self.lines[index];
        let amplitude = |(theta, rest): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| {
            let size = UNIT_ROUNDOFF * frobenius_of(&theta);
            rest.iter().zip(lines).fold(size, |most, (rest, line)| most.max(rest.abs() / line))
        };
        let amplitudes = theta.columns().into_iter().zip(rest.columns()).map(amplitude).collect();
        self.responses[index].as_ref().map(|response| Rounding { response: Arc::clone(response), amplitudes })
    }
}

/// Where the columns of the targets of one equation are in their panel.
struct PanelColumns {
    panel: Panel,
    first: Vec<Option<usize>>,
    /// How many columns the targets have together; the panel's other columns come after them.
    used: usize,
}

impl PanelColumns {
    fn new(n: usize, targets: &[Target<'_>], equation: Equation, extra: usize) -> Self {
        let mut used = 0;
        let first: Vec<_> = targets
            .iter()
            .map(|t| {
                (t.equation == equation).then(|| {
                    used += t.values.ncols();
                    used - t.values.ncols()
                })
            })
            .collect();
        let mut panel = Panel::zeros(n, used + extra);
        for (target, first) in targets.iter().zip(&first) {
            if let Some(first) = first {
                panel.set_columns(*first, target.values);
            }
        }
        Self { panel, first, used }
    }
}

/// Writes the starting vectors of the condition estimate into the panel's columns from `first` on.
fn set_starting_columns(panel: &mut Panel, first: usize) {
    for (k, column) in starting_columns(panel.rows()).into_iter().enumerate() {
        panel.set_column(first + k, column);
    }
}

/// Subtracts `W·x` from the right-hand sides of W and `Wᵀ·x` from those of Wᵀ, converting W to f64 once.
fn subtract_products(w0: &impl WeightRows, straight: &Panel, straight_rest: &mut Panel, turned: &Panel, turned_rest: &mut Panel) {
    let (d_out, d_in) = w0.shape();
    let mut buffer = vec![0.0; RESIDUAL_ROWS.min(d_out) * d_in];
    for first in (0..d_out).step_by(RESIDUAL_ROWS) {
        let rows = RESIDUAL_ROWS.min(d_out - first);
        let part = &mut buffer[..rows * d_in];
        w0.copy_rows(first, part);
        if straight.columns() > 0 {
            straight_rest.subtract_product(first, part, straight);
        }
        if turned.columns() > 0 {
            turned_rest.subtract_transposed_product(first, part, turned);
        }
    }
}

/// A solution with its backward error.
struct Checked {
    theta: Array2<f64>,
    residual: Option<f64>,
    backward_error: Option<f64>,
    reliable: bool,
}

impl Checked {
    fn new(theta: Array2<f64>, rest: &Array2<f64>, target: &Target<'_>, norms: MatrixNorms, n: usize) -> Self {
        let (size, target_size) = (frobenius_of(rest), frobenius_of(&target.values));
        if target_size == 0.0 {
            return Self { theta, residual: None, backward_error: None, reliable: true };
        }
        let backward_error = size / (norms.frobenius * frobenius_of(&theta) + target_size);
        let reliable = is_reliable(&theta, backward_error, n.max(16) as f64);
        Self { theta, residual: Some(size / target_size), backward_error: Some(backward_error), reliable }
    }

    fn into_matrix(self, method: Method, error_factor: f64, rounding: Option<Rounding>, n: usize) -> ConversionMatrix {
        let Self { theta, residual, backward_error, reliable } = self;
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
