//! Values as a file that gives back every bit: numbers and matrices as F64 tensors of a safetensors file, everything else as JSON beside them.
//!
//! A value is written part by part, in the order of its fields, and read back in the same order. Matrices have the names of the fields that lead to them,
//! so that other programs can read them: `members.0.matrices.B.left`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{Array2, ShapeBuilder};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result, escape};

/// The tensors that hold what is no matrix.
const NUMBERS: &str = "numbers";
const TEXTS: &str = "texts";

/// Something that can be stored.
pub(crate) trait Stored: Sized {
    /// Writes all of it.
    fn put(&self, to: &mut Writer);

    /// Reads it back.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the file holds something else.
    fn take(from: &mut Reader<'_>) -> Result<Self>;
}

/// What has been written of a value.
#[derive(Default)]
pub(crate) struct Writer {
    place: Vec<String>,
    texts: Vec<Value>,
    numbers: Vec<f64>,
    matrices: Vec<(String, [usize; 2], Vec<u8>)>,
    /// Matrices that several parts have in common, by address, with their number.
    shared: HashMap<usize, usize>,
}

impl Writer {
    /// The file of a value.
    ///
    /// # Errors
    /// [`Error::Internal`] if it cannot be put together.
    pub(crate) fn bytes_of(value: &impl Stored) -> Result<Vec<u8>> {
        let mut to = Self::default();
        value.put(&mut to);
        let failed = |error: &dyn std::fmt::Display| Error::internal("storing a solved weight", error);
        let texts = serde_json::to_vec(&to.texts).map_err(|error| failed(&error))?;
        let numbers = bytes_of(&to.numbers);
        let view = |dtype, shape: Vec<usize>, bytes| TensorView::new(dtype, shape, bytes).map_err(|error| failed(&error));
        let mut tensors = vec![
            (NUMBERS.to_owned(), view(Dtype::F64, vec![to.numbers.len()], &numbers)?),
            (TEXTS.to_owned(), view(Dtype::U8, vec![texts.len()], &texts)?),
        ];
        for (name, shape, bytes) in &to.matrices {
            tensors.push((name.clone(), view(Dtype::F64, shape.to_vec(), bytes)?));
        }
        safetensors::serialize(tensors, None).map_err(|error| failed(&error))
    }

    /// A part of the value.
    pub(crate) fn part(&mut self, name: &str, value: &impl Stored) {
        self.place.push(name.to_owned());
        value.put(self);
        self.place.pop();
    }

    pub(crate) fn text(&mut self, value: &impl Serialize) {
        let value = serde_json::to_value(value);
        self.texts.push(value.unwrap_or_else(|error| unreachable!("plain values and structs of them have JSON: {error}")));
    }
}

/// A file that is being read.
pub(crate) struct Reader<'f> {
    path: PathBuf,
    place: Vec<String>,
    texts: std::vec::IntoIter<Value>,
    numbers: std::vec::IntoIter<f64>,
    tensors: SafeTensors<'f>,
    shared: Vec<Arc<Array2<f64>>>,
}

impl<'f> Reader<'f> {
    /// The value in a file that was read from `path`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it holds something else.
    pub(crate) fn value_of<T: Stored>(path: &Path, bytes: &'f [u8]) -> Result<T> {
        let wrong = |found: String| malformed(path, "contents", found);
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| wrong(error.to_string()))?;
        let named = |name: &str| tensors.tensor(name).map_err(|error| wrong(error.to_string()));
        let texts: Vec<Value> = serde_json::from_slice(named(TEXTS)?.data()).map_err(|error| wrong(error.to_string()))?;
        let numbers = numbers_of(named(NUMBERS)?.data());
        let (texts, numbers) = (texts.into_iter(), numbers.into_iter());
        let mut from = Self { path: path.to_owned(), place: Vec::new(), texts, numbers, tensors, shared: Vec::new() };
        T::take(&mut from)
    }

    /// A part of the value.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the file holds something else.
    pub(crate) fn part<T: Stored>(&mut self, name: &str) -> Result<T> {
        self.place.push(name.to_owned());
        let value = T::take(self)?;
        self.place.pop();
        Ok(value)
    }

    /// The file, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn wrong(&self, found: impl Into<String>) -> Error {
        malformed(&self.path, &format!("`{}`", escape(&self.place.join("."))), found)
    }

    pub(crate) fn text<T: DeserializeOwned>(&mut self) -> Result<T> {
        let value = self.texts.next().ok_or_else(|| self.wrong("nothing"))?;
        serde_json::from_value(value).map_err(|error| self.wrong(error.to_string()))
    }
}

