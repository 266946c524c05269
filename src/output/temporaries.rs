//! What exists only while a run is writing: one directory next to each place where output will be put.
//!
//! All directories of this process are on one list, so that the handler of a signal can remove them from another
//! thread. Directories are made, published and removed under the list's lock: a tree that is being removed is never
//! published, and nothing is made in one that is gone.
//!
//! Each directory has a file that its run keeps locked. The kernel releases the lock when the process ends for any reason, and
//! the lock is visible on every machine and in every container that sees the file. So a directory that nobody has locked was left
//! by a run that was killed, and the next run that writes to the same place removes it.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// The list that every output of this process is on.
pub(super) static TEMPORARIES: Registry = Registry::new();

/// What the names of all temporary directories begin with.
const PREFIX: &str = ".condlora-tmp-";
/// The locked file in each of them.
const LOCK: &str = "lock";
/// The output that is being made.
const NEW: &str = "new";
/// The old output, while it has no other place.
const OLD: &str = "old";

/// How much room must be there before anything is computed. The smallest study writes about this much.
const LEAST_ROOM: usize = 32 << 10;

/// Removes every temporary directory of this process, for a thread that handles a signal.
///
/// Afterwards nothing more can be written: any other attempt of this process to write ends in
/// [`Error::Interrupted`] with this signal, so that either thread may end the process with the same exit code.
pub fn remove_temporaries(signal: i32) {
    TEMPORARIES.remove_all(signal);
}

/// The directory to remove in the end.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    /// Directories made for it, outermost first; they stay once something was published.
    parents: Vec<PathBuf>,
}

impl Entry {
    fn remove(&self) -> io::Result<()> {
        let removed = remove_temporary(&self.path);
        remove_made(&self.parents);
        removed
    }
}

#[derive(Debug)]
struct State {
    interrupted: Option<i32>,
    next: u64,
    live: BTreeMap<u64, Entry>,
}

/// A list of temporary directories; one for the process, others only in tests.
#[derive(Debug)]
pub(super) struct Registry {
    state: Mutex<State>,
}

impl Registry {
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State { interrupted: None, next: 0, live: BTreeMap::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after any panic: no step leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_unless_interrupted(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match state.interrupted {
            Some(signal) => Err(Error::Interrupted { signal }),
            None => Ok(state),
        }
    }

    /// Does something inside a temporary directory that must not happen once it is removed.
    pub(super) fn guarded<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let _state = self.lock_unless_interrupted()?;
        act()
    }

    /// Removes everything listed; nothing can be made or published afterwards.
    pub(super) fn remove_all(&self, signal: i32) {
        let mut state = self.lock();
        state.interrupted.get_or_insert(signal);
        for entry in std::mem::take(&mut state.live).into_values() {
            // The process is ending and nobody could do anything about a failure.
            let _ = entry.remove();
        }
    }
}

/// A temporary directory of this run. When dropped, it leaves only what was published.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) registry: &'static Registry,
    id: u64,
    pub(super) path: PathBuf,
    /// The file that is locked while this run lives; none where files cannot be locked.
    _lock: Option<File>,
}

impl Temporary {
    /// Makes one. `folder` tells where, makes missing parents and lists them; `cannot` says that the
    /// directory cannot be made there. Nothing is left if either fails.
    pub(super) fn make<T>(
        registry: &'static Registry,
        folder: impl FnOnce(&mut Vec<PathBuf>) -> Result<(PathBuf, T)>,
        cannot: impl FnOnce(&T, &io::Error) -> Error,
    ) -> Result<(Self, T)> {
        let mut state = registry.lock_unless_interrupted()?;
        let mut parents = Vec::new();
        let made = folder(&mut parents).and_then(|(folder, of)| match claim(&folder) {
            Ok((path, lock)) => Ok((path, lock, of)),
            Err(error) => Err(cannot(&of, &error)),
        });
        let (path, lock, of) = made.inspect_err(|_| remove_made(&parents))?;
        let id = state.next;
        state.next += 1;
        state.live.insert(id, Entry { path: path.clone(), parents });
        Ok((Self { registry, id, path, _lock: lock }, of))
    }

