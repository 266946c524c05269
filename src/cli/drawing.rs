//! Figures as commands draw them: the options for it, and where the files go.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};
use crate::figure::{
    CellOrder, ColourMap, ColourScale, Dpi, DrawnFigure, FigureContext, FigureFormat, FigureOptions, draw_study_in_turn,
};
use crate::table::{OutputDir, Tables, write_files_atomically};

/// What files figures become.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct FormatArgs {
    /// Figure formats: svg, png, pdf, or none
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', default_value = "svg,png", value_parser = parse_format)]
    figures: Vec<Option<FigureFormat>>,
    /// Pixels to an inch of a PNG; its size in print is the same at every one
    #[arg(long, value_name = "N", default_value_t = Dpi::default())]
    dpi: Dpi,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct DrawingArgs {
    #[command(flatten)]
    formats: FormatArgs,
    /// Where the figures go [default: OUT/figures]
    #[arg(long, value_name = "DIR")]
    pub(super) figures_dir: Option<PathBuf>,
    /// What heatmap colours span: 0 to 1 as in the paper, or to the largest value beside the diagonal
    #[arg(long, value_name = "paper|data", default_value = "paper")]
    scale: ColourScale,
    /// Heatmap colours: viridis, magma, or greys for print
    #[arg(long, value_name = "MAP", default_value = "viridis")]
    colours: ColourMap,
    /// Heatmap rows and columns: by layer (adapters by name), or alike ones together, with the tree
    #[arg(long, value_name = "layer|similarity", default_value = "layer")]
    order: CellOrder,
}

fn parse_format(text: &str) -> Result<Option<FigureFormat>, String> {
    if text == "none" { Ok(None) } else { text.parse().map(Some).map_err(|error| format!("{error}, or none")) }
}

/// Options of drawing as the manifest keeps them.
pub(super) fn add_to_manifest(options: &mut serde_json::Value, drawing: &FigureOptions, heatmaps: bool) {
    options["figures"] = drawing.formats.iter().map(|format| format.name()).collect();
    options["dpi"] = drawing.dpi.get().into();
    if heatmaps {
        options["scale"] = drawing.scale.name().into();
        options["colours"] = drawing.colours.name().into();
        options["order"] = drawing.order.name().into();
    }
}

impl FormatArgs {
    /// The formats asked for, each once, and everything else as it is by default.
    ///
    /// # Errors
    /// [`Error::Usage`] for `none` beside a format.
    pub(super) fn options(&self) -> Result<FigureOptions> {
        let mut formats: Vec<FigureFormat> = self.figures.iter().flatten().copied().collect();
        if !formats.is_empty() && self.figures.contains(&None) {
            return Err(Error::usage("--figures: none stands alone"));
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
