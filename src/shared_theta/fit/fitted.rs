//! The result of a fit.

use std::sync::Arc;
use std::time::Duration;

use ndarray::Array2;

use crate::checkpoint::{Adapter, FloatType};
use crate::record::InputRecord;
use crate::table::{FitRow, HeldOutRow};
use crate::terms::{Convention, LayerId};

/// A module's Θ, and how well it fits.
#[derive(Debug, Clone)]
pub struct FittedModule {
    /// The module's name in the adapter.
    pub name: String,
    /// Its name in the checkpoint.
    pub key: String,
    /// The equations that make A and B of W0 and Θ.
    pub convention: Convention,
    /// Θ_A (in, r), or (out, r) in the `general` convention.
    pub theta_a: Array2<f64>,
    /// Θ_B (in, r).
    pub theta_b: Array2<f64>,
    /// The layers' scaling s.
    pub scaling: f64,
    /// Sweeps that the best search took (`--delta`).
    pub sweeps: Option<usize>,
    pub(super) layers: Vec<Option<LayerId>>,
    /// Whether its base weights are stored [in, out].
    pub(super) transposed: bool,
    /// Whether these are all layers that the base model has of it.
    pub(super) whole: bool,
}

/// What a fit found.
pub struct Fit {
    /// `fit.csv`.
    pub rows: Vec<FitRow>,
    /// `heldout.csv`, if it was asked for.
    pub held_out: Option<Vec<HeldOutRow>>,
    /// Every module that was fitted.
    pub modules: Vec<FittedModule>,
    /// Every header and tensor that was read, with its hash.
    pub inputs: Vec<InputRecord>,
    /// Warnings about the result.
    pub warnings: Vec<String>,
    /// Wall-clock time.
    pub took: Duration,
    pub(super) adapter: Arc<Adapter>,
    pub(super) dtype: FloatType,
}
