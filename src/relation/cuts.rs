//! φ across layers of Θ without the small singular directions of W0, and of `W0ᵀ·T`, which needs no inverse: the rows of
//! `cuts.csv`.
//!
//! Θ = W0⁻¹·T = V·S⁻¹·Uᵀ·T has nearly all of its norm in the few smallest singular directions of W0, whatever T is, so that φ of Θ shows those directions and
//! not T. The cuts leave them out.

use std::convert::Infallible;
use std::ops::Range;

use ndarray::Array2;
use rayon::prelude::*;

use super::coordinates::{Coordinates, gaussian_kept};
use super::cut::Cut;
use super::layer::{ModuleName, RelatedLayer};
use crate::controls::{
    Control, DrawPlan, Factor, TIE, Tested, draw, draw_some_while_open, mean_and_sd, p_value, permutation, permutations, signs,
};
use crate::conversion::Equation;
use crate::error::Result;
use crate::linalg::weight_basis::scale_rows;
use crate::similarity::AllPairs;
use crate::table::CutRow;
use crate::terms::{MatrixKind, Side, Status};

/// All assignments of targets to layers are looked at up to this many layers (720 assignments), beyond it as many as controls are drawn.
const ALL_ASSIGNMENTS: usize = 6;
/// Draws that are made at a time.
const BATCH: usize = 16;
/// Draws, times cuts, whose vectors go through a basis together: it is read once for them all.
pub const TOGETHER: usize = 4;

/// Mean φ over pairs of layers, for each cut and each (i, j); none where no pair has one.
pub type Statistics = Vec<Option<f64>>;

/// Bases of several layers or of several cuts; none where there is nothing.
type Bases = Vec<Option<Array2<f64>>>;

/// What is asked of one factor of a module.
pub struct CutStudy<'a> {
    /// The cuts.
    pub cuts: &'a [Cut],
    /// The numbers of vectors compared.
    pub ij: &'a [(usize, usize)],
    /// The seed of the controls.
    pub seed: u64,
    /// How often the `flip` control is drawn.
    pub plan: DrawPlan,
    /// How often the `w0` control is drawn.
    pub together: usize,
    /// Whether targets are assigned to other layers' weights too.
    pub shuffled: bool,
}

