"""CondLoRA materialized: PEFT loads what `condlora materialize` writes, and the model computes what W0 + s·B·A does."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import tiny_models
from tiny_models import seeded

pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file")

RANK = 4
ALPHA = 6


def gaussian(name, *shape):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return 0.3 * torch.randn(*shape, generator=generator)


def save_condlora(folder, modules, width, task, *, pickled, head, **more):
    """A checkpoint as the authors' code writes it: Θ transposed, no prefix; beside it a classifier that was trained in full."""
    folder.mkdir()
    tensors = {f"{name}.linear_for_lora_{factor}": gaussian(name + factor, RANK, width) for name in modules for factor in "AB"}
    tensors |= {f"base_model.model.{name}": gaussian(name, *shape) for name, shape in head.items()}
    if pickled:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = dict(peft_type="ConditionalLORA", task_type=task, r=RANK, lora_alpha=ALPHA, use_x="none", lora_x_scaling=0.0, **more)
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tensors


def updated(model, tensors, modules, eq6, scaling):
    """The same model with W0 + s·B·A in place of every W0 of these modules, and the trained classifier."""
    changed = 0
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if last in modules and isinstance(module, torch.nn.Linear):
            w0 = module.weight.data.double()
            theta_a, theta_b = (tensors[f"{last}.linear_for_lora_{factor}"].double().T for factor in "AB")
            a, b = (w0 @ theta_a).T, (w0.T if eq6 else w0) @ theta_b
            module.weight.data = (w0 + scaling * b @ a).float()
            changed += 1
    missing = model.load_state_dict({k.removeprefix("base_model.model."): v for k, v in tensors.items() if "linear_for" not in k}, strict=False)
    assert not missing.unexpected_keys
    return model.eval(), changed


CASES = {
    "saved without its prefix": (tiny_models.bert, AutoModelForSequenceClassification, "SEQ_CLS", ["query", "value"], False, {}),
    "saved with a head": (tiny_models.roberta_classifier, AutoModelForSequenceClassification, "SEQ_CLS", ["query", "key"], True, {}),
    "as printed": (tiny_models.bert_classifier, AutoModelForSequenceClassification, "SEQ_CLS", ["query"], True, {"condlora_convention": "eq6"}),
    "rank-stabilised": (tiny_models.llama, AutoModelForCausalLM, "CAUSAL_LM", ["q_proj", "o_proj"], False, {"use_rslora": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_peft_computes_what_the_materialized_update_does(case, condlora, tmp_path):
    make, auto, task, modules, pickled, more = CASES[case]
    model = seeded(make)
    width = tiny_models.WIDTH
    base = tmp_path / "base"
    # Larger than transformers draws them, so that the update shows.
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 2)[-2] in modules and parameter.dim() == 2:
            parameter.data *= 5
    model.save_pretrained(base, safe_serialization=True)
    labels = {} if task == "CAUSAL_LM" else {"num_labels": 3}
    loaded = auto.from_pretrained(base, **labels)
    head = {name: tuple(p.shape) for name, p in loaded.named_parameters() if name.startswith("classifier")}
    tensors = save_condlora(tmp_path / "condlora", modules, width, task, pickled=pickled, head=head, **more)

    printed = json.loads(condlora("materialize", tmp_path / "condlora", "--base", base, "-o", tmp_path / "made", "--json"))
    assert printed["layers"] == len(modules) * tiny_models.LAYERS

    peft_model = PeftModel.from_pretrained(auto.from_pretrained(base, **labels), tmp_path / "made").eval()
    scaling = ALPHA / RANK**0.5 if more.get("use_rslora") else ALPHA / RANK
    direct, changed = updated(auto.from_pretrained(base, **labels), tensors, modules, more.get("condlora_convention") == "eq6", scaling)
    assert changed == printed["layers"]
    tokens = torch.arange(2 * 9).reshape(2, 9) % 40
    with torch.no_grad():
        ours, theirs, plain = (m(input_ids=tokens).logits for m in (peft_model, direct, loaded.eval()))
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))
    # And it is no empty comparison: the update and the classifier change the logits by far more.
    assert (plain - theirs).abs().max() > 1e-2
