//! SIGINT and SIGTERM: remove what is half-written, then end with 128 + the signal's number.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result, in_words};
use crate::output::remove_temporaries;

/// Starts the thread that waits for a signal.
pub(super) fn watch() -> Result<()> {
    let failed = |error: std::io::Error| Error::Resource {
        what: "signals cannot be watched".into(),
        expected: "a thread for it".into(),
        found: in_words(&error),
        hint: None,
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                remove_temporaries(signal);
                std::process::exit(128 + signal);
            }
        })
        .map_err(failed)?;
    Ok(())
}
