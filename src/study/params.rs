//! What a study is asked to do: as given on the command line, and after its checks.

use std::path::PathBuf;

use super::shard::Shard;
use crate::checkpoint::PairingRules;
use crate::error::{Error, Result};
use crate::terms::{Convention, MatrixKind, Side};

/// The options of a study as they were given.
#[derive(Debug, Clone)]
pub struct AnalyzeParams {
    /// Adapter directories, or directories to search.
    pub paths: Vec<PathBuf>,
    /// The base model, if given.
    pub base: Option<PathBuf>,
    /// How adapters and base are paired, where their names do not say.
    pub pairing: PairingRules,
    /// Names of the modules wanted; empty for all.
    pub modules: Vec<String>,
    /// Layer indices and inclusive ranges (`0..5,8`), if given.
    pub layers: Option<String>,
    /// The matrices wanted.
    pub matrices: Vec<MatrixKind>,
    /// The (i, j) wanted; empty for (r, r) with the module's smallest rank.
    pub ij: Vec<(usize, usize)>,
    /// The singular vectors wanted.
    pub sides: Vec<Side>,
    /// The equations wanted; none to choose by shape.
    pub convention: Option<Convention>,
    /// How often each control is drawn.
    pub null_draws: usize,
    /// The seed of the controls.
    pub seed: u64,
    /// An untrained adapter, or a directory of them.
    pub init: Option<PathBuf>,
    /// Singular values below this share of the largest count as zero.
    pub rcond: Option<f64>,
    /// Take the Θ_B of CondLoRA checkpoints for the one of Eq. 6 as printed: B = W0ᵀ·Θ_B.
    pub eq6: bool,
    /// Compare the same layer of different adapters too.
    pub across: bool,
    /// Give the measures beyond φ too: principal angles and CKA.
    pub measures: bool,
    /// Pairs of layers to compare by every number of vectors.
    pub grid: Vec<(u32, u32)>,
    /// Pass over adapters that cannot be analysed, and say which.
    pub keep_going: bool,
    /// Bytes that may be used; none for 80 % of what is available.
    pub memory_limit: Option<u64>,
    /// The part of the adapters that is analysed; none for all.
    pub shard: Option<Shard>,
}

impl Default for AnalyzeParams {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            base: None,
            pairing: PairingRules::default(),
            modules: Vec::new(),
            layers: None,
            matrices: vec![MatrixKind::A, MatrixKind::B, MatrixKind::BA],
            ij: Vec::new(),
            sides: vec![Side::Left],
            convention: None,
            null_draws: 20,
            seed: 0,
            init: None,
            rcond: None,
            eq6: false,
            across: false,
            measures: false,
            grid: Vec::new(),
            keep_going: false,
            memory_limit: None,
            shard: None,
        }
    }
}

/// Valid options: what the pipeline works with.
#[derive(Debug, Clone)]
pub struct AnalyzeConfig {
    pub(super) given: AnalyzeParams,
    pub(super) layers: Option<LayerSet>,
}

impl AnalyzeParams {
    /// Checks the options against one another.
    ///
    /// # Errors
    /// [`Error::Usage`] for a value outside its range.
    pub fn check(mut self) -> Result<AnalyzeConfig> {
        if self.paths.is_empty() {
            return Err(Error::usage("no adapter given; expected at least one PATH"));
        }
        check_ij(&mut self.ij)?;
        let mut seen = std::collections::BTreeSet::new();
        self.grid.retain(|pair| seen.insert(*pair));
        if let Some(rcond) = self.rcond.filter(|x| !(0.0..1.0).contains(x)) {
            return Err(Error::usage(format!("--rcond {rcond}: expected a number from 0 to below 1")));
        }
        if self.matrices.is_empty() || self.sides.is_empty() {
            return Err(Error::usage("nothing to compare; expected at least one matrix and one side"));
        }
        if let Some(shard) = self.shard.filter(|_| self.across) {
            return Err(Error::Usage {
                what: format!("--across with --shard {shard}: a part of the adapters cannot be compared with the rest"),
                hint: Some("make the shards without it, then use condlora merge --across".into()),
            });
        }
        // Tables have one fixed order, whatever the order of the options.
        self.matrices.sort();
        self.matrices.dedup();
        self.sides.sort();
        self.sides.dedup();
        let layers = self.layers.as_deref().map(LayerSet::parse).transpose()?;
        Ok(AnalyzeConfig { given: self, layers })
    }
}

