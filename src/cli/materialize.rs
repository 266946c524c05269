//! `condlora materialize`: a LoRA adapter made of a CondLoRA, as PEFT loads it.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::analyze::plain;
use super::progress::Reporter;
use super::terminal::Terminal;
use super::{Global, Outcome, input_record};
use crate::checkpoint::{FloatType, adapter::WEIGHTS_FILE, config::CONFIG_FILE};
use crate::error::{Result, escape, show_path};
use crate::shared_theta::{MaterializeParams, MaterializedSize, prepare_materialization};
use crate::table::{Manifest, OutputDir};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # A LoRA that PEFT loads: PeftModel.from_pretrained(model, 'sst2-lora')
  condlora materialize condlora/sst2 --base models/roberta-base -o sst2-lora
  # In half the size
  condlora materialize condlora/sst2 --dtype BF16 -o sst2-bf16")]
pub(super) struct MaterializeArgs {
    /// The CondLoRA's directory
    #[arg(value_name = "CONDLORA")]
    condlora: PathBuf,
    /// Base model: its directory, its weight file or index, or its name in the Hugging Face cache [default: the one the CondLoRA names]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// The directory of the LoRA adapter that is made
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// The type that A and B are stored in
    #[arg(long, value_name = "TYPE", default_value = "F32", ignore_case = true, help_heading = "Output")]
    dtype: Stored,
    /// Read the CondLoRA by Eq. 6 as printed: B = W0ᵀ·Θ_B
    #[arg(long, help_heading = "Adapter and base")]
    eq6: bool,
    /// Replace OUT if condlora made it
    #[arg(long, help_heading = "Output")]
    overwrite: bool,
}

/// A stored type.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stored {
    #[value(name = "F32")]
    F32,
    #[value(name = "F16")]
    F16,
    #[value(name = "BF16")]
    BF16,
    #[value(name = "F64")]
    F64,
}

impl Stored {
    fn float(self) -> FloatType {
        match self {
            Self::F32 => FloatType::F32,
            Self::F16 => FloatType::F16,
            Self::BF16 => FloatType::BF16,
            Self::F64 => FloatType::F64,
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &MaterializeArgs, global: &Global, command_line: Vec<String>, terminal: &Terminal) -> Result<Outcome> {
    let params =
        MaterializeParams { condlora: args.condlora.clone(), base: args.base.clone(), dtype: args.dtype.float(), eq6: args.eq6 };
    let prepared = prepare_materialization(params.clone().check()?)?;
    let warnings = prepared.warnings().to_vec();
    for warning in &warnings {
        terminal.warning(warning);
    }
    let mut protected = prepared.input_dirs();
    protected.push(args.condlora.clone());
    let mut out = OutputDir::begin(&args.out, args.overwrite, &protected)?;
    out.require_room(prepared.bytes())?;

    let started = std::time::Instant::now();
    out.write(CONFIG_FILE, &prepared.config_json())?;
    let reporter = Reporter::new(global.progress, global.quiet, "layers");
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

    let mut manifest = Manifest::new(command_line);
    manifest.options = serde_json::json!({
        "command": "materialize",
        "condlora": plain(&args.condlora),
        "base": args.base.as_deref().map(plain),
        "out": plain(&args.out),
        "dtype": params.dtype.name(),
        "eq6": args.eq6,
    });
    manifest.inputs = inputs.iter().map(input_record).collect();
    manifest.warnings = warnings;
    manifest.add_timing("materialize", started.elapsed());
    let made = out.commit(&manifest)?;

    let size = prepared.size();
    let shown = terminal.data(&if global.json { json(&size, params.dtype) } else { text(&size, params.dtype) });
    terminal.note(&format!("LoRA adapter in {}", show_path(&made)));
    shown?;
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
