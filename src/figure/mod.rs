//! Table rows to pictures: the paper's heatmaps, one overview for each adapter, heatmaps of different adapters, and the lines of a
//! comparison, as SVG and PNG.
//!
//! Sees row types only, so any picture can be drawn again from a saved table. Writes no files: the caller does.

mod across;
mod bar;
mod bitmap;
mod colour;
mod comparison;
mod drawn;
mod font;
mod group;
mod heatmap;
mod layers;
mod overview;
mod panel;
mod scene;
mod study;
mod svg;
mod ticks;

use std::fmt;
use std::str::FromStr;

pub use self::comparison::draw_comparison;
pub use self::drawn::{DrawnFigure, FigureKind};
pub use self::study::draw_study;
use crate::error::Result;

/// A file format for figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FigureFormat {
    /// Vector graphics with real text.
    Svg,
    /// A bitmap at two pixels to a CSS pixel (192 dpi).
    Png,
}

impl FigureFormat {
    /// The name used in options, and the file name's extension.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png => "png",
        }
    }
}

/// What a heatmap's colours span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ColourScale {
    /// 0 to 1, as in the paper: figures can be compared with each other.
    #[default]
    Paper,
    /// 0 to the largest value beside the diagonal, and the diagonal grey.
    Data,
}

impl ColourScale {
    /// The name used in options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Data => "data",
        }
    }
}

impl fmt::Display for FigureFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FigureFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Svg, Self::Png]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| "a figure format must be one of svg, png".to_owned())
    }
}

impl fmt::Display for ColourScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ColourScale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Paper, Self::Data]
            .into_iter()
            .find(|scale| scale.name() == text)
            .ok_or_else(|| "a colour scale must be one of paper, data".to_owned())
    }
}

/// How figures are drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FigureOptions {
    /// Every figure is drawn in each of these; none draws nothing.
    pub formats: Vec<FigureFormat>,
    /// The heatmaps' scale.
    pub scale: ColourScale,
}

/// What the tables do not say about a study.
#[derive(Debug, Clone, Copy, Default)]
pub struct FigureContext<'a> {
    /// The base model's name, for the overviews' titles.
    pub base_name: Option<&'a str>,
}

/// A scene as a file of one format.
fn bytes_of(scene: &scene::Scene, format: FigureFormat) -> Result<Vec<u8>> {
    match format {
        FigureFormat::Svg => svg::to_svg(scene),
        FigureFormat::Png => bitmap::to_png(scene),
    }
}
