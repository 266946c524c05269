"""The program under test, and runs of it."""

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
def condlora():
    """condlora(*arguments): runs it, and gives back what it printed. `environment` adds variables."""
    program = Path(os.environ.get("CONDLORA", ROOT / "target/release/condlora"))
    assert program.is_file(), f"{program} is missing: cargo build --release"

    def run(*arguments, environment=None, expected=0, cwd=None):
        command = [str(part) for part in (program, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(environment or {})})
        assert done.returncode == expected, f"exit {done.returncode}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def analyze(condlora):
    """analyze(out, *arguments): runs `condlora analyze`, and gives back `out`."""

    def run(out, *arguments, environment=None):
        condlora("analyze", *arguments, "-o", out, "--figures", "none", environment=environment)
        return out

    return run
