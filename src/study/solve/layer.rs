//! One base weight: read it, solve all targets through it, and keep the singular vectors that will be compared.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use ndarray::{Array2, Axis, s};

use super::super::context::Context;
use super::super::initial;
use super::super::plan::{Group, Member, Pass, untrained_layer};
use super::matrices::{LayerThetas, drawn_matrices};
use super::solved::{KeptSpace, MemberLayer, SolvedLayer};
use super::weight::KnownWeight;
use crate::checkpoint::{FactorSource, PairedLayer};
use crate::controls::{Control, Factor, draw};
use crate::conversion::{ConversionMatrix, Equation, Solver, Target, Workspace, columns_together};
use crate::error::Result;
use crate::inputs::{BaseWeight, FactorPair, StoredWeight};
use crate::relation::{RelatedLayer, images_of};
use crate::terms::MatrixKind;

/// One base weight in one pass.
pub(crate) struct LayerJob<'a> {
    pub(crate) pass: &'a Pass,
    /// The group's layer.
    pub(crate) index: usize,
    /// Whether W0 is decomposed.
    pub(crate) decomposed: bool,
    /// What is known of the weight by itself, once a pass has read it.
    pub(crate) known: &'a OnceLock<KnownWeight>,
    /// Whether everything is kept that another run needs in order to compare.
    pub(crate) for_later: bool,
}

/// Reads and solves layer `index` of a group for the members and draws of a pass.
///
/// # Errors
/// What is wrong with the base weight or a factor; with `--keep-going` those are in [`SolvedLayer::failed`].
pub(crate) fn solve_layer(context: &Context<'_>, job: &LayerJob<'_>, workspace: &mut Workspace) -> Result<SolvedLayer> {
    let &LayerJob { pass, index, .. } = job;
    let group = &context.plan.groups[pass.group];
    let mut layer = LayerWork {
        context,
        group,
        pass,
        index,
        job,
        weight: &group.layers[index],
        solved: SolvedLayer { members: pass.members.clone().map(|_| None).collect(), ..Default::default() },
    };
    match layer.run(workspace) {
        Ok(()) => Ok(layer.solved),
        Err(error) if context.keep_going() => {
            // Without this weight none of its adapters can be analysed.
            let users = group.members.iter().filter(|member| member.position(index).is_some());
            let failed = users.map(|member| (member.adapter, error.clone())).collect();
            Ok(SolvedLayer { members: layer.solved.members.iter().map(|_| None).collect(), failed, ..Default::default() })
        }
        Err(error) => Err(error),
    }
}

/// Two right-hand sides that are solved together, and whose they are.
struct OwnedFactors {
    owner: Owner,
    factors: FactorPair,
    /// Whether Aᵀ and B are drawn as coordinates in the range of W0.
    in_range: [bool; 2],
    /// Aᵀ before training, where what was learned of it is compared.
    initial_a: Option<Array2<f64>>,
}

impl OwnedFactors {
    fn targets(&self, equation_a: Equation) -> [Target<'_>; 2] {
        let [a, b] = self.factors.targets(equation_a);
        let [a_in_range, b_in_range] = self.in_range;
        [Target { in_range: a_in_range, ..a }, Target { in_range: b_in_range, ..b }]
    }
}

/// Draws of the `w0` control whose columns are one target: they are checked together, which takes a part of the time. Always the same ones, whichever of
/// them a pass is for, so that no number depends on how draws are divided into passes.
pub(crate) const DRAWS_TOGETHER: usize = 4;

/// Where factors come from.
enum Source {
    /// The member with this index in the pass.
    Member(usize),
    /// Draws of the `w0` control.
    Draws(Range<usize>),
}

/// Whose factors are solved for.
enum Owner {
    /// The member with this index in the pass.
    Trained(usize),
    /// Its untrained adapter.
    Untrained(usize),
    /// Draws of the `w0` control.
    Draws(Range<usize>),
}

/// One base weight, and the results kept for it so far.
struct LayerWork<'a> {
    context: &'a Context<'a>,
    group: &'a Group,
    pass: &'a Pass,
    index: usize,
    job: &'a LayerJob<'a>,
    weight: &'a BaseWeight,
    solved: SolvedLayer,
}

