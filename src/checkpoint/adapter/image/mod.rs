//! LoRA files of image models, known by their tensors' names alone: no configuration comes with them, and any file name will do.
//!
//! One file adapts several models (a UNet or transformer, one or more text encoders); those that the given base does not have are skipped. Where the
//! names have no dots the base model has to say which module is meant: its own names are flattened the same way.
//!
//! Source: `networks/lora.py` of sd-scripts, `loaders/lora_conversion_utils.py` of Diffusers. s = α/r; α is a tensor beside the factors or in the header's
//! metadata, and else r.

mod alpha;
mod blocks;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

use self::alpha::{Told, read_alpha};
use self::names::{Parsed, Part, Place, folders_of};
use super::source::{FactorSource, FoundLayers, RawLayer, Scaling, StoredFactor, StoredW0, without_partner};
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::config::dora_warning;
use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::tensor::matrix_shape;
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::dotted_suffixes;
use crate::error::{Error, Result, escape, field, show_path};
use crate::record::InputRecord;

/// Other kinds of adapters in the same files, by how their tensors are called.
const OTHER_KINDS: [(&str, &str); 4] = [
    ("hada_", "LoHa (Hadamard products)"),
    ("lokr_", "LoKr (Kronecker products)"),
    ("lora_mid", "LoRA of convolutions by Tucker decomposition (lora_mid)"),
    ("oft_", "OFT"),
];
/// How the names of the models in a file of Diffusers begin, where the base is one of them.
const OF_THE_UNET: [&str; 3] = ["", "unet.", "model.diffusion_model."];
/// With which blocks of a UNet's begin.
const UNET_BLOCKS: [&str; 6] = ["down_blocks", "input_blocks", "mid_block", "middle_block", "output_blocks", "up_blocks"];

/// What such a file holds.
#[derive(Debug)]
pub(super) struct ImageLora {
    modules: Vec<NamedModule>,
    ignored_tensors: usize,
    warnings: Vec<String>,
    /// The α that were read.
    inputs: Vec<InputRecord>,
}

/// A module by the name that the file gives it.
#[derive(Debug)]
struct NamedModule {
    family: String,
    place: Place,
    /// The name as stored.
    key: String,
    down: String,
    up: String,
    scaling: Scaling,
}

/// The tensors of a module while they are collected.
#[derive(Default)]
struct ModuleTensors<'a> {
    key: &'a str,
    down: Option<&'a str>,
    up: Option<&'a str>,
    alpha: Option<&'a str>,
}

/// Whether the tensor names are of such a file. Names of base models are not: no model has modules of such names.
pub(super) fn is_image_lora(weights: &WeightsFile) -> bool {
    has_flat_names(weights) || (has_dotted_factors(weights) && !is_unmerged_model(weights))
}

/// Whether the modules' names have no dots, as in kohya's files: then they are read so even beside a configuration.
pub(super) fn has_flat_names(weights: &WeightsFile) -> bool {
    weights.names().any(|name| names::flat(name).is_some())
}

fn has_dotted_factors(weights: &WeightsFile) -> bool {
    weights.names().any(|name| names::dotted(name).is_some_and(|parsed| matches!(parsed.part, Part::Down | Part::Up)))
}

/// Whether a file holds a whole model with its adapter in it, as saving the PEFT model's `state_dict` gives.
pub(super) fn is_unmerged_model(weights: &WeightsFile) -> bool {
    weights.names().any(|name| name.contains(".base_layer."))
}

