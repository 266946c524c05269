//! All figures of a study: heatmaps, one overview and the charts for each adapter, and heatmaps of different adapters.

use rayon::prelude::*;

use super::across::{self, AdapterSimilarity};
use super::context::FigureContext;
use super::cuts::{self, Cuts};
use super::energy::{self, Energy};
use super::expected::{self, Expected};
use super::grid::{self, VectorGrid};
use super::groups::{self, LayerSimilarity};
use super::kind::{DrawnFigure, FigureKind, in_each_format};
use super::options::FigureOptions;
use super::overview::ranks_by_adapter;
use super::spectrum::{self, Spectra};
use super::training::{self, Training};
use super::{heatmap, overview};
use crate::error::Result;
use crate::table::Tables;
use crate::table::gather;

/// One figure that is to be drawn.
enum Job<'a> {
    Heatmap(&'a LayerSimilarity<'a>),
    Grid(&'a VectorGrid<'a>),
    Overview(&'a str, &'a [&'a LayerSimilarity<'a>]),
    Expected(&'a Expected<'a>),
    Spectrum(&'a Spectra<'a>),
    Cuts(&'a Cuts<'a>),
    Energy(&'a Energy<'a>),
    Training(&'a Training<'a>),
    Across(&'a AdapterSimilarity<'a>),
}

/// Draws every heatmap of each adapter, in table order, its grids by number of vectors, its overview, and of each module its pairs
/// of layers against their expectation, its singular values, and its cuts and energies where there are such tables; then its training
/// where there is a log, and at the end the heatmaps of different adapters.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_study(tables: &Tables, context: &FigureContext<'_>, options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let mut drawn = Vec::new();
    draw_study_in_turn(tables, context, options, |figure| {
        drawn.push(figure);
        Ok(())
    })?;
    Ok(drawn)
}

/// As [`draw_study`], for more figures than can be held in memory: each is given to `take` once it is drawn, in the same order.
///
/// Figures are drawn in parallel on rayon's current pool, a few for each thread at a time. Neither their order nor their bytes
/// depend on the number of threads.
///
/// # Errors
/// Those of [`draw_study`], and the first one of `take`.
pub fn draw_study_in_turn(
    tables: &Tables,
    context: &FigureContext<'_>,
    options: &FigureOptions,
    mut take: impl FnMut(DrawnFigure) -> Result<()>,
) -> Result<()> {
    if options.formats.is_empty() {
        return Ok(());
    }
    let similarities = groups::layer_similarities(tables);
    let grids = grid::groups(tables.grid.as_deref().unwrap_or_default());
    let of_adapters = gather(&similarities, |similarity| similarity.adapter);
    let expectations = expected::expectations(&similarities);
    let spectra = spectrum::spectra(&tables.spectrum);
    let cuts = cuts::cuts(tables.cuts.as_deref().unwrap_or_default());
    let energies = energy::energies(tables.energy.as_deref().unwrap_or_default());
    let trainings = training::trainings(tables.training.as_deref().unwrap_or_default());
    let across = across::groups(tables.across.as_deref().unwrap_or_default());

    // Listed kind by kind, then gathered by adapter: the figures of one adapter keep this order.
    let mut jobs: Vec<(&str, Job<'_>)> = Vec::new();
    jobs.extend(similarities.iter().map(|one| (one.adapter, Job::Heatmap(one))));
    jobs.extend(grids.iter().map(|one| (one.adapter, Job::Grid(one))));
    jobs.extend(of_adapters.iter().map(|(adapter, theirs)| (*adapter, Job::Overview(adapter, theirs))));
    jobs.extend(expectations.iter().map(|one| (one.adapter, Job::Expected(one))));
    jobs.extend(spectra.iter().map(|one| (one.adapter, Job::Spectrum(one))));
    jobs.extend(cuts.iter().map(|one| (one.adapter, Job::Cuts(one))));
    jobs.extend(energies.iter().map(|one| (one.adapter, Job::Energy(one))));
    jobs.extend(trainings.iter().map(|one| (one.adapter, Job::Training(one))));
    let by_adapter = gather(jobs, |(adapter, _)| *adapter).into_iter().flat_map(|(_, jobs)| jobs);
    let jobs: Vec<Job<'_>> = by_adapter.map(|(_, job)| job).chain(across.iter().map(Job::Across)).collect();

    let ranks = ranks_by_adapter(tables);
    let draw = |job: &Job<'_>| {
        let (scene, adapter, kind) = match *job {
            Job::Heatmap(one) => (Some(heatmap::scene(one, options)), one.adapter, heatmap::kind(one)),
            Job::Grid(one) => (Some(one.scene(options)), one.adapter, one.kind()),
            Job::Overview(adapter, theirs) => {
                let ranks = ranks.get(adapter).copied();
                (overview::scene(adapter, theirs, ranks, context, options), adapter, FigureKind::Overview)
            }
            Job::Expected(one) => (one.scene(), one.adapter, FigureKind::Expected { module: one.module.to_owned() }),
            Job::Spectrum(one) => (one.scene(), one.adapter, FigureKind::Spectrum { module: one.module.to_owned() }),
            Job::Cuts(one) => (one.scene(), one.adapter, FigureKind::Cuts { module: one.module.to_owned() }),
            Job::Energy(one) => (one.scene(), one.adapter, FigureKind::Energy { module: one.module.to_owned() }),
            Job::Training(one) => (one.scene(), one.adapter, FigureKind::Training),
            Job::Across(one) => (Some(one.scene(options)), "", one.kind()),
        };
        scene.map_or_else(|| Ok(Vec::new()), |scene| in_each_format(&scene, adapter, &kind, options))
    };
    // An overview takes many times as long as a heatmap: with a few figures for each thread the others do not wait for it.
    for some in jobs.chunks(4 * rayon::current_num_threads()) {
        let drawn: Vec<Result<Vec<DrawnFigure>>> = some.par_iter().map(draw).collect();
        for figures in drawn {
            figures?.into_iter().try_for_each(&mut take)?;
        }
    }
    Ok(())
}
