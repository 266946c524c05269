//! All figures of a study: heatmaps, one overview and the singular values for each adapter, and heatmaps of different adapters.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::across::{self, Across};
use super::context::FigureContext;
use super::grid::{self, ByNumber};
use super::groups::{self, Group};
use super::kind::{DrawnFigure, FigureKind, bytes_while_drawn, render};
use super::options::FigureOptions;
use super::scene::Scene;
use super::spectrum::{self, Spectra};
use super::training::{self, Training};
use super::{heatmap, overview};
use crate::error::Result;
use crate::table::rows::Tables;

/// One figure that is to be drawn.
enum Job<'a> {
    Heatmap(&'a Group<'a>),
    Overview(&'a str, &'a [&'a Group<'a>]),
    Spectrum(&'a Spectra<'a>),
    Training(&'a Training<'a>),
    Across(&'a Across<'a>),
    ByNumber(&'a ByNumber<'a>),
}

/// Draws for each adapter every heatmap, in table order, those by number of vectors, its overview, the singular values of each module, and
/// its training where there is a log; at the end the heatmaps of different adapters.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_study(tables: &Tables, context: &FigureContext<'_>, options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let mut drawn = Vec::new();
    draw_study_in_turn(tables, context, options, u64::MAX, |figure| {
        drawn.push(figure);
        Ok(())
    })?;
    Ok(drawn)
}

/// As [`draw_study`], for more figures than can be held: each goes to `take` when it is drawn, in the same order.
///
/// Figures are drawn in parallel on rayon's current pool, as many at a time as have bitmaps of `memory` bytes together, but always one;
/// neither their order nor their bytes depend on that.
///
/// # Errors
/// Those of [`draw_study`], and the first one of `take`.
pub fn draw_study_in_turn(
    tables: &Tables,
    context: &FigureContext<'_>,
    options: &FigureOptions,
    memory: u64,
    mut take: impl FnMut(DrawnFigure) -> Result<()>,
) -> Result<()> {
    if options.formats.is_empty() {
        return Ok(());
    }
    let groups = groups::groups(tables);
    let of_adapters = across::groups(tables.across.as_deref().unwrap_or_default());
    let by_number = grid::groups(tables.grid.as_deref().unwrap_or_default());
    let spectra = spectrum::spectra(&tables.spectrum);
    let trainings = training::trainings(tables.training.as_deref().unwrap_or_default());
    let ranks = ranks_by_adapter(tables);
    let by_adapter = by_adapter(&groups, &spectra, &trainings);
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (adapter, theirs) in &by_adapter {
        jobs.extend(theirs.groups.iter().copied().map(Job::Heatmap));
        jobs.extend(by_number.iter().filter(|group| group.adapter == *adapter).map(Job::ByNumber));
        if !theirs.groups.is_empty() {
            jobs.push(Job::Overview(adapter, &theirs.groups));
        }
        jobs.extend(theirs.spectra.iter().copied().map(Job::Spectrum));
        jobs.extend(theirs.training.map(Job::Training));
    }
    jobs.extend(of_adapters.iter().map(Job::Across));
    let lay_out = |job: &Job<'_>| match job {
        Job::Heatmap(group) => Some((heatmap::scene(group, options), group.adapter.to_owned(), heatmap_kind(group))),
        Job::Overview(adapter, groups) => {
            let scene = overview::scene(adapter, groups, ranks.get(adapter).copied(), context, options)?;
            Some((scene, (*adapter).to_owned(), FigureKind::Overview))
        }
        Job::Spectrum(spectra) => {
            let kind = FigureKind::Spectrum { module: spectra.module.to_owned() };
            Some((spectra.scene()?, spectra.adapter.to_owned(), kind))
        }
        Job::Training(training) => Some((training.scene()?, training.adapter.to_owned(), FigureKind::Training)),
        Job::Across(group) => Some((group.scene(options), String::new(), across_kind(group))),
        Job::ByNumber(group) => Some((group.scene(options), group.adapter.to_owned(), by_number_kind(group))),
    };
    for some in jobs.chunks(4 * rayon::current_num_threads()) {
        let scenes: Vec<(Scene, String, FigureKind)> = some.par_iter().filter_map(lay_out).collect();
        let sizes = scenes.iter().map(|(scene, ..)| bytes_while_drawn(scene, options));
        for batch in batches(sizes, memory) {
            let draw = |(scene, adapter, kind): &(Scene, String, FigureKind)| render(scene, adapter, kind, options);
            let drawn: Vec<Result<Vec<DrawnFigure>>> = scenes[batch].par_iter().map(draw).collect();
            for figures in drawn {
                figures?.into_iter().try_for_each(&mut take)?;
            }
        }
    }
    Ok(())
}

