//! How much memory a study may use: what the machine has left, or what the user allows.

use std::fs;
use std::path::Path;

/// The share of what is available that is used unless a limit is given, in percent.
const SHARE: u64 = 80;

/// Bytes that a study may use by default: 80 % of what is available; none where that cannot be known.
pub(crate) fn default_limit() -> Option<u64> {
    available().map(|bytes| bytes / 100 * SHARE)
}

/// The least of what the machine, its control groups and the process limits leave.
fn available() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    [from_meminfo(read), from_cgroups(read), from_limits(read)].into_iter().flatten().min()
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
        // In a container the path may be the host's; its parts that do not exist here are passed over.
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

/// `Max address space` of `/proc/self/limits`, without what is mapped already.
fn from_limits(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let text = read(Path::new("/proc/self/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit = line.split_whitespace().next()?.parse::<u64>().ok()?;
    let mapped = read(Path::new("/proc/self/statm")).and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    Some(limit.saturating_sub(mapped.unwrap_or(0) * 4096))
}

/// Bytes as people read them.
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

/// Reads `8G`, `512M` or a number of bytes; K, M, G and T are powers of 1024, also as KiB and so on, and KB and so on of 1000.
///
/// # Errors
/// What was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
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
        assert_eq!(from_limits(files), None);
        let first = |path: &Path| match path.to_str()? {
            "/proc/self/cgroup" => Some("4:cpu:/a\n7:memory:/job\n".to_owned()),
            "/sys/fs/cgroup/memory/job/memory.limit_in_bytes" => Some("5000\n".to_owned()),
            "/proc/self/limits" => Some("Max address space         1048576    unlimited    bytes\n".to_owned()),
            "/proc/self/statm" => Some("6 1 1 1 0 1 0\n".to_owned()),
            _ => None,
        };
        assert_eq!((from_cgroups(first), from_limits(first)), (Some(5000), Some(1_048_576 - 6 * 4096)));
    }
}
