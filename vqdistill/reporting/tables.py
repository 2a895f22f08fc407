"""Tables gathered from many runs, and their summaries over seeds.

All tables are tidy: one observation a row, the seed a column. Keys are never empty; a measure that
there is none of is NaN, an empty cell. What each column means is in `dictionary.py`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from vqdistill.errors import InputError
from vqdistill.reporting.dictionary import (
    COLUMNS,
    DENSITY_METRICS,
    EMPTY,
    INPAINTING_METRICS,
    MODEL,
    OF_IMAGES,
    UNBOUNDED,
)
from vqdistill.reporting.names import MASKS
from vqdistill.reporting.style import METHODS

MODEL_KEYS = list(MODEL)
KEYS = [*MODEL_KEYS, "seed"]
ROW_KEYS = [*KEYS, "model", "part", "step", "split", "mask", "rank", "epoch"]  # tell rows apart
ROW_KEYS += ["block", "row", "column", "sigma", "grey"]
CONFIDENCE = 0.95


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval (low, high) of independent values, one per seed.

    One value has no interval, nor have values that are not finite: low and high are NaN.
    """
    values = np.asarray(values, dtype=np.float64)  # [n]
    mean = float(values.mean())
    if len(values) == 1 or not np.isfinite(values).all():
        return mean, math.nan, math.nan
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error)
    return mean, mean - half, mean + half


def geometric_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """exp of `t_interval` of the logarithms of values: it has no part below zero; NaN where one of
    them is not positive."""
    if np.min(values) <= 0:
        return math.nan, math.nan, math.nan
    return tuple(np.exp(t_interval(np.log(values))).tolist())


def gather(files: Mapping[str | Path, pd.DataFrame], kind: str) -> pd.DataFrame:
    """The rows of the tables of many runs, all of one kind, as one table, sorted by its keys;
    of no run a table without rows.

    Raises InputError, with the files named, where columns differ, a value is missing, a row occurs
    twice, or rows come from different experiments, data sets or numbers of images.
    """
    if not files:
        return pd.DataFrame(columns=list(COLUMNS[kind]))
    first = next(iter(files))
    for name, table in files.items():
        if list(table.columns) != list(files[first].columns):
            raise InputError(
                f"{name}: columns {list(table.columns)} differ from those of {first}; "
                "run the older step again"
            )
        check_cells(table, kind, name)
    table = pd.concat([t.assign(_file=str(name)) for name, t in files.items()], ignore_index=True)
    for column in [c for c in ("experiment", "dataset") if c in table]:
        _check_one_value(table, [], column)
    if "n_images" in table:
        _check_one_value(table, [c for c in ("split", "mask") if c in table], "n_images")
    keys = [column for column in ROW_KEYS if column in table]
    repeated = table[table.duplicated(keys, keep=False)]
    if len(repeated):
        raise InputError(
            f"{', '.join(sorted(set(repeated['_file'])))}: the same row "
            f"{repeated.iloc[0][keys].to_dict()} twice; give each run once"
        )
    return table.drop(columns="_file").sort_values(keys, ignore_index=True)


def density_summary(density: pd.DataFrame) -> pd.DataFrame:
    """Log-likelihood and BPD over seeds: means, intervals, medians and extremes."""
    return _summarise(density, [*MODEL_KEYS, "split"], DENSITY_METRICS)


def inpainting_summary(inpainting: pd.DataFrame) -> pd.DataFrame:
    """Every metric of inpainting over seeds: means, intervals, medians and extremes."""
    return _summarise(inpainting, [*MODEL_KEYS, "mask"], INPAINTING_METRICS)


def gather_pictures(
    runs: Mapping[str, Mapping[str, np.ndarray]], order: Sequence[tuple[str, Mapping]]
) -> dict[str, np.ndarray]:
    """The pictures of all models in one file, which figures read, from those of single runs.

    runs: arrays by teacher or model, with '<method>/samples', '/means', '/unconditional', and
    'truth' and 'hidden' of all. order: (teacher or model, keys of the model) of the figures' rows.
    """
    first = next(iter(runs.values()))
    gathered = {
        **{key: np.array([keys[key] for _, keys in order]) for key in order[0][1]},
        "masks": np.array(MASKS),
        "digits": np.arange(len(first["truth"])),
        "hidden": first["hidden"],
        "truth": first["truth"],
    }
    for kind in ("samples", "means", "unconditional"):
        parts = [runs[run][f"{keys['method']}/{kind}"] for run, keys in order]
        gathered[kind] = np.stack(parts)
    return gathered


