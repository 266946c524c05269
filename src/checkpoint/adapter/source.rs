//! An adapter's modules and layers, and where the factors of each come from: which tensors hold them, and how they are stored there.

use std::path::Path;

use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::ModuleKey;
use crate::error::{Error, Result, escape};
use crate::record::InputRecord;
use crate::terms::{CondloraConvention, LayerId};

/// The layers of one module type.
#[derive(Debug, Clone)]
pub struct AdapterModule {
    /// The module's name: the shortest that no other type of the adapter has.
    pub name: String,
    /// The module's path with the layer index as `*`.
    pub module_type: String,
    /// Its layers, sorted by index.
    pub layers: Vec<AdapterLayer>,
}

/// One adapted weight: the pair A and B.
#[derive(Debug, Clone)]
pub struct AdapterLayer {
    /// Where in the model it is.
    pub key: ModuleKey,
    /// The tensor name as stored up to `.lora_A`.
    pub adapter_key: String,
    /// The layer index, if it has one.
    pub layer: Option<LayerId>,
    /// The rank: rows of A, columns of B.
    pub rank: usize,
    /// Columns of A.
    pub d_in: usize,
    /// Rows of B.
    pub d_out: usize,
    /// `s` in `ΔW = s·B·A`.
    pub scaling: f64,
    /// The stored type: `F32`, or `BF16/F32` where A and B differ.
    pub dtype: String,
    /// Where A and B come from.
    pub source: FactorSource,
    /// How the base stores W0.
    pub w0_stored: StoredW0,
}

/// How a base stores a weight, as far as the adapter's side knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredW0 {
    /// `[out, in]`.
    Straight,
    /// `[in, out]`.
    Transposed,
    /// As the model has a parameter of several experts, of which no configuration says more.
    OfExperts,
    /// As `fan_in_fan_out` says, unless the weight itself says otherwise.
    Configured(bool),
}

/// The factors of one layer; of a CondLoRA's, the conversion matrices that make them of W0.
#[derive(Debug, Clone)]
pub struct Factors {
    /// A, row-major `[rank, d_in]`; of a CondLoRA Θ_Aᵀ, `[rank, length]`.
    pub a: Vec<f64>,
    /// B, row-major `[d_out, rank]`; of a CondLoRA Θ_Bᵀ, `[rank, length]`.
    pub b: Vec<f64>,
    /// The equations that make the factors, if these are a CondLoRA's Θ.
    pub shared: Option<CondloraConvention>,
    /// What was read: A, then B, then what A was made with.
    pub inputs: Vec<InputRecord>,
}

/// A tensor that holds a factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFactor {
    /// Its name.
    pub tensor: String,
    /// Whether it is stored transposed: A as `[in, r]`, B as `[r, out]`.
    pub transposed: bool,
}

impl StoredFactor {
    /// A factor stored as PEFT does: A as `[r, in]`, B as `[out, r]`.
    #[must_use]
    pub fn plain(tensor: impl Into<String>) -> Self {
        Self { tensor: tensor.into(), transposed: false }
    }

    /// A factor stored transposed: A as `[in, r]`, B as `[r, out]`.
    #[must_use]
    pub fn turned(tensor: impl Into<String>) -> Self {
        Self { tensor: tensor.into(), transposed: true }
    }
}

/// How A and B of a layer are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactorSource {
    /// They are stored.
    Stored {
        /// A, or what `e` makes A of.
        a: StoredFactor,
        /// B.
        b: StoredFactor,
        /// AdaLoRA's singular values, `[r, 1]`: row k of A is multiplied by the k-th.
        e: Option<String>,
    },
    /// They are made of W0 and what all layers of the module share: CondLoRA.
    Shared {
        /// The tensor that holds Θ_Aᵀ.
        theta_a: String,
        /// The tensor that holds Θ_Bᵀ.
        theta_b: String,
        /// The equations that make A and B.
        convention: CondloraConvention,
    },
}

/// How the scaling `s` of a layer is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// From the configuration's α and the rank of the tensors.
    Configured,
    /// α is given: s = α/r.
    Alpha(f64),
    /// α is given, of rsLoRA: s = α/√r.
    RootAlpha(f64),
    /// s itself is given.
    Given(f64),
}

/// A layer as the tensor names describe it, before its shapes are checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RawLayer {
    /// The module's path in the model, without wrapper prefixes.
    pub path: String,
    /// The tensor name as stored, up to the factor's.
    pub adapter_key: String,
    /// Where A and B come from.
    pub source: FactorSource,
    /// Where `s` comes from.
    pub scaling: Scaling,
    /// How the base stores W0.
    pub w0_stored: StoredW0,
}

