//! LAPACK inside rayon, with any number of BLAS threads that the environment requests.
//!
//! OpenBLAS at more than one thread overflows the stack of a rayon worker, so every routine of the library that reaches BLAS first
//! sets it to one. Such a crash is only visible as an exit status, so each case here is a process of its own. LAPACK's own LU is what
//! overflows soonest (at n = 256 already), so it is called right after the library.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test that cannot set itself up should stop")]

mod shared;

use std::process::{Command, ExitStatus, Stdio};

use condlora::conversion::{Equation, Target, Workspace, solve_theta};
use condlora::linalg::least_squares::LeastSquares;
use condlora::linalg::lu::LuFactors;
use condlora::linalg::subspace::{SubspaceBasis, ThinQr};
use ndarray::Array2;
use ndarray_linalg::Factorize;
use rayon::prelude::*;
use shared::checkpoint::{Layer, PLAIN, write_both};
use shared::program::{Run, analyze};
use shared::tolerance::gaussian;

/// More than the machine may have: what counts is that they call BLAS at the same time.
const THREADS: usize = 4;
/// What a child process is to do first.
const FIRST: &str = "CONDLORA_TEST_FIRST";

/// The environment decides how many threads OpenBLAS starts with.
fn with_blas_threads(command: &mut Command, threads: Option<&str>) {
    for name in ["OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS", "RUST_MIN_STACK"] {
        command.env_remove(name);
    }
    if let Some(threads) = threads {
        command.env("OPENBLAS_NUM_THREADS", threads);
    }
}

fn in_a_process_of_its_own(test: &str, first: &str, blas_threads: Option<&str>) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--test-threads", "1"])
        .env(FIRST, first)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    with_blas_threads(&mut command, blas_threads);
    command.status().unwrap()
}

/// The numbers of BLAS threads tried: OpenBLAS's own choice, two on any machine, and the largest number it can have.
const BLAS_THREADS: [Option<&str>; 3] = [None, Some("2"), Some("64")];

#[test]
#[ignore = "run by other tests in a process of its own"]
fn child_lapack_in_rayon() {
    let eye = || Array2::<f64>::eye(4);
    match std::env::var(FIRST).unwrap().as_str() {
        "nothing" => {}
        "LuFactors" => drop(LuFactors::factorise(eye()).unwrap()),
        "ThinQr" => drop(ThinQr::of(eye().view()).unwrap()),
        "SubspaceBasis" => drop(SubspaceBasis::of(eye().view()).unwrap()),
        "LeastSquares" => drop(LeastSquares::factorise(eye().view(), None).unwrap()),
        "solve_theta" => {
            let values = eye();
            drop(solve_theta(&eye(), &[Target::new(&values, Equation::W0)], None, &mut Workspace::default()).unwrap());
        }
        other => panic!("no such start: {other}"),
    }
    // Half the usual stack: one BLAS thread needs a small part of it.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).stack_size(1 << 20).build().unwrap();
    pool.install(|| {
        (0..16_u64).into_par_iter().for_each(|seed| drop(gaussian(seed, "w0", 512, 512).factorize().unwrap()));
    });
}

#[test]
fn every_way_into_the_library_sets_blas_to_one_thread() {
    for threads in BLAS_THREADS {
        for first in ["LuFactors", "ThinQr", "SubspaceBasis", "LeastSquares", "solve_theta"] {
            let status = in_a_process_of_its_own("child_lapack_in_rayon", first, threads);
            assert!(status.success(), "after {first}, OPENBLAS_NUM_THREADS={threads:?}: {status}");
        }
    }
}

/// Whether the test above can fail at all with this OpenBLAS on this machine: here 0.3.21 crashes every time.
#[test]
#[ignore = "crashes on purpose: `cargo test --test blas_threads -- --ignored without --nocapture` shows how"]
fn without_the_library_lapack_crashes_in_rayon() {
    for threads in BLAS_THREADS {
        let status = in_a_process_of_its_own("child_lapack_in_rayon", "nothing", threads);
        println!("OPENBLAS_NUM_THREADS={threads:?}: {status}");
        assert!(!status.success());
    }
}

#[test]
#[ignore = "run by another test in a process of its own"]
fn child_library_in_rayon() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap();
    let n = 512;
    pool.install(|| {
        (0..16_u64).into_par_iter().for_each(|seed| {
            let w0 = gaussian(seed, "w0", n, n);
            let b = gaussian(seed, "b", n, 16);
            let found = solve_theta(&w0, &[Target::new(&b, Equation::W0)], None, &mut Workspace::default()).unwrap();
            assert_eq!(SubspaceBasis::of(found.matrices[0].theta.view()).unwrap().spectrum().rank(), 16);
            assert_eq!(SubspaceBasis::of(gaussian(seed, "tall", 4096, 16).view()).unwrap().spectrum().rank(), 16);
            assert_eq!(LeastSquares::factorise(gaussian(seed, "oblong", n, n / 2).view(), None).unwrap().rank(), n / 2);
            if seed < 2 {
                assert_eq!(LeastSquares::factorise(w0.view(), Some(0.0)).unwrap().rank(), n);
            }
        });
    });
}

#[test]
fn the_library_works_inside_rayon() {
    for threads in BLAS_THREADS {
        let status = in_a_process_of_its_own("child_library_in_rayon", "", threads);
        assert!(status.success(), "OPENBLAS_NUM_THREADS={threads:?}: {status}");
    }
}

#[test]
fn the_program_works_with_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    // Square weights go through LU, the others through QR.
    let shapes = [("q_proj", 512, 512), ("k_proj", 256, 512)];
    let layers: Vec<Layer> = (0..6)
        .flat_map(|l| shapes.map(|(name, d_out, d_in)| Layer::new(&format!("model.layers.{l}.self_attn.{name}"), d_out, d_in, 8)))
        .collect();
    write_both(folder.path(), &layers, PLAIN);
    for threads in BLAS_THREADS {
        let mut command =
            analyze(["adapter", "--base", "base", "-o", "out", "--overwrite", "--figures", "none", "--threads", "4"]);
        command.args(["--null-draws", "4"]).current_dir(folder.path());
        with_blas_threads(&mut command, threads);
        Run::of(command.output().unwrap()).exits(0);
    }
}
