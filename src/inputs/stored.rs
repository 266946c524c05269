//! What is read for a layer: its base weight, and the factors of its adapters.

use ndarray::{Array2, Axis};

use super::pairing::BaseWeight;
use crate::checkpoint::{Adapter, AdapterLayer, BaseModel, PairedLayer, RawTensor, Rows};
use crate::conversion::{Equation, Target, WeightRows, factor_of, shared_equations};
use crate::error::{Error, Result, escape};
use crate::record::InputRecord;
use crate::stored::stored;
use crate::terms::CondloraConvention;

/// A base weight W0 as it is stored, whose rows are converted to f64 only when they are needed. For a fused weight, the rows of one part.
pub(crate) struct StoredWeight {
    tensor: RawTensor,
    /// Its rows in the tensor.
    rows: Rows,
    /// Those of B that belong to them.
    rows_of_b: Rows,
    d_out: usize,
    d_in: usize,
    /// All of W0 in f64, where the model stores the transpose and a row of W0 is a column.
    transposed: Option<Array2<f64>>,
}

impl StoredWeight {
    /// Reads a base weight and records that it was read.
    ///
    /// # Errors
    /// Those of [`BaseModel::read`].
    pub(crate) fn read(base: &BaseModel, weight: &BaseWeight, inputs: &mut Vec<InputRecord>) -> Result<Self> {
        Self::read_into(base, weight, inputs, Vec::new())
    }

    /// The same, into storage of an earlier one.
    ///
    /// # Errors
    /// Those of [`BaseModel::read`].
    pub(crate) fn read_into(
        base: &BaseModel,
        weight: &BaseWeight,
        inputs: &mut Vec<InputRecord>,
        storage: Vec<u8>,
    ) -> Result<Self> {
        let tensor = base.read_into(&weight.tensor, storage)?;
        inputs.push(tensor.record());
        let (d_out, d_in) = (weight.d_out, weight.d_in);
        let whole = Rows::together(0, d_out);
        let (rows, rows_of_b, all_rows) =
            weight.block.as_ref().map_or((whole, whole, d_out), |block| (block.of_w0, block.of_b, block.rows_of_w0));
        let transposed = weight.transposed.then(|| {
            let (mut w0, mut column_of_w0) = (Array2::zeros((d_out, d_in)), vec![0.0; all_rows]);
            for column in 0..d_in {
                tensor.widen_part(column * all_rows, &mut column_of_w0);
                w0.column_mut(column).iter_mut().enumerate().for_each(|(row, to)| *to = column_of_w0[rows.at(row)]);
            }
            w0
        });
        Ok(Self { tensor, rows, rows_of_b, d_out, d_in, transposed })
    }

    /// Its storage, for another.
    pub(crate) fn into_storage(self) -> Vec<u8> {
        self.tensor.bytes
    }

    /// W0 in full.
    ///
    /// # Errors
    /// [`Error::Numerical`] for NaN or Inf.
    pub(crate) fn to_f64(&self) -> Result<Array2<f64>> {
        let mut values = vec![0.0; self.d_out * self.d_in];
        self.copy_rows(0, &mut values);
        match values.iter().find(|value| !value.is_finite()) {
            None => shaped(self.d_out, self.d_in, values),
            Some(bad) => Err(self.explain(Error::NonFinite { what: "a base weight".into(), found: bad.to_string() })),
        }
    }

    /// Adds the tensor and position to an error about values that are not finite: the computation only knows that there are some.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match error {
            Error::NonFinite { .. } => self.tensor.check_finite().err().unwrap_or(error),
            _ => error,
        }
    }
}

impl WeightRows for StoredWeight {
    fn shape(&self) -> (usize, usize) {
        (self.d_out, self.d_in)
    }

    fn copy_rows(&self, first: usize, out: &mut [f64]) {
        match &self.transposed {
            None => {
                let (mut row, mut rest) = (first, out);
                while !rest.is_empty() {
                    let together = self.rows.follow(row).min(rest.len() / self.d_in);
                    let (piece, after) = rest.split_at_mut(together * self.d_in);
                    self.tensor.widen_part(self.rows.at(row) * self.d_in, piece);
                    (row, rest) = (row + together, after);
                }
            }
            Some(w0) => w0.copy_rows(first, out),
        }
    }
}

