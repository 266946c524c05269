//! Zip pickles of `torch.save`, read without executing anything: a dictionary of tensors, and nothing else.
//!
//! The archive's `data.pkl` names the tensors and their places; their bytes are stored uncompressed in `data/KEY`. Whatever a plain dictionary of tensors
//! does not need is refused by name.
//!
//! Why a pickle machine of our own: older PEFT and the authors of CondLoRA save `.bin` files, and a pickle is a program that Python's
//! reader executes. The readers in Rust that we know either build any object (in memory that the file decides about) or do not read the
//! storages that `torch.save` refers to. This one knows fourteen harmless globals, and every count in it has a limit.

mod archive;
mod calls;
mod directory;
mod machine;
mod objects;
mod refusal;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use self::archive::Archive;
use self::machine::run;
use self::objects::PickledTensor;
use crate::checkpoint::files::strided::Strided;
use crate::checkpoint::files::tensor::{TensorInfo, show_shape};
use crate::error::{Error, Result, escape};

/// What a pickle says of its tensors.
pub(super) struct PickledDictionary {
    /// BLAKE3 of `data.pkl`, in hexadecimal.
    pub(super) hash: String,
    /// Its length.
    pub(super) len: u64,
    /// Sorted by name; places counted from the start of the file.
    pub(super) tensors: Vec<(String, TensorInfo)>,
    /// Those whose values are not contiguous.
    pub(super) strided: BTreeMap<String, Strided>,
}

/// Reads what the archive says of its tensors.
///
/// # Errors
/// [`Error::Malformed`] for a broken archive or pickle, [`Error::Mismatch`] for one that is more than a dictionary of tensors.
pub(super) fn read(path: &Path, file: &File, len: u64) -> Result<PickledDictionary> {
    let archive = Archive::open(path, file, len)?;
    let bytes = archive.pickle()?;
    let found = run(&bytes).map_err(|(refused, at)| refused.explain(path, at))?;
    let (mut tensors, mut strided) = (Vec::with_capacity(found.len()), BTreeMap::new());
    for tensor in found {
        let (info, view) = place(path, &archive, &tensor)?;
        if let Some(view) = view {
            strided.insert(tensor.name.clone(), view);
        }
        tensors.push((tensor.name, info));
    }
    Ok(PickledDictionary { hash: blake3::hash(&bytes).to_hex().to_string(), len: bytes.len() as u64, tensors, strided })
}

/// Where the values of a tensor are in the file.
fn place(path: &Path, archive: &Archive<'_>, tensor: &PickledTensor) -> Result<(TensorInfo, Option<Strided>)> {
    let PickledTensor { name, dtype, size, key, elements, offset, shape, strides } = tensor;
    let what = || format!("tensor `{}`", escape(name));
    let (start, stored) = archive.storage(key, name)?;
    let bytes = u64::from(*size);
    if elements.checked_mul(bytes).is_none_or(|needed| needed > stored) {
        let expected = format!("{elements} elements of {size} bytes in data/{}", escape(key));
        return Err(Error::malformed(path, what(), expected, format!("{stored} bytes")));
    }
    let outside = || {
        let found = format!("shape {}, strides {}, offset {offset}", show_shape(shape), show_shape(strides));
        Error::malformed(path, what(), format!("a view of its storage's {elements} elements"), found)
    };
    let end = end_of(tensor).ok_or_else(outside)?;
    let (begin, end) = (start + offset * bytes, start + end * bytes);
    let info = TensorInfo { dtype: *dtype, shape: shape.clone(), begin, end };
    let view = (!is_contiguous(shape, strides)).then(|| Strided { strides: strides.clone(), size: usize::from(*size) });
    Ok((info, view))
}

/// One past the last element of a view, if the view is one of its storage.
fn end_of(tensor: &PickledTensor) -> Option<u64> {
    let len = tensor.shape.iter().try_fold(1_usize, |len, size| len.checked_mul(*size))? as u64;
    // A view that repeats elements (stride 0) could be larger than any file.
    if tensor.strides.len() != tensor.shape.len() || tensor.offset > tensor.elements || len > tensor.elements {
        return None;
    }
    if len == 0 {
        return Some(tensor.offset);
    }
    let steps = tensor.shape.iter().zip(&tensor.strides);
    let last = steps.into_iter().try_fold(0_usize, |last, (size, stride)| last.checked_add((size - 1).checked_mul(*stride)?))?;
    tensor.offset.checked_add(last as u64)?.checked_add(1).filter(|end| *end <= tensor.elements)
}

