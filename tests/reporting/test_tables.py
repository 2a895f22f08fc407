import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import refusal
from scipy import stats
from synthetic_tables import (
    codebook_table,
    costs_table,
    density_table,
    history_table,
    inpainting_table,
    sizes_table,
)

from vqdistill.errors import InputError
from vqdistill.files import read_csv, write_csv
from vqdistill.reporting import claims, runs, tables
from vqdistill.reporting.dictionary import COLUMNS, EMPTY, data_dictionary
from vqdistill.reporting.tables import ROW_KEYS

SMALL = {("dmrs", "2x2"): (3.5, 0.9), ("cm", "-"): (3.0, 0.9)}


@pytest.fixture(scope="module")
def density():
    return density_table(SMALL, components=[1, 4, 16])


def record(**changes):
    return {
        "experiment": "e",
        "dataset": "d",
        "data_checksum": "0123",
        "step": "train_vqvae",
        "model": "vqvae",
        "grid": "2x2",
        "codebook_size": 16,
        "seed": 0,
        "settings": {"learning_rate": 1e-3, "seed": 0},
        "code_version": "abc",
        "device": "cpu",
        "wall_seconds": 1.5,
        "peak_memory_mb": 300,
        "parameters": {"encoder": 10, "codebook": 5, "decoder": 9},
        "codebook_usage": 0.5,
        "perplexity": 6.0,
        "epochs_run": 4,
        "best_epoch": 3,
        "stopped_by": "patience",
        "best_validation": -2.0,
    } | changes


def test_t_interval_is_scipys():
    values = [1.0, 2.5, 3.0, 7.0]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose(tables.t_interval(values), [np.mean(values), low, high])


@pytest.mark.parametrize("values", [[2.0], [1.0, np.inf, 3.0]])
def test_one_seed_and_infinite_values_have_no_interval(values):
    mean, low, high = tables.t_interval(values)
    assert mean == np.mean(values)
    assert np.isnan([low, high]).all()


def test_geometric_interval_is_that_of_logarithms_and_above_zero():
    values = [3.0, 4.0, 900.0]
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    expected = np.exp([logs.mean(), low, high])
    np.testing.assert_allclose(tables.geometric_interval(values), expected)
    assert tables.t_interval(values)[1] < 0 < expected[1]
    assert np.isnan(tables.geometric_interval([3.0, 0.0, -1.0])).all()


def test_a_summary_of_bits_below_zero_has_no_geometric_mean(density):
    summary = tables.density_summary(density.assign(bpd=-density["bpd"]))
    empty = set(summary.columns[summary.isna().any()])
    assert empty == {f"bpd_geometric_{end}" for end in ("mean", "low", "high")}
    tables.check_cells(summary, "density_summary")


def test_density_summary_over_seeds(density):
    summary = tables.density_summary(density)
    keys = {"method": "dmrs", "n_components": 4, "weights": "uniform"}
    chosen = (density[list(keys)] == pd.Series(keys)).all(axis=1)
    values = density.loc[chosen, "bpd"]
    row = summary[(summary[list(keys)] == pd.Series(keys)).all(axis=1)].iloc[0]
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert row["n_seeds"] == 5
    found = row[["bpd_mean", "bpd_std", "bpd_low", "bpd_high"]].astype(float)
    np.testing.assert_allclose(found, [values.mean(), values.std(ddof=1), low, high])
    found = row[["bpd_median", "bpd_min", "bpd_max", "bpd_q50_median"]].astype(float)
    expected = [values.median(), values.min(), values.max(), 0.9 * values.median()]
    np.testing.assert_allclose(found, expected)
    geometric = row[["bpd_geometric_mean", "bpd_geometric_low", "bpd_geometric_high"]]
    np.testing.assert_allclose(geometric.astype(float), tables.geometric_interval(values))
    assert not summary.isna().any(axis=None)


