//! The order of the work that keeps memory within its limit: passes over the weights of a group, and rounds of passes that run together.
//!
//! The bits of a result never depend on the schedule; it only decides what is in memory at the same time.

use super::context::Context;
use super::decompositions::{ALWAYS, Decompositions};
use super::params::View;
use super::plan::{Group, Member, Pass};
use super::solve::{DRAWS_TOGETHER, drawn_factors};
use crate::conversion::{Equation, columns_together};
use crate::error::{Error, Result, field};
use crate::inputs::{BaseWeight, show_bytes};
use crate::linalg::perturbation::SAMPLES;
use crate::linalg::qr::qr_bytes;
use crate::record::InputRecord;
use crate::relation::TOGETHER;
use crate::table::{AcrossRow, ConversionRow, GridRow, MeasureRow, SimilarityRow, SummaryRow};
use crate::terms::{Convention, MatrixKind, Side};

/// What the program needs before it has read anything, OpenBLAS and the threads' stacks included. Figures are drawn when no weight is in
/// memory any more, and take less than one did.
const PROGRAM: u64 = 16 << 20;
/// What a thread keeps for small matrices.
const THREAD: u64 = 2 << 20;
/// What one allocation costs beyond its bytes.
const ALLOCATION: u64 = 16;

/// Up to here the singular bases of several modules are kept at the same time: with more of them memory grows, and threads find no more to do.
const KEPT_TOGETHER: u64 = 512 << 20;

/// All passes in the order they run.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Passes that run at the same time.
    pub(super) rounds: Vec<Vec<Pass>>,
    /// How many weights are in memory at a time.
    pub(super) workers: usize,
}

impl Schedule {
    /// Divides the work so that it fits into `limit` bytes. Where shards have solved through the weights, what is in flight is a file and what is in it.
    ///
    /// # Errors
    /// [`Error::Resource`] where even the smallest part does not fit.
    pub(super) fn make(
        context: &Context<'_>,
        decompositions: &Decompositions,
        solved: bool,
        threads: usize,
        limit: Option<u64>,
    ) -> Result<Self> {
        let needs = needs(context, decompositions, threads);
        let of_weight = |need: &Need| if solved { 2 * need.whole_layer } else { need.in_flight };
        let fixed = PROGRAM + THREAD * threads as u64 + needs.iter().map(|need| need.rows).sum::<u64>();
        let in_flight = needs.iter().map(of_weight).max().unwrap_or(0);
        let retained: u64 = needs.iter().map(Need::retained).sum();
        let limit = limit.unwrap_or(u64::MAX);
        let left = limit.saturating_sub(fixed);
        // If everything fits, one round with every thread. Otherwise half of the memory is for the weights in flight, half for what is kept.
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
        let mut rounds: Vec<Vec<Pass>> = Vec::new();
        let (mut used, mut kept) = (0, 0);
        for (group, need) in needs.iter().enumerate() {
            for (pass, size) in need.passes(group, room - need.kept, context.across()) {
                let size = size + need.kept;
                match rounds.last_mut() {
                    Some(round)
                        if used + size <= room
                            && kept + need.kept <= KEPT_TOGETHER
                            && round.iter().all(|other| other.group != group) =>
                    {
                        round.push(pass);
                        used += size;
                        kept += need.kept;
                    }
                    _ => {
                        rounds.push(vec![pass]);
                        (used, kept) = (size, need.kept);
                    }
                }
            }
        }
        Ok(Self { rounds, workers })
    }

    /// For a shard, which keeps nothing of a weight once its file is written.
    ///
    /// # Errors
    /// [`Error::Resource`] where a weight does not fit.
    pub(super) fn shard(
        context: &Context<'_>,
        decompositions: &Decompositions,
        threads: usize,
        limit: Option<u64>,
    ) -> Result<Self> {
        let needs = needs(context, decompositions, threads);
        let fixed = PROGRAM + THREAD * threads as u64;
        let in_flight = needs.iter().map(|need| need.in_flight + 2 * need.whole_layer).max().unwrap_or(0);
        let limit = limit.unwrap_or(u64::MAX);
        let left = limit.saturating_sub(fixed);
        if left < in_flight {
            return Err(too_large(limit, fixed, in_flight, 0));
        }
        let workers = usize::try_from(left / in_flight.max(1)).unwrap_or(threads).clamp(1, threads.max(1));
        Ok(Self { rounds: Vec::new(), workers })
    }

