//! Times the whole study on the real adapters, and its kernel on a RoBERTa-sized weight. Against other programs: `benches/compare/`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by it")]

use std::path::Path;

use condlora::conversion::{Equation, Target, Workspace, solve_theta};
use condlora::study::{AnalyzeParams, Progress, prepare};
use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;

struct Silent;

impl Progress for Silent {
    fn begin(&self, _total: usize) {}
    fn step(&self) {}
}

/// 3 adapters of rank 8 on 6 layers of query and value, 384 x 384: opened, read, solved and compared; nothing is written.
fn study(c: &mut Criterion) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks-data");
    for null_draws in [0, 20] {
        let params = AnalyzeParams {
            paths: vec![data.join("adapters")],
            base: Some(data.join("base/all-MiniLM-L6-v2-qv")),
            null_draws,
            ..Default::default()
        };
        let config = params.check().unwrap();
        c.bench_function(&format!("study/minilm/{null_draws} draws"), |b| b.iter(|| prepare(&config).unwrap().run(&Silent).unwrap()));
    }
}

/// One factorisation and 16 right-hand sides, with its checks.
fn solve(c: &mut Criterion) {
    let n = 768;
    let w0 = Array2::from_shape_fn((n, n), |(a, b)| ((a * 7919 + b * 104_729) % 1009) as f64 / 1009.0 - 0.5 + if a == b { 2.0 } else { 0.0 });
    let target = |k: usize| Array2::from_shape_fn((n, 8), |(a, b)| ((a * 31 + b * 17 + k) % 101) as f64 / 101.0 - 0.5);
    let targets = [0, 5].map(|k| Target { values: target(k), equation: Equation::W0 });
    let mut workspace = Workspace::default();
    c.bench_function("solve_theta/768, 2 x 8 columns", |b| b.iter(|| solve_theta(&w0, &targets, None, &mut workspace).unwrap()));
}

criterion_group!(benches, study, solve);
criterion_main!(benches);
