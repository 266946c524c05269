//! What a pickle makes: its objects, each kept once and referred to by its number, so that no nesting, repetition or cycle costs more than the bytes that
//! describe it.
//!
//! Every count has a limit. Together they keep memory to the bytes of the pickle, twice, and some 64 MB.

use safetensors::Dtype;

use super::refusal::Refused;
use crate::checkpoint::files::safetensors::header::LONGEST_NAME;
use crate::error::escape;

/// A tensor is some ten objects.
const MOST_OBJECTS: usize = 500_000;
/// Values in tuples and dictionaries: a tensor has some twenty.
const MOST_HELD: usize = 2_000_000;
/// The most tensors one file may have: the largest mixtures of experts have some thousands in one.
const MOST_TENSORS: usize = 50_000;
/// No tensor of a checkpoint has more dimensions than a handful.
const MOST_DIMENSIONS: usize = 8;
/// Names of storages are short numbers.
const LONGEST_KEY: usize = 100;

/// The number of an object.
type Id = u32;

/// What is on the stack or in a container. Of what no tensor needs (None, booleans, floats) nothing is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Nothing,
    Int(i64),
    Object(Id),
}

#[derive(Debug)]
pub(super) enum Object {
    Text(Box<str>),
    Tuple(Box<[Value]>),
    /// Its items are not kept: no dictionary of tensors needs any.
    List,
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(StorageObject),
    Tensor(TensorObject),
}

/// The globals of a tensor dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    /// A dtype and the bytes of an element.
    StorageType(Dtype, u8),
}

/// A storage; its key is a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct StorageObject {
    pub(super) dtype: Dtype,
    pub(super) size: u8,
    pub(super) key: Id,
    pub(super) elements: u64,
}

/// A tensor; its storage, shape and strides are objects of their own.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorObject {
    pub(super) storage: Id,
    pub(super) shape: Id,
    pub(super) strides: Id,
    pub(super) offset: u64,
}

/// A tensor of the dictionary: a view of a storage. Offset and strides in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PickledTensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    /// Bytes of an element.
    pub(super) size: u8,
    /// The storage's name in the archive, and how many elements it has.
    pub(super) key: String,
    pub(super) elements: u64,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// All objects of one pickle.
#[derive(Debug, Default)]
pub(super) struct Objects {
    objects: Vec<Object>,
    held: usize,
}

impl Objects {
    /// Keeps an object.
    pub(super) fn make(&mut self, object: Object) -> Result<Value, Refused> {
        if self.objects.len() >= MOST_OBJECTS {
            return Err(Refused::Broken("more objects than any dictionary of tensors has"));
        }
        if let Object::Tuple(items) = &object {
            self.hold(items.len())?;
        }
        let id = Id::try_from(self.objects.len()).map_err(|_| Refused::Broken("too many objects"))?;
        self.objects.push(object);
        Ok(Value::Object(id))
    }

    fn hold(&mut self, values: usize) -> Result<(), Refused> {
        self.held = self.held.saturating_add(values);
        if self.held > MOST_HELD {
            return Err(Refused::Broken("more values than any dictionary of tensors has"));
        }
        Ok(())
    }

