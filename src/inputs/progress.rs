//! How far a computation has come, for whoever wants to show it.

/// Hears how far a computation has come; `()` hears nothing.
pub trait Progress: Sync {
    /// The number of steps to do: base weights, layers or fits.
    fn begin(&self, total: usize);
    /// One more is done.
    fn step(&self);
}

impl Progress for () {
    fn begin(&self, _: usize) {}
    fn step(&self) {}
}
