"""Times condlora, NumPy and PyTorch on the same study, interleaved, and checks that all give the same phi.

usage: compare.py WORK_DIR [--condlora target/release/condlora] [--threads 1,2] [--rounds 7] [--each] [--without NAME] [--json FILE]

WORK_DIR is made by make_checkpoint.py. A round runs every program once, in an order that rotates from round to round. Two times are
taken: the whole command (process start to exit) and the analysis alone (first byte read to the phi matrices; no imports, no output).
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
STUDIES = {"numpy-getrf": ("study_numpy.py", "--solver", "getrf"), "numpy-solve": ("study_numpy.py", "--solver", "solve"),
           "torch": ("study_torch.py",)}
# What the others do: conversion matrices and phi. Beside it the same with the tables of updates and of the factors through W0.
CONDLORA = "condlora"
UPDATES = "condlora-updates"
OWN = {CONDLORA: "--similarity-only", UPDATES: "--no-svd"}
# A run of condlora for each adapter, one after the other.
EACH = "condlora-each"
METRICS = {"whole": "whole command", "analysis": "analysis alone"}
PHI_TOLERANCE = 1e-9
KEY = ("adapter", "module", "matrix", "side", "i", "j", "layer_a", "layer_b")
# Set by each program for itself; what the caller's shell holds must not favour one of them.
DROPPED_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir")
    parser.add_argument("--condlora", default=os.path.join("target", "release", "condlora"), help="release binary")
    parser.add_argument("--threads", default="1,2", type=lambda text: [int(t) for t in text.split(",")])
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds, after one that warms up")
    parser.add_argument("--each", action="store_true", help="also run condlora on every adapter by itself")
    parser.add_argument("--without", action="append", default=[], choices=[*OWN, *STUDIES])
    parser.add_argument("--parallel", choices=("layers", "blas"), default="layers", help="how the studies use threads")
    parser.add_argument("--json", help="file to write the results to")
    args = parser.parse_args()
    if not set(OWN) <= set(args.without) and not os.access(args.condlora, os.X_OK):
        parser.error(f"no binary at {args.condlora}: run `cargo build --release`, or give --without for each of condlora's own")
    return args


def adapter_folders(args):
    folder = os.path.join(args.work_dir, "adapters")
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def condlora_command(args, threads, adapters, out, scope=OWN[CONDLORA]):
    return [args.condlora, "--threads", str(threads), "-v", "analyze", adapters, "--base", os.path.join(args.work_dir, "base"), "-o", out,
            "--overwrite", "--null-draws", "0", scope, "--figures", "none"]


def command(name, args, threads, out):
    base, adapters = os.path.join(args.work_dir, "base"), os.path.join(args.work_dir, "adapters")
    if name in OWN:
        return condlora_command(args, threads, adapters, out, OWN[name])
    script, *options = STUDIES[name]
    return [sys.executable, os.path.join(HERE, script), base, adapters, out + ".csv", "--threads", str(threads),
            "--parallel", args.parallel, *options]


def run(name, args, threads, scratch):
    """Runs a program once; seconds, and the peak RSS in MB (which is never below this process's own, about 20 MB)."""
    out = os.path.join(scratch, f"{name}-{threads}")
    if name != EACH:
        return run_command(name, command(name, args, threads, out), out, threads)
    runs = [run_command(name, condlora_command(args, threads, adapter, into), into, threads)
            for adapter, into in ((folder, os.path.join(out, os.path.basename(folder))) for folder in adapter_folders(args))]
    return {metric: (max if metric == "rss" else sum)(one[metric] for one in runs) for metric in runs[0]}


def run_command(name, arguments, out, threads):
    environment = {k: v for k, v in os.environ.items() if k not in DROPPED_VARIABLES}
    if name == EACH:
        os.makedirs(os.path.dirname(out), exist_ok=True)
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=stdout, stderr=stderr, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        whole = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode != 0:
            raise SystemExit(f"error: {name} with {threads} threads: expected exit 0, found {process.returncode}\n{stderr.read()[-2000:]}")
        if name in (*OWN, EACH):
            with open(os.path.join(out, "manifest.json")) as file:
                timings = json.load(file)["timings"]
        else:
            timings = json.loads(stdout.read().splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024
    return {"whole": whole, "analysis": timings["analysis"], "solve": timings["solve"], "rss": usage.ru_maxrss * unit / 1e6}


def read_phi(name, args, threads, scratch):
    path = os.path.join(scratch, f"{name}-{threads}")
    if name == EACH:
        tables = [os.path.join(path, os.path.basename(folder), "similarity.csv") for folder in adapter_folders(args)]
    else:
        tables = [os.path.join(path, "similarity.csv") if name in OWN else path + ".csv"]
    phi = {}
    for table in tables:
        with open(table, newline="") as file:
            phi.update({tuple(row[c] for c in KEY): float(row["phi"]) for row in csv.DictReader(file)})
    return phi


def check_agreement(names, args, threads, scratch):
    """The largest difference in phi from the first program; ends the run above PHI_TOLERANCE or where rows are missing."""
    first, *others = names
    expected, worst = read_phi(first, args, threads, scratch), 0.0
    for name in others:
        found = read_phi(name, args, threads, scratch)
        if found.keys() != expected.keys():
            odd = sorted(found.keys() ^ expected.keys())[0]
            raise SystemExit(f"error: {name} and {first} differ in their rows, for example {odd}")
        worst = max(worst, max(abs(found[key] - expected[key]) for key in expected))
    if not worst <= PHI_TOLERANCE:
        raise SystemExit(f"error: phi differs by {worst:.3g}; expected at most {PHI_TOLERANCE:g}")
    return worst, len(expected)


def summarize(rounds, names):
    programs = {}
    for name in names:
        samples = [one[name] for one in rounds]
        programs[name] = {}
        for metric in ("whole", "analysis", "solve", "rss"):
            values = [sample[metric] for sample in samples]
            programs[name][metric] = {"min": min(values), "median": statistics.median(values)}
    return programs


def compute_ratios(rounds, programs):
    """How many times condlora's time the others take: ratios of medians, and the best NumPy or PyTorch program of each round (median)."""
    ratios, others = {}, [name for name in programs if name != CONDLORA]
    rivals = [name for name in others if name in STUDIES]
    for metric in METRICS:
        if not others or CONDLORA not in programs:
            continue
        own = programs[CONDLORA][metric]["median"]
        ratios[metric] = {"medians": {name: programs[name][metric]["median"] / own for name in others}}
        if rivals:
            best = [min(one[name][metric] for name in rivals) / one[CONDLORA][metric] for one in rounds]
            ratios[metric]["best_of_rounds"] = statistics.median(best)
    return ratios


def print_results(threads, programs, ratios, difference, cells):
    print(f"\n{threads} thread{'s' if threads > 1 else ''}; phi agrees to {difference:.1e} in {cells} cells")
    print(f"  {'program':<16}{'whole command, ms':>22}{'analysis alone, ms':>22}{'LU and solve, ms':>22}{'peak RSS, MB':>14}")
    for name, measured in programs.items():
        times = [f"{1e3 * m['min']:.1f} / {1e3 * m['median']:.1f}" for m in (measured[metric] for metric in ("whole", "analysis", "solve"))]
        print(f"  {name:<16}{times[0]:>22}{times[1]:>22}{times[2]:>22}{measured['rss']['median']:>14.0f}")
    for metric, ratio in ratios.items():
        listed = ", ".join(f"{name} {value:.2f}" for name, value in ratio["medians"].items())
        best = f"; best of each round, median: {ratio['best_of_rounds']:.2f}" if "best_of_rounds" in ratio else ""
        print(f"  {METRICS[metric]}, times condlora's: {listed}{best}")


def main():
    args = parse_arguments()
    names = [name for name in (*OWN, *([EACH] if args.each else []), *STUDIES) if name not in args.without]
    with open(os.path.join(args.work_dir, "shape.json")) as file:
        shape = json.load(file)
    results = {"shape": shape, "rounds": args.rounds, "parallel": args.parallel, "cpus": os.cpu_count(), "threads": {}}
    print(f"{shape['layers']} layers x {','.join(shape['modules'])}, {shape['width']} x {shape['width']}, rank {shape['rank']}, "
          f"adapters {shape['adapters']}; {args.rounds} rounds, min / median; LU and solve summed over threads")
    with tempfile.TemporaryDirectory(prefix="condlora-compare-") as scratch:
        for threads in args.threads:
            rounds = []
            for number in range(args.rounds + 1):
                turn = number % len(names)
                one = {name: run(name, args, threads, scratch) for name in names[turn:] + names[:turn]}
                if number == 0:
                    difference, cells = check_agreement(names, args, threads, scratch)
                else:
                    rounds.append(one)
            programs = summarize(rounds, names)
            ratios = compute_ratios(rounds, programs)
            print_results(threads, programs, ratios, difference, cells)
            results["threads"][threads] = {"phi_difference": difference, "programs": programs, "ratios": ratios, "rounds": rounds}
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
