//! Leading singular vectors of W0 + ΔW that are like none of W0's: the rows of `intruders.csv` and `intruder_counts.csv`.
//!
//! Source: Shuttleworth et al. 2024, "intruder dimensions" (Algorithm 1). Differs: it is done in W0's singular basis, where `W0 + ΔW = diag(σ) + X·Yᵀ` and the
//! entries of a singular vector are its cosines with W0's, and beside the number stands that of random directions with the same singular values.

use std::fmt;
use std::str::FromStr;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

use super::haar::directions;
use super::layer::ModuleName;
use super::update::Update;
use crate::controls::{Factor, mean_and_sd, p_value};
use crate::error::Result;
use crate::linalg::lanczos::{LeadingTriplets, LinearMap, leading_triplets};
use crate::linalg::lapack::multiply;
use crate::linalg::subspace::ThinQr;
use crate::linalg::weight_basis::{WeightBasis, scale_rows};
use crate::table::{IntruderCountRow, IntruderRow};
use crate::terms::Status;

/// Columns of a Lanczos block: two, so that a singular value that is there twice is found twice.
const BLOCK: usize = 2;

/// What counts as an intruder.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Intruders {
    /// How many leading singular vectors of W0 + ΔW are looked at.
    pub top: usize,
    /// One whose largest |cosine| with W0's is below this intrudes.
    pub epsilon: f64,
}

impl Default for Intruders {
    fn default() -> Self {
        Self { top: 10, epsilon: 0.5 }
    }
}

impl Intruders {
    /// Whether there is at least one vector, and a threshold that a cosine can be below.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.top > 0 && self.epsilon > 0.0 && self.epsilon <= 1.0
    }
}

impl fmt::Display for Intruders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.top, self.epsilon)
    }
}

impl FromStr for Intruders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse =
            |(top, epsilon): (&str, &str)| Some(Self { top: top.trim().parse().ok()?, epsilon: epsilon.trim().parse().ok()? });
        let found = text.split_once(',').and_then(parse).filter(|found| found.is_valid());
        found.ok_or_else(|| "expected a number of vectors and a cosine above 0 and at most 1, as in 10,0.5".to_owned())
    }
}

/// What is asked of a module's updates.
#[derive(Debug, Clone, Copy)]
pub struct IntruderStudy {
    /// What counts.
    pub intruders: Intruders,
    /// The seed of the random directions.
    pub seed: u64,
    /// How often they are drawn.
    pub draws: usize,
}

/// The |cosines| that are largest, each with the index of W0's vector.
struct Likeness {
    sigma: Vec<f64>,
    left: Vec<(f64, usize)>,
    right: Vec<(f64, usize)>,
}

impl IntruderStudy {
    /// The rows of one adapter's module; none for layers whose base weight was not decomposed, or whose factors overflow.
    ///
    /// # Errors
    /// [`crate::Error::Lapack`] if a small SVD fails.
    pub fn rows(&self, name: ModuleName<'_>, updates: &[Update<'_, '_>]) -> Result<(Vec<IntruderRow>, Vec<IntruderCountRow>)> {
        let known = updates.iter().filter(|update| update.status != Status::Unreliable);
        let decomposed: Vec<(&Update<'_, '_>, &WeightBasis)> =
            known.filter_map(|update| Some((update, update.layer.base.basis?))).collect();
        let of_layer = |(update, basis): &(&Update<'_, '_>, &WeightBasis)| self.of_layer(name, update, basis);
        let by_layer: Vec<_> = decomposed.par_iter().map(of_layer).collect::<Result<_>>()?;
        let (rows, counts): (Vec<Vec<IntruderRow>>, Vec<IntruderCountRow>) = by_layer.into_iter().unzip();
        Ok((rows.into_iter().flatten().collect(), counts))
    }

