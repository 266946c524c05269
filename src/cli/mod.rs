//! The command line: arguments in, one library call, and what the terminal shows.
//!
//! Data goes to stdout, everything else to stderr. One file for each command; this one has what they share.

mod aligned;
mod analyze;
mod averages;
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
mod signals;
mod summary;
mod terminal;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{ArgAction, Args, FromArgMatches, Parser, Subcommand};

use crate::error::{Error, Result, escape, in_words};
use crate::linalg::lapack::use_one_blas_thread;
use crate::study::{blas_cannot_start, check_address_space};
use crate::table::InputRecord;
use terminal::{ColorChoice, Terminal};

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Everything was done.
    Done,
    /// Adapters were passed over, each named.
    Skipped,
}

/// The exit code for a mistake of ours.
const BUG: u8 = 70;

#[derive(Debug, Parser)]
#[command(
    name = "condlora",
    version,
    about = "Conversion matrices of LoRA adapters: how similar they are across layers, and how much of that is chance or the base model",
    long_about = "Conversion matrices of LoRA adapters: how similar they are across layers, and how much of that is chance or the base model.

Reproduces and goes beyond Kim et al. 2024, \"A Single Linear Layer Yields Task-Adapted Low-Rank Matrices\" (arXiv 2403.14946).",
    after_help = "Examples:
  # What is there, and does it fit together?
  condlora inspect adapters/ --base models/roberta-base
  # How similar are the conversion matrices of its layers?
  condlora analyze adapters/sst2 --base models/roberta-base -o results
  # All options of a command, what it writes and how it ends
  condlora help analyze",
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Number of threads [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Say what is done, and how long each stage took
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// No warnings on stderr (they still stand in the manifest)
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print JSON on stdout instead of a table
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    json: bool,
    /// Colour in what is printed
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = false)]
    color: ColorChoice,
    /// Progress on stderr: a bar on a terminal, plain lines, or nothing
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    progress: progress::Style,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Solve for the conversion matrices of LoRA adapters and compare them across layers
    Analyze(Box<analyze::AnalyzeArgs>),
    /// Show adapters, their pairing and what would be refused, from headers alone
    Inspect(Box<inspect::InspectArgs>),
    /// Compare two adapters of one base layer by layer: A, B and the update of LoRA or CondLoRA
    Compare(Box<compare::CompareArgs>),
    /// Fit one shared Θ per module to a trained LoRA, and say whether it does better than chance
    Fit(fit::FitArgs),
    /// Make a LoRA adapter that PEFT loads of a CondLoRA
    Materialize(materialize::MaterializeArgs),
    /// Put the shards of a study together, as if one run had made them
    Merge(Box<merge::MergeArgs>),
    /// Draw figures again from the tables of results, with other options and without recomputing
    Figures(figures::FiguresArgs),
    /// Print what a shell needs to complete commands and options
    Completions(completions::CompletionsArgs),
    /// Make man pages
    Man(man::ManArgs),
}

/// Runs the program with these arguments (the program's name first) and returns its exit code (SPEC section 4).
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Asked first: what the program does changes the answer.
    let hangs_at_exit = blas_cannot_start();
    let code = answer(arguments);
    if hangs_at_exit {
        // Without the exit handlers, of which OpenBLAS's would wait for its threads. All that was written has been flushed.
        signal_hook::low_level::exit(code.into());
    }
    ExitCode::from(code)
}

/// Does what the arguments ask for; gives the exit code.
fn answer(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too.
            return match terminal::written(error.print()) {
                Err(lost) if !error.use_stderr() => {
                    Terminal::new(ColorChoice::Auto, false, false).error(&lost);
                    lost.exit_code()
                }
                _ => u8::try_from(error.exit_code()).unwrap_or(2),
            };
        }
    };
    let terminal = Terminal::new(cli.global.color, cli.global.quiet, cli.global.verbose);
    std::panic::set_hook(Box::new(|_| {}));
    let done = catch_unwind(AssertUnwindSafe(|| execute(&cli, &arguments, &terminal)));
    match done {
        Ok(Ok(Outcome::Done)) => 0,
        Ok(Ok(Outcome::Skipped)) => 1,
        Ok(Err(error)) => {
            terminal.error(&error);
            error.exit_code()
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            terminal.bug(text.unwrap_or("a panic without a message"));
            BUG
        }
    }
}

/// The arguments, checked one by one.
fn parse(arguments: &[OsString]) -> std::result::Result<Cli, clap::Error> {
    let mut command = manual::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn execute(cli: &Cli, arguments: &[OsString], terminal: &Terminal) -> Result<Outcome> {
    let threads = cli.global.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    check_address_space(threads)?;
    use_one_blas_thread();
    signals::watch()?;
    let mut pool = rayon::ThreadPoolBuilder::new().thread_name(|index| format!("condlora-{index}"));
    if let Some(threads) = cli.global.threads {
        pool = pool.num_threads(usize::from(threads));
    }
    let pool = pool.build().map_err(|error| Error::Resource {
        what: "the threads could not be started".into(),
        expected: "a number that the system allows".into(),
        found: in_words(&error),
        hint: Some("use fewer with --threads".into()),
    })?;
    let command_line: Vec<String> = arguments.iter().map(|a| escape(&a.to_string_lossy())).collect();
    match &cli.command {
        Command::Analyze(args) => analyze::run(args, &cli.global, command_line, &pool, terminal),
        Command::Inspect(args) => inspect::run(args, &cli.global, terminal),
        Command::Compare(args) => compare::run(args, &cli.global, command_line, &pool, terminal),
        Command::Fit(args) => fit::run(args, &cli.global, command_line, &pool, terminal),
        Command::Materialize(args) => materialize::run(args, &cli.global, command_line, terminal),
        Command::Merge(args) => merge::run(args, &cli.global, command_line, &pool, terminal),
        Command::Figures(args) => figures::run(args, &cli.global, command_line, &pool, terminal),
        Command::Completions(args) => completions::run(args, terminal),
        Command::Man(args) => man::run(args, terminal),
    }
}

/// A record of the reader as the manifest keeps it.
fn input_record(read: &crate::checkpoint::InputRecord) -> InputRecord {
    InputRecord {
        file: read.file.to_string_lossy().into_owned(),
        tensor: read.tensor.clone(),
        dtype: read.dtype.clone(),
        blake3: read.blake3.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        manual::command().debug_assert();
    }
}
