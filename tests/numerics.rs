//! Whether the numbers can be trusted: φ computed by the whole library is checked against double-double arithmetic, on weights that are hard in every known way.
//!
//! Each φ must lie within the `phi_error_bound` of its row of the true value, and each status must tell what is wrong with the weights.
//! `cargo test --test numerics -- --nocapture` prints how far the bounds are from the errors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up should stop")]
#![allow(clippy::print_stdout, reason = "how close the bounds are is worth seeing")]

#[path = "numerics/double.rs"]
mod double;
#[path = "numerics/held.rs"]
mod held;
#[path = "numerics/matrices.rs"]
mod matrices;
#[path = "numerics/reference.rs"]
mod reference;
mod shared;

use std::collections::BTreeMap;

use condlora::terms::{Convention, MatrixKind, Method, Side, Status};
use double::Double;
use held::{Held, Setting, study, thetas};
use matrices::{SPREADS, Spread, gallery, graded, layer, spread, with_singular_values};
use ndarray::{Array2, Axis};
use shared::checkpoint::{Layer, PLAIN, Storage};
use shared::tolerance::gaussian;

const BOTH: [Convention; 2] = [Convention::Paper, Convention::General];
/// W0 and factors as most checkpoints hold them.
const SINGLE: Storage = Storage { base: "F32", adapter: "F32", fan_in_fan_out: false };

#[test]
fn every_phi_lies_within_its_bound_at_any_condition() {
    for n in [1_usize, 2, 8, 64] {
        for (number, kind) in SPREADS.into_iter().enumerate() {
            let layers: Vec<Layer> = (1..=14)
                .map(|k| {
                    let seed = (1000 * n + 100 * number + k) as u64;
                    layer(k - 1, seed, spread(seed, (n, n), kind, 10.0_f64.powi(k as i32)), n.min(8))
                })
                .collect();
            let ranks: &[usize] = if n >= 8 { &[1, 8] } else { &[1] };
            // Those that are singular to working precision have their own test.
            let regular = if n == 64 { &layers[..13] } else { &layers };
            for held in Held::all(&format!("{kind:?}, n = {n}"), regular, &BOTH, ranks, PLAIN) {
                held.check();
            }
        }
    }
}

#[test]
fn as_many_columns_as_rows() {
    let conditions = [1e2, 1e6, 1e10, 1e12];
    let layers: Vec<Layer> = conditions
        .iter()
        .enumerate()
        .map(|(k, &condition)| layer(k, k as u64, spread(k as u64, (64, 64), SPREADS[k], condition), 64))
        .collect();
    for held in Held::all("n = 64", &layers, &BOTH, &[64], PLAIN) {
        held.check();
    }
}

#[test]
fn famous_matrices() {
    for n in [8_usize, 12, 40] {
        let layers: Vec<Layer> = gallery(n).into_iter().enumerate().map(|(k, w0)| layer(k, k as u64, w0, 4)).collect();
        for held in Held::all(&format!("gallery, n = {n}"), &layers, &BOTH, &[1, 4], PLAIN) {
            held.check();
        }
    }
}

#[test]
fn graded_rows_and_columns() {
    for n in [8_usize, 64] {
        for smallest in [1e-4, 1e-8] {
            let grades: [&[Axis]; 4] = [&[Axis(0)], &[Axis(1)], &[Axis(0), Axis(1)], &[]];
            let layers: Vec<Layer> = (0..8)
                .map(|number| {
                    let w0 = spread(number as u64, (n, n), Spread::Geometric, 100.0);
                    let w0 = grades[number / 2].iter().fold(w0, |w0, &axis| graded(w0, axis, smallest));
                    let plain = layer(number, number as u64, w0, 4);
                    // Columns of B one way and rows of A the other: their product is of the size of neither.
                    Layer { b: graded(plain.b, Axis(1), smallest), a: graded(plain.a, Axis(0), 1.0 / smallest), ..plain }
                })
                .collect();
            for held in Held::all(&format!("graded to {smallest:e}, n = {n}"), &layers, &BOTH, &[4], PLAIN) {
                held.check();
            }
        }
    }
}

