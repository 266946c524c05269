//! The output directory: made in a temporary directory next to it, and put in place in one step.
//!
//! If anything fails before that step, the old output is untouched and nothing else is left; after it, the new
//! output is there in full. A run that is killed outright leaves its temporary directory, which the next run removes.

pub mod atomic_file;
mod destination;
pub mod manifest;
mod pause;
mod temporaries;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

pub use atomic_file::{write_file_atomically, write_files_atomically};
pub use manifest::{Manifest, MergedFrom};
pub use temporaries::remove_temporaries;

use crate::error::{Result, field, in_words};
use destination::{Destination, Occupant, occupant};
use manifest::MANIFEST_FILE;
use pause::wait_at;
use temporaries::{Registry, TEMPORARIES, Temporary, clear_stale, make_parents};

/// From this many files on, all are synced to disk at once.
const MANY: usize = 64;

/// An output directory that is not yet in place.
///
/// Dropped without [`OutputDir::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputDir {
    destination: Destination,
    overwrite: bool,
    temporary: Temporary,
    outputs: BTreeMap<String, String>,
}

impl OutputDir {
    /// Checks, before any long computation, that `out` may be made or replaced, and makes the temporary directory.
    ///
    /// `protected` are the input files and directories: `out` is refused if replacing it would remove one of them.
    /// An input directory may hold `out`.
    ///
    /// # Errors
    /// [`crate::Error::Output`] if `out` exists (other than as an empty directory) without `overwrite`, is not an
    /// output of ours, holds an input, or cannot be written.
    pub fn begin(out: &Path, overwrite: bool, protected: &[PathBuf]) -> Result<Self> {
        Self::begin_in(&TEMPORARIES, out, overwrite, protected)
    }

    fn begin_in(registry: &'static Registry, out: &Path, overwrite: bool, protected: &[PathBuf]) -> Result<Self> {
        let folder = |parents: &mut Vec<PathBuf>| {
            let destination = Destination::resolve(out, parents)?;
            let folder = destination.folder().to_owned();
            clear_stale(&folder);
            check(&destination, overwrite, protected)?;
            Ok((folder, destination))
        };
        let cannot = |destination: &Destination, error: &io::Error| {
            destination.error(format!("nothing can be written next to it: {}", in_words(error)))
        };
        let (temporary, destination) = Temporary::make(registry, folder, cannot)?;
        wait_at("begun");
        Ok(Self { destination, overwrite, temporary, outputs: BTreeMap::new() })
    }

    /// Checks that a file system with a known size still has room for this many bytes.
    ///
    /// # Errors
    /// [`crate::Error::Output`] if it has not.
    pub fn require_room(&self, bytes: u64) -> Result<()> {
        // A file system that does not say how large it is (total 0) reports by itself when it is full.
        if let Ok(found) = rustix::fs::statvfs(&self.temporary.path)
            && found.f_blocks > 0
            && found.f_bavail.saturating_mul(found.f_frsize) < bytes
        {
            let room = found.f_bavail.saturating_mul(found.f_frsize);
            return Err(self.destination.error(format!("the output needs about {bytes} bytes, and the disk has {room} left")));
        }
        Ok(())
    }

    /// Writes a file; `relative` is its path in the directory, with `/`.
    ///
    /// # Errors
    /// [`crate::Error::Output`] if it cannot be written or was written before.
    pub fn write(&mut self, relative: &str, bytes: &[u8]) -> Result<()> {
        let result = self.create(relative)?.write_all(bytes);
        self.end_file(relative, result, blake3::hash(bytes))
    }

    /// Writes a file piece by piece, for what is too large to hold.
    ///
    /// # Errors
    /// [`crate::Error::Output`] if it cannot be written or was written before, with the error of `fill` in words.
    pub fn stream(&mut self, relative: &str, fill: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>) -> Result<()> {
        let file = Hashing { file: self.create(relative)?, hash: blake3::Hasher::new() };
        let mut buffered = BufWriter::with_capacity(64 << 10, file);
        let result = fill(&mut buffered).and_then(|()| buffered.flush());
        let hash = buffered.get_ref().hash.finalize();
        self.end_file(relative, result, hash)
    }

