//! What is solved when, so that memory stays within its limit: passes over the weights of a group, and waves of passes that run together.
//!
//! A result's bits never depend on this: only what is held at the same time does.

use std::ops::Range;

use super::context::Context;
use super::grouping::{Group, Member};
use super::layer::columns_together;
use super::measured::PairMeasures;
use super::memory::show;
use super::params::View;
use crate::error::{Error, Result};
use crate::linalg::perturbation::SAMPLES;
use crate::table::{AcrossRow, ConversionRow, GridRow, InputRecord, MeasureRow, SimilarityRow, SummaryRow};
use crate::terms::{Convention, MatrixKind, Side};

/// What the program needs before it has read anything, OpenBLAS and the threads' stacks included, and to draw figures at the end.
const PROGRAM: u64 = 20 << 20;
/// What a thread keeps for small matrices.
const THREAD: u64 = 2 << 20;
/// What one allocation costs beyond its bytes.
const ALLOCATION: u64 = 16;

/// One reading of a group's weights: what is solved through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) group: usize,
    /// Of the group's members.
    pub(super) members: Range<usize>,
    /// Of the controls.
    pub(super) draws: Range<usize>,
    /// Whether adapters are compared with one another: then all members are there.
    pub(super) across: bool,
    /// Whether the layers of each adapter are compared: then their vectors are kept until all are there.
    pub(super) within: bool,
}

/// All passes in the order they run.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Passes that run at the same time.
    pub(super) waves: Vec<Vec<Pass>>,
    /// How many weights are in memory at a time.
    pub(super) workers: usize,
}

impl Schedule {
    /// Divides the work so that it fits into `limit` bytes.
    ///
    /// # Errors
    /// [`Error::Resource`] where even the smallest part does not fit.
    pub(super) fn make(context: &Context<'_>, threads: usize, limit: Option<u64>) -> Result<Self> {
        let needs: Vec<Need> = context.plan.groups.iter().map(|group| Need::of(context, group)).collect();
        let fixed = PROGRAM + THREAD * threads as u64 + needs.iter().map(|need| need.rows).sum::<u64>();
        let in_flight = needs.iter().map(|need| need.in_flight).max().unwrap_or(0);
        let retained: u64 = needs.iter().map(Need::retained).sum();
        let limit = limit.unwrap_or(u64::MAX);
        let left = limit.saturating_sub(fixed);
        // All at once with every thread; or else half for the weights in flight, and half for what is kept.
        let mut workers = threads.max(1);
        if left < retained.saturating_add(in_flight * workers as u64) {
            workers = usize::try_from(left / 2 / in_flight.max(1)).unwrap_or(threads).clamp(1, threads.max(1));
        }
        let largest = needs.iter().map(Need::largest).max().unwrap_or(0);
        while workers > 1 && left < in_flight * workers as u64 + largest {
            workers -= 1;
        }
        if left < in_flight + largest {
            return Err(too_large(limit, fixed, in_flight, largest));
        }
        let room = left - in_flight * workers as u64;
        let mut waves: Vec<Vec<Pass>> = Vec::new();
        let mut used = 0;
        for (group, need) in needs.iter().enumerate() {
            for (pass, size) in need.passes(group, room, context.across()) {
                match waves.last_mut() {
                    Some(wave) if used + size <= room && wave.iter().all(|other| other.group != group) => {
                        wave.push(pass);
                        used += size;
                    }
                    _ => {
                        waves.push(vec![pass]);
                        used = size;
                    }
                }
            }
        }
        Ok(Self { waves, workers })
    }

    /// The passes of a study that compares adapters only.
    pub(super) fn across_only(context: &Context<'_>, threads: usize, limit: Option<u64>) -> Result<Self> {
        let needs: Vec<Need> = context.plan.groups.iter().map(|group| Need::of(context, group)).collect();
        let fixed = PROGRAM + THREAD * threads as u64 + needs.iter().map(|need| need.across_rows).sum::<u64>();
        let in_flight = needs.iter().map(|need| need.in_flight + need.all_at_one_layer).max().unwrap_or(0);
        let limit = limit.unwrap_or(u64::MAX);
        let left = limit.saturating_sub(fixed);
        if left < in_flight {
            return Err(too_large(limit, fixed, in_flight, 0));
        }
        let workers = usize::try_from(left / in_flight.max(1)).unwrap_or(threads).clamp(1, threads.max(1));
        let pass = |group: usize| {
            let members = 0..context.plan.groups[group].members.len();
            Pass { group, members, draws: 0..0, across: true, within: false }
        };
        Ok(Self { waves: vec![(0..needs.len()).map(pass).collect()], workers })
    }

    /// How many times a weight is read and factorised.
    pub(super) fn jobs(&self, groups: &[Group]) -> usize {
        self.waves.iter().flatten().map(|pass| groups[pass.group].layers.len()).sum()
    }
}

