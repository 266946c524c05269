//! The paper's Figure 1 for one module (Kim et al. 2024): the heatmaps of Θ_A and Θ_B side by side on one scale, and a caption
//! with their means and controls.

use rayon::prelude::*;

use super::context::FigureContext;
use super::groups::{self, LayerSimilarity};
use super::kind::{DrawnFigure, FigureKind, in_each_format};
use super::options::{ColourScale, FigureOptions};
use super::parts::bar::{Bar, Mark};
use super::parts::layers::axis_name;
use super::parts::names::matrix_name;
use super::parts::panel::{self, CellPanel, Labels, PanelFonts};
use super::parts::square::{cell_size, paint, scale_end};
use super::parts::values::SquareValues;
use super::scene::colour;
use super::scene::font::{self, HALF_CAP, fit, printable, wrap};
use super::scene::{Anchor, SCALE, Scene};
use crate::error::Result;
use crate::table::Tables;
use crate::table::gather;
use crate::terms::{MatrixKind, Status};

const MARGIN: f64 = 14.0;
const PANEL_TITLE: f64 = 12.0;
const CAPTION: f64 = 10.0;
const CAPTION_LINE: f64 = 1.45;
/// Width of a panel with many layers.
const SIDE: f64 = 300.0;
const GAP: f64 = 26.0;
const BAR_GAP: f64 = 16.0;
const BAR_WIDTH: f64 = 14.0;
/// Numbers are written in cells that are at least this wide.
const NARROWEST_ANNOTATED: f64 = 22.0;
/// Minimum width of the caption.
const NARROWEST: f64 = 420.0;

/// Θ_A and Θ_B of one module; one of them if the other was not compared.
struct FigureOne<'a> {
    /// Never empty: they are gathered rows.
    groups: Vec<&'a LayerSimilarity<'a>>,
}

/// The paper's Figure 1 for every module, side and (i, j), in table order, each with its caption.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_paper(
    tables: &Tables,
    context: &FigureContext<'_>,
    options: &FigureOptions,
) -> Result<Vec<(String, Vec<DrawnFigure>)>> {
    let groups = groups::layer_similarities(tables);
    let compared = groups.iter().filter(|group| matches!(group.matrix, MatrixKind::A | MatrixKind::B));
    let pairs = gather(compared, |group| (group.adapter, group.module, group.side, group.i, group.j));
    let mut pairs: Vec<FigureOne<'_>> = pairs.into_iter().map(|(_, groups)| FigureOne { groups }).collect();
    pairs.iter_mut().for_each(|pair| pair.groups.sort_by_key(|group| group.matrix));
    let draw = |pair: &FigureOne<'_>| {
        let first = pair.groups[0];
        let caption = pair.caption(context);
        let kind = FigureKind::Paper { module: first.module.to_owned(), side: first.side, i: first.i, j: first.j };
        Ok((caption.clone(), in_each_format(&pair.scene(&caption, options), first.adapter, &kind, options)?))
    };
    let drawn: Vec<Result<(String, Vec<DrawnFigure>)>> = pairs.par_iter().map(draw).collect();
    drawn.into_iter().collect()
}