#[test]
fn weights_that_are_not_square() {
    for (d_out, d_in) in [(8, 5), (5, 8), (64, 40), (40, 64), (64, 63), (768, 16), (16, 768)] {
        let layers: Vec<Layer> = (1..=12)
            .map(|k| layer(k - 1, k as u64, spread(k as u64, (d_out, d_in), SPREADS[k % 4], 10.0_f64.powi(k as i32)), 4))
            .collect();
        for held in Held::all(&format!("{d_out} x {d_in}"), &layers, &[Convention::General], &[1, 4], PLAIN) {
            held.check();
        }
    }
}

#[test]
fn deficient_weights_say_so() {
    for n in [8_usize, 64] {
        for by in [1, 3, n / 4] {
            let kept = n - by;
            let mut layers = Vec::new();
            for (number, condition) in [1e1, 1e3, 1e5, 1e7].into_iter().enumerate() {
                let seed = (n + 10 * by + number) as u64;
                let low = with_singular_values(seed, n, n, &SPREADS[number].values(seed, kept, condition));
                layers.push(layer(number, seed, low, 4));
            }
            // Exactly deficient: rows that are there twice.
            let mut twice = spread(1, (n, n), Spread::Geometric, 100.0);
            for k in 0..by {
                let row = twice.row(k).to_owned();
                twice.row_mut(n - 1 - k).assign(&row);
            }
            layers.push(layer(4, 5, twice, 4));
            for convention in BOTH {
                let truth = thetas(&layers, convention, &vec![kept; layers.len()]);
                let setting = Setting { convention, ij: &[(1, 1), (2, 4), (4, 4)], rcond: None, storage: PLAIN };
                let held = Held::new(&format!("n = {n}, deficient by {by}, {convention}"), &layers, &truth, 4, &setting);
                for row in &held.conversion {
                    assert_eq!(
                        (row.w0_rank, row.status, row.method),
                        (kept, Status::Singular, Method::LeastSquares),
                        "{}",
                        held.name
                    );
                }
                held.check();
            }
        }
    }
}

#[test]
fn singular_to_working_precision() {
    // 1e-14·σ₁ lies below 64·ε = 1.4e-14.
    let layers: Vec<Layer> = (0..3)
        .map(|k| {
            layer(k, k as u64, spread(k as u64, (64, 64), if k == 2 { Spread::Geometric } else { Spread::OneSmall }, 1e14), 8)
        })
        .collect();
    let truth = thetas(&layers, Convention::Paper, &[63, 63, 63]);
    let setting = Setting { convention: Convention::Paper, ij: &[(1, 1), (8, 8)], rcond: None, storage: PLAIN };
    let held = Held::new("κ = 1e14, n = 64", &layers, &truth, 8, &setting);
    assert!(held.conversion.iter().all(|row| row.w0_rank == 63));
    held.check();
}

#[test]
fn singular_values_cut_off_by_rcond() {
    let layers: Vec<Layer> = (0..4).map(|k| layer(k, k as u64, spread(k as u64, (24, 24), Spread::Geometric, 1e6), 4)).collect();
    for rcond in [1e-2, 3.3e-4, 1e-5] {
        let kept = Spread::Geometric.values(0, 24, 1e6).iter().filter(|&&s| s >= rcond).count();
        for convention in BOTH {
            let truth = thetas(&layers, convention, &[kept; 4]);
            let setting = Setting { convention, ij: &[(1, 1), (4, 4)], rcond: Some(rcond), storage: PLAIN };
            let held = Held::new(&format!("rcond {rcond}, {convention}"), &layers, &truth, 4, &setting);
            assert!(held.conversion.iter().all(|row| row.w0_rank == kept));
            held.check();
        }
    }
}

