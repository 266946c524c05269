//! Table rows to pictures: the paper's heatmaps, one overview for each adapter, heatmaps of different adapters, and line charts of
//! comparisons, fits, singular values and training, as SVG, PNG and PDF.
//!
//! Sees row types only, so any picture can be drawn again from a saved table. Writes no files: the caller does.

mod across;
mod bar;
mod bitmap;
mod by_number;
mod chart;
mod colour;
mod comparison;
mod dendrogram;
mod drawn;
pub mod embedded;
mod fitted;
mod font;
mod group;
mod heatmap;
mod layers;
#[cfg(test)]
mod legible;
mod options;
mod overview;
mod panel;
mod paper;
#[cfg(feature = "pdf")]
mod pdf;
mod scene;
mod similar;
mod spectrum;
mod study;
mod svg;
mod ticks;
mod training;

pub use self::comparison::draw_comparison;
pub use self::drawn::{DrawnFigure, FigureKind};
pub use self::fitted::draw_fit;
pub use self::options::{CellOrder, ColourMap, ColourScale, Dpi, FigureFormat, FigureOptions};
pub use self::paper::draw_paper;
pub use self::study::{draw_study, draw_study_in_turn};
use crate::error::Result;

/// What the tables do not say about a study.
#[derive(Debug, Clone, Copy, Default)]
pub struct FigureContext<'a> {
    /// The base model's name, for the overviews' titles.
    pub base_name: Option<&'a str>,
    /// The adapter that a fit is of, where its table does not say.
    pub adapter: Option<&'a str>,
}

/// A scene as a file of one format.
fn bytes_of(scene: &scene::Scene, format: FigureFormat, dpi: Dpi) -> Result<Vec<u8>> {
    match format {
        FigureFormat::Svg => svg::to_svg(scene),
        FigureFormat::Png => bitmap::to_png(scene, dpi),
        #[cfg(feature = "pdf")]
        FigureFormat::Pdf => pdf::to_pdf(scene),
    }
}
