//! Zip pickles of `torch.save`, read without executing anything: a dictionary of tensors, and nothing else.
//!
//! The archive's `data.pkl` names the tensors and their places; their bytes stand uncompressed in `data/KEY`. Whatever a plain dictionary of tensors
//! does not need is refused by name.

mod archive;
mod machine;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use self::archive::Archive;
use self::machine::{Pickled, PickledTensor, run};
use super::strided::Strided;
use super::tensor::{TensorInfo, show_shape};
use crate::error::{Error, Result, escape};

/// What a pickle says of its tensors.
pub(super) struct Contents {
    /// BLAKE3 of `data.pkl`, in hexadecimal.
    pub(super) hash: String,
    /// Sorted by name; places counted from the start of the file.
    pub(super) tensors: Vec<(String, TensorInfo)>,
    /// Those whose values do not stand one after the other.
    pub(super) strided: BTreeMap<String, Strided>,
}

/// The hint for a file that holds more than tensors.
const HINT: &str = "load it with PyTorch and save its tensors as safetensors";

/// Reads what the archive says of its tensors.
///
/// # Errors
/// [`Error::Malformed`] for a broken archive or pickle, [`Error::Mismatch`] for one that is more than a dictionary of tensors.
pub(super) fn read(path: &Path, file: &File, len: u64) -> Result<Contents> {
    let mut archive = Archive::open(path, file, len)?;
    let bytes = archive.pickle()?;
    let pickled = run(&bytes).map_err(|refused| refused.explain(path))?;
    let Pickled(found) = pickled;
    let (mut tensors, mut strided) = (Vec::with_capacity(found.len()), BTreeMap::new());
    for (name, tensor) in found {
        let (info, view) = place(path, &mut archive, &name, &tensor)?;
        if let Some(view) = view {
            strided.insert(name.clone(), view);
        }
        tensors.push((name, info));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let what = format!("tensor `{}`", escape(&pair[0].0));
        return Err(Error::malformed(path, what, "one entry of that name", "it twice (a duplicate)"));
    }
    Ok(Contents { hash: blake3::hash(&bytes).to_hex().to_string(), tensors, strided })
}

/// Where the values of a tensor stand in the file.
fn place(path: &Path, archive: &mut Archive<'_>, name: &str, tensor: &PickledTensor) -> Result<(TensorInfo, Option<Strided>)> {
    let what = || format!("tensor `{}`", escape(name));
    let size = tensor.storage.size as u64;
    let (start, stored) = archive.storage(&tensor.storage.key, name)?;
    let needed = tensor.storage.elements.checked_mul(size).filter(|bytes| *bytes <= stored);
    if needed.is_none() {
        let expected = format!("{} elements of {size} bytes in data/{}", tensor.storage.elements, escape(&tensor.storage.key));
        return Err(Error::malformed(path, what(), expected, format!("{stored} bytes")));
    }
    let outside = || {
        let found =
            format!("shape {}, strides {}, offset {}", show_shape(&tensor.shape), show_shape(&tensor.strides), tensor.offset);
        Error::malformed(path, what(), format!("a view of its storage's {} elements", tensor.storage.elements), found)
    };
    let len = tensor.shape.iter().try_fold(1_usize, |len, size| len.checked_mul(*size)).ok_or_else(outside)?;
    if tensor.strides.len() != tensor.shape.len() {
        return Err(outside());
    }
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(0_usize, |last, (size, stride)| last.checked_add(size.saturating_sub(1).checked_mul(*stride)?));
    // A view that repeats elements (stride 0) could be larger than any file.
    let fits = |last: usize| {
        let end = (tensor.offset as u64).checked_add(last as u64)?.checked_add(u64::from(len > 0))?;
        (end <= tensor.storage.elements && len as u64 <= tensor.storage.elements).then_some(end)
    };
    let end = last.and_then(fits).ok_or_else(outside)?;
    let info = TensorInfo {
        dtype: tensor.storage.dtype,
        shape: tensor.shape.clone(),
        begin: start + tensor.offset as u64 * size,
        end: start + end.max(tensor.offset as u64) * size,
    };
    let contiguous = len == 0 || {
        let mut step = 1;
        tensor.shape.iter().zip(&tensor.strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == step;
            step *= size;
            fits
        })
    };
    let view = (!contiguous).then(|| Strided { strides: tensor.strides.clone(), size: tensor.storage.size });
    Ok((info, view))
}
