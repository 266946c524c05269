//! Rows of a plausible study, to be changed where a figure needs something else.
//!
//! The types come from the file that includes this one: inside the crate and outside of it they have different paths.

use super::{MatrixKind, Side, SimilarityRow, Status, SummaryRow};

/// φ of two layers with `phi`, by eight vectors of each, with its controls.
pub(crate) fn similarity(adapter: &str, module: &str, matrix: MatrixKind, layers: (u32, u32), phi: f64) -> SimilarityRow {
    SimilarityRow {
        adapter: adapter.to_owned(),
        module: module.to_owned(),
        matrix,
        side: Side::Left,
        i: 8,
        j: 8,
        layer_a: layers.0.into(),
        layer_b: layers.1.into(),
        phi: Some(phi),
        phi_error_bound: Some(1e-12),
        gaussian_mean: Some(0.0208),
        gaussian_sd: Some(0.002),
        w0_mean: Some(0.97 * phi),
        w0_sd: Some(0.002),
        w0_expected: None,
        init: None,
        status: Status::Ok,
    }
}

/// The means over the pairs of this many layers.
pub(crate) fn summary(adapter: &str, module: &str, matrix: MatrixKind, layers: usize) -> SummaryRow {
    SummaryRow {
        adapter: adapter.to_owned(),
        module: module.to_owned(),
        matrix,
        side: Side::Left,
        i: 8,
        j: 8,
        layers,
        phi_mean: Some(0.0262),
        phi_min: Some(0.02),
        phi_max: Some(0.06),
        gaussian_expected: Some(8.0 / 384.0),
        gaussian_mean: Some(0.0208),
        gaussian_sd: Some(0.0004),
        w0_mean: Some(0.0275),
        w0_sd: Some(0.001),
        w0_expected: None,
        w0_z: Some(-1.36),
        w0_p: Some(0.9),
        init_mean: None,
        status: Status::Ok,
    }
}