/// Runs of neighbours whose sizes have a sum of at most `most`, or of one.
fn batches(sizes: impl Iterator<Item = u64>, most: u64) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut sum: u64 = 0;
    for (at, size) in sizes.enumerate() {
        match batches.last_mut() {
            Some(batch) if sum.saturating_add(size) <= most => {
                batch.end = at + 1;
                sum += size;
            }
            _ => {
                batches.push(at..at + 1);
                sum = size;
            }
        }
    }
    batches
}

/// The smallest and the largest rank of each adapter.
pub(super) fn ranks_by_adapter(tables: &Tables) -> HashMap<&str, (usize, usize)> {
    let mut ranks: HashMap<&str, (usize, usize)> = HashMap::new();
    for row in &tables.conversion {
        let (least, most) = ranks.entry(&row.adapter).or_insert((row.rank, row.rank));
        (*least, *most) = ((*least).min(row.rank), (*most).max(row.rank));
    }
    ranks
}

/// What is drawn for one adapter.
#[derive(Default)]
struct Drawn<'a> {
    groups: Vec<&'a Group<'a>>,
    spectra: Vec<&'a Spectra<'a>>,
    training: Option<&'a Training<'a>>,
}

/// The adapters in the order in which they first appear, with what is drawn for each.
fn by_adapter<'a>(
    groups: &'a [Group<'a>],
    spectra: &'a [Spectra<'a>],
    trainings: &'a [Training<'a>],
) -> Vec<(&'a str, Drawn<'a>)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut adapters: Vec<(&str, Drawn<'_>)> = Vec::new();
    let mut place_of = |adapter: &'a str, adapters: &mut Vec<(&'a str, Drawn<'a>)>| {
        let place = *places.entry(adapter).or_insert(adapters.len());
        if place == adapters.len() {
            adapters.push((adapter, Drawn::default()));
        }
        place
    };
    for group in groups {
        let place = place_of(group.adapter, &mut adapters);
        adapters[place].1.groups.push(group);
    }
    for spectra in spectra {
        let place = place_of(spectra.adapter, &mut adapters);
        adapters[place].1.spectra.push(spectra);
    }
    for training in trainings {
        let place = place_of(training.adapter, &mut adapters);
        adapters[place].1.training = Some(training);
    }
    adapters
}

fn heatmap_kind(group: &Group<'_>) -> FigureKind {
    let (matrix, side, i, j) = (group.matrix, group.side, group.i, group.j);
    FigureKind::Heatmap { module: group.module.to_owned(), matrix, side, i, j }
}

fn by_number_kind(group: &ByNumber<'_>) -> FigureKind {
    let (matrix, side, layer_a, layer_b) = (group.matrix, group.side, group.layer_a, group.layer_b);
    FigureKind::ByNumber { module: group.module.to_owned(), matrix, side, layer_a, layer_b }
}

fn across_kind(group: &Across<'_>) -> FigureKind {
    let (matrix, side, i, j) = (group.matrix, group.side, group.i, group.j);
    FigureKind::Across { module: group.module.to_owned(), matrix, side, i, j }
}
