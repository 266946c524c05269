//! Adapters of other programs that are not read: what they are, by the names of their tensors, and the next step.

use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::{TensorKey, parse_tensor_name};
use crate::error::{Error, escape};

/// The weights' file name of AdapterHub's library.
pub(super) const ADAPTER_HUB_FILE: &str = "pytorch_adapter.bin";
/// What to do with AdapterHub's.
pub(super) const ADAPTER_HUB: &str =
    "this is an adapter of AdapterHub's library (adapters): save its lora_A and lora_B under PEFT's names";

/// A kind of file that is not read.
struct Foreign {
    /// Whether a tensor's name is of such a file.
    is_of: fn(&str) -> bool,
    found: &'static str,
    hint: &'static str,
}

const KNOWN: [Foreign; 3] = [
    Foreign {
        is_of: |name| name.ends_with(".lora_a.weight") || name.ends_with(".lora_b.weight"),
        found: "torchtune's own names",
        hint: "let torchtune's Hugging Face checkpointer write it in PEFT's format",
    },
    Foreign {
        is_of: |name| name.ends_with(".A") || name.ends_with(".B"),
        found: "names of mlx-vlm (PATH.A and PATH.B)",
        hint: "rename .A to .lora_a and .B to .lora_b, and give the scale as mlx-lm does (lora_parameters)",
    },
    Foreign { is_of: |name| name.contains(".loras."), found: "names of AdapterHub's library (loras)", hint: ADAPTER_HUB },
];

/// The error for a file of another program's, if it is one.
pub(super) fn refusal(weights: &WeightsFile) -> Option<Error> {
    if weights.names().any(|name| matches!(parse_tensor_name(name), TensorKey::Lora { .. })) {
        return None;
    }
    let Foreign { is_of, found, hint } = KNOWN.iter().find(|known| weights.names().any(known.is_of))?;
    let names = weights.names().filter(|name| is_of(name)).map(str::to_owned).collect();
    let found = format!("{found}: {}", escape(&sample(names, 3)));
    Some(Error::mismatch(weights.path(), "no LoRA tensor in the file", "names like `PATH.lora_A.weight`", found).with_hint(*hint))
}

/// The hint for two names of one factor that differ by the name of an adapter: `lora_A.first.weight`, `lora_A.second.weight`.
pub(super) fn two_adapters(one: &str, other: &str) -> Option<String> {
    let adapter = |name: &str| {
        let (_, after) = name.rsplit_once(".lora_")?;
        Some(after.split_once('.')?.1.trim_end_matches(".weight").to_owned()).filter(|name| name != "weight")
    };
    let (one, other) = (adapter(one)?, adapter(other)?);
    (one != other)
        .then(|| format!("the file holds two adapters, `{}` and `{}`: save each by itself", escape(&one), escape(&other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_adapters_in_one_file_are_told_by_their_names() {
        let hint = two_adapters("a.q.lora_A.first.weight", "a.q.lora_A.second.weight").unwrap();
        assert!(hint.contains("`first` and `second`"));
        assert_eq!(two_adapters("base_model.model.a.q.lora_A.weight", "a.q.lora_A.weight"), None);
        assert_eq!(two_adapters("a.q.lora_A.default.weight", "x.a.q.lora_A.default.weight"), None);
    }
}