impl LayerWork<'_> {
    fn run(&mut self, workspace: &mut Workspace) -> Result<()> {
        let (context, pass) = (self.context, self.pass);
        let users = self.group.members[pass.members.clone()].iter().any(|member| member.position(self.index).is_some());
        if !users && pass.draws.is_empty() {
            return Ok(());
        }
        let (base, inputs) = (&context.plan.bases[self.group.base], &mut self.solved.inputs);
        let storage = workspace.take_stored();
        let w0 = context.clock.read.time(|| StoredWeight::read_into(base, self.weight, inputs, storage))?;
        self.solve_through(&w0, workspace)?;
        workspace.keep_stored(w0.into_storage());
        Ok(())
    }

    /// Solves for everything in the pass, and keeps what will be compared.
    fn solve_through(&mut self, w0: &StoredWeight, workspace: &mut Workspace) -> Result<()> {
        let (context, pass) = (self.context, self.pass);
        let explain = |error| w0.explain(error);
        let solver = context.clock.solve.time(|| Solver::new(w0, context.config.params().rcond, workspace));
        let mut solver = solver.map_err(explain)?;
        if self.job.known.get().is_none() {
            // Least squares factorises here.
            let norm = context.clock.solve.time(|| solver.norm()).map_err(explain)?;
            let wanted = (self.job.decomposed, self.relates());
            let core = context.clock.solve.time(|| solver.core()).map_err(explain)?;
            let known = KnownWeight::of(context, self.group, self.index, wanted, (w0, core.as_ref(), norm))?;
            self.job.known.get_or_init(|| known);
        }
        self.solved.kept = solver.kept().map_err(explain)?.map(|[left, right]| KeptSpace { left, right });

        let ranks = context.drawn_ranks(self.group, self.index);
        let together = columns_together(self.weight.d_out.max(self.weight.d_in));
        let mut waiting: Vec<OwnedFactors> = Vec::new();
        let mut columns = 0;
        let members = (0..pass.members.len()).map(Source::Member);
        let of_group = context.w0_draws_of(self.group);
        let blocks = pass.draws.start / DRAWS_TOGETHER..pass.draws.end.div_ceil(DRAWS_TOGETHER);
        let block = |block: usize| block * DRAWS_TOGETHER..((block + 1) * DRAWS_TOGETHER).min(of_group);
        let draws = blocks.filter(|_| !ranks.is_empty()).map(|number| Source::Draws(block(number)));
        for source in members.chain(draws) {
            for pair in self.factors(source, w0, &ranks)? {
                columns += 2 * pair.factors.rank();
                waiting.push(pair);
                if columns >= together {
                    self.solve(&mut solver, w0, &waiting, &ranks).map_err(explain)?;
                    waiting.clear();
                    columns = 0;
                }
            }
        }
        self.solve(&mut solver, w0, &waiting, &ranks).map_err(explain)?;
        if self.index == 0 && (pass.across || self.job.for_later) {
            self.solved.warning = initial::warning(context, self.group, self.index, w0)?;
        }
        Ok(())
    }

    fn member(&self, k: usize) -> &Member {
        &self.group.members[self.pass.members.start + k]
    }

    /// Reads or draws factors: a draw's, or a member's and those of its untrained adapter; none of a member that has no such layer.
    fn factors(&mut self, source: Source, w0: &StoredWeight, drawn_ranks: &[usize]) -> Result<Vec<OwnedFactors>> {
        let k = match source {
            Source::Draws(numbers) => {
                let most = drawn_ranks.last().copied().unwrap_or_else(|| unreachable!("only what some member has is drawn"));
                return Ok(vec![self.drawn_factors(numbers, most)]);
            }
            Source::Member(k) => k,
        };
        let (trained, untrained) = (self.read_factors(k, w0, false)?, self.read_factors(k, w0, true)?);
        let is_wanted = self.context.wanted().kinds.contains(&MatrixKind::LearnedA);
        let initial_a = untrained.as_ref().filter(|_| is_wanted).map(|untrained| untrained.a_transposed.clone());
        let trained = trained.map(|factors| OwnedFactors { owner: Owner::Trained(k), factors, in_range: [false; 2], initial_a });
        let untrained =
            untrained.map(|factors| OwnedFactors { owner: Owner::Untrained(k), factors, in_range: [false; 2], initial_a: None });
        Ok(trained.into_iter().chain(untrained).collect())
    }

    /// Gaussian factors of the largest rank, draw by draw; those of a smaller one are the first columns of each. Where the equations have more rows than columns the numbers are
    /// coordinates in W0's range: that is all of a Gaussian factor that Θ depends on. Θ_BA also depends on the whole of A.
    fn drawn_factors(&self, numbers: Range<usize>, rank: usize) -> OwnedFactors {
        let (seed, stream, (d_out, d_in)) = (self.context.seed(), self.weight.stream(), (self.weight.d_out, self.weight.d_in));
        let gaussian = |factor, length| {
            let mut all = Array2::zeros((length, rank * numbers.len()));
            for (number, mut to) in numbers.clone().zip(all.axis_chunks_iter_mut(Axis(1), rank)) {
                to.assign(&draw(seed, Control::W0, &stream, factor, number, length, rank));
            }
            all
        };
        let drawn = self.context.wanted_of_draws();
        let whole_a = drawn.views.iter().any(|view| view.matrix == MatrixKind::BA) || drawn.by_cka.contains(&MatrixKind::BA);
        let in_range = [d_in > d_out && !whole_a, d_out > d_in];
        let shorter = d_out.min(d_in);
        let length = |in_range: bool, whole: usize| if in_range { shorter } else { whole };
        let factors = FactorPair {
            a_transposed: gaussian(Factor::A, length(in_range[0], d_in)),
            b: gaussian(Factor::B, length(in_range[1], d_out)),
        };
        OwnedFactors { owner: Owner::Draws(numbers), factors, in_range, initial_a: None }
    }

    /// Reads the factors of a member, or of its untrained adapter; none where it has no such layer or failed.
    fn read_factors(&mut self, k: usize, w0: &StoredWeight, untrained: bool) -> Result<Option<FactorPair>> {
        let (context, number) = (self.context, self.member(k).adapter);
        let Some(paired) = self.member(k).layer(&context.plan.adapters, self.index) else { return Ok(None) };
        if self.solved.failed.iter().any(|(adapter, _)| *adapter == number) {
            return Ok(None);
        }
        let planned = &context.plan.adapters[number];
        let (adapter, layer) = if untrained {
            let Some(init) = &planned.init else { return Ok(None) };
            let layer = untrained_layer(init, &paired.adapter_layer);
            (init, layer.unwrap_or_else(|| unreachable!("the plan refuses a layer without an untrained one")))
        } else {
            (&planned.adapter, &paired.adapter_layer)
        };
        let inputs = &mut self.solved.inputs;
        match context.clock.read.time(|| FactorPair::read(adapter, layer, w0, inputs)) {
            Ok(factors) => Ok(Some(factors)),
            Err(error) if context.keep_going() => {
                self.solved.failed.push((number, error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Solves for the waiting pairs and keeps what will be compared of each.
    fn solve(
        &mut self,
        solver: &mut Solver<'_, StoredWeight>,
        w0: &StoredWeight,
        waiting: &[OwnedFactors],
        ranks: &[usize],
    ) -> Result<()> {
        let equation_a = self.group.equation_a();
        let targets: Vec<Target<'_>> = waiting.iter().flat_map(|pair| pair.targets(equation_a)).collect();
        let (thetas, condition) = self.context.clock.solve.time(|| -> Result<_> {
            Ok((solver.solve(&targets)?, if waiting.is_empty() { f64::NAN } else { solver.condition()? }))
        })?;
        self.context.clock.subspaces.time(|| {
            for (pair, thetas) in waiting.iter().zip(thetas.chunks_exact(2)) {
                self.keep(pair, [&thetas[0], &thetas[1]], condition, ranks)?;
            }
            Ok(())
        })?;
        if self.relates() && self.known().base().basis.is_none() {
            self.context.clock.controls.time(|| self.keep_images(w0, waiting))?;
        }
        Ok(())
    }

    /// Whether the pass compares the members' factors with W0.
    fn relates(&self) -> bool {
        self.pass.within && self.context.relates()
    }

    fn known(&self) -> &KnownWeight {
        self.job.known.get().unwrap_or_else(|| unreachable!("it is made before anything is solved"))
    }

    /// Keeps what W0 itself makes of the members among the waiting pairs.
    fn keep_images(&mut self, w0: &StoredWeight, waiting: &[OwnedFactors]) -> Result<()> {
        let base = self.known().base();
        let mut layers: Vec<RelatedLayer<'_>> = Vec::with_capacity(waiting.len());
        let mut members: Vec<usize> = Vec::with_capacity(waiting.len());
        for pair in waiting {
            let Owner::Trained(k) = pair.owner else { continue };
            members.push(k);
            layers.push(RelatedLayer {
                number: self.weight.layer.clone(),
                base: &base,
                a_transposed: pair.factors.a_transposed.view(),
                b: pair.factors.b.view(),
                scaling: self.paired(k).adapter_layer.scaling,
                equation_a: self.group.equation_a(),
                images: None,
            });
        }
        for (k, images) in members.into_iter().zip(images_of(w0, &layers)?) {
            if let Some(member) = &mut self.solved.members[k] {
                member.images = Some(images);
            }
        }
        Ok(())
    }

    /// A layer that the pass's member `k` has.
    fn paired(&self, k: usize) -> &PairedLayer {
        let paired = self.member(k).layer(&self.context.plan.adapters, self.index);
        paired.unwrap_or_else(|| unreachable!("a member's factors are read of its own layer"))
    }

    /// Keeps what will be compared of two solutions.
    fn keep(&mut self, of: &OwnedFactors, [a, b]: [&ConversionMatrix; 2], condition: f64, ranks: &[usize]) -> Result<()> {
        let context = self.context;
        let n = self.weight.d_out.max(self.weight.d_in);
        let thetas = LayerThetas { factors: &of.factors, initial_a: of.initial_a.as_ref(), a, b, condition, n };
        match &of.owner {
            Owner::Draws(numbers) => {
                let most = of.factors.rank() / numbers.len().max(1);
                let wanted = numbers.clone().enumerate().filter(|(_, number)| self.pass.draws.contains(number));
                for (at, rank) in wanted.flat_map(|(at, _)| ranks.iter().map(move |&rank| (at * most, rank))) {
                    let cut = s![.., at..at + rank];
                    let a_transposed = of.factors.a_transposed.slice(cut);
                    let (a, b) = (a.theta.slice(cut).to_owned(), b.theta.slice(cut).to_owned());
                    let drawn = drawn_matrices(&context.wanted_of_draws(), a.view(), b.view(), a_transposed)?;
                    self.solved.w0_draws.entry(rank).or_default().push(drawn);
                }
            }
            &Owner::Trained(k) => {
                let matrices = thetas.matrices(&context.wanted())?;
                let member = self.member(k);
                let planned = &context.plan.adapters[member.adapter];
                let paired = self.paired(k);
                let (name, module) = (&planned.adapter.name, &planned.modules[member.module].name);
                let conversion = thetas.row(name, module, paired, self.group.convention, &matrices);
                // What is made of W0 cannot be read again without it.
                let of_w0 = matches!(paired.adapter_layer.source, FactorSource::Shared { .. });
                let is_made = self.relates() && (of_w0 || self.job.for_later);
                self.solved.members[k] = Some(MemberLayer {
                    conversion,
                    matrices: matrices.by_kind,
                    untrained: BTreeMap::new(),
                    images: None,
                    made: is_made.then(|| of.factors.clone()),
                });
            }
            &Owner::Untrained(k) => {
                let matrices = thetas.matrices(&context.wanted_of_init())?;
                // None where the trained factors could not be read (`--keep-going`).
                if let Some(member) = &mut self.solved.members[k] {
                    member.untrained = matrices.by_kind;
                }
            }
        }
        Ok(())
    }
}
