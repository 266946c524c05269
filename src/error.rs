//! What can go wrong, and the exit code that each case gets.
//!
//! Every message is one line: the file, what is wrong, what was expected and what was found.
//! Names that come from files are escaped, so that no message can drive a terminal.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, grouped by what the user can do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line asks for something that does not exist or contradicts itself (exit 2).
    #[error("{what}")]
    Usage {
        /// What is wrong, with the value given.
        what: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// An input is not there or cannot be read (exit 3).
    #[error("{}: {what}", show_path(.path))]
    Missing {
        /// The path looked for.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An input file is not what its format requires (exit 4).
    #[error("{}: {what}; expected {expected}, found {found}", show_path(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The part of it that is wrong.
        what: String,
        /// What the format asks for.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Inputs are well formed but do not fit together, or use something unsupported (exit 5).
    #[error("{}: {what}; expected {expected}, found {found}", show_path(.path))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The tensor, key or field that does not fit.
        what: String,
        /// What would fit.
        expected: String,
        /// What was found.
        found: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Refused on numerical grounds (exit 6).
    #[error("{}: {what}; expected {expected}, found {found}", show_path(.path))]
    Numerical {
        /// The file, or the output directory for a status that `--strict` refuses.
        path: PathBuf,
        /// The tensor or table row.
        what: String,
        /// What was needed.
        expected: String,
        /// What was found.
        found: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The output cannot be written, or exists already (exit 7).
    #[error("{}: {what}", show_path(.path))]
    Output {
        /// The path that was to be written.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A limit on memory or size would be exceeded (exit 8).
    #[error("{what}; expected {expected}, found {found}")]
    Resource {
        /// What would be exceeded.
        what: String,
        /// The limit.
        expected: String,
        /// What would be needed.
        found: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The run was stopped by a signal (exit 128 + signal number).
    #[error("interrupted")]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
    /// The shapes of two arrays handed to a numerical routine do not fit: a mistake in the calling code (exit 70).
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The routine and argument.
        what: &'static str,
        /// The shape needed.
        expected: String,
        /// The shape given.
        found: String,
    },
    /// A numerical routine was given NaN or Inf, or produced it (exit 6).
    #[error("{what}: expected finite values, found {found}")]
    NonFinite {
        /// The routine or matrix.
        what: String,
        /// What was found.
        found: String,
    },
    /// Something that cannot go wrong did: a mistake in this crate (exit 70).
    #[error("{what}: {found}")]
    Internal {
        /// What was being done.
        what: &'static str,
        /// What went wrong.
        found: String,
    },
    /// What a shard met, as it was said there (its exit code).
    #[error("{text}")]
    Elsewhere {
        /// What was said.
        text: String,
        /// The exit code.
        code: u8,
        /// What to do about it.
        hint: Option<String>,
    },
    /// LAPACK reported failure, which a finite input never gives in practice (exit 70).
    #[error("LAPACK routine {routine} failed: {detail}")]
    Lapack {
        /// The routine's name.
        routine: &'static str,
        /// What it reported.
        detail: String,
    },
}

impl Error {
    /// The process exit code for this error (docs/spec.md, section 4).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Missing { .. } => 3,
            Self::Malformed { .. } => 4,
            Self::Mismatch { .. } => 5,
            Self::Numerical { .. } | Self::NonFinite { .. } => 6,
            Self::Output { .. } => 7,
            Self::Resource { .. } => 8,
            Self::Interrupted { signal } => u8::try_from(128 + signal).unwrap_or(130),
            Self::Elsewhere { code, .. } => *code,
            Self::Shape { .. } | Self::Internal { .. } | Self::Lapack { .. } => 70,
        }
    }

    /// The line that follows `hint:`, where one helps.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage { hint, .. }
            | Self::Missing { hint, .. }
            | Self::Malformed { hint, .. }
            | Self::Mismatch { hint, .. }
            | Self::Numerical { hint, .. }
            | Self::Output { hint, .. }
            | Self::Resource { hint, .. }
            | Self::Elsewhere { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// Adds a hint to an error that has none yet.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Usage { hint, .. }
            | Self::Missing { hint, .. }
            | Self::Malformed { hint, .. }
            | Self::Mismatch { hint, .. }
            | Self::Numerical { hint, .. }
            | Self::Output { hint, .. }
            | Self::Resource { hint, .. }
            | Self::Elsewhere { hint, .. } => {
                hint.get_or_insert_with(|| text.into());
            }
            _ => {}
        }
        self
    }

    /// A mistake in this crate, met while doing `what`.
    pub(crate) fn internal(what: &'static str, found: impl std::fmt::Display) -> Self {
        Self::Internal { what, found: found.to_string() }
    }

    /// A usage error without a hint.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: None }
    }

    /// A missing or unreadable input without a hint.
    pub fn missing(path: &Path, what: impl Into<String>) -> Self {
        Self::Missing { path: path.to_owned(), what: what.into(), hint: None }
    }

    /// A malformed file without a hint.
    pub fn malformed(path: &Path, what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into(), expected: expected.into(), found: found.into(), hint: None }
    }

    /// Inputs that do not fit together, without a hint.
    pub fn mismatch(path: &Path, what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Mismatch { path: path.to_owned(), what: what.into(), expected: expected.into(), found: found.into(), hint: None }
    }

    /// A numerical refusal without a hint.
    pub fn numerical(path: &Path, what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Numerical { path: path.to_owned(), what: what.into(), expected: expected.into(), found: found.into(), hint: None }
    }

    /// An output that cannot be written, without a hint.
    pub fn output(path: &Path, what: impl Into<String>) -> Self {
        Self::Output { path: path.to_owned(), what: what.into(), hint: None }
    }
}

