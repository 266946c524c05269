//! Which base weights are decomposed for the strict control, and how many of them at a time fit into memory.

use super::context::Context;
use super::plan::Group;
use crate::error::{Error, Result, field};
use crate::inputs::{BaseWeight, show_bytes};
use crate::linalg::weight_basis::WeightBasis;
use crate::numerals::few;
use crate::relation::{Cut, TOGETHER};
use crate::terms::StrictControl;

/// What is looked at without `cuts`: what needs no inverse. φ of Θ as it is cannot see what was learned, and costs as much again.
pub(super) const ALWAYS: [Cut; 1] = [Cut::Adjoint];

/// Which groups' weights are decomposed.
#[derive(Debug, Default)]
pub(super) struct Decompositions {
    /// By group.
    pub(super) decomposed: Vec<bool>,
    /// How many weights of each group may be worked on at a time.
    pub(super) workers: Vec<usize>,
    /// Whether only adapters are compared with one another, for which singular values are enough.
    pub(super) across_only: bool,
}

impl Decompositions {
    /// Decides by widths alone: how much memory there is changes no result.
    ///
    /// # Errors
    /// [`Error::Resource`] where memory cannot suffice.
    pub(super) fn plan(context: &Context<'_>, across_only: bool, fixed: u64, threads: usize, limit: Option<u64>) -> Result<Self> {
        let given = context.config.params();
        // Cuts of Θ are asked for by name, and cannot be had without.
        let by_cuts = given.cuts.iter().flatten().any(|cut| cut.needs_basis());
        let limit = limit.unwrap_or(u64::MAX);
        let of_group = |group: &Group| -> Result<(bool, usize)> {
            // A weight outside any repeated container has no other to be compared with: an embedding is decomposed only where it is asked for.
            let asked = by_cuts || given.intruders.is_some() || given.strict_control == StrictControl::Always;
            let affordable = |layer: &BaseWeight| given.strict_control.decomposes((layer.d_out, layer.d_in));
            let wanted = asked || group.is_grid() && group.layers.iter().all(affordable);
            let Bytes { kept, in_flight } = bytes_for(context, group, wanted, threads);
            let left = limit.saturating_sub(fixed + kept);
            if in_flight <= left {
                let workers = usize::try_from(left / in_flight.max(1)).unwrap_or(threads).clamp(1, threads.max(1));
                return Ok((wanted, workers));
            }
            let what = "the study needs more memory than it may use".to_owned();
            let of_module = format!("for all base weights of module `{}`", crate::error::escape(&group.name));
            Err(Error::Resource {
                what,
                expected: format!("at most {}", show_bytes(limit)),
                found: format!("{} ({} {of_module})", show_bytes(fixed + kept + in_flight), show_bytes(kept + in_flight)),
                hint: Some(format!(
                    "raise {}, ask for fewer {}, or leave the strict control out",
                    field("memory_limit"),
                    field("layers")
                )),
            })
        };
        let (decomposed, workers) = context.plan.groups.iter().map(of_group).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Self { decomposed, workers, across_only })
    }

    /// What is to be known where weights are not decomposed that could be: which, and about how long it would take.
    pub(super) fn warning(&self, groups: &[Group]) -> Option<String> {
        let left_out: Vec<&Group> = groups
            .iter()
            .zip(&self.decomposed)
            .filter(|(group, decomposed)| group.is_grid() && !**decomposed)
            .map(|(group, _)| group)
            .collect();
        let mut names: Vec<&str> = left_out.iter().map(|group| group.name.as_str()).collect();
        names.dedup();
        let seconds: f64 =
            left_out.iter().flat_map(|group| &group.layers).map(|layer| WeightBasis::seconds_for(layer.d_out, layer.d_in)).sum();
        let minutes = (seconds / 60.0).ceil();
        (!names.is_empty()).then(|| {
            format!(
                "the strict control is missing for {}: W0 was not decomposed; {} asks for it, which takes about {minutes} min on one core",
                few(&names),
                field("strict_control")
            )
        })
    }
}

/// Estimated bytes for one group.
struct Bytes {
    /// For the weights as they are stored, their bases, and what is drawn once.
    kept: u64,
    /// For one weight while it is decomposed, or one adapter and draw while it is compared.
    in_flight: u64,
}

fn bytes_for(context: &Context<'_>, group: &Group, decomposed: bool, threads: usize) -> Bytes {
    let rank = group.members.iter().flat_map(|member| member.ranks.iter().copied()).max().unwrap_or(1) as u64;
    let draws = context.draws_of(group) as u64;
    let cuts = context.config.params().cuts.as_ref().map_or(ALWAYS.len(), Vec::len) as u64;
    let (mut kept, mut most, mut one_member) = (0, 0, 0);
    for layer in &group.layers {
        let (d_out, d_in) = (layer.d_out as u64, layer.d_in as u64);
        let stored = context.plan.bases[group.base].info(&layer.tensor).map_or(8 * d_out * d_in, |info| info.len() as u64 * 4);
        let basis = if decomposed { 8 * d_out.min(d_in) * (d_out + d_in) } else { 0 };
        // The draws of one factor at a time; without a decomposition before and after they went through W0.
        kept += stored + basis + 8 * draws * rank * d_out.max(d_in) * if decomposed { 1 } else { 2 };
        // W0 in f64 and scaled, the eigenproblem with what LAPACK needs for it, its vectors and their images.
        most = most.max(if decomposed { 8 * (4 * d_out * d_in + 6 * d_out.min(d_in).pow(2)) } else { 8 * d_out * d_in });
        // Its vectors at every cut, and those of some draws in W0's basis, stacked, and on the side where Θ lives, twice.
        one_member += 8 * rank * ((d_out + d_in) * (4 + 2 * cuts) + 4 * cuts.max(TOGETHER as u64) * d_out.max(d_in));
    }
    Bytes { kept: kept + one_member * threads as u64, in_flight: most }
}
