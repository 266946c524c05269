//! The study's question and its answer, in the words of [`crate::verdict`]: over all adapters, for each adapter, and for each row.

use serde::Serialize;

use super::text::{self, MatrixLabel, Number};
use crate::table::{SummaryRow, Tables, gather};
use crate::terms::{MatrixKind, NullDraws, Side};
use crate::verdict::{Answer, MapAnswer, MapVerdict, RowVerdict, RunVerdict, Tally, capital};

/// With more adapters than this the first table has one row for each module and matrix, over all adapters.
const MOST_SINGLE: usize = 6;
/// The same applies with more rows than this, because an adapter may have many modules.
const MOST_ROWS: usize = 120;

/// The page's first section.
#[derive(Debug, Serialize)]
pub(super) struct AnswerView {
    /// The answer in one sentence.
    headline: String,
    /// The reasons for it, one sentence each.
    grounds: Vec<String>,
    /// A table for each adapter's rows; empty for very many.
    adapters: Vec<AdapterAnswer>,
    /// The tests of the question whether layers share a linear map; empty for very many.
    shared: Vec<SharedRow>,
    /// Whether they are of more than one adapter.
    shared_of_many: bool,
    /// Whether the strict control was drawn.
    with_strict: bool,
    /// One row for all adapters; empty for few.
    pooled: Vec<PooledRow>,
    pub(super) with_side: bool,
    pub(super) with_pair: bool,
    pub(super) with_base: bool,
    with_init: bool,
}

/// The combined answer of an adapter's rows.
#[derive(Debug, Serialize)]
struct AdapterAnswer {
    name: String,
    sentence: String,
    rows: Vec<RowView>,
}

/// One average with its controls.
#[derive(Debug, Serialize)]
struct RowView {
    module: String,
    matrix: MatrixLabel,
    side: &'static str,
    pair: String,
    phi: Option<Number>,
    chance: Option<String>,
    base: Option<String>,
    z: Option<Number>,
    p: Option<Number>,
    init: Option<Number>,
    words: String,
    tone: &'static str,
    strip: Option<Strip>,
}

/// One test of the question whether layers share a linear map.
#[derive(Debug, Serialize)]
struct SharedRow {
    adapter: String,
    module: String,
    factor: &'static str,
    phi: Option<Number>,
    base: Option<String>,
    strict: Option<String>,
    p: Option<Number>,
    draws: String,
    words: &'static str,
    tone: &'static str,
}

impl SharedRow {
    fn of(map: &MapVerdict) -> Self {
        let row = &map.row;
        let number = |value: Option<f64>, write: fn(f64) -> String| value.and_then(|value| Number::new(value, write));
        Self {
            adapter: text::visible(&row.adapter),
            module: text::visible(&row.module),
            factor: row.matrix.name(),
            phi: number(row.phi_mean, text::phi),
            base: text::mean_and_sd(row.w0_mean, row.w0_sd),
            strict: text::mean_and_sd(row.flip_mean, row.flip_sd),
            p: number(row.flip_p, text::p),
            draws: row.flip_draws.map_or_else(String::new, text::thousands),
            words: map.answer.words(),
            tone: if map.answer == MapAnswer::Shared { "beyond" } else { "quiet" },
        }
    }
}

/// Where the average lies between its controls, as lengths in a drawing that is 120 wide.
#[derive(Debug, Serialize)]
struct Strip {
    observed: String,
    chance: Option<String>,
    base: Option<String>,
    band: Option<(String, String)>,
}

/// One module and matrix over all adapters.
#[derive(Debug, Serialize)]
struct PooledRow {
    module: String,
    matrix: MatrixLabel,
    side: &'static str,
    pair: String,
    adapters: String,
    median: Option<Number>,
    range: Option<String>,
    chance: Option<Number>,
    above_chance: String,
    base: Option<Number>,
    above_base: String,
    after_holm: String,
}

impl AnswerView {
    /// The answers of a summary whose controls were drawn `draws` times.
    pub(super) fn of(tables: &Tables, draws: NullDraws) -> Self {
        let (summary, verdict) = (&tables.summary[..], RunVerdict::of_study(tables, draws));
        let few = summary.chunk_by(|a, b| a.adapter == b.adapter).count() <= MOST_SINGLE && summary.len() <= MOST_ROWS;
        let told = verdict.maps.iter().filter(|map| few && map.answer != MapAnswer::None);
        Self {
            shared: told.map(SharedRow::of).collect(),
            shared_of_many: summary.iter().any(|row| row.adapter != summary[0].adapter),
            with_strict: verdict.maps.iter().any(|map| map.row.flip_mean.is_some()),
            adapters: if few { by_adapter(summary, &verdict) } else { Vec::new() },
            pooled: if few { Vec::new() } else { pooled(summary, &verdict) },
            headline: verdict.headline,
            grounds: verdict.grounds,
            with_side: summary.iter().any(|row| row.side != Side::Left),
            with_pair: summary.windows(2).any(|pair| (pair[0].i, pair[0].j) != (pair[1].i, pair[1].j)),
            with_base: summary.iter().any(|row| !row.matrix.is_factor()),
            with_init: summary.iter().any(|row| row.init_mean.is_some()),
        }
    }
}

/// The largest value that a row's strip shows.
fn largest(row: &SummaryRow) -> Option<f64> {
    let band = row.w0_mean.map(|mean| mean + 2.0 * row.w0_sd.unwrap_or(0.0));
    [row.phi_mean, row.gaussian_expected, band].into_iter().flatten().reduce(f64::max)
}

