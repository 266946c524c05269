//! The pickle machine, as far as a dictionary of tensors needs it: a stack, a memo and some forty opcodes.
//!
//! Source: the opcodes of Python's `pickletools`. An opcode that no such dictionary needs is refused by name.

use super::calls::{CallResult, call, global, persistent};
use super::objects::{Object, Objects, PickledTensor, Value};
use super::refusal::Refused;

/// Values on the stack: `pickle` writes dictionaries in batches of 1000.
const DEEPEST_STACK: usize = 100_000;
/// Marks on the stack: one for each container that is being filled.
const MOST_MARKS: usize = 1000;
/// Numbers of the memo.
const MOST_MEMOS: usize = 1_000_000;

/// Reads the tensors of a pickled dictionary, or of its entry `state_dict`, sorted by name. An error comes with the byte it was found at.
pub(super) fn run(bytes: &[u8]) -> Result<Vec<PickledTensor>, (Refused, usize)> {
    let mut machine =
        Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), objects: Objects::default() };
    let tensors = machine.run().and_then(|top| machine.objects.tensors(top));
    tensors.map_err(|refused| (refused, machine.at))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    objects: Objects,
}

const EMPTY: Refused = Refused::Broken("an empty stack");

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value, Refused> {
        loop {
            let started = self.at;
            match self.byte()? {
                b'.' => return self.pop(),
                b'\x80' => drop(self.byte()?),
                b'\x95' => drop(self.take(8)?),
                b'(' => self.mark()?,
                b'N' | b'\x88' | b'\x89' => self.push(Value::Nothing)?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Nothing)?;
                }
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let value = self.unsigned(4)? as u32 as i32;
                    self.push(Value::Int(value.into()))?;
                }
                b'\x8a' => self.long()?,
                b'X' | b'T' => self.text(4)?,
                b'\x8c' | b'U' => self.text(1)?,
                b'\x8d' => self.text(8)?,
                b')' => self.make(Object::Tuple(Box::default()))?,
                b']' => self.make(Object::List)?,
                b'}' => self.make(Object::Dict(Vec::new()))?,
                b't' => {
                    let items = self.pop_marked()?;
                    self.make(Object::Tuple(items.into()))?;
                }
                opcode @ b'\x85'..=b'\x87' => {
                    let items = self.pop_many((opcode - b'\x84').into())?;
                    self.make(Object::Tuple(items.into()))?;
                }
                b'q' => {
                    let number = self.unsigned(1)?;
                    self.memorise(number)?;
                }
                b'r' => {
                    let number = self.unsigned(4)?;
                    self.memorise(number)?;
                }
                b'\x94' => self.memorise(self.memo.len() as u64)?,
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let found = global(&String::from_utf8_lossy(module), &String::from_utf8_lossy(name))?;
                    self.make(Object::Global(found))?;
                }
                b'\x93' => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let found = global(self.objects.text(module)?.1, self.objects.text(name)?.1)?;
                    self.make(Object::Global(found))?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = persistent(&self.objects, id)?;
                    self.make(storage)?;
                }
                b'R' => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    match call(&self.objects, callee, arguments)? {
                        CallResult::New(object) => self.make(object)?,
                        CallResult::Same(value) => self.push(value)?,
                    }
                }
                b'b' => self.build()?,
                b's' => {
                    let items = self.pop_many(2)?;
                    self.objects.set(self.top(), &items)?;
                }
                b'u' => {
                    let items = self.pop_marked()?;
                    self.objects.set(self.top(), &items)?;
                }
                b'a' => {
                    self.pop()?;
                    self.check_list()?;
                }
                b'e' => {
                    self.pop_marked()?;
                    self.check_list()?;
                }
                opcode => {
                    let name = opcode.escape_ascii();
                    return Err(Refused::NotPlain(format!("the pickle opcode `{name}` at byte {started}")));
                }
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(Refused::Broken("the end of the data"))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        self.take(1)?.first().copied().ok_or(Refused::Broken("the end of the data"))
    }

    /// A little-endian number of up to eight bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<u64, Refused> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn integer(&mut self, bytes: usize) -> Result<(), Refused> {
        let value = self.unsigned(bytes)?;
        self.push(Value::Int(value as i64))
    }

    /// An integer of any length, of which eight bytes are enough for anything that counts.
    fn long(&mut self) -> Result<(), Refused> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > 8 {
            return Err(Refused::Broken("an integer beyond 64 bits"));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut full = if negative { [0xff; 8] } else { [0; 8] };
        full[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(full)))
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), Refused> {
        let length = usize::try_from(self.unsigned(length_bytes)?).unwrap_or(usize::MAX);
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Refused::Broken("text that is not UTF-8"))?;
        self.make(Object::Text(text.into()))
    }

    fn line(&mut self) -> Result<&'a [u8], Refused> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(Refused::Broken("a name without an end"))?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn push(&mut self, value: Value) -> Result<(), Refused> {
        if self.stack.len() >= DEEPEST_STACK {
            return Err(Refused::Broken("too many values on the stack"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), Refused> {
        if self.marks.len() >= MOST_MARKS {
            return Err(Refused::Broken("too many marks on the stack"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// The values above the last mark.
    fn above_mark(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0).min(self.stack.len())
    }

    fn pop(&mut self) -> Result<Value, Refused> {
        if self.above_mark() == 0 { Err(EMPTY) } else { self.stack.pop().ok_or(EMPTY) }
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, Refused> {
        if self.above_mark() < count { Err(EMPTY) } else { Ok(self.stack.split_off(self.stack.len() - count)) }
    }

    fn pop_marked(&mut self) -> Result<Vec<Value>, Refused> {
        let from = self.marks.pop().filter(|from| *from <= self.stack.len()).ok_or(Refused::Broken("no mark"))?;
        Ok(self.stack.split_off(from))
    }

    /// The value on top, which stays.
    fn top(&self) -> Value {
        self.stack.last().copied().unwrap_or(Value::Nothing)
    }

    fn make(&mut self, object: Object) -> Result<(), Refused> {
        let value = self.objects.make(object)?;
        self.push(value)
    }

    fn memorise(&mut self, number: u64) -> Result<(), Refused> {
        let value = *self.stack.last().ok_or(EMPTY)?;
        // Numbers are given in order, so there are never more than bytes read; a gap would only take memory.
        let number = usize::try_from(number).ok().filter(|number| *number < self.at.min(MOST_MEMOS));
        let number = number.ok_or(Refused::Broken("a memo number out of range"))?;
        if number >= self.memo.len() {
            self.memo.resize(number + 1, None);
        }
        self.memo[number] = Some(value);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), Refused> {
        let number = usize::try_from(self.unsigned(bytes)?).unwrap_or(usize::MAX);
        let value = self.memo.get(number).copied().flatten().ok_or(Refused::Broken("an unknown memo number"))?;
        self.push(value)
    }

    /// Attributes: those of a dictionary (`_metadata`) say nothing about its tensors.
    fn build(&mut self) -> Result<(), Refused> {
        self.pop()?;
        match self.objects.get(self.top()) {
            Some(Object::Dict(_)) => Ok(()),
            _ => Err(Refused::NotPlain("an object with a state of its own".to_owned())),
        }
    }

    fn check_list(&self) -> Result<(), Refused> {
        match self.objects.get(self.top()) {
            Some(Object::List) => Ok(()),
            _ => Err(Refused::Broken("items of something that is no list")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::pickled::text;

    fn refused(opcodes: &[u8], part: &str) {
        let (refused, _) = run(opcodes).unwrap_err();
        assert!(format!("{refused:?}").contains(part), "{refused:?}");
    }

    /// A storage of one element, a tensor that is to have sizes, and one that has them and is put into memo 1.
    fn storage() -> Vec<u8> {
        [&b"("[..], &text("storage"), b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), b"K\x01tQ"].concat()
    }

    fn sized(sizes: &[u8]) -> Vec<u8> {
        [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage(), sizes, b"tR"].concat()
    }

    fn tensor() -> Vec<u8> {
        [&sized(b"K\0))")[..], b"q\x01"].concat()
    }

    #[test]
    fn every_pickle_of_random_bytes_ends() {
        let good = [&b"}"[..], &text("a"), &tensor(), b"s."].concat();
        assert_eq!(run(&good).unwrap().len(), 1);
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 24) as u8;
            }
            let _ = run(&bytes);
        }
        for len in 0..good.len() {
            assert!(run(&good[..len]).is_err());
        }
    }

    #[test]
    fn what_would_take_memory_or_time_is_refused() {
        // Each of these costs a few bytes a time and would, without a limit, copy something long or keep something.
        refused(&b"(".repeat(5_000), "too many marks");
        refused(&b"N".repeat(200_000), "too many values on the stack");
        refused(&[&b"]"[..], &b")a".repeat(600_000)].concat(), "more objects");
        let long_tuple = [&b"("[..], &b"N".repeat(90_000), b"tq\0"].concat();
        refused(&[&b"]"[..], &long_tuple, b"a(", &b"N".repeat(9), b"u"].concat(), "no dictionary");
        refused(&[&b"]"[..], &b"(NNNNNNNNNNNNNNNNta".repeat(200_000)].concat(), "more values");
        refused(&[&b"}"[..], &b"NNs".repeat(1_100_000)].concat(), "more values");
        refused(&[&b"Nr"[..], &u32::MAX.to_le_bytes()].concat(), "memo number out of range");
        refused(b"Nr\x09\0\0\0", "memo number out of range");
        refused(&[&b"]"[..], &b"N\x94a".repeat(1_100_000)].concat(), "memo number out of range");
        // A name of a megabyte, once, as the key of many entries and as the name of a storage.
        let name = [&text(&"n".repeat(1 << 20))[..], b"q\0"].concat();
        let twice = [&b"}"[..], &name, &tensor(), b"s", &b"h\0h\x01s".repeat(40_000), b"."].concat();
        refused(&twice, "longer than any");
        let name = [&text(&"n".repeat(4000))[..], b"q\0"].concat();
        let twice = [&b"}"[..], &name, &tensor(), b"s", &b"h\0h\x01s".repeat(40_000), b"."].concat();
        refused(&twice, "Twice");
        let name = [&text(&"n".repeat(1 << 20))[..], b"q\0"].concat();
        let key = [&b"("[..], &text("storage"), b"ctorch\nFloatStorage\n", &name, &text("cpu"), b"K\x01tQ"].concat();
        refused(&key, "longer than any");
        let many: Vec<u8> = (0..60_000).flat_map(|at| [&text(&at.to_string())[..], b"h\x01s"].concat()).collect();
        refused(&[&b"}"[..], &text("a"), &tensor(), b"s", &many, b"."].concat(), "60001 entries");
        // A dictionary that holds itself.
        refused(&[&b"}q\0"[..], &text("state_dict"), b"h\0s."].concat(), "`state_dict`, which is no tensor");
    }

    #[test]
    fn sizes_are_checked_where_they_stand() {
        let with = |sizes: &[u8]| [&b"}"[..], &text("a"), &sized(sizes), b"s."].concat();
        assert_eq!(run(&with(b"\x8a\x00K\x01\x85K\x01\x85")).unwrap()[0].shape, [1]);
        refused(&with(b"K\0K\x01K\x01\x85"), "no tuple of sizes");
        refused(&with(b"K\0N\x85K\x01\x85"), "no number where a size belongs");
        refused(&with(b"K\0J\xff\xff\xff\xff\x85K\x01\x85"), "a negative size");
        refused(&with(b"\x8a\x01\x80K\x01\x85K\x01\x85"), "a negative size");
        refused(&with(b"\x8a\x09123456789"), "beyond 64 bits");
        refused(&with(&[&b"K\0("[..], &b"K\x01".repeat(9), b"tK\x01\x85"].concat()), "more dimensions");
    }
}
