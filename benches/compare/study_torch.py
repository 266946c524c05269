"""The study in PyTorch (CPU), float64, written for speed.

One in-place LU per base matrix in a buffer that each thread keeps; all right-hand sides in one lu_solve. A row-major W0 is a column-major
W0^T: it is factorised as it lies and solved with the adjoint, so nothing is copied but float32 to float64.
"""
import time

import study_io

args = study_io.parse_arguments(__doc__.splitlines()[0])

import threading  # noqa: E402

import torch  # noqa: E402

torch.set_num_threads(args.blas_threads)


def tensor(file, name):
    shape, offset = file.locate(name)
    return torch.frombuffer(file.map, dtype=torch.float32, count=shape[0] * shape[1], offset=offset).view(shape)


def load_w0(kept, w0):
    """W0^T as float64, column-major, in the buffer of this thread."""
    n = w0.shape[0]
    if getattr(kept, "buffer", None) is None or kept.buffer.shape[0] != n:
        kept.buffer = torch.empty((n, n), dtype=torch.float64)
        kept.pivots, kept.info = torch.empty(n, dtype=torch.int32), torch.empty((), dtype=torch.int32)
    return kept.buffer.copy_(w0).mT


@torch.inference_mode()
def solve_layer(kept, base, adapters, path, out):
    """Fills `out [adapter, matrix, r, n]`: rows are the left singular vectors of Theta_A, Theta_B and Theta_BA."""
    started = time.perf_counter()
    w0_t = load_w0(kept, tensor(base, path + ".weight"))
    count, _, r, n = out.shape
    targets = torch.empty((count, 2, r, n), dtype=torch.float64)  # rows are the columns of A^T and B: a column-major right-hand side
    for target, (_, file) in zip(targets, adapters):
        target[0] = tensor(file, f"base_model.model.{path}.lora_A.weight")
        target[1] = tensor(file, f"base_model.model.{path}.lora_B.weight").mT
    read = time.perf_counter()

    torch.linalg.lu_factor_ex(w0_t, out=(w0_t, kept.pivots, kept.info))
    if kept.info.item() != 0:
        raise SystemExit(f"error: lu_factor_ex: expected info 0, found {kept.info.item()}")
    theta = torch.linalg.lu_solve(w0_t, kept.pivots, targets.view(-1, n).mT, adjoint=True)
    solved = time.perf_counter()

    q, triangles = torch.linalg.qr(theta.mT.reshape(count, 2, r, n).mT)
    triangle_a = torch.linalg.qr(targets[:, 0].mT, mode="r")[1]
    core = triangles[:, 1:] @ triangle_a.mT.unsqueeze(1)  # Theta_B A = Q_B (R_B R_A^T) Q_A^T
    u = torch.linalg.svd(torch.cat((triangles, core), dim=1))[0]
    torch.matmul(u.mT, q.mT[:, (0, 1, 1)], out=out)
    return read - started, solved - read


@torch.inference_mode()
def main():
    started = time.perf_counter()
    base = study_io.MappedTensors(f"{args.base}/model.safetensors")
    adapters = study_io.open_adapters(args.adapters)
    modules = study_io.list_modules(adapters[0][1])
    kept, jobs, bases = threading.local(), [], {}
    for module, layers in modules.items():
        r, n = tensor(adapters[0][1], f"base_model.model.{next(iter(layers.values()))}.lora_A.weight").shape
        bases[module] = torch.empty((len(adapters), 3, len(layers), r, n), dtype=torch.float64)
        jobs += [(kept, base, adapters, path, bases[module][:, :, k]) for k, path in enumerate(layers.values())]
    spent = study_io.run_jobs(args.workers, solve_layer, jobs)
    phi = {}
    for module, layers in modules.items():
        stacked = bases[module].flatten(2, 3)
        blocks = (stacked @ stacked.mT).square_().view(len(adapters), 3, len(layers), r, len(layers), r)
        for (name, _), per_matrix in zip(adapters, blocks.sum(dim=(3, 5)) / r):
            for matrix, rows in zip(study_io.MATRICES, per_matrix):
                phi[name, module, matrix] = (list(layers), rows.tolist())
    analysis = time.perf_counter() - started
    timings = {"read": sum(x for x, _ in spent), "solve": sum(x for _, x in spent), "analysis": analysis}
    study_io.report(args.out, r, phi, timings)


main()
