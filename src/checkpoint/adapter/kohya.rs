//! LoRA files of kohya's sd-scripts, as image models have them: `lora_unet_..._attn1_to_q.lora_down.weight` (A), `.lora_up.weight` (B) and a
//! scalar `.alpha`.
//!
//! The dots of the module's path have become underscores, so the base model has to say which module is meant: its own names are flattened the
//! same way. One file adapts several models (a UNet, one or two text encoders); those that the given base does not have are skipped.
//!
//! Source: `networks/lora.py` of sd-scripts. s = α/r, and s = 1 where there is no α.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{FactorSource, FoundLayers, RawLayer, Scaling, StoredFactor, StoredW0, without_partner};
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::config::dora_warning;
use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::tensor::{matrix_shape, show_shape};
use crate::checkpoint::files::weights::WeightsFile;
use crate::error::{Error, Result, escape, field, show_path};
use crate::record::InputRecord;

/// The prefix of a module's name: the model it belongs to. The longer ones first.
const FAMILIES: [&str; 6] = ["lora_transformer_", "lora_unet_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_te_"];
/// Other kinds of adapters in the same files, by how their tensors are called.
const OTHER_KINDS: [(&str, &str); 4] = [
    ("hada_", "LoHa (Hadamard products)"),
    ("lokr_", "LoKr (Kronecker products)"),
    ("lora_mid", "LoRA of convolutions by Tucker decomposition (lora_mid)"),
    ("oft_", "OFT"),
];

/// What a file of kohya's holds.
#[derive(Debug)]
pub(super) struct Kohya {
    modules: Vec<FlatModule>,
    ignored_tensors: usize,
    warnings: Vec<String>,
    /// The α that were read.
    inputs: Vec<InputRecord>,
}

/// A module by its name without dots.
#[derive(Debug)]
struct FlatModule {
    family: &'static str,
    /// The name behind the family's.
    flat: String,
    /// The name as stored.
    key: String,
    down: String,
    up: String,
    alpha: Option<f64>,
}

/// The tensors of a module while they are collected.
#[derive(Default)]
struct ModuleTensors<'a> {
    down: Option<&'a str>,
    up: Option<&'a str>,
    alpha: Option<&'a str>,
}

/// The family of a tensor name and the module's name behind it, and what follows the first dot.
fn parse(name: &str) -> Option<(&'static str, &str, &str)> {
    let family = FAMILIES.iter().find(|family| name.starts_with(**family))?;
    let (module, rest) = name.split_once('.')?;
    Some((family, module.strip_prefix(family)?, rest))
}

/// Whether the tensor names are kohya's. ModuleTensors of base models are not: no model has modules of such names.
pub(super) fn is_kohya(weights: &WeightsFile) -> bool {
    weights.names().any(|name| parse(name).is_some())
}

