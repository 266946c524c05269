//! The fit of one module: A and B, and with `--delta` the updates, each with its controls; and with `--held-out` each layer in turn.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::delta::{self, Bases, Search, Updates};
use super::direct::{DirectFit, StackBases, fit_direct};
use super::fitted::FittedModule;
use super::flip::SingularBases;
use super::held_out::{HeldOutStudy, maps};
use super::layers::{FACTORS, SharedLayers, Targets};
use super::opening::{Fittable, Opened};
use super::params::{FitConfig, FitParams};
use super::score::{Scores, Squares};
use super::starts::{Leading, starts};
use crate::controls::{DrawPlan, Factor, draw_while_open};
use crate::conversion::Equation;
use crate::error::{Result, escape};
use crate::inputs::{BaseWeight, FactorPair, Progress, StoredWeight};
use crate::linalg::subspace::ThinQr;
use crate::record::InputRecord;
use crate::table::{FitRow, HeldOutRow};
use crate::terms::{LayerId, Status, UpdateMatrix};

/// How many steps the fit of a module is told as.
pub(super) fn steps_of(config: &FitConfig, plan: DrawPlan, module: &Fittable) -> usize {
    let (given, strict) = (&config.given, config.is_strict(module.shape()));
    let searches = 1 + given.null_draws.together() + if strict { plan.most } else { 0 };
    let counted = [(strict, FACTORS.len()), (given.delta, searches), (given.held_out, maps(module.shape()).len())];
    1 + counted.into_iter().filter(|(asked, _)| *asked).map(|(_, steps)| steps).sum::<usize>()
}

/// Fits one module.
///
/// # Errors
/// What is wrong with a weight or a factor; [`crate::Error::Lapack`] if a factorisation fails.
pub(super) fn fit_module(
    config: &FitConfig,
    plan: DrawPlan,
    opened: &Opened,
    module: &Fittable,
    progress: &dyn Progress,
) -> Result<ModuleFit> {
    let given = &config.given;
    let (layers, inputs) = read_layers(opened, module)?;
    let numbers: Vec<Option<LayerId>> = module.layers.iter().map(|layer| layer.adapter_layer.layer.clone()).collect();
    let mut direct = fit_direct(&layers, given.seed, given.null_draws.together())?;
    progress.step();

    let strict = config.is_strict(module.shape());
    let mut equations: Vec<Equation> = layers.equations().into_iter().map(|(equation, _)| equation).collect();
    if given.held_out {
        equations = vec![Equation::W0, Equation::W0Transposed];
    }
    let needed: &[Equation] = if strict || given.held_out || given.delta { &equations } else { &[] };
    let stacks = StackBases::of(&layers, &direct, needed)?;
    let singular = if strict { Some(SingularBases::of(&layers, &equations, given.seed)?) } else { None };
    if let Some(singular) = &singular {
        for (factor, scores) in FACTORS.into_iter().zip(&mut direct.scores) {
            let bases = stacks.of_equation(layers.equation(factor));
            let draws = singular.of_direct_fit(&layers, bases, factor, scores, plan)?;
            scores.compare_with_flips(plan, &draws);
            progress.step();
        }
    }
    let mut rows = direct.scores[0].rows(&module.name, UpdateMatrix::A, &numbers);
    rows.extend(direct.scores[1].rows(&module.name, UpdateMatrix::B, &numbers));
    let (mut thetas, mut sweeps, mut warning) = (direct.thetas.clone(), None, None);
    if given.delta {
        let control = singular.as_ref().map(|singular| (singular, plan));
        let best = fit_delta(given, &layers, &direct, &stacks, control, progress)?;
        rows.extend(best.scores.rows(&module.name, UpdateMatrix::Delta, &numbers));
        sweeps = best.search.as_ref().map(|search| search.sweeps);
        if best.search.as_ref().is_some_and(|search| !search.converged) {
            warning = Some(format!("module `{}`: the search was stopped before it had settled", escape(&module.name)));
        }
        if let Some(found) = best.thetas {
            thetas = found;
        }
    }
    let held_out = if given.held_out {
        let study = HeldOutStudy {
            layers: &layers,
            stacks: &stacks,
            singular: singular.as_ref(),
            plan,
            together: given.null_draws.together(),
            seed: given.seed,
        };
        study.rows(&module.name, &numbers, progress)?
    } else {
        Vec::new()
    };
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
        transposed: module.first().transposed,
        whole: module.whole,
    };
    Ok(ModuleFit { module, rows, held_out, inputs, warning })
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

