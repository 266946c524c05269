//! One Θ of all other layers tried on each layer: for every factor and map the share that it predicts, beside the strict control, chance, and what the other
//! layers' own factors predict.

use rayon::prelude::*;

use super::context::FigureContext;
use super::kind::{DrawnFigure, FigureKind, in_each_format};
use super::options::FigureOptions;
use super::parts::chart::{self, Axis, BELOW, LABEL, MARGIN, OBSERVED, Plot, Points, SUBTITLE, Sample, TITLE, key};
use super::parts::names::{doubt, update_name};
use super::scene::colour::{self, Rgb};
use super::scene::font::{fit, printable};
use super::scene::{Anchor, Scene};
use crate::error::Result;
use crate::table::{HeldOutRow, gather};
use crate::terms::UpdateMatrix;

const HEIGHT: f64 = 190.0;
const GAP: f64 = 26.0;
/// Width for each factor and map.
const CELL: f64 = 76.0;
const TICKS: usize = 6;
/// Half the width of a control's band, and of the place where the layers are.
const HALF_BAND: f64 = 0.36 * CELL;
const HALF_LAYERS: f64 = 0.30 * CELL;
/// Radius of a layer's dot.
const LAYER: f64 = 1.3;
/// Half the side of a cross.
const CROSS: f64 = 3.2;
const WITHOUT_W0: Rgb = Rgb(0x7a, 0x2a, 0x68);
/// Shares below this are drawn at it: the axis is logarithmic.
const FLOOR: f64 = 1e-4;

/// Draws the predictions of every module, in table order; none for a module without any.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_held_out(rows: &[HeldOutRow], context: &FigureContext<'_>, options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let modules = gather(rows, |row| row.module.as_str());
    let modules: Vec<Predictions<'_>> = modules.into_iter().map(|(module, rows)| Predictions { module, rows }).collect();
    let draw = |predictions: &Predictions<'_>| match predictions.scene(context.adapter) {
        Some(scene) => in_each_format(&scene, "", &FigureKind::HeldOut { module: predictions.module.to_owned() }, options),
        None => Ok(Vec::new()),
    };
    let drawn: Vec<Result<Vec<DrawnFigure>>> = modules.par_iter().map(draw).collect();
    Ok(drawn.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The rows of one module.
pub(super) struct Predictions<'a> {
    pub(super) module: &'a str,
    pub(super) rows: Vec<&'a HeldOutRow>,
}

/// A factor and its map, as they are drawn: one place on the horizontal axis.
type Place<'a> = (UpdateMatrix, &'a str);

