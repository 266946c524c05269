//! The figures drawn from tables: their content, that they are well formed, and that they do not change unnoticed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by them, or says that it is skipped")]

#[path = "shared/rows.rs"]
mod rows;

use std::path::Path;
#[cfg(feature = "pdf")]
use std::process::Command;

use condlora::Tables;
use condlora::figure::{
    CellOrder, ColourMap, ColourScale, Dpi, DrawnFigure, FigureContext, FigureFormat, FigureKind, FigureOptions, draw_comparison,
    draw_study,
};
use condlora::table::rows::{AcrossRow, CompareRow, ConversionRow, SimilarityRow, SummaryRow};
use condlora::terms::{Convention, MatrixKind, Method, Side, Status, UpdateMatrix};

/// What a synthetic study is made of.
struct Study<'a> {
    adapter: &'a str,
    modules: &'a [&'a str],
    matrices: &'a [MatrixKind],
    layers: Vec<u32>,
    controls: bool,
}

impl Default for Study<'_> {
    fn default() -> Self {
        Self {
            adapter: "adapter",
            modules: &["query", "value"],
            matrices: &[MatrixKind::A, MatrixKind::B],
            layers: (0..6).collect(),
            controls: true,
        }
    }
}

impl Study<'_> {
    fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        for module in self.modules {
            for &matrix in self.matrices {
                self.add(&mut tables, module, matrix);
            }
            tables.conversion.push(self.conversion(module));
        }
        tables
    }

    fn add(&self, tables: &mut Tables, module: &str, matrix: MatrixKind) {
        let adapter = self.adapter;
        for &layer_a in &self.layers {
            for &layer_b in &self.layers {
                let off = f64::from(layer_a.abs_diff(layer_b));
                let phi = if off == 0.0 { 1.0 } else { 0.02 + 0.08 / (1.0 + off) };
                tables.similarity.push(rows::similarity(adapter, module, matrix, (layer_a, layer_b), phi));
            }
        }
        tables.summary.push(rows::summary(adapter, module, matrix, self.layers.len()));
        if !self.controls {
            let none = None;
            tables.similarity.iter_mut().for_each(|row| {
                (row.gaussian_mean, row.gaussian_sd, row.w0_mean, row.w0_sd) = (none, none, none, none);
            });
            tables.summary.iter_mut().for_each(|row| {
                (row.gaussian_mean, row.gaussian_sd, row.w0_mean, row.w0_sd) = (none, none, none, none);
                (row.w0_z, row.w0_p) = (none, none);
            });
        }
    }

    fn conversion(&self, module: &str) -> ConversionRow {
        ConversionRow {
            adapter: self.adapter.to_owned(),
            module: module.to_owned(),
            layer: Some(0.into()),
            adapter_key: "key".to_owned(),
            tensor: "tensor".to_owned(),
            out_features: 384,
            in_features: 384,
            rank: 8,
            scaling: 1.0,
            convention: Convention::Paper,
            method: Method::Lu,
            w0_dtype: "F32".to_owned(),
            adapter_dtype: "F32".to_owned(),
            w0_rank: 384,
            w0_condition: None,
            residual_a: None,
            residual_b: None,
            backward_error_a: None,
            backward_error_b: None,
            norm_a: Some(1.0),
            norm_b: Some(1.0),
            norm_delta: Some(1.0),
            status: Status::Ok,
        }
    }
}

fn draw(tables: &Tables, formats: &[FigureFormat], scale: ColourScale) -> Vec<DrawnFigure> {
    let options = FigureOptions { formats: formats.to_vec(), scale, ..FigureOptions::default() };
    draw_study(tables, &FigureContext { base_name: Some("all-MiniLM-L6-v2"), adapter: None }, &options).unwrap()
}

/// The SVGs of a study: an adapter's heatmaps in table order, then its overview.
fn svgs(tables: &Tables) -> Vec<String> {
    let figures = draw(tables, &[FigureFormat::Svg], ColourScale::Paper);
    figures.into_iter().map(|figure| String::from_utf8(figure.bytes).unwrap()).collect()
}

/// All texts of an SVG; fails where it is not well-formed.
fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let text = |node: roxmltree::Node<'_, '_>| node.text().unwrap_or_default().trim().to_owned();
    document.descendants().filter(|node| node.has_tag_name("text")).map(text).collect()
}

