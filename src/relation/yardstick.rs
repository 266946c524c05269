//! What an update's relation to W0 is measured by: the size of W0, its own leading singular values, and what random directions see of it.
//!
//! It depends on W0 and on how many directions are looked at, not on an adapter: all adapters of these ranks have the same.

use ndarray::{Array1, Array2, ArrayView2, s};
use rayon::prelude::*;

use super::haar::directions;
use super::layer::BaseLayer;
use crate::controls::Factor;
use crate::conversion::{Equation, WeightRows, finite, products};
use crate::error::Result;
use crate::linalg::lanczos::leading_values;
use crate::linalg::lapack::multiply;
use crate::linalg::norms::frobenius_of;
use crate::linalg::weight_basis::{WeightBasis, scale_rows};
use crate::stored::stored;

/// Columns that W0 is multiplied with at a time while its leading singular values are sought: with fewer W0 is read more often, with more there are more
/// columns to be made orthogonal.
const BLOCK: usize = 8;
/// Random columns that W0 is multiplied with at a time: more would only take memory.
const COLUMNS: usize = 128;

/// What one base weight gives by itself.
pub struct Yardstick {
    /// ‖W0‖_F.
    pub norm: f64,
    /// Its largest singular values, as many as directions are looked at; none where they are not asked for.
    pub leading: Vec<f64>,
    /// For each number of directions what random ones see.
    pub(super) random: Vec<RandomSight>,
}

stored!(Yardstick { norm, leading, random });

/// What random directions see of W0, a value for each draw.
#[derive(Debug, Default)]
pub(super) struct RandomSight {
    /// `‖Uᵀ·W0·V‖_F`.
    pub(super) projected: Vec<f64>,
    /// `‖W0·V‖_F²` over its expectation; none where W0 was not decomposed.
    pub(super) gain_right: Vec<f64>,
    /// The same of `W0ᵀ·U`.
    pub(super) gain_left: Vec<f64>,
}

stored!(RandomSight { projected, gain_right, gain_left });

/// One draw's sight by the number of directions: projected, and the two gains where W0 was decomposed.
type Sights = Vec<(f64, Option<(f64, f64)>)>;

/// What is drawn and sought for a yardstick.
#[derive(Debug, Clone, Copy)]
pub struct YardstickStudy {
    /// The seed of the random directions.
    pub seed: u64,
    /// How often they are drawn.
    pub draws: usize,
    /// Whether singular values are sought of a weight that is not decomposed.
    pub values: bool,
}

impl Yardstick {
    /// Of one base weight, whose square core is there (or itself) with its norm, for each of these numbers of directions, the largest of which comes first.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] if W0 holds NaN or Inf, [`crate::Error::Lapack`] if a small SVD fails.
    pub fn of(
        base: &BaseLayer<'_>,
        (weight, norm): (&dyn WeightRows, f64),
        counts: &[usize],
        study: YardstickStudy,
    ) -> Result<Self> {
        let YardstickStudy { seed, draws, values } = study;
        let most = counts.first().copied().unwrap_or(0);
        let (norm, leading) = match base.basis {
            Some(basis) => (basis.norm(), basis.sigma[..most.min(basis.sigma.len())].to_vec()),
            None if values => (norm, leading_values(&whole(weight), most, BLOCK)?),
            None => (norm, Vec::new()),
        };
        let draws: Vec<Sights> = match base.basis {
            Some(basis) => {
                let of = |number| in_basis(basis, counts, &drawn(base, most, seed, number)?);
                (0..draws).into_par_iter().map(of).collect::<Result<_>>()?
            }
            None => through_weight(base, weight, counts, seed, draws)?,
        };
        let mut random: Vec<RandomSight> = counts.iter().map(|_| RandomSight::default()).collect();
        for sights in draws {
            for (random, (projected, gains)) in random.iter_mut().zip(sights) {
                random.projected.push(projected);
                random.gain_right.extend(gains.map(|(right, _)| right));
                random.gain_left.extend(gains.map(|(_, left)| left));
            }
        }
        Ok(Self { norm, leading, random })
    }
}