def test_a_summary_of_one_seed_is_empty_where_it_has_no_number(density, tmp_path):
    summary = tables.density_summary(density[density["seed"] == 3])
    empty = set(summary.columns[summary.isna().any()])
    ends = ("_std", "_low", "_high")
    assert empty == {column for column in summary if column.endswith(ends)}
    tables.check_cells(summary, "density_summary")
    write_csv(tmp_path / "summary.csv", summary)
    read = pd.read_csv(tmp_path / "summary.csv")  # by plain pandas, as an analyst does
    measures = [column for column in read if column.startswith(("bpd", "log_likelihood"))]
    assert (read[measures].dtypes == np.float64).all()
    assert read.groupby(tables.MODEL_KEYS).ngroups == len(read)  # no key is dropped


def test_a_summary_with_an_infinite_seed(density):
    summary = tables.density_summary(
        density.assign(bpd=density["bpd"].where(density["seed"] > 0, np.inf))
    )
    assert np.isinf(summary["bpd_mean"]).all()
    assert summary[["bpd_low", "bpd_high", "bpd_std"]].isna().all(axis=None)
    assert np.isfinite(summary["bpd_median"]).all()


@pytest.mark.parametrize("column", ["n_images", "n_parameters"])
def test_summary_refuses_seeds_measured_differently(density, column):
    table = density.copy()
    table.loc[0, column] = 7
    with pytest.raises(InputError, match=column):
        tables.density_summary(table)


def test_summary_names_all_code_versions(density):
    table = density.copy()
    before = tables.density_summary(table)["code_version"]
    table.loc[0, "code_version"] = "zzz"
    after = tables.density_summary(table)["code_version"]
    assert after[before != after].tolist() == [f"{before[0]}+zzz"]


def test_gather_joins_and_sorts(density):
    parts = {f"{s}.csv": density[density["seed"] == s] for s in (4, 2, 0, 1, 3)}
    gathered = tables.gather(parts, "density")
    assert list(gathered.columns) == list(density.columns)
    expected = density.sort_values([*tables.KEYS, "split"], ignore_index=True)
    pd.testing.assert_frame_equal(gathered, expected)
    backwards = tables.gather(dict(reversed(parts.items())), "density")
    pd.testing.assert_frame_equal(gathered, backwards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiment": "other"}, "experiment"),
        ({"dataset": "other"}, "dataset"),
        ({"n_images": 3}, "n_images"),
        ({"bpd": np.nan}, "bpd"),
        ({"grid": None}, "grid"),
        ({"seed": 0}, "twice"),
        ({"new": 1}, "columns"),
    ],
)
def test_gather_names_the_files_it_refuses(density, change, message):
    parts = {"zero.csv": density[density["seed"] == 0], "one.csv": density[density["seed"] == 1]}
    parts["one.csv"] = parts["one.csv"].assign(**change)
    with pytest.raises(InputError, match=message) as raised:
        tables.gather(parts, "density")
    assert "one.csv" in str(raised.value)


def test_check_complete_names_what_is_missing(density):
    expected = density[tables.KEYS]
    tables.check_complete(density, expected)
    lacking = density[~((density["seed"] == 2) & (density["method"] == "cm"))]
    with pytest.raises(InputError, match=r"method=cm .*seed=2"):
        tables.check_complete(lacking, expected)
    with pytest.raises(InputError, match="bpd"):
        tables.check_complete(density.assign(bpd=np.nan), expected)


def test_largest_models_have_their_standard_weights(density):
    largest = tables.largest_models(inpainting_table(density))
    assert set(largest.loc[largest["method"] == "exm", "weights"]) == {"prior"}
    assert set(largest.loc[largest["method"] == "exm", "codebook_size"]) == {96}
    assert set(largest.loc[largest["method"] == "dmrs", "weights"]) == {"uniform"}
    assert set(largest.loc[largest["method"] == "dmrs", "n_components"]) == {16}
    assert set(largest.loc[largest["method"] == "einet", "size"]) == {30}


