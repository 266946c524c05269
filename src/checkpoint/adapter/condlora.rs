//! CondLoRA checkpoints in the layout of its authors' code: for each module one Θ_A and one Θ_B, which all of its layers share.
//!
//! `query.linear_for_lora_A` holds Θ_A transposed, `[r, in]`. No tensor names a layer: which layers there are, the base model says.

use std::collections::BTreeMap;
use std::path::Path;

use super::source::{FactorSource, RawLayer, Scaling, StoredW0, without_partner};
use crate::checkpoint::base::BaseModel;
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::files::disk::sample;
use crate::checkpoint::files::tensor::{FloatType, matrix_shape, show_shape};
use crate::checkpoint::files::weights::WeightsFile;
use crate::checkpoint::keys::ModuleKey;
use crate::error::{Error, Result, escape, field};
use crate::terms::CondloraConvention;

/// What follows a module's name in the names of Θ_A and Θ_B.
const MARKERS: [&str; 2] = ["linear_for_lora_A", "linear_for_lora_B"];

/// Θ_A and Θ_B of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedModule {
    /// The module's name (`query`): its layers are the base weights whose path ends in it.
    pub name: String,
    /// The tensor that holds Θ_A, transposed.
    pub tensor_a: String,
    /// The tensor that holds Θ_B, transposed.
    pub tensor_b: String,
    /// The rank: columns of Θ_A and Θ_B.
    pub rank: usize,
    /// Rows of Θ_A.
    pub length_a: usize,
    /// Rows of Θ_B.
    pub length_b: usize,
}

/// What a CondLoRA checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CondLora {
    /// Its modules, sorted by name.
    pub modules: Vec<SharedModule>,
    /// Tensors that belong to none of them: the classifier and other weights that were trained in full.
    pub others: Vec<String>,
}

impl SharedModule {
    /// How many numbers were trained for it.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.rank * (self.length_a + self.length_b)
    }

    /// The shape (out, in) of the W0 that its Θ are for; none where the convention needs a square one and they are for no such.
    fn w0_shape(&self, convention: CondloraConvention) -> Option<[usize; 2]> {
        let square = self.length_a == self.length_b;
        (square || convention == CondloraConvention::General).then_some([self.length_a, self.length_b])
    }
}

impl CondLora {
    /// Reads what the tensor names and shapes say.
    ///
    /// # Errors
    /// [`Error::Mismatch`] without any Θ, for one without the other, and for shapes that are no pair `[r, ·]`.
    pub(super) fn find(weights: &WeightsFile) -> Result<Self> {
        let file = weights.path();
        let mut pairs: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
        let mut others = Vec::new();
        for name in weights.names() {
            let Some((module, which)) = parse(name) else {
                others.push(name.to_owned());
                continue;
            };
            let slot = &mut pairs.entry(module).or_default()[which];
            if let Some(other) = slot {
                let what = format!("two names for {} of module `{}`", MARKERS[which], escape(module));
                return Err(Error::mismatch(file, what, "one", format!("`{}` and `{}`", escape(other), escape(name))));
            }
            *slot = Some(name);
        }
        if pairs.is_empty() {
            let found = if others.is_empty() { "no tensor at all".to_owned() } else { sample(others, 5) };
            return Err(Error::mismatch(file, "no CondLoRA tensor in the file", "names like `MODULE.linear_for_lora_A`", found));
        }
        let modules = pairs.into_iter().map(|(module, pair)| shared_module(weights, module, pair)).collect::<Result<_>>()?;
        Ok(Self { modules, others })
    }

