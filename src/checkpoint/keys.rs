//! Tensor names: which module and layer an adapter's tensor belongs to, and what modules are called.
//!
//! Nothing here opens a file; a name that makes no sense gives an error to which the caller adds the file.

use std::collections::HashMap;

use crate::terms::LayerId;

/// Segments that torch's wrappers put anywhere into a name.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// Words, or last words of names with underscores (`transformer_blocks`), that are followed by the number of a block.
const CONTAINERS: [&str; 10] =
    ["layer", "layers", "h", "block", "blocks", "resblocks", "resnets", "attentions", "stage", "stages"];
/// The same with the number in the name itself: `encoder_layer_3`, `layer1`.
const NUMBERED: [&str; 3] = ["layer", "block", "stage"];
/// Stages of a UNet without a number: their blocks are compared with those of the numbered stages.
const STAGES: [&str; 2] = ["mid_block", "middle_block"];
/// Numbered parts of one block, which differ in what they do.
const PARTS: [&str; 2] = ["expert", "experts"];
/// What holds the weights of several experts in one tensor: in transformers, and in mlx-lm.
const STACKS: [&str; 2] = ["experts", "switch_mlp"];
/// No model has as many layers; a number above is damage.
const MOST_LAYERS: u32 = 1_000_000;
/// Deeper module paths than any model has.
const DEEPEST: usize = 128;

/// The place of one adapted weight in the model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleKey {
    /// The module's path without wrapper prefixes: `bert.encoder.layer.0.attention.self.query`.
    pub path: String,
    /// The path with the layer as `*`.
    pub module_type: String,
    /// The layer, if the path has one.
    pub layer: Option<LayerId>,
}

/// Which factor of the update a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorName {
    /// `A [r, in]`.
    A,
    /// `B [out, r]`.
    B,
    /// AdaLoRA's `E [r, 1]`, which multiplies the rows of A.
    E,
}

impl FactorName {
    /// The name in tensor names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "lora_A",
            Self::B => "lora_B",
            Self::E => "lora_E",
        }
    }
}

/// What a tensor name of a PEFT adapter means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorKey {
    /// A factor of an update.
    Lora {
        /// The module's path without prefixes.
        path: String,
        /// The name as stored up to `.lora_A`.
        stem: String,
        /// Which factor.
        factor: FactorName,
        /// Whether the module is an embedding, whose W0 is stored `[in, out]`.
        embedding: bool,
    },
    /// DoRA's magnitudes.
    Magnitude,
    /// A full weight or a bias (`modules_to_save`, `bias`), which is no update.
    Other,
}

/// Reads a tensor name of a PEFT adapter.
#[must_use]
pub fn parse_tensor_name(name: &str) -> TensorKey {
    let segments: Vec<&str> = name.split('.').collect();
    let marker = |segment: &str| {
        Some(match segment {
            "lora_A" => Some((FactorName::A, false)),
            "lora_B" => Some((FactorName::B, false)),
            "lora_E" => Some((FactorName::E, false)),
            "lora_embedding_A" => Some((FactorName::A, true)),
            "lora_embedding_B" => Some((FactorName::B, true)),
            "lora_magnitude_vector" => None,
            _ => return None,
        })
    };
    let found = segments.iter().enumerate().rev().find_map(|(at, segment)| Some((at, marker(segment)?)));
    let Some((at, kind)) = found else { return TensorKey::Other };
    let Some((factor, embedding)) = kind else { return TensorKey::Magnitude };
    // `lora_A.weight`; `lora_A.default.weight` in raw dumps, with the adapter's name; bare where it is a parameter (AdaLoRA,
    // embeddings), then `lora_A.default` in raw dumps.
    match segments[at + 1..] {
        [.., "bias"] => TensorKey::Other,
        [] | [_] | [_, "weight"] => {
            TensorKey::Lora { path: strip_prefixes(&segments[..at]), stem: segments[..at].join("."), factor, embedding }
        }
        _ => TensorKey::Other,
    }
}

