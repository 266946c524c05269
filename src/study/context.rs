//! What every stage of one run shares.

use super::params::{AnalyzeConfig, View};
use super::plan::{Group, Member, Plan};
use super::stopwatch::Clock;
use crate::controls::DrawPlan;
use crate::terms::{MatrixKind, Measure, Side};

/// The options, the plan and the clock of one run.
pub(super) struct Context<'a> {
    pub(super) config: &'a AnalyzeConfig,
    pub(super) plan: &'a Plan,
    pub(super) clock: &'a Clock,
    /// The matrices and sides compared.
    pub(super) views: Vec<View>,
    /// Those that the `w0` control covers.
    pub(super) drawn_views: Vec<View>,
    /// The matrices compared by CKA.
    pub(super) by_cka: Vec<MatrixKind>,
    /// Those that the `w0` control covers.
    pub(super) drawn_by_cka: Vec<MatrixKind>,
}

/// What is computed for every layer: which vectors, and how many.
pub(super) struct Wanted<'a> {
    pub(super) kinds: &'a [MatrixKind],
    pub(super) views: &'a [View],
    /// Matrices that are compared as a whole.
    pub(super) by_cka: &'a [MatrixKind],
    /// The largest i or j; none for all.
    pub(super) most: Option<usize>,
}

impl Wanted<'_> {
    pub(super) fn side(&self, matrix: MatrixKind, side: Side) -> bool {
        self.views.contains(&View { matrix, side })
    }

    /// How many vectors of a matrix of this rank can be asked for.
    pub(super) fn most_of(&self, rank: usize) -> usize {
        self.most.map_or(rank, |most| most.min(rank))
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(config: &'a AnalyzeConfig, plan: &'a Plan, clock: &'a Clock) -> Self {
        let views = config.views();
        let drawn_views = views.iter().copied().filter(|v| !v.matrix.is_factor()).collect();
        let by_cka = if config.params().measures { config.params().matrices.clone() } else { Vec::new() };
        let drawn_by_cka = by_cka.iter().copied().filter(|m| !m.is_factor()).collect();
        Self { config, plan, clock, views, drawn_views, by_cka, drawn_by_cka }
    }

    pub(super) fn seed(&self) -> u64 {
        self.config.params().seed
    }

    pub(super) fn draws(&self) -> usize {
        self.config.params().null_draws.together()
    }

    /// Whether singular values are needed to all digits, which the cheaper decomposition does not give.
    pub(super) fn needs_svd(&self) -> bool {
        let given = self.config.params();
        given.cuts.is_some() || given.intruders.is_some()
    }

    /// The draws of a test of the question whether layers share a linear map, among all of one adapter: what other adapters a run has changes none of them.
    pub(super) fn plan_of_tests(&self, member: &Member) -> DrawPlan {
        let given = self.config.params();
        let modules = self.plan.adapters[member.adapter].modules.len();
        let plan = given.null_draws.plan(2 * modules);
        // All cuts are tested as one, for which they need the same draws.
        if given.cuts.is_some() { DrawPlan::fixed(plan.most) } else { plan }
    }

    /// The draws of a test of the pairing of an update's inputs and outputs, among all of one adapter: two for each module.
    pub(super) fn plan_of_pairings(&self, member: &Member) -> DrawPlan {
        self.config.params().null_draws.plan(2 * self.plan.adapters[member.adapter].modules.len())
    }

    /// Whether the factors are compared with their base weights, too.
    pub(super) fn relates(&self) -> bool {
        !self.config.params().similarity_only
    }

    pub(super) fn keep_going(&self) -> bool {
        self.config.params().keep_going
    }

    pub(super) fn across(&self) -> bool {
        self.config.params().across
    }

    pub(super) fn measures(&self) -> bool {
        self.config.params().measures
    }

    /// How many measures each view and (i, j) has: φ, and with `--measures` the cosines.
    pub(super) fn measures_of_pair(&self) -> usize {
        if self.measures() { 1 + Measure::COSINES.len() } else { 1 }
    }

    /// What is kept of an adapter's layer.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let wanted = self.wanted_of(&self.views, &self.by_cka);
        // Grids compare every number of vectors.
        if self.config.params().grid.is_empty() { wanted } else { Wanted { most: None, ..wanted } }
    }

    /// What is kept of an untrained adapter's layer: it has no measures beyond φ.
    pub(super) fn wanted_of_init(&self) -> Wanted<'_> {
        self.wanted_of(&self.views, &[])
    }

    /// What is kept of a draw of the `w0` control.
    pub(super) fn wanted_of_draws(&self) -> Wanted<'_> {
        self.wanted_of(&self.drawn_views, &self.drawn_by_cka)
    }

    fn wanted_of<'w>(&'w self, views: &'w [View], by_cka: &'w [MatrixKind]) -> Wanted<'w> {
        let given = self.config.params();
        Wanted { kinds: &given.matrices, views, by_cka, most: given.ij.iter().map(|&(i, j)| i.max(j)).max() }
    }

    /// The (i, j) compared between matrices of these ranks.
    pub(super) fn pairs_for(&self, ranks: impl IntoIterator<Item = usize>) -> Vec<(usize, usize)> {
        let given = &self.config.params().ij;
        if given.is_empty() {
            let smallest = ranks.into_iter().min().unwrap_or_else(|| unreachable!("a module has layers"));
            return vec![(smallest, smallest)];
        }
        given.clone()
    }

    /// How often the controls are drawn for this group: a single weight has no other to compare with.
    pub(super) fn draws_of(&self, group: &Group) -> usize {
        if group.is_grid() { self.draws() } else { 0 }
    }

    /// How often the `w0` control is solved for through the group's weights.
    pub(super) fn w0_draws_of(&self, group: &Group) -> usize {
        let compared = group.members.iter().any(|member| member.at.len() > 1) && !self.drawn_views.is_empty();
        if compared { self.draws_of(group) } else { 0 }
    }

    /// The distinct ranks of a group's members at one layer, for which the `w0` control is drawn.
    pub(super) fn drawn_ranks(&self, group: &Group, index: usize) -> Vec<usize> {
        if self.w0_draws_of(group) == 0 {
            return Vec::new();
        }
        let at = |member: &Member| Some(member.ranks[member.position(index)?]);
        let mut ranks: Vec<usize> = group.members.iter().filter_map(at).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }
}
