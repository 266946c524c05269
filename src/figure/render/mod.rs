//! Writes a scene in a file format.

pub(super) mod bitmap;
#[cfg(feature = "pdf")]
mod pdf;
pub(super) mod png;
pub(super) mod svg;

use super::options::{Dpi, FigureFormat};
use super::scene::Scene;
use crate::error::Result;

/// Writes a scene in a format. The resolution is used for bitmaps only.
///
/// # Errors
/// [`Error::Resource`](crate::Error::Resource) if the bitmap would be too large.
pub(super) fn encode(scene: &Scene, format: FigureFormat, dpi: Dpi) -> Result<Vec<u8>> {
    match format {
        FigureFormat::Svg => svg::to_svg(scene),
        FigureFormat::Png => bitmap::to_png(scene, dpi),
        #[cfg(feature = "pdf")]
        FigureFormat::Pdf => pdf::to_pdf(scene),
    }
}
