//! How far a long computation has come, on stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::study::Progress;

/// What progress looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Style {
    /// A bar on a terminal, nothing elsewhere
    Auto,
    /// A line every ten seconds
    Plain,
    /// Nothing
    Never,
}

/// Shows progress in the style chosen.
pub(super) enum Reporter {
    Bar(ProgressBar),
    Plain(Mutex<Lines>),
    Silent,
}

/// When the last line was written, and how many steps are done.
pub(super) struct Lines {
    started: Instant,
    last: Instant,
    done: usize,
    total: usize,
}

const BETWEEN_LINES: Duration = Duration::from_secs(10);

impl Reporter {
    pub(super) fn new(style: Style, quiet: bool) -> Self {
        match style {
            Style::Auto if io::stderr().is_terminal() && !quiet => Self::Bar(ProgressBar::hidden()),
            Style::Plain => {
                let now = Instant::now();
                Self::Plain(Mutex::new(Lines { started: now, last: now, done: 0, total: 0 }))
            }
            _ => Self::Silent,
        }
    }

    /// Takes the bar off the terminal.
    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Reporter {
    fn begin(&self, total: usize) {
        match self {
            Self::Bar(bar) => {
                if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} base weights, {eta} left") {
                    bar.set_style(style);
                }
                bar.set_length(total as u64);
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            Self::Plain(lines) => {
                if let Ok(mut lines) = lines.lock() {
                    lines.total = total;
                }
            }
            Self::Silent => {}
        }
    }

    fn step(&self) {
        match self {
            Self::Bar(bar) => bar.inc(1),
            Self::Plain(lines) => {
                if let Ok(mut lines) = lines.lock() {
                    lines.done += 1;
                    if lines.last.elapsed() >= BETWEEN_LINES || lines.done == lines.total {
                        lines.last = Instant::now();
                        let seconds = lines.started.elapsed().as_secs_f64();
                        let _ = writeln!(io::stderr(), "{}/{} base weights, {seconds:.1} s", lines.done, lines.total);
                    }
                }
            }
            Self::Silent => {}
        }
    }
}
