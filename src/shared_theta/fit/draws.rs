//! Draws of the strict control, some at a time until the tests that need them are decided, and what they say of one number.

use rayon::prelude::*;

use crate::controls::{DrawPlan, mean_and_sd};
use crate::error::Result;

/// Makes draws of consecutive numbers, `at_once` of them in parallel, while `is_open` says that those so far decide nothing, and at most those of the plan.
///
/// How many are made beyond those that count depends on `at_once`; what counts of them does not ([`Tested::of`]).
///
/// # Errors
/// The first of `draw`.
pub(super) fn draw_while_open<D: Send>(
    plan: DrawPlan,
    at_once: usize,
    draw: impl Fn(usize) -> Result<D> + Sync,
    is_open: impl Fn(&[D]) -> bool,
) -> Result<Vec<D>> {
    let mut draws = Vec::new();
    while draws.len() < plan.most && is_open(&draws) {
        let numbers = draws.len()..(draws.len() + at_once.max(1)).min(plan.most);
        let batch: Result<Vec<D>> = numbers.into_par_iter().map(&draw).collect();
        draws.extend(batch?);
    }
    Ok(draws)
}

/// What the draws of a control say of one number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tested {
    pub(super) mean: Option<f64>,
    pub(super) sd: Option<f64>,
    pub(super) p: Option<f64>,
    /// How many draws counted.
    pub(super) draws: usize,
}

impl Tested {
    /// Counts the draws up to the one that ends the test; `is_extreme` says of a draw that it is at least as extreme as the observed number.
    pub(super) fn of(plan: DrawPlan, drawn: &[f64], is_extreme: impl Fn(f64) -> bool) -> Self {
        let draws = plan.draws_that_count(drawn, |value| is_extreme(*value));
        let counted = &drawn[..draws];
        let (mean, sd) = mean_and_sd(counted);
        let extreme = counted.iter().filter(|value| is_extreme(**value)).count();
        Self { mean, sd, p: plan.p(extreme, draws), draws }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_does_not_depend_on_how_many_are_made_at_once() {
        let plan = DrawPlan::sequential(4);
        let value = |number: usize| (number * 7 % 10) as f64;
        let is_extreme = |value: f64| value >= 8.0;
        let mut made = Vec::new();
        for at_once in [1, 3, 16, 1000] {
            let open = |draws: &[f64]| plan.goes_on(draws, |draw| is_extreme(*draw));
            let draws = draw_while_open(plan, at_once, |number| Ok(value(number)), open).unwrap();
            let tested = Tested::of(plan, &draws, is_extreme);
            // Two of ten are extreme, the tenth of them is draw 47.
            assert_eq!((tested.draws, tested.p), (48, Some(10.0 / 48.0)), "{at_once}");
            assert!((tested.mean.unwrap() - (0..48).map(value).sum::<f64>() / 48.0).abs() < 1e-14);
            made.push(draws.len());
        }
        assert_eq!(made, [48, 48, 48, plan.most]);
        let none = Tested::of(DrawPlan::fixed(0), &[], is_extreme);
        assert_eq!(none, Tested::default());
    }
}
