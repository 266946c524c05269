"""Adapters of other programs: mlx-lm and kohya's scripts, written here in their layout from what PEFT has."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

import reference
import tiny_models
from study import add_lora, compare, save_base
from tiny_models import LAYERS, seeded

pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file")


def test_factors_transposed_as_mlx_lm_has_them(analyze, tmp_path):
    """mlx-lm's file of the same adapter: `adapters.safetensors`, lora_a [in, r], lora_b [r, out], its own configuration."""
    model = seeded(tiny_models.llama, 2)
    base = save_base(model, tmp_path / "base")
    modules = reference.lora_modules(add_lora(model, ["q_proj", "v_proj"], lora_alpha=8, task_type="CAUSAL_LM"))
    tensors = {}
    for members in modules.values():
        for module in members:
            module.path = module.path.removeprefix("base_model.model.")
            tensors[f"{module.path}.lora_a"] = torch.tensor(module.lora_a.T.copy(), dtype=torch.float32)
            tensors[f"{module.path}.lora_b"] = torch.tensor(module.lora_b.T.copy(), dtype=torch.float32)
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter/adapters.safetensors")
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}
    config = {"fine_tune_type": "lora", "num_layers": LAYERS, "model": str(base), "lora_parameters": parameters}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    compare(analyze, tmp_path, modules, base)


def test_names_as_kohya_writes_them(analyze, tmp_path):
    """lora_down is A, lora_up is B, dots are underscores, and alpha is a tensor."""
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    modules = reference.lora_modules(add_lora(model, ["query", "value"], lora_alpha=8))
    tensors = {}
    for members in modules.values():
        for module in members:
            module.path = "lora_te_" + re.sub(r"\.", "_", module.path.removeprefix("base_model.model."))
            tensors[f"{module.path}.lora_down.weight"] = torch.tensor(module.lora_a, dtype=torch.float32)
            tensors[f"{module.path}.lora_up.weight"] = torch.tensor(module.lora_b, dtype=torch.float32)
            tensors[f"{module.path}.alpha"] = torch.tensor(8.0)
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter/bert_lora.safetensors")
    compare(analyze, tmp_path, modules, base)