#[test]
fn nearly_equal_singular_values_of_theta() {
    // Θ = U·diag(σ)·Vᵀ with σ_i/σ_{i+1} = 1 + gap, in every layer: 8 by 4 and 64 by 8.
    for (n, r, i) in [(8, 4, 2), (64, 8, 3), (64, 8, 7)] {
        let mut layers = Vec::new();
        for (number, gap) in [1e-3, 1e-6, 1e-9, 1e-12, 0.0].into_iter().enumerate() {
            let seed = number as u64;
            let mut sigma: Vec<f64> = (0..r).map(|k| 2.0_f64.powi(-(k as i32))).collect();
            sigma[i] = sigma[i - 1] / (1.0 + gap);
            let w0 = spread(seed, (n, n), Spread::Geometric, 10.0);
            let target = |name: u64| w0.dot(&with_singular_values(100 * name + seed, n, r, &sigma));
            layers.push(Layer { path: format!("model.layers.{number}.q"), a: target(1).t().to_owned(), b: target(2), w0 });
        }
        let full = vec![n; layers.len()];
        let truth = thetas(&layers, Convention::Paper, &full);
        let setting =
            Setting { convention: Convention::Paper, ij: &[(i, i), (i, r), (i + 1, i), (r, r)], rcond: None, storage: PLAIN };
        let held = Held::new(&format!("gap behind {i} of {r}, n = {n}"), &layers, &truth, r, &setting);
        held.check();
        // Without a gap the first i vectors are not determined.
        let undetermined = held.cells.iter().filter(|c| {
            c.row.layer_b == 4
                && c.row.j == i
                && c.row.side == Side::Left
                && !c.row.matrix.is_factor()
                && c.row.matrix != MatrixKind::BA
        });
        for cell in undetermined {
            assert_eq!(cell.row.status, Status::LowConfidence, "{:?}", cell.row);
        }
    }
}

/// What a study says apart from the sizes of what was scaled.
fn said(layers: &[Layer], storage: Storage) -> Vec<(Option<f64>, Option<f64>, Status)> {
    let setting = Setting { convention: Convention::Paper, ij: &[(1, 1), (2, 4), (4, 4)], rcond: None, storage };
    study(layers, 4, &setting).1.into_iter().map(|row| (row.phi, row.phi_error_bound, row.status)).collect()
}

#[test]
fn powers_of_two_change_no_bit() {
    let layers: Vec<Layer> = (0..4)
        .map(|k| {
            let plain = layer(k, k as u64, spread(k as u64, (24, 24), SPREADS[k], 1e5), 4);
            let single = |matrix: &Array2<f64>| matrix.mapv(|v| f64::from(v as f32));
            Layer { w0: single(&plain.w0), a: single(&plain.a), b: single(&plain.b), ..plain }
        })
        .collect();
    let scaled = |w0: i32, a: i32, b: i32| -> Vec<Layer> {
        let power = |exponent: i32| 2.0_f64.powi(exponent);
        layers.iter().map(|l| Layer { w0: &l.w0 * power(w0), a: &l.a * power(a), b: &l.b * power(b), ..l.clone() }).collect()
    };
    let plain = said(&layers, PLAIN);
    assert!(plain.iter().all(|cell| cell.0.is_some() && cell.2 == Status::Ok));
    assert_eq!(said(&layers, SINGLE), plain);
    for (w0, a, b) in [(90, 0, 0), (-90, 0, 0), (0, 90, -90), (0, -90, 90), (-90, 90, 90), (90, -90, -90)] {
        assert_eq!(said(&scaled(w0, a, b), SINGLE), plain, "W0 by 2^{w0}, A by 2^{a}, B by 2^{b}");
    }
    for (w0, a, b) in [(400, 0, 0), (-400, 0, 0), (0, 400, 400), (0, -400, -400), (900, 200, 100), (-500, 400, -600)] {
        assert_eq!(said(&scaled(w0, a, b), PLAIN), plain, "W0 by 2^{w0}, A by 2^{a}, B by 2^{b}");
    }
}

/// Layers of 24 by 24 whose weights have few digits, so that the changes below are exact.
fn short_layers() -> Vec<Layer> {
    let single = |matrix: &Array2<f64>| matrix.mapv(|v| f64::from(v as f32));
    let of = |k: usize| {
        let plain = layer(k, k as u64, spread(k as u64, (24, 24), SPREADS[k], 1e6), 4);
        Layer { w0: single(&plain.w0), a: single(&plain.a), b: single(&plain.b), ..plain }
    };
    (0..4).map(of).collect()
}

/// Insists that two studies that must say the same differ by no more than their bounds, in the cells that `counts` picks. Returns how many differ in bits.
fn same_within_bounds(one: &[Layer], other: &[Layer], counts: impl Fn(&condlora::SimilarityRow) -> bool) -> usize {
    let setting = Setting { convention: Convention::Paper, ij: &[(1, 1), (2, 4), (4, 4)], rcond: None, storage: PLAIN };
    let (one, other) = (study(one, 4, &setting).1, study(other, 4, &setting).1);
    let mut differ = 0;
    for (x, y) in one.iter().zip(&other).filter(|(x, _)| counts(x)) {
        let off = (x.phi.unwrap() - y.phi.unwrap()).abs();
        let allowed = x.phi_error_bound.unwrap() + y.phi_error_bound.unwrap();
        assert!(off <= allowed, "off by {off:e}, allowed {allowed:e}: {x:?}");
        differ += usize::from(off > 0.0);
    }
    differ
}

