//! Tensors as they are stored, and their exact widening to `f64`.
//!
//! Every stored float (F16, BF16, F32, F64) is a double exactly, so nothing is rounded here. NaN and Inf are refused here, so that every
//! number elsewhere is finite.

use std::path::{Path, PathBuf};

pub use safetensors::Dtype;

use crate::error::{Error, Result, escape};
use crate::record::InputRecord;
use crate::terms::named;

/// What a header says about one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The stored type.
    pub dtype: Dtype,
    /// The sizes, outermost first.
    pub shape: Vec<usize>,
    /// First byte, counted from the end of the header.
    pub(crate) begin: u64,
    /// One past the last byte.
    pub(crate) end: u64,
}

impl TensorInfo {
    /// The number of elements; the header check has ruled out overflow.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
}

/// The stored types that hold weights at full precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// IEEE double precision.
    F64,
}

named!(FloatType, "a stored type", { F32 = "F32", F16 = "F16", BF16 = "BF16", F64 = "F64" });

impl FloatType {
    /// The float type of a dtype, or `None` for integers and for floats of 8 bits and fewer.
    #[must_use]
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }

    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F64 => 8,
        }
    }

    /// The dtype of the format.
    #[must_use]
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::F64 => Dtype::F64,
        }
    }

    /// Whether a finite value rounds to a finite one of this type.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::F32 => (value as f32).is_finite(),
            Self::F16 => half::f16::from_f64(value).is_finite(),
            Self::BF16 => half::bf16::from_f64(value).is_finite(),
            Self::F64 => value.is_finite(),
        }
    }

    /// Appends a value rounded to this type, little-endian; false where it is beyond the range or not finite at all.
    pub(crate) fn narrow(self, value: f64, bytes: &mut Vec<u8>) -> bool {
        match self {
            Self::F32 => bytes.extend((value as f32).to_le_bytes()),
            Self::F16 => bytes.extend(half::f16::from_f64(value).to_le_bytes()),
            Self::BF16 => bytes.extend(half::bf16::from_f64(value).to_le_bytes()),
            Self::F64 => bytes.extend(value.to_le_bytes()),
        }
        self.holds(value)
    }
}

/// One tensor as it is stored.
#[derive(Debug, Clone)]
pub struct RawTensor {
    /// The file it came from.
    pub file: PathBuf,
    /// Its name there.
    pub name: String,
    /// The stored type.
    pub dtype: Dtype,
    /// The sizes, outermost first.
    pub shape: Vec<usize>,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub hash: String,
    pub(crate) bytes: Vec<u8>,
}

impl RawTensor {
    /// The stored bytes, little-endian, row-major.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The record that it was read.
    #[must_use]
    pub fn record(&self) -> InputRecord {
        InputRecord::of_tensor(&self.file, &self.name, self.dtype, self.hash.clone())
    }

    /// The float type of the tensor.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for integers and packed types.
    pub fn float_dtype(&self) -> Result<FloatType> {
        FloatType::of(self.dtype).ok_or_else(|| not_full_precision(&self.file, &self.name, self.dtype))
    }

    /// The one number of a tensor that may also be an integer, as `torch.tensor(8)` is.
    ///
    /// # Errors
    /// As [`RawTensor::to_f64`].
    pub(crate) fn number(&self) -> Result<f64> {
        match (self.dtype, &self.bytes[..]) {
            (Dtype::I64, &[a, b, c, d, e, f, g, h]) => Ok(i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64),
            (Dtype::I32, &[a, b, c, d]) => Ok(f64::from(i32::from_le_bytes([a, b, c, d]))),
            (Dtype::I16, &[a, b]) => Ok(f64::from(i16::from_le_bytes([a, b]))),
            (Dtype::I8, &[a]) => Ok(f64::from(i8::from_le_bytes([a]))),
            (Dtype::U8, &[a]) => Ok(f64::from(a)),
            _ => {
                let mut value = [0.0];
                self.write_f64(&mut value)?;
                Ok(value[0])
            }
        }
    }

