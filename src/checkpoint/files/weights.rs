//! A file of named tensors, whatever its format: what it holds is known and checked, its values are read one by one.
//!
//! A file is opened, checked whole by what describes its tensors, and closed again: only names, types and places are kept, so thousands of
//! files can be held at once. Reading a tensor opens the file again and checks that it is still the one that was checked.
//! Nothing is mapped into memory: a file that shrinks under a map kills the process.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Stamp, open_regular, unreadable};
use super::pickle;
use super::safetensors::header::{self, Header};
use super::safetensors::reader::read_header;
use super::strided::Strided;
use super::tensor::{FloatType, NonFinite, RawTensor, TensorInfo, check_len, not_full_precision, widen};
use crate::checkpoint::keys::{is_stack_of_experts, view_of_expert};
use crate::error::{Error, Result, escape};
use crate::record::InputRecord;

/// Bytes that are read, hashed and widened in one go: they stay in the second-level cache.
const PIECE: usize = 1 << 18;
/// Mixtures of hundreds of experts have a hundred thousand weights, with names of a hundred bytes.
const MOST_VIEWS: usize = 1 << 20;
const LONGEST_VIEWED: usize = 512;
/// How a zip archive begins, which `torch.save` writes.
const ZIP: [u8; 4] = *b"PK\x03\x04";

/// An open file of tensors: `.safetensors`, or a zip pickle of `torch.save`.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    stamp: Stamp,
    header_hash: String,
    data_start: u64,
    tensors: Vec<(String, TensorInfo)>,
    metadata: HashMap<String, String>,
    /// Tensors whose values are not contiguous: in pickles, and among the views.
    strided: BTreeMap<String, Strided>,
    /// Parts of tensors that are read as tensors of their own: the weights of single experts.
    views: BTreeMap<String, TensorInfo>,
    /// Bytes of the header and of tensors read so far.
    bytes_read: AtomicU64,
}

impl WeightsFile {
    /// Opens a file and checks what describes its tensors; no tensor is read.
    ///
    /// A file is read as a pickle where its name says so (`.bin`, `.pt`, `.pth`, `.ckpt`), else as `.safetensors`.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no readable regular file, [`Error::Malformed`] if it is not what the format asks for,
    /// [`Error::Mismatch`] for a pickle that is more than a dictionary of tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, stamp) = open_regular(path)?;
        let mut opened = if is_pickle_name(path) && !looks_like_safetensors(path, &file)? {
            let found = pickle::read(path, &file, stamp.len)?;
            Self {
                path: path.to_owned(),
                stamp,
                header_hash: found.hash,
                bytes_read: found.len.into(),
                data_start: 0,
                tensors: found.tensors,
                metadata: HashMap::new(),
                strided: found.strided,
                views: BTreeMap::new(),
            }
        } else {
            let header = read_header(path, &file, stamp.len)?;
            let data_start = 8 + header.len() as u64;
            let Header { tensors, metadata } = header::parse(path, &header, stamp.len - data_start)?;
            Self {
                path: path.to_owned(),
                stamp,
                header_hash: blake3::hash(&header).to_hex().to_string(),
                bytes_read: data_start.into(),
                data_start,
                tensors,
                metadata,
                strided: BTreeMap::new(),
                views: BTreeMap::new(),
            }
        };
        opened.find_experts();
        check_unchanged(path, &file, stamp)?;
        Ok(opened)
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record of what describes the tensors: its hash is BLAKE3 of the header's bytes without its length, or of the pickle's.
    #[must_use]
    pub fn header_record(&self) -> InputRecord {
        InputRecord::of_file(&self.path, self.header_hash.clone())
    }

