//! The study's question and what the averages answer: over all adapters, for each, and row by row.

use std::collections::BTreeMap;

use serde::Serialize;

use super::text::{self, MatrixLabel, Number, count};
use super::verdict::{Answer, SIGNIFICANT, Verdict, after_holm, draws_for_holm, smallest_p};
use crate::table::SummaryRow;
use crate::terms::{MatrixKind, Side};

/// With more adapters than this the first table has one row for each module and matrix, over all adapters.
const MOST_SINGLE: usize = 6;
/// With more rows than this it has as well: an adapter may have many modules.
const MOST_ROWS: usize = 120;

/// The page's first section.
#[derive(Debug, Serialize)]
pub(super) struct AnswerView {
    /// The answer in one sentence.
    headline: String,
    /// What it rests on, sentence by sentence.
    grounds: Vec<String>,
    /// A table for each adapter's rows; empty for very many.
    adapters: Vec<AdapterAnswer>,
    /// One row for all adapters; empty for few.
    pooled: Vec<PooledRow>,
    pub(super) with_side: bool,
    pub(super) with_pair: bool,
    pub(super) with_base: bool,
    with_init: bool,
}

/// What an adapter's rows come to.
#[derive(Debug, Serialize)]
struct AdapterAnswer {
    name: String,
    sentence: String,
    rows: Vec<RowView>,
}

/// One average beside its controls.
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

/// What is counted of several verdicts.
#[derive(Debug, Default)]
struct Tally {
    /// Averages with a value.
    averages: usize,
    above_chance: usize,
    higher_untested: usize,
    not_above_chance: usize,
    p_values: Vec<f64>,
    above_base: usize,
    too_few: usize,
}

impl Tally {
    fn of<'r>(rows: impl Iterator<Item = (&'r SummaryRow, &'r Verdict)>) -> Self {
        let mut tally = Self::default();
        for (row, verdict) in rows {
            if verdict.chance == Answer::None && verdict.base == Answer::None {
                continue;
            }
            tally.averages += 1;
            match verdict.chance {
                Answer::More => tally.above_chance += 1,
                Answer::HigherUntested => tally.higher_untested += 1,
                _ => tally.not_above_chance += 1,
            }
            match verdict.base {
                Answer::More => tally.above_base += 1,
                Answer::TooFewDraws => tally.too_few += 1,
                _ => {}
            }
            if verdict.base != Answer::None {
                tally.p_values.extend(row.w0_p);
            }
        }
        tally
    }

    /// `6 of 6`, or `all 6`.
    fn share(part: usize, whole: usize) -> String {
        match part {
            0 => format!("none of {}", text::thousands(whole)),
            part if part == whole && whole > 1 => format!("all {}", text::thousands(whole)),
            _ => format!("{} of {}", text::thousands(part), text::thousands(whole)),
        }
    }

    fn chance_sentence(&self) -> Option<String> {
        let Self { averages, above_chance, higher_untested, .. } = *self;
        if averages == 0 {
            return None;
        }
        Some(if higher_untested > 0 && above_chance == 0 {
            let share = Self::share(higher_untested, averages);
            format!(
                "{} averages {} higher than the expected chance value; too few draws test that.",
                capital(&share),
                verb(higher_untested)
            )
        } else {
            let share = Self::share(above_chance, averages);
            format!("{} averages {} more than chance.", capital(&share), verb(above_chance))
        })
    }

    fn base_sentence(&self, draws: u64) -> Option<String> {
        let tested = self.p_values.len();
        if tested == 0 {
            return None;
        }
        if self.too_few > 0 {
            return Some(format!(
                "{} cannot give a p below {}: too few to tell anything from the base model alone.",
                capital(&count(usize::try_from(draws).unwrap_or(usize::MAX), "draw")),
                text::p(smallest_p(draws)),
            ));
        }
        let least = self.p_values.iter().copied().fold(1.0, f64::min);
        Some(format!(
            "{} {} more than the base model alone at p < {SIGNIFICANT} (smallest p {}).",
            capital(&Self::share(self.above_base, tested)),
            verb(self.above_base),
            text::p(least),
        ))
    }
}

/// Of `none of 6` and `1 of 6`, or of `2 of 6`.
fn verb(part: usize) -> &'static str {
    if part < 2 { "is" } else { "are" }
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

