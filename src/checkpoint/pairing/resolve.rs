//! From a module path to the base tensor it adapts, in the order exact, known prefixes, unique suffix.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::renames::other_names;
use super::rules::PairingRules;
use crate::checkpoint::adapter::source::{AdapterLayer, StoredW0};
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::base::model_class::is_prefix;
use crate::checkpoint::base::model_config::ModelConfig;
use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::tensor::matrix_shape;
use crate::checkpoint::keys::{dotted_suffixes, last_segment};
use crate::error::{Error, Result, escape, field};

/// What else is put before a module's path, beside the prefixes of transformers' classes: by PEFT, by models of text and images around
/// their language model, by sentence-transformers' and older classes.
const OUTER_NAMES: [&str; 7] = ["base_model", "bloom", "encoder_model", "language_model", "llm", "text_model", "xlm"];

/// After so many the others are hardly near.
const MOST_SEARCHES: usize = 16;

/// What output layers over a vocabulary are called, and input embeddings.
const OUTPUT_LAYERS: [&str; 4] = ["embed_out", "lm_head", "output_projection", "proj_out"];
const INPUT_EMBEDDINGS: [&str; 6] = ["embed_in", "embed_tokens", "shared", "tok_embeddings", "word_embeddings", "wte"];

/// The base's weights by their names without known prefixes.
pub(super) struct BaseIndex<'a> {
    base: &'a BaseModel,
    by_core: BTreeMap<&'a str, Vec<Weight<'a>>>,
    /// How many renamings may still be looked for, each among all weights.
    searches: Cell<usize>,
}

/// A base tensor that ends in `.weight`.
#[derive(Clone, Copy)]
struct Weight<'a> {
    path: &'a str,
    name: &'a str,
}

