//! One adapter of a study, with its selected modules and its untrained counterpart.

use crate::checkpoint::{Adapter, AdapterLayer, PairedModule, UnusableLayer};
use crate::error::{Error, Result, escape};
use crate::inputs::choose_convention;
use crate::terms::Convention;

/// An adapter with its selected modules.
pub(crate) struct PlannedAdapter {
    pub(crate) adapter: Adapter,
    /// Index into the plan's base models.
    pub(crate) base: usize,
    pub(crate) modules: Vec<PairedModule>,
    /// Selected layers that cannot be used.
    pub(crate) unusable: Vec<UnusableLayer>,
    /// The untrained adapter, if one was given.
    pub(crate) init: Option<Adapter>,
}

impl PlannedAdapter {
    /// Its checkpoint, and the untrained one's.
    pub(crate) fn checkpoints(&self) -> impl Iterator<Item = &Adapter> {
        std::iter::once(&self.adapter).chain(&self.init)
    }

    /// Whether it can be analysed as asked: conventions fit, and every layer has its untrained counterpart of the same shape.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for the first that does not; what is wrong with its layers where none of them can be used.
    pub(crate) fn check(&self, convention: Option<Convention>) -> Result<()> {
        if let Some(first) = self.unusable.first().filter(|_| self.modules.is_empty()) {
            return Err(first.error.clone());
        }
        for module in &self.modules {
            choose_convention(self.adapter.weights_file(), module, convention)?;
        }
        let Some(init) = &self.init else { return Ok(()) };
        for layer in self.modules.iter().flat_map(|m| &m.layers) {
            let wanted = &layer.adapter_layer;
            let what = format!("the untrained adapter's `{}`", escape(&wanted.key.path));
            let shape = |l: &AdapterLayer| format!("{} in, {} out", l.d_in, l.d_out);
            match untrained_layer(init, wanted) {
                None => return Err(Error::mismatch(init.weights_file(), what, shape(wanted), "none")),
                Some(l) if (l.d_in, l.d_out) != (wanted.d_in, wanted.d_out) => {
                    return Err(Error::mismatch(init.weights_file(), what, shape(wanted), shape(l)));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// The untrained counterpart of a layer.
pub(crate) fn untrained_layer<'a>(init: &'a Adapter, wanted: &AdapterLayer) -> Option<&'a AdapterLayer> {
    init.modules.iter().flat_map(|m| &m.layers).find(|l| l.key.path == wanted.key.path)
}
