//! The one module with `unsafe`: safe wrappers around LAPACK, OpenBLAS, the matrix product, and how matrices are allocated.
//!
//! It checks shapes and calls; it decides nothing. `ndarray-linalg` covers QR and SVD; this module has what it lacks:
//! factorise a panel in place, bring a triangle up to date with more rows, estimate a triangle's condition, the symmetric eigenproblem by divide and
//! conquer, multiply into a view of a larger matrix, and keep BLAS at one thread.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::sync::Once;

use lapack_sys::{dgetrf_, dsyevd_, dtpmqrt_, dtpqrt_};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
// Links the BLAS and LAPACK that ndarray-linalg was built with.
use ndarray_linalg as _;

use crate::error::{Error, Result};

unsafe extern "C" {
    fn openblas_set_num_threads(threads: c_int);
    fn openblas_get_num_threads() -> c_int;
    fn openblas_get_config() -> *const c_char;
    fn openblas_get_corename() -> *const c_char;
}

/// Keeps OpenBLAS at one thread for the life of the process, and ends the threads it has started.
///
/// A threaded BLAS called from a rayon worker overflows its stack; one BLAS thread and rayon over layers is also faster. OpenBLAS starts a thread a core
/// when it is loaded, and each spins for its first 26 ms, which is as long as a small study takes.
///
/// Every routine of [`crate::linalg`] that reaches BLAS calls this first; a program should call it at its start.
pub fn use_one_blas_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: takes a plain integer and sets a process-wide setting of the linked OpenBLAS; `Once` orders it before
        // every later BLAS call that passed through here.
        unsafe { openblas_set_num_threads(1) };
        // Builds of OpenBLAS without threads lack this function, so it is looked up rather than linked.
        // SAFETY: the name is NUL-terminated; looking a symbol up has no other effect.
        let shutdown = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"blas_thread_shutdown_".as_ptr()) };
        if !shutdown.is_null() {
            // SAFETY: OpenBLAS declares it `int blas_thread_shutdown_(void)`. It joins the waiting threads; with the number of threads at one, no
            // call ever hands work to them, and its own exit handler finds them gone.
            unsafe {
                let shutdown: extern "C" fn() -> c_int = std::mem::transmute(shutdown);
                shutdown();
            }
        }
    });
}

/// Lets every freed matrix of a megabyte or more go back to the system at once, where the C library is glibc.
///
/// By itself it raises that bound to the largest matrix freed so far: later ones come from the heaps of the threads, which keep what was freed below
/// anything that is not, so that a process holds more than twice what it uses. For programs, as it holds for the whole process.
pub fn free_large_matrices_at_once() {
    // SAFETY: takes plain integers, and changes how later allocations are made and no earlier one.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// How many threads OpenBLAS works with: before [`use_one_blas_thread`] all that it started when it was loaded, this one included.
#[must_use]
pub(crate) fn blas_threads() -> usize {
    // SAFETY: reads a process-wide setting of the linked OpenBLAS.
    let threads = unsafe { openblas_get_num_threads() };
    usize::try_from(threads).unwrap_or(1).max(1)
}

/// The version and build options of the linked OpenBLAS, and the kernel it chose for this CPU.
#[must_use]
pub fn blas_description() -> String {
    // SAFETY: both return pointers to static NUL-terminated strings inside the library.
    let (config, core) = unsafe {
        (CStr::from_ptr(openblas_get_config()).to_string_lossy(), CStr::from_ptr(openblas_get_corename()).to_string_lossy())
    };
    format!("{} ({core})", config.trim())
}

/// LAPACK's integer, or an error for a size it cannot hold.
fn lapack_int(value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::Shape {
        what: "LAPACK dimension",
        expected: format!("at most {}", i32::MAX),
        found: value.to_string(),
    })
}

