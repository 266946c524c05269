//! Writes `.safetensors` tensor by tensor: the names, types and shapes are announced first, then the values of one tensor after
//! another are written, so that they are never all in memory.
//!
//! The `safetensors` crate has a writer too (`serialize_to_file` in 0.8), which also asks for one tensor at a time. It does not serve
//! here: it opens its file itself, where ours goes through a stream that is hashed for the manifest and appears only when it is whole;
//! it sorts the tensors by type and name, where ours keeps the order of the layers (and thus the bytes that earlier versions wrote);
//! and its `View::data` cannot fail, while a factor is computed as it is written, from a file that may have changed or hold a NaN.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::checkpoint::files::tensor::{Dtype, FloatType, RawTensor};

/// Bytes that are collected before they are written.
const PIECE: usize = 1 << 15;
/// The header is padded so that the values start at a multiple of this, as the `safetensors` crate does.
const ALIGNMENT: usize = 8;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type it is stored in.
    pub dtype: Dtype,
    /// The sizes, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of floats.
    #[must_use]
    pub fn floats(name: impl Into<String>, float: FloatType, shape: &[usize]) -> Self {
        Self { name: name.into(), dtype: float.dtype(), shape: shape.to_vec() }
    }

    /// How many bytes its values take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// A file that is being written: after its header the tensors, in the order in which they were announced.
#[derive(Debug)]
pub struct SafetensorsWriter<W: Write> {
    out: W,
    specs: Vec<TensorSpec>,
    next: usize,
}

impl<W: Write> SafetensorsWriter<W> {
    /// Writes the header. Names must differ from each other.
    ///
    /// # Errors
    /// Only those of `out`, and [`io::ErrorKind::InvalidInput`] for two tensors of one name.
    pub fn begin(mut out: W, specs: Vec<TensorSpec>) -> io::Result<Self> {
        let mut entries = Map::new();
        // transformers and PEFT refuse files that do not say they are PyTorch's.
        entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut begin = 0;
        for spec in &specs {
            let end = begin + spec.bytes();
            let entry = json!({ "dtype": spec.dtype.to_string(), "shape": spec.shape, "data_offsets": [begin, end] });
            if entries.insert(spec.name.clone(), entry).is_some() {
                return Err(invalid(format!("two tensors named `{}`", spec.name)));
            }
            begin = end;
        }
        let mut header = serde_json::to_vec(&Value::Object(entries))?;
        header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        Ok(Self { out, specs, next: 0 })
    }

