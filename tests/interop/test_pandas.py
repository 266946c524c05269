"""Every table as pandas reads it: types, empty fields, exact numbers, and the same values in two places."""

import csv
import math
import re

import numpy as np
import pandas as pd
import pytest

TEXT = {"adapter", "module", "matrix", "side", "status", "adapter_key", "tensor", "convention", "method", "w0_dtype", "adapter_dtype", "cut"}
WHOLE = {"i", "j", "layers", "layer_a", "layer_b", "layer", "out_features", "in_features", "rank", "w0_rank", "k", "kept_min", "kept_max", "flip_draws", "rank_90", "rank_99"}
ROWS = {
    "summary": 3 * 2 * 3,
    "similarity": 3 * 2 * 3 * 6 * 6,
    "conversion": 3 * 2 * 6,
    "spectrum": 3 * 2 * 6 * (8 + 8 + 8 + 8),
    "cuts": 3 * 2 * 2,
    "updates": 3 * 2 * 6,
    "relation": 3 * 2 * 2 * (6 + 1),
    "alignment": 3 * 2 * 6 * 2 * 2,
}


@pytest.fixture(scope="module")
def out(analyze, notebooks_data, tmp_path_factory):
    """The main study, with one draw: the sd columns are empty."""
    return analyze(
        tmp_path_factory.mktemp("pandas") / "out",
        notebooks_data / "adapters",
        "--base",
        notebooks_data / "base/all-MiniLM-L6-v2-qv",
        "--init",
        notebooks_data / "init",
        "--null-draws",
        "1",
    )


def read(path):
    return pd.read_csv(path, float_precision="round_trip")


def cells(path):
    """The file's text, field by field."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


def shortest(value):
    """Python's shortest form that reads back as the same bits; its exponents have a sign and two digits, ours need neither."""
    return re.sub(r"e\+?(-?)0?", r"e\1", repr(value))


@pytest.mark.parametrize("table", ROWS)
def test_types_and_numbers_of_rows(out, table):
    frame = read(out / f"{table}.csv")
    assert len(frame) == ROWS[table]
    for column, dtype in frame.dtypes.items():
        # `all` stands among the layers there.
        text = column in TEXT or (table, column) == ("relation", "layer")
        expected = "object" if text else "int64" if column in WHOLE else "float64"
        assert dtype == expected, f"{table}.{column}"
    key = {"conversion": "layer", "updates": "layer", "spectrum": "k", "relation": "k", "alignment": "k"}.get(table, "i")
    assert frame[key].notna().all()


@pytest.mark.parametrize("table", ROWS)
def test_numbers_are_exact_and_empty_is_nan(out, table):
    header, rows = cells(out / f"{table}.csv")
    frame = read(out / f"{table}.csv")
    assert list(frame.columns) == header
    for at, column in enumerate(header):
        for value, row in zip(frame[column].tolist(), rows, strict=True):
            text = row[at]
            if column in TEXT or (table, column) == ("relation", "layer"):
                assert value == text
            elif text == "":
                assert math.isnan(value)
            else:
                assert shortest(value) == text, f"{table}.{column}"


def test_what_has_no_value_is_nan(out):
    summary, similarity = read(out / "summary.csv"), read(out / "similarity.csv")
    for column in ("gaussian_sd", "w0_sd", "w0_z"):
        assert summary[column].isna().all(), "one draw has no standard deviation"
    assert summary["w0_mean"].notna().all() and summary["w0_p"].notna().all()
    # The untrained B is zero: it has no subspace.
    for frame, column in ((summary, "init_mean"), (similarity, "init")):
        assert frame[column].notna().equals(frame["matrix"] == "A")


def test_matrices_are_the_similarity_table(out):
    similarity = read(out / "similarity.csv")
    keys = ["adapter", "module", "matrix", "side", "i", "j"]
    groups = similarity.groupby(keys)
    assert len(groups) == len(list((out / "matrices").rglob("*.csv"))) == ROWS["summary"]
    for (adapter, module, matrix, side, i, j), rows in groups:
        path = out / "matrices" / adapter / f"{module}.{matrix}.{side}.i{i}-j{j}.csv"
        square = pd.read_csv(path, index_col="layer", float_precision="round_trip")
        square.columns = square.columns.astype(int)
        from_rows = rows.pivot(index="layer_a", columns="layer_b", values="phi")
        assert np.array_equal(square.to_numpy(), from_rows.to_numpy())
        assert square.index.tolist() == from_rows.index.tolist() == square.columns.tolist() == list(range(6))


def test_the_summary_is_the_mean_over_pairs_of_layers(out):
    similarity = read(out / "similarity.csv")
    keys = ["adapter", "module", "matrix", "side", "i", "j"]
    above = similarity[similarity["layer_a"] < similarity["layer_b"]].groupby(keys)["phi"]
    summary = read(out / "summary.csv").set_index(keys).sort_index()
    assert np.allclose(summary["phi_mean"], above.mean(), rtol=0, atol=1e-15)
    assert np.array_equal(summary["phi_min"], above.min()) and np.array_equal(summary["phi_max"], above.max())


def test_tables_join_on_their_names(out):
    conversion, spectrum = read(out / "conversion.csv"), read(out / "spectrum.csv")
    joined = spectrum.merge(conversion, on=["adapter", "module", "layer"], how="left", validate="many_to_one")
    assert joined["rank"].notna().all() and (joined["k"] <= joined["rank"]).all()
