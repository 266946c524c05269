//! Adapters of mlx-lm: `adapters.safetensors` with `PATH.lora_a [in, r]` and `PATH.lora_b [r, out]`, and an `adapter_config.json` of its own.
//!
//! The factors are transposed against PEFT's: ΔW = s·(a·b)ᵀ, so A = aᵀ and B = bᵀ. They are known by their keys and need no configuration.
//!
//! Source: `mlx_lm/tuner/lora.py`, `mlx_lm/lora.py`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::source::{FactorSource, FoundLayers, RawLayer, Scaling, StoredFactor, StoredW0, without_partner};
use crate::checkpoint::config::{AdapterConfig, CONFIG_FILE, dora_warning};
use crate::checkpoint::files::disk::read_small;
use crate::checkpoint::files::json::json_message;
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::{is_stack_of_experts, path_of_expert, view_of_expert};
use crate::error::{Error, Result, escape};

/// The weights' file name in an adapter directory.
pub(super) const MLX_FILE: &str = "adapters.safetensors";
/// What mlx-lm takes where the configuration says nothing (`lora_parameters`, since version 0.20).
const DEFAULT_SCALE: f64 = 20.0;
/// A configuration is some hundred bytes.
const LARGEST: u64 = 16 << 20;

/// Whether the tensor names are those of mlx-lm.
pub(super) fn is_mlx(weights: &WeightsFile) -> bool {
    weights.names().any(|name| name.ends_with(".lora_a") || name.ends_with(".lora_b"))
}

/// Reads what configuration there is, and sorts the tensor names by module path.
///
/// # Errors
/// [`Error::Malformed`] if the configuration is not JSON, [`Error::Mismatch`] for an impossible scale, and for a factor without the
/// other.
pub(super) fn collect(dir: &Path, weights: &WeightsFile) -> Result<(AdapterConfig, FoundLayers)> {
    let path = dir.join(CONFIG_FILE);
    let (scale, base, warning) = if path.symlink_metadata().is_ok() {
        read_config(&path)?
    } else {
        (None, None, Some(format!("has no {CONFIG_FILE}: the scale {DEFAULT_SCALE} is taken, mlx-lm's default")))
    };
    let config = AdapterConfig::of_another_format(&path, base);
    let mut pairs: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
    let (mut found, mut magnitudes) = (FoundLayers::default(), 0);
    for name in weights.names() {
        match name.rsplit_once('.') {
            Some((path, "lora_a")) => pairs.entry(path).or_default()[0] = Some(name),
            Some((path, "lora_b")) => pairs.entry(path).or_default()[1] = Some(name),
            other => {
                magnitudes += usize::from(other.is_some_and(|(_, last)| last == "m"));
                found.ignored_tensors += 1;
            }
        }
    }
    found.warnings.extend(warning);
    if magnitudes > 0 {
        found.warnings.push(dora_warning(Some(magnitudes)));
    }
    for (path, pair) in pairs {
        let (a, b) = match pair {
            [Some(a), Some(b)] => (a, b),
            [Some(name), None] => return Err(without_partner(weights.path(), name, "lora_b")),
            [None, Some(name)] => return Err(without_partner(weights.path(), name, "lora_a")),
            [None, None] => unreachable!("a pair is made for one of its names"),
        };
        let experts = |name: &str| weights.info(name).filter(|info| info.shape.len() == 3).map(|info| info.shape[0]);
        if let (Some(experts), true) = (experts(a), is_stack_of_experts(path) && experts(a) == experts(b)) {
            found.named_elsewhere.extend([a.to_owned(), b.to_owned()]);
            found.layers.extend((0..experts).map(|expert| RawLayer {
                path: path_of_expert(path, expert),
                adapter_key: view_of_expert(path, expert),
                // Of several experts the factors are stored as PEFT stores those of one.
                source: FactorSource::Stored {
                    a: StoredFactor::plain(view_of_expert(a, expert)),
                    b: StoredFactor::plain(view_of_expert(b, expert)),
                    e: None,
                },
                scaling: scaling(scale),
                w0_stored: StoredW0::Straight,
            }));
            continue;
        }
        // An embedding's rows are looked up: its ΔW is a·b, the transpose of a linear module's.
        let embedding = path.rsplit('.').next().is_some_and(|last| matches!(last, "embed_tokens" | "wte" | "tok_embeddings"));
        found.layers.push(RawLayer {
            path: path.to_owned(),
            adapter_key: path.to_owned(),
            source: FactorSource::Stored { a: StoredFactor::turned(a), b: StoredFactor::turned(b), e: None },
            scaling: scaling(scale),
            w0_stored: if embedding { StoredW0::Transposed } else { StoredW0::Straight },
        });
    }
    Ok((config, found))
}

/// Where `s` comes from.
fn scaling(scale: Option<Scale>) -> Scaling {
    match scale {
        Some(Scale { scale, alpha: Some(alpha) }) => Scaling::Alpha(scale * alpha),
        Some(Scale { scale, alpha: None }) => Scaling::Given(scale),
        None => Scaling::Given(DEFAULT_SCALE),
    }
}

/// What `lora_parameters` says of the scaling: older versions multiply by α/r.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    scale: f64,
    alpha: Option<f64>,
}

/// The scale, the base model's name, and a warning where there is no scale.
fn read_config(path: &Path) -> Result<(Option<Scale>, Option<String>, Option<String>)> {
    let bytes = read_small(path, LARGEST)?;
    let fields: Value = serde_json::from_slice(&bytes)
        .map_err(|err| Error::malformed(path, "adapter config is not valid JSON", "one JSON object", json_message(&err)))?;
    if !fields.is_object() {
        return Err(Error::malformed(path, "adapter config", "one JSON object", escape(&fields.to_string())));
    }
    let parameters = fields.get("lora_parameters").unwrap_or(&Value::Null);
    let number = |name: &str| match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().filter(|number| number.is_finite() && *number != 0.0).map(Some).ok_or_else(|| {
            let what = format!("{name} of lora_parameters");
            Error::mismatch(path, what, "a finite number other than 0", escape(&value.to_string()))
        }),
    };
    let (scale, alpha) = (number("scale")?, number("alpha")?);
    let warning =
        scale.is_none().then(|| format!("names no scale (lora_parameters): {DEFAULT_SCALE} is taken, mlx-lm's default"));
    let base = fields.get("model").and_then(Value::as_str).map(str::to_owned);
    Ok((scale.map(|scale| Scale { scale, alpha }), base, warning))
}