def check_complete(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Raise InputError unless each row of `expected` (key columns) is in density.csv, without an
    empty cell."""
    check_cells(table, "density")
    keys = list(expected.columns)
    present = set(table[keys].itertuples(index=False, name=None))
    missing = [row for row in expected.itertuples(index=False, name=None) if row not in present]
    if missing:
        named = "; ".join(
            " ".join(f"{k}={v}" for k, v in zip(keys, row, strict=True)) for row in missing[:5]
        )
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"table: {len(missing)} of {len(expected)} expected rows are missing: {named}{more}; "
            "run the steps that make them"
        )


def standard_weights(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the weights that each method stands for: p(z) for ExM (Eq. 1), uniform for
    distilled models (Eq. 2) and CM, learned for EiNet."""
    return table[(table["weights"] == "prior") == (table["method"] == "exm")]


def mean_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """The table in which circuits that learn from samples have the mean of `n_parameters` over
    seeds, rounded: how many of their levels know classes is chosen in each seed anew."""
    keys = [key for key in MODEL_KEYS if key in table]
    means = table.groupby(keys)["n_parameters"].transform("mean").round().astype("int64")
    students = (table["grid"] != "-") & (table["weights"] == "learned")
    return table.assign(n_parameters=table["n_parameters"].where(~students, means))


def largest_models(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest model of each method and grid, with its standard weights.

    Largest by codebook, then by number of components, then by EiNet's K.
    """
    table = standard_weights(table)
    for column in ("codebook_size", "n_components", "size"):
        largest = table.groupby(["method", "grid"])[column].transform("max")
        table = table[table[column] == largest]
    return table


def in_order(models: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs (method, grid) of a table in the order of display."""
    order = list(METHODS)
    pairs = set(models[["method", "grid"]].itertuples(index=False, name=None))
    return sorted(pairs, key=lambda p: (order.index(p[0]) if p[0] in order else len(order), *p))


def _summarise(table: pd.DataFrame, keys: list[str], metrics: Iterable[str]) -> pd.DataFrame:
    """One row per key: n_seeds, and of each metric what `_over_seeds` says."""
    constants = ("n_images", "n_images_discrete", "n_scored", "n_parameters")
    constants = [column for column in constants if column in table]
    table = mean_sizes(table)
    for column in constants:
        _check_one_value(table, keys, column)
    rows = []
    for values, group in table.groupby(keys, sort=True):
        row = dict(zip(keys, values, strict=True))
        row |= {column: group[column].iloc[0] for column in constants}
        if "code_version" in group:
            row["code_version"] = "+".join(sorted(group["code_version"].unique()))
        row["n_seeds"] = len(group)
        for metric in metrics:
            row |= _over_seeds(metric, group[metric].to_numpy())
            for quantile in OF_IMAGES if metric in UNBOUNDED else ():
                name = f"{metric}_{quantile}"
                row[f"{name}_median"] = float(group[name].median())
        rows.append(row)
    return pd.DataFrame(rows)


def _over_seeds(metric: str, values: np.ndarray) -> dict[str, float]:
    """<metric>_mean, _std (n - 1), _low, _high, _median, _min, _max; where the metric is positive
    and without a bound the geometric mean and interval too."""
    mean, low, high = t_interval(values)
    deviation = values.std(ddof=1) if np.isfinite([low, high]).all() else math.nan
    found = {"mean": mean, "std": float(deviation), "low": low, "high": high}
    found |= {"median": float(np.median(values))}
    found |= {"min": float(values.min()), "max": float(values.max())}
    if metric in UNBOUNDED:
        ends = zip(("mean", "low", "high"), geometric_interval(values), strict=True)
        found |= {f"geometric_{end}": value for end, value in ends}
    return {f"{metric}_{name}": value for name, value in found.items()}


def check_cells(table: pd.DataFrame, kind: str, name: str | Path = "table") -> None:
    """Raise InputError where a cell is empty that must not be in a table of this kind."""
    empty = [c for c in table.columns[table.isna().any()] if (kind, c) not in EMPTY]
    if empty:
        raise InputError(
            f"{name}: no value in column {', '.join(empty)}, expected one in every row;"
            " run its step again"
        )


def _check_one_value(table: pd.DataFrame, keys: list[str], column: str) -> None:
    """Raise InputError where rows that share their keys differ in a column."""
    groups = table.groupby(keys) if keys else [("all rows", table)]
    for key, group in groups:
        found = sorted({str(value) for value in group[column]})
        if len(found) > 1:
            files = sorted(set(group["_file"])) if "_file" in group else []
            where = f"{', '.join(map(str, files))}: " if files else "table: "
            raise InputError(
                f"{where}{column} is {' and '.join(found)} within {key}, expected one; "
                "rows of different settings or data cannot be mixed, run the older ones again"
            )