    pub(super) fn get(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(id) => self.by_id(id),
            _ => None,
        }
    }

    fn by_id(&self, id: Id) -> Option<&Object> {
        self.objects.get(usize::try_from(id).ok()?)
    }

    /// A text and its number.
    pub(super) fn text(&self, value: Value) -> Result<(Id, &str), Refused> {
        match (value, self.get(value)) {
            (Value::Object(id), Some(Object::Text(text))) => Ok((id, text)),
            _ => Err(Refused::Broken("no text where a name belongs")),
        }
    }

    /// The text that names a storage.
    pub(super) fn key(&self, value: Value) -> Result<Id, Refused> {
        match self.text(value)? {
            (id, key) if key.len() <= LONGEST_KEY => Ok(id),
            _ => Err(Refused::Broken("a storage's name longer than any")),
        }
    }

    /// The number of a tuple of sizes, which is checked.
    pub(super) fn sizes(&self, value: Value) -> Result<Id, Refused> {
        match (value, self.get(value)) {
            (Value::Object(id), Some(Object::Tuple(items))) if items.len() <= MOST_DIMENSIONS => {
                items.iter().try_for_each(|item| size::<usize>(*item).map(drop))?;
                Ok(id)
            }
            (_, Some(Object::Tuple(_))) => Err(Refused::Broken("more dimensions than any tensor has")),
            _ => Err(Refused::Broken("no tuple of sizes")),
        }
    }

    /// The number of a storage.
    pub(super) fn storage(&self, value: Value) -> Result<Id, Refused> {
        match (value, self.get(value)) {
            (Value::Object(id), Some(Object::Storage(_))) => Ok(id),
            _ => Err(Refused::Broken("a tensor without a storage")),
        }
    }

    /// Puts pairs of key and value into a dictionary.
    pub(super) fn set(&mut self, dict: Value, items: &[Value]) -> Result<(), Refused> {
        self.hold(items.len())?;
        let (pairs, rest) = items.as_chunks::<2>();
        match dict {
            Value::Object(id) if rest.is_empty() => match self.objects.get_mut(id as usize) {
                Some(Object::Dict(entries)) => {
                    // Most dictionaries are filled once; a small one should not take room for four entries.
                    if entries.is_empty() {
                        entries.reserve_exact(pairs.len());
                    }
                    entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                    Ok(())
                }
                _ => Err(Refused::Broken("entries of something that is no dictionary")),
            },
            _ => Err(Refused::Broken("entries of something that is no dictionary")),
        }
    }

    /// The tensors of a dictionary, or of its entry `state_dict`, sorted by name.
    pub(super) fn tensors(&self, top: Value) -> Result<Vec<PickledTensor>, Refused> {
        let Some(Object::Dict(entries)) = self.get(top) else {
            return Err(Refused::NotPlain("something that is no dictionary".to_owned()));
        };
        let wrapped = entries.iter().find(|(key, _)| self.text(*key).is_ok_and(|(_, key)| key == "state_dict"));
        let entries = match wrapped.map(|(_, value)| self.get(*value)) {
            Some(Some(Object::Dict(inner))) => inner,
            _ => entries,
        };
        if entries.len() > MOST_TENSORS {
            return Err(Refused::NotPlain(format!("{} entries, where {MOST_TENSORS} are the most", entries.len())));
        }
        let mut named = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Ok((_, name)) = self.text(*key) else {
                return Err(Refused::NotPlain("an entry whose name is no text".to_owned()));
            };
            let Some(Object::Tensor(tensor)) = self.get(*value) else {
                return Err(Refused::NotPlain(format!("the entry `{}`, which is no tensor", escape(name))));
            };
            // A longer one could name many entries at the cost of a few bytes each, and be compared many times.
            if name.len() > LONGEST_NAME {
                return Err(Refused::Broken("a tensor's name longer than any"));
            }
            named.push((name, tensor));
        }
        named.sort_by_key(|(name, _)| *name);
        // Before any name is copied: it could be repeated at the cost of a few bytes.
        if let Some(pair) = named.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Refused::Twice(pair[0].0.to_owned()));
        }
        named.into_iter().map(|(name, tensor)| self.tensor(name, tensor)).collect()
    }

    fn tensor(&self, name: &str, tensor: &TensorObject) -> Result<PickledTensor, Refused> {
        let Some(Object::Storage(storage)) = self.by_id(tensor.storage) else {
            return Err(Refused::Broken("a tensor without a storage"));
        };
        let (_, key) = self.text(Value::Object(storage.key))?;
        let sizes = |id| match self.by_id(id) {
            Some(Object::Tuple(items)) => items.iter().map(|item| size(*item)).collect::<Result<Vec<usize>, Refused>>(),
            _ => Err(Refused::Broken("no tuple of sizes")),
        };
        Ok(PickledTensor {
            name: name.to_owned(),
            dtype: storage.dtype,
            size: storage.size,
            key: key.to_owned(),
            elements: storage.elements,
            offset: tensor.offset,
            shape: sizes(tensor.shape)?,
            strides: sizes(tensor.strides)?,
        })
    }
}

/// A number that counts something.
pub(super) fn size<T: TryFrom<i64>>(value: Value) -> Result<T, Refused> {
    match value {
        Value::Int(size) => T::try_from(size).map_err(|_| Refused::Broken("a negative size")),
        _ => Err(Refused::Broken("no number where a size belongs")),
    }
}