fn count(texts: &[String], wanted: &str) -> usize {
    texts.iter().filter(|text| *text == wanted).count()
}

fn holds(texts: &[String], wanted: &str) -> bool {
    count(texts, wanted) > 0
}

struct Pixels {
    width: u32,
    height: u32,
    density: Option<png::PixelDimensions>,
    rgb: Vec<u8>,
}

fn decode(bytes: &[u8]) -> Pixels {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut rgb).unwrap();
    Pixels { width: frame.width, height: frame.height, density: reader.info().pixel_dims, rgb }
}

#[test]
fn every_heatmap_and_one_overview_are_drawn_in_table_order() {
    let figures = draw(&Study::default().tables(), &[FigureFormat::Svg, FigureFormat::Png], ColourScale::Paper);
    let names: Vec<String> = figures.iter().map(|figure| figure.file_name()).collect();
    let expected = [
        "query.A.left.i8-j8",
        "query.B.left.i8-j8",
        "value.A.left.i8-j8",
        "value.B.left.i8-j8",
        "overview",
        "query.expected",
        "value.expected",
    ];
    let expected: Vec<String> = expected.iter().flat_map(|name| [format!("{name}.svg"), format!("{name}.png")]).collect();
    assert_eq!(names, expected);
    assert!(figures.iter().all(|figure| figure.adapter == "adapter"));
    assert!(draw(&Study::default().tables(), &[], ColourScale::Paper).is_empty());
    assert!(draw(&Tables::default(), &[FigureFormat::Svg], ColourScale::Paper).is_empty());
}

#[test]
fn adapters_whose_rows_are_interleaved_stay_apart() {
    let mut tables = Study { adapter: "one", ..Study::default() }.tables();
    let other = Study { adapter: "two", ..Study::default() }.tables();
    tables.summary.extend(other.summary);
    tables.similarity.extend(other.similarity);
    tables.similarity.sort_by_key(|row| (row.layer_a.clone(), row.layer_b.clone()));
    let figures = draw(&tables, &[FigureFormat::Svg], ColourScale::Paper);
    let adapters: Vec<&str> = figures.iter().map(|figure| figure.adapter.as_str()).collect();
    assert_eq!(adapters, [["one"; 7], ["two"; 7]].concat());
}

#[test]
fn the_same_tables_give_the_same_bytes_on_any_thread() {
    let tables = Study::default().tables();
    let both = [FigureFormat::Svg, FigureFormat::Png];
    let first = draw(&tables, &both, ColourScale::Data);
    let others: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| draw(&tables, &both, ColourScale::Data))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(others.iter().all(|other| *other == first));
}

#[test]
fn a_heatmap_says_what_it_shows() {
    let texts = texts(&svgs(&Study::default().tables())[0]);
    assert!(holds(&texts, "adapter: query · Θ_A, left, φ(8,8)"));
    assert!(holds(&texts, "mean 0.0262 · gaussian 0.0208 · W0 control 0.0275 ± 0.0010"));
    assert!(holds(&texts, "W0 control") && holds(&texts, "gaussian"));
    assert_eq!((count(&texts, "1.00"), count(&texts, ".06")), (6, 10));
}

#[test]
fn what_the_tables_lack_is_left_out() {
    let figures = svgs(&Study { controls: false, ..Study::default() }.tables());
    let heatmap = texts(&figures[0]);
    assert!(holds(&heatmap, "mean 0.0262") && !holds(&heatmap, "gaussian"));
    let overview = texts(&figures[4]);
    assert!(holds(&overview, "observed") && !holds(&overview, "W0 control") && !holds(&overview, "(observed − W0)/sd"));

    let mut right_only = Study::default().tables();
    right_only.similarity.iter_mut().for_each(|row| row.side = Side::Right);
    let factors = Study { matrices: &[MatrixKind::BA, MatrixKind::LoraA], ..Study::default() }.tables();
    for tables in [right_only, factors] {
        let figures = draw(&tables, &[FigureFormat::Svg], ColourScale::Paper);
        assert_eq!(figures.len(), 4);
        assert!(figures.iter().all(|figure| figure.kind != FigureKind::Overview));
    }
}

