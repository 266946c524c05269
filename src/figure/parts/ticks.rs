//! Which ticks get a label, and where the labels go so that none covers another.

use crate::figure::scene::font;

/// Chooses the layers to label: all of them, or those divisible by the first of 2, 5, 10, 20, ... whose labels keep
/// `gap` between them. `cell` is the distance between two ticks, `extent` the length of a label along the axis.
/// Returns indices into `layers`, which are in rising order.
pub(crate) fn labelled_layers(layers: &[u32], cell: f64, gap: f64, extent: impl Fn(&str) -> f64) -> Vec<usize> {
    let half: Vec<f64> = layers.iter().map(|layer| extent(&layer.to_string()) / 2.0).collect();
    let apart = |chosen: &[usize]| {
        chosen.windows(2).all(|pair| {
            let &[a, b] = pair else { return true };
            (b - a) as f64 * cell >= half[a] + half[b] + gap
        })
    };
    let mut step: u32 = 1;
    loop {
        let chosen: Vec<usize> = (0..layers.len()).filter(|&k| layers[k].is_multiple_of(step)).collect();
        if !chosen.is_empty() && apart(&chosen) {
            return chosen;
        }
        let Some(next) = next_step(step) else { return if layers.is_empty() { Vec::new() } else { vec![0] } };
        step = next;
    }
}

/// Those of some ticks whose labels keep a gap between them; the last is one of them. Positions rise.
pub(crate) fn with_room(ticks: Vec<(f64, String)>, size: f64) -> Vec<(f64, String)> {
    const GAP: f64 = 4.0;
    let mut kept: Vec<(f64, String)> = Vec::new();
    let mut end = f64::INFINITY;
    for (at, label) in ticks.into_iter().rev() {
        let half = font::width(&label, size) / 2.0;
        if at + half + GAP <= end {
            end = at - half;
            kept.push((at, label));
        }
    }
    kept.reverse();
    kept
}

/// All of `count` positions, or every 2nd, 5th, 10th, ...: as many as have `room` each. `cell` is the distance between two
/// positions.
pub(crate) fn every(count: usize, cell: f64, room: f64) -> Vec<usize> {
    let mut step: u32 = 1;
    while f64::from(step) * cell < room && (step as usize) < count {
        let Some(next) = next_step(step) else { break };
        step = next;
    }
    (0..count).step_by(step as usize).collect()
}

/// The step after 1, 2, 5, 10, 20, 50, ...; `None` after the last that fits into the type.
fn next_step(step: u32) -> Option<u32> {
    let leading = step / 10_u32.pow(step.ilog10());
    if leading == 2 { (step / 2).checked_mul(5) } else { step.checked_mul(2) }
}

/// Round numbers from `lo` to `hi`, at most `most` of them (at least 2), with the decimals that tell them apart.
pub(crate) fn round_ticks(lo: f64, hi: f64, most: usize) -> Vec<(f64, String)> {
    let span = hi - lo;
    if !span.is_finite() || span <= 0.0 {
        return vec![(lo, number(lo, 2))];
    }
    let rough = span / (most.max(2) - 1) as f64;
    if !rough.is_normal() {
        return vec![(lo, number(lo, 2))];
    }
    let power = 10_f64.powf(rough.log10().floor());
    // The smallest of 1, 2, 5 and 10 times a power of ten that gives no more than `most` ticks.
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough * 0.999_999).unwrap_or(rough);
    let decimals = (-(step * 1.000_001).log10().floor()).max(0.0) as usize;
    let (first, last) = ((lo / step - 1e-6).ceil() as i64, (hi / step + 1e-6).floor() as i64);
    (first..=last).map(|k| k as f64 * step).map(|value| (value, number(value, decimals))).collect()
}

/// A number with a typographic minus sign, and no sign before zero.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|b| matches!(b, b'0' | b'.')) => digits.to_owned(),
        Some(digits) => format!("−{digits}"),
        None => text,
    }
}

/// Moves `wanted` positions (in rising order) apart by at least `gap`, as little as possible (by least squares: a group that has
/// to be moved stays centred on its own mean), and into `lo..=hi` if there is room for all.
pub(crate) fn spread(wanted: &[f64], gap: f64, lo: f64, hi: f64) -> Vec<f64> {
    // p_k - k·gap must not decrease, which is isotonic regression: neighbours that violate it are pooled and get their mean.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (rank, position) in wanted.iter().enumerate() {
        let mut pool = (position - rank as f64 * gap, 1);
        while let Some(&(mean, count)) = pools.last() {
            if mean <= pool.0 {
                break;
            }
            pools.pop();
            pool = ((mean * count as f64 + pool.0 * pool.1 as f64) / (count + pool.1) as f64, count + pool.1);
        }
        pools.push(pool);
    }
    let top = hi - wanted.len().saturating_sub(1) as f64 * gap;
    pools
        .into_iter()
        .flat_map(|(mean, count)| std::iter::repeat_n(mean, count))
        .enumerate()
        .map(|(rank, mean)| mean.min(top).max(lo) + rank as f64 * gap)
        .collect()
}

