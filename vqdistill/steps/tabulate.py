"""Gather the metric files of all runs into the tables, and test the paper's claims on them."""

from pathlib import Path

import pandas as pd

from vqdistill.config import expected_models, settings_of_steps
from vqdistill.files import read_arrays, read_csv, write_arrays, write_csv
from vqdistill.provenance.records import check_files, read_record
from vqdistill.reporting import claims
from vqdistill.reporting.dictionary import data_dictionary
from vqdistill.reporting.names import GATHERED, TABLES
from vqdistill.reporting.records import check_settings, model_name, model_sizes, timings
from vqdistill.reporting.tables import (
    check_complete,
    density_summary,
    gather,
    gather_pictures,
    inpainting_summary,
    standard_weights,
)
from vqdistill.settings import Experiment
from vqdistill.steps.job import Job, run


def tabulate(job: Job) -> None:
    """Write every table of an experiment, complete or not at all."""
    records = {str(path): read_record(path) for path in job.paths("records")}
    selections = {str(path): read_record(path) for path in job.paths("selections")}
    made = [path for name in (*GATHERED, "pictures") for path in job.paths(name)]
    made += [history_of(path) for path in records if is_training(records[path])]
    check_files(made, [*records.values(), *selections.values()])
    check_settings(records | selections, settings_of_steps(job.settings))
    tables = {name: read_all(job.paths(name)) for name in GATHERED}
    expected = pd.DataFrame(expected_models(job.settings))
    check_complete(tables["density"], expected)
    tables["classifier"] = classifier_accuracy(records)
    accuracy = tables["classifier"]["test_accuracy"].iloc[0]
    tables["density_summary"] = density_summary(tables["density"])
    tables["inpainting_summary"] = inpainting_summary(tables["inpainting"])
    tables["model_sizes"] = model_sizes(records)
    tables["timings"] = timings(records)
    tables["history"] = histories(records)
    tables["claims"] = claims.judge(
        claims.Tables(tables["density"], tables["inpainting"], tables["costs"], accuracy)
    )
    tables["thresholds"] = claims.thresholds()
    tables["data_dictionary"] = data_dictionary()
    for name in TABLES:
        write_csv(job["tables"] / f"{name}.csv", tables[name])
    pictures = {path.parent.parent.name: read_arrays(path) for path in job.paths("pictures")}
    rows = shown_models(tables["density"])
    write_arrays(job["tables"] / "pictures.npz", gather_pictures(pictures, rows))
    first = next(iter(records.values()))  # all are of the same data, or were refused
    job.write_record("cpu", **{name: first[name] for name in ("dataset", "data_checksum")})


def read_all(paths: list[Path]) -> pd.DataFrame:
    """The rows of one kind of metric file of all runs, in a fixed order."""
    return gather({str(path): read_csv(path) for path in paths})


def classifier_accuracy(records: dict[str, dict]) -> pd.DataFrame:
    """The accuracy of the judge of completions on real test images."""
    record = next(r for r in records.values() if r["model"] == "classifier")
    keys = ("experiment", "dataset", "seed", "test_accuracy")
    return pd.DataFrame([{key: record[key] for key in keys}])


def histories(records: dict[str, dict]) -> pd.DataFrame:
    """The losses of all trainings, epoch by epoch."""
    parts = []
    for path, record in records.items():
        if is_training(record):
            columns = ["epoch", "train_loss", "validation_loss", "best"]
            table = read_csv(history_of(path))[columns]
            parts.append(table.assign(model=model_name(record), seed=record["seed"]))
    return gather({str(n): part for n, part in enumerate(parts)})


def is_training(record: dict) -> bool:
    """Whether a record is that of a training."""
    return record["step"].startswith("train")


def history_of(record: str) -> Path:
    """A training's history is beside its record."""
    return Path(record).with_name("history.csv")


def shown_models(density: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(teacher or model, method, label) of what figures show: the largest of a method and grid."""
    table = standard_weights(density).sort_values(["codebook_size", "size"], ascending=False)
    rows = []
    for method, grid in dict.fromkeys(zip(table["method"], table["grid"], strict=True)):
        one = table[(table["method"] == method) & (table["grid"] == grid)].iloc[0]
        if grid != "-":
            rows.append((f"{grid}-K{one['codebook_size']}", method, f"{method} {grid}"))
        else:
            rows.append((f"{method}-{one['size']}" if one["size"] else method, method, method))
    order = ["exm", "dmrs", "dmbs", "cm", "einet"]
    return sorted(rows, key=lambda row: (order.index(row[1]) if row[1] in order else 9, row))


if __name__ == "__main__":
    gathered = " ".join(f"{name}+" for name in (*GATHERED, "records", "selections", "pictures"))
    run(tabulate, Experiment, reads=gathered, writes="tables record")
