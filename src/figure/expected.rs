//! φ of each pair of layers against what the base model alone gives it: why some layers are alike and others are not.
//!
//! The expectation is the mean of the `w0` control in the same cell of `similarity.csv`, Gaussian targets through the same W0.

use super::groups::LayerSimilarity;
use super::parts::chart::{Axis, LABEL, OBSERVED, Plot, Points};
use super::parts::names::{matrix_name, phi_name};
use super::parts::side_by_side::SideBySide;
use super::parts::ticks::{number, with_room};
use super::scene::font::{self, HALF_CAP};
use super::scene::{Anchor, Scene, colour};
use crate::table::gather;
use crate::terms::{LayerId, MatrixKind, Side};

/// Panels are square: both axes are the same.
const SIDE: f64 = 250.0;
const TICKS: usize = 8;
/// Fewer pairs of layers have no correlation.
const FEWEST: usize = 3;
/// How many pairs get the names of their layers.
const NAMED: usize = 2;
/// Space between a dot's middle and its name, and around a name.
const NAME_GAP: f64 = 6.0;
const NAME_ROOM: f64 = 2.0;
/// How many times as far as its own dot all others must be from a name.
const CLEARLY: f64 = 1.5;

/// Θ_A and Θ_B of one module, each compared by as many vectors of both layers.
pub(super) struct Expected<'a> {
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    groups: Vec<&'a LayerSimilarity<'a>>,
}

/// Gathers what can be drawn: left sides with i = j, the largest if there are several.
pub(super) fn expectations<'a>(similarities: &'a [LayerSimilarity<'a>]) -> Vec<Expected<'a>> {
    let wanted = |one: &&LayerSimilarity<'_>| {
        matches!(one.matrix, MatrixKind::A | MatrixKind::B) && one.side == Side::Left && one.i == one.j
    };
    gather(similarities.iter().filter(wanted), |one| (one.adapter, one.module))
        .into_iter()
        .map(|((adapter, module), mut groups)| {
            let most = groups.iter().map(|group| group.i).max();
            groups.retain(|group| Some(group.i) == most);
            groups.sort_by_key(|group| group.matrix);
            Expected { adapter, module, groups }
        })
        .collect()
}

/// Left, top, right and bottom.
type Area = [f64; 4];

/// Two layers that have both φ and an expectation.
struct Pair {
    layers: [LayerId; 2],
    expected: f64,
    phi: f64,
}

/// The pairs of one matrix.
struct Pairs {
    name: String,
    pairs: Vec<Pair>,
    correlation: Option<f64>,
}

impl Pairs {
    fn of(group: &LayerSimilarity<'_>) -> Self {
        let (phi, expected) = (group.values(|row| row.phi), group.values(|row| row.w0_expected.or(row.w0_mean)));
        let n = phi.n;
        let above = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
        let pair = |(a, b): (usize, usize)| {
            let (expected, phi) = (expected.cells[a * n + b]?, phi.cells[a * n + b]?);
            Some(Pair { layers: [group.layers[a].clone(), group.layers[b].clone()], expected, phi })
        };
        Self { name: matrix_name(group.matrix), pairs: above.filter_map(pair).collect(), correlation: phi.correlation(&expected) }
    }

    /// The largest expectation first.
    fn by_expectation(&self) -> Vec<&Pair> {
        let mut pairs: Vec<&Pair> = self.pairs.iter().collect();
        pairs.sort_by(|x, y| y.expected.total_cmp(&x.expected));
        pairs
    }

    /// `1, 2 and 4, 5`.
    fn largest_names(&self) -> String {
        let mut largest: Vec<&Pair> = self.by_expectation().into_iter().take(NAMED).collect();
        largest.sort_by(|one, other| one.layers.cmp(&other.layers));
        largest.into_iter().map(Pair::name).collect::<Vec<_>>().join(" and ")
    }
}

impl Pair {
    fn name(&self) -> String {
        format!("{}, {}", self.layers[0], self.layers[1])
    }
}

