//! Files of tensors, whatever their format: opened strictly, read one tensor at a time. Knows no model and no adapter.

pub(super) mod disk;
pub(super) mod json;
mod pickle;
pub(super) mod safetensors;
mod strided;
pub mod tensor;
pub mod weights;
