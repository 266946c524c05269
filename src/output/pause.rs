//! Points at which a test can pause a run: with `CONDLORA_WAIT_AT=POINT:FIFO` it waits at that point until the test, which opens the
//! FIFO for writing, closes it again.
//!
//! The points are `begun`, each file of the output when it has been written, `checked` between the last check of an old
//! output and the exchange, and `exchanged`. Only a build with debug assertions has them.

#[cfg(debug_assertions)]
pub(super) fn wait_at(point: &str) {
    if let Ok(wanted) = std::env::var("CONDLORA_WAIT_AT")
        && let Some((wanted, fifo)) = wanted.split_once(':')
        && wanted == point
    {
        // Opening waits for the test to open the other end, and reading until it closes it.
        let _ = std::fs::read(fifo);
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn wait_at(_: &str) {}
