//! The rows of `heldout.csv`: how well one Θ of all other layers predicts each layer's factors, beside two controls and a prediction without W0.

use super::direct::StackBases;
use super::flip::{Flippable, SingularBases};
use super::layers::{FACTORS, SharedLayers};
use super::leave_one_out::{LayerScores, LeaveOneOut, Subspace, Weighting, mean, scores_without_w0};
use crate::controls::{DrawPlan, Factor, TIE, Tested, draw_while_open, permutation, permutations};
use crate::conversion::Equation;
use crate::error::Result;
use crate::inputs::Progress;
use crate::table::HeldOutRow;
use crate::terms::{LayerId, Status, UpdateMatrix};

/// Draws that are made at a time.
const AT_ONCE: usize = 8;

/// A factor and the equation that makes it of Θ.
pub(super) type Map = (Factor, Equation);

/// The maps that the shape (out, in) of W0 allows: both for A where it is square.
pub(super) fn maps((d_out, d_in): (usize, usize)) -> Vec<Map> {
    let (of_a, of_b) = ((Factor::A, Equation::W0Transposed), (Factor::B, Equation::W0));
    if d_out == d_in { vec![(Factor::A, Equation::W0), of_a, of_b] } else { vec![of_a, of_b] }
}

/// What the scores of one module are made of and compared with.
pub(super) struct HeldOutStudy<'a> {
    pub(super) layers: &'a SharedLayers<'a>,
    /// For both equations.
    pub(super) stacks: &'a StackBases,
    /// None without the strict control.
    pub(super) singular: Option<&'a SingularBases>,
    pub(super) plan: DrawPlan,
    /// Draws of a control that no verdict goes by.
    pub(super) together: usize,
    pub(super) seed: u64,
}

/// The mean scores of one draw, for each weighting.
type Means = [Option<f64>; 2];

/// What one map gives: by layer, and for the means what the controls say.
struct Found {
    scores: LayerScores,
    without_w0: LayerScores,
    flip: [Tested; 2],
    shuffled: [Tested; 2],
}

