//! Writes files as `torch.save` does, good and bad: a pickle of a dictionary and its tensors' bytes in an uncompressed zip archive.
//!
//! This is written by hand from the descriptions of the formats, so that neither Python nor PyTorch is needed.

use super::generate::Tensor;

/// A tensor as a view of its storage; strides and offset in elements.
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) class: &'static str,
    pub(crate) key: String,
    pub(crate) elements: u64,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// The storages' class and the bytes of an element.
fn class_of(dtype: &str) -> (&'static str, u64) {
    match dtype {
        "F64" => ("DoubleStorage", 8),
        "F32" => ("FloatStorage", 4),
        "F16" => ("HalfStorage", 2),
        "BF16" => ("BFloat16Storage", 2),
        "I64" => ("LongStorage", 8),
        other => panic!("no storage of {other}"),
    }
}

impl View {
    /// The whole of its storage, row by row.
    pub(crate) fn of(tensor: &Tensor, key: &str) -> Self {
        let (class, size) = class_of(tensor.dtype);
        let strides = (1..=tensor.shape.len()).map(|at| tensor.shape[at..].iter().map(|size| (*size).max(1)).product()).collect();
        Self {
            name: tensor.name.clone(),
            class,
            key: key.to_owned(),
            elements: tensor.bytes.len() as u64 / size,
            offset: 0,
            shape: tensor.shape.clone(),
            strides,
        }
    }
}

/// `X` and the text.
pub(crate) fn text(value: &str) -> Vec<u8> {
    let mut out = vec![b'X'];
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value.as_bytes());
    out
}

/// `J`, or `LONG1` for what is larger.
fn number(value: u64) -> Vec<u8> {
    match i32::try_from(value) {
        Ok(value) => [&b"J"[..], &value.to_le_bytes()].concat(),
        Err(_) => [&b"\x8a\x08"[..], &value.to_le_bytes()].concat(),
    }
}

fn tuple(values: &[u64]) -> Vec<u8> {
    let items: Vec<u8> = values.iter().flat_map(|value| number(*value)).collect();
    [&b"("[..], &items, b"t"].concat()
}

/// The opcodes of one tensor.
fn rebuilt(view: &View) -> Vec<u8> {
    let storage = format!("ctorch\n{}\n", view.class);
    let id = [&b"("[..], &text("storage"), storage.as_bytes(), &text(&view.key), &text("cpu"), &number(view.elements), b"tQ"];
    let rest = [number(view.offset), tuple(&view.shape), tuple(&view.strides)].concat();
    [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &id.concat(), &rest, b"\x89ccollections\nOrderedDict\n)RtR"].concat()
}

/// An `OrderedDict` of the views, pickled with protocol 2, with the attribute `_metadata` that `state_dict()` gives.
pub(crate) fn dictionary(views: &[View]) -> Vec<u8> {
    let entries: Vec<u8> = views.iter().flat_map(|view| [text(&view.name), rebuilt(view)].concat()).collect();
    let metadata = [&b"}"[..], &text("_metadata"), b"}sb"].concat();
    [&b"\x80\x02ccollections\nOrderedDict\n)Rq\x00("[..], &entries, b"u", &metadata, b"."].concat()
}

/// What a part of an archive is to look like.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// 0: stored as it is.
    pub(crate) method: u16,
}

pub(crate) fn part(name: &str, bytes: &[u8]) -> Part {
    Part { name: format!("archive/{name}"), bytes: bytes.to_vec(), method: 0 }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// A zip archive with the parts' bytes aligned to 64, as PyTorch does; `long` puts all numbers into the records of zip64.
pub(crate) fn zip(parts: &[Part], long: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for part in parts {
        let (crc, size, header) = (crc32(&part.bytes), part.bytes.len() as u64, out.len() as u64);
        let padding = (64 - (out.len() + 30 + part.name.len() + 4) % 64) % 64;
        let short = |value: u64| if long { u32::MAX } else { value as u32 };
        out.extend(b"PK\x03\x04\0\0\x08\x08");
        out.extend(part.method.to_le_bytes());
        // The sizes come after the data, and in the directory.
        out.extend([0; 4 + 4 + 8]);
        out.extend((part.name.len() as u16).to_le_bytes());
        out.extend((padding as u16 + 4).to_le_bytes());
        out.extend(part.name.as_bytes());
        out.extend([&b"FB"[..], &(padding as u16).to_le_bytes(), &vec![b'Z'; padding]].concat());
        out.extend(&part.bytes);
        out.extend([&b"PK\x07\x08"[..], &crc.to_le_bytes(), &(size as u32).to_le_bytes(), &(size as u32).to_le_bytes()].concat());
        directory.extend(b"PK\x01\x02\0\0\0\0\x08\x08");
        directory.extend(part.method.to_le_bytes());
        directory.extend([0; 4]);
        directory.extend(crc.to_le_bytes());
        directory.extend([short(size).to_le_bytes(), short(size).to_le_bytes()].concat());
        directory.extend((part.name.len() as u16).to_le_bytes());
        directory.extend(if long { 32_u16 } else { 0 }.to_le_bytes());
        directory.extend([0; 2 + 2 + 2 + 4]);
        directory.extend(short(header).to_le_bytes());
        directory.extend(part.name.as_bytes());
        if long {
            let numbers = [size.to_le_bytes(), size.to_le_bytes(), header.to_le_bytes()].concat();
            directory.extend([&b"xx\0\0\x01\0\x18\0"[..], &numbers].concat());
        }
    }
    let (begin, count) = (out.len() as u64, parts.len() as u64);
    out.extend(&directory);
    if long {
        let record = out.len() as u64;
        out.extend([&b"PK\x06\x06"[..], &44_u64.to_le_bytes(), &[0; 12]].concat());
        out.extend([count, count, directory.len() as u64, begin].map(u64::to_le_bytes).concat());
        out.extend([&b"PK\x06\x07\0\0\0\0"[..], &record.to_le_bytes(), &1_u32.to_le_bytes()].concat());
    }
    let (count, size, begin) =
        if long { (u16::MAX, u32::MAX, u32::MAX) } else { (count as u16, directory.len() as u32, begin as u32) };
    out.extend([&b"PK\x05\x06\0\0\0\0"[..], &count.to_le_bytes(), &count.to_le_bytes()].concat());
    out.extend([&size.to_le_bytes()[..], &begin.to_le_bytes(), &[0; 2]].concat());
    out
}

/// An archive around any pickle, with storages.
pub(crate) fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut parts = vec![part("data.pkl", pickle), part("byteorder", b"little")];
    parts.extend(storages.iter().map(|(key, bytes)| part(&format!("data/{key}"), bytes)));
    parts.push(part("version", b"3\n"));
    zip(&parts, false)
}

/// The parts of a file with the tensors, each with a storage of its own.
pub(crate) fn parts(tensors: &[Tensor]) -> Vec<Part> {
    let views: Vec<View> = tensors.iter().enumerate().map(|(at, tensor)| View::of(tensor, &at.to_string())).collect();
    let mut parts = vec![part("data.pkl", &dictionary(&views)), part("byteorder", b"little")];
    parts.extend(tensors.iter().enumerate().map(|(at, tensor)| part(&format!("data/{at}"), &tensor.bytes)));
    parts
}

/// A file as `torch.save(state_dict)` writes it.
pub(crate) fn file(tensors: &[Tensor]) -> Vec<u8> {
    zip(&parts(tensors), false)
}