    /// The layers of all modules: the base weights whose path ends in the module's name.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a module without any, and for a base weight that its Θ do not fit.
    pub(super) fn layers(
        &self,
        weights: &WeightsFile,
        config: &AdapterConfig,
        base: &BaseModel,
        convention: CondloraConvention,
    ) -> Result<Vec<RawLayer>> {
        let mut layers = Vec::new();
        for module in &self.modules {
            let Some(shape) = module.w0_shape(convention) else {
                let found = format!("[{}, {}]", module.length_a, module.length_b);
                let what = format!("module `{}` in the convention `{convention}`", escape(&module.name));
                let error = Error::mismatch(weights.path(), what, "Θ_A and Θ_B of one length", found);
                return Err(error.with_hint("for weights that are not square the config needs condlora_convention `general`"));
            };
            let before = layers.len();
            for (path, tensor) in paths_of(base, &module.name) {
                if is_layer_left_out(config, path) {
                    continue;
                }
                check_w0(weights.path(), module, base, tensor, shape)?;
                layers.push(RawLayer {
                    path: path.to_owned(),
                    adapter_key: module.name.clone(),
                    source: FactorSource::Shared {
                        theta_a: module.tensor_a.clone(),
                        theta_b: module.tensor_b.clone(),
                        convention,
                    },
                    scaling: Scaling::Configured,
                    w0_stored: StoredW0::Configured(config.fan_in_fan_out),
                });
            }
            if layers.len() == before {
                return Err(no_layer(weights.path(), base, &module.name));
            }
        }
        Ok(layers)
    }
}

/// The module and which Θ (0 for A, 1 for B) a tensor name means.
fn parse(name: &str) -> Option<(&str, usize)> {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let (module, marker) = stem.rsplit_once('.')?;
    let which = MARKERS.iter().position(|known| *known == marker)?;
    let module = module.strip_prefix("base_model.model.").unwrap_or(module);
    Some((module, which))
}

/// Checks the shapes of Θ_A and Θ_B.
fn shared_module(weights: &WeightsFile, name: &str, pair: [Option<&str>; 2]) -> Result<SharedModule> {
    let file = weights.path();
    let (tensor_a, tensor_b) = match pair {
        [Some(a), Some(b)] => (a, b),
        [Some(alone), None] => return Err(without_partner(file, alone, MARKERS[1])),
        [None, Some(alone)] => return Err(without_partner(file, alone, MARKERS[0])),
        [None, None] => unreachable!("a pair is made for one of its names"),
    };
    let shape = |tensor: &str| {
        let info = weights.info(tensor).ok_or_else(|| Error::missing(file, format!("has no tensor `{}`", escape(tensor))))?;
        matrix_shape(file, tensor, info)
    };
    let ([rank, length_a], [rank_b, length_b]) = (shape(tensor_a)?, shape(tensor_b)?);
    if rank != rank_b || rank > length_a.min(length_b) {
        let what = format!("shapes of `{}` and `{}`", escape(tensor_a), escape(tensor_b));
        let found = format!("[{rank}, {length_a}] and [{rank_b}, {length_b}]");
        let error = Error::mismatch(file, what, "[r, in] and [r, in], r at most in", found);
        return Err(error.with_hint("Θ_A and Θ_B are stored transposed, as torch.nn.Linear stores its weight"));
    }
    let (name, tensor_a, tensor_b) = (name.to_owned(), tensor_a.to_owned(), tensor_b.to_owned());
    Ok(SharedModule { name, tensor_a, tensor_b, rank, length_a, length_b })
}

/// The matrices of the base whose path ends in a module's name, with their tensors.
fn paths_of<'b>(base: &'b BaseModel, module: &'b str) -> impl Iterator<Item = (&'b str, &'b str)> {
    base.names().filter_map(move |tensor| {
        let path = tensor.strip_suffix(".weight")?;
        let ends = path.strip_suffix(module).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        let is_matrix = base.info(tensor).is_some_and(|info| info.shape.len() > 1);
        (ends && is_matrix).then_some((path, tensor))
    })
}

/// Whether `layers_to_transform` leaves a module's layer out.
fn is_layer_left_out(config: &AdapterConfig, path: &str) -> bool {
    let Some(wanted) = &config.layers_to_transform else { return false };
    let layer = ModuleKey::from_path(path.to_owned()).ok().and_then(|key| key.layer?.index());
    layer.is_some_and(|layer| !wanted.contains(&layer))
}

