//! `report.html`: the answer to a study's question, its tables, heatmaps and provenance, in one page that needs no other file.
//!
//! This module reads only rows and the manifest. The page is made of `page.html`, `report.css` and `report.js` in this folder; every text goes
//! through the template's escaping, and a policy in the page forbids it the network and any script but ours. The same rows and
//! inputs give the same bytes: the page contains no time, no thread count and no output path.
//!
//! A page stays small for any study: tables are cut, only the first adapters are drawn, and long CSVs are left out of it. The
//! bounds are constants of the modules that apply them.

mod answer;
mod downloads;
mod listing;
mod maps;
mod provenance;
mod text;

use std::collections::BTreeSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

use self::answer::AnswerView;
use self::downloads::{Download, downloads};
use self::listing::Listing;
use self::maps::MapsView;
use self::provenance::{Provenance, study_options};
use crate::error::{Error, Result};
use crate::figure::FigureContext;
use crate::figure::embedded::cell_colours;
use crate::output::Manifest;
use crate::record::only_base_name;
use crate::table::Tables;
use crate::terms::NullDraws;

/// The page's name in an output directory.
pub const REPORT_FILE: &str = "report.html";

/// The largest number of warnings that are listed.
const MOST_WARNINGS: usize = 200;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Everything the template is given, except the numbers for the script.
#[derive(Debug, Serialize)]
struct Page {
    title: String,
    facts: Vec<String>,
    draws: usize,
    seed: Option<u64>,
    version: String,
    answer: AnswerView,
    warnings: Vec<String>,
    more_warnings: Option<String>,
    maps: MapsView,
    listings: Vec<Listing>,
    downloads: Vec<Download>,
    provenance: Provenance,
}

/// The page of a study, from its rows and their origin according to its manifest. Output hashes, times and threads are not used.
///
/// # Errors
/// [`Error::Shape`] if a picture cannot be encoded or the template fails, which would be a bug.
pub fn report_html(tables: &Tables, manifest: &Manifest) -> Result<Vec<u8>> {
    let draws = null_draws(manifest);
    let context = FigureContext { base_name: only_base_name(&manifest.adapters), adapter: None };
    let maps = MapsView::of(tables, &context)?;
    let data = script_json(&serde_json::to_string(&maps.data).map_err(|error| bug(&error))?);
    let warnings: BTreeSet<&String> = manifest.warnings.iter().collect();
    let page = Page {
        title: title(manifest),
        facts: facts(tables, manifest, draws.together()),
        draws: draws.together(),
        seed: manifest.seed,
        version: manifest.version.clone(),
        answer: AnswerView::of(tables, draws),
        more_warnings: (warnings.len() > MOST_WARNINGS)
            .then(|| format!("The first {MOST_WARNINGS} of {}; manifest.json has all.", text::thousands(warnings.len()))),
        warnings: warnings.into_iter().take(MOST_WARNINGS).map(|warning| text::visible(warning)).collect(),
        maps,
        listings: listings(tables),
        downloads: downloads(tables),
        provenance: Provenance::of(manifest),
    };
    render(page, &data)
}

/// How often a study's controls were drawn according to its manifest; 0 if it does not tell.
pub(crate) fn null_draws(manifest: &Manifest) -> NullDraws {
    let given = study_options(manifest).get("null_draws").and_then(|given| NullDraws::deserialize(given).ok());
    given.unwrap_or(NullDraws::Fixed(0))
}

fn render(page: Page, data: &str) -> Result<Vec<u8>> {
    // Only scripts that carry this nonce may run, and no text in the page can contain it, because it is computed from the page.
    let contents = serde_json::to_vec(&page).map_err(|error| bug(&error))?;
    let nonce = &blake3::hash(&contents).to_hex()[..32];
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()
            .map_err(|error| bug(&error))?,
    );
    environment.add_template("page.html", PAGE).map_err(|error| bug(&error))?;
    let html = environment
        .get_template("page.html")
        .and_then(|template| {
            template.render(context! {
                page => Serde(page),
                colours => colour_rules(),
                // Our own texts and numbers. Together with the base64 of `data:` addresses they are the only texts that are not escaped.
                style => Value::from_safe_string(STYLE.to_owned()),
                script => Value::from_safe_string(SCRIPT.to_owned()),
                data => Value::from_safe_string(data.to_owned()),
                nonce,
            })
        })
        .map_err(|error| bug(&error))?;
    Ok(html.into_bytes())
}

/// A style for each step of the heatmaps' scale, and one for the scale itself.
fn colour_rules() -> Value {
    let colours = cell_colours();
    let steps: Vec<&str> = colours.iter().step_by(15).map(|colour| colour.fill.as_str()).collect();
    let mut rules = format!(".bar{{background:linear-gradient(to right,{})}}\n", steps.join(","));
    rules.extend(colours.iter().enumerate().map(|(k, c)| format!(".v{k}{{background:{};color:{}}}", c.fill, c.ink)));
    Value::from_safe_string(rules)
}

