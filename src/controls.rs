//! How much similarity to expect without training: random matrices, and random targets solved through the same W0.
//!
//! | control | drawn | question |
//! |---|---|---|
//! | `gaussian` | a Gaussian matrix in place of each Θ | is it more than chance? |
//! | `w0` | Gaussian targets in place of Aᵀ and B, solved through W0 | is it more than the base weights give by themselves? |
//!
//! The third control, `init`, draws nothing: it is an untrained adapter, solved like a trained one.

use ndarray::Array2;

use crate::linalg::random::normal_stream;

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
}

/// What a draw replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// Aᵀ or Θ_A.
    A,
    /// B or Θ_B.
    B,
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
    };
    let factor: &[u8] = match factor {
        Factor::A => b"A",
        Factor::B => b"B",
    };
    let mut out = Array2::zeros((length, rank));
    for (column, mut values) in out.columns_mut().into_iter().enumerate() {
        let label = [control, tensor.as_bytes(), factor, &(number as u64).to_le_bytes(), &(column as u64).to_le_bytes()];
        for (to, from) in values.iter_mut().zip(normal_stream(seed, &label, length)) {
            *to = from;
        }
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

/// `(1 + #draws at least as large)/(1 + draws)`, ties within 1e-12 counting as large.
#[must_use]
pub fn p_value(observed: f64, draws: &[f64]) -> Option<f64> {
    let large = draws.iter().filter(|&&d| d >= observed - 1e-12).count();
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