    /// Bytes read so far of what describes the tensors and of the tensors themselves.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.stamp.len
    }

    /// The tensors, sorted by name.
    #[must_use]
    pub fn tensors(&self) -> &[(String, TensorInfo)] {
        &self.tensors
    }

    /// What whoever wrote the file noted in its header; nothing for a pickle.
    #[must_use]
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    /// What is known about a tensor, if it is there.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        match self.tensors.binary_search_by(|(other, _)| other.as_str().cmp(name)) {
            Ok(at) => self.tensors.get(at).map(|(_, info)| info),
            Err(_) => self.views.get(name),
        }
    }

    /// The names of the views, sorted.
    pub(crate) fn views(&self) -> impl Iterator<Item = &str> {
        self.views.keys().map(String::as_str)
    }

    /// Makes a view of each expert's matrix in tensors that hold those of several, `[experts, rows, columns]`.
    fn find_experts(&mut self) {
        let mut views = BTreeMap::new();
        for (name, info) in &self.tensors {
            let &[experts, rows, columns] = &info.shape[..] else { continue };
            let bytes = (info.end - info.begin) / experts.max(1) as u64;
            let is_whole = bytes * experts as u64 == info.end - info.begin && !self.strided.contains_key(name);
            let is_small = name.len() <= LONGEST_VIEWED && experts <= MOST_VIEWS - views.len();
            if info.is_empty() || !is_whole || !is_small || !is_stack_of_experts(name) {
                continue;
            }
            for expert in 0..experts {
                let begin = info.begin + expert as u64 * bytes;
                let info = TensorInfo { dtype: info.dtype, shape: vec![rows, columns], begin, end: begin + bytes };
                views.insert(view_of_expert(name, expert), info);
            }
        }
        self.views = views;
    }

    /// Adds the views of one expert's factors in A `[experts·r, in]`, whose rows are those of one expert after those of another, and in
    /// B `[out, r·experts]`, whose columns take turns; gives their names. None for tensors that are not so divided.
    pub(crate) fn view_expert(&mut self, [a, b]: [&str; 2], experts: usize, expert: usize) -> Option<[String; 2]> {
        let (of_a, of_b) = (self.info(a)?, self.info(b)?);
        let (&[rows, d_in], &[d_out, columns]) = (&of_a.shape[..], &of_b.shape[..]) else { return None };
        let sizes = [FloatType::of(of_a.dtype)?.size() as u64, FloatType::of(of_b.dtype)?.size() as u64];
        let rank = rows.checked_div(experts)?;
        if self.views.len() >= MOST_VIEWS
            || rank == 0
            || rank * experts != rows
            || columns != rows
            || expert >= experts
            || d_out == 0
            || [a, b].iter().any(|name| self.strided.contains_key(*name))
        {
            return None;
        }
        let begin = of_a.begin + (expert * rank * d_in) as u64 * sizes[0];
        let end = begin + (rank * d_in) as u64 * sizes[0];
        let view_a = TensorInfo { dtype: of_a.dtype, shape: vec![rank, d_in], begin, end };
        let begin = of_b.begin + expert as u64 * sizes[1];
        let elements = (d_out - 1) * columns + (rank - 1) * experts + 1;
        let view_b = TensorInfo { dtype: of_b.dtype, shape: vec![d_out, rank], begin, end: begin + elements as u64 * sizes[1] };
        let names = [a, b].map(|name| view_of_expert(name, expert));
        self.strided.insert(names[1].clone(), Strided { strides: vec![columns, experts], size: sizes[1] as usize });
        self.views.extend([(names[0].clone(), view_a), (names[1].clone(), view_b)]);
        Some(names)
    }

    /// Reads one tensor as it is stored.
    ///
    /// # Errors
    /// [`Error::Missing`] if the file has changed or cannot be read, [`Error::Resource`] if there is no memory for it.
    pub fn read(&self, name: &str) -> Result<RawTensor> {
        self.read_into(name, Vec::new())
    }

    /// Reads one tensor as it is stored, into storage of an earlier one: fresh memory would take as long as the reading.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_into(&self, name: &str, storage: Vec<u8>) -> Result<RawTensor> {
        let (info, mut file) = self.reopen(name)?;
        let (span, hash) = self.span(&mut file, name, info.begin..info.end, storage)?;
        let (bytes, hash) = match self.strided.get(name) {
            None => (span, hash),
            Some(strided) => {
                let bytes = strided.gather(&span, info);
                let hash = blake3::hash(&bytes);
                (bytes, hash)
            }
        };
        check_unchanged(&self.path, &file, self.stamp)?;
        Ok(RawTensor {
            file: self.path.clone(),
            name: name.to_owned(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            hash: hash.to_hex().to_string(),
            bytes,
        })
    }

    /// Some bytes, counted from the end of the header, and their hash: each piece is hashed while it is in the cache.
    fn span(&self, file: &mut File, name: &str, wanted: Range<u64>, mut bytes: Vec<u8>) -> Result<(Vec<u8>, blake3::Hash)> {
        let len = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
        bytes.clear();
        bytes.try_reserve_exact(len).map_err(|_| Error::Resource {
            what: format!("no memory for tensor `{}`", escape(name)),
            expected: "enough memory".to_owned(),
            found: format!("{len} bytes needed"),
            hint: None,
        })?;
        let mut hasher = blake3::Hasher::new();
        let mut read = || -> io::Result<()> {
            file.seek(SeekFrom::Start(self.data_start + wanted.start))?;
            while bytes.len() < len {
                let before = bytes.len();
                let piece = PIECE.min(len - before) as u64;
                if file.by_ref().take(piece).read_to_end(&mut bytes)? == 0 {
                    break;
                }
                hasher.update(&bytes[before..]);
            }
            Ok(())
        };
        read().map_err(|err| unreadable(&self.path, &err))?;
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if bytes.len() == len { Ok((bytes, hasher.finalize())) } else { Err(changed(&self.path)) }
    }

    /// Reads one tensor straight into `out` as `f64`, exactly, and returns the record of its bytes.
    ///
    /// Piece by piece: each is read, hashed and widened while it is in the cache, so there is no copy of the stored bytes. The hash is
    /// made of the very bytes that the values come from: hashing the file in a pass of its own would read it twice, and could see
    /// another file under the same name.
    ///
    /// # Errors
    /// As [`Self::read`] and [`RawTensor::write_f64`].
    pub fn read_f64(&self, name: &str, out: &mut [f64]) -> Result<InputRecord> {
        if self.strided.contains_key(name) {
            let raw = self.read(name)?;
            raw.write_f64(out)?;
            return Ok(raw.record());
        }
        let (info, file) = self.reopen(name)?;
        let float = FloatType::of(info.dtype).ok_or_else(|| not_full_precision(&self.path, name, info.dtype))?;
        check_len(info.len(), out.len())?;
        let per_piece = PIECE / float.size();
        let mut piece = vec![0_u8; PIECE.min(info.len() * float.size())];
        let (mut hasher, mut bad) = (blake3::Hasher::new(), NonFinite::default());
        for (at, values) in out.chunks_mut(per_piece).enumerate() {
            let bytes = &mut piece[..values.len() * float.size()];
            self.fill(&file, bytes, info.begin + (at * PIECE) as u64)?;
            hasher.update(bytes);
            if !widen(float, bytes, values) {
                bad.count(values, at * per_piece);
            }
        }
        check_unchanged(&self.path, &file, self.stamp)?;
        bad.refuse(&self.path, name, &info.shape)?;
        let hash = hasher.finalize().to_hex().to_string();
        Ok(InputRecord::of_tensor(&self.path, name, info.dtype, hash))
    }

    fn reopen(&self, name: &str) -> Result<(&TensorInfo, File)> {
        let info = self.info(name).ok_or_else(|| Error::missing(&self.path, format!("has no tensor `{}`", escape(name))))?;
        let (file, stamp) = open_regular(&self.path)?;
        if stamp != self.stamp {
            return Err(changed(&self.path));
        }
        Ok((info, file))
    }

    fn fill(&self, file: &File, bytes: &mut [u8], offset: u64) -> Result<()> {
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        file.read_exact_at(bytes, self.data_start + offset).map_err(|err| match err.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(&self.path),
            _ => unreadable(&self.path, &err),
        })
    }
}

