//! JSON text of our own values.

use serde::Serialize;

/// A value as indented JSON with a line break at the end.
pub(crate) fn pretty(value: &(impl Serialize + ?Sized)) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(mut text) => {
            text.push('\n');
            text
        }
        Err(error) => unreachable!("plain values with names as keys, written into memory: {error}"),
    }
}
