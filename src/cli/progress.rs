//! How far a long computation has come, on stderr: a bar on a terminal, a line every ten seconds in a log, nothing if it is short.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::inputs::Progress;

/// What progress looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Style {
    /// A bar on a terminal; elsewhere a line every ten seconds, if it takes that long
    Auto,
    /// A line every ten seconds, and one at the end
    Plain,
    /// Nothing
    Never,
}

/// Shows progress in the style chosen.
pub(super) struct Reporter {
    /// What is counted, in the plural.
    what: &'static str,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Plain(Arc<Ticker>),
    Nothing,
}

const BETWEEN_LINES: Duration = Duration::from_secs(10);

impl Reporter {
    /// One that counts `what`.
    pub(super) fn new(style: Style, quiet: bool, what: &'static str) -> Self {
        let lines = |last_always| {
            let sink = |line: &str| {
                // When stderr is gone there is no one left to tell.
                let _ = writeln!(io::stderr(), "{line}");
            };
            Shown::Plain(Ticker::new(Lines::new(what, last_always), BETWEEN_LINES, Box::new(sink)))
        };
        let shown = match style {
            Style::Plain => lines(true),
            Style::Never => Shown::Nothing,
            Style::Auto if quiet => Shown::Nothing,
            Style::Auto if io::stderr().is_terminal() => Shown::Bar(ProgressBar::hidden()),
            Style::Auto => lines(false),
        };
        Self { what, shown }
    }

    /// Takes the bar off the terminal, and says no more.
    pub(super) fn finish(&self) {
        match &self.shown {
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Plain(ticker) => ticker.stop(),
            Shown::Nothing => {}
        }
    }
}

impl Progress for Reporter {
    fn begin(&self, total: usize) {
        match &self.shown {
            Shown::Bar(bar) => {
                let template = format!("{{bar:20}} {{pos}}/{{len}} {}{{pace}}", self.what);
                if let Ok(style) = ProgressStyle::with_template(&template) {
                    let pace = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = out.write_str(&pace(state.pos(), state.len().unwrap_or(0), state.elapsed()));
                    };
                    bar.set_style(style.with_key("pace", pace));
                }
                bar.set_length(total as u64);
                bar.reset_elapsed();
                bar.set_draw_target(ProgressDrawTarget::stderr());
                // So that the time left is told between two steps of a minute too.
                bar.enable_steady_tick(Duration::from_secs(1));
            }
            Shown::Plain(ticker) => ticker.begin(total as u64),
            Shown::Nothing => {}
        }
    }

    fn step(&self) {
        match &self.shown {
            Shown::Bar(bar) => bar.inc(1),
            Shown::Plain(ticker) => ticker.step(),
            Shown::Nothing => {}
        }
    }
}

/// What the lines of a log say.
struct Lines {
    what: &'static str,
    done: u64,
    total: u64,
    /// Whether there is a last line even if it is the first.
    last_always: bool,
    any: bool,
}

impl Lines {
    fn new(what: &'static str, last_always: bool) -> Self {
        Self { what, done: 0, total: 0, last_always, any: false }
    }

    /// The line after this time.
    fn now(&mut self, elapsed: Duration) -> String {
        self.any = true;
        format!("{}/{} {}{}", self.done, self.total, self.what, pace(self.done, self.total, elapsed))
    }

    /// The line when all is done, unless it was too quick to speak of.
    fn last(&mut self, elapsed: Duration) -> Option<String> {
        let speak = self.any || self.last_always;
        speak.then(|| format!("{}/{} {}, {:.1} s", self.done, self.total, self.what, elapsed.as_secs_f64()))
    }
}

/// Writes a line from time to time, whether or not anything was done meanwhile.
struct Ticker {
    state: Mutex<TickerState>,
    stopped: Condvar,
    between: Duration,
    sink: Box<dyn Fn(&str) + Send + Sync>,
}

struct TickerState {
    lines: Lines,
    /// None before the beginning and after the end.
    since: Option<Instant>,
}

