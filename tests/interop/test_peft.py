"""Real PEFT checkpoints: made, saved and measured by PEFT, read by condlora, and phi computed a second time with NumPy."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open

import reference
import tiny_models
from study import RANK, add_lora, check_conversion, check_phi, rows, save_base, study
from tiny_models import LAYERS, seeded

# The tiny base models are not saved by name, and PEFT looks for one.
pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file")


def test_bert(analyze, tmp_path):
    study(analyze, seeded(tiny_models.bert), ["query", "value"], tmp_path, lora_alpha=16)


def test_bert_all_linear_layers(analyze, tmp_path):
    """Square and non-square modules, two of which share their last name (`attention.output.dense`, `output.dense`)."""
    base = save_base(seeded(tiny_models.bert), tmp_path / "base")
    peft_model = add_lora(seeded(tiny_models.bert), ["query", "intermediate.dense", "output.dense"])
    peft_model.save_pretrained(tmp_path / "adapter")
    out = analyze(tmp_path / "out", tmp_path / "adapter", "--base", base, "--null-draws", "0")
    conventions = {(row["module"], row["convention"]) for row in rows(out / "conversion.csv")}
    assert conventions == {
        ("query", "paper"),
        ("attention.output.dense", "paper"),
        ("intermediate.dense", "general"),
        ("output.dense", "general"),
    }


def test_roberta_classifier_on_its_own_checkpoint(analyze, tmp_path):
    out, _ = study(analyze, seeded(tiny_models.roberta_classifier), ["query", "value"], tmp_path, task_type="SEQ_CLS")
    assert {row["tensor"].split(".")[0] for row in rows(out / "conversion.csv")} == {"roberta"}
    with safe_open(tmp_path / "adapter/adapter_model.safetensors", "np") as file:
        assert any("classifier" in key for key in file.keys()), "PEFT saves the classifier too"


def test_roberta_classifier_on_a_base_without_its_prefix(analyze, tmp_path):
    model = seeded(tiny_models.roberta_classifier)
    base = save_base(model.roberta, tmp_path / "base")
    out, _ = study(analyze, model, ["query", "value"], tmp_path, base=base, task_type="SEQ_CLS")
    assert {row["tensor"].split(".")[0] for row in rows(out / "conversion.csv")} == {"encoder"}


def test_llama(analyze, tmp_path):
    study(analyze, seeded(tiny_models.llama), ["q_proj", "v_proj"], tmp_path, task_type="CAUSAL_LM")


def test_llama_with_grouped_query_attention(analyze, tmp_path):
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
    out, modules = study(analyze, seeded(tiny_models.llama, 2), targets, tmp_path, task_type="CAUSAL_LM")
    assert modules["k_proj"][0].w0.shape == (tiny_models.WIDTH // 2, tiny_models.WIDTH)
    methods = {(row["module"], row["method"]) for row in rows(out / "conversion.csv")}
    assert ("k_proj", "least_squares") in methods and ("q_proj", "lu") in methods


def test_gpt2_conv1d(analyze, tmp_path):
    out, _ = study(analyze, seeded(tiny_models.gpt2), ["c_attn"], tmp_path, fan_in_fan_out=True, task_type="CAUSAL_LM")
    assert {row["convention"] for row in rows(out / "conversion.csv")} == {"general"}


@pytest.mark.parametrize("make, targets", [(tiny_models.bert, ["query", "value"]), (tiny_models.llama, ["q_proj"])])
def test_bfloat16(analyze, tmp_path, make, targets):
    out, _ = study(analyze, seeded(make).to(torch.bfloat16), targets, tmp_path)
    with safe_open(tmp_path / "adapter/adapter_model.safetensors", "pt") as file:
        dtypes = {str(file.get_tensor(key).dtype) for key in file.keys()}
    stored = {"torch.bfloat16": "BF16", "torch.float32": "F32"}[dtypes.pop()]
    assert not dtypes
    assert {(row["w0_dtype"], row["adapter_dtype"]) for row in rows(out / "conversion.csv")} == {("BF16", stored)}


def test_rank_and_alpha_patterns(analyze, tmp_path):
    """No module is matched by two patterns: PEFT before 0.14 lets the first, of either kind, decide on both rank and alpha."""
    out, modules = study(
        analyze,
        seeded(tiny_models.bert),
        ["query", "value"],
        tmp_path,
        pairs=None,
        lora_alpha=12,
        rank_pattern={"layer.1.attention.self.query": 2, "value": 6},
        alpha_pattern={r"layer\.[02]\.attention\.self\.query": 5, "value": 3},
    )
    assert [m.lora_a.shape[0] for m in modules["query"]] == [4, 2, 4]
    assert [m.lora_a.shape[0] for m in modules["value"]] == [6, 6, 6]
    scalings = {(row["module"], int(row["layer"])): float(row["scaling"]) for row in rows(out / "conversion.csv")}
    assert scalings["query", 0] == 5 / 4 and scalings["query", 1] == 12 / 2 and scalings["value", 2] == 3 / 6
    assert {(row["module"], row["i"], row["j"]) for row in rows(out / "summary.csv")} == {("query", "2", "2"), ("value", "6", "6")}


@pytest.mark.parametrize("patterns", [{}, {"rank_pattern": {"layer.2.attention.self.query": 6}, "alpha_pattern": {"value": 20}}])
def test_rank_stabilised_scaling(analyze, tmp_path, patterns):
    model = seeded(tiny_models.bert)
    out, _ = study(analyze, model, ["query", "value"], tmp_path, pairs=None, use_rslora=True, lora_alpha=10, **patterns)
    first = rows(out / "conversion.csv")[0]
    assert float(first["scaling"]) == pytest.approx(10 / 4**0.5, rel=1e-15)


def test_two_adapters_saved_together(analyze, tmp_path):
    """PEFT saves the adapter `default` at the root and others in folders of their names."""
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    peft_model = add_lora(model, ["query", "value"])
    peft_model.add_adapter("second", LoraConfig(r=3, target_modules=["value"], init_lora_weights=False))
    peft_model.save_pretrained(tmp_path / "run")
    out = analyze(tmp_path / "out", tmp_path / "run", "--base", base, "--side", "both", "--null-draws", "0")
    found, conversion = rows(out / "similarity.csv"), rows(out / "conversion.csv")
    names = sorted({row["adapter"] for row in found})
    assert len(names) == 2
    for name, adapter in zip(names, ["default", "second"], strict=True):
        modules = reference.lora_modules(peft_model, adapter)
        check_conversion([row for row in conversion if row["adapter"] == name], modules)
        check_phi([row for row in found if row["adapter"] == name], modules, None)


def test_untrained_adapter_has_no_subspace(analyze, tmp_path):
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    get_peft_model(model, LoraConfig(r=RANK, target_modules=["query"])).save_pretrained(tmp_path / "adapter")
    out = analyze(tmp_path / "out", tmp_path / "adapter", "--base", base)
    for row in rows(out / "similarity.csv"):
        trained = row["matrix"] == "A"
        assert (row["status"], row["phi"] == "") == (("ok", False) if trained else ("zero", True))


def test_the_manifest_names_what_was_read(analyze, tmp_path):
    out, _ = study(analyze, seeded(tiny_models.bert), ["query"], tmp_path)
    inputs = json.loads((out / "manifest.json").read_text())["inputs"]
    with safe_open(tmp_path / "base/model.safetensors", "np") as file:
        read = {record["tensor"] for record in inputs if record["tensor"]} & set(file.keys())
    assert len(read) == LAYERS
