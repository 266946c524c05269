//! The arguments of `condlora analyze`, and what the library is asked for by them.

use std::path::PathBuf;

use clap::Args;

use crate::cli::choice::{any, auto_or, strict_control};
use crate::cli::drawing::DrawingArgs;
use crate::cli::pairing::PairingArgs;
use crate::inputs::parse_bytes;
use crate::relation::{Cut, Intruders};
use crate::study::{AnalyzeParams, Shard};
use crate::table::TableFormat;
use crate::terms::{Convention, LayerId, MatrixKind, NullDraws, Side, named};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # One adapter, on the base model that it names
  condlora analyze adapters/sst2
  # All adapters in a folder, compared with their state before training
  condlora analyze runs/ --base models/roberta-base --init init/ -o results
  # One module, with two numbers of vectors and on both sides
  condlora analyze adapters/sst2 --base models/roberta-base --modules value \\
      --ij 8,8 --ij 4,8 --side both -o value
  # The numbers as JSON, without figures
  condlora analyze adapters/sst2 --json --figures none -o numbers > summary.json")]
pub(in crate::cli) struct AnalyzeArgs {
    /// Adapter directories, LoRA files of image models, or directories to search for adapters
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Base model: a directory, a weight file or index, or a name in the Hugging Face cache [default: the one the adapter names]
    #[arg(long, value_name = "DIR|FILE|HUB_ID")]
    base: Option<PathBuf>,
    /// Directory for the tables, figures and manifest
    #[arg(short, long, value_name = "OUT", default_value = "condlora-results")]
    pub(super) out: PathBuf,

    #[command(flatten)]
    pairing: PairingArgs,
    /// Read CondLoRA checkpoints by Eq. 6 as printed: B = W0ᵀ·Θ_B
    #[arg(long, help_heading = "Adapter and base")]
    eq6: bool,

