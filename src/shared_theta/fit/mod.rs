//! One shared Θ for each module of a trained LoRA: is it what the paper's hypothesis says, and is it more than random factors would give?
//!
//! [`FitParams`] → [`FitParams::check`] → [`prepare_fit`] → [`PreparedFit::run`] → [`Fit`]: the rows of `fit.csv` and the CondLoRA checkpoint. `direct` fits A and B
//! as they are stored; `delta` fits the updates, which know no basis. Nothing is written or printed here.

mod checkpoint;
mod delta;
mod direct;
mod half_step;
mod layers;
mod one_module;
mod opening;
mod score;
mod starts;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ndarray::Array2;
use rayon::prelude::*;

use crate::checkpoint::{FloatType, InputRecord, NameMap};
use crate::error::{Error, Result};
use crate::record::AdapterRecord;
use crate::study::{LayerSet, Progress, default_limit, show_bytes};
use crate::table::FitRow;
use crate::terms::Convention;
use opening::{Fittable, Opened};

/// What a fit is asked to do, as given.
#[derive(Debug, Clone)]
pub struct FitParams {
    /// The adapter's directory.
    pub adapter: PathBuf,
    /// The base model, if given.
    pub base: Option<PathBuf>,
    /// Renamings of parts of module paths, where adapter and base do not agree.
    pub maps: Vec<NameMap>,
    /// Fit the updates B·A in place of A and B.
    pub delta: bool,
    /// Names of the modules wanted; empty for all.
    pub modules: Vec<String>,
    /// Layer indices and inclusive ranges (`0..5,8`), if given.
    pub layers: Option<String>,
    /// The equations wanted; none to choose by shape.
    pub convention: Option<Convention>,
    /// How many times random targets are fitted too.
    pub null_draws: usize,
    /// The seed of these and of random starts.
    pub seed: u64,
    /// The type Θ is stored in.
    pub dtype: FloatType,
}

impl Default for FitParams {
    fn default() -> Self {
        Self {
            adapter: PathBuf::new(),
            base: None,
            maps: Vec::new(),
            delta: false,
            modules: Vec::new(),
            layers: None,
            convention: None,
            null_draws: 20,
            seed: 0,
            dtype: FloatType::F64,
        }
    }
}

/// Valid options.
#[derive(Debug, Clone)]
pub struct FitConfig {
    given: FitParams,
    layers: Option<LayerSet>,
}