/// Removes what PEFT, `torch.compile` and data-parallel wrappers put around a module path.
fn strip_prefixes(segments: &[&str]) -> String {
    // A module within one that PEFT has wrapped too (`attn.base_layer.out_proj`); at the end it tells one parameter of a module from another.
    let inner = |(at, segment): &(usize, &&str)| {
        **segment == "base_layer" && *at + 1 < segments.len() && segments[*at + 1] != "base_layer"
    };
    let outer = segments.iter().enumerate().filter(|part| !inner(part)).map(|(_, segment)| *segment);
    let kept: Vec<&str> = outer.filter(|segment| !WRAPPERS.contains(segment)).collect();
    let mut rest = kept.as_slice();
    while let Some(("module", inner)) = rest.split_first().map(|(first, inner)| (*first, inner)) {
        rest = inner;
    }
    if let Some(inner) = rest.strip_prefix(&["base_model", "model"]) {
        rest = inner;
        while let Some(("module", inner)) = rest.split_first().map(|(first, inner)| (*first, inner)) {
            rest = inner;
        }
    }
    rest.join(".")
}

impl ModuleKey {
    /// Finds the layer in a module path.
    ///
    /// It is the number after a container of layers (`layers.3`, `h.3`, `blocks.3`), or the path from the outermost to the innermost
    /// container where there are several (`stages.1.layers.0`; section 4.2 of docs/spec.md).
    ///
    /// # Errors
    /// What is wrong with the path: it is empty, too deep, or its index is no layer number (`007`, `-1`, 10^12).
    pub fn from_path(path: String) -> Result<Self, KeyError> {
        let segments: Vec<&str> = path.split('.').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            let found = if path.is_empty() { "none".to_owned() } else { format!("`{path}`") };
            return Err(KeyError { expected: "a module path without empty parts".to_owned(), found });
        }
        // `*` stands for the layer in a module's type: in a name it could make two types one.
        if path.contains('*') {
            return Err(KeyError { expected: "a module path without `*`".to_owned(), found: format!("`{path}`") });
        }
        if segments.len() > DEEPEST {
            let found = format!("{} parts", segments.len());
            return Err(KeyError { expected: format!("a module path of at most {DEEPEST} parts"), found });
        }
        let blocks = block_numbers(&segments);
        let [Some(&first), Some(&last)] = [blocks.first(), blocks.last()] else {
            return Ok(Self { module_type: path.clone(), path, layer: None });
        };
        for &at in &blocks {
            check_number(&path, segments[at])?;
        }
        let stage = segments[..first].iter().position(|segment| STAGES.contains(segment));
        let own_word = !looks_like_number(segments[first]);
        if first == last && stage.is_none() {
            let word = if own_word { word_of(segments[first]) } else { "" };
            let index = segments[first][word.len()..].parse().map(LayerId::Index);
            let Ok(index) = index else { unreachable!("numbers of layers have been checked") };
            let module_type = joined(&segments[..first], &format!("{word}*"), &segments[first + 1..]);
            return Ok(Self { module_type, layer: Some(index), path });
        }
        let start = stage.unwrap_or(if own_word { first } else { first - 1 });
        let layer = LayerId::Path(segments[start..=last].join(".").into());
        Ok(Self { module_type: joined(&segments[..start], "*", &segments[last + 1..]), layer: Some(layer), path })
    }
}

/// The places of the numbers that say which block a path is of: all up to that of the innermost container.
fn block_numbers(segments: &[&str]) -> Vec<usize> {
    let is_number = |at: usize| looks_like_number(segments[at]);
    // Parts of one block: experts, and `layer.1` in T5's `block.3.layer.1`.
    let is_part = |at: usize| PARTS.contains(&segments[at - 1]) || (segments[at - 1] == "layer" && at > 1 && is_number(at - 2));
    let mut numbers: Vec<usize> = (1..segments.len()).filter(|&at| is_number(at) && !is_part(at)).collect();
    let own_word = |at: &usize| NUMBERED.contains(&last_word(word_of(segments[*at]).trim_end_matches('_')));
    let before = numbers.first().copied().unwrap_or(segments.len() - 1);
    let numbered = (0..before).find(own_word);
    // At the end it is the number of a module in a sequence, unless it is the only one there is.
    if numbers.len() + usize::from(numbered.is_some()) > 1 && numbers.last() == Some(&(segments.len() - 1)) {
        numbers.pop();
    }
    numbers.splice(0..0, numbered);
    let in_container = |at: &usize| Some(*at) == numbered || CONTAINERS.contains(&last_word(segments[at - 1]));
    let mut innermost = numbers.iter().rposition(in_container).unwrap_or(0);
    // `block.2.1`: a block of a stage.
    while numbers.get(innermost + 1).is_some_and(|at| numbers[innermost] + 1 == *at) {
        innermost += 1;
    }
    numbers.truncate(innermost + 1);
    numbers
}

