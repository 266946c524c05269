//! Checks the shapes and stored types of a layer's factors, once: whatever comes later relies on it.

use std::path::Path;

use super::source::{AdapterLayer, FactorSource, RawLayer, Scaling, StoredFactor};
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::files::tensor::{FloatType, TensorInfo, matrix_shape, not_full_precision, show_shape};
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::ModuleKey;
use crate::error::{Error, Result, escape};
use crate::terms::CondloraConvention;

/// Checks names and shapes of one layer's factors.
///
/// # Errors
/// [`Error::Mismatch`] for a path that names no layer, and for factors that are no pair `[r, in]`, `[out, r]` of floats.
pub(super) fn check_layer(weights: &WeightsFile, config: &AdapterConfig, raw: RawLayer) -> Result<AdapterLayer> {
    let file = weights.path();
    let RawLayer { path, adapter_key, source, scaling, w0_stored } = raw;
    let key = ModuleKey::from_path(path).map_err(|err| {
        let what = format!("tensor name `{}`", escape(source.tensor_a()));
        Error::mismatch(file, what, err.expected, escape(&err.found))
    })?;
    let ((a, dtype_a), (b, dtype_b)) = match &source {
        FactorSource::Stored { a, b, .. } => (factor_shape(weights, a)?, factor_shape(weights, b)?),
        FactorSource::Shared { theta_a, theta_b, convention } => {
            let ([rank, length_a], dtype_a) = factor_shape(weights, &StoredFactor::plain(theta_a.as_str()))?;
            let ([rank_b, length_b], dtype_b) = factor_shape(weights, &StoredFactor::plain(theta_b.as_str()))?;
            // A W0 that is not square is (length of Θ_A, length of Θ_B); else both lengths are its one size.
            let d_out = if *convention == CondloraConvention::General { length_a } else { length_b };
            (([rank, length_b], dtype_a), ([d_out, rank_b], dtype_b))
        }
    };
    let (rank, d_in, d_out) = (a[0], a[1], b[0]);
    check_pair(file, &source, a, b)?;
    if let FactorSource::Stored { e: Some(e), .. } = &source {
        check_singular_values(weights, e, rank)?;
    }
    let dtype = if dtype_a == dtype_b { dtype_a.name().to_owned() } else { format!("{}/{}", dtype_a.name(), dtype_b.name()) };
    let scaling = match scaling {
        Scaling::Configured => config.scaling(&key.path, rank),
        Scaling::Alpha(alpha) => alpha / rank as f64,
        Scaling::RootAlpha(alpha) => alpha / (rank as f64).sqrt(),
        Scaling::Given(scaling) => scaling,
    };
    Ok(AdapterLayer { layer: key.layer.clone(), key, adapter_key, rank, d_in, d_out, scaling, dtype, source, w0_stored })
}

/// Whether A and B have one rank. It may be above the sizes of W0, as in routers and heads of two classes: B·A has a smaller one then.
fn check_pair(file: &Path, source: &FactorSource, a: [usize; 2], b: [usize; 2]) -> Result<()> {
    if a[0] != b[1] {
        let what = format!("ranks of `{}` and `{}`", escape(source.tensor_a()), escape(source.tensor_b()));
        let error =
            Error::mismatch(file, what, "A [r, in] and B [out, r]", format!("A {} and B {}", show_shape(&a), show_shape(&b)));
        let fits = |rank: usize, d_in: usize, d_out: usize| rank <= d_in.min(d_out);
        return Err(if a[1] == b[1] && fits(a[1], a[0], b[0]) {
            error.with_hint("A looks transposed")
        } else if a[0] == b[0] && fits(a[0], a[1], b[1]) {
            error.with_hint("B looks transposed")
        } else {
            error
        });
    }
    Ok(())
}

/// Whether AdaLoRA's E has one value for each row of A.
fn check_singular_values(weights: &WeightsFile, name: &str, rank: usize) -> Result<()> {
    let (info, _) = float_info(weights, name)?;
    if info.shape[..] == [rank, 1] || info.shape[..] == [rank] {
        return Ok(());
    }
    let what = format!("shape of tensor `{}`", escape(name));
    Err(Error::mismatch(weights.path(), what, format!("[{rank}, 1], a value for each row of A"), show_shape(&info.shape)))
}

/// The two sizes of a factor as `[r, in]` or `[out, r]`, a 1x1 kernel removed.
fn factor_shape(weights: &WeightsFile, factor: &StoredFactor) -> Result<([usize; 2], FloatType)> {
    let (info, float) = float_info(weights, &factor.tensor)?;
    let mut shape = matrix_shape(weights.path(), &factor.tensor, info)?;
    if factor.transposed {
        shape.reverse();
    }
    Ok((shape, float))
}

/// What is known about a tensor that has to be there and in full precision.
fn float_info<'a>(weights: &'a WeightsFile, name: &str) -> Result<(&'a TensorInfo, FloatType)> {
    let file = weights.path();
    let info = weights.info(name).ok_or_else(|| Error::missing(file, format!("has no tensor `{}`", escape(name))))?;
    let float = FloatType::of(info.dtype).ok_or_else(|| not_full_precision(file, name, info.dtype))?;
    Ok((info, float))
}
