//! Which way round a base stores a weight: [out, in] as `nn.Linear` does, or [in, out] as GPT-2's `Conv1D` does.
//!
//! PEFT writes one `fan_in_fan_out` for all modules, and it is the one of the module that it wrapped last. So shapes decide where they can, then the
//! architecture, and the configuration only where neither says anything.

use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::adapter::source::{AdapterLayer, StoredW0};
use crate::checkpoint::base::model_config::ModelConfig;
use crate::checkpoint::keys::last_segment;
use crate::error::escape;

/// The modules that are `Conv1D` in transformers, by `model_type` (the `modeling_*.py` of each); all others of these models are `nn.Linear`.
const CONV1D: [(&str, &[&str]); 4] = [
    ("decision_transformer", &["c_attn", "c_fc", "c_proj", "q_attn"]),
    ("gpt2", &["c_attn", "c_fc", "c_proj", "q_attn"]),
    ("imagegpt", &["c_attn", "c_fc", "c_proj", "q_attn"]),
    ("openai-gpt", &["c_attn", "c_fc", "c_proj"]),
];

/// Models whose parameters of several experts are [experts, in, out] (`is_transposed` in transformers); in all others they are [experts, out, in].
const TURNED_EXPERTS: [&str; 3] = ["gpt_oss", "llama4", "llama4_text"];

/// The orientation of a base's weights.
pub(super) struct Orientation {
    model_type: Option<String>,
    /// The first layer that is not stored as the configuration says, how many there are, and whether shapes said so.
    disagreeing: Option<(String, usize, bool)>,
}

impl Orientation {
    pub(super) fn of(config: Option<&ModelConfig>) -> Self {
        Self { model_type: config.and_then(|config| config.model_type.clone()), disagreeing: None }
    }

    /// Whether a layer's W0 of this stored shape is [in, out].
    pub(super) fn is_transposed(&mut self, layer: &AdapterLayer, stored: [usize; 2]) -> bool {
        let configured = match layer.w0_stored {
            StoredW0::Straight => return false,
            StoredW0::Transposed => return true,
            StoredW0::OfExperts => self.model_type.as_deref().is_some_and(|model| TURNED_EXPERTS.contains(&model)),
            StoredW0::Configured(configured) => configured,
        };
        let straight = [layer.d_out, layer.d_in] == stored;
        let turned = [layer.d_in, layer.d_out] == stored;
        let (found, by_shape) = match (straight, turned) {
            (true, true) if layer.w0_stored == StoredW0::OfExperts => return configured,
            (true, true) => (self.is_conv1d(&layer.key.path).unwrap_or(configured), false),
            (false, false) => (configured, false),
            _ => (turned, true),
        };
        if found != configured && layer.w0_stored != StoredW0::OfExperts {
            let first = || (layer.key.path.clone(), 0, by_shape);
            self.disagreeing.get_or_insert_with(first).1 += 1;
        }
        found
    }

    /// Whether the architecture makes a module a `Conv1D`; none where it is not known.
    fn is_conv1d(&self, path: &str) -> Option<bool> {
        let model_type = self.model_type.as_deref()?;
        let names = CONV1D.iter().find(|(known, _)| *known == model_type).map_or(&[][..], |(_, names)| names);
        Some(names.contains(&last_segment(path)))
    }

    /// The warning where `fan_in_fan_out` is not what the weights are.
    pub(super) fn warning(&self, adapter: &Adapter) -> Option<String> {
        let (first, count, by_shape) = self.disagreeing.as_ref()?;
        let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let is = if adapter.config.fan_in_fan_out { "[out, in]" } else { "[in, out]" };
        let by = match (&self.model_type, by_shape) {
            (Some(model_type), false) => format!("as {} has them", escape(model_type)),
            _ => "by their shapes".to_owned(),
        };
        let (weights, verb) = if *count > 1 { ("weights", "are") } else { ("weight", "is") };
        Some(format!(
            "fan_in_fan_out is {}, but the base {weights} of `{}`{more} {verb} stored {is} {by}, and read so",
            adapter.config.fan_in_fan_out,
            escape(first)
        ))
    }
}
