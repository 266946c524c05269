//! What a fit is asked to do.

use std::path::PathBuf;

use crate::checkpoint::{FloatType, NameMap};
use crate::controls::DrawPlan;
use crate::error::Result;
use crate::inputs::Selection;
use crate::terms::{Convention, NullDraws, StrictControl};

/// What a fit is asked to do, as given.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FitParams {
    /// The adapter's directory.
    #[serde(serialize_with = "crate::terms::path")]
    pub adapter: PathBuf,
    /// The base model, if given.
    #[serde(serialize_with = "crate::terms::path_if_any")]
    pub base: Option<PathBuf>,
    /// Renamings of parts of module paths, where adapter and base do not agree.
    #[serde(rename = "map")]
    pub maps: Vec<NameMap>,
    /// Fit the updates B·A in place of A and B.
    pub delta: bool,
    /// Names of the modules wanted; empty for all.
    pub modules: Vec<String>,
    /// Layer indices and inclusive ranges (`0..5,8`), if given.
    pub layers: Option<String>,
    /// The equations wanted; none to choose by shape.
    #[serde(with = "crate::terms::or_auto")]
    pub convention: Option<Convention>,
    /// How often controls are drawn.
    pub null_draws: NullDraws,
    /// Whether base weights are decomposed for the strict control.
    pub strict_control: StrictControl,
    /// Try one Θ of all other layers on every layer too.
    pub held_out: bool,
    /// The seed of the random targets and the random starts.
    pub seed: u64,
    /// The type Θ is stored in.
    pub dtype: FloatType,
}

impl FitParams {
    /// The defaults for an adapter: all modules and layers, A and B as they are stored, no layer left out.
    #[must_use]
    pub fn new(adapter: impl Into<PathBuf>) -> Self {
        Self {
            adapter: adapter.into(),
            base: None,
            maps: Vec::new(),
            delta: false,
            modules: Vec::new(),
            layers: None,
            convention: None,
            null_draws: NullDraws::Auto,
            strict_control: StrictControl::Auto,
            held_out: false,
            seed: 0,
            dtype: FloatType::F64,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for layers that are no list of indices and ranges.
    pub fn check(self) -> Result<FitConfig> {
        let selection = Selection::of(&self.modules, self.layers.as_deref())?;
        Ok(FitConfig { given: self, selection })
    }
}

/// Valid options.
#[derive(Debug, Clone)]
pub struct FitConfig {
    pub(super) given: FitParams,
    pub(super) selection: Selection,
}

impl FitConfig {
    /// The options that were checked.
    #[must_use]
    pub fn params(&self) -> &FitParams {
        &self.given
    }

    /// The draws of a test among those of an adapter with this many modules: two each, one for A and one for B.
    pub(super) fn plan(&self, modules: usize) -> DrawPlan {
        self.given.null_draws.plan(2 * modules)
    }

    /// Whether the strict control is drawn for weights of this shape.
    pub(super) fn is_strict(&self, shape: (usize, usize)) -> bool {
        self.given.null_draws != NullDraws::Fixed(0) && self.given.strict_control.decomposes(shape)
    }
}
