//! Runs the real program.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Insists on the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Insists on a part of what stderr says.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "{part:?} is missing in\n{}", self.stderr);
        self
    }
}

/// The program, with an environment that cannot change what it prints.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_condlora"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "HF_HOME", "HF_HUB_CACHE", "COLUMNS"] {
        command.env_remove(name);
    }
    command
}

/// `condlora analyze` with these arguments.
pub(crate) fn analyze<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = program();
    command.arg("analyze").args(arguments);
    command
}

/// Runs `condlora analyze` in a directory.
pub(crate) fn run_in(root: &Path, arguments: &[&str]) -> Run {
    Run::of(analyze(arguments).current_dir(root).output().unwrap())
}

/// A path in `notebooks-data`.
pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks-data").join(path)
}

/// The base weights of the real adapters.
pub(crate) fn real_base() -> PathBuf {
    data("base/all-MiniLM-L6-v2-qv")
}

/// Every file below a directory, by its path there.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, out);
            } else {
                out.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

/// The tables below a directory: every CSV file.
pub(crate) fn tables(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(root);
    all.retain(|name, _| name.ends_with(".csv"));
    all
}
