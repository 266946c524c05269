//! How the tensors of image models' LoRA files are called, by the program that wrote them.
//!
//! Flat names have no dots in the module's path: `lora_unet_down_blocks_0_attn_to_q.lora_down.weight` (sd-scripts, OneTrainer). Dotted names have:
//! `unet.down_blocks.0.attn.to_q.lora.down.weight` (Diffusers to 0.25), `transformer.blocks.0.attn.to_q.lora_A.weight` (Diffusers, fal, ai-toolkit),
//! `diffusion_model.blocks.0.q.lora_down.weight` (ComfyUI, musubi), `blocks.0.attn.processor.to_q_lora.down.weight` (Diffusers to 0.21), and
//! `double_blocks.0.processor.qkv_lora1.down.weight` (XLabs).

/// The prefix of a flat name: the model it belongs to, and the folders of it in a pipeline. The longer ones first.
const FLAT_FAMILIES: [(&str, &[&str]); 6] = [
    ("lora_transformer_", &["transformer"]),
    ("lora_unet_", &["unet", "transformer"]),
    ("lora_te1_", &["text_encoder"]),
    ("lora_te2_", &["text_encoder_2"]),
    ("lora_te3_", &["text_encoder_3"]),
    ("lora_te_", &["text_encoder"]),
];
/// The first part of a dotted name where it is the model.
const DOTTED_FAMILIES: [&str; 8] =
    ["diffusion_model", "prior", "text_encoder", "text_encoder_2", "text_encoder_3", "text_encoders", "transformer", "unet"];
/// What follows a module's path in the names of A and of B.
const FACTORS: [(&str, &str); 6] = [
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    ("lora_A", "lora_B"),
];
/// The same where factors are bare parameters, of flat names only.
const BARE_FACTORS: (&str, &str) = ("lora_down", "lora_up");
/// Magnitudes of DoRA.
const MAGNITUDES: [&str; 3] = ["dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight"];

/// A module's name as a file gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Without the family, with underscores in place of dots.
    Flat(String),
    /// With its dots, the family included.
    Dotted(String),
}

/// What a tensor is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'n> {
    /// A.
    Down,
    /// B.
    Up,
    /// α.
    Alpha,
    /// A magnitude of DoRA.
    Magnitude,
    /// Something else, by what follows the module's name.
    Other(&'n str),
}

/// A tensor's name, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed<'n> {
    /// The model that the module is of, as it is written in front of the name; empty where nothing says so.
    pub(super) family: &'n str,
    pub(super) place: Place,
    /// The module's name as stored.
    pub(super) key: &'n str,
    pub(super) part: Part<'n>,
}

/// The folders of a pipeline in which a family's model may be.
pub(super) fn folders_of(family: &str) -> Option<&'static [&'static str]> {
    FLAT_FAMILIES.iter().find(|(known, _)| *known == family).map(|(_, folders)| *folders)
}

/// Reads a flat name.
pub(super) fn flat(name: &str) -> Option<Parsed<'_>> {
    let (family, _) = FLAT_FAMILIES.iter().find(|(family, _)| name.starts_with(family))?;
    let (key, rest) = name.split_once('.')?;
    let part = match rest {
        "alpha" => Part::Alpha,
        _ if FACTORS.iter().any(|(down, _)| *down == rest) || rest == BARE_FACTORS.0 => Part::Down,
        _ if FACTORS.iter().any(|(_, up)| *up == rest) || rest == BARE_FACTORS.1 => Part::Up,
        _ if MAGNITUDES.contains(&rest) => Part::Magnitude,
        _ => Part::Other(rest),
    };
    Some(Parsed { family, place: Place::Flat(key.strip_prefix(family)?.to_owned()), key, part })
}

/// Reads a dotted name; none for one that is of no update.
pub(super) fn dotted(name: &str) -> Option<Parsed<'_>> {
    let (key, path, part) = factor(name)?;
    let path = path.strip_prefix("base_model.model.").map_or(path.clone(), str::to_owned);
    let first = key.split('.').next().unwrap_or(key);
    let family = DOTTED_FAMILIES.iter().find(|family| **family == first).map_or("", |family| &key[..family.len()]);
    Some(Parsed { family, place: Place::Dotted(path), key, part })
}

