//! Jobs that are taken in order by a few workers, so that only as many jobs as workers are in memory at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::conversion::Workspace;
use crate::error::Result;

/// Runs all jobs, at most `workers` at a time, each with a workspace that no other has; results in the order of the jobs.
///
/// # Errors
/// The error of the first failing job in the order of the jobs, not in time: later jobs are not begun, earlier ones are finished.
pub(crate) fn run_jobs<J: Sync, T: Send>(
    jobs: &[J],
    workers: usize,
    work: impl Fn(&J, &mut Workspace) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, first_failed) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let take_all = || {
        let mut workspace = Workspace::default();
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index).filter(|_| index < first_failed.load(Ordering::Relaxed)) else { return done };
            let result = work(job, &mut workspace);
            if result.is_err() {
                first_failed.fetch_min(index, Ordering::Relaxed);
            }
            done.push((index, result));
        }
    };
    let workers = workers.clamp(1, jobs.len().max(1));
    let mut done: Vec<(usize, Result<T>)> =
        (0..workers).into_par_iter().with_max_len(1).map(|_| take_all()).flatten_iter().collect();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn results_and_errors_come_in_order() {
        let jobs: Vec<usize> = (0..100).collect();
        let running = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let twice = run_jobs(&jobs, 3, |job, _| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(job * 2)
        });
        assert_eq!(twice.unwrap(), (0..200).step_by(2).collect::<Vec<_>>());
        assert!(most.into_inner() <= 3);
        for workers in [1, 2, 8] {
            let failed =
                run_jobs(&jobs, workers, |job, _| if job % 30 == 29 { Err(Error::usage(job.to_string())) } else { Ok(()) });
            assert_eq!(failed.unwrap_err().to_string(), "29");
        }
        assert!(run_jobs(&[], 2, |_: &(), _| Ok(())).unwrap().is_empty());
    }
}
