//! What several tests with few draws can show together.

/// A p below this is an answer.
pub(crate) const SIGNIFICANT: f64 = 0.05;

/// The smallest p that this many draws can give: the observation counts as one of them.
pub(super) fn smallest_p(draws: usize) -> f64 {
    1.0 / (draws as f64 + 1.0)
}

/// How many draws it takes for one of this many comparisons to be able to pass Holm's procedure.
pub(super) fn draws_for_holm(comparisons: usize) -> usize {
    // The smallest m with comparisons/(m + 1) < 1/20, the level that SIGNIFICANT is.
    20 * comparisons
}

/// Which of these p stay below the level by Holm's procedure, which holds for dependent tests too.
///
/// Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
pub(super) fn holm(p_values: &[f64]) -> Vec<bool> {
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The smallest p is multiplied by the number of tests, the next by one less, and so on until one fails. Of equal p the later
    // ones have the smaller factor, so that all of them stay or none does, and the largest that stays tells the rest.
    let staying = sorted.iter().enumerate().take_while(|(k, p)| is_below(**p * (sorted.len() - k) as f64));
    let largest = staying.map(|(_, p)| *p).last();
    p_values.iter().map(|p| largest.is_some_and(|largest| *p <= largest)).collect()
}

/// Below the level, and not by the rounding of a product that would be the level itself (3 · 1/60).
fn is_below(value: f64) -> bool {
    value < SIGNIFICANT * (1.0 - 1e-12)
}

/// The probability that a further draw lies this many standard deviations above the mean of `draws` others, if draws are normal.
///
/// Mean and deviation are estimated from the draws, so it is the upper tail of Student's t at z/√(1 + 1/draws) with draws − 1 degrees
/// of freedom. The normal distribution claims too much for 20 draws: it gives 1 in 741 for 3 deviations, Student's t 1 in 231.
pub(super) fn upper_tail(z: f64, draws: usize) -> f64 {
    assert!(draws >= 2, "one draw has no deviation");
    let t = z / (1.0 + 1.0 / draws as f64).sqrt();
    // With more degrees the tail is a little lighter, so that the limit is on the safe side; it limits the number of terms of the sum.
    student_tail(t, (draws - 1).min(1000))
}

/// Upper tail of Student's t: (1 − A)/2, with A the share within ±t.
///
/// Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4. With tan θ = t/√ν,
/// A = 2/π·(θ + sin θ·cos θ·(1 + 2/3·cos²θ + 2·4/(3·5)·cos⁴θ + ...)) for odd ν, sin θ·(1 + 1/2·cos²θ + 1·3/(2·4)·cos⁴θ + ...) for even ν.
fn student_tail(t: f64, degrees: usize) -> f64 {
    let theta = (t / (degrees as f64).sqrt()).atan();
    let (sin, cos) = theta.sin_cos();
    let is_odd = degrees % 2 == 1;
    let (mut term, mut sum) = (1.0, 0.0);
    for k in 0..(degrees - usize::from(is_odd)) / 2 {
        sum += term;
        let (above, below) = if is_odd { (2 * k + 2, 2 * k + 3) } else { (2 * k + 1, 2 * k + 2) };
        term *= cos * cos * above as f64 / below as f64;
    }
    let within = if is_odd { std::f64::consts::FRAC_2_PI * (theta + sin * cos * sum) } else { sin * sum };
    (0.5 * (1.0 - within)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_by_hand() {
        // 4 tests: 0.01 < 0.05/4, 0.015 < 0.05/3, 0.03 > 0.05/2; 0.04 is not examined any more.
        assert_eq!(holm(&[0.03, 0.01, 0.04, 0.015]), [false, true, false, true]);
        assert_eq!(holm(&[0.0125]), [true]);
        assert_eq!(holm(&[0.05]), [false]);
        assert_eq!(holm(&[]), Vec::<bool>::new());
        assert_eq!(holm(&[0.02, 0.02, 0.9]), [false; 3]);
        assert_eq!(holm(&[0.01, 0.01, 0.9]), [true, true, false]);
        // 3/60 is the level itself, also after rounding.
        assert_eq!(holm(&[1.0 / 60.0; 3]), [false; 3]);
        assert_eq!(holm(&[1.0 / 61.0; 3]), [true; 3]);
    }

    #[test]
    fn the_draws_that_holm_takes_are_just_enough() {
        for comparisons in [1, 2, 18, 300] {
            let draws = draws_for_holm(comparisons);
            assert!(holm(&vec![smallest_p(draws); comparisons]).iter().all(|stays| *stays));
            assert!(holm(&vec![smallest_p(draws - 1); comparisons]).iter().all(|stays| !stays));
        }
    }

    #[test]
    fn tails_of_student_are_those_of_the_tables() {
        for (t, degrees, tail) in [
            (6.314, 1, 0.05),
            (2.920, 2, 0.05),
            (2.262, 9, 0.025),
            (2.093, 19, 0.025),
            (2.861, 19, 0.005),
            (3.883, 19, 0.0005),
            (3.850, 20, 0.0005),
            (2.626, 100, 0.005),
        ] {
            let off = student_tail(t, degrees) / tail - 1.0;
            assert!(off.abs() < 2e-3, "{t}, {degrees}: {off}");
        }
        assert!((student_tail(-2.262, 9) - 0.975).abs() < 1e-4 && (student_tail(0.0, 9) - 0.5).abs() < 1e-15);
        assert!(student_tail(300.0, 19) < 1e-15);
        assert!((upper_tail(3.0, 20) - 1.0 / 231.5).abs() < 1e-5 && (upper_tail(3.0, 100_000) - 0.001_383).abs() < 2e-5);
    }
}