def test_model_sizes_and_timings():
    trained = {
        "a.json": record(),
        "b.json": record(seed=1, settings={"learning_rate": 1e-3, "seed": 1}),
        "c.json": record(model="cm", grid="-", codebook_size=0, parameters={"decoder": 7}),
    }
    sizes = runs.model_sizes(trained)
    assert list(sizes["model"]) == ["cm"] + 6 * ["vqvae-2x2-K16"]
    encoder = sizes[(sizes["part"] == "encoder") & (sizes["seed"] == 1)].iloc[0]
    assert encoder["n_parameters"] == 10
    assert encoder["codebook_usage"] == 0.5
    assert sizes[["codebook_usage", "perplexity"]].notna().all(axis=None)
    times = runs.timings(trained)
    assert list(times["stopped_by"]) == ["patience"] * 3
    assert set(times.columns[times.isna().any()]) == {"commit"}


def test_what_a_record_has_no_number_of_is_empty(tmp_path):
    """An evaluation trains nothing, and a model without a codebook has no usage of one."""
    bare = record(model="cm", grid="-", codebook_size=0, parameters={"decoder": 7})
    for name in ("codebook_usage", "perplexity", "epochs_run", "best_epoch", "stopped_by"):
        del bare[name]
    del bare["best_validation"]
    trained = record(commit="763e916")
    made = {"model_sizes": runs.model_sizes, "timings": runs.timings}
    for name, table in made.items():
        write_csv(tmp_path / "table.csv", table({"a.json": trained, "b.json": bare}))
        read = read_csv(tmp_path / "table.csv")
        tables.check_cells(read, name)
        cm = read["model"] == "cm"
        empty = set(read.columns[read[cm].isna().any()])
        assert empty == {column for kind, column in EMPTY if kind == name}
        assert not read[~cm].isna().any(axis=None)
    assert read["commit"][~cm].tolist() == ["763e916"]  # no number
    assert (tmp_path / "table.csv").read_text().count(",4,3,patience,") == 1  # whole epochs


def test_keys_and_other_columns_are_never_empty(density):
    for column in ("grid", "bpd", "code_version"):
        broken = density.astype({column: object})
        broken.loc[0, column] = None
        assert column in refusal(tables.check_cells, broken, "density", "density.csv")
    for kind, column in EMPTY:
        assert column in COLUMNS[kind]
        assert column not in ROW_KEYS


@pytest.mark.parametrize(
    "change",
    [{"settings": {"learning_rate": 2e-3}}, {"experiment": "x"}, {"data_checksum": "4567"}],
)
def test_records_of_different_settings_or_data_are_refused(change):
    trained = {"a.json": record(), "b.json": record(seed=1, **change)}
    with pytest.raises(InputError, match=r"b\.json and a\.json"):
        runs.model_sizes(trained)


def test_a_record_without_a_key_is_named():
    broken = record()
    del broken["wall_seconds"]
    with pytest.raises(InputError, match=r"a\.json: no wall_seconds"):
        runs.timings({"a.json": broken})


def test_every_column_is_in_the_dictionary(density):
    inpainting = inpainting_table(density)
    made = {
        "density": density,
        "density_summary": tables.density_summary(density),
        "inpainting": inpainting,
        "inpainting_summary": tables.inpainting_summary(inpainting),
        "model_sizes": runs.model_sizes({"a.json": record()}),
        "timings": runs.timings({"a.json": record()}),
        "claims": claims.judge(density, inpainting, costs_table(), 0.99),
        "thresholds": claims.thresholds(),
    }
    for name, table in made.items():
        assert set(table.columns) == set(COLUMNS[name]), name
    assert set(made["model_sizes"]) == set(sizes_table())
    for name, table in {
        "costs": costs_table(),
        "history": history_table(),
        "codebook": codebook_table(),
    }.items():
        assert set(table.columns) <= set(COLUMNS[name]), name
    dictionary = data_dictionary()
    assert list(dictionary.columns) == list(COLUMNS["data_dictionary"])
    assert (dictionary[["unit", "meaning", "empty"]] != "").all(axis=None)


def test_reporting_never_imports_torch():
    code = (
        "import sys, vqdistill.reporting.figures, vqdistill.reporting.claims;"
        "import vqdistill.reporting.runs; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
