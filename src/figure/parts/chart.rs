//! The pieces of line charts: axes, the plotting area with its lines, bands and dots, and the key.

use crate::figure::parts::ticks::{labelled_layers, number, round_ticks, widest};
use crate::figure::scene::colour::{self, Rgb};
use crate::figure::scene::font::{self, HALF_CAP};
use crate::figure::scene::{Anchor, Scene};

/// Font size of labels at ticks and in keys.
pub(crate) const LABEL: f64 = 10.0;
/// Length of a tick, and the space between it and its label.
const TICK: f64 = 3.0;
const TICK_GAP: f64 = 3.0;
/// Length of a sample in the key.
const SAMPLE: f64 = 22.0;
/// Radius of a dot.
const DOT: f64 = 2.6;
const DASH: f64 = 4.0;

/// The colour of observed values.
pub(crate) const OBSERVED: Rgb = Rgb(0x1b, 0x4f, 0x9c);
/// The colours of a control's mean and of its spread.
pub(crate) const CONTROL: Rgb = Rgb(0xb8, 0x62, 0x0e);
pub(crate) const BAND: Rgb = Rgb(0xf6, 0xdf, 0xc0);
const GRID: Rgb = Rgb(0xe8, 0xe8, 0xe8);

/// The colours of a quantity with a spread: its mean and the edges of the spread, and what is between them. Inks have a contrast of
/// at least 3:1 with white and differ in lightness or along blue and yellow, which most people with colour blindness see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tone {
    pub(crate) ink: Rgb,
    pub(crate) fill: Rgb,
}

/// The tone of the `w0` control, and of anything else that Gaussian targets give.
pub(crate) const W0: Tone = Tone { ink: CONTROL, fill: BAND };
/// The tone of the `flip` control.
pub(crate) const FLIP: Tone = Tone { ink: Rgb(0x1f, 0x7a, 0x6d), fill: Rgb(0xb0, 0xd6, 0xce) };

/// Points from left to right. A point without a value interrupts the line.
pub(crate) type Points = Vec<(f64, Option<f64>)>;

/// A quantity's mean and its spread, at the same points.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    pub(crate) low: Points,
    pub(crate) mean: Points,
    pub(crate) high: Points,
    pub(crate) tone: Tone,
}

/// An axis for values from `lo` to `hi`, with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    lo: f64,
    hi: f64,
    log: bool,
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis with at most `most` round ticks. If both ends are the same value, it is widened to both sides.
    pub(crate) fn linear(lo: f64, hi: f64, most: usize) -> Self {
        let (lo, hi) = if hi > lo { (lo, hi) } else { (lo - 0.5 * lo.abs().max(1.0), lo + 0.5 * lo.abs().max(1.0)) };
        let mut ticks = round_ticks(lo, hi, most);
        // Labels with many decimals are easier to read as powers of ten.
        if ticks.iter().any(|(_, label)| label.chars().count() > 8) {
            ticks.iter_mut().for_each(|(value, label)| *label = exponent(*value));
        }
        Self { lo, hi, log: false, ticks }
    }

    /// A logarithmic axis for positive values, with ticks at powers of ten and, if these are few, at multiples of them.
    pub(crate) fn log(lo: f64, hi: f64, most: usize) -> Self {
        let (lo, hi) = if hi > lo { (lo, hi) } else { (lo / 2.0, lo * 2.0) };
        let (first, last) = (lo.log10().floor() as i32, hi.log10().ceil() as i32);
        let inside = |value: &f64| (lo * 0.999_999..=hi * 1.000_001).contains(value);
        let powers = |factors: &[f64]| -> Vec<f64> {
            (first..=last)
                .flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)))
                .filter(inside)
                .collect()
        };
        let mut values = powers(&[1.0]);
        let step = values.len().div_ceil(most.max(2)).max(1);
        values = values.into_iter().rev().step_by(step).collect();
        for factors in [&[1.0, 3.0][..], &[1.0, 2.0, 5.0]] {
            if values.len() < 3 {
                values = powers(factors);
            }
        }
        let ticks = if values.len() < 2 {
            round_ticks(lo, hi, most)
        } else {
            values.into_iter().map(|value| (value, power_label(value))).collect()
        };
        Self { lo, hi, log: true, ticks }
    }

    /// The position of a value, from 0 at the lower end to 1 at the upper end.
    fn at(&self, value: f64) -> f64 {
        let at = if self.log {
            (value.log10() - self.lo.log10()) / (self.hi.log10() - self.lo.log10())
        } else {
            // Halved first, because the difference of two finite numbers can overflow.
            (value / 2.0 - self.lo / 2.0) / (self.hi / 2.0 - self.lo / 2.0)
        };
        if at.is_finite() { at.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The values at its lower and upper end.
    pub(crate) fn ends(&self) -> [f64; 2] {
        [self.lo, self.hi]
    }

    /// Width of its labels and ticks, to the left of the plot.
    pub(crate) fn width(&self) -> f64 {
        TICK + TICK_GAP + widest(self.ticks.iter().map(|(_, label)| label.as_str()), LABEL)
    }
}

/// `0.001`, `50`, `1e−7`.
fn power_label(value: f64) -> String {
    let decimals = (-(value * 1.000_001).log10().floor()).max(0.0) as usize;
    if decimals <= 3 && value < 1e4 { number(value, decimals) } else { exponent(value) }
}

/// `2.5e−5`.
fn exponent(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.3e}").replace('-', "−").replace("000e", "e").replace(".e", "e") }
}

