"""Where weights come from: pickles, shards, the Hugging Face cache, dumps of a state_dict."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import reference
import tiny_models
from study import add_lora, compare, rows, save_base
from tiny_models import seeded

pytestmark = [
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:`resume_download` is deprecated"),
]

ADAPTER = "adapter/adapter_model.safetensors"
HASH = "0123456789abcdef0123456789abcdef01234567"


def save_adapter(model, tmp_path, **settings):
    peft_model = add_lora(model, ["query", "value"])
    peft_model.save_pretrained(tmp_path / "adapter", **settings)
    return peft_model, reference.lora_modules(peft_model)


def test_pickled_adapter(analyze, tmp_path):
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    _, modules = save_adapter(model, tmp_path, safe_serialization=False)
    assert (tmp_path / "adapter/adapter_model.bin").is_file() and not (tmp_path / ADAPTER).exists()
    compare(analyze, tmp_path, modules, base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shards", [1, 3])
def test_pickled_base(analyze, tmp_path, dtype, shards):
    model = seeded(tiny_models.bert).to(dtype)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    shard_size = f"{size // 1000 // shards + 8 * (4 - shards)}KB"
    model.save_pretrained(tmp_path / "base", safe_serialization=False, max_shard_size=shard_size)
    assert len(list((tmp_path / "base").glob("*.bin"))) == shards, shard_size
    _, modules = save_adapter(model, tmp_path)
    out, _ = compare(analyze, tmp_path, modules, tmp_path / "base")
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    assert {row["w0_dtype"] for row in rows(out / "conversion.csv")} == {names[dtype]}


def test_sharded_base(analyze, tmp_path):
    model = seeded(tiny_models.bert)
    model.save_pretrained(tmp_path / "base", safe_serialization=True, max_shard_size="60KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 3
    _, modules = save_adapter(model, tmp_path)
    out, _ = compare(analyze, tmp_path, modules, tmp_path / "base")
    assert {row["tensor"].rsplit(".", 2)[1] for row in rows(out / "conversion.csv")} == {"query", "value"}


def hub_cache(model, root, revision):
    """What huggingface_hub leaves behind: blobs, a snapshot that links to them, a ref."""
    folder = root / "hub/models--some-lab--tiny-bert"
    snapshot = folder / "snapshots" / HASH
    save_base(model, snapshot)
    (folder / "blobs").mkdir()
    for number, file in enumerate(sorted(snapshot.iterdir())):
        blob = folder / "blobs" / f"{number:040x}"
        file.rename(blob)
        file.symlink_to(f"../../blobs/{blob.name}")
    if revision:
        (folder / "refs").mkdir()
        (folder / "refs" / revision).write_text(HASH)


@pytest.mark.parametrize("revision", ["main", "v2", HASH])
def test_base_in_the_hugging_face_cache(analyze, tmp_path, revision):
    """transformers finds it there too, so it is the cache's real layout."""
    model = seeded(tiny_models.bert)
    home = tmp_path / "hf-home"
    hub_cache(model, home, None if revision == HASH else revision)
    there = AutoModel.from_pretrained("some-lab/tiny-bert", revision=revision, cache_dir=home / "hub", local_files_only=True)
    assert torch.equal(there.state_dict()["pooler.dense.weight"], model.state_dict()["pooler.dense.weight"])
    peft_model = add_lora(model, ["query", "value"])
    config = peft_model.peft_config["default"]
    config.base_model_name_or_path, config.revision = "some-lab/tiny-bert", None if revision == "main" else revision
    peft_model.save_pretrained(tmp_path / "adapter")
    found = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (found["base_model_name_or_path"], found["revision"]) == ("some-lab/tiny-bert", config.revision)
    modules = reference.lora_modules(peft_model)
    compare(analyze, tmp_path, modules, None, environment={"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")})


def test_the_cache_variables(analyze, tmp_path):
    model = seeded(tiny_models.bert)
    hub_cache(model, tmp_path / "home/.cache/huggingface", "main")
    _, modules = save_adapter(model, tmp_path)
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "some-lab/tiny-bert"}))
    compare(analyze, tmp_path, modules, None, environment={"HOME": str(tmp_path / "home")})


def test_dump_of_the_living_model(analyze, tmp_path):
    """`state_dict()` has the adapter's name in it, which PEFT takes out when it saves."""
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    peft_model, modules = save_adapter(model, tmp_path)
    dump = {name: tensor for name, tensor in peft_model.state_dict().items() if "lora_" in name}
    assert all(name.endswith(".default.weight") for name in dump)
    save_file(dump, tmp_path / ADAPTER)
    compare(analyze, tmp_path, modules, base)


def test_dump_of_the_whole_model(analyze, tmp_path):
    """As `torch.save(model.state_dict())` writes it, the base weights (`base_layer`) too."""
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    peft_model, modules = save_adapter(model, tmp_path)
    assert any(".base_layer.weight" in name for name in peft_model.state_dict())
    (tmp_path / ADAPTER).unlink()
    torch.save(peft_model.state_dict(), tmp_path / "adapter/adapter_model.bin")
    compare(analyze, tmp_path, modules, base)


def test_names_of_a_compiled_model(analyze, tmp_path):
    """torch.compile, which this version of PyTorch has not got, puts `_orig_mod.` before every name."""
    model = seeded(tiny_models.bert)
    base = save_base(model, tmp_path / "base")
    _, modules = save_adapter(model, tmp_path)
    tensors = {f"_orig_mod.{name}": tensor for name, tensor in load_file(tmp_path / ADAPTER).items()}
    save_file(tensors, tmp_path / ADAPTER)
    for members in modules.values():
        for module in members:
            module.path = f"_orig_mod.{module.path}"
    compare(analyze, tmp_path, modules, base)
