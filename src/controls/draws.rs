//! Draws of a control, some at a time until the tests that need them are decided, and what they say of one number.

use std::ops::Range;

use rayon::prelude::*;

use super::mean_and_sd;
use crate::terms::NullDraws;

impl NullDraws {
    /// The draws of a test among `comparisons`.
    #[must_use]
    pub fn plan(self, comparisons: usize) -> DrawPlan {
        match self {
            Self::Auto => DrawPlan::sequential(comparisons),
            Self::Fixed(draws) => DrawPlan::fixed(draws),
        }
    }
}

/// A test by draws that ends as soon as it is decided (Besag and Clifford 1991, Biometrika 78, 301).
///
/// It draws until `enough` draws are at least as large as the observed value, or `most` have been made. In the first case p is `enough/draws`, in the second
/// `(1 + those as large)/(1 + draws)`: both have the level that they state, whatever the distribution of the draws is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawPlan {
    /// Draws as large as the observed value that end the test; none to make all draws.
    pub enough: Option<usize>,
    /// The most draws that are made.
    pub most: usize,
}

impl DrawPlan {
    /// Draws as large that end a sequential test: p is then known to about a third of itself.
    const ENOUGH: usize = 10;
    /// The fewest draws that are allowed for, and the most.
    const LIMITS: (usize, usize) = (199, 1999);

    /// As many draws as asked for.
    #[must_use]
    pub fn fixed(draws: usize) -> Self {
        Self { enough: None, most: draws }
    }

    /// As many draws as it takes: the most are those with which one of `comparisons` can pass Holm's correction at p < 0.05 twice over, from 199 to
    /// 1,999.
    #[must_use]
    pub fn sequential(comparisons: usize) -> Self {
        Self { enough: Some(Self::ENOUGH), most: (40 * comparisons).saturating_sub(1).clamp(Self::LIMITS.0, Self::LIMITS.1) }
    }

    /// How many of `drawn` count: those up to the one that ends the test. `as_large` tells whether a draw is at least as large as the observed value.
    #[must_use]
    pub fn draws_that_count<T>(self, drawn: &[T], as_large: impl Fn(&T) -> bool) -> usize {
        let all = drawn.len().min(self.most);
        let Some(enough) = self.enough else { return all };
        let mut large = 0;
        for (number, draw) in drawn[..all].iter().enumerate() {
            large += usize::from(as_large(draw));
            if large == enough {
                return number + 1;
            }
        }
        all
    }

    /// Whether draws are still to be made after `drawn`.
    #[must_use]
    pub fn goes_on<T>(self, drawn: &[T], as_large: impl Fn(&T) -> bool) -> bool {
        drawn.len() < self.most && self.enough.is_none_or(|enough| drawn.iter().filter(|draw| as_large(draw)).count() < enough)
    }

    /// p of a test whose `draws` draws counted, of which `large` were as large as the observed value.
    #[must_use]
    pub fn p(self, large: usize, draws: usize) -> Option<f64> {
        let ended_early = self.enough.is_some_and(|enough| large >= enough);
        match (draws, ended_early) {
            (0, _) => None,
            (_, true) => Some(large as f64 / draws as f64),
            (_, false) => Some((1 + large) as f64 / (1 + draws) as f64),
        }
    }
}

/// Makes draws of consecutive numbers, `at_once` of them in parallel, while `is_open` says that those so far decide nothing, and at most those of the plan.
///
/// How many are made beyond those that count depends on `at_once`; what counts of them does not ([`Tested::of`]).
///
/// # Errors
/// The first of `draw`.
pub(crate) fn draw_while_open<D: Send, E: Send>(
    plan: DrawPlan,
    at_once: usize,
    draw: impl Fn(usize) -> Result<D, E> + Sync,
    is_open: impl Fn(&[D]) -> bool,
) -> Result<Vec<D>, E> {
    draw_some_while_open(plan, (at_once, 1), |numbers| numbers.map(&draw).collect(), is_open)
}

