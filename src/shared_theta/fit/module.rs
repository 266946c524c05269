//! The fit of one module: A and B, and with `--delta` the updates, each beside Gaussian targets.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::delta::{self, Bases, Found, Updates};
use super::direct::{DirectFit, FittedStack, fit_direct};
use super::layers::{SharedLayers, Targets};
use super::opening::Fittable;
use super::score::{Scores, Squares};
use super::starts::{Leading, starts};
use super::{FittedModule, PreparedFit};
use crate::checkpoint::InputRecord;
use crate::controls::Factor;
use crate::conversion::WeightRows;
use crate::error::{Error, Result, escape};
use crate::linalg::subspace::ThinQr;
use crate::study::{FactorPair, Progress, StoredWeight};
use crate::table::FitRow;
use crate::terms::{Convention, Status, UpdateMatrix};

impl PreparedFit<'_> {
    pub(super) fn fit_module(&self, module: &Fittable, progress: &dyn Progress) -> Result<Done> {
        let given = &self.config.given;
        let (layers, inputs) = self.read_layers(module)?;
        let direct = fit_direct(&layers, given.seed, given.null_draws)?;
        progress.step();
        let numbers: Vec<Option<u32>> = module.layers.iter().map(|layer| layer.adapter_layer.layer).collect();
        let mut rows = direct.scores[0].rows(&module.name, UpdateMatrix::A, &numbers);
        rows.extend(direct.scores[1].rows(&module.name, UpdateMatrix::B, &numbers));
        let (mut thetas, mut sweeps, mut warning) = (direct.thetas.clone(), None, None);
        if given.delta {
            let best = self.fit_delta(&layers, &direct, progress)?;
            rows.extend(best.scores.rows(&module.name, UpdateMatrix::Delta, &numbers));
            sweeps = best.found.as_ref().map(|found| found.sweeps);
            if best.found.as_ref().is_some_and(|found| !found.converged) {
                warning = Some(format!("module `{}`: the search was stopped before it had settled", escape(&module.name)));
            }
            if let Some(found) = best.thetas {
                thetas = found;
            }
        }
        drop(layers);
        let [theta_a, theta_b] = thetas;
        let module = FittedModule {
            name: module.name.clone(),
            key: module.key.clone(),
            convention: module.convention,
            theta_a,
            theta_b,
            scaling: module.first().map_or(1.0, |layer| layer.adapter_layer.scaling),
            sweeps,
            layers: numbers,
            whole: module.whole,
        };
        Ok(Done { module, rows, inputs, warning })
    }

    /// The factors of a module's layers, and how its weights are read.
    fn read_layers<'m>(&'m self, module: &'m Fittable) -> Result<(SharedLayers<'m>, Vec<InputRecord>)> {
        let mut inputs = Vec::new();
        let mut trained: Targets = Vec::with_capacity(module.layers.len());
        for layer in &module.layers {
            let w0 = StoredWeight::read(&self.opened.base, layer, &mut inputs)?;
            let pair =
                FactorPair::read(&self.opened.adapter, &layer.adapter_layer, &w0, &mut inputs).map_err(|e| w0.explain(e))?;
            trained.push(pair);
        }
        let base = &self.opened.base;
        let read = move |layer: usize| -> Result<Array2<f64>> {
            let w0 = StoredWeight::read(base, &module.layers[layer], &mut Vec::new())?;
            let mut values = Array2::zeros(w0.shape());
            if let Some(out) = values.as_slice_mut() {
                w0.copy_rows(0, out);
            }
            match values.iter().find(|v: &&f64| !v.is_finite()) {
                None => Ok(values),
                Some(bad) => Err(w0.explain(Error::NonFinite { what: "a base weight".into(), found: bad.to_string() })),
            }
        };
        let (d_out, d_in, rank) = module.first().map_or((0, 0, 0), |l| (l.d_out, l.d_in, l.adapter_layer.rank));
        let streams = module.layers.iter().map(|layer| layer.tensor.clone()).collect();
        let layers = SharedLayers { convention: module.convention, rank, d_out, d_in, trained, streams, read: Box::new(read) };
        Ok((layers, inputs))
    }

    /// Fits the updates, and as many sets of Gaussian ones.
    fn fit_delta(&self, layers: &SharedLayers<'_>, direct: &DirectFit, progress: &dyn Progress) -> Result<DeltaFit> {
        let given = &self.config.given;
        let bases_of = |factor: Factor| -> Result<Vec<Array2<f64>>> {
            let stack = stack_of(direct, factor)?;
            (0..layers.count()).map(|layer| stack.basis_of(layers, layer)).collect()
        };
        let of_a = bases_of(Factor::A)?;
        let of_b = if layers.convention == Convention::Paper { None } else { Some(bases_of(Factor::B)?) };
        let bases = Bases { a: &of_a, b: of_b.as_ref().unwrap_or(&of_a) };
        let drawn: Vec<Targets> = (0..given.null_draws)
            .map(|number| (0..layers.count()).map(|layer| layers.drawn(given.seed, number, layer)).collect())
            .collect();
        let drawn: Vec<Targets> = drawn.into_iter().map(|set| with_norms_of(set, &layers.trained)).collect::<Result<_>>()?;
        let sets: Vec<&Targets> = std::iter::once(&layers.trained).chain(&drawn).collect();
        let leading = Leading::of(layers, &sets)?;
        let found: Result<Vec<Option<Found>>> = sets
            .par_iter()
            .zip(&leading)
            .map(|(set, leading)| {
                let best = match Updates::new(bases, set)? {
                    None => None,
                    Some(updates) => updates.best(&starts(layers, direct, bases, set, leading, given.seed)?)?,
                };
                progress.step();
                Ok(best)
            })
            .collect();
        let mut found = found?.into_iter();
        let observed = found.next().flatten();
        let squares: Vec<_> = found.flatten().map(|found| found.squares).collect();
        let status =
            direct.scores.iter().map(|scores| scores.status).filter(|s| *s != Status::Zero).fold(Status::Ok, Status::worse);
        let nothing = Squares { residual: vec![0.0; layers.count()], target: vec![0.0; layers.count()] };
        let scores = Scores::new(observed.as_ref().map_or(&nothing, |found| &found.squares), &squares, None, status);
        let thetas = observed.as_ref().map(|found| thetas_of(direct, found)).transpose()?;
        Ok(DeltaFit { scores, found: observed, thetas })
    }
}