    fn of_layer(
        &self,
        name: ModuleName<'_>,
        update: &Update<'_, '_>,
        basis: &WeightBasis,
    ) -> Result<(Vec<IntruderRow>, IntruderCountRow)> {
        let Intruders { top, epsilon } = self.intruders;
        let outputs = coordinates(&update.left, &basis.left)?;
        let inputs = coordinates(&update.right, &basis.right)?;
        let observed = Likeness::of(&basis.sigma, &outputs, &update.sigma, inputs, top)?;
        let count = |of: &Likeness| of.left.iter().filter(|(cosine, _)| *cosine < epsilon).count();
        let drawn = |number| -> Result<f64> { Ok(count(&self.drawn(update, basis, number)?) as f64) };
        let null: Vec<f64> = (0..self.draws).into_par_iter().map(drawn).collect::<Result<_>>()?;

        let (adapter, module, layer) = (name.adapter.to_owned(), name.module.to_owned(), &update.layer.number);
        let (random_mean, random_sd) = mean_and_sd(&null);
        let intruders = count(&observed);
        let opposite: Vec<f64> = null.iter().map(|count| -count).collect();
        let counts = IntruderCountRow {
            adapter: adapter.clone(),
            module: module.clone(),
            layer: layer.clone(),
            top: observed.sigma.len(),
            epsilon,
            intruders,
            random_mean,
            random_sd,
            p_more: p_value(intruders as f64, &null),
            p_fewer: p_value(-(intruders as f64), &opposite),
        };
        let row = |j: usize| IntruderRow {
            adapter: adapter.clone(),
            module: module.clone(),
            layer: layer.clone(),
            j: j + 1,
            sigma: observed.sigma[j],
            cos_left: observed.left[j].0,
            index_left: observed.left[j].1 + 1,
            cos_right: observed.right[j].0,
            index_right: observed.right[j].1 + 1,
        };
        Ok(((0..observed.sigma.len()).map(row).collect(), counts))
    }

    /// The likeness where the update has random directions. They are as random in W0's singular basis.
    fn drawn(&self, update: &Update<'_, '_>, basis: &WeightBasis, number: usize) -> Result<Likeness> {
        let (rank, stream) = (update.sigma.len(), update.layer.base.stream);
        let side = |factor, length| -> Result<Array2<f64>> {
            let all = directions(self.seed, stream, factor, number, length, rank)?;
            let (within, outside) = all.view().split_at(Axis(0), basis.sigma.len());
            beside(within, outside)
        };
        let (outputs, inputs) = (side(Factor::B, basis.left.nrows())?, side(Factor::A, basis.right.nrows())?);
        Likeness::of(&basis.sigma, &outputs, &update.sigma, inputs, self.intruders.top)
    }
}

/// Columns (n, r) in a basis (n, k), and where the basis is not the whole space also outside of it.
fn coordinates(columns: &Array2<f64>, basis: &Array2<f64>) -> Result<Array2<f64>> {
    if columns.is_empty() {
        return Ok(columns.clone());
    }
    let within = basis.t().dot(columns);
    if basis.nrows() == basis.ncols() {
        return Ok(within);
    }
    let mut outside = columns - &basis.dot(&within);
    // What rounding has left of the basis would count twice.
    outside -= &basis.dot(&basis.t().dot(&outside));
    beside(within.view(), outside.view())
}

/// Coordinates within a basis above those in an orthonormal basis of what else the columns have: only their inner products matter there, so that the triangle
/// of a QR decomposition does as well as all rows.
fn beside(within: ArrayView2<'_, f64>, outside: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
    if outside.is_empty() {
        return Ok(within.to_owned());
    }
    let triangle = if outside.nrows() > outside.ncols() { ThinQr::of(outside)?.r } else { outside.to_owned() };
    Ok(concatenate(Axis(0), &[within, triangle.view()]).unwrap_or_else(|_| unreachable!("both have a row's length in common")))
}

impl Likeness {
    /// Of the `top` leading vectors of `diag(σ) + outputs·diag(values)·inputsᵀ` with the first unit vectors, which are W0's.
    fn of(sigma: &[f64], outputs: &Array2<f64>, values: &[f64], inputs: Array2<f64>, top: usize) -> Result<Self> {
        if values.is_empty() {
            let sigma = sigma[..top.min(sigma.len())].to_vec();
            let same: Vec<(f64, usize)> = (0..sigma.len()).map(|index| (1.0, index)).collect();
            return Ok(Self { sigma, left: same.clone(), right: same });
        }
        let x = scale_rows(outputs.t(), values).reversed_axes();
        let map = DiagonalAndThin { diagonal: sigma, x, y: inputs };
        let LeadingTriplets { left, sigma: found, right } = leading_triplets(&map, top.min(sigma.len()), BLOCK)?;
        let most = |vectors: &Array2<f64>| vectors.columns().into_iter().map(|v| largest(v.slice(s![..sigma.len()]))).collect();
        Ok(Self { left: most(&left), right: most(&right), sigma: found })
    }
}

