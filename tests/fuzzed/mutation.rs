//! Changes to an input: bits, bytes, lengths, numbers, tokens, pieces of other inputs.

/// Numbers that lie at the ends of something.
const NUMBERS: [&str; 26] = [
    "0",
    "1",
    "-1",
    "2",
    "6",
    "16",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-0",
    "0.5",
    "1e-9",
    "NaN",
    "00",
];

/// The same stream for the same seed (Steele, Lea and Flood 2014).
#[derive(Clone)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Where a run of bytes of one sort (as `is` says) lies, from a random place on.
fn run(rng: &mut SplitMix, bytes: &[u8], is: fn(&u8) -> bool) -> Option<(usize, usize)> {
    let from = rng.below(bytes.len());
    let start = from + bytes[from..].iter().position(is)?;
    let end = bytes[start..].iter().position(|byte| !is(byte)).map_or(bytes.len(), |length| start + length);
    Some((start, end))
}

fn is_digit(byte: &u8) -> bool {
    byte.is_ascii_digit() || *byte == b'.'
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || *byte >= 0x80
}

/// Changes an input in one way.
pub(crate) fn mutate(rng: &mut SplitMix, bytes: &mut Vec<u8>, other: &[u8], tokens: &[&[u8]]) {
    let at = rng.below(bytes.len() + 1);
    let piece = |rng: &mut SplitMix, from: &[u8]| {
        let start = rng.below(from.len());
        from[start..(start + 1 + rng.below(64)).min(from.len())].to_vec()
    };
    match rng.below(14) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = rng.next() as u8,
        2 => {
            let end = (at + 1 + rng.below(32)).min(bytes.len());
            bytes.drain(at..end);
        }
        3 => {
            let piece = piece(rng, &bytes.clone());
            bytes.splice(at..at, piece);
        }
        4 => {
            let piece = piece(rng, other);
            bytes.splice(at..at, piece);
        }
        5 => {
            let rest = other[rng.below(other.len() + 1)..].to_vec();
            bytes.truncate(at);
            bytes.extend(rest);
        }
        6 if at + 8 <= bytes.len() => {
            let number = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX][rng.below(10)];
            let number = number.wrapping_add(rng.below(3) as u64).wrapping_sub(1).to_le_bytes();
            let width = [1, 2, 4, 8][rng.below(4)];
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        7 if at + 4 <= bytes.len() => {
            let place: &mut [u8] = &mut bytes[at..at + 2];
            let number = u16::from_le_bytes([place[0], place[1]]).wrapping_add(rng.below(64) as u16).wrapping_sub(32);
            place.copy_from_slice(&number.to_le_bytes());
        }
        8 | 9 => {
            if let Some((start, end)) = run(rng, bytes, is_digit) {
                bytes.splice(start..end, rng.pick(&NUMBERS).bytes());
            }
        }
        10 | 11 => {
            let token = rng.pick(tokens).to_vec();
            match run(rng, bytes, is_word) {
                Some((start, end)) => drop(bytes.splice(start..end, token)),
                None => bytes.extend(token),
            }
        }
        12 => {
            let token = rng.pick(tokens).to_vec();
            bytes.splice(at..at, token);
        }
        _ => {
            // One word for another.
            if let (Some(a), Some(b)) = (run(rng, bytes, is_word), run(rng, bytes, is_word)) {
                let word = bytes[b.0..b.1].to_vec();
                bytes.splice(a.0..a.1, word);
            }
        }
    }
}

/// A piece of an input so often that it has some hundred kilobytes, each time with another number in place of its first one.
pub(crate) fn inflate(rng: &mut SplitMix, bytes: &[u8]) -> Vec<u8> {
    const LONGEST: usize = 900_000;
    let (start, length) = (rng.below(bytes.len()), 1 + rng.below(120));
    let piece = bytes[start..(start + length).min(bytes.len())].to_vec();
    let digits = run(&mut SplitMix(0), &piece, |byte| byte.is_ascii_digit());
    let mut out = bytes[..start].to_vec();
    let size = LONGEST / (1 + rng.below(8));
    for number in 0_usize.. {
        if out.len() + piece.len() + bytes.len() + 16 >= size {
            break;
        }
        let mut next = piece.clone();
        if let Some((from, to)) = digits {
            next.splice(from..to, number.to_string().into_bytes());
        }
        if next.is_empty() {
            break;
        }
        out.extend(next);
    }
    out.extend(&bytes[start..]);
    out
}