    /// How many times a weight is read and factorised.
    pub(super) fn readings(&self, groups: &[Group]) -> usize {
        self.rounds.iter().flatten().map(|pass| groups[pass.group].layers.len()).sum()
    }
}

fn needs(context: &Context<'_>, decompositions: &Decompositions, threads: usize) -> Vec<Need> {
    let groups = context.plan.groups.iter().enumerate();
    groups.map(|(number, group)| Need::of(context, group, decompositions.of(number), threads)).collect()
}

fn too_large(limit: u64, fixed: u64, in_flight: u64, largest: u64) -> Error {
    Error::Resource {
        what: "the study needs more memory than it may use".into(),
        expected: format!("at most {}", show_bytes(limit)),
        found: format!(
            "{} ({} for tables and figures, {} for one base weight, {} for one adapter or draw and what is kept of the weights)",
            show_bytes(fixed + in_flight + largest),
            show_bytes(fixed),
            show_bytes(in_flight),
            show_bytes(largest)
        ),
        hint: Some(format!(
            "raise {}, leave the strict control out, or ask for less with {}, {}, {} or fewer adapters at a time",
            field("memory_limit"),
            field("modules"),
            field("layers"),
            field("null_draws")
        )),
    }
}

/// Estimated bytes of one group.
struct Need {
    /// For one weight while it is decomposed or solved through.
    in_flight: u64,
    /// For what is kept of all weights from the first pass to the last, and for comparing a member with them on each thread.
    kept: u64,
    /// For the vectors of one draw at all layers.
    draw: u64,
    draws: usize,
    /// For the vectors of each member at all its layers.
    members: Vec<u64>,
    /// For the vectors of all members at the layer that has most.
    all_at_one_layer: u64,
    /// For everything that is known of one weight, its members and all draws.
    whole_layer: u64,
    /// For the rows and records of all members.
    rows: u64,
    /// For the rows of `across.csv`, which are included in that.
    across_rows: u64,
}

impl Need {
    fn of(context: &Context<'_>, group: &Group, decomposed: bool, threads: usize) -> Self {
        let lengths = |index: usize, rank: usize, views: &[View]| -> u64 {
            let layer = &group.layers[index];
            views.iter().map(|view| vector_bytes(context, group.convention, (layer.d_out, layer.d_in), rank, *view)).sum()
        };
        let whole = |index: usize, rank: usize, matrices: &[MatrixKind]| -> u64 {
            let layer = &group.layers[index];
            let lengths = matrices.iter().map(|&matrix| left_length(group.convention, (layer.d_out, layer.d_in), matrix));
            8 * (rank * lengths.sum::<usize>()) as u64
        };
        let member_layer = |member: &Member, k: usize| {
            // In addition to the vectors: the spectra of three matrices, and how their vectors are expected to turn.
            let rank = member.ranks[k];
            let vectors = lengths(member.at[k], rank, &context.views) + 8 * (rank * (4 + 3 * (SAMPLES + rank))) as u64;
            member.copies(&context.plan.adapters) as u64 * vectors
                + whole(member.at[k], rank, &context.by_cka)
                + related_bytes(context, group, member, k, decomposed)
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
            in_flight: index.clone().map(|index| in_flight(context, group, index, decomposed)).max().unwrap_or(0),
            kept: index.clone().map(|index| kept_for_comparison(context, group, index, decomposed, threads)).sum(),
            draw: index.clone().map(draw_layer).sum(),
            draws: context.draws_of(group),
            all_at_one_layer: index.clone().map(at_layer).max().unwrap_or(0),
            whole_layer: index
                .map(|index| {
                    let kept = kept_for_comparison(context, group, index, decomposed, threads);
                    at_layer(index) + context.draws_of(group) as u64 * draw_layer(index) + kept
                })
                .max()
                .unwrap_or(0),
            rows: group.members.iter().map(|member| rows(context, member)).sum::<u64>()
                + control_cells(context, group)
                + group.layers.iter().map(|layer| kept_of_weight(context, layer)).sum::<u64>()
                + across_rows,
            members,
            across_rows,
        }
    }

    fn retained(&self) -> u64 {
        self.draw * self.draws as u64 + self.members.iter().sum::<u64>() + self.kept
    }