#[test]
fn orthogonal_changes_of_basis_leave_phi_within_its_bounds() {
    let layers = short_layers();
    // Hadamard's matrix of 4, halved, down the diagonal; and a permutation. Both are exact on these weights.
    let hadamard = Array2::from_shape_fn((24, 24), |(a, b)| match (a / 4 == b / 4, (a % 4) & (b % 4)) {
        (false, _) => 0.0,
        (true, common) => {
            if common.count_ones() % 2 == 0 {
                0.5
            } else {
                -0.5
            }
        }
    });
    let permutation = Array2::from_shape_fn((24, 24), |(a, b)| f64::from(u8::from(b == (7 * a + 3) % 24)));
    for change in [hadamard, permutation] {
        assert_eq!(change.dot(&change.t()), Array2::<f64>::eye(24));
        // Turning the equations leaves Θ unchanged. Turning what W0 is applied to turns Θ, in every layer in the same way.
        let of_rows =
            layers.iter().map(|l| Layer { w0: change.dot(&l.w0), a: l.a.dot(&change.t()), b: change.dot(&l.b), ..l.clone() });
        let of_columns = layers.iter().map(|l| Layer { w0: l.w0.dot(&change.t()), ..l.clone() });
        for changed in [of_rows.collect::<Vec<_>>(), of_columns.collect()] {
            assert!(same_within_bounds(&layers, &changed, |_| true) > 100, "nothing was changed");
        }
    }
}

#[test]
fn other_factors_of_the_same_update_have_the_same_subspaces() {
    let layers = short_layers();
    // R and R⁻¹ of integers.
    let mix = ndarray::array![[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 3.0, 1.0], [0.0, 0.0, 1.0, -2.0], [0.0, 0.0, 0.0, 1.0]];
    let inverse = ndarray::array![[1.0, -2.0, 6.0, 15.0], [0.0, 1.0, -3.0, -7.0], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]];
    assert_eq!(mix.dot(&inverse), Array2::<f64>::eye(4));
    let changed: Vec<Layer> = layers.iter().map(|l| Layer { a: inverse.dot(&l.a), b: l.b.dot(&mix), ..l.clone() }).collect();
    // All columns span the same; of Θ_BA, which is the same matrix, any number of vectors is the same.
    let counts = |row: &condlora::SimilarityRow| row.matrix == MatrixKind::BA || (row.i == 4 && row.j == 4);
    assert!(same_within_bounds(&layers, &changed, counts) > 100, "nothing was changed");
}

#[test]
fn beyond_the_range_of_f64_nothing_is_called_ok_that_is_not() {
    let layers: Vec<Layer> = (0..3).map(|k| layer(k, k as u64, spread(k as u64, (24, 24), Spread::Geometric, 1e3), 4)).collect();
    let truth = said(&layers, PLAIN);
    for (w0, factor) in
        [(1000, -60), (1000, -70), (1020, -1000), (-1000, 100), (-1060, 0), (-1000, -1060), (0, -1070), (0, 1015), (1015, 1015)]
    {
        let power = |exponent: i32| 2.0_f64.powi(exponent / 2) * 2.0_f64.powi(exponent - exponent / 2);
        let scaled: Vec<Layer> = layers
            .iter()
            .map(|l| Layer { w0: &l.w0 * power(w0), a: &l.a * power(factor), b: &l.b * power(factor), ..l.clone() })
            .collect();
        // Stored numbers that lost digits to underflow are other weights: there φ must only be a number or have a status.
        let exact = scaled.iter().zip(&layers).all(|(s, l)| {
            (&s.w0 / power(w0) - &l.w0).iter().all(|v| *v == 0.0) && (&s.b / power(factor) - &l.b).iter().all(|v| *v == 0.0)
        });
        for ((phi, bound, status), (true_phi, true_bound, _)) in said(&scaled, PLAIN).into_iter().zip(&truth) {
            let Some(phi) = phi else {
                assert!(status != Status::Ok && status != Status::LowConfidence, "2^{w0}, 2^{factor}: {status}");
                continue;
            };
            assert!((0.0..=1.0).contains(&phi), "{phi}");
            if exact && status == Status::Ok {
                let off = (phi - true_phi.unwrap()).abs();
                assert!(off <= bound.unwrap() + true_bound.unwrap(), "2^{w0}, 2^{factor}: off by {off:e}, bound {bound:?}");
            }
        }
    }
}

