//! Finished figures: what each shows, its bytes, and its path.

use super::options::{FigureFormat, FigureOptions};
use super::render::encode;
use super::scene::Scene;
use crate::error::Result;
use crate::table::file_name::{adapter_path, encode as as_file_name, with_ending};
use crate::terms::{LayerId, MatrixKind, Side};

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
    /// All modules of an adapter, with their controls.
    Overview,
    /// φ of one module and matrix over all pairs of adapters, as means over the layers.
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
    /// φ of two layers of one module and matrix for every pair of numbers of vectors.
    Grid {
        /// Module name.
        module: String,
        /// The matrix compared.
        matrix: MatrixKind,
        /// Which singular vectors.
        side: Side,
        /// The layer of the rows.
        layer_a: LayerId,
        /// The layer of the columns.
        layer_b: LayerId,
    },
    /// φ of two adapters layer by layer, for A, B and B·A of one module.
    Comparison {
        /// Module name.
        module: String,
        /// How many singular vectors of the left adapter.
        i: usize,
        /// How many singular vectors of the right adapter.
        j: usize,
    },
    /// Singular values of one module's conversion matrices, by layer.
    Spectrum {
        /// Module name.
        module: String,
    },
    /// The paper's Figure 1: Θ_A and Θ_B of one module on one scale.
    Paper {
        /// Module name.
        module: String,
        /// Which singular vectors.
        side: Side,
        /// How many singular vectors of `layer_a`.
        i: usize,
        /// How many singular vectors of `layer_b`.
        j: usize,
    },
    /// Residuals of fitting one Θ to all layers of a module.
    Fit {
        /// Module name.
        module: String,
    },
    /// What one Θ of all other layers predicts of each layer of a module.
    HeldOut {
        /// Module name.
        module: String,
    },
    /// φ of one module's layers against the cut of W0's singular directions.
    Cuts {
        /// Module name.
        module: String,
    },
    /// How much of one module's Θ lies in the smallest singular directions of W0.
    Energy {
        /// Module name.
        module: String,
    },
    /// φ of one module's pairs of layers against the `w0` control of each pair.
    Expected {
        /// Module name.
        module: String,
    },
    /// Losses and metrics of an adapter's training, and its learning rate.
    Training,
}

impl FigureKind {
    /// The kind's name: `heatmap`, `overview`, `across`, `grid`, `comparison`, `spectrum`, `paper`, `fit`, `heldout`, `cuts`, `energy`, `expected`, `training`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Heatmap { .. } => "heatmap",
            Self::Overview => "overview",
            Self::Across { .. } => "across",
            Self::Grid { .. } => "grid",
            Self::Comparison { .. } => "comparison",
            Self::Spectrum { .. } => "spectrum",
            Self::Paper { .. } => "paper",
            Self::Fit { .. } => "fit",
            Self::Cuts { .. } => "cuts",
            Self::Energy { .. } => "energy",
            Self::Expected { .. } => "expected",
            Self::HeldOut { .. } => "heldout",
            Self::Training => "training",
        }
    }

    /// The module that it shows, if it shows only one.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        match self {
            Self::Heatmap { module, .. }
            | Self::Across { module, .. }
            | Self::Grid { module, .. }
            | Self::Comparison { module, .. }
            | Self::Spectrum { module }
            | Self::Paper { module, .. }
            | Self::Fit { module }
            | Self::HeldOut { module }
            | Self::Cuts { module }
            | Self::Energy { module }
            | Self::Expected { module } => Some(module),
            Self::Overview | Self::Training => None,
        }
    }
}

/// A finished figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnFigure {
    /// Adapter name; empty for a figure that compares adapters.
    pub adapter: String,
    /// What it shows.
    pub kind: FigureKind,
    /// Format of `bytes`.
    pub format: FigureFormat,
    /// The file's contents.
    pub bytes: Vec<u8>,
}

/// The folder of figures that compare adapters. A `+` in an adapter's name is escaped, so no adapter's folder has this name.
const ACROSS_FOLDER: &str = "+across";