#[test]
fn an_overview_names_its_rows_columns_and_means() {
    let figures = svgs(&Study::default().tables());
    let overview = texts(&figures[4]);
    assert!(holds(&overview, "adapter on all-MiniLM-L6-v2 (r = 8): cross-layer similarity of conversion matrices"));
    for label in ["observed", "W0 control", "Gaussian control", "(observed − W0)/sd", "query · Θ_A", "value · Θ_B"] {
        assert!(holds(&overview, label), "{label}");
    }
    for text in ["mean 0.0262", "mean 0.0275", "mean 0.0208", "z = −1.4 · p = 0.90", "corr. with observed 1.00"] {
        assert_eq!(count(&overview, text), 4, "{text}");
    }
    assert!(holds(&overview, "chance 0.0208"));
}

#[test]
fn an_overview_takes_the_first_pair_and_tells_ranks_apart() {
    let mut tables = Study { modules: &["query"], ..Study::default() }.tables();
    let again = tables.similarity.iter().cloned().map(|row| SimilarityRow { i: 4, j: 4, phi: Some(0.77), ..row });
    let again: Vec<SimilarityRow> = again.collect();
    tables.similarity.extend(again);
    let more = ConversionRow { rank: 16, ..tables.conversion[0].clone() };
    tables.conversion.push(more);
    let figures = svgs(&tables);
    let overview = texts(&figures[4]);
    assert!(!holds(&overview, ".77"));
    assert!(overview.iter().any(|text| text.starts_with("φ(8,8)")));
    assert!(overview.iter().any(|text| text.contains("(r = 8–16)")));
}

#[test]
fn names_are_escaped_and_shortened() {
    let adapter = "层/<&\"'>]]>\u{1b}[31m\u{0}\u{ffff}".to_owned() + &"long/".repeat(100);
    let study = Study { adapter: &adapter, modules: &["<&\"evil\">"], ..Study::default() };
    for svg in svgs(&study.tables()) {
        let texts = texts(&svg);
        assert!(texts.iter().any(|text| text.contains('…')));
        assert!(texts.iter().any(|text| text.contains("<&\"evil\"> · Θ_")));
    }
    let pngs = draw(&study.tables(), &[FigureFormat::Png], ColourScale::Paper);
    assert!(pngs.iter().all(|figure| decode(&figure.bytes).width < 2000));
}

#[test]
fn cells_without_a_value_are_marked_not_invented() {
    let mut tables = Study::default().tables();
    for row in &mut tables.similarity {
        match (row.layer_a.index().unwrap(), row.layer_b.index().unwrap()) {
            (2, _) | (_, 2) => row.phi = None,
            (0, 1) => row.phi = Some(f64::NAN),
            (1, 0) => row.phi = Some(f64::INFINITY),
            _ => {}
        }
    }
    tables.similarity.retain(|row| row.layer_a != 5 || row.layer_b != 4);
    let texts = texts(&svgs(&tables)[0]);
    assert!(texts.iter().any(|text| text == "Hatched: no value (the reason is the status in similarity.csv)."));
    // All but the 11 of layer 2, the 2 that are no numbers and the 1 that has no row.
    assert_eq!(texts.iter().filter(|text| text.starts_with('.') || *text == "1.00").count(), 36 - 11 - 2 - 1);
    assert!(!texts.iter().any(|text| text.contains("NaN") || text.contains("inf")));
    tables.summary.iter_mut().for_each(|row| row.w0_mean = Some(f64::NAN));
    assert_eq!(draw(&tables, &[FigureFormat::Png], ColourScale::Data).len(), 7);
}

#[test]
fn a_doubtful_result_says_so() {
    let mut tables = Study::default().tables();
    for row in &mut tables.summary {
        row.status = Status::Zero;
        row.phi_mean = None;
    }
    tables.similarity.iter_mut().for_each(|row| row.phi = None);
    let figures = svgs(&tables);
    assert!(texts(&figures[0]).iter().any(|text| text.ends_with("status zero")));
    assert!(holds(&texts(&figures[4]), "status zero"));
}

