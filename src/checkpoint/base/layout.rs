//! How the files of a model's weights are called in its directory.

use std::path::{Path, PathBuf};

use crate::checkpoint::files::disk::{listing, names_in};
use crate::error::{Error, Result, field};

/// The weights' file name in a model directory.
pub const MODEL_FILE: &str = "model.safetensors";
/// What else weights are called: in shards, by older versions, and by Diffusers. The first that is there is taken: in
/// the order of transformers, safetensors before pickles.
pub(super) const LAYOUTS: [&str; 7] = [
    MODEL_FILE,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
];
/// Weights that are not read, and what they are.
const OTHER_LAYOUTS: [(&str, &str); 3] =
    [("tf_model.h5", "weights of TensorFlow"), ("flax_model.msgpack", "weights of Flax"), ("model.onnx", "an ONNX graph")];

/// The file of weights in a model directory, or the index of several.
pub(super) fn weights_in(dir: &Path) -> Result<PathBuf> {
    let there = |name: &str| dir.join(name).symlink_metadata().is_ok();
    if let Some(name) = LAYOUTS.iter().find(|name| there(name)) {
        return Ok(dir.join(name));
    }
    let names = names_in(dir)?;
    if let Some(name) = variant_among(dir, &names)? {
        return Ok(dir.join(name));
    }
    if let Some((name, found)) = OTHER_LAYOUTS.iter().find(|(name, _)| there(name)) {
        return Err(Error::mismatch(&dir.join(name), "base model layout is not supported", format!("one {MODEL_FILE}"), *found)
            .with_hint("load the model with transformers and save it again as safetensors"));
    }
    // Image models are published as one file of any name.
    let mut files = names.iter().filter(|name| name.ends_with(".safetensors"));
    if let (Some(only), None) = (files.next(), files.next()) {
        return Ok(dir.join(only));
    }
    Err(Error::missing(dir, format!("has no model weights; expected {MODEL_FILE}, found {}", listing(dir))))
}

/// Weights of which only a variant was downloaded: one of the known names with one more part, as in `model.fp16.safetensors`.
fn variant_among<'n>(dir: &Path, names: &'n [String]) -> Result<Option<&'n str>> {
    let mut variants: Vec<(usize, &str)> =
        names.iter().filter_map(|name| Some((layout_of_variant(name)?, name.as_str()))).collect();
    variants.sort();
    let first = variants.first().map(|(layout, _)| *layout);
    variants.retain(|(layout, _)| Some(*layout) == first);
    match &variants[..] {
        [] | [_] => Ok(variants.pop().map(|(_, name)| name)),
        several => {
            let names: Vec<&str> = several.iter().map(|(_, name)| *name).collect();
            Err(Error::mismatch(dir, "several variants of the model's weights", "one of them", names.join(", "))
                .with_hint(format!("give one of the files with {}", field("base"))))
        }
    }
}

/// The layout that a file name is a variant of, by its place among the known ones.
fn layout_of_variant(name: &str) -> Option<usize> {
    let parts: Vec<&str> = name.split('.').collect();
    let without = |at: usize| [&parts[..at], &parts[at + 1..]].concat().join(".");
    (1..parts.len().saturating_sub(1)).find_map(|at| LAYOUTS.iter().position(|layout| *layout == without(at)))
}