/// Whether the elements are contiguous, row by row.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == step;
            step *= size;
            fits
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use super::*;
    use crate::checkpoint::WeightsFile;
    use crate::checkpoint::generate::{self, Tensor, f32_tensor, zero_tensor};
    use crate::checkpoint::pickled::{self, View};

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn tensors() -> Vec<Tensor> {
        let mut half = zero_tensor("b.half", "BF16", &[2, 3], 0);
        half.bytes = (0..12).collect();
        let mut many = generate::adapter_tensors();
        many.extend([half, zero_tensor("empty", "F32", &[0, 7], 0), f32_tensor("scalar", &[]), f32_tensor("w", &[2, 1, 3, 4])]);
        many
    }

    #[test]
    fn real_files_hold_the_bytes_of_their_safetensors_twins() {
        for name in ["trec-seed0", "sst2-seed0"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks-data/condlora").join(name);
            let pickled = WeightsFile::open(&dir.join("adapter_model.bin")).unwrap();
            let plain = WeightsFile::open(&dir.join("adapter_model.safetensors")).unwrap();
            assert_eq!(pickled.names().collect::<Vec<_>>(), plain.names().collect::<Vec<_>>());
            assert_eq!(plain.names().count(), 6);
            for name in plain.names() {
                let (ours, theirs) = (pickled.read(name).unwrap(), plain.read(name).unwrap());
                assert_eq!((ours.dtype, &ours.shape, &ours.hash), (theirs.dtype, &theirs.shape, &theirs.hash));
                assert!(!ours.bytes().is_empty() && ours.bytes() == theirs.bytes());
            }
        }
    }

    #[test]
    fn tensors_come_back_as_they_were_with_short_and_long_numbers() {
        let tensors = tensors();
        for long in [false, true] {
            let (_dir, path) = written(&pickled::zip(&pickled::parts(&tensors), long));
            let opened = WeightsFile::open(&path).unwrap();
            assert_eq!(opened.names().count(), tensors.len());
            for tensor in &tensors {
                let read = opened.read(&tensor.name).unwrap();
                let shape: Vec<u64> = read.shape.iter().map(|size| *size as u64).collect();
                assert_eq!(
                    (&shape, read.dtype.to_string().as_str(), read.bytes()),
                    (&tensor.shape, tensor.dtype, &tensor.bytes[..])
                );
            }
        }
    }

    #[test]
    fn views_are_gathered_and_may_share_a_storage() {
        let stored = f32_tensor("all", &[4, 6]);
        let view = |name: &str, offset, shape: [u64; 2], strides: [u64; 2]| View {
            name: name.to_owned(),
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            ..View::of(&stored, "0")
        };
        let views = [view("rows", 6, [2, 6], [6, 1]), view("turned", 0, [6, 4], [1, 6]), view("part", 8, [2, 3], [6, 1])];
        let (_dir, path) = written(&pickled::archive(&pickled::dictionary(&views), &[("0", &stored.bytes)]));
        let opened = WeightsFile::open(&path).unwrap();
        for view in &views {
            let expected: Vec<u8> = (0..view.shape[0])
                .flat_map(|row| (0..view.shape[1]).map(move |column| (row, column)))
                .flat_map(|(row, column)| {
                    let at = 4 * (view.offset + row * view.strides[0] + column * view.strides[1]) as usize;
                    stored.bytes[at..at + 4].to_vec()
                })
                .collect();
            assert_eq!(opened.read(&view.name).unwrap().bytes(), expected, "{}", view.name);
            let mut wide = vec![0.0; expected.len() / 4];
            opened.read_f64(&view.name, &mut wide).unwrap();
            assert_eq!(wide, opened.read(&view.name).unwrap().to_f64().unwrap());
        }
    }

    #[test]
    fn a_checkpoint_has_its_tensors_in_state_dict() {
        let tensors = generate::adapter_tensors();
        let views: Vec<View> = tensors.iter().enumerate().map(|(at, tensor)| View::of(tensor, &at.to_string())).collect();
        let inner = pickled::dictionary(&views);
        // `{'epoch': 3, 'losses': [None, 0.5], 'state_dict': ...}`: of the rest nothing is kept.
        let outer = [
            &b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94(\x8c\x05epoch\x94K\x03\x8c\x06losses\x94]\x94(NG\x3f\xe0\0\0\0\0\0\0e\x8c\x0astate_dict"[..],
            &inner[2..inner.len() - 1],
            b"u.",
        ];
        let storages: Vec<(String, &[u8])> = tensors.iter().enumerate().map(|(at, t)| (at.to_string(), &t.bytes[..])).collect();
        let storages: Vec<(&str, &[u8])> = storages.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect();
        let (_dir, path) = written(&pickled::archive(&outer.concat(), &storages));
        let opened = WeightsFile::open(&path).unwrap();
        for tensor in &tensors {
            assert_eq!(opened.read(&tensor.name).unwrap().bytes(), tensor.bytes);
        }
    }

    #[test]
    fn no_damaged_byte_panics_or_leads_outside_of_the_file() {
        let bytes = pickled::file(&tensors()[..2]);
        let (_dir, path) = written(&bytes);
        let look = |len: usize| {
            let Ok(opened) = WeightsFile::open(&path) else { return };
            for name in opened.names() {
                let info = opened.info(name).unwrap();
                assert!(info.begin <= info.end && info.end <= len as u64);
                let _ = opened.read(name);
            }
        };
        // In place: a file that is cut and written anew waits for the disk each time.
        let file = File::options().write(true).open(&path).unwrap();
        for at in 0..bytes.len() {
            for byte in [0, 1, b'.', b'(', b't', 0x7f, 0x80, 0xff] {
                file.write_all_at(&[byte], at as u64).unwrap();
                look(bytes.len());
            }
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
        for len in (0..bytes.len()).rev().step_by(7) {
            file.set_len(len as u64).unwrap();
            look(len);
        }
    }
}
