//! Results read back from their directory, to be drawn again: the tables as they were written, and the manifest that vouches for them.

use std::collections::BTreeSet;
use std::path::Path;

use super::checks::refuse_huge_squares;
use super::file::{read_table, read_tables};
use super::manifest::SavedManifest;
use crate::error::{Error, Result, field};
use crate::record::only_base_name;
use crate::table::any_table::Slot;
use crate::table::{CompareRow, FitRow, HeldOutRow, Tables};

/// What to do about a table that is not as it was written.
fn hint() -> String {
    let (modules, adapters) = (field("modules"), field("adapters"));
    format!("run the command that wrote it again; to leave something out of figures, use {modules} or {adapters}")
}

/// What `analyze`, `merge`, `compare` or `fit` left in a directory.
#[derive(Debug, Clone)]
pub struct SavedResults {
    /// The tables of `analyze` and `merge`; none if the directory has no such tables.
    pub study: Option<Tables>,
    /// `compare.csv`.
    pub compare: Option<Vec<CompareRow>>,
    /// `fit.csv`.
    pub fit: Option<Vec<FitRow>>,
    /// `heldout.csv`.
    pub held_out: Option<Vec<HeldOutRow>>,
    /// `manifest.json`.
    pub manifest: SavedManifest,
}

impl SavedResults {
    /// Reads every table that the manifest lists.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no manifest or no table, or one cannot be read; [`Error::Malformed`] for one that is not as it was
    /// written; [`Error::Resource`] for one whose heatmap would be far larger than it is.
    pub fn read(dir: &Path) -> Result<Self> {
        let manifest = SavedManifest::read(dir)?;
        let (mut tables, mut compare, mut fit) = (Tables::default(), None::<Vec<CompareRow>>, None::<Vec<FitRow>>);
        let mut held_out = None::<Vec<HeldOutRow>>;
        let found = read_tables(dir, manifest.outputs(), &mut tables).and_then(|found| {
            read_table(dir, manifest.outputs(), &mut compare)?;
            read_table(dir, manifest.outputs(), &mut fit)?;
            read_table(dir, manifest.outputs(), &mut held_out)?;
            Ok(found)
        });
        let study = found.map_err(|error| error.with_hint(hint()))?.then_some(tables);
        if study.is_none() && compare.is_none() && fit.is_none() && held_out.is_none() {
            return Err(Error::missing(dir, "holds no table of condlora; expected summary.csv, compare.csv or fit.csv"));
        }
        study.as_ref().map_or(Ok(()), |tables| refuse_huge_squares(dir, tables))?;
        Ok(Self { study, compare, fit, held_out, manifest })
    }

    /// The base model's name, where all adapters have the same.
    #[must_use]
    pub fn base_name(&self) -> Option<&str> {
        only_base_name(&self.manifest.adapters)
    }

    /// The adapter's name, where the results are of one.
    #[must_use]
    pub fn adapter(&self) -> Option<&str> {
        match &self.manifest.adapters[..] {
            [only] => Some(&only.name),
            _ => None,
        }
    }

    /// The names of all modules.
    #[must_use]
    pub fn modules(&self) -> BTreeSet<&str> {
        let study = self.study.iter().flat_map(|tables| {
            let across = tables.across.iter().flatten().map(|row| &row.module);
            tables.summary.iter().map(|row| &row.module).chain(across)
        });
        let compare = self.compare.iter().flatten().map(|row| &row.module);
        let fit = self.fit.iter().flatten().map(|row| &row.module);
        let held_out = self.held_out.iter().flatten().map(|row| &row.module);
        study.chain(compare).chain(fit).chain(held_out).map(String::as_str).collect()
    }

    /// The names of a study's adapters.
    #[must_use]
    pub fn adapters(&self) -> BTreeSet<&str> {
        self.study.iter().flat_map(|tables| tables.summary.iter().map(|row| row.adapter.as_str())).collect()
    }

    /// Leaves out every row of another module.
    pub fn keep_modules(&mut self, names: &[String]) {
        let study = self.study.iter_mut().flat_map(Tables::each_mut).filter_map(Slot::table_mut);
        for table in study.chain(self.compare.table_mut()).chain(self.fit.table_mut()).chain(self.held_out.table_mut()) {
            table.keep(&["module"], names);
        }
    }

    /// Leaves out every row of another adapter of a study.
    pub fn keep_adapters(&mut self, names: &[String]) {
        for table in self.study.iter_mut().flat_map(Tables::each_mut).filter_map(Slot::table_mut) {
            table.keep(&["adapter", "adapter_a", "adapter_b"], names);
        }
        self.manifest.adapters.retain(|adapter| names.contains(&adapter.name));
    }
}