/// Checks a base weight against the shape that Θ_A and Θ_B are for; one that is packed is refused later, by its packing.
fn check_w0(file: &Path, module: &SharedModule, base: &BaseModel, tensor: &str, [d_out, d_in]: [usize; 2]) -> Result<()> {
    let Some(info) = base.info(tensor).filter(|info| FloatType::of(info.dtype).is_some()) else { return Ok(()) };
    let found = matrix_shape(base.file_of(tensor), tensor, info)?;
    // Which way round it is stored is told when it is paired.
    if found == [d_out, d_in] || found == [d_in, d_out] {
        return Ok(());
    }
    let what = format!("Θ_A and Θ_B of module `{}` do not fit W0 `{}`", escape(&module.name), escape(tensor));
    let error = Error::mismatch(file, what, format!("W0 of shape {}", show_shape(&[d_out, d_in])), show_shape(&found));
    Err(error.with_hint("a CondLoRA is of one base model: is this the one it was trained on?"))
}

fn no_layer(file: &Path, base: &BaseModel, module: &str) -> Error {
    let packed = format!(".{module}.qweight");
    if let Some(tensor) = base.names().find(|name| name.ends_with(&packed)) {
        let what = format!("base weight `{}` needs full precision", escape(tensor));
        return Error::mismatch(base.file_of(tensor), what, "F32, F16, BF16 or F64", "GPTQ or AWQ (qweight)")
            .with_hint(format!("give the unquantised base model with {}", field("base")));
    }
    let what = format!("module `{}` of the CondLoRA has no weight in {}", escape(module), crate::error::show_path(base.path()));
    let names = base.names().map(str::to_owned).collect();
    Error::mismatch(file, what, format!("tensors `*.{}.weight`", escape(module)), format!("only {}", sample(names, 5)))
        .with_hint("is this the base model the adapter was trained on?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::generate::{self, Tensor, f32_tensor};
    use crate::checkpoint::{Adapter, PairingRules, pair_with_base};

    const LAYERS: [&str; 3] = ["encoder.layer.0.self.query", "encoder.layer.1.self.query", "encoder.layer.10.self.query"];

    fn theta(module: &str, factor: &str, shape: &[u64]) -> Tensor {
        f32_tensor(&format!("{module}.linear_for_lora_{factor}"), shape)
    }

    /// Opens a CondLoRA and lays it out over a base with these weights.
    fn laid_out(tensors: &[Tensor], fields: &[(&str, &str)], weights: &[(&str, [u64; 2])], eq6: bool) -> Result<Adapter> {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        let mut config = vec![("peft_type", "\"ConditionalLORA\"")];
        config.extend_from_slice(fields);
        generate::config(dir.path(), &config);
        generate::adapter(dir.path(), tensors);
        let base: Vec<Tensor> = weights.iter().map(|(name, shape)| f32_tensor(&format!("{name}.weight"), shape)).collect();
        generate::base(dir.path(), &base);
        let mut adapter = Adapter::open(&dir.path().join("adapter"), "x".to_owned())?;
        assert!(adapter.modules.is_empty());
        let base = BaseModel::open(&dir.path().join("base"))?;
        adapter.lay_out(&base, eq6)?;
        pair_with_base(&adapter, &base, &PairingRules::default())?;
        Ok(adapter)
    }

    fn square() -> Vec<(&'static str, [u64; 2])> {
        LAYERS.iter().map(|name| (*name, [6, 6])).chain([("encoder.layer.0.self.other_query", [9, 9])]).collect()
    }

    fn pair() -> Vec<Tensor> {
        vec![theta("query", "A", &[2, 6]), theta("query", "B", &[2, 6])]
    }

    #[test]
    fn layers_are_the_base_weights_that_end_in_the_modules_name() {
        let mut tensors = pair();
        tensors.push(f32_tensor("base_model.model.classifier.weight", &[2, 6]));
        let adapter = laid_out(&tensors, &[], &square(), false).unwrap();
        assert_eq!(adapter.modules.len(), 1);
        assert_eq!((adapter.modules[0].name.as_str(), adapter.ignored_tensors), ("query", 1));
        let layers = &adapter.modules[0].layers;
        assert_eq!(layers.iter().map(|l| l.layer.as_ref()?.index()).collect::<Vec<_>>(), [Some(0), Some(1), Some(10)]);
        assert_eq!(layers.iter().map(|l| l.key.path.as_str()).collect::<Vec<_>>(), LAYERS);
        let layer = &layers[0];
        assert_eq!((layer.adapter_key.as_str(), layer.rank, layer.d_in, layer.d_out, layer.scaling), ("query", 2, 6, 6, 2.0));
        let thetas = adapter.condlora.as_ref().unwrap();
        assert_eq!((thetas.modules[0].parameters(), thetas.others.len()), (24, 1));
        let chosen = laid_out(&pair(), &[("layers_to_transform", "[1, 10]")], &square(), false).unwrap();
        assert_eq!(chosen.modules[0].layers.len(), 2);
        assert_eq!(laid_out(&pair(), &[("layers_to_transform", "1")], &square(), false).unwrap().modules[0].layers.len(), 1);
    }

    #[test]
    fn conventions_say_which_shapes_fit() {
        let oblong = [("layer.0.query", [9, 6])];
        let tensors = [theta("query", "A", &[2, 9]), theta("query", "B", &[2, 6])];
        let general = ("condlora_convention", "\"general\"");
        let adapter = laid_out(&tensors, &[general], &oblong, false).unwrap();
        let layer = &adapter.modules[0].layers[0];
        assert_eq!((layer.d_out, layer.d_in), (9, 6));
        for (fields, eq6) in [(&[][..], false), (&[general], true)] {
            let error = laid_out(&tensors, fields, &oblong, eq6).unwrap_err();
            assert_eq!(error.exit_code(), 5);
            assert!(error.to_string().contains("expected Θ_A and Θ_B of one length, found [9, 6]"), "{error}");
        }
        let eq6 = laid_out(&pair(), &[], &square(), true).unwrap();
        let FactorSource::Shared { convention, .. } = &eq6.modules[0].layers[0].source else { panic!("no CondLoRA") };
        assert_eq!(*convention, CondloraConvention::Eq6);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |tensors: &[Tensor], fields: &[(&str, &str)], weights: &[(&str, [u64; 2])], says: &str| {
            let error = laid_out(tensors, fields, weights, false).unwrap_err();
            assert_eq!(error.exit_code(), 5, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        refused(&pair()[..1], &[], &square(), "`query.linear_for_lora_A` has no matching linear_for_lora_B");
        refused(&pair()[1..], &[], &square(), "`query.linear_for_lora_B` has no matching linear_for_lora_A");
        refused(&[f32_tensor("classifier.weight", &[2])], &[], &square(), "no CondLoRA tensor");
        refused(&[theta("query", "A", &[2, 6]), theta("query", "B", &[3, 6])], &[], &square(), "[2, 6] and [3, 6]");
        refused(&[theta("query", "A", &[6, 2]), theta("query", "B", &[6, 2])], &[], &square(), "r at most in");
        refused(&pair(), &[], &[("layer.0.query", [6, 9])], "expected W0 of shape [6, 6], found [6, 9]");
        refused(&pair(), &[], &[("layer.0.key", [6, 6])], "tensors `*.query.weight`, found only layer.0.key.weight");
        refused(&pair(), &[("use_x", "\"add\"")], &square(), "use_x");
        refused(&pair(), &[("condlora_convention", "\"mine\"")], &square(), "condlora_convention");
        let twice = [pair(), vec![f32_tensor("base_model.model.query.linear_for_lora_A", &[2, 6])]].concat();
        refused(&twice, &[], &square(), "two names for linear_for_lora_A of module `query`");
    }
}
