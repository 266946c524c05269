//! What a study is asked to do: as given, and after its checks.

use std::path::PathBuf;

use super::shard::Shard;
use crate::checkpoint::PairingRules;
use crate::error::{Error, Result, field};
use crate::inputs::{Selection, check_ij, default_limit};
use crate::relation::{Cut, Intruders};
use crate::terms::{Convention, LayerId, MatrixKind, NullDraws, Side, StrictControl};

/// The options of a study. [`Self::check`] puts lists into the order of the tables and removes duplicates, so the options of an
/// [`AnalyzeConfig`] can differ from those given. The manifest of a study has them under these names.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct AnalyzeParams {
    /// Adapter directories, or directories to search.
    #[serde(serialize_with = "crate::terms::paths")]
    pub paths: Vec<PathBuf>,
    /// The base model, if given.
    #[serde(serialize_with = "crate::terms::path_if_any")]
    pub base: Option<PathBuf>,
    /// How adapters and base are paired, where their names do not determine it.
    #[serde(flatten)]
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
    #[serde(with = "crate::terms::or_auto")]
    pub convention: Option<Convention>,
    /// How often each control is drawn.
    pub null_draws: NullDraws,
    /// The seed of the controls.
    pub seed: u64,
    /// An untrained adapter, or a directory of them.
    #[serde(serialize_with = "crate::terms::path_if_any")]
    pub init: Option<PathBuf>,
    /// Singular values below this share of the largest count as zero.
    pub rcond: Option<f64>,
    /// Where Θ is cut, for `cuts.csv` with all its controls, `energy.csv` and `subspaces.csv`; none for Θ as it is and the adjoint.
    pub cuts: Option<Vec<Cut>>,
    /// What counts as an intruder, for `intruders.csv` and `intruder_counts.csv`; none for neither.
    pub intruders: Option<Intruders>,
    /// Whether base weights are decomposed for the `flip` control.
    pub strict_control: StrictControl,
    /// Find conversion matrices and their similarity alone: nothing about the factors through W0, and no base weight is decomposed.
    pub similarity_only: bool,
    /// Take the Θ_B of CondLoRA checkpoints for the one of Eq. 6 as printed: B = W0ᵀ·Θ_B.
    pub eq6: bool,
    /// Compare the same layer of different adapters too.
    pub across: bool,
    /// Give the measures beyond φ too: principal angles and CKA.
    pub measures: bool,
    /// Pairs of layers to compare by every number of vectors.
    pub grid: Vec<(LayerId, LayerId)>,
    /// Skip adapters that cannot be analysed, and name them.
    pub keep_going: bool,
    /// Bytes that may be used; none for 80 % of what is available.
    pub memory_limit: Option<u64>,
    /// The part of the base weights that is solved through; none for all.
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
            null_draws: NullDraws::Auto,
            seed: 0,
            init: None,
            rcond: None,
            cuts: None,
            intruders: None,
            strict_control: StrictControl::Auto,
            similarity_only: false,
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
    given: AnalyzeParams,
    pub(super) selection: Selection,
}

impl AnalyzeParams {
    /// These adapters, or directories to search for them, and the defaults for everything else.
    #[must_use]
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self { paths: paths.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Checks the options against one another, and puts lists in order.
    ///
    /// # Errors
    /// [`Error::Usage`] for a value outside its range.
    pub fn check(mut self) -> Result<AnalyzeConfig> {
        if self.paths.is_empty() {
            return Err(Error::usage("no adapter given; expected at least one PATH"));
        }
        check_ij(&mut self.ij)?;
        let mut seen = std::collections::BTreeSet::new();
        self.grid.retain(|pair| seen.insert(pair.clone()));
        if let Some(rcond) = self.rcond.filter(|x| !(0.0..1.0).contains(x)) {
            return Err(Error::usage(format!("{} {rcond}: expected a number from 0 to below 1", field("rcond"))));
        }
        if self.similarity_only {
            let beyond = [
                (self.cuts.is_some(), "cuts"),
                (self.intruders.is_some(), "intruders"),
                (self.strict_control == StrictControl::Always, "strict_control"),
            ];
            if let Some((_, option)) = beyond.iter().find(|(given, _)| *given) {
                return Err(Error::usage(format!("{} is about more than {} finds", field(option), field("similarity_only"))));
            }
            self.strict_control = StrictControl::Never;
        }
        let needs_basis = |cut: &&Cut| cut.needs_basis();
        if let Some(cut) = self.cuts.iter().flatten().find(needs_basis).filter(|_| self.strict_control == StrictControl::Never) {
            return Err(Error::Usage {
                what: format!("{} {cut}: cannot be made without decomposing W0", field("cuts")),
                hint: Some("of W0 as it is there is only the adjoint".into()),
            });
        }
        if let Some(cuts) = &mut self.cuts {
            let mut distinct: Vec<Cut> = Vec::with_capacity(cuts.len() + 1);
            for cut in cuts.iter().copied().chain([Cut::Adjoint]) {
                if !distinct.contains(&cut) {
                    distinct.push(cut);
                }
            }
            *cuts = distinct;
        }
        if let Some(intruders) = self.intruders.filter(|intruders| !intruders.is_valid()) {
            return Err(Error::usage(format!(
                "{} {intruders}: expected at least one vector, and a cosine above 0 and at most 1",
                field("intruders")
            )));
        }
        if self.intruders.is_some() && self.strict_control == StrictControl::Never {
            return Err(Error::usage(format!("{} needs base weights to be decomposed", field("intruders"))));
        }
        if self.matrices.is_empty() || self.sides.is_empty() {
            return Err(Error::usage("nothing to compare; expected at least one matrix and one side"));
        }
        if self.matrices.contains(&MatrixKind::LearnedA) && self.init.is_none() {
            return Err(Error::Usage {
                what: format!("{} {}: needs the adapter before its training", field("matrices"), MatrixKind::LearnedA),
                hint: Some(format!("give it with {}", field("init"))),
            });
        }
        // Tables have one fixed order, which does not depend on the order of the options.
        self.matrices.sort();
        self.matrices.dedup();
        self.sides.sort();
        self.sides.dedup();
        let selection = Selection::of(&self.modules, self.layers.as_deref())?;
        Ok(AnalyzeConfig { given: self, selection })
    }
}

impl AnalyzeConfig {
    /// The options, in order.
    #[must_use]
    pub fn params(&self) -> &AnalyzeParams {
        &self.given
    }

