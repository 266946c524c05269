//! Large inputs and small limits: ten thousand adapters, two hundred layers, few open files, little memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by them, or says what it counted")]

mod shared;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow, SummaryRow};
use condlora::terms::Status;
use shared::checkpoint::{Layer, PLAIN, Storage, square_layers, write_adapter, write_base};
#[cfg(debug_assertions)]
use shared::held::Held;
use shared::program::{Run, analyze, program, tables};

const SINGLE: Storage = Storage { base: "F32", adapter: "F32", ..PLAIN };

/// The same command under a shell's limits.
fn limited(command: &Command, limits: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("{limits} && exec \"$@\"")).arg("bash").arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}

#[test]
fn ten_thousand_adapters_need_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(2, 8, 2);
    write_base(&root.join("base"), &layers, SINGLE);
    // Four different ones, so that what belongs to which can be told.
    for number in 0..10_000 {
        let path = |l: usize| format!("model.layers.{l}.self_attn.q_proj");
        let changed: Vec<Layer> =
            (0..2).map(|l| Layer { path: path(l), ..Layer::new(&format!("{} {}", path(l), number % 4), 8, 8, 2) }).collect();
        write_adapter(&root.join(format!("runs/{:02}/{number:05}", number / 100)), &changed, SINGLE, &[]);
    }
    let mut command =
        analyze(["runs", "--base", "base", "-o", "out", "--figures", "none", "--null-draws", "2", "--matrices", "A"]);
    command.args(["--threads", "2"]).current_dir(root);
    let started = Instant::now();
    let run = Run::of(limited(&command, "ulimit -n 256").output().unwrap()).exits(0);
    println!("10000 adapters in {:?}", started.elapsed());
    assert!(run.stderr.ends_with("results in out\nreport: out/report.html\n"), "{}", run.stderr);
    let summary: Vec<SummaryRow> = read_rows(&root.join("out/summary.csv")).unwrap();
    assert_eq!(summary.len(), 10_000);
    for (number, row) in summary.iter().enumerate() {
        assert_eq!(row.adapter, format!("{:02}/{number:05}", number / 100));
        assert!(row.status == Status::Ok && row.phi_mean == summary[number % 4].phi_mean, "{row:?}");
    }
    assert_ne!(summary[0].phi_mean, summary[1].phi_mean);
    assert_eq!(read_rows::<SimilarityRow>(&root.join("out/similarity.csv")).unwrap().len(), 40_000);
}

#[test]
fn two_hundred_layers_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(200, 16, 4);
    write_base(&root.join("base"), &layers, SINGLE);
    write_adapter(&root.join("adapter"), &layers, SINGLE, &[]);
    let mut command = analyze(["adapter", "--base", "base", "-o", "out", "--null-draws", "2"]);
    let started = Instant::now();
    Run::of(command.current_dir(root).output().unwrap()).exits(0);
    println!("200 layers in {:?}", started.elapsed());
    let rows: Vec<SimilarityRow> = read_rows(&root.join("out/similarity.csv")).unwrap();
    assert_eq!(rows.len(), 3 * 200 * 200);
    assert_eq!(read_rows::<ConversionRow>(&root.join("out/conversion.csv")).unwrap().len(), 200);
    let phi = |a: usize, b: usize| rows[a * 200 + b].phi.unwrap();
    for (a, b) in [(0, 199), (17, 130), (198, 3)] {
        assert!((phi(a, b) - phi(b, a)).abs() < 1e-14 && phi(a, b) < 1.0);
        assert_eq!(
            (rows[a * 200 + b].layer_a.index().unwrap(), rows[a * 200 + b].layer_b.index().unwrap()),
            (a as u32, b as u32)
        );
    }
    assert!(root.join("out/figures/adapter/overview.svg").exists());
}

/// Runs to the end; the most memory it had at a time, in bytes: when all is written, so much of it has been needed. None of
/// a run that wrote nothing.
#[cfg(all(debug_assertions, target_os = "linux"))]
fn peak(mut command: Command) -> (Run, u64) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match Held::unless_ended("exchanged", &mut command) {
        Ok(held) => {
            let most = held.peak();
            (Run::of(held.go_on()), most)
        }
        Err(output) => (Run::of(output), 0),
    }
}

/// Enough that a limit matters: 8 adapters of two modules on 4 layers of 512 x 512.
fn many(root: &Path) {
    let paths: Vec<String> =
        (0..4).flat_map(|l| ["q_proj", "v_proj"].map(|module| format!("model.layers.{l}.self_attn.{module}"))).collect();
    let layers: Vec<Layer> = paths.iter().map(|path| Layer::new(path, 512, 512, 16)).collect();
    write_base(&root.join("base"), &layers, SINGLE);
    for number in 0..8 {
        let changed: Vec<Layer> = layers
            .iter()
            .map(|layer| Layer {
                path: layer.path.clone(),
                w0: layer.w0.clone(),
                ..Layer::new(&format!("{} {number}", layer.path), 512, 512, 16)
            })
            .collect();
        write_adapter(&root.join(format!("runs/{number}")), &changed, SINGLE, &[]);
    }
}

