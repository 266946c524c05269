//! φ, the similarity of two subspaces (Kim et al. 2024, Eq. 2): one pair, and all pairs of layers at once.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, s};

use crate::linalg::UNIT_ROUNDOFF;
use crate::linalg::panel::Columns;
use crate::linalg::subspace::Spectrum;

/// `φ = ‖XᵀY‖_F² / min(i, j)` for orthonormal columns X (D, i) and Y (D, j): 0 for orthogonal subspaces, 1 where one holds the other.
///
/// Source: Kim et al. 2024, Eq. 2, after Hu et al. 2022.
///
/// # Panics
/// Where the columns differ in length.
#[must_use]
pub fn phi(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> f64 {
    share(x.t().dot(&y).view())
}

/// The squared Frobenius norm of a block of cosines over its smaller side; rounding cannot take it past 1.
fn share(block: ArrayView2<'_, f64>) -> f64 {
    let smaller = block.nrows().min(block.ncols());
    if smaller == 0 {
        return 0.0;
    }
    (block.iter().map(|v| v * v).sum::<f64>() / smaller as f64).min(1.0)
}

/// The expected φ of independent random subspaces: `max(i, j)/D`.
///
/// 1 where one subspace is the whole space, so that φ is 1 by construction. `None` where vectors have no entries.
#[must_use]
pub fn expected_by_chance(i: usize, j: usize, length: usize) -> Option<f64> {
    (length > 0).then(|| i.max(j).min(length) as f64 / length as f64)
}

/// All inner products between several bases: one Gram matrix serves every (i, j) up to the bases' sizes.
///
/// The bits of a φ do not depend on the other bases that are compared at the same time.
#[derive(Debug)]
pub struct AllPairs {
    /// For each basis: its group (bases of one column length) and first column there; none where there is no basis.
    places: Vec<Option<(usize, usize, usize)>>,
    groups: Vec<Columns>,
    grams: Vec<Array2<f64>>,
}

impl AllPairs {
    /// Multiplies all bases with one another.
    ///
    /// # Shapes
    /// Each basis (D, r) with orthonormal columns; D and r may differ. A missing basis has no φ with any other.
    #[must_use]
    pub fn of(bases: &[Option<ArrayView2<'_, f64>>]) -> Self {
        let mut lengths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, basis) in bases.iter().enumerate() {
            if let Some(basis) = basis {
                lengths.entry(basis.nrows()).or_default().push(index);
            }
        }
        let mut places = vec![None; bases.len()];
        let mut groups = Vec::with_capacity(lengths.len());
        for (group, members) in lengths.into_values().enumerate() {
            let views: Vec<_> = members.iter().filter_map(|&m| bases[m]).collect();
            let mut first = 0;
            for (&member, view) in members.iter().zip(&views) {
                places[member] = Some((group, first, view.ncols()));
                first += view.ncols();
            }
            groups.push(Columns::of(&views));
        }
        let grams = groups.iter().map(Columns::inner_products).collect();
        Self { places, groups, grams }
    }

    /// φ between the first `i` columns of basis `a` and the first `j` of basis `b`.
    ///
    /// `None` where one is missing or too small, or where the columns differ in length.
    #[must_use]
    pub fn phi(&self, a: usize, b: usize, i: usize, j: usize) -> Option<f64> {
        // One triangle serves both orders, so that φ(a, b, i, j) and φ(b, a, j, i) have the same bits.
        if a > b {
            return self.phi(b, a, j, i);
        }
        let ((group_a, first_a, size_a), (group_b, first_b, size_b)) = ((*self.places.get(a)?)?, (*self.places.get(b)?)?);
        if group_a != group_b || i > size_a || j > size_b {
            return None;
        }
        Some(share(self.grams[group_a].slice(s![first_a..first_a + i, first_b..first_b + j])))
    }

    /// The mean of φ over the pairs of some of the bases; `None` where none has one.
    #[must_use]
    pub fn mean_phi(&self, of: &[usize], i: usize, j: usize) -> Option<f64> {
        let pairs = of.iter().enumerate().flat_map(|(n, &a)| of[n + 1..].iter().map(move |&b| (a, b)));
        let values: Vec<f64> = pairs.filter_map(|(a, b)| self.phi(a, b, i, j)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// φ for every number of vectors: entry (i − 1, j − 1) has the bits of [`Self::phi`] with i and j, up to the sizes of both bases.
    ///
    /// Source: Hu et al. 2022, section 7.2. One product of the bases serves all: each entry adds a row of squares to the one above it.
    /// `None` where one is missing, or where the columns differ in length.
    #[must_use]
    pub fn phi_up_to(&self, a: usize, b: usize) -> Option<Array2<f64>> {
        if a > b {
            return self.phi_up_to(b, a).map(Array2::reversed_axes);
        }
        let ((group_a, first_a, size_a), (group_b, first_b, size_b)) = ((*self.places.get(a)?)?, (*self.places.get(b)?)?);
        if group_a != group_b {
            return None;
        }
        let block = self.grams[group_a].slice(s![first_a..first_a + size_a, first_b..first_b + size_b]);
        let mut out = Array2::zeros((size_a, size_b));
        for j in 1..=size_b {
            let mut sum = 0.0;
            for i in 1..=size_a {
                // In the order of the sum over the whole block, so that not even the last bit differs.
                for cosine in block.slice(s![i - 1, ..j]) {
                    sum += cosine * cosine;
                }
                out[(i - 1, j - 1)] = (sum / i.min(j) as f64).min(1.0);
            }
        }
        Some(out)
    }

    /// The inner products of the first `i` columns of basis `a` with the first `j` of basis `b`, as a matrix (i, j).
    ///
    /// `None` where [`Self::phi`] has none.
    #[must_use]
    pub fn products(&self, a: usize, b: usize, i: usize, j: usize) -> Option<Array2<f64>> {
        let ((group_a, first_a, size_a), (group_b, first_b, size_b)) = ((*self.places.get(a)?)?, (*self.places.get(b)?)?);
        if group_a != group_b || i > size_a || j > size_b {
            return None;
        }
        let gram = &self.grams[group_a];
        // Only the upper triangle is computed.
        let at = |row: usize, column: usize| gram[(row.min(column), row.max(column))];
        Some(Array2::from_shape_fn((i, j), |(row, column)| at(first_a + row, first_b + column)))
    }

    /// All bases with columns as long as those of basis `a`, transposed, times a block (D, k).
    ///
    /// `None` where basis `a` is missing, or where the block's columns differ in length.
    #[must_use]
    pub fn times(&self, a: usize, block: ArrayView2<'_, f64>) -> Option<AllTimes<'_>> {
        let (group, ..) = (*self.places.get(a)?)?;
        let columns = self.groups.get(group).filter(|columns| columns.rows() == block.nrows())?;
        Some(AllTimes { pairs: self, group, products: columns.products(block) })
    }

    /// Whether both bases are there but their columns differ in length.
    #[must_use]
    pub fn differ_in_length(&self, a: usize, b: usize) -> bool {
        matches!((self.places.get(a), self.places.get(b)), (Some(Some(a)), Some(Some(b))) if a.0 != b.0)
    }
}

/// The result of [`AllPairs::times`].
#[derive(Debug)]
pub struct AllTimes<'a> {
    pairs: &'a AllPairs,
    group: usize,
    products: Array2<f64>,
}

impl AllTimes<'_> {
    /// The first `j` columns of basis `b`, transposed, times the block: (j, k).
    ///
    /// `None` where it is missing, too small, or has columns of another length.
    #[must_use]
    pub fn of(&self, b: usize, j: usize) -> Option<ArrayView2<'_, f64>> {
        let (group, first, size) = (*self.pairs.places.get(b)?)?;
        (group == self.group && j <= size).then(|| self.products.slice(s![first..first + j, ..]))
    }
}

/// How far φ can be off where its two subspaces are turned by no more than `angle`: the root mean square of the angles over the smaller one's
/// dimension, both subspaces' added up.
///
/// `arcsin √φ` is an angle that moves by no more than that (Cauchy-Schwarz on the derivative of φ along the turn), which bounds the change of φ without
/// neglecting anything: near 0 and near 1 it is much smaller than the angle.
#[must_use]
pub fn change_of_phi(phi: f64, angle: f64) -> f64 {
    let at = phi.clamp(0.0, 1.0).sqrt().asin();
    let square = |angle: f64| angle.clamp(0.0, std::f64::consts::FRAC_PI_2).sin().powi(2);
    if angle.is_nan() { 1.0 } else { (square(at + angle) - phi).max(phi - square(at - angle)).clamp(0.0, 1.0) }
}

/// First-order bound on how far the first `i` singular vectors of Θ can be off: `10·u·(n + κ·‖Θ‖₂/g_i)`, g_i the gap behind σ_i.
///
/// The bound on a φ is the sum of its two matrices' values (docs/spec.md, section 3).
#[must_use]
pub fn vector_error(n: usize, error_factor: f64, spectrum: &Spectrum, i: usize) -> f64 {
    let norm = spectrum.sigma().first().copied().unwrap_or(0.0);
    let bound = 10.0 * UNIT_ROUNDOFF * (n as f64 + error_factor * norm / spectrum.gap(i));
    if bound.is_nan() { f64::INFINITY } else { bound }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::subspace::SubspaceBasis;
    use ndarray::array;

    #[test]
    fn same_orthogonal_and_halfway() {
        let e = Array2::<f64>::eye(4);
        let (x, y) = (e.slice(s![.., ..2]), e.slice(s![.., 2..]));
        assert_eq!(phi(x, x), 1.0);
        assert_eq!(phi(x, y), 0.0);
        assert_eq!(phi(e.slice(s![.., ..3]), x), 1.0);
        let half = array![[0.5_f64.sqrt()], [0.0], [0.5_f64.sqrt()], [0.0]];
        assert!((phi(half.view(), x) - 0.5).abs() < 1e-15);
    }

    #[test]
    fn all_pairs_agree_with_single_ones() {
        let bases: Vec<_> = (0..3)
            .map(|k| {
                SubspaceBasis::of(Array2::from_shape_fn((6, 3), |(a, b)| ((a * 7 + b * 5 + k * 3) % 11) as f64 - 4.0).view())
                    .unwrap()
            })
            .collect();
        let views: Vec<_> = bases.iter().map(|b| Some(b.left())).collect();
        let pairs = AllPairs::of(&views);
        for a in 0..3 {
            for b in 0..3 {
                for (i, j) in [(3, 3), (1, 3), (2, 1)] {
                    let single = phi(bases[a].left().slice(s![.., ..i]), bases[b].left().slice(s![.., ..j]));
                    assert!((pairs.phi(a, b, i, j).unwrap() - single).abs() < 1e-14);
                    assert_eq!(pairs.phi(a, b, i, j), pairs.phi(b, a, j, i));
                }
            }
        }
    }

    #[test]
    fn every_number_of_vectors_comes_from_one_product() {
        let basis = |seed: usize, size: usize| {
            let matrix =
                Array2::from_shape_fn((9, size), |(a, b)| ((a * 7 + b * 5 + seed * 3) % 11) as f64 - 4.0 + (a * b) as f64 * 0.1);
            SubspaceBasis::of(matrix.view()).unwrap()
        };
        let bases = [basis(0, 4), basis(1, 3), basis(2, 5)];
        let pairs = AllPairs::of(&bases.iter().map(|b| Some(b.left())).chain([None]).collect::<Vec<_>>());
        for (a, b) in [(0, 1), (1, 0), (2, 0), (1, 1)] {
            let all = pairs.phi_up_to(a, b).unwrap();
            assert_eq!(all.dim(), (bases[a].left().ncols(), bases[b].left().ncols()));
            for ((i, j), &value) in all.indexed_iter() {
                assert_eq!(Some(value), pairs.phi(a, b, i + 1, j + 1), "{a},{b}: {i},{j}");
                let plain = phi(bases[a].left().slice(s![.., ..=i]), bases[b].left().slice(s![.., ..=j]));
                assert!((value - plain).abs() < 1e-14);
                // A subspace that grows loses no similarity before it is divided by the smaller number.
                let shared = value * (i + 1).min(j + 1) as f64;
                assert!(i == 0 || shared >= all[(i - 1, j)] * i.min(j + 1) as f64 - 1e-14);
            }
        }
        assert!(pairs.phi_up_to(0, 3).is_none());
        let uneven = AllPairs::of(&[Some(Array2::<f64>::eye(3).view()), Some(Array2::<f64>::eye(4).view())]);
        assert!(uneven.phi_up_to(0, 1).is_none());
    }

    #[test]
    fn missing_short_and_unequal_bases_have_no_phi() {
        let (e3, e4) = (Array2::<f64>::eye(3), Array2::<f64>::eye(4));
        let pairs = AllPairs::of(&[Some(e3.view()), Some(e4.view()), None]);
        assert_eq!(pairs.phi(0, 0, 3, 3), Some(1.0));
        assert_eq!(pairs.phi(0, 0, 4, 1), None);
        assert_eq!(pairs.phi(0, 1, 1, 1), None);
        assert!(pairs.differ_in_length(0, 1) && !pairs.differ_in_length(0, 2));
        assert_eq!(pairs.phi(0, 2, 1, 1), None);
    }

    #[test]
    fn chance_is_the_share_of_the_space() {
        assert_eq!(expected_by_chance(8, 8, 384), Some(8.0 / 384.0));
        assert_eq!(expected_by_chance(4, 8, 8), Some(1.0));
        assert_eq!(expected_by_chance(1, 1, 0), None);
    }

    #[test]
    fn phi_changes_by_no_more_than_its_angle_allows() {
        // One vector each: φ = cos²α, and a turn by t in their plane makes it cos²(α ± t).
        for alpha in [0.0, 0.3, 0.8, 1.5, std::f64::consts::FRAC_PI_2] {
            for t in [1e-9, 1e-3, 0.2] {
                let phi = f64::cos(alpha).powi(2);
                let worst = [alpha - t, alpha + t].map(|a| (a.cos().powi(2) - phi).abs()).into_iter().fold(0.0, f64::max);
                // Past angle 0 or a right angle φ changes direction.
                let allowed = change_of_phi(phi, t);
                assert!((allowed - worst).abs() < 1e-15 + 1e-12 * worst, "{alpha} {t}: {allowed:e}, {worst:e}");
            }
        }
        assert_eq!(
            (change_of_phi(0.25, 10.0), change_of_phi(0.5, f64::NAN), change_of_phi(0.3, 0.0).max(1e-15)),
            (0.75, 1.0, 1e-15)
        );
        assert_eq!(change_of_phi(0.25, f64::INFINITY), 0.75);
    }

    #[test]
    fn a_vanishing_gap_leaves_no_certainty() {
        let basis = SubspaceBasis::of(Array2::<f64>::eye(3).view()).unwrap();
        assert!(vector_error(3, 1.0, basis.spectrum(), 1) > 1.0);
        assert!(vector_error(3, 1.0, basis.spectrum(), 3) < 1e-14);
    }

    #[test]
    fn inner_products_are_there_in_both_orders() {
        let basis = |seed: usize| {
            SubspaceBasis::of(Array2::from_shape_fn((7, 3), |(a, b)| ((a * 7 + b * 5 + seed * 3) % 11) as f64 - 4.0).view())
                .unwrap()
        };
        let bases = [basis(0), basis(1)];
        let pairs = AllPairs::of(&[Some(bases[0].left()), Some(bases[1].left()), None]);
        for (a, b) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            for (i, j) in [(3, 3), (1, 3), (3, 2)] {
                let plain = bases[a].left().slice(s![.., ..i]).t().dot(&bases[b].left().slice(s![.., ..j]));
                let found = pairs.products(a, b, i, j).unwrap();
                assert!(found.dim() == (i, j) && found.iter().zip(&plain).all(|(x, y)| (x - y).abs() < 1e-15), "{a} {b} {i} {j}");
            }
        }
        for (a, b, i, j) in [(0, 2, 1, 1), (2, 0, 1, 1), (0, 1, 4, 1), (0, 1, 1, 4), (1, 0, 4, 1), (0, 3, 1, 1)] {
            assert!(pairs.products(a, b, i, j).is_none());
        }
        let uneven = AllPairs::of(&[Some(Array2::<f64>::eye(3).view()), Some(Array2::<f64>::eye(4).view())]);
        assert!(uneven.products(0, 1, 1, 1).is_none());

        let block = Array2::from_shape_fn((7, 2), |(a, b)| (a * 3 + b) as f64);
        let times = pairs.times(0, block.view()).unwrap();
        for (b, basis) in bases.iter().enumerate() {
            for j in 1..=3 {
                let plain = basis.left().slice(s![.., ..j]).t().dot(&block);
                assert!(times.of(b, j).unwrap().iter().zip(&plain).all(|(x, y)| (x - y).abs() < 1e-13));
            }
        }
        assert!(times.of(0, 4).is_none() && times.of(2, 1).is_none() && times.of(3, 1).is_none());
        assert!(pairs.times(2, block.view()).is_none() && pairs.times(0, block.slice(s![1.., ..])).is_none());
        assert!(uneven.times(0, Array2::eye(3).view()).unwrap().of(1, 1).is_none());
    }

    #[test]
    fn the_bound_on_a_vector_by_hand() {
        let basis = SubspaceBasis::of(ndarray::array![[4.0, 0.0], [0.0, 1.0], [0.0, 0.0]].view()).unwrap();
        let found = vector_error(3, 5.0, basis.spectrum(), 1);
        let expected = 10.0 * UNIT_ROUNDOFF * (3.0 + 5.0 * 4.0 / 3.0);
        assert!((found / expected - 1.0).abs() < 1e-14, "{found:e}, {expected:e}");
    }
}