fn malformed(path: &Path, what: &str, found: impl Into<String>) -> Error {
    Error::malformed(path, what, "what analyze --shard writes", escape(&found.into()))
}

fn bytes_of(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn numbers_of(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

impl Stored for f64 {
    fn put(&self, to: &mut Writer) {
        to.numbers.push(*self);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        from.numbers.next().ok_or_else(|| from.wrong("no number"))
    }
}

/// Stores types as their JSON, which must hold no fraction: those are numbers.
macro_rules! stored_as_json {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::stored::Stored for $type {
            fn put(&self, to: &mut $crate::stored::Writer) {
                to.text(self);
            }

            fn take(from: &mut $crate::stored::Reader<'_>) -> $crate::error::Result<Self> {
                from.text()
            }
        }
    )*};
}

pub(crate) use stored_as_json;

stored_as_json!(bool, usize, String);

/// Stores a struct field by field.
macro_rules! stored {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::stored::Stored for $type {
            fn put(&self, to: &mut $crate::stored::Writer) {
                $(to.part(stringify!($field), &self.$field);)*
            }

            fn take(from: &mut $crate::stored::Reader<'_>) -> $crate::error::Result<Self> {
                Ok(Self { $($field: from.part(stringify!($field))?),* })
            }
        }
    };
}
pub(crate) use stored;

