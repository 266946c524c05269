//! What an update sees of its base weight: the rows of `relation.csv`.
//!
//! Source: Hu et al. 2022, section 7.3 and Table 7. Differs: the column for random directions is their root mean square in closed form, and a second
//! yardstick keeps where in the spectrum of W0 the update's directions lie.

use std::convert::Infallible;

use ndarray::{Array2, s};

use super::layer::ModuleName;
use super::update::{Update, ratio};
use super::yardstick::Yardstick;
use crate::controls::{DrawPlan, Factor, TIE, Tested, draw_while_open, mean_and_sd, p_value, signs};
use crate::linalg::EPSILON;
use crate::linalg::lapack::multiply;
use crate::linalg::norms::{frobenius, frobenius_of};
use crate::linalg::weight_basis::scale_rows;
use crate::table::RelationRow;
use crate::terms::Status;

/// Draws that are made at a time.
const BATCH: usize = 16;
/// A profile up to this share of ‖W0‖_F is rounding.
const SHARED: f64 = 64.0 * EPSILON;

/// How the pairing of inputs and outputs is tested.
#[derive(Debug, Clone, Copy)]
pub struct RelationStudy<'a> {
    /// The numbers of leading directions looked at.
    pub counts: &'a [usize],
    /// The seed of the signs.
    pub seed: u64,
    /// How often signs are drawn.
    pub plan: DrawPlan,
}

/// The pairing of one layer: `(‖Uᵀ·W0·V‖_F/profile)²`.
struct Pairing {
    observed: f64,
    /// Root mean square of `‖Uᵀ·W0·V‖_F` under random signs.
    profile: f64,
    /// What the signs are turned in: `Uᵀ·P·diag(σ)` over the profile and `Qᵀ·V`.
    outputs: Array2<f64>,
    inputs: Array2<f64>,
}

impl RelationStudy<'_> {
    /// The rows of one adapter's module: of each layer, and of all together, for each number of directions.
    #[must_use]
    pub fn rows(&self, name: ModuleName<'_>, updates: &[Update<'_, '_>], yardsticks: &[&Yardstick]) -> Vec<RelationRow> {
        let mut rows = Vec::with_capacity(self.counts.len() * (updates.len() + 1));
        for (at, &k) in self.counts.iter().enumerate() {
            let pairings: Vec<Option<Pairing>> = updates.iter().map(|update| Pairing::of(update, k)).collect();
            let observed: Vec<f64> = pairings.iter().flatten().map(|pairing| pairing.observed).collect();
            let mean = mean_and_sd(&observed).0;
            let (draws, all) = self.draws(updates, &pairings, mean);
            let mut drawn = draws.iter();
            for ((update, yardstick), pairing) in updates.iter().zip(yardsticks).zip(&pairings) {
                let own = if pairing.is_some() { drawn.next().map_or(&[][..], Vec::as_slice) } else { &[] };
                rows.push(self.row(name, (at, k), update, yardstick, pairing.as_ref(), own));
            }
            rows.push(RelationRow {
                layer: RelationRow::ALL.to_owned(),
                pairing: mean,
                flip_sd: all.sd,
                flip_p: all.p,
                status: updates.iter().map(|update| update.status_of(k)).fold(Status::Ok, Status::worse),
                ..empty(name, k)
            });
        }
        rows
    }

    /// The draws that count of each layer with a pairing, and what those of their mean say: until the test of the mean is decided.
    fn draws(&self, updates: &[Update<'_, '_>], pairings: &[Option<Pairing>], mean: Option<f64>) -> (Vec<Vec<f64>>, Tested) {
        let layers: Vec<(&Update<'_, '_>, &Pairing)> =
            updates.iter().zip(pairings).filter_map(|(u, p)| Some((u, p.as_ref()?))).collect();
        let Some(mean) = mean else { return (Vec::new(), Tested::default()) };
        let is_large = |draw: f64| draw >= mean - TIE;
        let draw = |number| -> Result<(Vec<f64>, f64), Infallible> {
            let of = |(update, pairing): &(&Update<'_, '_>, &Pairing)| pairing.drawn(self.seed, update.layer.base.stream, number);
            let by_layer: Vec<f64> = layers.iter().map(of).collect();
            let mean = by_layer.iter().sum::<f64>() / by_layer.len() as f64;
            Ok((by_layer, mean))
        };
        let is_open = |draws: &[(Vec<f64>, f64)]| self.plan.goes_on(draws, |draw| is_large(draw.1));
        let Ok(drawn) = draw_while_open(self.plan, BATCH, draw, is_open);
        let all = Tested::of(self.plan, &drawn.iter().map(|draw| draw.1).collect::<Vec<_>>(), is_large);
        let of_layer = |at| drawn[..all.draws].iter().map(|(by_layer, _)| by_layer[at]).collect();
        ((0..layers.len()).map(of_layer).collect(), all)
    }

    fn row(
        &self,
        name: ModuleName<'_>,
        (at, k): (usize, usize),
        update: &Update<'_, '_>,
        yardstick: &Yardstick,
        pairing: Option<&Pairing>,
        draws: &[f64],
    ) -> RelationRow {
        let (d_out, d_in) = update.layer.base.shape;
        let random = k as f64 * yardstick.norm / ((d_out as f64) * (d_in as f64)).sqrt();
        let null = &yardstick.random[at].projected;
        let status = update.status_of(k);
        let projected = (status == Status::Ok).then(|| frobenius_of(&update.seen.slice(s![..k, ..k])));
        RelationRow {
            layer: update.layer.number.as_ref().map_or_else(String::new, |number| number.to_string()),
            projected_delta: projected,
            projected_w0: yardstick.leading.get(..k).map(frobenius),
            projected_random: Some(random),
            random_sd: mean_and_sd(null).1,
            p: projected.and_then(|projected| p_value(projected, null)),
            times_random: projected.and_then(|projected| ratio(projected, random)),
            amplification: projected.and_then(|projected| ratio(update.norm(), projected)),
            amplification_random: projected.and_then(|_| ratio(update.norm(), random)),
            projected_profile: pairing.map(|pairing| pairing.profile),
            pairing: pairing.map(|pairing| pairing.observed),
            flip_sd: mean_and_sd(draws).1,
            flip_p: pairing.and_then(|pairing| p_value(pairing.observed, draws)),
            status,
            ..empty(name, k)
        }
    }
}