/// What the tensor names of a weight file say.
#[derive(Debug, Default)]
pub struct FoundLayers {
    /// The adapted layers, in any order.
    pub layers: Vec<RawLayer>,
    /// Tensors that belong to none of them.
    pub ignored_tensors: usize,
    /// Factors of modules that are not used, which warnings or errors name.
    pub named_elsewhere: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Paths of modules that cannot be used, and why.
    pub unusable: Vec<(String, Error)>,
}

/// A layer that cannot be used, for which its whole module is skipped.
#[derive(Debug, Clone)]
pub struct UnusableLayer {
    /// The module's name.
    pub module: String,
    /// The layer index, if it has one.
    pub layer: Option<LayerId>,
    /// Why.
    pub error: Error,
}

/// The error for a factor without the other one of its module.
pub(super) fn without_partner(file: &Path, name: &str, partner: &str) -> Error {
    let what = format!("tensor `{}` has no matching {partner}", escape(name));
    Error::mismatch(file, what, "every factor of the module", "no such tensor")
}

impl FactorSource {
    /// The tensor that errors about A name.
    #[must_use]
    pub fn tensor_a(&self) -> &str {
        match self {
            Self::Stored { a, .. } => &a.tensor,
            Self::Shared { theta_a, .. } => theta_a,
        }
    }

    /// The tensor that errors about B name.
    #[must_use]
    pub fn tensor_b(&self) -> &str {
        match self {
            Self::Stored { b, .. } => &b.tensor,
            Self::Shared { theta_b, .. } => theta_b,
        }
    }

    /// Reads A and B, or Θ_A and Θ_B, of a layer whose shapes have been checked.
    ///
    /// # Errors
    /// As [`WeightsFile::read_f64`].
    pub(super) fn read(&self, weights: &WeightsFile, layer: &AdapterLayer) -> Result<Factors> {
        let (a, b, e) = match self {
            Self::Stored { a, b, e } => (a, b, e),
            Self::Shared { theta_a, theta_b, convention } => {
                return read_thetas(weights, [theta_a, theta_b], *convention, layer);
            }
        };
        let mut inputs = Vec::with_capacity(3);
        let mut lora_a = read_factor(weights, a, (layer.rank, layer.d_in), &mut inputs)?;
        let lora_b = read_factor(weights, b, (layer.d_out, layer.rank), &mut inputs)?;
        if let Some(e) = e {
            let mut singular_values = vec![0.0; layer.rank];
            inputs.push(weights.read_f64(e, &mut singular_values)?);
            for (row, value) in lora_a.chunks_exact_mut(layer.d_in).zip(&singular_values) {
                row.iter_mut().for_each(|entry| *entry *= value);
            }
        }
        Ok(Factors { a: lora_a, b: lora_b, shared: None, inputs })
    }
}

/// Reads Θ_Aᵀ and Θ_Bᵀ.
fn read_thetas(
    weights: &WeightsFile,
    [theta_a, theta_b]: [&String; 2],
    convention: CondloraConvention,
    layer: &AdapterLayer,
) -> Result<Factors> {
    let length_a = if convention == CondloraConvention::General { layer.d_out } else { layer.d_in };
    let (mut a, mut b) = (vec![0.0; layer.rank * length_a], vec![0.0; layer.rank * layer.d_in]);
    let inputs = vec![weights.read_f64(theta_a, &mut a)?, weights.read_f64(theta_b, &mut b)?];
    Ok(Factors { a, b, shared: Some(convention), inputs })
}

/// Reads a factor of that shape, row-major however it is stored.
fn read_factor(
    weights: &WeightsFile,
    factor: &StoredFactor,
    (rows, columns): (usize, usize),
    inputs: &mut Vec<InputRecord>,
) -> Result<Vec<f64>> {
    let mut stored = vec![0.0; rows * columns];
    inputs.push(weights.read_f64(&factor.tensor, &mut stored)?);
    if !factor.transposed {
        return Ok(stored);
    }
    let mut turned = vec![0.0; rows * columns];
    for (column, values) in stored.chunks_exact(rows).enumerate() {
        for (row, value) in values.iter().enumerate() {
            turned[row * columns + column] = *value;
        }
    }
    Ok(turned)
}

