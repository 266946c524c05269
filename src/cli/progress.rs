//! How far a long computation has come, on stderr: a bar on a terminal, a line every ten seconds in a log, nothing if it is short.

use std::io::{self, IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::inputs::Progress;
use crate::terms::named;

/// What progress looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A bar on a terminal; elsewhere a line every ten seconds, if it takes that long.
    Auto,
    /// A line every ten seconds, and one at the end.
    Plain,
    /// Nothing.
    Never,
}

named!(Style, "a style of progress", { Auto = "auto", Plain = "plain", Never = "never" });

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Shows progress in the style chosen. indicatif counts and measures for lines too: its bar is then never drawn.
pub(super) struct Reporter {
    /// What is counted, in the plural.
    what: &'static str,
    shown: Shown,
    bar: ProgressBar,
    lines: Mutex<Option<Lines>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Bar,
    /// Lines, and a last one even if it is the first.
    EveryLine,
    /// Lines only where it takes long enough for one.
    LongRuns,
    Nothing,
}

/// The thread that writes lines, until the sender is dropped; it returns whether it wrote any.
struct Lines {
    until: mpsc::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Reporter {
    /// One that counts `what`.
    pub(super) fn new(style: Style, quiet: bool, what: &'static str) -> Self {
        let shown = match style {
            Style::Plain => Shown::EveryLine,
            Style::Never => Shown::Nothing,
            Style::Auto if quiet => Shown::Nothing,
            Style::Auto if io::stderr().is_terminal() => Shown::Bar,
            Style::Auto => Shown::LongRuns,
        };
        Self { what, shown, bar: ProgressBar::hidden(), lines: Mutex::new(None) }
    }

    /// Takes the bar off the terminal, or writes the last line, and says no more.
    pub(super) fn finish(&self) {
        if self.shown == Shown::Bar {
            self.bar.finish_and_clear();
        }
        let Some(lines) = self.lines.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        drop(lines.until);
        let any = lines.thread.join().unwrap_or(false);
        // A run that failed has no last line.
        if (any || self.shown == Shown::EveryLine) && self.bar.length() == Some(self.bar.position()) {
            say(&format!("{}, {:.1} s", count(&self.bar, self.what), self.bar.elapsed().as_secs_f64()));
        }
    }
}

impl Progress for Reporter {
    fn begin(&self, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.reset_elapsed();
        match self.shown {
            Shown::Bar => {
                let template = format!("{{bar:20}} {{pos}}/{{len}} {}, {{per_sec}}, {{eta}} left", self.what);
                let style = ProgressStyle::with_template(&template);
                self.bar.set_style(style.unwrap_or_else(|error| unreachable!("the template is ours: {error}")));
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
                // So that the time left is told between two steps of a minute too.
                self.bar.enable_steady_tick(Duration::from_secs(1));
            }
            Shown::EveryLine | Shown::LongRuns => {
                let (until, ended) = mpsc::channel();
                let (bar, what) = (self.bar.clone(), self.what);
                let write = move || write_lines(&bar, what, BETWEEN_LINES, &ended, say);
                // Without a thread there are no lines, and the work goes on.
                let thread = std::thread::Builder::new().name("progress".into()).spawn(write);
                *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = thread.ok().map(|thread| Lines { until, thread });
            }
            Shown::Nothing => {}
        }
    }

    fn step(&self) {
        self.bar.inc(1);
    }
}

/// Writes a line from time to time, whether or not anything was done meanwhile, until the other end of the channel is gone; gives whether
/// it wrote any.
fn write_lines(bar: &ProgressBar, what: &str, between: Duration, ended: &mpsc::Receiver<()>, say: impl Fn(&str)) -> bool {
    let mut any = false;
    while ended.recv_timeout(between) == Err(mpsc::RecvTimeoutError::Timeout) {
        say(&format!("{}, {:.2}/s, {:#} left", count(bar, what), bar.per_sec(), HumanDuration(bar.eta())));
        any = true;
    }
    any
}

/// `5/12 layers`.
fn count(bar: &ProgressBar, what: &str) -> String {
    format!("{}/{} {what}", bar.position(), bar.length().unwrap_or(0))
}

fn say(line: &str) {
    // When stderr is gone there is no one left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_while_one_step_lasts_and_end_with_it() {
        let (until, ended) = mpsc::channel();
        let (send, lines) = mpsc::channel();
        let bar = ProgressBar::hidden();
        bar.set_length(2);
        bar.inc(1);
        let writer = std::thread::spawn(move || {
            write_lines(&bar, "layers", Duration::from_millis(1), &ended, |line| drop(send.send(line.to_owned())))
        });
        for _ in 0..2 {
            let line = lines.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(line.starts_with("1/2 layers, ") && line.ends_with(" left"), "{line}");
        }
        drop(until);
        assert!(writer.join().unwrap());
        // Ended before the first line is due: none.
        let (until, ended) = mpsc::channel();
        drop(until);
        assert!(!write_lines(&ProgressBar::hidden(), "layers", Duration::from_secs(60), &ended, |_| panic!("a line")));
    }
}
