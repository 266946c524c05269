//! What α is in a LoRA file of an image model: a tensor beside the factors, or in the notes of the header, or else the rank.

use serde_json::Value;

use super::names::Place;
use crate::checkpoint::adapter::source::Scaling;
use crate::checkpoint::files::tensor::show_shape;
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::dotted_suffixes;
use crate::error::{Error, Result, escape};
use crate::record::InputRecord;

/// What the header's metadata say of α.
pub(super) struct Told {
    /// Of sd-scripts, for all modules.
    network_alpha: Option<f64>,
    /// Of Diffusers, PEFT's fields with the model's name in front.
    of_diffusers: Option<Value>,
}

impl Told {
    pub(super) fn of(weights: &WeightsFile) -> Self {
        let number = |text: &String| text.parse::<f64>().ok().filter(|alpha| alpha.is_finite() && *alpha != 0.0);
        let metadata = weights.metadata();
        Self {
            network_alpha: metadata.get("ss_network_alpha").and_then(number),
            of_diffusers: metadata.get("lora_adapter_metadata").and_then(|text| serde_json::from_str(text).ok()),
        }
    }

    /// Where `s` of a module comes from that has no α of its own.
    pub(super) fn scaling(&self, family: &str, place: &Place) -> Scaling {
        let of_diffusers = || {
            let (fields, Place::Dotted(path)) = (self.of_diffusers.as_ref()?, place) else { return None };
            let field = |name: &str| {
                let with_family = (!family.is_empty()).then(|| fields.get(format!("{family}.{name}"))).flatten();
                with_family.or_else(|| fields.get(name))
            };
            let patterns = field("alpha_pattern").and_then(Value::as_object);
            let pattern = patterns
                .and_then(|patterns| dotted_suffixes(path).find_map(|suffix| patterns.get(suffix).and_then(Value::as_f64)));
            let alpha = pattern.or_else(|| field("lora_alpha")?.as_f64()).filter(|alpha| alpha.is_finite() && *alpha != 0.0)?;
            let is_rooted = field("use_rslora").and_then(Value::as_bool) == Some(true);
            Some(if is_rooted { Scaling::RootAlpha(alpha) } else { Scaling::Alpha(alpha) })
        };
        of_diffusers().or(self.network_alpha.map(Scaling::Alpha)).unwrap_or(Scaling::Given(1.0))
    }
}

/// Reads an α, a scalar.
pub(super) fn read_alpha(weights: &WeightsFile, name: &str, inputs: &mut Vec<InputRecord>) -> Result<f64> {
    let what = || format!("tensor `{}`", escape(name));
    let Some(info) = weights.info(name) else { unreachable!("the name is one of the file's") };
    if info.shape.iter().any(|size| *size != 1) {
        return Err(Error::mismatch(weights.path(), what(), "one number", show_shape(&info.shape)));
    }
    let stored = weights.read(name)?;
    let alpha = stored.number()?;
    if alpha == 0.0 {
        return Err(Error::mismatch(weights.path(), what(), "a number other than 0", "0"));
    }
    inputs.push(stored.record());
    Ok(alpha)
}
