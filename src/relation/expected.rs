//! What φ of Θ is expected to be from W0 alone, without drawing a pair: `E φ(a, b) = tr(E P_a · E P_b)/r` for independent Gaussian targets of rank r.
//!
//! P is the projector on the column space of Θ. Its expectation is `V·diag(d)·Vᵀ` in W0's singular basis, exactly; d, the leverages, is simulated, which
//! takes a QR of (k, r) for each draw and no solve.

use ndarray::{Array2, s};

use super::layer::BaseLayer;
use crate::controls::{Control, Factor, draw};
use crate::conversion::Equation;
use crate::error::Result;
use crate::linalg::lapack::multiply;
use crate::linalg::subspace::ThinQr;
use crate::linalg::weight_basis::scale_rows;

/// Draws of which the leverages are the mean.
const LEVERAGE_DRAWS: usize = 200;

/// Mean leverages of W0's singular directions in Θ of Gaussian targets of rank r, largest singular value first: they add up to r. None where W0 was not
/// decomposed, or has fewer than r directions above rounding level.
///
/// # Errors
/// [`crate::Error::Lapack`] if a QR fails.
pub fn leverages(base: &BaseLayer<'_>, equation: Equation, rank: usize, seed: u64) -> Result<Option<Vec<f64>>> {
    let Some(sides) = base.sides(equation).filter(|sides| sides.rank >= rank) else { return Ok(None) };
    let factor = if equation == Equation::W0 { Factor::B } else { Factor::A };
    let inverse: Vec<f64> = sides.sigma[..sides.rank].iter().map(|sigma| sides.sigma[sides.rank - 1] / sigma).collect();
    let mut mean = vec![0.0; sides.rank];
    for number in 0..LEVERAGE_DRAWS {
        let gaussian = draw(seed, Control::Leverage, base.stream, factor, number, sides.rank, rank);
        let q = ThinQr::of(scale_rows(gaussian.view(), &inverse).view())?.q();
        for (sum, row) in mean.iter_mut().zip(q.rows()) {
            *sum += row.dot(&row) / LEVERAGE_DRAWS as f64;
        }
    }
    Ok(Some(mean))
}

/// The expected φ of all pairs of layers at i = j = r, its diagonal that of two adapters at one layer. None where one has no leverages, or lengths differ.
///
/// # Errors
/// Those of [`leverages`].
pub fn expected_phi(layers: &[&BaseLayer<'_>], equation: Equation, rank: usize, seed: u64) -> Result<Option<Array2<f64>>> {
    let mut projectors: Vec<Array2<f64>> = Vec::with_capacity(layers.len());
    for base in layers {
        let (Some(d), Some(sides)) = (leverages(base, equation, rank, seed)?, base.sides(equation)) else { return Ok(None) };
        let home = sides.home.slice(s![.., ..d.len()]);
        let projector = multiply(home, scale_rows(home.t(), &d).view());
        if projectors.first().is_some_and(|first| first.dim() != projector.dim()) {
            return Ok(None);
        }
        projectors.push(projector);
    }
    let phi = |(a, b): (usize, usize)| {
        let trace: f64 = projectors[a].iter().zip(&projectors[b]).map(|(x, y)| x * y).sum();
        trace / rank as f64
    };
    Ok(Some(Array2::from_shape_fn((layers.len(), layers.len()), phi)))
}

#[cfg(test)]
mod tests {
    use super::super::layer::DrawnImages;
    use super::*;
    use crate::linalg::weight_basis::WeightBasis;

    fn base<'a>(weight: &Array2<f64>, basis: &'a WeightBasis, drawn: &'a DrawnImages) -> BaseLayer<'a> {
        BaseLayer { shape: weight.dim(), basis: Some(basis), drawn, stream: "w" }
    }

    #[test]
    fn an_orthogonal_weight_leaves_chance() {
        let weight = Array2::<f64>::eye(12);
        let (basis, drawn) = (WeightBasis::by_svd(weight.view()).unwrap(), DrawnImages::default());
        let d = leverages(&base(&weight, &basis, &drawn), Equation::W0, 3, 0).unwrap().unwrap();
        assert!((d.iter().sum::<f64>() - 3.0).abs() < 1e-12);
        let one = base(&weight, &basis, &drawn);
        let phi = expected_phi(&[&one, &one], Equation::W0, 3, 0).unwrap().unwrap();
        // Chance is 3/12; the leverages are off by their simulation.
        assert!((phi[(0, 1)] - 0.25).abs() < 2e-3 && phi[(0, 1)] == phi[(1, 0)], "{phi}");
    }

    #[test]
    fn two_directions_that_dominate_are_all_that_is_compared() {
        let mut weight = Array2::<f64>::eye(6) * 1e6;
        (weight[(0, 0)], weight[(1, 1)]) = (1e-2, 1e-2);
        let (basis, drawn) = (WeightBasis::by_svd(weight.view()).unwrap(), DrawnImages::default());
        let one = base(&weight, &basis, &drawn);
        let phi = expected_phi(&[&one], Equation::W0Transposed, 2, 0).unwrap().unwrap();
        assert!((phi[(0, 0)] - 1.0).abs() < 1e-12);
        assert!(leverages(&one, Equation::W0, 7, 0).unwrap().is_none());
        let without = BaseLayer { basis: None, ..one };
        assert!(expected_phi(&[&without], Equation::W0, 2, 0).unwrap().is_none());
    }
}