impl<'a> BaseIndex<'a> {
    pub(super) fn new(base: &'a BaseModel) -> Self {
        let mut by_core: BTreeMap<&str, Vec<Weight<'_>>> = BTreeMap::new();
        for name in base.names() {
            // The fused projection of `nn.MultiheadAttention` is no module of its own: the attention is what PEFT adapts.
            if let Some(path) = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".in_proj_weight")) {
                let path = path.strip_suffix(".base_layer").unwrap_or(path);
                by_core.entry(core_of(path)).or_default().push(Weight { path, name });
            }
        }
        for (path, name) in base.experts() {
            by_core.entry(core_of(path)).or_default().push(Weight { path, name });
        }
        Self { base, by_core, searches: Cell::new(MOST_SEARCHES) }
    }

    /// The name of the base tensor of a layer.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there is none, if there are several and not exactly one of them has the layer's shape, or if it is packed.
    pub(super) fn resolve(&self, layer: &AdapterLayer, rules: &PairingRules) -> Result<&'a str> {
        let path = layer.key.path.as_str();
        if let Some(renamed) = rules.renamed(path) {
            return self.named(path, &renamed);
        }
        let core = core_of(path);
        let same_core = self.by_core.get(core).map_or(&[][..], Vec::as_slice);
        if let Some(exact) = same_core.iter().find(|weight| weight.path == path) {
            return Ok(exact.name);
        }
        if let Some(found) = self.closest(layer, core, same_core)? {
            return Ok(found);
        }
        for packed in [path, core] {
            if let Some(kind) = self.base.packing(packed) {
                return Err(self.packed(&format!("{packed}.weight"), kind));
            }
        }
        let mut tried = vec![format!("`{}.weight`", escape(path))];
        if core != path {
            tried.push(format!("`{}.weight`", escape(core)));
        }
        for suffix in suffixes_with_layer(layer) {
            let ending = format!(".{suffix}.weight");
            let head = &path[..path.len() - suffix.len()];
            let same_place = |name: &&str| !elsewhere(head, &name[..name.len() + 1 - ending.len()]);
            let ends_so = |name: &&str| name.ends_with(&ending) || *name == &ending[1..];
            let hits: Vec<&str> = self.base.names().filter(|name| ends_so(name) && same_place(name)).collect();
            if hits.is_empty() {
                let packed = format!(".{suffix}.qweight");
                if self.base.names().any(|name| name.ends_with(&packed)) {
                    return Err(self.packed(&format!("*.{suffix}.weight"), "GPTQ or AWQ (qweight)"));
                }
                tried.push(format!("`*.{}.weight`", escape(suffix)));
                continue;
            }
            return self.only_one(layer, &hits);
        }
        let map = field("map");
        let hint = match self.near_miss(layer, core) {
            Some((from, to, name)) => format!("`{}` has its shape: try {map} {}", escape(name), escape(&format!("{from}={to}"))),
            None => format!(
                "is this the base model the adapter was trained on? If it is, say what the weight is called there with {map} FROM=TO"
            ),
        };
        Err(self.not_found(path, &tried).with_hint(hint))
    }

    /// The renaming that leads to the only weight nearest to a layer's name that has its numbers and its shape.
    fn near_miss(&self, layer: &AdapterLayer, core: &str) -> Option<(String, String, &'a str)> {
        self.searches.set(self.searches.get().checked_sub(1)?);
        let own: Vec<&str> = core.split('.').collect();
        let is_number = |part: &&&str| part.bytes().all(|byte| byte.is_ascii_digit());
        let numbers = |parts: &[&str]| parts.iter().filter(is_number).map(|part| (*part).to_owned()).collect::<Vec<_>>();
        let of_own = numbers(&own);
        let mut nearest: Vec<(usize, String, String, &'a str)> = Vec::new();
        for weight in self.by_core.values().flatten() {
            let parts: Vec<&str> = core_of(weight.path).split('.').collect();
            if of_own.is_empty() || numbers(&parts) != of_own || !self.fits(layer, weight.name) {
                continue;
            }
            let shorter = own.len().min(parts.len());
            let alike = |ends: &mut dyn Iterator<Item = (&&str, &&str)>| ends.take_while(|(one, other)| one == other).count();
            let at_end = alike(&mut own.iter().rev().zip(parts.iter().rev()));
            let at_start = alike(&mut own.iter().zip(&parts)).min(shorter - at_end);
            // An insertion is said with the part after it.
            let at_end = if at_start + at_end == own.len() { at_end.saturating_sub(1) } else { at_end };
            let (from, to) = (&own[at_start..own.len() - at_end], &parts[at_start..parts.len() - at_end]);
            if from.is_empty() || from.iter().chain(to).any(|part| is_number(&part)) {
                continue;
            }
            nearest.push((from.len() + to.len(), from.join("."), to.join("."), weight.name));
        }
        nearest.sort();
        match &nearest[..] {
            [(_, from, to, name)] => Some((from.clone(), to.clone(), name)),
            [(best, from, to, name), (second, ..), ..] if best < second => Some((from.clone(), to.clone(), name)),
            _ => None,
        }
    }

    /// The only weight that has another name of the layer's module in a model of this kind.
    pub(super) fn renamed(&self, layer: &AdapterLayer, config: &ModelConfig) -> Option<&'a str> {
        let others = other_names(config.model_type.as_deref()?, &layer.key.path);
        let found: Vec<&Weight<'a>> = others.iter().filter_map(|path| self.by_core.get(core_of(path))).flatten().collect();
        match found[..] {
            [only] => Some(only.name),
            _ => None,
        }
    }

    /// The input embedding, for an output layer that has no weight of its own because it is tied to it.
    pub(super) fn tied(&self, layer: &AdapterLayer, config: &ModelConfig) -> Option<&'a str> {
        // transformers ties them unless a class or its configuration says otherwise, and then the weight would be there.
        let may_be = config.ties_embeddings.unwrap_or(config.model_type.is_some());
        if !may_be || !OUTPUT_LAYERS.contains(&last_segment(&layer.key.path)) {
            return None;
        }
        let all = self.by_core.values().flatten();
        let embeddings = all.filter(|weight| INPUT_EMBEDDINGS.contains(&last_segment(weight.path)));
        let fitting: Vec<&str> = embeddings.map(|weight| weight.name).filter(|name| self.fits(layer, name)).collect();
        match fitting[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The tensor that a renamed path names, with or without `.weight`.
    fn named(&self, path: &str, renamed: &str) -> Result<&'a str> {
        let weight = format!("{renamed}.weight");
        let named = self.base.names().find(|name| *name == weight || *name == renamed);
        named.ok_or_else(|| match self.base.packing(renamed) {
            Some(kind) => self.packed(&weight, kind),
            None => {
                let tried = [format!("`{}`", escape(&weight)), format!("`{}`", escape(renamed))];
                self.not_found(path, &tried)
                    .with_hint(format!("{} names it so; its result has to be the name of a base tensor", field("map")))
            }
        })
    }

    /// The base tensor whose path differs from the layer's in the fewest prefixes.
    fn closest(&self, layer: &AdapterLayer, core: &str, same_core: &[Weight<'a>]) -> Result<Option<&'a str>> {
        let prefix = |full: &str| full[..full.len() - core.len()].to_owned();
        let distance = |weight: &Weight<'_>| prefix_distance(&prefix(&layer.key.path), &prefix(weight.path));
        let Some(least) = same_core.iter().map(distance).min() else { return Ok(None) };
        let nearest: Vec<&str> = same_core.iter().filter(|weight| distance(weight) == least).map(|weight| weight.name).collect();
        self.only_one(layer, &nearest).map(Some)
    }

    /// The only candidate, or the only one whose shape is the layer's.
    fn only_one(&self, layer: &AdapterLayer, candidates: &[&'a str]) -> Result<&'a str> {
        if let [only] = candidates {
            return Ok(only);
        }
        let fitting: Vec<&str> = candidates.iter().copied().filter(|name| self.fits(layer, name)).collect();
        match fitting[..] {
            [only] => Ok(only),
            _ => Err(self.ambiguous(&layer.key.path, candidates)),
        }
    }

    fn fits(&self, layer: &AdapterLayer, name: &str) -> bool {
        let (straight, turned) = ([layer.d_out, layer.d_in], [layer.d_in, layer.d_out]);
        let shape = self.base.info(name).and_then(|info| matrix_shape(self.base.weights_file(), name, info).ok());
        shape.is_some_and(|shape| match layer.w0_stored {
            StoredW0::Straight => shape == straight,
            StoredW0::Transposed => shape == turned,
            StoredW0::OfExperts | StoredW0::Configured(_) => shape == straight || shape == turned,
        })
    }

    fn packed(&self, name: &str, kind: &str) -> Error {
        let what = format!("base weight `{}` needs full precision", escape(name));
        Error::mismatch(self.base.weights_file(), what, "F32, F16, BF16 or F64", kind)
            .with_hint(format!("give the unquantised base model with {}", field("base")))
    }

    fn ambiguous(&self, path: &str, candidates: &[&str]) -> Error {
        let names = candidates.iter().map(|name| (*name).to_owned()).collect();
        let what = format!("base weight of `{}` is ambiguous", escape(path));
        Error::mismatch(self.base.weights_file(), what, "one candidate", sample(names, 20))
            .with_hint(format!("say which with {} FROM=TO", field("map")))
    }

    fn not_found(&self, path: &str, tried: &[String]) -> Error {
        let last = dotted_suffixes(path).next().unwrap_or(path);
        let ending = format!("{last}.weight");
        let mut alike: Vec<String> = self.base.names().filter(|name| name.ends_with(&ending)).map(str::to_owned).collect();
        if alike.is_empty() {
            alike = self.base.names().map(str::to_owned).collect();
        }
        let found = if alike.is_empty() { "no tensor at all".to_owned() } else { format!("only {}", sample(alike, 5)) };
        let what = format!("base weight of `{}` is not there", escape(path));
        let shown: Vec<&str> = tried.iter().take(12).map(String::as_str).collect();
        Error::mismatch(self.base.weights_file(), what, format!("one of {}", shown.join(", ")), found)
    }
}

/// A path without the known prefixes it starts with; the last part always stays.
fn core_of(path: &str) -> &str {
    let mut rest = path;
    while let Some((first, inner)) = rest.split_once('.') {
        if !is_prefix(first) && !OUTER_NAMES.contains(&first) {
            break;
        }
        rest = inner;
    }
    rest
}

/// How many prefixes must be stripped and added to come from one to the other: all but those they share at the end or start.
fn prefix_distance(from: &str, to: &str) -> usize {
    let parts = |text: &str| text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (from, to) = (parts(from), parts(to));
    let at_end = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let at_start = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    from.len() + to.len() - 2 * at_end.max(at_start)
}

/// The suffixes of a layer's path that may identify it, longest first: with the layer index and its container, or, without an
/// index, with two parts.
fn suffixes_with_layer(layer: &AdapterLayer) -> Vec<&str> {
    let path = layer.key.path.as_str();
    let parts = path.split('.').count();
    let shortest = match layer.key.module_type.split('.').position(|part| part.ends_with('*')) {
        // A path of blocks has the container in it.
        Some(at) if layer.layer.as_ref().is_none_or(|layer| layer.index().is_none()) => parts - at,
        Some(at) => (parts - at + 1).min(parts),
        None => parts.min(2),
    };
    let mut suffixes: Vec<&str> = dotted_suffixes(path).skip(shortest.saturating_sub(1)).collect();
    suffixes.reverse();
    suffixes
}

/// Parts of a model that hold modules of the same names, by what they are called.
const PLACES: [(&str, &str); 11] = [
    ("encoder", "encoder"),
    ("decoder", "decoder"),
    ("text_model", "text"),
    ("text_encoder", "text"),
    ("language_model", "text"),
    ("vision_model", "vision"),
    ("vision_tower", "vision"),
    ("vision_encoder", "vision"),
    ("visual", "vision"),
    ("audio_model", "audio"),
    ("audio_tower", "audio"),
];

/// Whether two heads of paths name different parts of a model: then what follows is not the same module, though it has the same name.
fn elsewhere(one: &str, other: &str) -> bool {
    let place = |head: &str, names: &[&str]| {
        head.split('.')
            .filter_map(|part| PLACES.iter().find(|(word, _)| *word == part))
            .map(|(_, p)| *p)
            .rfind(|p| names.contains(p))
    };
    [&["encoder", "decoder"][..], &["text", "vision", "audio"]]
        .iter()
        .any(|names| matches!((place(one, names), place(other, names)), (Some(one), Some(other)) if one != other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_counted_where_they_differ() {
        for (from, to, distance) in [
            ("", "", 0),
            ("bert.", "", 1),
            ("bert.", "roberta.", 2),
            ("model.", "model.language_model.", 1),
            ("model.", "base_model.model.", 1),
        ] {
            assert_eq!(prefix_distance(from, to), distance, "{from} {to}");
        }
        assert_eq!(core_of("model.language_model.layers.0"), "layers.0");
        assert_eq!(core_of("model"), "model");
    }

    #[test]
    fn parts_of_a_model_are_told_apart() {
        for (one, other, differ) in [
            ("decoder.", "encoder.", true),
            ("model.decoder.", "decoder.", false),
            ("encoder.", "", false),
            ("vision_tower.vision_model.encoder.", "visual.", false),
            ("vision_model.encoder.", "text_model.encoder.", true),
            ("language_model.", "model.visual.", true),
            ("x.", "encoder.", false),
        ] {
            assert_eq!(elsewhere(one, other), differ, "{one} {other}");
            assert_eq!(elsewhere(other, one), differ);
        }
    }
}
