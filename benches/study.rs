//! Criterion benchmarks of each stage, and of the whole study, at the size of RoBERTa-base (768) and rank 8.
#![allow(clippy::expect_used, clippy::result_large_err, missing_docs)]

use std::fs;
use std::hint::black_box;
use std::path::Path;

use condlora::conversion::{Equation, Target, Workspace, solve_theta};
use condlora::linalg::subspace::{SubspaceBasis, ThinQr};
use condlora::similarity::AllPairs;
use condlora::{AnalyzeParams, NullDraws, StrictControl, prepare};
use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};

const WIDTH: usize = 768;
const RANK: usize = 8;
const LAYERS: usize = 12;

fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    Array2::from_shape_fn((rows, columns), |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    })
}

fn solve(c: &mut Criterion) {
    let w0 = random(WIDTH, WIDTH, 1);
    let values: Vec<_> = (2..44).map(|seed| random(WIDTH, RANK, seed)).collect();
    let with_draws: Vec<_> = values.iter().map(|values| Target::new(values, Equation::W0)).collect();
    let targets = [with_draws[0], with_draws[1]];
    let mut workspace = Workspace::default();
    c.bench_function("solve/A and B, n = 768", |b| b.iter(|| solve_theta(&w0, black_box(&targets), None, &mut workspace)));
    c.bench_function("solve/A, B and 20 draws, n = 768", |b| {
        b.iter(|| solve_theta(&w0, black_box(&with_draws), None, &mut workspace))
    });
}

fn subspace(c: &mut Criterion) {
    let (theta, a) = (random(WIDTH, RANK, 1), random(WIDTH, RANK, 2));
    c.bench_function("subspace/Θ, 768 x 8", |b| b.iter(|| SubspaceBasis::of(black_box(theta.view()))));
    c.bench_function("subspace/Θ_BA through its factors", |b| {
        b.iter(|| ThinQr::of(black_box(theta.view())).and_then(|qr| qr.basis_of_product(&ThinQr::of(a.view())?)))
    });
}

fn similarity(c: &mut Criterion) {
    let bases: Vec<SubspaceBasis> =
        (0..24).map(|seed| SubspaceBasis::of(random(WIDTH, RANK, seed).view()).expect("finite")).collect();
    c.bench_function("similarity/24 layers, all pairs", |b| {
        b.iter(|| {
            let pairs = AllPairs::of(&bases.iter().map(|basis| Some(basis.left())).collect::<Vec<_>>());
            (0..24 * 24).map(|cell| pairs.phi(cell / 24, cell % 24, RANK, RANK)).collect::<Vec<_>>()
        })
    });
}

/// A RoBERTa-shaped base and adapter in `dir`.
fn write_checkpoint(dir: &Path) {
    let save = |path: &Path, tensors: Vec<(String, Array2<f64>)>| {
        let stored: Vec<(String, [usize; 2], Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, values)| {
                (name, [values.nrows(), values.ncols()], values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect())
            })
            .collect();
        let views = stored
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a fitting shape")));
        serialize_to_file(views, None, path).expect("room for the checkpoint");
    };
    let (mut base, mut adapter) = (Vec::new(), Vec::new());
    for layer in 0..LAYERS {
        for (m, module) in ["query", "value"].into_iter().enumerate() {
            let path = format!("roberta.encoder.layer.{layer}.attention.self.{module}");
            let seed = (layer * 2 + m) as u64 * 3;
            base.push((format!("{path}.weight"), random(WIDTH, WIDTH, seed)));
            adapter.push((format!("base_model.model.{path}.lora_A.weight"), random(RANK, WIDTH, seed + 1)));
            adapter.push((format!("base_model.model.{path}.lora_B.weight"), random(WIDTH, RANK, seed + 2)));
        }
    }
    for name in ["base", "adapter"] {
        fs::create_dir_all(dir.join(name)).expect("a writable directory");
    }
    save(&dir.join("base/model.safetensors"), base);
    save(&dir.join("adapter/adapter_model.safetensors"), adapter);
    let config = format!(r#"{{"peft_type": "LORA", "r": {RANK}, "lora_alpha": {RANK}, "base_model_name_or_path": "base"}}"#);
    fs::write(dir.join("adapter/adapter_config.json"), config).expect("a writable directory");
}

fn whole_study(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write_checkpoint(dir.path());
    let mut group = c.benchmark_group("study, 24 base weights of 768");
    group.sample_size(10);
    for (null_draws, strict_control) in [(0, StrictControl::Never), (20, StrictControl::Never), (20, StrictControl::Auto)] {
        let params = AnalyzeParams {
            paths: vec![dir.path().join("adapter")],
            base: Some(dir.path().join("base")),
            null_draws: NullDraws::Fixed(null_draws),
            strict_control,
            ..AnalyzeParams::default()
        };
        let config = params.check().expect("valid options");
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            group.bench_function(format!("{null_draws} draws, strict control {strict_control}, {threads} threads"), |b| {
                b.iter(|| pool.install(|| prepare(config.clone()).and_then(|p| p.run())).expect("a valid checkpoint"))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, solve, subspace, similarity, whole_study);
criterion_main!(benches);
