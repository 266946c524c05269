//! Tests that every kind of figure is legible: all text is inside the picture, no text covers another, none is too small, and
//! each has enough contrast with its background.

#[path = "../../tests/shared/rows.rs"]
pub(super) mod rows;

use super::context::FigureContext;
use super::groups::{LayerSimilarity, layer_similarities};
use super::options::{CellOrder, ColourMap, ColourScale, FigureOptions};
use super::render::svg;
use super::scene::colour::{Rgb, WHITE, contrast};
use super::scene::font::{self, HALF_CAP};
use super::scene::{Anchor, Cells, Element, SCALE, Scene, Text};
use super::{across, comparison, heatmap, overview};
use crate::table::Tables;
use crate::table::rows::{AcrossRow, CompareRow, SimilarityRow, SummaryRow};
use crate::terms::{MatrixKind, Side, Status, UpdateMatrix};

/// The smallest allowed font size in CSS pixels: 5.6 points.
const SMALLEST: f64 = 7.5;

/// Left, top, right and bottom of a text's digits and capitals, in device pixels.
fn bounds(text: &Text) -> [f64; 4] {
    let (x, y, size) = (f64::from(text.x), f64::from(text.y), f64::from(text.size));
    let width = font::width(&text.text, size);
    let start = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width / 2.0,
        Anchor::End => -width,
    };
    let height = 2.0 * HALF_CAP * size;
    if text.upwards { [x - height, y - start - width, x, y - start] } else { [x + start, y - height, x + start + width, y] }
}

/// The colour of an element at a point that it covers. Lines are too thin to count as a background of text.
fn colour_at(item: &Element, (px, py): (f64, f64)) -> Option<Rgb> {
    match item {
        Element::Rect { x, y, width, height, fill } => {
            let inside = |at: f64, from: i32, size: i32| (f64::from(from)..f64::from(from + size)).contains(&at);
            (inside(px, *x, *width) && inside(py, *y, *height)).then_some(*fill)
        }
        Element::Cells(Cells { x, y, cell, n, fills }) => {
            let place = |at: f64, from: i32| ((at - f64::from(from)) / f64::from(*cell)).floor();
            let (column, row) = (place(px, *x), place(py, *y));
            let inside = [column, row].iter().all(|k| (0.0..*n as f64).contains(k));
            inside.then(|| fills[row as usize * n + column as usize])
        }
        Element::Area { points, fill } => {
            let crossings = points.iter().zip(points.iter().cycle().skip(1)).filter(|(a, b)| {
                let ((ax, ay), (bx, by)) = ((f64::from(a.0), f64::from(a.1)), (f64::from(b.0), f64::from(b.1)));
                (ay > py) != (by > py) && px < (bx - ax) * (py - ay) / (by - ay) + ax
            });
            (crossings.count() % 2 == 1).then_some(*fill)
        }
        Element::Line { .. } | Element::Path { .. } | Element::Dot { .. } | Element::Text(_) => None,
    }
}

/// Fails if a rule is broken.
pub(super) fn check(scene: &Scene, what: &str) {
    let texts: Vec<(usize, &Text)> = scene
        .elements
        .iter()
        .enumerate()
        .filter_map(|(k, item)| if let Element::Text(text) = item { Some((k, text)) } else { None })
        .collect();
    assert!(!texts.is_empty(), "{what}");
    let (width, height) = (f64::from(scene.width), f64::from(scene.height));
    let mut boxes: Vec<([f64; 4], &str)> = Vec::new();
    for (k, text) in texts {
        let area = bounds(text);
        let [left, top, right, bottom] = area;
        assert!(left >= 0.0 && top >= 0.0 && right <= width && bottom <= height, "{what}: `{}` at {area:?}", text.text);
        assert!(f64::from(text.size) / SCALE >= SMALLEST, "{what}: `{}` has {} px", text.text, f64::from(text.size) / SCALE);
        for (across, down) in [(0.02, 0.02), (0.5, 0.02), (0.98, 0.02), (0.02, 0.98), (0.5, 0.5), (0.5, 0.98), (0.98, 0.98)] {
            let at = (left + across * (right - left), top + down * (bottom - top));
            let ground = scene.elements[..k].iter().rev().find_map(|item| colour_at(item, at)).unwrap_or(WHITE);
            let contrast = contrast(text.colour, ground);
            assert!(contrast >= 4.5, "{what}: `{}` has {contrast:.2} on {ground:?}", text.text);
        }
        boxes.push((area, &text.text));
    }
    // Sorted by their left edges, so that only neighbours have to be compared.
    boxes.sort_by(|a, b| a.0[0].total_cmp(&b.0[0]));
    for (k, (a, text)) in boxes.iter().enumerate() {
        for (b, other) in boxes[k + 1..].iter().take_while(|(b, _)| b[0] < a[2]) {
            assert!(a[3] <= b[1] || b[3] <= a[1], "{what}: `{text}` {a:?} and `{other}` {b:?}");
        }
    }
}