    /// The values as `f64`, exactly.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a type that is no float, [`Error::Numerical`] for NaN or Inf.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let mut out = vec![0.0; self.bytes.len() / self.float_dtype()?.size()];
        self.write_f64(&mut out)?;
        Ok(out)
    }

    /// Writes the values as `f64` into `out`, which must have as many elements.
    ///
    /// # Errors
    /// As [`RawTensor::to_f64`], and [`Error::Shape`] if `out` has another length.
    pub fn write_f64(&self, out: &mut [f64]) -> Result<()> {
        let float = self.float_dtype()?;
        check_len(self.bytes.len() / float.size(), out.len())?;
        let mut bad = NonFinite::default();
        if !widen(float, &self.bytes, out) {
            bad.count(out, 0);
        }
        bad.refuse(&self.file, &self.name, &self.shape)
    }

    /// Checks that every value is finite.
    ///
    /// # Errors
    /// As [`RawTensor::to_f64`].
    pub fn check_finite(&self) -> Result<()> {
        const AT_ONCE: usize = 1024;
        let float = self.float_dtype()?;
        let (mut bad, mut values) = (NonFinite::default(), [0.0; AT_ONCE]);
        for (piece, bytes) in self.bytes.chunks(AT_ONCE * float.size()).enumerate() {
            let values = &mut values[..bytes.len() / float.size()];
            if !widen(float, bytes, values) {
                bad.count(values, piece * AT_ONCE);
            }
        }
        bad.refuse(&self.file, &self.name, &self.shape)
    }

    /// Writes the values from element `first` on as `f64` into `out`, NaN and Inf included.
    ///
    /// # Panics
    /// For a tensor that is no float or has fewer elements: pairing has refused such a weight by then.
    pub fn widen_part(&self, first: usize, out: &mut [f64]) {
        let Some(float) = FloatType::of(self.dtype) else { unreachable!("a weight that is paired is a float") };
        let begin = first * float.size();
        widen(float, &self.bytes[begin..begin + out.len() * float.size()], out);
    }
}

/// The error for a weight that is not stored as a full-precision float.
pub(crate) fn not_full_precision(file: &Path, name: &str, dtype: Dtype) -> Error {
    let what = format!("tensor `{}` needs full precision", escape(name));
    Error::mismatch(file, what, "F32, F16, BF16 or F64", dtype.to_string())
        .with_hint("quantised and integer weights cannot be used: give the unquantised checkpoint")
}

pub(crate) fn check_len(elements: usize, room: usize) -> Result<()> {
    if elements == room {
        return Ok(());
    }
    Err(Error::Shape { what: "buffer for a tensor", expected: elements.to_string(), found: room.to_string() })
}

/// Widens little-endian `bytes` into `out` and says whether every value is finite.
///
/// One pass without branches, so that it runs at the speed of memory: a float is NaN or Inf exactly where all bits of its
/// exponent are set.
pub(crate) fn widen(float: FloatType, bytes: &[u8], out: &mut [f64]) -> bool {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || widen_here(float, bytes, out),
    )
}

/// [`widen`], compiled for each kind of vector register.
#[inline(always)]
fn widen_here(float: FloatType, bytes: &[u8], out: &mut [f64]) -> bool {
    let mut bad = 0_u32;
    match float {
        FloatType::F32 => {
            for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                let bits = u32::from_le_bytes(*stored);
                bad |= u32::from(bits & 0x7f80_0000 == 0x7f80_0000);
                *value = f64::from(f32::from_bits(bits));
            }
        }
        FloatType::BF16 => {
            for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                let bits = u32::from(u16::from_le_bytes(*stored)) << 16;
                bad |= u32::from(bits & 0x7f80_0000 == 0x7f80_0000);
                *value = f64::from(f32::from_bits(bits));
            }
        }
        FloatType::F16 => {
            for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                let bits = u16::from_le_bytes(*stored);
                bad |= u32::from(bits & 0x7c00 == 0x7c00);
                *value = half::f16::from_bits(bits).to_f64();
            }
        }
        FloatType::F64 => {
            for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                let bits = u64::from_le_bytes(*stored);
                bad |= u32::from((bits >> 32) as u32 & 0x7ff0_0000 == 0x7ff0_0000);
                *value = f64::from_bits(bits);
            }
        }
    }
    bad == 0
}

/// Counts the values that are not finite and remembers the first.
#[derive(Debug, Default)]
pub(crate) struct NonFinite {
    found: usize,
    first: Option<(usize, f64)>,
}

impl NonFinite {
    /// Counts those in `values`, the first of which has index `offset` in the tensor.
    pub(crate) fn count(&mut self, values: &[f64], offset: usize) {
        for (at, value) in values.iter().enumerate().filter(|(_, value)| !value.is_finite()) {
            self.found += 1;
            self.first.get_or_insert((offset + at, *value));
        }
    }

    /// The error, if any was counted.
    pub(crate) fn refuse(&self, file: &Path, name: &str, shape: &[usize]) -> Result<()> {
        let Some((flat, value)) = self.first else { return Ok(()) };
        let (mut index, mut rest) = (Vec::with_capacity(shape.len()), flat);
        for size in shape.iter().rev() {
            index.push(rest % size.max(&1));
            rest /= size.max(&1);
        }
        index.reverse();
        let found = format!("{} of NaN or Inf, the first ({value}) at index {}", self.found, show_shape(&index));
        Err(Error::numerical(file, format!("tensor `{}`", escape(name)), "finite values", found))
    }
}

