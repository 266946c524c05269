//! Line charts side by side on one vertical axis, with what is around them: titles, the key, the panels' names and a caption.

use crate::figure::parts::chart::{self, Axis, BELOW, LABEL, MARGIN, Plot, SUBTITLE, Sample, TITLE, key, key_width};
use crate::figure::parts::names::heading;
use crate::figure::scene::colour;
use crate::figure::scene::font::{fit, printable, wrap};
use crate::figure::scene::{Anchor, Scene};

const CAPTION: f64 = 10.0;
const CAPTION_LINE: f64 = 1.45 * CAPTION;
/// Gap between two panels, wide enough for the last number of one axis beside the first of the next.
const GAP: f64 = 34.0;
/// Height of a line of the key.
const KEY_LINE: f64 = 18.0;
/// A single panel does not make the texts narrower than this.
const NARROWEST: f64 = 400.0;

/// What is around the panels. All texts but the names of panels may be of any length.
pub(crate) struct SideBySide<'a> {
    pub(crate) adapter: &'a str,
    pub(crate) module: &'a str,
    /// What follows the names in the first line.
    pub(crate) what: &'a str,
    /// The line below.
    pub(crate) second: String,
    pub(crate) key: Vec<(Sample, &'a str)>,
    pub(crate) y: &'a Axis,
    pub(crate) y_name: &'a str,
    /// One name for each panel.
    pub(crate) panels: Vec<String>,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) caption: String,
}

impl<'a> SideBySide<'a> {
    /// The scene with everything but what is within the panels, and their plotting areas.
    pub(crate) fn open(self) -> (Scene, Vec<Plot<'a>>) {
        let axis = LABEL + 8.0 + self.y.width();
        let count = self.panels.len() as f64;
        let content = (axis + count * self.width + (count - 1.0) * GAP).max(NARROWEST);
        let title = heading((&printable(self.adapter), &printable(self.module)), self.what, TITLE, content);
        let second = fit(&self.second, SUBTITLE, content);
        let keys = lines_of(self.key, content);
        let caption: Vec<String> = wrap(&self.caption, CAPTION, content).iter().map(|line| fit(line, CAPTION, content)).collect();

        let key_at = chart::SECOND_AT + 20.0;
        let top = key_at + keys.len().saturating_sub(1) as f64 * KEY_LINE + if keys.is_empty() { 10.0 } else { 30.0 };
        let caption_at = top + self.height + BELOW + 1.9 * CAPTION;
        let bottom = caption_at + caption.len().saturating_sub(1) as f64 * CAPTION_LINE;
        // The last number of the horizontal axis may reach beyond its panel.
        let mut scene = Scene::new(content + 2.0 * MARGIN + 0.3 * GAP, bottom + MARGIN, format!("{title}. {second}"));
        chart::titles(&mut scene, title, second);
        for (line, entries) in keys.iter().enumerate() {
            key(&mut scene, MARGIN, key_at + line as f64 * KEY_LINE, entries);
        }
        let middle = top + self.height / 2.0;
        scene.text_upwards(MARGIN + LABEL / 2.0, middle, LABEL, Anchor::Middle, colour::INK, self.y_name);
        let mut plots = Vec::with_capacity(self.panels.len());
        for (index, name) in self.panels.iter().enumerate() {
            let left = MARGIN + axis + index as f64 * (self.width + GAP);
            let name = fit(name, SUBTITLE, self.width);
            scene.text(left, top - 7.0, SUBTITLE, Anchor::Start, colour::INK, name);
            let plot = Plot { left, top, width: self.width, height: self.height, y: self.y };
            plot.grid(&mut scene, index == 0);
            plots.push(plot);
        }
        for (line, text) in caption.into_iter().enumerate() {
            let baseline = caption_at + line as f64 * CAPTION_LINE;
            scene.text(MARGIN, baseline, CAPTION, Anchor::Start, colour::SOFT_INK, text);
        }
        (scene, plots)
    }
}

/// Breaks a key into lines of at most `room`.
fn lines_of<'a>(entries: Vec<(Sample, &'a str)>, room: f64) -> Vec<Vec<(Sample, &'a str)>> {
    let mut lines: Vec<Vec<(Sample, &'a str)>> = Vec::new();
    for entry in entries {
        if let Some(line) = lines.last_mut() {
            line.push(entry);
            if key_width(line) <= room {
                continue;
            }
            line.pop();
        }
        lines.push(vec![entry]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_broken_where_it_would_be_too_wide() {
        let entries = vec![(Sample::Dashed, "one"), (Sample::Control, "two"), (Sample::Dashed, "three")];
        let two = key_width(&entries[..2]);
        let lengths = |room: f64| lines_of(entries.clone(), room).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!((lengths(two + 0.1), lengths(two - 0.1), lengths(1e3)), (vec![2, 1], vec![1, 1, 1], vec![3]));
        assert!(lines_of(Vec::new(), 1e3).is_empty());
    }
}