impl Kohya {
    /// Sorts the tensor names by module, and reads the α.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another kind than LoRA, a factor without the other, and an unusable α.
    pub(super) fn find(weights: &WeightsFile) -> Result<Self> {
        let file = weights.path();
        let mut modules: BTreeMap<(&'static str, &str), ModuleTensors<'_>> = BTreeMap::new();
        let mut found = Self { modules: Vec::new(), ignored_tensors: 0, warnings: Vec::new(), inputs: Vec::new() };
        let mut magnitudes = 0;
        for name in weights.names() {
            let Some((family, flat, rest)) = parse(name) else {
                found.ignored_tensors += 1;
                continue;
            };
            if let Some((_, kind)) = OTHER_KINDS.iter().find(|(start, _)| rest.starts_with(start)) {
                let what = format!("tensor `{}`", escape(name));
                return Err(Error::mismatch(file, what, "lora_down and lora_up of a plain LoRA", *kind)
                    .with_hint("only updates s·B·A of linear modules and 1x1 convolutions are analysed"));
            }
            let names = modules.entry((family, flat)).or_default();
            match rest {
                // The others are PEFT's, as OneTrainer has them.
                "lora_down.weight" | "lora_A.weight" => names.down = Some(name),
                "lora_up.weight" | "lora_B.weight" => names.up = Some(name),
                "alpha" => names.alpha = Some(name),
                _ => {
                    magnitudes += usize::from(rest == "dora_scale");
                    found.ignored_tensors += 1;
                }
            }
        }
        if magnitudes > 0 {
            found.warnings.push(dora_warning(Some(magnitudes)));
        }
        for ((family, flat), ModuleTensors { down, up, alpha }) in modules {
            let key = format!("{family}{flat}");
            let (down, up) = match (down, up) {
                (Some(down), Some(up)) => (down.to_owned(), up.to_owned()),
                (Some(down), None) => return Err(without_partner(file, down, "lora_up.weight")),
                (None, Some(up)) => return Err(without_partner(file, up, "lora_down.weight")),
                // Biases and norms that were trained in full.
                (None, None) => {
                    found.ignored_tensors += usize::from(alpha.is_some());
                    continue;
                }
            };
            let alpha = alpha.map(|name| read_alpha(weights, name, &mut found.inputs)).transpose()?;
            found.modules.push(FlatModule { family, flat: flat.to_owned(), key, down, up, alpha });
        }
        Ok(found)
    }

    /// The records of the α that were read.
    pub(super) fn inputs(&self) -> &[InputRecord] {
        &self.inputs
    }

    /// The layers of the families that the base has.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it has none, or only a part of one, or more than one module that is called so without its dots.
    pub(super) fn layers(&self, weights: &WeightsFile, base: &BaseModel) -> Result<FoundLayers> {
        let paths = flat_paths(base);
        let mut found =
            FoundLayers { ignored_tensors: self.ignored_tensors, warnings: self.warnings.clone(), ..FoundLayers::default() };
        let families: BTreeSet<&str> = self.modules.iter().map(|module| module.family).collect();
        let mut skipped = Vec::new();
        for family in families {
            let members: Vec<&FlatModule> = self.modules.iter().filter(|module| module.family == family).collect();
            let fits =
                |module: &&FlatModule| candidates(&paths, &module.flat).iter().any(|path| module.fits(weights, base, path));
            // Two text encoders have modules of the same names: the sizes say which of them the base is.
            if !members.iter().any(fits) {
                found
                    .warnings
                    .push(format!("{} modules `{family}*` are skipped: this base model does not have them", members.len()));
                skipped.push(members);
                continue;
            }
            for module in members {
                match module.layer(weights, base, &paths) {
                    Ok(layer) => found.layers.push(layer),
                    Err(error) => found.unusable.push((module.key.clone(), error)),
                }
            }
        }
        if found.layers.is_empty() {
            let keys: Vec<String> = skipped.iter().flatten().map(|module| module.key.clone()).collect();
            let what = format!("no module is one of {}", show_path(base.path()));
            let (expected, names) = (sample(keys, 3), sample(base.names().map(str::to_owned).collect(), 3));
            let given = field("base");
            return Err(Error::mismatch(weights.path(), what, expected, format!("only {names}")).with_hint(format!(
                "give the model that was adapted with {given}, as in {given} MODEL/unet or {given} MODEL/text_encoder"
            )));
        }
        Ok(found)
    }
}

impl FlatModule {
    /// Whether the factors have the sizes of a base weight.
    fn fits(&self, weights: &WeightsFile, base: &BaseModel, path: &str) -> bool {
        let shape = |file: &Path, name: &str, info| matrix_shape(file, name, info?).ok();
        let tensor = format!("{path}.weight");
        let (a, b) = (
            shape(weights.path(), &self.down, weights.info(&self.down)),
            shape(weights.path(), &self.up, weights.info(&self.up)),
        );
        match (a, b, shape(base.path(), &tensor, base.info(&tensor))) {
            (Some([_, d_in]), Some([d_out, _]), Some(w0)) => w0 == [d_out, d_in],
            _ => false,
        }
    }

