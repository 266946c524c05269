//! φ against the cut: what is left of the similarity of layers without the small singular directions of W0, and of `W0ᵀ·T`, which
//! needs no inverse. A panel for Θ_A and one for Θ_B, each with its controls.

use super::parts::chart::{self, Axis, LABEL, OBSERVED, Plot, Points, Sample, Spread, Tone};
use super::parts::names::{doubt, matrix_name, phi_name};
use super::parts::side_by_side::SideBySide;
use super::parts::ticks::{every, widest, with_room};
use super::scene::{Scene, colour};
use crate::table::{CutRow, gather};
use crate::terms::{MatrixKind, Side};

const HEIGHT: f64 = 200.0;
/// Width for each cut if there are few, and that of all cuts together for few and for many.
const CELL: f64 = 36.0;
const NARROWEST: f64 = 180.0;
const WIDEST: f64 = 340.0;
/// Width of the part for what needs no inverse, and the gap before it.
const ADJOINT_WIDTH: f64 = 52.0;
const ADJOINT_GAP: f64 = 8.0;
const TICKS: usize = 6;
/// Half the width of a band at a single cut.
const ALONE: f64 = 10.0;
/// Figures are drawn of more cuts than the one that every study has.
const ALWAYS: usize = 1;
/// A control's band spans its mean ± so many standard deviations.
const BAND: f64 = 2.0;

/// All rows of one adapter's module.
pub(super) struct Cuts<'a> {
    pub(super) adapter: &'a str,
    pub(super) module: &'a str,
    rows: Vec<&'a CutRow>,
}

/// Gathers the rows of `cuts.csv`, in the order in which each module first appears. Of several (i, j) those with the most vectors are kept.
pub(super) fn cuts(rows: &[CutRow]) -> Vec<Cuts<'_>> {
    let left = rows.iter().filter(|row| row.side == Side::Left && matches!(row.matrix, MatrixKind::A | MatrixKind::B));
    gather(left, |row| (row.adapter.as_str(), row.module.as_str()))
        .into_iter()
        .map(|((adapter, module), mut rows)| {
            let vectors = |row: &CutRow| (row.i.min(row.j), row.i.max(row.j), row.i);
            let most = rows.iter().map(|row| vectors(row)).max();
            rows.retain(|row| Some(vectors(row)) == most);
            Cuts { adapter, module, rows }
        })
        .collect()
}

/// The share of a cut's name; none for what is no cut.
fn share(row: &CutRow) -> Option<f64> {
    row.cut.parse().ok().filter(|share| (0.0..1.0).contains(share))
}

