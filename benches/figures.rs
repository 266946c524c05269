//! All figures of a large adapter: 80 layers and 7 modules, a heatmap for each of A, B and BA, and the overview, as SVG and PNG.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/shared/rows.rs"]
mod rows;

use criterion::{Criterion, criterion_group, criterion_main};

use condlora::Tables;
use condlora::figure::{FigureContext, FigureFormat, FigureOptions, draw_study};
use condlora::table::rows::{SimilarityRow, SummaryRow};
use condlora::terms::{MatrixKind, Side, Status};

const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const LAYERS: u32 = 80;

/// φ that falls with the distance of the layers, and is a little uneven as real ones are.
fn tables() -> Tables {
    let mut tables = Tables::default();
    for (place, module) in MODULES.iter().enumerate() {
        for matrix in [MatrixKind::A, MatrixKind::B, MatrixKind::BA] {
            let mut sum = 0.0;
            for (layer_a, layer_b) in (0..LAYERS).flat_map(|a| (0..LAYERS).map(move |b| (a, b))) {
                let uneven = f64::from((layer_a * layer_b + layer_a + layer_b) % 13) / 600.0;
                let near = 0.12 / (1.0 + f64::from(layer_a.abs_diff(layer_b)) / (1.0 + place as f64));
                let phi = if layer_a == layer_b { 1.0 } else { 0.02 + near + uneven };
                sum += if layer_a == layer_b { 0.0 } else { phi };
                let row = rows::similarity("llama-shaped", module, matrix, (layer_a, layer_b), phi);
                tables.similarity.push(SimilarityRow { w0_mean: Some(0.02 + near), w0_sd: Some(0.005), ..row });
            }
            let mean = sum / f64::from(LAYERS * (LAYERS - 1));
            let row = rows::summary("llama-shaped", module, matrix, LAYERS as usize);
            tables.summary.push(SummaryRow { phi_mean: Some(mean), w0_mean: Some(mean - 0.01), w0_z: Some(5.0), ..row });
        }
    }
    tables
}

fn figures(criterion: &mut Criterion) {
    let tables = tables();
    let mut group = criterion.benchmark_group("figures of 80 layers x 7 modules");
    group.sample_size(10);
    for formats in [vec![FigureFormat::Svg], vec![FigureFormat::Png], vec![FigureFormat::Svg, FigureFormat::Png]] {
        let name = formats.iter().map(|format| format.name()).collect::<Vec<_>>().join("+");
        let options = FigureOptions { formats, ..FigureOptions::default() };
        let draw = || draw_study(&tables, &FigureContext::default(), &options).unwrap();
        // To be looked at: FIGURES=DIR cargo bench --bench figures
        if let Some(dir) = std::env::var_os("FIGURES") {
            for figure in draw() {
                let path = std::path::Path::new(&dir).join(figure.path());
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, &figure.bytes).unwrap();
            }
        }
        group.bench_function(name, |bencher| bencher.iter(draw));
    }
    group.finish();
}

criterion_group!(benches, figures);
criterion_main!(benches);
