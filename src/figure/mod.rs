//! Table rows to pictures: the paper's heatmaps, one overview for each adapter, and heatmaps of different adapters, as SVG and PNG.
//!
//! Sees row types only, so any picture can be drawn again from a saved table. Writes no files: the caller does.

mod across;
mod bar;
mod bitmap;
mod colour;
mod font;
mod group;
mod heatmap;
mod layers;
mod overview;
mod panel;
mod scene;
mod svg;
mod ticks;

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;

use self::group::Group;
use crate::error::Result;
use crate::table::rows::{CompareRow, Tables};
use crate::terms::{MatrixKind, Side};

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

/// What a figure shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FigureKind {
    /// φ of one module and matrix over all pairs of layers.
    Heatmap {
        /// Module name.
        module: String,
        /// The matrix compared.
        matrix: MatrixKind,
        /// Which singular vectors.
        side: Side,
        /// How many singular vectors of `layer_a`.
        i: usize,
        /// How many singular vectors of `layer_b`.
        j: usize,
    },
    /// All modules of an adapter beside their controls.
    Overview,
    /// φ of one module and matrix over all pairs of adapters, the mean over the layers.
    Across {
        /// Module name.
        module: String,
        /// The matrix compared.
        matrix: MatrixKind,
        /// Which singular vectors.
        side: Side,
        /// How many singular vectors of the row's adapter.
        i: usize,
        /// How many singular vectors of the column's adapter.
        j: usize,
    },
}

/// A finished figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnFigure {
    /// Adapter name; empty for a figure of different adapters.
    pub adapter: String,
    /// What it shows.
    pub kind: FigureKind,
    /// Format of `bytes`.
    pub format: FigureFormat,
    /// The file's contents.
    pub bytes: Vec<u8>,
}

impl DrawnFigure {
    /// The file name below the adapter's folder: `query.A.left.i8-j8.svg`, `overview.png`.
    /// `encode` makes a module name safe for a file name.
    #[must_use]
    pub fn file_name(&self, encode: impl Fn(&str) -> String) -> String {
        let format = self.format;
        match &self.kind {
            FigureKind::Heatmap { module, matrix, side, i, j } | FigureKind::Across { module, matrix, side, i, j } => {
                format!("{}.{matrix}.{side}.i{i}-j{j}.{format}", encode(module))
            }
            FigureKind::Overview => format!("overview.{format}"),
        }
    }
}

/// Draws every heatmap, in table order, after an adapter's last one its overview, and at the end those of different adapters.
///
/// Figures are drawn in parallel on rayon's current pool; neither their order nor their bytes depend on it.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_study(tables: &Tables, context: &FigureContext<'_>, options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let groups = group::groups(tables);
    let mut adapters: Vec<&str> = Vec::new();
    for group in &groups {
        if !adapters.contains(&group.adapter) {
            adapters.push(group.adapter);
        }
    }
    let mut jobs: Vec<(&str, Option<&Group<'_>>)> = Vec::new();
    for adapter in adapters {
        jobs.extend(groups.iter().filter(|group| group.adapter == adapter).map(|group| (adapter, Some(group))));
        jobs.push((adapter, None));
    }
    let draw = |(adapter, group): &(&str, Option<&Group<'_>>)| match group {
        Some(group) => render(&heatmap::scene(group, options.scale), adapter, &heatmap_kind(group), options),
        None => match overview::scene(&groups, tables, context, adapter) {
            Some(scene) => render(&scene, adapter, &FigureKind::Overview, options),
            None => Ok(Vec::new()),
        },
    };
    let drawn: Vec<Result<Vec<DrawnFigure>>> = jobs.par_iter().map(draw).collect();
    let of_adapters = across::groups(tables.across.as_deref().unwrap_or_default());
    let across = of_adapters.par_iter().map(|group| render(&group.scene(options.scale), "", &across_kind(group), options));
    let across: Vec<Result<Vec<DrawnFigure>>> = across.collect();
    let drawn: Vec<Vec<DrawnFigure>> = drawn.into_iter().chain(across).collect::<Result<_>>()?;
    Ok(drawn.into_iter().flatten().collect())
}

/// The layer-by-layer figure of one module and (i, j) of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparisonFigure {
    /// Module name.
    pub module: String,
    /// How many singular vectors of the left adapter.
    pub i: usize,
    /// How many of the right one.
    pub j: usize,
    /// Format of `bytes`.
    pub format: FigureFormat,
    /// The file's contents.
    pub bytes: Vec<u8>,
}

/// Draws φ of a comparison layer by layer, for every module that has layers and every (i, j), in table order.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if a bitmap would be too large.
pub fn draw_comparison(rows: &[CompareRow], formats: &[FigureFormat]) -> Result<Vec<ComparisonFigure>> {
    // Each group has one row at least.
    let mut groups: Vec<Vec<&CompareRow>> = Vec::new();
    for row in rows {
        let belongs = |group: &&mut Vec<&CompareRow>| (&group[0].module, group[0].i, group[0].j) == (&row.module, row.i, row.j);
        match groups.iter_mut().find(belongs) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let draw = |rows: Vec<&CompareRow>| -> Result<Vec<ComparisonFigure>> {
        let first = rows[0];
        let Some(scene) = layers::LayerLines::of(rows).as_ref().and_then(layers::scene) else { return Ok(Vec::new()) };
        let one = |format: &FigureFormat| {
            let bytes = bytes_of(&scene, *format)?;
            Ok(ComparisonFigure { module: first.module.clone(), i: first.i, j: first.j, format: *format, bytes })
        };
        formats.iter().map(one).collect()
    };
    let drawn: Vec<Vec<ComparisonFigure>> = groups.into_par_iter().map(draw).collect::<Result<_>>()?;
    Ok(drawn.into_iter().flatten().collect())
}

/// A scene as a file of one format.
fn bytes_of(scene: &scene::Scene, format: FigureFormat) -> Result<Vec<u8>> {
    match format {
        FigureFormat::Svg => svg::to_svg(scene),
        FigureFormat::Png => bitmap::to_png(scene),
    }
}

fn heatmap_kind(group: &Group<'_>) -> FigureKind {
    let (matrix, side, i, j) = (group.matrix, group.side, group.i, group.j);
    FigureKind::Heatmap { module: group.module.to_owned(), matrix, side, i, j }
}

fn across_kind(group: &across::Across<'_>) -> FigureKind {
    let (matrix, side, i, j) = (group.matrix, group.side, group.i, group.j);
    FigureKind::Across { module: group.module.to_owned(), matrix, side, i, j }
}

/// One scene in every format asked for.
fn render(scene: &scene::Scene, adapter: &str, kind: &FigureKind, options: &FigureOptions) -> Result<Vec<DrawnFigure>> {
    let one = |format: &FigureFormat| {
        Ok(DrawnFigure { adapter: adapter.to_owned(), kind: kind.clone(), format: *format, bytes: bytes_of(scene, *format)? })
    };
    options.formats.iter().map(one).collect()
}