impl AnalyzeConfig {
    /// The options behind it.
    #[must_use]
    pub fn params(&self) -> &AnalyzeParams {
        &self.given
    }

    /// Whether this layer of a module is asked for.
    pub(super) fn wants(&self, module: &str, layer: Option<u32>) -> bool {
        (self.given.modules.is_empty() || self.given.modules.iter().any(|name| name == module))
            && self.layers.as_ref().is_none_or(|layers| layer.is_some_and(|layer| layers.holds(layer)))
    }

    /// The matrices and sides compared, in table order. The factors themselves have one side each.
    pub(super) fn views(&self) -> Vec<View> {
        let mut views = Vec::new();
        for &matrix in &self.given.matrices {
            match matrix {
                MatrixKind::LoraA => views.push(View { matrix, side: Side::Right }),
                MatrixKind::LoraB => views.push(View { matrix, side: Side::Left }),
                _ => views.extend(self.given.sides.iter().map(|&side| View { matrix, side })),
            }
        }
        views
    }
}

/// Checks numbers of singular vectors, and keeps each pair once.
///
/// # Errors
/// [`Error::Usage`] for a 0.
pub(crate) fn check_ij(ij: &mut Vec<(usize, usize)>) -> Result<()> {
    if let Some((i, j)) = ij.iter().find(|(i, j)| *i == 0 || *j == 0) {
        return Err(Error::usage(format!("--ij {i},{j}: expected numbers of singular vectors from 1 on, found 0")));
    }
    let mut seen = Vec::new();
    ij.retain(|pair| {
        !seen.contains(pair) && {
            seen.push(*pair);
            true
        }
    });
    Ok(())
}

/// A matrix and the side of it that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub(super) matrix: MatrixKind,
    pub(super) side: Side,
}

/// Layer indices and inclusive ranges.
#[derive(Debug, Clone)]
pub(crate) struct LayerSet(Vec<(u32, u32)>);

impl LayerSet {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |part: &str, why: &str| Error::Usage {
            what: format!("--layers {}: {why}", crate::error::escape(part)),
            hint: Some("give 0-based indices and inclusive ranges, as in --layers 0..5,8".into()),
        };
        let number = |part: &str| part.trim().parse::<u32>().map_err(|_| wrong(part, "expected a layer index"));
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let range = match part.split_once("..") {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if range.0 > range.1 {
                return Err(wrong(part, "expected the smaller index first"));
            }
            ranges.push(range);
        }
        Ok(Self(ranges))
    }

    pub(crate) fn holds(&self, layer: u32) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_path(change: impl FnOnce(&mut AnalyzeParams)) -> Result<AnalyzeConfig> {
        let mut params = AnalyzeParams { paths: vec!["x".into()], ..Default::default() };
        change(&mut params);
        params.check()
    }

    #[test]
    fn layer_ranges_are_inclusive() {
        let set = LayerSet::parse("0..2,8").unwrap();
        assert_eq!((0..10).filter(|&l| set.holds(l)).collect::<Vec<_>>(), [0, 1, 2, 8]);
        for bad in ["9..3", "", "a", "1..", "-1", "1.5"] {
            assert_eq!(LayerSet::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        assert!(with_path(|p| p.ij = vec![(8, 8)]).is_ok());
        assert!(with_path(|p| p.ij = vec![(0, 8)]).is_err());
        assert!(with_path(|p| p.rcond = Some(f64::NAN)).is_err());
        assert!(with_path(|p| p.rcond = Some(1.0)).is_err());
        assert!(with_path(|p| p.paths.clear()).is_err());
    }

    #[test]
    fn the_factors_keep_their_side() {
        let config = with_path(|p| {
            p.matrices = vec![MatrixKind::LoraB, MatrixKind::A, MatrixKind::LoraA, MatrixKind::A];
            p.sides = vec![Side::Right];
        })
        .unwrap();
        let views: Vec<_> = config.views().iter().map(|v| (v.matrix, v.side)).collect();
        assert_eq!(views, [(MatrixKind::A, Side::Right), (MatrixKind::LoraA, Side::Right), (MatrixKind::LoraB, Side::Left)]);
    }
}
