//! The words every layer shares: which matrix, which side, which convention, and how far a number can be trusted.
//!
//! Nothing here computes or reads anything.

mod by_name;
mod draws;
mod layer_id;

pub(crate) use by_name::{Named, named, or_auto, path, path_if_any, paths, serde_as_text};
pub use draws::{NullDraws, StrictControl};
pub use layer_id::LayerId;

/// A matrix whose subspaces are compared across layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatrixKind {
    /// The conversion matrix Θ_A with `W0 · Θ_A = Aᵀ` (Kim et al. 2024, Eq. 3).
    A,
    /// The conversion matrix Θ_B with `W0 · Θ_B = B` (Eq. 4).
    B,
    /// `Θ_BA = Θ_B · A`, which maps W0 to the update itself.
    BA,
    /// The factor A as trained, without W0 (its row space).
    LoraA,
    /// The factor B as trained, without W0 (its column space).
    LoraB,
    /// What training made of A: `A − A_init`, without W0 (its row space).
    LearnedA,
}

crate::stored::stored_as_json!(MatrixKind);
named!(MatrixKind, "a matrix", { A = "A", B = "B", BA = "BA", LoraA = "lora_A", LoraB = "lora_B", LearnedA = "learned_A" });

impl MatrixKind {
    /// Whether this is a trained factor itself, or what was learned of one, rather than a conversion matrix.
    #[must_use]
    pub fn is_factor(self) -> bool {
        matches!(self, Self::LoraA | Self::LoraB | Self::LearnedA)
    }
}

/// Which singular vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Left singular vectors (the column space).
    Left,
    /// Right singular vectors (the row space).
    Right,
}

named!(Side, "a side", { Left = "left", Right = "right" });

/// A measure of similarity beyond φ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Cosine of the smallest principal angle between two subspaces.
    CosMax,
    /// Mean cosine of their principal angles.
    CosMean,
    /// Cosine of the largest principal angle.
    CosMin,
    /// Linear CKA of two matrices.
    Cka,
}

named!(Measure, "a measure", { CosMax = "cos_max", CosMean = "cos_mean", CosMin = "cos_min", Cka = "cka" });

impl Measure {
    /// The measures of principal angles.
    pub const COSINES: [Self; 3] = [Self::CosMax, Self::CosMean, Self::CosMin];
}

/// Which equations define the conversion matrices of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Convention {
    /// `W0·Θ_A = Aᵀ`, `W0·Θ_B = B`: the paper's, for square W0.
    Paper,
    /// `W0ᵀ·Θ_A = Aᵀ`, `W0·Θ_B = B`: for any shape (the paper's future work).
    General,
}

named!(Convention, "a convention", { Paper = "paper", General = "general" });

/// A matrix of an adapter's update in one layer, without W0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateMatrix {
    /// The factor A, compared by its right singular vectors.
    A,
    /// The factor B, compared by its left singular vectors.
    B,
    /// The update ΔW = s·B·A, compared by its left singular vectors.
    Delta,
}

named!(UpdateMatrix, "a matrix of the update", { A = "A", B = "B", Delta = "delta" });

impl UpdateMatrix {
    /// The side whose singular vectors are compared.
    #[must_use]
    pub fn side(self) -> Side {
        if self == Self::A { Side::Right } else { Side::Left }
    }
}

/// A matrix whose singular values are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpectrumMatrix {
    /// The conversion matrix Θ_A.
    A,
    /// The conversion matrix Θ_B.
    B,
    /// Θ_BA.
    BA,
    /// The update ΔW = s·B·A itself, without W0.
    Delta,
}

named!(SpectrumMatrix, "a matrix with singular values", { A = "A", B = "B", BA = "BA", Delta = "delta" });

impl SpectrumMatrix {
    /// The conversion matrix that this is; none for ΔW.
    #[must_use]
    pub fn conversion(self) -> Option<MatrixKind> {
        match self {
            Self::A => Some(MatrixKind::A),
            Self::B => Some(MatrixKind::B),
            Self::BA => Some(MatrixKind::BA),
            Self::Delta => None,
        }
    }

    /// What a conversion matrix is called here; none for a factor.
    #[must_use]
    pub fn of_conversion(matrix: MatrixKind) -> Option<Self> {
        match matrix {
            MatrixKind::A => Some(Self::A),
            MatrixKind::B => Some(Self::B),
            MatrixKind::BA => Some(Self::BA),
            MatrixKind::LoraA | MatrixKind::LoraB | MatrixKind::LearnedA => None,
        }
    }
}

/// Which equations a CondLoRA checkpoint's Θ are meant for (the field `condlora_convention` of its configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum CondloraConvention {
    /// `A = (W0·Θ_A)ᵀ`, `B = W0·Θ_B`, square W0: as the authors' code computes it.
    #[default]
    Paper,
    /// `A = (W0ᵀ·Θ_A)ᵀ`, `B = W0·Θ_B`, for any shape.
    General,
    /// `A = (W0·Θ_A)ᵀ`, `B = W0ᵀ·Θ_B`, square W0: as Kim et al. 2024 print Eq. 6.
    Eq6,
}

named!(CondloraConvention, "a CondLoRA convention", { Paper = "paper", General = "general", Eq6 = "eq6" });

/// How far a number can be trusted; the first that applies, from worst to best. One exception: where there are no such vectors (`rank`), that is
/// said before `unreliable` and `singular`, as there is no number to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Not compared: the vectors have different lengths.
    Skipped,
    /// The matrix is zero (an untrained adapter): it has no subspace.
    Zero,
    /// The solve failed its check; the value is given but should not be used.
    Unreliable,
    /// W0 is numerically rank-deficient; the minimum-norm solution was used.
    Singular,
    /// i or j is beyond the numerical rank.
    Rank,
    /// The error bound is above 1e-3.
    LowConfidence,
    /// No objection.
    Ok,
}

named!(Status, "a status", { Skipped = "skipped", Zero = "zero", Unreliable = "unreliable", Singular = "singular", Rank = "rank", LowConfidence = "low_confidence", Ok = "ok" });

impl Status {
    /// The worse of two: the one that comes first in the order of docs/spec.md, section 3.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        self.min(other)
    }
}

/// How a conversion matrix was solved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// LU with partial pivoting.
    Lu,
    /// LU with one step of iterative refinement.
    LuRefined,
    /// Minimum-norm least squares (QR or SVD).
    LeastSquares,
}

named!(Method, "a method", { Lu = "lu", LuRefined = "lu_refined", LeastSquares = "least_squares" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_status_comes_first() {
        assert_eq!(Status::Ok.worse(Status::Rank), Status::Rank);
        assert_eq!(Status::Zero.worse(Status::Singular), Status::Zero);
        assert_eq!("low_confidence".parse::<Status>(), Ok(Status::LowConfidence));
        assert!("no".parse::<Status>().is_err());
    }

    #[test]
    fn matrices_with_singular_values_are_the_conversion_matrices_and_the_update() {
        for matrix in SpectrumMatrix::ALL {
            assert_eq!(
                matrix.conversion().and_then(SpectrumMatrix::of_conversion),
                (matrix != SpectrumMatrix::Delta).then_some(matrix)
            );
        }
        let kept = MatrixKind::ALL.into_iter().filter_map(SpectrumMatrix::of_conversion);
        assert_eq!(kept.map(SpectrumMatrix::name).collect::<Vec<_>>(), ["A", "B", "BA"]);
    }
}
