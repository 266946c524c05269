//! The program's arguments as man pages.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::notes::Entry;
use super::{command, examples, sections};
use crate::cli::Cli;

/// A page for the program, then one for every command: file names and contents.
pub(in crate::cli) fn pages() -> Vec<(String, Vec<u8>)> {
    let program = built();
    let names: Vec<String> = program.get_subcommands().map(page_name).collect();
    let mut pages = vec![rendered(&program, &names)];
    pages.extend(program.get_subcommands().map(|sub| rendered(sub, &[page_name(&program)])));
    pages
}

/// The program's page alone.
pub(in crate::cli) fn page() -> Vec<u8> {
    pages().into_iter().next().map(|(_, text)| text).unwrap_or_default()
}

/// With the global options and the whole names handed down to the commands.
fn built() -> Command {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    command
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn rendered(command: &Command, see_also: &[String]) -> (String, Vec<u8>) {
    let program = env!("CARGO_PKG_NAME");
    let source = format!("{program} {}", env!("CARGO_PKG_VERSION"));
    // A date would make pages differ that say the same; an empty one has to be quoted, or the next stands in its place.
    let man = Man::new(command.clone()).date("\"\"").source(source).manual(format!("{program} manual"));
    let name = man.get_filename();
    let mut text = Vec::new();
    // Written into memory: this cannot fail.
    let _ = man.render_title(&mut text);
    let _ = man.render_name_section(&mut text);
    let _ = synopsis(command).to_writer(&mut text);
    let _ = man.render_description_section(&mut text);
    let _ = man.render_options_section(&mut text);
    if command.has_subcommands() {
        let _ = man.render_subcommands_section(&mut text);
    }
    let _ = closing(command, see_also).to_writer(&mut text);
    (name, text)
}

/// How the command is called, in the words of its help.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(usage.strip_prefix("Usage: ").unwrap_or(&usage))]);
    roff
}

/// What man pages have under headings of their own: files, exit status, environment, examples, other pages.
fn closing(command: &Command, see_also: &[String]) -> Roff {
    let mut roff = Roff::new();
    for (heading, entries) in sections(command.get_name()) {
        let heading = match heading {
            "Exit codes" => "EXIT STATUS".to_owned(),
            "Files written" => "FILES".to_owned(),
            other => other.to_uppercase(),
        };
        roff.control("SH", [heading.as_str()]);
        for (term, meaning) in entries {
            entry(&mut roff, (term, meaning));
        }
    }
    let lines = examples(&as_given(command));
    if !lines.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        // As typed: lines are neither filled nor hyphenated.
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    for (index, name) in see_also.iter().enumerate() {
        let after = if index + 1 < see_also.len() { "(1)," } else { "(1)" };
        roff.text([bold(name), roman(after)]);
    }
    roff
}

/// The command as its arguments declare it, with its examples alone behind them.
fn as_given(command: &Command) -> Command {
    let all = <Cli as clap::CommandFactory>::command();
    all.find_subcommand(command.get_name()).cloned().unwrap_or(all)
}

fn entry(roff: &mut Roff, (term, meaning): Entry) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(meaning)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_the_program_and_one_for_each_command() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..3], ["condlora.1", "condlora-analyze.1", "condlora-inspect.1"]);
        assert_eq!(names.len(), Cli::command_names().len() + 1);
        for (name, text) in &pages {
            let text = std::str::from_utf8(text).unwrap();
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"EXIT STATUS\"", "ENVIRONMENT", "EXAMPLES", "\"SEE ALSO\""] {
                assert_eq!(text.lines().filter(|line| *line == format!(".SH {heading}")).count(), 1, "{name}: {heading}");
            }
        }
    }

    impl Cli {
        fn command_names() -> Vec<String> {
            <Cli as clap::CommandFactory>::command().get_subcommands().map(|sub| sub.get_name().to_owned()).collect()
        }
    }
}
