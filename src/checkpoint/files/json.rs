//! JSON as Python writes it, with `NaN` and `Infinity`, which JSON does not have; and what its parser says as one line.

use crate::error::escape;

/// Puts Python's bare `NaN` and `Infinity` into quotes.
pub(crate) fn quote_non_finite(bytes: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let (mut out, mut at, mut in_string) = (Vec::with_capacity(bytes.len() + 16), 0, false);
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        if !in_string && let Some(word) = WORDS.iter().find(|word| rest.starts_with(word)) {
            out.push(b'"');
            out.extend_from_slice(word);
            out.push(b'"');
            at += word.len();
            continue;
        }
        if in_string && *byte == b'\\' {
            out.extend_from_slice(rest.get(..2).unwrap_or(rest));
            at += 2;
            continue;
        }
        in_string ^= *byte == b'"';
        out.push(*byte);
        at += 1;
    }
    out
}

/// A parser's message with its position last and the names in it escaped.
pub(crate) fn json_message(err: &serde_json::Error) -> String {
    let text = err.to_string();
    let position = format!(" at line {} column {}", err.line(), err.column());
    format!("{}{position}", escape(text.strip_suffix(&position).unwrap_or(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_words_are_quoted() {
        let text = br#"{"a": NaN, "b NaN": [-Infinity, "x \" Infinity"]}"#;
        let expected = br#"{"a": "NaN", "b NaN": ["-Infinity", "x \" Infinity"]}"#;
        assert_eq!(quote_non_finite(text), expected);
    }
}
