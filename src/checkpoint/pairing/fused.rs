//! Fused projections split: the rows of W0, and of B, that belong to queries, keys and values; A belongs to all of them.
//!
//! Only layouts that put the queries' rows first, then the keys', then the values', can be split so. What a layout is
//! follows from the module's name and the base's `config.json`, never from the values.

use std::path::Path;

use super::paired::{Block, PairedLayer, PairedModule};
use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::base::model_config::{AttentionHeads, ModelConfig};
use crate::checkpoint::keys::last_segment;
use crate::error::{Error, Result, escape, field};

/// Modules whose rows are `[q|k|v]`: GPT-2 and Qwen; timm and ViT; MPT and ModernBERT; Baichuan.
const IN_THIRDS: [&str; 4] = ["c_attn", "qkv", "Wqkv", "W_pack"];
/// Modules whose rows are `[q|k|v]` with as many heads each as `config.json` says: Phi-3.
const BY_HEADS: [&str; 1] = ["qkv_proj"];
/// Modules whose rows alternate between queries, keys and values, head by head or group by group.
const INTERLEAVED: [(&str, &str); 2] = [("query_key_value", "Falcon, GPT-NeoX, BLOOM and ChatGLM"), ("wqkv", "InternLM2")];
/// Models in which a name above means an interleaved layout.
const INTERLEAVED_MODELS: [(&str, &str); 2] = [("codegen", "CodeGen"), ("gpt_bigcode", "GPT-BigCode")];
/// The parts in the order of their rows.
const PARTS: [&str; 3] = ["q", "k", "v"];

/// Splits the fused modules and leaves the others as they are.
///
/// # Errors
/// [`Error::Mismatch`] for a layout that is interleaved or not known.
pub(super) fn split_qkv(adapter: &Adapter, base: &BaseModel, modules: Vec<PairedModule>) -> Result<Vec<PairedModule>> {
    let mut config = None;
    let mut out = Vec::with_capacity(modules.len());
    for module in modules {
        let fused = |layer: &PairedLayer| is_fused(last_segment(&layer.adapter_layer.key.path));
        if !module.layers.iter().any(fused) {
            out.push(module);
            continue;
        }
        if config.is_none() {
            config = Some(ModelConfig::beside(base.weights_file())?);
        }
        let layout = FusedLayout { file: adapter.weights_file(), config: config.as_ref().and_then(Option::as_ref) };
        let mut parts = PARTS.map(|part| PairedModule { name: format!("{}.{part}", module.name), layers: Vec::new() });
        for layer in module.layers {
            let sizes = layout.sizes(&layer)?;
            let mut first = 0;
            for ((part, size), name) in parts.iter_mut().zip(sizes).zip(PARTS) {
                let block = Some(Block { name, first, rows_of_w0: layer.d_out, first_of_w0: first });
                part.layers.push(PairedLayer { block, d_out: size, ..layer.clone() });
                first += size;
            }
        }
        out.extend(parts);
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn is_fused(name: &str) -> bool {
    IN_THIRDS.contains(&name) || BY_HEADS.contains(&name) || INTERLEAVED.iter().any(|(fused, _)| *fused == name)
}

/// What is known about the layout of a model's fused weights.
struct FusedLayout<'a> {
    /// The adapter's file, for errors.
    file: &'a Path,
    config: Option<&'a ModelConfig>,
}

impl FusedLayout<'_> {
    /// The rows of queries, keys and values.
    fn sizes(&self, layer: &PairedLayer) -> Result<[usize; 3]> {
        let path = layer.adapter_layer.key.path.as_str();
        let name = last_segment(path);
        let model = self.config.and_then(|config| config.model_type.as_deref());
        let by_name = INTERLEAVED.iter().find(|(fused, _)| *fused == name).map(|(_, models)| *models);
        let by_model = INTERLEAVED_MODELS.iter().find(|(known, _)| Some(*known) == model).map(|(_, models)| *models);
        if let Some(models) = by_name.or(by_model) {
            let found = format!("the interleaved layout of {models}");
            return Err(self.refused(path, "rows of q, then k, then v", found));
        }
        if path.split('.').any(|part| part == "crossattention") {
            return Err(self.refused(path, "rows of q, then k, then v", "a cross-attention, which holds k and v alone"));
        }
        // A vision tower has other heads than the text model whose configuration this is.
        let seen = path.split('.').any(|part| part.starts_with("vision") || part == "visual");
        let heads = self.config.and_then(|config| config.heads).filter(|_| !seen);
        if let Some(sizes) = heads.map(AttentionHeads::rows).filter(|sizes| sizes.iter().sum::<usize>() == layer.d_out) {
            return Ok(sizes);
        }
        if IN_THIRDS.contains(&name) && layer.d_out == 3 * layer.d_in {
            return Ok([layer.d_in; 3]);
        }
        let found = format!("{} rows and {} columns", layer.d_out, layer.d_in);
        Err(match (self.config, heads) {
            (None, _) => {
                self.refused(path, "the model's config.json, which has the heads", format!("{found}, and no config.json"))
            }
            (Some(config), None) => {
                let what = "num_attention_heads and hidden_size (or head_dim) in the model's config.json";
                self.refused(path, what, format!("{found}, and a config.json without them"))
                    .with_hint(format!("the file is {}", crate::error::show_path(&config.path)))
            }
            (_, Some(heads)) => {
                let AttentionHeads { queries, keys, size } = heads;
                let expected = format!(
                    "{} rows, for {queries} heads of q and {keys} of k and v, {size} each",
                    heads.rows().iter().sum::<usize>()
                );
                self.refused(path, &expected, found)
            }
        })
    }

    fn refused(&self, path: &str, expected: &str, found: impl Into<String>) -> Error {
        Error::mismatch(self.file, format!("{} qkv: layout of `{}`", field("split"), escape(path)), expected, found)
    }
}

impl AttentionHeads {
    /// The rows of queries, keys and values.
    fn rows(self) -> [usize; 3] {
        [self.queries * self.size, self.keys * self.size, self.keys * self.size]
    }
}
