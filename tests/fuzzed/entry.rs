//! The entry points: each takes bytes and returns what the library says about them. Only public functions of the library are called; files are
//! in memory where the system has a file system for that.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use condlora::checkpoint::keys::{ModuleKey, TensorKey, name_modules, parse_tensor_name};
use condlora::checkpoint::{
    Adapter, AdapterConfig, BaseModel, PairingRules, Split, TRAINER_STATE_FILE, WeightsFile, find_training_log, pair_with_base,
    read_training_log,
};
use condlora::figure::{
    CellOrder, ColourScale, FigureContext, FigureFormat, FigureOptions, draw_comparison, draw_fit, draw_held_out, draw_paper,
    draw_study,
};
use condlora::output::manifest::MANIFEST_FILE;
use condlora::results::SavedResults;
use condlora::table::columns::Row;
use condlora::table::csv::{read_rows_from, write_rows};
use condlora::table::{
    AcrossRow, CompareAverageRow, CompareRow, ConversionRow, FitRow, GridRow, HeldOutRow, MeasureRow, SimilarityRow, SpectrumRow,
    SummaryRow, TrainingRow,
};
use condlora::{Error, Result};

use crate::{generate, pickled};

/// One reader.
pub(crate) struct Entry {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The folder of its corpus.
    pub(crate) corpus: &'static str,
    /// Reads the input and returns what it tells the user in addition to an error.
    pub(crate) run: fn(&mut Place, &[u8]) -> Result<Vec<String>>,
}

const fn entry(name: &'static str, corpus: &'static str, run: fn(&mut Place, &[u8]) -> Result<Vec<String>>) -> Entry {
    Entry { name, corpus, run }
}

pub(crate) static SAFETENSORS: Entry = entry("safetensors", "safetensors", safetensors);
pub(crate) static ARCHIVE: Entry = entry("archive", "archive", archive);
pub(crate) static PICKLE: Entry = entry("pickle", "pickle", pickle);
pub(crate) static CONFIG: Entry = entry("config", "config", config);
pub(crate) static INDEX: Entry = entry("index", "index", index);
pub(crate) static TRAINING: Entry = entry("training", "training", training);
pub(crate) static NAMES: Entry = entry("names", "names", names);
pub(crate) static PAIRING: Entry = entry("pairing", "pairing", pairing);
pub(crate) static ROWS: Entry = entry("rows", "rows", rows);
pub(crate) static TABLES: Entry = entry("tables", "tables", tables);
pub(crate) static FIGURES: Entry = entry("figures", "tables", figures);

/// All of them.
#[allow(dead_code, reason = "cargo-fuzz has a program for each")]
pub(crate) static ALL: [&Entry; 11] =
    [&SAFETENSORS, &ARCHIVE, &PICKLE, &CONFIG, &INDEX, &TRAINING, &NAMES, &PAIRING, &ROWS, &TABLES, &FIGURES];

/// A directory whose files are written again and again.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    files: HashMap<String, File>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { dir, files: HashMap::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, and `zeros` bytes after it.
    fn put(&mut self, name: &str, bytes: &[u8], zeros: usize) -> PathBuf {
        let path = self.dir.path().join(name);
        let file = self.files.entry(name.to_owned()).or_insert_with(|| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap()
        });
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        if zeros > 0 {
            file.set_len((bytes.len() + zeros) as u64).unwrap();
        }
        path
    }

    /// Writes a file that stays as it is.
    fn put_once(&mut self, name: &str, bytes: &[u8]) {
        if !self.files.contains_key(name) {
            self.put(name, bytes, 0);
        }
    }

    /// Removes what is no longer wanted.
    fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        let dir = self.dir.path();
        self.files.retain(|name, _| wanted(name) || fs::remove_file(dir.join(name)).is_err());
    }
}