/// A name without the number at its end; the whole name where it has none that counts (`layer_03`).
fn word_of(segment: &str) -> &str {
    let word = segment.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let number = &segment[word.len()..];
    if number.is_empty() || (number.len() > 1 && number.starts_with('0')) { "" } else { word }
}

/// The last word of a name with underscores.
fn last_word(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or(name)
}

fn joined(before: &[&str], part: &str, after: &[&str]) -> String {
    [before, &[part], after].concat().join(".")
}

/// Whether a number can be one of layers.
fn check_number(path: &str, segment: &str) -> Result<(), KeyError> {
    let text = if looks_like_number(segment) { segment } else { &segment[word_of(segment).len()..] };
    let canonical = text == "0" || !text.starts_with(['0', '-', '+']);
    match text.parse::<u32>() {
        Ok(layer) if canonical && layer < MOST_LAYERS => Ok(()),
        _ => Err(KeyError {
            expected: format!("a layer number from 0 to {} without leading zeros", MOST_LAYERS - 1),
            found: format!("`{text}` in `{path}`"),
        }),
    }
}

fn looks_like_number(segment: &str) -> bool {
    let digits = segment.strip_prefix(['-', '+']).unwrap_or(segment);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why a module path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    /// What would do.
    pub expected: String,
    /// What was found, not yet escaped.
    pub found: String,
}

/// Names the module types of one adapter; the result is parallel to `types`, which must differ from each other.
///
/// A name is the shortest dotted suffix that no other type has and that does not begin with a number (`to_out.0`, `experts.3.w1`); where every suffix of the part after `*.` is shared, that
/// part, if no other type has the same; else the shortest longer suffix that no other type has.
#[must_use]
pub fn name_modules(types: &[&str]) -> Vec<String> {
    let (mut suffixes, mut tails) = (HashMap::new(), HashMap::new());
    for module_type in types {
        for suffix in dotted_suffixes(module_type) {
            *suffixes.entry(suffix).or_insert(0_usize) += 1;
        }
        *tails.entry(after_star(module_type)).or_insert(0_usize) += 1;
    }
    let unique = |suffix: &&str| {
        suffixes.get(suffix) == Some(&1) && suffix.split('.').next().is_some_and(|first| !looks_like_number(first))
    };
    let name = |module_type: &&str| {
        let tail = after_star(module_type);
        let short = dotted_suffixes(tail).find(unique);
        let whole = || (tails.get(tail) == Some(&1)).then_some(tail);
        let long = || dotted_suffixes(module_type).find(unique);
        short.or_else(whole).or_else(long).unwrap_or(module_type).to_owned()
    };
    types.iter().map(name).collect()
}

fn after_star(module_type: &str) -> &str {
    module_type.split_once("*.").map_or(module_type, |(_, tail)| tail)
}

/// Rising layer indices as ranges, as `--layers` takes them: `2`, `4..9`.
pub(crate) fn layer_ranges(rising: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for layer in rising {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(layer) => *last = layer,
            _ => runs.push((layer, layer)),
        }
    }
    runs.into_iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}..{last}") }).collect()
}

/// Layers in rising order as `--layers` takes them: indices as ranges, and paths.
pub(crate) fn listed_layers<'l>(rising: impl IntoIterator<Item = &'l LayerId>) -> Vec<String> {
    let (mut indices, mut paths) = (Vec::new(), Vec::new());
    for layer in rising {
        match layer {
            LayerId::Index(index) => indices.push(*index),
            LayerId::Path(path) => paths.push(path.to_string()),
        }
    }
    let mut listed = layer_ranges(indices);
    listed.append(&mut paths);
    listed
}

/// Whether a tensor of three dimensions is one matrix for each expert, by its name.
pub(crate) fn is_stack_of_experts(name: &str) -> bool {
    name.split('.').any(|part| STACKS.contains(&part))
}

/// The path of one expert's weight, where a weight of that path holds those of all: `mlp.experts.3.down_proj`.
pub(crate) fn path_of_expert(path: &str, expert: usize) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let at = parts.iter().rposition(|part| STACKS.contains(part)).unwrap_or(parts.len() - 1);
    joined(&parts[..at], &format!("{}.{expert}", STACKS[0]), &parts[at + 1..])
}

/// The name of a view of one expert's part of a tensor, and back.
pub(crate) fn view_of_expert(tensor: &str, expert: usize) -> String {
    format!("{tensor}[{expert}]")
}