#[test]
fn any_number_of_layers_can_be_drawn() {
    for layers in [1, 2, 3, 12, 16, 17, 24, 80, 128] {
        let tables = Study { layers: (0..layers).collect(), modules: &["query"], ..Study::default() }.tables();
        for figure in draw(&tables, &[FigureFormat::Svg, FigureFormat::Png], ColourScale::Data) {
            if figure.format == FigureFormat::Svg {
                let svg = String::from_utf8(figure.bytes).unwrap();
                assert!(svg.len() < 1_500_000, "{layers} layers: {} bytes", svg.len());
                let numbers = texts(&svg).iter().filter(|text| text.starts_with('.')).count();
                let annotated = match figure.kind {
                    FigureKind::Overview => 12,
                    FigureKind::Expected { .. } => 0,
                    _ => 16,
                };
                assert_eq!(numbers > 0, (2..=annotated).contains(&layers), "{layers} layers");
            } else {
                let pixels = decode(&figure.bytes);
                assert!((500..2500).contains(&pixels.width) && (300..3000).contains(&pixels.height), "{layers} layers");
            }
        }
    }
}

#[test]
fn layers_keep_their_numbers() {
    let texts = texts(&svgs(&Study { layers: vec![3, 7, 31], ..Study::default() }.tables())[0]);
    for layer in ["3", "7", "31"] {
        assert_eq!(count(&texts, layer), 2, "{layer}");
    }
}

#[test]
fn the_bitmap_is_the_vector_picture_at_twice_the_size() {
    let figures = draw(&Study::default().tables(), &[FigureFormat::Svg, FigureFormat::Png], ColourScale::Paper);
    for pair in figures.chunks(2) {
        let svg = String::from_utf8(pair[0].bytes.clone()).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let size = |name: &str| document.root_element().attribute(name).unwrap().parse::<f64>().unwrap();
        let pixels = decode(&pair[1].bytes);
        assert_eq!((size("width") * 2.0, size("height") * 2.0), (f64::from(pixels.width), f64::from(pixels.height)));
        let view = format!("0 0 {} {}", pixels.width, pixels.height);
        assert_eq!(document.root_element().attribute("viewBox"), Some(view.as_str()));
        let density = pixels.density.unwrap();
        assert_eq!((density.xppu, density.yppu), (7559, 7559));
        assert!(matches!(density.unit, png::Unit::Meter));
    }
}

#[test]
fn nothing_reaches_into_the_margin() {
    let long = "a-rather-long-module-name.with.parts".repeat(3);
    let study = Study { adapter: &long, modules: &[&long, "value"], ..Study::default() };
    for figure in draw(&study.tables(), &[FigureFormat::Png], ColourScale::Paper) {
        let Pixels { width, height, rgb, .. } = decode(&figure.bytes);
        let (width, height) = (width as usize, height as usize);
        let white = |x: usize, y: usize| rgb[(y * width + x) * 3..][..3] == [255, 255, 255];
        let margin = 12;
        for x in 0..width {
            assert!((0..margin).all(|d| white(x, d) && white(x, height - 1 - d)), "column {x}");
        }
        for y in 0..height {
            assert!((0..margin).all(|d| white(d, y) && white(width - 1 - d, y)), "row {y}");
        }
    }
}

/// Tables with `across.csv` alone: these adapters at two layers, φ 0.2 + 0.1 · layer between any two.
fn across(names: &[String]) -> Tables {
    let mut rows = Vec::new();
    for layer in [0_u32, 1] {
        for adapter_a in names {
            for adapter_b in names {
                let phi = if adapter_a == adapter_b { 1.0 } else { 0.2 + 0.1 * f64::from(layer) };
                rows.push(AcrossRow {
                    module: "query".to_owned(),
                    layer: Some(layer.into()),
                    matrix: MatrixKind::A,
                    side: Side::Left,
                    i: 8,
                    j: 8,
                    adapter_a: adapter_a.clone(),
                    adapter_b: adapter_b.clone(),
                    phi: Some(phi),
                    gaussian_expected: Some(0.0208),
                    w0_expected: None,
                    init: None,
                    status: Status::Ok,
                });
            }
        }
    }
    Tables { across: Some(rows), ..Tables::default() }
}

