//! The fit of the updates: Θ_A and Θ_B that minimise `Σ_l ‖W0_l·Θ_B·(W0_l·Θ_A)ᵀ − B_l·A_l‖_F²` (`W0_lᵀ·Θ_A` in the `general` convention).
//!
//! The update B·A does not depend on the basis in which each layer's A and B are stored (A → R·A, B → B·R⁻¹); the direct fit does. The method is alternating least
//! squares from several starts, of which the best is kept. No matrix of the size of an update is formed: with `W0_l = Q_l·R` all work is on matrices of r columns.

use ndarray::{Array2, ArrayView2, Axis, concatenate};

use super::half_step::{Half, half_steps, times};
use super::layers::{Targets, target};
use super::score::Squares;
use crate::controls::Factor;
use crate::error::{Error, Result};
use crate::linalg::norms::frobenius_of;
use crate::linalg::subspace::ThinQr;

/// When a search stops.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// A sweep that lowers the residual by less than this, relative to it, is the last.
    progress: f64,
    /// The gradient, relative to the residual, at which a half step is done.
    gradient: f64,
}

/// Enough to tell the starts apart: they differ by 1e-3 where they lead to different ends.
const FIRST: Effort = Effort { progress: 1e-4, gradient: 1e-2 };
/// For the best of them: a hundredth of the variation of random targets, and all digits of an exact Θ.
const LAST: Effort = Effort { progress: 1e-7, gradient: 1e-3 };
/// A residual below this, relative to the targets, is rounding.
const EXACT: f64 = 1e-13;
const MOST_SWEEPS: usize = 300;
/// Below this share of the targets' squares a difference of squares has too few digits.
const CANCELLED: f64 = 1e-6;

/// Where a search begins: one factor, in the coordinates of its stack.
pub(super) struct Start {
    pub(super) fixed: Factor,
    pub(super) y: Array2<f64>,
}

/// The weights of all layers in the coordinates of their stacks: Q_lᵀ (n, rows) for Θ_A and for Θ_B.
#[derive(Clone, Copy)]
pub(super) struct Bases<'a> {
    pub(super) a: &'a [Array2<f64>],
    pub(super) b: &'a [Array2<f64>],
}

/// The result of a search.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// Y_A and Y_B with `W0_l·Θ = Q_l·Y`.
    pub(super) y: [Array2<f64>; 2],
    pub(super) squares: Squares,
    pub(super) sweeps: usize,
    /// Whether it ended because it no longer improved.
    pub(super) converged: bool,
}

/// The updates of all layers, to be fitted.
pub(super) struct Updates<'a> {
    bases: Bases<'a>,
    a_transposed: Vec<ArrayView2<'a, f64>>,
    b: Vec<ArrayView2<'a, f64>>,
    squared_norms: Vec<f64>,
}

impl<'a> Updates<'a> {
    /// `None` where all updates are zero.
    ///
    /// # Errors
    /// [`Error::Lapack`] if a QR fails.
    pub(super) fn new(bases: Bases<'a>, targets: &'a Targets) -> Result<Option<Self>> {
        let of = |factor| targets.iter().map(|pair| target(pair, factor)).collect::<Vec<_>>();
        let (a_transposed, b) = (of(Factor::A), of(Factor::B));
        let norms: Result<Vec<f64>> = b.iter().zip(&a_transposed).map(|(b, a)| norm_of_product(b.view(), a.view())).collect();
        let squared_norms: Vec<f64> = norms?.iter().map(|norm| norm * norm).collect();
        let nothing = squared_norms.iter().all(|norm| *norm == 0.0);
        Ok((!nothing).then_some(Self { bases, a_transposed, b, squared_norms }))
    }

    /// Searches briefly from all starts side by side, then continues from the best one to the end; of equal ones the first is taken.
    ///
    /// # Errors
    /// [`Error::Lapack`] if a QR fails, [`Error::NonFinite`] after an overflow.
    pub(super) fn best(&self, starts: &[Start]) -> Result<Option<Search>> {
        let mut paths = self.begin(starts)?;
        self.descend(&mut paths, FIRST)?;
        let better = |best: Path, path: Path| if path.residual < best.residual { path } else { best };
        let Some(first) = paths.into_iter().reduce(better) else { return Ok(None) };
        let mut last = [first.clone().reopened()];
        self.descend(&mut last, LAST)?;
        let [last] = last;
        let sweeps = first.sweeps + last.sweeps;
        let end = if last.residual < first.residual { Path { sweeps, ..last } } else { Path { converged: true, ..first } };
        self.finish(end).map(Some)
    }