    /// The path of the output that is being made.
    pub(super) fn place(&self) -> PathBuf {
        self.path.join(NEW)
    }

    /// The path for an old output while it has no other place.
    pub(super) fn old(&self) -> PathBuf {
        self.path.join(OLD)
    }

    /// Puts an output in its place; the directories that were made for it then stay.
    pub(super) fn publish<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut state = self.registry.lock_unless_interrupted()?;
        let done = act()?;
        if let Some(entry) = state.live.get_mut(&self.id) {
            entry.parents.clear();
        }
        Ok(done)
    }

    /// Removes what is left.
    pub(super) fn discard(&self) -> io::Result<()> {
        // Under the lock, so that a signal that comes during the removal waits for it instead of cutting it off.
        let mut state = self.registry.lock();
        state.live.remove(&self.id).map_or(Ok(()), |entry| entry.remove())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // A failure here has been reported, or is about to be, by its cause.
        let _ = self.discard();
    }
}

/// Makes a temporary directory in `folder`, and locks it. Finds a full disk or an exceeded quota before the computation
/// instead of after it.
fn claim(folder: &Path) -> io::Result<(PathBuf, Option<File>)> {
    loop {
        // The standard library seeds each of these from the system's random source; nothing in a result depends on it.
        let path = folder.join(format!("{PREFIX}{:016x}", RandomState::new().build_hasher().finish()));
        std::fs::create_dir(&path)?;
        match lock_new(&path) {
            Ok(lock) => return Ok((path, lock)),
            // Another run took it for an abandoned directory before it was locked.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_gone(&path) => {}
            Err(error) => {
                let _ = remove_temporary(&path);
                return Err(error);
            }
        }
    }
}

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn lock_new(path: &Path) -> io::Result<Option<File>> {
    let mut file = File::create_new(path.join(LOCK))?;
    file.write_all(&vec![0xA5; LEAST_ROOM])?;
    file.set_len(0)?;
    match file.try_lock() {
        Ok(()) => path.join(LOCK).metadata().map(|_| Some(file)),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        // A file system without locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Removes the temporary directories that killed runs have left in a folder. Directories that may belong to a run that is still
/// active are left alone.
pub(super) fn clear_stale(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let temporary = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if !temporary || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        // Anything that fails here is tried again by the next run.
        match File::options().read(true).write(true).open(path.join(LOCK)) {
            Ok(lock) => {
                if lock.try_lock().is_ok() && put_back(&path.join(OLD), folder).is_ok() {
                    let _ = remove_temporary(&path);
                }
            }
            // Without a lock it is empty, or about to get one.
            Err(_) => drop(std::fs::remove_dir(&path)),
        }
    }
}

/// Puts back an output that was moved out of its place, if the place is still free.
fn put_back(old: &Path, folder: &Path) -> io::Result<()> {
    let Ok(entries) = std::fs::read_dir(old) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let place = folder.join(entry.file_name());
        // An output that is there already is the new one.
        if is_gone(&place) {
            std::fs::rename(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Removes a temporary directory, the locked file last, so that a partly removed directory is still locked.
fn remove_temporary(path: &Path) -> io::Result<()> {
    remove_path(&path.join(NEW))?;
    remove_path(&path.join(OLD))?;
    remove_path(path)
}

/// Removes a file or a tree (no link is followed); nothing there is fine.
fn remove_path(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Makes the directories that `dir` lacks; returns those it made, outermost first. Undoes them when it fails.
pub(super) fn make_parents(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<_> = dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        match std::fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            // Another run has just made it, so this run must not remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => {
                remove_made(&made);
                return Err(error);
            }
        }
    }
    Ok(made)
}

/// Removes directories made by [`make_parents`], unless something else is in them by now.
pub(super) fn remove_made(made: &[PathBuf]) {
    for path in made.iter().rev() {
        if std::fs::remove_dir(path).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary directory in `folder`, which is made if it is missing.
    fn temporary(registry: &'static Registry, folder: &Path) -> Result<Temporary> {
        let cannot = |_: &(), error: &io::Error| Error::output(folder, error.to_string());
        let of = |parents: &mut Vec<PathBuf>| {
            *parents = make_parents(folder).unwrap();
            Ok((folder.to_owned(), ()))
        };
        Temporary::make(registry, of, cannot).map(|(temporary, ())| temporary)
    }

    fn registry() -> &'static Registry {
        Box::leak(Box::new(Registry::new()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_signal_removes_everything_and_ends_writing() {
        let (folder, registry) = (tempfile::tempdir().unwrap(), registry());
        let made = temporary(registry, &folder.path().join("a/b")).unwrap();
        std::fs::create_dir_all(made.place().join("deep")).unwrap();
        std::fs::write(made.place().join("deep/file"), "x").unwrap();
        registry.remove_all(15);
        assert!(names(folder.path()).is_empty());
        assert_eq!(registry.guarded(|| Ok(())).unwrap_err().exit_code(), 143);
        let publish = || -> Result<()> { panic!("nothing may be put in place") };
        assert_eq!(made.publish(publish).unwrap_err().exit_code(), 143);
        assert_eq!(temporary(registry, folder.path()).unwrap_err().exit_code(), 143);
        registry.remove_all(2);
        assert_eq!(registry.guarded(|| Ok(())).unwrap_err().exit_code(), 143);
        made.discard().unwrap();
    }

    #[test]
    fn parents_that_are_in_use_stay() {
        let folder = tempfile::tempdir().unwrap();
        let made = make_parents(&folder.path().join("a/b/c")).unwrap();
        assert_eq!(made.len(), 3);
        std::fs::write(folder.path().join("a/other"), "").unwrap();
        remove_made(&made);
        assert!(!folder.path().join("a/b").exists() && folder.path().join("a").exists());
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(make_parents(&folder.path().join("file/x")).is_err());
    }

    #[test]
    fn only_what_dead_runs_left_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let live = temporary(registry(), folder.path()).unwrap();
        std::fs::create_dir(live.place()).unwrap();
        let make = |name: &str, files: &[&str]| {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            for file in files {
                std::fs::write(folder.path().join(name).join(file), "x").unwrap();
            }
        };
        make(".condlora-tmp-dead", &["lock", "new"]);
        make(".condlora-tmp-killed-at-once", &[]);
        make(".condlora-tmp-somebody's", &["file"]);
        make("condlora-tmp-dead", &["lock"]);
        std::fs::write(folder.path().join(".condlora-tmp-file"), "x").unwrap();
        clear_stale(folder.path());
        let left = [".condlora-tmp-file", ".condlora-tmp-somebody's", "condlora-tmp-dead"];
        let names = names(folder.path());
        assert!(
            live.place().exists() && names.len() == 4 && left.iter().all(|name| names.iter().any(|n| n == name)),
            "{names:?}"
        );
        drop(live);
        assert_eq!(self::names(folder.path()), left);
    }

    #[test]
    fn an_output_that_a_killed_run_had_moved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let dead = folder.path().join(".condlora-tmp-dead");
        let moved = || {
            std::fs::create_dir_all(dead.join("old/out")).unwrap();
            std::fs::write(dead.join("lock"), "").unwrap();
            std::fs::write(dead.join("old/out/summary.csv"), "old").unwrap();
        };
        moved();
        clear_stale(folder.path());
        assert_eq!(std::fs::read_to_string(folder.path().join("out/summary.csv")).unwrap(), "old");
        // Unless the new one is in its place.
        std::fs::write(folder.path().join("out/summary.csv"), "new").unwrap();
        moved();
        clear_stale(folder.path());
        assert_eq!(std::fs::read_to_string(folder.path().join("out/summary.csv")).unwrap(), "new");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn runs_that_clear_and_make_at_once_leave_each_other_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        clear_stale(folder.path());
                        let made = temporary(registry(), folder.path()).unwrap();
                        std::fs::write(made.place(), "x").unwrap();
                        assert!(made.path.join("lock").exists());
                    }
                });
            }
        });
        assert!(names(folder.path()).is_empty());
    }
}
