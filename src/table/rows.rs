//! One type for each table: its fields are the columns, in the order they are written.

use super::columns::{BadField, Cell, CellValue, ColumnType, Row, next_cell, row};
use crate::terms::{Convention, LayerId, MatrixKind, Measure, Method, Side, SpectrumMatrix, Status, UpdateMatrix};

row! {
    /// One row of `summary.csv`: an adapter × module × matrix × side × (i, j).
    pub struct SummaryRow in "summary" {
        /// Adapter name.
        pub adapter: String,
        /// Module name (`query`).
        pub module: String,
        /// The matrix compared.
        pub matrix: MatrixKind,
        /// Which singular vectors.
        pub side: Side,
        /// How many singular vectors of `layer_a`.
        pub i: usize,
        /// How many singular vectors of `layer_b`.
        pub j: usize,
        /// How many matrices have a φ.
        pub layers: usize,
        /// Mean φ over layer_a < layer_b.
        pub phi_mean: Option<f64>,
        /// Smallest φ over layer_a < layer_b.
        pub phi_min: Option<f64>,
        /// Largest φ over layer_a < layer_b.
        pub phi_max: Option<f64>,
        /// Expected φ of Gaussian matrices, `max(i,j)/D`.
        pub gaussian_expected: Option<f64>,
        /// Mean over draws of the `gaussian` control's average.
        pub gaussian_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub gaussian_sd: Option<f64>,
        /// Mean over draws of the `w0` control's average.
        pub w0_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub w0_sd: Option<f64>,
        /// Expectation of the `w0` control without its sampling error (`--cuts`, i = j = r).
        pub w0_expected: Option<f64>,
        /// `(phi_mean − w0_mean)/w0_sd`.
        pub w0_z: Option<f64>,
        /// Share of draws (with the observation) whose average is at least `phi_mean`.
        pub w0_p: Option<f64>,
        /// Mean φ of the untrained adapter.
        pub init_mean: Option<f64>,
        /// The worst status of its cells.
        pub status: Status,
    }
}

row! {
    /// One row of `similarity.csv`: an ordered pair of layers, diagonal included.
    pub struct SimilarityRow in "similarity" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// The matrix compared.
        pub matrix: MatrixKind,
        /// Which singular vectors.
        pub side: Side,
        /// How many singular vectors of `layer_a`.
        pub i: usize,
        /// How many singular vectors of `layer_b`.
        pub j: usize,
        /// The first layer's index in the tensor names.
        pub layer_a: LayerId,
        /// The second layer's index.
        pub layer_b: LayerId,
        /// φ(layer_a, layer_b, i, j).
        pub phi: Option<f64>,
        /// Bound on what rounding does to `phi`. It is statistical for square weights: four times the expected effect of random rounding
        /// errors.
        pub phi_error_bound: Option<f64>,
        /// Mean of the `gaussian` control in this cell.
        pub gaussian_mean: Option<f64>,
        /// Its standard deviation.
        pub gaussian_sd: Option<f64>,
        /// Mean of the `w0` control in this cell.
        pub w0_mean: Option<f64>,
        /// Its standard deviation.
        pub w0_sd: Option<f64>,
        /// Expectation of the `w0` control in this cell, from W0 alone (`--cuts`, i = j = r).
        pub w0_expected: Option<f64>,
        /// φ of the untrained adapter in this cell.
        pub init: Option<f64>,
        /// The worse status of the two matrices.
        pub status: Status,
    }
}

row! {
    /// One row of `conversion.csv`: an adapter × module × layer.
    pub struct ConversionRow in "conversion" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// The adapter's key, without `.lora_A.weight`.
        pub adapter_key: String,
        /// The base tensor that holds W0.
        pub tensor: String,
        /// Rows of W0.
        pub out_features: usize,
        /// Columns of W0.
        pub in_features: usize,
        /// Rank r of the adapter here.
        pub rank: usize,
        /// s = α/r, or α/√r for rsLoRA.
        pub scaling: f64,
        /// The equations used.
        pub convention: Convention,
        /// How they were solved.
        pub method: Method,
        /// Stored type of W0.
        pub w0_dtype: String,
        /// Stored type of A and B (`BF16/F32` where they differ).
        pub adapter_dtype: String,
        /// Numerical rank of W0 where an SVD was made, else min(out, in).
        pub w0_rank: usize,
        /// Condition number of W0: 1-norm estimate, or the ratio of singular values where an SVD was made.
        pub w0_condition: Option<f64>,
        /// ‖WΘ_A − T‖_F/‖T‖_F, as the check gives it (docs/spec.md, section 3.3).
        pub residual_a: Option<f64>,
        /// ‖WΘ_B − T‖_F/‖T‖_F.
        pub residual_b: Option<f64>,
        /// The ratio that was checked for Θ_A.
        pub backward_error_a: Option<f64>,
        /// The ratio that was checked for Θ_B.
        pub backward_error_b: Option<f64>,
        /// ‖A‖_F.
        pub norm_a: Option<f64>,
        /// ‖B‖_F.
        pub norm_b: Option<f64>,
        /// ‖s·B·A‖_F.
        pub norm_delta: Option<f64>,
        /// The worse status of Θ_A and Θ_B.
        pub status: Status,
    }
}

