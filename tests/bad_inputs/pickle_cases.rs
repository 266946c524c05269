//! The cases for pickles: the good adapter's weights as `torch.save` writes them, and the changes to that file.

use std::path::Path;

use super::cases::{Case, case};
use super::generate::{ADAPTER_WEIGHTS, Tensor, adapter_tensors, changed, f32_tensor, put};
use super::pickled::{View, archive, dictionary, file, part, parts, text, zip};

/// The weights of an adapter of older versions.
pub(crate) const ADAPTER_PICKLE: &str = "adapter/adapter_model.bin";

/// Puts a pickle in the place of the adapter's safetensors file.
fn pickle(root: &Path, bytes: &[u8]) {
    std::fs::remove_file(root.join(ADAPTER_WEIGHTS)).unwrap();
    put(root, ADAPTER_PICKLE, bytes);
}

/// A pickle that names a global in the place of the first tensor.
fn names(root: &Path, opcodes: &[u8]) {
    let pickle_bytes = [&b"\x80\x02}("[..], &text("a"), opcodes, b"u."].concat();
    pickle(root, &archive(&pickle_bytes, &[]));
}

/// The good file with one view changed.
fn view(root: &Path, change: impl FnOnce(&mut View)) {
    let tensors = adapter_tensors();
    let mut views: Vec<View> = tensors.iter().enumerate().map(|(at, tensor)| View::of(tensor, &at.to_string())).collect();
    change(&mut views[0]);
    let keys: Vec<String> = (0..tensors.len()).map(|at| at.to_string()).collect();
    let storages: Vec<(&str, &[u8])> = keys.iter().map(String::as_str).zip(tensors.iter().map(|t| &t.bytes[..])).collect();
    pickle(root, &archive(&dictionary(&views), &storages));
}

/// The good file with some of its bytes changed.
fn damaged(root: &Path, find: &[u8], put: &[u8]) {
    let mut bytes = file(&adapter_tensors());
    let at = bytes.windows(find.len()).position(|window| window == find).unwrap();
    bytes[at..at + put.len()].copy_from_slice(put);
    pickle(root, &bytes);
}

const PLAIN: &str = "not a plain tensor dictionary; expected names and tensors, and nothing to be executed";

