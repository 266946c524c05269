//! Which base weights are decomposed for the strict control.

use super::context::Context;
use super::plan::Group;
use crate::error::field;
use crate::inputs::BaseWeight;
use crate::linalg::weight_basis::WeightBasis;
use crate::numerals::few;
use crate::relation::Cut;
use crate::terms::StrictControl;

/// What is looked at without `cuts`: what needs no inverse. φ of Θ as it is cannot see what was learned, and costs as much again.
pub(super) const ALWAYS: [Cut; 1] = [Cut::Adjoint];

/// Which groups' weights are decomposed.
#[derive(Debug, Default)]
pub(super) struct Decompositions(Vec<bool>);

impl Decompositions {
    /// Decides by widths alone: how much memory there is changes no result.
    pub(super) fn plan(context: &Context<'_>) -> Self {
        let given = context.config.params();
        // Cuts of Θ are asked for by name, and cannot be had without.
        let by_cuts = given.cuts.iter().flatten().any(|cut| cut.needs_basis());
        // A weight outside any repeated container has no other to be compared with: an embedding is decomposed only where it is asked for.
        let asked = by_cuts || given.intruders.is_some() || given.strict_control == StrictControl::Always;
        let affordable = |layer: &BaseWeight| given.strict_control.decomposes((layer.d_out, layer.d_in));
        let of_group = |group: &Group| asked || group.is_grid() && group.layers.iter().all(affordable);
        Self(context.plan.groups.iter().map(of_group).collect())
    }

    /// Whether the weights of a group are.
    pub(super) fn of(&self, group: usize) -> bool {
        self.0[group]
    }

    /// What is to be known where weights are not decomposed that could be: which, and about how long it would take.
    pub(super) fn warning(&self, groups: &[Group]) -> Option<String> {
        let left_out: Vec<&Group> = groups
            .iter()
            .zip(&self.0)
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
