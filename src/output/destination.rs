//! Where an output is to go, and whether what is there may be replaced. It only looks, and makes nothing but missing parents.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::temporaries::make_parents;
use crate::error::{Error, Result, escape, field, in_words};
use crate::marker::FoundManifest;

/// The resolved place of an output directory.
#[derive(Debug)]
pub(super) struct Destination {
    /// The path as the user gave it, for messages.
    pub(super) given: PathBuf,
    /// Absolute; its parent is free of links, and it is itself no link.
    pub(super) real: PathBuf,
}

/// What is at the destination.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// Nothing.
    Absent,
    /// An empty directory.
    Empty,
    /// An output of ours.
    Ours,
    /// A directory with weights that we did not write; the file that says so.
    Checkpoint(String),
    /// Another directory.
    Foreign,
}

impl Destination {
    /// Resolves `out`, which need not exist; its parent is made if it is missing and added to `made`.
    pub(super) fn resolve(out: &Path, made: &mut Vec<PathBuf>) -> Result<Self> {
        let fail = |what: String| Error::output(out, what);
        if out.as_os_str().is_empty() {
            return Err(fail("the name of the output directory is empty".into()));
        }
        let real = match std::fs::metadata(out) {
            Ok(found) if found.is_dir() => out.canonicalize().map_err(|error| fail(in_words(&error)))?,
            Ok(_) => {
                return Err(fail("exists and is not a directory".into())
                    .with_hint(format!("give another directory with {}", field("out"))));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if out.symlink_metadata().is_ok() {
                    return Err(fail("is a symbolic link to something that does not exist".into()));
                }
                resolve_absent(out, made)?
            }
            Err(error) => return Err(fail(why_unreachable(out, &error))),
        };
        if real.parent().is_none() {
            return Err(fail("is the root directory".into()));
        }
        Ok(Self { given: out.to_owned(), real })
    }

    /// The parent directory.
    pub(super) fn folder(&self) -> &Path {
        self.real.parent().unwrap_or_else(|| unreachable!("the root directory is refused"))
    }

    /// What is there now.
    pub(super) fn occupant(&self) -> Result<Occupant> {
        occupant(&self.real).map_err(|error| self.error(in_words(&error)))
    }

    /// Whether this occupant may be replaced.
    pub(super) fn check_occupant(&self, occupant: &Occupant, overwrite: bool) -> Result<()> {
        match occupant {
            Occupant::Absent | Occupant::Empty => Ok(()),
            Occupant::Ours if overwrite => Ok(()),
            Occupant::Ours => Err(self.error("exists already").with_hint(format!(
                "{} replaces it, or give another directory with {}",
                field("overwrite"),
                field("out")
            ))),
            Occupant::Checkpoint(file) => Err(self
                .error(format!("is an adapter or base model directory (it holds {})", escape(file)))
                .with_hint(format!("give a directory of its own with {}", field("out")))),
            Occupant::Foreign => Err(self
                .error("exists and is not an output of condlora (no manifest.json of ours in it)")
                .with_hint(format!("give another directory with {}", field("out")))),
        }
    }

    /// Checks that the directory that is there can be exchanged at all, and that no input goes with it.
    pub(super) fn check_replaceable(&self, protected: &[PathBuf]) -> Result<()> {
        if let Some(input) = self.input_inside(protected) {
            return Err(self
                .error(format!("replacing it would remove the input {}", crate::error::show_path(&input)))
                .with_hint(format!("give another directory with {}", field("out"))));
        }
        if is_mount_point(&self.real) {
            return Err(self
                .error("is a mount point, which cannot be exchanged for another directory")
                .with_hint(format!("give a directory inside it with {}", field("out"))));
        }
        // After the exchange, every process with this working directory would be in a directory that no longer exists.
        if std::env::current_dir().and_then(|here| here.canonicalize()).is_ok_and(|here| here.starts_with(&self.real)) {
            return Err(self
                .error("is or holds the working directory, which cannot be exchanged for another")
                .with_hint(format!("give a directory below the working directory with {}", field("out"))));
        }
        Ok(())
    }

    /// The first input whose file, or any link on the way to it, is in this directory.
    fn input_inside(&self, protected: &[PathBuf]) -> Option<PathBuf> {
        let mut seen = BTreeSet::new();
        protected.iter().find(|input| self.holds(input, &mut seen)).cloned()
    }

    fn holds(&self, input: &Path, seen: &mut BTreeSet<PathBuf>) -> bool {
        let Ok(absolute) = std::path::absolute(input) else { return false };
        if input.canonicalize().is_ok_and(|path| path.starts_with(&self.real)) {
            return true;
        }
        for step in absolute.ancestors() {
            // Inputs share most of their way.
            if !seen.insert(step.to_owned()) {
                return false;
            }
            if let (Some(parent), Some(name)) = (step.parent(), step.file_name())
                && parent.canonicalize().is_ok_and(|parent| parent.join(name).starts_with(&self.real))
            {
                return true;
            }
        }
        false
    }

    /// An error about this output.
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::output(&self.given, what)
    }
}

