//! How close the solves come to the machine's matrix product: LU and 16 right-hand sides at n = 384 to 2048, four weights of n = 4096 with A and
//! B of rank 16, and QR with A and B of rank 16 of weights that are not square, against the f64 product at n = 2048, on the same threads,
//! interleaved in one run.
//!
//! `cargo bench --bench solve_rate` prints, for one thread and for two, the rate of each as the best of several rounds, and the solves' share.
//! Operations are counted as 2n³ for the product, 2n³/3 + 2n²k for a solve with k right-hand sides, and for m x n with m > n as 2mn² − 2n³/3 + 4mnk.
#![allow(clippy::print_stdout, clippy::expect_used, missing_docs)]

use std::time::Instant;

use condlora::conversion::{Equation, Target, Workspace, solve_theta};
use condlora::linalg::lapack::{blas_description, multiply};
use condlora::linalg::lu::LuFactors;
use condlora::linalg::panel::Panel;
use ndarray::{Array2, Axis};
use rayon::prelude::*;

const PRODUCT: usize = 2048;
const RANK: usize = 16;
const ROUNDS: usize = 7;

/// What is solved: the size, how many targets of [`RANK`] columns, how often all threads together solve it in a round, and in how many rounds.
const SOLVES: [(usize, usize, usize, usize); 5] =
    [(384, 1, 24, ROUNDS), (768, 1, 6, ROUNDS), (1024, 1, 4, ROUNDS), (2048, 1, 2, ROUNDS), (4096, 2, 4, 3)];

/// Weights that are not square, and how often all threads together solve each in a round: grouped-query values, and the MLPs of Llama-3.2-1B.
const RECTANGLES: [(usize, usize, usize); 4] = [(512, 2048, 4), (3072, 768, 4), (8192, 2048, 2), (2048, 8192, 2)];

fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    Array2::from_shape_fn((rows, columns), |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    })
}

/// Operations per second of all threads together, each running `work` `times` times after an untimed `setup`.
fn rate<T>(
    threads: usize,
    times: usize,
    operations: f64,
    setup: impl Fn() -> T + Sync,
    work: impl Fn(&mut T) + Sync,
    reset: impl Fn(&mut T) + Sync,
) -> f64 {
    let rates: Vec<f64> = (0..threads)
        .into_par_iter()
        .with_max_len(1)
        .map(|_| {
            let mut state = setup();
            let mut busy = 0.0;
            for _ in 0..times {
                reset(&mut state);
                let started = Instant::now();
                work(&mut state);
                busy += started.elapsed().as_secs_f64();
            }
            times as f64 * operations / busy / 1e9
        })
        .collect();
    rates.iter().sum()
}

/// What one thread factorises again and again.
struct Solve {
    w: Array2<f64>,
    panel: Panel,
}

fn main() {
    println!("OpenBLAS {}", blas_description());
    // A first call sets BLAS to one thread before any product.
    LuFactors::factorise(Array2::eye(2)).expect("the identity has an LU");
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| report(threads));
    }
}

