"""Parquet and NumPy files as others read them: pandas (through fastparquet), DuckDB, NumPy; all against the CSV of the same run."""

import json

import duckdb
import numpy as np
import pandas as pd
import pytest

TABLES = ["summary", "similarity", "conversion", "spectrum"]


@pytest.fixture(scope="module")
def out(analyze, notebooks_data, tmp_path_factory):
    """One draw, so that columns without any value are there too."""
    return analyze(
        tmp_path_factory.mktemp("exports") / "out",
        notebooks_data / "adapters",
        *("--base", notebooks_data / "base/all-MiniLM-L6-v2-qv", "--init", notebooks_data / "init"),
        *("--formats", "csv,parquet,npy", "--ij", "8,8", "--ij", "4,8", "--side", "both", "--null-draws", "1", "--across"),
    )


def from_csv(out, table):
    return pd.read_csv(out / f"{table}.csv", float_precision="round_trip")


def check_same(found, expected):
    """The same columns and values, bit by bit, and missing values in the same places; a Parquet file knows types that a CSV file does not."""
    assert list(found.columns) == list(expected.columns)
    assert len(found) == len(expected)
    for column in expected.columns:
        text = expected[column].dtype == object
        left, right = found[column], expected[column]
        assert left.isna().tolist() == right.isna().tolist(), column
        kept = right.notna().to_numpy()
        left, right = left[kept].to_numpy(), right[kept].to_numpy()
        assert (left.astype(str) == right.astype(str)).all() if text else np.array_equal(left.astype(float), right.astype(float)), column


@pytest.mark.parametrize("table", [*TABLES, "across"])
def test_parquet_by_pandas(out, table):
    found, expected = pd.read_parquet(out / f"{table}.parquet", engine="fastparquet"), from_csv(out, table)
    assert found["adapter" if "adapter" in found else "adapter_a"].map(type).eq(str).all()
    check_same(found, expected)


@pytest.mark.parametrize("table", [*TABLES, "across"])
def test_parquet_by_duckdb(out, table):
    check_same(duckdb.sql(f"select * from read_parquet('{out}/{table}.parquet')").df(), from_csv(out, table))


def test_types_in_parquet(out):
    """Numbers are numbers, text is text, and what has no value is null, not NaN."""
    described = duckdb.sql(f"describe select * from read_parquet('{out}/similarity.parquet')").df()
    types = dict(zip(described["column_name"], described["column_type"]))
    assert {types[name] for name in ("phi", "phi_error_bound", "gaussian_mean", "w0_sd")} == {"DOUBLE"}
    assert {types[name] for name in ("adapter", "module", "status")} == {"VARCHAR"}
    assert all(types[name] in ("INTEGER", "UINTEGER", "BIGINT", "UBIGINT") for name in ("i", "j", "layer_a", "layer_b"))
    nulls = duckdb.sql(f"select count(*) filter (w0_sd is null), count(*) from read_parquet('{out}/similarity.parquet')").fetchone()
    assert nulls[0] == nulls[1] > 0, "one draw has no standard deviation"


def test_a_question_to_parquet(out):
    """As docs/guide/pandas.md asks it: averages over pairs of layers."""
    query = f"""select adapter, module, matrix, side, i, j, avg(phi) as mean from read_parquet('{out}/similarity.parquet')
                where layer_a < layer_b group by all order by all"""
    keys = ["adapter", "module", "matrix", "side", "i", "j"]
    found = duckdb.sql(query).df().set_index(keys)["mean"]
    expected = from_csv(out, "summary").set_index(keys)["phi_mean"].sort_index()
    assert found.index.tolist() == expected.index.tolist() and np.allclose(found, expected, rtol=0, atol=1e-14)


def test_npy_by_numpy(out):
    index = json.loads((out / "npy/index.json").read_text())
    similarity = from_csv(out, "similarity")
    keys = ["adapter", "module", "matrix", "side", "i", "j"]
    groups = dict(list(similarity.groupby(keys)))
    assert len(index) == len(groups) == len(list((out / "npy").rglob("*.npy")))
    for entry in index:
        square = np.load(out / "npy" / entry["file"], allow_pickle=False)
        assert square.dtype == np.float64 and square.shape == (len(entry["layers"]),) * 2
        rows = groups[tuple(entry[key] for key in keys)]
        expected = rows.pivot(index="layer_a", columns="layer_b", values="phi")
        assert expected.index.tolist() == expected.columns.tolist() == entry["layers"]
        assert np.array_equal(square, expected.to_numpy(), equal_nan=True)


def test_missing_values_in_npy_are_nan(analyze, notebooks_data, tmp_path):
    """B of an untrained adapter is zero: it has no phi."""
    base = notebooks_data / "base/all-MiniLM-L6-v2-qv"
    out = analyze(tmp_path / "out", notebooks_data / "init/trec-seed0", "--base", base, "--formats", "npy", "--null-draws", "0")
    index = json.loads((out / "npy/index.json").read_text())
    empty = {entry["matrix"]: np.isnan(np.load(out / "npy" / entry["file"])) for entry in index}
    assert not empty["A"].any() and empty["B"].all() and empty["BA"].all()
    # What is asked for comes beside the CSV, which is always there.
    assert (out / "similarity.csv").exists() and not list(out.glob("*.parquet"))
