"""Round trips through PEFT: CondLoRA materialized, loaded, merged and saved again; LoRA fitted by one Theta, materialized and loaded."""

import csv
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

import tiny_models
from study import save_base
from tiny_models import LAYERS, WIDTH, seeded

RANK, ALPHA = 4, 8
MODULES = ["query", "value"]
LOGITS_TOLERANCE = 1e-5
TOKENS = torch.arange(24).reshape(3, 8)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:Some weights of"),
]


def write_condlora(folder, base):
    """In the layout of the paper authors' code: Theta transposed, without prefix or layer, beside the classifier in full."""
    torch.manual_seed(11)
    tensors = {f"{module}.linear_for_lora_{factor}": 0.4 * torch.randn(RANK, WIDTH) for module in MODULES for factor in "AB"}
    tensors["base_model.model.classifier.weight"] = torch.randn(3, WIDTH)
    tensors["base_model.model.classifier.bias"] = torch.randn(3)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "auto_mapping": None,
        "base_model_name_or_path": str(base),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "lora_x_scaling": 0.0,
        "modules_to_save": None,
        "peft_type": "ConditionalLORA",
        "r": RANK,
        "revision": None,
        "target_modules": MODULES,
        "task_type": "SEQ_CLS",
        "use_x": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def load_base(base):
    """As a user would; where only the encoder was saved the head is new, and the adapter's must take its place."""
    return BertForSequenceClassification.from_pretrained(base, num_labels=3)


def with_update(model, thetas, classifier):
    """W0 + s B A in every layer, A = (W0 Theta_A)' and B = W0 Theta_B, made in float64."""
    changed = 0
    for name, weight in model.named_parameters():
        module = name.split(".")[-2]
        if module not in MODULES or not name.endswith(".weight"):
            continue
        w0 = weight.detach().double()
        theta_a, theta_b = thetas(module)
        weight.data = (w0 + ALPHA / RANK * (w0 @ theta_b) @ (w0 @ theta_a).T).float()
        changed += 1
    assert changed == len(MODULES) * LAYERS
    model.classifier.weight.data, model.classifier.bias.data = classifier
    return model


def stored_thetas(tensors):
    return lambda module: [tensors[f"{module}.linear_for_lora_{factor}"].double().T for factor in "AB"]


def stored_classifier(tensors):
    return tuple(tensors[f"base_model.model.classifier.{name}"] for name in ("weight", "bias"))


def loads_and_computes(adapter, base, expected):
    """The adapter in PEFT gives these logits, which are not those of the base model."""
    peft_model = PeftModel.from_pretrained(load_base(base), adapter)
    found = logits(peft_model)
    assert (found - expected).abs().max() <= LOGITS_TOLERANCE, (found - expected).abs().max()
    with peft_model.disable_adapter():
        assert (logits(peft_model) - expected).abs().max() > 0.01
    merged = logits(peft_model.merge_and_unload())
    assert (merged - expected).abs().max() <= LOGITS_TOLERANCE
    return found


@pytest.fixture
def bases(tmp_path):
    """The whole classifier, and its encoder alone, whose tensors have no prefix."""
    model = seeded(tiny_models.bert_classifier)
    save_base(model, tmp_path / "classifier")
    save_base(model.bert, tmp_path / "encoder")
    return tmp_path


@pytest.mark.parametrize("base", ["classifier", "encoder"])
def test_materialized_adapter_loaded_switched_off_and_merged(condlora, bases, base):
    """Without --base: the checkpoint names it, and the adapter that is made does so too."""
    base = bases / base
    tensors = write_condlora(bases / "condlora", base)
    condlora("materialize", bases / "condlora", "-o", bases / "adapter", "-q")
    expected = logits(with_update(load_base(base), stored_thetas(tensors), stored_classifier(tensors)))
    loads_and_computes(bases / "adapter", base, expected)
    written = load_file(bases / "adapter/adapter_model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items() if "classifier" in name)
    assert len(written) == 2 * len(MODULES) * LAYERS + 2


def test_one_peft_saved_again_is_the_same(condlora, bases):
    """PEFT's own file of the adapter, once it is loaded, has our tensors."""
    write_condlora(bases / "condlora", bases / "classifier")
    condlora("materialize", bases / "condlora", "-o", bases / "adapter", "-q")
    PeftModel.from_pretrained(load_base(bases / "classifier"), bases / "adapter").save_pretrained(bases / "again")
    ours, theirs = (load_file(bases / folder / "adapter_model.safetensors") for folder in ("adapter", "again"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def phi_of(condlora, folder, base, out):
    condlora("analyze", folder, "--base", base, "--null-draws", "0", "--figures", "none", "-o", out, "-q")
    with open(out / "similarity.csv", newline="") as file:
        return {tuple(row[c] for c in ("module", "matrix", "layer_a", "layer_b")): float(row["phi"]) for row in csv.DictReader(file)}


def test_conversion_matrices_of_all_layers_are_one(condlora, bases):
    """The theory of CondLoRA: phi of A and of B is 1 for every pair of layers."""
    write_condlora(bases / "condlora", bases / "classifier")
    phi = phi_of(condlora, bases / "condlora", bases / "classifier", bases / "out")
    assert len(phi) == len(MODULES) * 3 * LAYERS**2
    assert all(abs(value - 1) <= 1e-10 for (_, matrix, *_), value in phi.items() if matrix != "BA")

def save_lora(base, folder):
    """A LoRA of PEFT, and the classifier with it, all of which change the logits."""
    torch.manual_seed(13)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MODULES, task_type="SEQ_CLS", init_lora_weights=False)
    model = get_peft_model(load_base(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return model


def test_a_fit_of_a_materialized_adapter_gives_theta_back(condlora, bases):
    base = bases / "classifier"
    tensors = write_condlora(bases / "condlora", base)
    condlora("materialize", bases / "condlora", "-o", bases / "adapter", "-q")
    condlora("fit", bases / "adapter", "--base", base, "-o", bases / "fitted", "--null-draws", "2", "-q")
    condlora("materialize", bases / "fitted", "--base", base, "-o", bases / "again", "-q")
    expected = logits(with_update(load_base(base), stored_thetas(tensors), stored_classifier(tensors)))
    loads_and_computes(bases / "again", base, expected)


def test_a_fit_of_any_adapter_in_peft(condlora, bases):
    """The shared Theta is the least-squares solution of all layers together, as NumPy finds it."""
    base = bases / "classifier"
    peft_model = save_lora(base, bases / "adapter")
    condlora("fit", bases / "adapter", "--base", base, "-o", bases / "fitted", "--null-draws", "2", "-q")
    condlora("materialize", bases / "fitted", "--base", base, "-o", bases / "again", "-q")
    layers = {module: [] for module in MODULES}
    for name, module in peft_model.named_modules():
        if name.split(".")[-1] in MODULES:
            layers[name.split(".")[-1]].append(module)

    def thetas(module):
        w0 = np.vstack([layer.base_layer.weight.detach().double().numpy() for layer in layers[module]])
        a = np.vstack([layer.lora_A["default"].weight.detach().double().numpy().T for layer in layers[module]])
        b = np.vstack([layer.lora_B["default"].weight.detach().double().numpy() for layer in layers[module]])
        return [torch.tensor(np.linalg.lstsq(w0, target, rcond=None)[0]) for target in (a, b)]

    head = peft_model.base_model.model.classifier
    head = getattr(head, "modules_to_save", {"default": head})["default"]
    expected = logits(with_update(load_base(base), thetas, (head.weight.data, head.bias.data)))
    loads_and_computes(bases / "again", base, expected)
