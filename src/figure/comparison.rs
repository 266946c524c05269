//! The figures of a comparison: for every module and (i, j) the lines of [`super::layers`].

use rayon::prelude::*;

use super::kind::{DrawnFigure, FigureKind, render};
use super::layers;
use super::options::FigureOptions;
use crate::error::Result;
use crate::table::gather;
use crate::table::rows::CompareRow;

/// Draws φ of a comparison layer by layer, for every module that has layers and every (i, j), in table order.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_comparison(rows: &[CompareRow], options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let groups = gather(rows, |row| (row.module.as_str(), row.i, row.j));
    let draw = |((module, i, j), rows): ((&str, usize, usize), Vec<&CompareRow>)| match layers::LayerLines::of(rows)
        .as_ref()
        .and_then(layers::scene)
    {
        Some(scene) => render(&scene, "", &FigureKind::Comparison { module: module.to_owned(), i, j }, options),
        None => Ok(Vec::new()),
    };
    let drawn: Vec<Vec<DrawnFigure>> = groups.into_par_iter().map(draw).collect::<Result<_>>()?;
    Ok(drawn.into_iter().flatten().collect())
}
