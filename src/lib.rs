//! Conversion matrices of LoRA adapters.

pub mod checkpoint;
pub mod cli;
pub mod controls;
pub mod conversion;
pub mod error;
pub mod figure;
pub mod linalg;
pub mod similarity;
pub mod study;
pub mod table;
pub mod terms;

pub use error::{Error, Result};