    /// Where the searches begin: a start that fixes Y_B has its Y_A from a half step of its own, so that all go on with Y_B.
    fn begin(&self, starts: &[Start]) -> Result<Vec<Path>> {
        starts.iter().map(|start| self.path_from(start)).collect()
    }

    fn path_from(&self, start: &Start) -> Result<Path> {
        let zeros = |bases: &[Array2<f64>]| Array2::zeros((bases.first().map_or(0, |q| q.nrows()), start.y.ncols()));
        let (mut y, on_b) = ([zeros(self.bases.a), zeros(self.bases.b)], start.fixed == Factor::B);
        y[usize::from(on_b)].clone_from(&start.y);
        let products = [products(self.bases.a, [&y[0]]).remove(0), products(self.bases.b, [&y[1]]).remove(0)];
        let mut path = Path { y, products, residual: f64::INFINITY, sweeps: 0, converged: false, is_open: true };
        if on_b {
            let (y, products) = self.better_a(&[&path], FIRST)?.remove(0);
            (path.y[0], path.products[0]) = (y, products);
        }
        Ok(path)
    }

    /// Sweeps on all open paths until each has settled, or one is exact. The residual never grows from sweep to sweep: a sweep that would raise it ends the
    /// path before it.
    fn descend(&self, paths: &mut [Path], effort: Effort) -> Result<()> {
        for sweep in 1..=MOST_SWEEPS {
            let open: Vec<usize> = (0..paths.len()).filter(|k| paths[*k].is_open).collect();
            if open.is_empty() || paths.iter().any(|path| path.residual <= EXACT) {
                break;
            }
            // The new Y_B are tried on copies: a path that gets no better keeps what it had.
            let mut next: Vec<Path> = open.iter().map(|k| paths[*k].clone()).collect();
            let better_b = self.better_b(&next.iter().collect::<Vec<_>>(), effort)?;
            for (path, (y, products)) in next.iter_mut().zip(better_b) {
                (path.y[1], path.products[1]) = (y, products);
            }
            let better_a = self.better_a(&next.iter().collect::<Vec<_>>(), effort)?;
            for ((mut path, (y, products)), k) in next.into_iter().zip(better_a).zip(open) {
                (path.y[0], path.products[0]) = (y, products);
                path.residual = self.residual(&path.products)?;
                path.sweeps = sweep;
                let before = paths[k].residual;
                if path.residual >= before {
                    (paths[k].is_open, paths[k].converged) = (false, true);
                    continue;
                }
                let settled = before.is_finite() && before - path.residual <= effort.progress * before;
                path.converged = path.residual <= EXACT || settled;
                path.is_open = !path.converged;
                paths[k] = path;
            }
        }
        Ok(())
    }

    /// The best Y_B given Y_A, and its products, of every path.
    fn better_b(&self, paths: &[&Path], effort: Effort) -> Result<Vec<Improved>> {
        let halves: Vec<Half<'_>> = paths.iter().map(|path| path.half(1)).collect();
        let found = half_steps(self.bases.b, &halves, &self.b, &self.a_transposed, effort.gradient)?;
        Ok(with_products(self.bases.b, found))
    }

    fn better_a(&self, paths: &[&Path], effort: Effort) -> Result<Vec<Improved>> {
        let halves: Vec<Half<'_>> = paths.iter().map(|path| path.half(0)).collect();
        let found = half_steps(self.bases.a, &halves, &self.a_transposed, &self.b, effort.gradient)?;
        Ok(with_products(self.bases.a, found))
    }

    /// The residual of all layers together, relative to the targets, from small Gram matrices where it is large enough for these.
    fn residual(&self, [of_a, of_b]: &[Vec<Array2<f64>>; 2]) -> Result<f64> {
        let total: f64 = self.squared_norms.iter().sum();
        let mut rest = total;
        for (l, (m_a, m_b)) in of_a.iter().zip(of_b).enumerate() {
            let inner = |x: &Array2<f64>, y: &Array2<f64>| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            rest += inner(&m_a.t().dot(m_a), &m_b.t().dot(m_b));
            rest -= 2.0 * inner(&m_a.t().dot(&self.a_transposed[l]), &m_b.t().dot(&self.b[l]));
        }
        let residual = if rest > CANCELLED * total {
            (rest / total).sqrt()
        } else {
            (self.squares_of(of_a, of_b)?.residual.iter().sum::<f64>() / total).sqrt()
        };
        if residual.is_finite() {
            return Ok(residual);
        }
        Err(Error::NonFinite { what: "the residual of a shared Θ".into(), found: residual.to_string() })
    }