/// The plotting area (CSS pixels), and its vertical axis.
pub(crate) struct Plot<'a> {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) y: &'a Axis,
}

/// Height of what is below a plot: ticks, labels and the title of the axis.
pub(crate) const BELOW: f64 = TICK + 2.0 + LABEL + 6.0 + LABEL;

impl Plot<'_> {
    /// The vertical position of a value.
    pub(crate) fn y(&self, value: f64) -> f64 {
        self.top + self.height * (1.0 - self.y.at(value))
    }

    /// The middle of one of `count` equal parts of the width.
    pub(crate) fn part(&self, index: usize, count: usize) -> f64 {
        self.left + (index as f64 + 0.5) * self.width / count.max(1) as f64
    }

    /// The horizontal position of a value on an axis.
    pub(crate) fn x(&self, axis: &Axis, value: f64) -> f64 {
        self.left + self.width * axis.at(value)
    }

    /// Draws lines at the ticks of the vertical axis, with or without labels.
    pub(crate) fn grid(&self, scene: &mut Scene, labelled: bool) {
        for (value, label) in &self.y.ticks {
            let y = self.y(*value);
            if *value > self.y.lo {
                scene.line((self.left, y), (self.left + self.width, y), GRID);
            }
            scene.line((self.left - TICK, y), (self.left, y), colour::FRAME);
            if labelled {
                scene.text_centred(self.left - TICK - TICK_GAP, y, LABEL, Anchor::End, colour::INK, label.as_str());
            }
        }
    }

    /// Draws the frame, and below it the numbers of those parts that have room.
    pub(crate) fn close(&self, scene: &mut Scene, numbers: &[u32], parts: usize, name: &str) {
        let cell = self.width / parts.max(1) as f64;
        let shown = labelled_layers(numbers, cell, 4.0, |label| font::width(label, LABEL));
        let ticks = shown.into_iter().map(|index| (self.part(index, parts), numbers[index].to_string()));
        self.close_with(scene, ticks.collect(), name);
    }

    /// Draws the frame, and below it a horizontal axis.
    pub(crate) fn close_axis(&self, scene: &mut Scene, axis: &Axis, name: &str) {
        self.close_with(scene, axis.ticks.iter().map(|(value, label)| (self.x(axis, *value), label.clone())).collect(), name);
    }

    /// Draws the frame, and below it these ticks.
    pub(crate) fn close_with(&self, scene: &mut Scene, ticks: Vec<(f64, String)>, name: &str) {
        let bottom = self.top + self.height;
        scene.frame(self.left, self.top, self.width, self.height, colour::FRAME);
        for (x, label) in ticks {
            scene.line((x, bottom), (x, bottom + TICK), colour::FRAME);
            scene.text(x, bottom + TICK + 2.0 + LABEL, LABEL, Anchor::Middle, colour::INK, label);
        }
        scene.text(self.left + self.width / 2.0, bottom + BELOW, LABEL, Anchor::Middle, colour::INK, name);
    }

    /// Draws a line through points, interrupted where values are missing. A single point becomes a line that extends `alone` to
    /// both sides.
    pub(crate) fn line(&self, scene: &mut Scene, points: &Points, width: f64, alone: f64, colour: Rgb) {
        for stretch in stretches(points, alone) {
            scene.path(&self.placed(&stretch), width, colour);
        }
    }

    /// Draws the same line dashed.
    pub(crate) fn dashed(&self, scene: &mut Scene, points: &Points, alone: f64) {
        for stretch in stretches(points, alone) {
            for ends in self.placed(&stretch).windows(2) {
                if let [from, to] = ends {
                    dashed(scene, *from, *to);
                }
            }
        }
    }

    /// Fills the area between two lines with values at the same points.
    pub(crate) fn band(&self, scene: &mut Scene, low: &Points, high: &Points, alone: f64) {
        self.filled(scene, (low, high), alone, BAND);
    }

    fn filled(&self, scene: &mut Scene, (low, high): (&Points, &Points), alone: f64, fill: Rgb) {
        for (low, high) in stretches(low, alone).iter().zip(&stretches(high, alone)) {
            let around: Vec<(f64, f64)> = self.placed(low).into_iter().chain(self.placed(high).into_iter().rev()).collect();
            scene.area(&around, fill);
        }
    }

    /// Draws several spreads that may lie over each other. Their edges come after all the areas: that of one below another can still be
    /// seen.
    pub(crate) fn spreads(&self, scene: &mut Scene, spreads: &[Spread], alone: f64) {
        for Spread { low, high, tone, .. } in spreads {
            self.filled(scene, (low, high), alone, tone.fill);
        }
        for Spread { low, high, tone, .. } in spreads {
            [low, high].into_iter().for_each(|edge| self.line(scene, edge, 0.5, alone, tone.ink));
        }
        for Spread { mean, tone, .. } in spreads {
            self.line(scene, mean, 1.0, alone, tone.ink);
        }
    }

    /// Draws a dot at every value, smaller if there are many.
    pub(crate) fn dots(&self, scene: &mut Scene, points: &Points, colour: Rgb) {
        let radius = DOT.min(0.3 * self.width / points.len().max(1) as f64).max(1.0);
        for (x, value) in points {
            if let Some(value) = value {
                scene.dot(*x, self.y(*value), radius, colour);
            }
        }
    }

    fn placed(&self, stretch: &[(f64, f64)]) -> Vec<(f64, f64)> {
        stretch.iter().map(|&(x, value)| (x, self.y(value))).collect()
    }
}

