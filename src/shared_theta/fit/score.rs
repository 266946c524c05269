//! How well a shared Θ fits, and how well one would fit Gaussian targets of the same norms, and these targets with their signs turned.

use ndarray::Array2;

use crate::controls::{DrawPlan, TIE, Tested, mean_and_sd};
use crate::table::FitRow;
use crate::terms::{LayerId, Status, UpdateMatrix};

/// One residual, observed and drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Score {
    /// None where there is nothing to fit.
    pub(super) residual: Option<f64>,
    /// The expectation in closed form; none where there is no such form and the mean of the draws is used.
    pub(super) expected: Option<f64>,
    pub(super) draws: Vec<f64>,
    /// What the strict control says of it.
    pub(super) flip: Tested,
}

/// The residuals of every layer, and of all layers together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scores {
    pub(super) layers: Vec<Score>,
    pub(super) all: Score,
    /// The status of the fit; a layer without a target has its own status.
    pub(super) status: Status,
}

/// Squared residuals and squared target norms of each layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Squares {
    pub(super) residual: Vec<f64>,
    pub(super) target: Vec<f64>,
}

impl Squares {
    /// The relative residual of each layer, then of all; none where the target is zero.
    fn relative(&self) -> (Vec<Option<f64>>, Option<f64>) {
        let ratio = |rest: f64, of: f64| (of > 0.0).then(|| (rest / of).sqrt());
        let layers = self.residual.iter().zip(&self.target).map(|(&rest, &of)| ratio(rest, of)).collect();
        (layers, ratio(self.residual.iter().sum(), self.target.iter().sum()))
    }
}

impl Score {
    /// Whether a drawn residual is no larger than this one.
    fn is_as_small(&self, drawn: f64) -> bool {
        self.residual.is_some_and(|residual| drawn <= residual + TIE)
    }
}

impl Scores {
    /// Makes the residuals from the squares of the observed targets and of each draw, and the expected relative residuals if they are known.
    pub(super) fn new(observed: &Squares, draws: &[Squares], expected: Option<Expected>, status: Status) -> Self {
        let (layers, all) = observed.relative();
        let drawn: Vec<_> = draws.iter().map(Squares::relative).collect();
        let score = |residual: Option<f64>, expected: Option<f64>, draws: Vec<Option<f64>>| Score {
            residual,
            expected: expected.filter(|_| residual.is_some()),
            draws: draws.into_iter().flatten().collect(),
            flip: Tested::default(),
        };
        let by_layer = |l: usize| {
            let expected = expected.as_ref().and_then(|e| e.layers[l]);
            score(layers[l], expected, drawn.iter().map(|(layers, _)| layers[l]).collect())
        };
        let together = score(all, expected.as_ref().and_then(|e| e.all), drawn.iter().map(|(_, all)| *all).collect());
        let status = if all.is_none() { Status::Zero } else { status };
        Self { layers: (0..layers.len()).map(by_layer).collect(), all: together, status }
    }

    /// Whether the strict control has not yet decided how the residual of all layers compares with it.
    pub(super) fn is_open(&self, plan: DrawPlan, flips: &[Squares]) -> bool {
        let small = |draw: &Squares| draw.relative().1.is_some_and(|drawn| self.all.is_as_small(drawn));
        self.all.residual.is_some() && plan.goes_on(flips, small)
    }

    /// Takes in draws of the strict control. Those that count are those that the residual of all layers needed; a layer's test has no more.
    pub(super) fn compare_with_flips(&mut self, plan: DrawPlan, flips: &[Squares]) {
        let (layers, all): (Vec<_>, Vec<_>) = flips.iter().map(Squares::relative).unzip();
        let test = |score: &Score, drawn: Vec<Option<f64>>| {
            let drawn: Vec<f64> = drawn.into_iter().flatten().collect();
            if score.residual.is_none() { Tested::default() } else { Tested::of(plan, &drawn, |value| score.is_as_small(value)) }
        };
        self.all.flip = test(&self.all, all);
        let counted = &layers[..self.all.flip.draws];
        for (l, score) in self.layers.iter_mut().enumerate() {
            score.flip = test(score, counted.iter().map(|draw| draw[l]).collect());
        }
    }

