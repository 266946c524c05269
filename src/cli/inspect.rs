//! `condlora inspect`: what is there and what would be refused, from headers alone.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::aligned::Aligned;
use super::pairing::PairingArgs;
use super::session::{Outcome, Session};
use super::terminal::Terminal;
use crate::checkpoint::keys::listed_layers;
use crate::error::{Result, escape};
use crate::json;
use crate::numerals::thousands;
use crate::study::{InspectParams, InspectedAdapter, InspectedModule, Inspection, Parameters, inspect};

const HEADING: Style = Style::new().bold();
const REFUSED: Style = AnsiColor::Red.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Which modules and layers there are, and their weights in the base model
  condlora inspect adapters/sst2 --base models/roberta-base
  # Of many adapters, those that analyze would refuse, and why
  condlora inspect runs/ --json | jq '.adapters[] | select(.refused)'")]
pub(super) struct InspectArgs {
    /// Adapter directories, LoRA files of image models, or directories to search for adapters
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Base model: a directory, a weight file or index, or a name in the Hugging Face cache [default: the one the adapter names, if it is on this machine]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    #[command(flatten)]
    pairing: PairingArgs,
    /// Read CondLoRA checkpoints by Eq. 6 as printed: B = W0ᵀ·Θ_B
    #[arg(long, help_heading = "Adapter and base")]
    eq6: bool,
}

/// Runs the command.
pub(super) fn run(args: &InspectArgs, session: &Session) -> Result<Outcome> {
    let params =
        InspectParams { paths: args.paths.clone(), base: args.base.clone(), pairing: args.pairing.rules(), eq6: args.eq6 };
    let inspection = inspect(&params)?;
    let terminal = &session.terminal;
    terminal.data(&if session.json() { json::pretty(&inspection) } else { text(&inspection, terminal) })?;
    let skips = inspection.adapters.iter().any(|adapter| !adapter.skipped.is_empty());
    Ok(if inspection.refused == 0 && !skips { Outcome::Done } else { Outcome::Skipped })
}

fn text(inspection: &Inspection, terminal: &Terminal) -> String {
    let mut out = String::new();
    for adapter in &inspection.adapters {
        out.push_str(&terminal.paint(HEADING, &escape(&adapter.name)));
        if let Some(kind) = &adapter.kind {
            out.push_str(&format!(", {}", escape(kind)));
        }
        match (&adapter.base, &adapter.unpaired) {
            (Some(base), _) => out.push_str(&format!(", on {}\n", escape(&base.path))),
            (None, Some(_)) => out.push_str(", without a base model\n"),
            (None, None) => out.push('\n'),
        }
        if !adapter.modules.is_empty() {
            out.push_str(&modules(adapter, terminal));
        }
        if adapter.parameters.lora > 0 {
            out.push_str(&format!("  parameters: {}\n", counts(adapter.parameters)));
        }
        for (label, line) in adapter.unpaired.iter().map(|why| ("not paired", why)) {
            out.push_str(&format!("  {label}: {line}\n"));
        }
        for warning in &adapter.warnings {
            out.push_str(&terminal.paint(DOUBTFUL, &format!("  warning: {warning}")));
            out.push('\n');
        }
        for module in &adapter.skipped {
            let count = module.layers.len();
            let layers = if count > 1 { format!(" in {count} layers") } else { String::new() };
            let line = format!("  skipped: module `{}`{layers}: {}", escape(&module.module), module.why.error);
            out.push_str(&terminal.paint(DOUBTFUL, &line));
            out.push('\n');
            if let Some(hint) = &module.why.hint {
                out.push_str(&format!("  hint: {hint}\n"));
            }
        }
        if let Some(refusal) = &adapter.refused {
            let line = format!("  refused, exit code {}: {}", refusal.exit_code, refusal.error);
            out.push_str(&terminal.paint(REFUSED, &line));
            out.push('\n');
            if let Some(hint) = &refusal.hint {
                out.push_str(&format!("  hint: {hint}\n"));
            }
        }
        out.push('\n');
    }
    let (all, refused) = (inspection.adapters.len(), inspection.refused);
    out.push_str(&format!("{all} adapter{}, {refused} would be refused.\n", if all == 1 { "" } else { "s" }));
    out
}

fn modules(adapter: &InspectedAdapter, terminal: &Terminal) -> String {
    let header = vec!["  module", "layers", "out x in", "rank", "scaling", "A, B", "W0", "first W0"];
    let mut table = Aligned::new(header, 2..5).sparing(&["first W0", "W0", "A, B", "scaling"]);
    for module in &adapter.modules {
        let of = |value: fn(&crate::study::InspectedLayer) -> String| several(module, value);
        let first = module.layers.first().and_then(|layer| layer.tensor.as_deref());
        let cells = vec![
            format!("  {}", escape(&module.name)),
            layers(module),
            of(|layer| format!("{} x {}", layer.out_features, layer.in_features)),
            of(|layer| layer.rank.to_string()),
            of(|layer| format!("{}", layer.scaling)),
            of(|layer| layer.adapter_dtype.clone()),
            of(|layer| layer.w0_dtype.clone().unwrap_or_default()),
            first.map_or_else(String::new, escape),
        ];
        table.row(cells, None);
    }
    table.text(terminal)
}

/// What all layers have, or how many different things.
fn several(module: &InspectedModule, value: fn(&crate::study::InspectedLayer) -> String) -> String {
    let mut values: Vec<String> = module.layers.iter().map(value).collect();
    values.sort();
    values.dedup();
    match values.len() {
        0..=2 => values.join(", "),
        count => format!("{count} kinds"),
    }
}

/// `0..5,8`, as `--layers` takes them; of paths of blocks, how many there are.
fn layers(module: &InspectedModule) -> String {
    let layers = || module.layers.iter().filter_map(|layer| layer.layer.as_ref());
    let paths = layers().filter(|layer| layer.index().is_none()).count();
    match (layers().next(), paths) {
        (None, _) => "–".to_owned(),
        (Some(_), 0) => listed_layers(layers()).join(","),
        (Some(layer), 1) => escape(&layer.to_string()),
        (Some(_), count) => format!("{count} blocks"),
    }
}

fn counts(parameters: Parameters) -> String {
    let condlora = parameters.condlora.map_or_else(
        || "CondLoRA cannot share layers that differ in shape or rank".to_owned(),
        |count| format!("CondLoRA would need {}", thousands(count)),
    );
    format!("LoRA {}, {condlora}", thousands(parameters.lora))
}