impl Pairing {
    /// None where W0 was not decomposed or the update has fewer directions.
    ///
    /// `E‖Uᵀ·P·D·diag(σ)·Qᵀ·V‖_F² = Σ_i σ_i²·‖a_i‖²·‖c_i‖²` for independent signs D, with a and c the rows of `Pᵀ·U` and `Qᵀ·V`: all products of two
    /// different directions have mean zero. The signs that singular vectors happen to have are among the random ones.
    fn of(update: &Update<'_, '_>, k: usize) -> Option<Self> {
        if update.status_of(k) != Status::Ok {
            return None;
        }
        let (along, sigma) = (update.along.as_ref()?, &update.layer.base.basis?.sigma);
        let (outputs, inputs) = (along.left.slice(s![.., ..k]), along.right.slice(s![.., ..k]).to_owned());
        let norms = outputs.rows().into_iter().zip(inputs.rows()).map(|(a, c)| (a.dot(&a) * c.dot(&c)).sqrt());
        let profile = frobenius(&sigma.iter().zip(norms).map(|(sigma, norm)| sigma * norm).collect::<Vec<_>>());
        // Inputs and outputs without a direction of W0 in common leave rounding errors alone.
        if profile <= SHARED * frobenius(sigma) {
            return None;
        }
        let weights: Vec<f64> = sigma.iter().map(|sigma| sigma / profile).collect();
        let observed = frobenius_of(&update.seen.slice(s![..k, ..k])) / profile;
        Some(Self { observed: observed * observed, profile, outputs: scale_rows(outputs, &weights), inputs })
    }

    /// The pairing with the signs of one draw.
    fn drawn(&self, seed: u64, stream: &str, number: usize) -> f64 {
        let signs = signs(seed, stream, Factor::B, number, self.inputs.nrows());
        let seen = multiply(self.outputs.t(), scale_rows(self.inputs.view(), &signs).view());
        seen.iter().map(|v| v * v).sum()
    }
}

