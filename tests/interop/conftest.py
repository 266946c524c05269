"""The program under test, and a run of it."""

import os
import subprocess
from pathlib import Path

# Set before any test imports transformers: nothing here may look for a model on the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def notebooks_data():
    return ROOT / "notebooks-data"


@pytest.fixture(scope="session")
def analyze():
    """analyze(out, *arguments): runs `condlora analyze`, and gives back `out`."""
    program = Path(os.environ.get("CONDLORA", ROOT / "target/release/condlora"))
    assert program.is_file(), f"{program} is missing: cargo build --release"

    def run(out, *arguments):
        command = [program, "analyze", *arguments, "-o", out, "--figures", "none"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
        return out

    return run
