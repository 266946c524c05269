//! Figures as commands draw them: the options for it, and where the files go.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};
use crate::figure::{ColourScale, FigureContext, FigureFormat, FigureOptions, draw_study};
use crate::table::{OutputDir, Tables, write_files_atomically};

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct DrawingArgs {
    /// Figure formats: svg, png, or none
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', default_value = "svg,png", value_parser = parse_format)]
    pub(super) figures: Vec<Option<FigureFormat>>,
    /// Where the figures go [default: OUT/figures]
    #[arg(long, value_name = "DIR")]
    pub(super) figures_dir: Option<PathBuf>,
    /// Heatmap colours: 0 to 1 as in the paper, or to the largest value beside the diagonal
    #[arg(long, value_name = "paper|data", default_value = "paper")]
    pub(super) scale: ColourScale,
}

pub(super) fn parse_format(text: &str) -> Result<Option<FigureFormat>, String> {
    if text == "none" { Ok(None) } else { text.parse().map(Some).map_err(|_| "expected svg, png or none".to_owned()) }
}

/// The formats asked for, each once.
///
/// # Errors
/// [`Error::Usage`] for `none` beside a format.
pub(super) fn figure_formats(given: &[Option<FigureFormat>]) -> Result<Vec<FigureFormat>> {
    let mut formats: Vec<FigureFormat> = given.iter().flatten().copied().collect();
    if !formats.is_empty() && given.contains(&None) {
        return Err(Error::usage("--figures: none stands alone"));
    }
    formats.sort();
    formats.dedup();
    Ok(formats)
}

impl DrawingArgs {
    /// How figures are drawn.
    ///
    /// # Errors
    /// [`Error::Usage`] for `none` beside a format.
    pub(super) fn options(&self) -> Result<FigureOptions> {
        Ok(FigureOptions { formats: figure_formats(&self.figures)?, scale: self.scale })
    }

    /// Draws all figures and writes those that go into `out`.
    ///
    /// # Errors
    /// Those of [`draw_study`] and [`OutputDir::write`].
    pub(super) fn draw(&self, tables: &Tables, base_name: Option<&str>, out: &mut OutputDir) -> Result<Elsewhere> {
        let figures = draw_study(tables, &FigureContext { base_name }, &self.options()?)?;
        match &self.figures_dir {
            Some(dir) => Ok(Elsewhere(figures.into_iter().map(|f| (dir.join(f.path()), f.bytes)).collect())),
            None => {
                for figure in &figures {
                    out.write(&format!("figures/{}", figure.path()), &figure.bytes)?;
                }
                Ok(Elsewhere(Vec::new()))
            }
        }
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