impl<'a> Predictions<'a> {
    fn places(&self) -> Vec<Place<'a>> {
        let mut places: Vec<Place<'a>> = Vec::new();
        for row in &self.rows {
            let place = (row.matrix, row.map.as_str());
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    fn of(&self, weighting: &str, place: Place<'_>) -> impl Iterator<Item = &'a HeldOutRow> {
        self.rows.iter().copied().filter(move |row| row.weighting == weighting && (row.matrix, row.map.as_str()) == place)
    }

    /// From the smallest to the largest of all values, with the spread of the controls.
    fn axis(&self) -> Option<Axis> {
        let values = |row: &&HeldOutRow| {
            let edge = |sign: f64| row.flip_mean.map(|mean| mean + sign * row.flip_sd.unwrap_or(0.0));
            [row.score, row.chance, row.without_w0.filter(|_| row.layer == HeldOutRow::ALL), edge(-1.0), edge(1.0)]
        };
        self.rows.iter().find(|row| row.score.is_some_and(f64::is_finite))?;
        let all = || self.rows.iter().flat_map(values).flatten().filter(|value| value.is_finite()).map(|value| value.max(FLOOR));
        let (lo, hi) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
        Some(Axis::log(lo / 1.25, hi * 1.25, TICKS))
    }

    pub(super) fn scene(&self, adapter: Option<&str>) -> Option<Scene> {
        let (places, y) = (self.places(), self.axis()?);
        let panel = CELL * places.len() as f64;
        let axis = LABEL + 8.0 + y.width();
        let has_control = self.rows.iter().any(|row| row.flip_mean.is_some());
        let control = has_control.then_some((Sample::Control, "flip control: mean ± sd"));
        let entries = [
            Some((Sample::Dotted(OBSERVED), "one Θ of the others (small: each layer)")),
            control,
            Some((Sample::Dashed, "chance")),
            Some((Sample::Cross(WITHOUT_W0), "the others' own, no W0")),
        ];
        let entries: Vec<_> = entries.into_iter().flatten().collect();
        // The key has two lines, so that one of two places is not wider than its panels.
        let (first, second) = entries.split_at(entries.len() / 2);
        let keys = chart::key_width(first).max(chart::key_width(second));
        let content = (axis + 2.0 * panel + GAP).max(keys);

        let of = adapter.map_or_else(String::new, |name| format!("{}: ", printable(name)));
        let title = format!("{of}{} · each layer left out", printable(self.module));
        let status = doubt(self.rows.iter().map(|row| row.status)).map_or_else(String::new, |status| format!(" · {status}"));
        let subtitle = format!("what one Θ of the other layers predicts of it{status}");
        let (title, subtitle) = (fit(&title, TITLE, content), fit(&subtitle, SUBTITLE, content));
        let key_at = chart::SECOND_AT + 20.0;
        let top = key_at + 18.0 + 30.0;
        let mut scene = Scene::new(content + 2.0 * MARGIN, top + HEIGHT + BELOW + MARGIN, format!("{title}. {subtitle}"));
        chart::titles(&mut scene, title, subtitle);
        key(&mut scene, MARGIN, key_at, first);
        key(&mut scene, MARGIN, key_at + 18.0, second);
        scene.text_upwards(MARGIN + LABEL / 2.0, top + HEIGHT / 2.0, LABEL, Anchor::Middle, colour::INK, "share predicted");
        for (index, (weighting, name)) in
            [(HeldOutRow::SUBSPACE, "of its directions"), (HeldOutRow::ENERGY, "of its energy")].into_iter().enumerate()
        {
            let left = MARGIN + axis + index as f64 * (panel + GAP);
            let plot = Plot { left, top, width: panel, height: HEIGHT, y: &y };
            scene.text(left, top - 7.0, LABEL + 1.0, Anchor::Start, colour::INK, name);
            self.panel(&mut scene, &plot, weighting, &places, index == 0);
        }
        Some(scene)
    }

    fn panel(&self, scene: &mut Scene, plot: &Plot<'_>, weighting: &str, places: &[Place<'_>], labelled: bool) {
        plot.grid(scene, labelled);
        let mut ticks = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let x = plot.part(index, places.len());
            ticks.push((x, format!("{} by {}", update_name(place.0), if place.1 == HeldOutRow::W0 { "W0" } else { "W0ᵀ" })));
            let all = self.of(weighting, *place).find(|row| row.layer == HeldOutRow::ALL);
            let shown = |value: Option<f64>| value.filter(|value| value.is_finite()).map(|value| value.max(FLOOR));
            let point = |value: &dyn Fn(&HeldOutRow) -> Option<f64>| -> Points { vec![(x, shown(all.and_then(value)))] };
            let edge = |sign: f64| point(&|row: &HeldOutRow| row.flip_mean.map(|mean| mean + sign * row.flip_sd.unwrap_or(0.0)));
            plot.band(scene, &edge(-1.0), &edge(1.0), HALF_BAND);
            plot.line(scene, &point(&|row: &HeldOutRow| row.flip_mean), 1.0, HALF_BAND, chart::CONTROL);
            plot.dashed(scene, &point(&|row: &HeldOutRow| row.chance), HALF_BAND);
            let layers: Vec<f64> = self
                .of(weighting, *place)
                .filter(|row| row.layer != HeldOutRow::ALL)
                .filter_map(|row| shown(row.score))
                .collect();
            for (place, score) in layers.iter().enumerate() {
                let across = (2.0 * place as f64 + 1.0) / layers.len() as f64 - 1.0;
                scene.dot(x + across * HALF_LAYERS, plot.y(*score), LAYER, OBSERVED);
            }
            if let Some(without) = shown(all.and_then(|row| row.without_w0)) {
                chart::cross(scene, (x, plot.y(without)), CROSS, WITHOUT_W0);
            }
            plot.dots(scene, &point(&|row: &HeldOutRow| row.score), OBSERVED);
        }
        plot.close_with(scene, ticks, "factor and map");
    }
}
