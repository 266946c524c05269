//! How large an update is beside its base weight, and how many directions it has: the rows of `updates.csv`, and of `spectrum.csv` for ΔW.

use super::layer::ModuleName;
use super::update::{Update, ratio};
use super::yardstick::Yardstick;
use crate::linalg::norms::frobenius;
use crate::table::{SpectrumRow, UpdateRow};
use crate::terms::SpectrumMatrix;

/// Sums closer than this to a share of the energy count as having reached it.
const TIE: f64 = 1e-12;

/// The rows of `updates.csv` for one adapter's module.
#[must_use]
pub fn update_rows(name: ModuleName<'_>, updates: &[Update<'_, '_>], yardsticks: &[&Yardstick]) -> Vec<UpdateRow> {
    updates.iter().zip(yardsticks).map(|(update, yardstick)| row(name, update, yardstick)).collect()
}

/// The rows of `spectrum.csv` with the singular values of the updates; none for a layer without one.
#[must_use]
pub fn delta_rows(name: ModuleName<'_>, updates: &[Update<'_, '_>]) -> Vec<SpectrumRow> {
    let of_layer = |update: &Update<'_, '_>| {
        let layer = update.layer.number.clone();
        let row = move |(index, sigma): (usize, f64)| SpectrumRow {
            adapter: name.adapter.to_owned(),
            module: name.module.to_owned(),
            matrix: SpectrumMatrix::Delta,
            layer: layer.clone(),
            k: index + 1,
            sigma,
        };
        update.sigma.clone().into_iter().enumerate().map(row)
    };
    updates.iter().flat_map(of_layer).collect()
}

fn row(name: ModuleName<'_>, update: &Update<'_, '_>, yardstick: &Yardstick) -> UpdateRow {
    let (norm, sigma1, sigma1_w0) = (update.norm(), update.sigma.first().copied(), yardstick.leading.first().copied());
    let energy = shares(&update.sigma);
    let first = energy.first().copied();
    UpdateRow {
        adapter: name.adapter.to_owned(),
        module: name.module.to_owned(),
        layer: update.layer.number.clone(),
        norm_w0: yardstick.norm,
        sigma1_w0,
        norm_delta: Some(norm).filter(|norm| norm.is_finite()),
        sigma1_delta: sigma1,
        sigma1_ratio: sigma1.zip(sigma1_w0).and_then(|(delta, w0)| ratio(delta, w0)),
        norm_ratio: sigma1.and_then(|_| ratio(norm, yardstick.norm)),
        stable_rank: first.and_then(|first| ratio(1.0, first)),
        entropy_rank: first.map(|_| entropy(&energy).exp()),
        rank_90: directions_with(&energy, 0.9),
        rank_99: directions_with(&energy, 0.99),
        energy_first: first,
        cosine: cosine(update, yardstick),
        cosine_z: cosine_z(update),
        status: update.status,
    }
}

/// The share of each singular value's square; none where there are no values.
fn shares(sigma: &[f64]) -> Vec<f64> {
    let largest = sigma.first().copied().unwrap_or(0.0);
    let squares: Vec<f64> = sigma.iter().map(|sigma| (sigma / largest) * (sigma / largest)).collect();
    let total: f64 = squares.iter().sum();
    squares.iter().map(|square| square / total).collect()
}

fn entropy(shares: &[f64]) -> f64 {
    -shares.iter().filter(|share| **share > 0.0).map(|share| share * share.ln()).sum::<f64>()
}

/// The fewest first directions with this share of the energy.
fn directions_with(shares: &[f64], wanted: f64) -> Option<usize> {
    let mut sum = 0.0;
    let reached = shares.iter().position(|share| {
        sum += share;
        sum >= wanted - TIE
    });
    reached.map(|index| index + 1)
}

/// `⟨ΔW, W0⟩ = Σ_j σ_j·u_jᵀ·W0·v_j`, in units of the norms.
fn cosine(update: &Update<'_, '_>, yardstick: &Yardstick) -> Option<f64> {
    update.sigma.first()?;
    let norm = Some(update.norm()).filter(|norm| *norm > 0.0 && yardstick.norm > 0.0)?;
    Some(update.sigma.iter().zip(update.seen.diag()).map(|(sigma, seen)| (sigma / norm) * (seen / yardstick.norm)).sum())
}

