//! One shared Θ for each module of a trained LoRA: is it what the paper's hypothesis says, and is it more than factors would give that share nothing?
//!
//! [`FitParams`] → [`FitParams::check`] → [`prepare_fit`] → [`PreparedFit::run`] → [`Fit`]: the rows of `fit.csv` and `heldout.csv`, and the CondLoRA checkpoint.
//! `direct` fits A and B as they are stored; `delta` fits the updates, which know no basis; `flip` is the strict control of both; `held_out` tries the Θ of
//! all other layers on each layer. Nothing is written or printed here.

mod checkpoint;
mod delta;
mod direct;
mod fitted;
mod flip;
mod half_step;
mod held_out;
mod layers;
mod leave_one_out;
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

use crate::controls::DrawPlan;
use crate::error::{Error, Result, escape, field};
use crate::inputs::{Progress, default_limit, show_bytes};
use crate::linalg::weight_basis::WeightBasis;
use crate::record::{AdapterRecord, InputRecord};
use crate::terms::{NullDraws, StrictControl};
pub use fitted::{Fit, FittedModule};
use memory::bytes_for;
use module::{fit_module, steps_of};
use opening::{Fittable, Opened};
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
    let threads = rayon::current_num_threads();
    let largest = opened.modules.iter().map(|module| bytes_for(module, &config, threads)).max().unwrap_or(0);
    let limit = default_limit(threads).unwrap_or(u64::MAX);
    if largest > limit {
        let mut hint = format!("fit fewer layers with {}", field("layers"));
        for (asked, option) in [(config.given.delta, "delta"), (config.given.held_out, "held_out")] {
            if asked {
                hint += &format!(", or without {}", field(option));
            }
        }
        if opened.modules.iter().any(|module| config.is_strict(module.shape())) {
            hint += ", or leave the strict control out";
        }
        return Err(Error::Resource {
            what: "the fit needs more memory than there is".into(),
            expected: format!("at most {}", show_bytes(limit)),
            found: show_bytes(largest),
            hint: Some(hint),
        });
    }
    let together = usize::try_from(limit / largest.max(1)).unwrap_or(usize::MAX).clamp(1, threads);
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
    pub fn warnings(&self) -> Vec<String> {
        let of_inputs = self.opened.warnings.iter().cloned();
        of_inputs.chain(self.without_strict_control()).collect()
    }

    /// Which modules are without the strict control that could have it, and about how long it would take; also one of the warnings.
    #[must_use]
    pub fn without_strict_control(&self) -> Option<String> {
        let given = &self.config.given;
        if given.strict_control == StrictControl::Never || given.null_draws == NullDraws::Fixed(0) {
            // Where none was wanted, nothing is missing.
            return None;
        }
        let left_out: Vec<&Fittable> =
            self.opened.modules.iter().filter(|module| !self.config.is_strict(module.shape())).collect();
        let names: Vec<String> = left_out.iter().map(|module| format!("`{}`", escape(&module.name))).collect();
        let seconds = |module: &&Fittable| {
            let (d_out, d_in) = module.shape();
            module.layers.len() as f64 * WeightBasis::seconds_for(d_out, d_in)
        };
        let minutes = (left_out.iter().map(seconds).sum::<f64>() / 60.0).ceil();
        (!names.is_empty()).then(|| {
            format!(
                "the strict control is missing for {}: W0 was not decomposed; {} asks for it, which takes about {minutes} min on one core",
                names.join(", "),
                field("strict_control")
            )
        })
    }

    /// The most draws that a test has.
    #[must_use]
    pub fn most_draws(&self) -> usize {
        self.plan().most
    }

    fn plan(&self) -> DrawPlan {
        self.config.plan(self.opened.modules.len())
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

    /// Like [`Self::run`]; `progress` is told of every fit, with `delta` including those of the draws, and of every map that a layer is predicted by.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub fn run_with(&self, progress: &dyn Progress) -> Result<Fit> {
        let started = Instant::now();
        let given = &self.config.given;
        let steps = self.opened.modules.iter().map(|module| steps_of(&self.config, self.plan(), module));
        progress.begin(steps.sum());
        let mut done = Vec::with_capacity(self.opened.modules.len());
        for part in self.opened.modules.chunks(self.together) {
            let fitted: Result<Vec<_>> =
                part.par_iter().map(|module| fit_module(&self.config, self.plan(), &self.opened, module, progress)).collect();
            done.extend(fitted?);
        }
        let mut fit = Fit {
            rows: Vec::new(),
            held_out: given.held_out.then(Vec::new),
            modules: Vec::new(),
            inputs: self.header_records(),
            warnings: Vec::new(),
            took: Duration::ZERO,
            dtype: given.dtype,
            adapter: Arc::clone(&self.opened.adapter),
        };
        for fitted in done {
            fit.rows.extend(fitted.rows);
            if let Some(rows) = &mut fit.held_out {
                rows.extend(fitted.held_out);
            }
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