impl Cuts<'_> {
    /// The cuts, in rising order.
    fn shares(&self) -> Vec<f64> {
        let mut shares: Vec<f64> = self.rows.iter().filter_map(|row| share(row)).collect();
        shares.sort_by(f64::total_cmp);
        shares.dedup();
        shares
    }

    fn of(&self, matrix: MatrixKind) -> impl Iterator<Item = &CutRow> {
        self.rows.iter().copied().filter(move |row| row.matrix == matrix)
    }

    /// The figure; `None` if there are no more cuts than every study has, or none has a φ.
    pub(super) fn scene(&self) -> Option<Scene> {
        let shares = self.shares();
        let adjoint = self.rows.iter().any(|row| row.cut == CutRow::ADJOINT);
        if shares.len() + usize::from(adjoint) <= ALWAYS {
            return None;
        }
        let matrices: Vec<MatrixKind> =
            MatrixKind::ALL.into_iter().filter(|matrix| self.of(*matrix).any(|row| row.phi_mean.is_some())).collect();
        let first = self.rows.iter().find(|row| row.phi_mean.is_some())?;
        let y = Axis::linear(0.0, 1.08 * self.highest().filter(|highest| *highest > 0.0)?, TICKS);

        let cuts_width = (CELL * shares.len() as f64).clamp(NARROWEST, WIDEST);
        let width = cuts_width + if adjoint { ADJOINT_GAP + ADJOINT_WIDTH } else { 0.0 };
        let has = |value: fn(&CutRow) -> Option<f64>| self.rows.iter().any(|row| value(row).is_some());
        let key = [
            Some((Sample::Dotted(OBSERVED), "observed")),
            has(|row| row.w0_mean).then_some((Sample::Spread(chart::W0), "w0 control: mean ± 2 sd")),
            has(|row| row.flip_mean).then_some((Sample::Spread(chart::FLIP), "flip control: mean ± 2 sd")),
            has(|row| row.gaussian_kept).then_some((Sample::Dashed, "random subspaces of what is kept")),
        ];
        let status = doubt(self.rows.iter().map(|row| row.status)).map_or_else(String::new, |status| format!(" · {status}"));
        let (mut scene, plots) = SideBySide {
            adapter: self.adapter,
            module: self.module,
            what: " · φ against the cut",
            second: format!("mean {} over the pairs of {} layers{status}", phi_name(first.i, first.j), first.layers),
            key: key.into_iter().flatten().collect(),
            y: &y,
            y_name: "mean φ",
            panels: matrices.iter().map(|matrix| self.panel_name(*matrix)).collect(),
            width,
            height: HEIGHT,
            caption: self.caption(&shares, adjoint),
        }
        .open();
        for (matrix, plot) in matrices.into_iter().zip(&plots) {
            self.panel(&mut scene, plot, matrix, &shares, cuts_width);
        }
        Some(scene)
    }

    /// The largest value that is drawn.
    fn highest(&self) -> Option<f64> {
        let of = |row: &CutRow| {
            [row.phi_mean, row.gaussian_kept, edge(row.w0_mean, row.w0_sd, 1.0), edge(row.flip_mean, row.flip_sd, 1.0)]
        };
        self.rows.iter().flat_map(|row| of(row)).flatten().filter(|value| value.is_finite()).reduce(f64::max)
    }

    /// `Θ_B: all cuts as one, p = 0.005 against flip`.
    fn panel_name(&self, matrix: MatrixKind) -> String {
        let all = self.of(matrix).find(|row| row.cut == CutRow::ALL).and_then(|row| row.flip_p);
        let p = all.map_or_else(String::new, |p| format!(": all cuts as one, p = {p:.3} against flip"));
        format!("{}{p}", matrix_name(matrix))
    }

    fn caption(&self, shares: &[f64], adjoint: bool) -> String {
        let mut text =
            "A cut of 0.1 leaves out the singular directions of W0 whose singular values are at most 0.1 of the largest."
                .to_owned();
        let kept = |share_of: f64| {
            let rows = || self.rows.iter().filter(|row| share(row) == Some(share_of));
            let least = rows().filter_map(|row| row.kept_min).min()?;
            let most = rows().filter_map(|row| row.kept_max).max()?;
            let number = if least == most { least.to_string() } else { format!("{least} to {most}") };
            Some(format!("{number} at {}", label(share_of)))
        };
        let ends: Vec<String> =
            shares.first().into_iter().chain(shares.last().filter(|_| shares.len() > 1)).copied().filter_map(kept).collect();
        if !ends.is_empty() {
            text.push_str(&format!(" Directions kept: {}.", ends.join(", ")));
        }
        if adjoint {
            text.push_str(" The adjoint is W0ᵀ·T in place of W0⁻¹·T: it needs no inverse.");
        }
        text.push_str(
            " The w0 control has Gaussian targets in place of A and B; the flip control keeps where each target lies in the \
             spectrum of W0 and turns its signs at random. Above both bands layers have something in common that neither \
             control has.",
        );
        text
    }

    fn panel(&self, scene: &mut Scene, plot: &Plot<'_>, matrix: MatrixKind, shares: &[f64], cuts_width: f64) {
        let part = Plot { left: plot.left, top: plot.top, width: cuts_width, height: plot.height, y: plot.y };
        let middle = plot.left + plot.width - ADJOINT_WIDTH / 2.0;
        let at_cuts: Vec<f64> = (0..shares.len()).map(|index| part.part(index, shares.len())).collect();
        let of_cuts = shares.iter().map(|wanted| self.of(matrix).find(|row| share(row) == Some(*wanted)));
        let adjoint = self.of(matrix).find(|row| row.cut == CutRow::ADJOINT);
        // What is between the cuts and the adjoint has no value: no line leads from one to the other.
        let places: Vec<(f64, Option<&CutRow>)> = at_cuts
            .iter()
            .copied()
            .zip(of_cuts)
            .chain(adjoint.map(|_| (plot.left + cuts_width, None)))
            .chain(adjoint.map(|row| (middle, Some(row))))
            .collect();
        let points = |value: &dyn Fn(&CutRow) -> Option<f64>| -> Points {
            places.iter().map(|(x, row)| (*x, row.and_then(value).filter(|value| value.is_finite()))).collect()
        };
        let spread = |tone: Tone, of: fn(&CutRow) -> (Option<f64>, Option<f64>)| Spread {
            low: points(&|row| edge(of(row).0, of(row).1, -1.0)),
            mean: points(&|row| of(row).0),
            high: points(&|row| edge(of(row).0, of(row).1, 1.0)),
            tone,
        };
        let controls =
            [spread(chart::W0, |row| (row.w0_mean, row.w0_sd)), spread(chart::FLIP, |row| (row.flip_mean, row.flip_sd))];
        plot.spreads(scene, &controls, ALONE);
        plot.dashed(scene, &points(&|row| row.gaussian_kept), ALONE);
        let observed = points(&|row| row.phi_mean);
        plot.line(scene, &observed, 1.5, 0.0, OBSERVED);
        plot.dots(scene, &observed, OBSERVED);
        if plot.width > cuts_width {
            let x = plot.left + cuts_width + ADJOINT_GAP / 2.0;
            scene.line((x, plot.top), (x, plot.top + plot.height), colour::FRAME);
        }
        let labels: Vec<String> = shares.iter().copied().map(label).collect();
        let room = widest(labels.iter().map(String::as_str), LABEL) + 4.0;
        let shown = every(shares.len(), cuts_width / shares.len().max(1) as f64, room);
        let mut ticks: Vec<(f64, String)> = shown.into_iter().map(|index| (at_cuts[index], labels[index].clone())).collect();
        if plot.width > cuts_width {
            ticks.push((middle, CutRow::ADJOINT.to_owned()));
        }
        plot.close_with(scene, with_room(ticks, LABEL), "cut, as a share of the largest singular value of W0");
    }
}

