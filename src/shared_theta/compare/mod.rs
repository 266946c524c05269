//! Two adapters of one base, LoRA or CondLoRA on either side: φ between their A, B and ΔW in each layer (Kim et al. 2024, Table 3).
//!
//! A is compared by its right singular vectors, B and ΔW by their left ones; ΔW = s·B·A is never formed. Where a side is a CondLoRA, the
//! `w0` control asks what φ would be if its Θ had not been trained: the same with a Gaussian Θ on that side.

mod layer;
mod matching;
mod params;
mod rows;
mod vectors;

use std::path::PathBuf;

use rayon::prelude::*;

use crate::checkpoint::{Adapter, BaseModel, PairingRules, adapter_names};
use crate::error::{Error, Result, field, show_path};
use crate::inputs::{OpenedAdapter, Opener, Progress, by_module, module_paths};
use crate::record::InputRecord;
use crate::table::{CompareAverageRow, CompareRow};
use layer::compare_layer;
use matching::{ModulePair, match_modules};
pub use params::{CompareConfig, CompareParams};

/// Opened and matched adapters: everything that can be refused without computing has been checked.
pub struct PreparedComparison {
    config: CompareConfig,
    base: BaseModel,
    sides: [OpenedAdapter; 2],
    modules: Vec<ModulePair>,
    warnings: Vec<String>,
    skipped: Vec<(String, Error)>,
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
/// Whatever is wrong with the inputs (exit codes 2 to 5): for example, that they have no layer in common.
pub fn prepare_comparison(config: CompareConfig) -> Result<PreparedComparison> {
    let given = &config.given;
    let dirs = [given.left.clone(), given.right.clone()];
    let names = adapter_names(&dirs)?;
    let adapters: Vec<Adapter> = dirs.iter().zip(names).map(|(dir, name)| Adapter::open(dir, name)).collect::<Result<_>>()?;
    let rules = PairingRules { maps: given.maps.clone(), split: None };
    let mut opener = Opener::new(given.base.as_deref(), rules, given.eq6);
    refuse_two_bases(&opener, &adapters)?;
    let laid_out: Vec<_> = adapters.into_iter().map(|adapter| opener.lay_out(adapter)).collect::<Result<_>>()?;
    opener.refuse_unused_maps(laid_out.iter().flat_map(|laid_out| module_paths(&laid_out.adapter)))?;
    let sides: Vec<OpenedAdapter> = laid_out.into_iter().map(|laid_out| opener.pair(laid_out)).collect::<Result<_>>()?;
    let sides: [OpenedAdapter; 2] = sides.try_into().unwrap_or_else(|_| unreachable!("each of two directories gives an adapter"));
    let base = opener.into_only_base();
    let mut warnings: Vec<String> = Vec::new();
    for warning in sides.iter().flat_map(OpenedAdapter::named_warnings) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let modules = match_modules(&config, &sides, &mut warnings)?;
    let of_side = |side: &OpenedAdapter| {
        let name = side.adapter.name.clone();
        let wanted = side.unusable.iter().filter(|layer| config.selection.wants(&layer.module, layer.layer.as_ref()));
        by_module(wanted).into_iter().map(move |(_, module, error)| (format!("{name}: module `{module}`"), error))
    };
    let skipped: Vec<(String, Error)> = sides.iter().flat_map(of_side).collect();
    Ok(PreparedComparison { config, base, sides, modules, warnings, skipped })
}

/// Checks that both have one base model: W0 of a layer is read once and serves both sides.
fn refuse_two_bases(opener: &Opener, adapters: &[Adapter]) -> Result<()> {
    let mut common: Option<(PathBuf, PathBuf)> = None;
    for adapter in adapters {
        let path = opener.find_base(adapter)?;
        let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        match &common {
            None => common = Some((path, real)),
            Some((first, known)) if *known != real => {
                let error = Error::mismatch(&adapter.config.path, "base model", show_path(first), show_path(&path));
                let hint = format!("two adapters are compared through one base model: give it with {}", field("base"));
                return Err(error.with_hint(hint));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

impl PreparedComparison {
    /// The directories that it reads from: nothing may be written over them.
    #[must_use]
    pub fn input_dirs(&self) -> Vec<PathBuf> {
        let adapters = self.sides.iter().map(|side| side.adapter.dir.clone());
        std::iter::once(self.base.path().to_owned()).chain(adapters).collect()
    }

    /// Modules of an adapter that cannot be used, and why.
    #[must_use]
    pub fn skipped(&self) -> &[(String, Error)] {
        &self.skipped
    }

    /// Warnings that are known before the computation.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Reads and compares, on the rayon pool it is called in.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf in a weight, [`Error::Missing`] if an input changes during the run.
    pub fn run(self) -> Result<Comparison> {
        self.run_with(&())
    }

    /// Like [`Self::run`]; `progress` is told of every layer.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub fn run_with(self, progress: &dyn Progress) -> Result<Comparison> {
        let layers: Vec<_> =
            self.modules.iter().flat_map(|module| module.layers.iter().map(move |pair| (module, pair))).collect();
        progress.begin(layers.len());
        let compared: Result<Vec<_>> = layers
            .par_iter()
            .with_max_len(1)
            .map(|(module, pair)| {
                let compared = compare_layer(&self.config, &self.base, &self.sides, module, pair);
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
