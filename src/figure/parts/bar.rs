//! The colour bar: a scale with round ticks on its left, and marks of reference values on its right.

use crate::figure::parts::ticks::{number, round_ticks, spread, widest};
use crate::figure::scene::colour::{self, Rgb};
use crate::figure::scene::font::{self, HALF_CAP};
use crate::figure::scene::{Anchor, Scene};

const TICK: f64 = 3.0;
const TICK_GAP: f64 = 2.5;
/// Distance from the bar's edge to the label of a mark. A leader connects the two.
const LEADER: f64 = 11.0;
/// Distance from the bar's upper edge to the baseline of its title.
const TITLE_GAP: f64 = 7.0;
/// Number of colours on a bar.
const STEPS: usize = 256;

/// A reference value on a bar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// A bar and its position (CSS pixels; `x`, `y` is its upper left corner).
pub(crate) struct Bar {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) lo: f64,
    pub(crate) hi: f64,
    /// The colour of values from 0 to 1.
    pub(crate) scale: fn(f64) -> Rgb,
    pub(crate) marks: Vec<Mark>,
    /// Font size of ticks and marks.
    pub(crate) size: f64,
    /// The title above the bar, aligned with its left edge, and its font size.
    pub(crate) title: Option<(String, f64)>,
    /// Whether some values lie beyond the ends, which are then labelled with ≤ and ≥.
    pub(crate) clipped: bool,
}

impl Bar {
    fn ticks(&self) -> Vec<(f64, String)> {
        // Labels look crowded with less than about three lines each.
        let most = (self.height / (3.2 * self.size)).floor().clamp(2.0, 9.0) as usize;
        if self.clipped {
            let end = |value: f64, sign: &str| (value, format!("{sign} {}", number(value, 0)));
            return vec![end(self.lo, "≤"), (0.0, "0".to_owned()), end(self.hi, "≥")];
        }
        if self.lo == -self.hi {
            // A symmetric scale has labels at both ends and in the middle, and at the halves if there is room.
            let parts = if self.height >= 9.0 * self.size { 4 } else { 2 };
            let decimals = usize::from((self.hi / 2.0).fract() != 0.0 && parts == 4);
            let at = |k: i32| self.lo + (self.hi - self.lo) * f64::from(k) / f64::from(parts);
            return (0..=parts).map(|k| (at(k), number(at(k), decimals))).collect();
        }
        round_ticks(self.lo, self.hi, most)
    }

    /// Space to the left of `x`.
    pub(crate) fn left_space(&self) -> f64 {
        TICK + TICK_GAP + widest(self.ticks().iter().map(|t| t.1.as_str()), self.size)
    }

    /// Space to the right of `x + width`.
    pub(crate) fn right_space(&self) -> f64 {
        let title = self.title.as_ref().map_or(0.0, |(title, size)| font::width(title, *size) - self.width);
        let marks = self.marks.iter().map(|mark| LEADER + 2.0 + font::width(&mark.label, self.size));
        marks.fold(title.max(0.0), f64::max)
    }

    fn height_of(&self, value: f64) -> f64 {
        let at = ((value - self.lo) / (self.hi - self.lo)).clamp(0.0, 1.0);
        self.y + self.height * (1.0 - at)
    }

    /// Adds the bar to a scene.
    pub(crate) fn draw(self, scene: &mut Scene) {
        let Self { x, y, width, height, .. } = self;
        // From the top down. Each step extends below its lower edge and the next one is drawn over it: if they only touched,
        // smoothing would show a seam at some zooms.
        for step in (0..STEPS).rev() {
            let below = height * (STEPS - 1 - step) as f64 / STEPS as f64;
            let reach = (height / STEPS as f64 + 1.0).min(height - below);
            scene.rect(x, y + below, width, reach, (self.scale)(step as f64 / (STEPS - 1) as f64));
        }
        scene.frame(x, y, width, height, colour::FRAME);
        for (value, label) in self.ticks() {
            let at = self.height_of(value);
            scene.rect(x - TICK, at - 0.25, TICK, 0.5, colour::FRAME);
            scene.text_centred(x - TICK - TICK_GAP, at, self.size, Anchor::End, colour::INK, label);
        }
        self.draw_marks(scene);
        if let Some((title, size)) = &self.title {
            scene.text(x, y - TITLE_GAP, *size, Anchor::Start, colour::INK, title.as_str());
        }
    }

