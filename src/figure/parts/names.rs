//! The names of matrices and of φ in all figures, and the line above a figure.

use crate::figure::scene::font::{self, fit};
use crate::terms::{MatrixKind, Status, UpdateMatrix};

/// `Θ_A`, or `lora_A` for a factor.
pub(crate) fn matrix_name(matrix: MatrixKind) -> String {
    if matrix.is_factor() { matrix.name().to_owned() } else { format!("Θ_{}", matrix.name()) }
}

/// `φ(8,8)`.
pub(crate) fn phi_name(i: usize, j: usize) -> String {
    format!("φ({i},{j})")
}

/// `status rank`: the worst of some rows, where it is not ok.
pub(crate) fn doubt(statuses: impl Iterator<Item = Status>) -> Option<String> {
    let worst = statuses.fold(Status::Ok, Status::worse);
    (worst != Status::Ok).then(|| format!("status {worst}"))
}

/// `A`, `B`, `B·A`.
pub(crate) fn update_name(matrix: UpdateMatrix) -> &'static str {
    match matrix {
        UpdateMatrix::A => "A",
        UpdateMatrix::B => "B",
        UpdateMatrix::Delta => "B·A",
    }
}

/// `ADAPTER: query · Θ_A, left, φ(8,8)` within `room`, where `what` is what follows the module: the names are shortened, the rest is not.
pub(crate) fn heading((adapter, module): (&str, &str), what: &str, size: f64, room: f64) -> String {
    let names = room - font::width(what, size) - font::width(": ", size);
    // Each name gets what the other leaves, and at least half.
    let module = fit(module, size, (names - font::width(adapter, size)).max(names / 2.0));
    let adapter = fit(adapter, size, names - font::width(&module, size));
    format!("{adapter}: {module}{what}")
}
