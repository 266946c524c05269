"""A study of one PEFT model: saved by PEFT, analysed by condlora, and every number that PEFT or NumPy has too compared."""

import csv

import pytest
from peft import LoraConfig, get_peft_model

import reference

RANK = 4
PAIRS = [(RANK, RANK), (1, 2)]
PHI_TOLERANCE = 1e-9


def add_lora(model, targets, **settings):
    # `init_lora_weights=False` leaves B random instead of zero.
    config = LoraConfig(r=settings.pop("r", RANK), target_modules=targets, init_lora_weights=False, **settings)
    return get_peft_model(model, config)


def save_base(model, folder):
    model.save_pretrained(folder, safe_serialization=True)
    assert [f.name for f in folder.glob("*.safetensors")] == ["model.safetensors"]
    return folder


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def study(analyze, model, targets, tmp_path, *, base=None, pairs=PAIRS, adapter="adapter", name=reference.last_part, **settings):
    """Saves base and adapter and compares what condlora finds in them; `base` is a folder where one is saved already."""
    base = base or save_base(model, tmp_path / "base")
    peft_model = add_lora(model, targets, **settings)
    peft_model.save_pretrained(tmp_path / adapter)
    return compare(analyze, tmp_path, reference.lora_modules(peft_model, name=name), base, adapter=adapter, pairs=pairs)


def compare(analyze, tmp_path, modules, base, *, adapter="adapter", pairs=PAIRS, options=(), environment=None):
    """Runs condlora on what was saved; `base=None` leaves finding it to condlora. `modules` is what the living model has."""
    arguments = [f"--ij={i},{j}" for i, j in pairs or []] + (["--base", base] if base else []) + list(options)
    draws = ["--side", "both", "--null-draws", "2"]
    out = analyze(tmp_path / "out", tmp_path / adapter, *draws, *arguments, environment=environment)
    check_conversion(rows(out / "conversion.csv"), modules)
    check_phi(rows(out / "similarity.csv"), modules, pairs)
    return out, modules


def check_conversion(found, modules):
    expected = {(name, m.layer): m for name, members in modules.items() for m in members}
    assert {(row["module"], int(row["layer"])) for row in found} == set(expected)
    assert len(found) == len(expected)
    for row in found:
        module = expected[row["module"], int(row["layer"])]
        assert row["adapter_key"] == module.path
        assert float(row["scaling"]) == pytest.approx(module.scaling, rel=1e-15)
        assert (int(row["out_features"]), int(row["in_features"])) == module.w0.shape
        assert int(row["rank"]) == module.lora_a.shape[0]
        assert float(row["norm_delta"]) == pytest.approx(module.delta_norm, rel=1e-12)
        assert row["convention"] == ("paper" if reference.is_square(modules[row["module"]]) else "general")


def check_phi(found, modules, pairs):
    seen = 0
    for name, members in modules.items():
        smallest = min(m.lora_a.shape[0] for m in members)
        expected = reference.phi_table(members, pairs or [(smallest, smallest)])
        of_module = [row for row in found if row["module"] == name]
        assert len(of_module) == len(expected) == 3 * 2 * len(pairs or [0]) * len(members) ** 2
        for row in of_module:
            i, j, a, b = (int(row[key]) for key in ("i", "j", "layer_a", "layer_b"))
            phi = expected[row["matrix"], row["side"], i, j, a, b]
            if phi is None:
                assert (row["phi"], row["status"]) == ("", "skipped"), row
            else:
                assert row["status"] == "ok" and abs(float(row["phi"]) - phi) <= PHI_TOLERANCE, row
            seen += 1
    assert seen == len(found)
