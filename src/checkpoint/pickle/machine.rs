//! The pickle machine, as far as a dictionary of tensors needs it. It knows a handful of globals and calls nothing.
//!
//! Source: the opcodes of Python's `pickletools`, and what `torch.save` writes. Every object is kept once in a list and meant by its number, so that no
//! nesting, repetition or cycle costs more than the bytes that describe it.

use std::path::Path;

use safetensors::Dtype;

use super::HINT;
use crate::error::{Error, escape};

/// Values on the stack: `pickle` writes dictionaries in batches of 1000.
const DEEPEST_STACK: usize = 100_000;
/// Objects: a tensor is some five of them.
const MOST_OBJECTS: usize = 2_000_000;

/// The values of one storage, as the pickle describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) dtype: Dtype,
    /// Bytes of an element.
    pub(super) size: usize,
    pub(super) key: String,
    pub(super) elements: u64,
}

/// A tensor: a view of a storage. Offset and strides in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PickledTensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// The tensors of a dictionary, in its order.
#[derive(Debug)]
pub(super) struct Pickled(pub(super) Vec<(String, PickledTensor)>);

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is broken: what, and where.
    Broken(&'static str, usize),
    /// It is well-formed, but more than a dictionary of tensors.
    NotPlain(String),
}

impl Refused {
    pub(super) fn explain(self, path: &Path) -> Error {
        match self {
            Self::Broken(what, at) => {
                Error::malformed(path, "data.pkl is not a whole pickle", "the opcodes of pickle", format!("{what} at byte {at}"))
            }
            Self::NotPlain(found) => {
                Error::mismatch(path, "not a plain tensor dictionary", "names and tensors, and nothing to be executed", found)
                    .with_hint(HINT)
            }
        }
    }
}

type Id = usize;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Object(Id),
}

#[derive(Debug)]
enum Object {
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(Storage),
    Tensor(PickledTensor),
}

/// The globals of a tensor dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    StorageType(Dtype, usize),
}

fn global(module: &str, name: &str) -> Result<Global, Refused> {
    let storage = |dtype, size| Ok(Global::StorageType(dtype, size));
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Ok(Global::RebuildParameter),
        ("torch", "Size") => Ok(Global::Size),
        ("torch", "DoubleStorage") => storage(Dtype::F64, 8),
        ("torch", "FloatStorage") => storage(Dtype::F32, 4),
        ("torch", "HalfStorage") => storage(Dtype::F16, 2),
        ("torch", "BFloat16Storage") => storage(Dtype::BF16, 2),
        ("torch", "LongStorage") => storage(Dtype::I64, 8),
        ("torch", "IntStorage") => storage(Dtype::I32, 4),
        ("torch", "ShortStorage") => storage(Dtype::I16, 2),
        ("torch", "CharStorage") => storage(Dtype::I8, 1),
        ("torch", "ByteStorage") => storage(Dtype::U8, 1),
        ("torch", "BoolStorage") => storage(Dtype::BOOL, 1),
        _ => Err(Refused::NotPlain(format!("`{}.{}`", escape(module), escape(name)))),
    }
}

