//! What a comparison is asked to do.

use std::path::PathBuf;

use crate::checkpoint::NameMap;
use crate::error::Result;
use crate::inputs::{Selection, check_ij};

/// The options of a comparison as they were given.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CompareParams {
    /// The directory of one adapter.
    #[serde(serialize_with = "crate::terms::path")]
    pub left: PathBuf,
    /// The directory of the other.
    #[serde(serialize_with = "crate::terms::path")]
    pub right: PathBuf,
    /// The base model, if given.
    #[serde(serialize_with = "crate::terms::path_if_any")]
    pub base: Option<PathBuf>,
    /// Renamings of module paths, where an adapter and the base use different names.
    #[serde(rename = "map")]
    pub maps: Vec<NameMap>,
    /// Names of the modules wanted; empty for all.
    pub modules: Vec<String>,
    /// Layer indices and inclusive ranges (`0..5,8`), if given.
    pub layers: Option<String>,
    /// The (i, j) wanted; empty for the smaller rank.
    pub ij: Vec<(usize, usize)>,
    /// How often the control is drawn.
    pub null_draws: usize,
    /// Its seed.
    pub seed: u64,
    /// Take the Θ_B of CondLoRA checkpoints for the one of Eq. 6 as printed.
    pub eq6: bool,
}

impl CompareParams {
    /// The defaults for two adapters: all modules and layers, 20 draws.
    #[must_use]
    pub fn new(left: impl Into<PathBuf>, right: impl Into<PathBuf>) -> Self {
        Self {
            left: left.into(),
            right: right.into(),
            base: None,
            maps: Vec::new(),
            modules: Vec::new(),
            layers: None,
            ij: Vec::new(),
            null_draws: 20,
            seed: 0,
            eq6: false,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for a value outside its range.
    pub fn check(mut self) -> Result<CompareConfig> {
        check_ij(&mut self.ij)?;
        let selection = Selection::of(&self.modules, self.layers.as_deref())?;
        Ok(CompareConfig { given: self, selection })
    }
}

/// Valid options.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    pub(super) given: CompareParams,
    pub(super) selection: Selection,
}

impl CompareConfig {
    /// The options that were checked.
    #[must_use]
    pub fn params(&self) -> &CompareParams {
        &self.given
    }
}
