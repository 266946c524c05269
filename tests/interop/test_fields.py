"""Every field of PEFT's LoraConfig stands in docs/reference/peft-fields.md: of the installed PEFT, and of the newest."""

import ast
import dataclasses
import re
import subprocess
import sys
import zipfile

import peft
import pytest

from conftest import ROOT


def documented():
    text = (ROOT / "docs/reference/peft-fields.md").read_text()
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}


def test_fields_of_the_installed_peft_are_documented():
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= documented()


def test_fields_of_the_newest_peft_are_documented(tmp_path):
    """Its wheel is looked into, not installed: it needs another Python than Debian's torch."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", str(tmp_path), "peft"]
    if subprocess.run([*command, "--ignore-requires-python"], capture_output=True).returncode != 0:
        pytest.skip("the package index cannot be reached")
    (wheel,) = tmp_path.glob("peft-*.whl")
    with zipfile.ZipFile(wheel) as files:
        tree = ast.parse(files.read("peft/tuners/lora/config.py"))
    (config,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "LoraConfig"]
    fields = {node.target.id for node in config.body if isinstance(node, ast.AnnAssign)}
    assert len(fields) > 30
    assert fields <= documented(), wheel.name
