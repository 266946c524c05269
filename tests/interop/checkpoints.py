"""Checkpoints of five architectures: how each is made and saved, and how condlora is asked to analyse it.

`make_checkpoints.py` keeps them, with what NumPy makes of them, in tests/data/checkpoints for the Rust tests; `test_checkpoints.py` makes
them anew, so that neither can drift from the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

import reference
import tiny_models
from study import RANK, add_lora, save_base
from tiny_models import HEADS, seeded

WIDTH = 32
KEY_VALUE_HEADS = 2
HEAD_WIDTH = WIDTH // HEADS


@dataclass
class Checkpoint:
    make: Callable
    targets: list
    lora: dict
    save: Callable = save_base
    name: Callable = reference.last_part
    options: list = field(default_factory=list)
    # Rows of each block of a fused projection.
    blocks: dict = field(default_factory=dict)

    def write(self, folder):
        """Saves `folder/base` and `folder/adapter`; what the living model has: {module name: [LoraModule]}."""
        model = seeded(self.make)
        self.save(model, folder / "base")
        peft_model = add_lora(model, self.targets, **self.lora)
        peft_model.peft_config["default"].base_model_name_or_path = "../base"
        peft_model.save_pretrained(folder / "adapter")
        modules = reference.lora_modules(peft_model, name=self.name)
        if not self.blocks:
            return modules
        (fused, members), = modules.items()
        return {f"{fused}.{block}": [m.rows(*rows) for m in members] for block, rows in self.blocks.items()}


def save_three_shards(model, folder):
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    model.save_pretrained(folder, safe_serialization=True, max_shard_size=f"{size // 1000 * 2 // 5 + 1}KB")
    assert len(list(folder.glob("model-*-of-00003.safetensors"))) == 3 and (folder / "model.safetensors.index.json").is_file()


def t5_name(path):
    """The shortest end of the path that no other module has, and the whole type where there is none."""
    if "EncDecAttention" in path:
        return f"EncDecAttention.{reference.last_part(path)}"
    stack = "encoder" if ".encoder." in path else "decoder"
    return f"{stack}.block.*.layer.0.SelfAttention.{reference.last_part(path)}"


def blocks(*widths):
    """Rows of q, k and v that stand one below the other."""
    ends = [sum(widths[: n + 1]) for n in range(3)]
    return dict(zip("qkv", zip([0, *ends], ends)))


CHECKPOINTS = {
    "llama": Checkpoint(
        make=lambda: tiny_models.llama(KEY_VALUE_HEADS, WIDTH).to(torch.bfloat16),
        targets=["q_proj", "v_proj", "down_proj"],
        lora=dict(task_type="CAUSAL_LM", lora_alpha=16),
        save=save_three_shards,
    ),
    "gpt2": Checkpoint(
        make=lambda: tiny_models.gpt2(WIDTH),
        targets=["c_attn"],
        lora=dict(task_type="CAUSAL_LM", fan_in_fan_out=True),
        options=["--split", "qkv"],
        blocks=blocks(WIDTH, WIDTH, WIDTH),
    ),
    "t5": Checkpoint(
        make=lambda: tiny_models.t5(WIDTH),
        targets=["q", "v"],
        lora=dict(task_type="SEQ_2_SEQ_LM"),
        name=t5_name,
    ),
    "vit": Checkpoint(
        make=lambda: tiny_models.vit(WIDTH),
        targets=["query", "value"],
        lora=dict(modules_to_save=["classifier"], use_rslora=True),
    ),
    "phi": Checkpoint(
        make=lambda: tiny_models.phi3(KEY_VALUE_HEADS, WIDTH),
        targets=["qkv_proj"],
        lora=dict(task_type="CAUSAL_LM", lora_alpha=12),
        options=["--split", "qkv"],
        blocks=blocks(WIDTH, KEY_VALUE_HEADS * HEAD_WIDTH, KEY_VALUE_HEADS * HEAD_WIDTH),
    ),
}
assert RANK <= KEY_VALUE_HEADS * HEAD_WIDTH