/// The median of bound over error by condition: the cells off the diagonal with φ below 0.9 of left vectors of Θ.
fn medians(held: &Held, conditions: &[f64]) -> BTreeMap<String, (f64, usize)> {
    let mut ratios: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for cell in &held.cells {
        let row = &cell.row;
        let (a, b) = (row.layer_a.index().unwrap() as usize, row.layer_b.index().unwrap() as usize);
        let counts = a != b && conditions[a] == conditions[b] && row.side == Side::Left && !row.matrix.is_factor();
        let (true, Some(phi), Some(error)) = (counts, cell.phi, cell.error()) else { continue };
        if phi < 0.9 && error > 0.0 {
            ratios
                .entry(format!("κ = {:.0e}, i = {}", conditions[a], row.i))
                .or_default()
                .push(row.phi_error_bound.unwrap() / error);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values.len())
    };
    ratios.into_iter().map(|(key, values)| (key, median(values))).collect()
}

/// Insists on medians at i = r, which is what a study compares unless told otherwise, and prints all.
fn insist(held: &Held, conditions: &[f64], r: usize, most: f64) {
    for (what, (median, count)) in medians(held, conditions) {
        println!("{}: {what}: median of bound/error {median:.0} ({count} cells)", held.name);
        assert!(median < most || !what.ends_with(&format!("i = {r}")), "{}: {what}: {median}", held.name);
    }
}

#[test]
fn the_bound_is_not_useless() {
    for (n, r, seeds) in [(8, 2, 24), (64, 8, 6)] {
        let conditions: Vec<f64> = [1e2, 1e4, 1e6, 1e8].into_iter().flat_map(|c| vec![c; seeds]).collect();
        for kind in SPREADS {
            let layer_of = |(k, &c): (usize, &f64)| layer(k, k as u64, spread(k as u64, (n, n), kind, c), r);
            let layers: Vec<Layer> = conditions.iter().enumerate().map(layer_of).collect();
            for held in Held::all(&format!("{kind:?}, n = {n}"), &layers, &BOTH[..1], &[r], PLAIN) {
                held.check();
                insist(&held, &conditions, r, 1000.0);
            }
        }
    }
}

#[test]
fn at_the_width_of_a_model() {
    let n = 768;
    let conditions = [1e2, 1e2, 1e4, 1e4, 1e6, 1e6, 1e8, 1e8];
    let layer_of = |(k, &c): (usize, &f64)| layer(k, k as u64, spread(k as u64, (n, n), Spread::Geometric, c), 64);
    let layers: Vec<Layer> = conditions.iter().enumerate().map(layer_of).collect();
    for (held, r) in Held::all("n = 768", &layers, &BOTH[..1], &[1, 8, 64], PLAIN).iter().zip([1, 8, 64]) {
        held.check();
        // The ratios are over three cells each, so an error that happens to be small makes a ratio large.
        insist(held, &conditions, r, 20_000.0);
    }
}

#[test]
fn weights_in_single_precision() {
    for n in [8, 64] {
        let layers: Vec<Layer> = (1..=6)
            .map(|k| {
                let plain = layer(k - 1, k as u64, spread(k as u64, (n, n), SPREADS[k % 4], 10.0_f64.powi(k as i32)), 8);
                let single = |matrix: &Array2<f64>| matrix.mapv(|v| f64::from(v as f32));
                Layer { w0: single(&plain.w0), a: single(&plain.a), b: single(&plain.b), ..plain }
            })
            .collect();
        for held in Held::all(&format!("F32, n = {n}"), &layers, &BOTH, &[1, 8], SINGLE) {
            held.check();
        }
    }
}

