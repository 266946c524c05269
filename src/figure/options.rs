//! How figures are drawn: their formats, resolution and colours.

use std::fmt;
use std::str::FromStr;

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

impl FigureFormat {
    /// Those that this build draws.
    pub const ALL: &'static [Self] = &[
        Self::Svg,
        Self::Png,
        #[cfg(feature = "pdf")]
        Self::Pdf,
    ];

    /// The name used in options, and the file name's extension.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png => "png",
            #[cfg(feature = "pdf")]
            Self::Pdf => "pdf",
        }
    }
}

impl FromStr for FigureFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().copied().find(|format| format.name() == text);
        known.ok_or_else(|| match text {
            "pdf" => "this condlora was built without the feature `pdf`".to_owned(),
            _ => format!("a figure format must be one of {}", names(Self::ALL, |format| format.name())),
        })
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

impl FromStr for ColourScale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Paper, Self::Data];
        let known = all.into_iter().find(|scale| scale.name() == text);
        known.ok_or_else(|| format!("a colour scale must be one of {}", names(&all, |scale| scale.name())))
    }
}

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

impl ColourMap {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Viridis, Self::Magma, Self::Greys];

    /// The name used in options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viridis => "viridis",
            Self::Magma => "magma",
            Self::Greys => "greys",
        }
    }
}

impl FromStr for ColourMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|map| map.name() == text);
        known.ok_or_else(|| format!("a colour map must be one of {}", names(&Self::ALL, |map| map.name())))
    }
}

/// In which order a heatmap has its rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum CellOrder {
    /// Layers by number, adapters by name.
    #[default]
    Layer,
    /// Alike ones together: by average linkage of 1 − φ, with the tree drawn beside the cells. Overviews keep to the layers.
    Similarity,
}

impl CellOrder {
    /// The name used in options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Similarity => "similarity",
        }
    }
}

impl FromStr for CellOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Layer, Self::Similarity];
        let known = all.into_iter().find(|order| order.name() == text);
        known.ok_or_else(|| format!("an order must be one of {}", names(&all, |order| order.name())))
    }
}

/// Pixels to an inch of a bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FigureOptions {
    /// Every figure is drawn in each of these; none draws nothing.
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

impl fmt::Display for FigureFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for ColourScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for ColourMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for CellOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Dpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// `a, b, c`.
fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> String {
    all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_written_by_name() {
        for format in FigureFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(*format));
        }
        for scale in [ColourScale::Paper, ColourScale::Data] {
            assert_eq!(scale.to_string().parse(), Ok(scale));
        }
        for map in ColourMap::ALL {
            assert_eq!(map.to_string().parse(), Ok(map));
        }
        for order in [CellOrder::Layer, CellOrder::Similarity] {
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
