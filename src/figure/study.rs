//! All figures of a study: heatmaps, one overview for each adapter, and heatmaps of different adapters.

use std::collections::HashMap;

use rayon::prelude::*;

use super::across::{self, Across};
use super::drawn::{DrawnFigure, FigureKind, render};
use super::group::{self, Group};
use super::{FigureContext, FigureOptions, heatmap, overview};
use crate::error::Result;
use crate::table::rows::Tables;

/// One figure that is to be drawn.
enum Job<'a> {
    Heatmap(&'a Group<'a>),
    Overview(&'a str),
    Across(&'a Across<'a>),
}

/// Draws every heatmap, in table order, after an adapter's last one its overview, and at the end those of different adapters.
///
/// Figures are drawn in parallel on rayon's current pool; neither their order nor their bytes depend on it.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_study(tables: &Tables, context: &FigureContext<'_>, options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    if options.formats.is_empty() {
        return Ok(Vec::new());
    }
    let groups = group::groups(tables);
    let of_adapters = across::groups(tables.across.as_deref().unwrap_or_default());
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (adapter, groups) in by_adapter(&groups) {
        jobs.extend(groups.into_iter().map(Job::Heatmap));
        jobs.push(Job::Overview(adapter));
    }
    jobs.extend(of_adapters.iter().map(Job::Across));
    let draw = |job: &Job<'_>| match job {
        Job::Heatmap(group) => render(&heatmap::scene(group, options), group.adapter, &heatmap_kind(group), options),
        Job::Overview(adapter) => match overview::scene(&groups, tables, context, options, adapter) {
            Some(scene) => render(&scene, adapter, &FigureKind::Overview, options),
            None => Ok(Vec::new()),
        },
        Job::Across(group) => render(&group.scene(options), "", &across_kind(group), options),
    };
    let drawn: Vec<Result<Vec<DrawnFigure>>> = jobs.par_iter().map(draw).collect();
    let drawn: Vec<Vec<DrawnFigure>> = drawn.into_iter().collect::<Result<_>>()?;
    Ok(drawn.into_iter().flatten().collect())
}

/// The adapters in the order in which they first appear, with their groups.
fn by_adapter<'a>(groups: &'a [Group<'a>]) -> Vec<(&'a str, Vec<&'a Group<'a>>)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut adapters: Vec<(&str, Vec<&Group<'_>>)> = Vec::new();
    for group in groups {
        let place = *places.entry(group.adapter).or_insert(adapters.len());
        if place == adapters.len() {
            adapters.push((group.adapter, Vec::new()));
        }
        adapters[place].1.push(group);
    }
    adapters
}

fn heatmap_kind(group: &Group<'_>) -> FigureKind {
    let (matrix, side, i, j) = (group.matrix, group.side, group.i, group.j);
    FigureKind::Heatmap { module: group.module.to_owned(), matrix, side, i, j }
}

fn across_kind(group: &Across<'_>) -> FigureKind {
    let (matrix, side, i, j) = (group.matrix, group.side, group.i, group.j);
    FigureKind::Across { module: group.module.to_owned(), matrix, side, i, j }
}