impl Expected<'_> {
    /// The figure; `None` if there are too few pairs of layers with an expectation.
    pub(super) fn scene(&self) -> Option<Scene> {
        let panels: Vec<Pairs> =
            self.groups.iter().map(|group| Pairs::of(group)).filter(|panel| panel.pairs.len() >= FEWEST).collect();
        let first = self.groups.first()?;
        let values = || panels.iter().flat_map(|panel| &panel.pairs).flat_map(|pair| [pair.expected, pair.phi]);
        let (lo, hi) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
        let start = if lo >= 0.0 && lo < 0.5 * hi { 0.0 } else { lo - 0.06 * (hi - lo) };
        // With room for a name beside the outermost dots.
        let axis = Axis::linear(start, hi + 0.12 * (hi - start), TICKS);
        let names: Vec<&str> = panels.iter().map(|panel| panel.name.as_str()).collect();
        let what = format!(" · {}, φ against its expectation", names.join(" and "));
        let (mut scene, plots) = SideBySide {
            adapter: self.adapter,
            module: self.module,
            what: &what,
            second: format!("{} of each pair of layers beside what W0 alone gives", phi_name(first.i, first.j)),
            key: Vec::new(),
            y: &axis,
            y_name: "φ of the pair",
            panels: panels.iter().map(title).collect(),
            width: SIDE,
            height: SIDE,
            caption: self.caption(&panels),
        }
        .open();
        for (panel, plot) in panels.iter().zip(&plots) {
            draw(&mut scene, plot, panel, &axis);
        }
        Some(scene)
    }

    fn caption(&self, panels: &[Pairs]) -> String {
        let found: Vec<String> =
            panels.iter().filter_map(|panel| Some(format!("{} for {}", number(panel.correlation?, 2), panel.name))).collect();
        let correlation =
            if found.is_empty() { String::new() } else { format!(" The correlation r is {}.", found.join(" and ")) };
        let largest: Vec<(String, &str)> = panels.iter().map(|panel| (panel.largest_names(), panel.name.as_str())).collect();
        let largest = match &largest[..] {
            [(names, _), others @ ..] if others.iter().all(|other| other.0 == *names) => names.clone(),
            all => all.iter().map(|(names, matrix)| format!("{names} for {matrix}")).collect::<Vec<_>>().join("; "),
        };
        format!(
            "A dot is a pair of layers; its expectation is the mean of the w0 control, Gaussian targets through the same \
             weights. On the dashed line layers are as alike as W0 alone makes them.{correlation} The largest expectations are \
             those of layers {largest}."
        )
    }
}

/// `Θ_A: r = 0.97, 15 pairs`.
fn title(panel: &Pairs) -> String {
    let correlation = panel.correlation.map_or_else(String::new, |c| format!("r = {}, ", number(c, 2)));
    format!("{}: {correlation}{} pairs", panel.name, panel.pairs.len())
}

fn draw(scene: &mut Scene, plot: &Plot<'_>, panel: &Pairs, axis: &Axis) {
    let ends = axis.ends();
    plot.dashed(scene, &ends.map(|value| (plot.x(axis, value), Some(value))).to_vec(), 0.0);
    let dots: Points = panel.pairs.iter().map(|pair| (plot.x(axis, pair.expected), Some(pair.phi))).collect();
    plot.dots(scene, &dots, OBSERVED);
    name_pairs(scene, plot, panel, axis);
    let ticks = axis.ticks.iter().map(|(value, label)| (plot.x(axis, *value), label.clone())).collect();
    plot.close_with(scene, with_room(ticks, LABEL), "expected φ: mean of the w0 control");
}

