//! One base weight: read it, solve all targets through it, and keep the singular vectors that will be compared.

use std::collections::BTreeMap;

use ndarray::{Array2, s};

use super::across;
use super::context::Context;
use super::grouping::{Group, GroupLayer, Member};
use super::layer_matrix::LayerMatrix;
use super::matrices::{Solved, drawn_vectors};
use super::plan::init_layer;
use super::schedule::Pass;
use super::stored::{FactorPair, StoredWeight};
use crate::checkpoint::InputRecord;
use crate::controls::{Control, Factor, draw};
use crate::conversion::{ConversionMatrix, Equation, Solver, Target, Workspace};
use crate::error::{Error, Result};
use crate::table::{AcrossRow, ConversionRow};
use crate::terms::{Convention, MatrixKind};

/// Bytes of right-hand sides that are solved together: enough to keep the kernels busy, few enough to stay in the caches.
const TOGETHER: usize = 2 << 20;
/// However long the columns, so many are solved together.
const FEWEST: usize = 64;

/// What is kept of one base weight.
#[derive(Default)]
pub(super) struct SolvedLayer {
    /// One for each member of the pass; none where it has no such layer or fell out.
    pub(super) members: Vec<Option<MemberLayer>>,
    /// By rank: for each draw of the pass, the vectors of each drawn view, then each drawn matrix that CKA compares.
    pub(super) w0_draws: BTreeMap<usize, Vec<DrawnVectors>>,
    /// Adapters against one another, where that was asked for.
    pub(super) across: Vec<AcrossRow>,
    pub(super) inputs: Vec<InputRecord>,
    /// Adapters that fell out here, and why.
    pub(super) failed: Vec<(usize, Error)>,
}

/// For each view the vectors of one draw, then each matrix that CKA compares.
pub(super) type DrawnVectors = Vec<Option<Array2<f64>>>;

/// What is kept of one adapter's layer.
pub(super) struct MemberLayer {
    pub(super) conversion: ConversionRow,
    /// In the order of the study's matrices.
    pub(super) matrices: Vec<(MatrixKind, LayerMatrix)>,
    /// The untrained adapter's, in the same order; empty without `--init`.
    pub(super) init: Vec<(MatrixKind, LayerMatrix)>,
}

impl MemberLayer {
    /// The matrix of this kind.
    pub(super) fn matrix(&self, kind: MatrixKind) -> Option<&LayerMatrix> {
        find(&self.matrices, kind)
    }

    /// The untrained adapter's.
    pub(super) fn init(&self, kind: MatrixKind) -> Option<&LayerMatrix> {
        find(&self.init, kind)
    }
}

fn find(matrices: &[(MatrixKind, LayerMatrix)], kind: MatrixKind) -> Option<&LayerMatrix> {
    matrices.iter().find(|(k, _)| *k == kind).map(|(_, m)| m)
}

/// Columns of this length that are solved together.
pub(crate) fn columns_together(length: usize) -> usize {
    (TOGETHER / (size_of::<f64>() * length.max(1))).max(FEWEST)
}

/// Reads and solves layer `index` of a group for the members and draws of a pass.
///
/// # Errors
/// What is wrong with the base weight or a factor; with `--keep-going` those are in [`SolvedLayer::failed`].
pub(super) fn solve_layer(context: &Context<'_>, pass: &Pass, index: usize, workspace: &mut Workspace) -> Result<SolvedLayer> {
    let group = &context.plan.groups[pass.group];
    let mut work = Work {
        context,
        group,
        pass,
        index,
        layer: &group.layers[index],
        found: SolvedLayer { members: pass.members.clone().map(|_| None).collect(), ..Default::default() },
    };
    match work.run(workspace) {
        Ok(()) => Ok(work.found),
        Err(error) if context.keep_going() => {
            // Without this weight none of its adapters can be analysed.
            let users = group.members.iter().filter(|member| member.position(index).is_some());
            let failed = users.map(|member| (member.adapter, error.clone())).collect();
            Ok(SolvedLayer { members: work.found.members.iter().map(|_| None).collect(), failed, ..Default::default() })
        }
        Err(error) => Err(error),
    }
}

/// One right-hand side pair and what it stands for.
struct Item {
    what: What,
    factors: FactorPair,
}

#[derive(Clone, Copy)]
enum What {
    /// The pass's member of this number.
    Trained(usize),
    /// Its untrained adapter.
    Untrained(usize),
    /// A draw of the `w0` control.
    Draw(usize),
}

struct Work<'a> {
    context: &'a Context<'a>,
    group: &'a Group,
    pass: &'a Pass,
    index: usize,
    layer: &'a GroupLayer,
    found: SolvedLayer,
}

