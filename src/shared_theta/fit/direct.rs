//! The direct fit: one Θ_A and one Θ_B by least squares over all layers, on A and B as they are stored.
//!
//! `W = [W0_1; …; W0_L]`, targets stacked likewise. The weights are read three times, one at a time: for the triangle, for the residual of each layer, and for the
//! expectation.

use ndarray::Array2;
use rayon::prelude::*;

use super::layers::{SharedLayers, rows_of, target};
use super::score::{Leverage, Scores, Squares, WeightedGram};
use crate::controls::Factor;
use crate::conversion::Equation;
use crate::error::Result;
use crate::linalg::UNIT_ROUNDOFF;
use crate::linalg::lapack::multiply;
use crate::linalg::least_squares::LeastSquares;
use crate::linalg::norms::frobenius_of;
use crate::linalg::stacked::{Reflected, StackedQr};
use crate::terms::Status;

/// One Θ for each factor, and what the fit of the updates needs.
pub(super) struct DirectFit {
    /// Θ_A and Θ_B.
    pub(super) thetas: [Array2<f64>; 2],
    pub(super) scores: [Scores; 2],
    /// What solves with the stack of each factor.
    pub(super) stacks: Vec<FittedStack>,
}

/// The stack of one equation: `W0_l = Q_l·R`.
pub(super) struct FittedStack {
    pub(super) equation: Equation,
    /// R.
    pub(super) triangle: Array2<f64>,
    pub(super) solver: LeastSquares,
    /// The factors whose Θ it is for.
    pub(super) factors: Vec<Factor>,
}

impl FittedStack {
    /// The stack of an equation that no factor is fitted by.
    ///
    /// # Errors
    /// What is wrong with a weight; [`crate::Error::Lapack`] if a factorisation fails.
    pub(super) fn alone(layers: &SharedLayers<'_>, equation: Equation) -> Result<Self> {
        let mut qr = StackedQr::new(layers.shape(equation).1);
        for layer in 0..layers.count() {
            qr.add(rows_of(&(layers.read)(layer)?, equation), Vec::new())?;
        }
        Ok(Self { equation, triangle: qr.triangle(), solver: qr.least_squares()?, factors: Vec::new() })
    }

    /// Q_lᵀ (n, rows) of a layer.
    pub(super) fn basis_of(&self, layers: &SharedLayers<'_>, layer: usize) -> Result<Array2<f64>> {
        let w0 = (layers.read)(layer)?;
        Ok(self.solver.solve(rows_of(&w0, self.equation).t(), true))
    }
}

impl DirectFit {
    /// The stack of a factor.
    pub(super) fn stack(&self, factor: Factor) -> &FittedStack {
        let stack = self.stacks.iter().find(|stack| stack.factors.contains(&factor));
        stack.unwrap_or_else(|| unreachable!("the equations have both factors among them"))
    }
}

/// Q_lᵀ (n, rows) of every layer, for some equations: what one Θ can reach in each layer.
pub(super) struct StackBases(Vec<(Equation, Vec<Array2<f64>>)>);

impl StackBases {
    /// Solves with the stacks of a fit, and factorises those that it does not have.
    ///
    /// # Errors
    /// What is wrong with a weight; [`crate::Error::Lapack`] if a factorisation fails.
    pub(super) fn of(layers: &SharedLayers<'_>, fit: &DirectFit, equations: &[Equation]) -> Result<Self> {
        let of = |&equation: &Equation| -> Result<(Equation, Vec<Array2<f64>>)> {
            let own = fit.stacks.iter().find(|stack| stack.equation == equation);
            let made = if own.is_none() { Some(FittedStack::alone(layers, equation)?) } else { None };
            let stack = own.or(made.as_ref()).unwrap_or_else(|| unreachable!("it was made where there was none"));
            let bases: Result<_> = (0..layers.count()).into_par_iter().map(|layer| stack.basis_of(layers, layer)).collect();
            Ok((equation, bases?))
        };
        equations.iter().map(of).collect::<Result<_>>().map(Self)
    }

