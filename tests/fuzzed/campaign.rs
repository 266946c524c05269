//! One reader on many inputs: those of the corpus, generated ones, and changed ones. An input with an answer that no other input had is changed
//! further.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::entry::{Entry, Place};
use super::memory::most_during;
use super::mutation::{SplitMix, inflate, mutate};
use crate::cpu;

/// Inputs for each reader.
const INPUTS: usize = 100_000;
/// One in this many inputs is made large.
const LARGE: usize = 2000;
/// Inputs that are changed further, at most, and the longest of them.
const POOL: usize = 2000;
const LONGEST: usize = 16 << 10;

/// What an input of that length may take.
pub(crate) fn most_memory(length: usize) -> usize {
    2 * length + (64 << 20)
}

/// How one reader is tried.
pub(crate) struct Campaign {
    pub(crate) entry: &'static Entry,
    /// Writes an input that is right, or nearly.
    pub(crate) write: fn(&mut SplitMix) -> Vec<u8>,
    /// What changes put in.
    pub(crate) tokens: &'static [&'static [u8]],
    /// Corrects lengths that precede what was changed.
    pub(crate) mend: fn(&mut [u8]),
    /// The divisor of the usual number of inputs.
    pub(crate) share: usize,
}

/// The inputs of a folder of the corpus, in the order of their names.
pub(crate) fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: no number")))
}

/// What came of an input: whether it was read, and the shape of the answer.
struct Answer {
    read: bool,
    shape: u64,
    memory: usize,
    took: Duration,
}

impl Campaign {
    pub(crate) fn run(&self) {
        let (count, seed) = (number("FUZZ_INPUTS", INPUTS) / self.share, number("FUZZ_SEED", 1));
        // Figures are drawn in parallel: here on this thread, whose memory is counted.
        let _pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
        let (mut place, mut rng) = (Place::new(), SplitMix(seed as u64));
        let mut pool = corpus(self.entry.corpus);
        let unchanged = pool.len();
        let (mut shapes, mut read, mut memory, started) = (HashSet::new(), 0, 0, Instant::now());
        let mut slowest = Duration::ZERO;
        for at in 0..count.max(unchanged) {
            let bytes = if at < unchanged { pool[at].clone() } else { self.input(&mut rng, &pool) };
            let answer = self.check(&mut place, &bytes, seed, at);
            slowest = slowest.max(answer.took);
            read += usize::from(answer.read);
            memory = memory.max(answer.memory);
            if shapes.insert(answer.shape) && pool.len() < POOL && bytes.len() <= LONGEST {
                pool.push(bytes);
            }
        }
        let (name, seconds) = (self.entry.name, started.elapsed().as_secs_f64());
        eprintln!(
            "{name}: {count} inputs in {seconds:.1} s, {read} of them read, {} answers, at most {} KB and {slowest:.1?}",
            shapes.len(),
            memory >> 10
        );
        // Changes that are all refused at the door, or none, would try nothing.
        assert!(read * 100 > count && read < count, "{name}: {read} of {count} were read");
        assert!(shapes.len() > 3, "{name}: {} answers", shapes.len());
    }

    fn input(&self, rng: &mut SplitMix, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = if rng.one_in(2) { (self.write)(rng) } else { pool[rng.below(pool.len())].clone() };
        if rng.one_in(LARGE) && !bytes.is_empty() {
            bytes = inflate(rng, &bytes);
        } else {
            let changes = [0, 0, 1, 1, 1, 2, 4, 8][rng.below(8)];
            for _ in 0..changes {
                let other = &pool[rng.below(pool.len())];
                if bytes.is_empty() || other.is_empty() {
                    break;
                }
                mutate(rng, &mut bytes, other, self.tokens);
            }
        }
        if !rng.one_in(8) {
            (self.mend)(&mut bytes);
        }
        bytes
    }

    /// Runs one input and holds it against everything that is promised.
    fn check(&self, place: &mut Place, bytes: &[u8], seed: usize, at: usize) -> Answer {
        let failed = |what: &str| -> ! {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
            let path = dir.join(format!("{}-{seed}-{at}", self.entry.name));
            fs::create_dir_all(&dir).and_then(|()| fs::write(&path, bytes)).unwrap();
            panic!("{}: {what}; FUZZ_SEED={seed}, input {at} of {} bytes: {}", self.entry.name, bytes.len(), path.display());
        };
        let before = cpu::of_this_thread();
        let (result, memory) = most_during(|| catch_unwind(AssertUnwindSafe(|| (self.entry.run)(place, bytes))));
        let took = cpu::of_this_thread().saturating_sub(before);
        let Ok(result) = result else { failed("a panic") };
        if memory > most_memory(bytes.len()) {
            failed(&format!("{memory} bytes of memory"));
        }
        if took > Duration::from_secs(1) && bytes.len() < 1 << 20 {
            failed(&format!("{took:?} of the processor"));
        }
        let mut shape = DefaultHasher::new();
        let read = result.is_ok();
        let says = match &result {
            Ok(warnings) => warnings.clone(),
            Err(error) => {
                if ![2, 3, 4, 5, 6, 8].contains(&error.exit_code()) {
                    failed(&format!("exit code {}: {error}", error.exit_code()));
                }
                [Some(error.to_string()), error.hint().map(str::to_owned)].into_iter().flatten().collect()
            }
        };
        for line in &says {
            if line.chars().any(char::is_control) || line.len() > 8000 {
                failed(&format!("a message of {} bytes that is no clean line: {line:?}", line.len()));
            }
            shape_of(line).hash(&mut shape);
        }
        read.hash(&mut shape);
        Answer { read, shape: shape.finish(), memory, took }
    }
}

/// A message without its names and numbers.
fn shape_of(line: &str) -> String {
    line.split('`').step_by(2).flat_map(str::chars).filter(|c| !c.is_ascii_digit()).take(300).collect()
}