    /// The rows of `fit.csv`: each layer, then all.
    pub(super) fn rows(&self, module: &str, matrix: UpdateMatrix, layers: &[Option<LayerId>]) -> Vec<FitRow> {
        let row = |score: &Score, layer: String| {
            let (mean, sd) = mean_and_sd(&score.draws);
            FitRow {
                module: module.to_owned(),
                matrix,
                layer,
                residual: score.residual,
                residual_expected: score.expected.or(mean),
                residual_sd: sd,
                p: score.residual.and_then(|residual| p_value(residual, &score.draws)),
                flip_mean: score.flip.mean,
                flip_sd: score.flip.sd,
                flip_p: score.flip.p,
                status: if score.residual.is_none() { Status::Zero } else { self.status },
            }
        };
        let named = layers.iter().map(|layer| layer.as_ref().map_or_else(String::new, |number| number.to_string()));
        let mut rows: Vec<FitRow> = self.layers.iter().zip(named).map(|(score, layer)| row(score, layer)).collect();
        rows.push(row(&self.all, FitRow::ALL.to_owned()));
        rows
    }
}

/// `(1 + #draws with a residual no larger)/(1 + draws)`: the observed residual counts as one of the draws, as in the `w0` control.
fn p_value(residual: f64, draws: &[f64]) -> Option<f64> {
    let small = draws.iter().filter(|&&draw| draw <= residual + TIE).count();
    (!draws.is_empty()).then(|| (1 + small) as f64 / (1 + draws.len()) as f64)
}

/// Expected relative residuals of Gaussian targets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expected {
    pub(super) layers: Vec<Option<f64>>,
    pub(super) all: Option<f64>,
}

/// The sums in the closed form: `Q_l` are the rows of layer l in an orthonormal basis of the stack's column space, with `Σ Q_lᵀQ_l = I`.
pub(super) struct Leverage {
    /// Rows of each layer.
    pub(super) rows: usize,
    /// ‖Q_l‖_F² of each layer.
    pub(super) own: Vec<f64>,
    /// `Σ_k ‖T_k‖²·‖Q_l·Q_kᵀ‖_F²` of each layer.
    pub(super) with_all: Vec<f64>,
}

impl Leverage {
    /// The expectation of the squared residual over the squared norm of Gaussian targets with these squared norms, its root taken.
    ///
    /// The residual of layer l is `T_l − Q_l·Σ_k Q_kᵀ·T_k`. With independent entries of variance `‖T_k‖²/(rows·r)`:
    /// `1 − 2·‖Q_l‖²/rows + Σ_k ‖T_k‖²·‖Q_l·Q_kᵀ‖²/(rows·‖T_l‖²)` for a layer, which is `1 − ‖Q_l‖²/rows` where all norms are equal, and
    /// `1 − Σ_l ‖T_l‖²·‖Q_l‖²/rows / Σ_l ‖T_l‖²` for all of them.
    pub(super) fn expected(&self, squared_norms: &[f64]) -> Expected {
        let rows = self.rows as f64;
        // After an exact fit this is rounding of either sign.
        let root = |share: f64| if share > rows * crate::linalg::EPSILON { share.sqrt() } else { 0.0 };
        let layer = |l: usize| {
            let norm = squared_norms[l];
            (norm > 0.0).then(|| root(1.0 - 2.0 * self.own[l] / rows + self.with_all[l] / (rows * norm)))
        };
        let total: f64 = squared_norms.iter().sum();
        let explained: f64 = squared_norms.iter().zip(&self.own).map(|(norm, own)| norm * own / rows).sum();
        Expected {
            layers: (0..squared_norms.len()).map(layer).collect(),
            all: (total > 0.0).then(|| root(1.0 - explained / total)),
        }
    }
}

/// `Σ_k weight_k·Q_kᵀ·Q_k` by [`Self::add`], then `Σ_k weight_k·‖Q_l·Q_kᵀ‖²` by [`Self::meet`].
pub(super) struct WeightedGram(Array2<f64>);

impl WeightedGram {
    pub(super) fn new(n: usize) -> Self {
        Self(Array2::zeros((n, n)))
    }

    /// `gram` is `Q_kᵀ·Q_k`.
    pub(super) fn add(&mut self, weight: f64, gram: &Array2<f64>) {
        self.0.scaled_add(weight, gram);
    }