row! {
    /// One row of `spectrum.csv`: a singular value of a conversion matrix, or of the update.
    pub struct SpectrumRow in "spectrum" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// The matrix.
        pub matrix: SpectrumMatrix,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// 1-based index, largest first.
        pub k: usize,
        /// The singular value.
        pub sigma: f64,
    }
}

row! {
    /// One row of `across.csv`: an ordered pair of adapters at one layer of a module, the diagonal included.
    pub struct AcrossRow in "across" {
        /// Module name.
        pub module: String,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// The matrix compared.
        pub matrix: MatrixKind,
        /// Which singular vectors.
        pub side: Side,
        /// How many singular vectors of `adapter_a`.
        pub i: usize,
        /// How many singular vectors of `adapter_b`.
        pub j: usize,
        /// The first adapter's name.
        pub adapter_a: String,
        /// The second adapter's name.
        pub adapter_b: String,
        /// φ(adapter_a, adapter_b, i, j).
        pub phi: Option<f64>,
        /// Expected φ of Gaussian matrices, `max(i,j)/D`.
        pub gaussian_expected: Option<f64>,
        /// Expected φ of Gaussian A and B through the same W0 (i = j = r, where W0 was decomposed).
        pub w0_expected: Option<f64>,
        /// φ of the two untrained adapters.
        pub init: Option<f64>,
        /// The worse status of the two matrices.
        pub status: Status,
    }
}

row! {
    /// One row of `grid.csv`: φ of two chosen layers by one number of vectors of each.
    pub struct GridRow in "grid" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// The matrix compared.
        pub matrix: MatrixKind,
        /// Which singular vectors.
        pub side: Side,
        /// The first layer's index in the tensor names.
        pub layer_a: LayerId,
        /// The second layer's index.
        pub layer_b: LayerId,
        /// How many singular vectors of `layer_a`, from 1.
        pub i: usize,
        /// How many singular vectors of `layer_b`, from 1.
        pub j: usize,
        /// φ(layer_a, layer_b, i, j).
        pub phi: Option<f64>,
        /// Expected φ of Gaussian matrices, `max(i,j)/D`.
        pub gaussian_expected: Option<f64>,
        /// The worse status of the two matrices.
        pub status: Status,
    }
}

row! {
    /// One row of `measures.csv`: a measure beyond φ of an ordered pair of layers, diagonal included.
    pub struct MeasureRow in "measures" {
        /// Adapter name.
        pub adapter: String,
        /// Module name.
        pub module: String,
        /// The matrix compared.
        pub matrix: MatrixKind,
        /// Which singular vectors; none for `cka`, which compares whole matrices.
        pub side: Option<Side>,
        /// How many singular vectors of `layer_a`; none for `cka`.
        pub i: Option<usize>,
        /// How many singular vectors of `layer_b`; none for `cka`.
        pub j: Option<usize>,
        /// The first layer's index in the tensor names.
        pub layer_a: LayerId,
        /// The second layer's index.
        pub layer_b: LayerId,
        /// What was measured.
        pub measure: Measure,
        /// Its value.
        pub value: Option<f64>,
        /// Mean of the `gaussian` control in this cell.
        pub gaussian_mean: Option<f64>,
        /// Its standard deviation.
        pub gaussian_sd: Option<f64>,
        /// Mean of the `w0` control in this cell.
        pub w0_mean: Option<f64>,
        /// Its standard deviation.
        pub w0_sd: Option<f64>,
        /// The worse status of the two matrices.
        pub status: Status,
    }
}

row! {
    /// One row of `compare.csv`: a matrix of two adapters in one layer.
    pub struct CompareRow in "compare" {
        /// One adapter's name.
        pub left: String,
        /// The other's.
        pub right: String,
        /// Module name.
        pub module: String,
        /// Layer index; none for a module outside any repeated container.
        pub layer: Option<LayerId>,
        /// The matrix compared.
        pub matrix: UpdateMatrix,
        /// Which singular vectors.
        pub side: Side,
        /// How many singular vectors of `left`.
        pub i: usize,
        /// How many singular vectors of `right`.
        pub j: usize,
        /// φ(left, right, i, j).
        pub phi: Option<f64>,
        /// `⟨ΔW_left, ΔW_right⟩/(‖ΔW_left‖·‖ΔW_right‖)`, of `delta` alone.
        pub cosine: Option<f64>,
        /// Expected φ of Gaussian matrices, `max(i,j)/D`.
        pub gaussian_expected: Option<f64>,
        /// Mean φ with a Gaussian Θ where a side is a CondLoRA.
        pub w0_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub w0_sd: Option<f64>,
        /// Share of draws (with the observation) whose φ is at least `phi`.
        pub w0_p: Option<f64>,
        /// The worse status of the two matrices.
        pub status: Status,
    }
}

