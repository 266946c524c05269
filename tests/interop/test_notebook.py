"""The notebook runs, and says what it said when its outputs were committed."""

import os

import nbformat
import pytest

from conftest import ROOT
from run_notebook import NOTEBOOK, execute

# The kernel's client looks for an event loop in a way that newer Pythons warn of.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def texts(notebook):
    """What each cell printed; pictures are compared by nobody."""
    found = []
    for cell in notebook.cells:
        outputs = [] if cell.cell_type == "markdown" else cell.outputs
        found.append([output.get("text") or output.data.get("text/plain") for output in outputs])
    return found


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


def test_the_notebook_and_its_outputs():
    kept = nbformat.read(NOTEBOOK, as_version=4)
    fresh = execute(os.environ.get("CONDLORA", ROOT / "target/release/condlora"))
    assert texts(fresh) == texts(kept)
    assert pictures(fresh) == pictures(kept) == 2
    errors = [text for text in texts(fresh) for part in text if "Error" in part or "Warning" in part]
    assert not errors
