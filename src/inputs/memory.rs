//! How much memory a study may use: what the machine has left, or what the user allows.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result, field};
use crate::linalg::lapack::blas_threads;

/// The share of what is available that is used unless a limit is given, in percent.
const SHARE: u64 = 80;

/// Address space of a thread that calls BLAS: OpenBLAS's buffer of 128 MiB, what glibc reserves for the thread's heap, its stack.
const ADDRESSES_OF_A_THREAD: u64 = (128 + 128 + 2) << 20;

/// Address space of the program and its libraries.
const ADDRESSES_OF_THE_PROGRAM: u64 = 100 << 20;

/// Bytes that a study on this many threads may use by default: 80 % of what is available; none if that is unknown.
pub(crate) fn default_limit(threads: usize) -> Option<u64> {
    available(threads).map(|bytes| bytes / 100 * SHARE)
}

/// The smallest amount that the machine, its control groups and the process limits leave.
fn available(threads: usize) -> Option<u64> {
    let addresses = address_limit(read).map(|limit| limit.saturating_sub(addresses_of(threads)));
    [from_meminfo(read), from_cgroups(read), addresses].into_iter().flatten().min()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Address space that this many threads take before they compute anything. It is reserved, not used.
fn addresses_of(threads: usize) -> u64 {
    ADDRESSES_OF_THE_PROGRAM.saturating_add(ADDRESSES_OF_A_THREAD.saturating_mul(threads as u64))
}

/// Whether the limit on address space (`ulimit -v`) is too small for the threads that OpenBLAS starts when it is loaded. Such threads
/// request their buffers in an endless loop, so anything that waits for them never returns, including the exit of the process.
///
/// It has to be called before [`crate::linalg::lapack::use_one_blas_thread`].
pub(crate) fn blas_cannot_start() -> bool {
    address_limit(read).is_some_and(|limit| limit < addresses_of(blas_threads()))
}

/// Checks that the limit on address space (`ulimit -v`) leaves room for this many threads.
///
/// # Errors
/// [`Error::Resource`] if it does not: OpenBLAS requests a buffer in an endless loop when it does not get one.
pub(crate) fn check_address_space(threads: usize) -> Result<()> {
    let Some(limit) = address_limit(read) else { return Ok(()) };
    let of_blas = blas_threads();
    let needed = addresses_of(threads.max(of_blas));
    if limit >= needed {
        return Ok(());
    }
    let fitting = limit.saturating_sub(ADDRESSES_OF_THE_PROGRAM) / ADDRESSES_OF_A_THREAD;
    let hint = match fitting {
        0 => "raise it".to_owned(),
        _ if of_blas as u64 > fitting => {
            format!("raise it, or set OPENBLAS_NUM_THREADS=1 and use {} {fitting}", field("threads"))
        }
        _ => format!("raise it, or use {} {fitting}", field("threads")),
    };
    Err(Error::Resource {
        what: "the limit on address space (ulimit -v) is too small".into(),
        expected: format!("at least {} for {} threads", show(needed), threads.max(of_blas)),
        found: show(limit),
        hint: Some(hint),
    })
}

/// `MemAvailable` of `/proc/meminfo`.
fn from_meminfo(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What is left in this process's control group and those above it, version 2 or 1 (batch systems set these).
fn from_cgroups(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let text = read(Path::new("/proc/self/cgroup"))?;
    let number = |path: &Path| read(path)?.trim().parse::<u64>().ok();
    let mut least: Option<u64> = None;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (mount, limit, used) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be the host's; its parts that do not exist here are skipped.
        for place in Path::new(path.trim_start_matches('/')).ancestors() {
            let dir = Path::new(mount).join(place);
            if let Some(limit) = number(&dir.join(limit)) {
                let left = limit.saturating_sub(number(&dir.join(used)).unwrap_or(0));
                least = Some(least.map_or(left, |known| known.min(left)));
            }
        }
    }
    least
}

/// `Max address space` of `/proc/self/limits`.
fn address_limit(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let text = read(Path::new("/proc/self/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A number of bytes in a readable unit.
pub(crate) fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Reads `8G`, `512M` or a number of bytes; K, M, G and T (or KiB and so on) are powers of 1024, KB and so on powers of 1000.
///
/// # Errors
/// What was expected.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes, as in 8G or 512M".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix("ib") {
        Some(letter) => (letter, 1024_u64),
        None => match unit.strip_suffix('b') {
            Some(letter) => (letter, 1000),
            None => (unit.as_str(), 1024),
        },
    };
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * base.pow(power) as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("1", 1),
            ("8G", 8 << 30),
            ("512M", 512 << 20),
            ("512 MiB", 512 << 20),
            ("1.5k", 1536),
            ("2GB", 2_000_000_000),
            ("3T", 3 << 40),
            ("100B", 100),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "G", "1.5.2G", "8X", "80%", "1e400", "999999999999T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!((show(500), show(1536), show(300 << 20)), ("500 bytes".into(), "1.5 KiB".into(), "300 MiB".into()));
    }

    #[test]
    fn the_tightest_limit_counts() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "/proc/meminfo" => "MemTotal: 100 kB\nMemAvailable:   4096 kB\n",
                "/proc/self/cgroup" => "0::/slurm/job_7/step_0\n",
                "/sys/fs/cgroup/slurm/job_7/memory.max" => "3000000\n",
                "/sys/fs/cgroup/slurm/job_7/memory.current" => "1000000\n",
                "/sys/fs/cgroup/slurm/memory.max" => "max\n",
                "/proc/self/limits" => {
                    "Limit  Soft Limit  Hard Limit  Units\nMax address space   unlimited   unlimited   bytes\n"
                }
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(from_meminfo(files), Some(4096 * 1024));
        assert_eq!(from_cgroups(files), Some(2_000_000));
        assert_eq!(address_limit(files), None);
        let first = |path: &Path| match path.to_str()? {
            "/proc/self/cgroup" => Some("4:cpu:/a\n7:memory:/job\n".to_owned()),
            "/sys/fs/cgroup/memory/job/memory.limit_in_bytes" => Some("5000\n".to_owned()),
            "/proc/self/limits" => Some("Max address space         1048576    unlimited    bytes\n".to_owned()),
            _ => None,
        };
        assert_eq!((from_cgroups(first), address_limit(first)), (Some(5000), Some(1_048_576)));
    }
}
