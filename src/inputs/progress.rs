//! The progress of a computation, for callers that want to show it.

/// Is told of the progress of a computation; `()` ignores it.
pub trait Progress: Sync {
    /// The number of steps to do: base weights, layers or fits.
    fn begin(&self, total: usize);
    /// One more step is done.
    fn step(&self);
}

impl Progress for () {
    fn begin(&self, _: usize) {}
    fn step(&self) {}
}