    /// `gram` is `Q_lᵀ·Q_l`: ‖Q_l·Q_kᵀ‖² is the inner product of the two.
    pub(super) fn meet(&self, gram: &Array2<f64>) -> f64 {
        self.0.iter().zip(gram).map(|(x, y)| x * y).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_square_layers_leave_the_plain_share() {
        // N equal layers: Q_l = I/√N, ‖Q_l‖² = n/N and ‖Q_l·Q_kᵀ‖² = n/N².
        let (n, layers) = (12, 4);
        let leverage = Leverage { rows: n, own: vec![3.0; layers], with_all: vec![4.0 * 12.0 / 16.0 * 2.0; layers] };
        let expected = leverage.expected(&vec![2.0; layers]);
        let plain = (1.0 - 1.0 / layers as f64).sqrt();
        assert!((expected.all.unwrap() - plain).abs() < 1e-15);
        assert!(expected.layers.iter().all(|e| (e.unwrap() - plain).abs() < 1e-15));
        // One layer is fitted exactly.
        let one = Leverage { rows: n, own: vec![12.0], with_all: vec![24.0] };
        assert_eq!(one.expected(&[2.0]), Expected { layers: vec![Some(0.0)], all: Some(0.0) });
    }

    #[test]
    fn p_counts_the_observed_one_and_ties() {
        assert_eq!(p_value(0.5, &[0.4, 0.5, 0.6]), Some(0.75));
        assert_eq!(p_value(0.3, &[0.4, 0.5, 0.6]), Some(0.25));
        assert_eq!(p_value(0.3, &[]), None);
    }

    #[test]
    fn signs_turned_decide_by_the_residual_of_all_layers() {
        let squares = |residual: [f64; 2]| Squares { residual: residual.to_vec(), target: vec![1.0, 3.0] };
        let mut scores = Scores::new(&squares([0.25, 0.75]), &[], None, Status::Ok);
        let plan = DrawPlan { enough: Some(2), most: 9 };
        // All: 0.5 observed; drawn larger, smaller, equal, after which the rest does not count.
        let draws = [squares([0.25, 1.0]), squares([0.36, 0.0]), squares([0.75, 0.25]), squares([0.0, 0.0])];
        assert!(scores.is_open(plan, &draws[..2]) && !scores.is_open(plan, &draws[..3]));
        scores.compare_with_flips(plan, &draws);
        assert_eq!((scores.all.flip.draws, scores.all.flip.p), (3, Some(2.0 / 3.0)));
        // The first layer: 0.5, 0.6 and 0.87 for an observed 0.5.
        assert_eq!((scores.layers[0].flip.draws, scores.layers[0].flip.p), (3, Some(0.5)));
        // The second: 0.58, 0 and 0.29 for 0.5, of which the last two decide it.
        assert_eq!(scores.layers[1].flip.p, Some(2.0 / 3.0));
        let rows = scores.rows("m", UpdateMatrix::A, &[Some(0.into()), Some(1.into())]);
        assert_eq!((rows[2].flip_p, rows[2].p), (Some(2.0 / 3.0), None));
        let mean = (1.25_f64.sqrt() / 2.0 + 0.3 + 0.5) / 3.0;
        assert!((rows[2].flip_mean.unwrap() - mean).abs() < 1e-15);
        let mut nothing = Scores::new(&Squares { residual: vec![0.0], target: vec![0.0] }, &[], None, Status::Ok);
        assert!(!nothing.is_open(plan, &[]));
        nothing.compare_with_flips(plan, &[]);
        assert_eq!(nothing.all.flip, Tested::default());
    }

    #[test]
    fn layers_without_a_target_have_no_residual() {
        let observed = Squares { residual: vec![1.0, 0.0], target: vec![4.0, 0.0] };
        let scores = Scores::new(&observed, &[observed.clone(), observed.clone()], None, Status::Ok);
        let rows = scores.rows("m", UpdateMatrix::B, &[Some(3.into()), Some(7.into())]);
        assert_eq!((rows[0].residual, rows[0].residual_expected, rows[0].p), (Some(0.5), Some(0.5), Some(1.0)));
        assert_eq!((rows[1].residual, rows[1].p, rows[1].status), (None, None, Status::Zero));
        assert_eq!((rows[2].layer.as_str(), rows[2].residual, rows[2].status), ("all", Some(0.5), Status::Ok));
    }
}