/// Opens a file of tensors and reads the first few; all of them must lie in the file.
fn tensors(path: &Path, len: usize) -> Result<Vec<String>> {
    let opened = WeightsFile::open(path)?;
    for (name, info) in opened.tensors() {
        assert!(
            opened.info(name) == Some(info) && (info.len() as u64).saturating_mul(info.dtype.bitsize() as u64) <= 8 * len as u64
        );
    }
    for (name, info) in opened.tensors().iter().take(4) {
        let raw = opened.read(name)?;
        assert_eq!(raw.bytes().len() as u64 * 8, info.len() as u64 * info.dtype.bitsize() as u64);
        let mut wide = vec![0.0; info.len()];
        let read = opened.read_f64(name, &mut wide);
        assert_eq!(read.is_ok(), raw.to_f64().is_ok());
        read?;
    }
    Ok(Vec::new())
}

fn safetensors(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let path = place.put("x.safetensors", bytes, 0);
    let read = tensors(&path, bytes.len());
    if !matches!(read, Err(Error::Malformed { .. })) {
        let reference = safetensors::SafeTensors::deserialize(bytes);
        assert!(reference.is_ok(), "accepted, but the reference reader says {:?}", reference.err());
    }
    read
}

fn archive(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let path = place.put("x.bin", bytes, 0);
    tensors(&path, bytes.len())
}

/// The program of a pickle, in an archive whose checksums are right.
fn pickle(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let storages = [("0", &[0_u8; 48][..]), ("1", &[0; 16])];
    let file = pickled::archive(bytes, &storages);
    let path = place.put("p.bin", &file, 0);
    tensors(&path, file.len())
}

fn config(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    place.put("adapter_config.json", bytes, 0);
    let config = AdapterConfig::read(place.path())?;
    for path in ["bert.encoder.layer.3.attention.self.query", "", "x.\u{1f600}.y\n"] {
        for (pattern, _) in &config.rank_pattern {
            let _ = pattern.matches(path);
        }
        for (pattern, alpha) in &config.alpha_pattern {
            assert!(alpha.is_finite());
            let _ = pattern.matches(path);
        }
    }
    Ok(config.warnings)
}

/// The shards that are there for an index to name.
pub(crate) const SHARDS: [&str; 3] = ["a.safetensors", "b.safetensors", "c.bin"];

/// The index of a base model of three layers, each in a shard of its own.
fn index(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    for (number, shard) in SHARDS.into_iter().enumerate() {
        let tensors = [generate::f32_tensor(&format!("{}.weight", generate::query(&number.to_string())), &[2, 2])];
        let file = if shard.ends_with(".bin") { pickled::file(&tensors) } else { generate::file(&tensors) };
        place.put_once(&format!("sharded/{shard}"), &file);
    }
    let path = place.put("sharded/model.safetensors.index.json", bytes, 0);
    let base = BaseModel::open(&path)?;
    for name in base.names() {
        let shape = base.info(name).map(|info| info.shape.clone());
        assert_eq!(shape, Some(vec![2, 2]));
        base.read_f64(name, &mut [0.0; 4])?;
    }
    Ok(Vec::new())
}

/// What the Trainer logged, down to the table that is made of it.
fn training(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let path = place.put(&format!("run/checkpoint-3/{TRAINER_STATE_FILE}"), bytes, 0);
    assert_eq!(find_training_log(&place.path().join("run")).as_ref(), Some(&path));
    let log = read_training_log(&path)?;
    let row = |value: condlora::checkpoint::LoggedValue| TrainingRow {
        adapter: "a".to_owned(),
        step: value.step,
        epoch: value.epoch,
        name: value.name,
        value: value.value,
    };
    let rows: Vec<TrainingRow> = log.values.into_iter().take(MANY_ROWS).map(row).collect();
    assert!(rows.iter().all(|row| row.epoch.is_none_or(f64::is_finite) && row.value.is_none_or(f64::is_finite)));
    assert!(read_rows_from::<TrainingRow>(&path, &as_csv(&rows)[..])? == rows, "other rows when they are read again");
    Ok(Vec::new())
}