/// `Σt/√Σt²` of the terms `t_i = σ_i(W0)·(PᵀΔW·Q)_ii` whose sum is `⟨ΔW, W0⟩`: its standard deviation is exactly 1 where each has a random sign.
fn cosine_z(update: &Update<'_, '_>) -> Option<f64> {
    let (along, basis) = (update.along.as_ref()?, update.layer.base.basis?);
    let (largest, largest_w0) = (update.sigma.first()?, basis.sigma.first()?);
    let weights: Vec<f64> = update.sigma.iter().map(|sigma| sigma / largest).collect();
    let both = basis.sigma.iter().zip(along.left.rows().into_iter().zip(along.right.rows()));
    let terms: Vec<f64> = both
        .map(|(of_w0, (left, right))| {
            let sum: f64 = weights.iter().zip(left.iter().zip(right)).map(|(weight, (a, c))| weight * a * c).sum();
            sum * (of_w0 / largest_w0)
        })
        .collect();
    ratio(terms.iter().sum(), frobenius(&terms))
}

#[cfg(test)]
mod tests {
    use super::super::example::{Example, basis_of, gaussian};
    use super::*;
    use crate::terms::Status;
    use ndarray::{Array2, s};

    const NAME: ModuleName<'static> = ModuleName { adapter: "a", module: "q" };

    fn row_of(example: &Example) -> UpdateRow {
        example.with(|update| {
            let yardstick = example.yardstick("w0", &[example.rank(), 1], 0, 2).unwrap();
            update_rows(NAME, &[update], &[&yardstick]).remove(0)
        })
    }