/// Width of the widest label.
pub(crate) fn widest<'a>(labels: impl IntoIterator<Item = &'a str>, size: f64) -> f64 {
    labels.into_iter().map(|label| font::width(label, size)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(label: &str) -> f64 {
        font::width(label, 10.0)
    }

    #[test]
    fn labels_without_room_are_left_out() {
        let ticks = |at: &[f64]| at.iter().map(|at| (*at, "16".to_owned())).collect::<Vec<_>>();
        let width = extent("16");
        assert_eq!(with_room(ticks(&[0.0, width + 4.1, 50.0]), 10.0), ticks(&[0.0, width + 4.1, 50.0]));
        assert_eq!(with_room(ticks(&[0.0, width + 3.9, 2.0 * width + 7.8]), 10.0), ticks(&[0.0, 2.0 * width + 7.8]));
        assert!(with_room(Vec::new(), 10.0).is_empty());
    }

    #[test]
    fn names_are_thinned_evenly() {
        assert_eq!(every(3, 12.0, 12.0), [0, 1, 2]);
        assert_eq!(every(5, 7.0, 12.0), [0, 2, 4]);
        assert_eq!(every(12, 1.5, 12.0), [0, 10]);
        assert_eq!(every(7, 0.5, 12.0), [0]);
        assert!(every(0, 1.0, 12.0).is_empty());
    }

    #[test]
    fn layer_labels_never_touch() {
        for count in 1..=128_u32 {
            let layers: Vec<u32> = (0..count).collect();
            let cell = 400.0 / f64::from(count);
            let chosen = labelled_layers(&layers, cell, 4.0, extent);
            assert!(!chosen.is_empty());
            for pair in chosen.windows(2) {
                let room = (pair[1] - pair[0]) as f64 * cell;
                let need = extent(&layers[pair[0]].to_string()) / 2.0 + extent(&layers[pair[1]].to_string()) / 2.0 + 4.0;
                assert!(room >= need, "{count} layers");
            }
        }
    }

    #[test]
    fn few_layers_are_all_labelled_and_many_at_round_numbers() {
        let all: Vec<u32> = (0..12).collect();
        assert_eq!(labelled_layers(&all, 34.0, 4.0, extent).len(), 12);
        let many: Vec<u32> = (0..80).collect();
        assert_eq!(labelled_layers(&many, 2.5, 4.0, extent), [0, 10, 20, 30, 40, 50, 60, 70]);
    }

    #[test]
    fn gaps_in_the_layer_numbers_are_kept() {
        assert_eq!(labelled_layers(&[0, 1, 7, 30], 60.0, 4.0, extent), [0, 1, 2, 3]);
        // If no layer is divisible by a step that fits, the first is labelled, so that there is one label and no collision.
        assert_eq!(labelled_layers(&[4_294_967_291, 4_294_967_295], 1.0, 4.0, extent).len(), 1);
        assert!(labelled_layers(&[], 1.0, 4.0, extent).is_empty());
    }

    #[test]
    fn ticks_are_round() {
        let labels = |lo, hi, most| round_ticks(lo, hi, most).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(labels(0.0, 1.0, 6), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.0, 0.104, 7), ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10"]);
        assert_eq!(labels(-4.0, 4.0, 5), ["−4", "−2", "0", "2", "4"]);
        assert_eq!(labels(0.0, 0.0, 5), ["0.00"]);
        assert_eq!(number(-0.004, 2), "0.00");
        for hi in [1e-9, 0.0123, 0.5, 3.0, 1e7] {
            let ticks = round_ticks(0.0, hi, 6);
            assert!((2..=6).contains(&ticks.len()), "{hi}: {ticks:?}");
        }
    }

    #[test]
    fn labels_are_moved_apart_and_stay_inside() {
        let placed = spread(&[10.0, 11.0, 50.0], 12.0, 0.0, 100.0);
        assert!(placed.windows(2).all(|p| p[1] - p[0] >= 12.0 - 1e-9));
        assert!((placed[0] + placed[1] - 21.0).abs() < 1e-9 && placed[2] == 50.0);
        let at_the_edge = spread(&[99.0, 100.0, 100.0], 12.0, 0.0, 100.0);
        assert_eq!(at_the_edge, [76.0, 88.0, 100.0]);
        assert_eq!(spread(&[-5.0], 12.0, 0.0, 100.0), [0.0]);
        assert!(spread(&[], 12.0, 0.0, 100.0).is_empty());
    }
}
