//! What is kept for a base weight once everything has been solved through it: only what will be compared, and the rows that are already known.

use std::collections::BTreeMap;

use ndarray::Array2;

use crate::conversion::Equation;
use crate::error::{Error, Result};
use crate::inputs::FactorPair;
use crate::layer_matrix::LayerMatrix;
use crate::record::InputRecord;
use crate::relation::Images;
use crate::stored::{Reader, Stored, Writer, stored};
use crate::table::ConversionRow;
use crate::table::csv::{read_rows_from, write_rows};
use crate::terms::MatrixKind;

/// What is kept for one base weight.
#[derive(Default)]
pub(crate) struct SolvedLayer {
    /// One for each member of the pass; none where it has no such layer or failed.
    pub(crate) members: Vec<Option<MemberLayer>>,
    /// What is compared of each draw of the pass, by rank.
    pub(crate) w0_draws: BTreeMap<usize, Vec<DrawnMatrices>>,
    pub(crate) inputs: Vec<InputRecord>,
    /// With `rcond` the singular vectors of W0 that every Θ is made of.
    pub(crate) kept: Option<KeptSpace>,
    /// Adapters that failed here, and why.
    pub(crate) failed: Vec<(usize, Error)>,
    /// Adapters that start from the same numbers, if they do.
    pub(crate) warning: Option<String>,
}

stored!(SolvedLayer { members, w0_draws, inputs, kept, failed, warning });

/// The singular vectors of a base weight that every Θ is made of: a random matrix in place of Θ lies in them too.
pub(crate) struct KeptSpace {
    /// (out, k).
    pub(crate) left: Array2<f64>,
    /// (in, k).
    pub(crate) right: Array2<f64>,
}

stored!(KeptSpace { left, right });

impl KeptSpace {
    /// Where the Θ of an equation lies.
    pub(crate) fn home(&self, equation: Equation) -> &Array2<f64> {
        if equation == Equation::W0 { &self.right } else { &self.left }
    }
}

/// What is compared of one layer in one draw of a control.
#[derive(Default)]
pub(crate) struct DrawnMatrices {
    /// The vectors of each view.
    pub(crate) by_view: Vec<Option<Array2<f64>>>,
    /// Each matrix that CKA compares, centred.
    pub(crate) by_cka: Vec<Option<Array2<f64>>>,
}

stored!(DrawnMatrices { by_view, by_cka });

/// What is kept for one adapter's layer.
pub(crate) struct MemberLayer {
    pub(crate) conversion: ConversionRow,
    pub(crate) matrices: BTreeMap<MatrixKind, LayerMatrix>,
    /// The untrained adapter's; empty without `--init`.
    pub(crate) untrained: BTreeMap<MatrixKind, LayerMatrix>,
    /// What W0 itself makes of the factors, where it was not decomposed.
    pub(crate) images: Option<Images>,
    /// The factors, where they are not read again: those of a CondLoRA, which are made of W0, and all of a shard.
    pub(crate) made: Option<FactorPair>,
}

stored!(MemberLayer { conversion, matrices, untrained, images, made });

/// As a line of its table.
impl Stored for ConversionRow {
    fn put(&self, to: &mut Writer) {
        let mut line = Vec::new();
        write_rows(&mut line, std::slice::from_ref(self)).unwrap_or_else(|error| unreachable!("writing to memory: {error}"));
        to.text(&String::from_utf8_lossy(&line));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        let line: String = from.text()?;
        let mut rows: Vec<Self> = read_rows_from(from.path(), line.as_bytes())?;
        rows.pop().ok_or_else(|| Error::malformed(from.path(), "conversion", "a row", "none"))
    }
}

impl MemberLayer {
    /// The matrix of a kind that the study compares.
    pub(crate) fn matrix(&self, kind: MatrixKind) -> &LayerMatrix {
        self.matrices.get(&kind).unwrap_or_else(|| unreachable!("every matrix that the study compares is kept of every layer"))
    }
}