impl ImageLora {
    /// Sorts the tensor names by module, and reads the α.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another kind than LoRA, a factor without the other, and an unusable α.
    pub(super) fn find(weights: &WeightsFile) -> Result<Self> {
        let file = weights.path();
        let parse = if has_flat_names(weights) { names::flat } else { names::dotted };
        let mut modules: BTreeMap<(&str, Place), ModuleTensors<'_>> = BTreeMap::new();
        let mut found = Self { modules: Vec::new(), ignored_tensors: 0, warnings: Vec::new(), inputs: Vec::new() };
        let mut magnitudes = 0;
        for name in weights.names() {
            let Some(Parsed { family, place, key, part }) = parse(name) else {
                found.ignored_tensors += 1;
                continue;
            };
            if let Part::Other(rest) = part
                && let Some((_, kind)) = OTHER_KINDS.iter().find(|(start, _)| rest.starts_with(start))
            {
                let what = format!("tensor `{}`", escape(name));
                return Err(Error::mismatch(file, what, "lora_down and lora_up of a plain LoRA", *kind)
                    .with_hint("only updates s·B·A of linear modules and convolutions are analysed"));
            }
            let tensors = modules.entry((family, place)).or_default();
            let slot = match part {
                Part::Down => &mut tensors.down,
                Part::Up => &mut tensors.up,
                Part::Alpha => &mut tensors.alpha,
                Part::Magnitude | Part::Other(_) => {
                    magnitudes += usize::from(part == Part::Magnitude);
                    found.ignored_tensors += 1;
                    continue;
                }
            };
            if let Some(other) = slot {
                let both = format!("`{}` and `{}`", escape(other), escape(name));
                return Err(Error::mismatch(file, "two names for a tensor of one module", "one", both));
            }
            *slot = Some(name);
            if part != Part::Alpha || tensors.key.is_empty() {
                tensors.key = key;
            }
        }
        if magnitudes > 0 {
            found.warnings.push(dora_warning(Some(magnitudes)));
        }
        let told = Told::of(weights);
        for ((family, place), ModuleTensors { key, down, up, alpha }) in modules {
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
            let scaling = alpha.map_or_else(|| told.scaling(family, &place), Scaling::Alpha);
            found.modules.push(NamedModule { family: family.to_owned(), place, key: key.to_owned(), down, up, scaling });
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
    /// [`Error::Mismatch`] if it has none.
    pub(super) fn layers(&self, weights: &WeightsFile, base: &BaseModel) -> Result<FoundLayers> {
        let paths = BasePaths::of(base);
        let mut found = self.without_layers();
        let families: BTreeSet<&str> = self.modules.iter().map(|module| module.family.as_str()).collect();
        let is_there = |family: &&str| self.members(family).any(|module| !paths.candidates(module).is_empty());
        // Two text encoders have modules of the same names: the sizes say which of them the base is.
        let fits = |family: &&str| {
            self.members(family).any(|module| paths.candidates(module).iter().any(|path| module.fits(weights, base, path)))
        };
        let fitting: Vec<&str> = families.iter().copied().filter(fits).collect();
        // Where nothing fits, what has the names is said to have other sizes.
        let taken = if fitting.is_empty() { families.iter().copied().filter(is_there).collect() } else { fitting };
        let mut skipped = Vec::new();
        for family in families {
            if taken.contains(&family) {
                for module in self.members(family) {
                    match paths.path_of(module, weights) {
                        Ok(path) => found.layers.push(module.layer(path.to_owned())),
                        Err(error) => {
                            found.named_elsewhere.extend([module.down.clone(), module.up.clone()]);
                            found.unusable.push((module.key.clone(), error));
                        }
                    }
                }
                continue;
            }
            let count = self.members(family).count();
            let what = if family.is_empty() { String::new() } else { format!(" `{family}*`") };
            found.warnings.push(format!("{count} modules{what} are skipped: this base model does not have them"));
            found.named_elsewhere.extend(self.members(family).flat_map(|module| [module.down.clone(), module.up.clone()]));
            skipped.extend(self.members(family));
        }
        if found.layers.is_empty() {
            let keys: Vec<String> = skipped.iter().map(|module| module.key.clone()).collect();
            let what = format!("no module is one of {}", show_path(base.path()));
            let (expected, names) = (sample(keys, 3), sample(base.names().map(str::to_owned).collect(), 3));
            let given = field("base");
            return Err(Error::mismatch(weights.path(), what, expected, format!("only {names}")).with_hint(format!(
                "give the model that was adapted with {given}, as in {given} MODEL/unet or {given} MODEL/text_encoder, or the folder of a pipeline"
            )));
        }
        Ok(found)
    }

    /// The layers as the file itself names them, for a look at it without a base: numbers in names without dots are taken for those of blocks.
    pub(super) fn layers_by_name(&self) -> FoundLayers {
        let mut found = self.without_layers();
        found.layers = self.modules.iter().map(|module| module.layer(module.readable())).collect();
        found
    }

    fn members<'s>(&'s self, family: &'s str) -> impl Iterator<Item = &'s NamedModule> {
        self.modules.iter().filter(move |module| module.family == family)
    }

    fn without_layers(&self) -> FoundLayers {
        FoundLayers { ignored_tensors: self.ignored_tensors, warnings: self.warnings.clone(), ..FoundLayers::default() }
    }
}

impl NamedModule {
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

    fn layer(&self, path: String) -> RawLayer {
        RawLayer {
            path,
            adapter_key: self.key.clone(),
            source: FactorSource::Stored { a: StoredFactor::plain(&self.down), b: StoredFactor::plain(&self.up), e: None },
            scaling: self.scaling,
            w0_stored: StoredW0::Straight,
        }
    }

    /// The module's name for people, with the family in front.
    fn readable(&self) -> String {
        let flat = match &self.place {
            Place::Dotted(path) => return path.clone(),
            Place::Flat(flat) => flat,
        };
        let mut path = self.family.trim_end_matches('_').to_owned();
        let mut after_number = true;
        for part in flat.split('_').filter(|part| !part.is_empty()) {
            let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
            path.push(if is_number || after_number { '.' } else { '_' });
            path.push_str(part);
            after_number = is_number;
        }
        path
    }
}

/// The paths of the base's matrices and convolutions, by all that a file may call them.
struct BasePaths<'a> {
    base: &'a BaseModel,
    paths: Vec<&'a str>,
    /// Names, whole, and the path that each is of.
    names: Vec<(String, usize)>,
    /// The names by the hash of what they, and what follows a dot in them, are without dots: the texts themselves would be many times the names.
    by_flat: HashMap<u64, Vec<usize>>,
}

impl<'a> BasePaths<'a> {
    fn of(base: &'a BaseModel) -> Self {
        let weights = base.names().filter(|name| base.info(name).is_some_and(|info| info.shape.len() > 1));
        let mut found = Self {
            base,
            paths: weights.filter_map(|name| name.strip_suffix(".weight")).collect(),
            names: Vec::new(),
            by_flat: HashMap::new(),
        };
        for (at, path) in found.paths.iter().enumerate() {
            let others = other_names(path);
            found.names.extend(std::iter::once((*path).to_owned()).chain(others).map(|name| (name, at)));
        }
        for (at, (name, _)) in found.names.iter().enumerate() {
            for suffix in dotted_suffixes(name) {
                found.by_flat.entry(hash_without_dots(suffix)).or_default().push(at);
            }
        }
        found
    }