/// Writes the layers of the pairs with the largest expectations beside their dots, where it is clear which dot is meant and neither
/// another name nor the diagonal is in the way.
fn name_pairs(scene: &mut Scene, plot: &Plot<'_>, panel: &Pairs, axis: &Axis) {
    let largest = panel.by_expectation();
    let dots: Vec<(f64, f64)> = largest.iter().map(|pair| (plot.x(axis, pair.expected), plot.y(pair.phi))).collect();
    let (right, bottom) = (plot.left + plot.width, plot.top + plot.height);
    let half = HALF_CAP * LABEL;
    let mut names: Vec<Area> = Vec::new();
    for (index, (pair, (x, y))) in largest.iter().zip(dots.iter().copied()).enumerate().take(NAMED) {
        let name = pair.name();
        let width = font::width(&name, LABEL);
        // The left end and the middle of a name that is to the right, to the left, above and below.
        let (before, after, centred) = (x - NAME_GAP - width, x + NAME_GAP, x - width / 2.0);
        let (above, below) = (y - NAME_GAP - half, y + NAME_GAP + half);
        let places = [(after, y), (before, y), (centred, above), (centred, below), (before, above), (after, below)];
        let area = |(left, middle): (f64, f64)| [left, middle - half, left + width, middle + half];
        let inside = |a: Area| a[0] >= plot.left && a[1] >= plot.top && a[2] <= right && a[3] <= bottom;
        // How far a point is to the right of the diagonal.
        let beyond = |x: f64, y: f64| (x - plot.left) - (bottom - y);
        let beside = |a: Area| beyond(a[2], a[3]) < -NAME_ROOM || beyond(a[0], a[1]) > NAME_ROOM;
        let meant = |a: Area| {
            let others = dots.iter().enumerate().filter(|(other, _)| *other != index);
            others.map(|(_, dot)| distance(a, *dot)).all(|other| other > CLEARLY * distance(a, (x, y)))
        };
        let apart = |a: &Area, b: &Area| {
            a[2] + NAME_ROOM < b[0] || b[2] + NAME_ROOM < a[0] || a[3] + NAME_ROOM < b[1] || b[3] + NAME_ROOM < a[1]
        };
        let free = |a: Area| inside(a) && beside(a) && meant(a) && names.iter().all(|other| apart(other, &a));
        if let Some(place) = places.into_iter().find(|place| free(area(*place))) {
            scene.text_centred(place.0, place.1, LABEL, Anchor::Start, colour::INK, name);
            names.push(area(place));
        }
    }
}