    /// The bases of one of these equations.
    pub(super) fn of_equation(&self, equation: Equation) -> &[Array2<f64>] {
        let found = self.0.iter().find(|(own, _)| *own == equation);
        found.map_or_else(|| unreachable!("the equations that are asked about were given"), |(_, bases)| bases)
    }
}

/// The targets of all layers, one under the other, while the stack is factorised.
struct StackedTarget {
    factor: Factor,
    /// The draw's number; none for the trained factor.
    draw: Option<usize>,
    reflected: Reflected,
    theta: Array2<f64>,
    squares: Squares,
}

/// Fits the factors, and `draws` Gaussian targets for comparison.
///
/// # Errors
/// What is wrong with a weight; [`crate::Error::Lapack`] if a factorisation fails.
pub(super) fn fit_direct(layers: &SharedLayers<'_>, seed: u64, draws: usize) -> Result<DirectFit> {
    let mut stacks = Vec::new();
    let mut found = Vec::new();
    for (equation, factors) in layers.equations() {
        let (stack, scored) = fit_stack(layers, equation, &factors, seed, draws)?;
        stacks.push(stack);
        found.extend(scored);
    }
    // Equations are in the order of the factors.
    let Ok([(theta_a, of_a), (theta_b, of_b)]) = <[Scored; 2]>::try_from(found) else {
        unreachable!("the equations have both factors among them, each once")
    };
    Ok(DirectFit { thetas: [theta_a, theta_b], scores: [of_a, of_b], stacks })
}

/// Θ of a factor, and its residuals.
type Scored = (Array2<f64>, Scores);

fn fit_stack(
    layers: &SharedLayers<'_>,
    equation: Equation,
    factors: &[Factor],
    seed: u64,
    draws: usize,
) -> Result<(FittedStack, Vec<Scored>)> {
    let (rows, n) = layers.shape(equation);
    let all = |draw: Option<usize>| {
        factors.iter().map(move |&factor| StackedTarget {
            factor,
            draw,
            reflected: Reflected::new(n, layers.rank),
            theta: Array2::zeros((0, 0)),
            squares: Squares::default(),
        })
    };
    let mut sides: Vec<StackedTarget> = all(None).chain((0..draws).flat_map(|number| all(Some(number)))).collect();
    let mut qr = StackedQr::new(n);
    let mut norm = 0.0_f64;
    for layer in 0..layers.count() {
        let w0 = (layers.read)(layer)?;
        norm = norm.hypot(frobenius_of(&w0));
        let drawn: Vec<_> = (0..draws).map(|number| layers.drawn(seed, number, layer)).collect();
        let beside = sides.iter_mut().map(|side| {
            let pair = side.draw.map_or(&layers.trained[layer], |number| &drawn[number]);
            (&mut side.reflected, target(pair, side.factor))
        });
        qr.add(rows_of(&w0, equation), beside.collect())?;
    }
    let solver = qr.least_squares()?;
    for side in &mut sides {
        side.theta = solver.solve(side.reflected.values().view(), false);
    }
    let stack = FittedStack { equation, triangle: qr.triangle(), factors: factors.to_vec(), solver };

    let mut gradients = vec![Array2::<f64>::zeros((n, layers.rank)); factors.len()];
    let mut own = Vec::new();
    let mut weighted: Vec<WeightedGram> = factors.iter().map(|_| WeightedGram::new(n)).collect();
    for layer in 0..layers.count() {
        let w0 = (layers.read)(layer)?;
        let block = rows_of(&w0, equation);
        for (k, side) in sides.iter_mut().enumerate() {
            let drawn = side.draw.map(|number| layers.drawn(seed, number, layer));
            let wanted = target(drawn.as_ref().unwrap_or(&layers.trained[layer]), side.factor);
            let rest = &wanted - &block.dot(&side.theta);
            side.squares.residual.push(frobenius_of(&rest).powi(2));
            side.squares.target.push(frobenius_of(&wanted).powi(2));
            if let Some(gradient) = gradients.get_mut(k) {
                *gradient += &block.t().dot(&rest);
            }
        }
        let basis = stack.solver.solve(block.t(), true);
        let gram = multiply(basis.view(), basis.t());
        own.push(frobenius_of(&basis).powi(2));
        for (weighted, side) in weighted.iter_mut().zip(&sides) {
            weighted.add(side.squares.target[layer], &gram);
        }
    }
    let mut with_all = vec![Vec::new(); factors.len()];
    for layer in 0..layers.count() {
        let basis = stack.basis_of(layers, layer)?;
        let gram = multiply(basis.view(), basis.t());
        for (found, weighted) in with_all.iter_mut().zip(&weighted) {
            found.push(weighted.meet(&gram));
        }
    }

    let mut scored = Vec::with_capacity(factors.len());
    for ((k, &factor), with_all) in factors.iter().enumerate().zip(with_all) {
        let side = &sides[k];
        let drawn: Vec<Squares> =
            sides.iter().filter(|s| s.factor == factor && s.draw.is_some()).map(|s| s.squares.clone()).collect();
        let expected = Leverage { rows, own: own.clone(), with_all }.expected(&side.squares.target);
        let size = side.squares.target.iter().sum::<f64>().sqrt();
        let status = status_of(&stack.solver, n, &side.theta, size, norm, frobenius_of(&gradients[k]), rows * layers.count());
        scored.push((side.theta.clone(), Scores::new(&side.squares, &drawn, Some(expected), status)));
    }
    Ok((stack, scored))
}