/// Random output and input directions.
fn drawn(base: &BaseLayer<'_>, rank: usize, seed: u64, number: usize) -> Result<[Array2<f64>; 2]> {
    let (d_out, d_in) = base.shape;
    let of = |factor, length| directions(seed, base.stream, factor, number, length, rank);
    Ok([of(Factor::B, d_out)?, of(Factor::A, d_in)?])
}

/// Random directions are as random in W0's singular basis, so that they are taken for what they are there: W0 is a diagonal.
fn in_basis(basis: &WeightBasis, counts: &[usize], [left, right]: &[Array2<f64>; 2]) -> Result<Sights> {
    let (left, right) = (left.slice(s![..basis.sigma.len(), ..]), right.slice(s![..basis.sigma.len(), ..]));
    let seen = multiply(left.t(), scale_rows(right, &basis.sigma).view());
    let of = |&k: &usize| {
        let gain = |side: ArrayView2<'_, f64>, length: usize| gain(&basis.sigma, side.slice(s![.., ..k]), length);
        let gains = gain(right, basis.right.nrows()).zip(gain(left, basis.left.nrows()));
        (frobenius_of(&seen.slice(s![..k, ..k])), gains)
    };
    Ok(counts.iter().map(of).collect())
}

/// Products with W0 itself or its core, several draws at a time: random directions are as random in the basis in which the core sees them.
fn through_weight(
    base: &BaseLayer<'_>,
    weight: &dyn WeightRows,
    counts: &[usize],
    seed: u64,
    draws: usize,
) -> Result<Vec<Sights>> {
    let most = counts.first().copied().unwrap_or(0).max(1);
    let together = (COLUMNS / most).max(1);
    let batches: Result<Vec<Vec<Sights>>> = (0..draws.div_ceil(together))
        .into_par_iter()
        .map(|batch| {
            let numbers = batch * together..((batch + 1) * together).min(draws);
            let pairs: Vec<[Array2<f64>; 2]> = numbers.map(|number| drawn(base, most, seed, number)).collect::<Result<_>>()?;
            let (d_out, d_in) = weight.shape();
            let right: Vec<_> = pairs.iter().map(|[_, right]| (Equation::W0, right.slice(s![..d_in, ..]))).collect();
            let of = |(image, [left, _]): (Array2<f64>, &[Array2<f64>; 2])| {
                let seen = multiply(left.slice(s![..d_out, ..]).t(), finite(image)?.view());
                Ok(counts.iter().map(|&k| (frobenius_of(&seen.slice(s![..k, ..k])), None)).collect())
            };
            products(weight, &right).into_iter().zip(&pairs).map(of).collect()
        })
        .collect();
    Ok(batches?.into_iter().flatten().collect())
}

/// How much more W0 does to directions, given in its singular basis, than to random ones of their length: `Σσ²e/k` over `Σσ²/length`, where e is their
/// energy in each singular direction; none where W0 is zero.
pub(super) fn gain(sigma: &[f64], along: ArrayView2<'_, f64>, length: usize) -> Option<f64> {
    let largest = sigma.first().copied().filter(|largest| *largest > 0.0)?;
    let squares = || sigma.iter().map(|sigma| (sigma / largest) * (sigma / largest));
    let total: f64 = squares().sum();
    let seen: f64 = squares().zip(energies(along)).map(|(square, energy)| square * energy).sum();
    Some(seen * length as f64 / total)
}

/// The mean of the columns' squares in each row.
pub(super) fn energies(along: ArrayView2<'_, f64>) -> Array1<f64> {
    let count = along.ncols() as f64;
    along.rows().into_iter().map(|row| row.dot(&row) / count).collect()
}