/// A study as large as said; every 11th cell has no value, and φ is anything from 0 to 1.
pub(super) fn study(modules: &[&str], matrices: &[MatrixKind], layers: u32) -> Tables {
    let mut tables = Tables::default();
    for module in modules {
        for &matrix in matrices {
            for (layer_a, layer_b) in (0..layers).flat_map(|a| (0..layers).map(move |b| (a, b))) {
                let mixed = (layer_a * 31 + layer_b * 17 + layer_a * layer_b) % 101;
                let phi = if layer_a == layer_b { 1.0 } else { f64::from(mixed) / 100.0 };
                let row = rows::similarity("an-adapter", module, matrix, (layer_a, layer_b), phi);
                let phi = (mixed % 11 != 1).then_some(phi);
                tables.similarity.push(SimilarityRow { phi, w0_mean: row.phi.map(|phi| 0.9 * phi), w0_sd: Some(0.01), ..row });
            }
            let row = rows::summary("an-adapter", module, matrix, layers as usize);
            tables.summary.push(SummaryRow { phi_mean: Some(0.5), status: Status::LowConfidence, ..row });
        }
    }
    tables
}

/// All combinations of the options that change colours or positions.
pub(super) fn ways() -> Vec<FigureOptions> {
    let mut ways = Vec::new();
    for colours in ColourMap::ALL {
        for scale in [ColourScale::Paper, ColourScale::Data] {
            for order in [CellOrder::Layer, CellOrder::Similarity] {
                ways.push(FigureOptions { colours, scale, order, ..FigureOptions::default() });
            }
        }
    }
    ways
}

const LLAMA: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[test]
fn heatmaps_are_legible_in_every_way_of_drawing_them() {
    let long = "encoder.a/rather/long.name".repeat(5);
    for (layers, module) in [(1, "query"), (2, &long), (6, "query"), (12, &long), (16, "query")] {
        let tables = study(&[module], &[MatrixKind::A], layers);
        for options in ways() {
            for group in layer_similarities(&tables) {
                check(&heatmap::scene(&group, &options), &format!("{layers} layers, {options:?}"));
            }
        }
    }
}

#[test]
fn heatmaps_of_many_layers_are_legible() {
    for layers in [17, 24, 40, 64, 80, 100, 128] {
        let tables = study(&["query"], &[MatrixKind::A], layers);
        for order in [CellOrder::Layer, CellOrder::Similarity] {
            let options = FigureOptions { order, ..FigureOptions::default() };
            for group in layer_similarities(&tables) {
                let scene = heatmap::scene(&group, &options);
                check(&scene, &format!("{layers} layers, {order}"));
                // Layers in rising order have ticks at round numbers; in the tree's order each has its own.
                let names: Vec<u32> = scene
                    .elements
                    .iter()
                    .filter_map(|item| if let Element::Text(text) = item { text.text.parse().ok() } else { None })
                    .collect();
                let labelled = if order == CellOrder::Similarity && layers <= 100 { 2 * layers as usize } else { 2 * 4 };
                assert!(names.len() >= labelled, "{layers} layers, {order}: {names:?}");
            }
        }
    }
}

