//! The command line: arguments in, one library call, and what the terminal shows.
//!
//! Data goes to stdout, everything else to stderr. One file for each command; this one has what they share.

mod aligned;
mod analyze;
mod averages;
mod choice;
mod compare;
mod completions;
mod drawing;
mod figures;
mod fit;
mod fit_summary;
mod inspect;
mod man;
mod manual;
mod materialize;
mod merge;
mod pairing;
mod progress;
mod session;
mod signals;
mod summary;
mod terminal;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Result, name_options};
use crate::inputs::blas_cannot_start;
use crate::linalg::lapack::free_large_matrices_at_once;
use session::{Global, Outcome, Session};
use terminal::{ColorChoice, Terminal};

/// The exit code for a mistake of ours.
const BUG: u8 = 70;

#[derive(Debug, Parser)]
#[command(
    name = "condlora",
    version,
    about = "Measure how similar a LoRA adapter's layers are, and how much of that is chance or comes from the base model",
    long_about = "Measure how similar a LoRA adapter's layers are, and how much of that is chance or comes from the base model.

For each layer, condlora computes the conversion matrix Θ with W0·Θ = factor, and compares the subspaces of all pairs of layers. The method is that of \
Kim et al. 2024, \"A Single Linear Layer Yields Task-Adapted Low-Rank Matrices\" (arXiv 2403.14946).",
    after_help = "Examples:
  # Which adapters are there, and do they fit the base model?
  condlora inspect adapters/ --base models/roberta-base
  # How similar are the layers of an adapter?
  condlora analyze adapters/sst2 --base models/roberta-base -o results
  # All options of a command, the files it writes and its exit codes
  condlora help analyze",
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compute the conversion matrices of LoRA adapters and compare them across layers
    Analyze(Box<analyze::AnalyzeArgs>),
    /// Show adapters, their base weights and what analyze would refuse, reading headers only
    Inspect(Box<inspect::InspectArgs>),
    /// Compare two adapters of one base model layer by layer, LoRA or CondLoRA: A, B and the update
    Compare(Box<compare::CompareArgs>),
    /// Fit one shared Θ per module to a trained LoRA, and test whether the layers share more of one than their spectra give
    Fit(fit::FitArgs),
    /// Turn a CondLoRA into a LoRA adapter that PEFT can load
    Materialize(materialize::MaterializeArgs),
    /// Combine the shards of a study into what one run would have written
    Merge(Box<merge::MergeArgs>),
    /// Draw the figures of earlier results again, with other options and without recomputing
    Figures(figures::FiguresArgs),
    /// Print the script with which a shell completes commands and options
    Completions(completions::CompletionsArgs),
    /// Print the main man page, or write all pages into a directory
    Man(man::ManArgs),
}

impl Command {
    fn run(&self, session: &Session) -> Result<Outcome> {
        match self {
            Self::Analyze(args) => analyze::run(args, session),
            Self::Inspect(args) => inspect::run(args, session),
            Self::Compare(args) => compare::run(args, session),
            Self::Fit(args) => fit::run(args, session),
            Self::Materialize(args) => materialize::run(args, session),
            Self::Merge(args) => merge::run(args, session),
            Self::Figures(args) => figures::run(args, session),
            Self::Completions(args) => completions::run(args, program(), session),
            Self::Man(args) => man::run(args, program(), session),
        }
    }
}

/// Runs the program with these arguments (the program's name first) and returns its exit code (docs/spec.md, section 4).
///
/// Arguments that are understood become a session, in which one command runs. Every way to end comes back here as a code, so
/// that nothing below leaves the process in the middle of its work: a command returns, an error is printed with its hint, and a panic,
/// which is always a mistake of ours, is caught and reported as one. Signals alone end the process elsewhere.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    name_options();
    free_large_matrices_at_once();
    // Whether OpenBLAS could start its threads under this limit on memory. Asked before anything else, because what the program
    // takes for itself changes the answer.
    let blas_hangs_at_exit = blas_cannot_start();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let code = match parse(&arguments) {
        Err(instead) => answer_without_a_command(&instead),
        Ok(Cli { global, command }) => {
            let terminal = Terminal::new(global.color, global.quiet, global.verbose);
            let ended = caught(|| command.run(&Session::start(global, &arguments, terminal)?));
            exit_code(ended, &terminal)
        }
    };
    if blas_hangs_at_exit {
        // OpenBLAS's exit handler would wait forever for threads that never started. All that was written has been flushed.
        signal_hook::low_level::exit(code.into());
    }
    ExitCode::from(code)
}

/// What the program takes, with all that its help says.
fn program() -> clap::Command {
    manual::explained(Cli::command())
}

/// The arguments, checked one by one.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = program();
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Prints what is to be said instead of running a command: the help and the version, which are data on stdout, or what is wrong with
/// the arguments.
fn answer_without_a_command(said: &clap::Error) -> u8 {
    match terminal::written(said.print()) {
        Err(lost) if !said.use_stderr() => {
            Terminal::new(ColorChoice::Auto, false, false).error(&lost);
            lost.exit_code()
        }
        _ => u8::try_from(said.exit_code()).unwrap_or(2),
    }
}

/// How a command ended; the message of a panic if it did not return.
fn caught(command: impl FnOnce() -> Result<Outcome>) -> Result<Result<Outcome>, String> {
    // The panic is told in our own words, by `exit_code`.
    std::panic::set_hook(Box::new(|_| {}));
    catch_unwind(AssertUnwindSafe(command)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic without a message").to_owned()
    })
}

/// The exit code of how a command ended, once what went wrong has been said.
fn exit_code(ended: Result<Result<Outcome>, String>, terminal: &Terminal) -> u8 {
    match ended {
        Ok(Ok(Outcome::Done)) => 0,
        Ok(Ok(Outcome::Skipped)) => 1,
        Ok(Err(error)) => {
            terminal.error(&error);
            error.exit_code()
        }
        Err(panic) => {
            terminal.bug(&panic);
            BUG
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        program().debug_assert();
    }
}