pub(crate) static PICKLES: [Case; 34] = [
    case("empty pickle", 4, &["adapter_model.bin: file is empty", "a zip archive, as torch.save writes"], |root| {
        pickle(root, b"")
    }),
    case("truncated pickle", 4, &["adapter_model.bin: zip archive", "no directory at its end"], |root| {
        let bytes = file(&adapter_tensors());
        pickle(root, &bytes[..bytes.len() - 6]);
    }),
    case("a zip of 4 bytes", 4, &["adapter_model.bin: zip archive"], |root| pickle(root, b"PK\x03\x04")),
    case(
        "pickle without an archive",
        5,
        &["adapter_model.bin", "expected a zip archive", "the older format without an archive"],
        |root| {
            pickle(root, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.");
        },
    ),
    case("pickle in a tar file", 5, &["adapter_model.bin", "the tar file of very old versions"], |root| {
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(b"storages");
        bytes[257..262].copy_from_slice(b"ustar");
        pickle(root, &bytes);
    }),
    case("HTML page for a pickle", 4, &["adapter_model.bin", "expected a zip archive", "found an HTML page"], |root| {
        pickle(root, b"<html><title>Sign in</title></html>");
    }),
    case("Git-LFS pointer for a pickle", 4, &["adapter_model.bin", "run git lfs pull"], |root| {
        pickle(root, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 301520\n");
    }),
    case("noise for a pickle", 4, &["adapter_model.bin: cannot be read", "found something else"], |root| pickle(root, &[7; 600])),
    case("another zip archive", 5, &["not a file of torch.save", "one data.pkl"], |root| {
        pickle(root, &zip(&[part("word/document.xml", b"<x/>")], false));
    }),
    case("two pickles in an archive", 5, &["not a file of torch.save", "one data.pkl"], |root| {
        let mut parts = parts(&adapter_tensors());
        parts.push(part("more/data.pkl", b"\x80\x02}."));
        pickle(root, &zip(&parts, false));
    }),
    case("compressed values", 5, &["part `data/2`", "uncompressed", "compressed by deflate", "hint"], |root| {
        let mut parts = parts(&adapter_tensors());
        parts[4].method = 8;
        pickle(root, &zip(&parts, false));
    }),
    case("compressed pickle", 5, &["part `data.pkl`", "compressed by method 93"], |root| {
        let mut parts = parts(&adapter_tensors());
        parts[0].method = 93;
        pickle(root, &zip(&parts, false));
    }),
    case("big-endian values", 5, &["byte order", "expected little, found big"], |root| {
        let mut parts = parts(&adapter_tensors());
        parts[1].bytes = b"big".to_vec();
        pickle(root, &zip(&parts, false));
    }),
    case("one part twice", 4, &["zip archive", "the part `archive/data/0` twice"], |root| {
        let mut parts = parts(&adapter_tensors());
        parts.push(part("data/0", b""));
        pickle(root, &zip(&parts, false));
    }),
    case("damaged pickle", 4, &["part `data.pkl`", "the checksum"], |root| damaged(root, b"_metadata", b"_metadatA")),
    case("a part without its header", 4, &["part `data/0`", "no header at byte"], |root| {
        let mut bytes = file(&adapter_tensors());
        let name = bytes.windows(14).position(|window| window == b"archive/data/0").unwrap();
        bytes[name - 30] = b'X';
        pickle(root, &bytes);
    }),
    case("missing storage", 4, &["lora_A.weight`; expected its values in data/9"], |root| {
        view(root, |view| view.key = "9".into())
    }),
    case("storage outside of its folder", 4, &["lora_A.weight`; expected its values in data/../version"], |root| {
        view(root, |view| view.key = "../version".into());
    }),
    case("storage too short", 4, &["lora_A.weight`; expected 99 elements of 4 bytes", "found 48 bytes"], |root| {
        view(root, |view| view.elements = 99);
    }),
    case("view outside of its storage", 4, &["a view of its storage's 12 elements", "offset 1"], |root| {
        view(root, |view| view.offset = 1);
    }),
    case("view with wide strides", 4, &["a view of its storage's 12 elements", "strides [7, 1]"], |root| {
        view(root, |view| view.strides[0] = 7);
    }),
    case("view that overflows", 4, &["a view of its storage's 12 elements"], |root| {
        view(root, |view| (view.shape, view.strides) = (vec![1 << 62, 1 << 62], vec![1 << 62, 1 << 62]));
    }),
    case("view that repeats", 4, &["a view of its storage's 12 elements", "strides [0, 1]"], |root| {
        view(root, |view| (view.shape[0], view.strides[0]) = (1 << 40, 0));
    }),
    case("view without strides", 4, &["a view of its storage's 12 elements", "strides []"], |root| {
        view(root, |view| view.strides.clear());
    }),
    case("a global that executes", 5, &[PLAIN, "`posix.system`"], |root| {
        names(root, b"cposix\nsystem\nX\x0e\0\0\0touch executed\x85R");
    }),
    case("eval", 5, &[PLAIN, "`builtins.eval`"], |root| names(root, b"\x8c\x08builtins\x8c\x04eval\x93)R")),
    case("a module", 5, &[PLAIN, "`torch.nn.modules.linear.Linear`"], |root| {
        names(root, b"ctorch.nn.modules.linear\nLinear\n)\x81")
    }),
    case("a NumPy array", 5, &[PLAIN, "`numpy.core.multiarray._reconstruct`"], |root| {
        names(root, b"cnumpy.core.multiarray\n_reconstruct\n")
    }),
    case("an opcode that imports", 5, &[PLAIN, "the pickle opcode `i`"], |root| names(root, b"(ios\nsystem\n")),
    case("an entry that is no tensor", 5, &[PLAIN, "the entry `a`, which is no tensor"], |root| names(root, b"K\x01")),
    case("a pickle that is no dictionary", 5, &[PLAIN, "something that is no dictionary"], |root| {
        pickle(root, &archive(b"\x80\x02K\x01.", &[]))
    }),
    case("a pickle cut short", 4, &["not a whole pickle", "the end of the data at byte 4"], |root| {
        pickle(root, &archive(b"\x80\x02}(", &[]));
    }),
    case("a name twice in a pickle", 4, &["lora_A.weight`", "duplicate"], |root| {
        let tensors = changed(1, |tensor| *tensor = Tensor { shape: vec![12], ..f32_tensor(&adapter_tensors()[0].name, &[12]) });
        pickle(root, &file(&tensors));
    }),
    case("a pickle of integers", 5, &["adapter_model.bin", "lora_A.weight` needs full precision", "I64"], |root| {
        pickle(root, &file(&changed(0, |tensor| (tensor.dtype, tensor.bytes) = ("I64", vec![0; 96]))));
    }),
];
