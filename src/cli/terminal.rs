//! What goes to stderr, and whether it is coloured.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
pub(super) use clap::ColorChoice;

use crate::error::{Error, Result, escape, in_words};

/// The two output streams and how much is said on them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    color_out: bool,
    color_err: bool,
    quiet: bool,
    pub(super) verbose: bool,
    /// Columns of stdout; none where it is no terminal.
    width: Option<usize>,
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

impl Terminal {
    pub(super) fn new(choice: ColorChoice, quiet: bool, verbose: bool) -> Self {
        let allowed =
            std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let on = |is_terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && allowed,
        };
        let (color_out, color_err) = (on(io::stdout().is_terminal()), on(io::stderr().is_terminal()));
        let width =
            terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0);
        Self { color_out, color_err, quiet, verbose, width }
    }

    /// The same with a stdout of this width.
    #[cfg(test)]
    pub(super) fn of_width(self, width: Option<usize>) -> Self {
        Self { width, ..self }
    }

    /// How many columns stdout has; none where it is a file or a pipe, and lines may be as long as they are.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Sentences as they are, or broken between words where a terminal ends.
    pub(super) fn prose(&self, text: &str) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let mut out = String::new();
        for line in text.lines() {
            let mut used = 0;
            for word in line.split(' ') {
                let length = word.chars().count();
                if used > 0 && used + 1 + length > width {
                    out.push('\n');
                    used = 0;
                } else if used > 0 {
                    out.push(' ');
                    used += 1;
                }
                out.push_str(word);
                used += length;
            }
            out.push('\n');
        }
        out
    }

    /// Text in a style, where stdout has colour.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        if self.color_out { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn line(&self, style: Style, label: &str, text: &str) {
        // When stderr is gone there is no one left to tell.
        let _ = if self.color_err {
            writeln!(io::stderr(), "{style}{label}:{style:#} {text}")
        } else {
            writeln!(io::stderr(), "{label}: {text}")
        };
    }

    /// `error:` and, where one helps, `hint:`.
    pub(super) fn error(&self, error: &Error) {
        self.line(ERROR, "error", &error.to_string());
        if let Some(hint) = error.hint() {
            self.line(HINT, "hint", hint);
        }
    }

    /// A panic that reached the top.
    pub(super) fn bug(&self, text: &str) {
        self.line(ERROR, "error", &format!("condlora has a bug: {}", escape(text)));
        self.line(HINT, "hint", "please report it with the command line and `condlora --version`");
    }

    /// `warning:`, unless quiet.
    pub(super) fn warning(&self, text: &str) {
        if !self.quiet {
            self.line(WARNING, "warning", text);
        }
    }

    /// Each as [`Terminal::warning`] says it.
    pub(super) fn warnings(&self, all: &[String]) {
        all.iter().for_each(|text| self.warning(text));
    }

    /// An adapter or module that was skipped: named even when quiet, because the exit code tells of it.
    pub(super) fn skipped(&self, text: &str, hint: Option<&str>) {
        self.line(WARNING, "warning", text);
        if let Some(hint) = hint {
            self.line(HINT, "hint", hint);
        }
    }

    /// A line about what is done, when verbose.
    pub(super) fn detail(&self, text: &str) {
        if self.verbose {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A line about the result, unless quiet.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Data on stdout. A reader that has gone (`| head -1`) is no error.
    ///
    /// # Errors
    /// [`Error::Output`] for anything else that keeps it from being written, for example a full disk.
    pub(super) fn data(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }
}

/// How writing to stdout went.
///
/// # Errors
/// [`Error::Output`] unless it was done or the reader has gone.
pub(super) fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::output(Path::new("standard output"), format!("cannot be written: {}", in_words(&error))))
        }
        _ => Ok(()),
    }
}
