//! What help and man pages say beyond the arguments: examples, files written, exit codes and environment.
//!
//! A command's examples are beside its arguments (`after_help`); the rest is here, added to its long help, from which clap_mangen makes
//! the man pages.

mod notes;

use std::fmt::Write;

use clap::{Arg, Command, ValueHint};

use notes::{ENVIRONMENT, Entry, exit_codes, files};

/// What a command's examples begin with.
const EXAMPLES: &str = "Examples:\n";
/// Between a term and what it means.
const GAP: usize = 2;

/// The program's arguments with all that its help says beyond them.
pub(super) fn explained(mut command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(&name, |sub| with_notes(sub.mut_args(with_hint), &name));
    }
    let name = command.get_name().to_owned();
    with_notes(command.mut_args(with_hint), &name)
}

/// Says for completion where a value is no path, and where it is a directory.
fn with_hint(argument: Arg) -> Arg {
    let named = |name: &str| argument.get_value_names().is_some_and(|names| names.iter().any(|known| known == name));
    match argument.get_value_hint() {
        ValueHint::Unknown if argument.get_action().takes_values() => argument.value_hint(ValueHint::Other),
        ValueHint::AnyPath if named("DIR") || named("OUT") => argument.value_hint(ValueHint::DirPath),
        _ => argument,
    }
}

/// Adds to the long help what the short one leaves out.
fn with_notes(command: Command, name: &str) -> Command {
    let header = *command.get_styles().get_header();
    let title = |text: &str| format!("{header}{text}:{header:#}\n");
    let examples = examples(&command);
    let short = if examples.is_empty() { String::new() } else { format!("{}{examples}", title("Examples")) };
    let mut long = short.clone();
    for (heading, entries) in sections(name) {
        let between = if long.is_empty() { "" } else { "\n\n" };
        let _ = write!(long, "{between}{}{}", title(heading), aligned(entries));
    }
    command.after_help(short).after_long_help(long)
}

/// The lines of a command's examples, each behind two spaces; a line that begins with `#` says what the next is for.
fn examples(command: &Command) -> String {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    text.strip_prefix(EXAMPLES).map(|lines| lines.trim_end().to_owned()).unwrap_or_default()
}

/// Everything but the examples.
fn sections(name: &str) -> Vec<(&'static str, Vec<Entry>)> {
    let all = [("Files written", files(name)), ("Exit codes", exit_codes(name)), ("Environment", ENVIRONMENT.to_vec())];
    all.into_iter().filter(|(_, entries)| !entries.is_empty()).collect()
}

/// Terms in one column, what they mean in another.
fn aligned(entries: Vec<Entry>) -> String {
    let widest = entries.iter().map(|(term, _)| term.chars().count()).max().unwrap_or(0);
    let line = |(term, meaning): Entry| {
        let room = widest + GAP;
        format!("  {term:room$}{}", meaning.replace('\n', &format!("\n{:1$}", "", room + GAP)))
    };
    entries.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::{Cli, program};

    /// Where help wraps lines: ours never reach it.
    const NARROW: usize = 80;

    #[test]
    fn every_command_has_examples_and_says_how_it_ends() {
        for sub in program().get_subcommands() {
            let name = sub.get_name();
            assert!(!examples(&Cli::command().find_subcommand(name).unwrap().clone()).is_empty(), "{name}");
            let long = sub.get_after_long_help().unwrap().to_string();
            assert!(long.starts_with(EXAMPLES) && long.contains("\n\nExit codes:\n  0 "), "{long}");
            let writes = name == "figures" || sub.get_arguments().any(|argument| argument.get_id() == "out");
            assert_eq!(long.contains("Files written:\n"), writes, "{name}");
            let short = sub.get_after_help().unwrap().to_string();
            assert!(short.starts_with(EXAMPLES) && !short.contains("Exit codes"), "{short}");
            for line in long.lines() {
                assert!(line.chars().count() <= NARROW, "{name}: {line}");
            }
        }
    }

    #[test]
    fn meanings_stand_in_a_column() {
        assert_eq!(aligned(vec![("a", "one"), ("bcd", "two\nlines")]), "  a    one\n  bcd  two\n       lines");
    }
}