impl FitParams {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Usage`] for layers that are no list of indices and ranges.
    pub fn check(self) -> Result<FitConfig> {
        let layers = self.layers.as_deref().map(LayerSet::parse).transpose()?;
        Ok(FitConfig { given: self, layers })
    }
}

/// Opened and checked inputs: everything that can be refused without computing has been.
pub struct PreparedFit<'a> {
    config: &'a FitConfig,
    opened: Opened,
    /// Modules fitted at the same time.
    together: usize,
}

/// Opens an adapter and its base model, reading headers only.
///
/// # Errors
/// Whatever is wrong with the inputs; [`Error::Resource`] if memory cannot suffice.
pub fn prepare_fit(config: &FitConfig) -> Result<PreparedFit<'_>> {
    let opened = Opened::open(&config.given, config.layers.as_ref())?;
    let largest = opened.modules.iter().map(|module| bytes_for(module, &config.given)).max().unwrap_or(0);
    let limit = default_limit(rayon::current_num_threads()).unwrap_or(u64::MAX);
    if largest > limit {
        let hint = if config.given.delta {
            "fit fewer layers with --layers, or without --delta"
        } else {
            "fit fewer layers with --layers"
        };
        return Err(Error::Resource {
            what: "the fit needs more memory than there is".into(),
            expected: format!("at most {}", show_bytes(limit)),
            found: show_bytes(largest),
            hint: Some(hint.into()),
        });
    }
    let together = usize::try_from(limit / largest.max(1)).unwrap_or(usize::MAX).clamp(1, rayon::current_num_threads());
    Ok(PreparedFit { config, opened, together })
}

/// What the fit of one module holds at the same time.
fn bytes_for(module: &Fittable, params: &FitParams) -> u64 {
    let Some(first) = module.first() else { return 0 };
    let (rows, rank, count) = (first.d_out.max(first.d_in) as u64, first.adapter_layer.rank as u64, module.layers.len() as u64);
    let square = rows * rows;
    // The triangle, its factors, two sums for the expectation and one Gram matrix; W0 as stored, widened, by columns, and its basis.
    let direct = 14 * square;
    let stacks = if module.convention == Convention::Paper { 1 } else { 2 };
    let sets = params.null_draws as u64 + 1;
    let delta = if params.delta { square * count * stacks + 2 * rows * rank * count * sets * 3 } else { 0 };
    8 * (direct + delta + 2 * rows * rank * (4 * sets + 2 * count))
}

/// A module's Θ, and how it does.
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
    layers: Vec<Option<u32>>,
    whole: bool,
}

/// What a fit found.
pub struct Fit<'a> {
    /// `fit.csv`.
    pub rows: Vec<FitRow>,
    /// Every module that was fitted.
    pub modules: Vec<FittedModule>,
    /// Every header and tensor that was read, with its hash.
    pub inputs: Vec<InputRecord>,
    /// What the user should know of the result.
    pub warnings: Vec<String>,
    /// Time on the clock.
    pub took: Duration,
    opened: &'a Opened,
    dtype: FloatType,
}

impl PreparedFit<'_> {
    /// The directories that are read from: nothing may be written over them.
    #[must_use]
    pub fn input_dirs(&self) -> Vec<PathBuf> {
        vec![self.opened.base.path().to_owned(), self.opened.adapter.dir.clone()]
    }

    /// The adapter's name.
    #[must_use]
    pub fn adapter_name(&self) -> &str {
        &self.opened.adapter.name
    }

    /// The adapter and its base model, for the record.
    #[must_use]
    pub fn analysed(&self) -> AdapterRecord {
        let Opened { adapter, base, .. } = &self.opened;
        AdapterRecord::new(&adapter.name, &adapter.dir, base.path(), base.display_name())
    }

    /// What the user should know before the computation.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.opened.warnings
    }

    /// Modules that were passed over, by name, and why.
    #[must_use]
    pub fn skipped(&self) -> &[(String, String)] {
        &self.opened.skipped
    }

    fn header_records(&self) -> Vec<InputRecord> {
        let mut records = self.opened.base.header_records();
        records.push(self.opened.adapter.header_record());
        records
    }

    /// Reads and fits, on the rayon pool it is called in.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf in a weight, [`Error::Missing`] if an input changes meanwhile.
    pub fn run(&self, progress: &dyn Progress) -> Result<Fit<'_>> {
        let started = Instant::now();
        let given = &self.config.given;
        let searches = if given.delta { given.null_draws + 1 } else { 0 };
        progress.begin(self.opened.modules.len() * (1 + searches));
        let mut done = Vec::with_capacity(self.opened.modules.len());
        for part in self.opened.modules.chunks(self.together) {
            let fitted: Result<Vec<_>> = part.par_iter().map(|module| self.fit_module(module, progress)).collect();
            done.extend(fitted?);
        }
        let mut fit = Fit {
            rows: Vec::new(),
            modules: Vec::new(),
            inputs: self.header_records(),
            warnings: Vec::new(),
            took: Duration::ZERO,
            opened: &self.opened,
            dtype: given.dtype,
        };
        for fitted in done {
            fit.rows.extend(fitted.rows);
            fit.inputs.extend(fitted.inputs);
            fit.warnings.extend(fitted.warning);
            fit.modules.push(fitted.module);
        }
        fit.inputs.sort();
        fit.inputs.dedup();
        fit.took = started.elapsed();
        Ok(fit)
    }
}