/// The module's name as stored, its path, and what the tensor is to it.
fn factor(name: &str) -> Option<(&str, String, Part<'_>)> {
    let before = |ending: &str| name.strip_suffix(ending).and_then(|before| before.strip_suffix('.'));
    let plain = |part: Part<'static>| move |key: &'_ str| (key.len(), part);
    let found =
        FACTORS.iter().find_map(|(down, up)| before(down).map(plain(Part::Down)).or_else(|| before(up).map(plain(Part::Up))));
    let found = found.or_else(|| before("alpha").map(plain(Part::Alpha)));
    let found = found.or_else(|| MAGNITUDES.iter().find_map(|ending| before(ending)).map(plain(Part::Magnitude)));
    if let Some((length, part)) = found {
        let key = &name[..length];
        // The α of a factor that is a module of its own.
        let path = key.strip_suffix(".lora").unwrap_or(key);
        return Some((key, processed(path).unwrap_or_else(|| path.to_owned()), part));
    }
    let (key, part) = before("down.weight").map(|key| (key, Part::Down)).or_else(|| Some((before("up.weight")?, Part::Up)))?;
    Some((key, processed(key)?, part))
}

/// The path of the module that an attention processor adapts: `attn1.processor.to_q_lora`, `double_blocks.0.processor.qkv_lora1`.
fn processed(key: &str) -> Option<String> {
    let (head, own) = key.rsplit_once(".processor.")?;
    let (module, number) = own.rsplit_once("_lora")?;
    match (number, head.contains("double_blocks.")) {
        ("", _) if module == "to_out" => Some(format!("{head}.to_out.0")),
        ("", _) => Some(format!("{head}.{module}")),
        ("1", true) => Some(format!("{head}.img_attn.{module}")),
        ("2", true) => Some(format!("{head}.txt_attn.{module}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_names_are_read_by_family() {
        for (name, family, module, part) in [
            ("lora_unet_a_b.lora_down.weight", "lora_unet_", "a_b", Part::Down),
            ("lora_te_text_x.alpha", "lora_te_", "text_x", Part::Alpha),
            ("lora_te1_x.alpha", "lora_te1_", "x", Part::Alpha),
            ("lora_te3_x.lora_B.weight", "lora_te3_", "x", Part::Up),
            ("lora_transformer_x.lora_up.weight", "lora_transformer_", "x", Part::Up),
            ("lora_unet_x.lora_A", "lora_unet_", "x", Part::Down),
            ("lora_unet_x.lora_up", "lora_unet_", "x", Part::Up),
            ("lora_unet_x.dora_scale", "lora_unet_", "x", Part::Magnitude),
            ("lora_unet_x.lokr_w1", "lora_unet_", "x", Part::Other("lokr_w1")),
        ] {
            let key = name.split('.').next().unwrap();
            assert_eq!(flat(name), Some(Parsed { family, place: Place::Flat(module.to_owned()), key, part }), "{name}");
        }
        for name in ["lora_unet", "model.lora_unet_x.alpha", "base_model.model.q.lora_A.weight"] {
            assert_eq!(flat(name), None, "{name}");
        }
    }

    #[test]
    fn dotted_names_are_read_whoever_wrote_them() {
        for (name, family, path, part) in [
            ("unet.a.to_q.lora.down.weight", "unet", "unet.a.to_q", Part::Down),
            ("transformer.a.to_q.lora_B.weight", "transformer", "transformer.a.to_q", Part::Up),
            ("transformer.a.to_q.lora_A.default.weight", "transformer", "transformer.a.to_q", Part::Down),
            ("base_model.model.a.to_q.lora_A.weight", "", "a.to_q", Part::Down),
            ("diffusion_model.blocks.0.q.lora_down.weight", "diffusion_model", "diffusion_model.blocks.0.q", Part::Down),
            ("diffusion_model.blocks.0.q.alpha", "diffusion_model", "diffusion_model.blocks.0.q", Part::Alpha),
            ("text_encoder.l.q_proj.lora_linear_layer.up.weight", "text_encoder", "text_encoder.l.q_proj", Part::Up),
            ("a.attn1.processor.to_q_lora.down.weight", "", "a.attn1.to_q", Part::Down),
            ("unet.a.attn1.processor.to_out_lora.up.weight", "unet", "unet.a.attn1.to_out.0", Part::Up),
            ("double_blocks.3.processor.qkv_lora1.down.weight", "", "double_blocks.3.img_attn.qkv", Part::Down),
            ("double_blocks.3.processor.proj_lora2.up.weight", "", "double_blocks.3.txt_attn.proj", Part::Up),
            ("a.to_q.dora_scale", "", "a.to_q", Part::Magnitude),
        ] {
            let parsed = dotted(name).unwrap();
            assert_eq!((parsed.family, parsed.place, parsed.part), (family, Place::Dotted(path.to_owned()), part), "{name}");
        }
        for name in ["a.to_q.weight", "a.down.weight", "down_blocks.0.up.weight", "x.processor.qkv_lora1.down.weight"] {
            assert_eq!(dotted(name), None, "{name}");
        }
    }
}