/// The tensor and the expert that a view's name is made of.
pub(crate) fn tensor_of_view(view: &str) -> Option<(&str, usize)> {
    let (tensor, expert) = view.strip_suffix(']')?.rsplit_once('[')?;
    Some((tensor, expert.parse().ok()?))
}

/// The last part of a dotted path.
pub(crate) fn last_segment(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The suffixes of a dotted path that start at a part, from the shortest to the whole.
pub(crate) fn dotted_suffixes(path: &str) -> impl Iterator<Item = &str> {
    let starts = path.rmatch_indices('.').map(|(at, _)| at + 1).chain([0]);
    starts.map(|at| &path[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_shown_as_ranges() {
        assert_eq!(layer_ranges([0, 1, 2, 8, 10, 11]), ["0..2", "8", "10..11"]);
        assert_eq!(layer_ranges([u32::MAX]), [u32::MAX.to_string()]);
    }

    fn lora(path: &str, stem: &str, factor: FactorName) -> TensorKey {
        TensorKey::Lora { path: path.into(), stem: stem.into(), factor, embedding: false }
    }

    #[test]
    fn names_are_read_with_and_without_wrappers() {
        for (name, path, stem, factor) in [
            ("base_model.model.a.q.lora_A.weight", "a.q", "base_model.model.a.q", FactorName::A),
            ("base_model.model.a.q.lora_B.default.weight", "a.q", "base_model.model.a.q", FactorName::B),
            ("_orig_mod.base_model.model.a.q.lora_B.weight", "a.q", "_orig_mod.base_model.model.a.q", FactorName::B),
            ("module.base_model.model.a._orig_mod.q.lora_A", "a.q", "module.base_model.model.a._orig_mod.q", FactorName::A),
            (
                "base_model.model.model.layers.0.q.lora_A.weight",
                "model.layers.0.q",
                "base_model.model.model.layers.0.q",
                FactorName::A,
            ),
            ("a.q.lora_A.weight", "a.q", "a.q", FactorName::A),
            (
                "base_model.model.a.attn.base_layer.out_proj.lora_A.weight",
                "a.attn.out_proj",
                "base_model.model.a.attn.base_layer.out_proj",
                FactorName::A,
            ),
            ("a.experts.base_layer.lora_A.weight", "a.experts.base_layer", "a.experts.base_layer", FactorName::A),
            ("base_model.model.a.q.lora_E", "a.q", "base_model.model.a.q", FactorName::E),
            ("base_model.model.a.q.lora_A.default", "a.q", "base_model.model.a.q", FactorName::A),
        ] {
            assert_eq!(parse_tensor_name(name), lora(path, stem, factor));
        }
        for (name, factor) in [("lora_embedding_A", FactorName::A), ("lora_embedding_B.default", FactorName::B)] {
            let (path, stem) = ("e".to_owned(), "base_model.model.e".to_owned());
            let expected = TensorKey::Lora { path, stem, factor, embedding: true };
            assert_eq!(parse_tensor_name(&format!("base_model.model.e.{name}")), expected);
        }
        assert_eq!(parse_tensor_name("base_model.model.q.lora_magnitude_vector"), TensorKey::Magnitude);
        assert_eq!(parse_tensor_name("base_model.model.q.lora_B.bias"), TensorKey::Other);
        assert_eq!(parse_tensor_name("base_model.model.q.lora_B.default.bias"), TensorKey::Other);
        assert_eq!(parse_tensor_name("query.linear_for_lora_A"), TensorKey::Other);
    }

    #[test]
    fn layers_are_found_by_their_containers() {
        for (path, module_type, layer) in [
            ("bert.encoder.layer.3.attention.self.query", "bert.encoder.layer.*.attention.self.query", "3"),
            ("0.auto_model.encoder.layer.3.output.dense", "0.auto_model.encoder.layer.*.output.dense", "3"),
            ("encoder.block.1.layer.0.SelfAttention.q", "encoder.block.*.layer.0.SelfAttention.q", "1"),
            ("model.layers.7.experts.2.w1", "model.layers.*.experts.2.w1", "7"),
            ("encoder.layer.3.ffn.0.intermediate.dense", "encoder.layer.*.ffn.0.intermediate.dense", "3"),
            ("single_transformer_blocks.9.attn.to_q", "single_transformer_blocks.*.attn.to_q", "9"),
            ("transformer_blocks.2.ff.net.0.proj", "transformer_blocks.*.ff.net.0.proj", "2"),
            ("transformer_blocks.2.attn.to_out.0", "transformer_blocks.*.attn.to_out.0", "2"),
            ("encoder.layers.encoder_layer_3.mlp.0", "encoder.layers.encoder_layer_*.mlp.0", "3"),
            ("x.h.3.attn.c_attn", "x.h.*.attn.c_attn", "3"),
            ("seq.2", "seq.*", "2"),
            ("layers.2", "layers.*", "2"),
            ("swin.encoder.layers.2.blocks.1.attention.self.query", "swin.encoder.*.attention.self.query", "layers.2.blocks.1"),
            ("segformer.encoder.block.0.1.attention.self.query", "segformer.encoder.*.attention.self.query", "block.0.1"),
            ("encoder.stages.1.layers.0.layer.1.convolution", "encoder.*.layer.1.convolution", "stages.1.layers.0"),
            ("encoder.layer.2.transformer.layer.0.attention.q", "encoder.*.attention.q", "layer.2.transformer.layer.0"),
            ("features.3.0.block.3", "*.block.3", "features.3.0"),
            ("layer1.0.conv1", "*.conv1", "layer1.0"),
            ("down.0.attentions.1.q", "*.q", "down.0.attentions.1"),
            (
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
                "unet.*.attn1.to_out.0",
                "down_blocks.1.attentions.0.transformer_blocks.0",
            ),
            ("mid_block.attentions.0.proj_in", "*.proj_in", "mid_block.attentions.0"),
            ("input_blocks.4.1.transformer_blocks.0.attn1.to_q", "*.attn1.to_q", "input_blocks.4.1.transformer_blocks.0"),
            ("input_blocks.1.0.in_layers.2", "*.in_layers.2", "input_blocks.1.0"),
            ("lm_head", "lm_head", ""),
            ("mlp.layer_norm1.x", "mlp.layer_norm1.x", ""),
            ("mlp.layer1", "mlp.layer1", ""),
        ] {
            let key = ModuleKey::from_path(path.to_owned()).unwrap();
            let found = key.layer.map_or_else(String::new, |layer| layer.to_string());
            assert_eq!((key.module_type.as_str(), found.as_str()), (module_type, layer), "{path}");
        }
        for path in
            ["layer.007.q", "layer.-1.q", "layer.1000000000000.q", "layer.+1.q", "", "a..q", "a.*.q", "a*.q", &"x.".repeat(200)]
        {
            assert!(ModuleKey::from_path(path.to_owned()).is_err(), "{path}");
        }
    }

    #[test]
    fn weights_of_several_experts_have_a_path_for_each() {
        for (path, expected) in [
            ("model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.3.gate_up_proj"),
            ("model.layers.0.mlp.switch_mlp.up_proj", "model.layers.0.mlp.experts.3.up_proj"),
        ] {
            assert!(is_stack_of_experts(path));
            assert_eq!(path_of_expert(path, 3), expected);
            assert_eq!(tensor_of_view(&view_of_expert(path, 3)), Some((path, 3)));
        }
        assert!(!is_stack_of_experts("model.layers.0.mlp.up_proj") && tensor_of_view("a.b").is_none());
    }

    #[test]
    fn modules_have_the_shortest_name_that_tells_them_apart() {
        let types = ["e.layer.*.self.query", "e.layer.*.attention.output.dense", "e.layer.*.output.dense", "e.layer.*.fc.dense"];
        assert_eq!(name_modules(&types), ["query", "attention.output.dense", "output.dense", "fc.dense"]);
        let types = ["encoder.block.*.layer.0.Att.q", "decoder.block.*.layer.0.Att.q", "decoder.block.*.layer.1.Cross.q"];
        assert_eq!(name_modules(&types), ["encoder.block.*.layer.0.Att.q", "decoder.block.*.layer.0.Att.q", "Cross.q"]);
        assert_eq!(name_modules(&["b.*.attn.to_q", "b.*.attn.to_out.0"]), ["to_q", "to_out.0"]);
        assert_eq!(name_modules(&["b.*.experts.0.w1", "b.*.experts.1.w1"]), ["experts.0.w1", "experts.1.w1"]);
        assert_eq!(name_modules(&["lm_head", "h.*.lm_head"]), ["lm_head", "*.lm_head"]);
        assert_eq!(name_modules(&["a.*.x", "b.a.*.x"]), ["a.*.x", "b.a.*.x"]);
    }
}