/// A tensor name a line: names that are read must give modules that can be told apart.
fn names(_: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(bytes);
    let (mut types, mut known, mut refused) = (Vec::new(), HashSet::new(), None);
    for line in text.lines() {
        let TensorKey::Lora { path, .. } = parse_tensor_name(line) else { continue };
        let key = match ModuleKey::from_path(path) {
            Ok(key) => key,
            Err(error) => {
                refused = Some(error.expected);
                continue;
            }
        };
        if known.insert(key.module_type.clone()) {
            types.push(key.module_type);
        }
    }
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    let named = name_modules(&types);
    let different: HashSet<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(different.len(), types.len(), "modules of one name");
    if types.is_empty() {
        let expected = refused.unwrap_or_else(|| "a name of a LoRA tensor".to_owned());
        return Err(Error::mismatch(Path::new("names"), "no module", expected, "none"));
    }
    Ok(refused.into_iter().collect())
}

/// Lines `a NAME|DTYPE|2x6` for the adapter's tensors, `b ...` for the base's, `c ...` for the base's configuration, and any other for the adapter's.
/// Without one the file is an adapter by itself.
fn pairing(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(bytes);
    let (mut adapter, mut base, mut config, mut model) = (Header::default(), Header::default(), String::new(), String::new());
    for line in text.lines() {
        match line.split_at_checked(2) {
            Some(("a ", tensor)) => adapter.add(tensor),
            Some(("b ", tensor)) => base.add(tensor),
            Some(("c ", fields)) => model.push_str(fields),
            _ => config.push_str(line),
        }
    }
    place.put("adapter/adapter_config.json", config.as_bytes(), 0);
    adapter.put(place, "adapter/adapter_model.safetensors");
    base.put(place, "base/model.safetensors");
    place.put("base/config.json", model.as_bytes(), 0);
    let base = BaseModel::open(&place.path().join("base"))?;
    let given = if config.is_empty() { "adapter/adapter_model.safetensors" } else { "adapter" };
    let open = || Adapter::open(&place.path().join(given), "adapter".to_owned());
    let mut adapter = open()?;
    adapter.lay_out(&base, false)?;
    for split in [None, Some(Split::Qkv)] {
        let Ok(pairing) = pair_with_base(&adapter, &base, &PairingRules { maps: Vec::new(), split }) else {
            if split.is_none() {
                pair_with_base(&adapter, &base, &PairingRules::default())?;
            }
            continue;
        };
        for module in pairing.modules {
            for layer in module.layers.iter().take(2) {
                let factors = adapter.read_factors(&layer.adapter_layer)?;
                assert!(!factors.a.is_empty() && !factors.b.is_empty() && base.info(&layer.tensor).is_some());
                let rows =
                    layer.block.as_ref().map_or(0, |block| block.of_b.at(layer.d_out - 1).max(block.of_w0.at(layer.d_out - 1)));
                assert!(rows < layer.adapter_layer.d_out, "a part of a projection beyond it");
            }
        }
    }
    open()?.lay_out_by_name()?;
    Ok(adapter.warnings)
}

/// The header of a file of zeros.
#[derive(Default)]
struct Header {
    entries: String,
    zeros: usize,
}

impl Header {
    /// Larger tensors are not what pairing is about.
    const LARGEST: usize = 1 << 16;

    fn add(&mut self, tensor: &str) {
        let mut parts = tensor.rsplitn(3, '|');
        let (Some(shape), Some(dtype), Some(name)) = (parts.next(), parts.next(), parts.next()) else { return };
        let shape: Option<Vec<usize>> = shape.split('x').map(|size| size.parse().ok()).collect();
        let Some(shape) = shape else { return };
        let size = match dtype {
            "F64" | "I64" => 8,
            "F32" => 4,
            "F16" | "BF16" => 2,
            _ => 1,
        };
        let bytes = shape.iter().try_fold(size, |product: usize, size| product.checked_mul(*size));
        let Some(bytes) = bytes.filter(|bytes| *bytes <= Self::LARGEST) else { return };
        let (name, dtype) = (serde_json::Value::from(name), serde_json::Value::from(dtype));
        let (start, end) = (self.zeros, self.zeros + bytes);
        let separator = if self.entries.is_empty() { "" } else { "," };
        self.entries += &format!("{separator}{name}:{{\"dtype\":{dtype},\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}");
        self.zeros = end;
    }

