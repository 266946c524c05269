//! `condlora materialize`: a LoRA adapter made of a CondLoRA, as PEFT loads it.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::choice::any;
use super::session::{Outcome, Session};
use crate::checkpoint::{FloatType, adapter::WEIGHTS_FILE, config::CONFIG_FILE};
use crate::error::{Result, escape};
use crate::output::OutputDir;
use crate::shared_theta::{MaterializeParams, MaterializedSize, prepare_materialization};
use crate::terms::path;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # A LoRA that PEFT loads: PeftModel.from_pretrained(model, 'sst2-lora')
  condlora materialize condlora/sst2 --base models/roberta-base -o sst2-lora
  # In half the size
  condlora materialize condlora/sst2 --dtype BF16 -o sst2-bf16")]
pub(super) struct MaterializeArgs {
    /// CondLoRA directory
    #[arg(value_name = "CONDLORA")]
    condlora: PathBuf,
    /// Base model: a directory, a weight file or index, or a name in the Hugging Face cache [default: the one the CondLoRA names]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// Directory for the LoRA adapter
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Data type in which A and B are stored
    #[arg(long, value_name = "TYPE", default_value = "F32", value_parser = any::<FloatType>(), ignore_case = true, help_heading = "Output")]
    dtype: FloatType,
    /// Read the CondLoRA by Eq. 6 as printed: B = W0ᵀ·Θ_B
    #[arg(long, help_heading = "Adapter and base")]
    eq6: bool,
    /// Replace OUT if condlora wrote it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
}

/// The options as they were resolved, as the manifest keeps them.
#[derive(Serialize)]
struct Options<'a> {
    command: &'static str,
    #[serde(flatten)]
    params: &'a MaterializeParams,
    #[serde(serialize_with = "path")]
    out: &'a Path,
}

/// Runs the command.
pub(super) fn run(args: &MaterializeArgs, session: &Session) -> Result<Outcome> {
    let params = MaterializeParams { condlora: args.condlora.clone(), base: args.base.clone(), dtype: args.dtype, eq6: args.eq6 };
    let prepared = prepare_materialization(params.clone().check()?)?;
    let warnings = prepared.warnings().to_vec();
    session.terminal.warnings(&warnings);
    let mut protected = prepared.input_dirs();
    protected.push(args.condlora.clone());
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;
    out.require_room(prepared.bytes())?;

    let started = std::time::Instant::now();
    out.write(CONFIG_FILE, &prepared.config_json())?;
    let reporter = session.reporter("layers");
    let (mut inputs, mut failed) = (Vec::new(), None);
    let written = out.stream(WEIGHTS_FILE, |file| match prepared.write_weights(file, &mut inputs, &reporter) {
        Ok(written) => written,
        Err(error) => {
            failed = Some(error);
            Err(io::Error::other("its inputs could not be read"))
        }
    });
    reporter.finish();
    if let Some(error) = failed {
        return Err(error);
    }
    written?;

    let mut manifest = session.record(&Options { command: "materialize", params: &params, out: &args.out });
    manifest.inputs = inputs;
    manifest.warnings = warnings;
    session.took(&mut manifest, "materialize", started.elapsed(), "");
    let made = out.commit(&manifest)?;

    let size = prepared.size();
    let text = if session.json() { json(&size, params.dtype) } else { text(&size, params.dtype) };
    session.close(&text, &[("LoRA adapter in", &made)])?;
    Ok(Outcome::Done)
}

/// What was made, in words.
fn text(size: &MaterializedSize, dtype: FloatType) -> String {
    let modules: Vec<String> = size.modules.iter().map(|name| escape(name)).collect();
    format!(
        "{}: {} layers ({}) in {}, {} parameters made of {}; {} tensors kept as they are\n",
        escape(&size.name),
        size.layers,
        modules.join(", "),
        dtype.name(),
        size.lora_parameters,
        size.condlora_parameters,
        size.kept_tensors
    )
}

/// The same for programs.
fn json(size: &MaterializedSize, dtype: FloatType) -> String {
    let value = serde_json::json!({
        "adapter": size.name,
        "modules": size.modules,
        "layers": size.layers,
        "dtype": dtype.name(),
        "lora_parameters": size.lora_parameters,
        "condlora_parameters": size.condlora_parameters,
        "kept_tensors": size.kept_tensors,
    });
    format!("{value:#}\n")
}
