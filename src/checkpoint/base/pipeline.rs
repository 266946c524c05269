//! A directory of several models that work together, as Diffusers has them: `model_index.json`, and a folder for each model.

use std::path::{Path, PathBuf};

use super::layout::weights_in;
use crate::checkpoint::files::disk::{listing, names_in};
use crate::error::{Error, Result};

/// What marks such a directory.
pub(super) const PIPELINE_FILE: &str = "model_index.json";

/// The folders of a pipeline that hold weights, with the file or index of each, in the order of their tensors' names; none for a directory of one model.
///
/// # Errors
/// [`Error::Missing`] if none of its models is there, [`Error::Mismatch`] for one in a layout that is not supported.
pub(super) fn folders(dir: &Path) -> Result<Option<Vec<(String, PathBuf)>>> {
    let index = dir.join(PIPELINE_FILE);
    if index.symlink_metadata().is_err() {
        return Ok(None);
    }
    let mut names = names_in(dir)?;
    names.retain(|name| dir.join(name).is_dir());
    names.sort_by_key(|name| format!("{name}."));
    // Schedulers and tokenizers have no weights.
    let with_weights = names.into_iter().filter_map(|name| match weights_in(&dir.join(&name)) {
        Ok(file) => Some(Ok((name, file))),
        Err(Error::Missing { .. }) => None,
        Err(error) => Some(Err(error)),
    });
    let found = with_weights.collect::<Result<Vec<_>>>()?;
    if found.is_empty() {
        let what = format!(
            "is of a pipeline, and none of its models is there; expected folders such as unet or transformer, found {}",
            listing(dir)
        );
        return Err(Error::missing(&index, what));
    }
    Ok(Some(found))
}
