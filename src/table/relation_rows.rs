//! The rows of tables on what an update has to do with its base weight: cuts, where the energy lies, and the updates themselves.

use super::columns::{BadField, Cell, CellValue, ColumnType, Row, next_cell, row};
use crate::terms::{LayerId, MatrixKind, Side, Status};

row! {
    /// One row of `cuts.csv`: φ across layers of Θ without the singular directions of W0 below a cut, or of `W0ᵀ·T`.
    pub struct CutRow in "cuts" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// Whose Θ: A or B.
        pub matrix: MatrixKind,
        /// Which singular vectors.
        pub side: Side,
        /// How many singular vectors of the one layer.
        pub i: usize,
        /// How many of the other.
        pub j: usize,
        /// Singular values of W0 up to this share of the largest are left out; [`CutRow::ADJOINT`] for `W0ᵀ·T`, [`CutRow::ALL`] for all cuts tested as one.
        pub cut: String,
        /// The fewest singular directions of a layer that are kept.
        pub kept_min: Option<usize>,
        /// The most.
        pub kept_max: Option<usize>,
        /// How many layers have a φ.
        pub layers: usize,
        /// Mean φ over layer_a < layer_b.
        pub phi_mean: Option<f64>,
        /// Its expectation for random subspaces within the directions that are kept.
        pub gaussian_kept: Option<f64>,
        /// Mean of the `w0` control: Gaussian targets.
        pub w0_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub w0_sd: Option<f64>,
        /// Share of its draws (with the observation) that are at least `phi_mean`.
        pub w0_p: Option<f64>,
        /// Mean of the `flip` control: the signs of the targets turned at random in the singular basis of W0.
        pub flip_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub flip_sd: Option<f64>,
        /// p against it.
        pub flip_p: Option<f64>,
        /// How many of its draws counted.
        pub flip_draws: Option<usize>,
        /// Share of the assignments of the targets to other layers' W0 that are at least `phi_mean`.
        pub shuffled_p: Option<f64>,
        /// The worst status of its pairs.
        pub status: Status,
    }
}

impl CutRow {
    /// The name of `W0ᵀ·T`, which needs no inverse.
    pub const ADJOINT: &str = "adjoint";
    /// The name of all cuts tested as one.
    pub const ALL: &str = "all";
}

row! {
    /// One row of `energy.csv`: how much of Θ and of its target lies in the smallest singular directions of one layer's W0.
    pub struct EnergyRow in "energy" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// Whose Θ: A or B.
        pub matrix: MatrixKind,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// How many of the smallest singular directions.
        pub k: usize,
        /// Share of ‖Θ‖² in them.
        pub theta_share: Option<f64>,
        /// The same for Gaussian targets, in ratio of expectations.
        pub gaussian_share: Option<f64>,
        /// Share of ‖T‖² in them.
        pub target_share: Option<f64>,
        /// `(Σe)²/Σe²` of the energies e of Θ in all directions: how many of them carry it.
        pub participation: Option<f64>,
    }
}

row! {
    /// One row of `subspaces.csv`: φ across layers of the singular subspaces of W0 itself.
    pub struct SubspaceRow in "subspaces" {
        /// Module name.
        pub module: String,
        /// Which singular vectors of W0.
        pub side: Side,
        /// `smallest` or `largest`.
        pub end: String,
        /// How many of them.
        pub k: usize,
        /// Mean φ over layer_a < layer_b.
        pub phi_mean: Option<f64>,
        /// Its expectation for random subspaces.
        pub chance: Option<f64>,
    }
}

row! {
    /// One row of `updates.csv`: the update ΔW = s·B·A of one layer, beside W0.
    pub struct UpdateRow in "updates" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// ‖W0‖_F.
        pub norm_w0: f64,
        /// The largest singular value of W0.
        pub sigma1_w0: Option<f64>,
        /// ‖ΔW‖_F; none where it is beyond the range of f64.
        pub norm_delta: Option<f64>,
        /// The largest singular value of ΔW.
        pub sigma1_delta: Option<f64>,
        /// `sigma1_delta/sigma1_w0`.
        pub sigma1_ratio: Option<f64>,
        /// `norm_delta/norm_w0`.
        pub norm_ratio: Option<f64>,
        /// `‖ΔW‖_F²/σ₁²`.
        pub stable_rank: Option<f64>,
        /// `exp` of the entropy of the shares of `‖ΔW‖_F²`.
        pub entropy_rank: Option<f64>,
        /// The fewest directions with 90 % of `‖ΔW‖_F²`.
        pub rank_90: Option<usize>,
        /// The fewest directions with 99 % of it.
        pub rank_99: Option<usize>,
        /// The share of the first direction.
        pub energy_first: Option<f64>,
        /// `⟨ΔW, W0⟩/(‖ΔW‖_F·‖W0‖_F)`.
        pub cosine: Option<f64>,
        /// The cosine in its exact standard deviations under random signs in the singular basis of W0.
        pub cosine_z: Option<f64>,
        /// `zero` where there is no update.
        pub status: Status,
    }
}

