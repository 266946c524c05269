//! `.safetensors`: its header read strictly, and a writer that takes one tensor at a time.

pub(crate) mod header;
pub(crate) mod reader;
pub(crate) mod writer;
