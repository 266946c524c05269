//! The measures of all ordered pairs of a module's layers, for the adapter itself and for the draws of a control.

use crate::controls::mean_and_sd;
use crate::error::Result;
use crate::measures::PrincipalCosines;
use crate::similarity::AllPairs;

/// One measure of all ordered pairs of layers, row by row.
pub(crate) type Cells = Vec<Option<f64>>;

/// The measures of one view and (i, j).
pub(crate) struct PairMeasures {
    pub(crate) phi: Cells,
    /// The measures [`crate::terms::Measure::COSINES`], in that order.
    pub(crate) cosines: Option<[Cells; 3]>,
}

impl PairMeasures {
    /// φ, and the cosines where they are wanted.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub(crate) fn of(pairs: &AllPairs, layers: usize, (i, j): (usize, usize), with_cosines: bool) -> Result<Self> {
        let cells = 0..layers * layers;
        let phi = cells.map(|cell| pairs.phi(cell / layers, cell % layers, i, j)).collect();
        let cosines = if with_cosines { Some(cosines_of(pairs, layers, (i, j))?) } else { None };
        Ok(Self { phi, cosines })
    }
}

/// The cosines of [`crate::terms::Measure::COSINES`], in that order.
///
/// # Errors
/// [`crate::Error::Lapack`] if a small SVD fails.
pub(crate) fn cosines_of(pairs: &AllPairs, layers: usize, (i, j): (usize, usize)) -> Result<[Cells; 3]> {
    let mut found: [Cells; 3] = std::array::from_fn(|_| vec![None; layers * layers]);
    for a in 0..layers {
        for b in 0..layers {
            // The angles between two subspaces have no order.
            let from = if i == j && b < a { Some(b * layers + a) } else { None };
            let cosines = match from {
                Some(_) => None,
                None => pairs.products(a, b, i, j).map(|block| PrincipalCosines::of(block.view())).transpose()?.flatten(),
            };
            let values = cosines.map(|c| [c.max, c.mean, c.min]);
            for (k, cells) in found.iter_mut().enumerate() {
                cells[a * layers + b] = from.map_or(values.map(|values| values[k]), |from| cells[from]);
            }
        }
    }
    Ok(found)
}

/// One measure in all draws of a control.
#[derive(Default)]
pub(crate) struct Draws(Vec<Cells>);

impl Draws {
    pub(crate) fn add(&mut self, draw: Cells) {
        self.0.push(draw);
    }

    /// Mean and standard deviation of one pair of layers.
    pub(crate) fn moments(&self, cell: usize) -> (Option<f64>, Option<f64>) {
        mean_and_sd(&self.0.iter().filter_map(|cells| cells[cell]).collect::<Vec<_>>())
    }

    /// The mean over some pairs of layers, for each draw that has one.
    pub(crate) fn averages(&self, over: &[usize]) -> Vec<f64> {
        let average = |cells: &Cells| mean_and_sd(&over.iter().filter_map(|&cell| cells[cell]).collect::<Vec<_>>()).0;
        self.0.iter().filter_map(average).collect()
    }
}

/// The measures of one view and (i, j) in all draws of a control.
#[derive(Default)]
pub(crate) struct PairDraws {
    pub(crate) phi: Draws,
    /// Empty where no cosines are wanted.
    pub(crate) cosines: [Draws; 3],
}

impl PairDraws {
    pub(crate) fn add(&mut self, draw: PairMeasures) {
        self.phi.add(draw.phi);
        for (draws, cells) in self.cosines.iter_mut().zip(draw.cosines.into_iter().flatten()) {
            draws.add(cells);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};

    #[test]
    fn moments_are_of_a_pair_and_averages_of_a_draw() {
        let mut draws = Draws::default();
        assert_eq!((draws.moments(0), draws.averages(&[0])), ((None, None), vec![]));
        draws.add(vec![Some(1.0), Some(3.0), None]);
        draws.add(vec![Some(2.0), None, None]);
        assert_eq!(draws.moments(0), (Some(1.5), Some(0.5_f64.sqrt())));
        assert_eq!(draws.moments(1), (Some(3.0), None));
        assert_eq!(draws.averages(&[0, 1, 2]), [2.0, 2.0]);
        assert_eq!(draws.averages(&[1, 2]), [3.0]);
    }

    #[test]
    fn cosines_of_layers_come_row_by_row_and_in_both_orders() {
        let e = Array2::<f64>::eye(4);
        let mut tilted = e.slice(s![.., ..2]).to_owned();
        let angle = 0.4_f64;
        tilted[(0, 0)] = angle.cos();
        tilted[(2, 0)] = angle.sin();
        let pairs = AllPairs::of(&[Some(e.slice(s![.., ..2])), Some(tilted.view()), None]);
        let [max, mean, min] = cosines_of(&pairs, 3, (2, 2)).unwrap();
        for at in [1, 3] {
            assert!((max[at].unwrap() - 1.0).abs() < 1e-15 && (min[at].unwrap() - angle.cos()).abs() < 1e-15);
            assert!((mean[at].unwrap() - (1.0 + angle.cos()) / 2.0).abs() < 1e-15);
        }
        assert!((min[4].unwrap() - 1.0).abs() < 1e-15);
        assert_eq!((max[2], max[8], max[1]), (None, None, max[3]));
        // With i ≠ j the two orders compare different vectors.
        let [max, _, _] = cosines_of(&pairs, 3, (1, 2)).unwrap();
        assert!((max[1].unwrap() - angle.cos()).abs() < 1e-15 && (max[3].unwrap() - angle.cos()).abs() < 1e-15);
    }
}