/// JSON that is safe inside a script element: nothing in it can end the element or open a comment.
fn script_json(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn title(manifest: &Manifest) -> String {
    match manifest.adapters.as_slice() {
        [one] => text::visible(&one.name),
        all => text::count(all.len(), "adapter"),
    }
}

/// The subject of the study in one line.
fn facts(tables: &Tables, manifest: &Manifest, draws: usize) -> Vec<String> {
    let mut facts = vec![text::count(manifest.adapters.len(), "adapter")];
    if let Some(base) = only_base_name(&manifest.adapters) {
        facts.push(text::visible(base));
    } else {
        let bases: BTreeSet<&str> = manifest.adapters.iter().map(|adapter| adapter.base.as_str()).collect();
        facts.push(text::count(bases.len(), "base model"));
    }
    let modules: BTreeSet<&str> = tables.summary.iter().map(|row| row.module.as_str()).collect();
    facts.push(text::count(modules.len(), "module"));
    let layers = tables.summary.iter().map(|row| row.layers).max().unwrap_or(0);
    facts.push(text::count(layers, "layer"));
    facts.push(format!("{} of each control", text::count(draws, "draw")));
    facts.extend(manifest.seed.map(|seed| format!("seed {seed}")));
    facts
}

fn listings(tables: &Tables) -> Vec<Listing> {
    let cuts = tables.cuts.as_deref().unwrap_or_default();
    let all = [
        Listing::of(
            "Averages",
            "One row for each adapter, module, matrix, side and (i, j): φ averaged over all pairs of different layers, with its controls.",
            &tables.summary,
            &[],
        ),
        Listing::of(
            "Through W0",
            "Whether layers share a map: mean φ of Θ without W0’s singular directions below a cut, and of the factors through W0 (adjoint), beside Gaussian targets (w0), the strict control (flip), and the targets given to other layers (shuffled).",
            cuts,
            &["side"],
        ),
        Listing::of(
            "Where Θ lives",
            "The share of the energy of Θ, of Gaussian targets’ Θ and of the target itself in the k smallest singular directions of W0.",
            tables.energy.as_deref().unwrap_or_default(),
            &[],
        ),
        Listing::of(
            "Subspaces of W0",
            "Mean φ across layers of the k smallest or largest singular directions of W0 itself, beside chance.",
            tables.subspaces.as_deref().unwrap_or_default(),
            &[],
        ),
        Listing::of(
            "Updates",
            "The update ΔW = s·B·A of each layer beside W0: norms, ranks, and its cosine with W0 in exact standard deviations.",
            tables.updates.as_deref().unwrap_or_default(),
            &[],
        ),
        Listing::of(
            "What updates see of W0",
            "Hu et al. 2022, section 7.3: the norm of W0 between the k leading singular vectors of ΔW, beside W0’s own, random ones, and ones that lie in W0’s spectrum as these do.",
            tables.relation.as_deref().unwrap_or_default(),
            &[],
        ),
        Listing::of(
            "Where updates lie",
            "The energy of the inputs (right) and outputs (left) of ΔW by eighths of W0’s singular directions, the largest first, and W0’s gain on them relative to random directions.",
            tables.alignment.as_deref().unwrap_or_default(),
            &[],
        ),
        Listing::of(
            "Intruder dimensions",
            "How many of the leading singular vectors of W0 + ΔW are like none of W0’s (Shuttleworth et al. 2024), beside random updates of the same singular values.",
            tables.intruder_counts.as_deref().unwrap_or_default(),
            &[],
        ),
        Listing::of(
            "Conversion matrices",
            "One row for each layer: how W0 was solved, its condition, and what the solutions leave.",
            &tables.conversion,
            &["adapter_key", "tensor", "norm_a", "norm_b"],
        ),
        Listing::of(
            "Pairs of layers",
            "One row for each ordered pair of layers: φ, a bound on its error, and the controls in that cell.",
            &tables.similarity,
            &[],
        ),
        Listing::of(
            "Pairs of adapters",
            "One row for each pair of adapters in a layer.",
            tables.across.as_deref().unwrap_or_default(),
            &[],
        ),
        Listing::of(
            "Other measures",
            "Cosines of principal angles and linear CKA for each ordered pair of layers.",
            tables.measures.as_deref().unwrap_or_default(),
            &[],
        ),
    ];
    // The page has no use for a table without rows.
    all.into_iter().filter(|listing| listing.has_rows()).collect()
}

/// The template and its values are ours: it fails only if this module is wrong.
fn bug(error: &dyn std::error::Error) -> Error {
    Error::internal("writing the report", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_leave_its_element() {
        let json = script_json(r#"["</script><!--<script>&"]"#);
        assert!(!json.contains(['<', '>', '&']));
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), ["</script><!--<script>&"]);
    }

    #[test]
    fn an_empty_study_is_a_page_too() {
        let html = String::from_utf8(report_html(&Tables::default(), &Manifest::new(Vec::new())).unwrap()).unwrap();
        assert!(html.starts_with("<!doctype html>\n") && html.ends_with("</html>\n"));
        assert!(html.contains("No average could be judged."));
    }
}