/// A table for each adapter, all with the same scale.
fn by_adapter(summary: &[SummaryRow], verdict: &RunVerdict) -> Vec<AdapterAnswer> {
    let end = summary.iter().filter_map(largest).fold(0.0, f64::max);
    let mut rest = verdict.rows.as_slice();
    let one = |block: &[SummaryRow]| {
        let (judged, after) = rest.split_at(block.len());
        rest = after;
        let sentence = verdict.text_of(judged);
        AdapterAnswer {
            name: text::visible(&block[0].adapter),
            sentence: if sentence.is_empty() { "No average to judge.".to_owned() } else { sentence },
            rows: block.iter().zip(judged).map(|(row, verdict)| RowView::of(row, verdict, end)).collect(),
        }
    };
    summary.chunk_by(|a, b| a.adapter == b.adapter).map(one).collect()
}

impl RowView {
    fn of(row: &SummaryRow, verdict: &RowVerdict, end: f64) -> Self {
        let number = |value: Option<f64>, write: fn(f64) -> String| value.and_then(|value| Number::new(value, write));
        let chance = text::mean_and_sd(row.gaussian_mean.or(row.gaussian_expected), row.gaussian_sd);
        Self {
            module: text::visible(&row.module),
            matrix: MatrixLabel::of(row.matrix),
            side: row.side.name(),
            pair: format!("{}, {}", row.i, row.j),
            phi: number(row.phi_mean, text::phi),
            chance,
            base: text::mean_and_sd(row.w0_mean, row.w0_sd),
            z: number(row.w0_z, text::signed),
            p: number(row.w0_p, text::p),
            init: number(row.init_mean, text::phi),
            words: capital(&verdict.words),
            tone: match (verdict.chance, verdict.base) {
                (_, Answer::More) => "beyond",
                (Answer::More, _) => "chance",
                _ => "quiet",
            },
            strip: Strip::of(row, end),
        }
    }
}

impl Strip {
    fn of(row: &SummaryRow, end: f64) -> Option<Self> {
        let at = |value: f64| format!("{:.1}", 4.0 + 112.0 * (value / end).clamp(0.0, 1.0));
        let observed = row.phi_mean.filter(|phi| phi.is_finite() && end > 0.0)?;
        let band = row.w0_mean.zip(row.w0_sd).map(|(mean, sd)| {
            let (from, to) = ((mean - 2.0 * sd).max(0.0) / end, (mean + 2.0 * sd) / end);
            (at(from * end), format!("{:.1}", (112.0 * (to.min(1.0) - from)).max(1.0)))
        });
        let chance = row.gaussian_mean.or(row.gaussian_expected).map(at);
        Some(Self { observed: at(observed), chance, base: row.w0_mean.map(at), band })
    }
}

/// One row for each module, matrix, side and pair, over all adapters.
fn pooled(summary: &[SummaryRow], verdict: &RunVerdict) -> Vec<PooledRow> {
    type Key<'r> = (&'r str, MatrixKind, Side, usize, usize);
    fn key<'r>((row, _): &(&'r SummaryRow, &RowVerdict)) -> Key<'r> {
        (row.module.as_str(), row.matrix, row.side, row.i, row.j)
    }
    let mut groups = gather(summary.iter().zip(&verdict.rows), key);
    groups.sort_by_key(|(key, _)| *key);
    let one = |((module, matrix, side, i, j), members): (Key<'_>, Vec<(&SummaryRow, &RowVerdict)>)| {
        let tally = Tally::of(members.iter().map(|(_, verdict)| *verdict));
        let values = |field: fn(&SummaryRow) -> Option<f64>| {
            let mut all: Vec<f64> = members.iter().filter_map(|(row, _)| field(row)).filter(|value| value.is_finite()).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let phi = values(|row| row.phi_mean);
        let of = |part: usize, whole: usize| format!("{} of {}", text::thousands(part), text::thousands(whole));
        let number = |values: &[f64]| median(values).and_then(|value| Number::new(value, text::phi));
        PooledRow {
            module: text::visible(module),
            matrix: MatrixLabel::of(matrix),
            side: side.name(),
            pair: format!("{i}, {j}"),
            adapters: text::thousands(members.len()),
            median: number(&phi),
            range: phi.first().zip(phi.last()).map(|(low, high)| format!("{} to {}", text::phi(*low), text::phi(*high))),
            chance: number(&values(|row| row.gaussian_mean.or(row.gaussian_expected))),
            above_chance: match (tally.chance_tested, tally.averages) {
                (_, 0) => String::new(),
                (0, averages) => of(tally.higher_untested, averages) + " higher, untested",
                (tested, _) => of(tally.more_than_chance, tested),
            },
            base: number(&values(|row| row.w0_mean)),
            above_base: match tally.base_tested {
                0 => String::new(),
                _ if tally.too_few_draws > 0 => "too few draws".to_owned(),
                tested => of(tally.significant(), tested),
            },
            after_holm: match tally.base_tested {
                tested if tested == 0 || tally.too_few_draws > 0 => String::new(),
                tested => of(tally.more_than_base, tested),
            },
        }
    };
    groups.into_iter().map(one).collect()
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { 0.5 * (sorted.get(middle.checked_sub(1)?)? + upper) })
}
