//! Results read back from their directory, to be shown again: tables, checked for what drawing takes for granted, and the manifest.
//!
//! Whatever is wrong with a table is told with its file, line and column. What is read is bounded by what is there: a grid of layers
//! is as large as the rows that fill it.

use std::collections::BTreeSet;
use std::path::Path;

use super::checks;
use super::file::TableFile;
use super::manifest::SavedManifest;
use crate::error::{Error, Result};
use crate::table::columns::Row;
use crate::table::manifest::{MANIFEST_FILE, only_base_name};
use crate::table::rows::{CompareRow, ConversionRow, FitRow, GridRow, SimilarityRow, SpectrumRow, SummaryRow, Tables};

/// What `analyze`, `merge`, `compare` or `fit` left in a directory.
#[derive(Debug, Clone, Default)]
pub struct SavedResults {
    /// The tables of `analyze` and `merge`; none where there are none.
    pub study: Option<Tables>,
    /// `compare.csv`.
    pub compare: Option<Vec<CompareRow>>,
    /// `fit.csv`.
    pub fit: Option<Vec<FitRow>>,
    /// `manifest.json`; none where there is none, and the tables have to be taken as they are.
    pub manifest: Option<SavedManifest>,
    /// What the user should know: tables that are not those that the manifest has the hash of.
    pub warnings: Vec<String>,
}

impl SavedResults {
    /// Reads every table that a figure is drawn from, as CSV or, where there is none, as Parquet.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no table or one cannot be read, [`Error::Malformed`] for one that is not as it is written.
    pub fn read(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::missing(dir, "is no directory; expected what analyze, merge, compare or fit wrote"));
        }
        let mut read = Self { manifest: SavedManifest::read(dir)?, ..Self::default() };
        if let (Some(summary), similarity) = (read.table::<SummaryRow>(dir)?, read.table::<SimilarityRow>(dir)?) {
            checks::summary(&summary)?;
            let similarity = similarity.ok_or_else(|| absent::<SimilarityRow>(dir))?;
            checks::similarity(&similarity)?;
            checks::belong_together(&summary, &similarity)?;
            let conversion = read.table::<ConversionRow>(dir)?.ok_or_else(|| absent::<ConversionRow>(dir))?;
            checks::conversion(&conversion)?;
            let spectrum = read.table::<SpectrumRow>(dir)?.ok_or_else(|| absent::<SpectrumRow>(dir))?;
            checks::spectrum(&spectrum)?;
            let training = read.table(dir)?.map(|training| training.rows);
            let across = read.table(dir)?;
            across.as_ref().map_or(Ok(()), checks::across)?;
            let grid = read.table(dir)?;
            grid.as_ref().map_or(Ok(()), checks::grid)?;
            read.study = Some(Tables {
                summary: summary.rows,
                similarity: similarity.rows,
                conversion: conversion.rows,
                spectrum: spectrum.rows,
                across: across.map(|across| across.rows),
                measures: None,
                grid: grid.map(|grid: TableFile<GridRow>| grid.rows),
                training,
            });
        } else if dir.join(format!("{}.csv", SimilarityRow::TABLE)).exists() {
            return Err(absent::<SummaryRow>(dir));
        }
        let compare = read.table(dir)?;
        compare.as_ref().map_or(Ok(()), checks::compare)?;
        read.compare = compare.map(|compare| compare.rows);
        let fit = read.table(dir)?;
        fit.as_ref().map_or(Ok(()), checks::fit)?;
        read.fit = fit.map(|fit| fit.rows);
        if read.study.is_none() && read.compare.is_none() && read.fit.is_none() {
            let what = "holds no table of condlora; expected summary.csv (or .parquet), compare.csv or fit.csv";
            return Err(Error::missing(dir, what));
        }
        Ok(read)
    }

    fn table<R: Row>(&mut self, dir: &Path) -> Result<Option<TableFile<R>>> {
        let Some(table) = TableFile::read(dir)? else { return Ok(None) };
        if let Some(manifest) = &self.manifest
            && !manifest.answers_for(&table.name, &table.hash)
        {
            let path = crate::error::show_path(&table.path);
            self.warnings.push(format!("{path}: is not as it was written ({MANIFEST_FILE} has another hash)"));
        }
        Ok(Some(table))
    }

    /// The base model's name, where all adapters have the same.
    #[must_use]
    pub fn base_name(&self) -> Option<&str> {
        only_base_name(&self.manifest.as_ref()?.adapters)
    }

    /// The adapter's name, where the results are of one.
    #[must_use]
    pub fn adapter(&self) -> Option<&str> {
        match &self.manifest.as_ref()?.adapters[..] {
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
        study.chain(compare).chain(self.fit.iter().flatten().map(|row| &row.module)).map(String::as_str).collect()
    }

    /// The names of a study's adapters.
    #[must_use]
    pub fn adapters(&self) -> BTreeSet<&str> {
        self.study.iter().flat_map(|tables| tables.summary.iter().map(|row| row.adapter.as_str())).collect()
    }

    /// Leaves out every row of another module.
    pub fn keep_modules(&mut self, names: &[String]) {
        let kept = |module: &String| names.contains(module);
        if let Some(tables) = &mut self.study {
            tables.summary.retain(|row| kept(&row.module));
            tables.similarity.retain(|row| kept(&row.module));
            tables.conversion.retain(|row| kept(&row.module));
            tables.spectrum.retain(|row| kept(&row.module));
            tables.across.iter_mut().for_each(|rows| rows.retain(|row| kept(&row.module)));
            tables.grid.iter_mut().for_each(|rows| rows.retain(|row| kept(&row.module)));
        }
        self.compare.iter_mut().for_each(|rows| rows.retain(|row| kept(&row.module)));
        self.fit.iter_mut().for_each(|rows| rows.retain(|row| kept(&row.module)));
    }

    /// Leaves out every row of another adapter of a study.
    pub fn keep_adapters(&mut self, names: &[String]) {
        let kept = |adapter: &String| names.contains(adapter);
        if let Some(tables) = &mut self.study {
            tables.summary.retain(|row| kept(&row.adapter));
            tables.similarity.retain(|row| kept(&row.adapter));
            tables.conversion.retain(|row| kept(&row.adapter));
            tables.spectrum.retain(|row| kept(&row.adapter));
            tables.training.iter_mut().for_each(|rows| rows.retain(|row| kept(&row.adapter)));
            tables.across.iter_mut().for_each(|rows| rows.retain(|row| kept(&row.adapter_a) && kept(&row.adapter_b)));
            tables.grid.iter_mut().for_each(|rows| rows.retain(|row| kept(&row.adapter)));
        }
        if let Some(manifest) = &mut self.manifest {
            manifest.adapters.retain(|adapter| kept(&adapter.name));
        }
    }
}

/// A table is missing that is always written beside those that are there.
fn absent<R: Row>(dir: &Path) -> Error {
    Error::missing(&dir.join(format!("{}.csv", R::TABLE)), "does not exist, nor as Parquet")
        .with_hint("analyze writes it beside the other tables of a study")
}
