//! How much similarity to expect without training: random matrices, and random targets solved through the same W0.
//!
//! | control | drawn | question |
//! |---|---|---|
//! | `gaussian` | a Gaussian matrix in place of each Θ | is it more than chance? |
//! | `w0` | Gaussian targets in place of Aᵀ and B, solved through W0 | is it more than the base weights give by themselves? |
//! | `flip` | signs of the targets in the singular basis of W0 | is it more than where the energy of the targets lies in the spectrum of W0? |
//! | `haar` | random directions in place of an update's singular vectors | does the update see more of W0 than any would? |
//!
//! The last control, `init`, draws nothing: it is an untrained adapter, solved like a trained one.

mod draws;

use ndarray::Array2;

pub use self::draws::DrawPlan;
pub(crate) use self::draws::{Tested, draw_some_while_open, draw_while_open};
use crate::linalg::random::normal_stream;
use crate::stored::stored_as_json;

/// Numbers closer than this count as equal in p.
pub(crate) const TIE: f64 = 1e-12;

/// What random numbers are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Random matrices in place of Θ.
    Gaussian,
    /// Random targets through W0.
    W0,
    /// Random targets for a shared Θ.
    Fit,
    /// Where the search for a shared Θ begins.
    Start,
    /// Random targets of which only the leverages of W0's singular directions are taken.
    Leverage,
    /// The order in which targets are assigned to the layers of other targets.
    Shuffled,
    /// Random directions in place of an update's.
    Haar,
}

/// What a draw replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Factor {
    /// Aᵀ or Θ_A.
    A,
    /// B or Θ_B.
    B,
}

stored_as_json!(Factor);

impl Factor {
    /// Its part of the label of a stream.
    fn label(self) -> &'static [u8] {
        match self {
            Self::A => b"A",
            Self::B => b"B",
        }
    }
}

/// A Gaussian matrix (length, rank) of draw number `draw`.
///
/// Each column has its own stream, derived from (seed, control, base tensor, factor, draw, column). So rank r gets columns 0..r of any
/// larger rank, and nothing else in a run can change a draw.
#[must_use]
pub fn draw(seed: u64, control: Control, tensor: &str, factor: Factor, number: usize, length: usize, rank: usize) -> Array2<f64> {
    let control: &[u8] = match control {
        Control::Gaussian => b"gaussian",
        Control::W0 => b"w0",
        Control::Fit => b"fit",
        Control::Start => b"start",
        Control::Leverage => b"leverage",
        Control::Shuffled => b"shuffled",
        Control::Haar => b"haar",
    };
    let factor = factor.label();
    let mut out = Array2::zeros((length, rank));
    for (column, mut values) in out.columns_mut().into_iter().enumerate() {
        let label = [control, tensor.as_bytes(), factor, &(number as u64).to_le_bytes(), &(column as u64).to_le_bytes()];
        for (to, from) in values.iter_mut().zip(normal_stream(seed, &label, length)) {
            *to = from;
        }
    }
    out
}

/// The random signs of draw number `number` of the `flip` control, one for each singular direction of a base weight.
///
/// One stream for (seed, `flip`, base tensor, factor, draw), whose k-th number belongs to the k-th direction, largest singular value first.
#[must_use]
pub fn signs(seed: u64, tensor: &str, factor: Factor, number: usize, directions: usize) -> Vec<f64> {
    let label = [&b"flip"[..], tensor.as_bytes(), factor.label(), &(number as u64).to_le_bytes()];
    normal_stream(seed, &label, directions).iter().map(|value| value.signum()).collect()
}

/// The order in which draw number `number` of the `shuffled` control assigns the targets to the layers; every order is as likely, the one as it is too.
#[must_use]
pub fn permutation(seed: u64, tensor: &str, factor: Factor, number: usize, count: usize) -> Vec<usize> {
    let keys = draw(seed, Control::Shuffled, tensor, factor, number, count, 1);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| keys[(a, 0)].total_cmp(&keys[(b, 0)]));
    order
}

/// All orders of `0..count`.
#[must_use]
pub fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut out = vec![Vec::new()];
    for next in 0..count {
        out = out
            .iter()
            .flat_map(|order| {
                (0..=order.len()).map(move |place| {
                    let mut longer: Vec<usize> = order.clone();
                    longer.insert(place, next);
                    longer
                })
            })
            .collect();
    }
    out
}

