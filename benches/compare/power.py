"""What the tests of a shared map can see: how often each finds a planted one, and how often it is taken in by maps that layers do not share.

usage: power.py WORK_DIR [--condlora target/release/condlora] [--seeds 20] [--csv FILE] [--figure FILE ...] [--only-draw]

The base weights are the real ones of notebooks-data (value, six layers of 384 x 384). In each layer a share of ||B||^2 is W0*Theta, each layer's columns
turned at random as LoRA's basis is arbitrary, and the rest is Gaussian; the same share of A is made by W0^T and a Theta of its own. `shared`: one Theta for
all layers; `own`: another in every layer. The tests are of B, and one of the updates BA. A test finds something where its p is below 0.025, as one of two
tests of the adapter has to be (Holm).
"""
import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

BASE = os.path.join("notebooks-data", "base", "all-MiniLM-L6-v2-qv")
KEY = "encoder.layer.{}.attention.self.value"
LAYERS, RANK, LEVEL = 6, 8, 0.025
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir")
    parser.add_argument("--condlora", default=os.path.join("target", "release", "condlora"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--csv", default="power.csv")
    parser.add_argument("--figure", nargs="+", default=["power.svg"])
    parser.add_argument("--only-draw", action="store_true", help="draw what --csv holds")
    return parser.parse_args()


def planted(weights, share, shared, rng):
    """B of every layer; with the transposed weights A^T."""
    unit = lambda matrix: matrix / np.linalg.norm(matrix)
    n = weights[0].shape[1]
    theta = rng.standard_normal((n, RANK))
    out = []
    for w0 in weights:
        if not shared:
            theta = rng.standard_normal((n, RANK))
        made = unit(w0 @ theta @ rng.standard_normal((RANK, RANK)))
        out.append(np.sqrt(share) * made + np.sqrt(1 - share) * unit(rng.standard_normal(made.shape)))
    return out


def write_adapter(folder, b_of, a_of):
    os.makedirs(folder)
    tensors = {}
    for layer, (b, a_transposed) in enumerate(zip(b_of, a_of)):
        stem = "base_model.model." + KEY.format(layer)
        tensors[f"{stem}.lora_A.weight"] = np.ascontiguousarray(a_transposed.T)
        tensors[f"{stem}.lora_B.weight"] = np.ascontiguousarray(b)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["value"], "base_model_name_or_path": BASE}
    with open(os.path.join(folder, "adapter_config.json"), "w") as file:
        json.dump(config, file)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}\n{done.stderr}")


def p_values(args, folder, names):
    """{adapter: {test: p}} of B, and of BA."""
    out = tempfile.mkdtemp(dir=args.work_dir)
    run([args.condlora, "analyze", folder, "--base", BASE, "--matrices", "A,B", "--cuts=0,adjoint", "--figures", "none", "--overwrite", "-q", "-o", out])
    found = {name: {} for name in names}
    for row in rows_of(os.path.join(out, "cuts.csv")):
        if row["matrix"] == "B" and row["cut"] in ("0", "adjoint"):
            test = "through W0" if row["cut"] == "adjoint" else "φ of Θ"
            found[row["adapter"]][test] = float(row["flip_p"])
    for name in names:
        run([args.condlora, "fit", os.path.join(folder, name), "--base", BASE, "--held-out", "--delta", "--figures", "none", "--overwrite", "-q", "-o", out])
        for row in rows_of(os.path.join(out, "heldout.csv")):
            if (row["matrix"], row["map"], row["weighting"], row["layer"]) == ("B", "W0", "subspace", "all"):
                found[name]["layer left out"] = float(row["flip_p"])
        for row in rows_of(os.path.join(out, "fit.csv")):
            if row["layer"] == "all" and row["matrix"] in ("B", "delta"):
                found[name]["fit" if row["matrix"] == "B" else "fit of BA"] = float(row["flip_p"])
    return found


def draw(paths, table):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "condlora"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    tests = sorted({row["test"] for row in table})
    styles = dict(zip(tests, ("o-", "v-", "s--", "^-.", "d:")))
    for panel, kind, title in zip(panels, ("shared", "own"), ("one Θ for all layers", "another Θ in every layer: nothing is shared")):
        for test in tests:
            own = [row for row in table if (row["kind"], row["test"]) == (kind, test)]
            panel.plot([row["share"] for row in own], [row["found"] for row in own], styles[test], label=test, markersize=4)
        panel.axhline(LEVEL, color="0.5", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("share of ‖A‖² and ‖B‖² that W0 and Θ make")
    panels[0].set_ylabel(f"share of adapters with p < {LEVEL}")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.endswith(".svg") else None)


def measured(args):
    """A row for each kind of target, share and test."""
    os.makedirs(args.work_dir, exist_ok=True)
    tensors = load_file(os.path.join(BASE, "model.safetensors"))
    weights = [next(t.astype(np.float64) for key, t in tensors.items() if key.endswith(KEY.format(layer) + ".weight")) for layer in range(LAYERS)]
    table = []
    for kind in ("shared", "own"):
        for share in SHARES:
            folder = tempfile.mkdtemp(dir=args.work_dir)
            names = [f"seed-{seed:02}" for seed in range(args.seeds)]
            for seed, name in enumerate(names):
                rng = np.random.default_rng([seed, int(1000 * share), kind == "own"])
                shared = kind == "shared"
                b_of = planted(weights, share, shared, rng)
                write_adapter(os.path.join(folder, name), b_of, planted([w0.T for w0 in weights], share, shared, rng))
            found = p_values(args, folder, names)
            for test in sorted(found[names[0]]):
                hits = sum(found[name][test] < LEVEL for name in names)
                table.append({"kind": kind, "share": share, "test": test, "found": hits / len(names)})
                print(f"{kind:6} {share:5} {test:15} {hits} of {len(names)}", flush=True)
    return table


def main():
    args = parse_arguments()
    if not args.only_draw:
        table = measured(args)
        with open(args.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    draw(args.figure, [{**row, "share": float(row["share"]), "found": float(row["found"])} for row in rows_of(args.csv)])


if __name__ == "__main__":
    main()