    /// The files written so far, by their path, with the BLAKE3 of each in hex.
    #[must_use]
    pub fn outputs(&self) -> &BTreeMap<String, String> {
        &self.outputs
    }

    /// Writes `manifest.json`, with the hash of every output, and puts the directory in place in one step.
    ///
    /// Returns the directory as it was given to [`OutputDir::begin`].
    ///
    /// # Errors
    /// [`crate::Error::Output`]; the old output is then unchanged.
    pub fn commit(mut self, manifest: &Manifest) -> Result<PathBuf> {
        let mut manifest = manifest.clone();
        manifest.outputs = std::mem::take(&mut self.outputs);
        let bytes = manifest.to_json();
        let result = self.create(MANIFEST_FILE)?.write_all(&bytes);
        result.map_err(|error| self.file_error(MANIFEST_FILE, &error))?;
        wait_at(MANIFEST_FILE);
        self.sync(&manifest.outputs)?;

        let (destination, temporary) = (&self.destination, &self.temporary);
        temporary.publish(|| put_in_place(destination, self.overwrite, temporary))?;
        wait_at("exchanged");
        // The new output is in place. Only an old one can be left to remove now.
        temporary.discard().map_err(|error| {
            let what = format!("the new output is in place, but the old one could not be removed: {}", in_words(&error));
            destination.error(what).with_hint(format!("remove {}", crate::error::show_path(&temporary.path)))
        })?;
        // A crash of the system can now only undo the rename as a whole, and both states are complete outputs.
        let _ = sync_all(&[destination.folder().to_owned()]);
        Ok(destination.given.clone())
    }

    fn create(&self, relative: &str) -> Result<File> {
        let relative = Path::new(relative);
        if relative.as_os_str().is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(self.destination.error(format!("`{}` is no path inside it", crate::error::show_path(relative))));
        }
        let path = self.temporary.place().join(relative);
        let created = self.temporary.registry.guarded(|| {
            let parents = path.parent().map_or(Ok(Vec::new()), make_parents);
            // Two outputs with one name must not become one, for example on a file system that ignores case.
            Ok(parents.and_then(|_| File::create_new(&path)))
        })?;
        created.map_err(|error| self.file_error(relative, &error))
    }

    fn end_file(&mut self, relative: &str, result: io::Result<()>, hash: blake3::Hash) -> Result<()> {
        result.map_err(|error| self.file_error(relative, &error))?;
        self.outputs.insert(relative.to_owned(), hash.to_hex().to_string());
        wait_at(relative);
        Ok(())
    }

    /// An error about a file, under the name it would have had.
    fn file_error(&self, relative: impl AsRef<Path>, error: &io::Error) -> crate::Error {
        // After a signal the directory is gone, which is the cause of the error.
        match self.temporary.registry.guarded(|| Ok(())) {
            Err(interrupted) => interrupted,
            Ok(()) => {
                crate::Error::output(&self.destination.given.join(relative), format!("cannot be written: {}", in_words(error)))
            }
        }
    }

    fn sync(&self, outputs: &BTreeMap<String, String>) -> Result<()> {
        let mut names: Vec<&Path> = outputs.keys().map(Path::new).collect();
        names.push(Path::new(MANIFEST_FILE));
        let folders: BTreeSet<&Path> = names.iter().flat_map(|name| name.ancestors().skip(1)).collect();
        names.extend(folders);
        let paths: Vec<_> = names.iter().map(|name| self.temporary.place().join(name)).collect();
        sync_all(&paths).map_err(|(index, error)| self.file_error(names.get(index).unwrap_or(&Path::new("")), &error))
    }
}

