//! What every command is run with: the global options, the command line, the threads and the terminal.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::{ArgAction, Args};
use rayon::ThreadPool;
use serde::Serialize;

use super::choice::any;
use super::progress::{Reporter, Style};
use super::signals;
use super::terminal::{ColorChoice, Terminal};
use crate::error::{Error, Result, escape, in_words, show_path};
use crate::inputs::check_address_space;
use crate::linalg::lapack::{blas_description, use_one_blas_thread};
use crate::output::Manifest;
use crate::record::InputRecord;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything was done.
    Done,
    /// Adapters or modules were skipped, each named.
    Skipped,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Number of threads [default: one per core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: Option<u16>,
    /// Report what is done and how long each stage takes
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(super) verbose: bool,
    /// Hide warnings, the progress bar and closing notes; skipped adapters are still named, and manifest.json keeps the warnings
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Print JSON on stdout instead of a table
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    pub(super) json: bool,
    /// When to colour the output; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,
    /// How to show progress on stderr; auto: a bar on a terminal, elsewhere a line every ten seconds
    #[arg(long, global = true, value_name = "HOW", default_value = "auto", value_parser = any::<Style>())]
    pub(super) progress: Style,
}

/// One run of the program, from the arguments that were understood to the last line printed.
pub(super) struct Session {
    pub(super) terminal: Terminal,
    pub(super) pool: ThreadPool,
    global: Global,
    command_line: Vec<String>,
}

impl Session {
    /// Prepares the process for computing, and starts the threads.
    ///
    /// # Errors
    /// [`Error::Resource`] where the system does not give the memory, the signal handler or the threads.
    pub(super) fn start(global: Global, arguments: &[OsString], terminal: Terminal) -> Result<Self> {
        let threads = global.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
        check_address_space(threads)?;
        // The work is spread over our own threads: those of BLAS beside them would only compete for the same cores.
        use_one_blas_thread();
        // Before any output is begun, so that a signal always finds someone who removes what is half-written.
        signals::watch()?;
        let mut pool = rayon::ThreadPoolBuilder::new().thread_name(|index| format!("condlora-{index}"));
        if let Some(threads) = global.threads {
            pool = pool.num_threads(usize::from(threads));
        }
        let pool = pool.build().map_err(|error| Error::Resource {
            what: "the threads could not be started".into(),
            expected: "a number that the system allows".into(),
            found: in_words(&error),
            hint: Some("use fewer with --threads".into()),
        })?;
        let command_line = arguments.iter().map(|argument| escape(&argument.to_string_lossy())).collect();
        Ok(Self { terminal, pool, global, command_line })
    }

    /// Whether data on stdout is JSON.
    pub(super) fn json(&self) -> bool {
        self.global.json
    }

    /// One that shows how many of `what` (in the plural) are done.
    pub(super) fn reporter(&self, what: &'static str) -> Reporter {
        Reporter::new(self.global.progress, self.global.quiet, what)
    }

    /// Computes on the session's threads, and shows how many of `what` (in the plural) are done.
    pub(super) fn compute<T: Send>(&self, what: &'static str, work: impl FnOnce(&Reporter) -> T + Send) -> T {
        let reporter = self.reporter(what);
        let done = self.pool.install(|| work(&reporter));
        reporter.finish();
        done
    }

    /// A manifest with the command line and these options, and nothing else in it yet.
    pub(super) fn record(&self, options: &impl Serialize) -> Manifest {
        let mut manifest = Manifest::new(self.command_line.clone());
        manifest.options = serde_json::to_value(options)
            .unwrap_or_else(|error| unreachable!("options are plain values in structs, and paths are written as text: {error}"));
        manifest
    }

    /// The manifest of a run that computed: what its numbers depend on.
    pub(super) fn manifest(
        &self,
        options: &impl Serialize,
        seed: Option<u64>,
        inputs: Vec<InputRecord>,
        warnings: Vec<String>,
    ) -> Manifest {
        let mut manifest = self.record(options);
        manifest.seed = seed;
        manifest.threads = self.pool.current_num_threads();
        manifest.inputs = inputs;
        manifest.warnings = warnings;
        manifest.libraries.insert("openblas".into(), blas_description());
        manifest
    }

    /// Notes how long a stage took, in the manifest and for `-v`; `scope` says what the time is a sum of.
    pub(super) fn took(&self, manifest: &mut Manifest, stage: &str, took: Duration, scope: &str) {
        manifest.add_timing(stage, took);
        self.terminal.detail(&format!("{stage}: {:.1} ms{scope}", took.as_secs_f64() * 1e3));
    }

    /// The end of a run whose files are written: the data, and where the files are.
    ///
    /// # Errors
    /// Those of [`Terminal::data`]. The places are named all the same, because the files are there.
    pub(super) fn close(&self, data: &str, places: &[(&str, &Path)]) -> Result<()> {
        let shown = self.terminal.data(data);
        for (what, place) in places {
            self.terminal.note(&format!("{what} {}", show_path(place)));
        }
        shown
    }
}