/// [`draw_while_open`] where `together` consecutive draws are made in one go, because that costs less.
///
/// # Errors
/// The first of `draw`.
pub(crate) fn draw_some_while_open<D: Send, E: Send>(
    plan: DrawPlan,
    (at_once, together): (usize, usize),
    draw: impl Fn(Range<usize>) -> Result<Vec<D>, E> + Sync,
    is_open: impl Fn(&[D]) -> bool,
) -> Result<Vec<D>, E> {
    let mut draws = Vec::new();
    while draws.len() < plan.most && is_open(&draws) {
        let end = (draws.len() + at_once.max(1)).min(plan.most);
        let firsts: Vec<usize> = (draws.len()..end).step_by(together).collect();
        let batch: Result<Vec<Vec<D>>, E> = firsts.into_par_iter().map(|first| draw(first..end.min(first + together))).collect();
        draws.extend(batch?.into_iter().flatten());
    }
    Ok(draws)
}

/// What the draws of a control say of one number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tested {
    pub(crate) mean: Option<f64>,
    pub(crate) sd: Option<f64>,
    pub(crate) p: Option<f64>,
    /// How many draws counted.
    pub(crate) draws: usize,
}

impl Tested {
    /// Counts the draws up to the one that ends the test; `is_extreme` says of a draw that it is at least as extreme as the observed number.
    pub(crate) fn of(plan: DrawPlan, drawn: &[f64], is_extreme: impl Fn(f64) -> bool) -> Self {
        let draws = plan.draws_that_count(drawn, |value| is_extreme(*value));
        let counted = &drawn[..draws];
        let (mean, sd) = mean_and_sd(counted);
        let extreme = counted.iter().filter(|value| is_extreme(**value)).count();
        Self { mean, sd, p: plan.p(extreme, draws), draws }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::linalg::random::normal_stream;

    #[test]
    fn a_sequential_test_ends_when_it_is_decided() {
        let plan = DrawPlan { enough: Some(2), most: 6 };
        let large = |&draw: &f64| draw >= 0.5;
        let drawn = [0.1, 0.9, 0.2, 0.8, 0.7, 0.1];
        assert_eq!((plan.draws_that_count(&drawn, large), plan.p(2, 4)), (4, Some(0.5)));
        assert!(plan.goes_on(&drawn[..3], large) && !plan.goes_on(&drawn[..4], large));
        let rare = [0.1; 6];
        assert_eq!((plan.draws_that_count(&rare, large), plan.p(0, 6)), (6, Some(1.0 / 7.0)));
        assert!(plan.goes_on(&rare[..5], large) && !plan.goes_on(&rare, large));
        let fixed = DrawPlan::fixed(3);
        assert_eq!((fixed.draws_that_count(&drawn, large), fixed.p(1, 3)), (3, Some(0.5)));
        assert_eq!(DrawPlan::fixed(0).p(0, 0), None);
        assert_eq!([1, 10, 1000].map(|m| DrawPlan::sequential(m).most), [199, 399, 1999]);
    }

    /// Under the null hypothesis p is at most its level as often as it says, for every level: 20,000 tests of exchangeable values.
    #[test]
    fn the_level_of_a_sequential_test_is_the_one_stated() {
        let plan = DrawPlan::sequential(4);
        let tests = 20_000;
        let mut below = [0_usize; 3];
        const LEVELS: [f64; 3] = [0.2, 0.05, 0.0125];
        for test in 0..tests {
            let values = normal_stream(9, &[b"null", &(test as u64).to_le_bytes()], 1 + plan.most);
            let large = |draw: &f64| *draw >= values[0];
            let counted = plan.draws_that_count(&values[1..], large);
            let p = plan.p(values[1..=counted].iter().filter(|draw| large(draw)).count(), counted).unwrap();
            for (below, level) in below.iter_mut().zip(LEVELS) {
                *below += usize::from(p <= level);
            }
        }
        for (below, level) in below.into_iter().zip(LEVELS) {
            let (share, error) = (below as f64 / tests as f64, (level * (1.0 - level) / tests as f64).sqrt());
            // Not more often than stated, and not much less: p takes steps.
            assert!(share < level + 4.0 * error && share > 0.8 * level, "{level}: {share}");
        }
    }

    #[test]
    fn what_counts_does_not_depend_on_how_many_are_made_at_once() {
        let plan = DrawPlan::sequential(4);
        let value = |number: usize| (number * 7 % 10) as f64;
        let is_extreme = |value: f64| value >= 8.0;
        let mut made = Vec::new();
        for at_once in [1, 3, 16, 1000] {
            let open = |draws: &[f64]| plan.goes_on(draws, |draw| is_extreme(*draw));
            let Ok(draws) = draw_while_open(plan, at_once, |number| Ok::<_, Infallible>(value(number)), open);
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