fn resolve_absent(out: &Path, made: &mut Vec<PathBuf>) -> Result<PathBuf> {
    let absolute = std::path::absolute(out).map_err(|error| Error::output(out, in_words(&error)))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::output(out, "does not exist, and is no name that a directory could have"));
    };
    *made = make_parents(parent).map_err(|error| {
        Error::output(out, format!("its parent directory cannot be made: {}", why_unreachable(parent, &error)))
    })?;
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) => Err(Error::output(out, why_unreachable(parent, &error))),
    }
}

/// Names the file that is where a directory is needed, if that is the problem.
fn why_unreachable(path: &Path, error: &io::Error) -> String {
    match path.ancestors().skip(usize::from(path.is_dir())).find(|part| part.is_file()) {
        Some(file) if error.kind() == io::ErrorKind::NotADirectory || error.kind() == io::ErrorKind::AlreadyExists => {
            format!("{} is a file, not a directory", crate::error::show_path(file))
        }
        _ => in_words(error),
    }
}

/// What is at a path.
pub(super) fn occupant(path: &Path) -> io::Result<Occupant> {
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Absent),
        Err(error) => return Err(error),
    };
    let Some(first) = entries.next() else { return Ok(Occupant::Empty) };
    let manifest = FoundManifest::of(path);
    for entry in std::iter::once(first).chain(entries) {
        if let Some(name) = weights(entry?.file_name())
            && !manifest.as_ref().is_some_and(|manifest| manifest.lists(&name))
        {
            return Ok(Occupant::Checkpoint(name));
        }
    }
    Ok(if manifest.is_some() { Occupant::Ours } else { Occupant::Foreign })
}

/// The name, if adapters and base models use it for files that cannot be made again.
fn weights(name: OsString) -> Option<String> {
    let name = name.into_string().ok()?;
    let weights = name == "adapter_config.json"
        || name.ends_with(".safetensors")
        || name.ends_with(".safetensors.index.json")
        || name.starts_with("adapter_model.")
        || name.starts_with("pytorch_model");
    weights.then_some(name)
}

/// Whether another file system begins here. (A file system that is mounted a second time is noticed only by the exchange.)
fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    path.parent().is_some_and(|parent| device(parent) != device(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> Occupant {
        occupant(path).unwrap()
    }

    #[test]
    fn only_our_outputs_are_ours() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("out");
        assert_eq!(at(&dir), Occupant::Absent);
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(at(&dir), Occupant::Empty);
        std::fs::write(dir.join("notes.txt"), "").unwrap();
        assert_eq!(at(&dir), Occupant::Foreign);
        std::fs::write(dir.join("manifest.json"), r#"{"program":"condlora","outputs":{"adapter_model.safetensors":"0"}}"#)
            .unwrap();
        assert_eq!(at(&dir), Occupant::Ours);
        std::fs::write(dir.join("adapter_model.safetensors"), "").unwrap();
        assert_eq!(at(&dir), Occupant::Ours, "fit and materialize write these, and then the manifest lists them");
        std::fs::write(dir.join("model-00001-of-00002.safetensors"), "").unwrap();
        assert_eq!(at(&dir), Occupant::Checkpoint("model-00001-of-00002.safetensors".into()));
        for name in ["adapter_config.json", "adapter_model.bin", "adapters.safetensors", "pytorch_model.bin"] {
            let dir = folder.path().join(name).join("x");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), "").unwrap();
            assert_eq!(at(&dir), Occupant::Checkpoint(name.into()));
        }
    }

    #[test]
    fn inputs_inside_are_found_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (out, elsewhere) = (root.join("out"), root.join("elsewhere"));
        std::fs::create_dir_all(out.join("adapters/a")).unwrap();
        std::fs::create_dir_all(elsewhere.join("b")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, out.join("link")).unwrap();
        std::os::unix::fs::symlink(out.join("adapters"), root.join("into")).unwrap();
        let destination = Destination::resolve(&out, &mut Vec::new()).unwrap();
        let check = |paths: &[PathBuf]| destination.check_replaceable(paths);
        assert!(check(&[root.clone(), elsewhere.join("b"), root.join("missing"), root.join("output/x")]).is_ok());
        for inside in
            [out.clone(), out.join("adapters/a"), root.join("into/a"), out.join("link/b"), root.join("elsewhere/../out/link")]
        {
            let error = check(&[elsewhere.join("b"), inside.clone()]).unwrap_err();
            assert_eq!(error.exit_code(), 7, "{}", inside.display());
        }
    }

    #[test]
    fn mount_points_are_seen() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(tempfile::tempdir().unwrap().path()));
    }

    #[test]
    fn what_cannot_be_an_output_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let refuse = |path: &Path| Destination::resolve(path, &mut Vec::new()).unwrap_err().to_string();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert!(refuse(&root.join("file")).ends_with("exists and is not a directory"));
        assert!(refuse(&root.join("file/a/b")).contains("file is a file, not a directory"));
        assert!(refuse(&root.join("dangling")).contains("symbolic link"));
        assert!(refuse(&root.join("loop")).to_lowercase().contains("too many levels of symbolic links"));
        assert!(refuse(Path::new("/")).contains("root"));
        assert!(refuse(Path::new("")).contains("empty"));
        assert!(refuse(Path::new("/dev/full")).contains("not a directory"));
        assert!(refuse(&root.join("a/..")).contains("no name"));
        assert!(!root.join("a").exists());
    }
}