/// A file, and the hash of what was written to it.
struct Hashing {
    file: File,
    hash: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// All checks of [`OutputDir::begin`].
fn check(destination: &Destination, overwrite: bool, protected: &[PathBuf]) -> Result<()> {
    let occupant = destination.occupant()?;
    if occupant == Occupant::Absent {
        return Ok(());
    }
    destination.check_occupant(&occupant, overwrite)?;
    destination.check_replaceable(protected)?;
    rustix::fs::access(&destination.real, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|error| destination.error(format!("cannot be replaced: {}", in_words(&io::Error::from(error)))))
}

/// The one step. The old output is then in the temporary directory.
fn put_in_place(destination: &Destination, overwrite: bool, temporary: &Temporary) -> Result<()> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => destination
            .error("was made by something else meanwhile")
            .with_hint(format!("give another directory with {}", field("out"))),
        _ => destination.error(format!("cannot be put in place: {}", in_words(&error))),
    };
    // Another run may have come first since the checks of `begin`.
    let found = destination.occupant()?;
    destination.check_occupant(&found, overwrite)?;
    let (new, out) = (temporary.place(), &destination.real);
    if found != Occupant::Absent {
        keep_mode(out, &new).map_err(cannot)?;
    }
    if found != Occupant::Ours {
        // Renaming a directory can only replace an empty one, so nothing that came since the check is lost.
        return std::fs::rename(&new, out).map_err(cannot);
    }
    wait_at("checked");
    let old = exchange(temporary, out).map_err(cannot)?;
    // Between the check and the exchange it may still have been replaced by something that is not ours.
    if matches!(occupant(&old), Ok(Occupant::Ours | Occupant::Empty)) {
        return Ok(());
    }
    if old == new {
        exchange(temporary, out).map_err(cannot)?;
    } else {
        std::fs::rename(out, &new).map_err(cannot)?;
        std::fs::rename(&old, out).map_err(cannot)?;
    }
    Err(destination.error("was changed by something else meanwhile"))
}

/// A directory that was made beforehand, for example to be shared by a group, keeps its permissions.
fn keep_mode(old: &Path, new: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(old)?.mode() & 0o7777;
    if std::fs::metadata(new)?.mode() & 0o7777 != mode {
        std::fs::set_permissions(new, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Puts the new output in the place of the old one; returns where the old one is now.
///
/// The two directories are exchanged, because a plain rename cannot replace a directory that is not empty: with an exchange the path
/// always leads to one complete output, also if the process is killed in the middle.
fn exchange(temporary: &Temporary, out: &Path) -> io::Result<PathBuf> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    let new = temporary.place();
    match renameat_with(CWD, &new, CWD, out, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(new),
        // Old kernels, and file systems without this operation (NFS, some FUSE).
        Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => move_aside(temporary, out),
        Err(error) => Err(error.into()),
    }
}

/// The fallback: two renames with a gap between them. [`clear_stale`] repairs what a kill in the gap leaves.
fn move_aside(temporary: &Temporary, out: &Path) -> io::Result<PathBuf> {
    let Some(name) = out.file_name() else { unreachable!("an output that is there has a name") };
    let old = temporary.old().join(name);
    make_parents(&temporary.old())?;
    std::fs::rename(out, &old)?;
    match std::fs::rename(temporary.place(), out) {
        Ok(()) => Ok(old),
        Err(error) => {
            std::fs::rename(&old, out)?;
            Err(error)
        }
    }
}

/// Syncs files and directories to disk before they replace older ones. The error comes with the index of
/// the path that it is about; a path that no longer exists is an error too.
fn sync_all(paths: &[PathBuf]) -> Result<(), (usize, io::Error)> {
    // One after another costs a journal commit each: on ext4, 0.2 s for 70 files and 2 s for 1000. One `syncfs` takes
    // 0.03 s for 1000, but also waits for what other processes have written.
    let at_once = paths.len() > MANY && sync_file_system(&paths[0]);
    for (index, path) in paths.iter().enumerate() {
        let synced = File::open(path).and_then(|file| if at_once { Ok(()) } else { sync_one(&file) });
        synced.map_err(|error| (index, error))?;
    }
    Ok(())
}

/// Some file systems cannot sync (a directory, or at all) and say so with EINVAL or ENOTSUP: that is no failed write.
fn sync_one(file: &File) -> io::Result<()> {
    file.sync_all().or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
        _ => Err(error),
    })
}

