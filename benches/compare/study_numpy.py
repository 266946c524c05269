"""The study in NumPy (and SciPy), float64, written for speed.

One LU per base matrix for all right-hand sides, in a buffer that each thread keeps. `--solver getrf` (SciPy): a row-major W0 is a
column-major W0^T, which is factorised in place as it lies and solved transposed; nothing is copied but float32 to float64.
`--solver solve` (NumPy alone): slower, for `numpy.linalg.solve` copies its input, but it does without the import of scipy.linalg.
"""
import time

import study_io

args = study_io.parse_arguments(__doc__.splitlines()[0], solvers=("getrf", "solve"))

import threading  # noqa: E402

import numpy as np  # noqa: E402

if args.solver == "getrf":
    from scipy.linalg.lapack import dgetrf, dgetrs


def tensor(file, name):
    shape, offset = file.locate(name)
    return np.frombuffer(file.map, np.float32, shape[0] * shape[1], offset).reshape(shape)


def load_w0(kept, w0):
    """W0 as float64 in the buffer of this thread; laid out so that LAPACK sees W0^T (getrf), or W0 (solve) column by column."""
    n = w0.shape[0]
    if getattr(kept, "buffer", None) is None or kept.buffer.shape != (n, n):
        kept.buffer = np.empty((n, n))
        if args.solver == "solve":
            kept.buffer = kept.buffer.T
    kept.buffer[...] = w0
    return kept.buffer


def solve(w0, targets):
    if args.solver == "solve":
        return np.linalg.solve(w0, targets)
    factors, pivots, info = dgetrf(w0.T, overwrite_a=1)
    if info != 0:
        raise SystemExit(f"error: dgetrf: expected info 0, found {info}")
    return dgetrs(factors, pivots, targets, trans=1, overwrite_b=1)[0]


def solve_layer(kept, base, adapters, path, out):
    """Fills `out [adapter, matrix, r, n]`: rows are the left singular vectors of Theta_A, Theta_B and Theta_BA."""
    started = time.perf_counter()
    w0 = load_w0(kept, tensor(base, path + ".weight"))
    count, _, r, n = out.shape
    targets = np.empty((count, 2, r, n))  # rows are the columns of A^T and B: a column-major right-hand side
    for target, (_, file) in zip(targets, adapters):
        target[0] = tensor(file, f"base_model.model.{path}.lora_A.weight")
        target[1] = tensor(file, f"base_model.model.{path}.lora_B.weight").T
    lora_a = targets[:, 0].copy()
    read = time.perf_counter()

    theta = solve(w0, targets.reshape(-1, n).T)
    solved = time.perf_counter()

    q, triangles = np.linalg.qr(theta.T.reshape(count, 2, r, n).swapaxes(2, 3))
    cores = np.empty((count, 3, r, r))
    cores[:, :2] = triangles
    triangle_a = np.linalg.qr(lora_a.swapaxes(1, 2), mode="r")
    np.matmul(triangles[:, 1], triangle_a.swapaxes(1, 2), out=cores[:, 2])  # Theta_B A = Q_B (R_B R_A^T) Q_A^T
    u = np.linalg.svd(cores)[0]
    np.matmul(u.swapaxes(2, 3), q.swapaxes(2, 3)[:, (0, 1, 1)], out=out)
    return read - started, solved - read


def main():
    started = time.perf_counter()
    base = study_io.MappedTensors(f"{args.base}/model.safetensors")
    adapters = study_io.open_adapters(args.adapters)
    modules = study_io.list_modules(adapters[0][1])
    kept, jobs, bases = threading.local(), [], {}
    for module, layers in modules.items():
        r, n = tensor(adapters[0][1], f"base_model.model.{next(iter(layers.values()))}.lora_A.weight").shape
        bases[module] = np.empty((len(adapters), 3, len(layers), r, n))
        jobs += [(kept, base, adapters, path, bases[module][:, :, k]) for k, path in enumerate(layers.values())]
    spent = study_io.run_jobs(args.workers, solve_layer, jobs)
    phi = {}
    for module, layers in modules.items():
        for (name, _), per_matrix in zip(adapters, bases[module]):
            for matrix, rows in zip(study_io.MATRICES, per_matrix):
                stacked = rows.reshape(-1, rows.shape[2])
                gram = stacked @ stacked.T  # one syrk for all pairs of layers
                gram *= gram
                blocks = gram.reshape(len(layers), r, len(layers), r)
                phi[name, module, matrix] = (list(layers), (blocks.sum(axis=(1, 3)) / r).tolist())
    analysis = time.perf_counter() - started
    timings = {"read": sum(x for x, _ in spent), "solve": sum(x for _, x in spent), "analysis": analysis}
    study_io.report(args.out, r, phi, timings)


main()