row! {
    /// One row of `relation.csv`: what an update sees of W0 (Hu et al. 2022, section 7.3).
    pub struct RelationRow in "relation" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// The layer's index in the tensor names, or [`RelationRow::ALL`]; empty for a module outside any repeated container.
        pub layer: String,
        /// How many leading singular vectors of ΔW.
        pub k: usize,
        /// `‖UᵀW0V‖_F` for those of ΔW.
        pub projected_delta: Option<f64>,
        /// The same for those of W0.
        pub projected_w0: Option<f64>,
        /// For random ones: the root of the mean square.
        pub projected_random: Option<f64>,
        /// Standard deviation of draws of random ones.
        pub random_sd: Option<f64>,
        /// Share of these draws (with the observation) that are at least `projected_delta`.
        pub p: Option<f64>,
        /// `projected_delta/projected_random`.
        pub times_random: Option<f64>,
        /// `‖ΔW‖_F/projected_delta`.
        pub amplification: Option<f64>,
        /// `‖ΔW‖_F/projected_random`.
        pub amplification_random: Option<f64>,
        /// Root of the mean square where each direction keeps its energy in the spectrum of W0 and signs are random.
        pub projected_profile: Option<f64>,
        /// `(projected_delta/projected_profile)²`: whether inputs and outputs go together as W0 pairs them.
        pub pairing: Option<f64>,
        /// Standard deviation of the pairing under random signs.
        pub flip_sd: Option<f64>,
        /// p of the pairing against random signs.
        pub flip_p: Option<f64>,
        /// `zero` where there is no update, `rank` where it has fewer directions.
        pub status: Status,
    }
}

impl RelationRow {
    /// What replaces a layer's index in the row of all layers together.
    pub const ALL: &str = "all";
}

row! {
    /// One row of `alignment.csv`: where the inputs or outputs of an update lie in the spectrum of W0.
    pub struct AlignmentRow in "alignment" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// `right` for inputs, `left` for outputs.
        pub side: Side,
        /// How many leading singular vectors of ΔW.
        pub k: usize,
        /// `‖W0·V‖_F²` (inputs) or `‖W0ᵀ·U‖_F²` (outputs) relative to that of a random direction.
        pub gain: Option<f64>,
        /// Its standard deviation for random directions.
        pub gain_sd: Option<f64>,
        /// Share of random draws (with the observation) that are at least `gain`.
        pub p: Option<f64>,
        /// Share of the energy in the first eighth of W0's singular directions, which are the largest.
        pub eighth_1: Option<f64>,
        /// In the second.
        pub eighth_2: Option<f64>,
        /// In the third.
        pub eighth_3: Option<f64>,
        /// In the fourth.
        pub eighth_4: Option<f64>,
        /// In the fifth.
        pub eighth_5: Option<f64>,
        /// In the sixth.
        pub eighth_6: Option<f64>,
        /// In the seventh.
        pub eighth_7: Option<f64>,
        /// In the last, which are the smallest.
        pub eighth_8: Option<f64>,
        /// `zero` where there is no update, `rank` where it has fewer directions.
        pub status: Status,
    }
}

row! {
    /// One row of `intruders.csv`: a leading singular vector of W0 + ΔW, and the vectors of W0 that are most like it (Shuttleworth et al. 2024).
    pub struct IntruderRow in "intruders" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// 1-based index, largest singular value first.
        pub j: usize,
        /// The singular value.
        pub sigma: f64,
        /// The largest |cosine| of its left vector with any of W0's.
        pub cos_left: f64,
        /// 1-based index of that one.
        pub index_left: usize,
        /// The largest |cosine| of its right vector.
        pub cos_right: f64,
        /// 1-based index of that one.
        pub index_right: usize,
    }
}

row! {
    /// One row of `intruder_counts.csv`: how many leading singular vectors of W0 + ΔW are like none of W0's.
    pub struct IntruderCountRow in "intruder_counts" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// How many leading vectors are looked at.
        pub top: usize,
        /// A vector whose largest |cosine| is below this intrudes.
        pub epsilon: f64,
        /// How many do.
        pub intruders: usize,
        /// Mean over updates with the same singular values and random vectors.
        pub random_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub random_sd: Option<f64>,
        /// Share of these (with the observation) with at least as many.
        pub p_more: Option<f64>,
        /// Share of these with at most as many.
        pub p_fewer: Option<f64>,
    }
}