    /// The base's modules that a name may mean: the whole path, or else what follows a dot in it (whole checkpoints of image models put
    /// `model.diffusion_model.` before the UNet's names). A dotted name may begin with the model's.
    fn candidates(&self, module: &NamedModule) -> Vec<&'a str> {
        match &module.place {
            Place::Flat(flat) => self.named(flat, None, folders_of(&module.family)),
            Place::Dotted(path) => {
                let parts = path.split('.').count();
                let mut tails: Vec<&str> = dotted_suffixes(path).collect();
                tails.reverse();
                // What a block is in is never dropped.
                let first_number = path.split('.').position(|part| part.parse::<u32>().is_ok()).unwrap_or(parts);
                let kept = first_number.saturating_sub(1).min(parts.saturating_sub(2)) + 1;
                tails
                    .into_iter()
                    .take(kept)
                    .map(|tail| self.named(tail, Some(tail), None))
                    .find(|found| !found.is_empty())
                    .unwrap_or_default()
            }
        }
    }

    /// The paths with this name without dots; with its dots, if they are known, and in these folders of a pipeline.
    fn named(&self, flat: &str, dotted: Option<&str>, folders: Option<&[&str]>) -> Vec<&'a str> {
        let is_in = |path: &str| match folders.filter(|_| self.base.is_pipeline()) {
            None => true,
            Some(folders) => folders.iter().any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('.'))),
        };
        let ends_so = |name: &str| match dotted {
            Some(dotted) => name.ends_with(dotted),
            None => name.bytes().rev().zip(flat.bytes().rev()).all(|(one, other)| one == other || (one, other) == (b'.', b'_')),
        };
        let all = self.by_flat.get(&hash_without_dots(flat)).into_iter().flatten().map(|&at| &self.names[at]);
        let all: Vec<_> = all.filter(|(name, at)| ends_so(name) && is_in(self.paths[*at])).collect();
        let whole: Vec<_> = all.iter().copied().filter(|(name, _)| name.len() == flat.len()).collect();
        let found: BTreeSet<usize> = if whole.is_empty() { &all } else { &whole }.iter().map(|(_, at)| *at).collect();
        found.into_iter().map(|at| self.paths[at]).collect()
    }

    /// The one path that a module is of.
    fn path_of(&self, module: &NamedModule, weights: &WeightsFile) -> Result<&'a str> {
        let of = show_path(self.base.path());
        let own = match &module.place {
            Place::Flat(own) | Place::Dotted(own) => own,
        };
        match self.candidates(module)[..] {
            [path] => Ok(path),
            [] => {
                let alike = own.rsplit_once(['_', '.']).map_or(own.as_str(), |(_, last)| last);
                let alike: Vec<String> =
                    self.paths.iter().filter(|path| path.ends_with(alike)).map(|path| (*path).to_owned()).collect();
                let what = format!("module `{}` is not in {of}", escape(&module.key));
                let found = if alike.is_empty() { "none like it".to_owned() } else { format!("only {}", sample(alike, 5)) };
                let expected = match &module.place {
                    Place::Flat(flat) => format!("a weight whose path is `{}` without its dots", escape(flat)),
                    Place::Dotted(path) => format!("a weight whose path is, or ends in, `{}`", escape(path)),
                };
                Err(Error::mismatch(weights.path(), what, expected, found))
            }
            ref many => {
                let what = format!("module `{}` is ambiguous in {of}", escape(&module.key));
                let names = many.iter().map(|path| (*path).to_owned()).collect();
                Err(Error::mismatch(weights.path(), what, "one candidate", sample(names, 20)))
            }
        }
    }
}