impl FigureOne<'_> {
    /// The caption, in one line: what is shown, and the means over layer_a < layer_b with those of the controls.
    fn caption(&self, context: &FigureContext<'_>) -> String {
        let first = self.groups[0];
        let names: Vec<String> = self.groups.iter().map(|group| matrix_name(group.matrix)).collect();
        let base = context.base_name.map_or_else(String::new, |base| format!(" on {}", printable(base)));
        let sizes = if first.i == first.j { format!("i = j = {}", first.i) } else { format!("i = {}, j = {}", first.i, first.j) };
        let mut text = format!(
            "Similarities φ ({sizes}, {} singular vectors) between the conversion matrices {} of all pairs of {} layers; {} modules of {}{base}.",
            first.side,
            names.join(" and "),
            first.layers.len(),
            printable(first.module),
            printable(first.adapter),
        );
        let numbers: Vec<String> = self.groups.iter().filter_map(|group| means(group)).collect();
        if !numbers.is_empty() {
            text.push_str(&format!(" Mean over layer pairs: {}.", numbers.join("; ")));
        }
        text
    }

    fn scene(&self, caption: &str, options: &FigureOptions) -> Scene {
        let squares: Vec<SquareValues> = self.groups.iter().map(|group| group.values(|row| row.phi)).collect();
        let n = squares.iter().map(|square| square.n).max().unwrap_or(1);
        let hi = match options.scale {
            ColourScale::Paper => 1.0,
            ColourScale::Data => scale_end(squares.iter().filter_map(SquareValues::largest).reduce(f64::max)),
        };
        let cell = ((cell_size(n).min(SIDE / n as f64) * SCALE).floor() / SCALE).max(1.0);
        let annotated = (n <= 16 && cell >= NARROWEST_ANNOTATED.min(SIDE / 16.0)).then(|| (0.34 * cell).clamp(7.5, 12.0));
        // The widest number is `1.00`.
        let annotated = annotated.filter(|size| font::width("1.00", *size) + 1.0 < cell);
        let fonts = PanelFonts { cell: annotated, tick: 9.5, title: 11.0 };
        let tallest = cell * n as f64;
        let mut bar = self.bar(options, hi, tallest);

        let mut places = Vec::new();
        let mut x = 0.0;
        for (index, (group, values)) in self.groups.iter().zip(&squares).enumerate() {
            x += panel::left_space(Labels::Layers(&group.numbers), fonts, index == 0);
            places.push(x);
            let title = font::width(&panel_title(index, group), PANEL_TITLE);
            x += (cell * values.n as f64).max(title) + GAP;
        }
        let content = x - GAP + BAR_GAP + bar.left_space() + BAR_WIDTH + bar.right_space();
        let room = content.max(NARROWEST);
        let lines = wrap(caption, CAPTION, room);
        let lines: Vec<String> = lines.into_iter().map(|line| fit(&line, CAPTION, room)).collect();

        let top = MARGIN + 2.0 * HALF_CAP * PANEL_TITLE + 9.0;
        let below = panel::bottom_space(Labels::Layers(&[]), fonts, true);
        let caption_top = top + tallest + below + 12.0;
        let height = caption_top + (lines.len() as f64 * CAPTION_LINE - 0.4) * CAPTION + MARGIN;
        let mut scene = Scene::new(room + 2.0 * MARGIN, height, caption.to_owned());
        let left = MARGIN + (room - content) / 2.0;
        for (index, ((group, values), x)) in self.groups.iter().zip(&squares).zip(places).enumerate() {
            let x = left + x;
            scene.text(x, top - 7.0, PANEL_TITLE, Anchor::Start, colour::INK, panel_title(index, group));
            let (x_title, y_title) = axis_titles(group);
            CellPanel {
                x,
                y: top,
                cell,
                labels: Labels::Layers(&group.numbers),
                paints: paint(values, options, hi, true),
                fonts,
                x_title: Some(&x_title),
                y_title: (index == 0).then_some(y_title.as_str()),
            }
            .draw(&mut scene);
        }
        (bar.x, bar.y) = (left + content - bar.right_space() - BAR_WIDTH, top);
        scene.text(bar.x + BAR_WIDTH / 2.0, top - 7.0, 11.0, Anchor::Middle, colour::INK, "φ");
        bar.draw(&mut scene);
        for (k, line) in lines.into_iter().enumerate() {
            let baseline = caption_top + (k as f64 * CAPTION_LINE + 2.0 * HALF_CAP) * CAPTION;
            scene.text(MARGIN, baseline, CAPTION, Anchor::Start, colour::INK, line);
        }
        scene
    }

    /// The bar of both panels, with the means of the controls.
    fn bar(&self, options: &FigureOptions, hi: f64, height: f64) -> Bar {
        let summaries = || self.groups.iter().filter_map(|group| Some((group.matrix, group.summary?)));
        let mean = |value: Option<f64>| value.filter(|value| value.is_finite());
        let mut marks: Vec<Mark> = summaries()
            .filter_map(|(matrix, summary)| Some(Mark { value: mean(summary.w0_mean)?, label: format!("W0 control, {matrix}") }))
            .collect();
        // The Gaussian means of A and B estimate the same number from different draws, so they are one mark.
        let gaussian: Vec<f64> = summaries().filter_map(|(_, summary)| mean(summary.gaussian_mean)).collect();
        if !gaussian.is_empty() {
            let value = gaussian.iter().sum::<f64>() / gaussian.len() as f64;
            marks.push(Mark { value, label: "gaussian".to_owned() });
        }
        Bar {
            x: 0.0,
            y: 0.0,
            width: BAR_WIDTH,
            height,
            lo: 0.0,
            hi,
            scale: colour::sequential(options.colours),
            marks,
            size: 9.5,
            title: None,
            clipped: false,
        }
    }
}

/// `(a) Θ_A, mean 0.0522`.
fn panel_title(index: usize, group: &LayerSimilarity<'_>) -> String {
    let letter = if index == 0 { 'a' } else { 'b' };
    let mean = group.summary.and_then(|summary| summary.phi_mean).filter(|mean| mean.is_finite());
    let mean = mean.map_or_else(String::new, |mean| format!(", mean {mean:.4}"));
    format!("({letter}) {}{mean}", matrix_name(group.matrix))
}

fn axis_titles(group: &LayerSimilarity<'_>) -> (String, String) {
    let axis = axis_name(&group.layers);
    let name = |which: char, size: usize| if group.i == group.j { axis.to_owned() } else { format!("{axis} ({which} = {size})") };
    (name('j', group.j), name('i', group.i))
}

/// `Θ_A 0.0522 (random Gaussian matrices 0.0208, Gaussian targets through W0 0.0564 ± 0.0039)`.
fn means(group: &LayerSimilarity<'_>) -> Option<String> {
    let summary = group.summary?;
    let value = |name: &str, mean: Option<f64>, sd: Option<f64>| {
        let mean = mean.filter(|mean| mean.is_finite())?;
        let sd = sd.filter(|sd| sd.is_finite()).map_or_else(String::new, |sd| format!(" ± {sd:.4}"));
        Some(format!("{name} {mean:.4}{sd}"))
    };
    let controls = [
        value("random Gaussian matrices", summary.gaussian_mean, summary.gaussian_sd),
        value("Gaussian targets through W0", summary.w0_mean, summary.w0_sd),
    ];
    let controls: Vec<String> = controls.into_iter().flatten().collect();
    let status = if summary.status == Status::Ok { String::new() } else { format!(", status {}", summary.status) };
    let mean = value(&matrix_name(group.matrix), summary.phi_mean, None)
        .unwrap_or_else(|| format!("{} has none", matrix_name(group.matrix)));
    let controls = if controls.is_empty() { String::new() } else { format!(" ({})", controls.join(", ")) };
    Some(format!("{mean}{controls}{status}"))
}
