//! Adapters opened over their base models, each base once.
//!
//! The steps are separate because commands check between them: options that fit no adapter are refused when all adapters are opened and
//! before the first is paired. Only headers are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::{
    Adapter, BaseModel, PairedModule, Pairing, PairingRules, UnusableLayer, base_name_warning, find_base, pair_with_base,
};
use crate::error::{Error, Result, escape};

/// Opens base models, and adapters over them, according to a command's options.
pub(crate) struct Opener {
    /// The base model given; none for the one that each adapter names.
    given: Option<PathBuf>,
    rules: PairingRules,
    /// Whether a CondLoRA's Θ_B is the one of Eq. 6 as printed.
    eq6: bool,
    bases: Vec<BaseModel>,
    /// The base models by real path, so that two names of one directory are one base. A base that cannot be opened is tried only once.
    known: BTreeMap<PathBuf, Result<usize>>,
}

/// An adapter whose layers are known, and the number of its base.
pub(crate) struct LaidOut {
    pub(crate) adapter: Adapter,
    pub(crate) base: usize,
}

/// An adapter with the base weights of all its layers.
pub(crate) struct OpenedAdapter {
    pub(crate) adapter: Adapter,
    /// The number of its base.
    pub(crate) base: usize,
    pub(crate) modules: Vec<PairedModule>,
    /// Its warnings.
    pub(crate) warnings: Vec<String>,
    /// Layers that cannot be used.
    pub(crate) unusable: Vec<UnusableLayer>,
}

impl Opener {
    pub(crate) fn new(base: Option<&Path>, rules: PairingRules, eq6: bool) -> Self {
        Self { given: base.map(Path::to_owned), rules, eq6, bases: Vec::new(), known: BTreeMap::new() }
    }

    /// Finds the base model of an adapter.
    ///
    /// # Errors
    /// Those of [`find_base`].
    pub(crate) fn find_base(&self, adapter: &Adapter) -> Result<PathBuf> {
        find_base(self.given.as_deref(), &adapter.dir, &adapter.config)
    }

    /// Opens a base model unless it is open already, and gives its number.
    ///
    /// # Errors
    /// Those of [`BaseModel::open`].
    pub(crate) fn open_base(&mut self, path: &Path) -> Result<usize> {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let bases = &mut self.bases;
        let open = || {
            bases.push(BaseModel::open(path)?);
            Ok(bases.len() - 1)
        };
        self.known.entry(real).or_insert_with(open).clone()
    }

    /// Adds to a base the frozen weights that an adapter brings along.
    ///
    /// # Errors
    /// Those of [`BaseModel::add_own_weights`].
    pub(crate) fn add_own_weights(&mut self, adapter: &Adapter, base: usize) -> Result<()> {
        self.bases[base].add_own_weights(&adapter.name, adapter.weights())
    }

    /// Lays an adapter out over a base, which for some kinds of adapter determines what layers there are.
    ///
    /// # Errors
    /// Those of [`Adapter::lay_out`].
    pub(crate) fn lay_out_over(&self, adapter: &mut Adapter, base: usize) -> Result<()> {
        adapter.lay_out(&self.bases[base], self.eq6)
    }

    /// The modules of an adapter that has been laid out, each layer with its base weight.
    ///
    /// # Errors
    /// [`crate::Error::Mismatch`] where the two do not fit.
    pub(crate) fn paired_modules(&self, adapter: &Adapter, base: usize) -> Result<Pairing> {
        pair_with_base(adapter, &self.bases[base], &self.rules)
    }

    /// Opens the base model of an adapter, and lays the adapter out over it.
    ///
    /// # Errors
    /// Those of the two steps.
    pub(crate) fn lay_out(&mut self, mut adapter: Adapter) -> Result<LaidOut> {
        let base = self.open_base(&self.find_base(&adapter)?)?;
        self.add_own_weights(&adapter, base)?;
        self.lay_out_over(&mut adapter, base)?;
        Ok(LaidOut { adapter, base })
    }

