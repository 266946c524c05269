//! Single files that replace older ones in one step: for `--figures-dir`, whose directory may hold other files too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::sync_all;
use super::temporaries::{Registry, TEMPORARIES, Temporary, clear_stale, make_parents};
use crate::error::{Error, Result, in_words};

/// Writes a file through a temporary one. Returns whether it changed: a file that holds these bytes already is not
/// touched.
///
/// # Errors
/// [`Error::Output`] if it cannot be written; the old file is then as it was.
pub fn write_file_atomically(path: &Path, bytes: &[u8]) -> Result<bool> {
    Ok(write_files_atomically(&[(path, bytes)])?.first().copied().unwrap_or(false))
}

/// Writes many files as [`write_file_atomically`] does.
///
/// # Errors
/// [`Error::Output`] if one cannot be written. No file is put in place until all files of its folder have been written, and
/// nothing is written at all if it can be seen at once that one cannot be.
pub fn write_files_atomically<P: AsRef<Path>, B: AsRef<[u8]>>(files: &[(P, B)]) -> Result<Vec<bool>> {
    let files: Vec<Pending<'_>> =
        files.iter().map(|(path, bytes)| Pending::new(path.as_ref(), bytes.as_ref())).collect::<Result<_>>()?;
    for files in files.chunk_by(|a, b| a.folder() == b.folder()) {
        write_folder(&TEMPORARIES, files)?;
    }
    Ok(files.iter().map(|file| file.changed).collect())
}

/// Writes files of one folder into a temporary directory there, and puts them in place.
fn write_folder(registry: &'static Registry, files: &[Pending<'_>]) -> Result<()> {
    let changed: Vec<&Pending<'_>> = files.iter().filter(|file| file.changed).collect();
    let Some(first) = changed.first() else { return Ok(()) };
    let folder = |parents: &mut Vec<PathBuf>| {
        *parents = make_parents(first.folder()).map_err(|error| cannot(first.given, &error))?;
        clear_stale(first.folder());
        Ok((first.folder().to_owned(), ()))
    };
    let (temporary, ()) = Temporary::make(registry, folder, |(), error| cannot(first.given, error))?;
    let paths: Vec<PathBuf> = (0..changed.len()).map(|number| temporary.place().join(number.to_string())).collect();
    registry.guarded(|| std::fs::create_dir(temporary.place()).map_err(|error| cannot(first.given, &error)))?;
    for (file, path) in changed.iter().zip(&paths) {
        let write = || File::create_new(path).and_then(|mut new| new.write_all(file.bytes));
        registry.guarded(|| write().map_err(|error| cannot(file.given, &error)))?;
    }
    // After a signal the temporary files are gone, which is the cause of the error.
    sync_all(&paths).map_err(|(index, error)| match registry.guarded(|| Ok(())) {
        Err(interrupted) => interrupted,
        Ok(()) => cannot(changed[index].given, &error),
    })?;
    temporary.publish(|| {
        for (file, path) in changed.iter().zip(&paths) {
            std::fs::rename(path, &file.target).map_err(|error| cannot(file.given, &error))?;
        }
        Ok(())
    })
}

/// A file that is to be written.
struct Pending<'a> {
    given: &'a Path,
    /// Its path with links followed, so that a link stays a link.
    target: PathBuf,
    bytes: &'a [u8],
    /// Whether the file that is there, if any, holds something else.
    changed: bool,
}

impl<'a> Pending<'a> {
    fn new(given: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let (target, changed) = match std::fs::metadata(given) {
            Ok(found) if found.is_file() => {
                let target = given.canonicalize().map_err(|error| cannot(given, &error))?;
                let same = found.len() == bytes.len() as u64 && holds(&target, bytes);
                (target, !same)
            }
            Ok(_) => return Err(Error::output(given, "exists and is not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound && given.symlink_metadata().is_err() => {
                (std::path::absolute(given).map_err(|error| cannot(given, &error))?, true)
            }
            Err(error) => return Err(cannot(given, &error)),
        };
        if target.parent().is_none() || target.file_name().is_none() {
            return Err(Error::output(given, "is no name that a file could have"));
        }
        Ok(Self { given, target, bytes, changed })
    }

    fn folder(&self) -> &Path {
        self.target.parent().unwrap_or_else(|| unreachable!("checked when it was made"))
    }
}

fn cannot(path: &Path, error: &io::Error) -> Error {
    Error::output(path, format!("cannot be written: {}", in_words(error)))
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    let mut found = Vec::with_capacity(bytes.len() + 1);
    // One byte more than expected, in case the file has grown.
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
        assert_ne!(std::fs::metadata(&path).unwrap().ino(), inode, "another file is in its place");
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
    fn nothing_is_written_after_a_signal() {
        let folder = tempfile::tempdir().unwrap();
        let registry: &'static Registry = Box::leak(Box::new(Registry::new()));
        registry.remove_all(2);
        let path = folder.path().join("new/a.svg");
        let file = Pending::new(&path, b"x").unwrap();
        assert_eq!(write_folder(registry, &[file]).unwrap_err().exit_code(), 130);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn what_a_killed_run_left_in_the_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dead = folder.path().join(".condlora-tmp-dead");
        std::fs::create_dir_all(dead.join("new")).unwrap();
        for file in ["lock", "new/0"] {
            std::fs::write(dead.join(file), "half").unwrap();
        }
        assert!(write_file_atomically(&folder.path().join("a.svg"), b"x").unwrap());
        assert_eq!(names(folder.path()), ["a.svg"]);
    }
}