/// Splits points where values are missing. A single point becomes two, `alone` to its left and right.
fn stretches(points: &Points, alone: f64) -> Vec<Vec<(f64, f64)>> {
    let mut stretches: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
    for (x, value) in points {
        match (value, stretches.last_mut()) {
            (Some(value), Some(open)) => open.push((*x, *value)),
            _ => stretches.push(Vec::new()),
        }
    }
    stretches.retain(|stretch| !stretch.is_empty());
    for stretch in &mut stretches {
        if let [(x, value)] = stretch[..] {
            *stretch = vec![(x - alone, value), (x + alone, value)];
        }
    }
    stretches
}

/// How an entry of the key looks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sample {
    /// A line with dots.
    Dotted(Rgb),
    /// A line without.
    Line(Rgb),
    /// A control's mean and its band.
    Control,
    /// The same in other colours, with its edges.
    Spread(Tone),
    /// Dashes.
    Dashed,
    /// A cross.
    Cross(Rgb),
}

/// Draws the key: samples with their meanings in a row that starts at `left`, centred on `y`.
pub(crate) fn key(scene: &mut Scene, left: f64, y: f64, entries: &[(Sample, &str)]) {
    let mut x = left;
    for (sample, text) in entries {
        let end = x + SAMPLE;
        match sample {
            Sample::Dotted(colour) => {
                scene.path(&[(x, y), (end, y)], 1.5, *colour);
                scene.dot(x + SAMPLE / 2.0, y, DOT, *colour);
            }
            Sample::Line(colour) => scene.path(&[(x, y), (end, y)], 1.5, *colour),
            Sample::Control => {
                scene.area(&[(x, y - 5.0), (end, y - 5.0), (end, y + 5.0), (x, y + 5.0)], BAND);
                scene.path(&[(x, y), (end, y)], 1.0, CONTROL);
            }
            Sample::Spread(Tone { ink, fill }) => {
                scene.area(&[(x, y - 5.0), (end, y - 5.0), (end, y + 5.0), (x, y + 5.0)], *fill);
                for (across, width) in [(-5.0, 0.5), (5.0, 0.5), (0.0, 1.0)] {
                    scene.path(&[(x, y + across), (end, y + across)], width, *ink);
                }
            }
            Sample::Dashed => dashed(scene, (x, y), (end, y)),
            Sample::Cross(colour) => cross(scene, (x + SAMPLE / 2.0, y), 1.2 * DOT, *colour),
        }
        scene.text_centred(end + 6.0, y, LABEL, Anchor::Start, colour::INK, *text);
        x = end + 6.0 + font::width(text, LABEL) + 18.0;
    }
}

