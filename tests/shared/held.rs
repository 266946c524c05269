//! Pauses a run at a named point (`src/output/pause.rs`), so that a test does not depend on timing.

#![allow(dead_code, reason = "each test uses its own part")]

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Output};
use std::time::Duration;

/// A run that waits.
pub(crate) struct Held {
    run: Child,
    gate: File,
}

impl Held {
    /// Starts a run and returns when it has come to `point`.
    #[track_caller]
    pub(crate) fn at(point: &str, command: &mut Command) -> Self {
        let ended = |output| panic!("the run has ended, and was never at `{point}`: {output:?}");
        Self::unless_ended(point, command).unwrap_or_else(ended)
    }

    /// The same for a run that may end before it reaches `point`.
    pub(crate) fn unless_ended(point: &str, command: &mut Command) -> Result<Self, Output> {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut run = command.env("CONDLORA_WAIT_AT", format!("{point}:{}", fifo.display())).spawn().unwrap();
        loop {
            // Refused until the run has opened the other end.
            match File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo) {
                Ok(gate) => return Ok(Self { run, gate }),
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
                Err(error) => panic!("{error}"),
            }
            if run.try_wait().unwrap().is_some() {
                return Err(run.wait_with_output().unwrap());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The most memory that it has had so far, in bytes, as Linux counts it.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.run.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }

    /// Sends a signal; the run still waits, and ends by it.
    pub(crate) fn signal(self, signal: &str) -> Output {
        assert!(Command::new("kill").args([signal, &self.run.id().to_string()]).status().unwrap().success());
        self.run.wait_with_output().unwrap()
    }

    /// Lets the run go on to its end.
    pub(crate) fn go_on(self) -> Output {
        drop(self.gate);
        self.run.wait_with_output().unwrap()
    }
}