#[cfg(test)]
mod tests {
    use super::super::Adapter;
    use super::*;
    use crate::checkpoint::config::AdapterConfig;
    use crate::checkpoint::generate::{self, Tensor, f32_tensor};

    fn opened(tensors: &[Tensor], layers: Vec<RawLayer>) -> Result<Adapter> {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        generate::adapter(dir.path(), tensors);
        let folder = dir.path().join("adapter");
        let weights = WeightsFile::open(&dir.path().join(generate::ADAPTER_WEIGHTS)).unwrap();
        let found = FoundLayers { layers, ..Default::default() };
        let adapter = Adapter::from_layers(&folder, "x".into(), AdapterConfig::read(&folder).unwrap(), weights, found)?;
        // The files go with the folder: what a test wants of them is read here.
        for layer in adapter.modules.iter().flat_map(|module| &module.layers) {
            let factors = adapter.read_factors(layer)?;
            let stored = |tensor: &str| floats(tensors.iter().find(|t| t.name == tensor).unwrap());
            let FactorSource::Stored { a, b, e } = &layer.source else { panic!("a CondLoRA") };
            let values = e.as_deref().map_or(vec![1.0; layer.rank], stored);
            let at = |factor: &StoredFactor, rows: usize, columns: usize, row: usize, column: usize| {
                stored(&factor.tensor)[if factor.transposed { column * rows + row } else { row * columns + column }]
            };
            for row in 0..layer.rank {
                for column in 0..layer.d_in {
                    let expected = values[row] * at(a, layer.rank, layer.d_in, row, column);
                    assert_eq!(factors.a[row * layer.d_in + column], expected);
                }
                for out in 0..layer.d_out {
                    assert_eq!(factors.b[out * layer.rank + row], at(b, layer.d_out, layer.rank, out, row));
                }
            }
            assert_eq!(factors.inputs.len(), 2 + usize::from(e.is_some()));
        }
        Ok(adapter)
    }

    fn floats(tensor: &Tensor) -> Vec<f64> {
        tensor.bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    }

    fn raw(a: StoredFactor, b: StoredFactor, e: Option<&str>, scaling: Scaling) -> RawLayer {
        RawLayer {
            path: "model.layers.3.q".into(),
            adapter_key: "model.layers.3.q".into(),
            source: FactorSource::Stored { a, b, e: e.map(str::to_owned) },
            scaling,
            w0_stored: StoredW0::Straight,
        }
    }

    #[test]
    fn factors_come_out_as_a_and_b_however_they_are_stored() {
        let tensors = [f32_tensor("a", &[2, 5]), f32_tensor("at", &[5, 2]), f32_tensor("b", &[4, 2]), f32_tensor("bt", &[2, 4])];
        let tensors = [&tensors[..], &[f32_tensor("e", &[2, 1])]].concat();
        for (a, b, e, scaling, s) in [
            (StoredFactor::plain("a"), StoredFactor::plain("b"), None, Scaling::Configured, 2.0),
            (StoredFactor::turned("at"), StoredFactor::turned("bt"), None, Scaling::Given(20.0), 20.0),
            (StoredFactor::plain("a"), StoredFactor::turned("bt"), None, Scaling::Alpha(3.0), 1.5),
            (StoredFactor::turned("at"), StoredFactor::plain("b"), Some("e"), Scaling::Configured, 2.0),
        ] {
            let adapter = opened(&tensors, vec![raw(a, b, e, scaling)]).unwrap();
            let layer = &adapter.modules[0].layers[0];
            assert_eq!((layer.rank, layer.d_in, layer.d_out, layer.layer.clone(), layer.scaling), (2, 5, 4, Some(3.into()), s));
        }
    }

    #[test]
    fn shapes_are_checked_as_they_will_be_used() {
        let tensors = [f32_tensor("a", &[2, 5]), f32_tensor("b", &[4, 2]), f32_tensor("e", &[3, 1])];
        let refused = |a: StoredFactor, b: StoredFactor, e| {
            opened(&tensors, vec![raw(a, b, e, Scaling::Configured)]).unwrap_err().to_string()
        };
        let error = refused(StoredFactor::turned("a"), StoredFactor::plain("b"), None);
        assert!(error.contains("A [5, 2] and B [4, 2]"), "{error}");
        let error = refused(StoredFactor::plain("a"), StoredFactor::plain("b"), Some("e"));
        assert!(error.contains("`e`; expected [2, 1], a value for each row of A, found [3, 1]"), "{error}");
    }
}