fn report(threads: usize) {
    let (a, b) = (random(PRODUCT, PRODUCT, 1), random(PRODUCT, PRODUCT, 2));
    let inputs = SOLVES.map(|(n, targets, ..)| (random(n, n, 3), random(n, targets * RANK, 4)));
    let product_operations = 2.0 * (PRODUCT as f64).powi(3);
    let (mut ours, mut blas) = (0.0_f64, 0.0_f64);
    let mut best = [(0.0_f64, 0.0_f64); SOLVES.len()];
    let rectangles = RECTANGLES.map(|(d_out, d_in, _)| [random(d_out, d_in, 5), random(d_in, RANK, 6), random(d_out, RANK, 7)]);
    let mut best_rectangle = [0.0_f64; RECTANGLES.len()];
    for round in 0..ROUNDS {
        ours = ours.max(rate(threads, 1, product_operations, || (), |()| drop(multiply(a.view(), b.view())), |()| ()));
        blas = blas.max(rate(threads, 1, product_operations, || (), |()| drop(a.dot(&b)), |()| ()));
        for ((&(n, _, solves, rounds), (w, t)), best) in SOLVES.iter().zip(&inputs).zip(&mut best) {
            if round < rounds {
                let (plain, checked) = solve_rates(threads, solves.div_ceil(threads), n, w, t);
                *best = (best.0.max(plain), best.1.max(checked));
            }
        }
        for ((&(.., solves), inputs), best) in RECTANGLES.iter().zip(&rectangles).zip(&mut best_rectangle) {
            if round < 3 {
                *best = best.max(rectangle_rate(threads, solves.div_ceil(threads), inputs));
            }
        }
    }
    let product = ours.max(blas);
    println!("\n{threads} thread(s); product at n = {PRODUCT}: {ours:.1} GFLOP/s here, {blas:.1} by OpenBLAS");
    println!("  {:>5}  {:>16}  {:>22}  {:>34}", "n", "right-hand sides", "LU and solve", "with residuals, checks, condition");
    for ((n, targets, ..), (plain, checked)) in SOLVES.iter().zip(best) {
        println!(
            "  {n:>5}  {:>16}  {plain:>6.1} GFLOP/s {:>5.1} %  {checked:>18.1} GFLOP/s {:>5.1} %",
            targets * RANK,
            100.0 * plain / product,
            100.0 * checked / product
        );
    }
    println!("\n  {:>11}  {:>34}", "out x in", "QR, A and B with checks");
    for ((d_out, d_in, _), rate) in RECTANGLES.iter().zip(best_rectangle) {
        println!("  {:>11}  {rate:>18.1} GFLOP/s {:>5.1} %", format!("{d_out} x {d_in}"), 100.0 * rate / product);
    }
}

/// The rate of least squares with A and B and all checks.
fn rectangle_rate(threads: usize, times: usize, [w, a, b]: &[Array2<f64>; 3]) -> f64 {
    let (m, n) = (w.nrows().max(w.ncols()) as f64, w.nrows().min(w.ncols()) as f64);
    let operations = 2.0 * m * n * n - 2.0 * n * n * n / 3.0 + 4.0 * m * n * (a.ncols() + b.ncols()) as f64;
    let targets = [Target::new(a, Equation::W0Transposed), Target::new(b, Equation::W0)];
    let solve = |workspace: &mut Workspace| drop(solve_theta(w, &targets, None, workspace).expect("a full rank"));
    rate(threads, times, operations, Workspace::default, solve, |_| ())
}

/// The rates of the factorisation with its solve alone, and of all that the program does about it.
fn solve_rates(threads: usize, times: usize, n: usize, w: &Array2<f64>, t: &Array2<f64>) -> (f64, f64) {
    let operations = 2.0 * (n as f64).powi(3) / 3.0 + (2 * n * n * t.ncols()) as f64;
    // The copy that the factorisation overwrites is made before the clock starts, as the program makes it while reading.
    let factorise = |state: &mut Solve| {
        let lu = LuFactors::factorise(std::mem::take(&mut state.w)).expect("square");
        state.panel.solve(&lu);
        state.w = lu.into_storage();
    };
    let reset = |state: &mut Solve| {
        state.w.assign(w);
        state.panel.set_columns(0, t.view());
    };
    let fresh = || Solve { w: w.clone(), panel: Panel::zeros(n, t.ncols()) };
    let parts: Vec<Array2<f64>> = t.axis_chunks_iter(Axis(1), RANK).map(|part| part.to_owned()).collect();
    let targets: Vec<Target<'_>> = parts.iter().map(|part| Target::new(part, Equation::W0)).collect();
    let checked = |workspace: &mut Workspace| drop(solve_theta(w, &targets, None, workspace).expect("finite"));
    (
        rate(threads, times, operations, fresh, factorise, reset),
        rate(threads, times, operations, Workspace::default, checked, |_| ()),
    )
}