fn check_unchanged(path: &Path, file: &File, stamp: Stamp) -> Result<()> {
    if Stamp::now(path, file)? == stamp { Ok(()) } else { Err(changed(path)) }
}

fn changed(path: &Path) -> Error {
    Error::missing(path, "changed while it was being read; expected the same size and time throughout, found others")
        .with_hint("run again when nothing writes to it")
}

fn is_pickle_name(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end))
}

/// Whether a file with the name of a pickle is a safetensors file by its first bytes: some models are published so.
fn looks_like_safetensors(path: &Path, file: &File) -> Result<bool> {
    let mut start = [0_u8; 9];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start[8] == b'{' && start[..4] != ZIP && start[6] == 0 && start[7] == 0),
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(err) => Err(unreadable(path, &err)),
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::checkpoint::generate::{Tensor, f32_tensor, file, raw, zero_tensor};

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn tensors_come_back_as_they_were() {
        let tensors = [f32_tensor("b", &[3, 4]), f32_tensor("a\u{1b}\n\0", &[5]), zero_tensor("empty", "I64", &[0, 7], 0)];
        let (_dir, path) = written(&file(&tensors));
        let opened = WeightsFile::open(&path).unwrap();
        assert_eq!(opened.names().collect::<Vec<_>>(), ["a\u{1b}\n\0", "b", "empty"]);
        for tensor in &tensors {
            let read = opened.read(&tensor.name).unwrap();
            assert_eq!((read.bytes(), read.hash.as_str()), (&tensor.bytes[..], blake3::hash(&tensor.bytes).to_hex().as_str()));
        }
        assert_eq!(opened.read("c").unwrap_err().exit_code(), 3);
        assert!(opened.info("empty").unwrap().is_empty());
    }

    #[test]
    fn every_accepted_file_is_accepted_by_the_reference_reader() {
        let bytes = file(&[f32_tensor("b", &[3, 4]), zero_tensor("a", "F8_E4M3", &[5], 5), zero_tensor("f", "F4", &[4], 2)]);
        let (_dir, path) = written(&bytes);
        let opened = WeightsFile::open(&path).unwrap();
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for name in opened.names() {
            let (ours, theirs) = (opened.read(name).unwrap(), reference.tensor(name).unwrap());
            assert_eq!((ours.dtype, &ours.shape[..], ours.bytes()), (theirs.dtype(), theirs.shape(), theirs.data()));
        }
    }

    #[test]
    fn an_empty_file_of_no_tensors_and_padding_are_fine() {
        let (_dir, path) = written(&raw(b"{}   ", b""));
        assert_eq!(WeightsFile::open(&path).unwrap().names().count(), 0);
    }

    #[test]
    fn pieces_join_exactly() {
        let count = 2 * PIECE as u64 / 4 + 77;
        let mut tensor = f32_tensor("w", &[count]);
        let (_dir, path) = written(&file(&[f32_tensor("a", &[3]), tensor.clone()]));
        let opened = WeightsFile::open(&path).unwrap();
        let mut out = vec![0.0; count as usize];
        let hash = opened.read_f64("w", &mut out).unwrap().blake3;
        let whole = opened.read("w").unwrap();
        assert_eq!((hash, out), (whole.hash.clone(), whole.to_f64().unwrap()));
        let at = count as usize - 2;
        tensor.bytes[4 * at..4 * at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let (_dir, path) = written(&file(&[tensor]));
        let opened = WeightsFile::open(&path).unwrap();
        let error = opened.read_f64("w", &mut vec![0.0; count as usize]).unwrap_err();
        assert!(error.to_string().contains(&format!("1 of NaN or Inf, the first (NaN) at index [{at}]")), "{error}");
    }

    #[test]
    fn a_file_that_changes_is_refused() {
        let bytes = file(&[f32_tensor("w", &[8])]);
        for change in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat()] {
            let (_dir, path) = written(&bytes);
            let opened = WeightsFile::open(&path).unwrap();
            std::fs::write(&path, change).unwrap();
            let error = opened.read("w").unwrap_err();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains("changed while"), "{error}");
        }
        let (_dir, path) = written(&bytes);
        let opened = WeightsFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(opened.read_f64("w", &mut [0.0; 8]).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn many_empty_tensors_open() {
        let tensors: Vec<Tensor> = (0..200_000).map(|at| zero_tensor(&format!("t{at}"), "F32", &[0], 0)).collect();
        let (_dir, path) = written(&file(&tensors));
        assert_eq!(WeightsFile::open(&path).unwrap().names().count(), 200_000);
    }
}