#[test]
fn different_adapters_have_a_heatmap_of_their_means() {
    let names = ["runs/sst2-seed0", "runs/sst2-seed1", "trec"].map(str::to_owned);
    let tables = across(&names);
    let figures = draw(&tables, &[FigureFormat::Svg, FigureFormat::Png], ColourScale::Paper);
    assert_eq!(figures.len(), 2);
    assert_eq!((figures[0].adapter.as_str(), figures[0].file_name().as_str()), ("", "query.A.left.i8-j8.svg"));
    assert!(matches!(&figures[0].kind, FigureKind::Across { module, .. } if module == "query"));
    let texts = texts(&svgs(&tables)[0]);
    assert!(holds(&texts, "3 adapters: query · Θ_A, left, φ(8,8)"), "{texts:?}");
    assert!(holds(&texts, "cells are means over 2 layers · mean of pairs 0.2500 · chance 0.0208"), "{texts:?}");
    assert!(names.iter().all(|name| count(&texts, name) == 2), "{texts:?}");
    assert_eq!((count(&texts, ".25"), count(&texts, "chance")), (6, 1));
}

#[test]
fn names_of_many_adapters_never_touch() {
    for (adapters, labelled) in [(3, 3), (17, 17), (60, 60), (100, 100), (150, 75), (500, 50)] {
        let names: Vec<String> = (0..adapters).map(|k| format!("runs/sweep/checkpoint-{k:04}")).collect();
        let svg = svgs(&across(&names)).remove(0);
        let document = roxmltree::Document::parse(&svg).unwrap();
        let (mut down, mut along) = (Vec::new(), Vec::new());
        for node in document
            .descendants()
            .filter(|node| node.has_tag_name("text") && node.text().is_some_and(|t| t.contains("checkpoint-")))
        {
            let number = |name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
            let upwards = node.attribute("transform").is_some();
            let (at, size) = (number(if upwards { "x" } else { "y" }), number("font-size"));
            if upwards { along.push((at, size)) } else { down.push((at, size)) }
        }
        for side in [down, along] {
            assert_eq!(side.len(), labelled, "{adapters} adapters");
            assert!(side.windows(2).all(|pair| pair[1].0 - pair[0].0 >= pair[0].1), "{adapters} adapters: {side:?}");
        }
    }
}

/// A small study with a cell that has no value.
fn small() -> Tables {
    let mut tables = Study { layers: vec![0, 1, 3], modules: &["query"], ..Study::default() }.tables();
    for row in &mut tables.similarity {
        match (row.layer_a.index().unwrap(), row.layer_b.index().unwrap()) {
            (0, 3) | (3, 0) => row.phi = None,
            (1, 3) | (3, 1) => row.phi = Some(0.08),
            _ => {}
        }
    }
    tables
}

fn drawn(tables: &Tables, options: &FigureOptions) -> Vec<DrawnFigure> {
    draw_study(tables, &FigureContext { base_name: Some("all-MiniLM-L6-v2"), adapter: None }, options).unwrap()
}

/// The stored file of this name, made anew where that is asked for.
fn stored(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/figures").join(name);
    if std::env::var("SNAPSHOTS").is_ok_and(|how| how == "overwrite") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap_or_default()
}

#[test]
fn no_kind_of_figure_has_changed() {
    let svg = FigureOptions { formats: vec![FigureFormat::Svg], ..FigureOptions::default() };
    let [heatmap, _, overview] = &drawn(&small(), &svg)[..] else { panic!("two heatmaps and an overview") };
    let ordered =
        FigureOptions { scale: ColourScale::Data, colours: ColourMap::Greys, order: CellOrder::Similarity, ..svg.clone() };
    let ordered = drawn(&small(), &ordered).swap_remove(0);
    let across = drawn(&across(&["a", "b", "c"].map(str::to_owned)), &svg).swap_remove(0);
    let rows: Vec<CompareRow> =
        [0, 1, 3].into_iter().flat_map(|layer| UpdateMatrix::ALL.map(|matrix| compared(layer, matrix))).collect();
    let comparison = draw_comparison(&rows, &svg).unwrap().swap_remove(0);
    let all =
        [("heatmap", heatmap), ("overview", overview), ("ordered", &ordered), ("across", &across), ("comparison", &comparison)];
    for (name, figure) in all {
        // Where a change of the figures is meant: SNAPSHOTS=overwrite, and look at the pictures.
        assert!(stored(&format!("{name}.svg"), &figure.bytes) == figure.bytes, "{name}.svg differs from the stored one");
    }
}

