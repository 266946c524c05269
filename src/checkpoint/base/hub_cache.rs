//! The cache of the Hugging Face Hub on disk: `models--ORG--NAME/refs/REVISION` has a commit hash, `snapshots/HASH/` the files.
//!
//! Nothing is downloaded and nothing is written. A name is looked up only if it can be one of the Hub's, so that no name leads out of the cache.
//!
//! Source: `huggingface_hub/constants.py`, `file_download.py`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::checkpoint::files::disk::read_small;
use crate::error::{Error, Result, escape, show_path};

/// The branch that is used where no revision is given.
const DEFAULT_REVISION: &str = "main";
/// A reference is a hash of 40 digits.
const LARGEST_REFERENCE: u64 = 4096;

/// Looks a variable of the environment up.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What a look into the cache gave.
pub(super) enum Lookup {
    /// The directory with the files.
    Found(PathBuf),
    /// It is not there; what was looked for.
    Absent(String),
    /// The name cannot be one of the Hub's.
    NoHubName,
}

/// Looks for a model in the cache that the environment names.
///
/// # Errors
/// [`Error::Malformed`] if the cache's reference is no commit hash, [`Error::Missing`] if it cannot be read.
pub(super) fn look_up(name: &str, revision: Option<&str>) -> Result<Lookup> {
    let Some(cache) = directory(&|name| std::env::var_os(name)) else {
        return Ok(if folder_name(name).is_some() { Lookup::Absent("no HOME to look in".to_owned()) } else { Lookup::NoHubName });
    };
    look_up_in(&cache, name, revision.unwrap_or(DEFAULT_REVISION))
}

/// The cache's directory: the first of the variables that is set decides.
fn directory(environment: Environment<'_>) -> Option<PathBuf> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME");
    let expanded = |path: PathBuf| match path.strip_prefix("~") {
        Ok(below) => home().map_or(path.clone(), |home| home.join(below)),
        Err(_) => path,
    };
    let at_home = || home().map(|home| home.join(".cache"));
    set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(expanded).or_else(|| {
        let hugging_face = set("HF_HOME").map(expanded);
        let hugging_face =
            hugging_face.or_else(|| Some(set("XDG_CACHE_HOME").map(expanded).or_else(at_home)?.join("huggingface")));
        hugging_face.map(|path| path.join("hub"))
    })
}

/// The folder of a model, if the name can be one: `NAME` or `ORG/NAME` of letters, digits, `.`, `_` and `-`, without `..` and `--`.
fn folder_name(name: &str) -> Option<String> {
    let part = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && part.chars().all(known) && !part.starts_with(['.', '-']) && !part.ends_with(['.', '-'])
    };
    let parts: Vec<&str> = name.split('/').collect();
    let fits = parts.len() <= 2 && parts.iter().all(|p| part(p)) && !name.contains("..") && !name.contains("--");
    (fits && name.len() <= 200).then(|| format!("models--{}", parts.join("--")))
}

/// Whether a revision names something below `refs`.
fn is_revision(revision: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(known);
    revision.len() <= 200 && revision.split('/').all(part)
}

fn is_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn look_up_in(cache: &Path, name: &str, revision: &str) -> Result<Lookup> {
    let Some(folder) = folder_name(name) else { return Ok(Lookup::NoHubName) };
    let model = cache.join(folder);
    let absent = |path: &Path| Ok(Lookup::Absent(show_path(path)));
    if !model.is_dir() {
        return absent(&model);
    }
    let hash = if is_hash(revision) {
        revision.to_owned()
    } else if is_revision(revision) {
        let reference = model.join("refs").join(revision);
        if !reference.exists() {
            return absent(&reference);
        }
        let bytes = read_small(&reference, LARGEST_REFERENCE)?;
        let text = String::from_utf8_lossy(&bytes);
        let hash = text.trim();
        if !is_hash(hash) {
            let found = format!("`{}`", escape(hash));
            return Err(Error::malformed(&reference, "reference", "a commit hash of 40 hexadecimal digits", found));
        }
        hash.to_owned()
    } else {
        return Ok(Lookup::Absent(format!("revision `{}`, which is no name of one", escape(revision))));
    };
    let snapshot = model.join("snapshots").join(hash);
    if snapshot.is_dir() { Ok(Lookup::Found(snapshot)) } else { absent(&snapshot) }
}