/// What one module gave.
pub(super) struct Done {
    pub(super) module: FittedModule,
    pub(super) rows: Vec<FitRow>,
    pub(super) inputs: Vec<InputRecord>,
    pub(super) warning: Option<String>,
}

struct DeltaFit {
    scores: Scores,
    found: Option<Found>,
    thetas: Option<[Array2<f64>; 2]>,
}

/// The stack of a factor, which every direct fit has.
fn stack_of(direct: &DirectFit, factor: Factor) -> Result<&FittedStack> {
    let missing = || Error::Shape { what: "stack_of", expected: "a stack for each factor".into(), found: "none".into() };
    direct.stack(factor).ok_or_else(missing)
}

/// Scales each drawn B so that the update has the norm of the trained one.
fn with_norms_of(mut drawn: Targets, trained: &Targets) -> Result<Targets> {
    let norm = |pair: &FactorPair| delta::norm_of_product(pair.b.view(), pair.a_transposed.view());
    for (pair, like) in drawn.iter_mut().zip(trained) {
        let (size, wanted) = (norm(pair)?, norm(like)?);
        pair.b.mapv_inplace(|v| if size > 0.0 { v / size * wanted } else { 0.0 });
    }
    Ok(drawn)
}

/// Θ_A and Θ_B in the basis of r columns where both have the singular values' roots: of all that give the same updates, one that depends on these alone.
fn thetas_of(direct: &DirectFit, found: &Found) -> Result<[Array2<f64>; 2]> {
    let theta =
        |factor: Factor, y: &Array2<f64>| -> Result<Array2<f64>> { stack_of(direct, factor)?.solver.solve(y.view(), false) };
    let (a, b) = (theta(Factor::A, &found.y[0])?, theta(Factor::B, &found.y[1])?);
    let basis = ThinQr::of(b.view())?.basis_of_product(&ThinQr::of(a.view())?)?;
    let scaled = |vectors: ArrayView2<'_, f64>| {
        let mut out = vectors.to_owned();
        for (mut column, sigma) in out.columns_mut().into_iter().zip(basis.spectrum().sigma()) {
            column.mapv_inplace(|v| v * sigma.sqrt());
        }
        out
    };
    Ok([scaled(basis.right()), scaled(basis.left())])
}