fn compared(layer: u32, matrix: UpdateMatrix) -> CompareRow {
    CompareRow {
        left: "left".into(),
        right: "right".into(),
        module: "query".into(),
        layer: Some(layer.into()),
        matrix,
        side: matrix.side(),
        i: 8,
        j: 8,
        phi: Some(0.03 + f64::from(layer) / 100.0),
        cosine: None,
        gaussian_expected: Some(8.0 / 384.0),
        w0_mean: Some(0.03),
        w0_sd: Some(0.004),
        w0_p: None,
        status: Status::Ok,
    }
}

#[test]
fn the_bitmap_has_not_changed() {
    let options = FigureOptions { formats: vec![FigureFormat::Png], dpi: Dpi::new(72).unwrap(), ..FigureOptions::default() };
    let png = drawn(&small(), &options).swap_remove(0).bytes;
    let (now, then) = (decode(&png), decode(&stored("heatmap.png", &png)));
    assert_eq!((now.width, now.height), (then.width, then.height));
    // Glyphs are rasterised in floating point: another processor may round an edge the other way.
    let apart = now.rgb.iter().zip(&then.rgb).filter(|(a, b)| a.abs_diff(**b) > 8).count();
    assert!(apart * 2000 < now.rgb.len(), "{apart} of {}", now.rgb.len());
}

#[test]
fn a_bitmap_of_any_resolution_has_the_size_in_print_of_the_vector_picture() {
    let tables = small();
    for dpi in [72, 97, 192, 300, 600] {
        let options = FigureOptions {
            formats: vec![FigureFormat::Svg, FigureFormat::Png],
            dpi: Dpi::new(dpi).unwrap(),
            ..FigureOptions::default()
        };
        for pair in drawn(&tables, &options).chunks(2) {
            let svg = String::from_utf8(pair[0].bytes.clone()).unwrap();
            let document = roxmltree::Document::parse(&svg).unwrap();
            let inches = |name: &str| document.root_element().attribute(name).unwrap().parse::<f64>().unwrap() / 96.0;
            let pixels = decode(&pair[1].bytes);
            let density = pixels.density.unwrap();
            assert_eq!(density.xppu, (f64::from(dpi) / 0.0254).round() as u32);
            for (pixels, inches) in [(pixels.width, inches("width")), (pixels.height, inches("height"))] {
                assert!((f64::from(pixels) - inches * f64::from(dpi)).abs() <= 0.5, "{dpi}: {pixels} for {inches} in");
            }
        }
    }
}

#[test]
fn rows_and_columns_are_ordered_together_by_similarity() {
    let options = FigureOptions { formats: vec![FigureFormat::Svg], order: CellOrder::Similarity, ..FigureOptions::default() };
    // Layers 0 and 3 are similar, and so are 1 and 2.
    let mut tables = Study { layers: vec![0, 1, 2, 3], modules: &["query"], ..Study::default() }.tables();
    for row in tables.similarity.iter_mut().filter(|row| row.layer_a != row.layer_b) {
        row.phi = Some(if row.layer_a.index().unwrap() + row.layer_b.index().unwrap() == 3 { 0.91 } else { 0.13 });
    }
    let figures = drawn(&tables, &options);
    let svg = String::from_utf8(figures[0].bytes.clone()).unwrap();
    let texts = texts(&svg);
    let layers: Vec<&String> = texts.iter().filter(|text| text.len() == 1 && text.parse::<u32>().is_ok()).collect();
    assert_eq!(layers, ["0", "0", "3", "3", "1", "1", "2", "2"]);
    let cells: Vec<&str> = texts.iter().map(String::as_str).filter(|text| [".91", ".13", "1.00"].contains(text)).collect();
    let expected = [
        ["1.00", ".91", ".13", ".13"],
        [".91", "1.00", ".13", ".13"],
        [".13", ".13", "1.00", ".91"],
        [".13", ".13", ".91", "1.00"],
    ];
    assert_eq!(cells, expected.concat());
    assert!(holds(&texts, "0.13") && texts.iter().any(|text| text.starts_with("Tree: average linkage")));
}