/// A cut with three digits: `0.03`, `0.667`, `1e−6`.
fn label(share: f64) -> String {
    let rounded: f64 = format!("{share:.2e}").parse().unwrap_or(share);
    if rounded == 0.0 || rounded >= 1e-4 { rounded.to_string() } else { format!("{rounded:e}").replace('-', "−") }
}

/// The lower or upper edge of a control's band.
fn edge(mean: Option<f64>, sd: Option<f64>, sign: f64) -> Option<f64> {
    Some(mean? + sign * BAND * sd?)
}

#[cfg(test)]
mod tests {
    use super::super::scene::Element;
    use super::*;
    use crate::terms::Status;

    fn row(matrix: MatrixKind, cut: &str, phi: Option<f64>) -> CutRow {
        CutRow {
            adapter: "a".into(),
            module: "query".into(),
            matrix,
            side: Side::Left,
            i: 8,
            j: 8,
            cut: cut.into(),
            kept_min: Some(90),
            kept_max: Some(100),
            layers: 6,
            phi_mean: phi,
            gaussian_kept: Some(0.02),
            w0_mean: Some(0.03),
            w0_sd: Some(0.0025),
            w0_p: Some(0.5),
            flip_mean: Some(0.025),
            flip_sd: Some(0.001),
            flip_p: Some(0.5),
            flip_draws: Some(199),
            shuffled_p: None,
            status: Status::Ok,
        }
    }

    /// Of one matrix: at no cut 0.02, at 0.1 0.06, at 0.5 0.04, and 0.05 without an inverse.
    fn example() -> Vec<CutRow> {
        let all = CutRow { flip_p: Some(0.005), phi_mean: None, ..row(MatrixKind::B, CutRow::ALL, None) };
        let cut = |cut: &str, phi: f64| row(MatrixKind::B, cut, Some(phi));
        vec![cut("0.1", 0.06), cut("0", 0.02), cut("0.5", 0.04), cut(CutRow::ADJOINT, 0.05), all]
    }

    fn observed(scene: &Scene) -> Vec<(i32, i32)> {
        let dot = |item: &Element| if let Element::Dot { at, fill: OBSERVED, .. } = item { Some(*at) } else { None };
        // The first is that of the key.
        scene.elements.iter().filter_map(dot).skip(1).collect()
    }

    fn says(scene: &Scene, wanted: &str) -> bool {
        scene.elements.iter().any(|item| matches!(item, Element::Text(text) if text.text == wanted))
    }

