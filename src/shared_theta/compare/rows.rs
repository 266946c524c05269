//! From the cells of a module's layers to the rows of `compare.csv` and their averages.

use super::layer::{Cell, ComparedLayer};
use super::matching::ModulePair;
use crate::controls::{mean_and_sd, p_value};
use crate::table::{CompareAverageRow, CompareRow};
use crate::terms::Status;

/// The rows of one module: by layer, matrix and (i, j).
pub(super) fn layer_rows<'a>(
    [left, right]: [&'a str; 2],
    module: &'a ModulePair,
    layers: &'a [ComparedLayer],
) -> impl Iterator<Item = CompareRow> + 'a {
    layers.iter().flat_map(move |layer| {
        layer.cells.iter().map(move |cell| {
            let draws: Vec<f64> = cell.draws.iter().flatten().copied().collect();
            let (w0_mean, w0_sd) = mean_and_sd(&draws);
            CompareRow {
                left: left.to_owned(),
                right: right.to_owned(),
                module: module.name.clone(),
                layer: layer.layer.clone(),
                matrix: cell.matrix,
                side: cell.matrix.side(),
                i: cell.i,
                j: cell.j,
                phi: cell.phi,
                cosine: cell.cosine,
                gaussian_expected: cell.gaussian_expected,
                w0_mean,
                w0_sd,
                w0_p: cell.phi.filter(|_| !by_construction(cell)).and_then(|phi| p_value(phi, &draws)),
                status: cell.status,
            }
        })
    })
}

/// The averages of one module: by matrix and (i, j). Layers without a φ do not count.
pub(super) fn average_rows<'a>(
    [left, right]: [&'a str; 2],
    module: &'a ModulePair,
    layers: &'a [ComparedLayer],
) -> impl Iterator<Item = CompareAverageRow> + 'a {
    let places = layers.first().map_or(0, |layer| layer.cells.len());
    (0..places).filter_map(move |place| {
        let cells: Vec<&Cell> = layers.iter().filter_map(|layer| layer.cells.get(place)).collect();
        let first = cells.first()?;
        let status = cells.iter().map(|cell| cell.status).fold(Status::Ok, Status::worse);
        let counted: Vec<&&Cell> = cells.iter().filter(|cell| cell.phi.is_some()).collect();
        let mean = |value: fn(&Cell) -> Option<f64>| mean_and_sd(&counted.iter().filter_map(|c| value(c)).collect::<Vec<_>>()).0;
        let draws = counted.iter().map(|cell| cell.draws.len()).max().unwrap_or(0);
        // One Gaussian Θ serves all layers: a draw's average is that of its own layers.
        let averages: Vec<f64> = (0..draws)
            .filter_map(|number| {
                let of_draw = counted.iter().filter_map(|cell| cell.draws.get(number).copied().flatten());
                mean_and_sd(&of_draw.collect::<Vec<_>>()).0
            })
            .collect();
        let (w0_mean, w0_sd) = mean_and_sd(&averages);
        let phi_mean = mean(|cell| cell.phi);
        let constructed = counted.iter().any(|cell| by_construction(cell));
        Some(CompareAverageRow {
            left: left.to_owned(),
            right: right.to_owned(),
            module: module.name.clone(),
            matrix: first.matrix,
            side: first.matrix.side(),
            i: first.i,
            j: first.j,
            layers: counted.len(),
            phi_mean,
            gaussian_expected: mean(|cell| cell.gaussian_expected),
            w0_mean,
            w0_sd,
            w0_p: phi_mean.filter(|_| !constructed).and_then(|phi| p_value(phi, &averages)),
            status,
        })
    })
}

/// Whether one of the subspaces is the whole space, so that φ is 1 for any adapters.
fn by_construction(cell: &Cell) -> bool {
    cell.gaussian_expected.is_some_and(|expected| expected >= 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::{Side, UpdateMatrix};

    fn layer(number: u32, phi: Option<f64>, expected: f64, draws: &[f64], status: Status) -> ComparedLayer {
        let cell = Cell {
            cosine: None,
            matrix: UpdateMatrix::A,
            i: 2,
            j: 1,
            phi,
            gaussian_expected: Some(expected),
            draws: draws.iter().copied().map(Some).collect(),
            status,
        };
        ComparedLayer { layer: Some(number.into()), cells: vec![cell], inputs: Vec::new() }
    }

    fn module() -> ModulePair {
        ModulePair { name: "query".into(), layers: Vec::new(), ij: vec![(2, 1)], stream: String::new() }
    }

    #[test]
    fn averages_run_over_the_layers_with_a_phi_and_over_each_draw() {
        let layers = [
            layer(0, Some(0.5), 0.1, &[0.2, 0.6], Status::Ok),
            layer(1, Some(0.3), 0.3, &[0.4, 0.4], Status::LowConfidence),
            layer(2, None, 0.9, &[0.9, 0.9], Status::Rank),
        ];
        let rows: Vec<_> = layer_rows(["l", "r"], &module(), &layers).collect();
        assert_eq!((rows[0].w0_mean, rows[0].w0_p), (Some(0.4), Some(2.0 / 3.0)));
        assert_eq!((rows[2].layer.clone(), rows[2].phi, rows[2].w0_p, rows[2].side), (Some(2.into()), None, None, Side::Right));
        let averages: Vec<_> = average_rows(["l", "r"], &module(), &layers).collect();
        assert_eq!(averages.len(), 1);
        let row = &averages[0];
        assert_eq!((row.layers, row.phi_mean, row.gaussian_expected, row.status), (2, Some(0.4), Some(0.2), Status::Rank));
        // The draws' averages are 0.3 and 0.5.
        assert!((row.w0_mean.unwrap() - 0.4).abs() < 1e-15 && (row.w0_sd.unwrap() - 0.02_f64.sqrt()).abs() < 1e-15);
        assert_eq!(row.w0_p, Some(2.0 / 3.0));
    }

    #[test]
    fn a_whole_space_says_nothing() {
        let layers = [layer(0, Some(1.0), 1.0, &[1.0], Status::Ok)];
        assert_eq!(layer_rows(["l", "r"], &module(), &layers).next().unwrap().w0_p, None);
        assert_eq!(average_rows(["l", "r"], &module(), &layers).next().unwrap().w0_p, None);
    }
}
