//! The arguments of `condlora analyze`, and what the library is asked for by them.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::cli::drawing::DrawingArgs;
use crate::cli::pairing::PairingArgs;
use crate::study::{AnalyzeParams, Shard, parse_bytes};
use crate::table::TableFormat;
use crate::terms::{Convention, MatrixKind, Side};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # One adapter, on the base model that it names
  condlora analyze adapters/sst2
  # All adapters below a folder, beside what they were before training
  condlora analyze runs/ --base models/roberta-base --init init/ -o results
  # One module, by more numbers of vectors and from both sides
  condlora analyze adapters/sst2 --base models/roberta-base --modules value \\
      --ij 8,8 --ij 4,8 --side both -o value
  # The numbers as JSON, without figures
  condlora analyze adapters/sst2 --json --figures none -o numbers > summary.json")]
pub(in crate::cli) struct AnalyzeArgs {
    /// Adapter directories, LoRA files of kohya's, or directories to search for these
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Base model: its directory, its weight file or index, or its name in the Hugging Face cache [default: the one the adapter names]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// Where the tables, figures and manifest go
    #[arg(short, long, value_name = "OUT", default_value = "condlora-results")]
    pub(super) out: PathBuf,

    #[command(flatten)]
    pairing: PairingArgs,
    /// Read CondLoRA checkpoints by Eq. 6 as printed: B = W0ᵀ·Θ_B
    #[arg(long, help_heading = "Adapter and base")]
    eq6: bool,

    /// Only these modules, by name
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is compared")]
    modules: Vec<String>,
    /// Only these layers: 0-based indices and inclusive ranges (0..5,8)
    #[arg(long, value_name = "LIST", help_heading = "What is compared")]
    layers: Option<String>,
    /// Conversion matrices A, B and BA, or the factors lora_A and lora_B themselves
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "A,B,BA", value_parser = matrix_names(), help_heading = "What is compared")]
    matrices: Vec<MatrixKind>,
    /// Numbers of singular vectors; repeatable [default: r,r with the module's smallest rank]
    #[arg(long, value_name = "I,J", value_parser = parse_pair, help_heading = "What is compared")]
    ij: Vec<(usize, usize)>,
    /// Which singular vectors
    #[arg(long, default_value = "left", help_heading = "What is compared")]
    side: Sides,
    /// The equations: the paper's need square weights; auto uses `general` where one is not
    #[arg(long, default_value = "auto", help_heading = "What is compared")]
    convention: ConventionChoice,
    /// Also compare the same layer of different adapters: across.csv and its heatmaps
    #[arg(long, help_heading = "What is compared")]
    across: bool,
    /// Also measure by principal angles and CKA: measures.csv
    #[arg(long, help_heading = "What is compared")]
    measures: bool,
    /// Also compare two layers by every number of vectors up to their ranks: grid.csv and its figure; repeatable
    #[arg(long, value_name = "A,B", value_parser = parse_layers, help_heading = "What is compared")]
    grid: Vec<(u32, u32)>,

    /// How often each control is drawn
    #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, help_heading = "Controls and numerics")]
    null_draws: usize,
    /// Seed of the controls
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Controls and numerics")]
    pub(super) seed: u64,
    /// An untrained adapter for the init control, or a directory with one for each adapter's name
    #[arg(long, value_name = "DIR", help_heading = "Controls and numerics")]
    init: Option<PathBuf>,
    /// Solve by SVD and take singular values of W0 below X times the largest for zero
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Controls and numerics")]
    rcond: Option<f64>,

    /// Memory that may be used, as in 8G; more adapters at a time are quicker [default: 80% of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Running")]
    memory_limit: Option<u64>,
    /// Pass over adapters that cannot be analysed, name each, and exit with 1
    #[arg(long, help_heading = "Running")]
    keep_going: bool,
    /// Only every N-th adapter, from the K-th on: one of N runs, on as many machines, for condlora merge
    #[arg(long, value_name = "K/N", help_heading = "Running")]
    shard: Option<Shard>,

    /// Table formats: csv, parquet, and npy for the φ matrices
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', default_value = "csv", help_heading = "Output")]
    formats: Vec<TableFormat>,
    #[command(flatten)]
    pub(super) drawing: DrawingArgs,
    /// Replace OUT if condlora made it
    #[arg(long, help_heading = "Output")]
    pub(super) overwrite: bool,
    /// Write nothing and exit with 6 unless every status is ok
    #[arg(long, help_heading = "Output")]
    pub(super) strict: bool,
}

/// Which sides to compare.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sides {
    Left,
    Right,
    Both,
}

/// Which equations to use.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum ConventionChoice {
    Auto,
    Paper,
    General,
}

impl ConventionChoice {
    /// The convention asked for; none to choose by shape.
    pub(in crate::cli) fn wanted(self) -> Option<Convention> {
        match self {
            Self::Auto => None,
            Self::Paper => Some(Convention::Paper),
            Self::General => Some(Convention::General),
        }
    }
}

/// The matrices by name; completion knows them too.
fn matrix_names() -> impl TypedValueParser<Value = MatrixKind> {
    PossibleValuesParser::new(["A", "B", "BA", "lora_A", "lora_B"]).try_map(|name| name.parse::<MatrixKind>())
}

pub(in crate::cli) fn parse_pair(text: &str) -> Result<(usize, usize), String> {
    let wrong = || "expected two numbers, as in 8,8".to_owned();
    let (i, j) = text.split_once(',').ok_or_else(wrong)?;
    Ok((i.trim().parse().map_err(|_| wrong())?, j.trim().parse().map_err(|_| wrong())?))
}

fn parse_layers(text: &str) -> Result<(u32, u32), String> {
    let wrong = || "expected the numbers of two layers, as in 0,5".to_owned();
    let (a, b) = text.split_once(',').ok_or_else(wrong)?;
    Ok((a.trim().parse().map_err(|_| wrong())?, b.trim().parse().map_err(|_| wrong())?))
}

impl AnalyzeArgs {
    /// What the library is asked for.
    pub(super) fn params(&self) -> AnalyzeParams {
        AnalyzeParams {
            paths: self.paths.clone(),
            base: self.base.clone(),
            pairing: self.pairing.rules(),
            modules: self.modules.clone(),
            layers: self.layers.clone(),
            matrices: self.matrices.clone(),
            ij: self.ij.clone(),
            sides: match self.side {
                Sides::Left => vec![Side::Left],
                Sides::Right => vec![Side::Right],
                Sides::Both => vec![Side::Left, Side::Right],
            },
            convention: self.convention.wanted(),
            null_draws: self.null_draws,
            seed: self.seed,
            init: self.init.clone(),
            rcond: self.rcond,
            eq6: self.eq6,
            across: self.across,
            measures: self.measures,
            grid: self.grid.clone(),
            keep_going: self.keep_going,
            memory_limit: self.memory_limit,
            shard: self.shard,
        }
    }

    /// The formats of the tables, each once, in their fixed order.
    pub(super) fn table_formats(&self) -> Vec<TableFormat> {
        let mut formats = self.formats.clone();
        formats.sort();
        formats.dedup();
        formats
    }
}