/// The largest magnitude and where it is first.
fn largest(values: ArrayView1<'_, f64>) -> (f64, usize) {
    values.iter().enumerate().fold((0.0, 0), |most, (index, v)| if v.abs() > most.0 { (v.abs(), index) } else { most })
}

/// `diag(σ) + X·Yᵀ`, where X and Y may be longer than σ.
struct DiagonalAndThin<'a> {
    diagonal: &'a [f64],
    x: Array2<f64>,
    y: Array2<f64>,
}

impl DiagonalAndThin<'_> {
    fn product(&self, columns: ArrayView2<'_, f64>, [to, from]: [&Array2<f64>; 2]) -> Array2<f64> {
        let mut out = multiply(to.view(), multiply(from.t(), columns).view());
        for ((sigma, mut row), own) in self.diagonal.iter().zip(out.rows_mut()).zip(columns.rows()) {
            row.scaled_add(*sigma, &own);
        }
        out
    }
}

impl LinearMap for DiagonalAndThin<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.x.nrows(), self.y.nrows())
    }

    fn times(&self, x: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        Ok(self.product(x, [&self.x, &self.y]))
    }

    fn transposed_times(&self, y: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        Ok(self.product(y, [&self.y, &self.x]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::{Example, basis_of, gaussian};
    use super::*;

    const NAME: ModuleName<'static> = ModuleName { adapter: "a", module: "q" };

    fn study(top: usize, epsilon: f64, draws: usize) -> IntruderStudy {
        IntruderStudy { intruders: Intruders { top, epsilon }, seed: 0, draws }
    }

    fn rows_of(example: &Example, study: IntruderStudy) -> (Vec<IntruderRow>, Vec<IntruderCountRow>) {
        example.with(|update| study.rows(NAME, &[update]).unwrap())
    }

    #[test]
    fn options_are_two_numbers() {
        assert_eq!("10,0.5".parse(), Ok(Intruders::default()));
        assert_eq!(Intruders { top: 3, epsilon: 0.75 }.to_string().parse(), Ok(Intruders { top: 3, epsilon: 0.75 }));
        assert!(
            ["", "10", "0,0.5", "10,0", "10,1.5", "10,nan", "-1,0.5", "10,0.5,1"]
                .iter()
                .all(|text| text.parse::<Intruders>().is_err())
        );
    }

    #[test]
    fn cosines_are_those_of_the_dense_decompositions() {
        for (d_out, d_in) in [(40, 40), (70, 30), (30, 70), (33, 30), (30, 33)] {
            let (w0, b, a) = (gaussian("w0", d_out, d_in), gaussian("b", d_out, 4), gaussian("a", d_in, 4));
            let (rows, counts) = rows_of(&Example::new(w0.clone(), b.clone(), a.clone(), 0.3, true), study(8, 0.9, 0));
            let (base, tuned) = (basis_of(&w0), basis_of(&(&w0 + &(b.dot(&a.t()) * 0.3))));
            let cosines = [tuned.left.t().dot(&base.left), tuned.right.t().dot(&base.right)];
            assert_eq!(rows.len(), 8);
            for (j, row) in rows.iter().enumerate() {
                let [left, right] = [&cosines[0], &cosines[1]].map(|all| largest(all.row(j)));
                assert!((row.sigma / tuned.sigma[j] - 1.0).abs() < 1e-13, "{d_out} x {d_in}");
                assert!(
                    (row.cos_left - left.0).abs() < 1e-11 && (row.cos_right - right.0).abs() < 1e-11,
                    "{row:?} {left:?} {right:?}"
                );
                assert_eq!((row.j, row.index_left, row.index_right), (j + 1, left.1 + 1, right.1 + 1));
            }
            let below = rows.iter().filter(|row| row.cos_left < 0.9).count();
            assert_eq!((counts[0].intruders, counts[0].top, counts[0].random_mean, counts[0].p_more), (below, 8, None, None));
        }
    }

    #[test]
    fn a_planted_intruder_is_the_only_one() {
        // W0 = diag(60, 59, …, 1); the update adds 300 along (1, …, 1) on both sides.
        let n = 60;
        let w0 = Array2::from_diag(&ndarray::Array1::from_iter((0..n).map(|k| (n - k) as f64)));
        let ones = Array2::from_elem((n, 1), 1.0);
        let (rows, counts) = rows_of(&Example::new(w0.clone(), ones.clone(), ones.clone(), 5.0, true), study(5, 0.5, 30));
        // Its vector is nearly (1, …, 1)/√60, whose cosines are 0.13.
        assert!(rows[0].cos_left < 0.2 && rows[0].sigma > 300.0, "{:?}", rows[0]);
        assert_eq!((counts[0].intruders, counts[0].top), (1, 5));
        // A random direction of that size intrudes as well: the number tells size.
        assert!(counts[0].random_mean.unwrap() >= 0.9 && counts[0].p_more.unwrap() > 0.5, "{counts:?}");
        // Of next to no size it changes no vector, and neither does a random one.
        let (rows, counts) = rows_of(&Example::new(w0, ones.clone(), ones, 1e-9, true), study(5, 0.5, 3));
        assert!(
            rows.iter()
                .enumerate()
                .all(|(j, row)| row.index_left == j + 1 && row.index_right == j + 1 && row.cos_left > 1.0 - 1e-12)
        );
        let row = &counts[0];
        assert_eq!(
            (row.intruders, row.random_mean, row.random_sd, row.p_more, row.p_fewer),
            (0, Some(0.0), Some(0.0), Some(1.0), Some(1.0))
        );
    }

    #[test]
    fn random_directions_are_those_of_the_formed_weight() {
        for (d_out, d_in) in [(18, 18), (30, 18), (20, 18), (18, 20)] {
            let (w0, b, a) = (gaussian("w0", d_out, d_in), gaussian("b", d_out, 3), gaussian("a", d_in, 3));
            let example = Example::new(w0, b, a, 1.0, true);
            let drawn = example.with(|update| study(6, 0.5, 1).drawn(&update, update.layer.base.basis.unwrap(), 0).unwrap());
            // A diagonal in place of W0, and the directions as they are drawn.
            let (sigma, values) = example.with(|update| (update.layer.base.basis.unwrap().sigma.clone(), update.sigma.clone()));
            let mut formed = Array2::zeros((d_out, d_in));
            sigma.iter().enumerate().for_each(|(k, sigma)| formed[(k, k)] = *sigma);
            let side = |factor, length| directions(0, "w0", factor, 0, length, 3).unwrap();
            let u = side(Factor::B, d_out) * ndarray::Array1::from_vec(values);
            formed += &u.dot(&side(Factor::A, d_in).t());
            let dense = basis_of(&formed);
            for j in 0..6 {
                let (left, right) = (dense.left.column(j), dense.right.column(j));
                let expected = [largest(left.slice(s![..sigma.len()])), largest(right.slice(s![..sigma.len()]))];
                for (found, expected) in [drawn.left[j], drawn.right[j]].into_iter().zip(expected) {
                    assert!(
                        (found.0 - expected.0).abs() < 1e-11 && found.1 == expected.1,
                        "{d_out} x {d_in}: {found:?} {expected:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn without_an_update_every_vector_is_its_own() {
        let zero = Example::new(gaussian("w0", 7, 9), Array2::zeros((7, 2)), gaussian("a", 9, 2), 1.0, true);
        let (rows, counts) = rows_of(&zero, study(30, 0.5, 4));
        assert_eq!((rows.len(), counts[0].top, counts[0].intruders, counts[0].p_more), (7, 7, 0, Some(1.0)));
        assert!(
            rows.iter()
                .enumerate()
                .all(|(j, row)| (row.cos_left, row.index_left, row.cos_right, row.index_right) == (1.0, j + 1, 1.0, j + 1))
        );
        let plain = Example::new(gaussian("w0", 7, 9), gaussian("b", 7, 2), gaussian("a", 9, 2), 1.0, false);
        let (rows, counts) = rows_of(&plain, study(3, 0.5, 4));
        assert!(rows.is_empty() && counts.is_empty());
    }
}
