//! The names of matrices and of φ in all figures.

use crate::terms::{MatrixKind, UpdateMatrix};

/// `Θ_A`, or `lora_A` for a factor.
pub(crate) fn matrix_name(matrix: MatrixKind) -> String {
    if matrix.is_factor() { matrix.name().to_owned() } else { format!("Θ_{}", matrix.name()) }
}

/// `φ(8,8)`.
pub(crate) fn phi_name(i: usize, j: usize) -> String {
    format!("φ({i},{j})")
}

/// `A`, `B`, `B·A`.
pub(crate) fn update_name(matrix: UpdateMatrix) -> &'static str {
    match matrix {
        UpdateMatrix::A => "A",
        UpdateMatrix::B => "B",
        UpdateMatrix::Delta => "B·A",
    }
}
