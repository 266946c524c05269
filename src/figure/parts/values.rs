//! The values of a square figure's cells, and statistics of them.

/// Values of `n × n` cells, row by row. Missing ones are `None`; none is NaN.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SquareValues {
    pub(crate) n: usize,
    pub(crate) cells: Vec<Option<f64>>,
}

impl SquareValues {
    /// The off-diagonal values.
    pub(crate) fn off_diagonal(&self) -> impl Iterator<Item = f64> {
        let n = self.n;
        self.cells.iter().enumerate().filter(move |(k, _)| k / n != k % n).filter_map(|(_, value)| *value)
    }

    /// The largest off-diagonal value.
    pub(crate) fn largest(&self) -> Option<f64> {
        self.off_diagonal().reduce(f64::max)
    }

    /// Whether an off-diagonal cell has no value.
    pub(crate) fn has_gaps(&self) -> bool {
        self.cells.iter().enumerate().any(|(k, value)| value.is_none() && k / self.n != k % self.n)
    }

    /// Whether no off-diagonal cell has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.off_diagonal().next().is_none()
    }

    /// Pearson's correlation with other values, over the off-diagonal cells that both have.
    /// `None` for fewer than three layers, or if one of them does not vary.
    pub(crate) fn correlation(&self, other: &Self) -> Option<f64> {
        let pairs: Vec<(f64, f64)> = (0..self.cells.len().min(other.cells.len()))
            .filter(|k| k / self.n != k % self.n)
            .filter_map(|k| Some((self.cells[k]?, other.cells[k]?)))
            .collect();
        let count = pairs.len() as f64;
        if pairs.len() < 6 {
            return None;
        }
        let (mean_x, mean_y) = pairs.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / count, y + p.1 / count));
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for (x, y) in pairs {
            let (x, y) = (x - mean_x, y - mean_y);
            (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
        }
        // Rounding alone spreads equal values by about 1e-16 of their size.
        let varies = |sum: f64, mean: f64| (sum / count).sqrt() > 1e-9 * mean.abs();
        (varies(xx, mean_x) && varies(yy, mean_y)).then(|| (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: [f64; 9]) -> SquareValues {
        SquareValues { n: 3, cells: values.map(|v| v.is_finite().then_some(v)).to_vec() }
    }

    #[test]
    fn the_diagonal_counts_for_nothing() {
        let g = values([1.0, 0.1, 0.2, 0.1, 1.0, 0.3, 0.2, 0.3, 1.0]);
        assert_eq!(g.largest(), Some(0.3));
        assert_eq!(g.off_diagonal().count(), 6);
        let alone = SquareValues { n: 1, cells: vec![Some(1.0)] };
        assert!(alone.is_empty() && alone.largest().is_none());
        let hollow = |at: usize| SquareValues { n: 2, cells: (0..4).map(|k| (k != at).then_some(0.5)).collect() }.has_gaps();
        assert_eq!([0, 1, 2, 3, 4].map(hollow), [false, true, true, false, false]);
    }

    #[test]
    fn correlation_is_pearsons() {
        let g = values([1.0, 0.1, 0.2, 0.1, 1.0, 0.3, 0.2, 0.3, 1.0]);
        let twice = SquareValues { n: 3, cells: g.cells.iter().map(|v| v.map(|v| 2.0 * v + 0.5)).collect() };
        let minus = SquareValues { n: 3, cells: g.cells.iter().map(|v| v.map(|v| -v)).collect() };
        assert!((g.correlation(&twice).unwrap() - 1.0).abs() < 1e-12);
        assert!((g.correlation(&minus).unwrap() + 1.0).abs() < 1e-12);
        let flat = values([1.0; 9]);
        assert_eq!(g.correlation(&flat), None);
        let holes = values([1.0, f64::NAN, 0.2, 0.1, 1.0, 0.3, 0.2, 0.3, 1.0]);
        assert_eq!(g.correlation(&holes), None);
    }
}
