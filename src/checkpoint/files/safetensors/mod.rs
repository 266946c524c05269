//! `.safetensors`: its header read strictly, and a writer that takes one tensor at a time.

pub(in crate::checkpoint) mod header;
pub(in crate::checkpoint) mod reader;
pub(in crate::checkpoint) mod writer;
