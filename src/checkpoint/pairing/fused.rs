//! Fused projections split: the rows of W0, and of B, that belong to queries, keys and values; A belongs to all of them.
//!
//! The rows are those of all queries, then of all keys, then of all values; or they alternate, head by head or group by group. Which of these follows from the
//! module's name and the base's `config.json`, never from the values.
//!
//! Source: the `modeling_*.py` of each model.

use std::path::Path;

use super::paired::{Block, PairedLayer, PairedModule, Rows};
use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::base::model_config::{AttentionHeads, FusedHeads, ModelConfig};
use crate::checkpoint::keys::last_segment;
use crate::error::{Error, Result, escape, field};

/// Modules whose rows are `[q|k|v]`: GPT-2 and Qwen; timm and ViT; MPT and ModernBERT; Baichuan.
const IN_THIRDS: [&str; 4] = ["c_attn", "qkv", "Wqkv", "W_pack"];
/// Modules whose rows are `[q|k|v]` with as many heads each as `config.json` says: Phi-3.
const BY_HEADS: [&str; 1] = ["qkv_proj"];
/// Modules whose layout the model alone says.
const BY_MODEL: [&str; 2] = ["query_key_value", "wqkv"];
/// Models that have a layout of their own, and which module has it.
const MODELS: [(&str, &str, Own); 12] = [
    ("RefinedWeb", "query_key_value", Own::Falcon),
    ("RefinedWebModel", "query_key_value", Own::Falcon),
    ("bloom", "query_key_value", Own::HeadByHead),
    ("chatglm", "query_key_value", Own::Glm),
    ("codegen", "qkv_proj", Own::NotRead),
    ("falcon", "query_key_value", Own::Falcon),
    ("gpt_bigcode", "c_attn", Own::StarCoder),
    ("gpt_neox", "query_key_value", Own::HeadByHead),
    ("gpt_neox_japanese", "query_key_value", Own::HeadByHead),
    ("internlm2", "wqkv", Own::GroupByGroup),
    ("mpt", "Wqkv", Own::Mpt),
    ("persimmon", "query_key_value", Own::HeadByHead),
];
/// The parts in the order of their rows.
const PARTS: [&str; 3] = ["q", "k", "v"];

/// How a model lays out the rows of its fused projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// One head's queries, keys and values after another's.
    HeadByHead,
    /// One group's queries, and its keys and values, after another's.
    GroupByGroup,
    /// Group by group in the new architecture; else all together with one head of keys and values; else head by head.
    Falcon,
    /// All together where heads share keys and values; else head by head.
    Glm,
    /// All together with one head of keys and values, unless `multi_query` is false; then head by head.
    StarCoder,
    /// All together, with fewer heads of keys and values where the file says so.
    Mpt,
    /// Divided among the devices that it was trained on.
    NotRead,
}

/// The rows of the three parts, and how many each has.
type Parts = [(Rows, usize); 3];

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
            for ((part, (rows, count)), name) in parts.iter_mut().zip(layout.parts(&layer)?).zip(PARTS) {
                let block = Some(Block { name, of_b: rows, of_w0: rows, rows_of_w0: layer.d_out });
                part.layers.push(PairedLayer { block, d_out: count, ..layer.clone() });
            }
        }
        out.extend(parts);
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn is_fused(name: &str) -> bool {
    [&IN_THIRDS[..], &BY_HEADS, &BY_MODEL].concat().contains(&name)
}

/// What is known about the layout of a model's fused weights.
struct FusedLayout<'a> {
    /// The adapter's file, for errors.
    file: &'a Path,
    config: Option<&'a ModelConfig>,
}

impl FusedLayout<'_> {
    /// The rows of queries, keys and values.
    fn parts(&self, layer: &PairedLayer) -> Result<Parts> {
        let path = layer.adapter_layer.key.path.as_str();
        let name = last_segment(path);
        let model = self.config.and_then(|config| config.model_type.as_deref());
        if let Some((_, _, own)) = MODELS.iter().find(|(known, module, _)| Some(*known) == model && *module == name) {
            return self.own_parts(*own, layer);
        }
        if BY_MODEL.contains(&name) {
            let found = model.map_or_else(|| "no model_type".to_owned(), |model| format!("the model_type {}", escape(model)));
            return Err(self.refused(path, "a model whose layout is known (bloom, chatglm, falcon, gpt_neox, internlm2)", found));
        }
        self.sizes(layer).map(together)
    }

    /// The rows in a model that has a layout of its own.
    fn own_parts(&self, own: Own, layer: &PairedLayer) -> Result<Parts> {
        let path = layer.adapter_layer.key.path.as_str();
        let heads = self.config.map_or_else(FusedHeads::default, |config| config.fused);
        let (Some(queries), Some(size)) = (heads.queries, heads.size) else {
            return Err(self.refused(path, "the heads in the model's config.json", "a config.json without them"));
        };
        let one = heads.multi_query == Some(true);
        let keys = heads.keys.unwrap_or(queries);
        let parts = match own {
            Own::HeadByHead => alternating(queries, 1, size),
            Own::GroupByGroup => alternating(keys, queries / keys, size),
            Own::Falcon if heads.grouped => alternating(keys, queries / keys, size),
            Own::Falcon if one => together([queries * size, size, size]),
            Own::Glm if one => together([queries * size, keys * size, keys * size]),
            Own::StarCoder if heads.multi_query != Some(false) => together([queries * size, size, size]),
            Own::Falcon | Own::Glm | Own::StarCoder => alternating(queries, 1, size),
            Own::Mpt => together([queries * size, keys * size, keys * size]),
            Own::NotRead => {
                return Err(self.refused(
                    path,
                    "rows of q, k and v",
                    "the layout of CodeGen, by the devices that it was trained on",
                ));
            }
        };
        let rows: usize = parts.iter().map(|(_, count)| count).sum();
        if rows != layer.d_out {
            let expected = format!("{rows} rows, for {queries} heads of q, as its config.json has them");
            return Err(self.refused(path, &expected, format!("{} rows", layer.d_out)));
        }
        Ok(parts)
    }

    /// How many rows queries, keys and values have where they are all together.
    fn sizes(&self, layer: &PairedLayer) -> Result<[usize; 3]> {
        let path = layer.adapter_layer.key.path.as_str();
        let name = last_segment(path);
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

/// All queries, then all keys, then all values.
fn together([queries, keys, values]: [usize; 3]) -> Parts {
    [
        (Rows::together(0, queries), queries),
        (Rows::together(queries, keys), keys),
        (Rows::together(queries + keys, values), values),
    ]
}

/// Groups of some heads of queries and one each of keys and values.
fn alternating(groups: usize, queries: usize, size: usize) -> Parts {
    let period = (queries + 2) * size;
    let rows = |first: usize, run: usize| (Rows { first, run: run.max(1), period }, groups * run);
    [rows(0, queries * size), rows(queries * size, size), rows((queries + 1) * size, size)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_together_or_alternate() {
        let rows = |(rows, count): (Rows, usize)| (0..count).map(|row| rows.at(row)).collect::<Vec<_>>();
        assert_eq!(together([4, 2, 2]).map(rows), [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7]]);
        // Two groups of two heads of queries, each head of two rows.
        let [q, k, v] = alternating(2, 2, 2).map(rows);
        assert_eq!(q, [0, 1, 2, 3, 8, 9, 10, 11]);
        assert_eq!((k, v), (vec![4, 5, 12, 13], vec![6, 7, 14, 15]));
    }
}