impl AnswerView {
    /// The answers of a summary whose controls were drawn `draws` times.
    pub(super) fn of(summary: &[SummaryRow], draws: u64) -> Self {
        let judged: Vec<(&SummaryRow, Verdict)> = summary.iter().map(|row| (row, Verdict::of(row, draws))).collect();
        let all = Tally::of(judged.iter().map(|(row, verdict)| (*row, verdict)));
        let mut blocks: Vec<&[(&SummaryRow, Verdict)]> = judged.chunk_by(|a, b| a.0.adapter == b.0.adapter).collect();
        let few = blocks.len() <= MOST_SINGLE && summary.len() <= MOST_ROWS;
        if !few {
            blocks.clear();
        }
        let end = blocks.iter().copied().flatten().filter_map(|(row, _)| largest(row)).fold(0.0, f64::max);
        Self {
            headline: headline(&all, summary),
            grounds: grounds(&all, summary, draws),
            adapters: blocks.iter().map(|block| AdapterAnswer::of(block, draws, end)).collect(),
            pooled: if few { Vec::new() } else { pooled(&judged) },
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

impl AdapterAnswer {
    fn of(block: &[(&SummaryRow, Verdict)], draws: u64, end: f64) -> Self {
        let tally = Tally::of(block.iter().map(|(row, verdict)| (*row, verdict)));
        let sentences = [tally.chance_sentence(), tally.base_sentence(draws)];
        let sentence = sentences.into_iter().flatten().collect::<Vec<_>>().join(" ");
        Self {
            name: block.first().map_or_else(String::new, |(row, _)| text::visible(&row.adapter)),
            sentence: if sentence.is_empty() { "No average to judge.".to_owned() } else { sentence },
            rows: block.iter().map(|(row, verdict)| RowView::of(row, verdict, end)).collect(),
        }
    }
}

impl RowView {
    fn of(row: &SummaryRow, verdict: &Verdict, end: f64) -> Self {
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

/// The answer in one sentence.
fn headline(all: &Tally, summary: &[SummaryRow]) -> String {
    if all.averages == 0 {
        return "No average over pairs of layers could be judged.".to_owned();
    }
    let chance = match all {
        Tally { averages, above_chance, .. } if above_chance == averages => "More than chance",
        Tally { above_chance: 0, higher_untested: 0, .. } => "Not shown to be more than chance",
        Tally { above_chance: 0, .. } => "Higher than the chance value, untested",
        _ => "Partly more than chance",
    };
    let tested = all.p_values.len();
    let holm = after_holm(&all.p_values);
    if summary.iter().all(|row| row.matrix.is_factor()) {
        return format!("{chance}. The factors were compared without W0, so the base model has no part in it.");
    }
    let base = match () {
        () if tested == 0 => "what the base model alone gives was not drawn".to_owned(),
        () if all.too_few > 0 => "too few draws to tell it from the base model alone".to_owned(),
        () if holm > 0 && holm == tested => "more than the base model alone gives".to_owned(),
        () if holm > 0 => format!("in {} of {tested} averages more than the base model alone gives", text::thousands(holm)),
        () if all.above_base > 0 => {
            "not clearly more than the base model alone gives: no average holds among so many comparisons".to_owned()
        }
        () => "not shown to be more than the base model alone gives".to_owned(),
    };
    let joined = if chance == "More than chance" && holm == 0 { ", but " } else { "; " };
    format!("{chance}{joined}{base}.")
}

/// What the headline rests on.
fn grounds(all: &Tally, summary: &[SummaryRow], draws: u64) -> Vec<String> {
    let mut said: Vec<String> = [all.chance_sentence(), all.base_sentence(draws)].into_iter().flatten().collect();
    let tested = all.p_values.len();
    if tested > 1 && all.too_few == 0 {
        let by_chance = SIGNIFICANT * tested as f64;
        let mut line = format!(
            "With {tested} comparisons about {by_chance:.1} would fall below {SIGNIFICANT} by chance alone; after Holm's correction {} stay.",
            match after_holm(&all.p_values) {
                0 => "none".to_owned(),
                some => text::thousands(some),
            }
        );
        if smallest_p(draws) * tested as f64 >= SIGNIFICANT {
            line.push_str(&format!(
                " {draws} draws give no p below {}, so none could: that takes --null-draws {} or more.",
                text::p(smallest_p(draws)),
                text::thousands(usize::try_from(draws_for_holm(tested)).unwrap_or(usize::MAX)).replace(',', ""),
            ));
        }
        said.push(line);
    }
    if all.too_few > 0 {
        said.push("A p below 0.05 takes --null-draws 20 or more.".to_owned());
    }
    if all.p_values.iter().any(|p| *p >= SIGNIFICANT) {
        said.push("Not being shown to be more is no proof of being no more.".to_owned());
    }
    let silent = summary.len() - all.averages;
    if silent > 0 {
        said.push(format!("{} {} no answer.", capital(&text::count(silent, "row")), if silent == 1 { "gives" } else { "give" }));
    }
    said
}

/// One row for each module, matrix, side and pair, over all adapters.
fn pooled(judged: &[(&SummaryRow, Verdict)]) -> Vec<PooledRow> {
    type Key<'r> = (&'r str, MatrixKind, Side, usize, usize);
    let mut groups: BTreeMap<Key<'_>, Vec<&(&SummaryRow, Verdict)>> = BTreeMap::new();
    for one in judged {
        let row = one.0;
        groups.entry((row.module.as_str(), row.matrix, row.side, row.i, row.j)).or_default().push(one);
    }
    let one = |((module, matrix, side, i, j), members): (Key<'_>, Vec<&(&SummaryRow, Verdict)>)| {
        let tally = Tally::of(members.iter().map(|(row, verdict)| (*row, verdict)));
        let values = |field: fn(&SummaryRow) -> Option<f64>| {
            let mut all: Vec<f64> = members.iter().filter_map(|(row, _)| field(row)).filter(|value| value.is_finite()).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let phi = values(|row| row.phi_mean);
        let of = |part: usize, whole: usize| format!("{} of {}", text::thousands(part), text::thousands(whole));
        let tested = tally.p_values.len();
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
            above_chance: if tally.averages == 0 {
                String::new()
            } else {
                match (tally.above_chance, tally.higher_untested) {
                    (0, untested) if untested > 0 => of(untested, tally.averages) + " higher, untested",
                    (above, _) => of(above, tally.averages),
                }
            },
            base: number(&values(|row| row.w0_mean)),
            above_base: match tested {
                0 => String::new(),
                _ if tally.too_few > 0 => "too few draws".to_owned(),
                _ => of(tally.above_base, tested),
            },
            after_holm: if tested == 0 || tally.too_few > 0 { String::new() } else { of(after_holm(&tally.p_values), tested) },
        }
    };
    groups.into_iter().map(one).collect()
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { 0.5 * (sorted.get(middle.checked_sub(1)?)? + upper) })
}
