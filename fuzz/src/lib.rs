//! The entry points of `tests/fuzz.rs` for cargo-fuzz, one program each in `fuzz_targets/`.
#![allow(clippy::result_large_err, reason = "the library's error is what it is")]

#[path = "../../tests/bad_inputs/generate.rs"]
#[allow(dead_code, reason = "pickles are written of its tensors")]
mod generate;
#[path = "../../tests/bad_inputs/pickled.rs"]
#[allow(dead_code, reason = "only archives are written")]
mod pickled;

#[path = "../../tests/fuzzed/entry.rs"]
#[allow(dead_code, reason = "the tests count")]
mod entry;

use std::cell::RefCell;

thread_local! {
    static PLACE: RefCell<entry::Place> = RefCell::new(entry::Place::new());
}

/// Runs the entry of that name and holds its answer against what is promised; what libFuzzer counts itself (time, memory) is its own business.
///
/// # Panics
/// If the answer is not one clean line with an exit code of an input.
pub fn run(name: &str, bytes: &[u8]) {
    let entry = entry::ALL.into_iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no entry {name}"));
    if let Err(error) = PLACE.with_borrow_mut(|place| (entry.run)(place, bytes)) {
        let text = error.to_string() + error.hint().unwrap_or_default();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!([2, 3, 4, 5, 6, 8].contains(&error.exit_code()), "{text}");
    }
}