impl HeldOutStudy<'_> {
    /// The rows of all maps, layers in order and then all of them. `progress` is told of every map.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if an eigenproblem or SVD does not converge.
    pub(super) fn rows(&self, module: &str, numbers: &[Option<LayerId>], progress: &dyn Progress) -> Result<Vec<HeldOutRow>> {
        let sides = self.layers.trained.iter().map(Subspace::of_update).collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        for (factor, equation) in maps((self.layers.d_out, self.layers.d_in)) {
            let subspaces: Vec<Option<&Subspace>> = sides
                .iter()
                .map(|sides| sides.as_ref().map(|[of_a, of_b]| if factor == FACTORS[0] { of_a } else { of_b }))
                .collect();
            rows.extend(self.rows_of((factor, equation), &subspaces, module, numbers)?);
            progress.step();
        }
        Ok(rows)
    }

    fn rows_of(
        &self,
        map: Map,
        subspaces: &[Option<&Subspace>],
        module: &str,
        numbers: &[Option<LayerId>],
    ) -> Result<Vec<HeldOutRow>> {
        let (factor, equation) = map;
        let taking_part: Vec<usize> = (0..subspaces.len()).filter(|layer| subspaces[*layer].is_some()).collect();
        let all = self.stacks.of_equation(equation);
        let study = LeaveOneOut::new(taking_part.iter().map(|layer| &all[*layer]).collect(), self.layers.rank)?;
        let own: Vec<&Subspace> = subspaces.iter().copied().flatten().collect();
        let found = self.try_map(map, &study, &own, &taking_part)?;
        let chance = self.layers.rank as f64 / self.layers.shape(equation).0 as f64;
        let mut rows = Vec::new();
        for (k, weighting) in Weighting::ALL.into_iter().enumerate() {
            let row = |layer: String, score: Option<f64>, status: Status| HeldOutRow {
                module: module.to_owned(),
                matrix: if factor == Factor::A { UpdateMatrix::A } else { UpdateMatrix::B },
                map: if equation == Equation::W0 { HeldOutRow::W0 } else { HeldOutRow::W0_TRANSPOSED }.to_owned(),
                weighting: weighting.name().to_owned(),
                layer,
                score,
                chance: score.map(|_| chance.min(1.0)),
                without_w0: None,
                flip_mean: None,
                flip_sd: None,
                flip_p: None,
                shuffled_mean: None,
                shuffled_p: None,
                status,
            };
            let mut worst = Status::Ok;
            for (layer, number) in numbers.iter().enumerate() {
                let place = taking_part.iter().position(|taking| *taking == layer);
                let of = |scores: &LayerScores| place.and_then(|place| scores[k][place]);
                let status = self.status(&study, place.zip(subspaces[layer]), numbers.len());
                worst = worst.worse(status);
                let name = number.as_ref().map_or_else(String::new, |number| number.to_string());
                rows.push(HeldOutRow { without_w0: of(&found.without_w0), ..row(name, of(&found.scores), status) });
            }
            rows.push(HeldOutRow {
                without_w0: mean(&found.without_w0[k]),
                flip_mean: found.flip[k].mean,
                flip_sd: found.flip[k].sd,
                flip_p: found.flip[k].p,
                shuffled_mean: found.shuffled[k].mean,
                shuffled_p: found.shuffled[k].p,
                ..row(HeldOutRow::ALL.to_owned(), mean(&found.scores[k]), worst)
            });
        }
        Ok(rows)
    }

    /// `found` is the place of a layer among those that take part, and what it has to be predicted; none where its update is zero.
    fn status(&self, study: &LeaveOneOut<'_>, found: Option<(usize, &Subspace)>, layers: usize) -> Status {
        let Some((place, subspace)) = found else { return if layers < 2 { Status::Skipped } else { Status::Zero } };
        if study.is_alone() {
            return Status::Skipped;
        }
        let singular = if study.is_singular(place) { Status::Singular } else { Status::Ok };
        let rank = if subspace.sigma.len() < self.layers.rank { Status::Rank } else { Status::Ok };
        singular.worse(rank)
    }

    fn try_map(&self, map: Map, study: &LeaveOneOut<'_>, own: &[&Subspace], taking_part: &[usize]) -> Result<Found> {
        let scores = study.scores(own)?;
        let without_w0 = scores_without_w0(own, self.layers.rank)?;
        let observed: Means = scores.each_ref().map(|scores| mean(scores));
        let none = [Tested::default(); 2];
        if observed.iter().all(Option::is_none) {
            return Ok(Found { scores, without_w0, flip: none, shuffled: none });
        }
        let flip = match self.singular {
            None => none,
            Some(singular) => {
                let layers = own.iter().zip(taking_part);
                let flippable: Vec<Flippable<'_>> = layers
                    .map(|(subspace, layer)| singular.flippable(self.layers, *layer, map, subspace.vectors.view()))
                    .collect();
                self.drawn(self.plan, &observed, |number| {
                    let turned = flippable.iter().zip(own).map(|(flippable, subspace)| Subspace {
                        vectors: flippable.flipped(number),
                        sigma: subspace.sigma.clone(),
                    });
                    let turned: Vec<Subspace> = turned.collect();
                    study.scores(&turned.iter().collect::<Vec<_>>())
                })?
            }
        };
        let shuffled = self.shuffled(map.0, &observed, own.len(), taking_part, |order| {
            study.scores(&order.iter().map(|layer| own[*layer]).collect::<Vec<_>>())
        })?;
        Ok(Found { scores, without_w0, flip, shuffled })
    }

    /// Draws until the means of both weightings are decided.
    fn drawn(&self, plan: DrawPlan, observed: &Means, draw: impl Fn(usize) -> Result<LayerScores> + Sync) -> Result<[Tested; 2]> {
        let is_large =
            |k: usize, value: Option<f64>| value.zip(observed[k]).is_some_and(|(value, observed)| value >= observed - TIE);
        let means = |number| draw(number).map(|scores| scores.each_ref().map(|scores| mean(scores)));
        let is_open = |draws: &[Means]| {
            (0..observed.len()).any(|k| observed[k].is_some() && plan.goes_on(draws, |draw| is_large(k, draw[k])))
        };
        let draws = draw_while_open(plan, AT_ONCE, means, is_open)?;
        Ok([0, 1].map(|k| {
            let values: Vec<f64> = draws.iter().filter_map(|draw| draw[k]).collect();
            Tested::of(plan, &values, |value| is_large(k, Some(value)))
        }))
    }

    /// Factors assigned to the maps of other layers: in every order where these are no more than the draws, else in random ones.
    fn shuffled(
        &self,
        factor: Factor,
        observed: &Means,
        count: usize,
        taking_part: &[usize],
        scores_in: impl Fn(&[usize]) -> Result<LayerScores> + Sync,
    ) -> Result<[Tested; 2]> {
        let orders = (1..=count).try_fold(1_usize, |product, factor| product.checked_mul(factor));
        if orders.is_none_or(|orders| orders > self.together) {
            let stream = taking_part.first().map_or("", |layer| self.layers.streams[*layer].as_str());
            let plan = DrawPlan::fixed(self.together);
            return self.drawn(plan, observed, |number| scores_in(&permutation(self.seed, stream, factor, number, count)));
        }
        let orders = permutations(count);
        let every = DrawPlan::fixed(orders.len());
        let draws = draw_while_open(every, AT_ONCE, |number| scores_in(&orders[number]), |_| true)?;
        Ok([0, 1].map(|k| {
            let values: Vec<f64> = draws.iter().filter_map(|scores| mean(&scores[k])).collect();
            // The order as it is counts among all of them, and is none of the others.
            let others =
                draws.iter().zip(&orders).filter(|(_, order)| !order.is_sorted()).filter_map(|(scores, _)| mean(&scores[k]));
            let others: Vec<f64> = others.collect();
            let large = values.iter().filter(|value| observed[k].is_some_and(|observed| **value >= observed - TIE)).count();
            let p = (!values.is_empty()).then(|| large as f64 / values.len() as f64);
            Tested { p, ..Tested::of(every, &others, |_| false) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::direct::fit_direct;
    use super::super::layers::Targets;
    use super::super::layers::tests::{gaussian, layers_of};
    use super::*;
    use crate::inputs::FactorPair;
    use crate::terms::Convention;
    use ndarray::Array2;

    fn rows(weights: &[Array2<f64>], convention: Convention, targets: Targets, plan: DrawPlan) -> Vec<HeldOutRow> {
        let layers = layers_of(convention, weights, targets);
        let direct = fit_direct(&layers, 0, 0).unwrap();
        let both = [Equation::W0, Equation::W0Transposed];
        let stacks = StackBases::of(&layers, &direct, &both).unwrap();
        let singular = SingularBases::of(&layers, &both, 3).unwrap();
        let study = HeldOutStudy { layers: &layers, stacks: &stacks, singular: Some(&singular), plan, together: 40, seed: 3 };
        let numbers: Vec<Option<LayerId>> = (0..weights.len() as u32).map(|number| Some(number.into())).collect();
        study.rows("m", &numbers, &()).unwrap()
    }

    fn weights(count: usize, d_out: usize, d_in: usize) -> Vec<Array2<f64>> {
        (0..count).map(|l| gaussian(&format!("w{l}"), d_out, d_in)).collect()
    }

    fn all<'r>(rows: &'r [HeldOutRow], matrix: UpdateMatrix, map: &str) -> &'r HeldOutRow {
        let is_it = |row: &&HeldOutRow| {
            (row.matrix, row.map.as_str(), row.weighting.as_str(), row.layer.as_str())
                == (matrix, map, HeldOutRow::SUBSPACE, HeldOutRow::ALL)
        };
        rows.iter().find(is_it).unwrap()
    }

    #[test]
    fn a_shared_theta_is_found_by_its_map_and_beyond_both_controls() {
        for (convention, d_out, d_in, map) in [
            (Convention::Paper, 14, 14, HeldOutRow::W0),
            (Convention::General, 14, 14, HeldOutRow::W0_TRANSPOSED),
            (Convention::General, 18, 12, HeldOutRow::W0_TRANSPOSED),
            (Convention::General, 10, 16, HeldOutRow::W0_TRANSPOSED),
        ] {
            let weights = weights(4, d_out, d_in);
            let theta_a = gaussian("ta", if convention == Convention::Paper { d_in } else { d_out }, 2);
            let theta_b = gaussian("tb", d_in, 2);
            let pair = |w: &Array2<f64>| FactorPair {
                a_transposed: if convention == Convention::Paper { w.dot(&theta_a) } else { w.t().dot(&theta_a) },
                b: w.dot(&theta_b),
            };
            let found = rows(&weights, convention, weights.iter().map(pair).collect(), DrawPlan::fixed(40));
            let maps = if d_out == d_in { 3 } else { 2 };
            assert_eq!(found.len(), maps * 2 * 5);
            for (matrix, map, length) in [
                (UpdateMatrix::A, map, if convention == Convention::Paper { d_out } else { d_in }),
                (UpdateMatrix::B, HeldOutRow::W0, d_out),
            ] {
                let row = all(&found, matrix, map);
                assert!((row.score.unwrap() - 1.0).abs() < 1e-10, "{convention} {row:?}");
                assert!((row.chance.unwrap() - 2.0 / length as f64).abs() < 1e-15);
                assert!(row.flip_p == Some(1.0 / 41.0) && row.flip_mean.unwrap() < 0.8, "{row:?}");
                // 24 orders: one of them is the right one.
                assert!(row.shuffled_p == Some(1.0 / 24.0) && row.shuffled_mean.unwrap() < 0.9, "{row:?}");
                assert_eq!(row.status, Status::Ok);
            }
        }
    }

    #[test]
    fn one_layer_has_no_other_to_be_predicted_from() {
        let weights = weights(1, 8, 8);
        let pair = FactorPair { a_transposed: gaussian("a", 8, 2), b: gaussian("b", 8, 2) };
        for row in rows(&weights, Convention::Paper, vec![pair], DrawPlan::fixed(5)) {
            assert_eq!((row.score, row.chance, row.without_w0, row.flip_p, row.shuffled_p), (None, None, None, None, None));
            assert_eq!(row.status, Status::Skipped);
        }
    }

    #[test]
    fn layers_without_an_update_take_no_part_and_small_ones_say_so() {
        let weights = weights(4, 12, 12);
        let mut targets: Targets = (0..4)
            .map(|l| FactorPair { a_transposed: gaussian(&format!("a{l}"), 12, 3), b: gaussian(&format!("b{l}"), 12, 3) })
            .collect();
        targets[1].b.fill(0.0);
        targets[2].b.column_mut(0).fill(0.0);
        let three: Targets =
            [0, 2, 3].map(|l| FactorPair { a_transposed: targets[l].a_transposed.clone(), b: targets[l].b.clone() }).into();
        let plan = DrawPlan::sequential(2);
        let found = rows(&weights, Convention::Paper, targets, plan);
        let statuses = |rows: &[HeldOutRow]| rows.iter().take(5).map(|row| row.status).collect::<Vec<_>>();
        assert_eq!(statuses(&found), [Status::Ok, Status::Zero, Status::Rank, Status::Ok, Status::Zero]);
        assert_eq!((found[1].score, found[1].without_w0), (None, None));
        // The others are those of a module without that layer.
        let without = [0, 2, 3].map(|l| weights[l].clone());
        let alone = rows(&without, Convention::Paper, three, plan);
        assert!((found[4].score.unwrap() - alone[3].score.unwrap()).abs() < 1e-12);
        assert_eq!(found[4].without_w0, alone[3].without_w0);
        assert!(found[4].flip_p.is_some() && found[4].shuffled_mean.is_some());
    }
}