fn hash_without_dots(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.bytes().for_each(|byte| hasher.write_u8(if byte == b'.' { b'_' } else { byte }));
    hasher.finish()
}

/// What a UNet's module is called in the other code.
fn other_names(path: &str) -> Vec<String> {
    let block = dotted_suffixes(path).find(|suffix| UNET_BLOCKS.iter().any(|word| suffix.split('.').next() == Some(word)));
    if let Some(block) = block {
        return blocks::other_names(block);
    }
    OF_THE_UNET.iter().filter_map(|before| path.strip_prefix(before)).flat_map(blocks::other_names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::generate::{self, f32_tensor};

    #[test]
    fn a_name_means_the_whole_path_or_what_follows_a_dot() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a.b_c", "a_b.c", "x.a.d", "y.z_d", "up.d", "m.down_blocks.1.attentions.0.q", "e.layers.0.q"];
        generate::good(dir.path());
        generate::base(dir.path(), &names.map(|name| f32_tensor(&format!("{name}.weight"), &[4, 4])));
        let base = BaseModel::open(&dir.path().join("base")).unwrap();
        let paths = BasePaths::of(&base);
        let candidates = |family: &str, place: Place| {
            let (family, key) = (family.to_owned(), String::new());
            let module = NamedModule { family, place, key, down: String::new(), up: String::new(), scaling: Scaling::Given(1.0) };
            paths.candidates(&module)
        };
        for (flat, found) in [
            ("a_b_c", &["a.b_c", "a_b.c"][..]),
            ("a_d", &["x.a.d"]),
            ("z_d", &["y.z_d"]),
            ("d", &["up.d", "x.a.d"]),
            ("p_d", &[]),
            ("input_blocks_4_1_q", &["m.down_blocks.1.attentions.0.q"]),
        ] {
            assert_eq!(candidates("lora_unet_", Place::Flat(flat.to_owned())), found, "{flat}");
        }
        for (dotted, found) in [
            ("unet.x.a.d", &["x.a.d"][..]),
            ("a.b.c", &[]),
            ("unet.down_blocks.1.attentions.0.q", &["m.down_blocks.1.attentions.0.q"]),
            ("diffusion_model.input_blocks.4.1.q", &["m.down_blocks.1.attentions.0.q"]),
            // Another block's number, or another model's layers, are not these.
            ("unet.down_blocks.2.attentions.0.q", &[]),
            ("layers.1.q", &[]),
        ] {
            assert_eq!(candidates("", Place::Dotted(dotted.to_owned())), found, "{dotted}");
        }
    }

    #[test]
    fn names_without_dots_are_made_readable() {
        let module = |flat: &str| NamedModule {
            family: "lora_unet_".to_owned(),
            place: Place::Flat(flat.to_owned()),
            key: String::new(),
            down: String::new(),
            up: String::new(),
            scaling: Scaling::Given(1.0),
        };
        let path = module("down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q").readable();
        assert_eq!(path, "lora_unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1_to_q");
        assert_eq!(module("x_to_out_0").readable(), "lora_unet.x_to_out.0");
    }
}
