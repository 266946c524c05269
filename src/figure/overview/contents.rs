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

/// Chance depends on the size of a matrix, so columns can differ in it. If there are more values than this, only the smallest and
/// the largest are marked.
const MOST_CHANCES: usize = 3;

/// One row of panels, which all show the same quantity.
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

/// One module and matrix, with its values for each row of panels.
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
            observed: group.values(|row| row.phi),
            w0: group.values(|row| row.w0_mean),
            gaussian: group.values(|row| row.gaussian_mean),
            // Undefined where the control does not vary: a difference cannot be expressed in a standard deviation of zero.
            deviation: group.values(|row| Some((row.phi? - row.w0_mean?) / row.w0_sd.filter(|sd| *sd > 0.0)?)),
        }
    }

    pub(super) fn values(&self, row: PanelRow) -> &SquareValues {
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
    /// The upper end of the sequential rows' scale: their largest off-diagonal value.
    pub(super) hi: f64,
    /// The end of the diverging scale, and whether some values lie beyond it.
    pub(super) limit: f64,
    pub(super) clipped: bool,
    /// The colours of the sequential rows, for values from 0 to 1.
    pub(super) sequential: fn(f64) -> Rgb,
    /// Whether a line is drawn along the diagonals of these rows, because their grey is also a colour of the scale.
    pub(super) struck: bool,
}

/// The parts of the title. Names are shortened if there is no room for them.
pub(super) struct Title {
    pub(super) adapter: String,
    pub(super) base: Option<String>,
    pub(super) rest: String,
}

impl Overview<'_> {
    /// How the cells are painted. Numbers are formatted only if they are written: an overview can have 100,000 cells.
    pub(super) fn paints(&self, column: &Column<'_>, row: PanelRow, annotated: bool) -> Vec<Paint> {
        let values = column.values(row);
        let label = |text: fn(f64) -> String, value: f64| if annotated { text(value) } else { String::new() };
        let paint = |(k, value): (usize, &Option<f64>)| match value {
            _ if k / values.n == k % values.n => Paint::Diagonal,
            None => Paint::Missing,
            Some(z) if row == PanelRow::Deviation => {
                Paint::Value { fill: colour::blue_to_red(0.5 + 0.5 * z / self.limit), label: label(signed, *z) }
            }
            Some(value) => Paint::Value { fill: (self.sequential)(value / self.hi), label: label(two_decimals, *value) },
        };
        values.cells.iter().enumerate().map(paint).collect()
    }

    /// The expected φ of Gaussian matrices: one mark, or one for each size of matrix.
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

    /// The colour bar of the sequential rows. Its position is set later.
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

    /// The colour bar of the last row. Its position is set later.
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

    /// Explains the rows to a reader who has only the figure.
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
        let hollow = |c: &Column<'_>| self.rows.iter().any(|row| c.values(*row).has_gaps());
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
