"""Tables of sizes and timings, from the records of the runs that made the models.

A record is a flat dictionary. Needed in each: experiment, dataset, step, model ('vqvae', 'prior',
'cm', 'einet', ...), seed, settings (resolved, a dictionary), code_version, device (text),
wall_seconds, peak_memory_mb. Where they apply: grid, codebook_size, size; parameters ({part: n});
codebook_usage, perplexity; epochs_run, best_epoch, best_validation, stopped_by; commit.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from vqdistill.errors import InputError, make_anew

REQUIRED = [
    "experiment", "dataset", "step", "model", "seed", "settings", "code_version", "device",
    "wall_seconds", "peak_memory_mb",
]  # fmt: skip
SORTED_BY = ["model", "grid", "codebook_size", "size", "seed"]


def check_records(records: Mapping[str | Path, dict]) -> None:
    """Raise InputError, naming the files, where records lack a key or can't be shown together.

    Together can stand: records of one experiment and data set, in which the runs of one model
    that differ in the seed alone have the same settings.
    """
    seen: dict[tuple, tuple[str | Path, str]] = {}
    for name, record in records.items():
        missing = [key for key in REQUIRED if key not in record]
        if missing:
            raise InputError(f"{name}: no {', '.join(missing)} in this record; {make_anew(name)}")
        settings = {k: v for k, v in record["settings"].items() if k != "seed"}
        shared = {
            ("data",): [record["experiment"], record["dataset"], record.get("data_checksum", "-")],
            ("settings", record["step"], model_name(record)): settings,
        }
        for key, value in shared.items():
            text = json.dumps(value, sort_keys=True)
            first, expected = seen.setdefault(key, (name, text))
            if text != expected:
                raise InputError(
                    f"{name} and {first}: different {key[0]} ({text} and {expected}), "
                    "expected the same; run the older one again"
                )


def check_settings(
    records: Mapping[str | Path, dict], expected: Mapping[tuple[str, str], dict]
) -> None:
    """Raise InputError, naming the file, where a record's settings are not those of the experiment.

    expected: the settings by step and teacher or model, such as ('distil', '2x2-K16').
    """
    for path, record in records.items():
        model = model_name(record)
        settings = expected.get((record["step"], model.removeprefix("selection-")))
        if settings is None:
            raise InputError(f"{path}: {model} is no part of this experiment; leave it out")
        for key in sorted(settings | record["settings"]):
            found, wanted = record["settings"].get(key, "-"), settings.get(key, "-")
            if found != wanted:
                raise InputError(
                    f"{path}: made with {key} = {found}, but the configuration says {wanted};"
                    f" {make_anew(path)}"
                )


def model_name(record: dict) -> str:
    """Name of a model without its seed: 'vqvae-2x2-K16', 'prior-4x4-K4096', 'cm', 'einet-4'."""
    name = record["model"]
    if record.get("grid", "-") != "-":
        name += f"-{record['grid']}-K{record['codebook_size']}"
    if record.get("size", 0):
        name += f"-{record['size']}"
    return name


def model_sizes(records: Mapping[str | Path, dict]) -> pd.DataFrame:
    """Number of parameters of each part of each model, with the usage of its codebook.

    One row per record and part ('encoder', 'codebook', 'decoder', 'prior', 'circuit');
    codebook_usage and perplexity are those of the training codes, NaN where there is no codebook.
    """
    check_records(records)
    rows = [
        model_keys(record)
        | {
            "part": part,
            "n_parameters": int(number),
            "codebook_usage": float(record.get("codebook_usage", math.nan)),
            "perplexity": float(record.get("perplexity", math.nan)),
        }
        for record in records.values()
        for part, number in record.get("parameters", {}).items()
    ]
    return pd.DataFrame(rows).sort_values([*SORTED_BY, "part"], ignore_index=True)


def timings(records: Mapping[str | Path, dict]) -> pd.DataFrame:
    """What each run took and how its training ended, one row per record."""
    check_records(records)
    rows = [
        {"step": record["step"]}
        | model_keys(record)
        | {
            "device": record["device"],
            "wall_seconds": float(record["wall_seconds"]),
            "peak_memory_mb": float(record["peak_memory_mb"]),
            "epochs_run": record.get("epochs_run"),
            "best_epoch": record.get("best_epoch"),
            "stopped_by": record.get("stopped_by"),
            "best_validation": float(record.get("best_validation", math.nan)),
            "code_version": record["code_version"],
            "commit": record.get("commit"),
        }
        for record in records.values()
    ]
    table = pd.DataFrame(rows).astype({"epochs_run": "Int64", "best_epoch": "Int64"})
    return table.sort_values(["step", *SORTED_BY], ignore_index=True)


def model_keys(record: dict) -> dict:
    """The keys of a trained model, as columns of the tables."""
    return {
        "experiment": record["experiment"],
        "dataset": record["dataset"],
        "model": model_name(record),
        "grid": record.get("grid", "-"),
        "codebook_size": int(record.get("codebook_size", 0)),
        "size": int(record.get("size", 0)),
        "seed": int(record["seed"]),
    }