/// Values in rows.
fn shaped(rows: usize, columns: usize, values: Vec<f64>) -> Result<Array2<f64>> {
    let found = values.len();
    Array2::from_shape_vec((rows, columns), values).map_err(|_| Error::Shape {
        what: "a factor as read",
        expected: format!("({rows}, {columns})"),
        found: format!("{found} values"),
    })
}

/// A and B of one adapter's layer: Aᵀ (in, r) and B (out, r).
#[derive(Clone)]
pub(crate) struct FactorPair {
    pub(crate) a_transposed: Array2<f64>,
    pub(crate) b: Array2<f64>,
}

stored!(FactorPair { a_transposed, b });

impl FactorPair {
    /// Reads the factors of `layer`, which adapts `w0`. For a fused weight, B has the rows of one part.
    ///
    /// # Errors
    /// Those of [`Adapter::read_factors`].
    pub(crate) fn read(
        adapter: &Adapter,
        layer: &AdapterLayer,
        w0: &StoredWeight,
        inputs: &mut Vec<InputRecord>,
    ) -> Result<Self> {
        let factors = adapter.read_factors(layer)?;
        inputs.extend(factors.inputs);
        if let Some(convention) = factors.shared {
            return Self::made_of(w0, [factors.a, factors.b], layer.rank, convention).map_err(|error| match error {
                Error::Shape { expected, found, .. } => Error::mismatch(
                    adapter.weights_file(),
                    format!("a CondLoRA of `{}`, of which a part is wanted", escape(&layer.key.path)),
                    expected,
                    found,
                ),
                other => other,
            });
        }
        Self::as_stored(layer, [factors.a, factors.b], w0.rows_of_b, w0.d_out)
    }

    /// Reads the factors of a layer that stores them, without reading W0.
    ///
    /// # Errors
    /// Those of [`Adapter::read_factors`].
    /// # Panics
    /// For a CondLoRA, whose factors are made of W0.
    pub(crate) fn read_stored(adapter: &Adapter, paired: &PairedLayer, inputs: &mut Vec<InputRecord>) -> Result<Self> {
        let layer = &paired.adapter_layer;
        let factors = adapter.read_factors(layer)?;
        inputs.extend(factors.inputs);
        if factors.shared.is_some() {
            unreachable!("the factors of a CondLoRA are made of W0, which its caller reads first");
        }
        let rows = paired.block.as_ref().map_or(Rows::together(0, paired.d_out), |block| block.of_b);
        Self::as_stored(layer, [factors.a, factors.b], rows, paired.d_out)
    }

    /// A and B as they were read, row by row; for a fused weight only some rows of B.
    fn as_stored(layer: &AdapterLayer, [a, b]: [Vec<f64>; 2], rows: Rows, count: usize) -> Result<Self> {
        let a_transposed = shaped(layer.rank, layer.d_in, a)?.reversed_axes().as_standard_layout().into_owned();
        let whole_b = shaped(layer.d_out, layer.rank, b)?;
        let part = || whole_b.select(Axis(0), &(0..count).map(|row| rows.at(row)).collect::<Vec<_>>());
        let b = if whole_b.nrows() == count { whole_b } else { part() };
        Ok(Self { a_transposed, b })
    }

    /// A and B that a CondLoRA makes of W0 and its Θ_Aᵀ and Θ_Bᵀ, given row by row.
    ///
    /// # Errors
    /// [`Error::Shape`] if W0 is only a part of what the Θ are for; [`Error::NonFinite`] if a product overflows.
    pub(crate) fn made_of(
        w0: &impl WeightRows,
        thetas: [Vec<f64>; 2],
        rank: usize,
        convention: CondloraConvention,
    ) -> Result<Self> {
        let [equation_a, equation_b] = shared_equations(convention);
        let factor = |values: Vec<f64>, equation| {
            let theta = shaped(rank, values.len() / rank.max(1), values)?;
            factor_of(w0, theta.t(), equation)
        };
        let [theta_a, theta_b] = thetas;
        Ok(Self { a_transposed: factor(theta_a, equation_a)?, b: factor(theta_b, equation_b)? })
    }

    pub(crate) fn rank(&self) -> usize {
        self.b.ncols()
    }

    pub(crate) fn targets(&self, equation_a: Equation) -> [Target<'_>; 2] {
        [Target::new(&self.a_transposed, equation_a), Target::new(&self.b, Equation::W0)]
    }
}