/// Whether what is said is read at the command line of the program.
static AT_THE_COMMAND_LINE: AtomicBool = AtomicBool::new(false);

/// From now on [`field`] names options. The program calls this before anything else.
///
/// It is one switch for the process because a name is said within a sentence, and sentences travel: into errors and their hints, refusals,
/// warnings, verdicts, `manifest.json` and the report. A name that is only marked, to be written out where it is printed, would have to be
/// translated in each of them, and nobody reads half of a program's messages as those of a library.
#[cfg(feature = "cli")]
pub(crate) fn name_options() {
    AT_THE_COMMAND_LINE.store(true, Ordering::Relaxed);
}

/// How a message names a parameter: as the field that a program sets (`` `null_draws` ``), or as the option of the command line
/// (`--null-draws`).
pub(crate) fn field(name: &str) -> String {
    if AT_THE_COMMAND_LINE.load(Ordering::Relaxed) { as_option(name) } else { format!("`{name}`") }
}

/// The option that sets a field.
fn as_option(name: &str) -> String {
    match name {
        // The one that is written by its letter.
        "out" => "-o".to_owned(),
        _ => format!("--{}", name.replace('_', "-")),
    }
}

/// Escapes control characters and invalid parts of a name that came from a file, and shortens it if it is very long.
#[must_use]
pub fn escape(name: &str) -> String {
    const LONGEST: usize = 200;
    let mut out = String::with_capacity(name.len().min(LONGEST + 32));
    for (count, c) in name.chars().enumerate() {
        if count == LONGEST {
            out.push_str(&format!("... ({} bytes)", name.len()));
            break;
        }
        if c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A path as it is printed: escaped like any other name.
#[must_use]
pub fn show_path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// What the operating system said, without the error number that `std` adds.
pub(crate) fn in_words(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if text.ends_with(')') => text[..end].to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(escape("a\x1b[31m\nb\0"), "a\\u{1b}[31m\\nb\\u{0}");
        assert_eq!(escape("päth"), "päth");
        assert!(escape(&"x".repeat(1_000_000)).len() < 300);
    }

    #[test]
    fn the_library_names_fields_and_the_program_options() {
        let names = ["base", "null_draws", "memory_limit", "out"];
        assert_eq!(names.map(field), ["`base`", "`null_draws`", "`memory_limit`", "`out`"]);
        assert_eq!(names.map(as_option), ["--base", "--null-draws", "--memory-limit", "-o"]);
    }

    #[test]
    fn exit_codes_follow_the_table() {
        assert_eq!(Error::usage("x").exit_code(), 2);
        assert_eq!(Error::missing(Path::new("x"), "y").exit_code(), 3);
        assert_eq!(Error::Interrupted { signal: 2 }.exit_code(), 130);
        assert_eq!(Error::Interrupted { signal: 15 }.exit_code(), 143);
    }
}
