//! One shared Θ for each module of a trained LoRA: is it what the paper's hypothesis says, and is it more than random factors would give?
//!
//! [`FitParams`] → [`FitParams::check`] → [`prepare_fit`] → [`PreparedFit::run`] → [`Fit`]: the rows of `fit.csv` and the CondLoRA checkpoint. `direct` fits A and B
//! as they are stored; `delta` fits the updates, which know no basis. Nothing is written or printed here.

mod checkpoint;
mod delta;
mod direct;
mod fitted;
mod half_step;
mod layers;
mod memory;
mod module;
mod opening;
mod params;
mod score;
mod starts;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::error::{Error, Result, field};
use crate::inputs::{Progress, default_limit, show_bytes};
use crate::record::{AdapterRecord, InputRecord};
pub use fitted::{Fit, FittedModule};
use memory::bytes_for;
use module::fit_module;
use opening::Opened;
pub use params::{FitConfig, FitParams};

/// Opened and checked inputs: everything that can be refused without computing has been checked.
pub struct PreparedFit {
    config: FitConfig,
    opened: Opened,
    /// Modules fitted at the same time.
    together: usize,
}

/// Opens an adapter and its base model, reading headers only.
///
/// # Errors
/// Whatever is wrong with the inputs; [`Error::Resource`] if memory cannot suffice.
pub fn prepare_fit(config: FitConfig) -> Result<PreparedFit> {
    let opened = Opened::open(&config)?;
    let largest = opened.modules.iter().map(|module| bytes_for(module, &config)).max().unwrap_or(0);
    let limit = default_limit(rayon::current_num_threads()).unwrap_or(u64::MAX);
    if largest > limit {
        let mut hint = format!("fit fewer layers with {}", field("layers"));
        if config.given.delta {
            hint += &format!(", or without {}", field("delta"));
        }
        return Err(Error::Resource {
            what: "the fit needs more memory than there is".into(),
            expected: format!("at most {}", show_bytes(limit)),
            found: show_bytes(largest),
            hint: Some(hint),
        });
    }
    let together = usize::try_from(limit / largest.max(1)).unwrap_or(usize::MAX).clamp(1, rayon::current_num_threads());
    Ok(PreparedFit { config, opened, together })
}

impl PreparedFit {
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

    /// Warnings that are known before the computation.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.opened.warnings
    }

    /// Modules that were skipped, by name, and why.
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
    /// [`Error::Numerical`] for NaN or Inf in a weight, [`Error::Missing`] if an input changes during the run.
    pub fn run(&self) -> Result<Fit> {
        self.run_with(&())
    }

    /// Like [`Self::run`]; `progress` is told of every fit, with `delta` including those of the draws.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub fn run_with(&self, progress: &dyn Progress) -> Result<Fit> {
        let started = Instant::now();
        let given = &self.config.given;
        let searches = if given.delta { given.null_draws + 1 } else { 0 };
        progress.begin(self.opened.modules.len() * (1 + searches));
        let mut done = Vec::with_capacity(self.opened.modules.len());
        for part in self.opened.modules.chunks(self.together) {
            let fitted: Result<Vec<_>> =
                part.par_iter().map(|module| fit_module(given, &self.opened, module, progress)).collect();
            done.extend(fitted?);
        }
        let mut fit = Fit {
            rows: Vec::new(),
            modules: Vec::new(),
            inputs: self.header_records(),
            warnings: Vec::new(),
            took: Duration::ZERO,
            dtype: given.dtype,
            adapter: Arc::clone(&self.opened.adapter),
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