row! {
    /// The average of a comparison's rows over layers.
    pub struct CompareAverageRow in "compare_averages" {
        /// One adapter's name.
        pub left: String,
        /// The other's.
        pub right: String,
        /// Module name.
        pub module: String,
        /// The matrix compared.
        pub matrix: UpdateMatrix,
        /// Which singular vectors.
        pub side: Side,
        /// How many singular vectors of `left`.
        pub i: usize,
        /// How many singular vectors of `right`.
        pub j: usize,
        /// How many layers have a φ.
        pub layers: usize,
        /// Mean φ over these.
        pub phi_mean: Option<f64>,
        /// Expected φ of Gaussian matrices.
        pub gaussian_expected: Option<f64>,
        /// Mean over draws of the control's average.
        pub w0_mean: Option<f64>,
        /// Standard deviation of that (ddof 1).
        pub w0_sd: Option<f64>,
        /// Share of draws (with the observation) whose average is at least `phi_mean`.
        pub w0_p: Option<f64>,
        /// The worst status of the rows.
        pub status: Status,
    }
}

row! {
    /// One row of `training.csv`: a number that was logged while an adapter was trained.
    pub struct TrainingRow in "training" {
        /// Adapter name.
        pub adapter: String,
        /// Optimiser steps done.
        pub step: usize,
        /// Epochs done.
        pub epoch: Option<f64>,
        /// What was logged (`loss`, `eval_accuracy`).
        pub name: String,
        /// Its value; none where it was NaN or infinite.
        pub value: Option<f64>,
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::ValueKind;
    use super::*;

    impl SummaryRow {
        /// An average above chance and about as high as the base model alone gives.
        pub(crate) fn example() -> Self {
            Self {
                adapter: "a".into(),
                module: "query".into(),
                matrix: MatrixKind::A,
                side: Side::Left,
                i: 8,
                j: 8,
                layers: 6,
                phi_mean: Some(0.06),
                phi_min: Some(0.05),
                phi_max: Some(0.07),
                gaussian_expected: Some(0.02),
                gaussian_mean: Some(0.02),
                gaussian_sd: Some(0.001),
                w0_mean: Some(0.05),
                w0_sd: Some(0.01),
                w0_expected: None,
                w0_z: Some(1.0),
                w0_p: Some(0.3),
                init_mean: None,
                status: Status::Ok,
            }
        }
    }

    #[test]
    fn columns_are_those_that_are_promised() {
        assert_eq!(
            SummaryRow::COLUMNS.join(","),
            "adapter,module,matrix,side,i,j,layers,phi_mean,phi_min,phi_max,gaussian_expected,gaussian_mean,gaussian_sd,\
             w0_mean,w0_sd,w0_expected,w0_z,w0_p,init_mean,status"
        );
        assert_eq!(
            SimilarityRow::COLUMNS.join(","),
            "adapter,module,matrix,side,i,j,layer_a,layer_b,phi,phi_error_bound,gaussian_mean,gaussian_sd,w0_mean,w0_sd,\
             w0_expected,init,status"
        );
        assert_eq!(
            ConversionRow::COLUMNS.join(","),
            "adapter,module,layer,adapter_key,tensor,out_features,in_features,rank,scaling,convention,method,w0_dtype,\
             adapter_dtype,w0_rank,w0_condition,residual_a,residual_b,backward_error_a,backward_error_b,norm_a,norm_b,\
             norm_delta,status"
        );
        assert_eq!(SpectrumRow::COLUMNS.join(","), "adapter,module,matrix,layer,k,sigma");
        assert_eq!(
            CompareRow::COLUMNS.join(","),
            "left,right,module,layer,matrix,side,i,j,phi,cosine,gaussian_expected,w0_mean,w0_sd,w0_p,status"
        );
        assert_eq!(
            AcrossRow::COLUMNS.join(","),
            "module,layer,matrix,side,i,j,adapter_a,adapter_b,phi,gaussian_expected,w0_expected,init,status"
        );
        assert_eq!(GridRow::COLUMNS.join(","), "adapter,module,matrix,side,layer_a,layer_b,i,j,phi,gaussian_expected,status");
        assert_eq!(TrainingRow::COLUMNS.join(","), "adapter,step,epoch,name,value");
        assert_eq!(
            MeasureRow::COLUMNS.join(","),
            "adapter,module,matrix,side,i,j,layer_a,layer_b,measure,value,gaussian_mean,gaussian_sd,w0_mean,w0_sd,status"
        );
    }

    #[test]
    fn types_are_those_of_the_fields() {
        let of = |name| SpectrumRow::TYPES[SpectrumRow::COLUMNS.iter().position(|column| *column == name).unwrap()];
        assert_eq!(of("matrix"), ColumnType { kind: ValueKind::Text, nullable: false });
        assert_eq!(of("layer"), ColumnType { kind: ValueKind::Layer, nullable: true });
        assert_eq!(of("k"), ColumnType { kind: ValueKind::Integer, nullable: false });
        assert_eq!(of("sigma"), ColumnType { kind: ValueKind::Float, nullable: true });
    }
}
