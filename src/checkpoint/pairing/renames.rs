//! Modules that transformers 5 calls otherwise than the published checkpoints do, which it renames while it loads them: an adapter has the names of the
//! version that it was trained with.
//!
//! Source: transformers' `conversion_mapping.py` (5.24), and adapters that PEFT 0.21 wrote with it.

/// New names and old ones; `*` is any number, and stays.
type Rules = &'static [(&'static str, &'static str)];

/// By `model_type`: how a module is called since transformers 5, and how in checkpoints before. Each is applied to the result of the one before it.
const RENAMES: [(&[&str], Rules); 5] = [
    (
        &["minimax", "minimax_m2", "mixtral"],
        &[
            ("mlp.gate", "block_sparse_moe.gate"),
            ("mlp.experts", "block_sparse_moe.experts"),
            ("gate_proj", "w1"),
            ("down_proj", "w2"),
            ("up_proj", "w3"),
        ],
    ),
    (
        &["phimoe"],
        &[
            ("mlp.router", "block_sparse_moe.gate"),
            ("mlp.experts", "block_sparse_moe.experts"),
            ("gate_proj", "w1"),
            ("down_proj", "w2"),
            ("up_proj", "w3"),
        ],
    ),
    (
        &["segformer"],
        &[
            ("stages.*.blocks.*", "encoder.block.*.*"),
            ("attention.q_proj", "attention.self.query"),
            ("attention.k_proj", "attention.self.key"),
            ("attention.v_proj", "attention.self.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "mlp.dense1"),
            ("mlp.fc2", "mlp.dense2"),
        ],
    ),
    (
        &["swin"],
        &[
            ("attention.q_proj", "attention.self.query"),
            ("attention.k_proj", "attention.self.key"),
            ("attention.v_proj", "attention.self.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ],
    ),
    (
        &["audio-spectrogram-transformer", "beit", "deit", "ijepa", "vit", "vit_mae", "vit_msn", "vivit"],
        &[
            ("layers", "encoder.layer"),
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ],
    ),
];

/// What else a module may be called in a model of this type: by its older names, and by its newer ones.
pub(super) fn other_names(model_type: &str, path: &str) -> Vec<String> {
    let rules = RENAMES.iter().filter(|(types, _)| types.contains(&model_type)).map(|(_, rules)| *rules);
    let renamed = |rules: Rules, back: bool| {
        rules.iter().fold(path.to_owned(), |path, &(new, old)| {
            let (from, to) = if back { (old, new) } else { (new, old) };
            apply(from, to, &path).unwrap_or(path)
        })
    };
    let both = rules.flat_map(|rules| [renamed(rules, false), renamed(rules, true)]);
    both.filter(|other| other != path).collect()
}

/// The path with the first occurrence of one name replaced by another.
fn apply(from: &str, to: &str, path: &str) -> Option<String> {
    let (from, parts): (Vec<&str>, Vec<&str>) = (from.split('.').collect(), path.split('.').collect());
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = |(part, wanted): (&&str, &&str)| part == wanted || (*wanted == "*" && is_number(part));
    let at = parts.windows(from.len()).position(|window| window.iter().zip(&from).all(fits))?;
    let (replaced, after) = (&parts[at..at + from.len()], &parts[at + from.len()..]);
    let mut numbers = replaced.iter().zip(&from).filter(|(_, wanted)| **wanted == "*").map(|(part, _)| *part);
    let named: Vec<&str> = to.split('.').map(|part| if part == "*" { numbers.next().unwrap_or(part) } else { part }).collect();
    Some([&parts[..at], &named, after].concat().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_changed_in_both_directions() {
        for (model_type, new, old) in [
            ("vit", "vit.layers.3.attention.q_proj", "vit.encoder.layer.3.attention.attention.query"),
            ("vit", "vit.layers.3.attention.o_proj", "vit.encoder.layer.3.attention.output.dense"),
            ("vit", "vit.layers.11.mlp.fc2", "vit.encoder.layer.11.output.dense"),
            ("segformer", "segformer.stages.1.blocks.0.attention.k_proj", "segformer.encoder.block.1.0.attention.self.key"),
            ("segformer", "segformer.stages.1.blocks.0.mlp.fc1", "segformer.encoder.block.1.0.mlp.dense1"),
            ("swin", "swin.encoder.layers.0.blocks.1.attention.o_proj", "swin.encoder.layers.0.blocks.1.attention.output.dense"),
            ("swin", "swin.encoder.layers.0.blocks.1.mlp.fc2", "swin.encoder.layers.0.blocks.1.output.dense"),
            ("mixtral", "model.layers.0.mlp.gate", "model.layers.0.block_sparse_moe.gate"),
            ("mixtral", "model.layers.0.mlp.experts.3.up_proj", "model.layers.0.block_sparse_moe.experts.3.w3"),
        ] {
            assert_eq!(other_names(model_type, new), [old]);
            assert_eq!(other_names(model_type, old), [new]);
        }
        assert!(other_names("bert", "encoder.layer.0.mlp.fc1").is_empty() && other_names("mixtral", "q_proj").is_empty());
    }
}
