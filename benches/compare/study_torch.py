"""The study in PyTorch (CPU), float64, written for speed.

One factorisation in place per base matrix in a buffer that each thread keeps; all right-hand sides together. A row-major square W0 is a
column-major W0^T: its LU is taken as it lies and solved with the adjoint, so nothing is copied but float32 to float64. One that is not
square is factorised by `geqrf`, or its transpose where it is wide, and Q is applied by `ormqr`, never formed.
"""
import time

import study_io

args = study_io.parse_arguments(__doc__.splitlines()[0])

import threading  # noqa: E402

import torch  # noqa: E402

torch.set_num_threads(args.blas_threads)


def tensor(file, name):
    dtype, shape, offset = file.locate(name)
    dtype = torch.bfloat16 if dtype == "BF16" else torch.float32
    return torch.frombuffer(file.map, dtype=dtype, count=shape[0] * shape[1], offset=offset).view(shape)


def load_w0(kept, w0, by_columns):
    """W0 as float64 in the buffer of this thread, row by row or column by column."""
    if getattr(kept, "storage", None) is None or kept.storage.numel() < w0.numel():
        kept.storage = torch.empty(w0.numel(), dtype=torch.float64)
    buffer = kept.storage[:w0.numel()]
    buffer = buffer.view(w0.shape[1], w0.shape[0]).mT if by_columns else buffer.view(w0.shape)
    return buffer.copy_(w0)


def solve_square(kept, w0, a, b):
    """Theta_A and Theta_B (n, count*r) of `W0 Theta_A = A^T` and `W0 Theta_B = B`."""
    factors = load_w0(kept, w0, by_columns=False).mT
    pivots, info = torch.empty(w0.shape[0], dtype=torch.int32), torch.empty((), dtype=torch.int32)
    torch.linalg.lu_factor_ex(factors, out=(factors, pivots, info))
    if info.item() != 0:
        raise SystemExit(f"error: lu_factor_ex: expected info 0, found {info.item()}")
    theta = torch.linalg.lu_solve(factors, pivots, torch.cat((a, b)).mT, adjoint=True)
    return theta.tensor_split(2, dim=1)


def solve_rectangular(kept, w0, a, b):
    """Theta_A (out, count*r) of least norm with `W0^T Theta_A = A^T`, and Theta_B (in, count*r) of least squares; both exact where they can be."""
    tall = w0.shape[0] > w0.shape[1]
    factors = load_w0(kept, w0, by_columns=tall)
    factors = factors if tall else factors.mT
    m, n = factors.shape
    tau = torch.empty(n, dtype=torch.float64)
    torch.geqrf(factors, out=(factors, tau))
    triangle = factors[:n].triu()
    least_squares, least_norm = (b.mT, a.mT) if tall else (a.mT, b.mT)
    inner = torch.ormqr(factors, tau, least_squares, transpose=True)
    by_squares = torch.linalg.solve_triangular(triangle, inner[:n], upper=True)
    padded = torch.zeros((least_norm.shape[1], m), dtype=torch.float64).mT
    padded[:n] = torch.linalg.solve_triangular(triangle.mT, least_norm, upper=False)
    by_norm = torch.ormqr(factors, tau, padded)
    return (by_norm, by_squares) if tall else (by_squares, by_norm)


@torch.inference_mode()
def solve_layer(kept, base, adapters, path, out):
    """Fills `out {matrix: [adapter, r, n]}`: rows are the left singular vectors of Theta_A, Theta_B and Theta_BA."""
    started = time.perf_counter()
    w0 = tensor(base, path + ".weight")
    count, r = out["A"].shape[:2]
    lora_a = torch.empty((count, r, w0.shape[1]), dtype=torch.float64)
    lora_b = torch.empty((count, r, w0.shape[0]), dtype=torch.float64)  # B^T: rows are right-hand sides
    for index, (_, file) in enumerate(adapters):
        lora_a[index] = tensor(file, f"base_model.model.{path}.lora_A.weight")
        lora_b[index] = tensor(file, f"base_model.model.{path}.lora_B.weight").mT
    read = time.perf_counter()

    by = solve_square if w0.shape[0] == w0.shape[1] else solve_rectangular
    theta_a, theta_b = by(kept, w0, lora_a.view(count * r, -1), lora_b.view(count * r, -1))
    solved = time.perf_counter()

    (q_a, core_a), (q_b, core_b) = (torch.linalg.qr(theta.mT.reshape(count, r, -1).mT) for theta in (theta_a, theta_b))
    triangle_a = torch.linalg.qr(lora_a.mT, mode="r")[1]
    core_ba = core_b @ triangle_a.mT  # Theta_B A = Q_B (R_B R_A^T) Q_A^T
    u = torch.linalg.svd(torch.stack((core_a, core_b, core_ba)))[0].mT
    for own, q, matrix in zip(u, (q_a, q_b, q_b), study_io.MATRICES):
        out[matrix].copy_(own @ q.mT)
    return read - started, solved - read


@torch.inference_mode()
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
        bases[module] = {
            matrix: torch.empty((len(adapters), len(layers), r, n), dtype=torch.float64) for matrix, n in lengths.items()}
        for k, path in enumerate(layers.values()):
            jobs.append((kept, base, adapters, path, {matrix: whole[:, k] for matrix, whole in bases[module].items()}))
    spent = study_io.run_jobs(args.workers, solve_layer, jobs)
    phi = {}
    for module, layers in modules.items():
        for matrix, whole in bases[module].items():
            stacked = whole.flatten(1, 2)
            blocks = (stacked @ stacked.mT).square_().view(len(adapters), len(layers), r, len(layers), r)
            for (name, _), rows in zip(adapters, blocks.sum(dim=(2, 4)) / r):
                phi[name, module, matrix] = (list(layers), rows.tolist())
    analysis = time.perf_counter() - started
    timings = {"read": sum(x for x, _ in spent), "solve": sum(x for _, x in spent), "analysis": analysis}
    study_io.report(args.out, r, phi, timings)


main()
