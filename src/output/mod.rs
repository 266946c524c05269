//! The output directory: made in a temporary sibling, and put in place in one step.
//!
//! Whatever happens before that step, what was there before is untouched and nothing else is left; after it, the new
//! output is there in full. A run that is killed outright leaves its sibling, which the next run removes.

pub mod atomic_file;
mod destination;
pub mod manifest;
mod sync;
mod temporaries;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

pub use atomic_file::{write_file_atomically, write_files_atomically};
pub use manifest::{AdapterRecord, InputRecord, Manifest, MergedFrom, ShardRecord, only_base_name};
pub use temporaries::remove_temporaries;

use crate::error::{Result, in_words};
use destination::{Destination, Occupant, occupant};
use manifest::MANIFEST_FILE;
use sync::sync_all;
use temporaries::{
    Purpose, Registry, TEMPORARIES, Temporary, clear_stale, lock_dir, make_parents, remove_made, remove_path, temporary_name,
};

/// How much room must be there before anything is computed. The smallest study writes about this much.
const LEAST_ROOM: usize = 32 << 10;

/// An output directory that is not yet in place.
///
/// Dropped without [`OutputDir::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputDir {
    destination: Destination,
    overwrite: bool,
    temporary: PathBuf,
    registry: &'static Registry,
    id: u64,
    outputs: BTreeMap<String, String>,
    /// Tells runs in other containers, where our process number means nothing, that this one is alive.
    _lock: Option<File>,
}