    fn put(&self, place: &mut Place, name: &str) {
        let header = format!("{{{}}}", self.entries);
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        place.put(name, &bytes, self.zeros);
    }
}

/// Rows that are written and read again, at most: more tell nothing new.
const MANY_ROWS: usize = 1000;

/// The first byte says which table the rest is to be.
fn rows(_: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let (kind, table) = bytes.split_first().unwrap_or((&0, &[]));
    match kind % 12 {
        0 => round_trip::<SummaryRow>(table),
        1 => round_trip::<SimilarityRow>(table),
        2 => round_trip::<ConversionRow>(table),
        3 => round_trip::<SpectrumRow>(table),
        4 => round_trip::<AcrossRow>(table),
        5 => round_trip::<MeasureRow>(table),
        6 => round_trip::<CompareRow>(table),
        7 => round_trip::<CompareAverageRow>(table),
        8 => round_trip::<FitRow>(table),
        9 => round_trip::<GridRow>(table),
        10 => round_trip::<TrainingRow>(table),
        _ => round_trip::<HeldOutRow>(table),
    }
}

fn as_csv<R: Row>(rows: &[R]) -> Vec<u8> {
    let mut text = Vec::new();
    write_rows(&mut text, rows).unwrap();
    text
}

/// What is read and written is read again as the same.
fn round_trip<R: Row>(table: &[u8]) -> Result<Vec<String>> {
    let path = Path::new("t.csv");
    let once = as_csv(&read_rows_from::<R>(path, table)?);
    assert!(once == as_csv(&read_rows_from::<R>(path, &once[..])?), "another table when it is read again");
    Ok(Vec::new())
}

/// The files of a directory of results, each after a line `=== NAME`.
fn sections(bytes: &[u8]) -> Vec<(&'static str, &[u8])> {
    const KNOWN: [&str; 12] = [
        "summary.csv",
        "similarity.csv",
        "conversion.csv",
        "spectrum.csv",
        "across.csv",
        "compare.csv",
        "fit.csv",
        "heldout.csv",
        "grid.csv",
        "measures.csv",
        "training.csv",
        "manifest.json",
    ];
    let marks = bytes.windows(4).enumerate().filter(|(at, four)| *four == b"=== " && (*at == 0 || bytes[at - 1] == b'\n'));
    let starts: Vec<usize> = marks.map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let section = |(start, end): (&usize, usize)| {
        let rest = &bytes[start + 4..end];
        let line = rest.iter().position(|byte| *byte == b'\n')?;
        let name = KNOWN.into_iter().find(|known| known.as_bytes() == &rest[..line])?;
        Some((name, &rest[line + 1..]))
    };
    starts.iter().zip(ends).filter_map(section).collect()
}

/// Reads a directory of results whose manifest has the hashes of the tables as they are: that others are refused is no reason why these
/// could not be odd.
fn saved(place: &mut Place, bytes: &[u8]) -> Result<SavedResults> {
    let mut files: Vec<(&str, Vec<u8>)> = sections(bytes).into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect();
    let tables = files.iter().filter(|file| file.0 != MANIFEST_FILE);
    let outputs: HashMap<&str, String> = tables.map(|(name, bytes)| (*name, blake3::hash(bytes).to_string())).collect();
    if !files.iter().any(|file| file.0 == MANIFEST_FILE) {
        files.push((MANIFEST_FILE, b"{\"program\":\"condlora\"}".to_vec()));
    }
    for (_, manifest) in files.iter_mut().filter(|file| file.0 == MANIFEST_FILE) {
        if let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(manifest) {
            fields.insert("outputs".to_owned(), serde_json::json!(outputs));
            *manifest = serde_json::to_vec(&fields).unwrap();
        }
    }
    place.keep(|name| files.iter().any(|(other, _)| *other == name));
    for (name, bytes) in files {
        place.put(name, &bytes, 0);
    }
    SavedResults::read(place.path())
}