/// How far a point is from an area.
fn distance([left, top, right, bottom]: Area, (x, y): (f64, f64)) -> f64 {
    (left - x).max(x - right).max(0.0).hypot((top - y).max(y - bottom).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::groups::layer_similarities;
    use super::super::scene::Element;
    use super::*;
    use crate::table::Tables;
    use crate::table::rows::SimilarityRow;
    use crate::terms::Status;

    /// Pairs of `layers` layers with an expectation of their own, and φ of it.
    fn tables(layers: u32, phi: impl Fn(f64) -> f64) -> Tables {
        let row = |layer_a: u32, layer_b: u32, matrix: MatrixKind| {
            let expected = 0.04 + 0.002 * f64::from(layer_a.min(layer_b) * 6 + layer_a.max(layer_b));
            SimilarityRow {
                adapter: "a".into(),
                module: "query".into(),
                matrix,
                side: Side::Left,
                i: 8,
                j: 8,
                layer_a: layer_a.into(),
                layer_b: layer_b.into(),
                phi: Some(if layer_a == layer_b { 1.0 } else { phi(expected) }),
                phi_error_bound: None,
                gaussian_mean: None,
                gaussian_sd: None,
                w0_mean: Some(if layer_a == layer_b { 1.0 } else { expected }),
                w0_sd: None,
                w0_expected: None,
                init: None,
                status: Status::Ok,
            }
        };
        let pairs = move || (0..layers).flat_map(move |a| (0..layers).map(move |b| (a, b)));
        let of = |matrix: MatrixKind| pairs().map(move |(a, b)| row(a, b, matrix)).collect::<Vec<_>>();
        Tables {
            similarity: [MatrixKind::B, MatrixKind::A, MatrixKind::BA].into_iter().flat_map(of).collect(),
            ..Tables::default()
        }
    }

    fn drawn(tables: &Tables) -> Option<Scene> {
        let similarities = layer_similarities(tables);
        expectations(&similarities).first().and_then(Expected::scene)
    }

    fn dots(scene: &Scene) -> Vec<(i32, i32)> {
        let dot = |item: &Element| if let Element::Dot { at, .. } = item { Some(*at) } else { None };
        scene.elements.iter().filter_map(dot).collect()
    }

    fn texts(scene: &Scene) -> Vec<&str> {
        scene
            .elements
            .iter()
            .filter_map(|item| if let Element::Text(text) = item { Some(text.text.as_str()) } else { None })
            .collect()
    }

    #[test]
    fn pairs_as_alike_as_expected_are_on_the_diagonal() {
        let scene = drawn(&tables(6, |expected| expected)).unwrap();
        let (dots, texts) = (dots(&scene), texts(&scene));
        // Each pair once, in the panels of A and B alone.
        assert_eq!(dots.len(), 2 * 15);
        for panel in dots.chunks(15) {
            assert!(panel.iter().all(|dot| (dot.0 + dot.1 - panel[0].0 - panel[0].1).abs() <= 2), "{panel:?}");
            assert!(panel.iter().any(|dot| dot.0 - panel[0].0 > 50));
        }
        let a = texts.iter().position(|text| *text == "Θ_A: r = 1.00, 15 pairs").unwrap();
        assert!(a < texts.iter().position(|text| *text == "Θ_B: r = 1.00, 15 pairs").unwrap());
        let all = texts.join(" ");
        assert!(all.contains("The correlation r is 1.00 for Θ_A and 1.00 for Θ_B."), "{all}");
        // They are 0.098 and 0.086.
        assert!(all.contains("The largest expectations are those of layers 3, 5 and 4, 5."), "{all}");
        assert!(texts.contains(&"4, 5") && texts.contains(&"3, 5") && !texts.contains(&"3, 4"), "{texts:?}");
    }

    #[test]
    fn pairs_that_are_less_alike_are_below_the_diagonal() {
        let scene = drawn(&tables(6, |expected| 0.2 - expected)).unwrap();
        assert!(texts(&scene).contains(&"Θ_A: r = −1.00, 15 pairs"));
        let half = drawn(&tables(6, |expected| expected / 2.0)).unwrap();
        let panel = &dots(&half)[..15];
        // Half as steep: two to the right are one up.
        let far = panel.iter().max_by_key(|dot| dot.0).unwrap();
        assert!((f64::from(panel[0].1 - far.1) - f64::from(far.0 - panel[0].0) / 2.0).abs() <= 2.0);
    }

    #[test]
    fn there_is_a_figure_of_three_pairs_with_an_expectation_or_more() {
        assert!(drawn(&tables(3, |x| x)).is_some() && drawn(&tables(2, |x| x)).is_none() && drawn(&tables(0, |x| x)).is_none());
        let mut without = tables(6, |x| x);
        without.similarity.iter_mut().for_each(|row| row.w0_mean = None);
        assert!(drawn(&without).is_none());
        let changed = |change: fn(&mut SimilarityRow)| {
            let mut tables = tables(6, |x| x);
            tables.similarity.iter_mut().for_each(change);
            drawn(&tables)
        };
        assert!(changed(|row| row.side = Side::Right).is_none() && changed(|row| row.j = 4).is_none());
        let one = changed(|row| row.phi = row.phi.filter(|_| row.matrix == MatrixKind::A)).unwrap();
        assert_eq!(dots(&one).len(), 15);
        // No correlation of what does not vary.
        let flat = changed(|row| row.w0_mean = Some(0.05)).unwrap();
        assert!(texts(&flat).contains(&"Θ_A: 15 pairs"));
        let huge = changed(|row| row.phi = Some(f64::MAX)).unwrap();
        assert!(huge.width < 2_000);
    }

    #[test]
    fn no_name_stands_where_it_could_mean_two_dots() {
        let mut tables = tables(6, |x| x);
        for row in &mut tables.similarity {
            if row.layer_a.index().unwrap() + row.layer_b.index().unwrap() == 8 {
                (row.phi, row.w0_mean) = (Some(0.098), Some(0.098));
            }
        }
        let scene = drawn(&tables).unwrap();
        assert!(!texts(&scene).iter().any(|text| ["3, 5", "4, 5"].contains(text)), "{:?}", texts(&scene));
        assert_eq!(
            [(3.0, 4.0), (1.0, 5.0), (-3.0, -4.0), (0.5, 0.5)].map(|at| distance([0.0, 0.0, 1.0, 2.0], at)),
            [8_f64.sqrt(), 3.0, 5.0, 0.0]
        );
    }

    #[test]
    fn of_several_numbers_of_vectors_the_largest_is_drawn() {
        let mut several = tables(6, |x| x);
        let fewer: Vec<SimilarityRow> =
            several.similarity.iter().map(|row| SimilarityRow { i: 4, j: 4, ..row.clone() }).collect();
        several.similarity.splice(0..0, fewer);
        let scene = drawn(&several).unwrap();
        assert!(texts(&scene)[1].starts_with("φ(8,8)") && dots(&scene).len() == 30);
    }
}