impl<T: Stored> Stored for Option<T> {
    fn put(&self, to: &mut Writer) {
        to.text(&self.is_some());
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        Ok(if from.text()? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn put(&self, to: &mut Writer) {
        to.text(&self.len());
        for (index, value) in self.iter().enumerate() {
            to.part(&index.to_string(), value);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        let count: usize = from.text()?;
        (0..count).map(|index| from.part(&index.to_string())).collect()
    }
}

impl<T: Stored> Stored for [T; 2] {
    fn put(&self, to: &mut Writer) {
        to.part("0", &self[0]);
        to.part("1", &self[1]);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        Ok([from.part("0")?, from.part("1")?])
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn put(&self, to: &mut Writer) {
        to.part("0", &self.0);
        to.part("1", &self.1);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        Ok((from.part("0")?, from.part("1")?))
    }
}

impl<K: Stored + Ord + Debug, V: Stored> Stored for BTreeMap<K, V> {
    fn put(&self, to: &mut Writer) {
        to.text(&self.len());
        for (key, value) in self {
            key.put(to);
            to.part(&format!("{key:?}"), value);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        let count: usize = from.text()?;
        let mut all = Self::new();
        for _ in 0..count {
            let key = K::take(from)?;
            let value = from.part(&format!("{key:?}"))?;
            all.insert(key, value);
        }
        Ok(all)
    }
}

/// With its order in memory, because sums go along it.
impl Stored for Array2<f64> {
    fn put(&self, to: &mut Writer) {
        let (rows, columns) = self.dim();
        let by_columns = !self.is_standard_layout();
        // A row-major matrix, or the transpose of one.
        let (shape, bytes) = if by_columns {
            ([columns, rows], bytes_of(self.t().as_standard_layout().as_slice().unwrap_or_default()))
        } else {
            ([rows, columns], bytes_of(self.as_slice().unwrap_or_default()))
        };
        to.text(&by_columns);
        to.matrices.push((to.place.join("."), shape, bytes));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        let by_columns: bool = from.text()?;
        let name = from.place.join(".");
        let tensor = from.tensors.tensor(&name).map_err(|error| from.wrong(error.to_string()))?;
        let [first, second] = *tensor.shape() else { return Err(from.wrong("no matrix")) };
        let values = numbers_of(tensor.data());
        let found = if by_columns {
            Self::from_shape_vec((second, first).f(), values)
        } else {
            Self::from_shape_vec((first, second), values)
        };
        found.map_err(|error| from.wrong(error.to_string()))
    }
}

/// Once, however many parts have it.
impl Stored for Arc<Array2<f64>> {
    fn put(&self, to: &mut Writer) {
        let (next, address) = (to.shared.len(), Arc::as_ptr(self) as usize);
        let number = *to.shared.entry(address).or_insert(next);
        to.text(&number);
        if number == next {
            let place = std::mem::replace(&mut to.place, vec!["shared".to_owned(), number.to_string()]);
            self.as_ref().put(to);
            to.place = place;
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        let number: usize = from.text()?;
        if number == from.shared.len() {
            let place = std::mem::replace(&mut from.place, vec!["shared".to_owned(), number.to_string()]);
            let matrix = Array2::take(from)?;
            from.place = place;
            from.shared.push(Self::new(matrix));
        }
        from.shared.get(number).cloned().ok_or_else(|| from.wrong("a matrix that is not there"))
    }
}

/// What is said of it, and the exit code.
impl Stored for Error {
    fn put(&self, to: &mut Writer) {
        to.text(&(self.to_string(), self.exit_code(), self.hint()));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self> {
        let (text, code, hint) = from.text()?;
        Ok(Self::Elsewhere { text, code, hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, s};

    #[derive(Debug, PartialEq, Clone)]
    struct Example {
        name: String,
        sizes: Vec<f64>,
        by_rank: BTreeMap<usize, Vec<Array2<f64>>>,
        none: Option<usize>,
        one: Arc<Array2<f64>>,
        same: Arc<Array2<f64>>,
    }

    stored!(Example { name, sizes, by_rank, none, one, same });

    fn example() -> Example {
        let one = Arc::new(array![[1.0, f64::MIN_POSITIVE], [-0.0, 0.1]]);
        let by_columns = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].reversed_axes();
        let empty = Array2::zeros((0, 4));
        let matrices = vec![by_columns, empty, array![[7.0, 8.0], [9.0, 1e300]].slice(s![.., 1..]).to_owned()];
        Example {
            name: "a \"b\"\n".into(),
            sizes: vec![0.1, f64::INFINITY, f64::MAX, 5e-324],
            by_rank: [(3, matrices), (1, Vec::new())].into(),
            none: None,
            same: Arc::clone(&one),
            one,
        }
    }

    fn read(bytes: &[u8]) -> Result<Example> {
        Reader::value_of(Path::new("file"), bytes)
    }

    #[test]
    fn everything_comes_back_in_the_order_it_had_in_memory() {
        let (written, bytes) = (example(), Writer::bytes_of(&example()).unwrap());
        let found = read(&bytes).unwrap();
        assert_eq!(found, written);
        for (one, other) in found.by_rank[&3].iter().zip(&written.by_rank[&3]) {
            assert_eq!((one.strides(), one.is_standard_layout()), (other.strides(), other.is_standard_layout()));
        }
        assert!(found.one[(1, 0)].is_sign_negative() && Arc::ptr_eq(&found.one, &found.same));
        // Other programs find matrices by the names of the fields.
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("by_rank.3.2").unwrap().shape(), [2, 1]);
        assert_eq!(tensors.len(), 2 + 3 + 1);
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let bytes = Writer::bytes_of(&example()).unwrap();
        for cut in [0, 7, 100, bytes.len() - 1] {
            assert_eq!(read(&bytes[..cut]).unwrap_err().exit_code(), 4);
        }
        let other = Writer::bytes_of(&vec![1.0, 2.0]).unwrap();
        let message = read(&other).unwrap_err().to_string();
        assert!(message.starts_with("file: `name`; expected what analyze --shard writes, found "), "{message}");
        let failed = Error::usage("x").with_hint("y");
        let back: Error = Reader::value_of(Path::new("file"), &Writer::bytes_of(&failed).unwrap()).unwrap();
        assert_eq!((back.to_string(), back.exit_code(), back.hint()), ("x".to_owned(), 2, Some("y")));
    }
}