/// The PDF of `small`'s figures, together with their SVG and PNG at 96 pixels to an inch.
#[cfg(feature = "pdf")]
fn in_all_formats() -> Vec<[DrawnFigure; 3]> {
    let options = FigureOptions {
        formats: vec![FigureFormat::Svg, FigureFormat::Png, FigureFormat::Pdf],
        dpi: Dpi::new(96).unwrap(),
        order: CellOrder::Similarity,
        ..FigureOptions::default()
    };
    let many = Study { layers: (0..30).collect(), modules: &["value"], ..Study::default() }.tables();
    let mut figures: Vec<DrawnFigure> = drawn(&small(), &options);
    figures.extend(drawn(&many, &options));
    let mut threes = Vec::new();
    while !figures.is_empty() {
        threes.push(<[DrawnFigure; 3]>::try_from(figures.drain(..3).collect::<Vec<_>>()).unwrap());
    }
    threes
}

/// Whether poppler's programs are there; says so where they are not.
#[cfg(feature = "pdf")]
fn poppler() -> bool {
    let there = Command::new("pdftoppm").arg("-v").output().is_ok();
    if !there {
        println!("skipped: pdftoppm (poppler-utils) is not installed");
    }
    there
}

#[cfg(feature = "pdf")]
#[test]
fn a_pdf_has_the_texts_of_the_svg_and_its_font() {
    if !poppler() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("figure.pdf");
    for [svg, _, pdf] in in_all_formats() {
        std::fs::write(&path, &pdf.bytes).unwrap();
        let said = Command::new("pdftotext").arg("-raw").arg(&path).arg("-").output().unwrap();
        // Where spaces are is for pdftotext to guess.
        let letters = |text: &str| {
            let mut letters: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
            letters.sort_unstable();
            letters.into_iter().collect::<String>()
        };
        let svg = texts(&String::from_utf8(svg.bytes).unwrap()).concat();
        assert_eq!(letters(&String::from_utf8(said.stdout).unwrap()), letters(&svg));
        let fonts = Command::new("pdffonts").arg(&path).output().unwrap();
        let fonts = String::from_utf8(fonts.stdout).unwrap();
        let lines: Vec<&str> = fonts.lines().skip(2).collect();
        assert!(lines.len() == 1 && lines[0].contains("+CondloraSans") && lines[0].contains("yes yes yes"), "{fonts}");
    }
}

#[cfg(feature = "pdf")]
#[test]
fn a_pdf_looks_like_the_bitmap() {
    if !poppler() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("figure.pdf");
    for [_, png, pdf] in in_all_formats() {
        std::fs::write(&path, &pdf.bytes).unwrap();
        let status =
            Command::new("pdftoppm").args(["-r", "96", "-png", "-singlefile"]).args([&path, &dir.path().join("page")]).status();
        assert!(status.unwrap().success());
        let (page, bitmap) = (decode(&std::fs::read(dir.path().join("page.png")).unwrap()), decode(&png.bytes));
        assert!(page.width.abs_diff(bitmap.width) <= 1 && page.height.abs_diff(bitmap.height) <= 1);
        // Means of squares of 8 pixels: letters are smoothed otherwise, cells and what is written where are the same.
        const SQUARE: usize = 8;
        let mean = |picture: &Pixels, x: usize, y: usize, channel: usize| {
            let pixels = (0..SQUARE * SQUARE).map(|k| (x + k % SQUARE, y + k / SQUARE));
            pixels.map(|(x, y)| f64::from(picture.rgb[(y * picture.width as usize + x) * 3 + channel])).sum::<f64>()
                / (SQUARE * SQUARE) as f64
        };
        let (width, height) = (page.width.min(bitmap.width) as usize, page.height.min(bitmap.height) as usize);
        let mut total = (0.0, 0);
        for y in (0..=height - SQUARE).step_by(SQUARE) {
            for x in (0..=width - SQUARE).step_by(SQUARE) {
                for channel in 0..3 {
                    let apart = (mean(&page, x, y, channel) - mean(&bitmap, x, y, channel)).abs();
                    assert!(apart < 40.0, "{:?} at {x}, {y}: {apart}", png.kind);
                    total = (total.0 + apart, total.1 + 1);
                }
            }
        }
        assert!(total.0 / f64::from(total.1) < 2.0, "{:?}: {}", png.kind, total.0 / f64::from(total.1));
    }
}
