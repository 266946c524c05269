//! The time that a study spends in each stage, summed over threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The stages of a study.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pub(super) read: Stage,
    pub(super) solve: Stage,
    pub(super) subspaces: Stage,
    pub(super) similarity: Stage,
    pub(super) decompose: Stage,
    pub(super) controls: Stage,
}

/// The time spent in one stage.
#[derive(Debug, Default)]
pub(super) struct Stage(AtomicU64);

impl Stage {
    /// Runs `work` and counts the time it takes.
    pub(super) fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
        done
    }

    fn reading(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Clock {
    /// Every stage with its time.
    pub(super) fn readings(&self) -> [(&'static str, Duration); 6] {
        [
            ("read", self.read.reading()),
            ("solve", self.solve.reading()),
            ("subspaces", self.subspaces.reading()),
            ("similarity", self.similarity.reading()),
            ("decompose", self.decompose.reading()),
            ("strict controls", self.controls.reading()),
        ]
    }
}
