//! What the blocks of a Stable Diffusion UNet are called in the original code and by Diffusers: files and models may be in either.
//!
//! Source: `scripts/convert_diffusers_to_original_sdxl.py` of Diffusers.

/// Blocks of a stage in the encoder; the decoder has one more.
const DOWN: usize = 3;

/// More stages and blocks than any UNet has.
const MOST: usize = 1000;

/// Parts of a residual block: by Diffusers, in the original code.
const RESIDUAL: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
];
/// What is outside of all blocks.
const OUTSIDE: [(&str, &str); 7] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_norm_out", "out.0"),
];

/// The other names of a UNet's module, given by either; none for a path that is of no such block.
pub(super) fn other_names(path: &str) -> Vec<String> {
    for (diffusers, original) in OUTSIDE {
        for (from, to) in [(diffusers, original), (original, diffusers)] {
            if path == from {
                return vec![to.to_owned()];
            }
        }
    }
    let parts: Vec<&str> = path.split('.').collect();
    let number = |at: usize| parts.get(at).and_then(|part| part.parse::<usize>().ok()).filter(|number| *number < MOST);
    let rest = |from: usize| parts.get(from..).unwrap_or_default().join(".");
    match parts[..] {
        ["down_blocks", _, kind @ ("attentions" | "resnets"), ..] => {
            let (Some(stage), Some(block)) = (number(1), number(3)) else { return Vec::new() };
            let n = DOWN * stage + block + 1;
            vec![format!("input_blocks.{n}.{}", within(kind, &rest(4)))]
        }
        ["up_blocks", _, kind @ ("attentions" | "resnets"), ..] => {
            let (Some(stage), Some(block)) = (number(1), number(3)) else { return Vec::new() };
            vec![format!("output_blocks.{}.{}", DOWN * stage + block, within(kind, &rest(4)))]
        }
        ["mid_block", "attentions", "0", ..] => vec![format!("middle_block.1.{}", rest(3))],
        ["mid_block", "resnets", block @ ("0" | "1"), ..] => {
            vec![format!("middle_block.{}.{}", if block == "0" { 0 } else { 2 }, residual(&rest(3), false))]
        }
        ["down_blocks", _, "downsamplers", "0", "conv", ..] => {
            number(1).map(|stage| format!("input_blocks.{}.0.op{}", DOWN * (stage + 1), tail(&rest(5)))).into_iter().collect()
        }
        // After the attention where the stage has one.
        ["up_blocks", _, "upsamplers", "0", "conv", ..] => number(1).map_or_else(Vec::new, |stage| {
            [1, 2].map(|at| format!("output_blocks.{}.{at}.conv{}", DOWN * stage + DOWN - 1, tail(&rest(5)))).to_vec()
        }),
        ["input_blocks", _, "0", "op", ..] => {
            let stage = number(1).filter(|n| *n > 0 && n % DOWN == 0).map(|n| n / DOWN - 1);
            stage.map(|stage| format!("down_blocks.{stage}.downsamplers.0.conv{}", tail(&rest(4)))).into_iter().collect()
        }
        ["output_blocks", _, _, "conv", ..] => {
            number(1).map(|n| format!("up_blocks.{}.upsamplers.0.conv{}", n / DOWN, tail(&rest(4)))).into_iter().collect()
        }
        ["input_blocks", _, which @ ("0" | "1"), ..] => {
            let Some(n) = number(1).and_then(|n| n.checked_sub(1)) else { return Vec::new() };
            vec![format!("down_blocks.{}.{}", n / DOWN, block_of(which, n % DOWN, &rest(3)))]
        }
        ["output_blocks", _, which @ ("0" | "1"), ..] => {
            let Some(n) = number(1) else { return Vec::new() };
            vec![format!("up_blocks.{}.{}", n / DOWN, block_of(which, n % DOWN, &rest(3)))]
        }
        ["middle_block", "1", ..] => vec![format!("mid_block.attentions.0.{}", rest(2))],
        ["middle_block", block @ ("0" | "2"), ..] => {
            vec![format!("mid_block.resnets.{}.{}", if block == "0" { 0 } else { 1 }, residual(&rest(2), true))]
        }
        _ => Vec::new(),
    }
}

/// A part of a block in the original code.
fn within(kind: &str, rest: &str) -> String {
    if kind == "attentions" { format!("1.{rest}") } else { format!("0.{}", residual(rest, false)) }
}

/// A part of a block in Diffusers.
fn block_of(which: &str, block: usize, rest: &str) -> String {
    if which == "1" { format!("attentions.{block}.{rest}") } else { format!("resnets.{block}.{}", residual(rest, true)) }
}

/// A part of a residual block by its other name.
fn residual(rest: &str, is_original: bool) -> String {
    let names =
        RESIDUAL.iter().map(|&(diffusers, original)| if is_original { (original, diffusers) } else { (diffusers, original) });
    names.into_iter().find(|(from, _)| *from == rest).map_or(rest, |(_, to)| to).to_owned()
}

fn tail(rest: &str) -> String {
    if rest.is_empty() { String::new() } else { format!(".{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_names_of_either_code() {
        for (diffusers, original) in [
            ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "input_blocks.4.1.transformer_blocks.0.attn1.to_q"),
            ("down_blocks.2.attentions.1.proj_in", "input_blocks.8.1.proj_in"),
            ("up_blocks.0.attentions.2.proj_out", "output_blocks.2.1.proj_out"),
            ("up_blocks.3.attentions.1.proj_out", "output_blocks.10.1.proj_out"),
            ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
            ("mid_block.resnets.1.conv1", "middle_block.2.in_layers.2"),
            ("down_blocks.0.resnets.1.time_emb_proj", "input_blocks.2.0.emb_layers.1"),
            ("up_blocks.2.resnets.0.conv_shortcut", "output_blocks.6.0.skip_connection"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_2", "time_embed.2"),
        ] {
            assert_eq!(other_names(diffusers), [original]);
            assert_eq!(other_names(original), [diffusers]);
        }
        let upsampler = other_names("up_blocks.0.upsamplers.0.conv");
        assert_eq!(upsampler, ["output_blocks.2.1.conv", "output_blocks.2.2.conv"]);
        assert_eq!(other_names(&upsampler[1]), ["up_blocks.0.upsamplers.0.conv"]);
        for path in ["", "down_blocks", "down_blocks.x.attentions.0.q", "input_blocks.0.1.x", "encoder.layer.0.q"] {
            assert!(other_names(path).is_empty(), "{path}");
        }
    }
}
