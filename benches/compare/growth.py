"""Measures how condlora's time grows with layers, width, rank and adapters, and draws it.

usage: growth.py WORK_DIR [--condlora target/release/condlora] [--csv FILE] [--figure FILE.svg ...] [--rounds 5] [--only-draw] [--small]

One of the four is varied at a time, the others stay at 12 layers, 768, rank 8 and one adapter (query and value; no draws, no decompositions, no
figures). In the last panel it is the width of a layer of Llama's shape: all seven modules, a quarter of the width in key and value rows and four times
the width in the MLP, rank 16. The checkpoints are made by make_checkpoint.py and removed again. `--only-draw` draws an existing CSV; `--small` tries it
out in seconds.
"""
import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
START = {"layers": 12, "width": 768, "rank": 8, "adapters": 1}
VARIED = {
    "layers": [2, 4, 8, 16, 32, 64],
    "width": [128, 256, 512, 768, 1024, 1536, 2048],
    "rank": [1, 2, 4, 8, 16, 32, 64],
    "adapters": [1, 2, 5, 10, 20, 50, 100],
    "llama": [256, 512, 1024, 2048],
}
LLAMA_START = {"layers": 1, "rank": 16, "adapters": 1}
SMALL_START = {"layers": 3, "width": 64, "rank": 4, "adapters": 1}
SMALL = {"layers": [2, 4, 8], "width": [32, 64, 128], "rank": [1, 4, 16], "adapters": [1, 4, 16], "llama": [64, 128]}
THREADS = (1, 2)
COLUMNS = ["varied", "layers", "width", "rank", "adapters", "threads", "rounds", "whole_min", "whole_median", "analysis_min", "rss_mb"]
# Title; the power of it that the time grows with when it is large; how a fixed value is said.
PANELS = {
    "layers": ("layers", 1, lambda n: f"{n} layer" + "s" * (n > 1)),
    "width": ("width of W0", 3, lambda n: f"width {n}"),
    "rank": ("rank r", 1, lambda n: f"r = {n}"),
    "adapters": ("adapters on one base", 1, lambda n: f"{n} adapter" + "s" * (n > 1)),
    "llama": ("width of a Llama layer", 3, None),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir")
    parser.add_argument("--condlora", default=os.path.join("target", "release", "condlora"))
    parser.add_argument("--csv", default="growth.csv")
    parser.add_argument("--figure", nargs="+", default=["growth.svg"])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one that warms up")
    parser.add_argument("--only-draw", action="store_true")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    if not args.only_draw and not os.access(args.condlora, os.X_OK):
        parser.error(f"no binary at {args.condlora}: run `cargo build --release`")
    return args


def measure(args):
    start, varied = (SMALL_START, SMALL) if args.small else (START, VARIED)
    rows = []
    for name, values in varied.items():
        for value in values:
            shape = {**LLAMA_START, "width": value} if name == "llama" else {**start, name: value}
            folder = os.path.join(args.work_dir, f"growth-{name}-{value}")
            options = [f"--{key}={number}" for key, number in shape.items()]
            if name == "llama":
                options += ["--llama", f"{value // 4},{4 * value}"]
            subprocess.run([sys.executable, os.path.join(HERE, "make_checkpoint.py"), folder, *options], check=True)
            for threads in THREADS:
                runs = [run(args.condlora, folder, threads) for _ in range(args.rounds + 1)][1:]
                whole, analysis, rss = zip(*runs)
                rows.append({"varied": name, **shape, "threads": threads, "rounds": args.rounds, "whole_min": round(min(whole), 5),
                             "whole_median": round(statistics.median(whole), 5), "analysis_min": round(min(analysis), 5),
                             "rss_mb": round(max(rss), 1)})
                print(f"{name} {value}, {threads} threads: {min(whole):.3f} s", file=sys.stderr)
            shutil.rmtree(folder)
    with open(args.csv, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def run(program, folder, threads):
    """Seconds from start to exit, seconds of the analysis alone, peak RSS in MB."""
    out = os.path.join(folder, "out")
    started = time.perf_counter()
    process = subprocess.Popen(
        [program, "--threads", str(threads), "analyze", os.path.join(folder, "adapters"), "--base", os.path.join(folder, "base"), "-o", out,
         "--overwrite", "--null-draws", "0", "--no-svd", "--figures", "none"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    whole = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"error: {folder}: expected exit 0, found {process.returncode}")
    with open(os.path.join(out, "manifest.json")) as file:
        analysis = json.load(file)["timings"]["analysis"]
    return whole, analysis, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def draw(args):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    with open(args.csv, newline="") as file:
        rows = list(csv.DictReader(file))
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                         "svg.hashsalt": "condlora"})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.2), sharey=True, layout="constrained")
    styles = {1: dict(color="#1b6ca8", marker="o"), 2: dict(color="#c1440e", marker="s")}
    for panel, (name, (title, power, _)) in zip(axes, PANELS.items()):
        mine = [row for row in rows if row["varied"] == name]
        for threads, style in styles.items():
            column = "width" if name == "llama" else name
            points = sorted((int(row[column]), float(row["whole_min"])) for row in mine if int(row["threads"]) == threads)
            panel.plot(*zip(*points), label=f"{threads} thread" + "s" * (threads > 1), markersize=4.5, linewidth=1.4, **style)
        draw_guide(panel, points, power)
        panel.set_xscale("log")
        panel.set_yscale("log")
        # Every width would be too many numbers to read.
        panel.xaxis.set_major_locator(FixedLocator([x for x, _ in points if name != "width" or x.bit_count() == 1]))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
        panel.set_title(title, fontsize=10)
        fixed = [words(int(mine[0][key])) for key, (_, _, words) in PANELS.items() if words and key not in (name, column)]
        panel.set_xlabel(", ".join(fixed), fontsize=7.5, color="#555555")
        panel.grid(which="major", color="#e4e4e4", linewidth=0.7)
        panel.set_axisbelow(True)
    times = [float(row["whole_min"]) for row in rows]
    axes[0].set_ylim(0.7 * min(times), 1.5 * max(times))
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel(f"whole command, s (best of {rows[0]['rounds']})")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    for path in args.figure:
        if path.endswith(".svg"):
            figure.savefig(path, metadata={"Date": None})
        else:
            figure.savefig(path, dpi=200)


def draw_guide(panel, points, power):
    """A dashed line of the slope that theory gives large values, below the last point."""
    (first, _), (last, time_of_last) = points[0], points[-1]
    panel.plot([first, last], [0.5 * time_of_last * (x / last) ** power for x in (first, last)], color="#777777", linewidth=1,
               linestyle=(0, (4, 3)))
    panel.text(0.97, 0.05, f"dashed: slope {power}", transform=panel.transAxes, ha="right", fontsize=7.5, color="#555555")


def main():
    args = parse_arguments()
    if not args.only_draw:
        measure(args)
    draw(args)


if __name__ == "__main__":
    main()