/// Mean and standard deviation (ddof 1) of the values that are there; the deviation needs two.
#[must_use]
pub fn mean_and_sd(values: &[f64]) -> (Option<f64>, Option<f64>) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (None, None);
    }
    let mean = values.iter().sum::<f64>() / n;
    let sd = (values.len() > 1).then(|| (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)).sqrt());
    (Some(mean), sd)
}

/// How far `observed` lies from the draws, in their standard deviations.
#[must_use]
pub fn z_score(observed: f64, mean: Option<f64>, sd: Option<f64>) -> Option<f64> {
    let (mean, sd) = (mean?, sd?);
    (sd > 0.0).then(|| (observed - mean) / sd)
}

/// `(1 + #draws at least as large)/(1 + draws)`, ties counting as large.
#[must_use]
pub fn p_value(observed: f64, draws: &[f64]) -> Option<f64> {
    let large = draws.iter().filter(|&&d| d >= observed - TIE).count();
    (!draws.is_empty()).then(|| (1 + large) as f64 / (1 + draws.len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_rank_takes_the_first_columns() {
        let large = draw(5, Control::W0, "t", Factor::B, 3, 20, 8);
        let small = draw(5, Control::W0, "t", Factor::B, 3, 20, 2);
        assert_eq!(large.slice(ndarray::s![.., ..2]), small);
    }

    #[test]
    fn every_part_of_the_label_counts() {
        let base = draw(5, Control::W0, "t", Factor::B, 3, 20, 1);
        assert_ne!(base, draw(6, Control::W0, "t", Factor::B, 3, 20, 1));
        assert_ne!(base, draw(5, Control::Gaussian, "t", Factor::B, 3, 20, 1));
        assert_ne!(base, draw(5, Control::W0, "u", Factor::B, 3, 20, 1));
        assert_ne!(base, draw(5, Control::W0, "t", Factor::A, 3, 20, 1));
        assert_ne!(base, draw(5, Control::W0, "t", Factor::B, 4, 20, 1));
    }

    #[test]
    fn signs_are_drawn_for_every_direction_apart() {
        let long = signs(5, "t", Factor::B, 3, 4000);
        assert_eq!(long[..100], signs(5, "t", Factor::B, 3, 100));
        assert!(long.iter().all(|sign| sign.abs() == 1.0));
        // Five standard errors.
        assert!(long.iter().sum::<f64>().abs() < 5.0 * 4000.0_f64.sqrt());
        for other in [
            signs(6, "t", Factor::B, 3, 4000),
            signs(5, "u", Factor::B, 3, 4000),
            signs(5, "t", Factor::A, 3, 4000),
            signs(5, "t", Factor::B, 4, 4000),
        ] {
            assert!(long.iter().zip(&other).map(|(a, b)| a * b).sum::<f64>().abs() < 5.0 * 4000.0_f64.sqrt());
        }
    }

    #[test]
    fn every_order_is_as_likely() {
        assert_eq!(permutations(4).len(), 24);
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..6000 {
            *counts.entry(permutation(2, "t", Factor::A, number, 3)).or_insert(0) += 1;
        }
        let all = permutations(3);
        assert!(all.iter().all(|order| counts.contains_key(order)) && counts.len() == 6);
        // Five standard errors of a binomial.
        assert!(
            counts.values().all(|count| (f64::from(*count) - 1000.0).abs() < 5.0 * (1000.0_f64 * 5.0 / 6.0).sqrt()),
            "{counts:?}"
        );
        assert_ne!(permutation(2, "t", Factor::A, 0, 50), permutation(2, "t", Factor::B, 0, 50));
    }

    #[test]
    fn moments_by_hand() {
        assert_eq!(mean_and_sd(&[]), (None, None));
        assert_eq!(mean_and_sd(&[2.0]), (Some(2.0), None));
        assert_eq!(mean_and_sd(&[1.0, 3.0]), (Some(2.0), Some(2.0_f64.sqrt())));
        assert_eq!(mean_and_sd(&[1.0, 2.0, 6.0]), (Some(3.0), Some(7.0_f64.sqrt())));
        assert_eq!(z_score(4.0, Some(2.0), Some(0.5)), Some(4.0));
        assert_eq!(z_score(4.0, Some(2.0), Some(0.0)), None);
        assert_eq!(p_value(0.5, &[0.1, 0.5, 0.9]), Some(0.75));
        assert_eq!(p_value(0.5, &[]), None);
    }
}