impl OutputDir {
    /// Checks, before any long computation, that `out` may be made or replaced, and makes the temporary sibling.
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
        let mut begun = None;
        let id = registry.register(|| {
            let mut parents = Vec::new();
            let made = Destination::resolve(out, &mut parents).and_then(|destination| {
                let temporary = prepare(&destination, overwrite, protected)?;
                Ok((destination, temporary))
            });
            match made {
                Ok((destination, temporary)) => {
                    begun = Some((destination, temporary.clone()));
                    Ok(Temporary { path: temporary, parents })
                }
                Err(error) => {
                    remove_made(&parents);
                    Err(error)
                }
            }
        })?;
        let Some((destination, temporary)) = begun else {
            return Err(crate::Error::output(out, "the temporary output is gone"));
        };
        let lock = lock_dir(&temporary);
        Ok(Self { destination, overwrite, temporary, registry, id, outputs: BTreeMap::new(), _lock: lock })
    }

    /// Checks that a file system with a known size still has room for this many bytes.
    ///
    /// # Errors
    /// [`crate::Error::Output`] if it has not.
    pub fn require_room(&self, bytes: u64) -> Result<()> {
        // A file system that does not say how large it is (total 0) is taken at its word when it is full.
        if let Ok(found) = rustix::fs::statvfs(&self.temporary)
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

    /// The directory where the files are until they are put in place.
    #[must_use]
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Writes `manifest.json`, with the hash of every output, and puts the directory in place in one step.
    ///
    /// Returns the directory as it was given to [`OutputDir::begin`].
    ///
    /// # Errors
    /// [`crate::Error::Output`]; what was there before is then as it was.
    pub fn commit(mut self, manifest: &Manifest) -> Result<PathBuf> {
        let mut manifest = manifest.clone();
        manifest.outputs = std::mem::take(&mut self.outputs);
        let bytes = manifest.to_json();
        let result = self.create(MANIFEST_FILE)?.write_all(&bytes);
        result.map_err(|error| self.file_error(MANIFEST_FILE, &error))?;
        self.sync(&manifest.outputs)?;

        let (destination, overwrite) = (&self.destination, self.overwrite);
        self.registry.publish(self.id, |temporary| put_in_place(destination, overwrite, temporary))?;
        // The new output is in place. Only an old one can be left to remove now.
        self.registry.discard(self.id).map_err(|error| {
            let what = format!("the new output is in place, but the old one could not be removed: {}", in_words(&error));
            self.destination.error(what).with_hint(format!("remove {}", crate::error::show_path(&self.temporary)))
        })?;
        if let Some(parent) = self.destination.real.parent() {
            // What a crash of the system could undo now is the renaming as a whole: either state is a whole output.
            let _ = sync_all(&[parent.to_owned()]);
        }
        Ok(self.destination.given.clone())
    }

    fn create(&self, relative: &str) -> Result<File> {
        let relative = Path::new(relative);
        if relative.as_os_str().is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(self.destination.error(format!("`{}` is no path inside it", crate::error::show_path(relative))));
        }
        let path = self.temporary.join(relative);
        let created = self.registry.guarded(|| {
            let parents = path.parent().map_or(Ok(Vec::new()), make_parents);
            // Two outputs of one name, on a file system that ignores case say, must not become one.
            Ok(parents.and_then(|_| File::create_new(&path)))
        })?;
        created.map_err(|error| self.file_error(relative, &error))
    }

    fn end_file(&mut self, relative: &str, result: io::Result<()>, hash: blake3::Hash) -> Result<()> {
        result.map_err(|error| self.file_error(relative, &error))?;
        self.outputs.insert(relative.to_owned(), hash.to_hex().to_string());
        Ok(())
    }

    /// An error about a file, under the name it would have had.
    fn file_error(&self, relative: impl AsRef<Path>, error: &io::Error) -> crate::Error {
        // After a signal the directory is gone, and that is why.
        match self.registry.guarded(|| Ok(())) {
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
        let paths: Vec<_> = names.iter().map(|name| self.temporary.join(name)).collect();
        sync_all(&paths).map_err(|(index, error)| self.file_error(names.get(index).unwrap_or(&Path::new("")), &error))
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        // After a commit there is no entry left. A failure here has been reported, or is about to be, by its cause.
        let _ = self.registry.discard(self.id);
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

/// All checks of [`OutputDir::begin`], and the temporary sibling; nothing is left if one fails.
fn prepare(destination: &Destination, overwrite: bool, protected: &[PathBuf]) -> Result<PathBuf> {
    clear_stale(&destination.real);
    let occupant = destination.occupant()?;
    if occupant != Occupant::Absent {
        destination.check_occupant(&occupant, overwrite)?;
        destination.check_replaceable(protected)?;
        rustix::fs::access(&destination.real, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|error| destination.error(format!("cannot be replaced: {}", in_words(&io::Error::from(error)))))?;
    }
    let (Some(parent), Some(name)) = (destination.real.parent(), destination.real.file_name()) else {
        return Err(destination.error("is no name that a directory could have"));
    };
    let temporary = parent.join(temporary_name(name, Purpose::New));
    std::fs::create_dir(&temporary)
        .map_err(|error| destination.error(format!("no directory can be made beside it: {}", in_words(&error))))?;
    if let Err(error) = probe(&temporary) {
        let _ = remove_path(&temporary);
        return Err(destination.error(format!("cannot be written: {}", in_words(&error))));
    }
    Ok(temporary)
}

/// Finds a full disk or an exceeded quota before the computation instead of after it.
fn probe(temporary: &Path) -> io::Result<()> {
    let path = temporary.join(".room");
    let written = File::create_new(&path).and_then(|mut file| file.write_all(&vec![0xA5; LEAST_ROOM]));
    written.and(std::fs::remove_file(&path))
}

/// The one step. Runs with the registry locked; `temporary` becomes what is left to remove.
fn put_in_place(destination: &Destination, overwrite: bool, temporary: &mut Temporary) -> Result<()> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            destination.error("was made by something else meanwhile").with_hint("give another directory with -o")
        }
        _ => destination.error(format!("cannot be put in place: {}", in_words(&error))),
    };
    // Another run may have come first since the checks of `begin`.
    let found = destination.occupant()?;
    destination.check_occupant(&found, overwrite)?;
    if found != Occupant::Absent {
        keep_mode(&destination.real, &temporary.path).map_err(cannot)?;
    }
    if found == Occupant::Ours {
        let old = exchange(&temporary.path, &destination.real).map_err(cannot)?;
        // Between the check and the exchange it may still have been replaced by something that is not ours.
        if !matches!(occupant(&old), Ok(Occupant::Ours | Occupant::Empty)) {
            if old == temporary.path {
                exchange(&old, &destination.real).map_err(cannot)?;
            } else {
                std::fs::rename(&destination.real, &temporary.path).map_err(cannot)?;
                std::fs::rename(&old, &destination.real).map_err(cannot)?;
            }
            return Err(destination.error("was changed by something else meanwhile"));
        }
        temporary.path = old;
    } else {
        // Renaming a directory replaces nothing but an empty one, whatever has happened since the check.
        std::fs::rename(&temporary.path, &destination.real).map_err(cannot)?;
    }
    temporary.parents.clear();
    Ok(())
}

