"""The tables on updates and on factors through W0, each computed anew with NumPy from the checkpoints: dense, and in the plainest way."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

ADAPTER, MODULES, LAYERS, RANK = "trec-seed0", ("query", "value"), 6, 8
NEAR = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def tables(analyze, notebooks_data, tmp_path_factory):
    base = notebooks_data / "base/all-MiniLM-L6-v2-qv"
    options = ["--cuts", "--intruders", "--null-draws", "3", "--figures", "none"]
    out = analyze(tmp_path_factory.mktemp("updates") / "out", notebooks_data / "adapters" / ADAPTER, "--base", base, *options)
    names = ("cuts", "energy", "subspaces", "updates", "relation", "alignment", "intruders", "intruder_counts", "spectrum", "similarity")
    return {name: pd.read_csv(out / f"{name}.csv", float_precision="round_trip") for name in names}


@pytest.fixture(scope="module")
def layers(notebooks_data):
    """{(module, layer): (W0, A, B)}; alpha/r is 1 here."""
    base = load_file(notebooks_data / "base/all-MiniLM-L6-v2-qv/model.safetensors")
    adapter = load_file(notebooks_data / "adapters" / ADAPTER / "adapter_model.safetensors")

    def find(tensors, ending):
        (name,) = [name for name in tensors if name.endswith(ending)]
        return tensors[name].astype(np.float64)

    path = "layer.{}.attention.self.{}"
    return {
        (module, layer): tuple(
            find(tensors, f"{path.format(layer, module)}.{ending}")
            for tensors, ending in ((base, "weight"), (adapter, "lora_A.weight"), (adapter, "lora_B.weight"))
        )
        for module in MODULES
        for layer in range(LAYERS)
    }


def orth(matrix):
    return np.linalg.qr(matrix)[0]


def mean_phi(bases):
    return np.mean([np.sum((x.T @ y) ** 2) / x.shape[1] for a, x in enumerate(bases) for y in bases[a + 1 :]])


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("matrix", ("A", "B"))
def test_cuts_and_energies(tables, layers, module, matrix):
    cuts = tables["cuts"].query("module == @module and matrix == @matrix").set_index("cut")
    of = [(w0, a.T if matrix == "A" else b) for (name, _), (w0, a, b) in layers.items() if name == module]
    np.testing.assert_allclose(cuts.phi_mean["adjoint"], mean_phi([orth(w0.T @ t) for w0, t in of]), **NEAR)
    svd = [np.linalg.svd(w0) for w0, _ in of]
    thetas, energies = [], []
    for (u, s, vt), (_, t) in zip(svd, of):
        kept = s > 0.4 * s[0]
        thetas.append(orth(vt[kept].T @ ((u.T @ t)[kept] / s[kept, None])))
        energies.append(np.sum((u.T @ t) ** 2, axis=1) / s**2)
    np.testing.assert_allclose(cuts.phi_mean["0.4"], mean_phi(thetas), **NEAR)
    found = tables["energy"].query("module == @module and matrix == @matrix and k == 8").theta_share
    np.testing.assert_allclose(found, [e[-8:].sum() / e.sum() for e in energies], **NEAR)
    right = tables["subspaces"].query("module == @module and side == 'right' and end == 'smallest' and k == 8").phi_mean
    np.testing.assert_allclose(right, [mean_phi([vt[-8:].T for _, _, vt in svd])], **NEAR)


@pytest.mark.parametrize("module", MODULES)
def test_updates_beside_their_base_weights(tables, layers, module):
    names = ("updates", "relation", "alignment", "intruders", "intruder_counts", "spectrum")
    rows = {name: tables[name][tables[name].module == module] for name in names}
    for layer in range(LAYERS):
        w0, a, b = layers[module, layer]
        delta = b @ a
        u, s, vt = np.linalg.svd(delta)
        p, t, qt = np.linalg.svd(w0)
        shares = s[:RANK] ** 2 / np.sum(s**2)
        row = rows["updates"].query("layer == @layer").iloc[0]
        expected = {
            "norm_delta": np.linalg.norm(delta),
            "sigma1_w0": t[0],
            "sigma1_ratio": s[0] / t[0],
            "stable_rank": 1 / shares[0],
            "entropy_rank": np.exp(-np.sum(shares * np.log(shares))),
            "cosine": np.sum(delta * w0) / np.linalg.norm(delta) / np.linalg.norm(w0),
        }
        for column, value in expected.items():
            np.testing.assert_allclose(row[column], value, err_msg=column, **NEAR)
        found = rows["spectrum"].query("matrix == 'delta' and layer == @layer").sigma
        np.testing.assert_allclose(found, s[:RANK], **NEAR)
        for k in (1, RANK):
            name = str(layer)
            seen = rows["relation"].query("layer == @name and k == @k").iloc[0]
            np.testing.assert_allclose(seen.projected_delta, np.linalg.norm(u[:, :k].T @ w0 @ vt[:k].T), **NEAR)
            np.testing.assert_allclose(seen.projected_w0, np.linalg.norm(t[:k]), **NEAR)
            left = rows["alignment"].query("layer == @layer and k == @k and side == 'left'").iloc[0]
            eighths = [part.sum() / k for part in np.array_split(np.sum((p.T @ u[:, :k]) ** 2, axis=1), 8)]
            np.testing.assert_allclose([left[f"eighth_{n}"] for n in range(1, 9)], eighths, **NEAR)
        together, sigma, _ = np.linalg.svd(w0 + delta)
        cosines = np.abs(p.T @ together[:, :10]).max(axis=0)
        found = rows["intruders"].query("layer == @layer")
        np.testing.assert_allclose(found.sigma, sigma[:10], **NEAR)
        np.testing.assert_allclose(found.cos_left, cosines, rtol=0, atol=1e-9)
        assert rows["intruder_counts"].query("layer == @layer").intruders.iloc[0] == np.sum(cosines < 0.5)


def test_expected_phi_is_the_mean_of_draws(tables, layers):
    """Each cell's expectation from W0 alone lies within the error of 300 Gaussian targets."""
    rng, w0 = np.random.default_rng(0), [layers["value", layer][0] for layer in range(2)]
    drawn = [mean_phi([orth(np.linalg.solve(w, rng.standard_normal((384, RANK)))) for w in w0]) for _ in range(300)]
    row = tables["similarity"].query("module == 'value' and matrix == 'B' and layer_a == 0 and layer_b == 1").iloc[0]
    assert abs(row.w0_expected - np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(300)
