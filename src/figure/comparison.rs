//! The figures of a comparison: for every module and (i, j) the lines of [`super::layers`].

use std::collections::HashMap;

use rayon::prelude::*;

use super::drawn::{DrawnFigure, FigureKind, render};
use super::{FigureOptions, layers};
use crate::error::Result;
use crate::table::rows::CompareRow;

/// Draws φ of a comparison layer by layer, for every module that has layers and every (i, j), in table order.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_comparison(rows: &[CompareRow], options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let mut places: HashMap<(&str, usize, usize), usize> = HashMap::new();
    let mut groups: Vec<(FigureKind, Vec<&CompareRow>)> = Vec::new();
    for row in rows {
        let place = *places.entry((&row.module, row.i, row.j)).or_insert(groups.len());
        if place == groups.len() {
            groups.push((FigureKind::Comparison { module: row.module.clone(), i: row.i, j: row.j }, Vec::new()));
        }
        groups[place].1.push(row);
    }
    let draw = |(kind, rows): (FigureKind, Vec<&CompareRow>)| match layers::LayerLines::of(rows).as_ref().and_then(layers::scene)
    {
        Some(scene) => render(&scene, "", &kind, options),
        None => Ok(Vec::new()),
    };
    let drawn: Vec<Vec<DrawnFigure>> = groups.into_par_iter().map(draw).collect::<Result<_>>()?;
    Ok(drawn.into_iter().flatten().collect())
}