/// Checks the solution by its gradient, as every least-squares solve is checked, and looks at the stack's rank.
fn status_of(solver: &LeastSquares, n: usize, theta: &Array2<f64>, size: f64, norm: f64, gradient: f64, rows: usize) -> Status {
    let scale = norm * (norm * frobenius_of(theta) + size);
    let passed =
        theta.iter().all(|v| v.is_finite()) && (scale == 0.0 || gradient / scale <= 16.0 * rows.max(n) as f64 * UNIT_ROUNDOFF);
    if !passed {
        Status::Unreliable
    } else if solver.rank() < n {
        Status::Singular
    } else {
        Status::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::tests::{gaussian, layers_of};
    use super::super::layers::{FACTORS, Targets};
    use super::*;
    use crate::controls::mean_and_sd;
    use crate::inputs::FactorPair;
    use crate::terms::Convention;
    use ndarray::{Axis, concatenate};

    fn weights(count: usize, d_out: usize, d_in: usize) -> Vec<Array2<f64>> {
        (0..count).map(|l| gaussian(&format!("w{l}"), d_out, d_in) * (1.0 + l as f64)).collect()
    }

    fn random_targets(count: usize, d_out: usize, d_in: usize, rank: usize) -> Targets {
        let scaled = |name: &str, l: usize, rows: usize| gaussian(&format!("{name}{l}"), rows, rank) * (1.0 + 2.0 * l as f64);
        (0..count).map(|l| FactorPair { a_transposed: scaled("a", l, d_in), b: scaled("b", l, d_out) }).collect()
    }

    #[test]
    fn a_shared_theta_is_found_again() {
        for (convention, d_out, d_in) in
            [(Convention::Paper, 20, 20), (Convention::General, 20, 14), (Convention::General, 9, 16)]
        {
            let weights = weights(3, d_out, d_in);
            let length_a = if convention == Convention::Paper { d_in } else { d_out };
            let (theta_a, theta_b) = (gaussian("ta", length_a, 2), gaussian("tb", d_in, 2));
            let made = |w: &Array2<f64>| FactorPair {
                a_transposed: if convention == Convention::Paper { w.dot(&theta_a) } else { w.t().dot(&theta_a) },
                b: w.dot(&theta_b),
            };
            let layers = layers_of(convention, &weights, weights.iter().map(made).collect());
            let fit = fit_direct(&layers, 0, 0).unwrap();
            for (found, planted) in fit.thetas.iter().zip([&theta_a, &theta_b]) {
                assert!(frobenius_of(&(found - planted)) < 1e-11 * frobenius_of(planted), "{convention}");
            }
            for scores in &fit.scores {
                assert_eq!(scores.status, Status::Ok);
                assert!(scores.all.residual.unwrap() < 1e-12 && scores.all.draws.is_empty());
            }
        }
    }

    #[test]
    fn residuals_are_those_of_the_whole_stack() {
        let (weights, targets) = (weights(4, 15, 15), random_targets(4, 15, 15, 3));
        let whole = concatenate(Axis(0), &weights.iter().map(|w| w.view()).collect::<Vec<_>>()).unwrap();
        for (k, factor) in FACTORS.into_iter().enumerate() {
            let stacked = concatenate(Axis(0), &targets.iter().map(|t| target(t, factor)).collect::<Vec<_>>()).unwrap();
            let theta = LeastSquares::factorise(whole.view(), None).unwrap().solve(stacked.view(), false);
            let rest = &stacked - &whole.dot(&theta);
            let expected = frobenius_of(&rest) / frobenius_of(&stacked);
            let fit = fit_direct(&layers_of(Convention::Paper, &weights, random_targets(4, 15, 15, 3)), 0, 0).unwrap();
            assert!((fit.scores[k].all.residual.unwrap() - expected).abs() < 1e-13);
            assert!(frobenius_of(&(&fit.thetas[k] - &theta)) < 1e-12 * frobenius_of(&theta));
            let last = frobenius_of(&rest.slice(ndarray::s![45.., ..])) / frobenius_of(&target(&targets[3], factor));
            assert!((fit.scores[k].layers[3].residual.unwrap() - last).abs() < 1e-13);
        }
    }

    #[test]
    fn the_expectation_is_the_mean_of_many_draws() {
        // Unequal weights and norms, so that neither √(1 − 1/N) nor √(1 − ‖Q_l‖²/rows) holds for the layers.
        for (convention, d_out, d_in) in [(Convention::Paper, 16, 16), (Convention::General, 24, 10)] {
            let weights = weights(3, d_out, d_in);
            let layers = layers_of(convention, &weights, random_targets(3, d_out, d_in, 2));
            let draws = 400;
            for scores in fit_direct(&layers, 0, draws).unwrap().scores {
                for score in scores.layers.iter().chain([&scores.all]) {
                    let squares: Vec<f64> = score.draws.iter().map(|r| r * r).collect();
                    let (mean, sd) = mean_and_sd(&squares);
                    let off = score.expected.unwrap().powi(2) - mean.unwrap();
                    let error = sd.unwrap() / (draws as f64).sqrt();
                    assert!(off.abs() < 4.5 * error, "{convention}: off by {off:e}, standard error {error:e}");
                }
            }
        }
    }

    #[test]
    fn singular_stacks_and_missing_targets_say_so() {
        let thin = gaussian("thin", 2, 8);
        let weights: Vec<_> = (0..2).map(|l| gaussian(&format!("t{l}"), 8, 2).dot(&thin)).collect();
        let mut targets = random_targets(2, 8, 8, 2);
        targets.iter_mut().for_each(|pair| pair.b.fill(0.0));
        let fit = fit_direct(&layers_of(Convention::Paper, &weights, targets), 0, 2).unwrap();
        assert_eq!([fit.scores[0].status, fit.scores[1].status], [Status::Singular, Status::Zero]);
        assert_eq!((fit.scores[1].all.residual, fit.scores[1].all.expected), (None, None));
        assert!(fit.thetas[1].iter().all(|v| *v == 0.0));
    }
}
