//! From the bytes of a checkpoint to typed, checked tensors.
//!
//! The way of the data: [`discover`] finds adapter directories, [`config`] reads `adapter_config.json`, [`reader`] opens
//! `.safetensors` files strictly, [`keys`] makes modules and layers of tensor names, [`adapter`] joins these into an
//! [`Adapter`], [`base`] opens the base model and [`pairing`] finds the base weight of every layer. What leaves this layer
//! has shapes that fit and values that are finite.
//!
//! It does no mathematics and prints nothing: warnings are collected and handed on.

pub mod adapter;
pub mod base;
pub mod config;
pub mod discover;
mod files;
mod header;
pub mod keys;
pub mod pairing;
pub mod reader;
pub mod tensor;

#[cfg(test)]
#[path = "../../tests/bad_inputs/generate.rs"]
mod generate;

pub use adapter::{Adapter, AdapterLayer, AdapterModule, Factors, InputRecord};
pub use base::BaseModel;
pub use config::AdapterConfig;
pub use discover::{FoundAdapter, find_adapters, find_base, match_init};
pub use keys::ModuleKey;
pub use pairing::{PairedLayer, PairedModule, base_name_warning, pair_with_base};
pub use reader::SafetensorsFile;
pub use tensor::{Dtype, FloatType, RawTensor, TensorInfo};
