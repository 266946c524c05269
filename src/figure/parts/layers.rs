//! How layers are written along axes: by their indices, or, where they are paths of blocks, by name where there is room and else by place.

use crate::terms::LayerId;

/// The numbers of the layers: their indices, or their places from 1 on where one of them is a path.
pub(crate) fn layer_numbers(layers: &[LayerId]) -> Vec<u32> {
    let indices: Option<Vec<u32>> = layers.iter().map(LayerId::index).collect();
    indices.unwrap_or_else(|| (1..).take(layers.len()).collect())
}

/// What the numbers are.
pub(crate) fn axis_name(layers: &[LayerId]) -> &'static str {
    if has_paths(layers) { "layer, by its place" } else { "layer" }
}

/// The names of layers one of which is a path, without the parts at the end that all have.
pub(crate) fn layer_names(layers: &[LayerId]) -> Option<Vec<String>> {
    if !has_paths(layers) {
        return None;
    }
    let names: Vec<String> = layers.iter().map(LayerId::to_string).collect();
    let first: Vec<&str> = names.first().map_or_else(Vec::new, |name| name.rsplit('.').collect());
    // The first part of a name always stays.
    let alike = |name: &String| {
        let parts: Vec<&str> = name.rsplit('.').collect();
        parts.iter().zip(&first).take_while(|(one, other)| one == other).count().min(parts.len() - 1)
    };
    let common = if names.len() > 1 { names.iter().map(alike).min().unwrap_or(0) } else { 0 };
    // A container's name without its number says nothing.
    let common =
        first.iter().take(common).rposition(|part| !part.bytes().all(|byte| byte.is_ascii_digit())).map_or(0, |at| at + 1);
    let short = |name: &String| {
        let kept = name.split('.').count() - common;
        name.split('.').take(kept).collect::<Vec<_>>().join(".")
    };
    Some(names.iter().map(short).collect())
}

fn has_paths(layers: &[LayerId]) -> bool {
    layers.iter().any(|layer| layer.index().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(names: &[&str]) -> Vec<LayerId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn indices_stay_and_paths_lose_what_all_have() {
        let numbered = layers(&["0", "3"]);
        assert_eq!((layer_numbers(&numbered), layer_names(&numbered), axis_name(&numbered)), (vec![0, 3], None, "layer"));
        let unet = layers(&["down_blocks.1.attentions.1.transformer_blocks.0", "mid_block.attentions.0.transformer_blocks.0"]);
        assert_eq!(layer_numbers(&unet), [1, 2]);
        assert_eq!(layer_names(&unet).unwrap(), ["down_blocks.1.attentions.1", "mid_block.attentions.0"]);
        let swin = layers(&["layers.0.blocks.1", "layers.2.blocks.1"]);
        assert_eq!(layer_names(&swin).unwrap(), ["layers.0", "layers.2"]);
        let alone = layers(&["layers.0.blocks.1"]);
        assert_eq!(layer_names(&alone).unwrap(), ["layers.0.blocks.1"]);
        let nested = layers(&["block.0.1", "block.1.1"]);
        assert_eq!(layer_names(&nested).unwrap(), ["block.0.1", "block.1.1"]);
    }
}
