//! All tables of a study.
//!
//! A new table of a study is a row type and a line in [`Tables`]: it is then written, read, merged and filtered like the others.

use super::any_table::{AnyTable, Slot, tables};
use super::relation_rows::{AlignmentRow, CutRow, EnergyRow, IntruderCountRow, IntruderRow, RelationRow, SubspaceRow, UpdateRow};
use super::rows::{AcrossRow, ConversionRow, GridRow, MeasureRow, SimilarityRow, SpectrumRow, SummaryRow, TrainingRow};

tables! {
    /// All rows of one study, each table in its fixed order. An optional table is none if it was not requested.
    pub struct Tables {
        /// `summary.csv`.
        pub summary: Vec<SummaryRow>,
        /// `similarity.csv`.
        pub similarity: Vec<SimilarityRow>,
        /// `conversion.csv`.
        pub conversion: Vec<ConversionRow>,
        /// `spectrum.csv`.
        pub spectrum: Vec<SpectrumRow>,
        /// `across.csv`.
        pub across: Option<Vec<AcrossRow>>,
        /// `measures.csv`.
        pub measures: Option<Vec<MeasureRow>>,
        /// `grid.csv`.
        pub grid: Option<Vec<GridRow>>,
        /// `updates.csv`.
        pub updates: Option<Vec<UpdateRow>>,
        /// `relation.csv`.
        pub relation: Option<Vec<RelationRow>>,
        /// `alignment.csv`; none where W0 was not decomposed.
        pub alignment: Option<Vec<AlignmentRow>>,
        /// `cuts.csv`.
        pub cuts: Option<Vec<CutRow>>,
        /// `energy.csv`.
        pub energy: Option<Vec<EnergyRow>>,
        /// `subspaces.csv`.
        pub subspaces: Option<Vec<SubspaceRow>>,
        /// `intruders.csv`.
        pub intruders: Option<Vec<IntruderRow>>,
        /// `intruder_counts.csv`.
        pub intruder_counts: Option<Vec<IntruderCountRow>>,
        /// `training.csv`; none where no adapter has a log.
        pub training: Option<Vec<TrainingRow>>,
    }
}