/// The width of [`key`].
pub(crate) fn key_width(entries: &[(Sample, &str)]) -> f64 {
    entries.iter().map(|(_, text)| SAMPLE + 6.0 + font::width(text, LABEL) + 18.0).sum::<f64>() - 18.0
}

/// Draws a diagonal cross, `half` of its side in each direction.
pub(crate) fn cross(scene: &mut Scene, (x, y): (f64, f64), half: f64, colour: Rgb) {
    for slope in [-1.0, 1.0] {
        scene.path(&[(x - half, y - slope * half), (x + half, y + slope * half)], 1.5, colour);
    }
}

/// Draws a dashed straight line.
fn dashed(scene: &mut Scene, from: (f64, f64), to: (f64, f64)) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy);
    let at = |along: f64| (from.0 + dx * along / length, from.1 + dy * along / length);
    let mut start = 0.0;
    while start < length {
        scene.path(&[at(start), at((start + DASH).min(length))], 1.0, colour::SOFT_INK);
        start += 2.0 * DASH;
    }
}

/// What is free around a chart.
pub(crate) const MARGIN: f64 = 14.0;
/// Font sizes of a chart's title and of the line below it.
pub(crate) const TITLE: f64 = 13.0;
pub(crate) const SUBTITLE: f64 = 11.0;
const TITLE_AT: f64 = MARGIN + 2.0 * HALF_CAP * TITLE;
/// The baseline of the second line of [`titles`].
pub(crate) const SECOND_AT: f64 = TITLE_AT + 1.7 * SUBTITLE;

/// Draws a chart's title and the line below it.
pub(crate) fn titles(scene: &mut Scene, title: String, second: String) {
    scene.text(MARGIN, TITLE_AT, TITLE, Anchor::Start, colour::INK, title);
    scene.text(MARGIN, SECOND_AT, SUBTITLE, Anchor::Start, colour::SOFT_INK, second);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn ticks_of_a_log_axis_are_powers_or_round_between_few() {
        let mut wide = Axis::log(1e-9, 1.0, 6);
        wide.ticks.reverse();
        assert_eq!(labels(&wide), ["1e−8", "1e−6", "1e−4", "0.01", "1"]);
        assert_eq!(labels(&Axis::log(0.02, 1.0, 6)), ["0.03", "0.1", "0.3", "1"]);
        assert_eq!(labels(&Axis::log(0.15, 1.0, 6)), ["0.2", "0.5", "1"]);
        for (lo, hi) in [(0.9, 1.0), (1.0, 1.0), (1e-320, 1e308), (5e-324, 1e-323)] {
            let axis = Axis::log(lo, hi, 6);
            assert!((1..=9).contains(&axis.ticks.len()), "{lo} to {hi}: {:?}", axis.ticks);
        }
    }

    #[test]
    fn values_lie_where_their_axis_says() {
        let log = Axis::log(1e-4, 1.0, 6);
        for (value, at) in [(1e-4, 0.0), (1e-2, 0.5), (1.0, 1.0), (1e-9, 0.0), (0.0, 0.0)] {
            assert!((log.at(value) - at).abs() < 1e-12, "{value}");
        }
        let linear = Axis::linear(-1.0, 3.0, 5);
        assert_eq!((linear.at(0.0), linear.at(9.0), linear.at(f64::NAN)), (0.25, 1.0, 0.0));
        let wide = Axis::linear(-f64::MAX, f64::MAX, 5);
        assert_eq!(wide.at(0.0), 0.5);
        assert!(labels(&Axis::linear(0.0, 1e300, 5)).iter().all(|label| label.len() < 12));
        assert!(labels(&Axis::linear(1e-9, 5e-9, 5)).iter().all(|label| label.chars().count() < 9));
        assert_eq!(labels(&Axis::linear(0.5, 0.5, 3)), ["0.0", "0.5", "1.0"]);
    }

    #[test]
    fn a_point_without_a_value_breaks_a_line() {
        let points = vec![(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(4.0)), (4.0, None)];
        assert_eq!(stretches(&points, 0.25), [vec![(0.0, 1.0), (1.0, 2.0)], vec![(2.75, 4.0), (3.25, 4.0)]]);
        assert!(stretches(&vec![(0.0, None)], 1.0).is_empty());
    }
}
