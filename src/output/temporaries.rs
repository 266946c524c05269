//! What exists only while a run is writing: temporary directories and files beside the output.
//!
//! They are all listed here, so that whoever handles a signal can remove them from another thread. What makes,
//! publishes or removes one does so under the list's lock: a tree that is being removed is never published, and
//! nothing is made in one that is gone.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// The list that every output of this process is on.
pub(super) static TEMPORARIES: Registry = Registry::new();

/// Removes every temporary directory and file of this process, for a thread that handles a signal.
///
/// Afterwards nothing more can be written: whatever else this process tries to write ends in
/// [`Error::Interrupted`] with this signal, so that either thread may end the process with the same exit code.
pub fn remove_temporaries(signal: i32) {
    TEMPORARIES.remove_all(signal);
}

/// Something to remove unless it is published.
#[derive(Debug)]
pub(super) struct Temporary {
    /// The directory or file.
    pub(super) path: PathBuf,
    /// Directories made for it, outermost first.
    pub(super) parents: Vec<PathBuf>,
}

impl Temporary {
    fn remove(&self) -> io::Result<()> {
        let removed = remove_path(&self.path);
        remove_made(&self.parents);
        removed
    }
}

#[derive(Debug)]
struct State {
    interrupted: Option<i32>,
    next: u64,
    live: BTreeMap<u64, Temporary>,
}

/// A list of temporaries; one for the process, others only in tests.
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

    /// Makes a temporary and lists it in one step. `make` leaves nothing behind when it fails.
    pub(super) fn register(&self, make: impl FnOnce() -> Result<Temporary>) -> Result<u64> {
        let mut state = self.lock_unless_interrupted()?;
        let temporary = make()?;
        let id = state.next;
        state.next += 1;
        state.live.insert(id, temporary);
        Ok(id)
    }

    /// Does something inside a temporary that must not happen once it is removed.
    pub(super) fn guarded<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let _state = self.lock_unless_interrupted()?;
        act()
    }

    /// Publishes a temporary. `act` changes the entry to what is left to remove afterwards.
    pub(super) fn publish<T>(&self, id: u64, act: impl FnOnce(&mut Temporary) -> Result<T>) -> Result<T> {
        let mut state = self.lock_unless_interrupted()?;
        match state.live.get_mut(&id) {
            Some(temporary) => act(temporary),
            None => Err(Error::output(Path::new(""), "the temporary output is gone")),
        }
    }

    /// Removes what is left of a temporary, and its entry.
    pub(super) fn discard(&self, id: u64) -> io::Result<()> {
        // Under the lock, so that a signal that comes meanwhile waits for the removal instead of cutting it off.
        let mut state = self.lock();
        state.live.remove(&id).map_or(Ok(()), |temporary| temporary.remove())
    }

    /// Removes everything listed; nothing can be registered or published afterwards.
    pub(super) fn remove_all(&self, signal: i32) {
        let mut state = self.lock();
        state.interrupted.get_or_insert(signal);
        for temporary in std::mem::take(&mut state.live).into_values() {
            // The process is ending and nobody could do anything about a failure.
            let _ = temporary.remove();
        }
    }
}

/// Removes a file or a tree (no link is followed); nothing there is fine.
pub(super) fn remove_path(path: &Path) -> io::Result<()> {
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
            // Another run made it meanwhile: then it is not ours to remove.
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

/// What a temporary holds, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An output that is being made, or an old one that is being removed.
    New,
    /// An old output that was moved aside because the file system cannot exchange two directories.
    Aside,
}

impl Purpose {
    fn infix(self) -> &'static str {
        match self {
            Self::New => ".condlora-tmp-",
            Self::Aside => ".condlora-old-",
        }
    }
}

/// `.NAME.condlora-tmp-`: what the names of all temporaries of one output begin with.
fn prefix(name: &OsStr, purpose: Purpose) -> OsString {
    // 255 bytes, less the dot, the infix, ten digits of a process, a hyphen and the random part.
    const LONGEST: usize = 255 - 1 - 14 - 10 - 1 - 16;
    let mut prefix = OsString::from(".");
    if name.len() <= LONGEST {
        prefix.push(name);
    } else {
        prefix.push(&blake3::hash(name.as_encoded_bytes()).to_hex()[..32]);
    }
    prefix.push(purpose.infix());
    prefix
}

/// A new name for a temporary beside `name`: `.NAME.condlora-tmp-PID-RANDOM`.
pub(super) fn temporary_name(name: &OsStr, purpose: Purpose) -> OsString {
    // The standard library seeds each of these from the system's random source; nothing in a result depends on it.
    let random = RandomState::new().build_hasher().finish();
    let mut out = prefix(name, purpose);
    out.push(format!("{}-{random:016x}", std::process::id()));
    out
}