impl DrawnFigure {
    /// Its path in the folder of the figures: `trec-seed0/query.A.left.i8-j8.svg`, `trec-seed0/query.spectrum.svg`,
    /// `+across/query.A.left.i8-j8.svg`, `value.i8-j8.svg` of a comparison, `value.fit.svg`, `value.heldout.svg`. Names are safe for a file system.
    #[must_use]
    pub fn path(&self) -> String {
        let file = self.file_name();
        match &self.kind {
            FigureKind::Across { .. } => format!("{ACROSS_FOLDER}/{file}"),
            FigureKind::Comparison { .. } | FigureKind::Fit { .. } | FigureKind::HeldOut { .. } => file,
            _ => format!("{}/{file}", adapter_path(&self.adapter)),
        }
    }

    /// The last part of [`DrawnFigure::path`].
    #[must_use]
    pub fn file_name(&self) -> String {
        let format = self.format;
        match &self.kind {
            FigureKind::Heatmap { module, matrix, side, i, j } | FigureKind::Across { module, matrix, side, i, j } => {
                with_ending(module, &format!(".{matrix}.{side}.i{i}-j{j}.{format}"))
            }
            FigureKind::Grid { module, matrix, side, layer_a, layer_b } => with_ending(
                module,
                &format!(
                    ".{matrix}.{side}.grid-l{}-l{}.{format}",
                    as_file_name(&layer_a.to_string()),
                    as_file_name(&layer_b.to_string())
                ),
            ),
            FigureKind::Comparison { module, i, j } => with_ending(module, &format!(".i{i}-j{j}.{format}")),
            FigureKind::Paper { module, side, i, j } => with_ending(module, &format!(".figure1.{side}.i{i}-j{j}.{format}")),
            FigureKind::Spectrum { module }
            | FigureKind::Fit { module }
            | FigureKind::HeldOut { module }
            | FigureKind::Cuts { module }
            | FigureKind::Energy { module }
            | FigureKind::Expected { module } => with_ending(module, &format!(".{}.{format}", self.kind.name())),
            FigureKind::Overview => format!("overview.{format}"),
            FigureKind::Training => format!("training.{format}"),
        }
    }
}

/// Writes a scene in every format that was asked for.
pub(super) fn in_each_format(
    scene: &Scene,
    adapter: &str,
    kind: &FigureKind,
    options: &FigureOptions,
) -> Result<Vec<DrawnFigure>> {
    let one = |format: &FigureFormat| {
        let bytes = encode(scene, *format, options.dpi)?;
        Ok(DrawnFigure { adapter: adapter.to_owned(), kind: kind.clone(), format: *format, bytes })
    };
    options.formats.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(adapter: &str, kind: FigureKind) -> String {
        DrawnFigure { adapter: adapter.to_owned(), kind, format: FigureFormat::Svg, bytes: Vec::new() }.path()
    }

    #[test]
    fn no_adapter_shares_the_folder_of_all() {
        let (matrix, side, i, j) = (MatrixKind::A, Side::Left, 8, 8);
        let within = |adapter: &str| path(adapter, FigureKind::Heatmap { module: "query".into(), matrix, side, i, j });
        assert_eq!(path("", FigureKind::Across { module: "query".into(), matrix, side, i, j }), "+across/query.A.left.i8-j8.svg");
        assert_eq!(within("across"), "across/query.A.left.i8-j8.svg");
        assert_eq!(within("+across"), "%2Bacross/query.A.left.i8-j8.svg");
        assert_eq!(path("", FigureKind::Comparison { module: "a/b".into(), i, j }), "a%2Fb.i8-j8.svg");
    }

    #[test]
    fn a_long_module_name_still_makes_a_file() {
        let module = "é".repeat(300);
        let long = path("a", FigureKind::Heatmap { module, matrix: MatrixKind::LoraA, side: Side::Right, i: usize::MAX, j: 1 });
        let name = long.rsplit('/').next().unwrap();
        assert!(name.len() <= 255 && name.ends_with(".lora_A.right.i18446744073709551615-j1.svg"), "{name}");
    }
}