    /// Only these modules
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is compared")]
    modules: Vec<String>,
    /// Only these layers: 0-based indices and inclusive ranges, as in 0..5,8, or paths of blocks, as in down_blocks.1
    #[arg(long, value_name = "LIST", help_heading = "What is compared")]
    layers: Option<String>,
    /// Conversion matrices A, B and BA, the factors lora_A and lora_B themselves, or learned_A, what training made of A (--init)
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "A,B,BA", value_parser = any::<MatrixKind>(), help_heading = "What is compared")]
    matrices: Vec<MatrixKind>,
    /// Numbers of singular vectors to compare; repeatable [default: r,r with the module's smallest rank]
    #[arg(long, value_name = "I,J", value_parser = parse_pair, help_heading = "What is compared")]
    ij: Vec<(usize, usize)>,
    /// Which singular vectors to compare
    #[arg(long, value_name = "SIDE", default_value = "left", value_parser = any::<Sides>(), help_heading = "What is compared")]
    side: Sides,
    /// Equations: the paper's need square weights; auto uses general where a weight is not square
    #[arg(long, value_name = "CONVENTION", default_value = "auto", value_parser = auto_or::<Convention>(), help_heading = "What is compared")]
    // By its whole path: clap reads a plain `Option` as an option that need not be given, and this one is `auto` then.
    convention: std::option::Option<Convention>,
    /// Also compare each layer across adapters: across.csv and its heatmaps
    #[arg(long, help_heading = "What is compared")]
    across: bool,
    /// Also compute principal angles and CKA: measures.csv
    #[arg(long, help_heading = "What is compared")]
    measures: bool,
    /// Also compare layers A and B for all numbers of vectors up to their ranks: grid.csv and its figure; repeatable
    #[arg(long, value_name = "A,B", value_parser = parse_layers, help_heading = "What is compared")]
    grid: Vec<(LayerId, LayerId)>,

    /// Number of random draws for each control; auto makes 20, and of the strict controls as many as it takes
    #[arg(
        long,
        value_name = "N|auto",
        default_value = "auto",
        allow_negative_numbers = true,
        help_heading = "Controls and numerics"
    )]
    null_draws: NullDraws,
    /// Seed of the random draws
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = "Controls and numerics")]
    pub(super) seed: u64,
    /// Untrained adapter for the init control, or a directory that has one for each adapter under its name
    #[arg(long, value_name = "DIR", help_heading = "Controls and numerics")]
    init: Option<PathBuf>,
    /// Solve by SVD, treating singular values of W0 below X times the largest as zero
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Controls and numerics")]
    rcond: Option<f64>,

    /// Also compare Θ without the singular directions of W0 below these shares of its largest: cuts.csv, energy.csv and subspaces.csv
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, value_delimiter = ',', help_heading = "What is compared")]
    cuts: Option<Vec<Cut>>,
    /// Also count the K leading singular vectors of W0 + ΔW whose cosine with each of W0's is below EPS [default with the option: 10,0.5]: intruders.csv
    /// and intruder_counts.csv
    #[arg(
        long,
        value_name = "K,EPS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEFAULT_INTRUDERS,
        conflicts_with = "no_svd",
        help_heading = "What is compared"
    )]
    intruders: Option<Intruders>,
    /// Decompose base weights of any size for the strict control; without this only those with a side of up to 1,024
    #[arg(long, conflicts_with = "no_svd", help_heading = "Controls and numerics")]
    strict_control: bool,
    /// Decompose no base weight: quicker, without the strict control and the singular values of W0
    #[arg(long, help_heading = "Controls and numerics")]
    no_svd: bool,
    /// Find conversion matrices and their similarity alone: no cuts.csv, updates.csv, relation.csv and alignment.csv, and no base weight is decomposed
    #[arg(long, conflicts_with_all = ["cuts", "intruders", "strict_control"], help_heading = "What is compared")]
    similarity_only: bool,

    /// Memory that may be used, as in 8G; with more, more adapters are analysed at once [default: 80% of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Running")]
    memory_limit: Option<u64>,
    /// Skip adapters that cannot be analysed, name them, and exit with code 1
    #[arg(long, help_heading = "Running")]
    keep_going: bool,
    /// Solve through shard K of N of the base weights and compare nothing yet; `condlora merge` puts the shards together
    #[arg(long, value_name = "K/N", help_heading = "Running")]
    shard: Option<Shard>,

    /// Table formats beside csv, which is always written: parquet, and npy for the φ matrices
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', default_value = "csv", value_parser = any::<TableFormat>(), help_heading = "Output")]
    formats: Vec<TableFormat>,
    #[command(flatten)]
    pub(super) drawing: DrawingArgs,
    /// Replace OUT if condlora wrote it
    #[arg(long, help_heading = "Output")]
    pub(super) overwrite: bool,
    /// Write nothing and exit with code 6 unless every status is ok
    #[arg(long, help_heading = "Output")]
    pub(super) strict: bool,
}

/// [`Intruders::default`] as typed.
const DEFAULT_INTRUDERS: &str = "10,0.5";

/// Which sides to compare.
#[derive(Debug, Clone, Copy)]
enum Sides {
    Left,
    Right,
    Both,
}

named!(Sides, "a side", { Left = "left", Right = "right", Both = "both" });

pub(in crate::cli) fn parse_pair(text: &str) -> Result<(usize, usize), String> {
    let wrong = || "expected two numbers, as in 8,8".to_owned();
    let (i, j) = text.split_once(',').ok_or_else(wrong)?;
    Ok((i.trim().parse().map_err(|_| wrong())?, j.trim().parse().map_err(|_| wrong())?))
}

fn parse_layers(text: &str) -> Result<(LayerId, LayerId), String> {
    let wrong = || "expected two layers, as in 0,5".to_owned();
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
            convention: self.convention,
            null_draws: self.null_draws,
            seed: self.seed,
            init: self.init.clone(),
            rcond: self.rcond,
            cuts: self.cuts.as_ref().map(|cuts| if cuts.is_empty() { Cut::LIST.to_vec() } else { cuts.clone() }),
            intruders: self.intruders,
            strict_control: strict_control(self.strict_control, self.no_svd),
            similarity_only: self.similarity_only,
            eq6: self.eq6,
            across: self.across,
            measures: self.measures,
            grid: self.grid.clone(),
            keep_going: self.keep_going,
            memory_limit: self.memory_limit,
            shard: self.shard,
        }
    }

    /// The formats of the tables, each once, in their fixed order; CSV is always one of them.
    pub(super) fn table_formats(&self) -> Vec<TableFormat> {
        let mut formats = [&self.formats[..], &[TableFormat::Csv]].concat();
        formats.sort();
        formats.dedup();
        formats
    }
}