fn too_large(limit: u64, fixed: u64, in_flight: u64, largest: u64) -> Error {
    Error::Resource {
        what: "the study needs more memory than it may use".into(),
        expected: format!("at most {}", show(limit)),
        found: format!(
            "{} ({} for tables and figures, {} for one base weight, {} for one adapter or draw)",
            show(fixed + in_flight + largest),
            show(fixed),
            show(in_flight),
            show(largest)
        ),
        hint: Some(
            "raise --memory-limit, or ask for less with --modules, --layers, --null-draws or fewer adapters at a time".into(),
        ),
    }
}

/// Estimated bytes of one group.
struct Need {
    /// For one weight while it is solved through.
    in_flight: u64,
    /// For the vectors of one draw at all layers.
    draw: u64,
    draws: usize,
    /// For the vectors of each member at all its layers.
    members: Vec<u64>,
    /// For the vectors of all members at the layer that has most.
    all_at_one_layer: u64,
    /// For the rows and records of all members.
    rows: u64,
    /// For the rows of `across.csv`, a part of that.
    across_rows: u64,
}

impl Need {
    fn of(context: &Context<'_>, group: &Group) -> Self {
        let lengths = |index: usize, rank: usize, views: &[View]| -> u64 {
            let layer = &group.layers[index];
            views.iter().map(|view| vector_bytes(context, group.convention, (layer.d_out, layer.d_in), rank, *view)).sum()
        };
        let whole = |index: usize, rank: usize, matrices: &[MatrixKind]| -> u64 {
            let layer = &group.layers[index];
            let lengths = matrices.iter().map(|&matrix| left_length(group.convention, (layer.d_out, layer.d_in), matrix));
            8 * (rank * lengths.sum::<usize>()) as u64
        };
        let copies = |member: &Member| if context.plan.adapters[member.adapter].init.is_some() { 2 } else { 1 };
        let member_layer = |member: &Member, k: usize| {
            // Beside the vectors: the spectra of three matrices, and how their vectors are expected to turn.
            let rank = member.ranks[k];
            let vectors = lengths(member.at[k], rank, &context.views) + 8 * (rank * (4 + 3 * (SAMPLES + rank))) as u64;
            copies(member) * vectors + whole(member.at[k], member.ranks[k], &context.by_cka)
        };
        let members: Vec<u64> =
            group.members.iter().map(|member| (0..member.at.len()).map(|k| member_layer(member, k)).sum()).collect();
        let at_layer = |index: usize| -> u64 {
            group.members.iter().filter_map(|member| Some(member_layer(member, member.position(index)?))).sum()
        };
        let draw_layer = |index: usize| -> u64 {
            let of_rank = |&rank: &usize| lengths(index, rank, &context.drawn_views) + whole(index, rank, &context.drawn_by_cka);
            context.drawn_ranks(group, index).iter().map(of_rank).sum()
        };
        let across_rows = if context.across() { across_rows(context, group) } else { 0 };
        let index = 0..group.layers.len();
        Self {
            in_flight: index.clone().map(|index| in_flight(context, group, index)).max().unwrap_or(0),
            draw: index.clone().map(draw_layer).sum(),
            draws: context.draws_of(group),
            all_at_one_layer: index.map(at_layer).max().unwrap_or(0),
            rows: group.members.iter().map(|member| rows(context, member)).sum::<u64>()
                + control_cells(context, group)
                + group.layers.iter().map(|layer| 8 * (SAMPLES * (layer.d_out + layer.d_in)) as u64).sum::<u64>()
                + across_rows,
            members,
            across_rows,
        }
    }

    fn retained(&self) -> u64 {
        self.draw * self.draws as u64 + self.members.iter().sum::<u64>()
    }

    /// The largest part that cannot be divided.
    fn largest(&self) -> u64 {
        self.members.iter().copied().max().unwrap_or(0).max(if self.draws > 0 { self.draw } else { 0 }).max(self.across_part())
    }

    /// What comparing adapters holds at one layer where not all members are in one pass.
    fn across_part(&self) -> u64 {
        if self.across_rows > 0 { self.all_at_one_layer } else { 0 }
    }

    /// Draws first, then members, as many in each pass as there is room for; with the bytes of each pass.
    fn passes(&self, group: usize, room: u64, across: bool) -> Vec<(Pass, u64)> {
        let empty = |members: usize, draws: usize| {
            let (members, draws) = (members..members, draws..draws);
            Pass { group, members, draws, across: false, within: true }
        };
        let (mut done, mut pass, mut used) = (Vec::new(), empty(0, 0), 0);
        let items = std::iter::repeat_n((true, self.draw), self.draws).chain(self.members.iter().map(|&size| (false, size)));
        for (is_draw, size) in items {
            if used + size > room && used > 0 {
                let next = empty(pass.members.end, pass.draws.end);
                done.push((std::mem::replace(&mut pass, next), used));
                used = 0;
            }
            used += size;
            let range = if is_draw { &mut pass.draws } else { &mut pass.members };
            range.end += 1;
        }
        done.push((pass, used));
        if across {
            let all = 0..self.members.len();
            match done.iter_mut().find(|(pass, _)| pass.members == all) {
                Some((pass, _)) => pass.across = true,
                None => {
                    let pass = Pass { group, members: all, draws: 0..0, across: true, within: false };
                    done.push((pass, self.all_at_one_layer));
                }
            }
        }
        done
    }
}

