//! Table rows to pictures: the paper's heatmaps, one overview for each adapter, heatmaps of different adapters, and charts of
//! comparisons, fits, singular values, cuts, energies, expectations and training, as SVG, PNG and PDF.
//!
//! Sees row types only, so any picture can be drawn again from a saved table. Writes no files: the caller does.
//!
//! From the bottom up: `scene` is a figure as a list of elements at whole coordinates, `render` writes a scene in a format,
//! `parts` are the pieces that several figures share, then comes one file for each figure, and `all` draws every figure of a
//! study.

mod across;
mod all;
mod comparison;
mod context;
mod cuts;
pub mod embedded;
mod energy;
mod expected;
mod fitted;
mod grid;
mod groups;
mod heatmap;
mod held_out;
mod kind;
#[cfg(test)]
mod legible;
#[cfg(test)]
mod legible_charts;
mod options;
mod overview;
mod paper;
mod parts;
mod render;
mod scene;
mod spectrum;
mod training;

pub use self::all::{draw_study, draw_study_in_turn};
pub use self::comparison::draw_comparison;
pub use self::context::FigureContext;
pub use self::fitted::draw_fit;
pub use self::held_out::draw_held_out;
pub use self::kind::{DrawnFigure, FigureKind};
pub use self::options::{CellOrder, ColourMap, ColourScale, Dpi, FigureFormat, FigureOptions};
pub use self::paper::draw_paper;
