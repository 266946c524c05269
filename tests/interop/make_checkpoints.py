"""Writes the checkpoints that the Rust tests keep, with NumPy's phi of each beside it.

usage: make_checkpoints.py [FOLDER]    (default tests/data/checkpoints; the Python is the one that tests/interop/setup.sh names)
"""

import csv
import os
import shutil
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import reference
from checkpoints import CHECKPOINTS
from study import PAIRS

# Written by transformers and PEFT for other purposes.
NOT_NEEDED = ["adapter/README.md", "base/generation_config.json"]


def main():
    warnings.filterwarnings("ignore", message="Could not find a config file")
    default = Path(__file__).resolve().parents[1] / "data/checkpoints"
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for name, checkpoint in CHECKPOINTS.items():
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        modules = checkpoint.write(folder)
        write_phi(folder / "phi.csv", modules)
        (folder / "options.txt").write_text("".join(f"{option}\n" for option in checkpoint.options))
        for extra in NOT_NEEDED:
            (folder / extra).unlink(missing_ok=True)


def write_phi(path, modules):
    """All ordered pairs of layers; phi is empty where the vectors of two layers differ in length."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["module", "matrix", "side", "i", "j", "layer_a", "layer_b", "phi"])
        for module, members in sorted(modules.items()):
            for key, phi in reference.phi_table(members, PAIRS).items():
                table.writerow([module, *key, "" if phi is None else repr(phi)])


if __name__ == "__main__":
    main()