    fn finish(&self, path: Path) -> Result<Search> {
        let squares = self.squares_of(&path.products[0], &path.products[1])?;
        Ok(Search { y: path.y, squares, sweeps: path.sweeps, converged: path.converged })
    }

    /// The squared residual of each layer, from `[M_B, −B]·[M_A, Aᵀ]ᵀ`, so that no digit is lost where the two are close.
    fn squares_of(&self, of_a: &[Array2<f64>], of_b: &[Array2<f64>]) -> Result<Squares> {
        let mut residual = Vec::with_capacity(of_a.len());
        for (l, (m_a, m_b)) in of_a.iter().zip(of_b).enumerate() {
            let negative = self.b[l].mapv(|v| -v);
            let beside = |x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>| {
                concatenate(Axis(1), &[x, y]).map_err(|_| Error::Shape {
                    what: "residual of an update",
                    expected: format!("{} rows", x.nrows()),
                    found: y.nrows().to_string(),
                })
            };
            let left = beside(m_b.view(), negative.view())?;
            let right = beside(m_a.view(), self.a_transposed[l])?;
            residual.push(norm_of_product(left.view(), right.view())?.powi(2));
        }
        Ok(Squares { residual, target: self.squared_norms.clone() })
    }
}

/// A search that is under way.
#[derive(Clone)]
struct Path {
    y: [Array2<f64>; 2],
    /// `Q_l·Y_A` and `Q_l·Y_B` of every layer.
    products: [Vec<Array2<f64>>; 2],
    residual: f64,
    sweeps: usize,
    converged: bool,
    is_open: bool,
}

/// A factor's new Y, and its products.
type Improved = (Array2<f64>, Vec<Array2<f64>>);

impl Path {
    /// The half step of one factor: 0 for A, 1 for B.
    fn half(&self, factor: usize) -> Half<'_> {
        Half { y: &self.y[factor], products: &self.products[factor], partner: &self.products[1 - factor] }
    }

    /// From the same place with another effort; the residual has to be found again by it.
    fn reopened(self) -> Self {
        Self { residual: f64::INFINITY, sweeps: 0, converged: false, is_open: true, ..self }
    }
}

/// `Q_l·Y` of every layer, for each Y.
fn products<'y>(bases: &[Array2<f64>], ys: impl IntoIterator<Item = &'y Array2<f64>>) -> Vec<Vec<Array2<f64>>> {
    let ys: Vec<&Array2<f64>> = ys.into_iter().collect();
    let mut out: Vec<Vec<Array2<f64>>> = ys.iter().map(|_| Vec::with_capacity(bases.len())).collect();
    for q in bases {
        for (out, product) in out.iter_mut().zip(times(q.t(), ys.iter().map(|y| (*y).clone()))) {
            out.push(product);
        }
    }
    out
}

fn with_products(bases: &[Array2<f64>], ys: Vec<Array2<f64>>) -> Vec<Improved> {
    let products = products(bases, &ys);
    ys.into_iter().zip(products).collect()
}

/// ‖X·Yᵀ‖_F through the triangles of both.
pub(super) fn norm_of_product(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Result<f64> {
    let triangle = |m: ArrayView2<'_, f64>| -> Result<Array2<f64>> {
        // A wide matrix is its own small factor.
        if m.nrows() < m.ncols() { Ok(m.to_owned()) } else { Ok(ThinQr::of(m)?.r) }
    };
    Ok(frobenius_of(&triangle(x)?.dot(&triangle(y)?.t())))
}

#[cfg(test)]
mod tests {
    use super::super::direct::fit_direct;
    use super::super::layers::tests::{gaussian, layers_of};
    use super::super::starts::{Leading, starts};
    use super::*;
    use crate::inputs::FactorPair;
    use crate::terms::Convention;