/// Reads the tensors of a pickled dictionary, or of its entry `state_dict`.
pub(super) fn run(bytes: &[u8]) -> Result<Pickled, Refused> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), objects: Vec::new() };
    let top = machine.run()?;
    machine.tensors(top)
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    objects: Vec<Object>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, Refused> {
        loop {
            let started = self.at;
            match self.byte()? {
                b'.' => return self.pop(),
                b'\x80' => drop(self.byte()?),
                b'\x95' => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::None)?,
                b'\x88' | b'\x89' => self.push(Value::Bool)?,
                b'K' => {
                    let value = self.byte()?;
                    self.push(Value::Int(value.into()))?;
                }
                b'M' => {
                    let value = self.unsigned(2)?;
                    self.push(Value::Int(value))?;
                }
                b'J' => {
                    let value = self.unsigned(4)?;
                    self.push(Value::Int(i64::from(value as u32 as i32)))?;
                }
                b'\x8a' => self.long()?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Float)?;
                }
                b'X' | b'T' => self.text(4)?,
                b'\x8c' | b'U' => self.text(1)?,
                b'\x8d' => self.text(8)?,
                b')' => self.make(Object::Tuple(Vec::new()))?,
                b']' => self.make(Object::List(Vec::new()))?,
                b'}' => self.make(Object::Dict(Vec::new()))?,
                b't' => {
                    let items = self.pop_marked()?;
                    self.make(Object::Tuple(items))?;
                }
                opcode @ b'\x85'..=b'\x87' => {
                    let from = self
                        .stack
                        .len()
                        .checked_sub(usize::from(opcode - b'\x84'))
                        .ok_or_else(|| self.broken("an empty stack"))?;
                    let items = self.stack.split_off(from);
                    self.make(Object::Tuple(items))?;
                }
                b'q' => {
                    let slot = self.byte()?;
                    self.memorise(slot.into())?;
                }
                b'r' => {
                    let slot = self.unsigned(4)?;
                    self.memorise(slot as usize)?;
                }
                b'\x94' => self.memorise(self.memo.len())?,
                b'h' => {
                    let slot = self.byte()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = self.unsigned(4)?;
                    self.recall(slot as usize)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.make(Object::Global(global(&module, &name)?))?;
                }
                b'\x93' => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let found = global(self.as_text(module)?, self.as_text(name)?)?;
                    self.make(Object::Global(found))?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_marked()?;
                    self.set(items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_marked()?;
                    self.append(items)?;
                }
                opcode => {
                    let name = opcode.escape_ascii();
                    return Err(Refused::NotPlain(format!("the pickle opcode `{name}` at byte {started}")));
                }
            }
        }
    }

    fn broken(&self, what: &'static str) -> Refused {
        Refused::Broken(what, self.at)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Refused> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.broken("the end of the data"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of up to seven bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<i64, Refused> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | i64::from(*byte)))
    }

    /// An integer of any length, of which eight bytes are enough for anything that counts.
    fn long(&mut self) -> Result<(), Refused> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > 8 {
            return Err(self.broken("an integer beyond 64 bits"));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut full = if negative { [0xff; 8] } else { [0; 8] };
        full[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(full)))
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), Refused> {
        let length = if length_bytes == 8 {
            let bytes = self.take(8)?;
            bytes
                .iter()
                .rev()
                .try_fold(0_usize, |value, byte| Some(value.checked_mul(256)? + usize::from(*byte)))
                .unwrap_or(usize::MAX)
        } else {
            self.unsigned(length_bytes)? as usize
        };
        let text = std::str::from_utf8(self.take(length)?).map(str::to_owned);
        let text = text.map_err(|_| self.broken("text that is not UTF-8"))?;
        self.make(Object::Text(text))
    }

    fn line(&mut self) -> Result<String, Refused> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| self.broken("a name without an end"))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) -> Result<(), Refused> {
        if self.stack.len() >= DEEPEST_STACK {
            return Err(self.broken("too many values on the stack"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Refused> {
        let above = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= above {
            return Err(self.broken("an empty stack"));
        }
        self.stack.pop().ok_or_else(|| self.broken("an empty stack"))
    }

    fn pop_marked(&mut self) -> Result<Vec<Value>, Refused> {
        let from = self.marks.pop().filter(|from| *from <= self.stack.len()).ok_or_else(|| self.broken("no mark"))?;
        Ok(self.stack.split_off(from))
    }

    fn make(&mut self, object: Object) -> Result<(), Refused> {
        if self.objects.len() >= MOST_OBJECTS {
            return Err(self.broken("too many objects"));
        }
        self.objects.push(object);
        self.push(Value::Object(self.objects.len() - 1))
    }

    fn memorise(&mut self, slot: usize) -> Result<(), Refused> {
        let value = *self.stack.last().ok_or_else(|| self.broken("an empty stack"))?;
        if slot > self.memo.len().saturating_add(MOST_OBJECTS) || slot > 2 * MOST_OBJECTS {
            return Err(self.broken("a memo number out of range"));
        }
        if slot >= self.memo.len() {
            // Numbers are given in order; a large gap would only take memory.
            if slot > self.memo.len() + self.at {
                return Err(self.broken("a memo number out of range"));
            }
            self.memo.resize(slot + 1, None);
        }
        self.memo[slot] = Some(value);
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<(), Refused> {
        let value = self.memo.get(slot).copied().flatten().ok_or_else(|| self.broken("an unknown memo number"))?;
        self.push(value)
    }

    fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(id) => self.objects.get(id),
            _ => None,
        }
    }

    fn as_text(&self, value: Value) -> Result<&str, Refused> {
        match self.object(value) {
            Some(Object::Text(text)) => Ok(text),
            _ => Err(self.broken("no text where a name belongs")),
        }
    }

    fn as_sizes(&self, value: Value) -> Result<Vec<usize>, Refused> {
        let Some(Object::Tuple(items)) = self.object(value) else { return Err(self.broken("no tuple of sizes")) };
        items.iter().map(|item| self.as_size(*item)).collect()
    }

    fn as_size(&self, value: Value) -> Result<usize, Refused> {
        match value {
            Value::Int(size) => usize::try_from(size).map_err(|_| self.broken("a negative size")),
            _ => Err(self.broken("no number where a size belongs")),
        }
    }

    /// `('storage', TYPE, KEY, LOCATION, ELEMENTS)`.
    fn persistent(&mut self) -> Result<(), Refused> {
        let value = self.pop()?;
        let Some(Object::Tuple(items)) = self.object(value) else { return Err(self.broken("a persistent id that is no tuple")) };
        let &[kind, of, key, _, elements] = &items[..] else { return Err(self.broken("a persistent id of another length")) };
        if self.as_text(kind)? != "storage" {
            return Err(Refused::NotPlain(format!("a persistent `{}`", escape(self.as_text(kind)?))));
        }
        let Some(Object::Global(Global::StorageType(dtype, size))) = self.object(of) else {
            return Err(self.broken("a storage without a type"));
        };
        let storage =
            Storage { dtype: *dtype, size: *size, key: self.as_text(key)?.to_owned(), elements: self.as_size(elements)? as u64 };
        self.make(Object::Storage(storage))
    }

    /// Calls of the globals above, none of which computes anything.
    fn reduce(&mut self) -> Result<(), Refused> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Some(Object::Tuple(arguments)) = self.object(arguments) else {
            return Err(self.broken("arguments that are no tuple"));
        };
        let arguments = arguments.clone();
        let callee = match self.object(callee) {
            Some(Object::Global(callee)) => *callee,
            _ => return Err(self.broken("a call of something that is no function")),
        };
        match (callee, &arguments[..]) {
            (Global::OrderedDict, []) => self.make(Object::Dict(Vec::new())),
            (Global::Size, [sizes]) => self.push(*sizes),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let Some(Object::Storage(storage)) = self.object(*storage) else {
                    return Err(self.broken("a tensor without a storage"));
                };
                let tensor = PickledTensor {
                    storage: storage.clone(),
                    offset: self.as_size(*offset)?,
                    shape: self.as_sizes(*shape)?,
                    strides: self.as_sizes(*strides)?,
                };
                self.make(Object::Tensor(tensor))
            }
            (Global::RebuildParameter, [tensor, ..]) if matches!(self.object(*tensor), Some(Object::Tensor(_))) => {
                self.push(*tensor)
            }
            _ => Err(self.broken("a call with other arguments than torch.save writes")),
        }
    }

    /// Attributes: those of a dictionary (`_metadata`) say nothing about its tensors.
    fn build(&mut self) -> Result<(), Refused> {
        self.pop()?;
        let top = self.stack.last().copied().unwrap_or(Value::None);
        match self.object(top) {
            Some(Object::Dict(_)) => Ok(()),
            _ => Err(Refused::NotPlain("an object with a state of its own".to_owned())),
        }
    }

    fn set(&mut self, items: Vec<Value>) -> Result<(), Refused> {
        let top = self.stack.last().copied().unwrap_or(Value::None);
        let at = self.at;
        match top {
            Value::Object(id) if items.len().is_multiple_of(2) => match self.objects.get_mut(id) {
                Some(Object::Dict(entries)) => {
                    entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                    Ok(())
                }
                _ => Err(Refused::Broken("entries of something that is no dictionary", at)),
            },
            _ => Err(Refused::Broken("entries of something that is no dictionary", at)),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Refused> {
        let top = self.stack.last().copied().unwrap_or(Value::None);
        let at = self.at;
        match top {
            Value::Object(id) => match self.objects.get_mut(id) {
                Some(Object::List(list)) => {
                    list.extend(items);
                    Ok(())
                }
                _ => Err(Refused::Broken("items of something that is no list", at)),
            },
            _ => Err(Refused::Broken("items of something that is no list", at)),
        }
    }

    fn tensors(&self, top: Value) -> Result<Pickled, Refused> {
        let Some(Object::Dict(entries)) = self.object(top) else {
            return Err(Refused::NotPlain("something that is no dictionary".to_owned()));
        };
        let wrapped = entries.iter().find(|(key, _)| self.as_text(*key).is_ok_and(|key| key == "state_dict"));
        let entries = match wrapped.map(|(_, value)| self.object(*value)) {
            Some(Some(Object::Dict(inner))) => inner,
            _ => entries,
        };
        let mut found = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let name = match self.object(*key) {
                Some(Object::Text(name)) => name,
                _ => return Err(Refused::NotPlain("an entry whose name is no text".to_owned())),
            };
            match self.object(*value) {
                Some(Object::Tensor(tensor)) => found.push((name.clone(), tensor.clone())),
                _ => return Err(Refused::NotPlain(format!("the entry `{}`, which is no tensor", escape(name)))),
            }
        }
        Ok(Pickled(found))
    }
}
