//! `condlora man`: the program's man pages.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;

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

/// Runs the command; `program` has the arguments that the pages are about.
///
/// # Errors
/// [`Error::Output`] if a page or its directory cannot be written; those of [`super::terminal::Terminal::data`].
pub(super) fn run(args: &ManArgs, program: Command, session: &Session) -> Result<Outcome> {
    let mut program = program.disable_help_subcommand(true);
    // Hands the global options and the whole names down to the commands.
    program.build();
    match &args.dir {
        None => {
            let mut text = Vec::new();
            let written = page(&program).render(&mut text);
            assert!(written.is_ok(), "writing into memory");
            session.terminal.data(&String::from_utf8_lossy(&text))?;
        }
        Some(dir) => {
            let failed = |error| Error::output(dir, format!("cannot be written: {}", in_words(&error)));
            std::fs::create_dir_all(dir).map_err(failed)?;
            for command in std::iter::once(&program).chain(program.get_subcommands()) {
                page(command).generate_to(dir).map_err(failed)?;
            }
            session.terminal.note(&format!("man pages in {}", show_path(dir)));
        }
    }
    Ok(Outcome::Done)
}

fn page(command: &Command) -> Man {
    // A date would make pages differ that say the same; an empty one has to be quoted, or the next field is taken for it.
    Man::new(command.clone()).date("\"\"").source(concat!("condlora ", env!("CARGO_PKG_VERSION")))
}