/// A directory that was made beforehand, for a group to share say, keeps its permissions.
fn keep_mode(old: &Path, new: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(old)?.mode() & 0o7777;
    if std::fs::metadata(new)?.mode() & 0o7777 != mode {
        std::fs::set_permissions(new, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Puts `new` in the place of `old`; returns where the old one is now.
fn exchange(new: &Path, old: &Path) -> io::Result<PathBuf> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(new.to_owned()),
        // Old kernels, and file systems without this operation (NFS, some FUSE).
        Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => move_aside(new, old),
        Err(error) => Err(error.into()),
    }
}

/// The next best: two renames with a gap between them. [`clear_stale`] repairs what a kill in the gap leaves.
fn move_aside(new: &Path, old: &Path) -> io::Result<PathBuf> {
    let name = old.file_name().unwrap_or_default();
    let aside = old.with_file_name(temporary_name(name, Purpose::Aside));
    std::fs::rename(old, &aside)?;
    match std::fs::rename(new, old) {
        Ok(()) => Ok(aside),
        Err(error) => {
            std::fs::rename(&aside, old)?;
            Err(error)
        }
    }
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
        let (new, old) = (folder.path().join(".new"), folder.path().join("out"));
        for (dir, text) in [(&new, "new"), (&old, "old")] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("file"), text).unwrap();
        }
        let aside = move_aside(&new, &old).unwrap();
        assert_eq!(std::fs::read_to_string(old.join("file")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(aside.join("file")).unwrap(), "old");
        std::fs::remove_dir_all(aside).unwrap();
        assert!(move_aside(&new, &old).is_err());
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(std::fs::read_to_string(old.join("file")).unwrap(), "new");
    }

    #[test]
    fn what_changed_hands_after_the_check_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let destination = Destination::resolve(&out, &mut Vec::new()).unwrap();
        let make = |name: &str, file: &str, text: &str| {
            let dir = folder.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join(file), text).unwrap();
            Temporary { path: dir, parents: Vec::new() }
        };
        make("out", "thesis.tex", "precious");
        let mut temporary = make("tmp", MANIFEST_FILE, r#"{"program":"condlora"}"#);
        assert_eq!(put_in_place(&destination, true, &mut temporary).unwrap_err().exit_code(), 7);
        assert_eq!(names(&out), ["thesis.tex"]);
        std::fs::remove_file(out.join("thesis.tex")).unwrap();
        put_in_place(&destination, false, &mut temporary).unwrap();
        assert_eq!(names(&out), [MANIFEST_FILE]);
        let mut second = make("tmp2", MANIFEST_FILE, r#"{"program":"condlora"}"#);
        assert_eq!(put_in_place(&destination, false, &mut second).unwrap_err().exit_code(), 7);
        put_in_place(&destination, true, &mut second).unwrap();
        assert!(second.path.exists(), "the old one is there to remove");
    }
}
