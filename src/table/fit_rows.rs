//! The rows of the tables of `fit`: what one Θ leaves of all layers, and what one of all other layers predicts of a layer left out.

use super::columns::{BadField, Cell, CellValue, ColumnType, Row, next_cell, row};
use crate::terms::{Status, UpdateMatrix};

row! {
    /// One row of `fit.csv`: how much of one layer's matrix, or of all layers', a shared Θ leaves.
    pub struct FitRow in "fit" {
        /// Module name.
        pub module: String,
        /// The matrix fitted.
        pub matrix: UpdateMatrix,
        /// The layer's index in the tensor names, or [`FitRow::ALL`]; empty for a module outside any repeated container.
        pub layer: String,
        /// ‖T − fitted‖_F/‖T‖_F; none where T = 0.
        pub residual: Option<f64>,
        /// The residual for Gaussian targets with the layers' norms: expected in closed form for A and B, the draws' mean for `delta`.
        pub residual_expected: Option<f64>,
        /// Standard deviation of the draws.
        pub residual_sd: Option<f64>,
        /// Share of the draws with a residual no larger, where the observed one counts as a draw. It is not specific to a shared Θ.
        pub p: Option<f64>,
        /// Mean of the `flip` control: the layer's own targets with their signs turned at random in the singular basis of W0.
        pub flip_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub flip_sd: Option<f64>,
        /// p against it, of a residual that is smaller: what the verdict goes by.
        pub flip_p: Option<f64>,
        /// How far the fit can be trusted.
        pub status: Status,
    }
}

impl FitRow {
    /// What replaces a layer's index in the row of all layers together.
    pub const ALL: &str = "all";
}

row! {
    /// One row of `heldout.csv`: how well one Θ of all other layers predicts a factor of the layer left out.
    pub struct HeldOutRow in "heldout" {
        /// Module name.
        pub module: String,
        /// The factor: A or B.
        pub matrix: UpdateMatrix,
        /// The map from Θ to it: `W0` or `W0^T`.
        pub map: String,
        /// `subspace`: all directions of the factor count alike; `energy`: by the singular values of ΔW.
        pub weighting: String,
        /// The index of the layer left out, or [`HeldOutRow::ALL`] for the mean.
        pub layer: String,
        /// Share of the factor's directions (or energy) that is predicted.
        pub score: Option<f64>,
        /// The same for a random factor: r/n.
        pub chance: Option<f64>,
        /// The same where the other layers' own factors predict it, without W0.
        pub without_w0: Option<f64>,
        /// Mean of the `flip` control.
        pub flip_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub flip_sd: Option<f64>,
        /// p against it.
        pub flip_p: Option<f64>,
        /// Mean over layers shuffled against the weights.
        pub shuffled_mean: Option<f64>,
        /// p against that, which is not strict: shuffling also takes a factor away from the spectrum of its own W0.
        pub shuffled_p: Option<f64>,
        /// The worst status of the layers.
        pub status: Status,
    }
}

impl HeldOutRow {
    /// What replaces a layer's index in the row of all layers together.
    pub const ALL: &str = "all";
    /// The map of `W0·Θ`.
    pub const W0: &str = "W0";
    /// The map of `W0ᵀ·Θ`.
    pub const W0_TRANSPOSED: &str = "W0^T";
    /// The weighting by which all directions of a factor count alike.
    pub const SUBSPACE: &str = "subspace";
    /// The weighting by the singular values of ΔW.
    pub const ENERGY: &str = "energy";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_that_are_promised() {
        assert_eq!(
            FitRow::COLUMNS.join(","),
            "module,matrix,layer,residual,residual_expected,residual_sd,p,flip_mean,flip_sd,flip_p,status"
        );
        assert_eq!(
            HeldOutRow::COLUMNS.join(","),
            "module,matrix,map,weighting,layer,score,chance,without_w0,flip_mean,flip_sd,flip_p,shuffled_mean,shuffled_p,status"
        );
    }
}
