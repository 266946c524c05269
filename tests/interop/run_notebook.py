"""Executes notebooks-data/condlora.ipynb where it lies and writes it back with its outputs.

usage: run_notebook.py    (CONDLORA names the program; the Python is the one that tests/interop/setup.sh names)
"""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks-data/condlora.ipynb"


def execute(program):
    """The notebook with fresh outputs; an error in a cell is raised."""
    os.environ["CONDLORA"] = str(program)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    for cell in notebook.cells:
        # Times of the run, which would differ every time.
        cell.metadata.pop("execution", None)
    return notebook


if __name__ == "__main__":
    nbformat.write(execute(Path(os.environ.get("CONDLORA", ROOT / "target/release/condlora")).resolve()), NOTEBOOK)