    fn draw_marks(&self, scene: &mut Scene) {
        let edge = self.x + self.width;
        let mut marks: Vec<&Mark> = self.marks.iter().collect();
        // The largest value is at the top of the page.
        marks.sort_by(|a, b| b.value.total_cmp(&a.value));
        let wanted: Vec<f64> = marks.iter().map(|mark| self.height_of(mark.value)).collect();
        let half = HALF_CAP * self.size;
        let placed = spread(&wanted, 1.3 * self.size, self.y + half, self.y + self.height - half);
        for ((mark, at), label_at) in marks.into_iter().zip(wanted).zip(placed) {
            // A white line between black ones is visible on every colour of a scale.
            scene.rect(self.x, at - 1.0, self.width, 2.0, colour::BLACK);
            scene.rect(self.x, at - 0.5, self.width, 1.0, colour::WHITE);
            let bend = edge + LEADER - 4.0;
            if (label_at - at).abs() < 0.5 {
                scene.line((edge, at), (edge + LEADER, at), colour::FRAME);
            } else {
                scene.line((edge, at), (edge + 2.0, at), colour::FRAME);
                scene.line((edge + 2.0, at), (bend, label_at), colour::FRAME);
                scene.line((bend, label_at), (edge + LEADER, label_at), colour::FRAME);
            }
            scene.text_centred(edge + LEADER + 2.0, label_at, self.size, Anchor::Start, colour::INK, mark.label.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::scene::Element;

    fn bar(marks: &[(f64, &str)]) -> Bar {
        Bar {
            x: 20.0,
            y: 10.0,
            width: 14.0,
            height: 300.0,
            lo: 0.0,
            hi: 1.0,
            scale: colour::sequential(crate::figure::ColourMap::Viridis),
            marks: marks.iter().map(|(value, label)| Mark { value: *value, label: (*label).to_owned() }).collect(),
            size: 10.0,
            title: None,
            clipped: false,
        }
    }

    #[test]
    fn labels_on_each_side_never_overlap() {
        let mut scene = Scene::new(200.0, 330.0, String::new());
        bar(&[(0.0208, "gaussian"), (0.0275, "W0 control"), (0.03, "another")]).draw(&mut scene);
        let mut right: Vec<i32> = Vec::new();
        let mut left: Vec<i32> = Vec::new();
        for item in &scene.elements {
            if let Element::Text(text) = item {
                if text.anchor == Anchor::Start { right.push(text.y) } else { left.push(text.y) }
            }
        }
        assert_eq!((left.len(), right.len()), (6, 3));
        for side in [&mut left, &mut right] {
            side.sort_unstable();
            assert!(side.windows(2).all(|p| p[1] - p[0] >= 2 * 11), "{side:?}");
        }
    }

    #[test]
    fn a_symmetric_scale_names_both_ends() {
        let labels = |hi: f64, height: f64| {
            let bar = Bar { lo: -hi, hi, height, ..bar(&[]) };
            bar.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>()
        };
        assert_eq!(labels(4.0, 200.0), ["−4", "−2", "0", "2", "4"]);
        assert_eq!(labels(5.0, 200.0), ["−5.0", "−2.5", "0.0", "2.5", "5.0"]);
        assert_eq!(labels(5.0, 60.0), ["−5", "0", "5"]);
    }

    #[test]
    fn marks_outside_the_scale_stay_on_the_bar() {
        let mut scene = Scene::new(200.0, 330.0, String::new());
        bar(&[(7.0, "far"), (-1.0, "low")]).draw(&mut scene);
        for item in &scene.elements {
            if let Element::Rect { y, height, .. } = item {
                assert!(*y >= 17 && y + height <= 623);
            }
        }
    }
}
