//! φ of two chosen layers by every number of their vectors (`--grid`): the rows of `grid.csv`.

use super::grid::Grid;
use super::layer_matrix::{LayerMatrix, Seen, cell_status, has_phi, summed_errors};
use super::params::View;
use super::plan::PlannedAdapter;
use super::shard::Others;
use crate::error::{Error, Result};
use crate::similarity::{AllPairs, expected_by_chance};
use crate::table::GridRow;

impl Grid<'_> {
    /// The rows of one view, for each pair of layers asked for that this module has: all i up to the first layer's rank, all j up to the
    /// second's. `pairs` has the products of all vectors, and each φ is a part of their squares' sum.
    pub(super) fn by_number(
        &self,
        view: View,
        asked: &[(u32, u32)],
        observed: &[&LayerMatrix],
        pairs: &AllPairs,
    ) -> Vec<GridRow> {
        let place = |layer: u32| (0..observed.len()).find(|&k| self.layer_number(k) == layer);
        let mut rows = Vec::new();
        for &(layer_a, layer_b) in asked {
            let (Some(a), Some(b)) = (place(layer_a), place(layer_b)) else { continue };
            let values = pairs.phi_up_to(a, b);
            let differ = pairs.differ_in_length(a, b);
            let length = observed[a].vectors(view.side).map_or(0, |vectors| vectors.nrows());
            let two = [observed[a], observed[b]];
            let numbers: Vec<_> = (1..=self.rank(a)).flat_map(|i| (1..=self.rank(b)).map(move |j| (i, j))).collect();
            let summed = summed_errors(observed, view.side, pairs, &[a, b], &numbers);
            for (&(i, j), summed) in numbers.iter().zip(&summed) {
                let phi = values.as_ref().and_then(|values| values.get((i - 1, j - 1)).copied());
                let (status, _) = cell_status(two, view.side, (i, j), Seen::of(phi, summed[(0, 1)]), differ);
                let phi = phi.filter(|_| has_phi(status));
                rows.push(GridRow {
                    adapter: self.adapter.to_owned(),
                    module: self.module.to_owned(),
                    matrix: view.matrix,
                    side: view.side,
                    layer_a,
                    layer_b,
                    i,
                    j,
                    phi,
                    gaussian_expected: phi.and_then(|_| expected_by_chance(i, j, length)),
                    status,
                });
            }
        }
        rows
    }
}

/// `--grid` with layers that no module has both of, of this shard or another.
pub(super) fn refuse_missing_layers(asked: &[(u32, u32)], adapters: &[PlannedAdapter], others: &mut Others<'_>) -> Result<()> {
    let has = |adapters: &[PlannedAdapter], (a, b): (u32, u32)| {
        adapters.iter().flat_map(|adapter| &adapter.modules).any(|module| {
            let has = |wanted: u32| module.layers.iter().any(|layer| layer.adapter_layer.layer == Some(wanted));
            has(a) && has(b)
        })
    };
    for &(a, b) in asked {
        if !has(adapters, (a, b)) && !has(others.opened(), (a, b)) {
            let modules = adapters.iter().chain(others.opened()).flat_map(|adapter| &adapter.modules);
            let mut layers: Vec<u32> = modules.flat_map(|m| &m.layers).filter_map(|layer| layer.adapter_layer.layer).collect();
            layers.sort_unstable();
            layers.dedup();
            let there = if layers.is_empty() {
                "there are no numbered layers".to_owned()
            } else {
                format!("the layers are {}", ranges(&layers))
            };
            return Err(Error::Usage { what: format!("--grid {a},{b}: no module has both layers"), hint: Some(there) });
        }
    }
    Ok(())
}

/// `0..5, 8`.
fn ranges(rising: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &layer in rising {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(layer) => *last = layer,
            _ => runs.push((layer, layer)),
        }
    }
    let show = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}..{last}") };
    runs.iter().map(show).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 8, 10, 11]), "0..2, 8, 10..11");
        assert_eq!(ranges(&[u32::MAX]), u32::MAX.to_string());
    }
}
