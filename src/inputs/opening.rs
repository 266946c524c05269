//! What every command on CondLoRA begins with: adapters given by their own directories, their base model, and their layers there.

use std::path::{Path, PathBuf};

use crate::checkpoint::{Adapter, BaseModel, PairedModule, PairingRules, base_name_warning, find_base, pair_with_base};
use crate::error::{Error, Result, escape, show_path};

/// An adapter with the base weights of all its layers.
pub(super) struct OpenedAdapter {
    pub(super) adapter: Adapter,
    pub(super) modules: Vec<PairedModule>,
}

impl OpenedAdapter {
    /// Finds the base weights of an adapter that has been laid out over its base.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the two do not fit.
    pub(super) fn pair(adapter: Adapter, base: &BaseModel, rules: &PairingRules) -> Result<Self> {
        let modules = pair_with_base(&adapter, base, rules)?;
        Ok(Self { adapter, modules })
    }

    /// What the user should know of it.
    pub(super) fn warnings(&self, base: &BaseModel) -> Vec<String> {
        let named = base_name_warning(&self.adapter, base);
        self.adapter.warnings.iter().chain(&named).map(|text| format!("{}: {text}", escape(&self.adapter.name))).collect()
    }
}

/// Opens the base model given, or the one that all these adapters name.
///
/// # Errors
/// [`Error::Missing`] if there is none, [`Error::Mismatch`] if the adapters are of different ones.
pub(super) fn open_base(given: Option<&Path>, adapters: &[&Adapter]) -> Result<BaseModel> {
    let mut common: Option<(PathBuf, PathBuf)> = None;
    for adapter in adapters {
        let path = find_base(given, &adapter.dir, &adapter.config)?;
        let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        match &common {
            None => common = Some((path, real)),
            Some((first, known)) if *known != real => {
                let error = Error::mismatch(&adapter.config.path, "base model", show_path(first), show_path(&path));
                return Err(error.with_hint("two adapters are compared through one base model: give it with --base"));
            }
            Some(_) => {}
        }
    }
    let (path, _) = common.ok_or_else(|| Error::usage("no adapter given"))?;
    BaseModel::open(&path)
}