    fn close(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-12 * expected.abs().max(1.0)), "{found:?}, {expected}");
    }

    #[test]
    fn an_update_along_the_first_direction_of_its_weight_points_where_the_weight_does() {
        for (d_out, d_in) in [(12, 12), (20, 9), (9, 20)] {
            let w0 = gaussian("w0", d_out, d_in);
            let basis = basis_of(&w0);
            let first = |side: &Array2<f64>| side.slice(s![.., ..1]).to_owned();
            for decomposed in [true, false] {
                let example = Example::new(w0.clone(), first(&basis.left) * 3.0, first(&basis.right), 0.5, decomposed);
                let row = row_of(&example);
                let (sigma, norm) = (basis.sigma[0], basis.norm());
                close(Some(row.norm_w0), norm);
                close(row.sigma1_w0, sigma);
                close(row.sigma1_ratio, 1.5 / sigma);
                close(row.norm_ratio, 1.5 / norm);
                for (value, expected) in [
                    (row.norm_delta, 1.5),
                    (row.sigma1_delta, 1.5),
                    (row.stable_rank, 1.0),
                    (row.entropy_rank, 1.0),
                    (row.energy_first, 1.0),
                ] {
                    close(value, expected);
                }
                // ⟨ΔW, W0⟩ = 1.5·σ₁, from one term: its sign is all there is.
                close(row.cosine, sigma / norm);
                assert_eq!((row.rank_90, row.rank_99, row.status), (Some(1), Some(1), Status::Ok));
                assert_eq!(row.cosine_z.is_some(), decomposed);
                if decomposed {
                    close(row.cosine_z, 1.0);
                }
            }
        }
    }

    #[test]
    fn a_negative_scaling_turns_the_update_round() {
        let (w0, b, a) = (gaussian("w0", 10, 8), gaussian("b", 10, 3), gaussian("a", 8, 3));
        let [plus, minus] = [0.5, -0.5].map(|scaling| row_of(&Example::new(w0.clone(), b.clone(), a.clone(), scaling, true)));
        close(minus.cosine, -plus.cosine.unwrap());
        close(minus.cosine_z, -plus.cosine_z.unwrap());
        assert_eq!(minus.sigma1_delta, plus.sigma1_delta);
        // By the definition, with everything formed.
        let delta = b.dot(&a.t()) * 0.5;
        let norm = |matrix: &Array2<f64>| matrix.iter().map(|v| v * v).sum::<f64>().sqrt();
        close(plus.cosine, (&delta * &w0).sum() / (norm(&delta) * norm(&w0)));
        close(plus.norm_delta, norm(&delta));
        let basis = basis_of(&w0);
        let terms: Vec<f64> =
            (0..8).map(|i| basis.sigma[i] * basis.left.column(i).dot(&delta.dot(&basis.right.column(i)))).collect();
        close(plus.cosine_z, terms.iter().sum::<f64>() / terms.iter().map(|t| t * t).sum::<f64>().sqrt());
    }

    #[test]
    fn ranks_count_the_directions_that_carry_the_energy() {
        // σ = 3, 1, 0: nine tenths and one tenth.
        let b = Array2::from_shape_fn((4, 3), |(row, column)| if row == column { [3.0, 1.0, 0.0][column] } else { 0.0 });
        let row = row_of(&Example::new(Array2::eye(4), b, Array2::eye(4).slice(s![.., ..3]).to_owned(), 1.0, true));
        assert_eq!((row.rank_90, row.rank_99), (Some(1), Some(2)));
        close(row.energy_first, 0.9);
        close(row.stable_rank, 1.0 / 0.9);
        close(row.entropy_rank, (-0.9 * 0.9_f64.ln() - 0.1 * 0.1_f64.ln()).exp());
        assert_eq!(directions_with(&[], 0.9), None);
    }

    #[test]
    fn no_update_has_a_norm_of_zero_and_nothing_else() {
        for (b, a, scaling) in [
            (Array2::zeros((6, 2)), gaussian("a", 6, 2), 1.0),
            (gaussian("b", 6, 2), gaussian("a", 6, 2), 0.0),
            // Neither factor is zero, and their product is.
            (
                Array2::from_shape_fn((6, 2), |(_, c)| (c == 0) as u8 as f64),
                Array2::from_shape_fn((6, 2), |(_, c)| (c == 1) as u8 as f64),
                1.0,
            ),
        ] {
            let row = row_of(&Example::new(gaussian("w0", 6, 6), b, a, scaling, true));
            assert_eq!((row.norm_delta, row.status), (Some(0.0), Status::Zero));
            assert!(row.sigma1_w0.is_some() && row.norm_w0 > 0.0);
            let empty = [row.sigma1_delta, row.sigma1_ratio, row.norm_ratio, row.stable_rank, row.entropy_rank, row.energy_first];
            assert!(empty.into_iter().chain([row.cosine, row.cosine_z]).all(|value| value.is_none()));
            assert_eq!((row.rank_90, row.rank_99), (None, None));
        }
    }

    #[test]
    fn factors_that_overflow_give_no_number() {
        let example =
            Example::new(gaussian("w0", 5, 5), Array2::from_elem((5, 2), 1e200), Array2::from_elem((5, 2), f64::MAX), 1.0, true);
        let row = row_of(&example);
        assert_eq!((row.status, row.sigma1_delta, row.cosine), (Status::Unreliable, None, None));
        // Each factor is in the range of f64, and their product is not.
        let large = || Array2::from_elem((5, 2), 1e200);
        let row = row_of(&Example::new(gaussian("w0", 5, 5), large(), large(), 1.0, true));
        assert_eq!((row.status, row.sigma1_delta, row.norm_delta), (Status::Unreliable, None, None));
    }

    #[test]
    fn all_singular_values_of_the_update_are_listed() {
        let (b, a) = (gaussian("b", 9, 3), gaussian("a", 7, 3));
        let example = Example::new(gaussian("w0", 9, 7), b.clone(), a.clone(), 2.0, false);
        let rows = example.with(|update| delta_rows(NAME, &[update]));
        let expected = basis_of(&(b.dot(&a.t()) * 2.0)).sigma;
        assert_eq!(rows.iter().map(|row| row.k).collect::<Vec<_>>(), [1, 2, 3]);
        for (row, sigma) in rows.iter().zip(expected) {
            assert!((row.sigma / sigma - 1.0).abs() < 1e-13);
            assert_eq!((row.matrix, &row.layer), (SpectrumMatrix::Delta, &Some(4.into())));
        }
    }
}