fn empty(name: ModuleName<'_>, k: usize) -> RelationRow {
    RelationRow {
        adapter: name.adapter.to_owned(),
        module: name.module.to_owned(),
        layer: String::new(),
        k,
        projected_delta: None,
        projected_w0: None,
        projected_random: None,
        random_sd: None,
        p: None,
        times_random: None,
        amplification: None,
        amplification_random: None,
        projected_profile: None,
        pairing: None,
        flip_sd: None,
        flip_p: None,
        status: Status::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::{Example, basis_of, gaussian};
    use super::*;

    const NAME: ModuleName<'static> = ModuleName { adapter: "a", module: "q" };

    /// The rows of a module of these layers, each with a stream of its own.
    fn rows_of(examples: &[&Example], counts: &[usize], plan: DrawPlan, draws: usize) -> Vec<RelationRow> {
        let streams: Vec<String> = (0..examples.len()).map(|layer| format!("layer {layer}")).collect();
        let bases: Vec<_> = examples.iter().zip(&streams).map(|(example, stream)| example.base(stream)).collect();
        let layers: Vec<_> = examples.iter().zip(&bases).map(|(example, base)| example.layer(base)).collect();
        let updates: Vec<_> = layers.iter().map(|layer| Update::of(layer).unwrap()).collect();
        let yardsticks: Vec<_> =
            examples.iter().zip(&streams).map(|(example, stream)| example.yardstick(stream, counts, 0, draws).unwrap()).collect();
        RelationStudy { counts, seed: 0, plan }.rows(NAME, &updates, &yardsticks.iter().collect::<Vec<_>>())
    }

    fn close(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found / expected - 1.0).abs() < 1e-11), "{found:?}, {expected}");
    }

    #[test]
    fn columns_are_their_definitions_in_any_shape() {
        for (d_out, d_in) in [(14, 14), (20, 11), (11, 20)] {
            let (w0, b, a) = (gaussian("w0", d_out, d_in), gaussian("b", d_out, 3), gaussian("a", d_in, 3));
            let (delta, of_w0) = (basis_of(&(b.dot(&a.t()) * 0.7)), basis_of(&w0));
            let norm = |values: &[f64]| frobenius(values);
            let [with, without] = [true, false].map(|decomposed| {
                let example = Example::new(w0.clone(), b.clone(), a.clone(), 0.7, decomposed);
                rows_of(&[&example], &[3, 1], DrawPlan::fixed(40), 30)
            });
            for rows in [&with, &without] {
                assert_eq!(
                    rows.iter().map(|row| (row.layer.as_str(), row.k)).collect::<Vec<_>>(),
                    [("4", 3), ("all", 3), ("4", 1), ("all", 1)]
                );
                for row in rows.iter().filter(|row| row.layer != RelationRow::ALL) {
                    let (u, v) = (delta.left.slice(s![.., ..row.k]), delta.right.slice(s![.., ..row.k]));
                    let (seen, random) =
                        (frobenius_of(&u.t().dot(&w0.dot(&v))), row.k as f64 * of_w0.norm() / ((d_out * d_in) as f64).sqrt());
                    close(row.projected_delta, seen);
                    close(row.projected_w0, norm(&of_w0.sigma[..row.k]));
                    close(row.projected_random, random);
                    close(row.times_random, seen / random);
                    close(row.amplification, norm(&delta.sigma[..3]) / seen);
                    close(row.amplification_random, norm(&delta.sigma[..3]) / random);
                    assert!(row.random_sd.unwrap() > 0.0 && (1.0 / 31.0..=1.0).contains(&row.p.unwrap()));
                    assert_eq!(row.status, Status::Ok);
                }
            }
            for (row, other) in with.iter().zip(&without) {
                let layer = row.layer != RelationRow::ALL;
                assert!(
                    [row.pairing, row.flip_sd, row.flip_p].iter().all(Option::is_some)
                        && row.projected_profile.is_some() == layer
                );
                assert!([other.pairing, other.flip_sd, other.flip_p, other.projected_profile].iter().all(Option::is_none));
            }
            // One layer is all layers.
            assert_eq!((with[0].pairing, with[0].flip_sd, with[0].flip_p), (with[1].pairing, with[1].flip_sd, with[1].flip_p));
        }
    }

    /// Directions within the first two of W0 on both sides, with `sign` between the two inputs.
    fn within_two(w0: &Array2<f64>, sign: f64, turned: bool) -> Example {
        let basis = basis_of(w0);
        let mix = |side: &Array2<f64>, sign: f64| {
            let mixed = &side.column(0) + &(&side.column(1) * sign);
            (mixed / 2.0_f64.sqrt()).insert_axis(ndarray::Axis(1))
        };
        let mut example = Example::new(w0.clone(), mix(&basis.left, 1.0), mix(&basis.right, sign), 2.0, true);
        if turned {
            example.turn_signs_of_basis();
        }
        example
    }

    #[test]
    fn pairing_is_what_signs_can_destroy() {
        for (d_out, d_in) in [(12, 12), (19, 12), (12, 19)] {
            let w0 = gaussian("w0", d_out, d_in);
            let sigma = basis_of(&w0).sigma;
            let squares = sigma[0].powi(2) + sigma[1].powi(2);
            for (sign, p) in [(1.0, 0.5), (-1.0, 1.0)] {
                let plan = DrawPlan::fixed(4000);
                let rows = rows_of(&[&within_two(&w0, sign, false)], &[1], plan, 10);
                let row = &rows[0];
                close(row.projected_profile, squares.sqrt() / 2.0);
                close(row.projected_delta, (sigma[0] + sign * sigma[1]) / 2.0);
                close(row.pairing, (sigma[0] + sign * sigma[1]).powi(2) / squares);
                // Two values, each in half of the draws: sd is half their distance. Five standard errors of either.
                let error = 5.0 * 0.5 / 4000.0_f64.sqrt();
                assert!((row.flip_sd.unwrap() / (2.0 * sigma[0] * sigma[1] / squares) - 1.0).abs() < error, "{row:?}");
                assert!((row.flip_p.unwrap() - p).abs() < error, "{row:?}");
                // The signs that singular vectors come with are nobody's choice.
                assert_eq!(rows_of(&[&within_two(&w0, sign, true)], &[1], plan, 10), rows);
            }
        }
    }

    #[test]
    fn an_update_that_amplifies_the_weight_is_paired_as_it_is() {
        let w0 = gaussian("w0", 30, 30);
        let basis = basis_of(&w0);
        // All of ΔW along one sum of thirty directions, paired as W0 pairs them: Σσ against √Σσ².
        let sum = |side: &Array2<f64>| side.sum_axis(ndarray::Axis(1)).insert_axis(ndarray::Axis(1));
        let example = Example::new(w0, sum(&basis.left), sum(&basis.right), 0.01, true);
        let rows = rows_of(&[&example], &[1], DrawPlan::sequential(4), 10);
        close(rows[0].pairing, basis.sigma.iter().sum::<f64>().powi(2) / basis.norm().powi(2));
        assert_eq!(rows[1].flip_p, Some(1.0 / 200.0));
    }

    #[test]
    fn no_direction_in_common_is_no_pairing() {
        let w0 = Array2::from_diag(&ndarray::Array1::from_vec(vec![4.0, 3.0, 2.0, 1.0]));
        let unit = |k| Array2::from_shape_fn((4, 1), |(row, _)| if row == k { 1.0 } else { 0.0 });
        let rows = rows_of(&[&Example::new(w0, unit(0), unit(2), 1.0, true)], &[1], DrawPlan::fixed(5), 4);
        assert_eq!((rows[0].projected_profile, rows[0].pairing, rows[0].flip_p, rows[0].status), (None, None, None, Status::Ok));
        assert!(rows[0].projected_delta.unwrap() < 1e-14);
    }

    #[test]
    fn all_layers_are_the_mean_of_those_that_have_a_pairing() {
        let example = |label: &str, b: Array2<f64>| Example::new(gaussian(label, 9, 9), b, gaussian("a", 9, 2), 1.0, true);
        let (first, third) = (example("w", gaussian("b", 9, 2)), example("v", gaussian("c", 9, 2)));
        let zero = example("u", Array2::zeros((9, 2)));
        let mut one_column = gaussian("d", 9, 2);
        let copy = one_column.column(0).to_owned();
        one_column.column_mut(1).assign(&copy);
        let deficient = example("t", one_column);
        let rows = rows_of(&[&first, &zero, &third, &deficient], &[2, 1], DrawPlan::fixed(60), 10);
        let statuses: Vec<Status> = rows.iter().map(|row| row.status).collect();
        let expected = [
            [Status::Ok, Status::Zero, Status::Ok, Status::Rank, Status::Zero],
            [Status::Ok, Status::Zero, Status::Ok, Status::Ok, Status::Zero],
        ];
        assert_eq!(statuses, expected.concat());
        for rows in rows.chunks(5) {
            let pairings: Vec<f64> = rows[..4].iter().filter_map(|row| row.pairing).collect();
            assert_eq!(pairings.len(), rows[..4].iter().filter(|row| row.status == Status::Ok).count());
            close(rows[4].pairing, pairings.iter().sum::<f64>() / pairings.len() as f64);
            // The mean of independent layers varies less than they do.
            let largest = rows[..4].iter().filter_map(|row| row.flip_sd).fold(0.0, f64::max);
            assert!(rows[4].flip_sd.unwrap() < largest && rows[4].flip_p.is_some() && rows[4].projected_delta.is_none());
            for row in rows[..4].iter().filter(|row| row.status != Status::Ok) {
                assert!(
                    [row.projected_delta, row.p, row.times_random, row.amplification, row.pairing, row.flip_p]
                        .iter()
                        .all(Option::is_none)
                );
                assert!([row.projected_w0, row.projected_random, row.random_sd].iter().all(Option::is_some));
            }
        }
    }

    #[test]
    fn a_test_ends_when_it_is_decided() {
        let example = Example::new(gaussian("w0", 25, 25), gaussian("b", 25, 2), gaussian("a", 25, 2), 1.0, true);
        let [sequential, fixed] =
            [DrawPlan::sequential(2), DrawPlan::fixed(500)].map(|plan| rows_of(&[&example], &[2], plan, 10).remove(1));
        // Chance makes half of the pairings larger: ten of them soon come.
        let (p, all) = (sequential.flip_p.unwrap(), fixed.flip_p.unwrap());
        assert!((p - all).abs() < 0.5 && p > 0.05, "{p} {all}");
        assert!((10.0 / p - (10.0 / p).round()).abs() < 1e-9, "ten of so many draws");
        assert_eq!(rows_of(&[&example], &[2], DrawPlan::fixed(0), 0)[1].flip_p, None);
    }
}
