//! Regular files and nothing else: opening them, noticing that one changed, and saying what is there when one is missing.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, escape};

/// What identifies the content of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) len: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// The stamp of an open file as it is now.
    pub(crate) fn now(path: &Path, file: &File) -> Result<Self> {
        file.metadata().map(|metadata| Self::of(&metadata)).map_err(|err| unreadable(path, &err))
    }
}

/// Opens a regular file; anything else (a FIFO, a device, a directory) is refused before it could block or never end.
pub(crate) fn open_regular(path: &Path) -> Result<(File, Stamp)> {
    let metadata = std::fs::metadata(path).map_err(|err| unreadable(path, &err))?;
    refuse_irregular(path, &metadata)?;
    let file = File::open(path).map_err(|err| unreadable(path, &err))?;
    let opened = file.metadata().map_err(|err| unreadable(path, &err))?;
    refuse_irregular(path, &opened)?;
    Ok((file, Stamp::of(&opened)))
}

fn refuse_irregular(path: &Path, metadata: &Metadata) -> Result<()> {
    let kind = metadata.file_type();
    let found = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    };
    Err(Error::missing(path, format!("cannot be read; expected a regular file, found {found}")))
}

/// Reads a small text file whole.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, stamp) = open_regular(path)?;
    if stamp.len > most {
        return Err(Error::malformed(path, "file size", format!("at most {most} bytes"), format!("{} bytes", stamp.len)));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|err| unreadable(path, &err))?;
    Ok(bytes)
}

/// The error for a path that cannot be opened, with the nearest name that exists.
pub(crate) fn unreadable(path: &Path, err: &std::io::Error) -> Error {
    if err.kind() != std::io::ErrorKind::NotFound {
        return Error::missing(path, format!("cannot be read: {}", crate::error::in_words(err)));
    }
    let error = Error::missing(path, "does not exist");
    match nearest_existing(path) {
        Some(near) => error.with_hint(format!("did you mean {}?", crate::error::show_path(&near))),
        None => error,
    }
}

/// The existing path most like one that does not exist: its first missing part replaced by the most similar name in its folder.
fn nearest_existing(path: &Path) -> Option<PathBuf> {
    const MOST_ENTRIES: usize = 10_000;
    let missing =
        path.ancestors().find(|p| p.parent().is_some_and(|up| or_here(up).is_dir()) && p.symlink_metadata().is_err())?;
    let wanted = missing.file_name()?.to_string_lossy().into_owned();
    let parent = missing.parent()?;
    let names = std::fs::read_dir(or_here(parent)).ok()?.take(MOST_ENTRIES).flatten().map(|entry| entry.file_name());
    let near = names
        .map(|name| (edit_distance(&wanted, &name.to_string_lossy()), name))
        .filter(|(distance, _)| *distance <= (wanted.chars().count() / 3).max(2))
        .min()?;
    Some(parent.join(near.1))
}

fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

/// Levenshtein distance in characters, ignoring case at no cost.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().flat_map(char::to_lowercase).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

/// The names in a directory, in no order; those that are not Unicode are left out.
///
/// # Errors
/// As [`unreadable`] tells them.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(|err| unreadable(dir, &err))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// What a directory holds, for a message: the first names in order and how many more there are.
pub(crate) fn listing(dir: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(or_here(dir)) else { return "nothing readable".to_owned() };
    let names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() { "nothing (it is empty)".to_owned() } else { sample(names, 8) }
}

/// The first `most` of some names in order, escaped, and how many more there are.
pub(crate) fn sample(mut names: Vec<String>, most: usize) -> String {
    names.sort_unstable();
    let mut shown: Vec<String> = names.iter().take(most).map(|name| escape(name)).collect();
    if names.len() > most {
        let last = format!("and {} more", names.len() - most);
        shown.push(last);
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_levenshtein() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("TREC", "trec"), 0);
    }

    #[test]
    fn the_nearest_name_is_offered() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("trec-seed0/x")).unwrap();
        let wrong = dir.path().join("trec-sede0").join("x");
        let error = open_regular(&wrong).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.hint().unwrap().contains("trec-seed0?"), "{:?}", error.hint());
        assert!(open_regular(&dir.path().join("nothing-like-that-one")).unwrap_err().hint().is_none());
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(sample(vec!["b".into(), "a".into(), "c\n".into()], 2), "a, b, and 1 more");
        assert_eq!(sample(vec!["c\n".into()], 2), "c\\n");
    }
}