/// Factorises a tall panel in LAPACK's column-by-column layout with partial pivoting (`getrf`).
///
/// # Shapes
/// `panel` holds `pivots.len()` columns of `rows` values, `stride` apart, at least as many rows as columns. Pivots come back 0-based.
///
/// Returns the first column whose pivot is exactly zero, if any.
pub(crate) fn factorise_panel(panel: &mut [f64], rows: usize, stride: usize, pivots: &mut [i32]) -> Result<Option<usize>> {
    let columns = pivots.len();
    if columns > rows || rows > stride || panel.len() != stride * columns {
        return Err(Error::Shape {
            what: "factorise_panel",
            expected: "a tall panel with one pivot a column".into(),
            found: format!("{} values, {rows} rows, stride {stride}, {columns} pivots", panel.len()),
        });
    }
    if columns == 0 {
        return Ok(None);
    }
    let (m, n, lda) = (lapack_int(rows)?, lapack_int(columns)?, lapack_int(stride)?);
    let mut info = 0;
    // SAFETY: `panel` is borrowed uniquely and holds n columns of m values, lda ≥ m apart, checked above; `pivots` has min(m, n) = n elements; all scalars
    // outlive the call.
    unsafe { dgetrf_(&m, &n, panel.as_mut_ptr(), &lda, pivots.as_mut_ptr(), &mut info) };
    if info < 0 {
        return Err(Error::Lapack { routine: "getrf", detail: format!("argument {} is illegal", -info) });
    }
    for pivot in pivots.iter_mut() {
        *pivot -= 1;
    }
    Ok(usize::try_from(info).ok().filter(|&i| i > 0).map(|i| i - 1))
}

