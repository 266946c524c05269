//! What must hold for any weights: the invariants of docs/spec.md, section 1, at sizes where a run takes microseconds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]

mod shared;

use condlora::conversion::{Conversion, ConversionMatrix, Equation, Target, Workspace, solve_theta};
use condlora::linalg::subspace::{SubspaceBasis, ThinQr};
use condlora::similarity::{AllPairs, phi, vector_error};
use condlora::terms::Method;
use ndarray::{Array2, ArrayView2, s};
use ndarray_linalg::SVD;
use proptest::prelude::*;
use shared::tolerance::{conditioned, distance, gaussian, orthonormal, tolerance};

/// Where rounding may do more than this, a property says nothing.
const INFORMATIVE: f64 = 1e-6;

/// Sizes, condition and seed of random layers.
#[derive(Debug, Clone, Copy)]
struct Case {
    n: usize,
    r: usize,
    condition: f64,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    (2_usize..=40, 1_usize..=8, 0.0..5.0, any::<u64>()).prop_map(|(n, r, decades, seed)| Case {
        n,
        r: r.min(n),
        condition: 10.0_f64.powf(decades),
        seed,
    })
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

/// The weights of one layer: W0, Aᵀ (n, r) and B (n, r).
#[derive(Clone)]
struct Layer {
    w0: Array2<f64>,
    a_transposed: Array2<f64>,
    b: Array2<f64>,
}

impl Case {
    fn layer(&self, name: &str) -> Layer {
        Layer {
            w0: conditioned(self.seed, &format!("{name} w0"), self.n, self.n, self.condition),
            a_transposed: gaussian(self.seed, &format!("{name} a"), self.n, self.r),
            b: gaussian(self.seed, &format!("{name} b"), self.n, self.r),
        }
    }
}

/// A conversion matrix with its singular vectors and what a relative error of 1 in its data does to them.
struct Solved {
    matrix: ConversionMatrix,
    basis: SubspaceBasis,
}

impl Solved {
    fn new(matrix: &ConversionMatrix) -> Self {
        Self { basis: SubspaceBasis::of(matrix.theta.view()).unwrap(), matrix: matrix.clone() }
    }