    impl Updates<'_> {
        /// Alternating least squares from one start.
        fn search(&self, start: &Start, effort: Effort) -> Result<Search> {
            let mut path = [self.path_from(start)?];
            self.descend(&mut path, effort)?;
            let [path] = path;
            self.finish(path)
        }
    }

    impl Search {
        /// The residual of all layers together, relative to the targets.
        fn residual(&self) -> f64 {
            (self.squares.residual.iter().sum::<f64>() / self.squares.target.iter().sum::<f64>()).sqrt()
        }
    }

    /// Weights of very different scales, one of them badly conditioned.
    fn weights(count: usize, d_out: usize, d_in: usize) -> Vec<Array2<f64>> {
        let mut all: Vec<_> = (0..count).map(|l| gaussian(&format!("w{l}"), d_out, d_in) * (1.0 + l as f64)).collect();
        for mut column in all[0].columns_mut().into_iter().skip(d_in / 2) {
            column.mapv_inplace(|v| v * 1e-4);
        }
        all
    }

    /// Fits `targets`: the search from each start, and the best.
    fn fits(convention: Convention, weights: &[Array2<f64>], targets: Targets) -> (Vec<Search>, Search) {
        let layers = layers_of(convention, weights, targets);
        let direct = fit_direct(&layers, 0, 0).unwrap();
        let of = |factor| -> Vec<_> { (0..layers.count()).map(|l| direct.stack(factor).basis_of(&layers, l).unwrap()).collect() };
        let (a, b) = (of(Factor::A), of(Factor::B));
        let bases = Bases { a: &a, b: &b };
        let leading = Leading::of(&layers, &[&layers.trained]).unwrap();
        let starts = starts(&layers, &direct, bases, &layers.trained, &leading[0], 3).unwrap();
        let updates = Updates::new(bases, &layers.trained).unwrap().unwrap();
        let each = starts.iter().map(|start| updates.search(start, LAST).unwrap()).collect();
        (each, updates.best(&starts).unwrap().unwrap())
    }

    #[test]
    fn a_planted_theta_is_found_in_scrambled_factors() {
        for (convention, d_out, d_in) in
            [(Convention::Paper, 24, 24), (Convention::General, 26, 18), (Convention::General, 15, 22)]
        {
            let (weights, r) = (weights(4, d_out, d_in), 3);
            let length_a = if convention == Convention::Paper { d_in } else { d_out };
            let (theta_a, theta_b) = (gaussian("ta", length_a, r), gaussian("tb", d_in, r));
            let targets: Targets = weights
                .iter()
                .enumerate()
                .map(|(l, w)| {
                    // A → R·A and B → B·R⁻¹, with R = Q·S·Qᵀ of known inverse.
                    let q = ThinQr::of(gaussian(&format!("r{l}"), r, r).view()).unwrap().q();
                    let scale =
                        |power: f64| Array2::from_diag(&ndarray::Array1::from_shape_fn(r, |k| (0.3 + k as f64).powf(power)));
                    let (turn, back) = (q.dot(&scale(1.0)).dot(&q.t()), q.dot(&scale(-1.0)).dot(&q.t()));
                    let a_transposed = if convention == Convention::Paper { w.dot(&theta_a) } else { w.t().dot(&theta_a) };
                    FactorPair { a_transposed: a_transposed.dot(&turn.t()), b: w.dot(&theta_b).dot(&back) }
                })
                .collect();
            let (each, best) = fits(convention, &weights, targets);
            assert!(best.residual() < 1e-11, "{convention}: {:e}", best.residual());
            // The start from the leading vectors is already the solution, up to the tolerance of conjugate gradients.
            assert!(each.iter().any(|found| found.residual() < 1e-11 && found.sweeps <= 4));
        }
    }

    #[test]
    fn every_search_goes_down_to_a_point_where_neither_half_gains() {
        let weights = weights(3, 16, 16);
        let targets = || -> Targets {
            (0..3)
                .map(|l| FactorPair { a_transposed: gaussian(&format!("a{l}"), 16, 2), b: gaussian(&format!("b{l}"), 16, 2) })
                .collect()
        };
        let (each, best) = fits(Convention::Paper, &weights, targets());
        assert!(
            each.len() >= 6 && each.iter().all(|found| found.converged && best.residual() <= found.residual() * (1.0 + 1e-4))
        );
        // The residual computed from factors equals that of the formed updates.
        let layers = layers_of(Convention::Paper, &weights, targets());
        let direct = fit_direct(&layers, 0, 0).unwrap();
        let stack = &direct.stacks[0];
        let thetas = best.y.each_ref().map(|y| stack.solver.solve(y.view(), false));
        let (mut rest, mut size) = (0.0, 0.0);
        for (w, pair) in weights.iter().zip(&layers.trained) {
            let update = pair.b.dot(&pair.a_transposed.t());
            rest += frobenius_of(&(w.dot(&thetas[1]).dot(&w.dot(&thetas[0]).t()) - &update)).powi(2);
            size += frobenius_of(&update).powi(2);
        }
        assert!(((rest / size).sqrt() - best.residual()).abs() < 1e-12);
        // The direct fit is one of the starts, so the search is at least as good.
        let of_direct: f64 = weights
            .iter()
            .zip(&layers.trained)
            .map(|(w, pair)| {
                let fitted = w.dot(&direct.thetas[1]).dot(&w.dot(&direct.thetas[0]).t());
                frobenius_of(&(fitted - pair.b.dot(&pair.a_transposed.t()))).powi(2)
            })
            .sum();
        assert!(best.residual() < (of_direct / size).sqrt());
    }
}
