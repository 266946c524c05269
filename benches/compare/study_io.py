"""What the study programs share: arguments, tensor names, the CSV, the printed means. Imports no numerical library."""
import argparse
import json
import mmap
import os
import re

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
COLUMNS = "adapter,module,matrix,side,i,j,layer_a,layer_b,phi"
MATRICES = ("A", "B", "BA")
ADAPTER_KEY = re.compile(r"base_model\.model\.(.*\.layers?\.(\d+)\..*\.(\w+))\.lora_A\.weight$")


def parse_arguments(description, solvers=()):
    """Reads the command line and sets the BLAS thread count, which has to happen before the numerical libraries are imported."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("base", help="folder with model.safetensors")
    parser.add_argument("adapters", help="an adapter folder, or a folder of adapter folders")
    parser.add_argument("out", help="CSV to write")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parallel", choices=("layers", "blas"), default="layers",
                        help="use threads for a pool over layers with one BLAS thread each, or for threaded BLAS layer by layer")
    if solvers:
        parser.add_argument("--solver", choices=solvers, default=solvers[0])
    args = parser.parse_args()
    args.blas_threads, args.workers = (args.threads, 1) if args.parallel == "blas" else (1, args.threads)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(args.blas_threads)
    return args


class MappedTensors:
    """A safetensors file mapped into memory: the header is parsed, tensors stay where they are until they are cast to float64.

    `safe_open` is not faster for PyTorch and copies every tensor once for NumPy (12.5 ms against 8 ms for 24 tensors of 768 x 768).
    """

    def __init__(self, path):
        with open(path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            self.entries = json.loads(file.read(header_size))
            self.entries.pop("__metadata__", None)
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.data_start = 8 + header_size

    def locate(self, name):
        """Type, shape and byte offset of a tensor."""
        entry = self.entries[name]
        if entry["dtype"] not in ("F32", "BF16"):
            raise SystemExit(f"error: {name}: expected F32 or BF16, found {entry['dtype']}")
        return entry["dtype"], entry["shape"], self.data_start + entry["data_offsets"][0]


def open_adapters(path):
    """`(name, MappedTensors)` of every adapter below `path`, named as condlora names them."""
    if os.path.exists(os.path.join(path, "adapter_config.json")):
        folders = {os.path.basename(os.path.abspath(path)): path}
    else:
        folders = {name: os.path.join(path, name) for name in sorted(os.listdir(path))}
    return [(name, MappedTensors(os.path.join(folder, "adapter_model.safetensors"))) for name, folder in folders.items()]


def list_modules(adapter):
    """`{module: {layer: tensor path}}`, both sorted."""
    found = {}
    for key in adapter.entries:
        if match := ADAPTER_KEY.match(key):
            found.setdefault(match[3], {})[int(match[2])] = match[1]
    return {module: dict(sorted(layers.items())) for module, layers in sorted(found.items())}


def run_jobs(workers, function, jobs):
    """`function(*job)` for every job, in order, on `workers` threads."""
    if workers == 1:
        return [function(*job) for job in jobs]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, *zip(*jobs)))


def report(out, rank, phi, timings):
    """Writes `phi` (`{(adapter, module, matrix): (layers, rows)}`), prints the mean over layer_a < layer_b and the timings as JSON."""
    with open(out, "w") as file:
        file.write(COLUMNS + "\n")
        for (adapter, module, matrix), (layers, rows) in phi.items():
            head = f"{adapter},{module},{matrix},left,{rank},{rank}"
            file.writelines(f"{head},{a},{b},{value!r}\n" for a, row in zip(layers, rows) for b, value in zip(layers, row))
    for key, (layers, rows) in phi.items():
        above = [value for a, row in enumerate(rows) for value in row[a + 1:]]
        print(*key, f"{sum(above) / len(above):.12f}" if above else "-")
    print(json.dumps(timings))