impl Ticker {
    fn new(lines: Lines, between: Duration, sink: Box<dyn Fn(&str) + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(TickerState { lines, since: None }), stopped: Condvar::new(), between, sink })
    }

    fn state(&self) -> MutexGuard<'_, TickerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, total: u64) {
        {
            let mut state = self.state();
            state.lines.total = total;
            state.since = Some(Instant::now());
        }
        let ticker = Arc::clone(self);
        // Without a thread there are no lines, and the work goes on.
        let _ = std::thread::Builder::new().name("progress".into()).spawn(move || ticker.tick());
    }

    fn tick(&self) {
        let mut state = self.state();
        loop {
            let waited = self.stopped.wait_timeout(state, self.between).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            let Some(since) = state.since else { return };
            if waited.1.timed_out() {
                let line = state.lines.now(since.elapsed());
                (self.sink)(&line);
            }
        }
    }

    fn step(&self) {
        let mut state = self.state();
        state.lines.done += 1;
        if state.lines.done == state.lines.total
            && let Some(since) = state.since.take()
        {
            if let Some(line) = state.lines.last(since.elapsed()) {
                (self.sink)(&line);
            }
            self.stopped.notify_all();
        }
    }

    fn stop(&self) {
        self.state().since = None;
        self.stopped.notify_all();
    }
}

/// `, 2.5 a second, 1 min 20 s left`, as far as it is known.
fn pace(done: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let mut text = String::new();
    if done == 0 || seconds <= 0.0 {
        let _ = write!(text, ", {} so far", duration(seconds));
        return text;
    }
    let each = seconds / done as f64;
    let (rate, of) = [(1.0, "a second"), (60.0, "a minute")]
        .into_iter()
        .map(|(unit, of)| (unit / each, of))
        .find(|(rate, _)| *rate >= 1.0)
        .unwrap_or((3600.0 / each, "an hour"));
    let decimals = usize::from(rate < 9.95);
    let _ = write!(text, ", {rate:.decimals$} {of}, {} left", duration(each * total.saturating_sub(done) as f64));
    text
}

/// `8 s`, `2 min 5 s`, `3 h 20 min`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn rate_and_time_left_are_in_units_that_read_well() {
        let after = |done, total, seconds| pace(done, total, Duration::from_secs(seconds));
        assert_eq!(after(0, 12, 10), ", 10 s so far");
        assert_eq!(after(5, 12, 2), ", 2.5 a second, 3 s left");
        assert_eq!(after(1000, 4000, 10), ", 100 a second, 30 s left");
        assert_eq!(after(1, 12, 20), ", 3.0 a minute, 3 min 40 s left");
        assert_eq!(after(1, 3, 7200), ", 0.5 an hour, 4 h 0 min left");
        assert_eq!(after(12, 12, 20), ", 36 a minute, 0 s left");
    }

    #[test]
    fn a_log_has_a_last_line_where_it_has_any_or_was_asked_for() {
        let mut quick = Lines::new("layers", false);
        (quick.done, quick.total) = (12, 12);
        assert_eq!(quick.last(Duration::from_secs(9)), None);
        assert_eq!(quick.now(Duration::from_secs(10)), "12/12 layers, 1.2 a second, 0 s left");
        assert_eq!(quick.last(Duration::from_secs(11)).unwrap(), "12/12 layers, 11.0 s");
        assert!(Lines::new("layers", true).last(Duration::ZERO).is_some());
    }

    #[test]
    fn lines_come_while_one_step_lasts() {
        let (send, receive) = mpsc::channel();
        let sink = move |line: &str| drop(send.send(line.to_owned()));
        let ticker = Ticker::new(Lines::new("layers", false), Duration::from_millis(1), Box::new(sink));
        ticker.begin(2);
        ticker.step();
        let of_step = |done: u64| loop {
            let line: String = receive.recv_timeout(Duration::from_secs(60)).unwrap();
            if line.starts_with(&format!("{done}/2 layers, ")) {
                return line;
            }
        };
        assert!(of_step(1).ends_with(" left"));
        assert!(of_step(1).ends_with(" left"));
        ticker.step();
        assert!(of_step(2).ends_with(" s"));
        // Done: no line any more, and stopping once more is nothing.
        ticker.stop();
        assert!(receive.recv_timeout(Duration::from_millis(20)).is_err());
    }
}