/// The vectors of one view.
fn vector_bytes(context: &Context<'_>, convention: Convention, (d_out, d_in): (usize, usize), rank: usize, view: View) -> u64 {
    let length = match (view.matrix, view.side) {
        (MatrixKind::A | MatrixKind::B, Side::Right) => rank,
        (matrix, _) => left_length(convention, (d_out, d_in), matrix),
    };
    8 * (length * context.wanted().most_of(rank)) as u64
}

/// The length of a matrix's left vectors, or of the vectors that a factor is compared by.
fn left_length(convention: Convention, (d_out, d_in): (usize, usize), matrix: MatrixKind) -> usize {
    match matrix {
        MatrixKind::A if convention != Convention::Paper => d_out,
        MatrixKind::LoraB => d_out,
        _ => d_in,
    }
}

/// One weight with everything that is there while it is solved through.
fn in_flight(context: &Context<'_>, group: &Group, index: usize) -> u64 {
    let layer = &group.layers[index];
    let (d_out, d_in) = (layer.d_out as u64, layer.d_in as u64);
    let stored = context.plan.bases[group.base].info(&layer.tensor).map_or(8 * d_out * d_in, |info| info.len() as u64 * 4);
    let turned = if layer.transposed { 8 * d_out * d_in } else { 0 };
    let by_lu = d_out == d_in && context.config.params().rcond.is_none();
    // LU works in place; least squares holds W, its factors and what LAPACK needs for them.
    let factors = 8 * d_out * d_in * if by_lu { 1 } else { 5 };
    let rank = group.members.iter().filter_map(|m| Some(m.ranks[m.position(index)?])).max().unwrap_or(0) as u64;
    let columns = columns_together(layer.d_out.max(layer.d_in)) as u64 + 2 * rank;
    // Targets, right-hand sides, what is left of them, solutions, and one more of each while one becomes another. A CondLoRA's factors are
    // made before the solve, in less room than that: Θ and the product, each once more as panels, and some rows of W0.
    let panels = 8 * 6 * columns * d_out.max(d_in);
    stored + turned + factors + panels
}

/// The rows of one member in all tables, and the records of what was read for it.
fn rows(context: &Context<'_>, member: &Member) -> u64 {
    let planned = &context.plan.adapters[member.adapter];
    let names = (planned.adapter.name.len() + planned.modules[member.module].name.len()) as u64 + 2 * ALLOCATION;
    let layers = member.at.len() as u64;
    let grids = (context.views.len() * context.pairs_for(member.ranks.iter().copied()).len()) as u64;
    let measures = size_of::<MeasureRow>() as u64 + names;
    let of_cell = size_of::<SimilarityRow>() as u64 + names + measures * (PairMeasures::count(context.measures()) - 1) as u64;
    let similarity = (of_cell * grids + measures * context.by_cka.len() as u64) * layers * layers;
    let most = member.ranks.iter().copied().max().unwrap_or(0) as u64;
    let chosen = (context.views.len() * context.config.params().grid.len()) as u64 * most * most;
    let by_number = (size_of::<GridRow>() as u64 + names) * chosen;
    let keys: u64 = planned.modules[member.module]
        .layers
        .iter()
        .map(|layer| (layer.adapter_layer.adapter_key.len() + layer.tensor.len()) as u64 + 6 * ALLOCATION)
        .sum();
    let conversion = (size_of::<ConversionRow>() as u64 + names) * layers + keys;
    // Hash, file and tensor names of W0, A and B, as they are read and as the manifest has them.
    let records = 2 * 3 * (size_of::<InputRecord>() as u64 + 320) * layers;
    // Twice: rows move from each adapter's tables to the study's, and lie between vectors whose room is not always given back.
    2 * (similarity + by_number + conversion + (size_of::<SummaryRow>() as u64 + names) * grids) + records
}

fn across_rows(context: &Context<'_>, group: &Group) -> u64 {
    let ij = context.pairs_for(group.members.iter().flat_map(|member| member.ranks.iter().copied())).len();
    let name = |member: &Member| context.plan.adapters[member.adapter].adapter.name.len() as u64;
    let longest = group.members.iter().map(name).max().unwrap_or(0);
    let row = size_of::<AcrossRow>() as u64 + group.name.len() as u64 + 2 * longest + 3 * ALLOCATION;
    let cells = |index: usize| {
        let present = group.members.iter().filter(|member| member.position(index).is_some()).count() as u64;
        present * present
    };
    row * (context.views.len() * ij) as u64 * (0..group.layers.len()).map(cells).sum::<u64>()
}

/// The cells of the controls, one set for each combination of layers and ranks (counted as one).
fn control_cells(context: &Context<'_>, group: &Group) -> u64 {
    let most = group.members.iter().map(|member| member.at.len()).max().unwrap_or(0) as u64;
    let pairs = context.pairs_for([1]).len();
    let controls = context.draws_of(group) + context.w0_draws_of(group);
    let measures = context.views.len() * pairs * PairMeasures::count(context.measures()) + context.by_cka.len();
    size_of::<Option<f64>>() as u64 * most * most * (measures * controls) as u64
}