impl CutStudy<'_> {
    /// The rows of one factor, and one of all cuts together where there are several.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub fn rows(
        &self,
        name: ModuleName<'_>,
        factor: Factor,
        layers: &[RelatedLayer<'_>],
        w0: &[Statistics],
    ) -> Result<Vec<CutRow>> {
        let observed_coordinates: Vec<Coordinates<'_>> = layers.iter().map(|layer| Coordinates::of(layer, factor)).collect();
        let vectors = self.vectors(&observed_coordinates)?;
        let bases = at_home(&observed_coordinates, &vectors);
        let observed = self.statistics(&bases);
        let comparable = layers.iter().all(|layer| layer.number.is_some());
        let decomposed = layers.iter().all(|layer| layer.base.basis.is_some());
        let flips =
            if decomposed && comparable { self.flips(factor, &observed_coordinates, &vectors, &observed) } else { Vec::new() };
        let shuffled = if self.shuffled && comparable { self.shuffled(factor, layers)? } else { None };

        let mut rows = Vec::with_capacity(self.cuts.len() * self.ij.len());
        for (c, cut) in self.cuts.iter().enumerate() {
            let kept: Vec<usize> = observed_coordinates.iter().map(|x| x.kept(*cut)).collect();
            for (p, &(i, j)) in self.ij.iter().enumerate() {
                let at = c * self.ij.len() + p;
                let phi = observed[at].filter(|_| comparable);
                let of_draws = |draws: &[Statistics]| draws.iter().filter_map(|draw| draw[at]).collect::<Vec<f64>>();
                let (w0_values, flip_values) = (of_draws(w0), of_draws(&flips));
                let as_large = |draw: f64| phi.is_some_and(|phi| draw >= phi - TIE);
                let flip = Tested::of(self.plan, &flip_values, as_large);
                let (w0_mean, w0_sd) = mean_and_sd(&w0_values);
                let shuffled = shuffled.as_ref().map(|draws| of_draws(draws)).filter(|draws| !draws.is_empty());
                rows.push(CutRow {
                    adapter: name.adapter.to_owned(),
                    module: name.module.to_owned(),
                    matrix: if factor == Factor::A { MatrixKind::A } else { MatrixKind::B },
                    side: Side::Left,
                    i,
                    j,
                    cut: cut.to_string(),
                    kept_min: kept.iter().copied().min(),
                    kept_max: kept.iter().copied().max(),
                    layers: bases[c].iter().flatten().filter(|basis| basis.ncols() >= i.max(j)).count(),
                    phi_mean: phi,
                    gaussian_kept: phi.and_then(|_| gaussian_kept(&observed_coordinates, *cut, (i, j))),
                    w0_mean: w0_mean.filter(|_| phi.is_some()),
                    w0_sd: w0_sd.filter(|_| phi.is_some()),
                    w0_p: phi.and_then(|phi| p_value(phi, &w0_values)),
                    flip_mean: flip.mean,
                    flip_sd: flip.sd,
                    flip_p: flip.p,
                    flip_draws: (flip.draws > 0).then_some(flip.draws),
                    // The assignment as it is counts among all of them, and not among some that are drawn.
                    shuffled_p: phi.zip(shuffled).and_then(|(phi, draws)| {
                        let all = layers.len() <= ALL_ASSIGNMENTS;
                        let large = draws.iter().filter(|&&draw| draw >= phi - TIE).count();
                        if all { Some(large as f64 / draws.len() as f64) } else { p_value(phi, &draws) }
                    }),
                    status: Self::status(layers, factor, &bases[c], i.max(j), comparable),
                });
            }
        }
        if self.cuts.len() > 1 && !flips.is_empty() {
            let all: Vec<CutRow> = (0..self.ij.len()).filter_map(|p| self.all_cuts(&rows, p, &observed, &flips, w0)).collect();
            rows.extend(all);
        }
        Ok(rows)
    }

    /// The draws of the `w0` control, which no adapter changes: Gaussian targets of these ranks.
    ///
    /// Targets are drawn in the singular basis of W0, where they are Gaussian too, or else multiplied by W0ᵀ.
    ///
    /// # Errors
    /// Those of [`Self::rows`].
    pub fn w0_draws(&self, factor: Factor, layers: &[RelatedLayer<'_>]) -> Result<Vec<Statistics>> {
        let by_layer: Vec<Vec<Coordinates<'_>>> = layers.iter().map(|layer| self.drawn(layer, factor)).collect();
        (0..self.together)
            .into_par_iter()
            .map(|number| {
                let coordinates: Vec<Coordinates<'_>> =
                    by_layer.iter().map(|draws| Coordinates { values: draws[number].values.clone(), ..draws[number] }).collect();
                self.statistics_of(&coordinates)
            })
            .collect()
    }

    /// All draws of the `w0` control at one layer.
    fn drawn<'l>(&self, layer: &RelatedLayer<'l>, factor: Factor) -> Vec<Coordinates<'l>> {
        let (equation, rank, base) = (layer.equation(factor), layer.target(factor).ncols(), layer.base);
        let gaussian = |number, length| draw(self.seed, Control::W0, base.stream, factor, number, length, rank);
        let own = |values| Coordinates { values, base, equation };
        if let Some(sides) = base.sides(equation) {
            return (0..self.together).map(|number| own(gaussian(number, sides.sigma.len()))).collect();
        }
        (0..self.together).map(|number| own(base.drawn.image(factor, rank, number).clone())).collect()
    }

    /// For each layer the left singular vectors of its Θ at every cut, in its coordinates; none where it has none.
    fn vectors(&self, layers: &[Coordinates<'_>]) -> Result<Vec<Bases>> {
        layers.iter().map(|layer| self.cuts.iter().map(|cut| layer.vectors(*cut)).collect()).collect()
    }

    /// The statistics of targets that are given in their coordinates.
    fn statistics_of(&self, layers: &[Coordinates<'_>]) -> Result<Statistics> {
        Ok(self.statistics(&at_home(layers, &self.vectors(layers)?)))
    }

    fn statistics(&self, by_cut: &[Bases]) -> Statistics {
        let mut out = Vec::with_capacity(self.cuts.len() * self.ij.len());
        for bases in by_cut {
            let (pairs, layers) = (all_pairs(bases), (0..bases.len()).collect::<Vec<_>>());
            out.extend(self.ij.iter().map(|&(i, j)| pairs.mean_phi(&layers, i, j)));
        }
        out
    }

    /// Draws of the `flip` control, until all statistics are decided.
    ///
    /// Turned signs and the singular values that Θ is made with are both diagonal in the basis of W0, and commute: the left singular vectors of a turned Θ
    /// are those of Θ with the same signs turned, so that no draw decomposes anything.
    fn flips(&self, factor: Factor, layers: &[Coordinates<'_>], vectors: &[Bases], observed: &Statistics) -> Vec<Statistics> {
        let is_open = |draws: &[Statistics]| {
            (0..observed.len()).any(|at| {
                observed[at].is_some_and(|phi| self.plan.goes_on(draws, |draw| draw[at].is_some_and(|value| value >= phi - TIE)))
            })
        };
        let drawn = |numbers: Range<usize>| -> Result<Vec<Statistics>, Infallible> {
            let turn = |(layer, vectors): (&Coordinates<'_>, &Bases)| -> Bases {
                let of_draw = |number| -> Bases {
                    let signs = signs(self.seed, layer.base.stream, factor, number, layer.values.nrows());
                    vectors.iter().map(|own| own.as_ref().map(|own| scale_rows(own.view(), &signs))).collect()
                };
                numbers.clone().flat_map(of_draw).collect()
            };
            let turned: Vec<Bases> = layers.iter().zip(vectors).map(turn).collect();
            // The cuts of the first draw, then those of the next.
            Ok(at_home(layers, &turned).chunks(self.cuts.len()).map(|by_cut| self.statistics(by_cut)).collect())
        };
        let Ok(draws) = draw_some_while_open(self.plan, (BATCH, (TOGETHER / self.cuts.len()).max(1)), drawn, is_open);
        draws
    }

    /// The statistics where the targets are assigned to other layers' weights: all assignments of few layers, else as many as controls are drawn. None where
    /// a weight was not decomposed.
    fn shuffled(&self, factor: Factor, layers: &[RelatedLayer<'_>]) -> Result<Option<Vec<Statistics>>> {
        let shape = |layer: &RelatedLayer<'_>| layer.target(factor).dim();
        let count = layers.len();
        if count < 2 || layers.windows(2).any(|pair| shape(&pair[0]) != shape(&pair[1])) {
            return Ok(None);
        }
        let Some(sides) = layers.iter().map(|layer| layer.base.sides(layer.equation(factor))).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let at = |layer: usize, target: usize| {
            let of = &layers[layer];
            Coordinates::in_basis(of.base, of.equation(factor), sides[layer], layers[target].target(factor))
        };
        if count > ALL_ASSIGNMENTS {
            let draws: Result<Vec<Statistics>> = (0..self.together)
                .into_par_iter()
                .map(|number| {
                    let order = permutation(self.seed, layers[0].base.stream, factor, number, count);
                    let coordinates: Vec<_> = (0..count).map(|layer| at(layer, order[layer])).collect();
                    self.statistics_of(&coordinates)
                })
                .collect();
            return draws.map(Some);
        }
        // Every target through every weight once; an assignment takes what it needs of these.
        let all: Vec<Coordinates<'_>> = (0..count * count).map(|n| at(n / count, n % count)).collect();
        let by_cut = at_home(&all, &self.vectors(&all)?);
        let pairs: Vec<AllPairs> = by_cut.par_iter().map(|bases| all_pairs(bases)).collect();
        let of_assignment = |order: &Vec<usize>| -> Statistics {
            let used: Vec<usize> = order.iter().enumerate().map(|(layer, target)| layer * count + target).collect();
            pairs.iter().flat_map(|pairs| self.ij.iter().map(|&(i, j)| pairs.mean_phi(&used, i, j))).collect()
        };
        Ok(Some(permutations(count).iter().map(of_assignment).collect()))
    }

    /// The row of all cuts together: the largest of their deviations from the control, compared with the largest of each draw.
    ///
    /// Means and standard deviations are those of the draws and the observation together, so that the observation is one like them under the null hypothesis.
    fn all_cuts(
        &self,
        rows: &[CutRow],
        p: usize,
        observed: &Statistics,
        flips: &[Statistics],
        w0: &[Statistics],
    ) -> Option<CutRow> {
        let places: Vec<usize> =
            (0..self.cuts.len()).map(|c| c * self.ij.len() + p).filter(|&at| observed[at].is_some()).collect();
        let first = rows.get(*places.first()?)?;
        let p_of = |draws: &[Statistics]| {
            let moments: Vec<(usize, f64, f64)> = places
                .iter()
                .filter_map(|&at| {
                    let values: Vec<f64> = draws.iter().chain([observed]).filter_map(|draw| draw[at]).collect();
                    let (mean, sd) = mean_and_sd(&values);
                    Some((at, mean?, sd.filter(|sd| *sd > 0.0)?))
                })
                .collect();
            let largest =
                |draw: &Statistics| moments.iter().filter_map(|&(at, mean, sd)| Some((draw[at]? - mean) / sd)).reduce(f64::max);
            let values: Vec<f64> = draws.iter().filter_map(largest).collect();
            largest(observed).and_then(|observed| p_value(observed, &values))
        };
        Some(CutRow {
            cut: CutRow::ALL.to_owned(),
            kept_min: None,
            kept_max: None,
            phi_mean: None,
            gaussian_kept: None,
            w0_mean: None,
            w0_sd: None,
            w0_p: p_of(w0),
            flip_mean: None,
            flip_sd: None,
            flip_p: p_of(flips),
            flip_draws: Some(flips.len()),
            shuffled_p: None,
            status: rows.iter().map(|row| row.status).fold(Status::Ok, Status::worse),
            ..first.clone()
        })
    }

    fn status(
        layers: &[RelatedLayer<'_>],
        factor: Factor,
        bases: &[Option<Array2<f64>>],
        most: usize,
        comparable: bool,
    ) -> Status {
        let same_length = layers.windows(2).all(|pair| home_length(&pair[0], factor) == home_length(&pair[1], factor));
        if !comparable || !same_length {
            return Status::Skipped;
        }
        let of = |(layer, basis): (&RelatedLayer<'_>, &Option<Array2<f64>>)| match basis {
            None if layer.target(factor).iter().all(|&v| v == 0.0) => Status::Zero,
            None if layer.base.basis.is_none() => Status::Unreliable,
            None => Status::Rank,
            Some(basis) if basis.ncols() < most => Status::Rank,
            Some(_) if layer.base.basis.is_some_and(|basis| basis.rank() < basis.sigma.len()) => Status::Singular,
            Some(_) => Status::Ok,
        };
        layers.iter().zip(bases).map(of).fold(Status::Ok, Status::worse)
    }
}

/// Of as many bases of each layer, in its coordinates, for each the bases of all layers on the side where Θ lives.
fn at_home(layers: &[Coordinates<'_>], vectors: &[Bases]) -> Vec<Bases> {
    let mut together = vec![Bases::with_capacity(layers.len()); vectors.first().map_or(0, Vec::len)];
    for (layer, own) in layers.iter().zip(vectors) {
        for (bases, vectors) in together.iter_mut().zip(layer.at_home(own)) {
            bases.push(vectors);
        }
    }
    together
}

fn all_pairs(bases: &[Option<Array2<f64>>]) -> AllPairs {
    AllPairs::of(&bases.iter().map(|basis| basis.as_ref().map(|basis| basis.view())).collect::<Vec<_>>())
}

/// The length of the vectors that the layers are compared by.
fn home_length(layer: &RelatedLayer<'_>, factor: Factor) -> usize {
    let (d_out, d_in) = layer.base.shape;
    if layer.equation(factor) == Equation::W0 { d_in } else { d_out }
}
