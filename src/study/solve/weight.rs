//! What is kept of a base weight by itself, whatever is solved through it: its singular basis, and what it makes of random targets and directions.

use std::collections::{BTreeMap, BTreeSet};

use super::super::context::Context;
use super::super::plan::{Group, Member};
use crate::controls::Factor;
use crate::conversion::{Core, Equation, WeightRows};
use crate::error::Result;
use crate::inputs::StoredWeight;
use crate::linalg::weight_basis::WeightBasis;
use crate::relation::{BaseLayer, DrawnImages, Yardstick, YardstickStudy};
use crate::stored::stored;
use crate::terms::{MatrixKind, StrictControl};

/// What the comparison of updates and targets with their base weight needs of it.
pub(crate) struct KnownWeight {
    shape: (usize, usize),
    stream: String,
    basis: Option<WeightBasis>,
    /// By the numbers of directions looked at.
    yardsticks: BTreeMap<Vec<usize>, Yardstick>,
    drawn: DrawnImages,
}

stored!(KnownWeight { shape, stream, basis, yardsticks, drawn });

impl KnownWeight {
    /// Everything that is asked of layer `index` of a group, whose W0 is there with its norm, and its core if it is not square; without `compared` its singular basis alone.
    ///
    /// # Errors
    /// [`crate::Error::Numerical`] for NaN or Inf in W0, [`crate::Error::Lapack`] if a decomposition fails.
    pub(crate) fn of(
        context: &Context<'_>,
        group: &Group,
        index: usize,
        (decomposed, compared): (bool, bool),
        (w0, core, norm): (&StoredWeight, Option<&Core<'_>>, f64),
    ) -> Result<Self> {
        let decompose = || -> Result<WeightBasis> {
            let w0 = w0.to_f64()?;
            if context.needs_svd() { WeightBasis::by_svd(w0.view()) } else { WeightBasis::by_eigenvectors(w0.view()) }
        };
        let basis = if decomposed { Some(context.clock.decompose.time(decompose)?) } else { None };
        // Singular values beyond the range of f64 are of no use.
        let basis = basis.filter(|basis| basis.sigma.iter().all(|sigma| sigma.is_finite()));
        let stream = group.layers[index].stream().into_owned();
        let mut known = Self { shape: w0.shape(), stream, basis, yardsticks: BTreeMap::new(), drawn: DrawnImages::default() };
        if compared {
            context
                .clock
                .controls
                .time(|| known.add_random(context, group, index, (w0, core, norm)))
                .map_err(|error| w0.explain(error))?;
        }
        Ok(known)
    }

    fn add_random(
        &mut self,
        context: &Context<'_>,
        group: &Group,
        index: usize,
        (w0, core, norm): (&StoredWeight, Option<&Core<'_>>, f64),
    ) -> Result<()> {
        // Where no decomposition is wanted its singular values are not either.
        let values = context.config.params().strict_control != StrictControl::Never;
        let study = YardstickStudy { seed: context.seed(), draws: context.draws(), values };
        let in_core: &dyn WeightRows = core.map_or(w0, |core| core);
        let members = || group.members.iter().filter_map(|member| Some((member, member.position(index)?)));
        for (member, _) in members() {
            let counts = counts_of(member);
            if !self.yardsticks.contains_key(&counts) {
                let yardstick = Yardstick::of(&self.base(), (in_core, norm), &counts, study)?;
                self.yardsticks.insert(counts, yardstick);
            }
        }
        if self.basis.is_none() && group.is_grid() {
            let ranks: BTreeSet<usize> = members().map(|(member, position)| member.ranks[position]).collect();
            let (ranks, factors) = (Vec::from_iter(ranks), drawn_factors(context, group));
            self.drawn = DrawnImages::of((w0, in_core), &self.stream, context.seed(), &factors, &ranks, context.draws());
        }
        Ok(())
    }

    pub(crate) fn base(&self) -> BaseLayer<'_> {
        BaseLayer { shape: self.shape, basis: self.basis.as_ref(), drawn: &self.drawn, stream: &self.stream }
    }

    /// What it gives at these numbers of directions, which are those of one of its members.
    pub(crate) fn yardstick(&self, counts: &[usize]) -> &Yardstick {
        self.yardsticks.get(counts).unwrap_or_else(|| unreachable!("a weight has the yardsticks of all its members"))
    }
}

/// How many leading directions of updates are looked at: as many as the layer of the smallest rank has, and one.
pub(crate) fn counts_of(member: &Member) -> Vec<usize> {
    let smallest = member.ranks.iter().copied().min().unwrap_or(1);
    if smallest > 1 { vec![smallest, 1] } else { vec![1] }
}

/// The factors whose targets are compared.
pub(crate) fn compared_factors(context: &Context<'_>) -> Vec<Factor> {
    let wanted = |(_, matrix): &(Factor, MatrixKind)| context.config.params().matrices.contains(matrix);
    [(Factor::A, MatrixKind::A), (Factor::B, MatrixKind::B)].into_iter().filter(wanted).map(|(factor, _)| factor).collect()
}

/// The factors whose Gaussian targets are drawn, with their equations: where Aᵀ and B go through the same map, Gaussian ones in their place are the same.
pub(crate) fn drawn_factors(context: &Context<'_>, group: &Group) -> Vec<(Factor, Equation)> {
    let compared = compared_factors(context);
    match group.equation_a() {
        Equation::W0 if !compared.is_empty() => vec![(Factor::B, Equation::W0)],
        equation_a => {
            compared.into_iter().map(|factor| (factor, if factor == Factor::A { equation_a } else { Equation::W0 })).collect()
        }
    }
}