impl Work<'_> {
    fn run(&mut self, workspace: &mut Workspace) -> Result<()> {
        let (context, pass) = (self.context, self.pass);
        let users = self.group.members[pass.members.clone()].iter().any(|member| member.position(self.index).is_some());
        if !users && pass.draws.is_empty() {
            return Ok(());
        }
        let raw = context.clock.read.time(|| context.plan.bases[self.group.base].read(&self.layer.tensor))?;
        self.found.inputs.push(InputRecord::of(&raw));
        let w0 = StoredWeight::new(raw, self.layer);
        let explain = |error| w0.explain(error);
        let solver = context.clock.solve.time(|| Solver::new(&w0, context.config.params().rcond, workspace));
        let mut solver = solver.map_err(explain)?;

        let ranks = context.drawn_ranks(self.group, self.index);
        let together = columns_together(self.layer.d_out.max(self.layer.d_in));
        let mut waiting: Vec<Item> = Vec::new();
        let mut columns = 0;
        let trained = (0..pass.members.len()).flat_map(|k| [What::Trained(k), What::Untrained(k)]);
        let drawn = pass.draws.clone().filter(|_| !ranks.is_empty()).map(What::Draw);
        for what in trained.chain(drawn) {
            let Some(factors) = self.factors(what, &w0, ranks.last().copied())? else { continue };
            columns += 2 * factors.rank();
            waiting.push(Item { what, factors });
            if columns >= together {
                self.solve(&mut solver, &waiting, &ranks).map_err(explain)?;
                waiting.clear();
                columns = 0;
            }
        }
        self.solve(&mut solver, &waiting, &ranks).map_err(explain)?;
        if pass.across {
            self.found.across = across::rows(context, self.group, self.index, &self.found.members);
        }
        Ok(())
    }

    fn member(&self, k: usize) -> &Member {
        &self.group.members[self.pass.members.start + k]
    }

    /// Reads or draws one pair; none where there is none.
    fn factors(&mut self, what: What, w0: &StoredWeight, largest_rank: Option<usize>) -> Result<Option<FactorPair>> {
        let (context, layer) = (self.context, self.layer);
        let member = match what {
            What::Draw(number) => {
                let gaussian = |factor, length| {
                    draw(context.seed(), Control::W0, &layer.stream(), factor, number, length, largest_rank.unwrap_or_default())
                };
                return Ok(Some(FactorPair {
                    a_transposed: gaussian(Factor::A, layer.d_in),
                    b: gaussian(Factor::B, layer.d_out),
                }));
            }
            What::Trained(k) | What::Untrained(k) => self.member(k),
        };
        let number = member.adapter;
        let Some(paired) = member.layer(&context.plan.adapters, self.index) else { return Ok(None) };
        if self.found.failed.iter().any(|(adapter, _)| *adapter == number) {
            return Ok(None);
        }
        let planned = &context.plan.adapters[number];
        let source = match what {
            What::Untrained(_) => planned.init.as_ref().and_then(|init| Some((init, init_layer(init, &paired.adapter_layer)?))),
            _ => Some((&planned.adapter, &paired.adapter_layer)),
        };
        let Some((adapter, of)) = source else { return Ok(None) };
        let inputs = &mut self.found.inputs;
        match context.clock.read.time(|| FactorPair::read(adapter, of, w0, inputs)) {
            Ok(factors) => Ok(Some(factors)),
            Err(error) if context.keep_going() => {
                self.found.failed.push((number, error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Solves for the waiting pairs and keeps what is wanted of each.
    fn solve(&mut self, solver: &mut Solver<'_, StoredWeight>, items: &[Item], ranks: &[usize]) -> Result<()> {
        let equation_a = if self.group.convention == Convention::Paper { Equation::W0 } else { Equation::W0Transposed };
        let targets: Vec<Target<'_>> = items.iter().flat_map(|item| item.factors.targets(equation_a)).collect();
        let (thetas, condition) = self.context.clock.solve.time(|| -> Result<_> {
            Ok((solver.solve(&targets)?, if items.is_empty() { f64::NAN } else { solver.condition()? }))
        })?;
        self.context.clock.subspaces.time(|| {
            for (item, pair) in items.iter().zip(thetas.chunks_exact(2)) {
                self.keep(item, [&pair[0], &pair[1]], condition, ranks)?;
            }
            Ok(())
        })
    }

    fn keep(&mut self, item: &Item, thetas: [&ConversionMatrix; 2], condition: f64, ranks: &[usize]) -> Result<()> {
        let context = self.context;
        let n = self.layer.d_out.max(self.layer.d_in);
        let solved = Solved { factors: &item.factors, a: thetas[0], b: thetas[1], condition, n };
        match item.what {
            What::Draw(_) => {
                for &rank in ranks {
                    let cut = s![.., ..rank];
                    let vectors = drawn_vectors(
                        &context.wanted_of_draws(),
                        thetas[0].theta.slice(cut),
                        thetas[1].theta.slice(cut),
                        item.factors.a_transposed.slice(cut),
                    )?;
                    self.found.w0_draws.entry(rank).or_default().push(vectors);
                }
            }
            What::Trained(k) => {
                let compared = solved.compare(&context.wanted())?;
                let member = self.member(k);
                let planned = &context.plan.adapters[member.adapter];
                let Some(paired) = member.layer(&context.plan.adapters, self.index) else { return Ok(()) };
                let (name, module) = (&planned.adapter.name, &planned.modules[member.module].name);
                let conversion = solved.row(name, module, paired, self.group.convention, &compared);
                self.found.members[k] = Some(MemberLayer { conversion, matrices: compared.matrices, init: Vec::new() });
            }
            What::Untrained(k) => {
                let compared = solved.compare(&context.wanted_of_init())?;
                if let Some(member) = &mut self.found.members[k] {
                    member.init = compared.matrices;
                }
            }
        }
        Ok(())
    }
}
