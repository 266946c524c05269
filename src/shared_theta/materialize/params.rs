//! The options for making a LoRA adapter of a CondLoRA.

use std::path::PathBuf;

use crate::checkpoint::FloatType;
use crate::error::Result;

/// The options as they were given.
#[derive(Debug, Clone, serde::Serialize)]
pub struct MaterializeParams {
    /// The directory of the CondLoRA.
    #[serde(serialize_with = "crate::terms::path")]
    pub condlora: PathBuf,
    /// The base model, if given.
    #[serde(serialize_with = "crate::terms::path_if_any")]
    pub base: Option<PathBuf>,
    /// The type A and B are stored in.
    pub dtype: FloatType,
    /// Take Θ_B for the one of Eq. 6 as printed.
    pub eq6: bool,
}

impl MaterializeParams {
    /// A CondLoRA, and for the rest: the base model that it names, and A and B in F32.
    #[must_use]
    pub fn new(condlora: impl Into<PathBuf>) -> Self {
        Self { condlora: condlora.into(), base: None, dtype: FloatType::F32, eq6: false }
    }

    /// Checks the options, of which none can be wrong by itself.
    ///
    /// # Errors
    /// None so far.
    pub fn check(self) -> Result<MaterializeConfig> {
        Ok(MaterializeConfig { given: self })
    }
}

/// Valid options.
#[derive(Debug, Clone)]
pub struct MaterializeConfig {
    pub(super) given: MaterializeParams,
}

impl MaterializeConfig {
    /// The options behind it.
    #[must_use]
    pub fn params(&self) -> &MaterializeParams {
        &self.given
    }
}