/// The model's name where a directory is a snapshot in a cache.
pub(super) fn cached_name(directory: &Path) -> Option<String> {
    let snapshots = directory.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let folder = snapshots.parent()?.file_name()?.to_string_lossy().into_owned();
    folder.strip_prefix("models--")?.rsplit("--").next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cached(folder: &str, reference: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join(folder);
        std::fs::create_dir_all(model.join("snapshots").join(HASH)).unwrap();
        let reference = model.join("refs").join(reference);
        std::fs::create_dir_all(reference.parent().unwrap()).unwrap();
        std::fs::write(reference, text).unwrap();
        dir
    }

    fn found(cache: &Path, name: &str, revision: &str) -> Option<PathBuf> {
        match look_up_in(cache, name, revision).unwrap() {
            Lookup::Found(path) => Some(path),
            _ => None,
        }
    }

    #[test]
    fn snapshots_are_found_by_branch_by_pull_request_and_by_hash() {
        let dir = cached("models--FacebookAI--roberta-base", "main", &format!(" {HASH}\n"));
        let snapshot = dir.path().join("models--FacebookAI--roberta-base/snapshots").join(HASH);
        assert_eq!(found(dir.path(), "FacebookAI/roberta-base", "main"), Some(snapshot.clone()));
        assert_eq!(found(dir.path(), "FacebookAI/roberta-base", HASH), Some(snapshot.clone()));
        assert_eq!(found(dir.path(), "FacebookAI/roberta-base", "v2"), None);
        assert_eq!(found(dir.path(), "FacebookAI/roberta-base", &HASH.replace('0', "1")), None);
        assert_eq!(found(dir.path(), "roberta-base", "main"), None);
        assert_eq!(cached_name(&snapshot).as_deref(), Some("roberta-base"));
        assert_eq!(cached_name(&dir.path().join("models--x/other").join(HASH)), None);
        let dir = cached("models--gpt2", "refs/pr/7", HASH);
        assert!(found(dir.path(), "gpt2", "refs/pr/7").is_some());
        assert_eq!(cached_name(&found(dir.path(), "gpt2", HASH).unwrap()).as_deref(), Some("gpt2"));
    }

    #[test]
    fn no_name_leads_out_of_the_cache() {
        let dir = cached("models--a--b", "main", HASH);
        for name in ["../a", "a/..", "/a/b", "a/b/c", "a//b", "", ".", "..", "a/.b", "a--b", "a/b\0", "a\\b", "a b", "~/a", "a/"]
        {
            assert!(matches!(look_up_in(dir.path(), name, "main").unwrap(), Lookup::NoHubName), "{name}");
        }
        for revision in ["../../x", "/etc", "", ".", "a//b", "a/../b", "x\n"] {
            assert!(matches!(look_up_in(dir.path(), "a/b", revision).unwrap(), Lookup::Absent(_)), "{revision}");
        }
        for text in ["", "main", "../../../etc", &HASH[..39]] {
            let dir = cached("models--a--b", "main", text);
            assert_eq!(look_up_in(dir.path(), "a/b", "main").err().unwrap().exit_code(), 4, "{text}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let all = [("HF_HUB_CACHE", "/h"), ("HF_HOME", "/f"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/home/me")];
        let expected = ["/h", "/f/hub", "/x/huggingface/hub", "/home/me/.cache/huggingface/hub"];
        for (from, expected) in expected.iter().enumerate() {
            let environment = |name: &str| all[from..].iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
            assert_eq!(directory(&environment), Some(PathBuf::from(expected)));
        }
        assert_eq!(directory(&|_| None), None);
        let tilde = |name: &str| match name {
            "HF_HOME" => Some("~/hf".into()),
            "HF_HUB_CACHE" => Some("".into()),
            "HOME" => Some("/home/me".into()),
            _ => None,
        };
        assert_eq!(directory(&tilde), Some(PathBuf::from("/home/me/hf/hub")));
    }
}
