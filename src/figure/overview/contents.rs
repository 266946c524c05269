//! What an overview shows, before it is laid out.

use crate::figure::groups::LayerSimilarity;
use crate::figure::parts::bar::{Bar, Mark};
use crate::figure::parts::names::{matrix_name, phi_name};
use crate::figure::parts::panel::Paint;
use crate::figure::parts::square::two_decimals;
use crate::figure::parts::ticks::number;
use crate::figure::parts::values::SquareValues;
use crate::figure::scene::colour::{self, Rgb};
use crate::figure::scene::font::printable;
use crate::terms::Status;

/// Chance differs between columns where their sizes do; more marks than this are not drawn.
const MOST_CHANCES: usize = 3;

/// A row of panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PanelRow {
    Observed,
    W0,
    Gaussian,
    Deviation,
}

impl PanelRow {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::W0 => "W0 control",
            Self::Gaussian => "Gaussian control",
            Self::Deviation => "(observed − W0)/sd",
        }
    }
}

/// One module and matrix, with a grid for each row.
pub(super) struct Column<'a> {
    pub(super) group: &'a LayerSimilarity<'a>,
    pub(super) observed: SquareValues,
    pub(super) w0: SquareValues,
    pub(super) gaussian: SquareValues,
    pub(super) deviation: SquareValues,
}

impl<'a> Column<'a> {
    pub(super) fn new(group: &'a LayerSimilarity<'a>) -> Self {
        Self {
            group,
            observed: group.grid(|row| row.phi),
            w0: group.grid(|row| row.w0_mean),
            gaussian: group.grid(|row| row.gaussian_mean),
            // Not where the control does not vary: then its mean is all there is to say.
            deviation: group.grid(|row| Some((row.phi? - row.w0_mean?) / row.w0_sd.filter(|sd| *sd > 0.0)?)),
        }
    }

    pub(super) fn grid(&self, row: PanelRow) -> &SquareValues {
        match row {
            PanelRow::Observed => &self.observed,
            PanelRow::W0 => &self.w0,
            PanelRow::Gaussian => &self.gaussian,
            PanelRow::Deviation => &self.deviation,
        }
    }

    /// The lines above a panel.
    pub(super) fn titles(&self, row: PanelRow, phi_differs: bool) -> Vec<String> {
        let summary = self.group.summary;
        let mean = |value: Option<f64>| value.filter(|v| v.is_finite()).map(|v| format!("mean {v:.4}"));
        match row {
            PanelRow::Observed => {
                let phi = if phi_differs { format!(", {}", phi_name(self.group.i, self.group.j)) } else { String::new() };
                let name = format!("{} · {}{phi}", printable(self.group.module), matrix_name(self.group.matrix));
                let status = summary.map(|s| s.status).filter(|status| *status != Status::Ok);
                let status = status.map(|status| format!("status {status}"));
                let facts: Vec<String> = mean(summary.and_then(|s| s.phi_mean)).into_iter().chain(status).collect();
                std::iter::once(name).chain((!facts.is_empty()).then(|| facts.join(" · "))).collect()
            }
            PanelRow::W0 => {
                let correlation = self.observed.correlation(&self.w0);
                let correlation = correlation.map(|c| format!("corr. with observed {}", number(c, 2)));
                mean(summary.and_then(|s| s.w0_mean)).into_iter().chain(correlation).collect()
            }
            PanelRow::Gaussian => mean(summary.and_then(|s| s.gaussian_mean)).into_iter().collect(),
            PanelRow::Deviation => {
                let z = summary.and_then(|s| s.w0_z).filter(|z| z.is_finite()).map(|z| format!("z = {}", number(z, 1)));
                let p = summary.and_then(|s| s.w0_p).filter(|p| p.is_finite()).map(|p| format!("p = {p:.2}"));
                let facts: Vec<String> = z.into_iter().chain(p).collect();
                (!facts.is_empty()).then(|| facts.join(" · ")).into_iter().collect()
            }
        }
    }
}

/// Everything an overview shows, before it is laid out.
pub(super) struct Overview<'a> {
    pub(super) title: Title,
    pub(super) columns: Vec<Column<'a>>,
    pub(super) rows: Vec<PanelRow>,
    /// `φ(8,8)`, or `φ` where the columns differ.
    pub(super) phi: String,
    pub(super) phi_differs: bool,
    /// The end of the sequential rows' scale: the largest value beside their diagonals.
    pub(super) hi: f64,
    /// Where the diverging scale ends, and whether values beyond it exist.
    pub(super) limit: f64,
    pub(super) clipped: bool,
    /// The colour of 0 to 1 on the sequential rows' scale.
    pub(super) sequential: fn(f64) -> Rgb,
    /// Whether the diagonals of these rows need a line to be told from values.
    pub(super) struck: bool,
}

