//! Why a pickle is not read.

use std::path::Path;

use crate::error::{Error, escape};

/// The hint for a file that holds more than tensors.
pub(super) const HINT: &str = "load it with PyTorch and save its tensors as safetensors";

/// What is wrong with a pickle.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is broken.
    Broken(&'static str),
    /// It is well-formed, but more than a dictionary of tensors.
    NotPlain(String),
    /// A name occurs twice.
    Twice(String),
}

impl Refused {
    /// The error, for a pickle that was read up to a byte.
    pub(super) fn explain(self, path: &Path, at: usize) -> Error {
        match self {
            Self::Broken(what) => {
                Error::malformed(path, "data.pkl is not a whole pickle", "the opcodes of pickle", format!("{what} at byte {at}"))
            }
            Self::NotPlain(found) => {
                Error::mismatch(path, "not a plain tensor dictionary", "names and tensors, and nothing to be executed", found)
                    .with_hint(HINT)
            }
            Self::Twice(name) => {
                let what = format!("tensor `{}`", escape(&name));
                Error::malformed(path, what, "one entry of that name", "it twice (a duplicate)")
            }
        }
    }
}
