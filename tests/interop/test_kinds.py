"""Kinds of adapters: AdaLoRA, DoRA, embeddings, convolutions, and layers that have none."""

import json

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, LoftQConfig, LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open

import reference
import tiny_models
from study import RANK, add_lora, compare, rows, save_base, study
from tiny_models import LAYERS, WIDTH, seeded

pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file")


def tensor_names(tmp_path):
    with safe_open(tmp_path / "adapter/adapter_model.safetensors", "np") as file:
        return list(file.keys())


def warnings_of(out):
    return json.loads((out / "manifest.json").read_text())["warnings"]


def adalora(tmp_path, **settings):
    model = seeded(tiny_models.bert_classifier)
    base = save_base(model, tmp_path / "base")
    config = AdaLoraConfig(target_modules=["query", "value"], lora_alpha=16, **settings)
    peft_model = get_peft_model(model, config)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return peft_model, base


def test_adalora(analyze, tmp_path):
    """A of the update is E * A."""
    peft_model, base = adalora(tmp_path, init_r=RANK, target_r=RANK)
    peft_model.save_pretrained(tmp_path / "adapter")
    assert any(name.endswith("lora_E") for name in tensor_names(tmp_path))
    modules = reference.lora_modules(peft_model)
    compare(analyze, tmp_path, modules, base)


def test_adalora_after_it_has_pruned(analyze, tmp_path):
    """Six steps of training in which PEFT takes ranks away: they differ from layer to layer when it saves."""
    peft_model, base = adalora(tmp_path, init_r=6, target_r=4, tinit=1, tfinal=1, deltaT=1, total_step=6)
    optimizer = torch.optim.SGD([p for p in peft_model.parameters() if p.requires_grad], lr=0.1)
    tokens, labels = torch.randint(0, 40, (8, 5)), torch.randint(0, 3, (8,))
    for step in range(6):
        peft_model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
        peft_model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    peft_model.save_pretrained(tmp_path / "adapter")
    # PEFT leaves the zeroed ranks out of the file, and its own reader divides by the first rank as before.
    reloaded = PeftModel.from_pretrained(seeded(tiny_models.bert_classifier), tmp_path / "adapter")
    modules = reference.lora_modules(reloaded)
    ranks = {len(m.lora_a) for members in modules.values() for m in members}
    assert len(ranks) > 1 and min(ranks) > 0, ranks
    compare(analyze, tmp_path, modules, base, pairs=None)


def test_dora(analyze, tmp_path):
    out, _ = study(analyze, seeded(tiny_models.llama), ["q_proj", "v_proj"], tmp_path, use_dora=True, task_type="CAUSAL_LM")
    assert sum("lora_magnitude_vector" in name for name in tensor_names(tmp_path)) == 2 * LAYERS
    assert any("dora" in warning.lower() for warning in warnings_of(out))


def test_embedding(analyze, tmp_path):
    """It has no layer, so there is nothing to compare; its conversion matrices are those of the transposed weight."""
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    peft_model = add_lora(model, ["word_embeddings", "query"])
    peft_model.save_pretrained(tmp_path / "adapter")
    assert sum("lora_embedding_" in name for name in tensor_names(tmp_path)) == 2
    out = analyze(tmp_path / "out", tmp_path / "adapter", "--base", base, "--null-draws", "0")

    (embedding,) = reference.lora_modules(peft_model)["word_embeddings"]
    assert embedding.layer is None and embedding.w0.shape == (WIDTH, 40)
    (row,) = [row for row in rows(out / "conversion.csv") if row["module"] == "word_embeddings"]
    assert (row["layer"], row["convention"], row["rank"]) == ("", "general", str(RANK))
    assert (int(row["out_features"]), int(row["in_features"])) == embedding.w0.shape
    for column, value in {"norm_a": embedding.lora_a, "norm_b": embedding.lora_b}.items():
        assert float(row[column]) == pytest.approx(np.linalg.norm(value), rel=1e-12)
    assert float(row["norm_delta"]) == pytest.approx(embedding.delta_norm, rel=1e-12)
    for matrix, theta in reference.conversion_matrices(embedding, square=False).items():
        found = [float(r["sigma"]) for r in rows(out / "spectrum.csv") if (r["module"], r["matrix"]) == ("word_embeddings", matrix)]
        assert np.allclose(found, np.linalg.svd(theta, compute_uv=False)[:RANK], rtol=1e-9, atol=0)
    assert {row["module"] for row in rows(out / "similarity.csv")} == {"query"}


def test_convolutions_of_one_pixel(analyze, tmp_path):
    """PEFT keeps the kernel's two sizes of 1 in A and in B."""
    model = seeded(tiny_models.Convolutions)
    (tmp_path / "base").mkdir()
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "base/model.safetensors")
    peft_model = add_lora(model, ["expand"])
    with torch.no_grad():
        assert peft_model(torch.ones(1, WIDTH, 2, 2)).shape == (1, WIDTH, 2, 2)
    peft_model.save_pretrained(tmp_path / "adapter")
    compare(analyze, tmp_path, reference.lora_modules(peft_model), tmp_path / "base")


def test_layers_without_an_adapter(analyze, tmp_path):
    """Numbers are kept where layers are missing, and those that were not to be trained are not missed."""
    kept = [0, 2, 3]
    out, modules = study(analyze, seeded(tiny_models.bert, 5), ["query", "value"], tmp_path, layers_to_transform=kept)
    assert [m.layer for m in modules["query"]] == kept
    assert {int(row["layer_a"]) for row in rows(out / "similarity.csv")} == set(kept)
    assert not any("without" in warning for warning in warnings_of(out))


def test_modules_trained_whole(analyze, tmp_path):
    settings = dict(task_type="SEQ_CLS", modules_to_save=["classifier", "pooler"])
    study(analyze, seeded(tiny_models.bert_classifier), ["query", "value"], tmp_path, **settings)
    assert any("pooler" in name for name in tensor_names(tmp_path))


def test_factors_of_different_modules(analyze, tmp_path):
    """rank_pattern and alpha_pattern as PEFT writes them, with regular expressions."""
    patterns = dict(rank_pattern={r"layer\.[12]\..*value": 2}, alpha_pattern={r"layer\.0\..*(query|value)": 32})
    out, modules = study(analyze, seeded(tiny_models.bert), ["query", "value"], tmp_path, pairs=None, lora_alpha=8, **patterns)
    assert [len(m.lora_a) for m in modules["value"]] == [4, 2, 2]
    assert [m.scaling for m in modules["query"]] == [8, 2, 2]


def test_factors_beside_biases(analyze, tmp_path):
    study(analyze, seeded(tiny_models.bert), ["query", "value"], tmp_path, bias="all")
    assert any(name.endswith("query.base_layer.bias") for name in tensor_names(tmp_path))


def test_an_initialisation_that_rewrites_the_base_is_told(analyze, tmp_path):
    """LoftQ leaves the model with a quantised base, which is not the one on disk."""
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    settings = dict(init_lora_weights="loftq", loftq_config=LoftQConfig(loftq_bits=4))
    peft_model = get_peft_model(model, LoraConfig(r=RANK, target_modules=["query"], **settings))
    with safe_open(base / "model.safetensors", "pt") as file:
        name = "encoder.layer.0.attention.self.query"
        assert not torch.equal(file.get_tensor(f"{name}.weight"), peft_model.get_submodule(f"base_model.model.{name}").weight)
    peft_model.save_pretrained(tmp_path / "adapter")
    out = analyze(tmp_path / "out", tmp_path / "adapter", "--base", base, "--null-draws", "0")
    assert any("loftq" in warning for warning in warnings_of(out))
