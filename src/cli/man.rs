//! `condlora man`: the program's man pages.

use std::path::PathBuf;

use clap::Args;

use super::terminal::Terminal;
use super::{Outcome, manual};
use crate::error::{Result, show_path};
use crate::output::write_files_atomically;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Read the main page
  condlora man | man -l -
  # Install all pages: man condlora-analyze
  condlora man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Write the pages of the program and of every command here; without it the program's page goes to stdout
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Those of [`write_files_atomically`] and [`Terminal::data`].
pub(super) fn run(args: &ManArgs, terminal: &Terminal) -> Result<Outcome> {
    let Some(dir) = &args.dir else {
        terminal.data(&String::from_utf8_lossy(&manual::page()))?;
        return Ok(Outcome::Done);
    };
    let files: Vec<(PathBuf, Vec<u8>)> = manual::pages().into_iter().map(|(name, text)| (dir.join(name), text)).collect();
    write_files_atomically(&files)?;
    terminal.note(&format!("{} man pages in {}", files.len(), show_path(dir)));
    Ok(Outcome::Done)
}
