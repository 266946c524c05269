//! How figures are drawn: their formats, resolution and colours.

use std::fmt;
use std::str::FromStr;

use crate::terms::named;

/// A file format for figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FigureFormat {
    /// Vector graphics with real text.
    Svg,
    /// A bitmap, at the resolution of [`FigureOptions::dpi`].
    Png,
    /// Vector graphics on one page, with the font embedded.
    #[cfg(feature = "pdf")]
    Pdf,
}

named!(FigureFormat, "a figure format", { Svg = "svg", Png = "png", Pdf = "pdf" if "pdf" });

/// What a heatmap's colours span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ColourScale {
    /// 0 to 1, as in the paper: figures can be compared with each other.
    #[default]
    Paper,
    /// 0 to the largest value off the diagonal, and the diagonal grey.
    Data,
}

named!(ColourScale, "a colour scale", { Paper = "paper", Data = "data" });

/// The colours of φ: 256 steps of even lightness. Signed quantities have blue to red whatever this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ColourMap {
    /// Dark blue over green to yellow.
    #[default]
    Viridis,
    /// Black over red to pale yellow.
    Magma,
    /// Near white to near black, for print without colour.
    Greys,
}

named!(ColourMap, "a colour map", { Viridis = "viridis", Magma = "magma", Greys = "greys" });

/// In which order a heatmap has its rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum CellOrder {
    /// Layers by number, adapters by name.
    #[default]
    Layer,
    /// Alike ones together: by average linkage of 1 − φ, with the tree drawn beside the cells. Overviews keep to the layers.
    Similarity,
}

named!(CellOrder, "an order", { Layer = "layer", Similarity = "similarity" });

/// Pixels to an inch of a bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Dpi(u16);

impl Dpi {
    /// Below this the smallest text cannot be read.
    pub const LEAST: u16 = 72;
    /// Finer than print can show of these pictures; SVG and PDF have no resolution.
    pub const MOST: u16 = 600;

    /// The resolution, if it is one that figures can be drawn at.
    ///
    /// # Errors
    /// One line that tells the range.
    pub fn new(dpi: u32) -> Result<Self, String> {
        let fits = u16::try_from(dpi).ok().filter(|dpi| (Self::LEAST..=Self::MOST).contains(dpi));
        fits.map(Self).ok_or_else(|| format!("a resolution must be from {} to {} pixels to an inch", Self::LEAST, Self::MOST))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Dpi {
    /// Two pixels to a CSS pixel.
    fn default() -> Self {
        Self(192)
    }
}

impl FromStr for Dpi {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // No number is out of range as one too large for the type is.
        Self::new(text.parse().unwrap_or(u32::MAX))
    }
}

/// How figures are drawn.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct FigureOptions {
    /// Every figure is drawn in each of these; none draws nothing.
    #[serde(rename = "figures")]
    pub formats: Vec<FigureFormat>,
    /// The bitmaps' resolution. They have the same size in print at every one.
    pub dpi: Dpi,
    /// The heatmaps' scale.
    pub scale: ColourScale,
    /// The colours of φ.
    pub colours: ColourMap,
    /// The heatmaps' order.
    pub order: CellOrder,
}

impl fmt::Display for Dpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_written_by_name() {
        for format in FigureFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        for scale in ColourScale::ALL {
            assert_eq!(scale.to_string().parse(), Ok(scale));
        }
        for map in ColourMap::ALL {
            assert_eq!(map.to_string().parse(), Ok(map));
        }
        for order in CellOrder::ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        assert!("name".parse::<CellOrder>().is_err());
        assert!("gif".parse::<FigureFormat>().is_err() && "log".parse::<ColourScale>().is_err());
        assert_eq!("jet".parse::<ColourMap>(), Err("a colour map must be one of viridis, magma, greys".to_owned()));
    }

    #[test]
    fn a_format_that_was_not_built_in_is_named() {
        let pdf = "pdf".parse::<FigureFormat>();
        if cfg!(feature = "pdf") {
            assert!(pdf.is_ok());
        } else {
            assert_eq!(pdf, Err("this condlora was built without the feature `pdf`".to_owned()));
        }
    }

    #[test]
    fn a_resolution_has_a_range() {
        for (text, dpi) in [("72", 72), ("192", 192), ("600", 600)] {
            assert_eq!(text.parse::<Dpi>().map(Dpi::get), Ok(dpi));
        }
        for text in ["71", "601", "0", "-1", "99999999999", "300.5", "high", ""] {
            let refused = text.parse::<Dpi>();
            assert_eq!(refused, Err("a resolution must be from 72 to 600 pixels to an inch".to_owned()), "{text}");
        }
    }
}