    /// The largest part that cannot be divided.
    fn largest(&self) -> u64 {
        let draw = if self.draws > 0 { self.draw } else { 0 };
        self.members.iter().copied().max().unwrap_or(0).max(draw).max(self.across_part()) + self.kept
    }

    /// The memory for comparing adapters at one layer where not all members are in one pass.
    fn across_part(&self) -> u64 {
        if self.across_rows > 0 { self.all_at_one_layer } else { 0 }
    }

    /// Draws first, then members, as many in each pass as there is room for, with the bytes of each pass.
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

/// What is kept of a base weight itself: its random vectors, and with `rcond` its singular vectors.
fn kept_of_weight(context: &Context<'_>, layer: &BaseWeight) -> u64 {
    let singular = if context.config.params().rcond.is_some() { layer.d_out.min(layer.d_in) } else { 0 };
    8 * ((SAMPLES + singular) * (layer.d_out + layer.d_in)) as u64
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

/// What is kept of a weight for the comparison of its members with it, and what that takes on every thread.
fn kept_for_comparison(context: &Context<'_>, group: &Group, index: usize, decomposed: bool, threads: usize) -> u64 {
    if !context.relates() {
        return 0;
    }
    let layer = &group.layers[index];
    let (d_out, d_in) = (layer.d_out as u64, layer.d_in as u64);
    let rank = group.members.iter().filter_map(|member| Some(member.ranks[member.position(index)?])).max().unwrap_or(1) as u64;
    let cuts = context.config.params().cuts.as_ref().map_or(ALWAYS.len(), Vec::len) as u64;
    // Without a singular basis the images of all draws.
    let length = |equation| if equation == Equation::W0 { d_in } else { d_out };
    let lengths: u64 = drawn_factors(context, group).into_iter().map(|(_, equation)| length(equation)).sum();
    let drawn = 8 * context.draws_of(group) as u64 * rank * lengths;
    let of_weight = if decomposed { 8 * d_out.min(d_in) * (d_out + d_in) } else { drawn };
    // A member's vectors at every cut; in a basis those of some draws, too, stacked, and on the side where Θ lives, twice.
    let turned = if decomposed { 4 * cuts.max(TOGETHER as u64) * d_out.max(d_in) } else { 0 };
    let of_member = 8 * rank * ((d_out + d_in) * (4 + 2 * cuts) + turned);
    of_weight + of_member * threads as u64
}

/// What is kept of a member's layer for that.
fn related_bytes(context: &Context<'_>, group: &Group, member: &Member, k: usize, decomposed: bool) -> u64 {
    let (layer, rank) = (&group.layers[member.at[k]], member.ranks[k]);
    // A CondLoRA's factors, too, though few adapters are one; the images of both factors and of the update.
    let images = if decomposed || !context.relates() { 0 } else { layer.d_in + layer.d_out.max(layer.d_in) + rank };
    8 * (rank * images) as u64
}

/// The memory for one weight and everything that exists while it is being decomposed or solved through.
fn in_flight(context: &Context<'_>, group: &Group, index: usize, decomposed: bool) -> u64 {
    let layer = &group.layers[index];
    let (d_out, d_in) = (layer.d_out as u64, layer.d_in as u64);
    let whole = 8 * d_out * d_in;
    let stored = context.plan.bases[group.base].info(&layer.tensor).map_or(whole, |info| info.len() as u64 * 4);
    let turned = if layer.transposed { whole } else { 0 };
    // LU and QR work in place; an SVD holds W, its factors and what LAPACK needs for them.
    let factors = match context.config.params().rcond {
        Some(_) => 5 * whole,
        None if d_out == d_in => whole,
        None => qr_bytes(layer.d_out, layer.d_in),
    };
    let ranks = || group.members.iter().filter_map(|member| Some((member, member.ranks[member.position(index)?])));
    let rank = ranks().map(|(_, rank)| rank).max().unwrap_or(0);
    let of_members: usize = ranks().map(|(member, rank)| 2 * rank * member.copies(&context.plan.adapters)).sum();
    let draws = context.w0_draws_of(group).next_multiple_of(DRAWS_TOGETHER);
    // As many as are solved together and one more.
    let together = columns_together(layer.d_out.max(layer.d_in)) + 2 * rank * DRAWS_TOGETHER;
    let columns = together.min(of_members + 2 * rank * draws) as u64;
    // Targets, right-hand sides, residuals, solutions, and one more of each while one is converted into the next. A CondLoRA's factors are
    // made before the solve, in less room than that: Θ and the product, each once more as panels, and some rows of W0.
    let panels = 8 * 6 * columns * d_out.max(d_in);
    // W0 in f64 and scaled, the eigenproblem with what LAPACK needs for it, its vectors and their images; the basis is left.
    let decomposition = if decomposed { 8 * (4 * d_out * d_in + 6 * d_out.min(d_in).pow(2)) } else { 0 };
    stored + turned + factors + panels.max(decomposition)
}

/// The rows of one member in all tables, and the records of what was read for it.
fn rows(context: &Context<'_>, member: &Member) -> u64 {
    let planned = &context.plan.adapters[member.adapter];
    let names = (planned.adapter.name.len() + planned.modules[member.module].name.len()) as u64 + 2 * ALLOCATION;
    let layers = member.at.len() as u64;
    let grids = (context.views.len() * context.pairs_for(member.ranks.iter().copied()).len()) as u64;
    let measures = size_of::<MeasureRow>() as u64 + names;
    let of_cell = size_of::<SimilarityRow>() as u64 + names + measures * (context.measures_of_pair() - 1) as u64;
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
    let measures = context.views.len() * pairs * context.measures_of_pair() + context.by_cka.len();
    size_of::<Option<f64>>() as u64 * most * most * (measures * controls) as u64
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::path::Path;

    use super::*;
    use crate::study::AnalyzeParams;
    use crate::study::plan::Plan;
    use crate::study::stopwatch::Clock;

    /// Five draws of 10 bytes, members of 30, 30 and 50, and 40 at one layer.
    fn need() -> Need {
        Need {
            in_flight: 7,
            kept: 0,
            draw: 10,
            draws: 5,
            members: vec![30, 30, 50],
            all_at_one_layer: 40,
            whole_layer: 0,
            rows: 0,
            across_rows: 0,
        }
    }

    /// A pass as its members, its draws, whether it compares adapters and layers, and its bytes.
    type Flat = (Range<usize>, Range<usize>, bool, bool, u64);

    fn passes(need: &Need, room: u64, across: bool) -> Vec<Flat> {
        let flat = |(pass, size): (Pass, u64)| (pass.members, pass.draws, pass.across, pass.within, size);
        need.passes(3, room, across).into_iter().map(flat).collect()
    }

    #[test]
    fn what_fits_is_one_pass() {
        assert_eq!(need().retained(), 5 * 10 + 30 + 30 + 50);
        assert_eq!(passes(&need(), 160, false), [(0..3, 0..5, false, true, 160)]);
        assert_eq!(passes(&need(), 160, true), [(0..3, 0..5, true, true, 160)]);
        assert!(need().passes(3, 160, false).iter().all(|(pass, _)| pass.group == 3));
        assert_eq!(passes(&Need { draws: 0, members: vec![9], ..need() }, 9, false), [(0..1, 0..0, false, true, 9)]);
    }

    #[test]
    fn what_does_not_fit_is_divided_draws_first() {
        assert_eq!(passes(&need(), 159, false), [(0..2, 0..5, false, true, 110), (2..3, 5..5, false, true, 50)]);
        let (draws, members) = ((0..0, 0..5, false, true, 50), [0..1, 1..2, 2..3]);
        let [first, second, third] = members.map(|range| (range, 5..5, false, true));
        let of = |(members, draws, across, within): (Range<usize>, Range<usize>, bool, bool), size| {
            (members, draws, across, within, size)
        };
        let four = [draws, of(first, 30), of(second, 30), of(third, 50)];
        assert_eq!(passes(&need(), 50, false), four);
        // Comparing adapters needs all of them in one pass: if no pass has all, there is an extra pass, one layer at a time.
        assert_eq!(passes(&need(), 50, true), [&four[..], &[(0..3, 0..0, true, false, 40)]].concat());
        // 25 bytes: two draws at a time, and each member is alone though it is larger.
        let sizes: Vec<u64> = passes(&need(), 25, false).into_iter().map(|pass| pass.4).collect();
        assert_eq!(sizes, [20, 20, 10, 30, 30, 50]);
    }

    #[test]
    fn the_largest_part_is_what_cannot_be_divided() {
        assert_eq!(need().largest(), 50);
        assert_eq!(Need { members: vec![3], ..need() }.largest(), 10);
        assert_eq!(Need { members: vec![3], draws: 0, ..need() }.largest(), 3);
        assert_eq!(Need { members: vec![3], across_rows: 1, ..need() }.largest(), 40);
    }

    #[test]
    fn left_vectors_are_as_long_as_their_matrix_is_high() {
        let length = |convention, matrix| left_length(convention, (20, 30), matrix);
        use MatrixKind::{A, B, BA, LoraA, LoraB};
        assert_eq!([A, B, BA, LoraA, LoraB].map(|matrix| length(Convention::Paper, matrix)), [30, 30, 30, 30, 20]);
        assert_eq!([A, B, BA, LoraA, LoraB].map(|matrix| length(Convention::General, matrix)), [20, 30, 30, 30, 20]);
    }

    /// Three adapters of two modules on six layers.
    fn with_real_adapters(across: bool, test: impl Fn(&Context<'_>)) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks-data");
        let base = Some(data.join("base/all-MiniLM-L6-v2-qv"));
        let config = AnalyzeParams { paths: vec![data.join("adapters")], base, across, ..Default::default() }.check().unwrap();
        let plan = Plan::make(&config).unwrap();
        test(&Context::new(&config, &plan, &Clock::default()));
    }

    /// The numbers of these ranges, in their order.
    fn joined<'p>(ranges: impl Iterator<Item = &'p Range<usize>>) -> Vec<usize> {
        ranges.cloned().flatten().collect()
    }

    fn check(context: &Context<'_>, schedule: &Schedule, threads: usize, limit: u64) {
        let needs = needs(context, &Decompositions::plan(context), threads);
        let in_flight = needs.iter().map(|need| need.in_flight).max().unwrap();
        let left = limit - (PROGRAM + THREAD * threads as u64 + needs.iter().map(|need| need.rows).sum::<u64>());
        assert!((1..=threads).contains(&schedule.workers));
        for (group, need) in needs.iter().enumerate() {
            let passes = || schedule.rounds.iter().flatten().filter(move |pass| pass.group == group);
            let within = || passes().filter(|pass| pass.within);
            assert!(joined(within().map(|pass| &pass.members)).into_iter().eq(0..need.members.len()), "each member once");
            assert!(joined(within().map(|pass| &pass.draws)).into_iter().eq(0..need.draws), "each draw once");
            let compared: Vec<_> = passes().filter(|pass| pass.across).map(|pass| pass.members.clone()).collect();
            let all = vec![0..need.members.len(); usize::from(context.across())];
            assert_eq!(compared, all, "adapters are compared where all of them are");
        }
        for round in &schedule.rounds {
            let mut groups: Vec<usize> = round.iter().map(|pass| pass.group).collect();
            groups.dedup();
            assert!(!round.is_empty() && groups.len() == round.len(), "a group is in a round once");
            let size = |pass: &Pass| {
                let need = &needs[pass.group];
                let kept = need.draw * pass.draws.len() as u64 + need.members[pass.members.clone()].iter().sum::<u64>();
                need.kept + if pass.within { kept } else { need.all_at_one_layer }
            };
            let together: u64 = round.iter().map(size).sum();
            assert!(together + in_flight * schedule.workers as u64 <= left, "a round fits");
        }
    }

    #[test]
    fn under_any_limit_all_is_done_once_and_fits_or_it_is_refused() {
        for across in [false, true] {
            with_real_adapters(across, |context| {
                for threads in [1, 2, 7] {
                    let (mut refused, mut divided) = (0, 0);
                    for limit in (1..200_u64).map(|megabytes| megabytes << 20) {
                        match Schedule::make(context, &Decompositions::plan(context), false, threads, Some(limit)) {
                            Ok(schedule) => {
                                check(context, &schedule, threads, limit);
                                divided += usize::from(schedule.rounds.len() > 1);
                            }
                            Err(error) => {
                                assert_eq!(error.exit_code(), 8);
                                refused += 1;
                                assert_eq!(refused, limit >> 20, "what is refused with more is refused with less");
                            }
                        }
                    }
                    assert!(refused > 10 && divided > 3, "{refused} {divided}");
                    let free = Schedule::make(context, &Decompositions::plan(context), false, threads, None).unwrap();
                    check(context, &free, threads, u64::MAX);
                    assert_eq!((free.workers, free.rounds.len(), free.readings(&context.plan.groups)), (threads, 1, 12));
                }
            });
        }
    }
}
