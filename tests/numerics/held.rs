//! The library's results compared with the true ones, for whole studies.

use condlora::table::{ConversionRow, SimilarityRow};
use condlora::terms::{Convention, MatrixKind, Side, Status};
use condlora::{AnalyzeParams, prepare};
use rayon::prelude::*;

use super::reference::{Bases, Thetas};
use super::shared::checkpoint::{Layer, Storage, first_columns, write_adapter, write_base};

/// The library's results for some layers, together with the true ones.
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) conversion: Vec<ConversionRow>,
    pub(crate) cells: Vec<Cell>,
}

/// One pair of layers.
pub(crate) struct Cell {
    pub(crate) row: SimilarityRow,
    /// φ in double-double; none where a matrix has too small a rank.
    pub(crate) phi: Option<f64>,
    /// The same, except for a singular value at the threshold.
    undecided: bool,
    singular: bool,
}

impl Cell {
    pub(crate) fn error(&self) -> Option<f64> {
        Some((self.row.phi? - self.phi?).abs())
    }

    /// What is wrong with this cell, if anything.
    fn complaint(&self) -> Option<String> {
        let row = &self.row;
        let (Some(phi), Some(bound)) = (row.phi, row.phi_error_bound) else {
            let right = (self.phi.is_none() || self.undecided) && row.status == Status::Rank && row.phi == row.phi_error_bound;
            return (!right).then(|| "has no value".to_owned());
        };
        let Some(error) = self.error() else { return (!self.undecided).then(|| format!("φ {phi} beyond the rank")) };
        if !(0.0..=1.0).contains(&phi) || !(0.0..=1.0).contains(&bound) {
            return Some(format!("φ {phi}, bound {bound}"));
        }
        if error > bound {
            return Some(format!("off by {error:.2e}, bound {bound:.2e}"));
        }
        let status = match () {
            () if self.singular => Status::Singular,
            () if bound > 1e-3 => Status::LowConfidence,
            () => Status::Ok,
        };
        (row.status != status).then(|| format!("status {}, expected {status}", row.status))
    }
}

/// How a study is made.
pub(crate) struct Setting<'a> {
    pub(crate) convention: Convention,
    pub(crate) ij: &'a [(usize, usize)],
    pub(crate) rcond: Option<f64>,
    pub(crate) storage: Storage,
}

/// The tables of a study of the layers' first `r` rows of A and columns of B, through files, as a user would make it.
pub(crate) fn study(layers: &[Layer], r: usize, setting: &Setting<'_>) -> (Vec<ConversionRow>, Vec<SimilarityRow>) {
    let folder = tempfile::tempdir().unwrap();
    write_base(&folder.path().join("base"), layers, setting.storage);
    let cut: Vec<Layer> = layers.iter().map(|layer| first_columns(layer, r)).collect();
    write_adapter(&folder.path().join("adapter"), &cut, setting.storage, &[]);
    let config = AnalyzeParams {
        paths: vec![folder.path().join("adapter")],
        base: Some(folder.path().join("base")),
        matrices: vec![MatrixKind::A, MatrixKind::B, MatrixKind::BA, MatrixKind::LoraA, MatrixKind::LoraB],
        sides: vec![Side::Left, Side::Right],
        ij: setting.ij.to_vec(),
        convention: Some(setting.convention),
        null_draws: condlora::NullDraws::Fixed(0),
        rcond: setting.rcond,
        ..Default::default()
    };
    let tables = prepare(config.check().unwrap()).unwrap().run().unwrap().tables;
    (tables.conversion, tables.similarity)
}

/// The truth of each layer, to be taken for any rank.
pub(crate) fn thetas(layers: &[Layer], convention: Convention, w0_ranks: &[usize]) -> Vec<Thetas> {
    layers.par_iter().zip(w0_ranks).map(|(l, &rank)| Thetas::of(&l.w0, &l.a, &l.b, convention, rank)).collect()
}

impl Held {
    /// The study of rank r compared with the true values.
    pub(crate) fn new(name: &str, layers: &[Layer], truth: &[Thetas], r: usize, setting: &Setting<'_>) -> Self {
        let (conversion, similarity) = study(layers, r, setting);
        let bases: Vec<Bases> = truth.par_iter().map(|thetas| thetas.bases(r)).collect();
        let cell = |row: SimilarityRow| {
            let [x, y] =
                [row.layer_a.index().unwrap(), row.layer_b.index().unwrap()].map(|layer| bases[layer as usize].of(row.matrix));
            let singular = |layer: u32| {
                let row = &conversion[layer as usize];
                row.w0_rank < row.out_features.min(row.in_features)
            };
            let there = row.i <= x.rank.1 && row.j <= y.rank.1;
            Cell {
                phi: there.then(|| x.phi(y, row.side, row.i, row.j)),
                undecided: there && (row.i > x.rank.0 || row.j > y.rank.0),
                singular: !row.matrix.is_factor()
                    && (singular(row.layer_a.index().unwrap()) || singular(row.layer_b.index().unwrap())),
                row,
            }
        };
        let cells = similarity.into_par_iter().filter(|row| row.layer_a <= row.layer_b).map(cell).collect();
        Self { name: name.to_owned(), conversion, cells }
    }

    /// The layers by these conventions, at these ranks and all i and j that are interesting, with the rank of W0 that the program sees.
    pub(crate) fn all(name: &str, layers: &[Layer], conventions: &[Convention], ranks: &[usize], storage: Storage) -> Vec<Self> {
        let mut all = Vec::new();
        for &convention in conventions {
            let seen = study(layers, 1, &Setting { convention, ij: &[(1, 1)], rcond: None, storage }).0;
            let truth = thetas(layers, convention, &seen.iter().map(|row| row.w0_rank).collect::<Vec<_>>());
            for &r in ranks {
                let ij = [(1, 1), (r.div_ceil(2), r.div_ceil(2)), (r.div_ceil(2), r), (r, r)];
                let setting = Setting { convention, ij: &ij, rcond: None, storage };
                all.push(Self::new(&format!("{name}, {convention}, r = {r}"), layers, &truth, r, &setting));
            }
        }
        all
    }

    /// Insists that every φ is within its bound of the truth and that every status is right.
    #[track_caller]
    pub(crate) fn check(&self) {
        let complaint = |cell: &Cell| {
            let row = &cell.row;
            let place =
                format!("{} {} i, j = {}, {} layers {}, {}", row.matrix, row.side, row.i, row.j, row.layer_a, row.layer_b);
            Some(format!("{}: {place}: {}", self.name, cell.complaint()?))
        };
        let complaints: Vec<String> = self.cells.iter().filter_map(complaint).collect();
        let ratios = self.cells.iter().filter_map(|cell| Some(cell.row.phi_error_bound? / cell.error()?)).filter(|r| !r.is_nan());
        let least = ratios.fold(f64::INFINITY, f64::min);
        println!("{}: {} cells, bound at least {least:.1} times the error", self.name, self.cells.len());
        assert!(
            complaints.is_empty(),
            "{} of {} cells:\n{}",
            complaints.len(),
            self.cells.len(),
            complaints.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
        );
    }
}
