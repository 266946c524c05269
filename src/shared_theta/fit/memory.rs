//! How much memory a fit takes.

use super::opening::Fittable;
use super::params::FitConfig;
use crate::terms::Convention;

/// Bytes that the fit of one module holds at the same time, with this many threads.
pub(super) fn bytes_for(module: &Fittable, config: &FitConfig, threads: usize) -> u64 {
    let (d_out, d_in) = module.shape();
    let length = d_out.max(d_in) as u64;
    let layers = module.layers.len() as u64;
    let sets = config.given.null_draws.together() as u64 + 1;
    let (strict, held_out, delta) = (config.is_strict(module.shape()), config.given.held_out, config.given.delta);
    let at_once = layers.min(threads as u64);
    let square = length * length;
    // A and B, or Θ_A and Θ_B.
    let pair = 2 * length * module.first().adapter_layer.rank as u64;
    // The stack's triangle, its factors, two sums for the expectation and one Gram matrix; W0 as stored, widened, by columns, and its basis.
    let stack = 14 * square;
    // For each set its right-hand side and Θ, and a copy of both; for each layer the factors, trained and drawn.
    let sides = pair * (4 * sets + 2 * layers);
    let equations = if held_out || module.convention == Convention::General { 2 } else { 1 };
    // A basis of every layer for each equation.
    let bases = if strict || held_out || delta { square * layers * equations } else { 0 };
    // The singular vectors of every layer, and what a decomposition takes while it is made.
    let singular = if strict { square * (layers * equations + 6 * at_once) + 2 * pair * layers * at_once } else { 0 };
    // Of one map at a time a root and a predictor of every layer, and its eigenproblem.
    let left_out = if held_out { square * (3 * layers + 4 * at_once) + 4 * pair * layers * at_once } else { 0 };
    // For every set the factors, their products with the bases, and the residuals.
    let updates = if delta { 3 * pair * layers * (sets + at_once) } else { 0 };
    size_of::<f64>() as u64 * (stack + sides + bases + singular + left_out + updates)
}