    /// The layer of the base that the module is.
    fn layer(&self, weights: &WeightsFile, base: &BaseModel, paths: &[FlatPath<'_>]) -> Result<RawLayer> {
        let path = match candidates(paths, &self.flat)[..] {
            [path] => path,
            [] => {
                let alike = self.flat.rsplit_once('_').map_or(self.flat.as_str(), |(_, last)| last);
                let alike: Vec<String> =
                    paths.iter().filter(|known| known.flat.ends_with(alike)).map(|known| known.path.to_owned()).collect();
                let what = format!("module `{}` is not in {}", escape(&self.key), show_path(base.path()));
                let found = if alike.is_empty() { "none like it".to_owned() } else { format!("only {}", sample(alike, 5)) };
                let expected = format!("a weight whose path is `{}` without its dots", escape(&self.flat));
                return Err(Error::mismatch(weights.path(), what, expected, found));
            }
            ref many => {
                let what = format!("module `{}` is ambiguous in {}", escape(&self.key), show_path(base.path()));
                let names = many.iter().map(|path| (*path).to_owned()).collect();
                return Err(Error::mismatch(weights.path(), what, "one candidate", sample(names, 20)));
            }
        };
        Ok(RawLayer {
            path: path.to_owned(),
            adapter_key: self.key.clone(),
            source: FactorSource::Stored { a: StoredFactor::plain(&self.down), b: StoredFactor::plain(&self.up), e: None },
            scaling: self.alpha.map_or(Scaling::Given(1.0), Scaling::Alpha),
            w0_stored: StoredW0::Straight,
        })
    }
}

/// A base weight's path, and the same without its dots.
struct FlatPath<'a> {
    path: &'a str,
    flat: String,
}

/// The paths of the base's matrices and convolutions.
fn flat_paths(base: &BaseModel) -> Vec<FlatPath<'_>> {
    let weights = base.names().filter(|name| base.info(name).is_some_and(|info| info.shape.len() > 1));
    let paths = weights.filter_map(|name| name.strip_suffix(".weight"));
    paths.map(|path| FlatPath { path, flat: path.replace('.', "_") }).collect()
}

/// The base's modules that a name without dots may mean: the whole path, or else what follows a dot in it (whole checkpoints of image models
/// put `model.diffusion_model.` before the UNet's names).
fn candidates<'a>(paths: &[FlatPath<'a>], flat: &str) -> Vec<&'a str> {
    let exact: Vec<&str> = paths.iter().filter(|known| known.flat == flat).map(|known| known.path).collect();
    if !exact.is_empty() {
        return exact;
    }
    // A dot and an underscore have one byte each, so places in both are the same.
    let ends = |known: &&FlatPath<'_>| {
        known
            .flat
            .strip_suffix(flat)
            .is_some_and(|before| known.path.get(..before.len()).is_some_and(|start| start.ends_with('.')))
    };
    paths.iter().filter(ends).map(|known| known.path).collect()
}

/// Reads an α, a scalar.
fn read_alpha(weights: &WeightsFile, name: &str, inputs: &mut Vec<InputRecord>) -> Result<f64> {
    let what = || format!("tensor `{}`", escape(name));
    let Some(info) = weights.info(name) else { unreachable!("the name is one of the file's") };
    if info.shape.iter().any(|size| *size != 1) {
        return Err(Error::mismatch(weights.path(), what(), "one number", show_shape(&info.shape)));
    }
    let stored = weights.read(name)?;
    let alpha = stored.number()?;
    if alpha == 0.0 {
        return Err(Error::mismatch(weights.path(), what(), "a number other than 0", "0"));
    }
    inputs.push(stored.record());
    Ok(alpha)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_by_family() {
        for (name, parsed) in [
            ("lora_unet_a_b.lora_down.weight", Some(("lora_unet_", "a_b", "lora_down.weight"))),
            ("lora_te_text_x.alpha", Some(("lora_te_", "text_x", "alpha"))),
            ("lora_te1_x.alpha", Some(("lora_te1_", "x", "alpha"))),
            ("lora_te2_x.alpha", Some(("lora_te2_", "x", "alpha"))),
            ("lora_te3_x.alpha", Some(("lora_te3_", "x", "alpha"))),
            ("lora_transformer_x.lora_up.weight", Some(("lora_transformer_", "x", "lora_up.weight"))),
            ("lora_unet", None),
            ("model.lora_unet_x.alpha", None),
            ("base_model.model.q.lora_A.weight", None),
        ] {
            assert_eq!(parse(name), parsed, "{name}");
        }
    }

    #[test]
    fn a_flat_name_means_the_whole_path_or_what_follows_a_dot() {
        let names = ["a.b_c", "a_b.c", "x.a.d", "y.z_d", "up.d"];
        let paths: Vec<FlatPath<'_>> = names.iter().map(|path| FlatPath { path, flat: path.replace('.', "_") }).collect();
        assert_eq!(candidates(&paths, "a_b_c"), ["a.b_c", "a_b.c"]);
        assert_eq!(candidates(&paths, "a_d"), ["x.a.d"]);
        assert_eq!(candidates(&paths, "z_d"), ["y.z_d"]);
        assert_eq!(candidates(&paths, "d"), ["x.a.d", "up.d"]);
        assert_eq!(candidates(&paths, "p_d"), Vec::<&str>::new());
    }
}