#[test]
#[cfg(all(debug_assertions, target_os = "linux"))]
fn a_memory_limit_is_kept_or_refused_with_the_estimate() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    many(root);
    let run = |limit: &str| {
        let _ = fs::remove_dir_all(root.join("out"));
        let mut command = analyze(["runs", "--base", "base", "-o", "out", "--threads", "2", "--memory-limit", limit]);
        command.current_dir(root);
        peak(command)
    };
    let (free, most) = run("4G");
    free.exits(0);
    let all = tables(&root.join("out"));
    println!("without a bound that matters: {:.1} MiB", most as f64 / 1048576.0);
    let mut kept = 0;
    for limit in [200, 120, 90, 75, 65, 55, 45, 30, 10, 1] {
        let (run, most) = run(&format!("{limit}M"));
        println!("limit {limit} MiB: exit {:?}, peak {:.1} MiB", run.code, most as f64 / 1048576.0);
        match run.code {
            Some(0) => {
                assert!(most as f64 <= 1.1 * f64::from(limit) * 1048576.0, "limit {limit} MiB, peak {most}");
                assert_eq!(tables(&root.join("out")), all);
                kept += 1;
            }
            _ => {
                let run =
                    run.exits(8).says("error: the study needs more memory than it may use; expected at most").says("MiB, found ");
                assert!(run.stdout.is_empty() && !root.join("out").exists());
            }
        }
    }
    assert!((3..10).contains(&kept), "{kept} limits were kept");
}

/// Twenty modules of two small layers: an overview of half a gigabyte of pixels.
#[test]
#[cfg(all(debug_assertions, target_os = "linux"))]
fn a_memory_limit_is_kept_while_a_large_bitmap_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let path = |k: usize| format!("model.layers.{}.mlp.expert_{}", k % 2, k / 2);
    let layers: Vec<Layer> = (0..40).map(|k| Layer::new(&path(k), 16, 16, 4)).collect();
    write_base(&root.join("base"), &layers, SINGLE);
    write_adapter(&root.join("adapter"), &layers, SINGLE, &[]);
    let run = |limit: u64| {
        let _ = fs::remove_dir_all(root.join("out"));
        let mut command = analyze(["adapter", "--base", "base", "-o", "out", "--null-draws", "2", "--figures", "png"]);
        command.args(["--dpi", "600", "--threads", "2", "--memory-limit", &format!("{limit}M")]).current_dir(root);
        peak(command)
    };
    let mut codes = Vec::new();
    for limit in [400, 100, 60, 40, 20] {
        let (run, most) = run(limit);
        println!("limit {limit} MiB: exit {:?}, peak {:.1} MiB", run.code, most as f64 / 1048576.0);
        codes.push(run.code);
        match run.code {
            Some(0) => {
                assert!(most as f64 <= 1.1 * limit as f64 * 1048576.0, "limit {limit} MiB, peak {most}");
                let overview = fs::read(root.join("out/figures/adapter/overview.png")).unwrap();
                let side = |at: usize| u64::from(u32::from_be_bytes(overview[at..at + 4].try_into().unwrap()));
                assert!(side(16) * side(20) * 3 > 500_000_000, "{} x {}", side(16), side(20));
            }
            _ => assert!(run.exits(8).says("error: the study needs more memory than it may use").stdout.is_empty()),
        }
    }
    assert_eq!((codes[0], codes[1], codes[4]), (Some(0), Some(0), Some(8)));
}

#[test]
#[cfg(target_os = "linux")]
fn with_too_little_address_space_it_refuses_before_it_computes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let layers = square_layers(2, 64, 4);
    write_base(&root.join("base"), &layers, SINGLE);
    write_adapter(&root.join("adapter"), &layers, SINGLE, &[]);
    let mut codes = Vec::new();
    for megabytes in [120, 200, 300, 400, 500, 600, 700, 800, 1000, 4000] {
        for threads in ["1", "2"] {
            let _ = fs::remove_dir_all(root.join("out"));
            let mut command = analyze(["adapter", "--base", "base", "-o", "out", "--threads", threads, "--figures", "none"]);
            command.current_dir(root);
            // A machine of many cores would need much for OpenBLAS's own threads.
            let mut limited = limited(&command, &format!("ulimit -v {}", megabytes * 1024));
            let mut child =
                limited.env("OPENBLAS_NUM_THREADS", "2").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let started = Instant::now();
            while child.try_wait().unwrap().is_none() {
                // It takes half a second, or no end.
                if started.elapsed() > Duration::from_secs(600) {
                    child.kill().unwrap();
                    panic!("{megabytes} MB, {threads} threads: it hangs");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let run = Run::of(child.wait_with_output().unwrap());
            println!("{megabytes} MB of address space, {threads} threads: {:?} {}", run.code, run.stderr.lines().next().unwrap());
            codes.push(run.code);
            let out = root.join("out").exists();
            match run.code {
                Some(0) => assert!(out),
                _ => assert!(!out && run.exits(8).says("hint: ").stdout.is_empty()),
            }
        }
    }
    assert_eq!((codes.first(), codes.last()), (Some(&Some(8)), Some(&Some(0))));
    // What needs no BLAS is done.
    let help = limited(program().arg("--help"), "ulimit -v 150000").output().unwrap();
    assert!(help.status.success() && help.stdout.len() > 500);
}