    /// Bytes that may be used: as given, or 80 % of what is available.
    pub(super) fn memory_limit(&self, threads: usize) -> Option<u64> {
        self.given.memory_limit.or_else(|| default_limit(threads))
    }

    /// The matrices and sides compared, in table order. The factors themselves have one side each.
    pub(super) fn views(&self) -> Vec<View> {
        let mut views = Vec::new();
        for &matrix in &self.given.matrices {
            match matrix {
                MatrixKind::LoraA | MatrixKind::LearnedA => views.push(View { matrix, side: Side::Right }),
                MatrixKind::LoraB => views.push(View { matrix, side: Side::Left }),
                _ => views.extend(self.given.sides.iter().map(|&side| View { matrix, side })),
            }
        }
        views
    }
}

/// A matrix and the side of it that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub(super) matrix: MatrixKind,
    pub(super) side: Side,
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
    fn values_outside_their_range_are_refused() {
        assert!(with_path(|p| p.ij = vec![(8, 8)]).is_ok());
        assert!(with_path(|p| p.ij = vec![(0, 8)]).is_err());
        assert!(with_path(|p| p.rcond = Some(f64::NAN)).is_err());
        assert!(with_path(|p| p.rcond = Some(1.0)).is_err());
        let without_svd = |cuts: &[Cut]| with_path(|p| (p.cuts, p.strict_control) = (Some(cuts.to_vec()), StrictControl::Never));
        let cuts = |cuts: Vec<Cut>| with_path(|p| p.cuts = Some(cuts)).unwrap().params().cuts.clone().unwrap();
        let half = Cut::Below(0.5);
        assert_eq!(cuts(vec![half, half]), [half, Cut::Adjoint]);
        assert_eq!(cuts(Cut::LIST.to_vec()), Cut::LIST);
        assert!(without_svd(&Cut::LIST).is_err() && without_svd(&[Cut::Adjoint]).is_ok());
        assert!(with_path(|p| p.paths.clear()).is_err());
        assert!(with_path(|p| p.matrices = vec![MatrixKind::LearnedA]).is_err());
        assert!(with_path(|p| (p.matrices, p.init) = (vec![MatrixKind::LearnedA], Some("init".into()))).is_ok());
        assert!(with_path(|p| p.intruders = Some(Intruders::default())).is_ok());
        for (top, epsilon) in [(0, 0.5), (10, 0.0), (10, 1.5), (10, f64::NAN)] {
            assert!(with_path(|p| p.intruders = Some(Intruders { top, epsilon })).is_err());
        }
        assert_eq!(with_path(|p| p.similarity_only = true).unwrap().params().strict_control, StrictControl::Never);
        assert!(with_path(|p| (p.similarity_only, p.cuts) = (true, Some(vec![Cut::Adjoint]))).is_err());
        assert!(with_path(|p| (p.similarity_only, p.intruders) = (true, Some(Intruders::default()))).is_err());
        assert!(with_path(|p| (p.similarity_only, p.strict_control) = (true, StrictControl::Always)).is_err());
        let without =
            |p: &mut AnalyzeParams| (p.intruders, p.strict_control) = (Some(Intruders::default()), StrictControl::Never);
        assert!(with_path(without).is_err());
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
