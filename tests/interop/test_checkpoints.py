"""Five architectures, from PEFT's own files to phi."""

import json

import pytest

from checkpoints import CHECKPOINTS
from study import compare

pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint(analyze, tmp_path, name):
    """Without --base: the adapter names it."""
    checkpoint = CHECKPOINTS[name]
    out, modules = compare(analyze, tmp_path, checkpoint.write(tmp_path), None, options=checkpoint.options)
    assert len(modules) == {"llama": 3, "gpt2": 3, "t5": 6, "vit": 2, "phi": 3}[name]
    assert json.loads((out / "manifest.json").read_text())["warnings"] == []