fn overview_of(groups: &[LayerSimilarity<'_>], options: &FigureOptions) -> Scene {
    let groups: Vec<&LayerSimilarity<'_>> = groups.iter().collect();
    overview::scene("an-adapter", &groups, Some((8, 8)), &FigureContext::default(), options).unwrap()
}

#[test]
fn overviews_are_legible_up_to_80_layers_and_7_modules() {
    let both = [MatrixKind::A, MatrixKind::B];
    for (modules, layers) in [(1, 1), (1, 6), (2, 6), (2, 12), (4, 13), (7, 32), (7, 80), (1, 128)] {
        let tables = study(&LLAMA[..modules], &both, layers);
        for colours in ColourMap::ALL {
            let options = FigureOptions { colours, ..FigureOptions::default() };
            let scene = overview_of(&layer_similarities(&tables), &options);
            check(&scene, &format!("{modules} modules, {layers} layers, {colours}"));
        }
    }
}

#[test]
fn figures_of_adapters_and_comparisons_are_legible() {
    for count in [1, 2, 16, 17, 100, 150] {
        let names: Vec<String> = (0..count).map(|k| format!("runs/sweep/checkpoint-{k:04}")).collect();
        let row = |a: &String, b: &String| AcrossRow {
            module: "query".into(),
            layer: Some(0.into()),
            matrix: MatrixKind::A,
            side: Side::Left,
            i: 8,
            j: 4,
            adapter_a: a.clone(),
            adapter_b: b.clone(),
            phi: (a.len() + b.len() > 0).then_some(0.4),
            gaussian_expected: Some(0.02),
            w0_expected: None,
            init: None,
            status: Status::Ok,
        };
        let rows: Vec<AcrossRow> = names.iter().flat_map(|a| names.iter().map(move |b| (a, b))).map(|(a, b)| row(a, b)).collect();
        for order in [CellOrder::Layer, CellOrder::Similarity] {
            let options = FigureOptions { order, ..FigureOptions::default() };
            for group in across::groups(&rows) {
                check(&group.scene(&options), &format!("{count} adapters, {order}"));
            }
        }
    }
    for count in [1, 6, 80] {
        let row = |layer: u32, matrix: UpdateMatrix| CompareRow {
            left: "left".into(),
            right: "right".into(),
            module: "query".into(),
            layer: Some(layer.into()),
            matrix,
            side: matrix.side(),
            i: 8,
            j: 8,
            phi: Some(0.03 + f64::from(layer % 5) / 100.0),
            cosine: None,
            gaussian_expected: Some(0.0208),
            w0_mean: Some(0.03),
            w0_sd: Some(0.004),
            w0_p: None,
            status: Status::Ok,
        };
        let rows: Vec<CompareRow> = (0..count).flat_map(|layer| UpdateMatrix::ALL.map(|matrix| row(layer, matrix))).collect();
        let lines = comparison::LayerLines::of(rows.iter().collect()).unwrap();
        check(&comparison::scene(&lines), &format!("{count} layers of a comparison"));
    }
}

#[test]
fn an_svg_has_the_texts_of_its_scene() {
    let tables = study(&["query", "<&>"], &[MatrixKind::A, MatrixKind::B], 6);
    let options = FigureOptions { order: CellOrder::Similarity, ..FigureOptions::default() };
    let groups = layer_similarities(&tables);
    let overview = overview_of(&groups, &options);
    for scene in groups.iter().map(|group| heatmap::scene(group, &options)).chain([overview]) {
        let svg = String::from_utf8(svg::to_svg(&scene).unwrap()).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let written = document.descendants().filter(|node| node.has_tag_name("text"));
        let written: Vec<&str> = written.map(|node| node.text().unwrap_or_default().trim()).collect();
        let wanted =
            scene.elements.iter().filter_map(|item| if let Element::Text(text) = item { Some(text.text.as_str()) } else { None });
        assert_eq!(written, wanted.collect::<Vec<_>>());
    }
}
