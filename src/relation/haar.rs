//! Random directions in place of an update's: orthonormal columns that prefer nothing (Haar's measure).

use ndarray::Array2;

use crate::controls::{Control, Factor, draw};
use crate::error::{Error, Result};
use crate::linalg::subspace::ThinQr;

/// `rank` orthonormal columns of length `length` in place of an update's input directions ([`Factor::A`]) or output directions ([`Factor::B`]).
///
/// The first k of them are those of a smaller rank k.
///
/// # Errors
/// [`crate::Error::Shape`] if there are more columns than rows.
pub(super) fn directions(
    seed: u64,
    stream: &str,
    factor: Factor,
    number: usize,
    length: usize,
    rank: usize,
) -> Result<Array2<f64>> {
    if rank > length {
        let (expected, found) = (format!("at most {length} directions"), rank.to_string());
        return Err(Error::Shape { what: "random directions", expected, found });
    }
    let qr = ThinQr::of(draw(seed, Control::Haar, stream, factor, number, length, rank).view())?;
    let (mut q, r) = (qr.q(), qr.r);
    // Householder's signs depend on what they reflect: only with a positive diagonal of R is Q uniform (Mezzadri 2007, Notices of the AMS 54, 592).
    for (mut column, diagonal) in q.columns_mut().into_iter().zip(r.diag()) {
        if *diagonal < 0.0 {
            column.mapv_inplace(|v| -v);
        }
    }
    Ok(q)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::s;

    #[test]
    fn columns_are_orthonormal_and_those_of_a_smaller_rank_come_first() {
        let five = directions(3, "t", Factor::A, 2, 40, 5).unwrap();
        let off = five.t().dot(&five) - Array2::<f64>::eye(5);
        assert!(off.iter().all(|v| v.abs() < 1e-14));
        let two = directions(3, "t", Factor::A, 2, 40, 2).unwrap();
        assert!((&two - &five.slice(s![.., ..2])).iter().all(|v| v.abs() < 1e-14));
        assert_ne!(two, directions(3, "t", Factor::B, 2, 40, 2).unwrap());
        assert!(directions(3, "t", Factor::A, 2, 4, 5).is_err());
    }

    #[test]
    fn no_direction_and_no_sign_is_preferred() {
        let (draws, n) = (4000, 3);
        let mut means = Array2::<f64>::zeros((n, n));
        let mut squares = means.clone();
        for number in 0..draws {
            let q = directions(3, "t", Factor::B, number, n, n).unwrap();
            means += &q;
            squares += &q.mapv(|v| v * v);
        }
        // Five standard errors: the variance of an entry is 1/n, that of its square below 1/n.
        let allowed = 5.0 * (draws as f64 / n as f64).sqrt();
        assert!(means.iter().all(|v| v.abs() < allowed), "{means}");
        assert!(squares.iter().all(|v| (v - draws as f64 / n as f64).abs() < allowed), "{squares}");
    }
}
