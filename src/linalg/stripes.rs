//! One matrix on several threads: stripes of its columns, each of which is changed alone.

use ndarray::{ArrayViewMut2, Axis};
use rayon::prelude::*;

/// The narrowest stripe: down to this width the matrix product gives a column the same bits in a stripe as in the whole, and is about as fast.
const NARROWEST: usize = 256;

/// Stripes are multiples of this, so that no column leaves a vector register for the loop over the columns that are left at the end.
const WHOLE: usize = 64;

/// Changes a matrix by stripes of its columns, on the threads of the pool that have nothing else to do.
///
/// `work` has to treat each column by itself: then the result does not depend on how many stripes there are.
pub(super) fn in_stripes(mut matrix: ArrayViewMut2<'_, f64>, work: impl Fn(ArrayViewMut2<'_, f64>) + Sync) {
    let columns = matrix.ncols();
    let stripes = (columns / NARROWEST).min(rayon::current_num_threads());
    if stripes <= 1 {
        return work(matrix);
    }
    let parts: Vec<_> = matrix.axis_chunks_iter_mut(Axis(1), columns.div_ceil(stripes).next_multiple_of(WHOLE)).collect();
    parts.into_par_iter().for_each(&work);
}

#[cfg(test)]
mod tests {
    use super::super::lu::LuFactors;
    use super::super::qr::QrFactors;
    use super::super::random::normal_stream;
    use ndarray::Array2;

    #[test]
    fn threads_do_not_change_a_bit() {
        // Wide enough for three stripes at the first levels of both factorisations.
        let (m, n) = (1700, 1650);
        let w = Array2::from_shape_vec((m, n), normal_stream(4, &[b"stripes"], m * n)).unwrap();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let square = w.slice(ndarray::s![..n, ..]).to_owned();
                let (lu, qr) = (LuFactors::factorise(square).unwrap(), QrFactors::factorise(w.clone()).unwrap());
                (lu.into_storage(), qr.packed)
            })
        };
        let one = on(1);
        for threads in [2, 3] {
            assert!(on(threads) == one, "{threads} threads");
        }
    }
}