    /// Finds the base weight of each of an adapter's layers.
    ///
    /// # Errors
    /// Those of [`Self::paired_modules`].
    pub(crate) fn pair(&self, LaidOut { adapter, base }: LaidOut) -> Result<OpenedAdapter> {
        let Pairing { modules, warnings, unusable } = self.paired_modules(&adapter, base)?;
        let of_adapter = adapter.warnings.iter().cloned().chain(base_name_warning(&adapter, &self.bases[base]));
        let warnings = of_adapter.chain(warnings).collect();
        Ok(OpenedAdapter { adapter, base, modules, warnings, unusable })
    }

    /// Opens the untrained adapter of a trained one, over the same base.
    ///
    /// # Errors
    /// Those of [`Adapter::open`] and [`Adapter::lay_out`].
    pub(crate) fn open_untrained(&self, dir: &Path, of: &OpenedAdapter) -> Result<Adapter> {
        let mut adapter = Adapter::open(dir, of.adapter.name.clone())?;
        self.lay_out_over(&mut adapter, of.base)?;
        Ok(adapter)
    }

    /// Refuses a renaming that applies to none of these module paths.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for the first that does not.
    pub(crate) fn refuse_unused_maps<'p>(&self, paths: impl Iterator<Item = &'p str> + Clone) -> Result<()> {
        self.rules.refuse_unused(paths)
    }

    pub(crate) fn base(&self, number: usize) -> &BaseModel {
        &self.bases[number]
    }

    /// The base models opened, by number.
    pub(crate) fn into_bases(self) -> Vec<BaseModel> {
        self.bases
    }

    /// The only base model that was opened.
    pub(crate) fn into_only_base(self) -> BaseModel {
        let mut bases = self.bases;
        assert!(bases.len() == 1, "one adapter or several of one base were opened, not adapters of {} bases", bases.len());
        bases.remove(0)
    }
}

/// Layers that cannot be used, by module: how many there are, its name, and the first reason.
pub(crate) fn by_module<'u>(unusable: impl IntoIterator<Item = &'u UnusableLayer>) -> Vec<(usize, String, Error)> {
    let mut modules: BTreeMap<&str, (usize, &Error)> = BTreeMap::new();
    for layer in unusable {
        modules.entry(&layer.module).or_insert((0, &layer.error)).0 += 1;
    }
    modules.into_iter().map(|(name, (count, error))| (count, name.to_owned(), error.clone())).collect()
}

impl OpenedAdapter {
    /// Its warnings, each preceded by its name.
    pub(crate) fn named_warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().map(|text| format!("{}: {text}", escape(&self.adapter.name)))
    }
}

/// The paths of all adapted modules.
pub(crate) fn module_paths(adapter: &Adapter) -> impl Iterator<Item = &str> + Clone {
    adapter.modules.iter().flat_map(|module| &module.layers).map(|layer| layer.key.path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_of_one_base_open_it_once() {
        let base = Path::new("notebooks-data/base/all-MiniLM-L6-v2-qv");
        let mut opener = Opener::new(Some(base), PairingRules::default(), false);
        for name in ["trec-seed0", "sst2-seed0"] {
            let dir = Path::new("notebooks-data/adapters").join(name);
            let laid_out = opener.lay_out(Adapter::open(&dir, name.into()).unwrap()).unwrap();
            assert_eq!((laid_out.base, module_paths(&laid_out.adapter).count()), (0, 12));
            let opened = opener.pair(laid_out).unwrap();
            assert!(opened.modules.iter().all(|module| module.layers.len() == 6));
        }
        // Another name of the same directory gives the same base.
        assert_eq!(opener.open_base(&base.join("../all-MiniLM-L6-v2-qv")).unwrap(), 0);
        assert_eq!(opener.into_only_base().display_name(), "all-MiniLM-L6-v2-qv");
    }

    #[test]
    fn a_base_that_cannot_be_opened_is_refused_each_time() {
        let mut opener = Opener::new(None, PairingRules::default(), false);
        for _ in 0..2 {
            assert_eq!(opener.open_base(Path::new("nowhere/at/all")).unwrap_err().exit_code(), 3);
        }
    }
}
