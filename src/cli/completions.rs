//! `condlora completions`: what a shell needs to complete commands and options.

use clap::{Args, Command};
use clap_complete::Shell;

use super::session::{Outcome, Session};
use crate::error::Result;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # In this shell only
  eval \"$(condlora completions bash)\"
  # In every shell, for bash with bash-completion, for zsh and for fish
  condlora completions bash \\
      > ~/.local/share/bash-completion/completions/condlora
  condlora completions zsh > ~/.zfunc/_condlora   # a directory of your fpath
  condlora completions fish > ~/.config/fish/completions/condlora.fish")]
pub(super) struct CompletionsArgs {
    /// Shell that will read the script
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Runs the command; `program` has the arguments that are completed.
///
/// # Errors
/// Those of [`super::terminal::Terminal::data`].
pub(super) fn run(args: &CompletionsArgs, program: Command, session: &Session) -> Result<Outcome> {
    session.terminal.data(&script(args.shell, program))?;
    Ok(Outcome::Done)
}

fn script(shell: Shell, mut command: Command) -> String {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    String::from_utf8(text).unwrap_or_else(|error| unreachable!("all names and help texts are UTF-8: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::cli::program;

    #[test]
    fn every_shell_gets_every_command() {
        for shell in Shell::value_variants() {
            let text = script(*shell, program());
            for sub in program().get_subcommands() {
                assert!(text.contains(sub.get_name()), "{shell}: {}", sub.get_name());
            }
        }
    }
}
