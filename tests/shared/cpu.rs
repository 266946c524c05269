//! Processor time, which, unlike wall-clock time, hardly depends on what else the machine does.
#![allow(dead_code, reason = "each test uses its own part")]

use std::process::Command;
use std::time::Duration;

/// What this thread has taken so far; zero where Linux does not tell.
pub(crate) fn of_this_thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default())
}

/// The same command, killed when all of its threads together have taken this many seconds.
pub(crate) fn at_most(seconds: u32, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -t {seconds} && exec \"$@\""), "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}
