//! Figures as commands draw them: the options for it, and where the files go.

use std::path::PathBuf;

use clap::Args;

use super::choice::{any, any_or_none};
use crate::error::{Error, Result};
use crate::figure::{
    CellOrder, ColourMap, ColourScale, Dpi, DrawnFigure, FigureContext, FigureFormat, FigureOptions, draw_study_in_turn,
};
use crate::output::{OutputDir, write_files_atomically};
use crate::table::Tables;

/// What files figures become.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct FormatArgs {
    /// Figure formats, or none
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', default_value = "svg,png", value_parser = any_or_none::<FigureFormat>())]
    figures: Vec<Option<FigureFormat>>,
    /// Pixels per inch of PNGs; their size in print stays the same
    #[arg(long, value_name = "N", default_value_t = Dpi::default())]
    dpi: Dpi,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct DrawingArgs {
    #[command(flatten)]
    formats: FormatArgs,
    /// Directory for the figures [default: OUT/figures]
    #[arg(long, value_name = "DIR")]
    pub(super) figures_dir: Option<PathBuf>,
    /// Colour scale of heatmaps: 0 to 1 as in the paper, or up to the largest off-diagonal value
    #[arg(long, value_name = "SCALE", default_value = "paper", value_parser = any::<ColourScale>())]
    scale: ColourScale,
    /// Colours of heatmaps; greys is for print without colour
    #[arg(long, value_name = "MAP", default_value = "viridis", value_parser = any::<ColourMap>())]
    colours: ColourMap,
    /// Order of heatmap rows and columns: by layer (adapters by name), or clustered by similarity, with the tree
    #[arg(long, value_name = "ORDER", default_value = "layer", value_parser = any::<CellOrder>())]
    order: CellOrder,
}

impl FormatArgs {
    /// The formats asked for, each once, and everything else as it is by default.
    ///
    /// # Errors
    /// [`Error::Usage`] for `none` beside a format.
    pub(super) fn options(&self) -> Result<FigureOptions> {
        let mut formats: Vec<FigureFormat> = self.figures.iter().flatten().copied().collect();
        if !formats.is_empty() && self.figures.contains(&None) {
            return Err(Error::usage("--figures: none cannot be combined with a format"));
        }
        formats.sort();
        formats.dedup();
        Ok(FigureOptions { formats, dpi: self.dpi, ..FigureOptions::default() })
    }
}

impl DrawingArgs {
    /// How figures are drawn.
    ///
    /// # Errors
    /// Those of [`FormatArgs::options`].
    pub(super) fn options(&self) -> Result<FigureOptions> {
        Ok(FigureOptions { scale: self.scale, colours: self.colours, order: self.order, ..self.formats.options()? })
    }

    /// Draws all figures, and writes those that go into `out`.
    ///
    /// # Errors
    /// Those of [`draw_study_in_turn`] and [`OutputDir::write`].
    pub(super) fn draw(&self, tables: &Tables, base_name: Option<&str>, out: &mut OutputDir) -> Result<Elsewhere> {
        let mut elsewhere = Vec::new();
        let take = |figure: DrawnFigure| match &self.figures_dir {
            Some(dir) => {
                elsewhere.push((dir.join(figure.path()), figure.bytes));
                Ok(())
            }
            None => out.write(&format!("figures/{}", figure.path()), &figure.bytes),
        };
        draw_study_in_turn(tables, &FigureContext { base_name, adapter: None }, &self.options()?, take)?;
        Ok(Elsewhere(elsewhere))
    }
}

/// Figures for `--figures-dir`, to be written when everything else is ready.
pub(super) struct Elsewhere(Vec<(PathBuf, Vec<u8>)>);

impl Elsewhere {
    /// Writes them.
    ///
    /// # Errors
    /// Those of [`write_files_atomically`].
    pub(super) fn write(&self) -> Result<()> {
        write_files_atomically(&self.0).map(drop)
    }
}
