//! What several tests need: the program, checkpoints to run it on, and the tolerance they all use.
//!
//! Each test file is a crate of its own that uses a part of this.
#![allow(dead_code, reason = "each test uses its own part")]

pub(crate) mod checkpoint;
pub(crate) mod cpu;
pub(crate) mod direct;
#[path = "../bad_inputs/generate.rs"]
pub(crate) mod generate;
#[cfg(debug_assertions)]
pub(crate) mod held;
#[path = "../bad_inputs/pickled.rs"]
pub(crate) mod pickled;
pub(crate) mod program;
pub(crate) mod tolerance;
