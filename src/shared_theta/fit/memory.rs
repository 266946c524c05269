//! How much memory a fit takes.

use super::opening::Fittable;
use super::params::FitConfig;
use crate::terms::Convention;

/// Bytes that the fit of one module holds at the same time.
pub(super) fn bytes_for(module: &Fittable, config: &FitConfig) -> u64 {
    let first = module.first();
    let length = first.d_out.max(first.d_in) as u64;
    let (layers, sets) = (module.layers.len() as u64, config.given.null_draws as u64 + 1);
    let square = length * length;
    // A and B, or Θ_A and Θ_B.
    let pair = 2 * length * first.adapter_layer.rank as u64;
    // The stack's triangle, its factors, two sums for the expectation and one Gram matrix; W0 as stored, widened, by columns, and its basis.
    let stack = 14 * square;
    // For each set its right-hand side and Θ, and a copy of both; for each layer the factors, trained and drawn.
    let sides = pair * (4 * sets + 2 * layers);
    let delta = if config.given.delta {
        // A basis of every layer for each equation, and for every set the factors, their products with the bases, and the residuals.
        let equations = if module.convention == Convention::Paper { 1 } else { 2 };
        square * layers * equations + 3 * pair * layers * sets
    } else {
        0
    };
    size_of::<f64>() as u64 * (stack + sides + delta)
}