/// Fits the updates, and for comparison Gaussian ones, and the trained ones with their signs turned, until the residual is decided.
fn fit_delta(
    given: &FitParams,
    layers: &SharedLayers<'_>,
    direct: &DirectFit,
    stacks: &StackBases,
    control: Option<(&SingularBases, DrawPlan)>,
    progress: &dyn Progress,
) -> Result<DeltaFit> {
    let of = |factor: Factor| stacks.of_equation(layers.equation(factor));
    let bases = Bases { a: of(Factor::A), b: of(Factor::B) };
    let drawn: Vec<Targets> = (0..given.null_draws.together())
        .map(|number| (0..layers.count()).map(|layer| layers.drawn(given.seed, number, layer)).collect())
        .collect();
    let drawn: Vec<Targets> = drawn.into_iter().map(|set| with_norms_of(set, &layers.trained)).collect::<Result<_>>()?;
    let sets: Vec<&Targets> = std::iter::once(&layers.trained).chain(&drawn).collect();
    // Every draw is searched for from the same starts as the trained updates, to the same end: fewer would find less, and leave the draws a larger residual.
    let search = |set: &Targets, leading: &Leading| -> Result<Option<Search>> {
        let best = match Updates::new(bases, set)? {
            None => None,
            Some(updates) => updates.best(&starts(layers, direct, bases, set, leading, given.seed)?)?,
        };
        progress.step();
        Ok(best)
    };
    let leading = Leading::of(layers, &sets)?;
    let searches: Result<Vec<Option<Search>>> =
        sets.par_iter().zip(&leading).map(|(set, leading)| search(set, leading)).collect();
    let mut searches = searches?.into_iter();
    let observed = searches.next().flatten();
    let squares: Vec<_> = searches.flatten().map(|search| search.squares).collect();
    let status = direct.scores.iter().map(|scores| scores.status).filter(|s| *s != Status::Zero).fold(Status::Ok, Status::worse);
    let nothing = Squares { residual: vec![0.0; layers.count()], target: vec![0.0; layers.count()] };
    let mut scores = Scores::new(observed.as_ref().map_or(&nothing, |search| &search.squares), &squares, None, status);
    if let Some((singular, plan)) = control {
        let updates = singular.updates(layers);
        let draw = |number: usize| -> Result<Squares> {
            let set = updates.flipped(number);
            let leading = Leading::of(layers, &[&set])?;
            let found = leading.first().map(|leading| search(&set, leading)).transpose()?.flatten();
            Ok(found.map_or_else(|| nothing.clone(), |search| search.squares))
        };
        let draws = draw_while_open(plan, rayon::current_num_threads(), draw, |draws| scores.is_open(plan, draws))?;
        scores.compare_with_flips(plan, &draws);
        (draws.len()..plan.most).for_each(|_| progress.step());
    }
    let thetas = observed.as_ref().map(|search| thetas_of(direct, search)).transpose()?;
    Ok(DeltaFit { scores, search: observed, thetas })
}

/// The result of fitting one module.
pub(super) struct ModuleFit {
    pub(super) module: FittedModule,
    pub(super) rows: Vec<FitRow>,
    pub(super) held_out: Vec<HeldOutRow>,
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
    let theta = |factor: Factor, y: &Array2<f64>| direct.stack(factor).solver.solve(y.view(), false);
    let (a, b) = (theta(Factor::A, &search.y[0]), theta(Factor::B, &search.y[1]));
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