    /// κ(W0) times ‖Θ‖₂ over the gap behind σ_i.
    fn condition(&self, i: usize) -> f64 {
        self.matrix.error_factor * self.basis.spectrum().sigma()[0] / self.basis.spectrum().gap(i)
    }
}

fn solve(w0: &Array2<f64>, targets: &[(&Array2<f64>, Equation)], rcond: Option<f64>) -> Conversion {
    let targets: Vec<Target<'_>> = targets.iter().map(|(values, equation)| Target::new(values, *equation)).collect();
    solve_theta(w0, &targets, rcond, &mut Workspace::default()).unwrap()
}

/// Θ_A and Θ_B of a layer.
fn thetas(layer: &Layer) -> [Solved; 2] {
    let found = solve(&layer.w0, &[(&layer.a_transposed, Equation::W0), (&layer.b, Equation::W0)], None);
    [Solved::new(&found.matrices[0]), Solved::new(&found.matrices[1])]
}

/// φ between the left vectors of two matrices through [`AllPairs`].
fn left_phi(x: &SubspaceBasis, y: &SubspaceBasis, i: usize, j: usize) -> f64 {
    AllPairs::of(&[Some(x.left()), Some(y.left())]).phi(0, 1, i, j).unwrap()
}

/// What rounding may do to φ between the first i vectors of one and the first j of the other.
fn allowed(n: usize, x: &Solved, i: usize, y: &Solved, j: usize) -> f64 {
    tolerance(n, i.max(j), 1.0 + x.condition(i) + y.condition(j))
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn phi_lies_between_0_and_1_and_is_1_on_the_diagonal(case in case(), i in 1_usize..=8, j in 1_usize..=8) {
        let (i, j) = (i.min(case.r), j.min(case.r));
        let layers = [case.layer("x"), case.layer("y"), case.layer("z")];
        let solved: Vec<Solved> = layers.iter().flat_map(thetas).collect();
        for left in [true, false] {
            let side = |s: &Solved| if left { s.basis.left().to_owned() } else { s.basis.right().to_owned() };
            let vectors: Vec<Array2<f64>> = solved.iter().map(side).collect();
            let pairs = AllPairs::of(&vectors.iter().map(|v| Some(v.view())).collect::<Vec<_>>());
            for (a, x) in vectors.iter().enumerate() {
                for (b, y) in vectors.iter().enumerate() {
                    let found = pairs.phi(a, b, i, j).unwrap();
                    prop_assert!((0.0..=1.0).contains(&found), "{}", found);
                    prop_assert_eq!(Some(found), pairs.phi(b, a, j, i));
                    let alone = phi(x.slice(s![.., ..i]), y.slice(s![.., ..j]));
                    prop_assert!((found - alone).abs() <= tolerance(case.n, case.r, 1.0));
                }
                prop_assert!((pairs.phi(a, a, i, j).unwrap() - 1.0).abs() <= tolerance(case.n, case.r, 1.0));
            }
        }
    }

    #[test]
    fn right_phi_is_1_where_the_vectors_span_their_space(case in case()) {
        let (x, y) = (thetas(&case.layer("x")), thetas(&case.layer("y")));
        for (x, y) in x.iter().zip(&y) {
            let pairs = AllPairs::of(&[Some(x.basis.right()), Some(y.basis.right())]);
            prop_assert!((pairs.phi(0, 1, case.r, case.r).unwrap() - 1.0).abs() <= tolerance(case.r, case.r, 1.0));
        }
    }

    #[test]
    fn a_power_of_two_changes_no_bit(case in case(), exponent in -90_i32..=90, of_w0 in any::<bool>()) {
        let (x, y) = (case.layer("x"), case.layer("y"));
        let scale = 2.0_f64.powi(exponent);
        let scaled = |layer: &Layer| {
            let mut layer = layer.clone();
            if of_w0 {
                layer.w0 *= scale;
            } else {
                layer.a_transposed *= scale;
                layer.b *= scale;
            }
            layer
        };
        let (plain, other) = ((thetas(&x), thetas(&y)), (thetas(&scaled(&x)), thetas(&scaled(&y))));
        for k in 0..2 {
            for i in [1, case.r] {
                prop_assert_eq!(left_phi(&plain.0[k].basis, &plain.1[k].basis, i, i), left_phi(&other.0[k].basis, &other.1[k].basis, i, i));
            }
            prop_assert_eq!(plain.0[k].matrix.method, other.0[k].matrix.method);
            prop_assert_eq!(plain.0[k].matrix.backward_error, other.0[k].matrix.backward_error);
            prop_assert_eq!(plain.0[k].basis.spectrum().rank(), other.0[k].basis.spectrum().rank());
        }
    }

    #[test]
    fn any_factor_leaves_phi_alone(case in case(), factor in prop_oneof![1e-6..1e6_f64, -1e3..-1e-3_f64], i in 1_usize..=8) {
        let i = i.min(case.r);
        let (x, y) = (case.layer("x"), case.layer("y"));
        let scaled = Layer { a_transposed: &x.a_transposed * factor, b: &x.b * factor, w0: x.w0.clone() };
        let (plain, scaled, other) = (thetas(&x), thetas(&scaled), thetas(&y));
        for k in 0..2 {
            let allowed = allowed(case.n, &plain[k], i, &other[k], i);
            prop_assume!(allowed < INFORMATIVE);
            let change = left_phi(&plain[k].basis, &other[k].basis, i, i) - left_phi(&scaled[k].basis, &other[k].basis, i, i);
            prop_assert!(change.abs() <= allowed, "{:e}, allowed {:e}", change, allowed);
        }
    }

    #[test]
    fn another_basis_of_the_same_update_has_the_same_subspaces(case in case()) {
        // (B·R, R⁻¹·A) is the same ΔW.
        let (x, y) = (case.layer("x"), case.layer("y"));
        let change = conditioned(case.seed, "change", case.r, case.r, 4.0);
        let inverse = {
            // By transposition: change = U·D·Vᵀ with known parts, so R⁻¹ = V·D⁻¹·Uᵀ.
            let basis = SubspaceBasis::of(change.view()).unwrap();
            let mut right = basis.right().to_owned();
            for (mut column, sigma) in right.columns_mut().into_iter().zip(basis.spectrum().sigma()) {
                column /= *sigma;
            }
            right.dot(&basis.left().t())
        };
        let turned = Layer { w0: x.w0.clone(), a_transposed: x.a_transposed.dot(&inverse.t()), b: x.b.dot(&change) };
        let (plain, turned_thetas, other) = (thetas(&x), thetas(&turned), thetas(&y));
        let r = case.r;
        for k in 0..2 {
            let allowed = 4.0 * allowed(case.n, &plain[k], r, &other[k], r);
            prop_assume!(allowed < INFORMATIVE);
            let difference = left_phi(&plain[k].basis, &other[k].basis, r, r) - left_phi(&turned_thetas[k].basis, &other[k].basis, r, r);
            prop_assert!(difference.abs() <= allowed, "{:e}, allowed {:e}", difference, allowed);
        }
        // Θ_BA itself is the same matrix, with the same singular values.
        let product = |theta_b: &Solved, a_transposed: &Array2<f64>| {
            ThinQr::of(theta_b.matrix.theta.view()).unwrap().basis_of_product(&ThinQr::of(a_transposed.view()).unwrap()).unwrap()
        };
        let (one, two) = (product(&plain[1], &x.a_transposed), product(&turned_thetas[1], &turned.a_transposed));
        let allowed = tolerance(case.n, r, 16.0 * plain[1].matrix.error_factor) * one.spectrum().sigma()[0];
        for (p, q) in one.spectrum().sigma().iter().zip(two.spectrum().sigma()) {
            prop_assert!((p - q).abs() <= allowed, "{} against {}", p, q);
        }
    }

    #[test]
    fn theta_ba_spans_what_theta_b_spans(case in case()) {
        let bases: Vec<_> = ["x", "y"]
            .map(|name| {
                let layer = case.layer(name);
                let theta_b = Solved::new(&solve(&layer.w0, &[(&layer.b, Equation::W0)], None).matrices[0]);
                let qr = ThinQr::of(theta_b.matrix.theta.view()).unwrap();
                let product = qr.basis_of_product(&ThinQr::of(layer.a_transposed.view()).unwrap()).unwrap();
                (theta_b, product, layer)
            })
            .into_iter()
            .collect();
        let r = case.r;
        // The product's left vectors have been through A as well.
        let by_a = |layer: &Layer| {
            let basis = SubspaceBasis::of(layer.a_transposed.view()).unwrap();
            basis.spectrum().sigma()[0] / basis.spectrum().gap(r)
        };
        let allowed = allowed(case.n, &bases[0].0, r, &bases[1].0, r) * by_a(&bases[0].2).max(by_a(&bases[1].2));
        prop_assume!(allowed < INFORMATIVE);
        let difference = left_phi(&bases[0].0.basis, &bases[1].0.basis, r, r) - left_phi(&bases[0].1, &bases[1].1, r, r);
        prop_assert!(difference.abs() <= allowed, "{:e}, allowed {:e}", difference, allowed);
        // And it is Θ_B·A: its singular vectors and values put it together again.
        let (theta_b, product, layer) = &bases[0];
        let mut scaled = product.left().to_owned();
        for (mut column, sigma) in scaled.columns_mut().into_iter().zip(product.spectrum().sigma()) {
            column *= *sigma;
        }
        let whole = theta_b.matrix.theta.dot(&layer.a_transposed.t());
        let size = theta_b.basis.spectrum().sigma()[0] * SubspaceBasis::of(layer.a_transposed.view()).unwrap().spectrum().sigma()[0];
        prop_assert!(distance(&scaled.dot(&product.right().t()), &whole) <= tolerance(case.n, r, size));
    }

    #[test]
    fn an_orthogonal_w0_only_rotates(case in case(), i in 1_usize..=8) {
        let i = i.min(case.r);
        let rotation = orthonormal(case.seed, "rotation", case.n, case.n);
        let (x, y) = (case.layer("x"), case.layer("y"));
        let solved = [&x, &y].map(|layer| Solved::new(&solve(&rotation, &[(&layer.a_transposed, Equation::W0)], None).matrices[0]));
        let (a, b) = (SubspaceBasis::of(x.a_transposed.view()).unwrap(), SubspaceBasis::of(y.a_transposed.view()).unwrap());
        let allowed = allowed(case.n, &solved[0], i, &solved[1], i);
        prop_assume!(allowed < INFORMATIVE);
        let change = left_phi(&solved[0].basis, &solved[1].basis, i, i) - left_phi(&a, &b, i, i);
        prop_assert!(change.abs() <= allowed, "{:e}, allowed {:e}", change, allowed);
        let rotated = rotation.t().dot(&x.a_transposed);
        prop_assert!(distance(&solved[0].matrix.theta, &rotated) <= tolerance(case.n, case.n, case.n as f64));
    }

    #[test]
    fn one_theta_for_all_layers_is_found_in_each(case in case(), i in 1_usize..=8) {
        // CondLoRA: A = (W0·Θ)ᵀ in every layer, so all φ are 1.
        let i = i.min(case.r);
        let theta = gaussian(case.seed, "theta", case.n, case.r);
        let solved = ["x", "y"].map(|name| {
            let layer = case.layer(name);
            Solved::new(&solve(&layer.w0, &[(&layer.w0.dot(&theta), Equation::W0)], None).matrices[0])
        });
        let allowed = allowed(case.n, &solved[0], i, &solved[1], i);
        prop_assume!(allowed < INFORMATIVE);
        prop_assert!((left_phi(&solved[0].basis, &solved[1].basis, i, i) - 1.0).abs() <= allowed);
        let size = solved[0].matrix.error_factor * solved[0].basis.spectrum().sigma()[0];
        prop_assert!(distance(&solved[0].matrix.theta, &theta) <= tolerance(case.n, case.r, size));
    }

    #[test]
    fn lu_and_svd_agree_within_the_bound_that_is_printed(case in case(), i in 1_usize..=8) {
        let i = i.min(case.r);
        let (x, y) = (case.layer("x"), case.layer("y"));
        let both = [None, Some(0.0)].map(|rcond| {
            [&x, &y].map(|layer| {
                let found = solve(&layer.w0, &[(&layer.b, Equation::W0)], rcond);
                assert_eq!(found.matrices[0].method, if rcond.is_none() { Method::Lu } else { Method::LeastSquares });
                Solved::new(&found.matrices[0])
            })
        });
        let bound: f64 = both.iter().flatten().map(|s| vector_error(case.n, s.matrix.error_factor, s.basis.spectrum(), i)).sum();
        let phis = both.each_ref().map(|pair| left_phi(&pair[0].basis, &pair[1].basis, i, i));
        prop_assert!((phis[0] - phis[1]).abs() <= bound, "{} and {}, bound {:e}", phis[0], phis[1], bound);
    }
}

/// W⁺ by the textbook: V·Σ⁻¹·Uᵀ.
fn pseudo_inverse(w: ArrayView2<'_, f64>) -> Array2<f64> {
    let (u, sigma, vt) = w.svd(true, true).unwrap();
    let (u, vt, k) = (u.unwrap(), vt.unwrap(), sigma.len());
    let mut v = vt.slice(s![..k, ..]).t().to_owned();
    for (mut column, sigma) in v.columns_mut().into_iter().zip(&sigma) {
        column /= *sigma;
    }
    v.dot(&u.slice(s![.., ..k]).t())
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn weights_that_are_not_square_have_the_pseudo_inverse(d_out in 2_usize..=40, d_in in 2_usize..=40, r in 1_usize..=8, decades in 0.0..4.0_f64, seed: u64) {
        let condition = 10.0_f64.powf(decades);
        let w0 = conditioned(seed, "w0", d_out, d_in, condition);
        let (a_transposed, b) = (gaussian(seed, "a", d_in, r), gaussian(seed, "b", d_out, r));
        let found = solve(&w0, &[(&a_transposed, Equation::W0Transposed), (&b, Equation::W0)], None);
        let inverse = pseudo_inverse(w0.view());
        // A least-squares solution feels κ² times the part of the target that W0 cannot reach.
        let longest = d_out.max(d_in);
        for (ours, theirs, target) in [
            (&found.matrices[0], inverse.t().dot(&a_transposed), &a_transposed),
            (&found.matrices[1], inverse.dot(&b), &b),
        ] {
            let size = target.iter().map(|v| v * v).sum::<f64>().sqrt() * condition;
            let allowed = tolerance(longest, longest, condition) * size;
            prop_assert!(distance(&ours.theta, &theirs) <= allowed, "{:e}, allowed {:e}", distance(&ours.theta, &theirs), allowed);
            prop_assert!(ours.reliable && !ours.singular && ours.w0_rank == d_out.min(d_in));
            if d_out != d_in {
                prop_assert_eq!(ours.method, Method::LeastSquares);
            }
        }
    }

    #[test]
    fn a_singular_w0_is_seen_and_solved_with_least_norm(n in 3_usize..=40, missing in 1_usize..=3, r in 1_usize..=8, seed: u64) {
        let rank = n - missing.min(n - 1);
        let w0 = conditioned(seed, "left", n, rank, 8.0).dot(&gaussian(seed, "right", rank, n));
        let targets = gaussian(seed, "b", n, r);
        let found = solve(&w0, &[(&targets, Equation::W0)], None);
        prop_assert!(found.matrices[0].singular);
        prop_assert_eq!(found.matrices[0].w0_rank, rank);
        prop_assert_eq!(found.matrices[0].method, Method::LeastSquares);
        // Nothing of Θ lies in the null space of W0, and what is left of the target is orthogonal to its columns.
        let theta = &found.matrices[0].theta;
        let (_, sigma, vt) = w0.svd(false, true).unwrap();
        let in_null_space = vt.unwrap().slice(s![rank.., ..]).dot(theta);
        let size = targets.iter().map(|v| v * v).sum::<f64>().sqrt() / sigma[rank - 1];
        let condition = sigma[0] / sigma[rank - 1];
        prop_assert!(in_null_space.iter().all(|v| v.abs() <= tolerance(n, n, condition * size)));
        let rest = w0.t().dot(&(&targets - &w0.dot(theta)));
        prop_assert!(rest.iter().all(|v| v.abs() <= tolerance(n, n, condition * size * sigma[0] * sigma[0])));
    }

    #[test]
    fn a_larger_problem_does_not_change_a_bit(case in case(), companions in 1_usize..=20) {
        let layer = case.layer("x");
        let alone = solve(&layer.w0, &[(&layer.b, Equation::W0)], None);
        let others = gaussian(case.seed, "others", case.n, companions);
        let first_column = layer.b.slice(s![.., ..1]).to_owned();
        let beside = solve(&layer.w0, &[(&others, Equation::W0), (&others, Equation::W0Transposed), (&layer.b, Equation::W0), (&first_column, Equation::W0)], None);
        prop_assert_eq!(&alone.matrices[0].theta, &beside.matrices[2].theta);
        prop_assert_eq!(alone.matrices[0].theta.slice(s![.., ..1]), beside.matrices[3].theta.view());
        prop_assert_eq!(alone.condition, beside.condition);
    }

    #[test]
    fn a_smaller_rank_gets_the_first_columns_to_the_bit(d_out in 2_usize..=40, d_in in 2_usize..=40, r in 1_usize..=40, more in 1_usize..=40, seed: u64) {
        // Draws of the control are made once for the largest rank of a run.
        let w0 = gaussian(seed, "w0", d_out, d_in);
        for (rows, equation) in [(d_out, Equation::W0), (d_in, Equation::W0Transposed)] {
            for rcond in [None, Some(0.0)] {
                let targets = gaussian(seed, "b", rows, r + more);
                let few = targets.slice(s![.., ..r]).to_owned();
                let found = solve(&w0, &[(&targets, equation), (&few, equation)], rcond);
                prop_assert_eq!(found.matrices[0].theta.slice(s![.., ..r]), found.matrices[1].theta.view());
            }
        }
    }
}
