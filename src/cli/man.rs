//! `condlora man`: the program's man pages.

use std::path::PathBuf;

use clap::Args;
use clap_mangen::{Man, generate_to};

use super::manual;
use super::session::{Outcome, Session};
use crate::error::{Error, Result, in_words, show_path};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Read the main page
  condlora man | man -l -
  # Install all pages: man condlora-analyze
  condlora man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Directory for the pages of the program and of every command [default: print the program's page]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// [`Error::Output`] if a page or its directory cannot be written; those of [`super::terminal::Terminal::data`].
pub(super) fn run(args: &ManArgs, session: &Session) -> Result<Outcome> {
    match &args.dir {
        None => session.terminal.data(&main_page())?,
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .and_then(|()| generate_to(manual::command(), dir))
                .map_err(|error| Error::output(dir, format!("cannot be written: {}", in_words(&error))))?;
            session.terminal.note(&format!("man pages in {}", show_path(dir)));
        }
    }
    Ok(Outcome::Done)
}

/// The program's page, as it is among all pages.
fn main_page() -> String {
    let mut page = Vec::new();
    let written = Man::new(manual::command().disable_help_subcommand(true)).render(&mut page);
    assert!(written.is_ok(), "writing into memory");
    String::from_utf8_lossy(&page).into_owned()
}