/// `c ← c + alpha·a·b`, or `c ← alpha·a·b` when `accumulate` is false, on one thread.
///
/// Views may be strided in any way. The result's bits depend on the operands alone.
pub(crate) fn multiply_into(
    mut c: ArrayViewMut2<'_, f64>,
    accumulate: bool,
    alpha: f64,
    a: ArrayView2<'_, f64>,
    b: ArrayView2<'_, f64>,
) {
    let ((m, k), (k_b, n)) = (a.dim(), b.dim());
    assert_eq!((k, m, n), (k_b, c.nrows(), c.ncols()), "matrix product of mismatched shapes");
    let (rs_c, cs_c) = (c.strides()[0], c.strides()[1]);
    // SAFETY: the three views are valid for their shapes and strides, which are asserted to fit; `c` is borrowed uniquely, so it
    // overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            cs_c,
            rs_c,
            accumulate,
            a.as_ptr(),
            a.strides()[1],
            a.strides()[0],
            b.as_ptr(),
            b.strides()[1],
            b.strides()[0],
            1.0,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The product `a·b` on one thread: the matrix product that the factorisation is made of.
///
/// # Panics
/// If the inner sizes differ.
#[must_use]
pub fn multiply(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    multiply_into(c.view_mut(), false, 1.0, a, b);
    c
}

/// Eigenvalues of a symmetric matrix, smallest first, and its eigenvectors as columns in its place (`syevd`).
///
/// Divide and conquer: at n = 768 a third of the time of `syev`, which `ndarray-linalg` calls.
///
/// # Shapes
/// `matrix` (n, n) in standard layout, of which the upper triangle is read.
pub(crate) fn symmetric_eigen(matrix: &mut Array2<f64>) -> Result<Vec<f64>> {
    let n = matrix.nrows();
    let failed = |detail: String| Error::Lapack { routine: "syevd", detail };
    let size = lapack_int(n)?;
    let columns = matrix.ncols();
    let Some(data) = matrix.as_slice_mut().filter(|_| columns == n) else {
        return Err(Error::Shape {
            what: "symmetric_eigen",
            expected: "a square matrix in standard layout".into(),
            found: format!("({n}, {columns})"),
        });
    };
    if n == 0 {
        return Ok(Vec::new());
    }
    let mut values = vec![0.0; n];
    let mut call = |work: &mut [f64], iwork: &mut [c_int], ask: bool| -> Result<c_int> {
        let (lwork, liwork) = if ask { (-1, -1) } else { (lapack_int(work.len())?, lapack_int(iwork.len())?) };
        let mut info = 0;
        // SAFETY: `data` holds n·n values and `values` n, both borrowed uniquely; read column by column the matrix is its transpose, whose lower triangle ("L")
        // is the upper one. `work` and `iwork` have the sizes given, or at least one value where the sizes are asked for (-1).
        unsafe {
            dsyevd_(
                c"V".as_ptr(),
                c"L".as_ptr(),
                &size,
                data.as_mut_ptr(),
                &size,
                values.as_mut_ptr(),
                work.as_mut_ptr(),
                &lwork,
                iwork.as_mut_ptr(),
                &liwork,
                &mut info,
            );
        }
        Ok(info)
    };
    let (mut sizes, mut integer_sizes) = ([0.0], [0]);
    call(&mut sizes, &mut integer_sizes, true)?;
    let mut work = vec![0.0; sizes[0] as usize];
    let mut iwork = vec![0; usize::try_from(integer_sizes[0]).unwrap_or(1)];
    let info = call(&mut work, &mut iwork, false)?;
    if info != 0 {
        return Err(failed(format!("info = {info}")));
    }
    // Eigenvectors are LAPACK's columns, which are rows here.
    let transposed = matrix.t().as_standard_layout().into_owned();
    *matrix = transposed;
    Ok(values)
}

/// Columns that the blocked routines below treat together.
const BLOCK_COLUMNS: usize = 32;

/// The reflections that [`update_triangle`] made.
pub(crate) struct Reflections {
    t: Vec<f64>,
    block: usize,
}

/// QR of an upper triangle on top of a block of rows, in place (`tpqrt`): R becomes the triangle of both, the block the reflectors.
///
/// # Shapes
/// `r` (n, n) and `block` (m, n), both column by column; below its diagonal `r` is neither read nor written.
pub(crate) fn update_triangle(r: &mut [f64], block: &mut [f64], m: usize, n: usize) -> Result<Reflections> {
    if r.len() != n * n || block.len() != m * n {
        return Err(Error::Shape {
            what: "update_triangle",
            expected: format!("({n}, {n}) and ({m}, {n})"),
            found: format!("{} and {} values", r.len(), block.len()),
        });
    }
    let nb = BLOCK_COLUMNS.min(n).max(1);
    let mut t = vec![0.0; nb * n];
    if m == 0 || n == 0 {
        return Ok(Reflections { t, block: nb });
    }
    let (rows, columns, size, mut info) = (lapack_int(m)?, lapack_int(n)?, lapack_int(nb)?, 0);
    let mut work = vec![0.0; nb * n];
    // SAFETY: `r` holds n columns of n values, `block` n columns of m (checked above); the block has no trapezoidal part (l = 0); `t` is nb by n and `work` has
    // nb·n values, as the routine asks for; all are borrowed uniquely and outlive the call.
    unsafe {
        dtpqrt_(
            &rows,
            &columns,
            &0,
            &size,
            r.as_mut_ptr(),
            &columns,
            block.as_mut_ptr(),
            &rows,
            t.as_mut_ptr(),
            &size,
            work.as_mut_ptr(),
            &mut info,
        );
    }
    if info != 0 {
        return Err(Error::Lapack { routine: "tpqrt", detail: format!("info = {info}") });
    }
    Ok(Reflections { t, block: nb })
}

/// Applies the transposed reflections of [`update_triangle`] to the right-hand sides of the triangle and the block (`tpmqrt`).
///
/// # Shapes
/// `reflectors` (m, n) as `update_triangle` left the block; `top` (n, k) and `below` (m, k); all column by column.
pub(crate) fn reflect(
    by: &Reflections,
    reflectors: &[f64],
    top: &mut [f64],
    below: &mut [f64],
    (m, n, k): (usize, usize, usize),
) -> Result<()> {
    if reflectors.len() != m * n || top.len() != n * k || below.len() != m * k || by.t.len() != by.block * n {
        return Err(Error::Shape {
            what: "reflect",
            expected: format!("({m}, {n}), ({n}, {k}) and ({m}, {k})"),
            found: format!("{}, {} and {} values", reflectors.len(), top.len(), below.len()),
        });
    }
    if m == 0 || n == 0 || k == 0 {
        return Ok(());
    }
    let (rows, columns, count, size, mut info) = (lapack_int(m)?, lapack_int(n)?, lapack_int(k)?, lapack_int(by.block)?, 0);
    let mut work = vec![0.0; by.block * k];
    // SAFETY: shapes are checked above: V is m by n, T is nb by n, A is n by k and B is m by k, each with its rows as leading dimension; `work` has k·nb values
    // as side 'L' needs; all that is written is borrowed uniquely.
    unsafe {
        dtpmqrt_(
            c"L".as_ptr(),
            c"T".as_ptr(),
            &rows,
            &count,
            &columns,
            &0,
            &size,
            reflectors.as_ptr(),
            &rows,
            by.t.as_ptr(),
            &size,
            top.as_mut_ptr(),
            &columns,
            below.as_mut_ptr(),
            &rows,
            work.as_mut_ptr(),
            &mut info,
        );
    }
    if info != 0 {
        return Err(Error::Lapack { routine: "tpmqrt", detail: format!("info = {info}") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn buffers_that_do_not_fit_are_refused() {
        // Each case has one shape wrong, with which the call would read or write past the end.
        let mut pivots = [0; 2];
        for (values, rows, stride) in [(2, 1, 1), (4, 3, 2), (5, 2, 2), (8, 3, 3)] {
            assert!(factorise_panel(&mut vec![1.0; values], rows, stride, &mut pivots).is_err(), "{values} {rows} {stride}");
        }
        assert!(factorise_panel(&mut [1.0, 2.0, 3.0, 5.0], 2, 2, &mut pivots).is_ok_and(|zero| zero.is_none()));
        for (r, block) in [(3, 6), (4, 5)] {
            assert!(update_triangle(&mut vec![1.0; r], &mut vec![1.0; block], 3, 2).is_err());
        }
        let by = update_triangle(&mut [1.0, 0.0, 0.0, 1.0], &mut [1.0; 6], 3, 2).unwrap();
        let sides = |top: usize, below: usize, reflectors: usize, by: &Reflections| {
            reflect(by, &vec![1.0; reflectors], &mut vec![1.0; top], &mut vec![1.0; below], (3, 2, 4))
        };
        assert!(sides(8, 12, 6, &by).is_ok());
        for (top, below, reflectors) in [(7, 12, 6), (8, 11, 6), (8, 12, 5)] {
            assert!(sides(top, below, reflectors, &by).is_err());
        }
        assert!(sides(8, 12, 6, &Reflections { t: vec![0.0; 3], block: 2 }).is_err());
    }

    #[test]
    fn nothing_is_done_to_nothing() {
        let (mut r, mut block) = ([2.0], []);
        let by = update_triangle(&mut r, &mut block, 0, 1).unwrap();
        assert_eq!(r, [2.0]);
        assert!(reflect(&by, &[], &mut [3.0], &mut [], (0, 1, 1)).is_ok());
        let none = update_triangle(&mut [], &mut [], 2, 0).unwrap();
        assert!(reflect(&none, &[], &mut [], &mut [1.0, 2.0], (2, 0, 1)).is_ok());
        let by = update_triangle(&mut [1.0], &mut [1.0, 1.0], 2, 1).unwrap();
        assert!(reflect(&by, &[1.0, 1.0], &mut [], &mut [], (2, 1, 0)).is_ok());
    }

    #[test]
    fn eigenvalues_by_hand() {
        let mut matrix = array![[2.0, 1.0], [1.0, 2.0]];
        let values = symmetric_eigen(&mut matrix).unwrap();
        assert!((values[0] - 1.0).abs() < 1e-15 && (values[1] - 3.0).abs() < 1e-15);
        assert!((matrix[(0, 1)] - matrix[(1, 1)]).abs() < 1e-15 && (matrix[(0, 0)] + matrix[(1, 0)]).abs() < 1e-15);
        assert!(symmetric_eigen(&mut Array2::zeros((2, 3))).is_err());
        assert!(symmetric_eigen(&mut Array2::zeros((0, 0))).unwrap().is_empty());
    }
}