#[test]
fn singular_values_cut_off_between_close_ones() {
    let layers: Vec<Layer> = [1e-1, 1e-3, 1e-6, 1e-9]
        .into_iter()
        .enumerate()
        .map(|(k, gap)| {
            let mut sigma = Spread::Geometric.values(0, 24, 1e2);
            for (l, value) in sigma.iter_mut().enumerate().skip(12) {
                *value = 1e-2 * if l < 18 { 1.0 + gap } else { 1.0 / (1.0 + gap) };
            }
            layer(k, k as u64, with_singular_values(k as u64, 24, 24, &sigma), 4)
        })
        .collect();
    for convention in BOTH {
        let truth = thetas(&layers, convention, &[18; 4]);
        let setting = Setting { convention, ij: &[(1, 1), (4, 4)], rcond: Some(1e-2), storage: PLAIN };
        let held = Held::new(&format!("cut off at a gap, {convention}"), &layers, &truth, 4, &setting);
        assert!(held.conversion.iter().all(|row| row.w0_rank == 18));
        held.check();
    }
}

/// An integer matrix with an integer inverse, and that inverse: L·U with ones on both diagonals.
fn unimodular(seed: u64, n: usize) -> (Vec<Vec<i128>>, Vec<Vec<i128>>) {
    let numbers = gaussian(seed, "integers", n, n).mapv(|x| (2.5 * x).round() as i128);
    let triangle = |lower: bool| -> Vec<Vec<i128>> {
        let entry = |a: usize, b: usize| {
            if a == b {
                1
            } else if (a > b) == lower {
                numbers[(a, b)]
            } else {
                0
            }
        };
        (0..n).map(|a| (0..n).map(|b| entry(a, b)).collect()).collect()
    };
    let product = |x: &[Vec<i128>], y: &[Vec<i128>]| -> Vec<Vec<i128>> {
        (0..n).map(|a| (0..n).map(|b| (0..n).map(|k| x[a][k] * y[k][b]).sum()).collect()).collect()
    };
    // (1 + N)⁻¹ = 1 − N + N² − ..., N being nilpotent.
    let inverse = |t: &[Vec<i128>]| {
        let identity: Vec<Vec<i128>> = (0..n).map(|a| (0..n).map(|b| i128::from(a == b)).collect()).collect();
        (1..n).fold(identity.clone(), |sum, _| {
            let next = product(t, &sum);
            (0..n).map(|a| (0..n).map(|b| identity[a][b] + sum[a][b] - next[a][b]).collect()).collect()
        })
    };
    let (lower, upper) = (triangle(true), triangle(false));
    (product(&lower, &upper), product(&inverse(&upper), &inverse(&lower)))
}

#[test]
fn the_reference_agrees_with_exact_integers() {
    let n = 8;
    let mut worst = 0.0_f64;
    let exact: Vec<(Layer, Vec<i128>)> = (0..6)
        .map(|k| {
            let (w0, inverse) = unimodular(k, n);
            let of = |integers: &[Vec<i128>]| Array2::from_shape_fn((n, n), |(a, b)| integers[a][b] as f64);
            let b = gaussian(k, "target", n, 1).mapv(|x| (10.0 * x).round());
            let theta: Vec<i128> = inverse.iter().map(|row| row.iter().zip(&b).map(|(x, t)| x * *t as i128).sum()).collect();
            let condition = of(&w0).iter().chain(of(&inverse).iter()).fold(0.0_f64, |m, v| m.max(v.abs()));
            worst = worst.max(condition);
            (Layer { path: format!("model.layers.{k}.q"), w0: of(&w0), a: b.t().to_owned(), b }, theta)
        })
        .collect();
    assert!(worst > 1e4, "{worst:e}: too easy");
    let layers: Vec<Layer> = exact.iter().map(|(layer, _)| layer.clone()).collect();
    let truth = thetas(&layers, Convention::Paper, &[n; 6]);
    let bases: Vec<_> = truth.iter().map(|t| t.bases(1)).collect();
    let dot = |x: &[i128], y: &[i128]| -> i128 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
    for (a, (_, x)) in exact.iter().enumerate() {
        for (b, (_, y)) in exact.iter().enumerate() {
            // (x·y)²/(x·x)(y·y), rounded only here.
            let of = Double::of_integer;
            let cosine = of(dot(x, y)) * of(dot(x, y)) / (of(dot(x, x)) * of(dot(y, y)));
            let found = bases[a].of(MatrixKind::B).phi(bases[b].of(MatrixKind::B), Side::Left, 1, 1);
            assert!((found - cosine.to_f64()).abs() <= f64::EPSILON, "{a} {b}: {found} against {cosine:?}");
        }
    }
}