fn tables(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    let mut results = saved(place, bytes)?;
    let modules: Vec<String> = results.modules().into_iter().take(1).map(str::to_owned).collect();
    let adapters: Vec<String> = results.adapters().into_iter().take(1).map(str::to_owned).collect();
    results.keep_modules(&modules);
    results.keep_adapters(&adapters);
    assert!(results.modules().len() <= 1 && results.adapters().len() <= 1);
    Ok(Vec::new())
}

/// Draws what was read, and also rows that have the right types and nothing else.
fn figures(place: &mut Place, bytes: &[u8]) -> Result<Vec<String>> {
    // A bitmap takes a hundred times as long as its scene: a few, of inputs with few figures.
    const FEW: usize = 4000;
    let all = bytes.len().is_multiple_of(16) && bytes.len() < FEW;
    let formats = if all { FigureFormat::ALL.to_vec() } else { vec![FigureFormat::Svg] };
    let scale = if bytes.len().is_multiple_of(2) { ColourScale::Paper } else { ColourScale::Data };
    let order = if bytes.len().is_multiple_of(3) { CellOrder::Similarity } else { CellOrder::Layer };
    let options = FigureOptions { formats, scale, order, ..FigureOptions::default() };
    let results = match saved(place, bytes) {
        Ok(results) => results,
        Err(error) => {
            draw_unchecked(bytes, &options)?;
            return Err(error);
        }
    };
    let context = FigureContext { base_name: results.base_name(), adapter: results.adapter() };
    if let Some(tables) = &results.study {
        draw_study(tables, &context, &options)?;
        draw_paper(tables, &context, &options)?;
    }
    if let Some(rows) = &results.fit {
        draw_fit(rows, &context, &options)?;
    }
    if let Some(rows) = &results.held_out {
        draw_held_out(rows, &context, &options)?;
    }
    if let Some(rows) = &results.compare {
        draw_comparison(rows, &options)?;
    }
    Ok(Vec::new())
}

fn draw_unchecked(bytes: &[u8], options: &FigureOptions) -> Result<()> {
    // A grid has a cell for each pair of its rows, so without the checks many rows may give far more cells.
    const MOST: usize = 64;
    fn some<R: Row>(sections: &[(&str, &[u8])], name: &str) -> Vec<R> {
        let section = sections.iter().find(|section| section.0 == name).map(|section| section.1);
        let mut rows = section.and_then(|bytes| read_rows_from(Path::new(name), bytes).ok()).unwrap_or_default();
        rows.truncate(MOST);
        rows
    }
    let sections = sections(bytes);
    let tables = condlora::Tables {
        summary: some(&sections, "summary.csv"),
        similarity: some(&sections, "similarity.csv"),
        conversion: some(&sections, "conversion.csv"),
        spectrum: some(&sections, "spectrum.csv"),
        across: Some(some(&sections, "across.csv")),
        grid: Some(some(&sections, "grid.csv")),
        cuts: Some(some(&sections, "cuts.csv")),
        energy: Some(some(&sections, "energy.csv")),
        training: Some(some(&sections, "training.csv")),
        ..condlora::Tables::default()
    };
    let context = FigureContext::default();
    draw_study(&tables, &context, options)?;
    draw_paper(&tables, &context, options)?;
    draw_fit(&some::<FitRow>(&sections, "fit.csv"), &context, options)?;
    draw_held_out(&some::<HeldOutRow>(&sections, "heldout.csv"), &context, options)?;
    draw_comparison(&some::<CompareRow>(&sections, "compare.csv"), options).map(drop)
}