/// W0 in f64, as its factorisation had it: products take half as long as with rows that are converted for each.
fn whole(weight: &dyn WeightRows) -> Array2<f64> {
    let (d_out, d_in) = weight.shape();
    let mut w0 = Array2::zeros((d_out, d_in));
    let Some(rows) = w0.as_slice_mut() else { unreachable!("a matrix made by `zeros` is in standard layout") };
    weight.copy_rows(0, rows);
    w0
}

#[cfg(test)]
mod tests {
    use super::super::example::{Example, basis_of, gaussian};
    use super::*;
    use crate::controls::mean_and_sd;

    fn examples(w0: &Array2<f64>) -> [Example; 2] {
        let (d_out, d_in) = w0.dim();
        [true, false]
            .map(|decomposed| Example::new(w0.clone(), Array2::zeros((d_out, 1)), Array2::zeros((d_in, 1)), 1.0, decomposed))
    }

    #[test]
    fn size_and_leading_values_need_no_decomposition() {
        for (d_out, d_in) in [(90, 90), (150, 70), (70, 150), (5, 3), (1, 1)] {
            let w0 = gaussian("w0", d_out, d_in) * 1e-3;
            let count = d_out.min(d_in).min(9);
            let [with, without] = examples(&w0).map(|example| example.yardstick("t", &[count], 0, 0).unwrap());
            assert!((with.norm / without.norm - 1.0).abs() < 1e-13);
            assert_eq!((with.leading.len(), without.leading.len()), (count, count));
            for (one, other) in with.leading.iter().zip(&without.leading) {
                assert!((one - other).abs() < 1e-6 * with.leading[0], "{d_out} x {d_in}: {one} {other}");
            }
        }
    }

    #[test]
    fn draws_are_the_same_with_and_without_a_decomposition() {
        // W0 is its own diagonal: random directions in its basis are those that are drawn. 40 draws of 5 columns are two products.
        for (d_out, d_in) in [(20, 20), (31, 20), (20, 31)] {
            let mut w0 = Array2::zeros((d_out, d_in));
            (0..20).for_each(|k| w0[(k, k)] = 21.0 - k as f64);
            let [with, without] = examples(&w0).map(|example| example.yardstick("t", &[5, 1], 3, 40).unwrap());
            for (with, without) in with.random.iter().zip(&without.random) {
                assert_eq!((with.projected.len(), with.gain_left.len(), without.gain_left.len()), (40, 40, 0));
                for (one, other) in with.projected.iter().zip(&without.projected) {
                    assert!((one / other - 1.0).abs() < 1e-11, "{one} {other}");
                }
            }
        }
    }

    #[test]
    fn the_mean_square_of_random_directions_is_in_closed_form() {
        for (d_out, d_in) in [(24, 24), (40, 15), (15, 40)] {
            let w0 = gaussian("w0", d_out, d_in);
            for example in examples(&w0) {
                let yardstick = example.yardstick("t", &[4, 1], 0, 1500).unwrap();
                for (random, k) in yardstick.random.iter().zip([4.0, 1.0]) {
                    let squares: Vec<f64> = random.projected.iter().map(|x| x * x).collect();
                    let (mean, sd) = mean_and_sd(&squares);
                    let expected = k * k * yardstick.norm.powi(2) / (d_out * d_in) as f64;
                    assert!((mean.unwrap() - expected).abs() < 5.0 * sd.unwrap() / 1500.0_f64.sqrt(), "{mean:?} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_zero_weight_has_no_gain() {
        let [with, _] = examples(&Array2::zeros((6, 4)));
        let yardstick = with.yardstick("t", &[2, 1], 0, 3).unwrap();
        assert_eq!((yardstick.norm, &yardstick.leading[..]), (0.0, &[0.0, 0.0][..]));
        assert!(yardstick.random.iter().all(|random| random.projected == [0.0; 3] && random.gain_left.is_empty()));
        assert_eq!(gain(&basis_of(&Array2::eye(3)).sigma, Array2::eye(3).view(), 3), Some(1.0));
    }
}