    /// Writes the next tensor's values, row-major, each rounded once to the stored type.
    ///
    /// # Errors
    /// Those of `out`; [`io::ErrorKind::InvalidInput`] if another number of values was announced, if the type is no float, or if a value
    /// is not finite in it.
    pub fn write_values<'v>(&mut self, values: impl IntoIterator<Item = &'v f64>) -> io::Result<()> {
        let spec = self.specs.get(self.next).ok_or_else(|| invalid("more tensors than were announced".to_owned()))?;
        let Some(float) = FloatType::of(spec.dtype) else {
            return Err(invalid(format!("tensor `{}` holds no floats but {}", spec.name, spec.dtype)));
        };
        let (mut bytes, mut written) = (Vec::with_capacity(PIECE), 0);
        for value in values {
            if !float.narrow(*value, &mut bytes) {
                return Err(invalid(format!("tensor `{}`: {value:e} is beyond the range of {}", spec.name, float.name())));
            }
            if bytes.len() >= PIECE {
                self.out.write_all(&bytes)?;
                written += bytes.len();
                bytes.clear();
            }
        }
        self.out.write_all(&bytes)?;
        self.end_tensor(written + bytes.len())
    }

    /// Writes the next tensor as it was stored elsewhere.
    ///
    /// # Errors
    /// Those of `out`; [`io::ErrorKind::InvalidInput`] if another type or size was announced.
    pub fn write_stored(&mut self, tensor: &RawTensor) -> io::Result<()> {
        if self.specs.get(self.next).is_none_or(|spec| spec.dtype != tensor.dtype) {
            return Err(invalid(format!("tensor `{}` has another type than was announced", tensor.name)));
        }
        self.out.write_all(tensor.bytes())?;
        self.end_tensor(tensor.bytes().len())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of `out`; [`io::ErrorKind::InvalidInput`] if a tensor is missing.
    pub fn finish(mut self) -> io::Result<()> {
        match self.specs.get(self.next) {
            None => self.out.flush(),
            Some(spec) => Err(invalid(format!("tensor `{}` was not written", spec.name))),
        }
    }

    fn end_tensor(&mut self, written: usize) -> io::Result<()> {
        let spec = &self.specs[self.next];
        if written != spec.bytes() {
            return Err(invalid(format!("tensor `{}` has {} bytes, {written} were written", spec.name, spec.bytes())));
        }
        self.next += 1;
        Ok(())
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::WeightsFile;
    use safetensors::SafeTensors;
    use std::slice::from_ref;

    const VALUES: [f64; 6] = [1.0, -2.5, 0.0, 1.0 + 1.0 / 1024.0, 3.0e-5, -0.1];

    fn written(float: FloatType) -> Vec<u8> {
        let mut bytes = Vec::new();
        let specs = vec![TensorSpec::floats("b\"\n", float, &[2, 3]), TensorSpec::floats("a", float, &[6])];
        let mut writer = SafetensorsWriter::begin(&mut bytes, specs).unwrap();
        writer.write_values(&VALUES).unwrap();
        writer.write_values(VALUES.iter().rev()).unwrap();
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn the_safetensors_crate_reads_what_was_written() {
        for (float, size) in [(FloatType::F32, 4), (FloatType::F64, 8), (FloatType::F16, 2), (FloatType::BF16, 2)] {
            let bytes = written(float);
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let tensor = tensors.tensor("b\"\n").unwrap();
            assert_eq!((tensor.shape(), tensor.dtype()), (&[2, 3][..], float.dtype()));
            let ours = |data: &[u8], k: usize| -> f64 {
                let part = &data[k * size..][..size];
                match float {
                    FloatType::F32 => f32::from_le_bytes(part.try_into().unwrap()).into(),
                    FloatType::F64 => f64::from_le_bytes(part.try_into().unwrap()),
                    FloatType::F16 => half::f16::from_le_bytes(part.try_into().unwrap()).into(),
                    FloatType::BF16 => half::bf16::from_le_bytes(part.try_into().unwrap()).into(),
                }
            };
            let turned = tensors.tensor("a").unwrap();
            // Half a unit in the last place; F16 is subnormal below 6.1e-5.
            let (relative, absolute) = match float {
                FloatType::F64 => (0.0, 0.0),
                FloatType::F32 => (2.0_f64.powi(-24), 0.0),
                FloatType::F16 => (2.0_f64.powi(-11), 2.0_f64.powi(-25)),
                FloatType::BF16 => (2.0_f64.powi(-8), 0.0),
            };
            for (k, value) in VALUES.iter().enumerate() {
                let error = (ours(tensor.data(), k) - value).abs();
                assert!(error <= (relative * value.abs()).max(absolute), "{float:?} {value}: {error:e}");
                assert_eq!(ours(turned.data(), 5 - k), ours(tensor.data(), k));
            }
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(header % 8, 0);
        }
    }

    #[test]
    fn our_own_reader_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, written(FloatType::F64)).unwrap();
        let file = WeightsFile::open(&path).unwrap();
        assert_eq!(file.read("b\"\n").unwrap().to_f64().unwrap(), VALUES);
        let mut copy = Vec::new();
        let mut writer = SafetensorsWriter::begin(&mut copy, vec![TensorSpec::floats("a", FloatType::F64, &[6])]).unwrap();
        writer.write_stored(&file.read("a").unwrap()).unwrap();
        writer.finish().unwrap();
        let reversed: Vec<u8> = VALUES.iter().rev().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(SafeTensors::deserialize(&copy).unwrap().tensor("a").unwrap().data(), reversed);
    }

    #[test]
    fn what_was_not_announced_is_refused() {
        let begin = |specs: &[TensorSpec]| SafetensorsWriter::begin(Vec::new(), specs.to_vec());
        let one = TensorSpec::floats("a", FloatType::F16, &[2]);
        assert!(begin(&[one.clone(), one.clone()]).is_err());
        assert!(begin(from_ref(&one)).unwrap().write_values(&[1.0]).is_err());
        assert!(begin(from_ref(&one)).unwrap().write_values(&[1.0, 1e5]).unwrap_err().to_string().contains("range of F16"));
        assert!(begin(from_ref(&one)).unwrap().finish().is_err());
        assert!(begin(&[]).unwrap().write_values(&[]).is_err());
        let integers = TensorSpec { dtype: Dtype::I64, ..one };
        assert!(begin(from_ref(&integers)).unwrap().write_values(&[1.0, 2.0]).is_err());
    }
}
