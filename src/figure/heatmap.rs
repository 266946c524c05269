//! The paper's figure: one matrix of φ over all pairs of layers.

use super::groups::LayerSimilarity;
use super::kind::FigureKind;
use super::options::FigureOptions;
use super::parts::bar::Mark;
use super::parts::layers::layer_names;
use super::parts::names::{matrix_name, phi_name};
use super::parts::panel::Labels;
use super::parts::square::{MOST_ANNOTATED, SquareFigure, cell_size, in_order, named_cell_size};
use super::scene::Scene;
use super::scene::font::printable;
use crate::terms::Status;

/// What one heatmap shows.
pub(super) fn kind(group: &LayerSimilarity<'_>) -> FigureKind {
    let (matrix, side, i, j) = (group.matrix, group.side, group.i, group.j);
    FigureKind::Heatmap { module: group.module.to_owned(), matrix, side, i, j }
}

/// The scene of one heatmap.
pub(super) fn scene(group: &LayerSimilarity<'_>, options: &FigureOptions) -> Scene {
    let (values, tree) = in_order(group.values(|row| row.phi), options.order);
    let ordered =
        |all: &[String]| tree.as_ref().map_or_else(|| all.to_vec(), |tree| tree.order.iter().map(|k| all[*k].clone()).collect());
    let numbers: Vec<u32> =
        tree.as_ref().map_or_else(|| group.numbers.clone(), |tree| tree.order.iter().map(|k| group.numbers[*k]).collect());
    let paths = layer_names(&group.layers);
    // In rising order, a label at every tenth layer identifies all of them. In the tree's order each layer needs its own label.
    let is_named = paths.is_some() || (tree.is_some() && values.n > MOST_ANNOTATED);
    let names: Vec<String> = ordered(&paths.unwrap_or_else(|| group.numbers.iter().map(u32::to_string).collect()));
    let (labels, cell, tick) = if is_named {
        let (cell, tick) = named_cell_size(values.n);
        (Labels::Names(&names), cell, tick)
    } else {
        (Labels::Layers(&numbers), cell_size(values.n), 10.0)
    };
    let picture = SquareFigure {
        labels,
        cell,
        tick,
        adapter: printable(group.adapter),
        module: printable(group.module),
        what: format!(" · {}, {}, {}", matrix_name(group.matrix), group.side, phi_name(group.i, group.j)),
        second: second_line(group),
        marks: marks(group),
        axis_titles: axis_titles(group),
        table: "similarity.csv",
        of_itself: true,
        values,
        tree,
    };
    picture.scene(options)
}

/// The means of the controls that were drawn.
fn marks(group: &LayerSimilarity<'_>) -> Vec<Mark> {
    let Some(summary) = group.summary else { return Vec::new() };
    [(summary.w0_mean, "W0 control"), (summary.gaussian_mean, "gaussian")]
        .into_iter()
        .filter_map(|(value, label)| Some(Mark { value: value.filter(|v| v.is_finite())?, label: label.to_owned() }))
        .collect()
}

/// Rows are `layer_a` with i vectors, columns `layer_b` with j.
fn axis_titles(group: &LayerSimilarity<'_>) -> (String, String) {
    if group.i == group.j {
        ("layer".to_owned(), "layer".to_owned())
    } else {
        (format!("layer (j = {})", group.j), format!("layer (i = {})", group.i))
    }
}

/// `mean 0.0262 · gaussian 0.0208 · W0 control 0.0275 ± 0.0010`, without what is missing, and the status if it is not ok.
fn second_line(group: &LayerSimilarity<'_>) -> String {
    let Some(summary) = group.summary else { return String::new() };
    let mut parts = Vec::new();
    let mut part = |name: &str, mean: Option<f64>, sd: Option<f64>| {
        if let Some(mean) = mean.filter(|v| v.is_finite()) {
            let sd = sd.filter(|v| v.is_finite()).map_or(String::new(), |sd| format!(" ± {sd:.4}"));
            parts.push(format!("{name} {mean:.4}{sd}"));
        }
    };
    part("mean", summary.phi_mean, None);
    part("gaussian", summary.gaussian_mean, None);
    part("W0 control", summary.w0_mean, summary.w0_sd);
    if summary.status != Status::Ok {
        parts.push(format!("status {}", summary.status));
    }
    parts.join(" · ")
}
