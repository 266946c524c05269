//! Names of adapters and modules as file names: bytes outside `[A-Za-z0-9._-]` percent-encoded, and so are `.` and `..`.
//!
//! Two names never give one file name: the encoding can be undone, and a name that had to be shortened carries a
//! hash of the whole.

use super::view::ViewKey;

/// The longest file name that Linux and macOS file systems take, in bytes.
const LONGEST: usize = 255;

/// What replaces the end of a name that is too long: `~` (never in an encoded name) and 16 hex digits.
const HASH_LEN: usize = 17;

/// One component of a path, at most `longest` bytes.
fn encode_within(name: &str, longest: usize) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(name.len());
    let dots = matches!(name, "." | "..");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && !dots) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    if name.is_empty() {
        // A component cannot be empty, and a lone `%` is the encoding of nothing else.
        out.push('%');
    }
    if out.len() > longest {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let mut end = longest.saturating_sub(HASH_LEN);
        // Do not cut an escape in two.
        if let Some(percent) = out[..end].rfind('%')
            && end - percent < 3
        {
            end = percent;
        }
        out.truncate(end);
        out.push('~');
        out.push_str(&hash[..HASH_LEN - 1]);
    }
    out
}

/// A name as one component of a path.
#[must_use]
pub fn encode(name: &str) -> String {
    encode_within(name, LONGEST)
}

/// A name with an extension as one component of a path; the name is shortened if both together would be too long.
#[must_use]
pub fn with_ending(name: &str, ending: &str) -> String {
    encode_within(name, LONGEST.saturating_sub(ending.len())) + ending
}

/// An adapter's name as a relative path: `/` separates directories, each component encoded.
#[must_use]
pub fn adapter_path(adapter: &str) -> String {
    adapter.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// The path of a file about one matrix: `FOLDER/ADAPTER/MODULE.MATRIX.SIDE.iI-jJ.ENDING`.
#[must_use]
pub fn matrix_path(folder: &str, adapter: &str, view: &ViewKey<'_>, ending: &str) -> String {
    let ViewKey { module, matrix, side, i, j } = view;
    let name = with_ending(module, &format!(".{matrix}.{side}.i{i}-j{j}.{ending}"));
    format!("{folder}/{}/{name}", adapter_path(adapter))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::terms::{MatrixKind, Side};

    fn matrix_file(adapter: &str, module: &str) -> String {
        let view = ViewKey { module, matrix: MatrixKind::LoraA, side: Side::Left, i: 4, j: 8 };
        matrix_path("matrices", adapter, &view, "csv")
    }

    #[test]
    fn plain_names_stay_and_others_are_encoded() {
        assert_eq!(
            matrix_file("run/checkpoint-500", "attention.output.dense"),
            "matrices/run/checkpoint-500/attention.output.dense.lora_A.left.i4-j8.csv"
        );
        assert_eq!(encode("a b%\n\u{e9}*"), "a%20b%25%0A%C3%A9%2A");
        assert_eq!(adapter_path("../x/./y"), "%2E%2E/x/%2E/y");
        assert_eq!(adapter_path("/a//"), "%/a/%/%");
        assert_eq!(encode("..."), "...");
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        let long = "é".repeat(1000);
        let names: HashSet<_> = (0..50).map(|n| encode(&format!("{long}{n}"))).collect();
        assert_eq!(names.len(), 50);
        for length in 230..260 {
            let file = matrix_file("a", &"é".repeat(length));
            let name = file.rsplit('/').next().unwrap();
            assert!(name.len() <= LONGEST);
            assert!(name.ends_with(".lora_A.left.i4-j8.csv"));
            assert!(!name.contains("%C~") && !name.contains("%~"));
        }
        assert_eq!(encode(&"x".repeat(255)), "x".repeat(255));
        assert_eq!(encode(&"x".repeat(256)).len(), 255);
    }

    proptest! {
        #[test]
        fn every_component_is_a_portable_name(name in any::<String>()) {
            let path = adapter_path(&name);
            for part in path.split('/') {
                prop_assert!(!part.is_empty() && part.len() <= LONGEST && part != "." && part != "..");
                prop_assert!(part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-%~".contains(&b)));
            }
        }

        #[test]
        fn two_names_never_meet(a in "[ab/.%~ 2E]{0,6}", b in "[ab/.%~ 2E]{0,6}") {
            prop_assert_eq!(a == b, adapter_path(&a) == adapter_path(&b));
        }
    }
}
