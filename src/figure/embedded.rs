//! What the HTML report takes from the figures: the colours of cells, an image of very many cells, and an adapter's overview.

use super::context::FigureContext;
use super::groups::{LayerSimilarity, layer_similarities_of};
use super::options::{ColourMap, FigureOptions};
use super::overview::{self, ranks_by_adapter};
pub(crate) use super::parts::layers::{layer_names, layer_numbers};
use super::parts::square::scale_end;
use super::render::png;
use super::render::svg::{base64, to_svg};
use super::scene::colour::{self, Rgb};
use crate::error::Result;
use crate::table::Tables;

/// One step of the heatmaps' colour scale, as CSS colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellColour {
    /// The colour of the cell.
    pub fill: String,
    /// The colour of text on it, with a contrast of at least 4.5:1.
    pub ink: String,
}

/// Number of steps of the colour scale.
pub const STEPS: usize = 256;

/// All steps of the scale, from the lowest value to the highest.
#[must_use]
pub fn cell_colours() -> Vec<CellColour> {
    let step = |step: usize| {
        let fill = colour::sequential(ColourMap::Viridis)(step as f64 / (STEPS - 1) as f64);
        CellColour { fill: css(fill), ink: css(colour::ink_on(fill)) }
    };
    (0..STEPS).map(step).collect()
}

/// The step of a value on a scale from 0 to `end`.
#[must_use]
pub fn colour_step(value: f64, end: f64) -> usize {
    let at = value / end;
    if at.is_finite() { (at.clamp(0.0, 1.0) * (STEPS - 1) as f64).round() as usize } else { 0 }
}

/// The upper end of a scale from 0 for a largest value: that value, or 1 if it is only rounding.
#[must_use]
pub fn end_of_scale(largest: Option<f64>) -> f64 {
    scale_end(largest)
}

/// `n × n` values as a PNG with one pixel for each cell. The diagonal and missing cells are grey.
///
/// # Errors
/// Only where the encoding fails, which would be a bug.
pub fn cells_picture(values: &[Option<f64>], n: usize, end: f64) -> Result<Vec<u8>> {
    let mut pixels = Vec::with_capacity(values.len() * 3);
    for (k, value) in values.iter().enumerate() {
        let Rgb(r, g, b) = match value {
            None => colour::HATCH,
            Some(_) if k / n == k % n => colour::DIAGONAL,
            Some(value) => colour::sequential(ColourMap::Viridis)(colour_step(*value, end) as f64 / (STEPS - 1) as f64),
        };
        pixels.extend([r, g, b]);
    }
    png::encode(n as u32, n as u32, None, |out| out.write_all(&pixels).map_err(|e| png::bug(&e)))
}

/// One adapter's overview as an SVG document; `None` if there is nothing to draw.
///
/// # Errors
/// Only where the encoding of an embedded picture fails, which would be a bug.
pub fn overview_svg(tables: &Tables, context: &FigureContext<'_>, adapter: &str) -> Result<Option<Vec<u8>>> {
    let groups = layer_similarities_of(tables, |name| name == adapter);
    let own: Vec<&LayerSimilarity<'_>> = groups.iter().collect();
    let ranks = ranks_by_adapter(tables).get(adapter).copied();
    overview::scene(adapter, &own, ranks, context, &FigureOptions::default()).as_ref().map(to_svg).transpose()
}

/// Bytes as a `data:` URI.
#[must_use]
pub fn data_uri(mime: &str, bytes: &[u8]) -> String {
    format!("data:{mime};base64,{}", base64(bytes))
}

fn css(Rgb(r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_pixel_for_each_cell() {
        let png = cells_picture(&[Some(1.0), Some(0.0), None, Some(1.0)], 2, 0.5).unwrap();
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0xe2, 0xe2, 0xe2, 68, 1, 84, 0xb4, 0xb4, 0xb4, 0xe2, 0xe2, 0xe2]);
    }

    #[test]
    fn steps_span_the_scale() {
        assert_eq!([0.0, 0.25, 0.5, 9.0].map(|value| colour_step(value, 0.5)), [0, 128, 255, 255]);
        assert_eq!(colour_step(f64::NAN, 1.0), 0);
        let colours = cell_colours();
        assert_eq!((colours.len(), colours[0].fill.as_str(), colours[255].fill.as_str()), (STEPS, "#440154", "#fde725"));
    }
}
