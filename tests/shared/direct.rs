//! What the program should find, computed by definition: LAPACK's SVD and the pseudo-inverse by its definition.

use std::collections::BTreeMap;
use std::path::Path;

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow, SpectrumRow};
use condlora::terms::{Convention, LayerId, MatrixKind, Side};
use ndarray::{Array2, s};
use ndarray_linalg::SVD;

use super::checkpoint::Layer;

/// LAPACK's SVD, thin: U, σ and V with as many columns as the rank.
pub(crate) fn thin_svd(matrix: &Array2<f64>) -> (Array2<f64>, Vec<f64>, Array2<f64>) {
    // The library keeps BLAS at one thread, and that has to be said before the first call from a test's small stack.
    let _ = condlora::linalg::subspace::SubspaceBasis::of(Array2::eye(1).view()).unwrap();
    let (u, sigma, vt) = matrix.svd(true, true).unwrap();
    let rank = sigma.iter().filter(|&&s| s > 1e-12 * sigma[0]).count();
    let u = u.unwrap().slice(s![.., ..rank]).to_owned();
    (u, sigma.iter().take(rank).copied().collect(), vt.unwrap().slice(s![..rank, ..]).t().to_owned())
}

/// The pseudo-inverse by its definition.
pub(crate) fn pseudo_inverse(matrix: &Array2<f64>) -> Array2<f64> {
    let (u, sigma, mut v) = thin_svd(matrix);
    for (mut column, sigma) in v.columns_mut().into_iter().zip(sigma) {
        column /= sigma;
    }
    v.dot(&u.t())
}

/// Θ_A, Θ_B and Θ_BA of a layer by the pseudo-inverse.
pub(crate) fn direct(layer: &Layer, convention: Convention) -> [(MatrixKind, Array2<f64>); 3] {
    let inverse = pseudo_inverse(&layer.w0);
    let theta_a = if convention == Convention::Paper { inverse.dot(&layer.a.t()) } else { inverse.t().dot(&layer.a.t()) };
    let theta_b = inverse.dot(&layer.b);
    let theta_ba = theta_b.dot(&layer.a);
    [(MatrixKind::A, theta_a), (MatrixKind::B, theta_b), (MatrixKind::BA, theta_ba)]
}

/// Holds every φ and singular value that was written (of one module) against those of [`direct`].
pub(crate) fn agrees_with_the_pseudo_inverse(
    root: &Path,
    module: Option<&str>,
    layers: &[Layer],
    convention: Convention,
    tolerance: f64,
) {
    let wanted = |name: &str| module.is_none_or(|module| module == name);
    let conversion: Vec<ConversionRow> = read_rows(&root.join("out/conversion.csv")).unwrap();
    let mut expected = BTreeMap::new();
    for (index, layer) in (0_u32..).zip(layers) {
        // A layer that is no number is known by its weight.
        let tensor = format!("{}.weight", layer.path);
        let row = conversion.iter().find(|row| row.tensor == tensor && wanted(&row.module));
        let path = row.and_then(|row| row.layer.clone()).filter(|layer| layer.index().is_none());
        let name = path.unwrap_or_else(|| index.into());
        for (kind, theta) in direct(layer, convention) {
            expected.insert((kind, name.clone()), thin_svd(&theta));
        }
    }
    let mut compared = 0;
    let similarity: Vec<SimilarityRow> = read_rows(&root.join("out/similarity.csv")).unwrap();
    for row in similarity.iter().filter(|row| wanted(&row.module)) {
        let vectors = |layer: &LayerId, count: usize| {
            let (u, _, v) = &expected[&(row.matrix, layer.clone())];
            let side = if row.side == Side::Left { u } else { v };
            side.slice(s![.., ..count]).to_owned()
        };
        let Some(found) = row.phi else { continue };
        let cosines = vectors(&row.layer_a, row.i).t().dot(&vectors(&row.layer_b, row.j));
        let phi = cosines.iter().map(|c| c * c).sum::<f64>() / row.i.min(row.j) as f64;
        assert!(
            (found - phi).abs() <= tolerance,
            "{} {} {},{}: {found} against {phi}",
            row.matrix,
            row.side,
            row.layer_a,
            row.layer_b
        );
        compared += 1;
    }
    assert!(compared > 0);
    for row in read_rows::<SpectrumRow>(&root.join("out/spectrum.csv")).unwrap().iter().filter(|row| wanted(&row.module)) {
        // The update is no conversion matrix.
        let Some(matrix) = row.matrix.conversion() else { continue };
        let sigma = &expected[&(matrix, row.layer.clone().unwrap())].1;
        let theirs = sigma.get(row.k - 1).copied().unwrap_or(0.0);
        assert!((row.sigma - theirs).abs() <= tolerance * sigma[0], "{} layer {:?}: σ_{}", row.matrix, row.layer, row.k);
    }
}