/// Clears away what killed runs have left beside `out`: their temporaries are removed, and an output that was only
/// moved aside is put back. What may belong to a run that is still going is left alone.
pub(super) fn clear_stale(out: &Path) {
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else { return };
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let prefixes = [(prefix(name, Purpose::New), Purpose::New), (prefix(name, Purpose::Aside), Purpose::Aside)];
    for entry in entries.flatten() {
        let found = entry.file_name();
        let found = found.as_encoded_bytes();
        for (prefix, purpose) in &prefixes {
            if found.strip_prefix(prefix.as_encoded_bytes()).is_some_and(is_of_dead_process) && is_unlocked_dir(&entry.path()) {
                // Whatever fails here is tried again by the next run.
                if *purpose == Purpose::Aside && !out.exists() {
                    let _ = std::fs::rename(entry.path(), out);
                } else {
                    let _ = remove_path(&entry.path());
                }
            }
        }
    }
}

/// Whether this is `PID-RANDOM` of a process that is gone. False where processes cannot be looked up.
fn is_of_dead_process(rest: &[u8]) -> bool {
    let Some((process, random)) = std::str::from_utf8(rest).ok().and_then(|rest| rest.split_once('-')) else { return false };
    let well_formed = random.len() == 16
        && random.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !process.is_empty()
        && process.bytes().all(|byte| byte.is_ascii_digit());
    well_formed && Path::new("/proc/self").exists() && !Path::new("/proc").join(process).exists()
}

/// Whether nobody holds the lock of a temporary directory. A run in another container has a process number that
/// means nothing here, but its lock is seen.
fn is_unlocked_dir(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) && lock_dir(path).is_some()
}

/// Takes the lock of a directory for as long as the result lives. None where another has it or locks do not work.
pub(super) fn lock_dir(path: &Path) -> Option<std::fs::File> {
    let dir = std::fs::File::open(path).ok()?;
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_removes_everything_and_ends_writing() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new();
        let out = folder.path().join("a/b/out");
        let make = || {
            let parents = make_parents(out.parent().unwrap()).unwrap();
            std::fs::create_dir_all(out.join("deep")).unwrap();
            std::fs::write(out.join("deep/file"), "x").unwrap();
            Ok(Temporary { path: out.clone(), parents })
        };
        let id = registry.register(make).unwrap();
        registry.remove_all(15);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(registry.guarded(|| Ok(())).unwrap_err().exit_code(), 143);
        assert_eq!(registry.publish(id, |_| Ok(())).unwrap_err().exit_code(), 143);
        assert_eq!(registry.register(make).unwrap_err().exit_code(), 143);
        registry.remove_all(2);
        assert_eq!(registry.guarded(|| Ok(())).unwrap_err().exit_code(), 143);
        registry.discard(id).unwrap();
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
        let out = folder.path().join("out");
        // The largest process number Linux gives is below 2^22.
        let dead = [".out.condlora-tmp-99999999-0123456789abcdef", ".out.condlora-tmp-88888888-0123456789abcdef"];
        let kept = [
            format!(".out.condlora-tmp-{}-0123456789abcdef", std::process::id()),
            ".out.condlora-tmp-99999999-0123".to_owned(),
            ".out.condlora-tmp-99999999-0123456789abcdez".to_owned(),
            ".out.condlora-tmp--0123456789abcdef".to_owned(),
            ".out.condlora-tmp-..-0123456789abcdef".to_owned(),
            ".output.condlora-tmp-99999999-0123456789abcdef".to_owned(),
            ".out.condlora-tmp-77777777-0123456789abcdef".to_owned(),
            "out.condlora-tmp-99999999-0123456789abcdef".to_owned(),
        ];
        for name in dead.iter().copied().chain(kept.iter().map(String::as_str)) {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("file"), "x").unwrap();
        }
        let file = folder.path().join(".out.condlora-tmp-99999999-fedcba9876543210");
        std::fs::write(&file, "somebody's").unwrap();
        let locked = lock_dir(&folder.path().join(".out.condlora-tmp-77777777-0123456789abcdef")).unwrap();
        clear_stale(&out);
        assert!(dead.iter().all(|name| !folder.path().join(name).exists()));
        assert!(kept.iter().all(|name| folder.path().join(name).exists()));
        assert!(file.exists());
        drop(locked);
    }

    #[test]
    fn an_output_moved_aside_by_a_killed_run_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (out, aside) = (folder.path().join("out"), folder.path().join(".out.condlora-old-99999999-0123456789abcdef"));
        std::fs::create_dir(&aside).unwrap();
        std::fs::write(aside.join("summary.csv"), "old").unwrap();
        clear_stale(&out);
        assert_eq!(std::fs::read_to_string(out.join("summary.csv")).unwrap(), "old");
        std::fs::create_dir(&aside).unwrap();
        clear_stale(&out);
        assert!(!aside.exists() && out.join("summary.csv").exists());
    }

    #[test]
    fn names_fit_beside_the_longest_output() {
        for length in [1, 213, 214, 255] {
            let name = temporary_name(OsStr::new(&"x".repeat(length)), Purpose::Aside);
            assert!(name.len() <= 255 && name.as_encoded_bytes().starts_with(b"."));
        }
        assert_ne!(temporary_name(OsStr::new("a"), Purpose::New), temporary_name(OsStr::new("a"), Purpose::New));
    }
}
