//! Streams of Gaussian numbers, each derived from its purpose.
//!
//! A stream depends on a seed and a label, never on which thread draws it or what was drawn before. BLAKE3 of the label makes the key, because
//! labels hold names of any length and no two of them may share a stream; ChaCha8 makes the numbers, because its output for a key is fixed by a
//! specification, so that a control has the same draws on every machine.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The first `length` standard normal numbers of the stream of `seed` and `label`.
///
/// The parts of the label are kept apart, so that no two different labels share a stream.
#[must_use]
pub fn normal_stream(seed: u64, label: &[&[u8]], length: usize) -> Vec<f64> {
    let mut key = blake3::Hasher::new_derive_key("condlora 2026 Gaussian streams v1");
    key.update(&seed.to_le_bytes());
    for part in label {
        key.update(&(part.len() as u64).to_le_bytes());
        key.update(part);
    }
    let mut rng = ChaCha8Rng::from_seed(*key.finalize().as_bytes());
    StandardNormal.sample_iter(&mut rng).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_their_label_alone() {
        let a = normal_stream(0, &[b"x", b"y"], 1000);
        assert_eq!(a, normal_stream(0, &[b"x", b"y"], 1000));
        assert_eq!(a[..10], normal_stream(0, &[b"x", b"y"], 10)[..]);
        assert_ne!(a, normal_stream(1, &[b"x", b"y"], 1000));
        assert_ne!(a, normal_stream(0, &[b"xy", b""], 1000));
    }

    #[test]
    fn the_numbers_are_standard_normal() {
        let x = normal_stream(3, &[b"test"], 200_000);
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| v * v).sum::<f64>() / n;
        let fourth = x.iter().map(|v| v.powi(4)).sum::<f64>() / n;
        // Five standard errors each: 1/sqrt(n), sqrt(2/n), sqrt(96/n).
        assert!(mean.abs() < 5.0 / n.sqrt() && (variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!((fourth - 3.0).abs() < 5.0 * (96.0 / n).sqrt());
    }
}