/// The two sizes of a matrix; of the kernels of a convolution `[out, in, height, width]`, those of the matrix `[out, in·height·width]` that it applies to
/// each patch. Anything else is refused.
pub(crate) fn matrix_shape(file: &Path, name: &str, info: &TensorInfo) -> Result<[usize; 2]> {
    let what = || format!("shape of tensor `{}`", escape(name));
    let shape = match info.shape[..] {
        [0] => {
            let error = Error::mismatch(file, what(), "a matrix", "[0], no values at all");
            return Err(error.with_hint(
                "DeepSpeed ZeRO-3 keeps the values in its shards: save again with stage3_gather_16bit_weights_on_model_save, or run zero_to_fp32.py",
            ));
        }
        [rows, columns] => [rows, columns],
        // Only beside a size of 0 could the product be more than a file holds.
        [rows, columns, height, width] => [rows, columns.saturating_mul(height).saturating_mul(width)],
        [_, _, _] => {
            let found = format!("{} (a 1-D convolution, or the weights of several experts)", show_shape(&info.shape));
            return Err(Error::mismatch(file, what(), "a matrix or a 2-D convolution", found));
        }
        _ => return Err(Error::mismatch(file, what(), "a matrix or a 2-D convolution", show_shape(&info.shape))),
    };
    if shape.contains(&0) {
        return Err(Error::mismatch(file, what(), "sizes above 0", show_shape(&info.shape)));
    }
    Ok(shape)
}

/// A shape as it is printed: `[8, 384]`, cut after eight sizes.
#[must_use]
pub(crate) fn show_shape(shape: &[usize]) -> String {
    const MOST: usize = 8;
    let mut sizes: Vec<String> = shape.iter().take(MOST).map(usize::to_string).collect();
    if shape.len() > MOST {
        sizes.push(format!("... {} sizes", shape.len()));
    }
    format!("[{}]", sizes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: Dtype, bytes: Vec<u8>) -> RawTensor {
        let count = bytes.len() * 8 / dtype.bitsize();
        RawTensor { file: "x.safetensors".into(), name: "w".into(), dtype, shape: vec![count], hash: String::new(), bytes }
    }

    #[test]
    fn every_half_widens_exactly() {
        let all: Vec<u16> = (0..=u16::MAX).filter(|bits| bits & 0x7c00 != 0x7c00).collect();
        let bytes: Vec<u8> = all.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let values = tensor(Dtype::F16, bytes).to_f64().unwrap();
        for (bits, value) in all.iter().zip(values) {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let size = if exponent == 0 { fraction * 2f64.powi(-24) } else { (1024.0 + fraction) * 2f64.powi(exponent - 25) };
            assert_eq!(value, if bits >> 15 == 1 { -size } else { size });
        }
    }

    #[test]
    fn singles_and_brain_floats_widen_exactly() {
        for value in [0.0_f32, -0.0, 1.5, f32::MIN_POSITIVE / 8.0, -3.4e38, 1.0e-45] {
            let wide = tensor(Dtype::F32, value.to_le_bytes().to_vec()).to_f64().unwrap();
            assert_eq!(wide[0].to_bits(), f64::from(value).to_bits());
            let cut = f32::from_bits(value.to_bits() & 0xffff_0000);
            let bytes = ((value.to_bits() >> 16) as u16).to_le_bytes().to_vec();
            assert_eq!(tensor(Dtype::BF16, bytes).to_f64().unwrap()[0].to_bits(), f64::from(cut).to_bits());
        }
        assert_eq!(tensor(Dtype::F64, 0.1_f64.to_le_bytes().to_vec()).to_f64().unwrap(), [0.1]);
    }

    #[test]
    fn nan_and_inf_are_counted_and_placed() {
        let mut values = [1.0_f32; 12];
        (values[5], values[7]) = (f32::NAN, f32::NEG_INFINITY);
        let mut bad = tensor(Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        bad.shape = vec![3, 4];
        let error = bad.to_f64().unwrap_err();
        assert_eq!(error.exit_code(), 6);
        let text = error.to_string();
        assert!(text.contains("2 of NaN or Inf, the first (NaN) at index [1, 1]"), "{text}");
        for (dtype, bytes) in
            [(Dtype::F16, vec![0, 0x7c]), (Dtype::BF16, vec![0x80, 0xff]), (Dtype::F64, f64::NAN.to_le_bytes().to_vec())]
        {
            assert_eq!(tensor(dtype, bytes).to_f64().unwrap_err().exit_code(), 6);
        }
    }

    #[test]
    fn integers_need_full_precision() {
        let error = tensor(Dtype::U8, vec![1, 2]).to_f64().unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("full precision"));
    }

    #[test]
    fn a_wrong_buffer_is_a_bug() {
        assert_eq!(tensor(Dtype::F32, vec![0; 8]).write_f64(&mut [0.0; 3]).unwrap_err().exit_code(), 70);
    }
}
