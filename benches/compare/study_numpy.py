"""The study in NumPy (and SciPy), float64, written for speed.

One factorisation per base matrix for all right-hand sides, in a buffer that each thread keeps. `--solver getrf` (SciPy): a row-major
square W0 is a column-major W0^T, which is factorised in place as it lies and solved transposed; nothing is copied but float32 to
float64. One that is not square is factorised by `geqrf`, or its transpose where it is wide, and Q is applied by `ormqr`, never formed.
`--solver solve` (NumPy alone): slower, for `numpy.linalg.solve` copies its input, but it does without the import of scipy.linalg;
square weights only.
"""
import time

import study_io

args = study_io.parse_arguments(__doc__.splitlines()[0], solvers=("getrf", "solve"))

import threading  # noqa: E402

import numpy as np  # noqa: E402

if args.solver == "getrf":
    from scipy.linalg.lapack import dgeqrf, dgetrf, dgetrs, dormqr, dtrtrs


def tensor(file, name):
    dtype, shape, offset = file.locate(name)
    if dtype == "BF16":
        bits = np.frombuffer(file.map, np.uint16, shape[0] * shape[1], offset).reshape(shape)
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(file.map, np.float32, shape[0] * shape[1], offset).reshape(shape)


def load_w0(kept, w0, order):
    """W0 as float64 in the buffer of this thread, row by row or column by column."""
    if getattr(kept, "storage", None) is None or kept.storage.size < w0.size:
        kept.storage = np.empty(w0.size)
    buffer = kept.storage[:w0.size].reshape(w0.shape, order=order)
    buffer[...] = w0
    return buffer


def solve(w0, targets):
    if args.solver == "solve":
        return np.linalg.solve(w0, targets)
    factors, pivots, info = dgetrf(w0.T, overwrite_a=1)
    if info != 0:
        raise SystemExit(f"error: dgetrf: expected info 0, found {info}")
    return dgetrs(factors, pivots, targets, trans=1, overwrite_b=1)[0]


def solve_square(kept, w0, a, b):
    """Theta_A and Theta_B (n, count*r) of `W0 Theta_A = A^T` and `W0 Theta_B = B`."""
    factors = load_w0(kept, w0, "F" if args.solver == "solve" else "C")
    theta = solve(factors, np.vstack((a, b)).T)  # column-major right-hand sides
    return np.split(theta, 2, axis=1)


def solve_rectangular(kept, w0, a, b):
    """Theta_A (out, count*r) of least norm with `W0^T Theta_A = A^T`, and Theta_B (in, count*r) of least squares; both exact where they can be."""
    tall = w0.shape[0] > w0.shape[1]
    buffer = load_w0(kept, w0, "F") if tall else load_w0(kept, w0, "C").T
    m, n = buffer.shape
    qr, tau, _, info = dgeqrf(buffer, lwork=64 * n, overwrite_a=1)
    least_squares, least_norm = (b.T, a.T) if tall else (a.T, b.T)
    inner = dormqr("L", "T", qr, tau, least_squares, lwork=64 * least_squares.shape[1])[0]
    by_squares, info_squares = dtrtrs(qr[:n], inner[:n])
    padded = np.zeros((m, least_norm.shape[1]), order="F")
    padded[:n], info_norm = dtrtrs(qr[:n], least_norm, trans=1)
    by_norm = dormqr("L", "N", qr, tau, padded, lwork=64 * padded.shape[1], overwrite_c=1)[0]
    if info or info_squares or info_norm:
        raise SystemExit(f"error: expected info 0, found {info}, {info_squares}, {info_norm}")
    return (by_norm, by_squares) if tall else (by_squares, by_norm)


def solve_layer(kept, base, adapters, path, out):
    """Fills `out {matrix: [adapter, r, n]}`: rows are the left singular vectors of Theta_A, Theta_B and Theta_BA."""
    started = time.perf_counter()
    w0 = tensor(base, path + ".weight")
    count, r = out["A"].shape[:2]
    lora_a = np.empty((count, r, w0.shape[1]))
    lora_b = np.empty((count, r, w0.shape[0]))  # B^T: rows are right-hand sides
    for index, (_, file) in enumerate(adapters):
        lora_a[index] = tensor(file, f"base_model.model.{path}.lora_A.weight")
        lora_b[index] = tensor(file, f"base_model.model.{path}.lora_B.weight").T
    read = time.perf_counter()

    by = solve_square if w0.shape[0] == w0.shape[1] else solve_rectangular
    theta_a, theta_b = by(kept, w0, lora_a.reshape(count * r, -1), lora_b.reshape(count * r, -1))
    solved = time.perf_counter()

    (q_a, core_a), (q_b, core_b) = (np.linalg.qr(theta.T.reshape(count, r, -1).swapaxes(1, 2)) for theta in (theta_a, theta_b))
    triangle_a = np.linalg.qr(lora_a.swapaxes(1, 2), mode="r")
    core_ba = core_b @ triangle_a.swapaxes(1, 2)  # Theta_B A = Q_B (R_B R_A^T) Q_A^T
    u = np.linalg.svd(np.stack((core_a, core_b, core_ba)))[0].swapaxes(2, 3)
    for own, q, matrix in zip(u, (q_a, q_b, q_b), study_io.MATRICES):
        np.matmul(own, q.swapaxes(1, 2), out=out[matrix])
    return read - started, solved - read


def main():
    started = time.perf_counter()
    base = study_io.MappedTensors(f"{args.base}/model.safetensors")
    adapters = study_io.open_adapters(args.adapters)
    modules = study_io.list_modules(adapters[0][1])
    kept, jobs, bases = threading.local(), [], {}
    for module, layers in modules.items():
        path = next(iter(layers.values()))
        (d_out, d_in), r = base.locate(path + ".weight")[1], adapters[0][1].locate(f"base_model.model.{path}.lora_A.weight")[1][0]
        lengths = dict(zip(study_io.MATRICES, (d_out, d_in, d_in)))
        bases[module] = {matrix: np.empty((len(adapters), len(layers), r, n)) for matrix, n in lengths.items()}
        for k, path in enumerate(layers.values()):
            jobs.append((kept, base, adapters, path, {matrix: whole[:, k] for matrix, whole in bases[module].items()}))
    spent = study_io.run_jobs(args.workers, solve_layer, jobs)
    phi = {}
    for module, layers in modules.items():
        for index, (name, _) in enumerate(adapters):
            for matrix, whole in bases[module].items():
                stacked = whole[index].reshape(-1, whole.shape[-1])
                gram = stacked @ stacked.T  # one syrk for all pairs of layers
                gram *= gram
                blocks = gram.reshape(len(layers), r, len(layers), r)
                phi[name, module, matrix] = (list(layers), (blocks.sum(axis=(1, 3)) / r).tolist())
    analysis = time.perf_counter() - started
    timings = {"read": sum(x for x, _ in spent), "solve": sum(x for _, x in spent), "analysis": analysis}
    study_io.report(args.out, r, phi, timings)


main()