    #[test]
    fn phi_stands_at_its_cut_and_bands_at_two_standard_deviations() {
        let rows = example();
        let scene = cuts(&rows)[0].scene().unwrap();
        let dots = observed(&scene);
        assert_eq!(dots.len(), 4);
        assert!(dots.windows(2).all(|pair| pair[0].0 < pair[1].0) && dots[3].0 - dots[2].0 > 40);
        // 0.02, 0.06, 0.04 and 0.05: the vertical axis is linear.
        let one = f64::from(dots[0].1 - dots[1].1) / 0.04;
        let at = |phi: f64| f64::from(dots[0].1) - (phi - 0.02) * one;
        assert!((at(0.04) - f64::from(dots[2].1)).abs() <= 1.0 && (at(0.05) - f64::from(dots[3].1)).abs() <= 1.0);
        for (tone, ends) in [(chart::W0, [0.025, 0.035]), (chart::FLIP, [0.023, 0.027])] {
            let areas: Vec<&Vec<(i32, i32)>> = scene
                .elements
                .iter()
                .filter_map(
                    |item| if let Element::Area { points, fill } = item { (*fill == tone.fill).then_some(points) } else { None },
                )
                .collect();
            // In the key, over the cuts, and at the adjoint.
            assert_eq!(areas.iter().map(|area| area.len()).collect::<Vec<_>>(), [4, 6, 4]);
            for area in &areas[1..] {
                let heights = || area.iter().map(|point| f64::from(point.1));
                let (high, low) = (heights().reduce(f64::min).unwrap(), heights().reduce(f64::max).unwrap());
                assert!((low - at(ends[0])).abs() <= 1.0 && (high - at(ends[1])).abs() <= 1.0, "{low} to {high}");
            }
        }
        // No line leads from the last cut to the adjoint.
        let lines = scene
            .elements
            .iter()
            .filter_map(|item| if let Element::Path { points, colour: OBSERVED, .. } = item { Some(points.len()) } else { None });
        assert_eq!(lines.collect::<Vec<_>>(), [2, 3, 2]);
        for text in [
            "Θ_B: all cuts as one, p = 0.005 against flip",
            "0",
            "0.1",
            "0.5",
            "adjoint",
            "mean φ(8,8) over the pairs of 6 layers",
        ] {
            assert!(says(&scene, text), "{text}");
        }
    }

    #[test]
    fn there_is_a_figure_where_there_are_more_cuts_than_always() {
        let drawn = |rows: &[CutRow]| cuts(rows).first().and_then(Cuts::scene);
        let always = [row(MatrixKind::A, CutRow::ADJOINT, Some(0.1))];
        assert!(drawn(&always).is_none() && drawn(&[]).is_none());
        assert!(drawn(&[&always[..], &[row(MatrixKind::A, "0", Some(0.1))]].concat()).is_some());
        let unreadable = [&always[..], &[row(MatrixKind::A, CutRow::ALL, None), row(MatrixKind::A, "-1", Some(0.1))]].concat();
        assert!(drawn(&unreadable).is_none());
        let without_phi: Vec<CutRow> = example().into_iter().map(|row| CutRow { phi_mean: None, ..row }).collect();
        assert!(drawn(&without_phi).is_none());
    }

    #[test]
    fn the_most_vectors_are_drawn_and_what_is_missing_is_not() {
        let mut rows = example();
        let fewer: Vec<CutRow> = rows.iter().map(|row| CutRow { i: 4, phi_mean: Some(0.9), ..row.clone() }).collect();
        rows.splice(0..0, fewer);
        (rows[5].phi_mean, rows[5].status) = (None, Status::Rank);
        rows.iter_mut().for_each(|row| (row.flip_mean, row.flip_sd, row.w0_sd) = (None, None, None));
        let cuts = cuts(&rows);
        assert_eq!(cuts.len(), 1);
        let scene = cuts[0].scene().unwrap();
        assert_eq!(observed(&scene).len(), 3);
        assert!(says(&scene, "mean φ(8,8) over the pairs of 6 layers · status rank"));
        assert!(!scene.elements.iter().any(|item| matches!(item, Element::Text(text) if text.text.starts_with("flip"))));
    }

    #[test]
    fn cuts_are_named_in_three_digits() {
        let names = [0.0, 0.03, 0.5, 2.0 / 3.0, 1e-4, 1.234_56e-6, 1e-300].map(label);
        assert_eq!(names, ["0", "0.03", "0.5", "0.667", "0.0001", "1.23e−6", "1e−300"]);
    }

    #[test]
    fn extreme_tables_are_drawn() {
        let many: Vec<CutRow> = (0..2000).map(|k| row(MatrixKind::A, &format!("{}", f64::from(k) / 2000.0), Some(0.5))).collect();
        let huge: Vec<CutRow> =
            example().into_iter().map(|row| CutRow { phi_mean: Some(f64::MAX), w0_sd: Some(f64::MAX), ..row }).collect();
        for rows in [many, huge] {
            let scene = cuts(&rows)[0].scene().unwrap();
            assert!(scene.width < 2_000 && scene.height < 1_000);
        }
    }
}