/// The parts of the title; names may be shortened to fit.
pub(super) struct Title {
    pub(super) adapter: String,
    pub(super) base: Option<String>,
    pub(super) rest: String,
}

impl Overview<'_> {
    /// How the cells are painted; without their numbers where these are not written (an overview has up to some 100,000 cells).
    pub(super) fn paints(&self, column: &Column<'_>, row: PanelRow, annotated: bool) -> Vec<Paint> {
        let grid = column.grid(row);
        let label = |text: fn(f64) -> String, value: f64| if annotated { text(value) } else { String::new() };
        let paint = |(k, value): (usize, &Option<f64>)| match value {
            _ if k / grid.n == k % grid.n => Paint::Diagonal,
            None => Paint::Missing,
            Some(z) if row == PanelRow::Deviation => {
                Paint::Value { fill: colour::blue_to_red(0.5 + 0.5 * z / self.limit), label: label(signed, *z) }
            }
            Some(value) => Paint::Value { fill: (self.sequential)(value / self.hi), label: label(two_decimals, *value) },
        };
        grid.values.iter().enumerate().map(paint).collect()
    }

    /// What Gaussian matrices are expected to give: one mark, or one for each size of matrix.
    fn chances(&self) -> Vec<Mark> {
        let expected = self.columns.iter().filter_map(|c| c.group.summary?.gaussian_expected).filter(|v| v.is_finite());
        let mut values: Vec<f64> = expected.collect();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| (*a - *b).abs() < 5e-5);
        if values.len() > MOST_CHANCES {
            values = values.first().into_iter().chain(values.last()).copied().collect();
        }
        values.into_iter().map(|value| Mark { value, label: format!("chance {value:.4}") }).collect()
    }

    /// The bar of the first rows, not yet placed.
    pub(super) fn sequential_bar(&self, height: f64, size: f64, width: f64) -> Bar {
        Bar {
            x: 0.0,
            y: 0.0,
            width,
            height,
            lo: 0.0,
            hi: self.hi,
            scale: self.sequential,
            marks: self.chances(),
            size,
            title: Some((self.phi.clone(), size + 1.0)),
            clipped: false,
        }
    }

    /// The bar of the last row, not yet placed.
    pub(super) fn diverging_bar(&self, height: f64, size: f64, width: f64) -> Bar {
        Bar {
            x: 0.0,
            y: 0.0,
            width,
            height,
            lo: -self.limit,
            hi: self.limit,
            scale: colour::blue_to_red,
            marks: Vec::new(),
            size,
            title: Some(("control sd".to_owned(), size + 1.0)),
            clipped: self.clipped,
        }
    }

    /// What the rows are, for a reader who has only the figure.
    pub(super) fn caption(&self) -> String {
        let mut parts = vec![format!("Cells: {} of the left singular vectors of two layers; the diagonal is 1.", self.phi)];
        if self.rows.contains(&PanelRow::W0) {
            parts.push(
                "W0 control: Gaussian targets in place of Aᵀ and B, solved through the same W0, mean of the draws.".to_owned(),
            );
        }
        if self.columns.iter().any(|c| c.observed.correlation(&c.w0).is_some()) {
            parts.push("corr.: Pearson's, cell by cell.".to_owned());
        }
        if self.rows.contains(&PanelRow::Gaussian) {
            parts.push("Gaussian control: a Gaussian matrix in place of Θ; chance is its expectation.".to_owned());
        }
        if self.rows.contains(&PanelRow::Deviation) {
            parts.push("z compares the averages with the control's in its sd, p is the share of draws with an average no smaller (w0_z and w0_p of summary.csv); they are not means of the cells below.".to_owned());
        }
        let hollow = |c: &Column<'_>| self.rows.iter().any(|row| c.grid(*row).has_gaps());
        if self.columns.iter().any(hollow) {
            parts.push("Hatched: no value.".to_owned());
        }
        parts.join(" ")
    }
}

/// `+1.1`, `−0.4`, `+123`, `+1e4`: never wider than four digits.
fn signed(z: f64) -> String {
    let size = z.abs();
    let text = if size < 9.95 {
        number(z, 1)
    } else if size < 999.5 {
        number(z, 0)
    } else {
        format!("{z:.0e}").replace('-', "−")
    };
    if z > 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) { format!("+{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_short_and_signed() {
        let cases = [(1.12, "+1.1"), (-0.42, "−0.4"), (-0.01, "0.0"), (123.4, "+123"), (-12_345.0, "−1e4"), (9.97, "+10")];
        for (z, text) in cases {
            assert_eq!(signed(z), text);
        }
    }
}
