//! The fit of one module: A and B, and with `--delta` the updates, each with Gaussian targets for comparison.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::delta::{self, Bases, Search, Updates};
use super::direct::{DirectFit, fit_direct};
use super::fitted::FittedModule;
use super::layers::{SharedLayers, Targets};
use super::opening::{Fittable, Opened};
use super::params::FitParams;
use super::score::{Scores, Squares};
use super::starts::{Leading, starts};
use crate::controls::Factor;
use crate::error::{Result, escape};
use crate::inputs::{BaseWeight, FactorPair, Progress, StoredWeight};
use crate::linalg::subspace::ThinQr;
use crate::record::InputRecord;
use crate::table::FitRow;
use crate::terms::{Convention, Status, UpdateMatrix};

/// Fits one module.
///
/// # Errors
/// What is wrong with a weight or a factor; [`crate::Error::Lapack`] if a factorisation fails.
pub(super) fn fit_module(given: &FitParams, opened: &Opened, module: &Fittable, progress: &dyn Progress) -> Result<ModuleFit> {
    let (layers, inputs) = read_layers(opened, module)?;
    let direct = fit_direct(&layers, given.seed, given.null_draws)?;
    progress.step();
    let numbers: Vec<Option<u32>> = module.layers.iter().map(|layer| layer.adapter_layer.layer).collect();
    let mut rows = direct.scores[0].rows(&module.name, UpdateMatrix::A, &numbers);
    rows.extend(direct.scores[1].rows(&module.name, UpdateMatrix::B, &numbers));
    let (mut thetas, mut sweeps, mut warning) = (direct.thetas.clone(), None, None);
    if given.delta {
        let best = fit_delta(given, &layers, &direct, progress)?;
        rows.extend(best.scores.rows(&module.name, UpdateMatrix::Delta, &numbers));
        sweeps = best.search.as_ref().map(|search| search.sweeps);
        if best.search.as_ref().is_some_and(|search| !search.converged) {
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
        scaling: module.first().adapter_layer.scaling,
        sweeps,
        layers: numbers,
        whole: module.whole,
    };
    Ok(ModuleFit { module, rows, inputs, warning })
}

/// The factors of a module's layers, and how its weights are read.
fn read_layers<'m>(opened: &'m Opened, module: &'m Fittable) -> Result<(SharedLayers<'m>, Vec<InputRecord>)> {
    let mut inputs = Vec::new();
    let mut trained: Targets = Vec::with_capacity(module.layers.len());
    for layer in &module.layers {
        let w0 = StoredWeight::read(&opened.base, &BaseWeight::of(layer), &mut inputs)?;
        let pair = FactorPair::read(&opened.adapter, &layer.adapter_layer, &w0, &mut inputs).map_err(|e| w0.explain(e))?;
        trained.push(pair);
    }
    let base = &opened.base;
    // What is read again has already been recorded.
    let read = move |layer: usize| StoredWeight::read(base, &BaseWeight::of(&module.layers[layer]), &mut Vec::new())?.to_f64();
    let first = module.first();
    let layers = SharedLayers {
        convention: module.convention,
        rank: first.adapter_layer.rank,
        d_out: first.d_out,
        d_in: first.d_in,
        trained,
        streams: module.layers.iter().map(|layer| layer.tensor.clone()).collect(),
        read: Box::new(read),
    };
    Ok((layers, inputs))
}

/// Fits the updates, and sets of Gaussian ones for comparison.
fn fit_delta(given: &FitParams, layers: &SharedLayers<'_>, direct: &DirectFit, progress: &dyn Progress) -> Result<DeltaFit> {
    let bases_of = |factor: Factor| -> Result<Vec<Array2<f64>>> {
        let stack = direct.stack(factor);
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
    let searches: Result<Vec<Option<Search>>> = sets
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
    let mut searches = searches?.into_iter();
    let observed = searches.next().flatten();
    let squares: Vec<_> = searches.flatten().map(|search| search.squares).collect();
    let status = direct.scores.iter().map(|scores| scores.status).filter(|s| *s != Status::Zero).fold(Status::Ok, Status::worse);
    let nothing = Squares { residual: vec![0.0; layers.count()], target: vec![0.0; layers.count()] };
    let scores = Scores::new(observed.as_ref().map_or(&nothing, |search| &search.squares), &squares, None, status);
    let thetas = observed.as_ref().map(|search| thetas_of(direct, search)).transpose()?;
    Ok(DeltaFit { scores, search: observed, thetas })
}

/// The result of fitting one module.
pub(super) struct ModuleFit {
    pub(super) module: FittedModule,
    pub(super) rows: Vec<FitRow>,
    pub(super) inputs: Vec<InputRecord>,
    pub(super) warning: Option<String>,
}

struct DeltaFit {
    scores: Scores,
    search: Option<Search>,
    thetas: Option<[Array2<f64>; 2]>,
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

/// Θ_A and Θ_B in the basis of r columns where both carry the roots of the singular values. Many pairs give the same updates; this one depends only on the updates.
fn thetas_of(direct: &DirectFit, search: &Search) -> Result<[Array2<f64>; 2]> {
    let theta = |factor: Factor, y: &Array2<f64>| -> Result<Array2<f64>> { direct.stack(factor).solver.solve(y.view(), false) };
    let (a, b) = (theta(Factor::A, &search.y[0])?, theta(Factor::B, &search.y[1])?);
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