#[cfg(target_os = "linux")]
fn sync_file_system(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| rustix::fs::syncfs(&file).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> &'static Registry {
        Box::leak(Box::new(Registry::new()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn temporary_in(folder: &Path) -> Temporary {
        let cannot = |_: &(), error: &io::Error| crate::Error::output(folder, error.to_string());
        Temporary::make(registry(), |_| Ok((folder.to_owned(), ())), cannot).unwrap().0
    }

    #[test]
    fn every_path_is_synced_and_a_failure_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut paths: Vec<_> = (0..2 * MANY).map(|n| folder.path().join(n.to_string())).collect();
        for path in &paths {
            std::fs::write(path, "x").unwrap();
        }
        paths.push(folder.path().to_owned());
        for some in [&paths[..], &paths[MANY + 1..], &[]] {
            assert!(sync_all(some).is_ok());
        }
        paths.push(folder.path().join("missing"));
        for some in [&paths[..], &paths[MANY + 2..]] {
            let (index, error) = sync_all(some).unwrap_err();
            assert_eq!((index, error.kind()), (some.len() - 1, io::ErrorKind::NotFound));
        }
    }

    #[test]
    fn a_signal_takes_the_output_away_and_nothing_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry();
        let mut out = OutputDir::begin_in(registry, &folder.path().join("a/b/out"), false, &[]).unwrap();
        out.write("matrices/x/m.csv", b"1").unwrap();
        registry.remove_all(15);
        assert_eq!(out.write("matrices/x/n.csv", b"1").unwrap_err().exit_code(), 143);
        assert_eq!(out.commit(&Manifest::new(Vec::new())).unwrap_err().exit_code(), 143);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_signal_while_a_file_is_filled_ends_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry();
        let mut out = OutputDir::begin_in(registry, &folder.path().join("out"), false, &[]).unwrap();
        let error = out.stream("a.csv", |_| {
            registry.remove_all(2);
            Err(io::Error::other("stopped"))
        });
        assert_eq!(error.unwrap_err().exit_code(), 130);
        drop(out);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn moving_aside_does_what_an_exchange_does() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, out) = (temporary_in(folder.path()), folder.path().join("out"));
        for (dir, text) in [(&temporary.place(), "new"), (&out, "old")] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("file"), text).unwrap();
        }
        let old = move_aside(&temporary, &out).unwrap();
        assert_eq!(std::fs::read_to_string(out.join("file")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(old.join("file")).unwrap(), "old");
        std::fs::remove_dir_all(old).unwrap();
        assert!(move_aside(&temporary, &out).is_err());
        assert_eq!(std::fs::read_to_string(out.join("file")).unwrap(), "new");
        drop(temporary);
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn what_changed_hands_after_the_check_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let destination = Destination::resolve(&out, &mut Vec::new()).unwrap();
        let made = || {
            let temporary = temporary_in(folder.path());
            std::fs::create_dir(temporary.place()).unwrap();
            std::fs::write(temporary.place().join(MANIFEST_FILE), r#"{"program":"condlora"}"#).unwrap();
            temporary
        };
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("thesis.tex"), "precious").unwrap();
        let first = made();
        assert_eq!(put_in_place(&destination, true, &first).unwrap_err().exit_code(), 7);
        assert_eq!(names(&out), ["thesis.tex"]);
        std::fs::remove_file(out.join("thesis.tex")).unwrap();
        put_in_place(&destination, false, &first).unwrap();
        assert_eq!(names(&out), [MANIFEST_FILE]);
        let second = made();
        assert_eq!(put_in_place(&destination, false, &second).unwrap_err().exit_code(), 7);
        put_in_place(&destination, true, &second).unwrap();
        assert_eq!(names(&second.place()), [MANIFEST_FILE], "the old one is there to remove");
    }
}
