//! The base's view of a paired layer: which weight, which type of weight, and which equations are solved through it.

use std::borrow::Cow;
use std::path::Path;

use crate::checkpoint::{Block, ModuleKey, PairedLayer, PairedModule};
use crate::error::{Error, Result, escape, field};
use crate::terms::{Convention, LayerId};

/// A base weight W0 (out, in), or some rows of a fused one. Layers of different adapters with the same base weight share a factorisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BaseWeight {
    pub(crate) layer: Option<LayerId>,
    pub(crate) tensor: String,
    pub(crate) transposed: bool,
    pub(crate) block: Option<Block>,
    pub(crate) d_out: usize,
    pub(crate) d_in: usize,
}

impl BaseWeight {
    pub(crate) fn of(layer: &PairedLayer) -> Self {
        Self {
            layer: layer.adapter_layer.layer.clone(),
            tensor: layer.tensor.clone(),
            transposed: layer.transposed,
            block: layer.block.clone(),
            d_out: layer.d_out,
            d_in: layer.d_in,
        }
    }

    /// The label of the controls' random streams: the base tensor, and the part of it. It contains neither the adapter nor the order of
    /// the work, so that every adapter is compared with the same draws.
    pub(crate) fn stream(&self) -> Cow<'_, str> {
        match &self.block {
            None => Cow::Borrowed(&self.tensor),
            Some(block) => Cow::Owned(format!("{}#{}", self.tensor, block.name)),
        }
    }
}

/// The type of a base tensor: its path with the layer index as `*`. A name that is no module path is a type of its own.
pub(crate) fn type_of_tensor(tensor: &str) -> String {
    let path = tensor.strip_suffix(".weight").unwrap_or(tensor);
    ModuleKey::from_path(path.to_owned()).map_or_else(|_| path.to_owned(), |key| key.module_type)
}

/// The equations of a module of the adapter in `weights_file`: those requested, or else the paper's if every layer is square.
///
/// # Errors
/// [`Error::Mismatch`] for a module that is not square where the paper's convention is asked for.
pub(crate) fn choose_convention(weights_file: &Path, module: &PairedModule, wanted: Option<Convention>) -> Result<Convention> {
    let oblong = module.layers.iter().find(|layer| layer.d_out != layer.d_in);
    match (wanted, oblong) {
        (Some(Convention::Paper), Some(layer)) => Err(Error::mismatch(
            weights_file,
            format!("module `{}` in the paper's convention", escape(&module.name)),
            "square base weights",
            format!("`{}` with shape [{}, {}]", escape(&layer.tensor), layer.d_out, layer.d_in),
        )
        .with_hint(format!(
            "use {} general or auto, or leave the module out with {}",
            field("convention"),
            field("modules")
        ))),
        (Some(convention), _) => Ok(convention),
        (None, Some(_)) => Ok(Convention::General),
        (None, None) => Ok(Convention::Paper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_all_layers_have_one_type() {
        assert_eq!(type_of_tensor("encoder.layer.3.query.weight"), "encoder.layer.*.query");
        assert_eq!(type_of_tensor("encoder.layer.11.query.weight"), type_of_tensor("encoder.layer.0.query"));
        assert_eq!(type_of_tensor("a..b.weight"), "a..b");
    }
}
