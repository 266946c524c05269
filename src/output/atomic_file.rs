//! Single files that replace older ones in one step: for `--figures-dir`, where other things may be too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::sync::sync_all;
use super::temporaries::{Purpose, Registry, TEMPORARIES, Temporary, make_parents, remove_made, remove_path, temporary_name};
use crate::error::{Error, Result, in_words};

/// Writes a file by way of a temporary one beside it. Returns whether it changed: a file that holds these bytes
/// already is not touched.
///
/// # Errors
/// [`Error::Output`] if it cannot be written; the old file is then as it was.
pub fn write_file_atomically(path: &Path, bytes: &[u8]) -> Result<bool> {
    Ok(write_files_atomically(&[(path, bytes)])?.first().copied().unwrap_or(false))
}

/// Writes many files as [`write_file_atomically`] does, waiting for the disk once instead of for each.
///
/// # Errors
/// [`Error::Output`] if one cannot be written. Until all have been written none is put in place.
pub fn write_files_atomically<P: AsRef<Path>, B: AsRef<[u8]>>(files: &[(P, B)]) -> Result<Vec<bool>> {
    let mut pending = Vec::new();
    for (path, bytes) in files {
        pending.push(Pending::write(&TEMPORARIES, path.as_ref(), bytes.as_ref())?);
    }
    let written: Vec<&Pending> = pending.iter().flatten().collect();
    let paths: Vec<PathBuf> = written.iter().map(|file| file.temporary.clone()).collect();
    sync_all(&paths).map_err(|(index, error)| match written.get(index) {
        Some(file) => cannot(&file.given, &error),
        None => cannot(Path::new(""), &error),
    })?;
    pending.into_iter().map(|file| file.map_or(Ok(false), |file| file.put_in_place().map(|()| true))).collect()
}

/// A file that is written but not yet in place.
struct Pending {
    given: PathBuf,
    target: PathBuf,
    temporary: PathBuf,
    registry: &'static Registry,
    id: u64,
}

impl Pending {
    /// None if the file holds these bytes already.
    fn write(registry: &'static Registry, path: &Path, bytes: &[u8]) -> Result<Option<Self>> {
        let target = match std::fs::metadata(path) {
            Ok(found) if found.is_file() => {
                // Through a link, so that the link stays one.
                let target = path.canonicalize().map_err(|error| cannot(path, &error))?;
                if found.len() == bytes.len() as u64 && holds(&target, bytes) {
                    return Ok(None);
                }
                target
            }
            Ok(_) => return Err(Error::output(path, "exists and is not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => path.to_owned(),
            Err(error) => return Err(cannot(path, &error)),
        };
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Error::output(path, "is no name that a file could have"));
        };
        let temporary = folder.join(temporary_name(name, Purpose::New));
        let id = registry.register(|| {
            let parents = make_parents(folder).map_err(|error| cannot(path, &error))?;
            let written = File::create_new(&temporary).and_then(|mut file| file.write_all(bytes));
            written.map_err(|error| {
                let _ = remove_path(&temporary);
                remove_made(&parents);
                cannot(path, &error)
            })?;
            Ok(Temporary { path: temporary.clone(), parents })
        })?;
        Ok(Some(Self { given: path.to_owned(), target, temporary, registry, id }))
    }

    fn put_in_place(self) -> Result<()> {
        self.registry.publish(self.id, |temporary| {
            std::fs::rename(&temporary.path, &self.target).map_err(|error| cannot(&self.given, &error))?;
            temporary.parents.clear();
            Ok(())
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Once it is in place there is nothing left under the temporary name.
        let _ = self.registry.discard(self.id);
    }
}

fn cannot(path: &Path, error: &io::Error) -> Error {
    Error::output(path, format!("cannot be written: {}", in_words(error)))
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    let mut found = Vec::with_capacity(bytes.len() + 1);
    // One byte more than is looked for, in case the file has grown.
    let read = File::open(path).and_then(|file| file.take(bytes.len() as u64 + 1).read_to_end(&mut found));
    read.is_ok() && found == bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_differs_is_written_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("figures/run");
        let path = dir.join("a.svg");
        assert!(write_file_atomically(&path, b"one").unwrap());
        std::fs::write(dir.join("mine.txt"), "mine").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        assert!(!write_file_atomically(&path, b"one").unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        let changed = write_files_atomically(&[(&path, "two"), (&dir.join("b.svg"), "new"), (&path, "two")]).unwrap();
        assert_eq!(changed, [true, true, true]);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(names(&dir), ["a.svg", "b.svg", "mine.txt"]);
    }

    #[test]
    fn new_files_have_the_usual_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, ours) = (folder.path().join("plain"), folder.path().join("ours"));
        std::fs::write(&plain, "x").unwrap();
        write_file_atomically(&ours, b"x").unwrap();
        assert_eq!(std::fs::metadata(plain).unwrap().mode(), std::fs::metadata(ours).unwrap().mode());
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "old").unwrap();
        symlink("target", &link).unwrap();
        assert!(write_file_atomically(&link, b"new").unwrap());
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("file"), "x").unwrap();
        std::fs::create_dir(root.join("dir")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        for bad in [root.join("file/a.svg"), root.join("dir"), root.join("dangling"), root.join("x".repeat(256)), PathBuf::new()]
        {
            let error = write_files_atomically(&[(root.join("new/deep/a.svg"), "a"), (bad, "b")]).unwrap_err();
            assert_eq!(error.exit_code(), 7, "{error}");
        }
        assert_eq!(write_file_atomically(Path::new("/dev/full"), b"x").unwrap_err().exit_code(), 7);
        assert_eq!(names(root), ["dangling", "dir", "file"]);
    }

    #[test]
    fn a_signal_removes_what_is_pending() {
        let folder = tempfile::tempdir().unwrap();
        let registry: &'static Registry = Box::leak(Box::new(Registry::new()));
        let file = Pending::write(registry, &folder.path().join("new/a.svg"), b"x").unwrap().unwrap();
        registry.remove_all(2);
        assert_eq!(file.put_in_place().unwrap_err().exit_code(), 130);
        assert!(names(folder.path()).is_empty());
    }
}
