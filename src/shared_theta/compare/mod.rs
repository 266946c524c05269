//! Two adapters of one base, LoRA or CondLoRA on either side: φ between their A, B and ΔW in each layer (Kim et al. 2024, Table 3).
//!
//! A is compared by its right singular vectors, B and ΔW by their left ones; ΔW = s·B·A is never formed. Where a side is a CondLoRA, the
//! `w0` control asks what φ would be if its Θ had not been trained: the same with a Gaussian Θ on that side.

mod layer;
mod matching;
mod rows;
mod vectors;

use std::path::PathBuf;

use rayon::prelude::*;

use super::opening::{OpenedAdapter, open_base};
use crate::checkpoint::{Adapter, BaseModel, InputRecord, NameMap, PairingRules, adapter_names};
use crate::error::{Error, Result};
use crate::study::{LayerSet, Progress, check_ij};
use crate::table::{CompareAverageRow, CompareRow};
use layer::compare_layer;
use matching::{ModulePair, match_modules};

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
    /// Renamings of module paths, where an adapter and the base name them otherwise.
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
    /// Two adapters and PEFT-like defaults for the rest: all layers, 20 draws.
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
    /// [`Error::Usage`] for a value outside its range.
    pub fn check(mut self) -> Result<CompareConfig> {
        check_ij(&mut self.ij)?;
        let layers = self.layers.as_deref().map(LayerSet::parse).transpose()?;
        Ok(CompareConfig { given: self, layers })
    }
}

/// Valid options.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    given: CompareParams,
    layers: Option<LayerSet>,
}

impl CompareConfig {
    /// The options behind it.
    #[must_use]
    pub fn params(&self) -> &CompareParams {
        &self.given
    }
}

/// Opened and matched adapters: everything that can be refused without computing has been.
pub struct PreparedComparison<'a> {
    config: &'a CompareConfig,
    base: BaseModel,
    sides: [OpenedAdapter; 2],
    modules: Vec<ModulePair>,
    warnings: Vec<String>,
}

/// What a comparison found.
#[derive(Debug)]
pub struct Comparison {
    /// The rows of `compare.csv`.
    pub rows: Vec<CompareRow>,
    /// Averages over layers.
    pub averages: Vec<CompareAverageRow>,
    /// Every header and tensor that was read, with its hash.
    pub inputs: Vec<InputRecord>,
    /// The base model's name.
    pub base_name: String,
}

/// Opens both adapters and finds the layers that they share; no tensor is read.
///
/// # Errors
/// Whatever is wrong with the inputs (exit codes 2 to 5): among others, that they have no layer in common.
pub fn prepare_comparison(config: &CompareConfig) -> Result<PreparedComparison<'_>> {
    let given = &config.given;
    let dirs = [given.left.clone(), given.right.clone()];
    let mut adapters: Vec<Adapter> =
        dirs.iter().zip(adapter_names(&dirs)?).map(|(dir, name)| Adapter::open(dir, name)).collect::<Result<_>>()?;
    let base = open_base(given.base.as_deref(), &adapters.iter().collect::<Vec<_>>())?;
    for adapter in &mut adapters {
        adapter.lay_out(&base, given.eq6)?;
    }
    let rules = PairingRules { maps: given.maps.clone(), split: None };
    let layers = adapters.iter().flat_map(|adapter| &adapter.modules).flat_map(|module| &module.layers);
    rules.refuse_unused(layers.map(|layer| layer.key.path.as_str()))?;
    let mut opened = adapters.into_iter().map(|adapter| OpenedAdapter::pair(adapter, &base, &rules));
    let (Some(left), Some(right)) = (opened.next(), opened.next()) else {
        return Err(Error::usage("no two adapters given"));
    };
    let sides = [left?, right?];
    let mut warnings: Vec<String> = Vec::new();
    for warning in sides.iter().flat_map(|side| side.warnings(&base)) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let modules = match_modules(config, &sides, &mut warnings)?;
    Ok(PreparedComparison { config, base, sides, modules, warnings })
}

impl PreparedComparison<'_> {
    /// The directories that it reads from: nothing may be written over them.
    #[must_use]
    pub fn input_dirs(&self) -> Vec<PathBuf> {
        let adapters = self.sides.iter().map(|side| side.adapter.dir.clone());
        std::iter::once(self.base.path().to_owned()).chain(adapters).collect()
    }

    /// What the user should know, known before the computation.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Reads and compares, on the rayon pool it is called in.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf in a weight, [`Error::Missing`] if an input changes meanwhile.
    pub fn run(self, progress: &dyn Progress) -> Result<Comparison> {
        let jobs: Vec<_> = self.modules.iter().flat_map(|module| module.layers.iter().map(move |pair| (module, pair))).collect();
        progress.begin(jobs.len());
        let compared: Result<Vec<_>> = jobs
            .par_iter()
            .with_max_len(1)
            .map(|(module, pair)| {
                let compared = compare_layer(self.config, &self.base, &self.sides, module, pair);
                progress.step();
                compared
            })
            .collect();
        let mut inputs = self.base.header_records();
        inputs.extend(self.sides.iter().map(|side| side.adapter.header_record()));
        let mut compared = compared?;
        for layer in &mut compared {
            inputs.append(&mut layer.inputs);
        }
        inputs.sort();
        inputs.dedup();
        let names = [&self.sides[0].adapter.name, &self.sides[1].adapter.name].map(String::as_str);
        let (mut rows, mut averages) = (Vec::new(), Vec::new());
        let mut rest = compared.as_slice();
        for module in &self.modules {
            let (layers, after) = rest.split_at(module.layers.len());
            rows.extend(rows::layer_rows(names, module, layers));
            averages.extend(rows::average_rows(names, module, layers));
            rest = after;
        }
        Ok(Comparison { rows, averages, inputs, base_name: self.base.display_name().to_owned() })
    }
}
